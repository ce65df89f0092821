"""videogn evaluate"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from omegaconf import DictConfig

from videogn.cli.values import check_values
from videogn.configuration import instantiate, resolved, run_application
from videogn.types import InputError

_log = logging.getLogger(__name__)

_PLACES = ("dataset=", *(f"dataset.{key}=" for key in ("root", "path", "train", "val", "test")))  # of videos, or of lists of them


def run(arguments: Sequence[str]) -> int:
    free = {"checkpoint", "out", "batch_size", "num_workers", "report_videos"}
    if any(argument.startswith("evaluation=") for argument in arguments):
        free |= {"clip_length", "frame_stride", "target_fps", "crop_size", "test_short_side"}
    stored = stored_configuration(arguments, "checkpoint", free, "choose the protocol anew with it: evaluation=NAME")
    return run_application("evaluate", arguments, functools.partial(evaluate, arguments), stored)


def stored_configuration(arguments: Sequence[str], key: str, free: Collection[str], remedy: str) -> DictConfig | None:
    """The checked configuration of the checkpoint that `key`= names; None where the command line names none.

    Args:
        free: the plain keys that the command line may replace. The others were resolved into many places when the
            configuration was stored, so that a new value would reach none of them.
        remedy: for who tries.
    """
    paths = [a.split("=", 1)[1].strip("'\"") for a in arguments if a.startswith(f"{key}=")]
    if not paths or paths[-1] in ("", "null"):
        return None
    from videogn.prediction.load import stored
    from videogn.training.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(paths[-1])
    config = stored(checkpoint)
    if checkpoint.path.suffix == ".safetensors" and not any(argument.startswith(_PLACES) for argument in arguments):
        place = "path" if "path" in config.dataset else "root"
        raise InputError(f"dataset.{place}: {checkpoint.path} does not say where the videos lie; give dataset.{place}=")
    for name in (argument.split("=", 1)[0] for argument in arguments):
        if name in config and name not in free and not isinstance(config[name], DictConfig):
            raise InputError(f"{name}: laid down in {checkpoint.path} ({name}={config[name]}) and made use of there; {remedy}")
    return config


def evaluate(arguments: Sequence[str], config: DictConfig) -> int:
    """Score the data with a checkpoint; write result.json, scores.npz, config.yaml and report.html."""
    start = time.monotonic()
    check_values(config)
    from videogn.cli.data import read_data, read_decoder, write_missing
    from videogn.cli.output import TestedData, finish, make_folder, write_config
    from videogn.dataset.shared_memory import shared_memory_warning
    from videogn.evaluation.result import peak_memory_bytes
    from videogn.prediction.load import load_network, require_classes
    from videogn.training.allocator import keep_memory
    from videogn.training.checkpoint import read_checkpoint
    from videogn.training.classifier import VideoClassifier
    from videogn.training.datamodule import ClipData
    from videogn.training.interrupt import StopTest
    from videogn.training.progress import TrainingProgress
    from videogn.training.quiet import guarded, quiet
    from videogn.training.trained_data import compared

    quiet()
    checkpoint = read_checkpoint(config.checkpoint)
    network = load_network(checkpoint, config)
    dataset, manifest = read_data(config.dataset)
    require_classes(checkpoint, manifest.classes, dataset.name)
    if not any(entry.split in ("test", "val") for entry in manifest.entries):
        raise InputError(f"{dataset.name}: no video in split test or val; there is nothing to test")
    decoder = read_decoder(config.decoder, dataset)
    protocols = {key: instantiate(protocol) for key, protocol in config.evaluation.items()}
    validation = instantiate(config.validation)
    folder = config.out or Path("runs", "evaluate", f"{dataset.name}_{'_'.join(protocols)}", time.strftime("%Y-%m-%d_%H-%M-%S"))
    out = Path(folder).absolute()
    if (out / "checkpoint").is_dir():
        raise InputError(f"out={folder}: holds a training, whose result this would replace; give another folder")
    stop = StopTest("the test is not finished and left no result; give the same command again")
    trainer = instantiate(config.trainer, logger=False, callbacks=[TrainingProgress(), stop], enable_checkpointing=False)
    if trainer.strategy.root_device.type == "cpu":
        keep_memory()
    classifier = VideoClassifier(network, checkpoint.classes, config.mean, config.std, protocols, validation, config.batch_size)
    data = ClipData(manifest, decoder, protocols, validation, config.batch_size, config.num_workers)
    warning, seen = compared(checkpoint, manifest, data.test_split)
    if trainer.is_global_zero:
        if short := shared_memory_warning(data.shared_memory_bytes() * trainer.num_devices):
            _log.warning("%s", short)
        make_folder(out)
        write_missing(manifest, out)
        for note in manifest.notes:
            _log.info("%s", note)
        if warning:
            _log.warning("%s", warning)
    with guarded(config.batch_size, config.clip_length, config.crop_size):
        test_start = time.monotonic()
        trainer.test(classifier, datamodule=data, verbose=False)
        test_seconds = time.monotonic() - test_start
    if trainer.is_global_zero:
        timing = {"test_seconds": test_seconds, "total_seconds": time.monotonic() - start}
        stored = {**resolved(config), "checkpoint": str(checkpoint.path.absolute())}
        write_config(stored, out)
        tested = TestedData(dataset.name, manifest, data.test_split, seen, decoder, trainer.strategy.root_device)
        words = ["evaluate", *arguments]
        finish(words, out, stored, tested, classifier, timing, peak_memory_bytes(), trainer.world_size)
    return 0
