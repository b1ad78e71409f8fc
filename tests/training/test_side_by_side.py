"""Folds beside each other in processes of their own: the same bytes as one after the other, and nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from samples import Silent

from osteoscope.cohort.split import Folds, make_folds
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.errors import ImageError, RunError
from osteoscope.training import side_by_side
from osteoscope.training.crossval import RunOutcome, run_folds
from osteoscope.training.device import Device
from osteoscope.training.fold import Work
from osteoscope.training.side_by_side import _send, _serve, processes_for

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config

TWO = Device(kind="cpu", name="cpu", precision="32-true", threads=2)
# Started anew, a process takes seconds to import what it needs.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def work(cohort_folder: Path, tiny_config: Config) -> Work:
    settings = {"folds": 2, "members": "one", "epochs": 6, "closer_epochs": 0}
    config = tiny_config.model_copy(update={"training": tiny_config.training.model_copy(update=settings)})
    return Work(cases=cases(read_cohort(cohort_folder)), config=config, device=replace(TWO, threads=1))


@pytest.fixture(scope="module")
def folds(work: Work) -> Folds:
    return make_folds(work.cases, folds=2, repeats=1, seed=0, classes=("a", "b"))


@pytest.fixture(scope="module")
def one_by_one(work: Work, folds: Folds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one by one")
    run_folds(work, folds, folder=folder, watcher=Silent())
    return folder


def written(folder: Path) -> dict[str, Any]:
    """All that lies in a folder, but for how long it took."""
    files: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    for name in [name for name in files if name.endswith("predictions.json")]:
        files[name] = json.loads(files[name])
        for record in files[name]["history"]:
            del record["seconds"], record["network_seconds"]
    return files


def test_what_is_written_is_the_same_and_the_watcher_is_told_of_each(
    work: Work, folds: Folds, one_by_one: Path, tmp_path: Path
) -> None:
    watcher = Silent()
    outcome = run_folds(replace(work, device=TWO), folds, folder=tmp_path, watcher=watcher)
    expected = written(one_by_one)
    assert {name.split("/")[0] for name in expected} == {"folds", "final"}
    assert written(tmp_path) == expected
    assert [one.number for one in outcome.fitted] == [0, 1, 2]
    assert watcher.planned == (2, 3)
    assert sorted(watcher.started) == [0, 1, 2]
    assert watcher.epochs_of == {number: [1, 2, 3, 4, 5, 6] for number in range(3)}
    assert sorted(watcher.stages, key=str) == [
        (0, "exporting, and judging the patients left out"),
        (1, "exporting, and judging the patients left out"),
        (2, "exporting"),
    ]
    assert watcher.folds_done == 2
    assert not multiprocessing.active_children()


def test_a_fault_in_a_process_is_the_fault_of_the_run(work: Work, folds: Folds, tmp_path: Path) -> None:
    first, *others = work.cases
    gone = replace(first.images[0], path=tmp_path / "gone.png")
    spoiled = [replace(first, images=(gone, *first.images[1:])), *others]
    with pytest.raises(ImageError, match=r"gone\.png") as here:
        run_folds(replace(work, cases=spoiled), folds, folder=tmp_path / "here", watcher=Silent())
    with pytest.raises(ImageError) as there:
        run_folds(replace(work, cases=spoiled, device=TWO), folds, folder=tmp_path / "there", watcher=Silent())
    assert str(there.value) == str(here.value)
    assert "load_cases" in there.value.__notes__[0]
    assert not multiprocessing.active_children()


# Fits folds beside each other in a process that is killed, as by `kill -9`, once one of them has a checkpoint.
DRIVER = """
import os, signal, sys
from pathlib import Path

from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.config import read_config
from osteoscope.training.crossval import run_folds
from osteoscope.training.device import Device
from osteoscope.training.fold import Work

class Killing:
    def fits_planned(self, **_): pass
    def fit_started(self, **_): pass
    def stage(self, name, **_): pass
    def fold_done(self, outcome): pass
    def epoch_done(self, *, epoch, **_):
        if epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    cohort, config, run = map(Path, sys.argv[1:])
    device = Device(kind="cpu", name="cpu", precision="32-true", threads=2)
    work = Work(cases=cases(read_cohort(cohort)), config=read_config(config), device=device)
    folds = make_folds(work.cases, folds=2, repeats=1, seed=0, classes=("a", "b"))
    run_folds(work, folds, folder=run, watcher=Killing())
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them_and_the_run_goes_on_to_the_same_bytes(
    work: Work, folds: Folds, one_by_one: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "config.toml").write_text(work.config.to_toml())
    command: list[str | Path] = [
        sys.executable,
        tmp_path / "driver.py",
        cohort_folder,
        tmp_path / "config.toml",
        tmp_path / "run",
    ]
    # What they write to ends only when none of them is there any more.
    ended = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert list((tmp_path / "run").rglob("checkpoint-*"))
    assert not list((tmp_path / "run").rglob("predictions.json"))
    run_folds(work, folds, folder=tmp_path / "run", watcher=Silent())
    assert written(tmp_path / "run") == written(one_by_one)


class AtOnce(Silent):
    """A watcher that ends the processes beside this one before they have heard of anything to do."""

    def fit_started(self, *, number: int) -> None:
        super().fit_started(number=number)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()


def test_a_process_that_never_began_is_told_of(work: Work, folds: Folds, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ended from outside"):
        run_folds(replace(work, device=TWO), folds, folder=tmp_path, watcher=AtOnce())
    assert not multiprocessing.active_children()


class OddError(Exception):
    """An error that cannot be made from what it keeps."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(f"{reason} at {place}")


def test_an_error_that_cannot_cross_is_told_by_its_name() -> None:
    here, there = multiprocessing.Pipe()
    _send(there, OddError(3, "broken"), "where it was")
    back = here.recv()
    assert (type(back), str(back), back.__notes__) == (RuntimeError, "OddError: broken at 3", ["where it was"])


def test_a_process_in_which_such_an_error_comes_up_tells_of_it(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking:
        def __init__(self, work: Work) -> None: ...

        def do(self, part: object, watcher: object) -> None:
            raise OddError(3, "broken")

    monkeypatch.setattr(side_by_side, "Bench", Breaking)
    # Here it is this process that serves.
    monkeypatch.setattr(side_by_side, "begin_process", lambda: None)
    here, there = multiprocessing.Pipe()
    here.send(work)
    here.send("a part")
    _serve(there)
    back = here.recv()
    assert (type(back), str(back)) == (RuntimeError, "OddError: broken at 3")
    assert "in do" in back.__notes__[0]


@pytest.mark.parametrize(
    ("device", "memory", "expected"),
    [
        (replace(TWO, threads=1), 64, 1),
        (TWO, 64, 2),
        (replace(TWO, threads=64), 256, 8),
        (replace(TWO, threads=16), 15.5, 3),
        (replace(TWO, threads=16), 2, 1),
        (replace(TWO, threads=16), None, 8),
    ],
)
def test_as_many_at_once_as_there_are_threads_and_memory(
    device: Device, memory: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "memory", lambda: None if memory is None else int(memory * 2**30))
    assert processes_for(device) == expected


@pytest.mark.parametrize(
    ("gibibytes", "memory", "threads", "expected"),
    [(8, 256, 16, 1), (40, 256, 16, 3), (139, 256, 16, 8), (139, 256, 4, 4), (139, 9, 16, 2)],
)
def test_a_gpu_is_shared_by_as_many_as_its_memory_and_the_machine_are_enough_for(
    gibibytes: int, memory: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "memory", lambda: memory * 2**30)
    monkeypatch.setattr(side_by_side, "memory_of", lambda device: gibibytes * 2**30 if device.type == "cuda" else None)
    assert processes_for(replace(TWO, kind="cuda", threads=threads)) == expected


class Ending(Silent):
    """A watcher that ends the processes beside this one, or interrupts this one, once a fit has a checkpoint."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def epoch_done(self, *, epoch: int, **told: Any) -> None:
        super().epoch_done(epoch=epoch, **told)
        if epoch == 5:
            if self._how == "interrupted":
                raise KeyboardInterrupt
            for child in multiprocessing.active_children():
                child.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "expected", "match"),
    [("killed", RunError, "ended from outside"), ("interrupted", KeyboardInterrupt, None)],
    ids=["killed", "interrupted"],
)
def test_ended_in_the_middle_it_goes_on_to_the_same_bytes(
    work: Work,
    folds: Folds,
    one_by_one: Path,
    tmp_path: Path,
    how: str,
    expected: type[BaseException],
    match: str | None,
) -> None:
    with pytest.raises(expected, match=match):
        run_folds(replace(work, device=TWO), folds, folder=tmp_path, watcher=Ending(how))
    assert not multiprocessing.active_children()
    assert not list(tmp_path.rglob("predictions.json"))
    assert list(tmp_path.rglob("checkpoint-*"))
    # With one thread now: how many there are changes nothing.
    outcome: RunOutcome = run_folds(work, folds, folder=tmp_path, watcher=Silent())
    assert outcome.final is not None
    assert written(tmp_path) == written(one_by_one)
