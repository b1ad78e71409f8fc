"""A study's images are read and judged together, by networks that are simple enough to be worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from bundles import NETWORK, write_tiny_bundle
from conftest import shared_data
from dicom_files import write_dicom
from PIL import Image as Picture
from scipy.ndimage import map_coordinates

from osteoscope.bundle.format import Verdicts
from osteoscope.bundle.load import Bundle, SeenCases, load_bundle
from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.evaluation.calibration import CalibrationMap
from osteoscope.imaging.nifti import read_nifti, write_nifti
from osteoscope.imaging.open import Image, images_at
from osteoscope.imaging.refusal import LEFT_OUT, Refusal, RefusalCode
from osteoscope.imaging.resampling import spread
from osteoscope.imaging.slices import SlicePlan, cut_slices, plan_slices
from osteoscope.imaging.values import values_of
from osteoscope.imaging.volume import Geometry, Source, Volume
from osteoscope.inference.engine import Judgement, Member, MemberEngine, PlaneReadings
from osteoscope.inference.evidence import evidence_in_patient
from osteoscope.inference.predictor import Predictor
from osteoscope.inference.scope import LeftOut, Selection, UsedImage
from osteoscope.inference.study import ExplainedStudy, Told, explain_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIZE, GRID = 32, 4
NOTHING, UNSEEN = Told(), SeenCases()

SCANS = PreparationConfig(
    volume=VolumeConfig(size=SIZE, spacing=2.0, planes=40, step=2.0, neighbours=0, windows=((0, 1000),))
)


class Handmade(MemberEngine):
    """Knows a plane by its middle, v: weighs it by v, and gives class 0 `gain` times v and class 1 the contrary."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        values = planes[:, 0, SIZE // 2, SIZE // 2]
        said = self.gain * values[:, None, None, None] * np.array([1, -1], dtype=np.float32)[None, :, None, None]
        return PlaneReadings(
            scores=np.log(values),
            vectors=values[:, None],
            maps=np.broadcast_to(said, (len(planes), 2, GRID, GRID)).astype(np.float32),
            lesions=np.zeros((len(planes), GRID, GRID), dtype=np.float32),
        )

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        weights = np.exp(readings.scores) / np.exp(readings.scores).sum()
        logit = self.gain * float(weights @ readings.vectors[:, 0])
        return Judgement(logits=np.array([logit, -logit], dtype=np.float32), weights=weights)


def scan(hounsfield: Sequence[float], *, step: float = 2.0) -> UsedImage:
    """An axial CT of planes that are even in themselves, 64 x 64 pixels of 1 mm."""
    planes = np.array(hounsfield, dtype=np.float32)[:, None, None] * np.ones((1, 64, 64), dtype=np.float32)
    volume = Volume(
        geometry=Geometry(shape=planes.shape, affine=np.diag([1.0, 1.0, step, 1.0])),
        modality="CT",
        sources=(Source(path=Path("a"), sha256="0" * 64),),
        reader=lambda wanted: planes[list(wanted)],
    )
    return UsedImage(name="scan", image=Image(volume=volume, format="DICOM", files=()), values=values_of(volume))


def film(path: Path, grey: int = 128) -> UsedImage:
    """A picture that is even but for one pixel."""
    pixels = np.full((40, 60), grey, dtype=np.uint8)
    pixels[0, 0] = 0
    Picture.fromarray(pixels).save(path)
    with images_at([path]) as found:
        (image,) = found.images
        return UsedImage(name=path.stem, image=image, values=values_of(image.volume))


def selected(*used: UsedImage, left_out: tuple[LeftOut, ...] = ()) -> Selection:
    return Selection(used=used, left_out=left_out, refused=())


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a member that is never loaded."""
    folder = tmp_path_factory.mktemp("member")
    for name in ("planes.onnx", "head.onnx", "weights.safetensors"):
        (folder / name).write_bytes(b"x")
    return folder


def explain(
    member: Path,
    selection: Selection,
    *engines: Handmade,
    told: Told = NOTHING,
    research: bool = False,
    seen: SeenCases = UNSEEN,
    encoder: CovariateEncoder | None = None,
    **changes: Any,
) -> ExplainedStudy:
    """Ask a bundle of handmade networks."""
    facts: dict[str, Any] = {"preparation": SCANS, "modalities": ("CT", "MR"), **changes}
    bundle: Bundle = load_bundle(
        write_tiny_bundle(member / f"bundle {len(list(member.iterdir()))}", member, seen=seen, **facts)
    )
    predictor = Predictor(
        members=tuple(Member(engine=engine, encoder=encoder) for engine in engines or (Handmade(),)),
        preparation=facts["preparation"],
        calibration=CalibrationMap(method="none", temperature=1.0, bias=(0.0, 0.0), prior=(0.5, 0.5)),
        conformal=bundle.manifest.verdicts.conformal(),
    )
    return explain_study(selection, bundle, predictor, told, research=research)


def test_planes_of_a_scan_are_weighed_and_judged_together(member: Path) -> None:
    found = explain(member, selected(scan([200, 400, 400])), Handmade(2.0), Handmade(4.0))
    (image,) = found.images
    # Each plane weighs v / 1; the mean over v is (0.04 + 0.16 + 0.16) / 1 = 0.36, and the mean gain is 3.
    np.testing.assert_allclose([plane.weight for plane in image.planes], [0.2, 0.4, 0.4], atol=1e-6)
    assert found.probabilities == pytest.approx((1 / (1 + np.exp(-2 * 3 * 0.36)), 1 / (1 + np.exp(2 * 3 * 0.36))))
    assert found.verdict == "osteosarcoma"
    assert found.reasons == ()
    assert [plane.plane for plane in image.planes] == [0, 1, 2]
    # The square of 64 mm is the scan of 64 pixels of 1 mm.
    assert {(p.rectangle.left, p.rectangle.top, p.rectangle.width, p.rectangle.height) for p in image.planes} == {
        (0.0, 0.0, 64.0, 64.0)
    }


def test_evidence_adds_up_to_the_logit(member: Path) -> None:
    found = explain(member, selected(scan([300, 600])), Handmade(2.0))
    said = np.sum([plane.evidence.sum(axis=(1, 2)) for plane in found.images[0].planes], axis=0)
    assert found.probabilities is not None
    centred = np.log(found.probabilities) - np.mean(np.log(found.probabilities))
    np.testing.assert_allclose(said, centred, atol=1e-5)


def test_a_scan_of_more_planes_than_fit_at_once_is_judged_as_one(member: Path) -> None:
    levels = np.linspace(100, 900, 35)
    found = explain(member, selected(scan(levels.tolist())))
    shares = levels / levels.sum()
    np.testing.assert_allclose([plane.weight for plane in found.images[0].planes], shares, atol=1e-6)
    assert found.probabilities is not None
    assert found.probabilities[0] == pytest.approx(1 / (1 + np.exp(-2 * (shares @ levels) / 1000)), abs=1e-6)


def test_scans_of_a_study_are_one_bag(member: Path) -> None:
    one, other = scan([200, 200]), scan([600])
    found = explain(member, selected(one, other))
    assert [image.weight for image in found.images] == pytest.approx([0.4, 0.6])
    assert sum(image.weight for image in found.images) == pytest.approx(1)


FILMS: dict[str, Any] = {"preparation": PreparationConfig(size=SIZE), "modalities": ("radiograph",)}


def test_radiographs_of_a_study_are_one_bag(member: Path, tmp_path: Path) -> None:
    found = explain(member, selected(film(tmp_path / "a.png", 51), film(tmp_path / "b.png", 204)), **FILMS)
    assert [image.weight for image in found.images] == pytest.approx([0.2, 0.8], abs=1e-5)
    (look,) = found.images[0].planes
    # The smallest square that holds 40 rows of 60 columns.
    assert (look.rectangle.left, look.rectangle.top, look.rectangle.width, look.rectangle.height) == (0, -10, 60, 60)
    assert (look.plane, look.likelihood) == (0, None)


def test_what_was_read_of_oblong_pixels_is_told_in_pixels_of_the_image(member: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (40, 60), dtype=np.uint16)
    path = write_dicom(tmp_path / "a", pixels, "CR", PixelAspectRatio=["2", "1"])
    with images_at([path]) as opened:
        (image,) = opened.images
        used = UsedImage(name="a", image=image, values=values_of(image.volume))
    found = explain(member, selected(used), **FILMS)
    (look,) = found.images[0].planes
    # Of square pixels there are 80 rows of 60; the square of 80 is 40 rows high.
    assert (look.rectangle.left, look.rectangle.top, look.rectangle.width, look.rectangle.height) == (-10, 0, 80, 40)


def test_a_study_without_an_image_that_the_bundle_reads_is_out_of_scope(member: Path) -> None:
    image = scan([1]).image
    left_out = (
        LeftOut(name="a", image=image, code="outside", reason="an MR, where radiographs are read"),
        LeftOut(name="b", image=image, code="outside", reason="an MR, where radiographs are read"),
    )
    for research in (False, True):
        found = explain(member, selected(left_out=left_out), research=research)
        assert (found.verdict, found.probabilities, found.images) == ("out_of_scope", None, ())
        assert found.reasons == ("The study holds no image that the bundle reads: an MR, where radiographs are read.",)


def test_a_scan_that_cannot_be_read_beside_a_scout_is_told(member: Path) -> None:
    left = LeftOut(name="a", image=scan([1]).image, code=RefusalCode.LOCALISER, reason="a scout")
    broken = Refusal(files=(), code=RefusalCode.MISSING_SLICES, sentence="a slice is missing", remedy="")
    found = explain(member, Selection(used=(), left_out=(left,), refused=(broken,)))
    assert found.reasons == ("The study holds no image that the bundle reads: a scout; and a slice is missing.",)


def test_what_is_used_only_when_asked_for_alone_gives_no_verdict(member: Path) -> None:
    scout = scan([500])
    scout = replace(scout, image=replace(scout.image, aside=RefusalCode.LOCALISER))
    found = explain(member, selected(scout), research=True)
    assert (found.verdict, len(found.images)) == ("out_of_scope", 1)
    assert found.reasons == (f"The study holds only what is used when asked for: {LEFT_OUT[RefusalCode.LOCALISER]}.",)
    both = explain(member, selected(scout, scan([400])), research=True)
    assert both.verdict == "osteosarcoma"
    assert both.reasons == (
        "Among the images that were judged are some that are used only when asked for: 1 of 2, "
        f"{LEFT_OUT[RefusalCode.LOCALISER]}.",
    )


@pytest.mark.parametrize(
    ("changes", "told", "reason"),
    [
        ({"provenance": "phantom"}, Told(), "learnt from phantoms alone, and the study's files do not say"),
        ({"body_regions": ("femur", "tibia")}, Told(site="spine"), r"other body sites \(femur, tibia\)"),
    ],
)
def test_outside_of_its_scope_a_bundle_says_nothing_but_for_research(
    member: Path, changes: dict[str, Any], told: Told, reason: str
) -> None:
    selection = selected(scan([500]))
    found = explain(member, selection, told=told, **changes)
    assert (found.verdict, found.probabilities, found.images) == ("out_of_scope", None, ())
    asked = explain(member, selection, told=told, research=True, **changes)
    assert asked.verdict == "out_of_scope"
    assert asked.probabilities is not None
    assert len(asked.images) == 1
    for one in (found, asked):
        assert any(re.search(reason, sentence) for sentence in one.reasons)


def marked(used: UsedImage) -> UsedImage:
    """The same, with files that say that it is a phantom."""
    return replace(used, image=replace(used.image, phantom=True))


def test_a_bundle_that_learnt_from_phantoms_reads_phantoms_and_nothing_else(member: Path) -> None:
    found = explain(member, selected(marked(scan([500]))), provenance="phantom")
    assert (found.verdict, found.reasons) == ("osteosarcoma", ())
    assert found.probabilities is not None
    mixed = explain(member, selected(marked(scan([500])), scan([400])), provenance="phantom")
    assert mixed.verdict == "out_of_scope"


def test_a_bundle_that_learnt_from_patients_reads_no_phantom(member: Path) -> None:
    selection = selected(marked(scan([500])))
    found = explain(member, selection)
    assert (found.verdict, found.probabilities) == ("out_of_scope", None)
    assert found.reasons == ("The study shows a phantom, which is nobody, and the bundle learnt from patients.",)
    asked = explain(member, selection, research=True)
    assert (asked.verdict, len(asked.images)) == ("out_of_scope", 1)


def test_a_site_that_the_bundle_knows_among_others_is_in_scope(member: Path) -> None:
    found = explain(member, selected(scan([500])), told=Told(site="pelvis+spine"))
    assert found.verdict == "osteosarcoma"


def test_not_one_class_alone_is_indeterminate(member: Path) -> None:
    verdicts = Verdicts(level=0.9, thresholds=(1.0, 1.0), counts=(20, 20), refused=None)
    found = explain(member, selected(scan([500])), verdicts=verdicts)
    assert found.verdict == "indeterminate"
    assert found.reasons == ("Not one class alone is plausible at the level of 90%.",)
    assert found.probabilities is not None


def test_where_no_verdict_can_be_promised_the_most_probable_class_is_named_with_the_reason(member: Path) -> None:
    verdicts = Verdicts(level=0.9, thresholds=None, counts=None, refused="a class has 3 cases")
    found = explain(member, selected(scan([500])), verdicts=verdicts)
    assert found.verdict == "osteosarcoma"
    assert found.reasons == (
        "The most probable class is named; a verdict at the level of 90% is not offered: a class has 3 cases.",
    )


def test_a_verdict_that_is_not_the_most_probable_class_says_so(member: Path) -> None:
    # One plane of 500: 1 / (1 + exp(-2 * 0.5)) = 0.73 for osteosarcoma, which is farther from 1 than its threshold.
    verdicts = Verdicts(level=0.9, thresholds=(0.1, 0.9), counts=(20, 20), refused=None)
    found = explain(member, selected(scan([500])), verdicts=verdicts)
    assert found.probabilities == pytest.approx((0.731, 0.269), abs=1e-3)
    assert found.verdict == "giant_cell_tumor"
    assert found.reasons == (
        "Of the classes giant cell tumor alone is plausible at the level of 90%, though osteosarcoma is more probable "
        "under the stated prior.",
    )


def refusal(code: RefusalCode, *names: str, sentence: str = "it is broken") -> Refusal:
    return Refusal(files=tuple(map(Path, names)), code=code, sentence=sentence, remedy=None)


def test_a_verdict_without_a_part_of_the_study_says_so(member: Path) -> None:
    beside = refusal(RefusalCode.NO_PIXELS, "report.dcm"), refusal(RefusalCode.NOT_AN_IMAGE, "notes.txt")
    used = (scan([500]),)
    found = explain(member, Selection(used=used, left_out=(), refused=beside))
    assert (found.verdict, found.reasons) == ("osteosarcoma", ())
    unread = refusal(RefusalCode.MISSING_SLICES, "1", "2"), refusal(RefusalCode.TRUNCATED_PIXELS, "3")
    found = explain(member, Selection(used=used, left_out=(), refused=(*beside, *unread)))
    assert found.reasons == ("3 files of the study could not be read; the answer rests on the others.",)
    found = explain(member, Selection(used=used, left_out=(), refused=unread[1:]))
    assert found.reasons == ("1 file of the study could not be read; the answer rests on the others.",)


def test_of_many_faults_the_first_few_are_told_and_how_many_more_there_are(member: Path) -> None:
    broken = tuple(refusal(RefusalCode.TRUNCATED_PIXELS, f"{n}", sentence=f"found {n} bytes") for n in range(5000))
    left = LeftOut(name="a", image=scan([1]).image, code=RefusalCode.LOCALISER, reason="a scout")
    found = explain(member, Selection(used=(), left_out=(left,), refused=broken))
    told = "; ".join(f"found {n} bytes" for n in range(5))
    assert found.reasons == (f"The study holds no image that the bundle reads: a scout; and {told}; and 4995 more.",)


def test_an_image_that_the_bundle_has_learnt_from_is_told(member: Path) -> None:
    used = scan([500])
    seen = SeenCases(pixels=frozenset({used.values.sha256}))
    (reason,) = explain(member, selected(used), seen=seen).reasons
    assert "learnt from an image of this study" in reason


def test_what_is_told_of_a_patient_and_not_used_is_told(member: Path) -> None:
    network = NETWORK.model_copy(update={"covariates": ("age",)})
    encoder = CovariateEncoder(names=("age",), age_mean=30, age_sd=10, sites=())
    found = explain(member, selected(scan([500])), told=Told(age=20, sex="F"), network=network, encoder=encoder)
    told, unused = found.reasons
    assert told.startswith("Told beside the images: age.")
    assert unused == "The bundle's networks make no use of the patient's sex."
    assert found.told == ("age",)


@pytest.mark.parametrize(("level", "known"), [("lumbar", True), ("L3+lumbar", True), ("L3", False), ("Lumbar", False)])
def test_a_level_that_no_training_case_had_is_told_and_not_said_to_be_used(
    member: Path, level: str, known: bool
) -> None:
    network = NETWORK.model_copy(update={"covariates": ("level",)})
    encoder = CovariateEncoder(names=("level",), age_mean=0, age_sd=1, sites=(), levels=("lumbar", "sacral"))
    found = explain(member, selected(scan([500])), told=Told(level=level), network=network, encoder=encoder)
    (reason,) = found.reasons
    if known:
        assert reason.startswith("Told beside the images: level.")
    else:
        assert reason == (
            "The level that is named is none of those that the bundle's networks were told (lumbar, sacral), and was "
            "left aside."
        )
    assert found.told == (("level",) if known else ())


# Evidence in the patient ----------------------------------------------------------------------------------------------

# A coronal scan, turned a little, of pixels of 0.8 x 1.2 mm and planes 3 mm apart.
AFFINE = np.array(
    [
        [0.8 * 0.96, 0.0, 3 * 0.28, -40.0],
        [0.8 * 0.28, 0.0, -3 * 0.96, 12.0],
        [0.0, -1.2, 0.0, 300.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def planned(planes: int) -> SlicePlan:
    values = np.random.default_rng(0).normal(400, 90, (planes, 30, 40)).astype(np.float32)
    geometry = Geometry(shape=(planes, 30, 40), affine=AFFINE)
    volume = Volume(geometry=geometry, modality="CT", sources=(), reader=lambda wanted: values[list(wanted)])
    return plan_slices(volume, VolumeConfig(size=32, spacing=1.0, planes=4, step=3))


def test_evidence_lies_where_it_was_read() -> None:
    plan = planned(11)
    assert plan.planes == (0, 3, 7, 10)
    evidence = np.zeros((4, 2, 8, 8), dtype=np.float32)
    evidence[2, 0, 1, 6] = 5
    found = evidence_in_patient(evidence, plan)
    assert found.values.shape == (2, 11, 8, 8)
    plane, row, column = np.unravel_index(found.values[0].argmax(), (11, 8, 8))
    assert (plane, row, column) == (7, 1, 6)
    place = found.affine @ [column, row, plane, 1]
    # The rectangle is 32 mm wide and high about the middle of 40 x 30 pixels: its cells are 4 mm.
    left, top = 20 - 16 / 0.8, 15 - 16 / 1.2
    expected = AFFINE @ [left + 6.5 * 4 / 0.8 - 0.5, top + 1.5 * 4 / 1.2 - 0.5, 7, 1]
    np.testing.assert_allclose(place, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        (
            "tptbox/sample_mri/sub-mri_label-6_T2w.nii.gz",
            "tptbox/sample_mri/sub-mri_seg-vert_label-6_msk.nii.gz",
        ),
        ("sct_testing_data/t2s/t2s.nii.gz", "sct_testing_data/t2s/t2s_seg.nii.gz"),
    ],
)
def test_what_is_marked_in_real_planes_is_written_to_where_the_mask_is(tmp_path: Path, name: str, mask: str) -> None:
    folder = shared_data("dicom")
    scan, marked = read_nifti(folder / name), read_nifti(folder / mask, modality="CT")
    plan = plan_slices(scan, VolumeConfig(size=512, spacing=0.5, neighbours=0, step=0.5, planes=200))
    # The mask's own planes stand for maps of evidence.
    shown = cut_slices(marked, replace(plan, windows=((0.0, 1.0),), body=None, padding=()))
    found = evidence_in_patient(shown, plan)
    write_nifti(tmp_path / "map.nii.gz", found.values[0], found.affine, shape=found.values[0].shape)
    written, original = nib.load(tmp_path / "map.nii.gz"), nib.load(folder / mask)
    # nibabel carries every voxel of the mask's file to the map's; planes share evidence out, so each is set against
    # the most that lies in it.
    values = written.get_fdata()  # type: ignore[attr-defined]
    truth = original.get_fdata() > 0  # type: ignore[attr-defined]
    across = np.linalg.inv(written.affine) @ original.affine  # type: ignore[attr-defined]
    voxels = np.indices(truth.shape).reshape(3, -1).T
    places = np.rint(nib.affines.apply_affine(across, voxels)).astype(int)
    inside = ((places >= 0) & (places < values.shape)).all(axis=1)
    likely = values / np.maximum(values.max(axis=(0, 1), keepdims=True), 1e-6)
    hits = np.zeros(len(voxels), dtype=bool)
    hits[inside] = likely[tuple(places[inside].T)] > 0.5
    dice = 2 * (hits & truth.ravel()).sum() / (hits.sum() + truth.sum())
    assert dice > 0.95


def test_over_all_places_evidence_is_what_the_image_adds_to_the_logit() -> None:
    for planes in (1, 2, 11, 40):
        plan = planned(planes)
        evidence = np.random.default_rng(1).normal(size=(len(plan.planes), 2, 8, 8)).astype(np.float32)
        found = evidence_in_patient(evidence, plan)
        np.testing.assert_allclose(found.values.sum(axis=(1, 2, 3)), evidence.sum(axis=(0, 2, 3)), atol=1e-4)


def test_between_two_planes_that_were_read_evidence_goes_linearly_from_one_to_the_other() -> None:
    plan = planned(11)
    evidence = np.zeros((4, 1, 4, 4), dtype=np.float32)
    evidence[1], evidence[2] = 1, 2
    found = evidence_in_patient(evidence, plan).values[0, :, 0, 0]
    # Plane 3 is shared out by 1/3, 2/3, 1, 3/4, 1/2, 1/4, of sum 3.5; plane 7 by 1/4, 1/2, 3/4, 1, 2/3, 1/3, likewise.
    one = np.array([0, 1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4, 0, 0, 0, 0]) / 3.5
    other = np.array([0, 0, 0, 0, 1 / 4, 1 / 2, 3 / 4, 1, 2 / 3, 1 / 3, 0]) / 3.5
    np.testing.assert_allclose(found, one + 2 * other, atol=1e-6)


def test_between_its_cells_the_own_grid_says_what_is_laid_over_the_scan() -> None:
    """The own grid looked up by SciPy in the patient, beside what is shown on the pixels of a plane."""
    plan = planned(11)
    evidence = np.random.default_rng(2).normal(size=(4, 1, 8, 8)).astype(np.float32)
    found = evidence_in_patient(evidence, plan)
    rows, columns = np.mgrid[:30, :40]
    pixels = np.stack([columns, rows, np.full_like(rows, 3), np.ones_like(rows)]).reshape(4, -1)
    column, row, plane, _ = np.linalg.inv(found.affine) @ AFFINE @ pixels
    between = (column > 0) & (column < 7) & (row > 0) & (row < 7)
    looked_up = map_coordinates(found.values[0], [plane[between], row[between], column[between]], order=1)
    shown = spread(evidence[1, 0], plan.rectangle, (30, 40)).ravel()[between]
    assert between.sum() > 300
    np.testing.assert_allclose(looked_up * 3.5, shown, atol=1e-4)
