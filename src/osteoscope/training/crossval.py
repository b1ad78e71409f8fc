"""Every fold: fit a network, export it, and let the exported graphs judge the patients it never saw."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.errors import RunError
from osteoscope.evaluation.calibration import softmax
from osteoscope.evaluation.metrics import overall_auc
from osteoscope.inference.engine import MemberEngine
from osteoscope.inference.predict import Member, predict_case, prepare_case, read_planes, two_planes
from osteoscope.inference.prediction import CasePrediction, ExplainedCase
from osteoscope.network.classifier import TumourNetwork
from osteoscope.network.gradcam import difference_through_weights
from osteoscope.storage import write_bytes, write_json
from osteoscope.training.checkpoint import remove_checkpoints
from osteoscope.training.export import export_member, member_is_whole
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.planes import load_cases
from osteoscope.training.volumes import load_volumes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from osteoscope.cohort.split import Folds
    from osteoscope.cohort.table import Case
    from osteoscope.config import Config, PreparationConfig
    from osteoscope.training.planes import CaseStore
    from osteoscope.training.rehearsal import Rehearsal
    from osteoscope.training.weights import Start

FOLDS_FOLDER = "folds"
MEMBER_FOLDER = "member"
_OUTCOME = "predictions.json"
_EVIDENCE = "evidence.npz"


class RunWatcher(Protocol):
    """Is told how a run goes on; for progress only, nothing is decided by it."""

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        """Take note that `epoch` of `epochs` of learning from auxiliary images are done."""

    def fold_started(self, *, number: int, folds: int) -> None:
        """Take note that fold `number`, counted from 0 over all repeats, begins."""

    def epoch_done(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        """Take note that `epoch` of `epochs` are done."""

    def stage(self, name: str) -> None:
        """Take note of what is done beside training: exporting, judging, reporting."""

    def fold_done(self, outcome: FoldOutcome) -> None:
        """Take note of a fold that is done, now or in an earlier attempt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldOutcome:
    """A fold that is done."""

    number: int
    """Counted from 0 over all repeats."""
    repeat: int
    fold: int
    cases: tuple[ExplainedCase, ...]
    """The patients that the fold's network never saw."""
    history: tuple[dict[str, Any], ...]
    """One record for each epoch."""
    differences_through_weights: tuple[float, ...]
    """For each test patient of several looks that speak, what the closed form leaves out
    (`difference_through_weights`)."""
    parity: dict[str, float]
    encoder: CovariateEncoder | None
    folder: Path

    def auc(self) -> float | None:
        """AUC of the fold's patients by their logits; None where a class has none among them."""
        cases = [case.prediction for case in self.cases]
        labels = np.array([case.label for case in cases], dtype=np.int64)
        return overall_auc(labels, softmax(np.array([case.logits for case in cases])))

    def member_folder(self) -> Path:
        """Find the fold's network, as a bundle's member."""
        return self.folder / MEMBER_FOLDER


def run_folds(
    cases: Sequence[Case],
    folds: Folds,
    config: Config,
    *,
    start: Start | None,
    rehearsal: Rehearsal | None = None,
    folder: Path,
    fabric: Fabric,
    watcher: RunWatcher,
) -> list[FoldOutcome]:
    """Do every fold that is not done yet.

    Parameters
    ----------
    cases
        Labelled cases of at least two classes.
    folds
        Their partition.
    config
        All settings.
    start
        What every fold's network starts from; None starts each from random weights.
    rehearsal
        What every fold learns from beside its cases; None where nothing is.
    folder
        The run's folder.
    fabric
        Device and precision.
    watcher
        Is told how it goes on.

    Raises
    ------
    OsteoscopeError
        If an image cannot be read any more, or an output cannot be written.
    """
    store: CaseStore | None = None
    outcomes = []
    for number in range(folds.repeats * folds.folds):
        repeat, fold = divmod(number, folds.folds)
        fold_folder = folder / FOLDS_FOLDER / str(number)
        watcher.fold_started(number=number, folds=folds.repeats * folds.folds)
        if not _is_done(fold_folder):
            store = store or _load(cases, config.preparation)
            tested = folds.test_patients(repeat, fold)
            part = _Part(number=number, repeat=repeat, fold=fold, tested=frozenset(tested), folder=fold_folder)
            _do_fold(part, cases, store, config, start=start, rehearsal=rehearsal, fabric=fabric, watcher=watcher)
        # A kill may have come between a fold's outcome and the removal of its checkpoints.
        remove_checkpoints(fold_folder)
        outcomes.append(read_outcome(fold_folder))
        watcher.fold_done(outcomes[-1])
    return outcomes


def folds_are_done(folder: Path, folds: Folds) -> bool:
    """Tell whether every fold of a run is done, so that nothing is left to be fitted."""
    return all(_is_done(folder / FOLDS_FOLDER / str(number)) for number in range(folds.repeats * folds.folds))


def _load(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    if preparation.volume is not None:
        return load_volumes(cases, preparation.volume)
    return load_cases(cases, preparation)


def _is_done(folder: Path) -> bool:
    return (folder / _OUTCOME).is_file() and member_is_whole(folder / MEMBER_FOLDER)


def read_outcome(folder: Path) -> FoldOutcome:
    """Read a fold that is done from its folder.

    Raises
    ------
    RunError
        If its files are damaged.
    """
    try:
        return _read_outcome(folder)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"is damaged: {_OUTCOME} or {_EVIDENCE} cannot be read",
            path=folder,
            remedy="delete that folder and run the same command again to do this fold anew",
        ) from error


def _read_outcome(folder: Path) -> FoldOutcome:
    content = json.loads((folder / _OUTCOME).read_text(encoding="utf-8"))
    with np.load(folder / _EVIDENCE, allow_pickle=False) as arrays:
        cases = tuple(
            ExplainedCase(
                prediction=CasePrediction.model_validate(case),
                evidence=arrays[f"{place}.evidence"],
                lesions=arrays[f"{place}.lesions"],
            )
            for place, case in enumerate(content["cases"])
        )
    encoder = content["covariates"]
    return FoldOutcome(
        number=content["number"],
        repeat=content["repeat"],
        fold=content["fold"],
        cases=cases,
        history=tuple(content["history"]),
        differences_through_weights=tuple(content["differences_through_weights"]),
        parity=content["parity"],
        encoder=None if encoder is None else CovariateEncoder.from_json(encoder),
        folder=folder,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    number: int
    repeat: int
    fold: int
    tested: frozenset[str]
    folder: Path


def _do_fold(
    part: _Part,
    cases: Sequence[Case],
    store: CaseStore,
    config: Config,
    *,
    start: Start | None,
    rehearsal: Rehearsal | None,
    fabric: Fabric,
    watcher: RunWatcher,
) -> None:
    """Fit, export and judge one fold; its outcome is written last, so a fold without one is done again."""
    training = [case for case in cases if case.patient not in part.tested]
    testing = [case for case in cases if case.patient in part.tested]
    names = config.network.covariates
    encoder = CovariateEncoder.fit(training, names) if names else None
    covariates = None
    if encoder is not None:
        covariates = torch.from_numpy(
            np.stack([encoder.encode(age=c.age, sex=c.sex, site=c.site, level=c.level) for c in cases])
        )
    stream = (config.training.seed, part.number)
    classes, channels = int(store.labels.max()) + 1, store.planes.canvases.shape[1]
    network = _build(
        config, classes=classes, covariates=encoder.size if encoder else 0, channels=channels, stream=stream
    )
    if start is not None:
        start.teach(network.encoder)
    plan = FitPlan(
        store=store,
        cases=np.flatnonzero([case.patient not in part.tested for case in cases]),
        covariates=covariates,
        classes=classes,
        settings=config.training,
        stream=stream,
        rehearsal=rehearsal,
    )
    history = fit(network, plan, fabric=fabric, folder=part.folder, watcher=watcher.epoch_done)
    watcher.stage("exporting, and judging the patients left out")
    network.to("cpu")
    parity = export_member(
        network,
        part.folder / MEMBER_FOLDER,
        planes=two_planes(prepare_case(training[0], config.preparation)),
        covariates=None if covariates is None else covariates[0].numpy(),
    )
    member = Member(engine=MemberEngine(part.folder / MEMBER_FOLDER, threads=torch.get_num_threads()), encoder=encoder)
    prepared = [prepare_case(case, config.preparation) for case in testing]
    explained = [predict_case(case, planes, [member]) for case, planes in zip(testing, prepared, strict=True)]
    differences = [
        _difference(network, read_planes(images, said.prediction), member.covariates(case))
        for case, images, said in zip(testing, prepared, explained, strict=True)
        if sum(len(image.speaking) for image in said.prediction.images) > 1
    ]
    _write_outcome(part, explained, history, asdict(parity), encoder, differences)


def _build(config: Config, *, classes: int, covariates: int, channels: int, stream: tuple[int, ...]) -> TumourNetwork:
    """Build a fold's network; its first weights depend on the stream alone."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(stream).generate_state(1)[0]))
        return TumourNetwork(config.network, classes=classes, covariates=covariates, in_channels=channels)


def _difference(network: TumourNetwork, planes: NDArray[np.float32], covariates: NDArray[np.float32] | None) -> float:
    """Measure, for a patient of several planes, what the closed form leaves out for the last class."""
    return difference_through_weights(
        network,
        torch.from_numpy(planes),
        target=network.head.linear.out_features - 1,
        covariates=None if covariates is None else torch.from_numpy(covariates)[None],
    )


def _write_outcome(
    part: _Part,
    explained: Sequence[ExplainedCase],
    history: list[dict[str, Any]],
    parity: dict[str, float],
    encoder: CovariateEncoder | None,
    differences: list[float],
) -> None:
    evidence = io.BytesIO()
    # Two arrays a case, named by its place in the list of cases.
    arrays = {f"{place}.evidence": case.evidence for place, case in enumerate(explained)}
    arrays |= {f"{place}.lesions": case.lesions for place, case in enumerate(explained)}
    np.savez_compressed(evidence, allow_pickle=False, **arrays)
    write_bytes(part.folder / _EVIDENCE, evidence.getvalue())
    content = {
        "number": part.number,
        "repeat": part.repeat,
        "fold": part.fold,
        "covariates": None if encoder is None else encoder.to_json(),
        "parity": parity,
        "differences_through_weights": differences,
        "history": history,
        "cases": [case.prediction.model_dump(mode="json") for case in explained],
    }
    write_json(part.folder / _OUTCOME, content)
