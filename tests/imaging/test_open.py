"""Any path becomes images or refusals."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from PIL import Image as Picture

from osteoscope.errors import MissingExtraError, StorageError
from osteoscope.imaging import open as opening
from osteoscope.imaging import picture
from osteoscope.imaging.open import images_at, not_used_because
from osteoscope.imaging.refusal import Refusal, RefusalCode
from osteoscope.imaging.values import Values, values_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
    assert Refusal.of(StorageError("disk full"), tmp_path).code is RefusalCode.UNREADABLE


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
