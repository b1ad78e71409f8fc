"""The groups of patients that a result is looked at by: age band, sex, site or level, centre, modalities, lesion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.cohort.sites import SITE_SEPARATOR
from osteoscope.imaging.mixed import mix_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from osteoscope.cohort.table import Case, Cohort

AGE_BANDS = ((0, 20, "0 to 19"), (20, 40, "20 to 39"), (40, 60, "40 to 59"), (60, 1000, "60 and over"))
"""From, to (not included) and name, in years: the growing skeleton, the years of the giant cell tumour, and later."""

LESION_SIZES = ((0.0, 0.25, "0 to 24 %"), (0.25, 0.5, "25 to 49 %"), (0.5, 10.0, "50 % and more"))
"""From, to (not included) and name: the longer side of the lesion as a share of the longer side of the image. The
scale of a picture is unknown, so a lesion has no size in mm."""

SEVERAL = "several"
"""A patient with images in more than one of the groups."""


def patient_groups(cohort: Cohort, cases: Sequence[Case]) -> dict[str, dict[str, str]]:
    """Give each patient's group in each grouping that the cohort knows enough of.

    Parameters
    ----------
    cohort
        Where the cases are from.
    cases
        All of its cases.

    Returns
    -------
    By the name of the grouping (``age``, ``sex``, ``site``, ``level``, ``centre``, ``modality``, ``lesion size``), the
    group of each patient of whom it is known; of ``modality`` it is all that there are, as ``CT+MR``. A grouping that
    is not known of anyone, or puts all patients into one group, is left out.
    """
    groupings: dict[str, dict[str, str | None]] = {
        "age": {case.patient: _band(AGE_BANDS, case.age) for case in cases},
        "sex": {case.patient: case.sex for case in cases},
        "site": {case.patient: _one_site(case.site) for case in cases},
        "level": _one_value(cohort.case_rows, "level"),
        "centre": _one_value(cohort.case_rows, "centre"),
        "modality": {case.patient: mix_of(image.modality for image in case.images) for case in cases},
        "lesion size": {case.patient: _band(LESION_SIZES, _largest_lesion(case)) for case in cases},
    }
    known = {
        name: {patient: group for patient, group in groups.items() if group is not None}
        for name, groups in groupings.items()
    }
    told_apart = {name: groups for name, groups in known.items() if groups}
    return {
        name: groups for name, groups in told_apart.items() if len(set(groups.values())) > 1 or len(groups) < len(cases)
    }


def _band(bands: Sequence[tuple[float, float, str]], value: float | None) -> str | None:
    return None if value is None else next((name for low, high, name in bands if low <= value < high), None)


def _one_site(site: str | None) -> str | None:
    if site is None:
        return None
    return SEVERAL if SITE_SEPARATOR in site else site


def _one_value(rows: pd.DataFrame, column: str) -> dict[str, str | None]:
    """Give the value that all images of a patient share, as far as it is known."""
    return {str(patient): _shared(values) for patient, values in rows.groupby("patient")[column]}


def _shared(values: pd.Series[Any]) -> str | None:
    distinct = values.dropna().unique()
    if len(distinct) == 0:
        return None
    return str(distinct[0]) if len(distinct) == 1 else SEVERAL


def _largest_lesion(case: Case) -> float | None:
    """Longest side of a lesion as a share of its image's longer side; None where an image has no annotation."""
    shares = []
    for image in case.images:
        if not image.lesions:
            return None
        boxes = np.array([lesion.bounds("outline") for lesion in image.lesions])
        sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        shares.append(float(sides.max()) / max(image.rows, image.columns))
    return max(shares)
