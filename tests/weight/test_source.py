"""What every layout shares: what goes over, what does not, what is refused, and that the report tells all of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50, resnet101
from torchvision.models.resnet import Bottleneck, ResNet

from videogn.types import InputError
from videogn.weight.torchvision import Torchvision

Build = Callable[..., nn.Module]


def conv_names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if "conv" in name or ".shortcut.0." in name]


@pytest.fixture(scope="module")
def theirs(moved: Build) -> nn.Module:
    torch.manual_seed(0)
    return moved(ResNet(Bottleneck, [1, 1, 1, 1]))


@pytest.fixture(scope="module")
def batch_norms(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of images with one block in each stage, with batch norm."""
    path = tmp_path_factory.mktemp("source") / "shallow.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def group_norms(moved: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = moved(ResNet(Bottleneck, [1, 1, 1, 1], norm_layer=lambda channels: nn.GroupNorm(32, channels)))
    path = tmp_path_factory.mktemp("source") / "shallow_gn.pth"
    torch.save(network.state_dict(), path)
    return path


class TestNorms:
    def test_of_batch_statistics_start_anew_in_a_group_norm(
        self, shallow: Build, load: Callable, theirs: nn.Module, batch_norms: Path
    ) -> None:
        ours = shallow("group_norm")
        report = load(Torchvision(), batch_norms, ours)
        of_norms = [e for e in report.entries if "norm" in e.name or ".shortcut.1." in e.name]
        assert len(of_norms) == 34  # conv1's, and four of each of four blocks: gamma and beta
        assert {(e.outcome, e.reason) for e in of_norms} == {("skipped", "of a batch norm, not taken over")}
        kernels = [e for e in report.entries if "conv" in e.name or ".shortcut.0." in e.name]
        assert {e.outcome for e in kernels} == {"inflated"}
        for entry in kernels:
            assert torch.equal(ours.state_dict()[entry.name].squeeze(2), theirs.state_dict()[entry.source])
        statistics = {name for name in theirs.state_dict() if "running" in name or "tracked" in name}
        assert dict(report.unused) == dict.fromkeys(statistics, "running statistics, which this model's norms do not keep")
        assert report.notes == [
            "34 gammas and betas start anew: they were trained for other statistics. "
            "weight.copy_affine=true takes them over all the same",
            "4 residual blocks start closed: the gamma of their last norm is 0, and what their kernels compute comes in as it "
            "grows. model.zero_init=false starts it at 1",
        ]

    def test_go_over_where_that_is_asked_for(self, shallow: Build, load: Callable, theirs: nn.Module, batch_norms: Path) -> None:
        ours = shallow("group_norm")
        report = load(Torchvision(copy_affine=True), batch_norms, ours)
        of_norms = [e for e in report.entries if "norm" in e.name or ".shortcut.1." in e.name]
        assert {(e.outcome, e.reason) for e in of_norms} == {("renamed", "of a batch norm, taken over, as asked")}
        for entry in of_norms:
            assert torch.equal(ours.state_dict()[entry.name], theirs.state_dict()[entry.source])
        assert len(report.notes) == 1
        assert report.notes[0].startswith("warning: 34 gammas and betas were taken over from another kind of norm")

    @pytest.mark.parametrize("copy_affine", [False, True])
    def test_of_groups_in_a_batch_norm(self, shallow: Build, load: Callable, group_norms: Path, copy_affine: bool) -> None:
        report = load(Torchvision(copy_affine=copy_affine), group_norms, shallow("batch_norm"))
        outcomes = {entry.name: (entry.outcome, entry.reason) for entry in report.entries}
        reason = "of a group norm, "
        reason += "taken over, as asked" if copy_affine else "not taken over"
        assert outcomes["trunk.norm1.weight"] == ("renamed" if copy_affine else "skipped", reason)
        assert outcomes["trunk.norm1.running_var"] == ("skipped", "statistics of its own")

    @pytest.mark.parametrize("norm", ["sync_batch_norm", "frozen_batch_norm", "batch_renorm"])
    def test_of_the_batch_norm_family_go_over_whole(
        self, shallow: Build, load: Callable, theirs: nn.Module, batch_norms: Path, norm: str
    ) -> None:
        settings = {"zero_init": "false"} if norm == "frozen_batch_norm" else {}
        ours = shallow(norm, **settings)
        report = load(Torchvision(), batch_norms, ours)
        for entry in report.entries:
            if entry.name.startswith(("trunk.norm1.", "trunk.res3.0.norm")) and entry.source:
                assert entry.outcome == "renamed", entry
                assert torch.equal(ours.state_dict()[entry.name], theirs.state_dict()[entry.source])
        assert report.backbone_share == 1

    def test_groups_by_size_are_compared_by_their_number(self, shallow: Build, load: Callable, group_norms: Path) -> None:
        """channels_per_group=16 is 32 groups of 512 channels, and 4 of 64."""
        report = load(Torchvision(), group_norms, shallow("group_norm", **{"norm.channels_per_group": 16}))
        outcomes = {entry.name: entry.outcome for entry in report.entries}
        assert outcomes["trunk.res5.0.norm1.weight"] == "renamed"
        assert outcomes["trunk.norm1.weight"] == "skipped"


class TestRefusals:
    @pytest.mark.parametrize(
        ("network", "model", "message"),
        [
            (resnet101, "i3d_r50", "of another depth: 23 blocks in res4, and the model has 6"),
            (resnet50, "i3d_r101", "of another depth: 6 blocks in res4, and the model has 23"),
        ],
        ids=["101_into_50", "50_into_101"],
    )
    def test_another_depth(
        self,
        build: Build,
        load: Callable,
        refuse: Callable,
        tmp_path: Path,
        network: Callable[[], nn.Module],
        model: str,
        message: str,
    ) -> None:
        path = tmp_path / "net.pth"
        theirs = network()
        torch.save(theirs.state_dict(), path)
        ours = build(model, "group_norm")
        found = refuse(Torchvision(), path, ours)
        assert found == f"{path}: {message}; choose the model or the file, or take over what fits with weight.strict=false"
        load(Torchvision(strict=False), path, ours)
        kernel = ours.state_dict()["trunk.res4.5.conv2.weight"]
        assert torch.equal(kernel.squeeze(2), theirs.state_dict()["layer3.5.conv2.weight"])

    def test_half_the_width(self, shallow: Build, load: Callable, refuse: Callable, batch_norms: Path) -> None:
        ours = shallow("group_norm", widths="[32,64,128,256]")
        message = refuse(Torchvision(), batch_norms, ours)
        assert re.search(
            r": \d+% of the backbone's parameters are in it \(trunk\..*\); choose the model that it was trained as, or take over "
            r"what fits with weight\.strict=false$",
            message,
        )
        report = load(Torchvision(strict=False), batch_norms, ours)
        reasons = {entry.name: entry.reason for entry in report.entries}
        assert reasons["trunk.res2.0.conv2.weight"] == "its shape 64 x 64 x 3 x 3 does not fit 32 x 32 x 1 x 3 x 3"
        outcomes = {entry.name: entry.outcome for entry in report.entries}
        assert outcomes["trunk.conv1.weight"] == "inflated"

    @pytest.mark.parametrize(("stages", "refused"), [(["layer4"], True), (["layer1", "layer2", "layer3"], False)])
    def test_less_than_half(
        self,
        shallow: Build,
        load: Callable,
        refuse: Callable,
        theirs: nn.Module,
        tmp_path: Path,
        stages: list[str],
        refused: bool,
    ) -> None:
        """The last stage has three quarters of the parameters."""
        path = tmp_path / "part.pth"
        torch.save({name: value for name, value in theirs.state_dict().items() if not name.startswith(tuple(stages))}, path)
        ours = shallow("batch_norm")
        if refused:
            share = load(Torchvision(strict=False), path, shallow("batch_norm")).backbone_share
            assert share < 0.5
            assert f": {share:.0%} of the backbone's parameters are in it" in refuse(Torchvision(), path, ours)
        else:
            report = load(Torchvision(), path, ours)
            assert {e.reason for e in report.entries if e.outcome == "skipped" and e.name.startswith("trunk.res2")} == {
                "not in the file",
                "statistics of its own",
            }

    def test_an_unknown_file(self) -> None:
        with pytest.raises(InputError) as caught:
            Torchvision(file="resnet5", files={"resnet50": {"url": "u"}, "resnet18": {"url": "u"}}).resolve()
        assert str(caught.value) == "weight.file=resnet5; use one of resnet18, resnet50, or give your own as weight.path=FILE"

    def test_no_file(self) -> None:
        with pytest.raises(InputError) as caught:
            Torchvision().resolve()
        assert str(caught.value) == "weight.path: needed for torchvision; give it as weight.path=FILE"

    def test_an_unknown_inflation(self) -> None:
        with pytest.raises(InputError, match=r"weight\.inflation='mean'; use repeat or center"):
            Torchvision(inflation="mean")  # pyright: ignore


def quantized(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings(
    "ignore:.*[Qq]uantize", "ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:Validating sparse"
)
class TestValues:
    """Of tensors that the model takes, and of those that it does not."""

    KINDS: ClassVar[dict[str, tuple[Callable[[Tensor], Tensor], str]]] = {
        "int64": (lambda x: x.long(), "is of torch.int64"),
        "uint8": (lambda x: x.to(torch.uint8), "is of torch.uint8"),
        "bool": (lambda x: x.bool(), "is of torch.bool"),
        "complex": (lambda x: x.to(torch.complex64), "is of torch.complex64"),
        "float8": (lambda x: x.to(torch.float8_e4m3fn), "is of torch.float8_e4m3fn"),
        "float4": (lambda x: torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "is of torch.float4_e2m1fn_x2"),
        "quantized": (quantized, "is of torch.qint8"),
        "sparse": (lambda x: x.to_sparse(), "is sparse"),
        "meta": (lambda x: x.to("meta"), "has no values"),
        "huge": (lambda x: torch.ones(1).expand(2**40), "is of 1099511627776 values"),
    }

    @pytest.mark.turns
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_another_kind_are_refused_where_a_layer_takes_them(
        self, shallow: Build, load: Callable, refuse: Callable, theirs: nn.Module, tmp_path: Path, kind: str
    ) -> None:
        change, message = self.KINDS[kind]
        path, state = tmp_path / "net.pth", theirs.state_dict()
        for name in ("conv1.weight", "bn1.weight", "fc.weight"):
            torch.save({**state, name: change(state[name])}, path)
            expected = f"{path}: {name} {message}, and a layer takes plain floating point; give the file as it was before it was"
            assert refuse(Torchvision(), path, shallow("batch_norm"))[: len(expected)] == expected
        torch.save({**state, "ema.conv1.weight": change(state["conv1.weight"])}, path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load(Torchvision(), path, shallow("batch_norm")).backbone_share == 1

    def test_nested_ones_are_refused(self, shallow: Build, refuse: Callable, theirs: nn.Module, tmp_path: Path) -> None:
        """torch 2.14 reads them, 2.15 does not unless told to trust the file."""
        path, state = tmp_path / "net.pth", theirs.state_dict()
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        torch.save({**state, "fc.weight": nested}, path)
        message = refuse(Torchvision(), path, shallow("batch_norm"))
        assert re.match(
            rf"{re.escape(str(path))}: fc.weight is (nested, and a layer|a torch.*nested_tensor, which is not)", message
        )

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
    def test_that_cannot_be_are_refused_where_a_layer_takes_them(
        self, shallow: Build, load: Callable, refuse: Callable, theirs: nn.Module, tmp_path: Path, value: float
    ) -> None:
        path, state = tmp_path / "net.pth", theirs.state_dict()
        variance = torch.ones(64)
        variance[7] = value
        torch.save({**state, "bn1.running_var": variance, "best_loss": torch.tensor(value), "ema.conv1": variance}, path)
        message = refuse(Torchvision(), path, shallow("batch_norm"))
        assert message.startswith(
            f"{path}: bn1.running_var holds a {'negative variance' if value == -1 else 'value that is not finite'}"
        )
        report = load(Torchvision(), path, shallow("group_norm"))  # which keeps no variance
        assert report.backbone_share > 0.9

    def test_of_one_number_are_told_by_their_shape(
        self, shallow: Build, load: Callable, theirs: nn.Module, tmp_path: Path
    ) -> None:
        path, state = tmp_path / "net.pth", theirs.state_dict()
        torch.save({**state, "fc.weight": torch.tensor(1.0), "fc.bias": torch.tensor(1.0)}, path)
        reasons = {entry.name: entry.reason for entry in load(Torchvision(), path, shallow()).entries}
        assert reasons["head.weight"] == "its shape of one number does not fit 5 x 2048"
        assert reasons["head.bias"] == "its shape of one number does not fit 5"

    @pytest.mark.parametrize(
        "value", [torch.tensor(float("inf")).half(), torch.tensor(1e30), torch.tensor([1]), torch.tensor(True)]
    )
    def test_a_counter_of_another_kind_is_left(
        self, shallow: Build, load: Callable, theirs: nn.Module, tmp_path: Path, value: Tensor
    ) -> None:
        path = tmp_path / "net.pth"
        torch.save({**theirs.state_dict(), "bn1.num_batches_tracked": value}, path)
        ours = shallow("batch_norm")
        report = load(Torchvision(), path, ours)
        assert report.unused == [("bn1.num_batches_tracked", "a counter that is no whole number")]
        assert ours.state_dict()["trunk.norm1.num_batches_tracked"] == 0
        assert report.backbone_share == 1


def test_means_of_weights_are_told(shallow: Build, load: Callable, theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()} | {"n_averaged": torch.tensor(9)}
    torch.save({"model_ema": state}, path)
    report = load(Torchvision(), path, shallow("batch_norm"))
    assert report.notes == ["the weights are the means over steps, model_ema: the file holds no others"]
    assert report.backbone_share == 1


@pytest.mark.parametrize(
    "entry",
    [
        "https://a/b.pth",
        {},
        {"sha256": "0123abcd"},
        {"url": 3},
        {"url": "https://a/b.pth", "sha256": 12345678},  # YAML reads digits alone as a number
        {"url": "https://a/b.pth", "sha256": ""},
        {"url": "https://a/b.pth", "sha256": "0123abc"},
        {"url": "https://a/b.pth", "sha256": "sha256:0123abcd"},
        {"url": "https://a/b.pth", "size": "9"},
        {"url": "https://a/b.pth", "md5": "0123abcd"},
    ],
    ids=str,
)
def test_a_public_file_that_is_not_described(entry: Any) -> None:
    with pytest.raises(
        InputError, match=r"^weight\.files\.x=.*; give \{url: 'https://\.\.\.', sha256: '8 of its digits or more'\}"
    ):
        Torchvision(file="x", files={"x": entry})


def test_half_precision_is_computed_with_as_single(build: Build, load: Callable, theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in theirs.state_dict().items()}, path)
    ours = build("c2d_r50", "batch_norm", depths="[1,1,1,1]", **{"model.stem.kernel": "[5,7,7]"})
    load(Torchvision(), path, ours)
    found = ours.state_dict()["trunk.conv1.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found[:, :, 0], theirs.state_dict()["conv1.weight"].half().float() / 5)


def test_two_names_for_one_place_are_both_told(shallow: Build, load: Callable, theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    torch.save({**theirs.state_dict(), "gn1.weight": torch.zeros(64)}, path)
    ours = shallow("batch_norm")
    report = load(Torchvision(), path, ours)
    assert report.unused == [("gn1.weight", "as bn1.weight has its place")]
    assert torch.equal(ours.state_dict()["trunk.norm1.weight"], theirs.state_dict()["bn1.weight"])


def test_a_model_on_another_device_and_dtype_keeps_them(shallow: Build, load: Callable, batch_norms: Path) -> None:
    ours = shallow("batch_norm").to(torch.float64)
    load(Torchvision(), batch_norms, ours)
    assert {value.dtype for value in ours.state_dict().values()} == {torch.float64, torch.int64}
