"""What isolation costs: clips read by a decoder directly and through its decoder process, in turns, on the same files.

    python scripts/bench/isolated.py VIDEOS...    # files or folders; writes results/isolated.json

A reading is: open, read 32 frames at stride 2, sum them (a consumer touches every byte), close. Each file is read by both in
every round, A B A B; the figure is the median over files of the ratio of their medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from videogn.dataset.clips import cut_clips
from videogn.decoder.decord import DecordDecoder
from videogn.decoder.isolated import IsolatedDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.types import Decoder, Window

RESULT = Path(__file__).parent / "results" / "isolated.json"
DECODERS = {"pyav": PyAVDecoder, "decord": DecordDecoder}
CLIP_LENGTH, FRAME_STRIDE = 32, 2


def seconds(decoder: Decoder, path: Path) -> float:
    start = time.perf_counter()
    video = decoder.open(path)
    # A clip longer than its video begins again. Frames come in the loader's parts.
    indices = np.arange(CLIP_LENGTH) * FRAME_STRIDE % video.num_frames
    whole = Window(0, 0, video.height, video.width, False)
    cut_clips(video, [(indices, whole)], lambda frames, _: torch.from_numpy(frames.sum((1, 2, 3), dtype=np.int64)))
    video.close()
    return time.perf_counter() - start


def measure(decoder: Decoder, paths: list[Path], rounds: int) -> dict[str, object]:
    isolated = IsolatedDecoder(decoder)
    isolated.process()  # once a worker: not part of a clip
    files = []
    for path in paths:
        seconds(decoder, path), seconds(isolated, path)  # into the page cache
        pairs = [(seconds(decoder, path), seconds(isolated, path)) for _ in range(rounds)]
        direct, through = (statistics.median(times) for times in zip(*pairs, strict=True))
        video = decoder.open(path)
        files.append({"size": f"{video.width}x{video.height}", "direct_ms": direct * 1e3, "isolated_ms": through * 1e3})
        video.close()
        print(f"{path.name:45} {files[-1]['size']:>10} {direct * 1e3:8.1f} ms {through * 1e3:8.1f} ms {through / direct:6.3f}")
    ratios = [file["isolated_ms"] / file["direct_ms"] for file in files]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_total": sum(f["isolated_ms"] for f in files) / sum(f["direct_ms"] for f in files),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "files": files,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    paths = [path for given in arguments.videos for path in (sorted(given.rglob("*.mp4")) if given.is_dir() else [given])]
    result: dict[str, object] = {
        "date": date.today().isoformat(),
        "command": "python scripts/bench/isolated.py --rounds " + str(arguments.rounds),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "clip": f"{CLIP_LENGTH} frames at stride {FRAME_STRIDE}",
    }
    for name, make in DECODERS.items():
        print(f"decoder {name}: direct, isolated, ratio")
        measured = measure(make(), paths, arguments.rounds)
        print(f"median {measured['ratio_median']:.3f}, of all the time {measured['ratio_total']:.3f}")
        result[name] = measured
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
