"""Figures of subgroups: what is shown, what is withheld, and whether a difference is found."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from osteoscope.evaluation.intervals import wilson
from osteoscope.evaluation.subgroups import subgroups

CLASSES = ("common", "rare")


def judge(labels: Any, second: Any, groups: dict[str, Any], **changes: Any) -> dict[str, Any]:
    truth, shares = np.asarray(labels), np.asarray(second, dtype=float)
    given = {
        "labels": truth,
        "probabilities": np.column_stack([1 - shares, shares]),
        "patients": [f"p{i:04}" for i in range(len(truth))],
        "repeats": np.zeros(len(truth), dtype=int),
        "classes": CLASSES,
        "groupings": {name: [str(group) for group in members] for name, members in groups.items()},
        "draws": 200,
        "permutations": 300,
    }
    groupings: dict[str, Any] = subgroups(**{**given, **changes})["groupings"]
    return groupings


def cohort(n: int, seed: int, gap: float | np.ndarray = 1.5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return labels, 1 / (1 + np.exp(-generator.normal(gap * (labels - 0.5), 1.0)))


def test_a_groups_figures_are_those_of_its_patients_alone() -> None:
    labels, second = cohort(90, 0)
    sex = np.array(["male", "female", "female"])[np.arange(90) % 3]
    groups = judge(labels, second, {"sex": sex})["sex"]["groups"]
    assert list(groups) == ["female", "male"]
    for name, block in groups.items():
        rows = sex == name
        truth, shares = labels[rows], second[rows]
        assert block["n"] == rows.sum()
        assert block["n_by_class"] == {"common": (truth == 0).sum(), "rare": (truth == 1).sum()}
        assert block["auc"]["value"] == pytest.approx(roc_auc_score(truth, shares))
        assert block["auc"]["low"] < block["auc"]["value"] < block["auc"]["high"]
        assert block["brier"]["value"] == pytest.approx(((shares - truth) ** 2).mean())
        for c, slug in enumerate(CLASSES):
            hits = ((shares > 0.5) == c)[truth == c]
            ends = wilson(hits.mean(), len(hits))
            assert block["sensitivity"][slug] == {
                "value": pytest.approx(hits.mean()),
                "low": ends.low,
                "high": ends.high,
                "n": len(hits),
            }
            # Of two classes, the specificity of one is the sensitivity of the other.
            assert block["specificity"][CLASSES[1 - c]] == block["sensitivity"][slug]


def test_under_ten_patients_all_is_withheld_and_the_number_is_said() -> None:
    labels, second = cohort(30, 1)
    site = ["knee"] * 20 + ["hip"] * 9 + ["spine"]
    groups = judge(labels, second, {"site": site})["site"]["groups"]
    assert groups["knee"]["auc"]["value"] is not None
    for name, n in (("hip", 9), ("spine", 1)):
        assert groups[name]["n"] == n
        for figure in (groups[name]["auc"], groups[name]["brier"]):
            assert figure == {
                "value": None,
                "low": None,
                "high": None,
                "n": n,
                "reason": "withheld: fewer than 10 patients",
            }
        assert all(one["value"] is None for one in groups[name]["sensitivity"].values())


def test_a_figure_is_withheld_by_the_patients_that_it_rests_on() -> None:
    labels = np.r_[np.zeros(12, dtype=int), np.ones(4, dtype=int)]
    groups = judge(labels, np.linspace(0.1, 0.9, 16), {"all": ["x"] * 16})["all"]["groups"]["x"]
    assert groups["auc"]["value"] is not None
    assert groups["sensitivity"]["common"]["value"] is not None
    assert groups["sensitivity"]["rare"] | {"value": None, "n": 4} == groups["sensitivity"]["rare"]
    assert groups["specificity"]["common"]["value"] is None
    assert groups["specificity"]["rare"]["n"] == 12


@pytest.mark.parametrize(
    ("rare", "reason"), [(0, "withheld: a class has no patient"), (1, "withheld: a class has a single patient")]
)
def test_without_two_patients_of_each_class_there_is_no_auc(rare: int, reason: str) -> None:
    labels = np.r_[np.zeros(12, dtype=int), np.ones(rare, dtype=int), np.zeros(10, dtype=int), np.ones(10, dtype=int)]
    group = ["poor"] * (12 + rare) + ["rich"] * 20
    block = judge(labels, np.linspace(0.1, 0.9, len(labels)), {"g": group})["g"]
    poor = block["groups"]["poor"]
    assert (poor["auc"]["value"], poor["auc"]["reason"]) == (None, reason)
    assert poor["brier"]["value"] is not None
    assert poor["sensitivity"]["rare"]["n"] == rare
    # With one group left there is nothing to compare.
    assert block["heterogeneity"] == {"reason": "fewer than two groups are large enough for an AUC"}


def test_predictions_that_are_all_alike_have_an_auc_of_chance_and_no_certainty() -> None:
    labels = np.arange(24) % 2
    block = judge(labels, np.full(24, 0.5), {"g": np.arange(24) // 12})["g"]
    auc = block["groups"]["0"]["auc"]
    assert (auc["value"], auc["low"]) == (0.5, None)
    assert auc["reason"] == "no interval: every draw gives the same figure"
    # Nothing differs between the groups, whoever is in them.
    assert block["heterogeneity"]["auc"]["p_value"] == 1.0


def test_a_group_that_is_judged_by_chance_stands_out() -> None:
    scanner = np.arange(120) // 60
    labels, second = cohort(120, 2, gap=np.where(scanner == 1, 3.0, 0.0))
    blocks = judge(labels, second, {"scanner": scanner, "nothing": np.arange(120) // 2 % 2})
    found = blocks["scanner"]["heterogeneity"]
    assert (found["groups"], found["n"], found["permutations"]) == (2, 120, 300)
    assert found["auc"]["p_value"] < 0.02
    assert found["balanced_accuracy"]["p_value"] < 0.02
    assert blocks["nothing"]["heterogeneity"]["auc"]["p_value"] > 0.05


def test_the_p_value_agrees_with_a_naive_permutation() -> None:
    labels, second = cohort(60, 3)
    group = np.array([0, 0, 1, 1, 2, 2])[np.arange(60) % 6]
    second = np.where((group == 2) & (labels == 1), second * 0.6, second)
    generator = np.random.default_rng(4)

    def auc(rows: np.ndarray) -> float:
        return float((second[rows & (labels == 1)][:, None] > second[rows & (labels == 0)]).mean())

    def spread(members: np.ndarray) -> float:
        aucs = np.array([auc(members == g) for g in range(3)])
        # Ten of each class in each group: all weigh alike, 1 / (1/10 + 1/10).
        return float(5 * ((aucs - aucs.mean()) ** 2).sum())

    seen, exceeded = spread(group), 0
    for _ in range(1000):
        shuffled = group.copy()
        for c in range(2):
            shuffled[labels == c] = generator.permutation(shuffled[labels == c])
        exceeded += spread(shuffled) >= seen - 1e-12
    found = judge(labels, second, {"g": group}, permutations=1000)["g"]["heterogeneity"]["auc"]["p_value"]
    # Two estimates of one p-value, each with a standard error of at most 0.016.
    assert found == pytest.approx((1 + exceeded) / 1001, abs=0.06)
    assert 0.02 < found < 0.9


def test_where_groups_do_not_differ_few_tests_say_that_they_do() -> None:
    small = 0
    for seed in range(60):
        labels, second = cohort(48, 100 + seed)
        test = judge(labels, second, {"g": np.arange(48) // 2 % 2}, permutations=99, draws=2)["g"]["heterogeneity"]
        small += test["auc"]["p_value"] <= 0.05
    # 5 % of 60 are expected; 9 or more have a chance of 0.3 %.
    assert small < 9


def test_p_values_are_corrected_for_the_number_of_tests() -> None:
    labels, second = cohort(120, 5, gap=np.where(np.arange(120) < 60, 2.5, 0.0))
    groupings = {"halves": np.arange(120) // 60, "pairs": np.arange(120) // 2 % 2, "tiny": np.arange(120) // 4}
    blocks = judge(labels, second, groupings)
    made = [
        blocks[name]["heterogeneity"][figure] for name in ("halves", "pairs") for figure in ("auc", "balanced_accuracy")
    ]
    ordered, running = sorted(made, key=lambda test: test["p_value"]), 0.0
    for place, test in enumerate(ordered):
        running = max(running, min(1.0, (len(made) - place) * test["p_value"]))
        assert test["p_holm"] == pytest.approx(running)
    assert "reason" in blocks["tiny"]["heterogeneity"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    labels, second = cohort(60, 6)
    group, order = np.arange(60) // 2 % 3, np.random.default_rng(7).permutation(60)
    patients = [f"p{i:04}" for i in range(60)]
    one = judge(labels, second, {"g": group})
    two = judge(labels[order], second[order], {"g": group[order]}, patients=[patients[i] for i in order])
    for name, block in one["g"]["groups"].items():
        assert two["g"]["groups"][name]["auc"] == pytest.approx(block["auc"])
    assert two["g"]["heterogeneity"] == one["g"]["heterogeneity"]


def test_repeats_of_a_patient_stay_together() -> None:
    labels, second = cohort(60, 8)
    group = np.arange(60) // 2 % 2
    once = judge(labels, second, {"g": group})["g"]
    twice = judge(
        np.tile(labels, 2),
        np.tile(second, 2),
        {"g": np.tile(group, 2)},
        patients=[f"p{i:04}" for i in range(60)] * 2,
        repeats=np.repeat([0, 1], 60),
    )["g"]
    for name, block in once["groups"].items():
        assert twice["groups"][name]["n"] == block["n"] == 30
        assert twice["groups"][name]["auc"] == pytest.approx(block["auc"])
    assert twice["heterogeneity"] == once["heterogeneity"]


def test_three_classes() -> None:
    labels = np.arange(90) % 3
    shares = 0.5 * np.eye(3)[labels] + 0.5 * np.random.default_rng(9).dirichlet(np.ones(3), 90)
    block = subgroups(
        labels=labels,
        probabilities=shares,
        patients=[f"p{i:04}" for i in range(90)],
        repeats=np.zeros(90),
        classes=("a", "b", "c"),
        groupings={"g": ["x", "y", "y", "x", "x", "x"] * 15},
        draws=50,
        permutations=50,
    )
    json.dumps(block, allow_nan=False)
    rows = np.array([0, 3, 4, 5])[None] + 6 * np.arange(15)[:, None]
    expected = roc_auc_score(labels[rows.ravel()], shares[rows.ravel()], multi_class="ovr", average="macro")
    assert block["groupings"]["g"]["groups"]["x"]["auc"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("patients", "groups", "message"),
    [
        (["a", "b", "c"], ["x", "y"], "a name is needed for each of 3 rows"),
        (["a", "a", "c"], ["x", "y", "x"], "a patient must be in one group, got 1 patients"),
    ],
)
def test_groups_that_do_not_fit_are_refused(patients: list[str], groups: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge([0, 0, 1], [0.2, 0.3, 0.9], {"g": groups}, patients=patients)


def test_no_grouping_gives_no_groups() -> None:
    assert judge([0, 1], [0.2, 0.9], {}) == {}
