"""ONNX by torch's dynamo exporter, and ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videogn.export.axes import positions
from videogn.export.bundle import KEY, Bundle
from videogn.export.child import Run, filled
from videogn.export.exporter import GraphExporter, Source
from videogn.export.quantization import check_quantization
from videogn.export.reason import reason
from videogn.export.root_logger import errors_alone
from videogn.number import is_count
from videogn.types import InputError


@dataclass(kw_only=True)
class OnnxExporter(GraphExporter):
    """An ONNX file: `clips` -> `scores`, before the softmax.

    Labels, preprocessing, protocol and proof lie in the file's metadata, under the key `videogn`.

    Args:
        opset: of the ONNX operators, 18 or later. Group norm is one operator from 21 on (GroupNormalization), and is written with
            InstanceNormalization before.
        quantization: none, dynamic (8-bit weights, ranges of the activations taken as they come) or static (ranges taken from
            `num_calibration_clips`). In 8 bits, `tolerance` is the largest allowed loss of top-1 on split val; None: 0.05.
        num_calibration_clips: real clips of split train, one a video.
    """

    opset: int
    quantization: str
    num_calibration_clips: int

    suffix: ClassVar[str] = ".onnx"
    runtime = "ONNX Runtime"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript")
    opener: ClassVar[str] = "videogn.export.onnx.open_file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.opset, 18):
            raise InputError(f"export.opset={self.opset}: the exporter writes 18 and later")
        if self.precision == "bf16":
            raise InputError("export.precision=bf16: ONNX Runtime has no convolution of it on a CPU; use fp32 or fp16")
        check_quantization(self.quantization, self.precision, self.num_calibration_clips)

    @property
    def is_quantized(self) -> bool:
        return self.quantization != "none"

    def write(self, source: Source, path: Path) -> None:
        import onnx
        import torch

        latest = onnx.defs.onnx_opset_version()
        if self.opset > latest:
            raise InputError(f"export.opset={self.opset}: onnx {onnx.__version__}, which is installed, has up to {latest}")
        program = self.program(source, self.precision)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, on its own internals
            for name in ("torch.onnx", "onnxscript", "onnx_ir"):
                logging.getLogger(name).setLevel(logging.ERROR)
            try:
                converted = torch.onnx.export(
                    program, input_names=["clips"], output_names=["scores"], opset_version=self.opset, dynamo=True, verbose=False
                )
                assert converted is not None
                converted.save(path, external_data=False)
            except Exception as error:  # it raises its own and others'
                raise InputError(f"export: ONNX opset {self.opset} cannot hold the network: {reason(error)}") from error
        self._quantize(source, path)
        model = onnx.load(path)
        self._name_axes(model)
        onnx.save(model, path)

    def seal(self, path: Path, bundle: Bundle) -> None:
        import onnx

        model = onnx.load(path)
        metadata = model.metadata_props.add()
        metadata.key, metadata.value = KEY, bundle.dumps()
        onnx.save(model, path)

    def _name_axes(self, model: Any) -> None:
        """`batch` and `time` for what the exporter calls s7 and s33."""
        axes = positions(self.takes_frames)
        names: dict[str, str] = {}
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for axis in self.dynamic:
            names[dims[axes[axis]].dim_param] = axis
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in names:
                    dim.dim_param = names[dim.dim_param]
        # They are about values inside, and name the old symbols.
        del model.graph.value_info[:]

    def _quantize(self, source: Source, path: Path) -> None:
        if self.quantization == "none":
            return
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        # Convolutions and the linear layer: what their 8 bits save is nearly all there is. Norms stay in float.
        layers = ["Conv", "Gemm"]
        floating = path.with_name(f"floating{self.suffix}")
        path.rename(floating)
        try:
            if self.quantization == "dynamic":
                # Unsigned weights: for signed ones ONNX Runtime's ConvInteger is five times as slow (1.32, AMD EPYC).
                with errors_alone():
                    quantization.quantize_dynamic(
                        floating, path, op_types_to_quantize=layers, weight_type=quantization.QuantType.QUInt8
                    )
                return
            quant_pre_process(floating, floating, skip_symbolic_shape=True)
            quantization.quantize_static(
                floating,
                path,
                _calibration(self.taken(source, source.calibration(self.num_calibration_clips)), self.fixed_batch or 1),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=layers,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            floating.unlink(missing_ok=True)


def _calibration(clips: np.ndarray, batch: int) -> Any:
    """Clips one by one, as ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._clips = iter(clips)

        def get_next(self) -> Any:
            clip = next(self._clips, None)
            return None if clip is None else {"clips": filled(clip[None], batch)}

    return Reader()


def open_file(path: Path, threads: int | None, trust: bool) -> Run:
    """The graph in ONNX Runtime on the CPU, as a function from clips to scores; raises InputError."""
    loaded = _session(path, threads)

    def run(clips: np.ndarray) -> np.ndarray:
        (scores,) = loaded.run(["scores"], {"clips": np.ascontiguousarray(clips)})
        return scores

    return run


def read_bundle(path: Path) -> Bundle:
    """What the file carries; raises InputError."""
    return Bundle.loads(_session(path).get_modelmeta().custom_metadata_map.get(KEY), path)


def _session(path: Path, threads: int | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said once
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason(error)}") from error
