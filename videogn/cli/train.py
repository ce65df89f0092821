"""videogn train"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videogn.cli.evaluate import stored_configuration
from videogn.cli.values import check_values
from videogn.configuration import instantiate, resolved, run_application
from videogn.sweep.grid import sweep
from videogn.types import InputError

_log = logging.getLogger(__name__)
# Tells the processes of the other devices, which Lightning starts, where the run folder is.
_OUT = "VIDEOGN_OUT"


def run(arguments: Sequence[str]) -> int:
    free = {"resume", "num_workers"}
    stored = stored_configuration(arguments, "resume", free, "a run goes on as it began; start another with the new value")
    if stored is None:
        return run_application("train", arguments, train, sweep=functools.partial(sweep, check=check_values))
    if {"-m", "--multirun"} & set(arguments):
        raise InputError("resume= with -m: resume= is for a single run; the command of a multirun goes on with it by itself")
    return run_application("resume", arguments, train, stored)


def train(config: DictConfig) -> int:
    """Train, test, and write the run folder."""
    start = time.monotonic()
    check_values(config)
    # Imported once the command line is known to be sound: torch and Lightning take seconds.
    import torch

    from videogn.cli.output import finish, make_folder, shown
    from videogn.cli.weights import start_from
    from videogn.prediction.load import build_network
    from videogn.sampler.batches import EpochBatches
    from videogn.training.checkpoint import Describe, checkpoint_path
    from videogn.training.classifier import Optimization, VideoClassifier
    from videogn.training.datamodule import ClipData, TrainingSource
    from videogn.training.fine_tuning import Freeze
    from videogn.training.interrupt import LastCheckpoint
    from videogn.training.precise_statistics import PreciseStatistics
    from videogn.training.progress import TrainingProgress
    from videogn.training.quiet import guarded, quiet

    quiet()
    resume = checkpoint_path(config.resume) if config.resume is not None else None
    if resume is not None and (finished := resume.parent.parent / "result.json").is_file():
        _log.info("%s is there: this run is finished; videogn evaluate tests it again", finished)
        return 0
    dataset = instantiate(config.dataset)
    dataset.prepare()
    manifest = dataset.manifest()
    train_split, val_split = manifest.split("train"), manifest.split("val")
    if not len(val_split):
        raise InputError(f"{dataset.name}: no video in split val; training is watched on val: add some")
    if config.trainer.get("sync_batchnorm"):
        raise InputError(
            "trainer.sync_batchnorm: Lightning would put a plain SyncBatchNorm in place of our norms and drop their residual "
            "addition and activation; norm=sync_batch_norm synchronises, norm=group_norm need not"
        )
    torch.manual_seed(config.seed)
    network = build_network(config, len(manifest.classes))
    decoder = instantiate(config.decoder)
    fine_tuning, report = start_from(config.get("weight"), network, manifest.classes, resume is not None)
    frozen = fine_tuning.frozen(network)

    choices = HydraConfig.get().runtime.choices
    name = f"{dataset.name}_{choices.get('model')}_{choices.get('norm')}" if resume is None else "resumed"
    out = _run_folder(config, name, resume)
    config.out = str(out)
    last = LastCheckpoint(out / "checkpoint" / "last.ckpt")
    loggers = [instantiate(logger) for logger in (config.get("logger") or {}).values()]
    callbacks = [instantiate(callback) for callback in (config.get("callback") or {}).values()]
    trainer = instantiate(
        config.trainer,
        logger=loggers or False,
        callbacks=[*callbacks, Freeze(frozen), PreciseStatistics(), last, TrainingProgress()],
        default_root_dir=str(out),
    )

    def batches(rank: int, num_ranks: int) -> EpochBatches:
        return EpochBatches(len(train_split), config.batch_size, config.seed, config.clips_per_video, rank, num_ranks)

    steps_per_epoch = -(-len(batches(0, trainer.world_size)) // trainer.accumulate_grad_batches)
    if config.total_steps is None:
        config.total_steps = steps_per_epoch * config.epochs
    stored = resolved(config)
    trainer.callbacks.append(Describe(stored, manifest.classes))
    optimization = Optimization(
        instantiate(config.loss),
        instantiate(config.optimizer),
        instantiate(config.schedule),
        config.norm_weight_decay,
        config.seed,
        fine_tuning,
    )
    protocols = {key: instantiate(protocol) for key, protocol in config.evaluation.items()}
    validation = instantiate(config.validation)
    classifier = VideoClassifier(
        network, manifest.classes, config.mean, config.std, protocols, validation, config.batch_size, optimization
    )
    classifier.configure_optimizers()  # Lightning asks later, when the folder is there
    source = TrainingSource(instantiate(config.sampler), instantiate(config.transform), batches, config.seed)
    data = ClipData(manifest, decoder, protocols, validation, config.batch_size, config.num_workers, source)
    if trainer.is_global_zero:
        make_folder(out)
        (out / "config.yaml").write_text(yaml.safe_dump(stored, sort_keys=False, allow_unicode=True), encoding="utf-8")
        os.environ[_OUT] = str(out)
        counts = ", ".join(f"{len(manifest.split(s))} {s}" for s in ("train", "val", "test"))
        _log.info("%s: %d classes; videos: %s", dataset.name, len(manifest.classes), counts)
        for note in manifest.notes:
            _log.info("%s", note)
        if report is not None:
            _log.info("%s", report)
            (out / "weight.txt").write_text(f"{report}\n", encoding="utf-8")
        parameters = sum(p.numel() for p in network.parameters())
        left = sum(p.numel() for p in network.parameters() if not p.requires_grad)
        size = f"{parameters:,} parameters" + (f", of which {left:,} are frozen" if left else "")
        _log.info("%s: %s; %d steps an epoch; %s", name, size, steps_per_epoch, shown(out))

    with guarded(config.batch_size, config.clip_length, config.crop_size):
        with last.listening():
            trainer.fit(classifier, datamodule=data, ckpt_path=resume, weights_only=True)
        fit_seconds = time.monotonic() - start
        trainer.test(classifier, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        if classifier.dead:
            _log.warning("%d training videos could not be read and were skipped", len(classifier.dead))
        timing = {"fit_seconds": fit_seconds, "total_seconds": time.monotonic() - start}
        finish("train", out, stored, dataset.name, manifest, data.test_split, classifier, decoder.name, timing)
    return 0


def _run_folder(config: DictConfig, name: str, resume: Path | None) -> Path:
    if _OUT in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[_OUT])
    if resume is not None:
        return resume.parent.parent
    if config.out is not None:
        return Path(config.out).absolute()
    return Path("runs", "train", name, time.strftime("%Y-%m-%d_%H-%M-%S")).absolute()
