"""`videogn export` of a trained run, and what its users do with the artifact."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogn.configuration import CONF

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = ("export.num_clips=3", "export.latency=null")
FORMATS = {"onnx": "m.onnx", "torch_export": "m.pt2", "openvino": "m.xml", "safetensors": "m.safetensors", "hub_folder": "hub"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name breaks careless parsers."""
    folder = tmp_path / "artifacts, with = [odd] {names} #1 'é"
    folder.mkdir()
    return folder


def answers(text: str) -> dict[str, float]:
    return {row["label"]: float(row["probability"]) for row in csv.DictReader(io.StringIO(text))}


def test_every_format_is_tried() -> None:
    assert {path.stem for path in (CONF / "export").glob("*.yaml")} == set(FORMATS)


@pytest.mark.turns
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_taken_like_the_run(videogn: Callable, trained: Path, place: Path, name: str) -> None:
    if name == "openvino":
        pytest.importorskip("openvino", reason="pip install 'videogn[openvino]'")
    artifact = place / FORMATS[name]
    outcome = videogn("export", f"checkpoint={trained}", f"export={name}", f"out={artifact}", *QUICK)
    assert outcome.status == 0, outcome.err
    assert "largest difference to eager on 3 real clips" in outcome.out
    assert outcome.out.splitlines()[-1] == str(artifact)

    video = str(trained.parent / "motion/test/move_up/000.mp4")
    expected = answers(videogn("predict", str(trained), video, "--output", "csv").out)
    if name == "torch_export":
        assert "give --trust" in videogn("predict", str(artifact), video).refusal()
    trust = ["--trust"] if name == "torch_export" else []
    found = answers(videogn("predict", str(artifact), video, "--output", "csv", *trust).out)
    assert list(found) == list(expected)
    # Scores may differ by the tolerance of the proof, and a softmax by no more than its largest score difference.
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-4)

    files = [path for path in place.rglob("*") if path.is_file()]
    assert len(files) == {"openvino": 3, "hub_folder": 3}.get(name, 2)
    for file in files:
        # The part of the path that JSON does not escape.
        assert str(trained.parents[1]).encode() not in file.read_bytes(), file

    if name not in ("safetensors", "hub_folder"):  # weights need the network's code
        check_example(EXAMPLES / f"predict_{name}.py", artifact, video, expected)


@pytest.mark.turns
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler: apt install g++")
def test_native_code_is_taken_like_the_run(videogn: Callable, trained: Path, place: Path) -> None:
    artifact, video = place / "m.pt2", str(trained.parent / "motion/test/move_up/000.mp4")
    outcome = videogn(
        "export", f"checkpoint={trained}", "export=torch_export", "export.aot_inductor=true", f"out={artifact}", *QUICK
    )
    assert outcome.status == 0, outcome.err
    expected = answers(videogn("predict", str(trained), video, "--output", "csv").out)
    check_example(EXAMPLES / "predict_torch_export.py", artifact, video, expected)


def check_example(script: Path, artifact: Path, video: str, expected: dict[str, float]) -> None:
    """What lies in examples/ gives the run's answer without videogn."""
    source = script.read_text(encoding="utf-8")
    assert "import videogn" not in source
    assert 20 <= len(source.splitlines()) <= 40
    done = subprocess.run([sys.executable, script, artifact, video], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    found = {label: float(share.rstrip("%")) / 100 for share, label in rows}
    # Pillow resizes in fixed point and torch in another: pixels differ by one of 255 levels, and the answers by far less than 1%.
    assert found == pytest.approx(expected, abs=0.01)
    assert len(found) == 5


@pytest.mark.turns
def test_evaluate_and_export_take_a_hub_folder(videogn: Callable, trained: Path, place: Path, tmp_path: Path) -> None:
    folder = place / "hub"
    licence = "licence='CC BY 4.0'"
    assert videogn("export", f"checkpoint={trained}", "export=hub_folder", f"out={folder}", licence, *QUICK).status == 0
    data = f"dataset.root={trained.parent}/motion"
    assert videogn("evaluate", f"checkpoint={folder}", data, f"out={tmp_path}/e").status == 0
    one, other = (json.loads((run / "result.json").read_text())["results"] for run in (tmp_path / "e", trained))
    assert one == other
    for command in ("evaluate", "export"):  # which does not know where the videos lie, nor makes some in their place
        refusal = videogn(command, f"checkpoint={folder}", "dataset.flip=0").refusal()
        assert "does not say where the videos lie; give dataset.root=" in refusal
    one, other = tmp_path / "m.onnx", tmp_path / "hub"
    for name, out in (("onnx", one), ("hub_folder", other)):
        outcome = videogn("export", f"checkpoint={folder}", data, f"export={name}", f"out={out}", *QUICK)
        assert outcome.status == 0, outcome.err
    # The licence and the origin are the first export's.
    first, *later = (
        json.loads(path.read_text()) for path in (folder / "config.json", other / "config.json", tmp_path / "m.onnx.json")
    )
    for bundle in (later[0]["videogn"], later[1]):
        assert (bundle["licence"], bundle["run"]) == (first["videogn"]["licence"], first["videogn"]["run"])
    assert bundle["licence"] == "CC BY 4.0"
    assert bundle["run"]["config_hash"] == json.loads((trained / "result.json").read_text())["config_hash"]
    # Its own folder is replaced, another is not.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    arguments = ("export", f"checkpoint={trained}", "export=hub_folder", "export.num_clips=1")
    assert "is no folder of an export, which this would replace" in videogn(*arguments, f"out={tmp_path}/mine").refusal()
    copied = tmp_path / "again"
    shutil.copytree(folder, copied)
    (copied / ".git").touch()  # a clone of the repository
    assert videogn(*arguments, f"out={copied}").status == 0
    assert sorted(path.name for path in copied.iterdir()) == [".git", "README.md", "config.json", "model.safetensors"]
    arguments = ("export", f"checkpoint={folder}", data, "export=hub_folder", "export.num_clips=1")
    assert "is what would be exported" in videogn(*arguments, f"out={folder}").refusal()


@pytest.mark.turns
def test_latency_is_printed(videogn: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogn.export.latency.MAX_RUNS", 3)
    outcome = videogn("export", f"checkpoint={trained}", f"out={tmp_path}/m.onnx", "export.num_clips=1")
    assert outcome.status == 0, outcome.err
    rows = [line.strip("│ ").split("│") for line in outcome.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        [way, threads, batch] for threads in "12" for batch in "18" for way in ("ONNX Runtime", "eager")
    ]


def test_a_failed_proof_leaves_no_file(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"of an export that succeeded, before")
    outcome = videogn("export", f"checkpoint={trained}", f"out={tmp_path}/m.onnx", "export.tolerance=1e-15", "export.num_clips=2")
    assert outcome.status == 1
    assert "not written: ONNX Runtime" in outcome.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_export_refuses(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    run = f"checkpoint={trained}"
    assert "must end in .onnx" in videogn("export", run, f"out={tmp_path}/m.pt").refusal()
    assert "export=onx: not one of hub_folder, onnx" in videogn("export", run, "export=onx").refusal()
    assert "export.opset=17" in videogn("export", run, "export.opset=17").refusal()
    assert "export.dynamic: frames: use some of" in videogn("export", run, "export.dynamic=[frames]").refusal()
    assert "precision" in videogn("export", run, "export.precision=half").refusal()
    assert "export.precision=bf16: ONNX Runtime has no" in videogn("export", run, "export.precision=bf16").refusal()
    (tmp_path / "m.xml").write_text("<net/>")
    assert "a graph, which predict takes" in videogn("export", f"checkpoint={tmp_path}/m.xml").refusal()
    (tmp_path / "m.xml").unlink()
    assert "OnnxExporter: opset=twenty; give a whole number" in videogn("export", run, "export.opset=twenty").refusal()
    (tmp_path / "m.onnx").mkdir()
    assert "is a folder; give a file" in videogn("export", run, f"out={tmp_path}/m.onnx").refusal()
    (tmp_path / "m.onnx").rmdir()
    assert "licence=2: give a text" in videogn("export", run, "licence=2", f"out={tmp_path}/m.onnx").refusal()
    assert "runs on the CPU" in videogn("predict", f"{tmp_path}/m.onnx", "v.mp4", "--device", "cuda:0").refusal()
    assert "no such file" in videogn("predict", str(tmp_path / "no.pt2"), "v.mp4").refusal()
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_inside_and_a_fixed_batch(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    words = (
        "export.include_preprocessing=true",
        "export.dynamic=[]",
        "export.batch_size=4",
        "export.latency=null",
        "export.num_clips=3",
    )
    assert videogn("export", f"checkpoint={trained}", f"out={tmp_path}/m.onnx", *words).status == 0
    video = str(trained.parent / "motion/test/move_up/000.mp4")
    one, other = (answers(videogn("predict", str(m), video, "--output", "csv").out) for m in (trained, tmp_path / "m.onnx"))
    assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-4)


@pytest.mark.turns
def test_a_signal_leaves_nothing_half(trained: Path, tmp_path: Path) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-m", "videogn", "export", f"checkpoint={trained}", f"out={tmp_path}/m.onnx"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals) as process:
            while not list(tmp_path.glob(".videogn-*")):  # where it writes what is not finished
                time.sleep(0.02)
                assert process.poll() is None
            process.send_signal(signum)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + signum, said
        assert list(tmp_path.iterdir()) == []
        assert "Traceback" not in said


def default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


def test_a_checkpoint_without_preprocessing(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoint" / "last.ckpt", weights_only=True)
    del content["videogn"]["config"]["mean"]
    torch.save(content, tmp_path / "x.ckpt")
    assert "its configuration has no mean" in videogn("export", f"checkpoint={tmp_path}/x.ckpt").refusal()
