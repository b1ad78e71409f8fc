"""What is kept of the images: canvases of the first look and of the lesion's region, and the lesions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.errors import ImageError, InputError
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.training.planes import NO_REGION, SQUARES_ELSEWHERE, load_cases, load_images, squares_elsewhere

if TYPE_CHECKING:
    from pathlib import Path

# Planes of 48 pixels have canvases of 72.
TWO_LOOKS = PreparationConfig(size=48, second_look=True, margin=0.1)
ONE_LOOK = PreparationConfig(size=48)


def written(path: Path, picture: np.ndarray, *lesions: Lesion) -> CaseImage:
    Image.fromarray(picture).save(path)
    return CaseImage(
        image=path.name,
        path=path,
        pixel_sha256=pixel_sha256(read_picture(path).read()[0]),
        rows=picture.shape[0],
        columns=picture.shape[1],
        modality="radiograph",
        lesions=lesions,
    )


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def test_the_region_is_cut_from_the_image_as_it_is_so_a_fine_pattern_in_the_lesion_survives(tmp_path: Path) -> None:
    picture = np.full((400, 400), 100, dtype=np.uint8)
    rows, columns = np.mgrid[220:260, 100:140]
    picture[220:260, 100:140] = np.where((rows + columns) % 2, 160, 40)
    store = load_images([written(tmp_path / "a.png", picture, Lesion(box=(100, 220, 140, 260)))], TWO_LOOKS)
    assert store.canvases.shape == store.lesions.shape
    assert store.regions.tolist() == [1]
    first, region = store.canvases[:2, 0].float().numpy()
    # A lesion of 40 pixels and a tenth on every side fill 48: pixel for pixel, with 12 more round them.
    np.testing.assert_allclose(region, picture[204:276, 84:156] / 255, atol=1e-3)
    # The first look reads 400 pixels as 48, and the pattern is an even grey there.
    assert np.ptp(first) < 0.02


def test_a_lesion_is_marked_exactly_where_its_outline_is(tmp_path: Path) -> None:
    square = Lesion(outline=((20, 40), (60, 40), (60, 70), (20, 70)))
    store = load_images([written(tmp_path / "a.png", noise(96), square)], TWO_LOOKS)
    # The first canvas shows 144 pixels, 24 of them before the image, as 72.
    expected = np.zeros((72, 72), dtype=np.uint8)
    expected[(40 + 24) // 2 : (70 + 24) // 2, (20 + 24) // 2 : (60 + 24) // 2] = 1
    np.testing.assert_array_equal(store.lesions[0, 0], expected)
    # The region's shows 72 from (4, 19) on as they are: 48 about the centre (40, 55), and 12 more on every side.
    expected = np.zeros((72, 72), dtype=np.uint8)
    expected[40 - 19 : 70 - 19, 20 - 4 : 60 - 4] = 1
    np.testing.assert_array_equal(store.lesions[1, 0], expected)


def test_an_outline_is_followed_and_not_its_box(tmp_path: Path) -> None:
    diamond = Lesion(box=(0, 0, 96, 96), outline=((28, 48), (48, 28), (68, 48), (48, 68)))
    store = load_images([written(tmp_path / "a.png", noise(96), diamond)], TWO_LOOKS)
    # 40 pixels and a tenth on every side are 48 again; the canvas begins at 12.
    rows, columns = np.mgrid[:72, :72] + 12.5
    distance = np.abs(rows - 48) + np.abs(columns - 48)
    mask = store.lesions[1, 0].numpy()
    assert mask[distance < 20].all()
    # At 20 the centre of a pixel lies on the edge itself.
    assert not mask[distance > 20].any()


def test_an_image_without_an_annotation_has_no_region_and_nothing_marked(tmp_path: Path) -> None:
    lesion = Lesion(box=(30, 30, 60, 60))
    images = [
        written(tmp_path / "a.png", noise(96, 1), lesion),
        written(tmp_path / "b.png", noise(96, 2)),
        written(tmp_path / "c.png", noise(96, 3), lesion),
    ]
    store = load_images(images, TWO_LOOKS)
    assert store.marked.tolist() == [True, False, True]
    # Behind those of the three images stand the region's canvas of each and those of other parts, in their order.
    first, second = 3, 4 + SQUARES_ELSEWHERE
    assert store.regions.tolist() == [first, NO_REGION, second]
    assert store.elsewhere.tolist() == [
        list(range(first + 1, second)),
        [NO_REGION] * SQUARES_ELSEWHERE,
        list(range(second + 1, second + 1 + SQUARES_ELSEWHERE)),
    ]
    assert len(store.canvases) == len(store.lesions) == second + 1 + SQUARES_ELSEWHERE
    assert not store.lesions[1].any()
    assert all(bool(store.lesions[place].any()) for place in (0, 2, first, second))
    for place, source in [(first, 0), (second, 2)]:
        alone = load_images([images[source]], TWO_LOOKS)
        assert torch.equal(store.canvases[place : place + 1 + SQUARES_ELSEWHERE], alone.canvases[1:])


def test_other_parts_of_an_image_are_of_about_the_lesions_size_within_it_and_without_the_lesion() -> None:
    pixels = noise(200).astype(np.float32) / np.float32(255)
    box, region = (80.0, 90.0, 120.0, 130.0), Square(left=75, top=85, side=50)
    squares = [
        square
        for seed in range(40)
        for square in squares_elsewhere(pixels, [Lesion(box=box)], region, np.random.default_rng(seed))
    ]
    assert len(squares) == 40 * SQUARES_ELSEWHERE
    sides = np.array([square.side for square in squares])
    assert (sides.min(), sides.max()) == (
        pytest.approx(50 * np.exp(-0.4), rel=0.05),
        pytest.approx(50 * np.exp(0.4), rel=0.05),
    )
    for square in squares:
        right, bottom = square.left + square.side, square.top + square.side
        shared = max(0, min(right, 120) - max(square.left, 80)) * max(0, min(bottom, 130) - max(square.top, 90))
        assert shared <= 0.1 * 40 * 40
        for start, end in [(square.left, right), (square.top, bottom)]:
            assert min(end, 200) - max(start, 0) >= square.side * 2 / 3 - 1e-9
    # All over the picture.
    assert min(square.left for square in squares) < 10
    assert max(square.top + square.side for square in squares) > 190


def test_there_is_no_other_part_where_the_lesion_leaves_no_room_or_all_else_is_even() -> None:
    pixels = noise(100).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(0)
    full = Lesion(box=(0, 0, 100, 100))
    assert squares_elsewhere(pixels, [full], Square(left=0, top=0, side=100), rng) == []
    pixels[:] = 0.1
    # One bright pixel in its middle, which no square that holds a tenth of the lesion reaches.
    pixels[50, 50] = 1
    small = Lesion(box=(40, 40, 60, 60))
    assert squares_elsewhere(pixels, [small], Square(left=40, top=40, side=20), rng) == []


def test_an_image_keeps_its_squares_beside_whatever_other_images(tmp_path: Path) -> None:
    images = [written(tmp_path / f"{n}.png", noise(96, n), Lesion(box=(30, 30, 60, 60))) for n in range(2)]
    both, second = load_images(images, TWO_LOOKS), load_images(images[1:], TWO_LOOKS)
    assert torch.equal(both.canvases[both.elsewhere[1]], second.canvases[second.elsewhere[0]])
    assert not torch.equal(both.canvases[both.elsewhere[0]], both.canvases[both.elsewhere[1]])


def test_without_a_second_look_there_is_one_canvas_an_image_and_the_lesion_is_marked_all_the_same(
    tmp_path: Path,
) -> None:
    image = written(tmp_path / "a.png", noise(96), Lesion(box=(30, 30, 60, 60)))
    store = load_images([image], ONE_LOOK)
    assert store.canvases.shape == (1, 1, 72, 72)
    assert store.regions.tolist() == [NO_REGION]
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
