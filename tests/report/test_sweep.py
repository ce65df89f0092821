"""The report of a sweep against figures counted by hand and by numpy."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from videogn.evaluation.replicates import summary
from videogn.report.published import TABLES, tables
from videogn.report.sweep import _cell, write_sweep
from videogn.report.swept import ERROR, SweptJob, grids, telling, varying

EXPERIMENTS = Path(__file__).parents[2] / "conf/experiment"
Jobs = Callable[..., list[SweptJob]]
STUDY = {"norm": ["batch_norm", "group_norm"], "batch_size": ["16", "2", "4"], "seed": ["0", "1", "2"]}


def test_errors_over_the_batch_size(sweep_jobs: Jobs) -> None:
    """Seeds are repetitions, places are in the order of numbers, and a cell is numpy's mean."""
    jobs = sweep_jobs(STUDY)
    (grid,) = grids(jobs)
    assert (grid.axis, grid.places, list(grid.series)) == ("batch_size", ("2", "4", "16"), STUDY["norm"])
    found = grid.summaries(ERROR)
    for norm in STUDY["norm"]:
        for place in grid.places:
            tops = [j.metric("top1") for j in jobs if j.values["norm"] == norm and j.values["batch_size"] == place]
            errors = 100 * (1 - np.array(tops, float))
            one = found[norm][place]
            assert one.num == 3
            assert one.mean == pytest.approx(errors.mean())
            assert one.half_width == pytest.approx(4.303 * errors.std(ddof=1) / np.sqrt(3))


def test_only_finished_jobs_count(sweep_jobs: Jobs) -> None:
    """A job that runs has a val score already: that of a few epochs."""
    jobs = sweep_jobs({"norm": ["a", "b"], "batch_size": ["2", "4"]})
    jobs[0] = replace(jobs[0], state="running", result=None)
    (grid,) = grids(jobs)
    for quantity in (ERROR, replace(ERROR, read=lambda job: job.validation["top1"])):
        assert {name: list(places) for name, places in grid.summaries(quantity).items()} == {"a": ["4"], "b": ["2", "4"]}


def test_an_lr_that_follows_the_norm_is_neither_an_axis_nor_a_name(sweep_jobs: Jobs) -> None:
    norms = {"norm": ["batch_norm", "layer_norm", "ln"], "batch_size": ["2", "4"]}
    (grid,) = grids(sweep_jobs(norms, lambda values: {"base_lr": str(len(values["norm"]))}))
    assert (grid.axis, list(grid.series)) == ("batch_size", ["batch_norm", "layer_norm", "ln"])


@pytest.mark.parametrize("name", [path.stem for path in EXPERIMENTS.glob("*.yaml") if "\ncases:" in path.read_text()])
def test_every_line_of_an_experiment_has_the_name_of_its_norm(name: str, sweep_jobs: Jobs) -> None:
    """Also where another key says the same, as the weights and the frame stride do in table 8."""
    content = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())
    cases = [{key: str(value) for key, value in case.items()} for case in content["cases"]]
    varied = {key: str(values).split(",") for key, values in content["hydra"]["sweeper"]["params"].items()}
    jobs = [job for case in cases for job in sweep_jobs(varied, lambda values, case=case: case)]
    for grid in grids(jobs):
        for line, places in grid.series.items():
            for key in ("norm", "clip_length"):
                own = {job.values.get(key) for repeated in places.values() for job in repeated}
                if len({case.get(key) for case in cases}) > 1:
                    (value,) = own
                    assert re.search(rf"(^|=|, ){value}\b", line)


def test_an_lr_that_is_swept_is_the_axis(sweep_jobs: Jobs) -> None:
    (grid,) = grids(sweep_jobs({"norm": ["a", "b"], "base_lr": ["0.2", "0.05"]}))
    assert (grid.axis, grid.places) == ("base_lr", ("0.05", "0.2"))


def test_groups_and_channels_a_group_are_two_axes(sweep_jobs: Jobs) -> None:
    jobs = [*sweep_jobs({"norm.num_groups": ["1", "32", "8"]}), *sweep_jobs({"norm.channels_per_group": ["4", "2"]})]
    first, second = grids(jobs)
    assert (first.axis, first.places) == ("norm.num_groups", ("1", "8", "32"))
    assert (second.axis, second.places) == ("norm.channels_per_group", ("2", "4"))
    assert list(first.series) == list(second.series) == ["all"]


def test_where_and_how_a_job_runs_is_no_difference(sweep_jobs: Jobs) -> None:
    where = {"num_workers": ["0", "1"], "hydra.launcher.num_parallel": ["1", "2"], "sweep": ["x", "y"], "cases": ["[]", "null"]}
    jobs = sweep_jobs({"norm": ["a", "b"], **where})
    assert varying(jobs) == ["norm"]
    assert telling(jobs, ["norm", "num_workers"]) == ["norm", "num_workers"]


def test_a_job_of_the_same_words_repeats_nothing(sweep_jobs: Jobs, tmp_path: Path) -> None:
    """Three seeds that were trained twice, the second time on one video more, are three repetitions: those of the second time."""
    older, newer = (sweep_jobs({"norm": ["a"], "batch_size": ["2"], "seed": ["0", "1", "2"]}) for _ in range(2))
    newer = [replace(job, identity=f"new{number}", values={**job.values, "num_workers": "0"}) for number, job in enumerate(newer)]
    other = replace(older[0], identity="other", values={**older[0].values, "batch_size": "4"})
    for order in ([*older, *newer, other], [*older, other, *newer]):
        (grid,) = grids(order)
        assert list(grid.series["all"]["2"]) == newer
        write_sweep(tmp_path, "x", order)
        assert "Beware: 3 jobs are left out: they are of older data, " in (tmp_path / "report.md").read_text()
    write_sweep(tmp_path, "x", [*newer, other])
    assert "Beware" not in (tmp_path / "report.md").read_text()


def test_the_papers_tables() -> None:
    """Wu & He 2018: what falls where batches shrink is batch norm, and one group and one channel a group are LN and IN."""
    # Tables 2 and 3 as they are printed, the largest first.
    printed = {
        ("batch_size", "batch_norm"): ("32 16 8 4 2", "23.6 23.7 24.8 27.3 34.7"),
        ("batch_size", "group_norm"): ("32 16 8 4 2", "24.1 24.2 24.0 24.2 24.1"),
        ("norm.num_groups", "group_norm"): ("64 32 16 8 4 2 1", "24.6 24.1 24.6 24.4 24.6 24.7 25.3"),
        ("norm.channels_per_group", "group_norm"): ("64 32 16 8 4 2 1", "24.4 24.5 24.2 24.3 24.8 25.6 28.4"),
    }
    for (axis, norm), (places, errors) in printed.items():
        assert tables(axis)[0].lines[norm] == dict(zip(places.split(), map(float, errors.split()), strict=True))
    imagenet = tables("batch_size")[0].lines
    assert imagenet["batch_norm"]["2"] - imagenet["group_norm"]["2"] == pytest.approx(10.6)  # the abstract's 10.6% lower error
    assert tables("base_lr") == []
    kinetics = tables("batch_size")[1].lines
    top1 = {name: {place: round(100 - error, 1) for place, error in line.items()} for name, line in kinetics.items()}
    assert top1 == {
        "batch_norm, 32 frames": {"4": 72.1, "8": 73.3},
        "group_norm, 32 frames": {"4": 72.8, "8": 73.0},
        "batch_norm, 64 frames": {"4": 73.3},
        "group_norm, 64 frames": {"4": 74.5},
    }
    assert len(TABLES) == 4


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([812.0, 831.0, 1040.0], "894 ± 314 (3)"),  # t * s / sqrt(n) = 4.3027 * 126.48 / 1.7321 = 314.2
        ([5.0, 7.0], "6 ± 13 (2)"),  # 12.706 * 1.4142 / 1.4142 = 12.7
        ([0.5, 0.501], "0.5005 ± 0.0064 (2)"),
        ([12345.6], "12346 (1)"),
        ([0.123456], "0.1235 (1)"),
        ([3.0, 3.0], "3 ± 0 (2)"),
        ([98.0, 100.0, 101.0], "99.7 ± 3.8 (3)"),
        ([1e9, 3e9], "2000000000 ± 12706000000 (2)"),
    ],
)
def test_a_cell_has_no_more_decimals_than_its_half_width_lets_one_believe(values: list[float], cell: str) -> None:
    """Those of its second digit, for both numbers, and no power of ten."""
    assert _cell(summary(values)) == cell


def test_the_files(sweep_jobs: Jobs, tmp_path: Path) -> None:
    jobs = sweep_jobs(STUDY)
    jobs[1] = SweptJob("dead", {**jobs[1].values}, "failed", None, {}, "a | b <script>")
    page, markdown, table = write_sweep(tmp_path / "study", "videogn train experiment=x", jobs)
    text = markdown.read_text()
    assert "18 jobs: 17 done, 1 failed." in text
    # batch_norm at 16: seeds 0 and 2 are done, with errors of 5 and 7.
    assert "| batch_norm | 9.0 \u00b1 2.5 (3) | 12.0 \u00b1 2.5 (3) | 6 \u00b1 13 (2) |" in text
    assert "## The paper's: ResNet-50 on ImageNet, images a device: error, %" in text
    assert "| batch_norm | 34.7 | 27.3 | 24.8 | 23.7 | 23.6 |" in text
    assert "| dead | batch_norm, batch_size=16, seed=1 | failed | a \\| b &lt;script> |" in text
    html = page.read_text()
    assert "a | b &lt;script&gt;" in html
    assert "Not measured here" in html
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    said = {"job": "dead", "state": "failed", "norm": "batch_norm", "batch_size": "16", "seed": "1"}
    assert rows[1] == {**dict.fromkeys(rows[1], ""), **said}
    assert [float(row["top1"]) for row in rows if row["top1"]] == [job.metric("top1") for job in jobs if job.is_done]
    assert rows[0]["val_loss"] == "0.3"


def test_figures_of_several_protocols_come_with_a_warning(sweep_jobs: Jobs, tmp_path: Path) -> None:
    jobs = sweep_jobs({"clip_length": ["8", "16"]})
    assert jobs[1].result is not None
    jobs[1].result["results"][0]["protocol_hash"] = "other"
    write_sweep(tmp_path, "x", jobs)
    assert "Beware: the first protocols of the jobs are 2 different ones" in (tmp_path / "report.md").read_text()


def test_repetitions_on_other_numbers_of_devices_come_with_a_warning(sweep_jobs: Jobs, tmp_path: Path) -> None:
    """But not where each cell has its own, nor where an old result does not say."""
    jobs = sweep_jobs({"norm": ["a", "b"], "seed": ["0", "1", "2"]})
    for counts, warned in (([1, 1, 1, 4, 4, 4], False), ([1, 4, 4, 1, 1, 1], True), ([None, 1, 1, 1, 1, 1], False)):
        for job, count in zip(jobs, counts, strict=True):
            assert job.result is not None
            job.result["hardware"].pop("num_devices", None)
            if count is not None:
                job.result["hardware"]["num_devices"] = count
        write_sweep(tmp_path, "x", jobs)
        assert ("Beware: repetitions were trained on 1 and 4 devices" in (tmp_path / "report.md").read_text()) == warned


def test_a_sweep_in_which_nothing_is_done(tmp_path: Path) -> None:
    write_sweep(tmp_path, "x", [SweptJob("a", {"seed": "0"}, "missing", None, {})])
    assert "1 jobs: 1 missing." in (tmp_path / "report.md").read_text()
    assert "| a | seed=0 | missing |  |" in (tmp_path / "report.md").read_text()
