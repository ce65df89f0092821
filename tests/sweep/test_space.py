"""What a space may say, and its values as words of a command line, read back by Hydra's own parser."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from videogn.sweep.space import Choices, Range, examples, space_of
from videogn.types import InputError


def read(word: str) -> Any:
    """The value that Hydra makes of it."""
    return OverridesParser.create().parse_override(f"key={word}").value()


def one(**entry: Any) -> Range | Choices:
    return space_of({"base_lr": entry})["base_lr"]


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.floats(0, 1))
def test_a_word_of_a_log_range_is_its_value_to_4_digits(low: float, ratio: float, share: float) -> None:
    entry = one(low=low, high=low * ratio, log=True)
    value = low * ratio**share
    word = read(entry.word(value))  # pyright: ignore[reportArgumentType]
    assert low <= word <= low * ratio
    # Half a unit of the fourth digit of 1.000.
    assert word == pytest.approx(value, rel=5.01e-4)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.floats(0, 1))
def test_a_word_of_a_range_is_its_value_to_a_ten_thousandth_of_the_range(low: float, width: float, share: float) -> None:
    """Also far from zero, where four digits of the value would be one and the same."""
    high = low + width
    entry = one(low=low, high=high)
    value = min(low + share * width, high)
    word = read(entry.word(value))  # pyright: ignore[reportArgumentType]
    assert low <= word <= high
    assert abs(word - value) <= 1e-4 * width + 4 * math.ulp(max(abs(low), abs(high)))


def test_steps_and_whole_numbers_are_exact() -> None:
    steps = one(low=0.1, high=0.7, step=0.2)
    assert [steps.word(0.1 + k * 0.2) for k in range(4)] == ["0.1", "0.3", "0.5", "0.7"]  # pyright: ignore[reportArgumentType]
    assert one(low=1, high=10**6).word(123457) == "123457"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "value",
    [True, None, 3, -2.5, 1e-05, "group_norm", "a b", "it's, [odd]", "back\\", "", [64, 76], [[1, 2], ["a b", None]], {"a": 1}],
    ids=repr,
)
def test_a_choice_is_read_back_as_what_it_is(value: Any) -> None:
    entry = one(choices=[value, "another"])
    assert isinstance(entry, Choices)
    assert read(entry.words[0]) == value


def test_examples_have_every_combination_of_few_choices_and_both_ends() -> None:
    space = space_of({"norm": {"choices": ["a", "b"]}, "base_lr": {"low": 1, "high": 2}, "conv": {"choices": ["x", "y", "z"]}})
    found = [dict(word.split("=") for word in words) for words in examples(space)]
    assert {(words["norm"], words["conv"]) for words in found} == set(itertools.product("ab", "xyz"))
    assert {words["base_lr"] for words in found} == {"1", "2"}
    assert examples(space_of({"base_lr": {"low": 1, "high": 2}})) == [["base_lr=1"], ["base_lr=2"]]
    many = space_of({key: {"choices": list(range(5))} for key in ("a", "b", "c", "d")})
    assert len(examples(many)) == 5
    assert {word for words in examples(many) for word in words} == {f"{key}={n}" for key in "abcd" for n in range(5)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 1.0, "high": 1.0}, r"search.space.base_lr: low=1.0 and high=1.0; low must be below high"),
        ({"low": 2, "high": 1}, r"low=2 and high=1; low must be below high"),
        ({"low": "x", "high": 1}, r"low=x and high=1; give two numbers"),
        ({"low": math.nan, "high": 1}, r"low=nan and high=1; give two numbers"),
        ({"low": True, "high": 3}, r"low=True and high=3; give two numbers"),
        ({"low": 0, "high": 1, "log": True}, r"low=0 has no logarithm; give a low above 0, or log: false"),
        ({"low": 1, "high": 2, "log": "no"}, r"base_lr.log=no: give true or false"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, r"log and step=2; give one of them"),
        ({"low": 1, "high": 2, "step": 0}, r"base_lr.step=0: give a number above 0, or null"),
        ({"low": 0.1, "high": 1.0, "step": 0.4}, r"high=1.0 is not a whole number of steps of 0.4 above low=0.1; 0.9 is"),
        ({"low": 1}, r"base_lr={'low': 1}: give {low, high}, with log or step if wanted, or {choices}"),
        ({"low": 1, "high": 2, "lgo": True}, r"give {low, high}, with log or step if wanted, or {choices}"),
        ({"choices": [1]}, r"base_lr.choices=\[1\]: give a list of two values or more, each once"),
        ({"choices": [1, 2, 1]}, r"give a list of two values or more, each once"),
        ({"choices": "ab"}, r"base_lr.choices=ab: give a list"),
        (3, r"search.space.base_lr=3: give {low, high}"),
    ],
)
def test_what_is_no_range_and_no_choice(entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_of({"base_lr": entry})


@pytest.mark.parametrize("content", [None, {}, 3, ["base_lr"]])
def test_what_is_no_space(content: Any) -> None:
    with pytest.raises(InputError, match=r"search.space=.*: give KEY: {low: ..., high: ...} or KEY: {choices: \[...\]}"):
        space_of(content)


@pytest.mark.parametrize("key", ["num_workers", "trainer.devices", "sweep", "search.seed"])
def test_a_key_that_changes_nothing_is_not_searched(key: str) -> None:
    with pytest.raises(InputError, match=rf"search.space.{key}: does not change what a training computes; leave it out"):
        space_of({key: {"low": 0, "high": 1}})
