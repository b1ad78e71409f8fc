"""Aligns squashed pictures by an affine transform, many pairs at once, and correlates what overlaps.

A transform is a matrix ``(2, 3)`` that carries a place of the fixed picture to one of the moving picture. Places are
``(x, y, 1)`` in shares of the picture: ``(0, 0)`` is its outer first corner and ``(1, 1)`` its last, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_OVERLAP = 0.6
"""Share of the fixed picture that the moving one must cover; a correlation over less says little."""

_LARGEST_STEP = 0.15
"""An iteration moves no coefficient by more."""

_DAMPING = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """How n pairs lie best on each other.

    Parameters
    ----------
    transforms
        ``(n, 2, 3)``.
    correlations
        ``(n,)`` over the overlap, -1 to 1; -1 where the overlap was never large enough.
    """

    transforms: NDArray[np.float64]
    correlations: NDArray[np.float64]


def align(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], start: NDArray[np.float64], *, iterations: int
) -> Aligned:
    """Improve transforms by Gauss-Newton steps on the normalised correlation, inverse compositional.

    Parameters
    ----------
    fixed
        float32 ``(n, size, size)``.
    moving
        float32 ``(n, other size, other size)``.
    start
        Transforms ``(n, 2, 3)`` to start from; the basin is about a quarter of the pictures' finest wavelength.
    iterations
        Number of steps; none measures the correlation at the start.

    Returns
    -------
    Of each pair the best transform seen.

    References
    ----------
    Baker S, Matthews I. Lucas-Kanade 20 years on: a unifying framework. Int J Comput Vis 2004;56:221-255.
    """
    count, size, _ = fixed.shape
    flat = fixed.reshape(count, size * size)
    steepest = _steepest(fixed)
    hessian = (steepest @ steepest.transpose(0, 2, 1)).astype(np.float64)
    scale = np.trace(hessian, axis1=1, axis2=2) / 6
    inverse = np.linalg.inv(hessian + np.eye(6) * (_DAMPING * scale + 1e-6)[:, np.newaxis, np.newaxis])
    transforms, best = start.astype(np.float64), start.astype(np.float64)
    correlations = np.full(count, -1.0)
    for left in range(iterations, -1, -1):
        values, inside = resampled(moving, transforms, size)
        overlap = correlate(flat, values, inside)
        better = (overlap.correlations > correlations) & (overlap.shares >= LEAST_OVERLAP)
        best[better], correlations[better] = transforms[better], overlap.correlations[better]
        if left:
            slope = np.einsum("nkp,np->nk", steepest, overlap.residuals())
            step = np.einsum("nij,nj->ni", inverse, slope).reshape(count, 2, 3)
            transforms = compose(transforms, invert(_IDENTITY + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)))
    return Aligned(transforms=best, correlations=correlations)


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """What n pairs have in common, each ``(n, pixels)``, centred, and 0 where they do not overlap."""

    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]
    norms: tuple[NDArray[np.float32], NDArray[np.float32]]
    correlations: NDArray[np.float32]
    shares: NDArray[np.float32]

    def residuals(self) -> NDArray[np.float32]:
        """Difference of the moving picture, at the contrast that fits best, and the fixed one."""
        fixed, moving = self.norms
        # Where little fits yet, the best contrast would be near none, and the step with it.
        contrast = np.clip(self.correlations, 0.2, 1) * fixed / np.maximum(moving, _TINY)
        residuals: NDArray[np.float32] = (self.moving * contrast[:, np.newaxis] - self.fixed).astype(np.float32)
        return residuals


def correlate(fixed: NDArray[np.float32], moving: NDArray[np.float32], inside: NDArray[np.bool_]) -> Overlap:
    """Correlate n pairs, each ``(n, pixels)``, where `inside`; a constant picture correlates with nothing (0)."""
    weights = inside.astype(np.float32)
    counted = np.maximum(weights.sum(axis=1), 1)
    centred = []
    for values in (fixed, moving):
        mean = np.einsum("np,np->n", values, weights) / counted
        centred.append((values - mean[:, np.newaxis]) * weights)
    first, second = centred
    norms = (_norm(first), _norm(second))
    correlations = np.einsum("np,np->n", first, second) / np.maximum(norms[0] * norms[1], _TINY)
    return Overlap(fixed=first, moving=second, norms=norms, correlations=correlations, shares=weights.mean(axis=1))


def resampled(
    moving: NDArray[np.float32], transforms: NDArray[np.float64], size: int, *, margin: float = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Carry moving pictures onto the grid of a fixed one of some size, bilinearly.

    Parameters
    ----------
    moving
        float32 ``(n, rows, columns)``.
    transforms
        ``(n, 2, 3)``, from the fixed picture to the moving one.
    size
        Rows and columns of the grid.
    margin
        Share of the moving picture along its sides that counts as outside.

    Returns
    -------
    Values and whether they lie inside of the moving picture, each ``(n, size * size)``; outside, its edge goes on.
    """
    count, rows, columns = moving.shape
    places = transforms.astype(np.float32) @ _places(size)
    x, y = places[:, 0], places[:, 1]
    inside = np.maximum(np.abs(x - np.float32(0.5)), np.abs(y - np.float32(0.5))) <= 0.5 - margin
    x = np.clip(x * np.float32(columns) - np.float32(0.5), 0, np.float32(columns - 1.001))
    y = np.clip(y * np.float32(rows) - np.float32(0.5), 0, np.float32(rows - 1.001))
    column, row = np.floor(x), np.floor(y)
    x, y = x - column, y - row
    flat = moving.reshape(-1)
    picture = (np.arange(count) * (rows * columns))[:, np.newaxis]
    first = picture + row.astype(np.intp) * columns + column.astype(np.intp)
    upper = flat[first] * (1 - x) + flat[first + 1] * x
    lower = flat[first + columns] * (1 - x) + flat[first + columns + 1] * x
    return upper * (1 - y) + lower * y, inside


def compose(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chain transforms ``(…, 2, 3)``: first the inner, then the outer."""
    return np.concatenate([outer[..., :2] @ inner[..., :2], outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], axis=-1)


def invert(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert transforms ``(…, 2, 3)``."""
    linear = np.linalg.inv(transforms[..., :2])
    return np.concatenate([linear, -linear @ transforms[..., 2:]], axis=-1)


_TINY = np.float32(1e-9)
_IDENTITY = np.eye(3)[:2]


def _places(size: int) -> NDArray[np.float32]:
    """Centres of the pixels as ``(x, y, 1)``, shape (3, size * size)."""
    place = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(place, place, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(size * size, dtype=np.float32)])


def _steepest(fixed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change of the fixed pictures with each of the six coefficients, shape (n, 6, pixels)."""
    count, size, _ = fixed.shape
    down, right = np.gradient(fixed, 1 / size, axis=(1, 2))
    places = _places(size)
    slopes = [slope.reshape(count, 1, size * size) * places for slope in (right, down)]
    return np.concatenate(slopes, axis=1, dtype=np.float32)


def _norm(values: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.sqrt(np.einsum("np,np->n", values, values))
    return norms
