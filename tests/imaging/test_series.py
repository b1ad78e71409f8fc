from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK
from conftest import shared_data
from dicom_files import (
    AXIAL,
    CORONAL,
    EXPLICIT,
    JPEG_BASELINE,
    JPEG_LS,
    RLE,
    SAGITTAL,
    Stored,
    write_dicom,
    write_enhanced,
    write_series,
)

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.series import Assembly, Series, assemble
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
REVERSED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE, "turned": REVERSED}

ROWS, COLUMNS, PLANES = 6, 8, 5
SPACING = (2.0, 1.5)

# Every voxel holds a number that only its place in the patient decides, so that a volume is right where its affine says
# of each index the place that its value was made from; it does not matter in which order planes, rows and columns lie.
WEIGHTS = np.array([3.0, 7.0, 11.0])


def value_at(place: NDArray[np.float64]) -> NDArray[np.float64]:
    value: NDArray[np.float64] = 1000 + place @ WEIGHTS
    return value


def planes_at(
    positions: Sequence[Sequence[float]], orientation: Sequence[float] = AXIAL, spacing: tuple[float, float] = SPACING
) -> NDArray[np.int32]:
    """Stored values times 100 of planes at some positions, each computed as PS3.3 C.7.6.2.1.1 defines places."""
    rows, columns = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    across, down = np.array(orientation[:3]) * spacing[1], np.array(orientation[3:]) * spacing[0]
    in_plane = columns[..., np.newaxis] * across + rows[..., np.newaxis] * down
    return np.stack([np.rint(100 * value_at(np.array(p) + in_plane)) for p in positions]).astype(np.int32)


def line(
    count: int = PLANES, orientation: Sequence[float] = AXIAL, step: float = 3, first: Sequence[float] = (-40, 25, -60)
) -> list[list[float]]:
    """Positions of slices along their normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [(np.array(first) + index * step * normal).tolist() for index in range(count)]


def write_at(
    folder: Path,
    positions: Sequence[Sequence[float]],
    orientation: Sequence[float] = AXIAL,
    *,
    spacing: tuple[float, float] = SPACING,
    each: Sequence[dict[str, Any]] | None = None,
    **options: Any,
) -> list[Path]:
    """Write slices of HU that only their place decides."""
    more = each or [{}] * len(positions)
    return write_series(
        folder,
        planes_at(positions, orientation, spacing),
        **{
            "orientation": orientation,
            "each": [{"position": position} | extra for position, extra in zip(positions, more, strict=True)],
            "encoding": Stored(bits=32),
            "RescaleSlope": "0.01",
            "spacing": spacing,
            **options,
        },
    )


def misplaced(volume: Volume) -> float:
    """Largest difference, in mm or so, between where voxels lie and where they ought to."""
    planes, rows, columns = volume.geometry.shape
    index = np.stack(np.meshgrid(range(planes), range(rows), range(columns), indexing="ij"), axis=-1)[..., ::-1]
    assert volume.geometry.affine is not None
    places = index @ volume.geometry.affine[:3, :3].T + volume.geometry.affine[:3, 3]
    return float(np.abs(volume.read() - value_at(places)).max())


def one(assembly: Assembly) -> Series:
    assert not assembly.refused
    assert len(assembly.series) == 1
    return assembly.series[0]


def refused(assembly: Assembly, code: RefusalCode, match: str, files: int) -> None:
    assert not assembly.series
    (refusal,) = assembly.refused
    assert refusal.code is code
    assert match in refusal.sentence
    assert len(refusal.files) == files
    assert refusal.remedy


# Place and order


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("step", [3, -3])
def test_slices_of_any_orientation_and_direction_lie_where_they_were_taken(
    tmp_path: Path, name: str, step: float
) -> None:
    orientation = ORIENTATIONS[name]
    paths = write_at(tmp_path, line(orientation=orientation, step=step), orientation)
    series = one(assemble(paths))
    assert misplaced(series.volume) < 0.02
    assert series.volume.geometry.plane_name == {"turned": "axial"}.get(name, name)
    assert series.volume.geometry.steps == pytest.approx((3, *SPACING), abs=1e-6)
    assert series.volume.geometry.tilt == pytest.approx(0, abs=1e-4)


def test_the_distance_of_slices_is_that_of_their_positions(tmp_path: Path) -> None:
    # The builder states a slice thickness of 7 mm and instance numbers against the order.
    series = one(assemble(write_at(tmp_path, line(step=1.25))))
    assert series.volume.geometry.steps == pytest.approx((1.25, *SPACING))
    assert misplaced(series.volume) < 0.02


def test_files_in_any_order_give_the_same_series(tmp_path: Path) -> None:
    paths = write_at(tmp_path, line())
    first = one(assemble(paths))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(PLANES)
        again = one(assemble([paths[index] for index in order]))
        assert again.files == first.files
        np.testing.assert_array_equal(again.volume.read(), first.volume.read())


def test_the_files_are_in_the_order_of_the_planes_with_their_hashes(tmp_path: Path) -> None:
    paths = write_at(tmp_path, line(orientation=SAGITTAL), SAGITTAL)
    series = one(assemble(paths))
    assert sorted(series.files) == sorted(paths)
    for plane, source in enumerate(series.volume.sources):
        assert source.path == series.files[plane]
        assert source.sha256 == sha256_of_file(source.path)
        alone = one(assemble([source.path]))
        np.testing.assert_array_equal(alone.volume.read()[0], series.volume.read([plane])[0])


def test_one_slice_is_a_volume_of_one_plane(tmp_path: Path) -> None:
    series = one(assemble(write_at(tmp_path, line(1))))
    assert misplaced(series.volume) < 0.02
    assert series.volume.geometry.steps == pytest.approx((7, *SPACING))  # its thickness


@pytest.mark.parametrize("decimals", [1, 2])
def test_positions_that_were_rounded_are_still_even(tmp_path: Path, decimals: int) -> None:
    positions = np.round(line(9, step=0.625), decimals).tolist()
    series = one(assemble(write_at(tmp_path, positions)))
    assert series.volume.geometry.shape[0] == 9


def test_slices_from_a_tilted_gantry_keep_their_shear(tmp_path: Path) -> None:
    tilt = np.radians(20)
    orientation = (1, 0, 0, 0, np.cos(tilt), -np.sin(tilt))
    positions = [(0.0, 0.0, 5.0 * index) for index in range(4)]
    series = one(assemble(write_at(tmp_path, positions, orientation)))
    assert misplaced(series.volume) < 0.02
    assert series.volume.geometry.tilt == pytest.approx(20, abs=1e-3)
    assert "tilted by 20.0 degrees" in series.remarks[0]


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    positions = line(3)
    stored = planes_at(positions) // 100
    scales = [
        {"RescaleSlope": 1 + index, "RescaleIntercept": 10 * index, "position": p} for index, p in enumerate(positions)
    ]
    paths = write_series(tmp_path, stored, "MR", each=scales, spacing=SPACING)
    values = one(assemble(paths)).volume.read()
    for index in range(3):
        np.testing.assert_allclose(values[index], (1 + index) * stored[index] + 10 * index)


def test_nothing_is_decoded_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_at(tmp_path, line())

    def decode(*_: object) -> None:
        msg = "decoded too early"
        raise RuntimeError(msg)

    monkeypatch.setattr("osteoscope.imaging.dicom.stored_frames", decode)
    volume = one(assemble(paths)).volume
    with pytest.raises(RuntimeError, match="too early"):
        volume.read([0])


def test_only_the_files_of_the_planes_asked_for_are_read(tmp_path: Path) -> None:
    series = one(assemble(write_at(tmp_path, line())))
    kept = series.volume.read([3])
    for path in (*series.files[:3], *series.files[4:]):
        path.unlink()
    np.testing.assert_array_equal(series.volume.read([3, 3]), np.repeat(kept, 2, axis=0))


# What is separated


def parts(assembly: Assembly) -> dict[str, Series]:
    assert not assembly.refused
    assert len({series.name for series in assembly.series}) == 1
    found = {series.part: series for series in assembly.series}
    assert len(found) == len(assembly.series)
    for series in assembly.series:
        assert misplaced(series.volume) < 0.02
    return found


def test_orientations_of_one_series_are_separated(tmp_path: Path) -> None:
    paths = [
        *write_at(tmp_path / "a", line(3)),
        *write_at(tmp_path / "b", line(4, SAGITTAL), SAGITTAL),
        *write_at(tmp_path / "c", line(1, CORONAL), CORONAL),
    ]
    found = parts(assemble(paths))
    assert sorted((part, series.volume.geometry.shape[0]) for part, series in found.items()) == [
        ("axial, 8 x 6", 3),
        ("coronal, 8 x 6", 1),
        ("sagittal, 8 x 6", 4),
    ]


def test_a_scout_is_separated_and_set_aside(tmp_path: Path) -> None:
    scout: dict[str, Any] = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    paths = [*write_at(tmp_path / "a", line(3)), *write_at(tmp_path / "b", line(1, CORONAL), CORONAL, **scout)]
    assert {series.volume.geometry.shape[0]: series.aside for series in assemble(paths).series} == {
        3: None,
        1: RefusalCode.LOCALISER,
    }


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ([{"EchoNumbers": 1}, {"EchoNumbers": 2}], ["echo 1", "echo 2"]),
        ([{"EchoTime": 30}, {"EchoTime": 100}], ["echo time 30 ms", "echo time 100 ms"]),
        (
            [{"TemporalPositionIdentifier": n} for n in (1, 2, 3)],
            ["temporal position 1", "temporal position 2", "temporal position 3"],
        ),
        ([{"AcquisitionNumber": 3}, {"AcquisitionNumber": 4}], ["acquisition 3", "acquisition 4"]),
        ([{"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}], ["kernel 1 of 2", "kernel 2 of 2"]),
        (
            [{"ImageType": ["ORIGINAL", "PRIMARY", kind]} for kind in "MP"],
            ["image type 1 of 2", "image type 2 of 2"],
        ),
    ],
)
def test_slices_at_one_place_are_separated_by_what_tells_them_apart(
    tmp_path: Path, elements: list[dict[str, Any]], expected: list[str]
) -> None:
    # Equal values do not make copies of what a mark tells apart.
    paths = [
        path for number, extra in enumerate(elements) for path in write_at(tmp_path / str(number), line(), **extra)
    ]
    found = parts(assemble(paths))
    assert sorted(found) == sorted(f"axial, 8 x 6, {text}" for text in expected)


def test_two_marks_together_may_be_needed(tmp_path: Path) -> None:
    paths = []
    for echo in (1, 2):
        for kind in "MP":
            extra: dict[str, Any] = {"EchoNumbers": echo, "ImageType": ["ORIGINAL", "PRIMARY", kind]}
            paths += write_at(tmp_path / f"{echo}{kind}", line(), **extra)
    found = parts(assemble(paths))
    assert len(found) == 4
    assert "axial, 8 x 6, echo 2, image type 1 of 2" in found


def test_an_acquisition_number_for_each_slice_divides_nothing(tmp_path: Path) -> None:
    each = [{"AcquisitionNumber": index} for index in range(PLANES)]
    assert one(assemble(write_at(tmp_path, line(), each=each))).part == ""


def test_acquisitions_of_two_regions_are_separated(tmp_path: Path) -> None:
    upper = write_at(tmp_path / "a", line(4), AcquisitionNumber=1)
    lower = write_at(tmp_path / "b", line(4, first=(-40, 25, 17.7)), AcquisitionNumber=2)
    assert len(parts(assemble([*upper, *lower]))) == 2


@pytest.mark.parametrize("lost", [{8, 9, 10, 11}, {8}, {11}])
def test_rotations_of_which_slices_are_missing_are_no_images_of_their_own(tmp_path: Path, lost: set[int]) -> None:
    each = [{"AcquisitionNumber": index // 4, "AcquisitionTime": f"1000{index // 4:02d}"} for index in range(32)]
    files = write_at(tmp_path, line(32), each=each)
    assert len(one(assemble(files)).volume.sources) == 32
    (refusal,) = assemble([file for index, file in enumerate(files) if index not in lost]).refused
    assert refusal.code is RefusalCode.MISSING_SLICES


@pytest.mark.parametrize("lost", [1, 5, 18])
def test_an_mr_in_two_packages_of_which_a_slice_is_missing_is_refused(tmp_path: Path, lost: int) -> None:
    each = [{"AcquisitionNumber": index % 2} for index in range(20)]
    files = write_at(tmp_path, line(20), each=each)
    (refusal,) = assemble([file for index, file in enumerate(files) if index != lost]).refused
    assert refusal.code is RefusalCode.MISSING_SLICES


def test_a_series_in_two_folders_that_lacks_the_slice_between_is_refused(tmp_path: Path) -> None:
    files = [*write_at(tmp_path / "a", line(15)), *write_at(tmp_path / "b", line(16, first=(-40, 25, -12)))]
    (refusal,) = assemble(files).refused
    assert refusal.code is RefusalCode.MISSING_SLICES


def test_blocks_of_different_steps_are_separated(tmp_path: Path) -> None:
    positions = [*line(4, step=2.5), *line(5, step=7, first=(-40, 25, -49))]
    found = parts(assemble(write_at(tmp_path, positions)))
    assert sorted(found) == ["axial, 8 x 6, slices 1 to 4 of 9", "axial, 8 x 6, slices 5 to 9 of 9"]


def test_slabs_through_single_discs_are_separated(tmp_path: Path) -> None:
    # Parallel slabs of 3 mm steps, 32 mm apart: no number of missing slices explains that.
    positions = [*line(4), *line(4, first=(-40, 25, -19.6))]
    assert len(parts(assemble(write_at(tmp_path, positions)))) == 2


def test_different_sizes_and_spacings_are_separated(tmp_path: Path) -> None:
    paths = [*write_at(tmp_path / "a", line(3)), *write_at(tmp_path / "b", line(3), spacing=(1.0, 1.0))]
    found = parts(assemble(paths))
    assert sorted(found) == ["axial, 8 x 6, 1 of 2", "axial, 8 x 6, 2 of 2"]


def test_different_frames_of_reference_are_separated(tmp_path: Path) -> None:
    paths = [
        *write_at(tmp_path / "a", line(3)),
        *write_at(tmp_path / "b", line(3, first=(0, 0, 4.4)), FrameOfReferenceUID="1.2.3"),
    ]
    assert len(parts(assemble(paths))) == 2


def test_a_mosaic_of_slices_is_set_aside(tmp_path: Path) -> None:
    paths = write_at(tmp_path, line(1), kind="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    assert one(assemble(paths)).aside is RefusalCode.MOSAIC


def test_series_are_told_apart_by_their_uid(tmp_path: Path) -> None:
    paths = [*write_at(tmp_path / "a", line()), *write_at(tmp_path / "b", line(3), series="b")]
    assembly = assemble(paths)
    assert [series.volume.geometry.shape[0] for series in assembly.series] == [PLANES, 3]
    assert len({series.name for series in assembly.series}) == 2


def test_radiographs_of_one_series_stay_single(tmp_path: Path) -> None:
    grey = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) % 251
    paths = [write_dicom(tmp_path / f"{n}.dcm", grey + n, "DX", ImagerPixelSpacing=[0.2, 0.2]) for n in range(3)]
    assembly = assemble(paths)
    assert [series.volume.geometry.shape for series in assembly.series] == [(1, 40, 48)] * 3
    for series in assembly.series:
        assert series.volume.geometry.affine is None
        assert series.volume.geometry.spacing is not None
        assert series.volume.geometry.spacing.kind == "detector"


def test_a_cine_is_one_image_whose_place_is_unknown(tmp_path: Path) -> None:
    frames = np.arange(4 * 40 * 48, dtype=np.uint16).reshape(4, 40, 48) % 250
    path = write_dicom(tmp_path / "a.dcm", frames, "SC", position=(0, 0, 0))
    series = one(assemble([path]))
    assert series.volume.geometry.shape == (4, 40, 48)
    assert series.volume.geometry.affine is None
    assert series.aside is RefusalCode.SECONDARY_CAPTURE


# Copies


def test_a_file_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    paths = write_at(tmp_path / "a", line())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = sorted((tmp_path / "b").iterdir())
    series = one(assemble([*paths, *again]))
    assert set(series.copies) == set(again)
    assert misplaced(series.volume) < 0.02


def test_the_same_slices_in_another_encoding_are_read_once(tmp_path: Path) -> None:
    stored = planes_at(line()).astype(np.int64) // 100
    options: dict[str, Any] = {"each": [{"position": position} for position in line()], "spacing": SPACING}
    paths = write_series(tmp_path / "a", stored, **options)
    again = write_series(tmp_path / "b", stored, encoding=Stored(transfer_syntax=JPEG_LS), **options)
    series = one(assemble([*again, *paths]))
    assert set(series.copies) == set(again)
    assert series.transfer_syntaxes == (EXPLICIT,)


def test_the_same_slices_with_other_values_are_separated_by_their_encoding(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    options: dict[str, Any] = {"each": [{"position": position} for position in line(3)]}
    for name, transfer_syntax in (("a", RLE), ("b", JPEG_BASELINE)):
        write_series(tmp_path / name, noise, encoding=Stored(bits=8, transfer_syntax=transfer_syntax), **options)
    assembly = assemble(sorted(tmp_path.rglob("*.dcm")))
    assert not assembly.refused
    assert sorted(series.part for series in assembly.series) == [
        "axial, 64 x 64, encoding 1 of 2",
        "axial, 64 x 64, encoding 2 of 2",
    ]


@pytest.mark.parametrize(("thickness", "step", "remarked"), [(4, 4, False), (None, 1, True)])
def test_a_single_slice_is_as_thick_as_it_says_and_else_that_is_remarked_on(
    tmp_path: Path, thickness: float | None, step: float, remarked: bool
) -> None:
    grey = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48)
    write_dicom(tmp_path / "a.dcm", grey, "CT", position=(1, 2, 3), SliceThickness=thickness)
    (series,) = assemble([tmp_path / "a.dcm"]).series
    assert series.volume.geometry.steps == (step, 1, 1)
    assert any("thickness is not stated, and taken as 1 mm" in remark for remark in series.remarks) is remarked


@pytest.mark.parametrize("kind", ["CR", "DX"])
@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 0, -1), (-1, 0, 0, 0, 0, -1), (1, 0, 0, 0, 0, 1), (0, -1, 0, 0, 0, -1)]
)
def test_a_radiograph_that_states_a_place_lies_as_it_is_stored(
    tmp_path: Path, kind: str, orientation: tuple[float, ...]
) -> None:
    grey = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) % 251
    write_dicom(tmp_path / "a.dcm", grey, kind, position=(1, 2, 3), orientation=orientation, spacing=(0.2, 0.1))
    (series,) = assemble([tmp_path / "a.dcm"]).series
    geometry = series.volume.geometry
    assert geometry.affine is None
    assert geometry.spacing is not None
    assert (geometry.spacing.row, geometry.spacing.column, geometry.spacing.kind) == (0.2, 0.1, "detector")
    # Where boxes and outlines are drawn: in the stored pixels.
    values = series.volume.read()[0]
    assert np.array_equal(np.argsort(values, axis=None, kind="stable"), np.argsort(grey, axis=None, kind="stable"))


def test_a_radiograph_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) % 251, "DX")
    shutil.copy(path, tmp_path / "b.dcm")
    assert one(assemble([tmp_path / "b.dcm", path])).copies == (tmp_path / "b.dcm",)


def test_pictures_at_one_place_stay_single(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 48), dtype=np.uint8)
    paths = [
        write_dicom(tmp_path / f"{n}.dcm", noise[n], "SC", position=(0, 0, 0), encoding=Stored(bits=8))
        for n in range(3)
    ]
    scattered = write_dicom(tmp_path / "d.dcm", noise, "SC", series="b", encoding=Stored(bits=8))
    assembly = assemble([*paths, scattered])
    assert not assembly.refused
    assert [series.volume.geometry.shape[0] for series in assembly.series] == [1, 1, 1, 3]


def test_a_damaged_file_is_no_copy_and_is_found_when_it_is_read(tmp_path: Path) -> None:
    stored = planes_at(line(3)).astype(np.int64) // 100
    options: dict[str, Any] = {"each": [{"position": position} for position in line(3)], "spacing": SPACING}
    paths = write_series(tmp_path / "a", stored, **options)
    again = write_series(tmp_path / "b", stored, encoding=Stored(transfer_syntax=JPEG_LS), **options)
    content = bytearray(again[1].read_bytes())
    start = content.index(b"\xff\xda")
    content[start + 8 : start + 20] = bytes(12)
    again[1].write_bytes(content)
    assembly = assemble([*again, *paths])
    assert {path for refusal in assembly.refused for path in refusal.files} | {
        path for series in assembly.series for path in (*series.files, *series.copies)
    } == {*again, *paths}


# What is refused


def test_two_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    positions = [*line(), line()[2]]
    each = [{"RescaleIntercept": index} for index in range(len(positions))]
    assembly = assemble(write_at(tmp_path, positions, each=each))
    refused(assembly, RefusalCode.SAME_PLACE, "found 1 of 6 at the place of another one", 6)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize(
    ("missing", "found"),
    [
        ([1], "a gap of 6 mm, in which a slice is missing"),
        ([3], "a gap of 6 mm, in which a slice is missing"),
        ([2, 3], "a gap of 9 mm, in which 2 slices are missing"),
        ([1, 5], "2 gaps, the largest of 6 mm, in which 2 slices are missing"),
    ],
)
def test_missing_slices_are_refused(
    tmp_path: Path, orientation: Sequence[float], missing: list[int], found: str
) -> None:
    positions = [position for index, position in enumerate(line(8, orientation)) if index not in missing]
    each = [{"AcquisitionNumber": index} for index in range(len(positions))]
    assembly = assemble(write_at(tmp_path, positions, orientation, each=each))
    refused(assembly, RefusalCode.MISSING_SLICES, f"every 3 mm, found {found}", 8 - len(missing))


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    positions = [(0, 0, height) for height in (0, 3, 5.1, 9.7, 12)]
    assembly = assemble(write_at(tmp_path, positions))
    refused(assembly, RefusalCode.UNEVEN_SLICES, "steps of 2.1 to 4.6 mm", 5)


def test_two_slices_a_hair_apart_are_uneven_and_none_is_said_to_be_missing(tmp_path: Path) -> None:
    assembly = assemble(write_at(tmp_path, [(0, 0, height) for height in (0, 3, 3.05, 6.05, 9.05)]))
    refused(assembly, RefusalCode.UNEVEN_SLICES, "steps of 0.05 to 3 mm", 5)


def test_slices_that_do_not_lie_behind_each_other_are_refused(tmp_path: Path) -> None:
    positions = [(5.0 * (index % 2), 0, 3.0 * index) for index in range(6)]
    refused(assemble(write_at(tmp_path, positions)), RefusalCode.UNEVEN_SLICES, "along one line", 6)


def test_slices_without_a_place_are_refused(tmp_path: Path) -> None:
    stored = np.arange(3 * 48, dtype=np.uint16).reshape(3, 6, 8)
    paths = write_series(tmp_path, stored, each=[{"position": None}] * 3)
    refused(assemble(paths), RefusalCode.MISSING_PLACE, "each of 3 slices", 3)
    alone = one(assemble(paths[:1]))
    assert alone.volume.geometry.affine is None


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = write_at(tmp_path / "a", line())
    bad = tmp_path / "notes.txt"
    bad.write_text("nothing", encoding="utf-8")
    assembly = assemble([bad, *paths, tmp_path / "none.dcm"])
    assert len(assembly.series) == 1
    assert [(refusal.files, refusal.code) for refusal in assembly.refused] == [
        ((tmp_path / "none.dcm",), RefusalCode.MISSING),
        ((bad,), RefusalCode.NOT_AN_IMAGE),
    ]


def test_a_file_that_changes_after_it_was_assembled_is_noticed(tmp_path: Path) -> None:
    volume = one(assemble(write_at(tmp_path, line()))).volume
    path = volume.sources[2].path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    volume.read([0, 1, 3])
    with pytest.raises(RefusedImageError, match="changed") as fault:
        volume.read()
    assert fault.value.code is RefusalCode.CHANGED
    # The same bytes again, as after a restore, are the same image.
    path.write_bytes(content)
    volume.read()


def test_a_fault_that_nobody_foresaw_refuses_its_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_at(tmp_path, line(2))

    def read(path: Path) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("osteoscope.imaging.series.read_header", read)
    assert {refusal.code for refusal in assemble(paths).refused} == {RefusalCode.UNKNOWN}


# Files without UIDs


def test_files_without_a_series_uid_are_one_series_where_they_share_a_folder(tmp_path: Path) -> None:
    paths = write_at(tmp_path / "a", line(), SeriesInstanceUID=None)
    apart = write_at(tmp_path / "b", line(3), SeriesInstanceUID="")
    assembly = assemble([*paths, *apart])
    assert [series.volume.geometry.shape[0] for series in assembly.series] == [PLANES, 3]
    assert "no Series Instance UID" in assembly.series[0].remarks[0]


def test_files_of_two_patients_without_uids_are_not_mixed(tmp_path: Path) -> None:
    none: dict[str, Any] = {"SeriesInstanceUID": None, "StudyInstanceUID": None, "FrameOfReferenceUID": None}
    one_patient = write_at(tmp_path, line(1), **none, PatientID="1")
    one_patient[0].rename(tmp_path / "one.dcm")
    write_at(tmp_path, line(1, first=(-40, 25, -57)), **none, PatientID="2")
    assembly = assemble(sorted(tmp_path.iterdir()))
    assert [series.volume.geometry.shape[0] for series in assembly.series] == [1, 1]


def test_more_orientations_than_any_series_has_are_refused(tmp_path: Path) -> None:
    path = write_enhanced(
        tmp_path / "a.dcm",
        np.zeros((300, 2, 2), dtype=np.uint16),
        "MR",
        [(0, 0, index) for index in range(300)],
        orientations=[(np.cos(a), np.sin(a), 0, 0, 0, -1) for a in np.linspace(0, 3, 300)],
    )
    refused(assemble([path]), RefusalCode.TOO_LARGE, "at most 200 orientations", 1)


# Enhanced multi-frame objects


def enhanced(tmp_path: Path, positions: Sequence[Sequence[float]], **options: Any) -> Path:
    return write_enhanced(
        tmp_path / "a.dcm",
        planes_at(positions),
        "MR",
        positions,
        spacing=SPACING,
        rescales=[(0.01, 0)] * len(positions),
        encoding=Stored(bits=32),
        **options,
    )


def test_frames_of_an_enhanced_object_are_ordered_by_their_places(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(PLANES)
    positions = line()
    series = one(assemble([enhanced(tmp_path, [positions[index] for index in order])]))
    assert misplaced(series.volume) < 0.02
    assert series.files == (tmp_path / "a.dcm",)
    assert series.volume.geometry.steps == pytest.approx((3, *SPACING))


def test_stacks_of_an_enhanced_object_are_separated(tmp_path: Path) -> None:
    positions = [*line(4), *line(4, first=(-40, 25, -48))]
    content = [{"StackID": "AB"[index // 4], "InStackPositionNumber": index % 4 + 1} for index in range(8)]
    # Twelve millimetres further on is where a fifth slice would lie: the stacks make one even series.
    assert one(assemble([enhanced(tmp_path, positions, content=content)])).volume.geometry.shape[0] == 8
    positions = [*line(4), *line(4, first=(-40, 25, -58))]
    found = parts(assemble([enhanced(tmp_path, positions, content=content)]))
    assert sorted(found) == ["axial, 8 x 6, stack 1 of 2", "axial, 8 x 6, stack 2 of 2"]


def test_temporal_positions_of_an_enhanced_object_are_separated(tmp_path: Path) -> None:
    positions = [position for position in line() for _ in range(2)]
    content = [{"TemporalPositionIndex": index % 2 + 1} for index in range(2 * PLANES)]
    found = parts(assemble([enhanced(tmp_path, positions, content=content)]))
    assert sorted(found) == ["axial, 8 x 6, temporal position 1", "axial, 8 x 6, temporal position 2"]


# Real series


def test_a_real_series_equals_what_simpleitk_reads() -> None:
    folder = shared_data("dicom") / "totalsegmentator" / "example_ct_dicom"
    series = one(assemble(list(folder.iterdir())))
    assert series.volume.geometry.shape == (20, 512, 512)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in series.files])
    image = reader.Execute()
    np.testing.assert_allclose(series.volume.read(), SimpleITK.GetArrayFromImage(image), atol=1e-3)
    affine = series.volume.geometry.affine
    assert affine is not None
    for index in ((0, 0, 0), (511, 0, 0), (0, 511, 0), (0, 0, 19)):
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(affine[:3, :3] @ index + affine[:3, 3], expected, atol=1e-3)


def test_a_real_series_of_a_tilted_gantry_comes_apart_where_its_step_changes() -> None:
    assembly = assemble(sorted((shared_data("dicom") / "dcm_qa_ct_ge_tilt").glob("*.dcm")))
    assert not assembly.refused
    first, second = (series.volume.geometry for series in assembly.series)
    # By hand from the positions: 4.22 and 7.38 mm along z, whose normal is 18.5 degrees off.
    assert first.steps == pytest.approx((4.22, 0.4882812, 0.4882812), abs=1e-4)
    assert second.steps == pytest.approx((7.38, 0.4882812, 0.4882812), abs=1e-4)
    assert (first.shape[0], second.shape[0]) == (14, 14)
    assert first.tilt == pytest.approx(18.5, abs=0.01)


def test_a_real_series_with_missing_slices_is_refused() -> None:
    assembly = assemble(sorted((shared_data("dicom") / "dicom_numpy_missing_slices").glob("*.dcm")))
    refused(assembly, RefusalCode.MISSING_SLICES, "expected slices every 2.5 mm", 11)


def test_one_real_image_in_many_encodings_is_read_once() -> None:
    series = one(assemble(sorted((shared_data("dicom") / "dcm_qa_ts" / "In").glob("*.dcm"))))
    assert len(series.files) == 1
    assert len(series.copies) == 8


def test_no_real_file_is_lost() -> None:
    files = [path for path in shared_data("dicom").rglob("*") if path.is_file()]
    assembly = assemble(files)
    found = {path for series in assembly.series for path in (*series.files, *series.copies)}
    found |= {path for refusal in assembly.refused for path in refusal.files}
    assert found == set(files)
    assert not [refusal for refusal in assembly.refused if refusal.code is RefusalCode.UNKNOWN]
