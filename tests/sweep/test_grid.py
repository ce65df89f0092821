"""Which jobs a command line and an experiment make, and what names a job."""

from __future__ import annotations

from pathlib import Path

from videogn.configuration import compose
from videogn.sweep.grid import combinations, job_of


class Context:
    """As much of Hydra's as parsing needs."""

    config_loader = None


def jobs(*overrides: str, params: tuple[str, ...] = (), cases: tuple[tuple[str, ...], ...] = ()) -> list[list[str]]:
    return combinations(Context(), list(overrides), params, cases)  # pyright: ignore[reportArgumentType]


def test_every_combination_the_last_key_fastest() -> None:

    assert jobs("norm=a,b", "seed=range(0,2)", "epochs=1") == [
        ["norm=a", "seed=0", "epochs=1"],
        ["norm=a", "seed=1", "epochs=1"],
        ["norm=b", "seed=0", "epochs=1"],
        ["norm=b", "seed=1", "epochs=1"],
    ]


def test_the_command_line_replaces_what_an_experiment_varies() -> None:
    assert jobs("seed=7", params=("seed=0,1,2", "batch_size=2,4")) == [["seed=7", "batch_size=2"], ["seed=7", "batch_size=4"]]
    cases = (("clip_length=32", "batch_size=8"), ("clip_length=32", "batch_size=4"), ("clip_length=64", "batch_size=4"))
    assert jobs("norm=a", cases=cases) == [["norm=a", *case] for case in cases]
    # Without the batch size, the first two cases are one.
    assert jobs("batch_size=1", cases=cases) == [["batch_size=1", "clip_length=32"], ["batch_size=1", "clip_length=64"]]


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
