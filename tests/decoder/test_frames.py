from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videogn.configuration import compose, instantiate
from videogn.decoder.auto import AutoDecoder
from videogn.decoder.frames import FramesDecoder, natural_order
from videogn.decoder.isolated import IsolatedDecoder
from videogn.types import InputError, ShortRead, Video, VideoError

from .marked_video import marked_picture, marks, psnr


def write_images(folder: Path, numbers, name: str = "img_{:05d}.png", **options) -> Path:
    """The picture of each image is marked with its place."""
    folder.mkdir(exist_ok=True)
    for place, number in enumerate(numbers):
        Image.fromarray(marked_picture(place)).save(folder / name.format(number), **options)
    return folder


ORDERS = ([0, 7, 11], [11, 3, 0], [5, 5, 8, 5], list(range(12)), [])


@pytest.mark.parametrize("pattern", ["*", "img_*.png", "img_{:05d}.png", "img_{:05}.png"])
def test_lossless(pattern, tmp_path):
    video = FramesDecoder(pattern, fps=25).open(write_images(tmp_path / "v", range(1, 13)))
    assert isinstance(video, Video)
    assert (video.num_frames, video.height, video.width, video.fps) == (12, 64, 96, 25)
    assert np.array_equal(video.timestamps, np.arange(12) / 25)
    for order in ORDERS:
        frames = video.frames(order)
        assert frames.shape == (len(order), 64, 96, 3)
        assert all(np.array_equal(frame, marked_picture(index)) for frame, index in zip(frames, order, strict=True))
    video.close()
    video.close()


def test_jpeg(tmp_path):
    video = FramesDecoder().open(write_images(tmp_path / "v", range(5), "{}.jpg", quality=95))
    frames = video.frames([4, 2])
    assert marks(frames) == [4, 2]
    # Colours at half resolution of 8-pixel noise, at this quality; another frame is 10 dB away.
    assert min(psnr(frame, marked_picture(index)) for frame, index in zip(frames, [4, 2], strict=True)) > 20


@pytest.mark.parametrize("name", ["frame{}.png", "{}.png", "a2b{}.png"])
@pytest.mark.parametrize("pattern", ["*", None])
def test_natural_order(name, pattern, tmp_path):
    """1, 2, 10 and not 1, 10, 2."""
    folder = write_images(tmp_path / "v", range(1, 31), name)
    assert marks(FramesDecoder(pattern or name).open(folder).frames(range(30))) == list(range(30))


def test_natural_order_of_any_names():
    names = ["b", "a10", "a2", "2", "10", "a", "a2b3", "a2b12", "a02", ""]
    assert sorted(names, key=natural_order) == ["", "2", "10", "a", "a02", "a2", "a2b3", "a2b12", "a10", "b"]


def test_starts_anywhere(tmp_path):
    folder = write_images(tmp_path / "v", range(998, 1004), "{:03d}.png")  # 998, 999, 1000, ...
    assert marks(FramesDecoder("{:03d}.png").open(folder).frames([0, 5])) == [0, 5]


@pytest.mark.parametrize(
    ("numbers", "text"), [([3, 4, 6], "00005.png is missing$"), ([0, 4, 7], "00001.png is missing, and 4 more$")]
)
def test_gaps(numbers, text, tmp_path):
    folder = write_images(tmp_path / "v", numbers, "{:05d}.png")
    with pytest.raises(VideoError, match=text):
        FramesDecoder("{:05d}.png").open(folder)
    assert FramesDecoder("*").open(folder).num_frames == 3  # nothing says that their names are numbers


def test_other_files_are_no_frames(tmp_path):
    folder = write_images(tmp_path / "v", range(1, 5), "img_{:05d}.png")
    (folder / "Thumbs.db").touch()
    (folder / "._img_00001.png").touch()
    (folder / "img_7.png").touch()  # not what the pattern writes for 7
    (folder / "img_00009.png.txt").touch()
    assert FramesDecoder("img_{:05d}.png").open(folder).num_frames == 4
    (folder / "img_7.png").unlink()
    assert FramesDecoder().open(folder).num_frames == 4


def one(path: Path, image: Image.Image, **options) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)
    frames = FramesDecoder().open(path.parent).frames([0])
    assert frames.dtype == np.uint8
    return frames[0]


@pytest.fixture
def picture() -> np.ndarray:
    return marked_picture(5)


def test_grey(picture, tmp_path):
    frame = one(tmp_path / "v" / "1.png", Image.fromarray(picture[..., 0]))
    assert np.array_equal(frame, picture[..., :1].repeat(3, axis=2))


def test_one_bit(picture, tmp_path):
    frame = one(tmp_path / "v" / "1.png", Image.fromarray(picture[..., 0] > 100))
    assert np.array_equal(frame, np.where(picture[..., :1] > 100, 255, 0).repeat(3, axis=2))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped(alpha, picture, tmp_path):
    with_alpha = np.concatenate([picture, np.full((64, 96, 1), alpha, np.uint8)], axis=2)
    assert np.array_equal(one(tmp_path / "v" / "1.png", Image.fromarray(with_alpha)), picture)


@pytest.mark.parametrize("transparency", [1, bytes([0, 255, 128])])
def test_palette_with_transparency(transparency, tmp_path):
    colours = np.array([[200, 10, 10], [10, 200, 10], [10, 10, 200]], np.uint8)
    indices = np.arange(64 * 96, dtype=np.uint8).reshape(64, 96) % 3
    image = Image.fromarray(indices, mode=None)
    image = image.convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    frame = one(tmp_path / "v" / "1.png", image, transparency=transparency)
    assert np.array_equal(frame, colours[indices])


def test_transparent_grey_keeps_its_colour(tmp_path):
    grey = np.arange(64 * 96, dtype=np.uint32).reshape(64, 96).astype(np.uint8)
    frame = one(tmp_path / "v" / "1.png", Image.fromarray(grey), transparency=7)
    assert np.array_equal(frame, grey[..., None].repeat(3, axis=2))


def test_cmyk(rng, tmp_path):
    inks = rng.integers(0, 256, (64, 96, 4), np.uint8)
    frame = one(tmp_path / "v" / "1.tif", Image.fromarray(inks, mode="CMYK"))
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert np.abs(frame - expected).max() <= 1


def test_16_bits(tmp_path):
    """Scaled, where Pillow's own conversion makes everything above 255 white."""
    grey = (np.arange(64 * 96) * 65535 // (64 * 96 - 1)).reshape(64, 96).astype(np.uint16)
    frame = one(tmp_path / "v" / "1.png", Image.fromarray(grey))
    assert np.array_equal(frame, np.rint(grey / 257).astype(np.uint8)[..., None].repeat(3, axis=2))
    assert (frame[0, 0, 0], frame[-1, -1, 0]) == (0, 255)


TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # orientation -> counter-clockwise quarter turns that undo it (EXIF 2.3, tag 274)


@pytest.mark.parametrize("orientation", TURNS)
def test_upright(orientation, picture, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    folder = tmp_path / "v"
    folder.mkdir()
    Image.fromarray(picture).save(folder / "1.png", exif=exif)
    video = FramesDecoder().open(folder)
    expected = np.rot90(picture, TURNS[orientation])
    assert (video.height, video.width) == expected.shape[:2]
    assert np.array_equal(video.frames([0])[0], expected)


@pytest.mark.parametrize("broken", [0, 4, 9])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros"])
def test_a_broken_image(broken, damage, tmp_path):
    """Its time is left out, and the others keep theirs."""
    folder = write_images(tmp_path / "v", range(10), "{:02d}.jpg")
    path = folder / f"{broken:02d}.jpg"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"<html>", "zeros": bytes(500)}[damage])
    video = FramesDecoder("{:02d}.jpg", fps=10).open(folder)
    assert video.num_frames == 10
    assert marks(video.frames([5, 6])) == [5, 6]  # beside the damage
    with pytest.raises(ShortRead, match="9 images decode of the 10 in the folder"):
        video.frames([broken])
    left = [index for index in range(10) if index != broken]
    assert video.num_frames == 9
    assert video.timestamps == pytest.approx(np.array(left) / 10)
    assert marks(video.frames(range(9))) == left


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("other", ["pipe", "link to a pipe", "link to nothing", "link to a device", "folder"])
def test_what_is_no_regular_file_is_not_opened(other, tmp_path, monkeypatch):
    """Reading a pipe waits for somebody to write to it."""
    folder = write_images(tmp_path / "v", range(5), "{}.png")
    place = folder / "2.png"
    place.unlink()
    if other == "folder":
        place.mkdir()
    elif other == "pipe":
        os.mkfifo(place)
    else:
        os.mkfifo(tmp_path / "pipe")
        place.symlink_to({"link to a pipe": tmp_path / "pipe", "link to a device": "/dev/zero"}.get(other, tmp_path / "none"))
    opened, real_open = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real_open(path))
    video = FramesDecoder(fps=10).open(folder)
    with pytest.raises(ShortRead, match="4 images decode of the 5 in the folder"):
        video.frames([2])
    assert video.timestamps == pytest.approx(np.array([0, 1, 3, 4]) / 10)
    assert marks(video.frames(range(4))) == [0, 1, 3, 4]
    assert place not in opened


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60)])
def test_no_image_decodes(content, tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "1.png").write_bytes(content)
    with pytest.raises(VideoError, match="no image decodes"):
        FramesDecoder().open(folder)


def test_floating_point_and_32_bits_are_not_guessed(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(folder / "1.tif")
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(folder / "2.tif")
    with pytest.raises(VideoError, match="no image decodes"):
        FramesDecoder().open(folder)


@pytest.mark.parametrize("place", [0, 3])
def test_another_size(place, tmp_path):
    folder = write_images(tmp_path / "v", range(5), "{}.png")
    Image.fromarray(np.zeros((96, 64, 3), np.uint8)).save(folder / f"{place}.png")
    video = FramesDecoder().open(folder)
    with pytest.raises(VideoError, match=r"[13]\.png is \d+x\d+, others are \d+x\d+") as caught:
        video.frames([1, 3] if place else [1])
    assert not isinstance(caught.value, ShortRead)


def test_another_size_found_while_recounting(tmp_path):
    folder = write_images(tmp_path / "v", range(5), "{}.png")
    (folder / "1.png").write_bytes(b"")
    Image.fromarray(np.zeros((96, 64, 3), np.uint8)).save(folder / "3.png")
    with pytest.raises(VideoError, match=r"3\.png is 64x96, others are 96x64"):
        FramesDecoder().open(folder).frames([1])


def test_no_folder(tmp_path):
    (tmp_path / "file.mp4").touch()
    (tmp_path / "empty").mkdir()
    for name, reason in (("missing", "no such folder"), ("file.mp4", "no such folder"), ("empty", r"holds no image \*\.jpg")):
        with pytest.raises(VideoError, match=reason) as caught:
            FramesDecoder("*.jpg").open(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("index", [-1, 5])
def test_index_out_of_range(index, tmp_path):
    with pytest.raises(IndexError, match=f"frame {index} of a video of 5"):
        FramesDecoder().open(write_images(tmp_path / "v", range(5))).frames([index])


@pytest.mark.parametrize("pattern", ["{}{}.jpg", "{name}.jpg", "{:05q}.jpg", "a/{}.jpg", "{", "{:.0s}.jpg"])
def test_bad_pattern(pattern):
    with pytest.raises(InputError, match=r"is no name with one number in it; examples: 'img_\{:05d\}\.jpg'"):
        FramesDecoder(pattern)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf"), "abc", True])
def test_bad_rate(fps):
    with pytest.raises(InputError, match=f"fps={fps}; give frames per second above 0"):
        inspect.unwrap(FramesDecoder.__init__)(FramesDecoder(), fps=fps)


@pytest.mark.parametrize("isolated", [False, True])
def test_auto_opens_folders(isolated, tmp_path):
    folder = write_images(tmp_path / "v", range(1, 13))
    decoder = AutoDecoder(frames=FramesDecoder("img_{:05d}.png", fps=5))
    video = (IsolatedDecoder(decoder) if isolated else decoder).open(folder)
    assert (video.num_frames, video.fps) == (12, 5)
    assert marks(video.frames([11, 1])) == [11, 1]
    assert AutoDecoder().open(folder).fps == 30


@pytest.mark.parametrize(
    "overrides",
    [
        ["decoder=auto", "decoder.frames.fps=5"],
        ["decoder=isolated", "decoder.decoder.frames.fps=5"],
        ["decoder=frames", "decoder.fps=5"],
    ],
)
def test_by_configuration(overrides, tmp_path):
    folder = write_images(tmp_path / "v", range(3))
    assert instantiate(compose("train", overrides).decoder).open(folder).fps == 5


def test_pickles(tmp_path):
    folder = write_images(tmp_path / "v", range(5))
    decoder = pickle.loads(pickle.dumps(FramesDecoder("img_{:05d}.png")))
    assert (decoder.name, marks(decoder.open(folder).frames([4]))) == ("frames", [4])
