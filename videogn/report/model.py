"""What a network is made of and what a clip costs it, counted without computing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from videogn.report.memory import bytes_kept, refusing, uncomputed


@dataclass(frozen=True)
class Layer:
    """A module that computes something, in the order of the forward pass."""

    name: str
    kind: str  # its class
    output: tuple[int, ...]  # of one clip, without N
    parameters: int  # 0 where it stands a second time
    is_norm: bool
    num_groups: int | None  # None where the norm has no groups
    channels_per_group: int | None
    activation: str | None  # of a norm's tail
    is_fused: bool  # the tail is computed with the norm
    starts_at_zero: bool  # gamma
    decays: bool | None  # None where it has no parameters that are learnt


@dataclass(frozen=True)
class Inspection:
    """A network and its sums for one clip."""

    layers: tuple[Layer, ...]
    parameters: int
    decaying_parameters: int
    flops: int  # of a forward pass; a multiplication and its addition are two
    bytes_kept: int  # for the backward pass of one more clip
    bytes_kept_once: int  # however many clips: statistics of a batch, weights that a layer derives, weights in 16 bits
    precision: str  # in which they are counted


def inspect_network(
    network: nn.Module, clip: tuple[int, ...], decaying: list[nn.Parameter], precision: str = "32-true"
) -> Inspection:
    """Run `network` forward without computing anything, and count.

    FLOPs are those of convolutions and matrix products, as torch's own counter has them. The bytes are those of `bytes_kept`.

    Args:
        network: any; it is moved to where nothing is computed, and so of no further use.
        clip: the shape of one clip, (C, T, H, W).
        decaying: the parameters that weight decay reaches.
        precision: one of PRECISIONS, in which the bytes are counted.

    Raises:
        InputError: the network does not take such a clip, for instance since it is too small, or a layer has no meta kernel.
    """
    decays = {id(parameter) for parameter in decaying}
    # Before the move to the meta device, which makes other objects of them.
    facts = {name: _facts(module, decays) for name, module in network.named_modules()}
    num_decaying = sum(p.numel() for p in network.parameters() if id(p) in decays)
    network = network.to("meta").train()
    layers: list[Layer] = []
    # Two clips: batch norms refuse one value a channel, which is what a small clip may come down to.
    two, three = ((num_clips, *clip) for num_clips in (2, 3))
    with refusing(network, clip):
        with FlopCounterMode(display=False) as flops, torch.no_grad(), _watched(network, facts, layers):
            network(torch.empty(two, device="meta"))
        with uncomputed(precision) as device:
            network = network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))
            bytes_of_two = bytes_kept(network, two, device, precision)
            bytes_of_one = bytes_kept(network, three, device, precision) - bytes_of_two
    return Inspection(
        tuple(layers),
        sum(p.numel() for p in network.parameters()),
        num_decaying,
        flops.get_total_flops() // 2,
        bytes_of_one,
        bytes_of_two - 2 * bytes_of_one,
        precision,
    )


def _facts(module: nn.Module, decays: set[int]) -> dict[str, Any]:
    """What does not depend on the clip. A norm is known by its answer, as parameter groups know it."""
    own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
    is_norm = callable(getattr(module, "no_decay_parameters", None))
    groups = getattr(module, "num_groups", None) if is_norm else None
    channels = getattr(module, "channels", None)
    return {
        "kind": type(module).__name__,
        "is_norm": is_norm,
        "num_groups": groups,
        "channels_per_group": channels // groups if groups and channels else None,
        "activation": getattr(module, "activation", None) if is_norm else None,
        "is_fused": is_norm and getattr(module, "fuses_tail", False),
        "starts_at_zero": bool(is_norm and getattr(module, "zero_init", False)),
        "decays": any(id(parameter) in decays for parameter in own) if own else None,
    }


@contextmanager
def _watched(network: nn.Module, facts: dict[str, dict[str, Any]], layers: list[Layer]) -> Iterator[None]:
    """Writes down every module without children that has parameters, is a norm, or changes the shape."""

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        if not inputs or not isinstance(output, Tensor):
            return  # its shape is not one
        if parameters or facts[name]["is_norm"] or inputs[0].shape != output.shape:
            first = not any(layer.name == name for layer in layers)
            layers.append(Layer(name, output=tuple(output.shape[1:]), parameters=parameters * first, **facts[name]))

    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
