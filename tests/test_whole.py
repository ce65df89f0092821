"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogn.whole import whole


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with whole(target) as unfinished:
        unfinished.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"

    def half() -> None:
        with whole(target) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "x.txt"
    victim.write_text("precious")
    target.symlink_to(victim)
    (tmp_path / ".x.txt").symlink_to(victim)
    with whole(target) as unfinished:
        unfinished.write_text("new")
    assert victim.read_text() == "precious"
    assert target.read_text() == "new"
    assert not target.is_symlink()


def test_nobody_can_know_where_it_is_written(tmp_path: Path) -> None:
    """Who knows the name puts a link there."""
    victim, target = tmp_path / "victim", tmp_path / "x.txt"
    victim.write_text("precious")
    with whole(target) as unfinished:
        assert unfinished.parent != target.parent
        assert unfinished.parent.stat().st_mode & 0o777 == 0o700
        unfinished.write_text("one")
    unfinished.parent.mkdir()
    unfinished.symlink_to(victim)
    with whole(target) as again:
        again.write_text("two")
    assert again != unfinished
    assert (victim.read_text(), target.read_text()) == ("precious", "two")
