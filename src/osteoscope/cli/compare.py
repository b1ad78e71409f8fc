"""``osteoscope compare``: set finished runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from osteoscope.cli.terminal import figure_text, summary


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs on the same patients in the same folds, two or more.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Compare finished runs: paired differences with intervals, and tests corrected for their number.

    Runs that differ in nothing but the seed are one arm; arms are compared on the seeds that all of them have.
    """
    from osteoscope import workflow

    made = workflow.compare(runs, output)
    value = {"comparison": str(made.folder), "report": str(made.report), "figures": made.comparison}
    summary(value, [*_lines(made.comparison), f"Report: {made.report}"], as_json=json)


def _lines(comparison: dict[str, Any]) -> list[str]:
    """Say each arm's AUC and each difference in a line."""
    seeds = ", ".join(map(str, comparison["seeds"]))
    lines = [f"By patient ({comparison['n_patients']} patients), seeds {seeds}, 95 % intervals:"]
    lines.extend(f"  {name}: auc {figure_text(arm['auc'])}" for name, arm in comparison["predictors"].items())
    for pair in comparison["pairs"]:
        p_value = pair["tests"]["delong"]["p_holm"]
        corrected = "not defined" if p_value is None else f"{p_value:.3f}"
        lines.append(
            f"  {pair['first']} less {pair['second']}: auc {figure_text(pair['auc_difference'])}, "
            f"DeLong p {corrected} (Holm)"
        )
    for pair in (comparison["over_seeds"] or {}).get("differences", []):
        difference = figure_text(pair["auc_difference"])
        lines.append(f"  over seeds and patients, {pair['first']} less {pair['second']}: auc {difference}")
    best = comparison["best"]
    if best is not None:
        lines.append(
            f"  the best, {best['name']}, corrected for having been picked: {figure_text(best['auc_corrected'])}"
        )
    return lines
