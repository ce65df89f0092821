"""The original I3D against the table and the arithmetic of its authors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from videogn.model.inception_i3d import SamePool, same

Build = Callable[..., nn.Module]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_shapes_are_those_of_the_paper(build: Build) -> None:
    """Figure 3 of the paper, for 64 x 224 x 224; its layers end in 1 x 7 x 7 of 1024 channels after the last pool."""
    expected = {
        "conv1a": (64, 32, 112, 112),
        "pool2a": (64, 32, 56, 56),
        "conv2b": (64, 32, 56, 56),
        "conv2c": (192, 32, 56, 56),
        "pool3a": (192, 32, 28, 28),
        "mixed3b": (256, 32, 28, 28),
        "mixed3c": (480, 32, 28, 28),
        "pool4a": (480, 16, 14, 14),
        "mixed4b": (512, 16, 14, 14),
        "mixed4f": (832, 16, 14, 14),
        "pool5a": (832, 8, 7, 7),
        "mixed5c": (1024, 8, 7, 7),
    }
    with torch.device("meta"):
        model = build("inception_i3d", "batch_norm", num_classes=400)
        x, shapes = torch.empty(1, 3, 64, 224, 224), {}
        for name, layer in model.trunk.named_children():
            x = layer(x)
            shapes[name] = tuple(x.shape[1:])
    assert {name: shapes[name] for name in expected} == expected


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (3, 1), (2, 2), (1, 2), (1, 1)])
def test_same_is_tensorflows(length: int, kernel: int, stride: int) -> None:
    """Its documentation: as many windows as ceil(length / stride), and the odd zero behind."""
    x = torch.arange(1.0, length + 1).reshape(1, 1, 1, 1, length)
    padded = same(x, (1, 1, kernel), (1, 1, stride))[0, 0, 0, 0]
    count = -(-length // stride)
    # What the windows cover, or what there is where the stride passes over the end.
    assert len(padded) == max((count - 1) * stride + kernel, length)
    before = int((padded != 0).nonzero()[0])
    assert before == (len(padded) - length) // 2
    assert len(padded.unfold(0, kernel, stride)) == count


def test_a_pool_is_the_maximum_of_what_is_there() -> None:
    x = draw(2, 3, 4, 7, 7).relu()
    expected = functional.max_pool3d(functional.pad(x, [1] * 6, value=-math.inf), 3, 1)
    assert torch.equal(SamePool((3, 3, 3), (1, 1, 1))(x), expected)


def test_features_weigh_frames_as_the_last_pool_does(build: Build) -> None:
    model = build("inception_i3d", "batch_norm", dropout=0.0).eval()
    clips = draw(1, 3, 32, 32, 32)
    with torch.no_grad():
        x = model.trunk(clips)  # 4 frames
        expected = functional.avg_pool3d(x, (2, 1, 1), stride=1).mean((2, 3, 4))
        weights = torch.tensor([1, 2, 2, 1]) / 6
        torch.testing.assert_close(model.features(clips), (x.mean((3, 4)) * weights).sum(2))
    torch.testing.assert_close(model.features(clips), expected)
