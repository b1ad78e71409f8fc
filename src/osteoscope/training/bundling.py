"""From a run's networks, and what its first repeat says, to a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import osteoscope
from osteoscope.bundle.format import Calibration, Manifest, Member, Training, Verdicts, schema_of
from osteoscope.bundle.load import SeenCases
from osteoscope.bundle.write import write_bundle
from osteoscope.cohort.sites import split_sites
from osteoscope.evaluation.found import EVIDENCE
from osteoscope.training.outcome import CONFORMAL_LEVEL
from osteoscope.training.run_folder import library_versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.cohort.table import Auxiliary, Case, Cohort
    from osteoscope.config import Config
    from osteoscope.training.fold import FoldOutcome
    from osteoscope.training.outcome import BundleCalibration

INTENDED_USE = (
    "Research, and as a second reader beside a physician who has seen the images; never as the only ground for a "
    "diagnosis. Not a medical device."
)
INTENDED_USE_OF_PHANTOMS = (
    "To try Osteoscope out, on phantoms: it learnt from images on which nobody is, and says nothing of a patient. Not "
    "a medical device."
)
SPINE = "spine"
"""Body region of a patient whose lesion's level in the spine is known."""

_PERFORMANCE = ("auc", "accuracy", "balanced_accuracy", "brier", "calibration_slope", "decided", "accuracy_decided")


def bundle_run(
    target: Path,
    *,
    cohort: Cohort,
    cases: Sequence[Case],
    config: Config,
    teaching: Sequence[Auxiliary],
    auxiliary: dict[str, Any] | None,
    members: Sequence[FoldOutcome],
    calibration: BundleCalibration,
    metrics: dict[str, Any],
) -> None:
    """Write the bundle of a run: its `members`, whose mean logit decides.

    They learnt from `teaching` too, auxiliary images, of which `auxiliary` says what they are; None for nothing.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    phantoms = any(image.phantom for case in cases for image in case.images)
    manifest = Manifest(
        schema=schema_of(config.preparation),
        osteoscope=osteoscope.__version__,
        classes=cohort.classes,
        slugs=cohort.slugs,
        prior=dict(zip(cohort.slugs, calibration.chosen.calibration.prior, strict=True)),
        preparation=config.preparation,
        network=config.network,
        members=tuple(
            Member(
                folder=f"members/{number}",
                # One that judges nobody has left nobody out.
                fold=member.fold if member.cases else None,
                covariates=None if member.encoder is None else member.encoder.to_json(),
            )
            for number, member in enumerate(members)
        ),
        calibration=Calibration.of(
            calibration.chosen,
            fitted_on="It was fitted on the out-of-fold predictions of single members.",
            prior_source="The same share for every class.",
        ),
        verdicts=Verdicts.of(calibration.conformal, level=CONFORMAL_LEVEL),
        evidence_threshold=metrics["localisation"].get(EVIDENCE, {}).get("threshold"),
        modalities=config.preparation.modalities
        or tuple(sorted({image.modality for case in cases for image in case.images})),
        body_regions=_body_regions(cases),
        provenance="phantom" if phantoms else "clinical",
        intended_use=INTENDED_USE_OF_PHANTOMS if phantoms else INTENDED_USE,
        training=Training(
            cohort_fingerprint=cohort.fingerprint(),
            config_fingerprint=config.fingerprint(),
            patients=metrics["prevalence"],
            images=metrics["n_images"],
            source=cohort.source,
            guessed_patients=bool(cohort.case_rows["guessed"].any()),
            split=config.training.split,
            seed=config.training.seed,
            # Minutes would make a bundle another one each time that it is made.
            auxiliary=auxiliary and {name: value for name, value in auxiliary.items() if name != "minutes"},
            versions=library_versions(),
        ),
        performance={name: metrics["patient"][name] for name in _PERFORMANCE},
        files={},
    )
    write_bundle(
        manifest,
        target,
        member_folders=[member.member_folder() for member in members],
        training_cases=SeenCases.of(cases, auxiliary=teaching),
    )


def _body_regions(cases: Sequence[Case]) -> tuple[str, ...]:
    """Name the body sites and the levels of the spine that the cases show, sorted."""
    sites = {site for case in cases for site in split_sites(case.site)}
    levels = {level for case in cases for level in split_sites(case.level)}
    return tuple(sorted(sites | levels | ({SPINE} if levels else set())))
