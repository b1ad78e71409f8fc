from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from osteoscope.imaging.prepare import Square, resample
from osteoscope.imaging.resampling import Rectangle, resample_rectangle, spread

PLANE = np.random.default_rng(0).random((50, 70), dtype=np.float32)


@pytest.mark.parametrize(("left", "top", "side", "size"), [(10, 5, 40, 40), (3.3, 7.1, 31.5, 64), (0.5, 0.25, 48, 19)])
def test_a_square_within_is_resampled_as_a_pictures_is(left: float, top: float, side: float, size: int) -> None:
    expected = resample(PLANE, Square(left=left, top=top, side=side), size)
    rectangle = Rectangle(left=left, top=top, width=side, height=side)
    assert_allclose(resample_rectangle(PLANE, rectangle, (size, size), fill=0), expected, atol=1e-5)


def test_between_pixels_it_is_linear() -> None:
    rectangle = Rectangle(left=10, top=5, width=20, height=30)
    found = resample_rectangle(PLANE, rectangle, (120, 40), fill=0)
    rows, columns = 5 + (np.arange(120) + 0.5) / 4 - 0.5, 10 + (np.arange(40) + 0.5) / 2 - 0.5
    expected = ndimage.map_coordinates(PLANE, np.meshgrid(rows, columns, indexing="ij"), order=1)
    assert_allclose(found, expected, atol=1e-5)


def test_pixels_that_are_not_square_become_square() -> None:
    # 50 rows of 2 mm and 70 columns of 1 mm; 40 x 40 mm at 1 mm.
    plane = np.broadcast_to(np.arange(50, dtype=np.float32)[:, np.newaxis], (50, 70)).copy()
    found = resample_rectangle(plane, Rectangle(left=5, top=10, width=40, height=20), (40, 40), fill=0)
    assert_allclose(found[:, 0], np.arange(40) / 2 + 9.75, atol=1e-5)


def test_what_lies_outside_is_filled_and_what_lies_inside_is_untouched_by_it() -> None:
    found = resample_rectangle(PLANE, Rectangle(left=-20, top=30, width=40, height=40), (40, 40), fill=-7)
    assert (found[:, :20] == -7).all()
    assert (found[20:] == -7).all()
    assert_array_equal(found[:20, 20:], PLANE[30:, :20])


def test_wholly_outside_all_is_filled() -> None:
    assert (resample_rectangle(PLANE, Rectangle(left=500, top=0, width=9, height=9), (5, 5), fill=3) == 3).all()


def test_a_rectangle_far_larger_than_the_plane_takes_no_more_memory_than_its_result() -> None:
    found = resample_rectangle(PLANE, Rectangle(left=-1e6, top=-1e6, width=2e6, height=2e6), (64, 64), fill=0)
    assert found.shape == (64, 64)


@pytest.mark.parametrize(
    ("top", "height", "made"), [(0, 1100, 1111), (-40.3, 1180.6, 1300), (0, 1100, 700), (200.5, 300.2, 900)]
)
def test_a_plane_of_many_rows_is_resampled_as_by_the_whole_matrix(top: float, height: float, made: int) -> None:
    plane = np.random.default_rng(2).random((1100, 9), dtype=np.float32)
    found = resample_rectangle(plane, Rectangle(left=0, top=top, width=9, height=height), (made, 9), fill=-1)
    scale = height / made
    centres = top + (np.arange(made) + 0.5) * scale
    shares = np.maximum(1 - np.abs(np.arange(1100) + 0.5 - centres[:, np.newaxis]) / max(scale, 1), 0)
    outside = (centres < 0) | (centres > 1100)
    shares[~outside] /= shares[~outside].sum(axis=1, keepdims=True)
    assert_allclose(found, np.where(outside[:, np.newaxis], -1, shares @ plane), atol=1e-6)


def test_a_plane_of_many_rows_takes_memory_in_proportion_to_them() -> None:
    plane = np.ones((4000, 8), dtype=np.float32)
    tracemalloc.start()
    try:
        found = resample_rectangle(plane, Rectangle(left=0, top=0, width=8, height=4000), (4040, 8), fill=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_allclose(found, 1, atol=1e-6)
    # The whole matrix would take 65 MB in float32, and as much again four times while it is made.
    assert peak < 30e6


def test_a_map_is_carried_back_to_where_it_was_cut() -> None:
    rectangle = Rectangle(left=-4.7, top=3, width=60, height=40)
    cells = np.random.default_rng(1).random((8, 12), dtype=np.float32)
    found = spread(cells, rectangle, PLANE.shape)
    rows, columns = np.arange(50) + 0.5, np.arange(70) + 0.5
    places = np.meshgrid((rows - 3) / 5 - 0.5, (columns + 4.7) / 5 - 0.5, indexing="ij")
    expected = ndimage.map_coordinates(cells, places, order=1, mode="nearest")
    inside = np.logical_and.outer((rows > 3) & (rows < 43), columns < 55.3)
    assert_allclose(found, np.where(inside, expected, 0), atol=1e-6)
