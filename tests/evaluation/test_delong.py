"""DeLong's AUCs and covariance against pair counting, a naive twin and scikit-learn; clusters, ties and edges."""

from __future__ import annotations

import json
import math
import time
from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from osteoscope.evaluation.delong import AucComponents, delong, delong_by_class
from osteoscope.evaluation.intervals import draw_patients, wilson
from osteoscope.evaluation.metrics import class_auc_draws

Z = 1.959964


def _beats(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def _naive(positive: np.ndarray, scores: np.ndarray, patients: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """AUC and covariance of predictors, shape (n, k), pair by pair; Obuchowski 1997, equations 3 to 5."""
    cases, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    pairs = np.array([[[_beats(s[i], s[j]) for j in others] for i in cases] for s in scores.T])
    auc = pairs.mean(axis=(1, 2))
    covariance = np.zeros((len(auc), len(auc)))
    for rows, components in ((cases, pairs.mean(axis=2)), (others, pairs.mean(axis=1))):
        owners = sorted({patients[row] for row in rows})
        sums = {owner: np.zeros(len(auc)) for owner in owners}
        for place, row in enumerate(rows):
            sums[patients[row]] += components[:, place] - auc
        count = len(owners)
        spread = sum(np.outer(total, total) for total in sums.values()) * count / (count - 1) / len(rows)
        covariance += spread / len(rows)
    return auc, covariance


def _tied(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.4).astype(np.int64)
    labels[:4] = [0, 1, 0, 1]
    shared = generator.normal(size=n) + labels
    return labels, np.round(np.column_stack([shared + generator.normal(size=n) for _ in range(k)]), 1)


def test_two_patients_of_each_class_by_hand() -> None:
    # Cases 3 and 1 against others 2 and 0: 3 beats both, 1 beats one.
    found = delong([1, 1, 0, 0], [[3.0, 1.0, 2.0, 0.0]])
    assert found.value.tolist() == [0.75]
    # Components of the cases 1 and 0.5, of the others 0.5 and 1: each has variance 0.125, over 2 patients.
    assert found.covariance.tolist() == [[pytest.approx(0.125 / 2 + 0.125 / 2)]]


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_covariance_are_those_of_counting_pairs(seed: int) -> None:
    labels, scores = _tied(30, 3, seed)
    auc, covariance = _naive(labels == 1, scores, [str(i) for i in range(30)])
    found = delong(labels, list(scores.T))
    np.testing.assert_allclose(found.value, auc, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_is_that_of_scikit_learn(seed: int) -> None:
    labels, scores = _tied(200, 2, seed)
    found = delong(labels, list(scores.T))
    np.testing.assert_allclose(found.value, [roc_auc_score(labels, s) for s in scores.T], rtol=1e-12)


def test_patients_with_several_rows_are_those_of_counting_pairs_and_summing_by_patient() -> None:
    generator = np.random.default_rng(1)
    rows = generator.integers(1, 5, size=16)
    labels = np.repeat(np.arange(16) % 2, rows)
    patients = np.repeat([f"p{i:02}" for i in range(16)], rows).tolist()
    scores = np.round(np.repeat(generator.normal(size=(16, 2)), rows, axis=0) + labels[:, None], 1)
    scores += np.round(generator.normal(size=scores.shape), 1)
    auc, covariance = _naive(labels == 1, scores, patients)
    found = delong(labels, list(scores.T), patients=patients)
    np.testing.assert_allclose(found.value, auc, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)


def test_neither_copies_nor_repeats_of_a_patient_add_certainty() -> None:
    labels, scores = _tied(40, 2, 6)
    names = [f"p{i:02}" for i in range(40)]
    once = delong(labels, list(scores.T), patients=names)
    thrice = np.tile(scores, (3, 1)).T
    for repeats in (None, np.repeat([0, 1, 2], 40)):
        again = delong(np.tile(labels, 3), list(thrice), patients=names * 3, repeats=repeats)
        np.testing.assert_allclose(again.value, once.value)
        np.testing.assert_allclose(again.covariance, once.covariance)


def test_repeats_that_err_apart_are_averaged_patient_by_patient() -> None:
    labels, scores = _tied(40, 2, 7)
    names = [f"p{i:02}" for i in range(40)]
    found = delong(np.tile(labels, 2), [scores.T.ravel()], patients=names * 2, repeats=np.repeat([0, 1], 40))
    apart = delong(labels, list(scores.T), patients=names)
    # The AUC is the mean of two, so its variance is that of a mean.
    assert found.value[0] == pytest.approx(apart.value.mean())
    assert found.covariance[0, 0] == pytest.approx(apart.covariance.sum() / 4)
    assert found.covariance[0, 0] < apart.covariance[0, 0]


def test_three_classes_have_the_spread_that_the_bootstrap_finds() -> None:
    generator = np.random.default_rng(8)
    labels = np.arange(150) % 3
    raised = np.exp(generator.normal(size=(150, 3)) + 1.2 * np.eye(3)[labels])
    shares = raised / raised.sum(axis=1, keepdims=True)
    found = delong_by_class(labels, shares)
    np.testing.assert_allclose(found.value, [roc_auc_score(labels == c, shares[:, c]) for c in range(3)])
    drawn = class_auc_draws(labels, shares, draw_patients(labels, draws=4000, seed=9).astype(float))
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), drawn.std(axis=0), rtol=0.06)
    mean = found.mean()
    assert mean.value[0] == pytest.approx(found.value.mean())
    assert mean.covariance[0, 0] == pytest.approx(found.covariance.mean())
    assert math.sqrt(mean.covariance[0, 0]) == pytest.approx(drawn.mean(axis=1).std(), rel=0.06)
    np.testing.assert_allclose(delong(labels, [shares]).covariance, mean.covariance)


def test_both_classes_of_one_softmax_have_one_auc_and_one_variance() -> None:
    labels, scores = _tied(50, 1, 10)
    second = 1 / (1 + np.exp(-scores[:, 0]))
    found = delong_by_class(labels, np.column_stack([1 - second, second]))
    assert found.value[0] == found.value[1]
    np.testing.assert_allclose(found.covariance, found.covariance[0, 0])
    assert found.covariance[0, 0] == pytest.approx(delong(labels, [second]).covariance[0, 0])


def test_the_interval_is_taken_on_the_logit_scale() -> None:
    labels, scores = _tied(60, 1, 11)
    found = delong(labels, [scores[:, 0]])
    (figure,) = found.figures()
    value = float(found.value[0])
    error = math.sqrt(found.covariance[0, 0]) / (value * (1 - value))
    ends = [1 / (1 + math.exp(-(math.log(value / (1 - value)) + sign * Z * error))) for sign in (-1, 1)]
    assert (figure.value, figure.low, figure.high, figure.n) == pytest.approx((value, *ends, 60), rel=1e-6)
    assert (figure.reason, figure.note) == (None, None)


def test_a_difference_has_the_variance_of_a_difference() -> None:
    labels, scores = _tied(60, 3, 12)
    found = delong(labels, list(scores.T))
    (figure,) = found.difference(0, 2).difference_figures()
    c = found.covariance
    half = Z * math.sqrt(c[0, 0] + c[2, 2] - 2 * c[0, 2])
    value = found.value[0] - found.value[2]
    assert (figure.value, figure.low, figure.high) == pytest.approx((value, value - half, value + half), rel=1e-6)


def test_a_predictor_differs_from_itself_by_nothing() -> None:
    labels, scores = _tied(60, 1, 13)
    (figure,) = delong(labels, [scores[:, 0], np.exp(scores[:, 0])]).difference(0, 1).difference_figures()
    assert (figure.value, figure.low) == (0.0, None)
    assert figure.reason == "no interval: the variance is 0"


@pytest.mark.parametrize(("sign", "value"), [(1.0, 1.0), (-1.0, 0.0)])
def test_perfect_ranks_get_wilsons_interval_for_the_smallest_class_and_say_so(sign: float, value: float) -> None:
    labels = np.repeat([0, 1], [30, 10])
    (figure,) = delong(labels, [sign * (np.arange(40) + 100 * labels)]).figures()
    ends = wilson(value, 10)
    assert (figure.value, figure.low, figure.high) == (value, ends.low, ends.high)
    assert figure.note is not None
    assert "10 patients" in figure.note


@pytest.mark.parametrize(("classes", "repeats"), list(product([2, 3, 6, 7], [1, 3, 7])))
def test_an_auc_is_never_above_one(classes: int, repeats: int) -> None:
    labels = np.tile(np.arange(77 * classes) % classes, repeats)
    shares = np.full((len(labels), classes), 0.1 / classes)
    shares[np.arange(len(labels)), labels] += 0.9
    names = [f"p{i:03}" for i in range(77 * classes)] * repeats
    turn = np.repeat(np.arange(repeats), 77 * classes)
    found = delong(labels, [shares], patients=names, repeats=turn)
    assert found.value.tolist() == [1.0]
    assert found.figures()[0].high == 1.0


def test_scores_that_are_all_the_same_are_worth_a_half_without_an_interval() -> None:
    (figure,) = delong([0, 0, 1, 1], [[0.3] * 4]).figures()
    assert figure.to_json() == {
        "value": 0.5,
        "low": None,
        "high": None,
        "n": 4,
        "reason": "no interval: the variance is 0",
    }


def test_one_class_has_no_auc_and_no_difference() -> None:
    found = delong([1, 1, 1], [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    for figure in (*found.figures(), *found.difference(0, 1).difference_figures()):
        assert (figure.value, figure.reason) == (None, "it takes cases of every class")


def test_a_class_of_one_patient_has_a_value_but_no_interval() -> None:
    found = delong([0, 0, 0, 1, 1], [[0.1, 0.5, 0.3, 0.4, 0.4]], patients=["a", "b", "c", "d", "d"])
    (figure,) = found.figures()
    assert figure.value == pytest.approx(2 / 3)
    assert (figure.low, figure.reason) == (None, "no interval: a class has a single patient")


def test_two_patients_give_a_value_without_pretending_to_much() -> None:
    (figure,) = delong([0, 1], [[0.2, 0.7]]).figures()
    ends = wilson(1.0, 1)
    assert (figure.value, figure.low, figure.high) == (1.0, ends.low, 1.0)


def test_a_class_without_patients_leaves_the_others_their_auc() -> None:
    shares = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    found = delong_by_class([0, 1, 1, 0], shares)
    first, second, third = found.figures()
    assert (first.value, second.value) == (0.5, 0.5)
    assert (third.value, found.mean().figures()[0].value) == (None, None)
    json.dumps([figure.to_json() for figure in (first, second, third)], allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "scores", "options", "message"),
    [
        ([0, 1], [], {}, "at least one predictor"),
        ([0, 1], [[0.1, np.nan]], {}, "finite"),
        ([0, 1], [[0.1, 0.2], [0.1, 0.2, 0.3]], {}, "same rows"),
        ([0, 1, 1], [[0.1, 0.2]], {}, "labels must have shape"),
        ([0, 2], [[0.1, 0.2]], {}, r"0\.\.1"),
        ([0, 1], [[0.1, 0.2]], {"patients": ["a", "a"]}, "one label"),
        ([0, 1], [[0.1, 0.2]], {"patients": ["a"]}, "name is needed"),
        ([0, 1], [[0.1, 0.2]], {"repeats": [0]}, "repeats must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    labels: list[int], scores: list[list[float]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        delong(labels, scores, **options)


def test_probabilities_by_class_must_be_a_distribution() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        delong_by_class([0, 1], [[0.5, 0.4], [0.5, 0.5]])


def test_ten_thousand_patients_take_less_than_a_tenth_of_a_second() -> None:
    labels, scores = _tied(10_000, 2, 14)
    names = [f"p{i:05}" for i in range(10_000)]

    def once() -> float:
        start = time.process_time()
        found: AucComponents = delong(labels, list(scores.T), patients=names)
        found.difference(0, 1).difference_figures()
        return time.process_time() - start

    assert min(once() for _ in range(3)) < 0.1
