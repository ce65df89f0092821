"""The wheel alone: conf/ and class names inside it, nothing but videogn in site-packages, a training from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # The build backend is in the dev extra, so nothing is downloaded.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_holds_the_package_its_conf_and_class_names_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"videogn"}
    expected = {f"videogn/{file.relative_to(REPOSITORY).as_posix()}" for file in (REPOSITORY / "conf").rglob("*.yaml")}
    expected |= {f"videogn/data/{file.name}" for file in (REPOSITORY / "data").glob("*.txt")}
    expected |= {
        file.relative_to(REPOSITORY).as_posix()
        for file in (REPOSITORY / "videogn").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= names
    assert not [name for name in names if "test" in name.lower()]


@pytest.mark.turns
def test_trains_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The libraries come from the environment of this test; videogn, found first, from the wheel. .ci/run installs them anew.
    (packages,) = environment.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    work = tmp_path / "work"
    work.mkdir()
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = subprocess.run(
        [python, "-c", "import videogn; print(videogn.__file__)"],
        cwd=work,
        env=variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    small = ["epochs=1", "dataset.num_train=2", "dataset.num_val=1", "dataset.num_test=1", "num_workers=0", "batch_size=4"]
    run = subprocess.run([python, "-m", "videogn", "train", *small], cwd=work, env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (result,) = work.glob("runs/train/motion_resnet3d_tiny_group_norm/*/result.json")
    assert json.loads(result.read_text())["status"] == "done"
