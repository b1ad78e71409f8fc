"""``osteoscope robustness``: see how well a bundle does as its images get worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from osteoscope.cli.terminal import counted, figure_text, summary


def robustness(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort with the bundle's classes, of other patients.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    disturbance: Annotated[
        list[str] | None,
        typer.Option(
            help="noise, blur, contrast, gamma, rotation, shift, resolution or borders; repeat it. Left out: all."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of grain, directions and bootstrap.")] = 0,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Judge a bundle on images that are disturbed more and more: AUC, balanced accuracy and changed verdicts.

    A cohort that shares a patient, or the same pixels, with what the bundle has seen is refused.
    """
    from osteoscope.workflow.robustness import sweep_robustness

    with counted("reading patients") as progress:
        made = sweep_robustness(
            bundle,
            cohort,
            output,
            disturbances=disturbance or (),
            seed=seed,
            images=images,
            threads=threads,
            progress=progress,
        )
    value = {"sweep": str(made.folder), "report": str(made.report), "robustness": made.robustness}
    summary(value, [*_lines(made.robustness), f"Report: {made.report}"], as_json=json)


def _lines(sweep: dict[str, Any]) -> list[str]:
    undisturbed = next(iter(sweep["disturbances"].values()))[0]
    lines = [
        f"By patient ({sweep['n_patients']} patients, {sweep['n_images']} images), 95 % intervals:",
        f"  undisturbed: auc {figure_text(undisturbed['auc'])}",
    ]
    for name, points in sweep["disturbances"].items():
        lines.append(f"  {name} ({points[0]['unit']}):")
        lines.extend(
            f"    {point['strength']:g}: auc {figure_text(point['auc'])}, "
            f"other verdicts {figure_text(point['verdicts_changed'])}"
            for point in points[1:]
        )
    return lines
