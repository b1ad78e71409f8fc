"""What a file marks in a volume: a DICOM segmentation, or a mask as NIfTI, MetaImage or NRRD, on the volume's grid.

A mask is taken as it is or refused: it is never resampled, and never laid over a volume that it may not belong to.
Everything that is marked counts, whatever it is called: a segmentation of several segments, and a mask of several
labels, give one mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.discover import discover
from osteoscope.imaging.refusal import RefusedImageError
from osteoscope.imaging.values import VALUES_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from osteoscope.imaging.dicom import Header
    from osteoscope.imaging.frames import Frame
    from osteoscope.imaging.volume import Geometry, Volume

OFF_GRID = 0.1
"""Voxels by which a mask's may lie beside the volume's: positions and spacings are written in rounded decimals."""

_MARKED = 0.5
"""From which on a value is a mark: any label, and of a probability the larger half."""

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of a segmentation and of a label map (PS3.4 B.5)."""

_OF_THIS_VOLUME = "name the mask that was drawn in this volume"


def read_mask(path: Path, volume: Volume) -> NDArray[np.bool_]:
    """Read what a file marks in a volume; no more is held than the result and a few planes.

    Parameters
    ----------
    path
        A DICOM segmentation (PS3.3 A.51), binary, fractional (at least half is marked) or a label map, whose frames lie
        on planes of the volume; or a NIfTI, MetaImage or NRRD file of the volume's size and place, in which marked
        voxels are 0.5 or more. The axes of either may be stored in another order or direction than the volume's.
    volume
        As it was opened.

    Returns
    -------
    ``(planes, rows, columns)`` of the volume; planes that a segmentation has no frame of are unmarked.

    Raises
    ------
    InputError
        If there is no such file, or it is no such mask; if its voxels are not those of the volume, to within
        `OFF_GRID` of a voxel; if it names another series or frame of reference than the volume's; if it marks nothing;
        or if the volume's own place is unknown.
    """
    if volume.geometry.affine is None:
        raise InputError("expected a volume whose place is known, to lay a mask on", path=path, remedy="leave it out")
    kind = _kind_of(path)
    marked = np.zeros(volume.geometry.shape, dtype=bool)
    if kind == "DICOM":
        _mark_segmentation(marked, path, volume)
    else:
        _mark_array(marked, path, kind, volume)
    if not marked.any():
        raise InputError("expected a mask that marks something, found none marked", path=path, remedy=_OF_THIS_VOLUME)
    return marked


def _kind_of(path: Path) -> str:
    if path.is_dir():
        raise InputError("expected the file of a mask, found a folder", path=path, remedy="name the file in it")
    found = discover([path])
    for refusal in found.refused:
        raise RefusedImageError(refusal.code, refusal.sentence, path=path, remedy=refusal.remedy)
    kind = next(iter(found.files), "zip")
    if kind not in ("DICOM", "NIfTI", "MetaImage", "NRRD"):
        expected = f"expected a mask as DICOM segmentation, NIfTI, MetaImage or NRRD, found a {kind}"
        raise InputError(expected, path=path, remedy="convert it to one of these")
    return kind


# Arrays ---------------------------------------------------------------------------------------------------------------


def _mark_array(marked: NDArray[np.bool_], path: Path, kind: str, volume: Volume) -> None:
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
        raise InputError(f"expected a mask of {sizes} voxels", path=path, remedy=_OF_THIS_VOLUME)
    there = _laid(geometry.affine, geometry.shape, volume.geometry, path).of(marked)
    planes, rows, columns = geometry.shape
    step = max(1, VALUES_AT_ONCE // (rows * columns))
    for first in range(0, planes, step):
        some = range(first, min(first + step, planes))
        there[some.start : some.stop] = mask.read(some) >= _MARKED


# Segmentations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """What a DICOM object says of itself as a segmentation (PS3.3 C.8.20.2) and of the series that it is of."""

    sop_class: str
    least: float
    """Stored value from which on a pixel is marked."""
    of_series: tuple[str, ...]


def _mark_segmentation(marked: NDArray[np.bool_], path: Path, volume: Volume) -> None:
    """Mark what the frames of a segmentation mark, one after the other."""
    from osteoscope.imaging.dicom import read_header
    from osteoscope.imaging.opened import KnownFile
    from osteoscope.imaging.pixels import stored_frames

    header = read_header(path)
    stated = _stated(path)
    if stated.sop_class not in _SEGMENTATIONS:
        found = f"expected a DICOM segmentation, found an object of modality {header.dicom_modality or 'unknown'}"
        raise InputError(found, path=path, remedy="name the segmentation, not the image")
    _refuse_other_series(header, stated, path, volume)
    shape = (1, header.rows, header.columns)
    with KnownFile(path, header.stamp).opened() as stream:
        frames = stored_frames(stream, header.pixels, range(len(header.frames)))
        for frame, values in zip(header.frames, frames, strict=True):
            there = _laid(_affine_of(frame, volume.geometry, path), shape, volume.geometry, path).of(marked)
            # Segments may overlap, each in a frame of its own at one plane.
            there[0] |= values >= stated.least


def _stated(path: Path) -> _Stated:
    """Read what the header walk does not keep."""
    import pydicom

    tags: list[Any] = ["SOPClassUID", "SegmentationType", "MaximumFractionalValue", "ReferencedSeriesSequence"]
    try:
        stated = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        most = stated.get("MaximumFractionalValue") or 1
        return _Stated(
            sop_class=_text(stated, "SOPClassUID"),
            least=most / 2 if _text(stated, "SegmentationType") == "FRACTIONAL" else 1,
            of_series=tuple(_text(item, "SeriesInstanceUID") for item in stated.get("ReferencedSeriesSequence") or ()),
        )
    except Exception as error:
        reason = f"its header cannot be read as that of a segmentation ({type(error).__name__})"
        raise InputError(reason, path=path, remedy="export the segmentation again") from error


def _text(data_set: Dataset, keyword: str) -> str:
    """Give an element's text from its bytes: pydicom would warn of a wrong one, and name it."""
    element = data_set.get_item(keyword)
    value = b"" if element is None else element.value
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)


def _refuse_other_series(header: Header, stated: _Stated, path: Path, volume: Volume) -> None:
    """Refuse a segmentation that says that it is of another scan; a volume that is no DICOM does not say what it is."""
    from osteoscope.imaging.dicom import read_header

    try:
        own = read_header(volume.sources[0].path)
    except RefusedImageError:
        return
    if header.frame_of_reference and own.frame_of_reference and header.frame_of_reference != own.frame_of_reference:
        reason = "expected a segmentation in the volume's frame of reference, found one in another"
        raise InputError(reason, path=path, remedy=_OF_THIS_VOLUME)
    if own.series and any(stated.of_series) and own.series not in stated.of_series:
        reason = "expected a segmentation of the volume's series, found one of another"
        raise InputError(reason, path=path, remedy=_OF_THIS_VOLUME)


def _affine_of(frame: Frame, geometry: Geometry, path: Path) -> NDArray[np.float64]:
    """Carry ``(column, row, plane, 1)`` of a frame to LPS mm (PS3.3 C.7.6.2.1.1); the plane's step is the volume's."""
    if frame.position is None or frame.orientation is None or frame.spacing is None or geometry.affine is None:
        reason = "expected frames that state their place in the patient, found one that does not"
        raise InputError(reason, path=path, remedy="export the segmentation again")
    affine = np.eye(4)
    affine[:3, 0] = np.array(frame.orientation[:3]) * frame.spacing[1]
    affine[:3, 1] = np.array(frame.orientation[3:]) * frame.spacing[0]
    affine[:3, 3] = frame.position
    within = np.abs(np.linalg.solve(geometry.affine[:3, :3], affine[:3, :2])).sum(axis=1)
    affine[:3, 2] = geometry.affine[:3, int(within.argmin())]
    return affine


# Grids ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """Where the voxels of an array are those of a volume.

    Parameters
    ----------
    shape
        ``(columns, rows, planes)`` of the array.
    axes
        The volume's axis, of ``(columns, rows, planes)``, of each of the array's.
    signs
        1 or -1 for each of the array's axes: whether it runs with the volume's or against it.
    start
        ``(column, row, plane)`` of the volume at the array's first voxel.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    signs: tuple[int, ...]
    start: tuple[int, ...]

    def of(self, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give the view of a volume's ``(planes, rows, columns)`` that has the array's axes in its place."""
        parts = [slice(None)] * 3
        for size, axis, sign in zip(self.shape, self.axes, self.signs, strict=True):
            end = self.start[axis] + sign * size
            parts[axis] = slice(self.start[axis], end if end >= 0 else None, sign)
        return values.T[tuple(parts)].transpose(self.axes).T


def _laid(affine: NDArray[np.float64], shape: Sequence[int], geometry: Geometry, path: Path) -> _Laid:
    """Find where an array's voxels are a volume's.

    Parameters
    ----------
    affine
        From an index ``(column, row, plane, 1)`` of the array to LPS mm.
    shape
        ``(planes, rows, columns)`` of the array.
    geometry
        Of the volume.
    path
        Of the array's file.

    Raises
    ------
    InputError
        If they are not.
    """
    if geometry.affine is None:
        msg = "expected a volume whose place is known"
        raise ValueError(msg)
    sizes = np.array(shape[::-1])
    exact = np.linalg.solve(geometry.affine, affine)
    near = np.rint(exact)
    turn = near[:3, :3]
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in sizes))]).T
    whole = (near @ corners)[:3]
    off = np.abs((exact @ corners)[:3] - whole).max()
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all() or off > OFF_GRID:
        reason = f"expected a mask on the volume's voxels, to within {OFF_GRID:g} of one, found another grid"
        raise InputError(reason, path=path, remedy=_OF_THIS_VOLUME)
    if whole.min() < 0 or (whole.max(axis=1) >= geometry.shape[::-1]).any():
        reason = "expected a mask within the volume, found one that reaches beyond it"
        raise InputError(reason, path=path, remedy=_OF_THIS_VOLUME)
    axes = np.abs(turn).argmax(axis=0)
    return _Laid(
        shape=tuple(sizes.tolist()),
        axes=tuple(axes.tolist()),
        signs=tuple(turn[axes, range(3)].astype(int).tolist()),
        start=tuple(near[:3, 3].astype(int).tolist()),
    )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
