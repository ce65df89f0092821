"""What the formats share: their options, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from videogn.export.axes import AXES
from videogn.export.bundle import Bundle
from videogn.number import is_count, is_positive
from videogn.types import InputError

if TYPE_CHECKING:  # a process that only runs an artifact starts without torch
    import numpy as np
    from torch import Tensor, nn

# float32 sums in another order differ by about 1e-6 of the largest score in a network of 50 layers. 16 bits round a value by up
# to 2**-11 (fp16) and 2**-8 (bf16) of it; 40 of those are 50 layers of independent roundings, four to a layer, three times over.
MAX_LOSS = 0.05
# 8 bits differ by some hundredths of the largest score; beyond this share an artifact is broken, whatever it answers.
BROKEN = 0.5
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 0.16}


@dataclass(frozen=True)
class Source:
    """What is exported, and what it is proven with.

    Attributes:
        network: in evaluation mode, on the CPU.
        bundle: what the artifact carries.
        frames: real clips of split val, uint8 (N, T, H, W, 3).
        calibration: as many real clips of split train as asked for, uint8.
        validation: all of split val, one clip a video: frames and labels, part by part.
        weights: the network's state_dict.
        description: what builds the network around them: `config`, `classes`, `epoch`, `global_step`, `manifest_sha256`.
        result: result.json of the run; None where it has none.
        ways: how a process runs the network as it was trained: by name, the dotted name of a function and the file it opens.
    """

    network: nn.Module
    bundle: Bundle
    frames: Tensor
    calibration: Callable[[int], Tensor]
    validation: Callable[[], Iterator[tuple[Tensor, np.ndarray]]]
    weights: Mapping[str, Tensor]
    description: Mapping[str, Any]
    result: Mapping[str, Any] | None
    ways: Mapping[str, tuple[str, Path]]

    def normalized(self, frames: Tensor) -> Tensor:
        """uint8 clips (N, T, H, W, 3) as the network takes them, (N, 3, T, H, W)."""
        from videogn.transform.functional import normalized

        return normalized(frames, self.bundle.config["mean"], self.bundle.config["std"])


@dataclass(kw_only=True)
class Exporter:
    """A format: what it needs to write an artifact, and how far that may be from eager.

    Attributes:
        suffix: of the file; empty for a folder.
        runtime: its name.
        packages: of the runtime; the proof names their versions.
        opener: dotted name of `open_file(path, threads, trust)`, which gives a function from clips to scores in the runtime.

    Args:
        precision: of convolutions and linear layers; norms and scores stay in float32.
        num_clips: real clips that the proof compares.
        tolerance: the largest allowed difference of a score between the artifact and eager, as a share of the largest score;
            None: 1e-4 in fp32, 0.02 in fp16, 0.16 in bf16.
        latency: the ways beside the artifact's own whose time and memory are measured with it: eager, compile; None measures
            none.

    Raises:
        InputError: a value that none of them takes, or a library that is not installed.
    """

    precision: str
    num_clips: int
    tolerance: float | None
    latency: list[str] | None

    suffix: ClassVar[str]
    runtime = ""
    packages: ClassVar[tuple[str, ...]]
    opener: ClassVar[str]

    def __post_init__(self) -> None:
        if self.precision not in TOLERANCE:
            raise InputError(f"export.precision={self.precision}: use one of {', '.join(TOLERANCE)}")
        if not is_count(self.num_clips, 1):
            raise InputError(f"export.num_clips={self.num_clips}: give 1 or more; the proof needs clips")
        if self.tolerance is not None and not is_positive(self.tolerance):
            raise InputError(f"export.tolerance={self.tolerance}: give a share above 0, or null for that of the precision")
        unknown = [way for way in self.latency or () if way not in ("eager", "compile")]
        if unknown:
            raise InputError(f"export.latency: {unknown[0]}: use eager, compile, or null to measure nothing")

    @property
    def allowed(self) -> float:
        """Share of the largest score by which an artifact may differ."""
        if self.is_quantized:
            return BROKEN
        return TOLERANCE[self.precision] if self.tolerance is None else self.tolerance

    @property
    def allowed_loss(self) -> float:
        """Loss of top-1 on split val that 8 bits may cost."""
        return MAX_LOSS if self.tolerance is None else self.tolerance

    @property
    def free(self) -> Sequence[str]:
        """The axes of the input that take any size, of AXES: those that the proof tries at several."""
        return ("batch",)

    @property
    def fixed_batch(self) -> int | None:
        """Clips in every batch; None: any number."""
        return None

    @property
    def takes_frames(self) -> bool:
        """Whether the artifact takes uint8 clips (N, T, H, W, 3) in place of normalised ones (N, 3, T, H, W)."""
        return False

    @property
    def is_quantized(self) -> bool:
        """Whether it computes in 8 bits: judged by what it answers, and not by its scores."""
        return False

    def parts(self, path: Path) -> list[Path]:
        """The files of the artifact `path`."""
        return [path]

    def taken(self, source: Source, frames: Any) -> np.ndarray:
        """uint8 clips (N, T, H, W, 3) as the artifact takes them."""
        return (frames.contiguous() if self.takes_frames else source.normalized(frames)).numpy()

    def write(self, source: Source, path: Path) -> None:
        """Write the artifact, without its bundle; raises InputError where the format cannot hold the network."""
        raise NotImplementedError

    def seal(self, path: Path, bundle: Bundle) -> None:
        """Put the bundle, now with the proof, into the artifact that `write` made."""
        raise NotImplementedError


@dataclass(kw_only=True)
class GraphExporter(Exporter):
    """A format that holds the network as a graph of operators, and no Python.

    Args:
        dynamic: the axes of the input that stay free, of batch, time, height and width; the others are as in the test.
        batch_size: clips of a batch that is not free.
        include_preprocessing: the graph takes uint8 clips (N, T, H, W, 3) and normalises them itself.
        fold_batch_norm: batch norms become part of the convolution before them.
    """

    dynamic: list[str]
    batch_size: int
    include_preprocessing: bool
    fold_batch_norm: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.dynamic, list):
            raise InputError(f"export.dynamic={self.dynamic}: give a list, as export.dynamic=[batch,time]")
        for axis in self.dynamic:
            if axis not in AXES:
                raise InputError(f"export.dynamic: {axis}: use some of {', '.join(AXES)}, as export.dynamic=[batch,time]")
        if not is_count(self.batch_size, 1):
            raise InputError(f"export.batch_size={self.batch_size}: give 1 or more")
        if self.batch_size > 1 and "batch" in self.dynamic:
            raise InputError(
                f"export.batch_size={self.batch_size}: is of a fixed batch, and batch is in export.dynamic; leave one of them out"
            )

    @property
    def takes_frames(self) -> bool:
        return self.include_preprocessing

    @property
    def free(self) -> Sequence[str]:
        return self.dynamic

    @property
    def fixed_batch(self) -> int | None:
        return None if "batch" in self.dynamic else self.batch_size

    def program(self, source: Source, precision: str) -> Any:
        """The network as a torch.export.ExportedProgram, computing in `precision`; raises InputError."""
        from videogn.export.portable import Preprocessed, plain, portable

        network = plain(source.network)
        # Two clips where the batch is free: an exporter takes a batch of one for a constant.
        example = source.frames[:1].expand(self.fixed_batch or 2, -1, -1, -1, -1).contiguous()
        # And twice the size along a free axis: one that strides shrink to 1 would be taken for a constant too.
        example = example.repeat([2 if name in set(self.dynamic) - {"batch"} else 1 for name in (*AXES, "colour")])
        if self.include_preprocessing:
            config = source.bundle.config
            network = Preprocessed(network, config["mean"], config["std"])
        else:
            example = source.normalized(example)
        return portable(network, example, self.dynamic, precision, self.fold_batch_norm)
