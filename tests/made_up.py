"""Made-up cohorts in which nothing tells the label, so that a test plants what does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

from osteoscope.cohort.measure import Measured, measure_images
from osteoscope.cohort.table import Cohort, Row, frame_of, pseudonyms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

OS, GCT = "osteosarcoma", "giant cell tumor"
SOURCE = "made up"
SITES = ("femur", "tibia", "humerus", "radius")

Entry = dict[str, Any]
"""Fields of a row, and its ``picture``: uint8 ``(rows, columns)``."""


def entries(
    seed: int, patients: Sequence[int] = (15, 15), *, classes: Sequence[str] = (OS, GCT), views: int = 2
) -> list[Entry]:
    """So many patients of each class, with 1 to so many views each; all else is drawn without regard to the label."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(sum(patients) * views)
    made: list[Entry] = []
    for label, count in zip(classes, patients, strict=True):
        for _ in range(count):
            person = {
                "patient": f"person {seed}-{len(made)}",
                "label": label,
                "age": float(rng.integers(8, 80)),
                "sex": str(rng.choice(["F", "M"])),
                "site": str(rng.choice(SITES)),
                "centre": str(rng.choice(["A", "B"])),
            }
            for view in range(int(rng.integers(1, views + 1))):
                made.append(
                    {
                        **person,
                        "image": f"{names[len(made)]:04}.png",
                        "view": ("frontal", "lateral", "oblique")[view],
                        "picture": picture(rng, int(rng.integers(60, 90)), int(rng.integers(40, 60))),
                    }
                )
    return made


def picture(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Draw soft blots, now and then a black border and a mark, uint8 ``(rows, columns)``; no two draws look alike."""
    values = np.zeros((rows, columns))
    y, x = np.mgrid[:rows, :columns]
    for _ in range(12):
        row, column, spread = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(4, 14)
        values += rng.normal() * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * spread**2))
    values += rng.normal(0, 0.1, values.shape)
    low, high = values.min(), values.max()
    drawn = np.asarray((values - low) / (high - low) * 200 + 20, dtype=np.uint8)
    if rng.random() < 0.4:
        drawn[: int(rng.integers(2, 8))] = 0
    if rng.random() < 0.4:
        drawn[-8:-5, 4 : int(rng.integers(8, 12))] = 255
    return drawn


def resized(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Squash or stretch a picture to a size."""
    image = Image.fromarray(values).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.SMOOTH))


def write_cohort_of(folder: Path, made: Iterable[Entry], *, classes: Sequence[str] = (OS, GCT)) -> Cohort:
    """Write the pictures and give the cohort; patients get the pseudonyms that `SOURCE` gives them."""
    made = list(made)
    for entry in made:
        (folder / entry["image"]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(entry["picture"]).save(folder / entry["image"])
    measured = measure_images(folder, [entry["image"] for entry in made])
    names = pseudonyms(SOURCE, [entry["patient"] for entry in made])
    rows = []
    for entry in made:
        found = measured[entry["image"]]
        assert isinstance(found, Measured), found
        facts = {name: value for name, value in entry.items() if name not in {"picture", "patient"}}
        facts = {"guessed": False, "role": "case", **facts}
        rows.append(
            Row(
                patient=names[entry["patient"]],
                file_sha256=found.file_sha256,
                pixel_sha256=found.pixel_sha256,
                rows=found.rows,
                columns=found.columns,
                modality=found.modality,
                **facts,
            )
        )
    return Cohort(frame=frame_of(rows), classes=tuple(classes), root=folder, source=SOURCE)
