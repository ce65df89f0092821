"""The LightningDataModule: loaders for the three splits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from types import FrameType

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader

from videogn.dataset.clips import TrainingClips, TrainingLoader, VideoViews, collate_protocols
from videogn.dataset.manifest import Manifest
from videogn.dataset.shared_memory import loader_bytes
from videogn.evaluation.protocol import Protocol
from videogn.types import Batch, Decoder, EpochSampler, InputError, Sampler, TrainingTransform

MAX_WORKERS = 1024  # as `videogn prepare`
# Exit status of a worker that cannot hand over a batch; a number that no other fault of a worker has.
CANNOT_HAND_OVER = 93


@dataclass(frozen=True)
class TrainingSource:
    """How training clips are drawn.

    Attributes:
        shapes: frames, window and appearance of a clip, for each shape of clips.
        batches: (rank, num_ranks) -> the order of the clips.
        seed: with a clip's key, the source of its randomness.
        first_batches: the same for clips of the first shape alone; None where there is no other.
    """

    shapes: Sequence[tuple[Sampler, TrainingTransform]]
    batches: Callable[[int, int], EpochSampler]
    seed: int
    first_batches: Callable[[int, int], EpochSampler] | None = None


class ClipData(pl.LightningDataModule):
    """Loaders over a manifest.

    Args:
        manifest: of all splits.
        decoder: opens the videos, in the workers.
        protocols: for testing, all from one decode of a video; a batch is a list of one Batch for each.
        validation: the protocol after each epoch.
        batch_size: views in a forward; testing puts as many whole videos into a batch, by the protocol of most views, and
            one where their shapes differ.
        num_workers: processes that decode, at most 1024; 0 decodes in the training process.
        training: needed for training only.
    """

    def __init__(
        self,
        manifest: Manifest,
        decoder: Decoder,
        protocols: Mapping[str, Protocol],
        validation: Protocol,
        batch_size: int,
        num_workers: int,
        training: TrainingSource | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= num_workers <= MAX_WORKERS:
            raise InputError(f"num_workers={num_workers}: give a whole number of processes from 0 to {MAX_WORKERS}")
        self.manifest = manifest
        # A set without a test split is tested on val.
        self.test_split = manifest.split("test") if any(e.split == "test" for e in manifest.entries) else manifest.split("val")
        self._decoder = decoder
        self._protocols = dict(protocols)
        self._validation = validation
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._training = training
        self.training_place: dict[str, int] | None = None  # where in the epochs a resumed training goes on

    def shared_memory_bytes(self) -> int:
        """What the batches of the loaders may take of /dev/shm at a time, on one device."""

        def of_view(sampler: Sampler, crop_size: int | None, short_side: int) -> int:
            # A whole frame is as large as its video is wide; 16:9 is what most are.
            pixels = crop_size**2 if crop_size is not None else short_side**2 * 16 // 9
            return sampler.clip_length * pixels * 3

        def of_ten_seconds(protocol: Protocol) -> int:
            # How long the videos are is not known before they are opened; those of Kinetics have 300 frames.
            timestamps = np.arange(300) / 30
            return len(protocol.sampler(timestamps, np.random.default_rng(0))) * protocol.transform.crops

        def of_batch(protocols: Sequence[Protocol]) -> int:
            of_video = sum(
                (p.num_views or of_ten_seconds(p)) * of_view(p.sampler, p.transform.crop_size, p.transform.short_side)
                for p in protocols
            )
            return self._videos_per_batch(protocols) * of_video

        protocols = tuple(self._protocols.values())
        # Training clips are as large as views are.
        everywhere = (*protocols, self._validation)
        training = self._batch_size * max(of_view(p.sampler, p.transform.crop_size, p.transform.short_side) for p in everywhere)
        return loader_bytes(max(training, of_batch(protocols), of_batch((self._validation,))), self._num_workers)

    def train_dataloader(self) -> TrainingLoader:
        batches = self._source.batches(*self._rank())
        if self.training_place is not None:
            batches.load_state_dict(self.training_place)
        return self._training_loader(batches)

    def first_training_batches(self) -> TrainingLoader:
        """The training's batches from its first epoch on, also in a training that is resumed later; of full clips."""
        return self._training_loader((self._source.first_batches or self._source.batches)(*self._rank()))

    @property
    def _source(self) -> TrainingSource:
        assert self._training is not None, "this data was made for testing"
        return self._training

    def _training_loader(self, batches: EpochSampler) -> TrainingLoader:
        clips = TrainingClips(self.manifest.split("train"), self._decoder, self._source.shapes, self._source.seed)
        return TrainingLoader(
            clips,
            batch_sampler=batches,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            worker_init_fn=_start_worker,
        )

    def val_dataloader(self) -> DataLoader[list[Batch]]:
        return self._views(self.manifest.split("val"), (self._validation,))

    def test_dataloader(self) -> DataLoader[list[Batch]]:
        return self._views(self.test_split, tuple(self._protocols.values()))

    def _videos_per_batch(self, protocols: Sequence[Protocol]) -> int:
        num_views = [protocol.num_views for protocol in protocols if protocol.num_views is not None]
        # Whole frames of two videos need not have one shape.
        if len(num_views) < len(protocols) or any(protocol.transform.crop_size is None for protocol in protocols):
            return 1
        return max(1, self._batch_size // max(num_views))

    def _views(self, split: Manifest, protocols: Sequence[Protocol]) -> DataLoader[list[Batch]]:
        views = VideoViews(split, self._decoder, [(protocol.sampler, protocol.transform) for protocol in protocols])
        videos = self._videos_per_batch(protocols)
        rows = [list(range(start, min(start + videos, len(split)))) for start in range(0, len(split), videos)]
        rank, num_ranks = self._rank()
        # Whole batches go to ranks: what is computed together does not depend on their number.
        return DataLoader(
            views,
            batch_sampler=rows[rank::num_ranks],
            num_workers=self._num_workers,
            collate_fn=collate_protocols,
            worker_init_fn=_start_worker,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the training process decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So does SIGTERM, where it is sent to a whole group of processes, as by `timeout` and systemd.
    signal.signal(signal.SIGTERM, _pass_once)
    # A batch for which /dev/shm has no room would be dropped, and training would wait for it for ever.
    setattr(Queue, "_on_queue_feeder_error", staticmethod(_cannot_hand_over))  # noqa: B010


def _pass_once(signum: int, frame: FrameType | None) -> None:
    """A second one ends the worker, as PyTorch and Python send to those that do not end by themselves."""
    signal.signal(signum, signal.SIG_DFL)


def _cannot_hand_over(error: Exception, batch: object) -> None:
    os._exit(CANNOT_HAND_OVER)
