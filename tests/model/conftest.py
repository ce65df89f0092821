"""Models built as a run builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from torch import nn

CONF = Path(__file__).parents[2] / "conf"
# Smaller than their users' clips, so that a training step takes a second.
CLIP_SIZES = {"i3d_r50": (16, 32, 32), "r3d_18": (8, 32, 32)}


def build(model: str, norm: str = "group_norm", num_classes: int = 5, **changes: Any) -> nn.Module:
    """conf/model/<model>.yaml with conf/norm/<norm>.yaml, some keys changed."""

    def load(path: str, **changes: Any) -> Callable[..., nn.Module]:
        return hydra.utils.instantiate(OmegaConf.merge(OmegaConf.load(CONF / path), changes))

    return load(f"model/{model}.yaml", **changes)(
        num_classes=num_classes, norm=load(f"norm/{norm}.yaml"), conv=load("conv/plain.yaml")
    )


@pytest.fixture(name="build")
def _build() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(params=sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def model_name(request: pytest.FixtureRequest) -> str:
    """Each model in turn."""
    return request.param


@pytest.fixture
def clip_size(model_name: str) -> tuple[int, int, int]:
    """T, H, W of a clip for it."""
    return CLIP_SIZES.get(model_name, (8, 48, 48))
