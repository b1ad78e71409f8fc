"""What it would be worth to act on a probability: decision curves, and what a chosen threshold does.

A class is *called* for a patient where its probability is at least a threshold. Whoever calls a class pays for false
alarms, whoever does not pays for what is missed; how the two weigh against each other is for the user to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import checked_prior
from osteoscope.evaluation.calibration import with_prior
from osteoscope.evaluation.intervals import Figure, bootstrap_figure, weight_blocks, wilson
from osteoscope.evaluation.metrics import UNDEFINED, known
from osteoscope.evaluation.sample import checked_folds, checked_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray
    from osteoscope.evaluation.sample import Sample

CURVE_THRESHOLDS = np.arange(1, 100) / 100
"""Where decision curves are drawn."""

_ROUNDING = 1e-9
"""Keeps 10 x 0.9 from counting as a little more than 9."""

_DEFINITIONS = {
    "probabilities": "restated by Bayes' rule from the prior that they assume to the prevalence given here",
    "called": "where the probability of the class is at least the threshold; the class stands against all others",
    "net_benefit": "true calls less false calls times threshold / (1 - threshold), per patient (Vickers & Elkin 2006); "
    "that of calling no one is 0",
    "standardised": "net benefit over the prevalence of the class: 1 is a perfect predictor",
    "expected_cost": "per patient, in the unit of the stated costs; a right call, or none where none is due, costs 0",
    "repeats": "sensitivity and specificity are averaged over repeats, and all else follows from them",
    "cross_fitted": "the threshold of a fold was chosen on the other folds of its repeat",
    "intervals": "Wilson's for sensitivity and specificity of one prediction a patient, else percentiles of a "
    "bootstrap over patients, class by class; thresholds and prevalence stay as they are",
}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the two errors about a class cost, in any unit; being right costs nothing.

    Raises
    ------
    ValueError
        If a cost is not positive and finite.
    """

    slug: str
    """The class that is called."""
    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        for cost in (self.false_positive, self.false_negative):
            if not (math.isfinite(cost) and cost > 0):
                msg = f"a cost must be positive and finite, got {cost}"
                raise ValueError(msg)

    @property
    def threshold(self) -> float:
        """The probability at which calling the class and not calling it cost the same on average.

        Calling costs ``(1 - p) false_positive`` and not calling ``p false_negative``: they meet at
        ``false_positive / (false_positive + false_negative)``.

        References
        ----------
        Pauker SG, Kassirer JP. Therapeutic decision making: a cost-benefit analysis. N Engl J Med 1975;293:229-234.
        """
        return self.false_positive / (self.false_positive + self.false_negative)


def net_benefit(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, *, prevalence: float, threshold: npt.ArrayLike
) -> FloatArray:
    """Give true calls less false calls, these weighted by the odds of the threshold, per patient.

    Parameters
    ----------
    sensitivity, specificity
        At the threshold; any shapes that broadcast.
    prevalence
        Share of the class, in (0, 1).
    threshold
        In [0, 1); the last axis goes with that of the rates.

    References
    ----------
    Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. Med Decis Making
    2006;26:565-574.
    """
    cut, hits, rejected = (np.asarray(array, dtype=np.float64) for array in (threshold, sensitivity, specificity))
    benefit: FloatArray = hits * prevalence - (1 - rejected) * (1 - prevalence) * cut / (1 - cut)
    return benefit


def decisions(
    *,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    repeats: npt.ArrayLike,
    classes: Sequence[str],
    prior: npt.ArrayLike,
    prevalence: npt.ArrayLike | None = None,
    costs: Sequence[Costs] | None = None,
    sensitivities: Sequence[float] = (0.9, 0.95),
    folds: npt.ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw decision curves, and tell what thresholds do that follow from costs or from a sensitivity asked for.

    Parameters
    ----------
    labels, probabilities, patients, repeats, classes, prior
        As in `summary.summarise`.
    prevalence
        Share of each class where decisions are to be made, shape (K,); the class shares of these patients if left out.
    costs
        What errors cost; equal costs, of each class in turn, if left out.
    sensitivities
        Sensitivities asked for, in (0, 1]: of each class in turn, the highest threshold that reaches it is taken.
    folds
        The fold that predicted each row, within its repeat, shape (n,). Then each fold's threshold for a sensitivity
        is chosen on the other folds; without folds it is chosen on the very rows that it is judged on, which
        flatters it, and ``cross_fitted`` says so.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    A block that JSON can hold: ``{"prevalence": {slug: share}, "prevalence_of", "thresholds", "curves": {slug:
    {"net_benefit", "low", "high", "standardised", "treat_all"}}, "operating_points": [...], "definitions"}``. Curves
    are lists over the thresholds; low and high are None where there is no interval. An operating point is ``{"class",
    "rule": "costs" | "sensitivity", "threshold", "sensitivity", "specificity", "ppv", "npv", …}``, with
    ``"net_benefit"`` where it follows from costs, and ``"threshold_as_stated"``, on the probability under `prior`,
    where there are two classes; the n of a predictive value counts the patients called, or not called. Only
    ``{"reason"}`` if a class has no patient.

    Raises
    ------
    ValueError
        As `summarise`; if a sensitivity is not in (0, 1], a cost is of no class, or a patient has two folds in a
        repeat.
    """
    sample = checked_sample(
        labels=labels,
        probabilities=probabilities,
        patients=patients,
        repeats=repeats,
        classes=classes,
        verdicts=None,
    )
    counts = sample.patients_of_class
    if (counts == 0).any():
        return {"reason": "a class has no patient"}
    assumed = checked_prior(prior, classes=len(counts))
    shares = counts / counts.sum() if prevalence is None else checked_prior(prevalence, classes=len(counts))
    study = _Study(
        sample=sample,
        probabilities=with_prior(sample.probabilities, assumed, shares),
        prior=assumed,
        prevalence=shares,
        folds=None if folds is None else checked_folds(sample, folds),
    )
    rules = [
        *(_curve_rule(study, c, threshold) for c in range(len(counts)) for threshold in CURVE_THRESHOLDS),
        *_cost_rules(study, costs),
        *(_sensitivity_rule(study, c, wanted) for c in range(len(counts)) for wanted in _checked(sensitivities)),
    ]
    judged = [_Judged(study=study, rule=rule, rates=rates) for rule, rates in _rates_of(study, rules, draws, seed)]
    curve_of = {
        slug: judged[c * len(CURVE_THRESHOLDS) : (c + 1) * len(CURVE_THRESHOLDS)]
        for c, slug in enumerate(sample.classes)
    }
    return {
        "prevalence": dict(zip(sample.classes, shares.tolist(), strict=True)),
        "prevalence_of": "these patients" if prevalence is None else "as stated",
        "thresholds": CURVE_THRESHOLDS.tolist(),
        "curves": {slug: _curve(points) for slug, points in curve_of.items()},
        "operating_points": [_operating_point(point) for point in judged[len(counts) * len(CURVE_THRESHOLDS) :]],
        "definitions": dict(_DEFINITIONS),
    }


# What is judged -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Study:
    sample: Sample
    probabilities: FloatArray
    """Under the prevalence, shape (n, K)."""
    prior: FloatArray
    prevalence: FloatArray
    folds: IntArray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rule:
    """When a class is called."""

    c: int
    thresholds: FloatArray
    """Of each row, shape (n,)."""
    costs: Costs | None = None
    wanted: float | None = None
    """The sensitivity asked for."""

    def calls(self, probabilities: FloatArray) -> BoolArray:
        """Tell in which rows of probabilities (n, K) the class is called: (n,)."""
        called: BoolArray = probabilities[:, self.c] >= self.thresholds
        return called


def _checked(sensitivities: Sequence[float]) -> Sequence[float]:
    for wanted in sensitivities:
        if not 0 < wanted <= 1:
            msg = f"a sensitivity asked for must lie in (0, 1], got {wanted}"
            raise ValueError(msg)
    return sensitivities


def _curve_rule(study: _Study, c: int, threshold: float) -> _Rule:
    return _Rule(c=c, thresholds=np.full(len(study.probabilities), threshold))


def _cost_rules(study: _Study, costs: Sequence[Costs] | None) -> list[_Rule]:
    slugs = study.sample.classes
    if costs is None:
        costs = [Costs(slug=slug, false_positive=1.0, false_negative=1.0) for slug in slugs]
    strange = {cost.slug for cost in costs} - set(slugs)
    if strange:
        msg = f"costs must be of the classes {list(slugs)}, got {sorted(strange)}"
        raise ValueError(msg)
    rows = len(study.probabilities)
    return [_Rule(c=slugs.index(cost.slug), thresholds=np.full(rows, cost.threshold), costs=cost) for cost in costs]


def _sensitivity_rule(study: _Study, c: int, wanted: float) -> _Rule:
    """Choose the highest threshold that reaches the sensitivity: for each fold on the others, if there are folds."""
    of_class, scores = study.sample.labels == c, study.probabilities[:, c]
    thresholds = np.full(len(scores), np.nan)
    for rows in study.sample.rows_of_repeat:
        folds = np.zeros(len(rows), dtype=np.int64) if study.folds is None else study.folds[rows]
        for fold in np.unique(folds):
            chosen_on = rows if study.folds is None else rows[folds != fold]
            thresholds[rows[folds == fold]] = _highest(scores[chosen_on[of_class[chosen_on]]], wanted)
    return _Rule(c=c, thresholds=thresholds, wanted=wanted)


def _highest(scores: FloatArray, wanted: float) -> float:
    """Give the highest threshold that at least this share of the scores reaches; NaN if there are none."""
    if not scores.size:
        return math.nan
    needed = math.ceil(wanted * scores.size - _ROUNDING)
    return float(np.sort(scores)[scores.size - needed])


# Rates in every draw --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rates:
    """Of one rule: on all patients first, then on each draw."""

    sensitivity: FloatArray
    """Shape (1 + draws,)."""
    specificity: FloatArray


def _rates_of(study: _Study, rules: Sequence[_Rule], draws: int, seed: int) -> list[tuple[_Rule, _Rates]]:
    sample = study.sample
    of_class = np.stack([sample.labels == rule.c for rule in rules], axis=1)
    called = np.stack([rule.calls(study.probabilities) for rule in rules], axis=1)
    blocks = [np.ones((1, len(sample.labels))), *weight_blocks(sample.patients, draws=draws, seed=seed)]
    hits, rejected = (
        np.concatenate([_mean_share(sample, right, among, weights) for weights in blocks])
        for right, among in ((called, of_class), (~called, ~of_class))
    )
    return [
        (rule, _Rates(sensitivity=hits[:, place], specificity=rejected[:, place])) for place, rule in enumerate(rules)
    ]


def _mean_share(sample: Sample, right: BoolArray, among: BoolArray, weights: FloatArray) -> FloatArray:
    """Share of the rows among which something is right, averaged over repeats; (n, rules) to (draws, rules)."""
    shares = [
        (weights[:, rows] @ (right & among)[rows].astype(np.float64))
        / (weights[:, rows] @ among[rows].astype(np.float64))
        for rows in sample.rows_of_repeat
    ]
    mean: FloatArray = np.mean(shares, axis=0)
    return mean


# Figures of a rule ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judged:
    """A rule with its rates, and what follows from them at the prevalence: each of shape (1 + draws,)."""

    study: _Study
    rule: _Rule
    rates: _Rates

    @property
    def slug(self) -> str:
        return self.study.sample.classes[self.rule.c]

    @property
    def prevalence(self) -> float:
        return float(self.study.prevalence[self.rule.c])

    @property
    def threshold(self) -> float:
        """Of the thresholds chosen for the folds, the middle one."""
        return float(np.median(self.rule.thresholds))

    def net_benefit(self) -> FloatArray:
        return net_benefit(
            self.rates.sensitivity, self.rates.specificity, prevalence=self.prevalence, threshold=self.threshold
        )

    def ppv(self) -> FloatArray:
        return _ratio(self.rates.sensitivity * self.prevalence, (1 - self.rates.specificity) * (1 - self.prevalence))

    def npv(self) -> FloatArray:
        return _ratio(self.rates.specificity * (1 - self.prevalence), (1 - self.rates.sensitivity) * self.prevalence)

    def figure(self, name: str, values: FloatArray, *, bounded: bool = True) -> dict[str, Any]:
        """Set the value beside the percentiles of its draws; rates of plain proportions get Wilson's interval."""
        sample, value = self.study.sample, known(values[0])
        of_class, everyone = int(sample.patients_of_class[self.rule.c]), len(sample.patients.names)
        n = {"sensitivity": of_class, "specificity": everyone - of_class}.get(name, everyone)
        smallest = n if n != everyone else min(of_class, everyone - of_class)
        if name in {"ppv", "npv"}:
            called = self.rule.calls(self.study.probabilities)
            n = smallest = sample.patients_where(called if name == "ppv" else ~called)
        if value is None:
            return Figure(value=None, n=n, reason=UNDEFINED[name]).to_json()
        if name in {"sensitivity", "specificity"} and sample.one_row:
            ends = wilson(value, n)
            return Figure(value=value, low=ends.low, high=ends.high, n=n).to_json()
        return bootstrap_figure(value, values[1:], n=n, smallest=smallest, bounded=bounded).to_json()


def _ratio(part: FloatArray, rest: FloatArray) -> FloatArray:
    """Divide by the sum of both, with NaN for 0/0."""
    whole = part + rest
    shares: FloatArray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return shares


def _curve(points: Sequence[_Judged]) -> dict[str, list[float | None]]:
    figures = [point.figure("net_benefit", point.net_benefit(), bounded=False) for point in points]
    prevalence = points[0].prevalence
    return {
        "net_benefit": [figure["value"] for figure in figures],
        "low": [figure["low"] for figure in figures],
        "high": [figure["high"] for figure in figures],
        "standardised": [figure["value"] / prevalence for figure in figures],
        "treat_all": net_benefit(1.0, 0.0, prevalence=prevalence, threshold=CURVE_THRESHOLDS).tolist(),
    }


def _operating_point(point: _Judged) -> dict[str, Any]:
    rule = point.rule
    named = {"class": point.slug, "rule": "sensitivity" if rule.costs is None else "costs"}
    if np.isnan(rule.thresholds).any():
        return {**named, "wanted": rule.wanted, "reason": "a fold leaves no patient of the class to choose on"}
    rates, threshold = point.rates, point.threshold
    return {
        **named,
        **(_chosen(point) if rule.costs is None else _expected_costs(point, rule.costs)),
        "threshold": threshold,
        **({"threshold_as_stated": _as_stated(point)} if len(point.study.prior) == 2 else {}),
        "sensitivity": point.figure("sensitivity", rates.sensitivity),
        "specificity": point.figure("specificity", rates.specificity),
        "ppv": point.figure("ppv", point.ppv()),
        "npv": point.figure("npv", point.npv()),
    }


def _chosen(point: _Judged) -> dict[str, Any]:
    """Say how a threshold was chosen for a sensitivity, and between which ends the folds' thresholds lie."""
    thresholds = point.rule.thresholds
    return {
        "wanted": point.rule.wanted,
        "cross_fitted": point.study.folds is not None,
        "thresholds": {"low": float(thresholds.min()), "high": float(thresholds.max())},
    }


def _expected_costs(point: _Judged, costs: Costs) -> dict[str, Any]:
    missed = (1 - point.rates.sensitivity) * point.prevalence * costs.false_negative
    called = (1 - point.rates.specificity) * (1 - point.prevalence) * costs.false_positive
    return {
        "costs": {"false_positive": costs.false_positive, "false_negative": costs.false_negative},
        "net_benefit": point.figure("net_benefit", point.net_benefit(), bounded=False),
        "expected_cost": point.figure("expected_cost", missed + called, bounded=False),
        "cost_of_calling_all": (1 - point.prevalence) * costs.false_positive,
        "cost_of_calling_none": point.prevalence * costs.false_negative,
    }


def _as_stated(point: _Judged) -> float:
    """Say a threshold on the probability under the prior that the model assumes; for two classes."""
    c, odds_of = point.rule.c, np.array([1 - point.threshold, point.threshold])
    shares = odds_of if c == 1 else odds_of[::-1]
    restated = with_prior(shares[None], point.study.prevalence, point.study.prior)
    return float(restated[0, c])
