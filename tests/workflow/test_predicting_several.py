"""Several studies at once are answered as one by one are; a fault of the disk ends all and loses nothing."""

from __future__ import annotations

import csv
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import write_tiny_bundle
from dicom_files import write_series
from PIL import Image

from osteoscope import workflow
from osteoscope.errors import BundleError, StorageError
from osteoscope.inference import scope, study
from osteoscope.inference.result import StudyPrediction
from osteoscope.storage import LOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from osteoscope.inference.scope import Selection, Study

LONG = 60


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scans, a picture that is out of scope, and a file that cannot be read."""
    folder = tmp_path_factory.mktemp("studies")
    random = np.random.default_rng(0)
    for number in range(5):
        stored = random.integers(1000, 1100, (6, 40, 48), dtype=np.uint16)
        uid = f"1.2.{number}"
        write_series(folder / f"{number}", stored, series=uid, StudyInstanceUID=uid, RescaleIntercept=-1024)
    Image.fromarray(random.integers(0, 255, (60, 48), dtype=np.uint8)).save(folder / "picture.png")
    (folder / "no.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(output: Path) -> list[str]:
    with (output / "summary.csv").open(newline="", encoding="utf-8") as stream:
        return [row["study"] for row in csv.DictReader(stream)]


def last_comes_first(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first study wait until another is done with; give the order in which studies are begun."""
    begun: list[str] = []
    another = threading.Event()
    select = scope.select_images

    def selected(of: Study, *arguments: Any, **options: Any) -> Selection:
        begun.append(of.name)
        if len(begun) == 1:
            assert another.wait(LONG)
        elif len(begun) == 3:  # so the second is done with
            another.set()
        return select(of, *arguments, **options)

    monkeypatch.setattr(scope, "select_images", selected)
    return begun


def test_any_number_of_jobs_writes_the_same(
    scan_bundle: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = workflow.predict(scan_bundle, [studies], tmp_path / "1", threads=1, jobs=1)
    with monkeypatch.context() as patch:
        last_comes_first(patch)
        together = workflow.predict(scan_bundle, [studies], tmp_path / "2", threads=1, jobs=2)
    assert together.rows == alone.rows
    assert len(alone.rows) == 7
    assert content(tmp_path / "2") == content(tmp_path / "1")
    assert table(tmp_path / "2") == [row.study for row in alone.rows]


def test_studies_of_an_earlier_run_keep_their_place(scan_bundle: Path, studies: Path, tmp_path: Path) -> None:
    first = workflow.predict(scan_bundle, [studies / "3"], tmp_path / "out", threads=1)
    done = workflow.predict(scan_bundle, [studies], tmp_path / "out", threads=1, jobs=3)
    names = [row.study for row in done.rows]
    (earlier,) = (row.study for row in first.rows)
    assert table(tmp_path / "out") == [earlier, *(name for name in names if name != earlier)]
    assert [row.already_done for row in done.rows] == [name == earlier for name in names]


def refused_after(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Let so many files be written, and none from then on."""
    lock, synced, sync = threading.Lock(), [0], os.fsync

    def failing(descriptor: int) -> None:
        with lock:
            synced[0] += 1
            fails = synced[0] > number
        if fails:
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_full_disk_ends_all_and_what_was_done_stays(
    scan_bundle: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        # The table, and of each scan its two maps, at most four pictures and its prediction: one at least is done.
        refused_after(patch, 10 + 7 * jobs, errno.ENOSPC)
        with pytest.raises(StorageError, match=r"no space left on device \(free some space"):
            workflow.predict(scan_bundle, [studies], output, threads=1, jobs=jobs)
    rows, folders = set(table(output)), {path.name for path in output.iterdir() if path.is_dir()}
    assert [path.name for path in output.rglob(".*")] == [LOCK]
    assert folders
    for name in folders:
        answer = StudyPrediction.model_validate_json((output / name / "prediction.json").read_bytes())
        assert all((output / name / overlay.file).is_file() for overlay in answer.overlays)
    # The row of a study follows its folder, and a study that was refused has no folder.
    assert len(folders - rows) <= jobs
    again = workflow.predict(scan_bundle, [studies], output, threads=1, jobs=jobs)
    assert {row.study for row in again.rows if row.already_done} == folders
    assert sorted(table(output)) == sorted(row.study for row in again.rows)


def test_a_folder_that_may_not_be_written_to_is_named(
    scan_bundle: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_after(monkeypatch, 0, errno.EACCES)
    with pytest.raises(StorageError, match=r"out.*permission denied \(choose a folder that you may write to\)"):
        workflow.predict(scan_bundle, [studies], tmp_path / "out", threads=1)


def test_an_interrupt_ends_all_jobs(
    scan_bundle: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def watch(what: str, done: int, _total: int) -> None:
        if what == "predicting studies" and done:
            told.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workflow.predict(scan_bundle, [studies], tmp_path / "out", threads=1, jobs=2, watch=watch)
    assert told == [1]
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert len(folders) <= 3
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [LOCK]


def removed_before(function: str, module: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a file as soon as a function is called."""
    called: Callable[..., Any] = getattr(module, function)

    def removing(*arguments: Any, **options: Any) -> Any:
        path.unlink(missing_ok=True)
        return called(*arguments, **options)

    monkeypatch.setattr(module, function, removing)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bundle_that_is_removed_meanwhile_is_the_fault_and_no_study_is(
    scan_member: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", scan_member)
    removed_before("explain_study", study, bundle / "training_cases.json", monkeypatch)
    with pytest.raises(BundleError, match=r"training_cases\.json: cannot be read any more"):
        workflow.predict(bundle, [studies / "0", studies / "1"], tmp_path / "out", threads=1, jobs=jobs)
    assert table(tmp_path / "out") == []
