"""Goes through a data set as deep as it is nested, and does to each element what the profile says."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from osteoscope.cohort.deidentify.profile import CHARACTERISTICS, Action, action_of
from osteoscope.cohort.deidentify.values import WORD, capped_age, dummy, moved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset

    from osteoscope.cohort.deidentify.key import Key

_PATIENT_NAME, _PATIENT_ID, _PATIENT_AGE = 0x00100010, 0x00100020, 0x00101010
_ROI_NAME = 0x30060026
_NUMBERS = (0x00080050, 0x00200010)
"""Accession Number, Study ID."""

_MAKERS = (0x00080070, 0x00081090)
"""Manufacturer, and the name of its model: a maker may be called as a patient is, and a phantom is told by them."""

_KIND_OF_UID = re.compile("(SOPClass|TransferSyntax|CodingScheme|Context|MappingResource)UID|SOPClasses.*")
"""Keywords of UIDs that name a kind and no object: they stay."""

_LETTERS = {
    "AS": rb"[0-9DWMY]*",
    "CS": rb"[A-Z0-9 _\\\0]*",
    "DS": rb"[0-9 +\-.eE\\\0]*",
    "IS": rb"[0-9 +\-\\\0]*",
    "UI": rb"[0-9.\\\0 ]*",
}
"""Of representations that cannot hold a name (PS3.5 6.2): what may stand in them."""

_TEXTS = frozenset({"AE", "LO", "SH", "UC"})
_BINARY = frozenset({"AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "UN", "US", "UV"})

_ROI_WORDS = frozenset(
    re.split(
        r"\s",
        "body bone contour ctv disc edge external gtv left lesion margin marrow mass metastasis muscle of pelvis ptv "
        "right roi sacrum soft spine the tissue tumor tumour vertebra volume",
    )
)
_ROI_NUMBER = re.compile("[0-9]{1,2}|[ctls][0-9]{1,2}")
"""A small number, or the name of a vertebra."""

_TERMS = frozenset({0x00080008, 0x00080060, 0x00180015, 0x00185100, 0x00185101, 0x00200060, 0x00280004})
"""Image Type, Modality, Body Part Examined, Patient Position, View Position, Laterality, Photometric Interpretation:
codes that say what an image is, and no more of a patient who is called as one of them."""

_PARTS = re.compile(r"[\^=\s\0,\\]+")
"""Stands between the parts of a name or an identifier."""

_SHORTEST_WORD = 4
"""Letters of a part of a name, or of an identifier, that is looked for in the texts that are kept."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom a file is of, as its own header or its caller says.

    Parameters
    ----------
    identifier
        Patient ID, or what stands for it.
    own
        Patient ID as the file has it; empty where it has none.
    guessed
        Whether it had no Patient ID.
    character_set
        Of the file, and so of items in it that state none.
    words
        Parts of the name and the identifier, casefolded, which no kept text may hold.
    """

    identifier: str = field(repr=False)
    own: str = field(repr=False)
    guessed: bool
    character_set: str
    words: frozenset[str] = field(repr=False)


def text_of(data_set: Dataset, keyword: str) -> str:
    """Give an element's text, decoded as the data set's character set says; empty where there is none.

    pydicom would warn of a wrong value, and name it.
    """
    return _decoded(_bytes_of(data_set.get_item(keyword)), _character_set(data_set)).strip(" \0\t\r\n")


def _character_set(data_set: Dataset) -> str:
    return _bytes_of(data_set.get_item("SpecificCharacterSet")).decode("ascii", "replace").strip(" \0")


def _decoded(content: bytes, character_set: str) -> str:
    try:
        return decode_bytes(content, convert_encodings(character_set.split("\\")), set(b"\\^="))
    except (LookupError, UnicodeError):
        return content.decode("latin-1")


def subject_of(data_set: Dataset, identifier: str | None = None) -> Subject:
    """Say whom a data set is of: by the Patient ID, else by name and birth date, else by the study.

    Parameters
    ----------
    data_set
        Of a file.
    identifier
        What stands for the patient in place of all these, where the caller knows more than the file says.
    """
    own, name = text_of(data_set, "PatientID"), text_of(data_set, "PatientName")
    born = text_of(data_set, "PatientBirthDate")
    # A double name may be given by one of its halves; an identifier has none.
    parts = {part.casefold() for text in (own, name, name.replace("-", " ")) for part in _PARTS.split(text)}
    words = frozenset(part for part in parts if len(part) >= _SHORTEST_WORD)
    stand_in = f"name\0{name}\0{born}" if name and born else f"study\0{text_of(data_set, 'StudyInstanceUID')}"
    return Subject(
        identifier=identifier or own or stand_in,
        own=own,
        guessed=not own,
        character_set=_character_set(data_set),
        words=words,
    )


def label_of(tag: int) -> str:
    """Write an element's tag for people; a private one by its group alone."""
    group, element = tag >> 16, tag & 0xFFFF
    return f"({group:04X},xxxx)" if group & 1 else f"({group:04X},{element:04X})"


class Cleaning:
    """Cleans data sets of one patient, and counts what was done to which elements.

    Parameters
    ----------
    key
        Gives what takes the place of identifiers.
    subject
        Whom the data sets are of.
    """

    def __init__(self, key: Key, subject: Subject) -> None:
        self._key = key
        self._subject = subject
        self._character_set = subject.character_set
        self._days = key.shift(subject.identifier)
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How often what was done, by action and tag."""
        return {action: dict(sorted(tags.items())) for action, tags in sorted(self._counts.items())}

    def clean(self, data_set: Dataset, *, everything: bool = False) -> None:
        """Change a data set, in place, as the profile says.

        Parameters
        ----------
        data_set
            Of a file, or an item of a sequence.
        everything
            Whether values that would be kept are replaced, too: in a sequence that the table gives a D.
        """
        for tag in list(data_set.keys()):
            action = action_of(int(tag))
            if action is Action.REMOVE and not (tag in CHARACTERISTICS and self._kept_age(data_set)):
                self._remove(data_set, tag)
            elif dictionary_VR(tag) == "SQ":
                self._clean_sequence(data_set, tag, action, everything=everything)
            elif action is Action.KEEP and everything:
                self._replace(data_set, tag)
            else:
                _HOW[action](self, data_set, tag)

    def _clean_sequence(self, data_set: Dataset, tag: int, action: Action, *, everything: bool) -> None:
        if action is Action.EMPTY:
            self._put(data_set, tag, Items(), action)
            return
        try:
            items = data_set[tag].value
        except Exception:
            items = None
        if not isinstance(items, Items):
            self._remove(data_set, tag)
            return
        if action is Action.REPLACE and len(items):
            self._counts[action][label_of(tag)] += 1
        for item in items:
            self.clean(item, everything=everything or action is Action.REPLACE)

    def _remove(self, data_set: Dataset, tag: int) -> None:
        del data_set[tag]
        self._counts[Action.REMOVE][label_of(tag)] += 1

    def _put(self, data_set: Dataset, tag: int, value: Any, action: Action) -> None:
        """Give an element another value; one that was empty is not counted."""
        representation = dictionary_VR(tag).split(" or ")[0]
        element = data_set.get_item(tag)
        if isinstance(element, RawDataElement) and not element.value:
            value, action = Items() if representation == "SQ" else "", Action.KEEP
        if action is not Action.KEEP:
            self._counts[action][label_of(tag)] += 1
        data_set[tag] = DataElement(tag, representation, value, validation_mode=IGNORE)

    def _kept_age(self, data_set: Dataset) -> bool:
        """Keep an age that is one; tell whether it was."""
        age = capped_age(_bytes_of(data_set.get_item(_PATIENT_AGE)).decode("latin-1"))
        if age is not None:
            self._put(data_set, _PATIENT_AGE, age, Action.KEEP)
        return age is not None

    def _keep(self, data_set: Dataset, tag: int) -> None:
        """Leave an element as it is stored, unless it may be something else than it should be, or names the patient."""
        element = data_set.get_item(tag)
        content, expected = _bytes_of(element), dictionary_VR(tag)
        if not _is_of(expected, element.VR, content):
            self._remove(data_set, tag)
        elif self._names_the_patient(data_set, tag, content, expected):
            self._put(data_set, tag, WORD, Action.REPLACE)

    def _names_the_patient(self, data_set: Dataset, tag: int, content: bytes, expected: str) -> bool:
        """Tell whether a text that would be kept holds a part of the name or the identifier."""
        if expected == "CS" and tag not in _TERMS:
            # A code that merely holds the letters of a name, such as SAGITTAL those of GITTA, names nobody.
            said = _PARTS.split(content.decode("ascii", "replace").casefold().replace("_", " "))
            return not self._subject.words.isdisjoint(said)
        if expected not in _TEXTS or tag in _MAKERS:
            return False
        text = _decoded(content, _character_set(data_set) or self._character_set).casefold()
        return any(word in text for word in self._subject.words)

    def _empty(self, data_set: Dataset, tag: int) -> None:
        content = _bytes_of(data_set.get_item(tag))
        if tag in CHARACTERISTICS and content.strip(b" \0") in (b"M", b"F", b"O"):
            return
        if tag == _ROI_NAME and _says_nothing(content, self._subject.words):
            return
        if tag == _PATIENT_NAME:
            self._put(data_set, tag, self._key.patient(self._subject.identifier), Action.REPLACE)
        elif tag in _NUMBERS:
            self._put(data_set, tag, self._key.number(text_of(data_set, keyword_for_tag(tag))), Action.REPLACE)
        else:
            self._put(data_set, tag, "", Action.EMPTY)

    def _replace(self, data_set: Dataset, tag: int) -> None:
        representation = dictionary_VR(tag).split(" or ")[0]
        if tag == _PATIENT_ID:
            written = text_of(data_set, "PatientID")
            of_subject = written in ("", self._subject.own)
            identifier = self._subject.identifier if of_subject else written
            self._put(data_set, tag, self._key.patient(identifier), Action.REPLACE)
        elif representation == "UI":
            self._replace_uids(data_set, tag)
        else:
            self._put(data_set, tag, dummy(representation), Action.REPLACE)

    def _replace_uids(self, data_set: Dataset, tag: int) -> None:
        content = _bytes_of(data_set.get_item(tag))
        if _KIND_OF_UID.search(keyword_for_tag(tag)):
            if not re.fullmatch(_LETTERS["UI"], content):
                self._remove(data_set, tag)
            return
        old = [uid.strip(" \0") for uid in content.decode("latin-1").split("\\")]
        new = [uid if not uid or _is_registered(uid) else self._key.uid(uid) for uid in old]
        if new != old:
            self._put(data_set, tag, new if len(new) > 1 else new[0], Action.REPLACE)

    def _shift(self, data_set: Dataset, tag: int) -> None:
        representation = dictionary_VR(tag)
        old = [text.strip(" \0") for text in _bytes_of(data_set.get_item(tag)).decode("latin-1").split("\\")]
        new = [moved(text, representation, self._days) or "" for text in old]
        done = Action.KEEP if new == old else Action.SHIFT if any(new) else Action.EMPTY
        self._put(data_set, tag, new if len(new) > 1 else new[0], done)


_HOW = {
    Action.KEEP: Cleaning._keep,
    Action.EMPTY: Cleaning._empty,
    Action.REPLACE: Cleaning._replace,
    Action.SHIFT: Cleaning._shift,
    Action.REMOVE: lambda *_: None,
}


def _bytes_of(element: DataElement | RawDataElement | None) -> bytes:
    """Give an element's value as it is stored; of one that was decoded its text in UTF-8."""
    value = None if element is None else element.value
    if value is None or isinstance(value, bytes):
        return value or b""
    return "\\".join(map(str, value if isinstance(value, MutableSequence) else [value])).encode("utf-8", "replace")


def _is_of(expected: str, declared: str | None, content: bytes) -> bool:
    """Tell whether a value can be of the representation that the dictionary gives its element.

    Parameters
    ----------
    expected
        The dictionary's.
    declared
        The file's, None in implicit VR.
    content
        As it is stored.
    """
    if declared is None or declared in expected.split(" or "):
        return True
    if expected in _LETTERS:
        return declared not in _BINARY - {"UN"} and re.fullmatch(_LETTERS[expected], content) is not None
    if expected in _TEXTS:
        return declared not in _BINARY and declared != "SQ"
    return declared in _BINARY


def _says_nothing(content: bytes, of_patient: frozenset[str]) -> bool:
    """Tell whether a region's name has only words that name nobody, such as ``GTV 1`` or ``L4 tumour``.

    Two numbers in it may be a date or an identifier, and other letters than ASCII a name, whatever the character set.
    """
    if not content.isascii() or b"\x1b" in content:
        return False
    words = re.findall(r"[^\W_]+", content.decode("ascii").lower())
    known = all(word in _ROI_WORDS or _ROI_NUMBER.fullmatch(word) for word in words)
    return known and sum(word.isdigit() for word in words) <= 1 and of_patient.isdisjoint(words)


def _is_registered(uid: str) -> bool:
    """Tell whether a UID is one of the standard's (PS3.6 A), such as a well-known frame of reference."""
    return UID(uid, validation_mode=IGNORE).name != uid
