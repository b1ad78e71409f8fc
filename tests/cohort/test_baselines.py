"""Baselines in the network's own folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import GCT, OS, entries, picture, write_cohort_of
from sklearn.metrics import roc_auc_score

from osteoscope.cohort.baselines import CLINICAL, CLINICAL_SITE, GEOMETRY, MAJORITY, Baseline, baselines, folds_within
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import Case, Cohort, cases

if TYPE_CHECKING:
    from pathlib import Path


def labels_of(cohort: Cohort) -> np.ndarray:
    return np.array([case.label for case in cases(cohort)])


def found_in(
    cohort: Cohort, repeats: int = 1, features: dict[str, dict[str, float]] | None = None
) -> dict[str, Baseline]:
    folds = make_folds(cases(cohort), folds=3, repeats=repeats, seed=0, classes=cohort.classes)
    return {one.name: one for one in baselines(cohort, folds, features=features)}


def auc(baseline: Baseline, labels: np.ndarray) -> float:
    assert baseline.probabilities is not None
    return float(roc_auc_score(labels, baseline.probabilities[0, :, 1]))


def test_every_patient_is_predicted_in_every_repeat_by_every_baseline(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(0, (12, 9)))
    found = found_in(cohort, repeats=2)
    assert list(found) == [MAJORITY, CLINICAL, CLINICAL_SITE, GEOMETRY]
    for one in found.values():
        assert one.probabilities is not None
        assert one.probabilities.shape == (2, 21, 2)
        assert one.patients == tuple(case.patient for case in cases(cohort))
        np.testing.assert_allclose(one.probabilities.sum(axis=-1), 1)
        assert one.reason is None


def test_the_majority_says_the_same_of_everybody(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(0, (12, 9)))
    majority = found_in(cohort)[MAJORITY]
    assert majority.probabilities is not None
    np.testing.assert_allclose(majority.probabilities, np.broadcast_to([12 / 21, 9 / 21], (1, 21, 2)))
    assert auc(majority, labels_of(cohort)) == 0.5


def test_age_is_found_by_the_clinical_baselines_alone(tmp_path: Path) -> None:
    made = entries(1, (20, 20))
    for entry in made:
        entry["age"] = entry["age"] / 8 + (60 if entry["label"] == GCT else 10)
    cohort = write_cohort_of(tmp_path, made)
    found, labels = found_in(cohort), labels_of(cohort)
    assert auc(found[CLINICAL], labels) == 1
    assert auc(found[CLINICAL_SITE], labels) > 0.95
    assert auc(found[GEOMETRY], labels) < 0.75


def test_the_site_is_found_where_it_is_told(tmp_path: Path) -> None:
    made = entries(2, (20, 20))
    for entry in made:
        entry["site"] = "femur" if entry["label"] == OS else "radius"
    cohort = write_cohort_of(tmp_path, made)
    found, labels = found_in(cohort), labels_of(cohort)
    assert auc(found[CLINICAL_SITE], labels) > 0.95
    assert auc(found[CLINICAL], labels) < 0.75


def test_the_shape_of_pictures_is_found_by_the_geometry(tmp_path: Path) -> None:
    made, rng = entries(3, (20, 20)), np.random.default_rng(3)
    for entry in made:
        entry["picture"] = picture(rng, 64, 64) if entry["label"] == GCT else entry["picture"]
    cohort = write_cohort_of(tmp_path, made)
    assert auc(found_in(cohort)[GEOMETRY], labels_of(cohort)) > 0.95


def test_borders_are_found_by_the_geometry_where_they_are_known(tmp_path: Path) -> None:
    made = entries(4, (20, 20))
    cohort = write_cohort_of(tmp_path, made)
    borders = {entry["image"]: {"corner_marks": float(entry["label"] == GCT)} for entry in made}
    del borders[made[0]["image"]]
    assert auc(found_in(cohort)[GEOMETRY], labels_of(cohort)) < 0.75
    assert auc(found_in(cohort, features=borders)[GEOMETRY], labels_of(cohort)) > 0.95


def test_what_cannot_be_predicted_says_why(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(5, (6, 2)))
    folds = make_folds(cases(cohort), folds=2, repeats=1, seed=0, classes=cohort.classes)
    assert all(one.probabilities is not None for one in baselines(cohort, folds))
    torn = type(folds)(seed=0, patients=folds.patients, test=((folds.patients[:1], folds.patients[1:]),))
    *_, geometry = baselines(cohort, torn)
    assert geometry.probabilities is None
    assert geometry.reason is not None
    assert "left to learn from" in geometry.reason


@pytest.mark.parametrize(("counts", "folds"), [((9, 7), 5), ((9, 3), 3), ((9, 2), 2), ((9, 1), None), ((9, 0), None)])
def test_own_folds_are_as_many_as_the_rarest_class_allows(counts: tuple[int, int], folds: int | None) -> None:
    made = [
        Case(patient=f"P-{label}{number}", label=label, images=())
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    dealt = folds_within(made, (OS, GCT))
    assert (None if dealt is None else dealt.folds) == folds
