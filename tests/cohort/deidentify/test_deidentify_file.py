"""One file: what stays, what goes, and what is refused."""

from __future__ import annotations

import datetime
import errno
import logging
import os
import shutil
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from conftest import shared_data
from dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG_2000, RLE, Stored, write_dicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from osteoscope.cohort.deidentify import Key, deidentify_file
from osteoscope.errors import StorageError
from osteoscope.imaging.dicom import read_header
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.phantom.patients import draw_patients
from osteoscope.phantom.write import write_patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


KEY = Key(secret=bytes(range(32)))
PLANE = np.random.default_rng(0).integers(0, 400, (64, 64), dtype=np.uint16)
WHO: dict[str, Any] = {
    "PatientID": "MRN 4711",
    "PatientName": "Nobody^Annamaria",
    "PatientBirthDate": "19610312",
    "PatientSex": "F",
    "PatientAge": "063Y",
    "StudyDate": "20240401",
    "StudyTime": "101112",
    "AccessionNumber": "A77",
}


def made(folder: Path, **elements: Any) -> Path:
    return write_dicom(folder / "source.dcm", PLANE, **{**WHO, **elements})


def done(source: Path, key: Key = KEY) -> Dataset:
    target = source.with_name("target.dcm")
    report = deidentify_file(source, target, key)
    assert report.quarantined is None
    return pydicom.dcmread(target)


def raw(element: DataElement | RawDataElement) -> bytes:
    assert isinstance(element.value, bytes)
    return element.value


def pixels_of(path: Path) -> bytes:
    return raw(pydicom.dcmread(path).get_item("PixelData"))


def change(path: Path, **elements: DataElement) -> Path:
    """Add elements to a file as they are, whatever a dictionary says of them."""
    data_set = pydicom.dcmread(path)
    for element in elements.values():
        data_set[element.tag] = element
    data_set.save_as(path)
    return path


def test_the_patient_becomes_a_pseudonym_and_keeps_sex_and_age(tmp_path: Path) -> None:
    found = done(made(tmp_path))
    assert found.PatientID == found.PatientName == KEY.patient("MRN 4711")
    assert (found.PatientSex, found.PatientAge, found.PatientBirthDate) == ("F", "063Y", "")
    assert found.AccessionNumber == KEY.number("A77")
    assert found.StudyTime == "101112"
    assert b"nnamaria" not in (tmp_path / "target.dcm").read_bytes()


def test_an_age_that_is_not_stated_follows_from_the_birth_date_before_that_goes(tmp_path: Path) -> None:
    assert done(made(tmp_path, PatientAge=None)).PatientAge == "063Y"
    assert done(made(tmp_path, PatientAge=None, PatientBirthDate="19200101")).PatientAge == "090Y"


def test_intervals_between_a_patients_dates_stay(tmp_path: Path) -> None:
    found = [done(made(tmp_path, StudyDate=day)).StudyDate for day in ("20240228", "20240301")]
    days = [np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in found]
    assert days[1] - days[0] == np.timedelta64(2, "D")
    assert days[0] == np.datetime64("2024-02-28") + KEY.shift("MRN 4711")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, RLE, JPEG_2000])
def test_pixels_are_the_same_bytes_in_the_same_encoding(tmp_path: Path, syntax: str) -> None:
    source = write_dicom(tmp_path / "source.dcm", PLANE, encoding=Stored(transfer_syntax=syntax), **WHO)
    found = done(source)
    assert found.file_meta.TransferSyntaxUID == syntax
    assert pixels_of(tmp_path / "target.dcm") == pixels_of(source)
    np.testing.assert_array_equal(found.pixel_array, PLANE)


def test_a_text_that_is_kept_must_not_hold_the_name_or_the_number(tmp_path: Path) -> None:
    found = done(made(tmp_path, SequenceName="for NOBODY", SoftwareVersions="7", Manufacturer="Nobody & Co"))
    assert (found.SequenceName, found.SoftwareVersions, found.Manufacturer) == ("REMOVED", "7", "Nobody & Co")


@pytest.mark.parametrize(
    ("name", "elements", "replaced"),
    [
        ("MÜLLER^Jürgen", {"ConvolutionKernel": "B30f Müller"}, ["ConvolutionKernel"]),
        ("WEBER-SCHMIDT^HANS", {"ConvolutionKernel": "B30f Schmidt"}, ["ConvolutionKernel"]),
        ("WEBER-SCHMIDT^HANS", {"ScanOptions": ["FS", "HANS_W"]}, ["ScanOptions"]),
        # Codes that hold the letters of a name, or are what an image is, name nobody.
        ("GITTA^HEAD", {"ScanOptions": "SAGITTAL_FS", "BodyPartExamined": "HEAD", "PatientPosition": "HFS"}, []),
    ],
)
def test_no_part_of_the_name_stays_however_it_is_written(
    tmp_path: Path, name: str, elements: dict[str, Any], replaced: list[str]
) -> None:
    source = made(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName=name, **elements)
    before, found = pydicom.dcmread(source), done(source)
    assert [keyword for keyword in elements if found[keyword].value != before[keyword].value] == replaced
    assert all(found[keyword].value == "REMOVED" for keyword in replaced)


def test_an_age_of_zero_years_stands_for_none_and_follows_from_the_birth_date(tmp_path: Path) -> None:
    assert done(made(tmp_path, PatientAge="000Y")).PatientAge == "063Y"


def test_private_sequences_within_sequences_go_whole(tmp_path: Path) -> None:
    inner, private, outer = Dataset(), Dataset(), Dataset()
    inner.PatientName = private.PatientName = "Nobody^Annamaria"
    outer.add(DataElement(0x00290010, "LO", "SIEMENS"))
    outer.add(DataElement(0x00291040, "SQ", Items([private])))
    outer.ReferencedSeriesSequence = Items([inner])
    outer.SeriesInstanceUID = "1.2.3"
    found = done(made(tmp_path, ReferencedSeriesSequence=Items([outer])))
    (item,) = found.ReferencedSeriesSequence
    assert item.SeriesInstanceUID == KEY.uid("1.2.3")
    assert (0x0029, 0x1040) not in item
    assert item.ReferencedSeriesSequence[0].PatientName == KEY.patient("MRN 4711")
    assert b"nnamaria" not in (tmp_path / "target.dcm").read_bytes()


def test_overlays_go_and_those_in_the_pixels_are_quarantined(tmp_path: Path) -> None:
    overlay = {
        "rows": DataElement(0x60000010, "US", 64),
        "bits": DataElement(0x60000100, "US", 1),
        "data": DataElement(0x60003000, "OW", bytes(512)),
    }
    assert not [tag for tag in done(change(made(tmp_path), **overlay)).keys() if tag.group == 0x6000]  # noqa: SIM118
    del overlay["data"]
    report = deidentify_file(change(made(tmp_path), **overlay), tmp_path / "t.dcm", KEY)
    assert report.quarantined == "an overlay lies in the unused bits of its pixels"


@pytest.mark.parametrize(
    ("element", "left"),
    [
        (DataElement(0x00180015, "LO", "Annamaria"), None),  # Body Part Examined, a CS
        (DataElement(0x00180015, "LO", "SPINE"), "SPINE"),
        (DataElement(0x00180050, "SH", "Annamaria"), None),  # Slice Thickness, a DS
        (DataElement(0x00180050, "SH", "2.5"), "2.5"),
        (DataElement(0x00081140, "LO", "Annamaria"), None),  # Referenced Image Sequence
        (DataElement(0x00280002, "LO", "Annamaria"), None),  # Samples per Pixel, a US
        (DataElement(0x00080020, "LO", "Annamaria"), ""),  # Study Date
        (DataElement(0x00100010, "LO", "Annamaria"), KEY.patient("MRN 4711")),
        (DataElement(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2"), "1.2.840.10008.5.1.4.1.1.2"),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_representation_stays_only_if_it_can_name_nobody(
    tmp_path: Path, element: DataElement, left: str | None
) -> None:
    source = change(made(tmp_path), element=element)
    deidentify_file(source, tmp_path / "target.dcm", KEY)
    content = (tmp_path / "target.dcm").read_bytes()
    assert b"nnamaria" not in content
    found = pydicom.dcmread(tmp_path / "target.dcm").get(element.tag)
    assert (None if found is None else str(found.value)) == left


def test_an_element_that_no_dictionary_has_goes(tmp_path: Path) -> None:
    strange = DataElement(0x00100FF1, "LO", "Annamaria")
    assert 0x00100FF1 not in done(change(made(tmp_path), strange=strange))


@pytest.mark.parametrize("folder", ["fo_dicom/charset"])
def test_files_of_any_character_set_are_read_and_warn_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    caplog.set_level(logging.DEBUG)
    names = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for source in sorted((shared_data("dicom") / folder).iterdir()):
            target = tmp_path / source.name
            try:
                deidentify_file(source, target, KEY, released=True)
            except RefusedImageError as refusal:
                assert refusal.code is RefusalCode.DAMAGED  # noqa: PT017
                continue
            original, found = pydicom.dcmread(source), pydicom.dcmread(target)
            names.append(original.get_item("PatientName").value)
            assert found.get("SpecificCharacterSet") == original.get("SpecificCharacterSet")
            assert names[-1] not in target.read_bytes()
    assert len(set(names)) > 8
    assert not [str(one.message) for one in told if "osteoscope" in one.filename]
    assert not caplog.records


def test_a_patient_without_an_identifier_is_told_by_name_and_birth_date_and_that_is_said(tmp_path: Path) -> None:
    reports = [
        deidentify_file(made(tmp_path, PatientID=number, **more), tmp_path / "t.dcm", KEY)
        for number, more in (("", {}), (None, {"StudyInstanceUID": "1.9"}), ("", {"PatientBirthDate": "19610313"}))
    ]
    assert [report.guessed for report in reports] == [True, True, True]
    assert reports[0].patient == reports[1].patient != reports[2].patient
    nameless = {"PatientID": "", "PatientName": "", "PatientBirthDate": ""}
    by_study = [
        deidentify_file(made(tmp_path, **nameless, StudyInstanceUID=uid), tmp_path / "t.dcm", KEY).patient
        for uid in ("1.8", "1.8", "1.9")
    ]
    assert by_study[0] == by_study[1] != by_study[2]


def test_a_patient_with_two_identifiers_gets_the_pseudonym_and_the_shift_of_the_one_that_is_named(
    tmp_path: Path,
) -> None:
    same, another = Dataset(), Dataset()
    same.PatientID, another.PatientID = "EXT 9", "MRN 1"
    source = made(tmp_path, PatientID="EXT 9")
    data_set = pydicom.dcmread(source)
    data_set.SourcePatientGroupIdentificationSequence = Items([same, another])
    data_set.save_as(source)
    report = deidentify_file(source, tmp_path / "t.dcm", KEY, identifier="MRN 4711")
    found = pydicom.dcmread(tmp_path / "t.dcm")
    assert report.patient == found.PatientID == str(found.PatientName) == KEY.patient("MRN 4711")
    assert not report.guessed
    inner = [item.PatientID for item in found.SourcePatientGroupIdentificationSequence]
    assert inner == [KEY.patient("MRN 4711"), KEY.patient("MRN 1")]
    moved = datetime.date(2024, 4, 1) + datetime.timedelta(days=KEY.shift("MRN 4711"))
    assert found.StudyDate == f"{moved:%Y%m%d}"


def test_a_series_whose_uids_were_blanked_stays_one_series_that_can_be_opened(tmp_path: Path) -> None:
    for source in sorted((shared_data("dicom") / "totalsegmentator/example_ct_dicom").glob("CT*")):
        assert deidentify_file(source, tmp_path / "out" / source.name, KEY).guessed
    volume = open_image(tmp_path / "out").volume
    original = open_image(shared_data("dicom") / "totalsegmentator/example_ct_dicom").volume
    assert volume.geometry.shape == original.geometry.shape == (20, 512, 512)
    np.testing.assert_array_equal(volume.read([7]), original.read([7]))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_patient(draw_patients(1, 3)[0], folder, shape=(10, 64, 80))
    (images,) = (folder / "images").iterdir()
    return images


def test_the_phantoms_segmentation_still_fits_its_scan(phantom: Path, tmp_path: Path) -> None:
    for source in (*(phantom / "ct").iterdir(), phantom / "segmentation.dcm"):
        assert deidentify_file(source, tmp_path / source.relative_to(phantom), KEY).quarantined is None
    before = read_mask(phantom / "segmentation.dcm", open_image(phantom / "ct").volume)
    volume = open_image(tmp_path / "ct").volume
    np.testing.assert_array_equal(read_mask(tmp_path / "segmentation.dcm", volume), before)
    segmentation = pydicom.dcmread(tmp_path / "segmentation.dcm")
    images = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "ct").iterdir()}
    referenced = {
        one.ReferencedSOPInstanceUID for one in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced <= images
    assert segmentation.StudyInstanceUID == KEY.uid(pydicom.dcmread(phantom / "segmentation.dcm").StudyInstanceUID)


def errors(path: Path) -> set[str]:
    """What dciodvfy calls an error (PS3.3 as David Clunie's dicom3tools know it)."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing; install the Debian package dicom3tools")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
    return {line for line in told.splitlines() if line.startswith("Error")}


def test_valid_objects_stay_valid(phantom: Path, tmp_path: Path) -> None:
    real = shared_data("dicom") / "pydicom/test_files/MR_small.dcm"
    for source in (sorted((phantom / "ct").iterdir())[0], phantom / "segmentation.dcm", real):
        deidentify_file(source, tmp_path / "target.dcm", KEY)
        assert errors(tmp_path / "target.dcm") <= errors(source)


def test_a_phantom_still_says_that_it_is_one(phantom: Path, tmp_path: Path) -> None:
    source = sorted((phantom / "ct").iterdir())[0]
    deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert read_header(tmp_path / "target.dcm").phantom


def test_names_of_contours_stay_only_if_they_are_words_for_a_place(tmp_path: Path) -> None:
    source = made(tmp_path, SpecificCharacterSet="ISO_IR 192")
    data_set = pydicom.dcmread(source)
    kept = ["GTV_1", "L4 tumour", "lesion 1 of L2"]
    # A name, also one that a date or a number gives away, or whose letters another character set reads as symbols.
    others = ["Annamaria", "Tumour Smith", "lesion 130361", "GTV 12.03.21", "GTV 12-34-56", "משה כהן"]
    names = [*kept, *others]
    data_set.StructureSetROISequence = Items(Dataset() for _ in names)
    for number, (item, name) in enumerate(zip(data_set.StructureSetROISequence, names, strict=True), start=1):
        item.ROINumber, item.ROIName, item.ReferencedFrameOfReferenceUID = number, name, "1.2.3"
    data_set.save_as(source)
    found = done(source).StructureSetROISequence
    assert [item.ROIName for item in found] == [*kept, *[""] * len(others)]
    assert {item.ReferencedFrameOfReferenceUID for item in found} == {KEY.uid("1.2.3")}


def test_a_patient_who_is_called_as_a_place_is_named_by_no_contour(tmp_path: Path) -> None:
    source = made(tmp_path, PatientName="Bone^Margin", SpecificCharacterSet="")
    data_set = pydicom.dcmread(source)
    item = Dataset()
    item.ROINumber, item.ROIName = 1, "bone"
    data_set.StructureSetROISequence = Items([item])
    data_set.save_as(source)
    assert done(source).StructureSetROISequence[0].ROIName == ""


def test_an_element_of_an_overlay_that_no_dictionary_has_is_removed(tmp_path: Path) -> None:
    source = made(tmp_path)
    data_set = pydicom.dcmread(source)
    data_set.add_new(0x60000005, "LO", "Nobody")
    data_set.save_as(source)
    assert 0x60000005 not in done(source)


def test_an_age_that_a_file_never_had_is_not_counted(tmp_path: Path) -> None:
    source = made(tmp_path, PatientBirthDate="")
    data_set = pydicom.dcmread(source)
    del data_set.PatientAge
    data_set.save_as(source)
    report = deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert not any("(0010,1010)" in tags for tags in report.removed.values())


def test_a_truncated_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = made(tmp_path)
    whole = source.read_bytes()
    for length in (0, 50, 140, 400, 700, len(whole) - 600):
        source.write_bytes(whole[:length])
        with pytest.raises(RefusedImageError):
            deidentify_file(source, tmp_path / "target.dcm", KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.dcm"]


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM file, whatever it is")
    with pytest.raises(RefusedImageError, match="expected a DICOM file"):
        deidentify_file(tmp_path / "note.txt", tmp_path / "target.dcm", KEY)


def test_no_space_left_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = made(tmp_path)
    target = tmp_path / "out" / "target.dcm"
    target.parent.mkdir()
    target.write_bytes(b"as it was")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        deidentify_file(source, target, KEY)
    assert [path.name for path in target.parent.iterdir()] == ["target.dcm"]
    assert target.read_bytes() == b"as it was"


def files() -> Iterator[Path]:
    root = shared_data("dicom")
    yield from sorted(
        path
        for folder in ("fo_dicom", "pydicom", "dcm_qa_ts", "cornerstone3d")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".txt", ".gz")
    )


def identifiers_of(data_set: Dataset) -> set[bytes]:
    """Values of a file that must not be found in its copy: names, numbers and UIDs of objects."""
    keywords = ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    elements = (data_set.get_item(keyword) for keyword in keywords)
    values = {bytes(one.value).strip(b" \0") for one in elements if one is not None and isinstance(one.value, bytes)}
    return {value for value in values if len(value) > 7}


def test_no_real_file_keeps_its_identifiers_and_all_keep_their_pixels(tmp_path: Path) -> None:
    written = 0
    for source in files():
        try:
            report = deidentify_file(source, tmp_path / "target.dcm", KEY, released=True)
        except RefusedImageError:
            continue
        written += report.quarantined is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before, after = pydicom.dcmread(source, force=True), pydicom.dcmread(tmp_path / "target.dcm")
        content = (tmp_path / "target.dcm").read_bytes()
        if after.file_meta.TransferSyntaxUID != DEFLATED:
            assert not [value for value in identifiers_of(before) if value in content], source
        if "PixelData" in before and before.get_item("PixelData").value:
            old, new = (raw(one.get_item("PixelData")) for one in (before, after))
            # An odd number of bytes, which is not allowed, gets one more (PS3.5 8.1.1).
            assert new in (old, old + b"\0"), source
    assert written > 200
