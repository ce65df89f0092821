"""What is read of a metrics.csv, against rows written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogn.report.curves import read_curves


def written(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_text("epoch,lr-SGD/pg1,lr-SGD/pg2,step,train/loss_epoch,val/loss,val/top1\n" + text)
    return path


def test_epochs_end_at_their_number_and_rates_stand_between(tmp_path: Path) -> None:
    curves = read_curves(
        written(tmp_path, ",0.1,0.1,1,,,\n0,,,3,,2.0,0.5\n0,,,3,1.5,,\n,0.2,0.2,5,,,\n1,,,7,,1.0,0.75\n1,,,7,1.25,,\n")
    )
    assert [(line.name, line.points) for line in curves["loss"]] == [
        ("training", ((1.0, 1.5), (2.0, 1.25))),
        ("val", ((1.0, 2.0), (2.0, 1.0))),
    ]
    # Two of the four steps of epoch 1 were done, and two of those of epoch 2.
    assert [line.points for line in curves["learning rate"]] == [((0.5, 0.1), (1.5, 0.2))]


def test_an_epoch_done_again_counts_as_done_last_and_nan_not_at_all(tmp_path: Path) -> None:
    curves = read_curves(written(tmp_path, "0,,,3,,2.0,\n1,,,7,,9.0,\n1,,,7,,1.0,\n2,,,11,,nan,\n3,,,15,,inf,\n"))
    assert [line.points for line in curves["loss"]] == [((1.0, 2.0), (2.0, 1.0))]
    assert "top-1" not in curves


def test_many_rates_are_their_extremes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    names = [f"lr-SGD/pg{index}" for index in range(6)]
    path.write_text(
        f"epoch,step,val/loss,{','.join(names)}\n,0,,{','.join(str(0.1 * (i + 1)) for i in range(6))}\n0,0,1.0,,,,,,\n"
    )
    rates = read_curves(path)["learning rate"]
    assert [(line.name, line.points[0][1]) for line in rates] == [
        ("largest, SGD/pg5", pytest.approx(0.6)),
        ("smallest, SGD/pg0", pytest.approx(0.1)),
    ]


def test_a_long_line_is_thinned_to_its_ends(tmp_path: Path) -> None:
    (line,) = read_curves(written(tmp_path, "".join(f"{e},,,{e},,{e + 0.5},\n" for e in range(5000))))["loss"]
    assert len(line.points) == 400
    assert line.points[0] == (1.0, 0.5)
    assert line.points[-1] == (5000.0, 4999.5)


def test_nothing_is_read_where_nothing_is(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.csv") == {}
    assert read_curves(written(tmp_path, "")) == {}
