"""The weights, read back by what reads a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from videogn.export import proof
from videogn.export.bundle import KEY, Bundle
from videogn.export.exporter import Exporter, Source
from videogn.prediction.load import load_network, stored
from videogn.training.checkpoint import read_checkpoint
from videogn.types import InputError


def test_the_checkpoint_comes_back(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("safetensors"), source, place / "m.safetensors")
    (place / "plain").touch()
    assert (place / "m.safetensors").stat().st_mode == (place / "plain").stat().st_mode
    checkpoint = read_checkpoint(place / "m.safetensors")
    assert checkpoint.weights.keys() == source.weights.keys()
    assert all(torch.equal(checkpoint.weights[name], weight) for name, weight in source.weights.items())
    assert (checkpoint.classes, checkpoint.config) == (("a", "b", "c"), source.description["config"])
    network = load_network(checkpoint, stored(checkpoint))
    x = source.normalized(source.frames)
    with torch.inference_mode():
        assert torch.equal(network(x), source.network(x))
    with safe_open(place / "m.safetensors", "pt") as file:
        assert Bundle.loads(file.metadata()[KEY], "m").proof == found


def test_16_bits_are_for_matrices(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    proof.export(exporter("safetensors", precision="bf16"), source, place / "m.safetensors")
    for name, weight in read_checkpoint(place / "m.safetensors").weights.items():
        assert weight.dtype == (torch.bfloat16 if weight.ndim > 1 else torch.float32), name


def test_what_is_not_ours(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for metadata in (
        None,
        {"format": "pt"},
        {"videogn_checkpoint": "no json"},
        {"videogn_checkpoint": json.dumps({"config": 1})},
    ):
        save_file(dict(source.weights), path, metadata)
        with pytest.raises(InputError, match="damaged, or without videogn's configuration"):
            read_checkpoint(path)
    path.write_bytes(b"noise")
    with pytest.raises(InputError, match="damaged, or without"):
        read_checkpoint(path)


def test_a_class_that_no_conf_names_is_not_imported(source: Source, tmp_path: Path) -> None:
    config = {**source.description["config"], "model": {"_target_": "os.system", "command": "true"}}
    description = {**source.description, "config": config}
    save_file(dict(source.weights), tmp_path / "m.safetensors", {"videogn_checkpoint": json.dumps(description)})
    with pytest.raises(InputError, match=r"names 'os\.system' under model\._target_, which no file of conf/ does"):
        stored(read_checkpoint(tmp_path / "m.safetensors"))
