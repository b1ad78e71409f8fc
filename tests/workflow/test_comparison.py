"""Finished runs set beside each other."""

from __future__ import annotations

import csv
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from sklearn.metrics import roc_auc_score

from osteoscope import workflow
from osteoscope.config import Config, NetworkConfig, PreparationConfig, read_config
from osteoscope.errors import RunError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POSITIVE = "giant_cell_tumor"


@pytest.fixture
def make_run(run_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Lay the files of a finished run that differs from the trained one in network, seed or predictions."""

    def make(name: str, *, seed: int = 0, plain: bool = False, blur: float = 0.0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = read_config(run_folder / "config.toml")
        network = NetworkConfig(
            trunk="densenet-tiny", multiscale=False, attention=False, pooling="mean", width=16, heads=2
        )
        settings = Config(
            preparation=config.preparation.model_copy(update={"size": 64}),
            network=network if plain else config.network,
            training=config.training.model_copy(update={"seed": seed}),
        )
        (folder / "config.toml").write_text(settings.to_toml(), encoding="utf-8")
        for file in ("metrics.json", "run.json"):
            shutil.copy(run_folder / file, folder)
        with (run_folder / "oof.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        for place, row in enumerate(rows):
            share = float(row[f"p_{POSITIVE}"]) * (1 - blur) + blur * ((place * 7 + seed) % 11) / 10
            row[f"p_{POSITIVE}"], row["p_osteosarcoma"] = f"{share:.6f}", f"{1 - share:.6f}"
        with (folder / "oof.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return make


def auc_of(run: Path) -> float:
    with (run / "oof.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return float(
        roc_auc_score([row["label"] == POSITIVE for row in rows], [float(row[f"p_{POSITIVE}"]) for row in rows])
    )


def test_two_runs_are_set_beside_each_other_with_paired_figures(make_run: Callable[..., Path], tmp_path: Path) -> None:
    whole, blurred = make_run("whole"), make_run("blurred", plain=True, blur=0.9)
    made = workflow.compare([whole, blurred], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert written == made.comparison
    assert list(written["predictors"]) == ["optimised DenseNet-tiny", "plain DenseNet-tiny"]
    (pair,) = written["pairs"]
    assert pair["auc_difference"]["value"] == pytest.approx(auc_of(whole) - auc_of(blurred))
    assert pair["tests"]["delong"]["p_holm"] == pair["tests"]["delong"]["p_value"]
    assert written["over_seeds"] is None
    page = made.report.read_text(encoding="utf-8")
    assert "plain DenseNet-tiny" in page
    assert "One seed and one repeat" in page


def test_runs_that_differ_in_the_seed_alone_are_one_arm(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [
        make_run(f"{kind}{seed}", seed=seed, plain=kind == "b", blur=0.2 + 0.3 * (kind == "b"))
        for kind in "ab"
        for seed in (0, 1)
    ]
    lonely = make_run("a2", seed=2)
    made = workflow.compare([*runs, lonely], tmp_path / "out").comparison
    assert made["seeds"] == [0, 1]
    assert [arm["runs"] for arm in made["arms"].values()] == [["a0", "a1"], ["b0", "b1"]]
    over_seeds = made["over_seeds"]["arms"]["optimised DenseNet-tiny"]
    assert over_seeds["auc_by_seed"] == pytest.approx([auc_of(runs[0]), auc_of(runs[1])])
    mean = (auc_of(runs[0]) + auc_of(runs[1])) / 2
    assert over_seeds["auc"]["value"] == pytest.approx(mean)
    assert made["predictors"]["optimised DenseNet-tiny"]["auc"]["value"] == pytest.approx(mean)
    assert "Over seeds and patients" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_runs_that_cannot_be_compared_are_refused(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first, other_seed = make_run("first"), make_run("other", seed=5, plain=True)
    with pytest.raises(RunError, match="same settings: there is nothing to compare"):
        workflow.compare([first], tmp_path / "out")
    with pytest.raises(RunError, match="same settings and seed"):
        workflow.compare([first, first], tmp_path / "out")
    with pytest.raises(RunError, match="no seed in common"):
        workflow.compare([first, other_seed], tmp_path / "out")
    with pytest.raises(RunError, match="is not a run"):
        workflow.compare([first, tmp_path / "nowhere"], tmp_path / "out")
    fewer = make_run("fewer", plain=True)
    lines = (fewer / "oof.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (fewer / "oof.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(RunError, match="other patients, labels or repeats"):
        workflow.compare([first, fewer], tmp_path / "out")
    elsewhere = make_run("elsewhere", plain=True)
    text = (elsewhere / "oof.csv").read_text(encoding="utf-8")
    swapped = re.sub(r"(?m)^([^,]+,0),([01]),", lambda found: f"{found[1]},{1 - int(found[2])},", text)
    (elsewhere / "oof.csv").write_text(swapped, encoding="utf-8")
    with pytest.raises(RunError, match="in other folds"):
        workflow.compare([first, elsewhere], tmp_path / "out")
    unfinished = make_run("unfinished", plain=True)
    run = json.loads((unfinished / "run.json").read_text(encoding="utf-8"))
    (unfinished / "run.json").write_text(json.dumps({**run, "status": "unfinished"}), encoding="utf-8")
    with pytest.raises(RunError, match="is a run that is not finished"):
        workflow.compare([first, unfinished], tmp_path / "out")
    nan = make_run("nan", plain=True)
    text = (nan / "oof.csv").read_text(encoding="utf-8")
    share = lines[1].split(",")[4]
    (nan / "oof.csv").write_text(text.replace(share, "nan", 1), encoding="utf-8")
    with pytest.raises(RunError, match="is damaged"):
        workflow.compare([first, nan], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_was_pointed_at_the_lesion_is_told_from_one_that_was_not(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    runs = make_run("alone"), make_run("pointed")
    for run, at in zip(runs, ("found", "box"), strict=True):
        config = read_config(run / "config.toml")
        reads = PreparationConfig(size=config.preparation.size, second_look=True, second_look_at=at)
        text = config.model_copy(update={"preparation": reads}).to_toml()
        (run / "config.toml").write_text(text, encoding="utf-8")
    made = workflow.compare(runs, tmp_path / "out")
    assert sorted(arm["roi"] for arm in made.comparison["arms"].values()) == ["box", "none"]


def test_runs_that_would_be_called_the_same_are_refused(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    runs = [make_run("a/run"), make_run("b/run"), make_run("plain", plain=True)]
    config = read_config(runs[0] / "config.toml")
    smaller = config.model_copy(update={"preparation": config.preparation.model_copy(update={"size": 32})})
    (runs[0] / "config.toml").write_text(smaller.to_toml(), encoding="utf-8")
    with pytest.raises(RunError, match=r"is called optimised DenseNet-tiny \(run\).*rename its folder"):
        workflow.compare(runs, tmp_path / "out")


def test_a_folder_that_holds_something_else_is_kept(make_run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError):
        workflow.compare([make_run("a"), make_run("b", plain=True)], tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text(encoding="utf-8") == "mine"
