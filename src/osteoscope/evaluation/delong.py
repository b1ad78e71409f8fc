"""AUCs with their variance by DeLong's method: fast, several predictors at once, by patient however many rows each has.

An AUC is a mean over pairs of a case and a non-case. What one patient adds to it, less the mean, is that patient's
influence; the sum of its squares is the AUC's variance, and products between predictors give their covariance. The
influence of all patients comes from three rankings, in O(n log n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from osteoscope.evaluation.arrays import checked_labels, checked_probabilities
from osteoscope.evaluation.intervals import Figure, Patients, Z, extreme_figure, group_patients
from osteoscope.evaluation.metrics import UNDEFINED, class_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray

NO_VARIANCE = 1e-20
"""A variance below this is rounding: that of 10^4 cases and as many others, one pair out of order, is 10^4 times it."""


# Predictors on the same rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictors:
    """What one or several predictors say of the same rows, checked and gathered by patient and repeat."""

    labels: IntArray
    """Class indices, shape (n,)."""
    scores: tuple[FloatArray, ...]
    """For each predictor, shape (n, K)."""
    patients: Patients
    rows_of_repeat: tuple[IntArray, ...]
    """For each repeat the indices of its rows."""


def checked_predictors(
    labels: npt.ArrayLike,
    scores: Sequence[npt.ArrayLike],
    *,
    patients: Sequence[str] | None = None,
    repeats: npt.ArrayLike | None = None,
) -> Predictors:
    """Check what predictors say of the same rows.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    scores
        For each predictor its probabilities (n, K), or one score (n,) for class 1 of 0, 1.
    patients
        The patient of each row, length n; each row is its own patient if left out.
    repeats
        The repeat of each row, shape (n,); all one if left out.

    Raises
    ------
    ValueError
        If there is no predictor, shapes do not fit, a score is not finite, or a patient has two labels.
    """
    if not scores:
        msg = "at least one predictor is needed, got none"
        raise ValueError(msg)
    tables = [_by_class(values) for values in scores]
    shapes = {table.shape for table in tables}
    if len(shapes) > 1:
        msg = f"all predictors must score the same rows and classes, got {sorted(shapes)}"
        raise ValueError(msg)
    rows, classes = tables[0].shape
    truth = checked_labels(labels, rows=rows, classes=classes)
    repeat = np.zeros(rows) if repeats is None else np.asarray(repeats)
    if repeat.shape != truth.shape:
        msg = f"repeats must have shape {truth.shape}, got {repeat.shape}"
        raise ValueError(msg)
    names = [f"{row:09}" for row in range(rows)] if patients is None else patients
    return Predictors(
        labels=truth,
        scores=tuple(tables),
        patients=group_patients(names, truth),
        rows_of_repeat=tuple(np.flatnonzero(repeat == r) for r in np.unique(repeat)),
    )


def _by_class(scores: npt.ArrayLike) -> FloatArray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 1:
        array = np.column_stack([-array, array])
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2 or not np.isfinite(array).all():
        msg = f"scores must be finite, of shape (n,) or (n, K) with n >= 1 and K >= 2, got {np.shape(scores)}"
        raise ValueError(msg)
    return array


# AUCs and what each patient moves them by -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class AucComponents:
    """Some AUCs, or a mean or difference of them, with each patient's influence on them."""

    value: FloatArray
    """Shape (k,); NaN where undefined."""
    influence: FloatArray
    """What each patient adds to the value, less the mean, shape (P, k)."""
    label: IntArray
    """The class of each patient, shape (P,)."""

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the values, shape (k, k); NaN where a value is, and throughout if a class has one patient.

        The classes are strata, as in the bootstrap: it is the covariance over samples with as many patients of each
        class as there are. With two classes that is DeLong's, and Obuchowski's for patients with several rows.
        """
        total = np.zeros((self.value.size, self.value.size))
        for stratum in np.unique(self.label):
            part = self.influence[self.label == stratum]
            if len(part) < 2:
                return np.full_like(total, np.nan)
            centred = part - part.mean(axis=0)
            total += len(part) / (len(part) - 1) * centred.T @ centred
        return total

    def mean(self) -> AucComponents:
        """Give the mean of the values."""
        return AucComponents(
            value=self.value.mean(keepdims=True), influence=self.influence.mean(axis=1, keepdims=True), label=self.label
        )

    def difference(self, first: int, second: int) -> AucComponents:
        """Give the first of these values less the second, by their places."""
        return AucComponents(
            value=self.value[[first]] - self.value[[second]],
            influence=self.influence[:, [first]] - self.influence[:, [second]],
            label=self.label,
        )

    def figures(self) -> tuple[Figure, ...]:
        """Give each AUC with its 95 % interval on the logit scale, which stays inside 0 and 1.

        At exactly 0 or 1 the variance is 0 whatever the number of patients; the interval is then Wilson's with the
        patients of the smallest class, and the figure has a note. Elsewhere a variance of 0 (all scores the same) gives
        no interval.

        References
        ----------
        Pepe MS. The statistical evaluation of medical tests for classification and prediction. Oxford 2003, chapter 5.
        """
        return tuple(map(self._figure, self.value.tolist(), np.diag(self.covariance).tolist()))

    def _figure(self, value: float, variance: float) -> Figure:
        n = len(self.label)
        if math.isnan(value):
            return Figure(value=None, n=n, reason=UNDEFINED["auc"])
        if value in {0.0, 1.0}:
            return extreme_figure(value, n=n, smallest=int(np.unique_counts(self.label).counts.min()))
        if not variance > NO_VARIANCE:
            return Figure(value=value, n=n, reason=_no_interval(variance))
        centre, half = math.log(value / (1 - value)), Z * math.sqrt(variance) / (value * (1 - value))
        low, high = (1 / (1 + math.exp(-(centre + end))) for end in (-half, half))
        return Figure(value=value, low=low, high=high, n=n)

    def difference_figures(self) -> tuple[Figure, ...]:
        """Give each difference of AUCs with its 95 % interval: 1.96 standard errors, cut at -1 and 1.

        There is none where the variance is 0, as between two predictors that rank all patients alike.
        """
        return tuple(map(self._difference_figure, self.value.tolist(), np.diag(self.covariance).tolist()))

    def _difference_figure(self, value: float, variance: float) -> Figure:
        n = len(self.label)
        if math.isnan(value):
            return Figure(value=None, n=n, reason=UNDEFINED["auc"])
        if not variance > NO_VARIANCE:
            return Figure(value=value, n=n, reason=_no_interval(variance))
        half = Z * math.sqrt(variance)
        return Figure(value=value, low=max(-1.0, value - half), high=min(1.0, value + half), n=n)


def _no_interval(variance: float) -> str:
    what = "a class has a single patient" if math.isnan(variance) else "the variance is 0"
    return f"no interval: {what}"


def delong(
    labels: npt.ArrayLike,
    scores: Sequence[npt.ArrayLike],
    *,
    patients: Sequence[str] | None = None,
    repeats: npt.ArrayLike | None = None,
) -> AucComponents:
    """Give the AUC of each predictor, and from each patient's influence their covariance.

    A patient's influence is summed over the patient's rows and averaged over repeats, so that neither images nor
    repeats of one patient count as if they were more patients. With more than two classes the AUC is the mean over
    classes of each against the rest.

    Parameters
    ----------
    labels, scores, patients, repeats
        As in `checked_predictors`.

    Returns
    -------
    AucComponents
        One value a predictor.

    Raises
    ------
    ValueError
        As `checked_predictors`.

    References
    ----------
    DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach. Biometrics 1988;44:837-845. Sun X, Xu W. Fast implementation of
    DeLong's algorithm. IEEE Signal Process Lett 2014;21:1389-1393 (ranks in place of pairs). Obuchowski NA.
    Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567-578 (several rows of one patient).
    """
    return predictor_components(checked_predictors(labels, scores, patients=patients, repeats=repeats))


def predictor_components(predictors: Predictors) -> AucComponents:
    """Give one value a predictor; as `delong`, of rows that were checked."""
    means = [
        class_components(
            predictors.labels, scores, patients=predictors.patients, rows_of_repeat=predictors.rows_of_repeat
        ).mean()
        for scores in predictors.scores
    ]
    return AucComponents(
        value=np.concatenate([mean.value for mean in means]),
        influence=np.hstack([mean.influence for mean in means]),
        label=predictors.patients.label,
    )


def delong_by_class(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    patients: Sequence[str] | None = None,
    repeats: npt.ArrayLike | None = None,
) -> AucComponents:
    """Give the AUC of each class against the rest, one value a class.

    Parameters
    ----------
    labels, patients, repeats
        As in `checked_predictors`.
    probabilities
        Shape (n, K).

    Raises
    ------
    ValueError
        As `checked_predictors`, and if a row of probabilities is not a distribution.
    """
    one = checked_predictors(labels, [checked_probabilities(probabilities)], patients=patients, repeats=repeats)
    return class_components(one.labels, one.scores[0], patients=one.patients, rows_of_repeat=one.rows_of_repeat)


def class_components(
    labels: IntArray, scores: FloatArray, *, patients: Patients, rows_of_repeat: Sequence[IntArray]
) -> AucComponents:
    """Give one value a class; as `delong_by_class`, of rows that were checked and gathered."""
    ranking, count = class_scores(scores), len(patients.names)
    repeats = [_one_repeat(labels[rows], ranking[rows], patients.row[rows], patients=count) for rows in rows_of_repeat]
    return AucComponents(
        value=np.mean([value for value, _ in repeats], axis=0),
        influence=np.mean([influence for _, influence in repeats], axis=0),
        label=patients.label,
    )


def _one_repeat(
    labels: IntArray, scores: FloatArray, patient: IntArray, *, patients: int
) -> tuple[FloatArray, FloatArray]:
    """Give AUC (K,) and influence (P, K) of each class against the rest in one repeat."""
    columns = [_against_rest(labels == c, scores[:, c], patient, patients=patients) for c in range(scores.shape[1])]
    return np.array([value for value, _ in columns]), np.column_stack([influence for _, influence in columns])


def _against_rest(
    positive: BoolArray, scores: FloatArray, patient: IntArray, *, patients: int
) -> tuple[float, FloatArray]:
    cases, others = np.count_nonzero(positive), np.count_nonzero(~positive)
    if not cases or not others:
        return np.nan, np.full(patients, np.nan)
    # A rank among all less the rank among its own kind is the number of the other kind below, ties counting a half.
    rank = rankdata(scores)
    below = rank[positive] - rankdata(scores[positive])
    above = cases - (rank[~positive] - rankdata(scores[~positive]))
    value = float(below.sum()) / (cases * others)
    share = np.empty(len(scores))
    share[positive] = (below / others - value) / cases
    share[~positive] = (above / cases - value) / others
    influence: FloatArray = np.bincount(patient, weights=share, minlength=patients).astype(np.float64)
    return value, influence
