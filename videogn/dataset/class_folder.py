"""Videos in one folder per class, with or without folders for the splits above them."""

from __future__ import annotations

import os
from pathlib import Path

from videogn.dataset.columns import Entry
from videogn.dataset.files import files_below, first_names, folders
from videogn.dataset.manifest import VIDEO_SUFFIXES, Manifest, read_classes, validated
from videogn.dataset.split import check_apart, read_groups, split_groups
from videogn.types import InputError

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


class ClassFolder:
    """`root/CLASS/**/video`, or `root/SPLIT/CLASS/**/video` where folders train, val or validation, test lie under the root.

    Without split folders the videos are divided 70/15/15 by group, stratified by label. Without a test folder the val videos
    are tested on; without a val folder a fifth of the training groups become val. Train and TRAIN are train, and links are
    followed.

    Args:
        root: the folder.
        groups: CSV with the columns path (relative to root) and a group (source, person, place); a group stays in one split,
            and one that split folders tear apart is an error.
        group_by: the group's column; by default `group`, or the only one that is not path, label or split.
        split_seed: seed of the division; the training seed never changes it.
        classes: file with the class names, one a line; by default the folders, sorted.
        flip: probability that a training clip is mirrored; false is 0, true 0.5.
    """

    kind = "a video"  # what `videos` looks for, in messages

    def __init__(
        self,
        root: str,
        groups: str | None,
        group_by: str | None,
        split_seed: int,
        classes: str | None,
        flip: float | int,
    ) -> None:
        self.name = Path(root).resolve().name
        self.flip = flip
        self._root = Path(root)
        self._groups = groups
        self._group_by = group_by
        self._split_seed = split_seed
        self._classes = classes

    def manifest(self) -> Manifest:
        if not os.path.isdir(self._root):  # Path.is_dir raises for a name that is too long for a folder
            raise InputError(f"dataset.root: {self._root}: no such folder; give the folder that holds one folder per class")
        top = folders(self._root, self.around())
        split_folders = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in top if folder.name.lower() in SPLIT_FOLDERS}
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
        classes = read_classes(self._classes) if self._classes is not None else None
        if classes is not None:
            # Copies of public sets have riding_a_bike for "riding a bike".
            plain = {name.replace(" ", "_"): name for name in classes}
            found = [(path, label if label in classes else plain.get(label, label), split) for path, label, split in found]
        entries, notes = self._divide(found)
        return validated(self._root, entries, classes, f"dataset.root: {self._root}", notes)

    def videos(self, folder: Path) -> list[Path]:
        """Those of a class, in order."""
        found = (inside / name for inside, names in files_below(folder, self.around()) for name in names)
        return sorted(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES)

    def around(self) -> list[Path]:
        """The root and the folders that it lies in, which no link below it makes a class."""
        root = self._root.resolve()
        return [root, *root.parents]

    def _class_videos(self, parent: Path) -> list[tuple[str, str]]:
        videos = []
        for folder in folders(parent, self.around()):
            paths = self.videos(folder)
            if not paths:
                raise InputError(f"dataset.root: {folder}: a class folder without {self.kind}; add some or remove the folder")
            videos += [(p.relative_to(self._root).as_posix(), folder.name.strip()) for p in paths]
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
            groups = [group_of[p] for p in paths] if group_of is not None else first_names(self._root, paths)
            splits = split_groups(groups, labels, self._split_seed)
        else:
            notes = [f"splits: the folders {', '.join(sorted({s for s in given if s is not None}))}"]
            splits = [s for s in given if s is not None]
            if "val" not in splits:
                rows = [i for i, s in enumerate(splits) if s == "train"]
                files = first_names(self._root, paths)
                groups = [group_of[paths[i]] if group_of is not None else files[i] for i in rows]
                drawn = split_groups(groups, [labels[i] for i in rows], self._split_seed, ("train", "val"), (0.8, 0.2))
                for i, split in zip(rows, drawn, strict=True):
                    splits[i] = split
                notes.append(f"no val folder: a fifth of train is val, dataset.split_seed={self._split_seed}")
            if group_of is not None:
                check_apart([group_of[path] for path in paths], splits, paths, str(self._groups))
        named = [group_of[path] for path in paths] if group_of is not None else [""] * len(paths)
        entries = [Entry(p, label, p, split, 0, g) for p, label, split, g in zip(paths, labels, splits, named, strict=True)]
        return entries, notes
