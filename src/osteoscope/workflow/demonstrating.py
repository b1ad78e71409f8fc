"""The main job from nothing to a report, on patients that nobody is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from osteoscope.errors import ConfigError, StorageError, require
from osteoscope.storage import storage_error
from osteoscope.workflow.cohorts import CohortSummary, audit_cohort, cohort_from_table
from osteoscope.workflow.evaluating import evaluate
from osteoscope.workflow.phantoms import HEADER, LABELS, make_phantoms
from osteoscope.workflow.study import CASES_FOLDER
from osteoscope.workflow.training import BUNDLE_FOLDER, LIBRARIES, train, training_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from osteoscope.config import Covariate, Preset
    from osteoscope.training.crossval import RunWatcher
    from osteoscope.workflow.cohorts import AuditSummary
    from osteoscope.workflow.study import StudySummary

TRAINING_SITES, HELD_OUT_SITES = ("A", "B"), ("C",)
"""Simulated sites to learn from, and the one that is never seen in training."""

LEAST_PATIENTS = 20
"""Of each of the two cohorts: with fewer, figures say nothing and a fold may lack a class."""

_LEARNING = "sites-a-b"
_SOURCE = "phantom"
_FOLDS = 3
_COVARIATES: tuple[Covariate, ...] = ("age", "sex", "level")
_PLANES, _PIXELS = 40, 192


class DemoWatcher(Protocol):
    """Shows how the demonstration goes on; nothing is decided by it."""

    def counted(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show, while the context lasts, how many of how many are done."""

    def training(self) -> AbstractContextManager[RunWatcher]:
        """Show, while the context lasts, how a run goes on."""


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """What the demonstration made.

    Parameters
    ----------
    folder
        That holds all of it.
    audit
        What was found in the cohort before anything was learnt.
    run
        The cross-validated run on `TRAINING_SITES`.
    evaluation
        Its bundle on `HELD_OUT_SITES`, beside the truth.
    """

    folder: Path
    audit: AuditSummary
    run: StudySummary
    evaluation: StudySummary

    @property
    def cases(self) -> Path:
        """Folder of the pages of the patients of the site that was held out, one page a patient."""
        return self.evaluation.folder / CASES_FOLDER

    def to_json(self) -> dict[str, Any]:
        """Give where everything lies, and the figures of the site that was held out."""
        return {
            "provenance": "phantom",
            "demo": str(self.folder),
            "findings": [finding.to_json() for finding in self.audit.audit.findings],
            "run": str(self.run.folder),
            "bundle": str(self.run.folder / BUNDLE_FOLDER),
            "report": str(self.evaluation.report),
            "cases": str(self.cases),
            "metrics": self.evaluation.metrics,
        }


def demo(
    output: Path,
    *,
    watcher: DemoWatcher,
    patients: int = 72,
    held_out: int = 24,
    seed: int = 0,
    preset: Preset = "quick",
    threads: int | None = None,
) -> DemoSummary:
    """Draw phantom patients, train on two simulated sites and judge the bundle on a third.

    Every step keeps what is there: the same call goes on where another was interrupted; a cohort and an evaluation are
    made anew. Nothing that comes out is evidence of anything clinical.

    Parameters
    ----------
    output
        Folder for all of it: ``sites-a-b`` and ``site-c`` with phantoms, ``cohort`` and ``cohort-site-c``, ``run`` with
        the bundle, ``evaluation``.
    watcher
        Is told how it goes on.
    patients, held_out
        To learn from, and to judge on; `LEAST_PATIENTS` or more.
    seed
        Of the patients and of the training.
    preset
        How long is learnt.
    threads
        Of the processor; None takes all.

    Raises
    ------
    ConfigError
        If there are too few patients.
    OsteoscopeError
        If the folder holds something else, or a file cannot be written.
    """
    if min(patients, held_out) < LEAST_PATIENTS:
        reason = f"expected {LEAST_PATIENTS} patients or more in each cohort, got {patients} and {held_out}"
        raise ConfigError(reason, remedy="ask for more")
    require(*LIBRARIES)
    learning, held = output / _LEARNING, output / "site-c"
    _refuse_other(output)
    cohort = _cohort_of(learning, output / "cohort", patients, TRAINING_SITES, seed=seed, watcher=watcher)
    # The patients of another seed, so that none is in both.
    other = _cohort_of(held, output / "cohort-site-c", held_out, HELD_OUT_SITES, seed=seed + 1, watcher=watcher)
    with watcher.counted("auditing") as progress:
        audited = audit_cohort(cohort.folder, folds=_FOLDS, progress=progress)
    config = training_config(cohort.folder, preset=preset, covariates=_COVARIATES, folds=_FOLDS, seed=seed)
    with watcher.training() as run_watcher:
        run = train(cohort.folder, output / "run", config=config, watcher=run_watcher, threads=threads)
    with watcher.counted("judging patients of the site that was held out") as progress:
        evaluation = evaluate(
            run.folder / BUNDLE_FOLDER,
            other.folder,
            output / "evaluation",
            training=cohort.folder,
            truth=held,
            threads=threads,
            progress=progress,
        )
    return DemoSummary(folder=output, audit=audited, run=run, evaluation=evaluation)


def _refuse_other(output: Path) -> None:
    """Refuse a folder that holds anything, unless a demonstration has begun there, with the patients to learn from."""
    try:
        present = {path.name for path in output.iterdir()} if output.is_dir() else set()
        begun = (output / _LEARNING / HEADER).is_file()
    except OSError as error:
        raise storage_error(error, output) from error
    strange = sorted(name for name in present - {_LEARNING} if not name.startswith("."))
    if strange and not begun:
        reason = f"holds {strange[0]} and no demonstration that could be gone on with"
        raise StorageError(reason, path=output, remedy="choose another folder with -o")


def _cohort_of(
    phantoms: Path, cohort: Path, patients: int, sites: Sequence[str], *, seed: int, watcher: DemoWatcher
) -> CohortSummary:
    """Draw patients of some sites, and make a cohort of them as of any table."""
    from osteoscope.phantom.write import IMAGES

    at = f"site{'s' if len(sites) > 1 else ''} {' and '.join(sites)}"
    with watcher.counted(f"making patients of {at}") as progress:
        make_phantoms(
            phantoms, patients=patients, seed=seed, sites=sites, planes=_PLANES, pixels=_PIXELS, progress=progress
        )
    with watcher.counted(f"reading scans of {at}") as progress:
        return cohort_from_table(phantoms / LABELS, cohort, images=phantoms / IMAGES, source=_SOURCE, progress=progress)
