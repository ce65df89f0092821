"""torch's own graphs: .pt2 by torch.export, or compiled ahead of time by AOTInductor."""

from __future__ import annotations

import io
import logging
import os
import shutil
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videogn.export.archive import check_archive
from videogn.export.bundle import KEY, Bundle
from videogn.export.child import Run
from videogn.export.exporter import GraphExporter, Source
from videogn.types import InputError


@dataclass(kw_only=True)
class TorchExporter(GraphExporter):
    """A .pt2 file: the graph of plain torch operators with its weights, for torch 2.8 and later.

    Labels, preprocessing, protocol and proof lie in it as `extra/videogn`.

    Args:
        aot_inductor: compile the graph to native code for the CPU of this machine. It needs a C++ compiler here; who opens
            the file runs that code, so that `predict` asks for --trust.
    """

    aot_inductor: bool

    suffix: ClassVar[str] = ".pt2"
    runtime = "torch.export"
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    opener: ClassVar[str] = "videogn.export.torch_export.open_file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aot_inductor:
            self.runtime = "AOTInductor"
        compiler = os.environ.get("CXX", "g++")
        if self.aot_inductor and shutil.which(compiler) is None:
            raise InputError(
                f"export.aot_inductor: needs a C++ compiler, and there is no {compiler}; install one, or name it in CXX"
            )

    def write(self, source: Source, path: Path) -> None:
        import torch

        program = self.program(source, self.precision)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU that nothing asks for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.aot_inductor:
                torch._inductor.aoti_compile_and_package(program, package_path=str(path))
            else:
                torch.export.save(program, path)

    def seal(self, path: Path, bundle: Bundle) -> None:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{root}/extra/{KEY}", bundle.dumps())


def open_file(path: Path, threads: int | None, trust: bool) -> Run:
    """The graph as a function from clips to scores, on the CPU.

    Args:
        threads: of torch, for all that it does from now on; None leaves them.

    Raises:
        InputError: no .pt2, or one that could run more than a network and is not trusted.
    """
    check_archive(path, trust)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if is_compiled(path):
                network: Any = torch._inductor.aoti_load_package(str(path))
            else:
                network = torch.export.load(io.BytesIO(path.read_bytes())).module(check_guards=False)
        except Exception as error:  # it raises its own and others'
            lines = str(error).splitlines() or [type(error).__name__]
            raise InputError(f"{path}: torch {torch.__version__} cannot load it: {lines[0]}") from error

    def run(clips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(clips))).numpy()

    return run


def is_compiled(path: Path) -> bool:
    """Whether it holds native code."""
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith("data/aotinductor/") for name in archive.namelist())


def read_bundle(path: Path) -> Bundle:
    """What the file carries; raises InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.partition("/")[2] == f"extra/{KEY}"]
            text = archive.read(names[0]) if names else None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a .pt2 of torch, or a damaged one") from error
    return Bundle.loads(text, path)
