"""Auxiliary images beside the cases: what is drawn, what starts from where, and what it does to a fold's network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from samples import Silent, auxiliary_images

from osteoscope.config import AuxiliaryConfig, Config, NetworkConfig, PreparationConfig, TrainingConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.auxiliary import Learnt, learn
from osteoscope.training.device import Device, deterministic
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.planes import CaseStore
from osteoscope.training.questions import load_lessons
from osteoscope.training.rehearsal import Rehearsal, beside, rehearsal_of

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.table import Auxiliary

TINY = Config(
    preparation=PreparationConfig(size=32, second_look=True),
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2, dropout=0),
    auxiliary=AuxiliaryConfig(looks=16, batch_size=8, averaging=0.5),
    training=TrainingConfig(epochs=2, batch_size=4, precision="32-true", rehearsal=2),
)
CPU = Device(kind="cpu", name="cpu", precision="32-true", threads=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Auxiliary]:
    return auxiliary_images(tmp_path_factory.mktemp("auxiliary"))


@pytest.fixture
def learnt(images: list[Auxiliary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learnt:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    with deterministic(1):
        return learn(images, TINY, fallback=tmp_path, device=CPU, watcher=Silent().auxiliary_epoch)


@pytest.fixture
def rehearsal(images: list[Auxiliary], learnt: Learnt) -> Rehearsal:
    prepared = rehearsal_of(images, learnt, TINY)
    assert prepared is not None
    return prepared


def test_without_a_share_nothing_is_rehearsed(images: list[Auxiliary], learnt: Learnt) -> None:
    none = TINY.model_copy(update={"training": TINY.training.model_copy(update={"rehearsal": 0.0})})
    assert rehearsal_of(images, learnt, none) is None


def test_as_many_images_as_asked_for_are_looked_at_beside_the_cases(rehearsal: Rehearsal) -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    drawn = [rehearsal.see(10, rng=rng, generator=generator) for _ in range(40)]
    # Every image has a lesion, so one of its looks speaks.
    assert {int(seen.speak.sum()) for seen in drawn} == {20}
    counts = torch.bincount(torch.cat([seen.images[seen.speak] for seen in drawn]), minlength=16)
    # 800 draws over 16 images: 50 each, with a standard deviation of 7.
    assert counts.sum() == 800
    assert int(counts.min()) > 50 - 5 * 7
    assert int(counts.max()) < 50 + 5 * 7
    together, own = beside(drawn[0], drawn[1]), len(drawn[0].planes)
    assert together.planes.shape == (own + len(drawn[1].planes), 1, 32, 32)
    for name in ("planes", "lesions", "marked", "images", "kinds", "speak"):
        assert torch.equal(getattr(together, name)[:own], getattr(drawn[0], name))
        assert torch.equal(getattr(together, name)[own:], getattr(drawn[1], name))


def test_the_answers_start_from_what_was_learnt(rehearsal: Rehearsal, learnt: Learnt) -> None:
    heads = rehearsal.heads(16)
    expected = load_file(learnt.folder / "questions.safetensors")
    assert {name: tensor.tolist() for name, tensor in heads.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


def cases_of(images: list[Auxiliary]) -> CaseStore:
    """Take pictures as cases of two classes, one picture each."""
    planes = load_lessons(images, TINY.preparation).store
    places = tuple(torch.tensor([place]) for place in range(len(images)))
    return CaseStore(planes=planes, images=places, labels=torch.arange(len(images)) % 2)


def fitted(
    cases: CaseStore, rehearsal: Rehearsal | None, learnt: Learnt, folder: Path, epochs: int = 2
) -> TumourNetwork:
    torch.manual_seed(0)
    network = TumourNetwork(TINY.network, classes=2)
    learnt.teach(network.encoder)
    settings = TINY.training.model_copy(update={"epochs": epochs})
    plan = FitPlan(
        store=cases,
        cases=np.arange(8),
        covariates=None,
        classes=2,
        settings=settings,
        stream=(0, 0),
        rehearsal=rehearsal,
        checkpoint_every=1,
    )
    with deterministic(1):
        fit(network, plan, fabric=CPU.fabric(), folder=folder, watcher=Silent().epoch_done)
    return network


def weights_of(network: TumourNetwork) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().float() for tensor in network.state_dict().values()])


def test_what_is_rehearsed_keeps_a_fold_near_to_what_was_learnt(
    images: list[Auxiliary], rehearsal: Rehearsal, learnt: Learnt, tmp_path: Path
) -> None:
    cases = cases_of(images)
    with_it = fitted(cases, rehearsal, learnt, tmp_path / "with", epochs=6)
    without = fitted(cases, None, learnt, tmp_path / "without", epochs=6)
    lessons, heads = rehearsal.lessons, rehearsal.heads(16)
    planes = torch.nn.functional.interpolate(lessons.store.canvases[:16].float(), size=32)

    def right(network: TumourNetwork) -> float:
        with torch.no_grad():
            answered = heads(network.eval().encoder(planes).vectors).kinds.argmax(dim=1)
        return float((answered == lessons.answers.kinds).float().mean())

    assert not torch.equal(weights_of(with_it), weights_of(without))
    assert right(with_it) >= right(without)


def test_a_fold_that_was_killed_goes_on_with_its_rehearsal_to_the_same_bits(
    images: list[Auxiliary], rehearsal: Rehearsal, learnt: Learnt, tmp_path: Path
) -> None:
    cases = cases_of(images)
    whole = fitted(cases, rehearsal, learnt, tmp_path / "whole")

    class KillError(Exception):
        """The process is gone."""

    def kill(*, epoch: int, **_: object) -> None:
        if epoch == 1:
            raise KillError

    torch.manual_seed(0)
    network = TumourNetwork(TINY.network, classes=2)
    learnt.teach(network.encoder)
    plan = FitPlan(
        store=cases,
        cases=np.arange(8),
        covariates=None,
        classes=2,
        settings=TINY.training,
        stream=(0, 0),
        rehearsal=rehearsal,
        checkpoint_every=1,
    )
    with deterministic(1), pytest.raises(KillError):
        fit(network, plan, fabric=CPU.fabric(), folder=tmp_path / "killed", watcher=kill)
    resumed = fitted(cases, rehearsal, learnt, tmp_path / "killed")
    assert torch.equal(weights_of(whole), weights_of(resumed))
