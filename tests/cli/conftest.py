"""A command as a user runs it, in this process; and one tiny trained run for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from videogn.cli import main

TINY = [
    *("dataset.num_train=2", "dataset.num_val=1", "dataset.num_test=1", "epochs=1", "batch_size=4", "num_workers=0"),
    *("clip_length=4", "crop_size=32", "train_short_side=[32,36]", "test_short_side=34", "logger=csv"),
]


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a refused command."""
        assert self.status == 2, self
        lines = [line for line in self.err.splitlines() if not line.startswith("decoder: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("videogn: error: ")
        return lines[0]


@pytest.fixture
def videogn(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_status:
            main.main(arguments)
        captured = capfd.readouterr()
        return Outcome(int(exit_status.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tiny() -> Sequence[str]:
    """Overrides that make a training take seconds."""
    return TINY


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; its videos lie in `motion` beside it. The names have what breaks careless parsers."""
    folder = tmp_path_factory.mktemp("a run, with = [odd] {names} #1 'é")
    with pytest.raises(SystemExit) as exit_status:
        main.main(["train", *TINY, f"dataset.root={folder}/motion", f"out={folder}/run"])
    assert exit_status.value.code == 0
    return folder / "run"
