"""The trials of a search: each is a job, and the next is proposed when there is room for it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from videogn.sweep.job import TOLD_TO_END, Job, State, named
from videogn.sweep.journal import Journal, Trial
from videogn.sweep.ledger import is_sweep, read_jobs, write_jobs
from videogn.sweep.metric import Metric, diverged
from videogn.sweep.run import JobLauncher, OneByOne, print_whole, status_text
from videogn.sweep.space import Space
from videogn.types import Findings
from videogn.whole import whole

NAME = "search.json"
_ALL_FAILED = 3  # when so many have failed and none has not, the fault is not in the values


class Trials:
    """Runs a search: `journal` is told how each trial ended before the next is asked of it.

    Args:
        space: what varies.
        num_trials: in all.
        job: that of a command line.
        words: the command line that the trials share.
        folder: of the sweep.
        command_line: of the search.
    """

    def __init__(
        self,
        journal: Journal,
        space: Space,
        metric: Metric,
        num_trials: int,
        job: Callable[[list[str]], Job],
        words: list[str],
        folder: Path,
        command_line: str,
    ) -> None:
        self._journal, self._space, self._metric, self._num_trials = journal, space, metric, num_trials
        self._job, self._words, self._folder, self._command_line = job, words, folder, command_line
        self._console = Console(stderr=True, highlight=False)
        self._jobs: dict[int, Job] = {}  # by the trial's number
        self._under_way: dict[Path, list[Trial]] = {}  # by the job's folder: two trials may propose the same
        self._ended_here: list[bool] = []  # whether it has a value, of the trials that ended in this command

    def run(self, launcher: JobLauncher) -> None:
        """Raises Findings: trials have failed, or are not over."""
        self._journal.drop_incomplete()
        known = {tuple(job.overrides): job for job in read_jobs(self._folder).jobs} if is_sweep(self._folder) else {}
        for trial in self._journal.trials():
            overrides = self._overrides(trial)
            self._jobs[trial.number] = known.get(tuple(overrides)) or self._job(overrides)
        self._write()
        launcher.run(OneByOne(self._to_run()), self._say, self._ended)
        trials = self._journal.trials()
        print_whole(self._table(trials))
        if (best := self._best(trials)) is not None:
            print(f"the best of {len(trials)} by {self._metric}; trained alone by")
            print(f"  {self._alone(best)}")
        counts = {state: sum(trial.state == state for trial in trials) for state in ("failed", "running")}
        if counts["failed"]:
            says = "what they printed is in log.txt of their folders"
            raise Findings(f"{counts['failed']} of {len(trials)} trials failed; they count as trials, and {says}")
        if counts["running"]:
            raise Findings(f"{counts['running']} of {len(trials)} trials are not over; the same command goes on with them")

    def _to_run(self) -> Iterator[Job]:
        for trial in self._journal.trials():
            if trial.state != "running":
                self._say(f"{self._title(trial)}  {named(self._jobs[trial.number], list(self._space))}  {trial.state} before")
            elif (job := self._begin(trial, again=True)) is not None:
                yield job
        while len(self._journal.trials()) < self._num_trials:
            if len(self._ended_here) >= _ALL_FAILED and not any(self._ended_here):
                self._say(f"{len(self._ended_here)} trials have ended and all have failed: no more are begun")
                return
            trial = self._journal.ask()
            self._jobs[trial.number] = self._job(self._overrides(trial))
            if (job := self._begin(trial, again=False)) is not None:
                yield job

    def _begin(self, trial: Trial, again: bool) -> Job | None:
        """Its job, if it must be run for it."""
        job = self._jobs[trial.number]
        self._write()
        line = f"{self._title(trial)}  {named(job, list(self._space))}"
        same = self._under_way.setdefault(job.folder, [])
        same.append(trial)
        if len(same) > 1:
            self._say(f"{line}  as {self._title(same[0])}")
            return None
        self._say(f"{line}  {job.folder}")
        # Values that were tried before; or one that failed, and the search was killed before it was told.
        if job.state() is State.DONE or (again and job.state() is State.FAILED and not _goes_on(job)):
            self._ended(job, 0.0)
            return None
        return job

    def _ended(self, job: Job, seconds: float) -> None:
        took = f", {seconds:.0f} s" if seconds else " before"
        for trial in self._under_way.pop(job.folder):
            failure = job.failure()
            if job.result() is not None:
                value = self._metric.read(job.folder)
                self._tell(trial, value)
                shown = f"{self._metric.name} {self._metric.text(value)}" if value is not None else self._no_metric()
                self._say(f"{self._title(trial)}  done, {shown}{took}")
            elif failure is None:
                self._say(f"{self._title(trial)}  stopped{took}")
            else:
                if not _goes_on(job):
                    # To have diverged is an outcome, the worst: a failed trial would teach the sampler nothing.
                    self._tell(trial, math.nan if diverged(job.folder) else None)
                self._say(f"{self._title(trial)}  failed with {status_text(failure['status'])}: {failure['message']}{took}")
        self._write()

    def _tell(self, trial: Trial, value: float | None) -> None:
        self._journal.tell(trial, value)
        self._ended_here.append(value is not None)

    def _no_metric(self) -> str:
        return f"but metrics.csv has no {self._metric.name}: failed"

    def _title(self, trial: Trial) -> str:
        return f"trial {self._place(trial)}/{max(self._num_trials, len(self._jobs))}"

    def _place(self, trial: Trial) -> int:
        return list(self._jobs).index(trial.number) + 1

    def _overrides(self, trial: Trial) -> list[str]:
        return [*self._words, *(f"{key}={self._space[key].word(value)}" for key, value in trial.values.items())]

    def _best(self, trials: list[Trial]) -> Trial | None:
        """The first of the best."""
        done = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
        return self._ordered(done)[0] if done else None

    def _ordered(self, trials: list[Trial]) -> list[Trial]:
        """The best first, those without a value last."""
        sign = -1 if self._metric.maximize else 1
        return sorted(trials, key=lambda trial: math.inf if trial.value is None else sign * trial.value)

    def _table(self, trials: list[Trial]) -> Table:
        shown = Table()
        for column in ("trial", *self._space, "state", self._metric.name, "time"):
            shown.add_column(column, justify="left" if column in (*self._space, "state") else "right", no_wrap=True)
        for trial in self._ordered(trials):
            job = self._jobs[trial.number]
            state, failure, result = trial.state, job.failure(), job.result()
            if state == "running":
                state = job.state().value
            elif state == "failed" and failure is not None:
                state = f"failed, {status_text(failure['status'])}"
            value = "" if trial.value is None else self._metric.text(trial.value)
            time = "" if result is None else f"{result['timing']['total_seconds']:.0f} s"
            shown.add_row(str(self._place(trial)), *(job.values[key] for key in self._space), state, value, time)
        return shown

    def _alone(self, trial: Trial) -> str:
        """The command that trains with the values of a trial."""
        return shlex.join(["videogn", "train", *self._jobs[trial.number].alone()])

    def _write(self) -> None:
        """jobs.json, and search.json with the trials in the order of their proposal."""
        trials = [trial for trial in self._journal.trials() if trial.number in self._jobs]
        write_jobs(self._folder, [self._jobs[trial.number] for trial in trials], self._command_line)
        best = self._best(trials)
        content: dict[str, Any] = {
            "schema": 1,
            "command_line": self._command_line,
            "metric": str(self._metric),
            "num_trials": self._num_trials,
            "best": None if best is None else {"trial": self._place(best), "command_line": self._alone(best)},
            "trials": [
                {
                    "id": self._jobs[trial.number].folder.name,
                    "values": {key: self._jobs[trial.number].values[key] for key in self._space},
                    "state": trial.state,
                    "value": trial.value if trial.value is not None and math.isfinite(trial.value) else None,
                }
                for trial in trials
            ],
        }
        with whole(self._folder / NAME) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _goes_on(job: Job) -> bool:
    """Whether it was only told to end: by its time limit, or with the machine that it had."""
    return (job.failure() or {}).get("status") == TOLD_TO_END
