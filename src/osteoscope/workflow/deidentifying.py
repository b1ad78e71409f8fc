"""Taking what identifies patients out of a folder of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DeidentificationSummary:
    """What became of a folder's files.

    Parameters
    ----------
    folder
        Holds the files under pseudonyms, and the report.
    key
        What the pseudonyms are derived from; whoever has it can tell whether a patient whom they know is among them.
    left_out
        List, beside the key, of the files that were not copied, each with the reason.
    report
        As it lies in the folder: what was removed, by tag, and never a value.
    """

    folder: Path
    key: Path
    left_out: Path
    report: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the report with the places of everything."""
        places = {"output": str(self.folder), "key": str(self.key), "left_out": str(self.left_out)}
        return {**places, "report": self.report}


def deidentify(
    source: Path,
    output: Path,
    *,
    key: Path | None = None,
    released: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DeidentificationSummary:
    """Copy every DICOM file of a folder without what identifies its patient (PS3.15 Annex E, Basic Profile).

    Parameters
    ----------
    source
        Folder of any nesting; zips in it are looked into.
    output
        Where the copies go; a folder that an earlier run made is gone on with.
    key
        Of the pseudonyms; where left out, beside the output. It is made where there is none.
    released
        List of quarantined files that a person has looked at, a name a line.
    progress
        Is told how many of how many files are done.

    Raises
    ------
    InputError, ConfigError, StorageError
        If a folder, the key or the list cannot be used, or something cannot be written.
    """
    require("dicomanonymizer", "scipy")
    from osteoscope.cohort.deidentify.folder import Places, deidentify_folder

    places = Places.of(source, output, key)
    report = deidentify_folder(source, output, key=key, released=released, progress=progress)
    return DeidentificationSummary(folder=output, key=places.key, left_out=places.left_out, report=report)
