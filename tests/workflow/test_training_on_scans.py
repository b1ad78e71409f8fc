"""A run on CT from the table to the bundle: what it leaves, that it goes on, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_series
from samples import CLASSES, Silent

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import read_cohort, write_cohort
from osteoscope.config import AuxiliaryConfig, Config, NetworkConfig, PreparationConfig, TrainingConfig, VolumeConfig
from osteoscope.errors import CohortError, ConfigError
from osteoscope.imaging.nifti import write_nifti
from osteoscope.imaging.open import open_image
from osteoscope.imaging.synthetic import MANUFACTURER

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (8, 40, 40)
CONFIG = Config(
    preparation=PreparationConfig(
        volume=VolumeConfig(size=48, spacing=1.7, planes=4, step=3.0, neighbours=0, windows=((-500, 1300), (200, 2000)))
    ),
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2, covariates=("level",)),
    auxiliary=AuxiliaryConfig(looks=0),
    training=TrainingConfig(
        folds=2, epochs=25, views_per_patient=4, precision="32-true", learning_rate=5e-3, averaging=0.8, rehearsal=0
    ),
)


def write_scans(folder: Path, *, patients: int, seed: int = 0, phantom: bool = True) -> Path:
    """Write the CT of so many patients of each class, with a dense lesion in the first; give the table."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(2 * patients):
        values = np.full(SHAPE, -1000.0)
        values[:, 2:-2, 2:-2] = rng.normal(40, 30, (SHAPE[0], 36, 36))
        plane, row, column = (int(rng.integers(*ends)) for ends in ((0, 4), (6, 22), (6, 22)))
        lesion = (slice(plane, plane + 4), slice(row, row + 12), slice(column, column + 12))
        values[lesion] += 1200 if number % 2 == 0 else 200
        name = f"S{seed}-{number}"
        more: dict[str, Any] = {"Manufacturer": MANUFACTURER} if phantom else {}
        stored = np.clip(values + 1024, 0, 4000).astype(np.uint16)
        write_series(folder / "images" / name / "ct", stored, RescaleIntercept=-1024, spacing=(2, 2), **more)
        affine = open_image(folder / "images" / name / "ct").volume.geometry.affine
        assert affine is not None
        mask = np.zeros(SHAPE, dtype=np.float32)
        mask[lesion] = 1
        write_nifti(folder / "images" / name / "mask.nii.gz", mask, affine)
        rows.append(
            {
                "patient": name,
                "image": f"{name}/ct",
                "mask": f"{name}/mask.nii.gz",
                "label": CLASSES[number % 2],
                "level": ("lumbar", "thoracic")[number // 2 % 2],
            }
        )
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def cohort_of(folder: Path, *, patients: int, seed: int = 0, phantom: bool = True) -> Path:
    table = write_scans(folder, patients=patients, seed=seed, phantom=phantom)
    workflow.cohort_from_table(table, folder / "cohort", images=folder / "images", classes=CLASSES, source="made up")
    return folder / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort_of(tmp_path_factory.mktemp("scans"), patients=12)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    workflow.train(cohort, folder, config=CONFIG, watcher=Silent(), threads=1)
    return folder


def test_every_patient_is_judged_once_and_a_class_that_can_be_seen_is_learnt(run: Path) -> None:
    with (run / "oof.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["patient"] for row in rows}) == len(rows) == 24
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["patient"]["auc"]["value"] > 0.8
    assert (metrics["n_patients"], metrics["n_images"], metrics["roi"]) == (24, 24, "none")
    # Each patient's planes were several.
    assert metrics["evidence_through_weights"]["patients"] == 24


def test_the_bundle_says_what_it_was_trained_on(run: Path) -> None:
    manifest = load_bundle(run / "bundle").manifest
    assert manifest.provenance == "phantom"
    assert manifest.modalities == ("CT",)
    assert manifest.body_regions == ("lumbar", "spine", "thoracic")
    assert manifest.preparation == CONFIG.preparation
    assert manifest.plane_shape("CT") == (2, 48, 48)
    assert "nobody" in manifest.intended_use
    assert manifest.members[0].covariates is not None
    assert manifest.members[0].covariates["levels"] == ["lumbar", "thoracic"]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_predictions(
    run: Path, cohort: Path, tmp_path: Path
) -> None:
    """As one that was killed in its second fold."""
    stopped = tmp_path / "run"
    shutil.copytree(run, stopped)
    for undone in ("folds/1", "final"):
        shutil.rmtree(stopped / undone)
    (stopped / "oof.csv").unlink()
    workflow.train(cohort, stopped, config=CONFIG, watcher=Silent(), threads=1)
    for name in ("oof.csv", "oof_images.csv", "bundle/members/0/weights.safetensors"):
        assert (stopped / name).read_bytes() == (run / name).read_bytes()


def test_evaluate_and_predict_say_the_same_of_a_scan(run: Path, tmp_path: Path) -> None:
    other = cohort_of(tmp_path, patients=1, seed=5)
    accept = [("too-small", "only whether both ways agree is asked")]
    workflow.evaluate(run / "bundle", other, tmp_path / "evaluation", accept=accept, threads=1)
    with (tmp_path / "evaluation" / "predictions_images.csv").open(newline="", encoding="utf-8") as stream:
        judged = {row["image"].split("/")[0]: float(row["p_osteosarcoma"]) for row in csv.DictReader(stream)}
    for name in ("S5-0", "S5-1"):
        output = tmp_path / f"prediction of {name}"
        # Both are lumbar.
        workflow.predict(run / "bundle", [tmp_path / "images" / name / "ct"], output, level="lumbar", threads=1)
        (found,) = output.rglob("prediction.json")
        said = json.loads(found.read_text(encoding="utf-8"))
        assert said["probabilities"]["osteosarcoma"] == pytest.approx(judged[name], abs=1e-5)


def test_the_settings_follow_the_modality(cohort: Path, cohort_folder: Path) -> None:
    chosen = workflow.training_config(cohort, preset="quick")
    assert chosen.preparation.volume is not None
    assert (chosen.preparation.roi, chosen.preparation.second_look) == ("none", False)
    assert chosen.auxiliary.looks == chosen.training.rehearsal == 0
    # The masks teach where lesions are; nothing does in the radiographs that are not annotated.
    assert chosen.network.focus
    assert not workflow.training_config(cohort, network="plain").network.focus
    assert not workflow.training_config(cohort_folder).network.focus
    assert workflow.training_config(cohort_folder, preset="quick").preparation.volume is None
    with pytest.raises(ConfigError, match="--roi box"):
        workflow.training_config(cohort, roi="box")


def test_a_mask_of_a_scan_that_teaches_nothing_does_not_make_it_look_for_lesions(cohort: Path, tmp_path: Path) -> None:
    known = read_cohort(cohort)
    frame = pd.concat([known.frame, known.frame.iloc[[0]]], ignore_index=True)
    frame["mask"] = frame["mask"].where(frame.index == len(frame) - 1)
    last = len(frame) - 1
    frame.loc[last, "patient"], frame.loc[last, "image"] = "P-000000000000", "elsewhere"
    frame.loc[last, "role"], frame.loc[last, "label"] = "auxiliary", pd.NA
    marked = dataclasses.replace(known, frame=frame)
    write_cohort(marked, tmp_path / "cohort")
    assert not workflow.training_config(tmp_path / "cohort").network.focus


def test_settings_for_other_images_are_refused(
    cohort: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    for folder, config, found in [(cohort, tiny_config, "CT"), (cohort_folder, CONFIG, "radiographs")]:
        with pytest.raises(CohortError, match=f"the cohort holds {found}"):
            workflow.train(folder, tmp_path / "run", config=config, watcher=Silent(), threads=1)
    assert not (tmp_path / "run").exists()


def test_a_bundle_is_put_before_no_other_images(
    run: Path, run_folder: Path, cohort: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="the bundle reads CT, the cohort holds radiographs"):
        workflow.evaluate(run / "bundle", other_cohort_folder, tmp_path / "evaluation", threads=1)
    with pytest.raises(CohortError, match="the bundle reads radiographs, the cohort holds CT"):
        workflow.evaluate(run_folder / "bundle", cohort, tmp_path / "evaluation", threads=1)
    patients = cohort_of(tmp_path / "patients", patients=1, seed=9, phantom=False)
    with pytest.raises(CohortError, match="learnt from phantoms"):
        workflow.evaluate(run / "bundle", patients, tmp_path / "evaluation", threads=1)
    phantoms = cohort_of(tmp_path / "phantoms", patients=1, seed=9)
    with pytest.raises(ConfigError, match="--roi outline"):
        workflow.evaluate(run / "bundle", phantoms, tmp_path / "evaluation", roi="outline", threads=1)
