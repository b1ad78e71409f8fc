"""What the index keeps of a file's header: whom it is of, to which stack it belongs, and what is known of that."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydicom.charset import convert_encodings, decode_bytes

from osteoscope.cohort.archive import words
from osteoscope.cohort.deidentify.values import study_and_series
from osteoscope.imaging.derivation import derivation_of, is_original
from osteoscope.imaging.frames import frames_of
from osteoscope.imaging.refusal import RefusedImageError
from osteoscope.imaging.volume import LEAST_COSINE
from osteoscope.storage import sha256_of_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.imaging.derivation import Derivation
    from osteoscope.imaging.dicom import Header
    from osteoscope.imaging.frames import Frame, Orientation
    from osteoscope.imaging.headers import Elements

Normal = tuple[float, float, float]

Kind = Literal["CT", "MR", "radiograph", "marks", "other"]
"""An image that may be used, what marks a lesion in one (SEG, RTSTRUCT), or any other object."""

_NAME, _IDENTIFIER, _BORN, _SEX = 0x00100010, 0x00100020, 0x00100030, 0x00100040

ALSO = frozenset(
    {
        0x00080005,  # Specific Character Set
        0x00080018,  # SOP Instance UID
        0x00080020,  # Study Date
        0x00080021,  # Series Date
        0x00080022,  # Acquisition Date
        0x00080023,  # Content Date
        0x00080050,  # Accession Number
        0x00081030,  # Study Description
        0x0008103E,  # Series Description
        0x00180010,  # Contrast/Bolus Agent
        0x00180015,  # Body Part Examined
        0x00181030,  # Protocol Name
        0x00185101,  # View Position
        0x00200013,  # Instance Number
    }
)
"""Elements that the index needs beside those of an image's header."""

INSTANCE = 0x00080018
"""SOP Instance UID."""

_STUDY_AND_SERIES = (0x0020000D, 0x0020000E, 0x00200052, 0x00200011)
"""Study and Series Instance UID, and what may stand for them: Frame of Reference UID and Series Number."""

_DATES = (0x00080022, 0x00080021, 0x00080020, 0x00080023)
"""The date of the image itself before that of its study, which may be that of an older order."""

_MARKS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.3")
"""SOP classes of segmentations and of structure sets (PS3.4 B.5)."""

_NO_NAMES = re.compile(r"|anon\w*|no ?name|unknown|test|patient|xx+|removed|deidentified|name", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Whom a file says that it is of.

    Parameters
    ----------
    identifier
        Patient ID, or what stands for it.
    guessed
        Whether it had none, and name and birth date, or the study, stand for it.
    name, born, sex
        As the file has them; empty where it has not.
    """

    identifier: str
    guessed: bool
    name: str
    born: str
    sex: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the files of a stack share, and, of its first file, what they need not share.

    Parameters
    ----------
    kind
        What it may be used as.
    modality
        Modality (0008,0060).
    aside
        Why it is used only when asked for (a code of `osteoscope.imaging.refusal`), or empty.
    derivation
        As `osteoscope.imaging.derivation.derivation_of` gives it; empty of a radiograph.
    original
        Whether the image type says so.
    plane
        ``axial``, ``sagittal``, ``coronal``, ``oblique``, or empty where the place is unknown.
    rows, columns
        In pixels.
    spacing
        Between rows and between columns, in mm; empty where it is unknown.
    echo
        Echo time in ms, as it is written.
    frame_of_reference
        UID, or empty.
    kernel, weighting, contrast
        As the functions of `osteoscope.cohort.archive.words` give them.
    thickness
        Of a slice, in mm, or None.
    number
        Of the series, or None.
    date
        ISO 8601, of the acquisition where it is known; empty where none is.
    age
        Patient's Age (0010,1010), as it is written.
    body_part
        Regions that the tag names, unverified; ``described`` those that the descriptions name.
    view
        View Position (0018,5101) of a radiograph.
    """

    kind: Kind
    modality: str
    aside: str
    derivation: Derivation
    original: bool
    plane: str
    rows: int
    columns: int
    spacing: tuple[float, ...]
    echo: str
    frame_of_reference: str
    kernel: words.Kernel
    weighting: words.Weighting
    contrast: bool | None
    thickness: float | None
    number: int | None
    date: str
    age: str
    body_part: tuple[str, ...]
    described: tuple[str, ...]
    view: str

    def to_json(self) -> str:
        """Give the facts as JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` gave."""
        value = json.loads(text)
        lists = {name: tuple(value[name]) for name in ("spacing", "body_part", "described")}
        return cls(**{**value, **lists})


_SHARED = (
    "kind",
    "modality",
    "aside",
    "derivation",
    "original",
    "plane",
    "rows",
    "columns",
    "spacing",
    "echo",
    "frame_of_reference",
    "kernel",
    "view",
)
"""Facts by which the files of one series are divided, since no image has them in two ways."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the index keeps of one DICOM file.

    Parameters
    ----------
    digest
        Of what tells its stack from others.
    person
        Whom it is of.
    study, series
        UIDs, or what stands for them (`osteoscope.cohort.deidentify.values.study_and_series`), or empty.
    instance
        UID, or empty.
    accession
        Accession Number (0008,0050), or empty.
    facts
        Of its stack.
    normal
        Of its planes, in LPS, or None.
    place
        Of its first frame along that normal, in mm, or None.
    frames
        How many it has.
    """

    digest: str
    person: Person
    study: str
    series: str
    instance: str
    accession: str
    facts: Facts
    normal: Normal | None
    place: float | None
    frames: int


def known_of(elements: Elements, header: Header | None) -> Known:
    """Take from a file's elements what the index keeps.

    Parameters
    ----------
    elements
        Scanned with `ALSO`.
    header
        Of the image; None where the file holds none that can be read.
    """
    study, series = study_and_series(*(elements.word(tag) for tag in _STUDY_AND_SERIES))
    person = person_of(elements, study)
    frame = _first_frame(elements, header)
    plane, normal = ("", None) if frame is None or frame.orientation is None else _plane_of(frame.orientation)
    facts = _facts(elements, header, frame, plane)
    shared = {name: getattr(facts, name) for name in _SHARED}
    who = [person.identifier, plain_name(person.name), person.born, person.sex]
    position = frame.position if frame is not None and frame.position is not None else ()
    return Known(
        digest=sha256_of_text(json.dumps([who, study, series, shared])),
        person=person,
        study=study,
        series=series,
        instance=elements.word(INSTANCE),
        accession=text_in(elements, 0x00080050),
        facts=facts,
        normal=normal,
        place=place_along(position, normal),
        frames=len(header.frames) if header is not None else 0,
    )


def plain_name(name: str) -> str:
    """Write a person's name so that two ways of writing it are one; empty where it is no name."""
    words = re.sub(r"[\^,=\s]+", " ", name).strip().casefold()
    return "" if _NO_NAMES.fullmatch(words) else " ".join(sorted(words.split()))


def place_along(position: Sequence[float], normal: Normal | None) -> float | None:
    """Give the place of a position along a normal, in mm; None where either is unknown."""
    if len(position) != 3 or normal is None:
        return None
    return sum(one * other for one, other in zip(position, normal, strict=True))


def text_in(elements: Elements, tag: int) -> str:
    """Give an element's text, decoded as the file's character set says (PS3.3 C.12.1.1.2); empty where it has none."""
    content = elements.values.get(tag, (b"", b""))[1]
    if content.isascii() and b"\x1b" not in content:
        return content.decode("ascii").strip(" \0\t\r\n")
    named = "\\".join(elements.words(0x00080005))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = decode_bytes(content, convert_encodings(named.split("\\")), set(b"\\^="))
    except (LookupError, UnicodeError):
        text = content.decode("latin-1")
    return text.strip(" \0\t\r\n")


def person_of(elements: Elements, study: str) -> Person:
    """Say whom a file is of: by the Patient ID, else by name and birth date, else by the study alone.

    Parameters
    ----------
    elements
        Of the file.
    study
        UID of its study, or what stands for it.
    """
    identifier, name, born, sex = (text_in(elements, tag) for tag in (_IDENTIFIER, _NAME, _BORN, _SEX))
    guessed = not identifier
    if guessed:
        identifier = f"name\0{name}\0{born}" if name and born else f"study\0{study}"
    return Person(identifier=identifier, guessed=guessed, name=name, born=born, sex=sex)


def _facts(elements: Elements, header: Header | None, frame: Frame | None, plane: str) -> Facts:
    tags = (0x0008103E, 0x00081030, 0x00181030)
    series, study, protocol = (text_in(elements, tag) for tag in tags)
    kinds = "\\".join(elements.words(0x00080008))
    described = f"{series} {protocol}"
    spacing = frame.spacing if frame is not None and frame.spacing is not None else ()
    number = elements.integer(0x00200011) if 0x00200011 in elements else None
    kind = _kind(elements, header)
    return Facts(
        kind=kind,
        modality=header.dicom_modality if header is not None else _code(elements, 0x00080060),
        aside=str(header.aside or "") if header is not None else "",
        # Every film is a projection, and may be called one.
        derivation="" if kind == "radiograph" else derivation_of(kinds, described),
        original=is_original(kinds),
        plane=plane,
        rows=elements.integer(0x00280010) or 0,
        columns=elements.integer(0x00280011) or 0,
        spacing=tuple(round(distance, 3) for distance in spacing),
        echo=elements.word(0x00180081)[:16],
        frame_of_reference=elements.word(0x00200052),
        kernel=words.kernel_of(elements.shown(0x00181210)),
        weighting=words.weighting_of(described),
        contrast=words.contrast_of(text_in(elements, 0x00180010), described),
        thickness=elements.number(0x00180050),
        number=number,
        date=_date(elements),
        age=elements.word(0x00101010)[:4],
        body_part=tuple(sorted(words.regions_in(text_in(elements, 0x00180015)))),
        described=tuple(sorted(words.regions_in(f"{described} {study}"))),
        view=_code(elements, 0x00185101),
    )


def _kind(elements: Elements, header: Header | None) -> Kind:
    sop_class = elements.word(0x00080016)
    if sop_class in _MARKS:
        return "marks"
    if header is not None:
        return header.modality
    # A slice that is damaged belongs to its series all the same.
    stated = _code(elements, 0x00080060)
    by_modality: dict[str, Kind] = {"CT": "CT", "MR": "MR", "CR": "radiograph", "DX": "radiograph"}
    return by_modality.get(stated, "other") if elements.integer(0x00280010) else "other"


def _code(elements: Elements, tag: int) -> str:
    """Give a code (PS3.5 6.2, CS); what else a file may hold there is not kept."""
    value = elements.word(tag)
    return value if value.replace("_", "").replace(" ", "").isalnum() and len(value) <= 16 and value.isupper() else ""


def _first_frame(elements: Elements, header: Header | None) -> Frame | None:
    if header is not None:
        return header.frames[0]
    try:
        return frames_of(elements, 1, placed=True)[0]
    except (RefusedImageError, ValueError):
        return None


@functools.lru_cache(maxsize=4096)
def _plane_of(orientation: Orientation) -> tuple[str, Normal]:
    """Name the anatomical plane that a frame is closest to, and give its normal in LPS."""
    x1, y1, z1, x2, y2, z2 = orientation
    normal = (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)
    cosines = [abs(cosine) for cosine in normal]
    axis = cosines.index(max(cosines))
    return ("sagittal", "coronal", "axial")[axis] if cosines[axis] >= LEAST_COSINE else "oblique", normal


_FIRST_X_RAY = 1895


def _date(elements: Elements) -> str:
    """Give the first date that is one, as ISO 8601; what is older than X-rays stands for none."""
    for tag in _DATES:
        word = elements.word(tag).replace(".", "")
        if re.fullmatch(r"[0-9]{8}", word) and int(word[:4]) >= _FIRST_X_RAY:
            with contextlib.suppress(ValueError):
                return datetime.date(int(word[:4]), int(word[4:6]), int(word[6:])).isoformat()
    return ""
