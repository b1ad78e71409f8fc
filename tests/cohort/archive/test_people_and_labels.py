"""Who is one patient, and whose a row of the label table is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from archives import GCT, OS, person, write_ct, write_labels

from osteoscope.cohort.archive.database import opened_index
from osteoscope.cohort.archive.indexing import update_index
from osteoscope.cohort.archive.labels import Joined, join_labels, read_labels
from osteoscope.cohort.archive.people import People, people_in
from osteoscope.errors import TableError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def indexed(root: Path) -> Iterator[tuple[sqlite3.Connection, People]]:
    with opened_index(root.with_suffix(".sqlite")) as connection:
        update_index(connection, root, jobs=1)
        yield connection, people_in(connection)


def people_of(root: Path) -> People:
    with indexed(root) as (_, people):
        return people


def joined(root: Path, *rows: dict[str, str], **options: Any) -> Joined:
    table = write_labels(root.with_suffix(".csv"), rows, **options)
    with indexed(root) as (connection, people):
        return join_labels(read_labels(table), connection, people)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    for number in range(3):
        write_ct(folder / f"p{number}", number, planes=1)
    return folder


def test_one_patient_under_two_identifiers_counts_once(root: Path) -> None:
    again = person(0, PatientID="EXT-7", PatientName="NOBODY P0", StudyInstanceUID="1.2.9")
    write_ct(root / "again", 0, planes=1, seed=7, **{**again, "SeriesInstanceUID": "1.2.9.1"})
    people = people_of(root)
    assert people.of["EXT-7"] == people.of["00000"] == "00000"
    assert people.joined == {"00000": ("EXT-7",)}


def test_identifiers_that_share_a_study_are_one_patient_unless_they_are_different_people(root: Path) -> None:
    unnamed = person(1, PatientID="B-1", PatientName=None, PatientBirthDate=None, PatientSex=None)
    write_ct(root / "unnamed", 1, planes=1, seed=8, **unnamed)
    # Two patients with the same UIDs, as a faulty exporter writes them.
    write_ct(root / "other", 2, planes=1, seed=9, **person(3, StudyInstanceUID="1.2.3.2"))
    people = people_of(root)
    assert people.joined == {"00001": ("B-1",)}
    assert people.shared_studies == {"1.2.3.2"}
    assert people.of["00003"] != people.of["00002"]


def test_two_identifiers_of_a_study_are_one_patient_though_a_third_person_has_it_too(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    same: dict[str, Any] = {"planes": 1, "StudyInstanceUID": "9.9", "FrameOfReferenceUID": "9.9.0"}
    write_ct(root / "a", 0, SeriesInstanceUID="9.1", PatientID="A", **same)
    write_ct(root / "b", 1, SeriesInstanceUID="9.2", PatientID="B", **same)
    write_ct(root / "c", 1, seed=5, SeriesInstanceUID="9.3", PatientID="C", PatientBirthDate=None, **same)
    people = people_of(root)
    assert people.of == {"A": "A", "B": "B", "C": "B"}
    assert people.shared_studies == {"9.9"}


def test_what_a_tool_wrote_for_several_patients_joins_none_of_them(root: Path) -> None:
    nobody = {"PatientID": "ANON", "PatientName": "Anonymous", "PatientBirthDate": None, "PatientSex": None}
    for number in (1, 2):
        write_ct(root / f"tool{number}", number, planes=1, seed=20 + number, **person(number, **nobody))
    people = people_of(root)
    assert people.joined == {}
    assert people.of["ANON"] == "ANON"
    assert people.shared_studies == {"1.2.3.1", "1.2.3.2"}


def test_identifiers_of_which_little_is_said_join_no_two_people_by_a_chain(root: Path) -> None:
    nobody = {"PatientName": None, "PatientBirthDate": None, "PatientSex": None}
    chain = [("X", "1.2.3.1"), ("X", "7.7"), ("Y", "7.7"), ("Y", "1.2.3.2")]
    for place, (identifier, study) in enumerate(chain):
        elements = person(0, PatientID=identifier, StudyInstanceUID=study, **nobody)
        write_ct(root / f"chain{place}", 0, planes=1, seed=40 + place, **elements)
    people = people_of(root)
    assert people.of["00001"] != people.of["00002"]


def test_a_patient_keeps_the_identifier_that_was_known_first(root: Path) -> None:
    assert people_of(root).of["00001"] == "00001"
    smaller = person(1, PatientID="00000-0", StudyInstanceUID="1.2.9")
    write_ct(root / "smaller", 1, planes=1, seed=7, **{**smaller, "SeriesInstanceUID": "1.2.9.1"})
    people = people_of(root)
    assert people.of["00000-0"] == people.of["00001"] == "00001"
    # An index that meets both at once takes the first in order.
    root.with_suffix(".sqlite").unlink()
    assert people_of(root).of["00001"] == "00000-0"


def test_two_people_under_one_identifier_cannot_be_told_apart(root: Path) -> None:
    other = {"PatientBirthDate": "19991231", "PatientName": "Other^Berta", "StudyInstanceUID": "1.2.8"}
    write_ct(root / "other", 0, planes=1, seed=9, **other)
    assert people_of(root).several == {
        "00000": "its identifier stands with 2 names and 2 birth dates, so that it may be of several people"
    }


def test_one_slip_in_a_header_does_not_make_two_people(root: Path) -> None:
    write_ct(root / "slip", 0, planes=1, seed=9, PatientBirthDate="19500403", StudyInstanceUID="1.2.8")
    people = people_of(root)
    assert (people.several, people.unsure) == ({}, 1)


def test_what_an_anonymiser_writes_joins_nobody(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for number in range(3):
        write_ct(root / f"a{number}", number, planes=1, PatientName="Anonymous", PatientBirthDate="19000101")
    for number in range(3, 8):
        same: dict[str, Any] = {"PatientName": "Study^Subject", "PatientBirthDate": "19700202", "PatientSex": "O"}
        write_ct(root / f"b{number}", number, planes=1, **same)
    assert not people_of(root).joined


def test_a_study_that_an_anonymiser_writes_for_everybody_joins_nobody(tmp_path: Path) -> None:
    nobody = {"PatientName": None, "PatientBirthDate": None, "PatientSex": None, "StudyInstanceUID": "9.9"}
    for number in range(25):
        own = person(number, PatientID=f"A-{number:02}", **nobody)
        write_ct(tmp_path / "archive" / f"{number}", number, planes=1, **own)
    people = people_of(tmp_path / "archive")
    assert people.of == {f"A-{number:02}": f"A-{number:02}" for number in range(25)}
    assert people.shared_studies == {"9.9"}


def test_rows_join_by_patient_study_or_accession_number(root: Path) -> None:
    found = joined(
        root,
        {"patient": "00000", "label": OS, "age": "31", "sex": "f", "proof": "histology", "biopsy_date": "2020-02-01"},
        {"study": "1.2.3.1", "label": GCT},
        {"accession": "A2", "label": GCT, "level": "L3"},
    )
    assert {patient: label.label for patient, label in found.labels.items()} == {
        "00000": OS,
        "00001": GCT,
        "00002": GCT,
    }
    first = found.labels["00000"]
    assert (first.age, first.sex, first.proof, first.biopsy_date) == (31, "F", "histology", "2020-02-01")
    assert found.labels["00001"].studies == found.labels["00001"].studies | {"1.2.3.1"}
    assert found.labels["00002"].studies == {"1.2.3.2"}
    assert not first.studies
    assert not found.notes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"patient": "77", "label": OS}, "is not in the archive: row 2."),
        ({"patient": "1", "label": OS}, "only if zeros at its start are added"),
        ({"patient": "00000", "accession": "A1", "label": OS}, "are not of one patient: row 2."),
        ({"patient": "", "study": "", "label": OS}, "they name no patient, study or accession number"),
        ({"patient": "00000", "study": "1.2.99", "label": OS}, "the study or accession number that they name is not"),
        ({"patient": "00000", "accession": "A99", "label": OS}, "the study or accession number that they name is not"),
    ],
    ids=["unknown", "zeros", "contradiction", "empty", "study", "accession"],
)
def test_a_row_that_joins_nobody_is_said(root: Path, row: dict[str, str], reason: str) -> None:
    found = joined(root, row, {"patient": "00002", "label": GCT})
    assert set(found.labels) == {"00002"}
    (note,) = found.notes
    assert note.startswith("1 of 2 rows of the label table joined nobody")
    assert reason in note


def test_two_labels_for_one_patient_give_none(root: Path) -> None:
    found = joined(root, {"patient": "00000", "label": OS}, {"patient": "00000", "label": GCT})
    assert not found.labels
    assert found.refused == {"00000": f"rows 2 and 3 of the label table give it the label {GCT!r} and {OS!r}"}


def test_two_rows_that_agree_are_one(root: Path) -> None:
    found = joined(
        root,
        {"patient": "00000", "label": OS, "biopsy_date": "2020-03-01"},
        {"patient": "00000", "label": OS, "biopsy_date": "2020-02-01", "site": "spine"},
    )
    assert (found.labels["00000"].biopsy_date, found.labels["00000"].site) == ("2020-02-01", "spine")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_with_a_byte_order_mark_and_semicolons_is_read(root: Path, encoding: str) -> None:
    row = {"patient": "00001", "label": "Riesenzelltumor, größer"}
    assert joined(root, row, encoding=encoding, separator=";").labels["00001"].label == "Riesenzelltumor, größer"


def test_a_table_in_another_encoding_is_refused_until_it_is_named(root: Path) -> None:
    table = write_labels(root.with_suffix(".csv"), [{"patient": "00001", "label": "größer"}], "cp1252", ";")
    with pytest.raises(TableError, match=r"expected UTF-8, found another encoding.*--encoding cp1252"):
        read_labels(table)
    assert read_labels(table, encoding="cp1252")[0].cells["label"] == "größer"


def test_a_table_without_anything_to_join_by_is_refused(tmp_path: Path) -> None:
    table = write_labels(tmp_path / "labels.csv", [{"name": "x", "label": OS}])
    with pytest.raises(TableError, match="expected a column 'patient', 'study' or 'accession' with values"):
        read_labels(table)
    table = write_labels(tmp_path / "labels.csv", [{"patient": "x", "diagnosis": OS}])
    with pytest.raises(TableError, match="expected a column 'label'"):
        read_labels(table)
