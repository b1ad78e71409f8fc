"""The closed list of reasons for which a file, or a group of files, is not read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from osteoscope.errors import ImageError, MissingExtraError, OsteoscopeError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


class RefusalCode(StrEnum):
    """Why something was not read; `docs/files.md` says of each what to do."""

    MISSING = "missing"
    """There is no such file."""
    EMPTY = "empty"
    """The file has no bytes, or the folder no files."""
    UNREADABLE = "unreadable"
    """The operating system does not let it be read."""
    NOT_AN_IMAGE = "not_an_image"
    """Its bytes are of none of the formats that are read."""
    DAMAGED = "damaged"
    """Its header or structure is broken or truncated."""
    CHANGED = "changed"
    """It is no longer the file that was opened."""
    TOO_LARGE = "too_large"
    """It has more pixels, or would take more memory or time, than any image that is meant."""
    TOO_SMALL = "too_small"
    """It has too few pixels for anything to be told apart."""
    SEVERAL_FRAMES = "several_frames"
    """One picture is expected, and the file holds several."""
    SEVERAL_VOLUMES = "several_volumes"
    """One scan is expected, and the file holds several: a series in time, echoes, or the parts of a vector."""
    DETACHED_PIXELS = "detached_pixels"
    """A header whose pixels lie in another file."""
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    """Its pixels are stored in a way whose grey values are not known for certain."""
    UNSAFE_ARCHIVE = "unsafe_archive"
    """A zip that would unpack to far more than it is, or whose members would land outside of their folder."""
    UNSUPPORTED_ARCHIVE = "unsupported_archive"
    """An archive within an archive, one that is no zip, or one that is packed otherwise than by deflate."""
    ENCRYPTED = "encrypted"
    """An archive that asks for a password."""
    NO_PIXELS = "no_pixels"
    """A DICOM file that holds no image: a report, a plan, a directory, a header without pixel data."""
    TRUNCATED_PIXELS = "truncated_pixels"
    """Its pixel data end before the last pixel."""
    INCONSISTENT_PIXELS = "inconsistent_pixels"
    """Its pixel data do not fit the rows, columns and bits that its header states."""
    UNSUPPORTED_COMPRESSION = "unsupported_compression"
    """Its pixels are compressed in a way that no decoder here reads, such as 12-bit extended JPEG or video."""
    MISSING_PLACE = "missing_place"
    """Several slices whose place in the patient is not stated, so that their order and distance are unknown."""
    SAME_PLACE = "same_place"
    """Different slices at one position, and nothing in their headers that would tell them apart."""
    MISSING_SLICES = "missing_slices"
    """Slices are missing within a series."""
    UNEVEN_SLICES = "uneven_slices"
    """Slices that do not follow each other in equal steps along one line."""
    SECONDARY_CAPTURE = "secondary_capture"
    """A captured screen, a scanned film or another derived picture: read, but used only when asked for."""
    COLOUR = "colour"
    """A picture in colour: read as its luma, but used only when asked for."""
    OTHER_MODALITY = "other_modality"
    """Neither CT, MR nor a radiograph: read, but used only when asked for."""
    MOSAIC = "mosaic"
    """Several slices laid side by side in one picture: read, but used only when asked for."""
    LOCALISER = "localiser"
    """A scout on which other images were planned: read, but used only when asked for."""
    DERIVED = "derived"
    """A CT or MR that was computed from other images: read, but used only when asked for."""
    FOR_PROCESSING = "for_processing"
    """A radiograph as the detector gave it, before it was made to be looked at: read, but used only when asked for."""
    BLANK = "blank"
    """Every pixel has the same value: read, but not used."""
    LABELS = "labels"
    """Numbers of regions rather than grey values: read, but not used."""
    MISSING_LIBRARY = "missing_library"
    """Its format needs an optional library that is not installed."""
    UNKNOWN = "unknown"
    """What went wrong is none of the other reasons."""


LEFT_OUT = {
    RefusalCode.SECONDARY_CAPTURE: "a captured screen, a scanned film or another derived picture",
    RefusalCode.COLOUR: "a picture in colour, read as its luma",
    RefusalCode.OTHER_MODALITY: "neither CT, MR nor a radiograph",
    RefusalCode.MOSAIC: "several slices laid side by side in one picture",
    RefusalCode.LOCALISER: "a scout on which other images were planned",
    RefusalCode.DERIVED: "a projection, a rendering, a difference or a map that was computed from other images",
    RefusalCode.FOR_PROCESSING: "a radiograph as the detector gave it, before it was made to be looked at",
    RefusalCode.BLANK: "every pixel has the same value",
    RefusalCode.LABELS: "numbers of regions rather than grey values",
    RefusalCode.MISSING_PLACE: "its place in the patient is not stated, so that nothing is known of its scale",
    RefusalCode.SEVERAL_FRAMES: "several frames rather than one radiograph",
}
"""What is read and yet not used, unless it is asked for: what it is, without a full stop."""


class RefusedImageError(ImageError):
    """An image is not read, for a reason of the closed list."""

    def __init__(
        self, code: RefusalCode, message: str, *, path: Path | str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Files that are not read, and why.

    Parameters
    ----------
    files
        Which; they are refused together, for one reason.
    code
        The reason, of the closed list.
    sentence
        What was expected and what was found; it holds no identifier of a patient.
    remedy
        What to do about it, as an imperative sentence without a full stop.
    """

    files: tuple[Path, ...]
    code: RefusalCode
    sentence: str
    remedy: str | None = None

    @classmethod
    def of(cls, error: Exception, *files: Path) -> Self:
        """Keep what an exception says about files; of one that was not foreseen its type alone, and no value.

        Raises
        ------
        StorageError
            The very exception if it is one: a disk that is full is no fault of a file that is read.
        """
        if isinstance(error, StorageError):
            raise error
        if isinstance(error, OsteoscopeError):
            return cls(files=files, code=_code_of(error), sentence=error.message, remedy=error.remedy)
        sentence = f"what went wrong was not foreseen ({type(error).__name__})"
        remedy = "leave it out, and report of what device and program it is"
        return cls(files=files, code=RefusalCode.UNKNOWN, sentence=sentence, remedy=remedy)


def _code_of(error: OsteoscopeError) -> RefusalCode:
    if isinstance(error, RefusedImageError):
        return error.code
    return RefusalCode.MISSING_LIBRARY if isinstance(error, MissingExtraError) else RefusalCode.UNREADABLE
