"""What training and evaluation share: the files of a study, and its pages."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import CohortError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.cohort.audit import Audit, Settled
    from osteoscope.cohort.split import Folds
    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.config import NetworkConfig, PreparationConfig, RegionOfInterest
    from osteoscope.evaluation.document import Predictions, StudyFacts
    from osteoscope.inference.prediction import ExplainedCase
    from osteoscope.report.content import Beside, CaseLink

METRICS = "metrics.json"
REPORT = "report.html"
CASES_FOLDER = "cases"
OOF = "oof.csv"

_LEVEL = 1e-9
"""How much of what a baseline said under its own class shares decides between classes that are level under others."""


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """Where a study's outputs lie, and its main figures."""

    folder: Path
    report: Path
    metrics: dict[str, Any]
    """The content of ``metrics.json``."""


Accept = tuple[str, str]
"""A kind of finding to go on in spite of, and why."""


@dataclass(frozen=True, kw_only=True)
class AuditedCohort:
    """A cohort that nothing stops, and what was found and accepted on the way."""

    audit: Audit
    settled: Settled

    def accepted(self) -> list[dict[str, Any]]:
        """Give the accepted findings with their reasons, as ``metrics.json`` holds them."""
        accepted: list[dict[str, Any]] = self.settled.to_json()["accepted"]
        return accepted


def audit_or_stop(
    cohort: Cohort,
    *,
    roi: RegionOfInterest,
    folds: int | None,
    accept: Sequence[Accept],
    against: Cohort | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AuditedCohort:
    """Audit a cohort, and stop where a finding blocks that nobody has accepted.

    Parameters
    ----------
    cohort
        What is to be trained or measured on.
    roi
        What will be read of each image.
    folds
        Of the cross-validation; None where a finished bundle is evaluated.
    accept
        Kinds of findings to go on in spite of, each with the reason.
    against
        The cohort that a network was trained on: no patient and no picture may be in both.
    progress
        Is told how many of how many images are seen.

    Raises
    ------
    CohortError
        If a finding blocks.
    ConfigError
        If a kind cannot be accepted, or no reason is given.
    """
    from osteoscope.cohort.audit import Accepted, audit, raise_if_blocked, settle

    decided = [Accepted(kind=kind, because=because) for kind, because in accept]
    found = audit(cohort, roi=roi, folds=folds, against=against, progress=progress)
    settled = settle(found.findings, decided)
    raise_if_blocked(settled.open)
    return AuditedCohort(audit=found, settled=settled)


def baseline_blocks(
    cohort: Cohort, folds: Folds | None, *, audited: AuditedCohort, model: Predictions, facts: StudyFacts, note: str
) -> dict[str, dict[str, Any]]:
    """Judge what needs no network on the patients that the network was judged on.

    Parameters
    ----------
    cohort
        Where the patients are from.
    folds
        In which the baselines are predicted; None where there are too few patients for any.
    audited
        Knows what the images' borders look like, or how scans were acquired.
    model
        The network's predictions by patient.
    facts
        Of the study.
    note
        In which folds the baselines were predicted, as a sentence.

    Returns
    -------
    By name a block of `osteoscope.evaluation.document.baseline_block`, or ``{"reason"}``.
    """
    from osteoscope.cohort.baselines import baselines, fold_of_rows
    from osteoscope.evaluation.calibration import with_prior
    from osteoscope.evaluation.document import Predictions, baseline_block

    if folds is None:
        return {"baselines": {"reason": "a class has fewer than two patients, too few to fit anything on"}}
    blocks: dict[str, dict[str, Any]] = {}
    label_of = dict(zip(model.patients, model.labels.tolist(), strict=True))
    for baseline in baselines(cohort, folds, features=audited.audit.features):
        if baseline.probabilities is None:
            blocks[baseline.name] = {"reason": baseline.reason}
            continue
        repeats, patients, classes = baseline.probabilities.shape
        said = baseline.probabilities.reshape(-1, classes)
        # A score of probabilities can be compared with the network's only where both assume the same class shares.
        assumed = np.full(classes, 1 / classes) if baseline.prior is None else baseline.prior
        probabilities = with_prior(said, assumed, facts.prior)
        # Where that leaves classes level, as it does the majority, the one that was ahead stays so.
        probabilities = (1 - _LEVEL) * probabilities + _LEVEL * said
        predictions = Predictions(
            patients=baseline.patients * repeats,
            labels=np.array([label_of[patient] for patient in baseline.patients] * repeats, dtype=np.int64),
            repeats=np.repeat(np.arange(repeats), patients),
            probabilities=probabilities,
            verdicts=probabilities.argmax(axis=1).astype(np.int64),
            by_sets=False,
        )
        judged_in = fold_of_rows(folds, baseline.patients).reshape(-1)
        blocks[baseline.name] = baseline_block(model, predictions, facts, folds=judged_in, note=note)
    return blocks


def write_case_pages(
    output: Path,
    *,
    cases: Mapping[str, Case],
    explained: Sequence[tuple[ExplainedCase, str]],
    predictions: Predictions,
    classes: Sequence[str],
    prior: Sequence[float],
    preparation: PreparationConfig,
) -> tuple[CaseLink, ...]:
    """Write a page for each case, and give the report's links to them.

    Parameters
    ----------
    output
        The study's folder.
    cases
        By pseudonym.
    explained
        Predictions with their evidence, each with a sentence on what made it.
    predictions
        By patient; of several repeats the first is shown.
    classes, prior
        In one order.
    preparation
        That the predictions were made with.

    Raises
    ------
    ImageError
        If an image cannot be read any more.
    StorageError
        If the operating system refuses.
    """
    from osteoscope.report.assemble import case_content, verdict_name
    from osteoscope.report.case import case_html
    from osteoscope.report.content import CaseLink
    from osteoscope.report.overlay import thumbnail_png
    from osteoscope.storage import write_text

    rows = {patient: row for row, patient in reversed(list(enumerate(predictions.patients)))}
    links = []
    for case, made_by in explained:
        patient = case.prediction.patient
        row, of_images = rows[patient], predictions.probabilities_of_images
        content = case_content(
            cases[patient],
            case,
            classes=classes,
            probabilities=predictions.probabilities[row].tolist(),
            of_images=() if of_images is None else of_images[row].tolist(),
            prior=prior,
            verdict=int(predictions.verdicts[row]),
            made_by=made_by,
            preparation=preparation,
            study_href=f"../{REPORT}",
            by_sets=predictions.by_sets,
        )
        page = f"{CASES_FOLDER}/{patient}.html"
        write_text(output / page, case_html(content))
        links.append(
            CaseLink(
                patient=patient,
                label=content.label,
                probabilities=content.probabilities,
                verdict=verdict_name(int(predictions.verdicts[row]), classes),
                href=page,
                thumbnail=thumbnail_png(content.portrait),
            )
        )
    return tuple(links)


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """A finished run that a study is set beside."""

    name: str
    metrics: dict[str, Any]
    table: OutOfFoldTable
    """What it says of each patient out of fold."""


def read_other_runs(
    folders: Sequence[Path], *, slugs: Sequence[str], cases: Iterable[Case], folds: Folds
) -> tuple[OtherRun, ...]:
    """Read runs that a study shall be set beside, and make sure that they judged the same patients in the same folds.

    Raises
    ------
    RunError
        If one is not a finished run, is on other classes, patients, diagnoses, repeats or folds, or two have one name.
    """
    label_of = {case.patient: case.label for case in cases}
    fold_of = {
        (patient, repeat): fold
        for repeat, tested in enumerate(folds.test)
        for fold, patients in enumerate(tested)
        for patient in patients
    }
    runs: dict[str, OtherRun] = {}
    for folder in folders:
        run = _read_other_run(folder, slugs)
        if run.table.folds.keys() != fold_of.keys():
            raise RunError(
                "is a run on other patients or repeats, so it cannot be set beside this one",
                path=folder,
                remedy="train both on the same cohort, with the same number of repeats",
            )
        if other := sorted({name for (name, _), label in run.table.labels.items() if label != label_of[name]}):
            raise RunError(
                f"was judged by other diagnoses of {len(other)} of these patients, {other[0]} among them, so it cannot "
                "be set beside this one",
                path=folder,
                remedy="train it again on this cohort",
            )
        if run.table.folds != fold_of:
            raise RunError(
                "judged these patients in other folds, by networks that learnt from others, so it cannot be set beside "
                "this one",
                path=folder,
                remedy="train both with the same --seed, --split and --folds",
            )
        if run.name in runs:
            raise RunError(f"is called {run.name}, as another run beside", path=folder, remedy="rename its folder")
        runs[run.name] = run
    return tuple(runs.values())


def compare_with(run: OtherRun, predictions: Predictions, *, seed: int) -> Beside:
    """Set a run beside a study's predictions by patient, by the paired difference of their AUCs, drawn by `seed`."""
    from osteoscope.evaluation.compare import paired_difference
    from osteoscope.report.content import Beside

    keys = zip(predictions.patients, predictions.repeats.tolist(), strict=True)
    difference = paired_difference(
        predictions.labels,
        predictions.probabilities,
        run.table.array(keys),
        patients=predictions.patients,
        repeats=predictions.repeats,
        seed=seed,
    )
    return Beside(name=run.name, metrics=run.metrics, auc_difference=difference.to_json())


def _read_other_run(folder: Path, slugs: Sequence[str]) -> OtherRun:
    from osteoscope.config import read_config

    metrics = read_metrics(folder)
    if metrics["slugs"] != list(slugs):
        raise RunError("is a run on other classes", path=folder, remedy="name the folder of another run")
    table = read_oof(folder / OOF, slugs)
    name = f"{network_name(read_config(folder / 'config.toml').network)} ({folder.resolve().name})"
    return OtherRun(name=name, metrics=metrics, table=table)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the figures of a finished run.

    Raises
    ------
    RunError
        If the folder is no run, or one that is not finished.
    """
    from osteoscope.training.run_folder import read_run

    if read_run(folder).get("status") != "done":
        remedy = "run the same osteoscope train again, which goes on with it"
        raise RunError("is a run that is not finished", path=folder, remedy=remedy)
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        metrics["slugs"] = [str(name) for name in metrics["slugs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise not_a_run(folder, METRICS) from error
    return metrics


def not_a_run(folder: Path, file: str) -> RunError:
    """Say that a folder is not a finished run, since a file of one cannot be read."""
    return RunError(
        f"is not a finished run on these classes: {file} cannot be read",
        path=folder,
        remedy="name the folder of a finished run",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFoldTable:
    """Out-of-fold predictions of a finished run, by patient and repeat."""

    labels: dict[tuple[str, int], int]
    """Class indices."""
    folds: dict[tuple[str, int], int]
    """Within the repeat."""
    probabilities: dict[tuple[str, int], list[float]]
    """One a class."""

    def array(self, keys: Iterable[tuple[str, int]]) -> NDArray[np.float64]:
        """Give the probabilities of some patients and repeats, shape (keys, classes)."""
        return np.array([self.probabilities[key] for key in keys])


def read_oof(path: Path, slugs: Sequence[str]) -> OutOfFoldTable:
    """Read a run's out-of-fold predictions.

    Raises
    ------
    RunError
        If the file is missing, is on other classes, or holds a number that is not finite.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        keys = [(row["patient"], int(row["repeat"])) for row in rows]
        labels = [slugs.index(row["label"]) for row in rows]
        folds = [int(row["fold"]) for row in rows]
        probabilities = [[float(row[f"p_{slug}"]) for slug in slugs] for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise not_a_run(path.parent, path.name) from error
    if not rows or len(set(keys)) < len(keys) or not np.isfinite(probabilities).all():
        raise RunError("is damaged", path=path, remedy="run the same osteoscope train again to write it anew")
    return OutOfFoldTable(
        labels=dict(zip(keys, labels, strict=True)),
        folds=dict(zip(keys, folds, strict=True)),
        probabilities=dict(zip(keys, probabilities, strict=True)),
    )


def check_lesions(cases: Sequence[Case], roi: RegionOfInterest) -> None:
    """Refuse to crop some images by their lesion and not others: what was cropped could tell the class.

    Raises
    ------
    CohortError
        If `roi` needs lesions and an image has none.
    """
    images = [image for case in cases for image in case.images]
    lacking = [image.image for image in images if not image.lesions]
    if roi != "none" and lacking:
        raise CohortError(
            f"{len(lacking)} of {len(images)} images have no annotated lesion, among them {lacking[0]}",
            remedy="annotate them, or read whole images with --roi none",
        )


def check_modality(cohort: Cohort, preparation: PreparationConfig) -> None:
    """Refuse images that the settings do not read.

    Raises
    ------
    CohortError
        If the cohort holds phantoms beside others, or other modalities than are read.
    """
    from osteoscope.cohort.table import modalities_of
    from osteoscope.imaging.mixed import named_together

    found, mix = modalities_of(cohort), preparation.modalities
    if mix:
        field, read, fits = "modalities", named_together(mix), found == mix
    elif preparation.volume is None:
        field, read, fits = "volume", "radiographs alone", found == ("radiograph",)
    else:
        field, read, fits = "volume", "CT or MR alone", found in {("CT",), ("MR",)}
    if not fits:
        several = f"name {', '.join(found)} in preparation.modalities, or " if len(found) > 1 else ""
        raise CohortError(
            f"the settings (preparation.{field}) are for {read}, the cohort holds {named_together(found)}",
            remedy=f"{several}leave --config out, so that the settings follow the cohort, or take another cohort",
        )


def network_name(network: NetworkConfig) -> str:
    """Say in a few words what a network is."""
    trunk = "DenseNet-" + network.trunk.removeprefix("densenet").lstrip("-")
    if network.multiscale and network.attention:
        return f"optimised {trunk}"
    parts = [
        "multi-scale" if network.multiscale else "",
        "self-attention" if network.attention else "",
        "matched control" if network.matched else "",
    ]
    named = ", ".join(part for part in parts if part)
    return f"{trunk} with {named}" if named else f"plain {trunk}"


def flat_settings(**groups: Any) -> dict[str, object]:
    """Lay models out as ``group.field`` to value; where CT or MR is read, without what is of radiographs alone."""
    flat: dict[str, object] = {}
    for group, model in groups.items():
        of_scans = group == "preparation" and model.volume is not None
        kept = {"volume", "modalities"} if of_scans else None
        for name, value in model.model_dump(mode="json", include=kept).items():
            if isinstance(value, dict):
                flat.update({f"{name}.{inner}": item for inner, item in value.items()})
            else:
                flat[f"{group}.{name}"] = value
    return flat


def study_warnings(cohort: Cohort, preparation: PreparationConfig) -> tuple[str, ...]:
    """Say what a reader of the figures must know first."""
    warnings = list(cohort.notes)
    if bool(cohort.case_rows["guessed"].any()):
        warnings.append(
            "Patients were guessed, since the source gives no identifiers: two guessed patients may be one person, "
            "which makes figures look better and intervals narrower than they are."
        )
    if preparation.volume is not None and len(cohort.auxiliary_rows):
        left, read = ("images", "a mix") if preparation.modalities else ("scans", "CT and MR")
        warnings.append(
            f"{len(cohort.auxiliary_rows)} {left} outside of the classes were left aside: of {read}, those of the "
            "classes alone teach."
        )
    if preparation.annotation != "none":
        warnings.append(
            f"Every image was read round the {preparation.annotation} of its lesion, which a person had marked. "
            "Without that mark the network would do worse, and these figures do not hold."
        )
    return tuple(warnings)
