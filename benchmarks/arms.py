"""The accuracy table: what each arm of a method reached, from the runs that were made of it.

An arm is named with its runs: of several seeds, split by patients, and at most one split by sites and one by looks.
Markdown first, a row an arm; the last line is one JSON object with the same figures, and with the best arm's AUC
corrected for having been picked among all.

    python benchmarks/arms.py NAME=RUN[,RUN…] [NAME=RUN[,RUN…] …]
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.config import Config, read_config
from osteoscope.evaluation.compare import compare_predictors, crossed_bootstrap
from osteoscope.workflow.study import OOF, OutOfFoldTable, read_oof

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = {
    "auc": "AUC out of fold",
    "within_folds": "AUC within folds",
    "sites": "AUC, body sites left out",
    "looks": "AUC, looks left out",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier",
    "iou": "lesion map: IoU",
    "pointing": "lesion map: pointing",
    "evidence_pointing": "evidence: pointing",
    "found": "lesions found",
    "minutes": "minutes, auxiliary + folds",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    config: Config
    metrics: dict[str, Any]
    facts: dict[str, Any]
    table: OutOfFoldTable


@dataclass(frozen=True, kw_only=True)
class Arm:
    """All runs of one arm, by what a fold leaves out."""

    runs: dict[str, list[Run]]

    def figure(self, split: str, name: str) -> str:
        """Show a figure by patient: of one run with its interval, of several seeds their mean, if all have it."""
        runs = self.runs.get(split, [])
        found = [run.metrics["patient"][name] for run in runs if name in run.metrics["patient"]]
        return shown(found if len(found) == len(runs) else [])

    def localised(self, row: str, name: str) -> str:
        """Show a figure of the localisation table."""
        tables = [run.metrics["localisation"] for run in self.runs.get("patients", [])]
        return shown([table[row][name] for table in tables if row in table])


def read_run(folder: Path) -> Run:
    """Read what a run left in its folder."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Run(
        config=read_config(folder / "config.toml"),
        metrics=metrics,
        facts=json.loads((folder / "run.json").read_text(encoding="utf-8")),
        table=read_oof(folder / OOF, metrics["slugs"]),
    )


def read_arm(folders: list[Path]) -> Arm:
    """Gather the runs of an arm by their split, in the order of their seeds."""
    runs: dict[str, list[Run]] = {}
    for run in sorted(map(read_run, folders), key=lambda run: run.config.training.seed):
        runs.setdefault(run.config.training.split, []).append(run)
    return Arm(runs=runs)


def shown(figures: list[dict[str, Any]]) -> str:
    """Write a figure; several as their mean and range, without any claim to an interval."""
    if not figures:
        return "–"
    values = [figure["value"] for figure in figures]
    if len(values) == 1:
        low, high = figures[0]["low"], figures[0]["high"]
        return f"{values[0]:.2f}" if low is None else f"{values[0]:.2f} ({low:.2f} to {high:.2f})"
    return f"{statistics.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def minutes(arm: Arm) -> str:
    """Show what learning cost, the mean over the arm's seeds."""
    runs = arm.runs.get("patients", [])
    if not runs:
        return "–"
    auxiliary = [(run.facts["auxiliary"] or {"minutes": 0})["minutes"] for run in runs]
    folds = [run.facts["training_minutes"] for run in runs]
    return f"{statistics.mean(auxiliary):.0f} + {statistics.mean(folds):.0f}"


def row(arm: Arm) -> dict[str, str]:
    """All figures of an arm, as they are shown."""
    return {
        "auc": arm.figure("patients", "auc"),
        "within_folds": arm.figure("patients", "auc_within_folds"),
        "sites": arm.figure("sites", "auc"),
        "looks": arm.figure("looks", "auc"),
        "balanced_accuracy": arm.figure("patients", "balanced_accuracy"),
        "brier": arm.figure("patients", "brier"),
        "iou": arm.localised("lesion", "iou"),
        "pointing": arm.localised("lesion", "pointing"),
        "evidence_pointing": arm.localised("evidence", "pointing"),
        "found": arm.localised("regions", "found"),
        "minutes": minutes(arm),
    }


def over_arms(arms: dict[str, Arm]) -> dict[str, Any]:
    """Set the arms beside each other on their common seeds: the crossed bootstrap, and the best one corrected."""
    by_seed = {
        name: {run.config.training.seed: run.table for run in arm.runs.get("patients", [])}
        for name, arm in arms.items()
    }
    seeds = sorted(set.intersection(*(set(tables) for tables in by_seed.values())))
    if len(arms) < 2 or not seeds:
        return {}
    keys = sorted(key for key in next(iter(by_seed.values()))[seeds[0]].labels if key[1] == 0)
    first = next(iter(by_seed.values()))[seeds[0]]
    patients = [patient for patient, _ in keys]
    labels = np.array([first.labels[key] for key in keys])
    probabilities: dict[str, NDArray[np.float64]] = {
        name: np.stack([tables[seed].array(keys) for seed in seeds]) for name, tables in by_seed.items()
    }
    compared = compare_predictors(
        np.tile(labels, len(seeds)),
        {name: np.concatenate(list(table)) for name, table in probabilities.items()},
        patients=patients * len(seeds),
        repeats=np.repeat(np.arange(len(seeds)), len(labels)),
    )
    crossed = None
    if len(seeds) > 1:
        crossed = crossed_bootstrap(labels, probabilities, patients=patients, same_seeds=True)
    return {"seeds": seeds, "best": compared["best"], "pairs": compared["pairs"], "over_seeds": crossed}


def main() -> None:
    """Print the table of the arms that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("arms", nargs="+", metavar="NAME=RUN[,RUN…]")
    options = parser.parse_args()
    named = dict(text.split("=", maxsplit=1) for text in options.arms)
    arms = {name: read_arm([Path(folder) for folder in folders.split(",")]) for name, folders in named.items()}
    rows = {name: row(arm) for name, arm in arms.items()}
    print(f"| arm | {' | '.join(COLUMNS.values())} |")
    print(f"|---{'|---' * len(COLUMNS)}|")
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(figures[column] for column in COLUMNS)} |")
    print(json.dumps({"rows": rows, **over_arms(arms)}))


if __name__ == "__main__":
    main()
