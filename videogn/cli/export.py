"""videogn export"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from videogn.cli.evaluate import stored_configuration
from videogn.cli.stop import stopped_by_sigterm
from videogn.configuration import instantiate, resolved, run_application
from videogn.identity import PATHS, config_hash
from videogn.types import InputError, VideoError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from videogn.dataset.manifest import Manifest
    from videogn.evaluation.protocol import Protocol
    from videogn.training.checkpoint import Checkpoint
    from videogn.types import Decoder


def run(arguments: Sequence[str]) -> int:
    stored = stored_configuration(arguments, "checkpoint", {"checkpoint", "out", "licence"}, "export what was trained")
    return run_application("export", arguments, export, stored)


def export(config: DictConfig) -> int:
    """Write the artifact and print its proof."""
    from videogn.cli.data import read_data, read_decoder
    from videogn.cli.output import make_folder
    from videogn.export import proof
    from videogn.prediction.load import load_network, require_classes
    from videogn.training.checkpoint import read_checkpoint

    exporter = instantiate(config.export)
    checkpoint = read_checkpoint(config.checkpoint)
    network = load_network(checkpoint, config)
    dataset, manifest = read_data(config.dataset)
    require_classes(checkpoint, manifest.classes, dataset.name)
    name, first = next(iter(config.evaluation.items()))
    protocol = instantiate(first)
    if protocol.transform.crop_size is None:
        raise InputError(
            f"evaluation: {name} scores whole frames, of any shape, and an artifact takes clips of one shape; give it a protocol "
            "with crops: evaluation=ten_clip"
        )
    place = _place(config, checkpoint, exporter)
    licence, origin = _inherited(config, checkpoint)
    decoder = read_decoder(config.decoder, dataset)  # it says which it is: not before a line of error
    clips = _Clips(manifest, decoder, protocol)
    source = _source(config, checkpoint, network, clips, licence, {"dataset": dataset.name, **origin}, exporter.num_clips)
    path = place.absolute()
    make_folder(path.parent)
    with stopped_by_sigterm("an artifact that was not finished is removed"):
        found = proof.export(exporter, source, path)
    _print(found)
    print(place)
    return 0


def _place(config: DictConfig, checkpoint: Checkpoint, exporter: Any) -> Path:
    """Where the artifact goes; raises InputError where it may not go there."""
    folder = checkpoint.path.parent
    run_folder = folder.parent if folder.name == "checkpoint" else folder
    name = f"model{exporter.suffix}" if exporter.suffix else "hub"
    path = Path(config.out) if config.out is not None else run_folder / "export" / name
    if exporter.suffix and path.is_dir():
        raise InputError(f"out={path}: is a folder; give a file")
    if path.suffix != exporter.suffix and exporter.suffix:
        raise InputError(f"out={path}: the file's name must end in {exporter.suffix}")
    if not exporter.suffix and path.exists() and not _is_hub_folder(path):
        raise InputError(f"out={path}: exists, and is no folder of an export, which this would replace; give another")
    if any(part.exists() and part.samefile(checkpoint.path) for part in exporter.parts(path)):
        raise InputError(f"out={path}: is what would be exported; give another")
    return path


def _is_hub_folder(path: Path) -> bool:
    """Whether an export wrote it."""
    try:
        return "videogn" in json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _inherited(config: DictConfig, checkpoint: Checkpoint) -> tuple[str | None, dict[str, str]]:
    """The licence, and what an export that is exported again says of its training; raises InputError."""
    licence, origin = config.licence, {}
    if checkpoint.path.suffix == ".safetensors":
        from videogn.export.safetensors import read_bundle

        bundle = read_bundle(checkpoint.path)
        known = bundle.run if isinstance(bundle.run, dict) else {}
        origin = {key: known[key] for key in ("config_hash", "dataset") if isinstance(known.get(key), str)}
        licence = bundle.licence if licence is None else licence
    if licence is not None and not isinstance(licence, str):
        raise InputError(f"licence={licence}: give a text, as licence='CC BY 4.0'")
    return licence, origin


class _Clips:
    """Real clips of the data, as the protocol that the artifact carries cuts them: of each video the one in the middle."""

    def __init__(self, manifest: Manifest, decoder: Decoder, protocol: Protocol) -> None:
        self._manifest, self.decoder, self.protocol = manifest, decoder, protocol

    def of_split(self, split: str, spread: int | None = None) -> Iterator[tuple[Tensor, int]]:
        """A clip of every video with its label; those that cannot be read are left out.

        Args:
            spread: that many videos, spread over the split; None: all.
        """
        from videogn.dataset.clips import read_views

        videos = self._manifest.split(split)
        targets = videos.targets()
        step = max(1, len(videos) // spread) if spread is not None else 1
        for row in range(0, len(videos), step):
            try:
                (views,) = read_views(videos.path(row), self.decoder, [(self.protocol.sampler, self.protocol.transform)])
            except VideoError:
                continue
            yield views[len(views) // 2], int(targets[row])

    def take(self, split: str, number: int) -> Tensor:
        """`number` clips of a split, from videos all over it; fewer where it has fewer.

        Raises:
            InputError: no video of the split can be read.
        """
        import torch

        clips = [clip for clip, _ in islice(self.of_split(split, number), number)]
        if not clips:
            raise InputError(f"no video of split {split} can be read; the export needs real clips")
        return torch.stack(clips)

    def validation(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """A clip of every video of split val, and its label, 16 at a time."""
        import numpy as np
        import torch

        clips = self.of_split("val")
        while part := list(islice(clips, 16)):
            yield torch.stack([clip for clip, _ in part]), np.array([label for _, label in part])


def _source(
    config: DictConfig,
    checkpoint: Checkpoint,
    network: Any,
    clips: _Clips,
    licence: str | None,
    origin: Mapping[str, str],
    num_clips: int,
) -> Any:
    """What is exported, and what it is proven with; `origin`: what is known of the training beside the checkpoint."""
    from videogn.evaluation.result import read_facts
    from videogn.export.bundle import Bundle
    from videogn.export.exporter import Source

    plain = _without_folders(resolved(config))
    folder = checkpoint.path.parent.parent
    result = None
    if checkpoint.path.name == "last.ckpt":  # whose result it is
        with suppress(InputError):  # none, or of another version: the artifact does without
            result = read_facts(folder)
    run = {
        "config_hash": result["config_hash"] if result is not None else config_hash(checkpoint.config),
        "manifest_sha256": checkpoint.manifest_sha256,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        **origin,
    }
    description = {
        "config": {key: value for key, value in plain.items() if key in checkpoint.config},
        "classes": list(checkpoint.classes),
        "epoch": checkpoint.epoch,
        "global_step": checkpoint.step,
        "manifest_sha256": checkpoint.manifest_sha256,
    }
    return Source(
        network=network,
        bundle=Bundle.of(plain, checkpoint.classes, clips.protocol.describe(clips.decoder.name), licence, run),
        frames=clips.take("val", num_clips),
        calibration=functools.partial(clips.take, "train"),
        validation=clips.validation,
        weights=checkpoint.weights,
        description=description,
        result=result,
        ways={
            "eager": ("videogn.prediction.load.open_network", checkpoint.path),
            "compile": ("videogn.prediction.load.open_compiled", checkpoint.path),
        },
    )


def _without_folders(value: Any, key: str = "") -> Any:
    """The configuration with the last part of each path: an artifact is given away, and says nothing of the machine."""
    if isinstance(value, Mapping):
        return {name: _without_folders(child, f"{key}.{name}".lstrip(".")) for name, child in value.items()}
    if isinstance(value, list):
        return [_without_folders(child, key) for child in value]
    is_path = isinstance(value, str) and os.sep in value and (key.startswith("dataset.") or key in PATHS or os.path.isabs(value))
    return Path(value).name if is_path else value


def _print(proof: Mapping[str, Any]) -> None:
    relative, allowed = proof["largest_relative_difference"], proof["allowed_relative_difference"]
    limit = "" if "validation" in proof else f" (allowed: {allowed:.3g})"
    print(
        f"largest difference to eager on {proof['num_clips']} real clips: {proof['largest_difference']:.3g}, "
        f"{relative:.3g} of the largest score{limit}"
    )
    shapes = [entry for entry in proof["compared"] if entry["batch"] == proof["compared"][0]["batch"]]
    if len(shapes) > 1:
        print(f"clips of {', '.join(' x '.join(map(str, entry['clip'])) for entry in shapes)}")
    print(f"top-1 agreement: {proof['top1_agreement']:.1%}")
    if "validation" in proof:
        found = proof["validation"]
        print(
            f"top-1 on the {found['num_videos']} videos of split val: "
            f"eager {found['top1_eager']:.1%}, in 8 bits {found['top1']:.1%}"
        )
    if proof.get("latency"):
        _print_latency(proof)


def _print_latency(proof: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("run by", "threads", "batch", "ms", "middle half", "clips/s", "memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in proof["latency"]:
        table.add_row(
            proof["runtime"] if entry["way"] == "artifact" else entry["way"],
            str(entry["threads"]),
            str(entry["batch"]),
            f"{entry['milliseconds']:.1f}",
            f"{entry['low']:.1f}-{entry['high']:.1f}",
            f"{1000 * entry['batch'] / entry['milliseconds']:.1f}",
            f"{entry['peak_bytes'] / 2**20:.0f} MiB",
        )
    Console().print(table)
