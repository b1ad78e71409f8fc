"""``osteoscope train``: cross-validate a network on a cohort, make a bundle and a report."""

from __future__ import annotations

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from osteoscope.cli.cohort import Accept, Because, accepted_pairs
from osteoscope.cli.terminal import INTERRUPTED, log, study_lines, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from osteoscope.config import Config
    from osteoscope.training.crossval import FoldOutcome, RunWatcher


class CovariateName(StrEnum):
    """What else the network can be told."""

    AGE = "age"
    SEX = "sex"
    SITE = "site"


def train(
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    preset: Annotated[
        Literal["quick", "standard", "full"] | None,
        typer.Option(
            help="quick: to see that all works. standard: for results, the default. full: for a paper, with time."
        ),
    ] = None,
    network: Annotated[
        Literal["optimised", "plain", "matched"] | None,
        typer.Option(
            help="optimised, the default: with multi-scale maps and self-attention. plain: the DenseNet alone. "
            "matched: plain, with as many parameters as the optimised."
        ),
    ] = None,
    roi: Annotated[
        Literal["none", "box", "outline"] | None,
        typer.Option(
            help="What is read of an image. none, the default: all of it, and then, where lesions are annotated to "
            "learn from, the regions in which the network finds one. box, outline: the square round a lesion that a "
            "person has marked, in prediction too."
        ),
    ] = None,
    covariate: Annotated[
        list[CovariateName] | None, typer.Option(help="What else the network is told; repeat it.")
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another finished run on the same patients to compare with; repeat it.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of all random numbers; 0 if left out.")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, max=50, help="Instead of the preset's.")] = None,
    split: Annotated[
        Literal["patients", "sites", "looks"] | None,
        typer.Option(
            help="What a fold leaves out: patients, the default; or a whole body site, or all pictures of one look, as "
            "the nearest thing to a centre never seen."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Local file of ImageNet or RadImageNet DenseNet weights to start from (.safetensors, .pth)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="All settings from a TOML file, such as a run's config.toml; no preset then.")
    ] = None,
    accept: Accept = None,
    because: Because = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor; a run goes on with the same.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Cross-validate a network on a cohort, and make a bundle and a report.

    The cohort is audited first; a finding that makes the result a lie stops unless it is accepted with a reason.
    """
    from osteoscope import workflow

    accepted = accepted_pairs(accept, because)
    settings = workflow.training_config(
        cohort,
        preset=preset,
        network=network,
        roi=roi,
        covariates=[name.value for name in covariate or ()],
        seed=seed,
        weights=weights if config is None else None,
        folds=folds,
        split=split,
        file=config,
        images=images,
    )
    try:
        with _watcher(settings) as watcher:
            study = workflow.train(
                cohort,
                output,
                config=settings,
                watcher=watcher,
                weights=weights,
                beside=beside or (),
                accept=accepted,
                threads=threads,
                images=images,
            )
    except KeyboardInterrupt:
        log("interrupted; the same command goes on where it stood")
        raise typer.Exit(INTERRUPTED) from None
    value = {"run": str(study.folder), "report": str(study.report), "metrics": study.metrics}
    lines = [*study_lines(study.metrics), f"Report: {study.report}", f"Bundle: {study.folder / 'bundle'}"]
    summary(value, lines, as_json=json)


@contextlib.contextmanager
def _watcher(config: Config) -> Iterator[RunWatcher]:
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
        yield _BarWatcher(progress, epochs=settings.epochs, folds=settings.folds * settings.repeats)


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

    def __init__(self, progress: Progress, *, epochs: int, folds: int) -> None:
        self._progress = progress
        self._epochs = epochs
        self._task = progress.add_task("preparing", total=epochs * folds)
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

    def epoch_done(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        if epoch % max(1, epochs // 5) == 0:
            training = "" if training_auc is None else f", training AUC {training_auc:.3f}"
            log(f"{self._fold}: epoch {epoch} of {epochs}, loss {loss:.3f}{training}")

    def stage(self, name: str) -> None:
        log(name)

    def fold_done(self, outcome: FoldOutcome) -> None:
        log(f"{self._fold}: done, mean AUC of the folds so far {self._auc.add(outcome)}")
