"""Cross-validating a network on a cohort."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from osteoscope.errors import ConfigError, RunError, require
from osteoscope.storage import sha256_of_input
from osteoscope.workflow.study import (
    METRICS,
    OOF,
    REPORT,
    Accept,
    AuditedCohort,
    OtherRun,
    StudySummary,
    audit_or_stop,
    baseline_blocks,
    check_lesions,
    check_modality,
    compare_with,
    flat_settings,
    network_name,
    read_other_runs,
    study_warnings,
    write_case_pages,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.cohort.split import Folds
    from osteoscope.cohort.table import Auxiliary, Case, Cohort
    from osteoscope.config import Config, Covariate, NetworkName, Preset, RegionOfInterest, Split, TrainingConfig
    from osteoscope.evaluation.document import Predictions
    from osteoscope.report.content import Beside
    from osteoscope.training.crossval import RunOutcome, RunWatcher
    from osteoscope.training.fold import FoldOutcome
    from osteoscope.training.weights import Start

BUNDLE_FOLDER = "bundle"
OOF_IMAGES = "oof_images.csv"
HISTORY = "history.csv"
AUXILIARY = "auxiliary"
AUXILIARY_FACTS = "auxiliary.json"

LIBRARIES = (
    *("pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "jinja2"),
    *("safetensors", "torch", "monai", "lightning_fabric", "onnx", "onnxscript"),
)
"""What a training needs beside the base install."""

_LONG = frozenset({"curves", "reliability", "decision", "definitions", "intervals", "at_class_shares"})
"""What stays in the other run's own ``metrics.json``."""


def training_config(
    cohort_folder: Path,
    *,
    file: Path | None = None,
    preset: Preset | None = None,
    network: NetworkName | None = None,
    roi: RegionOfInterest | None = None,
    covariates: Sequence[Covariate] | None = None,
    weights: Path | None = None,
    seed: int | None = None,
    folds: int | None = None,
    split: Split | None = None,
    images: Path | None = None,
) -> Config:
    """Choose the settings of a run: from a file, or from a preset and what is changed in it.

    Parameters
    ----------
    cohort_folder
        Of the cohort. Its modalities decide how images are read; where lesions are annotated in radiographs alone, a
        network that reads whole images learns to find them, and looks closely at all parts of them; where they are
        outlined in scans, or in a mix, it lets the places that it holds to be lesion speak louder.
    file
        All settings, as TOML; nothing else may then be given.
    preset, network, covariates, seed, folds, split
        As `preset_config`; None takes ``standard``, ``optimised``, the covariates that are recorded of nearly all
        patients of each class, 0, 5 and ``patients``.
    weights
        File of DenseNet weights that training shall start from, whose hash the settings then hold.
    roi
        What is read of an image; None is ``none``, the whole of it.
    images
        Where the cohort's images lie, if they have moved.

    Raises
    ------
    ConfigError, CohortError
        If the file or the cohort cannot be read, or a file and something else are given.
    """
    from osteoscope.config import preset_config, read_config

    if file is not None:
        given = {
            "preset": preset,
            "network": network,
            "roi": roi,
            "covariate": covariates,
            "seed": seed,
            "folds": folds,
            "split": split,
        }
        doubled = [name for name, value in given.items() if value is not None]
        if doubled:
            raise ConfigError(
                f"holds all settings, so --{doubled[0]} cannot be given beside it",
                path=file,
                remedy="change it in the file, or leave --config out",
            )
        return read_config(file)
    require("pandas", "pyarrow")
    from osteoscope.cohort.covariates import recorded_covariates
    from osteoscope.cohort.table import cases, modalities_of, read_cohort

    cohort = read_cohort(cohort_folder, images=images)
    modalities = modalities_of(cohort)
    of_scans = modalities != ("radiograph",)
    # Auxiliary radiographs teach where lesions are; auxiliary scans teach nothing.
    rows = cohort.case_rows if of_scans else cohort.frame
    outlined = rows["lesions"].ne("[]").where(rows["modality"] == "radiograph", rows["mask"].notna())
    annotated = bool(outlined.any())
    return preset_config(
        preset or "standard",
        modality=modalities if len(modalities) > 1 else modalities[0],
        network=network or "optimised",
        roi=roi or "none",
        second_look=annotated and not of_scans and roi in {None, "none"},
        # Measured for scans alone, where it brings the evidence to the lesion.
        focus=annotated and of_scans,
        covariates=recorded_covariates(cases(cohort)) if covariates is None else tuple(covariates),
        pretrained=None if weights is None else sha256_of_input(weights),
        seed=seed or 0,
        folds=folds or 5,
        split=split or "patients",
    )


def train(
    cohort_folder: Path,
    output: Path,
    *,
    config: Config,
    watcher: RunWatcher,
    weights: Path | None = None,
    beside: Sequence[Path] = (),
    accept: Sequence[Accept] = (),
    threads: int | None = None,
    images: Path | None = None,
) -> StudySummary:
    """Cross-validate a network on a cohort, and make a bundle and a report.

    A run that was stopped goes on where it stood; one that is done is reported anew.

    Parameters
    ----------
    cohort_folder
        Of a cohort.
    output
        The run's folder, new or of the same run.
    config
        All settings.
    watcher
        Is told how it goes on.
    weights
        The file whose hash is ``config.network.pretrained``.
    beside
        Other runs on the same patients that the report sets beside this one.
    accept
        Kinds of the audit's findings to go on in spite of, each with the reason, which every report of the run shows.
    threads
        Of the processor; None takes all. As many folds are fitted beside each other, in processes that are started anew
        (a script that calls this needs its ``if __name__ == "__main__":``). What folds come to does not depend on the
        number, but what is learnt from auxiliary images before them does.
    images
        Where the cohort's images lie, if they have moved.

    Raises
    ------
    OsteoscopeError
        If the cohort cannot carry it, the folder holds something else, or an output cannot be written.
    """
    require(*LIBRARIES)
    from osteoscope.cohort.split import proof
    from osteoscope.cohort.table import cases as cases_of
    from osteoscope.cohort.table import read_cohort
    from osteoscope.storage import write_json, write_text
    from osteoscope.training.auxiliary import learn
    from osteoscope.training.crossval import folds_are_done, run_folds
    from osteoscope.training.device import choose_device, deterministic
    from osteoscope.training.fold import Work
    from osteoscope.training.rehearsal import auxiliary_facts
    from osteoscope.training.run_folder import claim, finish, library_versions, locked

    cohort = read_cohort(cohort_folder, images=images)
    check_modality(cohort, config.preparation)
    settings = config.training
    watcher.stage("auditing the cohort")
    # Groups that are left out are as many as there are, and are refused where one is too small.
    folds_asked = settings.folds if settings.split == "patients" else 1
    audited = audit_or_stop(
        cohort,
        roi=config.preparation.annotation,
        folds=folds_asked,
        accept=accept,
        progress=partial(_tell_of_audit, watcher),
    )
    cases = cases_of(cohort)
    check_lesions(cases, config.preparation.annotation)
    folds = _folds(cases, settings, cohort.classes)
    start = _start(config, weights)
    disjoint = proof(folds, cases)
    # Before the long work, so that a wrong folder does not come out after it.
    others = read_other_runs(beside, slugs=cohort.slugs, cases=cases, folds=folds)
    device = choose_device(settings.precision, threads)
    # Behind the audit, since what teaches must be no picture of a case, which it finds.
    teaching = _teachers(cohort, audited, config)
    learns_first = bool(teaching and config.auxiliary.looks)
    identity = {
        "versions": library_versions(),
        "config": config.model_dump(mode="json"),
        "cohort_fingerprint": cohort.fingerprint(),
        "accepted": [list(one) for one in accept],
        # On a processor what folds come to does not depend on the number.
        "threads": device.threads if learns_first or device.kind != "cpu" else 1,
        "device": device.kind,
        "device_name": device.name,
        "precision": device.precision,
    }
    with locked(output):
        claim(output, identity)
        write_text(output / "config.toml", config.to_toml())
        write_json(output / "folds.json", disjoint)
        learnt = None
        # A run whose folds are done needs what was learnt no more, should the cache have been cleared.
        if teaching and not folds_are_done(output, folds, config):
            if learns_first:
                watcher.stage(f"learning from {len(teaching)} auxiliary images")
                with deterministic(device.threads):
                    start = learnt = learn(
                        teaching,
                        config,
                        fallback=output / AUXILIARY,
                        device=device,
                        watcher=watcher.auxiliary_epoch,
                        start=start,
                    )
            facts = auxiliary_facts(teaching, learnt, share=config.training.rehearsal)
            write_json(output / AUXILIARY_FACTS, facts)
        work = Work(cases=cases, config=config, device=device, start=start, teaching=teaching, learnt=learnt)
        outcome = run_folds(work, folds, folder=output, watcher=watcher)
        study = _RunStudy(
            cohort=cohort,
            cases={case.patient: case for case in cases},
            config=config,
            teaching=teaching,
            auxiliary=_auxiliary_facts(output) if teaching else None,
            outcome=outcome,
            audited=audited,
            folds=folds,
            proof=disjoint,
            identity=identity,
            others=others,
        )
        watcher.stage("figures, bundle and report")
        metrics = _conclude_run(study, output)
        seconds = sum(record["seconds"] for fitted in outcome.fitted for record in fitted.history)
        finish(
            output,
            training_minutes=round(seconds / 60, 2),
            auxiliary=study.auxiliary,
            parity=[fitted.parity for fitted in outcome.fitted],
        )
    return StudySummary(folder=output, report=output / REPORT, metrics=metrics)


def _tell_of_audit(watcher: RunWatcher, done: int, total: int) -> None:
    """Tell some ten times, however many images there are."""
    if done == total or done % max(1, total // 10) == 0:
        watcher.stage(f"auditing the cohort: {done} of {total} images")


def _folds(cases: Sequence[Case], settings: TrainingConfig, classes: Sequence[str]) -> Folds:
    """Divide the patients as the settings say."""
    from osteoscope.cohort.held_out import look_groups, site_groups
    from osteoscope.cohort.split import leave_groups_out, make_folds
    from osteoscope.imaging.mixed import named_together

    if settings.split == "patients":
        return make_folds(cases, folds=settings.folds, repeats=settings.repeats, seed=settings.seed, classes=classes)
    modalities = sorted({image.modality for case in cases for image in case.images})
    if settings.split == "looks" and len(modalities) > 1:
        raise ConfigError(
            f"folds by looks need images of one modality, the cohort holds {named_together(modalities)}",
            remedy="take --split patients or sites, or a cohort of each modality",
        )
    # The groups do not follow the seed, so that runs with several seeds are on the same folds.
    groups = site_groups(cases) if settings.split == "sites" else look_groups(cases)
    return leave_groups_out(cases, groups, seed=settings.seed, classes=classes)


def _start(config: Config, weights: Path | None) -> Start | None:
    """Take the weights that the settings name, if they name any."""
    from osteoscope.training.weights import LocalWeights

    expected = config.network.pretrained
    if weights is None and expected is None:
        return None
    found = None if weights is None else sha256_of_input(weights)
    if weights is None or found != expected:
        raise ConfigError(
            f"network.pretrained names weights with SHA-256 {expected}, "
            + ("no file was given" if weights is None else f"the file given has {found}"),
            path=weights,
            remedy="give that very file with --weights",
        )
    return LocalWeights(path=weights)


def _teachers(cohort: Cohort, audited: AuditedCohort, config: Config) -> list[Auxiliary]:
    """Choose the auxiliary images to learn from: radiographs, and none where the settings leave that out."""
    from osteoscope.cohort.table import auxiliary
    from osteoscope.training.auxiliary import teachers

    if config.preparation.volume is not None or not (config.auxiliary.looks or config.training.rehearsal):
        return []
    needs_lesion = config.preparation.roi != "none"
    radiographs = [one for one in auxiliary(cohort) if one.image.modality == "radiograph"]
    return teachers(radiographs, twins=audited.audit.auxiliary_twins, needs_lesion=needs_lesion)


def _auxiliary_facts(output: Path) -> dict[str, Any]:
    """Read what a run noted down of what it learnt from auxiliary images."""
    try:
        facts: dict[str, Any] = json.loads((output / AUXILIARY_FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            "is damaged: what was learnt from auxiliary images is not noted down",
            path=output / AUXILIARY_FACTS,
            remedy="run the same command in a new folder; what was learnt is taken from the cache",
        ) from error
    return facts


@dataclass(frozen=True, kw_only=True, eq=False)
class _RunStudy:
    cohort: Cohort
    cases: dict[str, Case]
    config: Config
    teaching: Sequence[Auxiliary]
    """Auxiliary images that were learnt from."""
    auxiliary: dict[str, Any] | None
    """What was learnt from auxiliary images, first or beside the cases."""
    outcome: RunOutcome
    audited: AuditedCohort
    folds: Folds
    proof: dict[str, Any]
    identity: dict[str, Any]
    others: tuple[OtherRun, ...]


def _conclude_run(study: _RunStudy, output: Path) -> dict[str, Any]:
    """Write all that follows from the folds: figures, bundle, report, a page a case."""
    from osteoscope.cohort.grouping import coarsest_groups
    from osteoscope.cohort.subgroups import patient_groups
    from osteoscope.evaluation.document import StudyFacts, metrics_document
    from osteoscope.evaluation.found import localisation_table
    from osteoscope.inference.lesions import lesion_views
    from osteoscope.storage import write_json, write_text
    from osteoscope.training.bundling import bundle_run
    from osteoscope.training.outcome import calibrate, oof_csv, oof_images_csv

    cohort, config = study.cohort, study.config
    prior = (1 / len(cohort.classes),) * len(cohort.classes)
    out_of_fold, calibration = calibrate(study.outcome.folds, prior)
    shown = out_of_fold.by_patient.most_probable()
    views = [
        view
        for outcome in study.outcome.folds
        if outcome.repeat == 0
        for explained in outcome.cases
        for view in lesion_views(
            study.cases[explained.prediction.patient],
            explained,
            config.preparation,
            group=str(outcome.fold),
            shown=shown[explained.prediction.patient],
        )
    ]
    facts = StudyFacts(
        classes=cohort.classes,
        slugs=cohort.slugs,
        prior=prior,
        roi=config.preparation.annotation,
        seed=config.training.seed,
        estimates=(
            "How well this training procedure does on patients like these: every patient was judged by a network that "
            "was fitted without that patient. What the bundle holds was not itself measured."
        ),
    )
    besides = tuple(compare_with(run, out_of_fold.by_patient, seed=config.training.seed) for run in study.others)
    metrics = metrics_document(
        facts,
        by_patient=out_of_fold.by_patient,
        by_image=out_of_fold.by_image,
        localisation=localisation_table(views, seed=config.training.seed),
        folds=out_of_fold.folds,
        subgroups=patient_groups(cohort, list(study.cases.values())),
        coarsest_grouping=coarsest_groups(cohort),
        baselines={
            **baseline_blocks(
                cohort,
                study.folds,
                audited=study.audited,
                model=out_of_fold.by_patient,
                facts=facts,
                note="Predicted in the same folds as the network.",
            ),
            **_networks_beside(study, besides),
        },
        audit=[finding.to_json() for finding in study.audited.settled.open],
        accepted=study.audited.accepted(),
    )
    metrics["evidence_through_weights"] = _spread(
        [share for fold in study.outcome.folds if fold.repeat == 0 for share in fold.differences_through_weights]
    )
    write_text(output / OOF, oof_csv(out_of_fold, cohort.slugs))
    write_text(output / OOF_IMAGES, oof_images_csv(out_of_fold, cohort.slugs))
    write_text(output / HISTORY, _history_csv(study.outcome.folds))
    write_json(output / METRICS, metrics)
    bundle_run(
        output / BUNDLE_FOLDER,
        cohort=cohort,
        cases=list(study.cases.values()),
        config=config,
        teaching=study.teaching,
        auxiliary=study.auxiliary,
        members=study.outcome.members,
        calibration=calibration,
        metrics=metrics,
    )
    _report_run(study, output, metrics=metrics, by_patient=out_of_fold.by_patient, besides=besides)
    return metrics


def _networks_beside(study: _RunStudy, besides: Sequence[Beside]) -> dict[str, dict[str, Any]]:
    """Give the networks that stand beside this one, and say of the plain one how it could."""
    named = {
        beside.name: {
            **{name: figure for name, figure in beside.metrics["patient"].items() if name not in _LONG},
            "auc_difference": beside.auc_difference,
        }
        for beside in besides
    }
    network = study.config.network
    plain = network_name(network.model_copy(update={"multiscale": False, "attention": False, "matched": False}))
    if plain == network_name(network) or any(name.startswith(plain) for name in named):
        return named
    how = "not trained; train it with --network plain, and name its folder with --beside"
    return {**named, plain: {"reason": how}}


def _report_run(
    study: _RunStudy, output: Path, *, metrics: dict[str, Any], by_patient: Predictions, besides: tuple[Beside, ...]
) -> None:
    """Write the pages of the cases, and the report that links to them."""
    from osteoscope.cohort.table import modalities_of
    from osteoscope.report import assemble
    from osteoscope.report.content import StudyContent
    from osteoscope.report.study import study_html
    from osteoscope.storage import write_text

    cohort, config = study.cohort, study.config
    links = write_case_pages(
        output,
        cases=study.cases,
        explained=[
            (case, f"Predicted by the network of fold {outcome.fold + 1}, which never saw this patient.")
            for outcome in study.outcome.folds
            if outcome.repeat == 0
            for case in outcome.cases
        ],
        predictions=by_patient,
        classes=cohort.classes,
        prior=tuple(metrics["prior"].values()),
        preparation=config.preparation,
    )
    content = StudyContent(
        title=f"{' against '.join(cohort.classes)}: cross-validated study",
        kind="run",
        classes=cohort.classes,
        slugs=cohort.slugs,
        metrics=metrics,
        modalities=modalities_of(cohort),
        phantom=assemble.shows_phantoms(cohort),
        model_name=network_name(config.network),
        beside=besides,
        history=_history(study.outcome.folds),
        participants=assemble.participants(cohort),
        folds=assemble.fold_counts(study.proof),
        findings=assemble.findings(study.audited.settled.open),
        accepted=assemble.accepted_findings(study.audited.settled),
        audit_tables=assemble.audit_tables(study.audited.audit),
        settings=flat_settings(
            preparation=config.preparation,
            network=config.network,
            auxiliary=config.auxiliary,
            training=config.training,
        ),
        provenance={
            **study.identity["versions"],
            **{name: value for name, value in study.identity.items() if isinstance(value, str | int)},
            "config_fingerprint": config.fingerprint(),
        },
        cases=links,
        localisation=assemble.localisation_rows(metrics["localisation"]),
        evidence_notes=assemble.evidence_notes(metrics),
        auxiliary=study.auxiliary,
        warnings=study_warnings(cohort, config.preparation),
    )
    write_text(output / REPORT, study_html(content))


def _history(outcomes: Sequence[FoldOutcome]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"repeat": outcome.repeat, "fold": outcome.fold, **record} for outcome in outcomes for record in outcome.history
    )


def _history_csv(outcomes: Sequence[FoldOutcome]) -> str:
    stream = io.StringIO()
    rows = _history(outcomes)
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of what the closed form leaves out, over patients of several looks."""
    if not values:
        return {"patients": 0}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"patients": len(values), "median": median, "quartiles": [low, high]}
