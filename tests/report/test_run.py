"""report.html against the result that it shows."""

from __future__ import annotations

import csv
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from videogn.evaluation.metrics import classification_metrics
from videogn.evaluation.multi_view import Scores
from videogn.evaluation.result import write_scores
from videogn.report.run import write_report
from videogn.types import InputError

CLASSES = ["jump", "<script>alert(1)</script>", "run & hide"]


class Page(HTMLParser):
    """The words and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of five videos, one of them dead, two answered wrongly."""
    labels = np.array([0, 0, 1, 2, 2])
    answers = [0, 1, 1, 0, None]
    views = np.full((5, 2, 3), np.nan, np.float32)
    for row, answer in enumerate(answers):
        if answer is not None:
            views[row] = 0.1
            views[row, :, answer] = 0.8
    scores = Scores(np.log(views), ())
    write_scores(tmp_path, {"ten_clip": scores}, [f"{row}.mp4" for row in range(5)], labels, CLASSES)
    result = {
        "command": "train",
        "config_hash": "abc",
        "versions": {"videogn": "0"},
        "hardware": {"machine": "m", "cpus": 2, "gpus": []},
        "dataset": {"name": "a <b> set", "manifest_sha256": "00", "num_videos": 9, "num_dead": 1},
        "split": "test",
        "selected_on_test": True,
        "results": [
            {
                "name": "ten_clip",
                "protocol": {"aggregation": "softmax_mean", "num_clips": 10},
                "protocol_hash": "9f8e",
                "metrics": {**classification_metrics(scores, labels, CLASSES), "loss": 1.25},
                "intervals_95": {"top1": [0.125, 0.875]},
                "dead_videos": [{"path": "c/<i>.mp4", "reason": "no <video>"}],
            }
        ],
        "timing": {"total_seconds": 3.5},
        "peak_memory_bytes": 2**30,
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "config.yaml").write_text("label: </pre><script>alert(2)</script>\n")
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["epoch", "step", "train/loss_epoch", "val/top1"])
        rows.writeheader()
        rows.writerow({"epoch": 0, "step": 3, "val/top1": 0.25})
        rows.writerow({"epoch": 0, "step": 3, "train/loss_epoch": 2.0})
        rows.writerow({"epoch": 1, "step": 7, "train/loss_epoch": 1.0})
    return tmp_path


def test_shows_the_result(run_folder: Path) -> None:
    page = Page(write_report(run_folder).read_text())
    assert "40.0%" in page.words
    assert "12.5% to 87.5%" in page.words
    assert "1.25" in page.words
    text = " ".join(page.words)
    assert "There is no test split" in text
    assert "5 videos of split test" in text
    assert "num_clips 10; hash 9f8e" in text
    assert "c/<i>.mp4: no <video>" in text


def test_names_are_text_and_never_markup(run_folder: Path) -> None:
    page = Page(write_report(run_folder).read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "i", "b"}
    assert "<script>alert(1)</script>" in page.words


def test_a_path_that_is_no_utf_8_is_shown(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    result["results"][0]["dead_videos"][0]["path"] = os.fsdecode(b"caf\xe9.mp4")
    (run_folder / "result.json").write_text(json.dumps(result))
    assert r"caf\udce9.mp4: no <video>" in Page(write_report(run_folder).read_text(encoding="utf-8")).words


def test_needs_no_network(run_folder: Path) -> None:
    text = write_report(run_folder).read_text()
    assert not [attributes for tag, attributes in Page(text).tags if "src" in attributes or "href" in attributes]
    assert "url(" not in text
    assert "@import" not in text


def test_curves_run_from_their_first_epoch_to_their_last(run_folder: Path) -> None:
    page = Page(write_report(run_folder).read_text())
    lines = [attributes["points"] for tag, attributes in page.tags if tag == "polyline"]
    loss = [tuple(map(float, point.split(","))) for point in re.split(r"\s+", lines[0] or "")]
    assert len(loss) == 2
    assert "epoch 1" in page.words  # the axis, counted as the progress bar counts
    assert loss[0][0] < loss[1][0]  # epoch 2 stands right of epoch 1
    assert loss[0][1] < loss[1][1]  # SVG's y points down, so the smaller loss stands lower


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no result .*result\.json.*give a finished run"):
        write_report(tmp_path)
