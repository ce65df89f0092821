"""Fetch a public file once, whole, and as published."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import string
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.parse import quote, urlparse

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from videogn.types import InputError


def cache_folder(cache: str | None = None) -> Path:
    """`cache`, else $VIDEOGN_CACHE, else ~/.cache/videogn.

    Raises:
        InputError: it begins with a ~ that stands for no folder.
    """
    folder = cache or os.environ.get("VIDEOGN_CACHE") or "~/.cache/videogn"
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise InputError(f"{folder}: no home folder is known of this user; give a folder as weight.cache=DIR") from None


def fetch(url: str, sha256: str | None = None, size: int | None = None, cache: str | None = None) -> Path:
    """The file in the cache folder, fetched if it is not there.

    What an earlier call left unfinished is gone on with. The file takes its name only when its size and hash are right.

    Args:
        url: http(s) or file address.
        sha256: its hash, or the first digits of it; None where none is published.
        size: bytes; None takes the server's word.

    Raises:
        InputError: no address, no network, another size or another hash, nothing or a web page in place of the file; the
            message says where to put the file by hand.
    """
    target = _place(url, cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The jobs of a sweep, or the processes of several devices, ask for the same file at once.
        with FileLock(target.with_name(target.name + ".lock")):
            return _fetch(url, target, sha256 and sha256.lower(), size)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror or error}; give a folder that can be written as weight.cache=DIR") from error


def _place(url: str, cache: str | None) -> Path:
    try:
        scheme, _, path, *_ = urlparse(url)
    except ValueError:
        scheme = path = ""
    if scheme not in ("http", "https", "file") or not url.isprintable():
        raise InputError(f"{url}: no address of a file; give one that begins with https://, http:// or file:// in weight.files")
    # Two addresses may end in one name, model.safetensors.
    return cache_folder(cache) / hashlib.sha256(url.encode()).hexdigest()[:8] / Path(path).name


def _fetch(url: str, target: Path, sha256: str | None, size: int | None) -> Path:
    if target.is_file():
        _check(target, target, url, sha256, size)
        return target
    part = target.with_name(target.name + ".part")
    try:
        _receive(url, part)
    except InputError:
        raise
    # ValueError: a redirection to no address.
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise InputError(
            f"{url}: cannot be fetched ({reason}); fetch it elsewhere and put it at {target}, or give it as weight.path=FILE"
        ) from error
    _check(part, target, url, sha256, size)
    part.replace(target)
    _version(part).unlink(missing_ok=True)
    return target


def _receive(url: str, part: Path) -> None:
    """Append what is missing to `part`.

    Raises:
        InputError: the connection ended before the last byte; what came is kept.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        # The schemes are those of `_place`, and a redirection stays with http and ftp.
        response = urllib.request.urlopen(_request(url, part, have), timeout=30)  # nosec B310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if _content_range(error.headers)[1] != have:
            _receive_anew(url, part)
        return
    with response:
        start, length = 0, _count(response.headers.get("Content-Length"))
        total = length
        if getattr(response, "status", None) == 206:
            start, total = _content_range(response.headers)
            if start != have and have:
                _receive_anew(url, part)
                return
            if start is None or start != have:
                raise urllib.error.URLError("the server sends a part of it, and was asked for the whole")
            if total is None and length is not None:
                total = start + length
        if not start:
            _keep_version(response.headers, part)
        ended = False
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress, part.open("ab" if start else "wb") as file:
            task = progress.add_task(part.stem, total=total, completed=start)
            try:
                while block := response.read1(1 << 20):  # read would lose what came of a block before the connection broke
                    file.write(block)
                    progress.update(task, advance=len(block))
            except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError):
                ended = True
    size = part.stat().st_size
    if ended or (total is not None and size < total):
        of = "" if total is None else f" of {total}"
        raise InputError(f"{url}: the connection ended after {size}{of} bytes; the same command goes on from there")


def _request(url: str, part: Path, have: int) -> urllib.request.Request:
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and _version(part).exists():  # the rest of this file, or the whole of another that has come to its place
        # What a damaged note says is the version of no file.
        headers["If-Range"] = re.sub("[^ -~]", "?", _version(part).read_text(encoding="latin-1")) or "?"
    # A request holds neither blanks nor letters beyond ASCII.
    return urllib.request.Request(quote(url, safe=string.punctuation), headers=headers)


def _receive_anew(url: str, part: Path) -> None:
    """What lies there is of another file, or the server does not say that it is not."""
    _discard(part)
    _receive(url, part)


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]+", text) else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """The first byte that is sent, and the size of the whole; None for what the server does not say."""
    match = re.fullmatch(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+|\*)", headers.get("Content-Range", ""))
    return (_count(match[1]), _count(match[2])) if match else (None, None)


def _version(part: Path) -> Path:
    """Where what the server calls the version of an unfinished file is kept."""
    return part.with_name(part.name + ".version")


def _keep_version(headers: Message, part: Path) -> None:
    tag = headers.get("ETag") or ""
    # A weak tag does not promise equal bytes.
    version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    if version:
        _version(part).write_text(version, encoding="latin-1", errors="replace")
    else:
        _version(part).unlink(missing_ok=True)


def _check(file: Path, target: Path, url: str, sha256: str | None, size: int | None) -> None:
    found = file.stat().st_size
    with file.open("rb") as stream:
        begins = stream.read(512).lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    if not found or begins.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{target}: {'a web page' if found else 'empty'}, and not the file of {url}; {_refused(file, target)}")
    if size is not None and found != size:
        raise InputError(f"{target}: {found} bytes, and {url} has {size}; {_refused(file, target)}")
    if sha256 is not None:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        found_hash = digest.hexdigest()
        if not found_hash.startswith(sha256):
            raise InputError(
                f"{target}: its SHA-256 begins {found_hash[:16]}, and that of {url} {sha256[:16]}; {_refused(file, target)}"
            )


def _discard(part: Path) -> None:
    part.unlink()
    _version(part).unlink(missing_ok=True)


def _refused(file: Path, target: Path) -> str:
    """What to do; our own unfinished file is removed, while one that lies in its place may be the user's."""
    if file == target:
        return "remove it, or give it as weight.path=FILE"
    _discard(file)
    return "what was fetched is removed; try again, or give it as weight.path=FILE"
