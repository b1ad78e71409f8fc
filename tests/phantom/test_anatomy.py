"""Bones have the published sizes and stand where they should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import label

from osteoscope.phantom.anatomy import build_spine, see_bones
from osteoscope.phantom.fields import Lattice
from osteoscope.phantom.patients import Attributes, draw_patients
from osteoscope.phantom.vertebra import COLUMN, Shape, dimensions, level_of, shape_sacrum, shape_vertebra


def patient(level: str, **changes: object) -> Attributes:
    attributes = next(p.attributes for p in draw_patients(200, 3) if p.attributes.level == level)
    return dataclasses.replace(attributes, **{"collapse": 0.0, "vertebrae": 1, **changes})  # type: ignore[arg-type]


def extent(shape: Shape, axis: int, **at: float) -> float:
    """Length of bone in mm along an axis through a place, given by the other two coordinates."""
    axes = {"z": shape.lattice.z, "y": shape.lattice.y, "x": shape.lattice.x}
    index = tuple(
        slice(None) if number == axis else int(np.abs(axes[name] - at[name]).argmin())
        for number, name in enumerate("zyx")
    )
    return float((shape.distance[index] < 0).sum() * (shape.lattice.z[1] - shape.lattice.z[0]))


def test_l5_has_its_published_sizes() -> None:
    """Height 30.3 mm in front and 26.3 behind, length 35.7, pedicle 16.1 wide, canal 15.6 x 28.2 mm."""
    size = dimensions("L5")
    assert (size.front, size.back, size.depth, size.pedicle) == (30.3, 26.3, 35.7, 16.1)
    assert (size.canal_depth, size.canal_width) == (15.6, 28.2)
    shape = shape_vertebra(np.random.default_rng(0), "lumbar", size)
    grain = 2.5
    assert extent(shape, 0, y=-14, x=0) == pytest.approx(29, abs=grain)
    assert extent(shape, 0, y=14, x=8) == pytest.approx(26, abs=grain)
    assert extent(shape, 2, z=0, y=0) == pytest.approx(size.width * 0.91, abs=grain)
    middle = shape.distance[
        int(np.abs(shape.lattice.z - 4.5).argmin()), int(np.abs(shape.lattice.y - size.canal_centre).argmin())
    ]
    free = np.flatnonzero(middle > 0)
    left = free[np.abs(shape.lattice.x[free]) < 20]
    assert np.ptp(shape.lattice.x[left]) == pytest.approx(28.2, abs=grain)


def test_the_sacrum_is_there_however_few_planes_show_a_tumour_low_in_it() -> None:
    for seed in range(20):
        spine = build_spine(patient("sacral", vertebra="S3"), np.random.default_rng(seed), (2.0, 2.0))
        assert spine.bones[spine.target].name == "S1"


@pytest.mark.parametrize(
    ("vertebra", "front", "pedicle"), [("T4", (17, 19), 4.5), ("T9", (17, 19), 6.5), ("T12", (20, 24), 8.3)]
)
def test_thoracic_vertebrae_have_their_published_sizes(
    vertebra: str, front: tuple[float, float], pedicle: float
) -> None:
    size = dimensions(vertebra)
    assert front[0] <= size.front <= front[1]
    assert size.pedicle == pedicle


def test_sizes_grow_with_the_patient() -> None:
    assert dimensions("L3", 1.1).width == pytest.approx(1.1 * dimensions("L3").width)


@pytest.mark.parametrize("vertebra", ["C5", "T7", "L3"])
def test_a_vertebra_is_one_smooth_piece_with_an_open_canal(vertebra: str) -> None:
    size = dimensions(vertebra)
    shape = shape_vertebra(np.random.default_rng(1), level_of(vertebra), size)
    pieces, count = label(shape.distance < 0)
    assert np.bincount(pieces.ravel())[1:].max() > 0.99 * (pieces > 0).sum(), count
    middle = int(np.abs(shape.lattice.y - size.canal_centre).argmin()), int(np.abs(shape.lattice.x).argmin())
    assert (shape.distance[:, middle[0], middle[1]] > 3).all()
    # A distance changes by no more than the way that is gone; the blends let it change a little faster.
    lattice = shape.lattice
    along = [np.gradient(shape.distance, lattice.z, axis=0), np.gradient(shape.distance, lattice.y, axis=1)]
    along.append(np.gradient(shape.distance, lattice.x, axis=2))
    slopes = np.linalg.norm(np.stack(along), axis=0)
    near = np.abs(shape.distance) < 2
    assert np.median(slopes[near]) == pytest.approx(1, abs=0.2)
    assert np.quantile(slopes[near], 0.99) < 2


def test_a_collapse_takes_its_share_of_the_height_in_front() -> None:
    size = dimensions("L1")
    whole = shape_vertebra(np.random.default_rng(2), "lumbar", size)
    broken = shape_vertebra(np.random.default_rng(2), "lumbar", size, collapse=0.4, wedge=0.5)
    front = extent(broken, 0, y=-13, x=0) / extent(whole, 0, y=-13, x=0)
    back = extent(broken, 0, y=11, x=9) / extent(whole, 0, y=11, x=9)
    assert front == pytest.approx(0.6, abs=0.12)
    assert back > front


def test_no_two_bones_are_alike_and_none_is_symmetric() -> None:
    size = dimensions("L2")
    one = shape_vertebra(np.random.default_rng(1), "lumbar", size).distance
    other = shape_vertebra(np.random.default_rng(2), "lumbar", size).distance
    assert np.abs(one - other).max() > 0.5
    assert np.abs(one - one[:, :, ::-1]).max() > 0.5


def test_the_sacrum_narrows_and_has_four_pairs_of_foramina() -> None:
    shape = shape_sacrum(np.random.default_rng(0), 1.0)
    inside = shape.distance < 0
    widths = [
        np.ptp(shape.lattice.x[np.flatnonzero(inside[int(np.abs(shape.lattice.z - z).argmin())].any(axis=0))])
        for z in (0, -50, -95)
    ]
    assert 95 < widths[0] < 120
    assert widths[0] > widths[1] > widths[2]
    for z, x in ((-15, 21), (-41, 17.5), (-63, 15)):
        column = shape.distance[int(np.abs(shape.lattice.z - z).argmin()), :, int(np.abs(shape.lattice.x - x).argmin())]
        assert (column > 0).all()


@pytest.mark.parametrize("level", ["cervical", "thoracic", "lumbar", "sacral"])
def test_a_spine_stands_in_order_with_discs_between_its_bodies(level: str) -> None:
    attributes = patient(level)
    spine = build_spine(attributes, np.random.default_rng(5), (70, 70))
    order = [(*COLUMN, "S1").index(bone.name) for bone in spine.bones]
    assert order == list(range(order[0], order[-1] + 1))
    heights = [bone.centre[0] for bone in spine.bones]
    assert heights == sorted(heights, reverse=True)
    if level == "sacral":
        assert spine.bones[spine.target].name == "S1"
    else:
        assert spine.bones[spine.target].name == attributes.vertebra
        assert spine.bones[spine.target].centre == pytest.approx(np.zeros(3))
    for upper, lower in zip(spine.bones[:-1], spine.bones[1:], strict=True):
        gap = np.linalg.norm(upper.centre - lower.centre) - upper.half_height - lower.half_height
        assert 3 < gap < 14


def test_bones_of_a_spine_do_not_touch() -> None:
    """Between two bones there is always a place outside of both: joints and discs stay open."""
    spine = build_spine(patient("lumbar"), np.random.default_rng(6), (40, 40))
    lattice = Lattice(z=np.arange(-45, 45, 0.8), y=np.arange(-30, 75, 0.8), x=np.arange(-50, 50, 0.8))
    bones = see_bones(spine, lattice)
    pieces, _ = label(bones.distance < 0)
    large = np.flatnonzero(np.bincount(pieces.ravel())[1:] > 2000)
    assert len(large) >= 3


def test_a_spine_leans_as_a_spine_does() -> None:
    """Lordosis in the loin: L5 and the sacrum lean forward, upper lumbar vertebrae back."""
    spine = build_spine(patient("lumbar", vertebra="L3"), np.random.default_rng(7), (120, 90))
    lean = {bone.name: np.degrees(np.arcsin(bone.rotation[1, 0])) for bone in spine.bones}
    assert lean["L1"] > lean["L3"] > lean["L5"] > lean["S1"]
    assert lean["S1"] < -20


def test_a_distance_goes_on_beyond_the_box_of_a_shape() -> None:
    spine = build_spine(patient("lumbar"), np.random.default_rng(5), (30, 30))
    bone = spine.bones[spine.target]
    far = Lattice(z=np.array([0.0, 1.0]), y=np.array([-80.0, -79.0]), x=np.array([0.0, 1.0]))
    seen = bone.seen_from_afar(far)
    depth = spine.sizes[spine.target].depth
    assert seen[0, 0, 0] == pytest.approx(80 - depth / 2, rel=0.1)
