"""Which checkpoint a run folder means where its last one is damaged, in every way in which a copy or a disk damages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogn.training.checkpoint import KEY, checkpoint_path, read_checkpoint
from videogn.training.seal import save
from videogn.types import InputError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda whole: whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but its end": lambda whole: whole[:-200],
    "nothing": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of step 2, with the checkpoint of step 1 beside it."""
    for step in (1, 2):
        content = {
            "state_dict": {"network.weight": torch.arange(5000.0)},
            KEY: {"config": {}, "classes": ["a"]},
            "epoch": 0,
            "global_step": step,
        }
        save(content, tmp_path / "checkpoint/last.ckpt", tmp_path / "checkpoint/previous.ckpt")
    return tmp_path


def damage(path: Path, way: str) -> None:
    path.write_bytes(DAMAGES[way](path.read_bytes()))


def test_a_whole_one_is_taken(run: Path) -> None:
    assert read_checkpoint(run).step == 2


def test_the_folder_of_a_sweep_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").touch()
    with pytest.raises(InputError, match=r"the folder of a sweep; give that of a job in it\. The sweep's own command goes on"):
        checkpoint_path(tmp_path)


@pytest.mark.parametrize("way", DAMAGES)
def test_the_one_before_is_taken(run: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    damage(run / "checkpoint/last.ckpt", way)
    assert read_checkpoint(run).step == 1
    assert "previous.ckpt is taken, which is older" in caplog.text


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("is_there", [True, False])
def test_none_is_where_both_are_damaged_or_one_is_gone(run: Path, way: str, is_there: bool) -> None:
    damage(run / "checkpoint/last.ckpt", way)
    if is_there:
        damage(run / "checkpoint/previous.ckpt", way)
    else:
        (run / "checkpoint/previous.ckpt").unlink()
    for read in (read_checkpoint, checkpoint_path):
        with pytest.raises(InputError, match=r"last\.ckpt: .*, and there is no whole previous\.ckpt; give another checkpoint"):
            read(run)
