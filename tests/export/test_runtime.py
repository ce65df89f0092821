"""An artifact's process: its answers, its memory, and its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videogn.export.child import filled
from videogn.export.runtime import Runtime
from videogn.types import Findings, InputError


@pytest.fixture(autouse=True)
def openers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def runtime(name: str, trust: bool = False) -> Runtime:
    return Runtime("Some Runtime 1", f"openers.{name}", Path("m.onnx"), 1, trust)


CLIPS = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)


def test_scores_come_in_order_and_whole() -> None:
    with runtime("doubles") as opened:
        for batch in (1, 2, 5, 9):
            assert np.array_equal(opened.scores(CLIPS, batch), 2 * CLIPS.reshape(5, -1)[:, :3])
        assert len(opened.seconds(CLIPS, 3)) == 3
        before = opened.peak_bytes()
        opened.scores(np.zeros((4, 2**23), np.float32), 4)  # 128 MiB
        # Its input and the doubled view are held at once: at least the input more.
        assert opened.peak_bytes() - before > 0.9 * 2**27


def test_it_is_told_threads_and_trust() -> None:
    for trust in (False, True):
        with runtime("counts_threads", trust) as opened:
            assert opened.scores(CLIPS, 5)[0].tolist() == [1, trust]


def test_a_crash_is_named_with_its_signal() -> None:
    with pytest.raises(Findings, match=r"^Some Runtime 1 crashed \(SIGSEGV\) when loading it$"):
        runtime("crashes_at_once")
    with runtime("crashes_on_two") as opened:
        assert len(opened.scores(CLIPS, 1)) == 5
        with pytest.raises(Findings, match=r"^Some Runtime 1 crashed \(SIGABRT\) when running clips of 3 x 2, 2 at a time$"):
            opened.scores(CLIPS, 2)
        with pytest.raises(Findings, match=r"crashed \(SIGABRT\)"):  # and stays so
            opened.scores(CLIPS, 1)


def test_a_refusal_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match=r"^m\.onnx: not one of mine$"):
        runtime("refuses")


def test_an_error_is_one_line() -> None:
    with (
        runtime("fails") as opened,
        pytest.raises(Findings, match=r"^Some Runtime 1 fails when running clips of 3 x 2, 5 at a time: no such operator$"),
    ):
        opened.scores(CLIPS, 5)


def test_an_end_without_a_word() -> None:
    with pytest.raises(Findings, match=r"^Some Runtime 1 ended with status 3 \(out of licences\) when loading it$"):
        runtime("leaves")


def test_a_fixed_batch_is_filled_with_the_last_clip() -> None:
    assert filled(CLIPS, 5) is CLIPS
    whole = filled(CLIPS, 4)
    assert len(whole) == 8
    assert np.array_equal(whole[:5], CLIPS)
    assert all(np.array_equal(clip, CLIPS[-1]) for clip in whole[5:])
