"""A plane is shown with square pixels, and says which side of the patient lies where."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from osteoscope.imaging.volume import Geometry
from osteoscope.report.planes import Sides, as_seen, shape_as_seen, sides_of, with_caption, with_sides


def geometry(across: tuple[float, float, float], down: tuple[float, float, float]) -> Geometry:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = across, down, np.cross(across, down)
    return Geometry(shape=(3, 4, 5), affine=affine)


@pytest.mark.parametrize(
    ("across", "down", "sides"),
    [
        ((1, 0, 0), (0, 1, 0), Sides(left="R", right="L", top="A", bottom="P")),
        ((0, 1, 0), (0, 0, -1), Sides(left="A", right="P", top="H", bottom="F")),
        ((1, 0, 0), (0, 0, -1), Sides(left="R", right="L", top="H", bottom="F")),
        ((0.96, 0.28, 0), (0, 0, -1), Sides(left="R", right="L", top="H", bottom="F")),
        ((0.8, 0.6, 0), (-0.6, 0.8, 0), Sides(left="RA", right="LP", top="AL", bottom="PR")),
    ],
    ids=["axial", "sagittal", "coronal", "turned by 16 degrees", "turned by 37 degrees"],
)
def test_the_sides_are_those_of_dicom(
    across: tuple[float, float, float], down: tuple[float, float, float], sides: Sides
) -> None:
    assert sides_of(geometry(across, down)) == sides


def test_where_the_place_is_unknown_no_side_is_named() -> None:
    assert sides_of(Geometry(shape=(1, 4, 5), affine=None)) is None


@pytest.mark.parametrize(
    ("shape", "aspect", "seen"),
    [
        ((100, 80), 1.0, (100, 80)),
        ((100, 80), 2.5, (250, 80)),
        ((100, 80), 0.5, (100, 160)),
        ((2560, 640), 1.0, (1280, 320)),
        ((100, 1000), 20.0, (1280, 640)),
        ((4, 20000), 1.0, (1, 1280)),
    ],
)
def test_pixels_are_shown_square_and_none_is_lost_below_the_longest_side(
    shape: tuple[int, int], aspect: float, seen: tuple[int, int]
) -> None:
    assert shape_as_seen(shape, aspect=aspect) == seen


def test_left_stays_left_and_up_stays_up() -> None:
    plane = np.zeros((20, 10), dtype=np.float32)
    plane[2, 8] = 1
    row, column = np.unravel_index(as_seen(plane, (40, 40)).argmax(), (40, 40))
    assert row in (4, 5)
    assert 32 <= column <= 35
    assert as_seen(plane, (20, 10)) is plane


def test_letters_stand_at_the_edges_and_the_picture_that_was_given_stays_as_it_is() -> None:
    picture = Image.new("RGB", (300, 200))
    shown = np.asarray(with_sides(picture, Sides(left="R", right="L", top="A", bottom="P")).convert("L"))
    rows, columns = np.nonzero(shown > 128)
    for row, column in ((100, 15), (100, 285), (15, 150), (185, 150)):
        assert (np.hypot(rows - row, columns - column) < 12).sum() > 10
    assert picture.getbbox() is None


def test_a_caption_stands_below_and_is_broken_where_it_is_too_long() -> None:
    picture = Image.new("RGB", (200, 100), (9, 9, 9))
    short, long = with_caption(picture, ["a"]), with_caption(picture, ["word " * 30])
    assert short.width == long.width == 200
    assert short.crop((0, 0, 200, 100)).tobytes() == picture.tobytes()
    assert long.height - short.height > 3 * (short.height - 100 - 16)
    lit = np.asarray(long.convert("L"))[100:] > 128
    assert lit.any()
    assert not lit[:, 195:].any()
