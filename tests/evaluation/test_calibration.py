"""Maps recovered from simulation, chosen inside, priors exchanged, and nothing heavy loaded to apply them."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.optimize import minimize as scipy_minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from osteoscope.evaluation import calibration
from osteoscope.evaluation.calibration import CalibrationMap

if TYPE_CHECKING:
    from collections.abc import Callable

EVEN = (0.5, 0.5)


def _simulated(
    *, temperature: float, share: float, n: int, seed: int, bias: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two normal classes, one apart: the exact log-likelihood ratio is x, here shifted and blown up."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < share).astype(np.int64)
    x = generator.normal(size=n) + labels - 0.5 - bias
    return temperature * np.column_stack([-x / 2, x / 2]), labels


def _temperature(logits: object, labels: object, prior: object = EVEN) -> CalibrationMap:
    return calibration.fit_calibration(logits, labels, prior, method="temperature")  # type: ignore[arg-type]


def _map(temperature: float, prior: tuple[float, ...] = EVEN, bias: tuple[float, ...] | None = None) -> CalibrationMap:
    method = "temperature" if bias is None else "affine"
    return CalibrationMap(
        method=method,  # type: ignore[arg-type]
        temperature=temperature,
        bias=bias or (0.0,) * len(prior),
        prior=prior,
    )


def _penalised(logits: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> Callable[[float, np.ndarray], float]:
    """The objective as its docstring says it, case by case."""
    counts = [int((labels == c).sum()) for c in range(len(prior))]
    weights = [prior[c] / counts[c] for c in labels]
    effective = sum(weights) ** 2 / sum(w**2 for w in weights)

    def value(s: float, bias: np.ndarray) -> float:
        total = 0.0
        for row, c, weight in zip(logits, labels, weights, strict=True):
            scores = s * row + bias + np.log(prior)
            total += weight * (np.log(np.exp(scores).sum()) - scores[c])
        return float(effective * total / sum(weights) + (s - 1 - math.log(s) + (bias**2).sum() / 2) / 0.5**2)

    return value


# Fitting --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = _simulated(temperature=temperature, share=0.5, n=20_000, seed=0)
    assert _temperature(logits, labels).temperature == pytest.approx(temperature, rel=0.05)


def test_a_known_temperature_and_bias_are_recovered() -> None:
    logits, labels = _simulated(temperature=2.0, share=0.3, n=40_000, seed=8, bias=0.8)
    found = calibration.fit_calibration(logits, labels, EVEN, method="affine")
    assert found.temperature == pytest.approx(2.0, rel=0.06)
    np.testing.assert_allclose(found.bias, [-0.4, 0.4], atol=0.03)


def test_affine_of_two_classes_is_platts_scaling() -> None:
    logits, labels = _simulated(temperature=1.7, share=0.4, n=20_000, seed=9, bias=-0.5)
    prior = (0.7, 0.3)
    found = calibration.fit_calibration(logits, labels, prior, method="affine")
    weights = np.where(labels == 1, 0.3 / labels.mean(), 0.7 / (1 - labels.mean()))
    peer = LogisticRegression(C=np.inf).fit((logits[:, 1] - logits[:, 0])[:, None], labels, sample_weight=weights)
    assert 1 / found.temperature == pytest.approx(peer.coef_[0, 0], rel=2e-3)
    assert found.bias[1] - found.bias[0] + np.log(0.3 / 0.7) == pytest.approx(peer.intercept_[0], abs=3e-3)


def test_the_mix_of_classes_in_the_cohort_does_not_matter() -> None:
    # A bias makes one class harder than the other, so that unless classes weigh alike their mix would matter.
    found = [
        _temperature(*_simulated(temperature=2.0, share=share, n=40_000, seed=1, bias=0.8)) for share in (0.5, 0.9)
    ]
    assert found[1].temperature == pytest.approx(found[0].temperature, rel=0.03)
    unbiased = _temperature(*_simulated(temperature=2.0, share=0.9, n=40_000, seed=1))
    assert unbiased.temperature == pytest.approx(2.0, rel=0.05)


def test_a_temperature_for_an_uneven_prior_is_recovered_too() -> None:
    logits, labels = _simulated(temperature=2.0, share=0.2, n=40_000, seed=2)
    found = _temperature(logits, labels, (0.8, 0.2))
    assert found.temperature == pytest.approx(2.0, rel=0.06)
    # And the probabilities mean what they say: among those near 0.4, four in ten are of the class.
    predicted = found.apply(logits)[:, 1]
    near = np.abs(predicted - 0.4) < 0.05
    assert labels[near].mean() == pytest.approx(predicted[near].mean(), abs=0.03)


def _three_classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = np.sort(generator.integers(0, 3, 60))
    logits = 2 * np.eye(3)[labels] + 2.5 * generator.normal(size=(60, 3)) + [0.5, -0.2, 0.0]
    return logits, labels, np.array([0.5, 0.3, 0.2])


def test_the_temperature_is_the_lowest_point_of_a_fine_grid() -> None:
    logits, labels, prior = _three_classes()
    value = _penalised(logits, labels, prior)
    grid = np.exp(np.linspace(-1, 2.5, 701))
    expected = grid[np.argmin([value(1 / t, np.zeros(3)) for t in grid])]
    assert _temperature(logits, labels, prior).temperature == pytest.approx(expected, rel=6e-3)


def test_the_affine_map_is_what_a_search_without_gradients_finds() -> None:
    logits, labels, prior = _three_classes()
    value = _penalised(logits, labels, prior)

    def flat(p: np.ndarray) -> float:
        return value(math.exp(p[0]), np.array([p[1], p[2], -p[1] - p[2]]))

    free = scipy_minimize(flat, np.zeros(3), method="Powell", options={"xtol": 1e-7, "ftol": 1e-12})
    found = calibration.fit_calibration(logits, labels, prior, method="affine")
    assert 1 / found.temperature == pytest.approx(math.exp(free.x[0]), rel=1e-4)
    np.testing.assert_allclose(found.bias[:2], free.x[1:], atol=1e-4)
    assert sum(found.bias) == pytest.approx(0, abs=1e-12)


def test_the_fit_is_repeatable() -> None:
    logits, labels = _simulated(temperature=1.5, share=0.4, n=100, seed=4)
    first = calibration.choose_calibration(logits, labels, EVEN)
    assert first == calibration.choose_calibration(logits, labels, EVEN)


@pytest.mark.parametrize("method", ["temperature", "affine"])
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[1.0, 2.0], [0.5, 0.1]], [1, 1]),
        ([[0.0, 0.0], [3.0, 3.0]], [0, 1]),
        ([[2.0, 0.0], [0.0, 5.0]], [0, 1]),
        (np.empty((0, 2)), np.empty(0, dtype=np.int64)),
    ],
    ids=["one class", "equal logits", "all on their right side", "no cases"],
)
def test_cases_that_tell_nothing_leave_the_network_its_own_logits(
    logits: list[list[float]], labels: list[int], method: calibration.Method
) -> None:
    found = calibration.fit_calibration(logits, labels, EVEN, method=method)
    assert found == calibration.identity_map(EVEN)
    assert calibration.choose_calibration(logits, labels, EVEN).calibration == found


def test_a_class_without_cases_gets_no_bias() -> None:
    logits = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    found = calibration.fit_calibration(logits, [0, 1, 1, 0, 0], (0.4, 0.4, 0.2), method="affine")
    assert (found.method, found.bias) == ("temperature", (0.0, 0.0, 0.0))


def test_worse_than_chance_is_turned_down_as_far_as_the_number_of_cases_allows() -> None:
    # Two cases, each 3 on its wrong side: 2 log(1 + exp(3 s)) + 4 (s - 1 - log s) is least where its slope is 0.
    s = brentq(lambda s: 6 / (1 + math.exp(-3 * s)) + 4 * (1 - 1 / s), 1e-3, 1)
    found = _temperature([[0.0, 3.0], [3.0, 0.0]], [0, 1])
    assert found.temperature == pytest.approx(1 / s, rel=1e-4)
    many = _temperature([[0.0, 3.0], [3.0, 0.0]] * 5000, [0, 1] * 5000)
    assert many.temperature == pytest.approx(np.exp(3), rel=1e-3)


def test_one_blunder_among_few_does_not_make_the_network_say_nothing() -> None:
    logits = [[3.0, 0.0]] * 5 + [[0.0, 3.0]] * 4 + [[3.0, 0.0]]
    found = _temperature(logits, [0] * 5 + [1] * 5)
    assert 1 < found.temperature < 2


# The choice of the method ---------------------------------------------------------------------------------------------


def test_a_shifted_network_gets_a_bias_and_one_that_is_too_sure_a_temperature() -> None:
    shifted = calibration.choose_calibration(*_simulated(temperature=1, share=0.5, n=200, seed=5, bias=1.0), EVEN)
    assert shifted.calibration.method == "affine"
    assert min(shifted.losses, key=lambda method: shifted.losses[method]) == "affine"
    too_sure = calibration.choose_calibration(*_simulated(temperature=4, share=0.5, n=200, seed=6), EVEN)
    assert too_sure.calibration.method == "temperature"
    assert too_sure.losses["temperature"] < too_sure.losses["none"]


@pytest.mark.parametrize(("bias", "method"), [(0.2, "temperature"), (0.3, "affine"), (0.6, "affine")])
def test_the_bias_must_gain_more_than_one_standard_error_in_cases_left_out(bias: float, method: str) -> None:
    """A naive twin: its own loop over folds, its own losses, its own error."""
    logits, labels = _simulated(temperature=1.5, share=0.4, n=60, seed=10, bias=bias)
    prior, folds = (0.6, 0.4), calibration.stratified_folds(labels, calibration.CHOICE_FOLDS)
    losses: dict[str, list[float]] = {"temperature": [], "affine": []}
    for name, of_cases in losses.items():
        for case in range(60):
            others = folds != folds[case]
            fitted = calibration.fit_calibration(logits[others], labels[others], prior, method=name)  # type: ignore[arg-type]
            of_cases.append(-math.log(fitted.apply(logits[case : case + 1])[0, labels[case]]))
    gains = [[t - a for t, a, y in zip(*losses.values(), labels, strict=True) if y == c] for c in (0, 1)]
    mean = sum(p * np.mean(g) for p, g in zip(prior, gains, strict=True))
    error = math.sqrt(sum(p**2 * np.var(g, ddof=1) / len(g) for p, g in zip(prior, gains, strict=True)))
    chosen = calibration.choose_calibration(logits, labels, prior)
    assert chosen.calibration.method == ("affine" if mean > error else "temperature") == method
    assert mean > 0
    assert chosen.losses["temperature"] - chosen.losses["affine"] == pytest.approx(mean)


def test_one_case_of_a_class_leaves_nothing_to_choose_by() -> None:
    logits, labels = _simulated(temperature=3, share=0.5, n=30, seed=11)
    labels[:] = 0
    labels[int(np.argmin(logits[:, 1]))] = 1
    chosen = calibration.choose_calibration(logits, labels, EVEN)
    assert (chosen.calibration.method, chosen.losses) == ("temperature", {})


def test_folds_hold_as_many_of_each_class_as_can_be() -> None:
    labels = np.array([0] * 13 + [1] * 7)
    folds = calibration.stratified_folds(labels, 5)
    for c, least in ((0, 2), (1, 1)):
        counts = np.bincount(folds[labels == c], minlength=5)
        assert counts.min() == least
        assert counts.max() == least + 1


def excess_losses(*, n: int, temperature: float, bias: float, draws: int, seed: int) -> dict[str, float]:
    """Mean log loss above that of the truth, of each way to calibrate on n cases a class, in 4,000 new cases."""
    generator = np.random.default_rng(seed)

    def cases(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat([0, 1], count)
        x = 1.5 * (generator.normal(size=2 * count) + 1.5 * (labels - 0.5)) + bias
        return temperature * np.column_stack([-x / 2, x / 2]), labels

    def loss(shares: np.ndarray, labels: np.ndarray) -> float:
        return float(-np.log(shares[np.arange(len(labels)), labels]).mean())

    truth = _map(temperature, bias=(bias / 2, -bias / 2))
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        (logits, labels), (new_logits, new_labels) = cases(n), cases(2000)
        ideal = loss(truth.apply(new_logits), new_labels)
        maps = {str(m): calibration.fit_calibration(logits, labels, EVEN, method=m) for m in calibration.METHODS}
        maps["chosen"] = calibration.choose_calibration(logits, labels, EVEN).calibration
        for name, one in maps.items():
            found.setdefault(name, []).append(loss(one.apply(new_logits), new_labels) - ideal)
        # What draws the temperature towards 1 left out: the most probable of a fine grid.
        scores = logits[:, 1] * np.where(labels, 2, -2)
        likeliest = min(np.geomspace(0.05, 20, 300), key=lambda t: float(np.logaddexp(0, -scores / t).mean()))
        found.setdefault("likelihood", []).append(loss(_map(likeliest).apply(new_logits), new_labels) - ideal)
        # Kept off 0 and 1, as a fit on 2 n cases must be.
        steps = IsotonicRegression(y_min=1 / (2 * n + 2), y_max=1 - 1 / (2 * n + 2), out_of_bounds="clip")
        second = steps.fit(logits[:, 1], labels).predict(new_logits[:, 1])
        found.setdefault("isotonic", []).append(loss(np.column_stack([1 - second, second]), new_labels) - ideal)
    return {name: float(np.mean(losses)) for name, losses in found.items()}


def test_the_chosen_map_pays_with_ten_cases_a_class_and_isotonic_regression_does_not() -> None:
    too_sure = excess_losses(n=10, temperature=2.0, bias=0.3, draws=30, seed=0)
    assert too_sure["chosen"] < 0.5 * too_sure["none"]
    assert too_sure["chosen"] < 0.7 * too_sure["isotonic"]
    assert too_sure["temperature"] < too_sure["likelihood"]
    right = excess_losses(n=10, temperature=1.0, bias=0.0, draws=30, seed=1)
    assert right["chosen"] < 0.02
    assert right["temperature"] < 0.5 * right["likelihood"]
    assert right["isotonic"] > 0.04


# Applying -------------------------------------------------------------------------------------------------------------


def test_equal_logits_give_the_prior() -> None:
    found = _map(2.0, (0.7, 0.2, 0.1)).apply(np.zeros((2, 3)))
    np.testing.assert_allclose(found, [[0.7, 0.2, 0.1]] * 2, atol=1e-12)


def test_apply_adds_the_bias_after_the_temperature() -> None:
    # 4 / 2 + 1 = 3 for the second class against 0 / 2 - 1 = -1 for the first: 4 apart.
    found = _map(2.0, bias=(-1.0, 1.0)).apply([[0.0, 4.0]])
    assert found[0, 1] == pytest.approx(1 / (1 + math.exp(-4)))


@pytest.mark.parametrize("bias", [(0.1, 0.1), (float("nan"), 0.0), (0.1, -0.1, 0.0)])
def test_biases_that_do_not_sum_to_zero_or_fit_the_classes_are_refused(bias: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bias"):
        _map(1.0, bias=bias)


@pytest.mark.parametrize(("method", "temperature", "bias"), [("none", 2.0, (0, 0)), ("temperature", 2.0, (1, -1))])
def test_a_value_that_the_method_does_not_have_is_refused(
    method: calibration.Method, temperature: float, bias: tuple[float, float]
) -> None:
    with pytest.raises(ValueError, match=method):
        CalibrationMap(method=method, temperature=temperature, bias=bias, prior=EVEN)


def test_apply_divides_then_adds_the_prior() -> None:
    found = _map(2.0, (0.75, 0.25)).apply([[0.0, 2 * np.log(3)]])
    # 0.75 x 1 against 0.25 x 3.
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-12)


def test_huge_logits_do_not_overflow() -> None:
    found = _map(0.05).apply([[1e30, -1e30], [-900.0, -900.0]])
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.5, 0.5]])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        _map(temperature)


@pytest.mark.parametrize("prior", [(0.5, 0.6), (1.0, 0.0), (0.5, 0.3, 0.2), (float("nan"), 0.5)])
def test_a_prior_that_is_none_is_refused(prior: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="prior"):
        _temperature([[0.0, 1.0]], [1], prior)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        _map(1.0).apply([[np.nan, 0.0]])


def test_another_prior_moves_the_odds_by_the_ratio_of_the_priors() -> None:
    # Odds 1 to 4, times (9 / 1) for the first class: 9 to 4.
    found = calibration.with_prior([[0.2, 0.8]], (0.5, 0.5), (0.9, 0.1))
    np.testing.assert_allclose(found, [[9 / 13, 4 / 13]], atol=1e-12)


def test_exchanging_priors_and_back_changes_nothing() -> None:
    generator = np.random.default_rng(5)
    probabilities, old, new = generator.dirichlet([1, 2, 3], 40), (0.6, 0.3, 0.1), (0.2, 0.2, 0.6)
    there = calibration.with_prior(probabilities, old, new)
    np.testing.assert_allclose(there.sum(axis=1), 1)
    assert np.abs(there - probabilities).max() > 0.1
    np.testing.assert_allclose(calibration.with_prior(there, new, old), probabilities, atol=1e-12)


def test_the_same_prior_divided_by_its_sum_once_more_is_the_same_map() -> None:
    shares = np.array([0.7, 0.2, 0.1]) * 3.3
    one = calibration.identity_map(shares / shares.sum())
    assert one.restated(np.array(one.prior) / sum(one.prior)) is one


def test_another_prior_is_what_a_map_restated_to_it_would_have_said() -> None:
    logits = np.random.default_rng(6).normal(size=(10, 2))
    even = _map(1.7, bias=(0.2, -0.2))
    uneven = even.restated((0.9, 0.1))
    assert (uneven.temperature, uneven.bias, uneven.method) == (even.temperature, even.bias, even.method)
    restated = calibration.with_prior(even.apply(logits), EVEN, (0.9, 0.1))
    np.testing.assert_allclose(restated, uneven.apply(logits), atol=1e-12)


def test_a_threshold_carried_to_another_map_keeps_every_case_in_its_set() -> None:
    logits = np.random.default_rng(12).normal(size=(500, 2)) * 3
    old, new = _map(1.7), _map(0.8, (0.9, 0.1), bias=(0.3, -0.3))
    for c in (0, 1):
        for threshold in (0.0, 0.05, 0.6, 1.0):
            carried = calibration.restated_threshold(threshold, c, old=old, new=new)
            held = 1 - old.apply(logits)[:, c] <= threshold
            np.testing.assert_array_equal(1 - new.apply(logits)[:, c] <= carried, held)


def _chosen(logits: np.ndarray, labels: np.ndarray) -> CalibrationMap:
    return calibration.choose_calibration(logits, labels, EVEN).calibration


def test_no_fold_has_a_say_in_its_own_map_nor_in_the_choice_of_its_method() -> None:
    logits, labels = _simulated(temperature=2.0, share=0.5, n=300, seed=7)
    folds = np.arange(300) % 3
    found = calibration.cross_fitted(logits, labels, folds=folds, fit=_chosen)
    for fold in range(3):
        held = folds == fold
        expected = _chosen(logits[~held], labels[~held])
        assert found.maps[str(fold)] == expected
        np.testing.assert_array_equal(found.probabilities[held], expected.apply(logits[held]))
    turned = np.where(folds == 0, 1 - labels, labels)
    other = calibration.cross_fitted(logits, turned, folds=folds, fit=_chosen)
    assert other.maps["0"] == found.maps["0"]
    assert other.maps["1"] != found.maps["1"]


def test_one_fold_cannot_be_calibrated_on_the_others() -> None:
    with pytest.raises(ValueError, match="two folds"):
        calibration.cross_fitted([[0.0, 1.0]], [1], folds=[0], fit=_chosen)


def test_what_prediction_needs_loads_neither_scipy_nor_scikit_learn() -> None:
    script = (
        "import sys\n"
        "from osteoscope.evaluation import calibration, conformal, localisation\n"
        "calibration.identity_map((0.5, 0.5)).apply([[0.0, 1.0]])\n"
        "print(sorted({'scipy', 'sklearn', 'pandas', 'torch', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
