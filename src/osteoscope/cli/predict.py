"""``osteoscope predict``: say of any studies what a bundle says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from osteoscope.cli.terminal import INTERRUPTED, log, staged, summary
from osteoscope.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from osteoscope.workflow.predicting import PredictionSummary, StudyRow

_MOST_LINES = 40
"""Studies that are listed for people; the summary file holds all."""
_M_ARENA_MAX = -8
"""Of ``malloc.h``."""


def predict(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    studies: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY...", help="Files, folders and zips, of any format and nesting."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make, or to add to.")],
    age: Annotated[float | None, typer.Option(min=0, max=130, help="Of the patient, in years; of one study.")] = None,
    sex: Annotated[Literal["F", "M"] | None, typer.Option(help="Of the patient; of one study.")] = None,
    site: Annotated[str | None, typer.Option(help="Body site, several joined by +; of one study.")] = None,
    level: Annotated[str | None, typer.Option(help="Level of the spine, several joined by +; of one study.")] = None,
    modality: Annotated[
        Literal["CT", "MR"] | None,
        typer.Option(help="Of files that do not say theirs, as NIfTI does not. Left out: it is concluded."),
    ] = None,
    one_patient: Annotated[
        bool,
        typer.Option("--one-patient", help="Judge all that is named together: it is of one patient."),
    ] = False,
    research: Annotated[
        bool,
        typer.Option("--research", help="Show what is outside of the bundle's scope, too; every output is marked."),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Studies at the same time.")] = 2,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Let the networks compute in eight bits, where the bundle offers that."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Say of each study which class it is, how likely, and what in the images speaks for it, without torch.

    DICOM images belong to one study by their Study Instance UID; any other file is a study by itself. With
    --one-patient all that is named is one. Each study gets a folder of its own. A study that cannot be read does not
    stop the others, and one that was answered before is not read again. Exits with 3 if nothing could be answered.
    """
    from osteoscope import workflow

    _share_one_heap()
    try:
        with staged("looking at files") as watch:
            done = workflow.predict(
                bundle,
                studies,
                output,
                age=age,
                sex=sex,
                site=site,
                level=level,
                modality=modality,
                one_patient=one_patient,
                research=research,
                threads=threads,
                jobs=jobs,
                precision="int8" if int8 else "float32",
                watch=watch,
            )
    except KeyboardInterrupt:
        log(f"interrupted; what was done is in {output}, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    summary(done.to_json(), list(_lines(done)), as_json=json)
    if not done.predicted:
        where = studies[0] if len(studies) == 1 else None
        reason = "holds no study that could be answered"
        raise InputError(reason, path=where, remedy="see what osteoscope inspect says of it")


def _share_one_heap() -> None:
    """Let all threads of this process take memory from one heap, where the C library is glibc.

    By default each thread gets one of its own, which keeps what a whole radiograph took of it once that is free: a
    quarter of all that a study of several modalities takes.
    """
    import ctypes

    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, TypeError, AttributeError):
        return


def _lines(done: PredictionSummary) -> Iterator[str]:
    for row in done.rows[:_MOST_LINES]:
        yield _line(row)
    if len(done.rows) > _MOST_LINES:
        yield f"... and {len(done.rows) - _MOST_LINES} more studies"
    already = sum(row.already_done for row in done.rows)
    before = f" ({already} of them before)" if already else ""
    refused = len(done.rows) - done.predicted
    yield f"Studies answered: {done.predicted}{before}, refused: {refused}. Summary: {done.to_json()['summary']}"


def _line(row: StudyRow) -> str:
    shares = ", ".join(f"{slug} {share:.2f}" for slug, share in (row.probabilities or {}).items())
    more = f" and {row.files - 1} more" if row.files > 1 else ""
    said = f"{row.verdict} ({shares})" if shares else row.verdict
    return " ".join((f"{row.study}  {said}", f"[{row.file}{more}]", *row.reasons))
