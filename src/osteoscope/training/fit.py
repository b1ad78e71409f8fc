"""Fitting one network to the training part of one fold."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from osteoscope.training.augment import see
from osteoscope.training.epochs import Descent, learning_rate, run_epochs
from osteoscope.training.lesion_loss import lesion_loss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from osteoscope.config import TrainingConfig
    from osteoscope.network.classifier import TumourNetwork
    from osteoscope.training.augment import Seen
    from osteoscope.training.planes import CaseStore, PlaneStore


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
    covariates: Tensor | None
    """(cases of the store, covariates), encoded with what the training cases show; None without covariates."""
    classes: int
    settings: TrainingConfig
    stream: tuple[int, ...]
    """What the random numbers are seeded from: the run's seed and the fold."""
    checkpoint_every: int = 5
    """Epochs between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    seen: Seen
    membership: Tensor
    labels: Tensor
    covariates: Tensor | None


def fit(
    network: TumourNetwork, plan: FitPlan, *, fabric: Fabric, folder: Path, watcher: EpochWatcher
) -> list[dict[str, Any]]:
    """Fit the network in place, going on from a checkpoint in `folder` if there is one.

    The loss is cross-entropy with logit adjustment (Menon et al., ICLR 2021): the logarithm of each class's share of
    the training patients is added to the logits, so that what the network learns is free of the class prior, and a
    rare class is not drowned. Where lesions are annotated, map A also learns where they are (`lesion_loss`). No
    patient outside of `plan.cases` is looked at; nothing is selected by results.

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
    fitter = _Fitter(network, plan, fabric)
    epochs = plan.settings.epochs
    history = run_epochs(
        fitter.descent.state(folder),
        fitter.epoch,
        epochs=epochs,
        checkpoint_every=plan.checkpoint_every,
        watcher=lambda done, record: watcher(
            epoch=done, epochs=epochs, loss=record["loss"], training_auc=record["training_auc"]
        ),
    )
    network.load_state_dict(fitter.descent.average.module.state_dict())
    return history


class _Fitter:
    """A network on its way down, and the plan that it is fitted to."""

    def __init__(self, network: TumourNetwork, plan: FitPlan, fabric: Fabric) -> None:
        self._plan = plan
        self.descent = Descent(network, plan.settings, fabric)
        self._planes = plan.store.planes.on(fabric.device)
        self._log_prior = _log_prior(plan).to(fabric.device)

    def epoch(self, number: int) -> dict[str, Any]:
        """Do one epoch, counted from 0, and give its record."""
        started = time.perf_counter()
        plan, settings = self._plan, self._plan.settings
        steps = math.ceil(len(plan.cases) / settings.batch_size)
        self.descent.wrapped.train()
        # Dropout draws from torch's own generator.
        torch.manual_seed(_seeds(plan, number)[2])
        losses, logits, labels, in_network = [], [], [], 0.0
        for place, batch in enumerate(_batches(plan, self._planes, number, steps)):
            entered = time.perf_counter()
            rate = learning_rate(number * steps + place, settings.epochs * steps, settings.learning_rate)
            loss, batch_logits = self._step(batch, rate)
            losses.append(loss)
            logits.append(batch_logits)
            labels.append(batch.labels)
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
        settings = self._plan.settings
        read = self.descent.wrapped(batch.seen.planes, batch.membership, batch.covariates)
        logits = read.logits.float()
        loss = functional.cross_entropy(
            logits + self._log_prior, batch.labels, label_smoothing=settings.label_smoothing
        ) + settings.lesion_weight * lesion_loss(read.lesions.float(), batch.seen.lesions, batch.seen.marked)
        self.descent.step(loss, rate)
        return loss.detach(), logits.detach()


def _log_prior(plan: FitPlan) -> Tensor:
    """Logarithm of each class's share of the training patients: (classes,)."""
    counts = torch.bincount(plan.store.labels[plan.cases], minlength=plan.classes)
    return torch.log(counts / counts.sum())


def _seeds(plan: FitPlan, epoch: int) -> tuple[int, int, int]:
    """Derive an epoch's seeds, so that it draws the same whenever it is run: order, changes, dropout."""
    order, changes, dropout = np.random.SeedSequence([*plan.stream, epoch]).generate_state(3).tolist()
    return order, changes, dropout


def _batches(plan: FitPlan, planes: PlaneStore, epoch: int, steps: int) -> Iterator[_Batch]:
    """Draw the batches of an epoch: every training case once, a few of its images, each looked at and changed anew."""
    order_seed, change_seed, _ = _seeds(plan, epoch)
    rng = np.random.default_rng(order_seed)
    generator = torch.Generator().manual_seed(change_seed)
    settings, device = plan.settings, planes.canvases.device
    for cases in np.array_split(rng.permutation(plan.cases), steps):
        chosen = [_some(plan.store.images[case].numpy(), settings.views_per_patient, rng) for case in cases]
        owner_of = dict(
            zip(np.concatenate(chosen), np.repeat(np.arange(len(cases)), list(map(len, chosen))), strict=True)
        )
        seen = see(np.concatenate(chosen).tolist(), planes, settings.augmentation, rng=rng, generator=generator)
        owners = torch.tensor([owner_of[image] for image in seen.images.tolist()])
        yield _Batch(
            seen=seen,
            membership=(owners[None, :] == torch.arange(len(cases))[:, None]).to(device),
            labels=plan.store.labels[cases].to(device),
            covariates=None if plan.covariates is None else plan.covariates[cases].to(device),
        )


def _some(planes: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(planes)[:most]


def _training_auc(logits: Tensor, labels: Tensor) -> float | None:
    """AUC of the epoch's own augmented planes, for the progress bar; None unless there are two classes, and numbers."""
    if logits.shape[1] != 2 or len(np.unique(labels.cpu().numpy())) != 2 or not bool(logits.isfinite().all()):
        return None
    return float(roc_auc_score(labels.cpu(), (logits[:, 1] - logits[:, 0]).cpu()))
