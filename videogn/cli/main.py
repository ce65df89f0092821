"""The command `videogn`: choose the command, and turn what went wrong into one line and an exit status."""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

from videogn import __version__
from videogn.types import PARENT, Findings, InputError, OutOfMemory, Stopped

# Each command is the module of its name, with run(arguments) -> exit status; imported when asked for, so that help is quick.
COMMANDS = {
    "train": "train a classifier and test it; -m trains every combination of values",
    "prepare": "verify the videos of a data set, write them anew for fast reading, and report on it",
    "evaluate": "test a trained classifier",
    "predict": "classify video files",
    "inspect": "show a network's layers, norms, FLOPs and the bytes kept for the backward pass",
    "plan": "say what batch fits a GPU, and the norm, lr and accumulation to train with",
    "compare": "say what one result has over another, and whether it could be chance",
    "report": "write the page of a run anew, or one for several runs side by side",
    "export": "write a classifier for another runtime, and prove that it agrees",
}

HELP = (
    f"""videogn {__version__}: train, test and export 3D convolutional video classifiers
whose accuracy does not depend on the batch size

usage: videogn COMMAND [...]

"""
    + "\n".join(f"  {name:9} {what}" for name, what in COMMANDS.items())
    + """

examples
  videogn train                                                 the built-in motion data, minutes on a laptop's CPU
  videogn train dataset=class_folder dataset.root=DIR           your videos, one folder per class
  videogn train -m norm=group_norm,batch_norm seed=0,1          four trainings, a process each
  videogn train resume=RUN                                      go on where a run stopped
  videogn prepare dataset=class_folder dataset.root=DIR out=DIR verified, small, fast to read
  videogn evaluate checkpoint=RUN evaluation=ten_clip
  videogn predict RUN clip.mp4 folder/ --output json
  videogn compare RUN RUN                                       on the same videos, under the same protocol
  videogn report RUN RUN --out page.html                        side by side
  videogn export checkpoint=RUN export=onnx
  videogn inspect model=i3d_r50 norm=group_norm
  videogn plan model=i3d_r50 gpu_memory=24GB                    the largest batch that fits, per norm and clip length

`videogn COMMAND --help` shows what can be set.
RUN is a run folder, for instance runs/train/motion_resnet3d_tiny_group_norm/<time>.
exit status: 0 done; 1 done with findings (bad files, a failed proof, failed jobs), diverged, or out of memory; 2 bad input;
130 Ctrl-C; 143 SIGTERM; 138 SIGUSR1, with which a cluster may warn a training"""
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    if arguments is None:  # the program, and not a caller of ours
        sys.unraisablehook = _heard_again
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A file name need not be text; \udce9, as it is written then, is also what JSON has for such a byte.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status(arguments)
    except SystemExit as end:  # behind --help
        status = end.code
    sys.exit(_written(status))


def _heard_again(unraisable: Any) -> None:
    """Send a signal anew that fell into a finalizer or a weak reference's callback, where Python ignores what is raised."""
    signum = {KeyboardInterrupt: signal.SIGINT, Stopped: signal.SIGTERM}.get(unraisable.exc_type)
    if signum is None:
        sys.__unraisablehook__(unraisable)
    else:  # once that is over
        again = threading.Timer(0.05, os.kill, (os.getpid(), signum))
        again.daemon = True
        again.start()


def _written(status: Any) -> Any:
    """The status, once standard output has taken what is left in the buffer."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Or Python tries again when it ends, complains in its own words and makes the status 120.
        sys.stdout = None
        if not isinstance(error, BrokenPipeError) and not status:
            return _say(f"error: {error.strerror}; see that it can be read and written", 1)
    return status


def _status(arguments: list[str]) -> int:
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(HELP)
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(__version__)
            return 0
        command, *rest = arguments
        if command not in COMMANDS:
            raise InputError(f"{command}: not a command; use one of {', '.join(COMMANDS)}")
        _log_to_stderr()
        if (parent := os.environ.pop(PARENT, "")).isdecimal():
            _end_with(signal.SIGTERM)
            if os.getppid() != int(parent):
                raise Stopped(signal.SIGTERM, "the command that started this one is gone")
        if not _is_first_process():
            # Training listens to Ctrl-C later; until then it is left to the first process.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end_with(signal.SIGKILL)
        # For the classes that ./conf names. Last, so that no file there takes the place of a library.
        sys.path.append(os.getcwd())
        return importlib.import_module(f"videogn.cli.{command}").run(rest)
    except InputError as error:
        if full_error:
            raise
        return _say(f"error: {error}", 2)
    except Stopped as stop:
        if not _is_first_process():
            return 0  # Lightning kills the first process within seconds of seeing another status
        return _say(f"stopped: {stop}", 128 + stop.signum)
    except KeyboardInterrupt:
        return _say("stopped: Ctrl-C", 128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        sys.stdout = None
        return 0
    except OSError as error:
        if full_error:
            raise
        place = f"{error.filename}: " if error.filename else ""
        # A full disk is no mistake of the command line.
        status = 1 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2
        return _say(f"error: {place}{error.strerror or error}; see that it can be read and written", status)
    except Findings as found:
        return _say(str(found), 1)
    except OutOfMemory as error:
        return _say(f"out of memory: {error}", 1)


def _log_to_stderr() -> None:
    """What our modules say at INFO and above, as plain lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("videogn")
    logger.handlers[:] = [handler]
    # The processes of the other devices would say the same.
    logger.setLevel(logging.INFO if _is_first_process() else logging.WARNING)


def _is_first_process() -> bool:
    """Whether no other process of this machine speaks for the training; Lightning, torchrun and SLURM number them."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _end_with(signum: int) -> None:
    """Be sent `signum` when the parent ends, however it does."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


def _say(line: str, status: int) -> int:
    # A message may quote what came: line breaks, control characters and bytes that are no text are written out.
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    print(f"videogn: {line}", file=sys.stderr)
    return status
