"""How a run is watched: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from osteoscope.cli.terminal import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from osteoscope.training.crossval import RunWatcher
    from osteoscope.training.fold import FoldOutcome


@contextlib.contextmanager
def watching() -> Iterator[RunWatcher]:
    """Show how a run goes on, on standard error."""
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
        yield _BarWatcher(progress)


class _Fits:
    """What the fits of a run are called, and how well the folds do."""

    def __init__(self) -> None:
        self._folds = 0
        self._aucs: dict[int, float] = {}

    def plan(self, folds: int) -> None:
        self._folds = folds

    def name(self, number: int) -> str:
        return f"fold {number + 1} of {self._folds}" if number < self._folds else "all patients, for the bundle"

    def add(self, outcome: FoldOutcome) -> None:
        auc = outcome.auc()
        if auc is not None:
            self._aucs[outcome.number] = auc

    def mean_auc(self) -> str:
        """Give the mean AUC of the folds done so far; they are calibrated, and can be pooled, only at the end."""
        return f"{sum(self._aucs.values()) / len(self._aucs):.3f}" if self._aucs else "–"


class _BarWatcher:
    """A live bar: fold, loss, AUC, time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("preparing", total=None)
        self._auxiliary: TaskID | None = None
        self._fits = _Fits()
        self._done: dict[int, float] = {}
        """Of each fit that has begun here, the share of its epochs that are done."""

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        # A bar of its own, since its epochs are not those of the folds.
        if self._auxiliary is None:
            self._auxiliary = self._progress.add_task("", total=epochs)
        text = f"learning from auxiliary images, epoch {epoch}/{epochs} loss {loss:.3f}"
        self._progress.update(self._auxiliary, description=text, completed=epoch)

    def fits_planned(self, *, folds: int, fits: int) -> None:
        self._fits.plan(folds)
        self._progress.update(self._task, total=fits)

    def fit_started(self, *, number: int) -> None:
        self._done[number] = 0.0
        self._show(self._fits.name(number))

    def epoch_done(self, *, number: int, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        self._done[number] = epoch / epochs
        training = "" if training_auc is None else f" (training {training_auc:.3f})"
        name = self._fits.name(number)
        self._show(f"{name} epoch {epoch}/{epochs} loss {loss:.3f} AUC {self._fits.mean_auc()}{training}")

    def stage(self, name: str, *, number: int | None = None) -> None:
        self._show(name if number is None else f"{self._fits.name(number)}: {name}")

    def fold_done(self, outcome: FoldOutcome) -> None:
        self._fits.add(outcome)
        self._show(f"{self._fits.name(outcome.number)} done, AUC {self._fits.mean_auc()}")

    def _show(self, text: str) -> None:
        self._progress.update(self._task, description=text, completed=sum(self._done.values()))


class _LogWatcher:
    """A line now and then."""

    def __init__(self) -> None:
        self._fits = _Fits()

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        if epoch % max(1, epochs // 10) == 0 or epoch == epochs:
            log(f"learning from auxiliary images: epoch {epoch} of {epochs}, loss {loss:.3f}")

    def fits_planned(self, *, folds: int, fits: int) -> None:
        del fits
        self._fits.plan(folds)

    def fit_started(self, *, number: int) -> None:
        log(f"{self._fits.name(number)}: started")

    def epoch_done(self, *, number: int, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        if epoch % max(1, epochs // 5) == 0:
            training = "" if training_auc is None else f", training AUC {training_auc:.3f}"
            log(f"{self._fits.name(number)}: epoch {epoch} of {epochs}, loss {loss:.3f}{training}")

    def stage(self, name: str, *, number: int | None = None) -> None:
        log(name if number is None else f"{self._fits.name(number)}: {name}")

    def fold_done(self, outcome: FoldOutcome) -> None:
        self._fits.add(outcome)
        name = self._fits.name(outcome.number)
        log(f"{name}: done, mean AUC of the folds so far {self._fits.mean_auc()}")
