"""mmaction2's checkpoints: TSN-like C2D, I3D, SlowOnly, SlowFast, CSN, R(2+1)D and X3D."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.types import InputError
from videogn.weight.names import Rules, renamed, stage_rules
from videogn.weight.read import read_state
from videogn.weight.source import WeightSource

_BLOCK: Rules = [
    (r"\.downsample\.conv\.", ".shortcut.0."),
    (r"\.downsample\.bn\.", ".shortcut.1."),
    (r"\.conv(\d)\.conv\.conv_s\.", r".conv\1.first."),
    (r"\.conv(\d)\.conv\.bn_s\.", r".conv\1.norm."),
    (r"\.conv(\d)\.conv\.conv_t\.", r".conv\1.second."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".norm\1."),
    (r"\.se_module\.fc1\.", ".excite.block.0."),
    (r"\.se_module\.fc2\.", ".excite.block.2."),
]
_HEAD: Rules = [(r"^cls_head\.fc_cls\.", "head."), (r"^cls_head\.fc1\.", "embedding."), (r"^cls_head\.fc2\.", "head.")]
_ONE_PATHWAY: Rules = [
    (r"^backbone\.conv1_s\.conv\.", "trunk.conv1.0."),  # X3D
    (r"^backbone\.conv1_t\.conv\.", "trunk.conv1.1."),
    (r"^backbone\.conv1_t\.bn\.", "trunk.norm1."),
    *stage_rules(r"^backbone\.layer{}\.", 1),
    (r"^backbone\.", "trunk."),
    *_BLOCK,
    *_HEAD,
]
_TWO_PATHWAYS: Rules = [
    (r"^backbone\.slow_path\.conv1_lateral\.conv\.", "trunk.lateral.stem.0."),
    (r"^backbone\.slow_path\.conv1_lateral\.bn\.", "trunk.lateral.stem.1."),
    *(
        rule
        for stage in range(2, 6)
        for rule in (
            (rf"^backbone\.slow_path\.layer{stage - 1}_lateral\.conv\.", f"trunk.lateral.res{stage}.0."),
            (rf"^backbone\.slow_path\.layer{stage - 1}_lateral\.bn\.", f"trunk.lateral.res{stage}.1."),
        )
    ),
    *(
        rule
        for pathway in ("slow", "fast")
        for rule in (
            *stage_rules(rf"^backbone\.{pathway}_path\.layer{{}}\.", 1, f"trunk.{pathway}."),
            (rf"^backbone\.{pathway}_path\.conv1\.", f"trunk.{pathway}.stem.conv1."),
        )
    ),
    *_BLOCK,
    *_HEAD,
]


class Mmaction(WeightSource):
    """Checkpoints of mmaction2, for the models of the same architecture; see WeightSource for the arguments.

    Its SlowFast may join the pathways by kernels over 5 frames: model.fusion_kernel=5.

    Source: github.com/open-mmlab/mmaction2, configs/recognition.
    """

    layout = "mmaction2"

    def read(self, path: Path) -> dict[str, Tensor]:
        state = read_state(path)
        if not any(name.startswith("backbone.") for name in state):
            raise InputError(f"{path}: has no tensor under backbone.; give a checkpoint of mmaction2")
        return state

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        two = any(name.startswith("backbone.slow_path.") for name in state)
        return renamed(state, _TWO_PATHWAYS if two else _ONE_PATHWAY)

    def notes(self, state: Mapping[str, Tensor]) -> list[str]:
        laterals = [name for name in state if "_lateral." in name]
        if not laterals or any("_lateral.bn." in name for name in laterals):
            return []
        return [
            "warning: the file's convolutions between the pathways have no norm and no ReLU behind them, and this model's have: "
            "it does not compute what that one does"
        ]
