"""Looks at images and changes of planes: what is drawn and how often, where it lands, and that it repeats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import binom

from osteoscope.config import AugmentationConfig
from osteoscope.training.augment import Changes, apply_changes, draw_changes, draw_looks
from osteoscope.training.planes import NO_REGION, SQUARES_ELSEWHERE, SQUARES_ROUND, Kind, PlaneStore, canvas_size

NOTHING = AugmentationConfig(
    rotation=0,
    scale=0,
    shift=0,
    flip=False,
    gamma=0,
    noise=0,
    blur=0,
    erase=0,
    collimate=0,
)
SIZE = 32
CANVAS = canvas_size(SIZE)
SHARE = SIZE / CANVAS


def drawn(planes: int, settings: AugmentationConfig, seed: int = 0) -> Changes:
    generator = torch.Generator().manual_seed(seed)
    return draw_changes(planes, size=SIZE, canvas=CANVAS, settings=settings, generator=generator)


def changed(canvases: torch.Tensor, settings: AugmentationConfig, seed: int = 0) -> torch.Tensor:
    changes = drawn(len(canvases), settings, seed)
    return apply_changes(canvases, torch.zeros_like(canvases, dtype=torch.uint8), changes)[0]


def middle(canvases: torch.Tensor) -> torch.Tensor:
    edge = (CANVAS - SIZE) // 2
    return canvases[:, :, edge : edge + SIZE, edge : edge + SIZE]


def within_chance(count: int, number: int, share: float) -> bool:
    """Whether a count of so many draws is no stranger than one in a million."""
    return bool(binom.ppf(5e-7, number, share) <= count <= binom.isf(5e-7, number, share))


@pytest.mark.parametrize(("size", "canvas"), [(32, 48), (33, 49), (112, 168), (160, 240), (96, 144)])
def test_a_canvas_is_half_as_large_again_with_the_plane_in_its_middle(size: int, canvas: int) -> None:
    assert canvas_size(size) == canvas
    assert (canvas_size(size) - size) % 2 == 0


# Looks.


def store_of(regions: list[list[int]], elsewhere: list[list[int]] | None = None) -> PlaneStore:
    """Hold images with these canvases of squares with the lesion; without `elsewhere`, no squares of other parts."""
    images = len(regions)
    canvases = torch.zeros(images, 1, 1, 1)
    round_it = torch.tensor([squares or [NO_REGION] * SQUARES_ROUND for squares in regions])
    places = torch.full((images, SQUARES_ELSEWHERE), NO_REGION)
    for place, squares in enumerate(elsewhere or []):
        places[place, : len(squares)] = torch.tensor(squares)
    return PlaneStore(
        canvases=canvases.half(),
        lesions=canvases.byte(),
        marked=round_it[:, 0] != NO_REGION,
        kinds=torch.full((images,), Kind.FIRST),
        regions=round_it,
        elsewhere=places,
        size=SIZE,
    )


def test_the_whole_the_lesion_and_another_part_are_looked_at_as_often_as_was_asked() -> None:
    number = 4000
    settings = AugmentationConfig(whole=0.4, elsewhere=0.7)
    round_it = [[number + SQUARES_ROUND * i + j for j in range(SQUARES_ROUND)] for i in range(number)]
    behind = (1 + SQUARES_ROUND) * number
    squares = [[behind + SQUARES_ELSEWHERE * i + j for j in range(SQUARES_ELSEWHERE)] for i in range(number)]
    looks = draw_looks(range(number), store_of(round_it, squares), settings, np.random.default_rng(0))

    def seen(kind: Kind) -> np.ndarray:
        of_kind = np.zeros(number, dtype=bool)
        of_kind[looks.images[looks.kinds == kind]] = True
        assert int(of_kind.sum()) == int((looks.kinds == kind).sum())
        return of_kind

    first, region, elsewhere = seen(Kind.FIRST), seen(Kind.REGION), seen(Kind.ELSEWHERE)
    # Each is looked at whole or at a square with the lesion, and beside either elsewhere.
    assert bool((first ^ region).all())
    assert within_chance(int(first.sum()), number, 0.4)
    for beside in (first, region):
        assert within_chance(int((elsewhere & beside).sum()), int(beside.sum()), 0.7)
    # Each reads its own canvas; of its squares each about as often.
    at = {kind: (looks.images[looks.kinds == kind], looks.canvases[looks.kinds == kind]) for kind in Kind}
    assert torch.equal(*at[Kind.FIRST])
    for kind, start, squares_each in (
        (Kind.REGION, number, SQUARES_ROUND),
        (Kind.ELSEWHERE, behind, SQUARES_ELSEWHERE),
    ):
        images, canvases = at[kind]
        counts = torch.bincount(canvases - start - squares_each * images, minlength=squares_each)
        assert len(counts) == squares_each
        assert all(within_chance(int(count), len(images), 1 / squares_each) for count in counts)


def test_the_whole_and_the_lesion_speak_and_another_part_does_not() -> None:
    store = store_of([[3] * SQUARES_ROUND, [], [4] * SQUARES_ROUND], [[5] * SQUARES_ELSEWHERE, [], []])
    looks = draw_looks([2, 0, 1], store, AugmentationConfig(whole=0, elsewhere=1), np.random.default_rng(0))
    first, region, elsewhere = Kind.FIRST, Kind.REGION, Kind.ELSEWHERE
    # In the order of the images; image 2 leaves no room for a square without its lesion, image 1 has no lesion.
    assert looks.images.tolist() == [2, 0, 0, 1]
    assert looks.canvases.tolist() == [4, 3, 5, 1]
    assert looks.kinds.tolist() == [region, region, elsewhere, first]
    assert looks.speak.tolist() == [True, True, False, True]
    whole = draw_looks([0], store, AugmentationConfig(whole=1, elsewhere=1), np.random.default_rng(0))
    assert (whole.canvases.tolist(), whole.speak.tolist()) == ([0, 5], [True, False])


def test_of_a_volume_each_plane_is_looked_at_and_those_without_the_lesion_have_no_say() -> None:
    kinds = torch.tensor([Kind.REGION, Kind.ELSEWHERE, Kind.REGION, Kind.FIRST])
    store = dataclasses.replace(store_of([[]] * 4), kinds=kinds)
    looks = draw_looks([3, 1, 2], store, AugmentationConfig(), np.random.default_rng(0))
    assert looks.canvases.tolist() == looks.images.tolist() == [3, 1, 2]
    assert looks.kinds.tolist() == [Kind.FIRST, Kind.ELSEWHERE, Kind.REGION]
    assert looks.speak.tolist() == [True, False, True]


def test_the_generator_moves_on_by_the_same_amount_whatever_looks_are_drawn() -> None:
    states = []
    marked = [[place] * SQUARES_ROUND for place in (3, 4, 5)]
    unmarked: list[list[int]] = [[], [], []]
    for regions, settings in [
        (marked, AugmentationConfig(whole=0, elsewhere=1)),
        (marked, AugmentationConfig(whole=1)),
        (unmarked, AugmentationConfig()),
    ]:
        rng = np.random.default_rng(4)
        draw_looks([0, 1, 2], store_of(regions, [[6], [7], [8]]), settings, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1] == states[2]


# Planes of several channels.


def test_all_channels_of_a_plane_change_alike() -> None:
    one = torch.rand(6, 1, CANVAS, CANVAS)
    lesions = (torch.rand(6, 1, CANVAS, CANVAS) > 0.5).byte()
    changes = drawn(6, AugmentationConfig(erase=1, collimate=1, blur=0.5))
    alone, covered = apply_changes(one, lesions, changes)
    planes, again = apply_changes(torch.cat([one, one.flip(0), one], dim=1), lesions, changes)
    assert planes.shape == (6, 3, SIZE, SIZE)
    torch.testing.assert_close(planes[:, :1], alone)
    torch.testing.assert_close(planes[:, 2:], alone)
    torch.testing.assert_close(again, covered)
    # The other one, changed by itself: erased to its own mean.
    torch.testing.assert_close(planes[:, 1:2], apply_changes(one.flip(0), lesions, changes)[0])
    assert not torch.allclose(planes[:, 1:2], alone)


# Where a plane is cut from its canvas.


def test_without_changes_the_middle_of_the_canvas_comes_back() -> None:
    canvases, lesions = torch.rand(4, 1, CANVAS, CANVAS), (torch.rand(4, 1, CANVAS, CANVAS) > 0.5).byte()
    changes = drawn(4, NOTHING)
    planes, cut = apply_changes(canvases, lesions, changes)
    torch.testing.assert_close(planes, middle(canvases), atol=1e-4, rtol=0)
    torch.testing.assert_close(cut, middle(lesions).float(), atol=1e-4, rtol=0)


def frames(changes: Changes) -> tuple[torch.Tensor, torch.Tensor]:
    """Low and high edges of what each unturned plane reads, (planes, 2) each, where the first look reads -1 to 1."""
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    places = torch.einsum("nij,cj->nci", changes.matrices, corners) / SHARE
    return places.amin(dim=1), places.amax(dim=1)


def test_what_is_read_is_off_by_what_was_asked() -> None:
    settings = NOTHING.model_copy(update={"scale": 0.2, "shift": 0.1})
    low, high = frames(drawn(1000, settings))
    sides, centres = (high - low)[:, 0] / 2, (high + low) / 2
    assert 1 / 1.2 - 1e-5 <= sides.min() < 1 / 1.2 + 0.01
    assert 1.2 - 0.01 < sides.max() <= 1.2 + 1e-5
    # A share of the side is twice that of the half side.
    assert 2 * 0.1 - 0.01 < centres.abs().max() <= 2 * 0.1 + 1e-5


def test_a_flip_mirrors_left_and_right_of_about_half_of_the_planes() -> None:
    canvases = torch.rand(200, 1, CANVAS, CANVAS)
    planes = changed(canvases, NOTHING.model_copy(update={"flip": True}))
    kept = (planes - middle(canvases)).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (planes - middle(canvases).flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert bool((kept ^ mirrored).all())
    assert within_chance(int(mirrored.sum()), 200, 0.5)


def test_a_quarter_turn_turns_the_plane_and_the_lesion_with_it() -> None:
    # The largest angle is drawn by no seed, so the matrix is set by hand through a rotation of 90 degrees and scale 1.
    canvases, lesions = torch.rand(1, 1, CANVAS, CANVAS), (torch.rand(1, 1, CANVAS, CANVAS) > 0.5).byte()
    changes = drawn(1, NOTHING)
    changes.matrices[0] = torch.tensor([[0.0, -SHARE, 0.0], [SHARE, 0.0, 0.0]])
    turned, cut = apply_changes(canvases, lesions, changes)
    # Output (x, y) reads the canvas at (-y, x), so the top right shows what was at the bottom right: anticlockwise.
    torch.testing.assert_close(turned, middle(canvases).rot90(1, dims=(2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(cut, middle(lesions).float().rot90(1, dims=(2, 3)), atol=1e-4, rtol=0)


def disc(row: float, column: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(CANVAS), torch.arange(CANVAS), indexing="ij")
    return ((rows + 0.5 - row) ** 2 + (columns + 0.5 - column) ** 2 <= radius**2).float()


def centroids(planes: torch.Tensor) -> torch.Tensor:
    """Rows and columns of the centre of mass in pixel-edge coordinates: (planes, 2)."""
    places = torch.arange(SIZE) + 0.5
    mass = planes.sum(dim=(1, 2, 3))
    rows, columns = planes.sum(dim=3) @ places, planes.sum(dim=2) @ places
    return torch.stack([rows[:, 0], columns[:, 0]], dim=1) / mass[:, None]


def test_a_lesion_goes_where_its_bright_spot_in_the_picture_goes() -> None:
    # On the canvas the spot is 5 pixels above and 4 pixels right of the middle.
    spot = disc(CANVAS / 2 - 5, CANVAS / 2 + 4, 3).expand(300, 1, CANVAS, CANVAS)
    settings = NOTHING.model_copy(update={"rotation": 180, "scale": 0.2, "shift": 0.05, "flip": True})
    changes = drawn(300, settings)
    planes, lesions = apply_changes(0.2 + 0.6 * spot, spot.byte(), changes)
    # The place on the plane that reads the spot's: the matrix turned round, in units of half sides.
    spot_on_canvas = torch.tensor([4.0, -5.0]) / (CANVAS / 2)
    on_plane = torch.linalg.solve(changes.matrices[:, :, :2], spot_on_canvas - changes.matrices[:, :, 2])
    expected = (on_plane.flip(1) + 1) * SIZE / 2
    torch.testing.assert_close(centroids(planes - 0.2), expected, atol=0.15, rtol=0)
    torch.testing.assert_close(centroids(lesions), expected, atol=0.15, rtol=0)
    # Zooming in by a fifth makes the area larger by 1.44, zooming out smaller by as much.
    areas = lesions.sum(dim=(1, 2, 3)) / spot[0].sum()
    zoom = 1 / torch.linalg.det(changes.matrices[:, :, :2]).abs() * SHARE**2
    torch.testing.assert_close(areas, zoom, atol=0.05, rtol=0)
    assert areas.min() < 0.75
    assert areas.max() > 1.35


def test_what_changes_a_planes_values_leaves_the_lesion_as_it_is() -> None:
    canvases, lesions = torch.rand(30, 1, CANVAS, CANVAS), (torch.rand(30, 1, CANVAS, CANVAS) > 0.5).byte()
    loud = NOTHING.model_copy(update={"gamma": 1.0, "noise": 1.0, "blur": 1.0, "erase": 1.0, "collimate": 1.0})
    _, cut = apply_changes(canvases, lesions, drawn(30, loud))
    torch.testing.assert_close(cut, middle(lesions).float(), atol=1e-4, rtol=0)


# What happens to a plane's values.


def test_a_smoothed_pixel_is_the_mean_of_its_neighbours_that_are_there() -> None:
    canvases = torch.rand(2, 1, CANVAS, CANVAS)
    planes = changed(canvases, NOTHING.model_copy(update={"blur": 1.0}))
    for plane, source in zip(planes[:, 0], middle(canvases)[:, 0], strict=True):
        expected = torch.tensor(
            [
                [source[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].mean().item() for c in range(SIZE)]
                for r in range(SIZE)
            ]
        )
        torch.testing.assert_close(plane, expected, atol=1e-4, rtol=0)


def test_so_many_planes_are_smoothed_as_was_asked() -> None:
    canvases = torch.rand(1000, 1, CANVAS, CANVAS)
    planes = changed(canvases, NOTHING.model_copy(update={"blur": 0.3}))
    smoothed = (planes - middle(canvases)).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert within_chance(int(smoothed.sum()), 1000, 0.3)


def test_a_collimated_border_is_a_black_or_white_strip_along_one_edge() -> None:
    canvases = torch.full((1000, 1, CANVAS, CANVAS), 0.5)
    planes = changed(canvases, NOTHING.model_copy(update={"collimate": 1.0}))[:, 0]
    blank = (planes - 0.5).abs() > 1e-4
    rows, columns = blank.all(dim=2), blank.all(dim=1)
    # Nothing but whole rows, or whole columns.
    assert torch.equal(blank, rows[:, :, None] | columns[:, None, :])
    at_edge = torch.stack([rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]], dim=1)
    assert bool((at_edge.sum(dim=1) == 1).all())
    assert all(within_chance(count, 1000, 0.25) for count in at_edge.sum(dim=0).tolist())
    # From 0.03 to 0.15 of 32 pixels: 0.96 to 4.8, rounded.
    depths = torch.maximum(rows.sum(dim=1), columns.sum(dim=1))
    assert (int(depths.min()), int(depths.max())) == (1, 5)
    values = torch.stack([plane[mask].unique() for plane, mask in zip(planes, blank, strict=True)])
    assert set(values.flatten().tolist()) == {0.0, 1.0}
    assert within_chance(int(values.sum()), 1000, 0.3)


def test_so_many_planes_are_collimated_as_was_asked() -> None:
    canvases = torch.full((1000, 1, CANVAS, CANVAS), 0.5)
    planes = changed(canvases, NOTHING.model_copy(update={"collimate": 0.15}))
    collimated = (planes - 0.5).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert within_chance(int(collimated.sum()), 1000, 0.15)


def test_an_erased_rectangle_is_filled_with_the_planes_mean() -> None:
    canvases = torch.rand(50, 1, CANVAS, CANVAS)
    planes = changed(canvases, NOTHING.model_copy(update={"erase": 1.0}))
    means = middle(canvases).mean(dim=(1, 2, 3))
    for plane, mean in zip(planes, means, strict=True):
        filled = (plane - mean).abs() < 1e-5
        # Sides of a tenth to 0.35 of the plane's.
        assert 3 * 3 <= int(filled.sum()) <= 12 * 12


def test_noise_and_gamma_stay_within_what_was_asked() -> None:
    canvases = torch.full((100, 1, CANVAS, CANVAS), 0.5)
    noisy = changed(canvases, NOTHING.model_copy(update={"noise": 0.1}))
    assert noisy.std(dim=(2, 3)).max() <= 0.1 * 1.15
    bent = changed(canvases, NOTHING.model_copy(update={"gamma": 0.4}))
    assert bent.min() >= 0.5 ** (2.718281828**0.4) - 1e-4
    assert bent.max() <= 0.5 ** (2.718281828**-0.4) + 1e-4


def test_the_same_seed_gives_the_same_planes_and_another_gives_others() -> None:
    canvases = torch.rand(4, 1, CANVAS, CANVAS)
    settings = AugmentationConfig()
    assert torch.equal(changed(canvases, settings, 1), changed(canvases, settings, 1))
    assert not torch.equal(changed(canvases, settings, 1), changed(canvases, settings, 2))


def test_the_generator_moves_on_by_the_same_amount_whatever_changes_are_drawn() -> None:
    states = []
    for settings in [NOTHING, AugmentationConfig()]:
        generator = torch.Generator().manual_seed(3)
        draw_changes(5, size=SIZE, canvas=CANVAS, settings=settings, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states)
