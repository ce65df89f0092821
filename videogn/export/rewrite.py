"""Rewrites of a network's graph that change no answer but by rounding: batch norm folded, constants computed, 16-bit layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default}
_NORMS = {_ATEN.group_norm.default, _ATEN.batch_norm.default, _ATEN.layer_norm.default, _ATEN.instance_norm.default}
_DROPOUTS = {_ATEN.dropout.default, _ATEN.dropout_.default, _ATEN.feature_dropout.default, _ATEN.feature_dropout_.default}
# Where 16 bits save time and memory; everything else follows the dtype of what it reads.
_PRODUCTS = {*_CONVOLUTIONS, _ATEN.linear.default}


def drop_idle(module: fx.GraphModule) -> None:
    """Take out, in place, what does nothing in this graph: checks of dtypes, casts to the dtype that is there, dropout."""
    for node in list(module.graph.nodes):
        casts_to_itself = node.target is _ATEN.to.dtype and node.args[0].meta["val"].dtype == node.args[1]
        if casts_to_itself or (node.target in _DROPOUTS and not node.args[2]):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target is _ATEN._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    _clean(module)


def fold_batch_norm(module: fx.GraphModule) -> int:
    """Put every batch norm that alone reads a convolution into that convolution, in place:

        weight * g, (bias - mean) * g + beta,   with g = gamma / sqrt(var + eps)

    Computed in float64, rounded once. The running statistics are constants, so that nothing is lost; a norm that computes its
    statistics from the clip, as group norm does, cannot be folded.

    Args:
        module: of torch.export, in evaluation mode.

    Returns:
        The number of batch norms that are gone.
    """
    count = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not _ATEN.batch_norm.default:
            continue
        x, gamma, beta, mean, var, training, _, eps = node.args[:8]
        if training or x.target not in _CONVOLUTIONS or len(x.users) > 1:
            continue
        conv = dict(zip(("input", "weight", "bias"), x.args, strict=False))
        constants = [_constant(module, value) for value in (conv["weight"], conv.get("bias"), gamma, beta, mean, var)]
        weight, bias, gamma, beta, mean, var = constants
        if weight is None or mean is None or var is None:
            continue
        scale = torch.rsqrt(var.double() + eps)
        scale = scale if gamma is None else scale * gamma.double()
        shift = (0 if bias is None else bias.double()) - mean.double()
        folded_bias = shift * scale if beta is None else shift * scale + beta.double()
        folded = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
        with module.graph.inserting_before(x):
            new_weight = _attribute(module, f"folded_{count}_weight", folded.to(weight.dtype))
            new_bias = _attribute(module, f"folded_{count}_bias", folded_bias.to(weight.dtype))
        x.args = (conv["input"], new_weight, new_bias, *x.args[3:])
        node.replace_all_uses_with(x)
        module.graph.erase_node(node)
        count += 1
    _clean(module)
    return count


def fold_constants(module: fx.GraphModule) -> int:
    """Compute, in place, what depends on parameters alone, such as a standardized weight; returns how many results are stored."""
    known: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and isinstance(value := _constant(module, node), Tensor):
            known[node] = value
        elif node.op == "call_function" and node.all_input_nodes and all(n in known for n in node.all_input_nodes):
            with torch.no_grad():
                known[node] = node.target(*fx.map_arg(node.args, known.get), **fx.map_arg(node.kwargs, known.get))
    count = 0
    for node, value in known.items():
        if node.op == "call_function" and isinstance(value, Tensor) and any(user not in known for user in node.users):
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_attribute(module, f"constant_{count}", value.contiguous()))
            count += 1
    _clean(module)
    return count


def cast(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Convolutions and linear layers in `dtype`, in place; norms compute in float32, and so are the scores.

    The 16 bits of a norm's input come from a convolution; its sums run over up to millions of values, which 16 bits do not hold
    (Wu & He's statistics are of a whole clip).
    """
    graph = module.graph
    halved: dict[fx.Node, fx.Node] = {}

    def to(value: Any, kind: torch.dtype) -> Any:
        return graph.call_function(_ATEN.to.dtype, (value, kind)) if isinstance(value, fx.Node) else value

    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _PRODUCTS:
            with graph.inserting_before(node):
                parts = []
                for value in node.args[:3]:
                    if isinstance(value, fx.Node) and isinstance(constant := _constant(module, value), Tensor):
                        if value not in halved:
                            halved[value] = _attribute(module, f"half_{len(halved)}", constant.to(dtype))
                        parts.append(halved[value])
                    else:
                        parts.append(to(value, dtype))
            node.args = (*parts, *node.args[3:])
        elif node.op == "call_function" and node.target in _NORMS:
            with graph.inserting_before(node):
                node.args = (to(node.args[0], torch.float32), *node.args[1:])
            with graph.inserting_after(node):
                back = to(node, dtype)
            node.replace_all_uses_with(back, lambda user, back=back: user is not back)
        elif node.op == "output":
            with graph.inserting_before(node):
                node.args = (fx.map_arg(node.args[0], lambda value: to(value, torch.float32)),)
    _clean(module)


def _constant(module: fx.GraphModule, value: Any) -> Tensor | None:
    """The parameter or buffer that a node reads; None for anything else."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    found: Any = module
    for name in str(value.target).split("."):
        found = getattr(found, name, None)
    return found.detach() if isinstance(found, Tensor) else None


def _attribute(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A node that reads `value`, which becomes a buffer of the module."""
    module.register_buffer(name, value)
    return module.graph.get_attr(name)


def _clean(module: fx.GraphModule) -> None:
    """Drop what is not read any more, and check the graph."""
    module.graph.eliminate_dead_code()
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for path, _ in [*module.named_parameters(), *module.named_buffers()]:
        if path not in read:
            parent, _, name = path.rpartition(".")
            delattr(module.get_submodule(parent), name)
    module.graph.lint()
    module.recompile()
