"""Who a DICOM file says that it shows: age and sex, and whether two files mean one patient, but not whom."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from osteoscope.storage import short_hash

if TYPE_CHECKING:
    from osteoscope.imaging.headers import Elements

YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Of the units of an age string (PS3.5 6.2, AS)."""

_SEXES: dict[str, Literal["F", "M"]] = {"F": "F", "M": "M"}

_IDENTIFIER, _SEX, _AGE = 0x00100020, 0x00100040, 0x00101010


@dataclass(frozen=True, kw_only=True)
class Person:
    """A patient.

    Parameters
    ----------
    age, sex
        In years, and as it is stated; None where not known.
    patient
        Short hash of the Patient ID (0010,0020); empty where there is none. Never to be written.
    """

    age: float | None = None
    sex: Literal["F", "M"] | None = None
    patient: str = ""


NOBODY = Person()
"""Of whom nothing is known."""


def years_of(text: str) -> float | None:
    """Give the years of an age string, such as ``034Y`` or ``006M``; None where it is none.

    Many writers fill in ``000Y`` where they know no age, so 0 is none either.
    """
    found = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    return float(found[1]) * YEARS[found[2]] if found and int(found[1]) else None


def person_of(elements: Elements) -> Person:
    """Take from a file's header who it says that it shows (PS3.3 C.7.1.1, C.7.2.2)."""
    # As it is stored: whatever its character set, other letters stay others.
    identifier = elements.values.get(_IDENTIFIER, (b"", b""))[1].strip(b" \0").decode("latin-1")
    return Person(
        age=years_of(elements.word(_AGE)),
        sex=_SEXES.get(elements.word(_SEX).upper()),
        patient=short_hash(identifier) if identifier else "",
    )
