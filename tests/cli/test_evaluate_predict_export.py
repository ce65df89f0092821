"""A trained run, tested again, asked, and carried away."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.evaluation.result import read_result
from videogn.training.checkpoint import read_checkpoint
from videogn.types import Stopped

# A test that says when it has begun, and does not end by itself.
SLOW = """
import sys, time
from videogn.cli.main import main
from videogn.training.classifier import VideoClassifier
VideoClassifier.test_step = lambda *arguments: (print("scoring", file=sys.stderr, flush=True), time.sleep(60))
main()
"""


def default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


def stopped_while_scoring(command: Sequence[str], signum: signal.Signals) -> list[str]:
    """What a command says that is sent a signal once it scores; its status is that of the signal."""
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "scoring" in line:
                process.send_signal(signum)
        assert process.wait(120) == 128 + signum, said
    return said


def results(folder: Path) -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads((folder / "result.json").read_text())["results"]}


def test_evaluate_gives_the_figures_of_the_training(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    assert videogn("evaluate", f"checkpoint={trained}", "evaluation=ten_clip", f"out={tmp_path}/e").status == 0
    assert results(tmp_path / "e") == results(trained)
    kept = yaml.safe_load((tmp_path / "e" / "config.yaml").read_text(encoding="utf-8"))
    assert kept["checkpoint"] == f"{trained}/checkpoint/last.ckpt"
    assert kept["model"] == yaml.safe_load((trained / "config.yaml").read_text(encoding="utf-8"))["model"]
    one, other = (np.load(folder / "scores.npz")["ten_clip/logits"] for folder in (trained, tmp_path / "e"))
    assert np.array_equal(one, other)


def test_only_what_is_given_replaces_what_is_stored(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved, videos"
    shutil.copytree(trained.parent / "motion", moved)
    overrides = ["evaluation=[one_clip,ten_clip,thirty_view]", "decoder=pyav", f"dataset.root={moved}"]
    overrides += ["evaluation.thirty_view.aggregation=max"]
    assert videogn("evaluate", f"checkpoint={trained}/checkpoint/last.ckpt", *overrides, f"out={tmp_path}/e").status == 0
    found = results(tmp_path / "e")
    assert list(found) == ["one_clip", "ten_clip", "thirty_view"]
    assert found["thirty_view"]["protocol"] == {**found["ten_clip"]["protocol"], "crops": 3, "aggregation": "max"}
    assert found["one_clip"]["protocol"] == {**found["ten_clip"]["protocol"], "num_clips": 1}
    assert found["ten_clip"]["protocol"]["decoder"] == "pyav"
    assert found["ten_clip"]["protocol_hash"] != results(trained)["ten_clip"]["protocol_hash"]


@pytest.mark.turns
def test_scores_do_not_depend_on_processes_workers_or_batch_size(
    videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven videos, one of them dead, of several lengths, which neither processes nor batches divide."""
    root = trained.parent / "motion"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "videos").mkdir()
    lines = ["path,label,split"]
    for number, label in enumerate(sorted(path.name for path in (root / "test").iterdir())):
        frames = PyAVDecoder().open(root / "test" / label / "000.mp4").frames(range(3 + 4 * number))
        write_video(tmp_path / "videos" / f"{number}.mp4", iter(frames), 10)
        lines.append(f"{number}.mp4,{label},test")
    (tmp_path / "videos" / "dead.mp4").write_bytes(b"no video")
    (tmp_path / "test.csv").write_text("\n".join([*lines[:4], f"dead.mp4,{label},test", *lines[4:]]))
    command = [
        sys.executable,
        "-m",
        "videogn",
        "evaluate",
        f"checkpoint={trained}",
        "evaluation=[one_clip,ten_clip,thirty_view,dense]",
    ]
    command += ["dataset=manifest", f"dataset.path={tmp_path}/test.csv", f"dataset.root={tmp_path}/videos"]
    ways = {
        "one": [],
        "two": ["trainer.accelerator=cpu", "trainer.devices=2"],
        "workers": ["num_workers=2"],
        "batch": ["batch_size=31"],
    }
    for name, overrides in ways.items():
        done = subprocess.run([*command, *overrides, f"out={tmp_path}/{name}"], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    expected = results(tmp_path / "one")
    scores = {name: dict(np.load(tmp_path / name / "scores.npz")) for name in ways}
    # 3, 7, 11, then the dead one, 15, 19, ... frames; a clip spans 7, and the next begins 8 later.
    assert scores["one"]["dense/num_views"].tolist() == [1, 1, 2, 0, 2, 3, 3, 4, 4, 5, 5]
    for name in ("two", "workers"):
        assert results(tmp_path / name) == expected
        for key, values in scores["one"].items():
            assert np.array_equal(scores[name][key], values, equal_nan=key.endswith("logits"))
    other = results(tmp_path / "batch")
    for name, entry in expected.items():
        assert [video["path"] for video in entry["dead_videos"]] == [f"{tmp_path}/videos/dead.mp4"]
        # Convolutions of another batch size sum in another order: fp32, a network of a few layers, logits of about 1.
        a, b = (scores[way][f"{name}/logits"] for way in ("one", "batch"))
        np.testing.assert_allclose(a, b, atol=1e-4)
        assert other[name]["metrics"]["top1"] == entry["metrics"]["top1"]


@pytest.mark.turns
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_test_that_is_told_to_stop(trained: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """Lightning alone ends with status 0 or 1, without a word."""
    command = [sys.executable, "-c", SLOW, "evaluate", f"checkpoint={trained}", "evaluation=one_clip", f"out={tmp_path}/e"]
    said = stopped_while_scoring(command, signum)
    assert said[-1] == "videogn: stopped: the test is not finished and left no result; give the same command again\n"
    assert not (tmp_path / "e" / "result.json").exists()


@pytest.mark.turns
def test_the_test_of_a_training_that_is_told_to_stop(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "one, two = #3"
    command = [sys.executable, "-c", SLOW, "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={out}"]
    said = stopped_while_scoring(command, signal.SIGTERM)
    assert said[-1].startswith("videogn: stopped: trained, and not tested; go on with: ")
    assert shlex.split(said[-1])[-3:] == ["videogn", "train", f"resume={out}"]
    assert (out / "checkpoint" / "last.ckpt").is_file()
    assert not (out / "result.json").exists()


def test_a_value_that_would_reach_nothing_is_refused(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    message = videogn("evaluate", f"checkpoint={trained}", "test_short_side=40").refusal()
    assert "test_short_side: laid down in" in message
    assert "choose the protocol anew with it: evaluation=NAME" in message
    assert "epochs: laid down in" in videogn("train", f"resume={trained}", "epochs=9").refusal()
    anew = videogn("evaluate", f"checkpoint={trained}", "evaluation=one_clip", "test_short_side=40", f"out={tmp_path}/e")
    assert anew.status == 0, anew.err
    assert results(tmp_path / "e")["one_clip"]["protocol"]["short_side"] == 40


def test_evaluate_refuses(videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "checkpoint: needed; give it as checkpoint=VALUE" in videogn("evaluate").refusal()
    assert "checkpoint=: the path is empty" in videogn("evaluate", "checkpoint=").refusal()
    assert "batch_size=0: give a whole number" in videogn("evaluate", f"checkpoint={trained}", "batch_size=0").refusal()
    assert "num_workers=-1: give a whole number" in videogn("evaluate", f"checkpoint={trained}", "num_workers=-1").refusal()
    (tmp_path / "text.ckpt").write_text("export PATH=/bin:$PATH\n# a shell script\n")
    assert "damaged or of another program" in videogn("evaluate", f"checkpoint={tmp_path}/text.ckpt").refusal()
    (tmp_path / "noise.ckpt").write_bytes(np.random.default_rng(0).bytes(3000))
    assert "damaged or of another program" in videogn("evaluate", f"checkpoint={tmp_path}/noise.ckpt").refusal()
    whole = (trained / "checkpoint/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "damaged or of another program" in videogn("evaluate", f"checkpoint={tmp_path}/cut.ckpt").refusal()
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "foreign.ckpt")
    assert "a checkpoint of another program" in videogn("evaluate", f"checkpoint={tmp_path}/foreign.ckpt").refusal()
    for label in ("a", "b"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        (tmp_path / "videos" / label / "1.mp4").touch()
    other = videogn("evaluate", f"checkpoint={trained}", "dataset=class_folder", f"dataset.root={tmp_path}/videos")
    assert "its 2 classes are not the 10 of" in other.refusal()
    data = ["dataset=manifest", f"dataset.path={tmp_path}/m.csv", f"dataset.root={trained.parent}/motion"]
    labels = sorted(path.name for path in (trained.parent / "motion" / "test").iterdir())
    for split, message in (("train", "no video in split test or val"), ("test", "no video in split train")):
        (tmp_path / "m.csv").write_text("\n".join(["path,label,split", *(f"test/{n}/000.mp4,{n},{split}" for n in labels)]))
        command = ["evaluate", f"checkpoint={trained}"] if split == "train" else ["train"]
        assert message in videogn(*command, *data).refusal()
    assert not (tmp_path / "runs").exists()


def test_evaluate_does_not_replace_the_result_of_a_training(videogn: Callable, trained: Path) -> None:
    before = (trained / "result.json").read_bytes()
    assert (
        "holds a training, whose result this would replace"
        in videogn("evaluate", f"checkpoint={trained}", f"out={trained}").refusal()
    )
    assert (trained / "result.json").read_bytes() == before


def test_being_stopped_is_no_damage(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers catch whatever a damaged file brings about; not the signal that comes while they read."""

    def stop(*arguments: object, **options: object) -> None:
        raise Stopped(signal.SIGTERM, "stopped")

    monkeypatch.setattr(torch, "load", stop)
    with pytest.raises(Stopped):
        read_checkpoint(trained)
    monkeypatch.setattr(np, "load", stop)
    with pytest.raises(Stopped):
        read_result(trained)


@pytest.mark.parametrize(
    "poison",
    [
        {"norm": {"_target_": "os.system", "command": "touch SENTINEL"}},
        {"model": {"deep": [{"_target_": "subprocess.check_call", "args": ["touch", "SENTINEL"]}]}},
        {"decoder": {"_target_": "lightning.pytorch.callbacks.model_checkpoint.os.system", "command": "touch SENTINEL"}},
        {"evaluation": {"x": {"_target_": "hydra.utils.get_method", "path": "os.system"}}},
        {"hydra": {"callbacks": {"x": {"_target_": "os.system", "command": "touch SENTINEL"}}}},
        {"norm": {"_target_": ["os.system"], "command": "touch SENTINEL"}},
        {"defaults": ["norm: batch_norm"]},
        {"mean": ["${oc.env:HOME}"]},
    ],
)
def test_a_checkpoint_cannot_name_what_conf_does_not(
    videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: dict
) -> None:
    monkeypatch.chdir(tmp_path)
    content = torch.load(trained / "checkpoint" / "last.ckpt", weights_only=True)
    content["videogn"]["config"].update(poison)
    torch.save(content, tmp_path / "poisoned.ckpt")
    for command in (
        ["evaluate", f"checkpoint={tmp_path}/poisoned.ckpt"],
        ["predict", "poisoned.ckpt", "x.mp4"],
        ["export", f"checkpoint={tmp_path}/poisoned.ckpt"],
        ["train", f"resume={tmp_path}/poisoned.ckpt"],
    ):
        assert "poisoned.ckpt" in videogn(*command).refusal()
    assert {path.name for path in tmp_path.iterdir()} == {"poisoned.ckpt"}


def test_a_configuration_that_lacks_a_part(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoint" / "last.ckpt", weights_only=True)
    for change, message in (
        ({"evaluation": {}}, "no protocol"),
        (
            {"norm": {"_target_": "videogn.norm.group_norm.GroupNorm", "_partial_": True, "_args_": ["a", "b"]}},
            "model, norm, conv: ",
        ),
        ({"model": None}, "has no model; it is damaged"),
    ):
        config = {key: value for key, value in {**content["videogn"]["config"], **change}.items() if value is not None}
        torch.save({**content, "videogn": {**content["videogn"], "config": config}}, tmp_path / "x.ckpt")
        for command in (["evaluate", f"checkpoint={tmp_path}/x.ckpt"], ["predict", f"{tmp_path}/x.ckpt", "x.mp4"]):
            assert message in videogn(*command).refusal()


def test_a_pickle_is_not_run(videogn: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Payload:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "SENTINEL",))

    torch.save({"videogn": Payload()}, tmp_path / "x.ckpt")
    assert "damaged or of another program" in videogn("evaluate", f"checkpoint={tmp_path}/x.ckpt").refusal()
    assert not (tmp_path / "SENTINEL").exists()


@pytest.mark.turns
def test_whole_frames_are_tested_and_not_exported(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    outcome = videogn("evaluate", f"checkpoint={trained}", "evaluation=[fully_convolutional,thirty_view]", f"out={tmp_path}/out")
    assert outcome.status == 0, outcome.err
    whole, crops = (entry["protocol"] for entry in json.loads((tmp_path / "out" / "result.json").read_text())["results"])
    assert (whole["crop_size"], whole["crops"], whole["short_side"]) == (None, 1, 34)
    assert (crops["crop_size"], crops["crops"], crops["short_side"]) == (32, 3, 34)
    arguments = ("export", f"checkpoint={trained}", f"out={tmp_path}/m.onnx")
    refusal = videogn(*arguments, "evaluation=fully_convolutional").refusal()
    assert "evaluation: fully_convolutional scores whole frames, of any shape" in refusal
    assert refusal.endswith("give it a protocol with crops: evaluation=ten_clip")
    # Its remedy works.
    outcome = videogn(*arguments, "evaluation=ten_clip", "export.num_clips=2")
    assert outcome.status == 0, outcome.err
