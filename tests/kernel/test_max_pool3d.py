"""Max pooling against torch's own, to the last bit, and the bytes that it keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from videogn.kernel.max_pool3d import max_pool3d

# Kernel, stride, padding, and the size of a clip: apart, overlapping, padded, with positions that no window reaches; distances
# that fill one byte, two and four (a window of 2 frames of 200 x 200 spans 40,201).
WINDOWS = [
    ((1, 3, 3), (1, 2, 2), (0, 1, 1), (3, 9, 8)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (4, 5, 6)),
    ((2, 1, 1), (2, 1, 1), (0, 0, 0), (5, 20, 21)),
    ((2, 2, 2), (3, 3, 3), (1, 0, 1), (7, 8, 9)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0), (2, 200, 200)),
]


def clips(size: tuple[int, int, int], layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
    """With equal neighbours, so that it matters which of two maxima is taken, and numbers that are none."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).mul(2).round().to(dtype)
    x[0, 0, 0, 0, 0] = torch.nan
    return x.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), WINDOWS)
def test_values_and_gradients_are_torchs(
    kernel: Any, stride: Any, padding: Any, size: Any, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    ours, theirs = (clips(size, layout, dtype).requires_grad_() for _ in range(2))
    y = max_pool3d(ours, kernel, stride, padding)
    expected = functional.max_pool3d(theirs, kernel, stride, padding)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    y.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(y.nan_to_num(99.0), expected.nan_to_num(99.0))
    assert y.stride() == expected.stride()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(("window", "num_bytes"), list(zip(WINDOWS, [1, 1, 2, 1, 4], strict=True)))
def test_keeps_as_many_bytes_an_output_as_a_window_needs(window: Any, num_bytes: int) -> None:
    kernel, stride, padding, size = window
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        y = max_pool3d(clips(size, torch.contiguous_format, torch.float32).requires_grad_(), kernel, stride, padding)
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == num_bytes * y.numel()


def test_without_a_gradient_it_is_torchs_operator() -> None:
    """Which every runtime of an export has."""
    x = torch.randn(1, 2, 4, 6, 6)
    with torch.no_grad():
        traced = make_fx(lambda x: max_pool3d(x, (2, 2, 2), (2, 2, 2)))(x)
    called = [str(node.target) for node in traced.graph.nodes if node.op == "call_function"]
    assert called[:1] + [name for name in called[1:] if "getitem" not in name] == ["aten.max_pool3d_with_indices.default"]
