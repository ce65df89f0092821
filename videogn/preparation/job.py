"""What a worker does with one video: verify it, or write it anew; whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from videogn.dataset.shard_decoder import Place, fetched
from videogn.dataset.storage import Storage
from videogn.preparation.transcode import Settings, transcode
from videogn.preparation.verify import verify
from videogn.types import StorageError, VideoError

# Of the disk or the folder, not of the video. Reading one raises VideoError.
_FOLDER_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])


def prepare_video(
    path: str,
    out: str | None,
    unfinished: str,
    settings: Mapping[str, Any],
    shard: tuple[Mapping[str, Any], Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Verify a video, and write it to `out` unless that is None.

    Args:
        unfinished: folder on the disk of `out` where the file grows; it gets its name when it is whole.
        settings: of `Settings`.
        shard: arguments of the `Storage` and of the `Place` that the video lies in; None for a file.

    Returns:
        {"source": facts, "written": facts or None}, or {"reason": why the video cannot be used}, or {"stop": why no
        video can be written, such as a full disk}, or {"away": why none can be read, such as a server that is down}.
    """
    try:
        file = None if shard is None else fetched(path, Place(*shard[1]), Storage(**shard[0]))
        source_path = Path(path if file is None else file.path)
        if out is None:
            return {"source": asdict(verify(source_path)), "written": None}
        growing = Path(unfinished, f"{os.getpid()}.mp4")
        try:
            source, written = transcode(source_path, growing, Settings(**settings))
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            os.replace(growing, out)
        finally:
            growing.unlink(missing_ok=True)
    except VideoError as error:
        return {"reason": error.reason}
    except StorageError as error:
        return {"away": str(error)}
    except MemoryError:
        return {"reason": "took more memory than there is"}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FOLDER_ERRORS:
            return {"stop": os.strerror(error.errno)}
        return {"reason": " ".join(f"{type(error).__name__}: {error}".split())}
    return {"source": asdict(source), "written": asdict(written)}
