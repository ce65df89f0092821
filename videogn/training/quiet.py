"""Lightning without its advertisements, and a line instead of a traceback where memory runs out or a loader's worker ends."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from videogn.training.datamodule import CANNOT_HAND_OVER
from videogn.types import Findings, InputError, OutOfMemory, StorageError


def quiet() -> None:
    """Only what a user can act upon is left: Lightning's remarks on the machine and on worker counts are not."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",
        ".*srun.*",
        "The PyTorch Profiler default schedule will be overridden.*",  # it takes what steps there are
        ".*Profiler clears events at the end of each cycle.*",
        r"The epoch parameter in `scheduler\.step\(\)`.*",  # older SequentialLRs give it themselves
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)


@contextmanager
def guarded(batch_size: int, clip_length: int, crop_size: int, shapes: str = "") -> Iterator[None]:
    """Turns torch's out-of-memory errors into OutOfMemory, the end of a loader's worker, or its fault, into Findings, and an
    operation that is not deterministic, where that is asked for, into InputError.

    Args:
        batch_size, clip_length, crop_size: of the batches, to say what was too large.
        shapes: in words, the others that batches may have had.
    """
    try:
        yield
    except StorageError as error:  # from a worker, the loader puts its traceback before the message
        raise Findings(str(error).splitlines()[-1].partition(f"{StorageError.__name__}: ")[2] or str(error)) from None
    except (torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if text.startswith("DataLoader worker"):
            raise Findings(_worker_ended(error)) from None
        if (operation := text.partition(" does not have a deterministic implementation, but you set"))[1]:
            raise InputError(
                f"trainer.deterministic=true: {operation[0]} does not have a deterministic implementation here; "
                "trainer.deterministic=warn runs it all the same and says so"
            ) from None
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        raise OutOfMemory(
            f"batch_size={batch_size} clips of {clip_length} x {crop_size} x {crop_size}{shapes}{peak}: {text.splitlines()[0]}; "
            f"try batch_size={max(1, batch_size // 2)}: with norm=group_norm the accuracy does not depend on it"
        ) from None


def _worker_ended(error: BaseException) -> str:
    """What to do about it. The loader says that a worker ended, and its cause how."""
    how = str(error.__cause__ or "") or str(error)
    if f"exit code {CANNOT_HAND_OVER}." in how:
        return (
            "a loader's worker had no room in /dev/shm for a batch, or too many files open; give it more (a container by "
            "--shm-size=8g or --ipc=host, files by ulimit -n), take fewer num_workers, or num_workers=0, which needs neither"
        )
    return (
        f"a loader's worker ended: {how.splitlines()[0].strip(' .')}; memory may have run out: take fewer num_workers or a "
        "smaller batch_size"
    )
