"""What `videogn plan` counts for a training step, against what PyTorch's allocator gives out on a CPU.

    python scripts/step_memory.py

prints the table of docs/plan.md, and the workspace of the convolution that makes the difference; a minute on 2 cores.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from videogn.configuration import compose, instantiate
from videogn.prediction.load import build_network
from videogn.report.memory import count_step, step
from videogn.training.parameter_groups import parameter_groups

CLIP = (3, 8, 112, 112)
CPU = torch.device("cpu")


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` holds at once beside what is there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    most = now = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += size
        most = max(most, now)
    return most


def compare(norm: str, batch_size: int) -> None:
    config = compose("train", ["model=i3d_r50", f"norm={norm}"])
    network = build_network(config, 400)
    optimizer = instantiate(config.optimizer)(parameter_groups(network, norm_weight_decay=False))
    for group in optimizer.param_groups:
        group["foreach"] = True  # as on a GPU
    step(network, optimizer, CLIP, batch_size, CPU)  # makes the gradients and the optimiser's state
    given_out = peak(lambda: step(network, optimizer, CLIP, batch_size, CPU))
    with torch.device("meta"):
        network = build_network(config, 400)
    counted = count_step(network, instantiate(config.optimizer)(parameter_groups(network, False)), CLIP, batch_size)
    print(f"| {norm} | {batch_size} | {counted.total / 1e6:,.1f} | {(given_out + counted.fixed) / 1e6:,.1f} |", flush=True)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; MB")
    print("| norm | clips | counted | given out by the allocator |\n|---|---|---|---|")
    for norm in ("group_norm", "batch_norm"):
        for batch_size in (8, 16):
            compare(norm, batch_size)
    conv = nn.Conv3d(2048, 512, (3, 1, 1), padding=(1, 0, 0), bias=False)
    clips = torch.zeros(8, 2048, 2, 4, 4, requires_grad=True)
    conv(clips).sum().backward()
    scores = conv(clips).sum()
    gradient = conv.weight.numel() * 4
    print(f"backward of {conv}: {peak(scores.backward) / 1e6:.0f} MB, {gradient / 1e6:.0f} of them the weight's gradient")


if __name__ == "__main__":
    main()
