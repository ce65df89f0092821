"""The page of a run, written at its end and anew."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from videogn.decoder.pyav import PyAVDecoder


def moved(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def clips(page: Path) -> list[bytes]:
    return [base64.b64decode(text) for text in re.findall(r"data:video/mp4;base64,([\w+/=]+)", page.read_text())]


def test_a_run_has_a_page_with_its_hardest_videos(trained: Path, tmp_path: Path) -> None:
    page = trained / "report.html"
    found = clips(page)
    assert len(found) == 10  # all that were tested, of the 12 that are asked for
    text = page.read_text()
    assert text.count("data:image/webp") == 20  # a poster and a strip each
    scores = np.load(trained / "scores.npz")
    logits = scores["ten_clip/logits"].astype(np.float64)
    powers = np.exp(logits - logits.max(2, keepdims=True))
    true = (powers / powers.sum(2, keepdims=True)).mean(1)[np.arange(10), scores["labels"]]
    # The hardest stands first.
    places = [text.index(scores["paths"][row]) for row in np.argsort(true)]
    assert places == sorted(places)
    (tmp_path / "clip.mp4").write_bytes(found[0])
    video = PyAVDecoder().open(tmp_path / "clip.mp4")
    assert (video.num_frames, video.height, video.width) == (4, 32, 32)
    assert "trunk.conv1" in text  # the layers
    assert json.loads((trained / "result.json").read_text())["command_line"] in html.unescape(text)


def test_the_page_anew(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    run = moved(trained, tmp_path)
    first = clips(run / "report.html")
    (run / "report.html").unlink()
    outcome = videogn("report", str(run))
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"{run}/report.html\n"
    assert clips(run / "report.html") == first
    assert videogn("report", str(run), "--videos", "2").status == 0
    assert clips(run / "report.html") == first[:2]


def test_videos_and_a_checkpoint_that_are_not_there(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    run = moved(trained, tmp_path)
    result = json.loads((run / "result.json").read_text())
    result["dataset"]["root"] = str(tmp_path / "gone")
    (run / "result.json").write_text(json.dumps(result))
    assert videogn("report", str(run)).status == 0
    text = (run / "report.html").read_text()
    assert not clips(run / "report.html")
    assert "no such file" in text
    assert videogn("report", str(run), "--root", str(trained.parent / "motion")).status == 0
    assert len(clips(run / "report.html")) == 10
    shutil.rmtree(run / "checkpoint")
    outcome = videogn("report", str(run))
    assert outcome.status == 0
    assert "report: no videos are shown: " in outcome.err
    assert "trunk.conv1" in (run / "report.html").read_text()


def test_a_test_has_a_page_of_its_own_protocol(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    overrides = ["evaluation=one_clip", "test_short_side=40", "report_videos=3"]
    assert videogn("evaluate", f"checkpoint={trained}", *overrides, f"out={tmp_path}/e").status == 0
    first = clips(tmp_path / "e" / "report.html")
    assert len(first) == 3
    assert not set(first) & set(clips(trained / "report.html"))  # of another short side
    outcome = videogn("report", str(tmp_path / "e"), "--videos", "3")
    assert outcome.status == 0, outcome.err
    assert clips(tmp_path / "e" / "report.html") == first


def test_runs_side_by_side(videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = moved(trained, tmp_path)
    outcome = videogn("report", str(trained), str(run))
    assert outcome.status == 0, outcome.err
    assert outcome.out == "report.html\n"
    assert "McNemar" in Path("report.html").read_text()
    assert videogn("report", str(trained), str(run), "--out", "a, page.html").status == 0
    assert Path("a, page.html").read_text() == Path("report.html").read_text()


def test_refuses(videogn: Callable, trained: Path, tmp_path: Path, tiny: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty: no result" in videogn("report", "empty").refusal()
    assert "empty: no result" in videogn("report", str(trained), "empty").refusal()
    assert "gone: no result" in videogn("report", "gone").refusal()
    assert "required: RUN" in videogn("report").refusal()
    assert "--videos -1: give 0 or more" in videogn("report", str(trained), "--videos", "-1").refusal()
    assert "--out is for several runs" in videogn("report", str(trained), "--out", "x.html").refusal()
    assert "--root is for the page of one run" in videogn("report", str(trained), str(trained), "--root", ".").refusal()
    assert "--root gone: no such folder" in videogn("report", str(trained), "--root", "gone").refusal()
    several = ("report", str(trained), str(trained), "--out")
    assert "--out gone/x.html: there is no folder gone" in videogn(*several, "gone/x.html").refusal()
    assert "--out x.txt: the file's name must end in .html" in videogn(*several, "x.txt").refusal()
    page = str(trained / "report.html")
    assert f"--out {page}: would replace the page of that run" in videogn(*several, page).refusal()
    Path("x").touch()
    assert "report: x: a file; give a folder" in videogn("report", "x").refusal()
    assert "report_videos=-1: give a whole number" in videogn("train", *tiny, "report_videos=-1").refusal()
    run = moved(trained, tmp_path)
    (run / "scores.npz").unlink()
    assert "no result" in videogn("report", str(run)).refusal()
    shutil.copy(trained / "scores.npz", run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    poisoned = {**config, "decoder": {"_target_": "os.system", "command": f"touch {tmp_path}/SENTINEL"}}
    for text, message in (
        (yaml.safe_dump(poisoned), "names 'os.system' under decoder._target_"),
        ("a: [", "cannot be read as a configuration"),
        ("a: !!python/object/apply:os.system ['touch SENTINEL']", "cannot be read as a configuration"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "cannot be read as a configuration"),
        ("[" * 5000, "cannot be read as a configuration"),
        ("- a", "not a mapping"),
        ("a: 1", "has no model"),
    ):
        (run / "config.yaml").write_text(text)
        assert message in videogn("report", str(run)).refusal()
    assert not list(tmp_path.rglob("SENTINEL"))


def test_the_report_of_a_sweep(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    """One job done, one failed, one that never ran; the figures are those of the done job's result.json."""
    folder = tmp_path / "sweep, [odd] = 'name'"
    for name, state in (("a" * 12, "done"), ("b" * 12, "failed")):
        (folder / name).mkdir(parents=True)
        if state == "done":
            for file in ("result.json", "scores.npz", "metrics.csv"):
                shutil.copy(trained / file, folder / name / file)
        else:
            (folder / name / "failure.json").write_text('{"status": 1, "message": "out of memory: batch_size=9"}')
    jobs = [{"id": letter * 12, "overrides": [f"norm=n{letter}", "seed=0"]} for letter in "abc"]
    (folder / "jobs.json").write_text(json.dumps({"schema": 1, "command_line": "videogn train -m norm=a,b,c", "jobs": jobs}))
    outcome = videogn("report", str(folder))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [str(folder / f"report.{suffix}") for suffix in ("html", "md", "csv")]
    text = (folder / "report.md").read_text()
    result = json.loads((trained / "result.json").read_text())
    assert "3 jobs: 1 done, 1 failed, 1 missing." in text
    assert f"| na | {100 * (1 - result['results'][0]['metrics']['top1']):.4g} (1) |" in text
    assert "| bbbbbbbbbbbb | nb, seed=0 | failed | out of memory: batch_size=9 |" in text
    with (trained / "metrics.csv").open(newline="") as file:
        (last,) = [row["val/top1"] for row in csv.DictReader(file) if row["val/top1"]]
    assert f",{float(last)}," in (folder / "report.csv").read_text()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('{"command_line": "x", "jobs": []}', [], "no jobs; give the folder of a sweep that has some"),
        ("{", [], r"jobs.json: cannot be read as the jobs of a sweep"),
        ('{"command_line": "x", "jobs": []}', ["--out", "x.html"], "--root and --out are for runs"),
    ],
)
def test_a_sweep_that_has_no_report(videogn: Callable, tmp_path: Path, content: str, arguments: list[str], message: str) -> None:
    (tmp_path / "jobs.json").write_text(content)
    assert re.search(message, videogn("report", str(tmp_path), *arguments).refusal())
