"""PlainConv3d is torch's convolution without the bias."""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from omegaconf import OmegaConf
from torch import nn

from videogn.conv.plain import PlainConv3d

CONF = Path(__file__).parents[2] / "conf" / "conv" / "plain.yaml"


def test_is_torchs_convolution_without_bias() -> None:
    conv = hydra.utils.instantiate(OmegaConf.load(CONF))
    ours = conv(3, 4, (3, 5, 1), stride=(1, 2, 1), padding=(1, 2, 0))
    theirs = nn.Conv3d(3, 4, (3, 5, 1), stride=(1, 2, 1), padding=(1, 2, 0), bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 4, 9, 6, generator=torch.Generator().manual_seed(0))
    assert list(ours.state_dict()) == ["weight"]
    assert torch.equal(ours(x), theirs(x))


def test_has_no_bias_unless_asked() -> None:
    assert PlainConv3d(3, 4, 1).bias is None


def test_takes_the_other_arguments_of_torch() -> None:
    ours = hydra.utils.instantiate(OmegaConf.load(CONF))(4, 4, 3, bias=True, groups=2, dilation=2)
    assert (ours.groups, ours.dilation) == (2, (2, 2, 2))
    assert ours.bias is not None
