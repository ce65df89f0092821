"""videogn plan"""

from __future__ import annotations

import functools
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.table import Table

from videogn.cli.inspect import network_on_a_gpu
from videogn.cli.values import bytes_of, check_counts, check_words
from videogn.configuration import instantiate, nearest, run_application
from videogn.number import is_count, is_number, is_positive
from videogn.sweep.plan import FEW_CLIPS, Choice, Room, accumulated_batches, largest_batch, recommended
from videogn.types import Findings, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from videogn.report.memory import Gpu, StepMemory

_RULE = (
    f"norm: over fewer than {FEW_CLIPS} clips, statistics that clips share cost accuracy (Wu & He 2018, tables 8 and 2: from 8 "
    "clips a device to 4, I3D on Kinetics falls from 73.3 to 72.1 under batch norm, from 73.0 to 72.8 under group norm; at 2 "
    f"images, the error on ImageNet is 34.7% and 24.1%). From {FEW_CLIPS} on the two are near: the first of norms is recommended"
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    choice: Choice
    step: StepMemory  # of its batch; of one clip where none fits


def run(arguments: Sequence[str]) -> int:
    return run_application("plan", arguments, plan)


def plan(config: DictConfig) -> int:
    """Print what fits, what is recommended, and the words that train it."""
    room = _room(config)
    _check(config)
    norms = {name: _norm(config, name) for name in dict.fromkeys(config.norms)}
    lengths = tuple(dict.fromkeys(config.clip_lengths))
    # Imported once the command line is known to be sound: torch takes seconds.
    from videogn.report.memory import first_gpu

    counted = {name: _counted(config, name, norm, lengths, room) for name, norm in norms.items()}
    rows = [counted[name][length] for length in lengths for name in norms]
    best = {length: recommended([row.choice for row in rows if row.choice.clip_length == length]) for length in lengths}
    unit = ("GiB", 2**30) if "ib" in str(config.gpu_memory).lower() else ("GB", 10**9)
    table = _table(config, rows, best, room, unit)
    # As wide as the table, whatever the terminal: a name cut short is no name.
    Console(width=Console(width=1000).measure(table).maximum).print(table)
    if not any(row.choice.batch_size for row in rows):
        least = min(rows, key=lambda row: row.step.total)
        raise Findings(
            f"gpu_memory={config.gpu_memory}: not even one clip fits; one of {least.choice.clip_length} frames under "
            f"{least.choice.norm} needs {room.needed(least.step.total) / unit[1]:.2f} {unit[0]}: give shorter clips, a smaller "
            "crop_size or another model"
        )
    print()
    for note in _notes(config, rows, best):
        print(textwrap.fill(note, 130, subsequent_indent="  ", break_on_hyphens=False))
    status = 0
    chosen = [row for row in rows if row.choice is best[row.choice.clip_length]]
    gpu = first_gpu() if config.measure else None
    if gpu is None:
        print("measured: nothing; " + ("there is no CUDA GPU here" if config.measure else "measure=false"))
    else:
        for row in chosen:
            fitted, line = _measured(config, norms[row.choice.norm], row, room, gpu, unit)
            print(line, flush=True)
            status = status if fitted else 1
    print()
    for row in chosen:
        print(shlex.join(_words(config, row.choice)))
    return status


def _room(config: DictConfig) -> Room:
    memory = bytes_of("gpu_memory", config.gpu_memory)
    if memory < 2**20:
        raise InputError(f"gpu_memory={config.gpu_memory}: {memory} bytes; give the memory of a GPU with its unit, as 24GB")
    if not is_number(config.fragmentation, high=1):
        raise InputError(f"fragmentation={config.fragmentation}: give a share, 0 to 1")
    return Room(memory, bytes_of("reserve", config.reserve), config.fragmentation)


def _check(config: DictConfig) -> None:
    """Raises InputError: a value that none can be planned with."""
    check_counts(config, ("num_devices", "num_classes", "crop_size", "base_batch_size"))
    lengths, norms = config.clip_lengths, config.norms
    if not isinstance(lengths, ListConfig) or not lengths or not all(is_count(length, 1) for length in lengths):
        raise InputError(f"clip_lengths={lengths}: give a list of whole numbers from 1 up, as clip_lengths=[8,16]")
    if not isinstance(norms, ListConfig) or not norms:
        raise InputError(f"norms={norms}: give a list of files of conf/norm, as norms=[group_norm,batch_norm]")
    if config.base_lr is not None and not is_positive(config.base_lr):
        raise InputError(f"base_lr={config.base_lr}: give a number above 0, or null for none")
    check_words(config)
    if not isinstance(config.measure, bool):
        raise InputError(f"measure={config.measure}: give true or false")
    known = GlobalHydra.instance().config_loader().get_group_options("norm")
    for name in norms:
        if name not in known:
            raise InputError(f"norms: {name} is not one of {', '.join(known)}{nearest(str(name), known)}")
    chosen = HydraConfig.get().runtime.choices["norm"]
    given = [word for word in HydraConfig.get().overrides.task if word.lstrip("+~").startswith(("norm=", "norm."))]
    if given and chosen not in norms:
        raise InputError(f"{given[0]}: of {chosen}, which is none of norms=[{','.join(norms)}]; name it there")


def _norm(config: DictConfig, name: str) -> DictConfig:
    """Of the norm that `norm=` names, the values of this command line; of the others, those of their files."""
    return config.norm if HydraConfig.get().runtime.choices["norm"] == name else compose("plan", [f"norm={name}"]).norm


def _built(config: DictConfig, norm: DictConfig, device: torch.device) -> tuple[nn.Module, Optimizer]:
    from videogn.training.parameter_groups import parameter_groups

    parts = {"model": config.model, "norm": norm, "conv": config.conv, "activation_memory": config.activation_memory}
    with device:
        network = network_on_a_gpu(parts, config.num_classes)
    try:
        return network, instantiate(config.optimizer)(parameter_groups(network, norm_weight_decay=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {error}; correct its values") from error


def _clip(config: DictConfig, length: int) -> tuple[int, int, int, int]:
    return 3, length, config.crop_size, config.crop_size


def _counted(config: DictConfig, name: str, norm: DictConfig, lengths: Sequence[int], room: Room) -> dict[int, Row]:
    """The row of every clip length under one norm."""
    import torch

    from videogn.report.memory import count_step, uncomputed

    shares, meets = _statistics(norm, _built(config, norm, torch.device("meta"))[0])
    with uncomputed(config.precision) as device:
        network, optimizer = _built(config, norm, device)

        @functools.cache
        def count(length: int, batch_size: int) -> StepMemory:
            clip, devices = _clip(config, length), config.num_devices
            return count_step(network, optimizer, clip, batch_size, devices, config.precision)

        def row(length: int) -> Row:
            # Two clips: batch norms refuse one value a channel, which is what a small clip may come down to.
            two, three = count(length, 2), count(length, 3)
            # Of small batches the optimiser's step may be the fullest moment, which a clip more leaves as it is.
            a_clip = max(three.total - two.total, three.clips + three.kept - two.clips - two.kept)
            guess = 2 + int((room.memory - room.needed(two.total)) / ((1 + room.fragmentation) * a_clip))
            batch_size = largest_batch(lambda n: room.holds(count(length, n).total), guess)
            together = batch_size * (config.num_devices if meets else 1) if shares else None
            return Row(Choice(length, name, batch_size, together), count(length, max(1, batch_size)))

        return {length: row(length) for length in lengths}


def _statistics(norm: DictConfig, network: nn.Module) -> tuple[bool, bool]:
    """Whether a clip's output depends on its batch, asked of a layer of one of the network's widths; and on other devices."""
    import torch

    norms = (module for module in network.modules() if hasattr(module, "no_decay_parameters"))
    layer = instantiate(norm)(next((getattr(module, "channels", 64) for module in norms), 64)).train()
    width: Any = getattr(layer, "channels", 64)
    clips = torch.randn((2, width, 2, 2, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # Rounding moves a normalized value by 1e-6; the statistics of 8 values a channel in place of 16, by about 0.1.
        shares = not torch.allclose(layer(clips)[:1], layer(clips[:1]), atol=1e-3)
    return shares, getattr(layer, "meets_other_ranks", False)


def _base_lr(config: DictConfig) -> float | None:
    """None too where the one of conf/plan.yaml meets another optimiser than its own."""
    given = any(word.startswith("base_lr=") for word in HydraConfig.get().overrides.task)
    return config.base_lr if given or HydraConfig.get().runtime.choices["optimizer"] == "sgd" else None


def _accumulate(config: DictConfig, choice: Choice) -> int:
    return accumulated_batches(choice.batch_size * config.num_devices, config.base_batch_size)


def _table(
    config: DictConfig, rows: Sequence[Row], best: Mapping[int, Choice | None], room: Room, unit: tuple[str, int]
) -> Table:
    from videogn.training.recipe import Recipe

    recipe = Recipe(config.base_batch_size, _base_lr(config), None)

    def rates(choice: Choice) -> list[str]:
        """For a batch of every device, and for as many as are accumulated."""
        if not choice.batch_size:
            return ["", "", ""]
        clips, batches = choice.batch_size * config.num_devices, _accumulate(config, choice)
        once, then = ("" if (lr := recipe.lr(n)) is None else f"{lr:.4g}" for n in (clips, clips * batches))
        return [once, str(batches), then]

    def advice(choice: Choice) -> str:
        if not choice.batch_size:
            return "not even one clip fits"
        if choice is best[choice.clip_length]:
            return "recommended"
        return "too few clips" if choice.suffers else "fits"

    table = Table(box=None, pad_edge=False)
    memory = ("fixed", "clips", "temporary", "assumed", f"sum, {unit[0]}")
    for column in ("frames", "norm", "batch_size", *memory, "lr", "accumulate", "lr then", "advice"):
        table.add_column(column, justify="left" if column in ("norm", "advice") else "right", no_wrap=True)
    for row in rows:
        step, choice = row.step, row.choice
        needed = room.needed(step.total)
        terms = step.fixed, step.clips + step.kept, step.temporaries, needed - step.total, needed
        sizes = [f"{term / unit[1]:.2f}" for term in terms]
        table.add_row(str(choice.clip_length), choice.norm, str(choice.batch_size), *sizes, *rates(choice), advice(choice))
    return table


def _notes(config: DictConfig, rows: Sequence[Row], best: Mapping[int, Choice | None]) -> list[str]:
    """What the columns mean, and where they come from."""
    choices = HydraConfig.get().runtime.choices
    step, crop, devices = rows[0].step, config.crop_size, config.num_devices
    parts = {"weights": step.weights, "gradients": step.gradients, "optimiser": step.optimizer_state}
    if devices > 1:
        parts["the gradients that the devices exchange"] = step.exchanged
    fixed = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in parts.items())
    notes = [
        f"{choices['model']}, clips of 3 x frames x {crop} x {crop}, {config.precision}, "
        f"activation_memory={config.activation_memory}, {config.num_classes} classes, "
        f"{devices} GPU{'s' if devices > 1 else ''} of {config.gpu_memory}",
        f"fixed: {fixed} ({rows[0].choice.norm})",
        "clips: the batch as it is loaded, and what the backward pass keeps of it",
        "temporary: what the fullest moment of a step holds beside these",
        f"assumed, not measured: reserve={config.reserve} for the CUDA context and workspaces, and fragmentation="
        f"{config.fragmentation:g} of the other columns",
        _RULE,
    ]
    if (base_lr := _base_lr(config)) is not None:
        notes.append(
            f"lr: {base_lr:g} x clips a step / {config.base_batch_size}, for a batch of each GPU; `lr then`, for as many as are "
            "accumulated: train scales it so"
        )
    elif config.base_lr is not None:
        notes.append(f"lr: none, since base_lr={config.base_lr:g} is that of SGD; give base_lr=LR for {choices['optimizer']}")
    if any(row.choice.batch_size and _accumulate(config, row.choice) > 1 for row in rows):
        sharing = dict.fromkeys(row.choice.norm for row in rows if row.choice.clips_together is not None)
        notes.append(
            f"accumulate: batches that make a step of {config.base_batch_size} clips or more. Where each clip has its own "
            "statistics that equals the large batch" + (f"; under {', '.join(sharing)} it does not" if sharing else "")
        )
    for length, choice in best.items():
        sizes = {row.choice.norm: row.choice.clips_together for row in rows if row.choice.clip_length == length}
        if choice is None and any(sizes.values()):
            clips = ", ".join(f"{name} over {together} clips" for name, together in sizes.items() if together)
            notes.append(f"{length} frames: none recommended, {clips}; add group_norm to norms")
    return notes


def _measured(config: DictConfig, norm: DictConfig, row: Row, room: Room, gpu: Gpu, unit: tuple[str, int]) -> tuple[bool, str]:
    """Whether the batch fitted the GPU of this machine, as far as that was tried, and a line that says what it took."""
    import torch

    from videogn.report.memory import measure_step

    def size(num_bytes: float) -> str:
        return f"{num_bytes / unit[1]:.2f} {unit[0]}"

    choice = row.choice
    tensors = row.step.total - row.step.exchanged  # one device alone
    place = f"measured: {choice.clip_length} frames, {choice.norm}, batch_size={choice.batch_size}"
    if (1 + room.fragmentation) * tensors > gpu.free:
        return True, f"{place}: not tried, since {size(tensors)} were counted and {size(gpu.free)} of the {gpu.name} are free"
    network, optimizer = _built(config, norm, torch.device("cuda:0"))
    found = measure_step(network, optimizer, _clip(config, choice.clip_length), choice.batch_size, config.precision)
    if found is None:
        return False, f"{place}: out of memory on {gpu.name}, {size(tensors)} counted; give a larger reserve"
    return True, (
        f"{place}: {size(found.allocated)} allocated at the peak on {gpu.name}, {size(tensors)} counted; the allocator held "
        f"{size(found.reserved)}"
    )


def _words(config: DictConfig, choice: Choice) -> list[str]:
    """The command line that trains a choice: the parts that this command line names, and no data."""
    hydra, base_lr = HydraConfig.get(), _base_lr(config)

    def is_part(word: str) -> bool:
        key = word.split("=", 1)[0].lstrip("+~")
        if key.startswith("norm."):
            return hydra.runtime.choices["norm"] == choice.norm
        lr = key == "optimizer.lr" and base_lr is not None  # which sets it
        return key.split(".")[0] in ("model", "conv", "optimizer") and key != "model" and not lr

    # The sides of Kinetics' recipe to its crop: 256 to 320 in training, 256 in testing, to 224.
    low, high = round(config.crop_size * 8 / 7), round(config.crop_size * 10 / 7)
    values = {
        "clip_length": choice.clip_length,
        "crop_size": config.crop_size,
        "train_short_side": f"[{low},{high}]",
        "test_short_side": low,
        "batch_size": choice.batch_size,
        "trainer.devices": config.num_devices,
    }
    # What is not train's own.
    for key, value, default in (
        ("trainer.precision", config.precision, "32-true"),
        ("activation_memory", config.activation_memory, "full"),
    ):
        if value != default:
            values[key] = value
    if base_lr is not None:
        values |= {"base_batch_size": config.base_batch_size, "base_lr": base_lr}
    if (batches := _accumulate(config, choice)) > 1:
        values["trainer.accumulate_grad_batches"] = batches
    parts = [f"model={hydra.runtime.choices['model']}", f"norm={choice.norm}", *filter(is_part, hydra.overrides.task)]
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    own = [word for folder in folders for word in ("--config-dir", folder)]
    return ["videogn", "train", *parts, *(f"{key}={value}" for key, value in values.items()), *own]
