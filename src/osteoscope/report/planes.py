"""A plane of a CT or MR, or a radiograph, as a picture to be looked at: square pixels, sides of the patient, a caption.

Needs numpy and pillow only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.imaging.resampling import spread
from osteoscope.report.outlines import outlines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.resampling import Rectangle
    from osteoscope.imaging.volume import Geometry, Modality

LONGEST_SIDE = 1280
"""Planes with a longer side are reduced to it, in pixels."""

PHANTOM_MARK = "PHANTOM"
"""Written on pictures of phantoms, since a picture may leave its page."""

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Of the sides to which an axis of LPS falls and rises (PS3.3 C.7.6.1.1.1)."""

_SECOND_LETTER = math.sin(math.radians(20))
"""A direction that is turned this far towards another axis names that, too."""

_INK, _PAPER = (0, 0, 0), (255, 255, 255)
_FONT_SIZE, _LINE, _MARGIN = 13, 18, 8
_BARS, _LONGEST_BAR, _TICK = (5, 10, 20, 50, 100, 200), 0.35, 6
"""Lengths of a scale bar in mm, the share of a picture's width that it may take, and the height of its ends."""
_LETTER, _LEAST_LETTER = 1 / 24, 16
"""Height of letters on a picture: share of its longer side, and least pixels."""


@dataclass(frozen=True, kw_only=True)
class ShownWindow:
    """The values that are shown black and white, and what the window is called; empty where it has no name."""

    name: str
    low: float
    high: float

    def text(self, modality: Modality) -> str:
        """Say it for people, with signs that are in every font: ``window -500 to 1300 HU``."""
        unit = " HU" if modality == "CT" else ""
        return f"window {self.low:.4g} to {self.high:.4g}{unit}"


BONE = ShownWindow(name="bone", low=-500.0, high=1300.0)
SOFT_TISSUE = ShownWindow(name="soft tissue", low=-160.0, high=240.0)
"""In HU: how a CT is shown."""


def windows_of(modality: Modality, read: Sequence[tuple[float, float]]) -> tuple[ShownWindow, ...]:
    """Choose how a CT or MR is shown, the window in which evidence is laid over it first.

    Parameters
    ----------
    modality
        Of the volume.
    read
        The windows in which it was read: an MR has no unit, so it is shown as it was read.
    """
    if modality == "CT":
        return BONE, SOFT_TISSUE
    low, high = read[0]
    return (ShownWindow(name="", low=low, high=high),)


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a plane lies in the patient: the coordinate of its middle along the axis that it is most nearly across."""

    axis: Literal["x", "y", "z"]
    """Of LPS: x rises to the patient's left, y to the back, z to the head."""
    mm: float

    @property
    def text(self) -> str:
        """Write it for people: ``z = −132.5 mm``."""
        # Adding 0 takes the sign off a 0.
        return f"{self.axis} = {round(self.mm, 1) + 0.0:.1f} mm".replace("-", "−")

    @property
    def place(self) -> float:
        """Sort as a reader leafs: from the head down, from the right to the left, from the front to the back."""
        return -self.mm if self.axis == "z" else self.mm


def position_of(geometry: Geometry, plane: int) -> Position:
    """Find where a plane of a volume lies.

    Raises
    ------
    ValueError
        If the place of the volume is unknown.
    """
    normal = geometry.normal
    if geometry.affine is None or normal is None:
        msg = "expected a volume whose place is known"
        raise ValueError(msg)
    _, rows, columns = geometry.shape
    middle = geometry.affine @ ((columns - 1) / 2, (rows - 1) / 2, plane, 1)
    axis = int(np.abs(normal).argmax())
    names: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
    return Position(axis=names[axis], mm=float(middle[axis]))


@dataclass(frozen=True, kw_only=True)
class PlaneFrame:
    """From a plane of an image to its picture.

    Parameters
    ----------
    plane
        ``(rows, columns)`` of the image.
    seen
        ``(rows, columns)`` of the picture, by `shape_as_seen`.
    """

    plane: tuple[int, int]
    seen: tuple[int, int]

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """Take the planes of a volume."""
        _, rows, columns = geometry.shape
        return cls(plane=(rows, columns), seen=shape_as_seen((rows, columns), aspect=geometry.aspect))

    def pixels(self, values: NDArray[np.float32], window: ShownWindow) -> NDArray[np.float32]:
        """Show the values of a plane, (rows, columns), in 0..1; what is no value is black."""
        known = np.nan_to_num(values, nan=window.low)
        # A window without any width shows no contrast.
        grey = (known - window.low) / (window.high - window.low) if window.high > window.low else np.zeros_like(known)
        return as_seen(np.clip(grey, 0, 1).astype(np.float32), self.seen)

    def evidence(self, cells: NDArray[np.float32], rectangle: Rectangle) -> NDArray[np.float32]:
        """Lay evidence on the picture.

        It is given by area, in shares of what was read of the plane, so that planes of any number of pixels have one
        scale: the mean over that part is what the plane adds to the logit.

        Parameters
        ----------
        cells
            (classes, h, w) in units of the logit, of cells that divide the rectangle evenly.
        rectangle
            What was read, in pixel-edge coordinates of the plane.

        Returns
        -------
        (classes, rows, columns) of the picture.
        """
        return np.stack([as_seen(spread(one, rectangle, self.plane), self.seen) for one in by_area(cells)])

    def square(self, rectangle: Rectangle) -> Square:
        """Carry what was read, a square in mm, to the picture, whose pixels are square."""
        down, across = self.seen[0] / self.plane[0], self.seen[1] / self.plane[1]
        return Square(left=rectangle.left * across, top=rectangle.top * down, side=rectangle.width * across)

    def outlines(self, mask: NDArray[np.bool_]) -> tuple[Lesion, ...]:
        """Trace what a mask of the plane, (rows, columns), marks, in pixels of the picture."""
        down, across = self.seen[0] / self.plane[0], self.seen[1] / self.plane[1]
        return tuple(Lesion(outline=tuple((x * across, y * down) for x, y in outline)) for outline in outlines_of(mask))


def by_area(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give evidence in cells, (..., h, w) in units of the logit, in shares of the area that they divide."""
    return cells * np.float32(cells.shape[-2] * cells.shape[-1])


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
    font = ImageFont.load_default(size=_letter(picture))
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


def with_scale(picture: Image.Image, spacing: float) -> Image.Image:
    """Draw a bar of some centimetres into the lower left corner of a picture; the one that is given stays as it is.

    Parameters
    ----------
    picture
        With square pixels.
    spacing
        Between the centres of neighbouring pixels, in mm.
    """
    scaled = picture.copy()
    fitting = [length for length in _BARS if length <= _LONGEST_BAR * picture.width * spacing]
    length = max(fitting, default=_BARS[0])
    draw = ImageDraw.Draw(scaled)
    left, right, bottom = _MARGIN, _MARGIN + round(length / spacing), picture.height - _MARGIN
    path = [(left, bottom - _TICK), (left, bottom), (right, bottom), (right, bottom - _TICK)]
    draw.line(path, fill=_INK, width=5, joint="curve")
    draw.line(path, fill=_PAPER, width=2, joint="curve")
    font = ImageFont.load_default(size=_FONT_SIZE)
    place = (left + 5, bottom - _TICK)
    draw.text(place, f"{length / 10:g} cm", fill=_PAPER, font=font, anchor="lb", stroke_width=2, stroke_fill=_INK)
    return scaled


def with_mark(picture: Image.Image, mark: str) -> Image.Image:
    """Write a word into the upper left corner of a picture; the one that is given stays as it is."""
    marked = picture.copy()
    font = ImageFont.load_default(size=_letter(picture))
    ImageDraw.Draw(marked).text(
        (_MARGIN, _MARGIN), mark, fill=_PAPER, font=font, anchor="lt", stroke_width=2, stroke_fill=_INK
    )
    return marked


def _letter(picture: Image.Image) -> int:
    """Choose the height of letters, so that they are legible where the picture is shown small."""
    return max(_LEAST_LETTER, round(max(picture.size) * _LETTER))


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
