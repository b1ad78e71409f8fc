"""The audit of a mix: whether what there is of a patient tells the label, and each modality by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from mixed_samples import ALL, write_mixed_cohort
from samples import CLASSES

from osteoscope.cohort.audit import audit
from osteoscope.cohort.audit.twins import _candidates, _pictures, look_at
from osteoscope.cohort.baselines import MIX, baselines
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.subgroups import patient_groups
from osteoscope.cohort.table import cases, read_cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort

OS, GCT = CLASSES


def made(folder: Path, there: Callable[[int], Collection[str]], patients: int = 10) -> Cohort:
    return read_cohort(write_mixed_cohort(folder, patients=patients, there=there))


def modality_shortcut(cohort: Cohort) -> Finding | None:
    return next((one for one in audit(cohort).findings if one.kind == "modality-shortcut"), None)


def test_a_modality_that_is_missing_in_a_whole_class_blocks(tmp_path: Path) -> None:
    """Every second patient is of one class: of the others there is no MR."""
    found = modality_shortcut(made(tmp_path, lambda number: ("CT", "MR") if number % 2 == 0 else ("CT",)))
    assert found is not None
    assert found.severity == "block"
    assert f"the modality MR are there of 10 of 10 patients of {OS!r}, 0 of 10 patients of {GCT!r}" in found.message
    assert "modality CT" not in found.message
    assert "which modalities there are alone: AUC 1.00" in found.message
    assert "same modalities" in found.remedy


def test_of_few_patients_it_warns(tmp_path: Path) -> None:
    """Four against none is what chance makes once in 35 times."""
    found = modality_shortcut(made(tmp_path, lambda number: ("CT", "MR")[: 2 - number % 2], patients=4))
    assert found is not None
    assert found.severity == "warn"


@pytest.mark.slow
def test_modalities_that_are_missing_whatever_the_class_are_no_shortcut(tmp_path: Path) -> None:
    cohort = made(tmp_path, lambda number: ALL if number // 2 % 2 else ALL[:2])
    found = audit(cohort)
    assert not [one for one in found.findings if one.kind == "modality-shortcut"]
    assert found.alone["modality"].auc.n == 20
    # Each modality is heard by itself, and what only one of them has under its own name.
    heard = set(found.alone)
    assert {"geometry (CT)", "geometry (MR)", "geometry (radiograph)", "file (CT)", "noise (MR)", "border"} <= heard
    assert not {"geometry", "noise", "border (radiograph)"} & heard
    assert found.alone["geometry (radiograph)"].auc.n == 10
    assert found.alone["geometry (CT)"].sees == "scan geometry (CT)"


def test_of_one_modality_nothing_is_said_of_modalities(tmp_path: Path) -> None:
    found = audit(made(tmp_path, lambda _number: ("CT",), patients=3))
    assert "modality" not in found.alone
    assert "geometry" in found.alone


def test_a_shortcut_within_a_modality_is_named_with_it(tmp_path: Path) -> None:
    """The radiographs of one class are other files; their CT are not."""
    cohort = made(tmp_path, lambda _number: ("CT", "radiograph"))
    for case in cases(cohort):
        for image in case.images:
            if image.modality == "radiograph" and case.label == 0:
                with image.path.open("ab") as stream:
                    stream.write(bytes(20_000))
    (found,) = [one for one in audit(cohort).findings if one.kind == "file-shortcut"]
    assert found.severity == "block"
    assert "file format and size (radiograph) alone" in found.message


def test_images_of_two_modalities_are_no_copies_of_each_other(tmp_path: Path) -> None:
    cohort = made(tmp_path, lambda _number: ("CT", "MR"), patients=3)
    looks, pictures = look_at(cohort), _pictures(cohort)
    found = _candidates(pictures, len(pictures), looks, across=False)
    assert found
    assert all(pictures[one.moving].modality == pictures[one.fixed].modality for one in found)
    both = _candidates(pictures + pictures, len(pictures), looks, across=True)
    assert all(one.moving % len(pictures) == one.fixed % len(pictures) for one in both[: len(pictures)])


def test_a_result_is_looked_at_by_what_there_was_of_a_patient(tmp_path: Path) -> None:
    cohort = made(tmp_path, lambda number: ALL if number < 2 else ("CT",) if number < 4 else ("CT", "radiograph"))
    of_patients = patient_groups(cohort, cases(cohort))["modality"]
    assert sorted(of_patients.values()) == ["CT"] * 2 + ["CT+MR+radiograph"] * 2 + ["CT+radiograph"] * 16


def test_a_baseline_sees_which_modalities_there_are(tmp_path: Path) -> None:
    cohort = made(tmp_path, lambda number: ("CT", "MR") if number % 2 == 0 else ("CT",))
    folds = make_folds(cases(cohort), folds=2, repeats=1, seed=0, classes=cohort.classes)
    found = baselines(cohort, folds)[-1]
    assert found.name == MIX
    assert found.probabilities is not None
    label_of = {case.patient: case.label for case in cases(cohort)}
    labels = np.array([label_of[patient] for patient in found.patients])
    said = found.probabilities[0, :, 1]
    assert said[labels == 1].min() > said[labels == 0].max()
