"""From a run folder or a checkpoint to a network: what every command but `train` starts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from videogn.configuration import checked, instantiate
from videogn.training.checkpoint import Checkpoint
from videogn.types import InputError


def build_network(config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network that `model`, `norm` and `conv` of a configuration name, freshly initialised."""
    return instantiate(config["model"])(
        num_classes=num_classes, norm=instantiate(config["norm"]), conv=instantiate(config["conv"])
    )


def load_network(checkpoint: Checkpoint, config: Mapping[str, Any] | None = None) -> nn.Module:
    """The trained network, in evaluation mode.

    Args:
        config: the checkpoint's configuration after `checked`, with what a command line replaced in it; by default as stored.

    Raises:
        InputError: the weights are not of this network.
    """
    config = checked(checkpoint.config, str(checkpoint.path)) if config is None else config
    network = build_network(config, len(checkpoint.classes))
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["?"])[-1].strip()
        raise InputError(f"{checkpoint.path}: its weights do not fit its model configuration: {reason}") from None
    return network.eval()
