"""Predictions that passed the door: rows with their patient and repeat, in one consistent set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import checked_labels, checked_probabilities
from osteoscope.evaluation.conformal import INDETERMINATE
from osteoscope.evaluation.intervals import Patients, group_patients

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Predictions that passed the door."""

    labels: IntArray
    """Class indices, shape (n,)."""
    probabilities: FloatArray
    """Shape (n, K)."""
    predicted: IntArray
    """The class of highest probability, of equals the first, shape (n,)."""
    verdicts: IntArray | None
    """A class index, or -1 for indeterminate, shape (n,); None if none were given."""
    patients: Patients
    rows_of_repeat: tuple[IntArray, ...]
    """For each repeat the indices of its rows."""
    classes: tuple[str, ...]

    @property
    def patients_of_class(self) -> IntArray:
        """How many patients each class has, shape (K,)."""
        return np.bincount(self.patients.label, minlength=len(self.classes))

    @property
    def one_row_a_repeat(self) -> bool:
        """Whether each patient has one row in each repeat."""
        return len(self.labels) == len(self.patients.names) * len(self.rows_of_repeat)

    @property
    def one_row(self) -> bool:
        """Whether each patient has one row in all, so that shares of rows are plain proportions."""
        return len(self.labels) == len(self.patients.names)

    def patients_where(self, rows: BoolArray) -> int:
        """Count the patients who have at least one of these rows."""
        return len(np.unique(self.patients.row[rows]))


def checked_sample(
    *,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    repeats: npt.ArrayLike,
    classes: Sequence[str],
    verdicts: npt.ArrayLike | None,
) -> Sample:
    """Check predictions and gather them; arguments and refusals (`ValueError`) as in `summary.summarise`."""
    shares = checked_probabilities(probabilities)
    rows, count = shares.shape
    if len(classes) != count or len(set(classes)) != count:
        msg = f"{count} different slugs are needed, one a class, got {list(classes)}"
        raise ValueError(msg)
    truth = checked_labels(labels, rows=rows, classes=count)
    groups = group_patients(patients, truth)
    return Sample(
        labels=truth,
        probabilities=shares,
        predicted=shares.argmax(axis=1).astype(np.int64),
        verdicts=None
        if verdicts is None
        else checked_labels(verdicts, rows=rows, classes=count, lowest=INDETERMINATE, what="verdicts"),
        patients=groups,
        rows_of_repeat=_rows_of_repeat(np.asarray(repeats), groups),
        classes=tuple(classes),
    )


def checked_folds(sample: Sample, folds: npt.ArrayLike) -> IntArray:
    """Check the fold of each row within its repeat, shape (n,); `ValueError` if a patient has two in a repeat."""
    index = np.asarray(folds)
    if index.shape != sample.labels.shape or not np.issubdtype(index.dtype, np.integer):
        msg = f"folds must be integers of shape {sample.labels.shape}, got {index.dtype} of shape {index.shape}"
        raise ValueError(msg)
    for rows in sample.rows_of_repeat:
        pairs = np.unique(np.stack([sample.patients.row[rows], index[rows]], axis=1), axis=0)
        if len(pairs) != len(sample.patients.names):
            msg = "a patient must be in one fold of a repeat, got some in two or more"
            raise ValueError(msg)
    return index.astype(np.int64)


def _rows_of_repeat(repeats: npt.NDArray[Any], patients: Patients) -> tuple[IntArray, ...]:
    if repeats.shape != patients.row.shape:
        msg = f"repeats must have shape {patients.row.shape}, got {repeats.shape}"
        raise ValueError(msg)
    rows = tuple(np.flatnonzero(repeats == repeat) for repeat in np.unique(repeats))
    present = {len(np.unique(patients.row[index])) for index in rows}
    if present != {len(patients.names)}:
        msg = f"each repeat must hold all {len(patients.names)} patients, got repeats with {sorted(present)}"
        raise ValueError(msg)
    return rows
