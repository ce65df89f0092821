"""Which clip of which video comes when: the order of an epoch, and the place in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, count, islice

import numpy as np
from jaxtyping import Int64

from videogn.types import ClipKey, InputError


class EpochBatches:
    """Batches of (epoch, video, clip) keys for one process.

    An epoch holds as many draws as there are videos, in an order drawn from (seed, epoch) alone: every video once or, with
    `labels`, every class equally often, the videos of a class in turn. A draw is `clips_per_video` clips, one behind the other,
    so that a video is opened once for them. The epoch is cut into global batches of batch_size * num_ranks keys, of which rank r
    takes the r-th part, so the clips of a step are the same set for any number of ranks at the same global batch. The last,
    incomplete global batch is left out; another order leaves out other clips in the next epoch.

        5 videos, batch_size 2, 1 rank, order 3 0 4 1 2: the batches (3 0) and (4 1)
        2 videos, clips_per_video 2, batch_size 2, order 1 0: the batches (1 1), clips 0 and 1 of it, and (0 0)
        5 videos of the labels a a a a b, balanced: 2 or 3 draws of a, each of another video, and 3 or 2 of b
        5 videos of the kinds a b a b b, alike, batch_size 2: (a a) and (b b) in either order, the third b left out; or, where the
        b come first, (b b) and (b a), the second a left out

    The object is a place in the sequence of epochs: iterating goes from there to the epoch's end and starts the next epoch
    after it. `advance` is called by the loader for every batch that training has taken, so batches fetched ahead do not count.

    Args:
        num_videos: videos in the split.
        batch_size: clips per device and forward.
        seed: with the epoch, the source of the order.
        clips_per_video: repeated augmentation (Hoffer et al., arXiv:1901.09335).
        rank, num_ranks: this process among all.
        labels: the class of every video, to balance by; None takes the videos as they are.
        kinds: something of every video, such as its class or its source: a step is of one kind, but where those of an epoch run
            out and the next begin. None mixes them.
        first: only so many batches, the first of epoch 0, again in every epoch, with the same clips; None takes all.
        shapes: (epoch, batch) -> the shape of the batch's clips, and how many times `batch_size` it has. An epoch has as many
            batches all the same, and goes through the videos again and again. Without `kinds` and `first`. None: one shape.
    """

    def __init__(
        self,
        num_videos: int,
        batch_size: int,
        seed: int,
        clips_per_video: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
        labels: Int64[np.ndarray, " V"] | None = None,
        kinds: Int64[np.ndarray, " V"] | None = None,
        first: int | None = None,
        shapes: Callable[[int, int], tuple[int, int]] | None = None,
    ) -> None:
        assert shapes is None or (kinds is None and first is None)
        self._num_videos = num_videos
        self._batch_size = batch_size
        self._seed = seed
        self._clips_per_video = clips_per_video
        self._rank = rank
        self._num_ranks = num_ranks
        self._labels = labels
        self._kinds = kinds
        self._first = first
        self._shapes = shapes
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
        whole = self._num_videos * self._clips_per_video // (self._batch_size * self._num_ranks)
        return whole if self._first is None else min(whole, self._first)

    def __iter__(self) -> Iterator[list[ClipKey]]:
        if self.consumed == len(self):
            self.epoch, self.consumed = self.epoch + 1, 0
        if self._shapes is not None:
            yield from self._of_shapes(self._shapes)
            return
        keys = self._keys(Counter())
        for batch in range(self.consumed, len(self)):
            start = (batch * self._num_ranks + self._rank) * self._batch_size
            yield keys[start : start + self._batch_size]

    def _of_shapes(self, shapes: Callable[[int, int], tuple[int, int]]) -> Iterator[list[ClipKey]]:
        drawn: Counter[int] = Counter()
        keys = chain.from_iterable(self._keys(drawn, number) for number in count())
        for batch in range(len(self)):
            shape, times = shapes(self.epoch, batch)
            size = self._batch_size * times
            everywhere = list(islice(keys, size * self._num_ranks))
            if batch >= self.consumed:
                yield [key._replace(shape=shape) for key in everywhere[self._rank * size : (self._rank + 1) * size]]

    def advance(self) -> None:
        self.consumed += 1

    def state_dict(self) -> dict[str, int]:
        return {**self._shape(), "epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        for name, value in self._shape().items():
            if state.get(name, value) != value:  # one that was stored before there was such a number says nothing
                raise InputError(
                    f"resume: {name} was {state[name]} when the checkpoint was written and is {value} now; the same clips "
                    "cannot come in the same order: resume with the run's own data and batch size"
                )
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def _keys(self, drawn: Counter[int], again: int = 0) -> list[ClipKey]:
        """Those of the epoch, in its order; a video that is drawn again has the clips behind those of before.

        Args:
            drawn: how often each video was, in this epoch.
            again: how often the epoch has gone through the videos.
        """
        epoch = self.epoch if self._first is None else 0
        rng = np.random.default_rng([self._seed, epoch, again] if again else [self._seed, epoch])
        keys = []
        videos = rng.permutation(self._num_videos) if self._labels is None else _balanced(self._labels, rng)
        if self._kinds is not None:
            places = rng.permutation(self._kinds.max() + 1)[self._kinds[videos]]
            videos = videos[np.argsort(places, kind="stable")]
        for video in videos.tolist():
            first = drawn[video] * self._clips_per_video
            drawn[video] += 1
            keys += [ClipKey(epoch, video, first + clip) for clip in range(self._clips_per_video)]
        if self._kinds is not None:
            step = self._batch_size * self._num_ranks
            keys = [key for start in rng.permutation(len(self)).tolist() for key in keys[start * step : (start + 1) * step]]
        return keys

    def _shape(self) -> dict[str, int]:
        return {
            "num_videos": self._num_videos,
            "clips_per_video": self._clips_per_video,
            "global_batch_size": self._batch_size * self._num_ranks,
            "seed": self._seed,
            "class_balanced": int(self._labels is not None),
            "alike": int(self._kinds is not None),
            "multigrid": int(self._shapes is not None),
        }


def _balanced(labels: Int64[np.ndarray, " V"], rng: np.random.Generator) -> Int64[np.ndarray, " V"]:
    """As many draws as videos, equally many of each class."""
    classes = rng.permutation(np.unique(labels))
    draws = []
    for place, label in enumerate(classes):
        videos = np.flatnonzero(labels == label)
        quota = (len(labels) + len(classes) - 1 - place) // len(classes)
        rounds = [rng.permutation(videos) for _ in range(-(-quota // len(videos)))]
        draws.append(np.concatenate([*rounds, videos[:0]])[:quota])
    return rng.permutation(np.concatenate(draws))
