"""From a CT or MR to the planes that a network reads, and back; the same in training and in prediction.

A plane is a square of fixed size in mm, cut from one plane of the volume round the lesion where its region is given,
and round the body otherwise: nothing is stretched, so that what is large looks large. Its channels are the windows of
its values, and those of its neighbours before and behind it (2.5-D). It keeps an affine into the patient, so that what
is found in it can be shown on the volume.

Training, evaluation and prediction read the body. A cut round a region is for a cohort in which each scan has one: it
is read at another spacing, so it could be a setting of a whole cohort and never of a case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from osteoscope.imaging.evenly import with_ends
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.resampling import Rectangle, resample_rectangle
from osteoscope.imaging.survey import survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.config import VolumeConfig
    from osteoscope.imaging.survey import Body, Box, Extent
    from osteoscope.imaging.volume import Geometry, Volume

Window = tuple[float, float]
"""The values that become 0 and 1."""

_GREYS = (0.5, 99.5)
"""Percentiles of a radiograph's values that become 0 and 1."""

_TOUCHES = 1e-3
"""Of a plane or of a step, so that the rounding of an affine to float32, as in a NIfTI, decides nothing."""

_TOLD = 1.0
"""mm from which on it is told that something reaches beyond the planes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlicePlan:
    """Which planes are cut from a volume, and how.

    Parameters
    ----------
    size
        Rows and columns of a plane.
    planes
        Indices of the volume's planes, ascending.
    stacks
        For each, the volume's planes that its channels show, from the neighbour furthest before it to the one furthest
        behind it; beyond the ends of the volume its outermost plane stands in.
    rectangle
        What is shown of the volume's planes.
    body
        All that is shown of a CT besides the lesion: a table tells one scanner from another. None where everything is
        shown, as it is of an MR, which is dark round the body.
    affines
        ``(planes, 4, 4)``: from an index ``(column, row, 0, 1)`` of a plane to LPS mm; the third column is the step to
        the volume's next plane.
    windows
        Of values in modality units.
    padding
        Values that stand for none; they become 0.
    told
        What does not fit into the planes, in sentences without a full stop.
    """

    size: int
    planes: tuple[int, ...]
    stacks: tuple[tuple[int, ...], ...]
    rectangle: Rectangle
    body: Body | None
    affines: NDArray[np.float64]
    windows: tuple[Window, ...]
    padding: tuple[float, ...]
    told: tuple[str, ...]


def plan_slices(volume: Volume, config: VolumeConfig) -> SlicePlan:
    """Look at a volume once, coarsely and in little memory, and choose what is cut from it.

    Parameters
    ----------
    volume
        A CT or MR whose place is known.
    config
        The settings.

    Returns
    -------
    Planes at least ``config.step`` apart and evenly spread over the body, no more than ``config.planes``. A CT's
    windows are those of the settings; an MR has one, between percentiles of its values in the body.

    Raises
    ------
    RefusedImageError
        If the volume's place is not known, or a plane cannot be decoded.
    ValueError
        If the volume is a radiograph.
    """
    steps, affine = _known_place(volume)
    seen = survey(volume)
    windows = config.windows if volume.modality == "CT" else (_percentiles(seen.values, config.percentiles),)
    body = seen.body if volume.modality == "CT" else None
    region = seen.body.box if seen.body else _whole(volume.geometry)
    rectangle = _square_about(region, config.size * config.spacing, steps)
    planes = _planes(region[0], steps[0], config)
    return SlicePlan(
        size=config.size,
        planes=planes,
        stacks=_stacks(planes, volume.geometry.shape[0], steps[0], config),
        rectangle=rectangle,
        body=body,
        affines=np.stack([_affine_of(plane, rectangle, config.size, affine) for plane in planes]),
        windows=windows,
        padding=seen.padding,
        told=_beyond(region, rectangle, steps),
    )


def cut_slices(volume: Volume, plan: SlicePlan, which: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Cut planes from a volume; each of its own planes is read once, in order.

    Parameters
    ----------
    volume
        The one that was planned for.
    plan
        By `plan_slices`.
    which
        Places in ``plan.planes``, in the order wanted; all where left out.

    Returns
    -------
    float32 ``(n, channels, size, size)``, 0..1. Channel ``s x windows + w`` shows plane s of the stack in window w.
    What lies beyond the volume, and what is no value, is 0, as air is.

    Raises
    ------
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    stacks = [plan.stacks[place] for place in (range(len(plan.planes)) if which is None else which)]
    # The products are small: shared out to several threads they take many times as long.
    with _threads().limit(limits=1, user_api="blas"):
        shown = {plane: _shown(volume, plane, plan) for plane in sorted({plane for stack in stacks for plane in stack})}
    return np.stack([np.concatenate([shown[plane] for plane in stack]) for stack in stacks])


def without_neighbours(planes: NDArray[np.float32], plan: SlicePlan) -> NDArray[np.float32]:
    """Show planes that were cut as pictures of themselves: ``(…, channels, size, size)`` to ``(…, size, size)``.

    Of the channels, those of the plane itself are taken, and of these the mean over its windows.
    """
    windows = len(plan.windows)
    first = len(plan.stacks[0]) // 2 * windows
    mean: NDArray[np.float32] = planes[..., first : first + windows, :, :].mean(axis=-3)
    return mean


def radiograph_grey(volume: Volume) -> NDArray[np.float32]:
    """Read a radiograph of DICOM as a picture: its greys stretched, its pixels square.

    What it is stretched by are percentiles of its values, not its VOI LUT (PS3.3 C.11.2): that one is missing, set by
    hand or of a vendor's own kind in many files, and would change what the network sees without a change of the image.

    Parameters
    ----------
    volume
        A radiograph, 0 (black) to 1 (white).

    Returns
    -------
    float32 ``(rows, columns)``, 0..1; a radiograph without any contrast becomes 0.
    """
    plane = volume.read([0])[0]
    finite = np.isfinite(plane)
    window = _percentiles(plane[finite], _GREYS)
    grey = _windowed(np.where(finite, plane, window[0]), window)
    rows, columns = plane.shape
    square = max(1, round(rows * volume.geometry.aspect))
    if square == rows:
        return grey
    whole = Rectangle(left=0, top=0, width=columns, height=rows)
    return resample_rectangle(grey, whole, (square, columns), fill=0)


@cache
def _threads() -> ThreadpoolController:
    """Find the matrix library's threads, once: an interrupt that comes while they are looked for would be lost."""
    return ThreadpoolController()


def _known_place(volume: Volume) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    if volume.modality == "radiograph":
        msg = "expected a CT or MR, got a radiograph"
        raise ValueError(msg)
    steps, affine = volume.geometry.steps, volume.geometry.affine
    if steps is None or affine is None:
        path = volume.sources[0].path if volume.sources else None
        reason = "expected a scan that states its place in the patient, found one that does not"
        raise RefusedImageError(RefusalCode.MISSING_PLACE, reason, path=path, remedy="export it with its geometry")
    return steps, affine


def _whole(geometry: Geometry) -> Box:
    planes, rows, columns = (float(size) for size in geometry.shape)
    return (0.0, planes), (0.0, rows), (0.0, columns)


def _square_about(region: Box, side: float, steps: tuple[float, float, float]) -> Rectangle:
    """Lay a square of `side` mm about the middle of a region."""
    _, (top, bottom), (left, right) = region
    height, width = side / steps[1], side / steps[2]
    return Rectangle(left=(left + right - width) / 2, top=(top + bottom - height) / 2, width=width, height=height)


def _planes(extent: Extent, step: float, config: VolumeConfig) -> tuple[int, ...]:
    """Choose planes from those that an extent touches."""
    first = int(np.floor(extent[0] + _TOUCHES))
    last = max(first, int(np.ceil(extent[1] - _TOUCHES)) - 1)
    count = min(config.planes, 1 + int((last - first) * step / config.step + _TOUCHES))
    return tuple(with_ends(first, last, count))


def _stacks(planes: Sequence[int], count: int, step: float, config: VolumeConfig) -> tuple[tuple[int, ...], ...]:
    apart = max(1, int(config.neighbour_distance / step + 0.5 - _TOUCHES))
    offsets = [place * apart for place in range(-config.neighbours, config.neighbours + 1)]
    return tuple(tuple(min(max(plane + offset, 0), count - 1) for offset in offsets) for plane in planes)


def _affine_of(plane: int, rectangle: Rectangle, size: int, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry an index of a plane that is cut to the index of the volume, and that to LPS."""
    across, down = rectangle.width / size, rectangle.height / size
    to_volume = np.diag([across, down, 1.0, 1.0])
    # Centres of pixels have whole indices, and lie one half behind their edges.
    to_volume[:3, 3] = (rectangle.left + across / 2 - 0.5, rectangle.top + down / 2 - 0.5, plane)
    return affine @ to_volume


def _beyond(region: Box, rectangle: Rectangle, steps: tuple[float, float, float]) -> tuple[str, ...]:
    _, (top, bottom), (left, right) = region
    beyond = max((bottom - top - rectangle.height) * steps[1], (right - left - rectangle.width) * steps[2]) / 2
    return (f"the body reaches {beyond:.0f} mm beyond the planes on either side",) if beyond >= _TOLD else ()


def _percentiles(values: NDArray[np.float32], percentiles: tuple[float, float]) -> Window:
    """Find percentiles of values, whose order is lost: a radiograph's are too many to be copied once more."""
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, percentiles, overwrite_input=True).tolist()
    return low, high


def _shown(volume: Volume, plane: int, plan: SlicePlan) -> NDArray[np.float32]:
    """Show a plane of the volume: (windows, size, size)."""
    values = volume.read([plane])[0]
    lowest, highest = min(low for low, _ in plan.windows), max(high for _, high in plan.windows)
    missing = ~np.isfinite(values)
    if plan.body is not None:
        missing |= ~plan.body.in_plane(plane)
    for value in plan.padding:
        missing |= values == value
    # What lies beyond all windows would show through where it is resampled together with others.
    bounded = np.clip(np.where(missing, lowest, values), lowest, highest).astype(np.float32)
    square = resample_rectangle(bounded, plan.rectangle, (plan.size, plan.size), fill=lowest)
    return np.stack([_windowed(square, window) for window in plan.windows])


def _windowed(values: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Bring a window to 0..1; one without any width holds no contrast, and becomes 0."""
    low, high = window
    if not high > low:
        return np.zeros(values.shape, dtype=np.float32)
    grey = (values - low).astype(np.float32, copy=False)
    grey /= high - low
    return np.clip(grey, 0, 1, out=grey)
