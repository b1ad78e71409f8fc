"""Searching a radiograph more closely: which squares are read, and how what they say is joined with the first look."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from osteoscope.config import PreparationConfig
from osteoscope.imaging.prepare import Square
from osteoscope.inference.engine import Member, MemberEngine, PlaneReadings
from osteoscope.inference.radiographs import closer_squares, joined_likelihood, prepare_pixels


def whole(shape: tuple[int, int]) -> Square:
    """Give the square that a first look reads of an image."""
    rows, columns = shape
    side = max(shape)
    return Square(left=(columns - side) / 2, top=(rows - side) / 2, side=side)


@pytest.mark.parametrize(
    ("shape", "squares"),
    [((300, 300), 25), ((600, 300), 10), ((300, 600), 10), ((600, 150), 5), ((600, 240), 10), ((1500, 1000), 15)],
)
def test_closer_squares_are_a_third_as_wide_cover_the_image_and_overlap_by_half(
    shape: tuple[int, int], squares: int
) -> None:
    closer = closer_squares(whole(shape), shape)
    assert len(closer) == squares
    assert {square.side for square in closer} == {max(shape) / 3}
    covered = np.zeros(shape, dtype=bool)
    for square in closer:
        top, left = max(0, round(square.top)), max(0, round(square.left))
        covered[top : round(square.top + square.side), left : round(square.left + square.side)] = True
    assert covered.all()
    for extent, places in zip(
        shape, ({square.top for square in closer}, {square.left for square in closer}), strict=True
    ):
        # No further from each other than half of a side, and beside the image no more than one that is wider must.
        assert np.diff(sorted(places)).max(initial=0) <= max(shape) / 6 + 1e-9
        side = max(shape) / 3
        assert all((place >= 0 and place + side <= extent + 1e-9) or side > extent for place in places)


def test_both_looks_have_to_agree_and_where_no_closer_one_was_the_first_stands() -> None:
    first = np.full((4, 4), 0.64, dtype=np.float32)
    square = Square(left=-10, top=-10, side=80)
    # The upper left quarter of the grid, and the same quarter again.
    corner = Square(left=-10, top=-10, side=40)
    maps = np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.3)]).astype(np.float32)
    joined = joined_likelihood(first, square, maps, [corner, corner])
    expected = np.full((4, 4), 0.64)
    # Their mean is 0.25, and the root of 0.64 x 0.25 is 0.4.
    expected[:2, :2] = 0.4
    np.testing.assert_allclose(joined, expected, rtol=1e-5)


def test_what_a_closer_look_sees_is_laid_where_it_is() -> None:
    random = np.random.default_rng(0)
    first = np.ones((8, 8), dtype=np.float32)
    fine = random.random((1, 8, 8)).astype(np.float32)
    # It covers columns 2 to 6 and rows 4 to 8 of the first look's cells, two of its own cells to each on either axis.
    joined = joined_likelihood(first, Square(left=0, top=0, side=80), fine, [Square(left=20, top=40, side=40)])
    np.testing.assert_allclose(joined[:4], 1)
    np.testing.assert_allclose(joined[4:, [0, 1, 6, 7]], 1)
    # Within, a cell is about the mean of the four that it holds; between their centres it is bilinear.
    means = fine[0].reshape(4, 2, 4, 2).mean(axis=(1, 3))
    seen = joined[4:, 2:6].astype(np.float64) ** 2
    assert np.corrcoef(seen.ravel(), means.ravel())[0, 1] > 0.97
    assert seen.mean() == pytest.approx(means.mean(), rel=0.02)


class BrightEngine:
    """Holds to be lesion what is bright, and notes the planes that it is shown."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def read(self, planes: np.ndarray) -> PlaneReadings:
        """Give the brightness of each quarter of a quarter as its likelihood of lesion."""
        self.seen.append(planes)
        number, size = len(planes), planes.shape[-1] // 8
        likely = planes[:, 0].reshape(number, 8, size, 8, size).mean(axis=(2, 4)).astype(np.float32)
        nothing = np.zeros((number, 2, 8, 8), dtype=np.float32)
        return PlaneReadings(
            scores=np.zeros(number, np.float32), vectors=np.zeros((number, 3), np.float32), maps=nothing, lesions=likely
        )


@pytest.mark.parametrize(("second_look", "searched"), [(True, 25), (False, 0)])
def test_an_image_is_searched_where_its_lesion_is_to_be_found(*, second_look: bool, searched: int) -> None:
    picture = np.full((160, 160), 0.1, dtype=np.float32)
    picture[100:140, 20:60] = 0.9
    preparation = PreparationConfig(size=32, second_look=second_look)
    prepared = prepare_pixels([picture, picture[:, ::-1].copy()], [(), ()], preparation)
    engine = BrightEngine()
    read = prepared.read([Member(engine=cast("MemberEngine", engine), encoder=None)])
    assert [len(planes) for planes in engine.seen[:2]] == ([2, 2 * searched] if second_look else [2])
    assert read.lesions.shape == (2, 8, 8)
    # Both looks see the same, so their joint map is what either sees, but for the edge: 0.9 in four cells of 20 pixels.
    for likely, columns in zip(read.lesions, (slice(1, 3), slice(5, 7)), strict=True):
        assert likely[5:7, columns].min() > 0.8
        assert likely[:4].max() < 0.11
    assert (read.first_looks, read.closer_looks) == ((1, 1), (searched, searched))
    assert [len(looks) for looks in read.looks] == ([27, 27] if second_look else [1, 1])
    # Each look reads what its planes show, image by image: what the engine holds of one is how bright that part is.
    for place, image in enumerate((picture, picture[:, ::-1])):
        start = read.starts[place]
        for number, look in enumerate(read.looks[place]):
            part = look.rectangle
            rows, columns = (
                slice(max(0, round(low)), round(low + extent))
                for low, extent in ((part.top, part.height), (part.left, part.width))
            )
            shown = read.readings[0].lesions[start + number]
            assert shown.mean() == pytest.approx(image[rows, columns].mean(), abs=0.03)
    # Both regions are round the bright square, with their margin and a little more, and the first look has no say.
    assert read.speaking == ((tuple(range(1, 27)), tuple(range(28, 54))) if second_look else ((0,), (1,)))
    assert list(map(list, read.regions)) == ([[26], [53]] if second_look else [[], []])
    if second_look:
        for looks, centre in zip(read.looks, (40, 120), strict=True):
            region = looks[-1]
            assert region.likelihood is not None
            assert region.rectangle.left + region.rectangle.width / 2 == pytest.approx(centre, abs=8)
            assert region.rectangle.top + region.rectangle.height / 2 == pytest.approx(120, abs=8)
            assert 60 <= region.rectangle.width <= 100
