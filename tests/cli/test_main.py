"""The command itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from videogn.cli import main
from videogn.cli.main import COMMANDS


def test_help_names_every_command_and_imports_no_torch() -> None:
    code = "import sys, videogn.cli.main as m; print(m.HELP); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(videogn: Callable, command: str) -> None:
    outcome = videogn(command, "--help")
    assert outcome.status == 0
    assert f"videogn {command}" in outcome.out


def test_unknown_command(videogn: Callable) -> None:
    assert (
        "tarin: not a command; use one of train, prepare, evaluate, predict, inspect, plan, compare, report, export"
        in videogn("tarin").refusal()
    )


@pytest.mark.parametrize(
    ("variables", "speaks"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "2", "LOCAL_RANK": "0"}, True),
    ],
    ids=str,
)
def test_one_process_of_a_training_speaks(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], speaks: bool) -> None:
    """Also where SLURM has started them."""
    for name in ("LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main._is_first_process() is speaks


@pytest.mark.parametrize(("raised", "status"), [("KeyboardInterrupt()", 130), ("Stopped(15, 'so far')", 143)])
def test_a_signal_in_a_finalizer_is_not_lost(raised: str, status: int) -> None:
    """Python ignores what a finalizer raises: the command would go on."""
    program = f"""
import sys, time
from videogn.cli import main, stop
from videogn.types import Stopped

class Finalized:
    def __del__(self):
        raise {raised}

def command(arguments):
    with stop.stopped_by_sigterm("so far"):
        Finalized()
        for _ in range(200):
            time.sleep(0.05)
    return 0

sys.argv = ["videogn", "predict", "x", "y"]
import videogn.cli.predict
videogn.cli.predict.run = command
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60, preexec_fn=hears
    )
    assert done.returncode == status, done.stderr


def hears() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
