"""A sample depends on (seed, epoch, video, clip): not on workers, ranks, order, or what else is in its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from videogn.dataset.clips import TrainingClips, TrainingLoader, collate
from videogn.dataset.manifest import Entry, Manifest
from videogn.sampler.batches import EpochBatches
from videogn.sampler.random_clip import RandomClip
from videogn.transform.appearance import RandomAppearance
from videogn.transform.augment import RandomResizedCrop
from videogn.transform.functional import to_input
from videogn.types import Batch, ClipKey, VideoError

MEAN, STD = [114.75] * 3, [57.375] * 3
NUM_VIDEOS = 8
Samples = dict[tuple[int, int], bytes]


class Noise:
    """A decoder of videos that are noise, from their names; one of them is dead."""

    name = "noise"

    def open(self, path: str | Path) -> NoiseVideo:
        if Path(path).name == "5":
            raise VideoError(path, "dead")
        return NoiseVideo(int(Path(path).name))


class NoiseVideo:
    num_frames, fps, height, width = 20, 25.0, 40, 48

    def __init__(self, seed: int) -> None:
        self.timestamps = np.arange(20.0)
        self._frames = np.random.default_rng(seed).integers(0, 256, (20, 40, 48, 3), np.uint8)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        return self._frames[list(indices)]

    def close(self) -> None: ...


def training_clips(seed: int = 7) -> TrainingClips:
    entries = tuple(Entry(str(i), "ab"[i % 2], str(i), "train") for i in range(NUM_VIDEOS))
    appearance = RandomAppearance(0.4, 0.4, 0.4, 0.1, num_ops=2, magnitude_std=0.5, erase_probability=0.5)
    transform = RandomResizedCrop(16, [0.3, 1.0], [0.75, 1.33], 0.5, appearance)
    return TrainingClips(Manifest(Path("/"), entries, ("a", "b")), Noise(), [(RandomClip(4, 3, True), transform)], seed)


def inputs(batch: Batch) -> torch.Tensor:
    return to_input(batch.clips, batch.flips, MEAN, STD, batch.appearance)


def samples(num_workers: int, batch_size: int = 4, rank: int = 0, num_ranks: int = 1, seed: int = 7) -> Samples:
    """What the network sees of each (epoch, video), over two epochs."""
    batches = EpochBatches(NUM_VIDEOS, batch_size, 0, rank=rank, num_ranks=num_ranks)
    loader = TrainingLoader(training_clips(seed), batches, num_workers=num_workers)
    found: Samples = {}
    for epoch in range(2):
        for batch in loader:
            if len(batch.clips):
                for video, sample in zip(batch.videos.tolist(), inputs(batch), strict=True):
                    found[epoch, video] = sample.numpy().tobytes()
    return found


@pytest.fixture(scope="module")
def reference() -> Samples:
    found = samples(0)
    assert len(found) == 2 * (NUM_VIDEOS - 1)
    assert len(set(found.values())) == len(found)
    return found


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(reference: Samples, num_workers: int) -> None:
    assert samples(num_workers) == reference


def test_batches_change_nothing(reference: Samples) -> None:
    assert samples(0, batch_size=1) == reference
    assert samples(0, batch_size=8) == reference


def test_ranks_change_nothing(reference: Samples) -> None:
    parts = [samples(0, batch_size=2, rank=rank, num_ranks=2) for rank in range(2)]
    assert not parts[0].keys() & parts[1].keys()
    assert parts[0] | parts[1] == reference


def test_another_seed_is_another_sample(reference: Samples) -> None:
    other = samples(0, seed=8)
    assert other.keys() == reference.keys()
    assert not set(other.values()) & set(reference.values())


def test_two_clips_of_one_batch_get_their_own() -> None:
    """The same frames twice in a batch come out differently, where torchvision's transforms share parameters."""
    clips = training_clips()
    first, second = clips[ClipKey(0, 1, 0)], clips[ClipKey(0, 1, 1)]
    batch = collate([first, second._replace(clips=first.clips, flips=first.flips)])
    ours = inputs(batch)
    assert not torch.equal(ours[0], ours[1])
    stacked = torch.stack([first.clips[0], first.clips[0]]).permute(0, 1, 4, 2, 3)
    for theirs in (v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomErasing(p=1.0)):
        shared = theirs(stacked)
        assert not torch.equal(shared, stacked)
        assert torch.equal(shared[0], shared[1])


def test_a_still_clip_stays_still() -> None:
    clips = training_clips()
    for epoch in range(20):
        batch = clips[ClipKey(epoch, 2, 0)]
        still = batch._replace(clips=batch.clips[:, :1].repeat(1, 4, 1, 1, 1))
        x = inputs(still)
        assert torch.equal(x, x[:, :, :1].expand_as(x))


def test_what_is_uncovered_or_erased_is_near_zero() -> None:
    """The mean, rounded to a pixel value: half a value, 0.5 / 57.375 of the deviation, from 0."""
    erased = torch.tensor([[[15.0, 2.0, 3.0, 6.0, 5.0]]])
    x = to_input(torch.full((1, 2, 12, 12, 3), 255, dtype=torch.uint8), torch.tensor([False]), MEAN, STD, erased)
    box = torch.zeros(12, 12, dtype=torch.bool)
    box[2:8, 3:8] = True
    assert x[..., box].abs().max() <= 0.5 / 57.375 + 1e-6
    assert x[..., ~box].min() > 2
