"""What a file marks in a volume: a DICOM segmentation or RT structure set, or a mask as NIfTI, MetaImage or NRRD.

A mask is taken as it is or refused: it is never resampled, and never laid over a volume that it may not belong to.
Everything that a mask marks counts, whatever it is called: a segmentation of several segments, and a mask of several
labels, give one mask. A structure set alone also holds the body and organs as a rule, so of it the lesion's region is
chosen by its name.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.discover import discover
from osteoscope.imaging.on_grid import OF_THIS_VOLUME, laid
from osteoscope.imaging.refusal import RefusedImageError
from osteoscope.imaging.values import VALUES_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume

MaskKind = Literal["DICOM", "NIfTI", "MetaImage", "NRRD"]

MASK_KINDS: tuple[MaskKind, ...] = ("DICOM", "NIfTI", "MetaImage", "NRRD")
"""Formats of masks."""

_MARKED = 0.5
"""From which on a value is a mark: any label, and of a probability the larger half."""

_SIGN = b"osteoscope mask"
_DESCRIBED = slice(148, 228)
"""Where a NIfTI-1 header describes the file (``descrip``)."""


def read_mask(
    path: Path, volume: Volume, *, names: Sequence[str] = (), numbers: Sequence[int] = ()
) -> NDArray[np.bool_]:
    """Read what a file marks in a volume; no more is held than the result and a few planes.

    Parameters
    ----------
    path
        A DICOM segmentation (PS3.3 A.51), binary, fractional (at least half is marked) or a label map, whose frames lie
        on planes of the volume; an RT structure set (`osteoscope.imaging.rtstruct`); or a NIfTI, MetaImage or NRRD file
        of the volume's size and place, in which marked voxels are 0.5 or more. The axes of either may be stored in
        another order or direction than the volume's.
    volume
        As it was opened.
    names
        Of the segments or regions of interest that count. Where left out, all segments do, and of a structure set the
        region whose name speaks of a lesion (`osteoscope.imaging.marks.lesions_among`).
    numbers
        Of those that count, where they are known by their numbers; they go before names.

    Returns
    -------
    ``(planes, rows, columns)`` of the volume; planes that a segmentation has no frame of, or a structure set no
    contour, are unmarked.

    Raises
    ------
    InputError
        If there is no such file, or it is no such mask; if its voxels are not those of the volume, to within
        `osteoscope.imaging.on_grid.OFF_GRID` of a voxel; if it names another frame of reference than the volume's, or,
        where it names none, another series; if the region that is meant cannot be told; if it marks nothing; or if the
        volume's own place is unknown.
    """
    if volume.geometry.affine is None:
        raise InputError("expected a volume whose place is known, to lay a mask on", path=path, remedy="leave it out")
    kind = kind_of_mask(path)
    marked = np.zeros(volume.geometry.shape, dtype=bool)
    if kind == "DICOM":
        _mark_dicom(marked, path, volume, names, numbers)
    else:
        _mark_array(marked, path, kind, volume)
    if not marked.any():
        raise InputError("expected a mask that marks something, found none marked", path=path, remedy=OF_THIS_VOLUME)
    return marked


def kind_of_mask(path: Path) -> MaskKind:
    """Tell by its bytes which format a file has that may be a mask.

    Raises
    ------
    InputError
        If there is no such file, or it is of no format that a mask can have.
    """
    if path.is_dir():
        raise InputError("expected the file of a mask, found a folder", path=path, remedy="name the file in it")
    found = discover([path])
    for refusal in found.refused:
        raise RefusedImageError(refusal.code, refusal.sentence, path=path, remedy=refusal.remedy)
    kind = next(iter(found.files), "zip")
    for known in MASK_KINDS:
        if kind == known:
            return known
    expected = f"expected a mask as DICOM segmentation, NIfTI, MetaImage or NRRD, found a {kind}"
    raise InputError(expected, path=path, remedy="convert it to one of these")


def write_mask(path: Path, marked: NDArray[np.bool_], volume: Volume) -> None:
    """Write what is marked in a volume as NIfTI-1 of uint8, 1 where it is, that `read_mask` reads back.

    Its header says of itself that it was written here, by which `is_written_mask` knows it.

    The same mask gives the same bytes.

    Parameters
    ----------
    path
        Compressed where its name ends in ``.gz``.
    marked
        ``(planes, rows, columns)`` of the volume.
    volume
        In which it is marked.

    Raises
    ------
    StorageError
        If the operating system refuses; what was there stays as it was.
    ValueError
        If the mask is not of the volume's shape, or the volume's place is unknown.
    """
    from osteoscope.imaging.nifti import write_nifti

    geometry = volume.geometry
    if geometry.affine is None or marked.shape != geometry.shape:
        msg = f"expected a mask of {geometry.shape} in a volume whose place is known, got {marked.shape}"
        raise ValueError(msg)
    planes = (plane.astype(np.uint8) for plane in marked)
    write_nifti(path, planes, geometry.affine, shape=marked.shape, stored=np.uint8, described=_SIGN)


def is_written_mask(path: Path) -> bool:
    """Tell whether a file is one that `write_mask` wrote, by what its header says of itself."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            start = stream.read(_DESCRIBED.stop)
    except (OSError, EOFError, zlib.error):
        return False
    return start[_DESCRIBED].rstrip(b"\0") == _SIGN


def _mark_dicom(
    marked: NDArray[np.bool_], path: Path, volume: Volume, names: Sequence[str], numbers: Sequence[int]
) -> None:
    from osteoscope.imaging.marks import SEGMENTATIONS, STRUCTURE_SET, lesions_among, read_marks
    from osteoscope.imaging.rtstruct import mark_structure_set
    from osteoscope.imaging.segmentation import mark_segmentation

    marks = read_marks(path)
    chosen = tuple(region for region in marks.regions if region.number in numbers)
    if marks.sop_class == STRUCTURE_SET:
        mark_structure_set(marked, path, volume, marks, chosen or lesions_among(marks.regions, names, path))
    elif marks.sop_class in SEGMENTATIONS:
        if names and not chosen:
            chosen = lesions_among(marks.regions, names, path)
        mark_segmentation(marked, path, volume, marks, chosen)
    else:
        from osteoscope.imaging.dicom import read_header

        modality = read_header(path).dicom_modality or "unknown"
        found = f"expected a DICOM segmentation or structure set, found an object of modality {modality}"
        raise InputError(found, path=path, remedy="name the segmentation, not the image")


def _mark_array(marked: NDArray[np.bool_], path: Path, kind: MaskKind, volume: Volume) -> None:
    """Mark what an array in a file marks, a few planes at a time."""
    # A mask has no modality, and none need be concluded.
    if kind == "NIfTI":
        from osteoscope.imaging.nifti import read_nifti

        mask = read_nifti(path, modality="MR")
    else:
        from osteoscope.imaging.metaimage import read_metaimage

        mask = read_metaimage(path, modality="MR")
    geometry = mask.geometry
    if geometry.affine is None:
        reason = "expected a mask that states its place in the patient, found none"
        raise InputError(reason, path=path, remedy="save it with the place of its volume")
    if sorted(geometry.shape) != sorted(volume.geometry.shape):
        sizes = f"{_times(volume.geometry.shape)}, found one of {_times(geometry.shape)}"
        raise InputError(f"expected a mask of {sizes} voxels", path=path, remedy=OF_THIS_VOLUME)
    there = laid(geometry.affine, geometry.shape, volume.geometry, path).of(marked)
    planes, rows, columns = geometry.shape
    step = max(1, VALUES_AT_ONCE // (rows * columns))
    for first in range(0, planes, step):
        some = range(first, min(first + step, planes))
        there[some.start : some.stop] = mask.read(some) >= _MARKED


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
