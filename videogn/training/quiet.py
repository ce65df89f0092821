"""Lightning without its advertisements, and a line instead of a traceback where memory runs out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from videogn.types import OutOfMemory


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
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)


@contextmanager
def guarded(batch_size: int, clip_length: int, crop_size: int) -> Iterator[None]:
    """Turns torch's out-of-memory errors into OutOfMemory."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        raise OutOfMemory(
            f"batch_size={batch_size} clips of {clip_length} x {crop_size} x {crop_size}{peak}: {text.splitlines()[0]}; try "
            f"batch_size={max(1, batch_size // 2)}: with norm=group_norm the accuracy does not depend on it"
        ) from None
