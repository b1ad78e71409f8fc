"""Auxiliary images beside the cases: what is drawn, what starts from where, and what it does to a fold's network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from samples import Silent, auxiliary_images

from osteoscope.cohort.table import Case
from osteoscope.config import AuxiliaryConfig, Config, NetworkConfig, PreparationConfig, TrainingConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training import fit as fit_module
from osteoscope.training.auxiliary import Learnt, learn
from osteoscope.training.device import Device, deterministic
from osteoscope.training.fit import FitPlan, _Batch, _dealt, _shares, fit
from osteoscope.training.lesion_loss import silence_loss
from osteoscope.training.planes import Kind, load_cases
from osteoscope.training.questions import QuestionHeads, QuestionLogits, question_loss
from osteoscope.training.rehearsal import Rehearsal, auxiliary_facts, beside, rehearsal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.training.augment import Seen
    from osteoscope.training.planes import CaseStore
    from osteoscope.training.questions import Answers

TINY = Config(
    preparation=PreparationConfig(size=32, second_look=True),
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2, dropout=0),
    auxiliary=AuxiliaryConfig(looks=16, batch_size=8, averaging=0.5),
    training=TrainingConfig(epochs=2, batch_size=4, precision="32-true", rehearsal=2),
)
CPU = Device(kind="cpu", name="cpu", precision="32-true", threads=1)


def cases_of(images: list[Auxiliary]) -> list[Case]:
    """Take pictures as cases of two classes, one picture each, half of them of a site that no auxiliary image shows."""
    return [
        Case(
            patient=f"case{place}",
            label=place % 2,
            age=None,
            sex=None,
            site=("femur", "skull")[place % 2],
            level=None,
            images=(one.image,),
        )
        for place, one in enumerate(images)
    ]


def store_of(images: list[Auxiliary]) -> CaseStore:
    """Load those cases."""
    return load_cases(cases_of(images), TINY.preparation)


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
    prepared = rehearsal_of(images, learnt, TINY, cases=cases_of(images))
    assert prepared is not None
    return prepared


def test_without_a_share_nothing_is_rehearsed(images: list[Auxiliary], learnt: Learnt) -> None:
    none = TINY.model_copy(update={"training": TINY.training.model_copy(update={"rehearsal": 0.0})})
    assert rehearsal_of(images, learnt, none, cases=cases_of(images)) is None


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
    # Either kind is half of the images that were learnt from, and the share is added to the logits later.
    expected["kind.bias"] -= torch.log(torch.tensor(0.5))
    assert {name: tensor.tolist() for name, tensor in heads.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


def test_answers_that_nobody_learnt_start_alike_in_every_attempt_and_otherwise_in_another_fold(
    images: list[Auxiliary], tmp_path: Path
) -> None:
    rehearsal = rehearsal_of(images, None, TINY, cases=cases_of(images))
    assert rehearsal is not None
    store = store_of(images)

    def fitted_in(fold: int, name: str) -> torch.Tensor:
        torch.manual_seed(0)
        network = TumourNetwork(TINY.network, classes=2)
        settings = TINY.training.model_copy(update={"epochs": 1})
        plan = FitPlan(
            store=store, cases=np.arange(8), classes=2, settings=settings, stream=(0, fold), rehearsal=rehearsal
        )
        # What anybody drew before must not count.
        torch.rand(len(name))
        with deterministic(1):
            fit(network, plan, fabric=CPU.fabric(), folder=tmp_path / name, watcher=Silent().epoch_done)
        return weights_of(network)

    once = fitted_in(0, "once")
    assert torch.equal(once, fitted_in(0, "again, later"))
    assert not torch.equal(once, fitted_in(1, "another"))


def test_what_is_told_of_a_run_is_what_it_learns_first_and_beside(images: list[Auxiliary], learnt: Learnt) -> None:
    counted = {
        "images": 16,
        "patients": 16,
        "kinds": {"chondroma": 8, "osteochondroma": 8},
        "sites": {"femur": 8, "tibia": 8},
        "views": {"frontal": 8, "lateral": 8},
    }
    first = {"fingerprint": learnt.fingerprint, **counted, "minutes": learnt.minutes}
    assert auxiliary_facts(images, learnt, share=2) == {**first, "beside": 2}
    assert auxiliary_facts(images, learnt, share=0) == {**first, "beside": 0}
    assert auxiliary_facts(images, None, share=2) == {**counted, "minutes": 0, "beside": 2}
    with pytest.raises(ValueError, match="something that is learnt"):
        auxiliary_facts(images, None, share=0)


def fitted(
    cases: CaseStore, rehearsal: Rehearsal | None, learnt: Learnt, folder: Path, *, seed: int = 0, **settings: float
) -> TumourNetwork:
    torch.manual_seed(seed)
    network = TumourNetwork(TINY.network, classes=2)
    learnt.teach(network.encoder)
    plan = FitPlan(
        store=cases,
        cases=np.arange(8),
        classes=2,
        settings=TINY.training.model_copy(update=settings),
        stream=(0, seed),
        rehearsal=rehearsal,
    )
    with deterministic(1):
        fit(network, plan, fabric=CPU.fabric(), folder=folder, watcher=Silent().epoch_done)
    return network


def test_of_cases_their_classes_are_the_first_kinds_and_the_others_are_counted_on_behind(
    rehearsal: Rehearsal,
) -> None:
    answers = rehearsal.answers(torch.tensor([0, 3]), torch.tensor([0, 1, 2]), classes=2)
    # Auxiliary kinds by name: chondroma 0, osteochondroma 1; sites: femur, tibia.
    assert answers.kinds.tolist() == [0, 1, 3, 2, 3]
    assert answers.sites.tolist() == [[1, 0], [0, 0], [1, 0], [1, 0], [0, 1]]
    assert answers.views.tolist() == [0, 1, 0, 0, 1]


def test_the_shares_of_classes_and_kinds_are_those_of_what_is_drawn(rehearsal: Rehearsal) -> None:
    # Two auxiliary images for each of a case, half of either kind: a third of all is cases.
    shares = rehearsal.log_shares(torch.tensor([0.75, 0.25])).exp()
    torch.testing.assert_close(shares, torch.tensor([3, 1, 4, 4]) / 12)


def test_an_image_of_unknown_kind_has_no_share_since_its_kind_is_not_asked(rehearsal: Rehearsal) -> None:
    lessons = rehearsal.lessons
    known = lessons.answers.kinds
    half = replace(lessons, answers=replace(lessons.answers, kinds=torch.where(known == 0, -1, known)))
    # Of three images drawn one is of a case, and one of a kind that is known.
    shares = replace(rehearsal, lessons=half).log_shares(torch.tensor([0.75, 0.25])).exp()
    torch.testing.assert_close(shares[[0, 1, 3]], torch.tensor([3, 1, 4]) / 8)


def test_where_looks_are_judged_one_by_one_a_patient_of_two_images_counts_twice(images: list[Auxiliary]) -> None:
    store = store_of(images)
    several = tuple(torch.tensor([place, 0, 1][: 1 + 2 * (place > 11)]) for place in range(16))
    store = replace(store, labels=torch.tensor([0] * 12 + [1] * 4), images=several)
    plan = FitPlan(store=store, cases=np.arange(16), classes=2, settings=TINY.training, stream=(0, 0))
    # Of three images two are looked at.
    torch.testing.assert_close(_shares(plan, by_look=True), torch.tensor([12, 8]) / 20)
    torch.testing.assert_close(_shares(plan, by_look=False), torch.tensor([12, 4]) / 16)


def test_a_fold_starts_from_what_was_learnt_of_kinds_with_their_shares_counted_once(
    rehearsal: Rehearsal, learnt: Learnt
) -> None:
    known = rehearsal.lessons.answers.kinds
    uneven = replace(rehearsal.lessons.answers, kinds=torch.where(torch.arange(len(known)) < 12, 0, 1))
    uneven_rehearsal = replace(rehearsal, learnt=learnt, lessons=replace(rehearsal.lessons, answers=uneven))
    vectors = torch.rand(5, 16, generator=torch.Generator().manual_seed(0))
    as_learnt = QuestionHeads(16, uneven)
    learnt.teach_questions(as_learnt)
    kinds = uneven_rehearsal.heads(16)(vectors).kinds + uneven_rehearsal.log_shares(torch.tensor([0.5, 0.5]))[2:]
    torch.testing.assert_close(kinds.softmax(dim=1), as_learnt(vectors).kinds.softmax(dim=1))


def test_a_class_without_an_auxiliary_kind_beside_it_has_a_finite_share(rehearsal: Rehearsal) -> None:
    lessons = rehearsal.lessons
    unknown = replace(lessons.answers, kind_names=(), kinds=torch.full_like(lessons.answers.kinds, -1))
    lonely = replace(rehearsal, lessons=replace(lessons, answers=unknown))
    shares = lonely.log_shares(torch.tensor([0.5, 0.5]))
    assert shares.isfinite().all()
    assert len(shares) == 3


def test_every_look_is_judged_by_itself_among_all_kinds_and_none_that_is_elsewhere(
    images: list[Auxiliary], rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.Tensor, list[int], list[int]]] = []

    def noted(logits: QuestionLogits, answers: Answers, looks: torch.Tensor, **others: Any) -> torch.Tensor:
        asked.append((logits.kinds.detach(), answers.kinds.tolist(), looks.tolist()))
        return question_loss(logits, answers, looks, **others)

    alone: list[torch.Tensor] = []
    parts: list[float] = []

    def silent(logits: torch.Tensor, seen: Seen) -> torch.Tensor:
        alone.append(logits.detach())
        return silence_loss(logits, seen)

    def of_the_loss(part: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def said(*given: Any, **others: Any) -> torch.Tensor:
            value = part(*given, **others)
            parts.append(value.item())
            return value

        return said

    monkeypatch.setattr(fit_module, "question_loss", of_the_loss(noted))
    monkeypatch.setattr(fit_module, "silence_loss", of_the_loss(silent))
    for name in ("lesion_loss", "presence_loss"):
        monkeypatch.setattr(fit_module, name, of_the_loss(getattr(fit_module, name)))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, *[0] * 10])
    store, of_cases = replace(store_of(images), labels=labels), replace(rehearsal.of_cases, kinds=labels)
    torch.manual_seed(0)
    network = TumourNetwork(TINY.network, classes=2)
    plan = FitPlan(
        store=store,
        cases=np.arange(6),
        classes=2,
        settings=TINY.training.model_copy(update={"epochs": 1, "batch_size": 6}),
        stream=(0, 0),
        rehearsal=replace(rehearsal, of_cases=of_cases),
    )
    with deterministic(1):
        history = fit(network, plan, fabric=CPU.fabric(), folder=tmp_path, watcher=Silent().epoch_done)
    ((logits, kinds, looks),) = asked
    assert logits.shape == (len(kinds), 4)
    # Of six cases a square with the lesion or the whole image; behind them twelve auxiliary images, kinds 2 and 3.
    speaking = [kind for kind, look in zip(kinds, looks, strict=True) if look == Kind.REGION]
    assert set(kinds) == {0, 1, 2, 3}
    assert len(speaking) <= 18
    # To what each look says by itself is added how frequent each class is among what is drawn: of three, one is a case.
    prior = torch.log(torch.tensor([4 / 6, 2 / 6]) / 3)
    torch.testing.assert_close(logits[:, :2] - alone[0], prior.expand(len(logits), 2))
    # By hand: cross-entropy over the four, smoothed by 0.05, of all looks but those elsewhere, is in the loss.
    shown = torch.tensor([look != Kind.ELSEWHERE for look in looks])
    likely = torch.log_softmax(logits.double()[shown], dim=1)
    of_answer = likely.gather(1, torch.tensor(kinds)[shown][:, None]).mean()
    by_hand = -(0.95 * of_answer + 0.05 * likely.mean())
    assert len(parts) == 4
    assert parts[-1] > float(by_hand) > 0
    assert history[0]["loss"] == pytest.approx(sum(parts), rel=1e-6)
    # What is shown beside the loss is of the cases' looks that teach the class.
    own = next(place for place, kind in enumerate(kinds) if kind > 1)
    scores = (logits[:own, 1] - logits[:own, 0])[shown[:own]].double()
    told = torch.tensor(kinds[:own])[shown[:own]]
    above = (scores[told == 1][:, None] > scores[told == 0][None, :]).double().mean()
    assert Kind.ELSEWHERE in looks[:own]
    assert history[0]["training_auc"] == pytest.approx(float(above))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_as_the_settings_say_in_a_rehearsal_too(
    smoothing: float,
    images: list[Auxiliary],
    rehearsal: Rehearsal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def noted(*args: Any, **others: Any) -> torch.Tensor:
        asked.append(others["smoothing"])
        return question_loss(*args, **others)

    monkeypatch.setattr(fit_module, "question_loss", noted)
    settings = TINY.training.model_copy(update={"epochs": 1, "batch_size": 6, "label_smoothing": smoothing})
    plan = FitPlan(
        store=store_of(images), cases=np.arange(6), classes=2, settings=settings, stream=(0, 0), rehearsal=rehearsal
    )
    with deterministic(1):
        network = TumourNetwork(TINY.network, classes=2)
        fit(network, plan, fabric=CPU.fabric(), folder=tmp_path, watcher=Silent().epoch_done)
    assert asked == [smoothing]


def test_kinds_and_views_are_smoothed_and_body_sites_are_not(rehearsal: Rehearsal) -> None:
    first = torch.arange(16) < 1
    answers = rehearsal.lessons.answers.at(first)
    one = QuestionLogits(
        kinds=torch.tensor([[0.5, -1.0]]),
        sites=torch.zeros(1, answers.sites.shape[1]),
        views=torch.zeros(1, max(1, len(answers.view_names))),
    )
    likely = torch.log_softmax(one.kinds.double(), dim=1)[0]
    expected = [-(1 - by) * likely[int(answers.kinds)] - by * likely.mean() for by in (0.0, 0.3)]
    found = [question_loss(one, answers, torch.tensor([Kind.FIRST]), smoothing=by).double() for by in (0.0, 0.3)]
    # The answers about sites and views are even, so that smoothing leaves what they cost as it is.
    assert float(found[1] - found[0]) == pytest.approx(float(expected[1] - expected[0]), abs=1e-6)


def test_on_squares_auxiliary_images_teach_where_lesions_are_and_nothing_else(
    images: list[Auxiliary], rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[_Batch] = []
    batches = fit_module._batches

    def noted(*args: Any) -> Iterator[_Batch]:
        for batch in batches(*args):
            drawn.append(batch)
            yield batch

    monkeypatch.setattr(fit_module, "_batches", noted)

    def last_batch(share: float) -> _Batch:
        """Of one epoch among all kinds and one on squares, six cases of one image each in a step."""
        changed = {"epochs": 1, "batch_size": 6, "closer_epochs": 1, "closer_rehearsal": share}
        settings = TINY.training.model_copy(update=changed)
        plan = FitPlan(
            store=store_of(images), cases=np.arange(6), classes=2, settings=settings, stream=(0, 0), rehearsal=rehearsal
        )
        network = TumourNetwork(TINY.network, classes=2)
        with deterministic(1):
            fit(network, plan, fabric=CPU.fabric(), folder=tmp_path / str(share), watcher=Silent().epoch_done)
        assert drawn[-2].answers is not None
        return drawn[-1]

    alone, beside = last_batch(0.0), last_batch(1.5)
    own = len(alone.seen.images)
    for batch in (alone, beside):
        assert batch.answers is None
        assert len(batch.labels) == 6
        # Each case has one look that speaks; squares elsewhere have no say.
        assert batch.membership[:, :own].sum(dim=1).tolist() == [1] * 6
        assert Kind.FIRST not in batch.seen.kinds[:own].tolist()
    # The cases' looks are the same ones, and behind them lie nine auxiliary images, some of which are seen whole.
    assert beside.seen.images[:own].tolist() == alone.seen.images.tolist()
    others = beside.seen.kinds[own:].tolist()
    assert others.count(Kind.REGION) + others.count(Kind.FIRST) == 9
    assert 0 < others.count(Kind.FIRST) < 9
    assert beside.seen.marked.all()
    assert not beside.membership[:, own:].any()


def test_patients_of_rare_classes_are_dealt_out_again_far_from_themselves(images: list[Auxiliary]) -> None:
    store = replace(store_of(images), labels=torch.tensor([0] * 12 + [1] * 4))
    for balance, times in [(0.0, 1), (0.5, 2), (1.0, 3)]:
        plan = FitPlan(
            store=store,
            cases=np.arange(16),
            classes=2,
            settings=TINY.training.model_copy(update={"balance": balance}),
            stream=(0, 0),
        )
        order = np.random.default_rng(0).permutation(16)
        dealt = _dealt(order, plan)
        assert sorted(dealt.tolist()) == sorted([*range(12), *[12, 13, 14, 15] * times])
        # What is dealt once stays in the order given.
        assert [case for case in dealt if case < 12] == [case for case in order if case < 12]
        for rare in range(12, 16):
            gaps = np.diff(np.flatnonzero(dealt == rare))
            assert (gaps >= len(dealt) // times - times).all()
        expected = torch.tensor([12, 4 * times]) / (12 + 4 * times)
        torch.testing.assert_close(_shares(plan, by_look=False), expected)
    assert balance == 1.0
    assert _dealt(np.arange(16), replace(plan, settings=TINY.training)).tolist() == list(range(16))


def weights_of(network: TumourNetwork) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().float() for tensor in network.state_dict().values()])


def test_what_is_rehearsed_is_not_forgotten_and_what_is_not_is(
    images: list[Auxiliary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    longer = TINY.model_copy(update={"auxiliary": TINY.auxiliary.model_copy(update={"looks": 240})})
    with deterministic(1):
        learnt = learn(images, longer, fallback=tmp_path, device=CPU, watcher=Silent().auxiliary_epoch)
    rehearsal = rehearsal_of(images, learnt, longer, cases=cases_of(images))
    assert rehearsal is not None
    lessons, heads = rehearsal.lessons, rehearsal.heads(16)
    planes = torch.nn.functional.interpolate(lessons.store.canvases[:16].float(), size=32)

    def right(rehearsed: Rehearsal | None, seed: int) -> float:
        """Share of the kinds that the answers learnt before still get right after a fit at a high rate."""
        folder = tmp_path / f"{seed} {rehearsed is not None}"
        changed = {"epochs": 16, "learning_rate": 1e-2, "averaging": 0.5}
        network = fitted(store_of(images), rehearsed, learnt, folder, seed=seed, **changed)
        with torch.no_grad():
            answered = heads(network.eval().encoder(planes).vectors).kinds.argmax(dim=1)
        return float((answered == lessons.answers.kinds).float().mean())

    # One fit may forget nothing by luck.
    with_it, without = (np.mean([right(one, seed) for seed in range(2)]) for one in (rehearsal, None))
    assert with_it > 0.8
    assert without < with_it - 0.2


def test_a_fold_that_was_killed_goes_on_with_its_rehearsal_to_the_same_bits(
    images: list[Auxiliary], rehearsal: Rehearsal, learnt: Learnt, tmp_path: Path
) -> None:
    cases = store_of(images)
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
