"""Making cohorts, and auditing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.cohort.archive.choice import When, Wishes
    from osteoscope.cohort.audit import Audit, Finding, Settled
    from osteoscope.cohort.table import Cohort
    from osteoscope.config import RegionOfInterest
    from osteoscope.imaging.volume import Modality


@dataclass(frozen=True, kw_only=True)
class CohortSummary:
    """What a cohort holds, and what the audit says of it."""

    folder: Path
    counts: dict[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AuditSummary:
    """What the audit of a cohort found, and what of it was accepted."""

    folder: Path
    audit: Audit
    settled: Settled

    def to_json(self) -> dict[str, Any]:
        """Give the audit with ``"cohort"``, ``"blocked"``, ``"accepted"`` and ``"accepted_but_not_found"``."""
        blocked = any(finding.severity == "block" for finding in self.settled.open)
        return {"cohort": str(self.folder), "blocked": blocked, **self.audit.to_json(), **self.settled.to_json()}


@dataclass(frozen=True, kw_only=True)
class ArchiveSummary(CohortSummary):
    """What a cohort from an archive holds, what the archive was found to be, and where what knows the patients lies."""

    indexed: dict[str, int]
    index: Path
    key: Path
    series: Path


def cohort_from_btxrd(
    archive: Path, output: Path, *, classes: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> CohortSummary:
    """Make a cohort from the public radiograph archive, in its own layout.

    Parameters
    ----------
    archive
        Folder with ``images/``, ``Annotations/`` and ``dataset.csv`` or ``dataset.xlsx``.
    classes
        Names of its columns, or ``normal``; everything else stays as auxiliary.
    output, progress
        As for `cohort_from_table`, which also says what is raised.
    """
    require("pandas", "pyarrow")
    from osteoscope.cohort.btxrd import read_btxrd
    from osteoscope.cohort.table import refuse_output

    refuse_output(output)
    return _keep_cohort(read_btxrd(archive, classes, progress=progress), output)


def cohort_from_table(
    table: Path,
    output: Path,
    *,
    images: Path,
    classes: Sequence[str] = (),
    source: str | None = None,
    encoding: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Make a cohort from a table of patient, image, label and optional columns.

    Parameters
    ----------
    table
        CSV, XLSX or Parquet.
    output
        Where the cohort goes.
    images
        Folder that the table's paths start from.
    classes
        Labels that form the classes; none takes all that the table has.
    source
        Name of where the patients come from: the same patient of the same source gets the same pseudonym.
    encoding
        Of a table as CSV that is not in UTF-8.
    progress
        Is told how many of how many images are read.

    Raises
    ------
    InputError, CohortError, StorageError
        If what the cohort is made from or its classes cannot be used, or the cohort cannot be written.
    """
    require("pandas", "pyarrow")
    from osteoscope.cohort.from_table import read_table
    from osteoscope.cohort.table import refuse_output

    refuse_output(output)
    made = read_table(table, images, classes or None, source, progress=progress, encoding=encoding)
    return _keep_cohort(made, output)


def cohort_from_nifti(
    folder: Path,
    output: Path,
    *,
    labels: Path | None = None,
    classes: Sequence[str] = (),
    source: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Make a cohort from a folder of NIfTI files and a table of diagnoses.

    Parameters
    ----------
    folder
        In the layout of BIDS, or a file or a folder a patient.
    labels
        Table of patient, label and optional columns; ``participants.tsv`` of the folder where left out.
    output, classes, source, progress
        As for `cohort_from_table`, which also says what is raised.
    """
    require("pandas", "pyarrow")
    from osteoscope.cohort.from_nifti import read_nifti_folder
    from osteoscope.cohort.table import refuse_output

    refuse_output(output)
    return _keep_cohort(read_nifti_folder(folder, labels, classes or None, source, progress=progress), output)


def cohort_from_dicom(
    folder: Path,
    output: Path,
    *,
    labels: Path,
    classes: Sequence[str] = (),
    wishes: Wishes | None = None,
    roi_names: Sequence[str] = (),
    key: Path | None = None,
    index: Path | None = None,
    series: Path | None = None,
    encoding: str | None = None,
    jobs: int | None = None,
    stages: Callable[[str, int, int], None] | None = None,
) -> ArchiveSummary:
    """Make a cohort from a PACS export and a table of diagnoses; killed at any moment, the same call goes on.

    Parameters
    ----------
    folder
        DICOM files in folders of any depth, and zips.
    output
        Where the cohort goes, with de-identified copies of the series that are chosen.
    labels
        CSV, XLSX or Parquet with the column label and one or more of patient, study and accession.
    classes, encoding
        As for `cohort_from_table`.
    wishes
        What series are asked for; left out, one CT, one MR and all radiographs of the last study before the biopsy.
    roi_names
        Of the regions that are the lesion's, in segmentations and structure sets; none takes the one whose name speaks
        of a lesion.
    key, index
        What knows the patients; beside the cohort where left out.
    series
        Table of series with a person's decisions; the cohort's own, if it has one, where left out.
    jobs
        Worker processes; as many as there are processors where left out.
    stages
        Is told what is done, and how many of how many are.

    Raises
    ------
    InputError, CohortError, ConfigError, StorageError
        If the archive, a table, the key or the index cannot be used, or something cannot be written.
    """
    require("dicomanonymizer", "pandas", "pyarrow", "scipy")
    from osteoscope.cohort.archive.choice import Wishes
    from osteoscope.cohort.archive.places import archive_at, held
    from osteoscope.cohort.archive.series_table import SERIES_TABLE
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.from_dicom import read_archive
    from osteoscope.cohort.table import counts, write_beside_images

    archive = archive_at(folder, labels, output, key=key, index=index, series=series, encoding=encoding)
    wished = wishes or Wishes()
    with held(archive):
        gathered = read_archive(archive, classes=classes, wishes=wished, roi_names=roi_names, jobs=jobs, stages=stages)
        findings = find_leaks(gathered.cohort)
        raise_if_blocked(findings)
        write_beside_images(gathered.cohort, output)
    return ArchiveSummary(
        folder=output,
        counts=counts(gathered.cohort),
        findings=findings,
        notes=gathered.cohort.notes,
        indexed=gathered.indexed.to_json(),
        index=archive.index,
        key=archive.key,
        series=output / SERIES_TABLE,
    )


def wishes(
    *,
    modalities: Sequence[Modality] = (),
    plane: str | None = None,
    kernel: str | None = None,
    weighting: str | None = None,
    contrast: bool | None = None,
    thickest: float | None = None,
    body_part: str | None = None,
    when: When = "before",
) -> Wishes:
    """Say what series of an archive are asked for, as `osteoscope.cohort.archive.choice.Wishes` has them.

    Raises
    ------
    ConfigError
        If no words are known for the region of the body.
    """
    from osteoscope.cohort.archive.choice import Wishes
    from osteoscope.cohort.archive.words import REGIONS
    from osteoscope.errors import ConfigError

    if body_part and body_part not in REGIONS:
        reason = f"expected one of {', '.join(REGIONS)}, found {body_part!r}"
        raise ConfigError(reason, remedy="name one of them with --body-part")
    return Wishes(
        modalities=tuple(modalities) or Wishes.modalities,
        plane=plane or "",
        kernel=kernel or "",
        weighting=weighting or "",
        contrast=contrast,
        thickest=thickest,
        body_part=body_part or "",
        when=when,
    )


def audit_cohort(
    folder: Path,
    *,
    against: Path | None = None,
    roi: RegionOfInterest = "none",
    folds: int | None = 5,
    accepted: Sequence[tuple[str, str]] = (),
    images: Path | None = None,
    against_images: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AuditSummary:
    """Look for all that would make a result on a cohort a lie; what is found does not raise.

    Parameters
    ----------
    folder
        Of a cohort.
    against
        Of another cohort, such as the one that a network was trained on: no patient or picture may be in both.
    roi
        What will be read of each image.
    folds
        Of the cross-validation of a network; None where one that is finished is evaluated.
    accepted
        Kinds of findings to go on in spite of, each with the reason.
    images, against_images
        Where the cohort's images, and those of the other, lie, if they have moved.
    progress
        Is told how many of how many pictures are seen.

    Raises
    ------
    CohortError, ImageError
        If a cohort or a picture cannot be read.
    ConfigError
        If a kind cannot be accepted or is accepted twice, or no reason is given.
    """
    require("pandas", "pyarrow", "sklearn", "scipy")
    from osteoscope.cohort.audit import Accepted, audit, settle
    from osteoscope.cohort.table import read_cohort

    decided = [Accepted(kind=kind, because=because) for kind, because in accepted]
    cohort = read_cohort(folder, images=images)
    other = None if against is None else read_cohort(against, images=against_images, named="--against-images")
    found = audit(cohort, roi=roi, folds=folds, against=other, progress=progress)
    return AuditSummary(folder=folder, audit=found, settled=settle(found.findings, decided))


def _keep_cohort(cohort: Cohort, output: Path) -> CohortSummary:
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.table import counts, write_cohort

    findings = find_leaks(cohort)
    raise_if_blocked(findings)
    write_cohort(cohort, output)
    return CohortSummary(folder=output, counts=counts(cohort), findings=findings, notes=cohort.notes)
