"""Words of a command line against Hydra's own parser."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from videogn.sweep.word import word_of

_plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)
)
_keys = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key not in ("null", "true", "false", "nan", "inf"))
_values = st.recursive(_plain, lambda one: st.lists(one, max_size=3) | st.dictionaries(_keys, one, max_size=3), max_leaves=6)


def read(word: str) -> Any:
    """What Hydra makes of KEY=word."""
    return OverridesParser.create().parse_override(f"key={word}").value()


@given(_values)
def test_hydra_reads_the_value_that_was_written(value: Any) -> None:
    assert read(word_of(value)) == value


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "null"),
        (True, "true"),
        (1e-3, "0.001"),
        ("0.001", "'0.001'"),
        ("1_000", "'1_000'"),
        ("True", "'True'"),
        ("16x112", "16x112"),
        ("vidéos/a.csv", "'vidéos/a.csv'"),
        ("a/b-c.mp4", "a/b-c.mp4"),
        ("with space", "'with space'"),
        ("it's", r"'it\'s'"),
        ("ends in \\", r"'ends in \\'"),
        ([1, "a,b"], "[1,'a,b']"),
        ({"T": [1, 2]}, "{T:[1,2]}"),
    ],
)
def test_words_as_a_person_would_write_them(value: Any, word: str) -> None:
    assert word_of(value) == word
