"""Where the time of a training goes, by Lightning's profilers, as a file of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from videogn.types import InputError

PROFILERS: dict[str, type[Any]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
NAME = "profile"


def made_profiler(name: str | None, folder: Path) -> Profiler | None:
    """Of what Lightning's Trainer takes as a name, one that writes fit-profile.txt and test-profile.txt into `folder`.

    Args:
        name: `simple`, the seconds of every step and hook; `advanced`, Python's own, by function; `pytorch`, torch's, by
            operator, of three steps of the training; or None.

    Raises:
        InputError: another name.
    """
    if name is None:
        return None
    if name not in PROFILERS:
        raise InputError(f"trainer.profiler={name}: use one of {', '.join(PROFILERS)}, or null")
    more = {"export_to_chrome": False} if name == "pytorch" else {}  # a timeline of all events is as large as the videos
    return PROFILERS[name](dirpath=folder, filename=NAME, **more)
