"""Masks made by highdicom, nibabel and SimpleITK lie where they were drawn, and are refused on any other volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import AXIAL, CORONAL, SAGITTAL, write_dicom, write_series
from drawn_regions import write_segmentation as write_drawn
from numpy.testing import assert_array_equal
from PIL import Image as Picture

from osteoscope.errors import InputError
from osteoscope.imaging.masks import read_mask, write_mask
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume

RNG = np.random.default_rng(0)
SHAPE = (6, 35, 47)
SCAN = RNG.integers(0, 400, SHAPE, dtype=np.uint16)
MARKED = np.zeros(SHAPE, bool)
MARKED[2, 5:9, 11:30] = MARKED[3, 7:20, 40:47] = MARKED[3, 0, 0] = True
SPACING = (0.7, 0.9)
FRAME, SERIES, STUDY = "1.2.840.1", "1.2.840.2", "1.2.840.3"


def write_scan(folder: Path, **changes: Any) -> list[pydicom.Dataset]:
    """Write a series, and give its slices from the first position on."""
    elements = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME,
        "spacing": SPACING,
        "first": (-20, -31, 112),
        **dict.fromkeys(("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"), ""),
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "ReferringPhysicianName"), ""),
        **changes,
    }
    return [pydicom.dcmread(path) for path in write_series(folder, SCAN, **elements)]


def write_segmentation(
    path: Path, slices: Sequence[pydicom.Dataset], marked: NDArray[Any] = MARKED, kind: str = "BINARY", **changes: Any
) -> Path:
    return write_drawn(path, slices, marked, kind, **changes)


@pytest.fixture
def slices(tmp_path: Path) -> list[pydicom.Dataset]:
    return write_scan(tmp_path / "ct")


@pytest.fixture
def volume(tmp_path: Path, slices: list[pydicom.Dataset]) -> Volume:
    assert slices
    return open_image(tmp_path / "ct").volume


def refused(path: Path, volume: Volume, match: str) -> None:
    with pytest.raises(InputError, match=match) as fault:
        read_mask(path, volume)
    assert fault.value.path == path
    assert fault.value.remedy


# Segmentations


@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, CORONAL, (0, 1, 0, -1, 0, 0), (0, -1, 0, 0, 0, -1)])
def test_a_segmentation_lies_where_it_was_drawn_however_its_series_is_turned(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    slices = write_scan(tmp_path / "ct", orientation=cosines)
    volume = open_image(tmp_path / "ct").volume
    found = read_mask(write_segmentation(tmp_path / "seg.dcm", slices), volume)
    assert found.dtype == bool
    assert found.sum() == MARKED.sum()
    # Values of the scan, all different nearly everywhere, tell the voxels again.
    assert_array_equal(np.sort(volume.read()[found]), np.sort(SCAN[MARKED]))
    places = np.argwhere(found)[:, ::-1]
    column, row, plane = np.argwhere(MARKED)[:, ::-1].T[:, :, None]
    rows_to, columns_to = np.array(cosines[:3]) * SPACING[1], np.array(cosines[3:]) * SPACING[0]
    normal = 3 * np.cross(cosines[:3], cosines[3:])
    drawn = np.array((-20, -31, 112)) + column * rows_to + row * columns_to + plane * normal
    assert volume.geometry.affine is not None
    lps = places @ volume.geometry.affine[:3, :3].T + volume.geometry.affine[:3, 3]
    assert_array_equal(np.unique(np.round(lps, 3), axis=0), np.unique(np.round(drawn, 3), axis=0))


def test_all_segments_count_where_they_overlap_too(
    tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume
) -> None:
    other = np.zeros(SHAPE, bool)
    other[2, 8:12, 20:40] = True
    both = np.stack([MARKED, other], axis=-1)
    path = write_segmentation(tmp_path / "seg.dcm", slices, both)
    assert_array_equal(read_mask(path, volume), MARKED | other)


def test_of_a_fractional_segmentation_the_larger_half_is_marked(
    tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume
) -> None:
    shares = np.where(MARKED, 0.75, 0.25)
    path = write_segmentation(tmp_path / "seg.dcm", slices, shares, "FRACTIONAL", fractional_type="PROBABILITY")
    assert_array_equal(read_mask(path, volume), MARKED)


def test_a_label_map_is_marked_by_all_its_labels(tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MARKED.astype(np.uint8), "LABELMAP")
    assert_array_equal(read_mask(path, volume), MARKED)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"FrameOfReferenceUID": "1.2.840.9"}, "frame of reference, found one in another"),
        ({"SeriesInstanceUID": "1.2.840.9", "first": (-20, -31, 113)}, "found another grid"),
        ({"first": (-20, -31, 113)}, "on the volume's voxels, to within 0.1 of one, found another grid"),
        ({"first": (-20, -30.8, 112)}, "found another grid"),
        ({"spacing": (0.7, 0.91)}, "found another grid"),
        ({"first": (-20, -31, 124)}, "found one that reaches beyond it"),
        ({"orientation": SAGITTAL}, "found another grid"),
    ],
)
def test_a_segmentation_of_another_scan_is_refused(
    tmp_path: Path, volume: Volume, other: dict[str, Any], match: str
) -> None:
    slices = write_scan(tmp_path / "other", **other)
    refused(write_segmentation(tmp_path / "seg.dcm", slices), volume, match)


def test_a_segmentation_of_another_series_counts_if_it_lies_on_the_same_voxels_of_the_same_frame_of_reference(
    tmp_path: Path, volume: Volume
) -> None:
    slices = write_scan(tmp_path / "other", SeriesInstanceUID="1.2.840.9")
    assert_array_equal(read_mask(write_segmentation(tmp_path / "seg.dcm", slices), volume), MARKED)


def test_a_segmentation_of_another_series_is_refused_where_no_frame_of_reference_is_stated(
    tmp_path: Path, volume: Volume
) -> None:
    slices = write_scan(tmp_path / "other", SeriesInstanceUID="1.2.840.9")
    path = write_segmentation(tmp_path / "seg.dcm", slices, FrameOfReferenceUID="")
    refused(path, volume, "of the volume's series, found one of another")


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_can_be_chosen_by_name(
    tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume, kind: str
) -> None:
    other = np.zeros(SHAPE, bool)
    other[2, 8:12, 31:40] = other[5, 0, 0] = True
    both = np.stack([MARKED, other], axis=-1)
    path = write_segmentation(tmp_path / "seg.dcm", slices, both, kind)
    assert_array_equal(read_mask(path, volume, names=["1"]), other)
    assert_array_equal(read_mask(path, volume, names=["0", "1"]), MARKED | other)
    with pytest.raises(InputError, match="a region of the name 'gtv', found '0', '1'"):
        read_mask(path, volume, names=["GTV"])


def test_a_mask_that_is_written_is_read_back_and_small(tmp_path: Path, volume: Volume) -> None:
    write_mask(tmp_path / "m.nii.gz", MARKED, volume)
    assert_array_equal(read_mask(tmp_path / "m.nii.gz", volume), MARKED)
    there = nib.nifti1.Nifti1Image.from_filename(tmp_path / "m.nii.gz")
    assert there.get_data_dtype() == np.uint8
    assert np.asarray(there.dataobj).sum() == MARKED.sum()
    before = (tmp_path / "m.nii.gz").read_bytes()
    write_mask(tmp_path / "m.nii.gz", MARKED, volume)
    assert (tmp_path / "m.nii.gz").read_bytes() == before
    with pytest.raises(ValueError, match=r"expected a mask of \(6, 35, 47\)"):
        write_mask(tmp_path / "m.nii.gz", MARKED[1:], volume)


def test_a_small_rounding_of_positions_is_let_pass(tmp_path: Path, volume: Volume) -> None:
    slices = write_scan(tmp_path / "other", first=(-20.03, -31, 112.1))
    assert_array_equal(read_mask(write_segmentation(tmp_path / "seg.dcm", slices), volume), MARKED)


def test_a_segmentation_that_marks_nothing_is_refused(
    tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, np.zeros(SHAPE, bool))
    refused(path, volume, "marks something, found none marked")


def test_an_image_is_no_segmentation(tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume) -> None:
    assert slices
    refused(next((tmp_path / "ct").iterdir()), volume, "segmentation or structure set, found an object of modality CT")


def test_a_cut_segmentation_is_refused(tmp_path: Path, slices: list[pydicom.Dataset], volume: Volume) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, volume, "bytes of pixels")


# Arrays


def write_nifti_mask(path: Path, volume: Volume, marked: NDArray[Any], change: NDArray[Any] | None = None) -> Path:
    assert volume.geometry.affine is not None
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine @ (np.eye(4) if change is None else change)
    nib.save(nib.Nifti1Image(marked.astype(np.uint8).T, affine), path)
    return path


def test_a_nifti_mask_of_the_same_grid_is_read(tmp_path: Path, volume: Volume) -> None:
    assert_array_equal(read_mask(write_nifti_mask(tmp_path / "m.nii.gz", volume, MARKED), volume), MARKED)


@pytest.mark.parametrize("codes_of_axes", ["RAS", "LPS", "PIR", "SLA"])
def test_axes_may_be_stored_in_any_order(tmp_path: Path, volume: Volume, codes_of_axes: str) -> None:
    image = nib.nifti1.Nifti1Image.from_filename(write_nifti_mask(tmp_path / "m.nii", volume, MARKED))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes_of_axes))
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii")
    assert_array_equal(read_mask(tmp_path / "turned.nii", volume), MARKED)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_other_formats_are_read_by_what_simpleitk_writes(tmp_path: Path, volume: Volume, suffix: str) -> None:
    affine = volume.geometry.affine
    assert affine is not None
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(MARKED.astype(np.uint8))
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(steps.tolist())
    image.SetDirection((affine[:3, :3] / steps).ravel().tolist())
    SimpleITK.WriteImage(image, tmp_path / f"m.{suffix}", useCompression=True)
    assert_array_equal(read_mask(tmp_path / f"m.{suffix}", volume), MARKED)


def test_labels_and_probabilities_are_marks_from_a_half_on(tmp_path: Path, volume: Volume) -> None:
    values = np.select([MARKED], [RNG.choice([0.5, 1, 7], SHAPE)], RNG.choice([0, 0.4, np.nan, -1], SHAPE))
    assert volume.geometry.affine is not None
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine
    nib.save(nib.Nifti1Image(values.astype(np.float32).T, affine), tmp_path / "m.nii")
    assert_array_equal(read_mask(tmp_path / "m.nii", volume), MARKED)


def shifted(column: float = 0, row: float = 0, plane: float = 0) -> NDArray[np.float64]:
    moved = np.eye(4)
    moved[:3, 3] = column, row, plane
    return moved


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (shifted(0.4), "found another grid"),
        (shifted(plane=1), "reaches beyond it"),
        (np.diag([1, 1, 1.1, 1]), "found another grid"),
        (np.diag([2.0, 1, 1, 1]), "found another grid"),
    ],
)
def test_a_nifti_mask_of_another_place_is_refused(
    tmp_path: Path, volume: Volume, change: NDArray[np.float64], match: str
) -> None:
    refused(write_nifti_mask(tmp_path / "m.nii", volume, MARKED, change), volume, match)


def test_a_mask_of_another_size_is_refused(tmp_path: Path, volume: Volume) -> None:
    path = write_nifti_mask(tmp_path / "m.nii", volume, MARKED[:-1])
    refused(path, volume, "a mask of 6 x 35 x 47, found one of 5 x 35 x 47 voxels")


def test_a_mask_without_a_place_is_refused(tmp_path: Path, volume: Volume) -> None:
    image = nib.Nifti1Image(MARKED.astype(np.uint8).T, None)
    image.header.set_sform(np.eye(4), 0)
    nib.save(image, tmp_path / "m.nii")
    refused(tmp_path / "m.nii", volume, "states its place in the patient, found none")


def test_an_empty_mask_is_refused(tmp_path: Path, volume: Volume) -> None:
    refused(write_nifti_mask(tmp_path / "m.nii", volume, np.zeros(SHAPE)), volume, "found none marked")


# What is no mask


def test_a_file_that_is_missing_empty_or_of_another_kind_is_refused(tmp_path: Path, volume: Volume) -> None:
    refused(tmp_path / "none.nii", volume, "there is no such file")
    (tmp_path / "empty.nii").write_bytes(b"")
    refused(tmp_path / "empty.nii", volume, "empty")
    Picture.fromarray(SCAN[0].astype(np.uint8)).save(tmp_path / "mask.png")
    refused(tmp_path / "mask.png", volume, "NIfTI, MetaImage or NRRD, found a PNG")
    (tmp_path / "words.nii").write_text("no mask")
    refused(tmp_path / "words.nii", volume, "none of the formats")
    refused(tmp_path / "ct", volume, "expected the file of a mask, found a folder")


def test_a_volume_without_a_place_takes_no_mask(tmp_path: Path, volume: Volume) -> None:
    path = write_nifti_mask(tmp_path / "m.nii", volume, MARKED)
    nowhere = open_image(write_dicom(tmp_path / "one.dcm", SCAN[0])).volume
    refused(path, nowhere, "a volume whose place is known")
