"""Evidence lands on the pixels that it is about."""

from __future__ import annotations

import numpy as np
import pytest

from osteoscope.imaging.prepare import Square
from osteoscope.inference.engine import Judgement, PlaneReadings
from osteoscope.inference.evidence import closed_form_evidence, evidence_on_image, on_pixels


def test_values_are_bilinear_between_cell_centres_and_constant_beyond_them() -> None:
    values = np.array([[[0.0, 4.0]]], dtype=np.float32)
    # Two cells of 4 pixels: centres at 2 and 6; pixel centres at 0.5, 1.5, … 7.5.
    row = on_pixels(values, Square(left=0, top=0, side=8), (8, 8))[0, 3]
    np.testing.assert_allclose(row, [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4], atol=1e-6)


def test_values_stay_inside_of_the_square_that_was_read() -> None:
    shown = on_pixels(np.ones((1, 3, 3), dtype=np.float32), Square(left=2, top=5, side=4), (12, 10))[0]
    expected = np.zeros((12, 10))
    expected[5:9, 2:6] = 1
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_a_pixel_at_the_edge_holds_what_lies_in_its_part_of_the_square() -> None:
    shown = on_pixels(np.full((1, 2, 2), 8, dtype=np.float32), Square(left=0.5, top=1.75, side=2), (5, 4))[0]
    # Columns 0.5 to 2.5 fill half of pixel 0, pixel 1, half of pixel 2; rows 1.75 to 3.75 a quarter of 1, 2, 0.75 of 3.
    np.testing.assert_allclose(shown, 8 * np.outer([0, 0.25, 1, 0.75, 0], [0.5, 1, 0.5, 0]), atol=1e-6)


def test_a_square_beyond_the_image_is_cut() -> None:
    values = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    shown = on_pixels(values, Square(left=-4, top=-4, side=8), (4, 4))[0]
    # Only the last cell (value 3) and what leads to it is in the image.
    assert shown[3, 3] == pytest.approx(3)
    assert shown[0, 3] > shown[0, 0]


def test_left_stays_left_and_up_stays_up() -> None:
    values = np.zeros((1, 4, 4), dtype=np.float32)
    values[0, 0, 3] = 1
    shown = on_pixels(values, Square(left=0, top=0, side=40), (40, 40))[0]
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert row < 10
    assert column >= 30


@pytest.mark.parametrize("square", [(0.0, 0.0, 30.0), (4.3, -2.6, 17.9), (11.2, 7.7, 3.1), (12.9, 20.1, 0.4)])
def test_pixels_take_the_mean_over_their_area(square: tuple[float, float, float]) -> None:
    """Beside a naive twin that looks at very many points of each pixel."""
    left, top, side = square
    values = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    shown = on_pixels(values, Square(left=left, top=top, side=side), (24, 30))
    fine = 250

    def at(pixels: int, cells: int, start: float) -> np.ndarray:
        place = ((np.arange(pixels * fine) + 0.5) / fine - start) * cells / side
        share = np.array([np.interp(place - 0.5, np.arange(cells), unit) for unit in np.eye(cells)])
        share[:, (place < 0) | (place > cells)] = 0
        mean: np.ndarray = share.reshape(cells, pixels, fine).mean(axis=2)
        return mean

    expected = np.einsum("iy,cij,jx->cyx", at(24, 5, top), values, at(30, 7, left))
    # The edge of a square falls on a point at best to 1 / 250 of a pixel.
    np.testing.assert_allclose(shown, expected, atol=2e-2)
    np.testing.assert_allclose(shown.sum(axis=(1, 2)), expected.sum(axis=(1, 2)), atol=0.2)


def test_evidence_is_shared_out_by_area() -> None:
    evidence = np.zeros((2, 1, 2, 2), dtype=np.float32)
    evidence[0], evidence[1] = 5, 3
    whole, part = Square(left=0, top=0, side=10), Square(left=4, top=2, side=4)
    shown = evidence_on_image(evidence, [whole, part], (10, 10))[0]
    # The first look says 4 * 5 = 20 over 100 pixels, the second 4 * 3 = 12 over 16. The second's cells are 2 wide,
    # so it falls from 1 pixel within its edge to 1 beyond: there its mean is 0.75, and 0.25.
    expected = np.full((10, 10), 0.2)
    fading = [0.25, 0.75, 1, 1, 0.75, 0.25]
    expected[1:7, 3:9] += 0.75 * np.outer(fading, fading)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_evidence_fades_beyond_a_square_only_where_there_is_image() -> None:
    evidence = np.ones((1, 1, 2, 2), dtype=np.float32)
    # Cells of 2 pixels, with 2 pixels of image above, 1 below, and none beside them.
    square = Square(left=0, top=2, side=4)
    shown = evidence_on_image(evidence, [square], (7, 4))[0]
    fading = [0, 0.25, 0.75, 1, 1, 0.75, 0.25]
    np.testing.assert_allclose(shown, 0.25 * np.outer(fading, np.ones(4)), atol=1e-6)
    within = evidence_on_image(evidence, [Square(left=0, top=2.5, side=4)], (7, 4))[0]
    # Below, half a pixel is less than half a cell: there it ends with the square.
    np.testing.assert_allclose(within[6], 0.25 * 0.5, atol=1e-6)
    assert within.sum() == pytest.approx(4)


@pytest.mark.parametrize("side", [40.0, 23.7, 9.1, 2.3, 0.6])
def test_over_the_pixels_the_looks_add_up_to_what_they_say(side: float) -> None:
    """However the grid falls on the pixels, and however much finer it is than they are."""
    evidence = np.random.default_rng(1).normal(size=(3, 2, 6, 6)).astype(np.float32)
    squares = [
        Square(left=0, top=0, side=50),
        Square(left=3.3, top=8.2, side=side),
        Square(left=9.9, top=1.4, side=side),
    ]
    shown = evidence_on_image(evidence, squares, (50, 50))
    np.testing.assert_allclose(shown.sum(axis=(1, 2)), evidence.sum(axis=(0, 2, 3)), atol=1e-4)


def test_without_a_look_there_is_no_evidence() -> None:
    shown = evidence_on_image(np.empty((0, 2, 4, 4), dtype=np.float32), [], (5, 6))
    np.testing.assert_array_equal(shown, np.zeros((2, 5, 6)))


def test_members_are_averaged_after_each_has_weighed_its_planes() -> None:
    def reading(value: float) -> PlaneReadings:
        maps = np.full((2, 1, 2, 2), value, dtype=np.float32)
        return PlaneReadings(
            scores=np.zeros(2, np.float32), vectors=np.zeros((2, 1), np.float32), maps=maps, lesions=maps[:, 0]
        )

    def judgement(weights: list[float]) -> Judgement:
        return Judgement(logits=np.zeros(1, np.float32), weights=np.array(weights, np.float32))

    evidence = closed_form_evidence([reading(4), reading(8)], [judgement([1, 0]), judgement([0.5, 0.5])])
    # Plane 0: (4 * 1 + 8 * 0.5) / 2 members / 4 cells = 1; plane 1: (0 + 4) / 2 / 4 = 0.5.
    np.testing.assert_allclose(evidence[:, 0], [np.full((2, 2), 1), np.full((2, 2), 0.5)])
