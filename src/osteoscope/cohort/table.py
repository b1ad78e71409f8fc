"""The cohort: its schema, how it is written and read, and its rows gathered to cases.

A row is an image. A patient's name never enters: the pseudonym is a digest of the source's name and the patient's
identifier there, so the same patient of the same source has the same pseudonym in every cohort, and two cohorts can be
checked for a shared patient. It is a pseudonym and no more: who holds a list of the identifiers can match them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osteoscope import __version__
from osteoscope.cohort.sites import joined_sites, split_sites
from osteoscope.errors import CohortError, ImageError, InputError, OsteoscopeError
from osteoscope.imaging.prepare import Lesion
from osteoscope.storage import folder_written_whole, refuse_existing, sha256_of_text, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from osteoscope.imaging.volume import Modality

SCHEMA = 3
"""Version of the files; a cohort of a later one is refused, one of schema 1 has no volumes, one of schema 2 knows not
where its volumes lie and what its masks mark."""

HEADER = "cohort.json"
TABLE = "cohort.parquet"

Role = Literal["case", "auxiliary"]
Sex = Literal["F", "M"]
Proof = Literal["histology", "cytology", "imaging", "follow-up"]

PROOFS: tuple[Proof, ...] = ("histology", "cytology", "imaging", "follow-up")

NORMAL = "normal"
"""Kind of an image that shows no lesion."""

KIND_SEPARATOR = "; "
"""Joins the diagnoses of an image that has several."""

COLUMNS: Mapping[str, str] = {
    "patient": "string",
    "guessed": "bool",
    "study": "string",
    "image": "string",
    "file_sha256": "string",
    "pixel_sha256": "string",
    "rows": "int64",
    "columns": "int64",
    "modality": "string",
    "label": "string",
    "role": "string",
    "kind": "string",
    "age": "float64",
    "sex": "string",
    "site": "string",
    "level": "string",
    "view": "string",
    "centre": "string",
    "lesions": "string",
    "mask": "string",
    "proof": "string",
    "image_date": "string",
    "proof_date": "string",
    "treated": "boolean",
    "biopsied": "boolean",
    "implant": "boolean",
    "phantom": "boolean",
    "geometry_sha256": "string",
    "mask_sha256": "string",
}
"""Columns of the table, in order, and their pandas types; the meaning of each is that of the field in `Row`."""

_SINCE_SCHEMA_1 = ("mask", "phantom", "geometry_sha256", "mask_sha256")

_ARROW_TYPES = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
}
_ARROW_SCHEMA = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in COLUMNS.items()])

_PSEUDONYM_DIGITS = 12

# A verdict is a class, or one of these.
_NO_CLASS = ("indeterminate", "out_of_scope")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of one image; `None` where it is not known.

    Parameters
    ----------
    patient
        Pseudonym, see `pseudonyms`.
    guessed
        Whether the patient was inferred, because the source names none.
    study
        Pseudonym of the study, made as a patient's is.
    image
        Path relative to the cohort's root, with forward slashes: a picture, or a CT or MR as a folder of one DICOM
        series or as one file. It is kept as it is: keep names out of it.
    file_sha256, pixel_sha256
        Hash of the file's bytes, of several files over their sorted hashes; and of the decoded values
        (`osteoscope.imaging.picture.pixel_sha256`, `osteoscope.imaging.values.values_of`).
    rows, columns
        Of the image, of a CT or MR of one plane, in pixels.
    modality
        Of the image.
    label
        Name of the class of a case; `None` for an auxiliary image.
    role
        ``case``: in the folds. ``auxiliary``: outside the chosen classes; it may teach, and is never in a fold.
    kind
        Diagnosis as the source names it, several joined by ``; ``, or ``normal``.
    age
        In years, when the image was taken.
    sex, site, level, view, centre
        Of the patient or the image; several body sites are joined by ``+``, level is that of the spine.
    lesions
        What is annotated in a picture, in its pixels.
    mask
        Path, like that of the image, of a file that outlines the lesion in a CT or MR
        (`osteoscope.imaging.masks.read_mask`).
    proof
        How the diagnosis was proven.
    image_date, proof_date
        ISO 8601 dates.
    treated, biopsied, implant
        Whether the lesion had been treated or biopsied before the image, and whether an implant is seen.
    phantom
        Whether its file says that it was made from the phantom (`osteoscope.imaging.synthetic`); `None` for a picture,
        which cannot say so.
    geometry_sha256
        Hash of where a CT or MR lies (`osteoscope.cohort.measure.geometry_sha256`).
    mask_sha256
        Hash of the bytes of its mask's file.
    """

    patient: str
    guessed: bool
    image: str
    file_sha256: str
    pixel_sha256: str
    rows: int
    columns: int
    modality: Modality
    role: Role
    label: str | None = None
    kind: str | None = None
    study: str | None = None
    age: float | None = None
    sex: Sex | None = None
    site: str | None = None
    level: str | None = None
    view: str | None = None
    centre: str | None = None
    lesions: tuple[Lesion, ...] = ()
    mask: str | None = None
    proof: Proof | None = None
    image_date: str | None = None
    proof_date: str | None = None
    treated: bool | None = None
    biopsied: bool | None = None
    implant: bool | None = None
    phantom: bool | None = None
    geometry_sha256: str | None = None
    mask_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that is not in the cohort, and why."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """Images and diagnoses of a source.

    Parameters
    ----------
    frame
        One row an image, with `COLUMNS`, sorted by image; see `frame_of`.
    classes
        Names of the classes, in the order in which they are counted from 0.
    root
        Folder that the image paths start from.
    source
        Where the patients come from; part of their pseudonyms.
    left_out
        Images of the source that are not in the cohort.
    notes
        What else the reader should know, one sentence each.

    Raises
    ------
    ValueError
        If the columns are not those of the schema, or a case's label is not one of the classes.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]
    root: Path
    source: str
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if {name: str(kind) for name, kind in self.frame.dtypes.items()} != dict(COLUMNS):
            msg = f"expected the columns of the schema, got {dict(self.frame.dtypes)}"
            raise ValueError(msg)
        strange = set(self.case_rows["label"].dropna()) - set(self.classes)
        if strange or bool(self.case_rows["label"].isna().any()):
            msg = f"expected every case to have a label among {self.classes}, got {sorted(strange) or 'none for some'}"
            raise ValueError(msg)

    @property
    def slugs(self) -> tuple[str, ...]:
        """Classes as names for files and columns, in the same order."""
        return tuple(slug(name) for name in self.classes)

    @property
    def case_rows(self) -> pd.DataFrame:
        """Rows of the images that are in the folds."""
        return self.frame[self.frame["role"] == "case"]

    @property
    def auxiliary_rows(self) -> pd.DataFrame:
        """Rows of the images outside the chosen classes."""
        return self.frame[self.frame["role"] == "auxiliary"]

    def fingerprint(self) -> str:
        """Hash of the classes and of all rows, whatever their order; 64 hexadecimal digits.

        Where the images lie, and how their files were packed, does not matter to it; their names and pixels do, and of
        a CT or MR its place in the patient and its mask. A cohort of pictures has the same in every schema, and one
        that was written keeps what it had.
        """
        unsaid = [name for name in _SINCE_SCHEMA_1 if self.frame[name].isna().all()]
        matter = _arrow_table(self.frame).drop_columns(["file_sha256", *unsaid])
        rows = sorted(json.dumps(row) for row in matter.to_pylist())
        return sha256_of_text(json.dumps([list(self.classes), rows]))


@dataclass(frozen=True, kw_only=True)
class CaseImage:
    """One image of a patient.

    Parameters
    ----------
    image
        Its name in the cohort; `path` is the file, or the folder of the DICOM series.
    pixel_sha256
        Hash of its decoded values.
    rows, columns
        In pixels; of a CT or MR those of a plane.
    modality, lesions, view, phantom
        As in `Row`.
    mask
        File that outlines the lesion in a CT or MR.
    """

    image: str
    path: Path
    pixel_sha256: str
    rows: int
    columns: int
    modality: Modality
    lesions: tuple[Lesion, ...] = ()
    view: str | None = None
    mask: Path | None = None
    phantom: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One patient of the cohort, with all images.

    Parameters
    ----------
    patient
        Pseudonym.
    label
        Index into the cohort's classes.
    images
        Sorted by name.
    age
        In years, mean over the images; `None` where no image has one.
    sex, site, level
        Of the patient; the sites of all images are joined by ``+``, as are the levels of the spine.
    """

    patient: str
    label: int | None
    images: tuple[CaseImage, ...]
    age: float | None = None
    sex: Sex | None = None
    site: str | None = None
    level: str | None = None


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """An image outside the chosen classes, its patient's pseudonym, its diagnosis and its body site."""

    patient: str
    kind: str | None
    site: str | None
    image: CaseImage


def slug(name: str) -> str:
    """Make a class's name fit for a file or a column: lower case, with ``_`` for all but letters and digits."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Take the names of two or more classes, in the order given.

    Raises
    ------
    CohortError
        If there are fewer than two, two of them cannot be told apart by their slugs, or one is named as a verdict that
        names no class.
    """
    if len(classes) < 2:
        found = f"found {classes[0]!r} alone" if classes else "found none"
        raise CohortError(f"expected two or more classes, {found}", remedy="name each class with --class")
    by_slug: dict[str, str] = {}
    for name in classes:
        if not slug(name):
            raise CohortError(f"class {name!r} has no letter or digit", remedy="give it a name")
        if slug(name) in _NO_CLASS:
            reason = f"class {name!r} is named as the verdict that no class can be told"
            raise CohortError(reason, remedy="give it another name")
        if slug(name) in by_slug:
            reason = f"classes {by_slug[slug(name)]!r} and {name!r} cannot be told apart by name"
            raise CohortError(reason, remedy="name each class once, and spell it the same everywhere")
        by_slug[slug(name)] = name
    return tuple(classes)


def pseudonyms(source: str, identifiers: Iterable[str], prefix: str = "P") -> dict[str, str]:
    """Give each identifier of a source its pseudonym: ``P-`` and 12 hexadecimal digits of a SHA-256.

    Raises
    ------
    CohortError
        If two identifiers share a pseudonym; with 50,000 patients the chance of that is below 1 in 200,000.
    """
    names: dict[str, str] = {}
    for identifier in sorted(set(identifiers)):
        digest = hashlib.sha256(json.dumps([source, identifier]).encode()).hexdigest()
        names[identifier] = f"{prefix}-{digest[:_PSEUDONYM_DIGITS]}"
    if len(set(names.values())) < len(names):
        raise CohortError("two identifiers were given the same pseudonym", remedy="choose another name with --source")
    return names


def lesions_to_json(lesions: Sequence[Lesion]) -> str:
    """Write lesions as JSON text: a list of ``{"box": [l, t, r, b] or null, "outline": [[x, y], …]}``."""
    return json.dumps([{"box": lesion.box, "outline": lesion.outline} for lesion in lesions], separators=(",", ":"))


def lesions_from_json(text: str) -> tuple[Lesion, ...]:
    """Read what `lesions_to_json` wrote.

    Raises
    ------
    ValueError
        If it is not such a list, or a lesion is invalid.
    """
    listed = json.loads(text)
    try:
        return tuple(lesion_of(item.get("box"), item.get("outline")) for item in listed)
    except (AttributeError, TypeError) as error:
        msg = 'expected a list of {"box": [left, top, right, bottom], "outline": [[x, y], …]}'
        raise ValueError(msg) from error


def lesion_of(box: Sequence[float] | None, outline: Sequence[Sequence[float]] | None) -> Lesion:
    """Make a lesion of plain lists.

    Raises
    ------
    ValueError
        If the lesion is invalid, or a list has another length than it should.
    """
    edges = None
    if box:
        left, top, right, bottom = map(float, box)
        edges = (left, top, right, bottom)
    return Lesion(box=edges, outline=tuple((float(x), float(y)) for x, y in outline or ()))


def frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Lay rows out as the cohort's table, sorted by image."""
    ordered = sorted(rows, key=lambda row: row.image)
    columns = {}
    for name, kind in COLUMNS.items():
        values = [lesions_to_json(row.lesions) if name == "lesions" else getattr(row, name) for row in ordered]
        columns[name] = pd.Series(values, dtype=kind)
    return pd.DataFrame(columns)


def counts(cohort: Cohort) -> dict[str, Any]:
    """Count patients and images of each class and modality, and of auxiliary kinds, as a value that JSON can hold."""
    cases, auxiliaries = cohort.case_rows, cohort.auxiliary_rows
    of_class = {name: cases[cases["label"] == name] for name in cohort.classes}
    kinds = Counter("unknown" if pd.isna(kind) else str(kind) for kind in auxiliaries["kind"])
    return {
        "classes": {
            name: {"patients": int(rows["patient"].nunique()), "images": len(rows)} for name, rows in of_class.items()
        },
        "auxiliary": {
            "patients": int(auxiliaries["patient"].nunique()),
            "images": len(auxiliaries),
            "kinds": dict(sorted(kinds.items())),
        },
        "modalities": {
            str(name): {"patients": int(rows["patient"].nunique()), "images": len(rows)}
            for name, rows in cohort.frame.groupby("modality")
        },
        "left_out": len(cohort.left_out),
    }


def resolve_inside(root: Path, image: str) -> Path:
    """Find an image of a cohort, and make sure that it lies in the cohort's folder.

    Raises
    ------
    ImageError
        If the path is absolute, climbs by ``..``, a link leads out, or no file can have such a name.
    """
    relative, path = PurePosixPath(image), root / image
    try:
        climbs = ".." in relative.parts or relative.is_absolute() or bool(PureWindowsPath(image).anchor)
        outside = climbs or not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, or a link that leads to itself
        outside = True
    if outside:
        raise ImageError(
            f"the path leads out of the image folder {root}",
            path=image,
            remedy="give paths that start from the image folder, and keep all images inside it",
        )
    return path


def require_folder(folder: Path, *, missing: str, remedy: str, fault: type[OsteoscopeError] = InputError) -> None:
    """Make sure that a folder is there, and that a cohort can write its path down.

    Parameters
    ----------
    folder
        To be looked at.
    missing, remedy
        What to say if it is not there, and what to do.
    fault
        What is raised.

    Raises
    ------
    InputError
        Or `fault`: if it is not there, may not be looked at, or its path is no UTF-8.
    """
    try:
        there = folder.is_dir()
    except OSError as error:
        reason = f"could not be looked at: {os.strerror(error.errno or 0).lower()}"
        raise fault(reason, path=folder, remedy=remedy) from error
    if not there:
        raise fault(missing, path=folder, remedy=remedy)
    try:
        str(folder.resolve()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise fault("its path is no UTF-8", path=folder, remedy="rename it") from error


def cases(cohort: Cohort) -> list[Case]:
    """Gather the rows of the folds to patients.

    Returns
    -------
    One case a patient, sorted by pseudonym.

    Raises
    ------
    CohortError
        If a patient has two labels.
    ImageError
        If an image's path leads out of the cohort's folder.
    """
    return [_case(str(patient), rows, cohort) for patient, rows in cohort.case_rows.groupby("patient", sort=True)]


def modalities_of(cohort: Cohort) -> tuple[Modality, ...]:
    """Give the modalities of a cohort's cases, sorted.

    Raises
    ------
    CohortError
        If there is no case, or if some images, auxiliary ones among them, are phantoms and others are not: what
        networks learn, and what is found on them, would hold for neither. A picture, which cannot say what it shows,
        goes with the other images of its patient.
    """
    rows = cohort.case_rows
    if not len(rows):
        raise CohortError("expected images of the classes, found none", remedy="make a cohort that has some")
    said = cohort.frame["phantom"].fillna(False)
    phantoms, of_patients = int(said.sum()), said.groupby(cohort.frame["patient"]).transform("any")
    others = ~said & (cohort.frame["phantom"].notna() | ~of_patients)
    if phantoms and bool(others.any()):
        reason = f"expected phantoms alone or none, found {phantoms} phantoms among {len(cohort.frame)} images"
        raise CohortError(reason, remedy="make a cohort without them, since they are no evidence of patients")
    return tuple(sorted(set(rows["modality"])))


def auxiliary(cohort: Cohort) -> list[Auxiliary]:
    """Gather the images outside the classes that may teach in any fold: none shares a patient or pixels with a case.

    Returns
    -------
    Sorted by image.

    Raises
    ------
    ImageError
        If an image's path leads out of the cohort's folder.
    """
    held, rows = cohort.case_rows, cohort.auxiliary_rows
    shared = rows["patient"].isin(held["patient"]) | rows["pixel_sha256"].isin(held["pixel_sha256"])
    return [
        Auxiliary(
            patient=row["patient"],
            kind=_or_none(row["kind"]),
            site=_or_none(row["site"]),
            image=case_image(row, cohort.root),
        )
        for row in rows[~shared].sort_values("image").to_dict("records")
    ]


def refuse_output(folder: Path) -> None:
    """Refuse, before anything is read, a folder that `write_cohort` would refuse; errors are those."""
    refuse_existing(folder, kind="a cohort", marker=HEADER, others=frozenset({TABLE}))


def write_cohort(cohort: Cohort, folder: Path) -> None:
    """Write a cohort as ``cohort.parquet`` and ``cohort.json``, whole or not at all; equal cohorts, equal bytes.

    Raises
    ------
    StorageError
        If the folder holds something else than a cohort, or the operating system refuses.
    """
    refuse_output(folder)
    content, header = _table_and_header(cohort, folder)
    with folder_written_whole(folder) as beside:
        write_bytes(beside / TABLE, content)
        write_json(beside / HEADER, header)


def write_beside_images(cohort: Cohort, folder: Path) -> None:
    """Write a cohort into the folder that holds its images, which stays with all that it holds and may be moved.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    content, header = _table_and_header(cohort, folder)
    write_bytes(folder / TABLE, content)
    # Until the header is there, which knows the table's hash, the folder is no cohort, or one that has changed.
    write_json(folder / HEADER, header)


def _table_and_header(cohort: Cohort, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Give what is written of a cohort; images in its own folder are found wherever that is moved."""
    buffer = io.BytesIO()
    pq.write_table(_arrow_table(cohort.frame), buffer, compression="zstd")
    root = cohort.root.resolve()
    header = {
        "schema": SCHEMA,
        "osteoscope": __version__,
        "source": cohort.source,
        "classes": list(cohort.classes),
        "root": "." if root == folder.resolve() else str(root),
        "counts": counts(cohort),
        "notes": list(cohort.notes),
        "left_out": [dataclasses.asdict(image) for image in cohort.left_out],
        "fingerprint": cohort.fingerprint(),
        "table_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    return buffer.getvalue(), header


def _arrow_table(frame: pd.DataFrame) -> pa.Table:
    # pandas would note its own version in the metadata.
    return pa.Table.from_pandas(frame, schema=_ARROW_SCHEMA, preserve_index=False).replace_schema_metadata(None)


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")

    schema_version: int = Field(alias="schema")
    source: str
    classes: tuple[str, ...]
    root: Path
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    fingerprint: str
    table_sha256: str


def read_cohort(folder: Path, images: Path | None = None, *, named: str = "--images") -> Cohort:
    """Read a cohort back, and make sure that it is the one that was written.

    Parameters
    ----------
    folder
        What `write_cohort` wrote.
    images
        Folder that the image paths start from, where it is no longer the one written down.
    named
        The option by which that is given, for the remedy.

    Raises
    ------
    CohortError
        If it is not a cohort, is of a later schema, has changed, or its image folder is missing.
    """
    header = _read_header(folder)
    try:
        content = (folder / TABLE).read_bytes()
    except OSError as error:
        raise CohortError(f"could not be read: {error.strerror}", path=folder / TABLE, remedy=_MAKE_AGAIN) from error
    if hashlib.sha256(content).hexdigest() != header.table_sha256:
        raise _changed(folder / TABLE)
    frame = _frame(pq.read_table(io.BytesIO(content)).to_pandas())
    # Joined to an absolute path, the folder gives way to it.
    root = images if images is not None else folder / header.root
    remedy = f"name the folder that holds the images with {named}"
    require_folder(root, missing="the folder with the cohort's images is missing", remedy=remedy, fault=CohortError)
    try:
        cohort = Cohort(
            frame=frame,
            classes=header.classes,
            root=root,
            source=header.source,
            left_out=header.left_out,
            notes=header.notes,
        )
    except ValueError as error:
        raise _changed(folder / HEADER) from error
    if cohort.fingerprint() != header.fingerprint:
        raise _changed(folder / HEADER)
    return cohort


def _frame(found: pd.DataFrame) -> pd.DataFrame:
    """Give the columns their types; of those that a cohort of an earlier schema has not nothing is known."""
    missing = {name: None for name in _SINCE_SCHEMA_1 if name not in found}
    return found.assign(**missing).astype(dict(COLUMNS))


_MAKE_AGAIN = "make the cohort again with osteoscope cohort"


def _read_header(folder: Path) -> _Header:
    path = folder / HEADER
    if not path.is_file():
        raise CohortError(f"is not a cohort: it holds no {HEADER}", path=folder, remedy=_MAKE_AGAIN)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(f"is not a cohort's header: {error!r}", path=path, remedy=_MAKE_AGAIN) from error
    if not isinstance(schema, int) or schema > SCHEMA:
        reason = f"expected a cohort of schema {SCHEMA}, found {schema!r}"
        raise CohortError(reason, path=path, remedy="install a later osteoscope, or make the cohort again")
    try:
        return _Header.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CohortError(f"field {field!r}: {first['msg']}", path=path, remedy=_MAKE_AGAIN) from error


def _changed(path: Path) -> CohortError:
    return CohortError("has changed since the cohort was written", path=path, remedy=_MAKE_AGAIN)


def _case(patient: str, rows: pd.DataFrame, cohort: Cohort) -> Case:
    labels = sorted(rows["label"].unique())
    if len(labels) > 1:
        reason = f"patient {patient} has the labels {', '.join(map(repr, labels))}"
        raise CohortError(reason, remedy="give every image of a patient the same label")
    ages, sexes = rows["age"].dropna(), rows["sex"].dropna().unique()
    return Case(
        patient=patient,
        label=cohort.classes.index(labels[0]),
        images=tuple(case_image(row, cohort.root) for row in rows.sort_values("image").to_dict("records")),
        age=float(ages.mean()) if len(ages) else None,
        sex=sexes[0] if len(sexes) == 1 else None,
        site=_joined(rows["site"]),
        level=_joined(rows["level"]),
    )


def _joined(column: pd.Series[str]) -> str | None:
    """Join the names of all images of a patient, each once; None where no image has any."""
    return joined_sites(name for text in column.dropna() for name in split_sites(text))


def case_image(row: Mapping[Any, Any], root: Path) -> CaseImage:
    """Give the image that a row of a cohort's table is about.

    Raises
    ------
    ImageError
        If a path leads out of the cohort's folder.
    """
    return CaseImage(
        image=row["image"],
        path=resolve_inside(root, row["image"]),
        pixel_sha256=row["pixel_sha256"],
        rows=int(row["rows"]),
        columns=int(row["columns"]),
        modality=row["modality"],
        lesions=lesions_from_json(row["lesions"]),
        view=_or_none(row["view"]),
        mask=None if pd.isna(row["mask"]) else resolve_inside(root, row["mask"]),
        phantom=_or_none(row["phantom"]),
    )


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value
