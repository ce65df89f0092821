"""Models built as a run builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from videogn.configuration import compose, instantiate

CONF = Path(__file__).parents[2] / "conf"
# Smaller than their users' clips, so that a training step takes a second.
CLIP_SIZES = {"i3d_r50": (16, 32, 32), "inception_i3d": (16, 64, 64)}
SIZE = (8, 32, 32)
# The same blocks and settings, deeper or for shorter clips: tests/test_contracts.py has them.
VARIANTS = {"i3d_r101", "i3d_r50_8x8", "i3d_r101_8x8", "r3d_34", "r3d_101", "r2plus1d_34", "x3d_xs", "x3d_s", "x3d_l"}
# Whose widths 32 does not divide; 1 does.
INDIVISIBLE = {"r2plus1d_18", "r2plus1d_34", "inception_i3d", "slowfast_r50", "x3d_xs", "x3d_s", "x3d_m", "x3d_l"}


def build(model: str, norm: str = "group_norm", num_classes: int = 5, conv: str = "plain", **changes: Any) -> nn.Module:
    """conf/model/<model>.yaml with conf/norm/<norm>.yaml, some keys of the model changed."""
    overrides = [f"model={model}", f"norm={norm}", f"conv={conv}", *(f"model.{key}={value}" for key, value in changes.items())]
    if model in INDIVISIBLE and norm == "group_norm":
        overrides.append("norm.num_groups=1")
    config = compose("inspect", overrides)
    return instantiate(config.model)(num_classes=num_classes, norm=instantiate(config.norm), conv=instantiate(config.conv))


@pytest.fixture(name="build")
def _build() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(params=sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - VARIANTS))
def model_name(request: pytest.FixtureRequest) -> str:
    """Each model in turn."""
    return request.param


@pytest.fixture
def clip_size(model_name: str) -> tuple[int, int, int]:
    """T, H, W of a clip for it."""
    return CLIP_SIZES.get(model_name, SIZE)


@pytest.fixture
def assert_equal() -> Callable[..., None]:
    return _assert_equal


def _assert_equal(
    ours: nn.Module, theirs: nn.Module, rename: Callable[[str], str], clips: torch.Tensor, theirs_clips: Any = None
) -> None:
    """Scores of the same weights: while training, and then with the statistics that two steps have moved."""
    generator = torch.Generator().manual_seed(0)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):  # away from 1, 0, where a mistake would hide
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    weights = theirs.state_dict()
    # A linear layer may be a convolution of one position there.
    ours.load_state_dict({name: weights.pop(rename(name)).reshape(own.shape) for name, own in ours.state_dict().items()})
    assert not weights
    # fp32: 84 of its roundings; fp64 leaves so much more that 5e5 of them are still nothing.
    roundings = 1e-5 if clips.dtype == torch.float32 else 1e-10
    with torch.no_grad():
        for training in (True, True, False):
            expected, scores = theirs.train(training)(list(theirs_clips) if theirs_clips else clips), ours.train(training)(clips)
            # The same convolutions and norms; a few roundings apart where the mean is taken in another order.
            torch.testing.assert_close(scores, expected, atol=roundings * expected.abs().max().item(), rtol=0)
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, state[rename(name)].reshape(value.shape), atol=0, rtol=1e-5)
