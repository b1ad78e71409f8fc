"""A CT of a cohort is read as the same CT is in a study: a few planes at a time, and judged together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bundles import VOLUMES
from scan_samples import scan_case

from osteoscope.bundle.load import load_bundle
from osteoscope.config import PreparationConfig
from osteoscope.imaging.open import images_at
from osteoscope.inference import scans as scans_module
from osteoscope.inference.predict import predict_case, prepare_case, two_planes
from osteoscope.inference.predictor import load_predictor
from osteoscope.inference.scans import PreparedScans
from osteoscope.inference.scope import select_images, studies_of
from osteoscope.inference.study import Told, explain_study

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case
    from osteoscope.inference.engine import PlaneReadings
    from osteoscope.inference.predictor import Predictor

CONFIG = VOLUMES.volume


@pytest.fixture(scope="module")
def predictor(scan_bundle: Path) -> Predictor:
    return load_predictor(load_bundle(scan_bundle), threads=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return scan_case(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def two_scans(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    other = scan_case(tmp_path_factory.mktemp("other"), modality="MR")
    return dataclasses.replace(case, images=(*case.images, *other.images))


def test_a_scan_says_the_same_as_a_patient_of_a_cohort_and_as_a_study(
    scan_bundle: Path, predictor: Predictor, case: Case
) -> None:
    explained = predictor.explain(case)
    with images_at([case.images[0].path]) as opened:
        (study,) = studies_of(opened)
        selection = select_images(study, ["CT"])
        said = explain_study(selection, load_bundle(scan_bundle), predictor, Told())
    expected = predictor.calibration.apply(np.array([explained.prediction.logits]))[0]
    assert said.probabilities == pytest.approx(expected, abs=1e-5)
    (image,) = explained.prediction.images
    assert len(image.looks) == len(said.images[0].planes) > 1
    for place, (look, plane) in enumerate(zip(image.looks, said.images[0].planes, strict=True)):
        assert (look.plane, look.read_rectangle(), look.likelihood) == (plane.plane, plane.rectangle, None)
        assert look.weight == pytest.approx(plane.weight, abs=1e-5)
        np.testing.assert_allclose(explained.evidence[place], plane.evidence, atol=1e-5)


def test_all_planes_speak_and_their_evidence_adds_up_to_the_logit(predictor: Predictor, two_scans: Case) -> None:
    explained = predictor.explain(two_scans)
    one, other = explained.prediction.images
    # Of ten planes 3 mm apart those at least 4 mm apart would be seven; six are read at most.
    assert one.planes == other.planes == (0, 2, 4, 5, 7, 9)
    assert one.first_looks == other.first_looks == 6
    assert one.speaking == one.looks
    assert one.found == ()
    assert one.weight + other.weight == pytest.approx(1, abs=1e-6)
    assert min(look.weight for image in (one, other) for look in image.looks) > 0
    assert explained.looks_at(1) == explained.first_looks_at(1) == slice(6, 12)
    assert len(explained.evidence) == len(explained.lesions) == 12
    assert 0 <= explained.lesions.min() <= explained.lesions.max() <= 1
    logits = np.array(explained.prediction.logits)
    alone = predictor.explain(dataclasses.replace(two_scans, images=two_scans.images[:1]))
    # What neither scan says, the bias, is the same in both.
    unexplained = logits - logits.mean() - explained.evidence.sum(axis=(0, 2, 3))
    of_one = np.array(alone.prediction.logits)
    np.testing.assert_allclose(unexplained, of_one - of_one.mean() - alone.evidence.sum(axis=(0, 2, 3)), atol=1e-5)
    assert one.logits == pytest.approx(alone.prediction.logits, abs=1e-5)


def test_a_few_planes_at_a_time_say_what_all_at_once_do(
    predictor: Predictor, two_scans: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predictor.explain(two_scans)
    monkeypatch.setattr(scans_module, "planes_together", lambda: 4)
    read: list[int] = []
    engine = predictor.members[0].engine

    def noted(planes: NDArray[np.float32]) -> PlaneReadings:
        read.append(len(planes))
        return type(engine).read(engine, planes)

    monkeypatch.setattr(engine, "read", noted)
    parts = predictor.explain(two_scans)
    assert read == [4, 2, 4, 2]
    assert parts.prediction.logits == pytest.approx(whole.prediction.logits, abs=1e-5)
    np.testing.assert_allclose(parts.evidence, whole.evidence, atol=1e-5)


def test_the_planes_that_were_read_can_be_cut_once_more(predictor: Predictor, two_scans: Case) -> None:
    prepared = prepare_case(two_scans, VOLUMES)
    planes = prepared.speaking_planes(predict_case(two_scans, prepared, predictor.members).prediction.images)
    assert planes.shape == (12, 3, 64, 64)
    np.testing.assert_array_equal(two_planes(prepared), planes[:2])
    # Of one plane, itself and itself upside down.
    assert CONFIG is not None
    few = PreparationConfig(volume=CONFIG.model_copy(update={"planes": 1}))
    single = PreparedScans.of_case(two_scans, few)
    alone = PreparedScans(volumes=single.volumes[:1], plans=single.plans[:1], preparation=few)
    np.testing.assert_array_equal(
        two_planes(alone), np.concatenate([alone.first_planes(), alone.first_planes()[:, :, ::-1]])
    )
