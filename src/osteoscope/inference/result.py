"""What is written of a study: the published, versioned shape of ``prediction.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from osteoscope.bundle.format import Precision
from osteoscope.config import Covariate
from osteoscope.imaging.refusal import RefusalCode
from osteoscope.imaging.volume import Modality

SCHEMA = 1

INDETERMINATE = "indeterminate"
"""More than one class, or none, is plausible at the level of the verdicts."""
OUT_OF_SCOPE = "out_of_scope"
"""The study is nothing that the bundle was trained for."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShortHash = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
OtherModality = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
"""A code string (PS3.5 6.2, CS)."""
Share = Annotated[float, Field(ge=0, le=1)]
Row = tuple[float, float, float, float]
Affine = tuple[Row, Row, Row, Row]


class _Part(BaseModel):
    # The published shape says of each field what this file says of it.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PlaneRead(_Part):
    """A part of an image that the networks read: a slice, a whole radiograph, or a part of it."""

    plane: Annotated[int, Field(ge=0)]
    """Index of the plane in the image, counted from 0."""
    rectangle: tuple[float, float, float, float]
    """Left, top, width and height of what was read, in pixel-edge coordinates of the plane; it may reach beyond it."""
    weight: Annotated[float, Field(ge=0)]
    """Share in the decision, mean over the members; over all planes of a study the shares sum to 1. A look at a whole
    radiograph has none where parts of it are read more closely."""
    likelihood: Share | None
    """Of a lesion in what was read, where parts of a radiograph are read more closely; null for anything else."""
    region: bool
    """Whether it is a region of a radiograph in which a lesion was found."""


class ImageRead(_Part):
    """An image of the study that the networks read."""

    name: str
    """Short hash of its DICOM series, numbered where a series has several images, or of its file."""
    modality: Modality
    files: tuple[Sha256, ...]
    """SHA-256 of the files that it came from, in the order of the planes."""
    values: Sha256
    """Over its shape and decoded values, as ``inspect`` gives it."""
    shape: tuple[int, int, int]
    """Planes, rows, columns; they lie as the image is looked at, whatever the order in its files."""
    affine: Affine | None
    """4x4, from an index (column, row, plane, 1) to LPS coordinates in mm; null where the place is unknown."""
    weight: Annotated[float, Field(ge=0)]
    """Share of the image in the decision."""
    planes: tuple[PlaneRead, ...]
    evidence: dict[str, str]
    """By class, the file of the signed evidence in patient space, in this folder; empty for a radiograph."""
    remarks: tuple[str, ...]
    """What was odd and how it was taken, as sentences without a full stop."""


class Overlay(_Part):
    """A picture of one of the planes that speak most for the class of the verdict, with the evidence for it.

    Where the verdict is no class, it is the most probable one.
    """

    file: str
    """In this folder."""
    image: str
    """Name of the image."""
    plane: Annotated[int, Field(ge=0)]
    """Index of the plane in the image, counted from 0."""


class ImageNotUsed(_Part):
    """An image of the study that the networks did not read, and why."""

    name: str
    modality: Modality | OtherModality
    """As which it was opened; of what is none of these its Modality (0008,0060), such as ``PT``, or ``OT`` if none is
    stated."""
    code: RefusalCode | Literal["outside", "other_series", "copy", "out_of_scope"]
    """Why, of the codes in ``docs/files.md``; or ``outside``: the bundle does not read such images; ``other_series``:
    another series of the scan was read; ``copy``: it has the values of an image that was read; ``out_of_scope``: the
    bundle reads such images, and the study is out of its scope."""
    reason: str


class FilesRefused(_Part):
    """Files of the study that could not be read, and why."""

    files: Annotated[int, Field(ge=1)]
    """How many; ``inspect`` names them."""
    code: RefusalCode
    reason: str
    remedy: str | None


class BundleUsed(_Part):
    """The bundle that was asked."""

    sha256: Sha256
    """Of its manifest."""
    osteoscope: str
    """The version that made it."""
    members: Annotated[int, Field(ge=1)]
    precision: Precision = "float32"
    """That its networks computed with."""
    provenance: Literal["clinical", "phantom"]


class StudyPrediction(_Part):
    """All that is said of a study. Nothing in it identifies the patient."""

    schema_version: Literal[1] = Field(default=1, alias="schema", serialization_alias="schema")
    osteoscope: str
    request: Sha256
    """Of all that the prediction depends on; the same request is not answered twice."""
    notice: str
    """What this may be used for, and what not."""
    study: ShortHash
    """Of the Study Instance UID; of a file that is a study by itself, of its bytes; of several that are one patient's,
    of their names."""
    verdict: str
    """The slug of a class, ``indeterminate`` or ``out_of_scope``."""
    reasons: tuple[str, ...]
    """Why the verdict is no class, and whatever else limits it; sentences."""
    probabilities: dict[str, Share] | None
    """By slug; they hold under `prior`. Null for a study that is out of scope, unless it is shown for research."""
    prior: dict[str, Share]
    """What the probabilities assume of the classes before the images are read, by slug."""
    classes: dict[str, str]
    """Name of each class, by slug."""
    level: Share | None
    """Share of each class's cases for which the verdicts' sets hold the right class; null where there were too few
    cases to promise one, so that the most probable class is the verdict."""
    research: bool
    """Whether images and studies outside of the scope are shown, too: never for a patient's care."""
    covariates: tuple[Covariate, ...]
    """What was told of the patient beside the images, and read by the networks."""
    images: tuple[ImageRead, ...]
    overlays: tuple[Overlay, ...]
    """Of the planes that speak most for the class of the verdict, or where that is none for the most probable one, from
    most to least; of several modalities at least one of each."""
    not_used: tuple[ImageNotUsed, ...]
    refused: tuple[FilesRefused, ...]
    bundle: BundleUsed

    @model_validator(mode="after")
    def _nothing_is_said_out_of_scope(self) -> Self:
        if self.verdict not in {*self.classes, INDETERMINATE, OUT_OF_SCOPE}:
            msg = f"expected the slug of a class, {INDETERMINATE} or {OUT_OF_SCOPE}, got {self.verdict!r}"
            raise ValueError(msg)
        if self.probabilities is None and self.verdict != OUT_OF_SCOPE:
            msg = f"a verdict of {self.verdict} needs probabilities"
            raise ValueError(msg)
        if self.probabilities is not None and self.verdict == OUT_OF_SCOPE and not self.research:
            msg = "of a study that is out of scope no probabilities are given, unless for research"
            raise ValueError(msg)
        return self

    def to_json(self) -> dict[str, Any]:
        """Give all as one JSON document of the published shape."""
        return self.model_dump(mode="json", by_alias=True)


def prediction_schema() -> dict[str, Any]:
    """Give the shape of ``prediction.json`` as JSON Schema 2020-12, as it is published in ``docs``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **StudyPrediction.model_json_schema(by_alias=True, mode="serialization"),
    }
