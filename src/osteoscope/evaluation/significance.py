"""Whether chance explains the difference between two predictors on the same patients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import binom, rankdata

from osteoscope.evaluation.arrays import checked_labels, checked_probabilities
from osteoscope.evaluation.delong import NO_VARIANCE, checked_predictors, predictor_components
from osteoscope.evaluation.metrics import UNDEFINED, brier_terms, class_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray
    from osteoscope.evaluation.delong import AucComponents, Predictors

Measure = Literal["auc", "balanced_accuracy", "brier"]

_SAID: dict[Measure, str] = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "brier": "Brier score"}

_BLOCK = 1_000_000
"""Exchanges that are held at a time, as patients times permutations."""

_ROUNDING = 1e-12
"""A permuted difference this close to the one seen is as large."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A two-sided test of one hypothesis about two predictors on the same patients."""

    hypothesis: str
    """What is so if chance alone explains the difference."""
    method: str
    statistic: float | None = None
    """What the method compares with its distribution; None where undefined."""
    p_value: float | None = None
    """None where the test cannot be made."""
    n: int
    """Patients."""
    reason: str | None = None
    """Why there is no p-value."""

    def to_json(self) -> dict[str, Any]:
        """Give ``{"hypothesis", "method", "statistic", "p_value", "n"}``, and ``"reason"`` where p is missing."""
        block: dict[str, Any] = {
            "hypothesis": self.hypothesis,
            "method": self.method,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "n": self.n,
        }
        return block if self.reason is None else {**block, "reason": self.reason}


# DeLong ---------------------------------------------------------------------------------------------------------------


def paired_delong(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    patients: Sequence[str] | None = None,
    repeats: npt.ArrayLike | None = None,
) -> PairedTest:
    """Test whether two AUCs are equal, by their covariance over patients.

    Two predictors that rank all patients alike give 1. There is no p-value where a class is missing or has a single
    patient, or where the AUCs differ though their variance is 0.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    scores_a, scores_b
        Probabilities (n, K), or one score (n,) for class 1 of 0, 1.
    patients
        The patient of each row, length n; each row is its own patient if left out.
    repeats
        The repeat of each row, shape (n,); a patient's influence is averaged over them.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, or a patient has two labels.

    References
    ----------
    As in `delong.delong`.
    """
    pair = checked_predictors(labels, [scores_a, scores_b], patients=patients, repeats=repeats)
    return delong_test(predictor_components(pair).difference(0, 1))


def delong_test(difference: AucComponents) -> PairedTest:
    """Test whether a difference of two AUCs is 0; as `paired_delong`, of what `AucComponents.difference` gives."""
    value, variance = float(difference.value[0]), float(difference.covariance[0, 0])
    test = partial(
        PairedTest, hypothesis="the two AUCs are equal", method="paired DeLong, normal z", n=len(difference.label)
    )
    if math.isnan(value):
        return test(reason=UNDEFINED["auc"])
    if math.isnan(variance):
        return test(reason="a class has a single patient")
    if variance > NO_VARIANCE:
        z = value / math.sqrt(variance)
        return test(statistic=z, p_value=math.erfc(abs(z) / math.sqrt(2)))
    if value == 0:
        return test(statistic=0.0, p_value=1.0)
    return test(reason="the AUCs differ, but their variance is 0")


# McNemar --------------------------------------------------------------------------------------------------------------


def mcnemar(
    labels: npt.ArrayLike, predicted_a: npt.ArrayLike, predicted_b: npt.ArrayLike, *, classes: int, mid_p: bool = True
) -> PairedTest:
    """Test whether two predictors are right equally often, on one row a patient.

    Only patients on whom one is right and the other wrong count: under the hypothesis each of the two may be the right
    one with probability a half. The exact binomial p-value can take few values and so rejects less often than it
    says; the mid-p-value counts what was seen itself by half, and comes closer to its level without an approximation.
    Where both are alone right equally often, or never, p is 1 (Fagerland has a little less).

    Parameters
    ----------
    labels
        Class indices, shape (n,), a row for each patient.
    predicted_a, predicted_b
        The classes that each predicts, shape (n,).
    classes
        How many classes there are.
    mid_p
        Whether to give the mid-p-value, or the exact one.

    Raises
    ------
    ValueError
        If shapes do not fit or an index is none of a class.

    References
    ----------
    McNemar Q. Note on the sampling error of the difference between correlated proportions or percentages.
    Psychometrika 1947;12:153-157. Fagerland MW, Lydersen S, Laake P. The McNemar test for binary matched-pairs data:
    mid-p and asymptotic are better than exact conditional. BMC Med Res Methodol 2013;13:91.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    rows = len(np.atleast_1d(labels))
    truth = checked_labels(labels, rows=rows, classes=classes)
    right_a, right_b = (
        checked_labels(predicted, rows=rows, classes=classes, what="predictions") == truth
        for predicted in (predicted_a, predicted_b)
    )
    only_a, only_b = np.count_nonzero(right_a & ~right_b), np.count_nonzero(right_b & ~right_a)
    p_value = float(exact_mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
    if mid_p and only_a != only_b:
        p_value -= float(binom.pmf(min(only_a, only_b), only_a + only_b, 0.5))
    return PairedTest(
        hypothesis="both are right equally often",
        method=f"McNemar, {'mid-p' if mid_p else 'exact'}, of {only_a + only_b} patients on whom one alone is right",
        statistic=float(min(only_a, only_b)),
        p_value=p_value,
        n=rows,
    )


# Permutation ----------------------------------------------------------------------------------------------------------


def paired_permutation(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    measure: Measure,
    patients: Sequence[str] | None = None,
    repeats: npt.ArrayLike | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Test whether it matters which predictor is which, by exchanging the two on patients at random.

    Each permutation exchanges what the two say of some patients, of all rows and repeats of a patient at once, and
    takes the difference of the measure again. The p-value is the share of permutations whose difference is larger
    than the one seen, with half of those that are as large and all of the one seen: the mid-p-value, since a balanced
    accuracy takes few values and would reject less often than it says. Where nothing differs p is 1. For the AUC scores
    are first turned into ranks, so that two predictors on different scales can be exchanged.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    scores_a, scores_b
        Probabilities (n, K); for the AUC also one score (n,) for class 1 of 0, 1.
    measure
        ``"auc"`` (two classes or the mean over classes), ``"balanced_accuracy"`` of the most probable class, or
        ``"brier"``; by repeat and averaged.
    patients
        The patient of each row, length n; each row is its own patient if left out.
    repeats
        The repeat of each row, shape (n,); all one if left out.
    permutations
        At least 1.
    seed
        Of numpy's default generator.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite (for the AUC) or no distribution (else), a patient has two labels,
        or there is no permutation.

    References
    ----------
    Venkatraman ES, Begg CB. A distribution-free procedure for comparing receiver operating characteristic curves from
    a paired experiment. Biometrika 1996;83:835-848 (ranks). Bandos AI, Rockette HE, Gur D. A permutation test
    sensitive to differences in areas for comparing ROC curves from a paired design. Stat Med 2005;24:2873-2893. Phipson
    B, Smyth GK. Permutation p-values should never be zero. Stat Appl Genet Mol Biol 2010;9:39. Lancaster HO.
    Significance tests in discrete distributions. J Am Stat Assoc 1961;56:223-234 (mid-p).
    """
    scores = [scores_a, scores_b] if measure == "auc" else [checked_probabilities(s) for s in (scores_a, scores_b)]
    pair = checked_predictors(labels, scores, patients=patients, repeats=repeats)
    return permutation_test(pair, measure=measure, permutations=permutations, seed=seed)


def permutation_test(
    predictors: Predictors, first: int = 0, second: int = 1, *, measure: Measure, permutations: int, seed: int
) -> PairedTest:
    """Test two of the predictors by their places; as `paired_permutation`, of rows that were checked."""
    if permutations < 1:
        msg = f"at least one permutation is needed, got {permutations}"
        raise ValueError(msg)
    shares = _patients_shares(predictors, predictors.scores[first], predictors.scores[second], measure)
    test = partial(
        PairedTest,
        hypothesis=f"the two may be exchanged on any patient; judged by the {_SAID[measure]}",
        method=f"paired permutation by patient, mid-p, {permutations} permutations",
        n=len(shares),
    )
    if np.isnan(shares).any():
        return test(reason=UNDEFINED[measure])
    return test(statistic=float(shares.sum()), p_value=_permuted(shares, permutations=permutations, seed=seed))


def _permuted(shares: FloatArray, *, permutations: int, seed: int) -> float:
    """Exchange the predictors at random: each exchanged patient takes its share off the difference twice."""
    seen = float(shares.sum())
    if abs(seen) <= _ROUNDING:
        return 1.0
    generator, larger, as_large = np.random.default_rng(seed), 0, 0
    step = max(1, _BLOCK // len(shares))
    for start in range(0, permutations, step):
        size = (min(step, permutations - start), len(shares))
        exchanged = generator.integers(0, 2, size=size, dtype=np.int8)
        excess = np.abs(seen - 2 * (exchanged @ shares)) - abs(seen)
        larger += int(np.count_nonzero(excess > _ROUNDING))
        as_large += int(np.count_nonzero(np.abs(excess) <= _ROUNDING))
    return (1 + larger + as_large / 2) / (1 + permutations)


def _patients_shares(predictors: Predictors, a: FloatArray, b: FloatArray, measure: Measure) -> FloatArray:
    """Give each patient's share in the difference of a measure, shape (P,); NaN where the measure is undefined.

    They sum to the difference, and each turns its sign when the predictors are exchanged on that patient alone,
    whoever else was exchanged. That holds of the AUC too (Bandos 2005): the pairs of an exchanged patient with one
    that is not compare the two predictors with each other, and what they give is shared between the two patients.
    """
    by_repeat = []
    for rows in predictors.rows_of_repeat:
        shares = _ROW_SHARES[measure](predictors.labels[rows], a[rows], b[rows])
        owner = predictors.patients.row[rows]
        by_repeat.append(np.bincount(owner, weights=shares, minlength=len(predictors.patients.names)))
    mean: FloatArray = np.mean(by_repeat, axis=0)
    return mean


def _brier_shares(labels: IntArray, a: FloatArray, b: FloatArray) -> FloatArray:
    return (brier_terms(labels, a) - brier_terms(labels, b)) / len(labels)


def _balanced_accuracy_shares(labels: IntArray, a: FloatArray, b: FloatArray) -> FloatArray:
    of_class = np.bincount(labels, minlength=a.shape[1])
    if not of_class.all():
        return np.full(len(labels), np.nan)
    gained = (a.argmax(axis=1) == labels).astype(np.float64) - (b.argmax(axis=1) == labels)
    shares: FloatArray = gained / of_class[labels] / a.shape[1]
    return shares


def _auc_shares(labels: IntArray, a: FloatArray, b: FloatArray) -> FloatArray:
    ranks_a, ranks_b = rankdata(class_scores(a), axis=0), rankdata(class_scores(b), axis=0)
    by_class = [_one_auc_shares(labels == c, ranks_a[:, c], ranks_b[:, c]) for c in range(a.shape[1])]
    shares: FloatArray = np.mean(by_class, axis=0)
    return shares


def _one_auc_shares(positive: BoolArray, a: FloatArray, b: FloatArray) -> FloatArray:
    if positive.all() or not positive.any():
        return np.full(len(positive), np.nan)
    shares = np.empty(len(positive))
    for kind, sign in ((positive, 1.0), (~positive, -1.0)):
        others = np.sort(np.r_[a[~kind], b[~kind]])
        pairs = 2.0 * np.count_nonzero(positive) * np.count_nonzero(~positive)
        shares[kind] = sign * (_below(others, a[kind]) - _below(others, b[kind])) / pairs
    return shares


def _below(others: FloatArray, values: FloatArray) -> FloatArray:
    """How many of the sorted others lie below each value, equal ones counting a half."""
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / 2.0


_ROW_SHARES = {"auc": _auc_shares, "balanced_accuracy": _balanced_accuracy_shares, "brier": _brier_shares}


# Several tests --------------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Correct p-values for their number, so that any false rejection among them keeps the level.

    Parameters
    ----------
    p_values
        Of one family of tests; None, a test that could not be made, stays None and does not count.

    References
    ----------
    Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.
    """
    # By hand: the one in statsmodels clears the whole process of garbage each time, which takes a second beside torch.
    made = np.array([p for p in p_values if p is not None])
    order = np.argsort(made)
    corrected = np.empty_like(made)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(np.arange(len(made), 0, -1) * made[order]))
    said = iter(corrected.tolist())
    return tuple(None if p is None else next(said) for p in p_values)
