from __future__ import annotations

from typing import Any

import pytest

from videogn.number import is_count, is_number, is_positive

NEITHER = [True, False, None, "1", float("nan"), float("inf"), -float("inf"), [1]]


@pytest.mark.parametrize("value", NEITHER, ids=str)
@pytest.mark.parametrize("test", [is_number, is_positive, is_count])
def test_what_is_no_number(test: Any, value: object) -> None:
    assert not test(value)


@pytest.mark.parametrize(
    ("value", "number", "positive", "count"),
    [
        (0, 1, 0, 1),
        (0.0, 1, 0, 0),
        (-1, 0, 0, 0),
        (5e-324, 1, 1, 0),
        (3, 1, 1, 1),
        (4, 0, 0, 0),
        (3.5, 0, 0, 0),
        (10**400, 0, 0, 0),
    ],
)
def test_limits_belong_to_them(value: Any, number: bool, positive: bool, count: bool) -> None:
    assert (is_number(value, high=3), is_positive(value, 3), is_count(value, 0, 3)) == (number, positive, count)
    assert is_count(2**63 - 1)
    assert not is_count(2**63)
    assert not is_number(2, 3)
