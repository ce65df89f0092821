"""Which jobs a command line and an experiment make, and what names a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from videogn.configuration import compose
from videogn.sweep.grid import _cases, _params, check_apart, combinations, job_of, sweep_folder
from videogn.sweep.job import Job
from videogn.sweep.word import word_of
from videogn.types import InputError


class Context:
    """As much of Hydra's as parsing needs."""

    config_loader = None


def jobs(*overrides: str, params: tuple[str, ...] = (), cases: tuple[dict[str, str], ...] = ()) -> list[list[str]]:
    groups = ("norm", "weight", "conv")
    return combinations(Context(), list(overrides), params, cases, groups)  # pyright: ignore[reportArgumentType]


def experiment(name: str) -> tuple[dict[str, str], ...]:
    content = yaml.safe_load((Path(__file__).parents[2] / f"conf/experiment/{name}.yaml").read_text())
    return tuple({key: word_of(value) for key, value in case.items()} for case in content["cases"])


def test_every_combination_the_last_key_fastest() -> None:

    assert jobs("norm=a,b", "seed=range(0,2)", "epochs=1") == [
        ["norm=a", "seed=0", "epochs=1"],
        ["norm=a", "seed=1", "epochs=1"],
        ["norm=b", "seed=0", "epochs=1"],
        ["norm=b", "seed=1", "epochs=1"],
    ]


def test_the_command_line_replaces_what_an_experiment_varies() -> None:
    assert jobs("seed=7", params=("seed=0,1,2", "batch_size=2,4")) == [["seed=7", "batch_size=2"], ["seed=7", "batch_size=4"]]
    pairs = (("32", "8"), ("32", "4"), ("64", "4"))
    cases = tuple({"clip_length": length, "batch_size": size} for length, size in pairs)
    assert jobs("norm=a", cases=cases) == [["norm=a", f"clip_length={length}", f"batch_size={size}"] for length, size in pairs]
    # Without the batch size, the first two cases are one.
    assert jobs("batch_size=1", cases=cases) == [["batch_size=1", "clip_length=32"], ["batch_size=1", "clip_length=64"]]


def test_a_file_of_a_group_chooses_among_the_cases() -> None:
    """Every group norm of table 8 starts from group norm's weights, and from no other's."""
    cases = experiment("table_8")
    for norms in (["group_norm"], ["batch_norm"], ["batch_norm", "group_norm"]):
        found = [dict(word.split("=") for word in job) for job in jobs(f"norm={','.join(norms)}", cases=cases)]
        assert found == [case for case in cases if case["norm"] in norms]
    (none,) = jobs("norm=none", cases=experiment("norm_family"))
    assert set(none) == {"norm=none", "base_lr=0.025", "model.zero_init=false", "conv.bias=true"}
    # Every lr is tried with every norm, also where some case has it: it is a value, and no file.
    lrs = jobs("base_lr=0.1,0.2", cases=experiment("batch_size"))
    assert len({tuple(job) for job in lrs}) == len(lrs) == 2 * 5
    # conv is not every case's: it stands beside what they say.
    assert len(jobs("conv=weight_standardized", cases=({"norm": "a"}, {"norm": "b", "conv": "weight_standardized"}))) == 2


@pytest.mark.parametrize(("name", "other"), [("table_8", "weight"), ("batch_size", "base_lr"), ("norm_family", "base_lr")])
def test_a_norm_of_no_case_is_not_trained_with_the_values_of_others(name: str, other: str) -> None:
    with pytest.raises(
        InputError, match=rf"norm=mine: no case of the experiment has it, and {other} follows norm there; give batch_norm, "
    ):
        jobs("norm=group_norm,mine", cases=experiment(name))
    cases = ({"norm": "a", "seed": "0"}, {"norm": "b", "seed": "0"})
    assert jobs("norm=mine", cases=cases) == [["norm=mine", "seed=0"]]


@pytest.mark.parametrize("value", [None, True, 3, 1e-5, "stem,res2", "a b", "it's", [1, "x,y"], {"hue": 0.1}], ids=str)
def test_a_case_is_read_as_it_was_written(value: Any) -> None:
    """As by YAML, and not as a sweep, or as the text 'None'."""
    config = OmegaConf.create({"cases": [{"key": value}], "hydra": {"sweeper": {"params": {"key": value}}}})
    (case,) = _cases(config)
    words = [f"key={case['key']}", *([] if isinstance(value, str) else _params(config))]
    for word in words:
        override = OverridesParser.create().parse_override(word)
        assert not override.is_sweep_override()
        assert override.value() == value
    config.hydra.sweeper.params.key = "2,4"
    assert _params(config) == ["key=2,4"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["sweep=2024", "seed=0,1"], "2024"),
        (["sweep=0", "seed=0,1"], "0"),
        (["sweep=a", "seed=0,1"], "a"),
        (["seed=0,1", "norm=group_norm,batch_norm", "batch_size=range(2,4)"], "seed_norm_batch_size"),
        (["evaluation=[one_clip,ten_clip]", "seed=0,1", "train_short_side=[32,36]"], "seed"),
        (["seed=0"], "single"),
    ],
)
def test_the_folder_of_a_sweep(overrides: list[str], name: str) -> None:
    """A number is a name too; a list is one value."""
    config = OmegaConf.create({"sweep": None, "hydra": {"runtime": {"choices": {}}}})
    if overrides[0].startswith("sweep="):
        config.sweep = OverridesParser.create().parse_override(overrides[0]).value()
    assert sweep_folder(config, overrides) == Path("runs/sweep") / name  # pyright: ignore[reportArgumentType]


def test_two_jobs_of_one_name_must_not_differ_in_where_they_run() -> None:
    """The last would win, and the other be missed by nobody."""
    one, two = (Job(["seed=0", f"trainer.devices={n}"], Path("s/a")) for n in (1, 2))
    with pytest.raises(
        InputError,
        match=r"seed=0 trainer.devices=1 and seed=0 trainer.devices=2: are one training; trainer.devices says",
    ):
        check_apart([one, two])
    check_apart([one, Job(["seed=1"], Path("s/b")), Job(["seed=0", "trainer.devices=1"], Path("s/a"))])
    check_apart([one, Job(["seed=0", "trainer.devices=1", "norm=group_norm"], Path("s/a"))])


def test_a_job_is_named_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    """Two roots with the same videos are one job, and two jobs when a video differs; machine, output and case do not count."""

    def folder(name: str, size: int) -> Path:
        for label in ("run", "walk"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(3):
                (tmp_path / name / label / f"{number}.mp4").write_bytes(bytes(size))
        return tmp_path / name

    def name(*overrides: str, root: Path) -> str:
        config = compose("train", ["dataset=class_folder", f"dataset.root={root}", *overrides])
        return job_of(config, overrides, tmp_path / "sweep").folder.name

    first = name(root=folder("first", 10))
    assert name(root=folder("second", 10)) == first
    assert name(root=folder("third", 11)) != first
    for same in (
        "num_workers=0",
        "out=x",
        "sweep=y",
        "trainer.devices=2",
        "report_videos=0",
        "cases=[{seed: 3}]",
        "search={num_trials: 3}",
    ):
        assert name(same, root=tmp_path / "first") == first, same
    for other in ("seed=1", "norm=batch_norm", "base_batch_size=8", "batch_composition=one_class", "epochs=21"):
        assert name(other, root=tmp_path / "first") != first, other
