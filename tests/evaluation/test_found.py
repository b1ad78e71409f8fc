"""Evidence against lesions over a study: means, honest thresholds, controls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from osteoscope.evaluation.found import LesionView, localisation_table
from osteoscope.evaluation.localisation import gaussian_map, iou

SIDE = 16


def view(patient: str, group: str, *, row: int, seed: int = 0, strength: float = 1.0) -> LesionView:
    """A lesion of 4x4 pixels at (row, 2), with evidence of 1 in it and of 0.4 in the four columns beside it."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[row : row + 4, 2:6] = True
    evidence = np.zeros((SIDE, SIDE), dtype=np.float32)
    evidence[row : row + 4, 6:10] = 0.4 * strength
    evidence[mask] = strength
    pixels = np.random.default_rng(seed).random((SIDE, SIDE)).astype(np.float32)
    return LesionView(patient=patient, label=0, group=group, evidence=evidence, mask=mask, pixels=pixels)


def test_evidence_in_the_lesion_is_found_and_controls_know_nothing() -> None:
    views = [view(f"P{n}", str(n % 2), row=n % 12, seed=n) for n in range(12)]
    table = localisation_table(views, draws=50)
    assert table["images"] == 12
    # Half of the columns hold 1, half 0.4: 1 / 1.4 of the energy; from 0.45 up the region is the lesion.
    assert table["evidence"]["energy"]["value"] == pytest.approx(1 / 1.4)
    assert table["evidence"]["iou"]["value"] == 1
    assert table["evidence"]["pointing"]["value"] == 1
    assert table["evidence"]["threshold"] == pytest.approx(0.45)
    for control in ("gaussian", "random", "edges"):
        assert table[control]["iou"]["value"] < 0.5


def test_the_threshold_of_a_group_is_chosen_on_the_others() -> None:
    # Lone evidence at 0.4 in group b makes a low threshold best there, so group a is judged with that low one.
    odd = view("P1", "b", row=3)
    low = LesionView(
        patient="P1",
        label=0,
        group="b",
        evidence=np.where(odd.mask, 0.3, 0.0).astype(np.float32),
        mask=odd.mask,
        pixels=odd.pixels,
    )
    low.evidence[3, 2] = 1.0
    here = view("P0", "a", row=3)
    table = localisation_table([here, low], draws=10)
    chosen_on_b, chosen_on_a = 0.1, 0.45
    expected = np.mean([iou(here.evidence, here.mask, chosen_on_b), iou(low.evidence, low.mask, chosen_on_a)])
    assert table["evidence"]["iou"]["value"] == pytest.approx(expected)


def test_one_group_is_judged_with_the_threshold_that_is_given() -> None:
    views = [view(f"P{n}", "all", row=n) for n in range(3)]
    assert localisation_table(views, threshold=0.3, draws=10)["evidence"]["iou"]["value"] == pytest.approx(0.5)
    assert localisation_table(views, draws=10)["evidence"]["threshold"] == 0.5


def test_in_one_group_other_maps_are_judged_at_what_suits_them_in_other_patients() -> None:
    # A lesion as wide as the bell is at 0.6 of its peak: any low threshold, such as evidence likes, takes in all.
    bell = gaussian_map((SIDE, SIDE))
    views = [
        dataclasses.replace(view(f"P{n}", "all", row=3), mask=bell >= (0.6 if n < 3 else 0.3), smallest=0.0)
        for n in range(4)
    ]
    row = localisation_table(views, threshold=0.1, draws=10)["gaussian"]
    # Each of the first three has two of its kind among the others, and the fourth has three.
    expected = [1, 1, 1, iou(bell, views[3].mask, 0.6)]
    assert row["iou"]["value"] == pytest.approx(np.mean(expected))
    assert row["threshold"] == pytest.approx(0.6)
    alone = localisation_table(views[:1], threshold=0.3, draws=10)["gaussian"]
    assert alone["threshold"] == 0.3


def test_images_of_a_patient_have_no_say_in_the_own_threshold() -> None:
    # Two images of one patient would choose 0.6 for each other; the other patient says 0.3.
    bell = gaussian_map((SIDE, SIDE))
    views = [
        dataclasses.replace(view(patient, "all", row=3), mask=bell >= level)
        for patient, level in (("P0", 0.6), ("P0", 0.6), ("P1", 0.3))
    ]
    row = localisation_table(views, draws=10)["gaussian"]
    assert row["threshold"] == pytest.approx((0.3 + 0.3 + 0.6) / 3)


def test_an_image_of_whose_lesion_nothing_was_read_is_counted_and_has_no_figure() -> None:
    seen = [view(f"P{n}", "all", row=n) for n in range(2)]
    unread = dataclasses.replace(view("P9", "all", row=0), mask=np.zeros((SIDE, SIDE), dtype=bool))
    table = localisation_table([*seen, unread], draws=10)
    assert (table["images"], table["not_read"]) == (2, 1)
    assert table["evidence"] == localisation_table(seen, draws=10)["evidence"]
    assert localisation_table([unread]) == {}


def test_blank_evidence_is_counted_and_finds_nothing() -> None:
    views = [view("P0", "all", row=1), view("P1", "all", row=2, strength=0.0)]
    row = localisation_table(views, draws=10)["evidence"]
    assert row["blank"] == 1
    assert row["pointing"]["value"] == 0.5


def test_without_lesions_there_is_no_table() -> None:
    assert localisation_table([]) == {}


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def found(patient: str, *regions: np.ndarray) -> LesionView:
    """The lesion is rows 3 to 7 and columns 2 to 6."""
    return dataclasses.replace(view(patient, "all", row=3), found=regions)


def test_a_lesion_is_found_by_a_region_that_covers_half_of_it_and_fits() -> None:
    views = [
        found("covers it", square(3, 2, 4)),
        found("covers half", square(5, 2, 4)),
        found("covers less than half", square(6, 2, 4)),
        found("four times as large", square(1, 0, 8)),
        found("larger", square(0, 0, 9)),
        found("two, one of which covers it", square(10, 10, 4), square(3, 2, 5)),
        found("none"),
        found("two that cover a quarter each", square(1, 0, 4), square(5, 4, 4)),
    ]
    table = localisation_table(views, draws=10)["regions"]
    assert (table["images"], table["none"], table["several"]) == (8, 1, 2)
    assert table["found"]["value"] == pytest.approx(4 / 8)


def test_a_small_lesion_is_found_by_the_smallest_region_that_there_is() -> None:
    small = found("P", square(1, 0, 9))
    assert localisation_table([small], draws=10)["regions"]["found"]["value"] == 0
    # 8 pixels wide, such a region touches nine.
    fits = dataclasses.replace(small, smallest=8.0)
    assert localisation_table([fits], draws=10)["regions"]["found"]["value"] == 1
    larger = dataclasses.replace(found("P", square(0, 0, 10)), smallest=8.0)
    assert localisation_table([larger], draws=10)["regions"]["found"]["value"] == 0


def test_the_square_round_a_lesion_of_two_parts_is_round_both() -> None:
    apart = found("P", square(0, 0, 14))
    apart.mask[:] = False
    apart.mask[1:3, 1:3] = apart.mask[11:13, 11:13] = True
    # 12 x 12 round both; the parts themselves are 4 rows high together, and 4 x 4 would make 14 x 14 too large.
    assert localisation_table([apart], draws=10)["regions"]["found"]["value"] == 1


def test_a_patient_of_many_images_weighs_by_them_and_is_drawn_as_one() -> None:
    views = [found("P0", square(3, 2, 4)) for _ in range(3)] + [found("P1")]
    figure = localisation_table(views, draws=200)["regions"]["found"]
    assert figure["value"] == pytest.approx(3 / 4)
    assert figure["n"] == 2


def test_the_map_of_lesions_is_a_row_of_its_own_where_every_image_has_one() -> None:
    with_map = [
        dataclasses.replace(one, lesion=np.where(one.mask, 0.9, 0.1).astype(np.float32))
        for one in (view(f"P{n}", "all", row=n) for n in range(4))
    ]
    row = localisation_table(with_map, draws=10)["lesion"]
    # 16 pixels of 0.9 among 240 of 0.1; half of the maximum is above 0.1.
    assert row["energy"]["value"] == pytest.approx(16 * 0.9 / (16 * 0.9 + 240 * 0.1))
    assert row["iou"]["value"] == row["dice"]["value"] == row["pointing"]["value"] == 1
    assert "lesion" not in localisation_table([*with_map, view("P9", "all", row=1)], draws=10)


def test_without_regions_asked_for_there_are_no_figures_of_them() -> None:
    assert "regions" not in localisation_table([view("P0", "all", row=1), view("P1", "all", row=2)], draws=10)
