"""What blocks compute again: the same training to the last bit, and the bytes that a count by hand gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from videogn.configuration import compose, instantiate
from videogn.conv.plain import PlainConv3d
from videogn.conv.weight_standardized import WeightStandardizedConv3d
from videogn.model import recomputation
from videogn.model.blocks import BasicBlock, Bottleneck
from videogn.model.inception_i3d import Mixed
from videogn.model.network import VideoNetwork
from videogn.model.pytorchvideo import X3D, SlowFast
from videogn.model.r2plus1d import BasicBlock2Plus1D
from videogn.model.recomputation import ACTIVATION_MEMORY, set_activation_memory
from videogn.norm.batch_norm import BatchNorm
from videogn.norm.batch_renorm import BatchRenorm
from videogn.norm.group_norm import GroupNorm
from videogn.report.memory import bytes_kept, uncomputed
from videogn.types import InputError

NORM = partial(GroupNorm, num_groups=4)
NORMS = {
    "group_norm": NORM,
    "group_norm_operator": partial(GroupNorm, num_groups=4, backend="triton"),
    "batch_norm": BatchNorm,
    # From the first step on its output depends on the running statistics, which the first time has moved.
    "batch_renorm": partial(BatchRenorm, warmup_steps=0, r_max_steps=0, d_max_steps=0),
}
BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "basic": lambda norm: BasicBlock(16, 32, norm, PlainConv3d, spatial_stride=2, zero_init=False),
    "bottleneck": lambda norm: Bottleneck(16, 8, norm, PlainConv3d, temporal_kernel=3, zero_init=False, stochastic_depth=0.5),
    "two": lambda norm: nn.Sequential(*(Bottleneck(width, 8, norm, PlainConv3d, zero_init=False) for width in (16, 32))),
    "standardized": lambda norm: Bottleneck(16, 8, norm, WeightStandardizedConv3d, spatial_stride=2, zero_init=False),
    "factorized": lambda norm: BasicBlock2Plus1D(16, 16, norm, PlainConv3d, zero_init=False),
    "excited": lambda norm: _stage(X3D(5, norm, PlainConv3d, zero_init=False), "res2"),
    "mixed": lambda norm: nn.Sequential(PlainConv3d(16, 16, (1, 1, 1)), Mixed(16, 8, (8, 16), (8, 16), 16, norm, PlainConv3d)),
}


def _stage(network: Any, name: str) -> nn.Module:
    """A stage behind a convolution to its width."""
    stage = getattr(network.trunk, name)
    return nn.Sequential(PlainConv3d(16, stage[0].conv1.in_channels, (1, 1, 1)), stage, nn.Dropout(0.5))


def trained(network: nn.Module, activation_memory: str) -> list[Tensor]:
    """Loss, gradients, weights and buffers of three steps."""
    network = copy.deepcopy(network).train()
    set_activation_memory(network, activation_memory)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    buffers = list(network.buffers())
    generator, found = torch.Generator().manual_seed(0), []
    torch.manual_seed(0)  # of stochastic depth and dropout
    for _ in range(3):
        optimizer.zero_grad()
        y = network(torch.randn(4, 16, 3, 6, 6, generator=generator))
        loss = (y * torch.randn(y.shape, generator=generator)).mean()
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        optimizer.step()
    # Who holds them, as DDP does, holds those that move.
    assert all(now is before for now, before in zip(network.buffers(), buffers, strict=True))
    return [*found, *network.state_dict().values(), torch.get_rng_state()]


@pytest.mark.turns
@pytest.mark.parametrize("activation_memory", ["lean", "minimal"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_training_is_the_same_to_the_last_bit(block: str, norm: str, activation_memory: str) -> None:
    if norm == "group_norm_operator":
        pytest.importorskip("triton", reason="pip install triton")
    if block == "excited" and norm.startswith("group_norm"):
        norm_of_block: Any = partial(GroupNorm, num_groups=1)  # 24, 54: no multiples of 4
    else:
        norm_of_block = NORMS[norm]
    torch.manual_seed(0)
    network = BLOCKS[block](norm_of_block)
    expected, found = trained(network, "full"), trained(network, activation_memory)
    assert len(expected) == len(found)
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize(
    ("activation_memory", "width", "again"),
    [
        ("full", 16, ()),
        ("lean", 16, ("conv3",)),
        ("lean", 128, ("conv3",)),
        ("lean", 132, ()),
        ("minimal", 16, ("conv1", "conv2", "conv3", "shortcut.0")),
    ],
)
def test_only_convolutions_that_cost_little_are_computed_again(
    activation_memory: str, width: int, again: tuple[str, ...]
) -> None:
    block = Bottleneck(16, width, NORM, PlainConv3d, temporal_kernel=3, spatial_stride=2)
    x = torch.randn(2, 16, 3, 6, 6, requires_grad=True)
    flops = {}
    for name in ("conv1", "conv2", "conv3", "shortcut.0"):
        conv = block.get_submodule(name)
        places = 3 * 36 if name == "conv1" else 3 * 9
        flops[name] = 2 * 2 * places * conv.weight.numel()  # pyright: ignore - a parameter
    set_activation_memory(block, activation_memory)
    with FlopCounterMode(display=False) as counter:
        block(x).sum().backward()
    # Forward, and as much again for the gradient of the input and of the weights each.
    assert counter.get_total_flops() == 3 * sum(flops.values()) + sum(flops[name] for name in again)


# In the backward pass the second block comes first. What follows it is no block, and need not keep its output.
@pytest.mark.parametrize(
    ("activation_memory", "again"),
    [("full", []), ("lean", [False, False, True, False, False]), ("minimal", [False, False, True, False, False, True])],
)
def test_the_fused_end_of_a_block_before_another_is_not_computed_again(activation_memory: str, again: list[bool]) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    network = nn.Sequential(*(Bottleneck(32, 8, NORMS["group_norm_operator"], PlainConv3d, zero_init=False) for _ in range(2)))
    called = operators(network, activation_memory)
    norms = [arguments[5] is not None for func, arguments in called if func is torch.ops.videogn.group_norm.default]
    assert norms == 2 * [False, False, True] + again


# A norm of torch's own, or the end that is one operator: of the first block, in the first pass alone.
@pytest.mark.parametrize(
    ("activation_memory", "expected"),
    [("full", "nnn nnn"), ("lean", "nne nnn nnn nn"), ("minimal", "nnn nnn nnn nnn")],
)
def test_on_a_cpu_the_end_before_another_block_is_one_operator(activation_memory: str, expected: str) -> None:
    network = nn.Sequential(*(Bottleneck(32, 8, NORM, PlainConv3d, zero_init=False) for _ in range(2)))
    letters = {torch.ops.aten.native_group_norm.default: "n", torch.ops.videogn.group_norm_add_relu.default: "e"}
    called = operators(network, activation_memory)
    assert "".join(letters.get(func, "") for func, _ in called) == expected.replace(" ", "")


def test_blocks_computed_again_have_second_derivatives() -> None:
    network = nn.Sequential(*(Bottleneck(32, 8, NORM, PlainConv3d, zero_init=False) for _ in range(2)))
    found = []
    for activation_memory in ("full", "minimal"):
        set_activation_memory(network, activation_memory)
        x = torch.ones(2, 32, 3, 6, 6).cumsum(-1).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    torch.testing.assert_close(found[1], found[0])
    assert found[0].abs().sum() > 0


def operators(network: nn.Module, activation_memory: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """What runs in a training step, and with which arguments."""
    called = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append((func, args))
            return func(*args, **kwargs or {})

    set_activation_memory(network, activation_memory)
    with Recorded():
        network(torch.randn(2, 32, 3, 6, 6)).sum().backward()
    return called


class EagerGroupNorm(nn.GroupNorm):
    """As in networks without fused norms: torch's GroupNorm, then a residual addition, then a ReLU."""

    def __init__(self, channels: int, activation: str | None = None, zero_init: bool = False) -> None:
        super().__init__(32, channels)
        self.relu = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y = super().forward(x)
        return self.relu(y if residual is None else y + residual)


@contextmanager
def autocast_of_a_gpu() -> Iterator[torch.device]:
    """Its own lists of operators; torch.autocast would say that there is none. No backward pass runs so."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        with uncomputed("bf16-mixed"):
            yield torch.device("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def kept_of_a_clip(network: nn.Module, clip: tuple[int, ...], device: torch.device) -> int:
    precision = "32-true" if device.type == "cuda" else "bf16-mixed"  # the other is set around it
    found = []
    for num_clips in (2, 3):
        found.append(bytes_kept(network, (num_clips, *clip), device, precision))
        torch.clear_autocast_cache()  # the weights in bf16, kept once for all clips
    return found[1] - found[0]


# Bytes of a position for an inner width of C: what a1, y1, a2, y2, a3 and the block's output cost, C, C, C, C, 4C and 4C wide.
# Eager autocast keeps the norm's input in fp32 and bf16, its output in fp32, and that in bf16 for the next convolution.
@pytest.mark.parametrize(
    ("name", "activation_memory", "cheap_channels", "expected"),
    [
        ("eager", "full", 128, 60),
        ("fused", "full", 128, 24),
        ("fused", "lean", 128, 12),
        ("fused", "lean", 16, 20),
        ("fused", "minimal", 128, 8),
    ],
)
def test_a_bottleneck_keeps_what_a_count_by_hand_says(
    name: str, activation_memory: str, cheap_channels: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    monkeypatch.setattr(recomputation, "CHEAP_CHANNELS", cheap_channels)
    width, places = 32, 4 * 16 * 16
    norm = partial(GroupNorm, num_groups=32, backend="triton") if name == "fused" else EagerGroupNorm

    def kept(depth: int, device: torch.device) -> int:
        blocks = [Bottleneck(4 * width, width, norm, PlainConv3d) for _ in range(depth)]
        network = nn.Sequential(PlainConv3d(4 * width, 4 * width, (1, 1, 1)), *blocks)
        set_activation_memory(network, activation_memory)
        return kept_of_a_clip(network, (4 * width, 4, 16, 16), device)

    with autocast_of_a_gpu() if name == "eager" else uncomputed("bf16-mixed") as device, device:
        found = kept(3, device) - kept(2, device)  # a block whose output another one reads
    # With a residual the mask of the ReLU is a bit of every output; mean and rstd are numbers of every norm's groups.
    mask = 4 * width / 8 * places if name == "fused" and activation_memory != "minimal" else 0
    norms = {"full": 3, "lean": 1, "minimal": 0}[activation_memory]
    assert found == expected * width * places + mask + norms * 2 * 4 * 32


@pytest.mark.parametrize("norm", ["group_norm", "batch_norm"])
def test_the_bytes_of_a_gpu_are_those_of_the_fake_cpu(norm: str) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    make = {"group_norm": partial(GroupNorm, num_groups=16, backend="triton"), "batch_norm": BatchNorm}[norm]
    found = []
    for counted in (uncomputed("bf16-mixed"), autocast_of_a_gpu()):
        with counted as device, device:
            network = nn.Sequential(*(Bottleneck(64, 16, make, PlainConv3d) for _ in range(2)))
            found.append(kept_of_a_clip(network, (64, 4, 8, 8), device))
    assert found[0] == found[1]


# Shares of what pytorchvideo's own I3D keeps with nn.GroupNorm in bf16-mixed: goals, set before it was built.
@pytest.mark.parametrize(("activation_memory", "share"), [("full", 0.42), ("lean", 0.24), ("minimal", 0.15)])
def test_i3d_keeps_at_most_its_share_of_eager(activation_memory: str, share: float, eager_bytes: int) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    config = compose("inspect", ["model=i3d_r50_slowfast", "norm.backend=triton"])
    with uncomputed("bf16-mixed") as device, device:
        network = instantiate(config.model)(num_classes=400, norm=instantiate(config.norm), conv=instantiate(config.conv))
        set_activation_memory(network, activation_memory)
        kept = kept_of_a_clip(network, (3, 8, 224, 224), device)
    assert 0.5 * share < kept / eager_bytes <= share


@pytest.fixture(scope="module")
def eager_bytes() -> int:
    """A clip's of pytorchvideo's I3D-R50, on a GPU's autocast."""
    resnet = pytest.importorskip("pytorchvideo.models.resnet", reason="pip install pytorchvideo")
    with autocast_of_a_gpu() as device, device:
        network = resnet.create_resnet(
            model_num_class=400,
            stem_conv_kernel_size=(5, 7, 7),
            stage1_pool=nn.MaxPool3d,
            stage_conv_a_kernel_size=((3, 1, 1), [(3, 1, 1), (1, 1, 1)], [(3, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1)]),
            head_pool_kernel_size=(4, 7, 7),
            norm=lambda num_features, eps, momentum: nn.GroupNorm(32, num_features, eps),
        )
        return kept_of_a_clip(network.train(), (3, 8, 224, 224), device)


def test_without_a_gradient_nothing_is_kept_or_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation, "checkpoint", None)
    block = BasicBlock(16, 16, NORM, PlainConv3d)
    set_activation_memory(block, "minimal")
    x = torch.randn(2, 16, 3, 6, 6)
    with torch.no_grad():
        expected = functional.relu(block.last_norm.normalize(block.branch(x)) + x)
        assert torch.equal(block(x), expected)
        assert not block(x).requires_grad


def test_every_network_has_blocks(build: Callable[..., nn.Module], model_name: str) -> None:
    with torch.device("meta"):
        network = build(model_name)
    for activation_memory in ACTIVATION_MEMORY:
        set_activation_memory(network, activation_memory)
    assert isinstance(network, VideoNetwork)
    assert not isinstance(network, SlowFast) or len({type(m) for m in network.modules() if hasattr(m, "compute")}) == 1


def test_another_word_and_a_network_without_blocks() -> None:
    with pytest.raises(InputError, match=r"activation_memory=small: use one of full, lean, minimal"):
        set_activation_memory(BasicBlock(16, 16, NORM, PlainConv3d), "small")
    with pytest.raises(InputError, match=r"activation_memory=lean: Sequential has no block .* or use full"):
        set_activation_memory(nn.Sequential(nn.Conv3d(3, 3, 1)), "lean")
    set_activation_memory(nn.Sequential(nn.Conv3d(3, 3, 1)), "full")
