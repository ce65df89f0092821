"""videogn predict, as a user runs it: what it answers, what it writes, what it refuses."""

from __future__ import annotations

import copy
import csv
import doctest
import functools
import inspect
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import videogn as package
from videogn.cli.files import named_videos
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.training import allocator
from videogn.types import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "model, v=1.onnx"
    command = ["export", f"checkpoint={trained}", f"out={file}", "export.num_clips=2"]
    done = subprocess.run([sys.executable, "-m", "videogn", *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture
def source(trained: Path) -> Path:
    return trained.parent / "motion/test/zoom_in/000.mp4"


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def answers(outcome) -> list[dict]:
    assert outcome.status in (0, 1), outcome.err
    return json.loads(outcome.out)


def start(*arguments: str, **options) -> subprocess.Popen[bytes]:
    # A shell's background jobs ignore Ctrl-C, and what they start does so too.
    hears = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([sys.executable, "-m", "videogn", "predict", *arguments], preexec_fn=hears, **options)


def test_predict_answers_every_file(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some videos"
    folder.mkdir()
    source = trained.parent / "motion/test/zoom_in/000.mp4"
    names = ["a b.mp4", "a,b.mp4", 'it\'s "x".mp4', "k=v.mp4", "#1 [2] {3} $x.mp4", "ü.mp4"]
    for name in names:
        shutil.copy(source, folder / name)
    (folder / "broken.mp4").write_bytes(b"no video")
    outcome = videogn("predict", str(trained), str(folder), str(source), str(tmp_path / "gone.mp4"), "--output", "json")
    assert outcome.status == 1
    answers = {Path(answer["path"]).name: answer for answer in json.loads(outcome.out)}
    assert answers.keys() == {*names, "000.mp4", "broken.mp4", "gone.mp4"}
    expected = answers["000.mp4"]["top"]
    assert len(expected) == 5
    assert [t["probability"] for t in expected] == sorted((t["probability"] for t in expected), reverse=True)
    assert all(answers[name]["top"] == expected and answers[name]["error"] is None for name in names)
    assert answers["broken.mp4"]["error"]
    assert answers["broken.mp4"]["top"] == []
    # The mean of the views in scores.npz is the same answer.
    scores = np.load(trained / "scores.npz")
    row = scores["paths"].tolist().index("test/zoom_in/000.mp4")
    mean = torch.from_numpy(scores["ten_clip/logits"][row]).double().softmax(1).mean(0).numpy()
    assert expected[0]["label"] == scores["classes"][mean.argmax()]
    assert expected[0]["probability"] == pytest.approx(mean.max(), abs=1e-6)
    table = videogn("predict", str(trained), str(source))
    assert table.status == 0
    assert table.out.count("%") == 5


def test_predict_refuses(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no video file in this folder" in videogn("predict", str(trained), str(tmp_path / "empty")).refusal()
    assert "no such run folder" in videogn("predict", str(tmp_path / "gone"), "x.mp4").refusal()
    assert "no checkpoint/last.ckpt" in videogn("predict", str(tmp_path / "empty"), "x.mp4").refusal()
    assert "required: VIDEOS" in videogn("predict", str(trained)).refusal()


def test_the_answers_are_the_scores_of_the_run(videogn: Callable, trained: Path) -> None:
    """Every video of the test; the mean of the views' softmax by hand."""
    scores = np.load(trained / "scores.npz")
    paths = [str(trained.parent / "motion" / path) for path in scores["paths"]]
    found = answers(videogn("predict", str(trained), *paths, "--top", "10", "--output", "json"))
    assert [answer["path"] for answer in found] == paths
    logits = scores["ten_clip/logits"].astype(np.float64)
    powers = np.exp(logits - logits.max(2, keepdims=True))
    expected = (powers / powers.sum(2, keepdims=True)).mean(1)
    for answer, row in zip(found, expected, strict=True):
        given = {entry["label"]: entry["probability"] for entry in answer["top"]}
        # Other batches sum convolutions in another order: fp32, a network of a few layers.
        assert [given[name] for name in scores["classes"]] == pytest.approx(row.tolist(), abs=1e-5)


@pytest.mark.turns
def test_run_checkpoint_and_artifact_agree(videogn: Callable, trained: Path, exported: Path, source: Path) -> None:
    models = [trained, trained / "checkpoint" / "last.ckpt", exported]
    found = []
    for model in models:
        timeline = exported.parent / "t.json"
        command = ("predict", str(model), str(source), "--top", "10", "--output", "json", "--timeline", str(timeline))
        found.append((answers(videogn(*command))[0], json.loads(timeline.read_text())[0]))
    assert found[0] == found[1]
    for one, other in zip(found[0], found[2], strict=True):
        one, other = (sorted(re.findall(r"'probability': ([^}]+)}", str(part))) for part in (one, other))
        assert len(one) == len(other) > 5
        # Scores may differ by the tolerance of the proof, and a softmax by no more than its largest score difference.
        assert np.array(one, float) == pytest.approx(np.array(other, float), abs=1e-4)


def test_an_artifact_refuses_what_it_cannot_give(videogn: Callable, exported: Path, source: Path, tmp_path: Path) -> None:
    command = ("predict", str(exported), str(source))
    assert "device: cuda" in videogn(*command, "--device", "cuda").refusal()
    assert "an exported file gives scores alone" in videogn(*command, "--features", f"{tmp_path}/f.npz").refusal()
    assert "an exported file has no layers" in videogn(*command, "--explain", f"{tmp_path}/why").refusal()
    assert list(tmp_path.iterdir()) == []
    assert videogn(*command, "--device", "cpu", "--batch-size", "3").status == 0


def test_folders_of_images_are_videos(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    frames = PyAVDecoder().open(source)
    for name in ("one", "b/two"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, frame in enumerate(frames.frames(range(frames.num_frames))):
            Image.fromarray(frame).save(tmp_path / "images" / name / f"{index:03}.png")
    expected = answers(videogn("predict", str(trained), str(source), "--output", "json"))[0]["top"]
    found = answers(videogn("predict", str(trained), str(tmp_path / "images"), "--output", "json"))
    assert [answer["path"] for answer in found] == [f"{tmp_path}/images/{name}" for name in ("b/two", "one")]
    assert [answer["top"] for answer in found] == [expected, expected]
    (alone,) = answers(videogn("predict", str(trained), str(tmp_path / "images" / "one"), "--output", "json"))
    assert alone["top"] == expected
    # A picture beside videos is none.
    shutil.copy(source, tmp_path / "images" / "b" / "clip.mp4")
    assert named_videos("predict", [str(tmp_path / "images")]) == [f"{tmp_path}/images/b/clip.mp4"]


def test_links_in_a_circle_are_no_videos(source: Path, tmp_path: Path) -> None:
    shutil.copy(source, tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("b.mp4")
    assert named_videos("predict", [str(tmp_path)]) == [f"{tmp_path}/a.mp4"]


@pytest.mark.usefixtures("at_once")
def test_a_pipe_is_no_model(videogn: Callable, tmp_path: Path, source: Path) -> None:
    os.mkfifo(tmp_path / "x.ckpt")
    os.mkfifo(tmp_path / "result.json")
    assert "neither a folder nor a file" in videogn("predict", str(tmp_path / "x.ckpt"), str(source)).refusal()
    assert "its result.json is no file" in videogn("compare", str(tmp_path), str(tmp_path)).refusal()


def test_names_that_zero_bytes_end(tmp_path: Path, stdin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(b"a b.mp4\0c\nd.mp4\0e\r\0")  # as find -print0 writes them: a name may hold a line break
    assert named_videos("predict", ["-"]) == ["a b.mp4", "c\nd.mp4", "e\r"]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="-: standard input is closed"):
        named_videos("predict", ["-"])


def test_flags_may_stand_between_the_paths(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    odd = tmp_path / "-x.mp4"
    shutil.copy(source, odd)
    plain = videogn("predict", str(trained), str(source), str(odd), "--top", "1", "--output", "json")
    between = videogn("predict", str(trained), str(source), "--top", "1", "--output", "json", "--", str(odd))
    first = videogn("predict", "--top", "1", str(trained), "--output", "json", str(source), str(odd))
    assert plain.status == 0
    assert plain.out == between.out == first.out


def test_a_signal_is_listened_to_no_longer_than_it_takes(videogn: Callable, trained: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert videogn("predict", str(trained), "gone.mp4").status == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_is_not_overwritten(videogn: Callable, trained: Path, source: Path) -> None:
    (trained / "export").mkdir(exist_ok=True)
    (trained / "export" / "proof.json").touch()  # below a folder in it
    for flag, name in (("--features", "scores.npz"), ("--timeline", "result.json"), ("--timeline", "export/proof.json")):
        before = (trained / name).read_bytes()
        for model in (trained, trained / "checkpoint" / "last.ckpt"):
            message = videogn("predict", str(model), str(source), flag, str(trained / name)).refusal()
            assert f"{name}: would replace a file that is read" in message
        assert (trained / name).read_bytes() == before
    (trained / "export" / "proof.json").unlink()


def test_the_memory_of_one_forward_is_kept_for_the_next(
    videogn: Callable, trained: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(allocator, "keep_memory", lambda: asked.append(True))
    assert videogn("predict", str(trained), str(source)).status == 0
    assert asked == [True]


@pytest.mark.usefixtures("at_once")
def test_a_stored_batch_size_that_is_none(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoint" / "last.ckpt", weights_only=True)
    content["videogn"]["config"]["batch_size"] = 0
    torch.save(content, tmp_path / "x.ckpt")
    assert "batch_size=0: give a whole number of views" in videogn("predict", str(tmp_path / "x.ckpt"), str(source)).refusal()


@pytest.mark.turns
def test_what_the_system_refuses_is_one_line(videogn: Callable, trained: Path, source: Path) -> None:
    assert "File name too long" in videogn("predict", str(trained), str(source), "--explain", "n" * 300).refusal()
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, {**buffered, "PYTHONUNBUFFERED": "1"}):  # the buffer is written at the end
        for arguments in (
            ["compare", str(trained), str(trained), "--output", "json"],
            ["predict", str(trained), str(source)],
            ["--version"],
        ):
            with open("/dev/full", "w") as full:
                command = [sys.executable, "-m", "videogn", *arguments]
                done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
            said = [line for line in done.stderr.splitlines() if not line.startswith("decoder: ")]
            assert said == ["videogn: error: No space left on device; see that it can be read and written"]
            assert done.returncode == 1


def test_as_many_scores_as_classes(trained: Path, source: Path) -> None:
    classifier = package.load(trained)
    ten = classifier.classes
    for classes in (ten[:3], (*ten, "one more")):
        classifier.classes = classes
        with pytest.raises(InputError, match=f"the model gives 10 scores, and it has {len(classes)} classes; it is damaged"):
            next(classifier.predict(source))


def test_csv_parses_back(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'a, "b"\nc.mp4'
    shutil.copy(source, odd)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    outcome = videogn("predict", str(trained), str(odd), str(tmp_path / "bad.mp4"), "--output", "csv", "--top", "2")
    assert outcome.status == 1
    rows = list(csv.DictReader(io.StringIO(outcome.out, newline="")))
    assert list(rows[0]) == ["path", "rank", "label", "probability", "error"]
    assert [(row["path"], row["rank"]) for row in rows] == [(str(odd), "1"), (str(odd), "2"), (str(tmp_path / "bad.mp4"), "")]
    assert rows[2]["error"]
    (answer,) = answers(videogn("predict", str(trained), str(odd), "--output", "json", "--top", "2"))
    assert [(r["label"], float(r["probability"])) for r in rows[:2]] == [(t["label"], t["probability"]) for t in answer["top"]]


def test_bad_files_are_listed_and_none_readable_is_an_error(
    videogn: Callable, trained: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    some = videogn("predict", str(trained), str(source), str(tmp_path / "bad.mp4"), f"{tmp_path}/gone.mp4")
    assert some.status == 1
    lines = [line for line in some.err.splitlines() if not line.startswith("decoder: ")]
    assert lines[0] == "videogn: 2 of 3 files could not be read:"
    assert lines[1].startswith(f"  {tmp_path}/bad.mp4: cannot be opened")
    assert lines[2] == f"  {tmp_path}/gone.mp4: no such file"
    command = ("predict", str(trained), str(tmp_path / "bad.mp4"), "gone.mp4", "--features", f"{tmp_path}/f.npz")
    none = videogn(*command, "--timeline", f"{tmp_path}/t.json")
    assert re.search(r"predict: none of the 2 files could be read, beginning with .*bad\.mp4: cannot be opened", none.refusal())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4"]


def test_names_come_from_patterns_and_standard_input(
    videogn: Callable, trained: Path, source: Path, tmp_path: Path, stdin: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        "a/x.mp4",
        "a/b/[1] *.mp4",
        "a/b/1 y.mp4",
        "a/b/ü.mp4",
        "a/b/\udce9.mp4",
        "a/text.txt",
        "a/ space .mp4",
        "a/.x/h.mp4",
    ]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, name)
    videos = sorted(name for name in names if not name.endswith(".txt") and "/.x/" not in name)
    assert named_videos("predict", ["a"]) == videos
    assert named_videos("predict", ["a/**/*.mp4"]) == videos
    assert sorted(named_videos("predict", ["a/*"])) == sorted([*videos, "a/text.txt"])
    assert named_videos("predict", ["*/b"]) == [name for name in videos if name.startswith("a/b/")]
    # A file of that name is meant before what it matches as a pattern: `[1] y.mp4` alone would match `1 y.mp4`.
    assert named_videos("predict", ["a/b/[1] *.mp4"]) == ["a/b/[1] *.mp4"]
    assert named_videos("predict", ["a/b/[1] ?.mp4"]) == ["a/b/1 y.mp4"]
    assert named_videos("predict", ["a/x.mp4", "a/x.mp4", "gone.mp4"]) == ["a/x.mp4", "a/x.mp4", "gone.mp4"]
    stdin(b"a/b/\xe9.mp4\n\n  \r\na/ space .mp4\r\na/b/[1] *.mp4\na/b/*.mp4\na/b")
    listed = ["a/b/\udce9.mp4", "a/ space .mp4", "a/b/[1] *.mp4", "a/b/*.mp4", *(v for v in videos if v.startswith("a/b/"))]
    assert named_videos("predict", ["a/x.mp4", "-"]) == ["a/x.mp4", *listed]
    stdin(b"a/b/\xe9.mp4\na/ space .mp4\n")
    found = answers(videogn("predict", str(trained), "-", "--output", "json", "--top", "1"))
    assert [answer["path"] for answer in found] == ["a/b/\udce9.mp4", "a/ space .mp4"]
    assert all(answer["error"] is None for answer in found)
    Path("a/.y").mkdir()
    shutil.rmtree("a/.x")
    for given, message in (
        (["*.avi"], r"\*\.avi: no such file, and no file matches it as a pattern"),
        (["a/.?"], "no video file in the folders that it matches"),
        ([""], "an empty file name"),
        (["-", "-"], "- stands there twice"),
    ):
        with pytest.raises(InputError, match=message):
            named_videos("predict", given)
    stdin(b"\n \n")
    assert "-: no path on standard input" in videogn("predict", str(trained), "-").refusal()


def test_every_file_that_is_asked_for(videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two videos of one name, one of them named twice, and a bad one; everything at once."""
    monkeypatch.chdir(tmp_path)
    for folder, label in (("one", "zoom_in"), ("two", "move_up")):
        Path(folder).mkdir()
        shutil.copy(trained.parent / f"motion/test/{label}/000.mp4", f"{folder}/x.mp4")
    Path("bad.mp4").write_bytes(b"no video")
    videos = ["one/x.mp4", "bad.mp4", "two/x.mp4", "one/x.mp4"]
    flags = ["--timeline", "t.json", "--features", "f.npz", "--annotate", "labelled", "--explain", "why", "--hop", "0.2"]
    before = set(tmp_path.iterdir())
    outcome = videogn("predict", str(trained), *videos, *flags)
    assert outcome.status == 1, outcome.err
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"t.json", "f.npz", "labelled", "why"}
    written = sorted(path.as_posix() for name in ("labelled", "why") for path in Path(name).rglob("*.*"))
    assert written == ["labelled/one/x.mp4", "labelled/two/x.mp4"] + [
        f"why/{n}/x.{s}" for n in ("one", "two") for s in ("mp4", "png")
    ]
    classifier = package.load(trained)
    with np.load("f.npz") as stored:
        assert stored["paths"].tolist() == videos
        features = stored["features"]
    assert np.isnan(features[1]).all()
    assert np.array_equal(features[0], features[3])
    np.testing.assert_allclose(features[2], classifier.features("two/x.mp4")[0], atol=1e-6)
    head = copy.deepcopy(classifier.scorer.network.head).double()  # type: ignore[union-attr]
    logits = np.load(trained / "scores.npz")["ten_clip/logits"]
    row = np.load(trained / "scores.npz")["paths"].tolist().index("test/zoom_in/000.mp4")
    # An average and a linear layer: the layer on the mean features gives the mean of the views' scores.
    by_head = head(torch.from_numpy(features[0]).double()).detach().numpy()
    np.testing.assert_allclose(by_head, logits[row].astype(np.float64).mean(0), atol=1e-4)
    timelines = json.loads(Path("t.json").read_text())
    assert [entry["path"] for entry in timelines] == videos
    assert timelines[1]["windows"] == []
    for name, entry in (("one", timelines[0]), ("two", timelines[2])):
        timeline = classifier.timeline(f"{name}/x.mp4", 0.2)
        assert entry["duration_seconds"] == timeline.duration_seconds
        assert [s["label"] for s in entry["segments"]] == [s.label for s in timeline.segments]
        assert [w["start_seconds"] for w in entry["windows"]] == [w.start_seconds for w in timeline.windows]
        source, labelled = (PyAVDecoder().open(f"{folder}{name}/x.mp4") for folder in ("", "labelled/"))
        assert (labelled.num_frames, labelled.height, labelled.width) == (source.num_frames, source.height, source.width)
        assert labelled.fps == pytest.approx(source.fps, rel=1e-3)
        why = PyAVDecoder().open(f"why/{name}/x.mp4")
        assert (why.num_frames, why.height, why.width) == (4, 32, 64)
        with Image.open(f"why/{name}/x.png") as sheet:
            assert sheet.width > 4 * 160
    # The table prints the segments under each file.
    clocks = re.findall(r"^  (\d\d):(\d\d\.\d) - (\d\d):(\d\d\.\d)  +[\d.]+%  \w+$", outcome.out, re.MULTILINE)
    assert len(clocks) == sum(len(timelines[i]["segments"]) for i in (0, 2, 3))
    assert float(clocks[0][1]) == 0


def test_timeline_as_csv_and_in_json_answers(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    flags = ("--timeline", f"{tmp_path}/t.csv", "--annotate", f"{tmp_path}/labelled.mkv", "--output", "json")
    (answer,) = answers(videogn("predict", str(trained), str(source), *flags))
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    segments = [row for row in rows if row["kind"] == "segment"]
    assert [(s["label"], s["end_seconds"]) for s in answer["segments"]] == [
        (r["label"], float(r["end_seconds"])) for r in segments
    ]
    assert {row["path"] for row in rows} == {str(source)}
    assert PyAVDecoder().open(tmp_path / "labelled.mkv").num_frames == PyAVDecoder().open(source).num_frames


def test_places_are_refused_before_anything_is_decoded(
    videogn: Callable, trained: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(source, name)
    Path("file").touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    # That no decoder is opened is what makes this quick; that none is even built, what keeps the order.
    monkeypatch.setattr("videogn.prediction.load.load", lambda *_: pytest.fail("loaded"))
    two = ("predict", str(trained), "a.mp4", "b.mp4")
    for flags, message in (
        (("--timeline", "t.txt"), "must end in .json or .csv"),
        (("--timeline", "gone/t.json"), "there is no folder gone"),
        (("--features", "f.npy"), "must end in .npz"),
        (("--annotate", "out.mp4"), "one file for 2 videos; give a folder"),
        (("--annotate", "out.txt"), "must end in .mp4 or .mkv or .mov"),
        (("--annotate", "gone/out"), "there is no folder"),
        (("--annotate", "."), "a.mp4: would replace a file that is read"),
        (("--explain", "."), "a.mp4: would replace a file that is read"),
        (("--explain", "file"), "a file; give a folder"),
        (("--explain", "out", "--annotate", "out"), "would be written twice"),
        (("--hop", "1"), "--hop: it is of --timeline and --annotate"),
        (("--layer", "trunk"), "--layer: it is of --explain"),
        (("--hop", "0", "--timeline", "t.json"), "hop: 0.0: give seconds"),
        (("--hop", "x", "--timeline", "t.json"), "invalid float value: 'x'"),
        (("--top", "0"), "--top 0: give 1 or more"),
        (("--batch-size", "0"), "--batch-size 0: give 1 or more"),
        (("--output", "xml"), "invalid choice: 'xml'"),
    ):
        assert message in videogn(*two, *flags).refusal(), flags
    assert "would replace a file" in videogn("predict", "a.mp4", "b.mp4", "--annotate", "a.mp4").refusal()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_what_the_model_lacks_is_refused(videogn: Callable, trained: Path, source: Path, tmp_path: Path) -> None:
    command = ("predict", str(trained), str(source))
    assert (
        "layer=tronk: no such layer of ResNet3D" in videogn(*command, "--explain", f"{tmp_path}/w", "--layer", "tronk").refusal()
    )
    assert "positions" in videogn(*command, "--explain", f"{tmp_path}/w", "--layer", "head").refusal()
    assert "device: 'gpu': use auto, cpu" in videogn(*command, "--device", "gpu").refusal()
    assert "device: cuda:99: torch finds" in videogn(*command, "--device", "cuda:99").refusal()
    assert list(tmp_path.iterdir()) == []
    layer = "trunk.res2"
    assert videogn(*command, "--explain", f"{tmp_path}/w", "--layer", layer).status == 0
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["000.mp4", "000.png"]


def test_json_is_whole_and_progress_is_on_the_terminal_of_stderr(trained: Path, source: Path) -> None:
    terminal, end = pty.openpty()
    process = start(str(trained), *[str(source)] * 3, "--output", "json", stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    shown = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
        try:
            content = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        shown += content
    out, _ = process.communicate(timeout=60)
    assert len(json.loads(out)) == 3
    assert process.returncode == 0
    assert re.search(rb"files .*\d/3", shown)
    assert b"left" in shown
    os.close(terminal)


def test_a_closed_pipe_is_quiet(trained: Path, source: Path) -> None:
    process = start(str(trained), *[str(source)] * 4, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{source}\n".encode()  # rows come as they are known
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read().decode()
    assert process.wait(60) == 0
    assert said == "decoder: pyav\n"


@pytest.mark.turns
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_signal_leaves_no_half_file(trained: Path, tmp_path: Path, signum: signal.Signals) -> None:
    rng = np.random.default_rng(0)
    write_video(
        tmp_path / "long.mp4", (rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(300)), 30, preset="ultrafast"
    )
    places = [
        "--annotate",
        str(tmp_path / "out.mp4"),
        "--timeline",
        str(tmp_path / "t.json"),
        "--features",
        str(tmp_path / "f.npz"),
    ]
    process = start(str(trained), str(tmp_path / "long.mp4"), *places, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".videogn-*/*.mp4")):  # it writes the annotated video
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    word = "Ctrl-C" if signum == signal.SIGINT else "what was answered stands; files that were not finished are removed"
    assert said.decode().splitlines()[-1] == f"videogn: stopped: {word}"
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


def test_memory_that_runs_out_is_halved_and_at_one_view_ends_it(
    videogn: Callable, trained: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(videogn("predict", str(trained), str(source), "--output", "json"))
    from videogn.model.network import VideoNetwork

    forward = VideoNetwork.forward

    def limited(limit: int) -> None:
        def run(self: VideoNetwork, clips: torch.Tensor) -> torch.Tensor:
            if len(clips) > limit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return forward(self, clips)

        monkeypatch.setattr(VideoNetwork, "forward", run)

    limited(2)
    outcome = videogn("predict", str(trained), *[str(source)] * 2, "--output", "json", "--batch-size", "8")
    assert outcome.err.count("out of memory with 8 views in a forward: going on with 2 (--batch-size)") == 1
    found = answers(outcome)
    assert found[0] == found[1]
    assert [t["probability"] for t in found[0]["top"]] == pytest.approx([t["probability"] for t in expected[0]["top"]], abs=1e-5)
    limited(0)
    outcome = videogn("predict", str(trained), str(source))
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1].startswith("videogn: out of memory: one view of 4 x 32 x 32 on cpu: CUDA out of memory.")


def test_help_is_quick_and_names_every_flag(videogn: Callable) -> None:
    outcome = videogn("predict", "--help")
    assert outcome.status == 0
    guide = (ROOT / "docs" / "predict.md").read_text()
    for flag in re.findall(r"^  (--[a-z-]+)", outcome.out, re.MULTILINE):
        assert f"`{flag}" in guide, flag
    imported = subprocess.run(
        [sys.executable, "-c", "import videogn, sys; videogn.load; print('torch' in sys.modules, 'numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.split() == ["False", "False"]


def examples() -> Sequence[doctest.DocTest]:
    parser = doctest.DocTestParser()
    guide = (ROOT / "docs" / "predict.md").read_text()
    return [
        parser.get_doctest(inspect.getdoc(package.load) or "", {}, "videogn.load", None, 0),
        parser.get_doctest(guide, {}, "docs/predict.md", None, 0),
    ]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_examples_run(example: doctest.DocTest, trained: Path, source: Path) -> None:
    example.globs = {"RUN": trained, "VIDEO": source}
    said = io.StringIO()
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.write)
    assert result.attempted > 8
    assert result.failed == 0, said.getvalue()


def test_the_guide_shows_the_example_of_load() -> None:
    own, guide = ([(e.source, e.want) for e in example.examples] for example in examples())
    assert own == guide
