"""Videos in one folder per class, with or without folders for the splits above them."""

from __future__ import annotations

from pathlib import Path

from videogn.dataset.manifest import VIDEO_SUFFIXES, Entry, Manifest, read_classes, validated
from videogn.dataset.split import read_groups, split_groups
from videogn.types import InputError

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


class ClassFolder:
    """`root/CLASS/**/video`, or `root/SPLIT/CLASS/**/video` where folders train, val or validation, test lie under the root.

    Without split folders the videos are divided 70/15/15 by group, stratified by label. Without a test folder the val videos
    are tested on; without a val folder a fifth of the training groups become val.

    Args:
        root: the folder.
        groups: CSV with the columns path (relative to root) and a group (source, person, place); a group stays in one split.
        group_by: the group's column; by default the only one that is not path, label or split.
        split_seed: seed of the division; the training seed never changes it.
        classes: file with the class names, one a line; by default the folders, sorted.
        flip: probability that a training clip is mirrored.
    """

    def __init__(
        self,
        root: str,
        groups: str | None,
        group_by: str | None,
        split_seed: int,
        classes: str | None,
        flip: float,
    ) -> None:
        self.name = Path(root).resolve().name
        self.flip = flip
        self._root = Path(root)
        self._groups = groups
        self._group_by = group_by
        self._split_seed = split_seed
        self._classes = classes

    def prepare(self) -> None:
        """Nothing to make: the videos are there already."""

    def manifest(self) -> Manifest:
        if not self._root.is_dir():
            raise InputError(f"dataset.root: {self._root}: no such folder; give the folder that holds one folder per class")
        top = _folders(self._root)
        split_folders = {folder: SPLIT_FOLDERS[folder.name] for folder in top if folder.name in SPLIT_FOLDERS}
        if split_folders and len(split_folders) < len(top):
            other = next(folder.name for folder in top if folder not in split_folders)
            raise InputError(
                f"dataset.root: {self._root}: {other!r} stands beside the split folder {next(iter(split_folders)).name!r}; "
                "under the root are either classes or splits (train, val or validation, test)"
            )
        found: list[tuple[str, str, str | None]] = []  # path, label, split
        for folder, split in split_folders.items():
            found += [(path, label, split) for path, label in self._class_videos(folder)]
        if not split_folders:
            found = [(path, label, None) for path, label in self._class_videos(self._root)]
        entries, notes = self._divide(found)
        classes = read_classes(self._classes) if self._classes is not None else None
        return validated(self._root, entries, classes, f"dataset.root: {self._root}", notes)

    def _class_videos(self, parent: Path) -> list[tuple[str, str]]:
        videos = []
        for folder in _folders(parent):
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
            if not paths:
                raise InputError(f"dataset.root: {folder}: a class folder without a video; add videos or remove the folder")
            videos += [(p.relative_to(self._root).as_posix(), folder.name) for p in paths]
        return videos

    def _divide(self, found: list[tuple[str, str, str | None]]) -> tuple[list[Entry], list[str]]:
        paths = [path for path, _, _ in found]
        labels = [label for _, label, _ in found]
        given = [split for _, _, split in found]
        group_of = read_groups(self._groups, self._group_by, paths) if self._groups is not None else None
        if None in given:
            kind = "group" if group_of is not None else "file"
            notes = [f"splits: 70/15/15 by {kind}, stratified by label, dataset.split_seed={self._split_seed}"]
            if group_of is None:
                notes.append("no dataset.groups: files of one recording may stand in two splits and flatter the score")
            groups = [group_of[p] for p in paths] if group_of is not None else paths
            splits = split_groups(groups, labels, self._split_seed)
        else:
            notes = [f"splits: the folders {', '.join(sorted({s for s in given if s is not None}))}"]
            splits = [s for s in given if s is not None]
            if "val" not in splits:
                rows = [i for i, s in enumerate(splits) if s == "train"]
                groups = [group_of[paths[i]] if group_of is not None else paths[i] for i in rows]
                drawn = split_groups(groups, [labels[i] for i in rows], self._split_seed, ("train", "val"), (0.8, 0.2))
                for i, split in zip(rows, drawn, strict=True):
                    splits[i] = split
                notes.append(f"no val folder: a fifth of train is val, dataset.split_seed={self._split_seed}")
        entries = [Entry(p, label, p, split) for p, label, split in zip(paths, labels, splits, strict=True)]
        return entries, notes


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
