"""Any table of images and diagnoses, with the images in one folder, as a cohort."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from osteoscope.cohort.measure import Measured, Progress, measure_images
from osteoscope.cohort.sites import joined_sites, split_sites
from osteoscope.cohort.table import (
    PROOFS,
    Cohort,
    Row,
    checked_classes,
    frame_of,
    lesion_of,
    lesions_from_json,
    pseudonyms,
    require_folder,
    resolve_inside,
    slug,
)
from osteoscope.cohort.tabular import TableRow, numbers_in, read_rows_in
from osteoscope.errors import ImageError, InputError, TableError
from osteoscope.imaging.labelme import BORDER, SUFFIX, read_labelme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from osteoscope.cohort.table import LeftOut, Proof, Sex
    from osteoscope.imaging.prepare import Lesion

DEFAULT_SOURCE = "local"
"""Source where none is named: tables without one are taken to share their patient identifiers."""

REQUIRED = ("patient", "image", "label")

OPTIONAL = (
    "study",
    "kind",
    "age",
    "sex",
    "site",
    "level",
    "view",
    "centre",
    "box",
    "outline",
    "lesions",
    "mask",
    "proof",
    "image_date",
    "proof_date",
    "treated",
    "biopsied",
    "implant",
)

_MOST_NAMED = 5
"""How many faulty images one message names."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A row of the table, and what it says.

    Parameters
    ----------
    row
        For faults that name it.
    patient
        As the table names it; it goes no further.
    image
        Path within the image folder.
    mask
        Path within the image folder, or `None`.
    label
        Or `None`.
    sex, lesions, others
        Fields of `osteoscope.cohort.table.Row`.
    """

    row: TableRow
    patient: str
    image: str
    mask: str | None
    label: str | None
    sex: Sex | None
    lesions: tuple[Lesion, ...]
    others: Mapping[str, Any]


def read_table(
    table: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    progress: Progress | None = None,
    *,
    encoding: str | None = None,
) -> Cohort:
    """Read a table with a row an image as a cohort.

    Parameters
    ----------
    table
        CSV, .xlsx or .parquet with the columns `REQUIRED` and, where known, those in `OPTIONAL`. ``box`` is
        ``left top right bottom`` and ``outline`` is JSON ``[[x, y], …]``, both in pixels of the image; ``lesions`` is
        JSON, a list of ``{"box": […], "outline": […]}``. ``image`` names a picture, or a CT or MR: a folder of one
        DICOM series, or one file. Its ``mask`` names a file as `osteoscope.imaging.masks.read_mask` reads it; that of
        a picture one as `osteoscope.imaging.labelme.read_labelme` does. Other columns are ignored, which a note says.
    images
        Folder that the paths in the columns ``image`` and ``mask`` start from.
    classes
        Two or more labels, in the order wanted; all labels, sorted, where left out. Images with another label, or
        with none, stay as auxiliary, which a note says.
    source
        Where the patients come from: the same identifier of the same source is the same patient in every cohort.
    progress
        Told of each image that was read.
    encoding
        Of a CSV that is not in UTF-8.

    Raises
    ------
    TableError
        If the table cannot be read (see `osteoscope.cohort.tabular.read_rows`), a cell holds what it should not, an
        image is there twice or lies outside of the folder, a patient has two labels or two sexes, a class has no image,
        a picture has a mask that is no LabelMe file of its size, or a CT or MR is marked by anything else.
    ImageError
        If images or masks are missing, unreadable or do not belong together: one fault that counts them and names the
        first with their rows.
    CohortError
        If there are fewer than two classes.
    """
    require_folder(images, missing="the image folder is missing", remedy="name it with --images")
    read = read_rows_in(table, REQUIRED, encoding)
    rows = check_rows(read, images, classes, source or DEFAULT_SOURCE)
    return cohort_of(rows, _all_measured(table, images, rows.entries, progress))


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """Rows, one an image, that agree with each other.

    Parameters
    ----------
    entries
        What they say.
    classes
        In the order in which they are counted.
    images, source
        As for `read_table`.
    """

    entries: tuple[_Entry, ...]
    classes: tuple[str, ...]
    images: Path
    source: str


def check_rows(rows: Sequence[TableRow], images: Path, classes: Sequence[str] | None, source: str) -> CheckedRows:
    """Read what rows say and see that they agree; no image is opened.

    Parameters
    ----------
    rows
        With the columns `REQUIRED` and any of `OPTIONAL`; one or more.
    images, classes, source
        As for `read_table`.

    Raises
    ------
    TableError, CohortError
        As `read_table` does.
    """
    entries = tuple(_entry(row, images, source) for row in rows)
    _refuse_repeated_images(entries)
    _refuse_contradictions(entries)
    return CheckedRows(entries=entries, classes=_chosen_classes(entries, classes), images=images, source=source)


def cohort_of(
    rows: CheckedRows,
    measured: Mapping[str, Measured],
    *,
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
) -> Cohort:
    """Make a cohort of rows and of what their images are.

    Parameters
    ----------
    rows
        What is known of the images.
    measured
        Of each image.
    left_out
        What else lies beside them.
    notes
        Further ones.

    Raises
    ------
    TableError
        If a lesion lies outside of its image, or is marked in a way that does not fit the image's modality.
    """
    entries = [_marked(entry, measured[entry.image], rows.images) for entry in rows.entries]
    names = pseudonyms(rows.source, (entry.patient for entry in entries))
    return Cohort(
        frame=frame_of(_row(entry, measured[entry.image], names[entry.patient], rows.classes) for entry in entries),
        classes=rows.classes,
        root=rows.images,
        source=rows.source,
        left_out=tuple(left_out),
        notes=(
            *_note_on_auxiliary(entries, rows.classes),
            *_note_on_columns([entry.row for entry in entries]),
            *_note_on_paths(entries, measured),
            *note_on_phantoms(measured),
            *notes_on_scans(measured),
            *notes,
        ),
    )


def _entry(row: TableRow, images: Path, source: str) -> _Entry:
    mask = row.text("mask")
    study = row.text("study")
    texts = {column: row.text(column) for column in ("view", "centre")}
    # However they are spaced or ordered, the same places are one value.
    places = {column: joined_sites(split_sites(row.text(column))) for column in ("site", "level")}
    dates = {column: row.date(column) for column in ("image_date", "proof_date")}
    flags = {column: row.flag(column) for column in ("treated", "biopsied", "implant")}
    return _Entry(
        row=row,
        patient=row.required("patient"),
        image=_path_in(row, "image", row.required("image"), images),
        mask=None if mask is None else _path_in(row, "mask", mask, images),
        label=row.text("label"),
        sex=row.sex("sex"),
        lesions=_lesions(row),
        others={
            **texts,
            **places,
            **dates,
            **flags,
            "study": None if study is None else pseudonyms(source, [study], prefix="S")[study],
            "kind": row.text("kind") or row.text("label"),
            "age": row.age("age"),
            "proof": proof_of(row),
        },
    )


def _path_in(row: TableRow, column: str, named: str, images: Path) -> str:
    """Give a cell's path within the image folder, with forward slashes."""
    named = named.replace("\\", "/")
    try:
        resolve_inside(images, named)
    except ImageError as error:
        raise row.fault(column, f"a path inside the image folder {images}") from error
    return PurePosixPath(named).as_posix()


def _lesions(row: TableRow) -> tuple[Lesion, ...]:
    lesions, box, outline = (row.text(column) for column in ("lesions", "box", "outline"))
    if lesions is not None:
        if box is not None or outline is not None:
            raise row.fault("lesions", "either lesions, or box and outline")
        try:
            return lesions_from_json(lesions)
        except ValueError as error:
            raise row.fault("lesions", 'a JSON list of {"box": [l, t, r, b], "outline": [[x, y], …]}') from error
    if box is None and outline is None:
        return ()
    try:
        edges = numbers_in(box) if box is not None else None
    except ValueError as error:
        raise row.fault("box", _BOX) from error
    try:
        corners = json.loads(outline) if outline is not None else None
        return (lesion_of(edges, corners),)
    except (ValueError, TypeError) as error:
        column, expected = (
            ("box", _BOX) if outline is None else ("outline", "JSON [[x, y], …] of three or more corners")
        )
        raise row.fault(column, expected) from error


_BOX = "left top right bottom in pixels, with left < right and top < bottom"


def _refuse_repeated_images(entries: Sequence[_Entry]) -> None:
    first: dict[str, TableRow] = {}
    for entry in entries:
        if entry.image in first:
            reason = f"rows {first[entry.image].number} and {entry.row.number} name the same image {entry.image!r}"
            raise TableError(reason, path=entry.row.path, remedy="remove one of them")
        first[entry.image] = entry.row


def _refuse_contradictions(entries: Sequence[_Entry]) -> None:
    """Refuse a patient with two labels or two sexes; the rows are named, and not the patient."""
    known: dict[tuple[str, str], tuple[str, int]] = {}
    for entry in entries:
        for column, value in (("label", entry.label), ("sex", entry.sex)):
            if value is None:
                continue
            before, number = known.setdefault((entry.patient, column), (value, entry.row.number))
            if before != value:
                reason = (
                    f"rows {number} and {entry.row.number} give one patient the {column} {before!r} and then {value!r}"
                )
                raise TableError(reason, path=entry.row.path, remedy="correct the rows; a patient has one of each")


def _chosen_classes(entries: Sequence[_Entry], classes: Sequence[str] | None) -> tuple[str, ...]:
    path = entries[0].row.path
    found = sorted({entry.label for entry in entries if entry.label is not None})
    if not found:
        raise TableError("the column 'label' is empty", path=path, remedy="give each image its diagnosis")
    chosen = checked_classes(classes or found)
    for name in chosen:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
            remedy = f"did you mean --class {close[0]!r}?" if close else "choose among the labels found"
            reason = f"no image has the label {name!r}; found {', '.join(map(repr, found))}"
            raise TableError(reason, path=path, remedy=remedy)
    of_slug = {slug(name): name for name in chosen}
    for name in found:
        like = of_slug.get(slug(name), name)
        if like != name:
            reason = f"the labels {like!r} and {name!r} cannot be told apart by name, and one of them is a class"
            raise TableError(reason, path=path, remedy="spell it the same everywhere")
    return chosen


def _all_measured(
    table: Path, images: Path, entries: Sequence[_Entry], progress: Progress | None
) -> dict[str, Measured]:
    """Measure every image, or say of all that cannot be read at once."""
    masks = {entry.image: entry.mask for entry in entries if entry.mask is not None}
    found = measure_images(images, [entry.image for entry in entries], progress, masks=masks)
    faults = [(entry, fault) for entry in entries if isinstance(fault := found[entry.image], ImageError)]
    if faults:
        named = "; ".join(
            f"row {entry.row.number}, {entry.image}: {fault.message}" for entry, fault in faults[:_MOST_NAMED]
        )
        more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        reason = f"{len(faults)} of {len(found)} images that {table.name} names cannot be used: {named}{more}"
        raise ImageError(reason, path=images, remedy="correct the files, or remove their rows")
    return {image: result for image, result in found.items() if isinstance(result, Measured)}


def _marked(entry: _Entry, measured: Measured, images: Path) -> _Entry:
    """See that what is marked fits the image, and take of a picture what its LabelMe file outlines."""
    _refuse_mark_of_another_kind(entry, measured)
    _refuse_lesions_outside(entry, measured)
    if measured.modality != "radiograph" or entry.mask is None:
        return entry
    try:
        lesions = read_labelme(resolve_inside(images, entry.mask), measured.rows, measured.columns)
    except InputError as fault:
        reason = f"row {entry.row.number}: its mask {entry.mask}: {fault.message}"
        raise TableError(reason, path=entry.row.path, remedy=fault.remedy) from fault
    return replace(entry, mask=None, lesions=lesions)


def _refuse_mark_of_another_kind(entry: _Entry, measured: Measured) -> None:
    """Refuse a mask of a picture, and a box or an outline of a CT or MR, which lies in no plane that could be told."""
    if measured.modality == "radiograph" and entry.mask is not None:
        if not entry.mask.lower().endswith(SUFFIX):
            expected = "a LabelMe file (.json) or nothing, since a picture is marked by box, outline or lesions"
            raise entry.row.fault("mask", expected)
        if entry.lesions:
            raise entry.row.fault("mask", "nothing, since the row marks the picture by box, outline or lesions")
    if measured.modality != "radiograph" and entry.lesions:
        column = next(name for name in ("lesions", "box", "outline") if entry.row.text(name) is not None)
        raise entry.row.fault(column, f"nothing, since a lesion in {measured.modality} is marked by a mask")


def _refuse_lesions_outside(entry: _Entry, measured: Measured) -> None:
    for lesion in entry.lesions:
        for left, top, right, bottom in (lesion.bounds("box"), lesion.bounds("outline")):
            beyond = max(-left, -top, right - measured.columns, bottom - measured.rows)
            if beyond > BORDER:
                size = f"{measured.columns} x {measured.rows} pixels"
                found = f"from {left:g}, {top:g} to {right:g}, {bottom:g}"
                reason = f"row {entry.row.number}: expected a lesion inside the image of {size}, found one {found}"
                raise TableError(reason, path=entry.row.path, remedy="give lesions in pixels of the image")


def _row(entry: _Entry, measured: Measured, patient: str, classes: Sequence[str]) -> Row:
    is_case = entry.label in classes
    return Row(
        patient=patient,
        guessed=False,
        image=entry.image,
        role="case" if is_case else "auxiliary",
        label=entry.label if is_case else None,
        sex=entry.sex,
        lesions=entry.lesions,
        mask=entry.mask,
        **measured.of_row(),
        **entry.others,
    )


def proof_of(row: TableRow) -> Proof | None:
    """Read how a row says that the diagnosis was proven."""
    text = row.text("proof")
    if text is None:
        return None
    for proof in PROOFS:
        if text.lower().replace(" ", "-") == proof:
            return proof
    raise row.fault("proof", f"one of {', '.join(PROOFS)}")


def _note_on_auxiliary(entries: Sequence[_Entry], classes: Sequence[str]) -> list[str]:
    others = Counter(entry.label or "no label" for entry in entries if entry.label not in classes)
    if not others:
        return []
    listed = ", ".join(f"{name} ({number})" for name, number in sorted(others.items()))
    return [f"Images outside the classes, kept as auxiliary: {listed}."]


def _note_on_paths(entries: Sequence[_Entry], measured: Mapping[str, Measured]) -> list[str]:
    """Tell how many paths name their patient as the table does, and so would beside the pseudonym."""
    count = sum(_names_patient(entry) for entry in entries if not measured[entry.image].phantom)
    written = "they are written as they are in the cohort, predictions and pages, beside the pseudonym"
    return [f"{count} of {len(entries)} image paths hold their patient's identifier: {written}."] if count else []


def _names_patient(entry: _Entry) -> bool:
    """Tell whether the identifier stands in a path of its image or mask, not as a part of a longer word or number."""
    named = re.compile(rf"(?<![^\W_]){re.escape(entry.patient)}(?![^\W_])", re.IGNORECASE)
    return any(named.search(path) is not None for path in (entry.image, entry.mask or ""))


def note_on_phantoms(measured: Mapping[str, Measured]) -> list[str]:
    """Tell how many images are phantoms; nothing where none is."""
    count = sum(bool(one.phantom) for one in measured.values())
    said = "nobody is on them, and nothing clinical follows from them"
    return [f"{count} of {len(measured)} images are phantoms: {said}."] if count else []


def notes_on_scans(measured: Mapping[str, Measured]) -> list[str]:
    """Tell what was odd or concluded, the most frequent first."""
    counted = Counter(remark for one in measured.values() for remark in one.remarks)
    return [f"Of {count} images: {remark}." for remark, count in counted.most_common(_MOST_NAMED)]


def _note_on_columns(rows: Sequence[TableRow]) -> list[str]:
    ignored = sorted({column for row in rows for column in row.cells if column not in (*REQUIRED, *OPTIONAL)})
    return [f"Columns that were ignored: {', '.join(ignored)}."] if ignored else []
