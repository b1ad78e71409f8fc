"""Planes of CT, MR and radiographs get one shape, and say what they are of."""

from __future__ import annotations

import numpy as np
import pytest

from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.imaging.mixed import as_read, filled, indicators, mix_of, named_together

VOLUME = VolumeConfig(size=32, neighbours=1, windows=((0, 1), (0, 2)))
MIX = PreparationConfig(size=32, volume=VOLUME, modalities=("CT", "MR", "radiograph"))


def planes(channels: int) -> np.ndarray:
    """Two planes, each channel of which has a value of its own."""
    values = np.arange(2 * channels, dtype=np.float32).reshape(2, channels, 1, 1) / 100
    return np.broadcast_to(values, (2, channels, 32, 32)).astype(np.float32)


def test_a_plane_before_an_mr_comes_to_stand_where_that_of_a_ct_does() -> None:
    ct, mr, film = (as_read(planes(own), kind, MIX) for own, kind in ((6, "CT"), (3, "MR"), (1, "radiograph")))  # type: ignore[arg-type]
    assert ct.shape == mr.shape == film.shape == (2, 9, 32, 32)
    assert {one.dtype for one in (ct, mr, film)} == {np.dtype(np.float32)}
    # Before, itself, behind, each in two windows.
    np.testing.assert_array_equal(ct[:, :6], planes(6))
    np.testing.assert_array_equal(mr[:, :6], planes(3)[:, [0, 0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(film[:, :6], planes(1)[:, [0] * 6])
    for place, one in enumerate((ct, mr, film)):
        expected = np.zeros(3)
        expected[place] = 1
        assert (one[:, 6:] == expected[None, :, None, None]).all()


@pytest.mark.parametrize("preparation", [PreparationConfig(size=32), PreparationConfig(volume=VOLUME)])
def test_planes_of_one_modality_stay_as_they_are(preparation: PreparationConfig) -> None:
    for channels, modality in ((6, "CT"), (3, "MR"), (1, "radiograph")):
        same = planes(channels)
        assert as_read(same, modality, preparation) is same  # type: ignore[arg-type]


def test_no_plane_has_the_shape_of_planes() -> None:
    assert as_read(np.empty((0, 1, 32, 32), dtype=np.float32), "radiograph", MIX).shape == (0, 9, 32, 32)


def test_channels_are_repeated_beside_each_other() -> None:
    np.testing.assert_array_equal(filled(planes(2), 6)[0, :, 0, 0], planes(2)[0, [0, 0, 0, 1, 1, 1], 0, 0])
    np.testing.assert_array_equal(indicators([1, 0], 2), [[0, 1], [1, 0]])


def test_modalities_are_named_as_people_do() -> None:
    assert named_together(["radiograph"]) == "radiographs"
    assert named_together(["CT", "radiograph"]) == "CT and radiographs"
    assert named_together(["CT", "MR", "radiograph"], "or") == "CT, MR or radiographs"
    assert mix_of(["radiograph", "CT", "CT"]) == "CT+radiograph"
