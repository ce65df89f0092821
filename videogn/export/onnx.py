"""ONNX by torch's dynamo exporter, proven in ONNX Runtime before the file gets its name."""

from __future__ import annotations

import dataclasses
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from torch import Tensor, nn

from videogn.export.bundle import KEY, Bundle
from videogn.types import Findings, InputError

Score = Callable[[Float[Tensor, "N 3 T H W"]], Float[Tensor, "N K"]]


class OnnxExport:
    """Writes the network as an ONNX file: `clips` (N, 3, T, H, W) float32, normalised -> `scores` (N, K), before the softmax.

    N is free, T, H and W are those of the training. Labels, preprocessing and protocol lie in the file's metadata.

    Args:
        opset: of the ONNX operators, 18 or later.
        num_clips: real clips that the proof compares.
        tolerance: the largest allowed difference of a score between ONNX Runtime and eager, as a share of the largest
            score. float32 sums in another order differ by about 1e-6 of it in a network of this depth.
    """

    suffix = ".onnx"

    def __init__(self, opset: int, num_clips: int, tolerance: float) -> None:
        if opset < 18:
            raise InputError(f"export: opset={opset}; the exporter writes 18 and later")
        if num_clips < 1 or tolerance <= 0:
            raise InputError(f"export: num_clips={num_clips} tolerance={tolerance}; both must be above 0")
        self.num_clips = num_clips
        self._opset = opset
        self._tolerance = tolerance

    def __call__(self, network: nn.Module, clips: Float[Tensor, "N 3 T H W"], bundle: Bundle, path: Path) -> dict[str, Any]:
        """Export, reload, compare on `clips`; returns the proof, which the file holds too.

        Raises:
            Findings: the difference is above the tolerance; no file is left.
        """
        unfinished = path.with_name(f".{path.name}")
        try:
            self._export(network, clips, unfinished)
            proof = self._prove(network, clips, unfinished)
            if not proof["largest_difference"] <= proof["allowed_difference"]:
                path.unlink(missing_ok=True)  # an older one would pass for this one
                raise Findings(
                    f"{path}: not written: ONNX Runtime differs from eager by {proof['largest_difference']:.3g} on "
                    f"{proof['num_clips']} real clips, {proof['allowed_difference']:.3g} are allowed (export.tolerance="
                    f"{self._tolerance:g} of the largest score)"
                )
            model = onnx.load(unfinished)
            metadata = model.metadata_props.add()
            metadata.key, metadata.value = KEY, dataclasses.replace(bundle, proof=proof).dumps()
            onnx.save(model, unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        return proof

    def _export(self, network: nn.Module, clips: Tensor, path: Path) -> None:
        # Two clips: an exporter takes a batch of one for a constant.
        example = clips[:1].expand(2, -1, -1, -1, -1).contiguous()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, on its own internals
            for name in ("torch.onnx", "onnxscript", "onnx_ir"):
                logging.getLogger(name).setLevel(logging.ERROR)
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["clips"],
                output_names=["scores"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=self._opset,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(path, external_data=False)

    def _prove(self, network: nn.Module, clips: Tensor, path: Path) -> dict[str, Any]:
        run = _function(_session(path))

        def eager(x: Tensor) -> Tensor:
            with torch.inference_mode():
                return network(x)

        expected = eager(clips)
        batches = (1, min(4, len(clips)), len(clips))
        difference = max(
            float((torch.cat([run(part) for part in clips.split(size)]) - expected).abs().max()) for size in set(batches)
        )
        milliseconds = _latency([lambda: eager(clips[:1]), lambda: run(clips[:1])])
        return {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "opset": self._opset,
            "num_clips": len(clips),
            "batch_sizes": sorted(set(batches)),
            "largest_difference": difference,
            "allowed_difference": self._tolerance * float(expected.abs().max()),
            "top1_agreement": float((run(clips).argmax(1) == expected.argmax(1)).float().mean()),
            "latency_ms_eager": milliseconds[0],
            "latency_ms": milliseconds[1],
        }


def load(path: Path) -> tuple[Score, Bundle]:
    """The file's graph in ONNX Runtime on the CPU, as a function, and what it carries.

    Raises:
        InputError: no ONNX file, or not one of ours.
    """
    loaded = _session(path)
    return _function(loaded), Bundle.loads(loaded.get_modelmeta().custom_metadata_map.get(KEY), str(path))


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason}") from error


def _function(loaded: onnxruntime.InferenceSession) -> Score:
    def run(clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        (scores,) = loaded.run(["scores"], {"clips": np.ascontiguousarray(clips.numpy())})
        return torch.from_numpy(scores)

    return run


def _latency(calls: list[Callable[[], Any]]) -> list[float]:
    """Median milliseconds of each call, taken in turn (A B A B) after one warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(11):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn:
                taken.append(time.perf_counter() - start)
    return [1000 * statistics.median(taken) for taken in seconds]
