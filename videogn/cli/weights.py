"""The group `weight` of a configuration: what a network starts from, and what of it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from videogn.configuration import instantiate
from videogn.training.fine_tuning import FineTuning
from videogn.types import InputError
from videogn.weight.report import LoadReport

_FINE_TUNING = ("freeze", "layer_decay", "head_lr_factor")


def start_from(
    config: DictConfig | None, network: nn.Module, classes: Sequence[str], resumes: bool
) -> tuple[FineTuning, LoadReport | None]:
    """Load the weights that `weight` names into the network; not into one whose checkpoint comes next.

    Raises:
        InputError: whatever is wrong with the file or the values; the network is as it was.
    """
    values: Any = OmegaConf.to_container(config, resolve=True) if config is not None else {}
    fine_tuning = FineTuning(**{key: values.pop(key) for key in _FINE_TUNING if key in values})
    if resumes or values.get("_target_") is None:
        return fine_tuning, None
    source = instantiate(values)
    path = source.resolve()
    try:
        return fine_tuning, source.load(path, network, classes)
    except InputError as error:
        if values.get("path") is not None or _is_readable(source, path):
            raise
        raise InputError(f"{error}. It was fetched: remove it, and the same command fetches it again") from error


def _is_readable(source: Any, path: Path) -> bool:
    try:
        source.read(path)
    except InputError:
        return False
    return True
