"""A bundle on other cases: what comes out, without torch, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from samples import CLASSES, lesion_picture, write_table_cohort

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.errors import CohortError, ConfigError, StorageError
from osteoscope.inference.predictor import load_predictor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def evaluation(run_folder: Path, other_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "out"
    workflow.evaluate(run_folder / "bundle", other_cohort_folder, folder)
    return folder


def test_it_leaves_figures_predictions_a_report_and_case_pages(evaluation: Path) -> None:
    names = {path.name for path in evaluation.iterdir()}
    assert names == {"metrics.json", "predictions.csv", "predictions_images.csv", "report.html", "cases"}
    assert len(list((evaluation / "cases").glob("*.html"))) == 12
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert (metrics["n_patients"], metrics["n_images"], metrics["roi"]) == (12, 16, "box")
    assert metrics["patient"]["auc"]["value"] > 0.9


def test_predictions_have_a_row_for_each_patient_and_each_image(evaluation: Path) -> None:
    with (evaluation / "predictions.csv").open(newline="") as stream:
        patients = list(csv.DictReader(stream))
    with (evaluation / "predictions_images.csv").open(newline="") as stream:
        images = list(csv.DictReader(stream))
    assert (len(patients), len(images)) == (12, 16)
    alone = {row["patient"] for row in images if sum(r["patient"] == row["patient"] for r in images) == 1}
    by_patient = {row["patient"]: row["p_osteosarcoma"] for row in patients}
    for row in images:
        if row["patient"] in alone:
            assert row["p_osteosarcoma"] == by_patient[row["patient"]]


def test_each_image_of_a_patient_has_what_it_says_by_itself(
    evaluation: Path, run_folder: Path, other_cohort_folder: Path
) -> None:
    predictor = load_predictor(load_bundle(run_folder / "bundle"), threads=1)
    with (evaluation / "predictions_images.csv").open(newline="") as stream:
        said = {row["image"]: float(row["p_osteosarcoma"]) for row in csv.DictReader(stream)}
    several = [case for case in cases(read_cohort(other_cohort_folder)) if len(case.images) > 1]
    assert several
    for case in several:
        logits = [image.logits for image in predictor.explain(case).prediction.images]
        expected = predictor.calibration.apply(logits)[:, 0]
        assert [said[image.image] for image in case.images] == pytest.approx(expected, abs=2e-6)
        assert len(set(expected)) == len(case.images)


def test_evidence_is_judged_by_the_threshold_that_the_run_chose(evaluation: Path, run_folder: Path) -> None:
    of_run, here = (
        json.loads((folder / "metrics.json").read_text())["localisation"]["evidence"]["threshold"]
        for folder in (run_folder, evaluation)
    )
    assert of_run == load_bundle(run_folder / "bundle").manifest.evidence_threshold == here
    assert 0 < here < 1


def test_a_page_says_what_the_images_alone_would_have_said(
    evaluation: Path, run_folder: Path, other_cohort_folder: Path
) -> None:
    predictor = load_predictor(load_bundle(run_folder / "bundle"), threads=1)
    for case in cases(read_cohort(other_cohort_folder))[:4]:
        untold = predictor.explain(dataclasses.replace(case, age=None, sex=None)).prediction
        (expected,) = predictor.calibration.apply([untold.logits])
        page = (evaluation / "cases" / f"{case.patient}.html").read_text(encoding="utf-8")
        said = re.search(r"beside the images; the images alone would have given ([a-z ]+) (\d+)\s%", page)
        assert said is not None
        assert int(said[2]) == round(100 * expected[CLASSES.index(said[1])])


def test_it_needs_no_torch(run_folder: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from osteoscope import workflow
workflow.evaluate(*map(Path, sys.argv[1:]))
assert not {"torch", "monai"} & set(sys.modules)
"""
    arguments = [run_folder / "bundle", other_cohort_folder, tmp_path / "o"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert (tmp_path / "o" / "report.html").is_file()


def test_the_cohort_it_was_trained_on_is_refused(run_folder: Path, cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="train"):
        workflow.evaluate(run_folder / "bundle", cohort_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_of_a_training_picture_is_refused_where_the_training_cohort_is_named(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=9, prefix="D")
    picture, _ = lesion_picture(bright=True, seed=0)
    Image.fromarray(picture[:, ::-1].copy()).save(tmp_path / "images" / "D000_0.png")
    workflow.cohort_from_table(
        table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES, source="made up"
    )
    study = workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "blind")
    assert "Near duplicates of the training pictures were not looked for" in study.report.read_text(encoding="utf-8")
    judge = partial(workflow.evaluate, run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")
    seen: list[tuple[int, int]] = []
    with pytest.raises(CohortError, match=r"D000_0\.png and A000_0\.png of the other cohort are one picture"):
        judge(training=cohort_folder, audited_so_far=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    shutil.copytree(cohort_folder.parent / "images", tmp_path / "moved")
    shutil.copytree(cohort_folder, tmp_path / "training")
    header = tmp_path / "training" / "cohort.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"root": str(tmp_path / "gone")}))
    with pytest.raises(CohortError, match="images is missing") as fault:
        judge(training=header.parent)
    assert fault.value.remedy == "name the folder that holds the images with --training-images"
    with pytest.raises(CohortError, match=r"D000_0\.png and A000_0\.png of the other cohort are one picture"):
        judge(training=header.parent, training_images=tmp_path / "moved")
    assert not (tmp_path / "out").exists()


def test_near_duplicates_are_not_looked_for_in_another_cohort_than_that_of_the_training(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="is another cohort than the bundle was trained on"):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, tmp_path / "out", training=other_cohort_folder)
    assert not (tmp_path / "out").exists()


def test_one_picture_it_was_trained_on_under_another_name_is_refused(run_folder: Path, tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=9, prefix="C")
    picture, _ = lesion_picture(bright=True, seed=0)
    Image.fromarray(picture).save(tmp_path / "images" / "C000_0.png")
    workflow.cohort_from_table(table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES, source="else")
    with pytest.raises(CohortError, match="1 of 6 patients have images that the model was trained on"):
        workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")


def test_the_classes_in_another_order_are_refused(run_folder: Path, tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=9, prefix="C")
    workflow.cohort_from_table(
        table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES[::-1], source="else"
    )
    with pytest.raises(CohortError, match="in this order"):
        workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")


def test_reading_whole_images_with_a_bundle_trained_on_crops_is_said(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    study = workflow.evaluate(run_folder / "bundle", other_cohort_folder, tmp_path / "out", roi="none")
    assert study.metrics["roi"] == "none"
    assert "its calibration was not made for that" in study.report.read_text(encoding="utf-8")


def test_what_a_missed_case_costs_moves_the_operating_points(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    bundle = run_folder / "bundle"
    study = workflow.evaluate(bundle, other_cohort_folder, tmp_path / "out", missed={"osteosarcoma": 4})
    points = [one for one in study.metrics["patient"]["decision"]["operating_points"] if one["rule"] == "costs"]
    # A call pays off above one part in five, and of the class whose errors cost the same above a half.
    assert {one["class"]: one["threshold"] for one in points} == pytest.approx(
        {"osteosarcoma": 0.2, "giant_cell_tumor": 0.5}
    )
    page = study.report.read_text(encoding="utf-8")
    assert "a missed case costs 4 false alarms" in page
    assert "both errors cost the same" in page


@pytest.mark.parametrize(
    ("missed", "message"),
    [
        ({"chondroma": 2}, "chondroma costs is said, which is no class of the cohort.*osteosarcoma, giant_cell_tumor"),
        ({"osteosarcoma": 0}, "positive and finite, got 0.*how many false alarms"),
        ({"osteosarcoma": float("inf")}, "positive and finite"),
    ],
)
def test_a_cost_of_nothing_is_refused(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path, missed: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, tmp_path / "out", missed=missed)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_kept(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="is not an evaluation"):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_is_never_written_over(run_folder: Path, other_cohort_folder: Path) -> None:
    before = sorted(path.name for path in run_folder.iterdir())
    with pytest.raises(StorageError, match="is not an evaluation"):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, run_folder)
    with pytest.raises(StorageError, match="lies in the bundle that is read"):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, run_folder / "bundle" / "out")
    assert sorted(path.name for path in run_folder.iterdir()) == before


def test_notes_kept_beside_an_evaluation_are_not_lost(
    run_folder: Path, other_cohort_folder: Path, evaluation: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "out")
    (folder / "notes.txt").write_text("years of work")
    with pytest.raises(StorageError, match=r"holds notes\.txt"):
        workflow.evaluate(run_folder / "bundle", other_cohort_folder, folder)
    assert (folder / "notes.txt").read_text() == "years of work"


def test_a_cohort_in_which_a_lesion_is_missing_is_refused_at_once(run_folder: Path, tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=9, prefix="C")
    lines = table.read_text().splitlines()
    lines[1] = ",".join(lines[1].split(",")[:-1]) + ","
    table.write_text("\n".join(lines) + "\n")
    workflow.cohort_from_table(table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES, source="else")
    with pytest.raises(CohortError, match=r"C000_0\.png"):
        workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")


def test_the_same_picture_under_two_diagnoses_makes_no_cohort(tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=9, prefix="C")
    shutil.copy(tmp_path / "images" / "C000_0.png", tmp_path / "images" / "C001_0.png")
    with pytest.raises(CohortError, match="label"):
        workflow.cohort_from_table(table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES)
    assert not (tmp_path / "cohort").exists()


def test_an_image_that_went_missing_leaves_the_former_evaluation_whole(run_folder: Path, tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=3, seed=11, prefix="D")
    workflow.cohort_from_table(table, tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES, source="else")
    workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    (tmp_path / "images" / "D000_0.png").unlink()
    with pytest.raises(Exception, match=r"D000_0\.png"):
        workflow.evaluate(run_folder / "bundle", tmp_path / "cohort", tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    assert np.isfinite(json.loads(before)["patient"]["brier"]["value"])
