"""Where an archive, its cohort, and what knows the patients lie."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.series_table import SERIES_TABLE
from osteoscope.cohort.deidentify.folder import Places
from osteoscope.cohort.table import HEADER, TABLE
from osteoscope.errors import ConfigError, InputError
from osteoscope.storage import LOCK, folder_locked, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES, MASKS = "images", "masks"
"""Folders in a cohort: de-identified copies by patient, study and series, and what outlines a lesion in them."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where everything lies.

    Parameters
    ----------
    folder
        The archive.
    labels
        The label table; ``encoding`` is that of a CSV which is not in UTF-8.
    output
        The cohort.
    key, index
        What knows the patients; never in the cohort.
    series
        Table of series with a person's decisions, or None.
    """

    folder: Path
    labels: Path
    output: Path
    key: Path
    index: Path
    series: Path | None = None
    encoding: str | None = None


def archive_at(
    folder: Path,
    labels: Path,
    output: Path,
    *,
    key: Path | None = None,
    index: Path | None = None,
    series: Path | None = None,
    encoding: str | None = None,
) -> Archive:
    """Find the places that are not named, and check that none lies where it must not.

    Parameters
    ----------
    folder, labels, output, encoding
        As in `Archive`.
    key
        Beside the cohort where left out.
    index
        A file, or a folder to make it in; beside the cohort where left out.
    series
        The cohort's own, if it has one, where left out, so that a person's decisions there are kept.

    Raises
    ------
    InputError
        If the archive is missing.
    ConfigError
        If the cohort lies in the archive or the archive in the cohort, or the key or the index in the cohort.
    StorageError
        If the cohort's folder holds something else.
    """
    places = Places.of(folder, output, key)
    output = places.output
    found = index or output.with_name(f"{output.name}.index.sqlite")
    found = found / "index.sqlite" if found.is_dir() else found
    if found.resolve().is_relative_to(output.resolve()):
        reason = "expected an index outside of the cohort, since it names the patients"
        raise ConfigError(reason, path=found, remedy="choose another place with --index")
    own = output / SERIES_TABLE
    unfinished = {path.name for path in _unfinished(output)}
    if not output.is_dir() or {path.name for path in output.iterdir()} - {LOCK}:
        others = frozenset({HEADER, TABLE, IMAGES, MASKS, LOCK, *unfinished})
        refuse_existing(output, kind="a cohort of an archive", marker=SERIES_TABLE, others=others)
    return Archive(
        folder=folder,
        labels=labels,
        output=output,
        key=places.key,
        index=found,
        series=series or (own if own.is_file() else None),
        encoding=encoding,
    )


@contextlib.contextmanager
def held(archive: Archive) -> Iterator[None]:
    """Hold the cohort's folder, and clear it of what a killed run was writing; no folder is left with nothing in it.

    Raises
    ------
    InputError
        If another process makes a cohort there.
    StorageError
        If the operating system refuses.
    """
    busy = InputError("another process makes this cohort", path=archive.output, remedy="wait for it, or name another")
    with folder_locked(archive.output, otherwise=busy):
        for path in _unfinished(archive.output):
            with contextlib.suppress(OSError):
                path.unlink()
        try:
            yield
        finally:
            if {path.name for path in archive.output.iterdir()} == {LOCK}:
                shutil.rmtree(archive.output, ignore_errors=True)


def _unfinished(output: Path) -> Iterator[Path]:
    return (path for name in (SERIES_TABLE, HEADER, TABLE) for path in output.glob(f".{name}.*.tmp"))
