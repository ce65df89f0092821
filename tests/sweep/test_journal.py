"""A search's journal, cut wherever a kill may cut it."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import pytest

from videogn.sweep.journal import Journal, Sampling, Trial
from videogn.sweep.space import Space, space_of
from videogn.types import InputError

pytest.importorskip("optuna", reason="pip install 'videogn[search]'")

SPACE = space_of(
    {"base_lr": {"low": 0.001, "high": 1.0, "log": True}, "norm": {"choices": ["a", "b", "c"]}, "x": {"low": 1, "high": 9}}
)
TPE = Sampling("tpe", seed=0, num_startup_trials=3)
IDENTITY = {"metric": "val/top1 of the last epoch"}


def opened(folder: Path, space: Space = SPACE, sampling: Sampling = TPE, identity: dict[str, str] = IDENTITY) -> Journal:
    return Journal(folder, space, identity, maximize=True, sampling=sampling)


def score(trial: Trial) -> float:
    """Best at base_lr 0.1 under norm b."""
    return -abs(math.log10(trial.values["base_lr"]) + 1) - (trial.values["norm"] != "b")


def search(folder: Path, num_trials: int, sampling: Sampling = TPE) -> list[tuple]:
    """Go on, one trial at a time, as the command does, and answer all trials."""
    journal = opened(folder, sampling=sampling)
    journal.drop_incomplete()
    for trial in journal.trials():
        if trial.state == "running":
            journal.tell(trial, score(trial))
    while len(journal.trials()) < num_trials:
        trial = journal.ask()
        journal.tell(trial, score(trial))
    journal.close()
    return [(trial.values, trial.state, trial.value) for trial in journal.trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_killed_anywhere_it_proposes_what_it_would_have_proposed(tmp_path: Path, sampler: str) -> None:
    """The journal is cut after every line, and in the middle of every line."""
    sampling = Sampling(sampler, seed=3, num_startup_trials=2)
    whole = search(tmp_path / "whole", 4, sampling)
    lines = (tmp_path / "whole/journal.log").read_bytes().splitlines(keepends=True)
    assert len(lines) > 4 * 4
    for number, torn in itertools.product(range(len(lines)), (False, True)):
        folder = tmp_path / f"{number}{torn}"
        folder.mkdir()
        half = lines[number][: len(lines[number]) // 2] if torn else b""
        (folder / "journal.log").write_bytes(b"".join(lines[:number]) + half)
        (folder / "journal.log.lock").symlink_to("journal.log")  # of the one who was killed while it wrote
        assert search(folder, 4, sampling) == whole, (number, torn)


def test_nobody_waits_for_the_lock_of_one_who_was_killed(tmp_path: Path) -> None:
    """Optuna would, for 30 seconds."""
    search(tmp_path, 1)
    (tmp_path / "journal.log.lock").symlink_to("journal.log")
    begin = time.monotonic()
    search(tmp_path, 2)
    assert time.monotonic() - begin < 25


def test_more_trials_go_on_with_those_that_were(tmp_path: Path) -> None:
    few = search(tmp_path / "a", 4)
    assert search(tmp_path / "a", 7) == search(tmp_path / "b", 7)
    assert search(tmp_path / "b", 7)[:4] == few
    assert search(tmp_path / "a", 2) == search(tmp_path / "b", 7), "there are seven, and none is taken away"


def test_tpe_learns_and_seeds_differ(tmp_path: Path) -> None:
    """Its later half is nearer to the best value than its first; at random they are equally far."""
    scores = [value for _, _, value in search(tmp_path / "tpe", 30, Sampling("tpe", 1, 8))]
    assert sum(scores[15:]) / 15 > sum(scores[:8]) / 8 + 0.3
    drawn = [values["base_lr"] for values, *_ in search(tmp_path / "random", 8, Sampling("random", 1, 0))]
    assert len(set(drawn)) == 8, "no trial is drawn as the one before"
    assert search(tmp_path / "other", 2, Sampling("tpe", 2, 8)) != search(tmp_path / "tpe", 30)[:2]


def test_a_failed_trial_and_one_that_diverged(tmp_path: Path) -> None:
    """The first teaches nothing; the second is the worst there is."""
    journal = opened(tmp_path)
    journal.tell(journal.ask(), None)
    journal.tell(journal.ask(), math.nan)
    assert [(trial.state, trial.value) for trial in journal.trials()] == [("failed", None), ("done", -math.inf)]
    for _ in range(8):
        trial = journal.ask()
        journal.tell(trial, score(trial))
    assert sum(trial.state == "done" for trial in journal.trials()) == 9


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(InputError, match=r"another process runs this search; wait for it, or name another with sweep=NAME"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_the_journal_of_another_search_is_refused_and_left_alone(tmp_path: Path) -> None:
    search(tmp_path, 2)
    before = (tmp_path / "journal.log").read_bytes()
    for other, what in (
        ({"space": {**SPACE, "x": space_of({"x": {"low": 1, "high": 8}})["x"]}}, "space"),
        ({"space": {key: SPACE[key] for key in ("base_lr", "norm")}}, "space"),
        ({"identity": {"metric": "val/loss of the last epoch"}}, "metric"),
    ):
        for _ in range(2):  # and is not held afterwards
            with pytest.raises(
                InputError, match=rf"journal.log: the journal of a search with another {what}; name this one with sweep"
            ):
                opened(tmp_path, **other)
    assert (tmp_path / "journal.log").read_bytes() == before
    assert len(search(tmp_path, 2, Sampling("random", 5, 0))) == 2, "how values are proposed may change on the way"


@pytest.mark.parametrize("content", ["no journal\nat all\n", "[]\n[]\n", "{}\n{}\n", '{"op_code": 4, "worker_id": "x"}\n'])
def test_a_damaged_journal(tmp_path: Path, content: str) -> None:
    (tmp_path / "journal.log").write_text(content)
    with pytest.raises(InputError, match=r"journal.log: cannot be read as the journal of a search \(\w+\); name another search"):
        opened(tmp_path)
