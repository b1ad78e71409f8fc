"""The outline of a mask encloses what the mask marks."""

from __future__ import annotations

import numpy as np
import pytest

from osteoscope.imaging.prepare import Lesion, outline_mask
from osteoscope.report.outlines import outlines_of


def test_a_single_pixel_is_a_diamond_round_its_middle() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 4] = True
    assert outlines_of(mask) == [[(4.5, 2.0), (5.0, 2.5), (4.5, 3.0), (4.0, 2.5)]]


def test_nothing_marked_has_no_outline() -> None:
    assert outlines_of(np.zeros((3, 3), dtype=bool)) == []


def test_parts_holes_and_corners_have_outlines_of_their_own() -> None:
    ring = np.zeros((6, 9), dtype=bool)
    ring[0:4, 0:4] = True
    ring[1:3, 1:3] = False
    assert len(outlines_of(ring)) == 2
    ring[4, 4] = ring[1, 7] = True
    assert len(outlines_of(ring)) == 4


@pytest.mark.parametrize("seed", range(20))
def test_what_an_outline_encloses_is_what_the_mask_marks(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 12)) > 0.5
    enclosed = np.zeros(mask.shape, dtype=bool)
    for outline in outlines_of(mask):
        # A hole takes away what the outline round it has enclosed.
        enclosed ^= outline_mask((9, 12), [Lesion(outline=tuple(outline))])
    np.testing.assert_array_equal(enclosed, mask)
