"""The Bone Tumor X-ray Radiograph Dataset, in the layout of its archive.

``images/`` holds the radiographs, ``Annotations/`` a LabelMe file for each tumour, and ``dataset.csv`` or
``dataset.xlsx`` a row for each image, with one column of 0 and 1 for each diagnosis, body site and view.

The archive names no patients. Views of one lesion follow each other in it, so a patient is guessed: images with
consecutive numbers and the same centre, age, sex and diagnosis are one, and so are images with the same pixels.

References
----------
Yao S. et al., A radiograph dataset for the classification, localization, and segmentation of primary bone tumors,
Scientific Data 2025;12:88.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from osteoscope.cohort.measure import Measured, Progress, measure_images
from osteoscope.cohort.sites import SITE_SEPARATOR
from osteoscope.cohort.table import (
    KIND_SEPARATOR,
    NORMAL,
    Cohort,
    LeftOut,
    Row,
    checked_classes,
    frame_of,
    pseudonyms,
    require_folder,
)
from osteoscope.cohort.tabular import TableRow, read_rows
from osteoscope.errors import ImageError, TableError
from osteoscope.imaging.labelme import read_scaled_labelme

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from osteoscope.imaging.prepare import Lesion

SOURCE = "btxrd"

DIAGNOSES = (
    "osteochondroma",
    "multiple osteochondromas",
    "simple bone cyst",
    "giant cell tumor",
    "osteofibroma",
    "synovial osteochondroma",
    "other bt",
    "osteosarcoma",
    "other mt",
)
"""Columns of the diagnoses; ``bt`` and ``mt`` are benign and malignant tumours."""

GROUPS = ("benign", "malignant")
"""Columns that join several diagnoses; they can be classes too."""

SITES = (
    "hand",
    "ulna",
    "radius",
    "humerus",
    "foot",
    "tibia",
    "fibula",
    "femur",
    "hip bone",
    "ankle-joint",
    "knee-joint",
    "hip-joint",
    "wrist-joint",
    "elbow-joint",
    "shoulder-joint",
)

VIEWS = ("frontal", "lateral", "oblique")

_SUFFIXES = (".jpeg", ".jpg")
_TABLES = ("dataset.csv", "dataset.xlsx")
_REQUIRED = ("image_id", "center", "age", "gender", "tumor", *GROUPS, *DIAGNOSES, *SITES, *VIEWS)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A row of the archive's table, and the file that it means, as a path relative to the archive."""

    row: TableRow
    stem: str
    image: str
    kind: str | None

    @property
    def number(self) -> int | None:
        """Place of the image in the archive."""
        digits = re.search(r"\d+$", self.stem)
        return int(digits.group()) if digits else None

    @property
    def patient_traits(self) -> tuple[object, ...] | None:
        """What the views of one patient have in common, or `None` where too little is known to tell."""
        age, sex = self.row.age("age"), self.row.sex("gender")
        return None if age is None and sex is None else (self.row.text("center"), age, sex, self.kind)


def read_btxrd(folder: Path, classes: Sequence[str], progress: Progress | None = None) -> Cohort:
    """Read the archive as a cohort; patients are guessed and marked so.

    Parameters
    ----------
    folder
        The archive's folder.
    classes
        Two or more of the table's columns in `DIAGNOSES` or `GROUPS`, or ``normal``. Images of no chosen class stay
        as auxiliary.
    progress
        Told of each image that was read.

    Returns
    -------
    A cohort. Images that are missing, unreadable or of two chosen classes are left out, with the reason. The archive
    does not say of each image how its diagnosis was proven.

    Raises
    ------
    CohortError
        If fewer than two classes are chosen.
    TableError
        If the table is missing or damaged, a class is unknown or has no image, or no image is there at all.
    InputError
        If an annotation is damaged.
    """
    chosen = checked_classes(classes)
    entries = _entries(folder)
    table = entries[0].row.path
    _refuse_unknown(chosen, table)
    if not any((folder / entry.image).is_file() for entry in entries):
        empty = f"none of its {len(entries)} images is in {folder / 'images'}"
        raise TableError(empty, path=table, remedy="unpack the archive's images beside the table")
    measured = measure_images(folder, [entry.image for entry in entries], progress)
    patients = _guess_patients(entries, measured)
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        found = measured[entry.image]
        reason = found.message if isinstance(found, ImageError) else _contradiction(entry, chosen)
        if reason is None and isinstance(found, Measured):
            rows.append(_row(entry, found, patients[entry.stem], chosen, folder))
        else:
            left_out.append(LeftOut(image=entry.image, reason=str(reason)))
    for name in chosen:
        if not any(row.label == name for row in rows):
            raise TableError(f"no usable image of class {name!r}", path=table, remedy="choose classes that it has")
    return Cohort(
        frame=frame_of(rows),
        classes=chosen,
        root=folder,
        source=SOURCE,
        left_out=tuple(left_out),
        notes=(
            "The archive names no patients: images with consecutive numbers and the same centre, age, sex and "
            "diagnosis count as one, and so do images with the same pixels.",
        ),
    )


def _entries(folder: Path) -> list[_Entry]:
    """Rows of the table, sorted by image."""
    require_folder(folder, missing="expected the archive's folder", remedy="name the folder that holds dataset.csv")
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), folder / _TABLES[0])
    by_name = {path.name: path for path in sorted((folder / "images").glob("*")) if path.suffix.lower() in _SUFFIXES}
    # The table may name another suffix than the file has.
    by_stem = {path.stem: path for path in reversed(by_name.values())}
    entries: dict[str, _Entry] = {}
    for row in read_rows(table, _REQUIRED):
        name = row.required("image_id")
        stem = Path(name).stem
        if stem in entries:
            first = entries[stem].row.number
            reason = f"rows {first} and {row.number} are about the same image {name!r}"
            raise TableError(reason, path=table, remedy="remove one of them")
        found = by_name.get(name) or by_stem.get(stem)
        image = f"images/{found.name if found else name}"
        entries[stem] = _Entry(row=row, stem=stem, image=image, kind=_kind(row))
    return [entries[stem] for stem in sorted(entries)]


def _kind(row: TableRow) -> str | None:
    if row.flag("tumor") is False:
        return NORMAL
    return KIND_SEPARATOR.join(_marked(row, DIAGNOSES)) or None


def _marked(row: TableRow, columns: Iterable[str]) -> list[str]:
    return [column for column in columns if row.flag(column)]


def _refuse_unknown(classes: Sequence[str], table: Path) -> None:
    known = (*DIAGNOSES, *GROUPS, NORMAL)
    for name in classes:
        if name not in known:
            reason = f"expected classes among {', '.join(map(repr, known))}, found {name!r}"
            raise TableError(reason, path=table, remedy="choose one of those names with --class")


def _guess_patients(entries: Sequence[_Entry], measured: Mapping[str, Measured | ImageError]) -> dict[str, str]:
    """Join entries to patients, and give each stem its patient's pseudonym.

    Images that will be left out take part, so that they do not break a patient's row of views.
    """
    links: list[tuple[int, int]] = []
    numbered = sorted((entry.number, place) for place, entry in enumerate(entries) if entry.number is not None)
    for (number, place), (following, neighbour) in pairwise(numbered):
        traits = entries[place].patient_traits
        if following == number + 1 and traits is not None and traits == entries[neighbour].patient_traits:
            links.append((place, neighbour))
    first_with: dict[str, int] = {}
    for place, entry in enumerate(entries):
        found = measured[entry.image]
        if isinstance(found, Measured):
            links.append((first_with.setdefault(found.pixel_sha256, place), place))
    starts, ends = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(starts)), (starts, ends)), shape=(len(entries), len(entries)))
    group_of = connected_components(graph, directed=False)[1].tolist()
    # A patient's identifier is its first image, which is the same in every selection of classes.
    first_stem: dict[int, str] = {}
    for entry, group in zip(entries, group_of, strict=True):
        first_stem.setdefault(group, entry.stem)
    names = pseudonyms(SOURCE, first_stem.values())
    return {entry.stem: names[first_stem[group]] for entry, group in zip(entries, group_of, strict=True)}


def _contradiction(entry: _Entry, classes: Sequence[str]) -> str | None:
    """Say why the table leaves open what an image is, or `None`."""
    if entry.kind == NORMAL and _marked(entry.row, (*DIAGNOSES, *GROUPS)):
        return "the table calls it normal and names a tumour"
    labels = _labels(entry, classes)
    if len(labels) > 1:
        return f"it is of several chosen classes: {', '.join(labels)}"
    return None


def _labels(entry: _Entry, classes: Sequence[str]) -> list[str]:
    """Chosen classes that an image is of."""
    own = {NORMAL} if entry.kind == NORMAL else set(_marked(entry.row, (*DIAGNOSES, *GROUPS)))
    return [name for name in classes if name in own]


def _row(entry: _Entry, found: Measured, patient: str, classes: Sequence[str], folder: Path) -> Row:
    labels = _labels(entry, classes)
    return Row(
        patient=patient,
        guessed=True,
        image=entry.image,
        **found.of_row(),
        role="case" if labels else "auxiliary",
        label=labels[0] if labels else None,
        kind=entry.kind,
        age=entry.row.age("age"),
        sex=entry.row.sex("gender"),
        site=SITE_SEPARATOR.join(sorted(_marked(entry.row, SITES))) or None,
        view=SITE_SEPARATOR.join(_marked(entry.row, VIEWS)) or None,
        centre=entry.row.text("center"),
        lesions=read_annotation(folder / "Annotations" / f"{entry.stem}.json", found.rows, found.columns),
    )


def read_annotation(path: Path, rows: int, columns: int) -> tuple[Lesion, ...]:
    """Read the lesions of a LabelMe file of the archive, whose pictures were given another size since.

    Parameters
    ----------
    path
        The file; where there is none, there are no lesions.
    rows, columns
        Of the picture.

    Raises
    ------
    InputError
        If the file is not what LabelMe writes.
    """
    return read_scaled_labelme(path, rows, columns) if path.is_file() else ()
