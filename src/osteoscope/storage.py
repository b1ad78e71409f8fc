"""Writing outputs whole or not at all: beside the target first, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from osteoscope.errors import InputError, OsteoscopeError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".lock"
"""The file in a folder by which a process holds it."""

REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder, and run the same command again",
    errno.EDQUOT: "free some of the quota, or choose another folder, and run the same command again",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that is not read-only",
}
"""Of what the operating system may refuse where something is written."""


def cache_folder() -> Path:
    """Find the user's cache: ``OSTEOSCOPE_CACHE`` if it is set, else ``osteoscope`` in the XDG cache folder.

    Without a home, as of a user whom the machine does not know, there is none: its path is one that cannot be made.
    """
    own = os.environ.get("OSTEOSCOPE_CACHE")
    if own:
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "osteoscope"
    except RuntimeError:
        return Path(os.devnull) / "osteoscope"


def storage_error(error: OSError, path: Path) -> StorageError:
    """Say what the operating system refused, in the operator's words.

    Parameters
    ----------
    error
        What the operating system raised.
    path
        The output that was being written.
    """
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    remedy = REMEDIES.get(error.errno or 0, "choose another folder, and run the same command again")
    return StorageError(f"could not be written: {reason}", path=path, remedy=remedy)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises
    ------
    StorageError
        If the operating system refuses; what was there stays as it was.
    """
    with file_written_whole(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with `write_bytes`; NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def file_written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Give a file beside `path` that takes its place when the block ends well, and is gone otherwise.

    Raises
    ------
    StorageError
        If the operating system refuses; what was there stays as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BrokenPipeError:
        # Of somebody who no longer reads what is told of the work, not of the file.
        raise
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` that becomes `target` when the block ends well.

    An existing `target` is replaced at the end only, so a failure loses nothing that was there. Where it is a link,
    what it leads to is meant. Until the end nobody else may read what is written; then who may is as of any new folder.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    beside: Path | None = None
    try:
        place = _behind_links(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = _folder_beside(place, ".tmp")
        yield beside
        beside.chmod(_rights_of_a_new_folder_in(beside))
        _replace_folder(beside, place)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise storage_error(error, _meant_by(error, target)) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _behind_links(target: Path) -> Path:
    return target.resolve() if target.is_symlink() else target


def _folder_beside(target: Path, suffix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=suffix, dir=target.parent))


def _rights_of_a_new_folder_in(folder: Path) -> int:
    """Find which rights the umask and the folder leave to a new one: to ask for the umask is to change it."""
    tried = folder / ".tried"
    tried.mkdir()
    rights = stat.S_IMODE(tried.stat().st_mode)
    tried.rmdir()
    return rights


def _meant_by(error: OSError, target: Path) -> Path:
    """Give the file that an error is about, or the target where it is about what only lies beside it for a while."""
    if not isinstance(error.filename, str):
        return target
    found = Path(error.filename)
    return target if any(part.startswith(f".{target.name}.") for part in found.parts) else found


@contextlib.contextmanager
def folder_locked(folder: Path, *, otherwise: OsteoscopeError) -> Iterator[None]:
    """Hold a folder, making it if need be, so that no second process writes in it; its file `LOCK` stays.

    Parameters
    ----------
    folder
        To hold.
    otherwise
        What is raised where another process holds it.

    Raises
    ------
    OsteoscopeError
        `otherwise`.
    StorageError
        If the operating system refuses.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise otherwise from error
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        yield
    finally:
        lock.release()


def _replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`, moving an existing `target` aside until the rename has worked."""
    if not target.exists():
        source.replace(target)
        return
    aside = _folder_beside(target, ".old")
    try:
        target.replace(aside / target.name)
        source.replace(target)
    except BaseException:
        # An interruption, too, whether it came before the rename or behind it.
        if not target.exists():
            (aside / target.name).replace(target)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_half_written(folder: Path) -> None:
    """Remove what a process that was killed had begun to write, of any depth, beside its target; nobody may write."""
    for path in [*folder.glob("**/.*.tmp"), *folder.glob(".*.old")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def refuse_within(target: Path, bundle: Path) -> None:
    """Refuse to write into a bundle, which is read only as long as nothing else lies in it.

    Raises
    ------
    StorageError
        If `target` is the bundle's folder, or lies in it.
    """
    if target.resolve().is_relative_to(bundle.resolve()):
        raise StorageError("lies in the bundle that is read", path=target, remedy="choose another folder with -o")


def refuse_existing(target: Path, *, kind: str, marker: str, others: frozenset[str]) -> None:
    """Refuse to write over anything but an earlier output of the same kind with nothing else in it.

    What `folder_written_whole` needs in the end is tried, too: a folder beside the target.

    Parameters
    ----------
    target
        Where the output shall go.
    kind
        What the output is, with its article, for the message ("a cohort", "an evaluation").
    marker
        A file that every output of this kind holds, and no other kind.
    others
        Names of what else lies in the folder of such an output.

    Raises
    ------
    StorageError
        If `target` is a file, or a folder that is not such an output, or holds something beside it, or that may not be
        looked at, or where nothing may be written.
    """
    remedy = "choose another folder with -o"
    try:
        is_folder = target.is_dir()
        if is_folder and target.resolve() == Path.cwd():
            raise StorageError("is the folder that this runs in, and cannot be replaced", path=target, remedy=remedy)
        present = {path.name for path in target.iterdir()} if is_folder else set()
        if not present and (is_folder or not target.exists()):
            _try_to_write_beside(target)
            return
    except OSError as error:
        raise storage_error(error, target) from error
    if marker not in present:
        raise StorageError(f"is already there and is not {kind}", path=target, remedy=remedy)
    for strange in sorted(present - {marker} - others):
        raise StorageError(f"holds {strange}, which is no part of {kind} and would be lost", path=target, remedy=remedy)
    _try_to_write_beside(target)


def _try_to_write_beside(target: Path) -> None:
    """See, before long work, that a folder may be made beside the target, or where the folder that shall hold it is."""
    try:
        place = _behind_links(target).absolute()
        while not place.parent.exists():
            place = place.parent
        tried = _folder_beside(place, ".tmp")
    except OSError as error:
        raise storage_error(error, target) from error
    # Another process may have cleared it away.
    with contextlib.suppress(OSError):
        tried.rmdir()


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes with SHA-256, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_input(path: Path) -> str:
    """Hash a file that an operator has named, as `sha256_of_file`.

    Raises
    ------
    InputError
        If it is missing or cannot be read.
    """
    try:
        return sha256_of_file(path)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InputError(f"cannot be read: {reason}", path=path, remedy="name a file that can be read") from error


def sha256_of_text(text: str) -> str:
    """Hash a text's UTF-8 bytes with SHA-256, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


SHORT_HASH = 12
"""Hexadecimal digits of a hash that tell one name from another."""


def short_hash(text: str) -> str:
    """Give the first digits of a text's SHA-256, by which a UID is told without being known."""
    return sha256_of_text(text)[:SHORT_HASH]
