"""Small pictures of a cohort's images for a person to check: planes that are read, with outline, sides and scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from osteoscope.errors import ImageError, InputError, OsteoscopeError
from osteoscope.imaging.evenly import middles
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.open import open_image
from osteoscope.imaging.picture import pixel_sha256
from osteoscope.imaging.prepare import Lesion
from osteoscope.imaging.slices import plan_slices, radiograph_grey
from osteoscope.imaging.values import values_of
from osteoscope.report.overlay import jpeg_bytes, with_lesions
from osteoscope.report.planes import (
    PHANTOM_MARK,
    PlaneFrame,
    as_seen,
    position_of,
    shape_as_seen,
    sides_of,
    windows_of,
    with_mark,
    with_scale,
    with_sides,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import CaseImage
    from osteoscope.config import VolumeConfig
    from osteoscope.imaging.open import Image as OpenedImage
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.imaging.volume import Volume
    from osteoscope.report.planes import ShownWindow

MOST_PLANES = 4
"""Of a CT or MR that are shown."""

_LARGE, _SMALL = 420, 220
"""Longer side of the picture with most of the lesion, and of the others, in pixels."""

_QUALITY = 80

_LINES = 1.5
"""Width of outlines over that on large pictures, so that they are seen on small ones."""

_LEAST_OUTSIDE = 0.02
"""Share of an outline beyond what is read from which on it is told."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A picture of an image, or of a plane of it.

    Parameters
    ----------
    jpeg
        Its bytes.
    size
        Width and height, in pixels.
    alt
        What it shows, for who does not see it.
    caption
        Where the plane lies, or empty.
    note
        What is special about it, or empty.
    """

    jpeg: bytes
    size: tuple[int, int]
    alt: str
    caption: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """An image of a cohort as it is shown for a check.

    Parameters
    ----------
    name
        In the cohort.
    facts
        What it is, as phrases.
    pictures
        That with most of the lesion first where there is one, then the others as a reader leafs.
    outlined
        Whether a lesion is outlined in it.
    remarks
        What a person should look at, as sentences.
    fault
        Why it cannot be shown, or empty.
    """

    name: str
    facts: tuple[str, ...] = ()
    pictures: tuple[Thumbnail, ...] = ()
    outlined: bool = False
    remarks: tuple[str, ...] = ()
    fault: str = ""


def show_image(image: CaseImage, config: VolumeConfig) -> ShownImage:
    """Make small pictures of an image; no more is held than a few planes and the mask.

    Parameters
    ----------
    image
        Of a cohort.
    config
        By which planes of a CT or MR are read.

    Returns
    -------
    What is shown; an image or mask that cannot be read, or is not what the cohort was made with, is said and not
    raised.
    """
    try:
        opened = open_image(image.path)
        _refuse_changed(image, opened.volume)
        if opened.volume.modality == "radiograph":
            return _show_radiograph(image, opened)
        return _show_scan(image, opened.volume, config)
    except OsteoscopeError as fault:
        return ShownImage(name=image.image, fault=fault.message)


def _refuse_changed(image: CaseImage, volume: Volume) -> None:
    is_picture = volume.modality == "radiograph"
    sha256 = pixel_sha256(volume.read()) if is_picture else values_of(volume).sha256
    if sha256 != image.pixel_sha256:
        remedy = "put the original back, or make the cohort again"
        raise ImageError("shows other values than when the cohort was made", path=image.path, remedy=remedy)


# Radiographs ----------------------------------------------------------------------------------------------------------


def _show_radiograph(image: CaseImage, opened: OpenedImage) -> ShownImage:
    geometry = opened.volume.geometry
    grey = radiograph_grey(opened.volume) if opened.format == "DICOM" else opened.volume.read()[0]
    _, rows, columns = geometry.shape
    # What is outlined is given in the image's own pixels, whatever their aspect.
    picture = _grey(as_seen(grey, shape_as_seen(grey.shape)), _LARGE)
    enlargement = (picture.width / columns, picture.height / rows)
    drawn = with_lesions(picture, image.lesions, enlargement, width=_LINES)
    facts = [f"{columns} × {rows} pixels"]
    if geometry.spacing is not None:
        drawn = with_scale(drawn, geometry.spacing.column / enlargement[0])
        where = {"detector": " at the detector", "scanned": " on the film"}.get(geometry.spacing.kind, "")
        facts.append(f"{geometry.spacing.column:.2f} mm a pixel{where}")
    else:
        facts.append("no scale stated")
    kind = "Radiograph" if image.view is None else f"Radiograph, {image.view}"
    return ShownImage(
        name=image.image,
        facts=(kind, *facts),
        pictures=(_thumbnail(drawn, image, alt=f"{kind}{', lesion outlined' if image.lesions else ''}"),),
        outlined=bool(image.lesions),
    )


# CT and MR ------------------------------------------------------------------------------------------------------------


def _show_scan(image: CaseImage, volume: Volume, config: VolumeConfig) -> ShownImage:
    plan = plan_slices(volume, config)
    mask, remarks = _mask_of(image, volume)
    areas = None if mask is None else mask.sum(axis=(1, 2))
    planes = planes_to_show(plan.planes, areas)
    if mask is not None:
        remarks += _remarks_on_mask(mask, plan)
    window = windows_of(volume.modality, plan.windows)[0]
    return ShownImage(
        name=image.image,
        facts=_facts(volume, plan, window),
        pictures=tuple(
            _show_plane(image, volume, plan, window, plane, None if mask is None else mask[plane], is_first=not place)
            for place, plane in enumerate(
                _in_reading_order(planes, volume, first=planes[0] if mask is not None else None)
            )
        ),
        outlined=mask is not None,
        remarks=(*(f"{told[0].upper()}{told[1:]}." for told in plan.told), *remarks),
    )


def _mask_of(image: CaseImage, volume: Volume) -> tuple[NDArray[np.bool_] | None, list[str]]:
    if image.mask is None:
        return None, []
    try:
        return read_mask(image.mask, volume), []
    except InputError as fault:
        return None, [f"The outline cannot be shown: {fault.message}."]


def planes_to_show(read: Sequence[int], areas: NDArray[np.int64] | None) -> list[int]:
    """Choose a few planes: that with most of the lesion first, if one is outlined, and others evenly spread.

    Parameters
    ----------
    read
        Planes that are read, ascending; one or more.
    areas
        Pixels of the lesion in every plane of the volume.

    Returns
    -------
    At most `MOST_PLANES`, each once. Where no plane that is read shows the lesion, the first is another, which does.
    """
    if areas is None:
        return _evenly(read, MOST_PLANES)
    best = max(read, key=lambda plane: int(areas[plane]))
    if not areas[best]:
        best = int(areas.argmax())
    others = [plane for plane in read if plane != best]
    # Planes next to it show what it does.
    apart = [plane for place, plane in enumerate(read) if best not in read[max(0, place - 1) : place + 2]]
    return [best, *_evenly(apart if len(apart) >= MOST_PLANES - 1 else others, MOST_PLANES - 1)]


def _evenly(planes: Sequence[int], count: int) -> list[int]:
    """Take as many as are wanted from the middles of as many equal parts."""
    return [planes[place] for place in middles(len(planes), min(count, len(planes))).tolist()]


def _in_reading_order(planes: Sequence[int], volume: Volume, *, first: int | None) -> list[int]:
    return sorted(planes, key=lambda plane: (plane != first, position_of(volume.geometry, plane).place))


def _facts(volume: Volume, plan: SlicePlan, window: ShownWindow) -> tuple[str, ...]:
    geometry = volume.geometry
    planes, rows, columns = geometry.shape
    apart, down, across = geometry.steps or (0.0, 0.0, 0.0)
    pixel = f"{across:.2f}" if abs(down - across) < 0.005 else f"{across:.2f} × {down:.2f}"
    return (
        f"{(geometry.plane_name or '').capitalize()} {volume.modality}",
        "1 plane" if planes == 1 else f"{planes} planes {apart:.1f} mm apart, {len(plan.planes)} of them read",
        f"{columns} × {rows} pixels of {pixel} mm",
        f"shown in {window.text(volume.modality)}".replace("-", "−"),
    )


def _remarks_on_mask(mask: NDArray[np.bool_], plan: SlicePlan) -> list[str]:
    """Tell what of an outline is not read: planes beside it, or a part beyond the square."""
    remarks = []
    if not mask[list(plan.planes)].any():
        remarks.append("None of the planes that are read shows the outlined lesion.")
    top, bottom, left, right = _edges(plan, mask.shape[1:])
    inside = mask[:, top:bottom, left:right].sum() / mask.sum()
    if inside < 1 - _LEAST_OUTSIDE:
        remarks.append(f"{1 - inside:.0%} of the outlined lesion lies beyond what is read.".replace("%", " %"))
    return remarks


def _edges(plan: SlicePlan, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Give the first and last row and column that are read, within a plane."""
    seen = plan.rectangle
    top, left = max(0, round(seen.top)), max(0, round(seen.left))
    return top, min(shape[0], round(seen.top + seen.height)), left, min(shape[1], round(seen.left + seen.width))


def _show_plane(
    image: CaseImage,
    volume: Volume,
    plan: SlicePlan,
    window: ShownWindow,
    plane: int,
    marked: NDArray[np.bool_] | None,
    *,
    is_first: bool,
) -> Thumbnail:
    """Show what is read of a plane, with its outline, the sides of the patient and a scale."""
    geometry = volume.geometry
    frame = PlaneFrame.of(geometry)
    top, bottom, left, right = _edges(plan, geometry.shape[1:])
    down, across = frame.seen[0] / frame.plane[0], frame.seen[1] / frame.plane[1]
    whole = frame.pixels(volume.read([plane])[0], window)
    part = whole[round(top * down) : round(bottom * down), round(left * across) : round(right * across)]
    has_lesion = marked is not None and bool(marked.any())
    picture = _grey(part, _LARGE if is_first and has_lesion else _SMALL)
    zoom = picture.width / part.shape[1]
    if marked is not None and has_lesion:
        outlines = [_moved(one, left * across, top * down) for one in frame.outlines(marked)]
        picture = with_lesions(picture, outlines, (zoom, picture.height / part.shape[0]), width=_LINES)
    sides, steps = sides_of(geometry), geometry.steps
    if sides is None or steps is None:
        msg = f"expected a volume whose place is known: {image.image}"
        raise ValueError(msg)
    lettered = with_scale(with_sides(picture.convert("RGB"), sides), steps[2] / across / zoom)
    where = position_of(geometry, plane).text
    note = ""
    if marked is not None and has_lesion and is_first:
        area = float(marked.sum()) * steps[1] * steps[2] / 100
        note = f"largest outline, {area:.1f} cm²"
    alt = f"{geometry.plane_name} {volume.modality} at {where}{', lesion outlined' if has_lesion else ''}"
    return _thumbnail(lettered, image, caption=f"Plane {plane + 1}, {where}", alt=alt, note=note)


def _moved(lesion: Lesion, left: float, top: float) -> Lesion:
    return Lesion(outline=tuple((x - left, y - top) for x, y in lesion.outline))


# Pictures -------------------------------------------------------------------------------------------------------------


def _grey(pixels: NDArray[np.float32], side: int) -> Image.Image:
    """Show (rows, columns) of 0..1, the longer side of so many pixels."""
    rows, columns = pixels.shape
    scale = side / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32)).resize(size, how))
    # Both filters overshoot at edges.
    return Image.fromarray(np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8))


def _thumbnail(picture: Image.Image, image: CaseImage, *, alt: str, caption: str = "", note: str = "") -> Thumbnail:
    """Encode a picture in grey; on a phantom's it is written that it is one."""
    marked = with_mark(picture, PHANTOM_MARK) if image.phantom else picture
    jpeg = jpeg_bytes(marked.convert("L"), quality=_QUALITY)
    return Thumbnail(jpeg=jpeg, size=marked.size, caption=caption, alt=alt, note=note)
