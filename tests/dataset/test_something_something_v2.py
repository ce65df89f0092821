"""Something-Something's JSON files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videogn.dataset.manifest import Manifest, read_classes
from videogn.dataset.something_something_v2 import SomethingSomethingV2
from videogn.types import InputError

TRAIN = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "42326",
        "label": "spreading margarine onto bread",
        "template": "Spreading [something] onto [something]",
        "placeholders": ["margarine", "bread"],
    },
]
VALIDATION = [
    {
        "id": "74225",
        "label": "spinning cube that quickly stops spinning",
        "template": "Spinning [something] that quickly stops spinning",
        "placeholders": ["cube"],
    }
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels").mkdir()
    (tmp_path / "20bn-something-something-v2").mkdir()
    contents = {"train": TRAIN, "validation": VALIDATION, "test": [{"id": "1420"}], "labels": {"Holding something": "1"}}
    for name, content in contents.items():
        (tmp_path / "labels" / f"something-something-v2-{name}.json").write_text(json.dumps(content))
    for video in ("78687", "42326", "74225", "1420"):
        (tmp_path / "20bn-something-something-v2" / f"{video}.webm").touch()
    return tmp_path


def read(root: Path, annotations: str | None = None) -> Manifest:
    return SomethingSomethingV2(str(root), annotations, "something_something_v2", 0.0, "error").manifest()


def test_a_template_without_its_brackets_is_the_class(root: Path) -> None:
    manifest = read(root)
    assert [(Path(e.path).name, e.label, e.split) for e in manifest.entries] == [
        ("78687.webm", "Holding something next to something", "train"),
        ("42326.webm", "Spreading something onto something", "train"),
        ("74225.webm", "Spinning something that quickly stops spinning", "val"),
    ]
    assert manifest.notes == ("1 test videos are published without a label: left out",)
    (root / "labels" / "test-answers.csv").write_text("1420;Closing something\n")
    assert [(Path(e.path).name, e.label) for e in read(root).split("test").entries] == [("1420.webm", "Closing something")]
    classes = read_classes("something_something_v2")
    assert manifest.classes == classes
    # Numbers of the published list of labels, which are a network's outputs.
    assert (classes[0], classes[173]) == ("Approaching something with your camera", "Wiping something off of something")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"train\.json: is no JSON file"),
        ("[" * 100_000, r"train\.json: is no JSON file"),
        ("\0", r"train\.json: the annotation holds zero bytes, as UTF-16"),
        ('{"a": 1}', r"train\.json: holds a dict; a list of videos was expected"),
        ('[{"template": "x"}]', r"train\.json video 1: no id; a video is an object with id and template"),
        (
            '[{"id": 1, "template": "Holding [something] up"}]',
            r"train\.json video 1: label 'Holding something up' is not one of the 174",
        ),
    ],
    ids=["open", "deep", "zero bytes", "object", "no id", "label"],
)
def test_what_is_wrong(root: Path, text: str, message: str) -> None:
    (root / "labels" / "something-something-v2-train.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(root)


def test_a_folder_without_annotations(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"holds no \*\.json; dataset\.annotations is the folder of something-something-v2-train"
    ):
        read(root, str(tmp_path / "empty"))
