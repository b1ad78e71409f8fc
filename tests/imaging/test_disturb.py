"""Each disturbance does what its unit says, moves the lesions with the image, and does nothing at strength 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from osteoscope.imaging.disturb import DISTURBANCES, Disturbance, Radiograph, disturb
from osteoscope.imaging.prepare import Lesion, outline_mask, square_to_read

ALL = list(DISTURBANCES.values())
NAMES = list(DISTURBANCES)


def picture(rows: int = 90, columns: int = 120, seed: int = 0) -> np.ndarray:
    """Smooth grey, so that a sixteenth of a pixel makes no difference."""
    noise = np.random.default_rng(seed).normal(size=(rows, columns))
    smooth = gaussian_filter(noise, 6)
    values: np.ndarray = ((smooth - smooth.min()) / np.ptp(smooth) * 0.6 + 0.2).astype(np.float32)
    return values


def marked(box: tuple[int, int, int, int], *, outline: bool = False, rows: int = 90, columns: int = 120) -> Radiograph:
    """A black picture in which the lesion, and nothing else, is white."""
    left, top, right, bottom = box
    pixels = np.zeros((rows, columns), dtype=np.float32)
    pixels[top:bottom, left:right] = 1
    corners = ((left, top), (right, top), (right, bottom), (left, bottom)) if outline else ()
    return Radiograph(pixels=pixels, lesions=(Lesion(box=box, outline=corners),))


def centroid(values: np.ndarray) -> tuple[float, float]:
    """Centre of mass as (x, y), in pixel-edge coordinates."""
    rows, columns = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
    return float((values * columns).sum() / values.sum()), float((values * rows).sum() / values.sum())


@pytest.mark.parametrize("disturbance", ALL, ids=NAMES)
def test_strength_0_changes_nothing(disturbance: Disturbance) -> None:
    image = Radiograph(pixels=picture(), lesions=(Lesion(box=(5, 5, 40, 30)),))
    found = disturb(image, disturbance, 0, key="a")
    np.testing.assert_array_equal(found.pixels, image.pixels)
    assert found.lesions == image.lesions


@pytest.mark.parametrize("disturbance", ALL, ids=NAMES)
def test_every_strength_gives_an_image_of_the_same_size_the_strongest_furthest_off(disturbance: Disturbance) -> None:
    image = Radiograph(pixels=picture())
    before = image.pixels.copy()
    found = [disturb(image, disturbance, strength, key="a") for strength in disturbance.strengths]
    distances = [float(np.abs(one.pixels - image.pixels).mean()) for one in found]
    assert 0 < distances[0] < distances[-1]
    for one in found:
        assert one.pixels.shape == image.pixels.shape
        assert one.pixels.dtype == np.float32
        assert one.pixels.min() >= 0
        assert one.pixels.max() <= 1
    np.testing.assert_array_equal(image.pixels, before)


@pytest.mark.parametrize("disturbance", ALL, ids=NAMES)
def test_the_same_image_and_seed_give_the_same_whatever_came_before(disturbance: Disturbance) -> None:
    image, strength = Radiograph(pixels=picture()), disturbance.strengths[-1]
    first = disturb(image, disturbance, strength, key="a")
    disturb(image, disturbance, strength, key="b")
    np.testing.assert_array_equal(first.pixels, disturb(image, disturbance, strength, key="a").pixels)


@pytest.mark.parametrize("name", ["noise", "gamma", "rotation", "shift"])
def test_images_and_seeds_differ_in_what_is_random(name: str) -> None:
    image, disturbance = Radiograph(pixels=picture()), DISTURBANCES[name]
    by_key = {disturb(image, disturbance, 5, key=str(key)).pixels.tobytes() for key in range(20)}
    by_seed = {disturb(image, disturbance, 5, key="a", seed=seed).pixels.tobytes() for seed in range(20)}
    assert len(by_key) > 1
    assert len(by_seed) > 1


@pytest.mark.parametrize("strength", [-1.0, math.nan, math.inf])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        disturb(Radiograph(pixels=picture()), DISTURBANCES["noise"], strength, key="a")


def test_noise_has_the_standard_deviation_that_its_strength_says() -> None:
    grey = Radiograph(pixels=np.full((200, 300), 0.5, dtype=np.float32))
    found = disturb(grey, DISTURBANCES["noise"], 0.05, key="a").pixels
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert found.mean() == pytest.approx(0.5, abs=0.001)


def test_noise_of_twice_the_strength_is_the_same_grain() -> None:
    grey = Radiograph(pixels=np.full((40, 40), 0.5, dtype=np.float32))
    weak = disturb(grey, DISTURBANCES["noise"], 0.03, key="a").pixels - 0.5
    strong = disturb(grey, DISTURBANCES["noise"], 0.06, key="a").pixels - 0.5
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-6)


def test_blur_is_scipys_gaussian() -> None:
    values = np.random.default_rng(1).random((50, 80)).astype(np.float32)
    found = disturb(Radiograph(pixels=values), DISTURBANCES["blur"], 2.5, key="a").pixels
    # 2.5 % of the longer side, 80, are 2 pixels.
    expected = gaussian_filter(values.astype(np.float64), 2.0, mode="nearest", truncate=4)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_contrast_doubles_about_the_mean_and_is_cut_off() -> None:
    pixels = np.array([[0.4, 0.6], [0.1, 0.9]], dtype=np.float32)
    found = disturb(Radiograph(pixels=pixels), DISTURBANCES["contrast"], 1, key="a").pixels
    np.testing.assert_allclose(found, [[0.3, 0.7], [0.0, 1.0]], atol=1e-6)


def test_gamma_goes_up_or_down() -> None:
    image = Radiograph(pixels=np.full((4, 4), 0.5, dtype=np.float32))
    found = {
        round(float(disturb(image, DISTURBANCES["gamma"], math.log(2), key=str(key)).pixels[0, 0]), 4)
        for key in range(20)
    }
    # 0.5 squared, and its square root.
    assert found == {0.25, 0.7071}


def test_half_the_pixels_are_two_by_two_means() -> None:
    pixels = np.kron([[0.0, 1.0], [1.0, 0.0]], np.ones((8, 8))).astype(np.float32)
    pixels[0, 0] = 1
    found = disturb(Radiograph(pixels=pixels), DISTURBANCES["resolution"], 1, key="a").pixels
    # The corner's pixel is the mean of four, and the enlarged corner holds it alone.
    assert found[0, 0] == pytest.approx(0.25)
    assert found[12, 3] == pytest.approx(1)


def test_borders_are_black_on_each_side_and_nothing_else_changes() -> None:
    values = picture(100, 200)
    found = disturb(Radiograph(pixels=values), DISTURBANCES["borders"], 10, key="a").pixels
    np.testing.assert_array_equal(found[10:90, 20:180], values[10:90, 20:180])
    assert np.count_nonzero(found) == 80 * 160


def test_borders_leave_the_lesion_open() -> None:
    values = picture(100, 200)
    lesion = Lesion(box=(5.5, 40, 30, 96))
    found = disturb(Radiograph(pixels=values, lesions=(lesion,)), DISTURBANCES["borders"], 10, key="a").pixels
    np.testing.assert_array_equal(found[10:96, 5:180], values[10:96, 5:180])
    assert np.count_nonzero(found) == 86 * 175


@pytest.mark.parametrize("key", ["a", "b", "c", "d"])
@pytest.mark.parametrize("outline", [True, False])
@pytest.mark.parametrize("name", ["rotation", "shift"])
def test_the_lesion_moves_with_the_image(name: str, outline: bool, key: str) -> None:
    image = marked((20, 30, 44, 42), outline=outline)
    found = disturb(image, DISTURBANCES[name], 20, key=key)
    background = found.pixels.min()
    seen = np.clip(found.pixels - max(background, image.pixels.mean()), 0, None)
    lesion = found.lesions[0]
    left, top, right, bottom = lesion.bounds("box")
    np.testing.assert_allclose(((left + right) / 2, (top + bottom) / 2), centroid(seen), atol=0.3)
    if outline:
        inside = outline_mask(found.shape, found.lesions)
        white = found.pixels > 0.5
        assert (inside & white).sum() / (inside | white).sum() > 0.95
        assert (left, top, right, bottom) == lesion.bounds("outline")


def test_two_lesions_turn_about_their_common_centre() -> None:
    first, second = marked((20, 20, 30, 30)), marked((60, 60, 70, 70))
    both = Radiograph(pixels=first.pixels + second.pixels, lesions=first.lesions + second.lesions)
    found = disturb(both, DISTURBANCES["rotation"], 40, key="a")
    for lesion in found.lesions:
        left, top, right, bottom = map(round, lesion.bounds("box"))
        assert found.pixels[top + 2 : bottom - 2, left + 2 : right - 2].min() > 0.5


def test_a_box_without_outline_is_drawn_round_the_turned_ellipse() -> None:
    found = disturb(marked((40, 40, 80, 50)), DISTURBANCES["rotation"], 90, key="a").lesions[0]
    # A quarter turn about its centre, (60, 45), exchanges its sides.
    np.testing.assert_allclose(found.bounds("box"), (55, 25, 65, 65), atol=1e-9)


@pytest.mark.parametrize("key", [str(number) for number in range(12)])
@pytest.mark.parametrize("disturbance", ALL, ids=NAMES)
def test_a_lesion_in_the_corner_can_still_be_read(disturbance: Disturbance, key: str) -> None:
    image = marked((0, 0, 20, 10))
    found = disturb(image, disturbance, disturbance.strengths[-1], key=key)
    square = square_to_read(found.shape, found.lesions, roi="box", margin=0.2)
    assert square.left < 40
    assert square.top < 30
    # The whole of it is in the picture as before, turned or not, but for what a turn takes over the edge.
    assert found.pixels.sum() > 0.4 * 200


def test_a_shift_moves_by_its_share_of_the_side_and_lays_bare_the_mean() -> None:
    values = picture(100, 100)
    found = disturb(Radiograph(pixels=values), DISTURBANCES["shift"], 20, key="a").pixels
    bare = np.isclose(found, values.mean(), atol=1e-7)
    dx, dy = bare.all(axis=0).sum(), bare.all(axis=1).sum()
    assert math.hypot(dx, dy) == pytest.approx(20, abs=1)
    kept = found[~bare.all(axis=1)][:, ~bare.all(axis=0)]
    corners = [values[y : y + 100 - dy, x : x + 100 - dx] for y in (0, dy) for x in (0, dx)]
    assert any(np.array_equal(kept, corner) for corner in corners)
