"""NIfTI folders as they lie about: BIDS and plain ones, with masks that fit and masks that do not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from osteoscope.cli.main import app
from osteoscope.cohort.from_nifti import read_nifti_folder
from osteoscope.cohort.from_table import DEFAULT_SOURCE
from osteoscope.cohort.nifti_folder import look_at_folder
from osteoscope.cohort.table import cases, pseudonyms, read_cohort, write_cohort
from osteoscope.errors import InputError, TableError
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from osteoscope.cohort.table import Cohort

OS, GCT = "osteosarcoma", "giant cell tumor"
SHAPE = (24, 20, 6)
RNG = np.random.default_rng(0)


def save(path: Path, values: Any = None, *, shift: float = 0.0) -> None:
    """Write a CT of noise in Hounsfield units, or what is given, on a grid of 1 x 1 x 4 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = RNG.integers(-900, 1200, SHAPE).astype(np.int16)
    affine = np.diag([1.0, 1, 4, 1])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(noise if values is None else values, affine), path)


def save_mask(path: Path, *, shift: float = 0.0, marked: int = 1) -> None:
    values = np.zeros(SHAPE, np.uint8)
    values[4:9, 5:12, 2:4] = marked
    save(path, values, shift=shift)


def table(path: Path, *lines: str, header: str = "patient,label,age,sex") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


def reasons(cohort: Cohort) -> dict[str, str]:
    return {one.image: one.reason for one in cohort.left_out}


def masks(cohort: Cohort) -> dict[str, str | None]:
    rows = cohort.frame.to_dict("records")
    return {row["image"]: row["mask"] if isinstance(row["mask"], str) else None for row in rows}


# BIDS


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    save(folder / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz")
    save(folder / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T2w.nii.gz")
    save(folder / "sub-01" / "ses-a" / "func" / "sub-01_ses-a_task-rest_bold.nii.gz")
    save(folder / "sub-02" / "ct" / "sub-02_ct.nii.gz")
    save_mask(
        folder / "derivatives" / "hand" / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w_label-lesion_mask.nii.gz"
    )
    # A pipeline's name may look like an entity.
    save_mask(folder / "derivatives" / "by-hand" / "sub-02" / "ct" / "sub-02_desc-tumour_mask.nii.gz")
    save_mask(folder / "derivatives" / "auto" / "sub-02" / "ct" / "sub-02_desc-brain_mask.nii.gz")
    save(folder / "derivatives" / "auto" / "sub-02" / "ct" / "sub-02_desc-smooth_ct.nii.gz")
    (folder / "dataset_description.json").write_text("{}")
    (folder / "participants.tsv").write_text(
        f"participant_id\tage\tsex\tgroup\nsub-01\t31\tF\t{OS}\nsub-02\tn/a\tM\t{GCT}\nsub-03\t9\tM\t{GCT}\n"
    )
    return folder


def test_bids_is_read_with_its_participants_and_the_masks_of_its_derivatives(bids: Path) -> None:
    cohort = read_nifti_folder(bids)
    names = pseudonyms(DEFAULT_SOURCE, ["01", "02"])
    second, first = sorted(cases(cohort), key=lambda case: len(case.images))
    assert (first.patient, first.age, first.sex) == (names["01"], 31, "F")
    assert (second.patient, second.age, second.sex) == (names["02"], None, "M")
    assert cohort.classes == (GCT, OS)
    assert [image.modality for image in first.images] == ["MR", "MR"]
    assert second.images[0].modality == "CT"
    assert masks(cohort) == {
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz": (
            "derivatives/hand/sub-01/ses-a/anat/sub-01_ses-a_T1w_label-lesion_mask.nii.gz"
        ),
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz": None,
        "sub-02/ct/sub-02_ct.nii.gz": "derivatives/by-hand/sub-02/ct/sub-02_desc-tumour_mask.nii.gz",
    }
    assert cohort.frame["study"].notna().tolist() == [True, True, False]
    hashes = cohort.frame.set_index("mask")["mask_sha256"].dropna()
    assert hashes.to_dict() == {mask: sha256_of_file(bids / mask) for mask in masks(cohort).values() if mask}


def test_what_is_not_used_of_bids_is_listed_with_its_reason(bids: Path) -> None:
    cohort = read_nifti_folder(bids)
    assert reasons(cohort) == {
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz": (
            "it lies in 'func', and images are taken from anat and ct"
        ),
        "derivatives/auto/sub-02/ct/sub-02_desc-brain_mask.nii.gz": (
            "it is a mask of 'brain', which speaks of no lesion"
        ),
        "derivatives/auto/sub-02/ct/sub-02_desc-smooth_ct.nii.gz": "it is derived, and no mask",
    }
    assert "The diagnosis is the column 'group' of participants.tsv." in cohort.notes
    assert "1 of 3 images have no mask of the lesion." in cohort.notes
    assert "Rows of participants.tsv without an image: 4." in cohort.notes


def test_a_file_of_a_subject_that_lies_in_no_folder_of_one_is_listed(bids: Path) -> None:
    stray = next(bids.rglob("sub-*_*.nii.gz"))
    shutil.copy(stray, bids / stray.name)
    left = {one.image: one.reason for one in read_nifti_folder(bids).left_out}
    assert "subject" in left[stray.name]


def test_files_whose_names_are_no_utf_8_are_listed_and_the_cohort_is_written(bids: Path, tmp_path: Path) -> None:
    image = next(bids.rglob("sub-02_ct.nii.gz"))
    odd = os.fsencode(image.parent) + b"/sub-02_M\xfcller_ct.nii.gz"
    shutil.copy(image, os.fsdecode(odd))
    cohort = read_nifti_folder(bids)
    assert reasons(cohort)["sub-02/ct/sub-02_M\\xfcller_ct.nii.gz"] == "its name is no UTF-8: rename it"
    write_cohort(cohort, tmp_path / "cohort")
    assert len(read_cohort(tmp_path / "cohort").frame) == 3


def test_a_row_about_the_session_goes_before_one_about_the_patient(bids: Path, tmp_path: Path) -> None:
    lines = (f"sub-01,{OS},30,", f"01,{OS},32,ses-a", f"01,{OS},35,b", f"02,{GCT},,")
    made = read_nifti_folder(bids, table(tmp_path / "labels.csv", *lines, header="patient,label,age,session"))
    by_image = dict(zip(made.frame["image"], made.frame["age"], strict=True))
    assert by_image["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"] == 32
    assert "Rows of labels.csv without an image: 2, 4." in made.notes


def test_participants_without_a_diagnosis_are_refused(bids: Path) -> None:
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-01\t31\n")
    with pytest.raises(TableError, match="the diagnosis in a column label, diagnosis or group, found none"):
        read_nifti_folder(bids)
    (bids / "participants.tsv").unlink()
    with pytest.raises(TableError, match=r"expected a table of diagnoses, found no participants\.tsv"):
        read_nifti_folder(bids)


# Plain


def test_a_file_a_patient_and_its_mask_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    for name in ("17", "17_2", "18", "19"):
        save(folder / f"{name}.nii.gz")
    for name in ("17_mask", "18_seg", "17_2_label", "20_mask", "mask"):
        save_mask(folder / f"{name}.nii.gz")
    labels = table(tmp_path / "labels.csv", f"17,{OS},,", f"17_2,{GCT},,", f"18,{GCT},44,m", f"19,{OS},,")
    cohort = read_nifti_folder(folder, labels)
    assert masks(cohort) == {
        "17.nii.gz": "17_mask.nii.gz",
        "17_2.nii.gz": "17_2_label.nii.gz",
        "18.nii.gz": "18_seg.nii.gz",
        "19.nii.gz": None,
    }
    names = pseudonyms(DEFAULT_SOURCE, ["17", "17_2", "18", "19"])
    assert {case.patient for case in cases(cohort)} == set(names.values())
    # On the grid of every one of them, and yet of none: whose it is cannot be told.
    assert reasons(cohort) == dict.fromkeys(
        ("20_mask.nii.gz", "mask.nii.gz"), "it is named after no image that is used"
    )


def test_a_folder_a_patient_and_its_mask_by_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    save(folder / "A-1" / "ct.nii.gz")
    save_mask(folder / "A-1" / "lesion_mask.nii")
    save(folder / "B 2" / "visit" / "ct.nii.gz")
    save(folder / "B 2" / "visit" / "T2w.nii.gz", shift=100)
    save_mask(folder / "B 2" / "visit" / "T2w_seg.nii.gz", shift=100)
    cohort = read_nifti_folder(folder, table(tmp_path / "labels.csv", f"A-1,{OS},,", f"B 2,{GCT},,"))
    assert masks(cohort) == {
        "A-1/ct.nii.gz": "A-1/lesion_mask.nii",
        "B 2/visit/T2w.nii.gz": "B 2/visit/T2w_seg.nii.gz",
        "B 2/visit/ct.nii.gz": None,
    }
    assert dict(zip(cohort.frame["image"], cohort.frame["modality"], strict=True)) == {
        "A-1/ct.nii.gz": "CT",
        "B 2/visit/T2w.nii.gz": "MR",
        "B 2/visit/ct.nii.gz": "CT",
    }


def test_a_site_that_is_numbered_as_patients_are_lends_nobody_its_number(tmp_path: Path) -> None:
    folder = tmp_path / "sites"
    for name in ("1/1", "1/17", "2/18"):
        save(folder / name / "ct.nii.gz", shift=int(name[-1]))
    labels = table(tmp_path / "labels.csv", *(f"{name},{OS},," for name in (1, 17)), *(f"{n},{GCT},," for n in (2, 18)))
    save(folder / "GCT" / "2" / "ct.nii.gz", shift=30)
    cohort = read_nifti_folder(folder, labels)
    assert sorted(cohort.frame["image"]) == ["1/1/ct.nii.gz", "GCT/2/ct.nii.gz"]
    assert set(reasons(cohort)) == {"1/17/ct.nii.gz", "2/18/ct.nii.gz"}


def test_a_name_may_begin_with_the_patient(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    save(folder / "P7_2019-03_ct.nii.gz")
    save(folder / "P8_ct.nii.gz")
    cohort = read_nifti_folder(folder, table(tmp_path / "labels.csv", f"P7,{OS},,", f"P8,{GCT},,"))
    assert len(cases(cohort)) == 2


def plain(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "plain"
    for name in ("1", "2"):
        save(folder / name / "ct.nii.gz")
        save_mask(folder / name / "mask.nii.gz")
    return folder, table(tmp_path / "labels.csv", f"1,{OS},,", f"2,{GCT},,")


def test_a_mask_that_does_not_fit_is_listed_and_its_image_stays(tmp_path: Path) -> None:
    folder, labels = plain(tmp_path)
    save_mask(folder / "1" / "mask.nii.gz", shift=0.5)
    save_mask(folder / "2" / "mask.nii.gz", marked=0)
    cohort = read_nifti_folder(folder, labels)
    assert masks(cohort) == {"1/ct.nii.gz": None, "2/ct.nii.gz": None}
    said = reasons(cohort)
    assert "found another grid" in said["1/mask.nii.gz"]
    assert "found none marked" in said["2/mask.nii.gz"]
    assert "2 of 2 images have no mask of the lesion." in cohort.notes


def test_of_several_masks_the_lesions_is_taken_and_otherwise_none(tmp_path: Path) -> None:
    folder, labels = plain(tmp_path)
    save_mask(folder / "1" / "tumour_mask.nii.gz")
    save_mask(folder / "2" / "seg.nii.gz")
    cohort = read_nifti_folder(folder, labels)
    assert masks(cohort) == {"1/ct.nii.gz": "1/tumour_mask.nii.gz", "2/ct.nii.gz": None}
    said = reasons(cohort)
    assert said["1/mask.nii.gz"] == "another mask of 1/ct.nii.gz says that it is of a lesion"
    several = "2 masks lie on 2/ct.nii.gz: join them, or remove those that are not meant"
    assert said["2/mask.nii.gz"] == said["2/seg.nii.gz"] == several


def test_images_that_cannot_be_read_and_files_of_other_kinds_are_listed(tmp_path: Path) -> None:
    folder, labels = plain(tmp_path)
    (folder / "1" / "cut.nii.gz").write_bytes((folder / "1" / "ct.nii.gz").read_bytes()[:-500])
    save(folder / "2" / "fourth.nii.gz", RNG.integers(0, 99, (*SHAPE, 3)).astype(np.int16))
    (folder / "2" / "empty.nii").write_bytes(b"")
    (folder / "2" / "scan.dcm").write_bytes(b"x" * 200)
    save(folder / "3" / "ct.nii.gz")
    cohort = read_nifti_folder(folder, labels)
    assert len(cohort.frame) == 2
    said = reasons(cohort)
    assert sorted(said) == ["1/cut.nii.gz", "2/empty.nii", "2/fourth.nii.gz", "2/scan.dcm", "3/ct.nii.gz"]
    assert said["2/scan.dcm"] == "it is no NIfTI file"
    assert said["3/ct.nii.gz"] == "no row of labels.csv is about it"
    assert "empty" in said["2/empty.nii"]


def test_a_folder_that_is_half_in_the_layout_of_bids_says_what_is_missing(tmp_path: Path) -> None:
    save(tmp_path / "images" / "sub-1" / "sub-1_T1w.nii.gz")
    labels = table(tmp_path / "labels.csv", f"1,{OS},,")
    with pytest.raises(InputError, match=r"found none: sub-1/sub-1_T1w\.nii\.gz is left, since it lies") as bad:
        read_nifti_folder(tmp_path / "images", labels)
    assert "anat and ct" in bad.value.message
    assert "sub-" in str(bad.value.remedy)


def test_a_place_that_names_two_patients_is_left_out(tmp_path: Path) -> None:
    folder, labels = plain(tmp_path)
    save(folder / "1" / "2.nii.gz")
    said = reasons(read_nifti_folder(folder, labels))
    assert said["1/2.nii.gz"] == "its place names several patients of the table"
    # It lies beside an image that may be of another patient.
    assert said["1/mask.nii.gz"] == "it is named after no image that is used"


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ((f"7,{OS},,", f"8,{GCT},,"), "about the patients of 2 images, found none, as of 1/ct"),
        ((f"1,{OS},,", f"1,{GCT},,"), "rows 2 and 3 are about the same patient and session"),
        ((f"1,{OS},,", f"sub-1,{OS},,"), "rows 2 and 3 are about the same patient and session"),
        ((f"1,{OS},old,", f"2,{GCT},,"), "row 2, column 'age'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, lines: tuple[str, ...], match: str) -> None:
    folder, labels = plain(tmp_path)
    with pytest.raises(TableError, match=match) as fault:
        read_nifti_folder(folder, table(labels, *lines))
    assert fault.value.remedy


def test_a_folder_that_cannot_be_looked_into_is_said_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "3").mkdir()
    looked_into = os.scandir

    def forbidden(path: str | Path) -> Any:
        if Path(path).name == "3":
            raise PermissionError(13, "Permission denied", str(path))
        return looked_into(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(InputError, match="could not be looked into: permission denied") as refused:
        look_at_folder(tmp_path)
    assert refused.value.path == tmp_path / "3"


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    labels = table(tmp_path / "labels.csv", f"1,{OS},,", f"2,{GCT},,")
    with pytest.raises(InputError, match=r"expected images as \.nii or \.nii\.gz, found none"):
        read_nifti_folder(tmp_path, labels)
    with pytest.raises(InputError, match="expected a folder of NIfTI files"):
        read_nifti_folder(tmp_path / "none", labels)
    save_mask(tmp_path / "only" / "1_mask.nii.gz")
    with pytest.raises(InputError, match="found masks alone"):
        read_nifti_folder(tmp_path / "only", labels)


def test_the_command_makes_the_cohort_and_lists_what_was_not_used(tmp_path: Path) -> None:
    folder, labels = plain(tmp_path)
    save_mask(folder / "1" / "mask.nii.gz", shift=0.5)
    output = tmp_path / "cohort"
    done = CliRunner().invoke(
        app, ["cohort", "from-nifti", str(folder), "--labels", str(labels), "-o", str(output), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["left_out"] == 1
    cohort = read_cohort(output)
    assert list(reasons(cohort)) == ["1/mask.nii.gz"]
    assert len(cases(cohort)) == 2
