"""videogn evaluate"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from videogn.configuration import checked, instantiate, resolved, run_application


def run(arguments: Sequence[str]) -> int:
    return run_application("evaluate", arguments, evaluate, stored_configuration(arguments, "checkpoint"))


def stored_configuration(arguments: Sequence[str], key: str) -> DictConfig | None:
    """The checked configuration of the checkpoint that `key`= names; None where the command line names none."""
    paths = [a.split("=", 1)[1].strip("'\"") for a in arguments if a.startswith(f"{key}=")]
    if not paths or paths[-1] in ("", "null"):
        return None
    from videogn.training.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(paths[-1])
    return checked(checkpoint.config, str(checkpoint.path))


def evaluate(config: DictConfig) -> int:
    """Score the data with a checkpoint; write result.json and scores.npz."""
    start = time.monotonic()
    from videogn.cli.output import finish, make_folder
    from videogn.prediction.load import load_network, require_classes
    from videogn.training.checkpoint import read_checkpoint
    from videogn.training.classifier import VideoClassifier
    from videogn.training.datamodule import ClipData
    from videogn.training.progress import TrainingProgress
    from videogn.training.quiet import guarded, quiet

    quiet()
    checkpoint = read_checkpoint(config.checkpoint)
    network = load_network(checkpoint, config)
    dataset = instantiate(config.dataset)
    dataset.prepare()
    manifest = dataset.manifest()
    require_classes(checkpoint, manifest.classes, dataset.name)
    decoder = instantiate(config.decoder)
    protocols = {key: instantiate(protocol) for key, protocol in config.evaluation.items()}
    validation = instantiate(config.validation)
    folder = config.out or Path("runs", "evaluate", f"{dataset.name}_{'_'.join(protocols)}", time.strftime("%Y-%m-%d_%H-%M-%S"))
    out = Path(folder).absolute()
    trainer = instantiate(config.trainer, logger=False, callbacks=[TrainingProgress()], enable_checkpointing=False)
    classifier = VideoClassifier(network, checkpoint.classes, config.mean, config.std, protocols, validation, config.batch_size)
    data = ClipData(manifest, decoder, protocols, validation, config.batch_size, config.num_workers)
    if trainer.is_global_zero:
        make_folder(out)
    with guarded(config.batch_size, config.clip_length, config.crop_size):
        trainer.test(classifier, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        timing = {"total_seconds": time.monotonic() - start}
        finish("evaluate", out, resolved(config), dataset.name, manifest, data.test_split, classifier, decoder.name, timing)
    return 0
