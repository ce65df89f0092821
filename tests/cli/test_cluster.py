"""What docs/cluster.md says of processes that others start, with torchrun as it is and SLURM as a shell would be."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from videogn.cli.began import began
from videogn.types import InputError

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
SECONDS = 300
BIN = Path(sys.executable).parent


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoint/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def words(tiny: Sequence[str], trained: Path) -> list[str]:
    return [*tiny, f"dataset.root={trained.parent}/motion"]


def environment(**changes: str) -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}", **changes}


@pytest.mark.turns
def test_torchrun_trains_what_devices_train(words: Sequence[str], tmp_path: Path) -> None:
    """In one folder, of whose name the processes were not told."""
    devices = ["trainer.accelerator=cpu", "trainer.devices=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "videogn", "train", *words, *devices],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/train/motion_resnet3d_tiny_group_norm/*")
    assert (run / "result.json").is_file()
    alone = [sys.executable, "-m", "videogn", "train", *words, *devices, "out=own"]
    done = subprocess.run(alone, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    other = weights(tmp_path / "own")
    assert all(torch.equal(value, other[name]) for name, value in weights(run).items())


def test_processes_of_torchrun_agree_on_a_folder(tmp_path: Path) -> None:
    """One of them comes two seconds late."""
    (tmp_path / "say.py").write_text(
        "import os, pathlib, time\n"
        "from videogn.cli.began import began\n"
        "time.sleep(2 * int(os.environ['RANK']))\n"
        "pathlib.Path('said_' + os.environ['RANK']).write_text(began())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "say.py"]
    done = subprocess.run(torchrun, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"said_{rank}").read_text() for rank in range(2))
    assert first == second
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", first)


@pytest.mark.turns
def test_the_script_for_slurm_goes_on_where_the_time_limit_cut_it_off(words: Sequence[str], tmp_path: Path) -> None:
    (script,) = re.findall(r"<!-- job.sh -->\n```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    whole, count = re.subn(r"experiment=\S+ dataset.root=DIR (.*) num_workers=7", r'"${words[@]}" \1', script)
    assert count == 1
    own = shlex.join([*words, "epochs=40", "trainer.accelerator=cpu"])
    (tmp_path / "job.sh").write_text(f"words=({own})\n{whole}")
    stubs = {
        "srun": 'SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_ID=0 exec "$@"',
        "scontrol": 'echo "$@" >> scontrol.txt',
        "videogn": f'echo $$ > pid; exec {sys.executable} -m videogn "$@"',
    }
    (tmp_path / "bin").mkdir()
    for name, body in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    names = {"JOB_ID": "7", "JOB_NAME": "i3d", "JOB_NODELIST": "localhost", "NNODES": "1", "NTASKS": "1", "NTASKS_PER_NODE": "1"}
    slurm = {f"SLURM_{name}": value for name, value in names.items()}
    job_environment = environment(PATH=f"{tmp_path}/bin:{os.environ['PATH']}", **slurm)
    run = tmp_path / "runs/cluster/7"
    with subprocess.Popen(
        ["bash", "job.sh"], cwd=tmp_path, env=job_environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        for _ in range(10 * SECONDS):
            if (run / "checkpoint/last.ckpt").exists() or job.poll() is not None:
                break
            time.sleep(0.1)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
        _, err = job.communicate(timeout=SECONDS)
    assert job.returncode == 128 + signal.SIGUSR1, err
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
    assert not list(run.rglob("hpc_ckpt*")), "Lightning's own way with the signal"
    before = torch.load(run / "checkpoint/last.ckpt", weights_only=True)
    assert 5 <= before["global_step"] < 200

    again = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=job_environment, capture_output=True, text=True, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    assert "resumed: " in again.stderr
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
    assert torch.load(run / "checkpoint/last.ckpt", weights_only=True)["global_step"] == 200
    assert (run / "result.json").is_file()


def test_tasks_of_a_step_have_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    assert began() == "slurm_12_3"
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", began())


def test_processes_that_cannot_agree_ask_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^torchrun.s processes cannot agree on the name .*: out=FOLDER$"):
        began()
