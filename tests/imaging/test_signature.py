"""Files are told apart by their first bytes; each signature is written here by hand from its format's definition."""

from __future__ import annotations

import gzip
import struct

import pytest

from osteoscope.imaging.signature import START, is_nifti_pair, kind_of

PREFIX = bytes(128) + b"DICM"
STORED = "1.2.840.10008.5.1.4.1.1.2"
DIRECTORY = "1.2.840.10008.1.3.10"


def meta(sop_class: str) -> bytes:
    """File meta information up to the Media Storage SOP Class UID (PS3.10 7.1)."""
    value = sop_class.encode() + b"\0" * (len(sop_class) % 2)
    version = struct.pack("<HH2s2xI2s", 0x0002, 0x0001, b"OB", 2, b"\0\1")
    return PREFIX + version + struct.pack("<HH2sH", 0x0002, 0x0002, b"UI", len(value)) + value


def nifti(magic: bytes, byte_order: str = "<") -> bytes:
    return struct.pack(f"{byte_order}i", 348) + bytes(340) + magic + bytes(8)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (meta(STORED), "DICOM"),
        (b"MZ" + meta(STORED)[2:], "DICOM"),  # an executable in the preamble
        (b"II*\0" + meta(STORED)[4:], "DICOM"),  # a TIFF in the preamble, as whole-slide images have
        (meta(DIRECTORY), "companion"),
        (meta(DIRECTORY + ".9"), "DICOM"),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", "DICOM"),  # no prefix, explicit, little endian
        (b"\0\x08\0\x05CS\0\x0aISO_IR 100", "DICOM"),  # big endian
        (b"\x08\0\0\0\x04\0\0\0\xbe\0\0\0\x08\0\x10\0", "DICOM"),  # implicit
        (b"\x10\0\x10\0PN\x04\0A^B ....", "DICOM"),
        (b"\x08\0\x05\0", "unknown"),
        (nifti(b"n+1\0"), "NIfTI"),
        (nifti(b"n+1\0", ">"), "NIfTI"),
        (nifti(b"ni1\0"), "NIfTI"),
        (nifti(b"\0\0\0\0"), "NIfTI"),  # ANALYZE 7.5, refused where it is read
        (struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n", "NIfTI"),
        (gzip.compress(nifti(b"n+1\0"), mtime=0), "NIfTI"),
        (gzip.compress(b"something else" * 100, mtime=0), "packed"),
        (
            gzip.compress(b"\x5c\x01" + meta(STORED)[2:] + bytes(400), mtime=0),
            "packed",
        ),  # 348 in the preamble of a DICOM file
        (b"\x1f\x8b\x08 damaged", "packed"),
        (b"NRRD0005\n# Complete", "NRRD"),
        (b"ObjectType = Image\nNDims = 3\n", "MetaImage"),
        (b"NDims=3\n", "MetaImage"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0d", "PNG"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "BMP"),
        (b"BMI,age,sex\n21.4,33,F\n", "companion"),
        (b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 5, 0) + b"a.dcm", "zip"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 19, 0) + b"[Content_Types].xml", "companion"),
        (b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 8, 0) + b"arr0.npy", "companion"),
        (b"7z\xbc\xaf\x27\x1c", "packed"),
        (bytes(257) + b"ustar", "packed"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\x01", "companion"),
        (b"MZ\x90\0\x03\0\0\0", "companion"),
        (b"patient,image,label\n", "companion"),
        ("Müller; größer\n".encode("latin-1"), "companion"),
        ("患者\n".encode(), "companion"),
        (b"\xff\xfe" + "xml".encode("utf-16-le"), "companion"),
        (b"\x00\x01\x02\x03", "unknown"),
        (b"\x00", "unknown"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(start: bytes, kind: str) -> None:
    assert kind_of(start[:START]) == kind


@pytest.mark.parametrize(
    ("start", "pair"),
    [
        (nifti(b"ni1\0"), True),
        (gzip.compress(nifti(b"ni1\0"), mtime=0), True),
        (struct.pack("<i", 540) + b"ni2\0\r\n\x1a\n", True),
        (nifti(b"n+1\0"), False),
        (b"ni1", False),
    ],
)
def test_a_nifti_of_two_files_is_told_from_one_of_a_single_file(start: bytes, pair: bool) -> None:
    assert is_nifti_pair(start) is pair
