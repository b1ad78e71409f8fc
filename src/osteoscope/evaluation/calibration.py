"""Probabilities that mean what they say: a calibration map with its class prior, fitted and chosen on few cases.

The network is trained with its class prior taken out (logit adjustment), so its logits are log-likelihood ratios up
to a constant; a probability is made by ``softmax(logits / temperature + bias + log prior)``. Applying that needs numpy
only; scipy is imported where a map is fitted.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from osteoscope.evaluation.arrays import (
    checked_labels,
    checked_logits,
    checked_prior,
    checked_probabilities,
    names_as_index,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray

Method = Literal["none", "temperature", "affine"]
"""``none``: the network's own logits. ``temperature``: one factor. ``affine``: a factor and a bias a class, which for
two classes is Platt scaling."""

METHODS: tuple[Method, ...] = get_args(Method)
"""From the simplest on."""

SPREAD = 0.5
"""What is expected of a network before any case is seen: how far from 0 the logarithm of its temperature lies, and each
class's bias (as the standard deviation of a prior)."""

CHOICE_FOLDS = 5
"""Of the cross-validation that chooses the method."""

LOG_TEMPERATURE_LIMIT = 3.0
"""A temperature is sought between exp(-3) = 0.05 and exp(3) = 20."""

_BIAS_TOLERANCE = 1e-9
"""How far from 0 the biases of a map may sum."""


# From logits to probabilities -----------------------------------------------------------------------------------------


def softmax(logits: FloatArray) -> FloatArray:
    """Turn logits into probabilities over the last axis, without overflow."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: FloatArray = raised / raised.sum(axis=-1, keepdims=True)
    return shares


@dataclass(frozen=True, kw_only=True)
class CalibrationMap:
    """How a network's logits become probabilities.

    Raises
    ------
    ValueError
        If the temperature is not positive and finite, the biases do not sum to 0, the prior is not positive with sum
        1, or a value is set that the method does not have.
    """

    method: Method
    temperature: float
    """Above 1 the network was too sure of itself, below 1 not sure enough."""
    bias: tuple[float, ...]
    """What is added to each class's logit, after the temperature; the sum is 0."""
    prior: tuple[float, ...]
    """Share of each class that the probabilities assume."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            msg = f"the temperature must be positive, got {self.temperature}"
            raise ValueError(msg)
        checked_prior(self.prior, classes=len(self.prior))
        # Written so that a NaN is refused too.
        if len(self.bias) != len(self.prior) or not abs(sum(self.bias)) <= _BIAS_TOLERANCE:
            msg = f"a bias is needed for each of {len(self.prior)} classes, with sum 0, got {self.bias}"
            raise ValueError(msg)
        if (self.method == "none" and self.temperature != 1) or (self.method != "affine" and any(self.bias)):
            msg = f"the method {self.method} has no temperature of {self.temperature} with biases {self.bias}"
            raise ValueError(msg)

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Give class probabilities, shape (n, K), from logits, shape (n, K)."""
        array = checked_logits(logits)
        prior = checked_prior(self.prior, classes=array.shape[1])
        return softmax(array / self.temperature + np.array(self.bias) + np.log(prior))

    def restated(self, prior: npt.ArrayLike) -> Self:
        """Assume another class prior and change nothing else, which is what `with_prior` does to probabilities."""
        shares = _shares(prior, classes=len(self.prior))
        # Rounding in what is divided by its sum once more is no other prior.
        return self if np.allclose(shares, self.prior, rtol=1e-12, atol=0) else dataclasses.replace(self, prior=shares)


def identity_map(prior: npt.ArrayLike) -> CalibrationMap:
    """Take the network's logits as they are, under a class prior of shape (K,)."""
    shares = _shares(prior, classes=len(np.atleast_1d(prior)))
    return CalibrationMap(method="none", temperature=1.0, bias=(0.0,) * len(shares), prior=shares)


def with_prior(probabilities: npt.ArrayLike, old: npt.ArrayLike, new: npt.ArrayLike) -> FloatArray:
    """Say what the probabilities would be if the classes were as frequent as `new` instead of `old`.

    Parameters
    ----------
    probabilities
        Shape (n, K).
    old, new
        Class priors, shape (K,).

    References
    ----------
    Saerens M, Latinne P, Decaestecker C. Adjusting the outputs of a classifier to new a priori probabilities. Neural
    Comput 2002;14:21-41, equation 2.4.
    """
    shares = checked_probabilities(probabilities)
    ratio = checked_prior(new, classes=shares.shape[1]) / checked_prior(old, classes=shares.shape[1])
    scaled = shares * ratio
    adjusted: FloatArray = scaled / scaled.sum(axis=1, keepdims=True)
    return adjusted


def restated_threshold(threshold: float, c: int, *, old: CalibrationMap, new: CalibrationMap) -> float:
    """Carry a conformal threshold of one of two classes from one map to another of the same logits.

    Of two classes each probability grows with the difference of the logits alone, under either map, so the same cases
    have class `c` in their prediction set.

    Parameters
    ----------
    threshold
        The largest 1 - probability of class `c` under `old` that is in the set, in [0, 1].
    c
        0 or 1.
    old, new
        Maps of two classes.
    """
    if threshold in {0.0, 1.0}:
        return threshold
    sign = 2 * c - 1
    # The logit of class c's probability is sign * (difference of the logits / temperature + shift).
    log_odds = math.log1p(-threshold) - math.log(threshold)
    difference = (sign * log_odds - _shift(old)) * old.temperature
    return float(softmax(np.array([0.0, sign * (difference / new.temperature + _shift(new))]))[0])


def _shift(one: CalibrationMap) -> float:
    return one.bias[1] - one.bias[0] + math.log(one.prior[1] / one.prior[0])


def _shares(prior: npt.ArrayLike, *, classes: int) -> tuple[float, ...]:
    return tuple(checked_prior(prior, classes=classes).tolist())


# Fitting a map --------------------------------------------------------------------------------------------------------


def fit_calibration(
    logits: npt.ArrayLike, labels: npt.ArrayLike, prior: npt.ArrayLike, *, method: Method
) -> CalibrationMap:
    """Find the map under which the true classes are most probable, drawn towards the network's own logits.

    Minimises, over s = 1 / temperature and the biases b, the negative log-likelihood of ``softmax(s logits + b + log
    prior)`` with each class weighted to count as its share in `prior`, so that the cohort's own mix of classes does not
    matter, plus ``(s - 1 - log s + sum(b^2) / 2) / SPREAD^2``: a Gamma prior on s with its mode at 1, and a normal one
    on each bias. The weights sum to Kish's effective number of cases, so that the priors fade as cases come. Both
    terms are convex in s and b, so there is one minimum, also where a threshold parts the classes.

    The map is the network's own (``none``) where the cases cannot tell another: fewer than two classes, logits that do
    not differ between classes, or every case on its right side. Of ``affine`` the temperature alone is fitted where a
    class has no case, since nothing speaks of its bias.

    Parameters
    ----------
    logits
        Of cases that the network was not fitted on, one a patient, shape (n, K); log-likelihood ratios up to a
        constant.
    labels
        Class indices, shape (n,).
    prior
        The prior that the probabilities shall assume, shape (K,).
    method
        What may be fitted.

    References
    ----------
    Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017. Platt J. Probabilistic
    outputs for support vector machines. In: Advances in large margin classifiers. MIT Press 2000:61-74. Kish L. Survey
    sampling. Wiley 1965 (effective number).
    """
    array, truth, shares = _checked(logits, labels, prior)
    if method == "none" or not _tell_something(array, truth):
        return identity_map(shares)
    affine = method == "affine" and len(np.unique(truth)) == len(shares)
    temperature, bias = _most_probable(array, truth, shares, affine=affine)
    return CalibrationMap(
        method="affine" if affine else "temperature", temperature=temperature, bias=bias, prior=tuple(shares.tolist())
    )


def _checked(
    logits: npt.ArrayLike, labels: npt.ArrayLike, prior: npt.ArrayLike
) -> tuple[FloatArray, IntArray, FloatArray]:
    array = checked_logits(logits)
    truth = checked_labels(labels, rows=len(array), classes=array.shape[1])
    return array, truth, checked_prior(prior, classes=array.shape[1])


def _tell_something(logits: FloatArray, labels: IntArray) -> bool:
    """Whether some case speaks for a higher temperature: one whose own logit is not the highest."""
    own = logits[np.arange(len(labels)), labels]
    return len(np.unique(labels)) > 1 and bool((own < logits.max(axis=1)).any())


def _most_probable(
    logits: FloatArray, labels: IntArray, prior: FloatArray, *, affine: bool
) -> tuple[float, tuple[float, ...]]:
    """Give temperature and biases; over log s, which has the same single minimum as s and needs no bound at 0."""
    from scipy.optimize import minimize

    weights = (prior / np.maximum(np.bincount(labels, minlength=len(prior)), 1))[labels]
    weights *= weights.sum() / (weights @ weights)
    truth = np.eye(len(prior))[labels]

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        log_s, bias = float(parameters[0]), parameters[1:]
        s = math.exp(log_s)
        shares = softmax(s * logits + bias + np.log(prior))
        excess = weights[:, None] * (shares - truth)
        value = -weights @ np.log(np.maximum(shares[truth == 1], np.finfo(np.float64).tiny))
        value += (s - 1 - log_s + bias @ bias / 2) / SPREAD**2
        by_log_s = s * float((excess * logits).sum()) + (s - 1) / SPREAD**2
        return float(value), np.array([by_log_s, *(excess.sum(axis=0) + bias / SPREAD**2)])

    limit = LOG_TEMPERATURE_LIMIT
    found = minimize(
        loss,
        np.zeros(1 + len(prior)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-limit, limit), *[(None, None) if affine else (0.0, 0.0)] * len(prior)],
        options={"ftol": 1e-14, "gtol": 1e-8},
    )
    # The gradient keeps the biases' sum at 0 but for rounding.
    bias = found.x[1:] - found.x[1:].mean()
    return math.exp(-float(found.x[0])), tuple(bias.tolist())


# Choosing the method --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChosenCalibration:
    """A map, and what its method was chosen by."""

    calibration: CalibrationMap
    losses: dict[Method, float]
    """Cross-validated log loss of each method, each class weighted by its share in the prior; empty where the cases
    were too few to choose."""


def choose_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike, prior: npt.ArrayLike) -> ChosenCalibration:
    """Choose between temperature and affine by cross-validation on these cases, then fit the chosen one on them all.

    The bias is taken only where it lowers the log loss by more than one standard error of the paired difference
    (Breiman's rule in favour of the simpler). ``none`` is judged beside them but not in the running: drawn towards the
    network's own logits, a temperature costs little where none is needed and saves much where the network is too sure.
    With fewer than two cases of a class there is nothing to choose by, and a temperature is fitted.

    Parameters
    ----------
    logits, labels, prior
        As in `fit_calibration`.

    References
    ----------
    Breiman L, Friedman J, Olshen R, Stone C. Classification and regression trees. Wadsworth 1984, section 3.4.3.
    """
    array, truth, shares = _checked(logits, labels, prior)
    counts = np.bincount(truth, minlength=len(shares))
    if counts.min() < 2:
        fitted = fit_calibration(array, truth, shares, method="temperature")
        return ChosenCalibration(calibration=fitted, losses={})
    folds = stratified_folds(truth, CHOICE_FOLDS)
    terms = {method: _held_out_losses(array, truth, shares, folds=folds, method=method) for method in METHODS}
    gain = terms["temperature"] - terms["affine"]
    # The variance of a mean weighted by class: each class's own variance over its cases.
    error = math.sqrt(sum(shares[c] ** 2 * gain[truth == c].var(ddof=1) / counts[c] for c in range(len(shares))))
    best: Method = "affine" if _by_class(gain, truth, shares) > error else "temperature"
    return ChosenCalibration(
        calibration=fit_calibration(array, truth, shares, method=best),
        losses={method: _by_class(losses, truth, shares) for method, losses in terms.items()},
    )


def stratified_folds(labels: npt.ArrayLike, folds: int, *, seed: int = 0) -> IntArray:
    """Deal cases, one a patient, to folds class by class: as many of each class in each fold as can be, shape (n,)."""
    truth, generator = np.asarray(labels), np.random.default_rng(seed)
    dealt = np.empty(len(truth), dtype=np.int64)
    for c in np.unique(truth):
        members = generator.permutation(np.flatnonzero(truth == c))
        dealt[members] = np.arange(len(members)) % folds
    return dealt


def _held_out_losses(
    logits: FloatArray, labels: IntArray, prior: FloatArray, *, folds: IntArray, method: Method
) -> FloatArray:
    """Log loss of each case under the map that the other folds give, shape (n,)."""
    fitted = cross_fitted(
        logits, labels, folds=folds, fit=lambda array, truth: fit_calibration(array, truth, prior, method=method)
    )
    own = fitted.probabilities[np.arange(len(labels)), labels]
    losses: FloatArray = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return losses


def _by_class(terms: FloatArray, labels: IntArray, prior: FloatArray) -> float:
    return float(sum(share * terms[labels == c].mean() for c, share in enumerate(prior)))


# Cross-fitting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """Probabilities in which no case had a say in its own calibration."""

    probabilities: FloatArray
    """Shape (n, K)."""
    maps: dict[str, CalibrationMap]
    """The map that each fold's cases were given, fitted on the other folds, by the fold as text."""


def cross_fitted(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    folds: npt.ArrayLike,
    fit: Callable[[FloatArray, IntArray], CalibrationMap],
) -> CrossFitted:
    """Calibrate each fold's cases with the map that the cases of all other folds give.

    Parameters
    ----------
    logits
        Out-of-fold logits of one repeat, shape (n, K).
    labels
        Class indices, shape (n,).
    folds
        The fold of each case, numbers or names, shape (n,); all rows of a patient in one fold.
    fit
        Makes a map from logits and labels; whatever it chooses, it chooses on these.

    Raises
    ------
    ValueError
        If there are fewer than two folds.
    """
    array = checked_logits(logits)
    truth = checked_labels(labels, rows=len(array), classes=array.shape[1])
    names, fold = names_as_index(np.asarray(folds).astype(np.str_).tolist(), rows=len(array))
    if len(names) < 2:
        msg = f"at least two folds are needed to calibrate one on the others, got {len(names)}"
        raise ValueError(msg)
    probabilities = np.empty_like(array)
    maps: dict[str, CalibrationMap] = {}
    for index, name in enumerate(names):
        held = fold == index
        maps[name] = fit(array[~held], truth[~held])
        probabilities[held] = maps[name].apply(array[held])
    return CrossFitted(probabilities=probabilities, maps=maps)
