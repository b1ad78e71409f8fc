"""Small made-up cohorts: pictures whose class can be seen, and whose truth is known."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from osteoscope.cohort.table import Auxiliary, CaseImage
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.training.fold import FoldOutcome

CLASSES = ("osteosarcoma", "giant cell tumor")
SIDE = 96

HEEDING_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""Code for a process that is to be interrupted, since shells have what runs in the background ignore that."""


def lesion_picture(*, bright: bool, seed: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Draw noise with one round lesion, bright or dark: (SIDE, SIDE) uint8 and the lesion's box."""
    rng = np.random.default_rng(seed)
    radius = int(rng.integers(10, 18))
    row, column = rng.integers(radius + 4, SIDE - radius - 4, size=2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    values = rng.normal(120, 20, (SIDE, SIDE)) + np.where(inside, 70 if bright else -70, 0)
    box = (int(column - radius), int(row - radius), int(column + radius + 1), int(row + radius + 1))
    return np.clip(values, 0, 255).astype(np.uint8), box


def write_table_cohort(folder: Path, *, patients: int = 12, seed: int = 0, prefix: str = "A") -> Path:
    """Write pictures and a table of as many patients of each class, with one or two views each; give the table."""
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for number in range(2 * patients):
        label = CLASSES[number % 2]
        for view in range(1 + number % 3 // 2):
            picture, box = lesion_picture(bright=number % 2 == 0, seed=1000 * seed + 10 * number + view)
            name = f"{prefix}{number:03d}_{view}.png"
            Image.fromarray(picture).save(images / name)
            rows.append(
                {
                    "patient": f"{prefix}{number}",
                    "image": name,
                    "label": label,
                    "age": "" if number % 5 == 0 else str(20 + number),
                    "sex": "FM"[number % 2],
                    "site": "femur",
                    "box": " ".join(map(str, box)),
                }
            )
    table = folder / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def octagon(box: tuple[int, int, int, int]) -> tuple[tuple[float, float], ...]:
    """Draw an outline round the lesion of a box: a regular octagon that touches the box's sides."""
    left, top, right, bottom = box
    corners = [((1 + np.cos(a)) / 2, (1 + np.sin(a)) / 2) for a in np.arange(8) * np.pi / 4]
    return tuple((left + x * (right - left), top + y * (bottom - top)) for x, y in corners)


def written(path: Path, picture: np.ndarray, *lesions: Lesion, view: str | None = None) -> CaseImage:
    """Write a picture, and give it as an image of a cohort."""
    Image.fromarray(picture).save(path)
    return CaseImage(
        image=path.name,
        path=path,
        pixel_sha256=pixel_sha256(read_picture(path).read()[0]),
        rows=picture.shape[0],
        columns=picture.shape[1],
        modality="radiograph",
        lesions=lesions,
        view=view,
    )


def auxiliary_images(folder: Path, number: int = 16) -> list[Auxiliary]:
    """Write pictures outside of the classes, one for each patient: a bright kind and a dark one, each with its outline.

    Of each kind every second picture is of a femur, frontal; the others are of a tibia, lateral.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for place in range(number):
        picture, box = lesion_picture(bright=place % 2 == 0, seed=900_000 + place)
        lesion, view = Lesion(box=box, outline=octagon(box)), ("frontal", "lateral")[place // 2 % 2]
        image = written(folder / f"auxiliary{place:02d}.png", picture, lesion, view=view)
        kind, site = ("osteochondroma", "chondroma")[place % 2], ("femur", "tibia")[place // 2 % 2]
        made.append(Auxiliary(patient=f"auxiliary{place}", kind=kind, site=site, image=image))
    return made


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.folds_done = 0
        self.planned = (0, 0)
        self.started: list[int] = []
        self.stages: list[tuple[int | None, str]] = []
        self.epochs: list[int] = []
        self.epochs_of: dict[int, list[int]] = {}
        self.auxiliary_epochs: list[int] = []

    def auxiliary_epoch(self, *, epoch: int, epochs: int, loss: float) -> None:
        self.auxiliary_epochs.append(epoch)

    def fits_planned(self, *, folds: int, fits: int) -> None:
        self.planned = (folds, fits)

    def fit_started(self, *, number: int) -> None:
        self.started.append(number)

    def epoch_done(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None, number: int = 0) -> None:
        self.epochs.append(epoch)
        self.epochs_of.setdefault(number, []).append(epoch)

    def stage(self, name: str, *, number: int | None = None) -> None:
        self.stages.append((number, name))

    def fold_done(self, outcome: FoldOutcome) -> None:
        self.folds_done += 1
