"""Resamples rectangles of a plane, and carries maps of such rectangles back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_ROUNDING = 1e-3
"""Of a pixel, so that the rounding of an affine to float32, as in a NIfTI, does not decide what lies outside."""


_AT_ONCE = 512
"""Pixels along an axis that are made at a time; of no more of them, all pixels of the plane are looked at."""

_COVERED = 0.5
"""Share of a pixel from which on it is marked."""


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A part of a plane, which may reach beyond it, in pixel-edge coordinates as in `osteoscope.imaging.prepare`."""

    left: float
    top: float
    width: float
    height: float


def resample_rectangle(
    plane: NDArray[np.float32], rectangle: Rectangle, shape: tuple[int, int], *, fill: float
) -> NDArray[np.float32]:
    """Resample a rectangle of a plane, without aliasing.

    The filter is a triangle as wide as the larger of the two pixels, as in `osteoscope.imaging.prepare.resample`.

    Parameters
    ----------
    plane
        float32 ``(rows, columns)``, finite.
    rectangle
        What to read.
    shape
        ``(rows, columns)`` of the result.
    fill
        Of pixels whose centre lies outside of the plane.
    """
    by_row = _triangles(plane.shape[0], shape[0], rectangle.top, rectangle.height)
    by_column = _triangles(plane.shape[1], shape[1], rectangle.left, rectangle.width)
    rows = np.concatenate([band.shares @ plane[band.pixels] for band in by_row])
    made = np.empty(shape, dtype=np.float32)
    for band in by_column:
        made[:, band.made] = rows[:, band.pixels] @ band.shares.T
    inside = (np.concatenate([band.shares.any(axis=1) for band in bands]) for bands in (by_row, by_column))
    return np.asarray(np.where(np.logical_and.outer(*inside), made, fill), dtype=np.float32)


def resample_mask(marked: NDArray[np.bool_], rectangle: Rectangle, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Resample a rectangle of a plane of a mask, ``(rows, columns)``: True where at least half of a pixel is marked."""
    covered: NDArray[np.bool_] = resample_rectangle(marked.astype(np.float32), rectangle, shape, fill=0) >= _COVERED
    return covered


def spread(values: NDArray[np.float32], rectangle: Rectangle, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Carry a map of a rectangle to the pixels of the plane.

    Parameters
    ----------
    values
        ``(h, w)``, of cells that divide the rectangle evenly.
    rectangle
        Which part of the plane they are of.
    shape
        ``(rows, columns)`` of the plane.

    Returns
    -------
    float32 ``(rows, columns)``: linear between the centres of cells, constant beyond the outermost, 0 outside of the
    rectangle.
    """
    by_row = _lines(values.shape[0], shape[0], rectangle.top, rectangle.height)
    by_column = _lines(values.shape[1], shape[1], rectangle.left, rectangle.width)
    return np.asarray(by_row @ values @ by_column.T, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Band:
    """What some of the pixels along an axis are made of.

    Parameters
    ----------
    made
        Which of those that are made.
    pixels
        Which of the plane's may have a share in them.
    shares
        ``(made, pixels)``; none in one whose centre lies outside.
    """

    made: slice
    pixels: slice
    shares: NDArray[np.float32]


def _triangles(pixels: int, made: int, start: float, length: float) -> list[_Band]:
    """Share of each pixel in each one that is made, in bands: of all pixels in all it would grow with their square."""
    scale = length / made
    reach = max(scale, 1.0)
    bands = []
    for first in range(0, made, _AT_ONCE):
        last = min(first + _AT_ONCE, made)
        centres = start + (np.arange(first, last) + 0.5) * scale
        near = slice(0, pixels)
        if made > _AT_ONCE:
            low, high = np.clip((centres[0] - reach - 1, centres[-1] + reach + 1), 0, pixels)
            near = slice(int(low), int(np.ceil(high)))
        distances = np.abs(np.arange(near.start, near.stop) + 0.5 - centres[:, np.newaxis])
        shares = np.maximum(1 - distances / reach, 0)
        shares[(centres < -_ROUNDING) | (centres > pixels + _ROUNDING)] = 0
        total = shares.sum(axis=1, keepdims=True)
        own = np.asarray(shares / np.where(total > 0, total, 1), dtype=np.float32)
        bands.append(_Band(made=slice(first, last), pixels=near, shares=own))
    return bands


def _lines(cells: int, pixels: int, start: float, length: float) -> NDArray[np.float32]:
    """Share of each cell in each pixel: (pixels, cells); none in one whose centre lies outside of the cells."""
    places = (np.arange(pixels) + 0.5 - start) * cells / length
    shares = np.array([np.interp(places - 0.5, np.arange(cells), unit) for unit in np.eye(cells)]).T
    shares[(places < -_ROUNDING) | (places > cells + _ROUNDING)] = 0
    return np.asarray(shares, dtype=np.float32)
