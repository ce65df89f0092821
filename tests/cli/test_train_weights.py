"""`videogn train weight=...`: from a run to a run, and what a user can get wrong."""

from __future__ import annotations

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
    ],
)
def test_bad_input_is_one_line_and_no_folder(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    filled = [a.format(junk=tmp_path / "junk.pth", trained=trained) for a in arguments]
    outcome = videogn("train", *tiny, f"dataset.root={trained.parent}/motion", *filled, f"out={tmp_path}/run")
    assert outcome.status == 2
    assert message in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()
