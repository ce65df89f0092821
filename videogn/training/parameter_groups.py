"""Which parameters decay, and how fast each moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def parameter_groups(
    network: nn.Module, norm_weight_decay: bool, lr_factors: Mapping[int, float] | None = None
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: the parameters that decay as the optimiser says, and those that do not.

    Every module that answers `no_decay_parameters()` is asked; there is no list of classes. With `norm_weight_decay` all
    parameters decay. Parameters without a gradient are left out. Where the learning rates differ (`lr_factors`, by the id of a
    parameter) there is a pair of groups for each factor, under the key `lr_factor`.
    """
    exempt: set[int] = set()
    if not norm_weight_decay:
        for module in network.modules():
            if hasattr(module, "no_decay_parameters"):
                exempt.update(id(parameter) for parameter in module.no_decay_parameters())  # pyright: ignore
    factors = lr_factors or {}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for factor in sorted({factors.get(id(p), 1.0) for p in trainable}):
        members = [p for p in trainable if factors.get(id(p), 1.0) == factor]
        scaled = {} if factor == 1.0 else {"lr_factor": factor}
        groups.append({"params": [p for p in members if id(p) not in exempt], **scaled})
        groups.append({"params": [p for p in members if id(p) in exempt], "weight_decay": 0.0, **scaled})
    return [group for group in groups if group["params"]]
