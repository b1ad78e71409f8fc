"""The block of ``metrics.json``: hand counts, repeats, images, edges, and no figure outside its range."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from osteoscope.evaluation.delong import delong
from osteoscope.evaluation.intervals import group_patients, weight_blocks
from osteoscope.evaluation.metrics import auc_draws
from osteoscope.evaluation.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator

Block = dict[str, Any]
CLASSES = ["osteosarcoma", "giant-cell-tumor"]
IN_RANGE = ("calibration_slope", "calibration_intercept", "log_loss")


def _two(second: np.ndarray | list[float]) -> np.ndarray:
    return np.column_stack([1 - np.asarray(second), second])


def _summary(labels: Any, second: Any, **changes: Any) -> Block:
    given: Block = {
        "labels": labels,
        "probabilities": _two(second),
        "patients": [f"p{i:04}" for i in range(len(labels))],
        "repeats": np.zeros(len(labels), dtype=int),
        "classes": CLASSES,
        "prior": (0.8, 0.2),
        "verdicts": None,
        "draws": 200,
        "seed": 1,
    }
    return summarise(**{**given, **changes})


def _simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.3).astype(int)
    labels[:2] = [0, 1]
    return labels, 1 / (1 + np.exp(-(generator.normal(size=n) + 1.5 * labels - 1.2)))


def _figures(block: Block, name: str = "") -> Iterator[tuple[str, Block]]:
    """Find every figure of a block, with the way to it."""
    if "value" in block:
        yield name, block
        return
    for key, part in block.items():
        if isinstance(part, dict):
            yield from _figures(part, f"{name}.{key}".strip("."))


def _assert_sound(block: Block) -> None:
    json.dumps(block, allow_nan=False)
    figures = dict(_figures(block))
    assert len(figures) >= 30
    for name, figure in figures.items():
        value, low, high = figure["value"], figure["low"], figure["high"]
        assert (low is None) == (high is None), name
        assert ("reason" in figure) == (value is None or low is None), name
        known = [x for x in (low, value, high) if x is not None]
        assert known == sorted(known), name
        if not name.startswith(IN_RANGE):
            assert all(0 <= x <= 1 for x in known), name


def test_figures_of_ten_patients_by_hand() -> None:
    labels = [0] * 6 + [1] * 4
    second = [0.1, 0.2, 0.2, 0.3, 0.6, 0.7, 0.9, 0.8, 0.7, 0.4]
    block = _summary(labels, second, verdicts=[0, 0, 0, -1, -1, 1, 1, 1, 1, -1])
    _assert_sound(block)
    assert (block["n"], block["n_predictions"]) == (10, 10)
    assert block["confusion"] == [[4, 2], [1, 3]]
    # 24 pairs: 0.9, 0.8 beat 6 each; 0.7 beats 5 and ties one; 0.4 beats 4.
    assert block["auc"]["value"] == pytest.approx((6 + 6 + 5.5 + 4) / 24)
    assert block["accuracy"]["value"] == pytest.approx(0.7)
    # Wilson for 7 of 10.
    assert (block["accuracy"]["low"], block["accuracy"]["high"]) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    assert block["balanced_accuracy"]["value"] == pytest.approx((4 / 6 + 3 / 4) / 2)
    gct = CLASSES[1]
    assert (block["sensitivity"][gct]["value"], block["sensitivity"][gct]["n"]) == (0.75, 4)
    # Wilson for 3 of 4.
    ends = (block["sensitivity"][gct]["low"], block["sensitivity"][gct]["high"])
    assert ends == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert (block["specificity"][gct]["value"], block["specificity"][gct]["n"]) == (pytest.approx(4 / 6), 6)
    assert (block["ppv"][gct]["value"], block["ppv"][gct]["n"]) == (pytest.approx(3 / 5), 5)
    assert (block["npv"][gct]["value"], block["npv"][gct]["n"]) == (pytest.approx(4 / 5), 5)
    assert block["f1"][gct]["value"] == pytest.approx(6 / 9)
    assert block["macro"]["f1"]["value"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    squares = [0.01, 0.04, 0.04, 0.09, 0.36, 0.49, 0.01, 0.04, 0.09, 0.36]
    assert block["brier"]["value"] == pytest.approx(sum(squares) / 10)
    assert block["brier_prevalence"]["value"] == pytest.approx(0.24)
    # Saying 0.2 of everyone: 6 x 0.04 and 4 x 0.64.
    assert block["brier_prior"]["value"] == pytest.approx(0.28)
    assert (block["decided"]["value"], block["decided"]["n"]) == (0.7, 10)
    assert (block["accuracy_decided"]["value"], block["accuracy_decided"]["n"]) == (pytest.approx(6 / 7), 7)
    assert block["calibration_class"] == gct


def test_both_classes_of_one_softmax_have_the_same_auc_and_slope_and_opposite_intercepts() -> None:
    block = _summary(*_simulated(60, 0))
    first, second = (block["auc_by_class"][slug] for slug in CLASSES)
    assert first == second == block["auc"]
    by_class = block["auc_delong_by_class"]
    assert by_class[CLASSES[0]] == pytest.approx(by_class[CLASSES[1]]) == block["auc_delong"]
    slopes = [block["calibration_slope_by_class"][slug]["value"] for slug in CLASSES]
    assert slopes[0] == slopes[1] == block["calibration_slope"]["value"]
    intercepts = [block["calibration_intercept_by_class"][slug]["value"] for slug in CLASSES]
    assert intercepts[0] == -intercepts[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [4, 12, 60])
def test_no_figure_leaves_its_range_and_every_interval_holds_its_value(seed: int, n: int) -> None:
    labels, second = _simulated(n, seed)
    verdicts = np.where(np.abs(second - 0.5) < 0.1, -1, second > 0.5)
    _assert_sound(_summary(labels, np.round(second, 1), verdicts=verdicts))


def test_delongs_interval_stands_beside_the_bootstraps() -> None:
    labels, second = _simulated(60, 15)
    names = [f"p{i:04}" for i in range(60)]
    other = np.clip(second + np.random.default_rng(16).normal(scale=0.2, size=60), 0.01, 0.99)
    block = _summary(
        np.tile(labels, 2), np.r_[second, other], patients=names * 2, repeats=np.repeat([0, 1], 60), draws=2000
    )
    alone = delong(np.tile(labels, 2), [np.r_[second, other]], patients=names * 2, repeats=np.repeat([0, 1], 60))
    assert block["auc_delong"] == pytest.approx(alone.figures()[0].to_json())
    assert block["auc_delong"]["value"] == pytest.approx(block["auc"]["value"])
    # Two ways to the same interval.
    assert (block["auc_delong"]["low"], block["auc_delong"]["high"]) == pytest.approx(
        (block["auc"]["low"], block["auc"]["high"]), abs=0.02
    )
    assert "DeLong" in block["intervals"]["delong"]
    assert "BCa" in block["intervals"]["others"]


def test_bca_moves_the_interval_of_a_skewed_figure_away_from_its_end() -> None:
    labels, second = _simulated(80, 17)
    second = np.where(labels == 1, second**0.2, second)
    figure = _summary(labels, second, draws=2000)["auc"]
    groups = group_patients([f"p{i:04}" for i in range(80)], labels)
    drawn = np.concatenate(
        [auc_draws(labels == 1, second, weights) for weights in weight_blocks(groups, draws=2000, seed=1)]
    )
    assert figure["value"] > 0.9
    # The draws of a high AUC lean downwards; BCa reads them so that both ends move.
    assert (figure["low"], figure["high"]) != pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-3)
    assert figure["low"] < np.percentile(drawn, 2.5)


def test_three_classes_are_judged_one_against_the_rest() -> None:
    generator = np.random.default_rng(2)
    labels = np.arange(90) % 3
    probabilities = generator.dirichlet([1, 1, 1], 90)
    probabilities[np.arange(90), labels] += 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = ["a", "b", "c"]
    block = _summary(labels, labels, probabilities=probabilities, classes=classes, prior=(0.5, 0.3, 0.2))
    _assert_sound(block)
    assert block["auc"]["value"] == pytest.approx(np.mean([block["auc_by_class"][c]["value"] for c in classes]))
    assert block["auc_delong"]["value"] == pytest.approx(block["auc"]["value"])
    for slug in classes:
        assert block["auc_delong_by_class"][slug]["value"] == pytest.approx(block["auc_by_class"][slug]["value"])
    assert block["balanced_accuracy"]["value"] == pytest.approx(
        np.mean([block["sensitivity"][c]["value"] for c in classes])
    )
    assert block["brier_prevalence"]["value"] == pytest.approx(1 / 3)
    assert block["calibration_class"] is None


def test_a_figure_that_one_repeat_lacks_says_so() -> None:
    second = [0.9, 0.2, 0.3, 0.1, 0.2, 0.1, 0.3, 0.2]
    block = _summary([1, 1, 0, 0] * 2, second, patients=list("abcd") * 2, repeats=[0] * 4 + [1] * 4)
    rare = block["ppv"][CLASSES[1]]
    assert (rare["value"], rare["n"]) == (None, 1)
    assert rare["reason"] == "in one repeat at least, no case was predicted as this class"


def test_repeats_are_averaged_and_kept_together() -> None:
    labels, second = _simulated(40, 3)
    other = np.clip(second + np.random.default_rng(4).normal(scale=0.2, size=40), 0.01, 0.99)
    names = [f"p{i:04}" for i in range(40)]
    both = _summary(np.tile(labels, 2), np.r_[second, other], patients=names * 2, repeats=np.repeat([0, 1], 40))
    _assert_sound(both)
    single = [_summary(labels, second), _summary(labels, other)]
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "log_loss", "calibration_slope", "ece"):
        expected = np.mean([block[name]["value"] for block in single])
        assert both[name]["value"] == pytest.approx(expected), name
    assert (both["n"], both["n_predictions"]) == (40, 80)
    assert np.sum(both["confusion"]) == 80
    assert both["confusion_counts"] == "predictions, summed over 2 repeats"
    # A repeat that says the same again adds no certainty.
    same = _summary(np.tile(labels, 2), np.r_[second, second], patients=names * 2, repeats=np.repeat([0, 1], 40))
    for name in ("auc", "auc_delong", "brier", "balanced_accuracy"):
        assert same[name] == pytest.approx(single[0][name]), name


def test_curves_and_bins_show_the_mean_over_repeats() -> None:
    labels, names = [0, 1, 0, 1], ["a", "b", "c", "d"]
    # Each repeat has one pair out of order; the means have none.
    block = _summary(
        labels * 2,
        [0.1, 0.5, 0.6, 0.9, 0.1, 0.7, 0.2, 0.6],
        patients=names * 2,
        repeats=[0] * 4 + [1] * 4,
    )
    assert block["auc"]["value"] == pytest.approx((0.75 + 1.0) / 2)
    roc = block["curves"]["giant-cell-tumor"]["roc"]
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(1.0)
    (part,) = block["reliability"]["giant-cell-tumor"]
    assert (part["predicted"], part["observed"], part["n"]) == (pytest.approx(0.4625), 0.5, 4)


def test_views_of_one_patient_are_drawn_together_and_do_not_narrow_the_interval() -> None:
    labels, second = _simulated(40, 5)
    names = [f"p{i:04}" for i in range(40)]
    once = _summary(labels, second)
    thrice = _summary(np.repeat(labels, 3), np.repeat(second, 3), patients=np.repeat(names, 3).tolist())
    _assert_sound(thrice)
    assert (thrice["n"], thrice["n_predictions"]) == (40, 120)
    for name in ("auc", "auc_delong", "brier", "balanced_accuracy", "calibration_slope"):
        assert thrice[name] == pytest.approx(once[name]), name
    assert thrice["sensitivity"]["osteosarcoma"]["n"] == once["sensitivity"]["osteosarcoma"]["n"]
    assert sum(part["n"] for part in thrice["reliability"]["osteosarcoma"]) == 40
    assert "Wilson" in once["intervals"]["proportions"]
    assert "bootstrap" in thrice["intervals"]["proportions"]


def test_a_share_of_views_is_not_taken_for_a_share_of_patients() -> None:
    # Every patient has one view right and one wrong: whoever is drawn, half of the views are right.
    labels = np.repeat([0, 1], 10)
    block = _summary(labels, np.tile([0.1, 0.9], 10), patients=[f"p{i:02}" for i in np.repeat(np.arange(10), 2)])
    assert (block["accuracy"]["value"], block["accuracy"]["low"]) == (0.5, None)
    assert "every draw" in block["accuracy"]["reason"]


def test_a_share_of_one_among_views_still_has_room_below_it() -> None:
    names = [f"p{i:02}" for i in range(20)]
    labels = np.arange(20) % 2
    second = np.where(labels == 1, 0.8, 0.3) + np.linspace(0, 0.1, 20)
    block = _summary(np.repeat(labels, 2), np.repeat(second, 2), patients=np.repeat(names, 2).tolist())
    figure = block["sensitivity"]["osteosarcoma"]
    # Wilson for 10 of 10.
    assert (figure["value"], figure["low"], figure["high"]) == (1.0, pytest.approx(0.7225, abs=1e-4), 1.0)


def test_perfect_separation_is_not_given_a_perfect_interval() -> None:
    labels = np.repeat([0, 1], [30, 10])
    block = _summary(labels, np.linspace(0.1, 0.9, 40) * 0.2 + 0.6 * labels)
    _assert_sound(block)
    assert (block["auc"]["value"], block["auc"]["high"]) == (1.0, 1.0)
    assert block["auc"]["low"] == pytest.approx(0.7225, abs=1e-4)
    assert block["auc_delong"] == block["auc"]
    assert "10 patients" in block["auc"]["note"]
    assert block["calibration_slope"]["value"] is None
    assert "overlap" in block["calibration_slope"]["reason"]


def test_one_class_only_leaves_out_what_takes_two() -> None:
    block = _summary([0] * 5, [0.1, 0.2, 0.3, 0.4, 0.6])
    _assert_sound(block)
    for name in ("auc", "auc_delong", "balanced_accuracy", "calibration_slope", "calibration_intercept"):
        assert block[name]["value"] is None, name
        assert block[name]["reason"], name
    assert block["sensitivity"]["giant-cell-tumor"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "there is no case of this class",
    }
    assert block["sensitivity"]["osteosarcoma"]["value"] == 0.8
    assert block["specificity"]["osteosarcoma"]["value"] is None
    assert block["average_precision"]["giant-cell-tumor"]["value"] is None
    assert block["curves"]["osteosarcoma"]["roc"] == {"false_positive_rate": [], "true_positive_rate": []}
    assert block["brier"]["value"] == pytest.approx((0.01 + 0.04 + 0.09 + 0.16 + 0.36) / 5)


def test_two_patients_give_values_without_pretending_to_intervals() -> None:
    block = _summary([0, 1], [0.2, 0.7])
    _assert_sound(block)
    assert block["auc"]["value"] == 1.0
    assert block["brier"]["value"] == pytest.approx((0.04 + 0.09) / 2)
    assert block["brier"]["low"] is None
    # Wilson for 1 of 1.
    assert block["auc"]["low"] == pytest.approx(0.2065, abs=1e-4)


def test_predictions_that_are_all_the_same_are_worth_nothing() -> None:
    block = _summary([0, 0, 0, 1, 1], [0.4] * 5)
    _assert_sound(block)
    assert block["auc"]["value"] == 0.5
    assert block["ppv"]["giant-cell-tumor"]["value"] is None
    assert block["npv"]["giant-cell-tumor"]["value"] == pytest.approx(0.6)
    assert block["calibration_slope"]["value"] is None


def test_a_figure_that_one_repeat_lacks_is_not_invented_from_the_others() -> None:
    block = _summary([0, 1, 0, 1], [0.2, 0.3, 0.2, 0.8], patients=["a", "b", "a", "b"], repeats=[0, 0, 1, 1])
    assert block["ppv"]["giant-cell-tumor"]["value"] is None
    assert block["npv"]["giant-cell-tumor"]["value"] == pytest.approx((1 / 2 + 1) / 2)


def test_without_verdicts_nothing_is_said_of_them_and_with_none_decided_there_is_no_accuracy() -> None:
    labels, second = _simulated(10, 6)
    block = _summary(labels, second)
    assert (
        block["decided"]["reason"] == block["accuracy_decided"]["reason"] == "no verdicts were given by prediction sets"
    )
    block = _summary(labels, second, verdicts=[-1] * 10)
    _assert_sound(block)
    assert block["decided"]["value"] == 0.0
    assert block["accuracy_decided"]["value"] is None
    assert block["accuracy_decided"]["reason"] == "no case was decided"


def test_neither_the_order_of_the_rows_nor_the_hour_changes_a_byte_but_the_seed_does() -> None:
    labels, second = _simulated(50, 7)
    names = np.array([f"p{i:04}" for i in range(50)])
    order = np.random.default_rng(8).permutation(50)
    first = _summary(labels, second, patients=names.tolist())
    assert json.dumps(first) == json.dumps(_summary(labels, second, patients=names.tolist()))
    shuffled = _summary(labels[order], second[order], patients=names[order].tolist())
    for name in ("auc", "brier", "balanced_accuracy", "sensitivity", "calibration_slope"):
        for (_, ours), (_, theirs) in zip(_figures({name: first[name]}), _figures({name: shuffled[name]}), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6), name
    other = _summary(labels, second, seed=2)
    assert other["auc"]["value"] == first["auc"]["value"]
    assert other["auc"]["low"] != first["auc"]["low"]


def test_the_result_names_no_patient() -> None:
    labels, second = _simulated(20, 9)
    block = _summary(labels, second, patients=[f"secret-{i}" for i in range(20)])
    assert "secret" not in json.dumps(block)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": [[0.5, np.nan], [0.5, 0.5]]}, "finite"),
        ({"probabilities": [[1.5, -0.5], [0.5, 0.5]]}, r"\[0, 1\]"),
        ({"probabilities": [[0.5, 0.4], [0.5, 0.5]]}, "sum to 1"),
        ({"probabilities": [[0.5, 0.5]]}, "labels must have shape"),
        ({"labels": [0, 2]}, r"labels must lie in 0\.\.1"),
        ({"patients": ["a", "a"]}, "one label"),
        ({"patients": ["a"]}, "name is needed"),
        ({"repeats": [0]}, "repeats must have shape"),
        ({"repeats": [0, 1]}, "each repeat must hold all 2 patients"),
        ({"classes": ["a", "b", "c"]}, "2 different slugs"),
        ({"classes": ["a", "a"]}, "2 different slugs"),
        ({"prior": (0.5, 0.6)}, "prior"),
        ({"verdicts": [0, -2]}, r"verdicts must lie in -1\.\.1"),
        ({"verdicts": [0.0, 1.0]}, "verdicts must be integers"),
        ({"draws": 0}, "draw"),
    ],
)
def test_what_is_inconsistent_is_refused(changes: Block, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _summary(**{"labels": [0, 1], "second": [0.2, 0.7], **changes})


def test_sums_off_by_rounding_pass() -> None:
    block = _summary([0, 1], [0.2, 0.7], probabilities=[[0.80004, 0.2], [0.29996, 0.7]])
    assert block["auc"]["value"] == 1.0


def test_four_hundred_patients_with_three_repeats_take_seconds() -> None:
    labels, second = _simulated(1200, 10)
    labels = np.tile(labels[:400], 3)
    start = time.process_time()
    _summary(
        labels, second, patients=[f"p{i:04}" for i in range(400)] * 3, repeats=np.repeat([0, 1, 2], 400), draws=2000
    )
    assert time.process_time() - start < 10
