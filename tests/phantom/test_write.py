"""What is written of a phantom is valid DICOM of what was rendered, says what it is, and keeps its label to itself."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from highdicom.seg import SegmentDescription
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes

from osteoscope.errors import InputError, StorageError
from osteoscope.imaging.series import assemble
from osteoscope.imaging.synthetic import is_phantom
from osteoscope.phantom import write
from osteoscope.phantom.patients import LABELS, Patient, draw_patients, log_likelihood_ratio
from osteoscope.phantom.render import Rendering, render
from osteoscope.phantom.scanner import Acquisition
from osteoscope.phantom.truth import read_truth
from osteoscope.phantom.write import write_patient, written_ids

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Level

SHAPE = (10, 64, 80)
LEVELS: tuple[Level, ...] = ("cervical", "thoracic", "lumbar", "sacral")
SCANS: dict[Level, Acquisition] = {
    "cervical": Acquisition(kilovolt=80, kernel="soft", noise=10, thickness=2.5, field_of_view=180, contrast=0),
    "thoracic": Acquisition(kilovolt=120, kernel="medium", noise=13, thickness=7 / 3, field_of_view=200, contrast=1),
    "lumbar": Acquisition(kilovolt=140, kernel="sharp", noise=20, thickness=5, field_of_view=220, contrast=0),
    "sacral": Acquisition(kilovolt=100, kernel="soft", noise=26, thickness=4, field_of_view=200, contrast=0.8),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A patient, what was rendered, and the folders."""

    patient: Patient
    rendering: Rendering
    images: Path
    truth: Path

    @property
    def affine(self) -> NDArray[np.float64]:
        assert self.rendering.geometry.affine is not None
        return self.rendering.geometry.affine

    @property
    def slices(self) -> list[Path]:
        return sorted((self.images / "ct").iterdir())

    @property
    def segmentation(self) -> Path:
        return self.images / "segmentation.dcm"


def write_to(output: Path, patient: Patient, **changes: Any) -> Written:
    options = {"shape": SHAPE, "acquisition": SCANS[patient.attributes.level], **changes}
    before = written_ids(output)
    write_patient(patient, output, **options)
    (name,) = written_ids(output) - before
    rendering = render(patient.attributes, patient.seed, **options)
    return Written(patient=patient, rendering=rendering, images=output / "images" / name, truth=output / "truth" / name)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="module")
def cohort(output: Path) -> dict[str, Written]:
    """A patient of each level."""
    drawn = {one.attributes.level: one for one in draw_patients(60, 11) if one.attributes.site == "body and arch"}
    return {level: write_to(output, drawn[level]) for level in LEVELS}


@pytest.fixture(params=LEVELS)
def written(cohort: dict[str, Written], request: pytest.FixtureRequest) -> Written:
    return cohort[request.param]


def test_the_series_is_read_back_as_it_was_rendered(written: Written) -> None:
    found = assemble([*reversed(written.slices)])
    (series,) = found.series
    assert not found.refused
    assert not series.remarks
    assert series.aside is None
    assert series.dicom_modality == "CT"
    assert series.volume.geometry.affine is not None
    np.testing.assert_allclose(series.volume.geometry.affine, written.affine, atol=1e-9)
    np.testing.assert_array_equal(series.volume.read(), written.rendering.hu)


def test_another_reader_finds_the_same(written: Written) -> None:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(written.images / "ct")))
    image = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), written.rendering.hu)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(affine, written.affine, atol=1e-6)


def test_the_segmentation_is_of_the_tumour_and_refers_to_the_series(written: Written) -> None:
    seg = pydicom.dcmread(written.segmentation)
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in written.slices]
    assert {one.FrameOfReferenceUID for one in slices} == {seg.FrameOfReferenceUID}
    assert {one.StudyInstanceUID for one in slices} == {seg.StudyInstanceUID}
    (series,) = seg.ReferencedSeriesSequence
    assert {one.SeriesInstanceUID for one in slices} == {series.SeriesInstanceUID} != {seg.SeriesInstanceUID}
    instances = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert instances == {one.SOPInstanceUID for one in slices}
    place = {tuple(map(float, one.ImagePositionPatient)): index for index, one in enumerate(slices)}
    found = np.zeros(SHAPE, np.uint8)
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        index = place[tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient))]
        found[index] = frame
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == slices[index].SOPInstanceUID
    assert found.any()
    np.testing.assert_array_equal(found, written.rendering.lesion)
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"


def real_ct() -> pydicom.Dataset:
    return pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))


def errors(path: Path) -> set[str]:
    """What dciodvfy calls an error (PS3.3 as David Clunie's dicom3tools know it)."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing; install the Debian package dicom3tools")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Image" in done.stderr or "Segmentation" in done.stderr, done.stderr
    return {line for line in done.stderr.splitlines() if line.startswith("Error")}


def test_a_slice_has_no_error(written: Written) -> None:
    assert not errors(written.slices[0])
    assert not errors(written.slices[-1])


def test_the_segmentation_has_no_error_that_highdicoms_own_example_has_not(written: Written, tmp_path: Path) -> None:
    source = real_ct()
    algorithm = highdicom.AlgorithmIdentificationSequence("test", codes.cid7162.ArtificialIntelligence, "1")
    sample = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=source.pixel_array > 500,
        segmentation_type="BINARY",
        segment_descriptions=[SegmentDescription(1, "first", codes.SCT.Tissue, codes.SCT.Bone, "AUTOMATIC", algorithm)],
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Manufacturer",
        manufacturer_model_name="Model",
        software_versions="v1",
        device_serial_number="Device XYZ",
    )
    sample.save_as(tmp_path / "sample.dcm")
    assert errors(written.segmentation) <= errors(tmp_path / "sample.dcm")


def test_a_validator_is_heard(cohort: dict[str, Written], tmp_path: Path) -> None:
    spoilt = pydicom.dcmread(cohort["lumbar"].slices[0])
    del spoilt.PatientID
    spoilt.save_as(tmp_path / "spoilt.dcm")
    assert any("PatientID" in error for error in errors(tmp_path / "spoilt.dcm"))


def test_the_header_says_how_the_patient_was_scanned(cohort: dict[str, Written]) -> None:
    one = pydicom.dcmread(cohort["thoracic"].slices[0], stop_before_pixels=True)
    known = cohort["thoracic"].patient.attributes
    assert (one.KVP, one.ConvolutionKernel, one.Exposure, one.ReconstructionDiameter) == (120, "MEDIUM", 150, 200)
    assert float(one.SliceThickness) == pytest.approx(7 / 3)
    assert (one.BodyPartExamined, one.PatientPosition) == ("TSPINE", "HFS")
    assert (one.PatientSex, one.PatientAge) == (known.sex, f"{int(known.age):03d}Y")
    assert one.InstitutionName == f"Phantom centre {known.centre}"
    assert one.BurnedInAnnotation == "NO"
    assert one.ImageType[0] == "DERIVED"
    assert (one.SOPClassUID.name, one.Modality) == ("CT Image Storage", "CT")
    contrast = {level: "ContrastBolusAgent" in pydicom.dcmread(cohort[level].slices[0]) for level in LEVELS}
    assert contrast == {"cervical": False, "thoracic": True, "lumbar": False, "sacral": True}


def test_every_file_says_that_nobody_is_on_it(written: Written) -> None:
    for path in (*written.slices, written.segmentation):
        one = pydicom.dcmread(path, stop_before_pixels=True)
        assert is_phantom(one)
        assert "Synthetic" in one.PatientComments
        assert "no patient" in one.PatientComments
        assert one.QualityControlSubject == "YES"
        assert re.fullmatch(r"PHANTOM-[0-9A-F]{12}", one.PatientID)
        assert not one.PatientBirthDate
    for path in written.slices:
        assert "Synthetic" in pydicom.dcmread(path, stop_before_pixels=True).ImageComments


def test_what_is_no_phantom_is_not_taken_for_one() -> None:
    assert not is_phantom(real_ct())
    assert not is_phantom({"Manufacturer": "SIEMENS", "QualityControlSubject": "YES"})
    assert not is_phantom({})


def test_a_phantom_is_recognised_from_what_dcm2niix_says_of_it(cohort: dict[str, Written], tmp_path: Path) -> None:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is missing; install the Debian package of that name")
    folder = cohort["sacral"].images / "ct"
    subprocess.run(["dcm2niix", "-b", "y", "-o", str(tmp_path), str(folder)], capture_output=True, check=True)
    (sidecar,) = tmp_path.glob("*.json")
    assert is_phantom(json.loads(sidecar.read_text()))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_label_gives_the_same_bytes(cohort: dict[str, Written], tmp_path: Path) -> None:
    before = cohort["lumbar"]
    label = next(one for one in LABELS if one != before.patient.label)
    other = write_to(tmp_path, dataclasses.replace(before.patient, label=label, kind="other"))
    assert contents(other.images) == contents(before.images)
    assert other.images.name == before.images.name
    known, now = (json.loads((one.truth / "truth.json").read_text()) for one in (before, other))
    assert (now["label"], now["kind"]) == (label, "other")
    assert {**now, "label": known["label"], "kind": known["kind"]} == known


def test_another_scan_of_a_patient_has_other_uids(cohort: dict[str, Written], tmp_path: Path) -> None:
    before = cohort["lumbar"]
    other = write_to(tmp_path, before.patient, acquisition=dataclasses.replace(SCANS["lumbar"], kilovolt=100))
    assert other.images.name == before.images.name
    uids = []
    for written in (before, other):
        files = [pydicom.dcmread(path, stop_before_pixels=True) for path in (*written.slices, written.segmentation)]
        own = {one.SOPInstanceUID for one in files} | {one.SeriesInstanceUID for one in files}
        assert len(own) == len(files) + 2
        assert all(re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", uid) for uid in own)
        uids.append(own | {files[0].StudyInstanceUID, files[0].FrameOfReferenceUID})
    assert not uids[0] & uids[1]


def test_the_truth_is_told_exactly_and_gives_the_same_ct_once_more(written: Written) -> None:
    truth = read_truth(written.truth)
    assert truth.patient == written.patient
    assert truth.patient.log_likelihood_ratio == log_likelihood_ratio(truth.patient.attributes)
    assert truth.identifier == pydicom.dcmread(written.slices[0]).PatientID == written.truth.name
    again = render(truth.patient.attributes, truth.patient.seed, acquisition=truth.acquisition, shape=truth.shape)
    stored = np.stack([pydicom.dcmread(path).pixel_array for path in written.slices]).astype(int)
    np.testing.assert_array_equal(again.hu, stored - 1024)
    known = json.loads((written.truth / "truth.json").read_text())
    assert known["provenance"] == "phantom"
    assert known["covariates"] == {
        name: getattr(written.patient.attributes, name) for name in ("age", "sex", "level", "centre")
    }
    assert known["series"] == pydicom.dcmread(written.slices[0]).SeriesInstanceUID


def test_the_discriminative_map_lies_where_the_ct_does(written: Written) -> None:
    image = nibabel.nifti1.Nifti1Image.from_filename(written.truth / "discriminative.nii.gz")
    values = np.asarray(image.dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(values, written.rendering.discriminative)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    np.testing.assert_allclose(lps, written.affine, atol=1e-4)


def test_no_image_tells_the_label_or_the_kind(cohort: dict[str, Written]) -> None:
    for written in cohort.values():
        held = b"".join(contents(written.images).values()).lower()
        for word in (*LABELS, written.patient.kind, "sarcoma", "giant"):
            assert word.encode() not in held


def test_a_truth_that_cannot_be_read_is_refused(cohort: dict[str, Written], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truth\.json: is no truth"):
        read_truth(tmp_path)
    known = json.loads((cohort["lumbar"].truth / "truth.json").read_text())
    spoilt: Any
    for spoilt in ({**known, "attributes": {"age": 3}}, {**known, "acquisition": None}, {}, [], "x"):
        (tmp_path / "truth.json").write_text(json.dumps(spoilt))
        with pytest.raises(InputError, match=r"truth\.json: is no truth"):
            read_truth(tmp_path)
    (tmp_path / "truth.json").write_text(json.dumps({**known, "schema": 2}))
    with pytest.raises(InputError, match="expected schema 1, found 2"):
        read_truth(tmp_path)


def test_a_patient_that_does_not_fit_on_the_disk_leaves_nothing(
    cohort: dict[str, Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "write_json", full)
    patient = cohort["lumbar"].patient
    with pytest.raises(StorageError, match=r"no space left on device.*free some space"):
        write_patient(patient, tmp_path, shape=SHAPE)
    assert [path for path in tmp_path.rglob("*") if path.name not in ("images", "truth")] == []
    monkeypatch.undo()
    write_to(tmp_path, patient)
