"""A DICOM segmentation (PS3.3 A.51), laid frame by frame on the volume that it was drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.marks import items_of, refuse_other_scan, text_of
from osteoscope.imaging.on_grid import laid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.frames import Frame
    from osteoscope.imaging.marks import Marks, NamedRegion
    from osteoscope.imaging.volume import Geometry, Volume

_AGAIN = "export the segmentation again"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """How a segmentation stores what it marks (PS3.3 C.8.20.2)."""

    kind: str
    """``BINARY``, ``FRACTIONAL`` or ``LABELMAP``."""
    least: float
    """Stored value from which on a pixel is marked."""
    segments: tuple[int, ...]
    """Of each frame, the number of the segment that it shows; none of a label map, whose values are these numbers."""


def mark_segmentation(
    marked: NDArray[np.bool_], path: Path, volume: Volume, marks: Marks, chosen: Sequence[NamedRegion]
) -> None:
    """Mark what the frames of a segmentation mark, one after the other.

    Parameters
    ----------
    marked
        ``(planes, rows, columns)`` of the volume.
    path, marks
        Of the segmentation.
    volume
        On which it is laid.
    chosen
        Segments that count; all where left out.

    Raises
    ------
    InputError
        As `osteoscope.imaging.masks.read_mask` does.
    """
    from osteoscope.imaging.dicom import read_header
    from osteoscope.imaging.opened import KnownFile
    from osteoscope.imaging.pixels import stored_frames

    refuse_other_scan(marks.frames_of_reference, marks.series, volume, path)
    header = read_header(path)
    numbers = [region.number for region in chosen]
    stored = _stored(path, of_frames=bool(numbers))
    wanted = _frames_of(stored, numbers, len(header.frames), path)
    shape = (1, header.rows, header.columns)
    with KnownFile(path, header.stamp).opened() as stream:
        for index, values in zip(wanted, stored_frames(stream, header.pixels, wanted), strict=True):
            affine = _affine_of(header.frames[index], volume.geometry, path)
            there = laid(affine, shape, volume.geometry, path).of(marked)
            # Segments may overlap, each in a frame of its own at one plane.
            there[0] |= np.isin(values, numbers) if _tells_by_value(stored, numbers) else values >= stored.least


def _tells_by_value(stored: _Stored, numbers: Sequence[int]) -> bool:
    return stored.kind == "LABELMAP" and bool(numbers)


def _frames_of(stored: _Stored, numbers: Sequence[int], count: int, path: Path) -> list[int]:
    """Give the frames that show the segments, all where none is named."""
    if not numbers or stored.kind == "LABELMAP":
        return list(range(count))
    if len(stored.segments) != count:
        reason = f"expected each of {count} frames to name its segment, found {len(stored.segments)} that do"
        raise InputError(reason, path=path, remedy=_AGAIN)
    return [index for index, segment in enumerate(stored.segments) if segment in numbers]


def _stored(path: Path, *, of_frames: bool) -> _Stored:
    """Read what the header walk does not keep."""
    import pydicom

    tags: list[Any] = ["SegmentationType", "MaximumFractionalValue"]
    if of_frames:
        tags += ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        kind = text_of(found, "SegmentationType")
        most = found.get("MaximumFractionalValue") or 1
        shared = [one for item in items_of(found, "SharedFunctionalGroupsSequence") for one in _segments_of(item)]
        per_frame = [
            (_segments_of(item) or shared)[0]
            for item in items_of(found, "PerFrameFunctionalGroupsSequence")
            if _segments_of(item) or shared
        ]
    except Exception as error:
        reason = f"its header cannot be read as that of a segmentation ({type(error).__name__})"
        raise InputError(reason, path=path, remedy=_AGAIN) from error
    return _Stored(kind=kind, least=most / 2 if kind == "FRACTIONAL" else 1, segments=tuple(per_frame))


def _segments_of(group: Any) -> list[int]:
    """Give the segment that a functional group names (PS3.3 C.8.20.3.1)."""
    return [int(item.ReferencedSegmentNumber) for item in items_of(group, "SegmentIdentificationSequence")]


def _affine_of(frame: Frame, geometry: Geometry, path: Path) -> NDArray[np.float64]:
    """Carry ``(column, row, plane, 1)`` of a frame to LPS mm (PS3.3 C.7.6.2.1.1); the plane's step is the volume's."""
    if frame.position is None or frame.orientation is None or frame.spacing is None or geometry.affine is None:
        reason = "expected frames that state their place in the patient, found one that does not"
        raise InputError(reason, path=path, remedy=_AGAIN)
    affine = np.eye(4)
    affine[:3, 0] = np.array(frame.orientation[:3]) * frame.spacing[1]
    affine[:3, 1] = np.array(frame.orientation[3:]) * frame.spacing[0]
    affine[:3, 3] = frame.position
    within = np.abs(np.linalg.solve(geometry.affine[:3, :3], affine[:3, :2])).sum(axis=1)
    affine[:3, 2] = geometry.affine[:3, int(within.argmin())]
    return affine
