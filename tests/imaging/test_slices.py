from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from conftest import shared_data
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from osteoscope.config import Config, VolumeConfig
from osteoscope.imaging.nifti import read_nifti
from osteoscope.imaging.prepare import resample, square_to_read
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.slices import cut_slices, plan_slices, radiograph_grey
from osteoscope.imaging.volume import Geometry, PixelSpacing, Source, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Modality

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = nib.eulerangles.euler2mat(0.3, 0.4, -0.2)
OBLIQUE[:3, 3] = (30, -200, 810)


def volume_of(
    values: NDArray[Any],
    steps: tuple[float, float, float] = (4.0, 1.0, 1.0),
    modality: Modality = "CT",
    place: NDArray[np.float64] = OBLIQUE,
) -> Volume:
    """Steps from plane to plane, row to row, column to column."""
    stack = values.astype(np.float32)
    affine = place @ np.diag([steps[2], steps[1], steps[0], 1.0])
    geometry = Geometry(shape=stack.shape, affine=affine)
    source = Source(path=Path("made-up.nii"), sha256="0" * 64)
    return Volume(geometry=geometry, modality=modality, sources=(source,), reader=lambda planes: stack[list(planes)])


def slab(planes: int = 12, value: float = 40.0) -> NDArray[np.float32]:
    """A body of 60 x 40 pixels, rows 20..80 and columns 30..70, in air."""
    values = np.full((planes, 100, 100), -1000, dtype=np.float32)
    values[:, 20:80, 30:70] = value
    return values


CONFIG = VolumeConfig(size=64, spacing=1.0, neighbours=1, neighbour_distance=4.0)


# The settings


def test_the_settings_of_a_run_without_volumes_are_what_they_were() -> None:
    assert set(Config.model_fields) == {"preparation", "network", "auxiliary", "training"}


def test_channels_are_windows_times_planes_of_the_stack() -> None:
    assert VolumeConfig(neighbours=2).channels("CT") == 15
    assert VolumeConfig(neighbours=2).channels("MR") == 5
    assert VolumeConfig(neighbours=0, windows=((0, 100),)).channels("CT") == 1


def test_settings_of_earlier_bundles_are_read() -> None:
    assert VolumeConfig.model_validate({"size": 64, "lesion_spacing": 0.75}) == VolumeConfig(size=64)


@pytest.mark.parametrize(
    "settings", [{"windows": [(100, 100)]}, {"windows": []}, {"windows": [(0, float("inf"))]}, {"percentiles": (99, 1)}]
)
def test_windows_and_percentiles_must_rise(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VolumeConfig.model_validate(settings)


# Where


def test_a_plane_is_centred_on_the_body_at_the_spacing_that_is_set() -> None:
    # Half-size pixels across: 100 columns of 0.5 mm. The body's middle is (50, 50) in pixels from the corner.
    plan = plan_slices(volume_of(slab(), (4.0, 1.0, 0.5)), CONFIG)
    assert plan.rectangle.width == pytest.approx(128)
    assert plan.rectangle.height == pytest.approx(64)
    assert plan.rectangle.left == pytest.approx(50 - 64, abs=4)
    assert plan.rectangle.top == pytest.approx(50 - 32, abs=2)


def test_pixels_lie_in_the_patient_where_the_affine_says() -> None:
    # Values are places: the affine of a plane must lead to the place that is shown.
    geometry = volume_of(slab(), (3.0, 0.8, 0.6)).geometry
    assert geometry.affine is not None
    index = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij")[::-1], axis=-1)
    places = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    config = VolumeConfig(size=32, spacing=0.5, neighbours=0, windows=((-3000, 3000),))
    for axis in range(3):
        volume = volume_of(places[..., axis], (3.0, 0.8, 0.6))
        plan = plan_slices(volume, config)
        shown = cut_slices(volume, plan)[:, 0] * 6000 - 3000
        rows, columns = np.mgrid[:32, :32]
        for plane, affine in zip(shown, plan.affines, strict=True):
            expected = affine[axis, 0] * columns + affine[axis, 1] * rows + affine[axis, 3]
            assert_allclose(plane, expected, atol=0.01)


def test_pixels_are_as_far_apart_as_is_set_and_planes_as_in_the_volume() -> None:
    plan = plan_slices(volume_of(slab(), (3.0, 0.8, 0.6)), CONFIG)
    for affine in plan.affines:
        assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [1.0, 1.0, 3.0])


def test_what_reaches_beyond_the_planes_is_told() -> None:
    volume = volume_of(slab(), (4.0, 2.0, 1.0))
    assert plan_slices(volume, CONFIG).told == ("the body reaches 28 mm beyond the planes on either side",)


def test_a_scan_without_a_place_is_refused() -> None:
    volume = Volume(
        geometry=Geometry(shape=(3, 9, 9), affine=None),
        modality="CT",
        sources=(Source(path=Path("nowhere.nii"), sha256="0" * 64),),
        reader=lambda planes: np.zeros((len(planes), 9, 9), dtype=np.float32),
    )
    with pytest.raises(RefusedImageError, match=r"nowhere\.nii") as caught:
        plan_slices(volume, CONFIG)
    assert caught.value.code == RefusalCode.MISSING_PLACE


def test_a_radiograph_is_not_sliced() -> None:
    with pytest.raises(ValueError, match="radiograph"):
        plan_slices(volume_of(slab(), modality="radiograph"), CONFIG)


# Through the planes


@pytest.mark.parametrize(
    ("count", "step", "most", "expected"),
    [
        (9, 4.0, 32, (0, 1, 2, 3, 4, 5, 6, 7, 8)),  # as far apart as is asked for
        (9, 4.0, 3, (0, 4, 8)),  # fewer than there are
        (9, 8.0, 32, (0, 1, 2, 3, 4, 5, 6, 7, 8)),  # further apart than is asked for
        (9, 1.0, 32, (0, 4, 8)),  # closer
        (9, 4.0, 1, (4,)),
        (1, 4.0, 32, (0,)),
    ],
)
def test_planes_are_spread_evenly_and_no_closer_than_is_set(
    count: int, step: float, most: int, expected: tuple[int, ...]
) -> None:
    config = VolumeConfig(size=32, planes=most, step=4.0)
    assert plan_slices(volume_of(slab(count), (step, 1.0, 1.0)), config).planes == expected


def test_neighbours_are_as_far_as_is_set_and_the_outermost_planes_stand_in_at_the_ends() -> None:
    config = VolumeConfig(size=32, planes=3, neighbours=2, neighbour_distance=4.0)
    plan = plan_slices(volume_of(slab(21), (2.0, 1.0, 1.0)), config)
    assert plan.planes == (0, 10, 20)
    assert plan.stacks == ((0, 0, 0, 2, 4), (6, 8, 10, 12, 14), (16, 18, 20, 20, 20))
    # Slices further apart than that bring the next one.
    thick = plan_slices(volume_of(slab(21), (9.0, 1.0, 1.0)), config)
    assert thick.stacks[1] == (8, 9, 10, 11, 12)


def test_channels_come_plane_by_plane_of_the_stack_and_window_by_window() -> None:
    values = slab(5)
    values[:, 45:55, 45:55] = np.array([0, 100, 200, 300, 400])[:, np.newaxis, np.newaxis]
    config = VolumeConfig(
        size=32, spacing=1.0, planes=5, neighbours=1, neighbour_distance=4, windows=((0, 400), (200, 400))
    )
    volume = volume_of(values)
    shown = cut_slices(volume, plan_slices(volume, config))
    assert shown.shape == (5, 6, 32, 32)
    assert shown.dtype == np.float32
    # Planes 1, 2 and 3, each in both windows.
    assert_allclose(shown[2, :, 16, 16], [0.25, 0, 0.5, 0, 0.75, 0.5], atol=1e-6)
    assert_allclose(shown[0, :, 16, 16], [0, 0, 0, 0, 0.25, 0], atol=1e-6)


def test_some_planes_are_cut_as_all_are_and_each_of_the_volume_is_read_once() -> None:
    values = slab(9) + np.random.default_rng(0).normal(0, 50, (9, 100, 100)).astype(np.float32)
    asked: list[int] = []

    def reader(planes: Sequence[int]) -> NDArray[np.float32]:
        asked.extend(planes)
        return values[list(planes)]

    known = volume_of(values)
    volume = Volume(geometry=known.geometry, modality="CT", sources=(), reader=reader)
    plan = plan_slices(volume, CONFIG)
    asked.clear()
    whole = cut_slices(volume, plan)
    assert asked == list(range(9))
    assert_array_equal(cut_slices(volume, plan, [5, 0]), whole[[5, 0]])


# Values


def test_an_mr_is_scaled_between_percentiles_of_the_body() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 3, (12, 100, 100)))
    values[:, 20:80, 30:70] = rng.uniform(200, 1200, (12, 60, 40))
    volume = volume_of(values, modality="MR")
    plan = plan_slices(volume, VolumeConfig(size=64, spacing=1.0, neighbours=0, percentiles=(5, 95)))
    ((low, high),) = plan.windows
    # Values in the body are spread evenly from 200 to 1200.
    assert low == pytest.approx(250, abs=40)
    assert high == pytest.approx(1150, abs=40)
    shown = cut_slices(volume, plan)
    assert shown.min() == 0
    assert shown.max() > 0.9
    assert_allclose(shown[6, 0, 20:40, 24:40].mean(), 0.5, atol=0.05)


def test_twice_the_signal_is_the_same_plane() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 3, (12, 100, 100)))
    values[:, 20:80, 30:70] = rng.uniform(200, 1200, (12, 60, 40))
    once, twice = (volume_of(values * factor, modality="MR") for factor in (1, 2))
    assert_allclose(
        cut_slices(once, plan_slices(once, CONFIG)), cut_slices(twice, plan_slices(twice, CONFIG)), atol=1e-5
    )


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("value", [0.0, 500.0, -1000.0, np.nan])
def test_a_constant_scan_gives_planes_without_contrast(modality: Modality, value: float) -> None:
    volume = volume_of(np.full((3, 40, 40), value), modality=modality)
    shown = cut_slices(volume, plan_slices(volume, CONFIG))
    assert np.isfinite(shown).all()
    assert (shown >= 0).all()
    assert (shown <= 1).all()
    inside = shown[:, :, 20:44, 20:44]
    assert (np.ptp(inside, axis=(2, 3)) == 0).all()


@pytest.mark.parametrize("padded", [-32768.0, -2000.0, np.nan, np.inf])
def test_padding_and_what_is_no_value_become_air(padded: float) -> None:
    values = slab()
    values[:, :, :40] = padded
    volume = volume_of(values)
    plan = plan_slices(volume, CONFIG)
    shown = cut_slices(volume, plan)
    assert np.isfinite(shown).all()
    edge = round(40 - plan.rectangle.left)
    assert (shown[:, :, :, : edge - 1] == 0).all()
    # Next to it the body keeps its value, 40 HU in the soft tissue window.
    assert_allclose(shown[5, 3, 28:36, edge + 2 : edge + 10], 0.5, atol=1e-6)


def test_high_padding_of_an_mr_becomes_dark() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 3, (12, 100, 100)))
    values[:, 20:80, 30:70] = rng.uniform(200, 1200, (12, 60, 40))
    values[:, :, :20] = 65535
    volume = volume_of(values, modality="MR")
    plan = plan_slices(volume, VolumeConfig(size=96, spacing=1.0, neighbours=0))
    assert plan.windows[0][1] < 1300
    assert (cut_slices(volume, plan)[:, :, :, : round(19 - plan.rectangle.left)] == 0).all()


def test_the_table_is_not_shown() -> None:
    values = slab()
    values[:, 92:95] = 300
    volume = volume_of(values)
    config = VolumeConfig(size=96, spacing=1.0, neighbours=0)
    plan = plan_slices(volume, config)
    assert (cut_slices(volume, plan)[:, 0, round(91 - plan.rectangle.top) :] == 0).all()


# Real files


def test_left_stays_left_and_up_stays_up_in_a_real_ct() -> None:
    path = shared_data("dicom") / "totalsegmentator/example_ct.nii.gz"
    volume = read_nifti(path)
    plan = plan_slices(volume, VolumeConfig(size=256, spacing=1.5, neighbours=0))
    shown = cut_slices(volume, plan, [16])[0]
    # Written by hand from nibabel's array, RAS: the patient's left on the right, front up.
    image = nib.load(path)
    plane = image.get_fdata()[::-1, ::-1, plan.planes[16]].T  # type: ignore[attr-defined]
    expected = np.clip((plane + 500) / 1800, 0, 1).astype(np.float32)
    # 3 mm become 1.5 mm: every pixel of the scan is two of the plane, about one centre.
    height, width = expected.shape
    top, left = round(-plan.rectangle.top * 2), round(-plan.rectangle.left * 2)
    doubled = np.kron(expected, np.ones((2, 2)))[: 256 - top, : 256 - left]
    found = shown[1, top : top + 2 * height, left : left + 2 * width]
    body = found > 0.2
    assert np.corrcoef(found[body], doubled[: found.shape[0], : found.shape[1]][body])[0, 1] > 0.95
    mirrored = doubled[: found.shape[0], : found.shape[1]][:, ::-1]
    assert np.corrcoef(found[body], mirrored[body])[0, 1] < 0.7


# Radiographs


def radiograph(values: NDArray[Any], spacing: PixelSpacing | None = None, aspect: float = 1.0) -> Volume:
    stack = values.astype(np.float32)[np.newaxis]
    geometry = Geometry(shape=stack.shape, affine=None, spacing=spacing, aspect=aspect)
    return Volume(geometry=geometry, modality="radiograph", sources=(), reader=lambda planes: stack[[0] * len(planes)])


def test_a_radiograph_of_few_greys_of_many_uses_the_whole_range() -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 1, (300, 200)).astype(np.float32)
    # A detector of 16 bits that uses 12, with a few defective pixels.
    stored = picture / 16
    stored[:2, :50] = 1.0
    grey = radiograph_grey(radiograph(stored))
    assert grey.shape == (300, 200)
    assert grey.dtype == np.float32
    assert_allclose(grey[10:], np.clip((picture[10:] - 0.005) / 0.99, 0, 1), atol=0.01)
    assert grey.min() == 0
    assert grey.max() == 1


def test_a_radiograph_of_dicom_gives_the_plane_that_its_picture_gives() -> None:
    rows, columns = np.mgrid[:120, :90]
    picture = ((rows + 2 * columns) / 300).astype(np.float32)
    square = square_to_read((120, 90), [], roi="none", margin=0)
    low, high = np.percentile(picture, (0.5, 99.5))
    expected = resample(np.clip((picture - low) / (high - low), 0, 1).astype(np.float32), square, 64)
    found = resample(radiograph_grey(radiograph(picture * 0.25 + 0.1)), square, 64)
    assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("values", [np.full((5, 6), 0.3), np.full((5, 6), np.nan)])
def test_a_radiograph_without_contrast_becomes_black(values: NDArray[np.float64]) -> None:
    assert (radiograph_grey(radiograph(values)) == 0).all()


def test_pixels_of_a_radiograph_become_square() -> None:
    values = np.random.default_rng(0).random((50, 80))
    assert radiograph_grey(radiograph(values, aspect=2.0)).shape == (100, 80)
