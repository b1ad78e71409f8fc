"""A bundle says what its networks say, without torch; micro-batches change nothing."""

from __future__ import annotations

import dataclasses
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.config import PreparationConfig
from osteoscope.errors import BundleError, ImageError, InputError
from osteoscope.inference.engine import MemberEngine, PlaneReadings
from osteoscope.inference.predict import prepare_case
from osteoscope.inference.predictor import Predictor, load_predictor
from osteoscope.network.classifier import TumourNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case
    from osteoscope.inference.prediction import ExplainedCase


@pytest.fixture(scope="module")
def predictor(run_folder: Path) -> Predictor:
    return load_predictor(load_bundle(run_folder / "bundle"))


@pytest.fixture(scope="module")
def several(other_cohort_folder: Path) -> list[Case]:
    return [case for case in cases(read_cohort(other_cohort_folder)) if len(case.images) > 1]


def planes_of(case: Case, predictor: Predictor) -> NDArray[np.float32]:
    return prepare_case(case, predictor.preparation).first_planes()


def test_every_output_agrees_with_the_torch_network(
    run_folder: Path, predictor: Predictor, several: list[Case]
) -> None:
    bundle = load_bundle(run_folder / "bundle")
    for number, member in enumerate(predictor.members):
        encoder = member.encoder
        assert encoder is not None
        network = TumourNetwork(bundle.manifest.network, classes=2, covariates=encoder.size).eval()
        network.load_state_dict(
            load_file(bundle.folder / bundle.manifest.members[number].folder / "weights.safetensors")
        )
        for case in several:
            planes = planes_of(case, predictor)
            covariates = member.covariates(case)
            assert covariates is not None
            read = member.engine.read(planes)
            judged = member.engine.judge(read, covariates)
            with torch.no_grad():
                reading = network.encoder(torch.from_numpy(planes))
                patient = network.head(
                    reading.scores,
                    reading.vectors,
                    torch.ones(1, len(planes), dtype=torch.bool),
                    torch.from_numpy(covariates)[None],
                )
                maps = network.class_maps(reading.maps)
            pairs = [
                (reading.scores, read.scores),
                (reading.vectors, read.vectors),
                (maps, read.maps),
                (torch.sigmoid(reading.lesions), read.lesions),
                (patient.logits[0], judged.logits),
                (patient.weights[0], judged.weights),
            ]
            for expected, found in pairs:
                np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)


def unexplained(explained: ExplainedCase) -> float:
    """What bias and covariates add to the first class's centred logit."""
    logits = np.array(explained.prediction.logits)
    return float((logits - logits.mean() - explained.evidence.sum(axis=(0, 2, 3)))[0])


def test_evidence_and_bias_add_up_to_the_centred_logit(predictor: Predictor, several: list[Case]) -> None:
    """Two classes: the difference of summed evidence differs from that of the logits by what no pixel says."""
    case = several[0]
    blank = dataclasses.replace(case, images=case.images[:1])
    one, all_images = predictor.explain(blank), predictor.explain(case)

    # Bias and covariates are the same whichever images are read.
    assert unexplained(one) == pytest.approx(unexplained(all_images), abs=1e-5)


def test_weights_of_a_patients_images_sum_to_one(predictor: Predictor, several: list[Case]) -> None:
    for case in several:
        assert sum(image.weight for image in predictor.explain(case).prediction.images) == pytest.approx(1)


def test_how_many_planes_are_asked_of_at_once_changes_nothing(predictor: Predictor, several: list[Case]) -> None:
    planes = np.concatenate([planes_of(case, predictor) for case in several])
    engine = predictor.members[0].engine
    whole = engine.read(planes)
    parts = reduce(PlaneReadings.joined, (engine.read(planes[place : place + 1]) for place in range(len(planes))))
    np.testing.assert_allclose(parts.vectors, whole.vectors, atol=1e-5)
    np.testing.assert_allclose(parts.maps, whole.maps, atol=1e-5)
    np.testing.assert_allclose(parts.lesions, whole.lesions, atol=1e-5)


def test_a_missing_covariate_is_no_obstacle(predictor: Predictor, several: list[Case]) -> None:
    unknown = dataclasses.replace(several[0], age=None, sex=None, site=None)
    assert np.isfinite(predictor.explain(unknown).prediction.logits).all()


def test_what_is_told_of_a_patient_is_named_and_what_the_images_say_without_it(
    predictor: Predictor, several: list[Case]
) -> None:
    case = dataclasses.replace(several[0], age=70.0, sex=None)
    told = predictor.explain(case).prediction
    assert told.told == ("age",)
    untold = predictor.explain(dataclasses.replace(case, age=None)).prediction
    assert (untold.told, untold.logits_of_images) == ((), None)
    assert told.said_by_images == pytest.approx(untold.logits)
    assert untold.said_by_images == untold.logits
    assert told.logits != pytest.approx(untold.logits)


def test_a_case_without_its_lesion_is_refused_with_the_way_out(predictor: Predictor, several: list[Case]) -> None:
    images = tuple(dataclasses.replace(image, lesions=()) for image in several[0].images)
    with pytest.raises(InputError, match="--roi none"):
        predictor.explain(dataclasses.replace(several[0], images=images))


def test_a_picture_that_changed_since_the_cohort_was_made_is_refused(
    predictor: Predictor, several: list[Case], tmp_path: Path
) -> None:
    path = tmp_path / "changed.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)).save(path)
    image = dataclasses.replace(several[0].images[0], path=path)
    with pytest.raises(ImageError, match=r"changed\.png.*other pixels"):
        prepare_case(dataclasses.replace(several[0], images=(image,)), predictor.preparation)


def test_a_graph_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "planes.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"planes\.onnx: cannot be loaded by onnxruntime"):
        MemberEngine(tmp_path)


def test_evidence_of_two_looks_and_bias_add_up_to_the_centred_logit(run_folder: Path, several: list[Case]) -> None:
    """The same network, made to look at whole images, and then closely at all parts of them and at what it finds."""
    twice, once = (
        load_predictor(
            load_bundle(run_folder / "bundle"), preparation=PreparationConfig(size=48, second_look=second_look)
        )
        for second_look in (True, False)
    )

    found = 0
    for case in several:
        one, two = once.explain(case), twice.explain(case)
        found += sum(len(image.found) for image in two.prediction.images)
        assert len(two.evidence) == sum(len(image.looks) for image in two.prediction.images)
        assert sum(image.weight for image in two.prediction.images) == pytest.approx(1)
        assert all(image.looks[0].weight == 0 < image.closer_looks for image in two.prediction.images)
        assert unexplained(two) == pytest.approx(unexplained(one), abs=1e-5)
        assert 0 <= two.lesions.min() <= two.lesions.max() <= 1
    assert found
