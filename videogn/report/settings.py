"""What a run was asked to do, in words, from its config.yaml."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, str]  # name: value, as they are shown


def read_config(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """The text of a run folder's config.yaml, None where there is none, and its content, empty where it is no mapping."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None, {}
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    try:
        content = plain_yaml(text)
    except (yaml.YAMLError, RecursionError):
        content = None
    return text, content if isinstance(content, dict) else {}


def plain_yaml(text: str) -> Any:
    """What a YAML text holds, if nothing in it stands for something else: with aliases, few bytes are any number of values.

    Raises:
        yaml.YAMLError: no YAML, tags of objects, or aliases, which no configuration of ours has.
        RecursionError: nested too deeply.
    """
    return yaml.load(text, _PlainLoader)  # nosec B506 # a SafeLoader that takes even less


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def settings(config: Mapping[str, Any]) -> Settings:
    """Model, norm, data and optimisation of a resolved configuration; what it lacks is left out."""
    clip = [
        f"{config['clip_length']} frames" if _has(config, "clip_length") else "",
        f"stride {config['frame_stride']}" if _has(config, "frame_stride") else "",
        f"at {config['target_fps']} fps" if _has(config, "target_fps") else "",
        f"{config['crop_size']} px" if _has(config, "crop_size") else "",
    ]
    trainer, optimizer = _part(config, "trainer"), _part(config, "optimizer")
    accumulated = trainer.get("accumulate_grad_batches")
    found = {
        "model": _model(_part(config, "model")),
        "norm": _norm(_part(config, "norm")),
        "convolution": _called(_part(config, "conv"), ("bias",)),
        "weights at the start": _weights(_part(config, "weight")) if "weight" in config else "",
        "checkpoint": _text(config.get("checkpoint")),
        "clip": ", ".join(part for part in clip if part),
        "batch size": _text(config.get("batch_size")) + (f", {accumulated} accumulated" if accumulated not in (None, 1) else ""),
        "multigrid": _multigrid(_part(config, "multigrid")),
        "epochs": _text(config.get("epochs")),
        "steps": f"{config['total_steps']:,}" if isinstance(config.get("total_steps"), int) else "",
        "learning rate": _text(optimizer.get("lr")),
        "optimizer": _called(optimizer, ("momentum", "nesterov", "betas", "weight_decay")),
        "schedule": _called(_part(config, "schedule"), ("pct_start", "milestones", "gamma")),
        "loss": _called(_part(config, "loss"), ("label_smoothing",)),
        "dropout": _text(_part(config, "model").get("dropout")),
        "precision": _text(trainer.get("precision")),
        "devices": f"{_text(trainer.get('accelerator'))}, {_text(trainer.get('devices'))}" if trainer.get("devices") else "",
        "seed": _text(config.get("seed")),
    }
    return {name: value for name, value in found.items() if value}


def _multigrid(values: Mapping[str, Any]) -> str:
    found = {name: values.get(name) for name in ("cycle_ends", "short_cycle")}
    return ", ".join(f"{name} {_text(value)}" for name, value in found.items() if value)


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The dotted keys in which configurations differ, each with its value in every one, `-` where it has none.

    Left out is the folder of a run: `out`, and it where it stands inside another value.
    """
    flat = [_flat(config, _text(config.get("out"))) for config in configs]
    keys = {key: None for one in flat for key in one if key != "out"}
    rows = {key: [one.get(key, "-") for one in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def split_counts(folder: Path) -> dict[str, int]:
    """Videos of each split, from the manifest.csv of a run folder; empty where there is none."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        counts = Counter(row.get("split") or "" for row in csv.DictReader(file))
    return {name: counts[name] for name in ("train", "val", "test") if counts[name]}


def _flat(value: Any, out: str, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        return {
            key: text
            for name, part in value.items()
            for key, text in _flat(part, out, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    text = _text(value) if value is not None else "null"
    return {prefix: text.replace(out, "<out>") if out else text}


def _model(model: Mapping[str, Any]) -> str:
    name, depths, block = _class(model), model.get("depths"), model.get("block")
    if isinstance(depths, list) and block in ("basic", "bottleneck"):
        layers = {"basic": 2, "bottleneck": 3}[block] * sum(depths) + 2
        return f"{name}, {layers} layers: {block} blocks {' + '.join(map(str, depths))}"
    return _called(model, ("depth", "alpha"))


def _norm(norm: Mapping[str, Any]) -> str:
    shown = _called(norm, ("num_groups", "channels_per_group", "momentum", "eps"))
    if _class(norm) == "GroupNorm" and norm.get("num_groups") is norm.get("channels_per_group") is None:
        return shown.replace("GroupNorm", "GroupNorm, 32 groups", 1)  # its default
    return shown


def _weights(weight: Mapping[str, Any]) -> str:
    if "_target_" not in weight:
        return "none"
    source = weight.get("path") or weight.get("run") or weight.get("file")
    return f"{_class(weight)}{', ' + _text(source) if source else ''}"


def _called(part: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A class and those of its arguments."""
    given = [f"{key.replace('_', ' ')} {_text(part[key])}" for key in keys if _has(part, key)]
    return ", ".join([_class(part), *given]) if _class(part) else ""


def _class(part: Mapping[str, Any]) -> str:
    return str(part.get("_target_", "")).rpartition(".")[2]


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _has(part: Mapping[str, Any], key: str) -> bool:
    return part.get(key) is not None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
