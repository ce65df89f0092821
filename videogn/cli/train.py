"""videogn train"""

from __future__ import annotations

import functools
import logging
import math
import os
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from videogn.cli.began import began
from videogn.cli.evaluate import stored_configuration
from videogn.cli.values import REHEARSALS, check_values, is_rehearsal
from videogn.configuration import instantiate, resolved, run_application
from videogn.sweep.grid import sweep
from videogn.types import InputError

_log = logging.getLogger(__name__)
# Tells the processes of the other devices, which Lightning starts, where the run folder is.
_OUT = "VIDEOGN_OUT"
# Callbacks whose only output is what a logger writes; without one Lightning refuses them.
_NEED_A_LOGGER = ("LearningRateMonitor", "DeviceStatsMonitor")


def run(arguments: Sequence[str]) -> int:
    free = {"resume", "num_workers", "report_videos"}
    stored = stored_configuration(arguments, "resume", free, "a run goes on as it began; start another with the new value")
    task = functools.partial(train, arguments)
    rehearsed = [a for a in arguments if a.startswith(tuple(f"trainer.{key}=" for key in REHEARSALS))]
    if rehearsed and {"-m", "--multirun"} & set(arguments):
        raise InputError(
            f"{rehearsed[0]} with -m: it writes nothing, and a multirun is known by what its jobs wrote; leave -m out"
        )
    if stored is None:
        return run_application("train", arguments, task, sweep=functools.partial(sweep, arguments, check_values))
    if {"-m", "--multirun"} & set(arguments):
        raise InputError("resume= with -m: resume= is for a single run; the command of a multirun goes on with it by itself")
    return run_application("resume", arguments, task, stored)


def train(arguments: Sequence[str], config: DictConfig) -> int:
    """Train, test, and write the run folder; or rehearse it, and leave nothing behind."""
    check_values(config)
    if config.resume is None and any(word.startswith("cases=") for word in arguments) and "hydra.mode=RUN" not in arguments:
        raise InputError("cases: values of a multirun; add -m")
    try:
        return _rehearsed(arguments, config) if is_rehearsal(config) else _train(arguments, config)
    finally:
        os.environ.pop(_OUT, None)  # or the next training that this program starts would write there


def _rehearsed(arguments: Sequence[str], config: DictConfig) -> int:
    for key in ("out", "resume"):
        if config.get(key) is not None:
            raise InputError(
                f"{key}={config[key]}: trainer.fast_dev_run and trainer.overfit_batches write nothing; leave {key}= out"
            )
    with tempfile.TemporaryDirectory(prefix="videogn_") as folder:
        config.out, config.logger = folder, None
        return _train(arguments, config)


def _train(arguments: Sequence[str], config: DictConfig) -> int:
    start = time.monotonic()
    if config.get("search") is not None:
        if "hydra.mode=RUN" not in arguments and config.resume is None:
            raise InputError("search: is a multirun; add -m, or hydra.mode=RUN for one training with the values as they are")
        config.search = None  # a training is none
    # Imported once the command line is known to be sound: torch and Lightning take seconds.
    import torch

    from videogn.cli.data import bad_fraction, kinds_of, read_data, read_decoder, write_missing
    from videogn.cli.output import TestedData, finish, make_folder, shown, write_config
    from videogn.cli.shapes import clips_of, plan_of, shapes_of
    from videogn.cli.weights import start_from
    from videogn.dataset.shared_memory import shared_memory_warning
    from videogn.evaluation.result import peak_memory_bytes
    from videogn.model.recomputation import set_activation_memory
    from videogn.prediction.load import build_network, load_network
    from videogn.sampler.batches import EpochBatches
    from videogn.training.allocator import keep_memory
    from videogn.training.checkpoint import LAST, PREVIOUS, checkpoint_path, read_checkpoint
    from videogn.training.checkpoint_io import SealedCheckpointIO, TorchCheckpointIO
    from videogn.training.class_weights import describe
    from videogn.training.classifier import METRICS, Optimization, VideoClassifier
    from videogn.training.datamodule import ClipData, TrainingSource
    from videogn.training.description import Describe
    from videogn.training.divergence import StopDivergence
    from videogn.training.execution import Execution
    from videogn.training.fine_tuning import Freeze
    from videogn.training.interrupt import LastCheckpoint, StopTest
    from videogn.training.loss import FocalLoss
    from videogn.training.precise_statistics import PreciseStatistics
    from videogn.training.profile import made_profiler
    from videogn.training.progress import TrainingProgress
    from videogn.training.quarantine import Quarantine
    from videogn.training.quiet import guarded, quiet
    from videogn.training.recipe import Recipe
    from videogn.training.schedule import describe_warmup
    from videogn.training.sharding import FullySharded, ShardedClassifier, check_sharding
    from videogn.training.tracking import log_results, tracked
    from videogn.training.trained_data import NAME, refuse_other_data, refuse_other_devices, trained_on
    from videogn.training.weight_averaging import check_statistics
    from videogn.transform.mixing import Mixing

    quiet()
    resume = checkpoint_path(config.resume) if config.resume is not None else None
    if resume is not None and (finished := resume.parent.parent / "result.json").is_file():
        _log.info("%s is there: this run is finished; videogn evaluate tests it again", finished)
        return 0
    dataset, manifest = read_data(config.dataset)
    command, seconds_before, peak_before, devices_before = ("train", *arguments), 0.0, 0, 0
    if resume is not None:
        checkpoint = read_checkpoint(resume)
        refuse_other_data(checkpoint, manifest)
        # A resumed run is repeated by the words that it began with, and has cost what it did until then as well.
        command = checkpoint.command_line or command
        seconds_before, peak_before = checkpoint.seconds, checkpoint.peak_memory_bytes
        devices_before = checkpoint.num_processes
        del checkpoint  # its weights
    max_bad_fraction = bad_fraction(config.dataset)
    if config.trainer.get("fast_dev_run"):
        manifest = _without_most(manifest)
    train_split, val_split = manifest.split("train"), manifest.split("val")
    if not len(train_split):
        raise InputError(f"{dataset.name}: no video in split train; there is nothing to learn from")
    if not len(val_split):
        raise InputError(f"{dataset.name}: no video in split val; training is watched on val: add some")
    if config.trainer.get("sync_batchnorm"):
        raise InputError(
            "trainer.sync_batchnorm: Lightning would put a plain SyncBatchNorm in place of our norms and drop their residual "
            "addition and activation; norm=sync_batch_norm synchronises, norm=group_norm need not"
        )
    torch.manual_seed(config.seed)
    network = build_network(config, len(manifest.classes))
    set_activation_memory(network, config.get("activation_memory") or "full")
    fine_tuning, report = start_from(config.get("weight"), network, manifest.classes, resume is not None)
    frozen = fine_tuning.frozen(network)

    choices = HydraConfig.get().runtime.choices
    named = choices.get("experiment") or f"{dataset.name}_{choices.get('model')}_{choices.get('norm')}"
    name = named if resume is None else "resumed"
    out = _run_folder(config, name, resume)
    if resume is not None and config.out:
        _move(config, config.out, str(out))
    config.out = str(out)
    last = LastCheckpoint(out / "checkpoint" / LAST)
    loggers = _built(config.get("logger"))
    callbacks = [c for c in _built(config.get("callback")) if loggers or type(c).__name__ not in _NEED_A_LOGGER]
    overfit = config.trainer.get("overfit_batches") or None
    if overfit:  # there is no validation, and what watches it would complain
        callbacks = [c for c in callbacks if not str(getattr(c, "monitor", None)).startswith("val/")]
    _check_watched(callbacks, METRICS)
    check_statistics(network, callbacks)
    guards = [StopDivergence(out / "checkpoint" / "last.ckpt")] if config.get("stop_when_diverged", True) else []
    progress = TrainingProgress()
    untested = f"trained, and not tested; go on with: videogn train {shlex.quote(f'resume={out}')}"
    trainer = instantiate(
        config.trainer,
        logger=loggers or False,
        callbacks=[*guards, *callbacks, Freeze(frozen), PreciseStatistics(), last, progress, StopTest(untested)],
        default_root_dir=str(out),
        profiler=made_profiler(config.trainer.get("profiler"), out),
        **({} if config.get("base_steps") is None else {"max_epochs": -1}),  # how many is known below
    )

    if trainer.strategy.root_device.type == "cpu":
        keep_memory()
    refuse_other_devices(resume, devices_before, trainer.world_size)
    check_sharding(trainer.strategy, callbacks)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # and none of the user's
        trainer.strategy.checkpoint_io = SealedCheckpointIO()

    if overfit:
        trainer.limit_val_batches = 0
    kinds = kinds_of(train_split, config.get("batch_composition", "mixed"))

    def batches(rank: int, num_ranks: int, shapes: Callable[[int, int], tuple[int, int]] | None = None) -> EpochBatches:
        labels = train_split.targets() if config.get("class_balanced") else None
        drawn = len(train_split), config.batch_size, config.seed, config.clips_per_video
        return EpochBatches(*drawn, rank, num_ranks, labels, kinds, overfit, shapes)

    steps_per_epoch = _steps_per_epoch(trainer, len(batches(0, trainer.world_size)))
    clips_a_step = config.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    recipe = None
    if config.get("base_batch_size") is not None:
        recipe = Recipe(config.base_batch_size, config.base_lr, config.base_steps)
        if (lr := recipe.lr(clips_a_step)) is not None:
            given = [word for word in HydraConfig.get().overrides.task if word.startswith("optimizer.lr=")]
            if given and resume is None:
                raise InputError(f"{given[0]} and base_lr={config.base_lr}, which sets it; leave one out (base_lr=null)")
            config.optimizer.lr = lr
        if (steps := recipe.steps(clips_a_step)) is not None and not trainer.fast_dev_run:
            trainer.fit_loop.epoch_loop.max_steps = steps
            trainer.fit_loop.max_epochs = -(-steps // steps_per_epoch)
    num_steps = _num_steps(trainer, steps_per_epoch)
    if config.total_steps is None:
        # Of a rehearsal those of the training that it stands for.
        rehearsed = trainer.fast_dev_run or num_steps == math.inf
        config.total_steps = steps_per_epoch * (config.epochs or 1) if rehearsed else num_steps
    if config.get("warmup") is not None and config.warmup.steps_per_epoch is None:
        config.warmup.steps_per_epoch = steps_per_epoch
    plan = plan_of(config, trainer, network, int(config.total_steps))
    if config.get("memory_format") == "auto":
        config.memory_format = _measured_format(config, network, trainer)
    stored = resolved(config)
    mixing = instantiate(config.mixing) if config.get("mixing") is not None else Mixing()

    def costs() -> dict[str, float]:
        seconds = seconds_before + time.monotonic() - start
        return {"seconds": seconds, "peak_memory_bytes": max(peak_before, peak_memory_bytes())}

    trainer.callbacks.append(Describe(stored, manifest.classes, manifest.sha256(), command, trainer.world_size, costs))
    loss = instantiate(config.loss)
    if config.loss.get("class_weights") == "balanced" and config.get("class_balanced"):
        raise InputError("class_balanced=true draws every class equally often, and loss.class_weights=balanced: leave one out")
    if isinstance(loss, FocalLoss):
        loss.weigh(manifest.classes, train_split.targets())
    optimization = Optimization(
        loss,
        instantiate(config.optimizer),
        instantiate(config.schedule),
        config.norm_weight_decay,
        config.seed,
        Quarantine(out / "quarantine.csv", train_split, max_bad_fraction),
        fine_tuning,
        mixing,
        None if plan is None else plan.lr_factor,
    )
    protocols = {key: instantiate(protocol) for key, protocol in config.evaluation.items()}
    validation = instantiate(config.validation)
    execution = Execution(network, config.get("memory_format"), config.get("compile", False))
    sharded = isinstance(trainer.strategy, FullySharded)
    classifier = (ShardedClassifier if sharded else VideoClassifier)(
        network, manifest.classes, config.mean, config.std, protocols, validation, config.batch_size, optimization, execution
    )
    schedule = classifier.configure_optimizers()["lr_scheduler"]["scheduler"]  # Lightning asks later, when the folder is there
    if config.schedule.get("total_steps", num_steps) < num_steps:
        raise InputError(
            f"total_steps={config.schedule.total_steps}: the training has {num_steps} steps, and the schedule ends before; give "
            "as many or more, or null, or fewer epochs"
        )
    warmup = describe_warmup(instantiate(config.get("warmup")), schedule, int(config.total_steps))
    shapes = shapes_of(plan, steps_per_epoch, trainer.accumulate_grad_batches)
    ordered = batches if shapes is None else functools.partial(batches, shapes=shapes)
    source = TrainingSource(clips_of(config, plan), ordered, config.seed, batches)
    decoder = read_decoder(config.decoder, dataset)  # it says which it is: not before a line of error
    data = ClipData(manifest, decoder, protocols, validation, config.batch_size, config.num_workers, source)
    if trainer.is_global_zero:
        if warning := shared_memory_warning(data.shared_memory_bytes() * trainer.num_devices):
            _log.warning("%s", warning)
        if resume is None and (out / "checkpoint" / LAST).exists():
            raise InputError(
                f"out={shown(out)}: holds a training, which this would replace; go on with resume={shown(out)}, or give another "
                "folder"
            )
        make_folder(out)
        write_missing(manifest, out)
        manifest.write(out / NAME)
        write_config(stored, out)
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
        steps = f"{steps_per_epoch} step{'s' if steps_per_epoch > 1 else ''} an epoch"
        _log.info("%s: %s; %s; %s", name, size, steps, shown(out))
        if recipe is not None:
            _log.info("%s", recipe.describe(clips_a_step, steps_per_epoch))
        if plan is not None:
            _log.info("multigrid: %s", plan)
        if warmup:
            _log.info("%s", warmup)
        if isinstance(loss, FocalLoss) and loss.weight is not None:
            _log.info("%s", describe(loss.weight, manifest.classes))

    with tracked(loggers, stored):
        others = "" if plan is None else f" (multigrid: {plan})"
        with guarded(config.batch_size, config.clip_length, config.crop_size, others):
            with last.listening():
                trainer.fit(classifier, datamodule=data, ckpt_path=resume, weights_only=True)
            fit_seconds = costs()["seconds"]
            if overfit:
                learned = ", ".join(
                    f"{key} {float(trainer.callback_metrics[f'train/{key}_epoch']):.3f}" for key in ("loss", "top1")
                )
                _log.info("overfit_batches=%d: %s in the last epoch; nothing was written", overfit, learned)
                return 0
            trainer.test(classifier, datamodule=data, verbose=False)
        if trainer.fast_dev_run:
            _log.info("fast_dev_run: training, validation and test take their steps; nothing was written")
            return 0
        if trainer.is_global_zero:
            (out / "checkpoint" / PREVIOUS).unlink(missing_ok=True)
            if classifier.dead:
                _log.warning(
                    "%d training video%s could not be read: skipped, and listed in %s",
                    len(classifier.dead),
                    "s" if len(classifier.dead) > 1 else "",
                    shown(out / "quarantine.csv"),
                )
            cost = costs()
            timing = {"fit_seconds": fit_seconds, "test_seconds": cost["seconds"] - fit_seconds, "total_seconds": cost["seconds"]}
            if progress.rates:
                timing["train_clips_per_second"] = statistics.median(progress.rates)
            seen = len(trained_on(manifest, data.test_split))
            tested = TestedData(dataset.name, manifest, data.test_split, seen, decoder, trainer.strategy.root_device)
            if sharded:  # the page looks into the network, in this process alone
                classifier.network = load_network(read_checkpoint(out), config)
            facts = finish(command, out, stored, tested, classifier, timing, int(cost["peak_memory_bytes"]), trainer.world_size)
            log_results(loggers, facts["results"], trainer.global_step)
    return 0


def _built(parts: Any) -> list[Any]:
    """What a group of several files names; null in place of one leaves it out."""
    return [instantiate(part) for part in (parts or {}).values() if part is not None]


def _without_most(manifest: Any) -> Any:
    """All videos of train, and one of each of the others: the score of a split needs every video of it."""
    one = {entry.split: row for row, entry in reversed(list(enumerate(manifest.entries)))}
    kept = [entry for row, entry in enumerate(manifest.entries) if entry.split == "train" or one[entry.split] == row]
    return type(manifest)(manifest.root, kept, manifest.classes)


def _check_watched(callbacks: Sequence[Any], metrics: Sequence[str]) -> None:
    """Raises InputError: a callback watches a metric that there is none of, as Lightning would say after the first epoch."""
    if not all(type(callback).__module__.startswith(("lightning.", "videogn.")) for callback in callbacks):
        return  # one of the user's may log what we do not know
    for callback in callbacks:
        if (metric := getattr(callback, "monitor", None)) is not None and metric not in metrics:
            raise InputError(f"{type(callback).__name__}: monitor={metric}; use one of {', '.join(metrics)}")


def _measured_format(config: DictConfig, network: Any, trainer: Any) -> str:
    """Raises InputError: several processes would each find another."""
    from videogn.training.execution import faster_format

    if trainer.world_size > 1:
        raise InputError(
            f"memory_format=auto over {trainer.world_size} devices: they must agree; measure with trainer.devices=1, and give "
            "memory_format=channels_last or contiguous"
        )
    shape = (config.batch_size, 3, config.clip_length, config.crop_size, config.crop_size)
    found, share = faster_format(network, shape, trainer.strategy.root_device, trainer.precision_plugin.forward_context)
    _log.info("memory_format: %s, in which a step takes %.2f times what the other takes", found, share)
    return found


def _steps_per_epoch(trainer: Any, num_batches: int) -> int:
    """The optimiser's."""
    if trainer.accumulate_grad_batches < 1:
        raise InputError(f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: give a whole number from 1 up")
    limit = 1.0 if trainer.fast_dev_run else trainer.limit_train_batches
    num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    return -(-num_batches // trainer.accumulate_grad_batches)


def _num_steps(trainer: Any, steps_per_epoch: int) -> float:
    """The optimiser's in the training."""
    epochs, steps = (count if count is not None and count >= 0 else math.inf for count in (trainer.max_epochs, trainer.max_steps))
    return min(steps_per_epoch * epochs, steps)


def _move(config: Any, before: str, now: str) -> None:
    """What is written into a run's folder is written where that is now; `config` has paths, and no longer ${out}."""
    for key in config if isinstance(config, DictConfig) else range(len(config)):
        value = config[key]
        if isinstance(value, (DictConfig, ListConfig)):
            _move(value, before, now)
        elif isinstance(value, str) and (value == before or value.startswith(before + os.sep)):
            config[key] = now + value[len(before) :]


def _run_folder(config: DictConfig, name: str, resume: Path | None) -> Path:
    if _OUT in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[_OUT])
    if resume is not None:
        return resume.parent.parent
    if config.out is not None:
        return Path(config.out).absolute()
    return Path("runs", "train", name, began()).absolute()
