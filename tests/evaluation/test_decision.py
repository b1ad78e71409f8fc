"""Decision curves and operating points, against counting by hand and naive loops."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from osteoscope.evaluation.decision import Costs, decisions, net_benefit
from osteoscope.evaluation.intervals import draw_patients

CLASSES = ("common", "rare")


def judge(labels: Any, second: Any, **changes: Any) -> dict[str, Any]:
    """Judge two classes' predictions that assume the class shares, unless changed."""
    truth, shares = np.asarray(labels), np.asarray(second, dtype=float)
    given = {
        "labels": truth,
        "probabilities": np.column_stack([1 - shares, shares]),
        "patients": [f"p{i:04}" for i in range(len(truth))],
        "repeats": np.zeros(len(truth), dtype=int),
        "classes": CLASSES,
        "prior": np.bincount(truth, minlength=2) / len(truth) if len(set(truth.tolist())) == 2 else (0.5, 0.5),
        "draws": 200,
    }
    return decisions(**{**given, **changes})


def cohort(n: int, seed: int, *, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Give labels, and probabilities of the second class that are right under `share`."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) < share * n).astype(int)
    logit = generator.normal(1.5 * labels, 1.0) * 1.5 - 1.5**2 / 2 + np.log(share / (1 - share))
    return labels, 1 / (1 + np.exp(-logit))


def points(block: dict[str, Any], slug: str, rule: str) -> list[dict[str, Any]]:
    return [point for point in block["operating_points"] if (point["class"], point["rule"]) == (slug, rule)]


# Curves ---------------------------------------------------------------------------------------------------------------


def test_net_benefit_by_hand() -> None:
    # Of 10: 4 of the class, 3 of them called; 6 others, 2 of them called; at 0.2 a false call costs a quarter.
    assert net_benefit(3 / 4, 4 / 6, prevalence=0.4, threshold=0.2) == pytest.approx(3 / 10 - 2 / 10 * 0.25)


def test_the_curve_counts_calls_at_each_threshold() -> None:
    labels, second = cohort(80, 0)
    block = judge(labels, second)
    for c, slug in enumerate(CLASSES):
        score, truth = (second if c else 1 - second), labels == c
        for place in (4, 29, 49, 79):
            t = block["thresholds"][place]
            called = score >= t
            expected = (called & truth).sum() / 80 - (called & ~truth).sum() / 80 * t / (1 - t)
            curve = block["curves"][slug]
            assert curve["net_benefit"][place] == pytest.approx(expected)
            assert curve["standardised"][place] == pytest.approx(expected / truth.mean())
            everyone = truth.mean() - (1 - truth.mean()) * t / (1 - t)
            assert curve["treat_all"][place] == pytest.approx(everyone)
    assert block["prevalence"] == pytest.approx({"common": 0.7, "rare": 0.3})
    assert block["prevalence_of"] == "these patients"


def test_calling_all_is_worth_nothing_where_the_threshold_is_the_prevalence() -> None:
    labels, second = cohort(80, 1)
    block = judge(labels, second)
    assert block["curves"]["rare"]["treat_all"][block["thresholds"].index(0.3)] == pytest.approx(0.0, abs=1e-12)


def test_a_perfect_predictor_is_worth_the_prevalence_and_a_blind_one_no_more_than_calling_all_or_none() -> None:
    labels, _ = cohort(80, 2)
    perfect = judge(labels, labels * 0.98 + 0.01)["curves"]["rare"]
    assert perfect["standardised"][1:98] == pytest.approx([1.0] * 97)
    blind = judge(labels, np.full(80, 0.3))["curves"]["rare"]
    better = np.maximum(blind["treat_all"], 0.0)
    assert blind["net_benefit"] == pytest.approx(better.tolist(), abs=1e-12)
    # Every draw gives the same: that is not certainty.
    assert set(blind["low"]) == {None}


def test_probabilities_are_restated_from_their_prior_to_the_prevalence() -> None:
    labels = np.array([0, 0, 0, 1] * 5)
    stated = np.tile([0.2, 0.5, 0.7, 0.8], 5)
    block = judge(labels, stated, prior=(0.5, 0.5))
    odds = stated / (1 - stated) / 3
    twin = judge(labels, odds / (1 + odds), prior=(0.75, 0.25))
    assert block["curves"]["rare"]["net_benefit"] == pytest.approx(twin["curves"]["rare"]["net_benefit"])


def test_at_a_stated_prevalence_the_rates_are_weighed_anew() -> None:
    labels, second = cohort(100, 3)
    block = judge(labels, second, prior=(0.7, 0.3), prevalence=(0.95, 0.05))
    odds = second / (1 - second) * (0.05 / 0.95) / (0.3 / 0.7)
    called = odds / (1 + odds) >= 0.1
    hits, false = called[labels == 1].mean(), called[labels == 0].mean()
    expected = 0.05 * hits - 0.95 * false / 9
    assert block["curves"]["rare"]["net_benefit"][block["thresholds"].index(0.1)] == pytest.approx(expected)
    assert block["prevalence_of"] == "as stated"


def test_the_band_is_that_of_a_naive_loop_over_the_same_draws() -> None:
    labels, second = cohort(40, 4)
    block = judge(labels, second, draws=150, seed=5)
    place = block["thresholds"].index(0.4)
    values = []
    for counts in draw_patients(labels, draws=150, seed=5):
        rows = np.repeat(np.arange(40), counts)
        called = second[rows] >= 0.4
        right = (called & (labels[rows] == 1)).sum() / 40
        values.append(right - (called & (labels[rows] == 0)).sum() / 40 * 0.4 / 0.6)
    found = block["curves"]["rare"]["low"][place], block["curves"]["rare"]["high"][place]
    assert found == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


# Points that follow from costs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("false_positive", "false_negative", "threshold"), [(1, 1, 0.5), (1, 3, 0.25), (9, 1, 0.9)])
def test_the_threshold_balances_the_costs(false_positive: float, false_negative: float, threshold: float) -> None:
    costs = Costs(slug="rare", false_positive=false_positive, false_negative=false_negative)
    assert costs.threshold == pytest.approx(threshold)


def test_right_probabilities_cost_least_at_the_threshold_that_follows_from_the_costs() -> None:
    labels, second = cohort(20_000, 6)
    costs = Costs(slug="rare", false_positive=1, false_negative=4)
    (point,) = judge(labels, second, costs=[costs], sensitivities=(), draws=2)["operating_points"]

    def cost(threshold: float) -> float:
        called = second >= threshold
        return float(np.mean(np.where(labels == 1, 4.0 * ~called, 1.0 * called)))

    assert point["expected_cost"]["value"] == pytest.approx(cost(0.2))
    assert all(point["expected_cost"]["value"] < cost(other) for other in (0.1, 0.15, 0.27, 0.4))
    assert point["cost_of_calling_all"] == pytest.approx(0.7)
    assert point["cost_of_calling_none"] == pytest.approx(1.2)


def test_a_point_by_hand() -> None:
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    second = [0.9, 0.8, 0.5, 0.1, 0.7, 0.4, 0.3, 0.2, 0.2, 0.1]
    (point,) = points(judge(labels, second), "rare", "costs")
    assert point["threshold"] == 0.5
    assert point["costs"] == {"false_positive": 1.0, "false_negative": 1.0}
    expected = {"sensitivity": 3 / 4, "specificity": 5 / 6, "ppv": 3 / 4, "npv": 5 / 6, "expected_cost": 0.2}
    for name, value in expected.items():
        assert point[name]["value"] == pytest.approx(value), name
    # Wilson for 3 of 4.
    assert (point["sensitivity"]["low"], point["sensitivity"]["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    counts = [point[name]["n"] for name in ("sensitivity", "specificity", "ppv", "npv")]
    assert counts == [4, 6, 4, 6]
    # For the other class too, whoever is at 0.5 is called: one false call more.
    (mirror,) = points(judge(labels, second), "common", "costs")
    assert mirror["expected_cost"]["value"] == pytest.approx(0.3)


def test_the_threshold_as_stated_calls_the_same_patients() -> None:
    labels, second = cohort(60, 7)
    odds = second / (1 - second) / (0.3 / 0.7)
    stated = odds / (1 + odds)
    block = judge(labels, stated, prior=(0.5, 0.5))
    for point in block["operating_points"]:
        score, truth = (stated, labels == 1) if point["class"] == "rare" else (1 - stated, labels == 0)
        # A rounding above, where the threshold is a patient's own probability.
        called = score >= point["threshold_as_stated"] - 1e-12
        assert called[truth].mean() == pytest.approx(point["sensitivity"]["value"])


# Points that follow from a sensitivity --------------------------------------------------------------------------------


def naive_threshold(scores: np.ndarray, wanted: float) -> float:
    return float(max(t for t in scores if (scores >= t).mean() >= wanted))


def test_without_folds_the_sensitivity_is_reached_on_these_very_patients_and_that_is_said() -> None:
    labels, second = cohort(100, 8)
    for wanted, point in zip((0.9, 0.95), points(judge(labels, second), "rare", "sensitivity"), strict=True):
        assert point["cross_fitted"] is False
        assert point["threshold"] == pytest.approx(naive_threshold(second[labels == 1], wanted))
        assert point["sensitivity"]["value"] >= wanted
        assert point["sensitivity"]["value"] - 1 / 30 < wanted


def test_with_folds_each_threshold_is_chosen_on_the_other_folds() -> None:
    labels, second = cohort(100, 9)
    folds = np.arange(100) % 5
    point = points(judge(labels, second, folds=folds), "rare", "sensitivity")[0]
    called, chosen = np.zeros(100, dtype=bool), []
    for fold in range(5):
        threshold = naive_threshold(second[(labels == 1) & (folds != fold)], 0.9)
        called[folds == fold] = second[folds == fold] >= threshold
        chosen.append(threshold)
    assert point["cross_fitted"] is True
    assert point["sensitivity"]["value"] == pytest.approx(called[labels == 1].mean())
    assert point["specificity"]["value"] == pytest.approx(1 - called[labels == 0].mean())
    assert point["thresholds"] == pytest.approx({"low": min(chosen), "high": max(chosen)})


def test_ten_times_nine_tenths_is_nine() -> None:
    labels = np.repeat([1, 0], 10)
    second = np.r_[np.arange(10) / 20 + 0.3, np.full(10, 0.2)]
    assert points(judge(labels, second), "rare", "sensitivity")[0]["threshold"] == pytest.approx(0.35)


def test_a_fold_that_holds_all_patients_of_a_class_has_no_threshold_to_learn() -> None:
    labels, second = cohort(20, 10)
    block = judge(labels, second, folds=np.where(labels == 1, 0, 1))
    (point, _) = points(block, "rare", "sensitivity")
    assert point == {
        "class": "rare",
        "rule": "sensitivity",
        "wanted": 0.9,
        "reason": "a fold leaves no patient of the class to choose on",
    }


# Repeats, classes, edges ----------------------------------------------------------------------------------------------


def test_repeats_are_averaged_and_stay_with_their_patient() -> None:
    labels, second = cohort(50, 11)
    once = judge(labels, second)
    twice = judge(
        np.tile(labels, 2),
        np.tile(second, 2),
        patients=[f"p{i:04}" for i in range(50)] * 2,
        repeats=np.repeat([0, 1], 50),
    )
    assert twice["curves"] == {
        slug: {name: pytest.approx(values) for name, values in curve.items()} for slug, curve in once["curves"].items()
    }
    first, second_ = (points(block, "rare", "costs")[0] for block in (once, twice))
    assert second_["ppv"] == pytest.approx(first["ppv"])
    # Two rows a patient are no plain proportion: the interval is the bootstrap's.
    assert second_["sensitivity"]["value"] == pytest.approx(first["sensitivity"]["value"])
    assert second_["sensitivity"]["low"] != pytest.approx(first["sensitivity"]["low"])


def test_of_three_classes_each_stands_against_the_rest() -> None:
    labels = np.arange(60) % 3
    shares = 0.6 * np.eye(3)[labels] + 0.4 * np.random.default_rng(12).dirichlet(np.ones(3), 60)
    block = decisions(
        labels=labels,
        probabilities=shares,
        patients=[f"p{i:04}" for i in range(60)],
        repeats=np.zeros(60),
        classes=("a", "b", "c"),
        prior=(1 / 3,) * 3,
        draws=50,
    )
    point = points(block, "b", "costs")[0]
    assert point["sensitivity"]["value"] == pytest.approx((shares[labels == 1, 1] >= 0.5).mean())
    assert "threshold_as_stated" not in point
    assert len(block["operating_points"]) == 9


def test_a_perfect_predictive_value_is_as_sure_as_the_few_who_were_called() -> None:
    labels = [1] * 40 + [0] * 160
    second = [0.9] * 3 + [0.3] * 37 + [0.1] * 160
    (point,) = points(judge(labels, second), "rare", "costs")
    # Wilson for 3 of 3: 3 / (3 + 1.96^2).
    assert (point["ppv"]["value"], point["ppv"]["n"]) == (1.0, 3)
    assert (point["ppv"]["low"], point["ppv"]["high"]) == pytest.approx((0.4385, 1.0), abs=1e-4)


def test_where_no_one_is_called_there_is_no_predictive_value() -> None:
    labels = [0, 0, 0, 1, 1]
    (point,) = points(judge(labels, [0.4] * 5), "rare", "costs")
    assert point["ppv"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "no case was predicted as this class",
    }
    assert point["npv"]["value"] == pytest.approx(0.6)


def test_the_block_is_plain_json() -> None:
    labels, second = cohort(30, 13)
    json.dumps(judge(labels, second, folds=np.arange(30) % 3), allow_nan=False)


def test_two_patients_get_no_interval_but_wilsons() -> None:
    (point,) = points(judge([0, 1], [0.2, 0.9]), "rare", "costs")
    assert point["sensitivity"]["low"] < 0.21
    assert point["expected_cost"]["low"] is None
    assert point["expected_cost"]["reason"] == "no interval: every draw gives the same figure"


def test_one_class_alone_gives_a_reason() -> None:
    assert judge([1, 1], [0.2, 0.9]) == {"reason": "a class has no patient"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensitivities": (0.0,)}, "sensitivity asked for"),
        ({"sensitivities": (1.1,)}, "sensitivity asked for"),
        ({"costs": [Costs(slug="other", false_positive=1, false_negative=1)]}, "costs must be of the classes"),
        ({"folds": [0, 1]}, "folds must be integers"),
        ({"folds": [0.5] * 4}, "folds must be integers"),
        ({"prior": (1.0, 0.0)}, "prior must be positive"),
        ({"prevalence": (0.5, 0.6)}, "sum to 1"),
        ({"probabilities": [[0.5, 0.6]] * 4}, "sum to 1"),
        ({"patients": ["a", "a", "b", "c"]}, "one label"),
        ({"patients": ["a", "b", "c", "c"], "folds": [0, 1, 0, 1]}, "one fold of a repeat"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge([0, 1, 1, 1], [0.2, 0.8, 0.6, 0.4], **changes)


@pytest.mark.parametrize("cost", [0.0, -1.0, np.inf, np.nan])
def test_a_cost_is_positive(cost: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Costs(slug="rare", false_positive=cost, false_negative=1)
