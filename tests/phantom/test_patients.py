"""Patients are drawn as published, and their likelihood ratio is the exact one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.multitest import multipletests

from osteoscope.evaluation.delong import delong
from osteoscope.phantom.patients import (
    ATTRIBUTES,
    CENTRES,
    LABELS,
    VERTEBRAE,
    Attributes,
    Patient,
    draw_attributes,
    draw_patient,
    draw_patients,
    log_density,
    log_likelihood_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COUNT = 2000
OS, GCT = LABELS


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return draw_patients(COUNT, seed=20240601)


def of(patients: Sequence[Patient], label: str) -> list[Attributes]:
    return [patient.attributes for patient in patients if patient.label == label]


# Marginals ------------------------------------------------------------------------------------------------------------


def share_test(found: Sequence[bool], published: float) -> float:
    return float(stats.binomtest(sum(found), len(found), published).pvalue)


def counts_test(found: Sequence[Any], published: dict[Any, float]) -> float:
    counts = Counter(found)
    assert set(counts) <= set(published)
    total = sum(published.values())
    expected = [len(found) * weight / total for weight in published.values()]
    return float(stats.chisquare([counts[value] for value in published], expected).pvalue)


def median_test(found: Sequence[float], published: float) -> float:
    return share_test([value < published for value in found], 0.5)


def mean_test(found: Sequence[float], published: float) -> float:
    return float(stats.ttest_1samp(found, published).pvalue)


def uncertain_share_test(found: Sequence[bool], count: int, of_count: int) -> float:
    """Against a published share that is itself a small sample."""
    table = np.array([[sum(found), len(found) - sum(found)], [count, of_count - count]])
    return float(stats.fisher_exact(table).pvalue)


def test_every_published_marginal_is_met_within_its_sampling_error(patients: list[Patient]) -> None:
    os, gct = of(patients, OS), of(patients, GCT)
    mobile = [a for a in gct if a.level != "sacral"]
    sacral = [a for a in gct if a.level == "sacral"]
    mobile_os = [a for a in os if a.level != "sacral"]
    kinds = Counter(patient.kind for patient in patients if patient.label == OS)
    treated = [patient.kind == "denosumab" for patient in patients if patient.label == GCT]
    young = [a.bone_hu for a in os + gct if a.age < 30]
    tests = {
        "OS age, median 34.5": median_test([a.age for a in os], 34.5),
        "OS sex, 103 F : 95 M": share_test([a.sex == "F" for a in os], 103 / 198),
        "OS level": counts_test([a.level for a in os], {"cervical": 14, "thoracic": 33, "lumbar": 32, "sacral": 21}),
        "OS two levels, 17 %": share_test([a.vertebrae == 2 for a in os], 0.17),
        "OS body only, 21 %": share_test([a.site == "body" for a in mobile_os], 0.21),
        "OS mineralised, 80 % of 69": uncertain_share_test([a.is_mineralised for a in os], 55, 69),
        "OS marked, 25 % of 69": uncertain_share_test([a.matrix == "marked" for a in os], 17, 69),
        "OS ivory, 5 of 69": uncertain_share_test([a.matrix == "ivory" for a in os], 5, 69),
        "OS subtypes": float(
            stats.chisquare(
                [kinds[name] for name in ("conventional", "chondroblastic", "fibroblastic", "telangiectatic")],
                np.array([47, 12, 4, 4]) / 67 * len(os),
            ).pvalue
        ),
        "GCT sacral age, median 33.5": median_test([a.age for a in sacral], 33.5),
        "GCT sacral age, lower quartile 25": share_test([a.age < 25 for a in sacral], 0.25),
        "GCT sacral age, upper quartile 45": share_test([a.age < 45 for a in sacral], 0.75),
        "GCT mobile sex, 2 : 1": share_test([a.sex == "F" for a in mobile], 2 / 3),
        "GCT level": counts_test([a.level for a in gct], {"cervical": 10, "thoracic": 30, "lumbar": 20, "sacral": 40}),
        "GCT several vertebrae, 21 %": share_test([a.vertebrae > 1 for a in gct], 0.21),
        "GCT treated, 8 %": share_test(treated, 0.08),
        "GCT ossified if treated, 22 of 24": uncertain_share_test(
            [p.attributes.is_mineralised for p in patients if p.kind == "denosumab"], 22, 24
        ),
        "GCT sclerotic rim if untreated, 6 of 39": uncertain_share_test(
            [p.attributes.sclerotic_rim for p in patients if p.kind == "untreated"], 6, 39
        ),
        "GCT periosteal reaction, 0 of 30": uncertain_share_test([a.periosteal_reaction for a in gct], 0, 30),
        "GCT soft tissue, 55 %": share_test([a.soft_tissue for a in gct], 0.55),
        "GCT canal narrowed, 58 %": share_test([a.canal > 0 for a in gct], 0.58),
        "GCT canal, 37 % of the area": mean_test([a.canal for a in gct if a.canal > 0], 0.37),
        "GCT size, median 52.5": median_test([a.size for a in gct], 52.5),
        "GCT fluid levels, 19 %": share_test([a.fluid_levels for a in gct], 0.19),
        "matrix HU, 654": mean_test([a.matrix_hu for a in os if a.matrix in {"moderate", "marked"}], 654),
        "ivory HU, 1190": mean_test([a.matrix_hu for a in os if a.matrix == "ivory"], 1190),
        "bone HU under 30, 226": mean_test(young, 226),
        "bone HU falls 2.5 a year": mean_test(
            [a.bone_hu - (226 - 2.5 * (a.age - 30)) for a in os + gct if 30 < a.age < 70], 0
        ),
    }
    rejected, corrected, _, _ = multipletests(list(tests.values()), method="holm")
    assert not rejected.any(), {name: p for name, p, no in zip(tests, corrected, rejected, strict=True) if no}


def test_what_is_published_as_a_range_lies_in_it(patients: list[Patient]) -> None:
    os, gct = of(patients, OS), of(patients, GCT)
    assert all(8 <= a.age <= 80 for a in os)
    assert 0.44 <= np.mean([a.collapse > 0 for a in gct]) <= 0.68
    residual = [
        np.mean([a.trabeculae for a in gct if low <= a.collapse < high])
        for low, high in ((0, 0.01), (0.01, 0.4), (0.4, 1))
    ]
    assert 0.28 < residual[0] < residual[1] < residual[2]
    assert residual[2] > 0.9
    assert np.mean([40 <= a.size <= 90 for a in os]) > 0.85
    assert all(20 <= a.attenuation <= 70 for a in os + gct)
    assert np.mean([80 <= a.attenuation + a.uptake <= 150 for a in os + gct]) > 0.9
    assert not any(a.is_mineralised for p in patients if p.kind == "untreated" for a in [p.attributes])
    assert all(a.collapse > 0 for a in os + gct if a.fracture_sclerosis)
    tele = [p.attributes for p in patients if p.kind == "telangiectatic"]
    assert not any(a.is_mineralised for a in tele)
    assert np.mean([a.fluid_levels for a in tele]) > 0.5


def test_centres_mix_subtypes_differently_but_not_the_labels() -> None:
    patients = draw_patients(2500, seed=8)
    by_centre = {centre: [p for p in patients if p.attributes.centre == centre] for centre in CENTRES}
    labels = [[sum(p.label == label for p in group) for label in LABELS] for group in by_centre.values()]
    assert stats.chi2_contingency(labels).pvalue > 0.01
    lytic = [
        np.mean([p.kind in {"fibroblastic", "telangiectatic"} for p in group if p.label == OS])
        for group in by_centre.values()
    ]
    assert lytic[2] > 1.3 * lytic[0]


# What can be told -----------------------------------------------------------------------------------------------------


def clinical(attributes: Attributes) -> list[float]:
    level = [float(attributes.level == name) for name in VERTEBRAE]
    return [attributes.age, float(attributes.sex == "F"), *level]


def test_clinical_data_alone_tell_as_much_as_they_should(patients: list[Patient]) -> None:
    known = np.array([clinical(patient.attributes) for patient in patients])
    label = np.array([patient.label == OS for patient in patients])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression()),
        "boosted": HistGradientBoostingClassifier(max_depth=3, max_iter=80, learning_rate=0.06, random_state=0),
    }
    areas = {
        name: roc_auc_score(label, cross_val_predict(model, known, label, cv=folds, method="predict_proba")[:, 1])
        for name, model in models.items()
    }
    assert 0.62 <= max(areas.values()) <= 0.76, areas


def test_the_matrix_rule_is_as_good_as_published(patients: list[Patient]) -> None:
    label = [patient.label == OS for patient in patients]
    rule = [patient.attributes.is_mineralised for patient in patients]
    assert 0.85 <= balanced_accuracy_score(label, rule) <= 0.93


def test_no_attribute_gives_the_label_away(patients: list[Patient]) -> None:
    label = np.array([patient.label == OS for patient in patients])
    score = np.array([patient.log_likelihood_ratio for patient in patients])
    assert np.isfinite(score).all()
    (figure,) = delong(label.astype(int), [score]).figures()
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    assert 0.95 < figure.low < figure.value < figure.high < 0.999
    lytic = np.array([not patient.attributes.is_mineralised for patient in patients])
    assert 0.85 < roc_auc_score(label[lytic], score[lytic]) < figure.value


def test_attributes_hold_neither_the_label_nor_the_kind() -> None:
    assert not {"label", "kind", "subtype", "treated", "diagnosis"} & set(ATTRIBUTES)
    values = {str(value) for p in draw_patients(50, 0) for value in dataclasses.asdict(p.attributes).values()}
    assert not values & {*LABELS, "conventional", "telangiectatic", "untreated", "denosumab"}


# The likelihood ratio -------------------------------------------------------------------------------------------------


def test_the_ratio_is_calibrated_against_a_histogram_of_labels() -> None:
    """Of patients whose ratio is r, a share of 1 / (1 + exp(-r)) are osteosarcomas: only the exact one does that."""
    patients = draw_patients(4500, seed=77)
    ratio = np.array([patient.log_likelihood_ratio for patient in patients])
    label = np.array([patient.label == OS for patient in patients])
    chance = 1 / (1 + np.exp(-ratio))
    edges = np.quantile(ratio, np.linspace(0, 1, 13))
    bins = np.clip(np.searchsorted(edges, ratio, side="right") - 1, 0, 11)
    z = [
        (label[bins == at].sum() - chance[bins == at].sum())
        / math.sqrt((chance[bins == at] * (1 - chance[bins == at])).sum())
        for at in range(12)
        if (chance[bins == at] * (1 - chance[bins == at])).sum() > 3
    ]
    assert len(z) >= 6
    assert stats.chi2.sf(np.square(z).sum(), len(z)) > 0.01


def test_the_mean_likelihood_ratio_is_one_under_the_other_label() -> None:
    """E[p / q] = 1 under q: a density that does not integrate to 1 would show. The ratio is capped on both sides."""
    rng = np.random.default_rng(3)
    for label, sign in ((GCT, 1), (OS, -1)):
        drawn = [draw_attributes(label, "B", rng)[1] for _ in range(1500)]
        ratios = np.array([sign * log_likelihood_ratio(a) for a in drawn])
        weights = np.minimum(np.exp(ratios), 30.0)
        other = [draw_attributes(OS if label == GCT else GCT, "B", rng)[1] for _ in range(1500)]
        capped = np.array([min(1.0, 30.0 * math.exp(-sign * log_likelihood_ratio(a))) for a in other])
        # E_q[min(p / q, c)] = E_p[min(1, c q / p)] for any cap c.
        difference = weights.mean() - capped.mean()
        error = math.hypot(weights.std() / math.sqrt(1500), capped.std() / math.sqrt(1500))
        assert abs(difference) < 3.3 * error


def lytic_patient(**changes: Any) -> Attributes:
    attributes = next(
        p.attributes for p in draw_patients(200, 1) if p.label == GCT and p.attributes.level == "lumbar"
        and not p.attributes.is_mineralised and not p.attributes.fluid_levels and not p.attributes.septa
        and not p.attributes.sclerotic_rim
    )  # fmt: skip
    return dataclasses.replace(attributes, **changes)


def change(one: Attributes, other: Attributes, label: str) -> float:
    return log_density(one, label) - log_density(other, label)  # type: ignore[arg-type]


def test_a_change_of_age_counts_as_the_published_curves_say() -> None:
    """Bone density depends on age alike for both labels, so that only the age curves are left in the ratio."""
    young, old = lytic_patient(age=20.0), lytic_patient(age=60.0)

    def os_curve(age: float) -> float:
        return float(stats.norm(18, 6).pdf(age) / 3 + stats.norm(46, 17).pdf(age) * 2 / 3)

    area, _ = quad(os_curve, 8, 80)
    gct_curve = stats.lognorm(0.38, scale=29)
    expected = math.log(os_curve(20) / area) - math.log(os_curve(60) / area)
    expected -= float(gct_curve.logpdf(20) - gct_curve.logpdf(60))
    found = log_likelihood_ratio(young) - log_likelihood_ratio(old)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_change_of_sex_or_level_counts_as_the_tables_say() -> None:
    woman, man = lytic_patient(sex="F"), lytic_patient(sex="M")
    assert change(woman, man, OS) == pytest.approx(math.log(103 / 95))
    assert change(woman, man, GCT) == pytest.approx(math.log(2))


def test_a_matrix_counts_over_all_kinds_that_could_have_made_it() -> None:
    """By hand, at centre B: of OS 47, 14, 3, 3 in 67 with 3/47, 3/12, 3/4 and all lytic; of GCT 8 % treated."""
    bare = lytic_patient(centre="B", sclerotic_rim=True)
    cloudy = dataclasses.replace(bare, matrix="moderate", matrix_hu=654.0, matrix_extent=0.275, matrix_rim=0.5)
    untreated, treated = 0.92 * 6 / 39, 0.08 * 0.6  # with a rim
    look = math.log(
        stats.truncnorm((200 - 654) / 176, (1200 - 654) / 176, 654, 176).pdf(654)
        * stats.beta(3, 3, 0.1, 0.35).pdf(0.275)
    )
    gct = math.log(treated * 22 / 24 * 0.55 * stats.beta(3, 2.6).pdf(0.5) / (untreated + treated * 2 / 24)) + look
    assert change(cloudy, bare, GCT) == pytest.approx(gct)

    # The telangiectatic kind differs in fluid levels, septa and expansion too.
    levels = (1 - 0.75) * (1 - 0.40) / ((1 - 0.03) * (1 - 0.15))
    blown = stats.beta(2.5, 3).pdf(bare.expansion / 16) / stats.beta(1.8, 3.4).pdf(bare.expansion / 16)
    lytic = 47 * 3 / 47 + 14 * 3 / 12 + 3 * 3 / 4 + 3 * levels * blown
    cloud = (47 * 44 / 47 + 14 * 9 / 12 + 3 * 1 / 4) * 33 / 55
    os = math.log(cloud * stats.beta(2, 3.5).pdf(0.5) / lytic) + look
    assert change(cloudy, bare, OS) == pytest.approx(os)


def test_what_is_alike_in_both_tumours_cancels() -> None:
    for changes in ({"side": "left"}, {"attenuation": 33.0}, {"uptake": 51.0}, {"bone_hu": 199.0}, {"vertebra": "L4"}):
        assert log_likelihood_ratio(lytic_patient(**changes)) == pytest.approx(log_likelihood_ratio(lytic_patient()))


def test_what_cannot_be_has_no_likelihood() -> None:
    impossible = lytic_patient(matrix_hu=300.0)
    assert log_density(impossible, OS) == -math.inf


# Repeatability --------------------------------------------------------------------------------------------------------


def test_a_patient_depends_on_the_seed_and_its_number_alone() -> None:
    assert draw_patients(5, seed=4) == draw_patients(9, seed=4)[:5]
    assert draw_patients(5, seed=4) != draw_patients(5, seed=5)
    assert draw_patient(OS, "A", (1, 2)) == draw_patient(OS, "A", (1, 2))


def test_the_seed_of_the_image_does_not_tell_the_label() -> None:
    for number, centre in itertools.product(range(5), CENTRES):
        assert draw_patient(OS, centre, (9, number)).seed == draw_patient(GCT, centre, (9, number)).seed


@pytest.mark.parametrize("ask", [lambda: draw_patients(0, 1), lambda: draw_patients(1, 1, ())])
def test_nobody_is_refused(ask: Callable[[], list[Patient]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ask()
