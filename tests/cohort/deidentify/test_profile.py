"""The output, tag by tag, against the Basic Profile's table (DICOM PS3.15, table E.1-1)."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

import pydicom
import pytest
from canaries import (
    DATE,
    DATETIME,
    PLACES,
    PRIVATE,
    TEXT,
    TIME,
    Rule,
    identifying_file,
    is_left,
    places_of,
    table,
    value_of,
)
from pydicom.datadict import tag_for_keyword

from osteoscope.cohort.deidentify import FileReport, Key, deidentify_file
from osteoscope.cohort.deidentify.profile import Action, action_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEY = Key(secret=bytes(32))
PATIENT_AGE = 0x00101010


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileReport, bytes]:
    folder = tmp_path_factory.mktemp("profile")
    (folder / "source.dcm").write_bytes(identifying_file())
    report = deidentify_file(folder / "source.dcm", folder / "target.dcm", KEY)
    return report, (folder / "target.dcm").read_bytes()


@pytest.fixture(scope="module")
def places(done: tuple[FileReport, bytes]) -> dict[str, Dataset | None]:
    return places_of(pydicom.dcmread(pydicom.filebase.DicomBytesIO(done[1])))


def moved(value: str) -> str:
    day = datetime.datetime.strptime(DATE, "%Y%m%d") + datetime.timedelta(days=KEY.shift(TEXT))
    return f"{day:%Y%m%d}{value[8:]}"


def test_the_two_tables_agree_but_for_what_the_standard_has_changed_since() -> None:
    differing = {f"{rule.tag:08X}": (rule.earlier, rule.action) for rule in table() if rule.earlier}
    assert len(table()) == 655
    assert len(differing) == 424
    assert {tag: both for tag, both in differing.items() if both[0] != both[1]} == {
        "00100020": ("Z", "Z/D"),
        "30080105": ("X", "X/Z"),
        "300A00B2": ("X", "X/Z"),
        "30100077": ("D", "X/D"),
    }


def wrong(data_set: Dataset, rule: Rule) -> str | None:
    """Say what the table does not allow of what is left of an attribute."""
    element = data_set.get(rule.tag)
    allowed = set(rule.action.replace("U*", "U").split("/"))
    if element is None:
        return None if "X" in allowed else "removed"
    if rule.representation in ("DA", "DT", "TM") and element.value:
        # Retain Longitudinal Temporal Information with Modified Dates: C. What tells how far, gets a dummy.
        dummies = ("19000101", "19000101000000", "000000")
        return None if element.value in (moved(DATE), moved(DATETIME), TIME, *dummies) else "not moved"
    if rule.tag == PATIENT_AGE or is_left(data_set, rule):
        return None if rule.tag == PATIENT_AGE and element.value == "077Y" else "left"
    if element.VR == "UI":
        return None if {"U", "D"} & allowed and element.value == KEY.uid(value_of(rule)) else "no UID of the key"
    if rule.action == "X/Z/U*" or element.value:
        # A dummy value also satisfies Z (PS3.15 E.1.1).
        return None if {"D", "Z", "U"} & allowed else "replaced"
    return None if {"Z", *({"X"} if rule.representation in ("DA", "DT", "TM") else ())} & allowed else "emptied"


@pytest.mark.parametrize("place", PLACES)
def test_each_attribute_is_treated_as_the_table_says(places: dict[str, Dataset | None], place: str) -> None:
    data_set = places[place]
    assert data_set is not None
    rules = [rule for rule in table() if rule.tag >> 16 >= 8]
    assert len(rules) > 640
    assert {f"{rule.tag:08X} {rule.action}": fault for rule in rules if (fault := wrong(data_set, rule))} == {}


def test_dates_that_tell_how_far_dates_were_moved_are_not_moved(places: dict[str, Dataset | None]) -> None:
    data_set = places["data set"]
    assert data_set is not None
    assert (data_set.ContextGroupVersion, data_set.get("TemplateVersion")) == ("19000101000000", None)
    assert data_set.get("DateOfLastCalibration") is None
    assert data_set.DateOfLastDetectorCalibration == "19000101"
    assert data_set.PatientBirthDate == ""


@pytest.mark.parametrize(
    "keyword",
    [
        "SourceStrengthReferenceDate", "EthicsCommitteeApprovalEffectivenessStartDate", "EffectiveDateTime",
        "InformationIssueDateTime", "ExpiryDate",
    ],
)  # fmt: skip
def test_dates_that_many_patients_share_are_not_moved(keyword: str) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert action_of(tag) is not Action.SHIFT


def test_uids_of_what_the_file_refers_to_are_those_that_the_other_files_get(
    places: dict[str, Dataset | None],
) -> None:
    data_set = places["item"]
    assert data_set is not None
    (reference,) = data_set.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == KEY.uid("1.2.826.0.1.3680043.8.498.77.1")
    assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"


def test_nothing_of_the_name_is_left_anywhere_in_the_file(done: tuple[FileReport, bytes]) -> None:
    assert not re.findall(TEXT.encode(), done[1], re.IGNORECASE)


def test_private_elements_go_from_every_level(places: dict[str, Dataset | None]) -> None:
    assert all(data_set is not None and PRIVATE not in data_set for data_set in places.values())


def test_the_file_says_what_was_done_to_it(done: tuple[FileReport, bytes]) -> None:
    data_set = pydicom.dcmread(pydicom.filebase.DicomBytesIO(done[1]))
    assert data_set.PatientIdentityRemoved == "YES"
    assert data_set.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [(code.CodeValue, code.CodingSchemeDesignator) for code in data_set.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM"), ("113107", "DCM"), ("113108", "DCM")]
    assert data_set.preamble == bytes(128)
    assert "SourceApplicationEntityTitle" not in data_set.file_meta
    assert data_set.file_meta.MediaStorageSOPInstanceUID == data_set.SOPInstanceUID


def test_the_report_counts_by_action_and_tag_and_holds_no_value(done: tuple[FileReport, bytes]) -> None:
    report = done[0]
    assert set(report.removed) == {"removed", "emptied", "replaced", "shifted"}
    assert report.removed["removed"]["(0010,1040)"] == 3  # Patient's Address, in each of three places
    assert report.removed["shifted"]["(0008,0020)"] == 3
    assert TEXT.lower() not in repr(report).lower()
    assert DATE not in repr(report)
