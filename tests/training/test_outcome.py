"""Out-of-fold calibration: nobody has a say in the own probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from osteoscope.evaluation.calibration import choose_calibration
from osteoscope.evaluation.conformal import ConformalThresholds, Refused, fit
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.inference.predictor import verdicts_of
from osteoscope.training.fold import FoldOutcome
from osteoscope.training.outcome import calibrate, oof_csv, oof_images_csv

PRIOR = (0.5, 0.5)

IMAGES = (("a", 0.75), ("b", -0.75))
"""The images of every case, and by how much more than the case each speaks for the second class."""


def outcome(repeat: int, fold: int, cases: list[tuple[str, int, float]], *, told: float = 0) -> FoldOutcome:
    """A fold whose cases have two images each, one for and one against the case's logit for the second class; so much
    of that is for what is told."""
    return FoldOutcome(
        number=2 * repeat + fold,
        repeat=repeat,
        fold=fold,
        cases=tuple(
            ExplainedCase(
                prediction=CasePrediction(
                    patient=patient,
                    label=label,
                    logits=(0.0, logit),
                    logits_of_images=(0.0, logit - told) if told else None,
                    told=("age",) if told else (),
                    images=tuple(
                        ImagePrediction(
                            image=f"{patient}{name}.png",
                            logits=(0.0, logit + more),
                            looks=(Look(rectangle=(0, 0, 9, 9), weight=0.5),),
                        )
                        for name, more in IMAGES
                    ),
                ),
                evidence=np.zeros((2, 2, 2, 2), dtype=np.float32),
                lesions=np.zeros((2, 2, 2), dtype=np.float32),
            )
            for patient, label, logit in cases
        ),
        history=(),
        differences_through_weights=(),
        parity={},
        encoder=None,
        folder=Path(),
    )


def drawn(seed: int, fold: int, n: int = 20) -> list[tuple[str, int, float]]:
    rng = np.random.default_rng([seed, fold])
    return [(f"P{fold}{i:02d}", i % 2, float(rng.normal(2 * (i % 2) - 1, 1.5))) for i in range(n)]


def test_a_folds_calibration_and_its_method_come_from_the_other_fold() -> None:
    here, there = drawn(1, 0), drawn(1, 1)
    found, _ = calibrate([outcome(0, 0, here), outcome(0, 1, there)], PRIOR)
    chosen = choose_calibration([[0.0, logit] for *_, logit in there], [label for _, label, _ in there], PRIOR)
    expected = chosen.calibration.apply([[0.0, logit] for *_, logit in here])
    np.testing.assert_allclose(found.by_patient.probabilities[found.folds == 0], expected)


def test_verdicts_and_all_that_is_said_of_single_images_come_from_the_other_fold() -> None:
    folds = {0: drawn(1, 0, n=40), 1: drawn(2, 1, n=24)}
    found, _ = calibrate([outcome(0, fold, cases) for fold, cases in folds.items()], PRIOR)
    for fold, cases in folds.items():
        logits = [[0.0, logit] for *_, logit in folds[1 - fold]]
        labels = [label for _, label, _ in folds[1 - fold]]
        by_others = choose_calibration(logits, labels, PRIOR).calibration
        thresholds = fit(by_others.apply(logits), labels, 0.9)
        assert isinstance(thresholds, ConformalThresholds)
        here = found.folds == fold
        expected = verdicts_of(by_others.apply([[0.0, logit] for *_, logit in cases]), thresholds)
        np.testing.assert_array_equal(found.by_patient.verdicts[here], expected)
        here = found.image_folds == fold
        said = by_others.apply([[0.0, logit + more] for *_, logit in cases for _, more in IMAGES])
        np.testing.assert_allclose(found.by_image.probabilities[here], said)
        np.testing.assert_array_equal(found.by_image.verdicts[here], verdicts_of(said, thresholds))
        assert [found.images[row] for row in np.flatnonzero(here)] == [
            f"{patient}{name}.png" for patient, *_ in cases for name, _ in IMAGES
        ]


def test_what_the_images_alone_say_is_calibrated_as_all_is() -> None:
    here, there = drawn(1, 0), drawn(1, 1)
    found, _ = calibrate([outcome(0, 0, here, told=0.5), outcome(0, 1, there, told=0.5)], PRIOR)
    chosen = choose_calibration([[0.0, logit] for *_, logit in there], [label for _, label, _ in there], PRIOR)
    expected = chosen.calibration.apply([[0.0, logit - 0.5] for *_, logit in here])
    assert found.by_patient.probabilities_of_images is not None
    np.testing.assert_allclose(found.by_patient.probabilities_of_images[found.folds == 0], expected)


def test_where_nothing_is_told_the_images_alone_say_all() -> None:
    repeats = [outcome(repeat, fold, drawn(3 + repeat, fold)) for repeat in (0, 1) for fold in (0, 1)]
    found, _ = calibrate(repeats, PRIOR)
    assert found.by_patient.probabilities_of_images is not None
    np.testing.assert_array_equal(found.by_patient.probabilities_of_images, found.by_patient.probabilities)


def test_changing_a_patients_own_label_does_not_change_the_own_probability() -> None:
    here, there = drawn(2, 0), drawn(2, 1)
    before, _ = calibrate([outcome(0, 0, here), outcome(0, 1, there)], PRIOR)
    turned = [(here[0][0], 1 - here[0][1], here[0][2]), *here[1:]]
    after, _ = calibrate([outcome(0, 0, turned), outcome(0, 1, there)], PRIOR)
    row = before.by_patient.patients.index(here[0][0])
    np.testing.assert_array_equal(before.by_patient.probabilities[row], after.by_patient.probabilities[row])


def test_the_bundle_is_calibrated_on_the_first_repeat_alone() -> None:
    first = [outcome(0, 0, drawn(3, 0)), outcome(0, 1, drawn(3, 1))]
    second = [outcome(1, 0, drawn(4, 0)), outcome(1, 1, drawn(4, 1))]
    found, calibration = calibrate([*first, *second], PRIOR)
    _, alone = calibrate(first, PRIOR)
    assert calibration == alone
    logits = [[0.0, logit] for fold in (0, 1) for *_, logit in drawn(3, fold)]
    labels = [i % 2 for i in range(20)] * 2
    assert calibration.chosen == choose_calibration(logits, labels, PRIOR)
    assert calibration.conformal == fit(calibration.chosen.calibration.apply(logits), labels, 0.9)
    assert len(found.by_patient.patients) == 80


def test_too_few_cases_for_prediction_sets_are_said_and_the_most_probable_class_is_named() -> None:
    few = [outcome(0, 0, drawn(5, 0, n=6)), outcome(0, 1, drawn(5, 1, n=6))]
    found, calibration = calibrate(few, PRIOR)
    assert isinstance(calibration.conformal, Refused)
    np.testing.assert_array_equal(found.by_patient.verdicts, found.by_patient.probabilities.argmax(axis=1))


def test_where_sets_are_refused_in_one_fold_no_verdict_of_the_run_is_by_sets() -> None:
    # Of the second class the first fold leaves one in 30, too few for a threshold, and the second 20 in 40.
    few = [(patient, int(number == 0), logit) for number, (patient, _, logit) in enumerate(drawn(8, 1, n=30))]
    found, _ = calibrate([outcome(0, 0, drawn(7, 0, n=40)), outcome(0, 1, few)], PRIOR)
    for said in (found.by_patient, found.by_image):
        assert not said.by_sets
        np.testing.assert_array_equal(said.verdicts, said.probabilities.argmax(axis=1))


def test_the_files_name_every_patient_and_image_once_a_repeat() -> None:
    found, _ = calibrate([outcome(0, 0, drawn(6, 0)), outcome(0, 1, drawn(6, 1))], PRIOR)
    lines = oof_csv(found, ("a", "b")).splitlines()
    assert lines[0] == "patient,repeat,fold,label,p_a,p_b,verdict"
    assert len(lines) == 41
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert first["patient"] == "P000"
    assert float(first["p_a"]) + float(first["p_b"]) == pytest.approx(1, abs=2e-6)
    lines = oof_images_csv(found, ("a", "b")).splitlines()
    assert lines[0] == "patient,repeat,fold,image,label,p_a,p_b,verdict"
    assert [line.split(",")[3] for line in lines[1:5]] == ["P000a.png", "P000b.png", "P001a.png", "P001b.png"]
