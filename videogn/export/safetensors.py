"""The weights in one .safetensors file, with what builds the network around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from videogn.export.bundle import KEY, Bundle
from videogn.export.exporter import Exporter, Source
from videogn.types import InputError


@dataclass(kw_only=True)
class SafetensorsExporter(Exporter):
    """A .safetensors file: tensors alone, which no reader can be made to run.

    Its metadata has the bundle under `videogn` and, under `videogn_checkpoint`, the configuration and the class names of the run:
    videogn.load, `predict`, `evaluate` and `export` take the file like a .ckpt. In 16 bits, vectors (norms and biases) stay in
    32.
    """

    suffix: ClassVar[str] = ".safetensors"
    runtime = "videogn"
    packages: ClassVar[tuple[str, ...]] = ("videogn", "safetensors")
    opener: ClassVar[str] = "videogn.prediction.load.open_network"

    def write(self, source: Source, path: Path) -> None:
        from safetensors.torch import save  # save_file gives what it writes to nobody but its owner

        from videogn.export.portable import PRECISIONS

        dtype = PRECISIONS[self.precision]
        weights = {
            name: (tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor).contiguous()
            for name, tensor in source.weights.items()
        }
        path.write_bytes(save(weights, {"format": "pt", f"{KEY}_checkpoint": json.dumps(source.description)}))

    def seal(self, path: Path, bundle: Bundle) -> None:
        from safetensors import safe_open
        from safetensors.torch import save

        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            metadata = file.metadata()
        path.write_bytes(save(weights, {**metadata, KEY: bundle.dumps()}))


def read_bundle(path: Path) -> Bundle:
    """What the file carries; raises InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a file of safetensors, or a damaged one") from error
    return Bundle.loads(metadata.get(KEY), path)
