"""A table that people made, in CSV, .xlsx or Parquet: its cells as text, and readers that name the row they refuse."""

from __future__ import annotations

import codecs
import csv
import datetime
import difflib
import functools
import io
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from osteoscope.errors import MissingExtraError, TableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from osteoscope.cohort.table import Sex

OLDEST = 120.0
"""Ages beyond this, or below 0, are taken for slips, in years."""

_MOST_COLUMNS = 1000
"""Of a sheet that are read: a blank in its last cell makes each of its rows sixteen thousand cells."""

# What openpyxl lets through of files that are damaged or not as it expects.
_NO_WORKBOOK = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
)

_MISSING = {"", "na", "n/a", "#n/a", "nan", "<na>", "nat", "null"}

_SEXES: Mapping[str, Sex | None] = {
    **dict.fromkeys(("f", "female", "w", "woman", "weiblich"), "F"),
    **dict.fromkeys(("m", "male", "man", "männlich"), "M"),
    **dict.fromkeys(("o", "other", "u", "unknown", "d", "divers"), None),
}

_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "false", "no", "n"), False),
}


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of a table.

    Parameters
    ----------
    path
        The table.
    number
        Of the row as a spreadsheet counts it, where the names of the columns are row 1.
    cells
        Text by column, in lower-case names; without the cells that are empty or say that a value is missing.
    """

    path: Path
    number: int
    cells: Mapping[str, str]

    def fault(self, column: str, expected: str) -> TableError:
        """Say what was expected in a column, and what this row has there."""
        found = repr(self.cells[column]) if column in self.cells else "nothing"
        reason = f"row {self.number}, column {column!r}: expected {expected}, found {found}"
        return TableError(reason, path=self.path, remedy="correct the cell")

    def text(self, column: str) -> str | None:
        """Text of a cell, or `None`."""
        return self.cells.get(column)

    def required(self, column: str) -> str:
        """Text of a cell that must not be empty."""
        if column not in self.cells:
            raise self.fault(column, "a value")
        return self.cells[column]

    def age(self, column: str) -> float | None:
        """Age in years, from 0 to `OLDEST`."""
        if column not in self.cells:
            return None
        try:
            age = float(self.cells[column])
        except ValueError:
            age = math.nan
        if not 0 <= age <= OLDEST:
            raise self.fault(column, f"an age in years from 0 to {OLDEST:.0f}")
        return age

    def sex(self, column: str) -> Sex | None:
        """Sex; a word for another or an unknown sex is `None`."""
        word = self.cells.get(column, "unknown").lower()
        if word not in _SEXES:
            raise self.fault(column, "F or M")
        return _SEXES[word]

    def flag(self, column: str) -> bool | None:
        """Truth of a cell that says yes or no."""
        if column not in self.cells:
            return None
        if self.cells[column].lower() not in _FLAGS:
            raise self.fault(column, "yes or no")
        return _FLAGS[self.cells[column].lower()]

    def date(self, column: str) -> str | None:
        """ISO 8601 date."""
        if column not in self.cells:
            return None
        try:
            return datetime.date.fromisoformat(self.cells[column]).isoformat()
        except ValueError:
            raise self.fault(column, "a date as YYYY-MM-DD") from None


def read_rows(path: Path, required: Iterable[str], *, encoding: str | None = None) -> list[TableRow]:
    """Read a table.

    Parameters
    ----------
    path
        CSV in UTF-8, or in UTF-16 with its mark (separated by comma, semicolon or tab), .xlsx (its first sheet) or
        .parquet.
    required
        Columns that it must have; the case of names does not matter.
    encoding
        Of a CSV in another one, such as ``cp1252``; it is never guessed, since names would be read wrongly.

    Returns
    -------
    One entry a row that is not empty, in the order of the table.

    Raises
    ------
    TableError
        If the table is missing, unreadable, empty or in another encoding, a row has more or fewer cells than there
        are columns, a required column is missing or a column is there twice.
    MissingExtraError
        If it is an .xlsx file and openpyxl is not installed.
    """
    header, records = _records(path, encoding)
    names = [" ".join(_text(name).lower().split()) for name in header]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise TableError(f"column {twice[0]!r} is there twice", path=path, remedy="remove or rename one of them")
    for column in required:
        if column not in names:
            close = difflib.get_close_matches(column, names, n=1)
            remedy = f"rename {close[0]!r} to {column!r}" if close else f"add the column {column!r}"
            found = ", ".join(filter(None, names))
            raise TableError(f"expected a column {column!r}, found {found}", path=path, remedy=remedy)
    rows = [TableRow(path=path, number=number, cells=_cells(names, record)) for number, record in records]
    rows = [row for row in rows if row.cells]
    if not rows:
        raise TableError("the table holds no rows", path=path, remedy="give one row an image")
    return rows


def read_rows_in(path: Path, required: Iterable[str], encoding: str | None) -> list[TableRow]:
    """Read a table whose encoding can be named with ``--encoding``: as `read_rows`, and a fault of it says so."""
    try:
        return read_rows(path, required, encoding=encoding)
    except TableError as fault:
        if not isinstance(fault.__cause__, UnicodeError):
            raise
        remedy = (
            "save it as CSV in UTF-8, or name its encoding: --encoding cp1252 for what Excel writes in Western Europe"
        )
        raise TableError(fault.message, path=path, remedy=remedy) from fault


def _cells(names: Sequence[str], record: Sequence[Any]) -> dict[str, str]:
    texts = {name: _text(value) for name, value in zip(names, record, strict=True)}
    return {name: text for name, text in texts.items() if name and text.lower() not in _MISSING}


def _text(value: object) -> str:
    """Text of a cell, as it would stand in a CSV file."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value).strip()


Records = tuple[list[Any], list[tuple[int, list[Any]]]]
"""Names of the columns, and the rows with their numbers."""


def _records(path: Path, encoding: str | None) -> Records:
    csv_records = functools.partial(_csv_records, encoding=encoding)
    readers: Mapping[str, Callable[[Path, bytes], Records]]
    readers = {".csv": csv_records, ".tsv": csv_records, ".xlsx": _xlsx_records, ".parquet": _parquet_records}
    if path.suffix.lower() not in readers:
        reason = f"expected a table as .csv, .xlsx or .parquet, found {path.suffix or 'no suffix'!r}"
        raise TableError(reason, path=path, remedy="save it as CSV in UTF-8")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TableError("the table is missing", path=path, remedy="check the name and the folder") from error
    except OSError as error:
        raise TableError(f"could not be read: {error.strerror}", path=path, remedy="make it a readable file") from error
    if not content:
        raise TableError("expected a table, found an empty file (0 bytes)", path=path, remedy="save it again")
    return readers[path.suffix.lower()](path, content)


def _csv_records(path: Path, content: bytes, *, encoding: str | None) -> Records:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    expected = encoding or ("utf-16" if marked else "utf-8-sig")
    try:
        text = content.decode(expected).removeprefix("\ufeff")
    except LookupError as error:
        reason = f"expected the name of an encoding, found {expected!r}"
        raise TableError(reason, path=path, remedy="name one that Python knows, such as cp1252") from error
    except UnicodeError as error:
        name = encoding or ("UTF-16" if marked else "UTF-8")
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        reason = f"expected {name}, found another encoding{where}"
        raise TableError(reason, path=path, remedy="save it as CSV in UTF-8") from error
    # What stands in quotes separates nothing.
    first_line = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    separator = max(",;\t", key=first_line.count)
    # An outline of some thousand points is longer than a cell may be by default.
    usual = csv.field_size_limit(len(text) + 1)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise TableError(f"is not CSV: {error}", path=path, remedy="save it as CSV in UTF-8") from error
    finally:
        csv.field_size_limit(usual)
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if any(map(str.strip, line))]
    if not numbered:
        raise TableError("the table holds no rows", path=path, remedy="give one row an image")
    header = numbered[0][1]
    for number, line in numbered:
        if len(line) != len(header):
            reason = f"row {number}: expected {len(header)} cells, as there are columns, found {len(line)}"
            raise TableError(reason, path=path, remedy="correct the row; put a cell that holds a comma in quotes")
    return header, numbered[1:]


def _xlsx_records(path: Path, content: bytes) -> Records:
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError("openpyxl", "study") from error
    try:
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        numbered = list(_filled(workbook.worksheets[0].iter_rows(max_col=_MOST_COLUMNS, values_only=True)))
    except _NO_WORKBOOK as error:
        raise TableError(f"is not an .xlsx workbook: {error}", path=path, remedy="save it as CSV in UTF-8") from error
    if not numbered:
        raise TableError("the first sheet holds no rows", path=path, remedy="give one row an image")
    width = max(len(line) for _, line in numbered)
    padded = [(number, line + [None] * (width - len(line))) for number, line in numbered]
    return padded[0][1], padded[1:]


def _parquet_records(path: Path, content: bytes) -> Records:
    try:
        table = pq.read_table(io.BytesIO(content))
        columns = [column.to_pylist() for column in table.columns]
    # Of what is damaged it says as it comes: by its own errors, or by those of a file or a text.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"is not a Parquet file: {error}", path=path, remedy="save it as CSV in UTF-8") from error
    return list(table.column_names), [(number, list(line)) for number, line in enumerate(zip(*columns, strict=True), 2)]


def _filled(lines: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, list[Any]]]:
    """Take the rows of a sheet in which something stands, up to their last such cell, with their numbers from 1."""
    for number, line in enumerate(lines, start=1):
        # Counted first, since that is done in no time: a blank far below makes a sheet a million rows.
        if line.count(None) < len(line):
            last = max(place for place, value in enumerate(line, start=1) if value is not None)
            yield number, list(line[:last])


def numbers_in(text: str) -> list[float]:
    """Numbers in a text, separated by spaces, commas or semicolons.

    Raises
    ------
    ValueError
        If something else stands between them.
    """
    return [float(word) for word in re.split(r"[\s,;]+", text.strip("[]() \t"))]
