"""What a leak does to a figure: one cohort under an honest split, under a split by image, and with shuffled labels.

Four trainings of the same network, with the same settings and seed, on the same images:

=================  ==========================================  =========================================
split              true labels                                 labels shuffled among the patients
=================  ==========================================  =========================================
by patient         ``honest``: what the images say             ``honest_shuffled``: nothing can be learnt
by image           ``leaky``: other views of a tested patient  ``leaky_shuffled``: whatever this shows is
                   are in the training part                    memory of the patient, and no diagnosis
=================  ==========================================  =========================================

Every image is judged by itself in all four, so that the figures can be set side by side; intervals are by patient. The
last line is one JSON object.

    python benchmarks/leaks.py [ARCHIVE] [--size PX] [--epochs N] [--seed N] [--trunk NAME] [--threads N]

ARCHIVE is a folder of the Bone Tumor X-ray Radiograph Dataset. Without it a made-up cohort is read: each patient is a
texture of its own, shown in several views, and says nothing of the class: an honest AUC is 0.5 by construction.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from osteoscope.cohort.btxrd import read_btxrd
from osteoscope.cohort.from_table import read_table
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import cases as cases_of
from osteoscope.config import Config, NetworkConfig, PreparationConfig, TrainingConfig
from osteoscope.evaluation.calibration import softmax
from osteoscope.evaluation.intervals import bootstrap_figure, group_patients, weight_blocks
from osteoscope.evaluation.metrics import auc_draws, auc_score
from osteoscope.training.crossval import run_folds
from osteoscope.training.device import choose_device
from osteoscope.training.fold import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.cohort.table import Case
    from osteoscope.training.fold import FoldOutcome

CLASSES = ("osteosarcoma", "giant cell tumor")
ARMS = {
    "honest": (False, False),
    "leaky": (True, False),
    "honest_shuffled": (False, True),
    "leaky_shuffled": (True, True),
}
"""Whether the split is by image, and whether the labels are shuffled."""


class Quiet:
    """A watcher that notes the folds that are done."""

    def __init__(self, arm: str) -> None:
        self._arm = arm

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        """Nothing to note."""

    def fits_planned(self, *, folds: int, fits: int) -> None:
        """Nothing to note."""

    def fit_started(self, *, number: int) -> None:
        """Nothing to note."""

    def epoch_done(self, *, number: int, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        """Nothing to note."""

    def stage(self, name: str, *, number: int | None = None) -> None:
        """Nothing to note."""

    def fold_done(self, outcome: FoldOutcome) -> None:
        """Say that a fold is done."""
        print(f"{self._arm}: fold {outcome.fold + 1} done", file=sys.stderr, flush=True)


def made_up_cases(folder: Path, *, patients: int = 24, views: int = 4, side: int = 64, seed: int = 0) -> list[Case]:
    """Draw patients whose texture is their own, and whose class is a coin's: nothing in a picture tells it."""
    rng = np.random.default_rng(seed)
    rows = ["patient,image,label"]
    for patient in range(2 * patients):
        texture = np.kron(rng.normal(0, 40, (8, 8)), np.ones((side // 8, side // 8)))
        for view in range(views):
            shifted = np.roll(texture, tuple(rng.integers(-3, 4, size=2)), axis=(0, 1))
            picture = np.clip(128 + shifted + rng.normal(0, 12, (side, side)), 0, 255).astype(np.uint8)
            name = f"{patient:03d}_{view}.png"
            Image.fromarray(picture).save(folder / name)
            rows.append(f"p{patient},{name},{CLASSES[patient % 2]}")
    (folder / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    return cases_of(read_table(folder / "table.csv", folder, CLASSES, "made up"))


def shuffled(cases: Sequence[Case], seed: int) -> list[Case]:
    """Deal the labels out anew among the patients."""
    labels = np.random.default_rng(seed).permutation(np.array([case.label for case in cases])).tolist()
    return [dataclasses.replace(case, label=label) for case, label in zip(cases, labels, strict=True)]


def one_image_each(cases: Sequence[Case]) -> list[Case]:
    """Take every image for a patient of its own: the leak."""
    return [
        dataclasses.replace(case, patient=f"{case.patient}/{image.image}", images=(image,))
        for case in cases
        for image in case.images
    ]


def judged(outcomes: Sequence[FoldOutcome], labels: dict[str, int]) -> dict[str, Any]:
    """Give the AUC by image, with an interval by true patient; each fold's scores are ranked among themselves."""
    scores: list[float] = []
    positive: list[bool] = []
    owners: list[str] = []
    for outcome in outcomes:
        for case in outcome.cases:
            patient = case.prediction.patient.partition("/")[0]
            for image in case.prediction.images:
                scores.append(float(softmax(np.array(image.logits))[-1]))
                positive.append(labels[patient] == 1)
                owners.append(patient)
    truth, values = np.array(positive), np.array(scores)
    groups = group_patients(owners, truth.astype(np.int64))
    value = auc_score(truth, values)
    if value is None:
        return {"value": None}
    draws = np.concatenate([auc_draws(truth, values, weights) for weights in weight_blocks(groups, draws=2000, seed=0)])
    smallest = int(np.bincount(groups.label).min())
    return bootstrap_figure(value, draws, n=len(groups.names), smallest=smallest).to_json()


def main() -> None:
    """Train the four arms and print their AUCs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trunk", default=None)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    real = options.archive is not None
    config = Config(
        preparation=PreparationConfig(size=options.size or (112 if real else 48)),
        network=NetworkConfig(trunk=options.trunk or ("densenet121" if real else "densenet-tiny")),
        training=TrainingConfig(members="folds", epochs=options.epochs or (20 if real else 40), seed=options.seed),
    )
    device = choose_device("auto", options.threads)
    found: dict[str, Any] = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = cases_of(read_btxrd(options.archive, CLASSES)) if real else made_up_cases(folder)
        for arm, (by_image, with_shuffled_labels) in ARMS.items():
            labelled = shuffled(cases, options.seed) if with_shuffled_labels else list(cases)
            labels = {case.patient: int(case.label or 0) for case in labelled}
            split = one_image_each(labelled) if by_image else labelled
            folds = make_folds(split, folds=config.training.folds, repeats=1, seed=options.seed, classes=CLASSES)
            work = Work(cases=split, config=config, device=device)
            outcome = run_folds(work, folds, folder=folder / arm, watcher=Quiet(arm))
            found[arm] = judged(outcome.folds, labels)
            print(f"{arm}: AUC by image {found[arm]['value']:.3f}", flush=True)
    print(
        json.dumps(
            {
                **found,
                "cohort": "radiographs" if real else "made up",
                "patients": len(cases),
                "images": sum(len(case.images) for case in cases),
                "size": config.preparation.size,
                "epochs": config.training.epochs,
                "seed": options.seed,
                "minutes": round((time.perf_counter() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
