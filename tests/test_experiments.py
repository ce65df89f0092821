"""Every file of conf/experiment composes to a training that can be, says what it asks, and the paper's are the paper's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from videogn.cli.values import check_values
from videogn.configuration import compose, instantiate, resolved
from videogn.prediction.load import build_network
from videogn.training.loss import CrossEntropy

FOLDER = Path(__file__).parents[1] / "conf/experiment"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
KINETICS = [f"{model}_{clip}" for model in ("i3d_r50", "i3d_r101", "c2d_r50") for clip in ("32x2", "64x1", "8x8")]


def jobs(name: str) -> Iterator[list[str]]:
    """The words of every case of the file, and of the first value of what it varies."""
    config = compose("train", [f"experiment={name}", "dataset.root=x"])
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    words = [f"{key}={str(values).split(',')[0]}" for key, values in params.items()]
    cases: Any = OmegaConf.to_container(config.cases) if config.cases is not None else [{}]
    for case in cases:
        yield [*words, *(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in case.items())]


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_question_command_and_answer(name: str) -> None:
    package, question, command, answer = (FOLDER / f"{name}.yaml").read_text().splitlines()[:4]
    assert package == "# @package _global_"
    assert "?" in question or question.startswith("# The same as kinetics400_")
    assert command.startswith(f"# videogn train experiment={name}")
    assert re.search(r"Not measured yet|\d", answer)


@pytest.mark.turns
@pytest.mark.parametrize("name", NAMES)
def test_every_job_of_it_is_a_training_that_can_be(name: str) -> None:
    for words in jobs(name):
        config = compose("train", [f"experiment={name}", "dataset.root=x", *words])
        check_values(config)
        OmegaConf.update(config, "total_steps", 100)
        OmegaConf.update(config, "out", "x")
        values = resolved(config)
        with torch.device("meta"):
            network = build_network(config, 10)
        for part in ("sampler", "transform", "decoder", "loss", "validation", "appearance", "mixing"):
            instantiate(values[part])
        for part in values["evaluation"].values():
            instantiate(part)
        optimizer = instantiate(values["optimizer"])(network.parameters())
        instantiate(values["schedule"])(optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_another_protocol_takes_the_place_of_its_own(name: str) -> None:
    """Values that a file gives to a protocol would stay behind."""
    config = compose("train", [f"experiment={name}", "dataset.root=x", "evaluation=one_clip"])
    check_values(config)
    assert list(config.evaluation) == ["one_clip"]


@pytest.mark.parametrize("name", KINETICS)
def test_the_recipe_is_the_papers(name: str) -> None:
    """Wang et al. 2018 and its code, and Wu & He 2018, section 4.3: no number of theirs is another here."""
    config = resolved(
        OmegaConf.merge(
            compose("train", [f"experiment=kinetics400_{name}", "dataset.root=x"]), {"total_steps": 400_000, "out": "x"}
        )
    )  # pyright: ignore
    model, clip = name.rsplit("_", 1)
    length, stride = map(int, clip.split("x"))
    assert (config["clip_length"], config["frame_stride"]) == (length, stride)
    # 8 GPUs x 8 clips, lr 0.01, a tenth of it at 150k and at 300k of 400k steps; no warm-up.
    assert (config["base_batch_size"], config["base_lr"], config["base_steps"], config["epochs"]) == (64, 0.01, 400_000, None)
    assert config["batch_size"] == (4 if length == 64 else 8)
    optimizer = instantiate(config["optimizer"])([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-4)
    schedule = instantiate(config["schedule"])(optimizer)
    assert sorted(schedule.milestones) == [150_000, 300_000]
    assert schedule.gamma == 0.1
    assert config["norm_weight_decay"] is False
    # A plain softmax loss of one clip a video, drawn at random, in 32 bits: no smoothing, mixing or change of colours.
    loss = instantiate(config["loss"])
    assert isinstance(loss, CrossEntropy)  # without weights torch's, as tests/training/test_loss.py has it
    assert (loss.label_smoothing, config["loss"]["class_weights"]) == (0.0, None)
    assert (config["mixing"]["mixup_alpha"], config["mixing"]["cutmix_alpha"]) == (0.0, 0.0)
    look = config["appearance"]
    kinds = ("brightness", "contrast", "saturation", "hue", "num_ops", "erase_probability")
    assert [look[kind] for kind in kinds] == [0] * len(kinds)
    sampler = config["sampler"]
    assert (sampler["_target_"].rsplit(".", 1)[1], sampler["temporal_jitter"], sampler["target_fps"]) == (
        "RandomClip",
        False,
        None,
    )
    assert (config["clips_per_video"], config["class_balanced"], config["batch_composition"]) == (1, False, "mixed")
    assert config["trainer"]["precision"] == "32-true"
    # Short side in [256, 320], a crop of 224, flips of a half, one mean and one deviation for every colour.
    assert (config["train_short_side"], config["crop_size"], config["dataset"]["flip"]) == ([256, 320], 224, 0.5)
    assert (config["mean"], config["std"]) == ([114.75] * 3, [57.375] * 3)
    assert config["model"]["dropout"] == 0.5
    assert config["model"]["zero_init"] is True
    assert config["norm"]["_target_"].endswith(".GroupNorm")
    assert config["norm"]["num_groups"] in (None, 32)
    assert (config["conv"]["_target_"].endswith("PlainConv3d"), config["dataset"]["missing"]) == (True, "wrong")
    # Tested on ten clips, fully convolutionally at short side 256, or as three crops of 256.
    whole, views = config["evaluation"]["fully_convolutional"], config["evaluation"]["thirty_view_short_side"]
    assert (whole["sampler"]["num_clips"], whole["transform"]["short_side"], whole["aggregation"]) == (10, 256, "softmax_mean")
    assert (views["sampler"]["num_clips"], views["transform"]["crops"], views["transform"]["crop_size"]) == (10, 3, 256)
    # The network: which first convolutions of the blocks reach over time, and what becomes of T.
    depths = config["model"]["depths"]
    assert depths == [3, 4, 23 if "r101" in name else 6, 3]
    kernels = config["model"]["temporal_kernels"]
    if model == "c2d_r50":
        assert (kernels, config["model"]["stem"]["kernel"]) == (1, [1, 7, 7])
    else:
        assert config["model"]["stem"]["kernel"] == [5, 7, 7]
        assert kernels == [[3, 3, 3], [3, 1, 3, 1], [3, 1] * (depths[2] // 2) + [3] * (depths[2] % 2), [1, 3, 1]]
    keeps_time = length == 8
    assert config["model"]["stem"]["stride"] == ([1, 2, 2] if keeps_time else [2, 2, 2])
    assert config["model"]["pool1"]["kernel"] == ([1, 3, 3] if keeps_time else [2, 3, 3])
    assert config["model"]["pool2"]["stride"] == [2, 1, 1]
    assert config["weight"]["file"] == ("r101_gn" if "r101" in name else "r50_gn")


def test_table_8_is_the_papers() -> None:
    """Three columns, (32, 8), (32, 4) and (64, 4), of frames a clip and clips a device, for each norm."""
    content = yaml.safe_load((FOLDER / "table_8.yaml").read_text())
    # Each norm starts from ImageNet weights that were trained with it.
    assert {(c["norm"], c["weight"]) for c in content["cases"]} == {("batch_norm", "torchvision"), ("group_norm", "detectron")}
    columns = [(c["norm"], c["clip_length"], c["frame_stride"], c["batch_size"]) for c in content["cases"]]
    assert columns == [(norm, *rest) for norm in ("batch_norm", "group_norm") for rest in ((32, 2, 8), (32, 2, 4), (64, 1, 4))]
