"""Reads every image of a cohort once: its hashes, its size, or why it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from osteoscope.cohort.table import resolve_inside
from osteoscope.errors import ImageError, InputError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import not_used_because, open_image
from osteoscope.imaging.picture import is_blank, pixel_sha256, read_picture
from osteoscope.imaging.refusal import LEFT_OUT, RefusedImageError
from osteoscope.imaging.signature import START, kind_of
from osteoscope.imaging.values import values_of
from osteoscope.processes import readers
from osteoscope.storage import sha256_of_input, sha256_of_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from osteoscope.imaging.open import Image
    from osteoscope.imaging.volume import Modality, Source, Volume

Progress = Callable[[int, int], None]
"""Is told how many images are done, of how many."""

_SCANS = ("DICOM", "NIfTI", "MetaImage", "NRRD")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an image's file and pixels say; the fields are those of `osteoscope.cohort.table.Row`.

    Parameters
    ----------
    file_sha256, pixel_sha256, rows, columns, modality, phantom, geometry_sha256, mask_sha256
        As there.
    remarks
        What was odd about the files of a CT or MR and how it was taken, as sentences without a full stop.
    """

    file_sha256: str
    pixel_sha256: str
    rows: int
    columns: int
    modality: Modality
    phantom: bool | None = None
    geometry_sha256: str | None = None
    mask_sha256: str | None = None
    remarks: tuple[str, ...] = ()

    def of_row(self) -> dict[str, Any]:
        """Give what goes into the image's row, by its fields' names."""
        return {name: value for name, value in vars(self).items() if name != "remarks"}


def measure_images(
    root: Path, images: Sequence[str], progress: Progress | None = None, *, masks: Mapping[str, str] | None = None
) -> dict[str, Measured | ImageError]:
    """Decode images in threads, holding few of them at a time.

    Parameters
    ----------
    root
        Folder that the paths start from.
    images
        Paths relative to `root`: pictures, and CT and MR as a folder of one DICOM series or as one file.
    progress
        Called after each image.
    masks
        Paths relative to `root` of the masks of CT and MR, by image; each must lie on its image. That of a picture is
        not looked at.

    Returns
    -------
    For each image what was measured, or the fault that forbids its use: it or its mask is missing, unreadable, blank,
    or lies outside of `root`; it is one of several in its folder; its place in the patient is unknown.
    """
    mask_of = masks or {}
    found: dict[str, Measured | ImageError] = {}
    with ThreadPoolExecutor(readers()) as pool:
        results = pool.map(lambda image: _measure(root, image, mask_of.get(image)), images)
        for image, result in zip(images, results, strict=True):
            found[image] = result
            if progress is not None:
                progress(len(found), len(images))
    return found


def _measure(root: Path, image: str, mask: str | None) -> Measured | ImageError:
    try:
        path = resolve_inside(root, image)
        return _measure_scan(path, root, mask) if _is_scan(path) else _measure_picture(path)
    except ImageError as fault:
        return fault


def _is_scan(path: Path) -> bool:
    """Tell a CT or MR from a picture, and from what is neither: to say so is left to the reader of pictures."""
    try:
        if path.is_dir():
            return True
        # A pipe would block whoever opens it.
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(START)
    except OSError:
        return False
    return bool(start) and kind_of(start) in _SCANS


def _measure_picture(path: Path) -> Measured:
    volume = read_picture(path)
    values = volume.read()
    if is_blank(values):
        raise ImageError("the picture is blank: every pixel has the same value", path=path, remedy="leave it out")
    _, rows, columns = volume.geometry.shape
    return Measured(
        file_sha256=volume.sources[0].sha256,
        pixel_sha256=pixel_sha256(values),
        rows=rows,
        columns=columns,
        modality=volume.modality,
    )


def _measure_scan(path: Path, root: Path, mask: str | None) -> Measured:
    """Measure a CT or MR, a few planes at a time."""
    image = open_image(path)
    volume = image.volume
    if volume.modality == "radiograph" and image.aside is None:
        return _measure_radiograph(path, image)
    values = values_of(volume)
    code = not_used_because(image, values)
    if code is not None:
        reason = f"expected a CT or MR scan, found one that is not used: {LEFT_OUT[code]}"
        raise RefusedImageError(code, reason, path=path, remedy="leave it out")
    if mask is not None:
        _see_mask(root, mask, volume)
    _, rows, columns = volume.geometry.shape
    return Measured(
        file_sha256=sha256_of_files(volume.sources),
        pixel_sha256=values.sha256,
        rows=rows,
        columns=columns,
        modality=volume.modality,
        phantom=image.phantom,
        geometry_sha256=geometry_sha256(volume),
        mask_sha256=None if mask is None else sha256_of_input(resolve_inside(root, mask)),
        remarks=image.remarks,
    )


def geometry_sha256(volume: Volume) -> str | None:
    """Hash where a CT or MR lies in the patient, to 0.001 mm; None where that is unknown.

    Its affine's elements, rounded, as the text of a JSON list of rows.
    """
    affine = volume.geometry.affine
    # Adding 0 makes 0 of -0, which is another text.
    return None if affine is None else sha256_of_text(json.dumps((affine.round(3) + 0.0).tolist()))


def _measure_radiograph(path: Path, image: Image) -> Measured:
    """Measure a radiograph in DICOM, which is named by its file, as a picture is."""
    if path.is_dir():
        reason = "expected a CT or MR scan in the folder, found a radiograph"
        raise ImageError(reason, path=path, remedy="name its file")
    return replace(_measure_picture(path), phantom=image.phantom, remarks=image.remarks)


def _see_mask(root: Path, mask: str, volume: Volume) -> None:
    """See that a mask can be read, lies on its volume, and marks something."""
    path = resolve_inside(root, mask)
    try:
        read_mask(path, volume)
    except InputError as fault:
        raise ImageError(f"its mask {mask}: {fault.message}", path=path, remedy=fault.remedy) from fault


def sha256_of_files(sources: Sequence[Source]) -> str:
    """Hash the files of an image: one by its bytes, several whatever their order and names."""
    hashes = sorted(source.sha256 for source in sources)
    return hashes[0] if len(hashes) == 1 else sha256_of_text("\n".join(hashes))
