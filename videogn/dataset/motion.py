"""The built-in data: short H.264 videos of a moving scene behind a still foreground; the class is the movement.

Ten classes. Eight are four pairs that differ by time order alone (each is the other played backwards):
move_left and move_right, move_up and move_down, rotate_clockwise and rotate_counterclockwise, zoom_in and zoom_out. Two swing
to and fro: swing_horizontal, swing_vertical.

No single frame tells the class. Whatever the class, the scene's place is uniform (it is periodic and has no border), its angle
uniform, its scale log-uniform; only how they change with time differs. (A growing scale starts anew from the smallest.)
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from rich.progress import track

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest, validated
from videogn.number import is_count
from videogn.types import InputError

CLASSES = (
    "move_down",
    "move_left",
    "move_right",
    "move_up",
    "rotate_clockwise",
    "rotate_counterclockwise",
    "swing_horizontal",
    "swing_vertical",
    "zoom_in",
    "zoom_out",
)
Writer = Callable[[Path, Iterable[UInt8[np.ndarray, "H W 3"]], float], None]

_VERSION = 1  # raised whenever the same seed would draw other videos
_SIZES = (64, 72, 80)  # frame height and width in pixels, even for 4:2:0
_NUM_FRAMES = (32, 48)
_FPS = (20.0, 30.0)
_SCENE = 128  # height and width of the scene's texture, of which the frame shows about half
_LOG_SCALE = (np.log(0.6), np.log(1.5))  # of the scene; at 1 the frame is as wide as half the scene


class Motion:
    """Writes the videos once, deterministic for its seed, and lists them.

    Args:
        root: folder for the videos and their manifest; written as a whole or not at all.
        seed: of everything random in them.
        num_train, num_val, num_test: videos per class.
        writer: writes one video; called as writer(path, frames, fps).
        flip: probability that a training clip is mirrored, false is 0 and true 0.5; left and right are classes here, so 0.
    """

    name = "motion"

    def __init__(
        self, root: str, seed: int, num_train: int, num_val: int, num_test: int, writer: Writer, flip: float | int
    ) -> None:
        for split, count in (("train", num_train), ("val", num_val), ("test", num_test)):
            if not is_count(count, 0):
                raise InputError(f"dataset.num_{split}={count}: give a whole number of videos a class, from 0 up")
        self.flip = flip
        self._root = Path(root)
        self._seed = seed
        self._counts = {"train": num_train, "val": num_val, "test": num_test}
        self._writer = writer

    def prepare(self) -> None:
        """Write the videos unless they are there.

        Raises:
            InputError: the folder holds something else, or cannot be written.
        """
        stamp = self._root / "motion.json"
        if stamp.is_file():
            if json.loads(stamp.read_text()) == self._recipe():
                return
            raise InputError(
                f"dataset.root: {self._root}: holds motion videos of another recipe ({stamp.name}); remove the folder or give "
                "another dataset.root"
            )
        if self._root.exists() and any(self._root.iterdir()):
            raise InputError(f"dataset.root: {self._root}: not empty and no motion data; give another dataset.root")
        try:
            self._root.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{self._root.name}-", dir=self._root.parent))
        except OSError as error:
            raise InputError(f"dataset.root: {self._root}: cannot be written: {error.strerror}; give a folder that can") from None
        try:
            self._write(unfinished)
            unfinished.chmod(0o755)
            if self._root.is_dir():
                self._root.rmdir()
            os.replace(unfinished, self._root)
        except OSError:
            # Another process of the same sweep was faster: its videos are the same.
            if not stamp.is_file():
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def manifest(self) -> Manifest:
        entries = []
        for split, count in self._counts.items():
            for label in CLASSES:
                for number in range(count):
                    path = f"{split}/{label}/{number:03d}.mp4"
                    file = self._root / path
                    # We wrote it: there is nothing to verify.
                    num_bytes = file.stat().st_size if file.is_file() else 0
                    entries.append(Entry(path, label, path, split, num_bytes))
        return validated(self._root, entries, CLASSES, f"dataset.root: {self._root}")

    def _recipe(self) -> dict[str, Any]:
        return {"version": _VERSION, "seed": self._seed, "videos_per_class": self._counts}

    def _write(self, folder: Path) -> None:
        paths = [
            folder / split / label / f"{number:03d}.mp4"
            for split, count in self._counts.items()
            for label in CLASSES
            for number in range(count)
        ]
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True)

        def write(path: Path) -> None:
            # Keyed by the name, so that more videos of a class leave the others as they are.
            key = [self._seed, *path.relative_to(folder).as_posix().encode()]
            frames, fps = draw_video(path.parent.name, np.random.default_rng(key))
            self._writer(path, frames, fps)

        # numpy and the encoder release the GIL.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in track(pool.map(write, paths), f"Writing {len(paths)} motion videos", total=len(paths), transient=True):
                pass
        with (folder / "manifest.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(Entry._fields)
            for path in paths:
                name = path.relative_to(folder).as_posix()
                rows.writerow(Entry(name, path.parent.name, name, path.parent.parent.name))
        (folder / "motion.json").write_text(json.dumps(self._recipe(), indent=2))


def draw_video(label: str, rng: np.random.Generator) -> tuple[Iterator[UInt8[np.ndarray, "H W 3"]], float]:
    """Frames of one video of class `label`, and its frame rate in frames per second."""
    height, width = rng.choice(_SIZES, size=2).tolist()
    num_frames = int(rng.integers(_NUM_FRAMES[0], _NUM_FRAMES[1] + 1))
    fps = float(rng.uniform(*_FPS))
    x, y, angle, log_scale = trajectory(label, num_frames, rng)
    scene = _scene(rng)
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    grid_x, grid_y = grid_x / width - 0.5, grid_y / height - 0.5
    standing = _standing(grid_x, grid_y, rng)
    grain = rng.normal(0, rng.uniform(0, 4), (num_frames, height // 2, width // 2, 1))

    def frames() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for t in range(num_frames):
            # From the frame's axes into the scene's: a scene that grows or turns is looked up smaller or turned back.
            zoom = _SCENE / 2 / np.exp(log_scale[t])
            cos, sin = np.cos(angle[t]) * zoom, np.sin(angle[t]) * zoom
            dx, dy = grid_x - x[t], grid_y - y[t]
            column = np.floor(cos * dx + sin * dy).astype(np.int32) % _SCENE
            row = np.floor(cos * dy - sin * dx).astype(np.int32) % _SCENE
            frame = scene[row, column] * (1 - standing[..., 3:]) + standing[..., :3] * standing[..., 3:]
            frame += grain[t].repeat(2, 0).repeat(2, 1)
            yield np.clip(frame, 0, 255).astype(np.uint8)

    return frames(), fps


def trajectory(
    label: str, num_frames: int, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, " T"], Float32[np.ndarray, " T"], Float32[np.ndarray, " T"], Float32[np.ndarray, " T"]]:
    """x and y (fractions of the frame, from its centre), angle (radians) and log scale of the scene at every frame."""
    t = np.arange(num_frames, dtype=np.float32)
    still = np.zeros(num_frames, np.float32)
    x, y = rng.uniform(-0.3, 0.3, 2)
    angle = rng.uniform(0, 2 * np.pi)
    low, high = _LOG_SCALE
    phase = rng.uniform(0, 1)
    pace = rng.uniform(0.7, 1.4)
    move = pace * 0.024 * t  # frame widths
    turn = pace * 0.07 * t  # radians
    grow = pace * 0.036 * t  # of the range of log scales, which wraps round
    swing = 0.12 * np.sin(pace * 0.45 * t + rng.uniform(0, 2 * np.pi))  # frame widths
    dx = {"move_left": -move, "move_right": move, "swing_horizontal": swing}.get(label, still)
    dy = {"move_up": -move, "move_down": move, "swing_vertical": swing}.get(label, still)
    # y points down, so a growing angle turns clockwise.
    da = {"rotate_clockwise": turn, "rotate_counterclockwise": -turn}.get(label, still)
    ds = {"zoom_in": grow, "zoom_out": -grow}.get(label, still)
    log_scale = low + (phase + ds) % 1 * (high - low)
    columns = (x + dx, y + dy, angle + da, log_scale)
    return tuple(np.asarray(c, np.float32) for c in columns)  # pyright: ignore[reportReturnType]


def _scene(rng: np.random.Generator) -> Float32[np.ndarray, "S S 3"]:
    """A textured plane with a few shapes of another texture on it, periodic, on the 0..255 scale, at a random place."""
    scene, other = _texture(rng, _SCENE), _texture(rng, _SCENE)
    position = (np.arange(_SCENE, dtype=np.float32) + 0.5) / _SCENE
    for _ in range(rng.integers(3, 7)):
        mask = _shape(position[None], position[:, None], rng, rng.uniform(0.06, 0.14))[..., None]
        scene = scene * (1 - mask) + other * mask
    return np.roll(scene, rng.integers(_SCENE, size=2), (0, 1))


def _standing(
    grid_x: Float32[np.ndarray, "H W"], grid_y: Float32[np.ndarray, "H W"], rng: np.random.Generator
) -> Float32[np.ndarray, "H W 4"]:
    """What stands still before the scene: no shape, one or two; colour on the 0..255 scale and coverage on 0..1."""
    coverage = np.zeros_like(grid_x)
    for _ in range(rng.integers(3)):
        coverage = np.maximum(coverage, _shape(grid_x + 0.5, grid_y + 0.5, rng, rng.uniform(0.08, 0.2)))
    colour = np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), (*grid_x.shape, 3))
    return np.concatenate([colour, coverage[..., None]], axis=2)


def _shape(
    x: Float32[np.ndarray, ...], y: Float32[np.ndarray, ...], rng: np.random.Generator, radius: float
) -> Float32[np.ndarray, "H W"]:
    """Coverage of an ellipse, a box or a triangle at a random place on the unit torus."""
    centre_x, centre_y, angle = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0, 2 * np.pi)
    dx, dy = (x - centre_x + 0.5) % 1 - 0.5, (y - centre_y + 0.5) % 1 - 0.5
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / radius
    aspect = rng.uniform(0.5, 1.0)
    kind = rng.integers(3)
    if kind == 0:
        distance = np.sqrt(u**2 + (v / aspect) ** 2) - 1
    elif kind == 1:
        distance = np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.9 * aspect)
    else:
        distance = np.maximum(-v - 0.5, 0.866 * np.abs(u) + 0.5 * v - 0.6)
    return np.clip(0.5 - distance * 6, 0, 1).astype(np.float32)


def _texture(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "S S 3"]:
    """Noise of several octaves between two random colours, periodic, on the 0..255 scale."""
    height = np.zeros((size, size), np.float32)
    slope = rng.uniform(0.2, 0.8)
    for octave in range(3, 6):
        cells = 2**octave + 1
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        position = np.arange(size, dtype=np.float32) * cells / size
        low = position.astype(int)
        weight = position - low
        weight = weight * weight * (3 - 2 * weight)
        high = (low + 1) % cells
        rows = grid[low] * (1 - weight)[:, None] + grid[high] * weight[:, None]
        height += (rows[:, low] * (1 - weight) + rows[:, high] * weight) * 2 ** (-slope * octave)
    # Near 0 and 1 more often than between, and one colour much lighter than the other: a texture that can be seen to move.
    height = 1 / (1 + np.exp(-3 * (height - height.mean()) / height.std()))
    dark, light = rng.uniform(0, 110, 3), rng.uniform(145, 255, 3)
    return (height[..., None] * dark + (1 - height[..., None]) * light).astype(np.float32)
