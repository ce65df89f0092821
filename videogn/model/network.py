"""What every classifier of this room has: a trunk, the average over positions, dropout and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from videogn.types import InputError

Size = tuple[int, int, int]


class VideoNetwork(nn.Module):
    """(N, 3, T, H, W) -> (N, K) for clips of any size from `smallest_clip` on.

    Args:
        trunk: (N, 3, T, H, W) -> (N, D, T', H', W').
        num_features: D.
        num_classes: K.
        dropout: probability, before the linear layer.
        smallest_clip: (T, H, W) of which the trunk leaves one position at least.

    Raises:
        InputError: no class, or a dropout that is no probability below 1.
    """

    def __init__(self, trunk: nn.Module, num_features: int, num_classes: int, dropout: float, smallest_clip: Size) -> None:
        super().__init__()
        name = type(self).__name__
        if num_classes < 1:
            raise InputError(f"{name}: num_classes={num_classes}; a classifier needs at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"{name}: dropout={dropout}; give a probability from 0 up to, not including, 1")
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(num_features, num_classes)
        self.smallest_clip = smallest_clip

    def features(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """What the linear layer reads.

        Raises:
            InputError: not (N, 3, T, H, W), or smaller than `smallest_clip`.
        """
        self._check(clips)
        return self.trunk(clips).mean(dim=(2, 3, 4))

    def forward(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        """Class scores before the softmax; raises as `features` does."""
        return self.head(self.dropout(self.features(clips)))

    def initialise(self) -> None:
        """Convolutions by He (fan-out), biases 0, the linear layer normal with standard deviation 0.01.

        Norms initialise themselves.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def stages(self) -> dict[str, list[nn.Module]]:
        """The layers from the input to the classes, in groups that are frozen and scheduled together: stem, res2, ..., head."""
        names = [name for name, _ in self.trunk.named_children()]
        first = next((index for index, name in enumerate(names) if name.startswith("res")), 0)
        stages: dict[str, list[nn.Module]] = {"stem": []} if first else {}
        for index, (name, layer) in enumerate(self.trunk.named_children()):
            stages.setdefault("stem" if index < first else name, []).append(layer)
        stages = {name: layers for name, layers in stages.items() if any(list(layer.parameters()) for layer in layers)}
        return {**stages, "head": [self.head]}

    def _check(self, clips: Tensor) -> None:
        name = type(self).__name__
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise InputError(f"{name}: input is {tuple(clips.shape)}; it must be (N, 3, T, H, W)")
        if any(length < smallest for length, smallest in zip(clips.shape[2:], self.smallest_clip, strict=True)):
            came, rule = (" x ".join(map(str, size)) for size in (clips.shape[2:], self.smallest_clip))
            raise InputError(
                f"{name}: a clip of {came} (T x H x W) is smaller than {rule}, which the strides and pools of this "
                "model need; give longer or larger clips"
            )


def smallest_input(windows: Sequence[tuple[Size, Size, Size]]) -> Size:
    """The shortest T, H and W of which one position remains after windows of (kernel, stride, padding):

    length = (next - 1) * stride + kernel - 2 * padding
    """
    smallest = [1, 1, 1]
    for kernel, stride, padding in reversed(windows):
        for axis in range(3):
            length = (smallest[axis] - 1) * stride[axis] + kernel[axis] - 2 * padding[axis]
            smallest[axis] = max(1, length)
    return (smallest[0], smallest[1], smallest[2])
