"""Lists and tables as people keep them: UTF-8, with the mark that spreadsheets put before it or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videogn.types import InputError

_MAX_BYTES = 2**30  # ten million videos; a device such as /dev/zero has no end


def read_text(path: str | int | Path, what: str) -> str:
    """All of a file, with its line breaks as they are; names that are not UTF-8 as Python reads them from a disk.

    Args:
        path: a name that is a number arrives from the command line as one.
        what: the file is, in messages.
    """
    try:
        with Path(str(path)).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}; correct the path") from None
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: more than {_MAX_BYTES >> 20} MiB, which no {what} has; correct the path")
    return text_of(content, path, what)


def text_of(content: bytes, path: str | int | Path, what: str) -> str:
    """The same of the bytes of a file."""
    if b"\0" in content:
        kind = "is UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "holds zero bytes, as UTF-16 or no text does"
        raise InputError(f"{path}: the {what} {kind}; save it as UTF-8")
    return content.decode("utf-8-sig", "surrogateescape")


def read_lines(path: str | int | Path, what: str) -> list[str]:
    return lines_of(read_text(path, what))


def lines_of(text: str) -> list[str]:
    # Not splitlines: it also cuts a name at U+0085 or U+2028.
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def read_table(path: str | int | Path, what: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The columns of a CSV, and its rows, each with the number of the line where it begins.

    A short row is filled with ""; empty rows are passed over.

    Raises:
        InputError: the file cannot be read, is no CSV, or has a row with more fields than columns.
    """
    return table_of(read_text(path, what), path)


def table_of(text: str, path: str | int | Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The same of the text of a file."""
    rows = _rows(path, csv.reader(io.StringIO(text, newline=""), strict=True))
    return [name.strip() for name in next(rows, (1, []))[1]], rows


def _rows(path: str | int | Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    count, line = 0, 1
    try:
        for row in reader:
            if row:
                count = count or len(row)  # of the first, which names the columns
                if len(row) > count:
                    raise InputError(
                        f"{path} line {line}: {len(row)} fields for {count} columns; a field with a comma stands in quotes"
                    )
                yield line, row if len(row) == count else row + [""] * (count - len(row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path} line {line}: is no CSV: {error}; a field with a comma, a quote or a line break stands in quotes, each quote "
            "in it twice"
        ) from None


def label_fault(label: str) -> str | None:
    """Why a text, spaces around it removed, cannot name a class; None where it can. A class list has one a line."""
    if "\n" in label or "\r" in label:
        return "has a line break; a label is one line"
    try:
        label.encode()
    except UnicodeEncodeError:
        return "is not UTF-8; save the file, or name the folder, in UTF-8"
    return None if label else "is empty; give it a name"
