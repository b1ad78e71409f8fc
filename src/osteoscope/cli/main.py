"""The ``osteoscope`` command.

Exit codes: 0 done, 1 a bug, 2 usage, 3 a fault that the operator can mend, 130 interrupted, 141 whoever read the output
left, as ``head`` does.
"""

from __future__ import annotations

import sys

import typer

import osteoscope
from osteoscope.cli import (
    cohort,
    compare,
    demo,
    evaluate,
    export,
    inspect,
    phantom,
    predict,
    recalibrate,
    robustness,
    train,
)
from osteoscope.errors import OsteoscopeError

FAULT = 3
READER_LEFT = 141

app = typer.Typer(
    name="osteoscope",
    help="Tells rare bone tumours apart from few cases, honestly. Research; not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("phantom")(phantom.phantom)
app.command("inspect")(inspect.inspect)
app.add_typer(cohort.app, name="cohort")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("recalibrate")(recalibrate.recalibrate)
app.command("robustness")(robustness.robustness)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(osteoscope.__version__)


def main() -> None:
    """Run the command line, and turn faults into one line and an exit code."""
    try:
        app()
    except SystemExit as end:
        # Typer ends on a broken pipe with 1, which stands for a bug here.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(READER_LEFT)
        raise
    except OsteoscopeError as fault:
        # One line, whatever the fault's text holds.
        sys.stderr.write(f"osteoscope: {' '.join(str(fault).split())}\n")
        sys.exit(FAULT)
