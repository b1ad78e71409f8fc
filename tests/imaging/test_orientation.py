"""The same scan in every order of its axes is one array; what lies where is checked with nibabel's axis codes."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from osteoscope.imaging.orientation import Turn, plane_axis_of, turn_to_display

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Image Orientation (Patient) as scanners write it: where rows, then columns, of pixels run to, in LPS.
USUAL = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
}


def affine_of(
    rotation: NDArray[np.float64], steps: tuple[float, float, float] = (0.5, 0.7, 3.0)
) -> NDArray[np.float64]:
    """Steps along the columns of a rotation, and some origin."""
    affine = np.eye(4)
    affine[:3, :3] = rotation * steps
    affine[:3, 3] = (-31.5, 12.25, -470.0)
    return affine


def usual_affine(plane: str) -> NDArray[np.float64]:
    right, down = (np.array(direction, dtype=np.float64) for direction in USUAL[plane])
    return affine_of(np.stack([right, down, np.cross(right, down)], axis=1))


def rotation_about(axis: int, degrees: float) -> NDArray[np.float64]:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    one, other = (place for place in range(3) if place != axis)
    rotation = np.eye(3)
    rotation[[one, one, other, other], [one, other, one, other]] = (cosine, -sine, sine, cosine)
    return rotation


def stored_otherwise(
    values: NDArray[np.int64], affine: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], int]]:
    """Store ``[i, j, k]`` in all 48 orders of its axes; say where axis k has come to."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        moved = values.transpose(order)[:: signs[0], :: signs[1], :: signs[2]]
        to_first = np.zeros((4, 4))
        to_first[3, 3] = 1
        for place, (axis, sign) in enumerate(zip(order, signs, strict=True)):
            to_first[axis, place] = sign
            to_first[axis, 3] = 0 if sign > 0 else values.shape[axis] - 1
        yield moved, affine @ to_first, order.index(2)


def read_through(turn: Turn, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read ``[i, j, k]`` plane by plane as a reader does: (planes, rows, columns)."""
    stored = values.transpose(2, 1, 0)
    planes = np.moveaxis(stored, 2 - turn.axes[2], 0)
    wanted = [turn.stored_plane(plane) for plane in range(turn.shape[0])]
    return turn.turned(planes[wanted])


VALUES = np.arange(4 * 5 * 6).reshape(4, 5, 6)


@pytest.mark.parametrize("plane", USUAL)
def test_a_series_of_the_usual_orientation_stays_as_it_is(plane: str) -> None:
    affine = usual_affine(plane)
    turn = turn_to_display(affine, (4, 5, 6))
    assert turn.axes == (0, 1, 2)
    assert turn.backwards == (False, False, False)
    assert turn.shape == (6, 5, 4)
    assert_array_equal(turn.affine, affine)


@pytest.mark.parametrize(("plane", "codes"), [("axial", "LPS"), ("sagittal", "PIR"), ("coronal", "LIP")])
def test_columns_rows_and_planes_run_as_a_radiologist_looks_at_them(plane: str, codes: str) -> None:
    for moved, affine, axis in stored_otherwise(VALUES, usual_affine(plane)):
        turn = turn_to_display(affine, moved.shape, plane_axis=axis)
        assert "".join(nib.aff2axcodes(LPS_RAS @ turn.affine)) == codes


ROTATIONS = [
    *(rotation_about(axis, degrees) for axis in range(3) for degrees in (3.0, -20.0, 44.0, 45.0, 90.0, 135.0)),
    *(np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] for seed in range(12)),
]


@pytest.mark.parametrize("plane", USUAL)
@pytest.mark.parametrize("rotation", ROTATIONS, ids=range(len(ROTATIONS)))
def test_all_orders_of_storage_give_the_same_array_and_affine(plane: str, rotation: NDArray[np.float64]) -> None:
    affine = usual_affine(plane)
    affine[:3, :3] = rotation @ affine[:3, :3]
    found = []
    for moved, stored, axis in stored_otherwise(VALUES, affine):
        # As a NIfTI has it.
        rounded = stored.astype(np.float32).astype(np.float64)
        turn = turn_to_display(rounded, moved.shape, plane_axis=axis)
        found.append((read_through(turn, moved), turn.affine))
    for values, turned in found:
        assert_array_equal(values, found[0][0])
        assert_allclose(turned, found[0][1], atol=1e-4)


@pytest.mark.parametrize("rotation", ROTATIONS, ids=range(len(ROTATIONS)))
def test_every_value_keeps_its_place_and_no_plane_is_mirrored(rotation: NDArray[np.float64]) -> None:
    affine = affine_of(rotation)
    turn = turn_to_display(affine, VALUES.shape)
    planes = read_through(turn, VALUES)
    stored = np.stack(np.unravel_index(planes.ravel(), VALUES.shape), axis=1)
    turned = np.stack(np.unravel_index(np.arange(planes.size), planes.shape)[::-1], axis=1)
    assert_allclose(places(turn.affine, turned), places(affine, stored), atol=1e-9)
    assert np.linalg.det(turn.affine[:3, :3]) > 0


def places(affine: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = indices @ affine[:3, :3].T + affine[:3, 3]
    return result


def test_a_tilted_gantry_keeps_its_shear() -> None:
    affine = usual_affine("axial")
    affine[:3, 2] = (0, 1.1, 3)
    for moved, stored, axis in stored_otherwise(VALUES, affine):
        turn = turn_to_display(stored, moved.shape, plane_axis=axis)
        assert_allclose(turn.affine, affine, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "sizes", "axis"),
    [
        ((0.5, 0.5, 3.0), (512, 512, 30), 2),
        ((3.3, 0.6, 0.6), (20, 384, 384), 0),
        ((0.9, 4.0, 0.9), (320, 24, 320), 1),
        ((0.98, 0.6, 0.98), (512, 700, 512), 1),
        ((0.9766, 0.97656, 0.625), (512, 512, 500), 2),
        ((1.0, 1.0, 1.0), (60, 55, 52), None),
        ((1.0, 1.005, 1.05), (60, 55, 52), None),
        ((0.5, 3.0, 0.8), (60, 55, 52), 1),
        ((0.5, 0.8, 1.2), (60, 55, 52), None),
        ((1.0, 1.0, 1.0), (256, 1, 256), 1),
        ((1.0, 3.0, 1.0), (1, 1, 256), 1),
    ],
)
def test_planes_are_told_by_the_step_that_differs(
    steps: tuple[float, float, float], sizes: tuple[int, int, int], axis: int | None
) -> None:
    assert plane_axis_of(steps, sizes) == axis
