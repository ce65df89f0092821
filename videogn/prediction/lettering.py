"""Text in pictures, in the scalable font that Pillow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import ImageFont


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    """Latin letters; others show as boxes. Where Pillow was built without FreeType, its small bitmap font."""
    return ImageFont.load_default(size)


def fitted(text: str, size: int, width: float) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels, without what no font draws."""
    letters = font(size)
    text = "".join(c if c.isprintable() else " " for c in text)  # half a surrogate is not
    if isinstance(letters, ImageFont.ImageFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    if letters.getlength(text) <= width:
        return text
    fits = 0
    for end in range(1, len(text)):
        if letters.getlength(text[:end] + "...") > width:
            break
        fits = end
    return text[:fits] + "..." if fits else ""
