"""What the audit says of a cohort, and what stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from osteoscope.errors import CohortError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

Severity = Literal["block", "warn", "note"]

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
        Pseudonyms of the patients concerned, sorted.
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


def raise_if_blocked(findings: Iterable[Finding]) -> None:
    """Stop where a finding blocks.

    Raises
    ------
    CohortError
        With the first finding that blocks, and the number of the others.
    """
    blocking = [finding for finding in findings if finding.severity == "block"]
    if not blocking:
        return
    more = f", and {len(blocking) - 1} more such findings" if len(blocking) > 1 else ""
    raise CohortError(f"{blocking[0].message}{more}", remedy=blocking[0].remedy)


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
