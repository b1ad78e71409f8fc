"""A folder: every file once, a run that goes on, and lists of what was left out."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom, write_series

from osteoscope.cohort.deidentify import Key, deidentify_folder
from osteoscope.cohort.deidentify import folder as folder_module
from osteoscope.cohort.deidentify.profile import PROFILE_VERSION
from osteoscope.errors import ConfigError, InputError, StorageError
from osteoscope.storage import LOCK

SCAN = np.random.default_rng(0).integers(0, 400, (4, 32, 32), dtype=np.uint16)


def archive(folder: Path) -> Path:
    """Write two patients, a captured screen, a file that is none, and a copy."""
    write_series(folder / "Nobody Anna" / "ct", SCAN, PatientID="1", StudyDate="20240401")
    write_series(folder / "b" / "deep" / "er", SCAN[:2] + 1, series="b", PatientID="2", StudyDate="20240401")
    write_dicom(folder / "Nobody Anna" / "screen.dcm", SCAN[0], "SC", series="c", PatientID="1")
    (folder / "note.txt").write_text("a note\n")
    first = sorted((folder / "Nobody Anna" / "ct").iterdir())[0]
    shutil.copy(first, folder / "copy.dcm")
    return folder


def written(output: Path) -> list[Path]:
    return sorted(output.rglob("*.dcm"))


def left_out(output: Path) -> dict[str, tuple[str, str]]:
    with output.with_name(f"{output.name}.left-out.csv").open(encoding="utf-8", newline="") as stream:
        return {row["file"]: (row["outcome"], row["reason"]) for row in csv.DictReader(stream)}


def test_files_go_to_a_folder_of_patient_study_and_series(tmp_path: Path) -> None:
    report = deidentify_folder(archive(tmp_path / "in"), tmp_path / "out")
    key = Key.open(tmp_path / "out.key.json")
    assert (report["written"], report["copies"], report["patients"]) == (6, 1, 2)
    assert report["quarantined"] == {"a captured screen or a scanned film": 1}
    assert left_out(tmp_path / "out")["Nobody Anna/screen.dcm"][0] == "quarantined"
    for path in written(tmp_path / "out"):
        patient, study, series, name = path.relative_to(tmp_path / "out").parts
        found = pydicom.dcmread(path)
        assert patient == found.PatientID in (key.patient("1"), key.patient("2"))
        assert (study[:2], series[:2]) == ("S-", "R-")
        assert int(name[:5]) == found.InstanceNumber


def test_the_output_names_no_file_and_no_value_of_the_source(tmp_path: Path) -> None:
    deidentify_folder(archive(tmp_path / "in"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == {"report.json", "report.csv", LOCK}
    for path in (tmp_path / "out").rglob("*"):
        assert "Nobody" not in str(path.relative_to(tmp_path))
        assert path.is_dir() or b"Nobody" not in path.read_bytes()
    for path in tmp_path.glob("out.*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines()))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [{**row, "elements": int(row["elements"])} for row in rows] == report["actions"]
    (names,) = (row for row in report["actions"] if row["name"] == "PatientName")
    assert (names["action"], names["elements"]) == ("replaced", 6)


def test_a_second_run_takes_only_what_is_new_or_changed(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    first = deidentify_folder(source, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in written(tmp_path / "out")}
    assert deidentify_folder(source, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in written(tmp_path / "out")} == times
    write_series(source / "new", SCAN[:3] + 2, series="n", PatientID="1")
    gone = written(tmp_path / "out")[0]
    gone.unlink()
    again = deidentify_folder(source, tmp_path / "out")
    assert (again["written"], again["patients"]) == (9, 2)
    assert gone.exists()
    kept = [path for path in times if path != gone]
    assert [path.stat().st_mtime_ns for path in kept] == [times[path] for path in kept]


def test_files_that_are_moved_in_the_source_are_still_what_was_written(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    first = deidentify_folder(source, tmp_path / "out")
    (source / "elsewhere").mkdir()
    (source / "b").rename(source / "elsewhere" / "b")
    (source / "copy.dcm").unlink()
    moved = deidentify_folder(source, tmp_path / "out")
    assert moved == {**first, "copies": 0}
    for path in written(tmp_path / "out"):
        path.unlink()
    assert deidentify_folder(source, tmp_path / "out") == moved
    assert len(written(tmp_path / "out")) == moved["written"] == 6


def test_the_report_names_no_member_of_a_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    packed = tmp_path / "in" / "export.zip"
    with zipfile.ZipFile(packed, "w") as members:
        members.writestr("NOBODY_ANNA_19500102/1.dcm", b"damaged")
    packed.write_bytes(packed.read_bytes().replace(b"damaged", b"DAMAGED"))
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert sum(report["refused"].values()) == 1
    assert "NOBODY" not in (tmp_path / "out" / "report.json").read_text()


def test_no_space_left_half_way_leaves_whole_files_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, calls, sync = archive(tmp_path / "in"), [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="free some space"):
            deidentify_folder(source, tmp_path / "out")
    assert len(written(tmp_path / "out")) == 3  # the key was the first that was written
    assert not list((tmp_path / "out").rglob("*.tmp"))
    whole = deidentify_folder(source, tmp_path / "whole", key=tmp_path / "out.key.json")
    assert deidentify_folder(source, tmp_path / "out") == whole
    assert [path.read_bytes() for path in written(tmp_path / "out")] == [
        path.read_bytes() for path in written(tmp_path / "whole")
    ]


def test_a_journal_that_ends_within_a_line_is_gone_on_with(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    first = deidentify_folder(source, tmp_path / "out")
    journal = tmp_path / "out.journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    assert deidentify_folder(source, tmp_path / "out") == first


def test_a_damaged_journal_and_one_of_another_key_are_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    deidentify_folder(source, tmp_path / "out")
    (tmp_path / "out.key.json").unlink()
    with pytest.raises(ConfigError, match="made with another key"):
        deidentify_folder(source, tmp_path / "out")
    (tmp_path / "out.journal.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="found another file"):
        deidentify_folder(source, tmp_path / "out")
    (tmp_path / "out.journal.jsonl").write_text("no JSON\n")
    with pytest.raises(ConfigError, match="damaged"):
        deidentify_folder(source, tmp_path / "out")


def test_a_source_whose_path_is_no_utf_8_is_told_from_another(tmp_path: Path) -> None:
    source, other = (tmp_path / os.fsdecode(name) for name in (b"M\xfcller", b"M\xf6ller"))
    archive(tmp_path / "in").rename(source)
    shutil.copytree(source, other)
    report = deidentify_folder(source, tmp_path / "out")
    assert report["written"] == 6
    assert deidentify_folder(source, tmp_path / "out") == report
    with pytest.raises(ConfigError, match="made from another folder"):
        deidentify_folder(other, tmp_path / "out")


def test_files_are_released_by_a_list_once_a_person_has_looked(tmp_path: Path) -> None:
    source, names = archive(tmp_path / "in"), tmp_path / "names.txt"
    names.write_text("# looked at\nNobody Anna/screen.dcm\n\n")
    with pytest.raises(InputError, match="name 1 of the list"):
        deidentify_folder(source, tmp_path / "out", released=names)
    deidentify_folder(source, tmp_path / "out")
    report = deidentify_folder(source, tmp_path / "out", released=names)
    assert (report["written"], report["quarantined"]) == (7, {})
    assert deidentify_folder(source, tmp_path / "out") == report
    assert deidentify_folder(source, tmp_path / "out", released=names) == report
    names.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        deidentify_folder(source, tmp_path / "out", released=names)


def test_a_file_that_takes_the_place_of_a_released_one_is_looked_at_first(tmp_path: Path) -> None:
    source, names = tmp_path / "in", tmp_path / "names.txt"
    source.mkdir()
    write_dicom(source / "IM1.dcm", SCAN[0], "SC", PatientID="1")
    deidentify_folder(source, tmp_path / "out")
    names.write_text("IM1.dcm\n")
    assert deidentify_folder(source, tmp_path / "out", released=names)["written"] == 1
    write_dicom(source / "IM1.dcm", SCAN[1], "SC", PatientID="2")
    # Not in the next run with the same list, either.
    for _ in range(2):
        report = deidentify_folder(source, tmp_path / "out", released=names)
        assert (report["written"], sum(report["quarantined"].values())) == (0, 1)
    reason = left_out(tmp_path / "out")["IM1.dcm"][1]
    assert reason.startswith("it is not the file that was released")
    assert "a captured screen" in reason
    assert len(written(tmp_path / "out")) == 1
    row = (tmp_path / "out.left-out.csv").read_text(encoding="utf-8").splitlines()[1]
    names.write_text(f"{row}\n")
    assert deidentify_folder(source, tmp_path / "out", released=names)["written"] == 1
    write_dicom(source / "IM1.dcm", SCAN[2], "SC", PatientID="2")
    assert deidentify_folder(source, tmp_path / "out", released=names)["written"] == 0


def test_copies_of_an_older_profile_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, names = archive(tmp_path / "in"), tmp_path / "names.txt"
    names.write_text("Nobody Anna/screen.dcm\n")
    with zipfile.ZipFile(source / "z.zip", "w") as packed:
        packed.write(write_dicom(tmp_path / "m.dcm", SCAN[3], series="z", PatientID="3"), "m.dcm")
    deidentify_folder(source, tmp_path / "out")
    report = deidentify_folder(source, tmp_path / "out", released=names)
    paths = written(tmp_path / "out")
    assert len(paths) == 8
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b"as an older profile made it")
    deidentify_folder(source, tmp_path / "out")
    assert {path.read_bytes() for path in paths} == {b"as an older profile made it"}
    monkeypatch.setattr(folder_module, "PROFILE_VERSION", PROFILE_VERSION + 1)
    # What was released stays so, for it is the same file.
    assert deidentify_folder(source, tmp_path / "out") == report
    assert [path.read_bytes() for path in paths] == before


def test_zips_are_looked_into_and_a_zip_in_a_zip_is_listed(tmp_path: Path) -> None:
    plain = archive(tmp_path / "plain")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "export.zip", "w") as packed:
        for path in sorted(plain.rglob("*.dcm")):
            packed.write(path, path.relative_to(plain))
        packed.writestr("inner.zip", (tmp_path / "in" / "export.zip").read_bytes() or b"PK\x05\x06" + bytes(18))
    (tmp_path / "in" / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert (report["written"], report["copies"]) == (6, 1)
    listed = left_out(tmp_path / "out")
    assert listed["export.zip!Nobody Anna/screen.dcm"][0] == "quarantined"
    assert "found a zip" in listed["export.zip!inner.zip"][1]
    assert "broken.zip" in listed
    times = [path.stat().st_mtime_ns for path in written(tmp_path / "out")]
    assert deidentify_folder(tmp_path / "in", tmp_path / "out") == report
    assert [path.stat().st_mtime_ns for path in written(tmp_path / "out")] == times


def test_what_cannot_be_read_or_is_no_dicom_is_listed_with_the_reason(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    whole = (source / "copy.dcm").read_bytes()
    (source / "short.dcm").write_bytes(whole[:-300])
    (source / "strange.bin").write_bytes(b"\x01\x02\x03" * 400)
    (source / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    report = deidentify_folder(source, tmp_path / "out")
    assert report["written"] == 6
    listed = left_out(tmp_path / "out")
    assert "pixels" in listed["short.dcm"][1]
    assert listed["strange.bin"][0] == "refused"
    assert "expected DICOM, found PNG" in listed["picture.png"][1]


def test_two_patients_with_the_same_uids_are_kept_apart_and_named(tmp_path: Path) -> None:
    for patient in ("1", "2"):
        write_series(
            tmp_path / "in" / patient, SCAN, PatientID=patient, each=[{"SOPInstanceUID": f"1.2.{n}"} for n in range(4)]
        )
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    key = Key.open(tmp_path / "out.key.json")
    assert report["written"] == 8
    assert report["patients_with_one_uid"] == [sorted((key.patient("1"), key.patient("2")))]


def test_two_files_with_the_same_uids_and_other_pixels_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (0, 1):
        write_dicom(
            tmp_path / "in" / f"{number}.dcm", SCAN[number], PatientID="1", SOPInstanceUID="1.2.3", InstanceNumber=1
        )
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert (report["written"], report["refused"]) == (1, {"another file has the same UIDs and other content": 1})
    assert deidentify_folder(tmp_path / "in", tmp_path / "out") == report


def test_of_two_files_of_one_uid_and_two_numbers_the_first_is_kept_and_the_other_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        path = tmp_path / "in" / f"{number}.dcm"
        write_dicom(path, SCAN[0], PatientID="1", SOPInstanceUID="1.2.3", InstanceNumber=number)
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert (report["written"], report["refused"]) == (1, {"another file has the same UIDs and other content": 1})
    assert deidentify_folder(tmp_path / "in", tmp_path / "out") == report
    # One whose number is changed is still itself.
    write_dicom(tmp_path / "in" / "1.dcm", SCAN[1], PatientID="1", SOPInstanceUID="1.2.3", InstanceNumber=7)
    (tmp_path / "in" / "2.dcm").unlink()
    again = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert (again["written"], again["refused"]) == (1, {})


def test_members_of_a_zip_that_are_called_alike_are_all_taken(tmp_path: Path) -> None:
    first, second = (
        write_dicom(tmp_path / f"{patient}.dcm", SCAN[0], PatientID=patient, series=patient) for patient in "12"
    )
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "export.zip", "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in (first, second):
            packed.write(path, "IM1")
    report = deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert (report["written"], report["patients"]) == (2, 2)
    assert deidentify_folder(tmp_path / "in", tmp_path / "out") == report


def test_a_zip_that_holds_nothing_is_listed(tmp_path: Path) -> None:
    archive(tmp_path / "in")
    zipfile.ZipFile(tmp_path / "in" / "empty.zip", "w").close()
    deidentify_folder(tmp_path / "in", tmp_path / "out")
    assert left_out(tmp_path / "out")["empty.zip"] == ("refused", "the zip holds no files")


def test_another_source_does_not_go_into_the_same_output(tmp_path: Path) -> None:
    deidentify_folder(archive(tmp_path / "in"), tmp_path / "out")
    other = archive(tmp_path / "other")
    with pytest.raises(ConfigError, match="made from another folder"):
        deidentify_folder(other, tmp_path / "out")


def test_outputs_of_one_name_with_one_key_have_lists_of_their_own(tmp_path: Path) -> None:
    key = tmp_path / "keys" / "key.json"
    key.parent.mkdir()
    for place in ("a", "b"):
        archive(tmp_path / place / "in")
        deidentify_folder(tmp_path / place / "in", tmp_path / place / "out", key=key)
    assert len(list(key.parent.glob("out-*.journal.jsonl"))) == len(list(key.parent.glob("out-*.left-out.csv"))) == 2


def test_names_can_be_released_as_the_list_has_them(tmp_path: Path) -> None:
    names = ("DOE, JOHN.dcm", "#2.dcm", "plain.dcm")
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        write_dicom(tmp_path / "in" / name, SCAN[number], "SC", series=str(number), PatientID="1")
    deidentify_folder(tmp_path / "in", tmp_path / "out")
    lines = (tmp_path / "out.left-out.csv").read_text(encoding="utf-8").splitlines()[1:]
    (tmp_path / "names.txt").write_text("\n".join(lines) + "\n# no name\n", encoding="utf-8")
    report = deidentify_folder(tmp_path / "in", tmp_path / "out", released=tmp_path / "names.txt")
    assert (report["written"], report["quarantined"]) == (3, {})


def test_the_folder_that_one_is_in_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "in")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert deidentify_folder(tmp_path / "in", Path())["written"] == 6
    assert (tmp_path / "out.key.json").exists()


def test_what_a_kill_left_half_written_is_not_handed_on(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    deidentify_folder(source, tmp_path / "out")
    half = written(tmp_path / "out")[0].with_name(".00001-abc.dcm.4711.tmp")
    half.write_bytes(b"half")
    deidentify_folder(source, tmp_path / "out")
    assert not half.exists()


@pytest.mark.parametrize(
    ("output", "key", "fault", "match"),
    [
        ("in/out", None, ConfigError, "one within the other"),
        (".", None, ConfigError, "one within the other"),
        ("in", None, ConfigError, "one within the other"),
        ("out", "out/key.json", ConfigError, "outside of the output"),
        ("file", None, StorageError, "found a file"),
        ("full", None, StorageError, "holds files"),
    ],
)
def test_places_that_do_not_go_together_are_refused(
    tmp_path: Path, output: str, key: str | None, fault: type[Exception], match: str
) -> None:
    source = archive(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    before = sorted(path for path in source.rglob("*"))
    with pytest.raises(fault, match=match):
        deidentify_folder(source, tmp_path / output, key=None if key is None else tmp_path / key)
    assert sorted(path for path in source.rglob("*")) == before


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_source_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="expected a folder"):
        deidentify_folder(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out.key.json").exists()


def test_one_key_gives_the_same_patient_the_same_pseudonym_in_another_output(tmp_path: Path) -> None:
    patients: list[Any] = []
    for number in (1, 2):
        write_series(tmp_path / f"in{number}", SCAN[:number], series=str(number), PatientID="7")
        deidentify_folder(tmp_path / f"in{number}", tmp_path / f"out{number}", key=tmp_path / "key.json")
        patients.append({path.name for path in (tmp_path / f"out{number}").iterdir() if path.is_dir()})
    assert patients[0] == patients[1]
    assert len(patients[0]) == 1
