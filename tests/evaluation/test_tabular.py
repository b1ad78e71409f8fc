"""Classifiers on plain columns: what they find, what they must not see, and what they refuse."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from osteoscope.evaluation import tabular
from osteoscope.evaluation.intervals import group_patients
from osteoscope.evaluation.tabular import Columns, TabularPredictions, patient_means, predict_out_of_fold

CLASSES = ("a", "b")


def predicted(
    columns: Columns,
    labels: np.ndarray,
    *,
    folds: np.ndarray | None = None,
    patients: list[str] | None = None,
    classes: tuple[str, ...] = CLASSES,
    seed: int = 0,
) -> TabularPredictions:
    """Predict rows that are patients of their own, in five folds, unless told otherwise."""
    rows = len(labels)
    return predict_out_of_fold(
        columns,
        labels,
        classes=classes,
        patients=patients or [f"{row:04}" for row in range(rows)],
        folds=np.arange(rows)[np.newaxis] % 5 if folds is None else folds,
        seed=seed,
    )


def auc(found: TabularPredictions, labels: np.ndarray) -> float:
    assert found.probabilities is not None
    return float(roc_auc_score(labels, found.probabilities[0, :, 1]))


def numbers(**columns: np.ndarray) -> Columns:
    return Columns(numeric=columns, categorical={})


# What is found


def test_a_column_that_tells_the_label_is_found_and_one_that_does_not_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    assert auc(predicted(numbers(x=labels + rng.normal(0, 0.3, 200)), labels), labels) > 0.95
    assert abs(auc(predicted(numbers(x=rng.normal(size=200)), labels), labels) - 0.5) < 0.15


def test_what_lies_between_is_told_from_what_lies_on_either_side() -> None:
    # A straight line in age cannot tell these.
    rng = np.random.default_rng(1)
    age = rng.uniform(0, 90, 240)
    labels = (np.abs(age - 45) < 20).astype(np.int64)
    assert auc(predicted(numbers(age=age), labels), labels) > 0.95


def test_two_columns_that_tell_only_together_are_found_by_boosting() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=400), rng.normal(size=400)
    labels = ((x > 0) != (y > 0)).astype(np.int64)
    found = predicted(numbers(x=x, y=y), labels)
    assert set(found.models) == {"boosting"}
    assert auc(found, labels) > 0.85


def test_categories_missing_numbers_and_missing_names_are_found() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 150)
    noise = rng.normal(size=150)
    sites = [("femur", "tibia")[label] for label in labels]
    assert auc(predicted(Columns(numeric={"x": noise}, categorical={"site": sites}), labels), labels) == 1
    assert auc(predicted(numbers(x=np.where(labels == 1, np.nan, noise)), labels), labels) > 0.95
    recorded = [None if label else "femur" for label in labels]
    assert auc(predicted(Columns(numeric={}, categorical={"site": recorded}), labels), labels) == 1


def test_probabilities_assume_equal_class_shares() -> None:
    # Nine of one class to one of the other, and nothing to tell them by but noise.
    rng = np.random.default_rng(4)
    labels = (np.arange(300) % 10 == 0).astype(np.int64)
    found = predicted(numbers(x=rng.normal(size=300)), labels, folds=rng.permutation(300)[np.newaxis] % 5)
    assert found.probabilities is not None
    assert found.probabilities[..., 1].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found.probabilities.sum(axis=-1), 1)


def test_three_classes_are_told_apart() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(180) % 3
    columns = numbers(x=(labels == 1) + rng.normal(0, 0.2, 180), y=(labels == 2) + rng.normal(0, 0.2, 180))
    found = predicted(columns, labels, classes=("a", "b", "c"), folds=rng.permutation(180)[np.newaxis] % 5)
    assert found.probabilities is not None
    assert (found.probabilities[0].argmax(axis=1) == labels).mean() > 0.95


# What must not be seen


def test_a_fold_is_predicted_without_its_own_labels() -> None:
    rng = np.random.default_rng(6)
    x, labels = rng.normal(size=100), np.arange(100) % 2
    folds = rng.permutation(100)[np.newaxis] % 5
    first = predicted(numbers(x=x), labels, folds=folds).probabilities
    swapped = labels.copy()
    held = np.flatnonzero(folds[0] == 0)
    swapped[held] = 1 - swapped[held]
    second = predicted(numbers(x=x), swapped, folds=folds).probabilities
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first[0, held], second[0, held])
    assert not np.array_equal(first, second)


def test_the_images_of_a_patient_weigh_together_as_much_as_one_image_of_another() -> None:
    # Patient 0 of each class has ten images that say the opposite of the class's others.
    labels = np.repeat(np.arange(20) % 2, [10, 10, *[1] * 18])
    patients = np.repeat([f"{patient:02}" for patient in range(20)], [10, 10, *[1] * 18]).tolist()
    x = np.where(np.arange(len(labels)) < 20, 1 - labels, labels).astype(np.float64)
    folds = np.array([int(name) // 2 % 5 for name in patients])[np.newaxis]
    found = predicted(numbers(x=x), labels, patients=patients, folds=folds).probabilities
    assert found is not None
    assert (found[0, 20:].argmax(axis=1) == labels[20:]).all()


def test_the_same_seed_gives_the_same_probabilities_and_models_for_each_repeat_and_fold() -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(80) % 2
    columns = numbers(x=labels + rng.normal(size=80), y=rng.normal(size=80))
    folds = np.stack([rng.permutation(80) % 4, rng.permutation(80) % 4])
    first, again = predicted(columns, labels, folds=folds), predicted(columns, labels, folds=folds)
    assert first.probabilities is not None
    assert first.probabilities.shape == (2, 80, 2)
    assert len(first.models) == 8
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


# Against peers


def test_with_a_fixed_strength_it_is_the_logistic_regression_of_scikit_learn() -> None:
    # Three patients a class to learn from: nothing is chosen. Two values: no spline, and none is missing.
    x = np.array([0.0, 1, 0, 1, 0, 0, 1, 1])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    folds = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    found = predicted(numbers(x=x), labels, folds=folds)
    assert set(found.models) == {"logistic, C = 0.1"}
    assert found.probabilities is not None
    for fold in range(4):
        learnt = folds[0] != fold
        scale = StandardScaler().fit(x[learnt, np.newaxis])
        peer = LogisticRegression(C=tabular.FIXED_STRENGTH, tol=1e-10)
        peer.fit(scale.transform(x[learnt, np.newaxis]), labels[learnt])
        expected = peer.predict_proba(scale.transform(x[~learnt, np.newaxis]))
        np.testing.assert_allclose(found.probabilities[0, ~learnt], expected, atol=1e-4)


def test_the_spline_holds_every_natural_cubic_spline_on_its_knots() -> None:
    knots = np.array([0.0, 5, 20, 40, 70, 90])
    heights = np.array([2.0, -1, 3, 0])
    natural = CubicSpline(knots[1:-1], heights, bc_type="natural")
    x = np.linspace(5, 70, 200)
    basis = np.column_stack([np.ones(200), tabular._spline(x, knots)])
    fitted = basis @ np.linalg.lstsq(basis, natural(x), rcond=None)[0]
    np.testing.assert_allclose(fitted, natural(x), atol=1e-9)
    # Straight beyond the outer knots, and flat beyond what was seen.
    before = tabular._spline(np.array([0.0, 2, 4]), knots)
    np.testing.assert_allclose(np.diff(before, n=2, axis=0), 0, atol=1e-9)
    after = tabular._spline(np.array([75.0, 80, 85]), knots)
    np.testing.assert_allclose(np.diff(after, n=2, axis=0), 0, atol=1e-9)
    np.testing.assert_array_equal(tabular._spline(np.array([500.0]), knots), tabular._spline(np.array([90.0]), knots))


def test_a_patients_answer_is_the_mean_over_the_images() -> None:
    probabilities = np.array([[[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]])
    groups = group_patients(["q", "p", "q"], np.array([1, 0, 1]))
    np.testing.assert_allclose(patient_means(probabilities, groups), [[[0.6, 0.4], [0.35, 0.65]]])


# Bad input


def test_columns_that_tell_nothing_give_every_class_the_same() -> None:
    labels = np.arange(20) % 2
    columns = Columns(
        numeric={"constant": np.ones(20), "missing": np.full(20, np.nan)},
        categorical={"one name": ["x"] * 20, "no name": [None] * 20},
    )
    found = predicted(columns, labels, folds=np.arange(20)[np.newaxis] // 4)
    assert found.probabilities is not None
    np.testing.assert_array_equal(found.probabilities, np.full((1, 20, 2), 0.5))


def test_a_column_that_varies_in_one_fold_alone_is_no_trouble() -> None:
    labels = np.arange(40) % 2
    x = np.where(np.arange(40) == 3, 1e6, 0.0)
    found = predicted(numbers(x=x), labels, folds=np.arange(40)[np.newaxis] // 8)
    assert found.probabilities is not None
    assert np.isfinite(found.probabilities).all()


def test_many_names_are_no_trouble() -> None:
    labels = np.arange(120) % 2
    columns = Columns(numeric={}, categorical={"name": [f"{row}" for row in range(120)]})
    assert auc(predicted(columns, labels), labels) == 0.5


def test_a_class_of_one_patient_is_refused_with_the_reason() -> None:
    labels = np.array([0] * 9 + [1])
    found = predicted(numbers(x=np.arange(10.0)), labels)
    assert found.probabilities is None
    assert found.reason == "in some fold no patient of class 'b' is left to learn from"


@pytest.mark.parametrize(
    ("folds", "patients", "message"),
    [
        (np.zeros((1, 4), dtype=int), None, "two folds or more"),
        (np.array([[0, 1, 0, 1]]), ["p", "p", "q", "q"], "each patient in one"),
        (np.array([0, 1, 0, 1]), None, "shape"),
        (np.array([[0.0, 1, 0, 1]]), None, "integers"),
    ],
)
def test_wrong_folds_are_refused(folds: np.ndarray, patients: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predicted(numbers(x=np.arange(4.0)), np.array([0, 0, 1, 1]), folds=folds, patients=patients)


def test_wrong_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Columns(numeric={"x": np.zeros(2)}, categorical={"y": ["a"]})
    with pytest.raises(ValueError, match="one length"):
        Columns(numeric={}, categorical={})
    with pytest.raises(ValueError, match="finite"):
        numbers(x=np.array([0, np.inf]))
    with pytest.raises(ValueError, match="labels must have shape"):
        predicted(numbers(x=np.zeros(3)), np.array([0, 1]), folds=np.array([[0, 1]]))


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "seconds"), [(124, 10), (2600, 30)])
def test_it_is_quick(patients: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, patients)
    columns = Columns(
        numeric={name: labels + rng.normal(0, 2, patients) for name in "abcdef"},
        categorical={"site": rng.choice(["femur", "tibia", "radius"], patients).tolist()},
    )
    started = time.perf_counter()
    predicted(columns, labels)
    assert time.perf_counter() - started < seconds
