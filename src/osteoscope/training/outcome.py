"""From the folds' predictions to calibrated out-of-fold predictions and the calibration that the bundle carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.evaluation.calibration import ChosenCalibration, choose_calibration, cross_fitted
from osteoscope.evaluation.conformal import INDETERMINATE, ConformalThresholds, Refused
from osteoscope.evaluation.conformal import fit as fit_conformal
from osteoscope.evaluation.document import Predictions, predictions_csv
from osteoscope.inference.predictor import verdicts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.inference.prediction import CasePrediction
    from osteoscope.training.fold import FoldOutcome

CONFORMAL_LEVEL = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """Every patient once a repeat, predicted and calibrated by what never saw them."""

    by_patient: Predictions
    by_image: Predictions
    images: tuple[str, ...]
    """The image of each row of `by_image`."""
    folds: NDArray[np.int64]
    """The fold, within its repeat, of each row of `by_patient`."""
    image_folds: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BundleCalibration:
    """What the bundle's probabilities and verdicts rest on: what the folds of the first repeat say."""

    chosen: ChosenCalibration
    conformal: ConformalThresholds | Refused


def calibrate(outcomes: Sequence[FoldOutcome], prior: tuple[float, ...]) -> tuple[OutOfFold, BundleCalibration]:
    """Calibrate out-of-fold predictions, and find the bundle's calibration.

    A fold's calibration, the choice of its method and its conformal thresholds come from the other folds of its repeat,
    so no patient has a say in the own probabilities; the bundle's come from all folds of the first repeat.

    Parameters
    ----------
    outcomes
        All folds of all repeats, in order.
    prior
        What the probabilities shall assume of the classes.
    """
    repeats = sorted({outcome.repeat for outcome in outcomes})
    parts = [_calibrate_repeat([o for o in outcomes if o.repeat == repeat], prior) for repeat in repeats]
    out_of_fold = OutOfFold(
        by_patient=_joined([part.by_patient for part in parts]),
        by_image=_joined([part.by_image for part in parts]),
        images=tuple(image for part in parts for image in part.images),
        folds=np.concatenate([part.folds for part in parts]),
        image_folds=np.concatenate([part.image_folds for part in parts]),
    )
    rows = _rows([outcome for outcome in outcomes if outcome.repeat == repeats[0]])
    chosen = choose_calibration(rows.logits, rows.labels, prior)
    conformal = fit_conformal(chosen.calibration.apply(rows.logits), rows.labels, CONFORMAL_LEVEL)
    return out_of_fold, BundleCalibration(chosen=chosen, conformal=conformal)


def oof_csv(out_of_fold: OutOfFold, slugs: Sequence[str]) -> str:
    """Write the out-of-fold predictions by patient: ``patient, repeat, fold, label, p_SLUG…, verdict``."""
    return predictions_csv(out_of_fold.by_patient, slugs, {"fold": out_of_fold.folds.tolist()})


def oof_images_csv(out_of_fold: OutOfFold, slugs: Sequence[str]) -> str:
    """Write the out-of-fold predictions of each image by itself: as `oof_csv`, with the image."""
    columns = {"fold": out_of_fold.image_folds.tolist(), "image": out_of_fold.images}
    return predictions_csv(out_of_fold.by_image, slugs, columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The cases of some folds, and their images, before calibration."""

    cases: tuple[CasePrediction, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    folds: NDArray[np.int64]


def _rows(outcomes: Sequence[FoldOutcome]) -> _Rows:
    pairs = [(outcome.fold, case.prediction) for outcome in outcomes for case in outcome.cases]
    pairs.sort(key=lambda pair: pair[1].patient)
    cases = tuple(case for _, case in pairs)
    return _Rows(
        cases=cases,
        labels=np.array([case.label for case in cases], dtype=np.int64),
        logits=np.array([case.logits for case in cases]),
        folds=np.array([fold for fold, _ in pairs], dtype=np.int64),
    )


def _calibrate_repeat(outcomes: Sequence[FoldOutcome], prior: tuple[float, ...]) -> OutOfFold:
    rows = _rows(outcomes)
    fitted = cross_fitted(
        rows.logits,
        rows.labels,
        folds=rows.folds,
        fit=lambda logits, labels: choose_calibration(logits, labels, prior).calibration,
    )
    verdicts = np.full(len(rows.labels), INDETERMINATE, dtype=np.int64)
    of_images = np.array([case.said_by_images for case in rows.cases], dtype=np.float64)
    conformal_of = {}
    for fold in np.unique(rows.folds):
        here, others = rows.folds == fold, rows.folds != fold
        # The thresholds are found on probabilities that the same map made.
        shares = fitted.maps[str(fold)].apply(rows.logits[others])
        conformal_of[int(fold)] = fit_conformal(shares, rows.labels[others], CONFORMAL_LEVEL)
        verdicts[here] = verdicts_of(fitted.probabilities[here], conformal_of[int(fold)])
        of_images[here] = fitted.maps[str(fold)].apply(of_images[here])
    owners = np.repeat(np.arange(len(rows.cases)), [len(case.images) for case in rows.cases])
    image_logits = np.array([image.logits for case in rows.cases for image in case.images])
    image_folds = rows.folds[owners]
    image_probabilities = np.empty_like(image_logits)
    image_verdicts = np.empty(len(owners), dtype=np.int64)
    for fold, conformal in conformal_of.items():
        here = image_folds == fold
        image_probabilities[here] = fitted.maps[str(fold)].apply(image_logits[here])
        image_verdicts[here] = verdicts_of(image_probabilities[here], conformal)
    repeat, by_sets = outcomes[0].repeat, not any(isinstance(found, Refused) for found in conformal_of.values())
    return OutOfFold(
        by_patient=Predictions(
            patients=tuple(case.patient for case in rows.cases),
            labels=rows.labels,
            repeats=np.full(len(rows.cases), repeat),
            probabilities=fitted.probabilities,
            verdicts=verdicts,
            by_sets=by_sets,
            probabilities_of_images=of_images,
        ),
        by_image=Predictions(
            patients=tuple(rows.cases[owner].patient for owner in owners),
            labels=rows.labels[owners],
            repeats=np.full(len(owners), repeat),
            probabilities=image_probabilities,
            verdicts=image_verdicts,
            by_sets=by_sets,
        ),
        images=tuple(image.image for case in rows.cases for image in case.images),
        folds=rows.folds,
        image_folds=image_folds,
    )


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """Join repeats; where any fold of them found no sets, every verdict is the most probable class, all of one kind."""
    by_sets = all(part.by_sets for part in parts)
    of_images = [part.probabilities_of_images for part in parts if part.probabilities_of_images is not None]
    return Predictions(
        patients=tuple(patient for part in parts for patient in part.patients),
        labels=np.concatenate([part.labels for part in parts]),
        repeats=np.concatenate([part.repeats for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        verdicts=np.concatenate([part.verdicts if by_sets else part.probabilities.argmax(axis=1) for part in parts]),
        by_sets=by_sets,
        probabilities_of_images=np.concatenate(of_images) if of_images else None,
    )
