"""Fetch a public file once, whole, and as published."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from videogn.types import InputError


def cache_folder(cache: str | None = None) -> Path:
    """`cache`, else $VIDEOGN_CACHE, else ~/.cache/videogn."""
    return Path(cache or os.environ.get("VIDEOGN_CACHE") or Path.home() / ".cache" / "videogn").expanduser()


def fetch(url: str, sha256: str | None = None, size: int | None = None, cache: str | None = None) -> Path:
    """The file in the cache folder, fetched if it is not there.

    What an earlier call left unfinished is gone on with. The file takes its name only when its size and hash are right.

    Args:
        url: http(s) or file address.
        sha256: its hash, or the first digits of it; None where none is published.
        size: bytes; None takes the server's word.

    Raises:
        InputError: no network, another size or another hash; the message says where to put the file by hand.
    """
    # Two addresses may end in one name, model.safetensors.
    target = cache_folder(cache) / hashlib.sha256(url.encode()).hexdigest()[:8] / Path(urlparse(url).path).name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The jobs of a sweep, or the processes of several devices, ask for the same file at once.
        with FileLock(target.with_name(target.name + ".lock")):
            return _fetch(url, target, sha256, size)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror or error}; give a folder that can be written as weight.cache=DIR") from error


def _fetch(url: str, target: Path, sha256: str | None, size: int | None) -> Path:
    if target.is_file():
        _check(target, target, url, sha256, size)
        return target
    part = target.with_name(target.name + ".part")
    try:
        expected = _receive(url, part)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{url}: cannot be fetched ({reason}); fetch it elsewhere and put it at {target}, or give it as weight.path=FILE"
        ) from error
    if expected is not None and part.stat().st_size < expected:
        raise InputError(
            f"{url}: the connection ended after {part.stat().st_size} of {expected} bytes; the same command goes on from there"
        )
    _check(part, target, url, sha256, size)
    part.replace(target)
    return target


def _receive(url: str, part: Path) -> int | None:
    """Append what is missing to `part`; the size of the whole, where the server says it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        whole = str(error.headers.get("Content-Range", "")).rpartition("/")[2]
        if whole.isdecimal() and int(whole) != have:  # of another file than what lies there
            part.unlink()
            return _receive(url, part)
        return None
    with response:
        goes_on = getattr(response, "status", None) == 206
        have = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress, part.open("ab" if goes_on else "wb") as file:
            task = progress.add_task(part.stem, total=total, completed=have)
            while block := response.read(1 << 20):
                file.write(block)
                progress.update(task, advance=len(block))
    return total


def _check(file: Path, target: Path, url: str, sha256: str | None, size: int | None) -> None:
    found = file.stat().st_size
    if size is not None and found != size:
        _discard(file, target)
        raise InputError(f"{target}: {found} bytes, and {url} has {size}; {_again(file, target)}")
    if sha256 is not None:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if not digest.hexdigest().startswith(sha256):
            _discard(file, target)
            raise InputError(
                f"{target}: its SHA-256 begins {digest.hexdigest()[:16]}, and that of {url} {sha256[:16]}; {_again(file, target)}"
            )


def _discard(file: Path, target: Path) -> None:
    """Of our own unfinished file only: one that lies in its place may be the user's."""
    if file != target:
        file.unlink()


def _again(file: Path, target: Path) -> str:
    return "remove it, or give it as weight.path=FILE" if file == target else "what was fetched is removed; try again"
