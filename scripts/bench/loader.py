"""Clips a second on one core, against pytorchvideo's LabeledVideoDataset on the same files in the same run.

    python scripts/bench/loader.py FOLDER      # of class folders; writes results/loader.json and the tables of docs/speed.md

The videos are read as they are, and as `videogn prepare` writes them. A clip is 32 frames at stride 2, random short side 256 to
320, random crop of 224, mirrored or not; pytorchvideo gets the same by its own transforms: 64 frames' time, every second one. A
turn is one clip of every video by one reader; the readers take turns, A B A B, on one core and with one thread, and each figure
is a median over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torchvision.transforms._functional_tensor as functional_tensor
from loader_page import PEER, RESULT, write_page
from pytorchvideo.data import LabeledVideoDataset, encoded_video_pyav, make_clip_sampler
from torch.utils.data import DataLoader, SequentialSampler
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

sys.modules["torchvision.transforms.functional_tensor"] = functional_tensor  # its name when pytorchvideo was written
from pytorchvideo.transforms import ApplyTransformToKey, RandomShortSideScale, UniformTemporalSubsample  # noqa: E402

from videogn.dataset.class_folder import ClassFolder  # noqa: E402
from videogn.dataset.clips import TrainingClips, collate, read_views  # noqa: E402
from videogn.dataset.manifest import Manifest, ManifestFile  # noqa: E402
from videogn.decoder import pyav  # noqa: E402
from videogn.decoder.auto import AutoDecoder  # noqa: E402
from videogn.decoder.decord import DecordDecoder  # noqa: E402
from videogn.decoder.isolated import IsolatedDecoder  # noqa: E402
from videogn.decoder.probe import open_container, probe  # noqa: E402
from videogn.decoder.pyav import PyAVDecoder  # noqa: E402
from videogn.decoder.torchcodec import TorchCodecDecoder  # noqa: E402
from videogn.sampler.random_clip import RandomClip  # noqa: E402
from videogn.sampler.uniform_clips import UniformClips  # noqa: E402
from videogn.transform.augment import RandomShortSideCrop  # noqa: E402
from videogn.transform.views import Crops  # noqa: E402
from videogn.types import ClipKey, Decoder, InputError  # noqa: E402

CLIP_LENGTH, FRAME_STRIDE, SHORT_SIDE, CROP_SIZE = 32, 2, (256, 320), 224
FRAMES_PER_SECOND = 30  # of nearly all Kinetics videos: pytorchvideo's clips are given in seconds
Turn = Callable[[int], object]  # reads one clip of every video; the epoch draws the clips


def decoders() -> dict[str, Decoder]:
    made: dict[str, Decoder] = {"pyav": PyAVDecoder(), "isolated": IsolatedDecoder(AutoDecoder())}
    for name, make in {"decord": DecordDecoder, "torchcodec": TorchCodecDecoder}.items():
        try:
            made[name] = make()
        except InputError as error:
            print(error)
    return made


def our_clips(videos: Manifest, decoder: Decoder) -> TrainingClips:
    transform = RandomShortSideCrop(CROP_SIZE, SHORT_SIDE, flip=0.5)
    return TrainingClips(videos, decoder, [(RandomClip(CLIP_LENGTH, FRAME_STRIDE), transform)], seed=0)


def ours(videos: Manifest, decoder: Decoder) -> Turn:
    clips = our_clips(videos, decoder)

    def turn(epoch: int) -> None:
        for row in range(len(videos)):
            batch = clips[ClipKey(epoch, row, 0)]
            assert not batch.dead, batch.dead

    return turn


def peers_clips(videos: Manifest) -> LabeledVideoDataset:
    frames = [
        UniformTemporalSubsample(CLIP_LENGTH),
        RandomShortSideScale(*SHORT_SIDE),
        RandomCrop(CROP_SIZE),
        RandomHorizontalFlip(),
    ]
    return LabeledVideoDataset(
        [(str(videos.path(row)), {"label": 0}) for row in range(len(videos))],
        make_clip_sampler("random", CLIP_LENGTH * FRAME_STRIDE / FRAMES_PER_SECOND),
        video_sampler=SequentialSampler,
        transform=ApplyTransformToKey("video", Compose(frames)),
        decode_audio=False,
    )


def peer(videos: Manifest) -> Turn:
    return lambda epoch: sum(1 for _ in peers_clips(videos))


def clips_per_second(readers: dict[str, Turn], num_videos: int, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for epoch in range(-1, rounds):
        for name, turn in readers.items():
            start = time.perf_counter()
            turn(max(epoch, 0))
            if epoch >= 0:  # before it: the page cache, lazy imports, the decoder process
                rates[name].append(num_videos / (time.perf_counter() - start))
    return rates


def count_decoded(work: Callable[[], object]) -> int:
    """Frames that come out of FFmpeg's decoder while `work` reads with PyAV, ours (which leaves out some) or pytorchvideo's."""
    count = 0
    real_decoded, real_stream = pyav.decoded, encoded_video_pyav._pyav_decode_stream

    def counted(frames: Iterator[Any]) -> Iterator[Any]:
        nonlocal count
        for frame in frames:
            count += 1
            yield frame

    def stream(container: Any, *arguments: Any, **options: Any) -> Any:
        watched = SimpleNamespace(seek=container.seek, decode=lambda **chosen: counted(container.decode(**chosen)))
        return real_stream(watched, *arguments, **options)

    pyav.decoded = lambda *arguments: counted(real_decoded(*arguments))
    encoded_video_pyav._pyav_decode_stream = stream
    try:
        work()
    finally:
        pyav.decoded, encoded_video_pyav._pyav_decode_stream = real_decoded, real_stream
    return count


def private_megabytes(pid: int) -> float:
    """Memory of a process and its children that they share with nobody."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            total += int(line.split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total / 1024 + sum(private_megabytes(int(child)) for child in children)


def through_workers(videos: Manifest, decoder: Decoder, num_workers: int, num_epochs: int) -> tuple[float, float]:
    """Clips a second through a DataLoader, start left out, and the private memory of its largest worker in MB."""
    keys = [[ClipKey(epoch, row, 0)] for epoch in range(1 + num_epochs) for row in range(len(videos))]
    loader = DataLoader(our_clips(videos, decoder), batch_sampler=keys, num_workers=num_workers, collate_fn=collate)  # type: ignore[arg-type]
    batches = iter(loader)
    for _ in range(len(videos)):
        next(batches)
    start = time.perf_counter()
    memory = 0.0
    for _ in range(len(videos) * num_epochs):
        next(batches)
    seconds = time.perf_counter() - start
    memory = max(private_megabytes(worker.pid) for worker in batches._workers)  # type: ignore[attr-defined]
    return len(videos) * num_epochs / seconds, memory


def full_decode(path: Path) -> None:
    """Every frame to RGB in order, none kept."""
    with open_container(path) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def ten_clips(path: Path, decoder: Decoder) -> None:
    read_views(path, decoder, [(UniformClips(CLIP_LENGTH, FRAME_STRIDE, 10), Crops(CROP_SIZE, SHORT_SIDE[0], crops=1))])


def least_decoded(videos: Manifest, epoch: int) -> float:
    """Frames a clip, in every group of pictures, from the keyframe to the last frame asked for."""
    total = 0
    for row in range(len(videos)):
        with open_container(videos.path(row)) as container:
            found = probe(videos.path(row), container)
        times = np.array(found.times, dtype=np.float64) * float(found.time_base)
        rng = np.random.default_rng([0, epoch, row, 0])
        asked = np.unique(RandomClip(CLIP_LENGTH, FRAME_STRIDE)(times, rng)[0])
        keys = np.flatnonzero(np.isin(found.times, [packet.pts for packet in found.packets if packet.is_keyframe]))
        group = np.searchsorted(keys, asked, side="right") - 1
        total += sum(int(asked[group == number].max() - keys[number] + 1) for number in np.unique(group))
    return total / len(videos)


def measure_test(videos: Manifest, made: dict[str, Decoder], rounds: int) -> dict[str, Any]:
    """Ten clips of every video against one decode of the whole file, in turns; median over videos of the ratio of medians."""
    ratios: dict[str, list[float]] = {name: [] for name in made}
    for row in range(len(videos)):
        path = videos.path(row)
        readers: dict[str, Turn] = {"whole": lambda _: full_decode(path)}  # noqa: B023  (called before the next row)
        readers |= {name: lambda _, own=own: ten_clips(path, own) for name, own in made.items()}  # noqa: B023
        rates = {name: statistics.median(found) for name, found in clips_per_second(readers, 1, rounds).items()}
        for name in made:
            ratios[name].append(rates["whole"] / rates[name])
    decoded = count_decoded(lambda: [ten_clips(videos.path(row), made["pyav"]) for row in range(len(videos))])
    shown = count_decoded(lambda: [PyAVDecoder().open(videos.path(row))._count() for row in range(len(videos))])
    return {
        "time_of_a_whole_decode": {name: statistics.median(found) for name, found in ratios.items()},
        "largest": {name: max(found) for name, found in ratios.items()},
        "frames_decoded_pyav": decoded,
        "frames_of_the_files": shown,
    }


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    made = decoders()
    with tempfile.TemporaryDirectory() as out:
        keys = ["dataset=class_folder", f"dataset.root={folder.absolute()}", f"out={out}"]
        subprocess.run([sys.executable, "-m", "videogn", "prepare", *keys], check=False, stdout=subprocess.DEVNULL)
        raw = ClassFolder(str(folder), None, None, 0, None, 0.5).manifest()
        prepared = ManifestFile(f"{out}/manifest.csv", None, None, 0.5).manifest()
        assert len(raw) == len(prepared), "a video was not prepared"
        sets = {"raw": raw, "prepared": prepared}
        readers: dict[str, Turn] = {}
        for kind, videos in sets.items():
            readers[f"{kind} {PEER}"] = peer(videos)
            # Prepared files are verified: no process is between.
            readers |= {
                f"{kind} {name}": ours(videos, own) for name, own in made.items() if (kind, name) != ("prepared", "isolated")
            }
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        rates = clips_per_second(readers, len(raw), rounds)
        frames = {
            kind: {
                PEER: count_decoded(lambda videos=videos: peer(videos)(0)) / len(videos),
                "pyav": count_decoded(lambda videos=videos: ours(videos, made["pyav"])(0)) / len(videos),
                "least": least_decoded(videos, 0),
            }
            for kind, videos in sets.items()
        }
        direct = {name: own for name, own in made.items() if name != "isolated"}
        test = {kind: measure_test(videos, direct, max(3, rounds // 2)) for kind, videos in sets.items()}
        os.sched_setaffinity(0, cores)
        workers = {
            f"{kind} {name}": measure_workers(sets[kind], made[name], epochs)
            for kind, name, epochs in (("raw", "isolated", 2), ("prepared", "pyav", 12))
            if name in made
        }
    return {
        "videos": [f"{size}, {frames} frames" for size, frames in map(described, map(raw.path, range(len(raw))))],
        "rates": rates,
        "ratios_to_pytorchvideo_raw": ratios(rates, f"raw {PEER}"),
        "ratios_to_pytorchvideo_prepared": ratios(rates, f"prepared {PEER}"),
        "frames_decoded_a_clip": frames,
        "ten_clips": test,
        "workers": workers,
    }


def described(path: Path) -> tuple[str, int]:
    video = PyAVDecoder().open(path)
    video.close()
    return f"{video.width}x{video.height}", video.num_frames


def measure_workers(videos: Manifest, decoder: Decoder, num_epochs: int) -> dict[str, Any]:
    runs = [[through_workers(videos, decoder, count, num_epochs) for count in (1, 2)] for _ in range(3)]
    return {
        "clips_per_second": [statistics.median(run[place][0] for run in runs) for place in (0, 1)],
        "scaling": statistics.median(two[0] / one[0] for one, two in runs),
        "private_megabytes": max(one[1] for one, _ in runs),
    }


def versions() -> list[str]:
    found = []
    for name in ("av", "decord", "torchcodec", PEER, "torch"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def ratios(rates: dict[str, list[float]], base: str) -> dict[str, float]:
    return {name: statistics.median(a / b for a, b in zip(found, rates[base], strict=True)) for name, found in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "date": date.today().isoformat(),
        "command": f"python scripts/bench/loader.py {arguments.folder.name} --rounds {arguments.rounds}",
        "versions": f"{', '.join(versions())}, Python {platform.python_version()}, {platform.machine()}",
        **measure(arguments.folder, arguments.rounds),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_page()


if __name__ == "__main__":
    main()
