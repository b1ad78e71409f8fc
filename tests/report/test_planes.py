"""A plane is shown with square pixels, and says which side of the patient lies where."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from osteoscope.imaging.resampling import Rectangle
from osteoscope.imaging.volume import Geometry
from osteoscope.report.planes import (
    BONE,
    SOFT_TISSUE,
    PlaneFrame,
    Position,
    ShownWindow,
    Sides,
    as_seen,
    position_of,
    shape_as_seen,
    sides_of,
    windows_of,
    with_caption,
    with_mark,
    with_scale,
    with_sides,
)


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


def test_a_word_stands_in_the_upper_left_corner() -> None:
    marked = np.asarray(with_mark(Image.new("RGB", (300, 200)), "PHANTOM").convert("L"))
    rows, columns = np.nonzero(marked > 128)
    assert rows.max() < 30
    assert 8 <= columns.min() < columns.max() < 120


@pytest.mark.parametrize(
    ("across", "down", "text", "earlier"),
    [
        ((1, 0, 0), (0, 1, 0), "z = 32.0 mm", 2),
        ((0, 1, 0), (0, 0, -1), "x = 8.0 mm", 2),
        ((1, 0, 0), (0, 0, -1), "y = 22.0 mm", 0),
    ],
    ids=["axial", "sagittal", "coronal"],
)
def test_planes_follow_each_other_from_the_head_the_right_or_the_front(
    across: tuple[float, float, float], down: tuple[float, float, float], text: str, earlier: int
) -> None:
    placed = geometry(across, down)
    assert placed.affine is not None
    affine = placed.affine.copy()
    # Planes are 2 mm apart, and the middle of the first one's lies at (10, 20, 30).
    affine[:3, 2] *= 2
    affine[:3, 3] = np.array((10, 20, 30)) - 2 * affine[:3, 0] - 1.5 * affine[:3, 1]
    scan = Geometry(shape=(3, 4, 5), affine=affine)
    assert position_of(scan, 1).text == text
    order = sorted(range(3), key=lambda plane: position_of(scan, plane).place)
    assert order[0] == earlier


def test_a_position_below_0_is_written_with_a_minus_sign() -> None:
    assert Position(axis="z", mm=-132.46).text == "z = −132.5 mm"
    assert Position(axis="z", mm=-0.04).text == "z = 0.0 mm"


def test_a_ct_is_shown_in_two_windows_and_an_mr_as_it_was_read() -> None:
    assert windows_of("CT", [(0, 1)]) == (BONE, SOFT_TISSUE)
    assert windows_of("MR", [(3.0, 410.0)]) == (ShownWindow(name="", low=3.0, high=410.0),)
    assert BONE.text("CT") == "window -500 to 1300 HU"
    assert ShownWindow(name="", low=3.0, high=410.25).text("MR") == "window 3 to 410.2"


def test_a_window_runs_from_black_to_white_and_what_is_no_value_is_black() -> None:
    frame = PlaneFrame(plane=(1, 5), seen=(1, 5))
    values = np.array([[-200, -100, 0, 300, np.nan]], dtype=np.float32)
    shown = frame.pixels(values, ShownWindow(name="", low=-100, high=100))
    np.testing.assert_allclose(shown, [[0, 0, 0.5, 1, 0]])
    np.testing.assert_array_equal(frame.pixels(values, ShownWindow(name="", low=7, high=7)), np.zeros((1, 5)))


def test_pixels_that_are_not_square_carry_what_was_read_and_outlined_to_where_they_are_shown() -> None:
    # Pixels are twice as high as wide: a square in mm has half as many rows as columns.
    frame = PlaneFrame.of(Geometry(shape=(1, 20, 40), affine=None, aspect=2.0))
    assert frame.seen == (40, 40)
    square = frame.square(Rectangle(left=10, top=5, width=20, height=10))
    assert (square.left, square.top, square.side) == (10, 10, 20)
    mask = np.zeros((20, 40), dtype=bool)
    mask[5:10, 10:20] = True
    (lesion,) = frame.outlines(mask)
    assert lesion.bounds("outline") == (10, 10, 20, 20)


def test_evidence_is_spread_over_what_was_read_and_its_mean_there_is_what_it_adds_to_the_logit() -> None:
    frame = PlaneFrame(plane=(40, 40), seen=(40, 40))
    cells = np.zeros((2, 2, 2), dtype=np.float32)
    cells[0, 0, 1] = 0.5
    laid = frame.evidence(cells, Rectangle(left=8, top=0, width=32, height=32))
    assert laid[0, :32, 8:].mean() == pytest.approx(0.5, rel=1e-3)
    row, column = np.unravel_index(laid[0].argmax(), (40, 40))
    assert row < 8
    assert column >= 32
    assert not laid[0, 32:].any()
    assert not laid[:, :, :8].any()
    assert not laid[1].any()


@pytest.mark.parametrize(
    ("width", "spacing", "bar"),
    [
        (400, 1.0, 100),  # up to 140 mm
        (400, 0.5, 100),  # 50 mm of up to 70
        (200, 0.2, 50),  # 10 mm of up to 14
        (60, 0.1, 50),  # 5 mm, though there is room for 2 alone
    ],
)
def test_the_scale_bar_has_the_length_that_it_states(width: int, spacing: float, bar: int) -> None:
    picture = Image.new("RGB", (width, 100), (90, 90, 90))
    drawn = np.asarray(with_scale(picture, spacing).convert("L"))
    light = np.flatnonzero((drawn[90:94] > 200).any(axis=0))
    assert light.min() == pytest.approx(8, abs=1)
    assert light.max() - light.min() == pytest.approx(bar, abs=2)
    # Above it stands what it is.
    assert (drawn[70:84, 12:40] > 200).any()
    assert np.asarray(picture).max() == 90
