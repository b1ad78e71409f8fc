"""Evidence in closed form: what each place of each plane adds to each class's centred logit.

With the weights alpha of the planes held fixed, the map of class c on plane n is ``alpha_n * sum_k v_ck A_nk / (H W)``
(see `osteoscope.network.classifier`); summed over places and planes it is the images' part of the centred logit. The
mean over members explains the members' mean logit, as exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.prepare import Square
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.inference.engine import Judgement, PlaneReadings


def closed_form_evidence(readings: Sequence[PlaneReadings], judgements: Sequence[Judgement]) -> NDArray[np.float32]:
    """Join the members' maps into evidence.

    Parameters
    ----------
    readings, judgements
        One of each for each member, of the same planes.

    Returns
    -------
    ndarray
        (looks, classes, h, w) in units of the logit; the classes of a place sum to 0.
    """
    parts = [
        reading.maps * judgement.weights[:, None, None, None] / np.prod(reading.maps.shape[-2:])
        for reading, judgement in zip(readings, judgements, strict=True)
    ]
    mean: NDArray[np.float32] = np.mean(parts, axis=0, dtype=np.float32)
    return mean


def evidence_on_image(
    evidence: NDArray[np.float32], squares: Sequence[Square], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Lay the evidence of all looks at an image on its pixels, for display and for comparison with an outline.

    A look that reads a small part spreads what it says over few pixels, so evidence is given by area: summed over the
    pixels it is what the looks add to the logit, as far as their squares lie in the image. Where there is image beyond
    the edge of a square, evidence fades across it, so that the edges of overlapping squares do not look like something
    in the bone.

    Parameters
    ----------
    evidence
        (looks, classes, h, w).
    squares
        For each look, the part of the image that its grid covers.
    shape
        (rows, columns) of the image.

    Returns
    -------
    ndarray
        (classes, rows, columns), in units of the logit for each pixel.
    """
    cells = evidence.shape[-2] * evidence.shape[-1]
    joined = np.zeros((evidence.shape[1], *shape), dtype=np.float32)
    # One by one: the image may be large, and its looks several.
    for said, square in zip(evidence, squares, strict=True):
        rows, columns, shown = _where_it_is_seen(said * np.float32(cells / square.side**2), square, shape, fading=True)
        joined[:, rows, columns] += shown
    return joined


def on_pixels(values: NDArray[np.float32], square: Square, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample values from the grid of one look to pixels.

    Bilinear between the centres of the grid's cells, constant beyond the outermost, and 0 outside of the square; each
    pixel takes the mean over its area, so that nothing is lost where cells are smaller than pixels.

    Parameters
    ----------
    values
        (channels, h, w).
    square
        The part of the image that the grid covers.
    shape
        (rows, columns) of the image.

    Returns
    -------
    ndarray
        (channels, rows, columns), in the units of `values`.
    """
    resampled = np.zeros((len(values), *shape), dtype=np.float32)
    rows, columns, shown = _where_it_is_seen(values, square, shape, fading=False)
    resampled[:, rows, columns] = shown
    return resampled


def _where_it_is_seen(
    values: NDArray[np.float32], square: Square, shape: tuple[int, int], *, fading: bool
) -> tuple[slice, slice, NDArray[np.float32]]:
    """Resample values as `on_pixels` does, and give the rows and columns that see any of them, and what these see.

    Where values fade, at every edge of the square that has half a cell of the image beyond it, they fall from the
    centre of the outermost cell to 0 half a cell beyond the edge, instead of at it. Their sum over the pixels is the
    same.
    """
    by_row = _interpolation(shape[0], values.shape[1], square.top, square.side, fading=fading)
    by_column = _interpolation(shape[1], values.shape[2], square.left, square.side, fading=fading)
    rows, columns = _any_share(by_row), _any_share(by_column)
    shown: NDArray[np.float32] = np.matmul(by_row[rows] @ values, by_column[columns].T, dtype=np.float32)
    return rows, columns, shown


def _any_share(shares: NDArray[np.float32]) -> slice:
    """Give the pixels, which lie behind each other, in which any cell has a share."""
    pixels = np.flatnonzero(shares.any(axis=1))
    return slice(int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else slice(0)


def _interpolation(pixels: int, cells: int, start: float, side: float, *, fading: bool) -> NDArray[np.float32]:
    """Share of each cell in each pixel on one axis: (pixels, cells)."""
    half = side / cells / 2
    fades_before, fades_after = fading and start >= half, fading and start + side + half <= pixels
    low, high = -0.5 * fades_before, cells + 0.5 * fades_after
    edges = np.clip((np.arange(pixels + 1) - start) * cells / side, low, high)  # in cells, from the square's edge
    # A cell's share rises from the centre of the one before to its own, and falls to that of the next. One more cell at
    # either end stands for what is beyond the outermost: as much, or nothing.
    passed = np.clip(edges[:, None] - (np.arange(-1, cells + 1) - 0.5), 0, 2)
    share = np.diff(np.where(passed < 1, passed**2 / 2, 1 - (2 - passed) ** 2 / 2), axis=0) * (side / cells)
    if not fades_before:
        share[:, 1] += share[:, 0]
    if not fades_after:
        share[:, -2] += share[:, -1]
    weights: NDArray[np.float32] = share[:, 1:-1].astype(np.float32)
    return weights


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientMaps:
    """Evidence on a grid of its own in the patient.

    Parameters
    ----------
    values
        ``(classes, planes, h, w)`` in units of the logit: over all places a class's sum is what the image adds to it.
    affine
        4x4 from an index ``(column, row, plane, 1)`` to LPS mm.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64]


def evidence_in_patient(evidence: NDArray[np.float32], plan: SlicePlan) -> PatientMaps:
    """Lay the evidence of the planes that were cut from a CT or MR into the patient.

    In a plane the grid is that of the evidence. From plane to plane it is that of the volume, for the planes that were
    cut need not follow each other in equal steps: evidence is shared out between two of them linearly.

    Parameters
    ----------
    evidence
        ``(planes, classes, h, w)``, one of each plane of the plan.
    plan
        By which the planes were cut.
    """
    places = np.arange(plan.planes[0], plan.planes[-1] + 1)
    shares = np.stack([np.interp(places, plan.planes, unit) for unit in np.eye(len(plan.planes))])
    shares /= shares.sum(axis=1, keepdims=True)
    across, down = (plan.size / cells for cells in evidence.shape[:1:-1])
    to_plane = np.diag([across, down, 1.0, 1.0])
    # Centres of cells have whole indices, and lie one half behind their edges.
    to_plane[:2, 3] = (across - 1) / 2, (down - 1) / 2
    values = np.einsum("np,nchw->cphw", shares, evidence).astype(np.float32)
    return PatientMaps(values=values, affine=plan.affines[0] @ to_plane)
