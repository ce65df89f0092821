"""A search over hyperparameters: a multirun whose next training depends on how those before it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videogn.number import is_count
from videogn.sweep.job import Job
from videogn.sweep.journal import Journal, Sampling, check_installed
from videogn.sweep.metric import EPOCHS, METRICS, Metric
from videogn.sweep.run import JobLauncher
from videogn.sweep.space import examples, space_of
from videogn.sweep.trials import Trials
from videogn.types import InputError

_DIRECTIONS = ("maximize", "minimize")
_SAMPLERS = ("tpe", "random")


class Search:
    """Proposes values, trains with them, learns from what val says, and proposes again.

    Args:
        space: KEY: {low, high, log, step} or KEY: {choices}. A key that the command line gives is not varied.
        num_trials: in all, those of earlier commands and those that failed among them.
        metric: val/top1 or val/loss.
        epoch: whose value counts: that of the last, as the paper reports, or the best of the training.
        direction: maximize or minimize; None: what the metric asks for.
        sampler: tpe (Bergstra et al. 2011) or random.
        seed: of the sampler.
        num_startup_trials: those of tpe that are drawn at random.
    """

    def __init__(
        self,
        space: Any,
        num_trials: int = 20,
        metric: str = "val/top1",
        epoch: str = "last",
        direction: str | None = None,
        sampler: str = "tpe",
        seed: int = 0,
        num_startup_trials: int = 10,
    ) -> None:
        self._space = space_of(space)
        for key, count, low in (("num_trials", num_trials, 1), ("seed", seed, 0), ("num_startup_trials", num_startup_trials, 0)):
            if not is_count(count, low):
                raise InputError(f"search.{key}={count}: give a whole number from {low} up")
        for key, value, known in (
            ("metric", metric, METRICS),
            ("epoch", epoch, EPOCHS),
            ("direction", direction or "minimize", _DIRECTIONS),
            ("sampler", sampler, _SAMPLERS),
        ):
            if value not in known:
                raise InputError(f"search.{key}={value}: use one of {', '.join(known)}")
        check_installed()
        self._num_trials = num_trials
        self._metric = Metric(metric, epoch, METRICS[metric] if direction is None else direction == "maximize")
        self._sampling = Sampling(sampler, seed, num_startup_trials)

    def run(
        self,
        launcher: JobLauncher,
        check: Callable[[list[str]], object],
        job: Callable[[list[str]], Job],
        words: list[str],
        folder: Path,
        command_line: str,
    ) -> None:
        """Search until there are num_trials, and print the table of all, the best first.

        Args:
            check: raises an error where a command line makes no training.
            job: that of a command line.
            words: the command line that the trials share.
            folder: of the sweep.

        Raises:
            InputError: a value of the space makes no training, or the folder holds another search.
            Findings: trials have failed.
        """
        # What is searched is no value of a training. Without an experiment, of which hydra.mode=RUN makes one, it says so.
        words = [word for word in words if not re.match(r"\+*search[.=]", word)]
        if not any(word.startswith("experiment=") for word in words):
            words.append("search=null")
        given = {word.split("=", 1)[0].lstrip("+~") for word in words}
        space = {key: entry for key, entry in self._space.items() if key.lstrip("+") not in given}
        if not space:
            raise InputError(f"search.space: the command line gives {', '.join(self._space)}; leave a key to the search")
        tried = [[*words, *example] for example in examples(space)]
        for example in tried:
            check(example)
        identity = {
            "metric": str(self._metric),
            "direction": "maximize" if self._metric.maximize else "minimize",
            "set of fixed values, data or version": job(
                tried[0]
            ).folder.name,  # and those of the first example, which are the space's
        }
        journal = Journal(folder, space, identity, self._metric.maximize, self._sampling)
        try:
            Trials(journal, space, self._metric, self._num_trials, job, words, folder, command_line).run(launcher)
        finally:
            journal.close()
