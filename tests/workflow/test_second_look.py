"""From images without a mark to a bundle that finds the lesion itself, having learnt from other tumours first."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from samples import CLASSES, SIDE, Silent, lesion_picture

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle
from osteoscope.config import AuxiliaryConfig, Config, NetworkConfig, PreparationConfig, TrainingConfig, read_config
from osteoscope.errors import CohortError, ConfigError, InputError, RunError
from osteoscope.network.trunk import DenseTrunk
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from pathlib import Path

SITES = ("femur", "tibia", "humerus")


def write_cohort(folder: Path, *, seed: int, others: int, boxes: bool = True) -> Path:
    """Write 24 patients of two classes on three sites, and as many pictures of two other tumours, or none."""
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for number in range(24 + others):
        label = CLASSES[number % 2] if number < 24 else ("bone cyst", "chondroma")[number % 2]
        picture, box = lesion_picture(bright=number % 2 == 0, seed=1000 * seed + number)
        name = f"{seed}_{number:03d}.png"
        Image.fromarray(picture).save(images / name)
        rows.append(
            {
                "patient": f"{seed}-{number}",
                "image": name,
                "label": label,
                "site": SITES[number // 2 % 3],
                "box": " ".join(map(str, box)) if boxes else "",
            }
        )
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    workflow.cohort_from_table(
        folder / "table.csv", folder / "cohort", images=images, classes=CLASSES, source="made up, second look"
    )
    return folder / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), seed=3, others=32)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("others"), seed=4, others=0)


SETTINGS = Config(
    preparation=PreparationConfig(size=64, second_look=True),
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2),
    auxiliary=AuxiliaryConfig(looks=960, batch_size=8, averaging=0.9, learning_rate=3e-3),
    training=TrainingConfig(
        folds=2, members="folds", epochs=12, precision="32-true", learning_rate=3e-3, averaging=0.8
    ),
)


@pytest.fixture(scope="module")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    watcher = Silent()
    workflow.train(cohort, folder, config=SETTINGS, watcher=watcher, threads=1)
    # 960 looks at 32 images, one at each and one elsewhere in a quarter of them: 1.25 an image.
    assert watcher.auxiliary_epochs == list(range(1, 25))
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_run_says_what_it_learnt_first(run: Path) -> None:
    learnt = read(run / "run.json")["auxiliary"]
    assert (learnt["images"], learnt["patients"]) == (32, 32)
    assert learnt["kinds"] == {"bone cyst": 16, "chondroma": 16}
    assert learnt["sites"] == {"femur": 12, "humerus": 10, "tibia": 10}
    # A bundle made again is the same to the byte, so it does not hold how long something took.
    del learnt["minutes"]
    assert load_bundle(run / "bundle").manifest.training.auxiliary == learnt


def test_no_auxiliary_image_is_in_a_fold(run: Path) -> None:
    with (run / "oof.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 24


def test_whoever_was_an_auxiliary_image_is_no_test_case(cohort: Path, run: Path, tmp_path: Path) -> None:
    images = cohort.parent / "images"
    table = tmp_path / "table.csv"
    rows = [f"3-{number},3_{number:03d}.png,{CLASSES[number % 2]}" for number in range(24, 32)]
    table.write_text("\n".join(["patient,image,label", *rows]), encoding="utf-8")
    for source, seen in (("made up, second look", "are among those that"), ("another", "have images that")):
        again = tmp_path / source
        workflow.cohort_from_table(table, again, images=images, classes=CLASSES, source=source)
        with pytest.raises(CohortError, match=f"8 of 8 patients .*{seen} the model was trained on"):
            workflow.evaluate(run / "bundle", again, tmp_path / "out")


def test_most_lesions_are_found_without_a_mark(run: Path) -> None:
    metrics = read(run / "metrics.json")
    assert metrics["roi"] == "none"
    regions = metrics["localisation"]["regions"]
    assert regions["images"] == 24
    # A region of half the picture's side, laid anywhere, would cover half of a lesion in a quarter of the pictures.
    assert regions["found"]["value"] >= 0.4
    assert metrics["localisation"]["lesion"]["pointing"]["value"] >= 0.6
    assert metrics["patient"]["auc"]["value"] >= 0.8


def test_closer_looks_and_regions_lie_in_their_image_and_decide_without_the_first(run: Path) -> None:
    for fold in range(2):
        for case in read(run / "folds" / str(fold) / "predictions.json")["cases"]:
            (image,) = case["images"]
            first, *others = image["looks"]
            assert first["weight"] == 0
            assert sum(look["weight"] for look in others) == pytest.approx(1, abs=1e-5)
            # Of a square picture there are five by five squares of a third of its side, half overlapping.
            assert (image["first_looks"], image["closer_looks"]) == (1, 25)
            assert first["likelihood"] is None
            assert all(0 <= look["likelihood"] <= 1 for look in others[:25])
            assert all(look["likelihood"] > 0.05 for look in others[25:])
            assert first["rectangle"] == [0, 0, SIDE, SIDE]
            for left, top, side, high in (look["rectangle"] for look in others):
                assert side == high
                assert side <= SIDE
                assert left < SIDE
                assert top < SIDE
                assert min(left, top) + side > 0


def test_the_page_of_a_case_says_what_decided(run: Path) -> None:
    cases = [case for fold in range(2) for case in read(run / "folds" / str(fold) / "predictions.json")["cases"]]
    regions = {
        case["patient"]: len(image["looks"]) - image["first_looks"] - image["closer_looks"]
        for case in cases
        for image in case["images"]
    }
    pages = list((run / "cases").glob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        # A patient has one image here, so what decides has all the weight.
        assert "100\u00a0% of the weight in the decision" in text
        assert ("The dashed frame" in text) == (regions[page.stem] > 0)
        assert ("No region found" in text) == (regions[page.stem] == 0)


def test_what_was_learnt_is_not_learnt_again_for_another_seed(cohort: Path, run: Path, tmp_path: Path) -> None:
    watcher = Silent()
    other = SETTINGS.model_copy(update={"training": SETTINGS.training.model_copy(update={"seed": 1, "epochs": 1})})
    workflow.train(cohort, tmp_path / "run", config=other, watcher=watcher, threads=1)
    assert watcher.auxiliary_epochs == []
    assert read(tmp_path / "run" / "run.json")["auxiliary"] == read(run / "run.json")["auxiliary"]


def test_another_thread_count_is_refused_where_what_is_learnt_first_depends_on_it(cohort: Path, run: Path) -> None:
    with pytest.raises(RunError, match="threads = 1; now it is 2"):
        workflow.train(cohort, run, config=SETTINGS, watcher=Silent(), threads=2)


def test_the_bundle_finds_lesions_elsewhere_and_looks_where_it_is_told_to(
    run: Path, others: Path, tmp_path: Path
) -> None:
    found = workflow.evaluate(run / "bundle", others, tmp_path / "found").metrics
    told = workflow.evaluate(run / "bundle", others, tmp_path / "told", roi="box").metrics
    assert (found["roi"], told["roi"]) == ("none", "box")
    assert found["localisation"]["regions"]["found"]["value"] >= 0.4
    # Where a person has pointed, the network was not asked to find anything.
    assert "regions" not in told["localisation"]
    assert "lesion" in told["localisation"]
    assert "a person had marked" in (tmp_path / "told" / "report.html").read_text(encoding="utf-8")


def test_images_without_any_mark_are_predicted(run: Path, tmp_path: Path) -> None:
    unmarked = write_cohort(tmp_path / "unmarked", seed=5, others=0, boxes=False)
    metrics = workflow.evaluate(run / "bundle", unmarked, tmp_path / "evaluation").metrics
    assert metrics["localisation"] == {}
    assert metrics["patient"]["auc"]["value"] >= 0.8


def test_settings_follow_what_is_annotated(cohort: Path, tmp_path: Path) -> None:
    chosen = workflow.training_config(cohort)
    assert (chosen.preparation.roi, chosen.preparation.second_look, chosen.preparation.annotation) == (
        "none",
        True,
        "none",
    )
    assert not workflow.training_config(cohort, roi="box").preparation.second_look
    unmarked = write_cohort(tmp_path, seed=6, others=4, boxes=False)
    assert not workflow.training_config(unmarked).preparation.second_look


def test_a_second_look_follows_a_look_at_the_whole_image() -> None:
    with pytest.raises(ValueError, match="roi must be none"):
        PreparationConfig(roi="box", second_look=True)


@pytest.mark.slow
def test_a_whole_site_is_left_out(cohort: Path, tmp_path: Path) -> None:
    quick = {"split": "sites", "epochs": 1, "rehearsal": 0.0}
    settings = SETTINGS.model_copy(
        update={
            "auxiliary": AuxiliaryConfig(looks=0),
            "training": SETTINGS.training.model_copy(update=quick),
        }
    )
    study = workflow.train(cohort, tmp_path / "run", config=settings, watcher=Silent(), threads=1)
    splits = read(tmp_path / "run" / "folds.json")["splits"]
    assert sorted(split["group"] for split in splits) == sorted(SITES)
    assert [sum(split["test"]["patients"].values()) for split in splits] == [8, 8, 8]
    assert study.metrics["n_patients"] == 24


@pytest.mark.slow
def test_training_starts_from_a_local_file_of_weights(cohort: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trunk = DenseTrunk("densenet-tiny", 1)
    file = tmp_path / "weights.safetensors"
    save_file(_as_monai_spells(trunk), file)
    started = SETTINGS.network.model_copy(update={"pretrained": sha256_of_file(file)})
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "rehearsal": 0.0}
    settings = SETTINGS.model_copy(
        update={
            "network": started,
            "auxiliary": AuxiliaryConfig(looks=0),
            "training": SETTINGS.training.model_copy(update=still),
        }
    )
    workflow.train(cohort, tmp_path / "run", config=settings, weights=file, watcher=Silent(), threads=1)
    assert read_config(tmp_path / "run" / "config.toml").network.pretrained == sha256_of_file(file)
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "run" / "folds" / "0" / "member" / "weights.safetensors")
    # A rate of next to nothing leaves the weights where they started.
    np.testing.assert_allclose(
        kept["encoder.trunk.stem.0.weight"], trunk.get_parameter("stem.0.weight").detach(), atol=1e-6
    )
    with pytest.raises(ConfigError, match=r"no file was given.*--weights"):
        workflow.train(cohort, tmp_path / "other", config=settings, watcher=Silent(), threads=1)
    with pytest.raises(InputError, match="cannot be read: no such file"):
        workflow.training_config(cohort, weights=tmp_path / "none.safetensors")


def _as_monai_spells(trunk: DenseTrunk) -> dict[str, torch.Tensor]:
    """Spell a trunk's tensors as MONAI's DenseNet does."""
    numbered = {"blocks": "denseblock", "transitions": "transition"}
    stem = ("conv0", "norm0")
    spelt = {}
    for name, tensor in trunk.state_dict().items():
        first, rest = name.split(".", maxsplit=1)
        number, tail = rest.split(".", maxsplit=1)
        head = stem[int(number)] if first == "stem" else f"{numbered[first]}{int(number) + 1}"
        spelt[f"features.{head}.{tail}"] = tensor
    return spelt
