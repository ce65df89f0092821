"""Videos prepared as files and as shards, and servers that give them: a sound one, and one that does whatever goes wrong."""

from __future__ import annotations

import gzip
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from videogn.dataset.class_folder import ClassFolder
from videogn.dataset.manifest import Manifest, ManifestFile
from videogn.encoder.pyav import write_video
from videogn.preparation.prepare import Limits, prepare, write_lists
from videogn.preparation.transcode import Settings

SHARD_BYTES = 60 * 1024


@dataclass(frozen=True)
class Prepared:
    """The same videos twice.

    Attributes:
        files: folder of one file each, with its manifest.
        shards: folder of tar files, with theirs.
    """

    files: Path
    shards: Path

    def manifest(self) -> Manifest:
        """Of the files."""
        return ManifestFile(str(self.files / "manifest.csv"), None, str(self.files / "classes.txt"), 0.5).manifest()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Twelve videos, eight of them to train on; of noise, so that no two have like bytes."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        for label in ("a", "b"):
            (folder / "videos" / split / label).mkdir(parents=True)
            for number in range(count):
                frames = rng.integers(0, 256, (12 + number, 36, 48, 3), np.uint8)
                write_video(folder / "videos" / split / label / f"{number}.mp4", frames, 25)
    manifest = ClassFolder(str(folder / "videos"), None, None, 0, None, 0.5).manifest()
    for name, shard_bytes in (("files", None), ("shards", SHARD_BYTES)):
        out = folder / name
        rows = prepare(manifest, out, Settings(short_side=32), Limits(2, 60, 2**32), lambda progress: None, shard_bytes)
        write_lists(rows, manifest, out, True, shard_bytes is not None)
    return Prepared(folder / "files", folder / "shards")


@pytest.fixture
def shards(prepared: Prepared, tmp_path: Path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(prepared.shards, tmp_path / "shards"))


@dataclass
class Server:
    """An HTTP server of a folder.

    Attributes:
        address: of the folder.
        asked: (method, file, range) of every request, in their order.
        faults: what the next readings of tar files get in place of what they ask for, one each: a status, or stall, drop, short,
            wrong, moved, whole, packed; the last one stays if `for_ever`.
    """

    address: str
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[int | str] = field(default_factory=list)
    for_ever: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    stalled: threading.Event = field(default_factory=threading.Event)

    def fault(self) -> int | str | None:
        with self.lock:
            if not self.faults:
                return None
            return self.faults[0] if self.for_ever and len(self.faults) == 1 else self.faults.pop(0)

    def readings(self) -> int:
        return sum(method == "GET" and name.endswith(".tar") for method, name, _ in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, server_state: Server, *arguments: object) -> None:
        self._folder, self._state = folder, server_state
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType]

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def _answer(self, is_head: bool) -> None:
        path, wanted = self._folder / self.path.lstrip("/"), self.headers.get("Range", "")
        self._state.asked.append((self.command, path.name, wanted))
        if not path.is_file():
            return self._say(404, b"")
        content, status = path.read_bytes(), 200
        if is_head:
            return self._say(200, b"", {"Content-Length": str(len(content)), "Accept-Ranges": "bytes"})
        fault = self._state.fault() if path.suffix == ".tar" else None
        if isinstance(fault, int):
            return self._say(fault, b"no")
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", wanted):
            start, end = int(match[1]), int(match[2])
            if fault == "moved":
                start, end = start + 1, end + 1
            if fault != "whole":
                content, status = content[start : end + 1], 206
        if fault == "stall":
            self._state.stalled.wait(20)
        if fault == "wrong":
            content = bytes(len(content))
        if fault == "short":
            content = content[:-7]
        if fault == "packed":
            content = gzip.compress(bytes(10**7))
        headers = {"Content-Length": str(len(content))} | ({"Content-Encoding": "gzip"} if fault == "packed" else {})
        if status == 206:
            headers["Content-Range"] = f"bytes {wanted.removeprefix('bytes=')}/*"
        if fault == "drop":
            self._say(status, content[: len(content) // 2], headers)
            self.close_connection = True
            return None
        return self._say(status, content, headers)

    def _say(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # who asked has gone
            self.close_connection = True


class QuietServer(ThreadingHTTPServer):
    """Says nothing of those who went away."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def http_server(shards: Path) -> Iterator[Server]:
    """Of the folder that the shards lie in."""
    state = Server("")
    server = QuietServer(("127.0.0.1", 0), partial(Handler, shards.parent, state))
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}/shards"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    state.stalled.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between readings, which pass at once."""
    waits: list[float] = []
    monkeypatch.setattr("videogn.dataset.storage.time.sleep", waits.append)
    return waits
