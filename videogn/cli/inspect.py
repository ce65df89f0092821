"""videogn inspect"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from videogn.cli.values import check_counts, check_words
from videogn.configuration import run_application
from videogn.types import InputError

if TYPE_CHECKING:
    from torch import nn

    from videogn.report.model import Inspection


def run(arguments: Sequence[str]) -> int:
    return run_application("inspect", arguments, inspect)


def inspected(config: Mapping[str, Any], num_classes: int, precision: str = "32-true") -> Inspection:
    """The network of a configuration with a clip of its `clip_length` and `crop_size`."""
    import torch

    from videogn.report.model import inspect_network
    from videogn.training.parameter_groups import parameter_groups

    with torch.device("meta"):
        network = network_on_a_gpu(config, num_classes)
    decaying = parameter_groups(network, config["norm_weight_decay"])[0]["params"]
    clip = (3, config["clip_length"], config["crop_size"], config["crop_size"])
    return inspect_network(network, clip, decaying, precision)


def network_on_a_gpu(config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network of a configuration as it trains on a GPU, for which norms that go by the device have a kernel, if installed."""
    from videogn.kernel.group_norm import BACKENDS
    from videogn.model.recomputation import set_activation_memory
    from videogn.prediction.load import build_network

    network = build_network(config, num_classes)
    set_activation_memory(network, config.get("activation_memory") or "full")
    for module in network.modules():
        if "triton" in BACKENDS and getattr(module, "backend", "") is None:
            vars(module)["backend"] = "triton"
    return network


def inspect(config: DictConfig) -> int:
    """Print the layers of a network and its sums."""
    check_counts(config, ("num_classes", "clip_length", "crop_size"))
    check_words(config)
    if not isinstance(config.norm_weight_decay, bool):
        raise InputError(f"norm_weight_decay={config.norm_weight_decay}: give true or false")
    # Imported once the command line is known to be sound: torch takes seconds.
    from videogn.report.model import Layer

    def row(layer: Layer) -> list[str]:
        tail = f"{layer.activation}{', fused' if layer.is_fused else ''}" if layer.activation else ""
        return [
            layer.name,
            layer.kind,
            " x ".join(map(str, layer.output)),
            "" if layer.num_groups is None else str(layer.num_groups),
            "" if layer.channels_per_group is None else str(layer.channels_per_group),
            tail,
            "0" if layer.starts_at_zero else "",
            "" if layer.decays is None else "yes" if layer.decays else "no",
            f"{layer.parameters:,}" if layer.parameters else "",
        ]

    def totals(found: Inspection) -> list[str]:
        shape = f"3 x {config.clip_length} x {config.crop_size} x {config.crop_size}"
        norms = [layer for layer in found.layers if layer.is_norm]
        return [
            f"{len(found.layers)} layers, {len(norms)} of them norms, "
            f"of which {sum(layer.starts_at_zero for layer in norms)} start at gamma = 0",
            f"{found.parameters:,} parameters; weight decay reaches {found.decaying_parameters:,}",
            f"a clip of {shape}: {found.flops / 1e9:,.2f} GFLOPs forward (a multiply-add is two), "
            f"{found.bytes_kept / 2**20:,.1f} MiB kept for the backward pass, {config.precision}, "
            f"activation_memory={config.activation_memory}"
            + (f", and {found.bytes_kept_once / 2**20:,.1f} MiB once" if found.bytes_kept_once >= 2**20 / 20 else ""),
        ]

    found = inspected(config, config.num_classes, config.precision)
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "type", "output", "G", "C/G", "activation", "gamma", "decay", "parameters"):
        table.add_column(column, justify="right" if column in ("G", "C/G", "gamma", "parameters") else "left", no_wrap=True)
    for layer in found.layers:
        table.add_row(*row(layer))
    # As wide as the table, whatever the terminal: a name cut short is no name.
    Console(width=Console(width=1000).measure(table).maximum).print(table)
    print()
    for line in totals(found):
        print(line)
    return 0
