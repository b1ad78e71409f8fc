"""A first look at a volume, coarse and in little memory: where the body is, and which values are in it.

The body is the thickest thing in the volume with all that hangs together with it; holes in it, such as lungs, count
as body. Air is not, nor what is thin or lies apart: a table, a mattress, a head rest, a cable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.evenly import middles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume

    Mask = NDArray[np.bool_]

Extent = tuple[float, float]
"""Where something begins and ends along an axis, in pixel-edge coordinates: plane p covers ``p..p + 1``."""

Box = tuple[Extent, Extent, Extent]
"""Along the planes, rows and columns."""

_APART = 4.0
"""Least mm between the values that are looked at."""

_MOST = 64, 128, 128
"""Planes, rows and columns that are looked at."""

_SKIN = -350.0
"""HU from which on a value is of the body: fat lies above, foam and air below."""

_SIGNAL = 0.05
"""Share of an MR's range from which on a value is of the body rather than noise."""

_RANGE = (0.5, 99.5)
"""Percentiles of an MR that are taken as its range."""

_WORN_OFF = 2
"""Values by which the surface is worn off, so that what is thin goes."""

_PADDED, _FAR = 0.01, 4.0
"""Values are padding if at least this share are the same, and so many times the span of all others away from them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """Where the body is.

    Parameters
    ----------
    box
        Round it.
    cells
        ``(planes, rows, columns)`` of a coarser grid: whether each cell holds the body, or lies next to a cell that
        does.
    cell_of
        For each plane, row and column of the volume the cell that it lies in.
    """

    box: Box
    cells: Mask
    cell_of: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

    def in_plane(self, plane: int) -> Mask:
        """Mark the body in a plane of the volume: bool ``(rows, columns)``."""
        planes, rows, columns = self.cell_of
        mask: Mask = self.cells[planes[plane]][np.ix_(rows, columns)]
        return mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What a first look found.

    Parameters
    ----------
    body
        Where the body is; None where none was found.
    values
        Some of the values in the body, in no order, finite and without padding; of the whole volume where no body was
        found.
    padding
        Values of an MR that stand for none.
    """

    body: Body | None
    values: NDArray[np.float32]
    padding: tuple[float, ...]


def survey(volume: Volume) -> Survey:
    """Look at a volume: a few of its planes, evenly chosen, are read one by one.

    Parameters
    ----------
    volume
        A CT or MR whose place is known.

    Raises
    ------
    ValueError
        If its place is not known.
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    steps = volume.geometry.steps
    if steps is None:
        msg = "expected a volume whose place is known"
        raise ValueError(msg)
    places = [_places(*axis) for axis in zip(volume.geometry.shape, steps, _MOST, strict=True)]
    values = np.stack([volume.read([plane])[0][np.ix_(*places[1:])] for plane in places[0].tolist()])
    # In a CT the lowest window takes what is padded, and nothing else lies so far from all others as metal.
    padding = padding_of(values) if volume.modality == "MR" else ()
    usable = np.isfinite(values) & ~np.isin(values, padding)
    least = _SKIN
    if volume.modality == "MR" and usable.any():
        low, high = np.percentile(values[usable], _RANGE).tolist()
        least = low + _SIGNAL * (high - low)
    body = body_mask(usable & (values > least))
    if not body.any():
        return Survey(body=None, values=values[usable], padding=padding)
    found = _located(body, places, volume.geometry.shape)
    return Survey(body=found, values=values[usable & body], padding=padding)


def _places(size: int, step: float, most: int) -> NDArray[np.intp]:
    """Choose places along an axis."""
    # The same number if an affine was rounded to float32, as a NIfTI's is.
    count = min(size, most, max(1, int(size * step / _APART + 0.499)))
    return middles(size, count)


def _located(body: Mask, places: list[NDArray[np.intp]], shape: tuple[int, int, int]) -> Body:
    """Carry a mask of the values that were looked at to the volume; an axis is divided half-way between two of them."""
    extents: list[Extent] = []
    cell_of = []
    for axis, (chosen, size) in enumerate(zip(places, shape, strict=True)):
        edges = np.concatenate([[0], (chosen[1:] + chosen[:-1] + 1) / 2, [size]])
        filled = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
        extents.append((float(edges[filled[0]]), float(edges[filled[-1] + 1])))
        cell_of.append(np.searchsorted(edges, np.arange(size) + 0.5, side="right") - 1)
    return Body(
        box=(extents[0], extents[1], extents[2]), cells=_dilated(body), cell_of=(cell_of[0], cell_of[1], cell_of[2])
    )


def padding_of(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Find the lowest and the highest value if each stands for no value: shared by many, and far from all others.

    Parameters
    ----------
    values
        Of any shape.
    """
    finite = values[np.isfinite(values)]
    found = []
    for extreme in (finite.min(), finite.max()) if finite.size else ():
        others = finite[finite != extreme]
        if others.size and 1 - others.size / finite.size >= _PADDED:
            nearest, span = np.abs(others - extreme).min(), np.ptp(others)
            if nearest > _FAR * span > 0:
                found.append(float(extreme))
    return tuple(found)


def body_mask(mask: Mask) -> Mask:
    """Keep of what may be body the thickest part, with all that hangs together with it once what is thin is gone.

    Parameters
    ----------
    mask
        ``(planes, rows, columns)``. What lies at its border is taken to go on beyond it.
    """
    whole = _without_holes(mask)
    layers = [whole]
    while (inner := _eroded(layers[-1])).any() and not (inner == layers[-1]).all():
        layers.append(inner)
    worn = min(_WORN_OFF, len(layers) - 1)
    body = _grown(layers[-1], layers[worn])
    for _ in range(worn):
        body = _dilated(body) & whole
    return body


def _without_holes(mask: Mask) -> Mask:
    """Fill what is enclosed within a plane."""
    outside = ~mask
    border = np.zeros_like(mask)
    border[:, [0, -1], :] = border[:, :, [0, -1]] = True
    return ~_grown(border & outside, outside, axes=(1, 2))


def _grown(seed: Mask, within: Mask, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """Grow a seed until it fills all that hangs together with it."""
    grown, before = seed & within, -1
    while (now := int(grown.sum())) > before:
        grown, before = _dilated(grown, axes) & within, now
    return grown


def _dilated(mask: Mask, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """Add the neighbours along some axes."""
    wider = mask.copy()
    for axis in axes:
        to, of = np.moveaxis(wider, axis, 0), np.moveaxis(mask, axis, 0)
        to[1:] |= of[:-1]
        to[:-1] |= of[1:]
    return wider


def _eroded(mask: Mask) -> Mask:
    """Take away what has a neighbour that is not in it."""
    return ~_dilated(~mask)
