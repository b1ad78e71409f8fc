"""A run on CT, MR and radiographs of the same patients: from the table to predictions of what there is."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mixed_samples import ALL, CONFIG, patient_of, write_mixed_cohort, write_patient
from PIL import Image
from samples import Silent

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.errors import CohortError, ConfigError
from osteoscope.inference.result import StudyPrediction
from osteoscope.workflow.study import check_modality

if TYPE_CHECKING:
    from pathlib import Path

# One run and what is made of it: two minutes on a busy machine.
pytestmark = pytest.mark.slow

THREE_ONLY = [("too-small", "only whether the ways agree is asked")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_cohort(tmp_path_factory.mktemp("mix"), patients=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    workflow.train(cohort, folder, config=CONFIG, watcher=Silent(), threads=1)
    return folder


def paths_of(folder: Path, number: int, seed: int) -> dict[str, Path]:
    """Find the images of a patient that were written."""
    place = folder / f"M{seed}-{number}"
    return {kind: place / name for kind, name in zip(ALL, ("ct", "mr", "film.png"), strict=True)}


def answers(output: Path) -> list[StudyPrediction]:
    return [StudyPrediction.model_validate_json(path.read_bytes()) for path in sorted(output.glob("*/prediction.json"))]


def test_every_patient_is_judged_once_whatever_there_is(run: Path) -> None:
    with (run / "oof.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["patient"] for row in rows}) == len(rows) == 18
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["patient"]["auc"]["value"] > 0.8
    assert metrics["n_images"] == sum(len(patient_of(number)) for number in range(18))
    groups = metrics["subgroups"]["groupings"]["modality"]
    assert set(groups["groups"]) >= {"CT+MR+radiograph", "MR+radiograph"}
    assert "modalities, geometry and noise" in metrics["baselines"]
    # Planes of scans and radiographs alike were set beside their lesions.
    assert metrics["localisation"]["images"] == metrics["n_images"]
    assert {"evidence", "lesion", "gaussian"} <= set(metrics["localisation"])


def test_the_bundle_says_what_it_reads(run: Path) -> None:
    manifest = load_bundle(run / "bundle").manifest
    assert manifest.schema_version == 4
    assert manifest.modalities == manifest.preparation.modalities == ALL
    card = (run / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (
        "What there is of CT, MR and radiographs of a patient is judged together; any of them may be missing." in card
    )
    assert "A radiograph is read whole, as one plane." in card


def test_the_report_and_a_case_show_every_modality(run: Path, cohort: Path) -> None:
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "The network read CT, MR and radiographs of a patient together" in report
    whole = next(case for case in cases(read_cohort(cohort)) if len(case.images) == 3)
    page = (run / "cases" / f"{whole.patient}.html").read_text(encoding="utf-8")
    for image in whole.images:
        assert f"<h3>{image.image}" in page
    assert "Axial CT of 8 planes" in page
    assert "Axial MR of 8 planes" in page
    assert "<strong>Radiograph</strong>" in page
    assert "Left is left and up is up in a radiograph, as in its file" in page


@pytest.mark.parametrize("missing", [None, *ALL])
def test_evaluate_and_predict_say_the_same_with_any_one_left_out(
    run: Path, tmp_path: Path, missing: str | None
) -> None:
    there = tuple(kind for kind in ALL if kind != missing)
    other = write_mixed_cohort(tmp_path, patients=1, seed=5, there=lambda _number: there)
    workflow.evaluate(run / "bundle", other, tmp_path / "evaluation", accept=THREE_ONLY, threads=1)
    with (tmp_path / "evaluation" / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        judged = sorted(float(row["p_osteosarcoma"]) for row in csv.DictReader(stream))
    said = []
    for number in (0, 1):
        paths = paths_of(tmp_path / "images", number, 5)
        output = tmp_path / f"prediction {number}"
        workflow.predict(run / "bundle", [paths[kind] for kind in there], output, one_patient=True, threads=1)
        (found,) = answers(output)
        assert found.probabilities is not None
        assert sorted(image.modality for image in found.images) == list(there)
        assert sum(image.weight for image in found.images) == pytest.approx(1, abs=1e-6)
        assert any("alone" in reason for reason in found.reasons) == (missing is not None)
        # Evidence lies in the patient where an image has a place there.
        assert [bool(image.evidence) for image in found.images] == [
            kind.modality != "radiograph" for kind in found.images
        ]
        assert len(found.overlays) == 4
        modality = {image.name: image.modality for image in found.images}
        assert {modality[overlay.image] for overlay in found.overlays} == set(there)
        said.append(found.probabilities["osteosarcoma"])
    assert sorted(said) == pytest.approx(judged, abs=1e-5)


def test_files_that_are_not_said_to_be_of_one_patient_are_studies_of_their_own(run: Path, tmp_path: Path) -> None:
    write_patient(tmp_path, 0, ALL, seed=6)
    paths = list(paths_of(tmp_path, 0, 6).values())
    apart = workflow.predict(run / "bundle", paths, tmp_path / "apart", threads=1)
    together = workflow.predict(run / "bundle", paths, tmp_path / "together", one_patient=True, threads=1)
    # CT and MR are of one study, by its UID.
    assert (len(apart.rows), len(together.rows)) == (2, 1)
    assert together.rows[0].study not in {row.study for row in apart.rows}
    # One study alone is called as ever, and asked once more it is not read again.
    (alone,) = workflow.predict(run / "bundle", paths[:2], tmp_path / "apart", one_patient=True, threads=1).rows
    assert alone.study in {row.study for row in apart.rows}
    assert alone.already_done
    # All that is told is of that patient.
    workflow.predict(run / "bundle", paths, tmp_path / "told", one_patient=True, age=30, threads=1)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_predictions(
    run: Path, cohort: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "run"
    shutil.copytree(run, stopped)
    shutil.rmtree(stopped / "final")
    workflow.train(cohort, stopped, config=CONFIG, watcher=Silent(), threads=1)
    for name in ("oof.csv", "bundle/members/0/weights.safetensors"):
        assert (stopped / name).read_bytes() == (run / name).read_bytes()


def test_the_bundle_is_exported_with_eight_bits_tried(run: Path, cohort: Path, tmp_path: Path) -> None:
    done = workflow.export(run, tmp_path / "exported", int8=True, cohort=cohort)
    assert done.int8 is not None
    assert done.int8.patients == 18
    assert done.int8.map_correlation > 0.9
    assert {member.runtime for member in done.members} == {"onnxruntime", "openvino"}
    assert max(member.parity.worst() for member in done.members) < 1e-4


def test_what_is_read_of_radiographs_alone_is_not_swept_over_a_mix(run: Path, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a bundle that reads radiographs alone, found one for CT, MR and"):
        workflow.sweep_robustness(run / "bundle", cohort, tmp_path / "swept")


def test_the_settings_follow_the_modalities(cohort: Path) -> None:
    chosen = workflow.training_config(cohort, preset="quick")
    assert chosen.preparation.modalities == ALL
    assert chosen.preparation.volume is not None
    assert chosen.preparation.size == chosen.preparation.volume.size
    assert chosen.network.focus
    assert not chosen.preparation.second_look
    with pytest.raises(ConfigError, match="of a mix all is read, so --roi box cannot be"):
        workflow.training_config(cohort, roi="box")


def test_folds_by_looks_need_one_modality(cohort: Path, tmp_path: Path) -> None:
    by_looks = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"split": "looks"})})
    with pytest.raises(ConfigError, match="folds by looks need images of one modality"):
        workflow.train(cohort, tmp_path / "run", config=by_looks, watcher=Silent(), threads=1)


def test_settings_for_other_modalities_than_there_are_are_refused(
    cohort: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    mix = read_cohort(cohort)
    alone = CONFIG.preparation.model_copy(update={"modalities": ()})
    held = "the cohort holds CT, MR and radiographs"
    with pytest.raises(CohortError, match=rf"preparation\.volume\) are for CT or MR alone, {held}") as refused:
        check_modality(mix, alone)
    assert "name CT, MR, radiograph in preparation.modalities" in str(refused.value.remedy)
    with pytest.raises(CohortError, match=f"are for radiographs alone, {held}"):
        check_modality(mix, alone.model_copy(update={"volume": None}))
    # A network cannot learn of what is nowhere in the cohort.
    radiographs = read_cohort(cohort_folder)
    with pytest.raises(CohortError, match=r"preparation\.modalities\) are for CT, MR and radiographs, the cohort"):
        check_modality(radiographs, CONFIG.preparation)
    pair = CONFIG.preparation.model_copy(update={"modalities": ("CT", "MR")})
    with pytest.raises(CohortError, match=f"are for CT and MR, {held}"):
        check_modality(mix, pair)
    check_modality(mix, CONFIG.preparation)


def test_overlays_of_every_modality_can_be_drawn(run: Path, tmp_path: Path) -> None:
    write_patient(tmp_path, 2, ALL, seed=7)
    for kind, path in paths_of(tmp_path, 2, 7).items():
        output = tmp_path / kind
        workflow.predict(run / "bundle", [path], output, threads=1)
        (found,) = answers(output)
        assert {overlay.image for overlay in found.overlays} == {image.name for image in found.images}
        picture = np.asarray(Image.open(output / found.study / found.overlays[0].file))
        assert picture.ndim == 3
        assert picture.std() > 10
