"""Every fold: fit a network, export it, and let the exported graphs judge the patients it never saw."""

from __future__ import annotations

import io
import json
import shutil
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
from osteoscope.inference.engine import Member, MemberEngine
from osteoscope.inference.predict import predict_case, prepare_case, two_planes
from osteoscope.inference.prediction import CasePrediction, ExplainedCase
from osteoscope.inference.reading import scores_of
from osteoscope.network.classifier import TumourNetwork
from osteoscope.network.gradcam import difference_through_weights
from osteoscope.storage import write_bytes, write_json
from osteoscope.training.checkpoint import remove_checkpoints
from osteoscope.training.clinical import add_covariates
from osteoscope.training.epochs import first_weights
from osteoscope.training.export import export_member, member_is_whole
from osteoscope.training.fit import CLOSER_FOLDER, FitPlan, fit
from osteoscope.training.mixed import load_mixed
from osteoscope.training.planes import load_cases
from osteoscope.training.run_folder import read_run
from osteoscope.training.volumes import load_volumes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from osteoscope.cohort.split import Folds
    from osteoscope.cohort.table import Case
    from osteoscope.config import Config, PreparationConfig
    from osteoscope.inference.predict import Prepared
    from osteoscope.inference.prediction import ImagePrediction
    from osteoscope.training.planes import CaseStore
    from osteoscope.training.rehearsal import Rehearsal
    from osteoscope.training.weights import Start

FOLDS_FOLDER = "folds"
FINAL_FOLDER = "final"
MEMBER_FOLDER = "member"
_OUTCOME = "predictions.json"
_EVIDENCE = "evidence.npz"


class RunWatcher(Protocol):
    """Is told how a run goes on; for progress only, nothing is decided by it."""

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        """Take note that `epoch` of `epochs` of learning from auxiliary images are done."""

    def fold_started(self, *, number: int, folds: int) -> None:
        """Take note that fold `number`, counted from 0 over all repeats, begins."""

    def final_started(self) -> None:
        """Take note that the folds are done, and one network begins to learn from all patients."""

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
) -> RunOutcome:
    """Do every fold that is not done yet, and then, where the bundle is to hold one network, fit that to all cases.

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
    for part in _parts(folds, config, folder):
        if part.is_final:
            watcher.final_started()
        else:
            watcher.fold_started(number=part.number, folds=folds.repeats * folds.folds)
        if not _is_done(part.folder):
            store = store or _load(cases, config.preparation)
            _do_fold(part, cases, store, config, start=start, rehearsal=rehearsal, fabric=fabric, watcher=watcher)
        # A kill may have come between a fold's outcome and the removal of its checkpoints.
        remove_checkpoints(part.folder)
        shutil.rmtree(part.folder / CLOSER_FOLDER, ignore_errors=True)
        outcomes.append(read_outcome(part.folder))
        if not part.is_final:
            watcher.fold_done(outcomes[-1])
    final = outcomes.pop() if config.training.members == "one" else None
    return RunOutcome(folds=tuple(outcomes), final=final)


def folds_are_done(folder: Path, folds: Folds, config: Config) -> bool:
    """Tell whether all networks of a run are done, so that nothing is left to be fitted."""
    return all(_is_done(part.folder) for part in _parts(folds, config, folder))


def _parts(folds: Folds, config: Config, folder: Path) -> Iterator[_Part]:
    """List what is fitted: each fold of each repeat, and what learns from all, if anything does."""
    number = 0
    for repeat in range(folds.repeats):
        for fold in range(folds.folds):
            tested = frozenset(folds.test_patients(repeat, fold))
            yield _Part(
                number=number, repeat=repeat, fold=fold, tested=tested, folder=folder / FOLDS_FOLDER / str(number)
            )
            number += 1
    if config.training.members == "one":
        yield _Part(number=number, repeat=0, fold=folds.folds, tested=frozenset(), folder=folder / FINAL_FOLDER)


def _load(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    if preparation.modalities:
        return load_mixed(cases, preparation)
    if preparation.volume is not None:
        return load_volumes(cases, preparation.volume)
    return load_cases(cases, preparation)


def _is_done(folder: Path) -> bool:
    return (folder / _OUTCOME).is_file() and member_is_whole(folder / MEMBER_FOLDER)


def first_repeat(run: Path) -> list[FoldOutcome]:
    """Read the outcomes of a run's first repeat, in the order of its folds.

    Raises
    ------
    RunError
        If the folder is no run whose folds are done.
    """
    if read_run(run).get("status") != "done":
        raise RunError("is a run whose folds are not done", path=run, remedy="run the same training again to its end")
    numbers = sorted(int(path.name) for path in (run / FOLDS_FOLDER).iterdir())
    outcomes = (read_outcome(run / FOLDS_FOLDER / str(number)) for number in numbers)
    return [outcome for outcome in outcomes if outcome.repeat == 0]


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
    """Patients that are left out, to be judged."""
    folder: Path

    @property
    def is_final(self) -> bool:
        return not self.tested


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
    stream = (config.training.seed, part.number)
    classes, (channels, _, _) = int(store.labels.max()) + 1, config.preparation.plane_shape(cases[0].images[0].modality)
    network = _build(
        config, classes=classes, covariates=encoder.size if encoder else 0, channels=channels, stream=stream
    )
    if start is not None:
        start.teach(network.encoder)
    plan = FitPlan(
        store=store,
        cases=np.flatnonzero([case.patient not in part.tested for case in cases]),
        classes=classes,
        settings=config.training,
        stream=stream,
        rehearsal=rehearsal,
    )
    history = fit(network, plan, fabric=fabric, folder=part.folder, watcher=watcher.epoch_done)
    watcher.stage("exporting" if part.is_final else "exporting, and judging the patients left out")
    network.to("cpu")
    if encoder is not None:
        add_covariates(network.head, encoder, training)
    parity = export_member(
        network,
        part.folder / MEMBER_FOLDER,
        planes=two_planes(prepare_case(max(training, key=_modalities), config.preparation)),
        covariates=None if encoder is None else encoder.encode(age=encoder.age_mean + encoder.age_sd, sex="F"),
    )
    # Always the same, so that a run that goes on later ends with the same bytes.
    engine = MemberEngine(part.folder / MEMBER_FOLDER, threads=torch.get_num_threads(), runtime="onnxruntime")
    member = Member(engine=engine, encoder=encoder)
    prepared = [prepare_case(case, config.preparation) for case in testing]
    explained = [predict_case(case, planes, [member]) for case, planes in zip(testing, prepared, strict=True)]
    differences = [
        _difference(network, images, said.prediction.images, member.covariates(case))
        for case, images, said in zip(testing, prepared, explained, strict=True)
        if sum(len(image.speaking) for image in said.prediction.images) > 1
    ]
    _write_outcome(part, explained, history, asdict(parity), encoder, differences)


def _modalities(case: Case) -> int:
    return len({image.modality for image in case.images})


def _build(config: Config, *, classes: int, covariates: int, channels: int, stream: tuple[int, ...]) -> TumourNetwork:
    """Build a fold's network; its first weights depend on the stream alone."""
    with first_weights(stream):
        return TumourNetwork(
            config.network,
            classes=classes,
            covariates=covariates,
            in_channels=channels,
            modalities=len(config.preparation.modalities),
        )


def _difference(
    network: TumourNetwork,
    prepared: Prepared,
    images: Sequence[ImagePrediction],
    covariates: NDArray[np.float32] | None,
) -> float:
    """Measure, for a patient of several looks that speak, what the closed form leaves out for the last class."""
    return difference_through_weights(
        network,
        torch.from_numpy(prepared.speaking_planes(images)),
        scores=torch.from_numpy(scores_of(look.likelihood for image in images for look in image.speaking)),
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
