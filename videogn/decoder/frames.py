"""Reads folders of images as videos, through Pillow.

The images of a folder are its frames: those that the pattern matches, in the order of their numbers.

    img_{:05d}.jpg    img_00001.jpg, img_00002.jpg, ...: from the first number that is there. A missing number is an error, for
                      frames of a clip would no longer be evenly spaced
    *.jpg             every such file in natural order (1, 2, 10); nothing tells whether one is missing
    *                 every image file in natural order

A frame is what Pillow decodes, turned upright by its EXIF, as 8-bit RGB: grey is repeated, transparency is dropped, 16-bit
grey is scaled by 1/257. Colour profiles are not applied, as with videos.
"""

from __future__ import annotations

import re
import string
import struct
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from videogn.number import is_positive
from videogn.types import InputError, ShortRead, VideoError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
# What Pillow raises on damaged files, by format.
BROKEN = (OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, Image.DecompressionBombError)


class FramesDecoder:
    """Opens folders of images.

    Args:
        pattern: of the images' names, see the module.
        fps: frames per second, which images do not tell.
    """

    name = "frames"

    def __init__(self, pattern: str = "*", fps: float | int = 30.0) -> None:
        if not is_positive(fps):
            raise InputError(f"decoder=frames: fps={fps}; give frames per second above 0")
        self._pattern = pattern
        self._numbered = _numbered(pattern) if "{" in pattern else None
        self._fps = float(fps)

    def open(self, path: str | Path) -> FramesVideo:
        return FramesVideo(path, self._images(Path(path)), self._fps)

    def _images(self, folder: Path) -> list[Path]:
        """In order; raises VideoError where there are none or some are missing."""
        if not folder.is_dir():
            raise VideoError(folder, "no such folder of images")
        try:
            names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise VideoError(folder, f"cannot be read: {error.strerror}") from error
        if self._numbered is None:
            matching = [n for n in names if fnmatchcase(n, self._pattern) and Path(n).suffix.lower() in SUFFIXES]
            matching.sort(key=natural_order)
        else:
            found = [(int(match[1]), name) for name in names if (match := self._numbered.fullmatch(name))]
            numbers = {number for number, name in found if self._pattern.format(number) == name}
            missing = len(numbers) and max(numbers) - min(numbers) + 1 - len(numbers)
            if missing:
                first = next(n for n in range(min(numbers), max(numbers)) if n not in numbers)
                others = f", and {missing - 1} more" if missing > 1 else ""
                raise VideoError(folder, f"{self._pattern.format(first)} is missing{others}")
            matching = [self._pattern.format(number) for number in sorted(numbers)]
        if not matching:
            raise VideoError(folder, f"holds no image {self._pattern}")
        return [folder / name for name in matching]


class FramesVideo:
    """The images of a folder; see `videogn.types.Video`.

    Raises:
        VideoError: no image decodes.
    """

    def __init__(self, path: str | Path, images: list[Path], fps: float) -> None:
        self._path, self._images, self.fps = path, images, fps
        self.timestamps, self.num_frames = np.arange(len(images)) / fps, len(images)
        picture = next((picture for image in images if (picture := read(image)) is not None), None)
        if picture is None:
            raise VideoError(path, "no image decodes")
        self.height, self.width = picture.shape[:2]

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames at `indices`, in their order; each image is read once.

        Raises:
            ShortRead: an image does not decode. `timestamps` and `num_frames` now hold what does.
            VideoError: an image has another size than the first.
            IndexError: an index outside 0 .. num_frames - 1.
        """
        for index in indices:
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self._path}: frame {index} of a video of {self.num_frames}")
        out = np.empty((len(indices), self.height, self.width, 3), dtype=np.uint8)
        places = np.asarray(indices, dtype=np.int64)
        for index in np.unique(places):
            picture = read(self._images[index])
            if picture is None:
                self._recount()
            else:
                self._check_size(self._images[index], picture)
                out[places == index] = picture
        return out

    def close(self) -> None:
        """Nothing is open between two readings."""

    def _recount(self) -> None:
        good = []
        for place, image in enumerate(self._images):
            picture = read(image)
            if picture is not None:
                self._check_size(image, picture)
                good.append(place)
        if not good:
            raise VideoError(self._path, "no image decodes")
        promised = self.num_frames
        self._images = [self._images[place] for place in good]
        self.timestamps, self.num_frames = self.timestamps[good], len(good)
        raise ShortRead(self._path, f"{self.num_frames} images decode of the {promised} in the folder")

    def _check_size(self, image: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        height, width = picture.shape[:2]
        if (height, width) != (self.height, self.width):
            raise VideoError(self._path, f"{image.name} is {width}x{height}, others are {self.width}x{self.height}")


def read(path: Path) -> UInt8[np.ndarray, "H W 3"] | None:
    """An image as upright RGB; None where it does not decode."""
    try:
        if not path.is_file():  # a pipe would wait for somebody to write
            return None
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "I;16", "I;16B", "I;16L"):
                return _from_16_bits(np.asarray(upright).astype(np.int64))
            if upright.mode == "F":
                raise ValueError("floating point: which value is white is not known")
            if "transparency" in upright.info:  # or Pillow warns, and mixes the colour in for some modes
                upright = upright.convert("RGBA")
            return np.array(upright.convert("RGB"))
    except MemoryError:
        raise
    except BROKEN:
        return None


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key by which 2 comes before 10."""
    # Text and numbers take turns, so that like is compared with like.
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _from_16_bits(grey: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("32 bits: which value is white is not known")
    return ((grey + 128) // 257).astype(np.uint8)[..., None].repeat(3, axis=2)


def _numbered(pattern: str) -> re.Pattern[str]:
    """What the names look like that `pattern` gives to numbers."""
    try:
        parts = list(string.Formatter().parse(pattern))
        assert sum(field is not None for _, field, _, _ in parts) == 1
        assert "/" not in pattern
        assert pattern.format(7) != pattern.format(8)
    except (ValueError, AssertionError, LookupError) as error:
        raise InputError(
            f"decoder=frames: pattern={pattern!r} is no name with one number in it; examples: "
            "'img_{:05d}.jpg', '{}.png', '*.jpg'"
        ) from error
    return re.compile("".join(re.escape(text) + (r"0*(\d+)" if field is not None else "") for text, field, _, _ in parts))
