"""All figures of one set of predictions, each with its interval, as one block of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import checked_prior
from osteoscope.evaluation.conformal import INDETERMINATE
from osteoscope.evaluation.delong import class_components
from osteoscope.evaluation.intervals import (
    LEVEL,
    Figure,
    bootstrap_figure,
    jackknife_acceleration,
    left_out_blocks,
    weight_blocks,
    wilson,
)
from osteoscope.evaluation.metrics import (
    UNDEFINED,
    average_precision_draws,
    brier_terms,
    class_auc_draws,
    class_scores,
    confusion_draws,
    count_figures_draws,
    known,
    log_loss_terms,
    mean_draws,
    pr_curve,
    roc_curve,
)
from osteoscope.evaluation.reliability import calibration_line_draws, debiased_ece, reliability_bins
from osteoscope.evaluation.sample import checked_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.sample import Sample

Draws = Mapping[str, "FloatArray"]
"""By a figure's name: shape (draws,) if it is of all classes, (draws, K) if it is by class; NaN where undefined."""

_BY_CLASS = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "accuracy_by_class",
    "balanced_accuracy_by_class",
    "auc_by_class",
    "average_precision",
    "calibration_slope_by_class",
    "calibration_intercept_by_class",
)
_MACRO = ("specificity", "ppv", "npv", "f1", "average_precision")
_PROPORTIONS = {
    "accuracy",
    "accuracy_by_class",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "decided",
    "accuracy_decided",
}
_UNBOUNDED = {"log_loss", "calibration_slope", "calibration_intercept"}

_DEFINITIONS = {
    "predicted": "the class of highest probability; of equals, the first",
    "auc": "two classes: the AUC; more: mean of each class against the rest",
    "brier": "mean over cases of half the sum over classes of (probability - truth)^2; two classes: the binary score",
    "ece": "root mean square in equal-count bins, debiased (Kumar 2019); two classes: of the second; more: mean of "
    "each class against the rest",
    "calibration": "intercept and slope of one logistic fit of the truth on the logit of the probability; two classes: "
    "of the second; more: mean of each class against the rest",
    "macro": "mean over the classes of each against the rest; that of the sensitivities is the balanced accuracy",
    "confusion": "rows are the truth, columns the prediction",
}


def summarise(
    *,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    repeats: npt.ArrayLike,
    classes: Sequence[str],
    prior: npt.ArrayLike,
    verdicts: npt.ArrayLike | None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge predictions of patients, or of their images (then a patient has several rows in a repeat).

    Each figure is computed in each repeat and averaged over repeats; one that is undefined in any repeat is None.
    The bootstrap draws patients, each with all of its repeats and images.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    probabilities
        Out-of-fold or external, shape (n, K).
    patients
        The patient of each row, length n. Names are used to group rows and do not enter the result.
    repeats
        The repeat of each row, shape (n,); the same patients in each.
    classes
        Slugs, length K.
    prior
        The class prior that the probabilities assume, shape (K,).
    verdicts
        For each row the index of a class, or -1 for indeterminate, shape (n,); None if none were given.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    A block that JSON can hold: figures as ``{"value", "low", "high", "n"}`` with n in patients (and ``"reason"`` where
    value or interval is missing, ``"note"`` where the interval is another than ``"intervals"`` says), by class as
    ``{slug: figure}``, confusion counts, curves, reliability bins, and under ``"definitions"`` and ``"intervals"`` what
    was computed. ``"auc_delong"`` and ``"auc_delong_by_class"`` are the AUCs again with DeLong's interval.

    Raises
    ------
    ValueError
        If shapes do not fit; a row of probabilities is not a distribution; a patient has two labels, or is missing
        from a repeat.
    """
    sample = checked_sample(
        labels=labels,
        probabilities=probabilities,
        patients=patients,
        repeats=repeats,
        classes=classes,
        verdicts=verdicts,
    )
    shares = checked_prior(prior, classes=len(classes))
    values = _figures(sample, [np.ones((1, len(sample.labels)))])
    drawn = _figures(sample, weight_blocks(sample.patients, draws=draws, seed=seed))
    left_out = _figures(sample, left_out_blocks(sample.patients))
    accelerations = {name: jackknife_acceleration(part, sample.patients.label) for name, part in left_out.items()}
    figures = _with_intervals(sample, values, drawn, accelerations)
    return {
        "n": len(sample.patients.names),
        "n_predictions": len(sample.labels),
        **figures,
        **_delong(sample),
        **_references(sample, shares),
        "ece": _ece(sample).to_json(),
        "calibration_class": classes[-1] if len(classes) == 2 else None,
        **_confusion(sample),
        "curves": _curves(sample),
        "reliability": _reliability(sample),
        "definitions": dict(_DEFINITIONS),
        "intervals": _how(sample, draws=draws, seed=seed),
    }


# Figures on one or many draws -----------------------------------------------------------------------------------------


def _figures(sample: Sample, blocks: Iterable[FloatArray]) -> Draws:
    """Compute every figure in each draw of all blocks of weights, each of shape (draws of the block, n)."""
    parts = [_block_figures(sample, weights) for weights in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _block_figures(sample: Sample, weights: FloatArray) -> Draws:
    """Compute every figure in each draw, averaged over the repeats; weights have shape (draws, n)."""
    by_repeat = [_figures_of_repeat(sample, rows, weights[:, rows]) for rows in sample.rows_of_repeat]
    return {name: np.mean([figures[name] for figures in by_repeat], axis=0) for name in by_repeat[0]}


def _figures_of_repeat(sample: Sample, rows: IntArray, weights: FloatArray) -> Draws:
    labels, probabilities = sample.labels[rows], sample.probabilities[rows]
    counts = count_figures_draws(confusion_draws(labels, sample.predicted[rows], len(sample.classes), weights))
    auc = class_auc_draws(labels, probabilities, weights)
    by_class = {
        **{name: counts[name] for name in ("sensitivity", "specificity", "ppv", "npv", "f1")},
        "accuracy_by_class": counts["class_accuracy"],
        "balanced_accuracy_by_class": counts["class_balanced_accuracy"],
        "auc_by_class": auc,
        "average_precision": _average_precision(labels, probabilities, weights),
    }
    return {
        "auc": auc.mean(axis=1),
        "accuracy": counts["accuracy"],
        "balanced_accuracy": counts["balanced_accuracy"],
        "brier": mean_draws(brier_terms(labels, probabilities), weights),
        "log_loss": mean_draws(log_loss_terms(labels, probabilities), weights),
        **by_class,
        **_calibration(labels, probabilities, weights),
        **{f"macro_{name}": by_class[name].mean(axis=1) for name in _MACRO},
        **_decisions(labels, None if sample.verdicts is None else sample.verdicts[rows], weights),
    }


def _average_precision(labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    scores = class_scores(probabilities)
    return np.column_stack(
        [average_precision_draws(labels == c, scores[:, c], weights) for c in range(scores.shape[1])]
    )


def _calibration(labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> Draws:
    """Fit slope and intercept by class; the figures of all are the second class's, or the mean of three and more."""
    if probabilities.shape[1] == 2:
        line = calibration_line_draws(labels == 1, probabilities[:, 1], weights)
        # The first class's logit is the second's with its sign turned: same slope, opposite intercept.
        slopes, intercepts = line[:, [1, 1]], line[:, [0, 0]] * np.array([-1.0, 1.0])
        slope, intercept = line[:, 1], line[:, 0]
    else:
        lines = [calibration_line_draws(labels == c, p, weights) for c, p in enumerate(probabilities.T)]
        intercepts, slopes = np.stack(lines, axis=2).transpose(1, 0, 2)
        slope, intercept = slopes.mean(axis=1), intercepts.mean(axis=1)
    return {
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "calibration_slope_by_class": slopes,
        "calibration_intercept_by_class": intercepts,
    }


def _decisions(labels: IntArray, verdicts: IntArray | None, weights: FloatArray) -> Draws:
    """Share of cases with a verdict, and share of right ones among them."""
    if verdicts is None:
        return {"decided": np.full(len(weights), np.nan), "accuracy_decided": np.full(len(weights), np.nan)}
    decided = verdicts != INDETERMINATE
    return {
        "decided": mean_draws(decided.astype(np.float64), weights),
        "accuracy_decided": mean_draws((verdicts == labels)[decided].astype(np.float64), weights[:, decided]),
    }


# Values with intervals ------------------------------------------------------------------------------------------------


def _with_intervals(sample: Sample, values: Draws, drawn: Draws, accelerations: Draws) -> dict[str, Any]:
    """Turn values, draws and accelerations into JSON: overall figures, figures by class, and the means over classes."""

    def figure(name: str, c: int | None = None) -> dict[str, Any]:
        at = ... if c is None else (..., c)
        return _figure(
            sample, name, c, value=values[name][at][0], drawn=drawn[name][at], acceleration=accelerations[name][at]
        )

    overall = [name for name in values if name not in _BY_CLASS and not name.startswith("macro_")]
    return {
        **{name: figure(name) for name in overall},
        **{name: {slug: figure(name, c) for c, slug in enumerate(sample.classes)} for name in _BY_CLASS},
        "macro": {name: figure(f"macro_{name}") for name in _MACRO},
    }


def _figure(
    sample: Sample, name: str, c: int | None, *, value: np.float64, drawn: FloatArray, acceleration: FloatArray
) -> dict[str, Any]:
    """Give one figure's block: Wilson's interval for a plain proportion, the bootstrap's for all else."""
    n, found, proportion = _patients_behind(sample, name, c), known(value), name in _PROPORTIONS
    if found is None:
        return Figure(value=None, n=n, reason=_reason(sample, name)).to_json()
    if proportion and sample.one_row:
        ends = wilson(found, n)
        return Figure(value=found, low=ends.low, high=ends.high, n=n).to_json()
    counts = sample.patients_of_class
    return bootstrap_figure(
        found,
        drawn,
        n=n,
        smallest=n if proportion else int(counts[counts > 0].min()),
        bounded=name.removesuffix("_by_class") not in _UNBOUNDED,
        acceleration=acceleration,
    ).to_json()


def _patients_behind(sample: Sample, name: str, c: int | None) -> int:
    """Count the patients that a figure rests on: those in its denominator."""
    everyone = len(sample.patients.names)
    if name == "accuracy_decided":
        return 0 if sample.verdicts is None else sample.patients_where(sample.verdicts != INDETERMINATE)
    if c is None:
        return everyone
    of_class = int(sample.patients_of_class[c])
    if name in {"sensitivity", "specificity"}:
        return of_class if name == "sensitivity" else everyone - of_class
    if name in {"ppv", "npv"}:
        return sample.patients_where((sample.predicted == c) == (name == "ppv"))
    return everyone


def _reason(sample: Sample, name: str) -> str:
    """Say why a figure is undefined, which it is if it is in any repeat."""
    if name in {"decided", "accuracy_decided"}:
        if sample.verdicts is None:
            return "no verdicts were given by prediction sets"
        reason = "no case was decided"
    else:
        plain = name.removeprefix("macro_").removesuffix("_by_class")
        reason = UNDEFINED["calibration" if plain.startswith("calibration") else plain]
    if name.startswith("macro_"):
        reason = f"for one class at least, {reason}"
    return reason if len(sample.rows_of_repeat) == 1 else f"in one repeat at least, {reason}"


# Blocks that the bootstrap does not enter -----------------------------------------------------------------------------


def _delong(sample: Sample) -> dict[str, Any]:
    """Give the AUCs with DeLong's interval."""
    by_class = class_components(
        sample.labels, sample.probabilities, patients=sample.patients, rows_of_repeat=sample.rows_of_repeat
    )
    figures = zip(sample.classes, by_class.figures(), strict=True)
    return {
        "auc_delong": by_class.mean().figures()[0].to_json(),
        "auc_delong_by_class": {slug: figure.to_json() for slug, figure in figures},
    }


def _references(sample: Sample, prior: FloatArray) -> dict[str, Any]:
    """Brier scores of saying the same of every case: the sample's own prevalence, and the stated prior."""
    n, prevalence = len(sample.patients.names), np.bincount(sample.labels, minlength=len(prior)) / len(sample.labels)
    return {
        name: Figure(
            value=float(prevalence @ brier_terms(np.arange(len(prior)), np.tile(same, (len(prior), 1)))),
            n=n,
            reason="no interval: it follows from the number of cases of each class",
        ).to_json()
        for name, same in (("brier_prevalence", prevalence), ("brier_prior", prior))
    }


def _ece(sample: Sample) -> Figure:
    """Average the debiased error over repeats, and over classes where they are more than two."""
    judged = [1] if len(sample.classes) == 2 else range(len(sample.classes))
    errors = [
        debiased_ece(sample.labels[rows] == c, sample.probabilities[rows, c])
        for rows in sample.rows_of_repeat
        for c in judged
    ]
    return Figure(
        value=float(np.mean([error for error in errors if error is not None])),
        n=len(sample.patients.names),
        reason="no interval: the bootstrap of a binned error does not cover",
    )


def _confusion(sample: Sample) -> dict[str, Any]:
    counts = confusion_draws(sample.labels, sample.predicted, len(sample.classes), np.ones((1, len(sample.labels))))[0]
    repeats = len(sample.rows_of_repeat)
    return {
        "confusion": counts.astype(np.int64).tolist(),
        "confusion_counts": "predictions" if repeats == 1 else f"predictions, summed over {repeats} repeats",
    }


def _plotted(sample: Sample) -> tuple[IntArray, FloatArray, IntArray]:
    """Give labels, probabilities and patient of the cases that curves and bins show.

    Where a patient has one row in each repeat, the repeats are averaged; otherwise the rows stand as they are.
    """
    if not sample.one_row_a_repeat:
        return sample.labels, sample.probabilities, sample.patients.row
    total = np.zeros((len(sample.patients.names), len(sample.classes)))
    np.add.at(total, sample.patients.row, sample.probabilities)
    return sample.patients.label, total / len(sample.rows_of_repeat), np.arange(len(total))


def _curves(sample: Sample) -> dict[str, Any]:
    labels, probabilities, _ = _plotted(sample)
    scores = class_scores(probabilities)
    return {
        slug: {
            "roc": {name: list(points) for name, points in asdict(roc_curve(labels == c, scores[:, c])).items()},
            "pr": {name: list(points) for name, points in asdict(pr_curve(labels == c, scores[:, c])).items()},
        }
        for c, slug in enumerate(sample.classes)
    }


def _reliability(sample: Sample) -> dict[str, Any]:
    labels, probabilities, patients = _plotted(sample)
    return {
        slug: [asdict(part) for part in reliability_bins(labels == c, probabilities[:, c], patients=patients)]
        for c, slug in enumerate(sample.classes)
    }


def _how(sample: Sample, *, draws: int, seed: int) -> dict[str, Any]:
    """Say how the intervals were made."""
    bootstrap = (
        "BCa bootstrap over patients, drawn class by class, repeats and images of a patient together; where every draw "
        "gives 0 or 1, Wilson's with the patients of the smallest class, and where BCa is undefined, percentiles: then "
        "the figure has a note"
    )
    return {
        "level": LEVEL,
        "draws": draws,
        "seed": seed,
        "proportions": "Wilson" if sample.one_row else f"{bootstrap} (for a proportion: with its own patients)",
        "others": bootstrap,
        "delong": "DeLong's variance on the logit scale, a patient's influence summed over images and averaged over "
        "repeats, the classes as strata; where the AUC is 0 or 1, Wilson's with the patients of the smallest class",
        "curves": "repeats averaged per patient" if sample.one_row_a_repeat else "rows as they are",
        "reliability": "Wilson, with the patients of each bin",
    }
