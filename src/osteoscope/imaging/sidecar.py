"""What is known of a NIfTI file from beside it: the JSON file of the same name, as of BIDS and dcm2niix, and its name.

References
----------
Gorgolewski KJ and others. The brain imaging data structure. Sci Data 2016;3:160044.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.imaging.synthetic import is_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LARGEST_BYTES = 2**20
"""A larger file is no sidecar, and is left aside."""

_SUFFIXES = {
    "CT": re.compile(r"(?:^|_)ct$", re.IGNORECASE),
    "PT": re.compile(r"(?:^|_)pet$", re.IGNORECASE),
    "MR": re.compile(r"(?:^|_)(T1w|T2w|T2starw|PDw|PDT2|FLAIR|inplaneT[12]|UNIT1|angio)$", re.IGNORECASE),
}
"""How names end, before ``.nii``, by modality."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sidecar:
    """What is known from beside a file.

    Parameters
    ----------
    modality
        The DICOM code, such as ``CT``, ``MR`` or ``PT`` (PS3.3 C.7.3.1.1.1), or None.
    normal
        Unit vector in LPS at right angles to the slices as they were acquired, or None.
    phantom
        Whether it says that the image was made from the phantom (`osteoscope.imaging.synthetic`).
    """

    modality: str | None = None
    normal: NDArray[np.float64] | None = None
    phantom: bool = False


def read_sidecar(path: Path) -> Sidecar:
    """Read what is known from beside a file; a JSON file that is damaged or of another kind says nothing.

    Parameters
    ----------
    path
        Of the NIfTI file.
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    content = _json(path.with_name(f"{stem}.json")) if stem != path.name else {}
    modality = content.get("Modality")
    if not isinstance(modality, str):
        modality = next((name for name, suffix in _SUFFIXES.items() if suffix.search(stem)), None)
    normal = _normal(content.get("ImageOrientationPatientDICOM"))
    return Sidecar(modality=modality, normal=normal, phantom=is_phantom(content))


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _normal(orientation: Any) -> NDArray[np.float64] | None:
    """Cross the directions of rows and columns (PS3.3 C.7.6.2.1.1)."""
    if not isinstance(orientation, list) or len(orientation) != 6:
        return None
    if not all(isinstance(value, int | float) and abs(value) <= 1.001 for value in orientation):
        return None
    normal = np.cross(orientation[:3], orientation[3:]).astype(np.float64)
    length = float(np.linalg.norm(normal))
    return normal / length if length > 0.9 else None
