"""Statistics of batch norms from many batches at once, in place of their running averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from videogn.training.sharding import whole

Moments = list[Tensor]  # for each layer (1 + 2 C,): the number of values a channel, their means, their sums of squares about them


class PreciseStatistics(pl.Callback):
    """Gives norms that ask for it (`precise_batches` above 0) their precise statistics after each epoch's last step, and before
    each validation.

    The batches are the first of the training's first epoch (all of them where it has fewer), the same clips every time, and those
    of all ranks count together. Weights do not change, and training does not read these statistics. It stands before the callback
    that writes last.ckpt, which so holds what is tested. Ctrl-C waits until they are made.
    """

    def __init__(self) -> None:
        self._step = -1  # of the weights that the statistics belong to

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.is_last_batch:
            self._renew(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._renew(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._renew(trainer, pl_module)

    def _renew(self, trainer: pl.Trainer, classifier: Any) -> None:
        layers = [m for m in classifier.network.modules() if getattr(m, "precise_batches", 0) and not _is_frozen(m)]
        if not layers or self._step == trainer.global_step:
            return
        # What is drawn meanwhile (dropout before a norm) is the same in a resumed run; every step of training seeds anew.
        torch.manual_seed(classifier.optimization.seed + trainer.global_rank)
        loader = trainer.datamodule.first_training_batches()  # pyright: ignore[reportAttributeAccessIssue]
        batches = islice(loader, max(layer.precise_batches for layer in layers))
        inputs = (classifier.inputs(trainer.strategy.batch_to_device(batch)) for batch in batches if len(batch.clips))
        # One rank may have fewer batches with clips than another.
        with torch.no_grad(), trainer.precision_plugin.forward_context(), whole(classifier.network):
            own = moments(classifier.network, layers, inputs)
        ranks = classifier.all_gather(torch.cat(own)).reshape(trainer.world_size, -1)
        store(layers, [rank.split([len(part) for part in own]) for rank in ranks])
        self._step = trainer.global_step


def moments(network: nn.Module, layers: Sequence[Any], inputs: Iterable[Tensor]) -> Moments:
    """The moments of what each batch norm is given, over all inputs together:

        mean = sum_b n_b mean_b / n        M2 = sum_b (n_b var_b + n_b (mean_b - mean)^2)

    n_b values a channel in batch b, whose mean and biased variance normalize it, as in training. The mean of the batches'
    variances would miss the second term, which is the larger the smaller the batches are.

    Source: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576.

    Args:
        network: in any mode; mode and state are as before afterwards, the layers' running statistics excepted.
        layers: its torch batch norms.
        inputs: batches of any sizes, (N, C, T, H, W).
    """
    # fp32 at least: bf16 counts to 256.
    wide = [torch.promote_types(layer.running_mean.dtype, torch.float32) for layer in layers]
    found = [layer.running_mean.new_zeros(1 + 2 * layer.num_features, dtype=w) for layer, w in zip(layers, wide, strict=True)]

    def keep(index: int, layer: Any, x: Tensor) -> None:
        # With momentum 1 the running statistics are the batch's own; the variance is the unbiased one.
        count = found[index].new_full((1,), x.numel() // x.shape[1])
        batch = torch.cat([count, layer.running_mean, layer.running_var * (count - 1)])
        found[index] = merge(found[index], batch)

    with _observed(network, layers, keep):
        for x in inputs:
            network(x)
    return found


def merge(one: Float[Tensor, " moments"], other: Float[Tensor, " moments"]) -> Float[Tensor, " moments"]:
    """The moments of two sets of values together. Source: Chan, Golub & LeVeque 1979."""
    channels = len(one) // 2
    (n, mean, m2), (other_n, other_mean, other_m2) = one.split([1, channels, channels]), other.split([1, channels, channels])
    total = n + other_n
    share = other_n / total.clamp(min=1)  # of two empty sets, 0
    delta = other_mean - mean
    return torch.cat([total, mean + share * delta, m2 + other_m2 + share * n * delta.square()])


def store(layers: Sequence[Any], ranks: Sequence[Sequence[Tensor]]) -> None:
    """Write mean and unbiased variance over all ranks into the layers' running statistics; without a value, leave them."""
    for index, layer in enumerate(layers):
        total = ranks[0][index]
        for rank in ranks[1:]:
            total = merge(total, rank[index])
        count, mean, m2 = total.split([1, layer.num_features, layer.num_features])
        if count > 1:
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(m2 / (count - 1))


@contextmanager
def _observed(network: nn.Module, layers: Sequence[Any], keep: Callable[[int, Any, Tensor], None]) -> Iterator[None]:
    """`network` in training mode, its running statistics those of the latest batch, and `keep` called after each layer."""
    modes = {module: module.training for module in network.modules()}
    before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    for module in network.modules():
        module.training = not _is_frozen(module)
    handles = []
    for index, layer in enumerate(layers):
        layer.momentum = 1.0
        handles.append(layer.register_forward_hook(lambda module, x, y, index=index: keep(index, module, x[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, (momentum, num_batches) in zip(layers, before, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(num_batches)
        for module, mode in modes.items():
            module.training = mode


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
