from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

from osteoscope.imaging.survey import body_mask, padding_of, survey
from osteoscope.imaging.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Modality


def volume_of(
    values: NDArray[np.float32], steps: tuple[float, float, float] = (4.0, 2.0, 2.0), modality: Modality = "CT"
) -> Volume:
    """Axial; steps from plane to plane, row to row, column to column."""
    geometry = Geometry(shape=values.shape, affine=np.diag([steps[2], steps[1], steps[0], 1.0]))
    return Volume(geometry=geometry, modality=modality, sources=(), reader=lambda planes: values[list(planes)])


def patient(planes: int = 20) -> NDArray[np.float32]:
    """Draw an ellipse of soft tissue with two lungs, on a table, beside an arm, in air: 160 x 200 pixels."""
    rows, columns = np.mgrid[:160, :200]
    plane = np.full((160, 200), -1000, dtype=np.float32)

    def ellipse(row: float, column: float, tall: float, wide: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((rows + 0.5 - row) / tall) ** 2 + ((columns + 0.5 - column) / wide) ** 2 <= 1
        return inside

    plane[ellipse(80, 100, 40, 60)] = 40
    plane[ellipse(75, 75, 20, 18)] = plane[ellipse(75, 125, 20, 18)] = -800
    plane[ellipse(80, 180, 10, 10)] = 40
    plane[126:129, 20:190] = 200
    return np.repeat(plane[np.newaxis], planes, axis=0)


def test_the_body_is_found_and_neither_table_arm_nor_air() -> None:
    body = survey(volume_of(patient())).body
    assert body is not None
    (first, last), (top, bottom), (left, right) = body.box
    assert (first, last) == (0, 20)
    # The ellipse spans rows 40..120 and columns 40..160; a value in two was looked at.
    np.testing.assert_allclose((top, bottom, left, right), (40, 120, 40, 160), atol=2)


def test_lungs_are_body_and_table_and_arm_are_not() -> None:
    values = patient()
    body = survey(volume_of(values)).body
    assert body is not None
    mask = body.in_plane(10)
    assert mask.shape == (160, 200)
    assert mask[values[10] == 40][:100].all()
    assert mask[75, 75]
    assert mask[75, 125]
    assert not mask[126:129].any()
    assert not mask[:, 168:].any()


@pytest.mark.parametrize("axis", range(3))
def test_it_does_not_matter_along_which_axis_the_planes_lie(axis: int) -> None:
    values = np.moveaxis(patient(80)[:, ::2, ::2], 0, axis)
    body = survey(volume_of(np.ascontiguousarray(values), (4.0, 4.0, 4.0))).body
    assert body is not None
    box = list(body.box)
    assert box.pop(axis) == (0, 80)
    np.testing.assert_allclose(box, [(20, 60), (20, 80)], atol=1)


def test_planes_without_a_body_are_left_out() -> None:
    values = patient(30)
    values[:6] = values[-3:] = -1000
    body = survey(volume_of(values)).body
    assert body is not None
    assert body.box[0] == (6, 27)


def test_only_air_is_no_body() -> None:
    found = survey(volume_of(np.full((5, 40, 40), -1000, dtype=np.float32)))
    assert found.body is None
    assert (found.values == -1000).all()


def test_a_body_that_fills_the_scan_is_all_of_it() -> None:
    body = survey(volume_of(np.full((5, 40, 60), 30, dtype=np.float32))).body
    assert body is not None
    assert body.box == ((0, 5), (0, 40), (0, 60))


def test_an_mr_is_found_by_its_signal_above_noise() -> None:
    rng = np.random.default_rng(0)
    values = np.where(patient() > -900, 300.0, 0.0) + np.abs(rng.normal(0, 6, (20, 160, 200)))
    found = survey(volume_of(values.astype(np.float32), modality="MR"))
    assert found.body is not None
    np.testing.assert_allclose(found.body.box[1:], [(40, 120), (40, 160)], atol=4)
    assert np.median(found.values) > 290


@pytest.mark.parametrize("padded", [-32768.0, 65535.0, np.nan])
def test_padding_is_neither_body_nor_value(padded: float) -> None:
    values = np.where(patient() > -900, 300.0, 5.0).astype(np.float32)
    values[:, :30] = padded
    found = survey(volume_of(values, modality="MR"))
    assert found.body is not None
    np.testing.assert_allclose(found.body.box[1:], [(40, 120), (40, 160)], atol=2)
    assert set(np.unique(found.values)) <= {5.0, 300.0}
    assert found.padding == (() if np.isnan(padded) else (padded,))


def test_a_scan_of_nothing_but_padding_has_no_values() -> None:
    found = survey(volume_of(np.full((3, 10, 10), np.nan, dtype=np.float32)))
    assert found.body is None
    assert found.values.size == 0


def test_few_planes_are_decoded_of_many() -> None:
    asked: list[int] = []
    values = patient(1)

    def reader(planes: Sequence[int]) -> NDArray[np.float32]:
        asked.extend(planes)
        return values[[0] * len(planes)]

    geometry = Geometry(shape=(700, 160, 200), affine=np.diag([2.0, 2.0, 0.5, 1.0]))
    survey(Volume(geometry=geometry, modality="CT", sources=(), reader=reader))
    assert len(asked) == 64
    assert asked == sorted(set(asked))


def test_a_scan_without_a_place_is_refused() -> None:
    geometry = Geometry(shape=(1, 10, 10), affine=None)
    with pytest.raises(ValueError, match="place"):
        survey(Volume(geometry=geometry, modality="CT", sources=(), reader=lambda planes: np.zeros((1, 9, 9), "f4")))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({-2000: 90, 0: 50, 40: 40, 900: 1}, ()),
        ({0: 90, 300: 40, 1500: 9}, ()),
        ({-32768: 90, 0: 50, 40: 40, 900: 1}, (-32768,)),
        ({-32768: 1, 0: 50, 40: 70, 900: 1}, ()),
        ({0: 90, 1: 9, 40: 40, 900: 1}, ()),
        ({0: 90, 40: 40, 900: 9, 65535: 9}, (65535,)),
        ({0: 90, 1: 9}, ()),
        ({7: 9}, ()),
        ({}, ()),
    ],
)
def test_padding_is_what_many_share_far_from_all_others(counts: dict[int, int], expected: tuple[float, ...]) -> None:
    values = np.repeat(list(counts), list(counts.values())).astype(np.float32)
    assert padding_of(values) == expected


def test_the_mask_is_what_peers_would_make_of_it() -> None:
    values = patient(9)[:, ::2, ::2] > -350
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in values])
    worn = ndimage.binary_erosion(filled, iterations=2, border_value=1)
    labels, count = ndimage.label(worn)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    expected = ndimage.binary_dilation(largest, iterations=2) & filled
    assert count > 1
    assert_array_equal(body_mask(values), expected)
