"""Max pooling with a backward pass that keeps little."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from videogn.kernel.max_pool3d import max_pool3d
from videogn.model.network import Size


class MaxPool3d(nn.MaxPool3d):
    """torch.nn.MaxPool3d, by `videogn.kernel.max_pool3d`: the same values and gradients for a tenth of the bytes.

    Args:
        kernel, stride, padding: (T, H, W).
    """

    def __init__(self, kernel: Size, stride: Size, padding: Size = (0, 0, 0)) -> None:
        super().__init__(kernel, stride, padding)
        self.window = kernel, stride, padding

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch calls x `input`
        self, x: Float[Tensor, "N C T H W"]
    ) -> Float[Tensor, "N C T2 H2 W2"]:
        return max_pool3d(x, *self.window)
