"""What was done to each file so far, so that a run that was ended goes on, and a later one takes only what is new.

It names the source's files, which may hold names of patients; so it lies beside the key and not in the output, and its
owner alone may read it. A line is written when its file is done; a last line that is torn is a file that was not.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from osteoscope.errors import ConfigError
from osteoscope.storage import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

JOURNAL_SCHEMA = "osteoscope-deidentification-journal/2"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a file of the source.

    Parameters
    ----------
    name
        Path below the source's folder, printable; of a member of a zip, the zip's, ``!`` and the member's.
    size, modified
        Bytes, and nanoseconds since 1970, of the file or its zip.
    archive
        Name of the zip that it is a member of; else empty.
    outcome
        ``written``, ``copy`` (of one that was written), ``quarantined``, ``refused``, or ``unpacked`` of a zip all of
        whose members are done.
    patient
        Pseudonym; empty where it is not known.
    target
        Path below the output's folder, of a copy too; empty where nothing was written.
    sha256
        Of the target.
    instance
        New SOP Instance UID.
    reason
        Why it was quarantined or refused, as a sentence without a full stop.
    removed
        As in `osteoscope.cohort.deidentify.file.FileReport`.
    guessed
        Whether the patient had no identifier.
    profile
        Edition and version of the profile that it was done by; empty of what was done before entries said so.
    source
        SHA-256 of a file that was quarantined, whether or not a person released it since.
    again
        Whether it was quarantined although its name was released, since another file had that name then.
    """

    name: str
    size: int
    modified: int
    outcome: str
    archive: str = ""
    patient: str = ""
    target: str = ""
    sha256: str = ""
    instance: str = ""
    reason: str = ""
    removed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    guessed: bool = False
    profile: str = ""
    source: str = ""
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """What of an entry is held in memory."""

    line: int
    size: int
    modified: int
    outcome: str
    target: str
    profile: str
    source: str
    again: bool


class Journal:
    """Entries in a file of JSON lines, the last of a name counting.

    Parameters
    ----------
    path
        Where it lies; made, with mode 600, by the first entry.
    fingerprint
        Of the key.
    source
        The folder that the files are in; files of another could be called as they are.

    Raises
    ------
    ConfigError
        If it is of another key or another source, or no journal.
    StorageError
        If it cannot be read.
    """

    def __init__(self, path: Path, fingerprint: str, source: Path) -> None:
        self._path = path
        # What is no UTF-8 could not be written, and stands escaped.
        place = os.fsencode(source.resolve()).decode("utf-8", "backslashreplace")
        self._head = {"schema": JOURNAL_SCHEMA, "key": fingerprint, "source": place}
        self._lines = 0
        self._whole = 0
        self.known: dict[str, Known] = {}
        self.members: defaultdict[str, set[str]] = defaultdict(set)
        self.digests: dict[str, str] = {}
        self.targets: dict[tuple[str, str], str] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._read()
        self._mend()

    def __enter__(self) -> Self:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._stream = os.fdopen(descriptor, "a", encoding="utf-8")
        except OSError as error:
            raise storage_error(error, self._path) from error
        if not self._lines:
            self._write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, entry: Entry) -> None:
        """Write down what became of a file.

        Raises
        ------
        StorageError
            If the operating system refuses.
        """
        self._note(self._lines, entry)
        self._write(
            {name: value for name, value in dataclasses.asdict(entry).items() if value or name in ("size", "modified")}
        )

    def entries(self) -> Iterator[Entry]:
        """Give the last entry of each name, one after the other; no more than one is held."""
        for number, entry in self._parsed():
            if self.known[entry.name].line == number:
                yield entry

    def _write(self, value: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._lines += 1

    def _read(self) -> None:
        for number, entry in self._parsed():
            self._note(number, entry)

    def _note(self, number: int, entry: Entry) -> None:
        self.known[entry.name] = Known(
            line=number,
            size=entry.size,
            modified=entry.modified,
            outcome=entry.outcome,
            target=entry.target,
            # Of hundreds of thousands of files it is one.
            profile=sys.intern(entry.profile),
            source=entry.source,
            again=entry.again,
        )
        if entry.archive:
            stamp = entry.size, entry.modified
            if self._stamps.setdefault(entry.archive, stamp) != stamp:
                # Another zip took its place, which may lack members that it had.
                self._stamps[entry.archive] = stamp
                self.members[entry.archive].clear()
            self.members[entry.archive].add(entry.name)
        if entry.target:
            self.digests[entry.target] = entry.sha256
            self.targets[entry.patient, entry.instance] = entry.target

    def _parsed(self) -> Iterator[tuple[int, Entry]]:
        """Give each whole line's number and entry."""
        try:
            with self._path.open("rb") as stream:
                for number, line in enumerate(stream):
                    if line.endswith(b"\n"):
                        if number == self._lines:
                            self._lines += 1
                            self._whole += len(line)
                        if number:
                            yield number, Entry(**json.loads(line))
                        else:
                            self._check(json.loads(line))
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, self._path) from error
        except (ValueError, TypeError) as error:
            remedy = "restore it from its copy, or choose another folder with -o"
            raise ConfigError("the journal of the output is damaged", path=self._path, remedy=remedy) from error

    def _check(self, head: dict[str, Any]) -> None:
        if head.get("schema") != JOURNAL_SCHEMA:
            reason = f"expected a journal of {JOURNAL_SCHEMA}, found another file"
            raise ConfigError(reason, path=self._path, remedy="choose another folder with -o")
        if head.get("key") != self._head["key"]:
            reason = "the output was made with another key"
            remedy = "name that key with --key, or choose another folder with -o"
            raise ConfigError(reason, path=self._path, remedy=remedy)
        if head.get("source") != self._head["source"]:
            reason = "the output was made from another folder, or from this one where it lay before"
            remedy = "choose another folder with -o; with the same --key its patients keep their pseudonyms"
            raise ConfigError(reason, path=self._path, remedy=remedy)

    def _mend(self) -> None:
        """Cut off a torn last line, so that the next one does not run on from it."""
        try:
            with self._path.open("rb+") as stream:
                stream.truncate(self._whole)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, self._path) from error
