"""How values are written, and that a page is closed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import videogn.report.page
from videogn.report.page import duration, json_for_script, large, percent, size, width, write_whole


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.85, "850 ms"),
        (3.4, "3.4 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (11520, "3 h 12 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("num", "text"), [(None, "-"), (0, "0 B"), (1000, "1000 B"), (1024, "1 KiB"), (3.2 * 2**20, "3.2 MiB")])
def test_sizes(num: float | None, text: str) -> None:
    assert size(num) == text


@pytest.mark.parametrize(("num", "text"), [(0, "0"), (999, "999"), (999_600, "1 M"), (21_300_000, "21.3 M"), (3.5e12, "3.5 T")])
def test_large_numbers(num: float, text: str) -> None:
    assert large(num) == text


def test_what_is_no_number() -> None:
    assert percent(float("nan")) == percent(None) == "-"
    assert [width(share) for share in (float("nan"), -1, 0.25, 7)] == ["0.0%", "0.0%", "25.0%", "100.0%"]


def test_json_closes_no_script_and_says_the_same() -> None:
    data = {"</script>": ["<!--", "a & b", float("nan"), 1.5, None, True, "\u2028é"], "n": {"x": (1, 2)}}
    text = json_for_script(data)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script>": ["<!--", "a & b", None, 1.5, None, True, "\u2028é"], "n": {"x": [1, 2]}}


def test_a_path_that_is_no_utf_8_is_spelled_alike_in_page_and_data(tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9")
    assert (
        write_whole(tmp_path / "page.html", path).read_text(encoding="utf-8") == json.loads(json_for_script(path)) == r"caf\udce9"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_the_blocks_of_the_style_are_closed() -> None:
    """An open one takes in all rules behind it."""
    style = (Path(videogn.report.page.__file__).parent / "style.css").read_text(encoding="utf-8")
    depths = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in style])
    assert depths.min() >= 0
    assert depths[-1] == 0
    assert depths.max() == 2  # rules within @media
