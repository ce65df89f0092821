"""A configuration in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogn.report.settings import differing, read_config, settings, split_counts

CONFIG = {
    "clip_length": 8,
    "frame_stride": 2,
    "crop_size": 64,
    "batch_size": 4,
    "total_steps": 12000,
    "norm": {"_target_": "videogn.norm.group_norm.GroupNorm", "num_groups": None, "channels_per_group": None, "eps": 1e-5},
    "model": {"_target_": "videogn.model.resnet3d.ResNet3D", "block": "bottleneck", "depths": [3, 4, 6, 3], "dropout": 0.5},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
    "trainer": {"accumulate_grad_batches": 2},
    "weight": {"freeze": None},
}


def test_words_of_a_configuration() -> None:
    found = settings(CONFIG)
    assert found["model"] == "ResNet3D, 50 layers: bottleneck blocks 3 + 4 + 6 + 3"
    assert found["norm"] == "GroupNorm, 32 groups, eps 1e-05"
    assert found["clip"] == "8 frames, stride 2, 64 px"
    assert found["batch size"] == "4, 2 accumulated"
    assert found["learning rate"] == "0.1"
    assert found["steps"] == "12,000"
    assert found["weights at the start"] == "none"
    assert "epochs" not in found


def test_given_groups_are_those() -> None:
    norm = {"_target_": "videogn.norm.group_norm.GroupNorm", "num_groups": 16, "channels_per_group": None}
    assert settings({"norm": norm})["norm"] == "GroupNorm, num groups 16"


@pytest.mark.parametrize("config", [{}, {"model": 3, "norm": None, "optimizer": "x", "trainer": []}])
def test_what_is_not_there_is_left_out(config: dict[str, object]) -> None:
    assert settings(config) == {}


def test_only_keys_that_differ_and_not_the_folder() -> None:
    first = {
        "out": "/runs/a",
        "batch_size": 4,
        "logger": {"csv": {"save_dir": "/runs/a"}},
        "norm": {"eps": 1e-5},
        "same": [1, {"b": 2}],
    }
    second = {"out": "/runs/b", "batch_size": 8, "logger": {"csv": {"save_dir": "/runs/b"}}, "norm": {}, "same": [1, {"b": 2}]}
    assert differing([first, second]) == {"batch_size": ["4", "8"], "norm.eps": ["1e-05", "-"], "norm": ["-", "{}"]}
    assert differing([first, first]) == {}


def test_a_damaged_config_is_shown_and_not_read(tmp_path: Path) -> None:
    assert read_config(tmp_path) == (None, {})
    (tmp_path / "config.yaml").write_bytes(b"a: [1\nb: caf\xe9")
    text, content = read_config(tmp_path)
    assert text == "a: [1\nb: caf\\xe9"
    assert content == {}


def test_splits_are_counted(tmp_path: Path) -> None:
    assert split_counts(tmp_path) == {}
    rows = [("a.mp4", "test"), ("b.mp4", "train"), ("c,\n.mp4", "train")]
    (tmp_path / "manifest.csv").write_text("path,split\n" + "".join(f'"{path}",{split}\n' for path, split in rows))
    assert split_counts(tmp_path) == {"train": 2, "test": 1}
