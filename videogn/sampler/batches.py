"""Which clip of which video comes when: the order of an epoch, and the place in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from videogn.types import ClipKey, InputError


class EpochBatches:
    """Batches of (epoch, video, clip) keys for one process.

    An epoch holds `clips_per_video` clips of every video, in an order drawn from (seed, epoch) alone. It is cut into global
    batches of batch_size * num_ranks keys, of which rank r takes the r-th part, so the clips of a step are the same set for
    any number of ranks at the same global batch. The last, incomplete global batch is left out; another order leaves out other
    clips in the next epoch.

        5 videos, batch_size 2, 1 rank, order 3 0 4 1 2: the batches (3 0) and (4 1)

    The object is a place in the sequence of epochs: iterating goes from there to the epoch's end and starts the next epoch
    after it. `advance` is called by the loader for every batch that training has taken, so batches fetched ahead do not count.

    Args:
        num_videos: videos in the split.
        batch_size: clips per device and forward.
        seed: with the epoch, the source of the order.
        clips_per_video: repeated augmentation.
        rank, num_ranks: this process among all.
    """

    def __init__(
        self, num_videos: int, batch_size: int, seed: int, clips_per_video: int = 1, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self._num_videos = num_videos
        self._batch_size = batch_size
        self._seed = seed
        self._clips_per_video = clips_per_video
        self._rank = rank
        self._num_ranks = num_ranks
        self.epoch = 0
        self.consumed = 0  # batches of this epoch that training has taken
        if len(self) == 0:
            devices = f" on {num_ranks} devices" if num_ranks > 1 else ""
            raise InputError(
                f"batch_size={batch_size}{devices} needs {batch_size * num_ranks} clips a step and an epoch has "
                f"{num_videos * clips_per_video}; lower batch_size or add videos"
            )

    def __len__(self) -> int:
        """Batches in an epoch, wherever in it this object stands."""
        return self._num_videos * self._clips_per_video // (self._batch_size * self._num_ranks)

    def __iter__(self) -> Iterator[list[ClipKey]]:
        if self.consumed == len(self):
            self.epoch, self.consumed = self.epoch + 1, 0
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._num_videos * self._clips_per_video)
        for batch in range(self.consumed, len(self)):
            start = (batch * self._num_ranks + self._rank) * self._batch_size
            rows = order[start : start + self._batch_size].tolist()
            yield [ClipKey(self.epoch, row // self._clips_per_video, row % self._clips_per_video) for row in rows]

    def advance(self) -> None:
        self.consumed += 1

    def state_dict(self) -> dict[str, int]:
        return {**self._shape(), "epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        for name, value in self._shape().items():
            if state[name] != value:
                raise InputError(
                    f"resume: {name} was {state[name]} when the checkpoint was written and is {value} now; the same clips "
                    "cannot come in the same order: resume with the run's own data and batch size"
                )
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def _shape(self) -> dict[str, int]:
        return {
            "num_videos": self._num_videos,
            "clips_per_video": self._clips_per_video,
            "global_batch_size": self._batch_size * self._num_ranks,
            "seed": self._seed,
        }
