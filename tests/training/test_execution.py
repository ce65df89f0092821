"""The same numbers, whatever the order of memory and whoever runs the forward pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from videogn.training import execution
from videogn.training.execution import FORMATS, Execution, faster_format
from videogn.types import InputError


class Seeing(nn.Module):
    """A convolution that notes how what it is given lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[torch.memory_format] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += [f for f in FORMATS.values() if x.is_contiguous(memory_format=f)]
        return self.dropout(self.conv(x)).mean((2, 3, 4))


@pytest.mark.parametrize("name", FORMATS)
def test_clips_are_given_in_the_format(name: str) -> None:
    network = Seeing().eval()
    clips = torch.randn(2, 3, 4, 5, 6)
    for given in (clips, clips.contiguous(memory_format=torch.channels_last_3d)):
        network.seen.clear()
        scores = Execution(network, name)(given)
        assert network.seen == [FORMATS[name]]
        torch.testing.assert_close(scores, network(clips), atol=1e-6, rtol=0)  # means of 81 roundings of 1e-7
    network.seen.clear()
    Execution(network)(clips.contiguous(memory_format=torch.channels_last_3d))
    assert network.seen == [torch.channels_last_3d], "as it came"


CLOCK = [0.0]


class Taking(Seeing):
    """Whose forward pass takes, by CLOCK, what is said of the format that its input has."""

    def __init__(self, seconds: dict[str, float]) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CLOCK[0] += next(self.seconds[name] for name, f in FORMATS.items() if x.is_contiguous(memory_format=f))
        return super().forward(x)


@pytest.mark.parametrize(("contiguous", "channels_last", "expected"), [(1, 3, "contiguous"), (2, 1, "channels_last")])
def test_the_faster_one_is_found(monkeypatch: pytest.MonkeyPatch, contiguous: float, channels_last: float, expected: str) -> None:
    monkeypatch.setattr(execution.time, "perf_counter", lambda: CLOCK[0])
    network = Taking({"contiguous": contiguous, "channels_last": channels_last})
    state = torch.get_rng_state()
    found, share = faster_format(network, (2, 3, 4, 5, 6), torch.device("cpu"), nullcontext)
    assert found == expected
    assert share == pytest.approx(min(contiguous, channels_last) / max(contiguous, channels_last))
    assert torch.equal(torch.get_rng_state(), state), "dropout has drawn"
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.seen


def test_what_cannot_be_compiled_is_a_line() -> None:
    def compile_it(network: nn.Module, dynamic: bool) -> Any:
        def fail(clips: torch.Tensor) -> None:
            raise BackendCompilerFailed(compile_it, RuntimeError("no compiler"), None)

        return fail

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compile_it)
        forward = Execution(nn.Identity(), compiled=True)
    with pytest.raises(InputError, match=r"^compile=true: torch.compile cannot compile the network \(.*no compiler.*\)"):
        forward(torch.zeros(1))
