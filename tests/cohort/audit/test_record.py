"""How diagnoses were proven, and what was done to the lesion before the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import fisher_exact

from osteoscope.cohort.audit.record import find_in_record
from osteoscope.cohort.audit.shares import ClassShares
from osteoscope.cohort.table import Cohort, Row, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.cohort.audit import Finding


def found_in(of_a: Sequence[dict[str, Any]], of_b: Sequence[dict[str, Any]]) -> dict[str, Finding]:
    """Audit the records of so many patients of class a and of class b, one image each."""
    rows = [
        Row(
            patient=f"P-{label}{number:02}",
            guessed=False,
            image=f"{label}{number}.png",
            file_sha256="",
            pixel_sha256=f"{label}{number}",
            rows=40,
            columns=40,
            modality="radiograph",
            role="case",
            label=label,
            **{"proof": "histology", **facts},
        )
        for label, people in (("a", of_a), ("b", of_b))
        for number, facts in enumerate(people)
    ]
    findings = find_in_record(Cohort(frame=frame_of(rows), classes=("a", "b"), root=Path(), source="s"))
    return {finding.kind: finding for finding in findings}


def test_a_record_of_proven_untouched_lesions_has_no_findings() -> None:
    assert found_in([{}] * 10, [{"treated": False, "biopsied": False, "implant": False}] * 10) == {}


def test_unknown_proofs_are_noted_once() -> None:
    found = found_in([{"proof": None}] * 3, [{"proof": None}] * 3)
    assert {kind: finding.severity for kind, finding in found.items()} == {"proof-not-recorded": "note"}


def test_labels_without_tissue_warn_with_their_share_by_class() -> None:
    found = found_in([{}] * 10, [{}] * 6 + [{"proof": "imaging"}] * 3 + [{"proof": None}])
    finding = found["proof-without-tissue"]
    assert finding.severity == "warn"
    assert finding.cases == ("P-b06", "P-b07", "P-b08", "P-b09")
    assert "0 of 10 patients of 'a', 4 of 10 patients of 'b'" in finding.message


def test_cytology_is_tissue() -> None:
    assert found_in([{}] * 2, [{"proof": "cytology"}] * 2) == {}


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"treated": True}, "after-treatment"),
        ({"biopsied": True}, "after-biopsy"),
        ({"implant": True}, "implant"),
        ({"image_date": "2020-03-02", "proof_date": "2020-03-01"}, "after-biopsy"),
    ],
)
def test_what_one_class_alone_has_blocks(facts: dict[str, Any], kind: str) -> None:
    found = found_in([{}] * 12, [facts] * 11 + [{}])
    assert {name: finding.severity for name, finding in found.items()} == {kind: "block"}
    assert len(found[kind].cases) == 11
    assert "0 of 12 patients of 'a', 11 of 12 patients of 'b'" in found[kind].message


def test_what_a_few_of_both_classes_have_is_said() -> None:
    few = [{"treated": True, "biopsied": True, "implant": True}] * 2
    found = found_in(few + [{}] * 10, few + [{}] * 10)
    assert {kind: finding.severity for kind, finding in found.items()} == {
        "after-biopsy": "warn",
        "after-treatment": "warn",
        "implant": "note",
    }


def test_what_depends_on_the_class_warns_with_fishers_test() -> None:
    finding = found_in([{"implant": True}] * 3 + [{}] * 27, [{"implant": True}] * 15 + [{}] * 15)["implant"]
    assert finding.severity == "warn"
    assert f"p = {fisher_exact(np.array([[3, 27], [15, 15]])).pvalue:.2g}" in finding.message


def test_an_image_before_or_on_the_day_of_the_proof_or_with_a_proof_by_imaging_is_not_after_biopsy() -> None:
    same_day = {"image_date": "2020-03-01", "proof_date": "2020-03-01"}
    by_imaging = {"image_date": "2020-03-09", "proof_date": "2020-03-01", "proof": "imaging"}
    assert set(found_in([same_day] * 5, [by_imaging] * 5)) == {"proof-without-tissue"}


def test_too_few_patients_to_tell_do_not_block() -> None:
    found = found_in([{}] * 3, [{"treated": True}] * 3)
    assert {kind: finding.severity for kind, finding in found.items()} == {"after-treatment": "warn"}


def test_of_three_classes_each_pair_is_tested_and_the_test_corrected() -> None:
    shares = ClassShares(held={"a": 9, "b": 1, "c": 5}, patients={"a": 10, "b": 10, "c": 10})
    assert shares.p_value() == pytest.approx(3 * fisher_exact(np.array([[9, 1], [1, 9]])).pvalue)
    assert shares.tell_apart()
    assert shares.differ(by=0.8)
    assert not shares.differ(by=0.9)
    assert ClassShares(held={"a": 1}, patients={"a": 2}).p_value() == 1
