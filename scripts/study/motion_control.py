"""The control of the motion data: the network that learns it from moving clips learns nothing from one frame repeated.

    python scripts/study/motion_control.py      # four minutes on 2 cores

The same network is trained twice on the built-in data, on its clips and on clips of one frame each, and prints the top-1 of the
tested videos. Status 1 where one frame gives the class away, or the moving clips were not learned.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from videogn.configuration import compose, instantiate, prepared_dataset
from videogn.dataset.manifest import Manifest
from videogn.prediction.load import build_network
from videogn.training.parameter_groups import parameter_groups
from videogn.transform.functional import cut, to_input
from videogn.types import Window

NUM_TRAIN, NUM_TEST, EPOCHS, BATCH_SIZE = 60, 15, 12, 8  # videos per class, as in conf/dataset/motion.yaml; its run has 20 epochs
CHANCE = 0.1
Videos = list[tuple[np.ndarray, int]]


def decoded(manifest: Manifest, config: DictConfig) -> Videos:
    """Every video whole, so that decoding does not set the pace."""
    videos = []
    for row, target in enumerate(manifest.targets().tolist()):
        video = instantiate(config.decoder).open(manifest.path(row))
        videos.append((video.frames(range(video.num_frames)), target))
        video.close()
    return videos


def top1_after_training(train: Videos, test: Videos, config: DictConfig, still: bool) -> float:
    """Test top-1, ten clips a video, of the default network and optimiser after EPOCHS epochs."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    network = build_network(config, 10)
    optimizer = instantiate(config.optimizer)(parameter_groups(network, norm_weight_decay=False))
    steps = EPOCHS * (len(train) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.optimizer.lr, steps, pct_start=0.21, cycle_momentum=False)

    def clip(frames: np.ndarray, indices: np.ndarray, window: Window) -> torch.Tensor:
        return cut(frames[np.full_like(indices, indices[0]) if still else indices], window, (config.crop_size, config.crop_size))

    def inputs(clips: list[torch.Tensor]) -> torch.Tensor:
        return to_input(torch.stack(clips), torch.zeros(len(clips), dtype=torch.bool), config.mean, config.std)

    sampler, transform = instantiate(config.sampler), instantiate(config.transform)
    for _ in range(EPOCHS):
        order = rng.permutation(len(train))
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            chosen = [train[i] for i in order[start : start + BATCH_SIZE]]
            clips = [
                clip(frames, sampler(np.arange(float(len(frames))), rng)[0], transform.draw(*frames.shape[1:3], rng))
                for frames, _ in chosen
            ]
            loss = cross_entropy(network(inputs(clips)), torch.tensor([target for _, target in chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    protocol = instantiate(config.evaluation.ten_clip)
    right = 0
    with torch.inference_mode():
        for frames, target in test:
            (window,) = protocol.transform.windows(*frames.shape[1:3])
            clips = [clip(frames, indices, window) for indices in protocol.sampler(np.arange(float(len(frames))), rng)]
            right += int(network(inputs(clips)).softmax(1).mean(0).argmax()) == target
    return right / len(test)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        counts = [f"dataset.num_train={NUM_TRAIN}", "dataset.num_val=1", f"dataset.num_test={NUM_TEST}"]
        config = compose("train", [f"dataset.root={Path(folder) / 'motion'}", *counts])
        manifest = prepared_dataset(config.dataset).manifest()
        train, test = decoded(manifest.split("train"), config), decoded(manifest.split("test"), config)
    moving = top1_after_training(train, test, config, still=False)
    still = top1_after_training(train, test, config, still=True)
    # Guessing has a standard deviation of sqrt(0.1 * 0.9 / 150) = 2.4% over 150 videos; four of those above it.
    limit = CHANCE + 4 * (CHANCE * (1 - CHANCE) / len(test)) ** 0.5
    print(f"top-1 of {len(test)} videos: moving clips {moving:.1%}, one frame repeated {still:.1%} (chance: up to {limit:.1%})")
    # The same training on moving clips learns, so that the control says something about the data and not about the training.
    return 0 if still <= limit and moving >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
