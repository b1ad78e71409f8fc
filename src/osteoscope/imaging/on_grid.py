"""Where the voxels of an array are those of a volume, whatever the order and direction of its axes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Geometry

OFF_GRID = 0.1
"""Voxels by which a mask's may lie beside the volume's: positions and spacings are written in rounded decimals."""

OF_THIS_VOLUME = "name the mask that was drawn in this volume"


@dataclass(frozen=True, kw_only=True)
class Laid:
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


def laid(affine: NDArray[np.float64], shape: Sequence[int], geometry: Geometry, path: Path) -> Laid:
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
        raise InputError(reason, path=path, remedy=OF_THIS_VOLUME)
    if whole.min() < 0 or (whole.max(axis=1) >= geometry.shape[::-1]).any():
        reason = "expected a mask within the volume, found one that reaches beyond it"
        raise InputError(reason, path=path, remedy=OF_THIS_VOLUME)
    axes = np.abs(turn).argmax(axis=0)
    return Laid(
        shape=tuple(sizes.tolist()),
        axes=tuple(axes.tolist()),
        signs=tuple(turn[axes, range(3)].astype(int).tolist()),
        start=tuple(near[:3, 3].astype(int).tolist()),
    )
