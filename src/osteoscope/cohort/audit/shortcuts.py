"""Looks for what tells the label without showing the disease: how an image was made, stored, cropped, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from osteoscope.cohort.audit.finding import Finding
from osteoscope.cohort.audit.shares import ClassShares
from osteoscope.cohort.audit.witness import Witness, hear
from osteoscope.cohort.baselines import (
    BORDERS,
    CONTRAST,
    EXPOSURE,
    NOISE,
    SCAN_GEOMETRY,
    are_scans,
    feature_columns,
    size_columns,
)
from osteoscope.cohort.table import lesions_from_json, resolve_inside
from osteoscope.errors import ImageError
from osteoscope.evaluation.tabular import Columns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from osteoscope.cohort.audit.finding import Severity
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

_MODALITIES_APART = 0.2
"""Difference between two classes' shares of patients with images of a modality that depends on the label."""

_WORDS = ("manufacturer", "model", "kernel")
_SETTINGS = ("kilovolt", "thickness")
"""Of the look of a scan, what its header says."""

_REMEDIES = {
    "geometry": "bring the images of all classes to one size and shape in the same way, or leave a class out",
    "border": "cut borders and burned-in marks off the pictures of all classes in the same way",
    "exposure": "look whether the classes were exposed and processed alike; a dense lesion changes this honestly",
    "noise": "take scans of every class from every scanner and in the same kernels, or leave scanners out",
    "contrast": "look whether the classes were given contrast alike; a dense lesion changes this honestly",
    "scanner": "take scans of every class from every scanner and with the same settings, or leave scanners out",
    "file": "export the images of all classes in the same way",
    "view": "take the same views of all classes",
    "centre": "take patients of every class from every centre, or leave centres out",
    "modality": "take images of the same modalities of the patients of all classes, or leave a modality out",
}
_ANNOTATE_ALL = "annotate the images of all classes"
_SEVEREST_FIRST: tuple[Severity, ...] = ("block", "warn")
_MAY_BLOCK = {"geometry", "border", "noise", "scanner", "file", "centre", "modality"}


def hear_shortcuts(
    cohort: Cohort, *, features: Features, words: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, Witness]:
    """Let models predict the label from what an image is like, apart from what it shows.

    Parameters
    ----------
    cohort
        Each of whose cases has one label.
    features
        Of each image, as its `osteoscope.imaging.look.Look` has them.
    words
        Of each CT or MR, likewise.

    Returns
    -------
    By name: ``geometry``; of pictures ``border`` and ``exposure``, of CT and MR ``noise``, ``contrast`` and
    ``scanner``; ``file``, ``view`` and ``centre``. What is not recorded of an image is heard of the others. Of several
    modalities each is heard by itself, as in ``geometry (CT)`` and ``geometry (MR)``; and besides ``modality``, by
    patient: which of them there are.

    Raises
    ------
    ImageError
        If an image's file is missing.
    """
    rows = cohort.case_rows
    by_modality = {str(modality): own for modality, own in rows.groupby("modality", sort=True)}
    heard: dict[str, dict[str, _Heard]] = {}
    for modality, own in by_modality.items():
        for name, one in _of_modality(cohort, own, features, words or {}).items():
            heard.setdefault(name, {})[modality] = one
    seen = {
        **{name: one for name, of_each in heard.items() for name, one in _told_apart(name, of_each).items()},
        **{column: (column, *_recorded(column, rows)) for column in ("view", "centre")},
        **(_modalities(rows) if len(by_modality) > 1 else {}),
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


_Heard = tuple[str, Columns, "pd.DataFrame"]
"""What a model sees, as words and as columns, and the rows that it sees it of."""


def _of_modality(
    cohort: Cohort, rows: pd.DataFrame, features: Features, words: Mapping[str, Mapping[str, str]]
) -> dict[str, _Heard]:
    """Give what is heard of the images of one modality."""
    scans = bool(are_scans(rows).all())
    sizes = {**size_columns(rows), **(feature_columns(rows, features, SCAN_GEOMETRY) if scans else {})}
    return {
        "geometry": (f"{'scan' if scans else 'picture'} geometry", _numbers(sizes), rows),
        **(_of_scans(rows, features, words) if scans else _of_pictures(rows, features)),
        "file": ("file format and size", _file_columns(cohort, rows, features), rows),
    }


def _told_apart(name: str, of_each: Mapping[str, _Heard]) -> dict[str, _Heard]:
    """Name what is heard of several modalities by them, too."""
    if len(of_each) == 1:
        return {name: next(iter(of_each.values()))}
    return {
        f"{name} ({modality})": (f"{sees} ({modality})", columns, rows)
        for modality, (sees, columns, rows) in of_each.items()
    }


def _modalities(rows: pd.DataFrame) -> dict[str, _Heard]:
    """Give which modalities there are of each patient; a row a patient."""
    there = _modalities_of_patients(rows)
    patients = rows.drop_duplicates("patient").sort_values("patient")
    columns: dict[str, list[str | None]] = {
        str(modality): ["yes" if has else "no" for has in there[modality]] for modality in there
    }
    return {"modality": ("which modalities there are", Columns(numeric={}, categorical=columns), patients)}


def _modalities_of_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Tell whether a patient has images of a modality: patients, sorted, by modalities."""
    return pd.crosstab(rows["patient"], rows["modality"]) > 0


def _of_pictures(rows: pd.DataFrame, features: Features) -> dict[str, _Heard]:
    return {
        "border": ("borders and burned-in marks", _numbers(feature_columns(rows, features, BORDERS)), rows),
        "exposure": ("brightness and sharpness", _numbers(feature_columns(rows, features, EXPOSURE)), rows),
    }


def _of_scans(rows: pd.DataFrame, features: Features, words: Mapping[str, Mapping[str, str]]) -> dict[str, _Heard]:
    said = rows[[bool(words.get(image)) for image in rows["image"]]]
    scanner = Columns(
        numeric=feature_columns(said, features, _SETTINGS),
        categorical={name: [words[image].get(name) for image in said["image"]] for name in _WORDS},
    )
    return {
        "noise": ("noise and its grain", _numbers(feature_columns(rows, features, NOISE)), rows),
        "contrast": ("density of fat and soft tissue", _numbers(feature_columns(rows, features, CONTRAST)), rows),
        "scanner": ("scanner and settings by the header", scanner, said),
    }


def _numbers(columns: dict[str, FloatArray]) -> Columns:
    return Columns(numeric=columns, categorical={})


def _recorded(column: str, rows: pd.DataFrame) -> tuple[Columns, pd.DataFrame]:
    """Give a column of the cohort's table where it is recorded, and the rows of it."""
    known = rows[rows[column].notna()]
    return Columns(numeric={}, categorical={column: known[column].tolist()}), known


def _file_columns(cohort: Cohort, rows: pd.DataFrame, features: Features) -> Columns:
    """Give what the images' files are like."""
    paths = [resolve_inside(cohort.root, image) for image in rows["image"]]
    planes = np.array([features.get(image, {}).get("planes", 1) for image in rows["image"]], dtype=np.float64)
    pixels = planes * (rows["rows"] * rows["columns"]).to_numpy(dtype=np.float64)
    return Columns(
        numeric={"bytes per pixel": np.array([_bytes_of(path) for path in paths], dtype=np.float64) / pixels},
        categorical={"format": ["series" if path.is_dir() else path.suffix.lower() for path in paths]},
    )


def _bytes_of(path: Path) -> int:
    """Give the size of an image's file, or of all files of its folder."""
    try:
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        return sum(one.stat().st_size for one in files)
    except OSError as error:
        remedy = "name the folder that holds the images with --images"
        raise ImageError("the image is missing", path=path, remedy=remedy) from error


def find_shortcuts(
    cohort: Cohort, heard: dict[str, Witness], *, roi: RegionOfInterest, trains: bool
) -> tuple[Finding, ...]:
    """Say what `hear_shortcuts` heard, and what else lets the preparation of an image depend on its label.

    Kinds: ``geometry-shortcut``, ``border-shortcut``, ``noise-shortcut``, ``scanner-shortcut``, ``file-shortcut``,
    ``centre-shortcut``, ``modality-shortcut`` (warn, or block where nearly the whole label is given away),
    ``exposure-shortcut``, ``contrast-shortcut`` and ``view-shortcut`` (warn), ``outline-depends-on-label`` (block;
    where whole images are read a warning, or a note where nothing is trained).

    Parameters
    ----------
    cohort
        Each of whose cases has one label.
    heard
        By name.
    roi
        What will be read of each image.
    trains
        Whether a network will learn from the cohort; otherwise one that is finished reads it.
    """
    found = {name: (severity, one.sentence()) for name, one in heard.items() if (severity := one.severity) is not None}
    found |= _modalities_by_label(cohort, heard)
    lone = _classes_of_one_centre(cohort)
    if lone:
        found["centre"] = ("block", "; ".join([*lone, heard["centre"].sentence()]))
    shortcuts = [
        Finding(
            kind=f"{thing}-shortcut",
            severity=severity if thing in _MAY_BLOCK else "warn",
            cases=(),
            message=sentence,
            remedy=_REMEDIES[thing],
        )
        for name, (severity, sentence) in found.items()
        # Of several modalities the name says which.
        for thing in [name.split(" ")[0]]
    ]
    return (*shortcuts, *_outlines_by_label(cohort, roi, trains=trains))


def _modalities_by_label(cohort: Cohort, heard: Mapping[str, Witness]) -> dict[str, tuple[Severity, str]]:
    """Compare the classes' shares of patients with images of each modality, where there are several."""
    witness = heard.get("modality")
    if witness is None:
        return {}
    rows = cohort.case_rows
    labels = rows.groupby("patient")["label"].first()
    by_modality = _modalities_of_patients(rows).items()
    shares = {modality: ClassShares.of(has, labels, cohort.classes) for modality, has in by_modality}
    uneven = {
        modality: one
        for modality, one in shares.items()
        if one.differ(by=_MODALITIES_APART) or one.is_of_some_classes()
    }
    severities = {witness.severity, *("block" if one.tell_apart() else "warn" for one in uneven.values())}
    severity = next((one for one in _SEVEREST_FIRST if one in severities), None)
    if severity is None:
        return {}
    listed = [f"images of the modality {modality} are there of {one.sentence()}" for modality, one in uneven.items()]
    return {"modality": (severity, "; ".join([*listed, witness.sentence()]))}


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


def _outlines_by_label(cohort: Cohort, roi: RegionOfInterest, *, trains: bool) -> list[Finding]:
    """Compare the classes' shares of patients all of whose images have an annotated lesion, or the outline of one."""
    rows = cohort.case_rows
    lesions = [lesions_from_json(text) for text in rows["lesions"]]
    masks = rows["mask"].notna().to_numpy()
    marked = rows.assign(
        lesion=[bool(found) for found in lesions] | masks,
        outline=[any(lesion.outline for lesion in found) for found in lesions] | masks,
    )
    patients = marked.groupby("patient").agg(
        label=("label", "first"), lesion=("lesion", "all"), outline=("outline", "all")
    )
    words = {"lesion": "an annotated lesion", "outline": "the outline of a lesion"}
    for column in ("lesion", "outline") if roi == "outline" else ("lesion",):
        shares = ClassShares.of(patients[column], patients["label"], cohort.classes)
        if shares.differ(by=_OUTLINED_APART):
            return [_outlines(f"{words[column]} is in all images of {shares.sentence()}", roi, trains=trains)]
    return []


def _outlines(sentence: str, roi: RegionOfInterest, *, trains: bool) -> Finding:
    """Say what it does; where whole images are read, lesions still show a network that is trained where to look."""
    severity: Severity = "block"
    end, remedy = f"so cropping by the {roi} tells the label", f"{_ANNOTATE_ALL}, or read whole images with --roi none"
    if roi == "none" and trains:
        severity, remedy = "warn", f"{_ANNOTATE_ALL}, or of none"
        end = "so a network learns one class more from its lesions, and another more from whole images"
    elif roi == "none":
        severity, remedy, end = "note", "", "which does not matter while a finished network reads whole images"
    return Finding(
        kind="outline-depends-on-label", severity=severity, cases=(), message=f"{sentence}, {end}", remedy=remedy
    )
