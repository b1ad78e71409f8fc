"""Shapes are distances, and random fields are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from osteoscope.phantom.fields import (
    Lattice,
    capsule,
    coverage,
    ellipsoid,
    interpolate,
    noise,
    smooth_maximum,
    smooth_minimum,
    smooth_step,
)


def lattice(count: int = 41, step: float = 1.0) -> Lattice:
    axis = (np.arange(count, dtype=np.float64) - count // 2) * step
    return Lattice(z=axis, y=axis, x=axis)


def test_a_ball_has_its_volume_and_its_distances() -> None:
    where = lattice(61, 0.5)
    ball = ellipsoid(where.open(), (0, 0, 0), (10, 10, 10))
    volume = coverage(ball, 0.5).sum() * 0.5**3
    assert volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.005)
    assert ball[30, 30, 60] == pytest.approx(15 - 10, abs=1e-3)


def test_a_rod_has_its_volume_and_is_thinner_along_its_flat_axis() -> None:
    where = lattice(81, 0.5)
    rod = capsule(where.open(), (0, 0, -8), (0, 0, 8), (4, 4))
    assert coverage(rod, 0.5).sum() * 0.5**3 == pytest.approx(np.pi * 16 * 16 + 4 / 3 * np.pi * 64, rel=0.01)
    flat = capsule(where.open(), (0, 0, -8), (0, 0, 8), (4, 4), (2, 1, 1))
    inside = np.argwhere(flat < 0)
    extent = (inside.max(axis=0) - inside.min(axis=0)) * 0.5
    assert extent[0] == pytest.approx(4, abs=1)
    assert extent[1] == pytest.approx(8, abs=1)


def test_a_smooth_seam_changes_nothing_far_from_it() -> None:
    a, b = np.array([[[0.0, 5.0, 1.0]]]), np.array([[[0.0, 0.0, 1.5]]])
    # At equal distances a seam of radius r adds r / 4; beyond r there is none; at 0.5 apart, (2 - 0.5)^2 / 8.
    assert smooth_minimum(a, b, 2.0) == pytest.approx(np.array([[[-0.5, 0.0, 1.0 - 1.5**2 / 8]]]))
    assert smooth_maximum(a, b, 2.0) == pytest.approx(np.array([[[0.5, 5.0, 1.5 + 1.5**2 / 8]]]))


def test_a_step_is_held_between_nothing_and_all() -> None:
    assert smooth_step(np.array([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])) == pytest.approx([0, 0, 0.15625, 0.5, 1, 1])


def test_noise_has_unit_variance_anywhere_and_varies_over_its_scale() -> None:
    where = lattice(24, 2.0)
    fields = np.stack([noise(np.random.default_rng(seed), where, (8, 8, 8)) for seed in range(300)])
    assert fields.dtype == np.float32
    assert fields.mean() == pytest.approx(0, abs=0.02)
    assert fields.std(axis=0).mean() == pytest.approx(1, abs=0.02)
    assert np.ptp(fields.std(axis=0)[::6, ::6, ::6]) < 0.3
    near = (fields[:, :, :, 4] * fields[:, :, :, 5]).mean()
    far = (fields[:, :, :, 4] * fields[:, :, :, 22]).mean()
    assert near > 0.85
    assert abs(far) < 0.05


def test_interpolation_is_linear_along_every_axis() -> None:
    z, y, x = np.arange(0, 9, 2), np.arange(0, 10, 3), np.arange(0, 8)
    known = (1.0 * z[:, None, None] + 10.0 * y[None, :, None] + 100.0 * x).astype(np.float32)
    full = interpolate(known, (2, 3, 1), (9, 10, 8))
    expected = np.arange(9)[:, None, None] + 10.0 * np.arange(10)[None, :, None] + 100.0 * np.arange(8)
    assert full == pytest.approx(expected)


def test_a_box_holds_the_places_between_its_corners() -> None:
    where = lattice(41)
    box = where.box(np.array([-2.5, 0, -100]), np.array([2.5, 3, 100]))
    part = where.cut(*box)
    assert part.z.tolist() == [-2, -1, 0, 1, 2]
    assert part.y.tolist() == [0, 1, 2, 3]
    assert len(part.x) == 41
