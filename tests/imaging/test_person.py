"""Age and sex as a DICOM file states them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_dicom, write_series
from PIL import Image as Picture

from osteoscope.imaging.open import open_image
from osteoscope.imaging.person import NOBODY, years_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("034Y", 34),
        (" 034Y ", 34),
        ("006M", 0.5),
        ("021D", 21 / 365.25),
        ("010W", 70 / 365.25),
        ("000Y", None),
        ("34Y", None),
        ("034", None),
        ("034y", None),
        ("", None),
    ],
)
def test_an_age_string_has_three_digits_and_a_unit(text: str, years: float | None) -> None:
    assert years_of(text) == (None if years is None else pytest.approx(years))


PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def test_age_and_sex_are_read_where_they_are_stated(tmp_path: Path) -> None:
    both = write_dicom(tmp_path / "a.dcm", PIXELS, "DX", PatientAge="061Y", PatientSex="F")
    assert (open_image(both).person.age, open_image(both).person.sex) == (61, "F")
    other = write_dicom(tmp_path / "b.dcm", PIXELS, "DX", PatientSex="O")
    assert (open_image(other).person.age, open_image(other).person.sex) == (None, None)


def test_one_patient_is_told_from_another_by_a_hash_alone(tmp_path: Path) -> None:
    told = [
        open_image(write_dicom(tmp_path / name, PIXELS + place, "DX", PatientID=identifier)).person.patient
        for place, (name, identifier) in enumerate([("a", "Doe-17"), ("b", "Doe-17"), ("c", "Doe-18"), ("d", None)])
    ]
    # sha256sum of the identifiers, their first 12 digits.
    assert told == ["5eb126db88f9", "5eb126db88f9", "fd6c2d05a4ae", ""]


def test_patients_are_told_apart_in_any_letters(tmp_path: Path) -> None:
    told = [
        open_image(
            write_dicom(tmp_path / name, PIXELS, "DX", PatientID=identifier, SpecificCharacterSet="ISO_IR 192")
        ).person.patient
        for name, identifier in [("a", "张伟"), ("b", "李娜"), ("c", "张伟 ")]
    ]
    assert told[0] == told[2] != told[1]


def test_whom_an_image_shows_is_known_once_it_was_opened(tmp_path: Path) -> None:
    files = write_series(tmp_path, np.stack([PIXELS] * 3), PatientAge="034Y", PatientSex="M")
    image = open_image(tmp_path)
    for path in files:
        path.unlink()
    assert (image.person.age, image.person.sex) == (34, "M")


def test_what_is_no_dicom_file_shows_nobody(tmp_path: Path) -> None:
    Picture.fromarray(PIXELS.astype(np.uint8)).resize((64, 64)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").person is NOBODY
