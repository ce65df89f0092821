"""The contracts between the rooms, and the legend of axes.

N clips, C channels, T frames, H height, W width, S positions (T, H, W of a clip), G groups, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # decoders import this module and must start without torch; kernels, where nothing but torch is installed
    import numpy as np
    from jaxtyping import Bool, Float32, Float64, Int64, UInt8
    from torch import Tensor


class InputError(ValueError):
    """A mistake of the caller's: the message says the place, what came, the rule and the remedy."""


class Findings(Exception):
    """The work is done and found something wrong (failed jobs, a failed proof): exit status 1."""


class StorageError(Findings):
    """Videos cannot be read for a fault of where they lie, such as a server that is down: none of them is damaged.

    No OSError, which who reads a damaged file takes for its fault.
    """


class OutOfMemory(Exception):
    """The device's memory did not suffice: for what, and what would."""


PARENT = "VIDEOGN_PARENT"  # the variable that names the process with which a command ends


class Stopped(BaseException):
    """A signal ended the work after what was done had been saved.

    No Exception, as KeyboardInterrupt is none: who reads a damaged file and catches whatever comes of it does not catch this.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(signum, message)
        self.signum = signum
        self.message = message

    def __str__(self) -> str:
        return self.message


class VideoError(Exception):
    """A video that cannot be read: its path and the reason, one line each."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)  # both as args, so that the error survives pickling between processes
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Declined(VideoError):
    """A video that this decoder would get wrong, by a stated rule; another decoder may read it."""


class OpenTimeout(VideoError):
    """A video on whose opening the decoder hangs: trying again costs the whole deadline again."""


class ShortRead(VideoError):
    """Fewer frames decode than the file promised. The video has recounted: draw the clip again from its timestamps."""


@runtime_checkable
class Video(Protocol):
    """An open video file.

    Attributes:
        timestamps: time of each decodable frame in seconds, increasing.
        num_frames: their number.
        fps: average frame rate in frames per second.
        height, width: size in pixels, upright.
    """

    timestamps: Float64[np.ndarray, " F"]
    num_frames: int
    fps: float
    height: int
    width: int

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames at `indices` (any order, repeats allowed); raises ShortRead or VideoError."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Decoder(Protocol):
    name: str

    def open(self, path: str | Path) -> Video:
        """Open a video file; raises VideoError, or Declined where this decoder would return wrong frames."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Chooses frames: a pure function of a video's timestamps and a random generator."""

    rule: str  # its name in a protocol
    short_video: str  # what becomes of a video shorter than the clip: `loop`, it starts again
    num_clips: int | None  # None: as many as the length of a video asks for
    clip_length: int
    frame_stride: int

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "views T"]: ...


class ClipKey(NamedTuple):
    """Names one training clip; every random choice about it derives from (seed, epoch, video, clip)."""

    epoch: int
    video: int  # row of the manifest's split
    clip: int  # of those of the video in the epoch
    shape: int = 0  # which of the training's shapes of clips; there is one, but in multigrid training


@runtime_checkable
class EpochSampler(Protocol):
    """The batches of an epoch, and the place of training among them."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def __iter__(self) -> Iterator[list[ClipKey]]:
        """From the place to the end of its epoch; from an end, the next epoch."""
        ...

    def advance(self) -> None:
        """Training has taken one batch more."""
        ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Window(NamedTuple):
    """A rectangle of the source frame, in pixels, and whether it is mirrored once it is a tensor."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


class DeadVideo(NamedTuple):
    """A video that could not be read, why, and how long it took to find out."""

    video: int  # row of the manifest's split
    path: str
    reason: str
    seconds: float = 0.0


class Batch(NamedTuple):
    """What a loader hands to a device. Frames stay uint8 and channels-last; the device flips, alters appearance, normalises and
    casts.

    Dead videos have no clip: a batch is smaller by theirs and may be empty (N = 0).
    """

    clips: UInt8[Tensor, "N T H W 3"]
    labels: Int64[Tensor, " N"]
    flips: Bool[Tensor, " N"]
    videos: Int64[Tensor, " N"]  # row of the manifest's split
    dead: list[DeadVideo]
    appearance: Float32[Tensor, "N M 5"] | None = None  # each clip's operations, of transform/appearance.py; None: none


@runtime_checkable
class TrainingTransform(Protocol):
    def draw(self, height: int, width: int, rng: np.random.Generator) -> Window:
        """The clip's window and mirroring, drawn from its key's generator."""
        ...

    def draw_appearance(self, rng: np.random.Generator) -> Float32[Tensor, "M 5"] | None:
        """The clip's operations, drawn after the window from the same generator: M is the same for every clip; None for none."""
        ...

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T h w 3"]: ...


@runtime_checkable
class ViewTransform(Protocol):
    crop_size: int | None  # pixels; None: the whole frame, whose shape is the video's own
    short_side: int  # pixels
    crops: int  # windows a clip

    def windows(self, height: int, width: int) -> list[Window]:
        """The windows of every clip of a video of this size."""
        ...

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T h w 3"]: ...
