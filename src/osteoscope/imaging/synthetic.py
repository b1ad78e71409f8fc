"""How files made from the phantom say that they are, and how that is recognised."""

from __future__ import annotations

from typing import Any, Protocol

MANUFACTURER = "Osteoscope phantom"
"""Manufacturer (0008,0070) of every object that the phantom writes, and of none that shows a patient."""

SYNTHETIC = "Synthetic: drawn by Osteoscope's phantom. It shows no patient and is no evidence of anything clinical."
"""What every file says for people."""


_KEYWORDS = ("Manufacturer", "ManufacturerModelName", "ManufacturersModelName")
"""Where the name is looked for. The last is dcm2niix's for the second; of manufacturers it keeps those it knows."""


class ByKeyword(Protocol):
    """Looks elements up by keyword: a pydicom data set, or the JSON that dcm2niix writes beside its NIfTI."""

    def get(self, keyword: str, default: Any = ..., /) -> Any:
        """Give an element's value, or the default where there is none."""


def is_phantom(elements: ByKeyword) -> bool:
    """Tell whether an object was made from the phantom, a CT as well as a segmentation.

    The Manufacturer (0008,0070) or the model's name (0008,1090), which begins with it, decides. Both are of the
    equipment (PS3.3 C.7.5.1) and not of the patient, and so stay when an object is de-identified by the Basic Profile
    (PS3.15 E). For other programs, Quality Control Subject (0010,0200) and Quality Control Image (0028,0300) are
    ``YES`` too: that holds for phantoms of any make, and decides nothing here.
    """
    return any(str(elements.get(keyword, "")).startswith(MANUFACTURER) for keyword in _KEYWORDS)
