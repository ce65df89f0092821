"""videogn plan, as a user calls it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from videogn.cli.values import bytes_of
from videogn.configuration import compose, instantiate
from videogn.model.recomputation import set_activation_memory
from videogn.prediction.load import build_network
from videogn.report import memory
from videogn.report.memory import Gpu, Measured, count_step
from videogn.training.parameter_groups import parameter_groups
from videogn.types import InputError

TINY = ["model=resnet3d_tiny", "crop_size=32", "clip_lengths=[4]", "num_classes=10", "reserve=2MB"]


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    frames: int
    norm: str
    batch_size: int
    total: float
    rates: list[str]  # lr, accumulate, lr then
    advice: str


def table(out: str) -> list[Line]:
    lines = out.split("\n\n")[0].splitlines()
    assert lines[0].split()[:8] == ["frames", "norm", "batch_size", "fixed", "clips", "temporary", "assumed", "sum,"]
    rows = []
    for line in lines[1:]:
        frames, norm, batch_size, *sizes, tail = line.split(maxsplit=8)
        numbers = [float(size) for size in sizes]
        assert numbers[4] == pytest.approx(sum(numbers[:4]), abs=0.025)  # each is rounded to 0.01
        words = tail.split()
        advice = tail.strip() if tail.startswith("not even") else " ".join(word for word in words if word[0].isalpha())
        rows.append(Line(int(frames), norm, int(batch_size), numbers[4], [w for w in words if w[0].isdigit()], advice))
    return rows


def commands(out: str) -> list[list[str]]:
    return [shlex.split(line) for line in out.splitlines() if line.startswith("videogn train ")]


def needed(
    norm: str, batch_size: int, num_devices: int = 1, precision: str = "32-true", activation_memory: str = "full"
) -> float:
    """Counted anew, with 2 MB reserved and 5% lost, along the path that a GPU takes."""
    config = compose("train", ["model=resnet3d_tiny", f"norm={norm}"])
    if norm == "group_norm" and sys.platform == "linux":
        config.norm.backend = "triton"
    with memory.uncomputed(precision) as device:
        with device:
            network = build_network(config, 10)
        set_activation_memory(network, activation_memory)
        optimizer = instantiate(config.optimizer)(parameter_groups(network, norm_weight_decay=False))
        return 2e6 + 1.05 * count_step(network, optimizer, (3, 4, 32, 32), batch_size, num_devices, precision).total


@pytest.mark.parametrize("num_devices", [1, 4])
def test_the_batch_fits_and_one_clip_more_does_not(videogn: Callable, num_devices: int) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", f"num_devices={num_devices}")
    assert outcome.status == 0, outcome.err
    rows = table(outcome.out)
    assert [(row.frames, row.norm) for row in rows] == [(4, "group_norm"), (4, "batch_norm")]
    for row in rows:
        assert needed(row.norm, row.batch_size, num_devices) <= 60e6 < needed(row.norm, row.batch_size + 1, num_devices)
        assert row.total == pytest.approx(needed(row.norm, row.batch_size, num_devices) / 1e9, abs=0.006)


@pytest.mark.turns
def test_sixteen_bits_and_computing_again_fit_more(videogn: Callable) -> None:
    pytest.importorskip("triton", reason="pip install triton")
    found = []
    for precision, activation_memory in (("32-true", "full"), ("bf16-mixed", "full"), ("bf16-mixed", "lean")):
        words = [f"precision={precision}", f"activation_memory={activation_memory}"]
        outcome = videogn("plan", *TINY, "gpu_memory=40MB", "norms=[group_norm]", *words)
        (row,) = table(outcome.out)
        for batch_size, fits in ((row.batch_size, True), (row.batch_size + 1, False)):
            assert (needed("group_norm", batch_size, 1, precision, activation_memory) <= 40e6) == fits
        (command,) = commands(outcome.out)
        assert ("trainer.precision=bf16-mixed" in command) == (precision == "bf16-mixed")
        assert ("activation_memory=lean" in command) == (activation_memory == "lean")
        found.append(row.batch_size)
    assert found[0] < found[1] < found[2]


def test_more_memory_and_shorter_clips_fit_more(videogn: Callable) -> None:
    found = {}
    for size in (40, 80):
        outcome = videogn("plan", *TINY, f"gpu_memory={size}MB", "clip_lengths=[8,4]")
        for row in table(outcome.out):
            found[size, row.frames, row.norm] = row.batch_size
    for size, frames, norm in found:
        assert found[size, frames, norm] > 0
        assert found.get((2 * size, frames, norm), 10**9) > found[size, frames, norm]
        assert found.get((size, 2 * frames, norm), -1) < found[size, frames, norm]


def test_few_clips_are_for_norms_without_a_batch(videogn: Callable) -> None:
    norms = "norms=[batch_norm,batch_renorm,sync_batch_norm,frozen_batch_norm,instance_norm,group_norm]"
    outcome = videogn("plan", *TINY, "crop_size=128", "gpu_memory=40MB", "num_devices=4", norms, "model.zero_init=false")
    rows = {row.norm: row for row in table(outcome.out)}
    assert all(2 <= row.batch_size < 8 for row in rows.values())  # eight and more on four devices together
    assert [rows[norm].advice for norm in ("batch_norm", "batch_renorm")] == ["too few clips"] * 2
    assert rows["sync_batch_norm"].advice == "recommended"
    assert [rows[norm].advice for norm in ("frozen_batch_norm", "instance_norm", "group_norm")] == ["fits"] * 3
    assert [words[3] for words in commands(outcome.out)] == ["norm=sync_batch_norm"]


def test_none_is_recommended_where_all_suffer(videogn: Callable) -> None:
    outcome = videogn("plan", *TINY, "crop_size=128", "gpu_memory=40MB", "norms=[batch_norm]", "norm=batch_norm")
    (row,) = table(outcome.out)
    assert 1 <= row.batch_size < 8
    assert row.advice == "too few clips"
    assert f"4 frames: none recommended, batch_norm over {row.batch_size} clips; add group_norm to norms" in outcome.out
    assert commands(outcome.out) == []


def test_accumulation_reaches_the_base_batch_and_the_lr_follows(videogn: Callable) -> None:
    outcome = videogn("plan", *TINY, "gpu_memory=40MB", "num_devices=2", "base_batch_size=1000", "base_lr=0.5")
    for row in table(outcome.out):
        once, batches, then = row.rates
        clips = 2 * row.batch_size
        assert clips * int(batches) >= 1000 > clips * (int(batches) - 1)
        assert float(once) == pytest.approx(0.5 * clips / 1000, rel=1e-3)
        assert float(then) == pytest.approx(0.5 * clips * int(batches) / 1000, rel=1e-3)
    assert "under batch_norm it does not" in " ".join(outcome.out.split())


def test_the_words_are_a_training(videogn: Callable) -> None:
    own = ["norm.num_groups=16", "optimizer.momentum=0.8", "model.dropout=0.25", "conv=weight_standardized"]
    outcome = videogn("plan", *TINY, "gpu_memory=40MB", "base_batch_size=1000", "clip_lengths=[4,8]", *own)
    rows = [row for row in table(outcome.out) if row.advice == "recommended"]
    assert len(rows) == 2
    for row, (program, command, *words) in zip(rows, commands(outcome.out), strict=True):
        assert (program, command) == ("videogn", "train")
        config = compose("train", words)
        instantiate(config.transform, flip=False)  # which refuses sides that are shorter than the crop
        assert (config.clip_length, config.crop_size, config.batch_size) == (row.frames, 32, row.batch_size)
        assert config.trainer.accumulate_grad_batches == int(row.rates[1]) > 1
        assert (config.trainer.devices, config.base_batch_size, config.base_lr) == (1, 1000, 0.01)
        assert config.norm["_target_"].endswith(".GroupNorm")
        assert (config.norm.num_groups, config.optimizer.momentum, config.model.dropout) == (16, 0.8, 0.25)
        assert config.conv["_target_"].endswith(".WeightStandardizedConv3d")


def test_values_of_a_norm_are_of_that_norm_alone(videogn: Callable) -> None:
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", "norms=[batch_norm,group_norm]", "norm.channels_per_group=4")
    assert [row.advice for row in table(outcome.out)] == ["recommended", "fits"]
    assert commands(outcome.out)[0][3:5] == ["norm=batch_norm", "clip_length=4"]


def test_the_lr_of_sgd_is_no_other_optimisers(videogn: Callable) -> None:
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", "optimizer=adamw")
    assert [len(row.rates) for row in table(outcome.out)] == [1, 1]
    assert "base_lr=0.01 is that of SGD; give base_lr=LR for adamw" in outcome.out
    assert not any("lr" in word for word in commands(outcome.out)[0])
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", "optimizer=adamw", "base_lr=0.001")
    assert {"optimizer=adamw", "base_lr=0.001"} <= set(commands(outcome.out)[0])


def test_a_users_norm_is_planned(videogn: Callable, tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "mine.yaml").write_text("_target_: videogn.norm.group_norm.GroupNorm\n_partial_: true\nnum_groups: 8\n")
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", "norms=[mine]", "--config-dir", str(tmp_path))
    assert [row.advice for row in table(outcome.out)] == ["recommended"]
    assert commands(outcome.out)[0][-2:] == ["--config-dir", str(tmp_path)]


def test_where_nothing_fits_it_says_what_a_clip_needs(videogn: Callable) -> None:
    outcome = videogn("plan", *TINY, "gpu_memory=5MB", "reserve=0", "clip_lengths=[4,8]")
    assert outcome.status == 1
    assert [row.advice for row in table(outcome.out)] == ["not even one clip fits"] * 4
    (line,) = outcome.err.splitlines()
    assert re.fullmatch(
        r"videogn: gpu_memory=5MB: not even one clip fits; one of 4 frames under (group|batch)_norm needs 0\.0\d GB: give .*",
        line,
    )
    assert commands(outcome.out) == []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, Measured | None], list[int]]:
    """A GPU with so many bytes free, on which a step takes so much; answers the batches that were measured."""

    def put(free: float, answer: Measured | None) -> list[int]:
        asked: list[int] = []

        def measure(network: object, optimizer: object, clip: object, batch_size: int, precision: str) -> Measured | None:
            assert (clip, precision) == ((3, 4, 32, 32), "32-true")
            asked.append(batch_size)
            return answer

        monkeypatch.setattr(memory, "first_gpu", lambda: Gpu("NVIDIA Imaginary", int(free)))
        monkeypatch.setattr(memory, "measure_step", measure)
        real = torch.device
        monkeypatch.setattr(torch, "device", lambda name: real("cpu" if name == "cuda:0" else name))
        return asked

    return put


def test_a_gpu_is_asked_for_every_recommended_row(videogn: Callable, gpu: Callable) -> None:
    asked = gpu(1e9, Measured(71_234_000, 88_000_000))
    outcome = videogn("plan", *TINY, "gpu_memory=60MB")
    assert outcome.status == 0
    row = table(outcome.out)[0]
    assert asked == [row.batch_size]
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("measured: ")]
    assert line.startswith(
        f"measured: 4 frames, group_norm, batch_size={row.batch_size}: 0.07 GB allocated at the peak on NVIDIA "
    )
    assert line.endswith("0.06 GB counted; the allocator held 0.09 GB")


def test_a_gpu_that_is_too_full_is_not_tried(videogn: Callable, gpu: Callable) -> None:
    asked = gpu(1e7, Measured(1, 1))
    outcome = videogn("plan", *TINY, "gpu_memory=60MB")
    assert (outcome.status, asked) == (0, [])
    assert "not tried, since 0.06 GB were counted and 0.01 GB of the NVIDIA Imaginary are free" in outcome.out


def test_a_batch_that_does_not_fit_after_all_is_a_finding(videogn: Callable, gpu: Callable) -> None:
    asked = gpu(1e9, None)
    outcome = videogn("plan", *TINY, "gpu_memory=60MB")
    assert outcome.status == 1
    assert len(asked) == 1
    assert "out of memory on NVIDIA Imaginary" in outcome.out


def test_no_number_of_a_gpu_is_printed_that_was_not_measured(videogn: Callable, gpu: Callable) -> None:
    asked = gpu(1e9, Measured(1, 1))
    outcome = videogn("plan", *TINY, "gpu_memory=60MB", "measure=false")
    assert (outcome.status, asked) == (0, [])
    assert [line for line in outcome.out.splitlines() if "measured: " in line and "not measured" not in line] == [
        "measured: nothing; measure=false"
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), ("24 gib", 24 * 2**30), ("24576MiB", 24 * 2**30), ("1.5GB", 1_500_000_000)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of("gpu_memory", text) == size
    assert bytes_of("gpu_memory", size) == size


@pytest.mark.parametrize("value", ["24 apples", "GB", "-1GB", "24Gb/s", "1e3GB", "", -1, True, None, float("nan"), 1e30, [24]])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(InputError, match=r"gpu_memory=.*: give a size as 24GB \(10\^9 bytes each\), 24GiB \(2\^30\)"):
        bytes_of("gpu_memory", value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"gpu_memory: needed; give it as gpu_memory=VALUE"),
        (["gpu_memory=24 apples"], r"gpu_memory=24 apples: give a size as 24GB"),
        (["gpu_memory=0"], r"gpu_memory=0: 0 bytes; give the memory of a GPU with its unit, as 24GB"),
        (["gpu_memory=24"], r"gpu_memory=24: 24 bytes; give the memory of a GPU with its unit"),
        (["gpu_memory=24GB", "reserve=much"], r"reserve=much: give a size as 24GB"),
        (["gpu_memory=24GB", "fragmentation=5"], r"fragmentation=5: give a share, 0 to 1"),
        (["gpu_memory=24GB", "clip_lengths=[1]"], r"ResNet3D: a clip of 1 x 224 x 224 .* is smaller than 7 x 5 x 5"),
        (
            ["gpu_memory=24GB", "clip_lengths=8"],
            r"clip_lengths=8: give a list of whole numbers from 1 up, as clip_lengths=\[8,16\]",
        ),
        (["gpu_memory=24GB", "clip_lengths=[8,0]"], r"clip_lengths=\[8, 0\]: give a list of whole numbers"),
        (["gpu_memory=24GB", "norms=[gruop_norm]"], r"norms: gruop_norm is not one of batch_norm, .*; nearest: group_norm"),
        (["gpu_memory=24GB", "norms=group_norm"], r"norms=group_norm: give a list of files of conf/norm"),
        (
            ["gpu_memory=24GB", "norm=layer_norm"],
            r"norm=layer_norm: of layer_norm, which is none of norms=\[group_norm,batch_norm\]",
        ),
        (["gpu_memory=24GB", "norm.num_groups=7"], r"num_groups=7 does not divide channels=64"),
        (["gpu_memory=24GB", "num_devices=0"], r"num_devices=0: give a whole number from 1 up"),
        (["gpu_memory=24GB", "base_lr=0"], r"base_lr=0: give a number above 0, or null for none"),
        (["gpu_memory=24GB", "base_batch_size=1.5"], r"base_batch_size=1\.5: give a whole number from 1 up"),
        (["gpu_memory=24GB", "precision=16"], r"precision=16: use one of 32-true, bf16-mixed, 16-mixed"),
        (["gpu_memory=24GB", "activation_memory=none"], r"activation_memory=none: use one of full, lean, minimal"),
        (["gpu_memory=24GB", "measure=maybe"], r"measure=maybe: give true or false"),
        (["gpu_memory=24GB", "optimizer.momentum=-1"], r"optimizer: .*momentum.*; correct its values"),
        (["gpu_memory=24GB", "clip_length=8"], r"clip_length: no such key or group in conf/plan\.yaml; nearest: clip_lengths"),
        (["gpu_memory=24GB", "-m"], r"-m: `videogn plan` takes one configuration"),
    ],
)
def test_bad_input_is_one_line(videogn: Callable, overrides: list[str], message: str) -> None:
    assert re.search(message, videogn("plan", *overrides).refusal())


def test_help_comes_without_torch() -> None:
    code = (
        "import sys\nfrom videogn.cli.main import _status\nassert _status(['plan', '--help']) == 0\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "videogn plan model=i3d_r50 gpu_memory=24GB" in done.stdout
    assert done.stderr.split() == ["False"]
