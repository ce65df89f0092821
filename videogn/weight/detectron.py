"""Detectron's ImageNet models: R-50-GN.pkl, R-101-GN.pkl and their like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.weight import caffe2
from videogn.weight.source import WeightSource

# Its pixels are 0..255, less the mean; those of our recipe are divided by this as well.
_PIXEL_STD = 57.375


class Detectron(WeightSource):
    """Pickles of Caffe2 blobs, for ResNet3D; see WeightSource for the arguments.

    They were trained on B, G, R from 0 to 255: conv1 is turned round, and multiplied by the 57.375 that inputs here are divided
    by. R-50.pkl and R-101.pkl, from MSRA, have the stride in the first convolution of a block, and not in the second as here.

    Source: github.com/facebookresearch/Detectron, projects/GN and MODEL_ZOO.md.
    """

    layout = "Detectron"

    def read(self, path: Path) -> dict[str, Tensor]:
        return caffe2.read_blobs(path)

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        return caffe2.names(state)

    def convert(self, state: Mapping[str, Tensor], name: str, value: Tensor) -> tuple[Tensor, str]:
        if name == "trunk.conv1.weight" and value.ndim == 4 and value.shape[1] == 3:
            return value.flip(1) * _PIXEL_STD, f"B, G, R turned to R, G, B, and times {_PIXEL_STD}"
        return value, ""
