"""What the audit says of a cohort, and what stops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from osteoscope.errors import CohortError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

Severity = Literal["block", "warn", "note"]

_SEVERITIES: tuple[Severity, ...] = ("block", "warn", "note")

NEVER_ACCEPTED = frozenset(
    {
        "duplicate-across-labels",
        "duplicate-across-patients",
        "patient-in-two-folds",
        "patient-with-two-labels",
        "pixels-in-two-folds",
        "shared-patient",
        "shared-pixels",
        "too-few-for-folds",
    }
)
"""Kinds under which there is no result to go on to: a label that contradicts itself, the same patient or pixels on both
sides of a split, folds that cannot be dealt."""

_MOST_NAMED = 4
"""How many images one message names."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a cohort that its user must know.

    Parameters
    ----------
    kind
        What was found, as a word that programs can rely on.
    severity
        ``block``: it makes a result a lie, so nothing may be trained or measured on the cohort as it is. ``warn``: it
        may make a result look better than it is. ``note``: it belongs to the description of the cohort.
    cases
        Pseudonyms of the patients concerned, sorted; empty where the cohort as a whole is.
    message
        One sentence.
    remedy
        What to do about it, as an imperative sentence without a full stop; empty where nothing need be done.
    """

    kind: str
    severity: Severity
    cases: tuple[str, ...]
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the fields as a value that JSON can hold."""
        return {**asdict(self), "cases": list(self.cases)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Take a finding from what `to_json` gave."""
        return cls(**{**value, "cases": tuple(value["cases"])})


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort: what blocks first, then what warns; then by kind and by patient."""
    return tuple(sorted(findings, key=lambda one: (_SEVERITIES.index(one.severity), one.kind, one.cases, one.message)))


def raise_if_blocked(findings: Iterable[Finding]) -> None:
    """Stop where a finding blocks.

    Raises
    ------
    CohortError
        With the first finding that blocks, the number of the others, and, where one may, how to accept it.
    """
    blocking = [finding for finding in findings if finding.severity == "block"]
    if not blocking:
        return
    first = blocking[0]
    more = f", and {len(blocking) - 1} more such findings" if len(blocking) > 1 else ""
    accept = f'--accept {first.kind} --because "…"'
    remedy = first.remedy if first.kind in NEVER_ACCEPTED else f"{first.remedy}; or go on with {accept}"
    raise CohortError(f"{first.message}{more}", remedy=remedy)


def finding_of(kind: str, severity: Severity, rows: pd.DataFrame, message: str, remedy: str = "") -> Finding:
    """Make a finding about the patients of some rows of a cohort."""
    return Finding(
        kind=kind, severity=severity, cases=tuple(sorted(rows["patient"].unique())), message=message, remedy=remedy
    )


def images_named(rows: pd.DataFrame) -> str:
    """Names of some images, joined; of many, the first few and the number of the others."""
    images = sorted(rows["image"])
    more = [f"{len(images) - _MOST_NAMED} more"] if len(images) > _MOST_NAMED else []
    return " and ".join([*images[:_MOST_NAMED], *more])
