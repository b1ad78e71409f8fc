"""Where evidence, outline and frame fall on a picture, worked out by hand."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.report.overlay import (
    colour_strip,
    colour_table,
    evidence_scale,
    grey_picture,
    jpeg_bytes,
    overlay_picture,
    png_bytes,
    thumbnail_png,
    with_colour_bar,
)

GREY = np.full((4, 4), 0.5, np.float32)
NONE = np.zeros((4, 4), np.float32)


def array(picture: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(picture, dtype=np.int16)


def colourfulness(picture: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(np.ptp(array(picture), axis=2), dtype=np.int16)


def test_evidence_stays_where_it_is_neither_mirrored_nor_transposed() -> None:
    pixels = np.full((4, 3), 0.5, np.float32)
    evidence = np.zeros((4, 3), np.float32)
    evidence[0, 2] = 2.0
    shown = colourfulness(overlay_picture(pixels, evidence, scale=2.0))
    # 4 rows become 512: each pixel is a block of 128.
    assert shown.shape == (512, 384)
    row, column = np.unravel_index(np.argmax(shown), shown.shape)
    assert row < 128
    assert column >= 256
    assert shown[64, 64] == 0
    assert shown[448, 320] == 0


def test_the_radiograph_itself_keeps_left_and_up() -> None:
    pixels = np.zeros((2, 4), np.float32)
    pixels[0, 0] = 1.0
    shown = array(grey_picture(pixels))
    assert shown.shape == (256, 512)
    assert shown[64, 64] > 200
    assert shown[64, 448] == shown[192, 64] == 0


def test_no_evidence_leaves_the_image_as_it_is() -> None:
    pixels = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    plain = array(grey_picture(pixels))
    negative = np.full((3, 4), -5.0, np.float32)
    unknown = np.full((3, 4), np.nan, np.float32)
    for evidence in (np.zeros((3, 4), np.float32), negative, unknown):
        for scale in (0.0, 1.0):
            np.testing.assert_array_equal(
                array(overlay_picture(pixels, evidence, scale=scale)), np.repeat(plain[..., None], 3, axis=2)
            )


def test_stronger_evidence_is_more_opaque_and_bone_stays_visible_under_the_strongest() -> None:
    black, white = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    seen_through = []
    for share in (0.0, 0.25, 0.5, 1.0):
        on_black, on_white = (
            array(overlay_picture(bone, np.full((4, 4), share, np.float32), scale=1.0)) for bone in (black, white)
        )
        seen_through.append(int((on_white - on_black).min()))
    assert seen_through[0] == 255
    assert all(later < earlier for earlier, later in itertools.pairwise(seen_through))
    # Rounding aside, opacity is 0.65 of the share: 35 % of the contrast of bone is left.
    assert abs(seen_through[-1] - 0.35 * 255) <= 1


def test_the_strongest_evidence_takes_the_last_colour() -> None:
    shown = array(overlay_picture(GREY, np.full((4, 4), 3.0, np.float32), scale=3.0))
    expected = 0.35 * 127.5 + 0.65 * colour_table()[-1].astype(float)
    assert np.abs(shown - expected).max() <= 1


def test_the_scale_is_shared_over_classes_and_images() -> None:
    first = np.array([[[0.1, -4.0]], [[-0.1, 4.0]]])
    second = np.array([[[np.nan, 2.0]], [[0.0, -2.0]]])
    assert evidence_scale([first, second]) == 4.0
    assert evidence_scale([second]) == 2.0
    assert evidence_scale([np.array([-1.0, np.nan, np.inf])]) == 0.0
    assert evidence_scale([]) == 0.0


def test_a_lesion_is_drawn_where_its_coordinates_say_and_seen_on_black_and_on_white() -> None:
    box = Lesion(box=(1.0, 1.0, 3.0, 3.0))
    on_black = array(overlay_picture(np.zeros((4, 4), np.float32), NONE, scale=0.0, lesions=(box,)))[..., 0]
    on_white = array(overlay_picture(np.ones((4, 4), np.float32), NONE, scale=0.0, lesions=(box,)))[..., 0]
    # Pixel edges 1 and 3 of four lie at 128 and 384 of 512.
    lit_rows, lit_columns = np.nonzero(on_black > 60)
    assert (lit_rows.min(), lit_rows.max()) == pytest.approx((128, 383), abs=2)
    assert (lit_columns.min(), lit_columns.max()) == pytest.approx((128, 383), abs=2)
    assert on_white[256, 120:136].min() < 60
    assert on_white[256, 256] == 255
    assert on_black[256, 256] == 0


def test_the_outline_is_drawn_rather_than_the_box_and_is_closed() -> None:
    triangle = Lesion(box=(0.5, 0.5, 3.5, 3.5), outline=((1.0, 1.0), (3.0, 1.0), (1.0, 3.0)))
    shown = array(overlay_picture(np.zeros((4, 4), np.float32), NONE, scale=0.0, lesions=(triangle,)))[..., 0]
    assert shown[64:70].max() == 0
    assert shown[200:300, 125:131].max(axis=1).min() > 60
    assert shown[380:384, 300:].max() == 0


def test_what_was_read_is_framed_faintly_and_only_where_something_was_left_out() -> None:
    black = np.zeros((4, 8), np.float32)
    none = np.zeros((4, 8), np.float32)
    part = array(overlay_picture(black, none, scale=0.0, square=Square(left=2.0, top=1.0, side=2.0)))[..., 0]
    # 8 columns become 512, so the square's left edge lies at 128 and its middle row at 128.
    assert 0 < part[128, 126:131].max() < 160
    assert part[128, 192] == 0
    whole = array(overlay_picture(black, none, scale=0.0, square=Square(left=0.0, top=-2.0, side=8.0)))
    assert whole.max() == 0


def runs(line: npt.NDArray[np.bool_]) -> int:
    """Count the parts of a line that are lit without a gap."""
    return int(line[0]) + int((np.diff(line.astype(int)) == 1).sum())


def test_a_found_region_is_framed_in_dashes_where_its_coordinates_say_and_seen_on_black_and_on_white() -> None:
    region = Square(left=1.0, top=1.0, side=2.0)
    on_black = array(overlay_picture(np.zeros((4, 4), np.float32), NONE, scale=0.0, found=(region,)))
    on_white = array(overlay_picture(np.ones((4, 4), np.float32), NONE, scale=0.0, found=(region,)))
    # Pixel edges 1 and 3 of four lie at 128 and 384 of 512.
    lit_rows, lit_columns = np.nonzero(on_black.max(axis=2) > 60)
    assert (lit_rows.min(), lit_rows.max()) == pytest.approx((128, 383), abs=2)
    assert (lit_columns.min(), lit_columns.max()) == pytest.approx((128, 383), abs=2)
    assert on_black[256, 256].max() == 0
    assert on_white[256, 256].min() == 255
    # A line of about 256 pixels has several dashes, light blue on black; on white its gaps and edges are dark.
    assert 6 <= runs(on_black[128:384, 128].max(axis=1) > 60) <= 16
    left = on_black[128:384, 128]
    blue = left[left.max(axis=1) > 200]
    assert (blue[:, 2] > blue[:, 0] + 100).all()
    assert on_white[134:378, 124:133].min(axis=(1, 2)).max() < 60


def test_every_corner_of_a_dashed_frame_is_whole() -> None:
    picture = overlay_picture(
        np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32), scale=0.0,
        found=(Square(left=13.0, top=21.0, side=57.0),),
    )  # fmt: skip
    shown = array(picture)[..., 2]
    # 100 columns become 600.
    for x in (78, 420):
        for y in (126, 468):
            assert shown[y - 3 : y + 3, x - 3 : x + 3].max() > 200


def test_outline_read_square_and_found_regions_differ_without_colour() -> None:
    black = np.zeros((4, 4), np.float32)
    square = Square(left=1.0, top=1.0, side=2.0)
    outline = overlay_picture(black, NONE, scale=0.0, lesions=(Lesion(box=(1.0, 1.0, 3.0, 3.0)),))
    read = overlay_picture(black, NONE, scale=0.0, square=square)
    found = overlay_picture(black, NONE, scale=0.0, found=(square,))
    sides = [array(picture.convert("L"))[128:384, 126:131].max(axis=1) for picture in (outline, read, found)]
    # The first two lines are whole, one bright and one faint; the third has gaps.
    assert sides[0].min() > 200
    assert 60 < sides[1].min() <= sides[1].max() < 160
    assert sides[2].min() < 20
    assert sides[2].max() > 160


def test_several_regions_are_framed_and_one_that_reaches_beyond_the_image_ends_at_its_edge() -> None:
    black = np.zeros((8, 8), np.float32)
    regions = (Square(left=1.0, top=1.0, side=2.0), Square(left=5.0, top=6.0, side=5.0))
    shown = array(overlay_picture(black, black, scale=0.0, found=regions))[..., 2]
    # 8 columns become 512, 64 each. The second region ends at the right and lower edges of the picture.
    for part in (shown[60:68, 64:192], shown[380:388, 320:], shown[-6:, 320:], shown[384:, -6:].T):
        assert part.max() > 200
        assert runs(part.max(axis=0) > 60) > 1
    assert shown[200:370].max() == 0
    assert overlay_picture(black, black, scale=0.0, found=()).getbbox() is None


@pytest.mark.parametrize(
    ("shape", "longest", "expected"),
    [
        ((1, 1), None, (512, 512)),
        ((3, 700), None, (3, 700)),
        ((700, 2), None, (700, 2)),
        ((256, 200), None, (512, 400)),
        ((511, 100), None, (1022, 200)),
        ((3000, 1000), None, (3000, 1000)),
        ((3000, 1000), 1280, (1000, 334)),
        ((3, 5000), 1280, (1, 1250)),
    ],
)
def test_the_picture_has_the_image_s_own_resolution_or_a_whole_multiple_of_it(
    shape: tuple[int, int], longest: int | None, expected: tuple[int, int]
) -> None:
    pixels = np.full(shape, 0.25, np.float32)
    evidence = np.zeros(shape, np.float32)
    picture = overlay_picture(pixels, evidence, scale=1.0, longest=longest)
    assert (picture.height, picture.width) == expected
    assert set(np.unique(array(picture))) == {64}
    assert grey_picture(pixels, longest=longest).size == picture.size


def test_colours_rise_in_lightness_in_even_steps() -> None:
    # The other way round than the code: from sRGB to OKLab (Ottosson 2020).
    srgb = colour_table() / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    coarse = lab[::15]
    assert (np.diff(coarse[:, 0]) > 0).all()
    steps = np.linalg.norm(np.diff(coarse, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.15


def test_the_colour_bar_stands_beside_the_picture_and_leaves_it_as_it_is() -> None:
    picture = overlay_picture(GREY, GREY, scale=1.0)
    with_bar = with_colour_bar(picture)
    assert with_bar.width > picture.width
    np.testing.assert_array_equal(array(with_bar)[:, : picture.width], array(picture))
    bar = array(with_bar)[:, picture.width :]
    # Strong is up: the amber end is above the violet one.
    red, blue = bar[..., 0], bar[..., 2]
    assert np.mean(np.nonzero(red > blue + 100)[0]) < picture.height / 2
    narrow = with_colour_bar(Image.new("RGB", (2000, 10)))
    assert narrow.height >= 240


def test_the_colour_strip_runs_from_weak_to_strong_over_black_and_over_bone() -> None:
    strip = array(colour_strip(length=100, thickness=10))
    assert strip.shape == (10, 100, 3)
    assert strip[0, 0].max() == 0
    assert strip[-1, 0].min() > 200
    assert np.ptp(strip[0, -1]) > 100


def test_pictures_are_the_same_bytes_each_time_and_can_be_read_back() -> None:
    picture = overlay_picture(GREY, GREY, scale=1.0, lesions=(Lesion(box=(1.0, 1.0, 2.0, 3.0)),))
    assert png_bytes(picture) == png_bytes(picture.copy())
    np.testing.assert_array_equal(array(Image.open(io.BytesIO(png_bytes(picture)))), array(picture))
    with Image.open(io.BytesIO(jpeg_bytes(picture))) as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", picture.size)


@pytest.mark.parametrize(("shape", "expected"), [((300, 150), (48, 96)), ((20, 40), (96, 48)), ((5000, 2), (1, 96))])
def test_a_thumbnail_shows_the_image_whole(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(thumbnail_png(np.full(shape, np.nan, np.float32)))) as small:
        assert (small.format, small.mode, small.size) == ("PNG", "L", expected)


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image's grid, got \(2, 2\) on \(4, 4\)"):
        overlay_picture(GREY, np.zeros((2, 2), np.float32), scale=1.0)
    for scale in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale"):
            overlay_picture(GREY, NONE, scale=scale)
    with pytest.raises(ValueError, match="at least one pixel"):
        grey_picture(np.zeros((0, 3), np.float32))
