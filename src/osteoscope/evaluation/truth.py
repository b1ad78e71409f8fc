"""Figures that need the truth: how near a network comes to what can be known, and whether its reasons are the causes.

They are for phantoms, of which the exact likelihood ratio, the places that tell the classes apart and the same image
without its cause are known. Arrays in, figures out, with one row a patient.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import checked_scores
from osteoscope.evaluation.intervals import (
    Figure,
    bootstrap_figure,
    group_patients,
    mean_figure,
    weight_blocks,
    wilson,
)
from osteoscope.evaluation.localisation import (
    THRESHOLD_GRID,
    Localisation,
    edge_map,
    gaussian_map,
    localise,
    places_by_others,
    random_map,
)
from osteoscope.evaluation.metrics import UNDEFINED, auc_draws

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import BoolArray, FloatArray, IntArray

MAPS = ("evidence", "gaussian", "random", "edges")
"""The network's evidence, and the maps that know nothing of the network."""

_GUESSING = 0.5
"""AUC of saying the same of everybody."""

_MEASURES = ("iou", "dice", "pointing", "energy")


# How near to what can be known ----------------------------------------------------------------------------------------


def probability_of(log_likelihood_ratio: npt.ArrayLike, *, prior: float) -> FloatArray:
    """Turn a likelihood ratio into a probability by Bayes' rule.

    Parameters
    ----------
    log_likelihood_ratio
        log p(what is seen | class) - log p(what is seen | the other class), shape (n,).
    prior
        Of the class, in (0, 1).
    """
    if not 0 < prior < 1:
        msg = f"expected a prior in (0, 1), got {prior}"
        raise ValueError(msg)
    logit = np.asarray(log_likelihood_ratio, dtype=np.float64) + np.log(prior / (1 - prior))
    # The exponential of a negative number alone, so that nothing overflows.
    small = np.exp(-np.abs(logit))
    probability: FloatArray = np.where(logit >= 0, 1.0, small) / (1 + small)
    return probability


def way_covered(
    positive: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    least: npt.ArrayLike,
    most: npt.ArrayLike,
    draws: int = 2000,
    seed: int = 0,
) -> Figure:
    """Say which share of the way from one AUC to a better one a third has gone, with an interval over patients.

    The share is (AUC of the scores - AUC of the least) / (AUC of the most - AUC of the least), all on the same patients
    in each draw: 0 is as good as the least, 1 as good as the most; it may lie outside of both. Where the least ranks
    worse than guessing, the way begins at guessing. The interval is that of the bootstrap's percentiles; a draw in
    which the most is not better than the least has no share.

    Parameters
    ----------
    positive
        Whether each patient is of the class, shape (n,).
    scores, least, most
        Higher means more likely of the class, shape (n,) each.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        If shapes differ, or a score is not a number.
    """
    checked = [checked_scores(positive, values) for values in (scores, least, most)]
    truth, rows = checked[0][0], [values for _, values in checked]
    patients = group_patients([f"{row:09}" for row in range(len(truth))], truth.astype(np.int64))
    n = len(truth)
    value = float(_shares(truth, rows, [np.ones((1, n))])[0]) if n else np.nan
    if np.isnan(value):
        both = bool(truth.any() and not truth.all())
        reason = "the best that is possible ranks these patients no better than the least" if both else UNDEFINED["auc"]
        return Figure(value=None, n=n, reason=reason)
    return bootstrap_figure(
        value,
        _shares(truth, rows, weight_blocks(patients, draws=draws, seed=seed)),
        n=n,
        smallest=int(min(truth.sum(), (~truth).sum())),
        bounded=False,
    )


def _shares(positive: BoolArray, scores: Sequence[FloatArray], blocks: Iterable[FloatArray]) -> FloatArray:
    """Give the share of the way in each draw of all blocks of weights; NaN where there is no way to go."""
    parts = []
    for weights in blocks:
        gone, least, most = (auc_draws(positive, values, weights) for values in scores)
        begun = np.maximum(least, _GUESSING)
        way = most - begun
        parts.append(np.divide(gone - begun, way, out=np.full(way.shape, np.nan), where=way > 0))
    return np.concatenate(parts)


# Whether the evidence lies where the cause is -------------------------------------------------------------------------


def localise_in_planes(
    evidence: npt.NDArray[np.floating[Any]],
    mask: npt.NDArray[np.bool_],
    pixels: npt.NDArray[np.floating[Any]],
    *,
    threshold: float,
    seed: int,
) -> dict[str, tuple[Localisation, ...]]:
    """Measure the evidence in all planes of a patient together, and the control maps in the same planes.

    A strongest point is the strongest of all planes, and evidence in a plane that shows nothing of the mask counts as
    outside. The controls are made plane by plane: all planes are as likely to them.

    Parameters
    ----------
    evidence
        Signed, for one class, in one scale over all planes, shape (planes, rows, columns).
    mask
        True where what is to be found lies, same shape; must mark something.
    pixels
        What the planes show, same shape.
    threshold
        Share of the evidence's maximum from which on a point belongs to the region, in (0, 1].
    seed
        Of the random map.

    Returns
    -------
    By the names in `MAPS`: of the evidence one, and of each control one for every threshold of `THRESHOLD_GRID`, since
    which of them suits a control only other patients can tell.

    Raises
    ------
    ValueError
        If the shapes differ, nothing is marked, or as `osteoscope.evaluation.localisation.localise`.
    """
    if evidence.ndim != 3 or not evidence.shape == mask.shape == pixels.shape:
        msg = f"expected one shape (planes, rows, columns), got {evidence.shape}, {mask.shape} and {pixels.shape}"
        raise ValueError(msg)
    planes, rows, columns = evidence.shape
    maps = {
        "evidence": evidence,
        "gaussian": np.tile(gaussian_map((rows, columns)), (planes, 1, 1)),
        "random": np.stack([random_map((rows, columns), seed=seed + plane) for plane in range(planes)]),
        "edges": np.stack([edge_map(plane) for plane in pixels]),
    }
    # How places are laid out makes no difference to any of the measures.
    lesion = mask.reshape(-1, columns)
    return {
        name: tuple(
            localise(maps[name].reshape(-1, columns), lesion, threshold=step)
            for step in ((threshold,) if name == "evidence" else THRESHOLD_GRID)
        )
        for name in MAPS
    }


def localisation_over_patients(
    found: Sequence[Mapping[str, Sequence[Localisation]]], labels: npt.ArrayLike, *, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Average what was measured of each patient.

    Parameters
    ----------
    found
        Of each patient what `localise_in_planes` gives; may be empty. A control is judged at the threshold that is best
        for it in all other patients; of one patient alone, at half.
    labels
        The class of each, shape (n,).
    draws, seed
        Of the bootstrap over patients.

    Returns
    -------
    ``{"patients": n, MAP: {"iou", "dice", "pointing", "energy": figure, "blank": patients without evidence,
    "energy_difference": figure}}``, empty without patients. The difference, of a control map alone, is the energy of
    the evidence less that of the map, paired by patient.
    """
    if not found:
        return {}
    label = np.asarray(labels, dtype=np.int64)
    names = [f"{row:09}" for row in range(len(found))]
    patients = group_patients(names, label)
    chosen = {name: _at_best_for_others([one[name] for one in found], names) for name in MAPS}
    values = {
        name: {measure: np.array([asdict(one)[measure] for one in chosen[name]], dtype=np.float64) for measure in _KEPT}
        for name in MAPS
    }
    table: dict[str, Any] = {"patients": len(found)}
    for name, of_map in values.items():
        row: dict[str, Any] = {
            measure: mean_figure(of_map[measure], patients, draws=draws, seed=seed).to_json() for measure in _MEASURES
        }
        row["blank"] = int(of_map["blank"].sum())
        if name != "evidence":
            difference = values["evidence"]["energy"] - of_map["energy"]
            row["energy_difference"] = mean_figure(
                difference, patients, draws=draws, seed=seed, bounded=False
            ).to_json()
        table[name] = row
    return table


_KEPT = (*_MEASURES, "blank")


def _at_best_for_others(measured: Sequence[Sequence[Localisation]], names: Sequence[str]) -> list[Localisation]:
    """Take of each patient what was measured at the threshold that is best for all others, where there are several."""
    if len(measured[0]) == 1:
        return [one for (one,) in measured]
    places = places_by_others([[one.iou for one in of_patient] for of_patient in measured], names)
    half = THRESHOLD_GRID.index(0.5)
    return [of_patient[half if places is None else places[row]] for row, of_patient in enumerate(measured)]


# Whether taking the cause away changes the answer ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Falls:
    """How far a probability falls when its cause is taken away."""

    fallen: Figure
    """Share of patients in whom it falls at all, with Wilson's interval."""
    median: Figure
    """Median of before less after, with percentiles of the bootstrap over patients."""

    def to_json(self) -> dict[str, Any]:
        """Give ``{"fallen", "median_fall"}``, figures both."""
        return {"fallen": self.fallen.to_json(), "median_fall": self.median.to_json()}


def falls(before: npt.ArrayLike, after: npt.ArrayLike, *, draws: int = 2000, seed: int = 0) -> Falls:
    """Compare probabilities before and after.

    Parameters
    ----------
    before, after
        Of the same patients, shape (n,) with n of at least 1.
    draws, seed
        Of the bootstrap over patients.

    Raises
    ------
    ValueError
        If the shapes differ, there is no patient, or a value lies outside of [0, 1].
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        msg = f"expected as many probabilities after as before, one at least, got {first.shape} and {second.shape}"
        raise ValueError(msg)
    if not ((first >= 0) & (first <= 1) & (second >= 0) & (second <= 1)).all():
        msg = "expected probabilities in [0, 1]"
        raise ValueError(msg)
    n, fall = len(first), first - second
    share = float((fall > 0).mean())
    ends = wilson(share, n)
    chosen: IntArray = np.random.default_rng(seed).integers(n, size=(draws, n))
    median = bootstrap_figure(float(np.median(fall)), np.median(fall[chosen], axis=1), n=n, smallest=n, bounded=False)
    return Falls(fallen=Figure(value=share, low=ends.low, high=ends.high, n=n), median=median)
