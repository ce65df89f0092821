"""What `count_step` counts against PyTorch's own allocator on a CPU, and against counts by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from videogn.norm.batch_norm import BatchNorm
from videogn.norm.group_norm import GroupNorm
from videogn.report import memory
from videogn.report.memory import Measured, count_step, first_gpu, measure_step, step
from videogn.report.model import inspect_network
from videogn.types import InputError

CLIP = (3, 8, 32, 32)
Norm = Callable[..., nn.Module]
Rule = Callable[..., torch.optim.Optimizer]


class Network(nn.Module):
    """Two convolutions with their norms, the second of which adds a shortcut; `width` features before the classes."""

    def __init__(self, norm: Norm, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 16, 3, padding=1, bias=False)
        self.norm1 = norm(16, "relu")
        self.conv2 = nn.Conv3d(16, 16, 1, bias=False)
        self.norm2 = norm(16, "relu")
        self.hidden = nn.Linear(16, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x))
        x = self.norm2(self.conv2(x), x)
        return self.head(self.hidden(x.mean((2, 3, 4))))


def group_norm(channels: int, activation: str, backend: str | None = None) -> nn.Module:
    return GroupNorm(channels, activation, num_groups=4, backend=backend)  # pyright: ignore[reportArgumentType]


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1)  # pyright: ignore


def adamw(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters)  # pyright: ignore


def counted(norm: Norm, rule: Rule, batch_size: int, width: int = 8, num_devices: int = 1) -> memory.StepMemory:
    with torch.device("meta"):
        network = Network(norm, width)
    return count_step(network, rule(network.parameters()), CLIP, batch_size, num_devices)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With one thread some kernel takes 960 bytes for itself here."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.turns
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize("width", [8, 200_000], ids=["the_backward_is_fullest", "the_optimiser_is_fullest"])
@pytest.mark.parametrize("rule", [sgd, adamw])
@pytest.mark.parametrize("norm", [group_norm, BatchNorm])
def test_counts_what_the_allocator_gives_out(norm: Norm, rule: Rule, width: int, batch_size: int) -> None:
    network = Network(norm, width)
    optimizer = rule(network.parameters())
    for group in optimizer.param_groups:
        group["foreach"] = True  # what torch chooses on a GPU; on a CPU it goes through the parameters one by one
    step(network, optimizer, CLIP, batch_size, torch.device("cpu"))  # makes the gradients and the optimiser's state
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(network, optimizer, CLIP, batch_size, torch.device("cpu"))
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    peak = now = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += size
        peak = max(peak, now)
    found = counted(norm, rule, batch_size, width)
    # A kernel's own memory is not counted: the norms', which these clips have at the fullest moment, take some numbers a channel.
    assert 0 <= peak - (found.total - found.fixed) <= 4 * 4 * 16
    if width == 8:  # a gradient as large as an activation, at least
        assert found.temporaries >= 4 * batch_size * 16 * math.prod(CLIP[1:])
    else:  # a list of tensors as large as the parameters
        assert peak > found.gradients > found.kept


def saved_bytes(network: nn.Module, clips: Tensor) -> int:
    """Of the real tensors that autograd saves, by their addresses."""
    own = {p.data_ptr() for p in network.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = network(clips)
    assert scores.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_keeps_what_autograd_saves_of_real_clips(backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="pip install triton")

    def norm(channels: int, activation: str) -> nn.Module:
        return group_norm(channels, activation, backend)

    assert counted(norm, sgd, 3).kept == saved_bytes(Network(norm), torch.zeros(3, *CLIP))


@pytest.mark.parametrize("norm", [group_norm, BatchNorm])
def test_a_clip_more_keeps_what_inspect_counts(norm: Norm) -> None:
    one, two, seven = (counted(norm, sgd, batch_size) for batch_size in (1, 2, 7))
    of_a_clip = inspect_network(Network(norm), CLIP, []).bytes_kept
    assert two.kept - one.kept == of_a_clip
    assert seven.kept == one.kept + 6 * of_a_clip
    assert (one.clips, seven.clips) == (math.prod(CLIP), 7 * math.prod(CLIP))
    assert one.fixed == seven.fixed


@pytest.mark.parametrize(
    ("rule", "copies"),
    [
        (lambda parameters: torch.optim.SGD(parameters, 0.1), 0),
        (sgd, 1),
        (adamw, 2),
        (lambda parameters: torch.optim.AdamW(parameters, amsgrad=True), 3),
    ],
    ids=["sgd_without_momentum", "sgd", "adamw", "amsgrad"],
)
def test_an_optimiser_says_what_it_keeps(rule: Rule, copies: int) -> None:
    parameters = 4 * sum(p.numel() for p in Network(group_norm).parameters())
    found = counted(group_norm, rule, 2)
    assert (found.weights, found.gradients, found.optimizer_state) == (parameters, parameters, copies * parameters)


def test_buffers_are_weights_and_frozen_parameters_have_no_gradient() -> None:
    with torch.device("meta"):
        network = Network(BatchNorm)
    network.conv1.requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    found = count_step(network, sgd(trained), CLIP, 2)
    parameters = sum(p.numel() for p in network.parameters())
    assert found.weights == 4 * (parameters + 2 * 2 * 16) + 2 * 8  # mean and variance, and an int64 of batches, of two norms
    assert found.gradients == found.optimizer_state == 4 * (parameters - 3 * 16 * 27)


def test_several_devices_hold_a_copy_of_the_gradients() -> None:
    one, two = counted(group_norm, sgd, 2), counted(group_norm, sgd, 2, num_devices=2)
    assert two.total - one.total == two.exchanged == one.gradients


def test_what_cannot_be_counted_is_refused() -> None:
    with torch.device("meta"):
        network = Network(group_norm)
    with pytest.raises(InputError, match=r"Network: a clip of 4 x 8 x 32 x 32: .*; give another size"):
        count_step(network, sgd(network.parameters()), (4, *CLIP[1:]), 2)
    with pytest.raises(InputError, match=r"optimizer: LBFGS: .*; what it keeps cannot be counted without values: take another"):
        count_step(network, torch.optim.LBFGS(network.parameters()), CLIP, 2)


def test_measures_the_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(memory, "step", lambda *arguments: seen.append("step"))
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: seen.append(name))
    for name, answer in (("max_memory_allocated", 7), ("max_memory_reserved", 9)):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name, answer=answer: (seen.append(name), answer)[1])
    network = Network(group_norm)
    assert measure_step(network, sgd(network.parameters()), CLIP, 2) == Measured(7, 9)
    assert seen == ["empty_cache", "step", "reset_peak_memory_stats", "step", "max_memory_allocated", "max_memory_reserved"]


def test_a_step_that_does_not_fit_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "step", fail)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    network = Network(group_norm)
    assert measure_step(network, sgd(network.parameters()), CLIP, 2) is None


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_gpu_needs_what_was_counted(backend: str) -> None:
    def norm(channels: int, activation: str) -> nn.Module:
        return group_norm(channels, activation, backend)

    assert first_gpu() is not None
    network = Network(norm).cuda()
    measured = measure_step(network, sgd(network.parameters()), CLIP, 64)
    assert measured is not None
    found = counted(norm, sgd, 64)
    # The allocator rounds every tensor up, and gives the convolutions a workspace, for which plan has its reserve.
    assert found.total <= measured.allocated <= found.total + 1_500_000_000
