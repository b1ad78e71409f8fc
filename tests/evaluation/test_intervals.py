"""Wilson's interval against published figures; the bootstrap against theory, scipy's BCa and simulation."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from osteoscope.evaluation import intervals, metrics

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe RG. Two-sided confidence intervals for the single proportion. Stat Med 1998;17:857-872, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    found = intervals.wilson(hits / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = intervals.wilson(1 - hits / n, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 50, 10_000])
def test_wilson_holds_its_share_and_stays_a_share(n: int) -> None:
    for hits in {0, 1, n // 2, n}:
        found = intervals.wilson(hits / n, n)
        assert 0 <= found.low <= hits / n <= found.high <= 1
        assert found.high > found.low


@pytest.mark.parametrize(("share", "n"), [(1.1, 5), (-0.1, 5), (0.5, 0), (float("nan"), 5)])
def test_wilson_refuses_what_is_no_share(share: float, n: int) -> None:
    with pytest.raises(ValueError, match="share"):
        intervals.wilson(share, n)


def test_a_patient_with_two_labels_is_refused_without_being_named() -> None:
    with pytest.raises(ValueError, match="1 patients with two") as refusal:
        intervals.group_patients(["anna", "bert", "anna"], np.array([0, 1, 1]))
    assert "anna" not in str(refusal.value)


def test_each_draw_has_as_many_patients_of_each_class_as_there_are() -> None:
    label = np.array([0, 1, 0, 1, 1, 0, 0])
    counts = intervals.draw_patients(label, draws=300, seed=1)
    assert counts.shape == (300, 7)
    assert (counts[:, label == 0].sum(axis=1) == 4).all()
    assert (counts[:, label == 1].sum(axis=1) == 3).all()
    # Each patient is drawn once on average; 300 draws have a standard error of 0.05.
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.25


def test_the_seed_decides_the_draws() -> None:
    label = np.array([0, 0, 0, 1, 1, 1])
    first = intervals.draw_patients(label, draws=50, seed=4)
    np.testing.assert_array_equal(first, intervals.draw_patients(label, draws=50, seed=4))
    assert (first != intervals.draw_patients(label, draws=50, seed=5)).any()


def test_blocks_hold_all_draws_and_their_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = intervals.group_patients(["a", "b", "a", "c"], np.array([0, 1, 0, 1]))
    whole = np.concatenate(list(intervals.weight_blocks(patients, draws=30, seed=0)))
    monkeypatch.setattr(intervals, "_BLOCK", 28)
    parts = list(intervals.weight_blocks(patients, draws=30, seed=0))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    # Both rows of patient a carry one weight.
    np.testing.assert_array_equal(whole[:, 0], whole[:, 2])


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one draw"):
        intervals.draw_patients(np.array([0, 1]), draws=0, seed=0)


def test_the_bootstrap_of_a_mean_has_the_spread_that_theory_gives() -> None:
    values = np.random.default_rng(2).normal(size=80)
    patients = intervals.group_patients([f"{i:03}" for i in range(80)], np.zeros(80, dtype=np.int64))
    weights = np.concatenate(list(intervals.weight_blocks(patients, draws=4000, seed=3)))
    spread = metrics.mean_draws(values, weights).std()
    assert spread == pytest.approx(values.std() / np.sqrt(80), rel=0.05)


def test_the_interval_of_an_auc_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(6)
    label = np.repeat([0, 1], [30, 30])
    patients = intervals.group_patients([f"{i:02}" for i in range(60)], label)
    weights = np.concatenate(list(intervals.weight_blocks(patients, draws=300, seed=7)))
    truth, hits = 0.7602, 0  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for _ in range(200):
        scores = generator.normal(size=60) + label
        value = metrics.auc_score(label == 1, scores)
        assert value is not None
        figure = intervals.bootstrap_figure(value, metrics.auc_draws(label == 1, scores, weights), n=60, smallest=30)
        assert figure.low is not None
        assert figure.high is not None
        hits += figure.low <= truth <= figure.high
    # 200 simulations at 95 % have a standard error of 1.5 %; the percentile interval falls a little short.
    assert 0.88 <= hits / 200 <= 0.99


def test_percentiles_are_the_interval_and_undefined_draws_are_left_out() -> None:
    draws = np.r_[np.linspace(0, 1, 1001), np.full(200, np.nan)]
    figure = intervals.bootstrap_figure(0.5, draws, n=9, smallest=4)
    assert (figure.value, figure.low, figure.high, figure.n) == pytest.approx((0.5, 0.025, 0.975, 9))
    assert figure.reason is None


# BCa ------------------------------------------------------------------------------------------------------------------


def test_each_patient_is_left_out_once_with_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = intervals.group_patients(["b", "a", "b", "c"], np.array([0, 1, 0, 1]))
    expected = [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]
    assert np.concatenate(list(intervals.left_out_blocks(patients))).tolist() == expected
    monkeypatch.setattr(intervals, "_BLOCK", 8)
    parts = list(intervals.left_out_blocks(patients))
    assert [len(part) for part in parts] == [2, 1]
    assert np.concatenate(parts).tolist() == expected


def _of_scipy(samples: tuple[np.ndarray, ...], statistic: Callable[..., Any], draws: np.ndarray) -> tuple[float, float]:
    """BCa of a peer, from the same draws."""
    made: Any = SimpleNamespace(bootstrap_distribution=draws)
    ends = stats.bootstrap(
        samples, statistic, n_resamples=0, vectorized=False, method="BCa", bootstrap_result=made
    ).confidence_interval
    return float(ends.low), float(ends.high)


def test_the_interval_of_a_skewed_mean_is_scipys_bca() -> None:
    values = np.random.default_rng(8).exponential(size=25)
    label = np.zeros(25, dtype=np.int64)
    draws = intervals.draw_patients(label, draws=999, seed=9) @ values / 25
    left_out = (values.sum() - values) / 24
    figure = intervals.bootstrap_figure(
        float(values.mean()),
        draws,
        n=25,
        smallest=25,
        acceleration=intervals.jackknife_acceleration(left_out, label),
    )
    assert (figure.low, figure.high) == pytest.approx(_of_scipy((values,), np.mean, draws))
    assert figure.note is None
    plain = intervals.bootstrap_figure(float(values.mean()), draws, n=25, smallest=25)
    assert figure.high is not None
    assert plain.high is not None
    assert figure.high > plain.high


@pytest.mark.parametrize("digits", [8, 0])
def test_the_interval_of_a_figure_of_two_classes_is_scipys_bca_with_ties_too(digits: int) -> None:
    generator = np.random.default_rng(10)
    label = np.repeat([0, 1], [12, 20])
    scores = np.round(generator.normal(size=32) + 1.5 * label, digits)
    patients = intervals.group_patients([f"{i:02}" for i in range(32)], label)

    def aucs(weights: np.ndarray) -> np.ndarray:
        return metrics.auc_draws(label == 1, scores, weights)

    def auc(others: np.ndarray, cases: np.ndarray) -> float:
        pairs = cases[:, None] - others[None, :]
        return float(((pairs > 0) + (pairs == 0) / 2).mean())

    draws = aucs(np.concatenate(list(intervals.weight_blocks(patients, draws=999, seed=11))))
    left_out = aucs(np.concatenate(list(intervals.left_out_blocks(patients))))
    figure = intervals.bootstrap_figure(
        float(aucs(np.ones((1, 32)))[0]),
        draws,
        n=32,
        smallest=12,
        acceleration=intervals.jackknife_acceleration(left_out, label),
    )
    expected = _of_scipy((scores[label == 0], scores[label == 1]), auc, np.round(draws, 12))
    assert (figure.low, figure.high) == pytest.approx(expected)


def test_the_acceleration_of_a_mean_is_a_sixth_of_its_skewness() -> None:
    values = np.array([0.0, 0.0, 0.0, 1.0, 5.0])
    left_out = (values.sum() - values) / 4
    found = intervals.jackknife_acceleration(np.column_stack([left_out, -left_out]), np.zeros(5, dtype=np.int64))
    expected = stats.skew(values) / 6 / np.sqrt(5)
    np.testing.assert_allclose(found, [expected, -expected])


def test_there_is_no_acceleration_without_a_whole_jackknife_or_without_spread() -> None:
    label = np.array([0, 0, 1, 1])
    left_out = np.array([[0.5, 0.1, 0.5], [0.5, 0.2, 0.5], [0.5, np.nan, 0.5], [0.5, 0.4, 0.6]])
    found = intervals.jackknife_acceleration(left_out, label)
    assert np.isnan(found).tolist() == [True, True, False]


def test_draws_that_are_even_on_both_sides_give_the_percentiles() -> None:
    # Ties with the value count on either side, so that a coarse figure is not taken for a biased one.
    draws = np.repeat([0.4, 0.5, 0.6], [300, 401, 300])
    figure = intervals.bootstrap_figure(0.5, draws, n=20, smallest=10, acceleration=0.0)
    plain = intervals.bootstrap_figure(0.5, draws, n=20, smallest=10)
    assert (figure.low, figure.high, figure.note) == (plain.low, plain.high, None)


@pytest.mark.parametrize(
    ("value", "acceleration"),
    [(0.5, np.nan), (1.1, 0.0), (-0.1, 0.0), (0.5, 0.6)],
    ids=["none", "over", "under", "big"],
)
def test_where_bca_is_undefined_the_percentiles_stand_and_are_named(value: float, acceleration: float) -> None:
    draws = np.linspace(0, 1, 1001)
    figure = intervals.bootstrap_figure(value, draws, n=9, smallest=4, bounded=False, acceleration=acceleration)
    assert (figure.low, figure.high) == pytest.approx((min(0.025, value), max(0.975, value)))
    assert figure.note is not None
    assert "percentiles" in figure.note


def test_there_is_no_interval_where_most_draws_are_undefined() -> None:
    figure = intervals.bootstrap_figure(0.5, np.r_[0.4, 0.5, 0.6, [np.nan] * 4], n=9, smallest=4)
    assert (figure.value, figure.low, figure.high) == (0.5, None, None)
    assert figure.reason is not None
    assert "half" in figure.reason


def test_a_perfect_figure_is_not_given_a_perfect_interval() -> None:
    figure = intervals.bootstrap_figure(1.0, np.ones(100), n=60, smallest=17)
    # Wilson for 17 of 17: 1 / (1 + z^2 / 17).
    assert (figure.low, figure.high) == pytest.approx((1 / (1 + 1.959964**2 / 17), 1.0), abs=1e-6)
    assert figure.note is not None
    assert "with 17 patients," in figure.note
    alone = intervals.bootstrap_figure(1.0, np.ones(100), n=60, smallest=1).note
    assert alone is not None
    assert "with 1 patient," in alone


@pytest.mark.parametrize(("value", "bounded"), [(0.5, True), (1.0, False)])
def test_draws_that_do_not_differ_give_no_interval(value: float, bounded: bool) -> None:
    figure = intervals.bootstrap_figure(value, np.full(100, value), n=60, smallest=17, bounded=bounded)
    assert (figure.value, figure.low, figure.high) == (value, None, None)
    assert figure.reason is not None


def test_a_class_of_one_patient_gives_no_bootstrap_interval() -> None:
    figure = intervals.bootstrap_figure(0.5, np.linspace(0, 1, 50), n=20, smallest=1)
    assert (figure.low, figure.high) == (None, None)
    assert figure.reason is not None
    assert "single patient" in figure.reason


def test_an_interval_holds_its_value() -> None:
    figure = intervals.bootstrap_figure(0.9, np.linspace(0.2, 0.6, 50), n=20, smallest=5)
    assert figure.high == 0.9
    figure = intervals.bootstrap_figure(0.1, np.linspace(0.2, 0.6, 50), n=20, smallest=5)
    assert figure.low == 0.1


def test_a_figure_becomes_json_with_a_reason_only_where_something_is_missing() -> None:
    whole = intervals.Figure(value=0.5, low=0.4, high=0.6, n=3)
    assert json.loads(json.dumps(whole.to_json())) == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    missing = intervals.Figure(value=None, n=3, reason="why")
    assert missing.to_json() == {"value": None, "low": None, "high": None, "n": 3, "reason": "why"}
    unusual = intervals.Figure(value=0.5, low=0.4, high=0.6, n=3, note="how")
    assert unusual.to_json() == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3, "note": "how"}
