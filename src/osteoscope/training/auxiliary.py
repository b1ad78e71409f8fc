"""Learning from the images outside of the classes, once for all folds: what tumours, bones and views look like.

No case of any fold has a part in it: no patient, no pixels, and no picture that is nearly a case's, so what is learnt
can be where every fold starts from. The tasks are those that the source's table answers: which kind of tumour, which
body site, which view, and where the lesion is.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from osteoscope.cohort.covariates import SITE_SEPARATOR, split_sites
from osteoscope.cohort.table import KIND_SEPARATOR, NORMAL
from osteoscope.errors import RunError
from osteoscope.network.classifier import PlaneEncoder
from osteoscope.storage import cache_folder, sha256_of_file, sha256_of_text, storage_error, write_json
from osteoscope.training.augment import see
from osteoscope.training.checkpoint import remove_checkpoints, save_weights
from osteoscope.training.epochs import Descent, learning_rate, run_epochs
from osteoscope.training.lesion_loss import lesion_loss
from osteoscope.training.planes import load_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.config import Config
    from osteoscope.training.augment import Seen
    from osteoscope.training.device import Device
    from osteoscope.training.weights import Start

VERSION = 1
"""Of what is learnt and how: another version learns anew."""

FEWEST = 8
"""A kind, site or view with fewer images than this is not asked for."""

_WEIGHTS = "weights.safetensors"
_LEARNT = "learnt.json"
_SMOOTHING = 0.05
_SITE_WEIGHT, _VIEW_WEIGHT = 2.0, 0.2
_LARGEST_GRADIENT = 5.0
_CHECKPOINT_EVERY = 5


class AuxiliaryWatcher(Protocol):
    """Is told of each epoch done; for progress only, nothing is decided by it."""

    def __call__(self, *, epoch: int, epochs: int, loss: float) -> None:
        """Take note of an epoch: `epoch` of `epochs` are done."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What was learnt from the auxiliary images, and from which."""

    folder: Path
    fingerprint: str
    images: int
    patients: int
    kinds: dict[str, int]
    """Images of each kind that was asked for."""
    sites: dict[str, int]
    views: dict[str, int]
    minutes: float
    history: list[dict[str, Any]]
    """One record for each epoch."""

    def teach(self, encoder: PlaneEncoder) -> None:
        """Give an encoder of the same network what was learnt."""
        encoder.load_state_dict(load_file(self.folder / _WEIGHTS))

    def to_json(self) -> dict[str, Any]:
        """Give all but the folder and the history."""
        return {name: value for name, value in asdict(self).items() if name not in {"folder", "history"}}


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """What is known of each image, by the names that are asked for; -1 where it is not known."""

    kind_names: tuple[str, ...]
    site_names: tuple[str, ...]
    view_names: tuple[str, ...]
    kinds: Tensor
    """(images,)."""
    sites: Tensor
    """(images, sites) 0 or 1; NaN where the site is not known."""
    views: Tensor
    """(images,)."""


def teachers(auxiliaries: Iterable[Auxiliary], *, twins: Iterable[str], needs_lesion: bool) -> list[Auxiliary]:
    """Choose the auxiliary images that may teach.

    Left out are those that show the same picture as a case, those without a lesion where lesions are what is read,
    and normal ones: in the public archive their pictures were made otherwise, so that a network would learn how
    pictures were made.

    Parameters
    ----------
    auxiliaries
        Those that share no patient and no pixels with a case (`osteoscope.cohort.table.auxiliary`).
    twins
        Names of images that are nearly a case's (`osteoscope.cohort.audit.Audit.auxiliary_twins`).
    needs_lesion
        Whether the annotated lesion is what is read of an image.
    """
    held_back = set(twins)
    return [
        one
        for one in auxiliaries
        if one.image.image not in held_back and one.kind != NORMAL and (one.image.lesions or not needs_lesion)
    ]


def learn(
    images: Sequence[Auxiliary],
    config: Config,
    *,
    fallback: Path,
    device: Device,
    watcher: AuxiliaryWatcher,
    start: Start | None = None,
) -> Learnt:
    """Learn from auxiliary images, or take what was learnt from the same ones with the same settings before.

    Parameters
    ----------
    images
        What `teachers` gave; not empty.
    config
        Its preparation, network and auxiliary settings count.
    fallback
        Folder to keep it in where the user's cache cannot be written.
    device
        What to compute on; part of the fingerprint, since it changes the bits.
    watcher
        Is told how it goes on.
    start
        What the network starts from, as ``config.network.pretrained`` names it; None starts from random weights.

    Raises
    ------
    ImageError
        If an image cannot be read any more.
    RunError
        If the loss is no longer a number, or another process is learning the same.
    StorageError
        If neither the cache nor `fallback` can be written.
    """
    fingerprint = fingerprint_of(images, config, device)
    folder = _writable(cache_folder() / "auxiliary" / fingerprint, fallback)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            "another process is learning from the same auxiliary images",
            path=folder,
            remedy="wait for it, then run again",
        ) from error
    try:
        known = _known(folder, fingerprint)
        if known is None:
            learner = _Learner(images, config, start, device.fabric())
            _learn(learner, images, folder=folder, fingerprint=fingerprint, watcher=watcher)
            known = _known(folder, fingerprint)
        if known is None:
            raise RunError("what was just learnt cannot be read", path=folder, remedy="delete that folder")
        # Only now, and whenever it is asked for: a kill may come between what was learnt and this.
        remove_checkpoints(folder)
        return known
    finally:
        lock.release()


def fingerprint_of(images: Sequence[Auxiliary], config: Config, device: Device) -> str:
    """Hash all that the learnt weights depend on: 64 hexadecimal digits."""
    shown = [
        [one.image.pixel_sha256, one.kind, one.site, one.image.view, [asdict(lesion) for lesion in one.image.lesions]]
        for one in images
    ]
    settings = config.model_dump(mode="json", include={"preparation", "auxiliary", "network"})
    for part, unused in (("network", "covariates"), ("network", "dropout"), ("preparation", "second_look_at")):
        del settings[part][unused]
    matter = [VERSION, shown, settings, asdict(device), torch.__version__]
    return sha256_of_text(json.dumps(matter, sort_keys=True))


def _writable(cache: Path, fallback: Path) -> Path:
    for folder in (cache, fallback):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".lock").touch()
        except OSError as error:
            refused = storage_error(error, folder)
        else:
            return folder
    raise refused


def _known(folder: Path, fingerprint: str) -> Learnt | None:
    """Read what was learnt; None where it is not whole."""
    try:
        content = json.loads((folder / _LEARNT).read_text(encoding="utf-8"))
        whole = content.pop("sha256") == sha256_of_file(folder / _WEIGHTS) and content["fingerprint"] == fingerprint
        return Learnt(folder=folder, **content) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _learn(
    learner: _Learner, images: Sequence[Auxiliary], *, folder: Path, fingerprint: str, watcher: AuxiliaryWatcher
) -> None:
    """Learn, and write the weights and then, last, what they are."""
    answers, epochs = learner.answers, learner.epochs
    history = run_epochs(
        learner.descent.state(folder),
        learner.epoch,
        epochs=epochs,
        checkpoint_every=_CHECKPOINT_EVERY,
        watcher=lambda done, record: watcher(epoch=done, epochs=epochs, loss=record["loss"]),
    )
    average: _AuxiliaryNetwork = learner.descent.average.module  # type: ignore[assignment]
    save_weights(average.encoder, folder / _WEIGHTS)
    learnt = Learnt(
        folder=folder,
        fingerprint=fingerprint,
        images=len(images),
        patients=len({one.patient for one in images}),
        kinds=_counted(answers.kind_names, [one.kind for one in images]),
        sites=dict(zip(answers.site_names, answers.sites.nansum(dim=0).int().tolist(), strict=True)),
        views=_counted(answers.view_names, [one.image.view for one in images]),
        minutes=round(sum(record["seconds"] for record in history) / 60, 2),
        history=history,
    )
    content = {**learnt.to_json(), "history": history, "sha256": sha256_of_file(folder / _WEIGHTS)}
    write_json(folder / _LEARNT, content)


def _counted(names: Sequence[str], values: Iterable[str | None]) -> dict[str, int]:
    counts = Counter(values)
    return {name: counts[name] for name in names}


def _answers(images: Sequence[Auxiliary]) -> _Answers:
    kinds = [_only(one.kind, KIND_SEPARATOR) for one in images]
    views = [_only(one.image.view, SITE_SEPARATOR) for one in images]
    sites = [set(split_sites(one.site)) for one in images]
    kind_names, view_names = _frequent(kinds), _frequent(views)
    site_names = _frequent(site for known in sites for site in known)
    hot = torch.tensor([[float(name in known) if known else math.nan for name in site_names] for known in sites])
    return _Answers(
        kind_names=kind_names,
        site_names=site_names,
        view_names=view_names,
        kinds=torch.tensor([kind_names.index(kind) if kind in kind_names else -1 for kind in kinds]),
        sites=hot.reshape(len(images), len(site_names)),
        views=torch.tensor([view_names.index(view) if view in view_names else -1 for view in views]),
    )


def _only(value: str | None, separator: str) -> str | None:
    """Take a value that is not several."""
    return None if value is None or separator in value else value


def _frequent(values: Iterable[str | None]) -> tuple[str, ...]:
    counts = Counter(value for value in values if value is not None)
    return tuple(sorted(name for name, count in counts.items() if count >= FEWEST))


class _AuxiliaryNetwork(nn.Module):
    """The encoder of a tumour network, and a linear answer to each question."""

    def __init__(self, config: Config, answers: _Answers) -> None:
        super().__init__()
        self.encoder = PlaneEncoder(config.network, in_channels=1)
        channels = self.encoder.map_channels
        # A question that has no answers still has a head, of one output that nothing asks.
        self.kind = nn.Linear(channels, max(1, len(answers.kind_names)))
        self.site = nn.Linear(channels, max(1, len(answers.site_names)))
        self.view = nn.Linear(channels, max(1, len(answers.view_names)))

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reading = self.encoder(planes)
        return self.kind(reading.vectors), self.site(reading.vectors), self.view(reading.vectors), reading.lesions


class _Learner:
    """The network on its way down, the images and what is known of them."""

    def __init__(self, images: Sequence[Auxiliary], config: Config, start: Start | None, fabric: Fabric) -> None:
        self._store = load_images([one.image for one in images], config.preparation).on(fabric.device)
        self.answers = _answers(images)
        self._settings = settings = config.auxiliary
        self.epochs = max(1, round(settings.looks / len(images)))
        torch.manual_seed(settings.seed)
        network = _AuxiliaryNetwork(config, self.answers)
        if start is not None:
            start.teach(network.encoder)
        self.descent = Descent(network, settings, fabric)

    def epoch(self, number: int) -> dict[str, Any]:
        """Do one epoch, counted from 0, and give its record."""
        started = time.perf_counter()
        settings, images = self._settings, len(self._store.marked)
        order_seed, change_seed = np.random.SeedSequence([settings.seed, number]).generate_state(2).tolist()
        rng, generator = np.random.default_rng(order_seed), torch.Generator().manual_seed(change_seed)
        steps = math.ceil(images / settings.batch_size)
        self.descent.wrapped.train()
        losses = []
        for place, batch in enumerate(np.array_split(rng.permutation(images), steps)):
            rate = learning_rate(number * steps + place, self.epochs * steps, settings.learning_rate)
            seen = see(batch.tolist(), self._store, settings.augmentation, rng=rng, generator=generator)
            loss = self._loss(seen)
            self.descent.step(loss, rate, largest_gradient=_LARGEST_GRADIENT)
            losses.append(loss.detach())
        return {
            "epoch": number + 1,
            "loss": float(torch.stack(losses).mean()),
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _loss(self, seen: Seen) -> Tensor:
        kind, site, view, logits = self.descent.wrapped(seen.planes)
        answers, asked, device = self.answers, seen.images, seen.planes.device
        return (
            _one_of(kind.float(), answers.kinds[asked].to(device))
            + _SITE_WEIGHT * _all_of(site.float(), answers.sites[asked].to(device))
            + _VIEW_WEIGHT * _one_of(view.float(), answers.views[asked].to(device))
            + lesion_loss(logits.float(), seen.lesions, seen.marked)
        )


def _one_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy over what is known, 0 where nothing is."""
    if not bool((answers >= 0).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, answers, ignore_index=-1, label_smoothing=_SMOOTHING)


def _all_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Binary cross-entropy over what is known, 0 where nothing is."""
    known = ~answers.isnan()
    if not bool(known.any()):
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits[known], answers[known])
