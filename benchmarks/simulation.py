"""Whether intervals cover and tests keep their level, by simulation; and how long the statistics take.

Scores are binormal: N(0, 1) in one class, N(m, 1) in the other, with m = sqrt(2) Phi^-1(AUC), so that the true AUC is
known. What each figure estimates:

``coverage``: share of simulated cohorts whose 95 % interval holds the true AUC, by patients a class and true AUC; of
the DeLong interval on the logit scale and of the BCa bootstrap. ``coverage_clustered``: the same with three alike
images a patient and two repeats, beside an interval that takes every row for a patient.
``within_folds``: five folds of 20 and 4 patients, whose networks have one AUC and offsets with the given standard
deviation: mean excess over the true AUC of the pooled AUC and of that within folds, and coverage of the interval of
each.
``type_one``: share of cohorts in which two predictors that are exchangeable, so that every hypothesis of no difference
holds, are told apart at 5 %. ``type_one_scales``: the AUC tests where the two have one AUC but not one scale.
``wilson``: coverage of Wilson's interval, simulated and as the binomial distribution has it.
``best_of``: mean excess over the true AUC of the best of five equal predictors, as it stands and corrected.
``crossed``: share of cohorts in which two equal arms of five seeds each are told apart by an interval that excludes 0:
by the crossed bootstrap, and by a bootstrap over patients of one seed each. ``own`` is the share of a score's variance
that each network has to itself, ``seeds`` the standard deviation between seeds of the distance between the classes.
``seconds``: DeLong of two predictors on 10,000 patients; all statistics of a run of 400.

Standard errors are sqrt(p (1 - p) / cohorts): at 95 % 0.22 points for 10,000 cohorts, 0.49 for 2,000, 0.69 for 1,000.
Coverage of BCa takes --bootstrap-cohorts, ``coverage_clustered``, ``within_folds`` and ``crossed`` half of them,
``best_of`` an eighth, all else --cohorts. The last line is one JSON object.

    python benchmarks/simulation.py [--cohorts N] [--bootstrap-cohorts N] [--draws N] [--permutations N] [--only FIGURE]
                                    [--processes N]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from osteoscope.evaluation.compare import compare_predictors, crossed_bootstrap, paired_difference
from osteoscope.evaluation.delong import delong
from osteoscope.evaluation.document import Predictions, StudyFacts, metrics_document
from osteoscope.evaluation.intervals import (
    Figure,
    bootstrap_figure,
    group_patients,
    jackknife_acceleration,
    left_out_blocks,
    weight_blocks,
    wilson,
)
from osteoscope.evaluation.metrics import auc_draws
from osteoscope.evaluation.significance import mcnemar, paired_delong, paired_permutation
from osteoscope.evaluation.within_folds import auc_within_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIZES = (20, 50, 200)
"""Patients a class."""
AUCS = (0.7, 0.85, 0.95)
EFFORT = ("draws", "permutations")
"""Settings that say how much is drawn, not what is simulated."""
LEVEL = 0.05
CHUNK = 50
"""Cohorts that one process simulates at a time; each chunk has a seed of its own, whatever the number of processes."""


# Cohorts with a known truth -------------------------------------------------------------------------------------------


def distance(auc: float) -> float:
    """How far apart two normal classes lie that have this AUC."""
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def probabilities(scores: Array, auc: float) -> Array:
    """Turn binormal scores into calibrated probabilities at equal classes, shape (..., 2)."""
    m = distance(auc)
    second = 1 / (1 + np.exp(-(m * scores - m * m / 2)))
    return np.stack([1 - second, second], axis=-1)


def two_classes(size: int) -> NDArray[np.int64]:
    """Labels of as many patients of each class."""
    return np.repeat(np.array([0, 1]), size)


def alike(generator: Generator, labels: NDArray[np.int64], auc: float, count: int, correlation: float) -> Array:
    """Draw the scores of predictors that err alike to a degree, each with the given AUC, shape (count, n)."""
    shared, own = generator.normal(size=len(labels)), generator.normal(size=(count, len(labels)))
    return distance(auc) * labels + math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own


def bca_figure(labels: NDArray[np.int64], scores: Array, *, draws: int, seed: int) -> Figure:
    """Give the AUC with the interval of the summary's bootstrap, and no other figure."""
    patients = group_patients([f"{i:05}" for i in range(len(labels))], labels)

    def aucs(blocks: Iterable[Array]) -> Array:
        return np.concatenate([auc_draws(labels == 1, scores, weights) for weights in blocks])

    return bootstrap_figure(
        float(aucs([np.ones((1, len(labels)))])[0]),
        aucs(weight_blocks(patients, draws=draws, seed=seed)),
        n=len(labels),
        smallest=int(np.bincount(labels).min()),
        acceleration=jackknife_acceleration(aucs(left_out_blocks(patients)), labels),
    )


def holds(figure: Figure, truth: float) -> bool:
    """Whether a figure's interval holds the truth; one without an interval does not."""
    return figure.low is not None and figure.high is not None and figure.low <= truth <= figure.high


def seed_of(generator: Generator) -> int:
    """Draw a seed for a bootstrap or a permutation test."""
    return int(generator.integers(2**31))


# One simulated cohort each: counts by name ----------------------------------------------------------------------------


def delong_coverage(generator: Generator, size: int, auc: float) -> dict[str, float]:
    """Whether DeLong's interval holds the truth."""
    labels = two_classes(size)
    (figure,) = delong(labels, [alike(generator, labels, auc, 1, 0.0)[0]]).figures()
    return {"delong": holds(figure, auc)}


def bca_coverage(generator: Generator, size: int, auc: float, draws: int) -> dict[str, float]:
    """Whether the BCa interval holds the truth."""
    labels = two_classes(size)
    scores = alike(generator, labels, auc, 1, 0.0)[0]
    return {"bca": holds(bca_figure(labels, scores, draws=draws, seed=seed_of(generator)), auc)}


def clustered_coverage(generator: Generator, size: int, auc: float, draws: int) -> dict[str, float]:
    """Whether intervals hold the truth where each patient has three alike images in each of two repeats."""
    labels = two_classes(size)
    rows = alike(generator, labels, auc, 6, 0.7).ravel()
    truth, patients = np.tile(labels, 6), [f"{i:05}" for i in range(2 * size)] * 6
    repeats = np.repeat(np.array([0, 1]), 6 * size)
    (clustered,) = delong(truth, [rows], patients=patients, repeats=repeats).figures()
    (by_row,) = delong(truth, [rows]).figures()
    # The difference from a constant is the AUC less a half.
    boot = paired_difference(
        truth, rows, np.zeros(len(rows)), patients=patients, repeats=repeats, draws=draws, seed=seed_of(generator)
    )
    return {"delong": holds(clustered, auc), "bca": holds(boot, auc - 0.5), "rows_as_patients": holds(by_row, auc)}


def within_folds(generator: Generator, auc: float, offset: float, draws: int) -> dict[str, float]:
    """By how much AUCs exceed the truth, and whether their intervals hold it, where each fold has a network."""
    labels, folds = np.repeat(np.array([0, 1]), [100, 20]), np.arange(120) % 5
    scores = alike(generator, labels, auc, 1, 0.0)[0] + offset * generator.normal(size=5)[folds]
    pooled = bca_figure(labels, scores, draws=draws, seed=seed_of(generator))
    within = auc_within_folds(
        labels=labels,
        probabilities=probabilities(scores, auc),
        patients=[f"{i:05}" for i in range(len(labels))],
        repeats=np.zeros(len(labels), dtype=np.int64),
        folds=folds,
        classes=("first", "second"),
        draws=draws,
        seed=seed_of(generator),
    )
    return {
        f"{name}_{what}": value
        for name, figure in (("pooled", pooled), ("within", within))
        for what, value in (("excess", (figure.value or 0.0) - auc), ("holds", holds(figure, auc)))
    }


def rejected(p_value: float | None) -> bool:
    """Whether a test tells two predictors apart at 5 %."""
    return p_value is not None and p_value <= LEVEL


def type_one(generator: Generator, size: int, auc: float, permutations: int) -> dict[str, float]:
    """Which tests tell two exchangeable predictors apart."""
    labels = two_classes(size)
    first, second = probabilities(alike(generator, labels, auc, 2, 0.6), auc)
    guesses = first.argmax(axis=1), second.argmax(axis=1)
    p_values = {
        "delong": paired_delong(labels, first, second).p_value,
        "mcnemar": mcnemar(labels, *guesses, classes=2).p_value,
        "mcnemar_exact": mcnemar(labels, *guesses, classes=2, mid_p=False).p_value,
    }
    for measure in ("auc", "balanced_accuracy", "brier"):
        test = paired_permutation(
            labels, first, second, measure=measure, permutations=permutations, seed=seed_of(generator)
        )
        p_values[f"permutation_{measure}"] = test.p_value
    return {name: rejected(p) for name, p in p_values.items()}


def type_one_scales(generator: Generator, size: int, auc: float, permutations: int) -> dict[str, float]:
    """Which AUC tests tell two predictors apart that have one AUC, but of which one is much less sure of itself."""
    labels = two_classes(size)
    first, second = alike(generator, labels, auc, 2, 0.6)
    second = np.exp(second / 5)
    test = paired_permutation(labels, first, second, measure="auc", permutations=permutations, seed=seed_of(generator))
    return {
        "delong": rejected(paired_delong(labels, first, second).p_value),
        "permutation_auc": rejected(test.p_value),
    }


def best_of(generator: Generator, size: int, auc: float, draws: int) -> dict[str, float]:
    """By how much the best of five equal predictors exceeds the truth."""
    labels = two_classes(size)
    tables = probabilities(alike(generator, labels, auc, 5, 0.5), auc)
    compared = compare_predictors(
        labels,
        {str(place): table for place, table in enumerate(tables)},
        patients=[f"{i:05}" for i in range(2 * size)],
        draws=draws,
        permutations=1,
        seed=seed_of(generator),
    )
    best = compared["best"]
    return {"as_it_stands": best["auc"]["value"] - auc, "corrected": best["auc_corrected"]["value"] - auc}


def crossed(generator: Generator, size: int, auc: float, own: float, seeds: float, draws: int) -> dict[str, float]:
    """Whether two equal arms of five seeds are told apart."""
    labels = two_classes(size)
    patients = [f"{i:05}" for i in range(2 * size)]
    apart = distance(auc) + seeds * generator.normal(size=(2, 5, 1))
    shared, alone = generator.normal(size=2 * size), generator.normal(size=(2, 5, 2 * size))
    arms = apart * labels + math.sqrt(1 - own) * shared + math.sqrt(own) * alone
    block = crossed_bootstrap(
        labels, {"a": arms[0], "b": arms[1]}, patients=patients, draws=draws, seed=seed_of(generator)
    )
    both = block["differences"][0]["auc_difference"]
    one = paired_difference(labels, arms[0, 0], arms[1, 0], patients=patients, draws=draws, seed=seed_of(generator))
    return {"crossed": not both["low"] <= 0 <= both["high"], "one_seed_each": not holds(one, 0.0)}


# Many cohorts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """Cohorts to simulate: a function of one cohort, its settings, and how often."""

    figure: str
    cohort: Callable[..., dict[str, float]]
    settings: Mapping[str, Any]
    cohorts: int

    @property
    def setting(self) -> str:
        """Name the setting by all that is not a number of draws."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items() if name not in EFFORT)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a task; the task's place among all and the first cohort's in the task are its seed."""

    task: int
    cohorts: int
    start: int
    cohort: Callable[..., dict[str, float]]
    settings: Mapping[str, Any]


def simulate(chunk: Chunk) -> dict[str, float]:
    """Simulate a chunk's cohorts: by name, the sum of what each cohort gave."""
    generator, total = np.random.default_rng((1, chunk.task, chunk.start)), dict[str, float]()
    for _ in range(chunk.cohorts):
        for name, value in chunk.cohort(generator, **chunk.settings).items():
            total[name] = total.get(name, 0.0) + value
    return total


def chunks_of(number: int, task: Task) -> list[Chunk]:
    """Cut a task into chunks."""
    return [
        Chunk(
            task=number,
            cohorts=min(CHUNK, task.cohorts - start),
            start=start,
            cohort=task.cohort,
            settings=task.settings,
        )
        for start in range(0, task.cohorts, CHUNK)
    ]


def run(tasks: list[Task], processes: int, only: list[str] | None) -> dict[str, dict[str, dict[str, float]]]:
    """Simulate the tasks of the named figures: by figure and setting, the mean over cohorts of each name."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with multiprocessing.Pool(processes) as pool:
        for number, task in enumerate(tasks):
            if only and task.figure not in only:
                continue
            total: dict[str, float] = {}
            for part in pool.imap(simulate, chunks_of(number, task)):
                for name, value in part.items():
                    total[name] = total.get(name, 0.0) + value
            means = {name: round(value / task.cohorts, 4) for name, value in total.items()}
            found.setdefault(task.figure, {}).setdefault(task.setting, {}).update(means)
            print(f"{task.figure}, {task.setting}, {task.cohorts} cohorts: {means}", flush=True)
    return found


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """List what to simulate."""
    many, fewer, draws = options.cohorts, options.bootstrap_cohorts, options.draws
    permuted = {"permutations": options.permutations}
    tasks = []
    for size in SIZES:
        for auc in AUCS:
            where = {"size": size, "auc": auc}
            drawn = {**where, "draws": draws}
            tasks.append(Task(figure="coverage", cohort=delong_coverage, settings=where, cohorts=many))
            tasks.append(Task(figure="coverage", cohort=bca_coverage, settings=drawn, cohorts=fewer))
        where = {"size": size, "auc": 0.85}
        tasks.append(Task(figure="type_one", cohort=type_one, settings={**where, **permuted}, cohorts=many))
    where = {"size": 50, "auc": 0.85}
    drawn = {**where, "draws": draws}
    mixed, by_seed = {**drawn, "own": 0.3, "seeds": 0.2}, {**drawn, "own": 0.02, "seeds": 0.5}
    return [
        *tasks,
        Task(figure="type_one_scales", cohort=type_one_scales, settings={**where, **permuted}, cohorts=many),
        Task(figure="coverage_clustered", cohort=clustered_coverage, settings=drawn, cohorts=fewer // 2),
        Task(figure="crossed", cohort=crossed, settings=mixed, cohorts=fewer // 2),
        Task(figure="crossed", cohort=crossed, settings=by_seed, cohorts=fewer // 2),
        Task(figure="best_of", cohort=best_of, settings=drawn, cohorts=fewer // 8),
        *(
            Task(
                figure="within_folds",
                cohort=within_folds,
                settings={"auc": 0.75, "offset": offset, "draws": draws},
                cohorts=fewer // 2,
            )
            for offset in (0.0, 0.5, 1.0)
        ),
    ]


# Wilson and the clock -------------------------------------------------------------------------------------------------


def wilson_coverage(cohorts: int) -> dict[str, Any]:
    """Simulate the coverage of Wilson's interval beside what the binomial distribution says it must be."""
    generator, table = np.random.default_rng(0), {}
    for n in (17, *SIZES):
        ends = [wilson(hits / n, n) for hits in range(n + 1)]
        for share in (*AUCS, 0.99):
            covers = np.array([end.low <= share <= end.high for end in ends])
            exact = float(binom.pmf(np.arange(n + 1), n, share) @ covers)
            seen = float(covers[generator.binomial(n, share, size=cohorts)].mean())
            table[f"n={n} share={share}"] = {"exact": round(exact, 4), "simulated": round(seen, 4)}
    worst = max(abs(cell["exact"] - cell["simulated"]) for cell in table.values())
    return {"largest_difference": round(worst, 4), "by_setting": table}


def seconds() -> dict[str, float]:
    """Time DeLong of two predictors on 10,000 patients, and the statistics of a run of 400 (3 repeats, 2 images)."""
    generator = np.random.default_rng(0)
    labels = two_classes(5000)
    first, second = alike(generator, labels, 0.85, 2, 0.6)
    patients = [f"{i:05}" for i in range(10_000)]
    return {
        "delong_10000": round(fastest(lambda: paired_delong(labels, first, second, patients=patients), times=5), 4),
        **run_of_400(generator),
    }


def run_of_400(generator: Generator) -> dict[str, float]:
    """Time what `train` writes for 400 patients, and the comparison with five others."""
    truth, repeats = two_classes(200), 3

    def predictions(images: int) -> Predictions:
        labels = np.tile(np.repeat(truth, images), repeats)
        shares = probabilities(alike(generator, labels, 0.85, 1, 0.0)[0], 0.85)
        names = np.tile(np.repeat([f"{i:05}" for i in range(400)], images), repeats)
        return Predictions(
            patients=tuple(names.tolist()),
            labels=labels,
            repeats=np.repeat(np.arange(repeats), 400 * images),
            probabilities=shares,
            verdicts=np.where(shares.max(axis=1) > 0.7, shares.argmax(axis=1), -1),
        )

    facts = StudyFacts(
        classes=("a", "b"), slugs=("a", "b"), prior=(0.5, 0.5), roi="none", seed=0, estimates="simulated"
    )
    by_patient, by_image = predictions(1), predictions(2)
    others = {
        str(place): probabilities(table, 0.85)
        for place, table in enumerate(alike(generator, by_patient.labels, 0.85, 6, 0.6))
    }
    figures = fastest(
        lambda: metrics_document(facts, by_patient=by_patient, by_image=by_image, localisation={}), times=1
    )
    comparison = fastest(
        lambda: compare_predictors(by_patient.labels, others, patients=by_patient.patients, repeats=by_patient.repeats),
        times=1,
    )
    return {
        "figures_400": round(figures, 2),
        "comparison_400": round(comparison, 2),
        "statistics_400": round(figures + comparison, 2),
    }


def fastest(work: Callable[[], object], *, times: int) -> float:
    """Give the shortest of several times, in seconds."""
    measured = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        measured.append(time.perf_counter() - start)
    return min(measured)


def main() -> None:
    """Simulate, time, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cohorts", type=int, default=10_000, help="simulated cohorts where no bootstrap is needed")
    parser.add_argument("--bootstrap-cohorts", type=int, default=2000, help="simulated cohorts of the bootstrap")
    parser.add_argument("--draws", type=int, default=1000, help="of each bootstrap; reports take 2000")
    parser.add_argument("--permutations", type=int, default=999, help="of each permutation test; reports take 10000")
    parser.add_argument("--only", action="append", metavar="FIGURE", help="simulate this figure alone; may be repeated")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    times = seconds()
    print(f"seconds: {times}", flush=True)
    found = {"seconds": times, "wilson": wilson_coverage(options.cohorts)}
    found |= run(tasks_of(options), options.processes, options.only)
    print(json.dumps({**found, **vars(options)}))


if __name__ == "__main__":
    main()
