"""What may show text is not copied: told by its header, or by lines of characters in its pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import shared_data
from dicom_files import JPEG_EXTENDED, Stored, write_dicom
from PIL import Image, ImageDraw, ImageFont

from osteoscope.cohort.deidentify import Key, burned_in, deidentify_file
from osteoscope.cohort.deidentify.burned_in import _follows, _longest_line, _Mark, shows_text
from osteoscope.imaging.dicom import decode, read_header
from osteoscope.imaging.refusal import RefusedImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEY = Key(secret=bytes(32))
PLANE = np.random.default_rng(0).integers(0, 400, (64, 64), dtype=np.uint16)
NAME = "NOBODY ANNA 12.03.61"


def body(rows: int = 400, columns: int = 500) -> NDArray[np.float32]:
    """Make a smooth bright body on a dark ground, with noise."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    noise = np.random.default_rng(1).normal(0, 4, (rows, columns))
    plane: NDArray[np.float32] = (150 * np.exp(-2 * (x**2 + y**2)) + 20 + noise).astype(np.float32)
    return plane


def with_text(plane: NDArray[np.float32], text: str, size: int, *, quality: int | None = None) -> NDArray[np.float32]:
    low, high = float(plane.min()), float(plane.max())
    picture = Image.fromarray(((plane - low) / (high - low) * 255).astype(np.uint8))
    ImageDraw.Draw(picture).text((8, 8), text, fill=255, font=ImageFont.load_default(size))
    if quality is not None:
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=quality)
        picture = Image.open(packed)
    return np.asarray(picture, dtype=np.float32)


@pytest.mark.parametrize("size", [12, 16, 24, 36])
@pytest.mark.parametrize("quality", [None, 85])
def test_a_name_that_is_drawn_into_a_picture_is_seen(size: int, quality: int | None) -> None:
    assert shows_text(with_text(body(), NAME, size, quality=quality))
    assert shows_text(255 - with_text(body(), NAME, size, quality=quality))
    assert shows_text(with_text(body(1500, 2000), NAME, 3 * size, quality=quality))


def test_a_mark_of_the_side_and_a_picture_without_text_are_none() -> None:
    assert not shows_text(with_text(body(), "R", 24))
    assert not shows_text(with_text(body(), "L 5", 24))
    assert not shows_text(body())
    assert not shows_text(np.zeros((5, 5), dtype=np.float32))


def test_real_slices_are_not_taken_for_text_until_some_is_drawn_into_them() -> None:
    headers = [read_header(path) for path in sorted((shared_data("dicom") / "totalsegmentator").rglob("CT.*"))[::4]]
    planes = [decode(header, [0])[0] for header in headers]
    assert len(planes) == 5
    assert not any(map(shows_text, planes))
    assert all(shows_text(with_text(plane, NAME, 14)) for plane in planes)


@pytest.mark.parametrize(
    ("kind", "elements", "reason"),
    [
        ("CT", {"BurnedInAnnotation": "YES"}, "text is burned into"),
        ("SC", {}, "captured screen"),
        ("US", {"Modality": "US"}, "ultrasound"),
        ("CT", {"Modality": "OT"}, "modality OT"),
        ("CT", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "image type"),
        ("CT", {"ConversionType": "DF"}, "converted from film"),
        ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "report"),
        ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "document"),
        ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation state"),
    ],
)
def test_what_may_show_text_is_not_written_until_a_person_has_looked(
    tmp_path: Path, kind: str, elements: dict[str, Any], reason: str
) -> None:
    source = write_dicom(tmp_path / "source.dcm", PLANE, kind, **{"Modality": "CT", **elements})
    report = deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert reason in str(report.quarantined)
    assert not (tmp_path / "target.dcm").exists()
    assert deidentify_file(source, tmp_path / "target.dcm", KEY, released=True).quarantined is None
    assert (tmp_path / "target.dcm").exists()


def test_text_in_the_pixels_is_seen_whatever_the_header_says(tmp_path: Path) -> None:
    plane = with_text(body(), NAME, 14).astype(np.uint16)
    source = write_dicom(tmp_path / "source.dcm", plane, BurnedInAnnotation="NO")
    report = deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert report.quarantined == "its pixels seem to show a line of text"


def test_pixels_that_nobody_can_look_at_are_quarantined(tmp_path: Path) -> None:
    plane = (PLANE // 2).astype(np.uint8)
    source = write_dicom(tmp_path / "source.dcm", plane, encoding=Stored(bits=8, transfer_syntax=JPEG_EXTENDED))
    content = source.read_bytes()
    source.write_bytes(content.replace(b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.55"))
    report = deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert "its pixels could not be looked at" in str(report.quarantined)


def test_damaged_pixels_are_no_matter_for_a_person_to_look_at(tmp_path: Path) -> None:
    source = write_dicom(tmp_path / "source.dcm", PLANE, Rows=400)
    with pytest.raises(RefusedImageError):
        deidentify_file(source, tmp_path / "target.dcm", KEY)


def test_a_picture_full_of_marks_is_looked_at_in_little_time() -> None:
    """The longest line is that of a twin that compares each mark with all before it."""
    rng = np.random.default_rng(0)
    marks = [
        _Mark(top=int(top), bottom=int(top) + 20, left=int(left), right=int(left) + int(width), brightness=0.5)
        for top, left, width in zip(
            rng.integers(0, 200, 600), rng.integers(0, 3000, 600), rng.integers(5, 40, 600), strict=True
        )
    ]
    ordered = sorted(marks, key=lambda mark: mark.left)
    longest = [1] * len(ordered)
    for index, mark in enumerate(ordered):
        longest[index] = 1 + max((longest[at] for at in range(index) if _follows(ordered[at], mark)), default=0)
    assert _longest_line(marks) == max(longest) > 5
    calls = []

    def counted(one: _Mark, other: _Mark) -> bool:
        calls.append(one)
        return _follows(one, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(burned_in, "_follows", counted)
        _longest_line(marks)
    # Of 600 marks over 3,000 columns and 200 rows about 30 lie within 144 columns before each, of which some 5 are of
    # bases that could be of one line, and not 300.
    assert len(calls) < 600 * 10
