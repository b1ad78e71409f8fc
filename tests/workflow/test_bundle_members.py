"""What a bundle holds: one network that learnt from all patients, or those of the folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from samples import Silent

from osteoscope import workflow
from osteoscope.bundle.load import load_bundle
from osteoscope.inference.predictor import load_predictor

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config


@pytest.fixture(scope="module")
def run(cohort_folder: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the run that all tests share, but for what its bundle holds."""
    training = tiny_config.training.model_copy(update={"members": "one"})
    folder = tmp_path_factory.mktemp("one") / "run"
    config = tiny_config.model_copy(update={"training": training})
    workflow.train(cohort_folder, folder, config=config, watcher=Silent(), threads=1)
    return folder


def test_one_network_that_left_nobody_out_is_the_default(run: Path, tiny_config: Config) -> None:
    assert type(tiny_config.training)().members == "one"
    (member,) = load_bundle(run / "bundle").manifest.members
    assert member.fold is None
    assert len(load_predictor(load_bundle(run / "bundle")).members) == 1


def test_what_the_folds_say_does_not_depend_on_it(run: Path, run_folder: Path) -> None:
    assert (run / "oof.csv").read_bytes() == (run_folder / "oof.csv").read_bytes()


def test_it_is_another_network_than_any_of_the_folds(run: Path) -> None:
    name = "head.linear.weight"
    own = load_file(run / "bundle" / "members" / "0" / "weights.safetensors")[name]
    of_folds = [load_file(run / "folds" / fold / "member" / "weights.safetensors")[name] for fold in "01"]
    assert not any(torch.equal(own, other) for other in of_folds)


def test_a_run_that_is_done_is_not_fitted_again(run: Path, cohort_folder: Path, tiny_config: Config) -> None:
    before = (run / "bundle" / "members" / "0" / "weights.safetensors").stat().st_ino
    training = tiny_config.training.model_copy(update={"members": "one"})
    watcher = Silent()
    config = tiny_config.model_copy(update={"training": training})
    workflow.train(cohort_folder, run, config=config, watcher=watcher, threads=1)
    assert watcher.epochs == []
    # The bundle itself is written anew.
    assert (run / "bundle" / "members" / "0" / "weights.safetensors").stat().st_ino != before


def test_the_card_says_what_it_holds(run: Path, run_folder: Path) -> None:
    assert "One network" in (run / "bundle" / "MODEL_CARD.md").read_text()
    assert "2 networks" in (run_folder / "bundle" / "MODEL_CARD.md").read_text()
