"""Videos in shards against the same videos as files: the same frames under their own names, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from videogn.dataset.shard_decoder import Place, Places, PrivateFile, ShardDecoder, fetched
from videogn.dataset.shards import Shards
from videogn.dataset.storage import Storage
from videogn.decoder.auto import AutoDecoder
from videogn.decoder.isolated import IsolatedDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.types import Declined, Decoder, OpenTimeout, ShortRead, StorageError, Video, VideoError

from .conftest import Prepared, Server


def fetched_files(temporary: str = "/nowhere") -> list[str]:
    """Those that this process has open."""
    targets = [os.readlink(file.path) for file in os.scandir("/proc/self/fd") if os.path.lexists(file.path)]
    return [target for target in targets if target.startswith(("/memfd:videogn video", temporary))]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Spy:
    """PyAV, and what it was given to open."""

    name = "spy"

    def __init__(self, error: type[VideoError] | None = None) -> None:
        self.opened: list[str] = []
        self._error = error

    def open(self, path: str | Path) -> Video:
        self.opened.append(str(path))
        if self._error is not None:
            raise self._error(path, "a reason")
        return PyAVDecoder().open(path)


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "http"])
@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "disk"])
def test_the_frames_of_the_files(
    prepared: Prepared, http_server: Server, temporary: Path, monkeypatch: pytest.MonkeyPatch, remote: bool, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr("videogn.dataset.shard_decoder.MEMORY_BYTES", 0)
    files, shards = prepared.manifest(), Shards(http_server.address if remote else str(prepared.shards), 0.5)
    manifest = shards.manifest()
    spy = Spy()
    decoder = pickle.loads(pickle.dumps(shards.reads_with(AutoDecoder())))
    assert decoder.name == "auto"
    for row in range(len(manifest)):
        expected, video = PyAVDecoder().open(files.path(row)), decoder.open(manifest.path(row))
        assert isinstance(video, Video)
        facts = [(v.num_frames, v.fps, v.height, v.width) for v in (expected, video)]
        assert facts[0] == facts[1]
        assert np.array_equal(video.timestamps, expected.timestamps)
        assert np.array_equal(video.frames([5, 0, 5, 11]), expected.frames([5, 0, 5, 11]))
        video.close()
    shards.reads_with(spy).open(manifest.path(0)).close()
    (path,) = spy.opened
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    assert os.listdir(temporary) == []
    assert fetched_files(str(temporary)) == []


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "disk"])
def test_a_fetched_video_has_no_name(temporary: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """So that nothing is left where a process is killed; nor by one that drops it without a word."""
    if not in_memory:
        monkeypatch.setattr("videogn.dataset.shard_decoder.MEMORY_BYTES", 0)
    file = PrivateFile(5)
    file.write(b"video")
    assert os.listdir(temporary) == []
    assert Path(file.path).read_bytes() == b"video"
    assert len(fetched_files()) == in_memory
    assert len(fetched_files(str(temporary))) == 1
    file.close()
    file.close()
    assert fetched_files(str(temporary)) == []
    file = PrivateFile(5)
    del file
    assert fetched_files(str(temporary)) == []


def test_without_proc_it_has_a_name_until_it_is_closed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogn.dataset.shard_decoder._DESCRIPTORS", temporary / "none")
    file = PrivateFile(5)
    file.write(b"video")
    assert [str(path) for path in temporary.iterdir()] == [file.path]
    assert Path(file.path).read_bytes() == b"video"
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    file.close()
    assert os.listdir(temporary) == []
    file = PrivateFile(5)
    del file
    assert os.listdir(temporary) == []


def test_a_decoder_of_another_process_opens_it(prepared: Prepared) -> None:
    shards = Shards(str(prepared.shards), 0.5)
    manifest = shards.manifest()
    storage, place = shards.source(manifest.entries[0].path)
    unverified = Places([(manifest.entries[0].path, place._replace(is_whole=False))])
    decoder = IsolatedDecoder(PyAVDecoder())
    video = ShardDecoder(decoder, Storage(**storage), unverified).open(manifest.path(0))
    frames = video.frames([3])
    decoder.process().end()  # and opens it once more
    assert np.array_equal(video.frames([3]), frames)
    video.close()
    decoder.process().end()


def test_a_verified_video_needs_no_process_of_its_own(prepared: Prepared) -> None:
    """As with files; the hash says that it is what was verified."""
    shards = Shards(str(prepared.shards), 0.5)
    manifest = shards.manifest()
    spy = Spy()
    shards.reads_with(IsolatedDecoder(spy)).open(manifest.path(0)).close()
    assert len(spy.opened) == 1


@pytest.mark.parametrize("kind", [VideoError, Declined, OpenTimeout, ShortRead])
def test_what_goes_wrong_has_the_name_of_the_video(prepared: Prepared, kind: type[VideoError]) -> None:
    shards = Shards(str(prepared.shards), 0.5)
    manifest = shards.manifest()
    with pytest.raises(VideoError, match=r"a reason \(in shard-00000\d\.tar\)$") as error:
        shards.reads_with(Spy(kind)).open(manifest.path(0))
    assert type(error.value) is kind
    assert error.value.path == f"{prepared.shards}/test/a/0.mp4"
    assert fetched_files() == []


class Recounting:
    """A video that promises ten frames, and has six once it is read."""

    num_frames, fps, height, width = 10, 25.0, 16, 16
    timestamps = np.arange(10.0)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        self.timestamps, self.num_frames = np.arange(6.0), 6
        raise ShortRead("/proc/1/fd/2", "six frames")

    def close(self) -> None:
        pass


def test_a_video_that_recounts(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(str(prepared.shards), 0.5)
    spy = Spy()
    monkeypatch.setattr(spy, "open", lambda path: Recounting())
    video = shards.reads_with(spy).open(shards.manifest().path(0))
    assert video.num_frames == 10
    with pytest.raises(ShortRead, match=r"test/a/0\.mp4: six frames \(in shard-"):
        video.frames([9])
    assert (video.num_frames, len(video.timestamps)) == (6, 6)


def test_other_bytes_are_a_damaged_video(shards: Path) -> None:
    dataset = Shards(str(shards), 0.5)
    manifest = dataset.manifest()
    _, place = dataset.source(manifest.entries[3].path)
    content = bytearray((shards / place.shard).read_bytes())
    content[place.offset + place.size - 1] ^= 1
    (shards / place.shard).write_bytes(content)
    decoder = dataset.reads_with(PyAVDecoder())
    with pytest.raises(VideoError, match=rf"its bytes in {place.shard} are not those that were written: their SHA-256"):
        decoder.open(manifest.path(3))
    decoder.open(manifest.path(2)).close()


@pytest.mark.parametrize(("faults", "is_read"), [(["wrong"], True), (["moved"], True), (["wrong", "wrong"], False)])
def test_bytes_that_changed_on_their_way_are_fetched_once_more(
    http_server: Server, prepared: Prepared, faults: list[int | str], is_read: bool
) -> None:
    dataset = Shards(http_server.address, 0.5)
    manifest = dataset.manifest()
    http_server.faults, before = faults, http_server.readings()
    if is_read:
        dataset.reads_with(PyAVDecoder()).open(manifest.path(0)).close()
    else:
        with pytest.raises(VideoError, match="SHA-256"):
            dataset.reads_with(PyAVDecoder()).open(manifest.path(0))
    assert http_server.readings() - before == 2


def test_a_server_that_is_down_damages_no_video(http_server: Server, no_waits: list[float]) -> None:
    dataset = Shards(http_server.address, 0.5, num_retries=1)
    manifest = dataset.manifest()
    http_server.faults, http_server.for_ever = [503], True
    with pytest.raises(StorageError, match="HTTP status 503"):
        dataset.reads_with(PyAVDecoder()).open(manifest.path(0))
    assert fetched_files() == []


def test_no_room_for_a_video(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Shards(str(prepared.shards), 0.5)
    manifest = dataset.manifest()

    def full(self: PrivateFile, block: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PrivateFile, "write", full)
    with pytest.raises(StorageError, match=r"test/a/0\.mp4: no room for its [\d,]+ bytes in .*: No space left.*TMPDIR"):
        dataset.reads_with(PyAVDecoder()).open(manifest.path(0))


def test_a_video_that_is_in_no_shard(prepared: Prepared) -> None:
    decoder: Decoder = Shards(str(prepared.shards), 0.5).reads_with(PyAVDecoder())
    for path in ("x.mp4", f"{prepared.shards}/x.mp4", str(prepared.files / "test" / "a" / "0.mp4")):
        with pytest.raises(VideoError, match="is in none of the shards"):
            decoder.open(path)
    with pytest.raises(VideoError, match="could not be prepared, and is in none of the shards"):
        fetched("x.mp4", Place("", 0, 0, 0, "", False), Storage(str(prepared.shards)))


def test_places_are_found_by_their_paths(rng: np.random.Generator) -> None:
    """Against a dict; names that are no text, and thousands of them, in any order."""
    names = [f"{number}/\udce9.mp4" for number in rng.permutation(3000).tolist()]
    expected = {
        name: Place(f"shard-{row % 7}.tar", row % 7, row * 2**33, row + 1, rng.bytes(32).hex(), bool(row % 2))
        for row, name in enumerate(names)
    }
    places = Places(expected.items())
    assert all(places[name] == place for name, place in expected.items())
    for name in ("", "3000/\udce9.mp4", "0/e.mp4"):
        with pytest.raises(KeyError):
            places[name]
    with pytest.raises(AssertionError):
        Places([*expected.items(), (names[0], expected[names[1]])])
