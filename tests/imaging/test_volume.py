from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.imaging.volume import Geometry, PixelSpacing, Planes, Source, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

STACK = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)


def volume_of(stack: Planes, asked: list[list[int]] | None = None) -> Volume:
    def reader(planes: Sequence[int]) -> Planes:
        if asked is not None:
            asked.append(list(planes))
        return stack[list(planes)]

    return Volume(
        geometry=Geometry(shape=(3, 4, 5), affine=np.eye(4)),
        modality="CT",
        sources=(Source(path=Path("ct.dcm"), sha256="0" * 64),),
        reader=reader,
    )


def test_all_planes_are_read_where_none_are_named() -> None:
    np.testing.assert_array_equal(volume_of(STACK).read(), STACK)


def test_only_the_planes_asked_for_are_decoded_and_in_that_order() -> None:
    asked: list[list[int]] = []
    values = volume_of(STACK, asked).read([2, 0])
    assert asked == [[2, 0]]
    assert values[0, 0, 0] == 40
    assert values[1, 0, 0] == 0


def test_making_a_volume_decodes_nothing() -> None:
    asked: list[list[int]] = []
    volume_of(STACK, asked)
    assert asked == []


def test_values_that_are_there_are_a_volume_too() -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    geometry = Geometry(shape=(2, 3, 4), affine=np.diag([1.0, 1, 2, 1]))
    volume = Volume.in_memory(values, geometry, "CT")
    assert volume.read([1]).tolist() == values[[1]].tolist()
    assert volume.read().dtype == np.float32
    assert (volume.modality, volume.sources) == ("CT", ())
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\), got \(2, 4, 3\)"):
        Volume.in_memory(values.transpose(0, 2, 1), geometry, "CT")


@pytest.mark.parametrize("index", [-1, 3])
def test_a_plane_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"from 0 to 2, got {index}"):
        volume_of(STACK).read([index])


@pytest.mark.parametrize("wrong", [STACK[:, :, :4], STACK.astype(np.float64)])
def test_a_reader_that_breaks_its_promise_is_found_out(wrong: Planes) -> None:
    with pytest.raises(ValueError, match="from the reader"):
        volume_of(wrong).read()


def test_a_geometry_is_never_invalid() -> None:
    singular = np.diag([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="shape"):
        Geometry(shape=(1, 0, 5), affine=None)
    for affine in (np.eye(3), np.full((4, 4), np.nan), singular):
        with pytest.raises(ValueError, match="invertible 4x4 affine"):
            Geometry(shape=(1, 4, 5), affine=affine)


# Where the planes lie


def geometry_of(columns: list[float], rows: list[float], planes: list[float]) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = np.array([columns, rows, planes]).T
    return Geometry(shape=(3, 4, 5), affine=affine)


@pytest.mark.parametrize(
    ("columns", "rows", "planes", "name"),
    [
        ([1, 0, 0], [0, 1, 0], [0, 0, 3], "axial"),
        ([1, 0, 0], [0, 1, 0], [0, 0, -3], "axial"),
        ([0, 1, 0], [0, 0, -1], [3, 0, 0], "sagittal"),
        ([1, 0, 0], [0, 0, -1], [0, 3, 0], "coronal"),
        ([1, 0, 0], [0, 0.8, -0.6], [0, 1.8, 2.4], "axial"),
        ([1, 0, 0], [0, 0.7, -0.714], [0, 2.1, 2.1], "oblique"),
    ],
)
def test_a_plane_is_named_after_the_axis_that_its_normal_is_nearest_to(
    columns: list[float], rows: list[float], planes: list[float], name: str
) -> None:
    assert geometry_of(columns, rows, planes).plane_name == name


def test_steps_normal_and_tilt_follow_from_the_affine() -> None:
    # The step leans by 30 degrees: its height over the planes is 3, and 3 tan 30 along the rows.
    geometry = geometry_of([0.5, 0, 0], [0, 0.25, 0], [3 * np.tan(np.radians(30)), 0, -3])
    assert geometry.steps == pytest.approx((3 / np.cos(np.radians(30)), 0.25, 0.5))
    assert geometry.normal is not None
    np.testing.assert_allclose(geometry.normal, [0, 0, -1], atol=1e-12)
    assert geometry.tilt == pytest.approx(30)


def test_of_an_image_at_an_unknown_place_nothing_is_made_up() -> None:
    spacing = PixelSpacing(row=0.3, column=0.2, kind="detector")
    geometry = Geometry(shape=(1, 4, 5), affine=None, spacing=spacing, aspect=1.5)
    assert (geometry.steps, geometry.normal, geometry.plane_name, geometry.tilt) == (None, None, None, None)
    assert geometry.spacing == spacing


@pytest.mark.parametrize("distance", [0, -1, np.nan, np.inf])
def test_a_spacing_is_never_impossible(distance: float) -> None:
    with pytest.raises(ValueError, match="above 0 mm"):
        PixelSpacing(row=1, column=distance, kind="patient")
    with pytest.raises(ValueError, match="height of a pixel"):
        Geometry(shape=(1, 4, 5), affine=None, aspect=distance)
