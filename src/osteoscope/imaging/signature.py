"""Tells what a file is by its first bytes, whatever its name."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Literal, get_args

START = 4096
"""So many first bytes of a file are enough to tell what it is."""

Format = Literal["DICOM", "NIfTI", "MetaImage", "NRRD", "JPEG", "PNG", "TIFF", "BMP"]
FORMATS: tuple[Format, ...] = get_args(Format)

Kind = Literal[Format, "zip", "packed", "companion", "unknown"]
"""A format that is read, an archive (``packed`` is any but zip), what lies beside images, or anything else."""

_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"NRRD0", "NRRD"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"\x1f\x8b", "packed"),
    (b"BZh", "packed"),
    (b"\xfd7zXZ\x00", "packed"),
    (b"7z\xbc\xaf\x27\x1c", "packed"),
    (b"Rar!\x1a\x07", "packed"),
    (b"\x28\xb5\x2f\xfd", "packed"),
    (b"%PDF-", "companion"),
    (b"{\\rtf", "companion"),
    (b"GIF8", "companion"),
    (b"\x00\x00\x01\x00", "companion"),  # an icon
    (b"MZ", "companion"),  # the viewer on a patient's disc, and its libraries
    (b"\x7fELF", "companion"),
    (b"\xca\xfe\xba\xbe", "companion"),
    (b"\xcf\xfa\xed\xfe", "companion"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "companion"),  # older office documents
    (b"SQLite format 3\x00", "companion"),
)

_BITMAP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
"""Sizes of the header behind a bitmap's first 14 bytes; a text may begin with its two letters."""

# First members by which a zip is known as a document, a program or an array.
_DOCUMENT_MEMBERS = (b"[Content_Types].xml", b"mimetype", b"_rels/", b"docProps/", b"word/", b"xl/", b"META-INF/")

_DIRECTORY = b"1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR (PS3.3 annex F, PS3.4 annex I)."""

_REPRESENTATIONS = (b"UI", b"UL", b"CS", b"OB", b"SH", b"LO", b"DA", b"TM", b"DT", b"PN", b"IS", b"ST", b"SQ")
"""Of the first elements of a data set."""

_METAIMAGE = re.compile(rb"\s*(ObjectType|NDims|Comment)\s*=")
_TEXT = re.compile(rb"[\t\n\f\r\x1b\x20-\x7e\x80-\xff]*")

_GZIP = b"\x1f\x8b"


def kind_of(start: bytes) -> Kind:
    """Tell what a file is.

    Parameters
    ----------
    start
        Its first `START` bytes, or all where it has fewer; at least one.

    Returns
    -------
    A kind; ``unknown`` for bytes that nothing is known by.
    """
    if _is_dicom(start):
        return "companion" if _is_directory(start) else "DICOM"
    if start.startswith(b"PK"):
        return _kind_of_zip(start)
    if start.startswith(_GZIP) and _is_nifti(_inflated(start)):
        return "NIfTI"
    return _kind_by_signature(start)


def is_nifti_pair(start: bytes) -> bool:
    """Tell whether this is the header of a NIfTI whose values lie in a file beside it (``.hdr`` and ``.img``)."""
    header = _inflated(start) if start.startswith(_GZIP) else start
    return _is_nifti(header) and (header[344:347] == b"ni1" or header[4:7] == b"ni2")


def _kind_by_signature(start: bytes) -> Kind:
    if _is_nifti(start):
        return "NIfTI"
    if _METAIMAGE.match(start):
        return "MetaImage"
    if start[257:262] == b"ustar":
        return "packed"
    for signature, kind in _SIGNATURES:
        if start.startswith(signature) and not (signature == b"BM" and start[14:18] not in _BITMAP_HEADERS):
            return kind
    return "companion" if _is_text(start) else "unknown"


def _is_dicom(start: bytes) -> bool:
    """See the prefix of PS3.10 7.1, or, where it is missing, a data set by its first element."""
    if start[128:132] == b"DICM":
        return True
    return _is_element(start, "<") or _is_element(start, ">")


def _is_element(start: bytes, byte_order: str) -> bool:
    """See a short element of the groups that a data set begins with, explicit or implicit (PS3.5 7.1)."""
    if len(start) < 16:
        return False
    group, _, representation = struct.unpack_from(f"{byte_order}HH2s", start)
    (implicit_length,) = struct.unpack_from(f"{byte_order}I", start, 4)
    explicit = representation in _REPRESENTATIONS
    return (group in (0x0002, 0x0008) and implicit_length <= 256) or (group in range(0x0002, 0x0029, 2) and explicit)


def _is_directory(start: bytes) -> bool:
    """See a DICOMDIR by its Media Storage SOP Class UID (0002,0002)."""
    found = re.search(rb"\x02\x00\x02\x00UI(..)", start, re.DOTALL)
    if found is None:
        return False
    value = start[found.end() : found.end() + int.from_bytes(found.group(1), "little")]
    return value.rstrip(b"\x00 ") == _DIRECTORY


def _is_nifti(header: bytes) -> bool:
    """See a header of NIfTI-1 or ANALYZE 7.5 (348 bytes) or of NIfTI-2 (540), in either byte order."""
    sizes = {int.from_bytes(header[:4], "little"), int.from_bytes(header[:4], "big")}
    if header[128:132] == b"DICM":
        # A packed DICOM file; its preamble may hold anything, such as the size of a NIfTI header.
        return False
    return (348 in sizes and len(header) >= 348) or (540 in sizes and header[4:7] in (b"n+2", b"ni2"))


def _inflated(start: bytes) -> bytes:
    """Inflate the first bytes of a gzip file; none where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(start, START)
    except zlib.error:
        return b""


def _kind_of_zip(start: bytes) -> Kind:
    """Tell a zip of files from a zip that is a document, by its first member (APPNOTE 4.3.7)."""
    if start.startswith((b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if not start.startswith(b"PK\x03\x04"):
        return "unknown"
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return "companion" if name.startswith(_DOCUMENT_MEMBERS) or name.endswith(b".npy") else "zip"


def _is_text(start: bytes) -> bool:
    """See text in UTF-16 with its mark, or in any character set that keeps the control characters of ASCII."""
    return start.startswith((b"\xff\xfe", b"\xfe\xff")) or _TEXT.fullmatch(start) is not None
