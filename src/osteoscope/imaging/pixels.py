"""The stored pixels of a DICOM file, whatever they are encoded in.

The codecs are pydicom's plugins, one chosen for each transfer syntax: libjpeg-turbo by way of Pillow, GDCM for lossless
JPEG, CharLS, OpenJPEG, and pydicom's own run lengths. What a compressed frame says of itself is compared with the
header before a codec sees it, so that none is led to take more memory than the header allows.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from osteoscope.imaging import lossless_jpeg
from osteoscope.imaging.headers import DEFLATED, EXPLICIT_BIG, INFLATING, inflate, start_of_deflated
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO

    from numpy.typing import NDArray

    from osteoscope.imaging.headers import PixelElement

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
RLE = "1.2.840.10008.1.2.5"

NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, EXPLICIT_BIG})

_CODECS = {
    JPEG_BASELINE: "pillow",
    JPEG_EXTENDED: "pillow",
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    RLE: "pydicom",
}
"""The plugin of each compressed transfer syntax (PS3.5 A.4) that is read."""

READ = NATIVE | frozenset(_CODECS)
"""Transfer syntaxes that are read."""

LARGEST_FRAME = 100_000_000
"""Bytes of a frame that is not compressed; a stitched long-leg radiograph has about 80 million."""


MOST_FRAGMENTS = 500_000
"""More are refused; a frame has one as a rule, and some dozens at most."""


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How pixels are stored (PS3.3 C.7.6.3).

    Parameters
    ----------
    transfer_syntax
        One of `READ`.
    element
        Where they lie.
    frames, rows, columns, samples
        Their number.
    photometric
        Photometric Interpretation.
    planar
        Whether the colours of a native frame follow each other as planes.
    allocated, stored, high
        Bits Allocated, Bits Stored, High Bit.
    signed
        Pixel Representation.
    offsets
        Extended Offset Table (PS3.3 C.7.6.3), or None.
    """

    transfer_syntax: str
    element: PixelElement
    frames: int
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    high: int
    signed: bool
    offsets: tuple[int, ...] | None = None

    @property
    def native(self) -> bool:
        """Whether the pixels are not compressed."""
        return self.transfer_syntax in NATIVE

    @property
    def frame_bytes(self) -> int:
        """Length in bytes of one frame that is not compressed; a codec takes two for a sample of 8 bits or less."""
        return self.rows * self.columns * self.samples * max(self.allocated // 8, 2)

    @property
    def bytes(self) -> int:
        """Length in bytes that all frames have when they are not compressed, without padding."""
        samples = self.frames * self.rows * self.columns * self.samples
        if self.native and self.photometric == "YBR_FULL_422":
            samples = samples // 3 * 2
        return (samples * self.allocated + 7) // 8


def stored_frames(stream: FileIO, pixels: PixelFormat, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Decode frames to their stored values.

    Parameters
    ----------
    stream
        The file.
    pixels
        What its header says.
    frames
        Indices from 0.

    Yields
    ------
    Whole numbers ``(rows, columns)``, or ``(rows, columns, 3)`` of a picture in colour: RGB.

    Raises
    ------
    RefusedImageError
        If a frame is truncated, damaged, compressed otherwise than it states, or not of the header's shape.
    """
    if pixels.native:
        if pixels.transfer_syntax == DEFLATED:
            # All at once, so that no more than one file is inflated at a time.
            with INFLATING:
                inflated = io.BytesIO(inflate(stream, start_of_deflated(stream)))
                decoded = [_bits(_native(inflated, pixels, index), pixels) for index in frames]
                del inflated
            yield from decoded
            return
        for index in frames:
            yield _bits(_native(stream, pixels, index), pixels)
        return
    pieces = _pieces(stream, pixels)
    for index in frames:
        codestream = b"".join(_piece(stream, offset, length) for offset, length in pieces[index])
        yield _decompressed(codestream, pixels)


def _native(stream: FileIO | io.BytesIO, pixels: PixelFormat, index: int) -> NDArray[Any]:
    """Read a frame that is not compressed; the plain case needs no decoder, which takes longer than to read it."""
    stream.seek(pixels.element.offset)
    if pixels.samples == pixels.allocated == 1 and pixels.transfer_syntax != EXPLICIT_BIG:
        return _single_bits(stream, pixels, index)
    plain = pixels.samples == 1 and pixels.allocated > 1
    if plain and not (pixels.transfer_syntax == EXPLICIT_BIG and pixels.allocated == 8):
        order = ">" if pixels.transfer_syntax == EXPLICIT_BIG else "<"
        length = pixels.rows * pixels.columns * (pixels.allocated // 8)
        stream.seek(index * length, io.SEEK_CUR)
        content = stream.read(length)
        if len(content) < length:
            raise _truncated(f"expected {length} bytes of a frame, found {len(content)}")
        kind = "i" if pixels.signed else "u"
        values = np.frombuffer(content, dtype=f"{order}{kind}{pixels.allocated // 8}")
        return values.reshape(pixels.rows, pixels.columns)
    return _by_pydicom(stream, pixels, index=index, view_only=True)


def _single_bits(stream: FileIO | io.BytesIO, pixels: PixelFormat, index: int) -> NDArray[Any]:
    """Read a frame of single bits, which need not begin with a byte (PS3.5 8.1.1); pydicom takes it that it does."""
    count = pixels.rows * pixels.columns
    byte, bit = divmod(index * count, 8)
    length = (bit + count + 7) // 8
    stream.seek(byte, io.SEEK_CUR)
    content = stream.read(length)
    if len(content) < length:
        raise _truncated(f"expected {length} bytes of a frame, found {len(content)}")
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return bits[bit : bit + count].reshape(pixels.rows, pixels.columns)


def _bits(values: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Take the bits that are stored out of those that are allocated (PS3.5 8.1.1)."""
    above = pixels.allocated - 1 - pixels.high
    unused = pixels.allocated - pixels.stored
    if pixels.allocated == 1 or not unused:
        return values
    native = values.dtype.newbyteorder("=")
    # A right shift of a signed number carries its sign along.
    return (values.astype(native) << above) >> unused


def _by_pydicom(source: FileIO | io.BytesIO | bytes, pixels: PixelFormat, **more: Any) -> NDArray[Any]:
    """Decode a frame by pydicom, which is given what it would take from a data set (PS3.3 C.7.6.3)."""
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": pixels.frames,
        "samples_per_pixel": pixels.samples,
        "photometric_interpretation": pixels.photometric,
        "planar_configuration": int(pixels.planar),
        "bits_allocated": pixels.allocated,
        "bits_stored": pixels.stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": pixels.element.representation or "OW",
        "correct_unused_bits": False,
    }
    decoder = get_decoder(pixels.transfer_syntax)
    try:
        with _quiet(pixels):
            values: NDArray[Any] = decoder.as_array(source, validate=False, **(options | more))[0]
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, OSError, struct.error) as error:
        raise _damaged("its pixels cannot be decoded") from error
    return values


_QUIET = threading.Lock()
"""catch_warnings is not safe among threads."""


@contextlib.contextmanager
def _quiet(pixels: PixelFormat) -> Iterator[None]:
    """Keep to ourselves what pydicom warns of: padding of run lengths, and which colours a codestream holds."""
    if pixels.transfer_syntax != RLE and pixels.samples == 1:
        yield
        return
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pieces(stream: FileIO, pixels: PixelFormat) -> list[list[tuple[int, int]]]:
    """Find the fragments of each frame (PS3.5 A.4).

    Returns
    -------
    For each frame, the offsets in the file and the lengths of its fragments in bytes.

    Raises
    ------
    RefusedImageError
        If a fragment is damaged or truncated, or there are fewer than frames.
    """
    (table, size), *fragments = _fragments(stream, pixels.element.offset)
    base = table + size
    found = len(fragments)
    if found < pixels.frames:
        raise _unfit(f"expected {pixels.frames} compressed frames, found {found}")
    if found == pixels.frames:
        return [[fragment] for fragment in fragments]
    starts = _stated_starts(stream, pixels, table, size)
    if len(starts) == pixels.frames and set(starts) <= {place - 8 - base for place, _ in fragments}:
        edges = np.searchsorted([place - 8 - base for place, _ in fragments], [*starts[1:], np.iinfo(np.int64).max])
        return [[*fragments[i:j]] for i, j in zip([0, *edges[:-1]], edges, strict=True)]
    return _by_ends(stream, pixels, fragments)


def _fragments(stream: FileIO, place: int) -> list[tuple[int, int]]:
    """List the places and lengths of the items that pixels are encapsulated in, of which the first is a table."""
    end = stream.seek(0, io.SEEK_END)
    items = []
    while place + 8 <= end:
        stream.seek(place)
        group, number, length = struct.unpack("<HHL", stream.read(8))
        if (group, number) == (0xFFFE, 0xE0DD):
            break
        if (group, number) != (0xFFFE, 0xE000):
            raise _damaged("the fragments of its compressed pixels are damaged")
        place += 8
        if place + length > end:
            raise _truncated("its compressed pixels end within a fragment")
        items.append((place, length))
        if len(items) > MOST_FRAGMENTS:
            raise _damaged(f"it has more than {MOST_FRAGMENTS} fragments of compressed pixels")
        place += length
    if len(items) < 2:
        raise _truncated("expected compressed pixels, found none")
    return items


def _stated_starts(stream: FileIO, pixels: PixelFormat, table: int, size: int) -> Sequence[int]:
    """Give where the frames start as the extended or the basic offset table says, from the first fragment's item."""
    if pixels.offsets is not None:
        return pixels.offsets
    stream.seek(table)
    return struct.unpack(f"<{size // 4}L", stream.read(size // 4 * 4))


def _by_ends(stream: FileIO, pixels: PixelFormat, fragments: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group fragments by the markers that end a codestream, where no table says which frame they belong to."""
    grouped: list[list[tuple[int, int]]] = [[]]
    for place, length in fragments:
        grouped[-1].append((place, length))
        tail = _piece(stream, place + max(length - _TAIL, 0), min(length, _TAIL))
        if _END in tail:
            grouped.append([])
    whole = [group for group in grouped if group]
    # Run lengths have no end marker, but may hold its bytes.
    if pixels.frames == 1 and (len(whole) <= 1 or pixels.transfer_syntax == RLE):
        return [fragments]
    if len(whole) != pixels.frames:
        raise _unfit(f"expected {pixels.frames} compressed frames, found {len(whole)}")
    return whole


_END = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000."""

_TAIL = 10
"""Bytes at the end of a fragment in which the end of a codestream is looked for; one may be padding."""


def _piece(stream: FileIO, place: int, length: int) -> bytes:
    stream.seek(place)
    return stream.read(length)


def _decompressed(codestream: bytes, pixels: PixelFormat) -> NDArray[Any]:
    """Decode one frame, after what it says of itself has been compared with the header."""
    codec = _CODECS[pixels.transfer_syntax]
    if pixels.transfer_syntax.startswith(_JPEG_2000):
        codestream = _unwrapped(codestream)
    if pixels.transfer_syntax == RLE:
        _check_run_lengths(codestream, pixels)
        precision = pixels.stored
    else:
        precision = _checked_precision(codestream, pixels)
    if codec == "gdcm":
        return _lossless_jpeg(codestream, precision, pixels)
    encapsulated = encapsulate([codestream], has_bot=False)
    values = _by_pydicom(encapsulated, pixels, index=0, number_of_frames=1, decoding_plugin=codec)
    return values if codec in _SIGN_AWARE else _bits(values, pixels)


def _check_run_lengths(codestream: bytes, pixels: PixelFormat) -> None:
    """Refuse a frame of which a segment unpacks to far more bytes than the header allows (PS3.5 G.3).

    Two bytes may stand for 128, and pydicom unpacks them all before it looks.
    """
    most = _TIMES_TOO_LONG * pixels.rows * pixels.columns
    starts = [start for start in struct.unpack("<16L", codestream[:64].ljust(64, b"\0"))[1:] if start]
    for first, last in itertools.pairwise([*starts, len(codestream)]):
        place, unpacked = first, 0
        while place < min(last, len(codestream)) and unpacked <= most:
            control = codestream[place]
            unpacked += 257 - control if control > 128 else control + 1 if control < 128 else 0
            place += 2 if control > 128 else control + 2 if control < 128 else 1
        if unpacked > most:
            raise _unfit(f"expected run lengths of {pixels.rows * pixels.columns} bytes a segment, found far more")


_TIMES_TOO_LONG = 2
"""What is behind the end of a segment is left out, but not unpacked without bounds."""


def _lossless_jpeg(codestream: bytes, precision: int, pixels: PixelFormat) -> NDArray[Any]:
    """Decode by GDCM, which ends the process where a codestream is damaged or the bits stored are not all allocated."""
    try:
        encapsulated = encapsulate([lossless_jpeg.checked(codestream)], has_bot=False)
    except lossless_jpeg.DamagedCodestreamError as error:
        raise _damaged(f"its compressed pixels are damaged: {error}") from error
    bits = 8 if precision <= 8 else 16
    as_coded = {"bits_allocated": bits, "bits_stored": bits, "pixel_representation": 0}
    options = {"number_of_frames": 1, "decoding_plugin": "gdcm", **as_coded}
    values = _by_pydicom(encapsulated, pixels, index=0, **options).astype(f"u{pixels.allocated // 8}")
    return _bits(values.view(f"i{pixels.allocated // 8}") if pixels.signed else values, pixels)


_SIGN_AWARE = ("pyjpegls", "pylibjpeg")
"""Codecs whose values pydicom has already carried to the signedness that the header states."""


@dataclass(frozen=True, kw_only=True)
class _Coded:
    """What a codestream says of itself."""

    rows: int
    columns: int
    samples: int
    precision: int


def _checked_precision(codestream: bytes, pixels: PixelFormat) -> int:
    """Compare a codestream with the header; give the bits of its samples."""
    coded = _siz(codestream) if pixels.transfer_syntax.startswith(_JPEG_2000) else _sof(codestream)
    if coded is None:
        raise _damaged("its compressed pixels do not begin as their compression requires")
    if _END not in codestream[-_TAIL:] and not codestream.rstrip(b"\0\xff").endswith(_END):
        raise _truncated("its compressed pixels end before their end marker")
    if pixels.transfer_syntax in (JPEG_BASELINE, JPEG_EXTENDED) and coded.precision != 8:
        found = f"expected JPEG of 8 bits, found {coded.precision} bits, which no decoder here reads"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_COMPRESSION, found, remedy=_UNCOMPRESSED)
    expected = (pixels.rows, pixels.columns, pixels.samples)
    # A height of 0 is stated behind the pixels (ISO 10918-1 B.2.5).
    if (coded.rows or pixels.rows, coded.columns, coded.samples) != expected:
        said = "{} rows, {} columns and {} samples".format(*expected)
        found = f"{coded.rows}, {coded.columns} and {coded.samples}"
        raise _unfit(f"expected {said} as the header states, found {found} compressed")
    if coded.precision > pixels.allocated:
        raise _unfit(f"expected at most the {pixels.allocated} bits allocated, found {coded.precision} compressed")
    return coded.precision


_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")

_UNCOMPRESSED = "export it without compression"


def _unwrapped(codestream: bytes) -> bytes:
    """Take a JPEG 2000 codestream out of a JP2 file (ISO 15444-1 I.5.4)."""
    if not codestream.startswith(b"\x00\x00\x00\x0cjP  "):
        return codestream
    place = 12
    while place + 8 <= len(codestream):
        length, kind = struct.unpack_from(">L4s", codestream, place)
        if kind == b"jp2c":
            return codestream[place + 8 :]
        if length < 8:
            break
        place += length
    return b""


def _siz(codestream: bytes) -> _Coded | None:
    """Read the first marker segment of JPEG 2000 (ISO 15444-1 A.5.1)."""
    if not codestream.startswith(b"\xff\x4f\xff\x51") or len(codestream) < 43:
        return None
    width, height, left, top = struct.unpack_from(">LLLL", codestream, 8)
    samples, depth = struct.unpack_from(">HB", codestream, 40)
    return _Coded(rows=height - top, columns=width - left, samples=samples, precision=(depth & 0x7F) + 1)


def _sof(codestream: bytes) -> _Coded | None:
    """Read the start of frame of JPEG (ISO 10918-1 B.2.2) or JPEG-LS (ISO 14495-1 C.2.2)."""
    place = 2 if codestream.startswith(b"\xff\xd8") else len(codestream)
    while place + 10 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        if marker in _FRAME_STARTS:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", codestream, place + 4)
            return _Coded(rows=rows, columns=columns, samples=samples, precision=precision)
        # Any number of fill bytes may stand before a marker.
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", codestream, place + 2)[0]
    return None


_FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def _damaged(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.DAMAGED, found, remedy="copy or export it again, or leave it out")


def _truncated(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.TRUNCATED_PIXELS, found, remedy="copy or export it again")


def _unfit(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.INCONSISTENT_PIXELS, found, remedy="export it again, or leave it out")
