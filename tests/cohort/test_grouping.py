from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from osteoscope.cohort.grouping import coarsest_groups
from osteoscope.cohort.table import Cohort, Row, frame_of


def row(patient: str, label: str | None = "a", **known: Any) -> Row:
    facts = {"age": 20.0, "sex": "F", "site": "femur", **known}
    return Row(
        patient=patient,
        guessed=True,
        image=f"{patient} {facts}.png",
        file_sha256="",
        pixel_sha256=f"{patient} {facts}",
        rows=40,
        columns=40,
        modality="radiograph",
        role="case" if label else "auxiliary",
        label=label,
        **facts,
    )


def groups(*rows: Row) -> dict[str, str]:
    return coarsest_groups(Cohort(frame=frame_of(rows), classes=("a", "b"), root=Path(), source="s"))


def test_patients_of_the_same_label_age_sex_and_site_are_one() -> None:
    found = groups(row("P-2"), row("P-1"), row("P-3", "b"), row("P-4", sex="M"), row("P-5", site="tibia"))
    assert found == {"P-1": "P-1", "P-2": "P-1", "P-3": "P-3", "P-4": "P-4", "P-5": "P-5"}


def test_patients_of_another_level_of_the_spine_are_others() -> None:
    found = groups(row("P-1", level="lumbar"), row("P-2", level="sacral"), row("P-3", level="lumbar"))
    assert found == {"P-1": "P-1", "P-2": "P-2", "P-3": "P-1"}


def test_joining_carries_on_through_a_patients_other_images() -> None:
    # P-2 looks like P-1 in one image and like P-3 in another.
    found = groups(row("P-1"), row("P-2"), row("P-2", site="tibia"), row("P-3", site="tibia"))
    assert set(found.values()) == {"P-1"}


def test_age_counts_in_whole_years() -> None:
    assert len(set(groups(row("P-1", age=20.2), row("P-2", age=19.9)).values())) == 1
    assert len(set(groups(row("P-1", age=20.0), row("P-2", age=21.0)).values())) == 2


@pytest.mark.parametrize("missing", ["sex", "site"])
def test_what_is_not_known_equals_what_is_not_known(missing: str) -> None:
    assert len(set(groups(row("P-1", **{missing: None}), row("P-2", **{missing: None})).values())) == 1
    assert len(set(groups(row("P-1", **{missing: None}), row("P-2")).values())) == 2


def test_without_an_age_nobody_is_joined() -> None:
    assert len(set(groups(row("P-1", age=None), row("P-2", age=None)).values())) == 2


def test_auxiliary_images_take_no_part() -> None:
    assert groups(row("P-1"), row("P-9", None)) == {"P-1": "P-1"}


def test_the_real_archive_has_fewer_coarsest_patients_than_guessed_ones(btxrd: Path) -> None:
    from osteoscope.cohort.btxrd import read_btxrd

    cohort = read_btxrd(btxrd, ("osteosarcoma", "giant cell tumor"))
    found = coarsest_groups(cohort)
    # Counted by hand with pandas: an independent union over the same traits.
    rows = cohort.case_rows
    parent = {patient: patient for patient in rows["patient"]}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    for _, alike in rows.groupby(["label", "age", "sex", "site"]):
        first, *others = alike["patient"]
        for other in others:
            parent[root(other)] = root(first)
    assert len(found) == 124
    assert len(set(found.values())) == len({root(patient) for patient in parent})
    assert all(root(patient) == root(name) for patient, name in found.items())
