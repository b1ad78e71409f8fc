"""What the values of a Volume are, seen a few planes at a time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.imaging import values as values_module
from osteoscope.imaging.picture import pixel_sha256
from osteoscope.imaging.values import values_of
from osteoscope.imaging.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Planes


def taken(values: NDArray[np.float32], planes: Sequence[int]) -> Planes:
    found: Planes = values[list(planes)]
    return found


def volume_of(values: NDArray[np.floating]) -> Volume:
    values = values.astype(np.float32)
    shape = (values.shape[0], values.shape[1], values.shape[2])
    geometry = Geometry(shape=shape, affine=None)
    return Volume(geometry=geometry, modality="MR", sources=(), reader=functools.partial(taken, values))


NOISE = np.random.default_rng(0).normal(100, 20, (7, 12, 9))


@pytest.mark.parametrize("at_once", [1, 250, 10**6])
def test_values_are_the_same_however_many_planes_are_decoded_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values_module, "VALUES_AT_ONCE", at_once)
    said: list[int] = []
    found = values_of(volume_of(NOISE), progress=said.append)
    assert found.sha256 == pixel_sha256(NOISE)
    assert found.low == float(NOISE.astype(np.float32).min())
    assert found.high == float(NOISE.astype(np.float32).max())
    assert not found.labels
    assert not found.blank
    assert said[-1] == 7
    # 250 values hold two planes of 108.
    assert len(said) == {1: 7, 250: 4, 10**6: 1}[at_once]


def test_values_that_are_not_finite_do_not_count() -> None:
    values = np.ones((2, 4, 4))
    values[0], values[1, 0], values[1, 1, 1] = np.nan, np.inf, 7
    found = values_of(volume_of(values))
    assert (found.low, found.high) == (1, 7)
    nothing = values_of(volume_of(np.full((1, 4, 4), np.nan)))
    assert (nothing.low, nothing.high, nothing.labels) == (None, None, False)
    assert nothing.blank


def test_a_constant_volume_is_blank() -> None:
    assert values_of(volume_of(np.full((2, 4, 4), -3.0))).blank


def regions() -> NDArray[np.float64]:
    values = np.zeros((4, 32, 32))
    values[1:3, 4:28, 4:16], values[1:3, 4:28, 16:28] = 20, 21
    return values


def single_points() -> NDArray[np.float64]:
    values = np.zeros((4, 32, 32))
    values[1, 5, 5], values[2, 9, 9] = 3, 4
    return values


@pytest.mark.parametrize("values", [regions(), single_points()], ids=["regions", "points"])
def test_numbers_of_regions_are_told_from_grey_values(values: NDArray[np.float64]) -> None:
    assert values_of(volume_of(values)).labels
    # Neighbours of noise differ, however few grey values there are and however much is black.
    noise = np.random.default_rng(0).integers(1, 6, values.shape)
    assert values.sum() < 10 or not values_of(volume_of(np.where(values > 0, noise, 0))).labels
    assert not values_of(volume_of(values - 0.5)).labels
    assert not values_of(volume_of(-values)).labels
