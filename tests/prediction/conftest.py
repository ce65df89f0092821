"""A classifier of colours, whose answers are known, and videos of known colours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.evaluation.protocol import Protocol
from videogn.prediction.classifier import Classifier
from videogn.prediction.score import ViewScorer
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.views import Crops
from videogn.types import Video

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


class ColourNetwork(nn.Module):
    """The scores are the mean red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv3d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.trunk.weight.copy_(torch.eye(3)[:, :, None, None, None])
            self.head.weight.copy_(2 * torch.eye(3))

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.trunk(clips).mean((2, 3, 4))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(clips))


class CountingDecoder:
    """PyAV; notes which frames are asked for, in one reading each, and by which thread."""

    name = "pyav"

    def __init__(self) -> None:
        self.readings: list[list[int]] = []
        self.threads: set[int] = set()
        self.num_open = 0
        self.closed_by: set[int] = set()

    def open(self, path: str | Path) -> Video:
        video = PyAVDecoder().open(path)
        frames, close = video.frames, video.close
        self.num_open += 1

        def counted(indices: Sequence[int]) -> np.ndarray:
            self.readings.append(list(indices))
            self.threads.add(threading.get_ident())
            return frames(indices)

        def closed() -> None:
            self.num_open -= 1
            self.closed_by.add(threading.get_ident())
            close()

        video.frames, video.close = counted, closed  # type: ignore[method-assign]
        return video


def colour_classifier(sampler: object = None, crops: object = None, batch_size: int = 4, **options: str) -> Classifier:
    protocol = Protocol(sampler or UniformClips(4, 2, 3), crops or Crops(16, 20, 1), **options)  # type: ignore[arg-type]
    scorer = ViewScorer(ColourNetwork().eval(), ([128.0] * 3, [64.0] * 3), batch_size, torch.device("cpu"))
    return Classifier(scorer, tuple(COLOURS), CountingDecoder(), protocol)


@pytest.fixture
def classifier() -> Classifier:
    return colour_classifier()


def coloured(*stretches: tuple[str, int], size: tuple[int, int] = (24, 32), seed: int = 0) -> Iterator[np.ndarray]:
    """Frames of these colours with noise, so that no two are alike."""
    rng = np.random.default_rng(seed)
    for name, count in stretches:
        for _ in range(count):
            noise = rng.integers(-15, 15, (*size, 3))
            yield np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, *stretches: tuple[str, int], fps: float = 10, size: tuple[int, int] = (24, 32)) -> str:
        write_video(tmp_path / name, coloured(*stretches, size=size), fps)
        return str(tmp_path / name)

    return write


@pytest.fixture
def write_variable(tmp_path: Path) -> Callable[..., str]:
    """A video whose frames come at these milliseconds."""

    def write(name: str, milliseconds: Sequence[int], *stretches: tuple[str, int]) -> str:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "18", "bf": "0"})
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for time, pixels in zip(milliseconds, coloured(*stretches), strict=True):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return str(tmp_path / name)

    return write
