"""Judging a bundle on cases that it never saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import CohortError, ConfigError, require
from osteoscope.workflow.study import (
    CASES_FOLDER,
    METRICS,
    REPORT,
    Accept,
    AuditedCohort,
    StudySummary,
    audit_or_stop,
    baseline_blocks,
    check_lesions,
    flat_settings,
    network_name,
    study_warnings,
    write_case_pages,
)
from osteoscope.workflow.unseen import check_classes, check_images, check_unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.config import PreparationConfig, RegionOfInterest
    from osteoscope.evaluation.decision import Costs
    from osteoscope.evaluation.document import Predictions, StudyFacts
    from osteoscope.inference.prediction import ExplainedCase
    from osteoscope.inference.predictor import Predictor
    from osteoscope.workflow.truth import BesideTruth, Phantom

PREDICTIONS = "predictions.csv"
PREDICTIONS_IMAGES = "predictions_images.csv"


def evaluate(
    bundle_folder: Path,
    cohort_folder: Path,
    output: Path,
    *,
    roi: RegionOfInterest | None = None,
    training: Path | None = None,
    training_images: Path | None = None,
    accept: Sequence[Accept] = (),
    threads: int | None = None,
    images: Path | None = None,
    truth: Path | None = None,
    missed: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    audited_so_far: Callable[[int, int], None] | None = None,
) -> StudySummary:
    """Judge a bundle on a cohort, without torch.

    Parameters
    ----------
    bundle_folder
        Of a bundle.
    cohort_folder
        Of a cohort with the bundle's classes and none of its training patients or images.
    output
        Where figures, predictions, report and case pages go; written whole or not at all.
    roi
        What is read of each image; None keeps to what the bundle was trained on.
    training
        Folder of the cohort that the bundle was trained on, to look for near duplicates across the two. The bundle
        itself knows its training patients and exact pixels only, since it must not show a picture.
    training_images
        Where that cohort's images lie, if they have moved.
    accept
        Kinds of the audit's findings to go on in spite of, each with the reason, which the report shows.
    threads
        Of the processor; None leaves the choice to onnxruntime.
    images
        Where the cohort's images lie, if they have moved.
    truth
        What ``osteoscope phantom`` wrote, where the cohort is made of that: the bundle is then also set beside the
        truth, as `osteoscope.workflow.truth` says.
    missed
        How many false alarms a missed case costs, by the class's slug, for the operating points; of a class that is not
        named, and where nothing is said, one.
    progress
        Is told how many of how many patients are done; one who is read again without matrix counts twice.
    audited_so_far
        Is told how many of how many images the audit has seen.

    Raises
    ------
    OsteoscopeError
        If the bundle is damaged, the cohort does not fit or was trained on, the truth is not that of its patients, a
        cost is of another class or no cost, or an output cannot be written.
    """
    require("pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "jinja2")
    from osteoscope.bundle.load import load_bundle
    from osteoscope.cohort.table import cases as cases_of
    from osteoscope.cohort.table import read_cohort
    from osteoscope.inference.predictor import load_predictor
    from osteoscope.storage import folder_written_whole, refuse_existing, refuse_within
    from osteoscope.workflow.truth import read_phantoms

    refuse_within(output, bundle_folder)
    refuse_existing(
        output,
        kind="an evaluation",
        marker=PREDICTIONS,
        others=frozenset({PREDICTIONS_IMAGES, METRICS, REPORT, CASES_FOLDER}),
    )
    bundle = load_bundle(bundle_folder)
    cohort = read_cohort(cohort_folder, images=images)
    check_classes(bundle, cohort)
    costs = _costs(missed or {}, cohort)
    check_images(bundle, cohort)
    check_unseen(bundle, cohort)
    preparation = bundle.manifest.preparation
    if roi is not None:
        preparation = preparation.given(roi)
    trained_on = None if training is None else _training_cohort(bundle, training, training_images)
    audited = audit_or_stop(
        cohort,
        roi=preparation.annotation,
        folds=None,
        accept=accept,
        against=trained_on,
        progress=audited_so_far,
    )
    cases = cases_of(cohort)
    check_lesions(cases, preparation.annotation)
    phantoms = () if truth is None else read_phantoms(truth, cohort, cases)
    predictor = load_predictor(bundle, preparation=preparation, threads=threads)
    count = _counted(progress, len(cases) + sum(one.has_counterfactual for one in phantoms))
    explained = []
    for case in cases:
        explained.append(predictor.explain(case))
        count()
    study = _Evaluation(
        bundle=bundle,
        cohort=cohort,
        cases={case.patient: case for case in cases},
        explained=explained,
        predictor=predictor,
        audited=audited,
        beside_training=trained_on is not None,
        phantoms=phantoms,
        costs=costs,
    )
    with folder_written_whole(output) as folder:
        metrics = _write(study, folder, count)
    return StudySummary(folder=output, report=output / REPORT, metrics=metrics)


def _costs(missed: Mapping[str, float], cohort: Cohort) -> tuple[Costs, ...]:
    """Say what both errors about each class cost.

    Raises
    ------
    ConfigError
        If a class is none of the cohort's, or a cost is not positive and finite.
    """
    from osteoscope.evaluation.decision import Costs

    if strange := sorted(missed.keys() - set(cohort.slugs)):
        raise ConfigError(
            f"what a missed case of {strange[0]} costs is said, which is no class of the cohort",
            remedy=f"name one of {', '.join(cohort.slugs)}",
        )
    try:
        return tuple(
            Costs(slug=slug, false_positive=1.0, false_negative=missed.get(slug, 1.0)) for slug in cohort.slugs
        )
    except ValueError as error:
        raise ConfigError(str(error), remedy="say how many false alarms a missed case costs, such as 5") from error


def _training_cohort(bundle: Bundle, folder: Path, images: Path | None) -> Cohort:
    """Read the cohort that a bundle was trained on, and refuse any other: its near duplicates would not be looked for.

    Raises
    ------
    CohortError
        If it is another.
    """
    from osteoscope.cohort.table import read_cohort

    cohort = read_cohort(folder, images=images, named="--training-images")
    if cohort.fingerprint() != bundle.manifest.training.cohort_fingerprint:
        reason = "is another cohort than the bundle was trained on, or it was made again with other content"
        raise CohortError(
            reason, path=folder, remedy="name the cohort of that training with --training, or leave it out"
        )
    return cohort


def _counted(progress: Callable[[int, int], None] | None, total: int) -> Callable[[], None]:
    """Give what is to be called after each patient."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return count


@dataclass(frozen=True, kw_only=True, eq=False)
class _Evaluation:
    bundle: Bundle
    cohort: Cohort
    cases: dict[str, Case]
    explained: list[ExplainedCase]
    predictor: Predictor
    audited: AuditedCohort
    beside_training: bool
    """Whether near duplicates of training pictures were looked for."""
    phantoms: tuple[Phantom, ...]
    """The patients with their truth, in the order of `explained`, where it is known."""
    costs: tuple[Costs, ...]
    """Of both errors about each class."""

    @property
    def preparation(self) -> PreparationConfig:
        return self.predictor.preparation


def _write(study: _Evaluation, folder: Path, count: Callable[[], None]) -> dict[str, Any]:
    from osteoscope.cohort.baselines import folds_within
    from osteoscope.cohort.grouping import coarsest_groups
    from osteoscope.cohort.subgroups import patient_groups
    from osteoscope.evaluation.document import StudyFacts, metrics_document, predictions_csv
    from osteoscope.evaluation.found import localisation_table
    from osteoscope.inference.lesions import lesion_views
    from osteoscope.storage import write_json, write_text

    manifest, cohort = study.bundle.manifest, study.cohort
    by_patient, by_image, names = _calibrated(study)
    facts = StudyFacts(
        classes=cohort.classes,
        slugs=cohort.slugs,
        prior=tuple(manifest.prior[slug] for slug in manifest.slugs),
        roi=study.preparation.annotation,
        seed=manifest.training.seed,
        estimates="How well this bundle does on patients like these, none of whom it was trained on.",
    )
    shown = by_patient.most_probable()
    views = [
        view
        for case in study.explained
        for view in lesion_views(
            study.cases[case.prediction.patient],
            case,
            study.preparation,
            # One: thresholds chosen on these very cases would flatter them.
            group="all",
            shown=shown[case.prediction.patient],
        )
    ]
    localisation = localisation_table(views, threshold=manifest.evidence_threshold, seed=facts.seed)
    cases = list(study.cases.values())
    truth = _beside_truth(study, by_patient, facts, count) if study.phantoms else None
    metrics = metrics_document(
        facts,
        by_patient=by_patient,
        by_image=by_image,
        localisation=localisation,
        costs=study.costs,
        subgroups={**patient_groups(cohort, cases), **({} if truth is None else {"matrix": truth.groups})},
        coarsest_grouping=coarsest_groups(cohort),
        baselines={
            **baseline_blocks(
                cohort,
                folds_within(cases, cohort.classes, seed=facts.seed),
                audited=study.audited,
                model=by_patient,
                facts=facts,
                note="Cross-validated within these patients, so at home among them, which the bundle is not.",
            ),
            **({} if truth is None else truth.baselines),
        },
        audit=[finding.to_json() for finding in study.audited.settled.open],
        accepted=study.audited.accepted(),
    )
    if truth is not None:
        metrics["truth"] = truth.block
    write_text(folder / PREDICTIONS, predictions_csv(by_patient, cohort.slugs, {}))
    write_text(folder / PREDICTIONS_IMAGES, predictions_csv(by_image, cohort.slugs, {"image": names}))
    write_json(folder / METRICS, metrics)
    _report(study, folder, metrics=metrics, by_patient=by_patient, truth=truth)
    return metrics


def _beside_truth(
    study: _Evaluation, by_patient: Predictions, facts: StudyFacts, count: Callable[[], None]
) -> BesideTruth:
    from osteoscope.workflow.truth import beside_truth

    return beside_truth(
        study.phantoms,
        study.explained,
        cohort=study.cohort,
        predictor=study.predictor,
        model=by_patient,
        facts=facts,
        threshold=study.bundle.manifest.evidence_threshold,
        progress=count,
    )


def _calibrated(study: _Evaluation) -> tuple[Predictions, Predictions, list[str]]:
    """Give probabilities and verdicts by patient and by image, and the image of each of the latter's rows."""
    from osteoscope.evaluation.conformal import Refused
    from osteoscope.evaluation.document import Predictions
    from osteoscope.inference.predictor import verdicts_of

    cases = [case.prediction for case in study.explained]
    rows = [(case, image) for case in cases for image in case.images]

    def predictions(patients: Sequence[str], labels: Sequence[int | None], logits: Sequence[Any]) -> Predictions:
        probabilities = study.predictor.calibration.apply(np.array(logits))
        return Predictions(
            patients=tuple(patients),
            labels=np.array(labels, dtype=np.int64),
            repeats=np.zeros(len(labels), dtype=np.int64),
            probabilities=probabilities,
            verdicts=verdicts_of(probabilities, study.predictor.conformal),
            by_sets=not isinstance(study.predictor.conformal, Refused),
        )

    by_patient = replace(
        predictions([c.patient for c in cases], [c.label for c in cases], [c.logits for c in cases]),
        probabilities_of_images=study.predictor.calibration.apply(np.array([c.said_by_images for c in cases])),
    )
    by_image = predictions([c.patient for c, _ in rows], [c.label for c, _ in rows], [i.logits for _, i in rows])
    return by_patient, by_image, [image.image for _, image in rows]


def _report(
    study: _Evaluation,
    folder: Path,
    *,
    metrics: dict[str, Any],
    by_patient: Predictions,
    truth: BesideTruth | None,
) -> None:
    from osteoscope.cohort.table import modalities_of
    from osteoscope.report import assemble
    from osteoscope.report.content import StudyContent
    from osteoscope.report.study import study_html
    from osteoscope.storage import write_text

    manifest, cohort = study.bundle.manifest, study.cohort
    made_by = f"Predicted by a bundle of {len(manifest.members)} networks, none of which saw this patient."
    if len(manifest.members) == 1:
        made_by = "Predicted by a bundle of one network, which never saw this patient."
    warnings = list(study_warnings(cohort, study.preparation))
    if study.preparation.annotation != manifest.preparation.annotation:
        warnings.insert(
            0,
            f"The bundle was trained with --roi {manifest.preparation.annotation} and read these images with --roi "
            f"{study.preparation.annotation}: its calibration was not made for that.",
        )
    if not study.beside_training:
        warnings.append(
            "Near duplicates of the training pictures were not looked for, exact ones were: that takes the training "
            "cohort, named with --training."
        )
    links = write_case_pages(
        folder,
        cases=study.cases,
        explained=[(case, made_by) for case in study.explained],
        predictions=by_patient,
        classes=cohort.classes,
        prior=tuple(metrics["prior"].values()),
        preparation=study.preparation,
    )
    content = StudyContent(
        title=f"{' against '.join(cohort.classes)}: evaluation of a bundle",
        kind="evaluation",
        classes=cohort.classes,
        slugs=cohort.slugs,
        metrics=metrics,
        modalities=modalities_of(cohort),
        phantom=assemble.shows_phantoms(cohort),
        model_name=network_name(manifest.network),
        participants=assemble.participants(cohort),
        findings=assemble.findings(study.audited.settled.open),
        accepted=assemble.accepted_findings(study.audited.settled),
        audit_tables=assemble.audit_tables(study.audited.audit),
        settings=flat_settings(preparation=study.preparation, network=manifest.network),
        provenance={
            "osteoscope": manifest.osteoscope,
            "bundle": study.bundle.folder.name,
            "members": len(manifest.members),
            "training_cohort_fingerprint": manifest.training.cohort_fingerprint,
            "config_fingerprint": manifest.training.config_fingerprint,
            "cohort_fingerprint": cohort.fingerprint(),
        },
        cases=links,
        localisation=assemble.localisation_rows(metrics["localisation"]),
        evidence_notes=assemble.evidence_notes(metrics),
        truth_localisation=assemble.localisation_rows(metrics["truth"]["localisation"] if truth is not None else {}),
        without_matrix=None if truth is None else truth.pictures(),
        warnings=tuple(warnings),
    )
    write_text(folder / REPORT, study_html(content))
