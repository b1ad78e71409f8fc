"""What is kept of the images: canvases of all of it and of squares with the lesion, and the lesions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from samples import written

from osteoscope.cohort.table import Case
from osteoscope.config import PreparationConfig
from osteoscope.errors import ImageError, InputError
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Lesion, Square, outline_mask
from osteoscope.training import planes, room
from osteoscope.training.planes import (
    NO_REGION,
    SQUARES_ELSEWHERE,
    SQUARES_ROUND,
    load_cases,
    load_images,
    squares_elsewhere,
    squares_round,
)

if TYPE_CHECKING:
    from pathlib import Path

# Planes of 48 pixels have canvases of 72.
TWO_LOOKS = PreparationConfig(size=48, second_look=True, margin=0.1)
ONE_LOOK = PreparationConfig(size=48)


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def test_squares_are_cut_from_the_image_as_it_is_so_a_fine_pattern_in_the_lesion_survives(tmp_path: Path) -> None:
    picture = np.full((1600, 1600), 100, dtype=np.uint8)
    rows, columns = np.mgrid[880:904, 400:424] // 8
    picture[880:904, 400:424] = np.where((rows + columns) % 2, 160, 40)
    store = load_images([written(tmp_path / "a.png", picture, Lesion(box=(400, 880, 424, 904)))], TWO_LOOKS)
    assert store.canvases.shape == store.lesions.shape
    assert store.regions.tolist() == [[1, 2, 3, 4]]
    first, one, closer, other, _ = store.canvases[:5, 0].float().numpy()
    # The first look reads 1600 pixels as 48, and the pattern is an even grey there. A square round the lesion is at
    # most 24 / 0.12 = 200 pixels wide, which makes two pixels of each field of 8; one as it judges, a third of 1600.
    assert np.ptp(first) < 0.02 < np.ptp(closer)
    assert min(np.ptp(one), np.ptp(other)) > 0.1


def test_a_lesion_is_marked_exactly_where_its_outline_is(tmp_path: Path) -> None:
    square = Lesion(outline=((20, 40), (60, 40), (60, 70), (20, 70)))
    store = load_images([written(tmp_path / "a.png", noise(96), square)], TWO_LOOKS)
    # The first canvas shows 144 pixels, 24 of them before the image, as 72.
    expected = np.zeros((72, 72), dtype=np.uint8)
    expected[(40 + 24) // 2 : (70 + 24) // 2, (20 + 24) // 2 : (60 + 24) // 2] = 1
    np.testing.assert_array_equal(store.lesions[0, 0], expected)
    # The others show what `squares_round` gives for this image, and half as much again.
    rng = np.random.default_rng(int(pixel_sha256(read_picture(tmp_path / "a.png").read()[0])[:16], 16))
    for mask, drawn in zip(store.lesions[1:5, 0].numpy(), squares_round((96, 96), [square], rng), strict=True):
        step = drawn.side / 48
        columns, rows = (start - drawn.side / 4 + (np.arange(72) + 0.5) * step for start in (drawn.left, drawn.top))
        inside = np.logical_and.outer((rows > 40) & (rows < 70), (columns > 20) & (columns < 60))
        np.testing.assert_array_equal(mask, inside)


def test_an_outline_is_followed_and_not_its_box(tmp_path: Path) -> None:
    diamond = Lesion(box=(0, 0, 96, 96), outline=((28, 48), (48, 28), (68, 48), (48, 68)))
    store = load_images([written(tmp_path / "a.png", noise(96), diamond)], TWO_LOOKS)
    # The first canvas shows 144 pixels as 72, from -24 on.
    rows, columns = (np.mgrid[:72, :72] + 0.5) * 2 - 24
    distance = np.abs(rows - 48) + np.abs(columns - 48)
    mask = store.lesions[0].numpy()[0]
    assert mask[distance < 20].all()
    # At 20 the centre of a pixel lies on the edge itself.
    assert not mask[distance > 20].any()


def test_an_image_without_an_annotation_has_no_squares_and_nothing_marked(tmp_path: Path) -> None:
    lesion = Lesion(box=(30, 30, 60, 60))
    images = [
        written(tmp_path / "a.png", noise(96, 1), lesion),
        written(tmp_path / "b.png", noise(96, 2)),
        written(tmp_path / "c.png", noise(96, 3), lesion),
    ]
    store = load_images(images, TWO_LOOKS)
    assert store.marked.tolist() == [True, False, True]
    # Behind those of the three images stand the canvases with the lesion of each and those of other parts, in their
    # order; where there are fewer of other parts than there may be, their room stays free.
    alone = {place: load_images([images[place]], TWO_LOOKS) for place in (0, 2)}
    behind = 3
    for place in (0, 2):
        others = int((alone[place].elsewhere != NO_REGION).sum())
        own = list(range(behind, behind + SQUARES_ROUND + others))
        assert store.regions[place].tolist() == own[:SQUARES_ROUND]
        assert store.elsewhere[place].tolist() == own[SQUARES_ROUND:] + [NO_REGION] * (SQUARES_ELSEWHERE - others)
        assert torch.equal(store.canvases[own], alone[place].canvases[1:])
        assert all(bool(store.lesions[square].any()) for square in own[:SQUARES_ROUND])
        behind += SQUARES_ROUND + SQUARES_ELSEWHERE
    assert store.regions[1].tolist() == [NO_REGION] * SQUARES_ROUND
    assert store.elsewhere[1].tolist() == [NO_REGION] * SQUARES_ELSEWHERE
    assert len(store.canvases) == len(store.lesions) == behind
    assert not store.lesions[1].any()


def no_further_beyond_than_it_must(square: Square, shape: tuple[int, int]) -> bool:
    ends = [(square.top, square.top + square.side), (square.left, square.left + square.side)]
    return all(
        (start >= -1e-9 and end <= extent + 1e-9) or (start <= 1e-9 and end >= extent - 1e-9)
        for (start, end), extent in zip(ends, shape, strict=True)
    )


@pytest.mark.parametrize("shape", [(400, 400), (1200, 300), (300, 1200)])
def test_a_lesion_is_anywhere_in_half_of_its_squares_which_are_of_all_sizes(shape: tuple[int, int]) -> None:
    lesions = [Lesion(box=(100, 200, 130, 240)), Lesion(box=(250, 40, 270, 50))]
    drawn = [squares_round(shape, lesions, np.random.default_rng(seed)) for seed in range(600)]
    assert {len(of_image) for of_image in drawn} == {SQUARES_ROUND}
    squares = [square for of_image in drawn for square in of_image[::2]]
    held = np.zeros(2, dtype=int)
    shares, places = [], []
    for square in squares:
        right, bottom = square.left + square.side, square.top + square.side
        inside = [
            square.left <= left + 1e-9 and square.top <= top + 1e-9 and right >= r - 1e-9 and bottom >= b - 1e-9
            for left, top, r, b in (lesion.bounds("outline") for lesion in lesions)
        ]
        assert any(inside)
        held += inside
        assert no_further_beyond_than_it_must(square, shape)
        if inside == [True, False]:
            shares.append(40 / square.side)
            places.append(((115 - square.left) / square.side, (220 - square.top) / square.side))
    # Either lesion is drawn in half of the squares, and may be seen in the other's.
    assert held.min() > 500
    assert min(shares) >= 0.12 - 1e-9
    assert max(shares) == pytest.approx(0.7, abs=0.02)
    spread = np.array(places)
    assert spread.min() > 0
    assert spread.max() < 1
    assert (np.ptp(spread, axis=0) > 0.6).all()


@pytest.mark.parametrize("shape", [(900, 900), (900, 500)])
def test_the_other_half_show_what_a_square_that_judges_may_show_of_it(shape: tuple[int, int]) -> None:
    # An L as high and as wide as a third of the longer side.
    wide = max(shape) / 3
    bar = [
        (150, 150),
        (190, 150),
        (190, 140 + wide),
        (150 + wide, 140 + wide),
        (150 + wide, 150 + wide),
        (150, 150 + wide),
    ]
    corner = Lesion(outline=tuple(bar))
    of_seeds = [squares_round(shape, [corner], np.random.default_rng(seed)) for seed in range(300)]
    squares = [square for of_image in of_seeds for square in of_image[1::2]]
    assert len(squares) == 300 * SQUARES_ROUND / 2
    mask = outline_mask(shape, [corner])
    held = []
    for square in squares:
        assert no_further_beyond_than_it_must(square, shape)
        top, left, side = round(square.top), round(square.left), round(square.side)
        held.append(mask[max(0, top) : top + side, max(0, left) : left + side].sum() / mask.sum())
    sides = np.array([square.side for square in squares]) / wide
    assert (sides.min(), sides.max()) == (pytest.approx(np.exp(-0.3), rel=0.03), pytest.approx(np.exp(0.3), rel=0.03))
    # Some of it in all of them, next to all of it in few, and less than half in many.
    assert min(held) > 0
    assert np.mean(np.array(held) < 0.5) > 0.2
    assert 0 < np.mean(np.array(held) > 0.95) < 0.5


def test_a_lesion_thinner_than_a_hair_has_squares_too() -> None:
    hair = Lesion(outline=((50, 50), (150, 50.0001), (150, 50.0002)))
    for square in squares_round((200, 200), [hair], np.random.default_rng(0)):
        assert square.left < 150
        assert square.left + square.side > 50
        assert square.top <= 50 <= square.top + square.side


def test_other_parts_of_an_image_are_about_as_large_as_asked_within_it_and_without_the_lesion() -> None:
    pixels = noise(200).astype(np.float32) / np.float32(255)
    box = (80.0, 90.0, 120.0, 130.0)
    squares = [
        square
        for seed in range(80)
        for square in squares_elsewhere(pixels, [Lesion(box=box)], [30.0, 50.0], np.random.default_rng(seed))
    ]
    assert len(squares) == 80 * SQUARES_ELSEWHERE
    sides = np.array([square.side for square in squares])
    assert (sides.min(), sides.max()) == (
        pytest.approx(30 * np.exp(-0.4), rel=0.05),
        pytest.approx(50 * np.exp(0.4), rel=0.05),
    )
    for square in squares:
        right, bottom = square.left + square.side, square.top + square.side
        shared = max(0, min(right, 120) - max(square.left, 80)) * max(0, min(bottom, 130) - max(square.top, 90))
        assert shared <= 0.1 * 40 * 40
        assert no_further_beyond_than_it_must(square, (200, 200))
    # All over the picture.
    assert min(square.left for square in squares) < 10
    assert max(square.top + square.side for square in squares) > 190


def test_what_is_shown_beside_an_image_does_not_tell_squares_with_the_lesion_from_others() -> None:
    pixels = np.random.default_rng(0).random((300, 80), dtype=np.float32)
    lesion = Lesion(box=(20, 30, 60, 60))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        with_it = squares_round((300, 80), [lesion], rng)
        others = squares_elsewhere(pixels, [lesion], [square.side for square in with_it], rng)
        assert others
        assert all(no_further_beyond_than_it_must(square, (300, 80)) for square in [*with_it, *others])


def test_there_is_no_other_part_where_the_lesion_leaves_no_room_or_all_else_is_even() -> None:
    pixels = noise(100).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(0)
    full = Lesion(box=(0, 0, 100, 100))
    assert squares_elsewhere(pixels, [full], [100.0], rng) == []
    pixels[:] = 0.1
    # One bright pixel in its middle, which no square that holds a tenth of the lesion reaches.
    pixels[50, 50] = 1
    small = Lesion(box=(40, 40, 60, 60))
    assert squares_elsewhere(pixels, [small], [20.0], rng) == []


def test_what_is_too_much_for_memory_lies_on_disk_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [written(tmp_path / f"{n}.png", noise(96, n), Lesion(box=(30, 30, 60, 60))) for n in range(3)]
    held = load_images(images, TWO_LOOKS)
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 0)
    laid = load_images(images, TWO_LOOKS)
    # The file has no name, so nothing is left of it.
    assert list((tmp_path / "cache").iterdir()) == []
    for name in ("lesions", "marked", "kinds", "regions", "elsewhere"):
        assert torch.equal(getattr(laid, name), getattr(held, name))
    shown = torch.cat([torch.arange(3), held.regions.flatten(), held.elsewhere[held.elsewhere != NO_REGION]])
    assert torch.equal(laid.canvases[shown], held.canvases[shown])
    # A device that computes gets what is drawn, and not all of it.
    assert laid.on(torch.device("meta")).canvases.device.type == "cpu"


@pytest.mark.parametrize(("times", "where"), [(4, "meta"), (3.9, "cpu")])
def test_a_device_holds_all_canvases_where_they_are_no_more_than_a_quarter_of_it(
    times: float, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load_images([written(tmp_path / "0.png", noise(96, 0), Lesion(box=(30, 30, 60, 60)))], TWO_LOOKS)
    needed = held.canvases.nbytes + held.lesions.nbytes
    monkeypatch.setattr(planes, "memory_of", lambda device: int(times * needed))
    assert held.on(torch.device("meta")).canvases.device.type == where


def test_an_image_keeps_its_squares_beside_whatever_other_images(tmp_path: Path) -> None:
    images = [written(tmp_path / f"{n}.png", noise(96, n), Lesion(box=(30, 30, 60, 60))) for n in range(2)]
    both, second = load_images(images, TWO_LOOKS), load_images(images[1:], TWO_LOOKS)
    assert torch.equal(both.canvases[both.regions[1]], second.canvases[second.regions[0]])
    assert not torch.equal(both.canvases[both.regions[0]], both.canvases[both.regions[1]])


def test_without_a_second_look_there_is_one_canvas_an_image_and_the_lesion_is_marked_all_the_same(
    tmp_path: Path,
) -> None:
    image = written(tmp_path / "a.png", noise(96), Lesion(box=(30, 30, 60, 60)))
    store = load_images([image], ONE_LOOK)
    assert store.canvases.shape == (1, 1, 72, 72)
    assert store.regions.tolist() == [[NO_REGION] * SQUARES_ROUND]
    assert store.marked.tolist() == [True]
    # 30 pixels each way, at half of the size.
    assert int(store.lesions.sum()) == 15 * 15


def test_images_know_their_case_and_cases_their_label(tmp_path: Path) -> None:
    images = [written(tmp_path / f"{place}.png", noise(96, place)) for place in range(3)]
    cases = [Case(patient="a", label=1, images=(images[0],)), Case(patient="b", label=0, images=tuple(images[1:]))]
    store = load_cases(cases, ONE_LOOK)
    assert [places.tolist() for places in store.images] == [[0], [1, 2]]
    assert store.labels.tolist() == [1, 0]
    assert torch.equal(store.planes.canvases, load_images(images, ONE_LOOK).canvases)


def test_an_image_that_has_changed_is_named(tmp_path: Path) -> None:
    image = written(tmp_path / "a.png", noise(96, 1))
    Image.fromarray(noise(96, 2)).save(image.path)
    with pytest.raises(ImageError, match=r"a\.png.*other pixels"):
        load_images([image], ONE_LOOK)


def test_a_lesion_that_is_to_be_read_and_is_not_annotated_is_asked_for(tmp_path: Path) -> None:
    image = written(tmp_path / "a.png", noise(96))
    with pytest.raises(InputError, match="none is annotated"):
        load_images([image], PreparationConfig(size=48, roi="outline"))
