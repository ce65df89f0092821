"""Every operation against torchvision's own transform with the same parameters, and the same in every frame."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from videogn.transform.appearance import RAND_AUGMENT, Operation, rand_augment_argument
from videogn.transform.operations import apply

FILL = [115.0, 100.0, 90.0]
SIZE = 24
# Ours to the names of torchvision's RandAugment.
NAMES = {
    Operation.IDENTITY: "Identity",
    Operation.SHEAR_X: "ShearX",
    Operation.SHEAR_Y: "ShearY",
    Operation.TRANSLATE_X: "TranslateX",
    Operation.TRANSLATE_Y: "TranslateY",
    Operation.ROTATE: "Rotate",
    Operation.BRIGHTNESS: "Brightness",
    Operation.SATURATION: "Color",
    Operation.CONTRAST: "Contrast",
    Operation.SHARPNESS: "Sharpness",
    Operation.POSTERIZE: "Posterize",
    Operation.SOLARIZE: "Solarize",
    Operation.AUTO_CONTRAST: "AutoContrast",
    Operation.EQUALIZE: "Equalize",
}
OF_ALL_FRAMES = [Operation.CONTRAST, Operation.AUTO_CONTRAST, Operation.EQUALIZE]
OF_COLOR = [*OF_ALL_FRAMES, Operation.BRIGHTNESS, Operation.SATURATION, Operation.HUE, Operation.POSTERIZE, Operation.SOLARIZE]
ARGUMENTS = {
    Operation.HUE: [0.3],
    Operation.ERASE: [3.0, 5.0, 11.0, 7.0],
    **{op: [rand_augment_argument(op, 0.7, -1.0, SIZE)] for op in RAND_AUGMENT},
}


def frames(num_frames: int, seed: int = 0) -> torch.Tensor:
    """Channels-last frames, each darker than the one before: what is measured frame by frame differs from frame to frame."""
    noise = torch.randint(0, 256, (num_frames, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(seed))
    return (noise * torch.linspace(1, 0.5, num_frames)[:, None, None, None]).to(torch.uint8)


def stacked(clip: torch.Tensor) -> torch.Tensor:
    """The frames of a clip, one below the other, (3, T * H, W)."""
    return torch.cat(list(clip.permute(0, 3, 1, 2)), dim=1)


def unstacked(picture: torch.Tensor) -> torch.Tensor:
    return torch.stack(picture.split(SIZE, dim=1)).permute(0, 2, 3, 1)


def row(operation: Operation, *arguments: float) -> list[float]:
    """A row as it comes out of a batch: rounded to float32."""
    return torch.tensor([operation, *arguments, *[0.0] * (4 - len(arguments))], dtype=torch.float32).tolist()


def test_the_list_is_torchvisions() -> None:
    assert [NAMES[operation] for operation in RAND_AUGMENT if operation in NAMES] == [
        *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
        *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
    ]
    assert {NAMES[operation] for operation in RAND_AUGMENT} == set(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("operation", RAND_AUGMENT, ids=lambda operation: operation.name.lower())
@pytest.mark.parametrize("negative", [False, True], ids=["plus", "minus"])
@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
def test_rand_augment_equals_torchvisions(
    operation: Operation, negative: bool, magnitude: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = v2.RandAugment(1, magnitude, interpolation=v2.InterpolationMode.BILINEAR, fill=FILL)
    monkeypatch.setattr(theirs, "_get_random_item", lambda space: (NAMES[operation], space[NAMES[operation]]))
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.25 if negative else 0.75))
    clip = frames(3)
    if operation in OF_ALL_FRAMES:
        expected = unstacked(theirs(stacked(clip)))
    else:
        expected = theirs(clip.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
    argument = rand_augment_argument(operation, magnitude / 30, -1.0 if negative else 1.0, SIZE)
    result = apply(clip, [row(operation, argument)], FILL)
    # Magnitudes and tables are rounded to float32 at other places: a value on the edge may fall to the other side.
    assert (result.int() - expected.int()).abs().max() <= 1
    assert (result != expected).float().mean() <= 0.01


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_color_jitter_equals_torchvisions(order: list[int]) -> None:
    factors = [1.25, 0.625, 1.5, -0.125]  # exact in float32
    names = ["brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"]
    parameters = {"fn_idx": torch.tensor(order), **dict(zip(names, factors, strict=True))}
    clip = frames(3)
    expected = unstacked(v2.ColorJitter().transform(stacked(clip), parameters))
    ours = [Operation.BRIGHTNESS, Operation.CONTRAST, Operation.SATURATION, Operation.HUE]
    assert torch.equal(apply(clip, [row(ours[i], factors[i]) for i in order], FILL), expected)


def test_erasing_equals_torchvisions() -> None:
    clip = frames(3)
    box = {"i": 3, "j": 5, "h": 11, "w": 7, "v": torch.tensor(FILL)[:, None, None]}
    expected = v2.RandomErasing().transform(clip.permute(0, 3, 1, 2), box).permute(0, 2, 3, 1)
    assert torch.equal(apply(clip, [row(Operation.ERASE, 3, 5, 11, 7)], FILL), expected)


@pytest.mark.parametrize("operation", list(ARGUMENTS), ids=lambda operation: operation.name.lower())
def test_every_frame_undergoes_the_same(operation: Operation) -> None:
    """A still frame stays still among frames that are darker: its fate does not depend on where in the clip it stands."""
    clip = frames(4)
    clip[3] = clip[0]
    before = torch.clone(clip)
    result = apply(clip, [row(operation, *ARGUMENTS[operation])], FILL)
    assert torch.equal(result[3], result[0])
    assert torch.equal(clip, before)
    assert result.dtype == torch.uint8
    assert result.shape == clip.shape


@pytest.mark.parametrize("operation", OF_COLOR, ids=lambda operation: operation.name.lower())
def test_a_color_becomes_one_color_in_the_whole_clip(operation: Operation) -> None:
    """Few colours, in other amounts in each frame: by a frame's own statistics, one colour would become several."""
    colors = torch.tensor([[200, 40, 30], [20, 90, 220], [130, 140, 60]], dtype=torch.uint8)
    shares = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]])
    drawn = torch.multinomial(shares, SIZE * SIZE, replacement=True, generator=torch.Generator().manual_seed(0))
    clip = colors[drawn].reshape(3, SIZE, SIZE, 3)
    result = apply(clip, [row(operation, *ARGUMENTS[operation])], FILL)
    for index in range(3):
        assert len(result[(drawn == index).reshape(3, SIZE, SIZE)].unique(dim=0)) == 1


def test_rows_run_in_their_order() -> None:
    clip = frames(2)
    rows = [row(Operation.SOLARIZE, 100), row(Operation.IDENTITY), row(Operation.BRIGHTNESS, 1.5), row(Operation.ROTATE, 20)]
    one_by_one = clip
    for one in rows:
        one_by_one = apply(one_by_one, [one], FILL)
    assert torch.equal(apply(clip, rows, FILL), one_by_one)
    assert not torch.equal(apply(clip, rows[::-1], FILL), one_by_one)
