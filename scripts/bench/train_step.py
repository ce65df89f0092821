"""Clips a second of a training step, against pytorchvideo's network with torch's GroupNorm, in turns.

    python scripts/bench/train_step.py                          # half an hour on 2 cores, if they are quiet
    python scripts/bench/train_step.py --precision bf16-mixed   # on a GPU, if there is one, minutes

Every way has a process of its own, which waits while another takes its step: how malloc behaves belongs to a process. All have
the same weights, clips and optimiser; before they are timed, their losses are compared. Writes results/train_step.json, by the
device's name, and the table of docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import torch
from page import processor, put
from torch import nn
from torch.nn.functional import cross_entropy

from videogn.configuration import compose, instantiate
from videogn.training.allocator import keep_memory
from videogn.weight.pytorchvideo import Pytorchvideo

RESULT = Path(__file__).parent / "results" / "train_step.json"
PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
CLIPS = {"8x8": (8, 2), "32x2": (32, 1)}  # frames, and clips in a batch on a CPU; a GPU takes eight times as many
SIDE = 224
ROUNDS = 7
WAYS = {
    "pytorchvideo": "pytorchvideo's i3d_r50, nn.GroupNorm",
    "default": "videogn train",
    "system_malloc": "videogn train, glibc's own way with memory",
    "channels_last": "videogn train, channels_last_3d",
    "compile": "torch.compile of the network",
}
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def theirs() -> nn.Module:
    from pytorchvideo.models.hub import i3d_r50

    torch.manual_seed(0)
    network = i3d_r50(norm=lambda num_features, **_: nn.GroupNorm(32, num_features), dropout_rate=0.0)
    head = list(network.blocks)[-1]
    head.activation, head.pool = None, nn.AdaptiveAvgPool3d(1)  # a softmax in evaluation, and a pool of one size
    return network


def ours() -> nn.Module:
    """With the weights of theirs."""
    config = compose("inspect", ["model=i3d_r50_slowfast", "norm=group_norm", "model.dropout=0.0"])
    network = instantiate(config.model)(num_classes=400, norm=instantiate(config.norm), conv=instantiate(config.conv))
    state = theirs().state_dict()
    network.load_state_dict({name: state[own] for own, name in Pytorchvideo().names(state).items()})
    return network


def serve(way: str, clips: str, precision: str) -> None:
    """Take a step at every line of standard input, and write its loss and seconds."""
    if way not in ("pytorchvideo", "system_malloc") and not torch.cuda.is_available():
        keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frames, batch_size = CLIPS[clips]
    batch_size *= 8 if device.type == "cuda" else 1
    network = (theirs() if way == "pytorchvideo" else ours()).to(device).train()
    x = torch.randn(batch_size, 3, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(device)
    labels = torch.arange(batch_size, device=device)
    if way == "channels_last" or (device.type == "cuda" and way != "pytorchvideo"):  # as the loader's clips are on a GPU
        x, network = x.contiguous(memory_format=torch.channels_last_3d), network.to(memory_format=torch.channels_last_3d)
    forward = torch.compile(network, dynamic=False) if way == "compile" else network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    for _ in sys.stdin:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, AUTOCAST[precision], enabled=AUTOCAST[precision] is not None):
            loss = cross_entropy(forward(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        value = loss.item()
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"loss": value, "seconds": time.perf_counter() - start, "clips": batch_size}), flush=True)


class Way:
    """The process of one way."""

    def __init__(self, way: str, clips: str, precision: str) -> None:
        command = [sys.executable, __file__, "--serve", way, "--clips", clips, "--precision", precision]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"a way has ended: {self._process.args}")
        return json.loads(line)

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def measure(clips: str, precision: str, ways: list[str]) -> dict[str, Any]:
    with ExitStack() as stack:
        running = {way: stack.enter_context(Way(way, clips, precision)) for way in ways}
        first = {way: process.step() for way, process in running.items()}
        losses = {way: step["loss"] for way, step in first.items()}
        tolerance = 1e-3 if precision == "32-true" else 0.05  # of a loss of 6: roundings of 50 layers
        if max(losses.values()) - min(losses.values()) > tolerance * min(losses.values()):
            raise SystemExit(f"not the same network: {losses}")
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, process in running.items():
                seconds[way].append(process.step()["seconds"])
    return {
        "clips": clips,
        "precision": precision,
        "batch_size": int(first[ways[0]]["clips"]),
        "loss_of_the_first_step": losses,
        "seconds": seconds,
    }


def table(device: str, found: dict[str, Any]) -> str:
    lines = [
        f"{device}, {found['threads']} threads, torch {found['torch']}, {found['date']}:",
        "",
        "| clips | precision | batch | | clips/s | to pytorchvideo |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["measured"]:
        for way, seconds in row["seconds"].items():
            # Of the steps of one round, so that a machine that slows down counts in neither.
            ratios = [a / b for a, b in zip(row["seconds"]["pytorchvideo"], seconds, strict=True)]
            low, middle, high = statistics.quantiles(ratios)
            rate = row["batch_size"] / statistics.median(seconds)
            ratio = "1" if way == "pytorchvideo" else f"{middle:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {row['clips']} | {row['precision']} | {row['batch_size']} | {WAYS[way]} | {rate:.3g} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--clips", choices=CLIPS, action="append", help="frames x stride; all without it")
    parser.add_argument("--precision", choices=AUTOCAST, default="32-true")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="pytorchvideo is always one")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.clips[0], options.precision)
        return
    ways = ["pytorchvideo", *(way for way in options.ways if way != "pytorchvideo")]
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        ways = [way for way in ways if way not in ("system_malloc", "channels_last")]
    else:
        device = processor()
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    of_device = result.setdefault(device, {"measured": []})
    of_device |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "date": date.today().isoformat()}
    for clips in options.clips or CLIPS:
        row = measure(clips, options.precision, ways)
        same = ("clips", "precision")
        of_device["measured"] = [r for r in of_device["measured"] if any(r[key] != row[key] for key in same)] + [row]
        print(table(device, of_device | {"measured": [row]}), flush=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    tables = "\n\n".join(table(name, found) for name, found in result.items())
    put(PAGE, "scripts/bench/train_step.py", tables)


if __name__ == "__main__":
    main()
