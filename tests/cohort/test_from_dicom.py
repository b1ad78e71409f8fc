"""From an archive to a cohort: what is in it, what is left out and why, and that nothing is ever lost."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from archives import (
    GCT,
    OS,
    PLANES,
    SIDE,
    labels_of,
    person,
    write_archive,
    write_ct,
    write_film,
    write_labels,
    write_mr,
)
from conftest import shared_data
from dicom_files import write_dicom
from drawn_regions import write_segmentation, write_structure_set
from filelock import FileLock

from osteoscope import workflow
from osteoscope.cohort.archive import copying
from osteoscope.cohort.archive.copying import SOURCES
from osteoscope.cohort.deidentify import Key, deidentify_file
from osteoscope.cohort.deidentify.profile import PROFILE_VERSION
from osteoscope.cohort.table import read_cohort
from osteoscope.errors import CohortError, ConfigError, InputError, StorageError, TableError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image
from osteoscope.storage import LOCK

if TYPE_CHECKING:
    from pathlib import Path


def made(root: Path, labels: Path, output: Path, **options: Any) -> workflow.ArchiveSummary:
    return workflow.cohort_from_dicom(root, output, labels=labels, **{"jobs": 1, **options})


MARKED = np.zeros((PLANES, SIDE, SIDE), dtype=np.uint8)
MARKED[2:4, 10:20, 5:15] = 1


def slices_of(folder: Path) -> list[pydicom.FileDataset]:
    """Read a scan's slices in order, with what a segmentation of them takes over."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    for one in slices:
        one.StudyID, one.StudyTime = "1", "120000"
    return sorted(slices, key=lambda one: float(one.ImagePositionPatient[2]))


def series_of(output: Path) -> list[dict[str, str]]:
    with (output / "series.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return labels_of(tmp_path / "labels.csv")


def test_a_cohort_holds_pseudonyms_and_can_be_moved(tmp_path: Path, archive: Path, labels: Path) -> None:
    output = tmp_path / "cohort"
    summary = made(archive, labels, output)
    assert summary.counts["classes"] == {GCT: {"patients": 2, "images": 2}, OS: {"patients": 2, "images": 2}}
    output.rename(tmp_path / "elsewhere")
    cohort = read_cohort(tmp_path / "elsewhere")
    key = Key.open(tmp_path / "cohort.key.json")
    assert set(cohort.frame["patient"]) == {key.patient(f"{number:05d}") for number in range(4)}
    assert set(cohort.frame["modality"]) == {"CT"}
    for path in (tmp_path / "elsewhere").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            # The names and the UIDs of the archive; its patients' numbers may stand in new UIDs by chance.
            assert b"Nobody^P" not in content, path
            assert b"1.2.3." not in content, path
    for image in cohort.frame["image"]:
        data_set = pydicom.dcmread(next((cohort.root / image).glob("*.dcm")))
        assert data_set.PatientID in set(cohort.frame["patient"])


def test_what_knows_the_patients_lies_beside_the_cohort_for_its_owner_alone(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    summary = made(archive, labels, tmp_path / "cohort")
    assert summary.key == tmp_path / "cohort.key.json"
    assert summary.index == tmp_path / "cohort.index.sqlite"
    assert {path.stat().st_mode & 0o777 for path in (summary.key, summary.index)} == {0o600}
    with pytest.raises(ConfigError, match="expected an index outside of the cohort"):
        made(archive, labels, tmp_path / "cohort", index=tmp_path / "cohort" / "index.sqlite")
    with pytest.raises(ConfigError, match="expected an output apart from the source"):
        made(archive, labels, archive / "cohort")


def test_dates_move_together_so_that_intervals_stay(tmp_path: Path, archive: Path) -> None:
    rows = [
        {"patient": f"{number:05d}", "label": (OS, GCT)[number % 2], "proof_date": "2020-02-01", "proof": "histology"}
        for number in range(4)
    ]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    frame = read_cohort(tmp_path / "cohort").frame
    images, proofs = (frame[column].astype("datetime64[s]") for column in ("image_date", "proof_date"))
    assert set((proofs - images).dt.days) == {22}
    assert images.dt.year.max() < 2020
    data_set = pydicom.dcmread(next((tmp_path / "cohort" / frame["image"][0]).glob("*.dcm")))
    assert data_set.StudyDate == frame["image_date"][0].replace("-", "")


def test_what_the_headers_say_of_the_patient_is_kept_where_the_table_says_nothing(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    write_ct(root / "0", 0, PatientAge="042Y")
    write_ct(root / "1", 1)
    write_ct(root / "2", 2, PatientBirthDate="19200304", PatientAge=None)
    rows = [{"patient": f"0000{number}", "label": (OS, GCT)[number % 2]} for number in range(3)]
    rows[1] |= {"age": "17", "sex": "F", "level": "L3", "site": "spine"}
    made(root, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    key = Key.open(tmp_path / "cohort.key.json")
    frame = read_cohort(tmp_path / "cohort").frame.set_index("patient")
    zero, one, two = (frame.loc[key.patient(f"0000{number}")] for number in range(3))
    assert (zero["age"], zero["sex"]) == (42, "F")
    assert (one["age"], one["sex"], one["level"], one["site"]) == (17, "F", "L3", "spine")
    # Of who is older than 89 only that is kept.
    assert two["age"] == 90


def test_a_ct_an_mr_and_radiographs_of_one_patient_are_rows_of_it(tmp_path: Path, archive: Path, labels: Path) -> None:
    write_mr(archive / "mr", 0)
    write_film(archive / "ap.dcm", 0)
    write_film(archive / "ll.dcm", 0, ViewPosition="LL", SeriesInstanceUID="1.2.3.0.5")
    made(archive, labels, tmp_path / "cohort")
    frame = read_cohort(tmp_path / "cohort").frame
    own = frame[frame["patient"] == Key.open(tmp_path / "cohort.key.json").patient("00000")]
    assert sorted(own["modality"]) == ["CT", "MR", "radiograph", "radiograph"]
    assert set(own["view"].dropna()) == {"AP", "LL"}
    assert own[own["modality"] == "radiograph"]["image"].str.endswith(".dcm").all()


def test_of_a_series_of_radiographs_the_blank_one_alone_is_left_out(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    write_film(archive / "ap.dcm", 0)
    grey = np.full((SIDE, SIDE), 7, dtype=np.uint16)
    write_dicom(archive / "blank.dcm", grey, "DX", **person(0), SeriesInstanceUID="1.2.3.0.4", ViewPosition="AP")
    first = [made(archive, labels, tmp_path / "cohort") and read_cohort(tmp_path / "cohort").left_out for _ in "12"]
    # Nor does a second run forget it.
    assert first[0] == first[1]
    cohort = read_cohort(tmp_path / "cohort")
    films = cohort.frame[cohort.frame["modality"] == "radiograph"]
    assert films["view"].tolist() == ["AP"]
    (left,) = [left for left in cohort.left_out if left.image.endswith(".dcm")]
    assert left.image.rsplit("/", 1)[0] == films["image"].iloc[0].rsplit("/", 1)[0]
    assert "blank" in left.reason
    assert not (tmp_path / "cohort" / left.image).exists()


def test_radiographs_of_one_series_have_the_views_that_they_state(tmp_path: Path, archive: Path, labels: Path) -> None:
    for view in ("AP", "LL"):
        write_film(archive / f"{view}.dcm", 0, ViewPosition=view)
    made(archive, labels, tmp_path / "cohort")
    films = read_cohort(tmp_path / "cohort").frame.query("modality == 'radiograph'")
    assert sorted(films["view"]) == ["AP", "LL"]


def test_a_radiograph_that_is_called_a_projection_is_used(tmp_path: Path, archive: Path, labels: Path) -> None:
    write_film(archive / "ap.dcm", 0, SeriesDescription="Knee, AP projection")
    made(archive, labels, tmp_path / "cohort")
    assert len(read_cohort(tmp_path / "cohort").frame.query("modality == 'radiograph'")) == 1


def test_a_radiograph_is_left_as_the_detector_gave_it(tmp_path: Path, archive: Path, labels: Path) -> None:
    raw = {"PresentationIntentType": "FOR PROCESSING", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}
    write_film(archive / "shown.dcm", 0, PresentationIntentType="FOR PRESENTATION")
    write_film(archive / "raw.dcm", 0, SeriesInstanceUID="1.2.3.0.5", **raw)
    made(archive, labels, tmp_path / "cohort")
    assert len(read_cohort(tmp_path / "cohort").frame.query("modality == 'radiograph'")) == 1
    left = [row["reason"] for row in series_of(tmp_path / "cohort") if row["chosen"] == "no"]
    assert "it is a radiograph as the detector gave it, before it was made to be looked at" in left


def test_a_series_over_time_does_not_stand_for_a_thin_one(tmp_path: Path, archive: Path, labels: Path) -> None:
    write_mr(archive / "t2", 0)
    dynamic = {"SeriesInstanceUID": "1.2.3.0.9", "SeriesDescription": "t1_vibe_dyn_sag"}
    for phase in range(3):
        write_mr(archive / f"dyn{phase}", 0, AcquisitionNumber=phase, **dynamic)
    made(archive, labels, tmp_path / "cohort")
    rows = [row for row in series_of(tmp_path / "cohort") if row["kind"] == "MR"]
    told = {int(row["files"]): (row["chosen"], row["reason"]) for row in rows}
    assert told[PLANES][0] == "yes"
    repeated = f"{2 * PLANES} of its {3 * PLANES} files show the place of another, as in a series over time"
    assert told[3 * PLANES] == ("no", repeated)


def test_a_segmentation_that_a_person_leaves_outlines_nothing(tmp_path: Path, archive: Path, labels: Path) -> None:
    write_segmentation(archive / "seg", slices_of(archive / "p0"), MARKED)
    output = tmp_path / "cohort"
    made(archive, labels, output)
    assert read_cohort(output).frame["mask"].notna().sum() == 1
    text = (output / "series.csv").read_text(encoding="utf-8").splitlines()
    lines = [f"{line}leave" if "marks regions" in line else line for line in text]
    (output / "series.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made(archive, labels, output)
    assert read_cohort(output).frame["mask"].notna().sum() == 0


def test_patients_who_share_what_stands_for_a_study_have_studies_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    blanked: dict[str, Any] = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "FrameOfReferenceUID": "1.2.99"}
    for number in range(2):
        write_ct(root / f"p{number}", number, **blanked)
    made(root, labels_of(tmp_path / "labels.csv", 2), tmp_path / "cohort")
    frame = read_cohort(tmp_path / "cohort").frame
    assert frame["patient"].nunique() == frame["study"].nunique() == 2


def test_copies_that_an_earlier_profile_made_are_made_again(
    tmp_path: Path, archive: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cohort"
    made(archive, labels, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.dcm")}
    monkeypatch.setattr(copying, "PROFILE_VERSION", PROFILE_VERSION + 1)
    made(archive, labels, output)
    assert all(path.stat().st_mtime_ns > modified for path, modified in before.items())


def test_a_second_run_copies_nothing_again_and_gives_the_same_cohort(
    tmp_path: Path, archive: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cohort"
    made(archive, labels, output)
    before = read_cohort(output).fingerprint(), (output / "series.csv").read_bytes()
    monkeypatch.setattr(copying, "deidentify_file", lambda *_, **__: pytest.fail("a file was copied again"))
    again = made(archive, labels, output)
    assert (read_cohort(output).fingerprint(), (output / "series.csv").read_bytes()) == before
    assert again.indexed["new"] == 0


def test_a_series_that_has_changed_is_copied_again_and_one_that_is_gone_is_removed(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    output = tmp_path / "cohort"
    made(archive, labels, output)
    before = {row["image"]: row for row in read_cohort(output).frame.to_dict("records")}
    shutil.rmtree(archive / "p3")
    shutil.rmtree(archive / "p0")
    write_ct(archive / "p0", 0, seed=77)
    made(archive, labels, output)
    after = {row["image"]: row for row in read_cohort(output).frame.to_dict("records")}
    assert len(after) == 3
    assert sum(before[image]["pixel_sha256"] != row["pixel_sha256"] for image, row in after.items()) == 1
    folders = {path.parent.relative_to(output).as_posix() for path in output.rglob(SOURCES)}
    assert folders == set(after)


def test_two_runs_at_once_do_not_take_each_others_copies_away(tmp_path: Path, archive: Path, labels: Path) -> None:
    output = tmp_path / "cohort"
    made(archive, labels, output)
    with FileLock(output / LOCK), pytest.raises(InputError, match="another process makes this cohort"):
        made(archive, labels, output)
    # A run that ended with nothing made leaves nothing.
    with pytest.raises(CohortError):
        made(archive, labels, tmp_path / "other", classes=["nobody's", "nobody else's"])
    assert not (tmp_path / "other").exists()


def test_a_date_that_stands_for_none_is_none(tmp_path: Path) -> None:
    for number in range(2):
        write_ct(tmp_path / "archive" / f"p{number}", number, StudyDate="00010101")
    rows = [{"patient": f"{n:05d}", "label": label, "biopsy_date": "2020-01-01"} for n, label in enumerate((OS, GCT))]
    made(tmp_path / "archive", write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    frame = read_cohort(tmp_path / "cohort").frame
    assert frame["image_date"].isna().all()
    assert frame["biopsied"].isna().all()


def test_a_person_overrides_a_choice_and_keeps_that_decision(tmp_path: Path, archive: Path, labels: Path) -> None:
    output = tmp_path / "cohort"
    coronal: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.0.9", "SeriesNumber": 9, "seed": 50}
    write_ct(archive / "other", 0, orientation=(1.0, 0, 0, 0, 0, -1.0), **coronal)
    made(archive, labels, output)
    rows = series_of(output)
    (other,) = [row for row in rows if row["plane"] == "coronal"]
    assert (other["chosen"], other["reason"]) == ("no", "another series of its study is in the usual plane")
    other["override"] = "keep"
    write_labels(output / "series.csv", rows, separator=";")
    made(archive, labels, output)
    again = {(row["patient"], row["series"]): row for row in series_of(output)}
    kept = again[other["patient"], other["series"]]
    assert (kept["chosen"], kept["override"], kept["reason"]) == ("yes", "keep", "a person decided to use it")
    assert kept["image"] in set(read_cohort(output).frame["image"])
    assert sum(row["chosen"] == "yes" for row in again.values()) == 4
    # Where the series is not there for once, what was decided on it stays.
    (archive / "other").rename(tmp_path / "elsewhere")
    made(archive, labels, output)
    (gone,) = [row for row in series_of(output) if row["override"]]
    assert (gone["patient"], gone["series"]) == (other["patient"], other["series"])
    assert (gone["image"], gone["chosen"]) == ("", "no")
    assert gone["reason"] == "it is not in the archive"
    (tmp_path / "elsewhere").rename(archive / "other")
    made(archive, labels, output)
    assert kept in series_of(output)
    other["override"] = "perhaps"
    table = write_labels(tmp_path / "mine.csv", rows)
    with pytest.raises(TableError, match="column 'override': expected keep or leave, found 'perhaps'"):
        made(archive, labels, output, series=table)


def test_everything_odd_is_said_and_nobody_is_named(tmp_path: Path, archive: Path) -> None:
    # A study in two folders; a patient under two identifiers; a copy of a series; a patient with two labels.
    (archive / "split").mkdir()
    for path in sorted((archive / "p1").iterdir())[:3]:
        path.rename(archive / "split" / path.name)
    write_ct(
        archive / "again", 0, seed=7, **person(0, PatientID="EXT", StudyInstanceUID="1.2.9"), SeriesInstanceUID="1.9"
    )
    shutil.copytree(archive / "p2", archive / "copy")
    (archive / "readme.txt").write_text("x")
    write_ct(archive / "unlabelled", 8)
    rows = [{"patient": f"{number:05d}", "label": (OS, GCT)[number % 2]} for number in range(4)]
    rows += [{"patient": "00003", "label": OS}, {"patient": "77", "label": OS}]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    told = "\n".join(cohort.notes)
    for sentence in (
        "Files of the archive that are no DICOM files, left alone: 1.",
        "counted once: 1, with 1 of these.",
        "Studies that lie in several folders or zips, taken together: 2.",
        "1 of 6 rows of the label table joined nobody",
        "Patients of the archive in no row of the label table, left out: 1.",
        f"rows 5 and 6 of the label table give it the label {GCT!r} and {OS!r}",
    ):
        assert sentence in told
    assert "00003" not in told
    assert "Nobody" not in told
    key = Key.open(tmp_path / "cohort.key.json")
    left = {image.image.split("/")[1]: image.reason for image in cohort.left_out}
    assert "label table give it the label" in left[key.patient("00003")]
    assert "no row of the label table" in left[key.patient("00008")]
    assert set(cohort.frame["patient"]) == {key.patient(f"0000{number}") for number in range(3)}
    halves = cohort.frame.set_index("patient")["image"][key.patient("00001")]
    assert len(list((cohort.root / halves).glob("*.dcm"))) == 6


def test_two_patients_with_one_study_uid_are_kept_apart(tmp_path: Path, archive: Path, labels: Path) -> None:
    shutil.rmtree(archive / "p1")
    write_ct(archive / "p1", 1, StudyInstanceUID="1.2.3.0", SeriesInstanceUID="1.2.3.0.1")
    made(archive, labels, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    assert (cohort.frame["patient"].nunique(), cohort.frame["study"].nunique()) == (4, 4)
    assert "Study Instance UIDs that two or more different patients have, who are kept apart: 1." in cohort.notes


def test_members_of_zips_are_used_as_files_are(tmp_path: Path, archive: Path, labels: Path) -> None:
    made(archive, labels, tmp_path / "of-files")
    for name in ("p0", "p1"):
        with zipfile.ZipFile(archive / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in (archive / name).iterdir():
                zipped.write(path, f"deep/{path.name}")
        shutil.rmtree(archive / name)
    made(archive, labels, tmp_path / "of-zips", key=tmp_path / "of-files.key.json")
    one, other = (read_cohort(tmp_path / name).frame for name in ("of-files", "of-zips"))
    assert one.equals(other)


def test_what_may_show_text_is_held_back_and_said(tmp_path: Path, archive: Path, labels: Path) -> None:
    for path in (archive / "p0").iterdir():
        data_set = pydicom.dcmread(path)
        data_set.BurnedInAnnotation = "YES"
        data_set.save_as(path)
    made(archive, labels, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    assert len(cohort.frame) == 3
    (left, *_) = cohort.left_out
    assert left.reason == "a file of it is held back: its header says that text is burned into its pixels"
    assert not (cohort.root / left.image).exists()


def test_a_series_with_a_damaged_file_or_without_slices_is_left_out_with_the_reason(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    cut = min((archive / "p0").iterdir())
    cut.write_bytes(cut.read_bytes()[:-50])
    heights = {path: float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in (archive / "p1").iterdir()}
    sorted(heights, key=heights.__getitem__)[2].unlink()
    made(archive, labels, tmp_path / "cohort")
    reasons = [row["reason"] for row in series_of(tmp_path / "cohort") if row["chosen"] == "no"]
    assert len(reasons) == 2
    assert any("1 of its 6 files cannot be used: expected 3200 bytes of pixels" in reason for reason in reasons)
    assert any("missing" in reason for reason in reasons)


def test_no_space_half_way_loses_nothing(
    tmp_path: Path, archive: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cohort"
    made(archive, labels, tmp_path / "whole", key=tmp_path / "key")
    calls: list[Any] = []

    def full(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return deidentify_file(*arguments, **options)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return deidentify_file(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "deidentify_file", full)
        with pytest.raises(StorageError, match="no space left on device"):
            made(archive, labels, output, key=tmp_path / "key")
    assert len(list(output.rglob(SOURCES))) == 1
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(copying, "deidentify_file", counted)
        made(archive, labels, output, key=tmp_path / "key")
    # Of four series of six files one was whole.
    assert len(calls) == 18
    assert read_cohort(output).fingerprint() == read_cohort(tmp_path / "whole").fingerprint()


def test_classes_that_nobody_has_and_folders_of_something_else_are_refused(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    with pytest.raises(CohortError, match=r"no patient of the archive has the label 'osteosarkoma'.*did you mean"):
        made(archive, labels, tmp_path / "cohort", classes=["osteosarkoma", GCT])
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "letter").write_text("x")
    with pytest.raises(StorageError, match="is already there and is not a cohort of an archive"):
        made(archive, labels, tmp_path / "papers")
    with pytest.raises(CohortError, match="no series of the archive can be used"):
        made(archive, labels, tmp_path / "cohort", wishes=workflow.wishes(plane="sagittal"))
    with pytest.raises(ConfigError, match=r"expected one of head, .*, found 'elbow joint'"):
        workflow.wishes(body_part="elbow joint")


def test_a_segmentation_outlines_the_lesion_and_one_of_another_series_is_said(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    for number, name in enumerate(("own", "other")):
        slices = slices_of(archive / f"p{number}")
        for one in slices:
            if name == "other":
                one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.77", "1.2.78"
        write_segmentation(archive / name, slices, MARKED)
    made(archive, labels, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    key = Key.open(tmp_path / "cohort.key.json")
    masks = cohort.frame.set_index("patient")["mask"].dropna()
    assert list(masks.index) == [key.patient("00000")]
    image = cohort.frame.set_index("patient")["image"][key.patient("00000")]
    found = read_mask(cohort.root / masks.iloc[0], open_image(cohort.root / image).volume)
    assert found.sum() == 2 * 10 * 10
    assert sorted(np.flatnonzero(found.any(axis=(1, 2)))) == [2, 3]
    assert any("outline no lesion in a scan (it was drawn in another frame of reference): 1" in n for n in cohort.notes)


def test_files_of_one_region_each_are_told_apart_by_their_names_in_the_archive(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    regions: dict[str, Any] = {
        "Tumour 1": np.s_[2, 2:5, 2:5],
        "Tumour 2": np.s_[3, 2:5, 2:5],
        "Liver": np.s_[0:5, 1:20, 1:20],
    }
    for name, voxels in regions.items():
        marked = np.zeros_like(MARKED)
        marked[voxels] = True
        write_segmentation(archive / name, slices_of(archive / "p0"), marked, names=[name])
    made(archive, labels, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    (row,) = cohort.frame.dropna(subset=["mask"]).to_dict("records")
    assert read_mask(cohort.root / row["mask"], open_image(cohort.root / row["image"]).volume).sum() == 2 * 3 * 3
    told = "its lesion is outlined by some files, which are joined"
    assert f"Scans of which it is told that {told}: 1." in cohort.notes
    left = "its one region does not speak of a lesion, and another file outlines one"
    assert f"Segmentations and structure sets that outline no lesion in a scan ({left}): 1." in cohort.notes


def test_a_segmentation_that_outlines_the_ct_of_a_patient_need_not_fit_the_mr(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    write_mr(archive / "mr", 0, FrameOfReferenceUID="1.2.79")
    write_segmentation(archive / "seg", slices_of(archive / "p0"), MARKED)
    made(archive, labels, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    own = cohort.frame[cohort.frame["patient"] == Key.open(tmp_path / "cohort.key.json").patient("00000")]
    assert dict(zip(own["modality"], own["mask"].notna(), strict=True)) == {"CT": True, "MR": False}
    assert any("CT and MR whose lesion is outlined: 1 of" in note for note in cohort.notes)
    assert not any("outline no lesion" in note for note in cohort.notes)


@pytest.mark.usefixtures("structures")
def test_what_is_wrong_with_a_structure_set_is_said_once_of_a_ct_and_an_mr(
    tmp_path: Path, archive: Path, labels: Path
) -> None:
    write_mr(archive / "mr", 0)
    made(archive, labels, tmp_path / "cohort", roi_names=("GTV 9",))
    (told,) = [note for note in read_cohort(tmp_path / "cohort").notes if "outline no lesion" in note]
    assert told.endswith(": 1.")


def test_the_copies_of_one_patient_have_one_pseudonym_and_one_shift_of_dates(tmp_path: Path, archive: Path) -> None:
    other = person(0, PatientID="EXT", StudyInstanceUID="1.2.9", StudyDate="20200120")
    write_mr(archive / "again", 0, **other, SeriesInstanceUID="1.9")
    rows = [{"patient": "EXT", "label": OS}, {"patient": "00001", "label": GCT}]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    key = Key.open(tmp_path / "cohort.key.json")
    own = cohort.frame[cohort.frame["patient"] == key.patient("00000")].set_index("modality")
    assert sorted(own.index) == ["CT", "MR"]
    files = {kind: pydicom.dcmread(next((cohort.root / own["image"][kind]).glob("*.dcm"))) for kind in own.index}
    assert {file.PatientID for file in files.values()} == {key.patient("00000")}
    assert {str(file.PatientName) for file in files.values()} == {key.patient("00000")}
    for kind, file in files.items():
        assert file.StudyDate == own["image_date"][kind].replace("-", "")
    dates = own["image_date"].astype("datetime64[s]")
    assert (dates["MR"] - dates["CT"]).days == 10


def test_a_series_whose_uids_were_blanked_is_used_and_that_is_said(tmp_path: Path) -> None:
    source = shared_data("dicom") / "totalsegmentator/example_ct_dicom"
    shutil.copytree(source, tmp_path / "archive" / "blanked")
    write_ct(tmp_path / "archive" / "p1", 1)
    frame = str(pydicom.dcmread(next(source.glob("CT*")), stop_before_pixels=True).FrameOfReferenceUID)
    rows = [{"study": frame, "label": OS}, {"study": "1.2.3.1", "label": GCT}]
    made(tmp_path / "archive", write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    (row,) = cohort.frame[cohort.frame["label"] == OS].to_dict("records")
    assert row["guessed"]
    volume, original = open_image(cohort.root / row["image"]).volume, open_image(source).volume
    assert volume.geometry.shape == original.geometry.shape == (20, 512, 512)
    copied = pydicom.dcmread(next((cohort.root / row["image"]).glob("*.dcm")), stop_before_pixels=True)
    # The folder's names and the UIDs come from the same stand-ins as those of `cohort deidentify`.
    deidentify_file(next(source.glob("CT*")), tmp_path / "alone.dcm", Key.open(tmp_path / "cohort.key.json"))
    alone = pydicom.dcmread(tmp_path / "alone.dcm", stop_before_pixels=True)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert copied[keyword].value == alone[keyword].value
    assert copied.PatientID == row["patient"]
    told = "Chosen series without a Study or Series Instance UID, told by their frame of reference and number: 1 of 2."
    assert told in cohort.notes


def test_a_series_without_uids_and_without_what_could_stand_for_them_is_left(tmp_path: Path, archive: Path) -> None:
    nothing: dict[str, Any] = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "FrameOfReferenceUID": None}
    write_ct(archive / "nothing", 8, **nothing)
    rows = [{"patient": number, "label": label} for number, label in (("00000", OS), ("00001", GCT), ("00008", OS))]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    reasons = {row["reason"] for row in series_of(tmp_path / "cohort")}
    assert any("could be de-identified consistently" in reason for reason in reasons)
    assert len(read_cohort(tmp_path / "cohort").frame) == 2


def square(first: int, height: float) -> np.ndarray:
    """Draw a contour of 4 by 4 pixels, whose corners lie on pixel edges, at a height in mm."""
    edges = first - 0.5, first + 3.5
    return np.array([(x, y, height) for x, y in zip((*edges, *edges[::-1]), np.repeat(edges, 2), strict=True)])


@pytest.fixture
def structures(archive: Path) -> Path:
    """Write a structure set of patient 0, in whose regions' names the patient's stands."""
    slices = [pydicom.dcmread(path) for path in (archive / "p0").iterdir()]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    place = slices[3]
    x, y, z = map(float, place.ImagePositionPatient)
    rows, columns = map(float, place.PixelSpacing)
    scale, origin = np.array([columns, rows, 1.0]), np.array([x, y, z])
    regions = [
        {"name": f"GTV {name} Nobody", "contours": [square(first, 0.0) * scale + origin]}
        for name, first in (("first", 4), ("second", 20))
    ]
    path = write_structure_set(
        archive / "structures.dcm", regions, frame="1.2.3.0.0", series="1.2.3.0.1", study="1.2.3.0"
    )
    data_set = pydicom.dcmread(path)
    data_set.PatientID, data_set.PatientName = "00000", "Nobody^P0"
    data_set.save_as(path)
    return path


@pytest.mark.parametrize(
    ("names", "voxels"),
    [(["gtv  FIRST nobody"], 16), (["GTV second Nobody", "GTV first Nobody"], 32), (["GTV first Nobody", "GTV"], 16)],
    ids=["one", "two", "one-is-not-there"],
)
@pytest.mark.usefixtures("structures")
def test_regions_are_named_as_in_the_archive_and_their_names_do_not_stay(
    tmp_path: Path, archive: Path, labels: Path, names: list[str], voxels: int
) -> None:
    made(archive, labels, tmp_path / "cohort", roi_names=names)
    cohort = read_cohort(tmp_path / "cohort")
    (row,) = cohort.frame.dropna(subset=["mask"]).to_dict("records")
    assert row["patient"] == Key.open(tmp_path / "cohort.key.json").patient("00000")
    found = read_mask(cohort.root / row["mask"], open_image(cohort.root / row["image"]).volume)
    assert found.sum() == found[3].sum() == voxels
    assert "Nobody" not in (tmp_path / "cohort" / "cohort.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            (),
            "which of its regions is the lesion's cannot be told, and has to be named by --roi-name: 2 whose names"
            " do not stay",
        ),
        (("GTV 9",), "no region of it has a name that was given, but 2 whose names do not stay"),
    ],
    ids=["none-given", "not-there"],
)
@pytest.mark.usefixtures("structures")
def test_regions_that_cannot_be_told_apart_are_said_without_naming_anybody(
    tmp_path: Path, archive: Path, labels: Path, names: tuple[str, ...], told: str
) -> None:
    made(archive, labels, tmp_path / "cohort", roi_names=names)
    cohort = read_cohort(tmp_path / "cohort")
    assert cohort.frame["mask"].isna().all()
    assert f"Segmentations and structure sets that outline no lesion ({told}): 1." in cohort.notes
    assert "Nobody" not in (tmp_path / "cohort" / "cohort.json").read_text(encoding="utf-8")


def test_what_is_said_of_the_choice_is_of_patients_with_a_label_and_of_what_is_not_certain(
    tmp_path: Path, archive: Path
) -> None:
    write_ct(archive / "one-plane", 8, planes=1, BodyPartExamined="LSPINE")
    write_ct(archive / "p0", 0, BodyPartExamined="LSPINE", SeriesDescription="lumbar spine")
    write_film(archive / "unlabelled.dcm", 9, PhotometricInterpretation="RGB")
    rows = [{"patient": f"0000{number}", "label": (OS, GCT)[number % 2]} for number in (0, 1, 8)]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort")
    notes = read_cohort(tmp_path / "cohort").notes
    assert "Chosen CT and MR of fewer than 5 planes: 1 of 3." in notes
    assert "CT and MR whose lesion is outlined: 0 of 3." in notes
    assert [note for note in notes if "tagged" in note] == [
        "Chosen series tagged lumbar and spine, unverified: 1 of 3."
    ]
    assert not [note for note in notes if note.startswith("Series left")]
    assert "Patients of the archive in no row of the label table, left out: 3." in notes
    (one,) = [
        row["reason"] for row in series_of(tmp_path / "cohort") if row["planes"] == "1" and row["chosen"] == "yes"
    ]
    assert one.startswith("CT axial, 1 plane, kernel for soft; of the first study")


def test_a_patient_who_is_left_out_has_the_reason_that_decides(tmp_path: Path, archive: Path) -> None:
    # Two images in one series; no row of the table, and a series that could not be used, either; two series of which
    # neither fits.
    shutil.rmtree(archive / "p0")
    write_ct(archive / "p0", 0, planes=3)
    write_ct(archive / "p0-again", 0, planes=3, seed=9, orientation=(1.0, 0, 0, 0, 0.8, 0.6))
    write_film(archive / "unlabelled.dcm", 9, BitsAllocated=12)
    write_mr(archive / "p3-again", 3)
    write_mr(archive / "p3-third", 3, SeriesInstanceUID="1.2.3.3.3")
    shutil.rmtree(archive / "p3")
    wishes = workflow.wishes(modalities=["CT"])
    rows = [{"patient": f"0000{number}", "label": (OS, GCT)[number % 2]} for number in range(4)]
    made(archive, write_labels(tmp_path / "labels.csv", rows), tmp_path / "cohort", wishes=wishes)
    key = Key.open(tmp_path / "cohort.key.json")
    left = [(image.image.split("/")[1], image.reason) for image in read_cohort(tmp_path / "cohort").left_out]
    reasons = dict(left)
    assert len(left) == len(reasons) == 3
    assert reasons[key.patient("00009")] == "no row of the label table joins the patient"
    assert reasons[key.patient("00003")] == "MR is not asked for (2 series)"
    assert "show the place of another" in reasons[key.patient("00000")]
