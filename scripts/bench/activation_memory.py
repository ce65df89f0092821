"""What each `activation_memory` keeps of a clip for the backward pass, and what a training step takes then.

    python scripts/bench/activation_memory.py           # counts, seconds a network
    python scripts/bench/activation_memory.py --time    # and times steps on this CPU, if it is quiet: ten minutes

writes results/activation_memory.json and the tables of docs/memory.md. Eager is the same network with torch's GroupNorm, ReLU and
MaxPool3d as modules of their own, under a GPU's autocast. Nothing is computed for the counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from page import processor, put
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from videogn.configuration import compose, instantiate
from videogn.model.pool import MaxPool3d
from videogn.model.recomputation import ACTIVATION_MEMORY, set_activation_memory
from videogn.report.memory import PRECISIONS, bytes_kept, uncomputed
from videogn.training.allocator import keep_memory

RESULT = Path(__file__).parent / "results" / "activation_memory.json"
PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
NETWORKS = ("i3d_r50", "i3d_r50_slowfast", "r3d_18", "slowfast_r50")
LENGTHS = (8, 32, 64)
COUNTED = ("32-true", "bf16-mixed")
ROUNDS = 15


class EagerGroupNorm(nn.GroupNorm):
    """The norm, a residual addition and a ReLU, one after the other."""

    def __init__(self, channels: int, activation: str | None = None, zero_init: bool = False) -> None:
        super().__init__(32 if channels % 32 == 0 else 8, channels)
        self.relu = nn.ReLU() if activation else nn.Identity()

    def normalize(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y = super().forward(x)
        return self.relu(y if residual is None else y + residual)


def network_of(name: str, way: str, backend: str | None = "triton") -> nn.Module:
    config = compose("inspect", [f"model={name}", "norm=group_norm"])
    if way == "eager":
        norm: Any = EagerGroupNorm
    else:
        norm = partial(instantiate(config.norm), on_indivisible="nearest", backend=backend)
    network = instantiate(config.model)(num_classes=400, norm=norm, conv=instantiate(config.conv))
    if way == "eager":
        for module in list(network.modules()):
            for child, pool in module.named_children():
                if isinstance(pool, MaxPool3d):
                    setattr(module, child, nn.MaxPool3d(*pool.window))
    else:
        set_activation_memory(network, way)
    return network.train()


@contextmanager
def of_a_gpu(precision: str) -> Iterator[torch.device]:
    """A GPU's own autocast; torch.autocast would say that there is none, and no backward pass runs so."""
    torch.set_autocast_dtype("cuda", PRECISIONS[precision])
    torch.set_autocast_enabled("cuda", precision != "32-true")
    try:
        with uncomputed("bf16-mixed"):
            yield torch.device("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def count(name: str, way: str, precision: str, length: int) -> int:
    """Bytes of a clip more."""
    with of_a_gpu(precision) as device:
        with device:
            network = network_of(name, way)
        kept = []
        for num_clips in (2, 3):
            kept.append(bytes_kept(network, (num_clips, 3, length, 224, 224), device))
            torch.clear_autocast_cache()
    return kept[1] - kept[0]


def step_seconds(name: str, batch_size: int) -> dict[str, list[float]]:
    """Of steps in turn, by the way; the first round warms up."""
    keep_memory()  # as `videogn train` does
    ways = {way: network_of(name, way, None) for way in ACTIVATION_MEMORY}
    clips, labels = torch.randn(batch_size, 3, 8, 112, 112), torch.arange(batch_size)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(ROUNDS + 1):
        for way, network in ways.items():
            network.zero_grad()
            start = time.perf_counter()
            cross_entropy(network(clips), labels).backward()
            if round_:
                seconds[way].append(time.perf_counter() - start)
    return seconds


def table(counted: list[dict[str, Any]]) -> str:
    lines = ["| network | frames | precision | eager, MiB a clip | full | lean | minimal |", "|---|---|---|---|---|---|---|"]
    for row in counted:
        eager = row["bytes"]["eager"]
        shares = (f"{row['bytes'][way] / 2**20:,.1f} ({row['bytes'][way] / eager:.1%})" for way in ACTIVATION_MEMORY)
        lines.append(f"| {row['network']} | {row['frames']} | {row['precision']} | {eager / 2**20:,.1f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def time_table(timed: list[dict[str, Any]]) -> str:
    lines = ["| network | clips | full, s | lean | minimal |", "|---|---|---|---|---|"]
    for row in timed:
        full = statistics.median(row["seconds"]["full"])
        # Of the steps of one round, so that a machine that slows down counts in neither.
        ratios = []
        for way in ("lean", "minimal"):
            found = [a / b for a, b in zip(row["seconds"][way], row["seconds"]["full"], strict=True)]
            low, middle, high = statistics.quantiles(found)
            ratios.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {row['network']} | {row['batch_size']} | {full:.2f} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--time", action="store_true", help="time training steps as well")
    options = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    counted = []
    for name in NETWORKS:
        for precision in COUNTED:
            for length in LENGTHS:
                found = {way: count(name, way, precision, length) for way in ("eager", *ACTIVATION_MEMORY)}
                counted.append({"network": name, "frames": length, "precision": precision, "bytes": found})
                print(table(counted[-1:]).splitlines()[-1], flush=True)
    result |= {"torch": torch.__version__, "counted": counted}
    if options.time:
        timed = []
        for name in NETWORKS:
            timed.append({"network": name, "batch_size": 4, "seconds": step_seconds(name, 4)})
            print(time_table(timed[-1:]).splitlines()[-1], flush=True)
        machine = {"processor": processor(), "threads": torch.get_num_threads(), "python": platform.python_version()}
        result |= {"timed": timed, "machine": machine | {"torch": torch.__version__}, "date": date.today().isoformat()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    put(PAGE, "counted", table(counted))
    if "timed" in result:
        put(PAGE, "timed", time_table(result["timed"]))


if __name__ == "__main__":
    main()
