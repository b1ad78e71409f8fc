"""Differences of two predictors, all pairs of several, the best of them, and arms with several seeds."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from osteoscope.evaluation.compare import compare_predictors, crossed_bootstrap, paired_difference
from osteoscope.evaluation.intervals import draw_patients
from osteoscope.evaluation.metrics import auc_score
from osteoscope.evaluation.significance import mcnemar, paired_delong, paired_permutation


def _cohort(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return labels, generator.normal(size=n) + labels, [f"p{i:04}" for i in range(n)]


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    value = auc_score(labels == 1, scores)
    assert value is not None
    return value


def _two(scores: np.ndarray) -> np.ndarray:
    second = 1 / (1 + np.exp(0.5 - scores))
    return np.column_stack([1 - second, second])


def test_the_value_is_the_difference_of_the_two_aucs() -> None:
    labels, scores, patients = _cohort(60, 0)
    worse = scores + np.random.default_rng(1).normal(size=60)
    figure = paired_difference(labels, scores, worse, patients=patients, draws=300)
    first, second = auc_score(labels == 1, scores), auc_score(labels == 1, worse)
    assert first is not None
    assert second is not None
    assert figure.value == pytest.approx(first - second)
    assert figure.n == 60
    assert figure.low is not None
    assert figure.high is not None
    turned = paired_difference(labels, worse, scores, patients=patients, draws=300)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-(first - second), -figure.high, -figure.low))


def test_the_interval_is_that_of_a_naive_loop_over_the_same_draws() -> None:
    labels, scores, patients = _cohort(30, 2)
    worse = scores + np.random.default_rng(3).normal(size=30)
    figure = paired_difference(labels, scores, worse, patients=patients, draws=200, seed=9)

    def difference(rows: np.ndarray) -> float:
        return _auc(labels[rows], scores[rows]) - _auc(labels[rows], worse[rows])

    everyone = np.arange(30)
    drawn = np.array([difference(np.repeat(everyone, c)) for c in draw_patients(labels, draws=200, seed=9)])
    value = difference(everyone)
    # BCa, step by step: bias from the draws, acceleration from leaving out patients of one class, then of the other.
    bias = norm.ppf(((drawn < value - 1e-9) + (np.abs(drawn - value) < 1e-9) / 2).mean())
    moves = [[difference(np.delete(everyone, gone)) for gone in everyone[labels == stratum]] for stratum in (0, 1)]
    influences = [14 * (np.mean(part) - np.array(part)) for part in moves]
    cubes = sum((part**3).sum() / 15**3 for part in influences)
    squares = sum((part**2).sum() / 15**2 for part in influences)
    fast = cubes / squares**1.5 / 6
    levels = [norm.cdf(bias + (bias + z) / (1 - fast * (bias + z))) for z in (-1.959964, 1.959964)]
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(drawn, levels)))


def test_pairing_narrows_the_interval_of_two_predictors_that_err_alike() -> None:
    labels, scores, patients = _cohort(100, 4)
    alike = scores + 0.1 * np.random.default_rng(5).normal(size=100)
    apart = np.random.default_rng(6).normal(size=100) + labels

    def width(other: np.ndarray) -> float:
        figure = paired_difference(labels, scores, other, patients=patients, draws=500)
        assert figure.low is not None
        assert figure.high is not None
        return figure.high - figure.low

    assert width(alike) < 0.4 * width(apart)


def test_a_clear_gain_excludes_zero_and_none_does_not() -> None:
    labels, scores, patients = _cohort(200, 7)
    noise = np.random.default_rng(8).normal(size=200)
    gain = paired_difference(labels, scores + labels, noise, patients=patients, draws=500)
    assert gain.low is not None
    assert gain.low > 0
    twin = paired_difference(labels, noise, np.random.default_rng(9).normal(size=200), patients=patients, draws=500)
    assert twin.low is not None
    assert twin.high is not None
    assert twin.low < 0 < twin.high


def test_a_predictor_against_itself_differs_by_nothing() -> None:
    labels, scores, patients = _cohort(20, 10)
    figure = paired_difference(labels, scores, scores, patients=patients, draws=50)
    assert figure.value == 0.0
    assert figure.reason is not None


def test_views_and_repeats_of_a_patient_stay_together() -> None:
    labels, scores, patients = _cohort(40, 11)
    worse = scores + np.random.default_rng(12).normal(size=40)
    once = paired_difference(labels, scores, worse, patients=patients, draws=200)
    twice = paired_difference(
        np.tile(labels, 2),
        np.tile(scores, 2),
        np.tile(worse, 2),
        patients=patients * 2,
        repeats=np.repeat([0, 1], 40),
        draws=200,
    )
    assert (once.value, once.low, once.high, once.n) == pytest.approx((twice.value, twice.low, twice.high, twice.n))


def test_repeats_are_averaged() -> None:
    labels, scores, patients = _cohort(40, 14)
    worse = scores + np.random.default_rng(15).normal(size=40)
    # In the second repeat the two change places, so that on average they differ by nothing.
    figure = paired_difference(
        np.tile(labels, 2),
        np.r_[scores, worse],
        np.r_[worse, scores],
        patients=patients * 2,
        repeats=np.repeat([0, 1], 40),
        draws=50,
    )
    assert figure.value == pytest.approx(0.0, abs=1e-12)
    assert paired_difference(labels, scores, worse, patients=patients, draws=50).value != pytest.approx(0.0, abs=1e-3)


def test_probabilities_of_several_classes_are_compared_by_their_mean_auc() -> None:
    generator = np.random.default_rng(13)
    labels = np.arange(60) % 3
    good = np.eye(3)[labels] + 0.5 * generator.random((60, 3))
    bad = generator.random((60, 3))
    figure = paired_difference(labels, good, bad, patients=[str(i) for i in range(60)], draws=100)
    expected = [(auc_score(labels == c, good[:, c]) or 0) - (auc_score(labels == c, bad[:, c]) or 0) for c in range(3)]
    assert figure.value == pytest.approx(np.mean(expected))


def test_one_class_has_no_difference() -> None:
    figure = paired_difference([1, 1], [0.1, 0.2], [0.3, 0.1], patients=["a", "b"], draws=10)
    assert figure.value is None
    assert figure.reason == "it takes cases of every class"


@pytest.mark.parametrize(
    ("second", "repeats", "message"),
    [
        ([0.1, np.nan], None, "finite"),
        ([0.1], None, "same rows"),
        ([[0.2, 0.3, 0.5]] * 2, None, "same rows"),
        ([0.1, 0.2], [0], "repeats"),
    ],
)
def test_scores_that_do_not_fit_are_refused(second: list[float], repeats: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference([0, 1], [0.1, 0.2], second, patients=["a", "b"], repeats=repeats)


# Several predictors ---------------------------------------------------------------------------------------------------


def _rivals(n: int, seed: int, noises: dict[str, float]) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Predictors of one cohort by name, each with its own amount of noise."""
    labels, scores, patients = _cohort(n, seed)
    generator = np.random.default_rng(seed + 1000)
    return labels, {name: _two(scores + s * generator.normal(size=n)) for name, s in noises.items()}, patients


def _compared(n: int = 60, **changes: Any) -> dict[str, Any]:
    labels, rivals, patients = _rivals(n, 20, {"network": 0.3, "clinical": 1.5, "geometry": 3.0})
    given: dict[str, Any] = {"patients": patients, "draws": 300, "permutations": 199, **changes}
    return compare_predictors(labels, rivals, **given)


def test_every_pair_is_compared_in_every_way() -> None:
    labels, rivals, patients = _rivals(60, 20, {"network": 0.3, "clinical": 1.5, "geometry": 3.0})
    block = _compared()
    json.dumps(block, allow_nan=False)
    assert block["n"] == 60
    assert [(pair["first"], pair["second"]) for pair in block["pairs"]] == list(combinations(rivals, 2))
    for name, table in rivals.items():
        value = pytest.approx(_auc(labels, table[:, 1]))
        assert block["predictors"][name]["auc"]["value"] == value
        assert block["predictors"][name]["auc_delong"]["value"] == value
    for pair in block["pairs"]:
        a, b = rivals[pair["first"]], rivals[pair["second"]]
        alone = paired_difference(labels, a, b, patients=patients, draws=300)
        assert pair["auc_difference"] == pytest.approx(alone.to_json())
        assert pair["auc_difference_delong"]["value"] == pytest.approx(alone.value)
        tests = pair["tests"]
        assert list(tests) == [
            "delong",
            "mcnemar",
            "permutation_auc",
            "permutation_balanced_accuracy",
            "permutation_brier",
        ]
        assert tests["delong"]["p_value"] == pytest.approx(paired_delong(labels, a, b).p_value)
        by_class = mcnemar(labels, a.argmax(axis=1), b.argmax(axis=1), classes=2)
        assert tests["mcnemar"]["p_value"] == by_class.p_value
        brier = paired_permutation(labels, a, b, measure="brier", permutations=199)
        assert tests["permutation_brier"]["p_value"] == brier.p_value


def test_each_kind_of_test_is_corrected_over_all_pairs() -> None:
    block = _compared()
    for kind in ("delong", "mcnemar", "permutation_auc", "permutation_balanced_accuracy", "permutation_brier"):
        tests = [pair["tests"][kind] for pair in block["pairs"]]
        ranked = sorted(tests, key=lambda test: test["p_value"])
        # Holm by hand: times 3, 2 and 1 in order, never below the one before, at most 1.
        least = 0.0
        for factor, test in zip((3, 2, 1), ranked, strict=True):
            least = max(least, min(1.0, factor * test["p_value"]))
            assert test["p_holm"] == pytest.approx(least), kind


def test_repeats_and_images_of_a_patient_count_once() -> None:
    labels, rivals, patients = _rivals(40, 21, {"a": 0.3, "b": 1.5})
    once = compare_predictors(labels, rivals, patients=patients, draws=200, permutations=99)
    twice = compare_predictors(
        np.tile(labels, 2),
        {name: np.tile(table, (2, 1)) for name, table in rivals.items()},
        patients=patients * 2,
        repeats=np.repeat([0, 1], 40),
        draws=200,
        permutations=99,
    )
    (first,), (second,) = once["pairs"], twice["pairs"]
    assert first["auc_difference"] == pytest.approx(second["auc_difference"])
    for kind, test in first["tests"].items():
        assert test["p_value"] == pytest.approx(second["tests"][kind]["p_value"]), kind
    assert once["best"]["auc_corrected"] == pytest.approx(twice["best"]["auc_corrected"])


def test_mcnemar_takes_the_mean_probability_of_a_patients_repeats() -> None:
    # By the mean b is right of all six; by either repeat alone it is wrong of some.
    labels = [0, 1] * 3
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]] * 3), np.array([[0.4, 0.6], [0.6, 0.4]] * 3)
    block = compare_predictors(
        labels * 2,
        {"a": np.vstack([wrong, wrong]), "b": np.vstack([right, wrong])},
        patients=list("uvwxyz") * 2,
        repeats=np.repeat([0, 1], 6),
        draws=20,
        permutations=9,
    )
    # Six of six: 2 / 64, less 1 / 64 for the mid-p-value.
    assert block["pairs"][0]["tests"]["mcnemar"]["p_value"] == pytest.approx(1 / 64)


def test_the_best_is_picked_on_each_draw_and_scored_on_those_left_out() -> None:
    labels, rivals, patients = _rivals(40, 22, {"a": 1.0, "b": 1.0, "c": 1.0})
    best = compare_predictors(labels, rivals, patients=patients, draws=100, permutations=1)["best"]
    names, held, picks = list(rivals), [], []
    for counts in draw_patients(labels, draws=100, seed=0):
        inside, outside = np.repeat(np.arange(40), counts), np.flatnonzero(counts == 0)
        seen = [_auc(labels[inside], rivals[name][inside, 1]) for name in names]
        picks.append(int(np.argmax(np.round(seen, 12))))
        held.append(_auc(labels[outside], rivals[names[picks[-1]]][outside, 1]))
    assert best["auc_corrected"]["value"] == pytest.approx(np.mean(held))
    ends = (best["auc_corrected"]["low"], best["auc_corrected"]["high"])
    assert ends == pytest.approx(tuple(np.percentile(held, [2.5, 97.5])))
    assert best["picked"] == {name: picks.count(place) / 100 for place, name in enumerate(names)}
    assert best["auc"]["value"] == max(_auc(labels, table[:, 1]) for table in rivals.values())


def test_the_best_of_many_that_guess_is_corrected_towards_chance() -> None:
    excess, corrected = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        labels = np.arange(40) % 2
        rivals = {f"guess {i}": _two(generator.normal(size=40)) for i in range(8)}
        patients = [str(i) for i in range(40)]
        best = compare_predictors(labels, rivals, patients=patients, draws=100, permutations=1)["best"]
        excess.append(best["auc"]["value"] - 0.5)
        corrected.append(best["auc_corrected"]["value"] - 0.5)
    assert np.mean(excess) > 0.08
    assert abs(np.mean(corrected)) < 0.05


def test_one_class_only_compares_what_it_can() -> None:
    _, rivals, patients = _rivals(10, 23, {"a": 0.3, "b": 1.5})
    block = compare_predictors([1] * 10, rivals, patients=patients, draws=20, permutations=9)
    json.dumps(block, allow_nan=False)
    (pair,) = block["pairs"]
    assert block["best"] is None
    assert pair["auc_difference"]["value"] is None
    for kind in ("delong", "permutation_balanced_accuracy"):
        assert pair["tests"][kind]["p_value"] is None
        assert pair["tests"][kind]["reason"]
        assert pair["tests"][kind]["p_holm"] is None
    assert pair["tests"]["permutation_brier"]["p_holm"] is not None


def test_two_patients_are_not_enough_for_a_corrected_best() -> None:
    table = _two(np.array([0.1, 0.9]))
    best = compare_predictors([0, 1], {"a": table, "b": table}, patients=["u", "v"], draws=20, permutations=9)["best"]
    assert best["auc_corrected"]["value"] is None
    assert "leave out no patient" in best["auc_corrected"]["reason"]


def test_the_comparison_names_no_patient() -> None:
    assert "p0001" not in json.dumps(_compared(draws=20))


def test_a_single_predictor_or_no_distribution_is_refused() -> None:
    labels, rivals, patients = _rivals(10, 24, {"a": 0.3, "b": 1.5})
    with pytest.raises(ValueError, match="at least two predictors"):
        compare_predictors(labels, {"a": rivals["a"]}, patients=patients)
    with pytest.raises(ValueError, match="sum to 1"):
        compare_predictors(labels, {"a": rivals["a"], "b": rivals["b"] / 2}, patients=patients)
    with pytest.raises(ValueError, match="probabilities must have shape"):
        compare_predictors(labels, {"a": rivals["a"], "b": rivals["b"][:, 1]}, patients=patients)


# Arms with several seeds ----------------------------------------------------------------------------------------------


def test_an_arm_is_the_mean_of_its_seeds() -> None:
    labels, scores, patients = _cohort(40, 30)
    generator = np.random.default_rng(31)
    arms = {name: scores + generator.normal(size=(count, 40)) for name, count in (("a", 3), ("b", 2))}
    block = crossed_bootstrap(labels, arms, patients=patients, draws=200)
    json.dumps(block, allow_nan=False)
    by_seed = {name: [_auc(labels, s) for s in table] for name, table in arms.items()}
    assert block["seeds"] == {"a": 3, "b": 2}
    for name, values in by_seed.items():
        assert block["arms"][name]["auc_by_seed"] == pytest.approx(values)
        assert block["arms"][name]["auc"]["value"] == pytest.approx(np.mean(values))
    (difference,) = block["differences"]
    assert difference["auc_difference"]["value"] == pytest.approx(np.mean(by_seed["a"]) - np.mean(by_seed["b"]))
    assert difference["auc_difference"]["low"] < difference["auc_difference"]["high"]


def test_seeds_that_do_not_differ_leave_the_patients_chance() -> None:
    labels, scores, patients = _cohort(40, 32)
    block = crossed_bootstrap(labels, {"a": np.tile(scores, (4, 1))}, patients=patients, draws=300, seed=5)
    drawn = [
        _auc(labels[rows], scores[rows])
        for rows in (np.repeat(np.arange(40), counts) for counts in draw_patients(labels, draws=300, seed=5))
    ]
    figure = block["arms"]["a"]["auc"]
    assert (figure["low"], figure["high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_patients_that_do_not_differ_leave_the_seeds_chance() -> None:
    # The first seed parts the classes, the others say the same of everyone: AUC 1, 1/2, 1/2 whoever is drawn.
    labels = np.arange(20) % 2
    seeds = np.stack([labels, np.zeros(20), np.zeros(20)]).astype(float)
    figure = crossed_bootstrap(labels, {"a": seeds}, draws=4000)["arms"]["a"]["auc"]
    # Two of three seeds: both the first in one of nine draws, none of them the first in four.
    assert (figure["value"], figure["low"], figure["high"]) == (pytest.approx(2 / 3), 0.5, 1.0)
    # Five of six, of which one is good: at most three times in 97.5 % of draws, since P(4 or more) = 0.33 %.
    many = np.vstack([labels, np.zeros((5, 20))]).astype(float)
    figure = crossed_bootstrap(labels, {"a": many}, draws=4000)["arms"]["a"]["auc"]
    assert (figure["low"], figure["high"]) == (0.5, pytest.approx(0.5 + 3 / 5 / 2))


def test_seeds_that_arms_share_cancel_out() -> None:
    labels = np.arange(20) % 2
    seeds = np.stack([labels, np.zeros(20), np.zeros(20)]).astype(float)
    arms = {"a": seeds, "b": seeds}
    (shared,) = crossed_bootstrap(labels, arms, same_seeds=True, draws=200)["differences"]
    assert shared["auc_difference"]["value"] == 0.0
    assert "every draw" in shared["auc_difference"]["reason"]
    (apart,) = crossed_bootstrap(labels, arms, draws=2000)["differences"]
    assert apart["auc_difference"]["low"] == -0.5
    assert apart["auc_difference"]["high"] == 0.5


def test_one_seed_that_stands_out_does_not_make_a_gain() -> None:
    labels, scores, patients = _cohort(200, 33)
    generator = np.random.default_rng(34)
    plain = scores + generator.normal(size=(5, 200))
    lucky = plain.copy()
    lucky[0] += 3 * labels
    alone = paired_difference(labels, lucky[0], plain[1], patients=patients, draws=300)
    assert alone.low is not None
    assert alone.low > 0
    (crossed,) = crossed_bootstrap(labels, {"a": lucky, "b": plain}, patients=patients)["differences"]
    assert crossed["auc_difference"]["low"] < 0 < crossed["auc_difference"]["high"]


def test_probabilities_of_arms_are_taken_too() -> None:
    labels, scores, _ = _cohort(30, 35)
    tables = np.stack([_two(scores), _two(scores + 0.1)])
    block = crossed_bootstrap(labels, {"a": tables}, draws=50)
    assert block["arms"]["a"]["auc_by_seed"] == pytest.approx([_auc(labels, scores)] * 2)


def test_arms_of_one_class_have_no_auc() -> None:
    block = crossed_bootstrap([1, 1], {"a": [[0.1, 0.2], [0.3, 0.1]]}, draws=10)
    assert block["arms"]["a"]["auc_by_seed"] == [None, None]
    assert block["arms"]["a"]["auc"]["reason"] == "it takes cases of every class"


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ({}, {}, "at least two seeds"),
        ({"a": [[0.1, 0.2]]}, {}, "at least two seeds"),
        ({"a": [[0.1, 0.2]] * 2, "b": [[0.1, 0.2]] * 3}, {"same_seeds": True}, "as many"),
        ({"a": [[0.1, np.nan]] * 2}, {}, "finite"),
        ({"a": [0.1, 0.2]}, {}, "of shape"),
        ({"a": [[0.1, 0.2, 0.3]] * 2}, {}, "labels must have shape"),
    ],
)
def test_arms_that_do_not_fit_are_refused(arms: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap([0, 1], arms, **options)
