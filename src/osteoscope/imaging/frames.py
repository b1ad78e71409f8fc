"""Where each frame of a DICOM file lies, and how its stored values become modality units.

A file of one frame says so in its data set; an enhanced multi-frame object in its functional groups, those of the frame
before those that all frames share (PS3.3 C.7.6.16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.imaging.headers import Elements

ORIENTATION_TOLERANCE = 0.01
"""Direction cosines must be of length 1, and at right angles, to within this; rounded ones are off by less."""

Position = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]

# Names of what may tell frames at one place apart, with the element and the functional group that hold it.
_MARKS: tuple[tuple[str, int, int | None], ...] = (
    ("stack", 0x00209056, 0x00209111),
    ("echo", 0x00180086, None),
    ("echo time", 0x00180081, None),
    ("echo time", 0x00189082, 0x00189114),
    ("inversion time", 0x00180082, None),
    ("flip angle", 0x00181314, None),
    ("b value", 0x00189087, 0x00189117),
    ("temporal position", 0x00200100, None),
    ("temporal position", 0x00209128, 0x00209111),
    ("temporal position", 0x0020930D, 0x00209310),
    ("trigger time", 0x00181060, None),
    ("trigger time", 0x00209153, 0x00189118),
    ("acquisition", 0x00200012, None),
    ("acquisition", 0x00209156, 0x00209111),
    ("kernel", 0x00181210, None),
    ("image type", 0x00080008, None),
    ("image type", 0x00089007, 0x00189226),
    ("image type", 0x00089007, 0x00189329),
    ("acquisition time", 0x0008002A, None),
    ("acquisition time", 0x00080032, None),
)

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_PLANE_POSITION, _PLANE_ORIENTATION = 0x00209113, 0x00209116
_PIXEL_MEASURES, _PIXEL_VALUE_TRANSFORMATION = 0x00289110, 0x00289145


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where one frame of a file lies, and how its stored values become modality units.

    Parameters
    ----------
    position
        Centre of the first pixel in LPS mm (PS3.3 C.7.6.2.1.1), or None where the file does not say.
    orientation
        Direction cosines of the rows, then of the columns, in LPS; None where the file does not say, or says what are
        no two unit vectors at right angles.
    spacing
        ``(between rows, between columns)`` in mm, or None.
    thickness
        Slice thickness in mm, or None; it is not the distance to the next slice.
    slope, intercept
        Modality value = slope * stored value + intercept (PS3.3 C.11.1); 1 and 0 where the file has none.
    marks
        What may tell this frame from another one at the same place, by name: ``echo``, ``acquisition``, ``b value`` …
    """

    position: Position | None
    orientation: Orientation | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    marks: dict[str, str]


def frames_of(elements: Elements, count: int, *, placed: bool) -> tuple[Frame, ...]:
    """Find place and scale of every frame.

    Parameters
    ----------
    elements
        Of the file.
    count
        Number of Frames.
    placed
        Whether their places and scales matter.

    Raises
    ------
    RefusedImageError
        If they do, and there are functional groups, but not of so many frames.
    """
    each = elements.sequences.get(_PER_FRAME, [])
    shared = elements.sequences.get(_SHARED, [])
    if each and len(each) != count and placed:
        found = f"expected functional groups of {count} frames, found those of {len(each)}"
        raise RefusedImageError(RefusalCode.DAMAGED, found, remedy="copy or export it again, or leave it out")
    if len(each) == count:
        return tuple(_frame(_Groups((group, *shared[:1]), elements)) for group in each)
    frame = _frame(_Groups(shared[:1], elements))
    if count == 1:
        return (frame,)
    # The place that a cine or a dose grid without functional groups states is at best that of its first frame.
    nowhere = Frame(
        position=None,
        orientation=None,
        spacing=frame.spacing,
        thickness=None,
        slope=frame.slope,
        intercept=frame.intercept,
        marks=frame.marks,
    )
    return (nowhere,) * count


@dataclass(frozen=True, eq=False)
class _Groups:
    """The functional groups of a frame, its own first, and the data set."""

    groups: Sequence[Elements]
    data_set: Elements

    def holder(self, sequence: int | None, tag: int) -> Elements | None:
        """Find what holds an element: a group's item, else the data set; None where nothing does."""
        if sequence is not None:
            for group in self.groups:
                item = group.item(sequence)
                if item is not None and tag in item:
                    return item
        return self.data_set if tag in self.data_set else None

    def numbers(self, sequence: int, tag: int) -> tuple[float, ...]:
        """Give the values of an element, none where it is missing or damaged."""
        holder = self.holder(sequence, tag)
        return holder.numbers(tag) if holder is not None else ()

    def number(self, sequence: int, tag: int) -> float | None:
        """Give the first value of an element."""
        return next(iter(self.numbers(sequence, tag)), None)


def _frame(groups: _Groups) -> Frame:
    slope = groups.number(_PIXEL_VALUE_TRANSFORMATION, 0x00281053)
    spacing = groups.numbers(_PIXEL_MEASURES, 0x00280030)
    position = groups.numbers(_PLANE_POSITION, 0x00200032)
    orientation = groups.numbers(_PLANE_ORIENTATION, 0x00200037)
    thickness = groups.number(_PIXEL_MEASURES, 0x00180050)
    return Frame(
        position=(position[0], position[1], position[2]) if len(position) == 3 else None,
        orientation=_unit_vectors(orientation),
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None,
        thickness=thickness if thickness is not None and thickness > 0 else None,
        slope=slope or 1.0,
        intercept=float(groups.number(_PIXEL_VALUE_TRANSFORMATION, 0x00281052) or 0),
        marks=_marks(groups),
    )


def _marks(groups: _Groups) -> dict[str, str]:
    marks: dict[str, str] = {}
    for name, tag, sequence in _MARKS:
        holder = groups.holder(sequence, tag)
        if holder is None or (name in marks and holder is groups.data_set):
            continue
        marks[name] = holder.shown(tag)
    return marks


def _unit_vectors(cosines: tuple[float, ...]) -> Orientation | None:
    """Normalise direction cosines; None where they are no unit vectors at right angles."""
    if len(cosines) != 6:
        return None
    x1, y1, z1, x2, y2, z2 = cosines
    first, second = math.hypot(x1, y1, z1), math.hypot(x2, y2, z2)
    faults = abs(first - 1), abs(second - 1), abs(x1 * x2 + y1 * y2 + z1 * z2)
    if max(faults) > ORIENTATION_TOLERANCE:
        return None
    return x1 / first, y1 / first, z1 / first, x2 / second, y2 / second, z2 / second
