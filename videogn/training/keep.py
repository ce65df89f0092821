"""Checkpoints that stay."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from videogn.number import is_count
from videogn.types import InputError


class Keep(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which can stand beside another one that watches the same.

    Without a `monitor` it saves at the end of its epochs, whether they have a validation or not; with one, after validation.

    Args:
        every_n_epochs: from 1 up.
        save_top_k: how many, the best by `monitor`; -1: all.
        monitor: a metric of val.
        options: Lightning's others.

    Raises:
        InputError: a number that is none of these, or the best by nothing.
    """

    def __init__(self, every_n_epochs: int = 1, save_top_k: int = -1, monitor: str | None = None, **options: Any) -> None:
        if not is_count(every_n_epochs, 1):
            raise InputError(f"callback.keep.every_n_epochs={every_n_epochs}: give a whole number from 1 up")
        if save_top_k != -1 and not is_count(save_top_k, 1):
            raise InputError(f"callback.keep.save_top_k={save_top_k}: give how many, from 1 up, or -1 for all")
        if save_top_k != -1 and monitor is None:
            raise InputError(
                f"callback.keep.save_top_k={save_top_k}: the best by what? give callback.keep.monitor=val/top1 as well"
            )
        super().__init__(
            monitor=monitor,
            save_top_k=save_top_k,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=monitor is None,
            **options,
        )
