"""The demonstration: from nothing to a report on phantoms."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from typing import TYPE_CHECKING

import pytest

from osteoscope import workflow
from osteoscope.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from osteoscope.training.crossval import RunWatcher
    from osteoscope.training.fold import FoldOutcome


class Noted:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}
        self.started: list[int] = []
        self.folds: list[int] = []

    @contextlib.contextmanager
    def counted(self, what: str) -> Iterator[Callable[[int, int], None]]:
        def note(done: int, total: int) -> None:
            self.counts[what] = (done, total)

        yield note

    @contextlib.contextmanager
    def training(self) -> Iterator[RunWatcher]:
        yield self

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        raise AssertionError("phantoms have no auxiliary images")

    def fits_planned(self, *, folds: int, fits: int) -> None:
        assert (folds, fits) in {(3, 4), (3, 0)}

    def fit_started(self, *, number: int) -> None:
        self.started.append(number)

    def epoch_done(self, *, number: int, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        assert number in self.started

    def stage(self, name: str, *, number: int | None = None) -> None:
        pass

    def fold_done(self, outcome: FoldOutcome) -> None:
        self.folds.append(outcome.fold)


@pytest.mark.parametrize(("patients", "held_out"), [(19, 24), (48, 19)])
def test_too_few_patients_are_refused_before_anything_is_made(tmp_path: Path, patients: int, held_out: int) -> None:
    with pytest.raises(ConfigError, match="expected 20 patients or more"):
        workflow.demo(tmp_path / "demo", watcher=Noted(), patients=patients, held_out=held_out)
    assert not (tmp_path / "demo").exists()


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sites-a-b").mkdir()
    (tmp_path / "sites-a-b" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError):
        workflow.demo(tmp_path, watcher=Noted())
    assert (tmp_path / "sites-a-b" / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["sites-a-b"]


@pytest.mark.parametrize("name", ["cohort", "evaluation", "notes.txt"])
def test_a_folder_in_which_no_demonstration_has_begun_keeps_what_it_holds(tmp_path: Path, name: str) -> None:
    """A cohort and an evaluation of patients, as any folder of work has them, are replaced by none of phantoms."""
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match=f"holds {name} and no demonstration that could be gone on with"):
        workflow.demo(tmp_path, watcher=Noted())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_demonstration_that_has_begun_is_gone_on_with(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(Noted):
        @contextlib.contextmanager
        def counted(self, what: str) -> Iterator[Callable[[int, int], None]]:
            def stop(_done: int, _total: int) -> None:
                raise StoppedError

            yield stop

    for _ in range(2):
        with pytest.raises(StoppedError):
            workflow.demo(tmp_path, watcher=Stopping(), patients=20, held_out=20)
        (tmp_path / "cohort").mkdir(exist_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demonstration_goes_from_nothing_to_pages_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    noted = Noted()
    made = workflow.demo(tmp_path / "demo", watcher=noted, patients=20, held_out=20)
    assert noted.counts["making patients of sites A and B"] == (20, 20)
    # Three folds, in the order in which they were done, and what learns from all patients.
    assert sorted(noted.folds) == [0, 1, 2]
    assert sorted(noted.started) == [0, 1, 2, 3]

    # The site that is judged on is the one that was not learnt from, and no patient is in both.
    with (tmp_path / "demo/site-c/labels.csv").open(encoding="utf-8", newline="") as table:
        held_out = list(csv.DictReader(table))
    with (tmp_path / "demo/sites-a-b/labels.csv").open(encoding="utf-8", newline="") as table:
        learnt = list(csv.DictReader(table))
    assert {row["centre"] for row in held_out} == {"C"}
    assert {row["centre"] for row in learnt} == {"A", "B"}
    assert not {row["patient"] for row in held_out} & {row["patient"] for row in learnt}

    metrics = json.loads((tmp_path / "demo/evaluation/metrics.json").read_text())
    assert metrics["n_patients"] == 20
    assert metrics["truth"]["bayes"]["auc"]["value"] > 0.8
    bundle = json.loads((tmp_path / "demo/run/bundle/bundle.json").read_text())
    assert (bundle["provenance"], bundle["modalities"]) == ("phantom", ["CT"])
    pages = list(made.cases.glob("*.html"))
    assert len(pages) == 20
    for page in (made.evaluation.report, made.run.report, *pages):
        assert re.search("phantom", page.read_text(), re.IGNORECASE), page.name

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/run/folds").rglob("*.onnx")}
    again = workflow.demo(tmp_path / "demo", watcher=Noted(), patients=20, held_out=20)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/run/folds").rglob("*.onnx")} == before
    assert again.evaluation.metrics["patient"] == made.evaluation.metrics["patient"]
