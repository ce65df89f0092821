"""Parts of files from a folder and from servers that stall, drop, refuse and lie: what was asked for, or an error in time."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from videogn.dataset.shards import Shards
from videogn.dataset.storage import BLOCK_BYTES, Storage
from videogn.types import InputError, StorageError

from .conftest import Server

SHARD = "shard-000000.tar"


def read(storage: Storage, offset: int, length: int, name: str = SHARD) -> bytes:
    (size,) = storage.sizes([name])
    return b"".join(storage.blocks(name, offset, length, size))


@pytest.fixture
def content(shards: Path) -> bytes:
    return (shards / SHARD).read_bytes()


def test_a_folder_and_an_address_give_the_same(http_server: Server, shards: Path, content: bytes) -> None:
    for storage in (Storage(str(shards)), Storage(http_server.address), Storage(f"{http_server.address}/")):
        storage.check()
        assert storage.sizes([SHARD]) == [len(content)]
        assert read(storage, 512, 1000) == content[512:1512]
    # Nothing was asked for but that.
    assert [asked for asked in http_server.asked if asked[0] == "GET"] == [("GET", SHARD, "bytes=512-1511")] * 2


def test_much_is_asked_for_in_parts(http_server: Server, shards: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """So that a size in a list, however large, does not say how much lies in memory."""
    monkeypatch.setattr("videogn.dataset.storage.BLOCK_BYTES", 1000)
    assert BLOCK_BYTES == 8 * 2**20
    for root in (str(shards), http_server.address):
        blocks = list(Storage(root).blocks(SHARD, 10, 2500, len(content)))
        assert list(map(len, blocks)) == [1000, 1000, 500]
        assert b"".join(blocks) == content[10:2510]


@pytest.mark.parametrize("fault", [503, 500, 429, 408, "drop", "short", "stall"])
def test_what_passes_is_tried_again(http_server: Server, no_waits: list[float], content: bytes, fault: int | str) -> None:
    http_server.faults = [fault, fault]
    storage = Storage(http_server.address, timeout_seconds=0.5 if fault == "stall" else 20, num_retries=3)
    assert read(storage, 700, 900) == content[700:1600]
    assert http_server.readings() == 3
    assert no_waits == [0.5, 1.0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (503, "HTTP status 503"),
        ("drop", "ContentLengthError|Response payload is not completed"),
        ("short", "893 bytes came, and 900 were asked for"),
        ("stall", r"no answer in 0\.4 s"),
    ],
)
def test_what_stays_is_a_fault_of_the_server(http_server: Server, no_waits: list[float], fault: int | str, reason: str) -> None:
    http_server.faults, http_server.for_ever = [fault], True
    storage = Storage(http_server.address, timeout_seconds=0.4 if fault == "stall" else 20, num_retries=2)
    began = time.monotonic()
    message = rf"shards/{SHARD}: cannot be read: .*({reason}).* \(3 tries in .*no video is at fault"
    with pytest.raises(StorageError, match=message) as error:
        read(storage, 700, 900)
    assert time.monotonic() - began < 10
    assert "\n" not in str(error.value)
    assert http_server.readings() == 3


def test_waits_grow_up_to_half_a_minute(http_server: Server, no_waits: list[float]) -> None:
    http_server.faults, http_server.for_ever = [503], True
    with pytest.raises(StorageError, match="11 tries"):
        read(Storage(http_server.address, num_retries=10), 0, 9)
    assert no_waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_refused_is_not_asked_for_again(http_server: Server, no_waits: list[float], status: int) -> None:
    http_server.faults, http_server.for_ever = [status], True
    with pytest.raises(StorageError, match=rf"{SHARD}: cannot be read: the server refuses it \(HTTP status {status}\)"):
        read(Storage(http_server.address), 700, 900)
    assert http_server.readings() == 1
    assert no_waits == []


def test_a_server_that_gives_no_parts(http_server: Server, no_waits: list[float]) -> None:
    """It would send the whole file for every video."""
    http_server.faults, http_server.for_ever = ["whole"], True
    with pytest.raises(StorageError, match="gives no parts of files"):
        read(Storage(http_server.address), 700, 900)
    assert http_server.readings() == 1


def test_nothing_is_expanded(http_server: Server, no_waits: list[float]) -> None:
    """A few thousand bytes may become as many as one likes."""
    http_server.faults, http_server.for_ever = ["packed"], True
    with pytest.raises(StorageError, match=r"cannot be read: \d?\d,\d\d\d bytes came, and 900 were asked for"):
        read(Storage(http_server.address, num_retries=0), 700, 900)


def test_what_is_not_there(http_server: Server, shards: Path, tmp_path: Path, no_waits: list[float]) -> None:
    with pytest.raises(InputError, match=r"http://.*/shards/gone\.tar: the server refuses it \(HTTP status 404\); correct"):
        Storage(http_server.address).sizes([SHARD, "gone.tar"])
    with pytest.raises(InputError, match=r"shards/gone\.tar: cannot be read: No such file"):
        Storage(str(shards)).sizes(["gone.tar"])
    (shards / "folder.tar").mkdir()
    with pytest.raises(InputError, match=r"folder\.tar: is no file"):
        Storage(str(shards)).sizes(["folder.tar"])
    with pytest.raises(InputError, match="gone: no such folder"):
        Storage(str(tmp_path / "gone")).check()
    with pytest.raises(StorageError, match=f"{SHARD}: cannot be read: 0 bytes came, and 9 were asked for"):
        list(Storage(str(shards)).blocks(SHARD, 10**7, 9, 10**8))


def test_a_port_where_nobody_listens(no_waits: list[float]) -> None:
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/x/y: cannot be read: .*[Cc]onnect.*\(2 tries"):
        Storage("http://127.0.0.1:9/x", num_retries=1).sizes(["y"])


@pytest.mark.parametrize(
    ("root", "shown"),
    [
        ("https://me:hunter2@host/set", "https://...@host/set"),
        ("https://hunter2@host/set", "https://...@host/set"),
        ("s3://AKIA:hunter2@bucket/set", "s3://...@bucket/set"),
        ("https://host/set?X-Amz-Signature=hunter2", "https://host/set?..."),
        ("https://host/set#hunter2", "https://host/set?..."),
        ("https://host:hunter2/set", "https://...: is no address"),
    ],
)
def test_an_address_with_a_secret_is_refused(root: str, shown: str) -> None:
    with pytest.raises(InputError, match=r"would be stored with the run|is no address") as refusal:
        Storage(root)
    assert shown in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_what_is_no_secret() -> None:
    Storage("abfs://container@account.dfs.core.windows.net/set")
    Storage("s3://b", {"endpoint_url": "http://h:9", "anon": True, "config_kwargs": {"signature_version": "s3v4"}, "token": None})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"key": "hunter2"}, "key"),
        ({"secret": "hunter2", "anon": True}, "secret"),
        ({"token": "hunter2"}, "token"),
        ({"client_kwargs": {"headers": {"Authorization": "hunter2"}}}, "client_kwargs.headers"),
        ({"client_kwargs": {"aws_session_token": "hunter2"}}, "client_kwargs.aws_session_token"),
        ({"endpoint_url": "http://me:hunter2@host"}, "endpoint_url"),
        ({"proxies": ["http://host/?pw=hunter2"]}, "proxies"),
    ],
)
def test_an_option_with_a_secret_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"dataset.storage_options: {name} would be stored with the run.*environment") as refusal:
        Storage("s3://bucket", options)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout_seconds": 0}, "dataset.timeout_seconds=0: give seconds above 0"),
        ({"timeout_seconds": True}, "dataset.timeout_seconds=True"),
        ({"num_retries": -1}, "dataset.num_retries=-1: give a whole number from 0 to 100"),
        ({"options": ["anon"]}, "dataset.storage_options: give names and values"),
        ({"options": {1: 2}}, "dataset.storage_options: give names and values"),
    ],
)
def test_values_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Storage("s3://bucket", **arguments)
    with pytest.raises(InputError, match="is a folder of this machine, which has none"):
        Storage("folder", {"anon": True})


def test_an_address_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="foo://host/x: Protocol not known: foo"):
        Storage("foo://host/x").check()
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "_registry", {})
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://bucket: Install s3fs to access S3: pip install 'videogn\[shards\]'"):
        Storage("s3://bucket").check()


@pytest.fixture
def bucket(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """(address of the shards, storage_options) of an S3 server of this machine."""
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    boto3 = pytest.importorskip("boto3", reason="pip install 'moto[server]'")
    pytest.importorskip("s3fs", reason="pip install 'videogn[shards]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    address = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    client = boto3.client("s3", endpoint_url=address)
    client.create_bucket(Bucket="videos")
    for path in shards.iterdir():
        client.upload_file(str(path), "videos", f"set/{path.name}")
    yield "s3://videos/set", {"endpoint_url": address}
    client.close()
    running.stop()


def test_s3(bucket: tuple[str, dict[str, Any]], content: bytes, no_waits: list[float], tmp_path: Path) -> None:
    root, options = bucket
    storage = Storage(root, options)
    storage.check()
    assert read(storage, 512, 1000) == content[512:1512]
    assert storage.name(SHARD) == f"s3://videos/set/{SHARD}"
    with pytest.raises(InputError, match=r"s3://videos/set/gone\.tar: (the server refuses it \(HTTP status 404\)|no such file)"):
        storage.sizes(["gone.tar"])
    with pytest.raises(StorageError, match=r"s3://videos/set/gone\.tar: cannot be read: (the server refuses it|no such file)"):
        list(storage.blocks("gone.tar", 0, 9, 9))
    with pytest.raises(InputError, match=r"s3://nobodys/set/x: "):
        Storage("s3://nobodys/set", options).sizes(["x"])
    assert no_waits == []
    manifest = Shards(root, 0.5, options).manifest()
    assert manifest.path(0) == "s3://videos/set/test/a/0.mp4"
