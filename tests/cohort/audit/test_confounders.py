"""What the classes' patients are like, and how far clinical data alone tells them apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from made_up import GCT, OS, entries, write_cohort_of

from osteoscope.cohort.audit.confounders import (
    AuditTables,
    audit_tables,
    find_confounders,
    hear_confounders,
)
from osteoscope.cohort.baselines import CLINICAL, CLINICAL_SITE

if TYPE_CHECKING:
    from pathlib import Path


def test_tables_count_patients_and_views_count_images(tmp_path: Path) -> None:
    made = entries(0, (2, 3), views=1)
    for entry, age, sex, view in zip(
        made,
        (10.0, 20.0, 30.0, None, 50.0),
        ("F", "M", "M", None, "M"),
        (None, "lateral", *["frontal"] * 3),
        strict=True,
    ):
        entry |= {"age": age, "sex": sex, "view": view, "implant": age == 50}
    second_view = made[0] | {"image": "again.png", "view": "frontal", "site": None, "picture": made[1]["picture"]}
    tables = audit_tables(write_cohort_of(tmp_path, [*made, second_view]))
    assert tables.ages[OS] == {"known": 2, "missing": 0, "least": 10, "quartiles": [12.5, 15, 17.5], "greatest": 20}
    assert tables.ages[GCT] == {"known": 2, "missing": 1, "least": 30, "quartiles": [35, 40, 45], "greatest": 50}
    assert tables.counts["sex"] == {OS: {"F": 1, "M": 1}, GCT: {"M": 2, "not recorded": 1}}
    assert tables.counts["view"] == {OS: {"frontal": 1, "lateral": 1, "not recorded": 1}, GCT: {"frontal": 3}}
    assert tables.counts["implant"] == {OS: {"no": 2}, GCT: {"no": 2, "yes": 1}}
    assert tables.counts["site"][OS]["not recorded"] == 1
    assert AuditTables.from_json(json.loads(json.dumps(tables.to_json()))) == tables


def test_a_class_without_ages_has_none(tmp_path: Path) -> None:
    made = entries(1, (2, 2), views=1)
    for entry in made:
        entry["age"] = None
    ages = audit_tables(write_cohort_of(tmp_path, made)).ages
    assert ages[OS] == {"known": 0, "missing": 2, "least": None, "quartiles": None, "greatest": None}


def test_nothing_is_said_where_nothing_tells(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(2))
    assert find_confounders(cohort, hear_confounders(cohort)) == ()


def test_an_age_that_tells_the_label_warns_with_the_figure(tmp_path: Path) -> None:
    made, rng = entries(3), np.random.default_rng(3)
    ages: dict[str, float] = {}
    for entry in made:
        drawn = rng.normal(20 if entry["label"] == OS else 45, 10)
        entry["age"] = ages.setdefault(entry["patient"], max(drawn, 1))
    cohort = write_cohort_of(tmp_path, made)
    heard = hear_confounders(cohort)
    assert list(heard) == [CLINICAL, CLINICAL_SITE]
    (finding,) = find_confounders(cohort, heard)
    assert (finding.kind, finding.severity) == ("clinical-confounder", "warn")
    value = heard[CLINICAL].auc.value
    assert value is not None
    assert f"age and sex alone: AUC {value:.2f}" in finding.message


def test_a_record_kept_of_one_class_alone_warns(tmp_path: Path) -> None:
    made = entries(4)
    for entry in made:
        if entry["label"] == GCT:
            entry |= {"age": None, "sex": None, "view": None}
    cohort = write_cohort_of(tmp_path, made)
    (finding,) = find_confounders(cohort, {})
    assert (finding.kind, finding.severity) == ("record-depends-on-label", "warn")
    assert finding.message.startswith(
        f"age, sex and view are recorded for 15 of 15 patients of {OS!r}, 0 of 15 patients of {GCT!r}"
    )
