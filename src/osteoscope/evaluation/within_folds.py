"""The AUC of cases that one and the same network judged.

The pooled AUC of cross-validation also ranks a case of one fold beside a case of another, which two networks judged
whose logits have different offsets, and whose calibrations learnt from each other's cases. That tells too little of the
one network that is used in the end: with few cases the pooled AUC is too low on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from osteoscope.evaluation.intervals import (
    Figure,
    bootstrap_figure,
    jackknife_acceleration,
    left_out_blocks,
    weight_blocks,
)
from osteoscope.evaluation.metrics import class_auc_draws, known
from osteoscope.evaluation.sample import checked_folds, checked_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.sample import Sample


def auc_within_folds(
    *,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    repeats: npt.ArrayLike,
    folds: npt.ArrayLike,
    classes: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
) -> Figure:
    """Rank cases within their folds alone: the share of all pairs of two classes in one fold that are ranked rightly.

    So it is the mean of the folds' AUCs, each counting as much as it has pairs; a fold without a class has none. By
    repeat and averaged; with more than two classes the mean of each against the rest. The interval is that of the
    pooled AUC: BCa over patients, class by class.

    Parameters
    ----------
    labels, probabilities, patients, repeats, classes, draws, seed
        As in `osteoscope.evaluation.summary.summarise`.
    folds
        The fold that predicted each row, within its repeat, shape (n,).

    Raises
    ------
    ValueError
        As `summarise`; or if a patient has two folds in a repeat.

    References
    ----------
    Airola A, Pahikkala T, Waegeman W, De Baets B, Salakoski T. An experimental comparison of cross-validation
    techniques for estimating the area under the ROC curve. Comput Stat Data Anal 2011;55:1828-1844.

    LeDell E, Petersen M, van der Laan M. Computationally efficient confidence intervals for cross-validated area under
    the ROC curve estimates. Electron J Stat 2015;9:1583-1607.
    """
    sample = checked_sample(
        labels=labels, probabilities=probabilities, patients=patients, repeats=repeats, classes=classes, verdicts=None
    )
    fold = checked_folds(sample, folds)
    n, counts = len(sample.patients.names), sample.patients_of_class
    found = known(_draws(sample, fold, [np.ones((1, len(sample.labels)))])[0])
    if found is None:
        return Figure(value=None, n=n, reason="no fold holds cases of two classes, or not for every class")
    left_out = _draws(sample, fold, left_out_blocks(sample.patients))
    return bootstrap_figure(
        found,
        _draws(sample, fold, weight_blocks(sample.patients, draws=draws, seed=seed)),
        n=n,
        smallest=int(counts[counts > 0].min()),
        acceleration=jackknife_acceleration(left_out, sample.patients.label),
    )


def _draws(sample: Sample, fold: IntArray, blocks: Iterable[FloatArray]) -> FloatArray:
    """Compute the figure in each draw of all blocks of weights, each of shape (draws of the block, n): (draws,)."""
    return np.concatenate(
        [
            np.mean([_of_repeat(sample, rows, fold[rows], weights[:, rows]) for rows in sample.rows_of_repeat], axis=0)
            for weights in blocks
        ]
    )


def _of_repeat(sample: Sample, rows: IntArray, fold: IntArray, weights: FloatArray) -> FloatArray:
    """Average the folds' AUCs by their pairs: (draws,), NaN where a class has no pair in any fold."""
    shape = (len(weights), len(sample.classes))
    right, pairs = np.zeros(shape), np.zeros(shape)
    for one in np.unique(fold):
        inside = fold == one
        labels, of_fold = sample.labels[rows[inside]], weights[:, inside]
        own = np.column_stack([of_fold[:, labels == c].sum(axis=1) for c in range(shape[1])])
        pairs_here = own * (of_fold.sum(axis=1, keepdims=True) - own)
        right += np.nan_to_num(class_auc_draws(labels, sample.probabilities[rows[inside]], of_fold)) * pairs_here
        pairs += pairs_here
    by_class: FloatArray = np.divide(right, pairs, out=np.full(shape, np.nan), where=pairs > 0)
    mean: FloatArray = by_class.mean(axis=1)
    return mean
