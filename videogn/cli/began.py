"""The name of a run folder's last part, the same in every process of a training, whoever started them."""

from __future__ import annotations

import os
import time

from videogn.types import InputError

_SECONDS = 60.0


def began() -> str:
    """The time in seconds; of processes that srun starts on several machines, which clocks do not agree on, their job and step.

    Processes that torchrun starts take the time of the one that is first at the store which it keeps for them.

    Raises:
        InputError: the store is not there.
    """
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        return _first(now)
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}"
    return now


def _first(now: str) -> str:
    from datetime import timedelta

    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    refusal = "torchrun's processes cannot agree on the name of a run folder; give one: out=FOLDER"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise InputError(refusal)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_SECONDS))
        # Of a training that torchrun starts again, another one.
        key = f"videogn/began/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return store.compare_set(key, "", now).decode()
    except RuntimeError as error:
        raise InputError(f"{refusal} ({host}:{port}: {str(error).splitlines()[0]})") from None
