"""The plain values of a configuration; everything else is checked by what is built from it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from omegaconf import DictConfig, ListConfig

from videogn.number import is_count, is_number, is_positive, is_rgb
from videogn.sweep.ledger import is_plain
from videogn.types import InputError

_LOWEST = {
    "batch_size": 1,
    "clip_length": 1,
    "frame_stride": 1,
    "crop_size": 1,
    "clips_per_video": 1,
    "num_workers": 0,
    "seed": 0,
}

_BYTES = {"": 1, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}

REHEARSALS = ("fast_dev_run", "overfit_batches")  # of the trainer

_COUNTS_OR_NULL = ("epochs", "base_batch_size", "base_steps", "total_steps")


# Of Lightning's names, those in which bytes are counted; a training may have 64 bits too.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
WORDS = {
    "activation_memory": ("full", "lean", "minimal"),
    "precision": PRECISIONS,
    "memory_format": (None, "auto", "contiguous", "channels_last"),
}


def check_words(config: DictConfig) -> None:
    """Raises InputError: activation_memory, precision or memory_format is none of the words for it."""
    for key, known in WORDS.items():
        if key in config and config[key] not in known:
            raise InputError(f"{key}={config[key]}: use one of {', '.join(word or 'null' for word in known)}")


def check_counts(config: DictConfig, keys: Iterable[str]) -> None:
    """Raises InputError: a count that is none."""
    for key in keys:
        value, low = config[key], _LOWEST.get(key, 1)
        if not is_count(value, low):
            raise InputError(f"{key}={value}: give a whole number from {low} up")


def bytes_of(key: str, value: object) -> int:
    """24GB, 24GiB, 24576MiB or a number of bytes; raises InputError for what is none, or is more than a petabyte."""
    text = re.fullmatch(r"(\d+\.?\d*) *(|[MG]i?B)", value, re.IGNORECASE) if isinstance(value, str) else None
    size = float(text[1]) * _BYTES[text[2].upper()] if text else value
    if not is_number(size, high=1e15):
        raise InputError(f"{key}={value}: give a size as 24GB (10^9 bytes each), 24GiB (2^30), 24576MiB, or a number of bytes")
    return int(size)


def check_values(config: DictConfig) -> None:
    """Raises InputError: a count or rate that is none, a mean or std that is not one number a colour, no protocol."""
    _check_no_nan(config)
    check_counts(config, _LOWEST)
    check_words(config)
    fps = config.get("target_fps")
    if fps is not None and not is_positive(fps):
        raise InputError(f"target_fps={fps}: give frames per second, or null for each video's own")
    if not is_count(videos := config.get("report_videos", 0), 0):
        raise InputError(f"report_videos={videos}: give a whole number from 0 up")
    for key in ("class_balanced", "norm_weight_decay", "stop_when_diverged", "compile"):
        if not isinstance(config.get(key, False), bool):
            raise InputError(f"{key}={config[key]}: give true or false")
    composition = config.get("batch_composition", "mixed")
    if composition not in (known := ("mixed", "one_class", "one_group")):
        raise InputError(f"batch_composition={composition}: use one of {', '.join(known)}")
    check_counts(config, [key for key in _COUNTS_OR_NULL if config.get(key) is not None])
    _check_recipe(config)
    _check_trainer(config.get("trainer") or {})
    if not isinstance(config.get("out"), (str, NoneType)):
        raise InputError(f"out={config.out}: give a folder")
    name = config.get("sweep")
    if name is not None and (not isinstance(name, (str, int, float)) or isinstance(name, bool) or not is_plain(str(name))):
        raise InputError(f"sweep={name}: give the name of a folder under runs/sweep, or null")
    for key in ("appearance", "mixing", "multigrid", "warmup"):
        if not isinstance(config.get(key), (DictConfig, NoneType)):
            raise InputError(f"{key}={config[key]}: give null for none, or values of its keys, as --help shows them")
    if not config.get("evaluation"):
        raise InputError("evaluation: no protocol; give at least one, as evaluation=ten_clip")
    for name, protocol in config.evaluation.items():
        if not isinstance(protocol, DictConfig) or "_target_" not in protocol:
            raise InputError(f"evaluation.{name}: values of a protocol that is not chosen; choose it too, or leave them out")
    if "validation" in config and not isinstance(config.validation, DictConfig):
        raise InputError("validation: no protocol; give one, as evaluation@validation=one_clip")
    for key in ("mean", "std"):
        value = config[key]
        if not is_rgb(value, positive=key == "std"):
            rule = "three numbers" if key == "mean" else "three numbers above 0"
            raise InputError(f"{key}={value}: give {rule}, for R, G and B on the 0..255 scale, as {key}=[114.75,114.75,114.75]")


def _check_no_nan(config: DictConfig | ListConfig, place: str = "") -> None:
    """Raises InputError: nan, which is neither too small nor too large for anything."""
    for key, value in config.items_ex(resolve=False) if isinstance(config, DictConfig) else enumerate(config):
        name = f"{place}.{key}".lstrip(".")
        if isinstance(value, (DictConfig, ListConfig)):
            _check_no_nan(value, name)
        elif isinstance(value, float) and math.isnan(value):
            raise InputError(f"{name}={value}: give a number")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    """Raises InputError: what Lightning takes without a word, and what no network here computes in."""
    precision, clip, deterministic = (trainer.get(key) for key in ("precision", "gradient_clip_val", "deterministic"))
    if precision is not None and precision not in (known := (*PRECISIONS, "64-true")):
        raise InputError(f"trainer.precision={precision}: use one of {', '.join(known)}")
    if clip is not None and not is_number(clip):
        raise InputError(f"trainer.gradient_clip_val={clip}: give the largest norm or value of a gradient, or null")
    if deterministic not in (True, False, None, "warn"):
        raise InputError(f"trainer.deterministic={deterministic}: use true, false or warn")


def is_rehearsal(config: DictConfig) -> bool:
    """Whether a training is only tried, so that nothing of it may be taken for a result.

    Raises:
        InputError: so many batches are none, or both ways of it are wanted.
    """
    trainer = config.get("trainer") or {}
    for key in REHEARSALS:
        value = trainer.get(key, 0)
        if not (is_count(value, 0) or (key == "fast_dev_run" and isinstance(value, bool))):
            also = "true, or " if key == "fast_dev_run" else ""
            raise InputError(f"trainer.{key}={value}: give {also}a whole number of batches from 0 up")
    wanted = [key for key in REHEARSALS if trainer.get(key, 0)]
    if len(wanted) > 1:
        raise InputError("trainer.fast_dev_run and trainer.overfit_batches: two ways to rehearse; leave one out")
    return bool(wanted)


def _check_recipe(config: DictConfig) -> None:
    """Raises InputError: a recipe without the clips a step that it is stated for, or two lengths of the training, or none."""
    base, lr, steps = (config.get(f"base_{name}") for name in ("batch_size", "lr", "steps"))
    if lr is not None and not is_positive(lr):
        raise InputError(f"base_lr={lr}: give a number above 0, or null for optimizer.lr as it is")
    for key, value in (("base_lr", lr), ("base_steps", steps)):
        if base is None and value is not None:
            raise InputError(f"{key}={value}: stated for how many clips a step? give base_batch_size as well")
    if (config.get("epochs") is None) == (steps is None):
        given = f"epochs={config.get('epochs')} and base_steps={steps}"
        raise InputError(f"{given}: give one of them, and null for the other; both say how long to train")
