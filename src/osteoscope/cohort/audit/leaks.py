"""Looks for what would make a result a lie: one patient, or the same pixels, where two were counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.cohort.audit.finding import Finding, finding_of, images_named, in_order

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from osteoscope.cohort.table import Cohort


def find_leaks(cohort: Cohort) -> tuple[Finding, ...]:
    """Look for patients and pixels that are counted twice.

    Kinds that block: ``patient-with-two-labels``, ``duplicate-across-labels``, ``duplicate-across-patients``. Kinds
    that warn: ``duplicate-within-patient``; ``auxiliary-shares-patient`` and ``auxiliary-shares-pixels``, for
    auxiliary images that `osteoscope.cohort.table.auxiliary` keeps back since they belong to a case.

    Returns
    -------
    What blocks first, then by kind and by patient; empty where nothing was found.
    """
    found = (*_two_labels(cohort), *_duplicates(cohort), *_shared_auxiliary(cohort))
    return in_order(found)


def shared_with(cohort: Cohort, patients: Collection[str], pixels: Collection[str]) -> tuple[Finding, ...]:
    """Look for cases of a cohort that a model has already seen.

    Parameters
    ----------
    cohort
        What the model is to be evaluated on.
    patients
        Pseudonyms that the model was trained on.
    pixels
        Pixel hashes that the model was trained on.

    Returns
    -------
    ``shared-patient`` and ``shared-pixels``, both blocking; empty where the model has seen none of the cases.
    """
    rows = cohort.case_rows
    kinds = (
        ("shared-patient", rows[rows["patient"].isin(list(patients))], "are among those that the model was trained on"),
        ("shared-pixels", rows[rows["pixel_sha256"].isin(list(pixels))], "have images that the model was trained on"),
    )
    return tuple(
        _blocking(kind, seen, f"{seen['patient'].nunique()} of {rows['patient'].nunique()} patients {what}")
        for kind, seen, what in kinds
        if len(seen)
    )


_REMEDIES = {
    "patient-with-two-labels": "give every image of a patient the same label, and make the cohort again",
    "duplicate-across-labels": "find out which label is right, remove the other image, and make the cohort again",
    "duplicate-across-patients": "give both images to one patient, or remove one, and make the cohort again",
    "shared-patient": "leave these patients out; if they are other people, name the cohorts' sources with --source",
    "shared-pixels": "leave these images out",
}


def _blocking(kind: str, rows: pd.DataFrame, message: str) -> Finding:
    return finding_of(kind, "block", rows, message, remedy=_REMEDIES[kind])


def _two_labels(cohort: Cohort) -> list[Finding]:
    findings = []
    for patient, rows in cohort.case_rows.groupby("patient"):
        labels = sorted(rows["label"].unique())
        if len(labels) > 1:
            message = f"patient {patient} has the labels {' and '.join(map(repr, labels))} ({images_named(rows)})"
            findings.append(_blocking("patient-with-two-labels", rows, message))
    return findings


def _duplicates(cohort: Cohort) -> list[Finding]:
    findings = []
    for _, rows in cohort.case_rows.groupby("pixel_sha256"):
        if len(rows) == 1:
            continue
        same = f"{images_named(rows)} have the same pixels"
        if rows["label"].nunique() > 1:
            findings.append(_blocking("duplicate-across-labels", rows, f"{same} and different labels"))
        elif rows["patient"].nunique() > 1:
            findings.append(_blocking("duplicate-across-patients", rows, f"{same} and different patients"))
        else:
            findings.append(finding_of("duplicate-within-patient", "warn", rows, f"{same}, and one patient"))
    return findings


def _shared_auxiliary(cohort: Cohort) -> list[Finding]:
    held, rows = cohort.case_rows, cohort.auxiliary_rows
    kept_back = "and will not be used in training"
    same_pixels = rows["pixel_sha256"].isin(held["pixel_sha256"])
    same_patient = rows["patient"].isin(held["patient"])
    findings = []
    for pixels, twins in rows[same_pixels].groupby("pixel_sha256"):
        both = held[held["pixel_sha256"] == pixels]
        message = f"outside the classes, {images_named(twins)} has the same pixels as {images_named(both)} {kept_back}"
        findings.append(finding_of("auxiliary-shares-pixels", "warn", both, message))
    for patient, others in rows[same_patient & ~same_pixels].groupby("patient"):
        message = f"outside the classes, {images_named(others)} is of patient {patient}, a case, {kept_back}"
        findings.append(finding_of("auxiliary-shares-patient", "warn", others, message))
    return findings
