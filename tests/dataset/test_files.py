"""Files and folders are found through links, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videogn.dataset.files import files_below, folders, identities
from videogn.types import InputError


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def below(top: Path, *around: Path) -> list[str]:
    return [os.path.relpath(folder / name, top) for folder, names in files_below(top, around) for name in names]


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    make(tmp_path, "4.mp4", "5.mp4", "6.mp4", "one.mp4", "folder/x")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "4.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nothing.mp4")
    paths = ["link.mp4", "dangling.mp4", "folder", str(tmp_path / "5.mp4"), "./6.mp4", "folder/../one.mp4", "no/such/folder.mp4"]
    real = [str(tmp_path / name) for name in ("4.mp4", "folder", "5.mp4", "6.mp4", "one.mp4")]
    assert identities(tmp_path, paths) == [real[0], None, *real[1:], None]
    assert identities(tmp_path, ["folder/", "x" * 300, f"{'x' * 300}/4.mp4"]) == [real[1], None, None]
    assert "dangling.mp4" not in below(tmp_path)


@pytest.mark.usefixtures("at_once")
def test_each_folder_is_searched_once_and_by_its_own_name(tmp_path: Path) -> None:
    make(tmp_path, "real/deep/1.mp4", "other/2.mp4", ".hidden/3.mp4")
    (tmp_path / "alias").symlink_to(tmp_path / "real")  # before "real" in order
    for number in range(12):  # each a loop: all ways through them would be 12 factorial
        (tmp_path / f"loop{number}").symlink_to(tmp_path)
        (tmp_path / "real" / f"loop{number}").symlink_to(tmp_path / "other")
        (tmp_path / "other" / f"loop{number}").symlink_to(tmp_path / "real")
    assert below(tmp_path) == ["other/2.mp4", "real/deep/1.mp4"]


def test_a_link_to_where_the_search_began_is_no_folder(tmp_path: Path) -> None:
    top = make(tmp_path / "top", "a/1.mp4")
    (top / "loop").symlink_to(top)
    (top / "up").symlink_to(tmp_path)
    (top / "circle").symlink_to("circle")  # the system refuses to look at it
    assert [folder.name for folder in folders(top, [top, tmp_path])] == ["a"]
    (top / "a" / "up").symlink_to(tmp_path)
    make(tmp_path / "beside", "2.mp4")
    (top / "a" / "b").symlink_to(tmp_path / "beside")
    assert below(top / "a", top, tmp_path) == ["1.mp4", "b/2.mp4"]


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may be run by root, whom no mode stops."""
    make(tmp_path, "a/1.mp4", "b/2.mp4", "lost+found/x")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if os.path.basename(folder) in ("b", "lost+found"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"/b: cannot read the folder: Permission denied; correct the path or its permissions"):
        below(tmp_path)
