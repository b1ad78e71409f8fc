"""A folder of NIfTI files, in the layout of BIDS or a plain one, and a table of diagnoses as a cohort.

The table has a row a patient, or one a patient and session; what it says is said of every image of that patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osteoscope.cohort.from_table import DEFAULT_SOURCE, check_rows, cohort_of
from osteoscope.cohort.measure import Measured, Progress, measure_images
from osteoscope.cohort.nifti_folder import NiftiFile, NiftiFolder, look_at_folder, patients_of
from osteoscope.cohort.table import LeftOut
from osteoscope.cohort.tabular import TableRow, read_rows
from osteoscope.errors import InputError, TableError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image
from osteoscope.storage import sha256_of_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from osteoscope.cohort.table import Cohort
    from osteoscope.imaging.volume import Volume

PARTICIPANTS = "participants.tsv"
"""Table of BIDS that says who the subjects are."""

_DIAGNOSES = ("label", "diagnosis", "group")
"""Columns of `PARTICIPANTS` that may hold the diagnosis, the first one first."""

_MOST_NUMBERS = 20


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The table: rows by patient, and what is to be said of it."""

    path: Path
    rows: Mapping[str, Sequence[TableRow]]
    notes: tuple[str, ...] = ()


def read_nifti_folder(
    folder: Path,
    labels: Path | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Read a folder of NIfTI files as a cohort.

    Parameters
    ----------
    folder
        In the layout of BIDS (``sub-*/[ses-*]/anat`` and ``ct``, masks beside them or in ``derivatives``), or plain
        (`osteoscope.cohort.nifti_folder`).
    labels
        CSV, .xlsx or .parquet with the columns ``patient`` and ``label`` and, where known, ``session`` and those in
        `osteoscope.cohort.from_table.OPTIONAL` that are about a patient. Where left out, `PARTICIPANTS` of the folder,
        with ``participant_id``, the diagnosis in one of ``label``, ``diagnosis`` and ``group``, and the same others.
    classes, source
        As for `osteoscope.cohort.from_table.read_table`.
    progress
        Told of each image that was read.

    Returns
    -------
    A cohort. Images that are unreadable, or of no patient of the table, are left out with the reason, as is every mask
    that is not used; an image whose mask does not fit stays, without it.

    Raises
    ------
    InputError
        If the folder holds no image as NIfTI.
    TableError
        If the table cannot be read, has several rows for one patient and session, contradicts itself, or has no row
        about any image that can be read.
    CohortError
        If there are fewer than two classes.
    """
    table = _read_labels(folder, labels)
    found = look_at_folder(folder)
    row_of, strangers = _joined(found, table)
    images = [image for image in found.images if image.name in row_of]
    if not images:
        reason = (
            f"expected rows about the patients of {len(found.images)} images, found none, as of {strangers[0].image}"
        )
        raise TableError(reason, path=table.path, remedy="write each patient as the file or its folder is called")
    check_rows([_row_of(image, row_of[image.name]) for image in images], folder, classes, source or DEFAULT_SOURCE)
    measured = measure_images(folder, [image.name for image in images], progress)
    usable = {name: one for name, one in measured.items() if isinstance(one, Measured)}
    faults = [
        LeftOut(image=name, reason=one.message) for name, one in measured.items() if not isinstance(one, Measured)
    ]
    if not usable:
        reason = (
            f"expected images that can be read, found none of {len(images)}, as {faults[0].image}: {faults[0].reason}"
        )
        raise InputError(reason, path=folder, remedy="copy or export the files again")
    outlined = _outlined([image for image in images if image.name in usable], found, row_of)
    for name, mask in outlined.mask_of.items():
        usable[name] = replace(usable[name], mask_sha256=sha256_of_input(folder / mask))
    rows = [_row_of(image, row_of[image.name], outlined.mask_of.get(image.name)) for image in images]
    return cohort_of(
        check_rows([row for row in rows if row.cells["image"] in usable], folder, classes, source or DEFAULT_SOURCE),
        usable,
        left_out=[
            *(LeftOut(image=name, reason=reason) for name, reason in found.unused.items()),
            *strangers,
            *faults,
            *outlined.unused,
        ],
        notes=(
            *table.notes,
            *_note_on_masks(len(outlined.mask_of), len(usable)),
            *_note_on_rows(table, images, row_of),
        ),
    )


# The table ------------------------------------------------------------------------------------------------------------


def _read_labels(folder: Path, labels: Path | None) -> _Labels:
    participants = folder / PARTICIPANTS
    if labels is None and not participants.is_file():
        reason = f"expected a table of diagnoses, found no {PARTICIPANTS}"
        raise TableError(reason, path=folder, remedy="name one with --labels")
    path = labels or participants
    if path.name != PARTICIPANTS:
        return _by_patient(path, read_rows(path, ("patient", "label")))
    rows = read_rows(path, ("participant_id",))
    column = next((name for name in _DIAGNOSES if any(name in row.cells for row in rows)), None)
    if column is None:
        reason = f"expected the diagnosis in a column {', '.join(_DIAGNOSES[:-1])} or {_DIAGNOSES[-1]}, found none"
        raise TableError(reason, path=path, remedy="add the column, or name another table with --labels")
    renamed = {"participant_id": "patient", column: "label"}
    rows = [
        replace(row, cells={renamed.get(name, name): text for name, text in row.cells.items() if name != "patient"})
        for row in rows
    ]
    return _by_patient(path, rows, notes=(f"The diagnosis is the column {column!r} of {path.name}.",))


def _by_patient(path: Path, rows: Sequence[TableRow], notes: tuple[str, ...] = ()) -> _Labels:
    """Gather rows by patient, and refuse two about the same patient and session."""
    gathered: dict[str, list[TableRow]] = {}
    for row in rows:
        patient = row.required("patient").removeprefix("sub-")
        for other in gathered.setdefault(patient, []):
            if other.text("session") == row.text("session"):
                reason = f"rows {other.number} and {row.number} are about the same patient and session"
                raise TableError(
                    reason, path=path, remedy="remove one of them, or tell them apart by a column 'session'"
                )
        gathered[patient].append(row)
    return _Labels(path=path, rows=gathered, notes=notes)


def _joined(found: NiftiFolder, table: _Labels) -> tuple[dict[str, TableRow], list[LeftOut]]:
    """Give the row that is about each image, and the images that none is about."""
    rows: dict[str, TableRow] = {}
    strangers = []
    for image in found.images:
        patients = patients_of(image, table.rows)
        fitting = [row for name in patients for row in table.rows[name] if _is_about(row, image)]
        # A row about the very session goes before one about the patient.
        fitting.sort(key=lambda row: row.text("session") is None)
        if len(patients) == 1 and fitting:
            rows[image.name] = fitting[0]
            continue
        several = "its place names several patients of the table"
        reason = several if len(patients) > 1 else f"no row of {table.path.name} is about it"
        strangers.append(LeftOut(image=image.name, reason=reason))
    return rows, strangers


def _is_about(row: TableRow, image: NiftiFile) -> bool:
    session = row.text("session")
    return session is None or session.removeprefix("ses-") == image.session


def _row_of(image: NiftiFile, row: TableRow, mask: str | None = None) -> TableRow:
    """Make of a row about a patient one about an image."""
    cells = {name: text for name, text in row.cells.items() if name not in ("session", "image", "mask")}
    cells |= {"patient": row.required("patient").removeprefix("sub-"), "image": image.name}
    if image.session is not None:
        cells["study"] = f"{cells['patient']} {image.session}"
    if mask is not None:
        cells["mask"] = mask
    return replace(row, cells=cells)


# Masks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Outlined:
    """The mask of each image that has one, by its name; and the masks that are not used."""

    mask_of: Mapping[str, str]
    unused: tuple[LeftOut, ...]


def _outlined(images: Sequence[NiftiFile], found: NiftiFolder, row_of: Mapping[str, TableRow]) -> _Outlined:
    """Lay each mask on the images that it may be of."""
    patients: dict[str, set[str | None]] = {}
    for image in found.images:
        row = row_of.get(image.name)
        patients.setdefault(image.folder, set()).add(row.text("patient") if row else None)
    mask_of: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for image in images:
        near = found.masks_of(image, alone=len(patients[image.folder]) == 1)
        fitting = _fitting(near, open_image(image.path).volume, reasons) if near else []
        # One that says that it is of a lesion goes before those that do not say of what they are.
        best = [mask for mask in fitting if mask.names_a_lesion] or fitting
        if len(best) == 1:
            mask_of[image.name] = best[0].name
        for mask in best if len(best) > 1 else ():
            reasons[mask.name] = f"{len(best)} masks lie on {image.name}: join them, or remove those that are not meant"
        for mask in fitting:
            reasons.setdefault(mask.name, f"another mask of {image.name} says that it is of a lesion")
    used = set(mask_of.values())
    return _Outlined(
        mask_of=mask_of,
        unused=tuple(
            LeftOut(image=mask.name, reason=reasons.get(mask.name, "it is named after no image that is used"))
            for mask in found.masks
            if mask.name not in used
        ),
    )


def _fitting(masks: Sequence[NiftiFile], volume: Volume, reasons: dict[str, str]) -> list[NiftiFile]:
    """Give the masks that lie on a volume, and note of the others why they do not."""
    fitting = []
    for mask in masks:
        try:
            read_mask(mask.path, volume)
            fitting.append(mask)
        except InputError as fault:
            reasons[mask.name] = fault.message
    return fitting


# Notes ----------------------------------------------------------------------------------------------------------------


def _note_on_masks(masks: int, images: int) -> list[str]:
    without = images - masks
    return [f"{without} of {images} images have no mask of the lesion."] if without else []


def _note_on_rows(table: _Labels, images: Sequence[NiftiFile], row_of: Mapping[str, TableRow]) -> list[str]:
    """List the rows that no image is about by their numbers: patients are not named."""
    used = {row_of[image.name].number for image in images}
    idle = sorted(row.number for rows in table.rows.values() for row in rows if row.number not in used)
    if not idle:
        return []
    more = f" and {len(idle) - _MOST_NUMBERS} more" if len(idle) > _MOST_NUMBERS else ""
    return [f"Rows of {table.path.name} without an image: {', '.join(map(str, idle[:_MOST_NUMBERS]))}{more}."]
