"""Unpacks zips into a private temporary folder: bounded, and never outside of it.

A member's name decides nothing but the last part of a file's name, so that one that climbs (``../../x``) could do no
harm; such members are refused all the same, since whoever packed them meant harm.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.storage import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LARGEST_UNPACKED = 4 * 2**30
"""Bytes that all members of a zip may have together; a CT of 3,000 slices has less than half."""

LARGEST_RATIO = 100
"""Bytes out of each byte of a zip that unpacks to more than `UNSUSPECTED`; images give 1 to 10."""

UNSUSPECTED = 256 * 2**20
"""Bytes that may come out of a zip however small it is."""

LARGEST_DIRECTORY = 16 * 2**20
"""Bytes of a zip's list of members, which must be held in memory: of some 100,000 members."""

_LONGEST_NAME = 100
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNPACK = "unpack it with a program that you trust, and name the folder"

# What zipfile raises on a damaged archive, besides OSError.
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, LookupError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What a zip holds.

    Parameters
    ----------
    folder
        Holds the files, some folders deep.
    names
        What each file is called in the zip, refused members among them.
    refused
        Members that were not unpacked.
    """

    folder: Path
    names: Mapping[Path, str]
    refused: tuple[Refusal, ...]


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Unpacked]:
    """Unpack a zip for as long as the context lasts.

    Raises
    ------
    RefusedImageError
        If it cannot be read, or would give more bytes than `LARGEST_UNPACKED`, `LARGEST_RATIO` or the space in the
        temporary folder allow.
    StorageError
        If there is no space left for what it holds all the same.
    """
    with tempfile.TemporaryDirectory(prefix="osteoscope-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with _faults_of(archive), _BoundedReads(archive) as stream, zipfile.ZipFile(stream) as opened:
            members = _files_of(opened)
            _check_size(members, archive, shutil.disk_usage(folder).free)
            targets = _targets(members, folder)
            refused = [_unpack(opened, member, target) for target, member in targets.items()]
        names = {target: member.filename for target, member in targets.items()}
        yield Unpacked(folder=folder, names=names, refused=tuple(one for one in refused if one is not None))


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of a zip.

    Parameters
    ----------
    number
        Its place among the zip's files, from 0.
    name
        What it is called there.
    content
        Where it is unpacked for the moment, or why it is not.
    """

    number: int
    name: str
    content: Path | Refusal


def count_members(archive: Path) -> int:
    """Count the files of a zip, those among them that would be refused.

    Raises
    ------
    RefusedImageError
        If its list of members cannot be read.
    """
    with _faults_of(archive), _BoundedReads(archive) as stream, zipfile.ZipFile(stream) as opened:
        return len(_files_of(opened))


def each_member(archive: Path, numbers: Iterable[int]) -> Iterator[Member]:
    """Unpack members of a zip one at a time; each file is gone when the next one is asked for.

    Parameters
    ----------
    archive
        The zip; unlike in `unpacked`, its members may have more bytes together than would fit on the disk.
    numbers
        Places of the members wanted, as `count_members` counts them; those beyond the last are left out.

    Raises
    ------
    RefusedImageError
        If the zip's list of members cannot be read.
    StorageError
        If there is no space left for a member.
    """
    with tempfile.TemporaryDirectory(prefix="osteoscope-", ignore_cleanup_errors=True) as name:
        target = Path(name) / "member"
        with _faults_of(archive), _BoundedReads(archive) as stream, zipfile.ZipFile(stream) as opened:
            members = _files_of(opened)
            for number in numbers:
                if number < len(members):
                    member = members[number]
                    content = _unpack_alone(opened, member, target)
                    yield Member(number=number, name=member.filename, content=content)
                    target.unlink(missing_ok=True)


def _files_of(opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    # Some programs divide names, and so end those of folders, by backslashes.
    return [member for member in opened.infolist() if not member.filename.endswith(("/", "\\"))]


def _unpack_alone(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> Path | Refusal:
    """Unpack one member to a file, unless it declares more bytes than an image has, or than there is space for."""
    try:
        _check_sizes(member.file_size, member.compress_size, target, shutil.disk_usage(target.parent).free)
    except RefusedImageError as error:
        return Refusal.of(error, target)
    return _unpack(opened, member, target) or target


class _BoundedReads(io.BufferedReader):
    """A file of which no more is read at once than a list of members may take."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_DIRECTORY:
            reason = f"expected a list of members of at most {LARGEST_DIRECTORY} bytes, found {size}"
            raise RefusedImageError(RefusalCode.UNSAFE_ARCHIVE, reason, remedy=_UNPACK)
        return super().read(size)


@contextlib.contextmanager
def _faults_of(archive: Path) -> Iterator[None]:
    """Turn what goes wrong with an archive, or with one of its members, into a refusal; a full disk is none of it."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise storage_error(error, Path(tempfile.gettempdir())) from error
        reason = f"could not be unpacked: {error.strerror or error}"
        remedy = "make it readable, and leave space in the folder for temporary files"
        raise RefusedImageError(RefusalCode.UNREADABLE, reason, path=archive, remedy=remedy) from error
    except _FAULTS as error:
        # What zipfile says may hold the name of a member, and that of a patient.
        reason = f"cannot be unpacked, for it is truncated or damaged ({type(error).__name__})"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=archive, remedy="copy it again") from error


def _check_size(members: Sequence[zipfile.ZipInfo], archive: Path, free: int) -> None:
    """Refuse a zip by what it declares; zipfile never gives more than that."""
    _check_sizes(sum(member.file_size for member in members), archive.stat().st_size, archive, free)


def _check_sizes(size: int, packed: int, archive: Path, free: int) -> None:
    allowed = min(LARGEST_UNPACKED, max(LARGEST_RATIO * packed, UNSUSPECTED))
    if size > allowed:
        reason = f"expected a zip that unpacks to at most {allowed} bytes, found one of {size}"
        raise RefusedImageError(RefusalCode.UNSAFE_ARCHIVE, reason, path=archive, remedy=_UNPACK)
    if size > free:
        reason = f"unpacks to {size} bytes, and the folder for temporary files has space for {free}"
        remedy = f"let TMPDIR name a folder with more space, or {_UNPACK}"
        raise RefusedImageError(RefusalCode.TOO_LARGE, reason, path=archive, remedy=remedy)


def _targets(members: Sequence[zipfile.ZipInfo], folder: Path) -> dict[Path, zipfile.ZipInfo]:
    """Give each member a file; those of one folder stay together, since some formats need two files."""
    targets: dict[Path, zipfile.ZipInfo] = {}
    folders: dict[str, Path] = {}
    for number, member in enumerate(members):
        above, _, last = member.filename.replace("\\", "/").rpartition("/")
        last = last[-_LONGEST_NAME // 4 :] if len(os.fsencode(last)) > _LONGEST_NAME else last
        target = folders.setdefault(above, folder / f"{len(folders)}") / (
            f"_{last}" if last in ("", ".", "..") else last
        )
        targets[folder / f"again-{number}" / target.name if target in targets else target] = member
    return targets


def _unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> Refusal | None:
    """Write a member to its file; give the reason where it is not."""
    try:
        _check_member(member)
        with _faults_of(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink)
    except RefusedImageError as error:
        target.unlink(missing_ok=True)
        return Refusal.of(error, target)
    return None


def _check_member(member: zipfile.ZipInfo) -> None:
    parts = re.split(r"[/\\]", member.filename)
    if ".." in parts or parts[0] == "" or re.match("[A-Za-z]:", member.filename):
        reason = "expected a name below the zip's own folder, found one that leads out of it"
        raise RefusedImageError(RefusalCode.UNSAFE_ARCHIVE, reason, remedy="find out who packed the zip, and why")
    if member.flag_bits & _ENCRYPTED:
        raise RefusedImageError(RefusalCode.ENCRYPTED, "asks for a password", remedy="unpack it, and name the folder")
    if member.compress_type not in _METHODS:
        reason = f"expected a member that is stored or deflated, found method {member.compress_type}"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_ARCHIVE, reason, remedy="unpack it, and name the folder")
