"""A bundle fitted to another site: the same networks, other probabilities, honest figures, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import runpy
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import CLASSES, write_table_cohort

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle, read_recalibration_cases, read_training_cases
from osteoscope.cohort.table import cases, read_cohort, write_cohort
from osteoscope.errors import BundleError, CohortError, ConfigError, StorageError
from osteoscope.evaluation.calibration import choose_calibration, stratified_folds
from osteoscope.evaluation.conformal import ConformalThresholds
from osteoscope.evaluation.conformal import fit as fit_conformal
from osteoscope.inference.predictor import load_predictor, verdicts_of
from osteoscope.workflow.recalibrating import RecalibrationSummary, recalibrate
from osteoscope.workflow.robustness import sweep_robustness
from osteoscope.workflow.unseen import check_unseen

OS, GCT = "osteosarcoma", "giant_cell_tumor"


def site_cohort(folder: Path, *, patients: int, turned: int = 0, drop: int = 0, prefix: str = "S") -> Path:
    """A cohort of another site: of each class `patients`, the first `turned` of each under the other diagnosis.

    Of the second class the last `drop` patients are left out.
    """
    table = write_table_cohort(folder, patients=patients, seed=21, prefix=prefix)
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    other = dict(zip(CLASSES, reversed(CLASSES), strict=True))
    left_out = {f"{prefix}{2 * patients - 1 - 2 * i}" for i in range(drop)}
    kept = [row for row in rows if row["patient"] not in left_out]
    for row in kept:
        if int(row["patient"].removeprefix(prefix)) < 2 * turned:
            row["label"] = other[row["label"]]
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    workflow.cohort_from_table(table, folder / "cohort", images=folder / "images", classes=CLASSES, source="site")
    return folder / "cohort"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 patients of the one class and 12 of the other, of whom 3 each are under the other diagnosis."""
    return site_cohort(tmp_path_factory.mktemp("site"), patients=18, turned=3, drop=6)


@pytest.fixture(scope="module")
def parent(run_folder: Path) -> Path:
    return run_folder / "bundle"


@pytest.fixture(scope="module")
def made(parent: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> RecalibrationSummary:
    return recalibrate(parent, site, tmp_path_factory.mktemp("made") / "bundle", threads=1)


@pytest.fixture(scope="module")
def seen(parent: Path, site: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of the site's patients."""
    predictor = load_predictor(load_bundle(parent), threads=1)
    predictions = [predictor.explain(case).prediction for case in cases(read_cohort(site))]
    return np.array([one.logits for one in predictions]), np.array([one.label for one in predictions])


def test_the_networks_are_the_same_byte_for_byte(made: RecalibrationSummary, parent: Path) -> None:
    names = sorted(path.relative_to(parent) for path in (parent / "members").rglob("*.*"))
    assert len(names) == 6
    for name in names:
        assert (made.folder / name).read_bytes() == (parent / name).read_bytes()


def test_the_prior_is_that_of_the_sites_patients(made: RecalibrationSummary) -> None:
    assert made.manifest.prior == {OS: pytest.approx(0.6), GCT: pytest.approx(0.4)}
    assert "class shares of the 30 patients of site" in made.manifest.calibration.prior_source


def test_calibration_and_thresholds_are_those_of_the_sites_patients(
    made: RecalibrationSummary, seen: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = seen
    expected = choose_calibration(logits, labels, (0.6, 0.4))
    assert expected.calibration.method != "none"
    assert made.manifest.calibration_map() == expected.calibration
    assert made.manifest.calibration.losses == expected.losses
    thresholds = fit_conformal(expected.calibration.apply(logits), labels, 0.9)
    assert made.manifest.verdicts.conformal() == thresholds
    assert isinstance(thresholds, ConformalThresholds)
    assert thresholds.counts == (18, 12)


def test_the_figures_after_are_cross_fitted_prior_and_all(
    made: RecalibrationSummary, parent: Path, seen: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = seen
    before = load_bundle(parent).manifest.calibration_map()
    truth = labels == 1

    def brier(probabilities: np.ndarray) -> float:
        return float(((probabilities[:, 1] - truth) ** 2).mean())

    folds = stratified_folds(labels, 5)
    after, prior_only = np.empty((30, 2)), np.empty((30, 2))
    for fold in range(5):
        held = folds == fold
        shares = np.bincount(labels[~held]) / (~held).sum()
        chosen = choose_calibration(logits[~held], labels[~held], shares)
        after[held] = chosen.calibration.apply(logits[held])
        prior_only[held] = before.restated(shares).apply(logits[held])
    figures = made.step.figures
    assert figures["before"]["brier"]["value"] == pytest.approx(brier(before.apply(logits)))
    assert figures["prior_only"]["brier"]["value"] == pytest.approx(brier(prior_only))
    assert figures["after"]["brier"]["value"] == pytest.approx(brier(after))
    own = after[np.arange(30), labels]
    assert figures["after"]["log_loss"]["value"] == pytest.approx(-np.log(own).mean())
    own = before.apply(logits)[np.arange(30), labels]
    assert figures["before"]["log_loss"]["value"] == pytest.approx(-np.log(own).mean())


def test_the_lineage_tells_what_was_done(made: RecalibrationSummary, parent: Path, site: Path) -> None:
    (step,) = made.manifest.lineage
    assert step.action == "recalibrated"
    assert step.parent_sha256 == (parent / "bundle.json.sha256").read_text().split()[0]
    assert step.cohort_fingerprint == read_cohort(site).fingerprint()
    assert (step.patients, step.source, step.fitted) == ({OS: 18, GCT: 12}, "site", True)
    assert step.prior_from == {OS: 0.5, GCT: 0.5}
    assert step.prior_to == made.manifest.prior
    assert made.notes == ()
    card = (made.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## Lineage" in card
    assert step.parent_sha256 in card
    assert "osteosarcoma 60%, giant cell tumor 40%" in card
    assert "recalibrated since" in card


def test_what_training_said_of_the_bundle_is_kept(made: RecalibrationSummary, parent: Path) -> None:
    old, new = load_bundle(parent).manifest, made.manifest
    changed = {"prior", "calibration", "verdicts", "lineage", "files"}
    for name in type(old).model_fields.keys() - changed:
        assert getattr(new, name) == getattr(old, name), name


def test_the_same_recalibration_gives_the_same_bytes(
    made: RecalibrationSummary, parent: Path, site: Path, tmp_path: Path
) -> None:
    again = recalibrate(parent, site, tmp_path / "bundle", threads=1)
    for name in ("bundle.json", "MODEL_CARD.md", "training_cases.json"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()


def test_it_remembers_whom_it_saw_in_which_role(made: RecalibrationSummary, parent: Path, site: Path) -> None:
    bundle = load_bundle(made.folder)
    assert read_training_cases(bundle) == read_training_cases(load_bundle(parent))
    fitted = read_recalibration_cases(bundle)
    of_site = cases(read_cohort(site))
    assert fitted.patients == {case.patient for case in of_site}
    assert fitted.pixels == {image.pixel_sha256 for case in of_site for image in case.images}
    assert read_recalibration_cases(load_bundle(parent)).patients == frozenset()


def test_the_patients_it_was_recalibrated_on_are_refused_in_that_role(
    made: RecalibrationSummary, site: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(made.folder)
    with pytest.raises(CohortError, match=r"30 of 30 patients.*was recalibrated on"):
        check_unseen(bundle, read_cohort(site))
    with pytest.raises(CohortError, match="the model was trained on"):
        check_unseen(bundle, read_cohort(cohort_folder))
    with pytest.raises(CohortError, match="recalibrated on"):
        recalibrate(made.folder, site, tmp_path / "again")
    with pytest.raises(CohortError, match="recalibrated on"):
        sweep_robustness(made.folder, site, tmp_path / "sweep")
    with pytest.raises(CohortError, match="recalibrated on"):
        workflow.evaluate(made.folder, site, tmp_path / "evaluation")


def test_pixels_it_was_recalibrated_on_are_refused_under_another_name(
    made: RecalibrationSummary, site: Path, tmp_path: Path
) -> None:
    cohort = read_cohort(site)
    renamed = cohort.frame.assign(patient=cohort.frame["patient"].str.replace("P-", "Q-").astype("string"))
    write_cohort(replace(cohort, frame=renamed), tmp_path / "renamed")
    with pytest.raises(CohortError, match="or their images, are among those"):
        check_unseen(load_bundle(made.folder), read_cohort(tmp_path / "renamed"))


def test_a_second_recalibration_is_a_second_step_and_both_sites_stay_refused(
    made: RecalibrationSummary, site: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    second = recalibrate(made.folder, other_cohort_folder, tmp_path / "second", threads=1)
    first_step, second_step = second.manifest.lineage
    assert first_step == made.step
    assert second_step.parent_sha256 == (made.folder / "bundle.json.sha256").read_text().split()[0]
    bundle = load_bundle(second.folder)
    for folder in (site, other_cohort_folder):
        with pytest.raises(CohortError, match="recalibrated on"):
            check_unseen(bundle, read_cohort(folder))


def test_few_patients_change_the_prior_alone_and_that_is_said(
    made: RecalibrationSummary, other_cohort_folder: Path, tmp_path: Path
) -> None:
    """6 of each class: too few for a calibration and for thresholds of their own."""
    few = recalibrate(made.folder, other_cohort_folder, tmp_path / "bundle", prior={OS: 0.9, GCT: 0.1}, threads=1)
    old, new = made.manifest, few.manifest
    assert not few.step.fitted
    assert new.prior == {OS: pytest.approx(0.9), GCT: pytest.approx(0.1)}
    assert new.calibration_map() == old.calibration_map().restated((0.9, 0.1))
    assert few.notes[0] == (
        "The calibration was kept: the cohort has 6 patients of osteosarcoma, and 10 are needed to fit one."
    )
    assert "thresholds were kept, restated to the new prior" in few.notes[1]
    assert "under 9" in few.notes[1]
    # The same cases are decided as before: a promise by class does not depend on the classes' shares.
    logits = np.random.default_rng(0).normal(size=(400, 2)) * 4
    before = verdicts_of(old.calibration_map().apply(logits), old.verdicts.conformal())
    after = verdicts_of(new.calibration_map().apply(logits), new.verdicts.conformal())
    np.testing.assert_array_equal(before, after)
    assert len(set(before.tolist())) > 1


def test_the_prior_can_be_kept(made: RecalibrationSummary, other_cohort_folder: Path, tmp_path: Path) -> None:
    kept = recalibrate(made.folder, other_cohort_folder, tmp_path / "bundle", keep_prior=True, threads=1)
    assert kept.manifest.prior == made.manifest.prior
    assert kept.manifest.calibration == made.manifest.calibration
    assert kept.manifest.verdicts == made.manifest.verdicts


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({OS: 0.9}, "share of each class, osteosarcoma, giant_cell_tumor"),
        ({OS: 0.5, "ewing": 0.5}, "share of each class"),
        ({OS: 0.9, GCT: 0.2}, "sum to 1"),
        ({OS: 1.0, GCT: 0.0}, "positive"),
        ({OS: float("nan"), GCT: 0.5}, "positive"),
    ],
)
def test_a_prior_that_is_none_is_refused(
    parent: Path, site: Path, tmp_path: Path, prior: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recalibrate(parent, site, tmp_path / "bundle", prior=prior)


def test_a_prior_cannot_be_given_and_kept(parent: Path, site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and shall be kept"):
        recalibrate(parent, site, tmp_path / "bundle", prior={OS: 0.5, GCT: 0.5}, keep_prior=True)


def test_the_training_cohort_is_refused(parent: Path, cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="the model was trained on"):
        recalibrate(parent, cohort_folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_other_classes_are_refused(parent: Path, site: Path, tmp_path: Path) -> None:
    cohort = read_cohort(site)
    write_cohort(replace(cohort, classes=cohort.classes[::-1]), tmp_path / "turned")
    with pytest.raises(CohortError, match="in this order"):
        recalibrate(parent, tmp_path / "turned", tmp_path / "bundle")


def test_a_single_patient_of_a_class_is_refused_and_what_is_needed_is_said(parent: Path, tmp_path: Path) -> None:
    folder = site_cohort(tmp_path, patients=3, drop=2, prefix="T")
    with pytest.raises(CohortError, match="found 3 osteosarcoma, 1 giant cell tumor; 10 of each are needed to fit"):
        recalibrate(parent, folder, tmp_path / "bundle")


@pytest.mark.parametrize("inside", [".", "members/2", "new"])
def test_the_parent_is_never_written_over(parent: Path, site: Path, inside: str) -> None:
    before = sorted(path.name for path in parent.rglob("*"))
    with pytest.raises(StorageError, match="in the bundle that is read"):
        recalibrate(parent, site, parent / inside)
    assert sorted(path.name for path in parent.rglob("*")) == before


def test_a_folder_of_something_else_is_refused_before_a_patient_is_read(
    parent: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    read: list[tuple[int, int]] = []
    with pytest.raises(StorageError, match="is already there and is not a bundle"):
        recalibrate(parent, site, tmp_path, threads=1, progress=lambda *said: read.append(said))
    assert read == []


def test_a_changed_byte_in_the_new_bundle_is_found(made: RecalibrationSummary, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(made.folder, tmp_path / "bundle")
    content: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    content["lineage"] = []
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="SHA-256 differs"):
        load_bundle(folder)


def test_the_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    documented = Path(__file__).parents[2] / "docs" / "calibration.md"
    (example,) = re.findall(r"^## In Python\n((?:    .*\n|\n)+)", documented.read_text(encoding="utf-8"), re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(textwrap.dedent(example).replace("\ncross_fitted(", "\nfitted = cross_fitted("), encoding="utf-8")
    rng = np.random.default_rng(1)
    given = {"logits": rng.normal(size=(40, 2)), "labels": np.arange(40) % 2, "new_logits": rng.normal(size=(3, 2))}
    made = runpy.run_path(str(script), init_globals=given)
    assert [field.name for field in fields(made["chosen"].calibration)] == ["method", "temperature", "bias", "prior"]
    assert set(made["chosen"].losses) == {"none", "temperature", "affine"}
    assert made["fitted"].shape == (40, 2)
    np.testing.assert_allclose(made["fitted"].sum(axis=1), 1)
