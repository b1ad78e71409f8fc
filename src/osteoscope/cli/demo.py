"""``osteoscope demo``: the main job from nothing to a report, on patients that nobody is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from osteoscope.cli.terminal import INTERRUPTED, counted, log, study_lines, summary
from osteoscope.cli.watching import watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from osteoscope.training.crossval import RunWatcher
    from osteoscope.workflow import DemoSummary


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all of it; one that is there goes on.")] = (
        Path("osteoscope-demo")
    ),
    patients: Annotated[int, typer.Option(min=20, max=10_000, help="To learn from, of simulated sites A and B.")] = 72,
    held_out: Annotated[int, typer.Option(min=20, max=10_000, help="To judge on, of simulated site C.")] = 24,
    preset: Annotated[Literal["quick", "standard", "full"], typer.Option(help="How long is learnt.")] = "quick",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 2, help="Of the patients and of the training.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor. Left out: all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Show the whole way without any data: patients, audit, training, judgement at a site never seen, pages.

    Patients, tumours and scanners are simulated, so the truth is known and stands beside what the network says. No
    figure that comes out is evidence of anything clinical.
    """
    from osteoscope import workflow

    try:
        made = workflow.demo(
            output,
            watcher=Watcher(),
            patients=patients,
            held_out=held_out,
            seed=seed,
            preset=preset,
            threads=threads,
        )
    except KeyboardInterrupt:
        log(f"interrupted; what was done is in {output}, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    summary(made.to_json(), _lines(made), as_json=json)


class Watcher:
    """Bars on a terminal, lines elsewhere, one step after the other."""

    def counted(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show how many of how many are done."""
        return counted(what)

    def training(self) -> AbstractContextManager[RunWatcher]:
        """Show how a run goes on."""
        return watching()


def _lines(made: DemoSummary) -> list[str]:
    findings = [f"  {finding.severity}: {finding.message}" for finding in made.audit.audit.findings]
    return [
        "The audit of the cohort:",
        *(findings or ["  nothing found"]),
        "The bundle at the site that was held out:",
        *study_lines(made.evaluation.metrics),
        "All of these patients are phantoms: nothing clinical follows from any figure.",
        "Look at",
        f"  {made.evaluation.report}  the bundle at site C, beside the truth",
        f"  {made.cases}  a page a patient: where the network sees what",
        f"  {made.run.report}  the cross-validated run at sites A and B",
    ]
