"""torchvision's files against torchvision's networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.video import r2plus1d_18, r3d_18

from videogn.weight.inflate import Inflation
from videogn.weight.torchvision import Torchvision

Fixture = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def images(moved: Fixture, frame: Tensor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """resnet50's file, and its features of the frame."""
    torch.manual_seed(0)
    network = moved(resnet50(num_classes=1000)).eval()
    path = tmp_path_factory.mktemp("torchvision") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    network.fc = nn.Identity()
    with torch.no_grad():
        return path, network.double()(frame)


def test_c2d_computes_what_resnet50_does(
    build: Fixture,
    load: Callable,
    images: tuple[Path, Tensor],
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
) -> None:
    path, expected = images
    ours = build("c2d_r50", "batch_norm")
    report = load(Torchvision(), path, ours)
    assert {entry.name for entry in report.entries if entry.outcome == "skipped"} == {"head.weight", "head.bias"}
    assert all(e.reason == "1000 classes of images in the file: it starts anew" for e in report.entries if e.outcome == "skipped")
    assert report.backbone_share == 1
    assert_same(features_of_static_clip(ours, frame), expected)


@pytest.mark.parametrize("inflation", ["repeat", "center"])
def test_i3d_computes_what_resnet50_does_where_its_edges_do_not_reach(
    build: Fixture,
    load: Callable,
    images: tuple[Path, Tensor],
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
    inflation: Inflation,
) -> None:
    path, expected = images
    ours = build("i3d_r50_slowfast", "batch_norm")
    report = load(Torchvision(inflation=inflation), path, ours)
    assert report.backbone_share == 1
    assert {e.outcome for e in report.entries if e.name == "trunk.conv1.weight"} == {"inflated"}
    at_edges = features_of_static_clip(ours, frame)
    if inflation == "repeat":  # zeros beyond the first and last frame take a part of the sum away
        assert (at_edges - expected).abs().max() > 0.01 * expected.abs().max()
    for conv in ours.modules():
        if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1:
            assert not isinstance(conv.padding, str)
            length = conv.padding[0]
            conv.padding = (0, *conv.padding[1:])
            conv.register_forward_pre_hook(
                lambda _, clips, length=length: functional.pad(clips[0], (0, 0, 0, 0, length, length), mode="replicate")
            )
    # w / 3 and w / 5 are rounded to float32 in each of at most 53 convolutions; center rounds nothing.
    assert_same(features_of_static_clip(ours, frame), expected, roundings=53 if inflation == "repeat" else 0)
    if inflation == "center":
        assert_same(at_edges, expected)  # its zeros meet the padding: the edges do not matter


@pytest.mark.parametrize(("name", "network"), [("r3d_18", r3d_18), ("r2plus1d_18", r2plus1d_18)])
def test_video_models_give_the_same_scores(
    build: Fixture,
    load: Callable,
    moved: Fixture,
    scores: Callable,
    assert_same: Callable,
    tmp_path: Path,
    name: str,
    network: Callable[..., nn.Module],
) -> None:
    torch.manual_seed(0)
    theirs = moved(network(num_classes=6))
    path = tmp_path / "video.pth"
    torch.save(theirs.state_dict(), path)
    ours = build(name, "batch_norm", num_classes=6)
    report = load(Torchvision(), path, ours)
    assert not report.unused
    assert all(entry.outcome == "renamed" for entry in report.entries)
    clip = torch.randn(1, 3, 8, 48, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert_same(scores(ours, clip), scores(theirs, clip))


def test_a_head_for_other_classes_starts_anew(build: Fixture, load: Callable, tmp_path: Path) -> None:
    path = tmp_path / "r3d_18.pth"
    torch.save(r3d_18(num_classes=400).state_dict(), path)
    report = load(Torchvision(), path, build("r3d_18", "batch_norm", num_classes=6))
    reasons = {entry.name: entry.reason for entry in report.entries if entry.outcome == "skipped"}
    why = "400 classes in the file, 6 here: it starts anew"
    assert reasons == {"head.weight": why, "head.bias": why}
