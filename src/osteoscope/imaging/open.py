"""From files of any format to images whose planes can be read, or the reason why not."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.errors import ImageError
from osteoscope.imaging.discover import Found, discover, look_into
from osteoscope.imaging.person import NOBODY, Person
from osteoscope.imaging.refusal import LEFT_OUT, Refusal, RefusalCode, RefusedImageError
from osteoscope.storage import short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from osteoscope.imaging.derivation import Derivation
    from osteoscope.imaging.series import Series
    from osteoscope.imaging.signature import Format
    from osteoscope.imaging.values import Values
    from osteoscope.imaging.volume import Modality, Volume


_OF_LABELS = ("NIfTI", "MetaImage", "NRRD")
"""Formats that do not say whether they hold grey values or labels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """An image of one or more planes, and what is known of it besides.

    Parameters
    ----------
    volume
        Its planes are decoded when read; damage to pixels may be found only then.
    format
        Of its files.
    files
        In the order of the planes; of a file with several planes, once.
    copies
        Files that hold the same planes again, and are not read.
    study, series
        Short hashes of the Study and the Series Instance UID; empty for anything but DICOM.
    part
        What tells it from other images of the same series, or empty.
    dicom_modality
        Modality (0008,0060), or empty.
    person
        Whom its first file says that it shows; `NOBODY` for anything but DICOM.
    encodings
        Transfer syntaxes of a DICOM series, each by its name (PS3.6 A).
    aside
        Why it is used only when asked for, or None.
    derivation, original
        What it was made from other images for, and whether its image type does not say that it was
        (`osteoscope.imaging.derivation`).
    thickness
        Of a slice, in mm, which is not the distance to the next one; None where it is not stated.
    phantom
        Whether its headers, or what lies beside a NIfTI, say that it was made from the phantom: nobody is on it. A file
        that cannot say so is taken for no phantom.
    remarks
        What was odd and how it was taken, as sentences without a full stop.
    """

    volume: Volume
    format: Format
    files: tuple[Path, ...]
    copies: tuple[Path, ...] = ()
    study: str = ""
    series: str = ""
    part: str = ""
    dicom_modality: str = ""
    person: Person = NOBODY
    encodings: tuple[str, ...] = ()
    aside: RefusalCode | None = None
    derivation: Derivation = ""
    original: bool = True
    thickness: float | None = None
    phantom: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Modality of its values; of what is neither CT, MR nor a radiograph that of its files, ``OT`` if none.

        OT, for other, is DICOM's own word (PS3.3 C.7.3.1.1.1).
        """
        return (self.dicom_modality or "OT") if self.aside is RefusalCode.OTHER_MODALITY else self.volume.modality

    @property
    def derived(self) -> RefusalCode | None:
        """Why a prediction leaves a CT or MR that was made from other images; None of one that was only reformatted.

        Such an image is no fault, as a cohort may hold it because a person chose it.
        """
        return _DERIVED.get(self.derivation)

    def release(self) -> None:
        """Let go of values that are held in memory or a temporary file; they are read anew where they are wanted."""
        from osteoscope.imaging.stored_array import ArrayReader

        if isinstance(self.volume.reader, ArrayReader):
            self.volume.reader.release()


_DERIVED = {
    "localiser": RefusalCode.LOCALISER,
    "projection": RefusalCode.DERIVED,
    "map": RefusalCode.DERIVED,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """What became of the files that were found: each is in one of the images or one of the refusals."""

    images: tuple[Image, ...]
    refused: tuple[Refusal, ...]


def each_image(found: Found, *, modality: Modality | None = None) -> Iterator[Image | Refusal]:
    """Open what was found one after the other, so that no more is held than one image at a time.

    Parameters
    ----------
    found
        Files by their formats.
    modality
        Of files that do not say theirs, as NIfTI does not.

    Yields
    ------
    Images and refusals, in no order; the refusals of `found` are not among them. Nothing raises for what is wrong with
    a file: an exception that was not foreseen refuses its file as ``unknown``.

    Raises
    ------
    StorageError
        If there is no space left for values that have to be laid into a temporary file.
    """
    yield from _open_dicom(found.files.get("DICOM", ()))
    for kind, paths in found.files.items():
        for path in () if kind == "DICOM" else paths:
            try:
                yield _open_single(path, kind, modality)
            except Exception as error:
                yield Refusal.of(error, path)


def open_images(found: Found, *, modality: Modality | None = None) -> Opened:
    """Open all that was found, as `each_image` does.

    Returns
    -------
    Images by their first file, and refusals by theirs, those of `found` among them.
    """
    opened: list[Image | Refusal] = []
    for one in each_image(found, modality=modality):
        if opened and isinstance(opened[-1], Image):
            # Of values that its modality was concluded from; those of the last may be wanted next.
            opened[-1].release()
        opened.append(one)
    refused = [*found.refused, *(one for one in opened if isinstance(one, Refusal))]
    return Opened(
        images=tuple(
            sorted((one for one in opened if isinstance(one, Image)), key=lambda image: os.fsencode(image.files[0]))
        ),
        refused=tuple(sorted(refused, key=lambda one: os.fsencode(one.files[0]))),
    )


def open_image(path: Path, *, modality: Modality | None = None) -> Image:
    """Open the one image that a file is, or that a folder holds.

    What is used only when asked for, such as the scout of a CT, is left aside in a folder, as are files that are no
    image; a file that is damaged is not, for it may be a slice of the image that is meant.

    Parameters
    ----------
    path
        A file, or a folder whatever its depth; not a zip.
    modality
        Of a file that does not say its own, as NIfTI does not.

    Raises
    ------
    ImageError
        If there is none, there are several, or one is refused; `RefusedImageError` with the code where it is.
    """
    found = discover([path])
    opened = open_images(found, modality=modality)
    whole = _is_folder(path)
    refused = [refusal for refusal in opened.refused if not (whole and _lies_beside(refusal, path))]
    if refused:
        # Without a slice that is damaged the others may be refused, too, as an uneven stack.
        first = min(refused, key=lambda refusal: len(refusal.files))
        raise RefusedImageError(first.code, first.sentence, path=first.files[0], remedy=first.remedy)
    images = [image for image in opened.images if image.aside is None] if whole else opened.images
    if len(images) == 1:
        return images[0]
    raise ImageError(_counted(images, opened, found), path=path, remedy=_ONE_IMAGE)


_BESIDE = (RefusalCode.NOT_AN_IMAGE, RefusalCode.NO_PIXELS, RefusalCode.UNSUPPORTED_ARCHIVE)
"""Of files that lie beside an image and are no part of it."""


def _lies_beside(refusal: Refusal, folder: Path) -> bool:
    """Tell whether it is of something in a folder that is no part of an image; an empty file may be a slice of it."""
    of = refusal.files[0]
    return refusal.code in _BESIDE or (refusal.code is RefusalCode.EMPTY and of != folder and _is_folder(of))


def _is_folder(path: Path) -> bool:
    """Tell whether it is a folder, which what cannot be looked at is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


_ONE_IMAGE = "name a folder that holds the files of one series and nothing else, or one file"


def _counted(images: Sequence[Image], opened: Opened, found: Found) -> str:
    """Say what was found in the place of one image."""
    if images:
        kinds = ", ".join(sorted(_described(image) for image in images)[:_MOST_NAMED])
        more = f" and {len(images) - _MOST_NAMED} more" if len(images) > _MOST_NAMED else ""
        return f"expected one image, found {len(images)}: {kinds}{more}"
    if opened.images:
        return f"expected an image, found only what is used when asked for: {LEFT_OUT[_first_code(opened)]}"
    return f"expected an image, found {'a zip' if found.archives else 'none'}"


_MOST_NAMED = 4


def _first_code(opened: Opened) -> RefusalCode:
    return next(image.aside for image in opened.images if image.aside is not None)


def _described(image: Image) -> str:
    planes, rows, columns = image.volume.geometry.shape
    return f"{image.dicom_modality or image.format} of {planes} x {rows} x {columns}"


def fault_of_shape(image: Image) -> RefusalCode | None:
    """Say why an image cannot be read as a plane or as planes of a patient; None where it can."""
    geometry = image.volume.geometry
    if image.volume.modality == "radiograph":
        return RefusalCode.SEVERAL_FRAMES if geometry.shape[0] > 1 else None
    return RefusalCode.MISSING_PLACE if geometry.affine is None else None


def not_used_because(image: Image, values: Values) -> RefusalCode | None:
    """Say why an image that can be read is left out unless it is asked for; None where it is used."""
    fault = image.aside or fault_of_shape(image)
    if fault is not None:
        return fault
    if values.blank:
        return RefusalCode.BLANK
    return RefusalCode.LABELS if values.labels and image.format in _OF_LABELS else None


@contextlib.contextmanager
def images_at(
    paths: Sequence[Path], *, modality: Modality | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[Opened]:
    """Open all images at some places, zips among them, for as long as the context lasts.

    Parameters
    ----------
    paths
        Files, folders and zips, such as those of one study.
    modality
        Of files that do not say theirs, as NIfTI does not.
    progress
        Is told how many of how many files were looked at.
    """
    with contextlib.ExitStack() as stack:
        found = discover(paths, progress=progress)
        parts = [open_images(found, modality=modality)]
        for zipped in found.archives:
            try:
                parts.append(open_images(stack.enter_context(look_into(zipped)), modality=modality))
            except Exception as error:
                parts.append(Opened(images=(), refused=(Refusal.of(error, zipped),)))
        yield Opened(
            images=tuple(image for part in parts for image in part.images),
            refused=tuple(one for part in parts for one in part.refused),
        )


def study_of(path: Path) -> str:
    """Give the short hash of a DICOM file's Study Instance UID, though it was refused; empty where none can be read."""
    from osteoscope.imaging.headers import scan
    from osteoscope.imaging.opened import opened

    try:
        with opened(path) as stream:
            study = scan(stream).elements.word(0x0020000D)
    except Exception:
        return ""
    return short_hash(study) if study else ""


def _open_dicom(paths: tuple[Path, ...]) -> list[Image | Refusal]:
    if not paths:
        return []
    from osteoscope.imaging.series import assemble

    try:
        assembly = assemble(paths)
    except Exception as error:
        return [Refusal.of(error, *paths)]
    return [*map(_of_series, assembly.series), *assembly.refused]


def _of_series(series: Series) -> Image:
    from osteoscope.imaging.dicom import transfer_syntax_name

    return Image(
        volume=series.volume,
        format="DICOM",
        files=series.files,
        copies=series.copies,
        study=series.study,
        series=series.name,
        part=series.part,
        dicom_modality=series.dicom_modality,
        person=series.person,
        encodings=tuple(transfer_syntax_name(uid) for uid in series.transfer_syntaxes),
        aside=series.aside,
        derivation=series.derivation,
        original=series.original,
        thickness=series.thickness,
        phantom=series.phantom,
        remarks=series.remarks,
    )


def _open_single(path: Path, kind: Format, modality: Modality | None) -> Image:
    """Open a file that is an image by itself; the libraries that are needed are loaded when they are."""
    if kind in ("JPEG", "PNG", "TIFF", "BMP"):
        from osteoscope.imaging.picture import read_picture

        return Image(volume=read_picture(path), format=kind, files=(path,))
    if kind == "NIfTI":
        from osteoscope.imaging.nifti import open_nifti

        scan = open_nifti(path, unless_stated=modality)
    else:
        from osteoscope.imaging.metaimage import open_metaimage

        scan = open_metaimage(path, unless_stated=modality)
    return Image(volume=scan.volume, format=kind, files=(path,), phantom=scan.phantom, remarks=scan.told)
