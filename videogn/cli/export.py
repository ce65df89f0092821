"""videogn export"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from videogn.cli.evaluate import stored_configuration
from videogn.configuration import instantiate, resolved, run_application
from videogn.types import InputError, VideoError


def run(arguments: Sequence[str]) -> int:
    stored = stored_configuration(arguments, "checkpoint", {"checkpoint", "out"}, "export what was trained")
    return run_application("export", arguments, export, stored)


def export(config: DictConfig) -> int:
    """Write the artifact and print its proof."""
    import torch

    from videogn.cli.data import read_data
    from videogn.cli.output import make_folder
    from videogn.dataset.clips import read_views
    from videogn.export.bundle import Bundle
    from videogn.prediction.load import load_network, require_classes
    from videogn.training.checkpoint import read_checkpoint
    from videogn.transform.functional import to_input

    checkpoint = read_checkpoint(config.checkpoint)
    network = load_network(checkpoint, config)
    exporter = instantiate(config.export)
    dataset, manifest = read_data(config.dataset)
    require_classes(checkpoint, manifest.classes, dataset.name)
    val = manifest.split("val")
    decoder, protocol = instantiate(config.decoder), instantiate(config.validation)
    name, first = next(iter(config.evaluation.items()))
    if (scored := instantiate(first)).transform.crop_size is None:
        raise InputError(
            f"evaluation: {name} scores whole frames, of any shape, and an artifact takes clips of one shape; give it a protocol "
            "with crops: evaluation=ten_clip"
        )
    if protocol.transform.crop_size is None:
        protocol = scored
    clips: list[torch.Tensor] = []
    for row in range(len(val)):
        if sum(map(len, clips)) >= exporter.num_clips:
            break
        try:
            clips.extend(read_views(val.path(row), decoder, [(protocol.sampler, protocol.transform)]))
        except VideoError:
            continue
    if not clips:
        raise InputError(f"{dataset.name}: no video of split val can be read; the proof needs real clips")
    frames = torch.cat(clips)[: exporter.num_clips]
    inputs = to_input(frames, torch.zeros(len(frames), dtype=torch.bool), config.mean, config.std)

    folder = checkpoint.path.parent
    run_folder = folder.parent if folder.name == "checkpoint" else folder
    path = Path(config.out) if config.out is not None else run_folder / "export" / f"model{exporter.suffix}"
    if path.suffix != exporter.suffix:
        raise InputError(f"out={path}: the file's name must end in {exporter.suffix}")
    make_folder(path.absolute().parent)
    proof = exporter(network, inputs, Bundle.of(resolved(config), checkpoint.classes), path.absolute())
    print(
        f"largest difference to eager on {proof['num_clips']} real clips: {proof['largest_difference']:.3g} "
        f"(allowed: {proof['allowed_difference']:.3g})"
    )
    print(f"top-1 agreement: {proof['top1_agreement']:.1%}")
    print(f"latency of one clip: eager {proof['latency_ms_eager']:.1f} ms, {proof['runtime']} {proof['latency_ms']:.1f} ms")
    print(path)
    return 0
