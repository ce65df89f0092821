"""How Lightning writes and reads checkpoints here: whole, sealed, and with the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO

from videogn.training.checkpoint import LAST, PREVIOUS
from videogn.training.seal import save


class SealedCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes best.ckpt cut off where the disk is full, and names a temporary file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises OSError, by the path, where it cannot be written; what was there stays."""
        path = Path(path)
        save(checkpoint, path, path.with_name(PREVIOUS) if path.name == LAST else None)
