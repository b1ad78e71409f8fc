"""``osteoscope cohort``: make cohorts, and audit them."""

from __future__ import annotations

import dataclasses
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from osteoscope.cli.terminal import counted, figure_text, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from osteoscope.cohort.audit import Finding
    from osteoscope.workflow import AuditSummary, CohortSummary

app = typer.Typer(
    help="Make a cohort from images and diagnoses, and audit it.", no_args_is_help=True, rich_markup_mode=None
)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to make; a cohort that is there is replaced.")]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Name of a class; repeat it. The order counts classes from 0.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")]
Accept = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND", help="Go on in spite of findings of this kind; repeat it, each with its --because."),
]
Because = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Why; it is printed wherever the findings are.")
]

_MOST_SHOWN = 5
"""How many findings of one kind are listed."""


@app.command("from-btxrd")
def from_btxrd(
    archive: Annotated[Path, typer.Argument(help="Folder with images/, Annotations/ and dataset.csv or .xlsx.")],
    output: Output,
    classes: Classes = None,
    json: Json = False,
) -> None:
    """Make a cohort from the Bone Tumor X-ray Radiograph Dataset, in its own layout.

    Class names are the columns of its table; 'normal' is tumor = 0. Images of other classes stay as auxiliary.
    """
    from osteoscope import workflow

    with counted("reading images") as progress:
        made = workflow.cohort_from_btxrd(archive, output, classes=classes or [], progress=progress)
    _close(made, as_json=json)


@app.command("from-table")
def from_table(
    table: Annotated[Path, typer.Argument(help="CSV, XLSX or Parquet with columns patient, image, label.")],
    output: Output,
    images: Annotated[Path, typer.Option(help="Folder that the table's paths start from.")],
    classes: Classes = None,
    source: Annotated[
        str | None, typer.Option(help="Where the patients come from; the same patient there gets the same pseudonym.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a cohort from a table and a folder of images.

    The column image names a picture, or a CT or MR: the folder of one DICOM series, or one NIfTI, MetaImage or NRRD.

    Optional columns: study, kind, age, sex, site, level, view, centre, box, outline, lesions, mask, proof, image_date,
    proof_date, treated, biopsied, implant. With --class, images of other labels stay as auxiliary.
    """
    from osteoscope import workflow

    with counted("reading images") as progress:
        made = workflow.cohort_from_table(
            table, output, images=images, classes=classes or [], source=source, progress=progress
        )
    _close(made, as_json=json)


@app.command("audit")
def audit(
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort.")],
    against: Annotated[
        Path | None, typer.Option(help="Folder of another cohort; no patient and no picture may be in both.")
    ] = None,
    roi: Annotated[
        Literal["none", "box", "outline"],
        typer.Option(help="What will be read of an image: all of it, or the square round the lesion's box or outline."),
    ] = "none",
    accept: Accept = None,
    because: Because = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    json: Json = False,
) -> None:
    """Look for what would make a result on a cohort a lie: leaks, shortcuts, confounders, too few patients.

    Exits with 3 if something blocks that was not accepted.
    """
    from osteoscope import workflow
    from osteoscope.cohort.audit import raise_if_blocked

    accepted = accepted_pairs(accept, because)
    with counted("looking at images") as progress:
        found = workflow.audit_cohort(
            cohort, against=against, roi=roi, accepted=accepted, images=images, progress=progress
        )
    summary(found.to_json(), _audit_lines(found), as_json=json)
    raise_if_blocked(found.settled.open)


def accepted_pairs(accept: Sequence[str] | None, because: Sequence[str] | None) -> list[tuple[str, str]]:
    """Give each kind that is accepted with its reason.

    Raises
    ------
    typer.BadParameter
        If there are not as many reasons as kinds.
    """
    kinds, reasons = accept or [], because or []
    if len(kinds) != len(reasons):
        reason = f"each --accept needs its --because, got {len(kinds)} and {len(reasons)}"
        raise typer.BadParameter(reason)
    return list(zip(kinds, reasons, strict=True))


def _audit_lines(found: AuditSummary) -> list[str]:
    findings = found.settled.open
    counts = {name: sum(one.severity == name for one in findings) for name in ("block", "warn", "note")}
    lines = [f"Audit of {found.folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
    lines.extend(_finding_lines(findings))
    if found.settled.accepted:
        lines.append("Accepted:")
        lines.extend(f"  {one.kind}: {one.message}, because: {why}" for one, why in found.settled.accepted)
    lines.extend(f"  accepted, but not found: {one.kind}" for one in found.settled.not_found)
    lines.append("AUC of one thing alone, out of fold and by patient, 95 % interval:")
    lines.extend(
        f"  {one.sees:30} {figure_text(one.auc.to_json(), digits=2)}  {one.apart}".rstrip()
        for one in found.audit.alone.values()
    )
    return lines


def _finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Write findings as a table, of each kind the first few."""
    lines: list[str] = []
    for (severity, kind), group in groupby(findings, key=lambda one: (one.severity, one.kind)):
        alike = list(group)
        lines.extend(f"  {severity:5}  {kind:30} {one.message}" for one in alike[:_MOST_SHOWN])
        if len(alike) > _MOST_SHOWN:
            lines.append(f"  {severity:5}  {kind:30} and {len(alike) - _MOST_SHOWN} more such findings")
        if alike[0].remedy:
            lines.append(f"  {'':37} -> {alike[0].remedy}")
    return lines


def _close(made: CohortSummary, *, as_json: bool) -> None:
    value = {
        "cohort": str(made.folder),
        **made.counts,
        "findings": [dataclasses.asdict(finding) for finding in made.findings],
        "notes": list(made.notes),
    }
    lines = [f"Cohort written to {made.folder}"]
    for name, count in made.counts["classes"].items():
        lines.append(f"  {name}: {count['patients']} patients, {count['images']} images")
    lines.append(f"  auxiliary: {made.counts['auxiliary']['images']} images; left out: {made.counts['left_out']}")
    lines.extend(f"  {finding.severity}: {finding.message}" for finding in made.findings)
    lines.extend(f"  note: {note}" for note in made.notes)
    summary(value, lines, as_json=as_json)
