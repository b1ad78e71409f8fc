"""A bundle for CT, MR and radiographs reads what there is of a patient together, and says what is missing."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import export_tiny, write_tiny_bundle
from dicom_files import write_dicom
from mixed_samples import ALL, PREPARATION, write_mixed_cohort
from pydantic import ValidationError

from osteoscope.bundle.format import SCHEMA_OF_MIX, Manifest
from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.errors import ImageError
from osteoscope.imaging.open import images_at
from osteoscope.inference.lesions import lesion_views
from osteoscope.inference.predict import prepare_case, two_planes
from osteoscope.inference.predictor import load_predictor
from osteoscope.inference.scope import of_one_patient, select_images, studies_of
from osteoscope.inference.study import ExplainedStudy, Told, explain_study

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case
    from osteoscope.inference.predictor import Predictor


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("member"), channels=9, modalities=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, member: Path) -> Bundle:
    folder = tmp_path_factory.mktemp("mix") / "bundle"
    changes: dict[str, Any] = {"schema": SCHEMA_OF_MIX, "preparation": PREPARATION, "modalities": ALL}
    return load_bundle(write_tiny_bundle(folder, member, **changes))


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return load_predictor(bundle, threads=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A patient of whom there is everything."""
    cohort = write_mixed_cohort(tmp_path_factory.mktemp("cohort"), patients=1, there=lambda _number: ALL)
    return cases(read_cohort(cohort))[0]


def only(case: Case, *modalities: str) -> Case:
    return dataclasses.replace(case, images=tuple(image for image in case.images if image.modality in modalities))


def explained(paths: Sequence[Path], bundle: Bundle, predictor: Predictor) -> ExplainedStudy:
    with images_at(paths) as opened:
        study = of_one_patient(studies_of(opened))
        selection = select_images(study, bundle.manifest.modalities)
        return explain_study(selection, bundle, predictor, Told())


def test_all_that_there_is_of_a_patient_is_one_bag(predictor: Predictor, case: Case) -> None:
    said = predictor.explain(case)
    by_modality = {image.modality: one for image, one in zip(case.images, said.prediction.images, strict=True)}
    assert {kind: len(one.looks) for kind, one in by_modality.items()} == {"CT": 4, "MR": 4, "radiograph": 1}
    weights = [look.weight for one in said.prediction.images for look in one.looks]
    assert sum(weights) == pytest.approx(1, abs=1e-6)
    assert min(weights) > 0
    assert len(said.evidence) == len(said.lesions) == 9
    # Evidence adds up to the logit, but for the bias, which is the same whatever is read.
    unexplained = []
    for some in (ALL, ("CT",), ("MR", "radiograph"), ("radiograph",)):
        alone = predictor.explain(only(case, *some))
        logits = np.array(alone.prediction.logits)
        unexplained.append(logits - logits.mean() - alone.evidence.sum(axis=(0, 2, 3)))
    np.testing.assert_allclose(unexplained, np.broadcast_to(unexplained[0], (4, 2)), atol=1e-5)


def test_the_images_logits_are_those_of_each_alone(predictor: Predictor, case: Case) -> None:
    together = predictor.explain(case).prediction
    for place, image in enumerate(case.images):
        alone = predictor.explain(dataclasses.replace(case, images=(image,))).prediction
        assert together.images[place].logits == pytest.approx(alone.logits, abs=1e-5)


@pytest.mark.parametrize("missing", [None, *ALL])
def test_a_study_says_the_same_as_a_patient_of_a_cohort_and_what_is_missing(
    bundle: Bundle, predictor: Predictor, case: Case, missing: str | None
) -> None:
    there = only(case, *(kind for kind in ALL if kind != missing))
    expected = predictor.calibration.apply(np.array([predictor.explain(there).prediction.logits]))[0]
    said = explained([image.path for image in there.images], bundle, predictor)
    assert said.probabilities == pytest.approx(expected, abs=1e-5)
    assert said.verdict in bundle.manifest.slugs
    if missing is None:
        assert said.reasons == ()
    else:
        (reason,) = said.reasons
        named = {"CT": "CT", "MR": "MR", "radiograph": "radiographs"}
        found = " and ".join(named[kind] for kind in ALL if kind != missing)
        assert reason == (
            "The bundle reads CT, MR and radiographs of a patient together; this study has no "
            f"{named[missing]} that it can read, so its answer rests on {found} alone."
        )


def test_two_are_missing(bundle: Bundle, predictor: Predictor, case: Case) -> None:
    said = explained([image.path for image in only(case, "radiograph").images], bundle, predictor)
    (reason,) = said.reasons
    assert "has no CT or MR that it can read, so its answer rests on radiographs alone" in reason


def test_planes_that_were_read_can_be_cut_once_more(predictor: Predictor, case: Case) -> None:
    prepared = prepare_case(case, PREPARATION)
    planes = prepared.speaking_planes(predictor.explain(case).prediction.images)
    assert planes.shape == (9, 9, 64, 64)
    told = {tuple(one) for one in planes[:, 6:, 0, 0].tolist()}
    assert told == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    two = two_planes(prepared)
    assert two.shape == (2, 9, 64, 64)
    assert not np.array_equal(two[0, 6:], two[1, 6:])
    single = two_planes(prepare_case(only(case, "radiograph"), PREPARATION))
    np.testing.assert_array_equal(single[1, :6], single[0, :6, ::-1])
    np.testing.assert_array_equal(single[1, 6:], single[0, 6:])


def test_evidence_is_set_beside_the_lesions_of_every_modality(predictor: Predictor, case: Case) -> None:
    views = lesion_views(case, predictor.explain(case), PREPARATION, group="0", shown=0)
    assert {view.volume for view in views} == {image.image for image in case.images}
    assert all(view.mask.any() and view.lesion is not None and view.found is None for view in views)
    (film,) = [view for view in views if view.volume is not None and view.volume.endswith("film.png")]
    assert film.evidence.shape == film.mask.shape == (64, 64)


# Bad inputs -----------------------------------------------------------------------------------------------------------


def test_of_two_cts_of_one_patient_one_is_read_beside_the_rest(
    bundle: Bundle, predictor: Predictor, case: Case, tmp_path: Path
) -> None:
    other = write_mixed_cohort(tmp_path, patients=1, seed=3, there=lambda _number: ("CT",))
    (second,) = cases(read_cohort(other))[0].images
    paths = [*(image.path for image in case.images), second.path]
    with images_at(paths) as opened:
        selection = select_images(of_one_patient(studies_of(opened)), bundle.manifest.modalities)
    assert sorted(one.image.volume.modality for one in selection.used) == ["CT", "MR", "radiograph"]
    (left,) = selection.left_out
    assert (left.code, left.image.volume.modality) == ("other_series", "CT")


def test_two_patients_who_are_taken_for_one_are_said(
    bundle: Bundle, predictor: Predictor, case: Case, tmp_path: Path
) -> None:
    paths = []
    for number, patient in enumerate(("A", "A", "B", "")):
        grey = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint16)
        paths.append(tmp_path / f"{number}.dcm")
        write_dicom(paths[-1], grey, "DX", PatientID=patient)
    film = next(image.path for image in case.images if image.modality == "radiograph")
    told = "The images have 2 different Patient IDs, and were judged as those of one patient."
    assert told in explained([*paths, film], bundle, predictor).reasons
    # Who is not named may be the same.
    others = explained([paths[0], paths[1], paths[3], film], bundle, predictor).reasons
    assert not any("Patient ID" in reason for reason in others)


def test_a_radiograph_that_cannot_be_read_does_not_spoil_a_good_ct(
    bundle: Bundle, predictor: Predictor, case: Case, tmp_path: Path
) -> None:
    damaged = tmp_path / "film.dcm"
    write_dicom(damaged, np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint16), "DX")
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    (ct,) = only(case, "CT").images
    with images_at([ct.path, damaged]) as opened:
        selection = select_images(of_one_patient(studies_of(opened)), bundle.manifest.modalities)
        said = explain_study(selection, bundle, predictor, Told())
    assert [one.image.volume.modality for one in selection.used] == ["CT"]
    assert len(selection.refused) == 1
    assert said.verdict in bundle.manifest.slugs
    assert said.reasons[0] == "1 file of the study could not be read; the answer rests on the others."
    assert "no MR or radiographs that it can read" in said.reasons[1]
    # In a cohort, whose images were all read once, it is a fault.
    broken = tuple(
        dataclasses.replace(image, path=damaged) if image.modality == "radiograph" else image for image in case.images
    )
    with pytest.raises(ImageError, match=r"film\.dcm"):
        predictor.explain(dataclasses.replace(case, images=broken))


def test_a_modality_that_the_bundle_does_not_know_is_left_aside_and_out_of_scope_alone(
    case: Case, tmp_path: Path
) -> None:
    pair = PREPARATION.model_copy(update={"modalities": ("CT", "radiograph")})
    folder = export_tiny(tmp_path / "member", channels=8, modalities=2)
    changes: dict[str, Any] = {"schema": SCHEMA_OF_MIX, "preparation": pair, "modalities": pair.modalities}
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle", folder, **changes))
    predictor = load_predictor(bundle, threads=1)
    (mr,) = only(case, "MR").images
    said = explained([mr.path], bundle, predictor)
    assert (said.verdict, said.probabilities) == ("out_of_scope", None)
    assert said.reasons == (
        "The study holds no image that the bundle reads: an MR, where CT and radiographs are read.",
    )
    beside = explained([image.path for image in case.images], bundle, predictor)
    without = explained([image.path for image in only(case, "CT", "radiograph").images], bundle, predictor)
    assert beside.verdict in bundle.manifest.slugs
    assert beside.probabilities == without.probabilities
    assert beside.reasons == ()


def test_a_bundle_that_states_other_modalities_than_it_reads_is_none(bundle: Bundle) -> None:
    said = bundle.manifest.model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError, match="its networks read CT, MR, radiograph, and it states CT, MR"):
        Manifest.model_validate({**said, "modalities": ["CT", "MR"]})


@pytest.mark.parametrize("schema", [2, 3])
def test_a_bundle_of_one_modality_of_before_is_read_as_it_was(
    scan_bundle: Path, schema: int, case: Case, bundle: Bundle
) -> None:
    """Whose preparation says nothing of modalities, and whose planes say nothing of theirs."""
    said = json.loads((scan_bundle / "bundle.json").read_text(encoding="utf-8"))
    assert said["schema"] == 3
    assert "modalities" not in said["preparation"]
    manifest = Manifest.model_validate({**said, "schema": schema})
    assert manifest.preparation.modalities == ()
    assert manifest.plane_shape("CT") == manifest.plane_shape("MR") == (3, 64, 64)
    planes = two_planes(prepare_case(only(case, "MR"), manifest.preparation))
    assert planes.shape == (2, 3, 64, 64)
    # Channel by channel what a mix shows twice.
    mixed = two_planes(
        prepare_case(only(case, "MR"), PREPARATION.model_copy(update={"volume": manifest.preparation.volume}))
    )
    np.testing.assert_array_equal(planes, mixed[:, :3])
