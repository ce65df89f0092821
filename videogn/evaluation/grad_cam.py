"""Where and when in a clip a network saw what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from videogn.types import InputError


def grad_cam(
    network: nn.Module, inputs: Float[Tensor, "N 3 T H W"], classes: Int64[Tensor, " N"], layer: str | None = None
) -> Float32[Tensor, "N T H W"]:
    """Grad-CAM in space and time: how much each position of a clip spoke for a class, between 0 and 1.

        a[k] = sum over positions of d score / d A[k]
        map  = relu(sum over k of a[k] A[k]), resized to (T, H, W), divided by its maximum

    where A (channels, T', H', W') is the output of a layer; of a layer with several outputs, as SlowFast's pathways are, the
    resized sums are added. A clip none of whose positions speaks for its class has a map of zeros.

    Args:
        network: (N, 3, T, H, W) -> (N, K), in evaluation mode.
        classes: for each clip the class that is asked for.
        layer: its name, as `videogn inspect` prints it; None: the last whose output has several positions.

    Raises:
        InputError: no such layer, or its output is not (N, C, T', H', W').

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; their mean over positions is this sum but for a factor.
    """
    modules = dict(network.named_modules())
    if layer is not None and layer not in modules:
        raise InputError(f"layer={layer}: no such layer of {type(network).__name__}; `videogn inspect` prints their names")
    seen: list[tuple[Tensor, ...]] = []

    def keep(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        parts = output if isinstance(output, tuple) else (output,)
        if not all(isinstance(part, Tensor) and part.ndim == 5 and part[0, 0].numel() > 1 for part in parts):
            return None
        seen.append(parts)
        copies = tuple(part.clone() for part in parts)  # what follows may work in place
        return copies if isinstance(output, tuple) else copies[0]

    watched = [module for module in modules.values() if module is not network] if layer is None else [modules[layer]]
    handles = [module.register_forward_hook(keep) for module in watched]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # The clips, and not the parameters, which may be frozen, start the graph.
            scores = network(inputs.clone().requires_grad_())
            volumes, gradients = _last_that_counts(seen, scores.gather(1, classes[:, None]).sum())
    finally:
        for handle in handles:
            handle.remove()
    if not volumes:
        place = f"layer={layer}" if layer is not None else f"{type(network).__name__}: no layer"
        raise InputError(f"{place}: no output with several positions in time and space that the scores depend on; give another")
    size = tuple(inputs.shape[2:])
    with torch.no_grad():
        heat = torch.zeros(len(inputs), 1, *size, device=inputs.device)
        for volume, gradient in zip(volumes, gradients, strict=True):
            weight = gradient.float().sum((2, 3, 4), keepdim=True)
            heat += interpolate((weight * volume.float()).sum(1, keepdim=True), size=size, mode="trilinear", align_corners=False)
        heat = heat[:, 0].relu()
        return heat / heat.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def _last_that_counts(seen: Sequence[tuple[Tensor, ...]], score: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The last outputs that the score depends on, and its gradients by them; nothing where there are none."""
    for volumes in reversed(seen):
        gradients = torch.autograd.grad(score, volumes, retain_graph=True, allow_unused=True)
        if all(gradient is not None for gradient in gradients):
            return volumes, gradients
    return (), ()


def overlaid(frames: UInt8[np.ndarray, "T H W 3"], heat: Float32[np.ndarray, "T H W"]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames under their heat: dark red, orange, yellow; what has none stays as it is."""
    colours = np.stack([np.interp(heat, _STEPS, channel) for channel in _COLOURS], -1)
    share = 0.75 * heat[..., None]
    return (frames * (1 - share) + colours * share).round().astype(np.uint8)


_STEPS = (0.0, 0.5, 0.8, 1.0)
_COLOURS = ((120, 220, 250, 255), (0, 40, 170, 255), (40, 20, 20, 150))  # red, green, blue at each step
