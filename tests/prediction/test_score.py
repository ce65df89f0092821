"""Scores in parts: memory that runs out, devices, features from the same pass."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from videogn.prediction.features import RecordFeatures, require_features
from videogn.prediction.score import ViewScorer, device_named
from videogn.types import InputError, OutOfMemory

from .conftest import ColourNetwork


class Limited(nn.Module):
    """A device that holds `limit` views."""

    def __init__(
        self, limit: int, error: type[Exception] = torch.cuda.OutOfMemoryError, text: str = "CUDA out of memory."
    ) -> None:
        super().__init__()
        self.limit, self.failures, self.sizes = limit, 0, []
        self.error, self.text = error, text

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if len(clips) > self.limit:
            self.failures += 1
            raise self.error(f"{self.text}\nTried to allocate 9 GiB")
        self.sizes.append(len(clips))
        return clips.mean((2, 3, 4))


def scorer(network: nn.Module, batch_size: int) -> ViewScorer:
    return ViewScorer(network, ([128.0] * 3, [64.0] * 3), batch_size, torch.device("cpu"))


def clips(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 30])
def test_the_batch_is_halved_until_it_fits(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    network = Limited(limit)
    score = scorer(network, 8)
    with caplog.at_level(logging.WARNING):
        first, _ = score(clips(19))
        failures = network.failures
        second, _ = score(clips(19))
    expected = (clips(19).double().mean((1, 2, 3)) - 128) / 64
    # A mean of 32 values below 2, in fp32.
    torch.testing.assert_close(torch.from_numpy(first).double(), expected, atol=1e-5, rtol=0)
    assert (first == second).all()
    assert network.failures == failures  # what was learnt is kept
    assert max(network.sizes) <= min(limit, 8)
    settled = {1: 1, 2: 2, 3: 2}.get(limit, 8)
    assert score.batch_size == settled
    said = [f"out of memory with 8 views in a forward: going on with {settled} (--batch-size)"] if settled < 8 else []
    assert caplog.messages == said


def test_one_view_that_does_not_fit_ends_it() -> None:
    with pytest.raises(OutOfMemory, match=r"one view of 2 x 4 x 4 on cpu: CUDA out of memory\.$"):
        scorer(Limited(0), 8)(clips(3))
    elsewhere = scorer(Limited(0), 8)
    elsewhere.device = torch.device("meta")
    with pytest.raises(OutOfMemory, match=r"one view of 2 x 4 x 4 on meta: CUDA out of memory\.; use --device cpu$"):
        elsewhere(clips(3))


def test_another_error_is_no_lack_of_memory() -> None:
    network = Limited(1, RuntimeError, "shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        scorer(network, 8)(clips(3))
    assert network.failures == 1
    for error, text in (
        (RuntimeError, "MPS backend out of memory (MPS allocated: 1 GB)"),
        (MemoryError, "of an artifact's runtime"),
    ):
        assert len(scorer(Limited(1, error, text), 8)(clips(3))[0]) == 3


def test_devices() -> None:
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:x", "cuda:", "cpu:0", "", "cuda:-1", "mps:0"):
        with pytest.raises(InputError, match="use auto, cpu, cuda, cuda:N or mps"):
            device_named(name)
    with pytest.raises(InputError, match="device: cuda:99: torch finds"):
        device_named("cuda:99")


class Calls(ColourNetwork):
    """Counts what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0
        self.trunk.register_forward_hook(lambda *_: setattr(self, "num_calls", self.num_calls + 1))


class InPlace(Calls):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(clips).mul_(2))


class Apart(Calls):
    """A user's, whose forward does without `features`."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(clips).amax((2, 3, 4)))


class Mirrored(Calls):
    """Its forward asks for the features of other clips, too."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head((self.features(clips.flip(4)) + self.features(clips)) / 2)


class AsLayer(nn.Module):
    """Its `features` is a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.head = nn.Linear(3, 2)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(clips))


@pytest.mark.parametrize(("kind", "num_calls"), [(Calls, 1), (InPlace, 1), (Apart, 2), (Mirrored, 2), (AsLayer, None)])
def test_features_are_those_of_the_network(kind: type[nn.Module], num_calls: int | None) -> None:
    network = kind().eval()
    x = torch.randn(5, 3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores, features = RecordFeatures(network)(x)
        assert num_calls is None or network.num_calls == num_calls
        assert torch.equal(features, network.features(x))
        assert torch.equal(scores, network(x))
    assert "features" not in vars(network)  # it is left as it was


def test_networks_without_features_are_refused() -> None:
    with pytest.raises(InputError, match=r"Limited has no features\(clips\) -> \(N, D\)"):
        RecordFeatures(Limited(1))
    with pytest.raises(InputError, match="an exported file gives scores alone"):
        require_features(None)
    network = Apart()
    network.features = own = lambda clips: clips  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"no tensor \(N, D\)"):
        RecordFeatures(network)(torch.zeros(2, 3, 1, 2, 2))
    assert network.features is own
