"""What went wrong in another library, as one line."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The first line that says something of the error at the bottom: above it, exporters say how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
