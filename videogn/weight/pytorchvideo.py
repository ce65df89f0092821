"""pytorchvideo's model zoo: I3D, C2D, Slow, R(2+1)D, SlowFast, CSN and X3D."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.types import InputError
from videogn.weight.names import Rules, renamed
from videogn.weight.read import read_state
from videogn.weight.source import WeightSource

_BLOCK: Rules = [
    (r"\.branch1_conv\.", ".shortcut.0."),
    (r"\.branch1_norm\.", ".shortcut.1."),
    (r"\.branch2\.norm_b\.1\.", ".excite."),
    (r"\.branch2\.norm_b\.0\.", ".norm2."),
    *((rf"\.branch2\.(conv|norm)_{letter}\.", rf".\g<1>{number}.") for letter, number in zip("abc", "123", strict=True)),
    (r"\.conv2\.conv_t\.", ".conv2.first."),  # R(2+1)D: over time before space
    (r"\.conv2\.conv_xy\.", ".conv2.second."),
]
_SLOWFAST: Rules = [
    *(
        rule
        for number, stage in enumerate(("stem", "res2", "res3", "res4", "res5"))
        for rule in (
            (rf"^blocks\.{number}\.multipathway_blocks\.0\.(?:res_blocks\.)?", f"trunk.slow.{stage}."),
            (rf"^blocks\.{number}\.multipathway_blocks\.1\.(?:res_blocks\.)?", f"trunk.fast.{stage}."),
            (rf"^blocks\.{number}\.multipathway_fusion\.conv_fast_to_slow\.", f"trunk.lateral.{stage}.0."),
            (rf"^blocks\.{number}\.multipathway_fusion\.norm\.", f"trunk.lateral.{stage}.1."),
        )
    ),
    (r"\.stem\.(conv|norm)\.", r".stem.\g<1>1."),
    *_BLOCK,
    (r"^blocks\.6\.proj\.", "head."),
]


class Pytorchvideo(WeightSource):
    """Checkpoints of pytorchvideo's zoo, for the models of the same architecture; see WeightSource for the arguments.

    Source: github.com/facebookresearch/pytorchvideo, docs/source/model_zoo.md.
    """

    layout = "pytorchvideo"

    def read(self, path: Path) -> dict[str, Tensor]:
        state = read_state(path)
        if not any(name.startswith("blocks.") for name in state):
            raise InputError(f"{path}: has no tensor under blocks.; give a file of pytorchvideo's zoo")
        return state

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if any(".multipathway_blocks." in name for name in state):
            return renamed(state, _SLOWFAST)
        blocks = (re.match(r"blocks\.(\d{1,3})\.res_blocks\.", name) for name in state)
        stages = sorted({int(block[1]) for block in blocks if block})
        head = 1 + max(stages, default=0)
        return renamed(
            state,
            [
                (r"^blocks\.0\.conv\.conv_t\.", "trunk.conv1.0."),  # X3D's stem, where conv_t is over space
                (r"^blocks\.0\.conv\.conv_xy\.", "trunk.conv1.1."),
                (r"^blocks\.0\.(conv|norm)\.", r"trunk.\g<1>1."),
                # I3D and C2D count the pool after the first stage as a block.
                *((rf"^blocks\.{block}\.res_blocks\.", f"trunk.res{stage}.") for stage, block in enumerate(stages, start=2)),
                *_BLOCK,
                (rf"^blocks\.{head}\.pool\.pre_conv\.", "trunk.conv5."),
                (rf"^blocks\.{head}\.pool\.pre_norm\.", "trunk.norm5."),
                (rf"^blocks\.{head}\.pool\.post_conv\.", "embedding."),
                (rf"^blocks\.{head}\.proj\.", "head."),
            ],
        )
