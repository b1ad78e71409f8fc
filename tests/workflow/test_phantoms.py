"""Phantoms are the same by seed however they are made, go on where they stopped, and never take another's place."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.cli.main import app
from osteoscope.errors import ConfigError, RunError, StorageError
from osteoscope.phantom.patients import draw_patients
from osteoscope.phantom.truth import read_truth
from osteoscope.processes import cores

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {"planes": 4, "pixels": 32}
SEED = 5


def make(output: Path, patients: int, **changes: Any) -> workflow.PhantomSummary:
    return workflow.make_phantoms(output, patients=patients, **{"seed": SEED, "processes": 1, **SMALL, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients, made one after the other."""
    folder = tmp_path_factory.mktemp("phantoms") / "four"
    make(folder, 4)
    return folder


def test_the_folder_holds_images_truth_and_labels_of_the_patients_drawn(four: Path) -> None:
    there = {path.name for path in four.iterdir()}
    assert there == {".lock", "README.txt", "images", "labels.csv", "phantom.json", "truth"}
    names = [row["patient"] for row in rows(four)]
    assert sorted(names) == sorted(path.name for path in (four / "images").iterdir())
    assert sorted(names) == sorted(path.name for path in (four / "truth").iterdir())
    for row, drawn in zip(rows(four), draw_patients(4, SEED), strict=True):
        known = drawn.attributes
        assert row == {
            "patient": row["patient"],
            "image": f"{row['patient']}/ct",
            "mask": f"{row['patient']}/segmentation.dcm",
            "label": drawn.label,
            "age": str(int(known.age)),
            "sex": known.sex,
            "level": known.level,
            "centre": known.centre,
        }
        truth = read_truth(four / "truth" / row["patient"])
        assert truth.patient == drawn
        assert truth.shape == (4, 32, 32)
    header = json.loads((four / "phantom.json").read_text())
    assert (header["provenance"], header["seed"], header["sites"]) == ("phantom", SEED, ["A", "B", "C"])
    for told in (header["note"], (four / "README.txt").read_text()):
        assert "Synthetic" in told
        assert "no patient" in told


def test_images_are_read_and_the_rest_is_not_taken_for_images(four: Path) -> None:
    found = workflow.inspect([four / "images"])
    assert [image.image.volume.geometry.shape for image in found.images if image.use is not None] == [(4, 32, 32)] * 4
    assert not found.refused


def test_several_processes_give_the_same_bytes(four: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = make(tmp_path / "two", 4, processes=2, progress=lambda done, total: seen.append((done, total)))
    assert contents(tmp_path / "two") == contents(four)
    assert (made.written, made.kept) == (4, 0)
    assert seen == [(done, 4) for done in range(5)]


def test_patients_that_are_there_are_kept_and_what_was_cut_short_is_made_again(four: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(four, folder)
    first, second, *_ = sorted(path.name for path in (folder / "images").iterdir())
    shutil.rmtree(folder / "images" / first)
    # As a process leaves them that is killed.
    (folder / "truth" / first / "truth.json").write_text("{")
    (folder / "images" / f".{first}.x.tmp" / "ct").mkdir(parents=True)
    before = (folder / "images" / second).stat()
    made = make(folder, 4)
    assert (made.written, made.kept) == (1, 3)
    assert contents(folder) == contents(four)
    after = (folder / "images" / second).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_more_patients_are_added_to_those_that_are_there(four: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    shutil.copytree(four, folder)
    made = make(folder, 5)
    assert (made.written, made.kept) == (1, 4)
    assert rows(folder)[:4] == rows(four)
    old, new = contents(four), contents(folder)
    assert {name: new[name] for name in old if name != "labels.csv"} == {
        name: content for name, content in old.items() if name != "labels.csv"
    }
    with pytest.raises(StorageError, match=r"expected none but the 4 patients asked for, found 1 more"):
        make(folder, 4)
    assert contents(folder) == new


def test_an_interruption_leaves_whole_patients_and_the_same_call_goes_on(four: Path, tmp_path: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", 4, progress=interrupt)
    there = contents(tmp_path / "cut")
    assert there == {name: content for name, content in contents(four).items() if name in there}
    assert len(list((tmp_path / "cut" / "images").iterdir())) == 2
    assert "labels.csv" not in there
    assert make(tmp_path / "cut", 4).kept == 2
    assert contents(tmp_path / "cut") == contents(four)


@pytest.mark.skipif(cores() < 2, reason="one core makes them without a second process")
def test_a_process_that_is_ended_from_outside_is_told_and_loses_nothing(tmp_path: Path) -> None:
    def end(done: int, _total: int) -> None:
        if done == 1:
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(RunError, match=r"fewer --processes"):
        make(tmp_path / "ended", 6, processes=2, progress=end)
    kept = len(list((tmp_path / "ended" / "images").glob("PHANTOM-*")))
    assert kept >= 1
    make(tmp_path / "whole", 6)
    assert make(tmp_path / "ended", 6).kept == kept
    assert contents(tmp_path / "ended") == contents(tmp_path / "whole")


def test_two_processes_do_not_write_in_one_folder(four: Path, tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(RunError, match="another process is making phantoms in this folder"):
        make(folder, 4)
    assert contents(folder) == {".lock": b""}
    # A lock that was left behind is nothing that is lost.
    make(folder, 4)
    assert contents(folder) == contents(four)


def test_sites_and_classes_can_be_chosen_in_any_order(tmp_path: Path) -> None:
    made = make(tmp_path / "one", 3, sites=["C", "A"], classes=["giant cell tumor"])
    assert made.counts.keys() == {"giant cell tumor"}
    assert sum(made.counts["giant cell tumor"].values()) == 3
    assert {row["label"] for row in rows(tmp_path / "one")} == {"giant cell tumor"}
    assert {row["centre"] for row in rows(tmp_path / "one")} <= {"A", "C"}
    assert make(tmp_path / "one", 3, sites=["A", "C", "A"], classes=["giant cell tumor"]).kept == 3


class Wrong(NamedTuple):
    """Settings that cannot be, and what is said of them."""

    settings: dict[str, Any]
    said: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"patients": 0}, "expected patients from 1 to 100000, got 0"),
        Wrong({"patients": 10**9}, "expected patients from 1 to 100000"),
        Wrong({"seed": -1}, "expected seed from 0"),
        Wrong({"planes": 1}, "expected planes from 2"),
        Wrong({"pixels": 15}, "expected pixels from 16"),
        Wrong({"planes": 512, "pixels": 512}, "expected at most 5000000 voxels a CT, got 512 x 512 x 512"),
        Wrong({"processes": 0}, "expected processes from 1"),
        Wrong({"sites": ["D"]}, "there is no site 'D'"),
        Wrong({"classes": ["chordoma"]}, "there is no class 'chordoma'"),
    ],
    ids=lambda wrong: ",".join(f"{name}={value}" for name, value in wrong.settings.items()),
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(tmp_path: Path, wrong: Wrong) -> None:
    with pytest.raises(ConfigError, match=wrong.said):
        make(tmp_path / "none", **{"patients": 1, **wrong.settings})
    assert not (tmp_path / "none").exists()


def test_a_run_that_was_killed_at_its_first_write_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "phantoms"
    output.mkdir()
    (output / ".phantom.json.123.tmp").write_text("{")
    make(output, 1)
    assert (output / "labels.csv").is_file()


def test_a_folder_of_something_else_is_left_alone(four: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for output in (other, other / "thesis.txt"):
        with pytest.raises(StorageError, match="is already there and holds no phantoms"):
            make(output, 1)
    (other / "phantom.json").write_text("[]")
    with pytest.raises(StorageError, match="is already there and holds no phantoms"):
        make(other, 1)
    assert contents(other) == {"thesis.txt": b"years of work", "phantom.json": b"[]"}
    before = contents(four)
    with pytest.raises(StorageError, match="holds phantoms of seed 5, and 6 is asked for"):
        make(four, 4, seed=6)
    with pytest.raises(StorageError, match=r"holds phantoms of shape \[4, 32, 32\]"):
        make(four, 4, planes=5)
    assert contents(four) == before


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(StorageError, match=r"expected 1\.\d GB of free space for 200 patients, found 1\.0 GB"):
        workflow.make_phantoms(tmp_path / "a" / "b", patients=200)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_made(four: Path, tmp_path: Path) -> None:
    folder = tmp_path / "by command"
    options = ["phantom", "-o", str(folder), "--patients", "2", "--seed", "5", "--planes", "4", "--pixels", "32"]
    done = CliRunner().invoke(app, [*options, "--processes", "1", "--json"])
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert (said["provenance"], said["patients"], said["written"], said["kept"]) == ("phantom", 2, 2, 0)
    assert sum(sum(sites.values()) for sites in said["classes"].values()) == 2
    there = contents(folder)
    assert {name: there[name] for name in there if name != "labels.csv"}.items() <= contents(four).items()
    done = CliRunner().invoke(app, [*options, "--site", "A"])
    assert isinstance(done.exception, StorageError)
    done = CliRunner().invoke(app, options)
    assert "2, 2 of them before" in done.stdout
    assert "no patient" in done.stdout
    assert CliRunner().invoke(app, [*options[:3], "--patients", "0"]).exit_code == 2
