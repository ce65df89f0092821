"""videogn inspect, as a user calls it."""

from __future__ import annotations

import re
from collections.abc import Callable

import jaxtyping
import pytest

from videogn.cli import values
from videogn.cli.values import PRECISIONS
from videogn.model.recomputation import ACTIVATION_MEMORY
from videogn.report import memory


def test_shows_layers_and_sums(videogn: Callable) -> None:
    outcome = videogn("inspect", "model=r3d_18", "norm=group_norm", "clip_length=16", "crop_size=112")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["layer", "type", "output", "G", "C/G", "activation", "gamma", "decay", "parameters"]
    norms = [line.split() for line in lines if "GroupNorm" in line]
    assert len(norms) == 20
    # The last norm of each of 8 blocks starts at 0; groups of 2 to 16 channels; no norm decays.
    assert sum("0" in words for words in norms) == 8
    assert all("32" in words and "no" in words for words in norms)
    assert "…" not in outcome.out
    # torchvision's documentation gives 33,371,472 for R3D-18 with 400 classes, and 40.70 GMACs for 16 x 112 x 112.
    assert any(line.startswith("33,371,472 parameters; weight decay reaches 33,36") for line in lines)
    found = re.search(r"a clip of 3 x 16 x 112 x 112: ([\d.]+) GFLOPs", lines[-1])
    assert found
    assert float(found[1]) == pytest.approx(2 * 40.70, abs=0.02)  # 40.70 is rounded to two decimals, and doubled


def test_weight_decay_of_the_norms_is_a_switch(videogn: Callable) -> None:
    outcome = videogn("inspect", "norm_weight_decay=true", "clip_length=8", "crop_size=64")
    assert all(" yes " in line for line in outcome.out.splitlines() if "GroupNorm" in line)


def test_counts_what_is_kept_in_every_way(videogn: Callable) -> None:
    found = {}
    for precision in PRECISIONS:
        for activation_memory in ACTIVATION_MEMORY:
            words = [f"precision={precision}", f"activation_memory={activation_memory}"]
            last = videogn("inspect", "clip_length=8", "crop_size=112", *words).out.splitlines()[-1]
            kept = re.search(r"([\d.]+) MiB kept for the backward pass, (\S+), activation_memory=(\w+)", last)
            assert kept
            assert kept.groups()[1:] == (precision, activation_memory)
            found[precision, activation_memory] = float(kept[1])
    for precision in PRECISIONS:
        assert found[precision, "full"] > found[precision, "lean"] > found[precision, "minimal"] > 0
    assert found["bf16-mixed", "full"] < 0.6 * found["32-true", "full"]
    assert found["16-mixed", "full"] == found["bf16-mixed", "full"]


def test_the_words_are_those_of_what_counts_and_of_what_computes_again() -> None:
    assert tuple(memory.PRECISIONS) == values.PRECISIONS
    assert values.WORDS["activation_memory"] == ACTIVATION_MEMORY


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["precision=half"], r"precision=half: use one of 32-true, bf16-mixed, 16-mixed"),
        (["norm.num_groups=7"], r"num_groups=7 does not divide channels=32; use one of 1, 2, 4, 8, 16, 32"),
        (["model=i3d_r50", "clip_length=1"], r"ResNet3D: a clip of 1 x 224 x 224 .* is smaller than 7 x 5 x 5"),
        (["clip_length=0"], r"clip_length=0: give a whole number from 1 up"),
        (["clip_length=true"], r"clip_length=True: give a whole number from 1 up"),
        (["norm_weight_decay=maybe"], r"norm_weight_decay=maybe: give true or false"),
        (["norm.eps=${nan}"], r"norm\.eps: .*nan.*; correct what stands in"),
        (["crop_size=99999999999"], r"ResNet3D: a clip of .*; give another size"),
        (["crop_size=99999999999999999999"], r"crop_size=99999999999999999999: give a whole number"),
        (["num_classes=many"], r"num_classes=many: give a whole number from 1 up"),
        (["norm=none"], r"NoNorm: zero_init=True; .* set model\.zero_init=false"),
        (["modle=i3d_r50"], r"modle"),
        (["seed=1"], r"seed"),
    ],
)
def test_bad_input_is_one_line(videogn: Callable, overrides: list[str], message: str) -> None:
    assert re.search(message, videogn("inspect", *overrides).refusal())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["norm.num_groups=4.0"], r"GroupNorm: num_groups=4\.0; give a whole number or null"),
        (["norm.num_groups=true"], r"GroupNorm: num_groups=True; give a whole number or null"),
        (["norm.eps=abc"], r"GroupNorm: eps=abc; give a number"),
        (["norm.eps=-1"], r"GroupNorm: eps=-1; give a number above 0"),
        (["norm.backend=cuda"], r"GroupNorm: backend='cuda'; use one of reference, aten"),
        (["norm=batch_norm", "norm.momentum=abc"], r"BatchNorm: momentum=abc; give a number or null"),
        (["norm=batch_norm", "norm.precise_batches=2.5"], r"BatchNorm: precise_batches=2\.5; give a whole number"),
        (["norm=batch_renorm", "norm.warmup_steps=1.5"], r"BatchRenorm: warmup_steps=1\.5"),
        (["norm=batch_renorm", "norm.r_max=abc"], r"BatchRenorm: r_max=abc"),
    ],
)
def test_a_value_of_another_type_is_one_line(videogn: Callable, overrides: list[str], message: str) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # a user has no type checker between
    try:
        assert re.search(message, videogn("inspect", *overrides).refusal())
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
