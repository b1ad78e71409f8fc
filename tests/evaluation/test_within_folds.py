"""The AUC of cases that one network judged."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from osteoscope.evaluation.within_folds import auc_within_folds


def figure(labels: list[int], second: Any, folds: list[int], *, repeats: int = 1, draws: int = 200) -> dict[str, Any]:
    shares = np.asarray(second, dtype=np.float64)
    patients = [f"P{place}" for place in range(len(labels) // repeats)] * repeats
    return auc_within_folds(
        labels=labels,
        probabilities=np.stack([1 - shares, shares], axis=1),
        patients=patients,
        repeats=np.repeat(np.arange(repeats), len(labels) // repeats),
        folds=folds,
        classes=("first", "second"),
        draws=draws,
    ).to_json()


def test_an_offset_between_folds_lowers_the_pooled_auc_alone() -> None:
    """Both folds rank all of their own pairs rightly, and the second says more of everybody."""
    labels, second = [0, 0, 1, 1, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert roc_auc_score(labels, second) == 0.75
    found = figure(labels, second, [0, 0, 0, 0, 1, 1, 1, 1])
    assert found["value"] == 1
    # Nothing varies: Wilson's interval with the four patients of a class.
    assert (found["low"], found["high"]) == (pytest.approx(0.5101, abs=1e-4), 1)


def test_each_pair_of_a_fold_counts_once() -> None:
    rng = np.random.default_rng(3)
    labels, folds = rng.integers(2, size=60).tolist(), rng.integers(4, size=60).tolist()
    second = np.round(rng.random(60), 1)
    pairs = [
        (second[one] > second[other]) + (second[one] == second[other]) / 2
        for one, other in product(range(60), repeat=2)
        if labels[one] == 1 and labels[other] == 0 and folds[one] == folds[other]
    ]
    found = figure(labels, second, folds)
    assert found["value"] == pytest.approx(np.mean(pairs))
    assert found["low"] < found["value"] < found["high"]
    assert found["n"] == 60


def test_with_one_fold_it_is_the_auc_and_over_repeats_the_mean() -> None:
    labels = [0, 1, 0, 1, 1, 0]
    first, again = [0.2, 0.4, 0.5, 0.9, 0.3, 0.1], [0.6, 0.4, 0.2, 0.7, 0.9, 0.3]
    found = figure(labels * 2, first + again, [0] * 12, repeats=2)
    assert found["value"] == pytest.approx((roc_auc_score(labels, first) + roc_auc_score(labels, again)) / 2)


def test_of_three_classes_it_is_the_mean_of_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    labels, folds = np.tile([0, 1, 2], 12), np.repeat([0, 1], 18)
    shares = rng.dirichlet([1, 1, 1], size=36)
    found = auc_within_folds(
        labels=labels,
        probabilities=shares,
        patients=[f"P{place}" for place in range(36)],
        repeats=np.zeros(36, dtype=int),
        folds=folds,
        classes=("a", "b", "c"),
        draws=100,
    )
    # Each fold has as many pairs of a class as the other.
    expected = [roc_auc_score(labels[folds == f] == c, shares[folds == f, c]) for f in (0, 1) for c in range(3)]
    assert found.value == pytest.approx(np.mean(expected))


def test_a_fold_of_one_class_has_no_pair() -> None:
    labels, second = [0, 0, 0, 1, 0, 1], [0.9, 0.9, 0.9, 0.6, 0.5, 0.4]
    assert figure(labels, second, [0, 0, 0, 1, 1, 1])["value"] == pytest.approx(0.5)
    nothing = figure([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    assert nothing["value"] is None
    assert "no fold holds cases of two classes" in nothing["reason"]


def test_a_patient_in_two_folds_of_a_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="one fold of a repeat"):
        auc_within_folds(
            labels=[0, 0, 1],
            probabilities=[[0.5, 0.5]] * 3,
            patients=["a", "a", "b"],
            repeats=[0, 0, 0],
            folds=[0, 1, 0],
            classes=("first", "second"),
        )
