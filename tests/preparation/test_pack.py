"""Shards as WebDataset and tarfile read them, the same bytes for the same videos, and no video lost wherever it is killed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from itertools import count, islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from videogn.dataset.columns import Entry
from videogn.preparation import pack as module
from videogn.preparation.pack import PATTERN, Sample, contents, lying, pack, planned, sample_of
from videogn.preparation.verify import Facts
from videogn.types import Findings, InputError

CLASSES = ("a", "b")
SHARD_BYTES = 30 * 1024


def videos(number: int = 24) -> dict[str, bytes]:
    """Path -> bytes, of several sizes; one is larger than a shard, and one has a name that is no text."""
    rng = np.random.default_rng(0)
    names = [f"{('train', 'train', 'val', 'test')[n % 4]}/{'ab'[n // 4 % 2]}/{n}.mp4" for n in range(number - 1)]
    sizes = [512, 1, 9000, 60_000, 513, *rng.integers(1, 12_000, number).tolist()]
    return {
        name: rng.bytes(size)
        for name, size in zip([*names, "train/b/caf\udce9 'x'.tar.mp4"], sizes[: len(names) + 1], strict=True)
    }


def samples(found: Mapping[str, bytes]) -> list[Sample]:
    facts = {path: Facts(1, 1.0, 2, 2, "h264", 1.0, len(c), hashlib.sha256(c).hexdigest(), "ok") for path, c in found.items()}
    entries = {path: Entry(path, path.split("/")[1], f"of {path}", path.split("/")[0], 0, "a group") for path in found}
    return [sample_of(path, entries[path], facts[path], CLASSES) for path in found]


class Folder:
    """A folder of written files, to be packed."""

    def __init__(self, place: Path) -> None:
        self.out, self.unfinished = place / "out", place / "out" / ".unfinished"
        self.unfinished.mkdir(parents=True)

    def write(self, found: Mapping[str, bytes]) -> None:
        for path, content in found.items():
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            (self.out / path).write_bytes(content)

    def pack(self, found: Mapping[str, bytes]) -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []
        pack(samples(found), self.out, self.unfinished, SHARD_BYTES, lambda done, total: told.append((done, total)))
        return told

    def shards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.glob(PATTERN))}

    def held(self) -> dict[str, bytes]:
        """Path -> bytes of every video, in a shard or in a file."""
        packed = {path: (self.out / p.shard).read_bytes()[p.offset : p.offset + p.size] for path, p in lying(self.out).items()}
        loose = (path for path in self.out.rglob("*.mp4") if self.unfinished not in path.parents)
        return packed | {str(path.relative_to(self.out)): path.read_bytes() for path in loose}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "first")


@pytest.fixture
def packed(tmp_path: Path) -> dict[str, bytes]:
    """The shards of `videos()`, by name."""
    one = Folder(tmp_path / "reference")
    one.write(videos())
    one.pack(videos())
    return one.shards()


def test_a_shard_holds_videos_of_one_split_and_is_no_larger_than_it_may_be(folder: Folder) -> None:
    found = videos()
    folder.write(found)
    told = folder.pack(found)
    assert told[0][0] == 0
    assert told[-1] == (len(folder.shards()), len(folder.shards()))
    held: list[str] = []
    for shard in sorted(folder.out.glob(PATTERN)):
        with tarfile.open(shard, "r:") as tar:
            members = tar.getmembers()
            assert all(m.isfile() and (m.mtime, m.uid, m.gid, m.uname, m.mode) == (0, 0, 0, "", 0o644) for m in members)
            groups = [members[start : start + 3] for start in range(0, len(members), 3)]
            for group in groups:
                keys, suffixes = zip(*(member.name.split(".") for member in group), strict=True)
                assert suffixes == ("mp4", "cls", "json")
                assert len(set(keys)) == 1
                content, label, facts = (tar.extractfile(member).read() for member in group)  # pyright: ignore[reportOptionalMemberAccess]
                known = json.loads(facts)
                assert content == found[known["path"]]
                assert CLASSES[int(label)] == known["label"] == known["path"].split("/")[1]
                assert (known["video_id"], known["group"]) == (f"of {known['path']}", "a group")
                assert known["sha256"] == hashlib.sha256(content).hexdigest()
                place = lying(folder.out)[known["path"]]
                assert (place.shard, place.size, place.sha256) == (shard.name, len(content), known["sha256"])
                assert shard.read_bytes()[place.offset :][: place.size] == content
                held.append(known["path"])
            splits = {json.loads(tar.extractfile(group[2]).read())["split"] for group in groups}  # pyright: ignore[reportOptionalMemberAccess]
            assert len(splits) == 1
            assert shard.stat().st_size <= SHARD_BYTES or len(groups) == 1
    assert sorted(held) == sorted(found)
    assert held != sorted(held)
    # Nothing else is left.
    assert {path.name for path in folder.out.iterdir()} == {*folder.shards(), ".unfinished"}
    assert list(folder.unfinished.iterdir()) == []


def test_shards_are_full() -> None:
    """Of two that follow each other in a split the first of the second would not have fitted into the first."""
    plan = list(planned(samples(videos(200)), SHARD_BYTES).values())
    assert len(plan) > 10
    for one, other in pairwise(plan):
        content = sum(sample.tar_bytes for sample in (*one, other[0])) + 2 * tarfile.BLOCKSIZE
        records = -(-content // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        assert records > SHARD_BYTES or {json.loads(s.facts)["split"] for s in one} != {json.loads(other[0].facts)["split"]}


READER = """
import hashlib, json, sys
sys.modules["torch"] = None  # it can do without, and starts in a tenth of the time
import webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False):
    facts = json.loads(sample["json"])
    print(json.dumps([facts["path"], hashlib.sha256(sample["mp4"]).hexdigest(), sample["cls"].decode()]))
"""


def test_webdataset_reads_them(folder: Folder) -> None:
    pytest.importorskip("webdataset", reason="pip install webdataset")
    found = videos()
    folder.write(found)
    folder.pack(found)
    # In a process of its own: it leaves its files open.
    urls = [str(path) for path in sorted(folder.out.glob(PATTERN))]
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", READER, *urls], capture_output=True, check=True, text=True)
    read = [json.loads(line) for line in answer.stdout.splitlines()]
    expected = [
        [path, hashlib.sha256(content).hexdigest(), str(CLASSES.index(path.split("/")[1]))] for path, content in found.items()
    ]
    assert sorted(read) == sorted(expected)


def test_the_same_videos_give_the_same_bytes(folder: Folder, packed: dict[str, bytes]) -> None:
    """In whatever order they come."""
    found = dict(reversed(videos().items()))
    folder.write(found)
    folder.pack(found)
    assert folder.shards() == packed
    times = {path: path.stat().st_mtime_ns for path in folder.out.glob(PATTERN)}
    folder.pack(found)
    assert {path: path.stat().st_mtime_ns for path in folder.out.glob(PATTERN)} == times


class Killed(BaseException):
    """The process ends here."""


def late(found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without those that a shard begins with, so that the others move to later shards once these come."""
    paths = [sample.path for sample in sorted(samples(found), key=lambda sample: sample.key) if "train" in sample.path]
    return {path: content for path, content in found.items() if path not in paths[:2]}


@pytest.mark.parametrize("begin", [{}, late(videos(14))], ids=["anew", "over_others"])
def test_killed_at_any_moment_no_video_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: dict[str, bytes]) -> None:
    """Before and after each file that gets its name or goes, and within each that is written."""
    found, calls = videos(14), 0
    reference = Folder(tmp_path / "reference")
    reference.write(found)
    reference.pack(found)
    genuine = {name: getattr(os, name) for name in ("replace", "unlink", "fsync")}
    ended = False
    for moment in range(1000):
        folder = Folder(tmp_path / str(moment))
        if begin:
            folder.write(begin)
            folder.pack(begin)
        folder.write({path: content for path, content in found.items() if path not in lying(folder.out)})
        calls = 0

        def dying(name: str, moment: int = moment) -> None:
            def call(*arguments: object, **options: object) -> object:
                nonlocal calls
                calls += 1
                if calls == 2 * moment:
                    raise Killed
                answer = genuine[name](*arguments, **options)
                if calls == 2 * moment + 1:
                    raise Killed
                return answer

            monkeypatch.setattr(os, name, call)

        for name in genuine:
            dying(name)
        try:
            folder.pack(found)
            ended = True
        except Killed:
            assert folder.held() == found
        finally:
            for name, function in genuine.items():
                monkeypatch.setattr(os, name, function)
        for rest in folder.unfinished.iterdir():  # as prepare does when it begins
            rest.unlink()
        folder.pack(found)
        assert folder.shards() == reference.shards()
        if ended:
            break
    assert ended
    assert calls > 8


@pytest.mark.parametrize("change", ["more", "fewer", "other", "label"])
def test_another_set_of_videos_is_packed_anew(tmp_path: Path, change: str) -> None:
    """From the files that are new, and the shards that there were."""
    before = videos()
    after = dict(before)
    if change == "more":
        before = late(after)
    if change == "fewer":
        after = dict(list(before.items())[::3])
    if change == "other":
        after["train/a/0.mp4"] = bytes(512)
    if change == "label":
        after["train/b/0.mp4"] = after.pop("train/a/0.mp4")
    folder, other = Folder(tmp_path / "one"), Folder(tmp_path / "other")
    folder.write(before)
    folder.pack(before)
    folder.write({path: content for path, content in after.items() if before.get(path) != content})
    folder.pack(after)
    other.write(after)
    other.pack(after)
    assert folder.shards() == other.shards()
    assert folder.held() == after


def test_a_file_that_is_not_what_was_written_is_not_packed(folder: Folder) -> None:
    found = videos()
    folder.write(found)
    (folder.out / "val/a/2.mp4").write_bytes(bytes(9000))
    with pytest.raises(Findings, match=r"stopped: .*/val/a/2\.mp4: is not what was written; remove it, and the same command"):
        folder.pack(found)
    assert folder.held() == found | {"val/a/2.mp4": bytes(9000)}


@pytest.mark.parametrize("moment", [1, 2])
def test_a_set_that_changes_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """While shards got their names: what one set left is taken for another."""
    whole, folder, other = videos(), Folder(tmp_path / "one"), Folder(tmp_path / "other")
    begin = late(whole)
    # Those that come move the others to shards after the one that they waited in.
    names = (f"train/a/{number}.mp4" for number in count(100))
    early = islice((name for name in names if samples({name: b""})[0].key < "1"), 8)
    end = {**dict.fromkeys(early, bytes(12_000)), **whole}
    folder.write(begin)
    folder.pack(begin)
    folder.write({path: content for path, content in whole.items() if path not in begin})
    genuine, renamed = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal renamed
        renamed += source.name.startswith(".")
        if renamed > moment:
            raise Killed
        genuine(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        folder.pack(whole)
    monkeypatch.setattr(os, "replace", genuine)
    assert folder.held() == whole
    folder.write({path: content for path, content in end.items() if path not in whole})
    folder.pack(end)
    other.write(end)
    other.pack(end)
    assert folder.shards() == other.shards()
    assert folder.held() == end
    assert not list(folder.out.glob(".shard-*"))


def test_more_shards_than_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_DIGITS", 1)
    with pytest.raises(InputError, match=r"shard_size: 24 shards, of 10 that have names; give a larger size"):
        planned(samples(videos()), 1)


def test_other_tars_are_no_shards(folder: Folder) -> None:
    """They hold nothing that could be gone on with; nothing of them is unpacked."""
    with tarfile.open(folder.out / "shard-000000.tar", "w") as tar:
        for name in ("x.mp4", "x.cls", "x.json"):
            member = tarfile.TarInfo(f"../../{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    (folder.out / "shard-000001.tar").write_bytes(b"no tar" * 1000)
    (folder.out / "shard-000002.tar").touch()
    (folder.out / "shard-of-mine.tar").touch()
    assert [contents(path) for path in sorted(folder.out.glob(PATTERN))] == [[], [], []]
    found = videos(4)
    folder.write(found)
    folder.pack(found)
    assert folder.held() == found
    assert module.lying(folder.out).keys() == found.keys()
    assert (folder.out / "shard-of-mine.tar").exists()
