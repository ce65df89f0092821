"""Files in the layouts of others, made of their own networks, and what every load must keep to."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from videogn.configuration import compose, instantiate
from videogn.types import InputError
from videogn.weight.report import LoadReport
from videogn.weight.source import WeightSource

# Widths that 32 does not divide.
INDIVISIBLE = {"r2plus1d_18", "slowfast_r50", "x3d_s"}
NUM_CLASSES = 6


def _build(model: str, norm: str = "group_norm", num_classes: int = 5, conv: str = "plain", **changes: Any) -> nn.Module:
    overrides = [f"model={model}", f"norm={norm}", f"conv={conv}"]
    overrides += [f"{key if '.' in key else 'model.' + key}={value}" for key, value in changes.items()]
    if model in INDIVISIBLE and norm == "group_norm" and "norm.num_groups" not in changes:
        overrides.append("norm.num_groups=1")
    config = compose("inspect", overrides)
    return instantiate(config.model)(num_classes=num_classes, norm=instantiate(config.norm), conv=instantiate(config.conv))


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    """conf/model/<model>.yaml with conf/norm/<norm>.yaml; keys without a dot are the model's."""
    return _build


@pytest.fixture(scope="session")
def shallow() -> Callable[..., nn.Module]:
    """A C2D of one block in each stage, for rules that do not depend on the depth."""

    def build(norm: str = "group_norm", num_classes: int = 5, **changes: Any) -> nn.Module:
        return _build("c2d_r50", norm, num_classes, depths="[1,1,1,1]", **changes)

    return build


def _moved(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


@pytest.fixture(scope="session")
def moved() -> Callable[[nn.Module], nn.Module]:
    """Gamma, beta and statistics of a network moved away from 1, 0, where a mistake would hide."""
    return _moved


@pytest.fixture(scope="session")
def frame() -> Tensor:
    """(1, 3, 64, 64) in float64, in which two correct networks agree to many digits more than a wrong one reaches."""
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="session")
def features_of_static_clip() -> Callable[[nn.Module, Tensor], Tensor]:
    """Features, in float64, of a clip that repeats one frame 8 times."""

    def features(model: nn.Module, frame: Tensor) -> Tensor:
        with torch.no_grad():
            return model.double().eval().features(frame.unsqueeze(2).repeat(1, 1, 8, 1, 1))  # pyright: ignore

    return features


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Two results of float64 networks with the same weights.

    They add the same products in another order: sums of up to 512 * 3 * 3 = 4608 terms, in up to 101 layers, each term rounded to
    1.1e-16 of itself: 5e-11 of the largest value. `roundings` counts the layers whose weights were rounded to float32 once more.
    """

    def check(found: Tensor, expected: Tensor, roundings: int = 0) -> None:
        largest = expected.abs().max().item()
        assert largest > 1e-3  # not a comparison of zeros
        atol = (1e-10 + roundings * torch.finfo(torch.float32).eps) * largest
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)

    return check


class Published(NamedTuple):
    """A network of pytorchvideo's: its tensors, a clip and its scores of that."""

    state: dict[str, Tensor]
    clip: Tensor
    scores: Tensor


# name -> frames; as few as the network can do something with.
LENGTHS = {"x3d_s": 4, "slowfast_r50": 16}


@cache
def _published(name: str) -> Published:
    hub = pytest.importorskip("pytorchvideo.models.hub", reason="pip install pytorchvideo")
    torch.manual_seed(0)
    network = _moved(getattr(hub, name)(model_num_class=NUM_CLASSES)).eval()
    for module in network.modules():
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.AvgPool3d):  # of one size; the mean over all positions is what it stands for
                setattr(module, child_name, nn.AdaptiveAvgPool3d(1))
            elif isinstance(child, nn.Softmax):
                setattr(module, child_name, None)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    length = LENGTHS.get(name, 8)
    clip = torch.randn(1, 3, length, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # As its authors pack the two pathways: every fourth frame, spread from the first to the last.
    inputs = [clip[:, :, torch.linspace(0, length - 1, length // 4).long()], clip] if name.startswith("slowfast") else clip
    with torch.no_grad():
        return Published(state, clip, network.double()(inputs))


@pytest.fixture(scope="session")
def published() -> Callable[[str], Published]:
    return _published


@pytest.fixture(scope="session")
def scores() -> Callable[[nn.Module, Tensor], Tensor]:
    """In float64, in evaluation."""

    def run(model: nn.Module, clip: Tensor) -> Tensor:
        with torch.no_grad():
            return model.double().eval()(clip)

    return run


class _Python2(pickle._Pickler):  # type: ignore[name-defined]  # the C one cannot be told how to write strings
    """Pickles as Python 2 wrote them: every string, arrays' bytes included, is a BINSTRING."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        data = text.encode("ascii") if isinstance(text, str) else text
        head = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
        self.write(head + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


@pytest.fixture(scope="session")
def write_caffe2() -> Callable[[Path, Mapping[str, Any]], Path]:
    """A pickle of protocol 2 as Python 2 and numpy 1 wrote it: {'blobs': arrays and numbers}."""

    def write(path: Path, blobs: Mapping[str, Any]) -> Path:
        arrays = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in blobs.items()}
        with path.open("wb") as file:
            _Python2(file, protocol=2).dump({"blobs": arrays})
        data = path.read_bytes()
        assert b"cnumpy" in data
        path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
        return path

    return write


def _books(report: LoadReport, read: Mapping[str, Tensor], model: nn.Module) -> None:
    """Every tensor of the model has one entry; every tensor of the file is used or is not, and is named once."""
    entries = [entry.name for entry in report.entries]
    assert len(set(entries)) == len(entries)
    left_out = set(model.state_dict()) - set(entries)
    assert all(name.endswith("num_batches_tracked") for name in left_out), left_out
    assert set(entries) <= set(model.state_dict())
    of_file = [entry.source for entry in report.entries if entry.source] + [name for name, _ in report.unused]
    assert sorted(of_file) == sorted(read)
    assert all(entry.reason for entry in report.entries if entry.outcome == "skipped")
    sizes = {name: value.numel() for name, value in model.state_dict().items()}
    assert all(entry.size == sizes[entry.name] for entry in report.entries)


@pytest.fixture(scope="session")
def load() -> Callable[..., LoadReport]:
    """load(source, path, model): the report, whose books are checked; what was skipped must not have changed."""

    def run(source: WeightSource, path: Path, model: nn.Module, classes: Any = None) -> LoadReport:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        report = source.load(path, model, classes)
        _books(report, source.read(path), model)
        after = model.state_dict()
        for entry in report.entries:
            if entry.outcome == "skipped":
                assert torch.equal(after[entry.name], before[entry.name]), entry.name
        return report

    return run


@pytest.fixture(scope="session")
def refuse() -> Callable[..., str]:
    """refuse(source, path, model): the message, one line; the model has not changed by a bit."""

    def run(source: WeightSource, path: Path, model: nn.Module) -> str:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(InputError) as caught:
            source.load(path, model)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(str(path))
        return message

    return run


@pytest.fixture(scope="session")
def randomly() -> Callable[..., np.ndarray]:
    """A small array of float32."""

    def make(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    return make
