"""Some of many places along an axis, such as planes of a volume, as evenly spread as whole places can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def with_ends(first: int, last: int, count: int) -> list[int]:
    """Choose places from the first to the last, both among them; where one is wanted, the middle.

    Parameters
    ----------
    first, last
        The outermost places.
    count
        How many are wanted, one or more; there are no more than lie between the ends.
    """
    if count == 1:
        return [(first + last) // 2]
    places: list[int] = np.unique(np.linspace(first, last, count).round().astype(int)).tolist()
    return places


def middles(size: int, count: int) -> NDArray[np.intp]:
    """Divide so many places into equal parts, and choose the one in the middle of each.

    Parameters
    ----------
    size
        Places there are.
    count
        Parts, no more than there are places.

    Returns
    -------
    ``(count,)`` places, counted from 0.
    """
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)
