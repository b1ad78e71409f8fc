"""One fold: fit a network, export it, and let the exported graphs judge the patients it never saw."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from functools import cached_property, partial
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
from osteoscope.training.clinical import add_covariates
from osteoscope.training.device import deterministic
from osteoscope.training.epochs import first_weights
from osteoscope.training.export import export_member, member_is_whole
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.mixed import load_mixed
from osteoscope.training.planes import load_cases
from osteoscope.training.rehearsal import rehearsal_of
from osteoscope.training.volumes import load_volumes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Auxiliary, Case
    from osteoscope.config import Config, PreparationConfig
    from osteoscope.inference.predict import Prepared
    from osteoscope.inference.prediction import ImagePrediction
    from osteoscope.training.auxiliary import Learnt
    from osteoscope.training.device import Device
    from osteoscope.training.planes import CaseStore
    from osteoscope.training.rehearsal import Rehearsal
    from osteoscope.training.weights import Start

MEMBER_FOLDER = "member"
_OUTCOME = "predictions.json"
_EVIDENCE = "evidence.npz"


class FitWatcher(Protocol):
    """Is told how a fit goes on; for progress only, nothing is decided by it."""

    def epoch_done(self, *, number: int, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        """Take note that `epoch` of `epochs` of a fit are done."""

    def stage(self, name: str, *, number: int | None = None) -> None:
        """Take note of what is done beside training: exporting, judging, reporting; of a fit, or of the run."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What all fits of a run are made from, small enough to be handed to another process: images are read there."""

    cases: Sequence[Case]
    """Labelled cases of at least two classes."""
    config: Config
    device: Device
    start: Start | None = None
    """What every network starts from; None starts each from random weights."""
    teaching: Sequence[Auxiliary] = ()
    """Auxiliary images that may be learnt from beside the cases."""
    learnt: Learnt | None = None
    """What was learnt from them before."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one fit leaves out, and where it lies."""

    number: int
    """Counted from 0 over all repeats."""
    repeat: int
    fold: int
    tested: frozenset[str]
    """Patients that are left out, to be judged."""
    folder: Path

    @property
    def is_final(self) -> bool:
        """Whether all patients are learnt from, and none is judged."""
        return not self.tested

    def is_done(self) -> bool:
        """Tell whether it was fitted, exported and judged."""
        return (self.folder / _OUTCOME).is_file() and member_is_whole(self.folder / MEMBER_FOLDER)


class Bench:
    """Does one fit after the other, on images that are read for the first of them.

    On a processor a fit takes one thread: two make it 1.4 times as fast, while two fits beside each other are done in
    half of the time (`osteoscope.training.side_by_side`; measured by ``benchmarks/folds.py``), and so the bits are the
    same however many there are. Beside an accelerator it takes the threads that it is given.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def do(self, part: Part, watcher: FitWatcher) -> None:
        """Fit, export and judge one fold; its outcome is written last, so a fold without one is done again.

        Raises
        ------
        OsteoscopeError
            If an image cannot be read any more, or an output cannot be written.
        """
        device = self._work.device
        with deterministic(1 if device.kind == "cpu" else device.threads):
            _do_fold(part, self._work, self._store, self._rehearsal, watcher)

    @cached_property
    def _store(self) -> CaseStore:
        return _load(self._work.cases, self._work.config.preparation)

    @cached_property
    def _rehearsal(self) -> Rehearsal | None:
        work = self._work
        return rehearsal_of(work.teaching, work.learnt, work.config, cases=work.cases) if work.teaching else None


def _load(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    if preparation.modalities:
        return load_mixed(cases, preparation)
    if preparation.volume is not None:
        return load_volumes(cases, preparation.volume)
    return load_cases(cases, preparation)


def _do_fold(part: Part, work: Work, store: CaseStore, rehearsal: Rehearsal | None, watcher: FitWatcher) -> None:
    cases, config = work.cases, work.config
    training = [case for case in cases if case.patient not in part.tested]
    testing = [case for case in cases if case.patient in part.tested]
    names = config.network.covariates
    encoder = CovariateEncoder.fit(training, names) if names else None
    stream = (config.training.seed, part.number)
    classes, (channels, _, _) = int(store.labels.max()) + 1, config.preparation.plane_shape(cases[0].images[0].modality)
    network = _build(
        config, classes=classes, covariates=encoder.size if encoder else 0, channels=channels, stream=stream
    )
    if work.start is not None:
        work.start.teach(network.encoder)
    plan = FitPlan(
        store=store,
        cases=np.flatnonzero([case.patient not in part.tested for case in cases]),
        classes=classes,
        settings=config.training,
        stream=stream,
        rehearsal=rehearsal,
    )
    told = partial(watcher.epoch_done, number=part.number)
    history = fit(network, plan, fabric=work.device.fabric(), folder=part.folder, watcher=told)
    what_follows = "exporting" if part.is_final else "exporting, and judging the patients left out"
    watcher.stage(what_follows, number=part.number)
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
    # For the forward pass of a torch network once more, which an accelerator does in no time.
    network.to(work.device.kind)
    explained, differences = [], []
    # One patient at a time, since each is held in full resolution.
    for case in testing:
        prepared = prepare_case(case, config.preparation)
        explained.append(predict_case(case, prepared, [member]))
        images = explained[-1].prediction.images
        if sum(len(image.speaking) for image in images) > 1:
            differences.append(_difference(network, prepared, images, member.covariates(case)))
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
    device = network.head.linear.weight.device
    scores = scores_of(look.likelihood for image in images for look in image.speaking)
    return difference_through_weights(
        network,
        torch.from_numpy(prepared.speaking_planes(images)).to(device),
        scores=torch.from_numpy(scores).to(device),
        target=network.head.linear.out_features - 1,
        covariates=None if covariates is None else torch.from_numpy(covariates)[None].to(device),
    )


def _write_outcome(
    part: Part,
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
