"""``series.csv``: every series of an archive under its pseudonyms, whether it was chosen, and why.

A person writes ``keep`` or ``leave`` into the column ``override``; the next run does so, and writes it down again, also
where the series is not in the archive this time.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from osteoscope.cohort.archive.choice import Override, region_remark
from osteoscope.cohort.tabular import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from osteoscope.cohort.archive.choice import Names
    from osteoscope.cohort.archive.decide import Decision
    from osteoscope.cohort.tabular import TableRow

SERIES_TABLE = "series.csv"

COLUMNS = (
    "patient",
    "study",
    "series",
    "part",
    "image",
    "kind",
    "modality",
    "plane",
    "planes",
    "step_mm",
    "thickness_mm",
    "rows",
    "columns",
    "kernel",
    "weighting",
    "contrast",
    "derivation",
    "body_part",
    "view",
    "files",
    "copies",
    "folders",
    "label",
    "chosen",
    "reason",
    "override",
)

_NOT_THERE = (*("" for _ in COLUMNS[4:-3]), "no", "it is not in the archive")
"""What is said of a series beside its names and what was decided on it, where it is not there."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the table.

    Parameters
    ----------
    decision
        Of a stack.
    image
        Path in the cohort, where it is in it.
    left_out
        Why it is not in the cohort though it was chosen, or empty.
    """

    decision: Decision
    image: str = ""
    left_out: str = ""


def text_of(lines: Iterable[Line], overrides: Mapping[Names, Override]) -> str:
    """Write the table as CSV, sorted by its names; of decisions on series that are not among the lines, they alone."""
    cells = {line.decision.names: _cells(line) for line in lines}
    for names, override in overrides.items():
        cells.setdefault(names, [*names, *_NOT_THERE, override])
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells[names] for names in sorted(cells))
    return stream.getvalue()


def _cells(line: Line) -> list[str]:
    decision, choice = line.decision, line.decision.choice
    stack, facts = choice.stack, choice.stack.facts
    return [
        *decision.names,
        line.image,
        facts.kind,
        facts.modality,
        facts.plane,
        str(stack.planes),
        _number(stack.step),
        _number(facts.thickness),
        str(facts.rows),
        str(facts.columns),
        facts.kernel,
        facts.weighting,
        {None: "", True: "yes", False: "no"}[facts.contrast],
        facts.derivation,
        region_remark(stack),
        facts.view,
        str(stack.files),
        str(stack.copies),
        str(stack.folders),
        decision.label.label or "",
        "yes" if choice.chosen and not line.left_out else "no",
        line.left_out or choice.reason,
        decision.override or "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def read_overrides(path: Path) -> dict[Names, Override]:
    """Read what a person decided.

    Parameters
    ----------
    path
        A table that an earlier run wrote, with its column ``override``.

    Raises
    ------
    TableError
        If it cannot be read as one, or an override is neither ``keep`` nor ``leave``.
    """
    rows = read_rows(path, ["patient", "study", "series", "part", "override"])
    return {_names(row): override for row in rows if (override := _override(row)) is not None}


def _names(row: TableRow) -> Names:
    return row.required("patient"), row.required("study"), row.required("series"), row.required("part")


def _override(row: TableRow) -> Override | None:
    text = row.text("override")
    if text is None:
        return None
    for override in get_args(Override):
        if text.lower() == override:
            found: Override = override
            return found
    raise row.fault("override", " or ".join(get_args(Override)))
