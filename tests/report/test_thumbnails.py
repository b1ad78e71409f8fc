"""Pictures for a check: which planes are shown, that nothing is mirrored, and what is said where something is wrong."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_dicom, write_series
from PIL import Image
from scan_samples import PREPARATION, scan_case

from osteoscope.cohort.table import CaseImage
from osteoscope.imaging.nifti import write_nifti
from osteoscope.imaging.open import open_image
from osteoscope.imaging.picture import pixel_sha256
from osteoscope.imaging.prepare import Lesion
from osteoscope.imaging.values import values_of
from osteoscope.report.thumbnails import ShownImage, Thumbnail, planes_to_show, show_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.config import VolumeConfig

assert PREPARATION.volume is not None
CONFIG: VolumeConfig = PREPARATION.volume


def seen(picture: Thumbnail) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture.jpeg)))


def scan(folder: Path, *, mask: bool = True, phantom: bool = False) -> CaseImage:
    (image,) = scan_case(folder, mask=mask, phantom=phantom).images
    return image


# Which planes


def test_the_plane_with_most_of_the_lesion_comes_first_and_others_are_spread_away_from_it() -> None:
    areas = np.zeros(40, dtype=np.int64)
    areas[[8, 10, 12]] = 3, 9, 4
    # Of 0, 2 … 18 without 8, 10 and 12 the middles of three equal parts: the second, fourth and sixth of seven.
    assert planes_to_show(range(0, 20, 2), areas) == [10, 2, 6, 16]


def test_without_an_outline_planes_are_spread_evenly() -> None:
    assert planes_to_show(range(16), None) == [2, 6, 10, 14]
    assert planes_to_show([3, 5, 9], None) == [3, 5, 9]


def test_a_lesion_between_the_planes_that_are_read_is_shown_all_the_same() -> None:
    areas = np.zeros(40, dtype=np.int64)
    areas[7] = 5
    assert planes_to_show(range(0, 20, 2), areas)[0] == 7


def test_few_planes_are_all_shown() -> None:
    assert sorted(planes_to_show([0, 1, 2], np.array([0, 4, 5]))) == [0, 1, 2]


# CT and MR


def test_a_scan_is_shown_unmirrored_with_its_outline_and_facts(tmp_path: Path) -> None:
    shown = show_image(scan(tmp_path), CONFIG)
    assert shown.outlined
    assert (shown.fault, shown.remarks) == ("", ())
    assert shown.facts == (
        "Axial CT",
        "10 planes 3.0 mm apart, 10 of them read",
        "40 × 40 pixels of 2.00 mm",
        "shown in window −500 to 1300 HU",
    )
    first, *others = shown.pictures
    # The lesion has 8 x 6 pixels of 2 x 2 mm.
    assert (first.note, first.caption) == ("largest outline, 1.9 cm²", "Plane 5, z = 12.0 mm")
    assert first.alt == "axial CT at z = 12.0 mm, lesion outlined"
    # Of planes 1 to 3 and 7 to 10 the second, fourth and sixth, from the head down.
    assert [other.caption.split(",")[0] for other in others] == ["Plane 9", "Plane 7", "Plane 2"]
    assert not any(other.note for other in others)
    values = seen(first)
    assert first.size == (420, 420) == values.shape[::-1]
    zoom = 420 / 40
    lesion = values[round(18 * zoom) : round(22 * zoom), round(10 * zoom) : round(12 * zoom)]
    mirrored = values[round(18 * zoom) : round(22 * zoom), round(28 * zoom) : round(30 * zoom)]
    np.testing.assert_allclose(lesion, 255 * 1400 / 1800, atol=4)
    np.testing.assert_allclose(mirrored, 255 * 540 / 1800, atol=4)
    # The outline runs along the edge at column 8: its dark rim lies beyond it.
    assert values[round(20 * zoom), round(8 * zoom) - 4 : round(8 * zoom) + 4].min() < 70


def test_a_single_slice_has_no_distance(tmp_path: Path) -> None:
    whole = scan(tmp_path, mask=False)
    write_series(tmp_path / "one", np.full((1, 40, 40), 1000, dtype=np.uint16), "CT", spacing=(2, 2))
    volume = open_image(tmp_path / "one").volume
    sha256 = values_of(volume).sha256
    shown = show_image(dataclasses.replace(whole, path=tmp_path / "one", pixel_sha256=sha256), CONFIG)
    assert shown.facts[:2] == ("Axial CT", "1 plane")
    assert len(shown.pictures) == 1


def test_letters_and_scale_are_on_the_picture(tmp_path: Path) -> None:
    values = seen(show_image(scan(tmp_path), CONFIG).pictures[0])
    # R at the left edge, where the body of 40 HU is grey, and a bar of 2 cm: 105 pixels of 80 mm / 420.
    assert values[200:220, 8:24].max() > 240
    bar = values[410:414].max(axis=0) > 180
    assert bar[10:110].all()
    assert not bar[120:200].any()


def test_a_scan_without_a_mask_has_pictures_of_one_size(tmp_path: Path) -> None:
    shown = show_image(scan(tmp_path, mask=False), CONFIG)
    assert not shown.outlined
    assert {picture.size for picture in shown.pictures} == {(220, 220)}
    assert not any(picture.note for picture in shown.pictures)


def test_a_phantom_is_marked_on_its_pictures(tmp_path: Path) -> None:
    plain = show_image(scan(tmp_path / "a"), CONFIG).pictures[0]
    marked = show_image(scan(tmp_path / "b", phantom=True), CONFIG).pictures[0]
    assert seen(marked)[8:24, 8:100].max() > 240 > seen(plain)[8:24, 8:100].max()


def test_an_mr_is_shown_by_its_own_values(tmp_path: Path) -> None:
    (image,) = scan_case(tmp_path, modality="MR").images
    shown = show_image(image, CONFIG)
    assert shown.facts[0] == "Axial MR"
    assert shown.facts[3].startswith("shown in window ")
    assert "HU" not in shown.facts[3]


def test_a_lesion_beyond_what_is_read_is_said(tmp_path: Path) -> None:
    narrow = CONFIG.model_copy(update={"size": 32, "spacing": 1.0, "planes": 1})
    remarks = show_image(scan(tmp_path), narrow).remarks
    # 32 mm of 80, round the middle: the lesion's 6 columns end at 14, where what is read begins at 12.
    assert any("% of the outlined lesion lies beyond what is read.".replace("%", " %") in one for one in remarks)


def test_a_lesion_in_no_plane_that_is_read_is_said(tmp_path: Path) -> None:
    image = scan(tmp_path)
    volume = open_image(image.path).volume
    marked = np.zeros(volume.geometry.shape, np.float32)
    marked[4, 20:24, 20:24] = 1
    assert image.mask is not None
    assert volume.geometry.affine is not None
    write_nifti(image.mask, marked, volume.geometry.affine)
    shown = show_image(image, CONFIG.model_copy(update={"planes": 2}))
    assert "None of the planes that are read shows the outlined lesion." in shown.remarks
    assert shown.pictures[0].caption.startswith("Plane 5,")


# What is wrong


def test_what_cannot_be_read_is_said_and_does_not_raise(tmp_path: Path) -> None:
    image = scan(tmp_path)
    changed = dataclasses.replace(image, pixel_sha256="0" * 64)
    assert show_image(changed, CONFIG) == ShownImage(
        name="ct", fault="shows other values than when the cohort was made"
    )
    gone = dataclasses.replace(image, path=tmp_path / "none")
    assert "no such file" in show_image(gone, CONFIG).fault
    assert image.mask is not None
    image.mask.write_bytes(b"")
    shown = show_image(image, CONFIG)
    assert len(shown.pictures) == 4
    assert not shown.outlined
    assert "The outline cannot be shown: the file is empty (0 bytes)." in shown.remarks


# Radiographs


def radiograph(path: Path, values: NDArray[np.uint8]) -> CaseImage:
    Image.fromarray(values).save(path)
    rows, columns = values.shape
    return CaseImage(
        image=path.name,
        path=path,
        pixel_sha256=pixel_sha256(open_image(path).volume.read()),
        rows=rows,
        columns=columns,
        modality="radiograph",
        lesions=(Lesion(box=(20, 30, 60, 50)),),
        view="lateral",
    )


def test_a_radiograph_is_shown_whole_with_its_box(tmp_path: Path) -> None:
    values = np.full((200, 100), 90, np.uint8)
    values[:, :10] = 200
    shown = show_image(radiograph(tmp_path / "a.png", values), CONFIG)
    assert shown.facts == ("Radiograph, lateral", "100 × 200 pixels", "no scale stated")
    (picture,) = shown.pictures
    assert picture.size == (210, 420)
    assert picture.alt == "Radiograph, lateral, lesion outlined"
    pixels = seen(picture)
    np.testing.assert_allclose(pixels[300, 5:15], 200, atol=4)
    np.testing.assert_allclose(pixels[300, 100:], 90, atol=4)
    # The box from column 20 to 60 and row 30 to 50, of pixels of 2.1: light on dark at its edge.
    assert pixels[84, 36:50].max() > 110
    assert pixels[84, 36:50].min() < 60
    np.testing.assert_allclose(pixels[84, 60:110], 90, atol=6)


def test_a_radiograph_in_dicom_has_a_scale(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4000, (80, 120), dtype=np.uint16)
    path = write_dicom(tmp_path / "film", stored, "DX", ImagerPixelSpacing=[0.5, 0.5])
    image = CaseImage(
        image="film",
        path=path,
        pixel_sha256=pixel_sha256(open_image(path).volume.read()),
        rows=80,
        columns=120,
        modality="radiograph",
    )
    shown = show_image(image, CONFIG)
    assert shown.facts == ("Radiograph", "120 × 80 pixels", "0.50 mm a pixel at the detector")
    # 60 mm are 420 pixels wide: 2 cm are 140.
    bar = seen(shown.pictures[0])[270:274].max(axis=0) > 200
    assert bar[12:144].all()


@pytest.mark.parametrize("side", [40, 700])
def test_a_picture_stays_small(tmp_path: Path, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (side, side), dtype=np.uint8)
    (picture,) = show_image(radiograph(tmp_path / "a.png", noise), CONFIG).pictures
    # Of noise, the worst that there is.
    assert len(picture.jpeg) < 100_000
