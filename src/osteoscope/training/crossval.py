"""Every fold of a run, and the network that learns from all of them."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from osteoscope.errors import RunError
from osteoscope.training.checkpoint import remove_checkpoints
from osteoscope.training.fit import CLOSER_FOLDER
from osteoscope.training.fold import FoldOutcome, Part, read_outcome
from osteoscope.training.run_folder import read_run
from osteoscope.training.side_by_side import FitsWatcher, fit_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from osteoscope.cohort.split import Folds
    from osteoscope.config import Config
    from osteoscope.training.fold import Work

FOLDS_FOLDER = "folds"
FINAL_FOLDER = "final"


class RunWatcher(FitsWatcher, Protocol):
    """Is told how a run goes on; for progress only, nothing is decided by it."""

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        """Take note that `epoch` of `epochs` of learning from auxiliary images are done."""

    def fits_planned(self, *, folds: int, fits: int) -> None:
        """Take note of how much there is to do.

        Parameters
        ----------
        folds
            Of all repeats; their fits are numbered from 0, and that of all patients, if there is to be one, comes next.
        fits
            That were not done in an earlier attempt.
        """

    def fold_done(self, outcome: FoldOutcome) -> None:
        """Take note of a fold that is done, now or in an earlier attempt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunOutcome:
    """All networks of a run."""

    folds: tuple[FoldOutcome, ...]
    """Of all repeats, in order."""
    final: FoldOutcome | None
    """What learnt from all patients and so judges none of them; None where the folds' own networks are handed on."""

    @property
    def fitted(self) -> tuple[FoldOutcome, ...]:
        """Give all that was fitted."""
        return self.folds if self.final is None else (*self.folds, self.final)

    @property
    def members(self) -> tuple[FoldOutcome, ...]:
        """Give those that make the bundle."""
        return tuple(one for one in self.folds if one.repeat == 0) if self.final is None else (self.final,)


def run_folds(work: Work, folds: Folds, *, folder: Path, watcher: RunWatcher) -> RunOutcome:
    """Do every fold that is not done yet and, where the bundle is to hold one network, fit that to all cases.

    Parameters
    ----------
    work
        What all of them are made from.
    folds
        The partition of its cases.
    folder
        The run's folder.
    watcher
        Is told how it goes on.

    Raises
    ------
    OsteoscopeError
        If an image cannot be read any more, or an output cannot be written.
    """
    parts = list(_parts(folds, work.config, folder))
    missing = [part for part in parts if not part.is_done()]
    watcher.fits_planned(folds=folds.repeats * folds.folds, fits=len(missing))
    there = [part for part in parts if part not in missing]
    outcomes: dict[int, FoldOutcome] = {}
    with closing(fit_parts(missing, work, watcher)) as fitted:
        for part in chain(there, fitted):
            # A kill may have come between a fold's outcome and the removal of its checkpoints.
            remove_checkpoints(part.folder)
            shutil.rmtree(part.folder / CLOSER_FOLDER, ignore_errors=True)
            outcomes[part.number] = read_outcome(part.folder)
            if not part.is_final:
                watcher.fold_done(outcomes[part.number])
    final = outcomes.pop(parts[-1].number) if parts[-1].is_final else None
    return RunOutcome(folds=tuple(outcomes[number] for number in sorted(outcomes)), final=final)


def folds_are_done(folder: Path, folds: Folds, config: Config) -> bool:
    """Tell whether all networks of a run are done, so that nothing is left to be fitted."""
    return all(part.is_done() for part in _parts(folds, config, folder))


def _parts(folds: Folds, config: Config, folder: Path) -> Iterator[Part]:
    """List what is fitted: each fold of each repeat, and what learns from all, if anything does."""
    number = 0
    for repeat in range(folds.repeats):
        for fold in range(folds.folds):
            tested = frozenset(folds.test_patients(repeat, fold))
            yield Part(
                number=number, repeat=repeat, fold=fold, tested=tested, folder=folder / FOLDS_FOLDER / str(number)
            )
            number += 1
    if config.training.members == "one":
        yield Part(number=number, repeat=0, fold=folds.folds, tested=frozenset(), folder=folder / FINAL_FOLDER)


def first_repeat(run: Path) -> list[FoldOutcome]:
    """Read the outcomes of a run's first repeat, in the order of its folds.

    Raises
    ------
    RunError
        If the folder is no run whose folds are done.
    """
    if read_run(run).get("status") != "done":
        raise RunError("is a run whose folds are not done", path=run, remedy="run the same training again to its end")
    numbers = sorted(int(path.name) for path in (run / FOLDS_FOLDER).iterdir() if path.name.isdecimal())
    outcomes = (read_outcome(run / FOLDS_FOLDER / str(number)) for number in numbers)
    return [outcome for outcome in outcomes if outcome.repeat == 0]
