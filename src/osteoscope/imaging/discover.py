"""From the paths that an operator names to the files that may be images, told by their bytes.

Folders are walked whatever their depth; a file or folder that is reached twice, by a link or under two names, counts
once, so that links in a circle end and no slice is read twice. What lies beside images (a DICOMDIR, reports, the
viewer on a patient's disc) is told apart, and is not refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from osteoscope.imaging.archive import unpacked
from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.imaging.signature import FORMATS, START, is_nifti_pair, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from osteoscope.imaging.signature import Format, Kind


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies at the places that were named, sorted by path.

    Parameters
    ----------
    files
        Those of each format that is read.
    archives
        Zips, to be looked into with `look_into`.
    companions
        What lies beside images.
    refused
        What is no image, or cannot be looked at.
    names
        What a file is called, where that is not its path.
    """

    files: Mapping[Format, tuple[Path, ...]]
    archives: tuple[Path, ...]
    companions: tuple[Path, ...]
    refused: tuple[Refusal, ...]
    names: Mapping[Path, str] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """Say what the operator knows a file as, in printable characters only."""
        return printable(self.names.get(path, path))


def printable(name: str | Path) -> str:
    """Write a file's name so that it can be printed: what is no UTF-8 or no printable character is escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def discover(paths: Sequence[Path], *, progress: Callable[[int, int], None] | None = None) -> Found:
    """Look for files that may be images.

    Parameters
    ----------
    paths
        Files, folders and zips. A file that is named itself is refused where it is no image; below a folder it may be
        a companion.
    progress
        Is told how many of how many files were looked at.

    Returns
    -------
    What was found. Nothing raises: what cannot be looked at is among the refused.
    """
    walk = _Walk()
    for path in paths:
        walk.go(path)
    kinds: dict[Path, tuple[Kind, bytes]] = {}
    refused = walk.refused
    files = sorted(walk.files, key=os.fsencode)
    for number, path in enumerate(files, start=1):
        try:
            kinds[path] = _look_at(path)
        except RefusedImageError as error:
            refused.append(Refusal.of(error, path))
        if progress is not None:
            progress(number, len(files))
    return _sorted_out(kinds, refused, named=frozenset(paths))


@contextlib.contextmanager
def look_into(zipped: Path) -> Iterator[Found]:
    """Unpack a zip for as long as the context lasts, and look for files in it that may be images.

    Raises
    ------
    RefusedImageError
        If it cannot be unpacked, or not safely; a zip in it is among the refused.
    """
    with unpacked(zipped) as content:
        found = discover([content.folder])
        names = {path: f"{zipped}!{name}" for path, name in content.names.items()}
        reason = "expected images in the zip, found a zip"
        remedy = "unpack the outer zip, and name its folder"
        nested = [
            Refusal(files=(path,), code=RefusalCode.UNSUPPORTED_ARCHIVE, sentence=reason, remedy=remedy)
            for path in found.archives
        ]
        # A folder is empty where none of its members was unpacked, which is said of these.
        refused = (*content.refused, *nested, *(one for one in found.refused if one.files[0] in names))
        if not content.names:
            reason = "the zip holds no files"
            empty = Refusal(files=(zipped,), code=RefusalCode.EMPTY, sentence=reason, remedy="copy it again")
            refused = (empty,)
        yield Found(files=found.files, archives=(), companions=found.companions, refused=refused, names=names)


class _Walk:
    """Gathers files, each once."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.refused: list[Refusal] = []
        self._seen: set[tuple[int, int]] = set()

    def go(self, start: Path) -> None:
        """Gather a file, or all files below a folder."""
        waiting = [start]
        while waiting:
            path = waiting.pop()
            try:
                waiting.extend(self._visit(path))
            except OSError as error:
                self.refused.append(Refusal.of(_unreadable(error, path), path))

    def _visit(self, path: Path) -> list[Path]:
        """Keep a file; give the entries of a folder."""
        status = path.stat()
        if (status.st_dev, status.st_ino) in self._seen:
            return []
        self._seen.add((status.st_dev, status.st_ino))
        if stat.S_ISDIR(status.st_mode):
            # The last is visited first.
            entries = sorted(path.iterdir(), key=os.fsencode, reverse=True)
            if not entries:
                reason, remedy = "the folder is empty", "check that it was copied whole"
                self.refused.append(Refusal(files=(path,), code=RefusalCode.EMPTY, sentence=reason, remedy=remedy))
            return entries
        self.files.append(path)
        return []


def _unreadable(error: OSError, path: Path) -> RefusedImageError:
    if error.errno == errno.ENOENT:
        reason = "the link leads to nothing" if path.is_symlink() else "there is no such file or folder"
        return RefusedImageError(RefusalCode.MISSING, reason, path=path, remedy="check the name and the folder")
    reason = f"could not be read: {error.strerror or error}"
    return RefusedImageError(RefusalCode.UNREADABLE, reason, path=path, remedy="make it readable, or copy it again")


def _look_at(path: Path) -> tuple[Kind, bytes]:
    """Tell what a file is; give its first bytes, too, where they may name a file beside it."""
    try:
        # A pipe or a device may wait for ever, or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            reason = "expected a file, found a pipe, a socket or a device"
            raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy="name a file or a folder")
        with path.open("rb") as stream:
            start = stream.read(START)
    except OSError as error:
        raise _unreadable(error, path) from error
    if not start:
        reason = "the file is empty (0 bytes)"
        raise RefusedImageError(RefusalCode.EMPTY, reason, path=path, remedy="copy it again")
    kind = kind_of(start)
    return kind, start if kind in ("NIfTI", "MetaImage", "NRRD") else b""


def _sorted_out(kinds: Mapping[Path, tuple[Kind, bytes]], refused: list[Refusal], *, named: frozenset[Path]) -> Found:
    files: dict[Format, list[Path]] = defaultdict(list)
    archives: list[Path] = []
    companions: list[Path] = []
    detached = _detached(kinds)
    for path, (kind, _) in kinds.items():
        if kind in FORMATS:
            files[kind].append(path)
        elif kind == "zip":
            archives.append(path)
        elif path in detached or (kind == "companion" and path not in named):
            companions.append(path)
        else:
            refused.append(Refusal.of(_no_image(kind, path), path))
    return Found(
        files={kind: tuple(paths) for kind, paths in files.items()},
        archives=tuple(archives),
        companions=tuple(companions),
        refused=tuple(sorted(refused, key=lambda one: os.fsencode(one.files[0]))),
    )


def _detached(kinds: Mapping[Path, tuple[Kind, bytes]]) -> set[Path]:
    """Find files that hold the values of a header beside them: of a NIfTI pair, a MetaImage or a NRRD."""
    pairs = {path.with_suffix("") for path, (kind, start) in kinds.items() if kind == "NIfTI" and is_nifti_pair(start)}
    headers: dict[Path, bytes] = defaultdict(bytes)
    for path, (kind, start) in kinds.items():
        if kind in ("MetaImage", "NRRD"):
            headers[path.parent] += start
    return {
        path
        for path, (kind, _) in kinds.items()
        if kind in ("unknown", "packed")
        and (path.with_suffix("") in pairs or os.fsencode(path.name) in headers.get(path.parent, b""))
    }


def _no_image(kind: Kind, path: Path) -> RefusedImageError:
    if kind == "packed":
        reason = "expected a zip, found another kind of archive"
        remedy = "unpack it, and name the folder"
        return RefusedImageError(RefusalCode.UNSUPPORTED_ARCHIVE, reason, path=path, remedy=remedy)
    reason = "its first bytes are of none of the formats that are read"
    remedy = "name DICOM, NIfTI, MetaImage, NRRD, JPEG, PNG, TIFF or BMP files, or the folder of a DICOMDIR"
    return RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy=remedy)
