"""Every format of `videogn export` for five networks, with group norm and batch norm: exported or why not, how far off, how fast.

    python scripts/bench/export.py FOLDER      # of videos; writes results/export.json and the tables of docs/export.md

The weights are random, since speed does not ask what was learned; batch norm's statistics are those of the clips. Clips are cut
from the videos in FOLDER. All artifacts of a network, with either norm, and PyTorch with and without torch.compile run in
processes of their own, in turn (A B A B), batch 1 and 8, one thread and two; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from videogn.configuration import compose, instantiate, resolved
from videogn.dataset.clips import read_views
from videogn.decoder.pyav import PyAVDecoder
from videogn.export import proof
from videogn.export.bundle import Bundle
from videogn.export.exporter import Source
from videogn.export.latency import BATCHES, THREADS, Way, in_turn
from videogn.prediction.load import build_network
from videogn.sampler.uniform_clips import UniformClips
from videogn.training.checkpoint import KEY
from videogn.transform.views import Crops
from videogn.types import Findings, InputError

RESULT = Path(__file__).parent / "results" / "export.json"
PAGE = Path(__file__).parents[2] / "docs" / "export.md"
# Frames of a clip, as each network is mostly given; 112 pixels, so that all of it takes one to two hours on 2 cores.
# Of all artifacts a process each is alive at once: with 16 frames those of r2plus1d_18 take more than 24 GiB.
LENGTHS = {"i3d_r50": 8, "r3d_18": 16, "r2plus1d_18": 8, "x3d_s": 13, "slowfast_r50": 32}
CROP_SIZE, NUM_CLASSES, NUM_CLIPS = 112, 400, 16
FORMATS: dict[str, dict[str, Any]] = {
    "onnx, opset 18": {"export": "onnx"},
    "onnx, not folded": {"export": "onnx", "fold_batch_norm": False},
    "onnx, opset 21": {"export": "onnx", "opset": 21},
    "onnx, 8 bits static": {"export": "onnx", "quantization": "static", "num_calibration_clips": 16, "tolerance": 1.0},
    "torch_export": {"export": "torch_export"},
    "torch_export, not folded": {"export": "torch_export", "fold_batch_norm": False},
    "torch_export, AOTInductor": {"export": "torch_export", "aot_inductor": True},
    "openvino": {"export": "openvino"},
    "openvino, not folded": {"export": "openvino", "fold_batch_norm": False},
    "openvino, 8 bits static": {"export": "openvino", "quantization": "static", "num_calibration_clips": 16, "tolerance": 1.0},
}


def clips(folder: Path, clip_length: int) -> Tensor:
    """uint8 (N, T, H, W, 3), one of each video."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".avi", ".mkv", ".webm"))
    protocol = (UniformClips(clip_length, 2, 1), Crops(CROP_SIZE, 128, 1))
    step = max(1, len(files) // NUM_CLIPS)
    return torch.cat([read_views(file, PyAVDecoder(), [protocol])[0] for file in files[::step][:NUM_CLIPS]])


def source_of(model: str, norm: str, frames: Tensor, folder: Path) -> Source:
    """A network with random weights, and the checkpoint by which a process opens it."""
    torch.manual_seed(0)
    words = [f"model={model}", f"norm={norm}", f"clip_length={frames.shape[1]}", f"crop_size={CROP_SIZE}", "test_short_side=128"]
    if norm == "group_norm":
        words.append("norm.on_indivisible=nearest")  # X3D's widths
    config = resolved(compose("train", words))
    network = build_network(config, NUM_CLASSES)
    for module in network.modules():  # gamma at 0 would hide a branch
        if getattr(module, "zero_init", False):
            nn.init.ones_(module.weight)  # pyright: ignore[reportArgumentType]
    classes = tuple(f"class {number}" for number in range(NUM_CLASSES))
    description = {"config": config, "classes": list(classes), "manifest_sha256": None, "epoch": 0, "global_step": 0}
    run = {"config_hash": "", "dataset": "random weights", "manifest_sha256": None, "epoch": 0, "step": 0}
    protocol = {"clip_length": frames.shape[1]}

    def validation() -> Iterator[tuple[Tensor, np.ndarray]]:
        with torch.inference_mode():
            labels = network(source.normalized(frames)).argmax(1).numpy()  # what is lost is agreement with eager
        yield frames, labels

    path = folder / "checkpoint.ckpt"
    source = Source(
        network=network,
        bundle=Bundle.of(config, classes, protocol, None, run),
        frames=frames,
        calibration=lambda number: frames[:number],
        validation=validation,
        weights=network.state_dict(),
        description=description,
        result=None,
        ways={
            "eager": ("videogn.prediction.load.open_network", path),
            "compile": ("videogn.prediction.load.open_compiled", path),
        },
    )
    for module in network.modules():
        if hasattr(module, "momentum"):
            module.momentum = None  # the plain mean: of these clips alone
    with torch.no_grad():
        network.train()(source.normalized(frames))
    network.eval()
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, KEY: description, "epoch": 0, "global_step": 0}, path)
    return source


def rows_of(model: str, frames: Tensor, folder: Path) -> list[dict[str, Any]]:
    """A network with either norm: every format's proof, or why there is none, and the time of all of them in one run."""
    rows: list[dict[str, Any]] = []
    ways: dict[str, Way] = {}
    for norm in ("group_norm", "batch_norm"):
        place = folder / norm
        place.mkdir()
        source = source_of(model, norm, frames, place)
        formats = {name: values for name, values in FORMATS.items() if norm == "batch_norm" or "fold_batch_norm" not in values}
        rows += ({"model": model, "norm": norm, "format": name} for name in (*source.ways, *formats))
        ways |= {f"{norm}, {name}": proof.trained_way(source, name) for name in source.ways}
        for (name, values), row in zip(formats.items(), rows[-len(formats) :], strict=True):
            config = resolved(compose("export", ["checkpoint=.", f"export={values['export']}"]))["export"]
            changed = {key: value for key, value in values.items() if key != "export"}
            exporter = instantiate({**config, **changed, "latency": None, "num_clips": len(frames)})
            path = place / f"{name.replace(' ', '_')}{exporter.suffix}"
            try:
                row |= proof.export(exporter, source, path)
                ways[f"{norm}, {name}"] = proof.artifact_way(exporter, source, path)
            except (InputError, Findings) as error:
                row["error"] = str(error).replace(f"{place}{os.sep}", "")
            row.pop("compared", None)
            print(model, norm, name, row.get("error", f"{row.get('largest_relative_difference', 0):.2g}"), flush=True)
    entries = in_turn(ways, frames)
    for row in rows:
        row["clip"] = list(frames.shape[1:4])
        row["latency"] = [entry for entry in entries if entry["way"] == f"{row['norm']}, {row['format']}"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--models", nargs="*", default=list(LENGTHS))
    parser.add_argument("--page-only", action="store_true", help="write the tables anew from the results")
    options = parser.parse_args()
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"rows": []}
    if not options.page_only:
        known = {
            "date": date.today().isoformat(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "versions": {name: metadata.version(name) for name in ("torch", "onnxruntime", "openvino", "nncf")},
            "rows": [row for row in known["rows"] if row["model"] not in options.models],
        }
        for model in options.models:
            frames = clips(options.videos, LENGTHS[model])
            with tempfile.TemporaryDirectory() as folder:
                known["rows"] += rows_of(model, frames, Path(folder))
            RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write_page(known)


def write_page(known: dict[str, Any]) -> None:
    """The tables of docs/export.md, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- measured -->\n", "<!-- end of measured -->"
    head, _, tail = text.partition(start)
    PAGE.write_text(head + start + "\n".join(table(known)) + "\n\n" + end + tail.partition(end)[2], encoding="utf-8")


def table(known: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    yield f"{known['date']}, {known['cpus']} cores ({known['machine']}), {versions}."
    yield ""
    columns = ["network", "clip", "norm", "format", "largest difference", "top-1 agreement", "MB"]
    columns += ["ms of 1 / 8 clips, 1 thread", "2 threads", "to eager", "MiB"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    taken = {
        (row["model"], row["norm"], row["format"], entry["threads"], entry["batch"]): entry
        for row in known["rows"]
        for entry in row["latency"]
    }
    for row in known["rows"]:
        own = (row["model"], row["norm"], row["format"])
        place = f"| {row['model']} | {' x '.join(map(str, row['clip']))} | {row['norm']} | {row['format']} | "
        if "error" in row:
            yield f"{place}{row['error'].replace('|', '/')} |{' |' * 6}"
            continue
        proven = (
            f"{row['largest_relative_difference']:.1e} | {row['top1_agreement']:.0%} | {row['bytes'] / 1e6:.0f}"
            if "bytes" in row
            else "| |"
        )
        times = [" / ".join(f"{taken[(*own, threads, batch)]['milliseconds']:.0f}" for batch in BATCHES) for threads in THREADS]
        eager = (row["model"], row["norm"], "eager")
        ratios = [taken[(*own, 2, batch)]["milliseconds"] / taken[(*eager, 2, batch)]["milliseconds"] for batch in BATCHES]
        memory = taken[(*own, 2, 8)]["peak_bytes"] / 2**20
        yield f"{place}{proven} | {' | '.join(times)} | {' / '.join(f'{ratio:.2f}' for ratio in ratios)} | {memory:.0f} |"


if __name__ == "__main__":
    main()
