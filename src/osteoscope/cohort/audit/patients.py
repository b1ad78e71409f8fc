"""Looks for signs that one person was counted as several, and for folds that part what belongs together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.cohort.audit.finding import Finding, finding_of, images_named
from osteoscope.cohort.baselines import are_scans
from osteoscope.cohort.grouping import ALIKE, coarsest_groups
from osteoscope.cohort.table import pseudonyms

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from osteoscope.cohort.audit.finding import Severity
    from osteoscope.cohort.table import Cohort
    from osteoscope.evaluation.arrays import IntArray

_PERMUTATIONS = 999

_BY_CHANCE = 0.001
"""Neighbours that are alike by chance more often than this tell nothing."""

_TIMES_EXPECTED = 2.0
"""How many times as many neighbours as expected must be alike."""

_KEEP_TOGETHER = "give all images of a person one patient identifier, and make the cohort again"


def find_split_patients(cohort: Cohort, *, copies_across_patients: bool) -> tuple[Finding, ...]:
    """Look for people who may be counted as several patients.

    Kinds: ``study-across-patients`` (block; warn where an auxiliary image is on one side), ``patients-are-images``
    (warn, or block where a study or copies of an image under two patients confirm it) and ``patients-may-be-one``
    (warn where patients are guessed, else note).

    Parameters
    ----------
    cohort
        Its cases are looked at.
    copies_across_patients
        Whether the same picture, or nearly, was found under two patients.
    """
    studies = _studies(cohort)
    confirmed = copies_across_patients or any(finding.severity == "block" for finding in studies)
    return (*studies, *_patients_are_images(cohort, confirmed=confirmed), *_may_be_one(cohort))


def _studies(cohort: Cohort) -> list[Finding]:
    findings = []
    for study, rows in cohort.frame[cohort.frame["study"].notna()].groupby("study"):
        cases = rows[rows["role"] == "case"]
        if not len(cases) or rows["patient"].nunique() == 1:
            continue
        severity: Severity = "block" if cases["patient"].nunique() > 1 else "warn"
        message = f"study {study} is of {rows['patient'].nunique()} patients ({images_named(rows)})"
        findings.append(finding_of("study-across-patients", severity, rows, message, _KEEP_TOGETHER))
    return findings


def _may_be_one(cohort: Cohort) -> list[Finding]:
    group_of = coarsest_groups(cohort)
    groups = len(set(group_of.values()))
    if groups == len(group_of):
        return []
    members: dict[str, list[str]] = {}
    for patient, group in group_of.items():
        members.setdefault(group, []).append(patient)
    concerned = sorted(patient for group in members.values() if len(group) > 1 for patient in group)
    guessed = bool(cohort.case_rows["guessed"].any())
    message = (
        f"{len(group_of)} patients would be {groups} if those of the same label, {_traits(cohort.case_rows)} were one"
        f"{', and patients are guessed' if guessed else ''}"
    )
    return [
        Finding(
            kind="patients-may-be-one",
            severity="warn" if guessed else "note",
            cases=tuple(concerned),
            message=message,
            remedy="read the AUC under the coarsest grouping beside the AUC by patient" if guessed else "",
        )
    ]


def _traits(rows: pd.DataFrame) -> str:
    """Name what tells people apart; the level of the spine where it is recorded."""
    return "age, sex, body site and level" if bool(rows["level"].notna().any()) else "age, sex and body site"


# Images taken for patients --------------------------------------------------------------------------------------------


def _patients_are_images(cohort: Cohort, *, confirmed: bool) -> list[Finding]:
    rows = cohort.case_rows
    if rows["patient"].nunique() < len(rows):
        return []
    neighbours = _alike_neighbours(rows)
    # A folder of one scan is called as its patient is.
    named = not bool((rows["guessed"] | are_scans(rows)).any()) and _named_after_images(cohort)
    if neighbours is None and not named:
        return []
    signs = []
    if neighbours is not None:
        signs.append(
            f"{neighbours.alike} images are of the same label, {_traits(rows)} as the next by name, where "
            f"{neighbours.expected:.1f} would be by chance"
        )
    if named:
        signs.append("patients are called as their images are")
    if confirmed:
        signs.append("copies or a study are shared by two patients")
    blocks = confirmed and neighbours is not None
    message = f"each of {len(rows)} patients has exactly one image, and {', and '.join(signs)}"
    return [
        Finding(
            kind="patients-are-images",
            severity="block" if blocks else "warn",
            cases=(),
            message=f"{message}: images may have been taken for patients",
            remedy=_KEEP_TOGETHER,
        )
    ]


def _named_after_images(cohort: Cohort) -> bool:
    """Whether every pseudonym is that of the image's own name, with or without its folder and suffix."""
    for image, patient in zip(cohort.case_rows["image"], cohort.case_rows["patient"], strict=True):
        path = PurePosixPath(image)
        if patient not in pseudonyms(cohort.source, {image, path.name, path.stem}).values():
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Neighbours:
    """How many images look like the next by name, and how many would by chance."""

    alike: int
    expected: float


def _alike_neighbours(rows: pd.DataFrame) -> _Neighbours | None:
    """Count neighbours by name that are alike, if they are more than a permutation within classes explains."""
    ordered = rows.iloc[sorted(range(len(rows)), key=lambda place: _natural(rows["image"].iloc[place]))]
    traits = ordered[list(ALIKE)].assign(age=ordered["age"].round())
    numbers = traits.groupby(list(traits), dropna=False).ngroup().to_numpy(dtype=np.int64)
    # Who has no age is like nobody.
    looks: IntArray = np.where(ordered["age"].notna(), numbers, -1 - np.arange(len(rows)))
    label = np.unique(ordered["label"].to_numpy(dtype=np.str_), return_inverse=True)[1]
    alike = _count_alike(looks, label)
    generator = np.random.default_rng(0)
    drawn = np.array([_count_alike(_shuffled(looks, label, generator), label) for _ in range(_PERMUTATIONS)])
    chance, expected = (1 + int((drawn >= alike).sum())) / (1 + _PERMUTATIONS), float(drawn.mean())
    if chance > _BY_CHANCE or alike < _TIMES_EXPECTED * expected:
        return None
    return _Neighbours(alike=alike, expected=expected)


def _count_alike(looks: IntArray, label: IntArray) -> int:
    return int(((looks[1:] == looks[:-1]) & (label[1:] == label[:-1])).sum())


def _shuffled(looks: IntArray, label: IntArray, generator: np.random.Generator) -> IntArray:
    """Shuffle within each class."""
    shuffled = looks.copy()
    for code in np.unique(label):
        shuffled[label == code] = generator.permutation(looks[label == code])
    return shuffled


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which image 9 comes before image 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


# Folds ----------------------------------------------------------------------------------------------------------------


def audit_folds(cohort: Cohort, fold_of: Mapping[str, int | str]) -> tuple[Finding, ...]:
    """Look for what is on two sides of any assignment of images to folds.

    Parameters
    ----------
    cohort
        Knows each image's patient and pixels.
    fold_of
        The fold of each image, by its name in the cohort; images that it leaves out are not looked at.

    Returns
    -------
    At most one ``patient-in-two-folds`` and one ``pixels-in-two-folds``, both blocking.

    Raises
    ------
    ValueError
        If an image is not in the cohort.
    """
    strange = set(fold_of) - set(cohort.frame["image"])
    if strange:
        msg = f"expected images of the cohort, got {len(strange)} others"
        raise ValueError(msg)
    rows = cohort.frame[cohort.frame["image"].isin(list(fold_of))]
    rows = rows.assign(fold=[str(fold_of[image]) for image in rows["image"]])
    findings = []
    for column, kind, what, remedy in _IN_TWO_FOLDS:
        torn = rows[rows.groupby(column)["fold"].transform("nunique") > 1]
        if len(torn):
            message = f"{torn[column].nunique()} {what} in two folds or more ({images_named(torn)})"
            findings.append(finding_of(kind, "block", torn, message, remedy))
    return tuple(findings)


_IN_TWO_FOLDS = (
    ("patient", "patient-in-two-folds", "patients are", "deal patients into folds, not images"),
    (
        "pixel_sha256",
        "pixels-in-two-folds",
        "pictures with the same pixels are",
        "put images with the same pixels into one fold, or remove all but one",
    ),
)
