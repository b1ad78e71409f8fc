"""Making cohorts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort


@dataclass(frozen=True, kw_only=True)
class CohortSummary:
    """What a cohort holds, and what the audit says of it."""

    folder: Path
    counts: dict[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


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


def _keep_cohort(cohort: Cohort, output: Path) -> CohortSummary:
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.table import counts, write_cohort

    findings = find_leaks(cohort)
    raise_if_blocked(findings)
    write_cohort(cohort, output)
    return CohortSummary(folder=output, counts=counts(cohort), findings=findings, notes=cohort.notes)
