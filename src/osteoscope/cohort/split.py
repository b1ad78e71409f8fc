"""Folds of patients: shares of each class, or whole groups; with a proof that no patient or pixels are on two sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from osteoscope.errors import CohortError
from osteoscope.storage import sha256_of_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from osteoscope.cohort.table import Case


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Which patients are tested in which fold of which repeat.

    Parameters
    ----------
    seed
        What the shuffling, and all else that is drawn in the folds, is derived from.
    patients
        All of them, sorted.
    test
        Pseudonyms by repeat and fold, sorted.
    groups
        Name of the group that is tested in each fold, where whole groups are left out.
    """

    seed: int
    patients: tuple[str, ...]
    test: tuple[tuple[tuple[str, ...], ...], ...]
    groups: tuple[str, ...] | None = None

    @property
    def repeats(self) -> int:
        """Number of times that the patients are shuffled anew."""
        return len(self.test)

    @property
    def folds(self) -> int:
        """Number of folds in a repeat."""
        return len(self.test[0])

    def test_patients(self, repeat: int, fold: int) -> tuple[str, ...]:
        """Patients that are tested in a fold, counted from 0; sorted."""
        return self.test[repeat][fold]

    def train_patients(self, repeat: int, fold: int) -> tuple[str, ...]:
        """All other patients; sorted."""
        tested = set(self.test[repeat][fold])
        return tuple(patient for patient in self.patients if patient not in tested)


def make_folds(
    cases: Sequence[Case], *, folds: int, repeats: int, seed: int, classes: Sequence[str] | None = None
) -> Folds:
    """Deal patients into folds so that every fold has its share of each class.

    Parameters
    ----------
    cases
        One a patient, labelled; their order does not matter.
    folds
        Two or more.
    repeats
        How often the patients are shuffled and dealt anew, each time from a seed of its own derived from `seed`.
    seed
        The same seed and cases give the same folds; more repeats leave the first ones as they are.
    classes
        Names of the cohort's classes, so that none of them may be empty and a fault can name it.

    Raises
    ------
    CohortError
        If all patients are of one class, or a class has fewer patients than there are folds.
    ValueError
        If a patient is there twice or has no label, or the counts are too small.
    """
    if folds < 2 or repeats < 1:
        msg = f"expected two folds or more and one repeat or more, got {folds} and {repeats}"
        raise ValueError(msg)
    label_of = _labels(cases)
    patients, labels = np.array(list(label_of)), np.array(list(label_of.values()))
    _refuse_too_few(labels.tolist(), folds, classes)
    test = []
    for derived in np.random.SeedSequence(seed).generate_state(repeats).tolist():
        dealer = StratifiedKFold(folds, shuffle=True, random_state=derived)
        test.append(tuple(tuple(patients[held].tolist()) for _, held in dealer.split(patients, labels)))
    return Folds(seed=seed, patients=tuple(patients.tolist()), test=tuple(test))


def leave_groups_out(
    cases: Sequence[Case], groups: Mapping[str, str], *, seed: int = 0, classes: Sequence[str] | None = None
) -> Folds:
    """Test each group of patients as a whole, in a fold of its own, by what the others teach.

    Parameters
    ----------
    cases
        One a patient, labelled; their order does not matter.
    groups
        The group of each patient, by pseudonym. A group may be of any size and may lack a class.
    seed
        Kept for what is drawn later in the folds; nothing is drawn here.
    classes
        As in `make_folds`.

    Returns
    -------
    One repeat with a fold for each group, sorted by name.

    Raises
    ------
    CohortError
        If all patients are of one class or in one group, or without some group fewer than two patients of a class are
        left to train on.
    ValueError
        If a patient is there twice, or has no label or no group.
    """
    label_of = _labels(cases)
    lost = [patient for patient in label_of if patient not in groups]
    if lost:
        msg = f"expected a group for each patient, got none for {lost[0]}"
        raise ValueError(msg)
    members: dict[str, tuple[str, ...]] = {
        name: tuple(patient for patient in label_of if groups[patient] == name)
        for name in sorted({groups[patient] for patient in label_of})
    }
    if len(members) < 2:
        reason = f"expected two groups of patients or more, found {', '.join(map(repr, members)) or 'none'}"
        raise CohortError(reason, remedy=f"group them by something else, or {_STRATIFIED}")
    _refuse_too_few_left(label_of, members, classes)
    return Folds(seed=seed, patients=tuple(label_of), test=(tuple(members.values()),), groups=tuple(members))


_STRATIFIED = "use folds stratified by class"

_FEWEST_TO_TRAIN_ON = 2
"""Patients of a class, of whom one can be left out again while a setting is chosen."""


def proof(folds: Folds, cases: Sequence[Case]) -> dict[str, Any]:
    """Show, from the cases themselves, that the folds are disjoint and complete.

    Parameters
    ----------
    folds
        What is to be proven.
    cases
        Those that will be trained and tested on.

    Returns
    -------
    A value that JSON can hold: for each repeat and fold the name of the group that is tested, where whole groups are
    left out, the patients and images of each class on both sides, how many patients and pixel hashes they share, and
    the SHA-256 of both sorted lists of patients, one a line.

    Raises
    ------
    CohortError
        If a patient, or an image's pixels, are on both sides; if a patient is not tested exactly once in a repeat; or
        if the folds were made for other patients.
    """
    case_of = {case.patient: case for case in cases}
    if sorted(case.patient for case in cases) != list(folds.patients):
        raise CohortError("the folds were made for other patients", remedy="make the folds again")
    splits = []
    for repeat in range(folds.repeats):
        times_tested = Counter(patient for held in folds.test[repeat] for patient in held)
        if times_tested != Counter(folds.patients):
            raise CohortError(f"in repeat {repeat} some patients are not tested exactly once", remedy=_AGAIN)
        for fold in range(folds.folds):
            train = [case_of[patient] for patient in folds.train_patients(repeat, fold)]
            test = [case_of[patient] for patient in folds.test_patients(repeat, fold)]
            place = {"repeat": repeat, "fold": fold, **({} if folds.groups is None else {"group": folds.groups[fold]})}
            splits.append({**place, **_proven_disjoint(train, test, f"{repeat}, fold {fold}")})
    return {
        "seed": folds.seed,
        "repeats": folds.repeats,
        "folds": folds.folds,
        "patients": len(folds.patients),
        "every_patient_tested_once_a_repeat": True,
        "splits": splits,
    }


_AGAIN = "make the cohort and its folds again"


def _proven_disjoint(train: Sequence[Case], test: Sequence[Case], where: str) -> dict[str, Any]:
    shared_patients = {case.patient for case in train} & {case.patient for case in test}
    shared_pixels = _pixels(train) & _pixels(test)
    if shared_patients or shared_pixels:
        reason = f"{len(shared_patients)} patients and {len(shared_pixels)} images are on both sides of repeat {where}"
        raise CohortError(reason, remedy="give images with the same pixels to one patient, or remove one of them")
    return {
        "train": _side(train),
        "test": _side(test),
        "shared_patients": len(shared_patients),
        "shared_pixels": len(shared_pixels),
    }


def _side(cases: Sequence[Case]) -> dict[str, Any]:
    """Count by class index, and digest the patients."""
    patients = Counter(map(_label, cases))
    images: Counter[int] = Counter()
    for case in cases:
        images[_label(case)] += len(case.images)
    return {
        "patients": {str(label): patients[label] for label in sorted(patients)},
        "images": {str(label): images[label] for label in sorted(images)},
        "sha256": sha256_of_text("\n".join(sorted(case.patient for case in cases))),
    }


def _pixels(cases: Iterable[Case]) -> set[str]:
    return {image.pixel_sha256 for case in cases for image in case.images}


def _label(case: Case) -> int:
    if case.label is None:
        msg = f"expected a label, got none for patient {case.patient}"
        raise ValueError(msg)
    return case.label


def _labels(cases: Sequence[Case]) -> dict[str, int]:
    """Label of each patient, sorted by pseudonym."""
    label_of = {case.patient: _label(case) for case in sorted(cases, key=lambda case: case.patient)}
    if len(label_of) < len(cases):
        msg = "expected each patient once"
        raise ValueError(msg)
    return label_of


def _class_names(labels: Iterable[int], classes: Sequence[str] | None) -> dict[int, str]:
    """Name of each class by index; there are two or more."""
    names = {label: str(label) for label in labels} if classes is None else dict(enumerate(classes))
    if len(names) < 2:
        raise CohortError("all patients are of one class", remedy="choose two classes that have patients")
    return names


def _refuse_too_few(labels: Sequence[int], folds: int, classes: Sequence[str] | None) -> None:
    names = _class_names(labels, classes)
    patients = {label: labels.count(label) for label in names}
    label, fewest = min(patients.items(), key=lambda item: item[1])
    if fewest < folds:
        reason = f"class {names[label]!r} has {fewest} patients, too few for {folds} folds"
        remedy = f"use --folds {fewest}" if fewest > 1 else "gather more patients of this class"
        raise CohortError(reason, remedy=remedy)


def _refuse_too_few_left(
    label_of: Mapping[str, int], members: Mapping[str, Sequence[str]], classes: Sequence[str] | None
) -> None:
    names = _class_names(label_of.values(), classes)
    everyone = Counter(label_of.values())
    for group, tested in members.items():
        left = everyone - Counter(label_of[patient] for patient in tested)
        label = min(names, key=left.__getitem__)
        if left[label] < _FEWEST_TO_TRAIN_ON:
            reason = (
                f"without group {group!r} {left[label]} patients of class {names[label]!r} are left to train on, "
                f"expected {_FEWEST_TO_TRAIN_ON} or more"
            )
            remedy = f"gather patients of this class outside of that group, or {_STRATIFIED}"
            raise CohortError(reason, remedy=remedy)
