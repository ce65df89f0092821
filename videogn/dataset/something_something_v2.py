"""Something-Something V2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videogn.dataset.published import PublishedSet, Row, label_of, split_of
from videogn.dataset.text import read_lines, read_text
from videogn.types import InputError


class SomethingSomethingV2(PublishedSet):
    """Videos <id>.webm, with JSON files of {id, template}; a template is a class once its brackets are gone.

    Files whose name says train, validation or test are read; the templates of the test are in test-answers.csv, and without it
    the test is left out. Left and right are classes: flip=0. See PublishedSet for the arguments.

    Source: Goyal et al., The "something something" video database for learning and evaluating visual common sense, ICCV 2017,
    arXiv:1706.04261.
    """

    name = "something_something_v2"
    needs = "something-something-v2-train.json and -validation.json (or train.json, validation.json)"
    folders = ("labels", "annotations")

    def rows(self, classes: Sequence[str]) -> Iterator[Row]:
        answers: dict[str, str] = {}
        for path in self.annotations.glob("test-answers.csv"):
            answers |= {video: label for video, _, label in (line.partition(";") for line in read_lines(path, "annotation"))}
        for path in self.annotation_files("*.json"):
            if not any(word in path.stem for word in ("train", "val", "test")):
                continue  # the list of labels
            for number, video in enumerate(_videos(path), start=1):
                place = f"{path} video {number}"
                if not isinstance(video, dict) or "id" not in video:
                    raise InputError(f"{place}: no id; a video is an object with id and template")
                name = str(video["id"])
                template = str(video.get("template") or answers.get(name, "")).replace("[", "").replace("]", "")
                label = label_of(template, classes, place) if template else ""
                yield Row(name, label, split_of(path.stem, str(path)), name, f"{name}.webm")


def _videos(path: Path) -> list[Any]:
    try:
        content = json.loads(read_text(path, "annotation"))
    except (ValueError, RecursionError) as error:  # of too many brackets within each other
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no JSON file: {error}") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: holds a {type(content).__name__}; a list of videos was expected")
    return content
