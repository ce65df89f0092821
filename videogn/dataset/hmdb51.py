"""HMDB51."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from videogn.dataset.published import FoldedSet, Row, label_of, table
from videogn.types import InputError

_SPLITS = {"1": "train", "2": "test"}  # 0 stands for videos that a division does not use


class HMDB51(FoldedSet):
    """Videos, and <class>_test_split1.txt to 3 with `name.avi number` a line.

    A name is that of the recording, the class, and properties of the clip (_f_cm_np1_fr_med_3). See FoldedSet for the
    arguments.

    Source: Kuehne et al., HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011.
    """

    name = "hmdb51"
    needs = "brush_hair_test_split1.txt and its like"
    folders = ("testTrainMulti_7030_splits", "annotations")

    def rows(self, classes: Sequence[str]) -> Iterator[Row]:
        ending = f"_test_split{self.fold}.txt"
        for path in self.annotation_files(f"*{ending}"):
            label = label_of(path.name.removesuffix(ending), classes, str(path))
            for number, words in table(path):
                if len(words) != 2 or words[1] not in ("0", "1", "2"):
                    raise InputError(f"{path} line {number}: {' '.join(words)!r}; a line is `name.avi`, and 0, 1 or 2")
                if words[1] in _SPLITS:
                    name = words[0].rpartition(".")[0]
                    yield Row(name, label, _SPLITS[words[1]], name.rpartition(f"_{label}_")[0] or name, f"{label}/{words[0]}")
