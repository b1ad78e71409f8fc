"""``osteoscope cohort``: make cohorts, and audit them."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from osteoscope.cli.terminal import INTERRUPTED, counted, figure_text, log, staged, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from osteoscope.cohort.audit import Finding
    from osteoscope.workflow import ArchiveSummary, AuditSummary, CohortSummary, DeidentificationSummary

app = typer.Typer(
    help="Make a cohort from images and diagnoses, and audit it.", no_args_is_help=True, rich_markup_mode=None
)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to make; a cohort that is there is replaced.")]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Name of a class; repeat it. The order counts classes from 0.")
]
Source = Annotated[
    str | None, typer.Option(help="Where the patients come from; the same patient there gets the same pseudonym.")
]
Encoding = Annotated[str | None, typer.Option(help="Of a table as CSV that is not in UTF-8, such as cp1252.")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")]
Accept = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND", help="Go on in spite of findings of this kind; repeat it, each with its --because."),
]
Because = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Why; it is printed wherever the findings are.")
]

RoiNames = Annotated[
    list[str] | None,
    typer.Option("--roi-name", help="Name of the segment or region of interest that is meant; repeat it."),
]


class ImageKind(StrEnum):
    """A modality; Typer takes no list of literals."""

    CT = "CT"
    MR = "MR"
    RADIOGRAPH = "radiograph"


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
    source: Source = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Make a cohort from a table and a folder of images.

    The column image names a picture, or a CT or MR: the folder of one DICOM series, or one NIfTI, MetaImage or NRRD.
    The column mask names the outline of a lesion: a DICOM segmentation or structure set, or a NIfTI, MetaImage or NRRD;
    of a picture, a LabelMe file.

    Optional columns: study, kind, age, sex, site, level, view, centre, box, outline, lesions, mask, proof, image_date,
    proof_date, treated, biopsied, implant. With --class, images of other labels stay as auxiliary.
    """
    from osteoscope import workflow

    with counted("reading images") as progress:
        made = workflow.cohort_from_table(
            table, output, images=images, classes=classes or [], source=source, encoding=encoding, progress=progress
        )
    _close(made, as_json=json)


@app.command("from-nifti")
def from_nifti(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder in the layout of BIDS, or with a file or a folder a patient.")
    ],
    output: Output,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV, XLSX or Parquet with columns patient, label; by default DIR/participants.tsv."),
    ] = None,
    classes: Classes = None,
    source: Source = None,
    json: Json = False,
) -> None:
    """Make a cohort from a folder of NIfTI files and a table of diagnoses.

    A mask of the lesion lies beside its image, or in derivatives, and its name ends in mask, msk, seg, dseg,
    segmentation, label, labels or roi. What is not used is listed in cohort.json, with the reason.
    """
    from osteoscope import workflow

    with counted("reading images") as progress:
        made = workflow.cohort_from_nifti(
            folder, output, labels=labels, classes=classes or [], source=source, progress=progress
        )
    _close(made, as_json=json)


@app.command("from-dicom")
def from_dicom(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files, any nesting; zips, too.")],
    labels: Annotated[
        Path, typer.Option(help="CSV, XLSX or Parquet with label, and one or more of patient, study, accession.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the cohort; one that an earlier run made is gone on with.")
    ],
    classes: Classes = None,
    modality: Annotated[list[ImageKind] | None, typer.Option(help="Kind of image to use; repeat it.")] = None,
    plane: Annotated[Literal["axial", "sagittal", "coronal"] | None, typer.Option(help="Of CT and MR.")] = None,
    kernel: Annotated[Literal["bone", "soft"] | None, typer.Option(help="What a CT was reconstructed for.")] = None,
    weighting: Annotated[Literal["T1", "T2", "STIR", "PD"] | None, typer.Option(help="Of an MR.")] = None,
    contrast: Annotated[bool | None, typer.Option(help="Whether contrast was given, to CT and MR.")] = None,
    thickest: Annotated[float | None, typer.Option(metavar="MM", help="Largest distance between planes.")] = None,
    body_part: Annotated[str | None, typer.Option(help="Region of the body, such as spine or pelvis.")] = None,
    when: Annotated[
        Literal["before", "first", "last", "any"],
        typer.Option(help="Which study: the last before biopsy, treatment or proof; the first or last; or every one."),
    ] = "before",
    roi_names: RoiNames = None,
    key: Annotated[
        Path | None, typer.Option(help="Key of the pseudonyms; by default OUTPUT.key.json beside the output.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Index of the archive; by default OUTPUT.index.sqlite beside the output.")
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(help="Table of series with keep or leave in its column override; by default the cohort's own."),
    ] = None,
    encoding: Encoding = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a processor, up to 8.")] = None,
    json: Json = False,
) -> None:
    """Make a cohort from a PACS export and a table of diagnoses: index, join, choose, de-identify.

    Optional columns of the table: age, sex, site, level, kind, centre, proof, proof_date, biopsy_date, treatment_date.
    Why each series was chosen or left stands in series.csv. Keep the key and the index to yourself.
    """
    from osteoscope import workflow

    try:
        with staged("indexing files") as stages:
            made = workflow.cohort_from_dicom(
                folder,
                output,
                labels=labels,
                classes=classes or [],
                wishes=workflow.wishes(
                    modalities=[kind.value for kind in modality or []],
                    plane=plane,
                    kernel=kernel,
                    weighting=weighting,
                    contrast=contrast,
                    thickest=thickest,
                    body_part=body_part,
                    when=when,
                ),
                roi_names=roi_names or [],
                key=key,
                index=index,
                series=series,
                encoding=encoding,
                jobs=jobs,
                stages=stages,
            )
    except KeyboardInterrupt:
        log("interrupted; the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    _close_archive(made, as_json=json)


@app.command("audit")
def audit(
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort.")],
    against: Annotated[
        Path | None, typer.Option(help="Folder of another cohort; no patient and no picture may be in both.")
    ] = None,
    against_images: Annotated[
        Path | None, typer.Option(help="Where the images of the other cohort lie, if they have moved.")
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

    accepted = accepted_pairs(accept, because)
    with counted("looking at images") as progress:
        found = workflow.audit_cohort(
            cohort,
            against=against,
            roi=roi,
            accepted=accepted,
            images=images,
            against_images=against_images,
            progress=progress,
        )
    summary(found.to_json(), _audit_lines(found), as_json=json)
    # Behind the verb, which says what is not installed.
    from osteoscope.cohort.audit import raise_if_blocked

    raise_if_blocked(found.settled.open)


@app.command("deidentify")
def deidentify(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files, any nesting; zips, too.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the copies; one that an earlier run made is gone on with."),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            help="Key of the pseudonyms, made if there is none; by default OUTPUT.key.json beside the output."
        ),
    ] = None,
    release: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="Quarantined files that a person has looked at, a name a line; copy them."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy DICOM files without what identifies patients: Basic Profile of DICOM PS3.15, dates moved by patient.

    Files that may show text in their pixels are not copied; they are listed beside the key, as are those that cannot be
    read. Keep the key, and what lies beside it, to yourself.
    """
    from osteoscope import workflow

    with counted("de-identifying files") as progress:
        done = workflow.deidentify(source, output, key=key, released=release, progress=progress)
    summary(done.to_json(), _deidentification_lines(done), as_json=json)


@app.command("outline")
def outline(
    image: Annotated[Path, typer.Argument(help="A CT or MR: the folder of one DICOM series, or one file.")],
    files: Annotated[
        list[Path], typer.Argument(help="DICOM segmentations, structure sets, or NIfTI, MetaImage and NRRD masks.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Mask to write, as .nii.gz; an earlier one is replaced.")
    ],
    roi_names: RoiNames = None,
    json: Json = False,
) -> None:
    """Make the mask of a lesion from what outlines it, for the column mask of a table.

    Without --roi-name, the region whose name speaks of a lesion (GTV, lesion, tumour …) is taken, or the only one.
    """
    from osteoscope import workflow

    made = workflow.outline_lesion(image, files, output, names=roi_names or []).to_json()
    lines = [
        f"Mask written to {made['mask']}: {made['millilitres']:g} ml in {made['planes']} planes",
        *(f"  from {path}" for path in made["used"]),
        *(f"  not used: {one['file']}: {one['reason']}" for one in made["unused"]),
        *(f"  note: {sentence}" for sentence in made["told"]),
    ]
    summary(made, lines, as_json=json)


@app.command("show")
def show(
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write; by default COHORT-contact-sheet.html beside COHORT."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    json: Json = False,
) -> None:
    """Write a page that shows every case: planes, outline, label and reasons. Look at it before anything is trained."""
    from osteoscope import workflow

    with counted("showing patients") as progress:
        shown = workflow.show_cohort(cohort, output, images=images, progress=progress)
    lines = [
        f"Contact sheet of {shown.patients} patients and {shown.images} images: {shown.page}",
        f"  without an outline: {shown.without_outline}; with remarks: {len(shown.conspicuous)}",
        *(f"  cannot be shown: {image}: {reason}" for image, reason in shown.faults),
    ]
    summary(shown.to_json(), lines, as_json=json)


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
    width = max((len(one.sees) for one in found.audit.alone.values()), default=0)
    lines.extend(
        f"  {one.sees:{width}} {figure_text(one.auc.to_json(), digits=2)}  {one.apart}".rstrip()
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


def _deidentification_lines(done: DeidentificationSummary) -> list[str]:
    report = done.report
    lines = [f"De-identified files in {done.folder}: {report['written']} of {report['patients']} patients"]
    if report["copies"]:
        lines.append(f"  copies of these, not written again: {report['copies']}")
    for what in ("quarantined", "refused"):
        lines.append(f"  {what}: {sum(report[what].values())}")
        lines.extend(f"    {count} x {reason}" for reason, count in report[what].items())
    if report["guessed_patients"]:
        lines.append(
            f"  patients without an identifier, told by what else they have: {len(report['guessed_patients'])}"
        )
    lines.extend(f"  one UID for several patients: {', '.join(group)}" for group in report["patients_with_one_uid"])
    for action in ("removed", "emptied", "replaced", "shifted"):
        rows = [row for row in report["actions"] if row["action"] == action]
        elements = sum(row["elements"] for row in rows)
        lines.append(f"  {action}: {elements} elements of {len(rows)} attributes (listed in report.csv)")
    lines.append(f"Keep to yourself: {done.key}, and beside it the list of what was left out: {done.left_out.name}")
    return lines


def _close_archive(made: ArchiveSummary, *, as_json: bool) -> None:
    """Close as other makers of cohorts do, with what the archive was found to be."""
    places = {"index": str(made.index), "key": str(made.key), "series": str(made.series)}
    counts = ", ".join(f"{count} {name}" for name, count in made.indexed.items())
    lines = [
        *_cohort_lines(made),
        f"Archive: {counts}",
        f"Why each series was chosen or left: {made.series}",
        f"Keep to yourself: {made.key} and {made.index}",
    ]
    summary({**_cohort_value(made), "indexed": made.indexed, **places}, lines, as_json=as_json)


def _close(made: CohortSummary, *, as_json: bool) -> None:
    summary(_cohort_value(made), _cohort_lines(made), as_json=as_json)


def _cohort_value(made: CohortSummary) -> dict[str, Any]:
    return {
        "cohort": str(made.folder),
        **made.counts,
        "findings": [dataclasses.asdict(finding) for finding in made.findings],
        "notes": list(made.notes),
    }


def _cohort_lines(made: CohortSummary) -> list[str]:
    from osteoscope.imaging.mixed import named_together

    lines = [f"Cohort written to {made.folder}"]
    for name, count in made.counts["classes"].items():
        lines.append(f"  {name}: {count['patients']} patients, {count['images']} images")
    modalities = made.counts["modalities"]
    if len(modalities) > 1:
        found = (f"{named_together([name])} of {count['patients']}" for name, count in modalities.items())
        lines.append(f"  patients by modality: {', '.join(found)}")
    lines.append(f"  auxiliary: {made.counts['auxiliary']['images']} images; left out: {made.counts['left_out']}")
    lines.extend(f"  {finding.severity}: {finding.message}" for finding in made.findings)
    lines.extend(f"  note: {note}" for note in made.notes)
    return lines
