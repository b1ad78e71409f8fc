"""Reliability bins, debiased calibration error, Brier parts and calibration line, against hand and a naive twin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss

from osteoscope.evaluation import reliability


def _calibrated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    predicted = generator.beta(2, 3, n)
    return generator.random(n) < predicted, predicted


def test_bins_by_hand() -> None:
    predicted = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    positive = [False, False, False, True, False, True, True, True]
    low, high = reliability.reliability_bins(positive, predicted, bins=2)
    assert (low.predicted, low.observed, low.n) == pytest.approx((0.25, 0.25, 4))
    assert (high.predicted, high.observed, high.n) == pytest.approx((0.75, 0.75, 4))
    # Wilson for 1 of 4.
    assert (low.low, low.high) == pytest.approx((0.0456, 0.6994), abs=1e-4)


def test_equal_predictions_share_a_bin() -> None:
    bins = reliability.reliability_bins([True, False] * 20, [0.5] * 40, bins=4)
    assert [(part.predicted, part.observed, part.n) for part in bins] == [(0.5, 0.5, 40)]


def test_the_order_of_the_cases_does_not_matter() -> None:
    positive, predicted = _calibrated(95, 0)
    predicted = np.round(predicted, 1)
    order = np.random.default_rng(1).permutation(95)
    shuffled = reliability.reliability_bins(positive[order], predicted[order])
    for ours, theirs in zip(reliability.reliability_bins(positive, predicted), shuffled, strict=True):
        assert (ours.predicted, ours.observed, ours.n) == pytest.approx((theirs.predicted, theirs.observed, theirs.n))


@pytest.mark.parametrize(("n", "count"), [(1, 1), (9, 1), (51, 5), (400, 10)])
def test_few_cases_get_few_bins_of_equal_size(n: int, count: int) -> None:
    predicted = np.linspace(0.01, 0.99, n)
    bins = reliability.reliability_bins(predicted > 0.5, predicted)
    assert len(bins) == count
    assert sum(part.n for part in bins) == n
    assert max(part.n for part in bins) - min(part.n for part in bins) <= 1
    assert all(part.low <= part.observed <= part.high for part in bins)


def test_views_of_one_patient_do_not_narrow_a_bin() -> None:
    (part,) = reliability.reliability_bins([True, True, False, False], [0.5] * 4, patients=["a", "a", "b", "b"])
    (twice,) = reliability.reliability_bins([True, False], [0.5] * 2)
    assert part == twice


def test_no_cases_give_no_bins_and_no_error() -> None:
    assert reliability.reliability_bins([], []) == ()
    assert reliability.debiased_ece([], []) is None


def test_debiased_error_by_hand() -> None:
    positive = np.arange(100) < 50
    # One bin of 100, share 0.5: chance adds 0.25 / 99. Off by 0.1: sqrt(0.01 - 0.0025253).
    assert reliability.debiased_ece(positive, np.full(100, 0.6)) == pytest.approx(0.086457, abs=1e-6)
    # Off by no more than chance explains, nothing is left.
    assert reliability.debiased_ece(positive, np.full(100, 0.55)) == 0.0
    # Two bins: off by 0.2 (share 1/2 of 4) and by 0.3 (share 0 of 4): mean of 0.04 - 0.25 / 3 and 0.09.
    found = reliability.debiased_ece([True, True, False, False] + [False] * 4, [0.7] * 4 + [0.3] * 4, bins=2)
    assert found == pytest.approx(np.sqrt((0.04 - 0.25 / 3 + 0.09) / 2))
    # A bin of one case is taken as it is.
    assert reliability.debiased_ece([True], [0.3]) == pytest.approx(0.7)
    assert reliability.debiased_ece([False, False], [1.0, 1.0]) == 1.0


def test_debiasing_takes_off_most_of_what_chance_adds() -> None:
    plain, debiased = [], []
    for seed in range(200):
        positive, predicted = _calibrated(120, seed)
        bins = reliability.reliability_bins(positive, predicted)
        plain.append(sum(part.n * abs(part.predicted - part.observed) for part in bins) / 120)
        error = reliability.debiased_ece(positive, predicted)
        assert error is not None
        debiased.append(error)
    # The predictions are perfectly calibrated: the true error is 0.
    assert np.mean(plain) > 0.08
    assert np.mean(debiased) < 0.4 * np.mean(plain)


def _naive_line(positive: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = np.log(predicted / (1 - predicted)), positive.astype(float)

    def loss(line: np.ndarray) -> float:
        eta = line[0] + line[1] * x
        return float(weights @ (np.logaddexp(0, eta) - y * eta))

    found = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    return np.asarray(found.x)


def test_the_line_agrees_with_a_naive_fit_in_every_draw() -> None:
    positive, predicted = _calibrated(60, 2)
    weights = np.random.default_rng(3).integers(0, 4, size=(8, 60)).astype(float)
    found = reliability.calibration_line_draws(positive, predicted, weights)
    for line, weight in zip(found, weights, strict=True):
        np.testing.assert_allclose(line, _naive_line(positive, predicted, weight), atol=1e-5)


def test_calibrated_predictions_have_slope_one_and_intercept_nought() -> None:
    line = reliability.calibration_line(*_calibrated(20_000, 4))
    assert (line.slope, line.intercept) == pytest.approx((1.0, 0.0), abs=0.06)


def test_a_known_distortion_is_found() -> None:
    positive, predicted = _calibrated(20_000, 5)
    # Logits doubled and shifted by 1: the truth is 0.5 x (logit - 1).
    distorted = 1 / (1 + np.exp(-(2 * np.log(predicted / (1 - predicted)) + 1)))
    line = reliability.calibration_line(positive, distorted)
    assert (line.slope, line.intercept) == pytest.approx((0.5, -0.5), abs=0.05)


@pytest.mark.parametrize(
    ("positive", "predicted"),
    [
        ([True, True], [0.2, 0.8]),
        ([True, False], [0.5, 0.5]),
        ([False, False, True, True], [0.1, 0.2, 0.7, 0.9]),
        ([True, True, False, False], [0.1, 0.2, 0.7, 0.9]),
        ([False, True, False, True], [0.1, 0.4, 0.4, 0.9]),
        ([], []),
    ],
    ids=["one class", "constant", "parted", "parted the wrong way", "parted but for a tie", "no cases"],
)
def test_a_line_that_does_not_exist_is_none(positive: list[bool], predicted: list[float]) -> None:
    assert reliability.calibration_line(positive, predicted) == reliability.CalibrationLine(slope=None, intercept=None)


def test_a_draw_that_parts_the_classes_is_marked_undefined() -> None:
    positive, predicted = np.array([False, True, False, True]), np.array([0.2, 0.3, 0.4, 0.9])
    weights = np.array([[1.0, 1, 1, 1], [2.0, 0, 1, 1]])
    found = reliability.calibration_line_draws(positive, predicted, weights)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_certain_predictions_of_0_and_1_still_give_a_finite_line() -> None:
    line = reliability.calibration_line([False, True, False, True], [0.0, 1.0, 1.0, 0.5])
    assert line.slope is not None
    assert line.intercept is not None
    assert np.isfinite([line.slope, line.intercept]).all()


def test_an_almost_parted_sample_converges() -> None:
    predicted = np.r_[np.linspace(0.01, 0.4, 40), 0.401, 0.400, np.linspace(0.41, 0.99, 40)]
    positive = np.r_[np.zeros(40), 0, 1, np.ones(40)].astype(bool)
    line = reliability.calibration_line(positive, predicted)
    assert line.slope is not None
    assert line.intercept is not None
    x = np.log(predicted / (1 - predicted))
    chance = 1 / (1 + np.exp(-(line.intercept + line.slope * x)))
    # At the maximum of the likelihood both scores vanish.
    assert abs((positive - chance).sum()) < 1e-5
    assert abs(((positive - chance) * x).sum()) < 1e-5


def _score(parts: reliability.BrierParts) -> float:
    return parts.reliability - parts.resolution + parts.uncertainty + parts.spread - parts.covariance


def test_brier_parts_by_hand() -> None:
    parts = reliability.brier_parts([0, 1, 1, 1], [[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]], bins=2)
    # Observed 1/2 and 1 where 0.2 and 0.8 were said; 3/4 overall.
    assert parts.reliability == pytest.approx((2 * 0.3**2 + 2 * 0.2**2) / 4)
    assert parts.resolution == pytest.approx((2 * 0.25**2 + 2 * 0.25**2) / 4)
    assert parts.uncertainty == pytest.approx(0.75 * 0.25)
    assert (parts.spread, parts.covariance) == pytest.approx((0.0, 0.0))
    # Chance adds 2 (1/4) / (2 - 1) in the first bin, nothing in the second, over 4 cases; overall 3/16 over 3.
    assert parts.reliability_corrected == pytest.approx(0.065 - 0.125)
    assert parts.resolution_corrected == pytest.approx(0.0625 - 0.125 + 0.0625)
    assert parts.uncertainty_corrected == pytest.approx(0.1875 + 0.0625)


@pytest.mark.parametrize("bins", [None, 1, 3, 400])
def test_two_classes_parts_sum_to_the_brier_score(bins: int | None) -> None:
    positive, predicted = _calibrated(400, 6)
    parts = reliability.brier_parts(positive, np.column_stack([1 - predicted, predicted]), bins=bins)
    expected = brier_score_loss(positive, predicted)
    assert _score(parts) == pytest.approx(expected, abs=1e-12)
    corrected = parts.reliability_corrected - parts.resolution_corrected + parts.uncertainty_corrected
    assert corrected + parts.spread - parts.covariance == pytest.approx(expected, abs=1e-12)


def test_parts_of_several_classes_sum_to_half_the_squared_distance() -> None:
    generator = np.random.default_rng(7)
    shares, labels = generator.dirichlet(np.ones(4), 150), generator.integers(4, size=150)
    distance = ((shares - np.eye(4)[labels]) ** 2).sum(axis=1).mean()
    assert _score(reliability.brier_parts(labels, shares)) == pytest.approx(distance / 2, abs=1e-12)


def test_spread_and_covariance_within_the_bins_by_a_naive_loop() -> None:
    positive, predicted = _calibrated(60, 8)
    parts = reliability.brier_parts(positive, np.column_stack([1 - predicted, predicted]), bins=3)
    order = np.argsort(predicted)
    spread = covariance = 0.0
    for rows in np.split(order, 3):
        f, o = predicted[rows], positive[rows].astype(float)
        spread += sum((x - f.mean()) ** 2 for x in f) / 60
        covariance += 2 * sum((x - f.mean()) * (y - o.mean()) for x, y in zip(f, o, strict=True)) / 60
    assert (parts.spread, parts.covariance) == pytest.approx((spread, covariance))


def test_corrected_reliability_is_the_square_of_the_debiased_error() -> None:
    positive, predicted = _calibrated(90, 9)
    one = reliability.brier_parts(positive, np.column_stack([1 - predicted, predicted]))
    error = reliability.debiased_ece(positive, predicted)
    assert error is not None
    assert max(0.0, one.reliability_corrected) == pytest.approx(error**2)


def test_correction_takes_off_what_chance_adds_to_reliability() -> None:
    parts = []
    for seed in range(300):
        positive, predicted = _calibrated(100, seed)
        parts.append(reliability.brier_parts(positive, np.column_stack([1 - predicted, predicted])))
    # The predictions are perfectly calibrated: the true reliability is 0 but for the spread of a bin.
    assert np.mean([part.reliability for part in parts]) > 0.012
    assert abs(np.mean([part.reliability_corrected for part in parts])) < 0.002


def test_one_case_and_one_class_have_parts_too() -> None:
    one = reliability.brier_parts([0], [[0.7, 0.3]])
    assert (one.reliability, one.resolution, one.uncertainty) == pytest.approx((0.09, 0.0, 0.0))
    same = reliability.brier_parts([1, 1], [[0.5, 0.5], [0.5, 0.5]])
    assert (same.reliability, same.resolution, same.uncertainty) == pytest.approx((0.25, 0.0, 0.0))


@pytest.mark.parametrize(
    ("labels", "shares", "message"),
    [
        ([2], [[0.5, 0.5]], "lie in 0..1"),
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([0], [[np.nan, 0.5]], "finite"),
        ([0], [[0.9, 0.5]], "sum to 1"),
    ],
)
def test_parts_of_what_is_no_prediction_are_refused(labels: list[int], shares: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reliability.brier_parts(labels, shares)
