"""Judging a bundle on phantoms beside their truth: the best that can be done, and whether its reasons are causes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import InputError
from osteoscope.evaluation.document import Predictions, baseline_block
from osteoscope.evaluation.intervals import Figure
from osteoscope.evaluation.summary import summarise
from osteoscope.evaluation.truth import (
    Falls,
    falls,
    localisation_over_patients,
    localise_in_planes,
    probability_of,
    way_covered,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.config import PreparationConfig
    from osteoscope.evaluation.document import StudyFacts
    from osteoscope.evaluation.localisation import Localisation
    from osteoscope.imaging.volume import Volume
    from osteoscope.inference.prediction import ExplainedCase
    from osteoscope.inference.predictor import Predictor
    from osteoscope.phantom.truth import Truth
    from osteoscope.report.content import BeforeAfter

POSITIVE = "osteosarcoma"
"""The class that the likelihood ratio, the mineralised matrix and the counterfactual speak of."""

BAYES, MATRIX_RULE = "Bayes reference", "mineralised matrix: osteosarcoma"
"""Among the baselines: who knows every attribute exactly, and who goes by one sign alone."""

_MINERALISED, _LYTIC = "mineralised matrix", "purely lytic"


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """A patient of a cohort whose truth is known.

    Parameters
    ----------
    case
        The patient, with one CT.
    truth
        What the CT follows from.
    folder
        That holds the truth.
    """

    case: Case
    truth: Truth
    folder: Path

    @property
    def is_mineralised(self) -> bool:
        """Whether there is mineralised matrix."""
        return self.truth.patient.attributes.is_mineralised

    @property
    def is_positive(self) -> bool:
        """Whether it is an osteosarcoma."""
        return self.truth.patient.label == POSITIVE

    @property
    def has_counterfactual(self) -> bool:
        """Whether it is an osteosarcoma whose matrix can be taken out."""
        return self.is_positive and self.is_mineralised


def read_phantoms(folder: Path, cohort: Cohort, cases: Sequence[Case]) -> tuple[Phantom, ...]:
    """Find the truth of a cohort's patients.

    Parameters
    ----------
    folder
        That `osteoscope phantom` wrote.
    cohort
        Made of the images in it; patients are matched by their pseudonyms.
    cases
        Of the cohort.

    Returns
    -------
    One for each case, in the order of the cases.

    Raises
    ------
    InputError
        If the folder holds no truth, not that of every patient, or another than the cohort says.
    """
    from osteoscope.cohort.table import pseudonyms
    from osteoscope.phantom.truth import TRUTHS, read_truth

    names = sorted(path.name for path in (folder / TRUTHS).glob("PHANTOM-*"))
    if not names:
        raise InputError("holds no truth of phantoms", path=folder, remedy="name a folder that osteoscope phantom made")
    known = {pseudonym: name for name, pseudonym in pseudonyms(cohort.source, names).items()}
    missing = [case.patient for case in cases if case.patient not in known]
    if missing:
        raise InputError(
            f"holds no truth of {len(missing)} of {len(cases)} patients of the cohort, such as {missing[0]}",
            path=folder,
            remedy="name the folder that the cohort was made from",
        )
    return tuple(
        Phantom(case=case, truth=_agreeing(read_truth(place), case, cohort, place), folder=place)
        for case in cases
        for place in [folder / TRUTHS / known[case.patient]]
    )


def _agreeing(truth: Truth, case: Case, cohort: Cohort, place: Path) -> Truth:
    label = None if case.label is None else cohort.classes[case.label]
    found = [image.modality for image in case.images]
    if truth.patient.label == label and found == ["CT"]:
        return truth
    reason = f"expected one CT of {truth.patient.label}, found {' and '.join(found)} of {label} in the cohort"
    raise InputError(reason, path=place, remedy="make the cohort from labels.csv beside the truth")


# References -----------------------------------------------------------------------------------------------------------


def matrix_groups(phantoms: Sequence[Phantom]) -> dict[str, str]:
    """Give each patient's group: with mineralised matrix, or purely lytic."""
    return {one.case.patient: _MINERALISED if one.is_mineralised else _LYTIC for one in phantoms}


def reference_blocks(phantoms: Sequence[Phantom], model: Predictions, facts: StudyFacts) -> dict[str, dict[str, Any]]:
    """Judge what the truth alone would say, as the baselines of a study are judged.

    Parameters
    ----------
    phantoms
        The patients of the study, in the order of the rows of `model`.
    model
        The network's predictions by patient.
    facts
        Of the study.

    Returns
    -------
    `BAYES` and `MATRIX_RULE`, each a block of `osteoscope.evaluation.document.baseline_block`.
    """
    place = facts.classes.index(POSITIVE)
    ratios = [one.truth.patient.log_likelihood_ratio for one in phantoms]
    exact = probability_of(ratios, prior=facts.prior[place])
    ruled = np.array([float(one.is_mineralised) for one in phantoms])
    return {
        BAYES: baseline_block(
            model,
            _predictions(exact, place, model),
            facts,
            note="By the exact likelihood ratio of all that was rendered: no honest model can beat it but by luck.",
        ),
        MATRIX_RULE: baseline_block(
            model, _predictions(ruled, place, model), facts, note="One sign, as it is in truth: seen without error."
        ),
    }


def _predictions(probability: NDArray[np.float64], place: int, model: Predictions) -> Predictions:
    """Lay out probabilities of `POSITIVE`, shape (n,), as predictions of the same rows as the model's."""
    table = np.column_stack([1 - probability, 1 - probability])
    table[:, place] = probability
    return Predictions(
        patients=model.patients,
        labels=model.labels,
        repeats=model.repeats,
        probabilities=table,
        verdicts=table.argmax(axis=1).astype(np.int64),
        by_sets=False,
    )


def clinical_probability(
    phantoms: Sequence[Phantom], cohort: Cohort, *, seed: int
) -> tuple[str, NDArray[np.float64] | None]:
    """Predict the patients from age, sex and level alone, cross-validated within them.

    Returns
    -------
    The name of the baseline, as in `osteoscope.cohort.baselines`, and the probability of osteosarcoma, shape (n,); None
    where there are too few patients to fit anything on.
    """
    from osteoscope.cohort.baselines import clinical_place, folds_within, predict_by

    cases = [one.case for one in phantoms]
    name, columns = clinical_place(cases)
    folds = folds_within(cases, cohort.classes, seed=seed)
    if folds is None:
        return name, None
    found = predict_by(name, columns, [case.patient for case in cases], cohort=cohort, folds=folds)
    if found.probabilities is None:
        return name, None
    of_patient = dict(zip(found.patients, found.probabilities[0, :, cohort.classes.index(POSITIVE)], strict=True))
    return name, np.array([of_patient[case.patient] for case in cases])


def _lytic(phantoms: Sequence[Phantom], model: Predictions, facts: StudyFacts) -> dict[str, Any]:
    """Judge the network on purely lytic osteosarcoma against giant cell tumour, whatever that shows."""
    kept = np.array([not one.has_counterfactual for one in phantoms])
    counts = np.bincount(model.labels[kept], minlength=len(facts.classes))
    by_class = dict(zip(facts.slugs, counts.tolist(), strict=True))
    if not counts.all():
        return {"n_by_class": by_class, "reason": "there is no purely lytic osteosarcoma, or no giant cell tumour"}
    block = summarise(
        labels=model.labels[kept],
        probabilities=model.probabilities[kept],
        patients=[one.case.patient for one, keep in zip(phantoms, kept, strict=True) if keep],
        repeats=model.repeats[kept],
        classes=facts.slugs,
        prior=facts.prior,
        verdicts=model.verdicts[kept],
        seed=facts.seed,
    )
    return {"n_by_class": by_class, **{name: block[name] for name in ("auc", "balanced_accuracy", "sensitivity")}}


# Where the causes lie -------------------------------------------------------------------------------------------------


def discriminative_localisation(
    phantoms: Sequence[Phantom],
    explained: Sequence[ExplainedCase],
    preparation: PreparationConfig,
    *,
    shown: Mapping[str, int],
    threshold: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure whether evidence lies where something tells the two tumours apart: in matrix, or tumour in the arch.

    Parameters
    ----------
    phantoms, explained
        The patients and what was said of them, in one order. Those whose planes that were read show nothing that tells
        the two apart are left out.
    preparation
        That the predictions were made with.
    shown
        Place of the class whose evidence is measured, by pseudonym: the most probable one.
    threshold
        Share of the evidence's maximum from which on a point belongs to its region.
    seed
        Of the random maps, and of the bootstrap.

    Returns
    -------
    As `osteoscope.evaluation.truth.localisation_over_patients`.

    Raises
    ------
    ImageError
        If a CT cannot be read any more.
    InputError
        If a map of the truth cannot be read, or does not lie on its CT.
    """
    found: list[dict[str, tuple[Localisation, ...]]] = []
    labels: list[int] = []
    for number, (one, said) in enumerate(zip(phantoms, explained, strict=True)):
        measured = _localised(
            one, said, preparation, shown=shown[one.case.patient], threshold=threshold, seed=seed + 1000 * number
        )
        if measured is not None:
            found.append(measured)
            labels.append(int(one.is_positive))
    return localisation_over_patients(found, labels, seed=seed)


def _localised(
    phantom: Phantom,
    explained: ExplainedCase,
    preparation: PreparationConfig,
    *,
    shown: int,
    threshold: float,
    seed: int,
) -> dict[str, tuple[Localisation, ...]] | None:
    """Measure one patient's evidence for the class that is shown; None where there is nothing to be found."""
    from osteoscope.imaging.prepare import Square
    from osteoscope.imaging.resampling import resample_mask
    from osteoscope.imaging.slices import cut_slices, without_neighbours
    from osteoscope.inference.evidence import on_pixels
    from osteoscope.inference.scans import PreparedScans

    prepared = PreparedScans.of_case(phantom.case, preparation)
    volume, plan = prepared.volumes[0], prepared.plans[0]
    told = _discriminative(phantom, volume)
    looks = explained.prediction.images[0].looks
    shape, whole = (plan.size, plan.size), Square(left=0, top=0, side=plan.size)
    mask = np.stack([resample_mask(told[look.plane], look.read_rectangle(), shape) for look in looks])
    if not mask.any():
        return None
    evidence = explained.evidence[:, shown]
    pixels = without_neighbours(cut_slices(volume, plan), plan)
    return localise_in_planes(on_pixels(evidence, whole, shape), mask, pixels, threshold=threshold, seed=seed)


_OFF_GRID = 0.1
"""mm by which a voxel of the truth may lie beside that of the CT: positions are written in rounded decimals."""


def _discriminative(phantom: Phantom, volume: Volume) -> NDArray[np.bool_]:
    """Read where something tells the two tumours apart: (planes, rows, columns) of the CT."""
    from osteoscope.imaging.nifti import open_nifti
    from osteoscope.phantom.truth import DISCRIMINATIVE

    path = phantom.folder / DISCRIMINATIVE
    truth = open_nifti(path, modality="CT").volume
    there, here = truth.geometry, volume.geometry
    same = there.shape == here.shape and there.affine is not None and here.affine is not None
    if not same or np.abs(np.asarray(there.affine) - np.asarray(here.affine)).max() > _OFF_GRID:
        raise InputError("does not lie on the voxels of the CT", path=path, remedy="make the phantoms again")
    return truth.read() > 0


# What comes without them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class TakenOut:
    """A mineralised osteosarcoma before and after its matrix is taken out.

    Parameters
    ----------
    phantom
        The patient.
    before, after
        Probability of osteosarcoma, calibrated, under the bundle's prior.
    seen_before, seen_after
        What was said, with the evidence.
    """

    phantom: Phantom
    before: float
    after: float
    seen_before: ExplainedCase
    seen_after: ExplainedCase

    @property
    def fall(self) -> float:
        """How far the probability falls; below 0 where it rises."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactual:
    """What becomes of the answer where the mineralised matrix is taken out and nothing else is changed.

    Parameters
    ----------
    patients
        Every mineralised osteosarcoma, in the order in which they were given.
    seed
        Of the bootstrap.
    """

    patients: tuple[TakenOut, ...]
    seed: int = 0

    @cached_property
    def falls(self) -> Falls | None:
        """Share of patients in whom the probability falls, and the median fall; None without patients."""
        if not self.patients:
            return None
        return falls([one.before for one in self.patients], [one.after for one in self.patients], seed=self.seed)

    @property
    def typical(self) -> TakenOut | None:
        """The patient of the median fall, of two the lesser; None without patients."""
        ranked = sorted(self.patients, key=lambda one: (one.fall, one.phantom.case.patient))
        return ranked[(len(ranked) - 1) // 2] if ranked else None

    def to_json(self) -> dict[str, Any]:
        """Give ``{"n", "fallen", "median_fall", "patients": [{"patient", "before", "after"}]}``, or a reason."""
        if self.falls is None:
            return {"n": 0, "reason": "no osteosarcoma of these patients has mineralised matrix"}
        pairs = [
            {"patient": one.phantom.case.patient, "before": one.before, "after": one.after} for one in self.patients
        ]
        return {"n": len(pairs), **self.falls.to_json(), "patients": pairs}


def counterfactual(
    predictor: Predictor,
    phantoms: Sequence[Phantom],
    explained: Sequence[ExplainedCase],
    *,
    classes: Sequence[str],
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> Counterfactual:
    """Take the mineralised matrix out of every osteosarcoma that has some, and let a bundle look again.

    Each CT is rendered once more from its truth, without matrix: every other voxel, the noise among them, is the same.

    Parameters
    ----------
    predictor
        The bundle at work.
    phantoms, explained
        Patients, and what the predictor says of their CTs as they are, in one order.
    classes
        Of the bundle, osteosarcoma among them.
    seed
        Of the bootstrap.
    progress
        Called after each patient that was rendered.

    Raises
    ------
    InputError
        If a CT that is rendered once more is not the one in the cohort: another version has made it.
    """
    place = list(classes).index(POSITIVE)
    taken_out = []
    for one, before in zip(phantoms, explained, strict=True):
        if not one.has_counterfactual:
            continue
        after = _read_again(predictor, one, _rendered_again(one).without_matrix)
        logits = np.array([before.prediction.logits, after.prediction.logits])
        probabilities = predictor.calibration.apply(logits)[:, place].tolist()
        taken_out.append(
            TakenOut(phantom=one, before=probabilities[0], after=probabilities[1], seen_before=before, seen_after=after)
        )
        if progress is not None:
            progress()
    return Counterfactual(patients=tuple(taken_out), seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class _RenderedAgain:
    """A CT of a phantom in memory, as it is in the cohort and without matrix."""

    as_it_is: Volume
    without_matrix: Volume


def _rendered_again(phantom: Phantom) -> _RenderedAgain:
    from osteoscope.imaging.values import values_of
    from osteoscope.imaging.volume import Volume
    from osteoscope.phantom.render import render

    truth = phantom.truth
    again = render(truth.patient.attributes, truth.patient.seed, acquisition=truth.acquisition, shape=truth.shape)
    as_it_is = Volume.in_memory(again.hu, again.geometry, "CT")
    if values_of(as_it_is).sha256 != phantom.case.images[0].pixel_sha256:
        raise InputError(
            f"rendered once more, this patient of version {truth.version} is not the one in the cohort",
            path=phantom.folder,
            remedy="make the phantoms, the cohort and the bundle with one version",
        )
    without = Volume.in_memory(again.without_matrix, again.geometry, "CT")
    return _RenderedAgain(as_it_is=as_it_is, without_matrix=without)


def _read_again(predictor: Predictor, phantom: Phantom, volume: Volume) -> ExplainedCase:
    """Let a bundle read a volume in the place of the patient's own."""
    from osteoscope.inference.predict import predict_case
    from osteoscope.inference.scans import PreparedScans

    return predict_case(phantom.case, PreparedScans.of([volume], predictor.preparation), predictor.members)


# All of it ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class BesideTruth:
    """What the truth says of a study.

    Parameters
    ----------
    groups
        Each patient's group by matrix; a grouping for the subgroups.
    baselines
        `BAYES` and `MATRIX_RULE`, as baselines of the study.
    block
        For ``metrics.json``; `docs/outputs.md` says what it holds.
    counterfactual
        What became of the answers.
    positive
        Index of osteosarcoma among the classes.
    """

    groups: dict[str, str]
    baselines: dict[str, dict[str, Any]]
    block: dict[str, Any]
    counterfactual: Counterfactual
    positive: int

    def pictures(self) -> BeforeAfter | None:
        """Show the patient of the median fall before and after; None where no matrix could be taken out.

        Raises
        ------
        InputError
            As `counterfactual`.
        """
        from osteoscope.report.truth import Seen, before_after

        one = self.counterfactual.typical
        if one is None:
            return None
        again = _rendered_again(one.phantom)
        return before_after(
            Seen(volume=again.as_it_is, explained=one.seen_before, probability=one.before),
            Seen(volume=again.without_matrix, explained=one.seen_after, probability=one.after),
            chosen=self.positive,
        )


def beside_truth(
    phantoms: Sequence[Phantom],
    explained: Sequence[ExplainedCase],
    *,
    cohort: Cohort,
    predictor: Predictor,
    model: Predictions,
    facts: StudyFacts,
    threshold: float | None,
    progress: Callable[[], None] | None = None,
) -> BesideTruth:
    """Set a bundle's answers on phantoms beside their truth.

    Parameters
    ----------
    phantoms, explained
        The patients and what was said of them, in the order of the rows of `model`.
    cohort
        Of these patients.
    predictor
        The bundle at work.
    model
        Its calibrated predictions by patient.
    facts
        Of the study.
    threshold
        Share of an evidence map's maximum from which on a point belongs to its region; None is half.
    progress
        Called after each patient whose matrix was taken out.

    Raises
    ------
    ImageError
        If a CT cannot be read any more.
    InputError
        If the truth is not that of the CTs.
    """
    baselines = reference_blocks(phantoms, model, facts)
    taken_out = counterfactual(
        predictor, phantoms, explained, classes=facts.classes, seed=facts.seed, progress=progress
    )
    counts = {
        slug: sum(one.is_mineralised for one in phantoms if one.case.label == label)
        for label, slug in enumerate(facts.slugs)
    }
    rule, place = baselines[MATRIX_RULE], facts.classes.index(POSITIVE)
    block = {
        "mineralised": counts,
        "bayes": _bayes(phantoms, baselines[BAYES], cohort, model, facts),
        "matrix_rule": {
            "balanced_accuracy": rule["balanced_accuracy"],
            "sensitivity": rule["sensitivity"][facts.slugs[place]],
            "specificity": rule["specificity"][facts.slugs[place]],
        },
        "lytic": _lytic(phantoms, model, facts),
        "localisation": discriminative_localisation(
            phantoms,
            explained,
            predictor.preparation,
            shown=model.most_probable(),
            threshold=threshold or 0.5,
            seed=facts.seed,
        ),
        "counterfactual": taken_out.to_json(),
    }
    return BesideTruth(
        groups=matrix_groups(phantoms),
        baselines=baselines,
        block=block,
        counterfactual=taken_out,
        positive=place,
    )


def _bayes(
    phantoms: Sequence[Phantom], baseline: Mapping[str, Any], cohort: Cohort, model: Predictions, facts: StudyFacts
) -> dict[str, Any]:
    """Give the Bayes reference, and how far the network goes from clinical data alone towards it."""
    place = facts.classes.index(POSITIVE)
    name, clinical = clinical_probability(phantoms, cohort, seed=facts.seed)
    if clinical is None:
        covered = Figure(value=None, n=len(phantoms), reason="there are too few patients to learn from")
    else:
        covered = way_covered(
            model.labels == place,
            model.probabilities[:, place],
            least=clinical,
            most=[one.truth.patient.log_likelihood_ratio for one in phantoms],
            seed=facts.seed,
        )
    return {"auc": baseline["auc"], "clinical": name, "way_covered": covered.to_json()}
