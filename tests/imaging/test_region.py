"""Regions of a map of likelihood: how many, where, how large, beside a naive twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from osteoscope.imaging.prepare import SMALLEST_SQUARE, Square
from osteoscope.imaging.region import (
    LEAST_LIKELIHOOD,
    MOST_REGIONS,
    SHARE_OF_LARGEST,
    Region,
    find_regions,
    highest_likelihoods,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SQUARE = Square(left=0, top=0, side=160)
SHAPE = (160, 160)


def place(region: Region) -> tuple[float, float, float]:
    return region.square.left, region.square.top, region.square.side


def peak(region: Region) -> float:
    assert region.likelihood is not None
    return region.likelihood


def blobs(*places: tuple[slice, slice, float], cells: tuple[int, int] = (8, 8)) -> NDArray[np.float32]:
    """A map that is 0 but for some rectangles of cells."""
    likelihood = np.zeros(cells, dtype=np.float32)
    for rows, columns, value in places:
        likelihood[rows, columns] = value
    return likelihood


# How the numbers below are worked out. A cell becomes 9 x 9 places, and the sum of the map 81 times as large. An even
# rectangle of cells keeps its value from centre to centre of its outermost cells, and to the edge of the map where it
# touches that. Beyond, i places along one axis and j along the other, it has (9 - i)(9 - j) / 81 of its value, down to
# 0 at the next cell's centre: 72, 64, 63, 56, 54, 49, 48, 45, 42, 40, 36 ... of 81; places with the same are tied.
# Those that have at least 45 of 81 reach 4 places beyond the centres, which is the cells' edge.


def test_a_region_is_framed_with_its_margin_in_the_images_coordinates() -> None:
    likelihood = blobs((slice(2, 4), slice(4, 7), 0.9))
    (region,) = find_regions(likelihood, Square(left=-10, top=5, side=160), (200, 200), margin=0.25)
    # 81 * 6 * 0.9 = 437 places. 10 x 19 keep the value, and a step along an axis adds 2 * 10 + 2 * 19 = 58; with the
    # corners, 388 have at least 48 of 81, and 446 at least 45: the cells' edge. Cells of 20: columns 4 to 7 are 70 to
    # 130, rows 2 to 4 are 45 to 85. 60 * 1.5 = 90 about (100, 65).
    assert_allclose(place(region), [55, 20, 90])
    assert peak(region) == pytest.approx(0.9)


# Two by two cells: 10 x 10 places keep the value, and a step along an axis adds 40. Of the value, 144 places have at
# least 64 of 81; 184 at least 63; 244, 48; 284, 45; 300, 40; 344, 36.
@pytest.mark.parametrize(
    ("value", "wide"),
    [
        (1.0, 20),  # 324 places: 5 steps
        (0.8, 18),  # 259: 4 steps
        (0.5, 14),  # 162: 2 steps
        (0.3, 10),  # 97 would be enough, but 100 are equal
        (0.06, 10),
    ],
)
def test_the_more_likely_a_lesion_is_the_larger_its_region(value: float, wide: int) -> None:
    likelihood = blobs((slice(3, 5), slice(3, 5), value))
    (region,) = find_regions(likelihood, Square(left=0, top=0, side=720), (720, 720), margin=0)
    # Places of 10, about the middle.
    assert_allclose(place(region), [360 - 5 * wide, 360 - 5 * wide, 10 * wide])


def test_a_region_covers_what_the_map_sums_to_however_high_the_ground_that_it_rises_from() -> None:
    likelihood = blobs((slice(1, 7), slice(1, 7), 0.2), (slice(3, 5), slice(3, 5), 0.3))
    (region,) = find_regions(likelihood, Square(left=0, top=0, side=720), (720, 720), margin=0)
    # 81 * (32 * 0.2 + 4 * 0.3) = 616 places. 26 x 26 = 676 rise over 0.2: 10 x 10 and 8 steps on each side. Below the
    # last step, which has 9 of 81, lie 20 in each of the four corners, and without these 80 there are too few. All of
    # the ground, 6 cells wide, is higher than half of the peak.
    assert_allclose(place(region), [230, 230, 260])
    assert peak(region) == pytest.approx(0.3)


def test_a_region_has_a_place_where_the_map_sums_to_less_than_one() -> None:
    # A picture of 5 x 5 pixels, which one place of 9 x 9 shows.
    (region,) = find_regions(np.array([[0.3]], dtype=np.float32), Square(left=-20, top=-20, side=45), (5, 5), margin=0)
    assert_allclose(place(region), [2.5 - SMALLEST_SQUARE / 2, 2.5 - SMALLEST_SQUARE / 2, SMALLEST_SQUARE])
    assert peak(region) == pytest.approx(0.3)


def test_two_regions_that_hold_about_as_much_come_in_the_order_of_what_they_hold() -> None:
    likelihood = blobs((slice(0, 2), slice(0, 2), 0.6), (slice(5, 7), slice(5, 7), 0.8))
    first, second = find_regions(likelihood, Square(left=0, top=0, side=144), SHAPE, margin=0.5)
    # 81 * 4 * (0.6 + 0.8) = 454 places. The cut is at 0.8 * 54 / 81 = 0.6 * 72 / 81, which 232 of the stronger one
    # and 224 of the weaker one reach; over it are 192 and 196. Places of 2: the stronger one has 10 and 3 on each side,
    # 92 to 124; the weaker one 14 from the edge of the map, and 1.
    assert_allclose(place(first), [76, 76, 64])
    assert_allclose(place(second), [-15, -15, 60])
    assert_allclose([peak(first), peak(second)], [0.8, 0.6])


def test_a_region_that_holds_much_less_is_left_out() -> None:
    likelihood = blobs((slice(0, 3), slice(0, 3), 0.9), (slice(6, 7), slice(6, 7), 0.9))
    (region,) = find_regions(likelihood, SQUARE, SHAPE, margin=0)
    # 81 * 10 * 0.9 = 729 places: 673 and 37 have at least 48 of 81, 719 and 41 at least 45.
    assert_allclose(place(region), [0, 0, 60])


def test_of_many_regions_as_many_are_kept_as_are_looked_at() -> None:
    likelihood = blobs(*((slice(3 * row, 3 * row + 2), slice(0, 2), 0.7) for row in range(3)))
    assert len(find_regions(likelihood, SQUARE, SHAPE, margin=0)) == MOST_REGIONS == 2


def test_regions_that_touch_at_a_corner_alone_are_two() -> None:
    likelihood = blobs((slice(2, 4), slice(2, 4), 0.8), (slice(4, 6), slice(4, 6), 0.8))
    first, second = find_regions(likelihood, SQUARE, SHAPE, margin=0)
    # 518 places: by themselves, 2 * 244 have at least 48 of 81, and 2 * 284 at least 45. Between them a place has
    # ((9 - i)(9 - j) + ij) / 81, which adds 2 * 2 and 2 * 3, and on the way from one to the other 41 and 40.
    assert_allclose(place(first), [40, 40, 40])
    assert_allclose(place(second), [80, 80, 40])


@pytest.mark.parametrize(
    "likelihood",
    [blobs(), np.full((8, 8), LEAST_LIKELIHOOD, dtype=np.float32), np.full((8, 8), np.nan, dtype=np.float32)],
    ids=["nothing", "everywhere unlikely", "NaN"],
)
def test_a_map_that_shows_no_lesion_has_no_region(likelihood: NDArray[np.float32]) -> None:
    assert find_regions(likelihood, SQUARE, SHAPE, margin=0.2) == ()


def test_a_map_that_is_nan_somewhere_shows_nothing() -> None:
    likelihood = blobs((slice(0, 2), slice(0, 2), 0.9))
    likelihood[7, 7] = np.nan
    assert find_regions(likelihood, SQUARE, SHAPE, margin=0.2) == ()


def test_where_everything_is_likely_the_region_is_what_was_read() -> None:
    likelihood = np.full((8, 8), 0.9, dtype=np.float32)
    (region,) = find_regions(likelihood, SQUARE, SHAPE, margin=0.2)
    assert_allclose(place(region), [0, 0, 160])
    assert peak(region) == likelihood.max()


@pytest.mark.parametrize("value", [0.051, 0.11, 0.3, 0.7, 1.0])
def test_a_likelihood_is_never_above_the_maps(value: float) -> None:
    likelihood = np.full((5, 7), value, dtype=np.float32)
    (region,) = find_regions(likelihood, SQUARE, SHAPE, margin=0.2)
    assert peak(region) == likelihood.max()


def test_a_region_at_the_edge_is_framed_beyond_it() -> None:
    likelihood = blobs((slice(0, 2), slice(6, 8), 0.9))
    (region,) = find_regions(likelihood, SQUARE, SHAPE, margin=0.25)
    # 292 places: 14 x 14 keep the value, 286 have at least 48 of 81, and 314 at least 45.
    # 120 to 160 and 0 to 40, centre (140, 20), 40 * 1.5 = 60.
    assert_allclose(place(region), [110, -10, 60])


# A picture of 40 x 120 pixels, letterboxed: of 6 x 6 cells of 20, rows 2 and 3 show it.
WIDE, LETTERBOXED = (40, 120), Square(left=0, top=-40, side=120)


def test_what_lies_wholly_beside_the_image_is_no_region() -> None:
    likelihood = blobs((slice(0, 2), slice(1, 3), 0.9), (slice(5, 6), slice(4, 6), 0.9), cells=(6, 6))
    # Between the centres of rows 1 and 2 the map falls from 0.9 to 0: what reaches into the image, at 0.4, 0.3, 0.2 and
    # 0.1, is the region's fringe. 18 times 1 = 18 places: 14 of the first row have 0.4 * 7 / 9 or more, and then 10 of
    # the second come with 0.3.
    (region,) = find_regions(likelihood, LETTERBOXED, WIDE, margin=0)
    assert peak(region) == pytest.approx(0.4)
    # Places of 20 / 9: 14 about column 40, and two rows.
    assert_allclose(place(region), [40 - 140 / 9, 20 / 9 - 140 / 9, 280 / 9])
    likelihood[1] = 0
    assert find_regions(likelihood, LETTERBOXED, WIDE, margin=0) == ()


def test_a_region_is_cut_at_the_images_edge() -> None:
    likelihood = blobs((slice(1, 3), slice(1, 3), 0.85), cells=(6, 6))
    (region,) = find_regions(likelihood, LETTERBOXED, WIDE, margin=0)
    # What is in the image sums to 9 * 18 * 0.85 = 138 places: 5 x 10 keep the value, 122 have at least 48 of 81, and
    # 142 at least 45.
    # Rows 1 and 2 are -20 to 20, columns 20 to 60; of it, 0 to 20 is in the image: 40 wide, centre (40, 10).
    assert_allclose(place(region), [20, -10, 40])


def test_a_peak_beside_the_image_hides_nothing_in_it() -> None:
    likelihood = blobs((slice(0, 1), slice(0, 6), 1.0), (slice(3, 4), slice(3, 5), 0.3), cells=(6, 6))
    (region,) = find_regions(likelihood, LETTERBOXED, WIDE, margin=0)
    # Row 3 is 20 to 40, columns 3 and 4 are 60 to 100: centre (80, 30). The last 4 of its places below the image's edge
    # left out, (9 - 10 / 9) * 18 * 0.3 = 43 places: 1 x 10 keep the value, 36 have at least 64 of 81, and 58 at least
    # 63, which is two steps. Places of 20 / 9.
    assert_allclose(place(region), [80 - 140 / 9, 30 - 140 / 9, 280 / 9])
    assert peak(region) == pytest.approx(0.3)


def test_an_image_that_is_not_square_is_framed_whole_where_everything_is_likely() -> None:
    (region,) = find_regions(np.full((6, 6), 0.9, dtype=np.float32), LETTERBOXED, WIDE, margin=0.2)
    assert region.square == LETTERBOXED


def test_a_map_of_one_cell_is_likely_everywhere_or_nowhere() -> None:
    (region,) = find_regions(np.array([[0.7]], dtype=np.float32), SQUARE, SHAPE, margin=0.2)
    assert region.square == SQUARE
    assert find_regions(np.array([[0.05]], dtype=np.float32), SQUARE, SHAPE, margin=0.2) == ()


def test_cells_need_not_be_square() -> None:
    likelihood = blobs((slice(1, 2), slice(2, 3), 0.7), cells=(2, 4))
    (region,) = find_regions(likelihood, Square(left=0, top=0, side=80), (80, 80), margin=0)
    # 57 places: 5 x 1 keep the value, 50 have at least 48 of 81, and 61 at least 45. A cell is 40 high and 20 wide:
    # rows 40 to 80, columns 40 to 60.
    assert_allclose(place(region), [30, 40, 40])


def test_a_small_region_is_read_with_its_surroundings() -> None:
    likelihood = blobs((slice(3, 4), slice(3, 4), 0.7))
    (region,) = find_regions(likelihood, Square(left=0, top=0, side=40), (40, 40), margin=0.2)
    # A cell of 5, centre (17.5, 17.5).
    assert_allclose(place(region), [5.5, 5.5, SMALLEST_SQUARE])


def naive_regions(
    likelihood: NDArray[np.float32], square: Square, shape: tuple[int, int], margin: float
) -> list[Region]:
    """The same with scipy's zoom and label, a full sort, one region and one place at a time."""
    fine = ndimage.zoom(likelihood.astype(np.float64), 9, order=1, mode="nearest", grid_mode=True).astype(np.float32)
    wide, tall = square.side / fine.shape[1], square.side / fine.shape[0]
    for row, column in np.ndindex(fine.shape):
        x, y = square.left + (column + 0.5) * wide, square.top + (row + 0.5) * tall
        if not (0 < x < shape[1] and 0 < y < shape[0]):
            fine[row, column] = 0
    if fine.max() <= LEAST_LIKELIHOOD:
        return []
    likeliest = sorted(fine.ravel().tolist(), reverse=True)
    names, count = ndimage.label(fine >= likeliest[max(round(sum(likeliest)), 1) - 1])
    masses = [fine[names == name].sum() for name in range(1, count + 1)]
    found = []
    for name in sorted(range(1, count + 1), key=lambda name: -masses[name - 1])[:MOST_REGIONS]:
        if masses[name - 1] < SHARE_OF_LARGEST * max(masses):
            continue
        rows, columns = np.nonzero(names == name)
        left, right = square.left + columns.min() * wide, square.left + (columns.max() + 1) * wide
        top, bottom = square.top + rows.min() * tall, square.top + (rows.max() + 1) * tall
        side = min(max(max(right - left, bottom - top) * (1 + 2 * margin), SMALLEST_SQUARE), square.side)
        framed = Square(left=(left + right) / 2 - side / 2, top=(top + bottom) / 2 - side / 2, side=side)
        found.append(Region(square=framed, likelihood=fine[names == name].max()))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_regions_agree_with_a_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = (int(rng.integers(1, 24)), int(rng.integers(1, 24)))
    likelihood = rng.random(cells).astype(np.float32)
    if seed % 3:  # a few soft blobs rather than a great many specks
        likelihood = ndimage.gaussian_filter(likelihood, 2)
        likelihood = (likelihood - likelihood.min()) / (np.ptp(likelihood) or 1)
    shape = (int(rng.integers(40, 400)), int(rng.integers(40, 400)))
    side = float(max(shape))
    square = Square(left=(shape[1] - side) / 2, top=(shape[0] - side) / 2, side=side)
    found = find_regions(likelihood, square, shape, margin=0.2)
    expected = naive_regions(likelihood, square, shape, 0.2)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_allclose([*place(one), peak(one)], [*place(other), peak(other)], rtol=1e-6, atol=1e-6)


def test_a_winding_region_is_one() -> None:
    """Rows that hang together at alternate ends, which a search by neighbours would follow step by step."""
    likelihood = np.zeros((31, 31), dtype=np.float32)
    likelihood[::2] = 1
    likelihood[1::4, -1] = likelihood[3::4, 0] = 1
    (region,) = find_regions(likelihood, Square(left=0, top=0, side=310), (310, 310), margin=0)
    assert_allclose(place(region), [0, 0, 310])


def test_the_map_is_left_as_it_was() -> None:
    likelihood = blobs((slice(2, 4), slice(4, 7), 0.8))
    before = likelihood.copy()
    find_regions(likelihood, LETTERBOXED, WIDE, margin=0.2)
    np.testing.assert_array_equal(likelihood, before)


@pytest.mark.parametrize("seed", range(6))
def test_the_highest_likelihood_in_parts_is_that_of_a_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    likelihood = rng.random((int(rng.integers(1, 9)), int(rng.integers(1, 9)))).astype(np.float32)
    square = Square(left=-30, top=10, side=160)
    shape = (150, 120)
    drawn = rng.uniform((-60, -60, 5), (150, 150, 90), size=(20, 3))
    parts = [Square(left=left, top=top, side=side) for left, top, side in drawn]
    rows, columns = ((np.arange(9 * cells) + 0.5) / 9 for cells in likelihood.shape)
    expected = []
    for part in parts:
        highest = 0.0
        for row in rows:
            for column in columns:
                y = square.top + row * square.side / likelihood.shape[0]
                x = square.left + column * square.side / likelihood.shape[1]
                inside = 0 < y < shape[0] and 0 < x < shape[1]
                if inside and 0 <= y - part.top < part.side and 0 <= x - part.left < part.side:
                    at = [[row - 0.5], [column - 0.5]]
                    highest = max(highest, ndimage.map_coordinates(likelihood, at, order=1, mode="nearest")[0])
        expected.append(highest)
    assert_allclose(highest_likelihoods(likelihood, square, shape, parts), expected, atol=1e-5)
    assert any(expected)


def test_a_part_beside_the_map_holds_nothing() -> None:
    beyond = Square(left=300, top=0, side=50)
    assert highest_likelihoods(np.ones((4, 4), dtype=np.float32), SQUARE, SHAPE, [beyond]) == (0,)
    assert highest_likelihoods(np.ones((4, 4), dtype=np.float32), SQUARE, SHAPE, []) == ()
