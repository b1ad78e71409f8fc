"""Each distribution draws what its density says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import integrate, stats

from osteoscope.phantom.distributions import (
    Choice,
    CutLogNormal,
    CutNormals,
    Share,
    certain,
    chance,
    cut_normal,
)

if TYPE_CHECKING:
    from osteoscope.phantom.distributions import Distribution

CONTINUOUS: dict[str, tuple[Distribution[float], float, float]] = {
    "mixture": (CutNormals(((1 / 3, 18, 6), (2 / 3, 46, 17)), 8, 80), 8, 80),
    "normal": (cut_normal(50, 10, 45, 58), 45, 58),
    "log-normal": (CutLogNormal(29, 0.38, 8, 80), 8, 80),
    "share": (Share(2, 3.4, 0.1, 0.9), 0.1, 0.9),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_density_integrates_to_one_and_ends_at_its_bounds(name: str) -> None:
    distribution, low, high = CONTINUOUS[name]
    area, _ = integrate.quad(lambda value: math.exp(distribution.log_density(value)), low, high, limit=200)
    assert area == pytest.approx(1, abs=1e-8)
    assert distribution.log_density(low - 0.01) == -math.inf
    assert distribution.log_density(high + 0.01) == -math.inf


@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_follow_the_integrated_density(name: str) -> None:
    distribution, low, high = CONTINUOUS[name]
    rng = np.random.default_rng(5)
    drawn = [distribution.draw(rng) for _ in range(4000)]
    grid = np.linspace(low, high, 2001)
    density = np.exp([distribution.log_density(value) for value in grid[1:-1]])
    cumulative = integrate.cumulative_trapezoid(np.concatenate([[0], density, [0]]), grid, initial=0)
    found = stats.kstest(drawn, lambda value: np.interp(value, grid, cumulative / cumulative[-1]))
    assert found.pvalue > 0.01


def test_peers_agree_on_the_densities() -> None:
    normal = stats.truncnorm(-0.5, 0.8, loc=50, scale=10)
    assert cut_normal(50, 10, 45, 58).log_density(52.0) == pytest.approx(normal.logpdf(52.0))
    beta = stats.beta(2, 3.4, loc=0.1, scale=0.8)
    assert Share(2, 3.4, 0.1, 0.9).log_density(0.3) == pytest.approx(beta.logpdf(0.3))
    lognormal = stats.lognorm(0.38, scale=29)
    mass = lognormal.cdf(80) - lognormal.cdf(8)
    assert CutLogNormal(29, 0.38, 8, 80).log_density(33.0) == pytest.approx(lognormal.logpdf(33.0) - math.log(mass))


def test_a_choice_counts_in_proportion_to_its_weights() -> None:
    choice = Choice((("a", 3.0), ("b", 1.0), ("c", 0.0)))
    assert choice.probability("a") == 0.75
    assert choice.log_density("b") == pytest.approx(math.log(0.25))
    assert choice.log_density("c") == -math.inf
    assert choice.log_density("d") == -math.inf
    rng = np.random.default_rng(0)
    drawn = [choice.draw(rng) for _ in range(2000)]
    assert drawn.count("c") == 0
    assert stats.binomtest(drawn.count("a"), 2000, 0.75).pvalue > 0.01


def test_what_is_certain_costs_nothing_and_chance_is_a_choice() -> None:
    assert certain(0.0).log_density(0.0) == 0
    assert chance(0.2).log_density(True) == pytest.approx(math.log(0.2))


@pytest.mark.parametrize("weights", [(), (("a", -1.0), ("b", 2.0)), (("a", 0.0),)])
def test_weights_that_say_nothing_are_refused(weights: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Choice(weights)
