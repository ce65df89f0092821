"""How the forward pass of a training step runs: in which order its values lie in memory, and through torch.compile or not."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from videogn.types import InputError

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
_ROUNDS = 3


class Execution:
    """Calls a network, whose weights, names and hooks stay as they are.

    Args:
        memory_format: "contiguous" or "channels_last", in which clips are given to it, and which its layers then keep; None: as
            the clips come, channels-last on a GPU and contiguous on a CPU.
        compiled: through torch.compile, one program for every shape of a batch.

    Raises:
        InputError: torch.compile, at the first step, cannot make its program.
    """

    def __init__(self, network: nn.Module, memory_format: str | None = None, compiled: bool = False) -> None:
        self._format = None if memory_format is None else FORMATS[memory_format]
        self._forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False) if compiled else network
        self._compiled = compiled

    def __call__(self, clips: Tensor) -> Tensor:
        if self._format is not None:
            clips = clips.contiguous(memory_format=self._format)
        if not self._compiled:
            return self._forward(clips)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._forward(clips)
        except TorchDynamoException as error:  # such as that there is no C++ compiler
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise InputError(f"compile=true: torch.compile cannot compile the network ({reason}); use compile=false") from error


def faster_format(
    network: nn.Module, shape: tuple[int, ...], device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> tuple[str, float]:
    """Which of FORMATS a forward and backward pass is faster in, and its time as a share of the other's.

    A copy of the network takes three passes in each, in turns, after one to warm up; the states of random numbers stay.

    Args:
        shape: (N, 3, T, H, W) of the clips.
        autocast: the context of a forward pass.
    """
    network = copy.deepcopy(network).to(device).train()
    clips = torch.zeros(shape, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for round_ in range(_ROUNDS + 1):
            for name in FORMATS:
                forward = Execution(network, name)
                _wait(device)
                start = time.perf_counter()
                with autocast():
                    scores = forward(clips)
                scores.float().sum().backward()
                _wait(device)
                if round_:
                    seconds[name].append(time.perf_counter() - start)
    contiguous, channels_last = (statistics.median(seconds[name]) for name in ("contiguous", "channels_last"))
    if channels_last < contiguous:
        return "channels_last", channels_last / contiguous
    return "contiguous", contiguous / channels_last


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
