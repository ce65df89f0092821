"""SyncBatchNorm on two processes against BatchNorm on the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from videogn.norm.sync_batch_norm import SyncBatchNorm

PARTS = (1, 3)  # clips a rank: not the same, so that the counts matter


def whole() -> tuple[torch.Tensor, torch.Tensor]:
    """All clips, far from zero, and an upstream gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(PARTS), 5, 2, 4, 4, generator=generator) * 2 + 100
    return x.requires_grad_(), torch.randn(x.shape, generator=generator)


def with_parameters(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    nn.init.normal_(layer.weight, generator=generator)  # type: ignore[arg-type]
    nn.init.normal_(layer.bias, generator=generator)  # type: ignore[arg-type]
    return layer


def run_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layer = with_parameters(SyncBatchNorm(5))
    x, upstream = whole()
    x, upstream = x.split(PARTS)[rank], upstream.split(PARTS)[rank]
    y = layer(x)
    gradients = torch.autograd.grad(y, [x, *layer.parameters()], upstream)
    evaluated = layer.eval()(x)
    torch.save([y, evaluated, *gradients, layer.running_mean, layer.running_var], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_normalize_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    layer = with_parameters(nn.BatchNorm3d(5))
    x, upstream = whole()
    y = layer(x)
    dx, dweight, dbias = torch.autograd.grad(y, [x, *layer.parameters()], upstream)
    evaluated = layer.eval()(x)
    eps = torch.finfo(torch.float32).eps
    # x - mean rounds by eps * 108, rstd is 0.5 and gamma up to ~2; the running variance is 1 at first, so rstd is ~1 there.
    atol = 4 * 108 * 2 * eps
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), y, atol=atol, rtol=0)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), evaluated, atol=4 * atol, rtol=0)
    # Sums of 128 terms: the square root of their number in those roundings. DDP adds the ranks' parameter gradients.
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), dx, atol=12 * atol, rtol=0)
    torch.testing.assert_close(parts[0][3] + parts[1][3], dweight, atol=12 * atol, rtol=0)
    torch.testing.assert_close(parts[0][4] + parts[1][4], dbias, atol=12 * atol, rtol=0)
    for part in parts:
        torch.testing.assert_close(part[5], layer.running_mean, atol=4 * 10 * eps, rtol=0)
        torch.testing.assert_close(part[6], layer.running_var, atol=4 * 10 * 10 * eps, rtol=0)


def train_rank(rank: int, folder: str) -> None:
    """As a training does: through DDP, and with a step in which rank 1 has no clip."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(with_parameters(SyncBatchNorm(5)))
    x, upstream = whole()
    num = (sum(PARTS), 0)[rank]
    y = model(x[:num])
    (y * upstream[:num]).sum().backward()
    torch.save([y.detach(), *(p.grad for p in model.parameters()), model.module.running_var], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_under_ddp_a_rank_may_have_no_clip(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_rank, (str(tmp_path),), nprocs=2)
    (full, *gradients, var), (empty, *others, other_var) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    layer = with_parameters(nn.BatchNorm3d(5))
    x, upstream = whole()
    y = layer(x)
    (y * upstream).sum().backward()
    atol = 4 * 108 * 2 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(full, y, atol=atol, rtol=0)
    assert len(empty) == 0
    for gradient, other, expected in zip(gradients, others, [layer.weight.grad, layer.bias.grad], strict=True):
        assert torch.equal(gradient, other)
        torch.testing.assert_close(2 * gradient, expected, atol=12 * atol, rtol=0)  # DDP takes the mean of the ranks
    assert torch.equal(var, other_var)


def test_one_process_of_a_group_is_batch_norm(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        x, _ = whole()
        torch.testing.assert_close(
            SyncBatchNorm(5)(x), nn.BatchNorm3d(5)(x), atol=4 * 108 * torch.finfo(torch.float32).eps, rtol=0
        )
    finally:
        torch.distributed.destroy_process_group()


def test_alone_it_is_batch_norm() -> None:
    ours, theirs = SyncBatchNorm(5), nn.BatchNorm3d(5)
    x, _ = whole()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    theirs.load_state_dict(ours.state_dict())
