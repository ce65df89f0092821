"""The operations that a clip has drawn (appearance.py), by torchvision's functions, the same for every frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 (its usual name)

from videogn.transform.appearance import Operation

_COLOR: dict[Operation, Callable[[Tensor, float], Tensor]] = {
    Operation.BRIGHTNESS: F.adjust_brightness,
    Operation.CONTRAST: F.adjust_contrast,
    Operation.SATURATION: F.adjust_saturation,
    Operation.HUE: F.adjust_hue,
    Operation.POSTERIZE: lambda picture, bits: F.posterize(picture, int(bits)),
    Operation.SOLARIZE: F.solarize,
    Operation.AUTO_CONTRAST: lambda picture, _: F.autocontrast(picture),
    Operation.EQUALIZE: lambda picture, _: F.equalize(picture),
}


def apply(
    clip: UInt8[Tensor, "T H W 3"], operations: Sequence[Sequence[float]], fill: Sequence[float]
) -> UInt8[Tensor, "T H W 3"]:
    """The clip after the rows of `operations`, in their order; the clip that was given is not written to.

    Contrast, auto-contrast and equalize take their statistics from all frames together, so that a colour becomes the same
    colour in every frame; taken frame by frame, a still background would flicker. Geometry is bilinear.

    Args:
        operations: the table as rows of numbers.
        fill: RGB, 0 to 255, of what an operation uncovers or erases.
    """
    rows = [(Operation(int(code)), arguments) for code, *arguments in operations if code != Operation.IDENTITY]
    if not rows:
        return clip
    # Planes of colour: the operations on colours are up to four times as fast as on interleaved ones.
    planes = clip.permute(3, 0, 1, 2).contiguous()
    for operation, arguments in rows:
        if operation in _COLOR:
            # The frames, one below the other, are one tall picture.
            planes = _COLOR[operation](planes.flatten(1, 2), arguments[0]).view(planes.shape)
        else:
            planes = _on_frames(planes.transpose(0, 1), operation, arguments, list(fill)).transpose(0, 1).contiguous()
    return planes.permute(1, 2, 3, 0)


def _on_frames(frames: Tensor, operation: Operation, arguments: Sequence[float], fill: list[float]) -> Tensor:
    """An operation that looks at neighbours or moves them, on (T, 3, H, W)."""
    if operation is Operation.ERASE:
        color = torch.tensor(fill, device=frames.device).to(frames.dtype)[:, None, None]
        return F.erase(frames, *(int(a) for a in arguments), v=color)
    value = arguments[0]
    if operation is Operation.SHARPNESS:
        # Its convolution, one channel at a time, takes a tenth of the time on interleaved colours.
        return F.adjust_sharpness(frames.contiguous(memory_format=torch.channels_last), value)
    if operation is Operation.ROTATE:
        return F.rotate(frames, value, interpolation=InterpolationMode.BILINEAR, fill=fill)
    shear, translate, center = [0.0, 0.0], [0.0, 0.0], None
    if operation in (Operation.SHEAR_X, Operation.SHEAR_Y):
        # About the corner, as in torchvision's RandAugment.
        shear[operation is Operation.SHEAR_Y], center = math.degrees(math.atan(value)), [0.0, 0.0]
    else:
        assert operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y), operation
        translate[operation is Operation.TRANSLATE_Y] = value
    return F.affine(frames, 0.0, translate, 1.0, shear, interpolation=InterpolationMode.BILINEAR, fill=fill, center=center)
