"""Making the mask of a lesion from whatever outlines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import InputError, StorageError
from osteoscope.storage import storage_error

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
        The mask, as NIfTI; one that was written here is replaced, and nothing else is.
    names
        Of the segments or regions of interest that are meant; where left out, the one whose name speaks of a lesion.

    Raises
    ------
    InputError
        If the image or a file cannot be read, or none of the files outlines a lesion in the image.
    StorageError
        If the output is no NIfTI, is what the mask is made from, lies in the folder of the series, or something else is
        there; or if the operating system refuses. What was there stays.
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
    candidates = [region_file(path) for path in files]
    _refuse_output(output, image, files)
    region = region_of(volume, candidates, names=names)
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


def _refuse_output(output: Path, image: Path, files: Sequence[Path]) -> None:
    """Refuse a mask in the place of what it is made from, or of anything that this did not write."""
    from osteoscope.imaging.masks import is_written_mask

    remedy = "choose another file with -o"
    try:
        if image.is_dir() and output.resolve().is_relative_to(image.resolve()):
            raise StorageError("lies in the folder of the series that it outlines", path=output, remedy=remedy)
        if not output.exists():
            return
        if any(output.samefile(path) for path in (image, *files)):
            raise StorageError("is what the mask is made from, and would be lost", path=output, remedy=remedy)
    except OSError as error:
        raise storage_error(error, output) from error
    if not is_written_mask(output):
        raise StorageError("is already there and is no mask that this wrote", path=output, remedy=remedy)


_OTHER = "name the folder of one series of a CT or MR, or one file"
