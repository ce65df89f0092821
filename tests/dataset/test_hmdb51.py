"""HMDB51's lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogn.dataset.hmdb51 import HMDB51
from videogn.dataset.manifest import Manifest
from videogn.types import InputError

# Names as they are: of one recording, with characters that break careless parsers, of a class in two words.
NAMES = {
    "shoot_ball": [f"#20_Rhythm_shoot_ball_u_nm_np1_fr_goo_{n}.avi" for n in range(2)]
    + [
        f"{film}_shoot_ball_u_cm_np1_fr_med_{n}.avi"
        for film in ("Kick(1)&_up!", "AmericanGangster", "50_FIRST")
        for n in range(3)
    ],
    "run": [f"{film}_run_f_cm_np1_ba_med_{n}.avi" for film in ("a", "b", "c", "d_run_e") for n in range(3)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for label, names in NAMES.items():
        (tmp_path / label).mkdir()
        for name in names:
            (tmp_path / label / name).touch()
        lines = [f"{name} {(1, 1, 1, 1, 1, 1, 1, 2, 2, 0, 0, 0)[place]} " for place, name in enumerate(names)]
        (lists / f"{label}_test_split1.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def read(root: Path, **settings: object) -> Manifest:
    defaults = {"annotations": None, "classes": "hmdb51", "flip": 0.5, "missing": "error"}
    defaults |= {"fold": 1, "val_fraction": 0.3, "split_seed": 0}
    return HMDB51(str(root), **{**defaults, **settings}).manifest()  # pyright: ignore[reportArgumentType]


def test_train_test_and_what_a_division_does_not_use(root: Path) -> None:
    manifest = read(root)
    published = {e.path for split in ("train", "val") for e in manifest.split(split).entries}
    assert published == {f"{label}/{name}" for label, names in NAMES.items() for name in names[:7]}
    assert {e.path for e in manifest.split("test").entries} == {
        f"{label}/{n}" for label, names in NAMES.items() for n in names[7:9]
    }
    assert {e.label for e in manifest.entries} == set(NAMES)


def test_val_takes_whole_recordings(root: Path) -> None:
    for seed in range(5):
        manifest = read(root, split_seed=seed)
        films = {s: {e.path.rpartition(f"_{e.label}_")[0] for e in manifest.split(s).entries} for s in ("train", "val")}
        assert films["val"]
        assert not films["train"] & films["val"]


def test_what_is_wrong(root: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \*_test_split2\.txt; dataset\.annotations is the folder of brush_hair_test"):
        read(root, fold=2)
    path = root / "testTrainMulti_7030_splits/run_test_split1.txt"
    path.write_text("a_run_f_cm_np1_ba_med_0.avi 3\n")
    with pytest.raises(
        InputError, match=r"run_test_split1\.txt line 1: 'a_run_f_cm_np1_ba_med_0\.avi 3'; a line is `name\.avi`, and"
    ):
        read(root)
    path.rename(path.with_name("runn_test_split1.txt"))
    with pytest.raises(InputError, match=r"label 'runn' is not one of the 51 classes; nearest: 'run'"):
        read(root)
