"""A file that holds every attribute of the Basic Profile's table, also within sequences, and a judge of what is left.

Each value is one that nothing else has, so that wherever it turns up again it was not taken out.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).parent / "cohort" / "deidentify" / "table_e_1_1.csv"

TEXT = "Canary"
DATE, TIME, DATETIME = "19770313", "131317", "19770313131317"
ROOT = "1.2.826.0.1.3680043.8.498.77"
NUMBER = 7713
PRIVATE = 0x00291010

_OUTER = 0x52009229  # Shared Functional Groups Sequence, which the table does not name, and an item of every kind in it
_INNER = 0x00081115  # Referenced Series Sequence

PLACES = ("data set", "item", "item of an item")

_OF_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A row of the table."""

    tag: int
    action: str
    earlier: str

    @property
    def representation(self) -> str:
        try:
            return dictionary_VR(self.tag).split(" or ")[0]
        except KeyError:
            return "LO"


def table() -> list[Rule]:
    """Read the table; a repeating group stands for its first, the curve's data for all of a curve."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [Rule(tag=_tag(row["tag"]), action=row["action"], earlier=row["earlier"]) for row in rows]


def _tag(text: str) -> int:
    return int({"50XXXXXX": "50003000"}.get(text, text.replace("X", "0")), 16)


def value_of(rule: Rule) -> Any:
    """Give a value of the rule's representation that can be found again."""
    of_representation: dict[str, Any] = {
        "DA": DATE,
        "TM": TIME,
        "DT": DATETIME,
        "UI": f"{ROOT}.{rule.tag}",
        "AS": "077Y",
        "CS": TEXT.upper(),
        "UR": f"https://{TEXT}.example",
        **dict.fromkeys(("DS", "IS"), str(NUMBER)),
        **dict.fromkeys(("FD", "FL"), float(NUMBER)),
        **dict.fromkeys(("US", "SS", "UL", "SL"), NUMBER),
        **dict.fromkeys(("OB", "OW", "UN"), TEXT.encode() + b"  "),
    }
    if rule.representation == "SQ":
        return Items([_item()])
    return of_representation.get(rule.representation, TEXT)


def _item() -> Dataset:
    """Make an item with a name, a code, a reference, a date and a private element."""
    item = Dataset()
    item.PersonName = item.CodeMeaning = item.TextValue = TEXT
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.2"), f"{ROOT}.1"
    item.DateTime = DATETIME
    item.add(DataElement(0x00290010, "LO", TEXT))
    item.add(DataElement(PRIVATE, "LO", TEXT))
    return item


def identifying_file() -> bytes:
    """Write a CT image with every attribute of the table, in the data set, in an item, and in an item of an item."""
    inner, middle, outer = Dataset(), Dataset(), Dataset()
    for data_set in (inner, middle, outer):
        for rule in table():
            if rule.tag >> 16 >= 8:
                data_set[rule.tag] = DataElement(rule.tag, rule.representation, value_of(rule))
        data_set.add(DataElement(0x00290010, "LO", TEXT))
        data_set.add(DataElement(PRIVATE, "LO", TEXT))
    middle[_INNER] = DataElement(_INNER, "SQ", [inner])
    outer[_OUTER] = DataElement(_OUTER, "SQ", [middle])
    outer.SOPClassUID, outer.Modality, outer.BurnedInAnnotation = UID("1.2.840.10008.5.1.4.1.1.2"), "CT", "NO"
    _add_pixels(outer)
    outer.file_meta = FileMetaDataset()
    outer.file_meta.MediaStorageSOPClassUID = outer.SOPClassUID
    outer.file_meta.MediaStorageSOPInstanceUID = outer.SOPInstanceUID
    outer.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    outer.file_meta.SourceApplicationEntityTitle = TEXT
    outer.preamble = TEXT.encode().ljust(128)
    sink = io.BytesIO()
    outer.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def _add_pixels(data_set: Dataset) -> None:
    data_set.Rows = data_set.Columns = 16
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 16, 12, 11
    data_set.SamplesPerPixel, data_set.PixelRepresentation = 1, 0
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.PixelData = np.arange(256, dtype="<u2").tobytes()


def places_of(data_set: Dataset) -> dict[str, Dataset | None]:
    """Find again what the file was made of; None where it is gone."""
    found: dict[str, Dataset | None] = {"data set": data_set, "item": None, "item of an item": None}
    if _OUTER in data_set and len(data_set[_OUTER].value):
        item = data_set[_OUTER].value[0]
        found["item"] = item
        if _INNER in item and len(item[_INNER].value):
            found["item of an item"] = item[_INNER].value[0]
    return found


def is_left(data_set: Dataset, rule: Rule) -> bool:
    """Tell whether the value of an attribute can still be found in a data set."""
    return rule.tag in data_set and any(_is_canary(element) for element in _leaves(data_set[rule.tag]))


def _leaves(element: DataElement) -> Iterator[DataElement]:
    if element.VR != "SQ":
        yield element
        return
    for item in element.value:
        for inner in item:
            yield from _leaves(inner)


def _is_canary(element: DataElement) -> bool:
    value = element.value
    if isinstance(value, bytes):
        return TEXT.lower().encode() in value.lower()
    values = value if isinstance(value, list) else [value]
    return any(_holds(one) for one in values)


def _holds(value: Any) -> bool:
    text = str(value).lower()
    if isinstance(value, (int, float)) or (text.replace(".", "").isdigit() and not text.startswith("1.2")):
        return text.split(".")[0] in (str(NUMBER), DATE, TIME, DATETIME)
    return TEXT.lower() in text or ROOT in text or text == "077y"
