"""What a search varies: for every key of the configuration a range, or choices."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from videogn.identity import config_hash
from videogn.number import is_number
from videogn.sweep.word import word_of
from videogn.types import InputError

_OF_A_RANGE = ("low", "high", "log", "step")
_MOST_COMBINATIONS = 24  # to be composed before the first training: a quarter of a second each


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are, and `step` if there is one.

    Attributes:
        log: whether their logarithms are drawn evenly.
        step: from `low` up; None: any number, or any whole number.
    """

    low: int | float
    high: int | float
    log: bool
    step: int | float | None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def word(self, value: int | float) -> str:
        """The value on a command line, to 4 digits of what it varies by: nobody needs the other 12."""
        if self.is_whole:
            return str(value)
        if self.step is not None:
            short = float(f"{value:.10g}")  # 0.1 + 2 * 0.1 is 0.30000000000000004
        elif self.log:
            short = float(f"{value:.4g}")
        else:
            short = round(float(value), 4 - math.floor(math.log10(self.high - self.low)))
        return repr(min(max(short, float(self.low)), float(self.high)))

    def ends(self) -> tuple[str, str]:
        return self.word(self.low), self.word(self.high)


@dataclass(frozen=True)
class Choices:
    """Values of any kind, each as it stands on a command line."""

    words: tuple[str, ...]

    def word(self, value: str) -> str:
        return value


Space = dict[str, Range | Choices]


def space_of(content: Any) -> Space:
    """The space that a configuration states: KEY: {low, high, log, step} or KEY: {choices}.

    Raises:
        InputError: it is no space.
    """
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"search.space={content}: give KEY: {{low: ..., high: ...}} or KEY: {{choices: [...]}}, one key or more")
    return {str(key): _entry(str(key), entry) for key, entry in content.items()}


def description_of(space: Space) -> dict[str, Any]:
    """The space as plain data, by which a journal tells it from another."""
    return {
        key: {"choices": list(entry.words)}
        if isinstance(entry, Choices)
        else {"low": entry.low, "high": entry.high, "log": entry.log, "step": entry.step}
        for key, entry in space.items()
    }


def examples(space: Space) -> list[list[str]]:
    """Command lines in which every choice and every end of a range comes once or more.

    With every combination of the choices, where those are few: a choice may decide which other keys there are.
    """
    choices = [entry.words for entry in space.values() if isinstance(entry, Choices)]
    if (number := math.prod(map(len, choices))) <= _MOST_COMBINATIONS:
        combinations = list(itertools.product(*choices))
    else:
        number = max(map(len, choices))
        combinations = [tuple(words[n % len(words)] for words in choices) for n in range(number)]
    ends = [entry.ends() for entry in space.values() if isinstance(entry, Range)]
    found = []
    for n in range(max(number, 2 if ends else 1)):
        left_choices, left_ends = iter(combinations[n % len(combinations)]), iter(ends)
        found.append(
            [
                f"{key}={next(left_choices) if isinstance(entry, Choices) else next(left_ends)[n % 2]}"
                for key, entry in space.items()
            ]
        )
    return found


def _entry(key: str, entry: Any) -> Range | Choices:
    place = f"search.space.{key}"
    if config_hash({key: 0}) == config_hash({key: 1}):
        raise InputError(f"{place}: does not change what a training computes; leave it out")
    if isinstance(entry, Mapping) and set(entry) == {"choices"}:
        choices = entry["choices"]
        words = tuple(map(word_of, choices)) if isinstance(choices, Sequence) and not isinstance(choices, str) else ()
        if len(set(words)) < 2 or len(set(words)) < len(words):
            raise InputError(f"{place}.choices={choices}: give a list of two values or more, each once")
        return Choices(words)
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry) or not set(entry) <= set(_OF_A_RANGE):
        raise InputError(f"{place}={entry}: give {{low, high}}, with log or step if wanted, or {{choices}}")
    low, high, log, step = (entry.get(name) for name in _OF_A_RANGE)
    if not is_number(low, low=-sys.float_info.max) or not is_number(high, low=-sys.float_info.max):
        raise InputError(f"{place}: low={low} and high={high}; give two numbers")
    if low >= high:
        raise InputError(f"{place}: low={low} and high={high}; low must be below high")
    if not isinstance(log, bool | None):
        raise InputError(f"{place}.log={log}: give true or false")
    if log and low <= 0:
        raise InputError(f"{place}: low={low} has no logarithm; give a low above 0, or log: false")
    if step is not None:
        if log:
            raise InputError(f"{place}: log and step={step}; give one of them")
        if not is_number(step) or step <= 0:
            raise InputError(f"{place}.step={step}: give a number above 0, or null")
        if (rest := (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))) != 0:
            nearest = Decimal(str(high)) - rest
            raise InputError(f"{place}: high={high} is not a whole number of steps of {step} above low={low}; {nearest} is")
    return Range(low, high, bool(log), step)
