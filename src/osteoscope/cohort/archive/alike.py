"""Reads the headers of many files, each of which as a rule says what the one before said, but for its place.

The slices of a series differ in their numbers, times and positions alone. Where all else that the index needs is as it
was in a file that could be read, so is what follows from it, and only the place is worked out again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.facts import INSTANCE, Known, known_of, place_along
from osteoscope.imaging.dicom import header_of
from osteoscope.imaging.refusal import Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.imaging.headers import Scan
    from osteoscope.imaging.opened import Stamp

_OWN = frozenset(
    {
        INSTANCE,
        0x00080022,  # Acquisition Date
        0x00080023,  # Content Date
        0x0008002A,  # Acquisition DateTime
        0x00080032,  # Acquisition Time
        0x00181060,  # Trigger Time
        0x00200012,  # Acquisition Number
        0x00200013,  # Instance Number
        0x00200032,  # Image Position (Patient)
    }
)
"""Elements in which files that are alike may differ; what is kept of a stack is that of one of its files."""

_HELD = 64
"""Headers that are held: files of several series may come in turn."""


class Headers:
    """Reads headers, and remembers those of files that could be read."""

    def __init__(self) -> None:
        self._held: dict[object, Known] = {}

    def look(self, found: Scan, path: Path, stamp: Stamp) -> tuple[Known, Refusal | None]:
        """Say what a header holds for the index, and why the file is no image that can be read, or None.

        Parameters
        ----------
        found
            What the file was scanned to, with `osteoscope.cohort.archive.facts.ALSO`.
        path, stamp
            The file.
        """
        same = _alike(found)
        held = None if same is None else self._held.get(same)
        if held is not None:
            elements = found.elements
            place = place_along(elements.numbers(0x00200032), held.normal)
            return replace(held, instance=elements.word(INSTANCE), place=place), None
        try:
            header = header_of(path, stamp, found)
        except Exception as error:
            return known_of(found.elements, None), Refusal.of(error, path)
        known = known_of(found.elements, header)
        if same is not None:
            if len(self._held) >= _HELD:
                self._held.clear()
            self._held[same] = known
        return known, None


def _alike(found: Scan) -> object | None:
    """Give what files that are alike have in common; None for one whose frames say more, or whose pixels may lack."""
    elements, pixels = found.elements, found.pixels
    if elements.sequences or pixels is None:
        return None
    if pixels.length is not None and pixels.there < pixels.length:
        return None
    if pixels.length is None and pixels.there <= 8:
        return None
    placed = len(elements.numbers(0x00200032)) == 3
    values = tuple((tag, value) for tag, value in elements.values.items() if tag not in _OWN)
    return values, elements.order, found.transfer_syntax, pixels.tag, pixels.length, placed
