from __future__ import annotations

import time

import numpy as np
import pytest
from dicom_files import lossless_jpeg

from osteoscope.imaging.lossless_jpeg import EOI, SOI, DamagedCodestreamError, checked


@pytest.fixture
def codestream() -> bytes:
    return lossless_jpeg(np.arange(24).reshape(4, 6) * 100, 16)


def test_a_sound_codestream_stays_as_it_is(codestream: bytes) -> None:
    assert checked(codestream) == codestream


def test_comments_and_what_follows_the_end_are_left_out(codestream: bytes) -> None:
    comment = b"\xff\xfe\x00\x07Hello" + b"\xff\xe0\x00\x04ab" + b"\xff\xff\xff\xfe\x00\x02"
    assert checked(SOI + comment + codestream[2:] + b"\x00\xff\xd9rest") == codestream


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 10, 30, -1, -2])
def test_a_truncated_codestream_is_refused(codestream: bytes, kept: int) -> None:
    with pytest.raises(DamagedCodestreamError):
        checked(codestream[:kept])


# Each changes a byte found behind a marker: its offset from the marker, and what is written there.
@pytest.mark.parametrize(
    ("marker", "offset", "byte", "match"),
    [
        (b"\xff\xc3", 1, 0xC0, "FFC0"),  # another process
        (b"\xff\xc3", 4, 1, "start of frame"),  # a precision of 1 bit
        (b"\xff\xc3", 9, 2, "start of frame"),  # 2 components in a segment for 1
        (b"\xff\xc3", 11, 0x21, "start of frame"),  # sampled twice across
        (b"\xff\xc4", 4, 0x14, "Huffman"),  # an AC table
        (b"\xff\xc4", 5, 0xFF, "Huffman"),  # 255 codes of 1 bit
        (b"\xff\xc4", 21, 200, "Huffman"),  # differences of 200 bits
        (b"\xff\xda", 5, 9, "unknown components"),
        (b"\xff\xda", 6, 0x30, "unknown components or tables"),
        (b"\xff\xda", 7, 0, "none of lossless"),  # predictor 0
        (b"\xff\xda", 7, 8, "none of lossless"),
        (b"\xff\xda", 9, 0x0F, None),  # a shift of 15 bits leaves one of 16
    ],
)
def test_a_damaged_segment_is_refused(
    codestream: bytes, marker: bytes, offset: int, byte: int, match: str | None
) -> None:
    changed = bytearray(codestream)
    changed[codestream.index(marker) + offset] = byte
    if match is None:
        checked(bytes(changed))
        return
    with pytest.raises(DamagedCodestreamError, match=match):
        checked(bytes(changed))


def test_markers_among_the_pixels_are_refused_but_for_restarts(codestream: bytes) -> None:
    assert checked(codestream[:-2] + b"\xff\xd0\x00" + EOI) == codestream[:-2] + b"\xff\xd0\x00" + EOI
    for marker in (b"\xff\xd8", b"\xff\xc4", b"\xff\x01"):
        with pytest.raises(DamagedCodestreamError, match="among the pixels"):
            checked(codestream[:-2] + marker + EOI)


def test_a_segment_may_end_in_a_byte_that_fills(codestream: bytes) -> None:
    assert checked(SOI + b"\xff\xfe\x00\x04a\xff" + codestream[2:]) == codestream


def test_a_long_run_of_fill_bytes_is_read_once(codestream: bytes) -> None:
    fill = b"\xff" * 100_000
    started = time.process_time()
    assert checked(codestream[:-2] + fill + b"\x00\x01" + fill + EOI) == codestream[:-2] + fill + b"\x00\x01" + EOI
    # Looked through anew from each of its bytes, 1 MB of them would take an hour.
    assert time.process_time() - started < 1
