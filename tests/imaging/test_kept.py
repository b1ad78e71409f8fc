"""A plane is decoded once, as long as there is room for all of its volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.imaging.kept import PlaneStore
from osteoscope.imaging.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VALUES = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
BYTES = VALUES.nbytes


def counted() -> tuple[Volume, list[int]]:
    """A volume of five planes of 2 x 3 values, and the planes that were decoded."""
    decoded: list[int] = []

    def read(planes: Sequence[int]) -> NDArray[np.float32]:
        decoded.extend(planes)
        return VALUES[list(planes)]

    geometry = Geometry(shape=VALUES.shape, affine=None)
    return Volume(geometry=geometry, modality="CT", sources=(), reader=read), decoded


WANTED: list[list[int]] = [[0, 1], [1], [4, 1, 0], [2, 2], [3, 0, 3], [0, 1, 2, 3, 4], []]


def test_a_plane_is_decoded_once_and_is_what_it_was() -> None:
    volume, decoded = counted()
    keeping = PlaneStore(BYTES).keeping(volume)
    for wanted in WANTED:
        np.testing.assert_array_equal(keeping.read(wanted), VALUES[wanted])
    assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_a_volume_that_does_not_fit_is_read_as_before() -> None:
    volume, decoded = counted()
    keeping = PlaneStore(BYTES - 1).keeping(volume)
    for wanted in WANTED:
        np.testing.assert_array_equal(keeping.read(wanted), VALUES[wanted])
    assert decoded == [plane for wanted in WANTED for plane in wanted]


def test_the_room_goes_to_those_that_are_read_first() -> None:
    volumes = [counted() for _ in range(3)]
    store = PlaneStore(2 * BYTES)
    keeping = [store.keeping(volume) for volume, _ in volumes]
    for place in (2, 0, 1, 2, 0, 1):
        keeping[place].read([3])
    assert [decoded for _, decoded in volumes] == [[3], [3, 3], [3]]


def test_what_is_kept_cannot_be_written_to() -> None:
    keeping = PlaneStore(BYTES).keeping(counted()[0])
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            keeping.read([1])[0, 0, 0] = 7
    assert keeping.read([1])[0, 0, 0] == 6


def test_a_fault_in_decoding_is_met_again() -> None:
    def read(planes: Sequence[int]) -> NDArray[np.float32]:
        msg = "gone"
        raise OSError(msg)

    volume = Volume(geometry=Geometry(shape=(1, 2, 3), affine=None), modality="CT", sources=(), reader=read)
    keeping = PlaneStore(BYTES).keeping(volume)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            keeping.read([0])
