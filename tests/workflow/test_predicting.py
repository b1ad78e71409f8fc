"""Any studies get an answer, or a reason why not; nothing that is done is lost."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from bundles import RADIOGRAPHS, write_tiny_bundle
from conftest import shared_data
from dicom_files import AXIAL, CORONAL, PATIENT, SAGITTAL, write_dicom, write_series
from filelock import FileLock
from PIL import Image

from osteoscope import workflow
from osteoscope.bundle.format import Verdicts
from osteoscope.errors import BundleError, InputError, RunError, StorageError
from osteoscope.imaging import stored_array
from osteoscope.imaging.nifti import write_nifti
from osteoscope.inference.result import StudyPrediction
from osteoscope.storage import LOCK
from osteoscope.workflow import prediction_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RNG = np.random.default_rng(0)


def body(planes: int = 12, rows: int = 48, columns: int = 56) -> np.ndarray:
    """Soft tissue with some bone, as DICOM stores it with an intercept of -1024."""
    values = RNG.integers(1000, 1100, (planes, rows, columns)).astype(np.uint16)
    values[:, 20:30, 20:30] = 1900
    return values


def ct(folder: Path, name: str, **options: Any) -> Path:
    write_series(folder / name, body(), series=name, StudyInstanceUID=f"1.2.{name}", RescaleIntercept=-1024, **options)
    return folder / name


def picture(path: Path) -> Path:
    Image.fromarray(RNG.integers(0, 255, (60, 48), dtype=np.uint8)).save(path)
    return path


def table(output: Path) -> list[dict[str, str]]:
    with (output / "summary.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def answer(output: Path, study: str) -> StudyPrediction:
    return StudyPrediction.model_validate_json((output / study / "prediction.json").read_bytes())


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_gets_a_folder_and_a_row(scan_bundle: Path, tmp_path: Path) -> None:
    done = workflow.predict(scan_bundle, [ct(tmp_path, "1")], tmp_path / "out", threads=1)
    (row,) = done.rows
    found = answer(tmp_path / "out", row.study)
    assert found.verdict in ("osteosarcoma", "giant_cell_tumor")
    assert found.probabilities == row.probabilities
    assert sum((found.probabilities or {}).values()) == pytest.approx(1)
    (image,) = found.images
    assert (image.modality, image.shape, len(image.files)) == ("CT", (12, 48, 56), 12)
    assert sum(plane.weight for plane in image.planes) == pytest.approx(1)
    assert {path.name for path in (tmp_path / "out" / row.study).iterdir()} == {
        "prediction.json",
        *(overlay.file for overlay in found.overlays),
        *image.evidence.values(),
    }
    assert set(image.evidence) == {"osteosarcoma", "giant_cell_tumor"}
    assert len(found.overlays) == min(4, len(image.planes))
    (line,) = table(tmp_path / "out")
    assert (line["study"], line["verdict"], line["images"], line["research"]) == (row.study, found.verdict, "1", "no")
    assert float(line["p_osteosarcoma"]) == pytest.approx((found.probabilities or {})["osteosarcoma"], abs=1e-6)
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [LOCK]


def test_what_a_file_beside_a_nifti_says_of_its_axes_is_part_of_the_question(scan_bundle: Path, tmp_path: Path) -> None:
    values = body(40, 48, 56).astype(np.int16) - 1024
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([1.0, 1.0, 1.0, 1.0])), tmp_path / "ct.nii.gz")
    output = tmp_path / "out"

    def asked() -> tuple[bool, tuple[int, ...]]:
        (row,) = workflow.predict(scan_bundle, [tmp_path / "ct.nii.gz"], output, modality="CT", threads=1).rows
        return row.already_done, answer(output, row.study).images[0].shape

    assert [asked(), asked()] == [(False, (40, 48, 56)), (True, (40, 48, 56))]
    (tmp_path / "ct.json").write_text('{"ImageOrientationPatientDICOM": [0, 1, 0, 0, 0, -1]}')
    assert asked() == (False, (56, 40, 48))


def test_a_study_that_is_refused_now_keeps_no_answer_of_before(scan_bundle: Path, tmp_path: Path) -> None:
    study, output = ct(tmp_path, "1"), tmp_path / "out"
    (before,) = workflow.predict(scan_bundle, [study], output, threads=1).rows
    assert answer(output, before.study).verdict == before.verdict
    for path in sorted(study.iterdir())[3:9]:
        path.unlink()
    (row,) = workflow.predict(scan_bundle, [study], output, threads=1).rows
    assert (row.study, row.verdict, row.refused) == (before.study, "refused", {"missing_slices": 6})
    assert not (output / before.study).exists()
    # What is no answer stays.
    (output / before.study).mkdir()
    (output / before.study / "thesis.txt").write_text("years of work")
    workflow.predict(scan_bundle, [study], output, threads=1)
    assert (output / before.study / "thesis.txt").read_text() == "years of work"


def test_evidence_lies_in_the_patient_and_that_of_all_classes_cancels(scan_bundle: Path, tmp_path: Path) -> None:
    done = workflow.predict(scan_bundle, [ct(tmp_path, "1", first=(-30, 20, 500))], tmp_path / "out", threads=1)
    found = answer(tmp_path / "out", done.rows[0].study)
    (image,) = found.images
    maps = {
        slug: nibabel.Nifti1Image.from_filename(tmp_path / "out" / found.study / name)
        for slug, name in image.evidence.items()
    }
    sums = [float(maps[slug].get_fdata().sum()) for slug in ("osteosarcoma", "giant_cell_tumor")]
    assert sums[0] == pytest.approx(-sums[1], abs=1e-5)
    scan = maps["osteosarcoma"]
    # The middle of the grid is the middle of the body that was read: in RAS, of 56 x 48 pixels of 1 mm from (-30, 20).
    middle = scan.affine @ [(scan.shape[0] - 1) / 2, (scan.shape[1] - 1) / 2, 0, 1]
    np.testing.assert_allclose(middle[:3], [30 - 27.5, -(20 + 23.5), 500 + 3 * image.planes[0].plane], atol=2.1)
    assert scan.header.get_zooms()[:2] == pytest.approx((64 * 4 / scan.shape[0], 64 * 4 / scan.shape[1]))


ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_overlays_show_left_left_and_up_up_in_square_millimetres(
    scan_bundle: Path, tmp_path: Path, orientation: str
) -> None:
    """A bright corner at the patient's left, front and head, in files that count their planes the other way."""
    values = np.full((8, 40, 60), 1040, dtype=np.uint16)
    values[:, 3:9, 42:57] = 3000
    across, down = np.array(ORIENTATIONS[orientation][:3]), np.array(ORIENTATIONS[orientation][3:])
    write_series(
        tmp_path / "in", values, orientation=(*across, *down), step=(-4 * np.cross(across, down)).tolist(),
        spacing=(2.0, 1.0), RescaleIntercept=-1024,
    )  # fmt: skip
    done = workflow.predict(scan_bundle, [tmp_path / "in"], tmp_path / "out", threads=1)
    found = answer(tmp_path / "out", done.rows[0].study)
    with Image.open(tmp_path / "out" / found.study / found.overlays[0].file) as shown:
        grey = np.asarray(shown.convert("L")).astype(float)
    # 60 x 80 mm are shown as 60 x 80 pixels, enlarged seven times; the bar and the caption stand beyond.
    height, width = 80 * 7, 60 * 7
    assert (grey.shape[0] > height) == (grey.shape[1] > width)
    corners = [
        grey[rows, columns].mean()
        for rows in (slice(50, 120), slice(450, 520))
        for columns in (slice(30, 100), slice(310, 380))
    ]
    assert int(np.argmax(corners)) == 1


def test_the_same_case_as_dicom_and_as_nifti_gives_the_same_prediction(scan_bundle: Path, tmp_path: Path) -> None:
    source = shared_data("dicom/totalsegmentator/example_ct_dicom")
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed; on Debian: apt-get install dcm2niix")
    subprocess.run(
        ["dcm2niix", "-z", "i", "-b", "n", "-f", "case", "-o", tmp_path, source], check=True, capture_output=True
    )
    paths = [source, tmp_path / "case.nii.gz"]
    done = workflow.predict(scan_bundle, paths, tmp_path / "out", modality="CT", threads=1)
    one, other = (answer(tmp_path / "out", row.study) for row in done.rows)
    assert one.verdict == other.verdict
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert [plane.plane for plane in one.images[0].planes] == [plane.plane for plane in other.images[0].planes]
    for slug, name in one.images[0].evidence.items():
        maps = [nibabel.Nifti1Image.from_filename(tmp_path / "out" / one.study / name)]
        maps.append(nibabel.Nifti1Image.from_filename(tmp_path / "out" / other.study / other.images[0].evidence[slug]))
        np.testing.assert_allclose(maps[0].affine, maps[1].affine, atol=1e-3)
        np.testing.assert_allclose(maps[0].get_fdata(), maps[1].get_fdata(), atol=1e-5)


def test_what_is_none_of_the_modalities_is_named_by_that_of_its_files(radiograph_bundle: Path, tmp_path: Path) -> None:
    films = [RNG.integers(0, 4000, (64, 48), dtype=np.uint16) for _ in range(2)]
    write_dicom(tmp_path / "film", films[0], "DX", StudyInstanceUID="1.2")
    write_dicom(tmp_path / "pet", films[1], "PT", series="b", StudyInstanceUID="1.2")
    (row,) = workflow.predict(radiograph_bundle, [tmp_path], tmp_path / "out", threads=1).rows
    (one,) = answer(tmp_path / "out", row.study).not_used
    assert (one.modality, one.code) == ("PT", "other_modality")
    assert one.reason == "an image of modality PT, which is neither CT, MR nor a radiograph"


def test_radiographs_are_read_and_a_ct_is_out_of_scope(radiograph_bundle: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "film", RNG.integers(0, 4000, (64, 48), dtype=np.uint16), "DX", StudyInstanceUID="1.2")
    paths = [picture(tmp_path / "a.png"), ct(tmp_path, "1"), tmp_path / "film"]
    done = workflow.predict(radiograph_bundle, paths, tmp_path / "out", threads=1)
    found = {row.file: answer(tmp_path / "out", row.study) for row in done.rows}
    outside = found.pop(next(name for name in found if "/1/" in name))
    assert (outside.verdict, outside.probabilities, outside.images) == ("out_of_scope", None, ())
    assert [(one.modality, one.code) for one in outside.not_used] == [("CT", "outside")]
    assert "a CT, where radiographs are read" in outside.reasons[0]
    assert [path.name for path in (tmp_path / "out" / outside.study).iterdir()] == ["prediction.json"]
    for one in found.values():
        assert one.probabilities is not None
        assert one.images[0].evidence == {}
        assert one.images[0].affine is None
        assert [overlay.file for overlay in one.overlays] == ["overlay-1.png"]


def test_what_is_known_of_the_patient_is_read(radiograph_bundle: Path, tmp_path: Path) -> None:
    paths = [picture(tmp_path / "a.png")]
    shares = []
    for age in (None, 20, 70):
        row = workflow.predict(radiograph_bundle, paths, tmp_path / "out", age=age, threads=1).rows[0]
        assert not row.already_done
        assert answer(tmp_path / "out", row.study).covariates == (() if age is None else ("age",))
        shares.append((row.probabilities or {})["osteosarcoma"])
    assert len(set(shares)) == 3


def film(path: Path, study: str, **header: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    stored = np.random.default_rng(1).integers(500, 3000, (60, 48)).astype(np.uint16)
    return write_dicom(path, stored, "DX", StudyInstanceUID=study, **header)


def test_the_age_in_the_header_is_read_unless_another_is_told(radiograph_bundle: Path, tmp_path: Path) -> None:
    shares, alone = {}, {}
    for number, (header, told) in enumerate([("070Y", None), ("020Y", 70), (None, 70), ("020Y", None), (None, None)]):
        path = film(tmp_path / f"{number}.dcm", f"1.2.{number}", **({} if header is None else {"PatientAge": header}))
        row = workflow.predict(radiograph_bundle, [path], tmp_path / "out", age=told, threads=1).rows[0]
        found = answer(tmp_path / "out", row.study)
        shares[header, told] = (row.probabilities or {})["osteosarcoma"]
        alone[header, told] = next((reason for reason in found.reasons if reason.startswith("Told beside")), None)
        # The sex is in the header too, and these networks make nothing of it: nothing is said of it.
        assert found.covariates == (() if header is None and told is None else ("age",))
        left_out = "The bundle's networks also judge by the patient's age, not told here."
        assert (left_out in found.reasons) == (not found.covariates)
        assert not any("sex" in reason for reason in found.reasons)
    assert shares["070Y", None] == shares["020Y", 70] == shares[None, 70]
    assert len(set(shares.values())) == 3
    # Whoever reads the answer is told what the images alone say, which is what is said where nothing else is known.
    unknown = shares.pop((None, None))
    assert alone.pop((None, None)) is None
    for key, share in shares.items():
        name, said, images = (
            ("osteosarcoma", share, unknown) if share > 0.5 else ("giant cell tumor", 1 - share, 1 - unknown)
        )
        assert alone[key] == (
            f"Told beside the images: age. From the images alone {name} would have {images:.0%} instead of {said:.0%}."
        )


def test_ages_that_contradict_each_other_are_not_told(radiograph_bundle: Path, tmp_path: Path) -> None:
    for number, age in enumerate(["020Y", "070Y"]):
        film(tmp_path / "study" / f"{number}.dcm", "1.2.3", PatientAge=age, SeriesInstanceUID=f"1.2.3.{number}")
    (row,) = workflow.predict(radiograph_bundle, [tmp_path / "study"], tmp_path / "out", threads=1).rows
    assert answer(tmp_path / "out", row.study).covariates == ()


def test_what_is_known_of_one_patient_is_not_told_of_several(radiograph_bundle: Path, tmp_path: Path) -> None:
    paths = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png")]
    with pytest.raises(InputError, match="the age of one patient is told, and there are 2 studies"):
        workflow.predict(radiograph_bundle, paths, tmp_path / "out", age=20)
    assert not (tmp_path / "out").exists()


def test_research_shows_what_is_out_of_scope_and_marks_every_output(scan_member: Path, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", scan_member, provenance="phantom")
    path = ct(tmp_path, "1")
    plain = workflow.predict(bundle, [path], tmp_path / "out", threads=1).rows[0]
    assert (plain.verdict, plain.probabilities) == ("out_of_scope", None)
    # What the bundle would read is on record as well.
    (kept_out,) = answer(tmp_path / "out", plain.study).not_used
    assert (kept_out.modality, kept_out.code) == ("CT", "out_of_scope")
    assert [(line["images"], line["not_used"]) for line in table(tmp_path / "out")] == [("0", "1")]
    row = workflow.predict(bundle, [path], tmp_path / "out", research=True, threads=1).rows[0]
    found = answer(tmp_path / "out", row.study)
    assert found.verdict == "out_of_scope"
    assert found.probabilities is not None
    assert found.research
    assert found.not_used == ()
    assert "never for a patient's care" in found.notice
    names = {path.name for path in (tmp_path / "out" / row.study).iterdir()} - {"prediction.json"}
    assert len(names) == len(found.overlays) + 2
    assert all(name.startswith("research-") for name in names)
    assert [line["research"] for line in table(tmp_path / "out")] == ["yes"]


def damaged_studies(folder: Path) -> Path:
    """One study that is well, and some that are not."""
    ct(folder, "1")
    places: list[dict[str, Any]] = [{"position": (0, 0, z)} for z in (0, 3, 6, 12, 15, 18, 21, 24, 27, 30, 33, 36)]
    ct(folder, "2", each=places)
    (folder / "empty").mkdir()
    (folder / "no.dcm").write_bytes(b"\0" * 128 + b"DICM")
    nothing = np.full((20, 24, 6), np.nan, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(nothing, np.diag([2.0, 2.0, 4.0, 1])), folder / "nan.nii")
    some = RNG.normal(40, 20, (40, 48, 8)).astype(np.float32)
    some[:20] = np.nan
    nibabel.save(nibabel.Nifti1Image(some, np.diag([2.0, 2.0, 4.0, 1])), folder / "half_ct.nii")
    return folder


def test_one_bad_study_does_not_stop_the_others(scan_bundle: Path, tmp_path: Path) -> None:
    done = workflow.predict(scan_bundle, [damaged_studies(tmp_path / "in")], tmp_path / "out", threads=1)
    rows = {row.file.rsplit("/in/")[-1].split("/")[0]: row for row in done.rows}
    assert rows["1"].probabilities is not None
    assert (rows["2"].verdict, rows["2"].refused) == ("refused", {"missing_slices": 12})
    assert (rows["empty"].verdict, rows["empty"].refused) == ("refused", {"empty": 1})
    assert rows["no.dcm"].verdict == "refused"
    assert rows["nan.nii"].verdict == "out_of_scope"
    assert answer(tmp_path / "out", rows["nan.nii"].study).not_used[0].code == "blank"
    assert rows["half_ct.nii"].probabilities is not None
    assert all(np.isfinite(list((row.probabilities or {}).values())).all() for row in done.rows)
    assert done.predicted == 3
    lines = {line["study"]: line for line in table(tmp_path / "out")}
    assert lines[rows["2"].study]["refused"] == "missing_slices 12"
    assert lines[rows["2"].study]["p_osteosarcoma"] == ""
    assert "missing" in lines[rows["2"].study]["reasons"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        LOCK, "summary.csv", *(row.study for row in done.rows if row.verdict != "refused"),
    }  # fmt: skip


def test_what_was_not_foreseen_refuses_one_study_and_tells_no_value(
    scan_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = prediction_files.write_prediction

    def broken(folder: Path, *arguments: Any) -> StudyPrediction:
        written.append(str(folder))
        if len(written) == 1:
            msg = "DOE^JOHN"
            raise ArithmeticError(msg)
        return write(folder, *arguments)

    monkeypatch.setattr(prediction_files, "write_prediction", broken)
    paths = [ct(tmp_path, "1"), ct(tmp_path, "2")]
    done = workflow.predict(scan_bundle, paths, tmp_path / "out", threads=1, jobs=1)
    assert [row.verdict == "refused" for row in done.rows] == [True, False]
    assert done.rows[0].refused == {"unknown": 12}
    assert "ArithmeticError" in done.rows[0].reasons[0]
    assert "DOE" not in (tmp_path / "out" / "summary.csv").read_text()
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [LOCK]


def test_a_study_that_was_answered_is_not_read_again(
    scan_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = workflow.predict(scan_bundle, [ct(tmp_path, "1")], tmp_path / "out", threads=1)
    before = content(tmp_path / "out")

    def read(*_: Any, **__: Any) -> None:
        pytest.fail("read again")

    with monkeypatch.context() as patch:
        patch.setattr("osteoscope.inference.scope.select_images", read)
        again = workflow.predict(scan_bundle, [tmp_path / "1"], tmp_path / "out", threads=1)
    assert again.rows[0].already_done
    assert again.rows[0].probabilities == first.rows[0].probabilities
    assert content(tmp_path / "out") == before
    more = workflow.predict(scan_bundle, [tmp_path / "1", ct(tmp_path, "2")], tmp_path / "out", threads=1)
    assert [row.already_done for row in more.rows] == [True, False]
    assert len(table(tmp_path / "out")) == 2


def test_another_bundle_or_another_file_is_another_question(
    scan_bundle: Path, scan_member: Path, tmp_path: Path
) -> None:
    path = ct(tmp_path, "1")
    workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1)
    other = write_tiny_bundle(tmp_path / "bundle", scan_member, prior={"osteosarcoma": 0.9, "giant_cell_tumor": 0.1})
    row = workflow.predict(other, [path], tmp_path / "out", threads=1).rows[0]
    assert not row.already_done
    assert [line["bundle"] for line in table(tmp_path / "out")] == [row.bundle]
    write_dicom(
        path / "more.dcm", body(1)[0], position=(0, 0, 36), series="1", StudyInstanceUID="1.2.1", RescaleIntercept=-1024
    )
    again = workflow.predict(other, [path], tmp_path / "out", threads=1).rows[0]
    assert not again.already_done
    assert answer(tmp_path / "out", again.study).images[0].shape[0] == 13


def test_the_same_study_gives_the_same_bytes(scan_bundle: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    for name in ("a", "b"):
        workflow.predict(scan_bundle, [path], tmp_path / name, threads=1)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), StorageError("could not be written: disk full")])
def test_what_is_done_when_all_stops_is_kept_and_the_same_command_goes_on(
    scan_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    paths = [ct(tmp_path, name) for name in ("1", "2", "3")]
    calls: list[Any] = []

    def stopped(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 4:
            raise fault
        write_nifti(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_files, "write_nifti", stopped)
        with pytest.raises(type(fault)):
            workflow.predict(scan_bundle, paths, tmp_path / "out", threads=1, jobs=1)
    (line,) = table(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK, "summary.csv", line["study"]}
    done = workflow.predict(scan_bundle, paths, tmp_path / "out", threads=1)
    assert [row.already_done for row in done.rows] == [True, False, False]
    assert len(table(tmp_path / "out")) == 3


def test_what_a_kill_left_does_not_stop_the_next_run_and_goes(scan_bundle: Path, tmp_path: Path) -> None:
    """A folder without a table is not known to be of predictions: there nothing is removed."""
    output, path = tmp_path / "out", ct(tmp_path, "1")
    (output / ".mine.tmp").mkdir(parents=True)
    done = workflow.predict(scan_bundle, [path], output, threads=1)
    assert done.predicted == 1
    assert (output / ".mine.tmp").exists()
    left = output / ".0123456789ab.x.tmp"
    left.mkdir()
    (left / "overlay-1.png").write_bytes(b"half")
    workflow.predict(scan_bundle, [path], output, threads=1)
    assert not left.exists()


def test_two_processes_do_not_predict_into_one_folder(scan_bundle: Path, tmp_path: Path) -> None:
    path, output = ct(tmp_path, "1"), tmp_path / "out"
    output.mkdir()
    with FileLock(output / LOCK), pytest.raises(RunError, match="out: another process is predicting into this folder"):
        workflow.predict(scan_bundle, [path], output, threads=1)
    assert [path.name for path in output.iterdir()] == [LOCK]


def test_rows_that_another_process_adds_while_files_are_looked_at_stay(scan_bundle: Path, tmp_path: Path) -> None:
    output, others = tmp_path / "out", [ct(tmp_path, "2")]

    def watch(what: str, _done: int, _total: int) -> None:
        if what == "looking at files" and others:
            workflow.predict(scan_bundle, [others.pop()], output, threads=1)

    workflow.predict(scan_bundle, [ct(tmp_path, "1")], output, threads=1, watch=watch)
    assert len(table(output)) == 2


def test_a_table_that_a_spreadsheet_program_changed_is_refused_in_a_sentence(scan_bundle: Path, tmp_path: Path) -> None:
    path, output = ct(tmp_path, "1"), tmp_path / "out"
    row = workflow.predict(scan_bundle, [path], output, threads=1).rows[0]
    summary = output / "summary.csv"
    before = summary.read_text(encoding="utf-8")
    # A byte order mark and an empty row say nothing else.
    summary.write_text(before + "\n", encoding="utf-8-sig")
    workflow.predict(scan_bundle, [path], output, threads=1)
    assert summary.read_text(encoding="utf-8") == before
    header, line = before.splitlines()
    for changed, reason in (
        (f"{header}\n{line},more\n", "expected 10 cells in row 2, found 11"),
        (f"{header}\n{row.study}\n", "expected 10 cells in row 2, found 1"),
        (before.replace(",", ";"), "its columns are not those of the bundle's classes, with commas between them"),
        ("", "its columns are not those of the bundle's classes"),
        (f'{header}\n"{"y" * 140_000}"\n', "cannot be read: field larger than field limit"),
    ):
        summary.write_text(changed, encoding="utf-8")
        with pytest.raises(StorageError, match=rf"summary\.csv: {reason}.* \(choose another folder with -o\)"):
            workflow.predict(scan_bundle, [path], output, threads=1)


def test_of_many_files_that_cannot_be_read_a_few_reasons_are_told(scan_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        write_nifti(folder / f"{number}.nii", body().astype(np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
        whole = (folder / f"{number}.nii").read_bytes()
        (folder / f"{number}.nii").write_bytes(whole[: 1000 + number])
    (row,) = workflow.predict(scan_bundle, [folder], tmp_path / "out", one_patient=True, threads=1).rows
    assert (row.verdict, row.refused) == ("refused", {"truncated_pixels": 8})
    assert len(row.reasons) == 6
    assert row.reasons[0].startswith("Ends too early: ")
    assert row.reasons[-1] == "And 3 more."


def test_pictures_show_the_class_of_the_verdict_though_another_is_more_probable(
    scan_bundle: Path, scan_member: Path, tmp_path: Path
) -> None:
    """Of two classes, evidence for the one is evidence against the other: planes come in the opposite order."""
    write_series(tmp_path / "in", body(4), StudyInstanceUID="1.2.1", RescaleIntercept=-1024)
    (row,) = workflow.predict(scan_bundle, [tmp_path / "in"], tmp_path / "plain", threads=1).rows
    shares = list((row.probabilities or {}).values())
    less = int(np.argmin(shares))
    thresholds = (1.0, 0.0) if less == 0 else (0.0, 1.0)
    verdicts = Verdicts(level=0.9, thresholds=thresholds, counts=(20, 20), refused=None)
    other = write_tiny_bundle(tmp_path / "bundle", scan_member, verdicts=verdicts)
    (turned,) = workflow.predict(other, [tmp_path / "in"], tmp_path / "out", threads=1).rows
    assert turned.verdict == ("osteosarcoma", "giant_cell_tumor")[less] != row.verdict
    orders = [[one.plane for one in answer(tmp_path / name, row.study).overlays] for name in ("plain", "out")]
    assert len(orders[0]) > 1
    assert orders[1] == orders[0][::-1]


def test_predictions_of_other_classes_are_not_added_to(scan_bundle: Path, scan_member: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1)
    before = content(tmp_path / "out")
    other = write_tiny_bundle(
        tmp_path / "bundle", scan_member, classes=("a", "b"), slugs=("a", "b"), prior={"a": 0.5, "b": 0.5}
    )
    with pytest.raises(StorageError, match=r"summary\.csv: its columns are not those of the bundle's classes"):
        workflow.predict(other, [path], tmp_path / "out", threads=1)
    assert content(tmp_path / "out") == before


def test_a_study_whose_answer_is_damaged_is_answered_anew(scan_bundle: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    row = workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1).rows[0]
    before = content(tmp_path / "out")
    (tmp_path / "out" / row.study / "prediction.json").write_text("{")
    assert not workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1).rows[0].already_done
    assert content(tmp_path / "out") == before


def test_nothing_that_is_not_ours_is_written_over(scan_bundle: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    row = workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1).rows[0]
    (tmp_path / "out" / row.study / "prediction.json").write_text("{")
    (tmp_path / "out" / row.study / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"notes\.txt"):
        workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1)
    assert (tmp_path / "out" / row.study / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    for output, reason in ((tmp_path / "file", "no folder"), (tmp_path, "holds no predictions")):
        with pytest.raises(StorageError, match=reason):
            workflow.predict(scan_bundle, [path], output)
    with pytest.raises(StorageError, match="could not be written"):
        workflow.predict(scan_bundle, [path], tmp_path / "file" / "out")
    with pytest.raises(StorageError, match="lies in the bundle that is read"):
        workflow.predict(scan_bundle, [path], scan_bundle / "out")


def test_what_an_operating_system_leaves_beside_an_answer_is_in_nobodys_way(scan_bundle: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    row = workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1).rows[0]
    folder = tmp_path / "out" / row.study
    (folder / "prediction.json").write_text("{")
    for name in (".DS_Store", "Thumbs.db"):
        (folder / name).write_text("")
    assert not workflow.predict(scan_bundle, [path], tmp_path / "out", threads=1).rows[0].already_done
    assert answer(tmp_path / "out", row.study).study == row.study


def test_a_link_that_leads_to_itself_is_refused_and_the_others_go_on(scan_bundle: Path, tmp_path: Path) -> None:
    path = ct(tmp_path, "1")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = workflow.predict(scan_bundle, [path, tmp_path / "loop"], tmp_path / "out", threads=1)
    assert sorted(row.verdict == "refused" for row in done.rows) == [False, True]


def test_members_of_a_zip_that_cannot_be_unpacked_are_called_the_same_in_every_run(
    scan_bundle: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as made:
        for number, path in enumerate(sorted(ct(tmp_path, "1").iterdir())):
            made.write(path, f"{number}.dcm")
        made.writestr("broken", b"x" * 400)
    # The member's bytes are no longer those that its checksum is of.
    packed.write_bytes(packed.read_bytes().replace(b"x" * 400, b"y" * 400))
    rows = [workflow.predict(scan_bundle, [packed], tmp_path / "out", threads=1).rows for _ in range(2)]
    assert [row.study for row in rows[0]] == [row.study for row in rows[1]]
    assert len(table(tmp_path / "out")) == len(rows[0]) == 2
    joined = [
        workflow.predict(scan_bundle, [packed], tmp_path / "one", threads=1, one_patient=True).rows[0] for _ in range(2)
    ]
    assert joined[1].already_done


def test_an_answer_to_another_option_is_not_taken_for_this_one(scan_bundle: Path, tmp_path: Path) -> None:
    values = body().astype(np.int16).transpose(2, 1, 0) - 1024
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), tmp_path / "a.nii.gz")
    workflow.predict(scan_bundle, [tmp_path / "a.nii.gz"], tmp_path / "out", threads=1)
    stated = workflow.predict(scan_bundle, [tmp_path / "a.nii.gz"], tmp_path / "out", modality="CT", threads=1).rows[0]
    assert not stated.already_done


def test_values_are_let_go_of_when_their_study_is_answered(
    scan_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[Any] = []
    made = stored_array.ArrayReader.__init__

    def noted(self: stored_array.ArrayReader, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        readers.append(self)

    monkeypatch.setattr(stored_array.ArrayReader, "__init__", noted)
    for number in range(3):
        values = body().astype(np.int16).transpose(2, 1, 0) - 1024 + number
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), tmp_path / f"{number}.nii.gz")
    held: list[int] = []
    workflow.predict(
        scan_bundle,
        [tmp_path / f"{number}.nii.gz" for number in range(3)],
        tmp_path / "out",
        threads=1,
        watch=lambda *_: held.append(sum(reader._spool is not None for reader in readers)),
    )
    assert len(readers) == 3
    assert held[-1] == 0
    assert max(held) <= 2


def test_a_study_that_is_gone_from_the_output_is_gone_from_the_summary(scan_bundle: Path, tmp_path: Path) -> None:
    row = workflow.predict(scan_bundle, [ct(tmp_path, "1")], tmp_path / "out", threads=1).rows[0]
    shutil.rmtree(tmp_path / "out" / row.study)
    workflow.predict(scan_bundle, [tmp_path / "nowhere"], tmp_path / "out", threads=1)
    assert [line["verdict"] for line in table(tmp_path / "out")] == ["refused"]


def test_overlays_of_an_earlier_run_are_no_studies(radiograph_bundle: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for _ in range(2):
        done = workflow.predict(radiograph_bundle, [tmp_path], tmp_path / "out", threads=1)
        assert [row.file for row in done.rows] == [str(tmp_path / "a.png")]


def test_nothing_that_is_written_tells_the_patient(scan_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Nobody_Anna_ID-4711"
    folder.mkdir()
    write_series(folder / "Nobody", body(), StudyInstanceUID="1.2.3", RescaleIntercept=-1024)
    nibabel.save(
        nibabel.Nifti1Image(RNG.normal(0, 200, (40, 40, 8)), np.diag([2.0, 2, 4, 1])), folder / "Nobody_ct.nii"
    )
    (folder / "Nobody.dcm").write_bytes(b"\0" * 128 + b"DICM")
    done = workflow.predict(scan_bundle, [folder], tmp_path / "out", threads=1)
    assert len(done.rows) == 3
    assert PATIENT.startswith("Nobody")
    for name, written in content(tmp_path / "out").items():
        for secret in (b"Nobody", b"Anna", b"4711", b"19010203", b"1.2.3", str(tmp_path).encode()):
            assert secret not in name.encode() + written, name


def test_a_damaged_bundle_is_refused_before_anything_is_read(scan_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(scan_bundle, tmp_path / "bundle")
    (bundle / "members/0/planes.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"planes\.onnx"):
        workflow.predict(bundle, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_needs_a_mark_is_refused(radiograph_member: Path, tmp_path: Path) -> None:
    marked = RADIOGRAPHS.model_copy(update={"second_look_at": "box"})
    bundle = write_tiny_bundle(tmp_path / "bundle", radiograph_member, preparation=marked, modalities=("radiograph",))
    with pytest.raises(InputError, match="box of a lesion that a person has marked"):
        workflow.predict(bundle, [tmp_path], tmp_path / "out")


def test_progress_is_told(scan_bundle: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    workflow.predict(
        scan_bundle, [ct(tmp_path, "1")], tmp_path / "out", threads=1, watch=lambda *said: told.append(said)
    )
    assert told[:12] == [("looking at files", done, 12) for done in range(1, 13)]
    assert told[12:] == [("predicting studies", 0, 1), ("predicting studies", 1, 1)]


def loaded_by(arguments: Sequence[str | Path]) -> set[str]:
    script = (
        "import sys; from pathlib import Path; from osteoscope import workflow\n"
        "workflow.predict(Path(sys.argv[1]), [Path(name) for name in sys.argv[3:]], Path(sys.argv[2]))\n"
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_no_torch_and_no_tables_are_loaded(scan_bundle: Path, radiograph_bundle: Path, tmp_path: Path) -> None:
    paths = [ct(tmp_path, "1"), picture(tmp_path / "a.png")]
    nibabel.save(nibabel.Nifti1Image(RNG.normal(0, 200, (40, 40, 8)), np.diag([2.0, 2, 4, 1])), tmp_path / "b_ct.nii")
    for number, bundle in enumerate((scan_bundle, radiograph_bundle)):
        loaded = loaded_by([bundle, tmp_path / f"out {number}", *paths, tmp_path / "b_ct.nii"])
        assert "onnxruntime" in loaded
        assert not loaded & {"torch", "monai", "pandas", "pyarrow", "matplotlib", "sklearn", "SimpleITK"}
