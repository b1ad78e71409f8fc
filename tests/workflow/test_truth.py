"""A bundle beside the truth of phantoms: who is matched, what could be known, where causes lie, and without them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import export_tiny, write_tiny_bundle
from scipy.ndimage import map_coordinates
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.cli.main import app
from osteoscope.cohort.table import Cohort, cases, read_cohort
from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.errors import InputError
from osteoscope.evaluation.calibration import CalibrationMap
from osteoscope.evaluation.conformal import Refused
from osteoscope.evaluation.document import Predictions, StudyFacts
from osteoscope.evaluation.metrics import auc_score
from osteoscope.inference.engine import Judgement, Member, MemberEngine, PlaneReadings
from osteoscope.inference.predictor import Predictor
from osteoscope.phantom.render import render
from osteoscope.workflow.truth import (
    BAYES,
    MATRIX_RULE,
    Phantom,
    beside_truth,
    counterfactual,
    discriminative_localisation,
    matrix_groups,
    read_phantoms,
    reference_blocks,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.inference.prediction import ExplainedCase

CLASSES = ("osteosarcoma", "giant cell tumor")
SLUGS = ("osteosarcoma", "giant_cell_tumor")
SIZE, GRID = 48, 12
DENSE = PreparationConfig(
    volume=VolumeConfig(size=SIZE, spacing=4.0, planes=10, step=2.0, neighbours=0, windows=((300, 800),))
)


class DenseVoxels(MemberEngine):
    """Takes what is dense for osteosarcoma, wherever it is: each cell of a map is the mean of its pixels."""

    def __init__(self) -> None:
        """Load nothing."""

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        cells = planes[:, 0].reshape(len(planes), GRID, SIZE // GRID, GRID, SIZE // GRID).mean(axis=(2, 4))
        return PlaneReadings(
            scores=np.zeros(len(planes), np.float32),
            vectors=cells.mean(axis=(1, 2))[:, None],
            maps=np.stack([cells, -cells], axis=1),
            lesions=cells,
        )

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        logit = float(readings.vectors.mean())
        weights = np.full(len(readings.scores), 1 / len(readings.scores), np.float32)
        return Judgement(logits=np.array([logit, -logit], dtype=np.float32), weights=weights)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen small phantoms, and the cohort that is made of them."""
    folder = tmp_path_factory.mktemp("truth")
    workflow.make_phantoms(folder / "phantoms", patients=16, seed=11, planes=12, pixels=48, processes=1)
    workflow.cohort_from_table(
        folder / "phantoms" / "labels.csv",
        folder / "cohort",
        images=folder / "phantoms" / "images",
        classes=CLASSES,
        source="phantom",
    )
    return folder


@pytest.fixture(scope="module")
def cohort(made: Path) -> Cohort:
    return read_cohort(made / "cohort")


@pytest.fixture(scope="module")
def phantoms(made: Path, cohort: Cohort) -> tuple[Phantom, ...]:
    return read_phantoms(made / "phantoms", cohort, cases(cohort))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(
        members=(Member(engine=DenseVoxels()),),
        preparation=DENSE,
        calibration=CalibrationMap(method="none", temperature=1.0, bias=(0.0, 0.0), prior=(0.5, 0.5)),
        conformal=Refused(reason="nobody asked"),
    )


@pytest.fixture(scope="module")
def explained(predictor: Predictor, phantoms: tuple[Phantom, ...]) -> list[ExplainedCase]:
    return [predictor.explain(one.case) for one in phantoms]


@pytest.fixture(scope="module")
def model(phantoms: tuple[Phantom, ...]) -> Predictions:
    """What a network might say that goes by age alone."""
    older = np.array([(one.case.age or 0) / 100 for one in phantoms])
    return Predictions(
        patients=tuple(one.case.patient for one in phantoms),
        labels=np.array([CLASSES.index(one.truth.patient.label) for one in phantoms]),
        repeats=np.zeros(len(phantoms), dtype=np.int64),
        probabilities=np.column_stack([older, 1 - older]),
        verdicts=np.zeros(len(phantoms), dtype=np.int64),
    )


FACTS = StudyFacts(classes=CLASSES, slugs=SLUGS, prior=(0.5, 0.5), roi="none", seed=0, estimates="Nothing.")


# Who is matched -------------------------------------------------------------------------------------------------------


def test_every_patient_of_the_cohort_meets_the_truth_of_the_same_patient(
    phantoms: tuple[Phantom, ...], cohort: Cohort
) -> None:
    assert len(phantoms) == 16
    for one in phantoms:
        assert one.case.images[0].image == f"{one.truth.identifier}/ct"
        assert one.folder.name == one.truth.identifier
        assert one.case.age == int(one.truth.patient.attributes.age)
    groups = matrix_groups(phantoms)
    assert set(groups.values()) == {"mineralised matrix", "purely lytic"}
    assert sum(one.has_counterfactual for one in phantoms) >= 3


def test_a_folder_without_the_truth_of_all_is_refused(made: Path, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no truth of phantoms"):
        read_phantoms(tmp_path, cohort, cases(cohort))
    shutil.copytree(made / "phantoms" / "truth", tmp_path / "truth")
    gone = sorted((tmp_path / "truth").iterdir())[0]
    shutil.rmtree(gone)
    with pytest.raises(InputError, match="no truth of 1 of 16 patients"):
        read_phantoms(tmp_path, cohort, cases(cohort))


def test_a_truth_that_contradicts_the_cohort_is_refused(made: Path, cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(made / "phantoms" / "truth", tmp_path / "truth")
    file = next(iter(sorted((tmp_path / "truth").iterdir()))) / "truth.json"
    known = json.loads(file.read_text())
    known["label"] = next(label for label in CLASSES if label != known["label"])
    file.write_text(json.dumps(known))
    with pytest.raises(InputError, match=f"expected one CT of {known['label']}"):
        read_phantoms(tmp_path, cohort, cases(cohort))


# What could be known --------------------------------------------------------------------------------------------------


def test_references_are_those_of_the_exact_ratio_and_of_the_one_sign(
    phantoms: tuple[Phantom, ...], model: Predictions
) -> None:
    blocks = reference_blocks(phantoms, model, FACTS)
    positive = model.labels == 0
    exact = auc_score(positive, [one.truth.patient.log_likelihood_ratio for one in phantoms])
    assert blocks[BAYES]["auc"]["value"] == pytest.approx(exact)
    mineralised = np.array([one.truth.patient.attributes.matrix != "none" for one in phantoms])
    sensitivity, specificity = mineralised[positive].mean(), 1 - mineralised[~positive].mean()
    assert blocks[MATRIX_RULE]["balanced_accuracy"]["value"] == pytest.approx((sensitivity + specificity) / 2)
    by_age = auc_score(positive, model.probabilities[:, 0])
    assert exact is not None
    assert by_age is not None
    assert blocks[BAYES]["auc_difference"]["value"] == pytest.approx(by_age - exact)


# Without the cause ----------------------------------------------------------------------------------------------------


def test_without_matrix_a_network_that_goes_by_it_is_less_sure(
    predictor: Predictor, phantoms: tuple[Phantom, ...], explained: list[ExplainedCase]
) -> None:
    told: list[None] = []
    found = counterfactual(predictor, phantoms, explained, classes=CLASSES, progress=lambda: told.append(None))
    wanted = [one.case.patient for one in phantoms if one.has_counterfactual]
    assert [one.phantom.case.patient for one in found.patients] == wanted
    assert len(told) == len(wanted)
    block = found.to_json()
    assert block["n"] == len(wanted)
    assert block["fallen"]["value"] == 1
    assert block["median_fall"]["value"] == pytest.approx(
        np.median([one["before"] - one["after"] for one in block["patients"]])
    )
    typical = found.typical
    assert typical is not None
    assert typical.fall == pytest.approx(block["median_fall"]["value"], abs=0.05)
    # What is said of the CT in memory is what is said of the CT on disk, and the same planes are read of both.
    for one in found.patients:
        before = one.seen_before.prediction.images[0]
        assert one.before == pytest.approx(1 / (1 + np.exp(-2 * before.logits[0])))
        assert one.seen_after.prediction.images[0].planes == before.planes


def test_where_nothing_can_be_taken_out_that_is_said(
    predictor: Predictor, phantoms: tuple[Phantom, ...], explained: list[ExplainedCase]
) -> None:
    kept = [(one, said) for one, said in zip(phantoms, explained, strict=True) if not one.has_counterfactual]
    found = counterfactual(predictor, [one for one, _ in kept], [said for _, said in kept], classes=CLASSES)
    assert found.to_json() == {"n": 0, "reason": "no osteosarcoma of these patients has mineralised matrix"}
    assert found.typical is None


def test_a_ct_that_this_version_does_not_render_is_refused(
    predictor: Predictor, phantoms: tuple[Phantom, ...], explained: list[ExplainedCase]
) -> None:
    one, said = next((one, said) for one, said in zip(phantoms, explained, strict=True) if one.has_counterfactual)
    patient = replace(one.truth.patient, seed=one.truth.patient.seed + 1)
    other = replace(one, truth=replace(one.truth, patient=patient))
    with pytest.raises(InputError, match="is not the one in the cohort"):
        counterfactual(predictor, [other], [said], classes=CLASSES)


# Where the causes lie -------------------------------------------------------------------------------------------------


def test_evidence_in_dense_voxels_finds_matrix_better_than_chance(
    predictor: Predictor, phantoms: tuple[Phantom, ...], explained: list[ExplainedCase]
) -> None:
    dense = [number for number, one in enumerate(phantoms) if one.has_counterfactual]
    table = discriminative_localisation(
        [phantoms[number] for number in dense],
        [explained[number] for number in dense],
        DENSE,
        shown=dict.fromkeys((one.case.patient for one in phantoms), 0),
        threshold=0.5,
    )
    assert table["patients"] == len(dense)
    assert table["evidence"]["energy"]["value"] > 1.5 * table["random"]["energy"]["value"]
    assert table["random"]["energy_difference"]["low"] > 0


def test_even_evidence_lies_in_what_is_marked_by_its_share_of_what_was_read(
    phantoms: tuple[Phantom, ...], explained: list[ExplainedCase]
) -> None:
    number, one = next((number, one) for number, one in enumerate(phantoms) if one.has_counterfactual)
    said, truth = explained[number], one.truth
    again = render(truth.patient.attributes, truth.patient.seed, acquisition=truth.acquisition, shape=truth.shape)
    shares = []
    for look in said.prediction.images[0].looks:
        left, top, width, height = look.rectangle
        rows, columns = (np.arange(SIZE) + 0.5) * height / SIZE + top, (np.arange(SIZE) + 0.5) * width / SIZE + left
        places = np.meshgrid(rows - 0.5, columns - 0.5, indexing="ij")
        marked = again.discriminative[look.plane] > 0
        shares.append((map_coordinates(marked.astype(float), places, order=1) >= 0.5).mean())
    even = np.zeros_like(said.evidence)
    even[:, 0] = 1
    found = discriminative_localisation(
        [one], [replace(said, evidence=even)], DENSE, shown={one.case.patient: 0}, threshold=0.5
    )
    assert 0.01 < np.mean(shares) < 0.3
    assert found["evidence"]["energy"]["value"] == pytest.approx(np.mean(shares), rel=0.05)


def test_a_map_that_lies_beside_its_ct_is_refused(
    phantoms: tuple[Phantom, ...], explained: list[ExplainedCase], tmp_path: Path
) -> None:
    first, second = phantoms[:2]
    moved = replace(first, folder=tmp_path)
    shutil.copy(second.folder / "discriminative.nii.gz", tmp_path)
    with pytest.raises(InputError, match="does not lie on the voxels of the CT"):
        discriminative_localisation([moved], explained[:1], DENSE, shown={moved.case.patient: 0}, threshold=0.5)


# All of it ------------------------------------------------------------------------------------------------------------


def test_the_block_holds_every_figure(
    cohort: Cohort,
    predictor: Predictor,
    phantoms: tuple[Phantom, ...],
    explained: list[ExplainedCase],
    model: Predictions,
) -> None:
    found = beside_truth(
        phantoms, explained, cohort=cohort, predictor=predictor, model=model, facts=FACTS, threshold=0.5
    )
    block = found.block
    assert set(block) == {"mineralised", "bayes", "matrix_rule", "lytic", "localisation", "counterfactual"}
    assert block["mineralised"]["osteosarcoma"] == block["counterfactual"]["n"]
    assert block["matrix_rule"]["balanced_accuracy"] == found.baselines[MATRIX_RULE]["balanced_accuracy"]
    assert block["bayes"]["clinical"] == "clinical: age, sex, level"
    assert block["bayes"]["way_covered"]["n"] == 16
    lytic = [one.truth.patient.label == CLASSES[1] or not one.is_mineralised for one in phantoms]
    assert sum(block["lytic"]["n_by_class"].values()) == sum(lytic)
    if "auc" in block["lytic"]:
        alone = auc_score(model.labels[lytic] == 0, model.probabilities[lytic, 0])
        assert block["lytic"]["auc"]["value"] == pytest.approx(alone)
    json.dumps(block, allow_nan=False)
    shown = found.pictures()
    assert shown is not None
    assert shown.probabilities[0] > shown.probabilities[1]
    assert all(picture.startswith(b"\xff\xd8") for picture in shown.pictures)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one network that learnt nothing, from phantoms."""
    folder = tmp_path_factory.mktemp("bundle")
    member = export_tiny(folder / "member", channels=3)
    changes: dict[str, Any] = {"provenance": "phantom", "modalities": ("CT",)}
    return write_tiny_bundle(folder / "bundle", member, **changes)


def test_evaluate_sets_a_bundle_beside_the_truth(made: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(bundle), str(made / "cohort"), "-o", str(tmp_path / "seen"), "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--truth", str(made / "phantoms")])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "seen" / "metrics.json").read_text())
    assert metrics["truth"]["counterfactual"]["n"] >= 3
    assert {BAYES, MATRIX_RULE} <= set(metrics["baselines"])
    assert set(metrics["subgroups"]["groupings"]["matrix"]["groups"]) == {"mineralised matrix", "purely lytic"}
    page = (tmp_path / "seen" / "report.html").read_text()
    for said in ("Beside the truth", "Bayes reference", "Without matrix", "Balanced accuracy of the matrix rule"):
        assert said in page
