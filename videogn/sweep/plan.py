"""What to train with on a device of so much memory: the largest batch, the norm, and the batches to accumulate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Clips below which statistics that they share cost accuracy. Wu & He 2018, arXiv:1803.08494: from 8 clips a device to 4, I3D on
# Kinetics falls from 73.3 to 72.1 under batch norm, from 73.0 to 72.8 under group norm (table 8); at 2 images a device the error
# on ImageNet is 34.7% and 24.1% (table 2).
FEW_CLIPS = 8


@dataclass(frozen=True)
class Room:
    """The memory of a device, and what is assumed of it beside tensors.

    Attributes:
        memory: bytes.
        reserve: bytes that are not for tensors.
        fragmentation: share of what the tensors take that is lost between them.
    """

    memory: int
    reserve: int
    fragmentation: float

    def needed(self, tensors: int) -> float:
        """Bytes of a device that holds so many of tensors: reserve + (1 + fragmentation) * tensors."""
        return self.reserve + (1 + self.fragmentation) * tensors

    def holds(self, tensors: int) -> bool:
        return self.needed(tensors) <= self.memory


@dataclass(frozen=True)
class Choice:
    """A norm and a clip length with the largest batch that fits.

    Attributes:
        clip_length: frames.
        batch_size: clips per device and forward; 0 where not even one fits.
        clips_together: clips over which the norm takes its statistics; None where each clip has its own.
    """

    clip_length: int
    norm: str
    batch_size: int
    clips_together: int | None

    @property
    def suffers(self) -> bool:
        """Whether the norm takes its statistics over too few clips."""
        return self.clips_together is not None and self.clips_together < FEW_CLIPS


def recommended(choices: Sequence[Choice]) -> Choice | None:
    """The first that fits and does not suffer."""
    return next((choice for choice in choices if choice.batch_size and not choice.suffers), None)


def largest_batch(holds: Callable[[int], bool], guess: int) -> int:
    """The largest n from 1 up for which `holds(n)`, or 0; every n below one that is held must be held.

    Asks twice where `guess` is right, and some more where it is near.
    """
    low, high, stride = 0, 0, 1  # low is held or 0; high is not, or 0 as long as that is not known
    n = max(1, guess)
    while high - low != 1:
        if holds(n):
            low = n
        else:
            high = n
        if not high:
            n, stride = low + stride, 2 * stride
        elif not low:
            n, stride = max(1, high - stride), 2 * stride
        else:
            n = (low + high) // 2
    return low


def accumulated_batches(clips: int, base_batch_size: int) -> int:
    """How many batches of `clips`, those of all devices, make a step of `base_batch_size` clips or more."""
    return -(-base_batch_size // clips)
