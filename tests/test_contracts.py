"""Every file of conf/<room>/ against the contract of its room (DESIGN: one module, one conf file, one test)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from videogn import configuration
from videogn.configuration import compose, instantiate, prepared_dataset
from videogn.dataset.class_folder import ClassFolder
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.preparation.prepare import Limits, prepare, write_lists
from videogn.preparation.transcode import Settings
from videogn.types import Decoder, InputError, Sampler, TrainingTransform, Video, VideoError, ViewTransform


def entries(room: str) -> list[str]:
    found = sorted(path.stem for path in (configuration.CONF / room).glob("*.yaml"))
    assert found, f"conf/{room} is empty"
    return found


def entry(room: str, name: str, *overrides: str) -> DictConfig:
    """The group of the composed configuration, so that what it takes from other keys is there."""
    return compose("train", [f"{room}={name}", *overrides])[room]


def standalone(room: str, name: str) -> DictConfig:
    """One conf file, with the values of train.yaml that it refers to."""
    base = compose("train")
    OmegaConf.set_struct(base, False)
    config = OmegaConf.merge(base, {"contract": OmegaConf.load(configuration.CONF / room / f"{name}.yaml")})
    return config.contract


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir()
        for i in range(3):
            frames = rng.integers(0, 256, (12 + i, 34, 46, 3), np.uint8)
            write_video(folder / label / f"{i}.mp4", iter(frames), 25.0)
    return folder


@pytest.mark.parametrize("name", entries("norm"))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["NCDHW", "NDHWC"])
def test_norm(name: str, layout: torch.memory_format) -> None:
    make = instantiate(entry("norm", name))
    x = torch.randn(2, 64, 3, 5, 5).to(memory_format=layout)
    residual = torch.randn_like(x)
    plain, fused = make(64), make(64, activation="relu")
    y = fused(x, residual)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.is_contiguous(memory_format=layout)
    # The tail belongs to the layer. Sums in another order: a few roundings of values below 10.
    torch.testing.assert_close(y, torch.relu(plain(x) + residual), atol=1e-5, rtol=0)
    assert {id(p) for p in fused.no_decay_parameters()} == {id(p) for p in fused.parameters()}
    assert "64" in repr(fused)
    if [parameter for parameter in fused.parameters() if parameter.requires_grad]:
        torch.testing.assert_close(make(64, zero_init=True)(x, residual), residual, atol=0, rtol=0)
    else:
        with pytest.raises(InputError, match=r"model\.zero_init=false"):
            make(64, zero_init=True)


@pytest.mark.turns
@pytest.mark.filterwarnings("ignore:GroupNorm. num_groups=32 does not divide")
@pytest.mark.parametrize("name", entries("model"))
def test_model(name: str) -> None:
    config = compose("train", [f"model={name}", "norm.on_indivisible=nearest"])
    network = instantiate(config.model)(num_classes=7, norm=instantiate(config.norm), conv=instantiate(config.conv))
    with torch.device("meta"):
        clips = torch.empty(2, 3, 16, 64, 64)
        network = network.to_empty(device="meta").eval()
        assert network(clips).shape == (2, 7)
        assert network.features(clips).ndim == 2


@pytest.mark.parametrize("name", entries("decoder"))
def test_decoder(name: str, videos: Path, tmp_path: Path) -> None:
    try:
        decoder = instantiate(entry("decoder", name))
    except InputError as error:
        pytest.skip(str(error))
    assert isinstance(decoder, Decoder)
    decoder = pickle.loads(pickle.dumps(decoder))  # loader workers get it this way where they do not fork
    video = decoder.open(as_images(videos / "a" / "2.mp4", tmp_path) if name == "frames" else videos / "a" / "2.mp4")
    assert isinstance(video, Video)
    assert (video.num_frames, video.height, video.width) == (14, 34, 46)
    assert len(video.timestamps) == 14
    assert (np.diff(video.timestamps) > 0).all()
    frames = video.frames([9, 0, 9])
    assert frames.dtype == np.uint8
    assert frames.shape == (3, 34, 46, 3)
    assert np.array_equal(frames[0], frames[2])
    assert not np.array_equal(frames[0], frames[1])
    video.close()
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError) as error:
        decoder.open(tmp_path / "empty.mp4")
    assert error.value.path.endswith("empty.mp4")
    assert "\n" not in error.value.reason


def as_images(path: Path, tmp_path: Path) -> Path:
    video = PyAVDecoder().open(path)
    for index, frame in enumerate(video.frames(range(video.num_frames))):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("name", entries("sampler"))
@pytest.mark.parametrize("num_frames", [1, 5, 500])
def test_sampler(name: str, num_frames: int) -> None:
    sampler = instantiate(standalone("sampler", name))
    assert isinstance(sampler, Sampler)
    timestamps = np.arange(float(num_frames))
    one, other = (sampler(timestamps, np.random.default_rng(5)) for _ in range(2))
    assert one.shape[1] == sampler.clip_length
    assert len(one) == sampler.num_clips if sampler.num_clips is not None else len(one) >= 1
    assert np.array_equal(one, other)
    assert one.min() >= 0
    assert one.max() < num_frames


@pytest.mark.parametrize("name", entries("transform"))
@pytest.mark.parametrize("size", [(90, 161), (161, 91), (64, 64)])
def test_transform(name: str, size: tuple[int, int]) -> None:
    transform = instantiate(standalone("transform", name))
    assert isinstance(transform, (TrainingTransform, ViewTransform))
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    if isinstance(transform, TrainingTransform):
        windows = [transform.draw(*size, np.random.default_rng(seed)) for seed in range(20)]
        assert windows == [transform.draw(*size, np.random.default_rng(seed)) for seed in range(20)]
    else:
        windows = transform.windows(*size)
    for window in windows:
        assert 0 <= window.top <= window.top + window.height <= size[0]
        assert 0 <= window.left <= window.left + window.width <= size[1]
        clip = transform.cut(frames, window)
        assert clip.dtype == torch.uint8
        if isinstance(transform, TrainingTransform) or transform.crop_size is not None:
            assert clip.shape == (3, 64, 64, 3)
        else:
            assert min(clip.shape[1:3]) == transform.short_side
        # The same window for every frame: a clip of one frame repeated has equal frames.
        still = transform.cut(np.repeat(frames[:1], 3, 0), window)
        assert torch.equal(still[0], still[2])


def dataset_overrides(name: str, videos: Path, tmp_path: Path) -> list[str]:
    """The arguments by which each data set finds a few small videos."""
    rows = [f"{label}/{i}.mp4" for label in "ab" for i in range(3)]
    if name == "manifest":
        splits = ("train", "val", "test")
        lines = ["path,label,split", *(f"{row},{row[0]},{splits[int(row[2])]}" for row in rows)]
        (tmp_path / "m.csv").write_text("\n".join(lines))
        return [f"dataset.path={tmp_path}/m.csv", f"dataset.root={videos}"]
    if name == "path_list":
        (tmp_path / "list.txt").write_text("\n".join(f"{row} {row[0]}" for row in rows))
        return [f"dataset.path={tmp_path}/list.txt", f"dataset.root={videos}"]
    if name == "shards":
        manifest = ClassFolder(str(videos), None, None, 0, None, 0.5).manifest()
        prepared = prepare(manifest, tmp_path / "s", Settings(), Limits(1, 60, 2**32), lambda progress: None, 2**20)
        write_lists(prepared, manifest, tmp_path / "s", True, True)
        return [f"dataset.root={tmp_path}/s"]
    if name in ("kinetics", "ucf101", "hmdb51", "something_something_v2"):
        return published(name, tmp_path)
    if name == "motion":
        return [f"dataset.root={tmp_path}/motion", "dataset.num_train=1", "dataset.num_val=1", "dataset.num_test=1"]
    if name == "frames":
        for row in rows:
            (tmp_path / row).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / row / "1.png")
        return [f"dataset.root={tmp_path}"]
    return [f"dataset.root={videos}"]


def published(name: str, root: Path) -> list[str]:
    """Two classes in the layout of a public set, of empty files, which a manifest does not open."""
    (root / "labels").mkdir()
    files = {
        "kinetics": {
            f"{split}.csv": f"label,youtube_id,time_start,time_end,split\nabseiling,{split}-one,1,11,{split}\n"
            f"yoga,{split}-two,2,12,{split}\n"
            for split in ("train", "val", "test")
        },
        "ucf101": {
            "trainlist01.txt": "".join(f"{c}/v_{c}_g0{g}_c01.avi 1\n" for c in ("Archery", "Biking") for g in range(1, 9)),
            "testlist01.txt": "Archery/v_Archery_g09_c01.avi\nBiking/v_Biking_g09_c01.avi\n",
        },
        "hmdb51": {
            f"{c}_test_split1.txt": "".join(f"film{i}_{c}_f_cm_np1_fr_med_0.avi {1 if i < 8 else 2} \n" for i in range(9))
            for c in ("climb", "run")
        },
        "something_something_v2": {
            f"something-something-v2-{split}.json": json.dumps(
                [
                    {"id": f"{number}1", "label": "opening a door", "template": "Opening [something]"},
                    {"id": f"{number}2", "label": "closing a door", "template": "Closing [something]"},
                ]
            )
            for number, split in enumerate(("train", "validation"))
        },
    }[name]
    for file, text in files.items():
        (root / "labels" / file).write_text(text)
    videos = {
        "kinetics": [f"{s}-{n}_{i:06d}_{i + 10:06d}.mp4" for s in ("train", "val", "test") for i, n in ((1, "one"), (2, "two"))],
        "ucf101": [f"v_{c}_g0{g}_c01.avi" for c in ("Archery", "Biking") for g in range(1, 10)],
        "hmdb51": [f"film{i}_{c}_f_cm_np1_fr_med_0.avi" for c in ("climb", "run") for i in range(9)],
        "something_something_v2": [f"{n}{i}.webm" for n in range(2) for i in (1, 2)],
    }[name]
    for video in videos:
        (root / video).touch()
    return [f"dataset.root={root}", f"dataset.annotations={root}/labels"]


@pytest.mark.parametrize("name", entries("dataset"))
def test_dataset(name: str, videos: Path, tmp_path: Path) -> None:
    dataset = prepared_dataset(entry("dataset", name, *dataset_overrides(name, videos, tmp_path)))
    assert dataset.name
    assert 0 <= dataset.flip <= 1
    manifest = dataset.manifest()
    assert len(manifest.classes) >= 2
    assert len(manifest.split("train"))
    ids = {s: {e.video_id for e in manifest.split(s).entries} for s in ("train", "val", "test")}
    assert not ids["train"] & ids["val"]
    assert not ids["train"] & ids["test"]
    if hasattr(dataset, "reads_with"):
        decoder = dataset.reads_with(PyAVDecoder())
        assert isinstance(decoder, Decoder)
        for i in range(len(manifest)):
            decoder.open(manifest.path(i)).close()
    else:
        assert all(manifest.path(i).exists() for i in range(len(manifest)))
    assert manifest == dataset.manifest()


@pytest.mark.parametrize("name", entries("evaluation"))
def test_evaluation(name: str) -> None:
    config = compose("train", [f"evaluation={name}"]).evaluation
    assert list(config) == [name]
    protocol = instantiate(config[name])
    facts = protocol.describe("pyav")
    fields = {"clip_length", "frame_stride", "clip_rule", "num_clips", "crops", "short_side", "aggregation", "decoder"}
    assert fields <= facts.keys()
    assert protocol.num_views == (None if facts["num_clips"] is None else facts["num_clips"] * facts["crops"])


def test_protocols_do_not_merge() -> None:
    names = entries("evaluation")
    config = compose("train", [f"evaluation=[{','.join(names)}]"]).evaluation
    assert sorted(config) == names
    alone = {name: compose("train", [f"evaluation={name}"]).evaluation[name] for name in names}
    assert all(config[name] == alone[name] for name in names)
