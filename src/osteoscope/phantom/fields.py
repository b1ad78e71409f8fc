"""Smooth shapes as distances in mm (negative inside), and smooth random fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.random import Generator

Field = NDArray[np.floating[Any]]
"""float32 values ``(planes, rows, columns)``, or what broadcasts to it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """Places at which fields are seen: coordinates in mm along the three axes of the patient.

    Parameters
    ----------
    z, y, x
        Coordinates of the planes (towards the head), rows (towards the back) and columns (towards the left).
    """

    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(planes, rows, columns)``."""
        return len(self.z), len(self.y), len(self.x)

    def open(self) -> tuple[Field, Field, Field]:
        """Coordinates z, y, x that broadcast to the shape."""
        z, y, x = (axis.astype(np.float32) for axis in (self.z, self.y, self.x))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def cut(self, planes: slice, rows: slice, columns: slice) -> Lattice:
        """Cut a box out."""
        return Lattice(z=self.z[planes], y=self.y[rows], x=self.x[columns])

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice, slice]:
        """Slices that hold all places between two corners, given as (z, y, x) in mm."""
        cuts = []
        for axis, start, end in zip((self.z, self.y, self.x), low, high, strict=True):
            first, last = np.searchsorted(axis, start), np.searchsorted(axis, end, side="right")
            cuts.append(slice(int(first), int(last)))
        return cuts[0], cuts[1], cuts[2]


def smooth_minimum(a: Field, b: Field, radius: float) -> Field:
    """Union of two shapes whose seam is rounded over `radius` mm (quadratic blend)."""
    overlap = np.maximum(np.float32(radius) - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap * np.float32(0.25 / radius)


def smooth_maximum(a: Field, b: Field, radius: float) -> Field:
    """Intersection of two shapes whose seam is rounded over `radius` mm."""
    return -smooth_minimum(-a, -b, radius)


def ellipsoid(
    place: tuple[Field, Field, Field], centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Field:
    """Distance to an ellipsoid along the ray from its centre; all triples are (z, y, x)."""
    offsets = [axis - np.float32(middle) for axis, middle in zip(place, centre, strict=True)]
    ray = np.sqrt(sum(offset * offset for offset in offsets) + np.float32(1e-6))
    size = np.sqrt(
        sum((offset * np.float32(1 / radius)) ** 2 for offset, radius in zip(offsets, radii, strict=True))
        + np.float32(1e-9)
    )
    distance: Field = ray * (1 - 1 / size)
    return distance


def capsule(
    place: tuple[Field, Field, Field],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radii: tuple[float, float],
    flat: tuple[float, float, float] = (1, 1, 1),
) -> Field:
    """Distance to a rod with round ends whose radius goes from the first to the second; triples are (z, y, x).

    An axis whose `flat` is above 1 is thinner by that factor.
    """
    scaled = [axis * np.float32(factor) for axis, factor in zip(place, flat, strict=True)]
    first = [value * factor for value, factor in zip(start, flat, strict=True)]
    way = [value * factor - origin for value, factor, origin in zip(end, flat, first, strict=True)]
    length = sum(step * step for step in way)
    offsets = [axis - np.float32(origin) for axis, origin in zip(scaled, first, strict=True)]
    along = np.clip(sum(offset * np.float32(step / length) for offset, step in zip(offsets, way, strict=True)), 0, 1)
    distance: Field = np.sqrt(
        sum((offset - along * np.float32(step)) ** 2 for offset, step in zip(offsets, way, strict=True))
    ) - (np.float32(radii[0]) + along * np.float32(radii[1] - radii[0]))
    return distance / np.float32(max(flat))


def coverage(distance: Field, width: float) -> Field:
    """Share of a voxel of `width` mm that a shape fills, from the distance of the voxel's centre to its surface."""
    share: Field = np.clip(np.float32(0.5) - distance * np.float32(1 / width), 0, 1)
    return share


def smooth_step(value: Field) -> Field:
    """From 0 at 0 and below to 1 at 1 and above, without a kink."""
    held = np.clip(value, 0, 1)
    step: Field = held * held * (3 - 2 * held)
    return step


def noise(rng: Generator, lattice: Lattice, scale: tuple[float, float, float]) -> Field:
    """Gaussian random field with mean 0 and variance 1, smooth over `scale` mm along (z, y, x).

    White noise on knots that lie `scale` apart, blended with cubic B-splines, one axis after the other.
    """
    weights = [_spline_weights(axis, step) for axis, step in zip((lattice.z, lattice.y, lattice.x), scale, strict=True)]
    field = rng.standard_normal([matrix.shape[1] for matrix in weights], dtype=np.float32)
    field = np.tensordot(weights[0], field, axes=(1, 0))  # planes, knots, knots
    field = np.matmul(weights[1], field)  # planes, rows, knots
    smooth: Field = np.matmul(field, weights[2].T)
    return smooth


def interpolate(field: Field, steps: tuple[int, int, int], shape: tuple[int, int, int]) -> Field:
    """Interpolate linearly a field that is known at every so many places along each axis, starting with the first."""
    for axis, (step, count) in enumerate(zip(steps, shape, strict=True)):
        if step > 1:
            weights = _linear_weights(field.shape[axis], step, count)
            field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return field


def _linear_weights(known: int, step: int, count: int) -> Field:
    at = np.minimum(np.arange(count) / step, known - 1)
    first = np.minimum(at.astype(int), max(known - 2, 0))
    weights = np.zeros((count, known), np.float32)
    weights[np.arange(count), np.minimum(first + 1, known - 1)] = at - first
    weights[np.arange(count), first] += 1 - (at - first)
    return weights


def _spline_weights(axis: NDArray[np.float64], step: float) -> Field:
    """Weights ``(places, knots)`` of the four knots around each place, of norm 1 so that the variance is 1 anywhere."""
    at = (axis - axis[0]) / step
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.zeros((len(axis), int(first[-1]) + 4), dtype=np.float64)
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for knot, part in enumerate(parts):
        weights[np.arange(len(axis)), first + knot] = part
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return weights.astype(np.float32)
