"""Models that see one thing of a case and nothing else, to tell how far that thing alone gives the label away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from osteoscope.cohort.baselines import fold_of_rows, folds_within
from osteoscope.cohort.table import Case
from osteoscope.evaluation.arrays import SMALLEST_PROBABILITY
from osteoscope.evaluation.delong import delong
from osteoscope.evaluation.intervals import Figure, group_patients
from osteoscope.evaluation.tabular import patient_means, predict_out_of_fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osteoscope.cohort.audit.finding import Severity
    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray
    from osteoscope.evaluation.tabular import Columns

GIVEN_AWAY = 0.9
"""An AUC from which on one thing alone nearly gives the label away, ..."""

SURELY_GIVEN_AWAY = 0.7
"""... if the lower end of its interval is at least this: with all cases told apart, 9 patients of each class."""

TELLING = 0.55
"""The lower end of an interval from which on one thing alone is said to tell something of the label."""


_REPEATS, _SMALL = 3, 300
"""Up to so many patients are dealt into folds so many times, since one deal can be lucky; more only once."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What one thing alone tells of the label.

    Parameters
    ----------
    sees
        What the model was given.
    auc
        Out-of-fold and by patient, with DeLong's interval. With more than two classes it is that of the comparison
        that is told apart most surely: a class against the rest, or two classes.
    apart
        That comparison.
    models
        What was chosen in each fold.
    """

    sees: str
    auc: Figure
    apart: str = ""
    models: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give ``{"sees", "auc", "apart", "models"}``."""
        return {"sees": self.sees, "auc": self.auc.to_json(), "apart": self.apart, "models": list(self.models)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Take a witness from what `to_json` gave."""
        return cls(**{**value, "auc": Figure(**value["auc"]), "models": tuple(value["models"])})

    @property
    def severity(self) -> Severity | None:
        """``block`` if it nearly gives the label away, ``warn`` if it tells something, else `None`."""
        low, value = self.auc.low, self.auc.value
        if low is None or value is None or low < TELLING:
            return None
        return "block" if value >= GIVEN_AWAY and low >= SURELY_GIVEN_AWAY else "warn"

    def sentence(self) -> str:
        """Say what it tells."""
        auc = self.auc
        if auc.value is None:
            return f"what {self.sees} tells alone is not known: {auc.reason}"
        known = "no interval" if auc.low is None or auc.high is None else f"{auc.low:.2f} to {auc.high:.2f}"
        return f"{self.sees} alone: AUC {auc.value:.2f} ({known}, {auc.n} patients) of telling {self.apart}"


def hear(
    sees: str,
    columns: Columns,
    *,
    patients: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    folds: int = 5,
) -> Witness:
    """Let a model predict patients out of fold from some columns, and judge it.

    Parameters
    ----------
    sees
        What the columns are.
    columns
        A row an image, or a row a patient; a patient's answer is the mean over the rows.
    patients, labels
        Pseudonym and class of each row, length n; each patient has one label.
    classes
        Of the cohort. Those of fewer than two patients are left out.
    folds
        Of the cross-validation; fewer where the rarest class has fewer patients.

    Returns
    -------
    Without a value, and with the reason, where fewer than two classes are left.
    """
    label_of = dict(zip(patients, labels, strict=True))
    counts = {name: list(label_of.values()).count(name) for name in classes}
    present = [name for name in classes if counts[name] > 1]
    if len(present) < 2:
        reason = "fewer than two classes have two patients or more of whom it is recorded"
        return Witness(sees=sees, auc=Figure(value=None, n=len(label_of), reason=reason))
    rows = [row for row, label in enumerate(labels) if label in present]
    names = [patients[row] for row in rows]
    truth = np.array([present.index(labels[row]) for row in rows], dtype=np.int64)
    cases = [Case(patient=name, label=present.index(label_of[name]), images=()) for name in sorted(set(names))]
    repeats = _REPEATS if len(cases) <= _SMALL else 1
    dealt = folds_within(cases, present, folds=folds, repeats=repeats)
    if dealt is None:
        msg = "expected two patients of each class that is left"
        raise ValueError(msg)
    found = predict_out_of_fold(
        columns.at(np.array(rows)), truth, classes=present, patients=names, folds=fold_of_rows(dealt, names)
    )
    if found.probabilities is None:
        return Witness(sees=sees, auc=Figure(value=None, n=len(cases), reason=found.reason))
    groups = group_patients(names, truth)
    apart, auc = _most_surely_apart(groups.label, patient_means(found.probabilities, groups), present)
    return Witness(sees=sees, auc=auc, apart=apart, models=found.models)


def _most_surely_apart(labels: IntArray, probabilities: FloatArray, classes: Sequence[str]) -> tuple[str, Figure]:
    """Compare each two classes, and each with the rest; give the comparison of the highest lower end.

    Labels are of shape (P,), probabilities of shape (repeats, P, K).
    """
    compared: list[tuple[str, Figure]] = []
    for first, second in combinations(range(len(classes)), 2):
        both = np.flatnonzero((labels == first) | (labels == second))
        either = np.maximum(probabilities[:, both][..., [first, second]].sum(axis=-1), SMALLEST_PROBABILITY)
        auc = _auc(labels[both] == second, probabilities[:, both, second] / either)
        compared.append((f"{classes[first]!r} from {classes[second]!r}", auc))
    if len(classes) > 2:
        for index, name in enumerate(classes):
            compared.append((f"{name!r} from the rest", _auc(labels == index, probabilities[..., index])))
    return max(compared, key=lambda one: (one[1].low or 0.0, one[1].value or 0.0))


def _auc(positive: BoolArray, scores: FloatArray) -> Figure:
    """AUC of scores (repeats, P), averaged over repeats, with DeLong's interval over the P patients."""
    repeats, patients = scores.shape
    return delong(
        np.tile(positive, repeats).astype(np.int64),
        [scores.ravel()],
        patients=[str(patient) for patient in range(patients)] * repeats,
        repeats=np.repeat(np.arange(repeats), patients),
    ).figures()[0]
