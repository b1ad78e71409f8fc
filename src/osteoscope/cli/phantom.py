"""``osteoscope phantom``: make patients that nobody is, as DICOM, with their truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osteoscope.cli.terminal import INTERRUPTED, counted, log, summary

if TYPE_CHECKING:
    from osteoscope.workflow import PhantomSummary


def phantom(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make, or to add to.")],
    patients: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")],
    site: Annotated[
        list[str] | None, typer.Option(help="Simulated site, A, B or C; repeat it. Left out: all three.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Diagnosis, osteosarcoma or 'giant cell tumor'; repeat it. Left out: both."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all that is drawn.")] = 0,
    planes: Annotated[int, typer.Option(min=2, max=512, help="Slices of a CT.")] = 48,
    pixels: Annotated[int, typer.Option(min=16, max=512, help="Rows and columns of a slice.")] = 256,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="How many render at a time. Left out: one a processor, up to 8.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Draw patients with tumours of the spine, and write for each a CT series and a segmentation as DICOM.

    What is known of them goes into a folder beside, and their diagnoses into labels.csv. Nobody was scanned: a phantom
    is no evidence of anything clinical. Patients that are there already are kept.
    """
    from osteoscope import workflow

    try:
        with counted("making patients") as progress:
            made = workflow.make_phantoms(
                output,
                patients=patients,
                seed=seed,
                sites=site or (),
                classes=classes or (),
                planes=planes,
                pixels=pixels,
                processes=processes,
                progress=progress,
            )
    except KeyboardInterrupt:
        log(f"interrupted; what was done is in {output}, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    summary(made.to_json(), _lines(made), as_json=json)


def _lines(made: PhantomSummary) -> list[str]:
    before = f", {made.kept} of them before" if made.kept else ""
    lines = [f"Phantoms in {made.folder}: {made.written + made.kept}{before}"]
    for label, sites in made.counts.items():
        lines.append(f"  {label}: {', '.join(f'{count} at site {site}' for site, count in sites.items())}")
    return [*lines, "  They are synthetic: no patient is on them, and nothing clinical follows from them."]
