"""From a run folder, a checkpoint or an artifact to a network: what every command but `train` starts with."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from videogn.configuration import checked, group_targets, instantiate
from videogn.evaluation.protocol import Protocol
from videogn.export.bundle import PARTS
from videogn.export.child import Run, filled
from videogn.export.reason import reason
from videogn.number import is_count, is_rgb
from videogn.prediction.classifier import Classifier
from videogn.prediction.score import ViewScorer, device_named, is_out_of_memory
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
    _check_size(checkpoint, config)
    network = build_network(config, len(checkpoint.classes))
    _take(network, checkpoint)
    return network.eval()


def _check_size(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Raises InputError where the configuration describes another network than the weights are of, before that has taken memory.

    A file may say a million layers, or a million channels.
    """
    left = 4 * len(checkpoint.weights) + 100  # some networks are made with other norms first

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"{checkpoint.path}: its model configuration has many more layers than its {len(checkpoint.weights)} weights; "
                "it is damaged"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            network = build_network(config, len(checkpoint.classes))
    except (NotImplementedError, RuntimeError):  # a class of the user's that needs values to be made
        return
    finally:
        handle.remove()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter.*")
        _take(network, checkpoint)


def _take(network: nn.Module, checkpoint: Checkpoint) -> None:
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["?"])[-1].strip()
        raise InputError(f"{checkpoint.path}: its weights do not fit its model configuration: {reason}") from None


def load(path: str | Path, device: str = "auto", batch_size: int | None = None, trust: bool = False) -> Classifier:
    """What predicts: from a run folder, a .ckpt, or what `videogn export` wrote; `videogn.load` says more.

    Raises:
        InputError: none of these, or damaged, or naming a class that is not on the allow-list, or a program without
            `trust`; no such device, or batch_size < 1.
    """
    if batch_size is not None and not is_count(batch_size, 1):
        raise InputError(f"batch_size: {batch_size}: give a whole number of views in one forward, at least 1")
    graphs = graph_format(Path(path))
    takes_frames = False
    if graphs is not None:
        if device not in ("auto", "cpu"):
            raise InputError(
                f"device: {device}: an exported graph runs on the CPU; use cpu, or give the run that it was exported from"
            )
        place = torch.device("cpu")
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; correct the path")
        bundle = graphs.read_bundle(Path(path))
        config, classes, takes_frames = checked(bundle.config, str(path), PARTS), bundle.classes, bundle.input["is_uint8"]
        run = _guarded(graphs.open_file(Path(path), None, trust), Path(path), len(classes))
        score: Callable[[Any], Any] = _score(run, bundle.input["shape"][0])
    else:
        place = device_named(device)
        checkpoint = read_checkpoint(path)
        config, classes = stored(checkpoint), checkpoint.classes
        score = load_network(checkpoint, config)
    if not config.evaluation:
        raise InputError(f"{path}: its configuration has no protocol in evaluation; it is damaged")
    return classifier_of(score, config, classes, place, batch_size, takes_frames=takes_frames)


def graph_format(path: Path) -> Any:
    """The module of the format that this file has by its name, with `open_file(path, threads, trust)` and `read_bundle(path)`;
    None for a folder, a checkpoint or weights."""
    if path.is_dir() or not path.suffix:
        return None
    for target in sorted(group_targets("export")):
        module, _, name = target.rpartition(".")
        with suppress(ImportError, AttributeError, ValueError):  # a user's file may name what is not there
            found = importlib.import_module(module)
            if getattr(found, name).suffix == path.suffix and hasattr(found, "open_file"):
                return found
    return None


def _guarded(run: Run, path: Path, num_classes: int) -> Run:
    """What a runtime raises as MemoryError or InputError, and the shape of its answer checked."""

    def guarded(clips: np.ndarray) -> np.ndarray:
        given = f"{path}: for clips of {' x '.join(map(str, clips.shape))}"
        try:
            scores = run(clips)
        except Exception as error:  # runtimes' errors have no class in common
            if is_out_of_memory(error):
                raise MemoryError(f"{path}: its runtime cannot allocate what the graph asks for") from None
            raise InputError(f"{given} its runtime fails: {reason(error)}") from error
        if scores.shape != (len(clips), num_classes) or scores.dtype.kind != "f":
            found = f"{scores.dtype} {' x '.join(map(str, scores.shape))}"
            raise InputError(f"{given} it answers {found}, and no scores of {num_classes} classes; it is damaged")
        return scores

    return guarded


def _score(run: Run, fixed_batch: int | None) -> Callable[[Tensor], Tensor]:
    """Clips as a tensor to scores as a tensor, a fixed batch filled up."""

    def score(clips: Tensor) -> Tensor:
        given = clips.numpy()
        if fixed_batch is None:
            return torch.from_numpy(run(given))
        whole = filled(given, fixed_batch)
        parts = [run(whole[start : start + fixed_batch]) for start in range(0, len(whole), fixed_batch)]
        return torch.from_numpy(np.concatenate(parts)[: len(given)])

    return score


def open_network(path: Path, threads: int, trust: bool) -> Run:
    """A checkpoint's network on the CPU, as an exported graph is opened: what a proof compares with."""
    return _run(_network(path, threads))


def open_compiled(path: Path, threads: int, trust: bool) -> Run:
    """The same through torch.compile."""
    return _run(torch.compile(_network(path, threads)))


def _network(path: Path, threads: int) -> nn.Module:
    torch.set_num_threads(threads)
    checkpoint = read_checkpoint(path)
    return load_network(checkpoint, stored(checkpoint))


def _run(network: Callable[[Tensor], Tensor]) -> Run:
    def run(clips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(clips)).numpy()

    return run


def classifier_of(
    score: Callable[[Any], Any],
    config: Mapping[str, Any],
    classes: Sequence[str],
    device: torch.device,
    batch_size: int | None = None,
    decoder: Decoder | None = None,
    takes_frames: bool = False,
) -> Classifier:
    """A network, or the graph of an artifact, with the preprocessing, the decoder and the first protocol of a configuration.

    Args:
        config: checked; it has a protocol.
        batch_size, decoder: in place of those of the configuration.
        takes_frames: `score` takes uint8 clips (N, T, H, W, 3) and normalises them itself.

    Raises:
        InputError: the configuration has no protocol, no decoder, or no mean and std of three numbers.
    """
    protocols = config["evaluation"]
    protocol = instantiate(next(iter(protocols.values()))) if isinstance(protocols, Mapping) and protocols else None
    if not isinstance(protocol, Protocol):
        raise InputError(f"evaluation={protocols}: its configuration has no protocol; it is damaged")
    for key in ("mean", "std"):
        if not is_rgb(config[key], positive=key == "std"):
            raise InputError(f"{key}={config[key]}: its configuration should have three numbers there; it is damaged")
    normalization = None if takes_frames else (config["mean"], config["std"])
    scorer = ViewScorer(score, normalization, batch_size or config["batch_size"], device)
    decoder = decoder or instantiate(config["decoder"])
    if not isinstance(decoder, Decoder):
        raise InputError(f"decoder={decoder}: its configuration has no decoder; it is damaged")
    return Classifier(scorer, classes, decoder, protocol)


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
