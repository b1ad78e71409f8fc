"""``osteoscope evaluate``: judge a bundle on cases that it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from osteoscope.cli.cohort import Accept, Because, accepted_pairs
from osteoscope.cli.terminal import counted, log, study_lines, summary


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort with the bundle's classes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    roi: Annotated[
        Literal["none", "box", "outline"] | None,
        typer.Option(
            help="What a person has marked for the network to use: nothing, or the lesion's box or outline, which "
            "is then what it reads, or looks at again. Left out: as the bundle was trained."
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the cohort that the bundle was trained on, to look for near duplicates across both."
        ),
    ] = None,
    accept: Accept = None,
    because: Because = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Folder that osteoscope phantom made, where the cohort is made of it, to set the bundle beside the "
            "truth: the best that can be done, where the tumours differ, and the same CTs without matrix."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Judge a bundle on other cases, without torch.

    A cohort that shares a patient, or the same pixels, with the training cohort is refused.
    """
    from osteoscope import workflow

    accepted = accepted_pairs(accept, because)
    log("auditing the cohort, then reading its patients")
    with counted("reading patients") as progress:
        study = workflow.evaluate(
            bundle,
            cohort,
            output,
            roi=roi,
            training=training,
            accept=accepted,
            threads=threads,
            images=images,
            truth=truth,
            progress=progress,
        )
    value = {"evaluation": str(study.folder), "report": str(study.report), "metrics": study.metrics}
    summary(value, [*study_lines(study.metrics), f"Report: {study.report}"], as_json=json)
