"""The content of ``metrics.json``: one shape for a run's out-of-fold figures and for a bundle's on other cases."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import SMALLEST_PROBABILITY, names_as_index
from osteoscope.evaluation.calibration import softmax, with_prior
from osteoscope.evaluation.compare import paired_difference
from osteoscope.evaluation.conformal import INDETERMINATE
from osteoscope.evaluation.decision import decisions
from osteoscope.evaluation.intervals import Figure
from osteoscope.evaluation.power import precision_and_power
from osteoscope.evaluation.reliability import brier_parts
from osteoscope.evaluation.subgroups import subgroups as judged_subgroups
from osteoscope.evaluation.summary import summarise
from osteoscope.evaluation.within_folds import auc_within_folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from osteoscope.evaluation.decision import Costs

SCHEMA = 1

NOT_RECORDED = "not recorded"
"""The subgroup of a patient of whom nothing is known."""

# What changes when probabilities are restated under another prior, beside which class is the most probable.
_OF_PROBABILITIES = (
    "brier",
    "brier_prior",
    "log_loss",
    "ece",
    "calibration_slope",
    "calibration_intercept",
    "reliability",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Calibrated predictions, one row a patient and repeat, or one row an image and repeat."""

    patients: tuple[str, ...]
    labels: NDArray[np.int64]
    """(n,) class indices."""
    repeats: NDArray[np.int64]
    """(n,)."""
    probabilities: NDArray[np.float64]
    """(n, classes)."""
    verdicts: NDArray[np.int64]
    """(n,) class index, or -1 for indeterminate."""
    by_sets: bool = True
    """Whether verdicts are by prediction sets, all of them; where not, they name the most probable class, and how many
    they decide says nothing."""
    probabilities_of_images: NDArray[np.float64] | None = None
    """(n, classes), as `probabilities`, were nothing but the images known; None where that is not asked."""

    def most_probable(self) -> dict[str, int]:
        """Give each patient's most probable class, whose evidence is shown first; of several repeats, in the first."""
        classes = self.probabilities.argmax(axis=1).tolist()
        return dict(reversed(list(zip(self.patients, classes, strict=True))))


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What a study's figures are figures of."""

    classes: tuple[str, ...]
    slugs: tuple[str, ...]
    prior: tuple[float, ...]
    """What the probabilities assume of the classes."""
    roi: str
    seed: int
    estimates: str
    """What the figures estimate, as a sentence."""


def metrics_document(
    facts: StudyFacts,
    *,
    by_patient: Predictions,
    by_image: Predictions,
    localisation: dict[str, Any],
    folds: NDArray[np.int64] | None = None,
    costs: Sequence[Costs] | None = None,
    subgroups: Mapping[str, Mapping[str, str]] | None = None,
    coarsest_grouping: Mapping[str, str] | None = None,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    audit: Sequence[Mapping[str, Any]] | None = None,
    accepted: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Judge a study's predictions, by patient and by image.

    Parameters
    ----------
    facts
        What the figures are figures of.
    by_patient, by_image
        Predictions of the same patients.
    localisation
        How well evidence finds lesions; taken over as it is.
    folds
        The fold that predicted each row of `by_patient`, within its repeat, shape (n,): then thresholds for a stated
        sensitivity are chosen on the other folds, and ``auc_within_folds`` is there.
    costs
        What errors cost, for operating points; equal costs if left out.
    subgroups
        By the name of a grouping, the group of each patient; who is missing is ``not recorded``.
    coarsest_grouping
        The group of each patient who might be one person with others: see `coarsest_block`.
    baselines
        By name: the block of `baseline_block`, or ``{"reason"}`` where there is none.
    audit, accepted
        What the audit found, and which blocking findings were accepted; taken over as they are.

    Returns
    -------
    The content of ``metrics.json``. ``subgroups``, ``coarsest_grouping``, ``audit`` and ``accepted`` are there only
    where they were given.

    Raises
    ------
    ValueError
        As `summarise` and `coarsest_block`; or if folds or costs do not fit.
    """
    labels_of_patients = dict(zip(by_patient.patients, by_patient.labels.tolist(), strict=True))
    counts = np.bincount(list(labels_of_patients.values()), minlength=len(facts.slugs))
    prevalence = dict(zip(facts.slugs, counts.tolist(), strict=True))
    images = int((by_image.repeats == by_image.repeats[0]).sum())
    patient = _patient_level(by_patient, facts, folds=folds, costs=costs)
    optional = {
        "subgroups": None if subgroups is None else _subgroups(by_patient, facts, subgroups),
        "coarsest_grouping": None
        if coarsest_grouping is None
        else coarsest_block(by_patient, coarsest_grouping, facts),
        "audit": None if audit is None else list(audit),
        "accepted": None if accepted is None else list(accepted),
    }
    return {
        "schema": SCHEMA,
        "classes": list(facts.classes),
        "slugs": list(facts.slugs),
        "n_patients": len(labels_of_patients),
        "n_images": images,
        "prevalence": prevalence,
        "prior": dict(zip(facts.slugs, facts.prior, strict=True)),
        "roi": facts.roi,
        "seed": facts.seed,
        "estimates": facts.estimates,
        "patient": patient,
        "image": _level(by_image, facts),
        "localisation": localisation,
        "baselines": dict(baselines or {}),
        "power": precision_and_power(
            prevalence, patient["auc"]["value"], names=dict(zip(facts.slugs, facts.classes, strict=True))
        ),
        **{name: block for name, block in optional.items() if block is not None},
    }


def baseline_block(
    model: Predictions,
    baseline: Predictions,
    facts: StudyFacts,
    *,
    folds: NDArray[np.int64] | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """Judge a baseline by patient as the model is, and set the model's AUC beside its own.

    Parameters
    ----------
    model, baseline
        By patient, of the same patients and repeats; rows may be in another order.
    facts
        Of the model's study; the baseline's probabilities assume the same prior.
    folds
        As in `metrics_document`, of the rows of `baseline`.
    note
        A sentence that belongs to the baseline.

    Returns
    -------
    A block as that of `summarise`, with ``"auc_difference"``, the model's AUC less the baseline's, and ``"note"`` where
    there is one.

    Raises
    ------
    ValueError
        As `summarise`; or if patients or repeats differ.
    """
    row_of = {key: row for row, key in enumerate(_keys(baseline))}
    if set(row_of) != set(_keys(model)) or len(row_of) != len(baseline.patients):
        msg = f"model and baseline must predict the same patients and repeats, got {len(row_of)} other rows or doubles"
        raise ValueError(msg)
    rows = np.array([row_of[key] for key in _keys(model)])
    block = _summary(baseline, facts, probabilities=baseline.probabilities, prior=np.array(facts.prior))
    difference = paired_difference(
        model.labels,
        model.probabilities,
        baseline.probabilities[rows],
        patients=model.patients,
        repeats=model.repeats,
        seed=facts.seed,
    )
    return {
        **block,
        **_within_folds(baseline, facts, folds),
        "auc_difference": difference.to_json(),
        **({} if note is None else {"note": note}),
    }


def _within_folds(predictions: Predictions, facts: StudyFacts, folds: NDArray[np.int64] | None) -> dict[str, Any]:
    """Give ``auc_within_folds`` by its name; nothing where there are no folds."""
    if folds is None:
        return {}
    figure = auc_within_folds(
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        patients=predictions.patients,
        repeats=predictions.repeats,
        folds=folds,
        classes=facts.slugs,
        seed=facts.seed,
    )
    return {"auc_within_folds": figure.to_json()}


def _keys(predictions: Predictions) -> list[tuple[str, int]]:
    return list(zip(predictions.patients, predictions.repeats.tolist(), strict=True))


def coarsest_block(by_patient: Predictions, groups: Mapping[str, str], facts: StudyFacts) -> dict[str, Any]:
    """Judge predictions again as if patients who look alike were one person.

    A group's probabilities are those of its patients with the mean of their logarithms, scaled to sum to 1.

    Parameters
    ----------
    by_patient
        Predictions by patient.
    groups
        The group of each patient.
    facts
        Of the study.

    Returns
    -------
    ``{"n_groups", "n_patients", "auc", "auc_delong", "balanced_accuracy"}``, the last three as `summarise` gives them,
    with n in groups; a key that it does not give is left out.

    Raises
    ------
    ValueError
        If a patient has no group, or a group holds patients of two classes.
    """
    unknown = {patient for patient in by_patient.patients if patient not in groups}
    if unknown:
        msg = f"every patient must have a coarsest group, got {len(unknown)} without"
        raise ValueError(msg)
    group = [groups[patient] for patient in by_patient.patients]
    keys = [f"{repeat} {name}" for repeat, name in zip(by_patient.repeats, group, strict=True)]
    distinct, row = names_as_index(keys, rows=len(keys))
    first = np.unique(row, return_index=True)[1]
    if (by_patient.labels != by_patient.labels[first][row]).any():
        msg = "a coarsest group must hold patients of one class, got one with two"
        raise ValueError(msg)
    logs = np.zeros((len(distinct), len(facts.slugs)))
    np.add.at(logs, row, np.log(np.maximum(by_patient.probabilities, SMALLEST_PROBABILITY)))
    joined = replace(
        by_patient,
        patients=tuple(group[place] for place in first),
        labels=by_patient.labels[first],
        repeats=by_patient.repeats[first],
        probabilities=softmax(logs / np.bincount(row)[:, None]),
        verdicts=np.full(len(first), INDETERMINATE),
    )
    block = _summary(joined, facts, probabilities=joined.probabilities, prior=np.array(facts.prior))
    return {
        "n_groups": block["n"],
        "n_patients": len(set(by_patient.patients)),
        **{name: block[name] for name in ("auc", "auc_delong", "balanced_accuracy") if name in block},
    }


def _patient_level(
    by_patient: Predictions, facts: StudyFacts, *, folds: NDArray[np.int64] | None, costs: Sequence[Costs] | None
) -> dict[str, Any]:
    """Judge the predictions by patient, with the parts of the Brier score and with what decisions they are worth."""
    level = {**_level(by_patient, facts), **_within_folds(by_patient, facts, folds)}
    level["brier_parts"] = _brier_parts(by_patient, by_patient.probabilities)
    if "at_class_shares" in level:
        restated = with_prior(by_patient.probabilities, facts.prior, _class_shares(by_patient, facts))
        level["at_class_shares"]["brier_parts"] = _brier_parts(by_patient, restated)
    level["decision"] = decisions(
        labels=by_patient.labels,
        probabilities=by_patient.probabilities,
        patients=by_patient.patients,
        repeats=by_patient.repeats,
        classes=facts.slugs,
        prior=facts.prior,
        costs=costs,
        folds=folds,
        seed=facts.seed,
    )
    return level


def _brier_parts(by_patient: Predictions, probabilities: NDArray[np.float64]) -> dict[str, Any]:
    """Part the Brier score in each repeat, and average the parts: they still sum to the score."""
    parts = [
        asdict(brier_parts(by_patient.labels[rows], probabilities[rows]))
        for rows in (by_patient.repeats == repeat for repeat in np.unique(by_patient.repeats))
    ]
    n = len(set(by_patient.patients))
    return {
        name: Figure(
            value=float(np.mean([part[name] for part in parts])),
            n=n,
            reason="no interval: the bootstrap of a binned figure does not cover",
        ).to_json()
        for name in parts[0]
    }


def _subgroups(
    by_patient: Predictions, facts: StudyFacts, groupings: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    return judged_subgroups(
        labels=by_patient.labels,
        probabilities=by_patient.probabilities,
        patients=by_patient.patients,
        repeats=by_patient.repeats,
        classes=facts.slugs,
        groupings={
            name: [group_of.get(patient, NOT_RECORDED) for patient in by_patient.patients]
            for name, group_of in groupings.items()
        },
        seed=facts.seed,
    )


def _level(predictions: Predictions, facts: StudyFacts) -> dict[str, Any]:
    """Judge the predictions as stated, and their calibration again at the class shares of these patients."""
    level = _summary(predictions, facts, probabilities=predictions.probabilities, prior=np.array(facts.prior))
    shares = _class_shares(predictions, facts)
    if (shares == 0).any():
        return level
    restated = with_prior(predictions.probabilities, facts.prior, shares)
    at_shares = _summary(predictions, facts, probabilities=restated, prior=shares)
    return {**level, "at_class_shares": {name: at_shares[name] for name in _OF_PROBABILITIES}}


def _class_shares(predictions: Predictions, facts: StudyFacts) -> NDArray[np.float64]:
    counts = np.bincount(predictions.labels, minlength=len(facts.slugs))
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _summary(
    predictions: Predictions, facts: StudyFacts, *, probabilities: NDArray[np.float64], prior: NDArray[np.float64]
) -> dict[str, Any]:
    return summarise(
        labels=predictions.labels,
        probabilities=probabilities,
        patients=predictions.patients,
        repeats=predictions.repeats,
        classes=facts.slugs,
        prior=prior,
        verdicts=predictions.verdicts if predictions.by_sets else None,
        seed=facts.seed,
    )


def predictions_csv(predictions: Predictions, slugs: Sequence[str], columns: Mapping[str, Sequence[object]]) -> str:
    """Write predictions as CSV: ``patient, repeat, <columns>, label, p_SLUG…, verdict``.

    Parameters
    ----------
    predictions
        One row each; a label of -1, of a case whose diagnosis is not known, is left empty.
    slugs
        Of the classes.
    columns
        More columns by name, one value a row.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["patient", "repeat", *columns, "label", *(f"p_{slug}" for slug in slugs), "verdict"])
    for row, patient in enumerate(predictions.patients):
        verdict, label = int(predictions.verdicts[row]), int(predictions.labels[row])
        writer.writerow(
            [
                patient,
                int(predictions.repeats[row]),
                *(values[row] for values in columns.values()),
                slugs[label] if label >= 0 else "",
                *(f"{share:.6f}" for share in predictions.probabilities[row]),
                "indeterminate" if verdict == INDETERMINATE else slugs[verdict],
            ]
        )
    return stream.getvalue()
