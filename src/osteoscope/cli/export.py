"""``osteoscope export``: make a bundle to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osteoscope.cli.terminal import staged, summary

if TYPE_CHECKING:
    from osteoscope.workflow.exporting import ExportSummary


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or of a bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Offer eight bits, too, if patients never seen lose nothing by them; of a run."),
    ] = False,
    cohort: Annotated[Path | None, typer.Option(help="The run's cohort, for --int8.")] = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Write a bundle anew, once its graphs are shown to say what its weights say.

    Every network is rebuilt from its weights, and each output of its graphs compared with it, on every library here
    that runs them. A bundle whose graphs say something else is refused.

    With --int8 the networks of a run are also written in eight bits, and offered so if the patients that they never saw
    lose next to nothing by it; otherwise the bundle says why not, and ships float32 alone.
    """
    from osteoscope import workflow

    with staged("reading the bundle") as progress:
        made = workflow.export(source, output, int8=int8, cohort=cohort, images=images, progress=progress)
    summary(made.to_json(), _lines(made), as_json=json)


def _lines(made: ExportSummary) -> list[str]:
    lines = [
        f"  {member.folder} in {member.runtime}, opset {member.opset}: largest difference {member.parity.worst():.1e}"
        for member in made.members
    ]
    return ["Graphs against weights:", *lines, *_int8_lines(made), f"Bundle: {made.folder}"]


def _int8_lines(made: ExportSummary) -> list[str]:
    found = made.int8
    if found is None:
        return []
    offered = "offered" if found.offered else f"not offered: {found.reason}"
    figures = f"map correlation {found.map_correlation:.3f} (at least {found.least_map_correlation:.3f})"
    if found.auc_float32 is not None and found.auc_int8 is not None:
        figures = f"out-of-fold AUC {found.auc_int8:.3f} instead of {found.auc_float32:.3f}, {figures}"
    return [f"Eight bits: {offered}", f"  {figures}, {found.patients} patients"]
