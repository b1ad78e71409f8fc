"""From a study's records to the content of its pages."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.conformal import INDETERMINATE
from osteoscope.inference.evidence import evidence_on_image
from osteoscope.inference.radiographs import lesions_on, read_pixels
from osteoscope.report.content import (
    NOT_RECORDED,
    Accepted,
    AuditTables,
    CaseContent,
    CaseImageContent,
    ClassSummary,
    Finding,
    FoldCounts,
    LeftOut,
    LocalisationRow,
    Participants,
    Witness,
)
from osteoscope.report.volumes import volume_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from osteoscope.cohort.audit import Audit, Settled
    from osteoscope.cohort.audit import Finding as AuditFinding
    from osteoscope.cohort.table import Case, CaseImage, Cohort
    from osteoscope.config import PreparationConfig
    from osteoscope.inference.prediction import ExplainedCase
    from osteoscope.report.content import SecondLook

_MAP_NAMES = {
    "evidence": "evidence of the network",
    "lesion": "where the network finds a lesion",
    "gaussian": "centred Gaussian",
    "random": "random map",
    "edges": "edge detector",
}


def shows_phantoms(cohort: Cohort) -> bool:
    """Tell whether what is studied was made from the phantom."""
    return bool(cohort.case_rows["phantom"].fillna(False).any())


def participants(cohort: Cohort) -> Participants:
    """Tell the flow from what was found to what was studied."""
    frame, auxiliaries = cohort.frame, cohort.auxiliary_rows
    reasons = Counter(_kind_of_reason(left.reason) for left in cohort.left_out)
    return Participants(
        images=len(frame),
        patients=int(frame["patient"].nunique()),
        left_out=tuple(LeftOut(reason=reason, entries=count) for reason, count in sorted(reasons.items())),
        auxiliary_images=len(auxiliaries),
        auxiliary_patients=int(auxiliaries["patient"].nunique()),
        patients_guessed=bool(frame["guessed"].any()),
        classes=tuple(_class_summary(cohort.case_rows, name) for name in cohort.classes),
    )


def _kind_of_reason(reason: str) -> str:
    """Leave out what names a single file, so that like reasons are counted together."""
    return reason.split(":", maxsplit=1)[0]


def _class_summary(rows: pd.DataFrame, name: str) -> ClassSummary:
    mine = rows[rows["label"] == name]
    patients = mine.groupby("patient").agg(
        {"age": "mean", "sex": "first", "site": "first", "level": "first", "centre": "first"}
    )
    ages = patients["age"].dropna().to_numpy(dtype=np.float64)
    quartiles = tuple(float(q) for q in np.percentile(ages, [25, 50, 75])) if len(ages) else None
    return ClassSummary(
        name=name,
        patients=len(patients),
        images=len(mine),
        age_median=quartiles[1] if quartiles else None,
        age_quartiles=(quartiles[0], quartiles[2]) if quartiles else None,
        age_missing=int(patients["age"].isna().sum()),
        sex=_counted(patients["sex"]),
        sites=_counted(patients["site"]),
        levels=_counted(patients["level"]),
        centres=_counted(patients["centre"]),
        views=_counted(mine["view"]),
    )


def _counted(values: pd.Series[Any]) -> dict[str, int]:
    """Count each value, most frequent first; what is missing counts as not recorded."""
    return {str(name): int(count) for name, count in values.fillna(NOT_RECORDED).value_counts().items()}


def findings(found: Sequence[AuditFinding]) -> tuple[Finding, ...]:
    """Read the audit's findings as the report's rows."""
    return tuple(
        Finding(kind=f.kind, severity=f.severity, cases=f.cases, message=f.message, remedy=f.remedy) for f in found
    )


def accepted_findings(settled: Settled) -> tuple[Accepted, ...]:
    """Gather what was accepted by kind, in the order in which it was found."""
    by_kind: dict[tuple[str, str], list[AuditFinding]] = {}
    for finding, because in settled.accepted:
        by_kind.setdefault((finding.kind, because), []).append(finding)
    return tuple(
        Accepted(kind=kind, because=because, findings=findings(found)) for (kind, because), found in by_kind.items()
    )


def audit_tables(audit: Audit) -> AuditTables:
    """Read what the audit measured as the report's tables."""
    return AuditTables(
        shortcuts=tuple(
            Witness(sees=witness.sees, auc=witness.auc.to_json(), apart=witness.apart)
            for witness in audit.alone.values()
        ),
        by_class=audit.tables.to_json(),
    )


def fold_counts(proof: Mapping[str, Any]) -> tuple[FoldCounts, ...]:
    """Read the proof of disjointness as the report's rows."""
    return tuple(
        FoldCounts(
            repeat=fold["repeat"],
            fold=fold["fold"],
            training_patients=sum(fold["train"]["patients"].values()),
            test_patients=sum(fold["test"]["patients"].values()),
            training_images=sum(fold["train"]["images"].values()),
            test_images=sum(fold["test"]["images"].values()),
            shared_patients=fold["shared_patients"],
            shared_images=fold["shared_pixels"],
        )
        for fold in proof["splits"]
    )


def localisation_rows(table: Mapping[str, Any]) -> tuple[LocalisationRow, ...]:
    """Read the localisation table as the report's rows."""
    return tuple(
        LocalisationRow(
            name=label,
            iou=table[name]["iou"],
            pointing=table[name]["pointing"],
            energy=table[name]["energy"],
            is_evidence=name == "evidence",
        )
        for name, label in _MAP_NAMES.items()
        if name in table
    )


def evidence_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Say how the maps were made and measured.

    Parameters
    ----------
    metrics
        The content of ``metrics.json``; ``evidence_through_weights`` is there for a run.
    """
    in_planes = "planes" in metrics["localisation"]
    looks_again = "lesion" in metrics["localisation"] and not in_planes
    notes = list(_MEASURED_ON_PLANES if in_planes else _measured_on(roi=metrics["roi"], looks_again=looks_again))
    read = "planes" if in_planes else "deciding looks" if looks_again else "images"
    if unread := metrics["localisation"].get("not_read"):
        notes.append(
            f"Of {unread} further {'images' if unread > 1 else 'image'} with an outlined lesion nothing of it was "
            "read: it lies beyond what the network reads, or is smaller than a pixel there. No figure counts "
            f"{'them' if unread > 1 else 'it'}."
        )
    through = metrics.get("evidence_through_weights", {})
    if through.get("patients"):
        low, high = through["quartiles"]
        notes.append(
            f"Evidence holds the weights of the {read} fixed. What it leaves out, the way through those weights, is "
            f"{through['median']:.1%} of it (quartiles {low:.1%} to {high:.1%}), in {through['patients']} patients of "
            f"several {read}."
        )
    return tuple(notes)


_MEASURED_ON_PLANES = (
    "All maps were measured plane by plane, as the network read them, on those of the planes that were read in which "
    "the outlined lesion is seen. Each such plane counts once, whatever its weight in the decision; intervals are over "
    "patients.",
    "Where the network finds a lesion is told whatever the class, and was learnt from outlined lesions of other "
    "patients: it is no evidence for one.",
)


def _measured_on(*, roi: str, looks_again: bool) -> Iterator[str]:
    """Say on which part of the image the maps were measured, and what a mark or a found region means for them."""
    if not looks_again:
        yield (
            "All maps were measured on the whole image, as the network read it."
            if roi == "none"
            else "All maps were measured on the square that the network read. It was cut round the lesion, so its "
            "centre is a good guess by itself: the centred Gaussian profits from what a person had marked."
        )
        return
    yield (
        "All maps were measured on the whole image, as the first look read it. Evidence is that of the looks that "
        "decide, added up by area: closer ones at all parts of the image, and those at the regions. Where the network "
        "finds a lesion is told by the first look and the closer ones, whatever the class, and was learnt from "
        "annotated lesions of other patients: it is no evidence for one."
    )
    yield (
        "A part of the image weighs as much as the network holds it likely to show a lesion. Why it does, the evidence "
        "does not say."
        if roi == "none"
        else "The second look went where a person had marked the lesion, and evidence lies there alone: its figures "
        "profit from that mark."
    )


def case_content(
    case: Case,
    explained: ExplainedCase,
    *,
    classes: Sequence[str],
    probabilities: Sequence[float],
    prior: Sequence[float],
    verdict: int,
    made_by: str,
    study_href: str,
    preparation: PreparationConfig,
    of_images: Sequence[float] = (),
    by_sets: bool = True,
) -> CaseContent:
    """Gather a case's page.

    Parameters
    ----------
    case
        Its images are read here, at their own resolution.
    explained
        Its prediction and evidence.
    classes, probabilities, prior
        In one order.
    verdict
        Index of a class, or -1 for indeterminate.
    made_by
        Which fold or bundle made the prediction, as a sentence.
    study_href
        Where the study report lies, relative to the page.
    preparation
        That the prediction was made with: where the network is to look again and looked once, it found no lesion.
    of_images
        The probabilities, were nothing but the images known; needed where the network is told something else.
    by_sets
        Whether the verdict is by a prediction set, and not the most probable class.

    Raises
    ------
    ImageError
        If an image cannot be read.
    InputError
        If the mask of a lesion cannot be read, or is none of its volume.
    """
    scans, chosen = preparation.volume, int(np.argmax(probabilities))
    covariates = {
        "age": NOT_RECORDED if case.age is None else f"{case.age:.0f} years",
        "sex": case.sex or NOT_RECORDED,
    }
    if case.site or not case.level:
        covariates["site"] = case.site or NOT_RECORDED
    if case.level:
        covariates["level"] = case.level
    places = dict(enumerate(case.images))
    return CaseContent(
        patient=case.patient,
        label=None if case.label is None else classes[case.label],
        classes=tuple(classes),
        probabilities=tuple(probabilities),
        prior=tuple(prior),
        verdict=verdict_name(verdict, classes),
        images=tuple(
            _image_content(image, explained, place) for place, image in places.items() if image.modality == "radiograph"
        ),
        volumes=tuple(
            volume_content(image, explained, place, config=scans, chosen=chosen)
            for place, image in places.items()
            if scans is not None and image.modality != "radiograph"
        ),
        compared=f"{', '.join(classes)} were compared with each other, and with nothing else.",
        made_by=made_by,
        second_look=_second_look(explained, preparation.second_look),
        told=tuple(explained.prediction.told),
        of_images=tuple(of_images),
        covariates=covariates,
        study_href=study_href,
        phantom=any(image.phantom for image in case.images),
        by_sets=by_sets,
    )


def _image_content(image: CaseImage, explained: ExplainedCase, place: int) -> CaseImageContent:
    """Read a radiograph, and lay the evidence of all looks at it on its pixels."""
    said = explained.prediction.images[place]
    pixels = read_pixels(image)
    shape = (pixels.shape[0], pixels.shape[1])
    looks = [look.read_square() for look in said.looks]
    by_pixel = evidence_on_image(explained.evidence[explained.looks_at(place)], looks, shape)
    return CaseImageContent(
        name=image.image,
        view=image.view,
        pixels=pixels,
        evidence=by_pixel * np.float32(said.square.side**2),
        weight=said.weight,
        lesions=lesions_on(pixels, image),
        square=said.square,
        found=said.found,
    )


def _second_look(explained: ExplainedCase, wanted: bool) -> SecondLook | None:
    """Say where the network looked again, if it was to or did."""
    regions = [look for image in explained.prediction.images for look in image.regions]
    if any(look.likelihood is None for look in regions):
        return "marked"
    return "found" if regions or wanted else None


def verdict_name(verdict: int, classes: Sequence[str]) -> str:
    """Name a verdict: a class, or ``indeterminate``."""
    return "indeterminate" if verdict == INDETERMINATE else classes[verdict]
