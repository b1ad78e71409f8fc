"""Tests of two predictors against hand counts, enumeration, published figures and peers; degenerate input."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from statsmodels.stats.multitest import multipletests

from osteoscope.evaluation.delong import delong
from osteoscope.evaluation.metrics import auc_score, brier_loss, count_figures
from osteoscope.evaluation.significance import holm, mcnemar, paired_delong, paired_permutation

if TYPE_CHECKING:
    from osteoscope.evaluation.significance import Measure

MEASURES: tuple[Measure, ...] = ("auc", "balanced_accuracy", "brier")


def _two(second: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - second, second])


def _pair(n: int, seed: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the probabilities of a predictor and of one that is worse by some noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    x = generator.normal(size=n) + 1.5 * labels - 0.75
    y = x + gain * generator.normal(size=n) + 0.5 * generator.normal(size=n)
    return labels, _two(1 / (1 + np.exp(-x))), _two(1 / (1 + np.exp(-y)))


# DeLong ---------------------------------------------------------------------------------------------------------------


def test_delong_divides_the_difference_by_its_standard_error() -> None:
    labels, a, b = _pair(60, 0, gain=1.0)
    parts = delong(labels, [a, b])
    c = parts.covariance
    z = (parts.value[0] - parts.value[1]) / math.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1])
    test = paired_delong(labels, a, b)
    assert test.statistic == pytest.approx(z)
    assert test.p_value == pytest.approx(2 * norm.sf(abs(z)))
    assert test.n == 60
    turned = paired_delong(labels, b, a)
    assert (turned.statistic, turned.p_value) == pytest.approx((-z, test.p_value))


def test_delong_finds_a_clear_gain() -> None:
    labels, a, b = _pair(200, 1, gain=3.0)
    p = paired_delong(labels, a, b).p_value
    assert p is not None
    assert p < 0.001


def test_predictors_that_rank_alike_are_not_told_apart_by_delong() -> None:
    labels, a, _ = _pair(30, 2)
    test = paired_delong(labels, a[:, 1], a[:, 1] ** 3)
    assert (test.statistic, test.p_value, test.reason) == (0.0, 1.0, None)


@pytest.mark.parametrize(
    ("labels", "a", "b", "reason"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], [0.2, 0.1, 0.3], "it takes cases of every class"),
        ([0, 0, 1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1], "a class has a single patient"),
        ([0, 0, 1, 1], [0.1, 0.1, 0.3, 0.3], [0.3, 0.3, 0.1, 0.1], "the AUCs differ, but their variance is 0"),
    ],
)
def test_delong_gives_no_p_value_where_there_is_none(
    labels: list[int], a: list[float], b: list[float], reason: str
) -> None:
    test = paired_delong(labels, a, b)
    assert (test.p_value, test.reason) == (None, reason)
    assert json.loads(json.dumps(test.to_json(), allow_nan=False))["reason"] == reason


def test_delong_counts_patients_and_not_their_rows() -> None:
    labels, a, b = _pair(40, 3, gain=1.0)
    names = [f"p{i:02}" for i in range(40)]
    once = paired_delong(labels, a, b)
    for repeats in (None, np.repeat([0, 1, 2], 40)):
        thrice = paired_delong(
            np.tile(labels, 3), np.tile(a, (3, 1)), np.tile(b, (3, 1)), patients=names * 3, repeats=repeats
        )
        assert (thrice.statistic, thrice.p_value) == pytest.approx((once.statistic, once.p_value))
        assert thrice.n == 40


# McNemar --------------------------------------------------------------------------------------------------------------


def _guesses(only_a: int, only_b: int, both: int, neither: int) -> tuple[list[int], list[int], list[int]]:
    n = only_a + only_b + both + neither
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return [1] * n, a, b


def test_mcnemar_by_hand() -> None:
    labels, a, b = _guesses(5, 1, 10, 4)
    # Of 6, at most 1: (1 + 6) / 64, twice; the mid-p-value leaves out one of the two halves of "exactly 1".
    assert mcnemar(labels, a, b, classes=2, mid_p=False).p_value == pytest.approx(14 / 64)
    test = mcnemar(labels, a, b, classes=2)
    assert test.p_value == pytest.approx(8 / 64)
    assert (test.statistic, test.n) == (1.0, 20)
    assert "6 patients" in test.method
    assert mcnemar(labels, b, a, classes=2).p_value == test.p_value


def test_mcnemar_gives_the_published_p_values() -> None:
    # Fagerland 2013, table 1 (airway hyper-responsiveness before and after transplantation): 1 and 7 of 21 children.
    labels, a, b = _guesses(1, 7, 1, 12)
    assert mcnemar(labels, a, b, classes=2, mid_p=False).p_value == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(labels, a, b, classes=2).p_value == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize("discordant", [0, 1, 4])
def test_mcnemar_cannot_tell_apart_what_is_right_equally_often(discordant: int) -> None:
    labels, a, b = _guesses(discordant, discordant, 5, 2)
    assert mcnemar(labels, a, b, classes=2).p_value == 1.0
    assert mcnemar(labels, a, b, classes=2, mid_p=False).p_value == 1.0


def test_mcnemar_judges_right_and_wrong_of_any_number_of_classes() -> None:
    # One alone is right on the first two patients; on the third both are wrong, in different ways.
    test = mcnemar([0, 1, 2], [0, 1, 0], [1, 2, 1], classes=3)
    assert test.p_value == pytest.approx(2 * 0.25 - 0.25)


@pytest.mark.parametrize(("predicted", "message"), [([0], "predictions must have shape"), ([0, 2], r"0\.\.1")])
def test_mcnemar_refuses_what_does_not_fit(predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mcnemar([0, 1], [0, 1], predicted, classes=2)


# Permutation ----------------------------------------------------------------------------------------------------------


def _difference(measure: str, labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    def one(p: np.ndarray) -> float:
        if measure == "auc":
            value = auc_score(labels == 1, p[:, 1])
        elif measure == "brier":
            value = brier_loss(labels, p)
        else:
            value = count_figures(labels, p.argmax(axis=1), 2).balanced_accuracy
        assert value is not None
        return value

    return one(a) - one(b)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(3))
def test_permutation_agrees_with_trying_every_exchange(measure: Measure, seed: int) -> None:
    labels, a, b = _pair(9, 10 + seed, gain=2.0)
    # What is exchanged for the AUC is the rank.
    given = (_two(rankdata(p[:, 1])) if measure == "auc" else p for p in (a, b))
    first, second = given
    seen, extreme = _difference(measure, labels, first, second), 0.0
    for turned in product([False, True], repeat=9):
        swap = np.array(turned)[:, None]
        there, back = np.where(swap, second, first), np.where(swap, first, second)
        excess = abs(_difference(measure, labels, there, back)) - abs(seen)
        extreme += 0.5 if abs(excess) < 1e-9 else excess > 0
    # Where nothing differs the p-value is 1.
    expected = extreme / 2**9 if abs(seen) > 1e-9 else 1.0
    test = paired_permutation(labels, a, b, measure=measure, permutations=20_000, seed=seed)
    assert test.statistic == pytest.approx(seen)
    # 20,000 permutations have a standard error of at most 0.0035.
    assert test.p_value == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("measure", MEASURES)
def test_permutation_finds_a_clear_gain_but_never_gives_zero(measure: Measure) -> None:
    labels, a, b = _pair(200, 20, gain=4.0)
    assert paired_permutation(labels, a, b, measure=measure, permutations=199).p_value == 1 / 200


@pytest.mark.parametrize("measure", MEASURES)
def test_a_predictor_may_be_exchanged_for_itself(measure: Measure) -> None:
    labels, a, _ = _pair(20, 21)
    test = paired_permutation(labels, a, a, measure=measure, permutations=99)
    assert (test.statistic, test.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("measure", MEASURES)
def test_rows_and_repeats_of_a_patient_are_exchanged_together(measure: Measure) -> None:
    labels, a, b = _pair(30, 22, gain=1.0)
    names = [f"p{i:02}" for i in range(30)]
    once = paired_permutation(labels, a, b, measure=measure, permutations=999)
    for repeats in (None, np.repeat([0, 1, 2], 30)):
        thrice = paired_permutation(
            np.tile(labels, 3),
            np.tile(a, (3, 1)),
            np.tile(b, (3, 1)),
            measure=measure,
            patients=names * 3,
            repeats=repeats,
            permutations=999,
        )
        assert (thrice.statistic, thrice.p_value) == pytest.approx((once.statistic, once.p_value))


def test_the_scale_of_a_score_does_not_matter_to_the_permuted_auc() -> None:
    labels, a, b = _pair(40, 23, gain=1.0)
    plain = paired_permutation(labels, a[:, 1], b[:, 1], measure="auc", permutations=999)
    scaled = paired_permutation(labels, a[:, 1], 1000 * b[:, 1] ** 3, measure="auc", permutations=999)
    assert plain == scaled


def test_three_classes_are_permuted_too() -> None:
    generator = np.random.default_rng(24)
    labels = np.arange(60) % 3
    a, b = (generator.dirichlet([1, 1, 1], 60) for _ in range(2))
    test = paired_permutation(labels, a, b, measure="auc", permutations=99)
    expected = [(auc_score(labels == c, a[:, c]) or 0) - (auc_score(labels == c, b[:, c]) or 0) for c in range(3)]
    assert test.statistic == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(("measure", "reason"), [("auc", "every class"), ("balanced_accuracy", "class has no case")])
def test_one_class_gives_no_p_value_where_two_are_needed(measure: Measure, reason: str) -> None:
    _, a, b = _pair(6, 25)
    test = paired_permutation([1] * 6, a, b, measure=measure)
    assert test.p_value is None
    assert test.reason is not None
    assert reason in test.reason
    assert paired_permutation([1] * 6, a, b, measure="brier").p_value is not None


def test_the_seed_decides_the_permutations() -> None:
    labels, a, b = _pair(40, 26)
    first = paired_permutation(labels, a, b, measure="brier", permutations=500, seed=1)
    assert first == paired_permutation(labels, a, b, measure="brier", permutations=500, seed=1)
    assert first != paired_permutation(labels, a, b, measure="brier", permutations=500, seed=2)


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, a, b = _pair(40, 27)
    whole = paired_permutation(labels, a, b, measure="brier", permutations=500)
    monkeypatch.setattr("osteoscope.evaluation.significance._BLOCK", 40 * 128)
    assert paired_permutation(labels, a, b, measure="brier", permutations=500) == whole


def test_permutation_refuses_what_it_cannot_judge() -> None:
    labels, a, b = _pair(6, 28)
    with pytest.raises(ValueError, match="at least one permutation"):
        paired_permutation(labels, a, b, measure="auc", permutations=0)
    with pytest.raises(ValueError, match="sum to 1"):
        paired_permutation(labels, a, 2 * b / 3, measure="brier")
    with pytest.raises(ValueError, match="probabilities must have shape"):
        paired_permutation(labels, a[:, 1], b[:, 1], measure="brier")


# Holm -----------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 3 x 0.01; 2 x 0.03; 1 x 0.04 raised to the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.6]) == (1.0, 1.0)


@pytest.mark.parametrize("number", [1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(number: int) -> None:
    # Rounded, so that some are equal.
    made = np.random.default_rng(number).random(number).round(1 + number // 20) ** 3
    assert holm(made.tolist()) == pytest.approx(tuple(multipletests(made, method="holm")[1]))


def test_a_test_that_could_not_be_made_does_not_count() -> None:
    corrected = holm([None, 0.02, None, 0.03])
    assert (corrected[0], corrected[2]) == (None, None)
    assert (corrected[1], corrected[3]) == pytest.approx((0.04, 0.04))
    assert holm([None]) == (None,)
    assert holm([]) == ()
