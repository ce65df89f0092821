"""`videogn train weight=...`: from a run to a run, and what a user can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch


def state(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoint" / "last.ckpt", map_location="cpu", weights_only=True)
    return {name.removeprefix("network."): value for name, value in content["state_dict"].items() if name.startswith("network.")}


def test_a_run_goes_on_from_another(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """The same classes: the head comes along. What is frozen is what it was, and the rest has moved."""
    data = f"dataset.root={trained.parent}/motion"
    outcome = videogn(
        "train",
        *tiny,
        data,
        "weight=run",
        f"weight.path={trained}",
        "weight.freeze=stem,res2",
        "weight.layer_decay=0.5",
        f"out={tmp_path}/run",
    )
    assert outcome.status == 0, outcome.err
    report = (tmp_path / "run" / "weight.txt").read_text(encoding="utf-8")
    assert report in outcome.err
    assert "of which" in outcome.err
    before, after = state(trained), state(tmp_path / "run")
    assert report.splitlines()[-1].endswith("loaded; 100.0% of the backbone's parameters")
    assert "head" in report
    for name, value in after.items():
        frozen = name.startswith(("trunk.conv1", "trunk.norm1", "trunk.res2."))
        assert torch.equal(value, before[name]) == frozen, name


def test_a_resumed_run_keeps_what_was_frozen(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """And reads the weights' file no more: it may be gone."""
    data = f"dataset.root={trained.parent}/motion"
    source = tmp_path / "first.ckpt"
    source.write_bytes((trained / "checkpoint" / "last.ckpt").read_bytes())
    run = tmp_path / "run"
    common = ["train", *tiny, data, "weight=run", f"weight.path={source}", "weight.freeze=2", f"out={run}"]
    assert videogn(*common).status == 0
    source.unlink()
    (run / "result.json").unlink()
    outcome = videogn("train", f"resume={run}")
    assert outcome.status == 0, outcome.err
    before, after = state(trained), state(run)
    assert torch.equal(before["trunk.res2.0.conv1.weight"], after["trunk.res2.0.conv1.weight"])


@pytest.mark.turns
def test_frozen_statistics_stay_on_two_devices_and_where_others_are_taken_anew(
    tiny: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run"]
    settings = ["norm=batch_norm", "norm.precise_batches=2", "weight.freeze=2", "batch_size=2"]
    devices = ["trainer.accelerator=cpu", "trainer.devices=2"]
    done = subprocess.run(
        [*command, *settings, *devices],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    means = {name: value for name, value in state(tmp_path / "run").items() if name.endswith("running_mean")}
    moved = {name.split(".")[1] for name, value in means.items() if value.any()}
    assert moved == {"res3", "res4"}  # and norm1 and those of res2 are as they began


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weight=nope"], "weight=nope: not one of detectron, groupnorm_reproduce, mmaction"),
        (["weight=run"], "weight.path: needed"),
        (["weight=run", "weight.path="], "weight.path=: the path is empty"),
        (["weight=torchvision", "weight.path=no such, file.pth"], "no such, file.pth: no such file; correct weight.path"),
        (["weight=torchvision", "weight.path={junk}"], "junk.pth: cannot be read as a torch file of arrays"),
        (["weight=torchvision", "weight.file=resnet17"], "weight.file=resnet17; use one of r2plus1d_18"),
        (["weight=run", "weight.path={trained}", "model=r3d_18"], "of another depth: 1 blocks in res2, and the model has 2"),
        (["weight.freeze=res9"], "weight.freeze: no stage or layer 'res9'; the stages are stem, res2, res3, res4, head"),
        (["weight.freeze=9"], "weight.freeze=9; the network has 5 stages"),
        (["weight.layer_decay=-1"], "weight.layer_decay=-1; give a positive number"),
        (["weight.layer_decay=1e308"], "weight.layer_decay=1e+308 makes a factor of"),
        (["weight=run", "weight.path={trained}", "weight.copy_affine=no"], "Run: copy_affine=no; give true or false"),
        (["weight=run", "weight.path={trained}", "weight.strict=off"], "Run: strict=off; give true or false"),
        (["weight=torchvision", "weight.path=3"], "3: no such file; correct weight.path"),
        (["weight=torchvision", "weight.path=[a]"], "Torchvision: path=['a']; give a text or null"),
        (["weight=torchvision", "weight.cache=~no-such-user/x"], "~no-such-user/x: no home folder is known"),
        (["weight=torchvision", "+weight.files.x={{sha256:12345678}}"], "weight.files.x={{'sha256': 12345678}}; give"),
    ],
)
def test_bad_input_is_one_line_and_no_folder(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    filled = [a.format(junk=tmp_path / "junk.pth", trained=trained) for a in arguments]
    outcome = videogn("train", *tiny, f"dataset.root={trained.parent}/motion", *filled, f"out={tmp_path}/run")
    assert outcome.status == 2
    assert message.replace("{{", "{").replace("}}", "}") in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert not (tmp_path / "run").exists()


def test_a_file_that_was_fetched_and_cannot_be_read_is_named_and_fetched_again(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    """No hash is published of it, and the connection may have ended early without a word."""
    source = tmp_path / "net.pth"
    command = ["train", *tiny, f"dataset.root={trained.parent}/motion", "weight=torchvision", "weight.strict=false"]
    command += [
        f"+weight.files.x={{url:'file://{source}'}}",
        "weight.file=x",
        f"weight.cache={tmp_path}/cache",
        f"out={tmp_path}/run",
    ]
    state = {"conv1.weight": torch.zeros(16, 3, 7, 7)}
    torch.save(state, source)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    outcome = videogn(*command)
    message = outcome.err.splitlines()[-1]  # above it is the bar of the fetch
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert message.endswith("It was fetched: remove it, and the same command fetches it again")
    (cached,) = (tmp_path / "cache").rglob("net.pth")
    assert str(cached) in message
    source.write_bytes(whole)
    assert videogn(*command).refusal() == message
    cached.unlink()
    outcome = videogn(*command)
    assert outcome.status == 0, outcome.err
    # A file that can be read and does not fit is what it is: fetching it again would not help.
    assert "It was fetched" not in videogn(*command, "weight.strict=true", "out=other").refusal()
    message = videogn(*command, f"weight.path={cached.with_name('no.pth')}").refusal()
    assert "It was fetched" not in message
