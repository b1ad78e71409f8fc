"""How far predicted probabilities are from what came: reliability bins, calibration error and line, Brier parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import SMALLEST_PROBABILITY, checked_labels, checked_probabilities, checked_scores
from osteoscope.evaluation.intervals import wilson

if TYPE_CHECKING:
    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray

_ITERATIONS = 100
_CONVERGED = 1e-12
"""Squared length of a Newton step that no longer matters."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Cases with like predictions: what was predicted, and what came."""

    predicted: float
    """Mean predicted probability."""
    observed: float
    """Share of the class among these cases."""
    low: float
    high: float
    """Wilson's 95 % interval of the share, with the patients as its number."""
    n: int
    """Patients."""


def reliability_bins(
    positive: npt.ArrayLike, predicted: npt.ArrayLike, *, patients: npt.ArrayLike | None = None, bins: int | None = None
) -> tuple[ReliabilityBin, ...]:
    """Set predictions beside outcomes in bins of as many cases each as ties allow.

    Parameters
    ----------
    positive
        Whether each case is of the class, shape (n,).
    predicted
        The probability that it was given, shape (n,).
    patients
        Which patient each case belongs to, shape (n,); each case is its own patient if left out.
    bins
        How many bins at most; if left out, 10, but no more than leave ten cases in each.
    """
    truth, values = checked_scores(positive, predicted)
    owner = np.arange(len(values)) if patients is None else np.asarray(patients)
    index = _equal_count_bins(values, bins)
    return tuple(_reliability_bin(truth[index == b], values[index == b], owner[index == b]) for b in np.unique(index))


def _reliability_bin(truth: BoolArray, predicted: FloatArray, owner: npt.NDArray[Any]) -> ReliabilityBin:
    observed, n = float(truth.mean()), len(np.unique(owner))
    ends = wilson(observed, n)
    return ReliabilityBin(predicted=float(predicted.mean()), observed=observed, low=ends.low, high=ends.high, n=n)


def _equal_count_bins(values: FloatArray, bins: int | None) -> IntArray:
    """Bin of each value, shape (n,); equal values share a bin, so that the order of the cases does not matter."""
    if bins is not None and bins < 1:
        msg = f"at least one bin is needed, got {bins}"
        raise ValueError(msg)
    count = min(len(values), bins) if bins is not None else max(1, min(10, len(values) // 10))
    first = np.sort(values)[len(values) * np.arange(1, count) // count]
    return np.searchsorted(first, values, side="right").astype(np.int64)


def debiased_ece(positive: npt.ArrayLike, predicted: npt.ArrayLike, *, bins: int | None = None) -> float | None:
    """Estimate the expected calibration error (root mean square) in equal-count bins, less what chance adds to it.

    In a bin of n cases with mean prediction p and observed share q, chance alone makes (p - q)^2 too large by
    q (1 - q) / (n - 1) on average. The error is the root of the mean over cases of (p - q)^2 - q (1 - q) / (n - 1), or
    0 where that mean is negative. It claims no coverage. None without cases. Arguments as in `reliability_bins`.

    References
    ----------
    Kumar A, Liang P, Ma T. Verified uncertainty calibration. NeurIPS 2019. Roelofs R, Cain N, Shlens J, Mozer MC.
    Mitigating bias in calibration error estimation. AISTATS 2022 (bins of equal count).
    """
    truth, values = checked_scores(positive, predicted)
    if not len(values):
        return None
    index = _equal_count_bins(values, bins)
    excess = sum(_squared_excess(truth[index == b], values[index == b]) for b in np.unique(index))
    return math.sqrt(max(0.0, excess / len(values)))


def _squared_excess(truth: BoolArray, predicted: FloatArray) -> float:
    """Give what a bin adds to the squared error, times its cases; a single case has no spread to take off."""
    n, share = len(truth), float(truth.mean())
    return n * ((float(predicted.mean()) - share) ** 2 - share * (1 - share) / max(n - 1, 1))


@dataclass(frozen=True, kw_only=True)
class BrierParts:
    """What a Brier score is made of: ``reliability - resolution + uncertainty + spread - covariance``, exactly."""

    reliability: float
    """How far the bins' mean predictions are from what came in them; 0 is ideal."""
    resolution: float
    """How far what came in the bins is from what came overall; more is better."""
    uncertainty: float
    """What saying the overall shares of every case would score; it is not the predictor's doing."""
    spread: float
    """Variance of the predictions within the bins."""
    covariance: float
    """Twice the covariance of predictions and truth within the bins."""
    reliability_corrected: float
    """Less what chance adds; can fall below 0. Reliability, resolution and uncertainty stay balanced."""
    resolution_corrected: float
    uncertainty_corrected: float


def brier_parts(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int | None = None) -> BrierParts:
    """Part the Brier score of `metrics.brier_loss` in the bins of `reliability_bins`.

    Each class is taken against the rest and the parts are summed over the classes and halved, as the score is. Two
    classes share the bins of the second, so that the parts are those of the binary score.

    Parameters
    ----------
    labels
        Class indices, shape (n,) with n >= 1.
    probabilities
        Shape (n, K).
    bins
        As in `reliability_bins`.

    References
    ----------
    Murphy AH. A new vector partition of the probability score. J Appl Meteorol 1973;12:595-600. Stephenson DB, Coelho
    CAS, Jolliffe IT. Two extra components in the Brier score decomposition. Weather Forecast 2008;23:752-757 (spread
    and covariance). Ferro CAT, Fricker TE. A bias-corrected decomposition of the Brier score. Q J R Meteorol Soc
    2012;138:1954-1960.
    """
    shares = checked_probabilities(probabilities)
    classes = shares.shape[1]
    truth = checked_labels(labels, rows=len(shares), classes=classes)
    binned = [_equal_count_bins(shares[:, 1 if classes == 2 else c], bins) for c in range(classes)]
    parts = [_binary_parts(truth == c, shares[:, c], index) for c, index in enumerate(binned)]
    return BrierParts(**{name: sum(part[name] for part in parts) / 2 for name in parts[0]})


def _binary_parts(positive: BoolArray, predicted: FloatArray, index: IntArray) -> dict[str, float]:
    """Give the parts of one class against the rest, by the names of `BrierParts`."""
    n, truth = len(predicted), positive.astype(np.float64)
    _, index = np.unique(index, return_inverse=True)
    sizes = np.bincount(index)
    observed, said = (np.bincount(index, values) / sizes for values in (truth, predicted))
    overall = float(truth.mean())
    uncertainty = overall * (1 - overall)
    parts = {
        "reliability": float(sizes @ (said - observed) ** 2) / n,
        "resolution": float(sizes @ (observed - overall) ** 2) / n,
        "uncertainty": uncertainty,
        "spread": float(((predicted - said[index]) ** 2).mean()),
        "covariance": 2 * float(((predicted - said[index]) * (truth - observed[index])).mean()),
    }
    # A single case has no spread to take off.
    in_bins = float((sizes * observed * (1 - observed) / np.maximum(sizes - 1, 1)).sum()) / n
    in_all = uncertainty / max(n - 1, 1)
    return {
        **parts,
        "reliability_corrected": parts["reliability"] - in_bins,
        "resolution_corrected": parts["resolution"] - in_bins + in_all,
        "uncertainty_corrected": uncertainty + in_all,
    }


@dataclass(frozen=True, kw_only=True)
class CalibrationLine:
    """Logistic recalibration: logit of the truth = intercept + slope * logit of the prediction; None if undefined."""

    slope: float | None
    """1 is ideal; below 1 the predictions are too extreme, above 1 too timid."""
    intercept: float | None
    """0 is ideal; fitted together with the slope."""


def calibration_line(positive: npt.ArrayLike, predicted: npt.ArrayLike) -> CalibrationLine:
    """Fit slope and intercept by maximum likelihood.

    Undefined where the likelihood has no maximum: one class only, predictions all the same, or a threshold that
    parts the classes perfectly.

    Parameters
    ----------
    positive
        Whether each case is of the class, shape (n,).
    predicted
        The probability that it was given, shape (n,); kept 2.2e-16 away from 0 and 1.

    References
    ----------
    Cox DR. Two further applications of a model for binary regression. Biometrika 1958;45:562-565. Albert A, Anderson
    JA. On the existence of maximum likelihood estimates in logistic regression models. Biometrika 1984;71:1-10.
    """
    truth, values = checked_scores(positive, predicted)
    intercept, slope = calibration_line_draws(truth, values, np.ones((1, len(values))))[0].tolist()
    if math.isnan(slope):
        return CalibrationLine(slope=None, intercept=None)
    return CalibrationLine(slope=slope, intercept=intercept)


def calibration_line_draws(positive: BoolArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Intercept and slope in each draw, shape (draws, 2), NaN where undefined; weights have shape (draws, n)."""
    kept = np.clip(predicted, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    x = np.log(kept) - np.log1p(-kept)
    lines = np.full((len(weights), 2), np.nan)
    if not _overlap(positive, x, np.ones((1, len(x))))[0]:
        return lines
    # Standardised, the fit is well conditioned; the line of all cases is close to that of any draw.
    centre, scale = float(x.mean()), float(x.std())
    z, truth = (x - centre) / scale, positive.astype(np.float64)
    start = _fit_lines(z, truth, np.ones((1, len(x))), np.zeros((1, 2)))
    fits = _overlap(positive, x, weights)
    found = _fit_lines(z, truth, weights[fits], np.repeat(start, np.count_nonzero(fits), axis=0))
    slope = found[:, 1] / scale
    lines[fits] = np.column_stack([found[:, 0] - slope * centre, slope])
    return lines


def _overlap(positive: BoolArray, x: FloatArray, weights: FloatArray) -> BoolArray:
    """Whether, in each draw, no threshold on x parts the classes: only then has the likelihood a maximum."""
    drawn_positive, drawn_negative = (weights > 0) & positive, (weights > 0) & ~positive
    low_positive, high_positive = _extremes(x, drawn_positive)
    low_negative, high_negative = _extremes(x, drawn_negative)
    parted = (high_negative <= low_positive) | (high_positive <= low_negative)
    return ~parted & drawn_positive.any(axis=1) & drawn_negative.any(axis=1)


def _extremes(x: FloatArray, drawn: BoolArray) -> tuple[FloatArray, FloatArray]:
    return (
        np.where(drawn, x, np.inf).min(axis=1, initial=np.inf),
        np.where(drawn, x, -np.inf).max(axis=1, initial=-np.inf),
    )


def _fit_lines(x: FloatArray, y: FloatArray, weights: FloatArray, start: FloatArray) -> FloatArray:
    """Weighted logistic regression of y on x in each draw, by Newton's method with Levenberg's damping.

    Parameters
    ----------
    x, y
        Standardised predictor and truth (0 or 1), shape (n,).
    weights
        Shape (draws, n).
    start
        Intercept and slope to start from, shape (draws, 2).
    """
    lines, damping = start.copy(), np.full(len(weights), 1e-6)
    losses = _line_losses(lines, x, y, weights)
    active = np.ones(len(weights), dtype=np.bool_)
    for _ in range(_ITERATIONS):
        now = np.flatnonzero(active)
        if not now.size:
            break
        step = _newton_steps(lines[now], x, y, weights[now], damping[now])
        trial = lines[now] + step
        trial_losses = _line_losses(trial, x, y, weights[now])
        better = trial_losses <= losses[now]
        lines[now[better]], losses[now[better]] = trial[better], trial_losses[better]
        damping[now] *= np.where(better, 0.1, 10.0)
        active[now] = (step**2).sum(axis=1) > _CONVERGED
    return lines


def _newton_steps(
    lines: FloatArray, x: FloatArray, y: FloatArray, weights: FloatArray, damping: FloatArray
) -> FloatArray:
    """Solve the damped 2 x 2 Newton equation of each draw."""
    chance = (1 + np.tanh((lines[:, :1] + lines[:, 1:] * x) / 2)) / 2
    residual = weights * (y - chance)
    curvature = weights * chance * (1 - chance)
    extra = damping * weights.sum(axis=1)
    aa, ab, bb = curvature.sum(axis=1) + extra, curvature @ x, curvature @ x**2 + extra
    ga, gb = residual.sum(axis=1), residual @ x
    determinant = aa * bb - ab**2
    return np.column_stack([(bb * ga - ab * gb) / determinant, (aa * gb - ab * ga) / determinant])


def _line_losses(lines: FloatArray, x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    logit = lines[:, :1] + lines[:, 1:] * x
    losses: FloatArray = (weights * (np.logaddexp(0.0, logit) - y * logit)).sum(axis=1)
    return losses
