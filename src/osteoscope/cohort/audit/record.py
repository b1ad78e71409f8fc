"""Looks for what the record says of the lesion itself: how its diagnosis was proven, and what was done to it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.cohort.audit.finding import Finding, finding_of
from osteoscope.cohort.audit.shares import BY_CHANCE, ClassShares

if TYPE_CHECKING:
    import pandas as pd

    from osteoscope.cohort.audit.finding import Severity
    from osteoscope.cohort.table import Cohort

_TISSUE = ("histology", "cytology")
"""Proofs that rest on tissue."""


def find_in_record(cohort: Cohort) -> tuple[Finding, ...]:
    """Look at proofs, biopsies, treatment and implants.

    Kinds: ``proof-not-recorded`` (note), ``proof-without-tissue`` (warn); ``after-biopsy``, ``after-treatment`` (warn)
    and ``implant`` (note), which block where nearly all patients of a class have it and nearly none of another, and
    warn where it depends on the class. Nothing recorded counts as no.

    Parameters
    ----------
    cohort
        Each of whose cases has one label.
    """
    rows = cohort.case_rows
    after_proof = rows["image_date"] > rows["proof_date"]
    after_biopsy = rows["biopsied"].fillna(value=False) | (after_proof & rows["proof"].isin(_TISSUE)).fillna(
        value=False
    )
    traits: tuple[tuple[str, pd.Series, str, Severity], ...] = (
        ("after-biopsy", after_biopsy, "were taken after a biopsy", "warn"),
        ("after-treatment", rows["treated"].fillna(value=False), "were taken after treatment", "warn"),
        ("implant", rows["implant"].fillna(value=False), "show an implant", "note"),
    )
    found = [_trait(cohort, kind, holds.astype(bool), what, plain) for kind, holds, what, plain in traits]
    return (*_proofs(cohort), *(finding for finding in found if finding is not None))


def _proofs(cohort: Cohort) -> list[Finding]:
    rows = cohort.case_rows
    if not bool(rows["proof"].notna().any()):
        message = "how the diagnoses were proven is recorded of no patient"
        return [Finding(kind="proof-not-recorded", severity="note", cases=(), message=message)]
    proven = rows["proof"].isin(_TISSUE).groupby(rows["patient"]).any()
    labels = rows.groupby("patient")["label"].first()
    unproven = ClassShares.of(~proven, labels, cohort.classes)
    if not unproven.anybody:
        return []
    return [
        finding_of(
            "proof-without-tissue",
            "warn",
            rows[rows["patient"].isin(proven.index[~proven])],
            f"the diagnosis is not said to be proven by histology or cytology of {unproven.sentence()}",
            "say in the report how these diagnoses were made, or leave these patients out",
        )
    ]


def _trait(cohort: Cohort, kind: str, holds: pd.Series, what: str, plain: Severity) -> Finding | None:
    """Judge something that some images have, by the patients who have such an image."""
    rows = cohort.case_rows
    labels = rows.groupby("patient")["label"].first()
    shares = ClassShares.of(holds.groupby(rows["patient"]).any(), labels, cohort.classes)
    if not shares.anybody:
        return None
    sentence = f"images that {what}: {shares.sentence()}"
    remedy = "leave these images out, or say in the report that they are in"
    severity, end = plain, ""
    if shares.tell_apart():
        severity, end = "block", ", so that it alone tells the label"
        remedy = "take such images of all classes, or of none"
    elif (chance := shares.p_value()) < BY_CHANCE:
        severity, end = "warn", f", which depends on the label (Fisher's exact test, p = {chance:.2g})"
    return finding_of(kind, severity, rows[holds], f"{sentence}{end}", remedy)
