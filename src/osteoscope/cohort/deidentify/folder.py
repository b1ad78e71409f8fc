"""A folder of any nesting, zips among it: every DICOM file of it, copied under pseudonyms, and a report of it all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag

from osteoscope.cohort.deidentify.file import prepare
from osteoscope.cohort.deidentify.journal import Entry, Journal
from osteoscope.cohort.deidentify.key import Key
from osteoscope.cohort.deidentify.profile import EDITION, PROFILE_VERSION
from osteoscope.errors import ConfigError, InputError, StorageError
from osteoscope.imaging.discover import discover, look_into, printable
from osteoscope.imaging.refusal import Refusal, RefusedImageError
from osteoscope.storage import (
    LOCK,
    folder_locked,
    remove_half_written,
    sha256_of_file,
    short_hash,
    storage_error,
    write_bytes,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from osteoscope.cohort.deidentify.file import Prepared
    from osteoscope.imaging.discover import Found

SCHEMA = "osteoscope-deidentification/1"

REPORT, REPORT_TABLE = "report.json", "report.csv"

_REMEDY_OF_PLACES = "choose another folder with -o"

_ANOTHER = "it is not the file that was released, and its row of this list has to be: "


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything lies.

    Parameters
    ----------
    source
        Folder of the files that identify patients.
    output
        Folder of those that do not; nothing in it names a patient or a file of the source.
    key
        Beside the output, or elsewhere; never in it.
    """

    source: Path
    output: Path
    key: Path

    @classmethod
    def of(cls, source: Path, output: Path, key: Path | None) -> Places:
        """Check that no place lies within another.

        Raises
        ------
        InputError
            If there is no source.
        ConfigError
            If the output lies in the source or the source in the output, or the key in the output.
        """
        if not source.is_dir():
            found = "expected a folder, found " + ("a file" if source.exists() else "nothing")
            raise InputError(found, path=source, remedy="name the folder that holds the files")
        # What stands beside it is named after it, and the folder that one is in has no name.
        output = output.absolute()
        found_key = key or output.with_name(f"{output.name}.key.json")
        whole, target, secret = source.resolve(), output.resolve(), found_key.resolve()
        if target.is_relative_to(whole) or whole.is_relative_to(target):
            reason = "expected an output apart from the source, found one within the other"
            raise ConfigError(reason, path=output, remedy=_REMEDY_OF_PLACES)
        if secret.is_relative_to(target):
            reason = "expected a key outside of the output, which is to be handed on"
            raise ConfigError(reason, path=found_key, remedy="choose another place with --key")
        return cls(source=source, output=output, key=found_key)

    @property
    def journal(self) -> Path:
        """Beside the key, since it names files of the source."""
        return self.key.with_name(f"{self._named}.journal.jsonl")

    @property
    def left_out(self) -> Path:
        """Beside the key, since it names files of the source."""
        return self.key.with_name(f"{self._named}.left-out.csv")

    @property
    def _named(self) -> str:
        """Name the output, so that no other folder with the same key is called so."""
        whole = self.output.resolve()
        beside = self.key.parent.resolve() == whole.parent
        return self.output.name if beside else f"{self.output.name}-{short_hash(str(whole))[:8]}"


@dataclass(kw_only=True)
class Tally:
    """What all files of a run come to; it names no file of the source and no value."""

    outcomes: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    guessed: set[str] = field(default_factory=set)
    reasons: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    owners: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _targets: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Count a file."""
        # Of those that are the same file in the output, the first counts as the one that was written.
        is_first = bool(entry.target) and entry.target not in self._targets
        outcome = "written" if is_first else "copy" if entry.outcome == "written" else entry.outcome
        self.outcomes[outcome] += 1
        if entry.reason:
            self.reasons[outcome][entry.reason] += 1
        if not is_first:
            return
        self._targets.add(entry.target)
        self.patients.add(entry.patient)
        self.owners[entry.instance].add(entry.patient)
        if entry.guessed:
            self.guessed.add(entry.patient)
        for action, tags in entry.removed.items():
            for tag, count in tags.items():
                self.actions[tag, action] += count

    @property
    def shared(self) -> list[list[str]]:
        """Pseudonyms of patients who share the UID of an image, each group once."""
        groups = {tuple(sorted(patients)) for patients in self.owners.values() if len(patients) > 1}
        return [list(group) for group in sorted(groups)]


def deidentify_folder(
    source: Path,
    output: Path,
    *,
    key: Path | None = None,
    released: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Copy every DICOM file of a folder without what identifies its patient.

    What was done before, with the same key and profile and into the same folder, is not done again. A run that ends
    early leaves whole files only, and the next one goes on.

    Parameters
    ----------
    source
        Folder of any nesting; zips in it are looked into.
    output
        Becomes ``patient/study/series/number.dcm``, with `REPORT` and `REPORT_TABLE`.
    key
        Where left out, ``OUTPUT.key.json`` beside the output; made where there is none.
    released
        A text file with a name a line, or rows of the list of what was left out: files that a person has looked at. A
        name releases the very file that was quarantined first under it, a row the file whose SHA-256 it has.
    progress
        Is told how many of how many files are done.

    Returns
    -------
    The report, as it lies in the output.

    Raises
    ------
    InputError, ConfigError
        If a folder or a list cannot be used, or the key is damaged, open to others, or another than before.
    StorageError
        If something cannot be written, or the output holds what this did not make, or another process works on it.
    """
    places = Places.of(source, output, key)
    _refuse_strange(places)
    opened_key = Key.open(places.key)
    busy = StorageError("another process writes in it", path=output, remedy="wait until it has ended")
    with (
        folder_locked(output, otherwise=busy),
        Journal(places.journal, opened_key.fingerprint, source) as journal,
    ):
        remove_half_written(output)
        run = _Run(places, opened_key, journal, _released_names(released, journal))
        run.through(discover([source]), progress)
        return run.close()


def _refuse_strange(places: Places) -> None:
    """Refuse to write into a folder that holds what was not made with this journal."""
    if places.output.exists() and not places.output.is_dir():
        raise StorageError("expected a folder, found a file", path=places.output, remedy=_REMEDY_OF_PLACES)
    held = {path.name for path in places.output.iterdir()} if places.output.is_dir() else set()
    if held - {LOCK} and not places.journal.exists():
        reason = f"holds files, and there is no {places.journal.name} beside the key that would say how they were made"
        raise StorageError(reason, path=places.output, remedy=_REMEDY_OF_PLACES)


def _released_names(path: Path | None, journal: Journal) -> dict[str, str]:
    """Read the list of files that a person has looked at: by name, the SHA-256 where the list has it, else empty.

    Raises
    ------
    InputError
        If it cannot be read, or names a file that was never quarantined.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = "the list of released files cannot be read as text in UTF-8"
        raise InputError(reason, path=path, remedy="write one name a line") from error
    rows = [(name, digest) for name, digest in (_released_row(line, journal) for line in lines) if name]
    for number, (name, _) in enumerate(rows, start=1):
        if name not in journal.known or not (
            journal.known[name].outcome == "quarantined" or journal.known[name].target
        ):
            reason = f"name {number} of the list is of no file that was quarantined"
            raise InputError(reason, path=path, remedy="copy the names from the list of what was left out")
    return dict(rows)


def _released_row(line: str, journal: Journal) -> tuple[str, str]:
    """Read a line as a name, or as the list of what was left out has it; of a comment or an empty line nothing."""
    name = line.strip()
    if name in journal.known or not name:
        return name, ""
    with contextlib.suppress(csv.Error):
        row = next(csv.reader([name], strict=True))
        if row[0] in journal.known:
            return row[0], row[-1] if len(row) == len(_LEFT_OUT) else ""
    return "" if name.startswith("#") else name, ""


class _Run:
    """Takes one file after the other."""

    def __init__(self, places: Places, key: Key, journal: Journal, released: Mapping[str, str]) -> None:
        self._places = places
        self._key = key
        self._journal = journal
        self._released = released
        self._seen: set[str] = set()
        self._beside = 0

    def through(self, found: Found, progress: Callable[[int, int], None] | None) -> None:
        """Take all files of a folder, and of the zips in it."""
        files, zips = found.files.get("DICOM", ()), found.archives
        for number, path in enumerate((*files, *zips), start=1):
            if path in zips:
                self._take_zip(path)
            else:
                self._take(path, self._name(path), path)
            if progress is not None:
                progress(number, len(files) + len(zips))
        self._beside += len(found.companions)
        self._refuse(found, {path: (self._name(path), path) for path in _paths_of(found)})

    def _name(self, path: Path) -> str:
        return printable(path.relative_to(self._places.source))

    def _take_zip(self, path: Path) -> None:
        name = self._name(path)
        members = self._journal.members[name]
        if self._is_done(name, path) and members.isdisjoint(self._released) and self._all_there(members):
            self._seen.update((name, *members))
            return
        try:
            with look_into(path) as inner:
                start = len(str(path))
                called = _apart({one: name + inner.names.get(one, str(one))[start:] for one in _paths_of(inner)})
                for one in inner.files.get("DICOM", ()):
                    self._take(one, called[one], path)
                self._beside += len(inner.companions)
                self._refuse(inner, {one: (text, path) for one, text in called.items()})
        except RefusedImageError as error:
            self._keep(path, name, "refused", reason=error.message)
        else:
            # One that holds nothing is among what was refused.
            if path not in called:
                self._keep(path, name, "unpacked")

    def _all_there(self, names: Iterable[str]) -> bool:
        targets = (self._journal.known[name].target for name in names)
        return all(not target or (self._places.output / target).exists() for target in targets)

    def _is_done(self, name: str, of: Path) -> bool:
        known = self._journal.known.get(name)
        if known is None or known.outcome == "refused" or not self._all_there([name]):
            return False
        if known.profile != _profile() or (known.outcome == "quarantined" and name in self._released):
            return False
        size, modified = _stamp(of)
        return (known.size, known.modified) == (size, modified)

    def _take(self, path: Path, name: str, of: Path) -> None:
        """De-identify a file, unless it is done."""
        self._seen.add(name)
        if self._is_done(name, of):
            return
        try:
            released = self._is_released(path, name, of)
            prepared = prepare(path, self._key, released=released)
        except RefusedImageError as error:
            self._keep(of, name, "refused", reason=error.message)
            return
        report = prepared.report
        source = _sha256(path) if released or prepared.content is None else ""
        if prepared.content is None:
            again = name in self._released
            reason = f"{_ANOTHER if again else ''}{report.quarantined}"
            self._keep(of, name, "quarantined", patient=report.patient, reason=reason, source=source, again=again)
            return
        self._write(prepared, name, of, source)

    def _is_released(self, path: Path, name: str, of: Path) -> bool:
        """Tell whether a person has looked at the pixels of this very file, and not only at one of its name."""
        known = self._journal.known.get(name)
        if known is None:
            return False
        if name not in self._released:
            # It stays released, as long as it is the same.
            return bool(known.target and known.source) and known.source == _sha256(path)
        wanted = self._released[name] or ("" if known.again else known.source)
        if wanted or known.again:
            return bool(wanted) and wanted == _sha256(path)
        return (known.size, known.modified) == _stamp(of)

    def _write(self, prepared: Prepared, name: str, of: Path, source: str) -> None:
        report, target, instance = prepared.report, str(prepared.place), prepared.instance
        content = prepared.content or b""
        digest = hashlib.sha256(content).hexdigest()
        known = self._journal.known.get(name)
        # Its number in the series is part of a file's name, so two of one UID may be called differently.
        first = self._journal.targets.get((report.patient, instance), target)
        is_itself = known is not None and known.target in (target, first)
        other = None if is_itself else self._journal.digests.get(first)
        if other is not None and (self._places.output / first).exists():
            if other != digest:
                reason = "another file has the same UIDs and other content"
                self._keep(of, name, "refused", patient=report.patient, reason=reason)
                return
            outcome = "copy"
        else:
            write_bytes(self._places.output / target, content)
            outcome = "written"
        # A copy knows all of it, too: the file that was written may be gone from the source by the next run.
        self._keep(
            of,
            name,
            outcome,
            patient=report.patient,
            target=target,
            sha256=digest,
            instance=instance,
            removed=report.removed,
            guessed=report.guessed,
            source=source,
        )

    def _refuse(self, found: Found, called: dict[Path, tuple[str, Path]]) -> None:
        """List what is no DICOM file."""
        for refusal in found.refused:
            self._refuse_one(refusal, called)
        for kind, paths in found.files.items():
            for path in paths if kind != "DICOM" else ():
                name, of = called[path]
                self._keep(of, name, "refused", reason=f"expected DICOM, found {kind}, which is not de-identified")

    def _refuse_one(self, refusal: Refusal, called: dict[Path, tuple[str, Path]]) -> None:
        for path in refusal.files:
            name, of = called[path]
            self._keep(of, name, "refused", reason=refusal.sentence)

    def _keep(self, of: Path, name: str, outcome: str, **more: Any) -> None:
        self._seen.add(name)
        size, modified = _stamp(of)
        zipped = self._name(of)
        archive = zipped if name.startswith(f"{zipped}!") else ""
        entry = Entry(name=name, size=size, modified=modified, outcome=outcome, archive=archive, **more)
        self._journal.add(replace(entry, profile=_profile()))

    def close(self) -> dict[str, Any]:
        """Write the report into the output, and the list of what was left out beside the key."""
        tally = Tally()
        left_out: list[Entry] = []
        for entry in self._journal.entries():
            if entry.name in self._seen:
                tally.add(entry)
                if entry.outcome in ("quarantined", "refused"):
                    left_out.append(entry)
        report = _report(tally, self._key.fingerprint, beside=self._beside)
        rows = [(entry.name, entry.outcome, entry.reason, entry.source) for entry in left_out]
        _write_private(self._places.left_out, _table(_LEFT_OUT, rows))
        write_text(self._places.output / REPORT_TABLE, _table(_COLUMNS, _action_rows(tally)))
        write_json(self._places.output / REPORT, report)
        return report


_COLUMNS = ("tag", "name", "action", "elements")
_LEFT_OUT = ("file", "outcome", "reason", "sha256")


def _profile() -> str:
    return f"{EDITION}.{PROFILE_VERSION}"


def _paths_of(found: Found) -> Iterator[Path]:
    for paths in found.files.values():
        yield from paths
    for refusal in found.refused:
        yield from refusal.files


def _apart(called: dict[Path, str]) -> dict[Path, str]:
    """Tell members of a zip that are called alike by a number, and write names so that they can be printed."""
    times: Counter[str] = Counter()
    names = {}
    for path, text in called.items():
        name = printable(text)
        times[name] += 1
        names[path] = name if times[name] == 1 else f"{name}#{times[name]}"
    return names


def _stamp(path: Path) -> tuple[int, int]:
    """Give size and time of change; of what cannot be looked at, neither."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _sha256(path: Path) -> str:
    """Hash a file; of what cannot be read, nothing."""
    with contextlib.suppress(OSError):
        return sha256_of_file(path)
    return ""


def _report(tally: Tally, fingerprint: str, *, beside: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "standard": f"DICOM PS3.15 {EDITION}, table E.1-1",
        "options": ["Basic Profile", "modified dates", "sex, and age up to 89 years"],
        "key": fingerprint,
        "patients": len(tally.patients),
        "guessed_patients": sorted(tally.guessed),
        "written": tally.outcomes["written"],
        "copies": tally.outcomes["copy"],
        "quarantined": dict(sorted(tally.reasons["quarantined"].items())),
        "refused": dict(sorted(tally.reasons["refused"].items())),
        "beside": beside,
        "patients_with_one_uid": tally.shared,
        "actions": [dict(zip(_COLUMNS, row, strict=True)) for row in _action_rows(tally)],
    }


def _action_rows(tally: Tally) -> list[tuple[str, str, str, int]]:
    return [(tag, _name_of(tag), action, count) for (tag, action), count in sorted(tally.actions.items())]


def _name_of(tag: str) -> str:
    if "x" in tag:
        return "private"
    return keyword_for_tag(int(tag.strip("()").replace(",", ""), 16)) or "unknown"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return sink.getvalue()


def _write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise storage_error(error, path) from error
