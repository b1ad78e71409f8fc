"""Fitting one network to the training part of one fold."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from osteoscope.training.augment import see
from osteoscope.training.epochs import Descent, first_weights, learning_rate, run_epochs
from osteoscope.training.lesion_loss import lesion_loss, presence_loss, silence_loss
from osteoscope.training.planes import Kind
from osteoscope.training.questions import question_loss
from osteoscope.training.rehearsal import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from osteoscope.config import TrainingConfig
    from osteoscope.network.classifier import TumourNetwork
    from osteoscope.training.augment import Seen
    from osteoscope.training.planes import CaseStore, PlaneStore
    from osteoscope.training.questions import Answers, QuestionHeads, QuestionLogits
    from osteoscope.training.rehearsal import Rehearsal


CLOSER_FOLDER = "closer"
"""Where, in a fit's folder, the checkpoints of its epochs on squares lie."""


class EpochWatcher(Protocol):
    """Is told of each epoch done; for progress only, nothing is decided by it."""

    def __call__(self, *, epoch: int, epochs: int, loss: float, training_auc: float | None) -> None:
        """Take note of an epoch: `epoch` of `epochs` are done."""


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What one fit is made from."""

    store: CaseStore
    cases: NDArray[np.intp]
    """Places of the training cases in the store."""
    classes: int
    settings: TrainingConfig
    stream: tuple[int, ...]
    """What the random numbers are seeded from: the run's seed and the fold."""
    rehearsal: Rehearsal | None = None
    """What is learnt from beside the cases; None where nothing is."""
    checkpoint_every: int = 5
    """Epochs between two checkpoints."""
    begun: int = 0
    """Epochs of this fit that went before by another schedule; what is drawn at random goes on behind them."""

    def closer(self) -> FitPlan | None:
        """Plan what follows: the classes, told apart by squares that hold a lesion alone; None where nothing does.

        Squares of auxiliary images beside them teach where lesions are, and nothing else.

        An image without an annotated lesion is still seen whole.
        """
        settings = self.settings
        if not settings.closer_epochs:
            return None
        changed = {
            "epochs": settings.closer_epochs,
            "closer_epochs": 0,
            "augmentation": settings.augmentation.of_squares(),
        }
        rehearsal = None if self.rehearsal is None else self.rehearsal.closer(settings.closer_rehearsal)
        return replace(
            self, settings=settings.model_copy(update=changed), rehearsal=rehearsal, begun=self.begun + settings.epochs
        )


@dataclass(frozen=True, kw_only=True)
class _Batch:
    seen: Seen
    """Looks at cases, and behind them those at auxiliary images."""
    membership: Tensor
    """(patients, planes), True where a look at a patient has a say in the class; in a rehearsal each look is judged as
    if it were all there is of a patient."""
    labels: Tensor
    """(patients,); in a rehearsal (looks at cases,)."""
    taught: Tensor
    """As `labels`, bool: those from which the class is learnt."""
    answers: Answers | None
    """Of what each look shows, the classes being the first kinds; None without a rehearsal."""


class _Read(NamedTuple):
    logits: Tensor
    """(patients, classes)."""
    lesions: Tensor
    """(planes, h, w)."""
    presence: Tensor | None
    """(planes,), the logit of each showing a lesion."""
    alone: Tensor
    """(planes, classes), what each plane says by itself."""
    answers: QuestionLogits | None
    """Of all planes."""


class _Pupil(nn.Module):
    """A tumour network, and its answers to what auxiliary images are asked."""

    def __init__(self, network: TumourNetwork, questions: QuestionHeads | None) -> None:
        super().__init__()
        self.network = network
        self.questions = questions

    def forward(self, planes: Tensor, membership: Tensor) -> _Read:
        reading = self.network.encoder(planes)
        return _Read(
            logits=self.network.head.of_images(reading.scores, reading.vectors, membership).logits,
            lesions=reading.lesions,
            presence=self.network.encoder.presence(reading.vectors),
            alone=self.network.head.linear(reading.vectors),
            answers=None if self.questions is None else self.questions(reading.vectors),
        )


def fit(
    network: TumourNetwork, plan: FitPlan, *, fabric: Fabric, folder: Path, watcher: EpochWatcher
) -> list[dict[str, Any]]:
    """Fit the network in place, going on from a checkpoint in `folder` if there is one.

    The loss is cross-entropy with logit adjustment (Menon et al., ICLR 2021): the logarithm of each class's share of
    the training patients is added to the logits, so that what the network learns is free of the class prior, and a rare
    class is not drowned. The class is learnt from whole images and, where lesions are annotated, from squares that hold
    one; from both the network learns where lesions are (`lesion_loss`), and from other parts of the same images what is
    none (`presence_loss`), and to say nothing of the class there (`silence_loss`). Of a volume the class is learnt from
    the planes that show the lesion, and from the others what is none; of several modalities, from all of them in one
    bag. With a rehearsal, auxiliary images lie beside the cases in every step, every look but those elsewhere is judged
    by itself, and the classes are kinds among their kinds. Where `closer_epochs` says so, it then goes on from the
    averaged weights with squares that hold a lesion alone (`FitPlan.closer`). No labelled patient outside of
    `plan.cases` is looked at; nothing is selected by results.

    Parameters
    ----------
    network
        Freshly built from the run's seed; at the end it holds the averaged weights.
    plan
        Data and settings.
    fabric
        Device and precision.
    folder
        Where checkpoints lie.
    watcher
        Is told of each epoch.

    Raises
    ------
    RunError
        If the loss is no longer a number; the checkpoint before stays.

    Returns
    -------
    list
        For each epoch its loss, last learning rate, training AUC (None for more than two classes or one class),
        seconds, and those of them that the network took (on a GPU: that its work took to be queued).
    """
    closer = plan.closer()
    parts = [(plan, folder)] if closer is None else [(plan, folder), (closer, folder / CLOSER_FOLDER)]
    epochs = sum(part.settings.epochs for part, _ in parts)
    history: list[dict[str, Any]] = []
    for part, lies_in in parts:
        before = len(history)

        def tell(done: int, record: dict[str, Any], before: int = before) -> None:
            watcher(epoch=before + done, epochs=epochs, loss=record["loss"], training_auc=record["training_auc"])

        records = _fit_part(network, part, fabric=fabric, folder=lies_in, watcher=tell)
        history += [{**record, "epoch": before + record["epoch"]} for record in records]
    return history


def _fit_part(
    network: TumourNetwork,
    plan: FitPlan,
    *,
    fabric: Fabric,
    folder: Path,
    watcher: Callable[[int, dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Fit the network by one schedule, and give it the averaged weights."""
    fitter = _Fitter(network, plan, fabric)
    history = run_epochs(
        fitter.descent.state(folder),
        fitter.epoch,
        epochs=plan.settings.epochs,
        checkpoint_every=plan.checkpoint_every,
        watcher=watcher,
    )
    learnt: _Pupil = fitter.descent.average.module  # type: ignore[assignment]
    network.load_state_dict(learnt.network.state_dict())
    return history


class _Fitter:
    """A network on its way down, and the plan that it is fitted to."""

    def __init__(self, network: TumourNetwork, plan: FitPlan, fabric: Fabric) -> None:
        self._plan = plan
        self._planes = plan.store.planes.on(fabric.device)
        self._rehearsal = None if plan.rehearsal is None else plan.rehearsal.on(fabric.device)
        asking = None if plan.rehearsal is None or not plan.rehearsal.asked else plan.rehearsal
        with first_weights(plan.stream, part=(1,)):
            questions = None if asking is None else asking.heads(network.encoder.map_channels)
        self.descent = Descent(_Pupil(network, questions), plan.settings, fabric)
        # Where each look is judged by itself, a patient counts as often as it is looked at.
        shares = _shares(plan, by_look=asking is not None)
        log_prior = torch.log(shares) if asking is None else asking.log_shares(shares)
        self._log_prior = log_prior.to(fabric.device)

    def epoch(self, number: int) -> dict[str, Any]:
        """Do one epoch, counted from 0, and give its record."""
        started = time.perf_counter()
        plan, settings = self._plan, self._plan.settings
        steps = math.ceil(len(_dealt(plan.cases, plan)) / settings.batch_size)
        self.descent.wrapped.train()
        seeds = _seeds(plan, number)
        # Dropout draws from torch's own generator.
        torch.manual_seed(seeds.dropout)
        losses, logits, labels, in_network = [], [], [], 0.0
        for place, batch in enumerate(_batches(plan, self._planes, self._rehearsal, seeds, steps)):
            entered = time.perf_counter()
            rate = learning_rate(number * steps + place, settings.epochs * steps, settings.learning_rate)
            loss, batch_logits = self._step(batch, rate)
            losses.append(loss)
            logits.append(batch_logits[batch.taught])
            labels.append(batch.labels[batch.taught])
            in_network += time.perf_counter() - entered
        return {
            "epoch": number + 1,
            "loss": float(torch.stack(losses).mean()),
            "learning_rate": rate,
            "training_auc": _training_auc(torch.cat(logits), torch.cat(labels)),
            "seconds": round(time.perf_counter() - started, 3),
            "network_seconds": round(in_network, 3),
        }

    def _step(self, batch: _Batch, rate: float) -> tuple[Tensor, Tensor]:
        """Learn from one batch: its loss, and its logits of (patients, classes)."""
        settings, seen = self._plan.settings, batch.seen
        read: _Read = self.descent.wrapped(seen.planes, batch.membership)
        logits = read.logits.float()
        loss = lesion_loss(read.lesions.float(), seen.lesions, seen.marked) + presence_loss(read.presence, seen)
        loss = settings.lesion_weight * (loss + silence_loss(read.alone.float(), seen))
        smoothing = settings.label_smoothing
        if batch.answers is None or read.answers is None:
            loss = loss + functional.cross_entropy(logits + self._log_prior, batch.labels, label_smoothing=smoothing)
        else:
            kinds = torch.cat([logits, read.answers.kinds.float()], dim=1) + self._log_prior
            loss = loss + question_loss(
                read.answers._replace(kinds=kinds), batch.answers, seen.kinds, smoothing=smoothing
            )
        self.descent.step(loss, rate)
        return loss.detach(), logits[: len(batch.labels)].detach()


def _dealt(cases: NDArray[np.intp], plan: FitPlan) -> NDArray[np.intp]:
    """Deal cases, in the order given, out for an epoch: those of rarer classes several times, far from each other."""
    labels = plan.store.labels.numpy()
    counts = np.bincount(labels[plan.cases], minlength=plan.classes)
    times = np.round((counts.max() / np.maximum(counts, 1)) ** plan.settings.balance).astype(int)[labels[cases]]
    again = np.concatenate([np.arange(number) / number for number in times])
    places = (np.repeat(np.arange(len(cases)) / len(cases), times) + again) % 1
    return np.repeat(cases, times)[np.argsort(places, kind="stable")]


def _shares(plan: FitPlan, *, by_look: bool) -> Tensor:
    """Give each class's share of the patients that are dealt out, or of the looks at them: (classes,)."""
    dealt = _dealt(plan.cases, plan)
    most = plan.settings.views_per_patient if by_look else 1
    looks = torch.tensor([min(len(plan.store.images[case]), most) for case in dealt])
    counts = torch.bincount(plan.store.labels[dealt], weights=looks, minlength=plan.classes)
    return (counts / counts.sum()).float()


class _Seeds(NamedTuple):
    order: int
    changes: int
    dropout: int
    rehearsed: int
    rehearsed_changes: int


def _seeds(plan: FitPlan, epoch: int) -> _Seeds:
    """Derive an epoch's seeds, so that it draws the same whenever it is run, and no two of a fit draw alike."""
    entropy = [*plan.stream, plan.begun + epoch]
    return _Seeds(*np.random.SeedSequence(entropy).generate_state(len(_Seeds._fields)).tolist())


def _batches(
    plan: FitPlan, planes: PlaneStore, rehearsal: Rehearsal | None, seeds: _Seeds, steps: int
) -> Iterator[_Batch]:
    """Draw the batches of an epoch: of every training case a few images, each looked at and changed anew."""
    rng, generator = np.random.default_rng(seeds.order), torch.Generator().manual_seed(seeds.changes)
    others = np.random.default_rng(seeds.rehearsed), torch.Generator().manual_seed(seeds.rehearsed_changes)
    settings, device = plan.settings, planes.device
    for dealt in np.array_split(_dealt(rng.permutation(plan.cases), plan), steps):
        # Of a handful of patients one may come twice: it is one patient.
        cases = dealt[np.sort(np.unique(dealt, return_index=True)[1])]
        chosen = [_some(plan.store.images[case], planes, settings, rng) for case in cases]
        owner_of = dict(
            zip(np.concatenate(chosen), np.repeat(np.arange(len(cases)), list(map(len, chosen))), strict=True)
        )
        images = np.concatenate(chosen).tolist()
        seen = see(images, planes, settings.augmentation, rng=rng, generator=generator)
        owners = torch.tensor([owner_of[image] for image in seen.images.tolist()])
        batch = _Batch(
            seen=seen,
            membership=((owners[None, :] == torch.arange(len(cases))[:, None]) & seen.speak).to(device),
            labels=plan.store.labels[cases].to(device),
            taught=torch.ones(len(cases), dtype=torch.bool, device=device),
            answers=None,
        )
        if rehearsal is None:
            yield batch
        else:
            rehearsed = rehearsal.see(len(images), rng=others[0], generator=others[1])
            if rehearsal.asked:
                yield _one_by_one(batch, owners, rehearsed, rehearsal, classes=plan.classes)
            else:
                yield _without_a_say(batch, rehearsed)


def _one_by_one(cases: _Batch, owners: Tensor, rehearsed: Seen, rehearsal: Rehearsal, *, classes: int) -> _Batch:
    """Lay auxiliary images beside a batch of cases, each look to be judged by itself."""
    others, device = len(rehearsed.images), cases.labels.device
    return _Batch(
        seen=beside(cases.seen, rehearsed),
        membership=torch.eye(len(owners) + others, dtype=torch.bool, device=device),
        labels=cases.labels[owners.to(device)],
        taught=(cases.seen.kinds != Kind.ELSEWHERE).to(device),
        answers=rehearsal.answers(cases.seen.images, rehearsed.images, classes),
    )


def _without_a_say(cases: _Batch, rehearsed: Seen) -> _Batch:
    """Lay auxiliary images beside a batch of cases, in which nobody's class is judged by them."""
    members = functional.pad(cases.membership, (0, len(rehearsed.images)))
    return replace(cases, seen=beside(cases.seen, rehearsed), membership=members)


def _some(images: Tensor, planes: PlaneStore, settings: TrainingConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw some of a case's images; of planes of a volume half show the lesion, as far as there are so many.

    Of several modalities as many are drawn of each, so that a volume of many planes does not drown a radiograph; or of
    one of them alone, so that the network learns to do without the others.
    """
    drawn, most = rng.permutation(images.numpy()), settings.views_per_patient
    if planes.indicators is None:
        return _with_lesion_first(drawn, planes, most)
    modality_of = planes.indicators[drawn].argmax(dim=1).numpy()
    present = rng.permutation(np.unique(modality_of))
    if rng.random() < settings.modality_dropout:
        present = present[:1]
    shares = most // len(present) + (np.arange(len(present)) < most % len(present))
    return np.concatenate(
        [
            _with_lesion_first(drawn[modality_of == modality], planes, share)
            for modality, share in zip(present, shares.tolist(), strict=True)
        ]
    )


def _with_lesion_first(drawn: NDArray[np.int64], planes: PlaneStore, most: int) -> NDArray[np.int64]:
    """Take so many of some images in the order drawn, of which half show a lesion, as far as there are so many."""
    shown = planes.kinds[drawn].numpy() == Kind.REGION
    needed = math.ceil(most / 2)
    first, behind = drawn[shown][:needed], drawn[shown][needed:]
    return np.concatenate([first, drawn[~shown], behind])[:most]


def _training_auc(logits: Tensor, labels: Tensor) -> float | None:
    """AUC of the epoch's own augmented planes, for the progress bar; None unless there are two classes, and numbers."""
    if logits.shape[1] != 2 or len(np.unique(labels.cpu().numpy())) != 2 or not bool(logits.isfinite().all()):
        return None
    return float(roc_auc_score(labels.cpu(), (logits[:, 1] - logits[:, 0]).cpu()))
