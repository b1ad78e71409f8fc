"""What the Basic Profile does to each attribute: Table E.1-1 of DICOM PS3.15, with two of its options.

The table's rules come from dicom-anonymizer, which transcribes it edition by edition. The options (PS3.15 E.3.6, E.3.7)
keep dates, moved by one number of days for each patient, and of the patient's characteristics the age and the sex.
Where the table leaves a choice (``X/Z``, ``X/D``, ``X/Z/D``, ``Z/D``: what is removed unless the object would become
invalid), the last is taken, which is valid for every kind of object; nothing of the value stays either way.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag, tag_for_keyword

if TYPE_CHECKING:
    from collections.abc import Mapping

EDITION = "2026c"
"""Edition of the standard whose table is applied."""


class Action(StrEnum):
    """What is done to an element; the values are those of a report."""

    KEEP = "kept"
    """As it is; a sequence's items are gone through (K)."""
    REMOVE = "removed"
    """X."""
    EMPTY = "emptied"
    """Z: nothing stays of the value, the element does."""
    REPLACE = "replaced"
    """D: a value without meaning, a pseudonym, or (U) a UID that is the same wherever the same UID was."""
    SHIFT = "shifted"
    """C of Retain Longitudinal Temporal Information with Modified Dates."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A rule for all groups and elements that a mask leaves the same, such as ``60xx,3000``."""

    tag: int
    mask: int
    action: Action

    def covers(self, tag: int) -> bool:
        """Tell whether the rule is for this element."""
        return tag & self.mask == self.tag & self.mask


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The Basic Profile.

    Parameters
    ----------
    by_tag
        For single elements.
    masked
        For repeating groups.
    """

    by_tag: Mapping[int, Action]
    masked: tuple[Masked, ...]


PROFILE_VERSION = 2
"""Of all that is done to a file; raised with each change of it, so that copies that were made before are made again."""

_BY_COLUMN = {
    "X_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY,
    "X_Z_TAGS": Action.EMPTY,
    "D_TAGS": Action.REPLACE,
    "Z_D_TAGS": Action.REPLACE,
    "X_D_TAGS": Action.REPLACE,
    "X_Z_D_TAGS": Action.REPLACE,
    "U_TAGS": Action.REPLACE,
    # X unless Z or U is required: the items stay, and their UIDs are replaced.
    "X_Z_U_STAR_TAGS": Action.KEEP,
}


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None)


_NEVER_SHIFTED = _tags(
    # Of the patient, and not in the option's column of the table.
    "PatientBirthDate",
    "PatientBirthTime",
    "GPSTimeStamp",
    # Dates that are published, or that patients of a device or a trial share, would tell by how much dates were moved.
    "ContextGroupVersion",
    "ContextGroupLocalVersion",
    "TemplateVersion",
    "TemplateLocalVersion",
    "DateOfManufacture",
    "DateOfInstallation",
    "DateOfLastCalibration",
    "TimeOfLastCalibration",
    "DateTimeOfLastCalibration",
    "DateOfLastDetectorCalibration",
    "TimeOfLastDetectorCalibration",
    "CalibrationDate",
    "CalibrationTime",
    "CalibrationDateTime",
    "DateOfGainCalibration",
    "ExpiryDate",
    "ExpirationDateTime",
    "ProductExpirationDateTime",
    "SourceStrengthReferenceDate",
    "SourceStrengthReferenceTime",
    "EthicsCommitteeApprovalEffectivenessStartDate",
    "EthicsCommitteeApprovalEffectivenessEndDate",
    "EffectiveDateTime",
    "InformationIssueDateTime",
)

_REMOVED_SEQUENCES = _tags(
    "InstitutionCodeSequence", "OperatorIdentificationSequence", "ReferencedStudySequence", "WaveformAnnotationSequence"
)
"""Sequences with a choice that no object requires, and that are invalid without an item or with dummies in it."""

_BEYOND_THE_TABLE = _tags(
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PlacerOrderNumberProcedure",
    "FillerOrderNumberProcedure",
    "PlacerOrderNumberImagingServiceRequestRetired",
    "FillerOrderNumberImagingServiceRequestRetired",
    "RouteOfAdmissions",
    "ContactDisplayName",
    "ContentDescription",
    "OwnerID",
    "TestResultComment",
    "SystemStatusComment",
    "DoseComment",
)
"""Identifiers and short free texts that the table leaves out; they are emptied all the same."""

_FREE = frozenset({"PN", "ST", "LT", "UT", "UC", "UR"})
"""Value representations of names, long texts and addresses; those that the table leaves out are emptied, too."""

_CODES = _tags("LongCodeValue", "URNCodeValue")
"""Of these representations, and no free text."""

CHARACTERISTICS = _tags("PatientAge", "PatientSex")
"""What is kept of the patient's characteristics, once it is cleaned."""

OF_DATES = ("DA", "DT", "TM")


@functools.cache
def rules() -> Rules:
    """Read the table that the library carries."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    table = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    by_tag: dict[int, Action] = {}
    masked: list[Masked] = []
    for column, action in _BY_COLUMN.items():
        for group, element, *mask in table[column]:
            tag = group << 16 | element
            if mask:
                masked.append(Masked(tag=tag, mask=mask[0] << 16 | mask[1], action=action))
            else:
                by_tag[tag] = action
    return Rules(by_tag=by_tag, masked=tuple(masked))


def is_known(tag: int) -> bool:
    """Tell whether an element is in the standard's dictionary, as pydicom has it."""
    return dictionary_has_tag(tag) or _of_repeating_group(tag)


@functools.lru_cache(maxsize=8192)
def action_of(tag: int) -> Action:
    """Say what is done to an element.

    Parameters
    ----------
    tag
        Group and element as one number. A private element, one of unknown meaning and a group's length are removed.
    """
    if tag & 0x10000 or tag & 0xFFFF == 0 or not 8 <= tag >> 16 < 0xFFFE:
        return Action.REMOVE
    # What an element means that the dictionary lacks, nobody can tell.
    if not is_known(tag) or tag in _REMOVED_SEQUENCES:
        return Action.REMOVE
    stated = _stated(tag)
    representation = dictionary_VR(tag)
    if representation in OF_DATES and tag not in _NEVER_SHIFTED:
        return Action.SHIFT
    if stated is not None:
        return stated
    return _of_unlisted(tag, representation)


def _stated(tag: int) -> Action | None:
    """Give what the table says of an element, or None."""
    found = rules().by_tag.get(tag)
    if found is None:
        return next((rule.action for rule in rules().masked if rule.covers(tag)), None)
    return found


def _of_unlisted(tag: int, representation: str) -> Action:
    if representation == "UI":
        return Action.REPLACE
    if tag in _BEYOND_THE_TABLE or tag in _NEVER_SHIFTED or (representation in _FREE and tag not in _CODES):
        return Action.EMPTY
    # An overlay without its data, which are removed, is no longer one.
    return Action.REMOVE if _of_repeating_group(tag) else Action.KEEP


def _of_repeating_group(tag: int) -> bool:
    """Tell whether an element is one of a curve or an overlay (50xx, 60xx) that the dictionary has."""
    return tag >> 24 in (0x50, 0x60) and not tag & 0x10000 and repeater_has_tag(tag)
