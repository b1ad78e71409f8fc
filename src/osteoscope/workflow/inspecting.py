"""Saying of any file or folder what would be read of it, how, and why the rest is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from osteoscope.imaging.discover import printable
from osteoscope.imaging.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.imaging.discover import Found
    from osteoscope.imaging.open import Image
    from osteoscope.imaging.refusal import RefusalCode
    from osteoscope.imaging.values import Values
    from osteoscope.imaging.volume import Geometry, Planes, Volume

    Watch = Callable[[str, int, int], None]
    """Is told of what, how many of how many are done."""

SCHEMA = 1
"""Of the JSON document; raised when its shape changes."""

_SIDES = (("right", "left"), ("front", "back"), ("feet", "head"))
"""Of the patient, to which an axis of LPS falls and rises (PS3.3 C.7.6.2.1.1)."""

_UNITS = {"CT": "HU", "MR": "arbitrary", "radiograph": "0 black to 1 white"}


_DECODING = "decoding files"


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a prediction would read of an image, by the settings that a training starts from.

    Parameters
    ----------
    planes
        Indices of the image's planes in whose middle a plane of the network would lie.
    windows
        Of values in modality units, from what becomes 0 to what becomes 1; none of a picture, which is read as it is.
    """

    planes: tuple[int, ...]
    windows: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Give what is known as JSON."""
        return {"planes": list(self.planes), "windows": [list(window) for window in self.windows]}


@dataclass(frozen=True, kw_only=True, eq=False)
class InspectedImage:
    """An image all of whose values could be decoded.

    Parameters
    ----------
    image
        As it was opened; its planes can no longer be read.
    values
        What was decoded.
    use
        What a prediction would read of it; None where it would leave it out.
    not_used_because
        Why it would leave it out, unless it is asked for.
    remarks
        What was odd and how it was taken, as sentences without a full stop.
    files, copies
        Names of the image's files, printable.
    """

    image: Image
    values: Values
    use: Use | None
    not_used_because: RefusalCode | None
    remarks: tuple[str, ...]
    files: tuple[str, ...]
    copies: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give what is known as JSON."""
        image = self.image
        return {
            "files": list(self.files),
            "copies": list(self.copies),
            "format": image.format,
            "study": image.study or None,
            "series": image.series or None,
            "part": image.part or None,
            "modality": image.volume.modality,
            "dicom_modality": image.dicom_modality or None,
            "shape": list(image.volume.geometry.shape),
            "geometry": _geometry_to_json(image.volume.geometry),
            "transfer_syntaxes": list(image.encodings),
            "values": {
                "sha256": self.values.sha256,
                "low": self.values.low,
                "high": self.values.high,
                "unit": _UNITS[image.volume.modality],
            },
            "use": None if self.use is None else self.use.to_json(),
            "not_used_because": self.not_used_because,
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, kw_only=True)
class RefusedFiles:
    """Files that are refused together.

    Parameters
    ----------
    refusal
        Why.
    files
        Their names, printable.
    """

    refusal: Refusal
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give what is known as JSON."""
        refusal = self.refusal
        return {
            "files": list(self.files),
            "code": refusal.code,
            "sentence": refusal.sentence,
            "remedy": refusal.remedy,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """What was found: every file is in one of the images, of the refusals, or beside them."""

    images: tuple[InspectedImage, ...]
    refused: tuple[RefusedFiles, ...]
    beside: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give all as one JSON document; `docs/files.md` says what its fields are."""
        return {
            "schema": SCHEMA,
            "readable": len(self.images),
            "used": sum(image.use is not None for image in self.images),
            "refused": sum(len(refused.files) for refused in self.refused),
            "images": [image.to_json() for image in self.images],
            "refusals": [refused.to_json() for refused in self.refused],
            "beside": list(self.beside),
        }


def directions(geometry: Geometry) -> dict[str, str] | None:
    """Say towards which side of the patient columns, rows and planes are counted; None where that is unknown."""
    if geometry.affine is None:
        return None
    named = {}
    for axis, name in enumerate(("columns", "rows", "planes")):
        step = geometry.affine[:3, axis]
        nearest = int(abs(step).argmax())
        named[name] = _SIDES[nearest][int(step[nearest] > 0)]
    return named


def inspect(paths: Sequence[Path], *, watch: Watch | None = None) -> Inspection:
    """Look at files, folders and zips; decode all that can be read, and say why the rest cannot.

    Parameters
    ----------
    paths
        Of any format and any nesting.
    watch
        Is told of what, how many of how many are done.

    Returns
    -------
    What was found; nothing raises for what is wrong with a file. Of what identifies a patient only the names of files
    are in it.
    """
    from osteoscope.imaging.discover import discover, look_into

    say = watch or _silent
    found = discover(paths, progress=partial(say, "looking at files"))
    parts = [_inspect_found(found, say)]
    for zipped in found.archives:
        try:
            with look_into(zipped) as inside:
                parts.append(_inspect_found(inside, say))
        except Exception as error:
            refused = RefusedFiles(refusal=Refusal.of(error, zipped), files=(found.name(zipped),))
            parts.append(Inspection(images=(), refused=(refused,), beside=()))
    return Inspection(
        images=tuple(image for part in parts for image in part.images),
        refused=tuple(refused for part in parts for refused in part.refused),
        beside=tuple(name for part in parts for name in part.beside),
    )


def _silent(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


def _inspect_found(found: Found, watch: Watch) -> Inspection:
    from osteoscope.imaging.open import Image, each_image

    images: list[InspectedImage] = []
    refused = list(found.refused)
    total = sum(map(len, found.files.values()))
    done: set[Path] = set()
    for one in each_image(found):
        if isinstance(one, Image):
            files = (*one.files, *one.copies)
            share = len(set(one.files) - done)
            seen = _inspect_image(one, found, partial(_tell, watch, len(done), total, one, share))
        else:
            files, seen = one.files, one
        if isinstance(seen, Refusal):
            refused.append(seen)
        else:
            images.append(seen)
        # The stacks of one file are images of their own, and it counts once.
        done.update(files)
        watch(_DECODING, len(done), total)
    return Inspection(
        images=tuple(sorted(images, key=lambda image: image.files)),
        refused=tuple(
            sorted(
                (RefusedFiles(refusal=one, files=tuple(map(found.name, one.files))) for one in refused),
                key=lambda one: one.files,
            )
        ),
        beside=tuple(map(found.name, found.companions)),
    )


def _tell(watch: Watch, before: int, total: int, image: Image, files: int, planes: int) -> None:
    """Tell of the planes of an image that are decoded as a share of its files, or of those that do not count yet."""
    watch(_DECODING, before + files * planes // image.volume.geometry.shape[0], total)


def _released(_: Sequence[int]) -> Planes:
    """Stand in for the reader of an image that was inspected, which may hold all its values."""
    msg = "expected an image that is open, got one that was inspected"
    raise ValueError(msg)


def _inspect_image(image: Image, found: Found, decoded: Callable[[int], None]) -> InspectedImage | Refusal:
    from osteoscope.imaging.open import not_used_because
    from osteoscope.imaging.values import values_of

    remarks = image.remarks
    try:
        values = values_of(image.volume, progress=decoded)
    except Exception as error:
        return _refusal_of(error, image)
    use, because = None, not_used_because(image, values) or image.derived
    if because is None:
        try:
            use, told = _use_of(image.volume)
            remarks += told
        except Exception as error:
            refusal = Refusal.of(error, *image.files)
            because = refusal.code
            remarks += (refusal.sentence,)
    return InspectedImage(
        image=replace(image, volume=replace(image.volume, reader=_released)),
        values=values,
        use=use,
        not_used_because=because,
        remarks=remarks,
        files=tuple(map(found.name, image.files)),
        copies=tuple(map(found.name, image.copies)),
    )


def _refusal_of(error: Exception, image: Image) -> Refusal:
    """Refuse all files of an image, and say of several which one it is about."""
    refusal = Refusal.of(error, *image.files, *image.copies)
    culprit = getattr(error, "path", None)
    if len(image.files) == 1 or culprit not in image.files:
        return refusal
    return replace(refusal, sentence=f"{printable(culprit.name)}: {refusal.sentence}")


def _use_of(volume: Volume) -> tuple[Use, tuple[str, ...]]:
    """Say what would be read of an image, and what of it would not fit."""
    if volume.modality == "radiograph":
        return Use(planes=tuple(range(volume.geometry.shape[0])), windows=()), ()
    from osteoscope.config import STANDARD_VOLUME
    from osteoscope.imaging.slices import plan_slices

    plan = plan_slices(volume, STANDARD_VOLUME)
    return Use(planes=plan.planes, windows=plan.windows), plan.told


def _geometry_to_json(geometry: Geometry) -> dict[str, Any]:
    spacing = geometry.spacing
    in_plane = None if spacing is None else [spacing.row, spacing.column]
    return {
        "plane": geometry.plane_name,
        "direction": directions(geometry),
        "spacing_mm": in_plane if geometry.steps is None else list(geometry.steps),
        "spacing_kind": None if spacing is None else spacing.kind,
        "aspect": geometry.aspect,
        "tilt_degrees": geometry.tilt,
        "affine_lps_mm": None if geometry.affine is None else geometry.affine.tolist(),
    }
