"""A run end to end: what it leaves, that it repeats, that it goes on, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save
from samples import CLASSES, Silent, write_table_cohort
from sklearn.metrics import roc_auc_score

from osteoscope import workflow
from osteoscope.bundle.format import WEIGHTS
from osteoscope.cohort.table import cases, read_cohort, write_cohort
from osteoscope.errors import CohortError, ConfigError, RunError, StorageError
from osteoscope.evaluation.calibration import choose_calibration
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.inference.predict import prepare_case
from osteoscope.network.classifier import TumourNetwork
from osteoscope.network.gradcam import hires_cam
from osteoscope.training import augment, checkpoint, crossval
from osteoscope.training.crossval import first_repeat

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from osteoscope.config import Config


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_patient_is_predicted_once_by_a_network_that_never_saw_them(run_folder: Path) -> None:
    rows = rows_of(run_folder / "oof.csv")
    assert list(rows[0]) == ["patient", "repeat", "fold", "label", "p_osteosarcoma", "p_giant_cell_tumor", "verdict"]
    assert len({row["patient"] for row in rows}) == len(rows) == 24
    folds = json.loads((run_folder / "folds.json").read_text())
    assert all(split["shared_patients"] == split["shared_pixels"] == 0 for split in folds["splits"])
    assert {row["fold"] for row in rows} == {"0", "1"}


def test_probabilities_sum_to_one(run_folder: Path) -> None:
    for row in rows_of(run_folder / "oof.csv"):
        assert float(row["p_osteosarcoma"]) + float(row["p_giant_cell_tumor"]) == pytest.approx(1, abs=2e-6)


def test_the_metrics_have_the_published_shape_and_agree_with_the_predictions(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    rows = rows_of(run_folder / "oof.csv")
    truth = np.array([row["label"] == "giant_cell_tumor" for row in rows])
    scores = np.array([float(row["p_giant_cell_tumor"]) for row in rows])
    pairs = scores[truth][:, None] - scores[~truth][None, :]
    auc = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert metrics["patient"]["auc"]["value"] == pytest.approx(auc, abs=1e-3)
    assert (metrics["n_patients"], metrics["n_images"], metrics["roi"]) == (24, 32, "box")
    assert metrics["prevalence"] == {"osteosarcoma": 12, "giant_cell_tumor": 12}
    assert set(metrics["patient"]["auc"]) >= {"value", "low", "high", "n"}
    assert set(metrics["localisation"]) == {"images", "not_read", "evidence", "gaussian", "random", "edges"}


def test_what_the_evidence_leaves_out_is_what_flows_through_the_weights_of_the_looks(
    run_folder: Path, cohort_folder: Path, tiny_config: Config
) -> None:
    """From the networks of the bundle by autograd, whose gradient flows through the weights too."""
    case_of = {case.patient: case for case in cases(read_cohort(cohort_folder))}
    shares = []
    for outcome in first_repeat(run_folder):
        assert outcome.encoder is not None
        network = TumourNetwork(tiny_config.network, classes=2, covariates=outcome.encoder.size)
        network.load_state_dict(load_file(run_folder / "bundle" / "members" / str(outcome.fold) / WEIGHTS))
        untold = torch.from_numpy(outcome.encoder.encode())[None]
        for known in outcome.cases:
            planes = prepare_case(case_of[known.prediction.patient], tiny_config.preparation).first_planes()
            if len(planes) > 1:
                shown = torch.from_numpy(planes)
                full = hires_cam(network, shown, layer="encoder.map", target=1, covariates=untold).numpy()
                closed = known.evidence[:, 1]
                shares.append(np.abs(full - closed).sum() / np.abs(closed).sum())
    found = json.loads((run_folder / "metrics.json").read_text())["evidence_through_weights"]
    assert found["patients"] == len(shares) == 8
    np.testing.assert_allclose([found["median"], *found["quartiles"]], np.percentile(shares, [50, 25, 75]), rtol=0.05)


def test_a_class_that_can_be_seen_is_learnt(run_folder: Path) -> None:
    assert json.loads((run_folder / "metrics.json").read_text())["patient"]["auc"]["value"] > 0.9


def test_the_report_and_a_page_for_each_case_are_there(run_folder: Path) -> None:
    report = (run_folder / "report.html").read_text(encoding="utf-8")
    pages = sorted((run_folder / "cases").glob("*.html"))
    assert len(pages) == 24
    assert all(f"cases/{page.name}" in report for page in pages)


def test_each_page_says_what_the_images_alone_would_have_said(run_folder: Path) -> None:
    folds = [
        json.loads((run_folder / "folds" / str(fold) / "predictions.json").read_text())["cases"] for fold in (0, 1)
    ]
    assert [len(fold) for fold in folds] == [12, 12]
    # Of two folds each is calibrated by what the other says.
    for fold, other in (folds, folds[::-1]):
        logits, labels = np.array([case["logits"] for case in other]), np.array([case["label"] for case in other])
        calibration = choose_calibration(logits, labels, (0.5, 0.5)).calibration
        for case in fold:
            page = (run_folder / "cases" / f"{case['patient']}.html").read_text(encoding="utf-8")
            said = re.search(
                r"told the patient’s (age and sex|age|sex) beside the images; "
                r"the images alone would have given ([a-z ]+) (\d+)\s%",
                page,
            )
            assert said is not None
            assert said[1].split(" and ") == case["told"]
            (expected,) = calibration.apply([case["logits_of_images"]])
            assert int(said[3]) == round(100 * expected[CLASSES.index(said[2])])


def test_no_identifier_of_the_source_is_in_the_reports(run_folder: Path) -> None:
    for page in [run_folder / "report.html", *(run_folder / "cases").glob("*.html")]:
        # In the bytes of an image anything may be found, and in the style the size of the paper.
        text = re.sub(r"data:[^\"')]+|(?s:<style>.*?</style>)", "", page.read_text(encoding="utf-8"))
        assert "Not for clinical use" in text
        assert re.search(r"\bA\d{1,2}\b", text) is None


def test_the_history_has_a_row_for_each_epoch_of_each_fold(run_folder: Path) -> None:
    rows = rows_of(run_folder / "history.csv")
    assert [(row["fold"], row["epoch"]) for row in rows] == [(str(f), str(e)) for f in range(2) for e in range(1, 7)]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_nothing_unfinished_is_left(run_folder: Path) -> None:
    names = [path.name for path in run_folder.rglob("*")]
    assert not [name for name in names if name.endswith((".tmp", ".old")) or name.startswith("checkpoint-")]


def test_a_finished_run_trains_nothing_again(run_folder: Path, cohort_folder: Path, tiny_config: Config) -> None:
    before = (run_folder / "oof.csv").read_bytes()
    watcher = Silent()
    workflow.train(cohort_folder, run_folder, config=tiny_config, watcher=watcher, threads=1)
    assert watcher.epochs == []
    assert watcher.folds_done == 2
    assert (run_folder / "oof.csv").read_bytes() == before


class StoppedError(Exception):
    """Ends a run where its folds would begin."""


def stop(*_: object, **__: object) -> None:
    raise StoppedError


def test_a_run_that_is_begun_again_is_unfinished_until_it_ends_and_what_a_kill_left_goes(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    assert len(first_repeat(run)) == 2
    shutil.rmtree(run / "folds" / "1")
    left = [run / place / ".begun.77.tmp" for place in (".", "cases", "folds/0", "bundle")]
    for path in left:
        path.write_text("half")

    monkeypatch.setattr(crossval, "run_folds", stop)
    with pytest.raises(StoppedError):
        workflow.train(cohort_folder, run, config=tiny_config, watcher=Silent(), threads=1)
    assert not [path for path in left if path.exists()]
    with pytest.raises(RunError, match="whose folds are not done"):
        first_repeat(run)
    monkeypatch.undo()
    workflow.train(cohort_folder, run, config=tiny_config, watcher=Silent(), threads=1)
    (run / "folds" / ".DS_Store").write_bytes(b"a folder that was looked at")
    assert len(first_repeat(run)) == 2


def test_a_class_with_fewer_patients_than_folds_is_enough_where_two_body_sites_are_left_out(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(write_table_cohort(tmp_path, patients=12))
    rare = sorted({row["patient"] for row in rows if row["label"] == CLASSES[1]})[:4]
    kept = [row for row in rows if row["label"] == CLASSES[0] or row["patient"] in rare]
    with (tmp_path / "few.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in kept:
            # Patients are numbered alternately by class, so these are six and two of each site.
            site = ("femur", "tibia")[int(row["patient"][1:]) // 2 % 2] if row["patient"] not in rare else None
            writer.writerow({**row, "site": site or ("femur", "tibia")[rare.index(row["patient"]) % 2]})
    workflow.cohort_from_table(tmp_path / "few.csv", tmp_path / "cohort", images=tmp_path / "images", classes=CLASSES)
    monkeypatch.setattr(crossval, "run_folds", stop)

    def train(split: str) -> None:
        training = tiny_config.training.model_copy(update={"split": split, "folds": 5})
        config = tiny_config.model_copy(update={"training": training})
        workflow.train(tmp_path / "cohort", tmp_path / split, config=config, watcher=Silent(), threads=1)

    with pytest.raises(StoppedError):
        train("sites")
    folds = json.loads((tmp_path / "sites" / "folds.json").read_text())
    assert [one["group"] for one in folds["splits"]] == ["femur", "tibia"]
    with pytest.raises(CohortError, match="4 patients, too few for 5 folds"):
        train("patients")


def test_other_settings_in_the_same_folder_are_refused(
    run_folder: Path, cohort_folder: Path, tiny_config: Config
) -> None:
    other = tiny_config.model_copy(update={"training": tiny_config.training.model_copy(update={"epochs": 7})})
    with pytest.raises(RunError, match=r"config\.training\.epochs = 6; now it is 7"):
        workflow.train(cohort_folder, run_folder, config=other, watcher=Silent(), threads=1)


def test_another_thread_count_changes_nothing_where_nothing_is_learnt_first(
    run_folder: Path, cohort_folder: Path, tiny_config: Config
) -> None:
    before = (run_folder / "oof.csv").read_bytes()
    workflow.train(cohort_folder, run_folder, config=tiny_config, watcher=Silent(), threads=2)
    assert (run_folder / "oof.csv").read_bytes() == before
    assert json.loads((run_folder / "run.json").read_text())["identity"]["threads"] == 1


def test_a_run_of_another_version_is_refused(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    content = json.loads((run_folder / "run.json").read_text())
    content["identity"]["versions"]["torch"] = "1.0.0"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"versions\.torch = '1\.0\.0'"):
        workflow.train(cohort_folder, tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1)


def test_a_folder_with_something_else_in_it_is_refused_and_kept(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not a run"):
        workflow.train(cohort_folder, tmp_path, config=tiny_config, watcher=Silent(), threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_where_the_run_should_be_is_refused_and_kept(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("years of work")
    with pytest.raises(RunError, match="is not a run"):
        workflow.train(cohort_folder, tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1)
    assert (tmp_path / "run").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("folds/0/predictions.json", b"{", "folds/0: is damaged"),
        ("folds/1/evidence.npz", b"PK", "folds/1: is damaged"),
        ("run.json", b"{}", "another schema"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_the_way_out(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=message):
        workflow.train(cohort_folder, run, config=tiny_config, watcher=Silent(), threads=1)


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_kept(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    wild = tiny_config.training.model_copy(update={"learning_rate": 1.0, "weight_decay": 1.0, "epochs": 30})
    config = tiny_config.model_copy(update={"training": wild})

    def explode(canvases: Tensor, lesions: Tensor, changes: object) -> tuple[Tensor, Tensor]:
        planes = torch.full((len(canvases), 1, 48, 48), float("nan"))
        return planes, torch.zeros_like(planes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "apply_changes", explode)
        with pytest.raises(RunError, match="no longer a number in epoch 1"):
            workflow.train(cohort_folder, tmp_path / "run", config=config, watcher=Silent(), threads=1)
    assert not list((tmp_path / "run").rglob("checkpoint-*"))


@pytest.mark.slow
def test_a_patient_has_no_say_in_the_network_that_judges_them(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    """Other pixels and another age of a patient of fold 0 leave the network of fold 0 as it is, to the bit."""
    cohort = read_cohort(cohort_folder)
    tested = {row["patient"] for row in rows_of(run_folder / "oof.csv") if row["fold"] == "0"}
    chosen = sorted(tested)[0]
    images = shutil.copytree(cohort.root, tmp_path / "images")
    frame = cohort.frame.copy()
    for row in frame.index[frame["patient"] == chosen]:
        path = images / frame.loc[row, "image"]
        Image.fromarray(np.random.default_rng(int(row)).integers(0, 255, (96, 96), dtype=np.uint8)).save(path)
        frame.loc[row, "pixel_sha256"] = pixel_sha256(read_picture(path).read()[0])
        frame.loc[row, "age"] = 99.0
    write_cohort(dataclasses.replace(cohort, frame=frame, root=images), tmp_path / "cohort")
    workflow.train(tmp_path / "cohort", tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1)

    def network(run: Path, fold: int) -> bytes:
        return (run / "folds" / str(fold) / "member" / "weights.safetensors").read_bytes()

    assert network(tmp_path / "run", 0) == network(run_folder, 0)
    assert network(tmp_path / "run", 1) != network(run_folder, 1)


def test_more_folds_than_patients_of_a_class_are_refused_before_training(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = tiny_config.model_copy(update={"training": tiny_config.training.model_copy(update={"folds": 13})})
    with pytest.raises(CohortError, match="12 patients"):
        workflow.train(cohort_folder, tmp_path / "run", config=other, watcher=Silent())
    assert not (tmp_path / "run").exists()


def test_a_run_on_other_patients_cannot_be_set_beside(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    lines = (other / "oof.csv").read_text().splitlines()
    (other / "oof.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RunError, match="other patients or repeats"):
        workflow.train(cohort_folder, run_folder, config=tiny_config, watcher=Silent(), threads=1, beside=[other])


@pytest.mark.parametrize(("column", "told"), [("label", "other diagnoses of 1 of these"), ("fold", "in other folds")])
def test_a_run_by_other_diagnoses_or_in_other_folds_cannot_be_set_beside(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path, column: str, told: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    table = pd.read_csv(other / "oof.csv")
    table.loc[0, column] = next(value for value in table[column].unique() if value != table.loc[0, column])
    table.to_csv(other / "oof.csv", index=False)
    with pytest.raises(RunError, match=told):
        workflow.train(cohort_folder, run_folder, config=tiny_config, watcher=Silent(), threads=1, beside=[other])


def test_a_folder_that_is_no_run_beside_is_refused_before_training(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="is not a run"):
        workflow.train(
            cohort_folder, tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1, beside=[cohort_folder]
        )
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_finished_is_not_set_beside(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = shutil.copytree(run_folder, tmp_path / "other")
    content = json.loads((other / "run.json").read_text(encoding="utf-8"))
    (other / "run.json").write_text(json.dumps({**content, "status": "unfinished"}), encoding="utf-8")
    with pytest.raises(RunError, match="is a run that is not finished"):
        workflow.train(cohort_folder, run_folder, config=tiny_config, watcher=Silent(), threads=1, beside=[other])


def test_another_run_on_the_same_patients_stands_beside_with_its_difference(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = shutil.copytree(run_folder, tmp_path / "other")
    rng, rows = np.random.default_rng(0), rows_of(other / "oof.csv")
    for row in rows:
        changed = float(np.clip(float(row["p_giant_cell_tumor"]) + rng.normal(0, 0.4), 0, 1))
        row["p_osteosarcoma"], row["p_giant_cell_tumor"] = f"{1 - changed:.6f}", f"{changed:.6f}"
    with (other / "oof.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        # In another order.
        writer.writerows(rows[place] for place in rng.permutation(len(rows)))
    metrics = json.loads((other / "metrics.json").read_text(encoding="utf-8"))
    metrics["patient"]["auc"]["value"] = 0.625
    (other / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    run = shutil.copytree(run_folder, tmp_path / "run")
    study = workflow.train(cohort_folder, run, config=tiny_config, watcher=Silent(), threads=1, beside=[other])
    beside = study.metrics["baselines"]["optimised DenseNet-tiny (other)"]

    def auc(rows: list[dict[str, str]]) -> float:
        truth = [row["label"] == "giant_cell_tumor" for row in rows]
        return float(roc_auc_score(truth, [float(row["p_giant_cell_tumor"]) for row in rows]))

    assert 0.5 < auc(rows) < 0.95
    assert beside["auc_difference"]["value"] == pytest.approx(auc(rows_of(run / "oof.csv")) - auc(rows), abs=1e-3)
    assert beside["auc"]["value"] == 0.625
    assert "optimised DenseNet-tiny (other)" in study.report.read_text(encoding="utf-8")


def test_a_file_of_settings_and_an_option_that_it_holds_are_refused_together(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(tiny_config.to_toml())
    assert workflow.training_config(cohort_folder, file=tmp_path / "config.toml") == tiny_config
    with pytest.raises(ConfigError, match="--seed cannot be given beside it"):
        workflow.training_config(cohort_folder, file=tmp_path / "config.toml", seed=5)


def test_whole_images_are_read_and_looked_at_again_where_lesions_are_annotated(cohort_folder: Path) -> None:
    chosen = workflow.training_config(cohort_folder).preparation
    assert (chosen.roi, chosen.second_look) == ("none", True)
    boxed = workflow.training_config(cohort_folder, roi="box").preparation
    assert (boxed.roi, boxed.second_look) == ("box", False)
    assert workflow.training_config(cohort_folder, roi="none").preparation.roi == "none"


def test_a_full_disk_loses_nothing_and_the_run_goes_on(
    cohort_folder: Path, run_folder: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, Tensor]] = []

    def full_after_the_first_checkpoint(tensors: dict[str, Tensor]) -> bytes:
        written.append(tensors)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        return save(tensors)

    monkeypatch.setattr(checkpoint, "save", full_after_the_first_checkpoint)
    with pytest.raises(StorageError, match="no space left"):
        workflow.train(cohort_folder, tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1)
    assert [path.name for path in (tmp_path / "run" / "folds" / "0").iterdir()] == ["checkpoint-00005"]
    monkeypatch.undo()
    workflow.train(cohort_folder, tmp_path / "run", config=tiny_config, watcher=Silent(), threads=1)
    assert (tmp_path / "run" / "oof.csv").read_bytes() == (run_folder / "oof.csv").read_bytes()
