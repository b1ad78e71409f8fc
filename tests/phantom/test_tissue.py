"""Tissues are painted in their HU, one over the other, and contrast lights up what takes it up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from osteoscope.phantom.anatomy import build_spine
from osteoscope.phantom.fields import Field, Lattice
from osteoscope.phantom.patients import Attributes, draw_patients
from osteoscope.phantom.tissue import TISSUES, Canvas, Oval, paint_tissue

LATTICE = Lattice(z=np.arange(-60.0, 60, 6), y=np.arange(-80.0, 100, 2), x=np.arange(-90.0, 90, 2))


def canvas(iodine: float = 0.0) -> Canvas:
    painted = Canvas(LATTICE, np.random.default_rng(0), iodine, 0.3)
    painted.fill("fat")
    return painted


def test_an_oval_is_filled_and_what_is_around_it_left() -> None:
    painted = canvas()
    painted.oval(3, Oval(y=0, x=10, half_y=20, half_x=30), "csf")
    middle = int(np.abs(LATTICE.y).argmin()), int(np.abs(LATTICE.x - 10).argmin())
    assert painted.values[3][middle] == TISSUES["csf"].hu
    assert painted.values[3, 2, 2] == pytest.approx(TISSUES["fat"].hu, abs=30)
    assert painted.values[2][middle] == pytest.approx(TISSUES["fat"].hu, abs=30)
    area = (painted.values[3] > -30).sum() * 4
    assert area == pytest.approx(np.pi * 20 * 30, rel=0.1)


def test_outside_is_the_rest() -> None:
    painted = canvas()
    painted.oval(0, Oval(y=10, x=0, half_y=60, half_x=60), "air", outside=True)
    assert painted.values[0, 0, 0] == TISSUES["air"].hu
    assert painted.values[0, 45, 45] > -200


def test_contrast_adds_what_the_tissue_takes_up() -> None:
    for tissue, uptake in (("vessel", 115), ("csf", 0)):
        values = []
        for iodine in (0.0, 1.0):
            painted = canvas(iodine)
            painted.oval(0, Oval(y=0, x=0, half_y=20, half_x=20), tissue)
            values.append(painted.values[0, 40, 45])
        assert values[1] - values[0] == pytest.approx(uptake, abs=0.01)


def surroundings(level: str, **changes: float) -> tuple[Attributes, Field]:
    attributes = next(p.attributes for p in draw_patients(200, 3) if p.attributes.level == level)
    attributes = dataclasses.replace(attributes, **changes)  # type: ignore[arg-type]
    spine = build_spine(attributes, np.random.default_rng(1), (60, 60))
    return attributes, paint_tissue(spine, attributes.level, attributes.age, LATTICE, np.random.default_rng(2), 0.0)


@pytest.mark.parametrize(
    ("level", "air", "lung"),
    [("cervical", (0.2, 0.9), (0.0, 0.3)), ("thoracic", (0.0, 0.4), (0.1, 0.7)), ("lumbar", (0.0, 0.3), (0.0, 0.04))],
)
def test_a_region_holds_its_organs(level: str, air: tuple[float, float], lung: tuple[float, float]) -> None:
    _, values = surroundings(level)
    assert air[0] <= (values < -960).mean() <= air[1]
    assert lung[0] <= ((values > -920) & (values < -500)).mean() <= lung[1]
    assert ((values > 40) & (values < 75)).mean() > 0.08


def test_fat_grows_into_muscles_with_age() -> None:
    young, old = (surroundings("lumbar", age=age)[1] for age in (18.0, 78.0))
    behind = LATTICE.y > 30
    marbled = [((part := values[:, behind]) > -60).mean() - (part > 25).mean() for values in (young, old)]
    assert marbled[1] > 1.3 * marbled[0]
