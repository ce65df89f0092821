"""The jobs of a sweep in the queue of a cluster, through submitit."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from videogn.number import is_count, is_positive
from videogn.sweep.job import TOLD_TO_END, Job, State, alone
from videogn.sweep.run import OneByOne
from videogn.types import InputError, Stopped
from videogn.whole import whole

_PROGRAM = (sys.executable, "-m", "videogn")
_POLL_SECONDS = 1.0
_ASK_SECONDS = 30.0  # between two questions to the queue: many people ask it
_SILENT_SECONDS = 10.0  # for what a node wrote to be seen here
_WARNING_SECONDS = 120  # before the end of the time, for a step and a checkpoint
_MOST_REQUEUES = 1000  # a training of weeks under a limit of hours is requeued as often
_SUBMISSION = "submission.json"
_NAME = "videogn"
# What a queue's last word on a job is worth, as the status of a process. For the rest (a time limit, a node that fell, a job that
# was cancelled) the training is not to blame.
_STATUS = {"OUT_OF_MEMORY": -signal.SIGKILL, "FAILED": 1, "FINISHED": 1, "INTERRUPTED": 1, "NO PROCESS AND NO RESULT": 1}


@dataclass
class _Watched:
    job: Job
    submission: Any  # submitit's job; None: another process runs it, and is waited for
    start: float = field(default_factory=time.monotonic)
    over: float | None = None  # when it was seen to be over


class SubmititLauncher:
    """Puts jobs into SLURM's queue and waits for them; what one prints goes to log.txt in its folder.

    Before its time limit and before pre-emption a job saves, goes into the queue again, and goes on from there. When this
    process ends its jobs stay in the queue; the same command waits for them again.

    Args:
        cluster: slurm, or local: processes of this machine, to try a configuration.
        max_parallel: jobs at a time. Under SLURM all jobs are submitted at once, as an array of so many; those of a search
            when there is room.
        nodes: for a job.
        gpus_per_node: for a job.
        tasks_per_node: processes of a training on a node, one a device; None: one a GPU, or one.
        cpus_per_task: for the training and its loader workers.
        mem_gb: on a node; None: what the cluster gives.
        timeout_min: minutes until a job is requeued.
        partition, account, qos, constraint: SLURM's.
        additional: other parameters of sbatch, by their long names.
    """

    def __init__(
        self,
        cluster: str = "slurm",
        max_parallel: int = 8,
        nodes: int = 1,
        gpus_per_node: int = 0,
        tasks_per_node: int | None = None,
        cpus_per_task: int | None = None,
        mem_gb: float | None = None,
        timeout_min: int = 240,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        additional: Any = None,
    ) -> None:
        if cluster not in ("slurm", "local"):
            raise InputError(f"hydra.launcher.cluster={cluster}: use one of slurm, local")
        counts = {"max_parallel": (max_parallel, 1), "nodes": (nodes, 1), "gpus_per_node": (gpus_per_node, 0)}
        counts |= {"timeout_min": (timeout_min, 1)}
        counts |= {"tasks_per_node": (1 if tasks_per_node is None else tasks_per_node, 1)}
        counts |= {"cpus_per_task": (1 if cpus_per_task is None else cpus_per_task, 1)}
        for key, (value, low) in counts.items():
            if not is_count(value, low):
                raise InputError(f"hydra.launcher.{key}={value}: give a whole number from {low} up")
        if mem_gb is not None and not is_positive(mem_gb):
            raise InputError(f"hydra.launcher.mem_gb={mem_gb}: give a number above 0, or null")
        if additional is not None and not isinstance(additional, Mapping):
            raise InputError(f"hydra.launcher.additional={additional}: give PARAMETER: VALUE of sbatch, or null")
        if gpus_per_node and tasks_per_node not in (None, gpus_per_node):
            given = f"hydra.launcher.tasks_per_node={tasks_per_node} and gpus_per_node={gpus_per_node}"
            raise InputError(f"{given}: a task has one device; leave tasks_per_node null")
        if cluster == "local" and nodes > 1:
            raise InputError(f"hydra.launcher.nodes={nodes}: this machine is one; give 1, or cluster=slurm")
        self._submitit = _imported()
        if cluster == "slurm" and self._submitit.SlurmExecutor.affinity() <= 0:
            raise InputError("hydra.launcher.cluster=slurm: there is no srun here; use a login node, or cluster=local")
        self._cluster, self._max_parallel, self._nodes = cluster, max_parallel, nodes
        self._tasks = tasks_per_node or max(1, gpus_per_node)
        slurm = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
        self._parameters: dict[str, Any] = {
            "timeout_min": timeout_min,
            "nodes": nodes,
            "gpus_per_node": gpus_per_node or None,
            # Lightning finds the tasks of SLURM; on this machine it starts the processes of a training itself.
            "tasks_per_node": self._tasks if cluster == "slurm" else 1,
            "cpus_per_task": cpus_per_task,
            "mem_gb": mem_gb,
            "name": _NAME,
        }
        if cluster == "slurm":
            # srun takes neither the CPUs of a task from sbatch, nor a task that failed for the end of the others.
            srun = ["--kill-on-bad-exit=1", *([f"--cpus-per-task={cpus_per_task}"] if cpus_per_task else [])]
            self._parameters |= {f"slurm_{key}": value for key, value in slurm.items()} | {
                "slurm_array_parallelism": max_parallel,
                "slurm_srun_args": srun,
                "slurm_signal_delay_s": min(_WARNING_SECONDS, 30 * timeout_min),
                "slurm_additional_parameters": {"requeue": True, **(additional or {})},
            }
        self._signum = 0
        self._asked = -_ASK_SECONDS
        self._has_accounting: bool | None = None
        self._listed: set[str] | None = None  # the queue's jobs, where there is no accounting that says how they ended

    def run(self, jobs: Iterator[Job], say: Callable[[str], None], ended: Callable[[Job, float], None]) -> None:
        watched: list[_Watched] = []
        before = {signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)}
        # SLURM keeps to the number itself.
        at_once = self._cluster == "slurm" and not isinstance(jobs, OneByOne)
        exhausted = False
        try:
            while not exhausted or watched:
                if self._signum:
                    raise Stopped(self._signum, self._left(watched))
                while not exhausted and not self._signum and (at_once or len(watched) < self._max_parallel):
                    batch = list(jobs) if at_once else list(itertools.islice(jobs, 1))
                    if self._signum:  # it came while they were made
                        break
                    exhausted = at_once or not batch
                    watched += self._watch(batch, say)
                self._ask([one.submission for one in watched])
                for one in list(watched):
                    again = one.submission is None and self._is_free(one.job)
                    if again or self._is_over(one):
                        watched.remove(one)
                        if again and one.job.result() is None:
                            watched += self._watch([one.job], say)
                        else:
                            ended(one.job, time.monotonic() - one.start)
                time.sleep(_POLL_SECONDS)
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _watch(self, batch: Sequence[Job], say: Callable[[str], None]) -> list[_Watched]:
        """Submit those that nobody has, and watch all."""
        if not batch:
            return []
        for job in batch:
            self._check_devices(job)
        found, fresh = [], []
        # Two commands of the same jobs must not both find them missing.
        with alone(batch[0].folder.parent / ".submit.lock"):
            known = [self._before(job) for job in batch]
            self._ask([one for one in known if one is not None], now=True)
            for job, submission in zip(batch, known, strict=True):
                if submission is not None and not self._has_ended(submission):
                    say(f"  {job.folder}: is in the queue, as {submission.job_id}; waiting for it")
                    found.append(_Watched(job, submission))
                elif job.state() is State.RUNNING:
                    say(f"  {job.folder}: another process runs it; waiting for it")
                    found.append(_Watched(job, None))
                else:
                    fresh.append(job)
            submissions = self._submit(fresh) if fresh else []
            self._asked = -_ASK_SECONDS  # the queue's answer knows nothing of them
            for job, submission in zip(fresh, submissions, strict=True):
                with whole(job.folder / _SUBMISSION) as unfinished:
                    content = {"cluster": self._cluster, "id": submission.job_id, "tasks": submission.num_tasks}
                    unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
                found.append(_Watched(job, submission))
        return found

    def _submit(self, jobs: Sequence[Job]) -> list[Any]:
        from videogn.sweep.node import Training

        devices = [f"trainer.devices={self._tasks}", f"trainer.num_nodes={self._nodes}"]
        calls = []
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.begin()
            calls.append(Training(_PROGRAM, job.overrides, str(job.folder), devices, os.getcwd()))
        requeues = {f"{self._cluster}_max_num_timeout": _MOST_REQUEUES}
        executor = self._submitit.AutoExecutor(_logs(jobs[0]), self._cluster, **requeues)
        # Ctrl-C in the terminal would reach sbatch and local jobs too; we hear it afterwards.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            executor.update_parameters(**self._parameters)
            return executor.submit_array(calls)
        except self._submitit.core.utils.FailedJobError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = re.sub(r"sbatch: |error: |Batch job submission failed: ", "", lines[-1]) if lines else "without a word"
            remedy = "correct partition, account, qos or what it asks for"
            raise InputError(f"hydra.launcher: sbatch refused the jobs: {reason}; {remedy}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _check_devices(self, job: Job) -> None:
        for key, value in (("trainer.devices", self._tasks), ("trainer.num_nodes", self._nodes)):
            if job.values.get(key, str(value)) != str(value):
                raise InputError(
                    f"{key}={job.values[key]}: the launcher gives {value} (hydra.launcher.nodes, gpus_per_node, tasks_per_node); "
                    f"leave {key} out"
                )

    def _before(self, job: Job) -> Any:
        """The submission that its folder knows of."""
        try:
            content = json.loads((job.folder / _SUBMISSION).read_text(encoding="utf-8"))
            kind = {"slurm": self._submitit.SlurmJob, "local": self._submitit.LocalJob}[content["cluster"]]
            return kind(_logs(job), str(content["id"]), range(int(content["tasks"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _ask(self, submissions: Sequence[Any], now: bool = False) -> None:
        """How the queue's jobs are, once for all."""
        submissions = [one for one in submissions if isinstance(one, self._submitit.SlurmJob)]
        if not submissions or (not now and time.monotonic() - self._asked < _ASK_SECONDS):
            return
        self._asked = time.monotonic()
        if self._has_accounting is None:  # where there is none, sacct says so on our screen every time that submitit asks it
            self._has_accounting = _answer(["sacct", "--noheader", "--jobs=0"]) is not None
        if self._has_accounting:
            self._submitit.SlurmJob.watcher.update()
        if any(_state(one) == "UNKNOWN" for one in submissions):  # there is no accounting, or it does not know them yet
            listed = _answer(["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"])
            self._listed = None if listed is None else set(listed.split())

    def _has_ended(self, submission: Any) -> bool:
        """By its own word, or by the queue's."""
        if isinstance(submission, self._submitit.LocalJob):
            return submission.done() and not _is_controller(submission.job_id)
        if submission.task(0).paths.result_pickle.exists():
            return True
        if _state(submission) == "UNKNOWN":
            return self._listed is not None and submission.job_id not in self._listed
        return submission.watcher.is_done(submission.job_id, mode="cache")

    def _is_over(self, one: _Watched) -> bool:
        """Whether it has ended; a job that ended without a word of its own is then said to have failed."""
        if one.submission is None or not self._has_ended(one.submission):
            one.over = None
            return False
        if one.job.state() is State.RUNNING:  # it saves still; or another process has it
            one.over = None
            return False
        one.over = one.over or time.monotonic()
        if one.job.result() is not None or one.job.failure() is not None:
            return True
        if time.monotonic() - one.over < _SILENT_SECONDS:
            return False
        state = _state(one.submission)
        status = _STATUS.get(state, TOLD_TO_END)
        end = "has left the queue without a word" if state == "UNKNOWN" else f"of the queue ended as {state}"
        hint = "the same command goes on with it"
        if status != TOLD_TO_END:
            hint = f"{_logs(one.job)} has what it printed before it began"
        one.job.fail(status, f"job {one.submission.job_id} {end}; {hint}")
        return True

    def _is_free(self, job: Job) -> bool:
        return job.state() is not State.RUNNING

    def _left(self, watched: Sequence[_Watched]) -> str:
        ids = list(dict.fromkeys(one.submission.job_id.split("_")[0] for one in watched if one.submission is not None))
        if not ids:
            return "the sweep; the same command goes on with it"
        where, ends = ("the queue", "scancel") if self._cluster == "slurm" else ("this machine", "kill")
        return f"the sweep; its jobs go on in {where}, and the same command waits for them ({ends} {' '.join(ids)} ends them)"

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum


def _imported() -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError("hydra/launcher=submitit: submitit is not installed; pip install 'videogn[slurm]'") from None
    # It would say on two streams what we say in a line.
    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    return submitit


def _logs(job: Job) -> Path:
    """What submitit itself writes."""
    return job.folder.parent / "submitit"


def _state(submission: Any) -> str:
    if hasattr(submission, "_process"):
        return submission.state
    return submission.watcher.get_state(submission.job_id, mode="cache").split(" ")[0]  # CANCELLED by 1000


def _answer(command: Sequence[str]) -> str | None:
    """What a program of SLURM's says; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _is_controller(pid: str) -> bool:
    """Whether a local job of an earlier command is still there."""
    try:
        return "submitit.local._local" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
