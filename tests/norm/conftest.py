"""The norms of conf/norm, built as a run builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf
from torch import nn

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(params=sorted(path.stem for path in (CONF / "norm").glob("*.yaml")))
def norm(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    """Each norm in turn: `norm(channels, activation=None, zero_init=False)`."""
    return hydra.utils.instantiate(OmegaConf.load(CONF / "norm" / f"{request.param}.yaml"))
