"""SlowFast, X3D and CSN against pytorchvideo's own, with the same weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from pytorchvideo.models import hub
from torch import nn

from videogn.model.pytorchvideo import slow_frames

Build = Callable[..., nn.Module]


def in_pytorchvideo(name: str) -> str:
    """Our parameter's name in its CSN and X3D."""
    name = name.replace("trunk.conv1.0.", "blocks.0.conv.conv_t.").replace("trunk.conv1.1.", "blocks.0.conv.conv_xy.")
    name = name.replace("trunk.conv1.", "blocks.0.conv.").replace("trunk.norm1.", "blocks.0.norm.")
    name = name.replace("trunk.conv5.", "blocks.5.pool.pre_conv.").replace("trunk.norm5.", "blocks.5.pool.pre_norm.")
    name = name.replace("embedding.", "blocks.5.pool.post_conv.").replace("head.", "blocks.5.proj.")
    return re.sub(r"trunk\.res(\d)\.", lambda m: f"blocks.{int(m[1]) - 1}.res_blocks.", in_block(name))


def in_x3d(name: str) -> str:
    """Its X3D keeps the second norm with what follows it in a Sequential."""
    return re.sub(r"\.norm_b\.(?!1\.)", ".norm_b.0.", in_pytorchvideo(name))


def in_block(name: str) -> str:
    name = (
        name.replace("shortcut.0", "branch1_conv").replace("shortcut.1", "branch1_norm").replace(".excite.", ".branch2.norm_b.1.")
    )
    for number, letter in ((1, "a"), (2, "b"), (3, "c")):
        name = re.sub(rf"\.(\d+)\.(conv|norm){number}\.", rf".\1.branch2.\2_{letter}.", name)
    return name


def in_slowfast(name: str) -> str:
    """Our parameter's name in its SlowFast."""
    for number, stage in enumerate(("stem", "res2", "res3", "res4", "res5")):
        for pathway, ours in enumerate(("slow", "fast")):
            name = name.replace(f"trunk.{ours}.{stage}.", f"blocks.{number}.multipathway_blocks.{pathway}.")
        name = name.replace(f"trunk.lateral.{stage}.0.", f"blocks.{number}.multipathway_fusion.conv_fast_to_slow.")
        name = name.replace(f"trunk.lateral.{stage}.1.", f"blocks.{number}.multipathway_fusion.norm.")
    name = re.sub(r"(multipathway_blocks\.\d)\.(\d+)\.", r"\1.res_blocks.\2.", name)
    name = re.sub(r"(blocks\.0\.multipathway_blocks\.\d)\.(conv|norm)1\.", r"\1.\2.", name)
    return in_block(name).replace("head.", "blocks.6.proj.")


def whole_mean(network: nn.Module) -> nn.Module:
    """Without the softmax, and with pools of one size replaced by the mean over all positions, for which they stand."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(module, name, nn.AdaptiveAvgPool3d(1))
            elif isinstance(child, nn.Softmax):
                setattr(module, name, None)
    return network


@pytest.mark.turns
@pytest.mark.parametrize(("name", "clip"), [("x3d_s", (5, 64, 64)), ("x3d_l", (4, 64, 64)), ("csn_r101", (8, 64, 64))])
def test_equals_pytorchvideo(build: Build, assert_equal: Callable[..., None], name: str, clip: tuple[int, int, int]) -> None:
    # In fp64: fp32 loses five digits in X3D-L's 170 batch norms, the last of them over 16 values.
    network = whole_mean(getattr(hub, name)(model_num_class=6)).double()
    clips = torch.randn(2, 3, *clip, generator=torch.Generator().manual_seed(1)).double()
    rename = in_x3d if name.startswith("x3d") else in_pytorchvideo
    assert_equal(build(name, "batch_norm", num_classes=6, dropout=0.0).double(), network, rename, clips)


def test_slowfast_equals_pytorchvideo(build: Build, assert_equal: Callable[..., None]) -> None:
    network = whole_mean(hub.slowfast_r50(model_num_class=6))
    clips = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    # As its authors pack the pathways: every fourth frame, spread from the first to the last.
    slow = clips[:, :, torch.linspace(0, 7, 2).long()]
    ours = build("slowfast_r50", "batch_norm", num_classes=6, dropout=0.0)
    assert_equal(ours, network, in_slowfast, clips, [slow, clips])


@pytest.mark.parametrize("alpha", [2, 4, 8])
def test_the_slow_pathway_reads_the_frames_that_its_authors_read(alpha: int) -> None:
    """index_select(linspace(0, T - 1, T // alpha).long()) of the published code, where alpha divides T; else one more."""
    for length in range(1, 129):
        kept = slow_frames(length, alpha, torch.device("cpu")).tolist()
        assert len(kept) == -(-length // alpha)
        if length % alpha == 0:
            assert kept == torch.linspace(0, length - 1, length // alpha, dtype=torch.float64).long().tolist()
        assert kept[0] == 0
        assert len(kept) == 1 or kept[-1] == length - 1
