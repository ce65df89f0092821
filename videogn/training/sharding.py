"""Weights, gradients and the optimiser's state divided among the processes: torch's FSDP2, by Lightning's strategy for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from videogn.training.classifier import VideoClassifier
from videogn.types import InputError


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy, with all processes along the one axis of data, and a checkpoint that is one whole file."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


class ShardedClassifier(VideoClassifier):
    """A VideoClassifier whose processes have a part of each weight each.

    In training they fetch the others' parts block by block, and so compute in step. In validation and test, where one may have
    more videos than another, each has all of them.
    """

    _is_sharded = False

    @property
    def waits_for_ranks(self) -> bool:
        return self.trainer.world_size > 1

    def configure_model(self) -> None:
        if not self._is_sharded:
            assert self.device_mesh is not None
            shard(self.network, self.device_mesh["data_parallel"])
            self._is_sharded = True
            self._whole = ExitStack()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._whole.enter_context(whole(self.network))

    def on_validation_epoch_end(self) -> None:
        self._whole.close()
        super().on_validation_epoch_end()

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._whole.enter_context(whole(self.network))

    def on_test_epoch_end(self) -> None:
        self._whole.close()
        super().on_test_epoch_end()


def shard(network: nn.Module, mesh: Any) -> None:
    """Divide each weight along a device mesh of one axis: residual block by block, and what is in none with the network."""
    for module in network.modules():
        if hasattr(module, "activation_memory"):  # a residual block
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


@contextmanager
def whole(network: nn.Module) -> Iterator[None]:
    """All weights in every process, which may compute on its own; one that is not divided stays as it is. All enter and leave."""
    parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.set_reshard_after_forward(True, recurse=False)
        part.reshard()


def check_sharding(strategy: Any, callbacks: list[Any]) -> None:
    """Raises InputError: what needs all weights in one process stands beside a strategy that divides them."""
    if isinstance(strategy, FullySharded) and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise InputError("callback=ema with trainer=fsdp: the average is of whole weights; leave one out")
