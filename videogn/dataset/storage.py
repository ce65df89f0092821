"""A folder of files on this machine, or at an address that fsspec reads: https://, s3:// and the like.

Parts of files are asked for, and what comes is what was asked for, or an error. From an address every reading has a deadline, and
is tried again after a wait that doubles, for a server may be busy, restarted or cut off; what it refuses (403, 404) is not.
"""

from __future__ import annotations

import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from videogn.number import is_count, is_positive
from videogn.types import InputError, StorageError

# Read at once: what a server sends lies in memory, and has to come within the deadline.
BLOCK_BYTES = 8 * 2**20
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
_MAX_SECONDS = 3600
_CONNECTIONS = 16  # that ask for the sizes of files at a time
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_IN_EXTRA = ("http", "https", "s3", "s3a")
_CONTAINER_AT_ACCOUNT = ("abfs", "abfss")  # Azure's addresses have an @ that divides no user from a host
# Of an option that is a secret, or holds one.
_SECRET = re.compile(r"key|secret|token|pass|auth|cred|cookie|header|signature(?!_version)|connection_string", re.IGNORECASE)
_REFUSALS = (400, 401, 403, 404, 405, 410)  # a server that says so will say so again
_Answer = TypeVar("_Answer")


class Storage:
    """Files of one folder.

    Attributes:
        root: the folder or address, without a slash at its end.
        place: the same as it is known from everywhere.
        is_remote: whether it is an address.

    Args:
        root: a folder of this machine, or an address.
        options: a mapping: of the file system of fsspec, such as endpoint_url; no secrets.
        timeout_seconds: for each reading of at most 8 MiB, an hour at most.
        num_retries: how often a failed reading is tried again, 100 at most.

    Raises:
        InputError: an address or an option with a secret, which would be stored with the configuration; values that are none.
    """

    def __init__(self, root: str, options: Any = None, timeout_seconds: float | int = 60.0, num_retries: int = 6) -> None:
        self.is_remote = is_address(root)
        self.root = root.rstrip("/") or "/"
        self.place = place_of(self.root)
        if not is_positive(timeout_seconds, _MAX_SECONDS):
            raise InputError(f"dataset.timeout_seconds={timeout_seconds}: give seconds above 0, at most {_MAX_SECONDS}")
        if not is_count(num_retries, 0, 100):
            raise InputError(f"dataset.num_retries={num_retries}: give a whole number from 0 to 100")
        if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
            raise InputError("dataset.storage_options: give names and values, as {anon: true}, or null")
        self._options = dict(options or {})
        self._timeout_seconds = float(timeout_seconds)
        self._num_retries = num_retries
        if self.is_remote:
            _check_address(root)
        elif self._options:
            raise InputError(f"dataset.storage_options: {root} is a folder of this machine, which has none; leave them out")
        for name in _secret_options(self._options):
            raise InputError(
                f"dataset.storage_options: {name} would be stored with the run; give secrets to fsspec by the environment "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) or its own configuration, ~/.config/fsspec"
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes another one of it, as plain data."""
        limits = {"timeout_seconds": self._timeout_seconds, "num_retries": self._num_retries}
        return {"root": self.place, "options": self._options or None, **limits}

    def name(self, file: str) -> str:
        """What messages call a file."""
        return f"{self.root}/{file}"

    def check(self) -> None:
        """Raises InputError: nothing here reads such an address, or the folder is not there."""
        if self.is_remote:
            self._file_system()
        elif not os.path.isdir(self.root):
            raise InputError(f"dataset.root: {self.root}: no such folder; give the one that holds manifest.csv and the shards")

    def sizes(self, files: list[str]) -> list[int]:
        """Bytes of each.

        Raises:
            InputError: one is not there, is refused, or is no file; or the server does not say how long it is.
            StorageError: the server gives no answer.
        """
        with ThreadPoolExecutor(_CONNECTIONS if self.is_remote else 1) as pool:
            return list(pool.map(self._size, files))

    def blocks(self, file: str, offset: int, length: int, size: int) -> Iterator[bytes]:
        """The bytes from `offset` on, `length` of them in all; at most 8 MiB at once.

        Args:
            size: of the file.

        Raises:
            StorageError: they do not come.
        """
        for start in range(offset, offset + length, BLOCK_BYTES):
            yield self._block(file, start, min(BLOCK_BYTES, offset + length - start), size)

    def _block(self, file: str, start: int, length: int, size: int) -> bytes:
        if not self.is_remote:
            try:
                with open(self.name(file), "rb") as opened:
                    opened.seek(start)
                    return _of_length(opened.read(length), length)
            except OSError as error:
                raise StorageError(f"{self.name(file)}: cannot be read: {error.strerror or error}") from None
        try:
            return self._tried(file, lambda: _of_length(self._range(file, start, length, size), length))
        except _Refused as refusal:
            raise StorageError(f"{self.name(file)}: cannot be read: {refusal}") from None

    def _range(self, file: str, start: int, length: int, size: int) -> bytes:
        files, place = self._file_system(), self.name(file)
        if "http" not in files.protocol:
            return files.cat_file(place, start=start, end=start + length)
        # Not cat_file: from a server that knows no ranges it would take the whole file into memory.
        with files.open(place, "rb", block_size=length, cache_type="none", size=size) as opened:
            opened.seek(start)
            try:
                return opened.read(length)
            except ValueError:
                raise _Refused("the server gives no parts of files (HTTP ranges); take another, or copy the shards") from None

    def _size(self, file: str) -> int:
        if not self.is_remote:
            try:
                found = os.stat(self.name(file))
            except OSError as error:
                raise InputError(f"{self.name(file)}: cannot be read: {error.strerror}; bring it back") from None
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{self.name(file)}: is no file; bring it back")
            return found.st_size
        try:
            size = self._tried(file, lambda: self._file_system().info(self.name(file)).get("size"))
        except _Refused as refusal:
            raise InputError(f"{self.name(file)}: {refusal}; correct dataset.root, or the rights to it") from None
        if not is_count(size):
            raise InputError(f"{self.name(file)}: the server does not say how long it is; take another server, or copy the files")
        return size

    def _file_system(self) -> Any:
        import fsspec  # only for addresses; it keeps one for each process

        scheme = urlsplit(self.root).scheme.lower()
        options = dict(self._options)
        if scheme in ("http", "https"):
            # What is compressed would be expanded in memory, however long it is.
            client = {"auto_decompress": False, "headers": {"Accept-Encoding": "identity"}}
            options["client_kwargs"] = {**client, **(options.get("client_kwargs") or {})}
        try:
            return fsspec.filesystem(scheme, **options)
        except ImportError as error:
            remedy = "pip install 'videogn[shards]'" if scheme in _IN_EXTRA else "install what it names with pip"
            raise InputError(f"dataset.root: {self.root}: {_in_a_line(error)}: {remedy}") from None
        except (ValueError, TypeError) as error:  # no such scheme, or option
            raise InputError(f"dataset.root: {self.root}: {_in_a_line(error)}; correct it or dataset.storage_options") from None

    def _tried(self, file: str, ask: Callable[[], _Answer]) -> _Answer:
        """The answer, of the first time or a later one; raises _Refused, or StorageError once none is left."""
        began, reason = time.monotonic(), ""
        for attempt in range(self._num_retries + 1):
            try:
                return _within(self._timeout_seconds, ask)
            except (InputError, _Refused):
                raise
            except Exception as error:
                if (refusal := _refusal(error)) is not None:
                    raise _Refused(refusal) from None
                reason = _in_a_line(error)
            if attempt < self._num_retries:
                time.sleep(min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS))
        tries = f"{self._num_retries + 1} tries in {time.monotonic() - began:.0f} s" if self._num_retries else "the only try"
        raise StorageError(
            f"{self.name(file)}: cannot be read: {reason} ({tries}; dataset.num_retries, dataset.timeout_seconds); no video "
            "is at fault: once it can be read again, go on with the same command, or, once a checkpoint is there, videogn train "
            "resume=RUN"
        )


class _Refused(Exception):
    """It is not there, or not for us."""


def is_address(root: str) -> bool:
    return _ADDRESS.match(root) is not None


def place_of(root: str) -> str:
    """A folder as it is known from everywhere; an address is that already."""
    return root if is_address(root) else os.path.abspath(root)


def _check_address(root: str) -> None:
    try:
        parts = urlsplit(root)
        _ = parts.port
    except ValueError:
        raise InputError(f"dataset.root: {root.partition('://')[0]}://...: is no address; correct its host and port") from None
    if ("@" in parts.netloc and parts.scheme.lower() not in _CONTAINER_AT_ACCOUNT) or parts.password:
        what = "a user or password"
    elif "?" in root or "#" in root:
        what = "a query (as signed ones have)"
    else:
        return
    raise InputError(
        f"dataset.root: {_without_secrets(root)}: an address with {what} would be stored with the run; give the plain one, and "
        "secrets to fsspec by the environment (AWS_ACCESS_KEY_ID, ...) or its own configuration, ~/.config/fsspec"
    )


def _secret_options(options: Any, place: str = "") -> Iterator[str]:
    """Names of options that are secrets, at any depth."""
    if isinstance(options, Mapping):
        for name, value in options.items():
            inside = f"{place}.{name}".lstrip(".")
            if _SECRET.search(str(name)) and value not in (None, True, False):
                yield inside
            else:
                yield from _secret_options(value, inside)
    elif isinstance(options, list):
        for value in options:
            yield from _secret_options(value, place)
    elif isinstance(options, str) and is_address(options) and _without_secrets(options) != options:
        yield place


def _without_secrets(text: str) -> str:
    text = re.sub(r"//[^/\s?#]*@", "//...@", text)
    return re.sub(r"[?#][^\s'\")]*", "?...", text)


def _within(seconds: float, ask: Callable[[], _Answer]) -> _Answer:
    """The answer; raises TimeoutError where none comes. File systems have deadlines of their own, each others, some none."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()  # one that is never answered keeps no process from its end
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return answer


def _of_length(content: bytes, length: int) -> bytes:
    if len(content) != length:
        raise OSError(f"{len(content):,} bytes came, and {length:,} were asked for")
    return content


def _refusal(error: BaseException) -> str | None:
    """Why asking again is of no use; None where it may be."""
    status = _status(error)
    if status is not None:
        return f"the server refuses it (HTTP status {status})" if status in _REFUSALS else None
    if isinstance(error, PermissionError):
        return "the server refuses it (no permission)"
    if isinstance(error, FileNotFoundError) and error.__cause__ is None:  # with one, HTTP got no answer at all
        return "no such file"
    if isinstance(error, ValueError | NotImplementedError):
        return _in_a_line(error)
    if type(error).__name__ == "NoCredentialsError":  # botocore's
        return f"{_in_a_line(error)}; for a public bucket give dataset.storage_options={{anon: true}}"
    return None


def _status(error: BaseException | None) -> int | None:
    """Of HTTP, wherever in the chain of errors it stands."""
    while error is not None:
        status = getattr(error, "status", None)
        if status is None and isinstance(response := getattr(error, "response", None), Mapping):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _in_a_line(error: BaseException) -> str:
    status = _status(error)
    if status is not None:
        return f"HTTP status {status}"
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None:
        return _in_a_line(cause)
    return _without_secrets(" ".join(str(error).split()) or type(error).__name__)
