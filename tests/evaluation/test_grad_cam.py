"""Grad-CAM against class activation maps, which it equals where the average and a linear layer follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from videogn.configuration import compose, instantiate
from videogn.evaluation.grad_cam import grad_cam, overlaid
from videogn.types import InputError


class Network(nn.Module):
    """Convolution, average, linear layer: what a network's last stage comes down to."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 5, 3, stride, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(5, 4)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(clips).mean((2, 3, 4)))


def test_equals_the_class_activation_map(rng: np.random.Generator) -> None:
    """Zhou et al. 2016: the map of class c is sum over k of w[c, k] A[k]."""
    torch.manual_seed(0)
    network = Network().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # as in a network of which nothing is trained
    clips, classes = torch.randn(3, 3, 4, 6, 5), torch.tensor([2, 0, 2])
    heat = grad_cam(network, clips, classes)
    activation = network.trunk(clips).numpy().astype(np.float64)
    for index, label in enumerate(classes.tolist()):
        expected = np.maximum(np.tensordot(network.head.weight[label].numpy(), activation[index], 1), 0)
        # fp32 sums of five products, each rounded to 6e-8 of values below 2
        np.testing.assert_allclose(heat[index].numpy(), expected / expected.max(), atol=1e-6)


def test_finds_where_and_when() -> None:
    """A network that answers to red alone, and a clip that is red in one corner of its second half."""
    network = Network(stride=2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.trunk[0].weight[1, 0, 1, 1, 1] = 1.0
        network.head.weight[3, 1] = 1.0
    clip = torch.zeros(1, 3, 8, 16, 16)
    clip[0, 0, 6, 12, 2] = 1.0
    heat = grad_cam(network, clip, torch.tensor([3]))[0]
    time, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    assert abs(time - 6) <= 1
    assert abs(row - 12) <= 1
    assert abs(column - 2) <= 1
    assert heat[:4].max() == 0
    assert heat[:, :8].max() == 0
    # Nothing speaks for a class that no channel leads to, and what speaks against one has no heat.
    assert grad_cam(network, clip, torch.tensor([2])).max() == 0
    with torch.no_grad():
        network.head.weight[0, 1] = -1.0
    assert grad_cam(network, clip, torch.tensor([0])).max() == 0


@pytest.mark.parametrize("model", ["resnet3d_tiny", "slowfast_r50", "x3d_s", "csn_r101"])
def test_a_clip_is_explained_as_if_it_were_alone(model: str) -> None:
    config = compose("train", [f"model={model}", "norm.on_indivisible=nearest"])
    with pytest.warns() if model in ("slowfast_r50", "x3d_s") else torch.no_grad():
        network = instantiate(config.model)(num_classes=3, norm=instantiate(config.norm), conv=instantiate(config.conv))
    network.eval()
    network.head.weight.data.abs_()  # every position speaks for every class
    clips, classes = torch.randn(2, 3, 8, 64, 64), torch.tensor([1, 2])
    with torch.inference_mode():
        together = grad_cam(network, clips, classes)
    assert together.shape == (2, 8, 64, 64)
    assert together.amax((1, 2, 3)).tolist() == [1, 1]
    alone = grad_cam(network, clips[1:], classes[1:])
    # Convolutions of another batch size sum in another order; deep networks carry that on.
    torch.testing.assert_close(together[1:], alone, atol=1e-3, rtol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_both_pathways_count() -> None:
    """The pathways have other lengths: each position counts by the share of the clip that it stands for."""

    class TwoPaths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = Paths()
            self.head = nn.Linear(2, 1, bias=False)
            nn.init.ones_(self.head.weight)

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([path.mean((2, 3, 4)) for path in self.trunk(clips)], 1))

    class Paths(nn.Module):
        def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return clips[:, :1, ::4], clips[:, 1:2]

    clip = torch.zeros(1, 3, 8, 4, 4)
    clip[:, 0, :, 0] = 1.0  # the slow path sees the first row,
    clip[:, 1, :, 3] = 1.0  # the fast one the last
    heat = grad_cam(TwoPaths().eval(), clip, torch.tensor([0]))[0]
    assert torch.equal(heat[:, 0], torch.ones(8, 4))
    assert torch.equal(heat[:, 3], torch.ones(8, 4))
    assert heat[:, 1:3].max() == 0


def test_a_layer_by_its_name() -> None:
    network, clip, label = Network().eval(), torch.randn(1, 3, 4, 6, 6), torch.tensor([1])
    # Before its ReLU the layer's positions count with their signs.
    assert not torch.equal(grad_cam(network, clip, label, "trunk.0"), grad_cam(network, clip, label))
    with pytest.raises(InputError, match=r"layer=trunk\.9: no such layer of Network; `videogn inspect` prints"):
        grad_cam(network, clip, label, "trunk.9")
    with pytest.raises(InputError, match="layer=head: no output with several positions in time"):
        grad_cam(network, clip, label, "head")
    assert not network.head._forward_hooks


def test_what_the_scores_do_not_depend_on_explains_nothing() -> None:
    """A branch beside the scores, as for a loss of its own, which comes last."""

    class Branched(Network):
        def __init__(self) -> None:
            super().__init__()
            self.beside = nn.Conv3d(5, 2, 1)

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            volume = self.trunk(clips)
            scores = self.head(volume.mean((2, 3, 4)))
            self.beside(volume)
            return scores

    torch.manual_seed(0)
    network, clip, label = Branched().eval(), torch.randn(1, 3, 4, 6, 6), torch.tensor([1])
    assert torch.equal(grad_cam(network, clip, label), grad_cam(network, clip, label, "trunk.1"))
    with pytest.raises(InputError, match=r"layer=beside: no output with several positions .* that the scores depend on"):
        grad_cam(network, clip, label, "beside")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6 * 6, 3)).eval()
    with pytest.raises(InputError, match="Sequential: no layer: no output with several positions"):
        grad_cam(flat, clip, label)


def test_overlay_leaves_what_has_no_heat(rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 6, 7, 3), np.uint8)
    heat = np.zeros((2, 6, 7), np.float32)
    assert np.array_equal(overlaid(frames, heat), frames)
    heat[1, 2, 3] = 1.0
    shown = overlaid(frames, heat)
    assert np.array_equal(np.argwhere((shown != frames).any(-1)), [[1, 2, 3]])
    assert shown[1, 2, 3].tolist() == [round(frames[1, 2, 3, c] / 4 + 0.75 * (255, 255, 150)[c]) for c in range(3)]
