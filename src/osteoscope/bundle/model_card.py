"""The model card: what a bundle is, for people (Mitchell et al., FAT* 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osteoscope.config import LEFT_OUT_WHOLE
from osteoscope.imaging.mixed import named_together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osteoscope.bundle.format import Manifest, Recalibration, Training

_READING = {
    "none": "The whole image is read; nobody has to mark the lesion.",
    "box": "The square round the lesion's box is read: somebody has to mark the lesion first.",
    "outline": "The square round the lesion's outline is read: somebody has to mark the lesion first.",
}

_JUDGED = {
    "found": "all parts of the image, and the regions in which the networks find a lesion, each as much as it is likely "
    "to show one; nobody has to mark the lesion.",
    "box": "the square round the lesion's box: somebody has to mark the lesion first.",
    "outline": "the square round the lesion's outline: somebody has to mark the lesion first.",
}

_METHODS = {
    "none": "the network's own logits.",
    "temperature": "a temperature.",
    "affine": "a temperature and a bias for each class.",
}
_BEFORE = (
    " Probabilities and verdicts were recalibrated since, so what depends on them (Brier score, calibration, decided "
    "cases) was another; see the lineage."
)
_MOMENTS = {"before": "before", "prior_only": "with the new prior alone", "after": "after"}


def model_card(manifest: Manifest) -> str:
    """Write a bundle's model card as Markdown."""
    training = manifest.training
    patients = _counted(manifest, training.patients)
    guessed = " Patients were guessed, since the source gives no identifiers." if training.guessed_patients else ""
    verdicts = manifest.verdicts
    verdict_line = (
        f"A verdict is given where the class-conditional prediction set at {verdicts.level:.0%} holds one class alone; "
        "otherwise the answer is indeterminate."
        if verdicts.thresholds is not None
        else f"The most probable class is named; no prediction set is offered: {verdicts.refused}."
    )
    return f"""# Model card

## What it is
{_networks(manifest)}
Made with Osteoscope {manifest.osteoscope}.

## What it is for
{manifest.intended_use}

Modalities: {_listed(manifest.modalities)}. Body regions seen in training: {_listed(manifest.body_regions) or "not recorded"}.
Provenance: {manifest.provenance}. {_reading(manifest)}

## What it was trained on
{patients} patients, {training.images} images ({training.source}).{guessed}{_auxiliary(training)}
Cohort fingerprint `{training.cohort_fingerprint}`, settings fingerprint `{training.config_fingerprint}`, seed {training.seed}.

## What its answer means
Probabilities assume these shares of the classes before the image is read: {_shares(manifest, manifest.prior)}.
{manifest.calibration.prior_source} Where the classes are mixed otherwise, restate it: `osteoscope recalibrate`.

Calibration: {_method(manifest)} {manifest.calibration.fitted_on} {verdict_line}

## How well it does
Out-of-fold, by patient, on the training cohort (95 % intervals); the bundle was not measured by this, the procedure that made it was.{LEFT_OUT_WHOLE[training.split]}{_BEFORE if manifest.lineage else ""}

| figure | value |
|---|---|
{_performance_rows(manifest.performance)}
{_int8(manifest)}{_lineage(manifest)}
## What it cannot do
- It knows {_listed(manifest.classes)} and nothing else: any other diagnosis gets one of these names, or none.
- Figures hold for images like those of the training cohort. Measure it on your own cases with `osteoscope evaluate` first.
- An evidence map shows what raised or lowered the answer. It is not a segmentation.{_missed(manifest)}
"""


def _networks(manifest: Manifest) -> str:
    """Say what is in the bundle, and how it comes to its answer."""
    size = manifest.plane_shape(manifest.modalities[0])[1]
    what = f"({manifest.network.trunk}, {size} px)"
    task = f"{_listed(manifest.classes)} apart on\n{_listed(manifest.modalities)} images"
    if len(manifest.members) > 1:
        of_folds = f"{len(manifest.members)} networks {what}, one of each fold, that tell {task}."
        return f"{of_folds} Their mean logit, {_calibrated(manifest)}, gives the probabilities."
    learnt = ", fitted to all of the patients below," if manifest.members[0].fold is None else ""
    return f"One network {what}{learnt} that tells {task}. Its logit, {_calibrated(manifest)}, gives the probabilities."


def _int8(manifest: Manifest) -> str:
    """Say whether the networks may be run in eight bits, and what that changes."""
    found = manifest.int8
    if found is None:
        return ""
    if not found.offered:
        return f"\nEight bits are not offered: {found.reason}.\n"
    return (
        f"\nIn eight bits (`--int8`) the out-of-fold AUC is {found.auc_int8:.3f} instead of {found.auc_float32:.3f}, and maps correlate "
        f"by {found.map_correlation:.3f} with those of float32 (at least {found.least_map_correlation:.3f}; {found.patients} patients).\n"
    )


def _reading(manifest: Manifest) -> str:
    """Say what is read of an image, and who finds the lesion."""
    preparation = manifest.preparation
    if preparation.volume is not None:
        volume = preparation.volume
        return (
            f"Of CT and MR the body is read, in up to {volume.planes} planes of {volume.size} x {volume.spacing:g} mm, each "
            f"with {volume.neighbours} on either side; nobody has to mark the lesion.{_mix(manifest)}"
        )
    if not preparation.second_look:
        return _READING[preparation.roi]
    return f"What is judged is, in full resolution, {_JUDGED[preparation.second_look_at]}"


def _mix(manifest: Manifest) -> str:
    """Say what becomes of several modalities of a patient."""
    mix = manifest.preparation.modalities
    if not mix:
        return ""
    whole = " A radiograph is read whole, as one plane." if "radiograph" in mix else ""
    return (
        f"{whole} What there is of {named_together(mix)} of a patient is judged together; any of them may be missing."
    )


def _missed(manifest: Manifest) -> str:
    """Say what becomes of a lesion that is not found, where the networks have to find it."""
    preparation = manifest.preparation
    if not preparation.second_look or preparation.annotation != "none":
        return ""
    return (
        "\n- What weighs most is what the networks hold to be a lesion, though it may be none, and the lesion may be "
        "elsewhere. Where they find none, they still judge, by what looks most like one."
    )


def _auxiliary(training: Training) -> str:
    """Say what was learnt from images outside of the classes, and from which."""
    learnt = training.auxiliary
    if learnt is None:
        return ""
    asked = {"kind of tumour": learnt["kinds"], "body site": learnt["sites"], "view": learnt["views"]}
    answers = "".join(
        f"- {question}: {', '.join(f'{name} {images}' for name, images in counts.items()) or 'not asked'}\n"
        for question, counts in asked.items()
    )
    beside = learnt.get("beside", 0)
    first = "before their cases" if "fingerprint" in learnt else ""
    among = f"beside their cases, {beside:g} for each image of a case" if beside else ""
    return f"""

The networks learnt from {learnt["images"]} auxiliary images of {learnt["patients"]} patients outside of these classes,
{" and ".join(filter(None, (first, among)))}: where the lesion is, as far as it is annotated, and these answers (images of each):

{answers}"""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _counted(manifest: Manifest, patients: Mapping[str, int]) -> str:
    return ", ".join(f"{patients[slug]} {name}" for slug, name in zip(manifest.slugs, manifest.classes, strict=True))


def _shares(manifest: Manifest, prior: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {prior[slug]:.0%}" for slug, name in zip(manifest.slugs, manifest.classes, strict=True))


def _calibrated(manifest: Manifest) -> str:
    """Say what is done to the logit before it becomes a probability."""
    found = manifest.calibration
    if found.method == "none":
        return "as it is"
    divided = f"divided by a temperature of {found.temperature:.3f}"
    if found.bias is None:
        return divided
    bias = ", ".join(f"{name} {value:+.3f}" for name, value in zip(manifest.classes, found.bias, strict=True))
    return f"{divided} and shifted by a bias for each class ({bias})"


def _method(manifest: Manifest) -> str:
    losses = manifest.calibration.losses
    if not losses:
        return _METHODS[manifest.calibration.method]
    tried = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return f"{_METHODS[manifest.calibration.method]} Chosen by cross-validation on the same cases (log loss: {tried})."


def _lineage(manifest: Manifest) -> str:
    if not manifest.lineage:
        return ""
    steps = "\n".join(_step(manifest, number, step) for number, step in enumerate(manifest.lineage, 1))
    return f"\n## Lineage\nThe networks are those that were trained; not a byte of them has changed since.\n{steps}"


def _step(manifest: Manifest, number: int, step: Recalibration) -> str:
    what = "Calibration and prior" if step.fitted else "Calibration kept"
    names = list(step.figures["before"])
    rows = "\n".join(
        f"| {_MOMENTS[moment]} | {' | '.join(_figure(figures[name]) for name in names)} |"
        for moment, figures in step.figures.items()
    )
    return f"""
{number}. {what}, from {_counted(manifest, step.patients)} patients, {step.images} images ({step.source}), with Osteoscope {step.osteoscope}.
Prior: {_shares(manifest, step.prior_from)} before, {_shares(manifest, step.prior_to)} after.
Parent manifest `{step.parent_sha256}`, cohort fingerprint `{step.cohort_fingerprint}`.

On these patients (95 % intervals); every figure but that of the parent is cross-fitted, so that no patient had a say in the own probabilities:

| | {" | ".join(name.replace("_", " ") for name in names)} |
|---|{"---|" * len(names)}
{rows}
"""


def _performance_rows(performance: dict[str, Any]) -> str:
    return "\n".join(f"| {name.replace('_', ' ')} | {_figure(figure)} |" for name, figure in performance.items())


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None:
        return f"{figure['value']:.3f} (n = {figure['n']})"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}, n = {figure['n']})"
