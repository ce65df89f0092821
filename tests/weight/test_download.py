"""Fetching, from a server on this machine that can break off, ignore ranges, or send something else."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from videogn.types import InputError
from videogn.weight import download
from videogn.weight.download import cache_folder, fetch

CONF = Path(__file__).parents[2] / "conf" / "weight"
DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
HALF = 131_072


class Server(ThreadingHTTPServer):
    """One file at every address; what was asked for is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.knows_ranges = True
        self.break_off_after: int | None = None
        self.delay_seconds = 0.0
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/net.pth"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        time.sleep(self.server.delay_seconds)
        data = self.server.data
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = self.server.break_off_after
        self.server.break_off_after = None
        self.wfile.write(data[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files(folder: Path) -> set[str]:
    """Names of all that lies there but the locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_the_whole_file_and_then_the_cached_one(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, SHA256[:8], len(DATA), cache=str(tmp_path))
    assert path.read_bytes() == DATA
    assert path.name == "net.pth"
    assert files(tmp_path) == {"net.pth"}
    assert fetch(server.url, SHA256, len(DATA), cache=str(tmp_path)) == path
    assert server.ranges == [None]


def test_after_a_cut_only_the_rest_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.break_off_after = HALF
    with pytest.raises(InputError, match=f"connection ended after {HALF} of 300000 bytes; the same command goes on from there"):
        fetch(server.url, SHA256, cache=str(tmp_path))
    assert files(tmp_path) == {"net.pth.part"}
    path = fetch(server.url, SHA256, cache=str(tmp_path))
    assert path.read_bytes() == DATA
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert files(tmp_path) == {"net.pth"}


def test_a_server_that_knows_no_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.break_off_after, server.knows_ranges = HALF, False
    with pytest.raises(InputError, match="the connection ended"):
        fetch(server.url, SHA256, cache=str(tmp_path))
    assert fetch(server.url, SHA256, cache=str(tmp_path)).read_bytes() == DATA  # not a half and a whole


def test_a_part_that_is_whole_is_taken(server: Server, tmp_path: Path) -> None:
    """Killed after the last byte, before the file had its name."""
    path = fetch(server.url, SHA256, cache=str(tmp_path))
    path.rename(path.with_name("net.pth.part"))
    assert fetch(server.url, SHA256, cache=str(tmp_path)).read_bytes() == DATA
    assert server.ranges == [None, "bytes=300000-"]


def test_a_part_longer_than_the_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    """The file at the address has become another; no hash is published."""
    path = fetch(server.url, cache=str(tmp_path))
    path.rename(path.with_name("net.pth.part"))
    server.data = DATA[:1000]
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA[:1000]


@pytest.mark.parametrize(
    ("sha256", "size", "message"),
    [
        (None, 299_999, "300000 bytes, and http.* has 299999; what was fetched is removed; try again"),
        (
            "0123abcd",
            None,
            f"its SHA-256 begins {SHA256[:16]}, and that of http.* 0123abcd; what was fetched is removed",
        ),
    ],
    ids=["size", "hash"],
)
def test_another_file_is_removed(server: Server, tmp_path: Path, sha256: str | None, size: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(server.url, sha256, size, cache=str(tmp_path))
    assert files(tmp_path) == set()


def test_a_cached_file_with_another_hash_is_left_alone(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, SHA256, cache=str(tmp_path))
    path.write_bytes(b"the user's")
    with pytest.raises(InputError, match=r"its SHA-256 begins \w+, .*; remove it, or give it as weight\.path=FILE"):
        fetch(server.url, SHA256, cache=str(tmp_path))
    assert path.read_bytes() == b"the user's"
    assert server.ranges == [None]


def test_without_a_network_the_message_says_where_to_put_the_file(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net.pth"
        with pytest.raises(InputError) as caught:
            fetch(url, cache=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "refused" in message
    target = Path(message.split("put it at ")[1].split(",")[0])
    assert target.is_relative_to(tmp_path)
    assert target.name == "net.pth"
    target.write_bytes(DATA)  # as it asks
    assert fetch(url, SHA256, cache=str(tmp_path)) == target


def test_an_address_that_is_gone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(InputError, match=r"cannot be fetched \(Not Found\); fetch it elsewhere and put it at"):
        fetch(server.url, cache=str(tmp_path))
    assert files(tmp_path) == set()


def test_two_at_once_make_one_request(server: Server, tmp_path: Path) -> None:
    server.delay_seconds = 0.2  # so that the second comes while the first one waits
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server.url, SHA256, cache=str(tmp_path)).read_bytes()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA, DATA]
    assert server.ranges == [None]


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("VIDEOGN_CACHE", str(tmp_path / "of the environment"))
    assert fetch(server.url, SHA256).is_relative_to(tmp_path / "of the environment")
    assert cache_folder(str(tmp_path / "given")) == tmp_path / "given"
    monkeypatch.delenv("VIDEOGN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "videogn"


def test_a_folder_that_cannot_be_made(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"give a folder that can be written as weight\.cache=DIR"):
        fetch(server.url, cache=str(tmp_path / "file"))


def test_no_two_public_files_share_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a file system does not tell X3D_S.pyth from x3d_s.pyth."""
    monkeypatch.setattr(download, "_fetch", lambda url, target, sha256, size: target)
    places: dict[str, str] = {}
    for conf in sorted(CONF.glob("*.yaml")):
        for file in (yaml.safe_load(conf.read_text()).get("files") or {}).values():
            place = str(fetch(**file, cache=str(tmp_path))).lower()
            assert places.setdefault(place, file["url"]) == file["url"]
    assert len(places) > 20
