"""Decoders with every fault, by the name of the file; imported in decoder processes, by its own name."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from pathlib import Path

import numpy as np

from videogn.types import Declined, ShortRead, VideoError


def hang(path):
    ctypes.PyDLL(None).pause()  # PyDLL keeps the GIL: no thread and no handler of this process runs again


def endless(path):
    for _ in itertools.count():
        pass


def crash(path):
    ctypes.string_at(0)


def leave(path):
    os._exit(3)


def grow(path):
    kept = []
    for _ in range(4000):  # 16 GiB at most, so that a broken limit does not take the machine along
        kept.append(bytearray(4 * 2**20))


def cannot_read(path):
    raise VideoError(path, "a stated reason")


def decline(path):
    raise Declined(path, "a stated rule")


def noisy(path):
    os.write(2, b"noise")  # as FFmpeg does
    raise OSError("noisy")


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def unpicklable(path):
    raise UnpicklableError("one", "two")


FAULTS = {f.__name__: f for f in (hang, endless, crash, leave, grow, cannot_read, decline, noisy, unpicklable)}


class FaultyDecoder:
    """open_FAULT.mp4 fails when it is opened, FAULT.mp4 when frames are read; any other name is a good video."""

    name = "faulty"

    def open(self, path):
        return FaultyVideo(path)


class FaultyVideo:
    """Ten frames of 40 x 60; the red of a frame is 10 x its index plus what the file's name has after a dash."""

    def __init__(self, path):
        self.path, name = path, Path(path).stem
        if name.startswith("open_"):
            FAULTS[name[5:]](path)
        self.name, self.base = name, int(name.partition("-")[2] or 0)
        self.timestamps, self.num_frames = np.arange(10.0), 10
        self.fps, self.height, self.width = 25.0, 40, 60
        if name == "large":
            self.height, self.width = 1000, 2000

    def frames(self, indices):
        if self.name in FAULTS:
            FAULTS[self.name](self.path)
        if self.name == "short" and self.num_frames == 10:
            self.timestamps, self.num_frames = self.timestamps[:7], 7
            raise ShortRead(self.path, "7 frames decode of the 10 promised")
        if self.name == "fewer":
            indices = indices[1:]
        if self.name in ("larger", "turned"):
            height, width = (80, 60) if self.name == "larger" else (60, 40)
            return np.zeros((len(indices), height, width, 3), np.uint8)
        out = np.zeros((len(indices), self.height, self.width, 3), np.uint8)
        for place, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self.path}: frame {index} of a video of {self.num_frames}")
            out[place, :, :, 0] = 10 * index + self.base
        return out

    def close(self):
        if self.name == "close_hang":
            hang(self.path)


class LeakyDecoder:
    """Keeps 8 MiB of every video, as decord does with some."""

    name = "leaky"

    def __init__(self):
        self.kept = []

    def open(self, path):
        self.kept.append(bytearray(8 * 2**20))
        return FaultyVideo(path)


class ModulesDecoder:
    """Tells what is imported in the process, in place of opening a video."""

    name = "modules"

    def open(self, path):
        raise VideoError(path, " ".join(sorted(sys.modules)))


class StateDecoder:
    """Tells whether Ctrl-C is ignored, and how many videos were not yet closed."""

    name = "state"
    open_videos = 0

    def open(self, path):
        StateDecoder.open_videos += 1
        if Path(path).stem == "count":
            raise VideoError(path, str(StateDecoder.open_videos))
        return CountedVideo(path)


class CountedVideo(FaultyVideo):
    def close(self):
        StateDecoder.open_videos -= 1


class UnloadableDecoder:
    name = "unloadable"

    def open(self, path): ...

    def __reduce__(self):
        return (unload, ())


def unload():
    raise ModuleNotFoundError("No module named 'mine'")


class FaultyClips:
    """A data set for loader workers: the red of the first pixel of frames 3 and 1, or the reason."""

    def __init__(self, decoder, paths):
        self.decoder, self.paths = decoder, paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        try:
            video = self.decoder.open(self.paths[row])
            red = video.frames([3, 1])[:, 0, 0, 0].tolist()
            video.close()
        except VideoError as error:
            return error.reason
        return red
