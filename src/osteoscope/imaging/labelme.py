"""What a LabelMe file outlines in a picture: rectangles and polygons, in pixels of the picture.

References
----------
Russell BC, Torralba A, Murphy KP, Freeman WT. LabelMe: a database and web-based tool for image annotation. Int J Comput
Vis 2008;77:157-173. The file is that of the program of this name (https://github.com/wkentaro/labelme).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from osteoscope.imaging.prepare import Box, Point

SUFFIX = ".json"

BORDER = 1.0
"""How far a lesion may reach beyond its picture before it is taken for a slip, in pixels."""

_READ = ("rectangle", "polygon")

_OF_THIS_PICTURE = "name the annotation that was drawn on this picture"


@dataclass(frozen=True, kw_only=True)
class _Shape:
    kind: str
    points: tuple[Point, ...]


def read_labelme(path: Path, rows: int, columns: int) -> tuple[Lesion, ...]:
    """Read what a LabelMe file outlines in a picture; every shape counts, whatever its label.

    Parameters
    ----------
    path
        The file.
    rows, columns
        Of the picture.

    Returns
    -------
    Each outline with the rectangle that was drawn round it, cut at the picture's border; one or more.

    Raises
    ------
    InputError
        If the file is not what LabelMe writes, was drawn on a picture of another size, outlines nothing, holds a shape
        that is neither rectangle nor polygon, or one that reaches more than `BORDER` beyond the picture.
    """
    drawn_on, shapes = _read(path)
    if drawn_on != (rows, columns):
        sizes = f"{columns} x {rows} pixels, found one of {drawn_on[1]:g} x {drawn_on[0]:g}"
        raise InputError(f"expected an annotation of a picture of {sizes}", path=path, remedy=_OF_THIS_PICTURE)
    for shape in shapes:
        if shape.kind not in _READ:
            found = f"expected rectangles and polygons, found a shape of type {shape.kind!r}"
            raise InputError(found, path=path, remedy="outline the lesion by a polygon, or remove the shape")
        _refuse_outside(shape, rows, columns, path)
    lesions = _lesions(shapes, (1.0, 1.0), rows, columns)
    if not lesions:
        reason = "expected an annotation that outlines something, found none outlined"
        raise InputError(reason, path=path, remedy=_OF_THIS_PICTURE)
    return lesions


def read_scaled_labelme(path: Path, rows: int, columns: int) -> tuple[Lesion, ...]:
    """Read a LabelMe file that may have been drawn before its picture was given another size.

    Parameters
    ----------
    path
        The file.
    rows, columns
        Of the picture. Coordinates of an annotation that was made at another size are scaled to it, and cut at the
        picture's border; a shape without area is left out, as is one that is neither rectangle nor polygon.

    Raises
    ------
    InputError
        If the file is not what LabelMe writes.
    """
    (drawn_rows, drawn_columns), shapes = _read(path)
    return _lesions(shapes, (columns / drawn_columns, rows / drawn_rows), rows, columns)


def _read(path: Path) -> tuple[tuple[float, float], list[_Shape]]:
    """Read the (rows, columns) of the picture that was drawn on, and the shapes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        size = float(content["imageHeight"]), float(content["imageWidth"])
        shapes = [_Shape(kind=shape["shape_type"], points=_points(shape["points"])) for shape in content["shapes"]]
        if not np.isfinite([*size, *(value for shape in shapes for point in shape.points for value in point)]).all():
            msg = "a number that is none"
            raise ValueError(msg)
        if not min(size) > 0:
            msg = f"a picture of {size[1]:g} x {size[0]:g} pixels"
            raise ValueError(msg)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        # The error itself may hold all of the file, and with it a name and the picture.
        reason = f"expected a LabelMe annotation, found something else ({type(error).__name__})"
        raise InputError(reason, path=path, remedy="save or copy it again") from error
    return size, shapes


def _points(points: Iterable[Any]) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in points)


def _refuse_outside(shape: _Shape, rows: int, columns: int, path: Path) -> None:
    for x, y in shape.points:
        if max(-x, -y, x - columns, y - rows) > BORDER:
            size = f"{columns} x {rows} pixels"
            reason = f"expected shapes inside the picture of {size}, found one that reaches to {x:g}, {y:g}"
            raise InputError(reason, path=path, remedy=_OF_THIS_PICTURE)


def _lesions(shapes: Sequence[_Shape], scale: tuple[float, float], rows: int, columns: int) -> tuple[Lesion, ...]:
    placed = [
        (shape.kind, [(_within(x * scale[0], columns), _within(y * scale[1], rows)) for x, y in shape.points])
        for shape in shapes
    ]
    boxes = [_bounds(points) for kind, points in placed if kind == "rectangle" and points]
    outlines = [points for kind, points in placed if kind == "polygon" and len(points) > 2]
    return _paired(list(filter(_has_area, boxes)), [outline for outline in outlines if _has_area(_bounds(outline))])


def _within(value: float, length: int) -> float:
    return min(max(value, 0.0), float(length))


def _bounds(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _has_area(box: Box) -> bool:
    left, top, right, bottom = box
    return left < right and top < bottom


def _paired(boxes: list[Box], outlines: list[list[Point]]) -> tuple[Lesion, ...]:
    """Give each outline the free box that fits it best; what finds no partner is a lesion of its own."""
    fits = sorted(
        ((_overlap(box, _bounds(outline)), b, o) for b, box in enumerate(boxes) for o, outline in enumerate(outlines)),
        key=lambda fit: (-fit[0], fit[1], fit[2]),
    )
    box_of: dict[int, int] = {}
    for overlap, b, o in fits:
        if overlap > 0 and o not in box_of and b not in box_of.values():
            box_of[o] = b
    paired = [Lesion(box=boxes[b], outline=tuple(outlines[o])) for o, b in sorted(box_of.items())]
    lone_boxes = [Lesion(box=box) for b, box in enumerate(boxes) if b not in box_of.values()]
    lone_outlines = [Lesion(outline=tuple(outline)) for o, outline in enumerate(outlines) if o not in box_of]
    return (*paired, *lone_boxes, *lone_outlines)


def _overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (first, second))
    return width * height / (areas - width * height)
