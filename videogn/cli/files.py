"""The command line of the commands that take file names, which must never pass through Hydra's grammar."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from videogn.types import InputError


class FilesParser(argparse.ArgumentParser):
    """Positional paths and --flags; what it does not take is an InputError.

    Args:
        command: `predict` of `videogn predict`.
    """

    def __init__(self, command: str, **options: Any) -> None:
        super().__init__(f"videogn {command}", **options)
        self._command = command

    def error(self, message: str) -> NoReturn:
        remedy = f"a file name with a leading dash goes behind --; see `videogn {self._command} --help`"
        raise InputError(f"{self._command}: {message}; {remedy}")
