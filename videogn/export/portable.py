"""A network as a graph of plain torch operators, which every format is written from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from videogn.export.axes import positions
from videogn.export.reason import reason
from videogn.export.rewrite import cast, drop_idle, fold_batch_norm, fold_constants
from videogn.transform.functional import normalized
from videogn.types import InputError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Preprocessed(nn.Module):
    """uint8 clips (N, T, H, W, 3) -> scores: the normalisation is part of the network.

    Args:
        network: of (N, 3, T, H, W).
        mean, std: of the three colours, in pixel values from 0 to 255.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = list(mean), list(std)

    def forward(self, clips: UInt8[Tensor, "N T H W 3"]) -> Float[Tensor, "N K"]:
        """The scores before the softmax."""
        return self.network(normalized(clips, self.mean, self.std))


def plain(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose norms use torch's own operators, whichever kernel they were trained with."""
    copied = copy.deepcopy(network).cpu().eval()
    for module in copied.modules():
        if "backend" in vars(module):  # GroupNorm and its kin
            vars(module)["backend"] = "aten"
    return copied


def portable(
    network: nn.Module, example: Tensor, dynamic: Sequence[str], precision: str = "fp32", fold: bool = True
) -> ExportedProgram:
    """Trace the network, fold its batch norms and what is constant, and trace the result.

    Args:
        network: from `plain`, perhaps in `Preprocessed`.
        example: an input; uint8 (N, T, H, W, 3) or float32 (N, 3, T, H, W), with N = 2 or more where the batch is free.
        dynamic: the AXES that stay free.
        precision: one of PRECISIONS.
        fold: whether batch norms are folded.

    Raises:
        InputError: the network cannot be traced, or fixes an axis that is to be free.
    """
    program = _traced(network, example, dynamic)
    module: Any = program.module(check_guards=False)
    drop_idle(module)
    fold_constants(module)
    if fold:
        fold_batch_norm(module)
    if precision != "fp32":
        cast(module, PRECISIONS[precision])
    program = _traced(module, example, dynamic)
    foreign = sorted({str(node.target) for node in program.graph.nodes if _is_foreign(node)})
    if foreign:
        raise InputError(
            f"export: the network calls {', '.join(foreign)}, which no other runtime has; use plain torch operators in its "
            "forward"
        )
    for node in program.graph.nodes:
        for what in (
            "stack_trace",
            "nn_module_stack",
            "source_fn_stack",
            "torch_fn",
            "from_node",
        ):  # which hold paths of this machine
            node.meta.pop(what, None)
    # What held for the example alone, as that an axis which is divided to 1 or 2 was 2; the range of sizes stays.
    program._guards_code = []
    return program


def _is_foreign(node: torch.fx.Node) -> bool:
    operator = getattr(node.target, "namespace", "aten")
    return node.op == "call_function" and operator not in ("aten", "prim", "prims")


def _traced(network: nn.Module, example: Tensor, dynamic: Sequence[str]) -> ExportedProgram:
    try:
        return _trace(network, example, dynamic)
    except Exception as error:  # a network's forward may raise anything, and so does the tracer
        # One by one: the tracer's own report names symbols.
        held = [axis for axis in dynamic if len(dynamic) > 1 and not _traces(network, example, [axis])]
        if dynamic and _traces(network, example, []):
            names = ", ".join(held or dynamic)
            raise InputError(f"export.dynamic: the network fixes {names}: {reason(error)}; leave {names} out") from error
        raise InputError(f"export: the network cannot be traced: {reason(error)}") from error


def _traces(network: nn.Module, example: Tensor, dynamic: Sequence[str]) -> bool:
    try:
        _trace(network, example, dynamic)
    except Exception:
        return False
    return True


def _trace(network: nn.Module, example: Tensor, dynamic: Sequence[str]) -> ExportedProgram:
    places = positions(example.dtype == torch.uint8)
    # By its name from 1 on: as DYNAMIC alone its range would begin at 2.
    shapes = {places[axis]: Dim("batch", min=1) if axis == "batch" else Dim.DYNAMIC for axis in dynamic}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, on its own internals
        return torch.export.export(network, (example,), dynamic_shapes=(shapes or None,), strict=False)
