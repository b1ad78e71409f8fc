"""Whether a cohort may be put before a bundle: of its classes and images, and of patients that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.errors import CohortError

if TYPE_CHECKING:
    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Cohort


def check_classes(bundle: Bundle, cohort: Cohort) -> None:
    """Refuse a cohort of other classes, or of the same in another order: label 0 would mean something else.

    Raises
    ------
    CohortError
        If the classes differ.
    """
    if bundle.manifest.slugs != cohort.slugs:
        raise CohortError(
            f"the bundle tells {', '.join(bundle.manifest.classes)} apart, in this order; "
            f"the cohort has {', '.join(cohort.classes)}",
            remedy="make the cohort with the bundle's classes, in the same order",
        )


def check_images(bundle: Bundle, cohort: Cohort) -> None:
    """Refuse images that the bundle does not read: of another modality, or phantoms where it learnt from none.

    Raises
    ------
    CohortError
        If the cohort holds such images, or phantoms beside others.
    """
    from osteoscope.cohort.table import modalities_of
    from osteoscope.imaging.mixed import named_together

    manifest, found = bundle.manifest, modalities_of(cohort)
    if not set(found) <= set(manifest.modalities):
        raise CohortError(
            f"the bundle reads {named_together(manifest.modalities)}, the cohort holds {named_together(found)}",
            remedy="take a bundle that was trained on such images, or a cohort without the others",
        )
    shown = "phantom" if bool(cohort.frame["phantom"].fillna(False).any()) else "clinical"
    if shown != manifest.provenance:
        raise CohortError(
            f"the bundle learnt from {_SHOWN[manifest.provenance]}, the cohort holds {_SHOWN[shown]}",
            remedy="take a bundle and a cohort of the same kind: of the other it can say nothing",
        )


_SHOWN = {"phantom": "phantoms, on which nobody is", "clinical": "images of patients"}


def check_unseen(bundle: Bundle, cohort: Cohort) -> None:
    """Refuse a cohort that shares a patient, or the same pixels, with what the bundle was trained or recalibrated on.

    Raises
    ------
    CohortError
        If it does; it says in which of the two roles the bundle saw them.
    """
    from osteoscope.bundle.load import read_recalibration_cases, read_training_cases
    from osteoscope.cohort.audit import raise_if_blocked, shared_with

    trained = read_training_cases(bundle)
    raise_if_blocked(shared_with(cohort, patients=trained.patients, pixels=trained.pixels))
    fitted = read_recalibration_cases(bundle)
    shared = {
        patient
        for finding in shared_with(cohort, patients=fitted.patients, pixels=fitted.pixels)
        for patient in finding.cases
    }
    if shared:
        raise CohortError(
            f"{len(shared)} of {cohort.case_rows['patient'].nunique()} patients, or their images, are among those that "
            "the bundle was recalibrated on: its probabilities, verdict thresholds and prior come from them",
            remedy="leave these patients out, or take the bundle that it was recalibrated from",
        )
