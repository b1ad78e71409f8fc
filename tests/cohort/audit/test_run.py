"""The whole audit: clean cohorts pass, planted leaks block, and the real archive shows what is known of it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_up import GCT, OS, entries, write_cohort_of

import osteoscope
from osteoscope.cohort.audit import Audit, audit
from osteoscope.cohort.baselines import CLINICAL, CLINICAL_SITE
from osteoscope.cohort.btxrd import read_btxrd
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from osteoscope.cohort.audit import Finding

ROOT = Path(__file__).parents[3]


def blocking(found: Audit) -> set[str]:
    return {finding.kind for finding in found.findings if finding.severity == "block"}


def of_kind(found: Audit, kind: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.kind == kind]


# Clean cohorts


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_cohort_does_not_block(seed: int, tmp_path: Path) -> None:
    assert blocking(audit(write_cohort_of(tmp_path, entries(seed, (12, 12), views=1)))) == set()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_200_clean_cohorts_at_most_2_have_a_blocking_finding(tmp_path: Path) -> None:
    found = [
        blocking(audit(write_cohort_of(tmp_path / str(seed), entries(seed, (12 + seed % 9, 12 + seed % 7)))))
        for seed in range(1000, 1200)
    ]
    assert sum(bool(kinds) for kinds in found) <= 2, found


# Planted leaks


def test_a_patient_of_two_labels_blocks_and_the_rest_is_audited_without_it(tmp_path: Path) -> None:
    made = entries(1, (12, 12), views=1)
    made[-1]["patient"] = made[0]["patient"]
    found = audit(write_cohort_of(tmp_path, made))
    assert blocking(found) == {"patient-with-two-labels"}
    assert found.alone["geometry"].auc.n == 22


def test_a_class_treated_throughout_and_annotated_alone_blocks(tmp_path: Path) -> None:
    made = entries(2, (12, 12), views=1)
    for entry in made:
        entry["treated"] = entry["label"] == GCT
        entry["lesions"] = (Lesion(box=(5, 5, 20, 20)),) if entry["label"] == GCT else ()
    cohort = write_cohort_of(tmp_path, made)
    assert blocking(audit(cohort, roi="box")) == {"after-treatment", "outline-depends-on-label"}


def test_too_few_patients_for_the_folds_block_training_alone(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(3, (12, 4), views=1))
    assert blocking(audit(cohort)) == {"too-few-for-folds"}
    assert blocking(audit(cohort, folds=4)) == set()
    assert blocking(audit(cohort, folds=None)) == set()


def test_a_class_of_nobody_or_of_one_is_no_trouble(tmp_path: Path) -> None:
    for count in (1, 0):
        found = audit(write_cohort_of(tmp_path / str(count), entries(4, (6, count), views=1)))
        assert blocking(found) == {"too-few-for-folds"}
        assert all(witness.auc.value is None for witness in found.alone.values())
        assert all(witness.auc.reason for witness in found.alone.values())


def test_what_another_cohort_has_too_blocks(tmp_path: Path) -> None:
    made = entries(5, (12, 12), views=1)
    cohort = write_cohort_of(tmp_path / "a", made)
    others = entries(6, (12, 12), views=1)
    assert blocking(audit(cohort, against=write_cohort_of(tmp_path / "b", others))) == set()
    others[0]["patient"] = made[0]["patient"]
    others[1]["picture"] = made[1]["picture"]
    found = audit(cohort, against=write_cohort_of(tmp_path / "c", others))
    assert {"shared-patient", "shared-pixels"} <= blocking(found)
    assert len(of_kind(found, "shared-patient")[0].cases) == 1


def test_an_audit_survives_json_and_is_the_same_again(tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path, entries(7, (8, 8), views=1))
    found = audit(cohort)
    stored = {**found.to_json(), "features": found.features}
    assert Audit.from_json(json.loads(json.dumps(stored, allow_nan=False))) == found
    assert audit(cohort) == found


def test_progress_is_told_of_every_picture(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    made = entries(8, (6, 6), views=1)
    audit(write_cohort_of(tmp_path, made), progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (12, 12)


# The real archive


@pytest.mark.slow
def test_osteosarcoma_against_giant_cell_tumour_warns_of_its_shortcuts(btxrd: Path) -> None:
    found = audit(read_btxrd(btxrd, (OS, GCT)), roi="outline")
    assert blocking(found) == set()
    (copies,) = [finding for finding in found.findings if "IMG000415" in finding.message]
    assert copies.severity == "warn"
    assert "images/IMG000497.jpeg" in copies.message
    assert of_kind(found, "geometry-shortcut")[0].severity == "warn"
    assert of_kind(found, "patients-may-be-one")[0].severity == "warn"
    assert of_kind(found, "proof-not-recorded")
    assert {CLINICAL, CLINICAL_SITE, "geometry"} <= set(found.alone)
    assert found.tables.counts["sex"][GCT] == {"M": 15, "F": 6}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_normals_of_another_size_block(btxrd: Path) -> None:
    found = audit(read_btxrd(btxrd, (OS, GCT, "normal")), roi="outline")
    assert {"geometry-shortcut", "outline-depends-on-label"} <= blocking(found)
    geometry = found.alone["geometry"].auc
    assert geometry.low is not None
    assert geometry.low > 0.9
    assert of_kind(found, "record-depends-on-label")


# The documentation


def test_every_kind_is_documented() -> None:
    folder = Path(osteoscope.__file__).parent / "cohort" / "audit"
    constants = {
        node.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    kinds = {text for text in constants if re.fullmatch(r"[a-z]+(-[a-z]+)+", text)} | {
        f"{name}-shortcut"
        for name in (
            "geometry",
            "border",
            "exposure",
            "noise",
            "contrast",
            "scanner",
            "file",
            "view",
            "centre",
            "modality",
        )
    }
    documented = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")))
    assert kinds - {"-shortcut", "follow-up"} <= documented
