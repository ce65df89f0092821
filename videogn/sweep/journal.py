"""The trials of a search, in Optuna's journal: what it says is on the disk before anything is done about it."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from videogn.sweep.job import hold
from videogn.sweep.space import Choices, Space, description_of
from videogn.types import InputError

NAME = "journal.log"
_STUDY = "search"
_IDENTITY = "identity"


@dataclass(frozen=True)
class Trial:
    """One proposal.

    Attributes:
        number: of the journal's.
        values: what was proposed for each key, in the order of the space.
        state: of the journal's; a trial that no command has seen end is `running`.
        value: the metric, infinite where the training diverged; None if there is none.
    """

    number: int
    values: dict[str, Any]
    state: Literal["running", "done", "failed"]
    value: float | None


@dataclass(frozen=True)
class Sampling:
    """How values are proposed.

    Attributes:
        sampler: `tpe` or `random`.
        seed: of it. A proposal follows from the seed, its number, and the trials before it that have ended: a search that
            was killed and goes on proposes what it would have proposed.
        num_startup_trials: those of tpe that are drawn at random.
    """

    sampler: str
    seed: int
    num_startup_trials: int


class Journal:
    """journal.log of a search's folder; held by one process at a time.

    Args:
        folder: of the sweep.
        space: what is proposed.
        identity: plain data that says what a trial measures; with the space it tells a search from another.
        maximize: whether more is better.
        sampling: how values are proposed.

    Raises:
        InputError: Optuna is not installed; another process has the journal; it is another search's, or damaged.
    """

    def __init__(self, folder: Path, space: Space, identity: dict[str, str], maximize: bool, sampling: Sampling) -> None:
        self._optuna = _imported()
        self._space, self._sampling = space, sampling
        self._lock = hold(folder / ".search.lock")
        if self._lock is None:
            raise InputError(f"{folder}: another process runs this search; wait for it, or name another with sweep=NAME")
        try:
            self._study = self._opened(folder / NAME, identity, "maximize" if maximize else "minimize")
        except BaseException:
            self.close()
            raise

    def _opened(self, path: Path, identity: dict[str, str], direction: str) -> Any:
        _mend(path)
        storages = self._optuna.storages
        try:
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(path)))
            if _STUDY in self._optuna.get_all_study_names(storage):
                study = self._optuna.load_study(study_name=_STUDY, storage=storage)
            else:
                study = self._optuna.create_study(study_name=_STUDY, storage=storage, direction=direction)
            before = study.user_attrs.get(_IDENTITY)
            num_trials = len(study.get_trials(deepcopy=False))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
            reason = f"cannot be read as the journal of a search ({type(error).__name__})"
            raise InputError(f"{path}: {reason}; name another search with sweep=NAME") from error
        now = json.loads(json.dumps({"space": description_of(self._space), **identity}))
        if before is None and not num_trials:  # new, or killed before it said what it is
            study.set_user_attr(_IDENTITY, now)
        elif before != now:
            known = before if isinstance(before, dict) else {}
            other = next((key for key, value in now.items() if known.get(key) != value), "keys")
            raise InputError(f"{path}: the journal of a search with another {other}; name this one with sweep=NAME")
        return study

    def close(self) -> None:
        """Leave the journal to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def trials(self) -> list[Trial]:
        """All whose values are complete, in the order in which they were proposed."""
        return [
            self._trial(trial.number, trial.params, trial.state.name, trial.value)
            for trial in self._study.get_trials(deepcopy=False)
            if set(trial.params) == set(self._space)
        ]

    def drop_incomplete(self) -> None:
        """End the trials whose proposal was cut short by a kill: nobody has seen their values."""
        for trial in self._study.get_trials(deepcopy=False):
            if set(trial.params) != set(self._space) and not trial.state.is_finished():
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def ask(self) -> Trial:
        """The next proposal; it is `running` from now on."""
        self._study.sampler = self._made_sampler(len(self.trials()))
        trial = self._study.ask({key: self._distribution(entry) for key, entry in self._space.items()})
        return self._trial(trial.number, trial.params, "RUNNING", None)

    def tell(self, trial: Trial, value: float | None) -> None:
        """How a trial ended: with this metric, not a number if it diverged; None: it failed."""
        if value is None:
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
            return
        maximize = self._study.direction == self._optuna.study.StudyDirection.MAXIMIZE
        worst = -math.inf if maximize else math.inf
        # A failed trial would teach nothing, and the next ones would go there again.
        self._study.tell(trial.number, worst if math.isnan(value) else value)

    def _trial(self, number: int, values: dict[str, Any], state: str, value: float | None) -> Trial:
        names: dict[str, Literal["done", "failed"]] = {"COMPLETE": "done", "FAIL": "failed"}
        ordered = {key: values[key] for key in self._space}
        return Trial(number, ordered, names.get(state, "running"), value)

    def _made_sampler(self, number: int) -> Any:
        """For one proposal: the state of a random generator would be lost in a kill."""
        seed = int(np.random.SeedSequence([self._sampling.seed, number]).generate_state(1)[0])
        if self._sampling.sampler == "random":
            return self._optuna.samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            # Trials that run count as bad ones until they have ended, so that those at a time are not all the same.
            return self._optuna.samplers.TPESampler(
                n_startup_trials=self._sampling.num_startup_trials, constant_liar=True, seed=seed
            )

    def _distribution(self, entry: Any) -> Any:
        distributions = self._optuna.distributions
        if isinstance(entry, Choices):
            return distributions.CategoricalDistribution(entry.words)
        if entry.is_whole:
            return distributions.IntDistribution(entry.low, entry.high, entry.log, entry.step or 1)
        return distributions.FloatDistribution(entry.low, entry.high, entry.log, entry.step)


def check_installed() -> None:
    """Raises InputError: Optuna is not installed."""
    _imported()


def _imported() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("search: needs Optuna; pip install 'videogn[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _mend(path: Path) -> None:
    """Take off what a kill has left: a line that was being written, and the lock of the one who wrote it."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
