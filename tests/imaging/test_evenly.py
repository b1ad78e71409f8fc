"""Some of many places, evenly spread."""

from __future__ import annotations

from fractions import Fraction

import pytest

from osteoscope.imaging.evenly import middles, with_ends


@pytest.mark.parametrize(
    ("first", "last", "count", "expected"),
    [
        (0, 9, 4, [0, 3, 6, 9]),
        (0, 10, 2, [0, 10]),
        (3, 11, 5, [3, 5, 7, 9, 11]),
        (0, 4, 1, [2]),
        (7, 7, 1, [7]),
        (7, 7, 5, [7]),
        (0, 3, 9, [0, 1, 2, 3]),
    ],
)
def test_both_ends_are_among_the_places_and_each_is_there_once(
    first: int, last: int, count: int, expected: list[int]
) -> None:
    assert with_ends(first, last, count) == expected


@pytest.mark.parametrize(
    ("size", "count", "expected"), [(12, 3, [2, 6, 10]), (9, 3, [1, 4, 7]), (5, 5, [0, 1, 2, 3, 4]), (10, 1, [5])]
)
def test_the_places_are_the_middles_of_equal_parts(size: int, count: int, expected: list[int]) -> None:
    assert middles(size, count).tolist() == expected


def test_the_middles_lie_where_fractions_put_them() -> None:
    for size in range(1, 40):
        for count in range(1, size + 1):
            expected = [int(Fraction(2 * place + 1, 2) * size / count) for place in range(count)]
            assert middles(size, count).tolist() == expected
