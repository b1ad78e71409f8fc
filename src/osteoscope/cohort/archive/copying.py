"""De-identified copies of chosen series: each in a folder of its own, whole or not at all.

A folder that is there is whole, and made of the very files that its list names; so a run that was killed, or that found
no space, goes on where it stopped, and a series whose files have changed is copied again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from osteoscope.cohort.deidentify import Key, deidentify_file
from osteoscope.cohort.deidentify.profile import EDITION, PROFILE_VERSION
from osteoscope.imaging.archive import each_member
from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.storage import folder_written_whole, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from osteoscope.cohort.archive.stacks import ArchivedFile

SOURCES = ".source.json"
"""In a folder of copies: a digest of the files that they were made of."""


@dataclass(frozen=True, kw_only=True)
class ToCopy:
    """A stack to be copied.

    Parameters
    ----------
    number
        Of the stack.
    root
        The archive.
    files
        Of the stack.
    target
        Folder for the copies.
    key
        Gives pseudonyms.
    patient
        Identifier that stands for the person, who may have others in some of the files.
    """

    number: int
    root: Path
    files: tuple[ArchivedFile, ...]
    target: Path
    key: Key
    patient: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of a stack: why there is no copy of it, or nothing."""

    number: int
    left_out: str = ""


def copy_stack(task: ToCopy) -> Copied:
    """Copy a stack's files without what identifies their patient, unless that was done before.

    A stack of which one file may show text in its pixels, or cannot be de-identified, is left out whole.

    Raises
    ------
    StorageError
        If something cannot be written; what was there stays.
    """
    digest = _digest(task)
    if _is_done(task.target, digest):
        return Copied(number=task.number)
    try:
        with folder_written_whole(task.target) as beside:
            for index, source in enumerate(sources_of(task), start=1):
                target = beside / f"{index:05d}.dcm"
                report = deidentify_file(source, target, task.key, identifier=task.patient)
                if report.quarantined is not None:
                    raise _LeftOutError(report.quarantined)
            write_json(beside / SOURCES, {"sources": digest})
    except _LeftOutError as reason:
        return Copied(number=task.number, left_out=f"a file of it is held back: {reason}")
    except RefusedImageError as fault:
        return Copied(number=task.number, left_out=f"it cannot be de-identified: {fault.message}")
    return Copied(number=task.number)


class _LeftOutError(Exception):
    """Why a stack is left out."""


def _digest(task: ToCopy) -> str:
    # Derived by the key, so that nobody without it can tell whether they have the same files.
    version = f"profile {EDITION}.{PROFILE_VERSION}"
    return task.key.uid("\n".join([version, task.patient, *(file.content for file in task.files)]))


def _is_done(target: Path, digest: str) -> bool:
    try:
        return bool(json.loads((target / SOURCES).read_text(encoding="utf-8")) == {"sources": digest})
    except (OSError, ValueError):
        return False


def sources_of(task: ToCopy) -> Iterator[Path]:
    """Give a stack's files in turn; members of zips are there until the next one is asked for.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        If a zip cannot be read, or has changed since it was indexed.
    """
    for (path, zipped), files in groupby(task.files, key=lambda file: (file.path, file.member >= 0)):
        if not zipped:
            yield task.root / path
            continue
        numbers = [file.member for file in files]
        found = 0
        for member in each_member(task.root / path, numbers):
            if isinstance(member.content, Refusal):
                raise RefusedImageError(member.content.code, member.content.sentence, path=path)
            found += 1
            yield member.content
        if found != len(numbers):
            reason = "members of its zip are gone since it was indexed"
            raise RefusedImageError(RefusalCode.CHANGED, reason, path=task.root / path, remedy="run the command again")
