"""Which parameters decay, for every conf/norm/*.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from videogn.configuration import compose
from videogn.norm.norm import Norm
from videogn.prediction.load import build_network
from videogn.training.parameter_groups import parameter_groups

NORMS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "norm").glob("*.yaml"))


@pytest.mark.parametrize("norm", NORMS)
def test_gamma_and_beta_are_exempt(norm: str) -> None:
    # No norm's parameters would be left out of this: one without a gamma refuses to start it at 0.
    network = build_network(compose("train", [f"norm={norm}", "model.zero_init=false"]), 10)
    layers = [module for module in network.modules() if isinstance(module, Norm)]
    expected = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    decaying, *others = parameter_groups(network, norm_weight_decay=False)
    assert "weight_decay" not in decaying
    assert [group["weight_decay"] for group in others] == [0] * bool(expected)
    assert len(layers) > 3
    assert {id(p) for group in others for p in group["params"]} == expected
    assert len(expected) in (0, 2 * len(layers))
    rest = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    assert {id(p) for p in decaying["params"]} == {id(p) for m in rest for p in m.parameters()}
    (everything,) = parameter_groups(network, norm_weight_decay=True)
    assert [id(p) for p in everything["params"]] == [id(p) for p in network.parameters()]


def test_frozen_parameters_are_left_out() -> None:
    network = build_network(compose("train"), 10)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.head.weight.requires_grad_(True)
    (group,) = parameter_groups(network, norm_weight_decay=False)
    assert [id(p) for p in group["params"]] == [id(network.head.weight)]
