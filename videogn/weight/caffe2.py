"""The names of Caffe2's ResNets, of Detectron, video-nonlocal-net and PySlowFast alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from videogn.types import InputError
from videogn.weight.names import Rules, renamed
from videogn.weight.read import read_pickle, tensors

# w, b of a convolution; s, b, rm, riv (which holds the variance) of a norm.
_RULES: Rules = [
    (r"^(t_)?conv1_(?:bn|gn)_", r"\1trunk.norm1_"),
    (r"^(t_)?res_conv1_bn_", r"\1trunk.norm1_"),
    (r"^(t_)?conv1_w$", r"\1trunk.conv1.weight"),
    (r"^(t_)?res(\d)_(\d+)_branch1_(?:bn|gn)_", r"\1trunk.res\2.\3.shortcut.1_"),
    (r"^(t_)?res(\d)_(\d+)_branch1_w$", r"\1trunk.res\2.\3.shortcut.0.weight"),
    *(
        rule
        for letter, number in zip("abc", "123", strict=True)
        for rule in (
            (rf"^(t_)?res(\d)_(\d+)_branch2{letter}_(?:bn|gn)_", rf"\1trunk.res\2.\3.norm{number}_"),
            (rf"^(t_)?res(\d)_(\d+)_branch2{letter}_w$", rf"\1trunk.res\2.\3.conv{number}.weight"),
        )
    ),
    (r"^(?:pred|fc1000)_w$", "head.weight"),
    (r"^(?:pred|fc1000)_b$", "head.bias"),
    (r"_s$", ".weight"),
    (r"_b$", ".bias"),
    (r"_rm$", ".running_mean"),
    (r"_riv$", ".running_var"),
]
_LATERALS: Rules = [
    (r"^t_pool1_subsample_bn_", "trunk.lateral.stem.1_"),
    (r"^t_pool1_subsample_w$", "trunk.lateral.stem.0.weight"),
    (r"^t_res(\d)_\d+_branch2c_bn_subsample_bn_", r"trunk.lateral.res\1.1_"),
    (r"^t_res(\d)_\d+_branch2c_bn_subsample_w$", r"trunk.lateral.res\1.0.weight"),
]


def read_blobs(path: Path) -> dict[str, Tensor]:
    """The arrays of a Caffe2 pickle, under `blobs` or directly; those of its optimiser are left out."""
    content: Any = read_pickle(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, and a pickle of Caffe2's blobs was expected")
    blobs = content.get("blobs", content)
    if isinstance(blobs, Mapping):
        blobs = {name: value for name, value in blobs.items() if not str(name).endswith("_momentum")}
    return tensors(blobs, path)


def names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a blob -> name in ResNet3D or, where blobs of a fast pathway (t_) are among them, in SlowFast."""
    known = {
        name: new
        for name, new in renamed(state, [*_LATERALS, *_RULES]).items()
        if new.startswith(("trunk.", "t_trunk.", "head."))
    }
    if not any(name.startswith("t_") for name in state):
        return known
    return {name: _in_pathway(new) for name, new in known.items()}


def _in_pathway(name: str) -> str:
    if name.startswith(("trunk.lateral.", "head.")):
        return name
    pathway = "fast" if name.startswith("t_") else "slow"
    layer = name.removeprefix("t_").removeprefix("trunk.")
    return f"trunk.{pathway}.{layer if layer.startswith('res') else 'stem.' + layer}"
