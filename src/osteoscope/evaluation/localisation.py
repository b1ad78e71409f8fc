"""Whether evidence lies where the lesion is: overlap, pointing game and energy, beside maps that know nothing.

A map and a mask have one shape (rows, columns). Only a map's positive part counts: it speaks for the class. A map
without any is blank: it points nowhere, overlaps nothing, and is reported as blank. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray

THRESHOLD_GRID = tuple(step / 20 for step in range(2, 19))
"""Shares of a map's maximum that `choose_threshold` tries: 0.1 to 0.9 by 0.05."""

_CENTRE_SPREAD = 0.25
_NOISE_CELLS = 8


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """How well one map finds one lesion; every share is 0 to 1, 1 best."""

    iou: float
    """Intersection over union of the lesion and the region above the threshold."""
    dice: float
    pointing: float
    """Share of the strongest points that lie in the lesion: 1 or 0 unless they are several."""
    energy: float
    """Share of the positive evidence that lies in the lesion."""
    blank: bool
    """The map holds no positive evidence; the figures are then 0."""


def localise(evidence: npt.ArrayLike, mask: npt.ArrayLike, *, threshold: float) -> Localisation:
    """Measure a map against a lesion.

    Parameters
    ----------
    evidence
        Signed evidence for the class, shape (rows, columns).
    mask
        True in the lesion, same shape; must hold a lesion.
    threshold
        Share of the map's maximum from which on a point belongs to the region, in (0, 1].

    Raises
    ------
    ValueError
        If the shapes differ, the map holds a value that is not finite, the mask is empty, or the threshold is outside
        (0, 1].
    """
    return Localisation(
        iou=iou(evidence, mask, threshold),
        dice=dice(evidence, mask, threshold),
        pointing=pointing_game(evidence, mask),
        energy=energy_in_lesion(evidence, mask),
        blank=is_blank(evidence),
    )


def is_blank(evidence: npt.ArrayLike) -> bool:
    """Whether a map holds no positive evidence at all."""
    return not bool((np.asarray(evidence) > 0).any())


def iou(evidence: npt.ArrayLike, mask: npt.ArrayLike, threshold: float) -> float:
    """Intersection over union of the lesion and the region above the threshold; arguments as in `localise`."""
    positive, lesion = _checked(evidence, mask)
    region = _region(positive, threshold)
    return float((region & lesion).sum() / (region | lesion).sum())


def dice(evidence: npt.ArrayLike, mask: npt.ArrayLike, threshold: float) -> float:
    """Twice the intersection over the sum of the two areas; arguments as in `localise`."""
    positive, lesion = _checked(evidence, mask)
    region = _region(positive, threshold)
    return float(2 * (region & lesion).sum() / (region.sum() + lesion.sum()))


def pointing_game(evidence: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """Share of the map's maxima that lie in the lesion; arguments as in `localise`.

    References
    ----------
    Zhang J, Bargal SA, Lin Z, et al. Top-down neural attention by excitation backprop. Int J Comput Vis 2018;126:
    1084-1102 (there with a tolerance of 15 pixels, here with none).
    """
    positive, lesion = _checked(evidence, mask)
    if is_blank(positive):
        return 0.0
    return float(lesion[positive == positive.max()].mean())


def energy_in_lesion(evidence: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """Share of the positive evidence that lies in the lesion; arguments as in `localise`.

    References
    ----------
    Wang H, Wang Z, Du M, et al. Score-CAM: score-weighted visual explanations for convolutional neural networks. CVPR
    Workshops 2020 ("energy-based pointing game").
    """
    positive, lesion = _checked(evidence, mask)
    if is_blank(positive):
        return 0.0
    # Scaled first, so that neither very small nor very large evidence is lost in the sum.
    scaled = positive / positive.max()
    return float(scaled[lesion].sum() / scaled.sum())


def _checked(evidence: npt.ArrayLike, mask: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Give the map's positive part and the mask."""
    values, lesion = np.asarray(evidence, dtype=np.float64), np.asarray(mask, dtype=np.bool_)
    if values.ndim != 2 or values.shape != lesion.shape:
        msg = f"map and mask must have one shape (rows, columns), got {values.shape} and {lesion.shape}"
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = f"a map must be finite, got {np.count_nonzero(~np.isfinite(values))} values that are not"
        raise ValueError(msg)
    if not lesion.any():
        msg = "the mask must hold a lesion, got an empty one"
        raise ValueError(msg)
    return np.maximum(values, 0), lesion


def _region(positive: FloatArray, threshold: float) -> BoolArray:
    if not 0 < threshold <= 1:
        msg = f"the threshold must be a share of the maximum in (0, 1], got {threshold}"
        raise ValueError(msg)
    region: BoolArray = (positive > 0) & (positive >= threshold * positive.max())
    return region


def choose_threshold(
    maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], grid: Sequence[float] = THRESHOLD_GRID
) -> float:
    """Find the threshold with the best mean IoU; of several equally good ones, the lowest.

    Parameters
    ----------
    maps, masks
        Of validation cases, never of those that are then judged; one mask for each map, shapes may differ between
        cases.
    grid
        Thresholds to try, each in (0, 1].

    Raises
    ------
    ValueError
        If there are no cases, no thresholds, or not one mask for each map.
    """
    if not maps or len(maps) != len(masks) or not grid:
        msg = f"one mask for each map and a grid are needed, got {len(maps)}, {len(masks)} and {len(grid)} thresholds"
        raise ValueError(msg)
    ascending = sorted(grid)
    overlaps = [[iou(evidence, mask, step) for step in ascending] for evidence, mask in zip(maps, masks, strict=True)]
    return float(ascending[int(np.mean(overlaps, axis=0).argmax())])


def places_by_others(overlaps: npt.ArrayLike, patients: Sequence[str]) -> list[int] | None:
    """Find for each patient the threshold that is best for all others; of several equally good ones, the first.

    Parameters
    ----------
    overlaps
        IoU of each map with its mask at each threshold, shape (maps, thresholds).
    patients
        Whose each map is.

    Returns
    -------
    The place of the threshold for each map; None where there is one patient alone, and so nobody to choose by.
    """
    values = np.asarray(overlaps, dtype=np.float64)
    names, own = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, own, values)
    # Rounded, so that what is equal up to the order of summing is equal.
    best = (sums.sum(axis=0) - sums).round(9).argmax(axis=1)
    return [int(place) for place in best[own]]


# Maps that know nothing of the network --------------------------------------------------------------------------------


def gaussian_map(shape: tuple[int, int]) -> FloatArray:
    """Bell round the middle of the picture, with a standard deviation of a quarter of each side; its peak is 1."""
    rows, columns = (_bell(length) for length in shape)
    bell: FloatArray = np.outer(rows / rows.max(), columns / columns.max())
    return bell


def _bell(length: int) -> FloatArray:
    offset = np.arange(length) - (length - 1) / 2
    bell: FloatArray = np.exp(-0.5 * (offset / (_CENTRE_SPREAD * length)) ** 2)
    return bell


def random_map(shape: tuple[int, int], *, seed: int) -> FloatArray:
    """Smooth noise in [0, 1): uniform on 8 x 8 points, bilinear between them, as coarse as a network's own maps."""
    coarse = np.random.default_rng(seed).random((_NOISE_CELLS, _NOISE_CELLS))
    rows, columns = (_bilinear(length) for length in shape)
    smooth: FloatArray = rows @ coarse @ columns.T
    return smooth


def _bilinear(length: int) -> FloatArray:
    """Weights that carry `_NOISE_CELLS` points, the outermost on the border, to `length` pixels: (length, points)."""
    position = np.linspace(0, _NOISE_CELLS - 1, length)
    weights: FloatArray = np.maximum(0.0, 1 - np.abs(position[:, None] - np.arange(_NOISE_CELLS)))
    return weights


def edge_map(image: npt.ArrayLike) -> FloatArray:
    """Magnitude of the grey-level gradient by central differences, shape as the image, (rows, columns)."""
    values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2:
        msg = f"an image must have shape (rows, columns), got {values.shape}"
        raise ValueError(msg)
    # A side of one pixel has no gradient.
    slopes = [np.gradient(values, axis=axis) for axis in (0, 1) if values.shape[axis] > 1]
    magnitude: FloatArray = np.sqrt(sum((slope**2 for slope in slopes), start=np.zeros_like(values)))
    return magnitude
