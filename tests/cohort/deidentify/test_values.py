"""What takes the place of a date, an age or another value."""

from __future__ import annotations

import pytest
from pydicom.dataelem import DataElement

from osteoscope.cohort.deidentify.values import age_between, capped_age, dummy, moved


@pytest.mark.parametrize(
    ("text", "representation", "expected"),
    [
        ("20240301", "DA", "20240229"),
        ("20230301", "DA", "20230228"),
        ("2000.01.01", "DA", "19991231"),
        ("20240101120000.5+0100", "DT", "20231231120000.5+0100"),
        ("20240101", "DT", "20231231"),
        ("2024010112", "DT", "2023123112"),
        ("235959.123456", "TM", "235959.123456"),
        ("12:30:00", "TM", "12:30:00"),
        ("00010102", "DA", "00010101"),
        ("00010101", "DA", None),
        ("20230230", "DA", None),
        ("2024", "DT", None),
        ("20240101x", "DA", None),
        ("20240101 Smith", "DT", None),
        ("Smith", "TM", None),
        ("", "DA", None),
    ],
)
def test_a_date_moves_by_whole_days_and_what_is_none_goes(text: str, representation: str, expected: str | None) -> None:
    assert moved(text, representation, -1) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("045Y", "045Y"),
        ("089Y", "089Y"),
        ("090Y", "090Y"),
        ("103Y", "090Y"),
        ("999M", "999M"),
        ("012D", "012D"),
        ("45", None),
        ("000Y", None),
        ("Smth", None),
        ("", None),
    ],
)
def test_an_age_above_89_becomes_90(age: str, expected: str | None) -> None:
    assert capped_age(age) == expected


@pytest.mark.parametrize(
    ("born", "then", "expected"),
    [
        ("19800615", "20240614", "043Y"),
        ("19800615", "20240615", "044Y"),
        ("19300101", "20240101", "090Y"),
        ("20240102", "20240101", None),
        ("", "20240101", None),
        ("19800615", "", None),
        ("00010101", "20240101", None),
    ],
)
def test_an_age_follows_from_two_dates(born: str, then: str, expected: str | None) -> None:
    assert age_between(born, then) == expected


NUMBERS = ("AT", "FD", "FL", "SL", "SS", "UL", "US")
TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")


@pytest.mark.parametrize("representation", [*NUMBERS, *TEXTS, "OB"])
def test_a_dummy_is_a_valid_value_of_its_representation(representation: str) -> None:
    DataElement(0x00080005, representation, dummy(representation), validation_mode=2)
