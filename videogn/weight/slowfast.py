"""PySlowFast's model zoo: I3D, C2D, Slow, SlowFast and X3D, as .pyth and as Caffe2 .pkl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.types import InputError
from videogn.weight import caffe2
from videogn.weight.names import Rules, renamed
from videogn.weight.read import read_state
from videogn.weight.source import WeightSource

_BLOCK: Rules = [
    (r"\.branch1_bn\.", ".shortcut.1."),
    (r"\.branch1\.", ".shortcut.0."),
    *(
        rule
        for letter, number in zip("abc", "123", strict=True)
        for rule in ((rf"\.branch2\.{letter}_bn\.", f".norm{number}."), (rf"\.branch2\.{letter}\.", f".conv{number}."))
    ),
    (r"\.branch2\.se\.fc1\.", ".excite.block.0."),
    (r"\.branch2\.se\.fc2\.", ".excite.block.2."),
]
_HEAD: Rules = [
    (r"^head\.conv_5_bn\.", "trunk.norm5."),
    (r"^head\.conv_5\.", "trunk.conv5."),
    (r"^head\.lin_5\.", "embedding."),
    (r"^head\.projection\.", "head."),
]
_ONE_PATHWAY: Rules = [
    (r"^s1\.pathway0_stem\.bn\.", "trunk.norm1."),
    (r"^s1\.pathway0_stem\.conv\.", "trunk.conv1."),
    (r"^s(\d)\.pathway0_res(\d+)\.", r"trunk.res\1.\2."),
    *_BLOCK,
    *_HEAD,
]
_X3D: Rules = [
    (r"^s1\.pathway0_stem\.conv_xy\.", "trunk.conv1.0."),
    (r"^s1\.pathway0_stem\.conv\.", "trunk.conv1.1."),
    *_ONE_PATHWAY,
]
_TWO_PATHWAYS: Rules = [
    *(
        rule
        for number, name in enumerate(("slow", "fast"))
        for rule in (
            (rf"^s1\.pathway{number}_stem\.bn\.", f"trunk.{name}.stem.norm1."),
            (rf"^s1\.pathway{number}_stem\.conv\.", f"trunk.{name}.stem.conv1."),
            (rf"^s(\d)\.pathway{number}_res(\d+)\.", rf"trunk.{name}.res\1.\2."),
        )
    ),
    (r"^s1_fuse\.conv_f2s\.", "trunk.lateral.stem.0."),
    (r"^s1_fuse\.bn\.", "trunk.lateral.stem.1."),
    (r"^s(\d)_fuse\.conv_f2s\.", r"trunk.lateral.res\1.0."),
    (r"^s(\d)_fuse\.bn\.", r"trunk.lateral.res\1.1."),
    *_BLOCK,
    *_HEAD,
]


class SlowFast(WeightSource):
    """For i3d_r50_slowfast, c2d_r50, slow_r50, slowfast_r50 and x3d_*; see WeightSource for the arguments.

    Its R50_IN1K.pyth, of images, inflates into the first three.

    Source: github.com/facebookresearch/SlowFast, MODEL_ZOO.md.
    """

    layout = "PySlowFast"

    def read(self, path: Path) -> dict[str, Tensor]:
        if path.suffix.lower() == ".pkl":
            return caffe2.read_blobs(path)
        state = read_state(path)
        if not any(name.startswith("s1.") for name in state):
            raise InputError(f"{path}: has no tensor under s1.; give a checkpoint of PySlowFast")
        return state

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "conv1_w" in state:
            return caffe2.names(state)
        if any(".pathway1_" in name for name in state):
            return renamed(state, _TWO_PATHWAYS)
        return renamed(state, _X3D if "s1.pathway0_stem.conv_xy.weight" in state else _ONE_PATHWAY)
