"""Videos as folders of images, in one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

from videogn.dataset.class_folder import ClassFolder
from videogn.dataset.files import files_below

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"])


class Frames(ClassFolder):
    """`root/CLASS/**/VIDEO/image`, or `root/SPLIT/CLASS/**/VIDEO/image`: every folder that holds an image is a video.

    Which images are its frames, in which order and at which rate says the decoder (conf/decoder/frames.yaml). See ClassFolder
    for the arguments.
    """

    kind = "a folder of images"

    def videos(self, folder: Path) -> list[Path]:
        found = (inside for inside, names in files_below(folder, self.around()) if any(map(is_image, names)))
        return sorted(path for path in found if path != folder)


def is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
