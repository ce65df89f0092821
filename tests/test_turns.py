"""`--turn`: eight turns are all tests, whichever come between, and one that does not take turns runs in each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.mark.parametrize("turn", [0, 1, 0xFFFFFFF])
def test_eight_in_a_row_are_all(pytestconfig: pytest.Config, turn: int) -> None:
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parent / "conftest.py"))

    def ran(turn: int | None, numbers: range = range(300)) -> list[str]:
        items = [
            SimpleNamespace(nodeid=f"test_a.py::test[{n}]", get_closest_marker=lambda name, n=n: name == "turns" and n % 10 != 0)
            for n in numbers
        ]
        left: list[Any] = []
        hook = SimpleNamespace(pytest_deselected=lambda items: left.extend(items))
        conftest.leave_to_other_turns(SimpleNamespace(getoption=lambda name: turn, hook=hook), items)
        assert len(items) + len(left) == len(numbers)
        return [item.nodeid for item in items]

    assert len(ran(None)) == 300
    counts = Counter(name for one in range(turn, turn + 8) for name in ran(one))
    assert Counter(counts.values()) == {8: 30, 1: 270}
    assert all(15 < len(ran(one)) - 30 < 55 for one in range(turn, turn + 8))  # about an eighth
    assert ran(turn, range(100, 300)) == [name for name in ran(turn) if int(name.rpartition("[")[2][:-1]) >= 100]
