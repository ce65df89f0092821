"""What becomes of a run whose loader's workers end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from torch.utils.data._utils import signal_handling

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.evaluation.protocol import Protocol
from videogn.sampler.batches import EpochBatches
from videogn.sampler.random_clip import RandomClip
from videogn.sampler.uniform_clips import UniformClips
from videogn.training.datamodule import MAX_WORKERS, ClipData, TrainingSource
from videogn.training.quiet import guarded
from videogn.transform.augment import RandomShortSideCrop
from videogn.transform.views import Crops
from videogn.types import Findings, InputError, OutOfMemory, VideoError

NUM_VIDEOS = 6


class Unsent(str):
    """As a batch for which /dev/shm has no room: an error on its way out of the worker."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: Success (0)")


def no_room(path: str | Path) -> NoReturn:
    raise VideoError(path, Unsent("a reason"))


def killed(path: str | Path) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def left(path: str | Path) -> NoReturn:
    os._exit(3)


class Ending:
    """A decoder that does `what` when it opens a video."""

    name = "ending"

    def __init__(self, what: Callable[[str | Path], NoReturn]) -> None:
        self.what = what

    def open(self, path: str | Path) -> Any:
        self.what(path)


def data(folder: Path, decoder: Any, num_workers: int) -> ClipData:
    entries = [Entry(f"{n}.mp4", "ab"[n % 2], str(n), ("train", "val", "test")[n % 3]) for n in range(3 * NUM_VIDEOS)]
    protocol = Protocol(UniformClips(4, 1, 2), Crops(16, 16, 1))
    source = TrainingSource(
        [(RandomClip(4, 1), RandomShortSideCrop(16, [16, 16], 0.5))], lambda rank, ranks: EpochBatches(NUM_VIDEOS, 2, 0), 0
    )
    return ClipData(Manifest(folder, entries, ("a", "b")), decoder, {"two": protocol}, protocol, 2, num_workers, source)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        (no_room, r"a loader's worker had no room in /dev/shm for a batch, .*--shm-size=8g or --ipc=host.*num_workers=0"),
        (killed, r"a loader's worker ended: DataLoader worker \(pid.* is killed by signal: Killed; .*take fewer num_workers"),
        (
            left,
            r"a loader's worker ended: DataLoader worker \(pid.* exited unexpectedly with exit code 3.*take fewer num_workers",
        ),
    ],
)
def test_a_worker_that_ends_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: Any, message: str, split: str
) -> None:
    """And no hang: a batch that is lost on its way would be waited for without end."""
    # torch listens for the end of workers once a process, and a Trainer of another test took its handler away with its own.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    clips = data(tmp_path, Ending(what), 2)
    loader = getattr(clips, f"{split}_dataloader")()
    with pytest.raises(Findings, match=message) as caught, guarded(2, 4, 16):
        for _ in loader:
            pass
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_other_errors_pass() -> None:
    for error in (RuntimeError("Trying to resize"), ValueError("DataLoader worker")):
        with pytest.raises(type(error), match=re.escape(str(error))), guarded(2, 4, 16):
            raise error
    with pytest.raises(OutOfMemory), guarded(2, 4, 16):
        raise RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("num_workers", [-1, MAX_WORKERS + 1, 10**9])
def test_no_such_number_of_workers(tmp_path: Path, num_workers: int) -> None:
    with pytest.raises(InputError, match=f"num_workers={num_workers}: give a whole number of processes from 0 to 1024"):
        data(tmp_path, Ending(left), num_workers)
    data(tmp_path, Ending(left), MAX_WORKERS)
