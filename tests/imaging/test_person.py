"""Age and sex as a DICOM file states them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_dicom

from osteoscope.imaging.person import Person, person_in, years_of

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


def test_age_and_sex_are_read_where_they_are_stated(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    both = write_dicom(tmp_path / "a.dcm", pixels, "DX", PatientAge="061Y", PatientSex="F")
    assert person_in(both) == Person(age=61, sex="F")
    other = write_dicom(tmp_path / "b.dcm", pixels, "DX", PatientSex="O")
    assert person_in(other) == Person()


def test_what_is_no_dicom_file_shows_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"DICM" * 100)
    assert person_in(tmp_path / "a.dcm") == Person()
    assert person_in(tmp_path / "none.dcm") == Person()
