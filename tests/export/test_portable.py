"""The graph that every format is written from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from videogn.export.portable import Preprocessed, plain, portable
from videogn.kernel.group_norm import BACKENDS
from videogn.norm.group_norm import GroupNorm
from videogn.transform.functional import to_input
from videogn.types import InputError


class Tiny(nn.Module):
    def __init__(self, fixed: bool = False, backend: str | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1)
        self.norm = GroupNorm(8, activation="relu", num_groups=2, backend=backend)  # pyright: ignore[reportArgumentType]
        self.head = nn.Linear(8 * (4 if fixed else 1), 5)
        self.fixed = fixed

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.head(y.mean((3, 4)).flatten(1) if self.fixed else y.mean((2, 3, 4)))


def test_every_axis_takes_every_size_that_the_network_takes() -> None:
    network = Tiny().eval()
    run = portable(network, torch.randn(2, 3, 4, 8, 8), ["batch", "time", "height", "width"]).module()
    for shape in ((1, 3, 4, 8, 8), (3, 3, 1, 5, 9), (2, 3, 9, 16, 2)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), network(x), atol=1e-6, rtol=0)


def test_an_axis_that_is_not_free_is_held() -> None:
    run = portable(Tiny().eval(), torch.randn(2, 3, 4, 8, 8), ["batch"]).module()
    assert run(torch.randn(1, 3, 4, 8, 8)).shape == (1, 5)
    with pytest.raises(AssertionError, match="Guard failed"):
        run(torch.randn(1, 3, 4, 8, 6))


def test_an_axis_that_the_network_fixes_is_named() -> None:
    with pytest.raises(InputError, match=r"^export\.dynamic: the network fixes time: .*; leave time out$"):
        portable(Tiny(fixed=True).eval(), torch.randn(2, 3, 4, 8, 8), ["batch", "time", "height"])


def test_no_kernel_of_ours_is_left() -> None:
    network = Tiny(backend="triton" if "triton" in BACKENDS else "reference").eval()
    copied = plain(network)
    program = portable(copied, torch.randn(2, 3, 4, 8, 8), ["batch"])
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.group_norm.default" in names
    assert network.norm.backend != "aten"  # the trained one is as it was


def test_an_operator_that_no_runtime_has_is_refused() -> None:
    @torch.library.custom_op("videogn_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return 2 * x

    @twice.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return twice(x)

    with pytest.raises(InputError, match=r"calls videogn_test\.twice\.default, which no other runtime has"):
        portable(Foreign(), torch.randn(2, 3), ["batch"])


def test_a_network_that_cannot_be_traced_is_refused_in_one_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match=r"^export: the network cannot be traced: ") as error:
        portable(Branching(), torch.randn(2, 3, 4, 8, 8), ["batch"])
    assert "\n" not in str(error.value)


def test_the_graph_says_nothing_of_this_machine() -> None:
    program = portable(Tiny().eval(), torch.randn(2, 3, 4, 8, 8), ["batch"])
    assert not any("stack_trace" in node.meta or "nn_module_stack" in node.meta for node in program.graph.nodes)


def test_preprocessing_inside_is_that_of_predict() -> None:
    frames = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8)
    mean, std = [114.75, 100.0, 90.0], [57.0, 60.0, 65.0]
    run = portable(Preprocessed(nn.Identity(), mean, std), frames, ["batch"]).module()
    assert torch.equal(run(frames[:1]), to_input(frames[:1], torch.zeros(1, dtype=torch.bool), mean, std))
