"""Group normalization with its tail, measured against torch's ways to do it, and checked against fp64 in the same run.

    python scripts/bench/group_norm.py            # every shape of an I3D-R50; writes results/group_norm_<device>.json
    python scripts/bench/group_norm.py --tables   # docs/group_norm.md anew from all results

Needs torch, and on a GPU triton. Times are medians over rounds in which the contenders take turns. Bytes are those that the
two-pass algorithm must move, so that GB/s of a contender which moves more are below what its memory does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # a machine with torch alone has no installed videogn

from videogn.kernel.group_norm import group_norm  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "group_norm.md"
NUM_GROUPS, EPS = 32, 1e-5
# The norms of I3D-R50 as SlowFast builds it, for clips of 32 x 224 x 224: how often each tail stands at each shape.
NETWORK = {
    (64, 32, 112, 112): {"relu": 1},
    (64, 32, 56, 56): {"relu": 6},
    (256, 32, 56, 56): {"add_relu": 3, "plain": 1},
    (128, 16, 56, 56): {"relu": 1},
    (128, 16, 28, 28): {"relu": 7},
    (512, 16, 28, 28): {"add_relu": 4, "plain": 1},
    (256, 16, 28, 28): {"relu": 1},
    (256, 16, 14, 14): {"relu": 11},
    (1024, 16, 14, 14): {"add_relu": 6, "plain": 1},
    (512, 16, 14, 14): {"relu": 1},
    (512, 16, 7, 7): {"relu": 5},
    (2048, 16, 7, 7): {"add_relu": 3, "plain": 1},
}
TAILS = ("plain", "relu", "add_relu")
LAYOUTS = {"NCDHW": torch.contiguous_format, "NDHWC": torch.channels_last_3d}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class WrongError(Exception):
    """A result is further from the definition than rounding explains."""


class Case(NamedTuple):
    shape: tuple[int, int, int, int]  # C, T, H, W
    layout: str
    dtype: str
    tail: str


class Tensors(NamedTuple):
    x: Tensor
    weight: Tensor
    bias: Tensor
    residual: Tensor | None
    dy: Tensor

    def inputs(self) -> list[Tensor]:
        return [tensor for tensor in self[:4] if tensor is not None]


def passes(tail: str, itemsize: int) -> tuple[float, float]:
    """Reads and writes of the whole activation by the two-pass algorithm: forward, backward."""
    # With a residual: it is read; its gradient is written once and read in place of dy; the mask, one bit, is written and read.
    mask = 1 / (8 * itemsize)
    return (4 + mask, 6 + mask) if tail == "add_relu" else (3, 5)


def draw(case: Case, clips: int, device: str, mean: float = 0.0) -> Tensors:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    def activation() -> Tensor:
        return normal(clips, *case.shape).to(DTYPES[case.dtype]).contiguous(memory_format=LAYOUTS[case.layout])

    channels = case.shape[0]
    x, dy = (activation() + mean).requires_grad_(), activation()
    residual = activation().requires_grad_() if case.tail == "add_relu" else None
    return Tensors(x, (normal(channels) + 1).requires_grad_(), normal(channels).requires_grad_(), residual, dy)


def ours(t: Tensors, tail: str, backend: Any = None) -> Tensor:
    activation = None if tail == "plain" else "relu"
    return group_norm(t.x, t.weight, t.bias, NUM_GROUPS, EPS, t.residual, activation, backend)


def eager(t: Tensors, tail: str) -> Tensor:
    # gamma and beta in the dtype of x, which torch's CUDA kernel asks for.
    y = functional.group_norm(t.x, NUM_GROUPS, t.weight.to(t.x.dtype), t.bias.to(t.x.dtype), EPS)
    if t.residual is not None:
        y = y + t.residual
    return y if tail == "plain" else functional.relu(y)


def autocast(t: Tensors, tail: str) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        y = functional.group_norm(t.x, NUM_GROUPS, t.weight, t.bias, EPS)
        if t.residual is not None:
            y = y + t.residual
        return y if tail == "plain" else functional.relu(y)


def contenders(device: str, case: Case, names: list[str]) -> dict[str, Callable[[Tensors, str], Tensor]]:
    torch.compiler.reset()  # or the ninth case would silently run uncompiled
    known = {"videogn": ours, "eager": eager, "autocast": autocast, "compile": torch.compile(eager, dynamic=False)}
    # Autocast of fp32 is eager fp32; on a CPU group_norm is not on autocast's list.
    without = {"autocast"} if case.dtype == "fp32" or device == "cpu" else set()
    return {name: known[name] for name in names if name not in without}


def largest_errors(case: Case, t: Tensors) -> dict[str, float]:
    """Of y and of each gradient: the largest difference to the definition in fp64, as a share of what is allowed.

    Allowed are one rounding of the dtype, and 64 of fp32 inside a term, as many as the square root of the terms in a sum. torch's
    own kernels, which serve a CPU, round once more before the residual is added, and its channels-last one adds the values of a
    group one after the other, whose roundings grow as the square root of their number.
    """
    exact = Tensors(*(None if tensor is None else tensor.detach().double().requires_grad_() for tensor in t))  # type: ignore[arg-type]
    z = ours(exact._replace(residual=None), "plain", "reference").detach()
    size = z.abs().max().item() + t.x.detach().mean().abs().item()  # a far mean is subtracted with its own roundings
    rounding = torch.finfo(DTYPES[case.dtype]).eps if case.dtype != "fp32" else 0.0
    between = rounding * size if case.tail == "add_relu" and t.x.device.type == "cpu" else 0.0
    one_by_one = math.sqrt(t.x[0].numel() / NUM_GROUPS) if t.x.device.type == "cpu" and case.layout == "NDHWC" else 0.0
    inside = (64 + one_by_one) * torch.finfo(torch.float32).eps * size
    z = z if exact.residual is None else z + exact.residual.detach()
    # A rounding may turn ReLU off or on where its argument is nearly 0: no gradient comes from there.
    dy = t.dy if case.tail == "plain" else torch.where(z.abs() <= inside + between, 0, t.dy)
    dy = dy.contiguous(memory_format=LAYOUTS[case.layout])
    del z
    expected_y = ours(exact, case.tail, "reference")
    expected = [expected_y.detach(), *torch.autograd.grad(expected_y, exact.inputs(), dy.double())]
    del expected_y
    y = ours(t, case.tail)
    found = [y.detach(), *torch.autograd.grad(y, t.inputs(), dy)]
    terms = math.sqrt(t.x.numel() / t.x.shape[1])
    errors = {}
    for name, one, other in zip(["y", "dx", "dgamma", "dbeta", "dresidual"], found, expected, strict=False):
        scale = terms if name in ("dgamma", "dbeta") else 1.0
        allowed = inside * scale + rounding * other.abs() + (between if name == "y" else 0.0)
        errors[name] = ((one.double() - other).abs() / allowed).max().item()
    return errors


def is_right(errors: dict[str, float]) -> bool:
    """Not so for NaN, which no comparison finds larger."""
    return all(share <= 1 for share in errors.values())


def timer(device: str) -> Callable[[Callable[[], Any]], float]:
    """Milliseconds of a call."""
    if device == "cuda":
        from triton.testing import do_bench

        return lambda call: do_bench(call, warmup=5, rep=30, return_mode="median")

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3

    return seconds


def take_turns(calls: dict[str, Callable[[], Any]], device: str, rounds: int) -> dict[str, list[float]]:
    """The times of each call, in ms."""
    measure = timer(device)
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(measure(call))
    return times


def measure(case: Case, clips: int, device: str, names: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    t = draw(case, clips, device)
    nbytes = t.x.numel() * t.x.element_size()
    # With a mean of ten deviations too, where E[x^2] - E[x]^2 shows; the times are those of mean 0.
    both = [largest_errors(case, inputs) for inputs in (draw(case, clips, device, 10.0), t)]
    if not all(map(is_right, both)):
        raise WrongError(f"{case}: {both}, in shares of what is allowed")
    errors = {name: max(one[name] for one in both) for name in both[0]}
    target = torch.empty_like(t.x)
    entry = {**case._asdict(), "megabytes": nbytes / 1e6, "errors": errors}
    found = contenders(device, case, names)
    forward, backward = passes(case.tail, t.x.element_size())

    def train(function: Callable[[Tensors, str], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(t, case.tail), t.inputs(), t.dy)

    def infer(function: Callable[[Tensors, str], Tensor]) -> Callable[[], Any]:
        def call() -> Tensor:
            with torch.no_grad():
                return function(t, case.tail)

        return call

    for direction, count, wrap in (("forward", forward, infer), ("forward_backward", forward + backward, train)):
        calls = {"copy": lambda: target.copy_(t.x), **{name: wrap(function) for name, function in found.items()}}
        times = take_turns(calls, device, rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        yield {**entry, "direction": direction, "passes": count, "milliseconds": medians, "rounds": times}


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").is_file() else None
    return f"{match[1] if match else platform.processor()}, {torch.get_num_threads()} threads"


def commit() -> str:
    done = subprocess.run(  # nosec B607 # the git of who runs this
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def run(arguments: argparse.Namespace) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clips = arguments.clips or (8 if device == "cuda" else 1)
    names = arguments.contenders or ["videogn", "eager", *(["autocast", "compile"] if device == "cuda" else [])]
    shapes = [shape for shape in NETWORK if arguments.only in describe(shape)]
    entries: list[dict[str, Any]] = []
    measured = commit()
    for case in itertools.starmap(Case, itertools.product(shapes, LAYOUTS, DTYPES, TAILS)):
        for entry in measure(case, clips, device, names, arguments.rounds):
            entries.append(entry)
            times = ", ".join(f"{name} {ms:.3f}" for name, ms in entry["milliseconds"].items())
            print(f"{describe(case.shape)} {case.layout} {case.dtype} {case.tail} {entry['direction']}: {times} ms", flush=True)
    name = device_name(device)
    result = {
        "device": name,
        "date": date.today().isoformat(),
        "commit": measured,
        "torch": torch.__version__,
        "triton": sys.modules["triton"].__version__ if "triton" in sys.modules else None,
        "backend": "triton" if device == "cuda" else "aten",
        "clips": clips,
        "rounds": arguments.rounds,
        "entries": entries,
    }
    path = arguments.out or RESULTS / f"group_norm_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)
    return 0


def describe(shape: Any) -> str:
    channels, *size = shape
    return f"{channels}@{'x'.join(map(str, size))}"


def tables(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Write what the result files say between the marks of the page."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("group_norm_*.json"))]
    text = "\n".join(table(result) for result in found) or "Not measured yet."
    start, end = "<!-- measured -->\n", "<!-- end -->"
    before, rest = page.read_text().split(start)
    page.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def table(result: dict[str, Any]) -> str:
    """One device: a line a layout, dtype, direction and tail, over all shapes; and the sum over a step of the network."""
    entries = result["entries"]
    others = [name for name in ("eager", "autocast", "compile") if any(name in e["milliseconds"] for e in entries)]
    worst = max(share for entry in entries for share in entry["errors"].values())
    spreads = [(max(ms) - min(ms)) / statistics.median(ms) for ms in (entry["rounds"]["videogn"] for entry in entries)]
    spread = statistics.median(spreads)
    versions = f"torch {result['torch']}" + (f", triton {result['triton']}" if result["backend"] == "triton" else "")
    lines = [
        f"### {result['device']}",
        "",
        f"{result['date']}, commit {result['commit']}, {versions}, backend `{result['backend']}`, clips in a batch: "
        f"{result['clips']}, medians of {result['rounds']} rounds; from the fastest to the slowest, half of our times spread by "
        f"less than {spread:.0%}. Largest difference to fp64: {worst:.2f} of what is allowed.",
        "",
        f"| layout | dtype | direction | tail | GB/s | share of copy | {' | '.join(f'{name} / ours' for name in others)} |",
        f"|---|---|---|---|---|---|{'---|' * len(others)}",
    ]

    def row(title: str, group: list[dict[str, Any]], counts: list[int]) -> str:
        def total(name: str) -> float | None:
            if any(name not in entry["milliseconds"] for entry in group):
                return None
            return sum(n * entry["milliseconds"][name] for n, entry in zip(counts, group, strict=True))

        own = total("videogn")
        assert own, "a result without our own time"
        moved = sum(n * entry["passes"] * entry["megabytes"] for n, entry in zip(counts, group, strict=True))
        copied = sum(n * entry["passes"] / 2 * entry["milliseconds"]["copy"] for n, entry in zip(counts, group, strict=True))
        ratios = [f"{ms / own:.2f}" if (ms := total(name)) else "" for name in others]
        return f"| {title} | {moved / own:.1f} | {copied / own:.0%} | {' | '.join(ratios)} |"

    for layout in LAYOUTS:
        for dtype in DTYPES:
            for direction in ("forward", "forward_backward"):
                part = [e for e in entries if (e["layout"], e["dtype"], e["direction"]) == (layout, dtype, direction)]
                title = f"{layout} | {dtype} | {direction.replace('_', ' + ')}"
                for tail in TAILS:
                    group = [entry for entry in part if entry["tail"] == tail]
                    if group:
                        lines.append(row(f"{title} | {tail}", group, [1] * len(group)))
                # The norms of a whole step, each shape and tail as often as it stands in the network.
                counts = [NETWORK[tuple(entry["shape"])].get(entry["tail"], 0) for entry in part]
                if sum(counts) == sum(sum(tails.values()) for tails in NETWORK.values()):
                    lines.append(row(f"{title} | **the network's {sum(counts)}**", part, counts))
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only write docs/group_norm.md anew")
    parser.add_argument("--only", default="", metavar="TEXT", help="shapes that contain it, as in 512@16x7x7")
    parser.add_argument("--clips", type=int, help="of a batch; 8 on a GPU, 1 on a CPU")
    parser.add_argument("--rounds", type=int, default=5, help="how often the contenders take turns")
    parser.add_argument("--contenders", nargs="+", choices=["videogn", "eager", "autocast", "compile"])
    parser.add_argument("--out", type=Path, help="the result file")
    arguments = parser.parse_args()
    if arguments.tables:
        tables()
        return 0
    try:
        return run(arguments)
    except WrongError as error:
        print(f"group_norm is wrong: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
