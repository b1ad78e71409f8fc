"""``osteoscope evaluate``: judge a bundle on cases that it never saw."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from osteoscope.cli.by_class import numbers_by_class
from osteoscope.cli.cohort import Accept, Because, accepted_pairs
from osteoscope.cli.terminal import log, staged, study_lines, summary


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
    training_images: Annotated[
        Path | None, typer.Option(help="Where the images of that cohort lie, if they have moved.")
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
    missed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLUG=N",
            help="How many false alarms a missed case of a class costs, for the report's operating points; repeat it "
            "for each class. Left out: 1.",
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
    costs = numbers_by_class(missed or (), option="--missed", shape="SLUG=N", example="osteosarcoma=5")
    audit = "auditing the cohort"
    log(f"{audit}, then reading its patients")
    with staged(audit) as stages:
        study = workflow.evaluate(
            bundle,
            cohort,
            output,
            roi=roi,
            training=training,
            training_images=training_images,
            accept=accepted,
            threads=threads,
            images=images,
            truth=truth,
            missed=costs,
            progress=partial(stages, "reading patients"),
            audited_so_far=partial(stages, audit),
        )
    value = {"evaluation": str(study.folder), "report": str(study.report), "metrics": study.metrics}
    summary(value, [*study_lines(study.metrics), f"Report: {study.report}"], as_json=json)
