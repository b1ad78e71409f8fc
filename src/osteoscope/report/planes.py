"""A plane of a CT or MR, or a radiograph, as a picture to be looked at: square pixels, sides of the patient, a caption.

Needs numpy and pillow only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Geometry

LONGEST_SIDE = 1280
"""Planes with a longer side are reduced to it, in pixels."""

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Of the sides to which an axis of LPS falls and rises (PS3.3 C.7.6.1.1.1)."""

_SECOND_LETTER = math.sin(math.radians(20))
"""A direction that is turned this far towards another axis names that, too."""

_INK, _PAPER = (0, 0, 0), (255, 255, 255)
_FONT_SIZE, _LINE, _MARGIN = 13, 18, 8


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Sides of the patient at the edges of a plane, in the letters of DICOM: R, L, A, P, F, H, and pairs of them."""

    left: str
    right: str
    top: str
    bottom: str


def sides_of(geometry: Geometry) -> Sides | None:
    """Find which side of the patient lies at which edge of a plane; None where the place is unknown."""
    if geometry.affine is None:
        return None
    across, down = geometry.affine[:3, 0], geometry.affine[:3, 1]
    return Sides(left=_side(-across), right=_side(across), top=_side(-down), bottom=_side(down))


def _side(direction: NDArray[np.float64]) -> str:
    cosines = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(cosines), kind="stable")[:2].tolist()
    named = [axis for number, axis in enumerate(order) if number == 0 or abs(cosines[axis]) >= _SECOND_LETTER]
    return "".join(_LETTERS[axis][int(cosines[axis] > 0)] for axis in named)


def shape_as_seen(shape: tuple[int, int], *, aspect: float = 1.0) -> tuple[int, int]:
    """Give the ``(rows, columns)`` in which a plane is shown: square pixels, as many as it has, up to `LONGEST_SIDE`.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the plane.
    aspect
        Height of its pixels over their width.
    """
    tall, wide = shape[0] * max(aspect, 1), shape[1] * max(1 / aspect, 1)
    reduction = max(1.0, max(tall, wide) / LONGEST_SIDE)
    return max(1, round(tall / reduction)), max(1, round(wide / reduction))


def as_seen(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample a plane or a map of it, ``(rows, columns)``, to the `shape_as_seen`, without aliasing."""
    if values.shape == shape:
        return values
    seen = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(seen, dtype=np.float32)


def with_sides(picture: Image.Image, sides: Sides) -> Image.Image:
    """Write the patient's sides at the edges of a picture; the one that is given stays as it is."""
    lettered = picture.copy()
    draw = ImageDraw.Draw(lettered)
    font = ImageFont.load_default(size=16)
    middle = (picture.width / 2, picture.height / 2)
    places = (
        (sides.left, _MARGIN, middle[1], "lm"),
        (sides.right, picture.width - _MARGIN, middle[1], "rm"),
        (sides.top, middle[0], _MARGIN, "mt"),
        (sides.bottom, middle[0], picture.height - _MARGIN, "mb"),
    )
    for letters, x, y, anchor in places:
        draw.text((x, y), letters, fill=_PAPER, font=font, anchor=anchor, stroke_width=2, stroke_fill=_INK)
    return lettered


def with_caption(picture: Image.Image, lines: Iterable[str]) -> Image.Image:
    """Set lines of text below a picture, each broken where it is too long; the picture that is given stays as it is."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    broken = [part for line in lines for part in _broken(line, picture.width - 2 * _MARGIN, font)]
    canvas = Image.new("RGB", (picture.width, picture.height + len(broken) * _LINE + 2 * _MARGIN), _INK)
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(broken):
        place = (_MARGIN, picture.height + _MARGIN + number * _LINE)
        draw.text(place, line, fill=_PAPER, font=font)
    return canvas


def _broken(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a line between its words."""
    parts = [""]
    for word in line.split():
        longer = f"{parts[-1]} {word}".strip()
        if parts[-1] and font.getlength(longer) > width:
            parts.append(word)
        else:
            parts[-1] = longer
    return parts
