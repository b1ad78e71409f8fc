from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from osteoscope.cohort.split import leave_groups_out, make_folds, proof
from osteoscope.cohort.table import Case, CaseImage
from osteoscope.errors import CohortError


def make_cases(*patients_of_class: int) -> list[Case]:
    """Cases of one image each: so many of class 0, so many of class 1, and so on."""
    labels = [label for label, number in enumerate(patients_of_class) for _ in range(number)]
    return [Case(patient=f"P-{number:04}", label=label, images=(image(number),)) for number, label in enumerate(labels)]


def image(number: int) -> CaseImage:
    return CaseImage(
        image=f"{number}.png",
        path=Path(f"{number}.png"),
        pixel_sha256=f"pixels of {number}",
        rows=40,
        columns=50,
        modality="radiograph",
    )


def test_every_patient_is_tested_once_a_repeat_and_never_trained_on_then() -> None:
    cases = make_cases(23, 11)
    folds = make_folds(cases, folds=5, repeats=3, seed=0)
    assert (folds.repeats, folds.folds) == (3, 5)
    everyone = sorted(case.patient for case in cases)
    for repeat in range(3):
        tested = [patient for fold in range(5) for patient in folds.test_patients(repeat, fold)]
        assert sorted(tested) == everyone
        for fold in range(5):
            test, train = folds.test_patients(repeat, fold), folds.train_patients(repeat, fold)
            assert not set(test) & set(train)
            assert sorted([*test, *train]) == everyone


def test_each_fold_has_its_share_of_each_class() -> None:
    cases = make_cases(103, 21, 6)
    label_of = {case.patient: case.label for case in cases}
    folds = make_folds(cases, folds=5, repeats=2, seed=1)
    for held in (folds.test_patients(repeat, fold) for repeat in range(2) for fold in range(5)):
        shares = [sum(label_of[patient] == label for patient in held) for label in range(3)]
        assert shares[0] in (20, 21)
        assert shares[1] in (4, 5)
        assert shares[2] in (1, 2)


def test_folds_follow_from_the_seed_and_not_from_the_order() -> None:
    cases = make_cases(20, 10)
    shuffled = [*cases[::2], *cases[1::2]]
    first = make_folds(cases, folds=5, repeats=2, seed=7)
    assert make_folds(shuffled, folds=5, repeats=2, seed=7) == first
    assert make_folds(cases, folds=5, repeats=2, seed=8).test != first.test
    assert first.test[0] != first.test[1]


def test_more_repeats_leave_the_first_as_they_were() -> None:
    cases = make_cases(20, 10)
    few = make_folds(cases, folds=5, repeats=1, seed=7)
    assert make_folds(cases, folds=5, repeats=9, seed=7).test[:1] == few.test


def test_fewer_patients_than_folds_name_the_class_and_the_way_out() -> None:
    with pytest.raises(CohortError, match=r"'giant cell tumor' has 4 patients, too few for 5 folds \(use --folds 4\)"):
        make_folds(make_cases(20, 4), folds=5, repeats=1, seed=0, classes=["osteosarcoma", "giant cell tumor"])
    with pytest.raises(CohortError, match=r"class '1' has 1 patients.*gather more patients"):
        make_folds(make_cases(20, 1), folds=2, repeats=1, seed=0)


def test_a_class_without_patients_is_refused() -> None:
    with pytest.raises(CohortError, match="'chordoma' has 0 patients"):
        make_folds(make_cases(9, 9), folds=3, repeats=1, seed=0, classes=["a", "b", "chordoma"])


def test_a_single_class_is_refused() -> None:
    with pytest.raises(CohortError, match="one class"):
        make_folds(make_cases(20), folds=5, repeats=1, seed=0)


def test_what_only_a_programmer_can_get_wrong_is_a_builtin_fault() -> None:
    cases = make_cases(5, 5)
    for folds, repeats in ((1, 1), (5, 0)):
        with pytest.raises(ValueError, match="two folds or more"):
            make_folds(cases, folds=folds, repeats=repeats, seed=0)
    with pytest.raises(ValueError, match="each patient once"):
        make_folds([*cases, cases[0]], folds=2, repeats=1, seed=0)
    with pytest.raises(ValueError, match="expected a label"):
        make_folds([*cases[1:], dataclasses.replace(cases[0], label=None)], folds=2, repeats=1, seed=0)


def test_the_proof_counts_both_sides_and_digests_their_patients() -> None:
    cases = make_cases(10, 5)
    folds = make_folds(cases, folds=5, repeats=2, seed=0)
    shown = json.loads(json.dumps(proof(folds, cases)))
    assert (shown["patients"], shown["repeats"], shown["folds"]) == (15, 2, 5)
    assert shown["every_patient_tested_once_a_repeat"] is True
    assert len(shown["splits"]) == 10
    split = shown["splits"][7]
    assert (split["repeat"], split["fold"]) == (1, 2)
    assert split["shared_patients"] == split["shared_pixels"] == 0
    assert split["test"]["patients"] == {"0": 2, "1": 1}
    assert split["train"]["patients"] == split["train"]["images"] == {"0": 8, "1": 4}
    listed = "\n".join(sorted(folds.test_patients(1, 2)))
    assert split["test"]["sha256"] == hashlib.sha256(listed.encode()).hexdigest()


def test_the_same_pixels_on_both_sides_are_found_out() -> None:
    cases = make_cases(10, 5)
    folds = make_folds(cases, folds=5, repeats=1, seed=0)
    held = folds.test_patients(0, 0)[0]
    trained = folds.train_patients(0, 0)[0]
    place = {case.patient: number for number, case in enumerate(cases)}
    cases[place[trained]] = dataclasses.replace(cases[place[trained]], images=cases[place[held]].images)
    with pytest.raises(CohortError, match="0 patients and 1 images are on both sides of repeat 0, fold 0"):
        proof(folds, cases)


def test_folds_that_do_not_fit_the_cases_are_found_out() -> None:
    cases = make_cases(10, 5)
    folds = make_folds(cases, folds=5, repeats=1, seed=0)
    with pytest.raises(CohortError, match="other patients"):
        proof(folds, cases[1:])
    first, second, *rest = folds.test[0]
    twice = dataclasses.replace(folds, test=((first, (*second, first[0]), *rest),))
    with pytest.raises(CohortError, match="exactly once"):
        proof(twice, cases)


def test_each_group_is_tested_whole_and_once() -> None:
    cases = make_cases(4, 4)
    groups = {f"P-{number:04}": name for number, name in enumerate(["tibia", "femur", "hand", "femur"] * 2)}
    folds = leave_groups_out([*cases[::2], *cases[1::2]], groups, seed=3, classes=["a", "b"])
    assert (folds.repeats, folds.folds, folds.seed) == (1, 3, 3)
    assert folds.groups == ("femur", "hand", "tibia")
    assert folds.test == ((("P-0001", "P-0003", "P-0005", "P-0007"), ("P-0002", "P-0006"), ("P-0000", "P-0004")),)
    assert folds == leave_groups_out(cases, groups, seed=3)


def test_the_proof_names_the_groups() -> None:
    cases = make_cases(6, 4)
    groups = {case.patient: "knee" if 4 <= number < 8 else "hip" for number, case in enumerate(cases)}
    shown = json.loads(json.dumps(proof(leave_groups_out(cases, groups), cases)))
    assert [split["group"] for split in shown["splits"]] == ["hip", "knee"]
    assert [split["test"]["patients"] for split in shown["splits"]] == [{"0": 4, "1": 2}, {"0": 2, "1": 2}]
    assert "group" not in proof(make_folds(cases, folds=2, repeats=1, seed=0), cases)["splits"][0]


def test_a_group_may_lack_a_class_and_be_of_one_patient() -> None:
    cases = make_cases(4, 4)
    names = ["hip", "hip", "knee", "knee", "hand", "foot", "knee", "knee"]
    folds = leave_groups_out(cases, {case.patient: name for case, name in zip(cases, names, strict=True)})
    splits = proof(folds, cases)["splits"]
    assert [split["test"]["patients"] for split in splits] == [{"1": 1}, {"1": 1}, {"0": 2}, {"0": 2, "1": 2}]


def test_one_group_is_refused() -> None:
    cases = make_cases(3, 3)
    with pytest.raises(CohortError, match=r"two groups of patients or more, found 'femur' .*stratified by class"):
        leave_groups_out(cases, dict.fromkeys((case.patient for case in cases), "femur"))
    with pytest.raises(CohortError, match="found none"):
        leave_groups_out([], {})


def test_a_group_without_which_a_class_cannot_be_learnt_is_refused() -> None:
    cases = make_cases(6, 4)
    femur_and_tibia = {case.patient: ("femur", "tibia")[number % 2] for number, case in enumerate(cases)}
    classes = ["osteosarcoma", "giant cell tumor"]
    for left in (0, 1):
        groups = femur_and_tibia | {f"P-{number:04}": "hand" for number in range(6 + left, 10)}
        sentence = f"without group 'hand' {left} patients of class 'giant cell tumor' are left.*gather patients"
        with pytest.raises(CohortError, match=sentence):
            leave_groups_out(cases, groups, classes=classes)
    with pytest.raises(CohortError, match="0 patients of class 'chordoma' are left"):
        leave_groups_out(cases, femur_and_tibia, classes=[*classes, "chordoma"])


def test_two_patients_and_a_single_class_are_refused() -> None:
    with pytest.raises(CohortError, match="without group 'foot' 0 patients of class '1' are left"):
        leave_groups_out(make_cases(1, 1), {"P-0000": "hand", "P-0001": "foot"})
    with pytest.raises(CohortError, match="one class"):
        leave_groups_out(make_cases(2), {"P-0000": "hand", "P-0001": "foot"})


def test_a_patient_without_a_group_or_label_or_there_twice_is_a_programmers_fault() -> None:
    cases = make_cases(4, 4)
    groups = {case.patient: "femur" if number % 2 else "tibia" for number, case in enumerate(cases)}
    with pytest.raises(ValueError, match="a group for each patient, got none for P-0007"):
        leave_groups_out(cases, {patient: group for patient, group in groups.items() if patient != "P-0007"})
    with pytest.raises(ValueError, match="each patient once"):
        leave_groups_out([*cases, cases[0]], groups)
    with pytest.raises(ValueError, match="expected a label"):
        leave_groups_out([*cases[1:], dataclasses.replace(cases[0], label=None)], groups)
