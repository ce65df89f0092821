"""Conversion of torch's models: against layers put in by hand, and through whole training steps."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from inspect import unwrap

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from videogn.norm import ConversionReport, convert
from videogn.norm.batch_norm import BatchNorm
from videogn.norm.batch_renorm import BatchRenorm
from videogn.norm.frozen_batch_norm import FrozenBatchNorm
from videogn.norm.group_norm import GroupNorm
from videogn.norm.none import NoNorm
from videogn.norm.norm import Norm
from videogn.norm.sync_batch_norm import SyncBatchNorm
from videogn.types import InputError

EPS = torch.finfo(torch.float32).eps
GROUPS = functools.partial(GroupNorm, num_groups=4)
NEAREST = functools.partial(GroupNorm, num_groups=32, on_indivisible="nearest")
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(layer: nn.Module) -> nn.Module:
    """With parameters and statistics that no new layer has."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(layer, name).uniform_(0.5, 2.0, generator=generator)
    return layer


def reasons(report: ConversionReport) -> dict[str, str]:
    return {layer.name: layer.unfused for layer in report.layers}


class Block(nn.Module):
    """A residual block with a ReLU of its own after each norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv3d(8, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(inplace=True)
        self.conv2, self.bn2, self.relu2 = nn.Conv3d(8, 8, 1), nn.BatchNorm3d(8), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(x + y)


class SharedRelu(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu1(self.bn2(self.relu1(self.bn1(x))))


class FunctionalRelu(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn2(self.bn1(x).relu()))


class TwoReaders(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(x)
        return self.relu1(y) - self.bn2(y)


class Twice(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu1(self.bn1(self.bn1(x)))


class ReluInTraining(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(x)
        return self.relu1(y) if self.training else self.relu2(-y)


class ReluInEvaluation(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(x)
        return self.relu2(-y) if self.training else self.relu1(y)


class Optional(Block):
    """A symbol is never None: a trace takes the ReLU that this call goes without."""

    def forward(self, x: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        y = self.bn1(x)
        return y if extra is None else self.relu1(y)


class Untraceable(nn.Module):
    """Its control flow depends on values; its block's does not."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.bn, self.relu = Block(), nn.BatchNorm3d(8), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        return self.relu(self.bn(y)) if y.sum() > 0 else self.bn(y)


def by_hand(model: Block) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the block computes with GroupNorm in place of BatchNorm, written with torch's functions."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(functional.group_norm(model.conv1(x), 4))
        return functional.relu(x + functional.group_norm(model.conv2(y), 4))

    return forward


# A normalized value is at most sqrt(n - 1) = 6.9 (n = 48 values a group) and takes some ten roundings, of sums and products; the
# kernel may order them in another way. The second convolution adds 8 such values with weights below 0.36, and a norm behind it
# scales by one over the standard deviation, not below 0.1 here.
TOLERANCE = 10 * 10 * 8 * 0.36 * 6.9 * EPS


def test_fused_sequential_is_group_norm_and_relu() -> None:
    model = nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU())
    report = convert(model, GROUPS)
    assert [type(module) for module in model] == [nn.Conv3d, GroupNorm, nn.Identity]
    assert (report.num_replaced, report.num_fused, report.num_copied, report.num_left) == (1, 1, 0, 0)
    x = draw(2, 3, 3, 4, 5)
    expected = functional.relu(functional.group_norm(model[0](x), 4))
    torch.testing.assert_close(model(x), expected, atol=TOLERANCE, rtol=0)
    assert (expected == 0).any()


def test_fused_block_equals_the_unfused_one_and_its_gradient() -> None:
    model = Block()
    report = convert(model, GROUPS)
    assert report.layers[0].fused == "relu1"
    assert reasons(report) == {"bn1": "", "bn2": "followed by add"}
    assert isinstance(model.relu1, nn.Identity)
    assert isinstance(model.relu2, nn.ReLU)
    x, upstream = draw(2, 8, 2, 3, 4), draw(2, 8, 2, 3, 4, seed=1)
    actual, expected = model(x), by_hand(model)(x)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)
    ours, theirs = (torch.autograd.grad(y, model.conv1.weight, upstream)[0] for y in (actual, expected))
    # A gradient of a weight sums over 2 * 24 positions.
    torch.testing.assert_close(ours, theirs, atol=48 * TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (SharedRelu, {"bn1": "its ReLU is called 2 times", "bn2": "its ReLU is called 2 times"}),
        (FunctionalRelu, dict.fromkeys(("bn1", "bn2"), "forward calls relu as a function, which cannot be removed")),
        (TwoReaders, {"bn1": "its output has 2 readers", "bn2": "followed by sub"}),
        (Twice, {"bn1": "called 2 times", "bn2": "called 0 times"}),
        (ReluInTraining, {"bn1": "followed by neg", "bn2": "called 0 times"}),
        (ReluInEvaluation, {"bn1": "followed by neg", "bn2": "called 0 times"}),
        (Optional, dict.fromkeys(("bn1", "bn2"), "the model cannot be traced")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_does_not_fuse_what_is_not_proven(block: type[Block], expected: dict[str, str]) -> None:
    model = block()
    reference = copy.deepcopy(model)
    assert reasons(convert(model, GROUPS)) == expected
    # The same class, with the layers put in by hand and no ReLU taken.
    reference.bn1, reference.bn2 = nn.GroupNorm(4, 8), nn.GroupNorm(4, 8)
    x = draw(2, 8, 2, 3, 4)
    for training in (True, False):
        y = model.train(training)(x)
        torch.testing.assert_close(y, reference.train(training)(x), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("path", ["0", "0.1", "1"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_does_not_fuse_under_a_hook(path: str, register: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8)), nn.ReLU())
    calls: list[nn.Module] = []
    handle = getattr(model.get_submodule(path), register)(lambda module, *_: calls.append(module))
    report = convert(model, GROUPS)
    assert reasons(report) == {"0.1": f"a hook on {path} sees what lies between"}
    assert not calls  # tracing calls none
    x = draw(2, 3, 3, 4, 5).requires_grad_()
    model(x).sum().backward()
    assert calls == [model.get_submodule(path)]  # it moved to the new layer
    handle.remove()
    model(x).sum().backward()
    assert len(calls) == 1


def test_fuses_under_a_hook_around_both() -> None:
    model = nn.Sequential(nn.Sequential(nn.BatchNorm3d(8), nn.ReLU()))
    model[0].register_forward_hook(lambda *_: None)
    assert convert(model, GROUPS).num_fused == 1


class Taps(nn.Module):
    """Its block could be traced alone, but is not called whole."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv3d(8, 8, 1), nn.BatchNorm3d(8), nn.ReLU())

    def forward(self, x: torch.Tensor, taps: tuple[int, ...] = (1, 2)) -> list[torch.Tensor]:
        found = []
        for index, layer in enumerate(self.block):
            x = layer(x)
            if index in taps:
                found.append(x)
        return found


@pytest.mark.parametrize("model", [Taps, Untraceable])
def test_does_not_fuse_inside_of_what_cannot_be_traced(model: type[nn.Module]) -> None:
    report = convert(model(), GROUPS)
    assert {layer.unfused for layer in report.layers} == {"the model cannot be traced"}


def test_fuses_nothing_where_it_is_told_not_to() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.ReLU())
    assert reasons(convert(model, GROUPS, fuse=False)) == {"0": "fuse=False"}
    assert isinstance(model[1], nn.ReLU)


def test_a_forward_replaced_by_hand_stays() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.ReLU(), nn.BatchNorm3d(8))
    model[1].forward = lambda x: 2 * x
    model[2].forward = lambda x: 3 * x
    report = convert(model, GROUPS)
    assert [layer.unfused or layer.state for layer in report.layers] == ["followed by ReLU", "its forward was replaced by hand"]


def test_does_not_touch_weights_that_forward_writes() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.relu, self.conv = nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for parameter in self.parameters():
                parameter.data.mul_(0)
            return self.conv(self.relu(self.bn(x)))

    model = Writes()
    before = model.conv.weight.clone()
    convert(model, GROUPS)
    assert torch.equal(model.conv.weight, before)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (lambda channels, **_: nn.GroupNorm(4, channels), r"^0: norm gave GroupNorm\(4, 8, .*; it is to give a videogn\.norm"),
        (lambda channels, activation, zero_init: GroupNorm(channels, num_groups=4), "with activation='relu'"),
        (nn.GroupNorm, r"^0: norm is <class .*GroupNorm'>, which is to build norm\(channels, activation, zero_init\)"),
    ],
    ids=["torch", "no_tail", "signature"],
)
def test_a_norm_that_is_none_is_refused(norm: Callable[..., Norm], message: str) -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.ReLU())
    with pytest.raises(InputError, match=message):
        unwrap(convert)(model, norm)  # below the hook
    assert isinstance(model[0], nn.BatchNorm3d)


def test_a_model_for_several_devices_is_refused() -> None:
    with pytest.raises(InputError, match="wrapped for several devices"):
        convert(nn.DataParallel(Block()), GROUPS)
    with pytest.raises(InputError, match=r"the model is None; give a torch\.nn\.Module"):
        unwrap(convert)(None, GROUPS)


def test_a_model_without_values() -> None:
    with torch.device("meta"):
        model = Block()
    assert convert(model, GROUPS).num_fused == 1
    assert model.bn1.weight.is_meta


def test_tracing_leaves_nothing_behind() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.relu = nn.BatchNorm3d(8), nn.ReLU()
            self.register_buffer("calls", torch.zeros(()))
            self.last: object = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.last = self.relu(self.bn(x))
            return self.last

    model = Remembers()
    assert convert(model, GROUPS).num_fused == 1
    assert model.last is None
    assert model.calls == 0


def test_a_shared_layer_stays_shared() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 1))
    model.append(model[0])
    report = convert(model, GROUPS)
    assert model[0] is model[3]
    assert isinstance(model[0], GroupNorm)
    assert [(layer.name, layer.unfused) for layer in report.layers] == [("0 = 3", "called 2 times")]


def test_zero_gamma_starts_at_zero_again() -> None:
    model = Block()
    nn.init.zeros_(model.bn2.weight)
    x = draw(2, 8, 2, 3, 4)
    report = convert(model, GROUPS)
    assert torch.equal(model(x), functional.relu(x))
    assert report.layers[1].state == "gamma, beta, statistics dropped; gamma starts at 0 again"
    assert model.bn2.zero_init
    assert not model.bn1.zero_init


def test_a_norm_without_gamma_says_so() -> None:
    model = Block()
    nn.init.zeros_(model.bn2.weight)
    report = convert(model, NoNorm)
    assert "gamma starts at 1: NoNorm: zero_init=True; there is no gamma" in report.layers[1].state
    assert report.num_replaced == 2


def test_keeps_mode_dtype_frozen_parameters_and_affine() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.BatchNorm3d(8, affine=False), nn.BatchNorm3d(8)).double()
    model[0].eval()
    model[0].weight.requires_grad_(False)
    report = convert(model, GROUPS)
    assert [layer.training for layer in model] == [False, True, True]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    learnt = [(layer.weight.requires_grad, layer.bias.requires_grad) for layer in model]
    assert learnt == [(False, True), (False, False), (True, True)]
    assert ["frozen" in layer.state for layer in report.layers] == [True, True, False]


@pytest.mark.parametrize("norm", [BatchNorm, SyncBatchNorm])
def test_batch_norm_carries_on_bit_for_bit(norm: Callable[..., Norm]) -> None:
    ours = nn.Sequential(nn.Conv3d(3, 8, 3), trained(nn.BatchNorm3d(8, eps=1e-2, momentum=0.3)), nn.ReLU())
    theirs = copy.deepcopy(ours)
    report = convert(ours, norm)
    assert (report.num_copied, report.num_fused) == (1, 1)
    assert report.layers[0].state == "copied"
    x = draw(2, 3, 3, 4, 5) + 3
    # Training in between, so that the second evaluation is with statistics that the new layer averaged.
    for training in (False, True, False):
        assert torch.equal(ours.train(training)(x), theirs.train(training)(x))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("norm", [FrozenBatchNorm, BatchRenorm])
def test_the_other_running_norms_carry_on_in_evaluation(norm: Callable[..., Norm]) -> None:
    ours = nn.Sequential(trained(nn.BatchNorm3d(8, eps=1e-2))).eval()
    theirs = copy.deepcopy(ours)
    convert(ours, norm)
    x = draw(2, 8, 3, 4, 5) + 3
    # Scale and shift of values up to 8 with gamma <= 2 and a standard deviation >= 0.7: terms below 32, four roundings.
    torch.testing.assert_close(ours(x), theirs(x), atol=4 * 32 * EPS, rtol=0)


@pytest.mark.parametrize("norm", [GROUPS, SyncBatchNorm], ids=["group_norm", "sync_batch_norm"])
@pytest.mark.parametrize(
    ("old", "shape"),
    [
        (nn.BatchNorm1d, (5, 8)),
        (nn.BatchNorm1d, (5, 8, 3)),
        (nn.BatchNorm2d, (2, 8, 3, 4)),
        (nn.BatchNorm3d, (2, 8, 3, 4, 5)),
        (nn.SyncBatchNorm, (2, 8, 3)),
        (FrozenBatchNorm2d, (2, 8, 3, 4)),
    ],
)
def test_every_class_of_every_rank(old: type[nn.Module], shape: tuple[int, ...], norm: Callable[..., Norm]) -> None:
    model = nn.Sequential(old(8), nn.ReLU())
    theirs = copy.deepcopy(model).eval()
    report = convert(model.eval(), norm)
    assert report.num_fused == 1
    assert all(parameter.requires_grad for parameter in model.parameters())
    x = draw(*shape) * 2 + 1
    expected = functional.relu(functional.group_norm(x, 4)) if norm is GROUPS else theirs(x)
    torch.testing.assert_close(model(x), expected, atol=TOLERANCE, rtol=0)


def test_batch_norm_refuses_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8))
    with pytest.raises(InputError, match=r"^0: a BatchNorm2d is given no clips, .*; use SyncBatchNorm"):
        convert(model, BatchNorm)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_trained_layers_warn_once(name: str) -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.BatchNorm3d(8))
    for layer in model:
        getattr(layer, name).data[3] = 0.5
    with pytest.warns(UserWarning, match="were trained, and their gamma, .* are dropped, .*; train the model again") as caught:
        convert(model, GROUPS)
    assert len(caught) == 1
    assert all(bool((layer.weight == 1).all()) and not layer.bias.any() for layer in model)


def test_an_error_leaves_the_model_untouched() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), nn.ReLU(), nn.Sequential(nn.Conv3d(8, 6, 1), nn.BatchNorm3d(6)))
    before = dict(model.named_modules())
    with pytest.raises(InputError, match=r"^2\.1: GroupNorm: num_groups=4 does not divide channels=6; use one of 1, 2, 3, 6"):
        convert(model, GROUPS)
    after = dict(model.named_modules())
    assert before.keys() == after.keys()
    assert all(module is after[name] for name, module in before.items())


class Subclass(nn.BatchNorm3d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


def test_leaves_subclasses_and_our_own_norms_alone() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), Subclass(8), BatchNorm(8))
    kept = list(model)[1:]
    report = convert(model, GROUPS)
    assert list(model)[1:] == kept
    assert (report.num_replaced, report.num_left) == (1, 2)
    assert [layer.state for layer in report.layers[1:]] == [
        "a subclass, which may compute anything",
        "a norm of videogn already",
    ]


def test_leaves_a_pruned_layer_alone() -> None:
    model = nn.Sequential(nn.BatchNorm3d(8), prune.identity(nn.BatchNorm3d(8), "weight"))
    report = convert(model, GROUPS)
    assert report.layers[1].state == "it has a state of its own: weight_mask, weight_orig"
    model(draw(2, 8, 2, 3, 4))


def test_no_statistics_are_nothing_to_carry_on() -> None:
    """Such a layer uses its batch in evaluation too, which no norm with running statistics does."""
    report = convert(nn.Sequential(nn.BatchNorm3d(8, affine=False, track_running_stats=False)), BatchNorm)
    assert (report.num_copied, report.layers[0].state) == (0, "nothing dropped; frozen as before")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv3d(3, 8, 3), r"convert: Conv3d has no BatchNorm1d, .* to replace; use the model as it is"),
        (nn.Sequential(Subclass(8)), r"\(0 is left alone, a subclass, which may compute anything\)"),
        (nn.BatchNorm3d(8), r"the model is itself a BatchNorm3d, .*; use norm\(8\)"),
    ],
    ids=["none", "subclass", "itself"],
)
def test_nothing_to_replace(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(model, GROUPS)


def test_the_report_is_a_table() -> None:
    model = nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), Subclass(8))
    lines = str(convert(model, GROUPS)).splitlines()
    assert lines[0].split() == ["layer", "was", "is", "ReLU", "gamma,", "beta,", "statistics"]
    assert lines[1].split("  ")[0].strip() == "1"
    assert "BatchNorm3d  GroupNorm(G=4, C=8, activation=relu, eps=1e-05)  fused: 2" in lines[1]
    assert "Subclass     left alone" in lines[2]
    assert lines[3] == "1 replaced (1 with their ReLU, 0 with their state), 1 left alone"
    assert lines[0].index("was") == lines[1].index("BatchNorm3d")


def step(model: nn.Module, loss: torch.Tensor) -> None:
    """One step of SGD, after which every norm has moved."""
    before = [layer.weight.detach().clone() for layer in model.modules() if isinstance(layer, Norm)]
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    after = [layer.weight for layer in model.modules() if isinstance(layer, Norm)]
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(new).all()) and not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:GroupNorm. num_groups=32 does not divide")  # 45, 230, 921 channels
def test_r2plus1d_trains_at_batch_2_and_forgets_its_batch() -> None:
    torch.manual_seed(0)
    model = torchvision.models.video.r2plus1d_18(weights=None, num_classes=5)
    report = convert(model, NEAREST)
    assert (report.num_replaced, report.num_fused) == (37, 26)
    assert not any(isinstance(module, BATCH_NORMS) for module in model.modules())
    x = draw(2, 3, 4, 32, 32)
    step(model, functional.cross_entropy(model.train()(x), torch.tensor([1, 3])))
    # In training mode, in which a batch norm would see the neighbour.
    with torch.no_grad():
        alone, first, second = model(x[:1]), model(x), model(torch.cat([x[:1], 100 * x[1:]]))
        assert torch.equal(model.eval()(x), first)
    # Same clip, another neighbour: the same kernels on the same sizes, to the bit.
    assert torch.equal(first[0], second[0])
    # Alone, a convolution may sum in another order: 18 layers, a few roundings each, of logits of their own size.
    torch.testing.assert_close(alone[0], first[0], atol=18 * 64 * EPS * float(first.abs().max()), rtol=0)


def test_mask_rcnn_trains_at_batch_2() -> None:
    torch.manual_seed(0)
    few = {"rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 8}  # not 2000 boxes an image, for speed
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96, **few)
    report = convert(model, NEAREST)
    assert report.num_replaced == 53
    assert report.num_fused == 0  # its forward cannot be traced
    assert not any(isinstance(module, BATCH_NORMS) for module in model.modules())
    images = [draw(3, 64, 80, seed=seed).sigmoid() for seed in range(2)]
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0], [20.0, 10.0, 70.0, 60.0]])
    masks = torch.zeros(2, 64, 80, dtype=torch.uint8)
    for mask, box in zip(masks, boxes.int(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks} for _ in images]
    losses = model.train()(images, targets)
    assert "loss_mask" in losses
    step(model, sum(losses.values()))
    with torch.no_grad():
        together = model.backbone(torch.stack(images))
        neighbour = model.backbone(torch.stack([images[0], 100 * images[1]]))
        found = model.eval()(images)
    assert all(torch.equal(together[level][0], neighbour[level][0]) for level in together)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores", "masks"}] * 2


def test_fresh_models_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(Block(), GROUPS)
        convert(nn.Sequential(trained(nn.BatchNorm3d(8))), BatchNorm)  # copied: nothing is lost
