"""video-nonlocal-net's models: I3D and C2D with the topology of the paper, trained on Kinetics-400."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from videogn.weight import caffe2
from videogn.weight.source import WeightSource


class NonlocalNet(WeightSource):
    """Pickles of Caffe2 blobs, for ResNet3D; see WeightSource for the arguments. Non-local blocks have no place here.

    Source: github.com/facebookresearch/video-nonlocal-net.
    """

    layout = "video-nonlocal-net"

    def read(self, path: Path) -> dict[str, Tensor]:
        return caffe2.read_blobs(path)

    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        return caffe2.names(state)

    def notes(self, state: Mapping[str, Tensor]) -> list[str]:
        if not any(name.startswith("nonlocal_") for name in state):
            return []
        return ["warning: the file's non-local blocks were left out: the model does not compute what that one does"]
