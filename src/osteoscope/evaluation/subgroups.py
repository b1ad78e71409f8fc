"""Figures of some of the patients only: what is too small is withheld, and whether groups differ is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import names_as_index
from osteoscope.evaluation.intervals import (
    Figure,
    bootstrap_figure,
    jackknife_acceleration,
    left_out_blocks,
    weight_blocks,
    wilson,
)
from osteoscope.evaluation.metrics import (
    brier_terms,
    class_auc_draws,
    confusion_draws,
    count_figures_draws,
    mean_draws,
)
from osteoscope.evaluation.sample import checked_sample
from osteoscope.evaluation.significance import holm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.sample import Sample

SMALLEST_GROUP = 10
"""A figure that rests on fewer patients is withheld."""

_SMALLEST_CLASS = 2
"""Patients of each class that an AUC needs, since one alone tells nothing of how much it varies."""

_TESTED = ("auc", "balanced_accuracy")
_BLOCK = 1_000_000
"""Permuted memberships that are held at a time, as rows times permutations."""

_ROUNDING = 1e-12

_DEFINITIONS = {
    "withheld": f"a figure of fewer than {SMALLEST_GROUP} patients, and an AUC with fewer than {_SMALLEST_CLASS} of a "
    "class; n is the number of patients it would rest on",
    "heterogeneity": "permutation test of the hypothesis that, within each class, predictions do not depend on the "
    "group: patients change groups within their class; the statistic is the sum over groups of the squared distance "
    "from their mean, each group weighted by the harmonic sum of its class counts; groups too small for an AUC are "
    "left out",
    "p_holm": "corrected for the number of tests here (Holm)",
    "intervals": "Wilson's for shares of one prediction a patient, else BCa bootstrap over patients, class by class",
}


def subgroups(
    *,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    repeats: npt.ArrayLike,
    classes: Sequence[str],
    groupings: Mapping[str, Sequence[str]],
    draws: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge predictions in each group of each grouping, and test whether the groups of a grouping differ.

    Parameters
    ----------
    labels, probabilities, patients, repeats, classes
        As in `summary.summarise`.
    groupings
        By its name, the group of each row, length n; all rows of a patient are in one group.
    draws
        Of the bootstrap.
    permutations
        Of each test.
    seed
        Of both.

    Returns
    -------
    A block that JSON can hold: ``{"groupings": {name: {"groups": {group: {"n", "n_by_class": {slug: n}, "auc",
    "brier", "sensitivity": {slug: figure}, "specificity": {slug: figure}}}, "heterogeneity": {"groups", "n",
    "permutations", "auc": {"p_value", "p_holm"}, "balanced_accuracy": {"p_value", "p_holm"}}}}, "definitions"}``. A
    withheld figure has the value None and its reason; a test that cannot be made is ``{"reason"}``. Groups are sorted
    by name.

    Raises
    ------
    ValueError
        As `summarise`; if a grouping does not name a group for each row, or gives a patient two.
    """
    sample = checked_sample(
        labels=labels,
        probabilities=probabilities,
        patients=patients,
        repeats=repeats,
        classes=classes,
        verdicts=None,
    )
    found = {name: _grouping(name, groups, sample) for name, groups in groupings.items()}
    tests = {name: _heterogeneity(sample, one, permutations, seed) for name, one in found.items()}
    _correct(tests)
    return {
        "groupings": {
            name: {
                "groups": {
                    group: _group(_part(sample, one.of_patient == g), draws=draws, seed=seed)
                    for g, group in enumerate(one.names)
                },
                "heterogeneity": tests[name],
            }
            for name, one in found.items()
        },
        "definitions": dict(_DEFINITIONS),
    }


@dataclass(frozen=True, kw_only=True)
class _Grouping:
    names: tuple[str, ...]
    of_patient: IntArray
    """Index of the group of each patient, shape (P,)."""


def _grouping(name: str, groups: Sequence[str], sample: Sample) -> _Grouping:
    names, row = names_as_index(groups, rows=len(sample.labels))
    of_patient = np.zeros(len(sample.patients.names), dtype=np.int64)
    of_patient[sample.patients.row] = row
    torn = len(np.unique(sample.patients.row[of_patient[sample.patients.row] != row]))
    if torn:
        msg = f"a patient must be in one group, got {torn} patients in two or more groups of {name}"
        raise ValueError(msg)
    return _Grouping(names=tuple(names), of_patient=of_patient)


def _part(sample: Sample, chosen: npt.NDArray[np.bool_]) -> Sample:
    """Give the rows of some patients, chosen by shape (P,), as a sample of its own."""
    rows = np.flatnonzero(chosen[sample.patients.row])
    repeat = np.zeros(len(sample.labels), dtype=np.int64)
    for place, of_repeat in enumerate(sample.rows_of_repeat):
        repeat[of_repeat] = place
    return checked_sample(
        labels=sample.labels[rows],
        probabilities=sample.probabilities[rows],
        patients=[sample.patients.names[patient] for patient in sample.patients.row[rows]],
        repeats=repeat[rows],
        classes=sample.classes,
        verdicts=None,
    )


# Figures --------------------------------------------------------------------------------------------------------------


def _figures(sample: Sample, weights: FloatArray) -> dict[str, FloatArray]:
    """Compute the figures in each draw, averaged over repeats: (draws,), by class (draws, K); NaN where undefined."""
    by_repeat = [_figures_of_repeat(sample, rows, weights[:, rows]) for rows in sample.rows_of_repeat]
    return {name: np.mean([figures[name] for figures in by_repeat], axis=0) for name in by_repeat[0]}


def _figures_of_repeat(sample: Sample, rows: IntArray, weights: FloatArray) -> dict[str, FloatArray]:
    labels, probabilities = sample.labels[rows], sample.probabilities[rows]
    counts = count_figures_draws(confusion_draws(labels, sample.predicted[rows], len(sample.classes), weights))
    return {
        "auc": class_auc_draws(labels, probabilities, weights).mean(axis=1),
        "brier": mean_draws(brier_terms(labels, probabilities), weights),
        **{name: counts[name] for name in ("balanced_accuracy", "sensitivity", "specificity")},
    }


def _group(sample: Sample, *, draws: int, seed: int) -> dict[str, Any]:
    counts, everyone = sample.patients_of_class, len(sample.patients.names)
    judged = _Judged(sample, draws=draws, seed=seed) if everyone >= SMALLEST_GROUP else None

    def figure(name: str, n: int, c: int | None = None) -> dict[str, Any]:
        lacking = _lacking(name, n, counts)
        if judged is None or lacking:
            return Figure(value=None, n=n, reason=lacking).to_json()
        return judged.figure(name, n, c).to_json()

    return {
        "n": everyone,
        "n_by_class": dict(zip(sample.classes, counts.tolist(), strict=True)),
        "auc": figure("auc", everyone),
        "brier": figure("brier", everyone),
        "sensitivity": {slug: figure("sensitivity", int(counts[c]), c) for c, slug in enumerate(sample.classes)},
        "specificity": {
            slug: figure("specificity", everyone - int(counts[c]), c) for c, slug in enumerate(sample.classes)
        },
    }


def _lacking(name: str, n: int, counts: IntArray) -> str | None:
    """Say why a figure is withheld."""
    if n < SMALLEST_GROUP:
        return f"withheld: fewer than {SMALLEST_GROUP} patients"
    if name == "auc" and counts.min() < _SMALLEST_CLASS:
        return "withheld: a class has no patient" if counts.min() == 0 else "withheld: a class has a single patient"
    return None


class _Judged:
    """The figures of a group with what their intervals need."""

    def __init__(self, sample: Sample, *, draws: int, seed: int) -> None:
        self._sample = sample
        self._values = _figures(sample, np.ones((1, len(sample.labels))))
        self._drawn = _joined(
            _figures(sample, weights) for weights in weight_blocks(sample.patients, draws=draws, seed=seed)
        )
        self._left_out = _joined(_figures(sample, weights) for weights in left_out_blocks(sample.patients))

    def figure(self, name: str, n: int, c: int | None) -> Figure:
        """Give a figure, of all classes or of one, that rests on n patients."""
        at = (slice(None),) if c is None else (slice(None), c)
        value = float(self._values[name][at][0])
        if c is not None and self._sample.one_row:
            ends = wilson(value, n)
            return Figure(value=value, low=ends.low, high=ends.high, n=n)
        counts = self._sample.patients_of_class
        return bootstrap_figure(
            value,
            self._drawn[name][at],
            n=n,
            smallest=n if c is not None else int(counts[counts > 0].min()),
            acceleration=jackknife_acceleration(self._left_out[name][at], self._sample.patients.label),
        )


def _joined(blocks: Iterator[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    parts = list(blocks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Do the groups differ? ------------------------------------------------------------------------------------------------


def _heterogeneity(sample: Sample, grouping: _Grouping, permutations: int, seed: int) -> dict[str, Any]:
    """Test by permutation whether AUC and balanced accuracy vary more between groups than chance makes them."""
    classes = len(sample.classes)
    cells = np.bincount(grouping.of_patient * classes + sample.patients.label, minlength=len(grouping.names) * classes)
    counts = cells.reshape(-1, classes)
    large = np.flatnonzero((counts.sum(axis=1) >= SMALLEST_GROUP) & (counts.min(axis=1) >= _SMALLEST_CLASS))
    if large.size < 2:
        return {"reason": "fewer than two groups are large enough for an AUC"}
    chosen = np.isin(grouping.of_patient, large)
    part, weights = _part(sample, chosen), 1 / (1 / counts[large]).sum(axis=1)
    member = np.searchsorted(large, grouping.of_patient[chosen])
    observed = _spread(part, member[None], weights)
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(part.labels))
    exceeded = dict.fromkeys(_TESTED, 1)
    for start in range(0, permutations, step):
        shuffled = _shuffled(member, part.patients.label, min(step, permutations - start), generator)
        for name, spread in _spread(part, shuffled, weights).items():
            exceeded[name] += int(np.count_nonzero(spread >= observed[name] - _ROUNDING))
    return {
        "groups": int(large.size),
        "n": int(np.count_nonzero(chosen)),
        "permutations": permutations,
        **{name: {"p_value": count / (permutations + 1)} for name, count in exceeded.items()},
    }


def _shuffled(member: IntArray, label: IntArray, times: int, generator: np.random.Generator) -> IntArray:
    """Exchange the groups of patients (P,) within their class, shape (times, P)."""
    shuffled = np.tile(member, (times, 1))
    for stratum in np.unique(label):
        mine = np.flatnonzero(label == stratum)
        shuffled[:, mine] = generator.permuted(shuffled[:, mine], axis=1)
    return shuffled


def _spread(sample: Sample, member: IntArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Weighted squared distance of the groups' figures from their mean, shape (times,); members are (times, P)."""
    by_group = [
        _figures(sample, (member[:, sample.patients.row] == group).astype(np.float64)) for group in range(len(weights))
    ]
    spreads = {}
    for name in _TESTED:
        values = np.stack([figures[name] for figures in by_group], axis=1)
        mean = np.average(values, axis=1, weights=weights)
        spreads[name] = (values - mean[:, None]) ** 2 @ weights
    return spreads


def _correct(tests: Mapping[str, dict[str, Any]]) -> None:
    """Set beside each p-value the one corrected by Holm's method for all tests together."""
    made = [test[name] for test in tests.values() for name in _TESTED if name in test]
    for one, p_value in zip(made, holm([one["p_value"] for one in made]), strict=True):
        one["p_holm"] = p_value
