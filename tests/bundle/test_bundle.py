"""A bundle stands alone, and is refused when a byte of it is not what was written."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from osteoscope.bundle.format import Manifest
from osteoscope.bundle.load import SeenCases, load_bundle, read_recalibration_cases, read_training_cases
from osteoscope.bundle.model_card import model_card
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.errors import BundleError
from osteoscope.inference.predictor import load_predictor
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(run_folder / "bundle", tmp_path / "bundle")


def test_a_bundle_says_what_it_is(folder: Path) -> None:
    manifest = load_bundle(folder).manifest
    assert manifest.classes == ("osteosarcoma", "giant cell tumor")
    assert manifest.prior == {"osteosarcoma": 0.5, "giant_cell_tumor": 0.5}
    assert manifest.modalities == ("radiograph",)
    assert manifest.body_regions == ("femur",)
    assert manifest.provenance == "clinical"
    assert manifest.training.patients == {"osteosarcoma": 12, "giant_cell_tumor": 12}
    assert len(manifest.members) == 2


def test_it_knows_the_patients_and_pixels_that_it_was_trained_on(folder: Path, cohort_folder: Path) -> None:
    seen = read_training_cases(load_bundle(folder))
    trained = cases(read_cohort(cohort_folder))
    assert seen.patients == {case.patient for case in trained}
    assert seen.pixels == {image.pixel_sha256 for case in trained for image in case.images}
    assert read_recalibration_cases(load_bundle(folder)) == SeenCases()


def test_what_the_system_refuses_to_look_at_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read: File name too long"):
        load_bundle(tmp_path / ("x" * 300))


@pytest.mark.parametrize("content", ['{"patients": [], "pixels": []}', "{}", "no list"])
def test_a_list_of_training_cases_that_was_changed_since_the_bundle_was_loaded_is_not_believed(
    folder: Path, content: str
) -> None:
    bundle = load_bundle(folder)
    (folder / "training_cases.json").write_text(content)
    for read in (read_training_cases, read_recalibration_cases):
        with pytest.raises(BundleError, match=r"training_cases\.json: has changed since it was written"):
            read(bundle)


@pytest.mark.parametrize("graph", ["planes.onnx", "head.onnx"])
def test_a_graph_that_took_the_place_of_another_since_the_bundle_was_loaded_is_not_run(
    folder: Path, graph: str
) -> None:
    bundle = load_bundle(folder)
    shutil.copyfile(folder / "members" / "1" / graph, folder / "members" / "0" / graph)
    with pytest.raises(BundleError, match=rf"members/0/{graph}: has changed since it was written"):
        load_predictor(bundle, threads=1)


def rewrite(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest anew, with its hash."""
    manifest = folder / "bundle.json"
    manifest.write_text(json.dumps(content))
    (folder / "bundle.json.sha256").write_text(f"{sha256_of_file(manifest)}  bundle.json\n")


def test_a_manifest_may_leave_out_its_lineage_and_the_method_of_its_calibration(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    del content["lineage"]
    content["calibration"] = {"temperature": 1.5, "fitted_on": "The temperature was fitted on something."}
    rewrite(folder, content)
    bundle = load_bundle(folder)
    assert bundle.manifest.lineage == ()
    found = load_predictor(bundle, threads=1).calibration
    assert (found.method, found.temperature, found.bias, found.prior) == ("temperature", 1.5, (0, 0), (0.5, 0.5))


def test_an_affine_calibration_is_applied_in_the_order_of_the_classes(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    content["calibration"] |= {"method": "affine", "temperature": 2.0, "bias": [0.25, -0.25]}
    content["prior"] = {"giant_cell_tumor": 0.2, "osteosarcoma": 0.8}
    rewrite(folder, content)
    shares = load_predictor(load_bundle(folder), threads=1).calibration.apply([[1.0, 0.0]])[0]
    # The logit is 1 / 2 + 0.25 + 0.25 + log(0.8 / 0.2).
    assert shares[0] == pytest.approx(1 / (1 + math.exp(-1) / 4))


@pytest.mark.parametrize(
    "calibration",
    [
        {"method": "none", "temperature": 2.0},
        {"method": "affine", "bias": [0.5, 0.5]},
        {"method": "affine", "bias": [0]},
    ],
)
def test_a_calibration_that_is_none_is_refused(folder: Path, calibration: dict[str, object]) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    content["calibration"] |= calibration
    rewrite(folder, content)
    with pytest.raises(BundleError, match=r"bundle\.json: is damaged"):
        load_bundle(folder)


def test_the_model_card_says_what_the_bundle_cannot_do(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "osteosarcoma 50%, giant cell tumor 50%" in card
    assert "nothing else" in card
    assert "somebody has to mark the lesion first" in card
    assert "not a segmentation" in card
    assert "The same share for every class." in card
    assert "Calibration:" in card
    assert "Lineage" not in card


@pytest.mark.parametrize(
    ("preparation", "reads", "may_miss"),
    [
        (PreparationConfig(), "The whole image is read; nobody has to mark the lesion.", False),
        (
            PreparationConfig(second_look=True),
            "in full resolution, all parts of the image, and the regions in which the networks find a lesion, each as "
            "much as it is likely to show one; nobody has to mark the lesion.",
            True,
        ),
        (
            PreparationConfig(second_look=True, second_look_at="box"),
            "in full resolution, the square round the lesion's box: somebody has to mark the lesion first.",
            False,
        ),
        (PreparationConfig(roi="outline"), "The square round the lesion's outline is read: somebody has to", False),
        (
            PreparationConfig(volume=VolumeConfig(planes=24, size=128, spacing=2.5)),
            "the body is read, in up to 24 planes of 128 x 2.5 mm, each with 1 on either side; nobody has to mark",
            False,
        ),
    ],
)
def test_the_model_card_says_how_images_are_read(
    run_folder: Path, preparation: PreparationConfig, reads: str, *, may_miss: bool
) -> None:
    manifest = load_bundle(run_folder / "bundle").manifest.model_copy(update={"preparation": preparation})
    card = model_card(manifest)
    assert reads in card
    assert ("What weighs most is what the networks hold to be a lesion, though it may be none" in card) == may_miss


def test_the_model_card_says_what_was_learnt_before(run_folder: Path) -> None:
    manifest = load_bundle(run_folder / "bundle").manifest
    assert "auxiliary" not in model_card(manifest)
    learnt = {
        "images": 1085, "patients": 490, "fingerprint": "cafe", "views": {},
        "kinds": {"osteochondroma": 512, "simple bone cyst": 113}, "sites": {"tibia": 350},
    }  # fmt: skip

    def card_of(auxiliary: dict[str, Any]) -> str:
        training = manifest.training.model_copy(update={"auxiliary": auxiliary})
        return model_card(manifest.model_copy(update={"training": training}))

    def told_of(card: str) -> str:
        return " ".join(card[card.index("## What it was trained on") : card.index("## What its answer means")].split())

    alone = {name: value for name, value in learnt.items() if name != "fingerprint"}
    card = card_of(learnt)
    told = told_of(card)
    assert "- view: not asked\n\nCohort" in card
    of_whom = "1085 auxiliary images of 490 patients outside of these classes,"
    assert f"{of_whom} before their cases: where the lesion is" in told
    before, beside = "before their cases", "beside their cases, 2 for each image of a case"
    assert f"{of_whom} {before} and {beside}: where" in told_of(card_of(learnt | {"beside": 2.0}))
    assert f"{of_whom} {beside}: where" in told_of(card_of(alone | {"beside": 2.0}))
    assert "- kind of tumour: osteochondroma 512, simple bone cyst 113 - body site: tibia 350 - view: not asked" in told


def test_the_model_card_says_what_the_folds_left_out(run_folder: Path) -> None:
    """A figure on body sites that no case showed is another than one on patients alone."""
    manifest = load_bundle(run_folder / "bundle").manifest
    assert manifest.training.split == "patients"
    assert "Each fold left out" not in model_card(manifest)
    for split, left_out in (("sites", "patients of one body site"), ("looks", "patients whose pictures look alike")):
        training = manifest.training.model_copy(update={"split": split})
        assert f"Each fold left out all {left_out}" in model_card(manifest.model_copy(update={"training": training}))


def test_planes_of_all_modalities_are_alike(run_folder: Path) -> None:
    """A network reads planes of one size and so many channels."""
    manifest = load_bundle(run_folder / "bundle").manifest.model_dump(by_alias=True)
    volume = {"size": 48, "windows": [[-500, 1300]], "neighbours": 0}
    preparation = {"size": 48, "volume": volume}
    everything = Manifest.model_validate(
        manifest | {"modalities": ["CT", "MR", "radiograph"], "preparation": preparation}
    )
    assert {everything.plane_shape(modality) for modality in everything.modalities} == {(1, 48, 48)}
    for change, modalities in (
        ({"neighbours": 1}, ["MR", "radiograph"]),
        ({"windows": [[-500, 1300], [0, 100]]}, ["CT", "MR"]),
        ({"size": 64}, ["CT", "radiograph"]),
    ):
        wrong = {"modalities": modalities, "preparation": {"size": 48, "volume": volume | change}}
        with pytest.raises(ValidationError, match="differ in their size or their channels"):
            Manifest.model_validate(manifest | wrong)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "members/0/planes.onnx",
        "members/1/head.onnx",
        "members/0/weights.safetensors",
        "MODEL_CARD.md",
        "training_cases.json",
    ],
)
def test_one_changed_byte_is_found_and_the_file_named(folder: Path, name: str) -> None:
    flip_a_byte(folder / name)
    with pytest.raises(BundleError, match=f"{name}.*SHA-256 differs"):
        load_bundle(folder)


def test_a_changed_temperature_is_found(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    content["calibration"] |= {"method": "temperature", "temperature": 2.0, "bias": None}
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"bundle\.json.*SHA-256 differs"):
        load_bundle(folder)


def test_a_bundle_that_was_calibrated_for_another_second_look_is_refused(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    assert content["schema"] == 3
    content["preparation"] |= {"roi": "none", "second_look": True}
    rewrite(folder, content)
    with pytest.raises(BundleError, match=r"schema 3: its probabilities were fitted to another way.*train it again"):
        load_bundle(folder)
    rewrite(folder, content | {"schema": 5})
    assert load_bundle(folder).manifest.preparation.second_look


def test_the_hash_of_the_manifest_can_be_checked_with_sha256sum(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "bundle.json.sha256"], cwd=folder, check=False, capture_output=True)
    assert done.returncode == 0


THRESHOLDS = {"level": 0.9, "thresholds": [0.5, 0.5], "counts": [20, 20, 20], "refused": None}


def edited(key: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "bundle.json").read_text())
        content[key] = value
        (folder / "bundle.json").write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "members/0/planes.onnx").unlink(), "lacks the file members/0/planes.onnx"),
        (lambda folder: (folder / "members/0/extra.pkl").write_bytes(b"x"), "does not list"),
        (lambda folder: (folder / "bundle.json").write_bytes(b'{"schema": 1'), "cannot be read"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "schema None"),
        (lambda folder: (folder / "bundle.json").unlink(), "is not a bundle"),
        (edited("schema", 1), "schema 1; this version of Osteoscope reads schemas 2, 3, 4, 5"),
        (edited("classes", 7), "damaged at classes"),
        (edited("surprise", 7), "damaged at surprise"),
        (edited("prior", {"osteosarcoma": 1.0}), "not of the same classes"),
        (edited("prior", {"osteosarcoma": 0.5, "giant_cell_tumor": 0.6}), "is damaged: .*prior must be positive"),
        (lambda folder: (folder / "bundle.json.sha256").unlink(), "lacks the hash of its manifest"),
        (edited("members", [{"folder": "../../etc", "fold": 0, "covariates": None}]), "damaged at members"),
        (edited("modalities", []), "damaged at modalities"),
        (edited("modalities", ["PT"]), r"damaged at modalities\.0"),
        (edited("verdicts", THRESHOLDS | {"thresholds": [0.5, 0.5, 0.5]}), "a verdict threshold for each class, got 3"),
        (edited("verdicts", THRESHOLDS | {"thresholds": [0.5], "counts": [20]}), "damaged"),
        (edited("modalities", ["CT"]), "is damaged: .*how CT is read is not stated"),
    ],
)
def test_a_damaged_bundle_is_refused_with_the_reason(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)
