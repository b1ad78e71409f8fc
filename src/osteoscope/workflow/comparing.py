"""Setting finished runs beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import RunError, require
from osteoscope.workflow.study import OOF, REPORT, network_name, read_metrics, read_oof

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.config import Config
    from osteoscope.workflow.study import OutOfFoldTable

COMPARISON = "comparison.json"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary:
    """Where a comparison lies, and what it says."""

    folder: Path
    report: Path
    comparison: dict[str, Any]
    """The content of ``comparison.json``."""


def compare(runs: Sequence[Path], output: Path) -> ComparisonSummary:
    """Set runs on the same patients beside each other, with paired tests that are corrected for their number.

    Runs whose settings differ in nothing but the seed are one arm. Arms are compared on the seeds that all of them
    have, so that every network of one stands beside one of the other that was judged on the same folds.

    Parameters
    ----------
    runs
        Folders of finished runs of two arms or more.
    output
        Where figures and report go; written whole or not at all.

    Raises
    ------
    RunError
        If a folder is not a finished run; the runs are of one arm, have no seed in common, or are on other classes,
        patients, labels, repeats or folds.
    StorageError
        If an output cannot be written.
    """
    require("pandas", "sklearn", "scipy", "statsmodels", "matplotlib", "jinja2")
    from osteoscope.report.comparison import comparison_html
    from osteoscope.storage import folder_written_whole, refuse_existing, write_json, write_text

    refuse_existing(output, kind="a comparison", marker=COMPARISON, others=frozenset({REPORT}))
    arms = _arms([_read_run(folder) for folder in runs])
    comparison = _compared(arms)
    with folder_written_whole(output) as folder:
        write_json(folder / COMPARISON, comparison)
        write_text(folder / REPORT, comparison_html(comparison))
    return ComparisonSummary(folder=output, report=output / REPORT, comparison=comparison)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    folder: Path
    config: Config
    metrics: dict[str, Any]
    table: OutOfFoldTable

    @property
    def seed(self) -> int:
        return self.config.training.seed


@dataclass(frozen=True, kw_only=True, eq=False)
class _Arm:
    """Runs that differ in nothing but the seed."""

    name: str
    runs: dict[int, _Run]
    """By seed, in ascending order."""


def _read_run(folder: Path) -> _Run:
    from osteoscope.config import read_config

    metrics = read_metrics(folder)
    config = read_config(folder / "config.toml")
    return _Run(folder=folder, config=config, metrics=metrics, table=read_oof(folder / OOF, metrics["slugs"]))


def _arms(runs: Sequence[_Run]) -> list[_Arm]:
    """Gather runs to arms on common seeds."""
    gathered: dict[str, dict[int, _Run]] = {}
    for run in runs:
        of_arm = gathered.setdefault(_settings(run.config), {})
        if run.seed in of_arm:
            raise RunError(
                f"has the same settings and seed as {of_arm[run.seed].folder}",
                path=run.folder,
                remedy="name each run once",
            )
        of_arm[run.seed] = run
    if len(gathered) < 2:
        raise RunError(
            "all runs have the same settings: there is nothing to compare",
            path=runs[0].folder if runs else None,
            remedy="name runs of two kinds of network or preparation, or more",
        )
    common = sorted(set.intersection(*(set(of_arm) for of_arm in gathered.values())))
    if not common:
        raise RunError(
            "the runs have no seed in common, so their folds differ",
            path=runs[0].folder,
            remedy="train each of them with the same --seed",
        )
    _check_same_patients([of_arm[seed] for of_arm in gathered.values() for seed in common])
    for seed in common:
        _check_same_folds([of_arm[seed] for of_arm in gathered.values()])
    firsts = [of_arm[common[0]] for of_arm in gathered.values()]
    names = _names(firsts)
    for name, run in zip(names, firsts, strict=True):
        if names.count(name) > 1:
            raise RunError(f"is called {name}, as another of the runs", path=run.folder, remedy="rename its folder")
    return [
        _Arm(name=name, runs={seed: of_arm[seed] for seed in common})
        for name, of_arm in zip(names, gathered.values(), strict=True)
    ]


def _settings(config: Config) -> str:
    """Fingerprint of all settings but the seed."""
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": 0})}).fingerprint()


def _names(runs: Sequence[_Run]) -> list[str]:
    """Name each arm by its network, and by its first run's folder where networks alone would not tell them apart."""
    networks = [network_name(run.config.network) for run in runs]
    return [
        name if networks.count(name) == 1 else f"{name} ({run.folder.resolve().name})"
        for name, run in zip(networks, runs, strict=True)
    ]


def _check_same_patients(runs: Sequence[_Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.metrics["slugs"] != first.metrics["slugs"]:
            raise RunError(
                f"is on other classes than {first.folder}", path=run.folder, remedy="compare runs on one cohort"
            )
        if run.table.labels != first.table.labels:
            raise RunError(
                f"is on other patients, labels or repeats than {first.folder}",
                path=run.folder,
                remedy="train both on the same cohort, with the same number of repeats",
            )


def _check_same_folds(runs: Sequence[_Run]) -> None:
    """Refuse runs of one seed that judged patients in other folds, by networks that learnt from other patients."""
    first = runs[0]
    for run in runs[1:]:
        if run.table.folds != first.table.folds:
            raise RunError(
                f"judged its patients in other folds than {first.folder}",
                path=run.folder,
                remedy="train both with the same --split and --folds",
            )


def _compared(arms: Sequence[_Arm]) -> dict[str, Any]:
    from osteoscope.evaluation.compare import compare_predictors, crossed_bootstrap

    first = next(iter(arms[0].runs.values()))
    seeds = list(arms[0].runs)
    keys = sorted(first.table.labels)
    patients = [patient for patient, _ in keys]
    labels = np.array([first.table.labels[key] for key in keys])
    repeats = np.array([repeat for _, repeat in keys])
    # Each seed is a further repeat, on folds of its own.
    places = int(repeats.max()) + 1
    tables = {arm.name: [run.table.array(keys) for run in arm.runs.values()] for arm in arms}
    comparison = compare_predictors(
        np.tile(labels, len(seeds)),
        {name: np.concatenate(of_arm) for name, of_arm in tables.items()},
        patients=patients * len(seeds),
        repeats=np.concatenate([repeats + places * place for place in range(len(seeds))]),
    )
    networks = [(table, repeat) for table in range(len(seeds)) for repeat in range(places)]
    crossed = None
    if len(networks) > 1:
        # A network's rows, in the order of the patients, are those of one repeat.
        rows = [np.flatnonzero(repeats == repeat) for repeat in range(places)]
        crossed = crossed_bootstrap(
            labels[rows[0]],
            {
                name: np.stack([of_arm[table][rows[repeat]] for table, repeat in networks])
                for name, of_arm in tables.items()
            },
            patients=[patients[row] for row in rows[0]],
            same_seeds=True,
        )
    return {
        "schema": SCHEMA,
        "classes": first.metrics["classes"],
        "slugs": first.metrics["slugs"],
        "prevalence": first.metrics["prevalence"],
        "n_patients": first.metrics["n_patients"],
        "n_images": first.metrics["n_images"],
        "seeds": seeds,
        "repeats": places,
        "arms": {
            arm.name: {"runs": [run.folder.resolve().name for run in arm.runs.values()], "roi": _roi(arm)}
            for arm in arms
        },
        "accepted": [accepted for arm in arms for run in arm.runs.values() for accepted in _accepted(run)],
        **comparison,
        "over_seeds": crossed,
    }


def _roi(arm: _Arm) -> str:
    return next(iter(arm.runs.values())).config.preparation.annotation


def _accepted(run: _Run) -> list[Any]:
    return list(run.metrics.get("accepted", []))
