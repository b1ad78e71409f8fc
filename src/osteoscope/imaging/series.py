"""The files of one or many series, in any order, become ordered Volumes, or the reason why not."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.dicom import Header, decode_into, read_header, transfer_syntax_name
from osteoscope.imaging.opened import KnownFile, opened, sha256_of_stream, stamp_of
from osteoscope.imaging.orientation import Turn, turn_to_display
from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.imaging.stack import SAME_PLACE, Stack, blocks_of, no_stack, stacks_of
from osteoscope.imaging.volume import Geometry, PixelSpacing, Planes, Source, Volume
from osteoscope.storage import short_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.derivation import Derivation
    from osteoscope.imaging.frames import Frame, Orientation
    from osteoscope.imaging.person import Person

SAME_DIRECTION = 1e-3
"""Direction cosines that differ by at most this are one orientation; those of three decimals are off by half of it."""

SAME_SPACING = 1e-3
"""Distances between pixels, in mm, that differ by at most this are one spacing."""

MOST_KINDS = 200
"""More orientations and sizes in one series are refused; a radial acquisition has a few dozen."""

LEAST_TILT = 0.5
"""Degrees from which on a tilt of the gantry is remarked on."""

_ASSUMED_THICKNESS = 1.0
"""In mm, of a single slice that does not state its own; an affine has to have some step."""

_THREADS = 4
"""Files that are read at a time; hashing, reading and converting them leave the interpreter to the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """An image of one or more planes at one place, from the files of one DICOM series or a part of them.

    Parameters
    ----------
    volume
        Its planes are ordered along their normal, lie as `osteoscope.imaging.orientation` says, and are decoded when
        read.
    files
        In the order of the planes; of a multi-frame file, once.
    copies
        Files that hold the same planes again, and are not read.
    study
        First 12 hexadecimal digits of the SHA-256 of the Study Instance UID; empty where its first file has none.
    name
        First 12 hexadecimal digits of the SHA-256 of the Series Instance UID; the parts of a series share it. Where a
        file has no such UID, of what its files hold.
    part
        What tells it from the other parts of its series, such as ``echo 2``; empty where the series is one image.
    dicom_modality
        Modality (0008,0060) as the files have it, such as ``CR``, or empty.
    person
        Whom the first file says that it shows.
    phantom
        Whether the files say that they were made from the phantom (`osteoscope.imaging.synthetic`).
    transfer_syntaxes
        UIDs of how the files are encoded, each once; `osteoscope.imaging.dicom.transfer_syntax_name` names one.
    aside
        Why it is used only when asked for, or None.
    derivation, original
        As in `osteoscope.imaging.dicom.Header`; it is original if all its files are.
    thickness
        Of a slice, in mm, which is not the distance to the next one; None where it is not stated.
    remarks
        What was odd about the files and how it was taken, as sentences without a full stop.
    """

    volume: Volume
    files: tuple[Path, ...]
    copies: tuple[Path, ...]
    study: str
    name: str
    part: str
    dicom_modality: str
    person: Person
    phantom: bool
    transfer_syntaxes: tuple[str, ...]
    aside: RefusalCode | None
    derivation: Derivation
    original: bool
    thickness: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembly:
    """What became of some files: each is in a series, as a file or a copy, or in a refusal.

    The stacks of one multi-frame file may be series of their own, and one of them may be refused.
    """

    series: tuple[Series, ...]
    refused: tuple[Refusal, ...]


def assemble(paths: Sequence[Path]) -> Assembly:
    """Make Volumes of DICOM files.

    Files belong together by Series Instance UID; those without one, if they lie in one folder and share patient, study,
    series number and modality. A series is divided by what no stack of planes can be of: modality, rows, columns,
    spacing, orientation, frame of reference, being a phantom or none, what it was made from other images for. If what
    results is no even stack of planes at places of their own, it is divided by what else may tell its planes apart
    (echo, acquisition, temporal position …). Planes are ordered along the normal of their orientation, whatever the
    instance numbers say, and the distance between them is that of their positions, whatever the slice thickness says.
    What is then still no even stack is refused as a whole; no plane is left out and no place is invented. Planes that
    are there twice, with equal values, are read once.

    Parameters
    ----------
    paths
        Files in any order, of one or many series; the same files in another order give the same result.

    Returns
    -------
    Series by their first file, and refusals by theirs. Nothing raises for what is wrong with a file.
    """
    ordered = sorted(set(paths), key=os.fsencode)
    with ThreadPoolExecutor(_THREADS) as pool:
        looked_at = list(pool.map(_look_at, ordered))
    refused = [one for one in looked_at if isinstance(one, Refusal)]
    groups: dict[tuple[str, ...], list[_File]] = {}
    for one in looked_at:
        if isinstance(one, _File):
            groups.setdefault(_series_of(one.header), []).append(one)
    series: list[Series] = []
    for key, files in groups.items():
        try:
            found, faults = _assemble_series(_name_of(key, files), files)
        except Exception as error:
            found, faults = [], [Refusal.of(error, *(file.header.path for file in files))]
        series += found
        refused += faults
    return Assembly(
        series=tuple(sorted(series, key=lambda one: os.fsencode(one.files[0]))),
        refused=tuple(sorted(refused, key=lambda one: os.fsencode(one.files[0]))),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    header: Header
    sha256: str

    @functools.cached_property
    def known(self) -> KnownFile:
        return KnownFile(self.header.path, self.header.stamp, self.sha256)


def _look_at(path: Path) -> _File | Refusal:
    """Read a file's header and hash its bytes, which must be those of the header."""
    try:
        header = read_header(path)
        with opened(path) as stream:
            sha256 = sha256_of_stream(stream)
            if stamp_of(stream)[:-1] != header.stamp[:-1]:
                found = "the file has changed while it was read"
                raise RefusedImageError(RefusalCode.CHANGED, found, path=path, remedy="run the command again")
        return _File(header=header, sha256=sha256)
    except Exception as error:
        return Refusal.of(error, path)


def _series_of(header: Header) -> tuple[str, ...]:
    """Tell which series a file belongs to."""
    if header.series:
        return (header.series,)
    return ("", str(header.path.parent), header.kin, header.dicom_modality)


def _name_of(key: tuple[str, ...], files: list[_File]) -> str:
    return short_hash(key[0] or "\n".join(sorted(file.sha256 for file in files)))


# Planes and their stacks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plane:
    """One frame of one file."""

    file: _File
    index: int

    @property
    def header(self) -> Header:
        return self.file.header

    @property
    def frame(self) -> Frame:
        return self.header.frames[self.index]

    @property
    def placed(self) -> bool:
        # What is marked on a radiograph is in its stored pixels, which must not be turned.
        frame = self.frame
        if self.header.is_film:
            return False
        return frame.position is not None and frame.orientation is not None and frame.spacing is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """A stack of planes along their normal, and what is to be said of it."""

    planes: list[_Plane]
    copies: list[_Plane] = field(default_factory=list)
    step: NDArray[np.float64] | None = None
    part: str = ""


def _assemble_series(name: str, files: list[_File]) -> tuple[list[Series], list[Refusal]]:
    """Make what can be made of the files of one series."""
    found: list[_Found] = []
    refused: list[Refusal] = []
    planes = [_Plane(file=file, index=index) for file in files for index in range(len(file.header.frames))]
    placed, nowhere = ([plane for plane in planes if plane.placed is wanted] for wanted in (True, False))
    for group in (*_alike(placed), *_alike_without_place(nowhere)):
        try:
            found += _stacks(group)
        except Exception as error:
            refused.append(Refusal.of(error, *_paths(group)))
    parts = _told_apart(found)
    return [_series(name, one, part) for one, part in zip(found, parts, strict=True)], refused


def _alike(planes: Iterable[_Plane]) -> list[list[_Plane]]:
    """Group planes that could be of one stack: of one kind, shape, spacing and orientation."""
    groups: list[tuple[_Plane, list[_Plane]]] = []
    exact: dict[tuple[object, ...], list[_Plane]] = {}
    for plane in planes:
        key = (_kind(plane), plane.frame.orientation, plane.frame.spacing)
        if key not in exact:
            exact[key] = next((members for first, members in groups if _close(first, plane)), [])
            if not exact[key]:
                groups.append((plane, exact[key]))
            if len(groups) > MOST_KINDS:
                found = f"expected at most {MOST_KINDS} orientations and sizes in a series, found more"
                raise RefusedImageError(RefusalCode.TOO_LARGE, found, remedy="name the files of one image only")
        exact[key].append(plane)
    return [members for _, members in groups]


def _kind(plane: _Plane) -> tuple[object, ...]:
    header = plane.header
    made = header.aside, header.derivation, header.phantom
    return header.modality, *made, header.rows, header.columns, header.frame_of_reference


def _close(one: _Plane, other: _Plane) -> bool:
    if _kind(one) != _kind(other):
        return False
    directions, distances = (one.frame.orientation, other.frame.orientation), (one.frame.spacing, other.frame.spacing)
    return _within(*directions, SAME_DIRECTION) and _within(*distances, SAME_SPACING)


def _within(one: Sequence[float] | None, other: Sequence[float] | None, margin: float) -> bool:
    return all(abs(a - b) <= margin for a, b in zip(one or (), other or (), strict=True))


def _alike_without_place(planes: list[_Plane]) -> list[list[_Plane]]:
    """Group planes whose place is unknown: CT and MR of one series, which would need an order, else by their files."""
    groups: dict[object, list[_Plane]] = {}
    for plane in planes:
        header = plane.header
        together = header.modality != "radiograph" and header.series
        key = (header.modality, header.aside, header.phantom) if together else plane.file.sha256
        groups.setdefault(key, []).append(plane)
    return list(groups.values())


def _paths(planes: Iterable[_Plane]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(plane.header.path for plane in planes))


def _stacks(planes: list[_Plane]) -> list[_Found]:
    """Make stacks of planes that are alike."""
    copies = _copies(planes, by_values=False)
    once = list(copies)
    if not once[0].placed:
        return _unplaced(copies)
    found = _placed(once)
    if found is None and _copied(once):
        copies = _copies(planes, by_values=True)
        once = list(copies)
        found = _placed(once)
    if found is None:
        found = _placed(once, of_files=True)
    if found is None:
        found = _of_stacks(once, blocks_of(_positions(once), _normal(once)))
    if found is None and once[0].header.modality == "radiograph":
        found = [_Found(planes=list(own)) for _, own in itertools.groupby(once, key=lambda plane: plane.file)]
    if found is None:
        raise no_stack(_positions(once), _normal(once))
    return [replace(one, copies=[copy for plane in one.planes for copy in copies[plane]]) for one in found]


def _unplaced(copies: dict[_Plane, list[_Plane]]) -> list[_Found]:
    """Take the frames of a picture in their order; of slices there is none that could be trusted."""
    planes = list(copies)
    if len(planes) > 1 and planes[0].header.modality != "radiograph":
        found = f"expected the place of each of {len(planes)} slices, found none stated that could be used"
        raise RefusedImageError(RefusalCode.MISSING_PLACE, found, remedy="export the series again, with its positions")
    return [_Found(planes=planes, copies=[copy for twins in copies.values() for copy in twins])]


def _placed(planes: list[_Plane], *, of_files: bool = False) -> list[_Found] | None:
    marks = [_marks_of_file(plane) if of_files else plane.frame.marks for plane in planes]
    return _of_stacks(planes, stacks_of(_positions(planes), _normal(planes), marks))


def _of_stacks(planes: list[_Plane], stacks: Sequence[Stack] | None) -> list[_Found] | None:
    if stacks is None:
        return None
    return [_Found(planes=[planes[i] for i in stack.indices], step=stack.step, part=stack.part) for stack in stacks]


def _marks_of_file(plane: _Plane) -> dict[str, str]:
    """Tell apart the files of a series that is there in several encodings or in several folders, with other values."""
    header = plane.header
    return {"encoding": transfer_syntax_name(header.transfer_syntax), "folder": str(header.path.parent)}


def _positions(planes: list[_Plane]) -> NDArray[np.float64]:
    return np.array([plane.frame.position for plane in planes], dtype=np.float64)


def _normal(planes: list[_Plane]) -> NDArray[np.float64]:
    rows, columns = np.array(planes[0].frame.orientation, dtype=np.float64).reshape(2, 3)
    normal = np.cross(rows, columns)
    return normal / np.linalg.norm(normal)


def _heights(planes: list[_Plane]) -> NDArray[np.float64]:
    return _positions(planes) @ _normal(planes)


def _copies(planes: list[_Plane], *, by_values: bool) -> dict[_Plane, list[_Plane]]:
    """Give each plane once, with those that hold it again: of an equal file, or with equal values at its place."""
    firsts: dict[object, _Plane] = {}
    copies: dict[_Plane, list[_Plane]] = {}
    for plane in planes:
        key = _values_and_place(plane) if by_values else (plane.file.sha256, plane.index)
        first = firsts.setdefault(key, plane)
        copies.setdefault(first, [])
        if first is not plane:
            copies[first].append(plane)
    return copies


def _copied(planes: list[_Plane]) -> bool:
    """Tell whether planes at the first place that is shared are copies, so that others may be worth decoding."""
    heights = _heights(planes)
    order = np.argsort(heights, kind="stable")
    shared = np.flatnonzero(np.diff(heights[order]) <= SAME_PLACE)
    if not shared.size:
        return False
    here = [planes[index] for index in order if abs(heights[index] - heights[order[shared[0]]]) <= SAME_PLACE]
    return len(_copies(here, by_values=True)) < len(here)


def _values_and_place(plane: _Plane) -> object:
    """Give what is equal for copies; a plane that cannot be decoded is none, and refused when it is read."""
    header = plane.header
    values = np.empty((header.rows, header.columns), dtype=np.float32)
    try:
        decode_into([values], header, [plane.index], plane.file.known)
    except RefusedImageError:
        return plane
    place = tuple(round(number / SAME_PLACE) for number in plane.frame.position or ())
    return hashlib.sha256(values.tobytes()).digest(), place


# Stacks become series -------------------------------------------------------------------------------------------------


def _told_apart(found: list[_Found]) -> list[str]:
    """Say of each part of a series what it is; nothing where the series is one image."""
    if len(found) == 1:
        return [found[0].part]
    texts = []
    for one in found:
        header = one.planes[0].header
        texts.append(", ".join(filter(None, (_described(one), f"{header.columns} x {header.rows}", one.part))))
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text}, {number} of {len(texts)}" for number, text in enumerate(texts, 1)]


def _described(found: _Found) -> str:
    header = found.planes[0].header
    if not found.planes[0].placed:
        return header.dicom_modality
    return _geometry(found)[0].plane_name or ""


def _series(name: str, found: _Found, part: str) -> Series:
    geometry, turn = _geometry(found)
    planes = found.planes[::-1] if turn is not None and turn.backwards[2] else found.planes
    files = list(dict.fromkeys(plane.file for plane in planes))
    header = planes[0].header
    paths = [file.header.path for file in files]
    copies = tuple(path for path in _paths(found.copies) if path not in paths)
    return Series(
        volume=Volume(
            geometry=geometry,
            modality=header.modality,
            sources=tuple(Source(path=file.header.path, sha256=file.sha256) for file in files),
            reader=functools.partial(_read, planes, turn),
        ),
        files=tuple(paths),
        copies=copies,
        study=short_hash(header.study) if header.study else "",
        name=name,
        part=part,
        dicom_modality=header.dicom_modality,
        person=header.person,
        phantom=header.phantom,
        transfer_syntaxes=tuple(dict.fromkeys(file.header.transfer_syntax for file in files)),
        aside=header.aside,
        derivation=header.derivation,
        original=all(file.header.original for file in files),
        thickness=planes[0].frame.thickness,
        remarks=_remarks(found, files, geometry),
    )


def _geometry(found: _Found) -> tuple[Geometry, Turn | None]:
    """Place a stack of planes in the patient, and find how it is turned to lie as it is looked at."""
    first = found.planes[0]
    header, frame = first.header, first.frame
    scattered = found.step is None and len(found.planes) > 1
    if not first.placed or scattered or frame.position is None or frame.orientation is None or frame.spacing is None:
        shape = (len(found.planes), header.rows, header.columns)
        return Geometry(shape=shape, affine=None, spacing=header.spacing, aspect=header.aspect), None
    affine = _affine(frame.position, frame.orientation, frame.spacing)
    # One plane has no step; its thickness says how far it reaches.
    affine[:3, 2] = (
        _normal(found.planes) * (frame.thickness or _ASSUMED_THICKNESS) if found.step is None else found.step
    )
    turn = turn_to_display(affine, (header.columns, header.rows, len(found.planes)))
    between_rows, between_columns = frame.spacing if turn.axes[0] == 0 else frame.spacing[::-1]
    spacing = PixelSpacing(row=between_rows, column=between_columns, kind="patient")
    aspect = between_rows / between_columns
    return Geometry(shape=turn.shape, affine=turn.affine, spacing=spacing, aspect=aspect), turn


def _affine(
    position: tuple[float, float, float], orientation: Orientation, spacing: tuple[float, float]
) -> NDArray[np.float64]:
    """Carry a column and a row to LPS mm (PS3.3 equation C.7.6.2.1-1)."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * spacing[1]
    affine[:3, 1] = np.array(orientation[3:]) * spacing[0]
    affine[:3, 3] = position
    return affine


def _remarks(found: _Found, files: list[_File], geometry: Geometry) -> tuple[str, ...]:
    remarks = dict.fromkeys(remark for file in files for remark in file.header.remarks)
    if not files[0].header.series and len(files) > 1:
        remarks["no Series Instance UID is stated, and alike files of one folder are taken as one series"] = None
    if geometry.affine is not None and found.step is None and found.planes[0].frame.thickness is None:
        remarks[f"it is one slice whose thickness is not stated, and taken as {_ASSUMED_THICKNESS:g} mm"] = None
    tilt = geometry.tilt
    if tilt is not None and tilt >= LEAST_TILT:
        remarks[f"the gantry was tilted by {tilt:.1f} degrees, and the affine has that shear"] = None
    return tuple(remarks)


def _read(planes: list[_Plane], turn: Turn | None, wanted: Sequence[int]) -> Planes:
    """Decode planes, each file once."""
    header = planes[0].header
    values = np.empty((len(wanted), header.rows, header.columns), dtype=np.float32)
    of_files: dict[_File, list[tuple[int, int]]] = {}
    for place, number in enumerate(wanted):
        of_files.setdefault(planes[number].file, []).append((place, planes[number].index))

    def decode(file: _File) -> None:
        places, indices = zip(*of_files[file], strict=True)
        decode_into([values[place] for place in places], file.header, indices, file.known)

    with ThreadPoolExecutor(_THREADS) as pool:
        # The list is made so that what a thread raises is raised here.
        list(pool.map(decode, of_files))
    return np.ascontiguousarray(turn.turned(values)) if turn is not None else values
