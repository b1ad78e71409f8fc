"""The index of an archive: what it knows, what it reads again, and what it says of what it cannot read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from archives import PLANES, write_archive, write_ct, write_mr
from conftest import shared_data

from osteoscope.cohort.archive import indexing, reading
from osteoscope.cohort.archive.database import opened_index
from osteoscope.cohort.archive.facts import Facts
from osteoscope.cohort.archive.indexing import Indexed, update_index
from osteoscope.errors import InputError, StorageError
from osteoscope.imaging.signature import kind_of

if TYPE_CHECKING:
    from pathlib import Path


def index(root: Path, path: Path, jobs: int = 1) -> Indexed:
    with opened_index(path) as connection:
        return update_index(connection, root, jobs=jobs)


def asked(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", 2)


def test_a_second_run_reads_nothing_and_the_index_is_its_owners_alone(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    first = index(archive, path)
    assert (first.files, first.new, first.dicom, first.unchanged) == (2 * PLANES, 2 * PLANES, 2 * PLANES, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    age(archive)
    time.sleep(0.1)
    index(archive, path)

    def fail(*_: object) -> None:
        pytest.fail("a file was read again")

    monkeypatch.setattr(indexing, "read_batch", fail)
    again = index(archive, path)
    assert (again.files, again.unchanged, again.new, again.changed) == (2 * PLANES, 2 * PLANES, 0, 0)


def age(root: Path) -> None:
    """Let files have been written long ago, as an archive's have: what was written just now may change unseen."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))


def test_headers_are_read_as_pydicom_reads_them(tmp_path: Path) -> None:
    root = shared_data("dicom") / "pydicom" / "test_files" / "dicomdirtests"
    path = tmp_path / "index.sqlite"
    index(root, path)
    found = {
        os.fsdecode(name): row
        for name, *row in asked(
            path,
            "SELECT path, identifier, name, study, series, instance, accession"
            " FROM files JOIN stacks ON stacks.id = stack",
        )
    }
    assert len(found) > 60
    keywords = (
        "PatientID",
        "PatientName",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "AccessionNumber",
    )
    for name, row in found.items():
        data_set = pydicom.dcmread(root / name, stop_before_pixels=True)
        assert row == [str(data_set.get(keyword, "")).strip() for keyword in keywords], name


def test_a_moved_file_is_told_from_a_changed_and_a_lost_one(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "index.sqlite"
    index(archive, path)
    (archive / "elsewhere").mkdir()
    moved, changed, lost, *_ = sorted((archive / "p0").iterdir())
    moved.rename(archive / "elsewhere" / "renamed")
    lost.unlink()
    data_set = pydicom.dcmread(changed)
    data_set.SeriesNumber = 9
    data_set.save_as(changed)
    found = index(archive, path)
    assert (found.moved, found.changed, found.gone, found.new) == (1, 1, 1, 0)
    assert found.files == 2 * PLANES - 1


def test_of_two_equal_files_made_one_only_one_was_moved(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "index.sqlite"
    first = min((archive / "p0").iterdir())
    shutil.copy(first, archive / "twin")
    index(archive, path)
    (archive / "twin").rename(archive / "one")
    first.unlink()
    found = index(archive, path)
    assert (found.moved, found.gone, found.new) == (1, 1, 0)


def test_what_was_corrected_in_a_header_is_known_after_the_next_run(tmp_path: Path) -> None:
    root, path = tmp_path / "archive", tmp_path / "index.sqlite"
    write_ct(root, 1, AccessionNumber="OLD", StudyDate="20200110")
    index(root, path)
    write_ct(root, 1, AccessionNumber="NEW", StudyDate="20210615")
    index(root, path)
    ((accession, facts),) = asked(path, "SELECT accession, facts FROM stacks")
    assert (accession, Facts.from_json(facts).date) == ("NEW", "2021-06-15")


def test_a_series_whose_files_write_the_name_in_two_ways_is_one(tmp_path: Path) -> None:
    root, path = tmp_path / "archive", tmp_path / "index.sqlite"
    for file in write_ct(root, 1, PatientName="Doe^Jane")[::2]:
        data_set = pydicom.dcmread(file)
        data_set.PatientName = "DOE^JANE^^^"
        data_set.save_as(file)
    index(root, path)
    ((stack, files),) = asked(path, "SELECT stack, count(*) FROM files GROUP BY stack")
    assert stack
    assert files == PLANES


def test_an_index_of_before_reads_all_again_and_keeps_the_order_of_patients(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "index.sqlite"
    index(archive, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE IF NOT EXISTS identifiers (place INTEGER PRIMARY KEY, identifier TEXT NOT NULL UNIQUE);"
            "INSERT INTO identifiers (identifier) VALUES ('first'); PRAGMA user_version = 1;"
        )
    found = index(archive, path)
    assert (found.new, found.unchanged, found.files) == (2 * PLANES, 0, 2 * PLANES)
    assert asked(path, "SELECT identifier FROM identifiers") == [("first",)]


def test_members_of_a_zip_for_which_there_was_no_space_are_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = tmp_path / "archive", tmp_path / "index.sqlite"
    root.mkdir()
    with zipfile.ZipFile(root / "export.zip", "w") as packed:
        for number, file in enumerate(write_ct(tmp_path / "ct", 1, planes=2)):
            packed.write(file, f"{number}.dcm")
    age(root)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        assert index(root, path).refused == 2
    found = index(root, path)
    assert (found.refused, found.dicom) == (0, 2)


def test_a_file_that_was_written_again_with_the_same_content_is_unchanged(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "index.sqlite"
    index(archive, path)
    for file in (archive / "p0").iterdir():
        file.write_bytes(file.read_bytes())
    assert index(archive, path).unchanged == 2 * PLANES


def test_members_of_zips_are_indexed_and_a_zip_in_a_zip_is_said_and_left(tmp_path: Path, archive: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.write(next((archive / "p0").iterdir()), "a")
    with zipfile.ZipFile(archive / "p1.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in (archive / "p1").iterdir():
            zipped.write(file, f"p1/{file.name}")
        zipped.write(tmp_path / "inner.zip", "inner.zip")
    shutil.rmtree(archive / "p1")
    path = tmp_path / "index.sqlite"
    found = index(archive, path)
    # The zip itself is a file, too.
    assert (found.files, found.dicom, found.refused) == (2 * PLANES + 2, 2 * PLANES, 1)
    assert asked(path, "SELECT sentence FROM files WHERE kind = 'refused'") == [
        ("expected images in the zip, found a zip",)
    ]
    age(archive)
    index(archive, path)
    assert index(archive, path).unchanged == 2 * PLANES + 2


def test_what_is_no_dicom_is_counted_and_what_cannot_be_read_is_listed(tmp_path: Path, archive: Path) -> None:
    (archive / "report.txt").write_text("nothing")
    (archive / "broken.zip").write_bytes(b"PK\x03\x04 no zip")
    whole = next((archive / "p0").iterdir()).read_bytes()
    (archive / "cut").write_bytes(whole[:400])
    os.mkfifo(archive / "pipe")
    (archive / "link").symlink_to(archive / "nothing")
    (archive / "p0" / "circle").symlink_to(archive)
    path = tmp_path / "index.sqlite"
    found = index(archive, path)
    assert (found.dicom, found.other, found.refused) == (2 * PLANES, 1, 4)
    told = {
        os.fsdecode(name): code for name, code in asked(path, "SELECT path, code FROM files WHERE kind = 'refused'")
    }
    assert told == {"broken.zip": "damaged", "cut": "damaged", "pipe": "unreadable", "link": "unreadable"}


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_archive(tmp_path / "archive", 3)
    monkeypatch.setattr(indexing, "BATCH", 2)
    query = "SELECT path, content, instance, digest, place FROM files JOIN stacks ON stacks.id = stack ORDER BY path"
    assert index(root, tmp_path / "one.sqlite") == index(root, tmp_path / "two.sqlite", jobs=2)
    assert asked(tmp_path / "one.sqlite", query) == asked(tmp_path / "two.sqlite", query)


KILLED = """
import os, sys
from pathlib import Path
from osteoscope.cohort.archive import indexing, reading
from osteoscope.cohort.archive.database import opened_index

indexing.BATCH = 3
class Killed(indexing._Update):
    batches = 0
    def keep(self, batch):
        Killed.batches += 1
        if Killed.batches == 3:
            os.kill(os.getpid(), 9)
        super().keep(batch)
indexing._Update = Killed
with opened_index(Path(sys.argv[2])) as connection:
    indexing.update_index(connection, Path(sys.argv[1]), jobs=1)
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, archive: Path) -> None:
    age(archive)
    path = tmp_path / "index.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, archive, path], check=False)
    assert done.returncode == -9
    assert asked(path, "SELECT count(*) FROM files") == [(6,)]
    found = index(archive, path)
    # What was written just before may have changed unseen since, so it is hashed again, but not read.
    assert (found.files, found.unchanged, found.new) == (2 * PLANES, 6, 2 * PLANES - 6)


def test_a_zip_of_which_a_killed_run_read_a_part_is_read_to_its_end(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(archive / "p1.zip", "w") as zipped:
        for file in (archive / "p1").iterdir():
            zipped.write(file, file.name)
    shutil.rmtree(archive / "p1")
    path = tmp_path / "index.sqlite"
    index(archive, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM files WHERE member IN (1, 4)")
    found = index(archive, path)
    assert (found.files, found.new) == (2 * PLANES + 1, 2)


def test_a_file_that_changes_while_it_is_read_is_said_and_read_the_next_time(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = min((archive / "p0").iterdir())

    def change(start: bytes) -> Any:
        with victim.open("ab") as stream:
            stream.write(b"\0\0")
        return kind_of(start)

    path = tmp_path / "index.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(reading, "kind_of", change)
        index(archive / "p0", path)
    assert asked(path, "SELECT code FROM files WHERE kind = 'refused'") == [("changed",)]
    assert index(archive / "p0", path).refused == 0


def test_facts_are_read_from_codes_and_words(tmp_path: Path) -> None:
    write_ct(
        tmp_path / "a" / "ct",
        1,
        SeriesDescription="LWS nativ MPR",
        ConvolutionKernel="B60s",
        BodyPartExamined="LSPINE",
        SliceThickness=2,
        AcquisitionDate="20200109",
    )
    write_mr(tmp_path / "a" / "mr", 1, SeriesDescription="t1_tse_sag KM", ContrastBolusAgent="Gadovist")
    path = tmp_path / "index.sqlite"
    index(tmp_path / "a", path)
    ct, mr = (Facts.from_json(text) for (text,) in asked(path, "SELECT facts FROM stacks ORDER BY series"))
    assert (ct.kind, ct.plane, ct.kernel, ct.contrast, ct.derivation) == ("CT", "axial", "bone", False, "reformatted")
    assert (ct.body_part, ct.described, ct.thickness, ct.date) == (
        ("lumbar", "spine"),
        ("lumbar", "spine"),
        2.0,
        "2020-01-09",
    )
    assert (mr.kind, mr.plane, mr.weighting, mr.contrast) == ("MR", "sagittal", "T1", True)


def test_an_index_that_others_may_read_that_is_none_or_that_is_in_use_is_refused(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "index.sqlite"
    index(archive, path)
    with opened_index(path), pytest.raises(StorageError, match="another process uses the index"):
        index(archive, path)
    path.chmod(0o644)
    with pytest.raises(InputError, match=r"mode 600.*found mode 644"):
        index(archive, path)
    other = tmp_path / "other"
    other.write_bytes(b"no database at all" * 100)
    other.chmod(0o600)
    with pytest.raises(InputError, match="is damaged, or is no index"):
        index(archive, other)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    path.chmod(0o600)
    with pytest.raises(InputError, match="expected an index of schema 4, found 99"):
        index(archive, path)


def index_without_space(root: Path, path: Path) -> None:
    """Index where there is next to no space left."""
    with opened_index(path) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        update_index(connection, root, jobs=1)


def test_no_space_for_the_index_is_said_and_a_second_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "many", 8)
    monkeypatch.setattr(indexing, "BATCH", 6)
    path = tmp_path / "index.sqlite"
    with pytest.raises(StorageError, match=r"no space left on device \(free some space.*goes on where it stopped"):
        index_without_space(archive, path)
    assert 0 < asked(path, "SELECT count(*) FROM files")[0][0] < 8 * PLANES
    assert index(archive, path).files == 8 * PLANES
