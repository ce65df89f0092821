"""How a checkpoint is read without trusting it, and without Lightning, whose import takes as long as a prediction."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from videogn.packing import check_unpacked_size
from videogn.training.seal import Damaged, check
from videogn.types import InputError

_log = logging.getLogger(__name__)

KEY = "videogn"  # in the checkpoint
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # in a run's folder `checkpoint`, the second until the training is over
_SAFETENSORS_KEY = "videogn_checkpoint"  # in the metadata


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
        num_processes: of the training, one a device; 0 in an old checkpoint.
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
    num_processes: int = 0


def checkpoint_path(path: str | Path) -> Path:
    """The .ckpt that a run folder (its last.ckpt, as the paper reports) or a file name means.

    Where last.ckpt is damaged or gone, previous.ckpt is taken, and said.

    Raises:
        InputError: there is none, or both are damaged.
    """
    path = Path(path)
    last = _whole_one(path / "checkpoint")
    if (path / "model.safetensors").is_file() and (path / "config.json").is_file():
        return path / "model.safetensors"  # a folder in the layout of a Hub repository
    if path.is_dir() and not last.is_file():
        if (path / "jobs.json").is_file():
            raise InputError(f"{path}: the folder of a sweep; give that of a job in it. The sweep's own command goes on with all")
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
    is_sealed_well = Path(path).is_dir()  # or the other would have been taken
    path = checkpoint_path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".onnx", ".pt2", ".xml"):
        raise InputError(f"{path}: a graph, which predict takes; here weights are needed: give the run, a .ckpt or .safetensors")
    try:
        if not is_sealed_well:
            check(path)
        check_unpacked_size(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make the unpickler fail in any way
        raise InputError(
            f"{path}: cannot be read as a checkpoint, it is damaged or of another program ({type(error).__name__}); "
            "give one that videogn wrote"
        ) from error
    try:
        description = content[KEY]
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
            int(description.get("num_processes", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise InputError(f"{path}: a checkpoint of another program; give one that videogn wrote") from None


def _whole_one(folder: Path) -> Path:
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        check(last)
    except (Damaged, OSError) as error:
        try:
            check(previous)
        except (Damaged, OSError):
            if isinstance(error, OSError):
                return last
            raise InputError(f"{last}: {error}, and there is no whole {PREVIOUS}; give another checkpoint") from None
        reason = error if isinstance(error, Damaged) else f"{error.strerror}"
        _log.warning("%s: %s; %s is taken, which is older", last, reason, previous.name)
        return previous
    return last


def _read_safetensors(path: Path) -> Checkpoint:
    """What `videogn export export=safetensors` wrote."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        description = json.loads(metadata[_SAFETENSORS_KEY])
        manifest_sha256 = description["manifest_sha256"]
        return Checkpoint(
            path,
            description["config"],
            tuple(map(str, description["classes"])),
            weights,
            int(description["epoch"]),
            int(description["global_step"]),
            manifest_sha256 if isinstance(manifest_sha256, str) else None,
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged, or without videogn's configuration ({type(error).__name__}); give one that `videogn export` wrote"
        ) from error
