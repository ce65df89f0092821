"""The rules of the architecture that the source can be asked: who imports whom, where heavy libraries live, what conf/ names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE, CONF = ROOT / "videogn", ROOT / "conf"
MODULES = sorted(PACKAGE.rglob("*.py"))
# 'Who may import whom', and what the code needed: the steps of training and prediction read clips through dataset and transform;
# a timeline counts frames by the sampler's rate, and labelled videos and explanations are written; a folder is part of a job's
# name by what a data set finds in it; an exported graph may normalise its clips itself, as transform does.
MAY_IMPORT = {
    "configuration": {"identity"},
    "identity": {"dataset"},
    "norm": {"kernel"},
    "model": {"kernel"},
    "weight": {"model"},
    "preparation": {"dataset", "decoder", "encoder", "sampler"},
    "training": {"dataset", "sampler", "transform", "evaluation"},
    "prediction": {"configuration", "dataset", "transform", "encoder", "sampler", "evaluation", "training", "export"},
    "export": {"evaluation", "transform"},
    "report": {"evaluation", "encoder", "identity"},
    "sweep": {"configuration", "identity"},
}
HOMES = {
    "triton": {"kernel"},
    "decord": {"decoder"},
    "torchcodec": {"decoder"},
    "av": {"decoder", "encoder"},
    "lightning": {"training"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "openvino": {"export"},
    "nncf": {"export"},
    "hydra": {"configuration", "sweep", "cli"},
    "omegaconf": {"configuration", "sweep", "cli"},
    "optuna": {"sweep"},
    "submitit": {"sweep"},
    "fsspec": {"dataset"},
    "matplotlib": {"report"},
    "plotly": {"report"},
}
# torch's and Lightning's classes; but Lightning's CSV logger deletes the metrics of the run that it resumes, torch's
# schedules count steps, which are others at another batch size, its class weights depend on the batch, it has no focal
# loss of a softmax, Lightning's average of weights lies on the CPU, and two of its checkpoints may not watch the same.
LIBRARY_FOLDERS = {"optimizer", "schedule", "loss", "trainer", "logger", "callback"}
EXCEPTIONS = {
    "callback/ema.yaml": "videogn.training.weight_averaging.",
    "callback/keep.yaml": "videogn.training.keep.",
    "logger/csv.yaml": "videogn.training.metrics_file.",
    "logger/mlflow.yaml": "videogn.training.tracking.",
    "logger/wandb.yaml": "videogn.training.tracking.",
    "loss/cross_entropy.yaml": "videogn.training.loss.",
    "loss/focal.yaml": "videogn.training.loss.",
    **{f"schedule/{name}.yaml": "videogn.training.schedule." for name in ("constant", "cosine", "multi_step", "polynomial")},
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names, import_module("...") of a literal included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_stay_within_the_rules(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        library, *rest = name.split(".")
        if library == "videogn" and here not in ("cli", "__main__", "__init__"):
            allowed = {here, "types", "number", "packing", "memory_limit", "whole", "anonymous", "__version__"} | MAY_IMPORT.get(
                here, set()
            )
            assert rest[0] in allowed, f"{path}: {here} may not import {name}"
        assert here in HOMES.get(library, {here}), f"{path}: {library} has its home in {HOMES.get(library)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("path", sorted(CONF.glob("**/*/*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_a_target_lies_in_the_room_of_its_folder(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    name = path.relative_to(CONF).as_posix()
    folder = path.relative_to(CONF).parts[0]
    if folder == "experiment":
        return  # an overlay: its parts are in their own files
    if name == "weight/none.yaml":
        return  # nothing is loaded
    while "_target_" not in content:  # it changes another file of its folder
        base = content.pop("defaults")[0]
        content = yaml.safe_load((path.parent / f"{base}.yaml").read_text(encoding="utf-8")) | content
    target = content["_target_"]
    if name in EXCEPTIONS:
        assert target.startswith(EXCEPTIONS[name])
    elif folder in LIBRARY_FOLDERS:
        assert target.startswith(("torch.", "lightning."))
    else:
        assert target.startswith(f"videogn.{'sweep' if folder == 'hydra' else folder}.")
    for target in targets(content):
        module, _, attribute = target.rpartition(".")
        if module.startswith("videogn."):
            source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
            assert attribute in {n.name for n in ast.parse(source).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}


def test_no_value_key_is_named_like_a_folder() -> None:
    """A mapping may be: the files of the group are merged over it."""
    content = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    keys = {key for key, value in content.items() if not isinstance(value, dict)} - {"defaults", "hydra"}
    assert not keys & {path.name for path in CONF.iterdir() if path.is_dir()}
