"""Looks for what tells the label without showing the disease: how a picture was made, stored, cropped, and where."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import fisher_exact

from osteoscope.cohort.audit.finding import Finding
from osteoscope.cohort.audit.shares import ClassShares
from osteoscope.cohort.audit.witness import Witness, hear
from osteoscope.cohort.baselines import BORDERS, EXPOSURE, feature_columns, size_columns
from osteoscope.cohort.table import lesions_from_json, resolve_inside
from osteoscope.errors import ImageError
from osteoscope.evaluation.tabular import Columns

if TYPE_CHECKING:
    import pandas as pd

    from osteoscope.cohort.baselines import Features
    from osteoscope.cohort.table import Cohort
    from osteoscope.config import RegionOfInterest
    from osteoscope.evaluation.arrays import FloatArray

_CHANCE = 0.001
"""A difference between classes that chance explains more often than this does not block."""

_FEWEST_AT_A_CENTRE = 9
"""A class of fewer patients may come from one centre by chance."""

_OUTLINED_APART = 0.2
"""Difference between two classes' shares of images with a lesion that depends on the label."""

_REMEDIES = {
    "geometry": "bring the pictures of all classes to one size and shape in the same way, or leave a class out",
    "border": "cut borders and burned-in marks off the pictures of all classes in the same way",
    "exposure": "look whether the classes were exposed and processed alike; a dense lesion changes this honestly",
    "file": "export the pictures of all classes in the same way",
    "view": "take the same views of all classes",
    "centre": "take patients of every class from every centre, or leave centres out",
}
_MAY_BLOCK = {"geometry", "border", "file", "centre"}


def hear_shortcuts(cohort: Cohort, *, features: Features) -> dict[str, Witness]:
    """Let models predict the label from what a picture is like, apart from what it shows.

    Parameters
    ----------
    cohort
        Each of whose cases has one label.
    features
        Of each image.

    Returns
    -------
    By name: ``geometry``, ``border``, ``exposure``, ``file``, ``view`` and ``centre``, the last two where they are
    recorded.

    Raises
    ------
    ImageError
        If an image's file is missing.
    """
    rows = cohort.case_rows
    seen = {
        "geometry": ("picture geometry", _numbers(size_columns(rows)), rows),
        "border": ("borders and burned-in marks", _numbers(feature_columns(rows, features, BORDERS)), rows),
        "exposure": ("brightness and sharpness", _numbers(feature_columns(rows, features, EXPOSURE)), rows),
        "file": ("file format and size", _file_columns(cohort, rows), rows),
        **{column: (column, *_recorded(column, rows)) for column in ("view", "centre")},
    }
    return {
        name: hear(
            sees,
            columns,
            patients=images["patient"].tolist(),
            labels=images["label"].tolist(),
            classes=cohort.classes,
        )
        for name, (sees, columns, images) in seen.items()
    }


def _numbers(columns: dict[str, FloatArray]) -> Columns:
    return Columns(numeric=columns, categorical={})


def _recorded(column: str, rows: pd.DataFrame) -> tuple[Columns, pd.DataFrame]:
    """Give a column of the cohort's table where it is recorded, and the rows of it."""
    known = rows[rows[column].notna()]
    return Columns(numeric={}, categorical={column: known[column].tolist()}), known


def _file_columns(cohort: Cohort, rows: pd.DataFrame) -> Columns:
    """Give what the images' files are like."""
    sizes = []
    for image in rows["image"]:
        path = resolve_inside(cohort.root, image)
        try:
            sizes.append(path.stat().st_size)
        except OSError as error:
            remedy = "name the folder that holds the images with --images"
            raise ImageError("the picture is missing", path=path, remedy=remedy) from error
    pixels = (rows["rows"] * rows["columns"]).to_numpy(dtype=np.float64)
    return Columns(
        numeric={"bytes per pixel": np.array(sizes, dtype=np.float64) / pixels},
        categorical={
            "format": [PurePosixPath(image).suffix.lower() for image in rows["image"]],
            "modality": rows["modality"].tolist(),
        },
    )


def find_shortcuts(cohort: Cohort, heard: dict[str, Witness], *, roi: RegionOfInterest) -> tuple[Finding, ...]:
    """Say what `hear_shortcuts` heard, and what else lets the preparation of an image depend on its label.

    Kinds: ``geometry-shortcut``, ``border-shortcut``, ``file-shortcut``, ``centre-shortcut`` (warn, or block where
    nearly the whole label is given away), ``exposure-shortcut`` and ``view-shortcut`` (warn),
    ``outline-depends-on-label`` (block; where whole images are read a note).

    Parameters
    ----------
    cohort
        Each of whose cases has one label.
    heard
        By name.
    roi
        What will be read of each image.
    """
    found = {name: (severity, one.sentence()) for name, one in heard.items() if (severity := one.severity) is not None}
    lone = _classes_of_one_centre(cohort)
    if lone:
        found["centre"] = ("block", "; ".join([*lone, heard["centre"].sentence()]))
    shortcuts = [
        Finding(
            kind=f"{name}-shortcut",
            severity=severity if name in _MAY_BLOCK else "warn",
            cases=(),
            message=sentence,
            remedy=_REMEDIES[name],
        )
        for name, (severity, sentence) in found.items()
    ]
    return (*shortcuts, *_outlines_by_label(cohort, roi))


def _classes_of_one_centre(cohort: Cohort) -> list[str]:
    """Name the classes that only one centre has, while most patients of the others come from elsewhere."""
    known = cohort.case_rows[cohort.case_rows["centre"].notna()].drop_duplicates("patient")
    said = []
    for name in cohort.classes:
        own, others = known[known["label"] == name]["centre"], known[known["label"] != name]["centre"]
        if len(own) < _FEWEST_AT_A_CENTRE or own.nunique() != 1:
            continue
        centre = own.iloc[0]
        here, elsewhere = int((others == centre).sum()), int((others != centre).sum())
        by_chance = fisher_exact(np.array([[len(own), 0], [here, elsewhere]])).pvalue
        if elsewhere >= here and by_chance < _CHANCE:
            apart = f"of the {here + elsewhere} others {elsewhere} come from elsewhere"
            said.append(f"all {len(own)} patients of {name!r} come from centre {centre!r}, and {apart}")
    return said


def _outlines_by_label(cohort: Cohort, roi: RegionOfInterest) -> list[Finding]:
    """Compare the classes' shares of patients all of whose images have an annotated lesion, or the outline of one."""
    rows = cohort.case_rows
    lesions = [lesions_from_json(text) for text in rows["lesions"]]
    marked = rows.assign(
        lesion=[bool(found) for found in lesions],
        outline=[any(lesion.outline for lesion in found) for found in lesions],
    )
    patients = marked.groupby("patient").agg(
        label=("label", "first"), lesion=("lesion", "all"), outline=("outline", "all")
    )
    words = {"lesion": "an annotated lesion", "outline": "the outline of a lesion"}
    for column in ("lesion",) if roi == "box" else ("lesion", "outline"):
        shares = ClassShares.of(patients[column], patients["label"], cohort.classes)
        if shares.differ(by=_OUTLINED_APART):
            return [_outlines(f"{words[column]} is in all images of {shares.sentence()}", roi)]
    return []


def _outlines(sentence: str, roi: RegionOfInterest) -> Finding:
    whole = roi == "none"
    end = "which does not matter while whole images are read" if whole else f"so cropping by the {roi} tells the label"
    return Finding(
        kind="outline-depends-on-label",
        severity="note" if whole else "block",
        cases=(),
        message=f"{sentence}, {end}",
        remedy="" if whole else "annotate the images of all classes, or read whole images with --roi none",
    )
