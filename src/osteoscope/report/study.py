"""The study report: every figure of a run or an evaluation with its interval, on one page that needs no other file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.config import LEFT_OUT_WHOLE
from osteoscope.imaging.mixed import in_words, named_together
from osteoscope.report import figures
from osteoscope.report.content import NOT_RECORDED
from osteoscope.report.figures import ForestRow
from osteoscope.report.pages import data_uri, inline, listed, render
from osteoscope.report.truth import falls_plot, pictures_of, truth_rows
from osteoscope.report.wording import DASH, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from markupsafe import Markup

    from osteoscope.imaging.volume import Modality
    from osteoscope.report.content import CaseLink, Figure, Metrics, Participants, StudyContent

_KINDS = {
    "run": "Out-of-fold figures of a training: every patient was judged by a model that never saw that patient.",
    "evaluation": "Figures of a finished model on cases that it never saw in training.",
}
_REGIONS = {
    "none": "The network read whole images; no one told it where the lesion is.",
    "box": "The network read the square round the lesion's annotated box: a person had pointed at the lesion.",
    "outline": "The network read the square round the lesion's annotated outline: a person had pointed at the lesion.",
}
_SECOND_LOOKS = {
    "none": "The network read all parts of an image closely, and the regions in which it found a lesion; each weighed "
    "as much as it was likely to show one. No one told it where the lesion is.",
    "box": "The network judged, in full resolution, the square round the lesion's annotated box: a person had pointed "
    "at the lesion.",
    "outline": "The network judged, in full resolution, the square round the lesion's annotated outline: a person had "
    "pointed at the lesion.",
}


_PLANES = "The network read planes of each {modality}, spread evenly over the body; no one told it where the lesion is."
_MIX = (
    "The network read {modalities} of a patient together: of a CT or MR planes that are spread evenly over the body, "
    "and the whole of a radiograph. Any of them may be missing; no one told it where the lesion is."
)
_CALLED: Mapping[tuple[Modality, ...], str] = {("CT",): "CT scans", ("MR",): "MR scans"}


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """A figure of the metrics mapping, and how it is shown."""

    key: str
    name: str
    meaning: str
    percent: bool = False
    undefined: str = "there is no case"
    optional: bool = False
    """Whether it has no line where it was not measured."""


_OVERALL = (
    _Quantity(
        key="auc",
        name="AUC",
        meaning="chance that two cases of different classes are ranked rightly; 0.5 is guessing",
        undefined="it takes cases of every class",
    ),
    _Quantity(
        key="auc_delong",
        name="AUC, by DeLong",
        meaning="the same AUC with DeLong's interval, on the logit scale",
        undefined="it takes cases of every class",
        optional=True,
    ),
    _Quantity(
        key="auc_within_folds",
        name="AUC within folds",
        meaning="the same chance for two cases that one network judged. Networks of different folds are not on one "
        "scale, which the AUC above suffers from and one finished model does not",
        undefined="it takes a fold with cases of two classes",
        optional=True,
    ),
    _Quantity(key="accuracy", name="Accuracy", meaning="share in which the highest probability is right", percent=True),
    _Quantity(
        key="balanced_accuracy",
        name="Balanced accuracy",
        meaning="mean of the sensitivities",
        percent=True,
        undefined="a class has no case",
    ),
    _Quantity(
        key="decided",
        name="Decided",
        meaning="share for which the prediction set holds one class alone, and not “indeterminate” was said",
        percent=True,
        undefined="there are too few patients for prediction sets",
    ),
    _Quantity(
        key="accuracy_decided",
        name="Accuracy where decided",
        meaning="share of those that is right",
        percent=True,
        undefined="nothing was decided by prediction sets",
    ),
)
_CALIBRATION = (
    _Quantity(key="brier", name="Brier score", meaning="mean squared error of the probabilities; less is better"),
    _Quantity(
        key="brier_parts",
        name="Parts of the Brier score",
        meaning="reliability: distance from what came, 0 is ideal; resolution: how far cases are told apart, more is "
        "better; uncertainty: what the class shares alone would score. Less what chance adds (Ferro and Fricker 2012)",
        optional=True,
    ),
    _Quantity(key="brier_prior", name="Brier score of the prior", meaning="what that prior alone would reach"),
    _Quantity(key="log_loss", name="Log loss", meaning="punishes confident errors; less is better"),
    _Quantity(
        key="ece",
        name="Calibration error (ECE, debiased)",
        meaning="root mean square gap between predicted and observed, less what chance adds; 0 is ideal",
    ),
    _Quantity(
        key="calibration_slope",
        name="Calibration slope",
        meaning="1 is ideal; below 1 the probabilities are too extreme, above 1 too timid",
        undefined="predictions part the classes perfectly, or are all the same",
    ),
    _Quantity(
        key="calibration_intercept",
        name="Calibration intercept",
        meaning="0 is ideal",
        undefined="predictions part the classes perfectly, or are all the same",
    ),
)
_BY_CLASS = (
    _Quantity(
        key="sensitivity", name="Sensitivity", meaning="", percent=True, undefined="there is no case of this class"
    ),
    _Quantity(
        key="specificity", name="Specificity", meaning="", percent=True, undefined="there is no case of another class"
    ),
    _Quantity(
        key="ppv",
        name="Positive predictive value",
        meaning="",
        percent=True,
        undefined="no case was predicted as this class",
    ),
    _Quantity(
        key="npv",
        name="Negative predictive value",
        meaning="",
        percent=True,
        undefined="every case was predicted as this class",
    ),
    _Quantity(key="f1", name="F1", meaning="", undefined="no case is of this class, and none was predicted as it"),
    _Quantity(
        key="auc_by_class",
        name="AUC against the rest",
        meaning="",
        undefined="it takes cases of this class and of another",
    ),
    _Quantity(
        key="average_precision",
        name="Average precision",
        meaning="",
        undefined="it takes cases of this class and of another",
    ),
)
_BESIDE = ("auc", "auc_within_folds", "balanced_accuracy", "brier", "calibration_slope")
_HEADLINE = ("auc", "balanced_accuracy", "brier", "calibration_slope")
_QUANTITIES = {quantity.key: quantity for quantity in (*_OVERALL, *_CALIBRATION, *_BY_CLASS)}
_HISTORY_KEYS = frozenset({"repeat", "fold", "epoch", "loss", "learning_rate", "seconds", "network_seconds"})


def study_html(content: StudyContent) -> str:
    """Write the study report: one HTML file that needs no other and is the same for the same content.

    Raises
    ------
    ValueError
        If classes and slugs differ in number, or a case does not have one probability a class.
    """
    _check(content)
    levels, calibration_levels = _levels(content.metrics), _calibration_levels(content.metrics)
    return render(
        "study.html.j2",
        content=content,
        metrics=content.metrics,
        patient=content.metrics["patient"],
        levels=levels,
        calibration_levels=calibration_levels,
        phantom=content.phantom,
        kind=_KINDS[content.kind] + LEFT_OUT_WHOLE[str(content.settings.get("training.split", "patients"))],
        called=_CALLED.get(content.modalities, "images"),
        known_of_participants=_known_of_participants(content.participants),
        region=_what_was_read(content),
        prior=_prior_sentence(content),
        headline=[_QUANTITIES[key] for key in _HEADLINE],
        overall=_measured(_OVERALL, levels),
        calibration=_measured(_CALIBRATION, calibration_levels),
        by_class=_BY_CLASS,
        beside_quantities=_measured([_QUANTITIES[key] for key in _BESIDE], levels),
        beside=list(_beside_rows(content)),
        coarsest=content.metrics.get("coarsest_grouping"),
        decision=content.metrics["patient"].get("decision"),
        points=_decision_rows(content),
        subgroups=(content.metrics.get("subgroups") or {}).get("groupings") or {},
        power=content.metrics.get("power"),
        confounders=_confounder_rows(content),
        regions=(content.metrics.get("localisation") or {}).get("regions"),
        truth=content.metrics.get("truth"),
        truth_rows=truth_rows(content),
        pair=pictures_of(content.without_matrix),
        plots=_plots(content),
        settings=_grouped(content.settings),
        cases=[_case_row(case, content.classes) for case in _worst_first(content)],
        leaks=sum(fold.shared_patients + fold.shared_images for fold in content.folds),
    )


@dataclass(frozen=True, kw_only=True)
class _Plots:
    """Inline SVG by place on the page; empty where there is nothing to plot."""

    discrimination: tuple[tuple[str, Markup], ...]
    reliability: tuple[Markup, ...]
    decision: tuple[Markup, ...]
    forest: Markup | None
    history: tuple[Markup, ...]
    falls: Markup | None


def _plots(content: StudyContent) -> _Plots:
    return _Plots(
        discrimination=tuple(_discrimination_plots(content)),
        reliability=tuple(_reliability_plots(content)),
        decision=tuple(_decision_plots(content)),
        forest=_forest_plot(content),
        history=tuple(_history_plots(content.history)),
        falls=falls_plot(content.metrics),
    )


def _discrimination_plots(content: StudyContent) -> Iterator[tuple[str, Markup]]:
    """Draw what the patient figures hold, each with its caption."""
    level: Metrics = content.metrics["patient"]
    if any(curve["roc"]["true_positive_rate"] for curve in (level.get("curves") or {}).values()):
        roc = figures.roc_svg(level, classes=content.classes, slugs=content.slugs)
        yield "ROC, each class against the rest. The dotted line is guessing.", inline(roc)
        total = sum(content.metrics["prevalence"].values())
        shares = {slug: count / total for slug, count in content.metrics["prevalence"].items() if total}
        precision = figures.precision_recall_svg(level, classes=content.classes, slugs=content.slugs, shares=shares)
        yield "Precision and recall. Dotted lines: each class's share of the cases.", inline(precision)
    counts = level.get("confusion")
    if counts:
        confusion = figures.confusion_svg(counts, classes=content.classes)
        yield "Confusion matrix: predictions, and their share of the row.", inline(confusion)
    points = [
        (case.label, case.probabilities[content.classes.index(case.label)])
        for case in content.cases
        if case.label in content.classes
    ]
    if points:
        strip = figures.strip_svg(points, classes=content.classes)
        yield "Each point is a patient. The further right, the surer of the truth.", inline(strip)


def _reliability_plots(content: StudyContent) -> Iterator[Markup]:
    """Draw each class; of two, only the second, whose calibration the figures tell, since the first mirrors it."""
    reliability = _calibration_levels(content.metrics)[-1][1].get("reliability") or {}
    shown = list(enumerate(zip(content.classes, content.slugs, strict=True)))
    for index, (name, slug) in shown[1:] if len(shown) == 2 else shown:
        if reliability.get(slug):
            yield inline(figures.reliability_svg(reliability[slug], name=name, index=index))


def _decision_plots(content: StudyContent) -> Iterator[Markup]:
    """Draw each class: a decision to call one is another decision than to call the other."""
    decision = content.metrics["patient"].get("decision") or {}
    curves = decision.get("curves") or {}
    for index, (name, slug) in enumerate(zip(content.classes, content.slugs, strict=True)):
        if slug in curves:
            yield inline(figures.decision_svg(curves[slug], thresholds=decision["thresholds"], name=name, index=index))


def _forest_plot(content: StudyContent) -> Markup | None:
    rows = [
        ForestRow(name=row.name, figure=row.figures["auc"], is_model=row.is_model)
        for row in _beside_rows(content)
        if row.figures.get("auc") is not None
    ]
    if len(rows) < 2:
        return None
    return inline(figures.forest_svg(rows, label="AUC by patient"))


def _history_plots(history: Sequence[Mapping[str, float | None]]) -> Iterator[Markup]:
    """Draw the loss, and whatever else was measured by epoch."""
    if not history:
        return
    others = dict.fromkeys(
        key for row in history for key, value in row.items() if key not in _HISTORY_KEYS and value is not None
    )
    for key in ("loss", *others):
        label = "training loss" if key == "loss" else key.replace("_", " ").replace("auc", "AUC")
        yield inline(figures.history_svg(history, quantity=key, label=label))


def _levels(metrics: Metrics) -> list[tuple[str, Metrics]]:
    """Name the units in which figures are given: patients first, for they are the result.

    Where each patient has one image, what is said by image is said twice.
    """
    names = ("patient",) if metrics["n_images"] == metrics["n_patients"] else ("patient", "image")
    return [(f"by {name}", metrics[name]) for name in names if metrics.get(name)]


def _calibration_levels(metrics: Metrics) -> list[tuple[str, Metrics]]:
    """Name the priors under which calibration is judged: the stated one, and the class shares of these patients."""
    stated: Metrics = metrics["patient"]
    restated = stated.get("at_class_shares")
    named = [("by patient, as stated", stated)]
    return [*named, ("by patient, restated to these patients' class shares", restated)] if restated else named


def _measured(quantities: Sequence[_Quantity], levels: Sequence[tuple[str, Metrics]]) -> list[_Quantity]:
    """Leave out what is optional and in no level."""
    return [one for one in quantities if not one.optional or any(level.get(one.key) for _, level in levels)]


@dataclass(frozen=True, kw_only=True)
class _BesideRow:
    """A predictor beside others."""

    name: str
    figures: Metrics
    """By patient; empty where there are none."""
    is_model: bool = False
    difference: Figure | None = None
    """The model's AUC less this one's, paired by patient."""
    note: str = ""
    missing: str = ""
    """Why there are no figures."""


def _beside_rows(content: StudyContent) -> Iterator[_BesideRow]:
    """Set the model first, then the other networks, then those baselines that are none of them."""
    yield _BesideRow(name=content.model_name, figures=content.metrics["patient"], is_model=True)
    for other in content.beside:
        yield _BesideRow(name=other.name, figures=other.metrics["patient"], difference=other.auc_difference)
    others = {other.name for other in content.beside}
    for name, baseline in (content.metrics.get("baselines") or {}).items():
        if name not in others:
            yield _BesideRow(
                name=name.replace("_", " "),
                figures=baseline,
                difference=baseline.get("auc_difference"),
                note=baseline.get("note", ""),
                missing=baseline.get("reason", ""),
            )


def _decision_rows(content: StudyContent) -> list[dict[str, Any]]:
    """Say of each operating point which class is called, and by which rule."""
    names = dict(zip(content.slugs, content.classes, strict=True))
    points = (content.metrics["patient"].get("decision") or {}).get("operating_points") or ()
    return [{"point": point, "name": names[point["class"]], "rule": _rule_text(point)} for point in points]


def _rule_text(point: Mapping[str, Any]) -> str:
    if point["rule"] == "sensitivity":
        return f"sensitivity of {share_text(point['wanted'])} asked for"
    false_alarm, missed = point["costs"]["false_positive"], point["costs"]["false_negative"]
    if false_alarm == missed:
        return "both errors cost the same"
    if missed > false_alarm:
        return f"a missed case costs {missed / false_alarm:.3g} false alarms"
    return f"a false alarm costs {false_alarm / missed:.3g} missed cases"


@dataclass(frozen=True, kw_only=True)
class _Confounder:
    """One column of the cohort, by class."""

    column: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """For each value its name and, for each class, how many patients have it."""


def _confounder_rows(content: StudyContent) -> list[_Confounder]:
    """Set the classes' patients beside each other, column by column; what is recorded of nobody is left out."""
    table = content.audit_tables.by_class
    patients = {name: ages["known"] + ages["missing"] for name, ages in table.get("age", {}).items()}
    found = [
        _age_rows(of_class, content.classes)
        if column == "age"
        # Of views, images are counted; of all else patients, of whom some have several values.
        else _counted_rows(column, of_class, content.classes, {} if column == "view" else patients)
        for column, of_class in table.items()
    ]
    return [one for one in found if one.rows]


def _age_rows(of_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> _Confounder:
    def text(name: str) -> str:
        ages = of_class.get(name, {})
        if not ages.get("known"):
            return DASH
        low, median, high = ages["quartiles"]
        return f"{median:.0f} ({low:.0f}{DASH}{high:.0f}), from {ages['least']:.0f} to {ages['greatest']:.0f}"

    missing = tuple(str(of_class.get(name, {}).get("missing", DASH)) for name in classes)
    years = ("median (quartiles), range; years", tuple(text(name) for name in classes))
    return _Confounder(column="age", rows=(years, ("not known", missing)))


def _counted_rows(
    column: str, of_class: Mapping[str, Mapping[str, int]], classes: Sequence[str], whole: Mapping[str, int]
) -> _Confounder:
    """Count each value by class, with its share of the whole class; of all that is counted where that is not said."""
    values = dict.fromkeys(value for name in classes for value in of_class.get(name, {}))
    if set(values) <= {NOT_RECORDED}:
        return _Confounder(column=column, rows=())
    totals = [whole.get(name, sum(of_class.get(name, {}).values())) for name in classes]

    def text(name: str, value: str, total: int) -> str:
        count = of_class.get(name, {}).get(value, 0)
        return f"{count} ({share_text(count / total)})" if total else DASH

    return _Confounder(
        column=column,
        rows=tuple(
            (value, tuple(text(name, value, total) for name, total in zip(classes, totals, strict=True)))
            for value in values
        ),
    )


def _what_was_read(content: StudyContent) -> str:
    """Say what was read of an image, whether a person or the network found the lesion, and what else was told."""
    names = content.settings.get("network.covariates")
    if not isinstance(names, list | tuple) or not names:
        return _region_sentence(content)
    return f"{_region_sentence(content)} Beside the images it was told the patient's {in_words(names)}."


def _region_sentence(content: StudyContent) -> str:
    if len(content.modalities) > 1:
        return _MIX.format(modalities=named_together(content.modalities))
    if content.modalities != ("radiograph",):
        return _PLANES.format(modality=content.modalities[0])
    sentences = _SECOND_LOOKS if content.settings.get("preparation.second_look") else _REGIONS
    return sentences.get(content.metrics.get("roi", "none"), "")


def _known_of_participants(participants: Participants | None) -> list[tuple[str, str, list[Mapping[str, int]]]]:
    """Give what was counted by class: its name, what was counted, and the counts; not what is recorded of nobody."""
    classes = () if participants is None else participants.classes
    columns: list[tuple[str, str, list[Mapping[str, int]]]] = [
        ("Site", "patients", [group.sites for group in classes]),
        ("Level", "patients", [group.levels for group in classes]),
        ("Centre", "patients", [group.centres for group in classes]),
        ("View", "images", [group.views for group in classes]),
    ]
    return [one for one in columns if any(set(counted) - {NOT_RECORDED} for counted in one[2])]


def _prior_sentence(content: StudyContent) -> str:
    """Say under which prior the probabilities are stated, and how frequent the classes were."""
    prior, prevalence = content.metrics["prior"], content.metrics["prevalence"]
    pairs = list(zip(content.classes, content.slugs, strict=True))
    stated = ", ".join(f"{name} {share_text(prior[slug])}" for name, slug in pairs)
    total = sum(prevalence.values())
    found = ", ".join(f"{name} {share_text(prevalence[slug] / total)}" for name, slug in pairs) if total else ""
    return f"Probabilities are stated under the prior {stated}." + (
        f" Among these patients the shares were {found}." if found else ""
    )


def _grouped(settings: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Sort settings by what stands before the first dot of their names."""
    groups: dict[str, dict[str, object]] = {}
    for name, value in settings.items():
        group, dot, rest = name.partition(".")
        groups.setdefault(group if dot else "settings", {})[rest if dot else name] = value
    return groups


def _worst_first(content: StudyContent) -> list[CaseLink]:
    """Sort by the probability given to the recorded diagnosis, least first; cases without one come last."""

    def of_truth(case: CaseLink) -> tuple[float, str]:
        known = case.label in content.classes
        return (case.probabilities[content.classes.index(str(case.label))] if known else 2.0, case.patient)

    return sorted(content.cases, key=of_truth)


def _case_row(case: CaseLink, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "case": case,
        "thumbnail": data_uri(case.thumbnail, "image/png") if case.thumbnail is not None else None,
        "is_wrong": case.label is not None and case.verdict in classes and case.verdict != case.label,
    }


def _check(content: StudyContent) -> None:
    if len(content.classes) != len(content.slugs):
        msg = f"classes and slugs must be as many, got {listed(content.classes)} and {listed(content.slugs)}"
        raise ValueError(msg)
    for case in content.cases:
        if len(case.probabilities) != len(content.classes):
            msg = f"a case must have one probability a class, got {len(case.probabilities)}"
            raise ValueError(msg)
