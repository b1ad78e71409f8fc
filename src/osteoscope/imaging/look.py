"""What one decoded picture looks like: a small descriptor to find near duplicates by, and what its borders are like.

The descriptor is made from the full depth of the pixels, and is band-passed: it holds where edges and structures lie,
scaled to their surroundings, and neither grey values nor anything finer than a fiftieth of the picture. Two frames are
described: the whole picture, and its content without uniform borders; both are squashed to a square, so that size and
aspect do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from osteoscope.imaging.prepare import Box

VERSION = 3
"""Of all that is computed here: a look of another version is another look."""

SIDE = 48
"""Rows and columns of a descriptor."""

STEP = 1 / 40
"""A descriptor's integers count such parts of the local standard deviation; beyond 127 of them it is cut off."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""The frame of a whole picture, as shares of its columns and rows."""

_FINE, _COARSE = 0.7, 4.0
"""The descriptor's band, see `banded`."""

_FLAT = np.float32(0.02)
"""Stretched grey that is added to the local deviation, so that nothing is made of almost nothing."""

_UNIFORM, _SAME_GREY = 0.012, 0.03
"""A border line's greys deviate by less than the first, its mean from the outermost line's by less than the second."""

_WIDEST_BORDER = 0.45
"""Share of a side that may be border on one side of the content."""

_GREY_SIDE = 128
"""Rows and columns of the squashed picture on which borders and marks are sought."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What a picture looks like, or a CT or MR as the picture that `osteoscope.imaging.scan_look` makes of it.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the picture.
    content
        ``(left, top, right, bottom)`` of what is left without uniform borders, as shares of the columns and rows.
    descriptor
        int8 ``(2, SIDE, SIDE)``: of the whole picture and of its content, in steps of `STEP`.
    features
        What can be measured apart from what is shown; of a scan what `osteoscope.imaging.scan_look.look_at_scan` says,
        of a picture:
        ``border_left``, ``border_top``, ``border_right``, ``border_bottom``: share of the side that is uniform border.
        ``black_share``, ``white_share``: pixels within 1/255 of the darkest and of the brightest one.
        ``mean``, ``deviation``: of the greys, 0..1.
        ``corner_marks``, ``edge_marks``: share of the four corners (a quarter of each side) and of the rest of the
        outer frame (0.15 of each side) that small, sharp and bright structures cover, as letters and markers do.
        ``aspect``: columns over rows.
        ``sharpness``: mean difference of neighbouring pixels over the standard deviation of all.
    words
        What its header says, by name; nothing of a picture.
    """

    shape: tuple[int, int]
    content: Box
    descriptor: NDArray[np.int8]
    features: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)


def look(plane: NDArray[np.float32]) -> Look:
    """Look at a picture once.

    Parameters
    ----------
    plane
        float32 ``(rows, columns)``, 0..1, as decoded at full depth; a constant picture has a descriptor of zeros.

    Raises
    ------
    ValueError
        If it has another number of axes, is empty, or holds a value that is not finite.
    """
    if plane.ndim != 2 or not plane.size or not np.isfinite(plane).all():
        msg = f"expected finite values of (rows, columns), got an array of shape {plane.shape}"
        raise ValueError(msg)
    rows, columns = plane.shape
    grey = stretched(squashed(plane, _GREY_SIDE))
    content = _content(grey)
    frames = np.stack([stretched(squashed(plane, SIDE, frame)) for frame in (WHOLE, content)])
    return Look(
        shape=(rows, columns),
        content=content,
        descriptor=np.clip(np.rint(banded(frames, fine=_FINE, coarse=_COARSE) / STEP), -127, 127).astype(np.int8),
        features={**_borders(content), **_greys(plane), **_marks(grey)},
    )


def squashed(plane: NDArray[np.float32], size: int, frame: Box = WHOLE) -> NDArray[np.float32]:
    """Resample a frame of a picture to a square, whatever its aspect, without aliasing.

    Parameters
    ----------
    plane
        float32 ``(rows, columns)``.
    size
        Rows and columns of the result.
    frame
        ``(left, top, right, bottom)`` as shares of the columns and rows.

    Returns
    -------
    float32 ``(size, size)``.
    """
    rows, columns = plane.shape
    left, top, right, bottom = frame
    box = (left * columns, top * rows, right * columns, bottom * rows)
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=np.float32)


def stretched(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the greys between the percentiles 1 and 99 to 0..1, so that no depth or window matters; else constant 0."""
    low, high = np.percentile(square, (1, 99)).astype(np.float32)
    return (square - low) / (high - low) if high > low else np.zeros_like(square)


def banded(squares: NDArray[np.float32], *, fine: float, coarse: float) -> NDArray[np.float32]:
    """Keep a band of frequencies of pictures, in local standard deviations: brightness and contrast go.

    Parameters
    ----------
    squares
        float32 ``(n, size, size)``, stretched.
    fine, coarse
        Standard deviations, in pixels, of the two Gaussians whose difference is the band; the coarse one is local.

    Returns
    -------
    float32 ``(n, size, size)``.
    """
    size = squares.shape[-1]
    narrow, wide = _gaussian(size, fine), _gaussian(size, coarse)
    band = narrow @ squares @ narrow.T - wide @ squares @ wide.T
    deviation = np.sqrt(np.maximum(wide @ (band * band) @ wide.T, 0))
    return np.asarray(band / (deviation + _FLAT), dtype=np.float32)


@lru_cache(maxsize=16)
def _gaussian(size: int, deviation: float) -> NDArray[np.float32]:
    """Matrix that smooths a vector, shape (size, size); at the ends what is missing is left out of the mean."""
    places = np.arange(size)
    weights = np.exp(-0.5 * ((places[:, np.newaxis] - places) / deviation) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _content(grey: NDArray[np.float32]) -> Box:
    """Find what is left without uniform borders."""
    top, bottom = (_border(lines) for lines in (grey, grey[::-1]))
    left, right = (_border(lines) for lines in (grey.T, grey.T[::-1]))
    return (left, top, 1 - right, 1 - bottom)


def _border(lines: NDArray[np.float32]) -> float:
    """Share of the lines, from the first on, that are uniform and of one grey; at most `_WIDEST_BORDER`."""
    means, deviations = lines.mean(axis=1), lines.std(axis=1)
    uniform = (deviations < _UNIFORM) & (np.abs(means - means[0]) < _SAME_GREY)
    most = int(_WIDEST_BORDER * len(lines))
    return float(np.argmin(np.append(uniform[:most], False))) / len(lines)


def _borders(content: Box) -> dict[str, float]:
    left, top, right, bottom = content
    return {"border_left": left, "border_top": top, "border_right": 1 - right, "border_bottom": 1 - bottom}


def _greys(plane: NDArray[np.float32]) -> dict[str, float]:
    rows, columns = plane.shape
    deviation = float(plane.std(dtype=np.float64))
    steps = [np.abs(np.diff(plane, axis=axis)) for axis in (0, 1)]
    step = sum(float(one.sum(dtype=np.float64)) for one in steps) / max(sum(one.size for one in steps), 1)
    return {
        "black_share": float((plane <= plane.min() + np.float32(1 / 255)).mean()),
        "white_share": float((plane >= plane.max() - np.float32(1 / 255)).mean()),
        "mean": float(plane.mean(dtype=np.float64)),
        "deviation": deviation,
        "aspect": columns / rows,
        "sharpness": step / deviation if deviation > 0 else 0.0,
    }


_MARK_SIZE = 9
"""A mark is smaller than this both ways, in 1/128 of the side."""

_MARK_CONTRAST = 0.35
"""How much brighter than its surroundings a mark is, as a share of the picture's range."""


def _marks(grey: NDArray[np.float32]) -> dict[str, float]:
    """Share of the corners, and of the rest of the frame, that stands out as marks do.

    Two white top-hats, one along the rows and one along the columns: an edge or a bone passes at least one of them.
    """
    across, down = (ndimage.white_tophat(grey, size=size) for size in ((1, _MARK_SIZE), (_MARK_SIZE, 1)))
    marked = np.minimum(across, down) > _MARK_CONTRAST * max(float(np.ptp(grey)), 1e-6)
    offset = np.abs((np.arange(len(grey)) + 0.5) / len(grey) - 0.5)
    outer, rim = offset > 0.25, offset > 0.35
    corners = outer[:, np.newaxis] & outer
    edges = (rim[:, np.newaxis] | rim) & ~corners
    return {"corner_marks": float(marked[corners].mean()), "edge_marks": float(marked[edges].mean())}
