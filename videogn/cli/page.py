"""The page of a run folder: its hardest videos are read again, and its network says what it saw in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from videogn.cli.data import read_decoder
from videogn.cli.inspect import inspected
from videogn.cli.values import PRECISIONS
from videogn.configuration import checked, prepared_dataset
from videogn.dataset.shards import are_shards
from videogn.evaluation.metrics import hardest
from videogn.evaluation.result import Result, read_result
from videogn.prediction.classifier import Classifier, surest_view
from videogn.prediction.load import classifier_of, load_network
from videogn.prediction.score import device_named
from videogn.report.media import Example
from videogn.report.model import Inspection
from videogn.report.run import write_report
from videogn.report.settings import plain_yaml
from videogn.report.several import write_comparison
from videogn.training.checkpoint import read_checkpoint
from videogn.types import InputError, OutOfMemory, StorageError, VideoError

_log = logging.getLogger(__name__)


def write_page(
    folder: Path,
    num_videos: int,
    root: Path | None = None,
    classifier: Classifier | None = None,
    result: Result | None = None,
) -> Path:
    """Write report.html of a finished run.

    Args:
        num_videos: how many of the hardest videos are shown.
        root: of the videos; None: where the result says that they lay.
        classifier: what was tested; None: from the checkpoint that the folder holds, or that its config.yaml names.
        result: of the folder, where it is at hand.

    Raises:
        InputError: the folder has no result, or a damaged one; or its config.yaml is damaged, or names what is not allowed.
    """
    result = result or read_result(folder)
    config = _config(folder)
    shown: list[Example] = []
    place = str(root or result.facts["dataset"]["root"])  # not as a Path: it may be an address
    if num_videos:
        try:
            classifier = classifier or _classifier(folder, config, place)
        except (InputError, StorageError) as error:
            _log.warning("report: no videos are shown: %s", error)
        else:
            shown = list(_examples(result, place, classifier, num_videos))
    return write_report(folder, shown, None if config is None else _inspection(config, len(result.classes)), result)


def write_comparison_page(folders: Sequence[Path], path: Path) -> Path:
    """Write the page of several runs side by side; raises InputError as `write_page` does."""
    results = [read_result(folder) for folder in folders]
    configs = [_config(folder) for folder in folders]
    networks = [
        None if config is None else _inspection(config, len(result.classes))
        for config, result in zip(configs, results, strict=True)
    ]
    return write_comparison(folders, path, networks, results)


def _config(folder: Path) -> DictConfig | None:
    """config.yaml, checked; None where there is none."""
    path = folder / "config.yaml"
    try:
        content = plain_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read as a configuration ({type(error).__name__}); bring back the run's own"
        ) from error
    return checked(content, str(path), ("model", "norm", "conv", "evaluation", "decoder", "mean", "std", "batch_size"))


def _classifier(folder: Path, config: DictConfig | None, place: str) -> Classifier:
    """The network that was tested, with the protocol and the decoder of that test.

    Args:
        place: where the videos lie now.
    """
    own = folder / "checkpoint" / "last.ckpt"
    if config is None or not (own.is_file() or config.get("checkpoint")):
        raise InputError(f"{folder}: no config.yaml or no checkpoint in it")
    checkpoint = read_checkpoint(own if own.is_file() else config.checkpoint)
    decoder = None  # that of config.yaml
    if are_shards(config.get("dataset")):
        decoder = read_decoder(config.decoder, prepared_dataset(OmegaConf.create({**config.dataset, "root": place})))
    return classifier_of(load_network(checkpoint, config), config, checkpoint.classes, device_named("auto"), decoder=decoder)


def _inspection(config: DictConfig, num_classes: int) -> Inspection | None:
    try:
        precision = config.trainer.get("precision") if "trainer" in config else None
        return inspected(config, num_classes, precision if precision in PRECISIONS else "32-true")
    except InputError as error:  # such as a layer of the user's that does not run without values
        _log.warning("report: the layers are not listed: %s", error)
        return None


def _examples(result: Result, place: str, classifier: Classifier, count: int) -> Iterator[Example]:
    """The hardest videos under the first protocol: of each the view that was surest of the answer.

    Args:
        place: where the videos lie.
    """
    scores = result.scores[result.facts["results"][0]["name"]]
    probabilities = scores.videos()
    for row in hardest(scores, result.labels, count):
        label, answer = int(result.labels[row]), int(probabilities[row].argmax())
        chances = float(probabilities[row, answer]), float(probabilities[row, label])
        said = result.paths[row], result.classes[label], result.classes[answer], *chances
        num_views = None if scores.num_views is None else int(scores.num_views[row])
        view = surest_view(scores.logits[row, :num_views], answer)
        try:
            seen = classifier.explain_view(f"{place}/{result.paths[row]}", view, answer, chances[0])
        except VideoError as error:
            yield Example(*said, None, 1.0, None, error.reason)
        except StorageError as error:  # every other would wait as long for a server that is down
            _log.warning("report: no more videos are shown: %s", error)
            return
        except (InputError, OutOfMemory) as error:  # a network without positions; a result is not lost for want of a picture
            yield Example(*said, None, 1.0, None, str(error))
        else:
            yield Example(*said, seen.clip, seen.fps, seen.heat, None)
