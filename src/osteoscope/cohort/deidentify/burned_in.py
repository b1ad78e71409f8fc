"""Tells whether a picture may show text: by what its header says it is, and by looking at its pixels.

What is found here is never copied before a person has looked at it. The look at the pixels finds lines of characters
that were drawn into an image in one brightness; handwriting, faint text and single letters pass it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.cohort.deidentify.elements import text_of
from osteoscope.imaging.dicom import decode, read_header
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_STORAGE = "1.2.840.10008.5.1.4.1.1."

_CLASSES = {
    _STORAGE + "7": "a captured screen or a scanned film",
    _STORAGE + "3": "an ultrasound image, which as a rule shows the patient's name",
    _STORAGE + "6": "an ultrasound image, which as a rule shows the patient's name",
    _STORAGE + "77": "a photograph or an endoscopic image",
    _STORAGE + "88": "a report, whose text cannot be judged",
    _STORAGE + "104": "a document, whose text cannot be judged",
    _STORAGE + "11": "a presentation state, which may hold text",
}
"""First parts of SOP classes (PS3.4 B.5), and what they are."""

_SEGMENTATIONS = (_STORAGE + "66.4", _STORAGE + "66.7")

_MODALITIES = {
    "OT": "an image of modality OT, which may be a captured screen",
    "US": "an ultrasound image, which as a rule shows the patient's name",
    "IVUS": "an ultrasound image, which as a rule shows the patient's name",
    "ES": "an endoscopic image",
    "XC": "a photograph",
    "SC": "a captured screen or a scanned film",
    "DOC": "a document, whose text cannot be judged",
    "SR": "a report, whose text cannot be judged",
}

_WORDS = ("SCREEN", "CAPTURE", "REPORT", "DOSE_INFO", "PROTOCOL", "TABLE")
"""Parts of Image Type (0008,0008) by which captured screens and pages of text are called."""

_CONVERTED = ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")
"""Conversion Type (0008,0064; PS3.3 C.8.6.1): from film, paper, video or a workstation."""

_UNREAD = (
    RefusalCode.UNSUPPORTED_COMPRESSION,
    RefusalCode.UNSUPPORTED_PIXELS,
    RefusalCode.MISSING_LIBRARY,
    RefusalCode.TOO_LARGE,
)
"""Why pixels cannot be looked at although nothing is wrong with the file."""

_LONGER_SIDE = 1024
"""Pixels of the longer side at which a larger picture is looked at, beside its own size."""

_LEAST_CHARACTERS = 5
"""In a line; the marks of side and position on radiographs have fewer."""

_STROKE = 9
"""Pixels that the stroke of a character is narrower than."""

_CONTRAST = 0.25
"""Of the range of grey values: how much a stroke stands out of what lies round it."""

_ONE_BRIGHTNESS = 0.03
"""Of that range: how much the brightest pixels of one line's characters may differ."""

_SMALLEST, _LARGEST = 6, 48
"""Pixels of a character's height."""

_OFF_BASE = 0.25
"""Of the higher character's height: how much the bases of two in one line may differ."""

_APART = int(_OFF_BASE * _LARGEST)
"""Pixels that they differ by at most."""


def why_suspect(data_set: Dataset, path: Path) -> str | None:
    """Say why a file may show text that identifies somebody.

    Parameters
    ----------
    data_set
        As it was read.
    path
        The file, whose pixels are looked at: of the first, the middle and the last frame.

    Returns
    -------
    The reason, as a sentence without a full stop; None where there is none.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        If its pixels are damaged.
    """
    return _by_header(data_set) or _by_pixels(data_set, path)


def _by_header(data_set: Dataset) -> str | None:
    sop_class = text_of(data_set, "SOPClassUID")
    if text_of(data_set, "BurnedInAnnotation").upper() == "YES":
        return "its header says that text is burned into its pixels"
    for start, reason in _CLASSES.items():
        if sop_class == start or sop_class.startswith(start + "."):
            return reason
    modality = text_of(data_set, "Modality").upper()
    if modality in _MODALITIES:
        return _MODALITIES[modality]
    if any(word in text_of(data_set, "ImageType").upper() for word in _WORDS):
        return "its image type is that of a captured screen or a page of text"
    if text_of(data_set, "ConversionType").upper() in _CONVERTED:
        return "it was converted from film, paper, video or a workstation's screen"
    return "an overlay lies in the unused bits of its pixels" if _has_overlay_in_pixels(data_set) else None


def _has_overlay_in_pixels(data_set: Dataset) -> bool:
    """Tell whether an overlay has no data of its own (PS3.3 C.9.2, as until 2004)."""
    groups = {tag.group for tag in data_set.keys() if tag >> 24 == 0x60}  # noqa: SIM118
    return any((group, 0x0010) in data_set and (group, 0x3000) not in data_set for group in groups)


def _by_pixels(data_set: Dataset, path: Path) -> str | None:
    if text_of(data_set, "SOPClassUID") in _SEGMENTATIONS:
        return None
    try:
        header = read_header(path)
        count = len(header.frames)
        planes = decode(header, sorted({0, count // 2, count - 1}))
    except RefusedImageError as refusal:
        if refusal.code is RefusalCode.NO_PIXELS:
            return None
        if refusal.code in _UNREAD:
            return f"its pixels could not be looked at: {refusal.message}"
        raise
    return "its pixels seem to show a line of text" if any(map(shows_text, planes)) else None


def shows_text(plane: NDArray[np.float32]) -> bool:
    """Tell whether a picture seems to have a line of characters drawn into it.

    Parameters
    ----------
    plane
        ``(rows, columns)``, grey values of any unit.
    """
    low, high = float(plane.min()), float(plane.max())
    if not high > low:
        return False
    grey = (plane - low) / (high - low)
    factor = max(1, -(-max(grey.shape) // _LONGER_SIDE))
    sizes = [grey] if factor == 1 else [grey, _smaller(grey, factor)]
    return any(_has_line(one) or _has_line(1 - one) for one in sizes)


def _smaller(grey: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Make a picture smaller by a whole number, by the mean of each square."""
    rows, columns = (size // factor * factor for size in grey.shape)
    squares = grey[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    smaller: NDArray[np.float32] = squares.mean(axis=(1, 3), dtype=np.float32)
    return smaller


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mark:
    """A connected group of pixels that may be a character."""

    top: int
    bottom: int
    left: int
    right: int
    brightness: float

    @property
    def height(self) -> int:
        return self.bottom - self.top


def _has_line(grey: NDArray[np.float32]) -> bool:
    """Tell whether bright characters stand in a line."""
    from scipy import ndimage

    strokes = grey - ndimage.grey_opening(grey, size=(_STROKE, _STROKE)) > _CONTRAST
    labels, _ = ndimage.label(strokes, structure=np.ones((3, 3)))
    places = ndimage.find_objects(labels)
    marks = []
    for number, (rows, columns) in enumerate(places, start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if _SMALLEST <= height <= _LARGEST and width <= 2 * height:
            brightness = float(grey[rows, columns][labels[rows, columns] == number].max())
            marks.append(
                _Mark(top=rows.start, bottom=rows.stop, left=columns.start, right=columns.stop, brightness=brightness)
            )
    return _longest_line(marks) >= _LEAST_CHARACTERS


def _longest_line(marks: Sequence[_Mark]) -> int:
    """Count the marks of the longest line: each beside the one before, as high, on one base and as bright."""
    longest: dict[_Mark, int] = {}
    # By their bases, so that of the thousands of marks of a noisy picture each is compared with those near it alone.
    rows: defaultdict[int, list[_Mark]] = defaultdict(list)
    for mark in sorted(marks, key=lambda mark: mark.left):
        row = mark.bottom // _APART
        near = chain.from_iterable(_beside(rows[number], mark) for number in (row - 1, row, row + 1))
        longest[mark] = 1 + max((longest[one] for one in near if _follows(one, mark)), default=0)
        rows[row].append(mark)
    return max(longest.values(), default=0)


def _beside(row: Sequence[_Mark], mark: _Mark) -> Iterator[_Mark]:
    """Give those marks, the last first, that are not too far to the left of one."""
    # A mark is at most twice as wide as high, and the gap to the next no wider than that is high.
    return takewhile(lambda one: one.left >= mark.left - 3 * _LARGEST, reversed(row))


def _follows(one: _Mark, other: _Mark) -> bool:
    height = max(one.height, other.height)
    return (
        min(one.height, other.height) >= 0.6 * height
        and abs(one.bottom - other.bottom) <= _OFF_BASE * height
        and -1 <= other.left - one.right <= height
        and abs(one.brightness - other.brightness) <= _ONE_BRIGHTNESS
    )
