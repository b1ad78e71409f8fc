"""The NIfTI files of a folder, in the layout of BIDS or a plain one: whose they are, and which are masks of which.

A plain folder has a file a patient (``17.nii.gz``) or a folder a patient (``17/ct.nii.gz``); a mask lies beside its
image and is named after it (``17_mask.nii.gz``, ``17/ct_seg.nii.gz``), or after nothing (``17/mask.nii.gz``).

References
----------
Gorgolewski KJ and others. The brain imaging data structure. Sci Data 2016;3:160044. The Brain Imaging Data Structure
Specification, "Common principles" (entities) and "Imaging derivatives" (masks and segmentations).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from osteoscope.cohort.table import require_folder
from osteoscope.errors import InputError
from osteoscope.imaging.discover import printable
from osteoscope.imaging.marks import LESION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

Layout = Literal["BIDS", "plain"]

_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)

_MASK = re.compile(r"(?:^|[_.-])(?:mask|msk|seg|dseg|segmentation|labels?|roi)(?:-[A-Za-z0-9]+)?$", re.IGNORECASE)
"""How the name of a mask ends; who drew it may stand behind a hyphen, as in ``_seg-manual``."""

_ENTITY = re.compile(r"^([A-Za-z]+)-([A-Za-z0-9+]+)$")

_DATA_TYPES = ("anat", "ct")
"""Folders of BIDS from which images are taken."""

_OF_MASKS = ("label", "desc", "space", "res", "den", "seg", "scale")
"""Entities that a mask has beside those of its image."""

_DESCRIBING = (".json", ".tsv", ".csv", ".xlsx", ".parquet", ".md", ".txt")
"""Ends of names of files that describe others."""

_DESCRIPTIONS = ("README", "CHANGES", "LICENSE")


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """A NIfTI file.

    Parameters
    ----------
    path
        The file.
    name
        Its path within the folder, with forward slashes.
    owners
        What may be its patient's identifier: in BIDS the subject, without ``sub-``; else the folders that it lies in
        and its own name, the whole first and then its beginnings.
    session
        In BIDS, without ``ses-``; else None.
    entities
        In BIDS, those beside subject and session.
    suffix
        In BIDS, such as ``T1w``; else the file's name without its ending.
    """

    path: Path
    name: str
    owners: tuple[str, ...]
    session: str | None
    entities: Mapping[str, str]
    suffix: str

    @property
    def is_mask(self) -> bool:
        """Whether its name is that of a mask, of a lesion or of anything else."""
        return bool(_MASK.search(self.suffix))

    @property
    def names_a_lesion(self) -> bool:
        """Whether its own name speaks of a lesion."""
        return bool(LESION.search(" ".join((*self.entities.values(), self.suffix))))

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, kw_only=True)
class NiftiFolder:
    """What a folder holds.

    Parameters
    ----------
    layout
        Whether it is in the layout of BIDS.
    images, masks
        Sorted by name.
    unused
        The reason why not, by the name of every other file but those that describe others.
    """

    layout: Layout
    images: tuple[NiftiFile, ...]
    masks: tuple[NiftiFile, ...]
    unused: Mapping[str, str]

    def masks_of(self, image: NiftiFile, alone: bool) -> list[NiftiFile]:
        """Give the masks that by their names may be of an image: whether they are is for their grids to tell.

        In BIDS: of the same subject and session, and without an entity that contradicts the image's. In a plain folder:
        in the same folder. A mask that is named after another image is that one's.

        Parameters
        ----------
        image
            One of `images`.
        alone
            Whether all images in its folder are of its patient, so that a mask there that is named after none may be
            of it.
        """
        if self.layout == "BIDS":
            near = [mask for mask in self.masks if _fits(mask, image)]
            beside = [one for one in self.images if one.owners == image.owners]
        else:
            near = [mask for mask in self.masks if mask.folder == image.folder]
            beside = [one for one in self.images if one.folder == image.folder]
        return [mask for mask in near if _may_be_of(mask, image, beside, alone or self.layout == "BIDS")]


def look_at_folder(folder: Path) -> NiftiFolder:
    """Find the NIfTI files of a folder; none is opened.

    Raises
    ------
    InputError
        If it is no folder, holds a folder that cannot be looked into, or no image as NIfTI.
    """
    require_folder(folder, missing="expected a folder of NIfTI files", remedy="check the name")
    files = dict(sorted(_files_in(folder)))
    bids = any(re.match(r"sub-[^/]+/", name) for name in files)
    found: list[NiftiFile] = []
    unused: dict[str, str] = {}
    for name, path in files.items():
        one = (_bids_file if bids else _plain_file)(name, path)
        reason = None if _NIFTI.search(name) else "it is no NIfTI file"
        if reason is None and not _can_be_written(name):
            reason = "its name is no UTF-8: rename it"
        if reason is None and bids:
            reason = _not_used_in_bids(one)
        if reason is None:
            found.append(one)
        elif not name.lower().endswith(_DESCRIBING) and name not in _DESCRIPTIONS:
            unused[printable(name)] = reason
    if all(one.is_mask for one in found):
        instead = "masks alone" if found else "none"
        left = next((name for name in unused if _NIFTI.search(name)), None)
        if left is None:
            expected = f"expected images as .nii or .nii.gz, found {instead}"
            raise InputError(expected, path=folder, remedy="name the folder that holds the images")
        raise InputError(
            f"expected images as .nii or .nii.gz in the layout of BIDS, found {instead}: {printable(left)} is left, "
            f"since {unused[left]}",
            path=folder,
            remedy="lay the images out as BIDS has them, or name no patient's folder sub-…",
        )
    return NiftiFolder(
        layout="BIDS" if bids else "plain",
        images=tuple(one for one in found if not one.is_mask),
        masks=tuple(one for one in found if one.is_mask),
        unused=unused,
    )


def _can_be_written(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def patients_of(one: NiftiFile, patients: Collection[str]) -> list[str]:
    """Give the patients among those of a table that a file may be of: one, if all is well.

    All folders that it lies in speak, and so does its own name, of which the longest beginning counts that is a
    patient: where they name several, a site or a visit may be numbered as patients are, and nobody knows which is one.
    """
    *folders, stem = _NIFTI.sub("", one.name).split("/")
    known = {_without_prefix(patient): patient for patient in patients}
    by_folder = [known[_without_prefix(folder)] for folder in folders if _without_prefix(folder) in known]
    beginnings = [owner for owner in one.owners if owner not in folders or owner == stem]
    by_name = [known[_without_prefix(owner)] for owner in beginnings if _without_prefix(owner) in known]
    return list(dict.fromkeys([*by_folder, *by_name[:1]]))


def _without_prefix(identifier: str) -> str:
    return identifier.removeprefix("sub-")


def _files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """List all files below a folder with their names in it; hidden ones, and folders behind a link, are left aside.

    A folder that cannot be looked into raises `InputError`: patients would be left out without a word.
    """

    def refuse(error: OSError) -> None:
        reason = f"could not be looked into: {os.strerror(error.errno or 0).lower()}"
        remedy = "let it be read, or move it elsewhere"
        raise InputError(reason, path=Path(os.fsdecode(error.filename or folder)), remedy=remedy) from error

    for at, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = folder / os.path.relpath(at, folder) / name
                yield path.relative_to(folder).as_posix(), path


def _bids_file(name: str, path: Path) -> NiftiFile:
    *folders, stem = _NIFTI.sub("", name).split("/")
    words = stem.split("_")
    # A patient's or a session's folder counts where the name is silent.
    own = [folder for folder in folders if folder.startswith(("sub-", "ses-"))]
    entities = {match[1]: match[2] for word in (*own, *words) if (match := _ENTITY.match(word))}
    subject, session = entities.pop("sub", None), entities.pop("ses", None)
    return NiftiFile(
        path=path,
        name=name,
        owners=() if subject is None else (subject,),
        session=session,
        entities=entities,
        suffix="_".join(word for word in words if not _ENTITY.match(word)),
    )


def _plain_file(name: str, path: Path) -> NiftiFile:
    *folders, stem = _NIFTI.sub("", name).split("/")
    beginnings = [stem[: match.start()] for match in re.finditer(r"(?<=.)[_-]", stem)][::-1]
    owners = tuple(dict.fromkeys([*folders, stem, *beginnings]))
    return NiftiFile(path=path, name=name, owners=owners, session=None, entities={}, suffix=stem)


def _not_used_in_bids(one: NiftiFile) -> str | None:
    """Say why a NIfTI file is neither an image nor a lesion's mask, or None."""
    parts = one.name.split("/")
    derived = parts[0] == "derivatives"
    if not one.owners or not (derived or parts[0].startswith("sub-")):
        return "it lies neither with a subject nor among the derivatives"
    if derived and not one.is_mask:
        return "it is derived, and no mask"
    if len(parts) < 2:
        return "it lies in no folder of a subject"
    if not derived and parts[-2] not in _DATA_TYPES:
        return f"it lies in {printable(parts[-2])!r}, and images are taken from {' and '.join(_DATA_TYPES)}"
    said = [one.entities[name] for name in ("label", "desc") if name in one.entities]
    if one.is_mask and said and not one.names_a_lesion:
        return f"it is a mask of {printable(' '.join(said))!r}, which speaks of no lesion"
    return None


def _fits(mask: NiftiFile, image: NiftiFile) -> bool:
    """Tell whether a mask of BIDS has the image's subject, and nothing that contradicts its session and entities."""
    if mask.owners != image.owners or mask.session not in (None, image.session):
        return False
    return all(image.entities.get(name) == value for name, value in mask.entities.items() if name not in _OF_MASKS)


def _may_be_of(mask: NiftiFile, image: NiftiFile, beside: Sequence[NiftiFile], alone: bool) -> bool:
    """Tell by its name whether a mask may be of an image: of all beside it, the one with the longest name has it."""
    longest = max((len(one.suffix) for one in beside if _named_after(mask, one)), default=0)
    if longest:
        return _named_after(mask, image) and len(image.suffix) == longest
    return alone and _named_after_none(mask)


def _named_after(mask: NiftiFile, image: NiftiFile) -> bool:
    """Tell whether a mask's name begins with the image's: ``17_mask`` with ``17``, ``T1w_mask`` with ``T1w``."""
    return bool(re.match(rf"{re.escape(image.suffix)}[_.-]", mask.suffix, re.IGNORECASE))


def _named_after_none(mask: NiftiFile) -> bool:
    """Tell whether nothing is in a mask's name but that it is one, and of a lesion: ``mask``, ``tumour_seg``."""
    return not re.sub(r"[_.-]", "", LESION.sub("", _MASK.sub("", mask.suffix)))
