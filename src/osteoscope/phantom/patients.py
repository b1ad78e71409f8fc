"""Who the patients of the phantom cohort are: label, kind of tumour, attributes, and what these say of the label.

A patient is drawn in the order in which one thing leads to another: label -> kind (a subtype, or a treatment) -> level,
age, sex -> matrix -> site -> size -> collapse and the other signs. The order is told once, in `_tell`; drawing follows
it with a random generator and the likelihood follows it with the attributes in hand, so that the likelihood ratio is
exact. Attributes hold all that is rendered or known of a patient, and neither the label nor the kind.

The figures are the published ones where there are any (`docs/`, "What is known of the two tumours, in numbers"): [a]
Ilaslan et al., Radiology 2004; [d] PMC4628514; [e] Si et al. 2014; [f] BMC Musculoskelet Disord 2021; [g] PMC9135903;
[h] RSNA 2005; [k] PMID 30912719; [l] PMID 27101076; (m) common knowledge; (i) our own choice. A phantom is never
clinical evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from osteoscope.phantom.distributions import Choice, CutLogNormal, CutNormals, Share, certain, chance, cut_normal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.random import Generator

    from osteoscope.phantom.distributions import Distribution

    T = TypeVar("T")

Label = Literal["osteosarcoma", "giant cell tumor"]
Centre = Literal["A", "B", "C"]
Level = Literal["cervical", "thoracic", "lumbar", "sacral"]
Sex = Literal["F", "M"]
Side = Literal["left", "right"]
Site = Literal["body", "body and arch", "arch"]
Matrix = Literal["none", "moderate", "marked", "ivory"]

LABELS: tuple[Label, ...] = get_args(Label)
CENTRES: tuple[Centre, ...] = get_args(Centre)

VERTEBRAE: Mapping[Level, tuple[str, ...]] = {
    "cervical": ("C3", "C4", "C5", "C6", "C7"),
    "thoracic": tuple(f"T{number}" for number in range(1, 13)),
    "lumbar": ("L1", "L2", "L3", "L4", "L5"),
    "sacral": ("S1", "S2", "S3"),
}
"""Vertebrae that a tumour may sit in, from head to feet."""

SEVERE_COLLAPSE = 0.4
"""Share of the height lost from which a collapse counts as severe (i)."""


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """All that is rendered, and all that is known beside the images; never the label.

    Parameters
    ----------
    centre
        Where the patient was scanned.
    level, vertebra
        Region and name of the vertebra that holds most of the tumour.
    age, sex
        In years.
    bone_hu
        Trabecular bone of L1 at 120 kV, in HU.
    vertebrae
        How many neighbouring vertebrae are involved, from 1 to 3.
    site
        Part that the tumour sits in; in the sacrum the ala counts as the arch.
    side, eccentricity
        Where it lies off the midline, from 0 (on it) to 1 (at the edge of the vertebra).
    matrix
        Grade of the mineralised matrix.
    matrix_hu, matrix_extent, matrix_rim
        Mean of the matrix in HU, the share of the tumour that it fills, and from 0 (clouds anywhere) to 1 (along the
        edge) where it lies; 0 where there is none.
    size
        Largest diameter in mm.
    collapse
        Share of the body's height that is lost; 0 if there is no fracture.
    fracture_sclerosis
        Whether the fracture has a dense band, which is not matrix.
    trabeculae
        Whether trabeculae are left inside the tumour.
    fluid_levels, cyst_extent
        Whether there are fluid-fluid levels, and the share of the tumour that the cysts fill.
    margin
        Width in mm over which bone gives way to tumour: narrow is well defined, wide is permeative.
    sclerotic_rim
        Whether the bone at the margin is dense.
    septa
        Whether bony septa part the tumour (soap bubble).
    expansion, shell
        How far the bone is blown up, in mm, and the share of that surface that a thin shell covers.
    periosteal_reaction
        Whether there is one.
    soft_tissue, mass_extent
        Whether there is a mass outside the bone, and how far it reaches, in mm; 0 if there is none.
    canal
        Share of the canal's area that tumour fills.
    attenuation, uptake
        Of the tumour's soft part: HU plain, and what contrast adds.
    """

    centre: Centre
    level: Level
    vertebra: str
    age: float
    sex: Sex
    bone_hu: float
    vertebrae: int
    site: Site
    side: Side
    eccentricity: float
    matrix: Matrix
    matrix_hu: float
    matrix_extent: float
    matrix_rim: float
    size: float
    collapse: float
    fracture_sclerosis: bool
    trabeculae: bool
    fluid_levels: bool
    cyst_extent: float
    margin: float
    sclerotic_rim: bool
    septa: bool
    expansion: float
    shell: float
    periosteal_reaction: bool
    soft_tissue: bool
    mass_extent: float
    canal: float
    attenuation: float
    uptake: float

    @property
    def is_mineralised(self) -> bool:
        """Whether there is any mineralised matrix: the one-feature rule for osteosarcoma."""
        return self.matrix != "none"


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A drawn patient.

    Parameters
    ----------
    label
        The diagnosis.
    kind
        What it was drawn through: a subtype or a treatment. It is truth, not a covariate: the likelihood ratio is that
        of someone who does not know it.
    attributes
        What can be seen and known.
    seed
        Of all in the image that the attributes leave open; it does not depend on the label.
    log_likelihood_ratio
        log p(attributes | osteosarcoma) - log p(attributes | giant cell tumor).
    """

    label: Label
    kind: str
    attributes: Attributes
    seed: int
    log_likelihood_ratio: float


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How the patients of one kind of tumour are distributed; parameters named as the attributes."""

    level: Choice[Level]
    sacral_vertebra: Choice[str]
    age: CutNormals | CutLogNormal
    sacral_age: CutNormals | CutLogNormal
    female: float
    sacral_female: float
    vertebrae: Choice[int]
    lytic: float
    grade: Choice[Matrix]
    matrix_rim: Share
    site: Choice[Site]
    eccentricity: Share
    size: float
    size_sd: float
    collapse: Mapping[Site, float]
    trabeculae: tuple[float, float, float]  # without collapse, with a moderate one, with a severe one
    fluid_levels: float
    margin: CutLogNormal
    sclerotic_rim: float
    septa: float
    expansion: Share
    shell: Share
    periosteal_reaction: float
    soft_tissue: float
    canal: float


_OLDEST, _YOUNGEST = 80.0, 8.0

_CONVENTIONAL = _Kind(
    level=Choice((("cervical", 14), ("thoracic", 33), ("lumbar", 32), ("sacral", 21))),  # [a]
    sacral_vertebra=Choice((("S1", 0.4), ("S2", 0.35), ("S3", 0.25))),  # (i)
    age=CutNormals(((1 / 3, 18, 6), (2 / 3, 46, 17)), _YOUNGEST, _OLDEST),  # (i), after [a]
    sacral_age=CutNormals(((1 / 3, 18, 6), (2 / 3, 46, 17)), _YOUNGEST, _OLDEST),
    female=103 / 198,  # [a]
    sacral_female=103 / 198,
    vertebrae=Choice(((1, 0.82), (2, 0.17), (3, 0.01))),  # [a], three (i)
    lytic=3 / 47,  # [a]
    grade=Choice(
        (("moderate", 55 - 17 - 5), ("marked", 17), ("ivory", 5))
    ),  # of 55 mineralised: 25 % of 69, 5 of 69 [a]
    matrix_rim=Share(2, 3.5),  # (i)
    site=Choice((("body", 0.21), ("body and arch", 0.37), ("arch", 0.42))),  # [a]: body only 21 %; the rest (i)
    eccentricity=Share(2.2, 2.8),  # (i)
    size=61,  # 40-90 (m)
    size_sd=14,
    collapse={"body": 0.5, "body and arch": 0.5, "arch": 0.3},  # not known; (i)
    trabeculae=(0.35, 0.40, 0.50),  # not known; what permeates leaves some (i)
    fluid_levels=0.03,  # (i)
    margin=CutLogNormal(2.9, 0.65, 0.4, 14),  # wide (m)
    sclerotic_rim=0.05,  # (i)
    septa=0.15,  # (i)
    expansion=Share(1.8, 3.4, 0, 16),  # (i)
    shell=Share(1.8, 2.6),  # (i)
    periosteal_reaction=0.20,  # may occur
    soft_tissue=0.70,  # common (m)
    canal=0.68,  # often (m)
)

_UNTREATED = _Kind(
    level=Choice((("cervical", 10), ("thoracic", 30), ("lumbar", 20), ("sacral", 40))),  # (i), after [d, e]
    sacral_vertebra=Choice((("S1", 0.5), ("S2", 0.35), ("S3", 0.15))),  # upper
    age=CutLogNormal(29, 0.38, _YOUNGEST, _OLDEST),  # 20-40 typical [d]
    sacral_age=CutLogNormal(math.sqrt(25 * 45), 0.4357, _YOUNGEST, _OLDEST),  # median 33.5, quartiles 25 and 45
    female=2 / 3,  # [d]
    sacral_female=0.55,  # (i)
    vertebrae=Choice(((1, 0.79), (2, 0.17), (3, 0.04))),  # several 21 %
    lytic=1.0,  # mineralised in 0 of 30 [e] and 0 of 9 [f]
    grade=Choice((("moderate", 0.55), ("marked", 0.42), ("ivory", 0.03))),  # of those that ossify (i)
    matrix_rim=Share(3, 2.6),  # (i)
    site=Choice((("body", 0.33), ("body and arch", 0.53), ("arch", 0.14))),  # [e, f]
    eccentricity=Share(3.0, 2.2),  # eccentric
    size=50.4,  # gives the median of 52.5 [g]
    size_sd=13,
    collapse={"body": 0.60, "body and arch": 0.60, "arch": 0.30},  # 44-68 %
    trabeculae=(0.33, 0.66, 0.97),  # 33-100 % according to the collapse
    fluid_levels=0.19,  # spine [h]
    margin=CutLogNormal(1.6, 0.65, 0.4, 14),  # well defined
    sclerotic_rim=6 / 39,  # 2 of 30 [e], 4 of 9 [f]
    septa=0.40,  # (i)
    expansion=Share(2.5, 3, 0, 16),  # expansile
    shell=Share(2.4, 2.4),  # (i); cortex often destroyed
    periosteal_reaction=0.01,  # 0 of 30 [e]
    soft_tissue=0.55,
    canal=0.58,
)

_KINDS: Mapping[Label, Mapping[str, _Kind]] = {
    "osteosarcoma": {
        "conventional": _CONVENTIONAL,
        "chondroblastic": replace(_CONVENTIONAL, lytic=3 / 12),
        "fibroblastic": replace(_CONVENTIONAL, lytic=3 / 4),
        "telangiectatic": replace(
            _CONVENTIONAL, lytic=1.0, fluid_levels=0.75, septa=0.40, expansion=_UNTREATED.expansion
        ),
    },
    "giant cell tumor": {
        "untreated": _UNTREATED,
        "denosumab": replace(_UNTREATED, lytic=2 / 24, sclerotic_rim=0.6),  # formed bone in 22 of 24 [g]
    },
}

_SUBTYPES: Mapping[Centre, tuple[int, ...]] = {"A": (50, 11, 3, 3), "B": (47, 14, 3, 3), "C": (44, 11, 6, 6)}
_TREATED: Mapping[Centre, float] = {"A": 0.05, "B": 0.08, "C": 0.11}

_MIX: Mapping[Label, Mapping[Centre, Choice[str]]] = {
    # Of 67 whose subtype is given [a], 47, 12, 4 and 4; the centres differ and average to that.
    "osteosarcoma": {
        centre: Choice(tuple(zip(_KINDS["osteosarcoma"], counts, strict=True))) for centre, counts in _SUBTYPES.items()
    },
    # 8 % treated (i).
    "giant cell tumor": {
        centre: Choice((("untreated", 1 - treated), ("denosumab", treated))) for centre, treated in _TREATED.items()
    },
}

_EXTENT: Mapping[Matrix, Distribution[float]] = {
    "none": certain(0.0),
    "moderate": Share(3, 3, 0.10, 0.45),
    "marked": Share(3, 3, 0.35, 0.80),
    "ivory": Share(4, 2, 0.75, 0.98),
}  # (i)
_DENSITY: Mapping[Matrix, Distribution[float]] = {
    "none": certain(0.0),
    "moderate": cut_normal(654, 176, 200, 1200),  # [l]
    "marked": cut_normal(654, 176, 200, 1200),
    "ivory": cut_normal(1190, 239, 600, 1900),
}
_LEVEL_SIZE: Mapping[Level, float] = {"cervical": 0.8, "thoracic": 0.95, "lumbar": 1.05, "sacral": 1.08}  # (i)


class _Take(Protocol):
    """Gives the value of an attribute, drawn from its distribution or looked up and scored under it."""

    def __call__(self, name: str, distribution: Distribution[T]) -> T: ...


def _tell(kind: _Kind, take: _Take) -> None:
    """Go through a patient's attributes in the order in which they depend on each other; the centre is given."""
    level = take("level", kind.level)
    sacral = level == "sacral"
    names = VERTEBRAE[level]
    take("vertebra", kind.sacral_vertebra if sacral else Choice(tuple((name, 1.0) for name in names)))
    age = take("age", kind.sacral_age if sacral else kind.age)
    female = kind.sacral_female if sacral else kind.female
    take("sex", Choice((("F", female), ("M", 1 - female))))
    take("bone_hu", bone_density(age))
    vertebrae = take("vertebrae", kind.vertebrae)
    _tell_matrix(kind, take)
    site = take("site", kind.site)
    take("side", Choice((("left", 1.0), ("right", 1.0))))
    take("eccentricity", kind.eccentricity)
    mean = _LEVEL_SIZE[level] * (kind.size + 6.0 * (vertebrae - 1))
    take("size", cut_normal(mean, kind.size_sd, 22, 115))
    _tell_collapse(kind, site, take)
    _tell_look(kind, take)


def _tell_matrix(kind: _Kind, take: _Take) -> None:
    grades: tuple[tuple[Matrix, float], ...] = tuple(
        (grade, (1 - kind.lytic) * kind.grade.probability(grade)) for grade, _ in kind.grade.weights
    )
    matrix = take("matrix", Choice((("none", kind.lytic), *grades)))
    take("matrix_hu", _DENSITY[matrix])
    take("matrix_extent", _EXTENT[matrix])
    nowhere: Distribution[float] = certain(0.0)
    take("matrix_rim", nowhere if matrix == "none" else kind.matrix_rim)


def _tell_collapse(kind: _Kind, site: Site, take: _Take) -> None:
    collapse = take("collapse", _PerhapsShare(kind.collapse[site], Share(2, 2.5, 0.08, 0.72)))
    take("fracture_sclerosis", chance(0.35 if collapse > 0 else 0.0))  # (i)
    bare, moderate, severe = kind.trabeculae
    left = bare if collapse == 0 else moderate if collapse < SEVERE_COLLAPSE else severe
    take("trabeculae", chance(left))


def _tell_look(kind: _Kind, take: _Take) -> None:
    nothing: Distribution[float] = certain(0.0)
    levels = take("fluid_levels", chance(kind.fluid_levels))
    take("cyst_extent", Share(3, 3, 0.15, 0.75) if levels else nothing)  # (i)
    take("margin", kind.margin)
    take("sclerotic_rim", chance(kind.sclerotic_rim))
    take("septa", chance(kind.septa))
    take("expansion", kind.expansion)
    take("shell", kind.shell)
    take("periosteal_reaction", chance(kind.periosteal_reaction))
    mass = take("soft_tissue", chance(kind.soft_tissue))
    take("mass_extent", Share(2, 2.5, 6, 36) if mass else nothing)  # (i)
    take("canal", _PerhapsShare(kind.canal, Share(2, 3.4)))  # fills 37 % on average [g]
    take("attenuation", cut_normal(45, 10, 20, 70))  # (m)
    take("uptake", cut_normal(68, 14, 25, 110))  # enhanced 80-150 (m)


@dataclass(frozen=True)
class _PerhapsShare:
    """0, or with some probability a share; the density is with respect to a point at 0 and lengths above it."""

    probability: float
    share: Share

    def draw(self, rng: Generator) -> float:
        return self.share.draw(rng) if rng.random() < self.probability else 0.0

    def log_density(self, value: float) -> float:
        if value == 0:
            return math.log1p(-self.probability)
        return math.log(self.probability) + self.share.log_density(value)


def bone_density(age: float) -> CutNormals:
    """Give trabecular density of L1 in HU at an age: 226 +- 44 under 30, falling 2.5 a year, 89 +- 38 over 90 [k]."""
    later = max(0.0, age - 30)
    return cut_normal(max(226 - 2.5 * later, 89), 44 - 0.1 * min(later, 60), 20, 400)


def draw_attributes(label: Label, centre: Centre, rng: Generator) -> tuple[str, Attributes]:
    """Draw a kind, and a patient's attributes given it."""
    kind = _MIX[label][centre].draw(rng)
    drawn: dict[str, Any] = {}

    def take(name: str, distribution: Distribution[T]) -> T:
        value = distribution.draw(rng)
        drawn[name] = value
        return value

    _tell(_KINDS[label][kind], take)
    return kind, Attributes(centre=centre, **drawn)


def log_density(attributes: Attributes, label: Label) -> float:
    """Give log p(attributes | label, centre): exact, summed over the kinds, which are not known.

    Discrete attributes count with their probability, continuous ones with their density in their own unit.
    """
    mix = _MIX[label][attributes.centre]
    parts = [
        math.log(mix.probability(name)) + _log_density_of_kind(attributes, kind)
        for name, kind in _KINDS[label].items()
        if mix.probability(name) > 0
    ]
    return float(np.logaddexp.reduce(parts))


def log_likelihood_ratio(attributes: Attributes) -> float:
    """Give log p(attributes | osteosarcoma) - log p(attributes | giant cell tumor), which no honest score can beat."""
    return log_density(attributes, "osteosarcoma") - log_density(attributes, "giant cell tumor")


def _log_density_of_kind(attributes: Attributes, kind: _Kind) -> float:
    total = 0.0

    def take(name: str, distribution: Distribution[T]) -> T:
        nonlocal total
        value: T = getattr(attributes, name)
        total += distribution.log_density(value)
        return value

    _tell(kind, take)
    return total


def draw_patient(label: Label, centre: Centre, seed: Sequence[int]) -> Patient:
    """Draw one patient; the same seed gives the same patient.

    The seed of the image comes from another stream than the attributes, so that it tells nothing of the label.
    """
    of_attributes, of_image = np.random.SeedSequence(list(seed)).spawn(2)
    kind, attributes = draw_attributes(label, centre, np.random.default_rng(of_attributes))
    return Patient(
        label=label,
        kind=kind,
        attributes=attributes,
        seed=int(of_image.generate_state(1, np.uint32)[0]),
        log_likelihood_ratio=log_likelihood_ratio(attributes),
    )


def draw_patients(count: int, seed: int, centres: Sequence[Centre] = CENTRES) -> list[Patient]:
    """Draw patients, with both labels and all centres equally likely and independent of each other.

    Patient ``n`` depends on the seed, on ``n`` and on the centres, not on how many are drawn.

    Raises
    ------
    ValueError
        If no patient or no centre is asked for.
    """
    if count < 1 or not centres:
        msg = f"expected at least one patient and one centre, got {count} and {list(centres)}"
        raise ValueError(msg)
    patients = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        label, centre = LABELS[int(rng.integers(len(LABELS)))], centres[int(rng.integers(len(centres)))]
        patients.append(draw_patient(label, centre, (seed, number, 1)))
    return patients


ATTRIBUTES = tuple(field.name for field in fields(Attributes))
"""Names of the attributes, in order."""
