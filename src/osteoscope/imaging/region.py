"""From a map that says where a lesion may be to the squares that are worth a second look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.prepare import SMALLEST_SQUARE, Square

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_LIKELIHOOD = 0.05
"""A map that nowhere exceeds this shows no lesion."""

SHARE_OF_LARGEST = 0.5
"""A further region is kept if it holds at least this share of the likelihood of the one that holds most."""

MOST_REGIONS = 2

_FINER = 9
"""Cells are divided so many times on each axis before a region is cut, so that its edge lies between them; odd, so
that the cells' centres stay, and with them the map's peaks."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where a lesion was found, or annotated, in an image."""

    square: Square
    """What to look at, with a margin; in the image's pixel-edge coordinates."""
    likelihood: float | None
    """The map's highest value in the region, 0..1; None where a person has marked it."""


def find_regions(
    likelihood: NDArray[np.float32], square: Square, shape: tuple[int, int], *, margin: float
) -> tuple[Region, ...]:
    """Find the regions in which a lesion is likely.

    The map is enlarged bilinearly, what lies beside the image is left out, and of the rest the likeliest places are
    taken: as many as the likelihoods of all of them sum to, and those that are as likely as the last one. Connected
    places (by their sides) make a region.

    The sum of a calibrated map is the area that a lesion is expected to cover, and of all sets of that area this one is
    expected to differ least from the lesion (Vorob'ev's expectation of a random set). Nothing is tuned, so it is the
    map that must be right: one that is too high makes regions too large, one that is too low makes them too small, and
    a little too much on every place of a large image can outweigh a small lesion.

    Parameters
    ----------
    likelihood
        (h, w), 0..1, of the places of `square`.
    square
        The part of the image that the map covers; it may reach beyond the image.
    shape
        (rows, columns) of the image.
    margin
        How much of a region's longer side is added on every side of it.

    Returns
    -------
    tuple
        The region that holds most likelihood first, at most `MOST_REGIONS`; empty where no lesion is likely, or the
        map holds NaN. Each square is centred on its region, shows some of the image, and is no longer than `square`.

    References
    ----------
    Molchanov I. Theory of random sets. Springer 2005, chapter 2 (Vorob'ev's expectation). Chevalier C, Ginsbourger D,
    Bect J, Molchanov I. Estimating and quantifying uncertainties on level sets using the Vorob'ev expectation and
    deviation with Gaussian process models. mODa 10. Springer 2013:35-43 (the threshold from the sum).
    """
    fine = _enlarged(likelihood) * _inside(square, shape, likelihood.shape)
    # NaN anywhere makes the peak NaN, which exceeds nothing.
    if not fine.max() > LEAST_LIKELIHOOD:
        return ()
    names = _named_parts(fine >= _cut(fine))
    masses = np.bincount(names.ravel(), weights=fine.ravel())[1:]  # 0 names what is in no part
    first = np.argsort(-masses, kind="stable")[:MOST_REGIONS]
    parts = [names == place + 1 for place in first if masses[place] >= SHARE_OF_LARGEST * masses[first[0]]]
    return tuple(Region(square=_round(part, square, margin), likelihood=float(fine[part].max())) for part in parts)


def highest_likelihoods(
    likelihood: NDArray[np.float32], square: Square, shape: tuple[int, int], parts: Sequence[Square]
) -> tuple[float, ...]:
    """Give the highest likelihood of lesion that a map shows in each of some parts of an image.

    The map is enlarged as `find_regions` does; a part that holds none of its places in the image has 0.

    Parameters
    ----------
    likelihood, square, shape
        As of `find_regions`.
    parts
        Of the image.
    """
    fine = _enlarged(likelihood) * _inside(square, shape, likelihood.shape)
    rows, columns = _centres(square, likelihood.shape)
    return tuple(
        float(
            fine[(rows >= part.top) & (rows < part.top + part.side), :][
                :, (columns >= part.left) & (columns < part.left + part.side)
            ].max(initial=0)
        )
        for part in parts
    )


def _cut(fine: NDArray[np.float32]) -> np.float32:
    """Give the least likelihood in a region: of as many places as all likelihoods sum to, that of the last one."""
    places = max(1, round(float(fine.sum(dtype=np.float64))))
    least: np.float32 = np.partition(fine, -places, axis=None)[-places]
    return least


def _enlarged(likelihood: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide every cell, bilinearly between the centres and constant beyond the outermost."""
    by_row, by_column = (
        np.array([np.interp(_places(cells) - 0.5, np.arange(cells), unit) for unit in np.eye(cells)]).T
        for cells in likelihood.shape
    )
    # Worked out in double precision and given in single, so that places that ought to be equal are, and none is lifted
    # over the map.
    fine: NDArray[np.float32] = (by_row @ likelihood @ by_column.T).astype(np.float32)
    return fine


def _inside(square: Square, shape: tuple[int, int], cells: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the places of an enlarged map whose centres lie in the image."""
    rows, columns = _centres(square, cells)
    inside: NDArray[np.bool_] = np.logical_and.outer(
        (rows > 0) & (rows < shape[0]), (columns > 0) & (columns < shape[1])
    )
    return inside


def _centres(square: Square, cells: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the rows and the columns, in the image, of the centres of an enlarged map's places."""
    rows, columns = (
        start + _places(count) * square.side / count
        for start, count in zip((square.top, square.left), cells, strict=True)
    )
    return rows, columns


def _places(cells: int) -> NDArray[np.float64]:
    """Centres of what each of some cells is divided into, in cells from the first one's edge."""
    return (np.arange(cells * _FINER) + 0.5) / _FINER


def _named_parts(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Name by numbers the parts of a mask that hang together by the sides of their places, from 1; 0 is in none.

    Runs are joined rather than single places, so that a map of many small or winding parts stays cheap.
    """
    rows, columns = mask.shape
    # Rows are laid end to end with a gap between them, so that a run keeps to its row.
    line = np.pad(mask, ((0, 0), (0, 1))).ravel()
    steps = np.flatnonzero(np.diff(line, prepend=False))
    starts, ends = steps[::2], steps[1::2]
    # A run touches those of the row above that end behind its start and start before its end.
    first = np.searchsorted(ends, starts - (columns + 1), side="right")
    touched = np.searchsorted(starts, ends - (columns + 1), side="left") - first
    lower = np.repeat(np.arange(len(starts)), touched)
    upper = np.arange(len(lower)) + np.repeat(first - (np.cumsum(touched) - touched), touched)
    lowest = np.arange(len(starts))  # number of the first run that each is known to hang together with
    while (apart := lowest[lower] != lowest[upper]).any():
        one, other = lowest[lower[apart]], lowest[upper[apart]]
        np.minimum.at(lowest, np.maximum(one, other), np.minimum(one, other))
        while (lowest != (further := lowest[lowest])).any():
            lowest = further
    numbers = np.unique(lowest, return_inverse=True)[1] + 1
    names = np.zeros(len(line), dtype=np.intp)
    names[starts], names[ends] = numbers, -numbers
    return names.cumsum().reshape(rows, columns + 1)[:, :-1]


def _round(part: NDArray[np.bool_], square: Square, margin: float) -> Square:
    """Lay a square round a part of the enlarged map, in coordinates of the image."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    tall, wide = square.side / part.shape[0], square.side / part.shape[1]
    top, bottom = float(square.top + rows[0] * tall), float(square.top + (rows[-1] + 1) * tall)
    left, right = float(square.left + columns[0] * wide), float(square.left + (columns[-1] + 1) * wide)
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    side = min(max(side, SMALLEST_SQUARE), square.side)
    return Square(left=(left + right - side) / 2, top=(top + bottom - side) / 2, side=side)
