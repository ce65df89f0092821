"""Jobs in a queue: submitit's processes on this machine, and a SLURM of four small programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from videogn.sweep import submitit as launcher
from videogn.sweep.job import Job, State
from videogn.sweep.run import OneByOne, run_jobs
from videogn.sweep.submitit import SubmititLauncher
from videogn.types import Findings, InputError, Stopped

submitit = pytest.importorskip("submitit", reason="pip install 'videogn[slurm]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SLURM's machines are Linux")

# Saves on the first SIGTERM and would be lost by a second that is no echo of it, as a training is; ends with what called it.
PROGRAM = """
import ctypes, json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(words.get("out") or words["resume"])
resumed = "resume" in words
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
told = None
def save(signum, frame):
    global told
    if told is not None:
        os._exit(9) if time.monotonic() - told > 1 else None
        return
    told = time.monotonic()
    time.sleep(1.5)
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint/last.ckpt").touch()
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("resumed" if resumed else "began", *sys.argv[1:], flush=True)
(folder / "pid").write_text(f"{os.getpid()} {os.getppid()}")
does = words.get("does")
if does == "wait" and not resumed or does == "pause":
    time.sleep(60 if does == "wait" else 4)
if does == "fail":
    print("what came, the rule, the remedy")
    sys.exit(2)
if does != "nothing":
    metrics = {"top1": 0.5, "loss": 1.0}
    result = {"results": [{"name": "ten_clip", "metrics": metrics}], "timing": {"total_seconds": 1.0}}
    (folder / "result.json").write_text(json.dumps(result))
"""
DRIVER = """
import sys
from pathlib import Path
from videogn.sweep import submitit
from videogn.sweep.job import Job
from videogn.sweep.run import run_jobs
from videogn.types import Stopped
submitit._PROGRAM = (sys.executable, "program.py")
try:
    run_jobs(submitit.SubmititLauncher("local", 2), [Job(["does=pause", f"number={n}"], Path(f"sweep/{n}")) for n in range(2)])
except Stopped as stop:
    print(stop)
    sys.exit(128 + stop.signum)
"""
# sbatch starts every task of an array at once; squeue knows the processes; sacct says what the file says, or that it cannot.
SLURM = {
    "sbatch": """
import os, pathlib, re, subprocess, sys
text = pathlib.Path(sys.argv[1]).read_text()
if "--partition=nope" in text:
    print("sbatch: error: invalid partition specified: nope", file=sys.stderr)
    sys.exit("sbatch: error: Batch job submission failed: Invalid partition name")
queue = pathlib.Path(os.environ["QUEUE"])
number = 1 + sum(1 for _ in queue.glob("*.sh"))
(queue / f"{number}.sh").write_text(text)
array = re.search(r"--array=0-(\\d+)%", text)
for index in range(1 + int(array[1])) if array else [None]:
    own = {"SLURM_JOB_ID": str(number), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    if index is not None:
        own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
    log = (queue / "log").open("a")
    process = subprocess.Popen(["bash", sys.argv[1]], env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True)
    (queue / (f"{number}" if index is None else f"{number}_{index}")).write_text(str(process.pid))
print("Submitted batch job", number)
""",
    "srun": """
import os, sys
at = sys.argv.index(sys.executable)
options = sys.argv[1:at]
for option, descriptor in (("--output", 1), ("--error", 2)):
    path = options[options.index(option) + 1].replace("%t", "0").replace("%j", os.environ["SLURM_JOB_ID"])
    path = path.replace("%A", os.environ["SLURM_JOB_ID"]).replace("%a", os.environ.get("SLURM_ARRAY_TASK_ID", ""))
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
os.execv(sys.executable, sys.argv[at:])
""",
    "squeue": """
import os, pathlib
for file in pathlib.Path(os.environ["QUEUE"]).iterdir():
    if file.suffix == "" and file.name[0].isdigit():
        stat = pathlib.Path("/proc", file.read_text(), "stat")
        if stat.exists() and ") Z " not in stat.read_text():
            print(file.name)
""",
    "sacct": """
import os, pathlib, sys
answer = pathlib.Path(os.environ["QUEUE"], "sacct.txt")
if not answer.exists():
    sys.exit("Slurm accounting storage is disabled")
print(answer.read_text())
""",
}


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(launcher, "_PROGRAM", (sys.executable, str(tmp_path / "program.py")))
    monkeypatch.setattr(launcher, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(launcher, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(launcher, "_ASK_SECONDS", 0.2)
    # For the node, which begins in a process of its own.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The queue's folder."""
    queue, programs = tmp_path / "queue", tmp_path / "bin"
    queue.mkdir()
    programs.mkdir()
    for name, text in SLURM.items():
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("QUEUE", str(queue))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()
    return queue


def local(**arguments: Any) -> SubmititLauncher:
    return SubmititLauncher("local", **arguments)


def jobs(folder: Path, *words: str) -> list[Job]:
    return [Job([f"does={word}", f"number={n}"], folder / "sweep" / str(n)) for n, word in enumerate(words)]


def lines(job: Job) -> list[str]:
    """What it printed; of its words, what it began with."""
    return [line.split()[0] for line in (job.folder / "log.txt").read_text().splitlines()]


def when_started(job: Job, act: Callable[[int, int], None]) -> threading.Thread:
    """Act on the process of a training and the one that called it, once it runs."""

    def wait() -> None:
        while not (job.folder / "pid").exists() or not (text := (job.folder / "pid").read_text()):
            time.sleep(0.01)
        act(*map(int, text.split()))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_failing_job_is_named_and_the_same_command_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of = jobs(tmp_path, "ok", "fail", "nothing", "wait")
    when_started(of[3], lambda training, node: os.kill(training, signal.SIGKILL))
    with pytest.raises(Findings, match=r"3 of 4 jobs failed; the same command runs them again and skips what is done"):
        run_jobs(local(), of)
    err = capfd.readouterr().err
    assert "job 1/4  done, ten_clip top-1 50.0%, " in err
    assert "job 2/4  failed with status 2: what came, the rule, the remedy, " in err
    assert "job 3/4  failed with status 0: ended without a result: began " in err
    assert "job 4/4  failed with signal 9: began " in err
    assert "submitit" not in err, "it logs on our screen unless told not to"
    assert lines(of[1]) == ["began", "what"]
    (of[3].folder / "pid").unlink()
    of[3].overrides[0] = "does=ok"
    with pytest.raises(Findings, match="2 of 4 jobs failed"):
        run_jobs(local(), of)
    assert "job 1/4  does=ok number=0  done before" in capfd.readouterr().err
    assert [lines(job).count("began") for job in of] == [1, 2, 2, 2]


@pytest.mark.turns
def test_jobs_at_a_time(tmp_path: Path) -> None:
    of = jobs(tmp_path, "pause", "pause", "pause", "pause")
    seen = []

    def watch() -> None:
        while not all(job.state() is State.DONE for job in of):
            seen.append(sum(job.state() is State.RUNNING for job in of))
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    run_jobs(local(max_parallel=2), of)
    thread.join(10)
    assert max(seen) == 2, "and the lock is the training's"


def test_a_job_whose_node_is_gone_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its training saves and ends with what called it, and goes on the next time."""
    of = jobs(tmp_path, "wait", "ok")
    when_started(of[0], lambda training, node: os.kill(node, signal.SIGKILL))
    with pytest.raises(Findings, match="1 of 2 jobs failed"):
        run_jobs(local(), of)
    assert "job 1/2  failed with status 1: job " in capfd.readouterr().err
    run_jobs(local(), of)
    assert lines(of[0]) == ["began", "saved", "resumed"]


def test_the_queues_warning_saves_once_and_the_job_goes_on(tmp_path: Path) -> None:
    """submitit's signal before a time limit or pre-emption, which SLURM sends to every process of the job."""
    (job,) = of = jobs(tmp_path, "wait")

    def warn(training: int, node: int) -> None:
        for pid in (training, node):
            os.kill(pid, signal.SIGUSR2)

    when_started(job, warn)
    run_jobs(local(), of)
    assert lines(job) == ["began", "saved", "resumed"]
    assert len(list((tmp_path / "sweep/submitit").glob("*_submitted.pkl"))) == 1, "requeued, not submitted anew"


@pytest.mark.turns
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["SIGINT", "SIGTERM", "SIGKILL"])
def test_jobs_stay_when_the_command_ends(tmp_path: Path, signum: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    """And the same command waits for them, and submits none a second time."""
    of = jobs(tmp_path, "pause", "pause")
    (tmp_path / "driver.py").write_text(DRIVER)
    with (tmp_path / "printed").open("w") as printed:
        command = subprocess.Popen(
            [sys.executable, "driver.py"], cwd=tmp_path, stderr=printed, stdout=printed, start_new_session=True
        )
    for job in of:
        when_started(job, lambda training, node: None).join(60)
    # Ctrl-C of a terminal reaches all of its group: local jobs are in it.
    os.killpg(command.pid, signum) if signum == signal.SIGINT else command.send_signal(signum)
    status = command.wait(60)
    if signum != signal.SIGKILL:
        assert status == 128 + signum
        said = (tmp_path / "printed").read_text().splitlines()[-1]
        assert re.search(
            r"the sweep; its jobs go on in this machine, and the same command waits for them \(kill \d+ \d+ ends", said
        )
    assert [job.state() for job in of] == [State.RUNNING, State.RUNNING]
    run_jobs(local(max_parallel=2), of)
    assert f"{of[0].folder}: is in the queue, as " in capfd.readouterr().err
    assert [lines(job) for job in of] == [["began"], ["began"]]


def test_a_job_that_another_process_holds_is_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    held, done = of = jobs(tmp_path, "ok", "ok")
    lock = held.lock()
    assert lock is not None

    def leave() -> None:
        while done.result() is None:
            time.sleep(0.01)
        os.close(lock)

    threading.Thread(target=leave, daemon=True).start()
    run_jobs(local(), of)
    assert f"{held.folder}: another process runs it; waiting for it" in capfd.readouterr().err
    assert [lines(job) for job in of] == [["began"], ["began"]]


def test_an_array_of_slurms(tmp_path: Path, slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of = jobs(tmp_path, "ok", "fail", "ok")
    resources = {"gpus_per_node": 2, "cpus_per_task": 3, "mem_gb": 1.5, "partition": "long", "additional": {"exclude": "node7"}}
    with pytest.raises(Findings, match="1 of 3 jobs failed"):
        run_jobs(SubmititLauncher(max_parallel=2, nodes=2, **resources), of)
    err = capfd.readouterr().err
    assert "job 2/3  failed with status 2: what came, the rule, the remedy, " in err
    assert "accounting" not in err, "sacct says on our screen that it cannot"
    flags = {line.removeprefix("#SBATCH --") for line in (slurm / "1.sh").read_text().splitlines() if line.startswith("#SBATCH")}
    asked = {"array=0-2%2", "nodes=2", "ntasks-per-node=2", "gpus-per-node=2", "cpus-per-task=3", "mem=1536MB", "time=240"}
    assert asked | {"partition=long", "exclude=node7", "requeue", "signal=USR2@120"} <= flags
    words = (of[0].folder / "log.txt").read_text().split()
    assert {"trainer.devices=2", "trainer.num_nodes=2", "does=ok"} <= set(words)
    assert [job.state() for job in of] == [State.DONE, State.FAILED, State.DONE]


def test_a_search_submits_when_there_is_room(tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the queue said before a job was in it is no word about that job."""
    monkeypatch.setattr(launcher, "_ASK_SECONDS", 60)
    monkeypatch.setattr(launcher, "_SILENT_SECONDS", 0)
    of = jobs(tmp_path, "ok", "ok", "ok")
    done_before, ended = [], []

    def proposed() -> Iterator[Job]:
        for job in of:
            done_before.append(len(ended))
            yield job

    SubmititLauncher(max_parallel=1).run(OneByOne(proposed()), print, lambda job, seconds: ended.append(job.state()))
    assert ended == [State.DONE] * 3
    assert done_before == [0, 1, 2]
    assert "--array" not in (slurm / "1.sh").read_text()


def test_a_signal_while_the_next_job_is_made_submits_none(tmp_path: Path, slurm: Path) -> None:
    """A search with room for three takes a second to propose each."""
    of = jobs(tmp_path, "ok", "ok", "ok")

    def made() -> Iterator[Job]:
        yield of[0]
        os.kill(os.getpid(), signal.SIGINT)
        yield from of[1:]

    with pytest.raises(Stopped):
        SubmititLauncher(max_parallel=3).run(OneByOne(made()), print, lambda job, seconds: None)
    assert [(job.folder / "submission.json").exists() for job in of] == [True, False, False]
    while of[0].result() is None:
        time.sleep(0.1)


def test_a_signal_while_jobs_are_submitted_is_heard_afterwards(tmp_path: Path, slurm: Path) -> None:
    """Ctrl-C in the terminal reaches sbatch as well, and would end it in the middle."""
    sbatch = tmp_path / "bin/sbatch"
    ctrl_c = "import os, signal\nos.kill(os.getpid(), signal.SIGINT), os.kill(os.getppid(), signal.SIGINT)\n"
    sbatch.write_text(f"#!{sys.executable}\n{ctrl_c}{SLURM['sbatch']}")
    (job,) = of = jobs(tmp_path, "ok")
    with pytest.raises(Stopped, match=r"its jobs go on in the queue, .* \(scancel 1 ends them\)"):
        run_jobs(SubmititLauncher(), of)
    assert (job.folder / "submission.json").exists()
    while job.result() is None:
        time.sleep(0.1)


def test_a_single_job_and_one_that_has_left_the_queue(tmp_path: Path, slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (job,) = of = jobs(tmp_path, "wait")

    def leave(training: int, node: int) -> None:
        os.kill(node, signal.SIGKILL)

    when_started(job, leave)
    with pytest.raises(Findings):
        run_jobs(SubmititLauncher(), of)
    line = "failed with status 143: job 1 has left the queue without a word; the same command goes on with it"
    assert line in capfd.readouterr().err
    run_jobs(SubmititLauncher(), of)
    assert lines(job) == ["began", "saved", "resumed"]
    assert (tmp_path / "sweep/submitit/2_submission.sh").exists()


@pytest.mark.turns
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("TIMEOUT", "failed with status 143: job 1 of the queue ended as TIMEOUT; the same command goes on with it"),
        ("CANCELLED by 0", "failed with status 143: job 1 of the queue ended as CANCELLED; the same command goes on with it"),
        ("OUT_OF_MEMORY", "failed with signal 9: job 1 of the queue ended as OUT_OF_MEMORY; "),
    ],
)
def test_what_accounting_says(tmp_path: Path, slurm: Path, capfd: pytest.CaptureFixture[str], state: str, message: str) -> None:
    (job,) = of = jobs(tmp_path, "wait")
    (slurm / "sacct.txt").write_text("JobID|State|NodeList\n1|RUNNING|vm")

    def end(training: int, node: int) -> None:
        time.sleep(1)
        assert job.state() is State.RUNNING
        os.kill(node, signal.SIGKILL)
        (slurm / "sacct.txt").write_text(f"JobID|State|NodeList\n1|{state}|vm")

    when_started(job, end)
    with pytest.raises(Findings):
        run_jobs(SubmititLauncher(), of)
    assert message in capfd.readouterr().err


def test_slurm_refuses(tmp_path: Path, slurm: Path) -> None:
    message = (
        "hydra.launcher: sbatch refused the jobs: Invalid partition name; correct partition, account, qos or what it asks for"
    )
    with pytest.raises(InputError, match=message):
        run_jobs(SubmititLauncher(partition="nope"), jobs(tmp_path, "ok"))


def test_the_devices_are_the_launchers(tmp_path: Path) -> None:
    (job,) = of = jobs(tmp_path, "ok")
    job.overrides.append("trainer.devices=3")
    with pytest.raises(
        InputError, match=r"trainer.devices=3: the launcher gives 2 \(hydra.launcher.nodes, .*; leave trainer.devices out"
    ):
        run_jobs(local(gpus_per_node=2), of)
    run_jobs(local(gpus_per_node=3), of)
    assert (job.folder / "log.txt").read_text().count("trainer.devices=3") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "pbs"}, "hydra.launcher.cluster=pbs: use one of slurm, local"),
        ({"max_parallel": 0}, "hydra.launcher.max_parallel=0: give a whole number from 1 up"),
        ({"gpus_per_node": -1}, "hydra.launcher.gpus_per_node=-1: give a whole number from 0 up"),
        ({"timeout_min": 0.5}, "hydra.launcher.timeout_min=0.5: give a whole number from 1 up"),
        ({"mem_gb": 0}, "hydra.launcher.mem_gb=0: give a number above 0, or null"),
        ({"additional": 3}, "hydra.launcher.additional=3: give PARAMETER: VALUE of sbatch, or null"),
        (
            {"gpus_per_node": 4, "tasks_per_node": 1},
            "tasks_per_node=1 and gpus_per_node=4: a task has one device; leave tasks_per_node null",
        ),
        ({"cluster": "local", "nodes": 2}, "hydra.launcher.nodes=2: this machine is one; give 1, or cluster=slurm"),
    ],
)
def test_bad_values(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SubmititLauncher(**arguments)


def test_no_slurm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        InputError, match=r"hydra.launcher.cluster=slurm: there is no srun here; use a login node, or cluster=local"
    ):
        SubmititLauncher()


def test_without_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"hydra/launcher=submitit: submitit is not installed; pip install 'videogn\[slurm\]'"):
        local()
