"""Walks the elements of a DICOM file up to its pixels, and keeps those that an image's place and values depend on.

pydicom reads every element of a file into an object, which costs more than everything else when thousands of slices are
looked at; it follows sequences as deep as they go, inflates a deflated file without bound, and logs values of elements.
This walk keeps a closed list of elements, skips all others by their lengths, and is bounded in depth, elements and
bytes. The pixels are left to pydicom's decoders (`osteoscope.imaging.pixels`).

The encoding is that of PS3.5 7.1 (elements), 7.5 (sequences) and A (transfer syntaxes), and of PS3.10 7.1 (the head of
a file). What files in use get wrong is taken as it is meant: a missing preamble or file meta information, another
encoding than the stated one, single elements in implicit VR within explicit ones, a last sequence without its end.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from io import FileIO

LARGEST_INFLATED = 256_000_000
"""Bytes that a deflated file may inflate to; more is refused, since it has to be held in memory."""

MOST_ELEMENTS = 2_000_000
"""More elements are refused; an enhanced object of 4,000 frames has about a quarter as many."""

MOST_ITEMS = 200_000
"""More items of kept sequences are refused; that object has about 50,000."""

LARGEST_VALUES = 64_000_000
"""Bytes of the elements that are kept; the largest lookup tables have 131,072."""

DEEPEST = 8
"""Sequences of functional groups are nested three deep; what lies deeper is skipped."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

PIXEL_DATA = 0x7FE00010
FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_PIXEL_DATA = 0x7FE00009
_PIXELS = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA})

_SEQUENCES = frozenset(
    {
        0x00189114,  # MR Echo
        0x00189117,  # MR Diffusion
        0x00189118,  # Cardiac Synchronization
        0x00189226,  # MR Image Frame Type
        0x00189329,  # CT Image Frame Type
        0x00209111,  # Frame Content
        0x00209113,  # Plane Position
        0x00209116,  # Plane Orientation
        0x00209310,  # Temporal Position
        0x00283000,  # Modality LUT
        0x00289110,  # Pixel Measures
        0x00289145,  # Pixel Value Transformation
        0x52009229,  # Shared Functional Groups
        0x52009230,  # Per-Frame Functional Groups
    }
)

# The binary type of each element that is no text, by struct's letter: implicit VR does not say it.
_BINARY = {
    0x00189082: "d",  # Effective Echo Time
    0x00189087: "d",  # Diffusion b-value
    0x00209057: "L",  # In-Stack Position Number
    0x00209128: "L",  # Temporal Position Index
    0x00209153: "d",  # Nominal Cardiac Trigger Delay Time
    0x00209156: "H",  # Frame Acquisition Number
    0x0020930D: "d",  # Temporal Position Time Offset
    0x00280002: "H",  # Samples per Pixel
    0x00280006: "H",  # Planar Configuration
    0x00280010: "H",  # Rows
    0x00280011: "H",  # Columns
    0x00280100: "H",  # Bits Allocated
    0x00280101: "H",  # Bits Stored
    0x00280102: "H",  # High Bit
    0x00280103: "H",  # Pixel Representation
    0x00280120: "H",  # Pixel Padding Value
    0x00280121: "H",  # Pixel Padding Range Limit
    0x00281101: "H",  # Red Palette Color Lookup Table Descriptor
    0x00281102: "H",  # Green
    0x00281103: "H",  # Blue
    0x00281201: "H",  # Red Palette Color Lookup Table Data
    0x00281202: "H",  # Green
    0x00281203: "H",  # Blue
    0x00283002: "H",  # LUT Descriptor
    0x00283006: "H",  # LUT Data
    0x7FE00001: "Q",  # Extended Offset Table
    0x7FE00002: "Q",  # Extended Offset Table Lengths
}

PERSON = (0x00100010, 0x00100020, 0x00100030)
"""Patient's Name, Patient ID, Patient's Birth Date: kept for a digest alone, and never shown."""

_TEXT = frozenset(
    {
        *PERSON,
        0x00080008,  # Image Type
        0x00080016,  # SOP Class UID
        0x0008002A,  # Acquisition DateTime
        0x00080032,  # Acquisition Time
        0x00080060,  # Modality
        0x00080068,  # Presentation Intent Type
        0x00080070,  # Manufacturer
        0x0008103E,  # Series Description
        0x00081090,  # Manufacturer's Model Name
        0x00089007,  # Frame Type
        0x00100040,  # Patient's Sex
        0x00101010,  # Patient's Age
        0x00180050,  # Slice Thickness
        0x00180060,  # KVP
        0x00180081,  # Echo Time
        0x00180082,  # Inversion Time
        0x00180086,  # Echo Numbers
        0x00181030,  # Protocol Name
        0x00181060,  # Trigger Time
        0x00181164,  # Imager Pixel Spacing
        0x00181210,  # Convolution Kernel
        0x00181314,  # Flip Angle
        0x00182010,  # Nominal Scanned Pixel Spacing
        0x0020000D,  # Study Instance UID
        0x0020000E,  # Series Instance UID
        0x00200011,  # Series Number
        0x00200012,  # Acquisition Number
        0x00200032,  # Image Position (Patient)
        0x00200037,  # Image Orientation (Patient)
        0x00200052,  # Frame of Reference UID
        0x00200100,  # Temporal Position Identifier
        0x00209056,  # Stack ID
        0x00280004,  # Photometric Interpretation
        0x00280008,  # Number of Frames
        0x00280030,  # Pixel Spacing
        0x00280034,  # Pixel Aspect Ratio
        0x00280A02,  # Pixel Spacing Calibration Type
        0x00281052,  # Rescale Intercept
        0x00281053,  # Rescale Slope
        0x00281054,  # Rescale Type
    }
)

_KEPT = _TEXT | frozenset(_BINARY)

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Value representations whose length has 32 bits after two reserved bytes (PS3.5 table 7.1-1)."""

_OF_REPRESENTATION = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_NEVER_SKIPPED = _SEQUENCES | _PIXELS | {_ITEM, _ITEM_END, _SEQUENCE_END}
"""Elements that are not skipped by their length alone, beside those that are kept."""

_NONE: frozenset[int] = frozenset()

_CHUNK = 32768

_BLANK = " \0\t\r\n"
"""What may pad a text."""


def _letter(tag: int, representation: bytes) -> str | None:
    """Give struct's letter for an element's numbers; None where they are text."""
    if representation and representation not in _LONG:
        return _OF_REPRESENTATION.get(representation)
    return _OF_REPRESENTATION.get(representation) or _BINARY.get(tag)


@dataclass(frozen=True, kw_only=True, eq=False)
class Elements:
    """The kept elements of a data set or of an item of a sequence.

    Parameters
    ----------
    values
        By tag, the value representation (empty in implicit VR) and the bytes.
    sequences
        By tag, the items.
    order
        ``<`` or ``>``.
    """

    order: str
    values: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    sequences: dict[int, list[Elements]] = field(default_factory=dict)

    def __contains__(self, tag: int) -> bool:
        return tag in self.values

    def words(self, tag: int) -> tuple[str, ...]:
        """Give the values of a text; none where the element is missing or empty."""
        if tag not in self.values:
            return ()
        text = self.values[tag][1].decode("ascii", "replace").strip(_BLANK)
        return tuple([word.strip(_BLANK) for word in text.split("\\")]) if text else ()

    def word(self, tag: int) -> str:
        """Give the first value of a text; empty where there is none."""
        return next(iter(self.words(tag)), "")

    def numbers(self, tag: int, *, signed: bool = False) -> tuple[float, ...]:
        """Give the values of a number, binary or text; none where it is missing, or any of them is no finite number.

        Parameters
        ----------
        tag
            The element.
        signed
            Whether a 16-bit number of ambiguous representation (US or SS) is the latter.
        """
        if tag not in self.values:
            return ()
        representation, value = self.values[tag]
        letter = _letter(tag, representation)
        if letter is None:
            return _parsed(value)
        if signed and letter == "H" and not representation:
            letter = "h"
        count = len(value) // struct.calcsize("=" + letter)
        numbers = struct.unpack_from(f"{self.order}{count}{letter}", value)
        return numbers if all(map(math.isfinite, numbers)) else ()

    def number(self, tag: int, *, signed: bool = False) -> float | None:
        """Give the first value of a number, or None."""
        return next(iter(self.numbers(tag, signed=signed)), None)

    def integer(self, tag: int) -> int | None:
        """Give the first value of a whole number, or None."""
        number = self.number(tag)
        return int(number) if number is not None and number == int(number) else None

    def shown(self, tag: int) -> str:
        """Give an element's values as text, divided by backslashes."""
        if tag not in self.values or _letter(tag, self.values[tag][0]) is None:
            return "\\".join(self.words(tag))
        return "\\".join(f"{number:g}" for number in self.numbers(tag))

    def item(self, tag: int) -> Elements | None:
        """Give the first item of a sequence, or None."""
        return next(iter(self.sequences.get(tag, ())), None)


@dataclass(frozen=True, kw_only=True)
class PixelElement:
    """Where the pixels lie in a file, or, of a deflated one, in what it inflates to.

    Parameters
    ----------
    tag
        `PIXEL_DATA`, `FLOAT_PIXEL_DATA` or `DOUBLE_PIXEL_DATA`.
    representation
        Value representation, empty in implicit VR.
    offset
        Of the first byte of the value.
    length
        Bytes of the value as stated; None where it is encapsulated (PS3.5 A.4).
    there
        Bytes from the offset to the end of the file.
    """

    tag: int
    representation: str
    offset: int
    length: int | None
    there: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What was found in a file.

    Parameters
    ----------
    transfer_syntax
        That of the file meta information; where there is none, or the bytes are in the other order, one that they fit.
    elements
        Those kept.
    pixels
        None where the file has no pixel data.
    """

    transfer_syntax: str
    elements: Elements
    pixels: PixelElement | None


def scan(stream: FileIO, *, also: frozenset[int] = _NONE) -> Scan:
    """Walk a file's elements up to its pixels.

    Parameters
    ----------
    stream
        An unbuffered file that can be sought.
    also
        Texts that are kept beside what an image's place and values depend on.

    Raises
    ------
    RefusedImageError
        If it is no DICOM file, ends within an element, or exceeds one of the bounds.
    OSError
        If it cannot be read.
    """
    window = _Window(stream, os.fstat(stream.fileno()).st_size)
    start = _start_of_elements(window)
    stated, start = _meta(window, start)
    if stated == DEFLATED:
        # One at a time, since what a file inflates to may fill much memory.
        with INFLATING:
            return _scanned(_Window.over(inflate(stream, start)), 0, stated, also)
    return _scanned(window, start, stated, also)


INFLATING = threading.Lock()
"""Held by whoever has the inflated bytes of a file."""


def _scanned(window: _Window, start: int, stated: str, also: frozenset[int]) -> Scan:
    syntax = _Syntax.found(window, start, stated)
    walk = _Walk(window, *_kept_and_stops(also))
    elements = Elements(order=syntax.order)
    walk.through(start, window.size, syntax, elements)
    # Between the little endian encodings only the elements differ, and those have been read.
    taken = stated if stated and syntax.order == _Syntax.stated(stated).order else syntax.uid
    return Scan(transfer_syntax=taken, elements=elements, pixels=walk.pixels)


@functools.cache
def _kept_and_stops(also: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Give the elements that are kept, and those that are not skipped by their length alone."""
    return _KEPT | also, _KEPT | also | _NEVER_SKIPPED


def inflate(stream: FileIO, start: int) -> bytes:
    """Inflate the data set of a deflated file (PS3.5 A.5), bounded.

    Parameters
    ----------
    stream
        The file.
    start
        Where the deflated bytes begin: behind the file meta information.

    Raises
    ------
    RefusedImageError
        If it inflates to more than `LARGEST_INFLATED` bytes, or is damaged.
    """
    stream.seek(start)
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, total = [], 0
    try:
        while not machine.eof and (packed := machine.unconsumed_tail or stream.read(_CHUNK)):
            part = machine.decompress(packed, LARGEST_INFLATED - total + 1)
            total += len(part)
            parts.append(part)
            if total > LARGEST_INFLATED:
                found = f"expected at most {LARGEST_INFLATED // 10**6} MB once inflated, found more"
                raise RefusedImageError(RefusalCode.TOO_LARGE, found, remedy="export it without deflation")
    except zlib.error as error:
        raise _damaged(f"the deflated data set cannot be inflated: {error}") from error
    return b"".join(parts)


def start_of_deflated(stream: FileIO) -> int:
    """Find where the deflated bytes of a file begin."""
    window = _Window(stream, os.fstat(stream.fileno()).st_size)
    return _meta(window, _start_of_elements(window))[1]


def _ends_within(tag: int) -> RefusedImageError:
    return _damaged(f"the file ends within the element ({tag >> 16:04X},{tag & 0xFFFF:04X})")


def _damaged(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.DAMAGED, found, remedy="copy or export it again, or leave it out")


def _too_large(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.TOO_LARGE, found, remedy="leave it out")


def _parsed(text: bytes) -> tuple[float, ...]:
    """Read decimal strings; some writers use their country's comma."""
    try:
        numbers = tuple(map(float, text.strip(b" \0").replace(b",", b".").split(b"\\")))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


class _Window:
    """A part of a file in memory, moved along as it is read."""

    def __init__(self, stream: FileIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self.start = 0
        self.buffer = b""

    @classmethod
    def over(cls, content: bytes) -> _Window:
        """Give all of some bytes."""
        window = cls.__new__(cls)
        window.size, window.start, window.buffer = len(content), 0, content
        return window

    def move(self, place: int, length: int) -> None:
        """Make the bytes from a place on available, as many as asked for or as there are."""
        if self.start <= place and place + length <= self.start + len(self.buffer):
            return
        if self.start + len(self.buffer) == self.size and self.start <= place:
            return
        self._stream.seek(place)
        self.buffer = self._stream.read(min(max(length, _CHUNK), max(self.size - place, 0)))
        self.start = place

    def bytes(self, place: int, length: int) -> bytes:
        """Give some bytes, fewer at the end of the file."""
        self.move(place, length)
        inside = place - self.start
        return self.buffer[inside : inside + length]


def _start_of_elements(window: _Window) -> int:
    """Find the first element: behind the preamble (PS3.10 7.1), or at the start where a file has none."""
    if window.bytes(128, 4) == b"DICM":
        return 132
    start = window.bytes(0, 8)
    if start[:4] == b"DICM":
        return 4
    # Groups 2 and 8 come first; their lengths are short, in either byte order and representation.
    if len(start) == 8 and start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02"):
        order = "<" if start[1] == 0 else ">"
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        length = (
            struct.unpack_from(order + "H", start, 6)[0] if explicit else struct.unpack_from(order + "L", start, 4)[0]
        )
        if length <= min(window.size, 65536):
            return 0
    found = "expected a DICOM file, found bytes that do not begin like one"
    raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, found, remedy="name DICOM, NIfTI or picture files")


def _meta(window: _Window, place: int) -> tuple[str, int]:
    """Read the file meta information, always explicit little endian: its transfer syntax, and where it ends."""
    stated = ""
    while True:
        head = window.bytes(place, 12)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return stated, place
        representation, length = head[4:6], struct.unpack_from("<H", head, 6)[0]
        if not (representation.isalpha() and representation.isupper()):
            length, skipped = struct.unpack_from("<L", head, 4)[0], 8
        elif representation in _LONG and len(head) == 12:
            length, skipped = struct.unpack_from("<L", head, 8)[0], 12
        else:
            skipped = 8
        if head[2:4] == b"\x10\x00":
            stated = window.bytes(place + skipped, min(length, 128)).decode("ascii", "replace").strip(" \0")
        place += skipped + length


class _Syntax:
    """How elements are encoded."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.explicit = uid != IMPLICIT_LITTLE
        self.order = ">" if uid == EXPLICIT_BIG else "<"
        self.head = struct.Struct(self.order + "HH2sH").unpack_from
        self.wide = struct.Struct(self.order + "L").unpack_from

    @staticmethod
    def stated(uid: str) -> _Syntax:
        """Give what a file states; all that are neither implicit nor big endian are explicit little endian."""
        return {IMPLICIT_LITTLE: _IMPLICIT, EXPLICIT_BIG: _BIG}.get(uid, _EXPLICIT)

    @staticmethod
    def found(window: _Window, place: int, uid: str) -> _Syntax:
        """Look at the first element, since some files are encoded otherwise than they state."""
        head = window.bytes(place, 8)
        if len(head) < 8:
            return _Syntax.stated(uid)
        # The first group is 8 or another small one: the byte that is not 0 comes first in little endian.
        if head[0] == 0 and head[1] != 0:
            return _BIG
        return _EXPLICIT if head[4:6].isalpha() and head[4:6].isupper() else _IMPLICIT


_IMPLICIT, _EXPLICIT, _BIG = _Syntax(IMPLICIT_LITTLE), _Syntax(EXPLICIT_LITTLE), _Syntax(EXPLICIT_BIG)


class _Walk:
    """Goes through the elements of a file."""

    def __init__(self, window: _Window, kept: frozenset[int], stops: frozenset[int]) -> None:
        self._window = window
        self._kept = kept
        self._stops = stops
        self._elements_left = MOST_ELEMENTS
        self._items_left = MOST_ITEMS
        self._bytes_left = LARGEST_VALUES
        self.pixels: PixelElement | None = None

    def through(self, place: int, end: int, syntax: _Syntax, into: Elements, depth: int = 0) -> int:
        """Keep what is kept of the elements from a place on; give where they end, at the latest at the pixels.

        Raises
        ------
        RefusedImageError
            If an element reaches beyond the end.
        """
        while (found := self._next(place, end, syntax)) is not None:
            tag, representation, value, length = found
            if tag in self._kept and length != _UNDEFINED:
                place = value + length
                self._keep(tag, representation, value, length, into)
                if place > end:
                    raise _ends_within(tag)
                continue
            if tag == _ITEM_END:
                return value
            if tag in _PIXELS and depth == 0:
                self.pixels = PixelElement(
                    tag=tag,
                    representation=representation.decode("latin-1"),
                    offset=value,
                    length=None if length == _UNDEFINED else length,
                    there=self._window.size - value,
                )
                return value
            place = self._take(tag, representation, value, length, syntax, into, depth)
            if place > end:
                raise _ends_within(tag)
        return end

    def _keep(self, tag: int, representation: bytes, value: int, length: int, into: Elements) -> None:
        """Keep an element's bytes."""
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise _too_large(f"expected at most {LARGEST_VALUES // 10**6} MB in its header, found more")
        window = self._window
        inside = value - window.start
        if inside >= 0 and inside + length <= len(window.buffer):
            into.values[tag] = representation, window.buffer[inside : inside + length]
        else:
            into.values[tag] = representation, window.bytes(value, length)

    def _take(
        self, tag: int, representation: bytes, value: int, length: int, syntax: _Syntax, into: Elements, depth: int
    ) -> int:
        """Go through a sequence, or skip an element; give the place behind it."""
        # PS3.5 6.2.2: what a sequence of unknown representation holds is implicit little endian.
        inner = _IMPLICIT if representation == b"UN" else syntax
        if tag in _SEQUENCES and depth < DEEPEST and representation in (b"SQ", b"UN", b""):
            into.sequences[tag], place = self._items(value, length, inner, depth)
            return place
        return self._behind(value, inner) if length == _UNDEFINED else value + length

    def _next(self, place: int, end: int, syntax: _Syntax) -> tuple[int, bytes, int, int] | None:
        """Find the next element that cannot be skipped by its length: its tag, representation, place and length."""
        window, explicit, head, wide = self._window, syntax.explicit, syntax.head, syntax.wide
        stops = self._stops
        buffer, start = window.buffer, window.start
        inside, last = place - start, min(end - start, len(buffer)) - 12
        while True:
            if not 0 <= inside <= last:
                place = start + inside
                if place + 8 > end:
                    if place > end:
                        raise _damaged("the file ends within an element")
                    return None
                window.move(place, 12)
                buffer, start = window.buffer, window.start
                # An element at the very end may have no more than 8 bytes; those that seem to follow are not looked at.
                inside, last = place - start, max(min(end - start, len(buffer)) - 12, place - start)
                buffer = buffer if inside + 12 <= len(buffer) else buffer + bytes(12)
            self._elements_left -= 1
            if not self._elements_left:
                raise _too_large(f"expected at most {MOST_ELEMENTS} elements, found more")
            group, number, representation, length = head(buffer, inside)
            skipped = 8
            if explicit and representation in _LONG:
                length, skipped = wide(buffer, inside + 8)[0], 12
            elif not explicit or not b"AA" <= representation <= b"ZZ" or group == 0xFFFE:
                representation, length = b"", wide(buffer, inside + 4)[0]
            tag = group << 16 | number
            if tag in stops or length == _UNDEFINED:
                return tag, representation, start + inside + skipped, length
            inside += skipped + length

    def _items(self, place: int, length: int, syntax: _Syntax, depth: int) -> tuple[list[Elements], int]:
        """Read the items of a sequence; give them and the place behind it."""
        end = self._window.size if length == _UNDEFINED else place + length
        items: list[Elements] = []
        if end > self._window.size:
            raise _damaged("the file ends within a sequence")
        while (found := self._next(place, end, syntax)) is not None:
            tag, _, value, size = found
            if tag == _SEQUENCE_END:
                return items, value
            if tag != _ITEM:
                raise _damaged("a sequence holds something that is no item")
            self._items_left -= 1
            if not self._items_left:
                raise _too_large(f"expected at most {MOST_ITEMS} items of sequences, found more")
            item = Elements(order=syntax.order)
            last = end if size == _UNDEFINED else value + size
            if last > end:
                raise _damaged("an item is longer than its sequence")
            place = self.through(value, last, syntax, item, depth + 1)
            items.append(item)
        return items, end

    def _behind(self, place: int, syntax: _Syntax) -> int:
        """Find the end of a sequence of undefined length, however deep it goes."""
        end = self._window.size
        within = [syntax]  # of every sequence and item of undefined length that is open
        while within and (found := self._next(place, end, within[-1])) is not None:
            tag, representation, place, length = found
            if tag in (_ITEM_END, _SEQUENCE_END):
                within.pop()
            elif length == _UNDEFINED:
                within.append(_IMPLICIT if representation == b"UN" else within[-1])
            else:
                place += length
        return place if not within else end
