"""Our own runs, to go on from with other videos, classes or norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from videogn.types import InputError
from videogn.weight.read import read_torch, tensors
from videogn.weight.source import WeightSource


class Run(WeightSource):
    """A checkpoint of videogn: a .ckpt, or a run folder, which means its last.ckpt; see WeightSource for the arguments.

    The linear layer goes over where the classes are the same, in the same order.
    """

    layout = "videogn"

    def resolve(self) -> Path:
        path = super().resolve()
        last = path / "checkpoint" / "last.ckpt"
        if path.is_dir() and not last.is_file():
            raise InputError(f"{path}: no checkpoint/last.ckpt in this folder; give a run folder or a .ckpt as weight.path")
        return last if path.is_dir() else path

    def read(self, path: Path) -> dict[str, Tensor]:
        content = read_torch(path)
        try:
            description, state = content["videogn"], content["state_dict"]
            self._classes: Sequence[str] = tuple(description["classes"])
            self._norm: Mapping[str, Any] = dict(description["config"]["norm"])
        except (KeyError, TypeError, ValueError, IndexError):
            raise InputError(
                f"{path}: a checkpoint of another program; give one that videogn wrote, or choose its weight=SOURCE"
            ) from None
        return {
            name.removeprefix("network."): value for name, value in tensors(state, path).items() if name.startswith("network.")
        }

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        return {name: name for name in state}

    def head_differs(self, value: Tensor, own: Tensor, of_images: bool, classes: Sequence[str] | None) -> str:
        if classes is not None and tuple(classes) != self._classes:
            return f"its {len(self._classes)} classes are not these {len(classes)}: it starts anew"
        return super().head_differs(value, own, False, classes)

    def groups(self, channels: int) -> int | None:
        kind = str(self._norm.get("_target_", "")).rpartition(".")[2]
        if kind in ("LayerNorm", "InstanceNorm"):
            return 1 if kind == "LayerNorm" else channels
        by_size = self._norm.get("channels_per_group")
        number = by_size if by_size is not None else self._norm.get("num_groups") or 32
        if not isinstance(number, int) or number < 1:
            return None
        # As on_indivisible=nearest has it: of two equally near, the one with more values a group.
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        nearest = min(divisors if by_size is None else reversed(divisors), key=lambda divisor: abs(divisor - number))
        return nearest if by_size is None else channels // nearest
