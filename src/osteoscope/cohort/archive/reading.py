"""Reads files of an archive in worker processes: whether they are as they were, and, if not, what their headers say.

Reading a header keeps the interpreter busy, so threads would not help. Every worker reads a batch at a time, and what
it gives back is small: no more than a few batches are ever held.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, TypeVar

from osteoscope.cohort.archive.alike import Headers
from osteoscope.cohort.archive.facts import ALSO
from osteoscope.errors import StorageError
from osteoscope.imaging.archive import count_members, each_member
from osteoscope.imaging.headers import scan
from osteoscope.imaging.opened import Stamp, opened, stamp_of
from osteoscope.imaging.refusal import Refusal, RefusalCode, RefusedImageError
from osteoscope.imaging.signature import START, kind_of
from osteoscope.processes import begin_process, spawning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import FileIO
    from pathlib import Path

    from osteoscope.cohort.archive.facts import Known

FileKind = Literal["dicom", "zip", "other", "refused", "same"]
"""A DICOM object, a zip, a file of another kind, one that cannot be read, or one whose content is as it was."""

IN_A_FOLDER = -1
"""Number of the member, for a file that is in no zip."""

QUICK = 32768
"""Bytes at the start and at the end of a file that its quick hash is made over, beside its size."""

_WORTH_A_POOL = 6
"""Batches below which starting processes takes longer than reading them would."""

_AHEAD = 2
"""Batches for each worker that are under way at once."""

Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True, kw_only=True)
class ToRead:
    """A file, or some members of a zip, that the index does not know as they are.

    Parameters
    ----------
    path
        Relative to the archive's root.
    content
        Quick hash of the file that the index has under that path, or empty.
    new
        Whether it has none.
    members
        Numbers of the members to read of a zip; none for the file itself.
    """

    path: str
    content: str = ""
    new: bool = True
    members: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was found in a file, or in a member of a zip.

    Parameters
    ----------
    path, member
        Of the file; `IN_A_FOLDER` where it is in no zip.
    stamp
        As it was read; None where it could not be, or changed meanwhile, so that it is read again the next time.
    content
        Quick hash; empty where nothing could be read.
    kind
        What it is.
    code, sentence
        Why it cannot be used as an image, as `osteoscope.imaging.refusal.Refusal` has them; empty where it can.
    known
        What its header says, of a DICOM object.
    members
        How many files it has, of a zip.
    new
        Whether the index had nothing under that path.
    """

    path: str
    member: int = IN_A_FOLDER
    stamp: Stamp | None = None
    content: str = ""
    kind: FileKind = "refused"
    code: str = ""
    sentence: str = ""
    known: Known | None = None
    members: int = 0
    new: bool = True


def in_processes(
    work: Callable[[Task], Done], tasks: Iterable[Task], *, jobs: int, worth: int = _WORTH_A_POOL
) -> Iterator[Done]:
    """Do tasks in worker processes, and give what they give in their order; a few tasks are done here.

    Parameters
    ----------
    work
        A function of a module, for a process to find.
    tasks
        Taken as they are needed, so that they may be many.
    jobs
        Processes; 1 does all here.
    worth
        Tasks from which on starting processes pays.

    Raises
    ------
    StorageError
        If the operating system ends a worker.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, worth))
    if jobs == 1 or len(first) < worth:
        yield from map(work, chain(first, waiting))
        return
    with ProcessPoolExecutor(jobs, mp_context=spawning(), initializer=begin_process) as pool:
        try:
            pending: deque[Future[Done]] = deque()
            for task in chain(first, waiting):
                pending.append(pool.submit(work, task))
                if len(pending) > jobs * _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            reason = "a worker process was ended by the operating system, as it does where memory is short"
            raise StorageError(reason, remedy="run the same command again, with --jobs 1") from error
        finally:
            pool.shutdown(cancel_futures=True)


def read_batch(batch: tuple[Path, tuple[ToRead, ...]]) -> list[Read]:
    """Read a batch of files, or of a zip's members.

    Parameters
    ----------
    batch
        The archive's root, and what to read below it.

    Returns
    -------
    What was found, in order. Nothing raises for what is wrong with a file.
    """
    root, files = batch
    headers = Headers()
    found: list[Read] = []
    for file in files:
        if file.members:
            found.extend(_read_members(root, file, headers))
        else:
            read = _read_file(root, file, headers)
            found.append(read if file.new else replace(read, new=False))
    return found


def _read_file(root: Path, file: ToRead, headers: Headers) -> Read:
    path = root / file.path
    stamp: Stamp | None = None
    try:
        with opened(path) as stream:
            stamp = stamp_of(stream)
            content = _quick_hash(stream, stamp.size)
            if content == file.content:
                return Read(path=file.path, stamp=stamp, content=content, kind="same")
            kind, known, refusal = _look_into(stream, path, stamp, headers)
            if stamp_of(stream)[:-1] != stamp[:-1]:
                found = "the file has changed while it was read"
                raise RefusedImageError(RefusalCode.CHANGED, found, remedy="run the command again")
        members = count_members(path) if kind == "zip" else 0
    except Exception as error:
        return _refused(file.path, IN_A_FOLDER, Refusal.of(error, path), stamp)
    return _read(file.path, IN_A_FOLDER, stamp, content, kind, known, refusal, members)


def _read_members(root: Path, file: ToRead, headers: Headers) -> Iterator[Read]:
    """Read members of a zip, each from a temporary file that is gone afterwards."""
    path = root / file.path
    done: set[int] = set()
    try:
        for member in each_member(path, file.members):
            done.add(member.number)
            if isinstance(member.content, Refusal):
                yield _refused(file.path, member.number, member.content)
                continue
            yield _read_member(file.path, member.number, member.content, headers)
    except RefusedImageError as error:
        refusal = Refusal.of(error, path)
        yield from (_refused(file.path, number, refusal) for number in file.members if number not in done)


def _read_member(zipped: str, number: int, path: Path, headers: Headers) -> Read:
    try:
        with opened(path) as stream:
            stamp = stamp_of(stream)
            content = _quick_hash(stream, stamp.size)
            kind, known, refusal = _look_into(stream, path, stamp, headers)
        if kind == "zip":
            found = "expected images in the zip, found a zip"
            remedy = "unpack the outer zip, and run the command again"
            raise RefusedImageError(RefusalCode.UNSUPPORTED_ARCHIVE, found, remedy=remedy)
    except Exception as error:
        return _refused(zipped, number, Refusal.of(error, path))
    return _read(zipped, number, stamp, content, kind, known, refusal, 0)


def _look_into(
    stream: FileIO, path: Path, stamp: Stamp, headers: Headers
) -> tuple[FileKind, Known | None, Refusal | None]:
    """Say what a file is, and, of a DICOM object, what its header says and why it is no image that can be read."""
    stream.seek(0)
    start = stream.read(START)
    kind = kind_of(start)
    if kind in ("zip", "packed"):
        if kind == "packed":
            found, remedy = "expected a zip, found another kind of archive", "unpack it, and run the command again"
            raise RefusedImageError(RefusalCode.UNSUPPORTED_ARCHIVE, found, remedy=remedy)
        return "zip", None, None
    if kind != "DICOM":
        return "other", None, None
    known, refusal = headers.look(scan(stream, also=ALSO), path, stamp)
    return "dicom", known, refusal


def _read(
    path: str,
    member: int,
    stamp: Stamp,
    content: str,
    kind: FileKind,
    known: Known | None,
    refusal: Refusal | None,
    members: int,
) -> Read:
    return Read(
        path=path,
        member=member,
        stamp=stamp,
        content=content,
        kind=kind,
        known=known,
        members=members,
        code=str(refusal.code) if refusal is not None else "",
        sentence=refusal.sentence if refusal is not None else "",
    )


def _refused(path: str, member: int, refusal: Refusal, stamp: Stamp | None = None) -> Read:
    """Keep why a file cannot be read; its stamp, by which it is not read again, only where that will not pass."""
    lasting = stamp if refusal.code in _LASTING else None
    return Read(path=path, member=member, stamp=lasting, code=str(refusal.code), sentence=refusal.sentence)


PASSING = (
    RefusalCode.CHANGED,
    RefusalCode.MISSING,
    RefusalCode.MISSING_LIBRARY,
    RefusalCode.TOO_LARGE,
    RefusalCode.UNKNOWN,
    RefusalCode.UNREADABLE,
)
"""Why a member of a zip that is as it was may be read later; that it is too large may be for want of space."""

_LASTING = (RefusalCode.DAMAGED, RefusalCode.NOT_AN_IMAGE, RefusalCode.UNSUPPORTED_ARCHIVE)


def _quick_hash(stream: FileIO, size: int) -> str:
    """Hash a file's size, first and last bytes: enough to tell a moved file from another, which hold other pixels."""
    digest = hashlib.sha256(f"{size}\n".encode())
    stream.seek(0)
    digest.update(stream.read(QUICK))
    if size > QUICK:
        stream.seek(max(QUICK, size - QUICK))
        digest.update(stream.read(QUICK))
    return digest.hexdigest()[:32]
