"""What a checkpoint holds beside Lightning's state, and how one is read without trusting it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from videogn import __version__
from videogn.types import InputError

_KEY = "videogn"


class Describe(pl.Callback):
    """Puts the resolved configuration and the class names into every checkpoint: it needs nothing else to be used.

    Args:
        config: plain data (dict, list, str, int, float, bool, None), preprocessing included.
        classes: the class names, in the order of the network's outputs.
        manifest_sha256: of the data, see `Manifest.sha256`.
        command_line: the words with which the training began, without the program.
        costs: `seconds` and `peak_memory_bytes` of the training so far, those of the processes before this one included.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        classes: tuple[str, ...],
        manifest_sha256: str,
        command_line: Sequence[str],
        costs: Callable[[], Mapping[str, float]],
    ) -> None:
        self._costs = costs
        self._description = {
            "version": __version__,
            "config": dict(config),
            "classes": list(classes),
            "manifest_sha256": manifest_sha256,
            "command_line": list(command_line),
        }

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = {**self._description, **self._costs()}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read; its configuration has not been checked yet.

    Attributes:
        path: the .ckpt.
        config: as stored.
        classes: the class names.
        weights: the network's state_dict.
        epoch, step: where training stood.
        manifest_sha256: of the data; None in an old checkpoint.
        command_line: the words with which the training began, without the program; empty in an old checkpoint.
        seconds, peak_memory_bytes: of the training until then, over all its processes; 0 in an old checkpoint.
    """

    path: Path
    config: dict[str, Any]
    classes: tuple[str, ...]
    weights: dict[str, Tensor]
    epoch: int
    step: int
    manifest_sha256: str | None
    command_line: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_memory_bytes: int = 0


def checkpoint_path(path: str | Path) -> Path:
    """The .ckpt that a run folder (its last.ckpt, as the paper reports) or a file name means.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    last = path / "checkpoint" / "last.ckpt"
    if path.is_dir() and not last.is_file():
        raise InputError(f"{path}: no checkpoint/last.ckpt in this folder; give a run folder or a .ckpt")
    if not path.exists():
        raise InputError(f"{path}: no such run folder or checkpoint; correct the path")
    if not path.is_dir() and not path.is_file():  # such as a pipe, which would be waited for
        raise InputError(f"{path}: neither a folder nor a file; give a run folder or a .ckpt")
    return last if path.is_dir() else path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read tensors and plain data from a run's checkpoint; nothing that it names is imported or run.

    Raises:
        InputError: no checkpoint, a corrupt one, or one of another program.
    """
    path = checkpoint_path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make the unpickler fail in any way
        raise InputError(
            f"{path}: cannot be read as a checkpoint, it is damaged or of another program ({type(error).__name__}); "
            "give one that videogn wrote"
        ) from error
    try:
        description = content[_KEY]
        weights = {
            name.removeprefix("network."): value for name, value in content["state_dict"].items() if name.startswith("network.")
        }
        manifest_sha256 = description.get("manifest_sha256")
        return Checkpoint(
            path,
            description["config"],
            tuple(description["classes"]),
            weights,
            int(content["epoch"]),
            int(content["global_step"]),
            manifest_sha256 if isinstance(manifest_sha256, str) else None,
            tuple(map(str, description.get("command_line", ()))),
            float(description.get("seconds", 0.0)),
            int(description.get("peak_memory_bytes", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise InputError(f"{path}: a checkpoint of another program; give one that videogn wrote") from None
