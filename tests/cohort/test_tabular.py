from __future__ import annotations

import datetime
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import openpyxl
import pandas as pd
import pytest

from osteoscope.cohort.tabular import TableRow, numbers_in, read_rows
from osteoscope.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = ("Patient", " image ", "age")
LINES = (("1", "a.png", 12), ("2", "b.png", None))


def csv_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def xlsx_file(tmp_path: Path, *lines: tuple[Any, ...]) -> Path:
    workbook = openpyxl.Workbook()
    for line in lines:
        workbook.worksheets[0].append(line)
    workbook.save(tmp_path / "table.xlsx")
    return tmp_path / "table.xlsx"


def refused(path: Path, match: str, required: tuple[str, ...] = ()) -> None:
    with pytest.raises(TableError, match=match) as fault:
        read_rows(path, required)
    assert fault.value.path == path
    assert fault.value.remedy


# What is read


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tab", "bom", "crlf", "xlsx", "parquet"])
def test_a_table_reads_the_same_in_every_form(tmp_path: Path, kind: str) -> None:
    text = "Patient, image ,age\n1,a.png,12\n2,b.png,\n"
    if kind == "xlsx":
        path = xlsx_file(tmp_path, HEADER, *LINES)
    elif kind == "parquet":
        path = tmp_path / "table.parquet"
        pd.DataFrame(LINES, columns=list(HEADER)).to_parquet(path)
    else:
        separator = {"semicolon": ";", "tab": "\t"}.get(kind, ",")
        content = text.replace(",", separator).replace("\n", "\r\n" if kind == "crlf" else "\n").encode()
        path = csv_file(tmp_path, b"\xef\xbb\xbf" + content if kind == "bom" else content)
    rows = read_rows(path, ["patient", "image"])
    assert [(row.number, dict(row.cells)) for row in rows] == [
        (2, {"patient": "1", "image": "a.png", "age": "12"}),
        (3, {"patient": "2", "image": "b.png"}),
    ]


def test_words_for_a_missing_value_are_missing(tmp_path: Path) -> None:
    rows = read_rows(csv_file(tmp_path, "patient,age\n1,NaN\n2,n/a\n3, \n4,NA\n5,7\n"), [])
    assert [row.age("age") for row in rows] == [None, None, None, None, 7.0]


def test_row_numbers_are_those_of_the_spreadsheet(tmp_path: Path) -> None:
    assert [row.number for row in read_rows(csv_file(tmp_path, "a,b\n\n1,2\n,\n3,4\n"), [])] == [3, 5]
    assert [row.number for row in read_rows(xlsx_file(tmp_path, ("a",), (1,), (), (3,)), [])] == [2, 4]


def test_quotes_hold_separators_and_line_ends(tmp_path: Path) -> None:
    (row,) = read_rows(csv_file(tmp_path, 'a,b\n"1,5","two\nlines"\n'), [])
    assert row.cells == {"a": "1,5", "b": "two\nlines"}


def test_what_stands_in_a_quoted_name_of_a_column_separates_nothing(tmp_path: Path) -> None:
    path = csv_file(tmp_path, 'patient;image;label;"notes (site, side, grade, stage)"\n1;a.png;b;none\n')
    (row,) = read_rows(path, ["patient", "image", "label"])
    assert dict(row.cells)["notes (site, side, grade, stage)"] == "none"


def test_a_cell_may_hold_a_long_outline(tmp_path: Path) -> None:
    outline = "1.5 " * 50_000
    (row,) = read_rows(csv_file(tmp_path, f"patient,outline\n1,{outline}\n"), ["patient"])
    assert row.cells["outline"] == outline.strip()


def test_a_blank_in_the_last_cell_of_a_sheet_takes_no_memory(tmp_path: Path) -> None:
    path = xlsx_file(tmp_path, HEADER, *LINES)
    workbook = openpyxl.load_workbook(path)
    workbook.worksheets[0].cell(row=100_000, column=16_384, value=" ")
    workbook.save(path)
    tracemalloc.start()
    rows = read_rows(path, ["patient"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.cells["patient"] for row in rows] == ["1", "2"]
    # Each of its rows by itself is 128 KB.
    assert peak < 20e6


def test_a_column_without_a_name_is_ignored(tmp_path: Path) -> None:
    (row,) = read_rows(csv_file(tmp_path, ",a,\n0,1,2\n"), ["a"])
    assert row.cells == {"a": "1"}


def test_a_spreadsheets_dates_and_whole_numbers_are_read_as_they_look(tmp_path: Path) -> None:
    (row,) = read_rows(xlsx_file(tmp_path, ("day", "age", "id"), (datetime.datetime(2020, 3, 1), 12.5, 7.0)), [])
    assert row.cells == {"day": "2020-03-01", "age": "12.5", "id": "7"}
    assert row.date("day") == "2020-03-01"


# What is refused


def test_a_missing_empty_or_foreign_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "missing")
    refused(csv_file(tmp_path, ""), "0 bytes")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "could not be read")
    (tmp_path / "table.sav").write_bytes(b"x")
    refused(tmp_path / "table.sav", "'.sav'")


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_a_damaged_workbook_or_parquet_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_bytes(b"patient,image\n1,a.png\n")
    refused(path, "is not a")


def test_whatever_byte_of_a_workbook_or_parquet_file_is_wrong_it_is_read_or_refused(tmp_path: Path) -> None:
    paths = [xlsx_file(tmp_path, HEADER, *LINES), tmp_path / "table.parquet"]
    pd.DataFrame(LINES, columns=list(HEADER)).to_parquet(paths[1])
    for path in paths:
        whole, ends = path.read_bytes(), []
        for place in range(0, len(whole), 23):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            try:
                ends.append(bool(read_rows(path, ())))
            except TableError as fault:
                ends.append(fault.path == path)
        assert len(ends) > 50
        assert all(ends)


def test_a_workbook_that_openpyxl_stumbles_over_is_refused(tmp_path: Path) -> None:
    path = xlsx_file(tmp_path, HEADER, *LINES)
    with zipfile.ZipFile(path) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    members["xl/styles.xml"] = members["xl/styles.xml"].replace(b"<fill>", b"<fill/><fill>", 1)
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    refused(path, "is not an .xlsx workbook")


def test_another_encoding_is_refused_with_the_byte_unless_it_is_named(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "label\nmänn\n".encode("latin-1"))
    refused(path, "byte 7")
    with pytest.raises(TableError, match="save it as CSV in UTF-8"):
        read_rows(path, [])
    assert read_rows(path, [], encoding="cp1252")[0].cells == {"label": "männ"}
    with pytest.raises(TableError, match="expected the name of an encoding, found 'ansi-german'"):
        read_rows(path, [], encoding="ansi-german")


def test_utf_16_is_read_by_its_mark_and_refused_where_it_is_cut_off(tmp_path: Path) -> None:
    content = "label\nmänn\n".encode("utf-16")
    assert read_rows(csv_file(tmp_path, content), [])[0].cells == {"label": "männ"}
    refused(csv_file(tmp_path, content[:-1]), "expected UTF-16, found another encoding at byte 22")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    refused(csv_file(tmp_path, "image,age,Age\na,1,2\n"), "column 'age' is there twice")
    refused(xlsx_file(tmp_path, ("image", "image"), ("a", "b")), "column 'image' is there twice")


def test_a_missing_column_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "patients,image\n1,a\n")
    refused(
        path, r"expected a column 'patient', found patients, image \(rename 'patients' to 'patient'\)", ("patient",)
    )
    refused(path, "add the column 'label'", ("label",))


@pytest.mark.parametrize("text", ["a,b\n", "a,b\n,\n\n", "\n\n"])
def test_a_table_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    refused(csv_file(tmp_path, text), "no rows")


def test_an_empty_workbook_is_refused(tmp_path: Path) -> None:
    refused(xlsx_file(tmp_path), "no rows")


@pytest.mark.parametrize("text", ["a,b\n1,2\n3\n", "a,b\n1,2\n3,4,5\n"])
def test_a_row_of_another_length_is_refused(tmp_path: Path, text: str) -> None:
    refused(csv_file(tmp_path, text), "row 3: expected 2 cells")


def test_an_open_quote_is_refused(tmp_path: Path) -> None:
    refused(csv_file(tmp_path, 'a,b\n1,"2\n'), "is not CSV")


# Cells


def cell(tmp_path: Path, text: str) -> TableRow:
    return TableRow(path=tmp_path / "table.csv", number=9, cells={"x": text} if text else {})


@pytest.mark.parametrize(("text", "age"), [("", None), ("0", 0.0), ("12.5", 12.5), ("120", 120.0)])
def test_ages_are_read(tmp_path: Path, text: str, age: float | None) -> None:
    assert cell(tmp_path, text).age("x") == age


@pytest.mark.parametrize("text", ["twelve", "-1", "121", "inf", "012Y", "1e9"])
def test_an_age_that_cannot_be_is_refused_with_row_and_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(TableError, match=f"row 9, column 'x': expected an age in years from 0 to 120, found '{text}'"):
        cell(tmp_path, text).age("x")


@pytest.mark.parametrize(
    ("text", "sex"),
    [("F", "F"), ("female", "F"), ("w", "F"), ("Male", "M"), ("m", "M"), ("", None), ("O", None), ("unknown", None)],
)
def test_sexes_are_read(tmp_path: Path, text: str, sex: str | None) -> None:
    assert cell(tmp_path, text).sex("x") == sex


@pytest.mark.parametrize(("text", "flag"), [("1", True), ("Yes", True), ("0", False), ("FALSE", False), ("", None)])
def test_flags_are_read(tmp_path: Path, text: str, flag: bool | None) -> None:
    assert cell(tmp_path, text).flag("x") is flag


def test_other_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="expected F or M, found '1'"):
        cell(tmp_path, "1").sex("x")
    with pytest.raises(TableError, match="expected yes or no, found 'maybe'"):
        cell(tmp_path, "maybe").flag("x")
    with pytest.raises(TableError, match=r"expected a date as YYYY-MM-DD, found '1\.3\.2020'"):
        cell(tmp_path, "1.3.2020").date("x")
    with pytest.raises(TableError, match="expected a value, found nothing"):
        cell(tmp_path, "").required("x")


@pytest.mark.parametrize("text", ["1 2.5 -3 4", "1, 2.5, -3, 4", "[1;2.5;-3;4]", "(1,2.5,-3,4)"])
def test_numbers_are_read_however_they_are_separated(text: str) -> None:
    assert numbers_in(text) == [1, 2.5, -3, 4]
