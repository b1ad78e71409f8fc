"""Decisions, subgroups, power, baselines and what the audit found, as the study report shows them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from osteoscope.report.content import Accepted, AuditTables, StudyContent
from osteoscope.report.study import study_html

if TYPE_CHECKING:
    from collections.abc import Callable


def section(html: str, name: str) -> str:
    """Cut a section out of the page."""
    start = html.index(f'<section aria-labelledby="{name}"')
    return html[start : html.index("</section>", start)]


def with_metrics(study: StudyContent, **changes: Any) -> StudyContent:
    return dataclasses.replace(study, metrics={**study.metrics, **changes})


# What was accepted stands first ---------------------------------------------------------------------------------------


def test_an_accepted_finding_stands_above_all_else_with_its_reason(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    page = read_page(study_html(study))
    order = [
        page.text.index(words) for words in ("Centre tells.", "there is one centre only", "Osteoscope study report")
    ]
    assert order == sorted(order)
    assert "centre shortcut" in page.text
    assert page.all("aside")[0]["class"] == "box stop accepted"


def test_every_accepted_kind_and_finding_is_listed(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    more = Accepted(kind="file-shortcut", because="<b>we know</b>", findings=study.findings)
    html = study_html(dataclasses.replace(study, accepted=(*study.accepted, more)))
    assert html.count("Accepted because:") == 2
    assert "<b>we know</b>" not in html
    top = read_page(html[: html.index("<header")]).text
    assert "Size tells the class." in top
    assert "There are few." in top


def test_without_accepted_findings_there_is_no_box(study: StudyContent) -> None:
    assert "in spite of" not in study_html(dataclasses.replace(study, accepted=()))


# Result and calibration -----------------------------------------------------------------------------------------------


def test_the_coarsest_grouping_is_told_below_the_headline(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(section(study_html(study), "result")).text
    assert "were one person, 43 in place of 50, the AUC would be 0.85 (0.75–0.92)." in text


def test_delongs_interval_stands_beside_the_bootstraps(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(section(study_html(study), "discrimination")).text
    assert "AUC, by DeLong 0.86 (0.73–0.93) n = 50 not measured" in text
    assert "AUC within folds 0.88 (0.76–0.95) n = 50 not measured" in text


def test_the_parts_of_the_brier_score_are_written_as_a_sum(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(section(study_html(study), "calibration")).text
    # Within the bins: 0.004 - 0.006.
    assert "−0.004 reliability − 0.114 resolution + 0.245 uncertainty − 0.002 within bins" in text


# Decisions ------------------------------------------------------------------------------------------------------------


def test_operating_points_say_who_is_called_by_which_rule(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(section(study_html(study), "decision")).text
    assert "osteosarcoma a missed case costs 4 false alarms 0.20 as stated: 0.14 84 % (66–93) n = 30" in text
    assert "0.47 (0.31–0.64) calling all: 0.40, none: 2.40" in text
    assert "sensitivity of 90 % asked for chosen on the other folds 0.12 folds: 0.11–0.19" in text
    assert "sensitivity of 95 % asked for – a fold leaves no patient" in text
    assert "restated to the class shares of these patients: osteosarcoma 60 %, giant cell tumor 40 %." in text


@pytest.mark.parametrize(
    ("costs", "words"),
    [((1.0, 1.0), "both errors cost the same"), ((5.0, 2.0), "a false alarm costs 2.5 missed cases")],
)
def test_costs_are_put_into_words(
    study: StudyContent, read_page: Callable[[str], Any], costs: tuple[float, float], words: str
) -> None:
    point = study.metrics["patient"]["decision"]["operating_points"][0]
    point["costs"] = dict(zip(("false_positive", "false_negative"), costs, strict=True))
    assert words in read_page(study_html(study)).text


def test_a_threshold_chosen_on_the_patients_it_is_judged_on_is_said_to_flatter_itself(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    study.metrics["patient"]["decision"]["operating_points"][1]["cross_fitted"] = False
    assert "chosen on these very patients, so it flatters itself" in read_page(study_html(study)).text


def test_why_there_is_no_decision_curve_is_said(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    study.metrics["patient"]["decision"] = {"reason": "a class has no patient"}
    text = read_page(section(study_html(study), "decision")).text
    assert "Not told: a class has no patient." in text


# Subgroups and power --------------------------------------------------------------------------------------------------


def test_small_subgroups_are_greyed_with_their_number_and_reason(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    html = section(study_html(study), "subgroups")
    text = read_page(html).text
    assert "female 38 22 + 16 0.87 (0.74–0.95) n = 38 0.13 (0.08–0.18) n = 38 82 % (61–93) n = 22" in text
    assert "male 7 4 + 3 – withheld: fewer than 10 patients; n = 7" in text
    # AUC, Brier score, two sensitivities; of two classes, the specificities say the same.
    assert html.count('class="withheld"') == 4


def test_whether_groups_differ_is_told_with_the_corrected_p_value(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(section(study_html(study), "subgroups")).text
    assert "AUC: p-value < 0.001, corrected 0.001; balanced accuracy: p-value 0.210, corrected 0.420." in text
    assert "Body site Do the groups differ? Not tested: fewer than two groups." in text


def test_what_the_cohort_could_have_shown(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(section(study_html(study), "power")).text
    assert "A cohort like this shows little." in text
    assert "0.80 0.65–0.90 0.17 146" in text
    assert "0.95 0.83–0.99 – –" in text
    assert "80 % 63–90 % 58–92 % 1,245" in text
    few = with_metrics(study, power={"counts": {}, "reason": "it takes 5 patients"})
    assert "Not told: it takes 5 patients." in read_page(section(study_html(few), "power")).text


# Baselines ------------------------------------------------------------------------------------------------------------


def test_baselines_come_with_their_difference_their_note_or_the_reason_why_they_are_missing(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    figure = {"value": 0.681, "low": 0.522, "high": 0.813, "n": 50}
    difference = {"value": 0.184, "low": 0.052, "high": 0.311, "n": 50}
    baselines = {
        "picture_geometry": {"auc": figure, "auc_difference": difference, "note": "It sees the size alone."},
        "plain DenseNet-121": {"reason": "not trained"},
    }
    alone = dataclasses.replace(with_metrics(study, baselines=baselines), beside=())
    html = section(study_html(alone), "beside")
    text = read_page(html).text
    assert "picture geometry It sees the size alone. 0.68 (0.52–0.81) n = 50" in text
    assert "0.18 (0.05–0.31) n = 50" in text
    assert "plain DenseNet-121 – not trained" in text
    assert 'colspan="6"' in html


# Audit ----------------------------------------------------------------------------------------------------------------


def test_findings_come_with_what_to_do_and_notes_are_marked(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    html = section(study_html(study), "audit")
    text = read_page(html).text
    assert "warn shortcut Size tells the class. → bring them to one size P1, P2" in text
    assert "note small cohort There are few." in text
    assert text.count("→") == 1
    assert 'class="chip note"' in html


def test_shortcuts_are_listed_with_their_interval_or_why_there_is_none(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(section(study_html(study), "audit")).text
    assert "picture geometry 0.68 (0.52–0.81) n = 50 one from the other" in text
    assert "centre – it is not recorded; n = 50 –" in text


def test_confounders_are_counted_by_class(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(section(study_html(study), "audit")).text
    assert "median (quartiles), range; years 16 (12–25), from 5 to 60 –" in text
    assert "not known 2 20" in text
    assert "male 19 (63 %) 0 (0 %)" in text
    assert "female 11 (37 %) 20 (100 %)" in text
    # What is recorded of nobody tells nothing.
    assert "Treated" not in text


def test_a_patient_of_two_sites_counts_at_both_and_once_in_the_class(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    table = dict(study.audit_tables.by_class)
    first, second = study.classes
    table["site"] = {first: {"femur": 30, "tibia": 15}, second: {"femur": 5, "tibia": 15}}
    table["view"] = {first: {"frontal": 30, "lateral": 30}, second: {"frontal": 20}}
    tables = dataclasses.replace(study.audit_tables, by_class=table)
    text = read_page(section(study_html(dataclasses.replace(study, audit_tables=tables)), "audit")).text
    assert "femur 30 (100 %) 5 (25 %)" in text
    assert "tibia 15 (50 %) 15 (75 %)" in text
    assert "frontal 30 (50 %) 20 (100 %)" in text


def test_tables_of_the_audit_need_no_findings(study: StudyContent) -> None:
    html = study_html(dataclasses.replace(study, findings=()))
    assert 'href="#audit"' in html
    assert 'id="table-findings"' not in html
    bare = study_html(dataclasses.replace(study, findings=(), audit_tables=AuditTables()))
    assert 'href="#audit"' not in bare
