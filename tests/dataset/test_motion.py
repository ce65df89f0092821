"""The built-in videos: deterministic, whole or absent, and alike in every single frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest

from videogn.dataset.motion import CLASSES, Motion, draw_video, trajectory
from videogn.encoder.pyav import write_video
from videogn.types import InputError


def motion(root: Path, seed: int = 0, num_train: int = 1, writer=write_video) -> Motion:
    return Motion(str(root), seed, num_train, 1, 0, writer, 0.0)


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.mp4"))}


def test_same_seed_same_bytes_another_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        motion(tmp_path / name, seed).prepare()
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(content(tmp_path / "a")) == 2 * len(CLASSES)
    assert not set(content(tmp_path / "a").values()) & set(content(tmp_path / "c").values())


def test_more_videos_leave_the_others_as_they_are(tmp_path: Path) -> None:
    motion(tmp_path / "a").prepare()
    motion(tmp_path / "b", num_train=2).prepare()
    more = content(tmp_path / "b")
    assert content(tmp_path / "a").items() <= more.items()
    assert len(more) == 3 * len(CLASSES)


def test_files_are_h264_and_listed(tmp_path: Path) -> None:
    data = motion(tmp_path / "m")
    data.prepare()
    manifest = data.manifest()
    assert manifest.classes == CLASSES
    sizes = set()
    for index in range(len(manifest)):
        with av.open(manifest.path(index)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            sizes.add((stream.height, stream.width))
    assert len(sizes) > 3


def test_prepare_writes_once_and_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    motion(tmp_path / "m").prepare()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "m").rglob("*")}
    motion(tmp_path / "m").prepare()
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "m").rglob("*")}
    with pytest.raises(InputError, match=r"another recipe.*remove the folder or give another dataset\.root"):
        motion(tmp_path / "m", seed=1).prepare()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.mp4").touch()
    with pytest.raises(InputError, match="not empty and no motion data"):
        motion(tmp_path / "other").prepare()


def test_nothing_is_left_of_a_writing_that_stopped(tmp_path: Path) -> None:
    def fails(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
        if "zoom" in path.as_posix():
            raise KeyboardInterrupt
        write_video(path, frames, fps)

    with pytest.raises(KeyboardInterrupt):
        motion(tmp_path / "m", writer=fails).prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written"):
        motion(tmp_path / "file" / "m").prepare()


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ("move_left", "move_right"),
        ("move_up", "move_down"),
        ("rotate_clockwise", "rotate_counterclockwise"),
        ("zoom_in", "zoom_out"),
    ],
)
def test_a_pair_differs_by_time_order_alone(forward: str, backward: str) -> None:
    one, other = (np.stack(trajectory(label, 40, np.random.default_rng(3))) for label in (forward, backward))
    steps, others = np.diff(one), np.diff(other)
    # Where a growing scale starts anew the step is the size of the range; elsewhere the steps are each other's negative.
    smooth = (np.abs(steps) < 0.5).all(0) & (np.abs(others) < 0.5).all(0)
    assert smooth.sum() > 30
    np.testing.assert_allclose(steps[:, smooth], -others[:, smooth], atol=1e-5)
    assert np.abs(steps).max() > 0


def test_first_frames_are_alike_in_all_classes() -> None:
    """Mean brightness and contrast of first and last frames: classes differ no more than samples of one class do."""
    count = 60
    means = {}
    for label in CLASSES:
        values = []
        for seed in range(count):
            frames, _ = draw_video(label, np.random.default_rng([seed, len(label)]))
            picture = next(iter(frames)).astype(np.float64)
            values.append([picture.mean(), picture.std(), np.abs(np.diff(picture, axis=1)).mean()])
        means[label] = np.array(values)
    everything = np.concatenate(list(means.values()))
    # The mean of `count` samples strays by std / sqrt(count); ten classes x three figures stay within four of those.
    bound = 4 * everything.std(0) / np.sqrt(count)
    for label, values in means.items():
        assert (np.abs(values.mean(0) - everything.mean(0)) < bound).all(), label
