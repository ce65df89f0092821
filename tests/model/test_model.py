"""The contract of the room, for every conf/model/*.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

Build = Callable[..., nn.Module]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.turns
def test_every_parameter_learns(build: Build, model_name: str, clip_size: tuple[int, int, int]) -> None:
    """Zero-gamma hides a branch in the first step, but not in the second."""
    torch.manual_seed(0)
    model = build(model_name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    clips, labels = draw(2, 3, *clip_size), torch.tensor([1, 3])
    for step in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(model(clips), labels).backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        dead = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
        assert not missing
        assert step == 0 or not dead
        optimizer.step()


@pytest.mark.turns
def test_scores_are_linear_in_the_features(build: Build, model_name: str, clip_size: tuple[int, int, int]) -> None:
    model = build(model_name, num_classes=7).eval()
    clips = draw(2, 3, *clip_size)
    with torch.no_grad():
        features, scores = model.features(clips), model(clips)
    assert features.shape[0] == 2
    assert scores.shape == (2, 7)
    torch.testing.assert_close(functional.linear(features, model.head.weight, model.head.bias), scores)


@pytest.mark.turns
def test_a_clip_does_not_see_its_batch(build: Build, model_name: str, clip_size: tuple[int, int, int]) -> None:
    """While training, with group norm: dropout aside, the promise of this package."""
    model = build(model_name, dropout=0.0).train()
    clips = draw(2, 3, *clip_size)
    with torch.no_grad():
        together, alone = model(clips), torch.cat([model(clip[None]) for clip in clips])
    # oneDNN may choose another convolution for another batch: sums of up to 10^4 products in another order, ~100
    # roundings, of scores of size 0.01 * sqrt(D).
    torch.testing.assert_close(together, alone, atol=100 * torch.finfo(torch.float32).eps, rtol=1e-4)


@pytest.mark.turns
def test_channels_last_computes_the_same(build: Build, model_name: str, clip_size: tuple[int, int, int]) -> None:
    # In fp64, where no norm amplifies what convolutions of another order round.
    model = build(model_name, dropout=0.0).double().train()
    clips = draw(2, 3, *clip_size).double()
    with torch.no_grad():
        expected = model(clips)
        scores = model.to(memory_format=torch.channels_last_3d)(clips.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(scores, expected, atol=1e-8 * expected.abs().max().item(), rtol=0)


def test_every_parameter_is_of_one_stage(build: Build, model_name: str) -> None:
    """Freezing and learning rates by stage miss none and meet none twice."""
    with torch.device("meta"):
        model = build(model_name)
    stages = model.stages()
    assert list(stages)[-1] == "head"
    assert len(stages) >= 5
    found = [name for layers in stages.values() for layer in layers for name in map(id, layer.parameters())]
    assert sorted(found) == sorted(map(id, model.parameters()))
    assert all(any(list(layer.parameters()) for layer in layers) for layers in stages.values())


@pytest.mark.turns
def test_bf16_follows_fp32(build: Build, model_name: str, clip_size: tuple[int, int, int]) -> None:
    """Under autocast, as trainer.precision=bf16-mixed runs it: the scores are finite and near."""
    model = build(model_name, **({} if model_name == "inception_i3d" else {"dropout": 0.0, "zero_init": False})).eval()
    clips = draw(2, 3, *clip_size)
    with torch.no_grad():
        expected = model.features(clips)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.features(clips)
    # bf16 has 8 bits: each of ~50 layers adds about 2^-8 of its values, independently: sqrt(50) / 256 is 3%; four times that.
    error = (features.float() - expected).norm() / expected.norm()
    assert error < 0.12, error


COMPILE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from conftest import CLIP_SIZES, SIZE, build
for name in ("r2plus1d_18", "slowfast_r50", "x3d_m"):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = build(name).eval()
    clips = torch.randn(1, 3, *CLIP_SIZES.get(name, SIZE))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips), model(clips), atol=0, rtol=0)
"""


@pytest.mark.turns
def test_compiles_into_one_graph() -> None:
    """What is not made of ResNet3D's blocks alone, in a process without jaxtyping's hook; torch's own kernels run the graph."""
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
