"""An RT structure set (PS3.3 A.19.3): closed contours in planes of the patient, filled on the planes of a volume.

Contours are filled in the planes that they were drawn in or not at all: none is carried to a plane beside it, and
planes between two that have a contour stay unmarked, as they are in the object.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.marks import is_closed, items_of, refuse_other_scan, text_of
from osteoscope.imaging.on_grid import OF_THIS_VOLUME, OFF_GRID
from osteoscope.imaging.prepare import polygon_mask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.marks import Marks, NamedRegion
    from osteoscope.imaging.volume import Geometry, Volume

_BEYOND = 1.0
"""Pixels by which a contour may reach beyond the volume's planes, whose edges a drawing tool may follow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Contour:
    """A closed contour in a plane of the volume."""

    plane: int
    corners: NDArray[np.float64]
    """(n, 2) as ``(x, y)`` in pixel-edge coordinates of the plane."""


def mark_structure_set(
    marked: NDArray[np.bool_], path: Path, volume: Volume, marks: Marks, chosen: Sequence[NamedRegion]
) -> None:
    """Mark what the closed contours of some regions of interest enclose.

    A voxel is marked if its centre lies within an odd number of the contours that a region has in its plane, so that a
    contour within another is a hole (CLOSEDPLANAR_XOR of PS3.3 C.8.8.6.1; CLOSED_PLANAR is taken alike). A contour that
    is there twice counts once.

    Parameters
    ----------
    marked
        ``(planes, rows, columns)`` of the volume.
    path, marks
        Of the structure set.
    volume
        On whose planes the contours lie, whatever their orientation.
    chosen
        Regions of interest that count.

    Raises
    ------
    InputError
        If it was drawn in another frame of reference, a region has no closed contour, or a contour lies beside or
        across the planes, or beyond them.
    """
    for region in chosen:
        if region.empty:
            reason = f"expected closed contours of {region.name!r}, found none"
            raise InputError(
                reason, path=path, remedy="draw it, or name another region: osteoscope cohort outline --roi-name"
            )
        frames, contours = _read(path, region)
        refuse_other_scan(frames or marks.frames_of_reference, marks.series, volume, path)
        # The exclusive or of one region; several regions are joined.
        own = np.zeros_like(marked)
        seen: set[tuple[int, bytes]] = set()
        for contour in (_placed(points, volume.geometry, path) for points in contours):
            inside = polygon_mask(own.shape[1:], contour.corners.tolist())
            # What is there again, be it from another point on or the other way round, would undo itself.
            again = contour.plane, hashlib.sha256(np.packbits(inside).tobytes()).digest()
            if again not in seen:
                seen.add(again)
                own[contour.plane] ^= inside
        marked |= own


def _read(path: Path, region: NamedRegion) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Read a region's frame of reference, and its closed contours, each (n, 3) in LPS mm."""
    import pydicom

    tags: list[int | str] = ["StructureSetROISequence", "ROIContourSequence"]
    try:
        found = pydicom.dcmread(path, specific_tags=tags, force=True)  # type: ignore[arg-type]
        frames = [
            text_of(item, "ReferencedFrameOfReferenceUID")
            for item in items_of(found, "StructureSetROISequence")
            if int(text_of(item, "ROINumber")) == region.number
        ]
        contours = [
            _points(text_of(contour, "ContourData"))
            for item in items_of(found, "ROIContourSequence")
            if int(text_of(item, "ReferencedROINumber")) == region.number
            for contour in items_of(item, "ContourSequence")
            if is_closed(contour)
        ]
    except Exception as error:
        reason = f"its contours cannot be read ({type(error).__name__})"
        raise InputError(reason, path=path, remedy="export the structure set again") from error
    return list(filter(None, frames)), contours


def _points(text: str) -> NDArray[np.float64]:
    points = np.array(text.split("\\"), dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        msg = "expected finite coordinates"
        raise ValueError(msg)
    return points


def _placed(points: NDArray[np.float64], geometry: Geometry, path: Path) -> _Contour:
    """Carry a contour from LPS mm to a plane of the volume."""
    if geometry.affine is None:
        msg = "expected a volume whose place is known"
        raise ValueError(msg)
    places = (points - geometry.affine[:3, 3]) @ np.linalg.inv(geometry.affine[:3, :3]).T
    plane = round(float(np.median(places[:, 2])))
    off = np.abs(places[:, 2] - plane)
    if off.max() > OFF_GRID:
        across = np.ptp(places[:, 2]) > OFF_GRID
        found = "one that lies across them" if across else f"one {off.max():.2g} of a step beside them"
        reason = f"expected contours in the volume's planes, to within {OFF_GRID:g} of the step between them"
        raise InputError(f"{reason}, found {found}", path=path, remedy=OF_THIS_VOLUME)
    planes, rows, columns = geometry.shape
    # The centre of the first pixel is at 0 for the affine, and at one half between the pixel's edges.
    corners = places[:, :2] + 0.5
    beyond = max(-corners.min(), (corners - (columns, rows)).max())
    if not 0 <= plane < planes or beyond > _BEYOND:
        reason = "expected contours within the volume, found one that reaches beyond it"
        raise InputError(reason, path=path, remedy=OF_THIS_VOLUME)
    return _Contour(plane=plane, corners=corners)
