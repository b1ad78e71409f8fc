"""Who a DICOM file says that it shows: age and sex, and nothing by which anybody is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Of the units of an age string (PS3.5 6.2, AS)."""

_SEXES: dict[str, Literal["F", "M"]] = {"F": "F", "M": "M"}

_SEX, _AGE = 0x00100040, 0x00101010


@dataclass(frozen=True, kw_only=True)
class Person:
    """Age in years and sex of a patient; None where not known."""

    age: float | None = None
    sex: Literal["F", "M"] | None = None


def years_of(text: str) -> float | None:
    """Give the years of an age string, such as ``034Y`` or ``006M``; None where it is none.

    Many writers fill in ``000Y`` where they know no age, so 0 is none either.
    """
    found = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    return float(found[1]) * YEARS[found[2]] if found and int(found[1]) else None


def person_in(path: Path) -> Person:
    """Read who a DICOM file says that it shows (PS3.3 C.7.1.1, C.7.2.2); nobody where it is none, or damaged."""
    age, sex = words_in(path, (_AGE, _SEX))
    return Person(age=years_of(age), sex=_SEXES.get(sex.upper()))


def words_in(path: Path, tags: Sequence[int]) -> tuple[str, ...]:
    """Read texts of a DICOM file by their tags; each is empty where it has none, or where the file cannot be read."""
    from osteoscope.imaging.headers import scan
    from osteoscope.imaging.opened import opened

    try:
        with opened(path) as stream:
            elements = scan(stream, also=frozenset(tags)).elements
    except Exception:
        return ("",) * len(tags)
    return tuple(elements.word(tag) for tag in tags)
