"""Presets and settings as frozen models, TOML in and out, fingerprints.

Every choice that changes a result is a field here, so that a run's ``config.toml`` repeats it and its fingerprint
names it.
"""

from __future__ import annotations

import hashlib
import json
import operator
import tomllib
from pathlib import Path  # noqa: TC003  pydantic reads the annotation
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from osteoscope.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Trunk = Literal["densenet121", "densenet169", "densenet201", "densenet121-truncated", "densenet-tiny"]
RegionOfInterest = Literal["none", "box", "outline"]
Covariate = Literal["age", "sex", "site", "level"]
Preset = Literal["quick", "standard", "full"]
Split = Literal["patients", "sites", "looks"]
LEFT_OUT_WHOLE: Mapping[str, str] = {
    "patients": "",
    "sites": " Each fold left out all patients of one body site, or of all rare ones, as the nearest thing to a centre "
    "never seen.",
    "looks": " Each fold left out all patients whose pictures look alike, as the nearest thing to a centre never seen.",
}
"""What a reader of figures has to know of each `Split`, as a sentence that goes behind others."""
NetworkName = Literal["optimised", "plain", "matched"]
ImageKind = Literal["radiograph", "CT", "MR"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VolumeConfig(_Settings):
    """How a CT or MR becomes the planes that the network reads; the same in training and prediction.

    A plane's channels are its windows, one for MR, of the planes before it, of itself and of the planes behind it, in
    this order: ``(1 + 2 neighbours) x windows``.
    """

    size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)] = 256
    """Rows and columns of a plane, in pixels: whole steps of the grid that the network answers on."""
    spacing: Annotated[float, Field(ge=0.1, le=10)] = 1.5
    """Between the pixels of a plane, in mm."""
    planes: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most that are read of a volume."""
    step: Annotated[float, Field(gt=0, le=100)] = 4.0
    """Least distance between two that are read, in mm, to the nearest slice."""
    neighbours: Annotated[int, Field(ge=0, le=8)] = 1
    """Planes on either side that a plane brings along as channels."""
    neighbour_distance: Annotated[float, Field(gt=0, le=100)] = 4.0
    """Between a plane and its next neighbour, in mm; where slices are further apart, it is the next slice."""
    windows: Annotated[tuple[tuple[FiniteFloat, FiniteFloat], ...], Field(min_length=1, max_length=8)] = (
        (-160, 240),
        (-500, 1300),
        (200, 2000),
    )
    """Of CT, in HU, each from what becomes 0 to what becomes 1: soft tissue, bone, dense bone and metal."""
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = (1.0, 99.5)
    """Of an MR's values in the body, that become 0 and 1."""

    @model_validator(mode="before")
    @classmethod
    def _without_what_counted_for_nothing(cls, settings: Any) -> Any:
        """Read the settings of earlier bundles, which state how finely a lesion's region would have been read."""
        if isinstance(settings, dict):
            return {name: value for name, value in settings.items() if name != "lesion_spacing"}
        return settings

    @model_validator(mode="after")
    def _ranges_are_some(self) -> Self:
        for low, high in (*self.windows, self.percentiles):
            if not low < high:
                msg = f"expected windows and percentiles that rise, got {low} to {high}"
                raise ValueError(msg)
        return self

    def channels(self, modality: Literal["CT", "MR"]) -> int:
        """Count the channels of a plane."""
        return (1 + 2 * self.neighbours) * (len(self.windows) if modality == "CT" else 1)


class PreparationConfig(_Settings):
    """How an image becomes the planes that the network reads; the same in training and prediction."""

    size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)] = 128
    """Rows and columns of a plane, in pixels; as in `VolumeConfig`."""
    roi: RegionOfInterest = "none"
    """What is read: the whole image, or the square round the lesion's box or outline."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.2
    """How much of the lesion's longer side is added on every side of it, be it annotated or found."""
    second_look: bool = False
    """Read all parts of the image more closely after the whole, and the region of a lesion, in full resolution."""
    second_look_at: Literal["found", "box", "outline"] = "found"
    """Where the second look goes in prediction: to the regions in which the network finds a lesion, or to the square
    round what a person has marked. The folds of a run are judged so, too; what is learnt does not depend on it."""
    volume: VolumeConfig | None = None
    """How CT and MR are read; None where nothing but radiographs is. A network that is trained with it for one of them
    reads no radiographs, and `size` and `margin` count for nothing."""
    # What a network of one modality reads is written down, and so fingerprinted, as it was before there were several.
    modalities: Annotated[tuple[ImageKind, ...], Field(exclude_if=operator.not_)] = ()
    """That one network reads beside each other, two or more, sorted; `size` is then that of `volume`, and a radiograph
    is read whole, once. Empty for a network of one modality, which the cohort decides on."""

    @model_validator(mode="after")
    def _modalities_fit(self) -> Self:
        named = self.modalities
        if not named:
            return self
        if len(named) == 1 or list(named) != sorted(set(named)):
            msg = f"modalities are two or more, each once and sorted, or left out for one; got {', '.join(named)}"
            raise ValueError(msg)
        if self.volume is None:
            msg = f"to read {' and '.join(named)}, volume has to say how CT and MR are read"
            raise ValueError(msg)
        if self.size != self.volume.size:
            msg = f"planes of all modalities are of one size, got size {self.size} and volume.size {self.volume.size}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _looks_fit(self) -> Self:
        if self.second_look and self.roi != "none":
            msg = f"second_look follows a look at the whole image, so roi must be none, got {self.roi}"
            raise ValueError(msg)
        if self.volume is not None and (self.second_look or self.roi != "none"):
            msg = "with volume the body is read, once, so second_look must be false and roi none"
            raise ValueError(msg)
        return self

    def plane_shape(self, modality: ImageKind) -> tuple[int, int, int]:
        """Give the (channels, size, size) of a plane that is read of an image.

        Where several modalities are read, it is the same for all: behind the channels of the image comes one for each
        modality (`osteoscope.imaging.mixed`).

        Raises
        ------
        ValueError
            If it is a CT or MR, and how these are read is not stated; or none of the modalities that are read.
        """
        if self.modalities and modality not in self.modalities:
            msg = f"{' and '.join(self.modalities)} are read, got {modality}"
            raise ValueError(msg)
        size = self.size if self.volume is None or modality == "radiograph" else self.volume.size
        return self.image_channels(modality) + len(self.modalities), size, size

    def image_channels(self, modality: ImageKind) -> int:
        """Count the channels of a plane that show the image: where several modalities are read, the most of any.

        Raises
        ------
        ValueError
            If it is a CT or MR, and how these are read is not stated.
        """
        return max(map(self._own_channels, self.modalities or (modality,)))

    def _own_channels(self, modality: ImageKind) -> int:
        if modality == "radiograph":
            return 1
        if self.volume is None:
            msg = f"how {modality} is read is not stated"
            raise ValueError(msg)
        return self.volume.channels(modality)

    @property
    def annotation(self) -> RegionOfInterest:
        """What must be annotated in an image so that it can be predicted."""
        if self.second_look and self.second_look_at != "found":
            return self.second_look_at
        return self.roi

    def given(self, annotation: RegionOfInterest) -> Self:
        """Prepare so that prediction makes use of an annotation, or of none.

        A network that looks twice still looks at the whole image, and then at what is annotated instead of at what it
        would find; for any other, `annotation` is what it reads.

        Raises
        ------
        ConfigError
            If CT or MR is read, of which no region is.
        """
        if self.volume is not None and annotation != "none":
            read = "of a mix all is read" if self.modalities else "of CT and MR the body is read"
            reason = f"{read}, so --roi {annotation} cannot be"
            raise ConfigError(reason, remedy="leave --roi out")
        if not self.second_look:
            return self.model_copy(update={"roi": annotation})
        return self.model_copy(update={"second_look_at": "found" if annotation == "none" else annotation})


class NetworkConfig(_Settings):
    """The optimised DenseNet; every ablation is a field."""

    trunk: Trunk = "densenet121"
    multiscale: bool = True
    """Fuse the taps after blocks 2, 3 and 4 on the stride-16 grid; otherwise block 4 alone, on the stride-32 grid."""
    attention: bool = True
    """Multi-head self-attention over the grid, with a gain that starts at zero."""
    matched: bool = False
    """Spend as many parameters as the parts that are switched off would hold on position-wise convolutions."""
    focus: bool = False
    """Let each position of a plane speak as much as it is likely to be lesion, beside the others of that plane, which
    takes annotated lesions to learn from."""
    pooling: Literal["gated", "mean"] = "gated"
    """How a patient's planes are pooled."""
    width: Annotated[int, Field(ge=8, le=1024)] = 384
    """Channels of the fused map."""
    heads: Annotated[int, Field(ge=1, le=32)] = 6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a patient's pooled vector that is dropped in training."""
    pretrained: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the file of DenseNet weights that training starts from; None starts from random ones."""
    covariates: tuple[Covariate, ...] = ()
    """What else is known of the patient; each may be missing."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.covariates)) < len(self.covariates):
            msg = f"each covariate can be named once, got {', '.join(self.covariates)}"
            raise ValueError(msg)
        if self.width % self.heads:
            msg = f"width must be a multiple of heads, got {self.width} and {self.heads}"
            raise ValueError(msg)
        if self.matched and self.multiscale and self.attention:
            msg = "matched stands in for parts that are switched off; switch off multiscale or attention"
            raise ValueError(msg)
        return self


class AugmentationConfig(_Settings):
    """Random changes of a plane in training, drawn anew for each plane in each epoch."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 20.0
    """Largest angle, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest relative change of size."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Largest shift, as a share of the plane's side."""
    flip: bool = True
    """Mirror left and right in half of the planes."""
    whole: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of looks at images with a known lesion that are at all of the image; the others are at a square of it: one
    with all of the lesion, from little larger than it to eight times as wide, or one as wide as a closer look, with
    some of it."""
    elsewhere: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of looks beside which a square of the same image without the lesion is looked at too."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest change of the logarithm of gamma."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest standard deviation of added noise, in units of the plane's range."""
    blur: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of planes that are smoothed, each pixel over its neighbours."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of planes in which one rectangle is blanked."""
    collimate: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Share of planes with a black or white strip along one edge, as of a collimated or copied film."""

    def of_squares(self) -> Self:
        """Change planes alike, and look at no image with a known lesion as a whole."""
        return self.model_copy(update={"whole": 0.0})


class AuxiliaryConfig(_Settings):
    """What the network learns first, from images outside of the classes: their kinds, sites, views and outlines."""

    looks: Annotated[int, Field(ge=0, le=100_000_000)] = 60_000
    """At how many planes it looks in all, whatever the number of images; 0 leaves this learning out."""
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 24
    """Images in a step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.05
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.995
    # Most of their lesions are a few pixels wide where the whole image is seen.
    augmentation: AugmentationConfig = AugmentationConfig(whole=0.3)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of this learning alone: runs that differ in ``training.seed`` share what was learnt, since it is kept."""


class TrainingConfig(_Settings):
    """How the network is fitted and how it is judged."""

    split: Split = "patients"
    """What a fold leaves out: a share of the patients of each class; or all patients of one body site, or of one look
    of the pictures, as the nearest thing to a centre never seen."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Of a split by patients; by sites or looks there is one for each."""
    repeats: Annotated[int, Field(ge=1, le=50)] = 1
    """Of a split by patients."""
    members: Literal["one", "folds"] = "one"
    """What the bundle holds: one network, fitted to all patients once the folds have told how well that does; or the
    networks of the first repeat's folds, whose mean logit decides, at as many times the cost."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    closer_epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Epochs behind these, by a schedule of their own, in which nothing is asked but the classes, of squares that hold
    a lesion, and where lesions are: what looks closely judges, where the second look is at all parts of an image."""
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Patients in a step."""
    views_per_patient: Annotated[int, Field(ge=1, le=64)] = 2
    """Planes of a patient that are read in a step, drawn at random; of a CT or MR in which the lesion is outlined, half
    of them show it, and of several modalities as many are of each, as far as there are so many."""
    modality_dropout: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How often a patient of several modalities is seen by one of them alone in a step, since any may be missing
    later."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far patients of rarer classes are read more often in an epoch: 0 reads each once, 1 reads those of a class as
    many times more as the largest class has more patients, in whole times."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 7e-4
    """The peak of a one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.05
    rehearsal: Annotated[float, Field(ge=0, le=16)] = 1.0
    """Auxiliary images in a step, for each image of a case: every look is then judged by itself, and the classes are
    two kinds more among the others. 0 leaves them out."""
    closer_rehearsal: Annotated[float, Field(ge=0, le=16)] = 0.5
    """As many of them in the `closer_epochs`, which teach where lesions are and nothing else, so that what was learnt
    of lesions on parts of the body that no case shows is not forgotten there. 0 leaves them out, and so does a
    `rehearsal` of 0."""
    lesion_weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Weight of the losses by which the network learns where the annotated lesions are, whether it looks at one, and to
    say nothing of the class where it does not."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the exponential average of the weights, which is what is kept; 0 keeps the last weights."""
    augmentation: AugmentationConfig = AugmentationConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """``auto`` takes bfloat16 where the processor computes with it, and float32 elsewhere."""


class Config(_Settings):
    """All settings of a run."""

    preparation: PreparationConfig = PreparationConfig()
    network: NetworkConfig = NetworkConfig()
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _grid_covers_planes(self) -> Self:
        volume = self.preparation.volume
        size = self.preparation.size if volume is None else volume.size
        if not self.network.multiscale and size % 32:
            msg = f"size is a multiple of 32 where a network answers on a grid of 32 pixels, got {size}"
            raise ValueError(msg)
        return self

    def fingerprint(self) -> str:
        """Hash of all settings, as 64 hexadecimal digits: equal settings, equal fingerprint."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_toml(self) -> str:
        """Write all settings as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


# Sizes and HU mean something in a scan, and nothing is collimated in it: less is changed than in a radiograph.
_OF_VOLUMES = AugmentationConfig(rotation=15, scale=0.15, gamma=0.2, noise=0.03, erase=0.15, collimate=0)


def preset_config(
    preset: Preset,
    *,
    modality: ImageKind | tuple[ImageKind, ...] = "radiograph",
    network: NetworkName = "optimised",
    roi: RegionOfInterest = "none",
    second_look: bool = False,
    focus: bool = False,
    covariates: tuple[Covariate, ...] = (),
    pretrained: str | None = None,
    seed: int = 0,
    folds: int = 5,
    split: Split = "patients",
) -> Config:
    """Build the settings of a preset.

    Parameters
    ----------
    preset
        ``quick`` to see that all works, ``standard`` for results, ``full`` for a paper on a machine with a GPU.
    modality
        Of the images, or several, sorted. A network for CT or MR, or for a mix, learns from no auxiliary images, and
        takes no `roi` and no `second_look`.
    network
        ``optimised``; ``plain``, the trunk with average pooling and nothing else; or ``matched``, the plain trunk
        with as many parameters as the optimised one.
    focus
        As in `NetworkConfig`; of the optimised network alone.
    roi, second_look, covariates, pretrained, seed, folds, split
        As in `PreparationConfig`, `NetworkConfig` and `TrainingConfig`.

    Raises
    ------
    ConfigError
        If a region of CT or MR is asked for.
    """
    parts = {
        "optimised": NetworkConfig(),
        "plain": NetworkConfig(multiscale=False, attention=False, pooling="mean"),
        "matched": NetworkConfig(multiscale=False, attention=False, matched=True),
    }
    chosen = parts[network].model_copy(
        update={"covariates": covariates, "pretrained": pretrained, "focus": focus and network == "optimised"}
    )
    if modality != "radiograph":
        if roi != "none" or second_look:
            read = f"of {modality} the body is read" if isinstance(modality, str) else "of a mix all is read"
            raise ConfigError(f"{read}, so --roi {roi} cannot be", remedy="leave --roi out")
        mix = () if isinstance(modality, str) else modality
        return _for_volumes(preset, chosen, mix=mix, seed=seed, folds=folds, split=split)
    size, auxiliary, epochs, closer_epochs, repeats = {
        "quick": (96, AuxiliaryConfig(looks=8_000), 3, 4, 1),
        "standard": (96, AuxiliaryConfig(looks=60_000), 9, 16, 1),
        # In steps that keep a GPU busy.
        "full": (224, AuxiliaryConfig(looks=150_000, batch_size=96, learning_rate=1.8e-3), 12, 16, 3),
    }[preset]
    return Config(
        preparation=PreparationConfig(size=size, roi=roi, second_look=second_look),
        network=chosen,
        auxiliary=auxiliary,
        training=TrainingConfig(
            epochs=epochs,
            closer_epochs=closer_epochs if second_look else 0,
            batch_size=4,
            balance=0.7,
            rehearsal=4,
            averaging=0.99,
            repeats=repeats if split == "patients" else 1,
            seed=seed,
            folds=folds,
            split=split,
        ),
    )


STANDARD_VOLUME = VolumeConfig(size=160, spacing=1.5, planes=16)
"""How CT and MR are read by default, with preset ``standard``."""


def _for_volumes(
    preset: Preset, network: NetworkConfig, *, mix: tuple[ImageKind, ...], seed: int, folds: int, split: Split
) -> Config:
    """Build the settings of a preset for CT or MR, or for a mix of modalities."""
    volume, epochs, repeats = {
        "quick": (VolumeConfig(size=64, spacing=2.0, planes=16, neighbours=0), 60, 1),
        "standard": (STANDARD_VOLUME, 30, 1),
        "full": (VolumeConfig(), 60, 3),
    }[preset]
    training = TrainingConfig(
        epochs=epochs,
        # Of each modality two, as of a scan alone one with the lesion and one without.
        views_per_patient=max(4, 2 * len(mix)),
        repeats=repeats if split == "patients" else 1,
        rehearsal=0,
        augmentation=_OF_VOLUMES,
        seed=seed,
        folds=folds,
        split=split,
    )
    if preset == "quick":
        # A few hundred steps from random weights are too few for a large trunk, and a small one takes a larger rate.
        network = network.model_copy(update={"trunk": "densenet-tiny", "width": 64, "heads": 4})
        training = training.model_copy(update={"learning_rate": 4e-3, "averaging": 0.95})
    return Config(
        preparation=PreparationConfig(volume=volume, **({"size": volume.size, "modalities": mix} if mix else {})),
        network=network,
        auxiliary=AuxiliaryConfig(looks=0),
        training=training,
    )


def read_config(path: Path) -> Config:
    """Read settings from a TOML file; fields that are left out take their defaults.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or holds a field or value that does not exist.
    """
    try:
        return Config.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings could not be read: {error}", path=path) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", path=path, remedy="mend the line that is named") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"setting {field!r}: {first['msg'].removeprefix('Value error, ')}",
            path=path,
            remedy="see docs/settings.md for the settings",
        ) from error
