"""The scores of views on a device, as many at a time as its memory takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor, nn

from videogn.number import is_count
from videogn.prediction.features import RecordFeatures
from videogn.transform.functional import normalized
from videogn.types import InputError, OutOfMemory

_log = logging.getLogger(__name__)


class ViewScorer:
    """uint8 views -> scores before the softmax.

    Attributes:
        score: (N, 3, T, H, W) on `device` -> (N, K); a network in evaluation mode, or the graph of an exported file, which may
            take uint8 clips (N, T, H, W, 3) instead.
        device: where it runs.
        batch_size: views in one forward; halved, and halved again, where the memory of the device does not take them.
    """

    def __init__(
        self,
        score: Callable[[Float[Tensor, "N 3 T H W"]], Float[Tensor, "N K"]],
        normalization: tuple[Sequence[float], Sequence[float]] | None,
        batch_size: int,
        device: torch.device,
    ) -> None:
        if not is_count(batch_size, 1):
            raise InputError(f"batch_size={batch_size}: give a whole number of views in one forward, at least 1")
        self.score = score.to(device) if isinstance(score, nn.Module) else score
        self.device = device
        self.batch_size = batch_size
        self._normalization = normalization
        self._has_said = False

    @property
    def network(self) -> nn.Module | None:
        """None of an exported file."""
        return self.score if isinstance(self.score, nn.Module) else None

    def inputs(self, clips: UInt8[Tensor, "N T H W 3"]) -> Shaped[Tensor, "N _ _ _ _"]:
        """As `score` takes them, on the device: normalised (N, 3, T, H, W) in its precision, or as they are."""
        on_device = clips.to(self.device)
        if self._normalization is None:
            return on_device
        weights = self.network.parameters() if self.network is not None else ()
        taken = normalized(on_device, *self._normalization)
        return taken.to(next((weight.dtype for weight in weights), taken.dtype))

    def __call__(
        self, clips: UInt8[Tensor, "N T H W 3"], with_features: bool = False
    ) -> tuple[Float32[np.ndarray, "N K"], Float32[np.ndarray, "N D"] | None]:
        """Scores and, where they are asked for, what the last linear layer reads.

        Raises:
            OutOfMemory: not even one view fits.
        """
        scores: list[np.ndarray] = []
        features: list[np.ndarray] = []
        asked, start = self.batch_size, 0
        while start < len(clips):
            part = clips[start : start + self.batch_size]
            try:
                found = self._forward(part, with_features)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                found = str(error).splitlines()[0]  # and not the error, whose frames hold the memory
            if isinstance(found, str):
                self._halve(part, found)
                continue
            scores.append(found[0])
            features += found[1:]
            start += len(part)
        if self.batch_size < asked and not self._has_said:
            self._has_said = True
            _log.warning("out of memory with %d views in a forward: going on with %d (--batch-size)", asked, self.batch_size)
        return np.concatenate(scores), np.concatenate(features) if with_features else None

    def _forward(self, clips: Tensor, with_features: bool) -> list[np.ndarray]:
        """The scores, and the features where they are asked for."""
        with torch.inference_mode():
            inputs = self.inputs(clips)
            if with_features:
                assert self.network is not None
                found = RecordFeatures(self.network)(inputs)
            else:
                found = (self.score(inputs),)
            return [part.float().cpu().numpy() for part in found]

    def _halve(self, part: Tensor, reason: str) -> None:
        if len(part) == 1:
            shape = " x ".join(map(str, part.shape[1:4]))
            advice = "" if self.device.type == "cpu" else "; use --device cpu"
            raise OutOfMemory(f"one view of {shape} on {self.device}: {reason}{advice}")
        self.batch_size = max(1, len(part) // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: of CUDA, of Apple's GPUs or of the CPU, as torch says it, or ONNX Runtime, or C++."""
    words = ("MPS backend out of memory", "allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in words)


def device_named(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` names; auto: CUDA where there is one, else the CPU.

    Raises:
        InputError: another name, or a device that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isascii() or not number.isdigit())):
        raise InputError(f"device: {name!r}: use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            there = f"torch finds {count} here, counted from 0" if count else "torch finds no CUDA device here"
            raise InputError(f"device: {name}: {there}; use auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device: {name}: torch finds no GPU of Apple's here; use auto or cpu")
    return torch.device(name)
