"""From a run folder, a checkpoint or an artifact to a network: what every command but `train` starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videogn.configuration import checked, instantiate
from videogn.export.bundle import PARTS
from videogn.number import is_count
from videogn.prediction.classifier import Classifier
from videogn.prediction.score import ViewScorer, device_named
from videogn.training.checkpoint import Checkpoint, read_checkpoint
from videogn.types import Decoder, InputError


def build_network(config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network that `model`, `norm` and `conv` of a configuration name, freshly initialised."""
    model, norm, conv = (instantiate(config[part]) for part in ("model", "norm", "conv"))
    try:
        return model(num_classes=num_classes, norm=norm, conv=conv)
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # an argument that one of them does not take, or refuses
        raise InputError(f"model, norm, conv: {error}; correct their configuration") from error


def stored(checkpoint: Checkpoint) -> Any:
    """The checkpoint's configuration (a DictConfig), once it is known to be safe and whole; raises InputError."""
    return checked(checkpoint.config, str(checkpoint.path), (*PARTS, "model", "norm", "conv", "validation", "dataset"))


def load_network(checkpoint: Checkpoint, config: Mapping[str, Any]) -> nn.Module:
    """The trained network, in evaluation mode.

    Args:
        config: the checkpoint's configuration after `stored`, with what a command line replaced in it.

    Raises:
        InputError: the weights are not of this network.
    """
    network = build_network(config, len(checkpoint.classes))
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["?"])[-1].strip()
        raise InputError(f"{checkpoint.path}: its weights do not fit its model configuration: {reason}") from None
    return network.eval()


def load(path: str | Path, device: str = "auto", batch_size: int | None = None) -> Classifier:
    """What predicts: from a run folder, a .ckpt, or an exported .onnx; `videogn.load` says more.

    Raises:
        InputError: none of these, or damaged, or naming a class that is not on the allow-list; no such device, or batch_size < 1.
    """
    if batch_size is not None and not is_count(batch_size, 1):
        raise InputError(f"batch_size: {batch_size}: give a whole number of views in one forward, at least 1")
    place = device_named(device)
    if Path(path).suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise InputError(f"device: {device}: an .onnx runs on the CPU; use cpu, or give the run that it was exported from")
        place = torch.device("cpu")
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; correct the path")
        from videogn.export import onnx

        score, bundle = onnx.load(Path(path))
        config, classes = checked(bundle.config, str(path), PARTS), bundle.classes
    else:
        checkpoint = read_checkpoint(path)
        config, classes = stored(checkpoint), checkpoint.classes
        score = load_network(checkpoint, config)
    if not config.evaluation:
        raise InputError(f"{path}: its configuration has no protocol in evaluation; it is damaged")
    return classifier_of(score, config, classes, place, batch_size)


def classifier_of(
    score: Callable[[Any], Any],
    config: Mapping[str, Any],
    classes: Sequence[str],
    device: torch.device,
    batch_size: int | None = None,
    decoder: Decoder | None = None,
) -> Classifier:
    """A network, or the graph of an artifact, with the preprocessing, the decoder and the first protocol of a configuration.

    Args:
        config: checked; it has a protocol.
        batch_size, decoder: in place of those of the configuration.
    """
    protocol = instantiate(next(iter(config["evaluation"].values())))
    scorer = ViewScorer(score, config["mean"], config["std"], batch_size or config["batch_size"], device)
    return Classifier(scorer, classes, decoder or instantiate(config["decoder"]), protocol)


def require_classes(checkpoint: Checkpoint, classes: Sequence[str], data: str) -> None:
    """Raises InputError where the data's classes are not the checkpoint's, in the same order."""
    if tuple(classes) != checkpoint.classes:
        only_data = [name for name in classes if name not in checkpoint.classes]
        only_model = [name for name in checkpoint.classes if name not in classes]
        difference = f"only in the data: {only_data[:3]}; only in the checkpoint: {only_model[:3]}"
        raise InputError(
            f"{data}: its {len(classes)} classes are not the {len(checkpoint.classes)} of {checkpoint.path} "
            f"({difference}); test on data with the classes of training"
        )
