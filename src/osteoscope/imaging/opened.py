"""Opens files that are read more than once, and notices when one is no longer what it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

_SETTLED = 50_000_000
"""Nanoseconds after a change from which on another one gives another time; file systems count in up to 10 ms."""


class Stamp(NamedTuple):
    """What the operating system says of a file: a change of its content changes it, but for two at one instant."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    settled: bool
    """Whether the last change was long enough ago when the stamp was taken."""

    def same(self, other: Stamp) -> bool:
        """Tell whether both are certainly of one content."""
        return self[:5] == other[:5] and self.settled


def stamp_of(stream: FileIO) -> Stamp:
    """Take the stamp of an open file."""
    status = os.fstat(stream.fileno())
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    settled = time.time_ns() - latest > _SETTLED
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, settled)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Open a file for reading, unbuffered; what goes wrong with it, then or in the block, becomes a refusal.

    Raises
    ------
    RefusedImageError
        If it is missing, empty, no regular file, or the operating system does not let it be read; a refusal that is
        raised in the block without a path gets this one.
    """
    try:
        # A pipe would block whoever opens it.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            found = "expected a file, found a folder or a device"
            raise RefusedImageError(RefusalCode.UNREADABLE, found, remedy="name a file")
        if not status.st_size:
            found = "expected an image, found an empty file (0 bytes)"
            raise RefusedImageError(RefusalCode.EMPTY, found, remedy="copy it again")
        with path.open("rb", buffering=0) as stream:
            yield stream
    except RefusedImageError as refusal:
        refusal.path = refusal.path or path
        raise
    except FileNotFoundError as error:
        missing = "expected a file, found none"
        raise RefusedImageError(RefusalCode.MISSING, missing, path=path, remedy="check the name") from error
    except (OSError, ValueError) as error:
        # A ValueError comes of a name with a null byte.
        reason = f"could not be read: {getattr(error, 'strerror', None) or error}"
        remedy = "make the file readable, or copy it again"
        raise RefusedImageError(RefusalCode.UNREADABLE, reason, path=path, remedy=remedy) from error


class KnownFile:
    """A file whose content is known.

    Parameters
    ----------
    path
        Where it is.
    stamp
        As it was when its content was looked at.
    sha256
        Of that content, as 64 hexadecimal digits; without it, a file whose stamp differs is taken for changed.
    """

    def __init__(self, path: Path, stamp: Stamp, sha256: str | None = None) -> None:
        self.path = path
        self.sha256 = sha256
        self._stamp = stamp

    @contextlib.contextmanager
    def opened(self) -> Iterator[FileIO]:
        """Open the file, and see at the end of the block too that it is what it was.

        Raises
        ------
        RefusedImageError
            As `opened` does, and if the file has changed.
        """
        with opened(self.path) as stream:
            self._verify(stream)
            yield stream
            if stamp_of(stream)[:5] != self._stamp[:5]:
                self._verify(stream)

    def _verify(self, stream: FileIO) -> None:
        now = stamp_of(stream)
        if self._stamp.same(now):
            return
        same = sha256_of_stream(stream) == self.sha256 if self.sha256 is not None else self._stamp[:5] == now[:5]
        if not same or stamp_of(stream)[:5] != now[:5]:
            found = "the file has changed since it was opened"
            raise RefusedImageError(RefusalCode.CHANGED, found, path=self.path, remedy="run the command again")
        self._stamp = now


def sha256_of_stream(stream: FileIO) -> str:
    """Hash an open file's bytes from its start with SHA-256, as 64 hexadecimal digits."""
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()
