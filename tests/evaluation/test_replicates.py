"""The interval of a mean of repeated trainings, against Student's t integrated anew and against its promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from videogn.evaluation.replicates import summary


def t_below(value: float, degrees: int) -> float:
    """The probability that Student's t is below `value`, by integrating its density from 0."""
    x = np.linspace(0.0, value, 20_001)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    density = scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
    return 0.5 + float(np.trapezoid(density, x))


@pytest.mark.parametrize("num", [2, 3, 4, 5, 10, 20, 31, 32, 50, 1000])
def test_the_half_width_is_students(num: int) -> None:
    """The values -1 and 1 in turn have a known deviation; what is left of the half width is the quantile."""
    values = [(-1.0) ** k for k in range(num)]
    found = summary(values)
    assert found.half_width is not None
    quantile = found.half_width * math.sqrt(num) / float(np.std(values, ddof=1))
    # Three decimals of the table: half a unit of the last, times the density there, which is below 0.06.
    assert t_below(quantile, num - 1) == pytest.approx(0.975, abs=0.0005 * 0.06 + 1e-5)


def test_it_holds_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        bounds = summary(rng.normal(3.0, 2.0, 3).tolist()).bounds
        assert bounds is not None
        held += bounds[0] <= 3.0 <= bounds[1]
    # Four standard deviations of the count's binomial.
    assert held / 4000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    assert (summary([0.25]).mean, summary([0.25]).half_width, summary([0.25]).bounds) == (0.25, None, None)
    with pytest.raises(ValueError, match="summary: no values; give one or more"):
        summary([])
