"""Values that are checked before anything is built."""

from __future__ import annotations

import pytest

from videogn.cli.values import check_values
from videogn.configuration import compose
from videogn.types import InputError


@pytest.mark.parametrize("words", [["~trainer.precision"], ["trainer.precision=null"], ["trainer.gradient_clip_val=0"]])
def test_what_a_trainer_leaves_to_lightning(words: list[str]) -> None:
    check_values(compose("train", words))


@pytest.mark.parametrize("key", ["optimizer.lr", "norm.eps", "train_short_side", "schedule.pct_start"])
def test_nan_is_refused_wherever_it_stands(key: str) -> None:
    value = "[64,nan]" if key == "train_short_side" else "nan"
    with pytest.raises(InputError, match=rf"{key}(\.1)?=nan: give a number"):
        check_values(compose("train", [f"++{key}={value}"]))
