"""The root logger, which belongs to whoever calls us."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_alone() -> Iterator[None]:
    """Let the root logger say errors alone, and leave it as it was.

    ONNX Runtime gives advice through it on networks that need none; OpenVINO turns it down itself, and where it fails leaves it
    so, with a filter that drops records.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers
