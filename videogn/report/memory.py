"""What a training step holds of a device's memory: counted without computing anything, or measured on a GPU.

A step is counted on tensors that have a size and no content, at the fullest moment that training has: the last of several batches
whose gradients are added up, with the optimiser's step after it. What libraries take inside an operator
(the workspace of a convolution), the CUDA context and what the allocator leaves unused between blocks are no tensors, and not
counted.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videogn.types import InputError

# Lightning's names, with the dtype of the convolutions and matrix products.
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@contextmanager
def uncomputed(precision: str) -> Iterator[torch.device]:
    """A device whose tensors have no content, for networks that are built and counted within.

    torch's meta device; for mixed precision, which autocast does not know there, torch's fake tensors, which take four times as
    long. They are a CPU's, since the backward pass of a GPU's asks a driver: both put convolutions and matrix products into 16
    bits and leave our norms alone. torch's own group_norm and layer_norm, which a GPU's autocast has in fp32, are undercounted.
    """
    if precision == "32-true":
        yield torch.device("meta")
    else:
        with FakeTensorMode():
            yield torch.device("cpu")


def computing(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Around a forward pass and the loss, as Lightning has it."""
    return nullcontext() if precision == "32-true" else torch.autocast(device.type, PRECISIONS[precision])


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
    network: nn.Module,
    optimizer: Optimizer,
    clip: tuple[int, ...],
    batch_size: int,
    num_devices: int = 1,
    precision: str = "32-true",
) -> StepMemory:
    """Train `network` for a step that computes nothing, and count every tensor from its first to its last use, each memory once.

    The optimiser says what it keeps by making it, and computes with lists of tensors, as torch's do on a GPU unless told
    otherwise.

    Args:
        network: on the device of `uncomputed(precision)`, and within it; it goes into training mode.
        optimizer: of its parameters.
        clip: the shape of one clip, (C, T, H, W).
        batch_size: clips of one device.
        precision: one of PRECISIONS.

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
    # What is as large as a parameter: counts of steps stay on the CPU.
    state = [t for p, of_one in optimizer.state.items() for t in of_one.values() if getattr(t, "shape", None) == p.shape]
    sizes = _nbytes(weights), _nbytes(gradients), _nbytes(state)
    device = weights[0].device
    with refusing(network, clip):
        kept = bytes_kept(network, (batch_size, *clip), device, precision)
        live = _Live([*weights, *gradients, *state])
        with live:
            step(network, optimizer, clip, batch_size, device, precision)
    clips = batch_size * math.prod(clip)
    exchanged = _nbytes(gradients) if num_devices > 1 else 0
    return StepMemory(*sizes, exchanged, clips, kept, temporaries=max(0, live.peak - sum(sizes) - clips - kept))


def step(
    network: nn.Module,
    optimizer: Optimizer,
    clip: tuple[int, ...],
    batch_size: int,
    device: torch.device,
    precision: str = "32-true",
) -> None:
    """Forward, backward and the optimiser's step on clips of zeros; gradients that are there are added to."""
    channels, *size = clip
    loaded = torch.zeros((batch_size, *size, channels), dtype=torch.uint8, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    # Channels-last in memory, as training has its clips on a GPU.
    with computing(device, precision):
        loss = cross_entropy(network(loaded.float().permute(0, 4, 1, 2, 3)), labels)
    loss.backward()
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


def measure_step(
    network: nn.Module, optimizer: Optimizer, clip: tuple[int, ...], batch_size: int, precision: str = "32-true"
) -> Measured | None:
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
        step(network, optimizer, clip, batch_size, device, precision)  # makes the gradients and the optimiser's state
        torch.cuda.reset_peak_memory_stats(device)
        step(network, optimizer, clip, batch_size, device, precision)
    except torch.OutOfMemoryError:
        return None
    return Measured(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))


def bytes_kept(network: nn.Module, clips: tuple[int, ...], device: torch.device, precision: str = "32-true") -> int:
    """The memory that lives on after a forward pass, for the backward pass: beside the network's own, each memory once.

    A view counts as what it is a view of. What is computed again in the backward pass does not count.

    Args:
        clips: their shape, (N, C, T, H, W).
        device: of `uncomputed`, within which this is called, and where the network is.
    """
    with _Live([*network.parameters(), *network.buffers()]) as live:
        own = live.now
        with computing(device, precision):
            graph = network(torch.empty(clips, device=device)).grad_fn
        kept = live.now - own
    del graph
    return kept


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
        now: the bytes that are alive, `held` included.
        peak: the most of them at once.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self.now = 0
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
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, released)
        self.now += size
        self.peak = max(self.peak, self.now)
