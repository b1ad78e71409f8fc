"""A small version of benchmarks/simulation.py: intervals cover, and tests keep their level, where the truth is known.

Each simulation has its seed, so the counts do not vary; the bounds are those that chance would allow a true 95 % or 5 %
(three standard errors), a little wider where the method is known to be off in small samples.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

from osteoscope.evaluation import intervals, metrics
from osteoscope.evaluation.compare import paired_difference
from osteoscope.evaluation.delong import delong
from osteoscope.evaluation.significance import mcnemar, paired_delong, paired_permutation


def _distance(auc: float) -> float:
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def _covers(figure: intervals.Figure, truth: float) -> bool:
    return figure.low is not None and figure.high is not None and figure.low <= truth <= figure.high


@pytest.mark.parametrize(("n", "auc"), [(20, 0.7), (20, 0.95), (50, 0.85)])
def test_delongs_interval_covers_as_often_as_it_says(n: int, auc: float) -> None:
    generator = np.random.default_rng(1)
    labels, cohorts = np.repeat([0, 1], n), 800
    hits = 0
    for _ in range(cohorts):
        (figure,) = delong(labels, [generator.normal(size=2 * n) + _distance(auc) * labels]).figures()
        hits += _covers(figure, auc)
    # 800 cohorts have a standard error of 0.8 %.
    assert 0.925 <= hits / cohorts <= 0.98


@pytest.mark.parametrize("auc", [0.7, 0.95])
def test_the_bca_interval_covers_as_often_as_it_says(auc: float) -> None:
    generator = np.random.default_rng(2)
    label, n, cohorts = np.repeat([0, 1], 20), 40, 500
    patients = intervals.group_patients([f"{i:02}" for i in range(n)], label)
    left_out = np.concatenate(list(intervals.left_out_blocks(patients)))
    hits = 0
    for cohort in range(cohorts):
        scores = generator.normal(size=n) + _distance(auc) * label
        weights = np.concatenate(list(intervals.weight_blocks(patients, draws=400, seed=cohort)))
        value, drawn, without = (metrics.auc_draws(label == 1, scores, w) for w in (np.ones((1, n)), weights, left_out))
        acceleration = intervals.jackknife_acceleration(without, label)
        figure = intervals.bootstrap_figure(float(value[0]), drawn, n=n, smallest=20, acceleration=acceleration)
        hits += _covers(figure, auc)
    # 500 cohorts have a standard error of 1 %.
    assert 0.92 <= hits / cohorts <= 0.985


def test_images_taken_for_patients_would_give_too_narrow_an_interval() -> None:
    generator = np.random.default_rng(3)
    labels, auc, cohorts = np.repeat([0, 1], 30), 0.85, 200
    patients = [f"{i:02}" for i in range(60)] * 3
    hits = {"patients": 0, "rows": 0, "bootstrap": 0}
    for cohort in range(cohorts):
        shared = _distance(auc) * labels + math.sqrt(0.7) * generator.normal(size=60)
        rows = np.tile(shared, 3) + math.sqrt(0.3) * generator.normal(size=180)
        truth = np.tile(labels, 3)
        hits["patients"] += _covers(delong(truth, [rows], patients=patients).figures()[0], auc)
        hits["rows"] += _covers(delong(truth, [rows]).figures()[0], auc)
        # The difference from a constant is the AUC less a half.
        figure = paired_difference(truth, rows, np.zeros(180), patients=patients, draws=300, seed=cohort)
        hits["bootstrap"] += _covers(figure, auc - 0.5)
    assert hits["patients"] / cohorts >= 0.9
    assert hits["bootstrap"] / cohorts >= 0.9
    assert hits["rows"] / cohorts < 0.85


def test_paired_tests_reject_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    labels, distance, cohorts = np.repeat([0, 1], 40), _distance(0.8), 800
    rejected: dict[str, int] = {}
    for cohort in range(cohorts):
        shared = distance * labels + math.sqrt(0.5) * generator.normal(size=80)
        scores = shared + math.sqrt(0.5) * generator.normal(size=(2, 80))
        second = 1 / (1 + np.exp(-(distance * scores - distance**2 / 2)))
        a, b = (np.column_stack([1 - p, p]) for p in second)
        guesses = a.argmax(axis=1), b.argmax(axis=1)
        tests = {
            "delong": paired_delong(labels, a, b),
            "mid-p": mcnemar(labels, *guesses, classes=2),
            "exact": mcnemar(labels, *guesses, classes=2, mid_p=False),
            "auc": paired_permutation(labels, a, b, measure="auc", permutations=199, seed=cohort),
            "brier": paired_permutation(labels, a, b, measure="brier", permutations=199, seed=cohort),
        }
        for name, test in tests.items():
            assert test.p_value is not None
            rejected[name] = rejected.get(name, 0) + (test.p_value <= 0.05)
    for name in ("delong", "auc", "brier"):
        # 800 cohorts have a standard error of 0.8 %.
        assert 0.027 <= rejected[name] / cohorts <= 0.073, name
    # The exact test of few patients never reaches its level; the mid-p-value comes closer and does not pass it.
    assert rejected["exact"] < rejected["mid-p"] <= 0.06 * cohorts


def test_wilson_covers_as_the_binomial_distribution_says() -> None:
    generator = np.random.default_rng(5)
    for n, share in ((17, 0.7), (20, 0.95), (50, 0.85), (200, 0.9)):
        ends = [intervals.wilson(hits / n, n) for hits in range(n + 1)]
        covers = np.array([end.low <= share <= end.high for end in ends])
        exact = float(binom.pmf(np.arange(n + 1), n, share) @ covers)
        assert covers[generator.binomial(n, share, size=20_000)].mean() == pytest.approx(exact, abs=0.007)
        assert 0.91 <= exact <= 0.985
