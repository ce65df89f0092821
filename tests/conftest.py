"""What every test shares: shapes checked as types, one thread count, seeded generators, real videos where they are."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

if not os.environ.get("JAXTYPING_DISABLE"):
    from jaxtyping import install_import_hook

    # Not kernel/: the hook breaks ahead-of-time compilation and torch.compile(fullgraph=True).
    for room in ("dataset", "sampler", "transform", "decoder", "encoder", "norm", "model", "evaluation", "training"):
        install_import_hook(f"videogn.{room}", "beartype.beartype")


TURNS = 8  # parts of the long tests, of which .ci/run has the time for one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", type=int, metavar="N", help=f"of the tests marked `turns`, run one of {TURNS} parts")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_to_other_turns(config, items)
    skip_without_a_gpu(items)


def leave_to_other_turns(config: pytest.Config, items: list[pytest.Item]) -> None:
    turn = config.getoption("turn")
    if turn is None:
        return
    kept, left = [], []
    for item in items:
        other = item.get_closest_marker("turns") and (zlib.crc32(item.nodeid.encode()) - turn) % TURNS
        (left if other else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def skip_without_a_gpu(items: list[pytest.Item]) -> None:
    """A test that needs a GPU skips without one; with REQUIRE_GPU=1 it runs, and fails."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or os.environ.get("REQUIRE_GPU") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


REAL_VIDEOS = Path(os.environ.get("VIDEOGN_TEST_VIDEOS", Path(__file__).parents[2] / "shared" / "videos"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def at_once() -> Iterator[None]:
    """Fails a test that waits, as for somebody to write to a pipe, or that goes on for ever."""

    def fail(signum: int, frame: object) -> None:
        pytest.fail("not done in 20 seconds", pytrace=False)  # no Exception, which a reader of damaged files would catch

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    if not REAL_VIDEOS.is_dir():
        pytest.skip("no real videos here: set VIDEOGN_TEST_VIDEOS to a folder that holds fight/, yoga/, kinetics/, odd/")
    return REAL_VIDEOS
