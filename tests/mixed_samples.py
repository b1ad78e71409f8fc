"""Made-up patients of whom there are a CT, an MR and a radiograph, any of them missing; nobody is on them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
from dicom_files import write_series
from PIL import Image
from samples import CLASSES, lesion_picture

from osteoscope import workflow
from osteoscope.config import AuxiliaryConfig, Config, NetworkConfig, PreparationConfig, TrainingConfig, VolumeConfig
from osteoscope.imaging.nifti import write_nifti
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from osteoscope.imaging.volume import Modality

ALL: tuple[Modality, ...] = ("CT", "MR", "radiograph")

SHAPE = (8, 40, 40)
"""Planes 3 mm apart; rows and columns of 2 mm."""

PREPARATION = PreparationConfig(
    size=64,
    volume=VolumeConfig(size=64, spacing=1.3, planes=4, step=3.0, neighbours=1, windows=((-500, 1300), (200, 2000))),
    modalities=ALL,
)
"""Of a CT six channels, of an MR three, of a radiograph one; it shares the pixels of what `bundles` exports."""

CONFIG = Config(
    preparation=PREPARATION,
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2, focus=True),
    auxiliary=AuxiliaryConfig(looks=0),
    training=TrainingConfig(
        folds=2, epochs=12, views_per_patient=6, precision="32-true", learning_rate=5e-3, averaging=0.8, rehearsal=0
    ),
)
"""Trains in seconds."""


def patient_of(number: int) -> tuple[Modality, ...]:
    """Say of which modalities there are images of a patient: of two in three all, the rest lacks each in turn."""
    lacking = None if number // 2 % 3 else ALL[number // 6 % 3]
    return tuple(modality for modality in ALL if modality != lacking)


def write_patient(folder: Path, number: int, modalities: Collection[str], *, seed: int = 0) -> list[dict[str, str]]:
    """Write what there is of a patient, with a dense lesion in every second one; give the rows of a table."""
    rng = np.random.default_rng([seed, number])
    name, dense = f"M{seed}-{number}", number % 2 == 0
    said = {"patient": name, "label": CLASSES[number % 2], "mask": "", "box": ""}
    rows = []
    for modality in ("CT", "MR"):
        if modality not in modalities:
            continue
        plane, row, column = (int(rng.integers(*ends)) for ends in ((0, 4), (6, 22), (6, 22)))
        lesion = (slice(plane, plane + 4), slice(row, row + 12), slice(column, column + 12))
        values = np.full(SHAPE, -1000.0)
        values[:, 2:-2, 2:-2] = rng.normal(40, 30, (SHAPE[0], 36, 36))
        values[lesion] += 1200 if dense else 200
        scale: dict[str, Any] = {"RescaleIntercept": -1024} if modality == "CT" else {}
        stored = np.clip(values + 1024, 0, 4000).astype(np.uint16)
        place = folder / name / modality.lower()
        write_series(place, stored, modality, series=f"{name} {modality}", spacing=(2, 2), **scale)
        affine = open_image(place).volume.geometry.affine
        assert affine is not None
        mask = np.zeros(SHAPE, dtype=np.float32)
        mask[lesion] = 1
        write_nifti(folder / name / f"{modality}.nii.gz", mask, affine)
        rows.append({**said, "image": f"{name}/{modality.lower()}", "mask": f"{name}/{modality}.nii.gz"})
    if "radiograph" in modalities:
        picture, box = lesion_picture(bright=dense, seed=10_000 * seed + number)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name / "film.png")
        rows.append({**said, "image": f"{name}/film.png", "box": " ".join(map(str, box))})
    return rows


def write_mixed_cohort(
    folder: Path,
    *,
    patients: int,
    seed: int = 0,
    there: Callable[[int], Collection[str]] = patient_of,
) -> Path:
    """Make a cohort of as many patients of each class; give its folder."""
    images = folder / "images"
    rows = [row for one in range(2 * patients) for row in write_patient(images, one, there(one), seed=seed)]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=["patient", "image", "mask", "box", "label"])
        writer.writeheader()
        writer.writerows(rows)
    table, cohort = folder / "labels.csv", folder / "cohort"
    workflow.cohort_from_table(table, cohort, images=images, classes=CLASSES, source="made up")
    return cohort
