"""From an array that a file holds in some order of axes to a Volume: what NIfTI, MetaImage and NRRD have in common.

Such a file says little of how it came about: neither which axis led from slice to slice nor, as a rule, of which
modality it is. What is concluded about them is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np

from osteoscope.imaging.evenly import with_ends
from osteoscope.imaging.opened import KnownFile
from osteoscope.imaging.orientation import Turn, plane_axis_of, turn_to_display
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.stored_array import ArrayReader
from osteoscope.imaging.volume import Geometry, Modality, PixelSpacing, Reader, Source, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.opened import Stamp
    from osteoscope.imaging.orientation import Axes
    from osteoscope.imaging.stored_array import StoredArray

_SMALLEST_STEP, _LARGEST_STEP = 0.01, 100.0
"""Steps, in mm, that are let pass as those of a patient's scan."""

_ALONG = 0.9
"""Least cosine of a stored axis with the direction in which slices were acquired."""

_FLAT = 1e-3
"""Volume of the box that the axes span, each of length 1, up to which they lie in a plane."""

_SKEW = 0.01
"""Largest cosine between two axes that are taken as perpendicular: about half a degree."""

_SAMPLED_PLANES = 24
"""From which the modality is concluded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """An opened file.

    Parameters
    ----------
    volume
        What it holds.
    told
        What was concluded or found odd when it was opened, in sentences without a full stop.
    phantom
        Whether what lies beside it says that it was made from the phantom (`osteoscope.imaging.synthetic`).
    """

    volume: Volume
    told: tuple[str, ...]
    phantom: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayHeader:
    """What a file says of the array that it holds, checked.

    Parameters
    ----------
    array
        Where the values lie.
    affine
        4x4, invertible, from a stored index ``(i, j, k, 1)`` to LPS mm; None where there is none to be believed.
    pixel
        Steps in mm along i and j, where there is no affine but they are known.
    slope, intercept
        From stored values to modality units.
    modality
        As the file states it, such as ``CT``, or None.
    normal
        Unit vector in LPS along which the slices were acquired, where it is known.
    told
        What was odd, in sentences without a full stop.
    phantom
        As in `Scan`.
    """

    array: StoredArray
    affine: NDArray[np.float64] | None
    pixel: tuple[float, float] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    modality: str | None = None
    normal: NDArray[np.float64] | None = None
    told: tuple[str, ...] = ()
    phantom: bool = False


def scan_of(
    header: ArrayHeader,
    path: Path,
    stamp: Stamp,
    sha256: str,
    *,
    modality: Modality | None,
    unless_stated: Modality | None = None,
) -> Scan:
    """Make a Volume of what a file says, its planes turned as `osteoscope.imaging.orientation` says.

    Parameters
    ----------
    header
        What it says.
    path, stamp, sha256
        Of the file, as it was when its header was read.
    modality
        ``CT`` or ``MR``, as which it is taken whatever the header states.
    unless_stated
        ``CT`` or ``MR``, as which it is taken where the header states nothing; without it the values decide.

    Raises
    ------
    RefusedImageError
        If the modality is neither CT nor MR, or has to be concluded from values that cannot be read.
    """
    geometry, turn, told = _placed(header)
    file = KnownFile(path, stamp, sha256)
    reader = ArrayReader(file, header.array, turn, slope=header.slope, intercept=header.intercept)
    known, told_of_modality = _modality(modality or header.modality or unless_stated, reader, geometry.shape[0], path)
    sources = (Source(path=path, sha256=sha256),)
    volume = Volume(geometry=geometry, modality=known, sources=sources, reader=reader)
    return Scan(volume=volume, told=(*header.told, *told, *told_of_modality), phantom=header.phantom)


def _placed(header: ArrayHeader) -> tuple[Geometry, Turn, list[str]]:
    """Choose which axis is that of the planes, and how they are turned; without a place, they stay as stored."""
    affine, sizes = header.affine, header.array.sizes
    if affine is None:
        return *_as_stored(sizes, header.pixel), []
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((steps >= _SMALLEST_STEP) & (steps <= _LARGEST_STEP)).all():
        told = f"its steps of {times(steps)} mm are not those of a patient's scan, so its place is taken as unknown"
        return *_as_stored(sizes, None), [told]
    cosines = affine[:3, :3] / steps
    axis = _acquired_along(cosines, header.normal)
    if axis is None:
        axis = plane_axis_of(steps.tolist(), sizes)
    told_of_axes = []
    if axis is None:
        axis = 2
        told_of_axes.append("nothing tells which of its axes led from slice to slice, so the last one stored is taken")
    skew = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if skew > _SKEW:
        told_of_axes.append(
            f"its axes are not perpendicular, but {np.degrees(np.arcsin(min(skew, 1))):.1f} degrees off"
        )
    turn = turn_to_display(affine, sizes, plane_axis=axis)
    column, row = np.linalg.norm(turn.affine[:3, :2], axis=0).tolist()
    spacing = PixelSpacing(row=row, column=column, kind="patient")
    return Geometry(shape=turn.shape, affine=turn.affine, spacing=spacing, aspect=row / column), turn, told_of_axes


def _as_stored(sizes: Axes, pixel: tuple[float, float] | None) -> tuple[Geometry, Turn]:
    shape = (sizes[2], sizes[1], sizes[0])
    turn = Turn(shape=shape, affine=np.eye(4), axes=(0, 1, 2), backwards=(False, False, False))
    if pixel is None:
        return Geometry(shape=shape, affine=None), turn
    spacing = PixelSpacing(row=pixel[1], column=pixel[0], kind="patient")
    return Geometry(shape=shape, affine=None, spacing=spacing, aspect=pixel[1] / pixel[0]), turn


def _acquired_along(cosines: NDArray[np.float64], normal: NDArray[np.float64] | None) -> int | None:
    if normal is None:
        return None
    closeness = np.abs(normal @ cosines)
    return int(closeness.argmax()) if closeness.max() >= _ALONG else None


def is_place(affine: NDArray[np.float64]) -> bool:
    """Tell whether a 4x4 matrix is an affine that can be inverted, whatever its unit."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    with np.errstate(over="ignore"):
        steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(steps) & (steps > 0)).all():
        return False
    return abs(float(np.linalg.det(affine[:3, :3] / steps))) > _FLAT


def corners_apart(one: NDArray[np.float64], other: NDArray[np.float64], sizes: Axes) -> float:
    """Largest distance between the places that two affines give to a corner of an array, in their unit."""
    corners = np.array([(*corner, 1.0) for corner in product(*((0, size - 1) for size in sizes))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def times(steps: NDArray[np.float64]) -> str:
    """Write lengths for a sentence: ``1 x 0.5 x 3``."""
    return " x ".join(f"{step:.4g}" for step in steps.tolist())


def _modality(stated: str | None, read: Reader, planes: int, path: Path) -> tuple[Modality, tuple[str, ...]]:
    """Take the modality that is stated, or conclude it from some planes, and say so.

    Values are in Hounsfield units if many of them are soft tissue, round 0, and some are fat or air, below -50: the
    magnitude of an MR signal is never negative, and its phase is spread evenly. All else is taken as MR.
    """
    if stated in ("CT", "MR"):
        return cast("Modality", stated), ()
    if stated is not None:
        reason = f"expected CT or MR, found {stated[:16]!r}"
        raise RefusedImageError(RefusalCode.OTHER_MODALITY, reason, path=path, remedy="leave it out")
    some = with_ends(0, planes - 1, _SAMPLED_PLANES)
    values = np.concatenate([read([plane])[0, ::2, ::2].ravel() for plane in some])
    fat_or_air = np.mean((values < -50) & (values > -1100))
    soft_tissue = np.mean((values > -200) & (values < 300))
    if fat_or_air >= 0.01 and soft_tissue >= 0.1:
        return "CT", ("its modality is not stated; CT is concluded from values that look like Hounsfield units",)
    return "MR", ("its modality is not stated; MR is concluded from values that do not look like Hounsfield units",)
