"""Fetching, from a server on this machine that can break off, ignore ranges, or send something else."""

from __future__ import annotations

import gc
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
        self.validator: tuple[str, str] = ("", "")  # a header, and what is said in it
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
        changed = self.headers.get("If-Range") not in (None, self.server.validator[1])
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges and not changed else 0
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        if self.server.validator[0]:
            self.send_header(*self.server.validator)
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


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [("ETag", '"1"', '"2"'), ("Last-Modified", "Mon, 01 Jan 2018 00:00:00 GMT", "Tue, 02 Jan 2018 00:00:00 GMT")],
)
def test_the_rest_of_another_file_is_not_taken(server: Server, tmp_path: Path, header: str, first: str, second: str) -> None:
    """The file at the address has become another of the same size between the two calls; no hash is published."""
    server.break_off_after, server.validator = HALF, (header, first)
    with pytest.raises(InputError, match="the connection ended"):
        fetch(server.url, cache=str(tmp_path))
    server.data, server.validator = DATA[::-1], (header, second)
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA[::-1]
    assert files(tmp_path) == {"net.pth"}


def test_the_rest_of_the_same_file_is_taken(server: Server, tmp_path: Path) -> None:
    server.break_off_after, server.validator = HALF, ("ETag", '"1"')
    with pytest.raises(InputError, match="the connection ended"):
        fetch(server.url, cache=str(tmp_path))
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_weak_tag_promises_no_equal_bytes(server: Server, tmp_path: Path) -> None:
    server.break_off_after, server.validator = HALF, ("ETag", 'W/"1"')
    with pytest.raises(InputError, match="the connection ended"):
        fetch(server.url, cache=str(tmp_path))
    assert files(tmp_path) == {"net.pth.part"}


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


Answer = Callable[[Handler], None]


def answer(status: int, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """To every request the same; without Content-Length in `headers` the body ends with the connection."""

    def do(handler: Handler) -> None:
        handler.server.ranges.append(handler.headers.get("Range"))
        handler.send_response(status)
        for header in headers.items():
            handler.send_header(*header)
        handler.end_headers()
        handler.wfile.write(body)

    return do


def unfinished(server: Server, cache: Path, data: bytes, version: bytes | None = None) -> Path:
    """As a fetch leaves it that was cut: `data` of the server's file, and the note of its version."""
    server.break_off_after = 1
    with pytest.raises(InputError, match="the connection ended"):
        fetch(server.url, cache=str(cache))
    server.ranges.clear()
    (part,) = cache.rglob("*.part")
    part.write_bytes(data)
    if version is not None:
        part.with_name(part.name + ".version").write_bytes(version)
    return part


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-299999/300000", "bytes 512-299999/300000", "bytes */300000", "octets 1000-299999/300000", None],
)
def test_a_part_that_begins_elsewhere_is_not_put_behind_what_is_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_range: str | None
) -> None:
    """The server answers a range with another one; without a range it sends the whole."""
    unfinished(server, tmp_path, DATA[:1000])
    whole = Handler.do_GET
    other = answer(206, {"Content-Range": content_range} if content_range else {}, DATA)
    monkeypatch.setattr(Handler, "do_GET", lambda self: (other if self.headers.get("Range") else whole)(self))
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


def test_a_part_that_was_not_asked_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", answer(206, {"Content-Range": "bytes 7-299999/300000"}, DATA[7:]))
    with pytest.raises(InputError, match="the server sends a part of it, and was asked for the whole"):
        fetch(server.url, cache=str(tmp_path))
    assert files(tmp_path) == set()
    # A beginning is one, and not the whole.
    monkeypatch.setattr(Handler, "do_GET", answer(206, {"Content-Range": "bytes 0-999/300000"}, DATA[:1000]))
    with pytest.raises(InputError, match="the connection ended after 1000 of 300000 bytes"):
        fetch(server.url, cache=str(tmp_path))
    monkeypatch.undo()
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize("size", ["*", "300000"])
def test_a_middle_is_not_the_rest(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    unfinished(server, tmp_path, DATA[:1000])
    headers = {"Content-Range": f"bytes 1000-1999/{size}", "Content-Length": "2000"}
    monkeypatch.setattr(Handler, "do_GET", answer(206, headers, DATA[1000:2000]))
    with pytest.raises(InputError, match=f"the connection ended after 2000 of {3000 if size == '*' else size} bytes"):
        fetch(server.url, cache=str(tmp_path))


@pytest.mark.parametrize("content_range", [None, "bytes */*", "bytes */5", "nonsense"])
def test_a_refused_range_does_not_make_a_part_whole(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_range: str | None
) -> None:
    unfinished(server, tmp_path, b"garbage")
    whole = Handler.do_GET
    refusal = answer(416, {"Content-Range": content_range} if content_range else {})
    monkeypatch.setattr(Handler, "do_GET", lambda self: (refusal if self.headers.get("Range") else whole)(self))
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "\xb2"])
def test_a_length_that_is_no_number(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    monkeypatch.setattr(Handler, "do_GET", answer(200, {"Content-Length": length}, DATA))
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize("version", [b'"a"\nX: y', b"\xff\xfe", '"€"'.encode(), b"", b"\0"])
def test_a_damaged_note_of_the_version_starts_again(server: Server, tmp_path: Path, version: bytes) -> None:
    server.validator = ("ETag", '"1"')
    unfinished(server, tmp_path, b"x" * 1000, version)
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>log in</html>", "a web page"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page"),
        (b"<?xml version='1.0'?><Error/>", "a web page"),
    ],
)
def test_what_is_no_file_does_not_stay(server: Server, tmp_path: Path, body: bytes, what: str) -> None:
    """No hash is published that would tell it."""
    server.data = body
    with pytest.raises(InputError, match=f"net.pth: {what}, and not the file of http.*; what was fetched is removed; try again"):
        fetch(server.url, cache=str(tmp_path))
    assert files(tmp_path) == set()
    server.data = DATA
    path = fetch(server.url, cache=str(tmp_path))
    path.write_bytes(body)  # as an earlier version left it
    with pytest.raises(InputError, match=f"net.pth: {what}, .*; remove it, or give it as weight.path=FILE"):
        fetch(server.url, cache=str(tmp_path))


def test_what_came_before_a_reset_is_kept(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Handler.do_GET

    def reset(handler: Handler) -> None:
        answer(200, {"Content-Length": str(len(DATA))}, DATA[:HALF])(handler)
        handler.wfile.flush()
        time.sleep(0.2)  # so that it is read before the reset throws it away
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    monkeypatch.setattr(Handler, "do_GET", reset)
    with pytest.raises(InputError, match=f"ended after {HALF} of 300000 bytes; the same command goes on from there"):
        fetch(server.url, cache=str(tmp_path))
    monkeypatch.setattr(Handler, "do_GET", whole)
    assert fetch(server.url, cache=str(tmp_path)).read_bytes() == DATA
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_body_in_chunks_that_breaks_off_is_not_whole(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    headers = {"Transfer-Encoding": "chunked", "Connection": "close"}
    monkeypatch.setattr(Handler, "do_GET", answer(200, headers, b"5\r\nhello\r\n"))
    with pytest.raises(InputError, match="the connection ended after 5 bytes; the same command goes on from there"):
        fetch(server.url, cache=str(tmp_path))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves such an answer open
@pytest.mark.parametrize("location", ["/models/net.pth", "file:///etc/hosts", "http://[::1", None])
def test_a_redirection_to_nowhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str | None) -> None:
    headers = {"Content-Length": "0"} | ({"Location": location} if location else {})
    monkeypatch.setattr(Handler, "do_GET", answer(302, headers))
    with pytest.raises(InputError, match=r"net.pth: cannot be fetched \([^\n]+\); fetch it elsewhere and put it at") as caught:
        fetch(server.url, cache=str(tmp_path))
    assert files(tmp_path) == set()
    del caught
    gc.collect()


@pytest.mark.parametrize(
    "url", ["notaurl", "", "s3://x/y.pth", "ftp://x/y", "data:,a", "http://[::1/x.pth", "http://x/\0", "http://x/a\nb"]
)
def test_what_is_no_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="no address of a file; give one that begins with https://, http:// or file://"):
        fetch(url, cache=str(tmp_path))
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", ["ä b.pth", "é%20è.pth"])
def test_an_address_with_letters_beyond_ascii(server: Server, tmp_path: Path, name: str) -> None:
    url = server.url.replace("net.pth", name)
    assert fetch(url, cache=str(tmp_path)).read_bytes() == DATA
    (tmp_path / "ä b.pth").write_bytes(DATA[:9])
    assert fetch(f"file://{tmp_path}/ä b.pth", cache=str(tmp_path)).read_bytes() == DATA[:9]


def test_a_hash_in_capitals(server: Server, tmp_path: Path) -> None:
    assert fetch(server.url, SHA256[:16].upper(), cache=str(tmp_path)).read_bytes() == DATA


def test_a_home_that_nobody_has(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"~no-such-user/x: no home folder is known .*; give a folder as weight\.cache=DIR"):
        fetch(server.url, cache="~no-such-user/x")
    monkeypatch.setenv("VIDEOGN_CACHE", "~no-such-user/x")
    with pytest.raises(InputError, match="no home folder is known"):
        fetch(server.url)


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
