"""Making the mask of a lesion from whatever outlines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True, kw_only=True)
class OutlineSummary:
    """A mask that was written.

    Parameters
    ----------
    mask
        The file.
    planes
        Of the volume, that show the lesion.
    millilitres
        Volume of the lesion.
    used
        Files that it comes from.
    unused
        The others, with the reason.
    told
        What was concluded, in sentences without a full stop.
    """

    mask: Path
    planes: int
    millilitres: float
    used: tuple[Path, ...]
    unused: tuple[tuple[Path, str], ...]
    told: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        from osteoscope.imaging.discover import printable

        return {
            "mask": printable(self.mask),
            "planes": self.planes,
            "millilitres": self.millilitres,
            "used": [printable(path) for path in self.used],
            "unused": [{"file": printable(path), "reason": reason} for path, reason in self.unused],
            "told": list(self.told),
        }


def outline_lesion(image: Path, files: Sequence[Path], output: Path, *, names: Sequence[str] = ()) -> OutlineSummary:
    """Write what segmentations, structure sets and masks outline in a CT or MR as a mask, for the table of a cohort.

    Parameters
    ----------
    image
        Folder of a DICOM series, or one file.
    files
        That may outline the lesion in it; `osteoscope.cohort.regions` chooses among them.
    output
        The mask, as NIfTI.
    names
        Of the segments or regions of interest that are meant; where left out, the one whose name speaks of a lesion.

    Raises
    ------
    InputError
        If the image or a file cannot be read, or none of the files outlines a lesion in the image.
    StorageError
        If the output is no NIfTI, or the operating system refuses; what was there stays.
    """
    import numpy as np

    from osteoscope.cohort.regions import region_file, region_of
    from osteoscope.imaging.masks import write_mask
    from osteoscope.imaging.open import open_image

    if not output.name.lower().endswith(_SUFFIXES):
        raise StorageError("expected the name of a NIfTI file", path=output, remedy="name one that ends in .nii.gz")
    volume = open_image(image).volume
    if volume.geometry.affine is None:
        raise InputError("expected a CT or MR whose place is known, found an image without", path=image, remedy=_OTHER)
    region = region_of(volume, [region_file(path) for path in files], names=names)
    if region.marked is None:
        first = region.unused[0]
        more = f"; and {len(region.unused) - 1} other files outline nothing in it" if len(region.unused) > 1 else ""
        raise InputError(f"{first.reason}{more}", path=first.path, remedy=first.remedy)
    write_mask(output, region.marked, volume)
    voxel = abs(float(np.linalg.det(volume.geometry.affine[:3, :3])))
    return OutlineSummary(
        mask=output,
        planes=int(region.marked.any(axis=(1, 2)).sum()),
        millilitres=round(float(region.marked.sum()) * voxel / 1000, 2),
        used=region.used,
        unused=tuple((one.path, one.reason) for one in region.unused),
        told=region.told,
    )


_OTHER = "name the folder of one series of a CT or MR, or one file"
