"""The outline of what a mask marks, for people to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Step = tuple[int, int]
"""To the next row and column."""

_Edge = tuple[int, int, int, int]
"""Row and column of a pixel inside, and the step that leads out of it over this edge."""

_STEPS: tuple[_Step, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))


def outlines_of(mask: NDArray[np.bool_]) -> list[list[tuple[float, float]]]:
    """Trace the borders of what a mask marks.

    A border runs through the middles of the edges that part pixels inside from those outside, so it cuts corners off.

    Parameters
    ----------
    mask
        ``(rows, columns)``.

    Returns
    -------
    Closed polygons, the last corner joined to the first, as ``(x, y)`` in pixel-edge coordinates: one round each part,
    clockwise on the screen, and one round each hole, the other way. Parts that touch at a corner alone are traced
    apart.
    """
    inside = np.pad(mask, 1)
    following = {
        (row, column, *step): _next(inside, row, column, step)
        for step in _STEPS
        for row, column in np.argwhere(inside & ~_seen_from(inside, step)).tolist()
    }
    borders = []
    while following:
        edge = next(iter(following))
        border = []
        while edge in following:
            row, column, down, right = edge
            # The padding moves everything by a pixel, whose middle lies at one half.
            border.append((column - 0.5 + right / 2, row - 0.5 + down / 2))
            edge = following.pop(edge)
        borders.append(border)
    return borders


def _seen_from(inside: NDArray[np.bool_], step: _Step) -> NDArray[np.bool_]:
    """Tell of each pixel whether the one a step away is inside; the padding is wide enough for it."""
    return np.roll(inside, (-step[0], -step[1]), axis=(0, 1))


def _next(inside: NDArray[np.bool_], row: int, column: int, step: _Step) -> _Edge:
    """Follow the border from an edge, the inside to the right."""
    down, right = step
    ahead = row + right, column - down
    beyond = ahead[0] + down, ahead[1] + right
    if not inside[ahead]:
        return row, column, right, -down
    if not inside[beyond]:
        return *ahead, down, right
    return *beyond, -right, down
