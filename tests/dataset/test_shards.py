"""A data set in shards against the same one in files: the same list, clips and epochs; and lists that lie."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from videogn.cli.main import main
from videogn.configuration import compose, resolved
from videogn.dataset.clips import TrainingClips, TrainingLoader, VideoViews
from videogn.dataset.manifest import Manifest, without
from videogn.dataset.shards import MAX_LINE_BYTES, Shards
from videogn.decoder.pyav import PyAVDecoder
from videogn.identity import config_hash
from videogn.sampler.batches import EpochBatches
from videogn.sampler.random_clip import RandomClip
from videogn.sampler.uniform_clips import UniformClips
from videogn.training.checkpoint import read_checkpoint
from videogn.training.quiet import guarded
from videogn.training.trained_data import refuse_other_data
from videogn.transform.augment import RandomShortSideCrop
from videogn.transform.views import Crops
from videogn.types import Batch, ClipKey, Decoder, Findings, InputError, StorageError

from .conftest import Prepared, Server

NUM_TRAIN, BATCH_SIZE = 8, 2
# A loader's workers are forked while a thread of fsspec waits.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def clips(manifest: Manifest, decoder: Decoder) -> TrainingClips:
    transform = RandomShortSideCrop(16, [16, 24], 0.5)
    return TrainingClips(manifest.split("train"), decoder, [(RandomClip(4, 2), transform)], seed=3)


def loader(source: TrainingClips, rank: int = 0, num_ranks: int = 1, num_workers: int = 2) -> TrainingLoader:
    batches = EpochBatches(NUM_TRAIN, BATCH_SIZE, 0, 1, rank, num_ranks)
    return TrainingLoader(source, batches, num_workers=num_workers)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("clips", "labels", "flips", "videos"))


def all_same(some: Sequence[Batch], others: Sequence[Batch]) -> bool:
    return all(same(one, other) for one, other in zip(some, others, strict=True))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_list_is_that_of_the_files(prepared: Prepared, http_server: Server) -> None:
    """So that a run on the files and one on the shards are of the same data, wherever these lie."""
    files = prepared.manifest()
    for root in (str(prepared.shards), http_server.address):
        dataset = Shards(f"{root}/", 0.5)
        manifest = dataset.manifest()
        assert dataset.name == "shards"
        assert manifest.entries == files.entries
        assert manifest.classes == files.classes
        assert manifest.sha256() == files.sha256()
        assert manifest.place == root
        assert manifest.split("val").path(0) == f"{root}/val/a/0.mp4"
        assert manifest == dataset.manifest()


def test_a_folder_is_called_as_the_user_calls_it(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared.shards.parent)
    dataset = Shards("shards", 0.5)
    manifest = dataset.manifest()
    assert manifest.path(0) == "shards/test/a/0.mp4"
    assert manifest.place == str(prepared.shards)
    decoder = dataset.reads_with(PyAVDecoder())
    for path in (manifest.path(0), f"{manifest.place}/test/a/0.mp4", "test/a/0.mp4"):
        decoder.open(path).close()
    monkeypatch.chdir("shards")
    assert Shards(".", 0.5).name == "shards"


def test_clips_are_those_of_the_files(prepared: Prepared, http_server: Server) -> None:
    files = prepared.manifest()
    expected = clips(files, PyAVDecoder())
    protocols = [(UniformClips(4, 2, 3), Crops(16, 20, 3))]
    for root in (str(prepared.shards), http_server.address):
        dataset = Shards(root, 0.5)
        manifest = dataset.manifest()
        decoder = dataset.reads_with(PyAVDecoder())
        found = clips(manifest, decoder)
        keys = [ClipKey(epoch, video, clip) for epoch in range(2) for video in range(NUM_TRAIN) for clip in range(2)]
        assert all_same(found.__getitems__(keys), expected.__getitems__(keys))
        views, other = (VideoViews(m.split("test"), d, protocols) for m, d in ((manifest, decoder), (files, PyAVDecoder())))
        assert all(same(views[row][0], other[row][0]) for row in range(2))


def test_an_epoch_is_exact_over_ranks_and_workers(prepared: Prepared, http_server: Server) -> None:
    """Two ranks of two workers each see every clip once, and the same as one process sees in the files."""
    files = {
        int(video): clip
        for batch in loader(clips(prepared.manifest(), PyAVDecoder()), num_workers=0)
        for video, clip in zip(batch.videos, batch.clips, strict=True)
    }
    dataset = Shards(http_server.address, 0.5)
    source = clips(dataset.manifest(), dataset.reads_with(PyAVDecoder()))
    found = [batch for rank in range(2) for batch in loader(source, rank, 2)]
    assert Counter(video for batch in found for video in batch.videos.tolist()) == Counter(range(NUM_TRAIN))
    assert all(
        torch.equal(clip, files[int(video)]) for batch in found for video, clip in zip(batch.videos, batch.clips, strict=True)
    )


def test_an_epoch_goes_on_in_its_middle(prepared: Prepared) -> None:
    """And into the next one."""
    dataset = Shards(str(prepared.shards), 0.5)
    source = clips(dataset.manifest(), dataset.reads_with(PyAVDecoder()))
    whole = loader(source)
    expected = [*whole, *whole]
    first = loader(source)
    taken = iter(first)
    begun = [next(taken) for _ in range(3)]
    place = json.loads(json.dumps(first.state_dict()))
    resumed = loader(source)
    resumed.load_state_dict(place)
    rest = [*resumed, *resumed]
    assert all_same([*begun, *rest], expected)
    assert len(begun) + len(rest) == len(expected) == 2 * NUM_TRAIN // BATCH_SIZE


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_server_that_goes_away_stops_a_run_in_one_line(http_server: Server, num_workers: int) -> None:
    """A clip is neither left out nor counted as dead."""
    dataset = Shards(http_server.address, 0.5, num_retries=0)
    source = clips(dataset.manifest(), dataset.reads_with(PyAVDecoder()))
    http_server.faults, http_server.for_ever = [503], True
    taken: list[Batch] = []
    with pytest.raises(
        Findings, match=r"^http://[^ ]*/shards/shard-\d+\.tar: cannot be read: HTTP status 503 \(the only"
    ) as error:
        run(loader(source, num_workers=num_workers), taken)
    assert "\n" not in str(error.value)
    assert taken == []


def run(batches: TrainingLoader, taken: list[Batch]) -> None:
    """As a training reads."""
    with guarded(2, 4, 16):
        taken.extend(batches)


def test_a_video_with_other_bytes_is_a_dead_video(shards: Path) -> None:
    dataset = Shards(str(shards), 0.5)
    manifest = dataset.manifest()
    train = manifest.split("train")
    _, place = dataset.source(train.entries[5].path)
    content = bytearray((shards / place.shard).read_bytes())
    content[place.offset] ^= 255
    (shards / place.shard).write_bytes(content)
    found = list(loader(clips(manifest, dataset.reads_with(PyAVDecoder()))))
    (dead,) = [dead for batch in found for dead in batch.dead]
    assert (dead.video, dead.path) == (5, f"{shards}/{train.entries[5].path}")
    assert "SHA-256" in dead.reason
    assert sum(len(batch.clips) for batch in found) == NUM_TRAIN - 1


def test_a_video_that_could_not_be_prepared_counts_as_wrong(shards: Path) -> None:
    rows = table(shards)
    (row,) = [row for row in rows if row["path"] == "test/b/0.mp4"]
    row |= {
        "path": "test/b/broken.avi",
        "num_bytes": "0",
        "shard": "",
        "offset": "",
        "size": "",
        "sha256": "",
        "status": "broken",
    }
    write(shards, rows)
    dataset = Shards(str(shards), 0.5)
    manifest = dataset.manifest()
    tested = manifest.split("test")
    views = VideoViews(tested, dataset.reads_with(PyAVDecoder()), [(UniformClips(4, 2, 1), Crops(16, 20, 1))])
    place = [entry.path for entry in tested.entries].index("test/b/broken.avi")
    (batch,) = views[place]
    (dead,) = batch.dead
    assert "could not be prepared" in dead.reason
    assert without(manifest, excluded(shards, "test/b/broken.avi")).split("test").entries == [tested.entries[1 - place]]


def excluded(folder: Path, path: str) -> Path:
    (folder / "exclude.csv").write_text(f"path\n{path}\n")
    return folder / "exclude.csv"


Edit = Callable[[list[dict[str, str]]], object]


@pytest.mark.turns
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[0].update(shard="../x.tar"), r"line 2: .*shard '\.\./x\.tar' is no plain name of a \.tar"),
        (lambda rows: rows[0].update(shard="/etc/passwd"), r"line 2: .*shard '/etc/passwd' is no plain name"),
        (lambda rows: rows[0].update(shard="http://other/x.tar"), "shard 'http://other/x.tar' is no plain name"),
        (lambda rows: rows[0].update(shard="x.tar?a=b.tar"), "is no plain name"),
        (lambda rows: rows[0].update(shard=".hidden.tar"), "is no plain name"),
        (lambda rows: rows[0].update(shard="x.tar.gz"), "is no plain name"),
        (lambda rows: rows[0].update(shard="x\n.tar"), "is no plain name"),
        (lambda rows: rows[0].update(shard="gone.tar"), r"gone\.tar: cannot be read: No such file"),
        (lambda rows: rows[0].update(offset="-1"), r"line 2: test/a/0\.mp4: offset '-1' and size"),
        (lambda rows: rows[0].update(offset="1e3"), "offset '1e3'"),
        (lambda rows: rows[0].update(offset=""), "offset ''"),
        (lambda rows: rows[0].update(size="-5"), "size '-5'; give whole numbers, the size above 0"),
        (lambda rows: rows[0].update(size="0"), "size '0'; give whole numbers"),
        (lambda rows: rows[0].update(size="9" * 30), "size '9999"),
        (lambda rows: rows[0].update(size="9" * 18), r"lies at [\d,]+ to 1,000,000,000,.* of shard-\d+\.tar, which ends at"),
        (lambda rows: rows[0].update(offset="9" * 18), "which ends at .*; the shard is not whole"),
        (lambda rows: rows[0].update(sha256="0" * 63), "sha256 '000"),
        (lambda rows: rows[0].update(sha256=""), "sha256 ''"),
        (lambda rows: rows[0].update(path=rows[1]["path"]), r"line 3: .* stands in line 2 already; a video is listed once"),
        (lambda rows: rows[0].update(label="c"), "label 'c' is not one of the 2 classes"),
        (lambda rows: rows[0].update(split="other"), "split 'other' is not one of"),
        (
            lambda rows: rows[0].update({k: rows[-1][k] for k in ("shard", "offset", "size", "sha256")}),
            r"line 13: one file, .* is in two splits, test \(test/a/0\.mp4\) and val",
        ),
        (
            lambda rows: [row.pop("offset") for row in rows],
            r"no column 'offset'.*dataset=shards needs shard, offset, size",
        ),
        (lambda rows: [row.update(shard="") for row in rows], "no video lies in a shard"),
    ],
)
def test_a_list_that_lies(shards: Path, edit: Edit, message: str) -> None:
    rows = sorted(table(shards), key=lambda row: row["path"])
    rows = [row for row in rows if row["split"] == "test"] + [row for row in rows if row["split"] != "test"]
    edit(rows)
    write(shards, rows)
    with pytest.raises(InputError, match=message) as refusal:
        Shards(str(shards), 0.5).manifest()
    assert "\n" not in str(refusal.value).replace("x\\n.tar", "")


def test_lists_that_are_none(shards: Path, monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    """Refused before they fill the memory."""

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            Shards(str(shards), 0.5).manifest()

    with (shards / "manifest.csv").open("r+b") as file:
        file.truncate(2**40)  # of a sparse file, which takes no room
    refused(r"manifest\.csv: 1,099,511,627,776 bytes, and a list has 536,870,912 at most")
    (shards / "manifest.csv").write_bytes(b"path,label,split" + b"," * MAX_LINE_BYTES)
    refused(r"manifest\.csv: a line of more than 1,048,576 bytes")
    (shards / "manifest.csv").write_bytes(b"path\0")
    refused("holds zero bytes")
    (shards / "manifest.csv").write_bytes(b"")
    refused("no column 'path'")
    (shards / "manifest.csv").unlink()
    (shards / "manifest.csv").symlink_to("/dev/zero")
    refused(r"manifest\.csv: is no file")
    (shards / "manifest.csv").unlink()
    refused(r"manifest\.csv: cannot be read: No such file")


def test_a_shard_that_was_cut_off(http_server: Server, shards: Path) -> None:
    """As one whose upload broke off."""
    with (shards / "shard-000001.tar").open("r+b") as file:
        file.truncate(2000)
    for root in (str(shards), http_server.address):
        with pytest.raises(InputError, match=r"of shard-000001\.tar, which ends at 2,000; the shard is not whole"):
            Shards(root, 0.5).manifest()


def test_a_server_without_parts_of_files_is_known_at_the_start(http_server: Server) -> None:
    http_server.faults = ["whole"]
    with pytest.raises(StorageError, match="gives no parts of files"):
        Shards(http_server.address, 0.5).manifest()


def test_a_job_is_named_by_the_content_of_the_lists(prepared: Prepared, shards: Path, http_server: Server) -> None:
    """Wherever they lie, and however they are reached."""

    def name(*words: str) -> str:
        return config_hash(resolved(compose("train", ["dataset=shards", "total_steps=1", "out=x", *words])))

    moved = shutil.copytree(shards, shards.parent / "moved")
    (moved / "ledger.jsonl").unlink()
    names = {name(f"dataset.root={root}") for root in (prepared.shards, shards, moved, http_server.address)}
    assert len(names) == 1
    http_server.faults, asked = [503] * 50, len(http_server.asked)
    words = "dataset.timeout_seconds=5", "dataset.num_retries=1", "+dataset.storage_options.block_size=1"
    assert name(f"dataset.root={http_server.address}", *words) in names
    assert len(http_server.asked) == asked  # known from before: at the end of a run the server may be down
    assert name(f"dataset.root={shards}", "dataset.flip=0") not in names
    text = (shards / "manifest.csv").read_text()
    (shards / "manifest.csv").write_text(re.sub("sha256-of-nothing|,val,", ",test,", text))
    assert name(f"dataset.root={shards}") not in names


def test_a_run_whose_server_goes_away_goes_on(
    http_server: Server, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], no_waits: list[float]
) -> None:
    """Through the command line: status 1 and one line, nothing in quarantine, and resumed it ends with every video read."""
    out = tmp_path / "run"
    words = ["dataset=shards", f"dataset.root={http_server.address}", "dataset.num_retries=1", f"out={out}", "report_videos=1"]
    small = ["batch_size=4", "clip_length=4", "crop_size=16", "train_short_side=[16,18]", "test_short_side=16"]
    words += [*small, "epochs=2", "num_workers=0", "logger=[]"]

    def status(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        return int(end.value.code or 0)

    # The list's check, an epoch and its validation are read; the second epoch is not.
    http_server.faults, http_server.for_ever = [*["none"] * (1 + NUM_TRAIN + 4 + NUM_TRAIN // 2), 503], True
    assert status("train", *words) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"videogn: http://\S+/shards/shard-\d+\.tar: cannot be read: HTTP status 503 \(2 tries .*", last)
    assert not (out / "quarantine.csv").exists()
    assert not (out / "result.json").exists()
    http_server.faults = []
    assert status("train", f"resume={out}") == 0
    result = json.loads((out / "result.json").read_text())
    assert result["dataset"]["root"] == http_server.address
    assert (result["dataset"]["num_dead"], result["dataset"]["num_videos"]) == (0, 12)
    assert not (out / "quarantine.csv").exists()
    assert (out / "report.html").read_text().count("data:video") == 1
    capfd.readouterr()
    http_server.faults = [503]
    assert status("report", str(out), "--videos", "1") == 0
    assert "report: no videos are shown: http://" in capfd.readouterr().err
    http_server.faults = ["none", 503]
    assert status("report", str(out)) == 0
    assert capfd.readouterr().err.count("report: no more videos are shown: http://") == 1
    assert "data:video" not in (out / "report.html").read_text()
    http_server.faults = []
    assert status("report", str(out), "--videos", "1") == 0
    assert (out / "report.html").read_text().count("data:video") == 1
    rows = table(shards)
    next(row for row in rows if row["path"] == "train/a/0.mp4")["split"] = "test"
    write(shards, rows)
    assert status("evaluate", f"checkpoint={out}", f"out={tmp_path / 'tested'}", "report_videos=0") == 0
    # Nothing is said of dataset=manifest, which does not find videos in shards.
    warning = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: "))
    assert warning.endswith("such as 'train/a/0.mp4', which flatters the score")
    with pytest.raises(InputError, match=r"are not those that it was trained with: .*; bring those back, or start another run$"):
        refuse_other_data(read_checkpoint(out), Shards(str(shards), 0.5).manifest())
