"""What is said of a run whose folds are fitted beside each other: of each by name, and how much of all is done."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.progress import Progress

from osteoscope.cli.watching import _BarWatcher, _LogWatcher, watching
from osteoscope.training.crossval import first_repeat

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.training.crossval import RunWatcher
    from osteoscope.training.fold import FoldOutcome


@pytest.fixture(scope="module")
def outcomes(run_folder: Path) -> list[FoldOutcome]:
    return first_repeat(run_folder)


def tell(watcher: RunWatcher, outcomes: list[FoldOutcome]) -> None:
    """Two folds beside each other, the second of them faster, and the network of all patients behind them."""
    watcher.stage("auditing the cohort")
    watcher.auxiliary_epoch(epoch=1, epochs=1, loss=1.5)
    watcher.fits_planned(folds=2, fits=3)
    for number in (0, 1):
        watcher.fit_started(number=number)
    for number, epoch in ((0, 1), (1, 1), (1, 2)):
        watcher.epoch_done(number=number, epoch=epoch, epochs=2, loss=0.25, training_auc=0.75)
    watcher.stage("exporting", number=1)
    watcher.fold_done(outcomes[1])
    watcher.fit_started(number=2)
    watcher.epoch_done(number=2, epoch=1, epochs=2, loss=0.25, training_auc=None)


def test_lines_name_the_fold(outcomes: list[FoldOutcome], capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing of a test is a terminal.
    with watching() as watcher:
        assert isinstance(watcher, _LogWatcher)
        tell(watcher, outcomes)
    auc = outcomes[1].auc()
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()] == [
        "auditing the cohort",
        "learning from auxiliary images: epoch 1 of 1, loss 1.500",
        "fold 1 of 2: started",
        "fold 2 of 2: started",
        "fold 1 of 2: epoch 1 of 2, loss 0.250, training AUC 0.750",
        "fold 2 of 2: epoch 1 of 2, loss 0.250, training AUC 0.750",
        "fold 2 of 2: epoch 2 of 2, loss 0.250, training AUC 0.750",
        "fold 2 of 2: exporting",
        f"fold 2 of 2: done, mean AUC of the folds so far {auc:.3f}",
        "all patients, for the bundle: started",
        "all patients, for the bundle: epoch 1 of 2, loss 0.250",
    ]


def test_a_bar_counts_the_epochs_of_all_fits(outcomes: list[FoldOutcome]) -> None:
    with Progress(console=Console(file=io.StringIO())) as progress:
        watcher = _BarWatcher(progress)
        tell(watcher, outcomes)
        bar, auxiliary = progress.tasks
        assert (auxiliary.completed, auxiliary.total) == (1, 1)
        # A half, a whole and a half.
        assert (bar.completed, bar.total) == (2.0, 3)
        assert bar.description == f"all patients, for the bundle epoch 1/2 loss 0.250 AUC {outcomes[1].auc():.3f}"
        watcher.fold_done(outcomes[0])
        assert bar.completed == 2.0
        mean = sum(filter(None, (outcome.auc() for outcome in outcomes))) / 2
        assert bar.description == f"fold 1 of 2 done, AUC {mean:.3f}"


def test_a_bar_fills_by_what_an_earlier_attempt_left(outcomes: list[FoldOutcome]) -> None:
    with Progress(console=Console(file=io.StringIO())) as progress:
        watcher = _BarWatcher(progress)
        watcher.fits_planned(folds=2, fits=1)
        watcher.fold_done(outcomes[0])
        watcher.fit_started(number=1)
        watcher.epoch_done(number=1, epoch=2, epochs=2, loss=0.25, training_auc=None)
        watcher.fold_done(outcomes[1])
        (bar,) = progress.tasks
        assert (bar.completed, bar.total) == (1.0, 1)
