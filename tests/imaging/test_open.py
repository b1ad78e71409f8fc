"""Any path becomes images or refusals."""

from __future__ import annotations

import gzip
import json
import zipfile
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from dicom_files import write_dicom, write_series
from PIL import Image as Picture

from osteoscope.errors import CohortError, ImageError, MissingExtraError
from osteoscope.imaging import open as opening
from osteoscope.imaging import picture
from osteoscope.imaging.discover import discover
from osteoscope.imaging.open import images_at, not_used_because, open_image
from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.imaging.stored_array import ArrayReader
from osteoscope.imaging.values import Values, values_of

if TYPE_CHECKING:
    from pathlib import Path

GREY = (np.add.outer(3 * np.arange(40), 2 * np.arange(48)) % 256).astype(np.uint8)
SCAN = np.random.default_rng(0).normal(300, 60, (40, 36, 12)).astype(np.float32)


def filled(folder: Path) -> Path:
    """A picture, a scan, a damaged picture, text and a zip of them all."""
    folder.mkdir()
    Picture.fromarray(GREY).save(folder / "a.png")
    nibabel.save(nibabel.Nifti1Image(SCAN, np.diag([0.5, 0.5, 3, 1])), folder / "b.nii.gz")
    (folder / "c.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (folder / "d.txt").write_text("beside\n")
    with zipfile.ZipFile(folder / "e.zip", "w") as opened:
        for name in ("a.png", "b.nii.gz", "c.jpg", "d.txt"):
            opened.write(folder / name, f"inside/{name}")
    return folder


def test_files_folders_and_zips_become_images_and_refusals(tmp_path: Path) -> None:
    folder = filled(tmp_path / "study")
    with images_at([folder]) as opened:
        assert [(image.format, image.files[0].name, image.volume.modality) for image in opened.images] == 2 * [
            ("PNG", "a.png", "radiograph"),
            ("NIfTI", "b.nii.gz", "MR"),
        ]
        hashes = [values_of(image.volume).sha256 for image in opened.images]
        assert hashes[:2] == hashes[2:]
        assert [(one.code, one.files[0].name) for one in opened.refused] == 2 * [(RefusalCode.DAMAGED, "c.jpg")]
        unpacked = opened.images[2].files[0]
        assert unpacked.is_file()
    assert not unpacked.exists()


def test_what_is_said_of_the_modality_is_for_files_that_do_not_state_theirs(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b_T2w.nii.gz", "c.nii.gz", "d.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(SCAN, np.diag([0.5, 0.5, 3, 1])), tmp_path / name)
    (tmp_path / "c.json").write_text('{"Modality": "MR"}')
    (tmp_path / "d.json").write_text('{"Modality": "PT"}')
    paths = [tmp_path / f"{name}.nii.gz" for name in ("a", "b_T2w", "c", "d")]
    with images_at(paths, modality="CT") as opened:
        assert [image.volume.modality for image in opened.images] == ["CT", "MR", "MR"]
        (refused,) = opened.refused
    assert (refused.code, refused.remedy) == (RefusalCode.OTHER_MODALITY, "leave it out")


def test_of_values_that_modalities_are_concluded_from_no_more_are_held_than_those_of_one(tmp_path: Path) -> None:
    for number in range(4):
        nibabel.save(nibabel.Nifti1Image(SCAN + number, np.diag([0.5, 0.5, 3, 1])), tmp_path / f"{number}.nii.gz")
    readers = [image.volume.reader for image in opening.open_images(discover([tmp_path])).images]
    held = [isinstance(reader, ArrayReader) and reader._spool is not None for reader in readers]
    assert (len(held), sum(held)) == (4, 1)


def test_a_zip_that_cannot_be_unpacked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with images_at([tmp_path]) as opened:
        assert opened.images == ()
        assert [(one.code, one.files) for one in opened.refused] == [(RefusalCode.DAMAGED, (tmp_path / "a.zip",))]


def test_an_exception_that_was_not_foreseen_refuses_its_file_alone_and_tells_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path / "study")

    def broken(_: Path) -> None:
        msg = "DOE^JOHN 1950-01-01"
        raise ArithmeticError(msg)

    monkeypatch.setattr(picture, "read_picture", broken)
    with images_at([folder / "a.png", folder / "b.nii.gz"]) as opened:
        assert [image.format for image in opened.images] == ["NIfTI"]
        (refusal,) = opened.refused
        assert (refusal.code, refusal.files) == (RefusalCode.UNKNOWN, (folder / "a.png",))
        assert "ArithmeticError" in refusal.sentence
        assert "DOE" not in refusal.sentence + (refusal.remedy or "")


def test_faults_without_a_code_get_one(tmp_path: Path) -> None:
    assert Refusal.of(MissingExtraError("SimpleITK", "study"), tmp_path).code is RefusalCode.MISSING_LIBRARY
    assert Refusal.of(CohortError("odd"), tmp_path).code is RefusalCode.UNREADABLE


GREYS = Values(sha256="", low=0, high=1, labels=False)
LABELS = Values(sha256="", low=0, high=1, labels=True)
BLANK = Values(sha256="", low=2, high=2, labels=True)


def test_what_can_be_read_and_is_not_used_says_why(tmp_path: Path) -> None:
    with images_at([filled(tmp_path / "study")]) as opened:
        radiograph, scan = opened.images[:2]
    assert not_used_because(scan, GREYS) is None
    assert not_used_because(scan, LABELS) is RefusalCode.LABELS
    assert not_used_because(radiograph, LABELS) is None
    assert not_used_because(radiograph, BLANK) is RefusalCode.BLANK
    aside = opening.Image(volume=scan.volume, format="DICOM", files=scan.files, aside=RefusalCode.LOCALISER)
    assert not_used_because(aside, GREYS) is RefusalCode.LOCALISER


# One image

SLICES = np.random.default_rng(1).integers(0, 400, (6, 40, 48), dtype=np.uint16)


def test_the_one_image_of_a_file_or_a_folder_is_opened(tmp_path: Path) -> None:
    folder = filled(tmp_path / "study")
    assert open_image(folder / "a.png").format == "PNG"
    assert open_image(folder / "b.nii.gz").volume.modality == "MR"
    assert open_image(folder / "b.nii.gz", modality="CT").volume.modality == "CT"
    write_series(tmp_path / "ct" / "deep", SLICES)
    assert open_image(tmp_path / "ct").volume.geometry.shape == (6, 40, 48)


def test_a_scout_and_what_is_no_image_lie_beside_one(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    write_series(folder, SLICES)
    write_dicom(
        folder / "scout", SLICES[0], position=(0, 0, 0), series="b", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    (folder / "notes.txt").write_text("beside")
    (folder / "leftover").write_bytes(bytes(range(256)))
    (folder / "empty").mkdir()
    (folder / "log.gz").write_bytes(gzip.compress(b"beside"))
    (folder / "table").write_text("BMI,age\n21,44\n")
    assert len(open_image(folder).files) == 6


def test_a_folder_of_two_series_is_no_image(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SLICES, series="a")
    write_series(tmp_path / "b", SLICES[:4], series="b")
    with pytest.raises(ImageError, match="expected one image, found 2: CT of 4 x 40 x 48, CT of 6 x 40 x 48") as fault:
        open_image(tmp_path)
    assert fault.value.path == tmp_path
    assert "one series" in (fault.value.remedy or "")


@pytest.mark.parametrize("place", [2, 5])
def test_a_damaged_file_may_be_a_slice_and_forbids_the_folder(tmp_path: Path, place: int) -> None:
    cut = write_series(tmp_path / "ct", SLICES)[place]
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(RefusedImageError) as fault:
        open_image(tmp_path / "ct")
    assert (fault.value.code, fault.value.path) == (RefusalCode.TRUNCATED_PIXELS, cut)


@pytest.mark.parametrize("missing", ["folder", "file", "image", "unzipped"])
def test_where_there_is_no_image_it_is_said(tmp_path: Path, missing: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "notes.txt").write_text("beside")
    with zipfile.ZipFile(tmp_path / "unzipped", "w") as opened:
        opened.writestr("a", "b")
    said = {
        "folder": "the folder is empty",
        "file": "there is no such file or folder",
        "image": "expected an image, found none",
        "unzipped": "expected an image, found a zip",
    }
    with pytest.raises(ImageError, match=said[missing]):
        open_image(tmp_path / missing)


def test_a_folder_of_scouts_alone_is_no_image_and_a_scout_that_is_named_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = write_dicom(tmp_path / "a" / "scout", SLICES[0], "SC")
    with pytest.raises(ImageError, match="only what is used when asked for: a captured screen"):
        open_image(tmp_path / "a")
    assert open_image(path).aside is RefusalCode.SECONDARY_CAPTURE


# Phantoms

MARK: dict[str, Any] = {"Manufacturer": "Osteoscope phantom"}


def test_a_phantom_is_known_by_its_header_whichever_format_holds_it(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SLICES, **MARK)
    write_series(tmp_path / "b", SLICES, Manufacturer=None, ManufacturerModelName="Osteoscope phantom CT A")
    write_series(tmp_path / "c", SLICES, Manufacturer="SIEMENS", ManufacturerModelName="Definition")
    write_series(tmp_path / "d", SLICES)
    assert [open_image(tmp_path / name).phantom for name in "abcd"] == [True, True, False, False]
    for name in ("marked", "unmarked", "alone"):
        nibabel.save(nibabel.Nifti1Image(SCAN, np.diag([0.5, 0.5, 3, 1])), tmp_path / f"{name}.nii")
    (tmp_path / "marked.json").write_text(json.dumps({"ManufacturersModelName": "Osteoscope_phantom", **MARK}))
    (tmp_path / "unmarked.json").write_text(json.dumps({"Manufacturer": "Siemens"}))
    found = {name: open_image(tmp_path / f"{name}.nii").phantom for name in ("marked", "unmarked", "alone")}
    assert found == {"marked": True, "unmarked": False, "alone": False}
    Picture.fromarray(GREY).save(tmp_path / "a.png")
    assert not open_image(tmp_path / "a.png").phantom


def test_slices_of_a_phantom_and_of_a_patient_are_never_one_image(tmp_path: Path) -> None:
    each = [MARK if place in (1, 3) else {"Manufacturer": "SIEMENS"} for place in range(6)]
    write_series(tmp_path, SLICES, each=each)
    with images_at([tmp_path]) as found:
        assert not any(image.volume.geometry.shape[0] == 6 for image in found.images)
        assert len({image.phantom for image in found.images}) == len(found.images)
