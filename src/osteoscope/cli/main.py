"""The ``osteoscope`` command.

Exit codes: 0 done, 1 a bug, 2 usage, 3 a fault that the operator can mend, 129 the terminal closed, 130 interrupted,
141 whoever read the output left, as ``head`` does, 143 told to end.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

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
from osteoscope.processes import end_in_order
from osteoscope.storage import REMEDIES

FAULT = 3
READER_LEFT = 141

_REMEDIES = {
    **REMEDIES,
    errno.EACCES: "ask for the right to it, or name another",
    errno.EPERM: "ask for the right to it, or name another",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "name what the links should lead to",
    errno.EFBIG: "choose a folder on a disk that takes larger files",
}
"""Of what the operating system may refuse anywhere; all else that it refuses unforeseen is a bug."""

_LOOP = "Symlink loop from "
"""What pathlib says of a link that leads to itself, before Python 3.13."""

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
    end_in_order()
    try:
        app()
    except SystemExit as end:
        # Typer ends on a broken pipe with 1, which stands for a bug here.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(READER_LEFT)
        raise
    except OsteoscopeError as fault:
        _end_with(fault)
    except (OSError, RuntimeError) as error:
        found = _refusal_of_system(error)
        if found is None:
            raise
        _end_with(found)


def _end_with(fault: OsteoscopeError) -> NoReturn:
    # One line, whatever the fault's text holds.
    sys.stderr.write(f"osteoscope: {' '.join(str(fault).split())}\n")
    sys.exit(FAULT)


def _refusal_of_system(error: OSError | RuntimeError) -> OsteoscopeError | None:
    """Say what the operating system refused in a place where nothing else does; None where that is a bug."""
    if isinstance(error, OSError):
        number, path = error.errno, error.filename
    elif str(error).startswith(_LOOP):
        number, path = errno.ELOOP, str(error).removeprefix(_LOOP).strip("'\"")
    else:
        return None
    if number not in _REMEDIES:
        return None
    where = os.fsdecode(path) if isinstance(path, str | bytes) else None
    reason = f"could not be read or written: {os.strerror(number).lower()}"
    return OsteoscopeError(reason if where else f"a file {reason}", path=where, remedy=_REMEDIES[number])
