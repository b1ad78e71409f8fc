"""The label table of an archive: what each row says, and whose it is, by patient, study or accession number."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from osteoscope.cohort.deidentify.values import study_and_series
from osteoscope.cohort.from_table import proof_of
from osteoscope.cohort.tabular import read_rows_in
from osteoscope.errors import TableError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from osteoscope.cohort.archive.people import People
    from osteoscope.cohort.table import Proof, Sex
    from osteoscope.cohort.tabular import TableRow

T = TypeVar("T")

KEYS = ("patient", "study", "accession")
"""Columns that a row is joined by: Patient ID, Study Instance UID and accession number. One of them is enough."""

TEXTS = ("site", "level", "kind", "centre")
DATES = ("proof_date", "biopsy_date", "treatment_date")
OTHERS = ("age", "sex", "proof", *TEXTS, *DATES)
"""Optional columns."""

_MOST_NAMED = 10
"""How many rows one note names."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What the label table says of a patient; `None` where it does not.

    Parameters
    ----------
    label
        Diagnosis, or `None` where the row has none.
    studies
        Study UIDs that the table names for the patient; empty where it names none, so that all may be used.
    age
        In years, at the time of the diagnosis.
    sex, site, level, kind, centre, proof
        As in `osteoscope.cohort.table.Row`.
    proof_date, biopsy_date, treatment_date
        ISO 8601; of several rows the first date counts.
    """

    label: str | None
    studies: frozenset[str] = frozenset()
    age: float | None = None
    sex: Sex | None = None
    site: str | None = None
    level: str | None = None
    kind: str | None = None
    centre: str | None = None
    proof: Proof | None = None
    proof_date: str | None = None
    biopsy_date: str | None = None
    treatment_date: str | None = None


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Labels of patients, and what could not be joined.

    Parameters
    ----------
    labels
        By patient.
    refused
        Patients whose rows contradict each other, and how.
    notes
        Sentences on rows that joined nobody; they name rows, and no patient.
    """

    labels: Mapping[str, Label]
    refused: Mapping[str, str]
    notes: tuple[str, ...]


def read_labels(path: Path, *, encoding: str | None = None) -> list[TableRow]:
    """Read a label table.

    Parameters
    ----------
    path
        CSV, .xlsx or .parquet with the column ``label`` and one or more of `KEYS`; `OTHERS` where known.
    encoding
        Of a CSV that is not in UTF-8.

    Raises
    ------
    TableError
        If it cannot be read as one (see `osteoscope.cohort.tabular.read_rows`), or has none of `KEYS`.
    """
    rows = read_rows_in(path, ["label"], encoding)
    if not any(key in row.cells for row in rows for key in KEYS):
        found = ", ".join(sorted({column for row in rows for column in row.cells}))
        reason = f"expected a column {', '.join(map(repr, KEYS[:-1]))} or {KEYS[-1]!r} with values, found {found}"
        raise TableError(reason, path=path, remedy="add one, by which rows are joined to the archive")
    return rows


def join_labels(rows: Sequence[TableRow], connection: sqlite3.Connection, people: People) -> Joined:
    """Join the rows of a label table to the patients of an archive.

    A row that names a patient, a study and an accession number, or two of them, must mean one patient by all that the
    archive knows. A patient with two diagnoses gets none.

    Raises
    ------
    TableError
        If a cell holds what it should not.
    """
    keys = _Keys(connection, people)
    of_patient: defaultdict[str, list[TableRow]] = defaultdict(list)
    lost: dict[str, list[int]] = {reason: [] for reason in _LOST}
    for row in rows:
        found = keys.patients(row)
        if len(found) == 1:
            of_patient[next(iter(found))].append(row)
        else:
            lost[keys.why_lost(row)].append(row.number)
    labels: dict[str, Label] = {}
    refused: dict[str, str] = {}
    for patient, own in of_patient.items():
        contradiction = _contradiction(own)
        if contradiction:
            refused[patient] = contradiction
        else:
            labels[patient] = _label(own, keys)
    return Joined(labels=labels, refused=refused, notes=(*_notes(lost, len(rows)), *_note_on_columns(rows)))


_NOT_THERE = "their patient, study or accession number is not in the archive"
_ZEROS = "their patient is in the archive only if zeros at its start are added: a spreadsheet may have cut them off"
_AMBIGUOUS = "their patient, study and accession number are not of one patient"
_NO_KEY = "they name no patient, study or accession number"
_NO_STUDY = (
    "their patient is in the archive, and the study or accession number that they name is not: leave it out of the "
    "table if what they say is true of all studies of the patient"
)
_LOST = (_NOT_THERE, _ZEROS, _AMBIGUOUS, _NO_KEY, _NO_STUDY)


class _Keys:
    """Finds patients by what a row names."""

    def __init__(self, connection: sqlite3.Connection, people: People) -> None:
        self._connection = connection
        self._people = people
        self._bare = {identifier.lstrip("0") for identifier in people.of}

    def patients(self, row: TableRow) -> set[str]:
        """Give the patients whom all that the row names, as far as the archive knows it, has in common."""
        if self._names_no_study(row):
            return set()
        known = [found for key in KEYS if (found := self._of(key, row.text(key)))]
        return set.intersection(*known) if known else set()

    def _names_no_study(self, row: TableRow) -> bool:
        """Tell whether a row is about one study, and that is not here: it says nothing of the patient's others."""
        return any(row.text(key) for key in ("study", "accession")) and not self.studies(row)

    def studies(self, row: TableRow) -> frozenset[str]:
        """Give the studies that a row names."""
        named = [(key, value) for key in ("study", "accession") if (value := row.text(key))]
        return frozenset(study for key, value in named for _, study in self._stacks(key, value))

    def why_lost(self, row: TableRow) -> str:
        """Say why a row joins nobody."""
        if not any(row.text(key) for key in KEYS):
            return _NO_KEY
        if self._names_no_study(row) and self._of("patient", row.text("patient")):
            return _NO_STUDY
        if any(self._of(key, row.text(key)) for key in KEYS):
            return _AMBIGUOUS
        identifier = row.text("patient")
        return _ZEROS if identifier and identifier.lstrip("0") in self._bare else _NOT_THERE

    def _of(self, key: str, value: str | None) -> set[str]:
        if not value:
            return set()
        if key == "patient":
            return {self._people.of[value]} if value in self._people.of else set()
        return {self._people.of[identifier] for identifier, _ in self._stacks(key, value)}

    def _stacks(self, key: str, value: str) -> list[tuple[str, str]]:
        """Give identifier and study of what a study or accession number names.

        A study without a UID is named by the frame of reference that stands for it.
        """
        if key == "accession":
            query, values = "SELECT DISTINCT identifier, study FROM stacks WHERE accession = ?", [value]
        else:
            stand_in, _ = study_and_series("", "", value, "")
            query, values = "SELECT DISTINCT identifier, study FROM stacks WHERE study IN (?, ?)", [value, stand_in]
        return self._connection.execute(query, values).fetchall()


def _contradiction(rows: Sequence[TableRow]) -> str:
    """Say in which column the rows of one patient have two values that cannot both be true, or nothing."""
    for column in ("label", "sex"):
        values = sorted({value for row in rows if (value := row.text(column)) is not None})
        if column == "sex":
            values = sorted({sex for row in rows if (sex := row.sex("sex")) is not None})
        if len(values) > 1:
            numbers = " and ".join(str(row.number) for row in rows[:_MOST_NAMED])
            return f"rows {numbers} of the label table give it the {column} {' and '.join(map(repr, values))}"
    return ""


def _label(rows: Sequence[TableRow], keys: _Keys) -> Label:
    texts = {column: _first(row.text(column) for row in rows) for column in TEXTS}
    dates = {column: min((day for row in rows if (day := row.date(column))), default=None) for column in DATES}
    return Label(
        label=_first(row.text("label") for row in rows),
        studies=frozenset(study for row in rows for study in keys.studies(row)),
        age=_first(row.age("age") for row in rows),
        sex=_first(row.sex("sex") for row in rows),
        proof=_first(proof_of(row) for row in rows),
        **texts,
        **dates,
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _notes(lost: Mapping[str, Sequence[int]], total: int) -> list[str]:
    notes = []
    for reason, numbers in lost.items():
        if numbers:
            named = ("row " if len(numbers) == 1 else "rows ") + ", ".join(map(str, numbers[:_MOST_NAMED]))
            more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
            notes.append(
                f"{len(numbers)} of {total} rows of the label table joined nobody, since {reason}: {named}{more}."
            )
    return notes


def _note_on_columns(rows: Sequence[TableRow]) -> list[str]:
    counted = Counter(column for row in rows for column in row.cells if column not in ("label", *KEYS, *OTHERS))
    return [f"Columns of the label table that were ignored: {', '.join(sorted(counted))}."] if counted else []
