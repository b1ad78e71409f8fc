"""The classes are data: three of them go the whole way."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from samples import Silent

from osteoscope import workflow

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config

CLASSES = ("chordoma", "metastasis", "normal <b>bone</b>")


@pytest.mark.slow
def test_three_classes_are_trained_reported_and_evaluated(tiny_config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def cohort(name: str) -> Path:
        images = tmp_path / name / "images"
        images.mkdir(parents=True)
        with (tmp_path / name / "table.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient", "image", "label"])
            for number in range(18):
                # Stripes across, stripes down, and neither; each picture has its own, or all would be copies of one.
                stripes, places = np.zeros((64, 64)), rng.choice(64, 8, replace=False)
                if number % 3 == 0:
                    stripes[places] = 120
                elif number % 3 == 1:
                    stripes[:, places] = 120
                picture = np.clip(rng.normal(100, 10, (64, 64)) + stripes, 0, 255).astype(np.uint8)
                Image.fromarray(picture).save(images / f"{number}.png")
                writer.writerow([f"{name}{number}", f"{number}.png", CLASSES[number % 3]])
        workflow.cohort_from_table(
            tmp_path / name / "table.csv", tmp_path / name / "cohort", images=images, classes=CLASSES, source="made up"
        )
        return tmp_path / name / "cohort"

    config = tiny_config.model_copy(
        update={
            "preparation": tiny_config.preparation.model_copy(update={"roi": "none"}),
            "network": tiny_config.network.model_copy(update={"covariates": ()}),
        }
    )
    workflow.train(cohort("a"), tmp_path / "run", config=config, watcher=Silent(), threads=1)
    study = workflow.evaluate(tmp_path / "run" / "bundle", cohort("b"), tmp_path / "evaluation")
    for metrics in (json.loads((tmp_path / "run" / "metrics.json").read_text()), study.metrics):
        assert set(metrics["patient"]["sensitivity"]) == {"chordoma", "metastasis", "normal_b_bone_b"}
        assert sum(metrics["prior"].values()) == pytest.approx(1)
        assert 0 <= metrics["patient"]["auc"]["value"] <= 1
        assert metrics["localisation"] == {}
    # A class's name is text on the pages, never markup.
    assert "<b>bone</b>" not in study.report.read_text(encoding="utf-8")
