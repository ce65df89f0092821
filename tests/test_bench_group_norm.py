"""The benchmark of group norm: what it counts, what it refuses, and that the page says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench" / "group_norm.py"


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_group_norm", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_measures_each_layout_dtype_and_tail(bench: ModuleType) -> None:
    for layout in bench.LAYOUTS:
        for dtype in bench.DTYPES:
            for tail in bench.TAILS:
                case = bench.Case((32, 2, 3, 5), layout, dtype, tail)
                entries = list(bench.measure(case, 2, "cpu", ["videogn", "eager"], 1))
                assert [entry["direction"] for entry in entries] == ["forward", "forward_backward"]
                assert all(0 <= share <= 1 for entry in entries for share in entry["errors"].values())
                assert set(entries[0]["errors"]) == {"y", "dx", "dgamma", "dbeta", *["dresidual"] * (tail == "add_relu")}
                assert all(ms > 0 for entry in entries for ms in entry["milliseconds"].values())
                assert set(entries[0]["milliseconds"]) == {"copy", "videogn", "eager"}


def test_counts_the_bytes_of_two_passes(bench: ModuleType) -> None:
    """Forward x twice and y; backward x and dy twice and dx. A residual adds one each way, and its mask one bit an element."""
    assert bench.passes("relu", 2) == (3, 5)
    assert bench.passes("add_relu", 2) == (4.0625, 6.0625)


def test_the_network_has_53_norms_of_2_billion_values(bench: ModuleType) -> None:
    counts = {shape: sum(tails.values()) for shape, tails in bench.NETWORK.items()}
    assert sum(counts.values()) == 53
    # 2.09 G elements at batch 8, as counted from the network itself.
    elements = sum(count * shape[0] * shape[1] * shape[2] * shape[3] for shape, count in counts.items())
    assert 8 * elements / 1e9 == pytest.approx(2.09, abs=0.005)


@pytest.mark.parametrize(("wrong", "name"), [("y", "y"), ("gradient", "dx")])
def test_a_wrong_kernel_is_found(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, wrong: str, name: str) -> None:
    genuine = bench.group_norm

    def off(x: Any, *arguments: Any) -> Any:
        y = genuine(x, *arguments)
        if arguments[-1] is not None:  # the definition
            return y
        return y * 1.01 if wrong == "y" else y + 0.01 * (x - x.detach())

    monkeypatch.setattr(bench, "group_norm", off)
    case = bench.Case((32, 2, 3, 5), "NCDHW", "fp32", "relu")
    assert bench.largest_errors(case, bench.draw(case, 2, "cpu"))[name] > 1
    with pytest.raises(bench.WrongError, match=rf"tail='relu'.*'{name}': "):
        next(bench.measure(case, 2, "cpu", ["videogn"], 1))


def test_nan_is_not_right(bench: ModuleType) -> None:
    assert bench.is_right({"y": 1.0, "dx": 0.0})
    assert not bench.is_right({"y": 0.5, "dx": float("nan")})


def test_a_variance_that_cancels_is_found(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = bench.group_norm

    def naive(x: Any, weight: Any, bias: Any, num_groups: int, eps: float, *tail: Any) -> Any:
        if tail[-1] is not None:
            return genuine(x, weight, bias, num_groups, eps, *tail)
        groups = x.reshape(len(x), num_groups, -1)
        mean = groups.mean(-1, keepdim=True)
        y = (groups - mean) / ((groups * groups).mean(-1, keepdim=True) - mean * mean + eps).sqrt()
        return y.reshape(x.shape) * weight.reshape(-1, 1, 1, 1) + bias.reshape(-1, 1, 1, 1)

    monkeypatch.setattr(bench, "group_norm", naive)
    case = bench.Case((32, 2, 3, 5), "NCDHW", "fp32", "plain")
    assert bench.is_right(bench.largest_errors(case, bench.draw(case, 2, "cpu")))
    assert not bench.is_right(bench.largest_errors(case, bench.draw(case, 2, "cpu", mean=300.0)))


def test_a_table_of_known_times(bench: ModuleType) -> None:
    def entry(shape: tuple[int, ...], ours: float, eager: float) -> dict[str, Any]:
        case = {"shape": shape, "layout": "NCDHW", "dtype": "bf16", "tail": "relu", "direction": "forward"}
        times = {"copy": 1.0, "videogn": ours, "eager": eager}
        rounds = {name: [0.9 * ms, ms, 1.2 * ms] for name, ms in times.items()}
        return {**case, "megabytes": 100, "passes": 3, "errors": {"y": 0.5}, "milliseconds": times, "rounds": rounds}

    entries = [entry((64, 32, 112, 112), 2.0, 3.0), entry((64, 32, 56, 56), 3.0, 7.0)]
    about = {"device": "a device", "date": "2026-01-01", "commit": "abc", "torch": "2", "triton": None, "backend": "aten"}
    result = {**about, "clips": 1, "rounds": 5, "entries": entries}
    lines = bench.table(result).splitlines()
    # 2 x 3 x 100 MB in 5 ms; a copy of as much takes 2 x 1.5 ms; eager 10 ms.
    assert "| NCDHW | bf16 | forward | relu | 120.0 | 60% | 2.00 |" in lines
    assert len([line for line in lines if line.startswith("| N")]) == 1  # no sum over a network of which shapes are missing


def test_the_page_says_what_was_measured(bench: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "group_norm.md"
    page.write_text(bench.PAGE.read_text())
    bench.tables(page)
    assert page.read_text() == bench.PAGE.read_text()
    for path in bench.RESULTS.glob("group_norm_*.json"):
        assert json.loads(path.read_text())["device"] in page.read_text()
