"""Several predictors on the same patients: their differences with intervals and corrected tests, and the best of them.

Two kinds of chance are kept apart. `paired_difference` and `compare_predictors` take the predictions as they are: their
intervals are over the patients that might have come. `crossed_bootstrap` has several seeds of each arm and draws seeds
as well as patients: its intervals are of the procedure that trains the arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import checked_probabilities
from osteoscope.evaluation.delong import checked_predictors, predictor_components
from osteoscope.evaluation.intervals import (
    Figure,
    bootstrap_figure,
    jackknife_acceleration,
    left_out_blocks,
    weight_blocks,
)
from osteoscope.evaluation.metrics import UNDEFINED, class_auc_draws, known
from osteoscope.evaluation.significance import delong_test, holm, mcnemar, permutation_test

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.delong import AucComponents, Predictors
    from osteoscope.evaluation.significance import PairedTest

_METHODS = {
    "auc": "AUC by repeat and averaged; more than two classes: mean of each class against the rest. BCa bootstrap over "
    "patients, drawn class by class, repeats and images of a patient together",
    "auc_delong": "the same AUC; DeLong's variance, clustered by patient, repeats averaged; logit scale",
    "auc_difference": "first less second, both on the patients of one draw; BCa as for the AUC",
    "auc_difference_delong": "first less second, with DeLong's covariance; 1.96 standard errors",
    "mcnemar": "each patient once: the most probable class of the mean probability over the patient's repeats and "
    "images; mid-p of the exact binomial",
    "permutation": "the two exchanged on a patient with all rows; measure by repeat and averaged; statistic: the "
    "first's less the second's; mid-p",
    "p_holm": "corrected by Holm over all pairs, for each kind of test by itself",
    "best": "the highest of these AUCs, too high by the luck of having been picked; auc_corrected picks the highest on "
    "the patients of each bootstrap draw and scores it on those left out: mean and percentiles over draws",
}


# Two predictors -------------------------------------------------------------------------------------------------------


def paired_difference(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    patients: Sequence[str],
    repeats: npt.ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Figure:
    """Give the AUC of a less the AUC of b, with the BCa interval of a paired bootstrap over patients.

    Both predictors meet the same patients in each draw, so what makes a draw easy or hard for both cancels out. The
    AUC is that of `metrics.overall_auc`, by repeat and averaged.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    scores_a, scores_b
        What each predictor says of the same rows: probabilities (n, K), or one score (n,) for class 1 of 0, 1.
    patients
        The patient of each row, length n.
    repeats
        The repeat of each row, shape (n,); all one if left out.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, or a patient has two labels.
    """
    pair = checked_predictors(labels, [scores_a, scores_b], patients=patients, repeats=repeats)
    return _resampled(pair, draws=draws, seed=seed).difference(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Resampled:
    """AUCs of several predictors or arms: on all patients, on each draw, and without each patient."""

    label: IntArray
    """The class of each patient, shape (P,)."""
    value: FloatArray
    """Shape (k,)."""
    drawn: FloatArray
    """Shape (draws, k)."""
    left_out: FloatArray | None
    """Shape (P, k); None for intervals by percentiles."""

    def figure(self, place: int) -> Figure:
        """Give one AUC with its interval."""
        return self._figure(np.eye(self.value.size)[place], bounded=True)

    def difference(self, first: int, second: int) -> Figure:
        """Give the first AUC less the second with its interval."""
        unit = np.eye(self.value.size)
        return self._figure(unit[first] - unit[second], bounded=False)

    def _figure(self, weights: FloatArray, *, bounded: bool) -> Figure:
        value = known(float(self.value @ weights))
        if value is None:
            return Figure(value=None, n=len(self.label), reason=UNDEFINED["auc"])
        left_out = None if self.left_out is None else self.left_out @ weights
        return bootstrap_figure(
            value,
            self.drawn @ weights,
            n=len(self.label),
            smallest=int(np.unique_counts(self.label).counts.min()),
            bounded=bounded,
            acceleration=None if left_out is None else jackknife_acceleration(left_out, self.label),
        )


def _resampled(predictors: Predictors, *, draws: int, seed: int) -> _Resampled:
    return _Resampled(
        label=predictors.patients.label,
        value=_aucs(predictors, [np.ones((1, len(predictors.labels)))])[0],
        drawn=_aucs(predictors, weight_blocks(predictors.patients, draws=draws, seed=seed)),
        left_out=_aucs(predictors, left_out_blocks(predictors.patients)),
    )


def _aucs(predictors: Predictors, blocks: Iterable[FloatArray]) -> FloatArray:
    """Overall AUC of each predictor under each row of weights, averaged over repeats, shape (rows of weights, k)."""
    return np.concatenate([_block_aucs(predictors, weights) for weights in blocks])


def _block_aucs(predictors: Predictors, weights: FloatArray) -> FloatArray:
    columns = [
        np.mean(
            [
                class_auc_draws(predictors.labels[rows], scores[rows], weights[:, rows]).mean(axis=1)
                for rows in predictors.rows_of_repeat
            ],
            axis=0,
        )
        for scores in predictors.scores
    ]
    return np.column_stack(columns)


# Several predictors ---------------------------------------------------------------------------------------------------


def compare_predictors(
    labels: npt.ArrayLike,
    probabilities: Mapping[str, npt.ArrayLike],
    *,
    patients: Sequence[str],
    repeats: npt.ArrayLike | None = None,
    draws: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Set every predictor beside every other, with tests corrected for their number, and correct the best for its luck.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    probabilities
        By the name of each predictor, two at least, what it says of the same rows, shape (n, K).
    patients
        The patient of each row, length n. Names do not enter the result.
    repeats
        The repeat of each row, shape (n,); all one if left out.
    draws, permutations, seed
        Of the bootstrap and of the permutation tests.

    Returns
    -------
    What JSON can hold::

        {"n": patients,
         "predictors": {NAME: {"auc": figure, "auc_delong": figure}},
         "pairs": [{"first": NAME, "second": NAME, "auc_difference": figure, "auc_difference_delong": figure,
                    "tests": {"delong", "mcnemar", "permutation_auc", "permutation_balanced_accuracy",
                              "permutation_brier": {"hypothesis", "method", "statistic", "p_value", "n", "p_holm"}}}],
         "best": {"name": NAME, "auc": figure, "auc_corrected": figure, "picked": {NAME: share of draws}},
         "draws", "permutations", "seed", "methods": {…: what was done}}

    with figures as `Figure.to_json` and tests as `PairedTest.to_json` give them; best is None without AUCs.

    Raises
    ------
    ValueError
        If there are fewer than two predictors, shapes do not fit, a row is not a distribution, or a patient has two
        labels.

    References
    ----------
    Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70. Tsamardinos I,
    Greasidou E, Borboudakis G. Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation. Mach Learn 2018;107:1895-1922 (the corrected best).
    """
    names = list(probabilities)
    if len(names) < 2:
        msg = f"at least two predictors are needed, got {names}"
        raise ValueError(msg)
    tables = [checked_probabilities(table) for table in probabilities.values()]
    predictors = checked_predictors(labels, tables, patients=patients, repeats=repeats)
    resampled = _resampled(predictors, draws=draws, seed=seed)
    alone = zip(names, predictor_components(predictors).figures(), strict=True)
    return {
        "n": len(predictors.patients.names),
        "predictors": {
            name: {"auc": resampled.figure(place).to_json(), "auc_delong": figure.to_json()}
            for place, (name, figure) in enumerate(alone)
        },
        "pairs": _pairs(names, predictors, resampled, permutations=permutations, seed=seed),
        "best": _best(names, predictors, resampled, seed=seed),
        "draws": draws,
        "permutations": permutations,
        "seed": seed,
        "methods": dict(_METHODS),
    }


def _pairs(
    names: Sequence[str], predictors: Predictors, resampled: _Resampled, *, permutations: int, seed: int
) -> list[dict[str, Any]]:
    places = list(combinations(range(len(names)), 2))
    components = predictor_components(predictors)
    made = {
        name: [test(first, second) for first, second in places]
        for name, test in _tests(predictors, components, permutations=permutations, seed=seed).items()
    }
    corrected = {name: holm([test.p_value for test in tests]) for name, tests in made.items()}
    return [
        {
            "first": names[first],
            "second": names[second],
            "auc_difference": resampled.difference(first, second).to_json(),
            "auc_difference_delong": components.difference(first, second).difference_figures()[0].to_json(),
            "tests": {name: {**tests[pair].to_json(), "p_holm": corrected[name][pair]} for name, tests in made.items()},
        }
        for pair, (first, second) in enumerate(places)
    ]


def _tests(
    predictors: Predictors, components: AucComponents, *, permutations: int, seed: int
) -> dict[str, Callable[[int, int], PairedTest]]:
    """Give the tests of two predictors by their places."""
    labels, classes = predictors.patients.label, predictors.scores[0].shape[1]
    predicted = [_mean_of_patients(predictors, scores).argmax(axis=1) for scores in predictors.scores]
    permuted = partial(permutation_test, predictors, permutations=permutations, seed=seed)
    return {
        "delong": lambda first, second: delong_test(components.difference(first, second)),
        "mcnemar": lambda first, second: mcnemar(labels, predicted[first], predicted[second], classes=classes),
        "permutation_auc": partial(permuted, measure="auc"),
        "permutation_balanced_accuracy": partial(permuted, measure="balanced_accuracy"),
        "permutation_brier": partial(permuted, measure="brier"),
    }


def _mean_of_patients(predictors: Predictors, scores: FloatArray) -> FloatArray:
    """Average a predictor's probabilities over each patient's rows, shape (P, K)."""
    row = predictors.patients.row
    total = np.column_stack([np.bincount(row, weights=column) for column in scores.T])
    mean: FloatArray = total / np.bincount(row)[:, None]
    return mean


def _best(names: Sequence[str], predictors: Predictors, resampled: _Resampled, *, seed: int) -> dict[str, Any] | None:
    """Correct the highest AUC for having been picked; None where AUCs are undefined."""
    if np.isnan(resampled.value).any():
        return None
    best, draws = int(resampled.value.argmax()), len(resampled.drawn)
    blocks = weight_blocks(predictors.patients, draws=draws, seed=seed)
    outside = _aucs(predictors, ((weights == 0).astype(np.float64) for weights in blocks))
    picked = resampled.drawn.argmax(axis=1)
    return {
        "name": names[best],
        "auc": resampled.figure(best).to_json(),
        "auc_corrected": _mean_outside(outside[np.arange(draws), picked], resampled.label).to_json(),
        "picked": dict(zip(names, (np.bincount(picked, minlength=len(names)) / draws).tolist(), strict=True)),
    }


def _mean_outside(scores: FloatArray, label: IntArray) -> Figure:
    """Give the mean of the scores on the patients left out, where most draws leave out patients of every class."""
    n, smallest = len(label), int(np.unique_counts(label).counts.min())
    if np.count_nonzero(np.isnan(scores)) > len(scores) / 2:
        return Figure(value=None, n=n, reason="most draws leave out no patient of some class")
    return bootstrap_figure(float(np.nanmean(scores)), scores, n=n, smallest=smallest)


# Arms with several seeds ----------------------------------------------------------------------------------------------


def crossed_bootstrap(
    labels: npt.ArrayLike,
    arms: Mapping[str, npt.ArrayLike],
    *,
    patients: Sequence[str] | None = None,
    same_seeds: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Set arms beside each other whose networks were trained under several seeds, drawing patients and seeds.

    A difference between two trained networks may be one between two seeds. Each draw takes patients with replacement,
    class by class and the same for all arms, and of the S seeds of an arm S - 1 with replacement: the mean of as many
    has just the variance s^2 / S that the mean of S seeds has, where S out of S would have too little. An arm's AUC is
    the mean of the AUCs of its seeds, not that of their mean probability.

    Parameters
    ----------
    labels
        Class indices, shape (n,).
    arms
        By the name of each arm what its seeds say of the same rows: probabilities, shape (seeds, n, K), or one score
        for class 1 of 0, 1, shape (seeds, n). At least two seeds each.
    patients
        The patient of each row, length n; each row is its own patient if left out.
    same_seeds
        Whether place s of every arm shares folds and seed, so that one draw of seeds holds for all arms.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    What JSON can hold::

        {"n": patients, "seeds": {ARM: seeds}, "arms": {ARM: {"auc": figure, "auc_by_seed": [AUC]}},
         "differences": [{"first": ARM, "second": ARM, "auc_difference": figure}],
         "draws", "seed", "method": what was done}

    Raises
    ------
    ValueError
        If there is no arm, an arm has fewer than two seeds, seeds are said to be the same but differ in number, shapes
        do not fit, a score is not finite, or a patient has two labels.

    References
    ----------
    Owen AB. The pigeonhole bootstrap. Ann Appl Stat 2007;1:386-411 (both at once). Rao JNK, Wu CFJ. Resampling
    inference with complex survey data. J Am Stat Assoc 1988;83:231-241 (S - 1 of S).
    """
    seeds = {name: len(np.asarray(table)) for name, table in arms.items()}
    if not seeds or min(seeds.values()) < 2:
        msg = f"at least two seeds of each arm are needed, got {seeds}"
        raise ValueError(msg)
    if same_seeds and len(set(seeds.values())) > 1:
        msg = f"arms on the same seeds must have as many, got {seeds}"
        raise ValueError(msg)
    networks = [scores for table in arms.values() for scores in np.asarray(table, dtype=np.float64)]
    predictors = checked_predictors(labels, networks, patients=patients)
    starts = np.cumsum(list(seeds.values()))[:-1]
    values = np.split(_aucs(predictors, [np.ones((1, len(predictors.labels)))])[0], starts)
    drawn = np.split(_aucs(predictors, weight_blocks(predictors.patients, draws=draws, seed=seed)), starts, axis=1)
    shares = _seed_shares(list(seeds.values()), same=same_seeds, draws=draws, seed=seed)
    resampled = _Resampled(
        label=predictors.patients.label,
        value=np.array([part.mean() for part in values]),
        drawn=np.column_stack([(part * share).sum(axis=1) for part, share in zip(drawn, shares, strict=True)]),
        left_out=None,
    )
    return {
        "n": len(resampled.label),
        "seeds": seeds,
        "arms": {
            name: {"auc": resampled.figure(arm).to_json(), "auc_by_seed": [known(value) for value in values[arm]]}
            for arm, name in enumerate(seeds)
        },
        "differences": [
            {"first": first, "second": second, "auc_difference": resampled.difference(a, b).to_json()}
            for (a, first), (b, second) in combinations(enumerate(seeds), 2)
        ],
        "draws": draws,
        "seed": seed,
        "method": "mean AUC over seeds; percentiles of a bootstrap that draws patients, class by class, for all arms "
        f"alike, and S - 1 of the S seeds, {'for all arms alike' if same_seeds else 'of each arm by itself'}",
    }


def _seed_shares(seeds: Sequence[int], *, same: bool, draws: int, seed: int) -> list[FloatArray]:
    """For each arm the share of each seed in each draw, shape (draws, S)."""
    generator = np.random.default_rng((seed, 1))

    def drawn(count: int) -> FloatArray:
        return generator.multinomial(count - 1, np.full(count, 1 / count), size=draws) / (count - 1)

    if same:
        return [drawn(seeds[0])] * len(seeds)
    return [drawn(count) for count in seeds]
