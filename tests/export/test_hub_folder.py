"""A folder as the Hugging Face Hub shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from videogn.export import proof
from videogn.export.exporter import Exporter, Source
from videogn.export.safetensors import SafetensorsExporter
from videogn.training.checkpoint import read_checkpoint

RESULT = {
    "split": "test",
    "results": [{"name": "ten_clip", "metrics": {"top1": 0.875, "top5": 1.0}, "intervals_95": {"top1": [0.75, 1.0]}}],
}


def test_the_folder(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    folder = place / "my.model"
    bundle = replace(source.bundle, licence="CC BY 4.0")
    found = proof.export(exporter("hub_folder"), replace(source, bundle=bundle, result=RESULT), folder)
    assert sorted(path.name for path in place.iterdir()) == ["my.model"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert config["label2id"] == {"a": 0, "b": 1, "c": 2}
    assert config["videogn"]["proof"] == found
    weights = read_checkpoint(folder).weights
    assert all(torch.equal(weights[name], weight) for name, weight in source.weights.items())


@pytest.mark.turns
def test_the_card(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    for bundle, result in ((replace(source.bundle, licence="CC BY 4.0"), RESULT), (source.bundle, None)):
        proof.export(exporter("hub_folder"), replace(source, bundle=bundle, result=result), place / "m")
        _, head, text = (place / "m" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        facts = yaml.safe_load(head)
        assert facts["library_name"] == "videogn"
        assert facts["pipeline_tag"] == "video-classification"
        if result is not None:
            assert (facts["license"], facts["license_name"]) == ("other", "CC BY 4.0")
            assert "| ten_clip | test | 87.5% | 75.0% to 100.0% | 100.0% |" in text
        else:
            assert "license" not in facts
            assert "Not tested yet." in text
            assert "Not stated." in text
        assert "4 frames, 2 apart, as RGB of 32 x 32 pixels" in text
        assert f"epoch {source.bundle.run['epoch'] + 1}." in text  # counted from 1, as the training prints it


def test_it_is_the_safetensors_file_in_a_folder(exporter: Callable[..., Exporter]) -> None:
    assert isinstance(exporter("hub_folder"), SafetensorsExporter)
