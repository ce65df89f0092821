"""Replace the batch norms of any torch model by a norm of this package."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from videogn.norm.batch_norm import BatchNorm
from videogn.norm.norm import Norm
from videogn.types import InputError

TORCH_CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
STATE = {"weight", "bias", "running_mean", "running_var"}
RELU_FUNCTIONS = (torch.relu, torch.relu_, functional.relu)
# The dictionaries in which torch keeps a module's hooks, and the arguments of theirs.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOK_ARGUMENTS = (
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_is_full_backward_hook",
)


@dataclass(frozen=True)
class LayerConversion:
    """What became of one normalization layer.

    Attributes:
        name: its path in the model; a shared layer has several, joined by " = ".
        old: the name of its class.
        new: the repr of the new layer; empty where the old one was left alone.
        fused: the path of the ReLU that the new layer took in, and that is now an nn.Identity; empty where it took none.
        unfused: why it took none; empty where it did, or where the layer was left alone.
        state: what became of gamma, beta and the running statistics, or why the layer was left alone.
        copied: whether the new layer computes with the old one's parameters and statistics.
    """

    name: str
    old: str
    new: str
    fused: str
    unfused: str
    state: str
    copied: bool


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did: one entry a layer, in the order of the model's modules. Its text is a table."""

    layers: tuple[LayerConversion, ...]

    @property
    def num_replaced(self) -> int:
        """New layers; a shared one counts once."""
        return sum(bool(layer.new) for layer in self.layers)

    @property
    def num_fused(self) -> int:
        """New layers that took in their ReLU."""
        return sum(bool(layer.fused) for layer in self.layers)

    @property
    def num_copied(self) -> int:
        """New layers that carry on with the parameters and statistics of the old ones."""
        return sum(layer.copied for layer in self.layers)

    @property
    def num_left(self) -> int:
        """Layers left alone."""
        return len(self.layers) - self.num_replaced

    def __str__(self) -> str:
        rows = [("layer", "was", "is", "ReLU", "gamma, beta, statistics")]
        for layer in self.layers:
            relu = f"fused: {layer.fused}" if layer.fused else layer.unfused
            rows.append((layer.name, layer.old, layer.new or "left alone", relu, layer.state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        counts = f"{self.num_replaced} replaced ({self.num_fused} with their ReLU, {self.num_copied} with their state)"
        return "\n".join([*lines, f"{counts}, {self.num_left} left alone"])


def convert(model: nn.Module, norm: Callable[..., Norm], fuse: bool = True) -> ConversionReport:
    """Replace every batch norm in `model`, in place, by `norm(num_features)`.

    Batch norms are torch's BatchNorm1d, 2d, 3d and SyncBatchNorm, and torchvision's FrozenBatchNorm2d. Their subclasses may
    compute anything and are left alone; so is a norm of this package. A layer that is registered at several places is
    replaced by one new layer at all of them.

    State. gamma, beta and the running statistics belong together and are dropped together: the new layer starts at gamma = 1
    and beta = 0, or, where gamma was 0 throughout (the last norm of a residual branch), with `zero_init=True`. If they had
    been trained, one warning says that the model must be trained again. Norms with running statistics of their own carry on
    where the old layer stood: all state is copied, and the old eps and momentum are kept, since the state was made with them.

    ReLU. A layer takes in an nn.ReLU, which becomes an nn.Identity, where the graphs that torch.fx traces of the whole model in
    training and in evaluation say that this changes nothing: the layer is called once, only that ReLU reads its output, the
    ReLU is called nowhere else, and no hook sits between them. A model that cannot be traced, or whose forward takes more than
    one argument, keeps its ReLUs. A graph shows one call of `forward`: where its Python code decides by random numbers, by
    torch.is_grad_enabled(), by the type of its input or by attributes that change later, where other methods call these layers,
    or where parts of the model are in different modes, give `fuse=False`. A ReLU that forward calls as a function stays.

    Mode, device, dtype, forward and backward hooks and requires_grad are those of the old layer; parameters that layers share
    are shared no more. A layer without gamma and beta (affine=False) gets
    them frozen at 1 and 0. torchvision's FrozenBatchNorm2d holds buffers, and its successor learns. Build the optimizer after
    the conversion: one built before holds the parameters that are gone.

    Args:
        model: any torch model, changed in place; untouched where this raises.
        norm: what conf/norm/ describes, `norm(channels, activation=None, zero_init=False)`.
        fuse: whether a layer may take in its ReLU.

    Returns:
        One entry a layer, and counts; `print(report)` shows a table.

    Raises:
        InputError: the model is no module, has no batch norm to replace, is itself one or is wrapped for several devices; or
            `norm` refuses a layer (a group count that does not divide its channels, an input of another rank) or gives no norm
            of this package; the message starts with the layer's path.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"convert: the model is {model!r}; give a torch.nn.Module")
    if any(isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel) for module in model.modules()):
        raise InputError(
            "convert: the model is wrapped for several devices, which know its parameters already; convert it before"
        )
    paths = _paths(model)
    layers, left = _find(paths)
    if model in layers:
        old = type(model).__name__
        raise InputError(f"convert: the model is itself a {old}, which no parent holds; use norm({_num_features(model)})")
    if not layers:
        alone = "; ".join(f"{paths[module][0]} is left alone, {reason}" for module, reason in left.items())
        raise InputError(
            f"convert: {type(model).__name__} has no BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm or FrozenBatchNorm2d "
            f"to replace{f' ({alone})' if alone else ''}; use the model as it is, or replace layers of other classes by hand"
        )
    tails = _tails(model, layers) if fuse else dict.fromkeys(layers, _Tail(reason="fuse=False"))
    # All are built before the first is put in place: an error leaves the model as it was.
    built = {old: _build(old, paths[old][0], norm, tails[old].relu is not None, model) for old in layers}
    entries: list[LayerConversion] = []
    for old, names in paths.items():
        if old in left:
            entries.append(LayerConversion(" = ".join(names), type(old).__name__, "", "", "", left[old], False))
        elif old in built:
            new, state, copied = built[old]
            relu, reason = tails[old].relu, tails[old].reason
            fused = paths[relu][0] if relu is not None else ""
            entries.append(LayerConversion(" = ".join(names), type(old).__name__, repr(new), fused, reason, state, copied))
    if any(not copied and _trained(old) for old, (_, _, copied) in built.items()):
        warnings.warn(
            f"convert: the batch norms of {type(model).__name__} were trained, and their gamma, beta and running statistics are "
            "dropped, since they mean nothing to another normalization; train the model again",
            stacklevel=2,
        )
    for old, (new, _, _) in built.items():
        _replace(model, paths[old], new)
        relu = tails[old].relu
        if relu is not None:
            _replace(model, paths[relu], nn.Identity().train(relu.training))
    return ConversionReport(tuple(entries))


def _paths(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module with all of its paths; what a shared parent holds has one path through each of that parent's."""
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    return paths


def _find(modules: Iterable[nn.Module]) -> tuple[list[nn.Module], dict[nn.Module, str]]:
    """The batch norms to replace; and the norms to leave alone, with the reason."""
    layers: list[nn.Module] = []
    left: dict[nn.Module, str] = {}
    for module in modules:
        tensors = {name for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]}
        # By name: torchvision is not imported for this, and may not be installed.
        frozen = type(module).__name__ == "FrozenBatchNorm2d" and tensors >= STATE
        foreign = tensors - STATE - {"num_batches_tracked"}
        if isinstance(module, Norm):
            left[module] = "a norm of videogn already"
        elif (frozen or isinstance(module, _BatchNorm)) and "forward" in vars(module):
            left[module] = "its forward was replaced by hand"
        elif (frozen or type(module) in TORCH_CLASSES) and not foreign:
            layers.append(module)
        elif frozen or type(module) in TORCH_CLASSES:
            left[module] = f"it has a state of its own: {', '.join(sorted(foreign))}"
        elif isinstance(module, _BatchNorm):
            left[module] = "a subclass, which may compute anything"
    return layers, left


def _replace(model: nn.Module, paths: list[str], new: nn.Module) -> None:
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)


def _num_features(layer: Any) -> int:
    return layer.num_features if isinstance(layer, _BatchNorm) else len(layer.weight)


def _build(old: Any, path: str, norm: Callable[..., Norm], fuses: bool, model: nn.Module) -> tuple[Norm, str, bool]:
    """The layer that takes the place of `old`, what became of the state, and whether that was copied."""
    activation = "relu" if fuses else None
    was_zero = old.weight is not None and not old.weight.is_meta and not old.weight.any()

    def construct(zero_init: bool) -> Any:
        try:
            return norm(_num_features(old), activation=activation, zero_init=zero_init)
        except (TypeError, AttributeError) as error:
            raise InputError(f"norm is {norm!r}, which is to build norm(channels, activation, zero_init): {error}") from error

    refusal = ""
    try:
        try:
            new = construct(was_zero)
        except InputError as error:
            if not was_zero:
                raise
            # Either it knows no zero gamma, and then starts at 1, or it refuses the channels too.
            refusal = str(error)
            new = construct(False)
        if not isinstance(new, Norm) or new.activation != activation:
            raise InputError(f"norm gave {new!r}; it is to give a videogn.norm.norm.Norm with activation={activation!r}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if isinstance(new, BatchNorm) and not isinstance(old, nn.BatchNorm3d | nn.SyncBatchNorm):
        raise InputError(
            f"{path}: a {type(old).__name__} is given no clips, and BatchNorm takes (N, C, T, H, W) only; use SyncBatchNorm, "
            "which is BatchNorm for an input of any rank where there is one device"
        )
    like = next((t for t in (old.weight, old.running_mean, *model.parameters()) if t is not None), torch.empty(0))
    new.to(like.device, like.dtype).train(old.training)
    copied = old.running_mean is not None and "running_mean" in new.state_dict()
    if copied:
        new.load_state_dict({**new.state_dict(), **old.state_dict()})
        for setting in ("eps", "momentum"):
            if hasattr(old, setting) and hasattr(new, setting):
                setattr(new, setting, getattr(old, setting))
        state = "copied"
    else:
        dropped = [name for name, tensor in (("gamma, beta", old.weight), ("statistics", old.running_mean)) if tensor is not None]
        state = f"{', '.join(dropped) or 'nothing'} dropped"
        if was_zero:
            state += f"; gamma starts at 1: {refusal}" if refusal else "; gamma starts at 0 again"
    frozen = False
    for name in ("weight", "bias"):
        parameter, tensor = getattr(new, name, None), getattr(old, name)
        # A buffer of torchvision's FrozenBatchNorm2d says nothing about its successor.
        if isinstance(parameter, nn.Parameter) and (
            tensor is None or (isinstance(tensor, nn.Parameter) and not tensor.requires_grad)
        ):
            parameter.requires_grad_(False)
            frozen = True
    for name in (*HOOKS, *HOOK_ARGUMENTS):
        # The dictionary itself, not a copy: the handles that remove the hooks point to it.
        setattr(new, name, getattr(old, name))
    return new, f"{state}; frozen as before" if frozen else state, copied


def _trained(layer: Any) -> bool:
    """Whether gamma, beta or the running statistics are not those that a new layer starts with."""
    starts = {"weight": (0.0, 1.0), "bias": (0.0,), "running_mean": (0.0,), "running_var": (1.0,)}
    tensors = {name: getattr(layer, name) for name in starts if getattr(layer, name) is not None}
    tensors = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}  # which hold no values
    return not all(any(bool((tensor == value).all()) for value in starts[name]) for name, tensor in tensors.items())


@dataclass(frozen=True)
class _Tail:
    """The ReLU that a layer may take in, or why it may take none."""

    relu: nn.Module | None = None
    reason: str = ""


class _Tracer(torch.fx.Tracer):
    """Does not look into norms, whose checks of their input a symbol cannot answer."""

    def __init__(self, layers: Collection[nn.Module]) -> None:
        super().__init__()
        self.layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.layers or isinstance(m, Norm | _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _tails(model: nn.Module, layers: Collection[nn.Module]) -> dict[nn.Module, _Tail]:
    """What each layer may take in, by the graphs of the whole model in both modes.

    A part that can be traced alone proves nothing: the forward around it may reach into it.
    """
    tails = dict.fromkeys(layers, _Tail(reason="the model cannot be traced"))
    try:
        # Tracing runs forward on symbols; what that writes must not stay in the model, so it runs on a twin without values.
        shells = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
        shells |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
        twin_model = deepcopy(model, shells)
        originals = {twin: model.get_submodule(path) for path, twin in twin_model.named_modules()}
        assert not originals.keys() & set(model.modules()), "a copy that is the original"
        for twin in originals:
            for name in HOOKS:
                getattr(twin, name).clear()
        twins = {twin for twin, original in originals.items() if original in layers}
        # Both modes: `if self.training` takes one path in each.
        graphs = [_trace(twin_model.train(mode), twins) for mode in (True, False)]
    except Exception:  # forward on symbols may raise anything, and so may a copy; the ReLUs then stay where they are
        return tails
    paths = _paths(model)
    for twin in twins:
        training, evaluation = (_tail(graph, twin_model, twin) for graph in graphs)
        reason = training.reason or evaluation.reason
        if not reason and training.relu is not evaluation.relu:
            reason = "another ReLU in evaluation than in training"
        relu = originals[training.relu] if training.relu is not None and not reason else None
        if relu is not None:
            reason = _obstacle(model, paths, originals[twin], relu)
        tails[originals[twin]] = _Tail(None, reason) if reason else _Tail(relu)
    return tails


def _trace(module: nn.Module, leaves: Collection[nn.Module]) -> torch.fx.Graph:
    """The graph of `module`.

    Raises:
        TypeError: forward takes anything but one argument. A symbol is never None, so that tracing would prove nothing about
            a call that leaves an optional argument out.
    """
    arguments = inspect.signature(module.forward).parameters.values()
    if [(a.kind, a.default) for a in arguments] != [(inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty)]:
        raise TypeError("forward takes anything but one argument")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what forward warns of is not about tensors here
        return _Tracer(leaves).trace(module)


def _tail(graph: torch.fx.Graph, root: nn.Module, layer: nn.Module) -> _Tail:
    """The nn.ReLU that alone reads the only call of `layer`."""

    def calls(module: nn.Module) -> list[torch.fx.Node]:
        return [node for node in graph.nodes if node.op == "call_module" and root.get_submodule(str(node.target)) is module]

    found = calls(layer)
    if len(found) != 1:
        return _Tail(reason=f"called {len(found)} times")
    readers = list(found[0].users)
    if len(readers) != 1:
        return _Tail(reason=f"its output has {len(readers)} readers")
    (reader,) = readers
    if reader.target in RELU_FUNCTIONS or (reader.op == "call_method" and reader.target in ("relu", "relu_")):
        return _Tail(reason="forward calls relu as a function, which cannot be removed")
    if reader.op == "call_module":
        module = root.get_submodule(str(reader.target))
        if type(module) is not nn.ReLU or "forward" in vars(module):
            return _Tail(reason=f"followed by {type(module).__name__}")
        num_calls = len(calls(module))
        return _Tail(module) if num_calls == 1 else _Tail(reason=f"its ReLU is called {num_calls} times")
    if reader.op == "output":
        return _Tail(reason="followed by the output")
    return _Tail(reason=f"followed by {getattr(reader.target, '__name__', reader.target)}")


def _obstacle(model: nn.Module, paths: dict[nn.Module, list[str]], layer: nn.Module, relu: nn.Module) -> str:
    """The hook that would see another value; empty if there is none."""
    for module in model.modules():
        if any(getattr(module, hooks) for hooks in HOOKS):
            within = set(module.modules())
            # A module around both sees neither's output from outside; one around a single one would.
            if (layer in within) != (relu in within):
                return f"a hook on {paths[module][0]} sees what lies between"
    return ""
