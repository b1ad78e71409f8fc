"""Checks a lossless JPEG codestream (ISO 10918-1 H) before GDCM decodes it.

GDCM throws on several kinds of damage where nothing catches it, which ends the whole process. What it is given here is
put together again from segments that have each been checked: one start of frame, the Huffman tables, and one scan.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_SOF3, _DHT, _DRI, _SOS = 0xC3, 0xC4, 0xDD, 0xDA
_SKIPPED = frozenset({0xFE, 0xDB, *range(0xE0, 0xF0)})
"""Comments, quantisation tables, which a lossless frame has no use for, and what applications add."""

_MOST_CATEGORIES = 17
"""Differences of 0 to 16 bits (ISO 10918-1 table H.2)."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
"""With its fill bytes (B.1.1.2)."""

_MARKER_AMONG_PIXELS = re.compile(rb"(?<!\xff)" + _MARKER.pattern)
"""Looked for from the first of its fill bytes alone, for otherwise a long run of them takes its length squared."""


class DamagedCodestreamError(Exception):
    """A codestream is not what its standard says; the message tells what."""


@dataclass(frozen=True)
class _Frame:
    precision: int
    components: tuple[int, ...]


def checked(codestream: bytes) -> bytes:
    """Put a lossless JPEG codestream together again from what has been checked.

    Parameters
    ----------
    codestream
        Of one frame, from its start of image on; what follows the end of image is left out.

    Returns
    -------
    The same frame without comments and application data.

    Raises
    ------
    DamagedCodestreamError
        If a segment is damaged, missing, or of another process than lossless Huffman coding in one scan.
    """
    if not codestream.startswith(SOI):
        raise DamagedCodestreamError("no start of image")
    kept, tables = [SOI], set[int]()
    frame: _Frame | None = None
    place = 2
    while True:
        marker, segment, place = _segment(codestream, place)
        if marker in _SKIPPED:
            continue
        kept.append(bytes((0xFF, marker)) + struct.pack(">H", len(segment) + 2) + segment)
        if marker == _SOF3 and frame is None:
            frame = _start_of_frame(segment)
        elif marker == _DHT:
            tables |= _huffman_tables(segment)
        elif marker == _DRI and len(segment) == 2:
            pass
        elif marker == _SOS and frame is not None:
            _start_of_scan(segment, frame, tables)
            return b"".join((*kept, _scan(codestream, place), EOI))
        else:
            raise DamagedCodestreamError(f"a segment FF{marker:02X} where none belongs")


def _segment(codestream: bytes, place: int) -> tuple[int, bytes, int]:
    """Read a marker segment: its marker, what it holds, and the place behind it."""
    found = _MARKER.match(codestream, place)
    if found is None or found.end() + 2 > len(codestream):
        raise DamagedCodestreamError("a segment without its marker")
    length = struct.unpack_from(">H", codestream, found.end())[0]
    end = found.end() + length
    if length < 2 or end > len(codestream):
        raise DamagedCodestreamError("a segment that is too long")
    return found[1][0], codestream[found.end() + 2 : end], end


def _start_of_frame(segment: bytes) -> _Frame:
    """Read a start of frame (B.2.2)."""
    components = segment[6::3]
    sampling = set(segment[7::3])
    whole = len(segment) == 6 + 3 * len(components) and len(components) in (1, 3) and segment[5] == len(components)
    if not whole or sampling != {0x11} or not 2 <= segment[0] <= 16 or len(set(components)) < len(components):
        raise DamagedCodestreamError("a start of frame that is none of lossless JPEG")
    return _Frame(segment[0], tuple(components))


def _huffman_tables(segment: bytes) -> set[int]:
    """Read Huffman tables (B.2.4.2); give their numbers."""
    numbers: set[int] = set()
    while segment:
        counts = segment[1:17]
        symbols = segment[17 : 17 + sum(counts)]
        used = sum(count << (16 - length) for length, count in enumerate(counts, 1))
        # The longest code of ones alone stays free, and codes are as many as there are symbols.
        whole = len(counts) == 16 and len(symbols) == sum(counts) and 0 < len(symbols) <= _MOST_CATEGORIES
        if not whole or segment[0] > 3 or used > 1 << 16 or max(symbols) >= _MOST_CATEGORIES:
            raise DamagedCodestreamError("a damaged Huffman table")
        numbers.add(segment[0])
        segment = segment[17 + len(symbols) :]
    return numbers


def _start_of_scan(segment: bytes, frame: _Frame, tables: set[int]) -> None:
    """Check the header of the one scan (B.2.3, table H.1)."""
    count = len(frame.components)
    if len(segment) != 4 + 2 * count or segment[0] != count:
        raise DamagedCodestreamError("a scan of not all components")
    selectors = {selector >> 4 for selector in segment[2 : 1 + 2 * count : 2]}
    predictor, end, shift = segment[-3:]
    components = tuple(segment[1 : 1 + 2 * count : 2])
    if components != frame.components or not selectors <= tables:
        raise DamagedCodestreamError("a scan of unknown components or tables")
    if not 1 <= predictor <= 7 or end or shift >> 4 or shift >= frame.precision:
        raise DamagedCodestreamError("a scan that is none of lossless JPEG")


def _scan(codestream: bytes, place: int) -> bytes:
    """Give the coded pixels up to the end of image, which only restart markers may come before."""
    for found in _MARKER_AMONG_PIXELS.finditer(codestream, place):
        if found[1] == b"\xd9":
            return codestream[place : found.start()]
        if not 0xD0 <= found[1][0] <= 0xD7:
            raise DamagedCodestreamError(f"a marker FF{found[1][0]:02X} among the pixels")
    raise DamagedCodestreamError("no end of image")
