"""What a checkpoint holds beside Lightning's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from videogn import __version__
from videogn.training.checkpoint import KEY


class Describe(pl.Callback):
    """Puts the resolved configuration and the class names into every checkpoint: it needs nothing else to be used.

    Args:
        config: plain data (dict, list, str, int, float, bool, None), preprocessing included.
        classes: the class names, in the order of the network's outputs.
        manifest_sha256: of the data, see `Manifest.sha256`.
        command_line: the words with which the training began, without the program.
        num_processes: of the training.
        costs: `seconds` and `peak_memory_bytes` of the training so far, those of the processes before this one included.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        classes: tuple[str, ...],
        manifest_sha256: str,
        command_line: Sequence[str],
        num_processes: int,
        costs: Callable[[], Mapping[str, float]],
    ) -> None:
        self._costs = costs
        self._description = {
            "version": __version__,
            "config": dict(config),
            "classes": list(classes),
            "manifest_sha256": manifest_sha256,
            "command_line": list(command_line),
            "num_processes": num_processes,
        }

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {**self._description, **self._costs()}
