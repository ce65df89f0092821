"""timm's ResNets of images: with batch norm, with group norm, and BiT's with group norm and weight standardization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.weight.names import RESNET, renamed, stage_rules
from videogn.weight.read import read_state
from videogn.weight.source import WeightSource

# Before every convolution there, behind it here: the norm before conv2 is the one behind conv1. The norm of a block's input and
# the last of all (norm) have no counterpart, nor has our last norm of a block.
_PREACTIVATION = [
    (r"^stem\.conv\.", "trunk.conv1."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.norm1\.", r"preactivation.\1.\2."),
    (r"\.norm2\.", ".norm1."),
    (r"\.norm3\.", ".norm2."),
    (r"\.downsample\.conv\.", ".shortcut.0."),
    *stage_rules(r"^stages\.{}\.blocks\.", 2),
    (r"^head\.fc\.", "head."),
]


class Timm(WeightSource):
    """resnet50, resnet50_gn and their like, and resnetv2_50x1_bit; see WeightSource for the arguments.

    BiT's networks normalize before every convolution and ours behind it: their convolutions and what norms have a counterpart go
    over, but the result is not the same function, not even of a static clip. They are for conv=weight_standardized.

    Source: timm.models.resnet, timm.models.resnetv2; Kolesnikov et al., Big Transfer, arXiv:1912.11370.
    """

    layout = "timm"

    def read(self, path: Path) -> dict[str, Tensor]:
        return read_state(path)

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        return {
            source: name
            for source, name in renamed(state, _PREACTIVATION if _is_preactivation(state) else RESNET).items()
            if not name.startswith("preactivation.")
        }

    def notes(self, state: Mapping[str, Tensor]) -> list[str]:
        if not _is_preactivation(state):
            return []
        return [
            "warning: the file is of a network that normalizes before its convolutions, and this model behind them: its kernels "
            "are a start, but the model does not compute what that one does; the last norm of every block starts anew"
        ]


def _is_preactivation(state: Mapping[str, Tensor]) -> bool:
    return "stem.conv.weight" in state
