"""Walks a folder of any depth, a folder at a time, so that a million files need no more memory than a thousand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.imaging.opened import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file, or what could not be looked at.

    Parameters
    ----------
    path
        Relative to the folder that is walked.
    stamp
        What the operating system says of it, or None where it says nothing.
    fault
        Why it could not be looked at, as the operating system says it; empty where it could.
    """

    path: str
    stamp: Stamp | None
    fault: str = ""


def walk(root: Path) -> Iterator[Seen]:
    """Give every file below a folder.

    Links are followed; a folder that is reached twice counts once, so that links in a circle end.

    Parameters
    ----------
    root
        A folder.
    """
    known: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in known:
                continue
            known.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if _is_folder(entry):
                        waiting.append(path)
                    else:
                        yield _seen(path, entry)
        except OSError as error:
            yield Seen(path=folder or ".", stamp=None, fault=_reason(error))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _seen(path: str, entry: os.DirEntry[str]) -> Seen:
    try:
        status = entry.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        # Whether it has settled matters for the stamp that it is compared with, which was taken as it was read.
        stamp = Stamp(status.st_dev, status.st_ino, status.st_size, *times, settled=False)
        return Seen(path=path, stamp=stamp)
    except OSError as error:
        return Seen(path=path, stamp=None, fault=_reason(error))


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
