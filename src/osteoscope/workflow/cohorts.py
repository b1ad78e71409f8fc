"""Making cohorts, and auditing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.cohort.audit import Audit, Finding, Settled
    from osteoscope.cohort.table import Cohort
    from osteoscope.config import RegionOfInterest


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


def cohort_from_btxrd(
    archive: Path, output: Path, *, classes: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> CohortSummary:
    """Make a cohort from the public radiograph archive, in its own layout.

    Parameters
    ----------
    archive
        Folder with ``images/``, ``Annotations/`` and ``dataset.csv`` or ``dataset.xlsx``.
    output
        Where the cohort goes.
    classes
        Names of its columns, or ``normal``; everything else stays as auxiliary.
    progress
        Is told how many of how many images are read.

    Raises
    ------
    InputError, CohortError, StorageError
        If the archive cannot be read as one, the classes do not exist, or the cohort cannot be written.
    """
    require("pandas", "pyarrow")
    from osteoscope.cohort.btxrd import read_btxrd

    return _keep_cohort(read_btxrd(archive, classes, progress=progress), output)


def cohort_from_table(
    table: Path,
    output: Path,
    *,
    images: Path,
    classes: Sequence[str] = (),
    source: str | None = None,
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
    progress
        Is told how many of how many images are read.

    Raises
    ------
    InputError, CohortError, StorageError
        If the table or an image cannot be used, or the cohort cannot be written.
    """
    require("pandas", "pyarrow")
    from osteoscope.cohort.from_table import read_table

    return _keep_cohort(read_table(table, images, classes or None, source, progress=progress), output)


def audit_cohort(
    folder: Path,
    *,
    against: Path | None = None,
    roi: RegionOfInterest = "none",
    folds: int | None = 5,
    accepted: Sequence[tuple[str, str]] = (),
    images: Path | None = None,
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
    images
        Where the cohort's images lie, if they have moved.
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
    other = None if against is None else read_cohort(against)
    found = audit(cohort, roi=roi, folds=folds, against=other, progress=progress)
    return AuditSummary(folder=folder, audit=found, settled=settle(found.findings, decided))


def _keep_cohort(cohort: Cohort, output: Path) -> CohortSummary:
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.table import counts, write_cohort

    findings = find_leaks(cohort)
    raise_if_blocked(findings)
    write_cohort(cohort, output)
    return CohortSummary(folder=output, counts=counts(cohort), findings=findings, notes=cohort.notes)
