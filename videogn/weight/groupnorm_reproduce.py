"""The ResNets of images with group norm of github.com/ppwwyyxx/GroupNorm-reproduce, from PyTorch and from TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.types import InputError
from videogn.weight.names import RESNET, renamed
from videogn.weight.read import read_npz, read_state, tensors
from videogn.weight.source import WeightSource

_TENSORPACK = [
    (r":0$", ""),
    (r"^conv0/W$", "trunk.conv1.weight"),
    (r"^conv0/gn/", "trunk.norm1/"),
    (r"^group(\d)/block(\d+)/convshortcut/W$", r"group\1/block\2/shortcut.0.weight"),
    (r"^group(\d)/block(\d+)/convshortcut/gn/", r"group\1/block\2/shortcut.1/"),
    (r"/conv(\d)/W$", r"/conv\1.weight"),
    (r"/conv(\d)/gn/", r"/norm\1/"),
    (r"/gamma$", ".weight"),
    (r"/beta$", ".bias"),
    *((rf"^group{number}/block(\d+)/", rf"trunk.res{number + 2}.\1.") for number in range(4)),
    (r"^linear/W$", "head.weight"),
    (r"^linear/b$", "head.bias"),
]


class GroupNormReproduce(WeightSource):
    """The .pth of its PyTorch training, or the .npz of its TensorFlow (tensorpack) training; see WeightSource for the arguments.

    The .npz counts a kernel's axes as (H, W, C, D) and was trained on B, G, R: conv1 is turned round.

    Source: github.com/ppwwyyxx/GroupNorm-reproduce, ImageNet-ResNet-PyTorch and ImageNet-ResNet-TensorFlow.
    """

    layout = "GroupNorm-reproduce"

    def read(self, path: Path) -> dict[str, Tensor]:
        if path.suffix.lower() == ".npz":
            return tensors(read_npz(path), path)
        state = read_state(path)
        if "gn1.weight" not in state:
            raise InputError(f"{path}: has no gn1.weight; give a file of GroupNorm-reproduce")
        return state

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        return renamed(state, _TENSORPACK if _is_tensorpack(state) else RESNET)

    def convert(self, state: Mapping[str, Tensor], name: str, value: Tensor) -> tuple[Tensor, str]:
        if not _is_tensorpack(state):
            return value, ""
        if name == "head.weight" and value.ndim == 2:
            return value.T, ""
        if value.ndim != 4:
            return value, ""
        value = value.permute(3, 2, 0, 1)
        return (value.flip(1), "B, G, R turned to R, G, B") if name == "trunk.conv1.weight" else (value, "")


def _is_tensorpack(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("conv0/W") for name in state)
