"""Structure sets made by hand: areas and centroids as on paper, holes, oblique planes, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_files import AXIAL, SAGITTAL, write_series
from drawn_regions import write_structure_set
from numpy.testing import assert_allclose, assert_array_equal

from osteoscope.errors import InputError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume

SHAPE = (6, 60, 80)
SPACING = (0.5, 0.8)
FIRST = (-20.0, -31.0, 112.0)
STEP = 3.0
FRAME, SERIES = "1.2.840.1", "1.2.840.2"
TURNED = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
"""A sagittal-like series that is turned about the long axis, as oblique ones of the spine are."""


def scan(folder: Path, orientation: Sequence[float] = AXIAL, **changes: Any) -> Volume:
    values = np.random.default_rng(0).integers(0, 400, SHAPE, dtype=np.uint16)
    uids = {"FrameOfReferenceUID": FRAME, "SeriesInstanceUID": SERIES, **changes}
    step = STEP * np.cross(orientation[:3], orientation[3:])
    write_series(folder, values, first=FIRST, step=step.tolist(), orientation=orientation, spacing=SPACING, **uids)
    return open_image(folder).volume


def placed(corners: Sequence[tuple[float, float]], plane: float, orientation: Sequence[float] = AXIAL) -> NDArray[Any]:
    """Carry corners ``(x, y)`` in mm from the centre of the first pixel of a plane to LPS mm, by PS3.3 C.7.6.2.1.1."""
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    origin = np.array(FIRST) + plane * STEP * np.cross(across, down)
    return np.array([origin + x * across + y * down for x, y in corners])


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def write(path: Path, *regions: dict[str, Any], frame: str = FRAME, series: str = SERIES) -> Path:
    return write_structure_set(path, regions, frame=frame, series=series)


def gtv(*contours: NDArray[Any], name: str = "GTV", **more: Any) -> dict[str, Any]:
    return {"name": name, "contours": contours, **more}


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return scan(tmp_path / "ct")


def area_and_centroid(mask: NDArray[np.bool_]) -> tuple[float, NDArray[Any]]:
    """In mm² and mm from the centre of the first pixel, of one plane."""
    rows, columns = np.nonzero(mask)
    return mask.sum() * SPACING[0] * SPACING[1], np.array([columns.mean() * SPACING[1], rows.mean() * SPACING[0]])


# What is marked


def test_a_rectangle_marks_the_voxels_whose_centres_it_holds(tmp_path: Path, volume: Volume) -> None:
    # Pixels lie at multiples of 0.8 and 0.5 mm: columns 3 to 10 and rows 5 to 18.
    found = read_mask(write(tmp_path / "rs.dcm", gtv(placed(rectangle(2.0, 2.2, 8.2, 9.1), 2))), volume)
    expected = np.zeros(SHAPE, bool)
    expected[2, 5:19, 3:11] = True
    assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, TURNED])
def test_a_triangle_has_its_area_and_centroid_in_any_orientation(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    volume = scan(tmp_path / "scan", orientation)
    corners = [(4.4, 3.25), (52.4, 3.25), (4.4, 27.25)]
    found = read_mask(write(tmp_path / "rs.dcm", gtv(placed(corners, 4, orientation))), volume)
    marked = np.flatnonzero(found.any(axis=(1, 2)))
    assert len(marked) == 1
    assert volume.geometry.affine is not None
    places = np.argwhere(found)[:, ::-1] @ volume.geometry.affine[:3, :3].T + volume.geometry.affine[:3, 3]
    # Half of 48 x 24 mm, and a third of the way from the right angle.
    assert found.sum() * SPACING[0] * SPACING[1] == pytest.approx(576, rel=0.02)
    assert_allclose(places.mean(axis=0), placed([(20.4, 11.25)], 4, orientation)[0], atol=0.2)


def test_a_contour_in_another_is_a_hole_and_one_in_the_hole_an_island(tmp_path: Path, volume: Volume) -> None:
    contours = [
        placed(rectangle(7.6, 4.75, 39.6, 24.75), 3),  # 40 columns, 40 rows
        placed(rectangle(15.6, 9.75, 31.6, 19.75), 3),  # 20 columns, 20 rows
        placed(rectangle(19.6, 12.25, 27.6, 17.25), 3),  # 10 columns, 10 rows
        placed(rectangle(7.6, 4.75, 39.6, 24.75), 4),
    ]
    found = read_mask(write(tmp_path / "rs.dcm", gtv(*contours)), volume)
    assert found.sum(axis=(1, 2)).tolist() == [0, 0, 0, 1600 - 400 + 100, 1600, 0]


def test_a_keyhole_is_a_hole_too(tmp_path: Path, volume: Volume) -> None:
    # PS3.3 C.8.8.6.3: an inner outline that a narrow channel joins to the outer one, run through twice.
    outer = [(7.6, 4.75), (39.6, 4.75), (39.6, 24.75), (7.6, 24.75), (7.6, 4.75)]
    inner = [(15.6, 9.75), (15.6, 19.75), (31.6, 19.75), (31.6, 9.75), (15.6, 9.75)]
    found = read_mask(write(tmp_path / "rs.dcm", gtv(placed([*outer, *inner], 0))), volume)
    assert found.sum() == 1600 - 400


def test_a_contour_that_is_there_twice_does_not_undo_itself(tmp_path: Path, volume: Volume) -> None:
    one = placed(rectangle(7.6, 4.75, 39.6, 24.75), 3)
    for again in (one, one[::-1], np.roll(one, 1, axis=0), np.vstack([one, one[:1]])):
        assert read_mask(write(tmp_path / "rs.dcm", gtv(one, again)), volume).sum() == 1600


def test_small_rounding_is_let_pass(tmp_path: Path, volume: Volume) -> None:
    shifted = placed(rectangle(7.6, 4.75, 39.6, 24.75), 3) + np.array([0, 0, 0.2])
    assert read_mask(write(tmp_path / "rs.dcm", gtv(shifted)), volume)[3].sum() == 1600


def test_another_series_of_the_same_frame_of_reference_takes_it(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", gtv(placed(rectangle(7.6, 4.75, 39.6, 24.75), 3)), series="1.2.840.9")
    assert read_mask(path, volume).sum() == 1600


# Which region


LARGE, SMALL = rectangle(0, 0, 40, 20), rectangle(7.6, 4.75, 39.6, 24.75)


@pytest.mark.parametrize("name", ["GTV", "gtv_p", "Lesion 1", "Läsion", "Tumour", "spine tumor", "Mass"])
def test_the_region_whose_name_speaks_of_a_lesion_is_taken(tmp_path: Path, volume: Volume, name: str) -> None:
    regions = gtv(placed(LARGE, 3), name="BODY"), gtv(placed(SMALL, 3), name=name)
    assert read_mask(write(tmp_path / "rs.dcm", *regions), volume).sum() == 1600


def test_the_region_whose_code_is_gtv_is_taken(tmp_path: Path, volume: Volume) -> None:
    regions = gtv(placed(LARGE, 3), name="A", kind="ORGAN"), gtv(placed(SMALL, 3), name="B", kind="GTV")
    assert read_mask(write(tmp_path / "rs.dcm", *regions), volume).sum() == 1600


def test_the_only_region_is_taken_whatever_its_name(tmp_path: Path, volume: Volume) -> None:
    assert read_mask(write(tmp_path / "rs.dcm", gtv(placed(SMALL, 3), name="Segment_1")), volume).sum() == 1600


@pytest.mark.parametrize("kind", ["EXTERNAL", "ORGAN", "AVOIDANCE"])
def test_the_only_region_is_not_taken_where_its_code_says_that_it_is_healthy(
    tmp_path: Path, volume: Volume, kind: str
) -> None:
    path = write(tmp_path / "rs.dcm", gtv(placed(LARGE, 3), name="BODY", kind=kind))
    refused(path, volume, "none whose name speaks of a lesion: 'BODY'")
    assert read_mask(path, volume, names=["body"]).any()


def test_regions_that_are_named_are_joined(tmp_path: Path, volume: Volume) -> None:
    regions = [gtv(placed(SMALL, plane), name=f"GTV {plane}") for plane in (2, 3)]
    path = write(tmp_path / "rs.dcm", *regions, gtv(placed(LARGE, 3), name="BODY"))
    assert read_mask(path, volume, names=["gtv 2", "GTV  3"]).sum() == 3200
    assert read_mask(path, volume, names=["gtv 2"]).sum() == 1600


# What is refused


def refused(path: Path, volume: Volume, match: str, **arguments: Any) -> None:
    with pytest.raises(InputError, match=match) as fault:
        read_mask(path, volume, **arguments)
    assert fault.value.path == path
    assert fault.value.remedy


def test_several_candidates_are_said_and_none_is_guessed(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", *(gtv(placed(SMALL, 3), name=name) for name in ("GTV 1", "BODY", "GTV 2")))
    refused(path, volume, "several that may be the lesion: 'GTV 1', 'GTV 2' .*--roi-name")


def test_no_candidate_among_several_is_said(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", *(gtv(placed(SMALL, 3), name=name) for name in ("BODY", "Cord")))
    refused(path, volume, "none whose name speaks of a lesion: 'BODY', 'Cord'")
    refused(path, volume, "a region of the name 'gtv', found 'BODY', 'Cord'", names=["GTV"])


def test_an_empty_region_is_refused_and_no_other_is_taken_for_it(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", gtv(), gtv(placed(LARGE, 3), name="BODY"))
    refused(path, volume, "expected closed contours of 'GTV', found none")
    points = gtv(placed([(4, 4)], 3), geometric="POINT")
    refused(write(tmp_path / "points.dcm", points), volume, "expected closed contours of 'GTV', found none")


def test_a_contour_between_all_centres_marks_nothing(tmp_path: Path, volume: Volume) -> None:
    refused(write(tmp_path / "rs.dcm", gtv(placed(rectangle(2.1, 2.1, 2.3, 2.3), 1))), volume, "found none marked")


def test_another_frame_of_reference_is_refused(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", gtv(placed(SMALL, 3)), frame="1.2.840.9")
    refused(path, volume, "in the volume's frame of reference, found one in another")


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (placed(SMALL, 2.5), "0.5 of a step beside them"),
        (placed(SMALL, 3) + np.array([[0], [0], [6], [6]]) * (0, 0, 1), "lies across them"),
        (placed(SMALL, 6), "reaches beyond it"),
        (placed(SMALL, -1), "reaches beyond it"),
        (placed(rectangle(-4, 0, 20, 20), 3), "reaches beyond it"),
    ],
)
def test_contours_off_the_planes_are_refused(tmp_path: Path, volume: Volume, points: NDArray[Any], match: str) -> None:
    refused(write(tmp_path / "rs.dcm", gtv(placed(SMALL, 3), points)), volume, match)


@pytest.mark.parametrize("data", ["1\\2", "a\\b\\c", "1\\2\\inf", ""])
def test_damaged_contours_are_refused(tmp_path: Path, volume: Volume, data: str) -> None:
    path = write(tmp_path / "rs.dcm", gtv(placed(SMALL, 3)))
    content = path.read_bytes()
    written = "\\".join(f"{value:.10g}" for value in placed(SMALL, 3).ravel()).encode()
    assert written in content
    path.write_bytes(content.replace(written, data.encode().ljust(len(written))))
    refused(path, volume, "its contours cannot be read")


def test_a_cut_structure_set_is_refused(tmp_path: Path, volume: Volume) -> None:
    path = write(tmp_path / "rs.dcm", gtv(placed(SMALL, 3)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError):
        read_mask(path, volume)
