"""Which of a patient's files outline the lesion in a scan, how they are joined, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom, write_series
from drawn_regions import write_segmentation, write_structure_set
from numpy.testing import assert_array_equal
from pydicom.sr.codedict import codes

from osteoscope.cohort.regions import Region, region_file, region_of
from osteoscope.errors import InputError
from osteoscope.imaging.masks import read_mask, write_mask
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.sr.coding import Code

    from osteoscope.imaging.volume import Volume

SHAPE = (5, 30, 40)
FRAME, SERIES = "1.2.840.1", "1.2.840.2"
MARKED = np.zeros(SHAPE, bool)
MARKED[1, 5:9, 11:30] = MARKED[3, 7:20, 30:40] = True
FURTHER = np.zeros(SHAPE, bool)
FURTHER[2, 5:9, 11:30] = True


def scan(folder: Path, **changes: Any) -> list[pydicom.Dataset]:
    values = np.random.default_rng(0).integers(0, 400, SHAPE, dtype=np.uint16)
    nothing = dict.fromkeys(("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "PatientSex"), "")
    uids = {"FrameOfReferenceUID": FRAME, "SeriesInstanceUID": SERIES, "ReferringPhysicianName": "", **nothing}
    return [pydicom.dcmread(path) for path in write_series(folder, values, **{**uids, **changes})]


@pytest.fixture
def slices(tmp_path: Path) -> list[pydicom.Dataset]:
    return scan(tmp_path / "ct")


@pytest.fixture
def volume(tmp_path: Path, slices: list[pydicom.Dataset]) -> Volume:
    assert slices
    return open_image(tmp_path / "ct").volume


def contours(*planes: int) -> list[NDArray[np.float64]]:
    """Squares of 10 by 10 voxels of 1 mm, at columns and rows 5 to 14; planes lie 3 mm apart."""
    corners = [(4.5, 4.5), (14.5, 4.5), (14.5, 14.5), (4.5, 14.5)]
    return [np.array([(x, y, 3.0 * plane) for x, y in corners]) for plane in planes]


def structure_set(path: Path, *names: str, frame: str = FRAME, series: str = SERIES) -> Path:
    regions = [{"name": name, "contours": contours(1, 4)} for name in names or ("GTV",)]
    return write_structure_set(path, regions, frame=frame, series=series)


def nifti(path: Path, volume: Volume, marked: NDArray[np.bool_] = MARKED, moved: float = 0) -> Path:
    assert volume.geometry.affine is not None
    shift = np.eye(4)
    shift[0, 3] = moved
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine @ shift
    nib.save(nib.Nifti1Image(marked.astype(np.uint8).T, affine), path)
    return path


def found(volume: Volume, *paths: Path, **arguments: Any) -> Region:
    return region_of(volume, [region_file(path) for path in paths], **arguments)


def reasons(region: Region) -> dict[str, str]:
    return {one.path.name: one.reason for one in region.unused}


def test_what_names_the_series_goes_before_what_names_its_frame_of_reference_or_nothing(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    own = write_segmentation(tmp_path / "own.dcm", slices, MARKED)
    same_frame = structure_set(tmp_path / "frame.dcm", series="1.2.840.9")
    plain = nifti(tmp_path / "plain.nii.gz", volume, FURTHER)
    region = found(volume, plain, same_frame, own)
    assert region.used == (own,)
    assert region.marked is not None
    assert_array_equal(region.marked, MARKED)
    better = "another file names this very scan"
    assert reasons(region) == {"plain.nii.gz": better, "frame.dcm": better}
    assert found(volume, plain, same_frame).used == (same_frame,)
    assert found(volume, plain).used == (plain,)


def test_files_of_one_rank_are_joined_and_that_is_told(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    one = write_segmentation(tmp_path / "one.dcm", slices, MARKED, names=["Tumour 1"])
    other = write_segmentation(tmp_path / "other.dcm", slices, FURTHER, names=["Tumour 2"])
    region = found(volume, one, other)
    assert region.marked is not None
    assert_array_equal(region.marked, MARKED | FURTHER)
    assert region.told == ("its lesion is outlined by 2 files, which are joined",)
    assert region.unused == ()


def test_beside_a_file_whose_region_speaks_of_a_lesion_those_of_other_regions_are_left(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    liver = write_segmentation(tmp_path / "liver.dcm", slices, FURTHER, names=["Liver"])
    tumour = write_segmentation(tmp_path / "tumour.dcm", slices, MARKED, names=["Tumour"])
    region = found(volume, liver, tumour)
    assert region.used == (tumour,)
    assert region.marked is not None
    assert_array_equal(region.marked, MARKED)
    assert reasons(region) == {"liver.dcm": "its one region does not speak of a lesion, and another file outlines one"}
    assert found(volume, liver, tumour, names=["liver"]).used == (liver,)


def test_of_files_for_every_organ_none_is_taken_for_the_lesions(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    liver = write_segmentation(tmp_path / "liver.dcm", slices, FURTHER, names=["Liver"])
    spleen = write_segmentation(tmp_path / "spleen.dcm", slices, MARKED, names=["Spleen"])
    region = found(volume, liver, spleen)
    assert (region.marked, region.used) == (None, ())
    said = "it is one of several files of one region each, none of which speaks of a lesion"
    assert reasons(region) == {"liver.dcm": said, "spleen.dcm": said}
    assert found(volume, liver).used == (liver,)


@pytest.mark.parametrize("category", [codes.SCT.Organ, codes.SCT.AnatomicalStructure], ids=["organ", "anatomical"])
def test_the_only_segment_is_not_taken_where_its_code_says_that_it_is_a_part_of_the_body(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset], category: Code
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MARKED, names=["Segment_1"])
    data_set = pydicom.dcmread(path)
    data_set.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeValue = category.value
    data_set.save_as(path)
    region = found(volume, path)
    assert region.marked is None
    assert "none whose name speaks of a lesion: 'Segment_1'" in reasons(region)["seg.dcm"]
    assert found(volume, path, names=["segment_1"]).used == (path,)


def test_planes_without_an_outline_between_others_are_told(tmp_path: Path, volume: Volume) -> None:
    region = found(volume, structure_set(tmp_path / "rs.dcm"))
    assert region.marked is not None
    assert region.marked.sum(axis=(1, 2)).tolist() == [0, 100, 0, 0, 100]
    assert region.told == ("between the outermost planes that show its outline, 2 have none",)


def test_an_outline_of_another_series_of_the_frame_is_told(tmp_path: Path, volume: Volume) -> None:
    region = found(volume, structure_set(tmp_path / "rs.dcm", series="1.2.840.9"))
    assert "its lesion was outlined in another series of the same frame of reference" in region.told


def test_a_region_is_written_and_read_back(tmp_path: Path, volume: Volume) -> None:
    region = found(volume, structure_set(tmp_path / "rs.dcm"))
    assert region.marked is not None
    write_mask(tmp_path / "masks" / "m.nii.gz", region.marked, volume)
    assert_array_equal(read_mask(tmp_path / "masks" / "m.nii.gz", volume), region.marked)
    assert (tmp_path / "masks" / "m.nii.gz").stat().st_size < 1000


def test_of_several_segments_the_lesions_is_taken(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    both = np.stack([FURTHER, MARKED], axis=-1)
    path = write_segmentation(tmp_path / "seg.dcm", slices, both, names=["Vertebra L1", "Tumor"])
    region = found(volume, path)
    assert region.marked is not None
    assert_array_equal(region.marked, MARKED)
    region = found(volume, path, names=["vertebra L1"])
    assert region.marked is not None
    assert_array_equal(region.marked, FURTHER)


def test_all_regions_of_a_name_that_is_given_count(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    both = np.stack([FURTHER, MARKED], axis=-1)
    path = write_segmentation(tmp_path / "seg.dcm", slices, both, names=["Lesion", "lesion"])
    region = found(volume, path, names=["Lesion"])
    assert region.marked is not None
    assert_array_equal(region.marked, FURTHER | MARKED)


def test_of_two_regions_of_one_name_the_one_whose_code_speaks_of_a_lesion_is_taken(
    tmp_path: Path, volume: Volume
) -> None:
    regions = [
        {"name": "ROI", "contours": contours(1), "kind": "GTV"},
        {"name": "ROI", "contours": contours(2, 3, 4), "kind": "ORGAN"},
    ]
    path = write_structure_set(tmp_path / "rs.dcm", regions, frame=FRAME, series=SERIES)
    marked = found(volume, path).marked
    assert marked is not None
    assert np.flatnonzero(marked.any(axis=(1, 2))).tolist() == [1]


def test_segments_and_regions_that_cannot_be_told_are_said(
    tmp_path: Path, volume: Volume, slices: list[pydicom.Dataset]
) -> None:
    both = np.stack([FURTHER, MARKED], axis=-1)
    vertebrae = write_segmentation(tmp_path / "seg.dcm", slices, both, names=["L1", "L2"])
    several = structure_set(tmp_path / "rs.dcm", "GTV 1", "GTV 2")
    region = found(volume, vertebrae, several)
    assert region.marked is None
    said = reasons(region)
    assert "none whose name speaks of a lesion: 'L1', 'L2'" in said["seg.dcm"]
    assert "several that may be the lesion: 'GTV 1', 'GTV 2'" in said["rs.dcm"]
    assert found(volume, several, names=["gtv 2"]).used == (several,)


def test_what_does_not_match_is_left_with_its_reason_and_nothing_raises(tmp_path: Path, volume: Volume) -> None:
    other = scan(tmp_path / "other", SeriesInstanceUID="1.2.840.9", FrameOfReferenceUID="1.2.840.8")
    shifted = scan(tmp_path / "shifted", SeriesInstanceUID="1.2.840.7", first=(0.5, 0, 0))
    damaged = structure_set(tmp_path / "damaged.dcm")
    looked_at = region_file(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-400])
    region = region_of(
        volume,
        [
            looked_at,
            region_file(write_segmentation(tmp_path / "other.dcm", other, MARKED)),
            region_file(write_segmentation(tmp_path / "shifted.dcm", shifted, MARKED)),
            region_file(structure_set(tmp_path / "frame.dcm", frame="1.2.840.8")),
            region_file(nifti(tmp_path / "beside.nii", volume, moved=0.5)),
            region_file(nifti(tmp_path / "small.nii", volume, MARKED[1:])),
            region_file(nifti(tmp_path / "empty.nii", volume, np.zeros(SHAPE, bool))),
        ],
    )
    assert (region.marked, region.used, len(region.unused)) == (None, (), 7)
    said = reasons(region)
    assert said["other.dcm"] == said["frame.dcm"] == "it was drawn in another frame of reference"
    assert "found another grid" in said["shifted.dcm"]
    assert "found another grid" in said["beside.nii"]
    assert "a mask of 5 x 30 x 40, found one of 4 x 30 x 40" in said["small.nii"]
    assert "found none marked" in said["empty.nii"]
    assert said["damaged.dcm"]


def test_a_segmentation_that_states_no_frame_of_reference_is_that_of_its_series_alone(
    tmp_path: Path, volume: Volume
) -> None:
    other = scan(tmp_path / "other", SeriesInstanceUID="1.2.840.9")
    path = write_segmentation(tmp_path / "seg.dcm", other, MARKED, FrameOfReferenceUID="")
    assert reasons(found(volume, path)) == {"seg.dcm": "it was drawn in another series"}


def test_what_is_no_outline_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct.dcm", np.ones((20, 20), np.uint16))
    with pytest.raises(InputError, match="segmentation or structure set, found another object"):
        region_file(path)
    with pytest.raises(InputError, match="there is no such file"):
        region_file(tmp_path / "none.nii")
