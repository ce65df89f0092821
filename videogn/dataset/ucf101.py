"""UCF101."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from videogn.dataset.published import FoldedSet, Row, label_of, table


class UCF101(FoldedSet):
    """Videos v_<class>_g<group>_c<clip>, and trainlist01.txt, testlist01.txt to 03.

    The label is the folder that a list names: some files spell their class otherwise (HandstandPushups and
    v_HandStandPushups_g01_c01). See FoldedSet for the arguments.

    Source: Soomro et al., UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild, arXiv:1212.0402.
    """

    name = "ucf101"
    needs = "trainlist01.txt, testlist01.txt and their like"
    folders = ("ucfTrainTestlist", "annotations")

    def rows(self, classes: Sequence[str]) -> Iterator[Row]:
        for split in ("train", "test"):
            for path in self.annotation_files(f"{split}list0{self.fold}.txt"):
                for number, words in table(path):
                    file = PurePosixPath(words[0])
                    label = label_of(file.parent.name, classes, f"{path} line {number}")
                    yield Row(file.stem, label, split, re.sub(r"_c\d+$", "", file.stem), str(file))
