"""report.html against the result that it shows."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videogn.evaluation.result import read_result
from videogn.report.media import Example
from videogn.report.model import Inspection, Layer
from videogn.report.run import LARGEST_PAGE, write_report
from videogn.types import InputError

VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """The words and the tags of a page, in the order of the text; scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and (not self.open or self.open[-1] != "style"):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


def page(folder: Path, *arguments: Any, **options: Any) -> Page:
    found = Page(write_report(folder, *arguments, **options).read_text(encoding="utf-8"))
    assert found.open == []  # every tag is closed, in its order
    assert len(set(found.ids())) == len(found.ids())
    return found


def hard(num: int, side: int = 64, noisy: bool = False, reason: str | None = None) -> list[Example]:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256 if noisy else 2, (8, side, side, 3), dtype=np.uint8) for _ in range(num)]
    heat = np.ones((8, side, side), np.float32)
    return [Example(f"c/{i}.mp4", "jump", "<i>run", 0.75, 0.125, clip, 15.0, heat, reason) for i, clip in enumerate(clips)]


NETWORK = Inspection(
    (
        Layer("conv", "PlainConv3d", (64, 8, 16, 16), 1000, False, None, None, None, False, False, True),
        Layer("norm", "GroupNorm", (64, 8, 16, 16), 128, True, 32, 2, "relu", True, True, False),
    ),
    1128,
    1000,
    3_200_000,
    3 * 2**20,
    0,
    "bf16-mixed",
)


def test_shows_the_result(hostile_run: Path) -> None:
    shown = page(hostile_run)
    assert "25.0%" in shown.words
    assert "12.5% to 87.5%" in shown.words
    assert 'of 2, often taken for "><img src=x onerror=alert(2)> (1)' in shown.words
    assert "There is no test split" in shown.text
    assert "8 videos of split test" in shown.text
    assert "num_clips 10; hash 9f8e" in shown.text
    assert "c/<i>6.mp4: no <video>" in shown.words
    assert "videogn train norm=group_norm 'note=<b>'" in shown.words
    assert "ResNet3D, 50 layers: bottleneck blocks 3 + 4 + 6 + 3" in shown.words


def test_data_of_the_matrix_are_the_answers(hostile_run: Path) -> None:
    data = page(hostile_run).data
    assert [matrix["name"] for matrix in data["matrices"]] == ["ten_clip", "<b>dense"]
    cells = np.array(data["matrices"][0]["cells"]).reshape(-1, 3).tolist()
    assert cells == [[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 2, 1], [2, 1, 1], [3, 0, 1]]
    assert data["matrices"][0]["videos"] == [2, 2, 1, 1, 2]
    assert data["matrices"][0]["top1"] == [0.5, 0.5, 0.0, 0.0, 0.0]  # dead videos of the last class are wrong
    assert data["classes"] == read_result(hostile_run).classes


def test_names_are_text_and_never_markup(hostile_run: Path) -> None:
    shown = page(hostile_run, hard(1))
    assert not {tag for tag, _ in shown.tags} & {"i", "bold"}
    assert "<script>alert(1)</script>" in shown.words
    assert [attributes.get("type") for tag, attributes in shown.tags if tag == "script"] == ["application/json", None]
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    allowed = next(a["content"] or "" for tag, a in shown.tags if tag == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(shown.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in allowed
    assert "default-src 'none'" in allowed


def test_a_path_that_is_no_utf_8_is_shown(hostile_run: Path) -> None:
    result = json.loads((hostile_run / "result.json").read_text())
    result["results"][0]["dead_videos"][0]["path"] = os.fsdecode(b"caf\xe9.mp4")
    (hostile_run / "result.json").write_text(json.dumps(result))
    example = Example(os.fsdecode(b"caf\xe9.mp4"), "a", "b", 0.5, 0.5, None, 1, None, "moved")
    shown = page(hostile_run, [example])
    assert r"caf\udce9.mp4: no <video>" in shown.words
    assert r"caf\udce9.mp4" in shown.words


def test_needs_no_network(hostile_run: Path) -> None:
    shown = page(hostile_run, hard(2), NETWORK)
    links = {a[name] or "" for _, a in shown.tags for name in ("src", "href", "poster", "srcset") if name in a}
    assert {link.partition(":")[0] for link in links if not link.startswith("#")} == {"data"}
    text = (hostile_run / "report.html").read_text()
    assert "url(" not in text
    assert "@import" not in text
    # Every place that the contents name is there.
    assert {link[1:] for link in links if link.startswith("#")} <= set(shown.ids())


def test_curves_run_from_their_first_epoch_to_their_last(hostile_run: Path) -> None:
    shown = page(hostile_run)
    lines = [attributes["points"] for tag, attributes in shown.tags if tag == "polyline"]
    loss = [tuple(map(float, point.split(","))) for point in re.split(r"\s+", lines[0] or "")]
    assert len(loss) == 3
    assert shown.data["plots"]["curve-0"]["names"] == ["epoch 1", "epoch 2", "epoch 3"]  # counted as the progress bar counts
    assert shown.data["plots"]["curve-0"]["lines"][1]["text"] == ["2.5", "1.25", "0.8333"]
    assert loss[0][0] < loss[1][0]  # epoch 2 stands right of epoch 1
    assert loss[0][1] < loss[1][1]  # SVG's y points down, so the smaller loss stands lower


def test_shows_the_network(hostile_run: Path) -> None:
    shown = page(hostile_run, network=NETWORK)
    for words in ("1.13 k", "3.2 M", "3 MiB", "1 norms: 1 GroupNorm", "relu, fused", "starts at 0", "weight decay reaches none"):
        assert words in shown.text
    rows = [a for tag, a in shown.tags if tag == "tr" and a.get("class") == "norm"]
    assert len(rows) == 1


def test_shows_examples(hostile_run: Path) -> None:
    moved = Example("d/<b>.mp4", "jump", "jump", 0.5, 0.5, None, 1.0, None, "no such <file>")
    shown = page(hostile_run, [*hard(2), moved])
    assert sum(tag == "video" for tag, _ in shown.tags) == 2
    assert all("controls" in a and "muted" in a and "autoplay" not in a for tag, a in shown.tags if tag == "video")
    assert "no such <file>" in shown.words
    assert "answered <i>run" in shown.words
    assert "smaller or left out" not in shown.text


@pytest.mark.turns
@pytest.mark.parametrize(("num", "side"), [(3, 224), (60, 160)])
def test_stays_small_whatever_the_examples(hostile_run: Path, num: int, side: int) -> None:
    """Noise cannot be compressed: at full quality an example of 160 px takes 180 kB."""
    shown = page(hostile_run, hard(num, side, noisy=True, reason="r" * 3000))
    size = (hostile_run / "report.html").stat().st_size
    assert size < LARGEST_PAGE
    if num == 60:
        assert size > LARGEST_PAGE / 2  # and the room is used
        assert "smaller or left out, so that this page stays below 6 MB" in shown.text
        assert "12 more videos are not shown" in shown.text


def test_many_dead_videos_are_counted(hostile_run: Path) -> None:
    result = json.loads((hostile_run / "result.json").read_text())
    result["results"][0]["dead_videos"] = [{"path": f"{i}.mp4", "reason": "x"} for i in range(1000)]
    (hostile_run / "result.json").write_text(json.dumps(result))
    text = page(hostile_run).text
    assert "199.mp4: x" in text
    assert "200.mp4: x" not in text
    assert "800 more are in result.json" in text


def test_what_is_missing_is_left_out(hostile_run: Path) -> None:
    for name in ("config.yaml", "metrics.csv"):
        (hostile_run / name).unlink()
    shown = page(hostile_run)
    assert "learning" not in shown.ids()
    assert "#learning" not in [a.get("href") for _, a in shown.tags]
    for words in (
        "no config.yaml in this folder",
        "No clips were given",
        "No network was given",
    ):
        assert words in shown.text


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no result .*result\.json.*give a finished run"):
        write_report(tmp_path)


def test_400_classes(large_run: Path) -> None:
    shown = page(large_run)
    assert (large_run / "report.html").stat().st_size < 1_000_000
    matrix = shown.data["matrices"][0]
    assert sum(matrix["cells"][2::3]) == sum(matrix["videos"]) == len(read_result(large_run).labels)
    assert sorted(matrix["together"]) == list(range(400))
    assert "air drumming" in shown.words
