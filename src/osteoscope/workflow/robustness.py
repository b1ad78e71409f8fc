"""How well a bundle does as its images get worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import ConfigError, require
from osteoscope.workflow.study import REPORT, check_lesions
from osteoscope.workflow.unseen import check_classes, check_images, check_unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case, Cohort
    from osteoscope.evaluation.arrays import FloatArray, IntArray
    from osteoscope.evaluation.intervals import Figure
    from osteoscope.inference.predictor import Predictor
    from osteoscope.inference.robustness import Condition

ROBUSTNESS = "robustness.json"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class RobustnessSummary:
    """Where a sweep lies, and what it found."""

    folder: Path
    report: Path
    robustness: dict[str, Any]
    """The content of ``robustness.json``."""


def sweep_robustness(
    bundle_folder: Path,
    cohort_folder: Path,
    output: Path,
    *,
    disturbances: Sequence[str] = (),
    seed: int = 0,
    threads: int | None = None,
    images: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RobustnessSummary:
    """Judge a bundle on a cohort whose images are disturbed, one way and one strength after another.

    Parameters
    ----------
    bundle_folder
        Of a bundle.
    cohort_folder
        Of a cohort with the bundle's classes and no patient or image that the bundle has seen.
    output
        Where figures and report go; written whole or not at all.
    disturbances
        Names, see `osteoscope.imaging.disturb.DISTURBANCES`; all where none is given.
    seed
        Of what is random in a disturbance, and of the bootstrap.
    threads
        Of the processor; None leaves the choice to onnxruntime.
    images
        Where the cohort's images lie, if they have moved.
    progress
        Is told how many of how many patients, each under every condition, are done.

    Raises
    ------
    OsteoscopeError
        If a disturbance does not exist, the bundle is damaged or none for radiographs, the cohort does not fit or was
        seen, or an output cannot be written.
    """
    require("pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "jinja2")
    from osteoscope.bundle.load import load_bundle
    from osteoscope.cohort.audit import find_leaks, raise_if_blocked
    from osteoscope.cohort.table import cases as cases_of
    from osteoscope.cohort.table import read_cohort
    from osteoscope.imaging.disturb import DISTURBANCES
    from osteoscope.inference.predictor import load_predictor
    from osteoscope.report.robustness import robustness_html
    from osteoscope.storage import folder_written_whole, refuse_existing, refuse_within, write_json, write_text

    names = _checked_names(disturbances)
    refuse_within(output, bundle_folder)
    refuse_existing(output, kind="a robustness sweep", marker=ROBUSTNESS, others=frozenset({REPORT}))
    bundle = load_bundle(bundle_folder)
    _refuse_scans(bundle)
    cohort = read_cohort(cohort_folder, images=images)
    raise_if_blocked(find_leaks(cohort))
    check_classes(bundle, cohort)
    check_images(bundle, cohort)
    check_unseen(bundle, cohort)
    cases = cases_of(cohort)
    check_lesions(cases, bundle.manifest.preparation.annotation)
    conditions = _conditions(names)
    predictor = load_predictor(bundle, threads=threads)
    logits = _logits(predictor, cases, conditions, seed=seed, progress=progress)
    sweep = _Sweep(cases=cases, slugs=cohort.slugs, predictor=predictor, logits=logits, seed=seed)
    document = {
        **_facts(bundle, cohort, seed=seed),
        "what": {name: DISTURBANCES[name].what for name in names},
        "disturbances": _by_disturbance(sweep, conditions),
    }
    with folder_written_whole(output) as folder:
        write_json(folder / ROBUSTNESS, document)
        write_text(folder / REPORT, robustness_html(document))
    return RobustnessSummary(folder=output, report=output / REPORT, robustness=document)


def _checked_names(disturbances: Sequence[str]) -> tuple[str, ...]:
    from osteoscope.imaging.disturb import DISTURBANCES

    strange = sorted(set(disturbances) - set(DISTURBANCES))
    if strange:
        raise ConfigError(
            f"there is no disturbance {', '.join(strange)}", remedy=f"choose from {', '.join(DISTURBANCES)}"
        )
    return tuple(name for name in DISTURBANCES if not disturbances or name in disturbances)


def _refuse_scans(bundle: Bundle) -> None:
    from osteoscope.imaging.mixed import named_together

    if bundle.manifest.preparation.volume is not None:
        read = named_together(bundle.manifest.modalities)
        raise ConfigError(
            f"expected a bundle that reads radiographs alone, found one for {read}: the disturbances are those of a "
            "radiograph",
            path=bundle.folder,
            remedy="measure it with osteoscope evaluate, on a cohort of each site or scanner",
        )


def _conditions(names: Sequence[str]) -> list[Condition]:
    """List what is swept, by disturbance from weak to strong; first of all the images as they are."""
    from osteoscope.imaging.disturb import DISTURBANCES
    from osteoscope.inference.robustness import Condition

    strengths = [(name, strength) for name in names for strength in DISTURBANCES[name].strengths]
    return [Condition(disturbance=name, strength=strength) for name, strength in [(names[0], 0.0), *strengths]]


def _logits(
    predictor: Predictor,
    cases: Sequence[Case],
    conditions: Sequence[Condition],
    *,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    """Let the bundle read every patient under every condition: (conditions, n, K)."""
    from osteoscope.inference.robustness import disturbed_logits

    by_case = []
    for done, case in enumerate(cases):
        by_case.append(list(disturbed_logits(predictor, case, conditions, seed=seed)))
        if progress is not None:
            progress(done + 1, len(cases))
    return np.array(by_case).transpose(1, 0, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sweep:
    """What the bundle said of every patient under every condition, the first of which is no disturbance."""

    cases: Sequence[Case]
    slugs: tuple[str, ...]
    predictor: Predictor
    logits: FloatArray
    """(conditions, n, K)."""
    seed: int

    @property
    def labels(self) -> IntArray:
        """(n,)."""
        return np.array([case.label for case in self.cases], dtype=np.int64)

    @property
    def patients(self) -> list[str]:
        """Pseudonyms."""
        return [case.patient for case in self.cases]

    def probabilities(self, place: int) -> FloatArray:
        """Under the condition at a place: (n, K)."""
        return self.predictor.calibration.apply(self.logits[place])

    def verdicts(self, place: int) -> IntArray:
        """Under the condition at a place: (n,)."""
        from osteoscope.inference.predictor import verdicts_of

        return verdicts_of(self.probabilities(place), self.predictor.conformal)


def _by_disturbance(sweep: _Sweep, conditions: Sequence[Condition]) -> dict[str, list[dict[str, Any]]]:
    """Give each disturbance's points, from strength 0 on."""
    from osteoscope.imaging.disturb import DISTURBANCES

    undisturbed = _point(sweep, 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for place, condition in enumerate(conditions):
        unit = DISTURBANCES[condition.disturbance].unit
        points = found.setdefault(condition.disturbance, [{"strength": 0.0, "unit": unit, **undisturbed}])
        if condition.strength > 0:
            points.append({"strength": condition.strength, "unit": unit, **_point(sweep, place)})
    return found


def _point(sweep: _Sweep, place: int) -> dict[str, Any]:
    """Judge the answers under one condition, by patient, beside those without disturbance."""
    from osteoscope.evaluation.compare import paired_difference
    from osteoscope.evaluation.conformal import Refused
    from osteoscope.evaluation.summary import summarise

    labels, patients, probabilities = sweep.labels, sweep.patients, sweep.probabilities(place)
    level = summarise(
        labels=labels,
        probabilities=probabilities,
        patients=patients,
        repeats=np.zeros(len(patients)),
        classes=sweep.slugs,
        prior=sweep.predictor.calibration.prior,
        verdicts=None if isinstance(sweep.predictor.conformal, Refused) else sweep.verdicts(place),
        seed=sweep.seed,
    )
    change = paired_difference(labels, probabilities, sweep.probabilities(0), patients=patients, seed=sweep.seed)
    return {
        "auc": level["auc"],
        "auc_change": change.to_json(),
        "balanced_accuracy": level["balanced_accuracy"],
        "decided": level["decided"],
        "verdicts_changed": _changed(sweep, place).to_json(),
    }


def _changed(sweep: _Sweep, place: int) -> Figure:
    """Share of patients who get another verdict than without disturbance."""
    from osteoscope.evaluation.intervals import Figure, wilson

    share, n = float((sweep.verdicts(place) != sweep.verdicts(0)).mean()), len(sweep.cases)
    ends = wilson(share, n)
    return Figure(value=share, low=ends.low, high=ends.high, n=n)


def _facts(bundle: Bundle, cohort: Cohort, *, seed: int) -> dict[str, Any]:
    manifest, rows = bundle.manifest, cohort.case_rows
    patients = rows.groupby("label")["patient"].nunique()
    return {
        "schema": SCHEMA,
        "classes": list(cohort.classes),
        "slugs": list(cohort.slugs),
        "n_patients": int(rows["patient"].nunique()),
        "n_images": len(rows),
        "prevalence": {
            slug: int(patients.get(name, 0)) for slug, name in zip(cohort.slugs, cohort.classes, strict=True)
        },
        "prior": manifest.prior,
        "roi": manifest.preparation.annotation,
        "seed": seed,
        "estimates": "How well this bundle does on these patients when their images are worse than they are.",
        "bundle_sha256": bundle.sha256,
        "cohort_fingerprint": cohort.fingerprint(),
        "guessed_patients": bool(rows["guessed"].any()),
    }
