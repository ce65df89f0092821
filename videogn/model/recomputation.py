"""What a block keeps for the backward pass, and what it computes again there."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from videogn.kernel.group_norm.add_relu import as_one_operator
from videogn.types import InputError

ACTIVATION_MEMORY = ("full", "lean", "minimal")
# A value of a 1x1x1 convolution takes a multiplication a channel that it reads. With more, to keep it costs little memory, since
# deep stages are small, and the step is some hundredths faster: docs/memory.md.
CHEAP_CHANNELS = 128


class Block(nn.Module):
    """A part of a network that may compute its activations again in the backward pass, for the memory that they take.

    A subclass writes `compute(x)`. Between forward and backward pass, beside its input,

        full       all that autograd asks for is kept
        lean       the outputs of its convolutions, but for 1x1x1 ones that widen up to 128 channels (the last of a bottleneck),
                   which cost little to compute again: norms, activations and the residual's sum come from them. Group norm,
                   residual and ReLU are one operator, and where another block follows it is not computed again: the other
                   block keeps its output as input, and by that, or on a GPU by a bit a value, the backward pass knows where
                   the ReLU let it pass
        minimal    nothing: the whole block is computed again

    The gradients are the same to the last bit where the operators are deterministic. Dropout draws what it drew. Buffers, such as
    running statistics, move once: the second time they are those that the first time began with, and no one sees them change.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, arXiv:1604.06174.
    """

    activation_memory = "full"
    block_follows = False

    def compute(self, x: Any) -> Any:
        """What the block computes."""
        raise NotImplementedError

    def forward(self, x: Any) -> Any:
        """compute(x)"""
        if self.activation_memory == "full" or not torch.is_grad_enabled():
            return self.compute(x)
        lean = self.activation_memory == "lean"
        options: dict[str, Any] = {}
        if torch.compiler.is_compiling():
            # It takes modes of torch's alone, and writes buffers once by itself. From the convolutions' outputs it computes one
            # block's end after the other, and need not keep those: told to, it would.
            if lean:
                options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _convolutions)
        elif lean or next(self.buffers(), None) is not None:
            options["context_fn"] = functools.partial(_contexts, self, lean)
        return checkpoint(self.compute, x, use_reentrant=False, **options)


def set_activation_memory(network: nn.Module, activation_memory: str) -> None:
    """Let every Block of a network keep so much.

    Args:
        activation_memory: full, lean or minimal.

    Raises:
        InputError: another word, or a network without blocks.
    """
    if activation_memory not in ACTIVATION_MEMORY:
        raise InputError(f"activation_memory={activation_memory}: use one of {', '.join(ACTIVATION_MEMORY)}")
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    if not blocks and activation_memory != "full":
        raise InputError(
            f"activation_memory={activation_memory}: {type(network).__name__} has no block that computes its activations again; "
            "derive its blocks from videogn.model.recomputation.Block, or use full"
        )
    for block in blocks:
        block.activation_memory = activation_memory
    for stage in (module for module in network.modules() if isinstance(module, nn.Sequential)):
        for block, following in pairwise(stage):
            if isinstance(block, Block):
                block.block_follows = isinstance(following, Block)


def _contexts(block: Block, lean: bool) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around the first and the second time; within the second, the block computes with copies of the buffers as they are now."""
    first, again = nullcontext(), nullcontext()
    if lean and block.block_follows:
        first, again = create_selective_checkpoint_contexts(_convolutions_and_end)
        first, again = _together(as_one_operator(), first), _together(as_one_operator(), again)
    elif lean:
        first, again = create_selective_checkpoint_contexts(_convolutions)
    then = [(module, name, buffer.clone()) for module in block.modules() for name, buffer in module.named_buffers(recurse=False)]
    return first, _together(_exchanged(then), again)


def _convolutions(context: Any, operator: Any, *arguments: Any, **_: Any) -> CheckpointPolicy:
    if operator is not torch.ops.aten.convolution.default:
        return CheckpointPolicy.PREFER_RECOMPUTE
    weight, stride = arguments[1], arguments[3]
    widens = weight.shape[0] > weight.shape[1] and all(length == 1 for length in (*weight.shape[2:], *stride))
    cheap = widens and weight.shape[1] <= CHEAP_CHANNELS
    return CheckpointPolicy.PREFER_RECOMPUTE if cheap else CheckpointPolicy.MUST_SAVE


def _convolutions_and_end(context: Any, operator: Any, *arguments: Any, **_: Any) -> CheckpointPolicy:
    if operator is torch.ops.videogn.group_norm_add_relu.default:
        return CheckpointPolicy.MUST_SAVE
    if str(operator) == "videogn.group_norm.default":  # which is there where Triton is
        residual, activation = arguments[5:]
        ends = residual is not None and activation == "relu"  # SiLU's gradient would ask for the residual as well
        return CheckpointPolicy.MUST_SAVE if ends else CheckpointPolicy.PREFER_RECOMPUTE
    return _convolutions(context, operator, *arguments)


@contextmanager
def _exchanged(then: list[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    now = [(module, name, module._buffers[name]) for module, name, _ in then]
    for module, name, buffer in then:
        module._buffers[name] = buffer
    try:
        yield
    finally:
        for module, name, buffer in now:
            module._buffers[name] = buffer


@contextmanager
def _together(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield
