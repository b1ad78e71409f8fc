"""Fitting a bundle's probabilities and verdicts to a site, on patients that it never saw; its networks stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import BundleError, CohortError, ConfigError, require
from osteoscope.storage import refuse_within
from osteoscope.workflow.study import check_lesions
from osteoscope.workflow.unseen import check_classes, check_images, check_unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from osteoscope.bundle.format import Manifest, Recalibration, Verdicts
    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.calibration import CalibrationMap, ChosenCalibration

FEWEST_TO_FIT = 10
"""Patients of each class that a calibration is fitted on; with fewer, only the prior is changed. In simulation ten a
class already calibrate a network that is too sure of itself much better than it was, and hardly harm one that was right
(docs/calibration.md)."""

FIGURES_FOLDS = 5
"""Of the cross-fitting of the figures after recalibration."""

_FIGURES = ("brier", "log_loss", "calibration_slope", "calibration_intercept")


@dataclass(frozen=True, kw_only=True)
class RecalibrationSummary:
    """The new bundle, and what was done."""

    folder: Path
    manifest: Manifest
    """Of the new bundle; the last step of its lineage holds the figures before and after."""
    notes: tuple[str, ...]
    """What could not be done, and how many cases it would take; one sentence each."""

    @property
    def step(self) -> Recalibration:
        """What was done, as the bundle's lineage tells it."""
        return self.manifest.lineage[-1]


def recalibrate(
    bundle_folder: Path,
    cohort_folder: Path,
    output: Path,
    *,
    prior: Mapping[str, float] | None = None,
    keep_prior: bool = False,
    threads: int | None = None,
    images: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RecalibrationSummary:
    """Make a bundle of the same networks whose probabilities and verdicts fit a site.

    Calibration, its method and the verdict thresholds are found on the cohort's patients. With fewer than
    `FEWEST_TO_FIT` of a class only the prior changes; with too few for thresholds, the parent's are carried over.

    Parameters
    ----------
    bundle_folder
        Of a bundle.
    cohort_folder
        Of a cohort with the bundle's classes and no patient or image that the bundle has seen.
    output
        Where the new bundle goes; written whole or not at all.
    prior
        Share of each class, by slug; if left out, that of the cohort's patients.
    keep_prior
        Keep the prior that the bundle states.
    threads
        Of the processor; None leaves the choice to onnxruntime.
    images
        Where the cohort's images lie, if they have moved.
    progress
        Is told how many of how many patients are done.

    Raises
    ------
    OsteoscopeError
        If the bundle is damaged, the prior is none, the cohort does not fit or was seen, or the output cannot be
        written.
    """
    require("pandas", "pyarrow", "sklearn", "scipy")
    from osteoscope.bundle.load import SeenCases, load_bundle, read_recalibration_cases, read_training_cases
    from osteoscope.bundle.write import refuse_other, write_bundle
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.table import cases as cases_of
    from osteoscope.cohort.table import read_cohort

    refuse_within(output, bundle_folder)
    refuse_other(output)
    bundle = load_bundle(bundle_folder)
    stated = _stated_prior(bundle.manifest, prior, keep=keep_prior)
    cohort = read_cohort(cohort_folder, images=images)
    raise_if_blocked(find_leaks(cohort))
    check_classes(bundle, cohort)
    check_images(bundle, cohort)
    check_unseen(bundle, cohort)
    cases = cases_of(cohort)
    check_lesions(cases, bundle.manifest.preparation.annotation)
    _check_every_class(cases, cohort)
    logits = _logits(bundle, cases, threads=threads, progress=progress)
    site = _Site(
        cohort=cohort,
        parent=bundle.manifest.calibration_map(),
        logits=logits,
        labels=np.array([case.label for case in cases], dtype=np.int64),
        stated=stated,
    )
    manifest, notes = _recalibrated(bundle, site, patients=[case.patient for case in cases])
    write_bundle(
        manifest,
        output,
        member_folders=[bundle.folder / member.folder for member in manifest.members],
        training_cases=read_training_cases(bundle),
        recalibration_cases=read_recalibration_cases(bundle).joined(SeenCases.of(cases)),
    )
    return RecalibrationSummary(folder=output, manifest=_verified(output, bundle), notes=notes)


def _stated_prior(manifest: Manifest, prior: Mapping[str, float] | None, *, keep: bool) -> tuple[float, ...] | None:
    """Give the prior that was asked for, in the order of the classes; None stands for the cohort's class shares."""
    from osteoscope.evaluation.arrays import checked_prior

    if prior is None:
        return manifest.calibration_map().prior if keep else None
    if keep:
        raise ConfigError("a prior is given, and shall be kept", remedy="leave out --prior or --keep-prior")
    if set(prior) != set(manifest.slugs):
        raise ConfigError(
            f"a prior needs the share of each class, {', '.join(manifest.slugs)}; got {', '.join(prior)}",
            remedy="name each of them once with --prior SLUG=SHARE",
        )
    try:
        checked = checked_prior([prior[slug] for slug in manifest.slugs], classes=len(manifest.slugs))
    except ValueError as error:
        raise ConfigError(str(error), remedy="give shares above 0 that sum to 1") from error
    return tuple(checked.tolist())


def _check_every_class(cases: Sequence[Case], cohort: Cohort) -> None:
    counts = np.bincount([case.label for case in cases if case.label is not None], minlength=len(cohort.classes))
    if (counts < 2).any():
        found = ", ".join(f"{count} {name}" for name, count in zip(cohort.classes, counts.tolist(), strict=True))
        raise CohortError(
            f"two patients of each class are needed to see what a recalibration does, found {found}; "
            f"{FEWEST_TO_FIT} of each are needed to fit one",
            remedy="add patients of the rarer class",
        )


def _logits(
    bundle: Bundle, cases: Sequence[Case], *, threads: int | None, progress: Callable[[int, int], None] | None
) -> FloatArray:
    """Let the bundle read every patient: mean logits of its members, shape (n, K)."""
    from osteoscope.inference.predictor import load_predictor

    predictor = load_predictor(bundle, threads=threads)
    logits = []
    for done, case in enumerate(cases):
        logits.append(predictor.explain(case).prediction.logits)
        if progress is not None:
            progress(done + 1, len(cases))
    return np.array(logits)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Site:
    """The patients that a bundle is recalibrated on, as it sees them."""

    cohort: Cohort
    parent: CalibrationMap
    logits: FloatArray
    labels: IntArray
    stated: tuple[float, ...] | None
    """The prior that was asked for; None stands for the class shares."""

    @property
    def counts(self) -> list[int]:
        """Patients of each class."""
        counts: list[int] = np.bincount(self.labels, minlength=len(self.cohort.classes)).tolist()
        return counts

    @property
    def fits(self) -> bool:
        """Whether they are enough for a calibration of their own."""
        return min(self.counts) >= FEWEST_TO_FIT

    def prior(self, labels: IntArray) -> tuple[float, ...]:
        """Give the prior that is to be stated, from nothing but these labels where it comes from the cohort."""
        if self.stated is not None:
            return self.stated
        return tuple((np.bincount(labels, minlength=len(self.cohort.classes)) / len(labels)).tolist())

    def prior_only(self, _logits: FloatArray, labels: IntArray) -> CalibrationMap:
        """Take the parent's map under the new prior."""
        return self.parent.restated(self.prior(labels))

    def chosen(self, logits: FloatArray, labels: IntArray) -> ChosenCalibration:
        """Find the new map on some of the patients."""
        from osteoscope.evaluation.calibration import ChosenCalibration, choose_calibration

        if self.fits:
            return choose_calibration(logits, labels, self.prior(labels))
        return ChosenCalibration(calibration=self.prior_only(logits, labels), losses={})


def _recalibrated(bundle: Bundle, site: _Site, *, patients: Sequence[str]) -> tuple[Manifest, tuple[str, ...]]:
    """Give the new bundle's manifest, and what is to be said of it."""
    import osteoscope
    from osteoscope.bundle.format import Calibration, Recalibration

    old, slugs = bundle.manifest, bundle.manifest.slugs
    chosen = site.chosen(site.logits, site.labels)
    verdicts, notes = _verdicts(old, site, chosen.calibration)
    prior = dict(zip(slugs, chosen.calibration.prior, strict=True))
    counts = dict(zip(slugs, site.counts, strict=True))
    if not site.fits:
        notes = (f"The calibration was kept: {_too_few(site, FEWEST_TO_FIT)} to fit one.", *notes)
    step = Recalibration(
        osteoscope=osteoscope.__version__,
        parent_sha256=bundle.sha256,
        cohort_fingerprint=site.cohort.fingerprint(),
        source=site.cohort.source,
        patients=counts,
        images=len(site.cohort.case_rows),
        prior_from=old.prior,
        prior_to=prior,
        fitted=site.fits,
        figures=_figures(site, slugs, patients, seed=old.training.seed),
    )
    calibration = (
        Calibration.of(
            chosen,
            fitted_on=f"It was fitted on the answers of all members together to {len(patients)} patients of "
            f"{site.cohort.source}, none of whom had been seen in training.",
            prior_source=_prior_source(site, old),
        )
        if site.fits
        else old.calibration.model_copy(update={"prior_source": _prior_source(site, old)})
    )
    updated = {
        "prior": prior,
        "calibration": calibration,
        "verdicts": verdicts,
        "lineage": (*old.lineage, step),
        "files": {},
    }
    return old.model_copy(update=updated), notes


def _prior_source(site: _Site, old: Manifest) -> str:
    if site.stated is None:
        return f"The class shares of the {len(site.labels)} patients of {site.cohort.source}."
    if site.stated == site.parent.prior:
        return old.calibration.prior_source
    return "Stated by whoever recalibrated the bundle."


def _too_few(site: _Site, needed: int) -> str:
    least = int(np.argmin(site.counts))
    return f"the cohort has {site.counts[least]} patients of {site.cohort.classes[least]}, and {needed} are needed"


def _verdicts(old: Manifest, site: _Site, calibration: CalibrationMap) -> tuple[Verdicts, tuple[str, ...]]:
    """Find thresholds on the site's patients; where they are too few, carry the parent's over as far as that goes."""
    from osteoscope.bundle.format import Verdicts
    from osteoscope.evaluation.conformal import Refused, fit

    level = old.verdicts.level
    found = fit(calibration.apply(site.logits), site.labels, level)
    if not isinstance(found, Refused):
        return Verdicts.of(found, level=level), ()
    kept = _carried_over(old.verdicts, site.parent, calibration)
    what = (
        "The parent's verdict thresholds were kept, restated to the new prior"
        if kept.thresholds is not None
        else "The bundle gives no verdict thresholds any more, and names the most probable class"
        if old.verdicts.thresholds is not None
        else "The bundle still has no verdict thresholds"
    )
    return kept, (f"{what}: {found.reason}.",)


def _carried_over(verdicts: Verdicts, parent: CalibrationMap, calibration: CalibrationMap) -> Verdicts:
    """Restate the parent's thresholds to the new probabilities: what is promised by class holds whatever their shares.

    Of more than two classes there is no such rule, and thresholds stay only where nothing changed.
    """
    from osteoscope.bundle.format import Verdicts
    from osteoscope.evaluation.calibration import restated_threshold

    if verdicts.thresholds is None or calibration == parent:
        return verdicts
    if len(parent.prior) > 2:
        reason = "the prior was changed, and of more than two classes thresholds cannot be restated"
        return Verdicts(level=verdicts.level, thresholds=None, counts=None, refused=reason)
    thresholds = tuple(
        restated_threshold(threshold, c, old=parent, new=calibration) for c, threshold in enumerate(verdicts.thresholds)
    )
    return verdicts.model_copy(update={"thresholds": thresholds})


def _figures(site: _Site, slugs: Sequence[str], patients: Sequence[str], *, seed: int) -> dict[str, dict[str, Any]]:
    """Judge the probabilities before and after; what was found on these patients is cross-fitted on them."""
    from osteoscope.evaluation.calibration import cross_fitted, stratified_folds
    from osteoscope.evaluation.summary import summarise

    folds = stratified_folds(site.labels, min(FIGURES_FOLDS, *site.counts))

    def after(logits: FloatArray, labels: IntArray) -> CalibrationMap:
        return site.chosen(logits, labels).calibration

    moments = {
        "before": site.parent.apply(site.logits),
        "prior_only": cross_fitted(site.logits, site.labels, folds=folds, fit=site.prior_only).probabilities,
        "after": cross_fitted(site.logits, site.labels, folds=folds, fit=after).probabilities,
    }
    judged = {
        moment: summarise(
            labels=site.labels,
            probabilities=probabilities,
            patients=patients,
            repeats=np.zeros(len(patients)),
            classes=slugs,
            prior=site.prior(site.labels),
            verdicts=None,
            seed=seed,
        )
        for moment, probabilities in moments.items()
    }
    return {moment: {name: level[name] for name in _FIGURES} for moment, level in judged.items()}


def _verified(output: Path, parent: Bundle) -> Manifest:
    """Read the new bundle back, and make sure that its networks are the parent's, byte for byte."""
    from osteoscope.bundle.load import load_bundle

    manifest = load_bundle(output).manifest
    for name, digest in parent.manifest.files.items():
        if name.startswith("members/") and manifest.files.get(name) != digest:
            raise BundleError("differs from the parent's", path=output / name, remedy="run the same command again")
    return manifest
