"""What the pages are made from: plain data, filled by whoever ran the study.

Class names are shown to people as given; slugs are the keys of a metrics mapping and are never shown. Tuples that run
over the classes keep the order of ``classes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from osteoscope.imaging.prepare import Lesion, Square
    from osteoscope.imaging.volume import Modality, PlaneName
    from osteoscope.report.planes import Position, ShownWindow, Sides

Metrics: TypeAlias = Mapping[str, Any]
"""The content of a ``metrics.json``."""

Figure: TypeAlias = Mapping[str, Any]
"""``{"value", "low", "high", "n"}``: an estimate, its 95 % interval and its number of cases.

A ``value`` of None is not defined; ``low`` and ``high`` of None mean that there is no interval. An optional ``reason``
says why.
"""

StudyKind: TypeAlias = Literal["run", "evaluation"]
"""Out-of-fold figures of a training, or a bundle on other cases."""

SecondLook: TypeAlias = Literal["found", "marked"]
"""Where a network looks again: where it finds a lesion, or where a person has marked one."""

RESEARCH_STAMP = "Research. Not for clinical use."

PHANTOM_BANNER = (
    "Phantom: drawn by a program. No patient is shown, and nothing clinical follows from what is said here."
)
"""What stands on every page made from phantoms."""


NOT_RECORDED = "not recorded"
"""Under this name is counted what is not known."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Why some of what was found is not in the study, and how much of it."""

    reason: str
    entries: int
    """Images, series, files or patients, as the source counts what it leaves out."""


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """Who the patients of one class are."""

    name: str
    patients: int
    images: int
    age_median: float | None = None
    """Years; None if no age is known."""
    age_quartiles: tuple[float, float] | None = None
    """First and third quartile, in years."""
    age_missing: int = 0
    """Patients of unknown age."""
    sex: Mapping[str, int] = field(default_factory=dict)
    """Patients by sex."""
    sites: Mapping[str, int] = field(default_factory=dict)
    """Patients by body site or level."""
    levels: Mapping[str, int] = field(default_factory=dict)
    """Patients by level of the spine."""
    centres: Mapping[str, int] = field(default_factory=dict)
    """Patients by centre."""
    views: Mapping[str, int] = field(default_factory=dict)
    """Images by view."""


@dataclass(frozen=True, kw_only=True)
class Participants:
    """The flow from what was found to what was studied."""

    images: int
    """In the cohort, those of other classes among them."""
    patients: int
    left_out: tuple[LeftOut, ...] = ()
    auxiliary_images: int = 0
    """Images of other classes, which may teach and are never in a fold."""
    auxiliary_patients: int = 0
    patients_guessed: bool = False
    """Whether patients were inferred, for want of an identifier."""
    classes: tuple[ClassSummary, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoldCounts:
    """One fold of the cross-validation, and the proof that its two sides share nothing."""

    repeat: int
    """Counted from 0; shown from 1."""
    fold: int
    """Counted from 0; shown from 1."""
    training_patients: int
    test_patients: int
    training_images: int
    test_images: int
    shared_patients: int
    """Patients found on both sides: 0, or the fold leaks."""
    shared_images: int
    """Pixel hashes found on both sides: 0, or the fold leaks."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the audit of the cohort found."""

    kind: str
    severity: str
    """``block``, ``warn`` or ``note``; any other word is shown as it is."""
    cases: tuple[str, ...]
    message: str
    remedy: str = ""
    """What to do about it; empty where nothing need be done."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A kind of finding that somebody accepted, so that the study went on in spite of it."""

    kind: str
    because: str
    """The reason that was given."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Witness:
    """How far one thing alone gives the label away, whatever the pictures show."""

    sees: str
    """What was seen: picture geometry, file properties, age and sex, …"""
    auc: Figure
    apart: str = ""
    """Which classes it tells apart."""


@dataclass(frozen=True, kw_only=True)
class AuditTables:
    """What the audit measured."""

    shortcuts: tuple[Witness, ...] = ()
    """Models that see how a picture was made, or the patient's clinical data, and nothing else."""
    by_class: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """By column, class name and value: patients. ``age`` holds ``known``, ``missing``, ``least``, ``quartiles`` (three)
    and ``greatest`` instead, in years."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Another network on the same cases, set beside the model."""

    name: str
    metrics: Metrics
    auc_difference: Figure | None = None
    """The model's AUC less this one's, paired by patient."""


@dataclass(frozen=True, kw_only=True)
class LocalisationRow:
    """How well one kind of map finds the annotated lesion."""

    name: str
    iou: Figure
    pointing: Figure
    energy: Figure
    is_evidence: bool = False
    """Whether this is the model's evidence; the other rows are what it is measured against."""


@dataclass(frozen=True, kw_only=True)
class CaseLink:
    """A case as the study report lists it."""

    patient: str
    label: str | None
    """The recorded diagnosis, as a class name."""
    probabilities: tuple[float, ...]
    verdict: str
    href: str | None = None
    """Where the case's page lies, relative to the report."""
    thumbnail: bytes | None = None
    """A small PNG."""


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """A plane of a CT before and after what speaks for a class was taken out of it; pairs are before and after."""

    patient: str
    position: str
    """Of the plane, as a text."""
    probabilities: tuple[float, float]
    """Of the class."""
    pictures: tuple[bytes, bytes]
    """JPEGs of the plane with the evidence for the class laid over it, in one scale."""


@dataclass(frozen=True, kw_only=True)
class StudyContent:
    """All that the study report says."""

    title: str
    kind: StudyKind
    classes: tuple[str, ...]
    slugs: tuple[str, ...]
    metrics: Metrics
    model_name: str = "this model"
    """What the model is called where others stand beside it."""
    beside: tuple[Beside, ...] = ()
    history: tuple[Mapping[str, float | None], ...] = ()
    """Rows of ``repeat``, ``fold``, ``epoch``, ``loss``, ``learning_rate``, ``seconds``, and other figures by epoch."""
    participants: Participants | None = None
    folds: tuple[FoldCounts, ...] = ()
    findings: tuple[Finding, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    """Blocking findings that the study went on with: they stand above all else."""
    audit_tables: AuditTables = field(default_factory=AuditTables)
    settings: Mapping[str, object] = field(default_factory=dict)
    """Preparation, network and training; a dot in a name parts the group from the setting."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Versions, seeds, threads, device, precision, fingerprints, minutes."""
    cases: tuple[CaseLink, ...] = ()
    localisation: tuple[LocalisationRow, ...] = ()
    evidence_notes: tuple[str, ...] = ()
    """Sentences below the localisation table."""
    auxiliary: Mapping[str, Any] | None = None
    """What the networks learnt from images outside of the classes; None for nothing.

    ``images``, ``patients``, and ``kinds``, ``sites`` and ``views``: images by answer; the ``minutes`` before the
    folds, with a ``fingerprint`` if there were any; ``beside``, how many lay beside each image of a case.
    """
    warnings: tuple[str, ...] = ()
    """Sentences that stand at the top."""
    truth_localisation: tuple[LocalisationRow, ...] = ()
    """How well the evidence finds what tells phantoms apart, and the maps that it is measured against."""
    without_matrix: BeforeAfter | None = None
    """A phantom before and after its mineralised matrix was taken out; the figures are in ``metrics["truth"]``."""
    modalities: tuple[Modality, ...] = ("radiograph",)
    """Of the images."""
    phantom: bool = False
    """Whether no patient is on the images: `PHANTOM_BANNER` then stands above all else."""
    not_for_clinical_use: str = RESEARCH_STAMP


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseImageContent:
    """One image of a case with what spoke in it."""

    name: str
    view: str | None
    pixels: npt.NDArray[np.float32]
    """``(rows, columns)`` in 0..1, bright as on the film."""
    evidence: npt.NDArray[np.float32]
    """``(classes, rows, columns)`` on the image's own grid, signed; NaN or 0 where nothing was read.

    By area, in shares of the square that was read, so that images of any number of pixels have one scale: what a class
    gets from the image, in logits, is the mean over that square.
    """
    weight: float
    """Share of this image in the patient's pooled decision, 0..1; that of its regions alone where there are any."""
    lesions: tuple[Lesion, ...] = ()
    square: Square | None = None
    """What was read of the image; None where there is nothing to show, since all of it was."""
    found: tuple[Square, ...] = ()
    """The regions in which the network found a lesion or a person marked one; they may reach beyond the image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CasePlaneContent:
    """A plane of a CT or MR that is shown, with what spoke in it; all of it in pixels of the picture."""

    plane: int
    """Index in the volume, counted from 0; shown from 1."""
    position: Position
    weight: float
    """Share of this plane in the patient's pooled decision, 0..1."""
    pictures: tuple[npt.NDArray[np.float32], ...]
    """For each of the volume's windows ``(rows, columns)`` in 0..1."""
    evidence: npt.NDArray[np.float32]
    """``(rows, columns)``, signed, for the most probable class; by area, as in `CaseImageContent`."""
    lesions: tuple[Lesion, ...] = ()
    """Outlines of what the lesion's mask marks in the plane."""
    square: Square | None = None
    """What was read of it."""


@dataclass(frozen=True, kw_only=True)
class PlaneWeight:
    """A plane of a CT or MR that was read, and its say."""

    position: Position
    weight: float
    """Share in the patient's pooled decision, 0..1."""
    is_shown: bool
    """Whether its picture is on the page."""
    has_lesion: bool
    """Whether the lesion's mask marks something in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseVolumeContent:
    """A CT or MR of a case with what spoke in it."""

    name: str
    modality: Modality
    plane_name: PlaneName
    shape: tuple[int, int, int]
    """Planes, rows and columns."""
    steps: tuple[float, float, float]
    """To the next plane, row and column, in mm."""
    windows: tuple[ShownWindow, ...]
    """In which planes are shown; evidence is laid over the first."""
    sides: Sides
    read: tuple[PlaneWeight, ...]
    """All planes that were read, as a reader leafs: from the head down, from the right, or from the front."""
    neighbours: int
    """Planes on either side that each was read together with."""
    cell: float
    """Side of a cell of the evidence's grid, in mm."""
    shown: tuple[CasePlaneContent, ...]
    """Those that weigh most, in the same order."""
    strongest: float
    """The strongest evidence for any class, or against the shown one, in any plane that was read; by area, as in
    `CasePlaneContent`."""
    outlined: bool
    """Whether there is a mask of the lesion."""

    @property
    def weight(self) -> float:
        """Share of the volume in the patient's pooled decision."""
        return sum(plane.weight for plane in self.read)


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseContent:
    """All that a case's page says."""

    patient: str
    label: str | None
    """The recorded diagnosis, as a class name; None if it is not known."""
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    prior: tuple[float, ...]
    """The class prior under which the probabilities are stated."""
    verdict: str
    images: tuple[CaseImageContent, ...]
    """Its radiographs."""
    compared: str
    """What was compared, as a sentence."""
    made_by: str
    """Which fold or bundle made the prediction, as a sentence."""
    volumes: tuple[CaseVolumeContent, ...] = ()
    """Its CTs and MRs."""
    second_look: SecondLook | None = None
    """Where the network looks again; None where it looks once."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    """Which of the covariates the network was told beside the images."""
    of_images: tuple[float, ...] = ()
    """The probabilities, were nothing but the images known; there where anything was told."""
    study_href: str | None = None
    """Where the study report lies, relative to this page."""
    phantom: bool = False
    """Whether no patient is on the images: `PHANTOM_BANNER` then stands above all else."""
    by_sets: bool = True
    """Whether the verdict is by a prediction set; where not, it is the most probable class and is called that."""
    stamp: str = RESEARCH_STAMP

    @property
    def most_probable(self) -> int:
        """Index of the class whose evidence is shown of CT and MR."""
        return max(range(len(self.classes)), key=self.probabilities.__getitem__)

    @property
    def portrait(self) -> npt.NDArray[np.float32]:
        """The picture, ``(rows, columns)`` in 0..1, of what weighs most."""
        planes = [(plane.weight, plane.pictures[0]) for volume in self.volumes for plane in volume.shown]
        return max([*((image.weight, image.pixels) for image in self.images), *planes], key=lambda weighed: weighed[0])[
            1
        ]
