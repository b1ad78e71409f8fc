"""The audit of CT and MR from a table: scans that are there twice, and shortcuts of how they were acquired."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_series
from made_up import GCT, OS, entries, write_cohort_of
from scipy import ndimage

from osteoscope.cohort.audit import Audit, audit
from osteoscope.cohort.audit.patients import find_split_patients
from osteoscope.cohort.audit.twins import find_twins, look_at, twin_findings
from osteoscope.cohort.baselines import ACQUISITION, CLINICAL, CLINICAL_LEVEL, MAJORITY, baselines
from osteoscope.cohort.from_table import read_table
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import cases
from osteoscope.imaging.nifti import write_nifti
from osteoscope.phantom.patients import draw_patients
from osteoscope.phantom.render import render
from osteoscope.phantom.scanner import Acquisition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from made_up import Entry

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort

SHAPE = (8, 64, 64)


def body(seed: int, *, noise: float = 15, blur: float = 0.0, enhanced: float = 0) -> np.ndarray:
    """Draw fat, muscle and some bones, with noise of a kernel: HU (8, 64, 64); no two seeds look alike."""
    rng = np.random.default_rng(seed)
    values = np.full(SHAPE, 60.0 + enhanced)
    values[:, :16] = -100
    plane, row, column = np.mgrid[:8, :64, :64]
    for _ in range(14):
        z, y, x, spread = rng.uniform(0, 8), rng.uniform(8, 60), rng.uniform(4, 60), rng.uniform(1.5, 4)
        apart = ((plane - z) / 2) ** 2 + (row - y) ** 2 + (column - x) ** 2
        values += rng.uniform(300, 900) * np.exp(-apart / (2 * spread**2))
    grain = rng.normal(size=SHAPE)
    if blur:
        grain = ndimage.gaussian_filter(grain, (0, blur, blur))
    return np.asarray(values + noise * grain / grain.std())


def people(patients: int = 20, seed: int = 0) -> list[Entry]:
    """So many patients, every second of one class, with a scan each; all else is drawn without regard to the label."""
    rng = np.random.default_rng(seed)
    return [
        {
            "patient": f"person {number}",
            "image": f"{number:02}.nii",
            "label": (OS, GCT)[number % 2],
            "age": int(rng.integers(8, 80)),
            "sex": str(rng.choice(["F", "M"])),
            "level": str(rng.choice(["cervical", "thoracic", "lumbar"])),
            "centre": str(rng.choice(["A", "B"])),
            "values": body(1000 * seed + number),
            "step": 3.0,
        }
        for number in range(patients)
    ]


def cohort_of(folder: Path, made: Sequence[Entry]) -> Cohort:
    """Write the scans and a table of them, and read it as users do."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        if one["values"] is not None:
            write_nifti(folder / one["image"], one["values"].astype(np.float32), np.diag([1.0, 1.0, one["step"], 1.0]))
    return tabled(folder, made)


def tabled(folder: Path, made: Sequence[Entry]) -> Cohort:
    columns = [name for name in made[0] if name not in {"values", "step"}]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(made)
    return read_table(folder / "table.csv", folder)


def shortcuts(found: Audit) -> dict[str, str]:
    return {one.kind: one.severity for one in found.findings if one.kind.endswith("-shortcut")}


def of_kind(found: Audit, kind: str) -> list[Finding]:
    return [one for one in found.findings if one.kind == kind]


def blocking(found: Audit) -> set[str]:
    return {one.kind for one in found.findings if one.severity == "block"}


# Clean cohorts


def test_a_clean_cohort_of_scans_has_notes_alone_and_the_same_again(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, people())
    found = audit(cohort)
    assert {one.severity for one in found.findings} == {"note"}
    assert set(found.alone) >= {"geometry", "noise", "contrast", "scanner", "file", "centre", CLINICAL_LEVEL}
    assert not {"border", "exposure"} & set(found.alone)
    assert found.alone["geometry"].sees == "scan geometry"
    assert set(found.features["00.nii"]) == {
        *("planes", "plane_step", "pixel", "height", "width", "from_axial", "from_sagittal", "noise", "grain")
    }
    assert audit(cohort) == found


def test_levels_and_masks_of_one_class_alone_are_said(tmp_path: Path) -> None:
    made = people()
    marked = np.zeros(SHAPE, dtype=np.float32)
    marked[3:5, 30:40, 30:40] = 1
    write_nifti(tmp_path / "mask.nii", marked, np.diag([1.0, 1.0, 3.0, 1.0]))
    for one in made:
        one["level"], one["mask"] = ("lumbar", "mask.nii") if one["label"] == OS else ("sacral", "")
    found = audit(cohort_of(tmp_path, made))
    assert found.tables.counts["level"] == {OS: {"lumbar": 10}, GCT: {"sacral": 10}}
    (clinical,) = of_kind(found, "clinical-confounder")
    assert "age, sex and level of the spine alone: AUC 1.00" in clinical.message
    (masks,) = of_kind(found, "outline-depends-on-label")
    assert masks.severity == "warn"
    assert f"0 of 10 patients of {GCT!r}, 10 of 10 patients of {OS!r}" in masks.message


def test_pictures_and_scans_are_audited_together(tmp_path: Path) -> None:
    pictures = entries(0, (6, 6), views=1)
    write_cohort_of(tmp_path, pictures)
    found = audit(cohort_of(tmp_path, [*({**one, "values": None} for one in pictures), *people(12)]))
    assert not blocking(found)
    assert set(found.alone) >= {"geometry (CT)", "geometry (radiograph)", "border", "exposure", "noise", "contrast"}
    assert (found.alone["border"].auc.n, found.alone["noise"].auc.n, found.alone["modality"].auc.n) == (12, 12, 24)


# Shortcuts of the acquisition


def test_thicker_slices_of_one_class_block(tmp_path: Path) -> None:
    made = people()
    for one in made:
        one["step"] = 5.0 if one["label"] == OS else 3.0
    assert shortcuts(audit(cohort_of(tmp_path, made))) == {"geometry-shortcut": "block"}


def test_another_kernel_of_one_class_blocks(tmp_path: Path) -> None:
    made = people()
    for number, one in enumerate(made):
        one["values"] = body(number, blur=0.7 if one["label"] == OS else 0)
    found = audit(cohort_of(tmp_path, made))
    assert shortcuts(found)["noise-shortcut"] == "block"
    assert "noise and its grain alone" in of_kind(found, "noise-shortcut")[0].message


def test_contrast_given_to_one_class_warns_and_no_more(tmp_path: Path) -> None:
    made = people()
    for number, one in enumerate(made):
        one["values"] = body(number, enhanced=40 if one["label"] == OS else 0)
    found = audit(cohort_of(tmp_path, made))
    assert shortcuts(found) == {"contrast-shortcut": "warn"}
    assert found.alone["contrast"].auc.value == 1


def test_another_scanner_or_setting_by_the_header_blocks(tmp_path: Path) -> None:
    made = people()
    for number, one in enumerate(made):
        one["image"], planted = f"{number:02}/ct", one["label"] == OS
        write_series(
            tmp_path / one["image"],
            (one["values"] + 1024).astype(np.uint16)[:4],
            series=one["image"],
            RescaleIntercept=-1024,
            Manufacturer="Acme",
            ConvolutionKernel="B60f" if planted else "B30f",
            KVP="120",
        )
    found = audit(tabled(tmp_path, made))
    assert shortcuts(found) == {"scanner-shortcut": "block"}
    assert "scanner and settings by the header alone" in of_kind(found, "scanner-shortcut")[0].message


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """Phantoms of which every second was scanned at another site, by kernel and noise, whatever its tumour."""
    folder = tmp_path_factory.mktemp("phantoms")
    made = []
    for number, patient in enumerate(draw_patients(20, 5, ("A",))):
        at_b = number % 2 == 1
        scanned = Acquisition(
            kilovolt=120,
            kernel="sharp" if at_b else "soft",
            noise=15,
            thickness=4.0,
            field_of_view=180.0,
            contrast=0.0,
        )
        drawn = render(patient.attributes, patient.seed, acquisition=scanned, shape=(6, 96, 96))
        assert drawn.geometry.affine is not None
        write_nifti(folder / f"{number:02}.nii", drawn.hu.astype(np.float32), drawn.geometry.affine)
        facts = {"age": round(patient.attributes.age), "sex": patient.attributes.sex, "centre": "B" if at_b else "A"}
        made.append({"patient": f"phantom {number}", "image": f"{number:02}.nii", **facts})
    return folder, made


def test_the_planted_site_of_phantoms_is_found(two_sites: tuple[Path, list[Entry]]) -> None:
    folder, made = two_sites
    planted = [{**one, "label": OS if one["centre"] == "A" else GCT} for one in made]
    found = audit(tabled(folder, planted))
    assert shortcuts(found) == {"noise-shortcut": "block", "centre-shortcut": "block"}


def test_the_same_phantoms_have_no_shortcut_where_the_sites_are_balanced(two_sites: tuple[Path, list[Entry]]) -> None:
    folder, made = two_sites
    balanced = [{**one, "label": (OS, GCT)[number // 2 % 2]} for number, one in enumerate(made)]
    found = audit(tabled(folder, balanced))
    assert shortcuts(found) == {}
    assert not blocking(found)


# Scans that are there twice


def other_reconstruction(values: np.ndarray) -> np.ndarray:
    """Average each two slices, soften the kernel, and add other noise."""
    thick = values.reshape(4, 2, 64, 64).mean(axis=1)
    soft = ndimage.gaussian_filter(thick, (0, 0.5, 0.5))
    return np.asarray(soft + np.random.default_rng(9).normal(0, 5, soft.shape))


def twins_in(cohort: Cohort) -> tuple[Finding, ...]:
    return twin_findings(cohort, find_twins(cohort, look_at(cohort)))


def test_the_same_scan_under_two_patients_blocks(tmp_path: Path) -> None:
    made = people(12)
    made[2]["values"] = made[0]["values"]
    assert blocking(audit(cohort_of(tmp_path, made))) == {"duplicate-across-patients"}


@pytest.mark.parametrize(
    ("number", "kind"), [(2, "near-duplicate-across-patients"), (1, "near-duplicate-across-labels")]
)
def test_another_reconstruction_under_another_patient_blocks(tmp_path: Path, number: int, kind: str) -> None:
    made = people(12)
    made[number]["values"], made[number]["step"] = other_reconstruction(made[0]["values"]), 6.0
    (finding,) = twins_in(cohort_of(tmp_path, made))
    assert (finding.kind, finding.severity) == (kind, "block")
    assert f"00.nii and {number:02}.nii are one picture" in finding.message
    assert len(finding.cases) == 2


def test_another_reconstruction_of_the_same_patient_is_no_finding(tmp_path: Path) -> None:
    made = people(12)
    again = {**made[0], "image": "again.nii", "values": other_reconstruction(made[0]["values"]), "step": 6.0}
    cohort = cohort_of(tmp_path, [*made, again])
    (twin,) = find_twins(cohort, look_at(cohort))
    assert (twin.first, twin.second, twin.confirmed) == ("00.nii", "again.nii", True)
    assert twin_findings(cohort, [twin]) == ()


def test_scans_called_as_their_patients_are_no_sign_that_images_were_taken_for_patients(tmp_path: Path) -> None:
    made = people(12)
    for one in made:
        one["patient"] = one["image"]
    found = find_split_patients(cohort_of(tmp_path, made), copies_across_patients=False)
    assert "patients-are-images" not in {one.kind for one in found}


def test_the_same_values_in_other_slices_are_looked_at_anew(tmp_path: Path) -> None:
    made = people(2)
    for step in (3.0, 5.0):
        for one in made:
            one["step"] = step
        looks = look_at(cohort_of(tmp_path / str(step), made))
        assert {seen.features["plane_step"] for seen in looks.values()} == {step}


# Baselines


def test_the_acquisition_is_a_baseline_and_the_level_a_clinical_one(tmp_path: Path) -> None:
    made = people()
    for one in made:
        one["step"] = 5.0 if one["label"] == OS else 3.0
    cohort = cohort_of(tmp_path, made)
    folds = make_folds(cases(cohort), folds=3, repeats=1, seed=0, classes=cohort.classes)
    looks = look_at(cohort)
    of_image = dict(zip(cohort.frame["image"], cohort.frame["pixel_sha256"], strict=True))
    found = baselines(cohort, folds, features={image: looks[pixels].features for image, pixels in of_image.items()})
    assert [one.name for one in found] == [MAJORITY, CLINICAL, CLINICAL_LEVEL, ACQUISITION]
    labels = np.array([case.label for case in cases(cohort)])
    probabilities = found[-1].probabilities
    assert probabilities is not None
    assert ((probabilities[0, :, 1] > 0.5) == (labels == 1)).all()
