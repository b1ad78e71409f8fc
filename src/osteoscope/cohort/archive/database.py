"""The index of an archive: one SQLite file, which knows who the patients are, and so is its owner's alone to read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

from osteoscope.errors import InputError, StorageError
from osteoscope.storage import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX_SCHEMA = 4
"""Version of the tables, and of what is read of a file: an older index forgets its files, and reads them again."""

_TABLES = """
-- A counter of the runs that looked at the archive.
CREATE TABLE runs (number INTEGER PRIMARY KEY);

-- Files of one series that may be one image, and what they share.
CREATE TABLE stacks (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    identifier TEXT NOT NULL,
    guessed INTEGER NOT NULL,
    name TEXT NOT NULL,
    born TEXT NOT NULL,
    sex TEXT NOT NULL,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    accession TEXT NOT NULL,
    facts TEXT NOT NULL
);
CREATE INDEX stacks_by_identifier ON stacks (identifier);

-- Every file of the archive, members of zips among them (member is -1 for a file that lies in a folder).
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    member INTEGER NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    content TEXT NOT NULL,
    kind TEXT NOT NULL,
    code TEXT NOT NULL,
    sentence TEXT NOT NULL,
    members INTEGER NOT NULL,
    stack INTEGER REFERENCES stacks (id),
    instance TEXT NOT NULL,
    place REAL,
    frames INTEGER NOT NULL,
    first_run INTEGER NOT NULL,
    run INTEGER NOT NULL,
    UNIQUE (path, member)
);
CREATE INDEX files_by_stack ON files (stack);
CREATE INDEX files_by_content ON files (content);
"""

_TABLES_SINCE = """
-- Every patient identifier that was ever met, in an order that stays when further ones come.
CREATE TABLE IF NOT EXISTS identifiers (place INTEGER PRIMARY KEY, identifier TEXT NOT NULL UNIQUE);
"""
"""What an index of the same schema may lack."""

_REMEDY = "remove it, and run the same command again: it is made anew from the archive"


@contextlib.contextmanager
def opened_index(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an index for as long as the context lasts, and make it where there is none, readable by its owner alone.

    What was committed stays whatever happens, and what was not is as if it had never been.

    Parameters
    ----------
    path
        The SQLite file.

    Raises
    ------
    InputError
        If others may read it, or it is damaged, no index, or one of another schema.
    StorageError
        If another process holds it, there is no space left, or the operating system refuses.
    """
    _make_private(path)
    with _faults_of(path):
        connection = sqlite3.connect(path, timeout=1, isolation_level=None)
        try:
            # The lock is held until the end, so that no second process writes.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = NORMAL")
            # Paths may name patients, and a temporary file lies elsewhere.
            connection.execute("PRAGMA temp_store = MEMORY")
            _prepare(connection, path)
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep all that is written in the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has ended the transaction by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise storage_error(error, path) from error
    if mode & 0o077:
        reason = f"expected an index that its owner alone may read (mode 600), found mode {mode:o}"
        remedy = f"it names patients: find out who has read it, then: chmod 600 {path}"
        raise InputError(reason, path=path, remedy=remedy)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables where there are none, and see that they are of this schema."""
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {INDEX_SCHEMA}; COMMIT;")
    elif 0 < schema < INDEX_SCHEMA:
        # Whose patients keep their order, so that no pseudonym changes.
        forget = "DELETE FROM files; DELETE FROM stacks;"
        connection.executescript(f"BEGIN; {forget} PRAGMA user_version = {INDEX_SCHEMA}; COMMIT;")
    elif schema != INDEX_SCHEMA:
        reason = f"expected an index of schema {INDEX_SCHEMA}, found {schema or 'another kind of database'}"
        raise InputError(reason, path=path, remedy="name another with --index, or remove it")
    connection.execute(_TABLES_SINCE)


@contextlib.contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into a fault that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            reason, remedy = "another process uses the index", "wait until it has ended"
        elif error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            reason = "could not be written: no space left on device"
            remedy = "free some space, and run the same command again: it goes on where it stopped"
        else:
            reason = f"could not be written: {error}"
            remedy = "choose another place with --index, and run the same command again"
        raise StorageError(reason, path=path, remedy=remedy) from error
    except sqlite3.DatabaseError as error:
        raise InputError(f"the index is damaged, or is no index: {error}", path=path, remedy=_REMEDY) from error
