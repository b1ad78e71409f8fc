"""From an image to the square plane that a network reads; the same in training and in prediction.

Points are ``(x, y)`` in pixel-edge coordinates: ``(0, 0)`` is the outer corner of the first pixel, so pixel
``(row, column)`` covers ``column..column + 1`` and ``row..row + 1``, and its centre lies at one half. Values are not
standardised here; the network does that itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from PIL import Image

from osteoscope.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.config import RegionOfInterest

SMALLEST_SQUARE = 24.0
"""A square round a lesion is never smaller than this, in pixels, so that it holds something to be told apart."""

Box = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` in pixel-edge coordinates."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Square:
    """A square part of an image, which may reach beyond it.

    Parameters
    ----------
    left, top
        Its first corner, in pixel-edge coordinates of the image.
    side
        In pixels of the image.

    Raises
    ------
    ValueError
        If a value is not finite or the side is not positive.
    """

    left: float
    top: float
    side: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.left, self.top, self.side))) or self.side <= 0:
            msg = f"expected a square of finite place and positive side, got {self}"
            raise ValueError(msg)

    def scaled(self, factor: float) -> Self:
        """Make its side `factor` times as long, about the same centre."""
        grown = self.side * (factor - 1) / 2
        return type(self)(left=self.left - grown, top=self.top - grown, side=self.side * factor)


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """An annotated region of an image: its box, its outline, or both.

    Parameters
    ----------
    box
        Where there is one.
    outline
        Corners of a polygon, three or more, or none; the last is joined to the first.

    Raises
    ------
    ValueError
        If there is neither, a value is not finite, the box is empty, or the outline is a point or a line.
    """

    box: Box | None = None
    outline: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if self.box is None and not self.outline:
            msg = "expected a box, an outline, or both, got neither"
            raise ValueError(msg)
        numbers = [*(self.box or ()), *(value for point in self.outline for value in point)]
        if not all(map(math.isfinite, numbers)):
            msg = "expected finite coordinates"
            raise ValueError(msg)
        for left, top, right, bottom in self._all_bounds():
            if not (left < right and top < bottom):
                msg = f"expected left < right and top < bottom, got {(left, top, right, bottom)}"
                raise ValueError(msg)

    def bounds(self, prefer: Literal["box", "outline"]) -> Box:
        """Box round the lesion, from its box or its outline; where it lacks the one, from the other."""
        return self._all_bounds()[0 if prefer == "box" else -1]

    def stretched(self, tall: float) -> Self:
        """Give it in an image whose rows are `tall` times as many."""
        box = None if self.box is None else (self.box[0], self.box[1] * tall, self.box[2], self.box[3] * tall)
        return type(self)(box=box, outline=tuple((x, y * tall) for x, y in self.outline))

    def _all_bounds(self) -> list[Box]:
        return [*([self.box] if self.box else []), *([_bounds(self.outline)] if self.outline else [])]


def square_to_read(
    shape: tuple[int, int], lesions: Sequence[Lesion], *, roi: RegionOfInterest, margin: float
) -> Square:
    """Choose the square of an image that the network shall read.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the image.
    lesions
        What is annotated in it; not used where `roi` is ``none``.
    roi
        ``none``: the smallest centred square that holds the whole image. ``box`` and ``outline``: the square about
        the centre of all lesions together, bounded by their boxes or by their outlines; a lesion that lacks the one
        is bounded by the other.
    margin
        How much of the lesions' longer side is added on every side of them; 0 or more.

    Returns
    -------
    A square, which may reach beyond the image; round lesions at least `SMALLEST_SQUARE` wide.

    Raises
    ------
    InputError
        If `roi` needs a lesion and there is none.
    ValueError
        If the margin is negative or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        msg = f"expected a margin of 0 or more, got {margin}"
        raise ValueError(msg)
    rows, columns = shape
    if roi == "none":
        return _square_about((0, 0, columns, rows), side=max(rows, columns))
    if not lesions:
        reason = f"the {roi} of a lesion is to be read, but none is annotated"
        raise InputError(reason, remedy="annotate it, or read the whole image with --roi none")
    corners = np.array([lesion.bounds(roi) for lesion in lesions])
    left, top = corners[:, :2].min(axis=0).tolist()
    right, bottom = corners[:, 2:].max(axis=0).tolist()
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    return _square_about((left, top, right, bottom), side=max(side, SMALLEST_SQUARE))


def resample(plane: NDArray[np.float32], square: Square, size: int) -> NDArray[np.float32]:
    """Resample a square of an image to a plane, without aliasing and without changing its aspect.

    What lies outside of the image is filled with the mean of what is visible of it in the square, so that, once the
    plane is standardised, it is near 0 and carries no signal. The filter is a triangle as wide as the larger of
    the two pixels, which cannot overshoot.

    Parameters
    ----------
    plane
        float32 ``(rows, columns)``.
    square
        What to read, in pixel-edge coordinates of `plane`.
    size
        Rows and columns of the result.

    Returns
    -------
    float32 ``(size, size)``, in the orientation and units of `plane`.

    Raises
    ------
    ValueError
        If the square lies wholly outside of the image, or `size` is not positive.
    """
    rows, columns = plane.shape
    first_column, last_column = math.floor(square.left), math.ceil(square.left + square.side)
    first_row, last_row = math.floor(square.top), math.ceil(square.top + square.side)
    visible = plane[max(first_row, 0) : max(last_row, 0), max(first_column, 0) : max(last_column, 0)]
    if visible.size == 0 or size < 1:
        msg = f"expected a square that meets the image of {rows} rows and {columns} columns, got {square} at {size} px"
        raise ValueError(msg)
    before = max(-first_row, 0), max(-first_column, 0)
    after = max(last_row - rows, 0), max(last_column - columns, 0)
    fill = float(visible.mean(dtype=np.float64))
    # Only what the square lacks is added: next to its edges the filter sees the image's own pixels.
    padded = np.pad(plane, tuple(zip(before, after, strict=True)), constant_values=fill)
    left, top = square.left + before[1], square.top + before[0]
    box = (left, top, min(left + square.side, padded.shape[1]), min(top + square.side, padded.shape[0]))
    resized = Image.fromarray(np.ascontiguousarray(padded, dtype=np.float32)).resize(
        (size, size), Image.Resampling.BILINEAR, box=box
    )
    return np.asarray(resized, dtype=np.float32)


def image_to_plane(points: NDArray[np.float64], square: Square, size: int) -> NDArray[np.float64]:
    """Carry points ``(n, 2)`` of the image, as ``(x, y)``, into the plane of `size` resampled from `square`."""
    return (np.asarray(points, dtype=np.float64) - (square.left, square.top)) * (size / square.side)


def square_on_plane(inner: Square, square: Square, size: int) -> Square:
    """Carry a square of the image into the plane of `size` resampled from another `square`."""
    scale = size / square.side
    return Square(
        left=(inner.left - square.left) * scale, top=(inner.top - square.top) * scale, side=inner.side * scale
    )


def lesion_on_plane(lesion: Lesion, square: Square, size: int) -> Lesion:
    """Carry a lesion of the image into the plane of `size` resampled from `square`."""
    outline = image_to_plane(np.array(lesion.outline), square, size) if lesion.outline else np.empty((0, 2))
    box = None
    if lesion.box is not None:
        (left, top), (right, bottom) = image_to_plane(np.array(lesion.box).reshape(2, 2), square, size).tolist()
        box = (left, top, right, bottom)
    return Lesion(box=box, outline=tuple((x, y) for x, y in outline.tolist()))


def outline_mask(shape: tuple[int, int], lesions: Sequence[Lesion]) -> NDArray[np.bool_]:
    """Mark the pixels whose centres lie in a lesion's outline, or in its box where it has no outline.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the image.
    lesions
        None, one or several; they may overlap.

    Returns
    -------
    bool ``(rows, columns)``. A lesion smaller than a pixel may mark none.
    """
    mask = np.zeros(shape, dtype=bool)
    for lesion in lesions:
        mask |= polygon_mask(shape, lesion.outline or _corners(lesion.bounds("box")))
    return mask


def polygon_mask(shape: tuple[int, ...], polygon: Sequence[Point]) -> NDArray[np.bool_]:
    """Fill a polygon by the even-odd rule: each edge flips the pixels to the right of it in the rows that it spans.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the image.
    polygon
        Corners in pixel-edge coordinates; the last is joined to the first.

    Returns
    -------
    bool ``(rows, columns)``: the pixels whose centres lie in the polygon.
    """
    rows, columns = shape
    inside = np.zeros(shape, dtype=bool)
    centres = np.arange(columns) + 0.5
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        first, last = math.ceil(min(y0, y1) - 0.5), math.ceil(max(y0, y1) - 0.5)
        spanned = np.arange(max(first, 0), min(last, rows))
        if spanned.size:
            crossing = x0 + (spanned + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            inside[spanned] ^= centres > crossing[:, np.newaxis]
    return inside


def _square_about(box: Box, *, side: float) -> Square:
    left, top, right, bottom = box
    return Square(left=(left + right - side) / 2, top=(top + bottom - side) / 2, side=side)


def _bounds(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _corners(box: Box) -> tuple[Point, ...]:
    left, top, right, bottom = box
    return (left, top), (right, top), (right, bottom), (left, bottom)
