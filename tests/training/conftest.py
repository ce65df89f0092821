"""A training in memory: a network of a few weights, batches without files, Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.decoder.pyav import PyAVDecoder
from videogn.evaluation.protocol import Protocol
from videogn.sampler.uniform_clips import UniformClips
from videogn.training.classifier import Optimization, VideoClassifier
from videogn.training.datamodule import ClipData
from videogn.training.quarantine import Quarantine
from videogn.training.quiet import quiet
from videogn.transform.views import Crops
from videogn.types import Batch

CLASSES = ("a", "b", "c")
PROTOCOL = Protocol(UniformClips(2, 1, 1), Crops(4, 4, 1))
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
CONSTANT = partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)


def batch(rows: Sequence[int], size: int = 4) -> Batch:
    """Clips of noise that their row alone decides."""
    clips = [torch.randint(0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(row)) for row in rows]
    videos = torch.tensor(list(rows))
    return Batch(torch.stack(clips).to(torch.uint8), videos % len(CLASSES), torch.zeros(len(rows), dtype=torch.bool), videos, [])


class Network(nn.Module):
    """A convolution, a norm, a linear layer, in the precision of the weights."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (1, 3, 3), bias=False)
        self.norm = norm
        self.head = nn.Linear(4, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x.to(self.head.weight.dtype)))).mean((2, 3, 4)))


class Memory(ClipData):
    """Batches that are there already; those of val are its videos in threes."""

    def __init__(self, train: Iterable[Batch]) -> None:
        split = [Entry(f"{row}.mp4", CLASSES[row % 3], str(row), "train" if row < 24 else "val") for row in range(30)]
        super().__init__(Manifest(Path(), split, CLASSES), PyAVDecoder(), {"one": PROTOCOL}, PROTOCOL, 4, 0)
        self._train = list(train)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self._train, batch_size=None)

    def val_dataloader(self) -> Any:
        views = [[batch(rows)] for rows in ((0, 1, 2), (3, 4, 5))]
        return torch.utils.data.DataLoader(views, batch_size=None)


@pytest.fixture
def memory(tmp_path: Path) -> SimpleNamespace:
    """`batch(rows)`; `network(norm)`, of the same weights every time; `classifier(network)`; `fit(classifier, batches)`."""
    quiet()

    def network(norm: nn.Module | None = None) -> Network:
        torch.manual_seed(0)
        return Network(nn.GroupNorm(2, 4) if norm is None else norm)

    def classifier(
        network: nn.Module,
        loss: nn.Module | None = None,
        optimizer: Callable[..., Any] = SGD,
        schedule: Callable[..., Any] = CONSTANT,
    ) -> VideoClassifier:
        quarantine = Quarantine(tmp_path / "quarantine.csv", Memory([]).manifest.split("train"), 1.0)
        chosen = Optimization(loss or nn.CrossEntropyLoss(), optimizer, schedule, False, 0, quarantine)
        return VideoClassifier(network, CLASSES, [127.5] * 3, [64.0] * 3, {"one": PROTOCOL}, PROTOCOL, 4, chosen)

    def fit(classifier: VideoClassifier, batches: Iterable[Batch], **options: Any) -> pl.Trainer:
        chosen: dict[str, Any] = {"max_epochs": 1, "logger": False, "limit_val_batches": 0, "num_sanity_val_steps": 0, **options}
        ckpt_path = chosen.pop("ckpt_path", None)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **chosen,
        )
        trainer.fit(classifier, datamodule=Memory(batches), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return SimpleNamespace(batch=batch, network=network, classifier=classifier, fit=fit)
