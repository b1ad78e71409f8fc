"""Says what a cohort is too small for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.cohort.audit.finding import Finding
from osteoscope.evaluation.power import expected_interval, smallest_auc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osteoscope.cohort.audit.finding import Severity
    from osteoscope.cohort.table import Cohort

FEWEST_FOR_SETS = {0.90: 9, 0.95: 19}
"""Patients of a class that a class-conditional prediction set takes at each level: level / (1 - level)."""

ASSUMED_AUC = 0.8
"""What the expected interval is worked out for."""

_FEWEST_FOR_PRECISION = 2


def find_too_small(cohort: Cohort, *, folds: int | None) -> tuple[Finding, ...]:
    """Count the patients of each class against what they are to carry.

    Kinds: ``too-few-for-folds`` (block) and ``too-few-for-calibration`` (warn under 9 patients of a class, note under
    19), both only where a network will be cross-validated; ``expected-precision`` (note).

    Parameters
    ----------
    cohort
        Its cases are counted.
    folds
        Of the cross-validation of a network; None where there is none, as when one that is finished is evaluated.
    """
    known = cohort.case_rows.drop_duplicates("patient")["label"].value_counts()
    counts = {name: int(known.get(name, 0)) for name in cohort.classes}
    training = [*_folds(counts, folds), *_sets(counts)] if folds is not None else []
    return (*training, *_precision(counts))


def _folds(counts: Mapping[str, int], folds: int) -> list[Finding]:
    name, fewest = min(counts.items(), key=lambda one: one[1])
    if fewest >= folds:
        return []
    remedy = f"train with --folds {fewest}" if fewest > 1 else "gather more patients of this class"
    return [
        _finding("too-few-for-folds", "block", f"{name!r} has {fewest} patients, too few for {folds} folds", remedy)
    ]


def _sets(counts: Mapping[str, int]) -> list[Finding]:
    name, fewest = min(counts.items(), key=lambda one: one[1])
    refused = [f"{level:.0%}" for level, needed in FEWEST_FOR_SETS.items() if fewest < needed]
    if not refused:
        return []
    message = f"{name!r} has {fewest} patients, too few for prediction sets at {' and at '.join(refused)}"
    severity: Severity = "warn" if fewest < FEWEST_FOR_SETS[0.90] else "note"
    return [_finding("too-few-for-calibration", severity, message, "gather more patients of this class")]


def _precision(counts: Mapping[str, int]) -> list[Finding]:
    """Say how wide the interval of an AUC will be, of the rarest class against the rest."""
    name = min(counts, key=lambda one: counts[one])
    cases, others = counts[name], sum(counts.values()) - counts[name]
    if min(cases, others) < _FEWEST_FOR_PRECISION:
        return []
    ends, smallest = expected_interval(ASSUMED_AUC, cases, others), smallest_auc(cases, others)
    told = "no AUC" if smallest is None else f"only a true AUC of {smallest:.2f} or more"
    message = (
        f"with {cases} patients of {name!r} and {others} others a true AUC of {ASSUMED_AUC} is expected to be measured "
        f"with a 95 % interval of {ends.low:.2f} to {ends.high:.2f}, and {told} to be told from chance (power 80 %)"
    )
    return [_finding("expected-precision", "note", message)]


def _finding(kind: str, severity: Severity, message: str, remedy: str = "") -> Finding:
    return Finding(kind=kind, severity=severity, cases=(), message=message, remedy=remedy)
