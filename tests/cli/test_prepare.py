"""videogn prepare, as a user calls it: killed, interrupted, on a full disk, with files that hang, crash and grow."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from videogn.dataset.class_folder import ClassFolder
from videogn.dataset.manifest import ManifestFile, without
from videogn.dataset.shards import Shards
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.preparation.ledger import Ledger

NAMES = ("0.mp4", "a b, 'c' \"d\".mp4", os.fsdecode(b"caf\xe9=[1].mp4"))
SMALL = ("short_side=32", "num_workers=2")


def video(path: Path, seed: int, num_frames: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A suffix is not what a file is known by; a name that is no UTF-8 is given afterwards.
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 48, 64, 3), np.uint8)
    write_video(path.parent / f"written{path.suffix}", frames, 25)
    (path.parent / f"written{path.suffix}").rename(path)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two classes, the second not the first in the alphabet of its split; whole."""
    root = tmp_path / "the videos, 2024"
    for seed, (split, label, name) in enumerate(
        (split, label, name) for split in ("train", "val", "test") for label in ("b b", "a") for name in NAMES
    ):
        video(root / split / label / name, seed)
    return root


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, without the ledger, whose lines come in the order of the work and have its seconds."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "ledger.jsonl")
    return {os.fsencode(path.relative_to(folder)).decode("latin-1"): path.read_bytes() for path in files}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def command(videos: Path, out: Path, *more: str) -> list[str]:
    return ["prepare", "dataset=class_folder", f"dataset.root={videos}", f"out={out}", *SMALL, *more]


def start(*arguments: str) -> subprocess.Popen[str]:
    """In a process of its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    words = [sys.executable, "-m", "videogn", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_the_result_is_a_data_set(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    (videos / "train" / "a" / "broken.mp4").write_bytes(b"no video")
    video(videos / "train" / "a" / "0.avi", 99)
    out = tmp_path / "out, of it"
    outcome = videogn(*command(videos, out, "dataset.max_bad_fraction=0.2"))
    assert outcome.status == 0, outcome
    assert "splits: the folders test, train, val" in outcome.err
    assert "19 of 20 videos can be used, 0 of them partial" in outcome.out
    line = outcome.out.splitlines()[-1]
    assert line == (
        f"train on it: videogn train dataset=manifest 'dataset.path={out}/manifest.csv' 'dataset.classes={out}/classes.txt'"
    )
    manifest = ManifestFile(str(out / "manifest.csv"), None, str(out / "classes.txt"), 0.5).manifest()
    assert manifest.classes == ("a", "b b")
    assert len(manifest) == 19
    for index, (entry, row) in enumerate(zip(manifest.entries, rows(out / "manifest.csv"), strict=True)):
        path = manifest.path(index)
        assert path.is_relative_to(out)
        assert entry.num_bytes == path.stat().st_size == int(row["num_bytes"])
        opened = PyAVDecoder().open(path)
        assert (opened.num_frames, opened.height, opened.width) == (20, 32, 42)
        facts = row["num_frames"], row["height"], row["width"], row["fps"], row["codec"], row["status"], row["duration_seconds"]
        assert facts == ("20", "32", "42", "25.0", "h264", "ok", "0.8")
        assert (videos / row["source"]).exists()
    assert {entry.path for entry in manifest.entries} >= {"train/a/0.mp4", "train/a/0.avi.mp4"}
    assert [(row["path"], row["reason"][:16]) for row in rows(out / "quarantine.csv")] == [
        ("train/a/broken.mp4", "cannot be opened")
    ]
    assert len(without(manifest, out / "quarantine.csv")) == 19
    assert json.loads((out / "doctor.json").read_text())["num_unusable"] == 1


def test_a_second_run_does_nothing(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (videos / "train" / "a" / "broken.mp4").write_bytes(b"no video")
    assert videogn(*command(videos, out, "dataset.max_bad_fraction=1")).status == 0
    before, ledger = content(out), (out / "ledger.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    outcome = videogn(*command(videos, out, "dataset.max_bad_fraction=1", "num_workers=1"))
    assert outcome.status == 0
    assert "19 of 19 videos were done before" in outcome.err
    assert content(out) == before
    assert (out / "ledger.jsonl").read_bytes() == ledger
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == times
    # What changed is done again, and what is gone or cut off; with retry what failed as well.
    (out / "train" / "a" / "0.mp4").unlink()
    os.truncate(out / "val" / "a" / "0.mp4", 100)
    video(videos / "test" / "a" / "0.mp4", 77, 30)
    outcome = videogn(*command(videos, out, "dataset.max_bad_fraction=1", "retry=true"))
    assert "4 done now" in outcome.out
    assert (out / "val" / "a" / "0.mp4").read_bytes() == before["val/a/0.mp4"]
    assert (out / "train" / "a" / "0.mp4").read_bytes() == before["train/a/0.mp4"]
    assert (out / "test" / "a" / "0.mp4").read_bytes() != before["test/a/0.mp4"]


def test_killed_at_any_moment_it_goes_on(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for lines in (1, 3, 9):
        process = start(*command(videos, out))
        wait_until(lambda lines=lines: num_lines(out / "ledger.jsonl") >= lines)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.communicate()
        assert len(children) in ((1, 2) if lines > 1 else (0, 1, 2))  # the first line stands before they start
        wait_until(lambda children=children: not any(Path("/proc", child).exists() for child in children))
        assert not list(out.glob("*.csv"))  # no list of a half-done folder
    with (out / "ledger.jsonl").open("a") as file:
        file.write('{"path": "train/a/0.mp4", "sou')
    assert videogn(*command(videos, out)).status == 0
    assert videogn(*command(videos, tmp_path / "other")).status == 0
    assert content(out) == content(tmp_path / "other")
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    done = [json.loads(line)["path"] for line in (out / "ledger.jsonl").read_text().splitlines()[1:]]
    assert len(done) == len(set(done)) == 18


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once(signum: int, status: int, videos: Path, tmp_path: Path) -> None:
    video(videos / "test" / "a" / "0.mp4", 0, 3000)  # seconds of work, so that the signal comes before the end
    process = start(*command(videos, tmp_path / "out"))
    wait_until(lambda: num_lines(tmp_path / "out" / "ledger.jsonl") >= 2)
    process.send_signal(signum)
    out, err = process.communicate(timeout=10)
    assert process.returncode == status, err
    assert out == ""
    assert err.splitlines()[-1].endswith("of 18 videos are done and kept; the same command goes on")
    assert not (tmp_path / "out" / ".unfinished").exists()


FAKE = """
import ctypes, errno, os, time
from pathlib import Path
from videogn.preparation import job, transcode

genuine = transcode.write_frames

def full(path, *arguments, **options):
    count = genuine(path, *arguments, **options)
    path.write_bytes(path.read_bytes()[:100])
    raise OSError(errno.ENOSPC, "No space left on device")

def work(path, **rest):
    name = Path(path).name
    print("what a library prints", flush=True)
    if name == "hang.mp4":
        ctypes.PyDLL(None).sleep(1000)  # and holds the interpreter's lock
    if name == "crash.mp4":
        ctypes.string_at(0)
    if name == "exit.mp4":
        os._exit(3)
    if name == "grow.mp4":
        blocks = []
        while True:
            blocks.append(b"x" * 2**24)
            time.sleep(0.005)
    if name == "defect.mp4":
        transcode.write_frames = None
    transcode.write_frames = full if name == "full.mp4" else transcode.write_frames
    try:
        return job.prepare_video(path, **rest)
    finally:
        transcode.write_frames = genuine
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files named for what they do to the process that reads them."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "fake_work.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "module")
    monkeypatch.setattr("videogn.preparation.prepare.WORK", "fake_work:work")


@pytest.mark.usefixtures("fake")
def test_a_hang_a_crash_and_a_blow_up_cost_one_file_each(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    bad = ("hang", "crash", "exit", "grow", "defect")
    for seed, name in enumerate(bad):
        video(videos / "train" / "a" / f"{name}.mp4", 200 + seed)
    arguments = command(videos, tmp_path / "out", "deadline=3", "memory_limit=512", "dataset.max_bad_fraction=0.5")
    outcome = videogn(*arguments)
    assert outcome.status == 0, outcome
    assert "18 of 23 videos can be used" in outcome.out
    reasons = {row["path"]: row["reason"] for row in rows(tmp_path / "out" / "quarantine.csv")}
    assert reasons == {
        "train/a/hang.mp4": "took more than 3 s",
        "train/a/crash.mp4": "the decoder process crashed (SIGSEGV)",
        "train/a/exit.mp4": "the decoder process ended by itself, with status 3",
        "train/a/grow.mp4": "took more than 512 MiB of memory",
        "train/a/defect.mp4": "TypeError: 'NoneType' object is not callable",
    }
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 18
    assert "0 done now" in videogn(*arguments).out


@pytest.mark.usefixtures("fake")
def test_a_full_disk_stops_it(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    (videos / "val" / "a" / "0.mp4").rename(videos / "val" / "a" / "full.mp4")
    out = tmp_path / "out"
    outcome = videogn(*command(videos, out))
    assert outcome.status == 1
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("videogn: "))
    assert f"stopped: {out} cannot be written: No space left on device; " in line
    assert line.endswith("of 18 videos are done and kept: make room, and the same command goes on")
    assert not list(out.glob(".*"))
    written = list(out.rglob("*.mp4"))
    assert all(PyAVDecoder().open(path).num_frames == 20 for path in written)
    kept = num_lines(out / "ledger.jsonl") - 1
    assert 6 <= kept <= len(written)
    (videos / "val" / "a" / "full.mp4").rename(videos / "val" / "a" / "0.mp4")
    assert f"{18 - kept} done now" in videogn(*command(videos, out)).out


def test_verify_only_lists_the_videos_themselves(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (videos / "val" / "a" / "broken.mp4").write_bytes(b"no video")
    outcome = videogn(*command(videos, out, "verify_only=true"))
    assert outcome.status == 1  # a video of val that cannot be read
    assert outcome.err.splitlines()[-1] == f"videogn: 1 finding would spoil a score; {out}/doctor.json names the videos"
    assert f"'dataset.root={videos}'" in outcome.out
    assert sorted(path.name for path in out.iterdir()) == [
        *("classes.txt", "doctor.json", "ledger.jsonl", "manifest.csv", "quarantine.csv")
    ]
    manifest = ManifestFile(str(out / "manifest.csv"), str(videos), str(out / "classes.txt"), 0.5).manifest()
    assert len(manifest) == 19  # it stays, and counts as wrong
    for index, entry in enumerate(manifest.entries):
        size = manifest.path(index).stat().st_size
        assert entry.num_bytes == (0 if "broken" in entry.path else size)
    assert rows(out / "manifest.csv")[0]["height"] == "48"


def test_test_videos_that_fail_or_are_missing_stay_and_count_as_wrong(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (videos / "val" / "a" / "0.mp4").write_bytes(b"no video")
    listed = tmp_path / "list.csv"
    paths = [path.relative_to(videos).as_posix() for path in sorted(videos.rglob("*0.mp4"))]
    lines = [f"{path},{path.split('/')[1]},{path.split('/')[0]}\n" for path in (*paths, "test/a/gone.mp4", "train/a/gone.mp4")]
    listed.write_text("path,label,split\n" + "".join(lines))
    outcome = videogn(
        *(
            "prepare",
            "dataset=manifest",
            f"dataset.path={listed}",
            f"dataset.root={videos}",
            "dataset.missing=wrong",
            f"out={out}",
            *SMALL,
        )
    )
    assert outcome.status == 1
    assert outcome.out.splitlines()[-1].endswith("dataset.missing=wrong")
    assert [row["reason"] for row in rows(out / "quarantine.csv")][1:] == ["no such file"]
    assert [row["path"] for row in rows(out / "missing.csv")] == ["test/a/gone.mp4", "train/a/gone.mp4"]
    manifest = ManifestFile(str(out / "manifest.csv"), None, str(out / "classes.txt"), 0.5, "wrong").manifest()
    assert len(manifest.split("test")) == 3
    assert [entry.num_bytes for entry in manifest.entries if "val/a" in entry.path] == [0]
    assert [entry.path for entry in manifest.missing] == [f"{videos}/test/a/gone.mp4"]


def test_copies_across_splits_are_found(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9.mp4")
    (videos / "test" / "a" / name).write_bytes((videos / "train" / "a" / "0.mp4").read_bytes())
    outcome = videogn(*command(videos, tmp_path / "out"))
    assert outcome.status == 1
    (finding,) = json.loads((tmp_path / "out" / "doctor.json").read_text())["findings"]
    assert finding["kind"] == "duplicates_across_splits"
    assert finding["videos"] == ["train/a/0.mp4", f"test/a/{name}"] or finding["videos"] == [f"test/a/{name}", "train/a/0.mp4"]
    assert "test/a/\\udce9.mp4 (test)" in outcome.out


def test_split_folders_that_divide_a_group_are_refused(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    paths = [path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4")]
    people = {path: f"person {number}" for number, path in enumerate(paths)} | dict.fromkeys(
        ["train/a/0.mp4", "val/a/0.mp4"], "Ann"
    )
    with (tmp_path / "groups.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "person"), *people.items()])
    line = videogn(*command(videos, tmp_path / "out", f"dataset.groups={tmp_path}/groups.csv")).refusal()
    assert "groups.csv: group 'Ann' is in two splits, train (train/a/0.mp4) and val (val/a/0.mp4); " in line
    assert not (tmp_path / "out").exists()


def test_what_is_prepared_is_divided_anew_by_the_same_groups(videogn: Callable, tmp_path: Path) -> None:
    """Its manifest is a groups file, also where a video has another name there."""
    root, out = tmp_path / "videos", tmp_path / "out"
    paths = [f"{label}/{number}.avi" for label in "ab" for number in range(10)]
    for seed, path in enumerate(paths):
        video(root / path, seed)
    people = "".join(f"{path},{row % 10},indoors\n" for row, path in enumerate(paths))
    (tmp_path / "groups.csv").write_text(f"path,person,place\n{people}")
    groups = (f"dataset.groups={tmp_path}/groups.csv", "dataset.group_by=person")
    assert videogn(*command(root, out, *groups)).status == 0
    splits = set()
    for seed in range(3):
        before = ClassFolder(str(root), f"{tmp_path}/groups.csv", "person", seed, None, 0).manifest()
        now = ClassFolder(str(out), f"{out}/manifest.csv", None, seed, None, 0).manifest()
        assert [entry.path for entry in now.entries] == [path.replace("avi", "mp4") for path in paths]
        assert [entry.split for entry in now.entries] == [entry.split for entry in before.entries]
        splits.add(tuple(entry.split for entry in now.entries))
    assert len(splits) > 1


def test_files_of_earlier_runs_stay_and_are_named(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert videogn(*command(videos, out)).status == 0
    (out / "train" / "a" / "mine.mp4").touch()  # the ledger does not know it
    (videos / "train" / "a" / "0.mp4").unlink()
    (videos / "train" / "b b" / "0.mp4").write_bytes(b"no video")
    outcome = videogn(*command(videos, out, "dataset.max_bad_fraction=0.5"))
    assert outcome.status == 0, outcome
    assert (
        "note: 2 files of earlier runs in this folder, which no list has any more: train/a/0.mp4, train/b b/0.mp4; "
        in outcome.out
    )
    assert json.loads((out / "doctor.json").read_text())["unlisted"] == ["train/a/0.mp4", "train/b b/0.mp4"]
    (out / "train" / "a" / "0.mp4").unlink()
    assert "note: 1 file of earlier runs" in videogn(*command(videos, out, "dataset.max_bad_fraction=0.5")).out


def test_a_folder_has_the_name_of_a_file(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    video(videos / "train" / "a" / "x.avi", 50)
    video(videos / "train" / "a" / "x.mp4" / "y.mp4", 51)
    outcome = videogn(*command(videos, tmp_path / "out"))
    assert outcome.status == 0, outcome
    assert "20 of 20 videos can be used" in outcome.out


@pytest.mark.parametrize("more", [[], ["verify_only=true"]], ids=["write", "verify_only"])
def test_folders_of_images_are_refused(videogn: Callable, tmp_path: Path, more: list[str]) -> None:
    for label in ("a", "b"):
        for number in range(4):
            (tmp_path / "images" / label / str(number)).mkdir(parents=True)
            (tmp_path / "images" / label / str(number) / "1.png").touch()
    line = videogn("prepare", "dataset=frames", f"dataset.root={tmp_path}/images", f"out={tmp_path}/out", *more).refusal()
    assert line.endswith(
        f"{tmp_path}/images/a/0: is a folder; prepare reads video files, and folders of images are trained on as they are"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["0\n.mp4", "0\u2028.mp4", ' 0, "x" .mp4'])
def test_any_name_of_a_file_comes_back_from_the_lists(videogn: Callable, videos: Path, tmp_path: Path, name: str) -> None:
    for split in ("train", "val"):
        (videos / split / "a" / "0.mp4").rename(videos / split / "a" / name)
    (videos / "train" / "a" / "1.mp4").write_bytes(b"no video")
    (videos / "train" / "a" / "1.mp4").rename(videos / "train" / "a" / f"1{name}")
    out = tmp_path / "out"
    assert videogn(*command(videos, out, "dataset.max_bad_fraction=1")).status == 0
    manifest = ManifestFile(str(out / "manifest.csv"), None, str(out / "classes.txt"), 0.5).manifest()
    named = {entry.path for entry in manifest.entries}
    assert {f"train/a/{name}", f"val/a/{name}"} <= named
    assert manifest.missing == ()
    assert [row["path"] for row in rows(out / "quarantine.csv")] == [f"train/a/1{name}"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["crf=99"], r"crf=99: give a whole number from 0"),
        (["short_side=101"], r"short_side=101: give an even number"),
        (["target_fps=fast"], r"target_fps=fast: give frames per second"),
        (["num_workers=0"], r"num_workers=0: give a whole number of processes from 1"),
        (["num_workers=2.5"], r"num_workers=2\.5: give a whole number of processes"),
        (["deadline=0"], r"deadline=0: give seconds above 0"),
        (["deadline=soon"], r"deadline=soon: give seconds above 0"),
        (["memory_limit=0"], r"memory_limit=0: give a whole number"),
        (["verify_only=maybe"], r"verify_only=maybe: give true or false"),
        (["dataset.max_bad_fraction=2"], r"dataset\.max_bad_fraction=2; give a share"),
        (["dataset.root=/nowhere"], r"dataset\.root: /nowhere: no such folder"),
        (["shortside=100"], r"shortside: no such key .*nearest: short_side"),
        (["batch_size=2"], r"batch_size"),
        (["-m", "crf=18,20"], r"-m: .*prepare.* takes one configuration"),
    ],
)
def test_bad_input_is_one_line(overrides: list[str], message: str, videogn: Callable, videos: Path, tmp_path: Path) -> None:
    assert re.search(message, videogn(*command(videos, tmp_path / "out", *overrides)).refusal())
    assert not (tmp_path / "out").exists()


def test_folders_that_are_refused(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    def refusal(out: Path, *more: str) -> str:
        return videogn(*command(videos, out, *more)).refusal()

    before = content(videos)
    assert "lies in dataset.root" in refusal(videos)
    assert "lies in dataset.root" in refusal(videos / "prepared")
    assert "holds the videos of the data set" in refusal(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "holds files that videogn prepare did not write" in refusal(tmp_path / "mine")
    assert "cannot be written: Not a directory" in refusal(tmp_path / "mine" / "thesis.tex" / "out")
    out = tmp_path / "out"
    assert videogn(*command(videos, out)).status == 0
    assert refusal(out, "crf=23", "target_fps=15").endswith(
        f"out: {out}: was prepared with crf=20, target_fps=null, not crf=23, target_fps=15; "
        "give the same, or another folder with out="
    )
    assert "verify_only=false" in refusal(out, "verify_only=true")
    settings = json.loads((out / "ledger.jsonl").read_text().splitlines()[0])["settings"]
    with Ledger(out, settings):
        assert "another videogn prepare is at work there" in refusal(out)
    assert content(videos) == before


def test_out_is_needed(videogn: Callable) -> None:
    assert "out: needed; give it as out=VALUE" in videogn("prepare").refusal()


def test_shards_are_a_data_set(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    """And the same command again does nothing; with a video that came, what is needed for it."""
    out = tmp_path / "out, of it"
    (videos / "val" / "a" / "broken.avi").write_bytes(b"no video")
    outcome = videogn(*command(videos, out, "shard_size=0.03MB"))
    assert outcome.status == 1, outcome  # the broken one
    assert outcome.out.splitlines()[-1] == f"train on it: videogn train dataset=shards 'dataset.root={out}'"
    shards = {path.name for path in out.glob("shard-*.tar")}
    assert f"packed {len(shards)} of {len(shards)} shards" in outcome.err
    assert {path.name for path in out.iterdir()} - shards == {
        *("classes.txt", "doctor.json", "ledger.jsonl", "manifest.csv", "quarantine.csv")
    }
    dataset = Shards(str(out), 0.5)
    manifest, decoder = dataset.manifest(), dataset.reads_with(PyAVDecoder())
    assert len(manifest) == 19
    for index, row in enumerate(rows(out / "manifest.csv")):
        if row["shard"]:
            video_of_it = decoder.open(manifest.path(index))
            assert (video_of_it.num_frames, video_of_it.height) == (int(row["num_frames"]), int(row["height"])) == (20, 32)
            video_of_it.close()
            assert row["num_bytes"] == row["size"]
        else:
            assert (row["path"], row["num_bytes"], row["size"]) == ("val/a/broken.avi", "0", "")
    before = content(out)
    outcome = videogn(*command(videos, out, "shard_size=30000"))
    assert "0 done now" in outcome.out
    assert content(out) == before
    (videos / "val" / "a" / "broken.avi").unlink()
    video(videos / "train" / "a" / "new.mp4", 99)
    outcome = videogn(*command(videos, out, "shard_size=30000"))
    assert outcome.status == 0
    assert "1 done now" in outcome.out
    assert videogn(*command(videos, tmp_path / "other", "shard_size=30000")).status == 0
    assert content(out) == content(tmp_path / "other")


def test_shards_are_verified_and_prepared_from_shards(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    """Every video's bytes against their hash, and by a full decode."""
    shards, verified = tmp_path / "shards", tmp_path / "verified"
    assert videogn(*command(videos, shards, "shard_size=30000")).status == 0
    verify = ["prepare", "dataset=shards", f"dataset.root={shards}", f"out={verified}", "verify_only=true", "num_workers=2"]
    outcome = videogn(*verify)
    assert outcome.status == 0, outcome
    assert "18 of 18 videos can be used" in outcome.out
    assert outcome.out.splitlines()[-1] == f"train on it: videogn train dataset=shards dataset.root={shards}"
    assert [row["sha256"] for row in rows(verified / "manifest.csv")] == [row["sha256"] for row in rows(shards / "manifest.csv")]
    again = tmp_path / "smaller"
    assert (
        videogn("prepare", "dataset=shards", f"dataset.root={shards}", f"out={again}", "short_side=16", "num_workers=2").status
        == 0
    )
    assert {row["height"] for row in rows(again / "manifest.csv")} == {"16"}
    (damaged,) = (row for row in rows(shards / "manifest.csv") if row["path"] == "test/a/0.mp4")
    tar = bytearray((shards / damaged["shard"]).read_bytes())
    tar[int(damaged["offset"]) + 99] ^= 1
    (shards / damaged["shard"]).write_bytes(tar)
    outcome = videogn(*verify, f"out={tmp_path / 'anew'}")
    assert outcome.status == 1
    (row,) = rows(tmp_path / "anew" / "quarantine.csv")
    assert row["path"] == "test/a/0.mp4"
    assert row["reason"] == f"its bytes in {damaged['shard']} are not those that were written: their SHA-256 is another"


def test_shards_that_cannot_be_read_stop_it(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    """No video is at fault."""
    shards, verified = tmp_path / "shards", tmp_path / "verified"
    assert videogn(*command(videos, shards, "shard_size=30000")).status == 0
    words = ["prepare", "dataset=shards", f"dataset.root={shards}", f"out={verified}", "verify_only=true", "num_workers=1"]
    assert f"out: {shards}: holds the videos of the data set" in videogn(*words, f"out={shards}").refusal()
    last = sorted(shards.glob("*.tar"))[-1]
    # Found whole at the start, and gone when it is read.
    process = start(*words)
    wait_until(lambda: (verified / "ledger.jsonl").exists())
    last.rename(tmp_path / "gone")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"{last}: cannot be read: No such file or directory; " in err.splitlines()[-1]
    assert "of 18 videos are done and kept" in err.splitlines()[-1]
    assert not (verified / "quarantine.csv").exists()
    (tmp_path / "gone").rename(last)
    assert videogn(*words).status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shard_size=0"], "shard_size=0: a shard has at least one byte"),
        (["shard_size=big"], "shard_size=big: give a size as 24GB"),
        (["shard_size=1GB", "verify_only=true"], "shard_size=1GB: verify_only=true writes no videos that could be packed"),
    ],
)
def test_sizes_of_shards_that_are_none(videogn: Callable, videos: Path, tmp_path: Path, words: list[str], message: str) -> None:
    assert message in videogn(*command(videos, tmp_path / "out", *words)).refusal()
    assert not (tmp_path / "out").exists()


def test_a_folder_keeps_its_size_of_shards(videogn: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert videogn(*command(videos, out, "shard_size=30000")).status == 0
    assert "was prepared with shard_size=30000, not shard_size=null" in videogn(*command(videos, out)).refusal()
    assert (
        "was prepared with shard_size=30000, not shard_size=40000" in videogn(*command(videos, out, "shard_size=40000")).refusal()
    )
