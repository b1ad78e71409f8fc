"""What a run says of its cohort: audit, baselines, subgroups; and what happens where a finding blocks."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from samples import CLASSES, Silent

from osteoscope import workflow
from osteoscope.errors import CohortError, ConfigError, RunError

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config

WHY = "a test of what happens then"

# Pictures of two sizes have two file sizes, too.
ACCEPTED = [("geometry-shortcut", WHY), ("file-shortcut", WHY)]


@pytest.fixture(scope="module")
def lying_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise without any lesion, in which the picture's height gives the label away."""
    folder = tmp_path_factory.mktemp("lying")
    rng, rows = np.random.default_rng(0), []
    for number in range(24):
        label, height = CLASSES[number % 2], (64, 96)[number % 2]
        picture = np.clip(rng.normal(120, 30, (height, 64)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
        rows.append({"patient": f"p{number}", "image": f"{number:02d}.png", "label": label, "age": str(20 + number)})
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    workflow.cohort_from_table(folder / "table.csv", folder / "cohort", images=folder, classes=CLASSES)
    return folder / "cohort"


def whole_images(config: Config) -> Config:
    return config.model_copy(
        update={
            "preparation": config.preparation.model_copy(update={"roi": "none"}),
            "network": config.network.model_copy(update={"covariates": ()}),
            "training": config.training.model_copy(update={"epochs": 2}),
        }
    )


def test_a_run_stands_beside_what_needs_no_network(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    baselines = metrics["baselines"]
    assert list(baselines) == [
        "majority",
        "clinical: age, sex",
        "clinical: age, sex, site",
        "picture geometry",
        "plain DenseNet-tiny",
    ]
    assert baselines["majority"]["auc"]["value"] == 0.5
    # Every second patient of the made-up cohort is female, as every second is of the first class.
    assert baselines["clinical: age, sex"]["auc"]["value"] == 1.0
    difference = baselines["majority"]["auc_difference"]["value"]
    assert difference == pytest.approx(metrics["patient"]["auc"]["value"] - 0.5)
    assert "--network plain" in baselines["plain DenseNet-tiny"]["reason"]
    report = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "picture geometry" in report
    assert "not trained" in report


def test_a_run_keeps_what_the_audit_found(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    kinds = {finding["kind"] for finding in metrics["audit"]}
    assert "clinical-confounder" in kinds
    assert metrics["accepted"] == []
    assert set(metrics["subgroups"]["groupings"]) >= {"age", "sex"}
    assert metrics["coarsest_grouping"]["n_patients"] == 24
    assert "clinical-confounder" in (run_folder / "report.html").read_text(encoding="utf-8").replace(" ", "-")


def test_a_cohort_whose_pictures_give_the_label_away_is_refused_and_nothing_is_made(
    lying_cohort: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    told = Silent()
    with pytest.raises(CohortError, match=r"--accept (file|geometry)-shortcut"):
        workflow.train(lying_cohort, tmp_path / "run", config=whole_images(tiny_config), watcher=told, threads=1)
    # Every second one of 24 images.
    said = [f"auditing the cohort: {done} of 24 images" for done in range(2, 25, 2)]
    assert told.stages == [(None, "auditing the cohort"), *((None, line) for line in said)]
    with pytest.raises(ConfigError, match="no reason is given"):
        workflow.train(
            lying_cohort,
            tmp_path / "run",
            config=whole_images(tiny_config),
            watcher=Silent(),
            accept=[("geometry-shortcut", " ")],
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_was_accepted_stands_in_the_report_and_is_part_of_the_run(
    lying_cohort: Path, tiny_config: Config, tmp_path: Path
) -> None:
    study = workflow.train(
        lying_cohort,
        tmp_path / "run",
        config=whole_images(tiny_config),
        watcher=Silent(),
        accept=ACCEPTED,
        threads=1,
    )
    accepted = {(finding["kind"], finding["because"]) for finding in study.metrics["accepted"]}
    assert accepted == set(ACCEPTED)
    assert all(finding["severity"] != "block" for finding in study.metrics["audit"])
    assert study.metrics["baselines"]["picture geometry"]["auc"]["value"] == 1.0
    assert WHY in study.report.read_text(encoding="utf-8")
    with pytest.raises(RunError):
        workflow.train(
            lying_cohort,
            tmp_path / "run",
            config=whole_images(tiny_config),
            watcher=Silent(),
            accept=[(kind, "another reason") for kind, _ in ACCEPTED],
            threads=1,
        )
