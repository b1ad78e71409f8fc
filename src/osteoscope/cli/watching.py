"""How a run is watched: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from osteoscope.cli.terminal import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from osteoscope.config import Config
    from osteoscope.training.crossval import FoldOutcome, RunWatcher

_FINAL = "all patients, for the bundle"


@contextlib.contextmanager
def watching(config: Config) -> Iterator[RunWatcher]:
    """Show how a run of these settings goes on, on standard error."""
    if not sys.stderr.isatty():
        yield _LogWatcher()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        settings = config.training
        fits = settings.folds * settings.repeats + (settings.members == "one")
        yield _BarWatcher(progress, epochs=settings.epochs, fits=fits)


class _Auc:
    """Mean AUC of the folds done so far; they are calibrated, and can be pooled, only at the end."""

    def __init__(self) -> None:
        self._of_folds: list[float] = []

    def add(self, outcome: FoldOutcome) -> str:
        auc = outcome.auc()
        if auc is not None:
            self._of_folds.append(auc)
        return self.text()

    def text(self) -> str:
        return f"{sum(self._of_folds) / len(self._of_folds):.3f}" if self._of_folds else "–"


class _BarWatcher:
    """A live bar: fold, loss, AUC, time left."""

    def __init__(self, progress: Progress, *, epochs: int, fits: int) -> None:
        self._progress = progress
        self._epochs = epochs
        self._task = progress.add_task("preparing", total=epochs * fits)
        self._auxiliary: TaskID | None = None
        self._fold = ""
        self._number = 0
        self._auc = _Auc()

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        # A bar of its own, since its epochs are not those of the folds.
        if self._auxiliary is None:
            self._auxiliary = self._progress.add_task("", total=epochs)
        text = f"learning from auxiliary images, epoch {epoch}/{epochs} loss {loss:.3f}"
        self._progress.update(self._auxiliary, description=text, completed=epoch)

    def fold_started(self, *, number: int, folds: int) -> None:
        self._number = number
        self._fold = f"fold {number + 1}/{folds}"
        self._progress.update(self._task, description=self._fold, completed=number * self._epochs)

    def final_started(self) -> None:
        self._number += 1
        self._fold = _FINAL
        self._progress.update(self._task, description=self._fold, completed=self._number * self._epochs)

    def epoch_done(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        training = "" if training_auc is None else f" (training {training_auc:.3f})"
        text = f"{self._fold} epoch {epoch}/{epochs} loss {loss:.3f} AUC {self._auc.text()}{training}"
        self._progress.update(self._task, description=text, completed=self._number * self._epochs + epoch)

    def stage(self, name: str) -> None:
        self._progress.update(self._task, description=f"{self._fold}: {name}")

    def fold_done(self, outcome: FoldOutcome) -> None:
        self._auc.add(outcome)


class _LogWatcher:
    """A line now and then."""

    def __init__(self) -> None:
        self._auc = _Auc()
        self._fold = ""

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        if epoch % max(1, epochs // 10) == 0 or epoch == epochs:
            log(f"learning from auxiliary images: epoch {epoch} of {epochs}, loss {loss:.3f}")

    def fold_started(self, *, number: int, folds: int) -> None:
        self._fold = f"fold {number + 1} of {folds}"
        log(f"{self._fold}: started")

    def final_started(self) -> None:
        self._fold = _FINAL
        log(f"{self._fold}: started")

    def epoch_done(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        if epoch % max(1, epochs // 5) == 0:
            training = "" if training_auc is None else f", training AUC {training_auc:.3f}"
            log(f"{self._fold}: epoch {epoch} of {epochs}, loss {loss:.3f}{training}")

    def stage(self, name: str) -> None:
        log(name)

    def fold_done(self, outcome: FoldOutcome) -> None:
        log(f"{self._fold}: done, mean AUC of the folds so far {self._auc.add(outcome)}")
