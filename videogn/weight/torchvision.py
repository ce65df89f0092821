"""torchvision's ResNets of images, and its video models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.weight.names import RESNET, renamed, stage_rules
from videogn.weight.read import read_state
from videogn.weight.source import WeightSource

_VIDEO_END = [*stage_rules(r"^layer{}\.", 1), (r"\.downsample\.", ".shortcut."), (r"^fc\.", "head.")]
_R3D = [
    (r"^stem\.0\.", "trunk.conv1."),
    (r"^stem\.1\.", "trunk.norm1."),
    (r"\.conv(\d)\.0\.", r".conv\1."),
    (r"\.conv(\d)\.1\.", r".norm\1."),
    *_VIDEO_END,
]
_R2PLUS1D = [
    (r"^stem\.0\.", "trunk.conv1.first."),
    (r"^stem\.1\.", "trunk.conv1.norm."),
    (r"^stem\.3\.", "trunk.conv1.second."),
    (r"^stem\.4\.", "trunk.norm1."),
    (r"\.conv(\d)\.1\.", r".norm\1."),
    (r"\.conv(\d)\.0\.0\.", r".conv\1.first."),
    (r"\.conv(\d)\.0\.1\.", r".conv\1.norm."),
    (r"\.conv(\d)\.0\.3\.", r".conv\1.second."),
    *_VIDEO_END,
]


class Torchvision(WeightSource):
    """resnet18 to resnet152 for ResNet3D, r3d_18 for r3d_18, r2plus1d_18 for r2plus1d_18; see WeightSource for the arguments.

    Source: torchvision.models.resnet, torchvision.models.video.resnet.
    """

    layout = "torchvision"

    def read(self, path: Path) -> dict[str, Tensor]:
        return read_state(path)

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "stem.0.weight" in state:
            return renamed(state, _R2PLUS1D if "stem.3.weight" in state else _R3D)
        return renamed(state, RESNET)
