"""What takes the place of a value: dates that are moved, ages that are capped, and values that mean nothing."""

from __future__ import annotations

import datetime
import re
from typing import Any

from osteoscope.imaging.person import YEARS

OLDEST = 89
"""Years of age that are kept; who is older is one of few, and becomes 90 (45 CFR 164.514(b)(2)(i)(C))."""

WORD = "REMOVED"
"""What stands for a text."""

_DUMMIES: dict[str, Any] = {
    "AS": "000Y",
    "AT": 0,
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "FD": 0.0,
    "FL": 0.0,
    "IS": "0",
    "SL": 0,
    "SS": 0,
    "SV": 0,
    "TM": "000000",
    "UL": 0,
    "UR": "https://removed.invalid",
    "US": 0,
    "UV": 0,
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), WORD),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
}

_OF = " of "
"""In what stands for a UID."""

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
"""Of DICOM, and of ACR-NEMA with its points (PS3.5 6.2)."""

_REST_OF_DATETIME = re.compile(r"(\d{2}){0,3}(\.\d{1,6})?([+-]\d{4})?")
_TIME = re.compile(r"\d{2}:?(\d{2}:?(\d{2}(\.\d{1,6})?)?)?")
_AGE = re.compile(r"(\d{3})([DWMY])")


def study_and_series(study: str, series: str, frame: str, number: str) -> tuple[str, str]:
    """Give the UIDs of a file's study and series, or what stands for one that it lacks, as half anonymised files do.

    Parameters
    ----------
    study, series, frame
        Study and Series Instance UID and Frame of Reference UID, each empty where the file has none.
    number
        Series Number, or empty.

    Returns
    -------
    Each empty where nothing can stand for it.
    """
    for_study = f"study{_OF}{series or frame}" if series or frame else ""
    for_series = f"series {number}{_OF}{frame or study}" if frame or study else ""
    return study or for_study, series or for_series


def is_stand_in(uid: str) -> bool:
    """Tell whether it stands for a UID that a file lacks: no UID has a blank in it (PS3.5 9.1)."""
    return _OF in uid


def dummy(representation: str) -> Any:
    """Give a value of a representation (PS3.5 6.2) that means nothing; UIDs have none, and sequences neither."""
    return _DUMMIES[representation]


def moved(text: str, representation: str, days: int) -> str | None:
    """Move a date, or the date of a date and time, by whole days; a time stays as it is.

    Returns
    -------
    None where it is no such date or time, or has no day that could be moved.
    """
    text = text.strip(" \0")
    if representation == "TM":
        return text if _TIME.fullmatch(text) else None
    found = _DATE.match(text)
    if found is None:
        return None
    rest = text[found.end() :]
    if not (_REST_OF_DATETIME.fullmatch(rest) if representation == "DT" else not rest):
        return None
    day = _day(found[0])
    try:
        return None if day is None else f"{day + datetime.timedelta(days=days):%Y%m%d}".rjust(8, "0") + rest
    except OverflowError:
        return None


def capped_age(text: str) -> str | None:
    """Give an age (AS) as it is, of the oldest ``090Y``; None where it is none, or ``000Y``, which means unknown."""
    found = _AGE.fullmatch(text.strip(" \0"))
    if found is None or not int(found[1]):
        return None
    return "090Y" if int(found[1]) * YEARS[found[2]] > OLDEST else found[0]


def age_between(born: str, then: str) -> str | None:
    """Give the age in whole years, as `capped_age` does, or None where a date is none, or in the wrong order."""
    first, second = _day(born.strip(" \0")), _day(then.strip(" \0"))
    if first is None or second is None or second < first:
        return None
    years = second.year - first.year - ((second.month, second.day) < (first.month, first.day))
    return capped_age(f"{years:03d}Y") if years < 1000 else None


def _day(text: str) -> datetime.date | None:
    found = _DATE.fullmatch(text)
    try:
        return datetime.date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None
