"""One person counted as several, and folds that part what belongs together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from made_up import GCT, OS, Entry, entries, write_cohort_of

from osteoscope.cohort.audit import audit_folds
from osteoscope.cohort.audit.patients import find_split_patients
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import cases

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort


def found_in(cohort: Cohort, *, copies: bool = False) -> dict[str, Finding]:
    return {finding.kind: finding for finding in find_split_patients(cohort, copies_across_patients=copies)}


def image_level(made: list[Entry], *, named: bool = False) -> list[Entry]:
    """Give each image a patient of its own; views of one person follow each other by name."""
    for number, entry in enumerate(made):
        entry["image"] = f"{number}.png"
        entry["patient"] = f"{number}" if named else f"secret {number}"
    return made


def test_a_clean_cohort_has_no_such_findings(tmp_path: Path) -> None:
    assert found_in(write_cohort_of(tmp_path, entries(0))) == {}


# Studies


def test_a_study_of_two_patients_blocks(tmp_path: Path) -> None:
    made = entries(1)
    made[0]["study"] = made[-1]["study"] = "S-1"
    made[1]["study"] = "S-2"
    finding = found_in(write_cohort_of(tmp_path, made))["study-across-patients"]
    assert finding.severity == "block"
    assert len(finding.cases) == 2
    assert "S-1 is of 2 patients" in finding.message


def test_a_study_shared_with_an_auxiliary_image_warns(tmp_path: Path) -> None:
    made = entries(1)
    stranger = made[-1] | {"patient": "x", "image": "x.png", "label": None, "role": "auxiliary", "study": "S-1"}
    made[0]["study"] = "S-1"
    cohort = write_cohort_of(tmp_path, [*made, stranger])
    assert found_in(cohort)["study-across-patients"].severity == "warn"


# Images taken for patients


def test_an_image_level_split_is_found_by_neighbours_that_are_alike(tmp_path: Path) -> None:
    found = found_in(write_cohort_of(tmp_path, image_level(entries(2))))
    assert found["patients-are-images"].severity == "warn"
    assert "the next by name" in found["patients-are-images"].message


def test_an_image_level_split_blocks_where_copies_or_a_study_confirm_it(tmp_path: Path) -> None:
    made = image_level(entries(2))
    assert found_in(write_cohort_of(tmp_path / "a", made), copies=True)["patients-are-images"].severity == "block"
    made[0]["study"] = made[1]["study"] = "S-1"
    assert found_in(write_cohort_of(tmp_path / "b", made))["patients-are-images"].severity == "block"


def test_patients_called_as_their_images_warn_even_without_anything_else_known(tmp_path: Path) -> None:
    made = image_level(entries(3), named=True)
    for entry in made:
        entry |= {"age": None, "sex": None, "site": None}
    finding = found_in(write_cohort_of(tmp_path, made))["patients-are-images"]
    assert finding.severity == "warn"
    assert "called as their images" in finding.message


def test_patients_of_one_image_each_are_no_image_level_split(tmp_path: Path) -> None:
    made = entries(4, (20, 20), views=1)
    for number, entry in enumerate(made):
        entry["image"] = f"{number}.png"
    assert "patients-are-images" not in found_in(write_cohort_of(tmp_path, made))


def test_neighbours_are_found_in_the_order_of_numbers(tmp_path: Path) -> None:
    made = image_level(entries(5, (40, 40)))

    def alike(ordered: list[Entry]) -> int:
        looks = [tuple(entry.get(name) for name in ("label", "age", "sex", "site", "level")) for entry in ordered]
        return sum(one == other for one, other in itertools.pairwise(looks))

    # As texts, 10 would come between 1 and 2.
    assert alike(made) != alike(sorted(made, key=lambda entry: str(entry["image"])))
    found = found_in(write_cohort_of(tmp_path, made))["patients-are-images"]
    assert f"{alike(made)} images are of the same label" in found.message


# Patients who may be one


@pytest.mark.parametrize(("guessed", "severity"), [(True, "warn"), (False, "note")])
def test_patients_who_look_alike_are_counted(tmp_path: Path, severity: str, *, guessed: bool) -> None:
    made = entries(6, (5, 5), views=1)
    for entry in made:
        entry["guessed"] = guessed
    for entry in made[:3]:
        entry |= {"age": 20.0, "sex": "F", "site": "femur"}
    finding = found_in(write_cohort_of(tmp_path, made))["patients-may-be-one"]
    assert finding.severity == severity
    assert "10 patients would be 8" in finding.message
    assert len(finding.cases) == 3


# Folds


def test_folds_by_patient_have_no_findings(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(7))
    folds = make_folds(cases(cohort), folds=3, repeats=1, seed=0, classes=cohort.classes)
    fold_of = {name: fold for fold, held in enumerate(folds.test[0]) for name in held}
    images = cohort.case_rows
    assigned = {image: fold_of[patient] for image, patient in zip(images["image"], images["patient"], strict=True)}
    assert audit_folds(cohort, assigned) == ()


def test_a_patient_in_two_folds_blocks(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(8))
    several = cohort.case_rows.groupby("patient").filter(lambda rows: len(rows) > 1)
    assigned = {image: number for number, image in enumerate(cohort.case_rows["image"])}
    (finding,) = audit_folds(cohort, assigned)
    assert (finding.kind, finding.severity) == ("patient-in-two-folds", "block")
    assert finding.cases == tuple(sorted(several["patient"].unique()))


def test_the_same_pixels_in_two_folds_block(tmp_path: Path) -> None:
    made = entries(9, (4, 4), views=1)
    made[1]["picture"] = made[0]["picture"]
    cohort = write_cohort_of(tmp_path, made)
    assigned = {entry["image"]: "AB"[number % 2] for number, entry in enumerate(made)}
    (finding,) = audit_folds(cohort, assigned)
    assert (finding.kind, len(finding.cases)) == ("pixels-in-two-folds", 2)
    assert audit_folds(cohort, {made[0]["image"]: 0}) == ()


def test_folds_of_other_images_are_refused(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(10, (2, 2)))
    with pytest.raises(ValueError, match="images of the cohort, got 1 others"):
        audit_folds(cohort, {"elsewhere.png": 0})


def test_labels_play_their_part(tmp_path: Path) -> None:
    # The views of one person follow each other, but each is of another class: no sign of one person.
    made = image_level(entries(11))
    for number, entry in enumerate(made):
        entry["label"] = (OS, GCT)[number % 2]
    assert "patients-are-images" not in found_in(write_cohort_of(tmp_path, made))
