"""What a network must beat: the majority, clinical data alone, and alone how the images were made.

All are predicted in the folds that the network is judged in, so that they can be set beside it patient by patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import cases as cases_of
from osteoscope.evaluation.intervals import group_patients
from osteoscope.evaluation.tabular import Columns, patient_means, predict_out_of_fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from osteoscope.cohort.split import Folds
    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.evaluation.arrays import FloatArray, IntArray

MAJORITY = "majority"
CLINICAL = "clinical: age, sex"
CLINICAL_SITE = "clinical: age, sex, site"
CLINICAL_LEVEL = "clinical: age, sex, level"
CLINICAL_SITE_LEVEL = "clinical: age, sex, site, level"
GEOMETRY = "picture geometry"
ACQUISITION = "scan geometry and noise"
MIX = "modalities, geometry and noise"

Features = Mapping[str, Mapping[str, float]]
"""By image: what its picture is like, as `osteoscope.imaging.look.Look` measures it."""

BORDERS = ("border_left", "border_top", "border_right", "border_bottom", "corner_marks", "edge_marks")
"""Features of the borders and of burned-in marks."""

EXPOSURE = ("mean", "deviation", "sharpness", "black_share", "white_share")
"""Features of brightness, contrast and sharpness."""

SCAN_GEOMETRY = ("planes", "plane_step", "pixel", "height", "width", "from_axial", "from_sagittal")
"""Features of a CT or MR, as `osteoscope.imaging.scan_look.look_at_scan` measures them: its planes, ..."""

NOISE = ("noise", "grain")
"""... noise and kernel, ..."""

CONTRAST = ("fat", "soft", "bright")
"""... and what a contrast agent and the tube voltage change."""

ACQUIRED = (*SCAN_GEOMETRY, *NOISE)
"""How a scan was acquired, whatever it shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A baseline's out-of-fold probabilities, or why there are none."""

    name: str
    probabilities: FloatArray | None
    """Shape (repeats, P, K), the patients in the order of `patients`."""
    patients: tuple[str, ...]
    """Pseudonyms, sorted."""
    prior: FloatArray | None = None
    """Shape (K,), the class shares that the probabilities assume; None for the same share for every class."""
    models: tuple[str, ...] = ()
    """What was chosen in each repeat and fold."""
    reason: str | None = None
    """Why there are no probabilities."""


def folds_within(
    cases: Sequence[Case], classes: Sequence[str], *, folds: int = 5, repeats: int = 1, seed: int = 0
) -> Folds | None:
    """Deal patients into folds of their own, where a network was trained on others.

    Returns
    -------
    As many folds as asked for, or as the rarest class has patients; None where it has fewer than two.
    """
    counts = np.bincount([case.label for case in cases if case.label is not None], minlength=len(classes))
    possible = min(folds, int(counts.min()))
    return None if possible < 2 else make_folds(cases, folds=possible, repeats=repeats, seed=seed, classes=classes)


def baselines(cohort: Cohort, folds: Folds, *, features: Features | None = None) -> tuple[Baseline, ...]:
    """Predict the cohort's patients from what needs no network.

    Parameters
    ----------
    cohort
        Its cases are predicted.
    folds
        Of all its cases; those of the network, or `folds_within`.
    features
        `BORDERS` of each picture and what was `ACQUIRED` of each CT or MR, as the audit gives them; without them the
        geometry is width, height and aspect alone.

    Returns
    -------
    `MAJORITY`, `CLINICAL`, that with the place in the body (`clinical_place`), and `GEOMETRY`, or `ACQUISITION` where
    there are scans, or `MIX` where there are several modalities, in this order. The last is judged image by image and
    averaged over a patient's images.

    Raises
    ------
    CohortError, ImageError
        As `osteoscope.cohort.table.cases`.
    """
    cases = cases_of(cohort)
    rows = cohort.case_rows
    several, scans = rows["modality"].nunique() > 1, bool(are_scans(rows).any())
    known = feature_columns(rows, features or {}, (*BORDERS, *ACQUIRED))
    modality: dict[str, list[str | None]] = {"modality": rows["modality"].tolist()} if several else {}
    geometry = Columns(numeric={**size_columns(rows), **known}, categorical=modality)
    made = MIX if several else ACQUISITION if scans else GEOMETRY
    placed, place = clinical_place(cases)
    return (
        _majority(cohort, cases, folds),
        predict_by(CLINICAL, clinical_columns(cases), _patients(cases), cohort=cohort, folds=folds),
        predict_by(placed, place, _patients(cases), cohort=cohort, folds=folds),
        predict_by(made, geometry, rows["patient"].tolist(), cohort=cohort, folds=folds),
    )


def predict_by(name: str, columns: Columns, patients: Sequence[str], *, cohort: Cohort, folds: Folds) -> Baseline:
    """Predict patients out of fold from some columns.

    Parameters
    ----------
    name
        Of the baseline.
    columns
        A row a patient, or a row an image; a patient's answer is the mean over the rows.
    patients
        The patient of each row, length n: cases of the cohort, all or some.
    cohort
        Knows the patients' labels.
    folds
        Of its cases.
    """
    label_of = dict(zip(cohort.case_rows["patient"], cohort.case_rows["label"], strict=True))
    labels = np.array([cohort.classes.index(label_of[patient]) for patient in patients], dtype=np.int64)
    groups = group_patients(patients, labels)
    found = predict_out_of_fold(
        columns,
        labels,
        classes=cohort.classes,
        patients=patients,
        folds=fold_of_rows(folds, patients),
        seed=folds.seed,
    )
    return Baseline(
        name=name,
        probabilities=None if found.probabilities is None else patient_means(found.probabilities, groups),
        patients=groups.names,
        models=found.models,
        reason=found.reason,
    )


def clinical_columns(cases: Sequence[Case], *, site: bool = False, level: bool = False) -> Columns:
    """Age and sex of patients, and their body site and level of the spine where asked for; a row a case."""
    return Columns(
        numeric={"age": np.array([np.nan if case.age is None else case.age for case in cases], dtype=np.float64)},
        categorical={
            "sex": [case.sex for case in cases],
            **({"site": [case.site for case in cases]} if site else {}),
            **({"level": [case.level for case in cases]} if level else {}),
        },
    )


def clinical_place(cases: Sequence[Case]) -> tuple[str, Columns]:
    """Age, sex and place in the body of patients, and the name of the baseline that sees them.

    Returns
    -------
    `CLINICAL_LEVEL` where levels of the spine are recorded and no body sites, `CLINICAL_SITE_LEVEL` where both are,
    else `CLINICAL_SITE`.
    """
    level = any(case.level is not None for case in cases)
    site = not level or any(case.site is not None for case in cases)
    name = {(True, False): CLINICAL_SITE, (False, True): CLINICAL_LEVEL, (True, True): CLINICAL_SITE_LEVEL}
    return name[site, level], clinical_columns(cases, site=site, level=level)


def are_scans(rows: pd.DataFrame) -> pd.Series[bool]:
    """Tell which images are CT or MR, and no pictures; a row an image of the cohort's table."""
    return rows["modality"] != "radiograph"


def size_columns(rows: pd.DataFrame) -> dict[str, FloatArray]:
    """Rows, columns and aspect of images, each of shape (n,); a row an image of the cohort's table."""
    height, width = rows["rows"].to_numpy(dtype=np.float64), rows["columns"].to_numpy(dtype=np.float64)
    return {"rows": height, "columns": width, "aspect": width / height}


def feature_columns(rows: pd.DataFrame, features: Features, names: Sequence[str]) -> dict[str, FloatArray]:
    """Give some features of images, each of shape (n,), NaN where not known; a row an image of the cohort's table."""
    of_rows = [features.get(image, {}) for image in rows["image"]]
    return {name: np.array([known.get(name, np.nan) for known in of_rows], dtype=np.float64) for name in names}


def _majority(cohort: Cohort, cases: Sequence[Case], folds: Folds) -> Baseline:
    """Give every patient the cohort's class shares.

    Those of each training part would differ a little from fold to fold, in the opposite direction to the fold's own
    patients, and so rank them worse than chance.
    """
    counts = np.bincount([case.label for case in cases if case.label is not None], minlength=len(cohort.classes))
    shares = counts / counts.sum()
    of_everybody = np.tile(shares, (folds.repeats, len(cases), 1))
    return Baseline(name=MAJORITY, probabilities=of_everybody, prior=shares, patients=tuple(_patients(cases)))


def _patients(cases: Sequence[Case]) -> list[str]:
    return [case.patient for case in cases]


def fold_of_rows(folds: Folds, patients: Sequence[str]) -> IntArray:
    """Give the fold that each row is tested in, shape (repeats, n)."""
    fold_of = [{name: fold for fold, held in enumerate(repeat) for name in held} for repeat in folds.test]
    return np.array([[of_patient[patient] for patient in patients] for of_patient in fold_of], dtype=np.int64)
