"""CT and MR, and their masks, as images of a cohort; and the phantom's own table."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_dicom, write_series
from PIL import Image as Picture
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.cli.main import app
from osteoscope.cohort.from_table import read_table
from osteoscope.cohort.measure import Measured, measure_images
from osteoscope.cohort.table import cases, modalities_of, pseudonyms, read_cohort
from osteoscope.errors import ImageError, TableError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image
from osteoscope.imaging.picture import read_picture
from osteoscope.imaging.values import values_of
from osteoscope.storage import sha256_of_file, sha256_of_text

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.table import Cohort

RNG = np.random.default_rng(0)
SHAPE = (5, 36, 40)
OS, GCT = "osteosarcoma", "giant cell tumor"


def write_scan(folder: Path, **changes: Any) -> list[Path]:
    return write_series(folder, RNG.integers(0, 1500, SHAPE, dtype=np.uint16), series=folder.parent.name, **changes)


def write_mask(path: Path, scan: Path, marked: Any = 1, shift: float = 0.0) -> Path:
    """Mark a part of a scan in a NIfTI on its grid, shifted by so many voxels."""
    affine = open_image(scan).volume.geometry.affine
    assert affine is not None
    values = np.zeros(SHAPE, np.uint8)
    values[2, 4:9, 5:20] = marked
    moved = np.eye(4)
    moved[0, 3] = shift
    nib.save(nib.Nifti1Image(values.T, np.diag([-1.0, -1, 1, 1]) @ affine @ moved), path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two patients with a CT and its mask each, the second as NIfTI."""
    folder = tmp_path / "images"
    write_scan(folder / "a" / "ct")
    write_scan(folder / "b" / "ct")
    write_mask(folder / "a" / "mask.nii.gz", folder / "a" / "ct")
    write_mask(folder / "b" / "mask.nii.gz", folder / "b" / "ct")
    volume = open_image(folder / "b" / "ct").volume
    assert volume.geometry.affine is not None
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine
    nib.save(nib.Nifti1Image(volume.read().T, affine), folder / "b" / "scan_ct.nii")
    return folder


TABLE = f"""\
patient,image,mask,label,level
1,a/ct,a/mask.nii.gz,{OS},lumbar
2,b/scan_ct.nii,b/mask.nii.gz,{GCT},sacral
"""


def read(images: Path, text: str = TABLE) -> Cohort:
    table = images.parent / "table.csv"
    table.write_text(text)
    return read_table(table, images)


def test_a_folder_and_a_file_become_images_with_their_masks(images: Path) -> None:
    cohort = read(images)
    assert modalities_of(cohort) == ("CT",)
    first, second = cohort.frame.to_dict("records")
    assert (first["image"], first["mask"]) == ("a/ct", "a/mask.nii.gz")
    assert (first["rows"], first["columns"], first["phantom"], second["phantom"]) == (36, 40, False, False)
    hashes = sorted(sha256_of_file(path) for path in (images / "a" / "ct").iterdir())
    assert first["file_sha256"] == sha256_of_text("\n".join(hashes))
    assert second["file_sha256"] == sha256_of_file(images / "b" / "scan_ct.nii")
    assert first["pixel_sha256"] == values_of(open_image(images / "a" / "ct").volume).sha256
    assert second["pixel_sha256"] == values_of(open_image(images / "b" / "ct").volume).sha256
    found = {cohort.classes[case.label or 0]: case for case in cases(cohort)}
    assert (found[OS].level, found[GCT].level) == ("lumbar", "sacral")
    image = found[OS].images[0]
    assert image.mask is not None
    assert read_mask(image.mask, open_image(image.path).volume).sum() == 75


def test_a_scan_needs_no_mask(images: Path) -> None:
    assert read(images, TABLE.replace("a/mask.nii.gz", "")).frame["mask"].isna().tolist() == [True, False]


def test_another_mask_or_another_place_is_another_cohort(images: Path) -> None:
    """A run that goes on, and what a bundle remembers of its cohort, hang on the fingerprint."""
    before = read(images)
    assert read(images).fingerprint() == before.fingerprint()
    assert before.frame["mask_sha256"].tolist() == [sha256_of_file(images / name) for name in before.frame["mask"]]
    path = images / "b" / "scan_ct.nii"
    kept, volume = path.read_bytes(), open_image(images / "b" / "ct").volume
    assert volume.geometry.affine is not None
    half = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine @ np.diag([0.5, 0.5, 1, 1])
    nib.save(nib.Nifti1Image(volume.read().T, half), path)
    unmarked = TABLE.replace("b/mask.nii.gz", "")
    finer = read(images, unmarked)
    assert finer.frame["pixel_sha256"].tolist() == before.frame["pixel_sha256"].tolist()
    path.write_bytes(kept)
    assert read(images, unmarked).fingerprint() != finer.fingerprint()
    write_mask(images / "b" / "mask.nii.gz", images / "b" / "ct", marked=np.eye(5, 15, dtype=np.uint8))
    assert read(images).fingerprint() != before.fingerprint()


def test_a_place_is_hashed_to_the_thousandth_of_a_millimetre(images: Path) -> None:
    """As docs/outputs.md says: the affine in LPS, of its columns, rows and planes, as JSON."""
    known = read(images).frame.set_index("image")["geometry_sha256"]
    text = "[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]]"
    assert known["a/ct"] == known["b/scan_ct.nii"] == sha256_of_text(text)


def test_what_was_concluded_of_a_file_is_noted(images: Path) -> None:
    (images / "b" / "scan_ct.nii").rename(images / "b" / "scan.nii")
    notes = read(images, TABLE.replace("scan_ct", "scan")).notes
    assert any(note.startswith("Of 1 images: its modality is not stated; ") for note in notes)


# Bad input


def refused(images: Path, text: str, match: str) -> None:
    with pytest.raises(ImageError, match=match) as fault:
        read(images, text)
    assert fault.value.remedy


def test_a_folder_with_two_series_is_refused_by_row(images: Path) -> None:
    write_scan(images / "b" / "ct" / "more")
    refused(
        images,
        TABLE.replace("b/scan_ct.nii", "b/ct"),
        r"1 of 2 images that table\.csv names .*: row 3, b/ct: expected one image, found 2: CT of 5 x 36 x 40, CT of",
    )


def test_a_scan_that_imaging_refuses_is_refused_by_its_reason(images: Path) -> None:
    (images / "a" / "ct" / "cut").write_bytes(b"")
    refused(images, TABLE, r"row 2, a/ct: the file is empty \(0 bytes\)")
    (images / "a" / "ct" / "cut").unlink()
    paths = sorted((images / "a" / "ct").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    paths[2].unlink()
    refused(images, TABLE, "row 2, a/ct: .*missing|row 2, a/ct: expected slices")


def test_a_mask_that_is_missing_empty_or_of_another_scan_is_refused_by_row(images: Path) -> None:
    mask = images / "a" / "mask.nii.gz"
    mask.unlink()
    refused(images, TABLE, r"row 2, a/ct: its mask a/mask\.nii\.gz: there is no such file")
    write_mask(mask, images / "a" / "ct", marked=0)
    refused(images, TABLE, r"row 2, a/ct: its mask a/mask\.nii\.gz: .*found none marked")
    write_mask(mask, images / "a" / "ct", shift=0.5)
    refused(images, TABLE, r"row 2, a/ct: its mask a/mask\.nii\.gz: .*found another grid")
    refused(images, TABLE.replace("b/mask.nii.gz", "b/ct"), r"row 3, b/scan_ct.nii: its mask b/ct: .*found a folder")


@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_out_of_the_folder_is_refused_by_row(images: Path, column: str) -> None:
    wrong = {"image": ("a/ct,", "../elsewhere,"), "mask": ("a/mask.nii.gz", "/etc/mask.nii")}[column]
    with pytest.raises(TableError, match=rf"row 2, column '{column}': expected a path inside the image folder"):
        read(images, TABLE.replace(*wrong))


def test_a_link_out_of_the_folder_is_refused(images: Path, tmp_path: Path) -> None:
    shutil.move(images / "a" / "mask.nii.gz", tmp_path / "mask.nii.gz")
    (images / "a" / "mask.nii.gz").symlink_to(tmp_path / "mask.nii.gz")
    with pytest.raises(TableError, match="row 2, column 'mask': expected a path inside the image folder"):
        read(images)


def test_a_mark_of_the_wrong_kind_is_refused_by_row(images: Path) -> None:
    Picture.fromarray(RNG.integers(0, 255, (40, 40), dtype=np.uint8)).save(images / "a.png")
    with pytest.raises(
        TableError, match=r"row 2, column 'mask': expected a LabelMe file .*, since a picture is marked by box"
    ):
        read(images, TABLE.replace("a/ct", "a.png"))
    boxed = f"patient,image,box,label\n1,a/ct,1 2 9 9,{OS}\n2,b/ct,,{GCT}\n"
    with pytest.raises(TableError, match="row 2, column 'box': expected nothing, since a lesion in CT is marked by a"):
        read(images, boxed)


def test_what_a_network_could_not_read_is_no_image_of_a_cohort(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_dicom(tmp_path / "films" / "a", RNG.integers(0, 4000, (40, 40), dtype=np.uint16), "DX")
    write_series(tmp_path / "blank", np.full(SHAPE, 7, np.uint16))
    write_dicom(tmp_path / "nowhere", RNG.integers(0, 4000, (40, 40), dtype=np.uint16), "CT")
    write_dicom(tmp_path / "capture", RNG.integers(0, 4000, (40, 40), dtype=np.uint16), "SC")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 5:30, 5:30] = 2
    nib.save(nib.Nifti1Image(labels.T, np.diag([1.0, 1, 3, 1])), tmp_path / "labels.nii")
    said = {
        "films": "expected a CT or MR scan in the folder, found a radiograph",
        "blank": "every pixel has the same value",
        "nowhere": "its place in the patient is not stated",
        "capture": "a captured screen",
        "labels.nii": "numbers of regions rather than grey values",
        "none": "the picture is missing",
    }
    for image, found in measure_images(tmp_path, list(said)).items():
        assert isinstance(found, ImageError), image
        assert said[image] in found.message
        assert found.remedy


def test_a_radiograph_in_dicom_is_read_as_a_picture_of_the_same_grey(tmp_path: Path) -> None:
    stored = RNG.integers(0, 2**16, (40, 50), dtype=np.uint16)
    path = write_dicom(tmp_path / "film", stored, "DX")
    Picture.fromarray(stored).save(tmp_path / "film.png")
    film, picture = measure_images(tmp_path, ["film", "film.png"]).values()
    assert isinstance(film, Measured)
    assert isinstance(picture, Measured)
    assert (film.pixel_sha256, film.rows, film.columns) == (picture.pixel_sha256, 40, 50)
    assert (film.modality, film.phantom) == ("radiograph", False)
    assert read_picture(path).read().tobytes() == read_picture(tmp_path / "film.png").read().tobytes()


def test_a_ct_in_dicom_is_no_picture(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct", RNG.integers(0, 4000, (40, 40), dtype=np.uint16), position=(0, 0, 0))
    with pytest.raises(ImageError, match="expected a picture or a radiograph, found CT"):
        read_picture(path)


def test_pictures_and_scans_may_be_in_one_cohort_and_the_audit_decides(images: Path) -> None:
    Picture.fromarray(RNG.integers(0, 255, (40, 40), dtype=np.uint8)).save(images / "a.png")
    cohort = read(images, TABLE + f"3,a.png,,{OS},\n")
    assert sorted(cohort.frame["modality"]) == ["CT", "CT", "radiograph"]
    picture = measure_images(images, ["a.png"])["a.png"]
    assert isinstance(picture, Measured)
    assert picture.phantom is None


# The phantom


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "four"
    workflow.make_phantoms(folder, patients=4, seed=5, planes=4, pixels=32, processes=1)
    return folder


def test_the_table_of_the_phantom_makes_a_cohort_with_nothing_else_said(phantoms: Path, tmp_path: Path) -> None:
    table, folder = str(phantoms / "labels.csv"), str(phantoms / "images")
    done = CliRunner().invoke(
        app, ["cohort", "from-table", table, "--images", folder, "-o", str(tmp_path / "cohort"), "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert sum(one["patients"] for one in said["classes"].values()) == 4
    assert "4 of 4 images are phantoms: nobody is on them, and nothing clinical follows from them." in said["notes"]
    cohort = read_cohort(tmp_path / "cohort")
    assert modalities_of(cohort) == ("CT",)
    assert cohort.frame["phantom"].all()
    names = pseudonyms("local", [path.name for path in (phantoms / "images").iterdir()])
    assert {case.patient for case in cases(cohort)} == set(names.values())
    for case in cases(cohort):
        (image,) = case.images
        assert image.phantom is True
        assert case.level in ("cervical", "thoracic", "lumbar", "sacral")
        assert image.mask is not None
        assert image.mask.name == "segmentation.dcm"
        volume = open_image(image.path).volume
        assert read_mask(image.mask, volume).shape == volume.geometry.shape


def test_another_patients_segmentation_is_refused(phantoms: Path) -> None:
    names = sorted(path.name for path in (phantoms / "images").iterdir())
    found = measure_images(
        phantoms / "images", [f"{names[0]}/ct"], masks={f"{names[0]}/ct": f"{names[1]}/segmentation.dcm"}
    )
    (fault,) = found.values()
    assert isinstance(fault, ImageError)
    assert "frame of reference, found one in another" in fault.message
