"""What ``bundle.json`` holds.

A bundle is a folder that stands alone::

    bundle.json             this manifest
    bundle.json.sha256      its hash, as sha256sum writes and checks it
    MODEL_CARD.md           the same for people
    training_cases.json     pseudonyms and pixel hashes of the training cases, and of those that the bundle was
                            recalibrated on, to refuse testing on either
    members/0/planes.onnx   planes -> gate scores, pooled vectors, signed class maps, likelihood of lesion
    members/0/planes-int8.onnx   the same in eight bits, where that is offered
    members/0/head.onnx     scores, vectors, covariates -> logits, plane weights
    members/0/weights.safetensors
    members/1/...
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from osteoscope.config import NetworkConfig, PreparationConfig, Split
from osteoscope.evaluation.calibration import CalibrationMap, ChosenCalibration, Method
from osteoscope.evaluation.conformal import ConformalThresholds, Refused
from osteoscope.imaging.volume import Modality

SCHEMA: Final = 3
SCHEMA_OF_MIX: Final = 4
"""Of a bundle that reads several modalities beside each other, which no version of before this schema can."""
SCHEMA_OF_CLOSER_LOOKS: Final = 5
"""Of a bundle whose networks look again at radiographs: at all parts of them, where versions of before this schema read
the found regions alone, which gives other logits than its calibration was fitted to."""
READABLE = (2, 3, 4, 5)
"""Schemas that are read; what one of before lacks takes its default."""
MANIFEST = "bundle.json"
MANIFEST_HASH = "bundle.json.sha256"
MODEL_CARD = "MODEL_CARD.md"
TRAINING_CASES = "training_cases.json"
PLANES_GRAPH = "planes.onnx"
INT8_GRAPH = "planes-int8.onnx"
PLANES_OUTPUTS = ("scores", "vectors", "maps", "lesions")
HEAD_GRAPH = "head.onnx"
WEIGHTS = "weights.safetensors"

Precision = Literal["float32", "int8"]
"""What the networks of a bundle compute with."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Part):
    """One network of the bundle."""

    folder: Annotated[str, Field(pattern=r"^members/\d+$")]
    fold: int | None
    """The fold that this network never saw; None for one that saw them all."""
    covariates: dict[str, Any] | None
    """How covariates are encoded, fitted on this member's training cases; None for a network without."""


class Calibration(_Part):
    """How logits become probabilities, and how that was found.

    What a bundle of before there was a choice of methods lacks takes its default.
    """

    method: Method = "temperature"
    temperature: Annotated[float, Field(gt=0)]
    bias: tuple[float, ...] | None = None
    """Of each class, with sum 0; None for none."""
    losses: dict[str, float] = {}
    """Cross-validated log loss of each method, which the choice was made by; empty where there was no choice."""
    fitted_on: str
    """What it was fitted on, as a sentence."""
    prior_source: str = "The same share for every class."
    """Where the class prior is from, as a sentence."""

    @classmethod
    def of(cls, chosen: ChosenCalibration, *, fitted_on: str, prior_source: str) -> Self:
        """Note down a map and what its method was chosen by."""
        found = chosen.calibration
        return cls(
            method=found.method,
            temperature=found.temperature,
            bias=found.bias if found.method == "affine" else None,
            losses={str(method): loss for method, loss in chosen.losses.items()},
            fitted_on=fitted_on,
            prior_source=prior_source,
        )


class Verdicts(_Part):
    """When a probability is enough for a verdict: class-conditional conformal thresholds."""

    level: float
    thresholds: tuple[float, ...] | None
    """One for each class; None where the cases were too few."""
    counts: tuple[int, ...] | None
    """Calibration cases of each class."""
    refused: str | None
    """Why there are no thresholds."""

    @classmethod
    def of(cls, conformal: ConformalThresholds | Refused, *, level: float) -> Self:
        """Note down thresholds, or why there are none at this level."""
        if isinstance(conformal, Refused):
            return cls(level=level, thresholds=None, counts=None, refused=conformal.reason)
        return cls(level=level, thresholds=conformal.thresholds, counts=conformal.counts, refused=None)

    def conformal(self) -> ConformalThresholds | Refused:
        """Give the thresholds, or why there are none."""
        if self.thresholds is None or self.counts is None:
            return Refused(reason=self.refused or "no thresholds")
        return ConformalThresholds(level=self.level, thresholds=self.thresholds, counts=self.counts)


class Int8(_Part):
    """Whether the networks may be run in eight bits, by what that does to patients that they never saw."""

    offered: bool
    reason: str | None
    """Why they may not."""
    auc_float32: float | None
    """Out-of-fold, mean over the classes; None where it is not defined."""
    auc_int8: float | None
    map_correlation: float
    """Between the class maps of both, mean over the patients."""
    least_map_correlation: float
    """Of any patient."""
    patients: int


class Training(_Part):
    """Where the bundle comes from."""

    cohort_fingerprint: str
    config_fingerprint: str
    patients: dict[str, int]
    """Training patients of each class, by slug."""
    images: int
    source: str
    guessed_patients: bool
    split: Split = "patients"
    """What the folds left out that the figures are of."""
    seed: int
    auxiliary: dict[str, Any] | None
    """What was learnt from images outside of the classes, with a ``fingerprint`` if it was learnt before the cases; how
    many of them, for each of a case, lay beside the cases, unless an earlier version wrote it. None for nothing."""
    versions: dict[str, str]


class Recalibration(_Part):
    """One step in a bundle's lineage: the networks stayed as they were, their probabilities and verdicts did not."""

    action: Literal["recalibrated"] = "recalibrated"
    osteoscope: str
    parent_sha256: str
    """Of the parent's manifest, ``bundle.json``."""
    cohort_fingerprint: str
    source: str
    patients: dict[str, int]
    """Of each class, by slug."""
    images: int
    prior_from: dict[str, float]
    prior_to: dict[str, float]
    fitted: bool
    """Whether a calibration was fitted; otherwise the parent's was kept."""
    figures: dict[str, dict[str, Any]]
    """On these patients, by name: ``before`` (the parent as it was), ``prior_only`` (the parent under the new prior)
    and ``after``; the latter two cross-fitted, so that no patient had a say in the own probabilities."""


def schema_of(preparation: PreparationConfig) -> Literal[3, 4, 5]:
    """Give the oldest schema that says truly how images are read."""
    if preparation.modalities:
        return SCHEMA_OF_MIX
    return SCHEMA_OF_CLOSER_LOOKS if preparation.second_look else SCHEMA


class Manifest(_Part):
    """All that is to be known of a bundle."""

    schema_version: Literal[2, 3, 4, 5] = Field(default=3, alias="schema", serialization_alias="schema")
    osteoscope: str
    classes: tuple[str, ...]
    slugs: tuple[str, ...]
    prior: dict[str, float]
    """What the probabilities assume of the classes, by slug."""
    preparation: PreparationConfig
    network: NetworkConfig
    members: tuple[Member, ...]
    calibration: Calibration
    verdicts: Verdicts
    evidence_threshold: float | None
    """Share of the strongest evidence above which a position counts as found; None without outlines to choose it on."""
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)]
    body_regions: tuple[str, ...]
    provenance: Literal["clinical", "phantom"]
    intended_use: str
    training: Training
    performance: dict[str, Any]
    """Out-of-fold figures by patient, with their intervals, as they were before any recalibration."""
    int8: Int8 | None = None
    """Whether eight bits are offered; None where that was never tried."""
    lineage: tuple[Recalibration, ...] = ()
    """What was done to the bundle since it was trained, in order."""
    files: dict[str, str]
    """SHA-256 of every other file but the manifest's own hash, by its path in the bundle."""

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        if not len(self.classes) == len(self.slugs) == len(self.prior) or set(self.prior) != set(self.slugs):
            msg = "classes, slugs and prior are not of the same classes"
            raise ValueError(msg)
        # Both raise ValueError where the values are not those of a map, or of thresholds.
        self.calibration_map()
        self.verdicts.conformal()
        if self.verdicts.thresholds is not None and len(self.verdicts.thresholds) != len(self.slugs):
            msg = f"expected a verdict threshold for each class, got {len(self.verdicts.thresholds)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _planes_are_alike(self) -> Self:
        """One network reads the planes of all modalities."""
        if len({self.plane_shape(modality) for modality in self.modalities}) > 1:
            msg = f"planes of {', '.join(self.modalities)} differ in their size or their channels"
            raise ValueError(msg)
        mix = self.preparation.modalities
        if mix and mix != self.modalities:
            msg = f"its networks read {', '.join(mix)}, and it states {', '.join(self.modalities)}"
            raise ValueError(msg)
        return self

    @property
    def offers_int8(self) -> bool:
        """Tell whether the networks may be run in eight bits."""
        return self.int8 is not None and self.int8.offered

    def plane_shape(self, modality: Modality) -> tuple[int, int, int]:
        """Give the (channels, size, size) of a plane that is read of an image."""
        return self.preparation.plane_shape(modality)

    def calibration_map(self) -> CalibrationMap:
        """Give the map from logits, in the order of the classes, to probabilities under the stated prior."""
        found = self.calibration
        return CalibrationMap(
            method=found.method,
            temperature=found.temperature,
            bias=(0.0,) * len(self.slugs) if found.bias is None else found.bias,
            prior=tuple(self.prior[slug] for slug in self.slugs),
        )
