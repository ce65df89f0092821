"""OpenVINO's IR and runtime (the extra `openvino`)."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videogn.export.bundle import KEY, Bundle
from videogn.export.child import Run, filled
from videogn.export.exporter import GraphExporter, Source
from videogn.export.quantization import check_quantization
from videogn.export.root_logger import errors_alone
from videogn.types import InputError

_INFO = [KEY, "bundle"]


@dataclass(kw_only=True)
class OpenVinoExporter(GraphExporter):
    """An .xml with the graph and a .bin with the weights, which belong together.

    Labels, preprocessing, protocol and proof lie in the .xml, as the runtime info `videogn`.

    Args:
        quantization: none, dynamic (weights in 8 bits, computed in float) or static (activations too, their ranges taken from
            `num_calibration_clips`). In 8 bits, `tolerance` is the largest allowed loss of top-1 on split val; None: 0.05.
        num_calibration_clips: real clips of split train, one a video.
    """

    quantization: str
    num_calibration_clips: int

    suffix: ClassVar[str] = ".xml"
    runtime = "OpenVINO"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    opener: ClassVar[str] = "videogn.export.openvino.open_file"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quantization(self.quantization, self.precision, self.num_calibration_clips)
        if self.precision == "bf16":
            raise InputError(
                "export.precision=bf16: an OpenVINO file holds fp32 or fp16, and its runtime chooses bf16 where a CPU has it"
            )
        for package, needed in (("openvino", True), ("nncf", self.is_quantized)):
            if needed and importlib.util.find_spec(package) is None:
                raise InputError(f"export=openvino: {package} is not installed; pip install 'videogn[openvino]'")

    @property
    def is_quantized(self) -> bool:
        return self.quantization != "none"

    def parts(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(".bin")]

    def write(self, source: Source, path: Path) -> None:
        import openvino

        program = self.program(source, "fp32")
        with warnings.catch_warnings(), errors_alone():
            warnings.simplefilter("ignore")
            try:
                model = openvino.convert_model(program)
            except Exception as error:  # it raises RuntimeError and others' errors
                raise InputError(f"export: OpenVINO cannot hold the network: {_reason(error)}") from error
        # It leaves every axis free.
        model.reshape({model.input(0): openvino.PartialShape([-1 if n is None else n for n in source.bundle.input["shape"]])})
        model.input(0).get_tensor().set_names({"clips"})
        model.output(0).get_tensor().set_names({"scores"})
        if self.is_quantized:
            model = self._quantized(model, source)
        openvino.save_model(model, path, compress_to_fp16=self.precision == "fp16")

    def seal(self, path: Path, bundle: Bundle) -> None:
        import openvino

        model = openvino.Core().read_model(path)
        model.set_rt_info(bundle.dumps(), _INFO)
        sealed = path.with_name(f"sealed{self.suffix}")
        openvino.save_model(model, sealed, compress_to_fp16=False)  # what is in 16 bits stays so
        del model  # which reads the old .bin
        sealed.with_suffix(".bin").replace(path.with_suffix(".bin"))
        sealed.replace(path)

    def _quantized(self, model: Any, source: Source) -> Any:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # nncf imports it, and has no GPU in mind
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would change handlers too, whoever they belong to
        with redirect_stdout(StringIO()), warnings.catch_warnings():  # its progress bars
            warnings.simplefilter("ignore")
            if self.quantization == "dynamic":
                return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
            clips = self.taken(source, source.calibration(self.num_calibration_clips))
            batches = [filled(clips[start : start + 1], self.fixed_batch or 1) for start in range(len(clips))]
            return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


def open_file(path: Path, threads: int | None, trust: bool) -> Run:
    """The graph in OpenVINO on the CPU, as a function from clips to scores; raises InputError."""
    import openvino

    # Without the hint it computes in bf16 where the CPU has it, and answers otherwise on another machine.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = _read(path)
    try:
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO cannot compile it: {_reason(error)}") from error

    def run(clips: np.ndarray) -> np.ndarray:
        return np.array(compiled(np.ascontiguousarray(clips))[0])

    return run


def read_bundle(path: Path) -> Bundle:
    """What the file carries; raises InputError."""
    model = _read(path)
    return Bundle.loads(model.get_rt_info(_INFO).value if model.has_rt_info(_INFO) else None, path)


def _read(path: Path) -> Any:
    try:
        import openvino
    except ImportError:
        raise InputError(f"{path}: openvino is not installed; pip install 'videogn[openvino]'") from None
    if not path.with_suffix(".bin").is_file():
        raise InputError(f"{path}: {path.with_suffix('.bin').name}, which holds its weights, does not lie beside it; copy both")
    try:
        return openvino.Core().read_model(path)
    except Exception as error:
        raise InputError(f"{path}: OpenVINO cannot load it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line: those before it name the file of OpenVINO's source that noticed."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip("- ")]
    return lines[-1] if lines else type(error).__name__
