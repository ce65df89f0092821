"""From a trained network to an artifact with its proof: write, reload in its runtime, compare, seal, and only then name it."""

from __future__ import annotations

import dataclasses
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from videogn.export.child import filled
from videogn.export.exporter import Exporter, Source
from videogn.export.latency import BATCHES, Way, in_turn
from videogn.export.runtime import Runtime
from videogn.types import Findings, InputError


def export(exporter: Exporter, source: Source, path: Path) -> dict[str, Any]:
    """Write the artifact `path` and, beside it, its bundle as `<path>.json`; returns the proof, which both hold.

    Raises:
        InputError: the format cannot hold the network.
        Findings: the artifact is too far from eager, or its runtime crashes; nothing is left, not even an older artifact.
    """
    source = dataclasses.replace(source, bundle=dataclasses.replace(source.bundle, input=described(exporter, source)))
    # It lies in a new folder that nobody could have put a link into; a format may write several files.
    with tempfile.TemporaryDirectory(prefix=".videogn-", dir=path.parent) as folder:
        unfinished = Path(folder, f"unfinished{exporter.suffix}")
        try:
            exporter.write(source, unfinished)
            proof, first = prove(exporter, source, unfinished)
            if exporter.latency is not None:
                proof["latency"] = measure(exporter, source, unfinished)
            proof["bytes"] = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            bundle = dataclasses.replace(source.bundle, proof=proof)
            exporter.seal(unfinished, bundle)
            with opened(exporter, unfinished) as runtime:
                sealed = _scores(exporter, source, runtime, source.frames[:1], 1)
            if not np.array_equal(sealed, first):
                raise Findings("it answers otherwise once its bundle is inside")
        except Findings as findings:
            for file in (*exporter.parts(path), beside(path)):  # an older one would pass for this one
                file.unlink(missing_ok=True)
            raise Findings(f"{path}: not written: {findings}") from findings
        except InputError as error:
            raise InputError(str(error).replace(str(unfinished), path.name)) from error
        # What is beside it comes first: an artifact that has its name is whole.
        if exporter.suffix:
            described_in = Path(folder, "bundle.json")
            described_in.write_text(bundle.dumps() + "\n", encoding="utf-8")
            os.replace(described_in, beside(path))
        for file, target in reversed(list(zip(exporter.parts(unfinished), exporter.parts(path), strict=True))):
            target.parent.mkdir(exist_ok=True)
            os.replace(file, target)
    return proof


def beside(path: Path) -> Path:
    """The JSON beside an artifact."""
    return path.with_name(f"{path.name}.json")


def described(exporter: Exporter, source: Source) -> dict[str, Any]:
    """What the artifact takes, for a reader who has no videogn."""
    length, height, width = source.frames.shape[1:4]
    sizes = {"batch": exporter.fixed_batch, "time": length, "height": height, "width": width}
    sizes |= dict.fromkeys(exporter.free)  # null: any number
    order = (
        ("batch", "time", "height", "width", "colour")
        if exporter.takes_frames
        else ("batch", "colour", "time", "height", "width")
    )
    return {
        "name": "clips",
        "is_uint8": exporter.takes_frames,
        "axes": list(order),
        "shape": [3 if axis == "colour" else sizes[axis] for axis in order],
        "colours": "RGB",
        "values": "0 to 255" if exporter.takes_frames else "(x - mean) / std of values from 0 to 255, float32",
        "mean": list(source.bundle.config["mean"]),
        "std": list(source.bundle.config["std"]),
        "resize": "crop, then antialiased bilinear",
        "output": "scores (batch, class), before the softmax",
    }


def opened(exporter: Exporter, path: Path, threads: int = 2) -> Runtime:
    """The artifact in a process of its own."""
    name = " ".join([exporter.runtime, *(version(package) for package in exporter.packages[:1])])
    return Runtime(name, exporter.opener, path, threads, trust=True)


def prove(exporter: Exporter, source: Source, path: Path) -> tuple[dict[str, Any], Float[np.ndarray, "1 K"]]:
    """Compare the artifact with eager on real clips; returns the proof, and the artifact's scores of the first clip.

    Every free axis is tried at other sizes too: clips of half and of twice the length, and frames of three quarters and five
    quarters of the height and width, cut from the real ones or mirrored at their edges. For an artifact in 8 bits, also the
    top-1 of split val, of both.

    Raises:
        Findings: the difference, or the loss of top-1, is above the allowed.
    """
    compared: list[dict[str, Any]] = []
    with opened(exporter, path) as runtime:
        for frames in variants(exporter, source.frames):
            expected = _eager(source, frames)
            scale = float(np.abs(expected).max())
            if not 0 < scale < float("inf"):
                raise InputError("export: the network gives no scores but zeros, or none that are finite numbers; train it first")
            for batch in _batches(exporter, len(frames)):
                scores = _scores(exporter, source, runtime, frames, batch)
                difference = float(np.abs(scores - expected).max())
                difference = difference if np.isfinite(difference) else float("inf")  # a NaN would pass every comparison
                compared.append(
                    {
                        "batch": batch,
                        "clip": list(frames.shape[1:4]),
                        "num_clips": len(frames),
                        "largest_difference": difference,
                        "largest_relative_difference": difference / scale,
                        "top1_agreement": float((scores.argmax(1) == expected.argmax(1)).mean()),
                    }
                )
        first = _scores(exporter, source, runtime, source.frames[:1], 1)
        proof: dict[str, Any] = {
            "runtime": exporter.runtime,
            "versions": {name: version(name) for name in dict.fromkeys((*exporter.packages, "torch", "videogn"))},
            "machine": platform.machine(),
            "precision": exporter.precision,
            "quantization": getattr(exporter, "quantization", "none"),
            "compared": compared,
            "num_clips": len(source.frames),
            "largest_difference": max(entry["largest_difference"] for entry in compared),
            "largest_relative_difference": max(entry["largest_relative_difference"] for entry in compared),
            "allowed_relative_difference": exporter.allowed,
            "top1_agreement": min(entry["top1_agreement"] for entry in compared),
        }
        if exporter.is_quantized:
            proof["validation"] = _validated(exporter, source, runtime)
    if not proof["largest_relative_difference"] <= exporter.allowed:
        worst = max(compared, key=lambda entry: entry["largest_relative_difference"])
        shape = " x ".join(map(str, worst["clip"]))
        key = "" if exporter.is_quantized else " (export.tolerance)"
        raise Findings(
            f"{runtime.name} differs from eager by {worst['largest_relative_difference']:.3g} of the largest score on "
            f"{worst['num_clips']} real clips of {shape}, {exporter.allowed:.3g} are allowed{key}"
        )
    return proof, first


def variants(exporter: Exporter, frames: UInt8[Tensor, "N T H W 3"]) -> Iterator[UInt8[Tensor, "_N _T _H _W 3"]]:
    """The clips, and where axes are free, the same clips longer and shorter, larger and smaller."""
    yield frames
    free = exporter.free
    length, height, width = frames.shape[1:4]
    if "time" in free:
        yield frames[:, : max(1, length // 2)]
        yield torch.cat([frames, frames.flip(1)], 1)
    if "height" in free or "width" in free:
        smaller, larger = frames, frames
        for axis, size, name in ((2, height, "height"), (3, width, "width")):
            if name in free:
                smaller = smaller.narrow(axis, 0, size * 3 // 4)
                larger = torch.cat([larger, larger.flip(axis).narrow(axis, 0, size // 4)], axis)
        yield smaller
        yield larger


def _batches(exporter: Exporter, num_clips: int) -> list[int]:
    return sorted({1, min(4, num_clips), num_clips}) if exporter.fixed_batch is None else [exporter.fixed_batch]


def _scores(
    exporter: Exporter, source: Source, runtime: Runtime, frames: UInt8[Tensor, "N T H W 3"], batch: int
) -> Float[np.ndarray, "N K"]:
    """What the artifact answers; a fixed batch is filled with the last clip."""
    clips = exporter.taken(source, frames)
    if exporter.fixed_batch is None:
        return runtime.scores(clips, batch)
    return runtime.scores(filled(clips, exporter.fixed_batch), exporter.fixed_batch)[: len(clips)]


def _eager(source: Source, frames: UInt8[Tensor, "N T H W 3"]) -> Float[np.ndarray, "N K"]:
    with torch.inference_mode():
        parts = [source.network(source.normalized(part)) for part in frames.split(8)]
    if not all(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
        raise InputError(f"export: the network gives {type(parts[0]).__name__}; it must give scores, a tensor (clips, classes)")
    return torch.cat(parts).float().numpy()


def _validated(exporter: Exporter, source: Source, runtime: Runtime) -> dict[str, Any]:
    """Top-1 of split val, one clip a video, of the network and of the artifact; raises Findings where too much is lost."""
    right = np.zeros(2, int)
    count = 0
    for frames, labels in source.validation():
        expected = _eager(source, frames)
        scores = _scores(exporter, source, runtime, frames, len(frames))
        right += [(found.argmax(1) == labels).sum() for found in (expected, scores)]
        count += len(labels)
    before, after = (right / count).tolist()
    if before - after > exporter.allowed_loss:
        raise Findings(
            f"in 8 bits top-1 falls from {before:.1%} to {after:.1%} on the {count} videos of split val, "
            f"{exporter.allowed_loss:.1%} are allowed (export.tolerance)"
        )
    return {"num_videos": count, "top1_eager": before, "top1": after, "allowed_loss": exporter.allowed_loss}


def measure(exporter: Exporter, source: Source, path: Path) -> list[dict[str, Any]]:
    """Milliseconds and peak memory of the artifact and of the ways that `latency` names, run in turn."""
    ways = {"artifact": artifact_way(exporter, source, path)} | {
        name: trained_way(source, name) for name in exporter.latency or ()
    }
    return in_turn(ways, source.frames, BATCHES if exporter.fixed_batch is None else (exporter.fixed_batch,))


def artifact_way(exporter: Exporter, source: Source, path: Path) -> Way:
    """The artifact, to be timed."""
    return Way(lambda threads: opened(exporter, path, threads), lambda frames: exporter.taken(source, frames))


def trained_way(source: Source, name: str) -> Way:
    """The network as it was trained, to be timed: one of the source's ways by its name."""
    opener, path = source.ways[name]
    return Way(lambda threads: Runtime(name, opener, path, threads), lambda frames: source.normalized(frames).numpy())
