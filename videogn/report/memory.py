"""What a training step holds of a device's memory: counted without computing anything, or measured on a GPU.

A step is counted on torch's meta device, whose tensors have a size and no content, at the fullest moment that training has: the
last of several batches whose gradients are added up, with the optimiser's step after it. What libraries take inside an operator
(the workspace of a convolution), the CUDA context and what the allocator leaves unused between blocks are no tensors, and not
counted.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videogn.types import InputError


@dataclass(frozen=True)
class StepMemory:
    """The bytes of the fullest moment of a training step, by what holds them."""

    weights: int  # parameters and buffers
    gradients: int
    optimizer_state: int
    exchanged: int  # the copy of the gradients by which several devices add them up
    clips: int  # as a loader hands them over, a byte a value
    kept: int  # for the backward pass
    temporaries: int  # what that moment holds beside all these: gradients of activations, or what the optimiser's step computes

    @property
    def fixed(self) -> int:
        """However many clips."""
        return self.weights + self.gradients + self.optimizer_state + self.exchanged

    @property
    def total(self) -> int:
        return self.fixed + self.clips + self.kept + self.temporaries


def count_step(
    network: nn.Module, optimizer: Optimizer, clip: tuple[int, ...], batch_size: int, num_devices: int = 1
) -> StepMemory:
    """Train `network` for a step on the meta device, and count every tensor from its first to its last use, each memory once.

    The optimiser says what it keeps by making it, and computes with lists of tensors, as torch's do on a GPU unless told
    otherwise.

    Args:
        network: on the meta device; it goes into training mode.
        optimizer: of its parameters.
        clip: the shape of one clip, (C, T, H, W).
        batch_size: clips of one device.

    Raises:
        InputError: the network does not take such a clip, or the optimiser cannot step without values.
    """
    network.train()
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    if not optimizer.state:
        _make_state(optimizer)
    weights = [*network.parameters(), *network.buffers()]
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    state = [t for of_one in optimizer.state.values() for t in of_one.values() if isinstance(t, Tensor) and t.is_meta]
    sizes = _nbytes(weights), _nbytes(gradients), _nbytes(state)
    with refusing(network, clip):
        kept = bytes_kept(network, torch.empty((batch_size, *clip), device="meta"))
        live = _Live([*weights, *gradients, *state])
        with live:
            step(network, optimizer, clip, batch_size, torch.device("meta"))
    clips = batch_size * math.prod(clip)
    exchanged = _nbytes(gradients) if num_devices > 1 else 0
    return StepMemory(*sizes, exchanged, clips, kept, temporaries=max(0, live.peak - sum(sizes) - clips - kept))


def step(network: nn.Module, optimizer: Optimizer, clip: tuple[int, ...], batch_size: int, device: torch.device) -> None:
    """Forward, backward and the optimiser's step on clips of zeros; gradients that are there are added to."""
    channels, *size = clip
    loaded = torch.zeros((batch_size, *size, channels), dtype=torch.uint8, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    # Channels-last in memory, as training has its clips on a GPU.
    cross_entropy(network(loaded.float().permute(0, 4, 1, 2, 3)), labels).backward()
    optimizer.step()


@dataclass(frozen=True)
class Measured:
    """Bytes that PyTorch's allocator gave out at the fullest moment, and those that it held for that."""

    allocated: int
    reserved: int


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    free: int  # bytes


def first_gpu() -> Gpu | None:
    """The GPU that `measure_step` measures on, with what is free of it now; None where there is none."""
    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0])


def measure_step(network: nn.Module, optimizer: Optimizer, clip: tuple[int, ...], batch_size: int) -> Measured | None:
    """Train on the first GPU, and ask PyTorch's allocator for the peak of the second step, which `count_step` counts.

    Args:
        network: on that GPU, where nothing else of this process should be.

    Returns:
        None where the memory did not suffice.
    """
    device = torch.device("cuda", 0)
    network.train()
    torch.cuda.empty_cache()
    try:
        step(network, optimizer, clip, batch_size, device)  # makes the gradients and the optimiser's state
        torch.cuda.reset_peak_memory_stats(device)
        step(network, optimizer, clip, batch_size, device)
    except torch.OutOfMemoryError:
        return None
    return Measured(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))


def bytes_kept(network: nn.Module, clips: Tensor) -> int:
    """The memory that autograd holds after a forward pass, beside the parameters: every tensor that it saves, each memory once.

    A saved view counts as what it is a view of.
    """
    parameters = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = tensor  # held, so that no other storage takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(clips)
    return _nbytes(kept.values())


@contextmanager
def refusing(network: nn.Module, clip: tuple[int, ...]) -> Iterator[None]:
    """Turns what torch says of a clip that the network does not take into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        shape = " x ".join(map(str, clip))
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{type(network).__name__}: a clip of {shape}: {reason}; give another size, or mend the layer that says so"
        ) from error


def _make_state(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("foreach", False) is None and not group.get("fused"):
            group["foreach"] = True
    try:
        optimizer.step()
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"optimizer: {type(optimizer).__name__}: {reason}; what it keeps cannot be counted without values: take another"
        ) from error


def _nbytes(tensors: Iterable[Tensor]) -> int:
    """Of their memory, each once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


class _Live(TorchDispatchMode):
    """Follows every memory from the operator that makes it to its release.

    Attributes:
        peak: the most bytes that were alive at once, `held` included.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            self._follow(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return output

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def released(_: object) -> None:
            self._now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, released)
        self._now += size
        self.peak = max(self.peak, self._now)
