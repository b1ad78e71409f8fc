"""Figures beside the truth: the way covered to the Bayes reference, causes found in planes, causes taken away."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from osteoscope.evaluation.localisation import energy_in_lesion, gaussian_map, iou
from osteoscope.evaluation.truth import (
    falls,
    localisation_over_patients,
    localise_in_planes,
    probability_of,
    way_covered,
)

POSITIVE = np.array([True, True, True, False, False, False])
PERFECT = np.array([6.0, 5, 4, 3, 2, 1])
NOTHING = np.zeros(6)
ONE_PAIR_WRONG = np.array([6.0, 5, 3, 4, 2, 1])
"""Of nine pairs eight are in order."""


def naive_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    above, below = scores[positive][:, None], scores[~positive]
    return float(((above > below) + 0.5 * (above == below)).mean())


# Probabilities --------------------------------------------------------------------------------------------------------


def test_a_likelihood_ratio_becomes_a_probability_by_bayes_rule() -> None:
    # Even odds: 3 : 1 is 3 / 4. A prior of 1 / 4 turns the same ratio into even odds.
    assert probability_of([math.log(3)], prior=0.5) == pytest.approx([0.75])
    assert probability_of([math.log(3)], prior=0.25) == pytest.approx([0.5])
    assert probability_of([1000.0, -1000.0], prior=0.5).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="a prior in"):
        probability_of([0.0], prior=1.0)


# The way covered ------------------------------------------------------------------------------------------------------


def test_the_way_covered_runs_from_the_least_to_the_most() -> None:
    # From 1/2 to 1 by way of 8/9: (8/9 - 1/2) / (1/2) = 7/9.
    found = way_covered(POSITIVE, ONE_PAIR_WRONG, least=NOTHING, most=PERFECT, draws=200)
    assert found.value == pytest.approx(7 / 9)
    assert found.n == 6
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 7 / 9 <= found.high
    assert way_covered(POSITIVE, NOTHING, least=NOTHING, most=PERFECT, draws=10).value == 0
    assert way_covered(POSITIVE, PERFECT, least=NOTHING, most=PERFECT, draws=10).value == 1
    # A least that ranks everybody wrongly is no better start than guessing.
    assert way_covered(POSITIVE, NOTHING, least=-PERFECT, most=PERFECT, draws=10).value == 0
    # One may be worse than the least, and better than the most.
    assert way_covered(POSITIVE, -PERFECT, least=NOTHING, most=PERFECT, draws=10).value == -1
    assert way_covered(POSITIVE, PERFECT, least=NOTHING, most=ONE_PAIR_WRONG, draws=10).value == pytest.approx(9 / 7)


def test_the_interval_of_the_way_covered_is_that_of_a_naive_paired_bootstrap() -> None:
    rng = np.random.default_rng(3)
    positive = np.arange(80) < 40
    most, less, least = (positive * gain + rng.standard_normal(80) for gain in (3.0, 1.5, 0.0))
    found = way_covered(positive, less, least=least, most=most, draws=2000, seed=1)
    shares = []
    for _ in range(2000):
        rows = np.concatenate([rng.integers(40, size=40), 40 + rng.integers(40, size=40)])
        gone, start, end = (naive_auc(positive[rows], scores[rows]) for scores in (less, least, most))
        begun = max(start, 0.5)
        shares.append((gone - begun) / (end - begun))
    low, high = np.quantile(shares, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.07)
    assert found.high == pytest.approx(high, abs=0.07)


def test_where_nothing_is_to_be_gained_there_is_no_way() -> None:
    found = way_covered(POSITIVE, PERFECT, least=PERFECT, most=ONE_PAIR_WRONG, draws=10)
    assert found.value is None
    assert "no better" in str(found.reason)
    one_class = way_covered([True, True], [1.0, 2.0], least=[1.0, 2.0], most=[1.0, 2.0], draws=10)
    assert one_class.reason == "it takes cases of every class"
    with pytest.raises(ValueError, match="one shape"):
        way_covered(POSITIVE, PERFECT[:5], least=NOTHING, most=PERFECT)


# Causes in planes -----------------------------------------------------------------------------------------------------

SHAPE = (3, 8, 8)


def planes(*, inside: float, outside: float) -> tuple[np.ndarray, np.ndarray]:
    """Evidence in a square of 2 x 2 that is marked in the middle plane, and in one of the same size in the first."""
    evidence, mask = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    mask[1, 4:6, 4:6] = True
    evidence[1, 4:6, 4:6], evidence[0, 4:6, 4:6] = inside, outside
    return evidence, mask


PIXELS = np.random.default_rng(0).random(SHAPE).astype(np.float32)


def test_evidence_in_another_plane_is_outside() -> None:
    evidence, mask = planes(inside=1.0, outside=3.0)
    (found,) = localise_in_planes(evidence, mask, PIXELS, threshold=0.5, seed=0)["evidence"]
    assert found.pointing == 0
    assert found.energy == pytest.approx(0.25)
    assert found.iou == 0
    evidence, mask = planes(inside=3.0, outside=1.0)
    (found,) = localise_in_planes(evidence, mask, PIXELS, threshold=0.5, seed=0)["evidence"]
    assert (found.pointing, found.iou, found.dice) == (1, 1, 1)
    assert found.energy == pytest.approx(0.75)
    # From a quarter of the strongest on, both squares belong: 4 of 8.
    assert localise_in_planes(evidence, mask, PIXELS, threshold=0.25, seed=0)["evidence"][0].iou == pytest.approx(0.5)


def test_the_controls_know_no_plane_from_another() -> None:
    evidence, mask = planes(inside=1.0, outside=0.0)
    found = localise_in_planes(evidence, mask, PIXELS, threshold=0.5, seed=0)
    one_plane = energy_in_lesion(gaussian_map(SHAPE[1:]), mask[1])
    assert found["gaussian"][0].energy == pytest.approx(one_plane / 3)
    assert found["gaussian"][0].pointing == pytest.approx(1 / 12)
    flat = localise_in_planes(evidence, mask, np.zeros(SHAPE), threshold=0.5, seed=0)
    assert flat["edges"][0].blank
    assert flat["random"] != localise_in_planes(evidence, mask, PIXELS, threshold=0.5, seed=1)["random"]


def test_planes_of_other_shapes_are_refused() -> None:
    evidence, mask = planes(inside=1.0, outside=0.0)
    with pytest.raises(ValueError, match="one shape"):
        localise_in_planes(evidence, mask[:2], PIXELS, threshold=0.5, seed=0)
    with pytest.raises(ValueError, match="must hold a lesion"):
        localise_in_planes(evidence, np.zeros(SHAPE, bool), PIXELS, threshold=0.5, seed=0)


def test_patients_weigh_the_same_and_differences_are_paired() -> None:
    found = []
    for inside in (3.0, 1.0):
        evidence, mask = planes(inside=inside, outside=1.0)
        found.append(localise_in_planes(evidence, mask, PIXELS, threshold=0.5, seed=0))
    table = localisation_over_patients(found, [0, 1], draws=50)
    assert table["patients"] == 2
    # 3 / 4 and 1 / 2.
    assert table["evidence"]["energy"]["value"] == pytest.approx(0.625)
    gaussian = found[0]["gaussian"][0].energy
    assert table["gaussian"]["energy_difference"]["value"] == pytest.approx(0.625 - gaussian)
    assert "energy_difference" not in table["evidence"]
    blank = {name: tuple(dataclasses.replace(one, blank=True) for one in of) for name, of in found[0].items()}
    assert localisation_over_patients([blank, found[1]], [0, 0], draws=5)["evidence"]["blank"] == 1
    assert localisation_over_patients([], []) == {}


# The cause taken away -------------------------------------------------------------------------------------------------


def test_falls_are_counted_and_their_median_is_told() -> None:
    before = [0.9, 0.8, 0.7, 0.6]
    after = [0.1, 0.5, 0.5, 0.7]
    found = falls(before, after, draws=500)
    assert found.fallen.value == 0.75
    # Wilson's interval of 3 of 4, worked by hand: (0.75 + 0.48) / 1.96 -+ 1.96 / 1.96 x sqrt(0.1875/4 + 0.06)
    assert found.fallen.low == pytest.approx(0.3006, abs=5e-4)
    assert found.fallen.high == pytest.approx(0.9544, abs=5e-4)
    # Falls of 0.8, 0.3, 0.2 and -0.1.
    assert found.median.value == pytest.approx(0.25)
    assert found.median.low is not None
    assert -0.1 <= found.median.low <= 0.25
    assert set(found.to_json()) == {"fallen", "median_fall"}


def test_what_stays_the_same_has_not_fallen() -> None:
    found = falls([0.5, 0.5], [0.5, 0.5], draws=10)
    assert found.fallen.value == 0
    assert found.median.value == 0
    assert found.median.low is None
    assert "every draw" in str(found.median.reason)


@pytest.mark.parametrize(("before", "after"), [([], []), ([0.5], [0.5, 0.4]), ([1.2], [0.5]), ([0.5], [float("nan")])])
def test_what_is_no_probability_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        falls(before, after)


def test_a_control_is_judged_at_the_threshold_that_is_best_in_other_patients() -> None:
    bell = gaussian_map(SHAPE[1:])
    levels = (0.6, 0.6, 0.6, 0.3)
    found = [
        localise_in_planes(
            np.zeros(SHAPE, np.float32), np.tile(bell >= level, (SHAPE[0], 1, 1)), PIXELS, threshold=0.1, seed=0
        )
        for level in levels
    ]
    table = localisation_over_patients(found, [0, 0, 1, 1], draws=10)
    expected = [1, 1, 1, iou(bell, bell >= 0.3, 0.6)]
    assert table["gaussian"]["iou"]["value"] == pytest.approx(np.mean(expected))
    assert table["evidence"]["blank"] == 4
    alone = localisation_over_patients(found[:1], [0], draws=10)
    assert alone["gaussian"]["iou"]["value"] == pytest.approx(iou(bell, bell >= 0.6, 0.5))
