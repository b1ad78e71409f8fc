"""Makes small archives as a PACS exports them; nobody is on them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
from dicom_files import SAGITTAL, write_dicom, write_series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OS, GCT = "osteosarcoma", "giant cell tumor"

PLANES, SIDE = 6, 40


def person(number: int, **others: Any) -> dict[str, Any]:
    """Give the elements of a patient and of one study."""
    return {
        "PatientID": f"{number:05d}",
        "PatientName": f"Nobody^P{number}",
        "PatientBirthDate": f"19{50 + number}0304",
        "PatientSex": "FM"[number % 2],
        "StudyInstanceUID": f"1.2.3.{number}",
        "FrameOfReferenceUID": f"1.2.3.{number}.0",
        "AccessionNumber": f"A{number}",
        "StudyDate": "20200110",
        **others,
    }


def values(seed: int, planes: int = PLANES) -> np.ndarray:
    """Draw noise that stands for a scan."""
    return np.random.default_rng(seed).integers(0, 2000, (planes, SIDE, SIDE), dtype=np.uint16)


def write_ct(
    folder: Path, number: int, *, planes: int = PLANES, seed: int | None = None, **elements: Any
) -> list[Path]:
    """Write an axial CT of a patient."""
    whole = {"SeriesInstanceUID": f"1.2.3.{number}.1", "SeriesNumber": 2, "ConvolutionKernel": "B30f"}
    return write_series(
        folder, values(number if seed is None else seed, planes), **{**person(number), **whole, **elements}
    )


def write_mr(folder: Path, number: int, **elements: Any) -> list[Path]:
    """Write a sagittal MR of a patient."""
    whole = {"SeriesInstanceUID": f"1.2.3.{number}.2", "SeriesNumber": 3, "SeriesDescription": "t2_tse_sag"}
    elements = {**person(number), **whole, **elements}
    return write_series(folder, values(100 + number), "MR", orientation=SAGITTAL, **elements)


def write_film(path: Path, number: int, **elements: Any) -> Path:
    """Write a radiograph of a patient."""
    whole = {"SeriesInstanceUID": f"1.2.3.{number}.4", "ViewPosition": "AP", **elements}
    grey = np.linspace(0, 4000, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16) + number
    return write_dicom(path, grey, "DX", **{**person(number), **whole})


def write_labels(path: Path, rows: Sequence[Mapping[str, str]], encoding: str = "utf-8", separator: str = ",") -> Path:
    """Write a label table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, columns, restval="", delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_archive(root: Path, patients: int = 4) -> Path:
    """Write a CT of each of some patients, in a folder of its own."""
    for number in range(patients):
        write_ct(root / f"p{number}", number)
    return root


def labels_of(path: Path, patients: int = 4) -> Path:
    """Write the labels of these patients, of two classes in turn."""
    return write_labels(
        path, [{"patient": f"{number:05d}", "label": (OS, GCT)[number % 2]} for number in range(patients)]
    )
