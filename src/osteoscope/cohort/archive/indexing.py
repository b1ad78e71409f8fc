"""Brings an index up to what lies in a folder: what is new or changed is read, and nothing else."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.database import transaction
from osteoscope.cohort.archive.reading import (
    IN_A_FOLDER,
    PASSING,
    Read,
    ToRead,
    in_processes,
    read_batch,
)
from osteoscope.cohort.archive.walk import walk
from osteoscope.errors import InputError
from osteoscope.imaging.opened import Stamp
from osteoscope.imaging.refusal import RefusalCode
from osteoscope.processes import readers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from osteoscope.cohort.archive.facts import Known
    from osteoscope.cohort.archive.walk import Seen

BATCH = 200
"""Files that a worker reads at once, and that are committed together: so many are lost at most by a kill."""

_LOOKED_UP = 2000
"""Files of a folder that are compared with the index at once."""

_STACKS_HELD = 10_000
"""Numbers of stacks that are remembered, so that not every file of a series asks for its own."""

_Known = tuple[Stamp | None, str, int]
_NOTHING: _Known = (None, "", 0)

_NO_STAMP = (0, 0, 0, 0, 0, False)

_STAMP = "device, inode, size, modified, changed, settled"
_INSERT = f"""
INSERT OR REPLACE INTO files (
    path, member, {_STAMP}, content, kind, code, sentence, members, stack, instance, place, frames, first_run, run
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an index was brought up to, in files; members of zips count as files.

    Parameters
    ----------
    files
        Known now.
    unchanged
        As they were, so that they were not read.
    new, changed, moved, gone
        Of the others: there for the first time, of other content, of the same content under another name, and no
        longer there.
    dicom, other, refused
        DICOM objects, files of other kinds, and what could not be read.
    """

    files: int
    unchanged: int
    new: int
    changed: int
    moved: int
    gone: int
    dicom: int
    other: int
    refused: int

    def to_json(self) -> dict[str, int]:
        """Give the counts by name."""
        return asdict(self)


def update_index(
    connection: sqlite3.Connection,
    root: Path,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Indexed:
    """Bring an index up to what lies below a folder; killed at any moment, the next call goes on.

    Parameters
    ----------
    connection
        Of `osteoscope.cohort.archive.database.opened_index`.
    root
        The archive: files in folders of any depth, and zips.
    jobs
        Worker processes; as many as there are processors where left out.
    progress
        Is told how many of how many files were looked at, as far as they are known.

    Raises
    ------
    InputError
        If the folder is missing.
    StorageError
        If the operating system ends a worker.
    """
    if not root.is_dir():
        raise InputError("the archive's folder is missing", path=root, remedy="name a folder that holds DICOM files")
    update = _Update(connection, root, progress)
    processes = jobs or readers()
    for tasks in (update.files(), update.members()):
        for batch in in_processes(read_batch, tasks, jobs=processes):
            update.keep(batch)
    return update.close()


class _Update:
    """One run over an archive."""

    def __init__(self, connection: sqlite3.Connection, root: Path, progress: Callable[[int, int], None] | None) -> None:
        self._connection = connection
        self._root = root
        self._progress = progress
        self._stacks: dict[str, int] = {}
        self._written: set[str] = set()
        self._changed = 0
        self._unchanged = 0
        self._done = 0
        self._expected = 0
        self._zips: list[ToRead] = []
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS named (number INTEGER PRIMARY KEY, path BLOB NOT NULL)")
        with transaction(connection):
            self._run = connection.execute("INSERT INTO runs DEFAULT VALUES").lastrowid or 0

    def files(self) -> Iterator[tuple[Path, tuple[ToRead, ...]]]:
        """Give the files that have to be read, in batches."""
        seen = walk(self._root)
        waiting: list[ToRead] = []
        while found := list(islice(seen, _LOOKED_UP)):
            waiting.extend(self._compare(found))
            while len(waiting) >= BATCH:
                yield self._root, tuple(waiting[:BATCH])
                del waiting[:BATCH]
        if waiting:
            yield self._root, tuple(waiting)

    def members(self) -> Iterator[tuple[Path, tuple[ToRead, ...]]]:
        """Give the members of zips that have to be read, in batches; all files have been read before."""
        for zipped in self._zips:
            for start in range(0, len(zipped.members), BATCH):
                yield self._root, (ToRead(path=zipped.path, members=zipped.members[start : start + BATCH]),)

    def _compare(self, found: list[Seen]) -> list[ToRead]:
        """Tell what is as the index knows it from what has to be read."""
        read: list[ToRead] = []
        unchanged: list[tuple[str, int]] = []
        self._expected += len(found)
        with transaction(self._connection):
            known = self._known(found)
            for number, seen in enumerate(found):
                stamp, content, members = known.get(number, _NOTHING)
                if seen.stamp is None:
                    sentence = f"could not be read: {seen.fault}"
                    self._insert(Read(path=seen.path, code=str(RefusalCode.UNREADABLE), sentence=sentence))
                elif stamp is None or not stamp.same(seen.stamp):
                    read.append(ToRead(path=seen.path, content=content, new=stamp is None))
                else:
                    unchanged.append((seen.path, members))
            self._go_on_with(unchanged)
        self._report(len(found) - len(read))
        return read

    def _known(self, found: list[Seen]) -> dict[int, _Known]:
        """Give what the index has of files, by their numbers: stamp, quick hash and members."""
        self._name(seen.path for seen in found)
        query = f"SELECT number, {_STAMP}, content, members FROM named JOIN files USING (path) WHERE member = ?"  # noqa: S608
        return {
            number: (Stamp._make(stamp), content, members)
            for number, *stamp, content, members in self._connection.execute(query, (IN_A_FOLDER,))
        }

    def _name(self, paths: Iterable[str]) -> None:
        """Let the table of names hold some paths, for a statement on all of them at once."""
        self._connection.execute("DELETE FROM named")
        names = ((number, os.fsencode(path)) for number, path in enumerate(paths))
        self._connection.executemany("INSERT INTO named VALUES (?, ?)", names)

    def _go_on_with(self, files: list[tuple[str, int]]) -> None:
        """Keep what is known of files, given with their members; read those that an interrupted run has not."""
        self._name(path for path, _ in files)
        statement = "UPDATE files SET run = ? WHERE path IN (SELECT path FROM named)"
        self._unchanged += self._connection.execute(statement, (self._run,)).rowcount
        for path, members in files:
            if members:
                query = "SELECT member, kind, code FROM files WHERE path = ?"
                rows = self._connection.execute(query, (os.fsencode(path),))
                read = {member for member, kind, code in rows if kind != "refused" or code not in PASSING}
                missing = set(range(members)) - read
                if missing:
                    self._read_members(path, missing)

    def _read_members(self, path: str, numbers: Iterable[int]) -> None:
        zipped = ToRead(path=path, members=tuple(sorted(numbers)))
        self._expected += len(zipped.members)
        self._zips.append(zipped)

    def keep(self, batch: Iterable[Read]) -> None:
        """Write what was read."""
        count = 0
        with transaction(self._connection):
            for read in batch:
                count += 1
                if read.kind == "same":
                    self._touch(read)
                else:
                    self._replace(read)
        self._report(count)

    def _touch(self, read: Read) -> None:
        """Go on with a file that was written again with the same content."""
        if read.stamp is not None:
            path = os.fsencode(read.path)
            names = ", ".join(f"{name} = ?" for name in _STAMP.split(", "))
            self._connection.execute(
                f"UPDATE files SET {names} WHERE path = ? AND member = ?",  # noqa: S608
                (*read.stamp, path, IN_A_FOLDER),
            )
            query = "SELECT members FROM files WHERE path = ? AND member = ?"
            (members,) = self._connection.execute(query, (path, IN_A_FOLDER)).fetchone()
            self._go_on_with([(read.path, members)])

    def _replace(self, read: Read) -> None:
        """Write a file anew; of a zip, its members go, and are read again."""
        if not read.new:
            self._connection.execute("DELETE FROM files WHERE path = ?", (os.fsencode(read.path),))
            self._changed += 1
        self._insert(read, first_run=self._run if read.new else 0)
        if read.members:
            self._read_members(read.path, range(read.members))

    def _insert(self, read: Read, *, first_run: int = 0) -> None:
        known = read.known
        self._connection.execute(
            _INSERT,
            (
                os.fsencode(read.path),
                read.member,
                *(read.stamp or _NO_STAMP),
                read.content,
                read.kind,
                read.code,
                read.sentence,
                read.members,
                None if known is None else self._stack(known),
                "" if known is None else known.instance,
                None if known is None else known.place,
                0 if known is None else known.frames,
                first_run,
                self._run,
            ),
        )

    def _stack(self, known: Known) -> int:
        """Give the number of a file's stack, and write down a new one."""
        if known.digest not in self._stacks:
            if len(self._stacks) > _STACKS_HELD:
                self._stacks.clear()
            person = known.person
            # What does not tell stacks apart may have been corrected in files that came again.
            is_first = known.digest not in self._written
            self._written.add(known.digest)
            self._connection.execute(
                "INSERT INTO stacks (digest, identifier, guessed, name, born, sex, study, series, accession, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE"
                " SET accession = excluded.accession, facts = excluded.facts WHERE ?",
                (
                    known.digest,
                    person.identifier,
                    person.guessed,
                    person.name,
                    person.born,
                    person.sex,
                    known.study,
                    known.series,
                    known.accession,
                    known.facts.to_json(),
                    is_first,
                ),
            )
            query = "SELECT id FROM stacks WHERE digest = ?"
            (self._stacks[known.digest],) = self._connection.execute(query, (known.digest,)).fetchone()
        return self._stacks[known.digest]

    def _report(self, done: int) -> None:
        self._done += done
        if self._progress is not None and done:
            self._progress(self._done, self._expected)

    def close(self) -> Indexed:
        """Forget what is no longer there, and count."""
        execute = self._connection.execute
        with transaction(self._connection):
            (moved,) = execute(
                # Of equal files as many were moved as have gone, and come: the fewer of both.
                "SELECT coalesce(sum(min(went, came)), 0) FROM"
                " (SELECT sum(run != ?) AS went, sum(first_run = ?) AS came FROM files WHERE content != ''"
                " GROUP BY content)",
                (self._run, self._run),
            ).fetchone()
            (new,) = execute("SELECT count(*) FROM files WHERE first_run = ?", (self._run,)).fetchone()
            gone = execute("DELETE FROM files WHERE run != ?", (self._run,)).rowcount
            execute("DELETE FROM stacks WHERE id NOT IN (SELECT stack FROM files WHERE stack IS NOT NULL)")
            execute("DELETE FROM runs WHERE number != ?", (self._run,))
            kinds = dict(execute("SELECT kind, count(*) FROM files GROUP BY kind").fetchall())
        return Indexed(
            files=sum(kinds.values()),
            unchanged=self._unchanged,
            new=new - moved,
            changed=self._changed,
            moved=moved,
            gone=gone - moved,
            dicom=kinds.get("dicom", 0),
            other=kinds.get("other", 0) + kinds.get("zip", 0),
            refused=kinds.get("refused", 0),
        )
