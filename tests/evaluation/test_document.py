"""What `metrics.json` and the prediction files say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from osteoscope.evaluation.decision import Costs
from osteoscope.evaluation.document import (
    Predictions,
    StudyFacts,
    baseline_block,
    coarsest_block,
    metrics_document,
    predictions_csv,
)

FACTS = StudyFacts(
    classes=("osteosarcoma", "giant cell tumor"),
    slugs=("osteosarcoma", "giant_cell_tumor"),
    prior=(0.5, 0.5),
    roi="none",
    seed=0,
    estimates="nothing",
)


def predictions(second: list[float], labels: list[int], repeats: int = 1) -> Predictions:
    shares = np.tile(np.array(second), repeats)
    return Predictions(
        patients=tuple(f"P{place}" for place in range(len(labels))) * repeats,
        labels=np.tile(np.array(labels), repeats),
        repeats=np.repeat(np.arange(repeats), len(labels)),
        probabilities=np.stack([1 - shares, shares], axis=1),
        verdicts=np.full(len(labels) * repeats, -1),
    )


def test_patients_are_counted_once_however_many_repeats() -> None:
    made = predictions([0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1], repeats=3)
    document = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})
    assert (document["n_patients"], document["n_images"]) == (4, 4)
    assert document["prevalence"] == {"osteosarcoma": 2, "giant_cell_tumor": 2}


def test_images_are_judged_by_themselves() -> None:
    made = predictions([0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1])
    images = replace(predictions([0.2, 0.7, 0.6, 0.9], [0, 0, 1, 1]), patients=("P0", "P1", "P2", "P3"))
    document = metrics_document(FACTS, by_patient=made, by_image=images, localisation={})
    # Of four pairs one is in the wrong order.
    assert (document["patient"]["auc"]["value"], document["image"]["auc"]["value"]) == (1, 0.75)


def test_the_most_probable_class_is_that_of_the_first_repeat() -> None:
    twice = predictions([0.2, 0.6], [0, 1], repeats=2)
    shares = np.array([0.2, 0.6, 0.9, 0.1])
    made = replace(twice, probabilities=np.stack([1 - shares, shares], axis=1))
    assert made.most_probable() == {"P0": 0, "P1": 1}


def test_calibration_is_judged_again_at_the_class_shares_of_the_patients() -> None:
    # Three of the first class to one of the second: odds are multiplied by 1/3.
    second, labels = [0.5, 0.25, 0.1, 0.75], [0, 0, 0, 1]
    made = predictions(second, labels)
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    odds = np.array(second) / (1 - np.array(second)) / 3
    restated = odds / (1 + odds)
    truth = np.array(labels)
    assert level["brier"]["value"] == pytest.approx(((np.array(second) - truth) ** 2).mean())
    assert level["at_class_shares"]["brier"]["value"] == pytest.approx(((restated - truth) ** 2).mean())
    assert level["at_class_shares"]["brier_prior"]["value"] == pytest.approx(0.25 * 0.75)


def test_with_one_class_alone_there_are_no_shares_to_restate_to() -> None:
    made = predictions([0.2, 0.4], [0, 0])
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    assert "at_class_shares" not in level
    assert level["auc"]["value"] is None


def test_the_file_of_predictions_names_classes_and_leaves_unknown_labels_empty() -> None:
    made = Predictions(
        patients=("P0", "P1"),
        labels=np.array([1, -1]),
        repeats=np.array([0, 0]),
        probabilities=np.array([[0.25, 0.75], [0.5, 0.5]]),
        verdicts=np.array([1, -1]),
    )
    assert predictions_csv(made, FACTS.slugs, {"fold": [3, 4]}).splitlines() == [
        "patient,repeat,fold,label,p_osteosarcoma,p_giant_cell_tumor,verdict",
        "P0,0,3,giant_cell_tumor,0.250000,0.750000,giant_cell_tumor",
        "P1,0,4,,0.500000,0.500000,indeterminate",
    ]


def cohort(n: int = 40, *, repeats: int = 2, gap: float = 1.5, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % 4 == 0).astype(int)
    logits = generator.normal(gap * (np.tile(labels, repeats) - 0.5), 1.0)
    made = predictions([0.5] * n, labels.tolist(), repeats)
    shares = 1 / (1 + np.exp(-logits))
    return replace(made, probabilities=np.stack([1 - shares, shares], axis=1))


def test_what_was_not_given_is_not_there() -> None:
    made = cohort()
    document = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})
    assert document["baselines"] == {}
    assert not {"subgroups", "coarsest_grouping", "audit", "accepted"} & document.keys()
    assert document["schema"] == 1
    json.dumps(document, allow_nan=False)


def test_what_was_given_is_taken_over() -> None:
    made, finding = cohort(), {"kind": "k", "severity": "warn", "cases": [], "message": "m"}
    document = metrics_document(
        FACTS,
        by_patient=made,
        by_image=made,
        localisation={},
        baselines={"plain": {"reason": "not trained"}},
        audit=[finding],
        accepted=[],
    )
    assert document["baselines"] == {"plain": {"reason": "not trained"}}
    assert (document["audit"], document["accepted"]) == ([finding], [])


def test_the_parts_sum_to_the_brier_score_however_many_repeats() -> None:
    made = cohort(repeats=3)
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    for block in (level, level["at_class_shares"]):
        part = {name: figure["value"] for name, figure in block["brier_parts"].items()}
        total = part["reliability"] - part["resolution"] + part["uncertainty"] + part["spread"] - part["covariance"]
        assert total == pytest.approx(block["brier"]["value"], abs=1e-12)
        assert block["brier_parts"]["reliability"]["n"] == 40
        assert block["brier_parts"]["reliability"]["low"] is None


def test_decisions_are_judged_at_the_class_shares_with_the_given_costs_and_folds() -> None:
    made = cohort()
    costs = [Costs(slug="giant_cell_tumor", false_positive=1, false_negative=3)]
    folds = np.arange(80) % 40 // 4 % 5
    decision = metrics_document(FACTS, by_patient=made, by_image=made, localisation={}, costs=costs, folds=folds)[
        "patient"
    ]["decision"]
    assert decision["prevalence"] == {"osteosarcoma": 0.75, "giant_cell_tumor": 0.25}
    first, *others = decision["operating_points"]
    # A quarter of the patients, and errors that cost 1 to 3: what costs the same under equal priors.
    assert (first["threshold"], first["threshold_as_stated"]) == pytest.approx((0.25, 0.5))
    assert [point["cross_fitted"] for point in others] == [True] * 4
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    assert first["sensitivity"]["value"] == pytest.approx(level["sensitivity"]["giant_cell_tumor"]["value"])


def test_patients_of_unknown_subgroup_are_a_group_of_their_own() -> None:
    made = cohort()
    sex = {f"P{place}": "female" for place in range(25)}
    groups = metrics_document(FACTS, by_patient=made, by_image=made, localisation={}, subgroups={"sex": sex})[
        "subgroups"
    ]["groupings"]["sex"]["groups"]
    assert {name: block["n"] for name, block in groups.items()} == {"female": 25, "not recorded": 15}


def test_power_is_told_from_the_patients_of_each_class() -> None:
    made = cohort(repeats=3)
    block = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["power"]
    assert block["counts"] == {"osteosarcoma": 30, "giant_cell_tumor": 10}
    assert "30 of osteosarcoma and 10 of giant cell tumor" in block["sentences"][0]


def test_patients_of_one_coarse_group_count_once_with_the_mean_of_their_log_probabilities() -> None:
    made = predictions([0.9, 0.2, 0.3, 0.7, 0.59], [0, 0, 0, 1, 1])
    groups = {"P0": "a", "P1": "a", "P2": "c", "P3": "d", "P4": "e"}
    # 0.9 and 0.2 join to odds of sqrt(9 x 1/4) = 1.5: a probability of 0.6, above the last; their mean is 0.55.
    block = coarsest_block(made, groups, FACTS)
    assert (block["n_groups"], block["n_patients"]) == (4, 5)
    assert block["auc"]["value"] == pytest.approx(3 / 4)
    assert block["auc"]["n"] == 4
    # By patient, 0.9 is above both of the second class, and all others below.
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    assert level["auc"]["value"] == pytest.approx(4 / 6)


def test_groups_are_joined_in_each_repeat_by_itself() -> None:
    made = cohort(20, repeats=2)
    groups = {f"P{place}": f"{place % 4 == 0} {place // 8}" for place in range(20)}
    block = coarsest_block(made, groups, FACTS)
    expected = []
    for repeat in range(2):
        logs: dict[str, list[float]] = {}
        for place in range(20):
            odds = made.probabilities[20 * repeat + place]
            logs.setdefault(groups[f"P{place}"], []).append(float(np.log(odds[1] / odds[0])))
        mean = {name: np.mean(values) for name, values in logs.items()}
        pairs = [mean[a] > mean[b] for a in mean if a.startswith("True") for b in mean if b.startswith("False")]
        expected.append(np.mean(pairs))
    assert block["n_groups"] == len(set(groups.values()))
    assert block["auc"]["value"] == pytest.approx(np.mean(expected))


def test_coarse_groups_that_do_not_fit_are_refused() -> None:
    made = predictions([0.2, 0.8], [0, 1])
    with pytest.raises(ValueError, match="one class, got one with two"):
        coarsest_block(made, {"P0": "a", "P1": "a"}, FACTS)
    with pytest.raises(ValueError, match="every patient must have a coarsest group, got 1 without"):
        coarsest_block(made, {"P0": "a"}, FACTS)


def test_a_baseline_is_judged_as_the_model_is_and_set_beside_it() -> None:
    model, baseline = cohort(seed=1), cohort(seed=2, gap=0.5)
    order = np.random.default_rng(3).permutation(80)
    shuffled = Predictions(
        patients=tuple(baseline.patients[row] for row in order),
        labels=baseline.labels[order],
        repeats=baseline.repeats[order],
        probabilities=baseline.probabilities[order],
        verdicts=baseline.verdicts[order],
    )
    block = baseline_block(model, shuffled, FACTS, note="It sees the age alone.")
    one, other = (
        metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
        for made in (model, baseline)
    )
    assert block["auc"]["value"] == pytest.approx(other["auc"]["value"])
    assert block["auc_difference"]["value"] == pytest.approx(one["auc"]["value"] - other["auc"]["value"])
    assert block["auc_difference"]["low"] < block["auc_difference"]["value"] < block["auc_difference"]["high"]
    assert block["note"] == "It sees the age alone."
    assert "note" not in baseline_block(model, baseline, FACTS)


def test_where_there_are_folds_the_auc_within_them_stands_beside_the_pooled_one() -> None:
    """Of a model that ranks all of a fold rightly, and says more of everybody in the second."""
    made = predictions([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0, 0, 1, 1, 0, 0, 1, 1])
    folds = np.repeat([0, 1], 4)
    level = metrics_document(FACTS, by_patient=made, by_image=made, localisation={}, folds=folds)["patient"]
    assert (level["auc"]["value"], level["auc_within_folds"]["value"]) == (0.75, 1)
    # Rows of a baseline are in its own order, and so are its folds.
    order = np.array([7, 0, 6, 1, 5, 2, 4, 3])
    shuffled = replace(
        made,
        patients=tuple(made.patients[row] for row in order),
        labels=made.labels[order],
        probabilities=made.probabilities[order],
    )
    assert baseline_block(made, shuffled, FACTS, folds=folds[order])["auc_within_folds"]["value"] == 1
    without = metrics_document(FACTS, by_patient=made, by_image=made, localisation={})["patient"]
    assert "auc_within_folds" not in without
    assert "auc_within_folds" not in baseline_block(made, shuffled, FACTS)


def test_a_baseline_of_other_patients_is_refused() -> None:
    model = predictions([0.2, 0.8], [0, 1])
    for other in (predictions([0.2, 0.8, 0.5], [0, 1, 1]), predictions([0.2, 0.8], [0, 1], repeats=2)):
        with pytest.raises(ValueError, match="same patients and repeats"):
            baseline_block(model, other, FACTS)
