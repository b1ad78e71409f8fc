"""The plots as inline SVG."""

from __future__ import annotations

import re
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from osteoscope.report import figures
from osteoscope.report.content import PlaneWeight
from osteoscope.report.figures import ForestRow
from osteoscope.report.planes import Position

CLASSES = ("osteosarcoma", "giant cell tumor")
SLUGS = ("osteosarcoma", "giant-cell-tumor")
CURVE: dict[str, Any] = {
    "net_benefit": [0.3, 0.25, 0.0],
    "low": [None, 0.2, None],
    "high": [None, 0.31, None],
    "treat_all": [0.3, 0.1, -1.0],
}
SWEEP: list[dict[str, Any]] = [
    {"strength": 4.0, "unit": "px", "auc": {"value": 0.6, "low": 0.48, "high": 0.71, "n": 9}},
    {"strength": 0.0, "unit": "px", "auc": {"value": 0.9, "low": None, "high": None, "n": 9}},
    {"strength": 8.0, "unit": "px", "auc": {"value": None, "low": None, "high": None, "n": 9}},
]
HISTORY: list[dict[str, Any]] = [
    {"repeat": 0, "fold": 0, "epoch": 1, "loss": 0.8, "auc": None},
    {"repeat": 0, "fold": 0, "epoch": 2, "loss": 0.4, "auc": 0.7},
    {"repeat": 0, "fold": 1, "epoch": 1, "loss": 0.6, "auc": None},
    {"repeat": 0, "fold": 1, "epoch": 2, "loss": float("nan"), "auc": 0.9},
]
BINS: list[dict[str, Any]] = [
    {"predicted": 0.2, "observed": 0.1, "low": None, "high": None, "n": 25},
    {"predicted": 0.5, "observed": None, "low": None, "high": None, "n": 0},
    {"predicted": 0.7, "observed": 0.9, "low": 0.71, "high": 0.97, "n": 24},
]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314  our own
    return ["".join(element.itertext()) for element in root.iter("text")]


def plots(metrics: dict[str, Any]) -> list[str]:
    level = metrics["patient"]
    return [
        figures.roc_svg(level, classes=CLASSES, slugs=SLUGS),
        figures.precision_recall_svg(level, classes=CLASSES, slugs=SLUGS, shares=dict.fromkeys(SLUGS, 0.5)),
        figures.confusion_svg(level["confusion"], classes=CLASSES),
        figures.reliability_svg(BINS, name=CLASSES[0]),
        figures.history_svg(HISTORY, quantity="loss", label="loss"),
        figures.decision_svg(CURVE, thresholds=(0.1, 0.3, 0.9), name=CLASSES[0]),
        figures.robustness_svg(SWEEP, name="blur"),
        figures.forest_svg([ForestRow(name="a", figure=level["auc"], is_model=True)], label="AUC"),
        figures.strip_svg([(CLASSES[0], 0.3), (CLASSES[0], 0.31), (CLASSES[1], 1.0)], classes=CLASSES),
    ]


def test_plots_stand_alone_and_are_the_same_bytes_each_time(metrics: dict[str, Any]) -> None:
    first, again = plots(metrics), plots(metrics)
    assert first == again
    for svg in first:
        root = ElementTree.fromstring(svg)  # noqa: S314  our own
        assert root.tag == "svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.get("width") is None
        assert "http" not in svg
        assert "<style" not in svg
        assert "font-family" not in svg
        names = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(names) == len(set(names))
        assert set(re.findall(r"(?:url\(|href=\")#([\w-]+)", svg)) == set(names)


def test_plots_leave_matplotlib_as_it_was(metrics: dict[str, Any]) -> None:
    before = dict(mpl.rcParams)
    plots(metrics)
    assert dict(mpl.rcParams) == before


def test_curves_are_named_with_their_estimate_and_interval(metrics: dict[str, Any]) -> None:
    roc, precision, *_ = plots(metrics)
    assert any("giant cell tumor: AUC 0.86 (0.79–0.91)" in text for text in texts(roc))
    assert any("osteosarcoma: AP 0.89 (0.79–0.96)" in text for text in texts(precision))
    assert "osteosarcoma: AUC 0.86 (0.79–0.91)" in roc.partition(">")[0]


def test_a_class_without_curve_is_left_out(metrics: dict[str, Any]) -> None:
    empty: dict[str, Any] = {
        "roc": {"false_positive_rate": [], "true_positive_rate": []},
        "pr": {"recall": [], "precision": []},
    }
    level = {**metrics["patient"], "curves": {**metrics["patient"]["curves"], SLUGS[0]: empty}}
    for svg in (
        figures.roc_svg(level, classes=CLASSES, slugs=SLUGS),
        figures.precision_recall_svg(level, classes=CLASSES, slugs=SLUGS, shares={}),
    ):
        assert not any("osteosarcoma" in text for text in texts(svg))
        assert any("giant cell tumor" in text for text in texts(svg))


@pytest.mark.parametrize("name", ['a < b & "c"', "$x_1$", "_hidden", "骨肉瘤", "</svg><script>alert(1)</script>"])
def test_a_class_name_is_shown_as_it_is(metrics: dict[str, Any], name: str) -> None:
    svg = figures.roc_svg(metrics["patient"], classes=(name, "other"), slugs=SLUGS)
    assert any(f"{name}: AUC" in text for text in texts(svg))
    assert "<script" not in svg


def test_the_confusion_matrix_has_the_truth_in_its_rows() -> None:
    svg = figures.confusion_svg([[90, 10], [3, 7]], classes=CLASSES)
    root = ElementTree.fromstring(svg)  # noqa: S314  our own
    place = {}
    for element in root.iter("text"):
        x, y = (float(number) for number in re.findall(r"-?[\d.]+", element.get("transform", ""))[-2:])
        place["".join(element.itertext())] = (x, y)
    # First row: 90 %, 10 %; second row: 30 %, 70 %.
    assert place["90 %"][0] < place["10 %"][0]
    assert place["30 %"][0] == pytest.approx(place["90 %"][0], abs=3)
    assert place["90 %"][1] < place["30 %"][1]
    assert place["70 %"][0] > place["30 %"][0]
    assert "giant cell tumor: 3 as osteosarcoma, 7 as giant cell tumor" in svg


def test_many_classes_are_numbered_in_the_confusion_matrix() -> None:
    names = ("first", "second", "third", "a fourth with a longer name")
    svg = figures.confusion_svg([[1, 0, 0, 0]] * 3 + [[0, 0, 0, 0]], classes=names)
    assert {"1", "2", "3", "4", "2 second"} <= set(texts(svg))


def test_there_may_be_more_classes_than_colours(metrics: dict[str, Any]) -> None:
    names = [f"class {place}" for place in range(7)]
    given = metrics["patient"]
    level = {
        part: dict.fromkeys(names, given[part][SLUGS[0]]) for part in ("curves", "auc_by_class", "average_precision")
    }
    for svg in (
        figures.roc_svg(level, classes=names, slugs=names),
        figures.precision_recall_svg(level, classes=names, slugs=names, shares=dict.fromkeys(names, 1 / 7)),
    ):
        assert any("class 6: A" in text for text in texts(svg))


def test_a_decision_curve_says_each_range_in_which_the_model_is_best() -> None:
    curve = {
        "net_benefit": [0.3, 0.1, 0.2, 0.1],
        "low": [None] * 4,
        "high": [None] * 4,
        "treat_all": [0.2] * 2 + [0.1] * 2,
    }
    svg = figures.decision_svg(curve, thresholds=(0.1, 0.2, 0.3, 0.4), name="a")
    assert "best at thresholds of 0.10 to 0.10, 0.30 to 0.30." in svg


def test_a_reliability_diagram_passes_over_empty_bins() -> None:
    svg = figures.reliability_svg(BINS, name="osteosarcoma")
    assert {"25", "24"} <= set(texts(svg))
    assert "predicted 0.70, observed 0.90, n 24" in svg
    assert "predicted 0.50" not in svg


@pytest.mark.parametrize(("most", "told"), [(13, "n 12 to 13 at each point"), (12, "n 12 at each point")])
def test_where_points_are_too_near_to_be_labelled_one_line_says_how_many_they_hold(most: int, told: str) -> None:
    crowded = [
        {"predicted": 0.04 + 0.02 * place, "observed": 0.1, "low": 0.0, "high": 0.3, "n": most if place % 2 else 12}
        for place in range(8)
    ]
    found = texts(figures.reliability_svg(crowded, name="osteosarcoma"))
    assert told in found
    assert not {"12", "13"} & set(found)


def test_training_curves_average_over_the_folds_that_have_a_value() -> None:
    loss = figures.history_svg(HISTORY, quantity="loss", label="training loss")
    # Epoch 1: (0.8 + 0.6) / 2; epoch 2: only one fold is finite.
    assert "training loss by epoch in 2 folds, and their mean, 0.7 at first and 0.4 at last." in loss
    auc = figures.history_svg(HISTORY, quantity="auc", label="AUC")
    assert "0.8 at first and 0.8 at last" in auc


def test_a_forest_names_every_row_with_its_interval_and_survives_a_missing_one() -> None:
    rows = [
        ForestRow(name="model", figure={"value": 0.9, "low": 0.8, "high": 0.95, "n": 9}, is_model=True),
        ForestRow(name="majority", figure={"value": 0.5, "low": None, "high": None, "n": 9}),
        ForestRow(name="broken", figure={"value": None, "low": None, "high": None, "n": 0}),
    ]
    found = texts(figures.forest_svg(rows, label="AUC"))
    assert {"model", "0.90 (0.80–0.95)", "majority", "0.50 (no interval)", "broken", "–"} <= set(found)


def test_points_that_lie_close_together_do_not_cover_each_other() -> None:
    svg = figures.strip_svg([(CLASSES[0], 0.5), (CLASSES[0], 0.5), (CLASSES[0], 0.9)], classes=CLASSES[:1])
    root = ElementTree.fromstring(svg)  # noqa: S314  our own
    # Ticks sit on the axis; what is left are the points.
    heights = [float(use.get("y", "0")) for use in root.iter("use")]
    axis = max(heights)
    points = [height for height in heights if height < axis - 5]
    assert len(points) == 3
    assert len(set(points)) == 2


def test_a_decision_curve_says_where_the_model_is_best() -> None:
    svg = figures.decision_svg(CURVE, thresholds=(0.1, 0.3, 0.9), name="osteosarcoma")
    assert "calling by the model is best at thresholds of 0.30 to 0.30." in svg
    assert {"call everyone", "call no one"} <= {text.strip("\u200b") for text in texts(svg)}
    blind = {**CURVE, "net_benefit": [0.3, 0.1, 0.0], "low": [None] * 3, "high": [None] * 3}
    assert "is best at no threshold." in figures.decision_svg(blind, thresholds=(0.1, 0.3, 0.9), name="x")


def test_a_sweep_is_in_order_of_strength_and_passes_over_what_was_not_measured() -> None:
    svg = figures.robustness_svg(SWEEP, name="blur")
    assert "AUC against the strength of blur. 0: 0.90 (no interval); 4: 0.60 (0.48–0.71)." in svg
    assert "blur (px)" in texts(svg)


def weighed(axis: Literal["x", "y", "z"], *weights: float, lesion: bool = True) -> list[PlaneWeight]:
    """Planes 10 mm apart as a reader leafs, of which the first two are shown and the second shows the lesion."""
    onward = -10.0 if axis == "z" else 10.0
    return [
        PlaneWeight(
            position=Position(axis=axis, mm=number * onward),
            weight=weight,
            is_shown=number < 2,
            has_lesion=lesion and number == 1,
        )
        for number, weight in enumerate(weights)
    ]


@pytest.mark.parametrize(
    ("axis", "label", "rising"),
    [("z", "head  ←  z, mm  →  feet", False), ("x", "right  ←  x, mm  →  left", True),
     ("y", "front  ←  y, mm  →  back", True)],
)  # fmt: skip
def test_planes_are_weighed_in_the_order_in_which_a_reader_leafs(
    axis: Literal["x", "y", "z"], label: str, *, rising: bool
) -> None:
    svg = figures.weights_svg(weighed(axis, 0.1, 0.7, 0.2), name="ct")
    shown = texts(svg)
    assert " ".join(label.split()) in [" ".join(text.split()) for text in shown]
    root = ElementTree.fromstring(svg)  # noqa: S314  our own
    ticks = [(float(one.attrib["x"]), str(one.text).replace("−", "-")) for one in root.iter("text") if one.get("x")]
    numbers = [float(text) for _, text in sorted(ticks) if re.fullmatch(r"-?\d+", text)]
    assert len(numbers) > 2
    assert numbers == sorted(numbers, reverse=not rising)
    legend = [text.strip("\u200b") for text in shown]
    assert {"shown below", "read, not shown", "shows the outlined lesion"} <= set(legend)
    assert re.search(f"{axis} = .?10.0 mm: 70.%; {axis} = .?20.0 mm: 20.%", svg)


def test_a_single_plane_can_be_weighed_and_what_is_not_there_is_not_in_the_legend() -> None:
    shown = " ".join(texts(figures.weights_svg(weighed("z", 1.0, lesion=False), name="ct")))
    assert "shown below" in shown
    assert "not shown" not in shown
    assert "lesion" not in shown
