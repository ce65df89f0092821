"""torch's own graphs: .pt2 by torch.export, or compiled ahead of time by AOTInductor."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videogn.export.bundle import KEY, Bundle
from videogn.export.child import Run
from videogn.export.exporter import GraphExporter, Source
from videogn.export.reason import reason
from videogn.packing import check_unpacked_size
from videogn.types import InputError


@dataclass(kw_only=True)
class TorchExporter(GraphExporter):
    """A .pt2 file: the graph of plain torch operators with its weights, for torch 2.8 and later.

    Labels, preprocessing, protocol and proof lie in it as `extra/videogn`. To torch such a file is a program, so that `predict`
    asks for --trust.

    Args:
        aot_inductor: compile the graph to native code for the CPU of this machine. It needs a C++ compiler here; who opens
            the file runs that code.
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
                try:
                    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
                except Exception as error:  # of the compiler
                    raise InputError(f"export.aot_inductor: the graph cannot be compiled: {reason(error)}") from error
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
        trust: whether the file comes from where programs may come from.

    Raises:
        InputError: it is not trusted, or no .pt2.
    """
    if not trust:
        raise InputError(
            f"{path}: a .pt2 is a program: torch imports, evaluates and calls what it names, and it may hold native code; give "
            "--trust (from Python: trust=True) if you know who wrote it"
        )
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
                network = torch.export.load(path).module(check_guards=False)
        except Exception as error:  # it raises its own and others'
            raise InputError(f"{path}: torch {torch.__version__} cannot load it: {reason(error)}") from error

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
        check_unpacked_size(path)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.partition("/")[2] == f"extra/{KEY}"]
            text = archive.read(names[0]) if names else None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, zlib.error) as error:  # or encrypted
        raise InputError(f"{path}: not a .pt2 of torch, or a damaged one") from error
    return Bundle.loads(text, path)
