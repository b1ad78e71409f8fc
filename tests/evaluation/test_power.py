"""Precision and power, against simulated cohorts and exact formulas."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from statsmodels.stats.proportion import proportion_confint

from osteoscope.evaluation.power import (
    auc_standard_error,
    expected_interval,
    patients_needed,
    precision_and_power,
    smallest_auc,
    smallest_paired_difference,
)


def gap_of(auc: float) -> float:
    """Distance of two normal distributions of spread 1 whose AUC this is."""
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def aucs(cases: np.ndarray, others: np.ndarray) -> np.ndarray:
    """AUC of each simulated cohort; scores are (cohorts, patients)."""
    means: np.ndarray = (cases[:, :, None] > others[:, None, :]).mean(axis=(1, 2))
    return means


@pytest.mark.parametrize(("auc", "cases", "others"), [(0.7, 20, 30), (0.86, 21, 103), (0.95, 40, 15)])
def test_the_standard_error_is_that_of_simulated_cohorts(auc: float, cases: int, others: int) -> None:
    generator = np.random.default_rng(0)
    found = aucs(generator.normal(gap_of(auc), 1, (3000, cases)), generator.normal(0, 1, (3000, others)))
    # The spread of 3000 draws is known to 1.3 %.
    assert auc_standard_error(auc, cases, others) == pytest.approx(found.std(), rel=0.05)


def test_at_chance_it_is_that_of_the_rank_sum() -> None:
    assert auc_standard_error(0.5, 12, 30) == pytest.approx(math.sqrt(43 / (12 * 12 * 30)))


@pytest.mark.parametrize("auc", [0.6, 0.75, 0.9])
def test_it_is_close_to_hanley_and_mcneils_for_exponential_scores(auc: float) -> None:
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 39 * (first - auc**2) + 39 * (second - auc**2)) / 1600
    assert auc_standard_error(auc, 40, 40) == pytest.approx(math.sqrt(variance), rel=0.08)


def test_a_perfect_auc_does_not_vary() -> None:
    assert auc_standard_error(1.0, 5, 5) == auc_standard_error(0.0, 5, 5) == 0.0


def test_the_expected_interval_is_symmetric_on_the_logit_scale() -> None:
    ends = expected_interval(0.8, 50, 50)
    logits = [math.log(p / (1 - p)) for p in (ends.low, 0.8, ends.high)]
    half = 1.959964 * auc_standard_error(0.8, 50, 50) / (0.8 * 0.2)
    assert logits == pytest.approx([logits[1] - half, logits[1], logits[1] + half], abs=1e-5)
    assert 0 < ends.low < 0.8 < ends.high < 1


def test_an_auc_next_to_one_of_a_patient_each_has_an_interval_of_anything() -> None:
    ends = expected_interval(1 - 1e-6, 1, 1)
    assert (ends.low, ends.high) == (0.0, 1.0)


@pytest.mark.parametrize(("cases", "others"), [(12, 20), (25, 100)])
def test_the_smallest_auc_is_found_as_often_as_the_power_says(cases: int, others: int) -> None:
    auc = smallest_auc(cases, others)
    assert auc is not None
    generator = np.random.default_rng(1)
    test = mannwhitneyu(
        generator.normal(gap_of(auc), 1, (4000, cases)),
        generator.normal(0, 1, (4000, others)),
        axis=1,
        method="asymptotic",
        use_continuity=False,
    )
    assert (test.pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_the_smallest_paired_difference_is_found_as_often_as_the_power_says() -> None:
    cases, others, better = 40, 60, 0.85
    generator = np.random.default_rng(2)
    shared = generator.normal(0, 1, (3000, cases + others))
    own = generator.normal(0, 1, (2, 3000, cases + others))
    noise = math.sqrt(0.6) * shared + math.sqrt(0.4) * own

    def simulated(auc: float, predictor: int) -> np.ndarray:
        scores = noise[predictor]
        return aucs(scores[:, :cases] + gap_of(auc), scores[:, cases:])

    first, same = simulated(better, 0), simulated(better, 1)
    correlation = float(np.corrcoef(first, same)[0, 1])
    difference = smallest_paired_difference(better, cases, others, correlation=correlation)
    assert difference is not None
    worse = simulated(better - difference, 1)
    # The critical value is that of predictors which do not differ.
    found = np.abs(first - worse) > 1.96 * (first - same).std()
    assert found.mean() == pytest.approx(0.8, abs=0.04)


def test_more_patients_higher_correlation_and_less_power_find_smaller_differences() -> None:
    few, many = (smallest_paired_difference(0.85, n, n) for n in (30, 120))
    alike = smallest_paired_difference(0.85, 30, 30, correlation=0.8)
    lax = smallest_paired_difference(0.85, 30, 30, power=0.5)
    assert few is not None
    assert many is not None
    assert alike is not None
    assert lax is not None
    assert many < few
    assert alike < few
    assert lax < few


def test_with_a_patient_on_either_side_nothing_is_found() -> None:
    assert smallest_auc(1, 1) is None
    assert smallest_paired_difference(0.55, 2, 2) is None


@pytest.mark.parametrize("sensitivity", [0.7, 0.8, 0.9])
def test_the_patients_needed_are_the_fewest(sensitivity: float) -> None:
    block = precision_and_power({"a": 20, "b": 20})
    needed = next(row["needed"] for row in block["sensitivity"] if row["sensitivity"] == sensitivity)

    def half_width(n: int) -> float:
        low, high = proportion_confint(sensitivity * n, n, method="wilson")
        return float(high - low) / 2

    assert half_width(needed) <= 0.05 < half_width(needed - 1)


def test_an_interval_that_never_narrows_has_no_number_of_patients() -> None:
    assert patients_needed(lambda n: 1.0, half_width=0.1) is None
    assert patients_needed(lambda n: 0.1 / n, half_width=0.1) == 1


def test_a_cohort_is_told_what_it_could_show() -> None:
    block = precision_and_power(
        {"os": 103, "gct": 21}, 0.86, names={"os": "osteosarcoma", "gct": "giant cell tumor"}, half_width=0.1
    )
    json.dumps(block, allow_nan=False)
    assert [row["auc"] for row in block["auc"]] == [0.7, 0.8, 0.86, 0.9, 0.95]
    assert block["class"] == "gct"
    observed = block["auc"][2]
    ends = expected_interval(0.86, 21, 103)
    assert (observed["low"], observed["high"]) == (ends.low, ends.high)
    needed = observed["needed_per_class"]
    narrow, wide = (expected_interval(0.86, n, n) for n in (needed, needed - 1))
    assert narrow.high - narrow.low <= 0.2 < wide.high - wide.low
    rare = block["sensitivity"][1]["of"]["gct"]
    assert (rare["low"], rare["high"]) == pytest.approx(proportion_confint(0.8 * 21, 21, method="wilson"))
    text = " ".join(block["sentences"])
    assert "103 of osteosarcoma and 21 of giant cell tumor" in text
    assert f"true AUC of {block['smallest_auc']:.2f} or more would have been told from guessing" in text
    assert f"one lower by {observed['smallest_paired_difference']:.2f} or more" in text


def test_of_several_classes_the_rarest_stands_against_the_rest() -> None:
    block = precision_and_power({"a": 30, "b": 10, "c": 50})
    assert block["class"] == "b"
    assert block["smallest_auc"] == smallest_auc(10, 80)
    assert set(block["sensitivity"][0]["of"]) == {"a", "b", "c"}
    assert "a true AUC of 0.80 of b against the rest is expected" in block["sentences"][0]


@pytest.mark.parametrize("auc", [None, 0.4, 1.0])
def test_an_auc_of_no_use_adds_no_row(auc: float | None) -> None:
    assert len(precision_and_power({"a": 30, "b": 10}, auc)["auc"]) == 4


def test_a_cohort_too_small_for_any_of_it_is_told_so() -> None:
    for counts in ({"a": 40, "b": 4}, {"a": 2, "b": 2}, {"a": 40, "b": 0}, {"a": 40}):
        assert precision_and_power(counts) == {
            "counts": counts,
            "reason": "it takes 5 patients of each of two classes or more",
        }


def test_where_not_even_a_perfect_predictor_would_do_the_sentences_say_so() -> None:
    text = " ".join(precision_and_power({"a": 5, "b": 5}, 0.55, correlation=-0.9)["sentences"])
    assert "no other AUC would have been told from it" in text


@pytest.mark.parametrize(("auc", "cases", "others"), [(1.2, 5, 5), (-0.1, 5, 5), (math.nan, 5, 5), (0.7, 0, 5)])
def test_what_is_no_auc_or_no_cohort_is_refused(auc: float, cases: int, others: int) -> None:
    with pytest.raises(ValueError, match="an AUC in"):
        auc_standard_error(auc, cases, others)


def test_an_interval_needs_an_auc_that_can_vary_and_a_difference_a_correlation_below_one() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_interval(1.0, 10, 10)
    with pytest.raises(ValueError, match="correlation"):
        smallest_paired_difference(0.8, 10, 10, correlation=1.0)
