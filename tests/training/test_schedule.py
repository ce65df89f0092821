"""Each schedule against its formula at every step, warm-up included; and resumed at any step against not resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim import SGD

from videogn.configuration import CONF, instantiate
from videogn.training.schedule import WarmUp, describe_warmup
from videogn.types import InputError

LR, TOTAL = 0.4, 200
# Of the share of steps behind the warm-up that is over.
FORMULAS: dict[str, tuple[list[str], Callable[[float], float]]] = {
    "constant": ([], lambda x: 1.0),
    "cosine": (["schedule.final_factor=0.1"], lambda x: 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2),
    "polynomial": (["schedule.power=2"], lambda x: (1 - x) ** 2),
}
WARMUPS = {"none": ([], 0), "share": (["warmup.share=0.15"], 30), "epochs": (["warmup.epochs=2.5", "warmup.factor=0.25"], 50)}


def made(name: str, *overrides: str) -> tuple[SGD, Any]:
    """From its conf file, and the values of train.yaml that it takes."""
    train = OmegaConf.create(
        {"total_steps": TOTAL, "optimizer": {"lr": LR}, "warmup": OmegaConf.load(CONF / "train.yaml").warmup}
    )
    own = OmegaConf.create({"schedule": OmegaConf.load(CONF / "schedule" / f"{name}.yaml")})
    config: Any = OmegaConf.merge(train, own, OmegaConf.from_dotlist(["warmup.steps_per_epoch=20", *overrides]))
    # Two groups, as with norms that do not decay.
    optimizer = SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=LR)
    return optimizer, instantiate(config.schedule)(optimizer)


def rates(optimizer: SGD, schedule: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        one, other = (group["lr"] for group in optimizer.param_groups)
        assert one == other
        found.append(one)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", list(WARMUPS))
@pytest.mark.parametrize("name", list(FORMULAS))
def test_follows_its_formula(name: str, warmup: str) -> None:
    (overrides, formula), (words, before) = FORMULAS[name], WARMUPS[warmup]
    found = rates(*made(name, *overrides, *words), TOTAL)
    factor = 0.25 if warmup == "epochs" else 0.01
    expected = [LR * (factor + (1 - factor) * step / before) for step in range(before)]
    expected += [LR * formula((step - before) / (TOTAL - before)) for step in range(before, TOTAL)]
    # torch multiplies its way from step to step: two roundings of 2**-53 each.
    assert found == pytest.approx(expected, rel=2 * TOTAL * 2**-53, abs=LR * TOTAL * 2**-53)


def test_milestones_are_where_they_are_without_a_warm_up() -> None:
    found = rates(*made("multi_step", "schedule.milestones=[0.25,0.5]", "warmup.share=0.1"), TOTAL)
    assert found[:20] == pytest.approx([LR * (0.01 + 0.99 * step / 20) for step in range(20)])
    assert found[20:] == pytest.approx([LR] * 30 + [LR * 0.1] * 50 + [LR * 0.01] * 100)


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial", "multi_step"])
@pytest.mark.parametrize("stop", [1, 29, 30, 31, 120])
def test_resumed_equals_not_resumed(name: str, stop: int, tmp_path: Path) -> None:
    """To the last bit, from a file of plain data, in the warm-up, at its end and behind it."""
    optimizer, schedule = made(name, "warmup.share=0.15")
    whole = rates(*made(name, "warmup.share=0.15"), TOTAL)
    rates(optimizer, schedule, stop)
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "kept")
    kept = torch.load(tmp_path / "kept", weights_only=True)
    optimizer, schedule = made(name, "warmup.share=0.15")
    optimizer.load_state_dict(kept["optimizer"])
    schedule.load_state_dict(kept["schedule"])
    assert rates(optimizer, schedule, TOTAL - stop) == whole[stop:]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("cosine", ["warmup.share=1.0"], r"warmup.share=1.0; give a share of the steps, from 0 up and below 1"),
        ("cosine", ["warmup.epochs=-1"], r"warmup.epochs=-1; give a number of epochs, or null"),
        ("cosine", ["warmup.epochs=1", "warmup.share=0.1"], r"both say how long; leave one out"),
        ("cosine", ["warmup.factor=0"], r"warmup.factor=0; give a part of the lr, above 0 and to 1"),
        ("cosine", ["warmup.epochs=10"], r"a warm-up of 200 steps leaves none of 200; shorten warmup.epochs"),
        ("cosine", ["schedule.final_factor=2"], r"final_factor=2; give what is left of the lr at the end, 0 to 1"),
        ("polynomial", ["schedule.power=0"], r"power=0; give a number above 0"),
        ("multi_step", ["warmup.share=0.4"], r"milestones=0.375 lies within the warm-up of 80 steps; give a later one"),
    ],
)
def test_refuses(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        made(name, *overrides)


def test_the_line_about_it() -> None:
    _, schedule = made("cosine", "warmup.share=0.15")
    assert describe_warmup(WarmUp(0.15), schedule, TOTAL) == "warm-up: 30 of 200 steps, lr 0.004 to 0.4"
    assert describe_warmup(WarmUp(), schedule, TOTAL) == describe_warmup(None, schedule, TOTAL) == ""
    _, none = made("cosine", "warmup.share=0.001")
    assert describe_warmup(WarmUp(0.001), none, TOTAL) == ""
    _, own = made("one_cycle")
    with pytest.raises(InputError, match=r"warmup: OneCycleLR does not take one; use schedule=cosine, .* schedule.pct_start"):
        describe_warmup(WarmUp(0.15), own, TOTAL)
