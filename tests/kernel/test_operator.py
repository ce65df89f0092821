"""The operators as torch sees them: autograd, fake tensors, compilation, checkpointing, functional calls, DDP. Needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton", reason="triton comes with torch on Linux")

from videogn.kernel.group_norm import group_norm
from videogn.kernel.group_norm import triton as kernels

FORMATS = {"NCDHW": torch.contiguous_format, "NDHWC": torch.channels_last_3d}
TAILS = [(False, None), (False, "relu"), (False, "silu"), (True, None), (True, "relu"), (True, "silu")]
EPS = 1e-5


def draw(layout: str = "NCDHW", dtype: torch.dtype = torch.float32, channels: int = 12) -> list[Tensor]:
    """x, gamma, beta and a residual, all with gradients."""
    generator = torch.Generator().manual_seed(0)
    x, residual = (
        torch.randn(2, channels, 3, 5, 7, generator=generator).to(dtype).contiguous(memory_format=FORMATS[layout])
        for _ in range(2)
    )
    weight, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    return [tensor.requires_grad_() for tensor in (x, weight, bias, residual)]


@pytest.mark.turns
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck itself reads it
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tail", TAILS, ids=str)
@pytest.mark.parametrize("layout", FORMATS)
def test_opcheck(layout: str, tail: tuple[bool, str | None], dtype: torch.dtype) -> None:
    """torch's own check of the schema, the fake kernel's strides, autograd's registration, and of tracing both passes."""
    x, weight, bias, residual = draw(layout, dtype)
    arguments = (x, weight, bias, 4, EPS, residual if tail[0] else None, tail[1])
    opcheck(torch.ops.videogn.group_norm.default, arguments)
    saved = torch.ops.videogn.group_norm(*arguments)
    dy = torch.randn_like(x)
    given = residual if tail[1] == "silu" and tail[0] else None
    with torch.no_grad():
        opcheck(
            torch.ops.videogn.group_norm_backward.default,
            (dy, x.detach(), weight.detach(), bias.detach(), *saved[1:3], given, saved[3], 4, tail[1], tail[0]),
        )


@pytest.mark.parametrize("channels", [12, 3], ids=["whole_bytes", "part_of_a_byte"])
@pytest.mark.parametrize("layout", FORMATS)
def test_the_mask_keeps_every_sign(layout: str, channels: int) -> None:
    x, weight, bias, residual = draw(layout, channels=channels)
    with torch.no_grad():
        y, _, _, mask = torch.ops.videogn.group_norm(x, weight, bias, 1, EPS, residual, "relu")
    assert tuple(mask.shape) == kernels.mask_shape(x)
    assert sum(bin(byte).count("1") for byte in mask.flatten().tolist()) == int((y > 0).sum())


def test_bf16_parameters_reach_the_kernels_as_fp32_and_learn_as_bf16() -> None:
    x, weight, bias, _ = (tensor.detach().bfloat16().requires_grad_() for tensor in draw(dtype=torch.bfloat16))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        y = group_norm(x, weight, bias, 4, EPS, backend="triton")
    assert [tensor.dtype for tensor in kept if tensor.shape == weight.shape] == [torch.float32, torch.float32]
    gradients = torch.autograd.grad(y, [x, weight, bias], torch.randn_like(y))
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16] * 3


def test_statistics_and_mask_have_no_gradient() -> None:
    y, *rest = torch.ops.videogn.group_norm(*draw()[:3], 4, EPS, draw()[3], "relu")
    assert y.requires_grad
    assert not any(tensor.requires_grad for tensor in rest)


def test_what_is_kept_for_the_backward_pass() -> None:
    """x, and one bit an element where a residual was added, which makes 4.06 passes of 4."""
    x, weight, bias, residual = draw(channels=16)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        group_norm(x, weight, bias, 4, EPS, residual, "relu", "triton")
    size = sum(t.nbytes for t in kept)
    small = 2 * 16 * 4 + 2 * 2 * 4 * 4  # gamma, beta; mean, rstd
    assert size == x.nbytes + 2 * 16 * 14 + small  # 105 bits a row: 14 bytes


class Net(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 16, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16))
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = group_norm(x, self.weight, self.bias, 4, EPS, None, "relu", self.backend)  # type: ignore[arg-type]
        return group_norm(y, self.weight, self.bias, 4, EPS, x, "relu", self.backend).mean((2, 3, 4))  # type: ignore[arg-type]


def step(net: nn.Module, call: object = None) -> list[Tensor]:
    """The output for a fixed clip, and the gradient of every parameter."""
    clip = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    y = net(clip) if call is None else call(clip)  # type: ignore[operator]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(net.parameters()))]


def test_under_checkpoint_and_functional_call() -> None:
    torch.manual_seed(0)
    net = Net("triton")
    expected = step(net)
    again = step(net, lambda clip: checkpoint(net, clip, use_reentrant=False))
    called = step(net, lambda clip: torch.func.functional_call(net, dict(net.named_parameters()), (clip,)))
    for one, two, three in zip(expected, again, called, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


KERNELS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from test_operator import Net, step
for backend in ("aten", "triton"):
    torch.manual_seed(0)
    net = Net(backend)
    compiled = torch.compile(net, fullgraph=True)
    for one, other in zip(step(net), step(net, compiled), strict=True):
        # Another order of at most 288 terms, of up to 10: the square root of their number in roundings.
        torch.testing.assert_close(one, other, atol=17 * 10 * torch.finfo(torch.float32).eps, rtol=1e-5)
"""
# Traced as the default compiler traces it, but run by torch's own kernels: compiling all of it takes a minute.
MODEL = """
import torch
from videogn.configuration import compose, instantiate
from videogn.prediction.load import build_network
torch.manual_seed(0)
network = build_network(compose("train", ["model.dropout=0"]), 4)
compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
clips = torch.randn(2, 3, 4, 32, 32)
torch.testing.assert_close(compiled(clips), network(clips))
compiled(clips).square().sum().backward()
assert all(parameter.grad is not None for parameter in network.parameters())
"""


@pytest.mark.turns
@pytest.mark.parametrize("program", [KERNELS, MODEL], ids=["kernels", "model"])
def test_compiles_into_one_graph(program: str) -> None:
    """In a process without jaxtyping's hook, which torch.compile cannot trace."""
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def train_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(Net("triton"))
    clips = torch.randn(4, 3, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    net(clips[rank * 2 : rank * 2 + 2]).square().sum(1).mean().backward()
    torch.save([p.grad for p in net.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The gradient of a batch over two devices is that of the batch: no clip sees another."""
    torch.multiprocessing.spawn(train_rank, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    net = Net("triton")
    clips = torch.randn(4, 3, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    net(clips).square().sum(1).mean().backward()
    for rank in range(2):
        for one, parameter in zip(torch.load(f"{tmp_path}/{rank}.pt"), net.parameters(), strict=True):
            # Two means of two instead of one of four: sums of up to 576 terms of about 1 in another order.
            torch.testing.assert_close(one, parameter.grad, atol=24 * torch.finfo(torch.float32).eps, rtol=1e-5)


def test_a_second_derivative_is_refused() -> None:
    """Not silently zero: the backward operator has no derivative of its own; backend="aten" has."""
    x, weight, bias, _ = draw()
    y = group_norm(x, weight, bias, 4, EPS, backend="triton")
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="group_norm_backward"):
        torch.autograd.grad(dx.sum(), x)
