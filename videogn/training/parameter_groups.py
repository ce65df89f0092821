"""Which parameters decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module, norm_weight_decay: bool) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: the parameters that decay as the optimiser says, and those that do not.

    Every module that answers `no_decay_parameters()` is asked; there is no list of classes. With `norm_weight_decay` all
    parameters decay.
    """
    exempt: set[int] = set()
    if not norm_weight_decay:
        for module in network.modules():
            if hasattr(module, "no_decay_parameters"):
                exempt.update(id(parameter) for parameter in module.no_decay_parameters())  # pyright: ignore
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) not in exempt]},
        {"params": [p for p in trainable if id(p) in exempt], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
