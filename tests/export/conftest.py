"""A network that no training made, and what an export of it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videogn.configuration import compose, instantiate, resolved
from videogn.export.bundle import Bundle
from videogn.export.exporter import Exporter, Source
from videogn.prediction.load import build_network

CLASSES = ("a", "b", "c")
OVERRIDES = ["clip_length=4", "crop_size=32", "test_short_side=34"]


def make_source(*overrides: str) -> Source:
    torch.manual_seed(0)
    config = resolved(compose("train", [*OVERRIDES, *overrides]))
    network = build_network(config, len(CLASSES)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(getattr(module, "running_mean", None), torch.Tensor):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
            if getattr(module, "weight", None) is not None and module.weight.ndim == 1:
                module.weight.uniform_(0.5, 1.5)  # where zero_init would hide a branch
    frames = torch.randint(0, 256, (6, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        labels = network(Source.normalized(_bare(config, frames), frames)).argmax(1).numpy()

    def validation() -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        yield frames[:4], labels[:4]
        yield frames[4:], labels[4:]

    return replace(
        _bare(config, frames),
        network=network,
        calibration=lambda number: frames[:number],
        validation=validation,
        weights=network.state_dict(),
    )


def _bare(config: dict, frames: torch.Tensor) -> Source:
    protocol = {"clip_length": 4, "frame_stride": 2, "num_clips": 10, "crops": 1, "crop_size": 32, "short_side": 34}
    run = {"config_hash": "0" * 12, "dataset": "motion", "manifest_sha256": None, "epoch": 0, "step": 0}
    bundle = Bundle.of(config, CLASSES, {**protocol, "aggregation": "softmax_mean"}, None, run)
    description = {"config": config, "classes": list(CLASSES), "epoch": 0, "global_step": 0, "manifest_sha256": None}
    return Source(
        network=torch.nn.Identity(),
        bundle=bundle,
        frames=frames,
        calibration=lambda number: frames,
        validation=lambda: iter(()),
        weights={},
        description=description,
        result=None,
        ways={},
    )


@pytest.fixture(scope="session")
def source() -> Source:
    """Group norm."""
    return make_source()


@pytest.fixture(scope="session")
def batch_norm_source() -> Source:
    return make_source("norm=batch_norm")


@pytest.fixture
def exporter() -> Callable[..., Exporter]:
    """The exporter that conf/export/<name>.yaml describes, with values replaced."""

    def make(name: str, **values: object) -> Exporter:
        found = instantiate(
            {**resolved(compose("export", ["checkpoint=.", f"export={name}"]))["export"], "latency": None, **values}
        )
        assert isinstance(found, Exporter)
        return found

    return make


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name has what breaks careless code."""
    folder = tmp_path / "a model, with = [odd] {name} #1 'é"
    folder.mkdir()
    return folder
