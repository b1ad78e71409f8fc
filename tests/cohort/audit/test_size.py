"""What a cohort is too small for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.cohort.audit.size import FEWEST_FOR_SETS, find_too_small
from osteoscope.cohort.table import Cohort, Row, frame_of
from osteoscope.evaluation import conformal
from osteoscope.evaluation.power import expected_interval

if TYPE_CHECKING:
    from osteoscope.cohort.audit import Finding


def found_in(*patients: int, folds: int | None = 5) -> dict[str, Finding]:
    """Audit so many patients of class a, b and so on, two images each."""
    classes = "abc"[: len(patients)]
    rows = [
        Row(
            patient=f"P-{label}{number}",
            guessed=False,
            image=f"{label}{number}{view}.png",
            file_sha256="",
            pixel_sha256=f"{label}{number}{view}",
            rows=40,
            columns=40,
            modality="radiograph",
            role="case",
            label=label,
        )
        for label, count in zip(classes, patients, strict=True)
        for number in range(count)
        for view in range(2)
    ]
    cohort = Cohort(frame=frame_of(rows), classes=tuple(classes), root=Path(), source="s")
    return {finding.kind: finding for finding in find_too_small(cohort, folds=folds)}


def test_a_large_cohort_has_its_expected_precision_noted_and_no_more() -> None:
    found = found_in(100, 20)
    assert set(found) == {"expected-precision"}
    expected = expected_interval(0.8, 20, 100)
    assert f"{expected.low:.2f} to {expected.high:.2f}" in found["expected-precision"].message
    assert found["expected-precision"].severity == "note"


@pytest.mark.parametrize(
    ("patients", "severities"),
    [
        (18, {"too-few-for-calibration": "note"}),
        (9, {"too-few-for-calibration": "note"}),
        (8, {"too-few-for-calibration": "warn"}),
        (4, {"too-few-for-calibration": "warn", "too-few-for-folds": "block"}),
        (0, {"too-few-for-calibration": "warn", "too-few-for-folds": "block"}),
    ],
)
def test_what_too_few_patients_cannot_carry(patients: int, severities: dict[str, str]) -> None:
    found = found_in(30, 25, patients)
    found.pop("expected-precision", None)
    assert {kind: finding.severity for kind, finding in found.items()} == severities
    assert all(f"'c' has {patients} patients" in finding.message for finding in found.values())


def test_the_remedy_for_too_few_folds_is_fewer_folds_where_there_can_be_some() -> None:
    assert found_in(9, 3)["too-few-for-folds"].remedy == "train with --folds 3"
    assert found_in(9, 1)["too-few-for-folds"].remedy == "gather more patients of this class"
    assert "too-few-for-folds" not in found_in(9, 3, folds=3)


def test_an_evaluation_needs_neither_folds_nor_calibration() -> None:
    assert set(found_in(9, 3, folds=None)) == {"expected-precision"}


@pytest.mark.parametrize(("level", "fewest"), FEWEST_FOR_SETS.items())
def test_the_fewest_for_prediction_sets_are_those_that_conformal_prediction_takes(level: float, fewest: int) -> None:
    for count, possible in ((fewest - 1, False), (fewest, True)):
        labels = np.repeat([0, 1], [count, 40])
        shares = np.random.default_rng(0).dirichlet([1, 1], len(labels))
        fitted = conformal.fit(shares, labels, level)
        assert isinstance(fitted, conformal.ConformalThresholds) == possible
