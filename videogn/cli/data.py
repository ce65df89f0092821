"""The group `dataset` of a configuration: the data set, and what of it is used."""

from __future__ import annotations

import csv
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from jaxtyping import Int64
from omegaconf import DictConfig

from videogn.configuration import instantiate, prepared_dataset
from videogn.dataset.manifest import Manifest, without
from videogn.number import is_number
from videogn.types import Decoder, InputError


def read_data(config: DictConfig) -> tuple[Any, Manifest]:
    """The data set, made if need be, and its manifest less what `exclude` names.

    Raises:
        InputError: whatever is wrong with either.
    """
    dataset = prepared_dataset(config)
    manifest = dataset.manifest()
    exclude = config.get("exclude")
    if not isinstance(exclude, (str, NoneType)):
        raise InputError(f"dataset.exclude={exclude}; give a CSV file")
    return dataset, manifest if exclude is None else without(manifest, exclude)


def read_decoder(config: DictConfig, dataset: Any) -> Decoder:
    """What opens the videos of a data set: the group `decoder`, through the data set where they are no files of this machine."""
    decoder = instantiate(config)
    return dataset.reads_with(decoder) if hasattr(dataset, "reads_with") else decoder


def bad_fraction(config: DictConfig) -> float:
    """`max_bad_fraction`; one that was stored before there was such a key allows none.

    Raises:
        InputError: it is no share.
    """
    value = config.get("max_bad_fraction", 0.05)
    if not is_number(value, high=1):
        raise InputError(f"dataset.max_bad_fraction={value}; give a share of the training videos from 0 to 1")
    return float(value)


def write_missing(manifest: Manifest, folder: Path) -> None:
    """missing.csv: the videos of the data set whose files are not there."""
    if manifest.missing:
        with (folder / "missing.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split"))
            writer.writerows((entry.path, entry.label, entry.split) for entry in manifest.missing)


def kinds_of(videos: Manifest, composition: str) -> Int64[np.ndarray, " V"] | None:
    """What the videos of a batch have in common, of every video; None where batches are mixed."""
    if composition == "mixed":
        return None
    if composition == "one_class":
        return videos.targets()
    if any(not entry.group for entry in videos.entries):
        raise InputError(
            "batch_composition=one_group: the data have no groups; give them as dataset.groups=FILE or as column `group` of a "
            "manifest"
        )
    return np.unique([entry.group for entry in videos.entries], return_inverse=True)[1]
