"""``osteoscope recalibrate``: fit a bundle's probabilities and verdicts to a site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osteoscope.cli.by_class import numbers_by_class
from osteoscope.cli.terminal import counted, figure_text, summary

if TYPE_CHECKING:
    from osteoscope.workflow.recalibrating import RecalibrationSummary

_MOMENTS = {"before": "before", "prior_only": "with the new prior alone", "after": "after"}


def recalibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort with the bundle's classes, of other patients.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    prior: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLUG=SHARE", help="Share of a class before its images are read; repeat it. Else the cohort's."
        ),
    ] = None,
    keep_prior: Annotated[bool, typer.Option("--keep-prior", help="Keep the prior that the bundle states.")] = False,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Make a bundle of the same networks whose probabilities and verdicts fit a site with another mix of cases.

    The bundle must never have seen the cohort's patients; the new bundle is not to be evaluated on them either.
    """
    from osteoscope.workflow.recalibrating import recalibrate as run

    stated = numbers_by_class(prior or (), option="--prior", shape="SLUG=SHARE", example="osteosarcoma=0.8")
    with counted("reading patients") as progress:
        made = run(
            bundle,
            cohort,
            output,
            prior=stated or None,
            keep_prior=keep_prior,
            images=images,
            threads=threads,
            progress=progress,
        )
    value = {
        "bundle": str(made.folder),
        "calibration": made.manifest.calibration.model_dump(mode="json"),
        "verdicts": made.manifest.verdicts.model_dump(mode="json"),
        "notes": list(made.notes),
        **made.step.model_dump(mode="json"),
    }
    summary(value, _lines(made), as_json=json)


def _lines(made: RecalibrationSummary) -> list[str]:
    manifest, step = made.manifest, made.step
    names = dict(zip(manifest.slugs, manifest.classes, strict=True))
    patients = ", ".join(f"{count} {names[slug]}" for slug, count in step.patients.items())
    lines = [f"Recalibrated on {patients} patients: {manifest.calibration.method}"]
    for slug, name in names.items():
        lines.append(f"  prior of {name}: {step.prior_from[slug]:.3f} before, {step.prior_to[slug]:.3f} after")
    for moment, figures in step.figures.items():
        told = "; ".join(f"{name.replace('_', ' ')} {figure_text(figure)}" for name, figure in figures.items())
        lines.append(f"  {_MOMENTS[moment]}: {told}")
    lines.extend(f"  note: {note}" for note in made.notes)
    return [*lines, f"Bundle: {made.folder}"]
