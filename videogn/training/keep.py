"""Checkpoints that stay."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class Keep(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which can stand beside another one that watches the same.

    Without a `monitor` it saves at the end of its epochs, whether they have a validation or not; with one, after validation.
    """

    def __init__(self, monitor: str | None = None, **options: Any) -> None:
        super().__init__(monitor=monitor, save_on_train_epoch_end=monitor is None, **options)
