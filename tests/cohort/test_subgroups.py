"""The groups that a result is looked at by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osteoscope.cohort.subgroups import patient_groups
from osteoscope.cohort.table import Cohort, Row, cases, frame_of
from osteoscope.imaging.prepare import Lesion


def made(*rows: Row) -> Cohort:
    return Cohort(frame=frame_of(rows), classes=("a", "b"), root=Path("images"), source="test")


def row(image: str, patient: str, **known: Any) -> Row:
    facts: dict[str, Any] = {"rows": 100, "columns": 50, "label": "a", **known}
    return Row(
        image=image,
        patient=patient,
        guessed=False,
        file_sha256=image,
        pixel_sha256=image,
        modality="radiograph",
        role="case",
        **facts,
    )


def groups_of(*rows: Row) -> dict[str, dict[str, str]]:
    cohort = made(*rows)
    return patient_groups(cohort, cases(cohort))


def test_ages_fall_into_bands_whose_lower_end_is_included() -> None:
    rows = [row(f"{age}.png", f"P-{age}", age=age) for age in (0.0, 19.9, 20.0, 39.0, 40.0, 60.0, 88.0)]
    assert groups_of(*rows)["age"] == {
        "P-0.0": "0 to 19",
        "P-19.9": "0 to 19",
        "P-20.0": "20 to 39",
        "P-39.0": "20 to 39",
        "P-40.0": "40 to 59",
        "P-60.0": "60 and over",
        "P-88.0": "60 and over",
    }


def test_who_is_not_known_is_left_out_and_several_are_said() -> None:
    found = groups_of(
        row("1.png", "P-1", sex="F", site="femur", centre="1"),
        row("2.png", "P-1", sex="F", site="tibia", centre="2"),
        row("3.png", "P-2", site="femur", centre="1"),
    )
    assert found["sex"] == {"P-1": "F"}
    assert found["site"] == {"P-1": "several", "P-2": "femur"}
    assert found["centre"] == {"P-1": "several", "P-2": "1"}


def test_levels_of_the_spine_are_groups() -> None:
    found = groups_of(
        row("1", "P-1", level="lumbar"),
        row("2", "P-1", level="sacral"),
        row("3", "P-2", level="lumbar"),
        row("4", "P-3"),
    )
    assert found["level"] == {"P-1": "several", "P-2": "lumbar"}


def test_a_grouping_that_tells_no_one_apart_is_left_out() -> None:
    found = groups_of(row("1.png", "P-1", centre="1", age=30.0), row("2.png", "P-2", centre="1", age=50.0))
    assert set(found) == {"age"}


def test_the_largest_lesion_is_measured_against_its_own_image() -> None:
    small, large = Lesion(box=(0, 0, 20, 10)), Lesion(box=(0, 10, 10, 65))
    found = groups_of(
        row("1.png", "P-1", lesions=(small,)),
        row("2.png", "P-2", lesions=(small,)),
        row("3.png", "P-2", lesions=(small, large)),
        row("4.png", "P-3", lesions=(small,)),
        row("5.png", "P-3"),
    )
    assert found["lesion size"] == {"P-1": "0 to 24 %", "P-2": "50 % and more"}
