from __future__ import annotations

import contextlib
import io
import os
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from conftest import shared_data
from dicom_files import (
    BIG_ENDIAN,
    CORONAL,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    LOSSLESS,
    PATIENT,
    RLE,
    SOP_CLASSES,
    Stored,
    jpeg,
    lossless_jpeg,
    write_dicom,
    write_enhanced,
)
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import UID

from osteoscope.imaging.dicom import Header, decode, read_header, transfer_syntax_name
from osteoscope.imaging.headers import INFLATING, LARGEST_INFLATED
from osteoscope.imaging.marks import read_marks
from osteoscope.imaging.pixels import stored_frames
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.volume import PixelSpacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, COLUMNS = 40, 48
VALUES = (np.add.outer(13 * np.arange(ROWS), 7 * np.arange(COLUMNS)) - 500).astype(np.int16)
GREY = (np.add.outer(3 * np.arange(ROWS), 2 * np.arange(COLUMNS)) % 256).astype(np.uint8)


def values_of(path: Path) -> NDArray[np.float32]:
    values = decode(read_header(path))
    assert values.dtype == np.float32
    plane: NDArray[np.float32] = values[0]
    return plane


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


@pytest.fixture(scope="session")
def real_files() -> list[Path]:
    """Every file of the public projects, in a fixed order."""
    return sorted(path for path in shared_data("dicom").rglob("*") if path.is_file())


# Values


@pytest.mark.parametrize("transfer_syntax", LOSSLESS, ids=transfer_syntax_name)
def test_every_lossless_encoding_gives_the_same_values(path: Path, transfer_syntax: str) -> None:
    header = read_header(write_dicom(path, VALUES, encoding=Stored(transfer_syntax=transfer_syntax)))
    assert header.transfer_syntax == transfer_syntax
    np.testing.assert_array_equal(decode(header)[0], VALUES)


def test_baseline_jpeg_gives_what_pillow_decodes(path: Path) -> None:
    encoding = Stored(transfer_syntax=JPEG_BASELINE, bits=8)
    expected = np.asarray(Image.open(io.BytesIO(jpeg(GREY))), dtype=np.float32) / 255
    np.testing.assert_allclose(values_of(write_dicom(path, GREY, "CR", encoding=encoding)), expected, atol=1e-7)
    extended = Stored(transfer_syntax=JPEG_EXTENDED, bits=8)
    np.testing.assert_allclose(values_of(write_dicom(path, GREY, "CR", encoding=extended)), expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_slope_and_intercept_are_applied(path: Path, kind: str) -> None:
    write_dicom(path, VALUES, kind, RescaleSlope="1.25", RescaleIntercept="-1024.5")
    np.testing.assert_allclose(values_of(path), 1.25 * VALUES - 1024.5, atol=1e-3)


def test_a_slope_that_is_missing_empty_or_zero_changes_nothing(path: Path) -> None:
    for slope in (None, "", "0"):
        write_dicom(path, VALUES, "MR", RescaleSlope=slope, RescaleIntercept=slope)
        np.testing.assert_array_equal(values_of(path), VALUES)


@pytest.mark.parametrize("element", ["RescaleSlope", "RescaleIntercept"])
def test_a_ct_whose_rescale_cannot_be_read_is_refused(path: Path, element: str) -> None:
    elements: dict[str, Any] = {element: "7777777"}
    write_dicom(path, VALUES, "CT", **elements)
    path.write_bytes(path.read_bytes().replace(b"7777777", b"-1O24.5"))
    refused(path, RefusalCode.DAMAGED, "expected a number as rescale")


def test_a_ct_without_an_intercept_says_so(path: Path) -> None:
    for empty in (None, ""):
        write_dicom(path, VALUES, "CT", RescaleIntercept=empty)
        assert "no rescale intercept is stated" in " ".join(read_header(path).remarks)


def test_run_lengths_that_unpack_to_far_more_than_the_header_allows_are_refused(path: Path) -> None:
    write_dicom(path, np.zeros((64, 64), dtype=np.uint8), "MR", encoding=Stored(transfer_syntax=RLE, bits=8))
    data_set = pydicom.dcmread(path)
    # Two bytes for each 128: 64 MB.
    data_set.PixelData = encapsulate([struct.pack("<16L", 1, 64, *14 * [0]) + 500_000 * b"\x81\0"])
    data_set.save_as(path)
    tracemalloc.start()
    refused(path, RefusalCode.INCONSISTENT_PIXELS, "4096 bytes a segment, found far more")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 12)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, BIG_ENDIAN, RLE])
def test_stored_bits_are_taken_out_of_those_allocated(
    path: Path, stored: int, high: int, signed: bool, transfer_syntax: str
) -> None:
    # PS3.5 8.1.1: the unused bits may hold anything, such as an overlay.
    low = -(1 << (stored - 1)) if signed else 0
    meant = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % (1 << stored) + low
    shift = high + 1 - stored
    mask = ((1 << stored) - 1) << shift
    noise = np.random.default_rng(0).integers(0, 1 << 16, meant.shape) & ~mask
    packed = (((meant << shift) & mask) | noise).astype(np.uint16)
    encoding = Stored(transfer_syntax=transfer_syntax, stored=stored, high=high)
    write_dicom(path, packed, "MR", encoding=encoding, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(values_of(path), meant)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_frames_of_single_bits_need_not_begin_with_a_byte(path: Path, transfer_syntax: str) -> None:
    # PS3.5 8.1.1: 5 x 7 bits are packed from the lowest on, and the second frame begins with the fourth bit of a byte.
    meant = np.random.default_rng(0).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    packed = np.packbits(meant.ravel(), bitorder="little")
    shape: dict[str, Any] = {"Rows": 5, "Columns": 7, "NumberOfFrames": 3}
    encoding = Stored(transfer_syntax=transfer_syntax, bits=8)
    bits: dict[str, Any] = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    write_dicom(path, packed[None], "DX", encoding=encoding, **shape, **bits)
    header = read_header(path)
    np.testing.assert_array_equal(decode(header), meant)
    np.testing.assert_array_equal(decode(header, [2, 1]), meant[[2, 1]])


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (32, 100_000)])
def test_other_depths_than_16_bits_are_read(path: Path, transfer_syntax: str, bits: int, factor: int) -> None:
    meant = GREY.astype(np.int64) * factor
    write_dicom(path, meant, "MR", encoding=Stored(transfer_syntax=transfer_syntax, bits=bits))
    np.testing.assert_allclose(values_of(path), meant, rtol=1e-7)


@pytest.mark.parametrize("rows", [3, 4])
def test_8_bit_values_in_big_endian_words_are_put_in_order(path: Path, rows: int) -> None:
    meant = GREY[:rows, :5]
    write_dicom(path, meant, "MR", encoding=Stored(transfer_syntax=BIG_ENDIAN, bits=8))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"\x7f\xe0\x00\x10OB") + 4
    content[place : place + 2] = b"OW"
    words = bytes(content[place + 8 :])
    content[place + 8 :] = b"".join(words[i : i + 2][::-1] for i in range(0, len(words), 2))
    path.write_bytes(content)
    np.testing.assert_array_equal(values_of(path), meant)


@pytest.mark.parametrize("precision", [*range(2, 17)])
@pytest.mark.parametrize("bits", [8, 16])
def test_lossless_jpeg_of_any_precision_is_read(path: Path, precision: int, bits: int) -> None:
    # GDCM ends the process where it is told of 8 bits stored in 16, which is not rare.
    if precision > bits:
        return
    encoding = Stored(transfer_syntax=JPEG_LOSSLESS_SV1, bits=bits, stored=precision)
    for low in (0, -(1 << (precision - 1))):
        meant = 37 * np.add.outer(13 * np.arange(20), 7 * np.arange(24)) % (1 << precision) + low
        np.testing.assert_array_equal(values_of(write_dicom(path, meant, "MR", encoding=encoding)), meant)


@pytest.mark.parametrize("predictor", [*range(1, 8)])
def test_lossless_jpeg_of_any_predictor_is_read(path: Path, predictor: int) -> None:
    meant = VALUES.astype(np.int64) + 500
    write_dicom(path, meant, "MR", encoding=Stored(transfer_syntax=JPEG_LOSSLESS, stored=12))
    data_set = pydicom.dcmread(path)
    data_set.PixelData = pydicom.encaps.encapsulate([lossless_jpeg(meant, 12, predictor)])
    data_set.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(values_of(path), meant)


def test_a_radiograph_is_grey_from_0_to_1_over_its_stored_bits(path: Path) -> None:
    deep = (GREY.astype(np.uint16) * 16).clip(0, 4095)
    write_dicom(path, deep, "DX", encoding=Stored(stored=12))
    np.testing.assert_allclose(values_of(path), deep / 4095, atol=1e-7)


@pytest.mark.parametrize("kind", ["CR", "DX"])
def test_a_radiograph_whose_zero_is_white_is_inverted(path: Path, kind: str) -> None:
    write_dicom(path, GREY, kind, encoding=Stored(bits=8, photometric="MONOCHROME1"))
    np.testing.assert_allclose(values_of(path), 1 - GREY / 255, atol=1e-7)


def test_a_falling_slope_inverts_a_radiograph(path: Path) -> None:
    write_dicom(path, GREY, "CR", encoding=Stored(bits=8), RescaleSlope=-1, RescaleIntercept=255)
    np.testing.assert_allclose(values_of(path), 1 - GREY / 255, atol=1e-7)


def test_how_ct_is_to_be_shown_does_not_change_its_values(path: Path) -> None:
    header = read_header(write_dicom(path, VALUES, encoding=Stored(photometric="MONOCHROME1")))
    np.testing.assert_array_equal(decode(header)[0], VALUES)
    assert "shown white" in " ".join(header.remarks)


def lut(first: int, entries: list[int], bits: int) -> list[pydicom.Dataset]:
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", np.array(entries, dtype="<u2").tobytes())
    item.ModalityLUTType = "OD"
    return [item]


def test_an_intercept_in_binary_is_applied(path: Path) -> None:
    write_dicom(path, VALUES, "CT", RescaleSlope=None, RescaleIntercept=None)
    data_set = pydicom.dcmread(path)
    data_set.add_new(0x00281052, "SS", -1024)
    data_set.save_as(path)
    np.testing.assert_array_equal(values_of(path), VALUES - 1024.0)


def test_a_modality_lut_is_applied_instead_of_slope_and_intercept(path: Path) -> None:
    # PS3.3 C.11.1.1.1: values below the first mapped one get the first entry, and those above the last one the last.
    entries = [1000, 800, 600, 400]
    stored = np.array([[9, 10, 11], [12, 13, 14]], dtype=np.uint8)
    write_dicom(path, stored, "CT", encoding=Stored(bits=8), ModalityLUTSequence=lut(10, entries, 10))
    np.testing.assert_array_equal(values_of(path), [[1000, 1000, 800], [600, 400, 400]])
    write_dicom(path, stored, "CR", encoding=Stored(bits=8), ModalityLUTSequence=lut(10, entries, 10))
    np.testing.assert_allclose(values_of(path) * 1023, [[1000, 1000, 800], [600, 400, 400]], rtol=1e-6)


def test_padding_never_stands_out(path: Path) -> None:
    dark, bright = VALUES.copy(), VALUES.copy()
    dark[:5], bright[:5] = -2000, 3000
    write_dicom(path, dark, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(values_of(path), dark)
    write_dicom(path, bright, PixelPaddingValue=3000)
    expected = bright.copy()
    expected[:5] = VALUES[5:].min()
    np.testing.assert_array_equal(values_of(path), expected)
    grey = GREY.copy()
    grey[:5] = 250
    write_dicom(path, grey, "CR", encoding=Stored(bits=8), PixelPaddingValue=246, PixelPaddingRangeLimit=255)
    np.testing.assert_allclose(values_of(path), np.where(grey >= 246, 0, grey / 255), atol=1e-7)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, BIG_ENDIAN, RLE, JPEG_2000])
def test_colour_becomes_its_luma_and_is_set_aside(path: Path, transfer_syntax: str) -> None:
    colours = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
    header = read_header(
        write_dicom(path, colours, "US", encoding=Stored(transfer_syntax=transfer_syntax, bits=8, photometric="RGB"))
    )
    assert (header.modality, header.aside) == ("radiograph", RefusalCode.COLOUR)
    expected = np.asarray(Image.fromarray(colours).convert("L"), dtype=np.float32) / 255
    np.testing.assert_allclose(decode(header)[0], expected, atol=0.6 / 255)


def test_a_palette_is_looked_up(path: Path) -> None:
    elements: dict[str, Any] = {}
    tables = {"Red": [0, 65535, 0], "Green": [0, 0, 65535], "Blue": [0, 0, 0]}
    for colour, entries in tables.items():
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = np.array(entries, dtype="<u2").tobytes()
    stored = np.array([[0, 1, 2]], dtype=np.uint8)
    header = read_header(
        write_dicom(path, stored, "SC", encoding=Stored(bits=8, photometric="PALETTE COLOR"), **elements)
    )
    assert header.aside is RefusalCode.SECONDARY_CAPTURE
    np.testing.assert_allclose(decode(header)[0], [[0, 0.299, 0.587]], atol=1e-6)


# What a header says


@pytest.mark.parametrize(
    ("kind", "modality", "aside"),
    [
        ("CT", "CT", None),
        ("MR", "MR", None),
        ("CR", "radiograph", None),
        ("DX", "radiograph", None),
        ("SC", "radiograph", RefusalCode.SECONDARY_CAPTURE),
        ("PT", "radiograph", RefusalCode.OTHER_MODALITY),
    ],
)
def test_what_an_image_is_follows_from_its_class(
    path: Path, kind: str, modality: str, aside: RefusalCode | None
) -> None:
    header = read_header(write_dicom(path, GREY, kind, encoding=Stored(bits=8)))
    assert (header.modality, header.aside) == (modality, aside)


def test_without_a_known_class_the_modality_decides(path: Path) -> None:
    for sop_class in (None, "", "1.3.46.670589.11.0.0.12.1"):
        assert read_header(write_dicom(path, VALUES, "SC", SOPClassUID=sop_class, Modality="CT")).modality == "CT"


def test_a_captured_ct_is_no_ct(path: Path) -> None:
    header = read_header(write_dicom(path, GREY, "SC", encoding=Stored(bits=8), Modality="CT"))
    assert (header.modality, header.aside) == ("radiograph", RefusalCode.SECONDARY_CAPTURE)


def test_a_scout_is_set_aside(path: Path) -> None:
    header = read_header(write_dicom(path, VALUES, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert (header.modality, header.aside) == ("CT", RefusalCode.LOCALISER)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, PixelSpacing(row=0.2, column=0.1, kind="detector")),
        (
            {"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.2, 0.1]},
            PixelSpacing(row=0.2, column=0.1, kind="detector"),
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.15, 0.15]},
            PixelSpacing(row=0.15, column=0.15, kind="calibrated"),
        ),
        (
            {"PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"},
            PixelSpacing(row=0.15, column=0.15, kind="calibrated"),
        ),
        ({"PixelSpacing": [0.15, 0.15]}, PixelSpacing(row=0.15, column=0.15, kind="detector")),
        ({"NominalScannedPixelSpacing": [0.4, 0.4]}, PixelSpacing(row=0.4, column=0.4, kind="scanned")),
        ({"ImagerPixelSpacing": [0, 0.1]}, None),
        ({}, None),
    ],
)
def test_the_spacing_of_a_radiograph_says_where_it_holds(
    path: Path, elements: dict[str, Any], expected: PixelSpacing | None
) -> None:
    header = read_header(write_dicom(path, GREY, "DX", encoding=Stored(bits=8), **elements))
    assert header.spacing == expected
    assert header.aspect == (2 if expected and expected.row == 0.2 else 1)


def test_the_aspect_of_a_pixel_is_height_over_width(path: Path) -> None:
    header = read_header(write_dicom(path, GREY, "SC", encoding=Stored(bits=8), PixelAspectRatio=[4, 3]))
    assert header.aspect == pytest.approx(4 / 3)
    assert header.spacing is None


def test_place_and_spacing_of_a_slice_are_read(path: Path) -> None:
    write_dicom(path, VALUES, position=(1.5, -2, 3), orientation=CORONAL, spacing=(0.5, 0.25))
    header = read_header(path)
    frame = header.frames[0]
    assert (frame.position, frame.orientation, frame.spacing) == ((1.5, -2, 3), CORONAL, (0.5, 0.25))
    assert header.spacing == PixelSpacing(row=0.5, column=0.25, kind="patient")


@pytest.mark.parametrize("orientation", [(0, 0, 0, 0, 0, 0), (1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0)])
def test_an_impossible_orientation_is_taken_as_unknown(path: Path, orientation: tuple[float, ...]) -> None:
    header = read_header(write_dicom(path, VALUES, position=(0, 0, 0), orientation=orientation))
    assert header.frames[0].orientation is None
    assert "orientation" in " ".join(header.remarks)


def test_each_frame_of_an_enhanced_object_has_its_own_place_and_slope(path: Path) -> None:
    stack = np.stack([VALUES, VALUES + 1, VALUES + 2])
    places = [(0.0, 0.0, 5.0), (0.0, 0.0, 2.0), (0.0, 0.0, -1.0)]
    write_enhanced(path, stack, "MR", places, rescales=[(1, 0), (2, 10), (0.5, -3)], spacing=(0.7, 0.8))
    header = read_header(path)
    assert [frame.position for frame in header.frames] == places
    assert header.frames[1].spacing == (0.7, 0.8)
    expected = np.stack([stack[0], 2 * stack[1] + 10, 0.5 * stack[2] - 3])
    np.testing.assert_allclose(decode(header), expected, atol=1e-3)
    np.testing.assert_allclose(decode(header, [2, 0]), expected[[2, 0]], atol=1e-3)


@pytest.mark.parametrize("transfer_syntax", LOSSLESS, ids=transfer_syntax_name)
def test_single_frames_are_decoded_from_every_encoding(path: Path, transfer_syntax: str) -> None:
    stack = np.stack([VALUES + 5 * index for index in range(4)])
    positions = [(0.0, 0.0, 3.0 * index) for index in range(4)]
    header = read_header(write_enhanced(path, stack, "CT", positions, encoding=Stored(transfer_syntax=transfer_syntax)))
    np.testing.assert_array_equal(decode(header, [3, 1]), stack[[3, 1]])
    with pytest.raises(IndexError, match="from 0 to 3, got 4"):
        decode(header, [4])


def test_nothing_that_identifies_a_patient_is_kept(path: Path) -> None:
    header = read_header(write_dicom(path, VALUES, position=(0, 0, 0)))
    shown = repr(header) + repr(vars(header))
    for identifier in (PATIENT, "Anna", "ID-4711", "19010203"):
        assert identifier not in shown


CHARACTER_SETS = {
    "ISO_IR 100": "Müller^Günter",
    "ISO_IR 144": "Люкceмбypг",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 138": "שרון^דבורה",
    "ISO_IR 192": "Wang^XiaoDong=王^小东=山田^太郎",
    "GB18030": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞",
    "NOT A CHARACTER SET": "Nobody",
}


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_names_in_any_character_set_do_no_harm(path: Path, character_set: str) -> None:
    write_dicom(path, VALUES, PatientName="@" * 64)
    content = path.read_bytes()
    known = character_set.rsplit("\\", maxsplit=1)[-1] != "NOT A CHARACTER SET"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codecs = pydicom.charset.convert_encodings(character_set.split("\\")) if known else ["utf-8"]
    name = pydicom.charset.encode_string(CHARACTER_SETS[character_set], codecs)
    path.write_bytes(content.replace(b"@" * 64, name.ljust(64)))
    np.testing.assert_array_equal(values_of(path), VALUES)


# What files in use get wrong


def without_meta(content: bytes) -> bytes:
    length = struct.unpack_from("<L", content, 140)[0]
    return content[144 + length :]


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_file_without_preamble_and_meta_information_is_read(path: Path, transfer_syntax: str) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=transfer_syntax))
    path.write_bytes(without_meta(path.read_bytes()))
    header = read_header(path)
    assert header.transfer_syntax == transfer_syntax
    np.testing.assert_array_equal(decode(header)[0], VALUES)


def test_a_file_that_is_implicit_though_it_states_explicit_is_read(path: Path) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=IMPLICIT))
    content = path.read_bytes()
    # The other UID is two bytes longer, and so is what the group length counts.
    stated = b"\x02\x00\x10\x00UI\x12\x00" + IMPLICIT.encode() + b"\x00"
    other = b"\x02\x00\x10\x00UI\x14\x00" + EXPLICIT.encode() + b"\x00"
    length = struct.unpack_from("<L", content, 140)[0]
    path.write_bytes(
        content.replace(stated, other).replace(struct.pack("<L", length), struct.pack("<L", length + 2), 1)
    )
    np.testing.assert_array_equal(values_of(path), VALUES)


def test_a_preamble_that_is_a_program_does_no_harm(path: Path) -> None:
    write_dicom(path, VALUES)
    path.write_bytes(
        (b"MZ\x90\x00" + b"This program cannot be run in DOS mode").ljust(128, b"\x00") + path.read_bytes()[128:]
    )
    np.testing.assert_array_equal(values_of(path), VALUES)
    path.write_bytes(b"\x7fELF".ljust(128, b"\x01") + path.read_bytes()[128:])
    np.testing.assert_array_equal(values_of(path), VALUES)


def test_a_line_of_padding_behind_the_pixels_is_left_out(path: Path) -> None:
    write_dicom(path, VALUES)
    content = path.read_bytes()
    end = VALUES.nbytes
    path.write_bytes(content[: -end - 4] + struct.pack("<L", end + 90) + content[-end:] + bytes(90))
    np.testing.assert_array_equal(values_of(path), VALUES)


def item(content: bytes, *, defined: bool) -> bytes:
    """Encode a sequence of one item in explicit little endian, of a private and of a known tag in turn."""
    if defined:
        inner = struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
        return struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(inner)) + inner
    start = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return start + content + struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)


@pytest.mark.parametrize("depth", [1, 1000, 20_000])
@pytest.mark.parametrize("defined", [False, True])
@pytest.mark.parametrize("tag", [0x00081140, 0x52009229])
def test_sequences_may_be_nested_as_deep_as_they_like(path: Path, depth: int, defined: bool, tag: int) -> None:
    if defined and depth > 1000:
        depth = 1000  # each level is copied into the next one
    nested = b""
    for _ in range(depth):
        nested = item(nested, defined=defined)
    nested = nested.replace(struct.pack("<HH", 0x0008, 0x1140), struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    write_dicom(path, VALUES)
    content = path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(content[:place] + nested + content[place:])
    started = time.perf_counter()
    np.testing.assert_array_equal(values_of(path), VALUES)
    assert time.perf_counter() - started < 5


# Bad input: each is refused with its reason, the file's name and a remedy


def refused(path: Path, code: RefusalCode, match: str) -> None:
    with pytest.raises(RefusedImageError, match=match) as fault:
        decode(read_header(path))
    assert fault.value.code is code
    assert fault.value.path == path
    assert fault.value.remedy
    assert "Anna" not in str(fault.value)
    assert "4711" not in str(fault.value)


def test_what_is_no_readable_file_is_refused(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(path, RefusalCode.MISSING, "found none")
    refused(tmp_path, RefusalCode.UNREADABLE, "folder")
    path.write_bytes(b"")
    refused(path, RefusalCode.EMPTY, "0 bytes")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", RefusalCode.UNREADABLE, "device")
    write_dicom(path, VALUES)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused(path, RefusalCode.UNREADABLE, "Permission denied")


@pytest.mark.parametrize(
    "content", [b"patient,image\n", b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(500), b"\x08\x00" + b"\xff" * 50]
)
def test_what_is_no_dicom_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, RefusalCode.NOT_AN_IMAGE, "do not begin like one")


def test_an_object_without_pixels_is_refused(path: Path) -> None:
    data_set = pydicom.Dataset()
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    data_set.SOPInstanceUID, data_set.Modality, data_set.PatientName = "1.2.3", "SR", PATIENT
    data_set.save_as(path, enforce_file_format=True)
    refused(path, RefusalCode.NO_PIXELS, "an object of modality SR without pixels")
    write_dicom(path, VALUES)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xe0\x7f\x10\x00OW")])
    refused(path, RefusalCode.NO_PIXELS, "the header of an image without its pixels")


def test_12_bit_extended_jpeg_is_refused_by_name(path: Path) -> None:
    write_dicom(path, GREY, encoding=Stored(transfer_syntax=JPEG_EXTENDED, bits=8), BitsAllocated=16, BitsStored=12)
    refused(path, RefusalCode.UNSUPPORTED_COMPRESSION, r"JPEG Extended \(Process 2 and 4\) of 12 bits")
    # The header may say 8 bits where the codestream, whose precision stands behind the marker, has 12.
    write_dicom(path, GREY, encoding=Stored(transfer_syntax=JPEG_EXTENDED, bits=8))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc1\x00\x0b\x0c"))
    refused(path, RefusalCode.UNSUPPORTED_COMPRESSION, "found 12 bits")


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264"),
        ("1.2.840.10008.1.2.4.107", "HEVC/H.265"),
        ("1.2.840.10008.1.2.4.94", "JPIP"),
        ("1.2.840.10008.1.2.4.53", "Spectral Selection"),
        ("1.2.840.113619.5.2", "GE|113619"),
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_what_no_decoder_reads_is_refused_by_name(path: Path, uid: str, name: str) -> None:
    write_dicom(path, GREY, encoding=Stored(transfer_syntax=JPEG_BASELINE, bits=8))
    meta = pydicom.dcmread(path)
    meta.file_meta.TransferSyntaxUID = UID(uid)
    pydicom.dcmwrite(path, meta, enforce_file_format=True, implicit_vr=False, little_endian=True)
    refused(path, RefusalCode.UNSUPPORTED_COMPRESSION, name)


@pytest.mark.parametrize("transfer_syntax", LOSSLESS, ids=transfer_syntax_name)
def test_truncated_pixels_are_refused(path: Path, transfer_syntax: str) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (64, 64), dtype=np.uint16)
    write_dicom(path, noise, encoding=Stored(transfer_syntax=transfer_syntax))
    content = path.read_bytes()
    for kept in (0.5, 0.9, 0.99):
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(RefusedImageError) as fault:
            decode(read_header(path))
        assert fault.value.code in (RefusalCode.TRUNCATED_PIXELS, RefusalCode.DAMAGED)
        if transfer_syntax != DEFLATED:
            assert fault.value.code is RefusalCode.TRUNCATED_PIXELS


@pytest.mark.parametrize("transfer_syntax", [RLE, JPEG_LOSSLESS_SV1, JPEG_2000, JPEG_BASELINE])
def test_a_codestream_that_ends_too_early_within_a_whole_file_is_refused(path: Path, transfer_syntax: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    write_dicom(path, noise, "CR", encoding=Stored(transfer_syntax=transfer_syntax, bits=8))
    data_set = pydicom.dcmread(path)
    codestream = next(pydicom.encaps.generate_frames(data_set.PixelData, number_of_frames=1))
    data_set.PixelData = pydicom.encaps.encapsulate([codestream[: len(codestream) // 4 * 2]])
    data_set.save_as(path, enforce_file_format=True)
    with pytest.raises(RefusedImageError) as fault:
        decode(read_header(path))
    assert fault.value.code in (RefusalCode.TRUNCATED_PIXELS, RefusalCode.DAMAGED)


@pytest.mark.parametrize(
    "change", [{"Rows": ROWS + 2}, {"Columns": COLUMNS - 3}, {"Rows": ROWS - 2}, {"NumberOfFrames": 2}]
)
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, JPEG_2000, JPEG_LOSSLESS_SV1])
def test_rows_and_columns_that_do_not_fit_the_pixels_are_refused(
    path: Path, change: dict[str, int], transfer_syntax: str
) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=transfer_syntax))
    data_set = pydicom.dcmread(path)
    for keyword, value in change.items():
        setattr(data_set, keyword, value)
    data_set.save_as(path, enforce_file_format=True)
    refused(path, RefusalCode.INCONSISTENT_PIXELS, "expected")


def test_a_length_that_is_none_of_whole_frames_is_refused(path: Path) -> None:
    write_dicom(path, np.stack([VALUES, VALUES]), "MR", NumberOfFrames=None)
    refused(path, RefusalCode.INCONSISTENT_PIXELS, "expected 3840 bytes")


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, RLE, JPEG_LOSSLESS_SV1, JPEG_2000])
def test_a_header_of_65535_squared_over_few_bytes_costs_nothing(path: Path, transfer_syntax: str) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=transfer_syntax))
    data_set = pydicom.dcmread(path)
    data_set.Rows = data_set.Columns = 65535
    data_set.save_as(path, enforce_file_format=True)
    tracemalloc.start()
    refused(path, RefusalCode.TOO_LARGE, "65535 x 65535")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_number_of_frames_beyond_the_bytes_costs_nothing(path: Path) -> None:
    for transfer_syntax in (EXPLICIT, RLE):
        write_dicom(path, VALUES, encoding=Stored(transfer_syntax=transfer_syntax), NumberOfFrames=2_000_000_000)
        with pytest.raises(RefusedImageError, match="expected"):
            read_header(path)


def test_a_deflated_file_that_inflates_beyond_bounds_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=DEFLATED))
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<L", content, 140)[0]
    inflated = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    assert LARGEST_INFLATED < 2**29
    monkeypatch.setattr("osteoscope.imaging.headers.LARGEST_INFLATED", 2**20)
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = machine.compress(inflated + bytes(2**21)) + machine.flush()
    path.write_bytes(content[:start] + bomb)
    refused(path, RefusalCode.TOO_LARGE, "once inflated")
    path.write_bytes(content[:start] + b"\xff" * 100)
    refused(path, RefusalCode.DAMAGED, "cannot be inflated")


def test_what_a_mask_marks_is_not_looked_for_in_a_file_that_inflates_beyond_bounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=DEFLATED))
    assert read_marks(path).regions == ()
    monkeypatch.setattr("osteoscope.imaging.headers.LARGEST_INFLATED", 100)
    monkeypatch.setattr(pydicom, "dcmread", lambda *_, **__: pytest.fail("it was inflated without a bound"))
    with pytest.raises(RefusedImageError, match="once inflated"):
        read_marks(path)


def test_one_deflated_file_at_a_time_is_in_memory_when_its_pixels_are_read(path: Path) -> None:
    write_dicom(path, np.stack([VALUES, VALUES + 1]), encoding=Stored(transfer_syntax=DEFLATED))
    header = read_header(path)
    with path.open("rb", buffering=0) as stream:
        frames = stored_frames(stream, header.pixels, [0, 1])
        next(frames)
        # What else is inflated need not wait for whoever is slow with the second frame.
        assert not INFLATING.locked()
        assert len(list(frames)) == 1


@pytest.mark.parametrize(("spacing", "found"), [((2.0, 0.01), "64 x 9600"), ((1.0, 1.0), None)])
def test_a_radiograph_whose_pixels_are_said_to_be_far_higher_than_wide_is_refused(
    path: Path, spacing: tuple[float, float], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osteoscope.imaging.bounds.LONGEST_SIDE", 5000)
    write_dicom(path, np.zeros((48, 64), dtype=np.uint16), "DX", ImagerPixelSpacing=list(spacing))
    if found is None:
        assert read_header(path).aspect == 1
    else:
        refused(path, RefusalCode.TOO_LARGE, f"square pixels, found {found}")


@pytest.mark.parametrize(
    ("stated", "remark"),
    [(None, False), ("HU", False), ("US", False), ("Z_EFF", True), ("nobody^anna", True)],
)
def test_a_ct_of_something_else_than_attenuation_is_remarked_on(path: Path, stated: str | None, remark: bool) -> None:
    more: dict[str, Any] = {} if stated is None else {"RescaleType": stated}
    write_dicom(path, VALUES, "CT", RescaleIntercept=-1024, RescaleSlope=1, **more)
    said = [one for one in read_header(path).remarks if "type of its values" in one]
    assert bool(said) == remark
    assert not any("anna" in one for one in said)


def test_a_jp2_box_of_no_length_does_not_hang(path: Path) -> None:
    write_dicom(path, VALUES, encoding=Stored(transfer_syntax=JPEG_2000))
    data_set = pydicom.dcmread(path)
    codestream = next(pydicom.encaps.generate_frames(data_set.PixelData, number_of_frames=1))
    box = b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a"
    data_set.PixelData = pydicom.encaps.encapsulate([box + b"\x00\x00\x00\x00jp2h" + codestream])
    data_set.save_as(path, enforce_file_format=True)
    refused(path, RefusalCode.DAMAGED, "do not begin")
    whole = box + struct.pack(">L4s", len(codestream) + 8, b"jp2c") + codestream
    data_set.PixelData = pydicom.encaps.encapsulate([whole])
    data_set.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(values_of(path), VALUES)


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"BitsAllocated": 12}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"SamplesPerPixel": 4}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"PhotometricInterpretation": "HSV"}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"BitsStored": 20}, RefusalCode.INCONSISTENT_PIXELS),
        ({"Rows": 0}, RefusalCode.INCONSISTENT_PIXELS),
    ],
)
def test_pixels_of_unknown_meaning_are_refused(path: Path, elements: dict[str, Any], code: RefusalCode) -> None:
    write_dicom(path, VALUES)
    data_set = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    data_set.save_as(path, enforce_file_format=True)
    refused(path, code, "expected")


def test_functional_groups_of_other_frames_than_there_are_are_refused(path: Path) -> None:
    write_enhanced(path, np.stack([VALUES, VALUES]), "CT", [(0, 0, 0)])
    refused(path, RefusalCode.DAMAGED, "functional groups of 2 frames, found those of 1")


def test_a_file_that_changes_is_noticed(path: Path) -> None:
    write_dicom(path, VALUES)
    header = read_header(path)
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\x11\x22")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(RefusedImageError, match="changed") as fault:
        decode(header)
    assert fault.value.code is RefusalCode.CHANGED
    path.unlink()
    with pytest.raises(RefusedImageError) as fault:
        decode(header)
    assert fault.value.code is RefusalCode.MISSING


def test_many_threads_may_decode_at_once(tmp_path: Path) -> None:
    colours = np.stack([GREY] * 3, axis=-1)
    paths = [
        write_dicom(
            tmp_path / transfer_syntax,
            colours,
            "SC",
            encoding=Stored(transfer_syntax=transfer_syntax, bits=8, photometric="RGB"),
        )
        for transfer_syntax in (EXPLICIT, RLE, JPEG_2000)
    ]
    with ThreadPoolExecutor(4) as pool:
        for values in pool.map(values_of, paths * 10):
            np.testing.assert_allclose(values, GREY / 255, atol=1e-6)


def damaged(content: NDArray[np.uint8], random: np.random.Generator) -> bytes:
    """Change a few bytes, and cut some files short."""
    changed = content.copy()
    places = random.integers(0, content.size, random.integers(1, 8))
    changed[places] = random.integers(0, 256, places.size)
    end = random.integers(0, content.size) if random.random() < 0.2 else content.size
    return changed[:end].tobytes()


@pytest.mark.parametrize("transfer_syntax", [*LOSSLESS, JPEG_BASELINE], ids=transfer_syntax_name)
def test_damaged_bytes_raise_nothing_but_refusals(path: Path, transfer_syntax: str) -> None:
    random = np.random.default_rng(7)
    encoding = Stored(transfer_syntax=transfer_syntax, bits=8 if transfer_syntax == JPEG_BASELINE else 16)
    write_enhanced(path, np.stack([GREY, GREY]), "MR", [(0, 0, 0), (0, 0, 1)], encoding=encoding)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(40):
        path.write_bytes(damaged(content, random))
        with contextlib.suppress(RefusedImageError):
            assert np.isfinite(decode(read_header(path))).all()


def test_pydicoms_configuration_stays_as_it_is(path: Path) -> None:
    config = pydicom.config

    def state() -> dict[str, object]:
        return {name: getattr(config, name) for name in dir(config) if name.islower() and not name.startswith("_")}

    before = state()
    values_of(write_dicom(path, VALUES, encoding=Stored(transfer_syntax=RLE)))
    assert state() == before


# Real files, against independent decoders


def readable(real_files: list[Path]) -> dict[Path, Header]:
    headers = {}
    for path in real_files:
        with contextlib.suppress(RefusedImageError):
            headers[path] = read_header(path)
    return headers


# SimpleITK cannot open the first two, the one for an element that it takes for truncated, the other for lack of what
# tells the encoding; it takes the pixels of the third for 1 mm apart, since that is a multi-frame file.
NOT_READ_BY_SIMPLEITK = ("GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm", "GH355.dcm")
SPACING_NOT_READ_BY_SIMPLEITK = "MOVEKNEE.dcm"


def test_real_ct_and_mr_equal_what_simpleitk_reads(real_files: list[Path]) -> None:
    compared = 0
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    for path, header in readable(real_files).items():
        if header.modality == "radiograph" or path.name in NOT_READ_BY_SIMPLEITK:
            continue
        image = SimpleITK.ReadImage(str(path))
        values = SimpleITK.GetArrayFromImage(image)
        np.testing.assert_allclose(decode(header), values.reshape(-1, *values.shape[-2:]), atol=1e-3, err_msg=str(path))
        frame = header.frames[0]
        if frame.position is not None and frame.orientation is not None and frame.spacing is not None:
            directions = np.array(image.GetDirection()).reshape(3, 3)[:, :2].T.ravel()
            np.testing.assert_allclose(frame.position, image.GetOrigin(), atol=1e-3, err_msg=str(path))
            np.testing.assert_allclose(frame.orientation, directions, atol=1e-5, err_msg=str(path))
            if path.name != SPACING_NOT_READ_BY_SIMPLEITK:
                np.testing.assert_allclose(frame.spacing, image.GetSpacing()[1::-1], atol=1e-3, err_msg=str(path))
        compared += 1
    assert compared >= 130


def test_what_pydicom_decodes_is_read_and_pictures_are_equal(real_files: list[Path]) -> None:
    decodable = read = pictures = 0
    for path in real_files:
        expected = by_pydicom(path)
        if expected is None:
            continue
        decodable += 1
        started = time.perf_counter()
        with contextlib.suppress(RefusedImageError):
            header = read_header(path)
            values = decode(header)
            read += 1
            if header.modality == "radiograph" and header.units.padding is None:
                np.testing.assert_allclose(values, expected.reshape(values.shape), atol=2e-6, err_msg=str(path))
                pictures += 1
        assert time.perf_counter() - started < 10
    assert decodable > 200
    assert read / decodable >= 0.95
    assert pictures >= 80


def by_pydicom(path: Path) -> NDArray[Any] | None:
    """Read a file by pydicom's own pipeline, pictures as grey from 0 to 1 over the range of their stored bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data_set = pydicom.dcmread(path, force=True)
            stored = data_set.pixel_array
        except Exception:
            return None
        return grey_of(data_set, stored)


def grey_of(data_set: pydicom.Dataset, stored: NDArray[Any]) -> NDArray[Any]:
    black, white = 0, (1 << data_set.BitsStored) - 1
    if data_set.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, data_set)
        white = (1 << data_set.RedPaletteColorLookupTableDescriptor[2]) - 1
    elif "ModalityLUTSequence" in data_set:
        white = (1 << data_set.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        stored = apply_modality_lut(stored, data_set)
    elif data_set.PixelRepresentation == 1:
        black, white = -(1 << (data_set.BitsStored - 1)), (1 << (data_set.BitsStored - 1)) - 1
    grey: NDArray[Any] = (stored.astype(np.float64) - black) / (white - black)
    if grey.shape[-1] == 3 and grey.ndim > 2:
        grey = grey @ np.array([0.299, 0.587, 0.114])
    return 1 - grey if data_set.PhotometricInterpretation == "MONOCHROME1" else grey


def test_one_real_image_in_many_encodings_has_one_set_of_values(real_files: list[Path]) -> None:
    planes = [
        values_of(path) for path in real_files if path.parent.parent.name == "dcm_qa_ts" and path.suffix == ".dcm"
    ]
    assert len(planes) == 9
    for plane in planes[1:]:
        np.testing.assert_array_equal(plane, planes[0])
    by_encoding = {
        read_header(path).transfer_syntax: values_of(path)
        for path in real_files
        if path.name.startswith("CTImage.dcm")
        and not any(name in path.name for name in ("Process10_12", "Process2_4", "Process6_8"))
    }
    lossless = [uid for uid in by_encoding if uid[-3:] not in (".91", ".81", ".50", ".51", "203")]
    assert len(lossless) >= 8
    for uid in lossless:
        np.testing.assert_array_equal(by_encoding[uid], by_encoding[IMPLICIT if IMPLICIT in by_encoding else EXPLICIT])


def test_the_sop_classes_of_the_builder_are_those_of_the_standard() -> None:
    names = {kind: UID(uid).name for kind, uid in SOP_CLASSES.items()}
    assert names["DX"].startswith("Digital X-Ray Image Storage")
    assert names["enhanced MR"] == "Enhanced MR Image Storage"
