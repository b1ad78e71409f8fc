"""Learning from the images outside of the classes, once for all folds: what tumours, bones and views look like.

No case of any fold has a part in it: no patient, no pixels, and no picture that is nearly a case's, so what is learnt
can be where every fold starts from. The tasks are those that the source's table answers: which kind of tumour, which
body site, which view, and where the lesion is.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from osteoscope.cohort.table import NORMAL
from osteoscope.errors import RunError
from osteoscope.network.classifier import PlaneEncoder
from osteoscope.storage import (
    LOCK,
    cache_folder,
    folder_locked,
    sha256_of_file,
    sha256_of_text,
    storage_error,
    write_json,
)
from osteoscope.training.augment import see
from osteoscope.training.checkpoint import remove_checkpoints, save_weights
from osteoscope.training.epochs import Descent, learning_rate, run_epochs
from osteoscope.training.lesion_loss import lesion_loss, presence_loss
from osteoscope.training.planes import NO_REGION
from osteoscope.training.questions import QuestionHeads, facts_of, load_lessons, question_loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.config import Config
    from osteoscope.training.device import Device
    from osteoscope.training.questions import Answers, QuestionLogits
    from osteoscope.training.weights import Start

VERSION = 5
"""Of what is learnt and how: another version learns anew."""

_WEIGHTS = "weights.safetensors"
_QUESTIONS = "questions.safetensors"
_LEARNT = "learnt.json"
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
        encoder.load_state_dict(self._read(_WEIGHTS))

    def teach_questions(self, heads: QuestionHeads) -> None:
        """Give the answers to the same images' questions what was learnt."""
        heads.load_state_dict(self._read(_QUESTIONS))

    def _read(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as error:
            raise RunError(
                "what was learnt from auxiliary images is gone or damaged, as where the cache was emptied meanwhile",
                path=self.folder / name,
                remedy="run the same command again: it is learnt anew, and the folds that are done stay",
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Give all but the folder and the history."""
        return {name: value for name, value in asdict(self).items() if name not in {"folder", "history"}}


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
    busy = RunError(
        "another process is learning from the same auxiliary images",
        path=folder,
        remedy="wait for it, then run again",
    )
    with folder_locked(folder, otherwise=busy):
        known = _known(folder, fingerprint)
        if known is None:
            _learn(
                _Learner(images, config, start, device.fabric()),
                images,
                folder=folder,
                fingerprint=fingerprint,
                watcher=watcher,
            )
            # What it took of an accelerator, the folds are to have.
            torch.cuda.empty_cache()
            known = _known(folder, fingerprint)
        if known is None:
            raise RunError("what was just learnt cannot be read", path=folder, remedy="delete that folder")
        # Only now, and whenever it is asked for: a kill may come between what was learnt and this.
        remove_checkpoints(folder)
        # Whose images they are is no part of the fingerprint, since nothing is learnt from it.
        return replace(known, patients=len({one.patient for one in images}))


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
            (folder / LOCK).touch()
        except OSError as error:
            refused = storage_error(error, folder)
        else:
            return folder
    raise refused


def _known(folder: Path, fingerprint: str) -> Learnt | None:
    """Read what was learnt; None where it is not whole."""
    try:
        content = json.loads((folder / _LEARNT).read_text(encoding="utf-8"))
        whole = content.pop("sha256") == _hashes(folder) and content["fingerprint"] == fingerprint
        return Learnt(folder=folder, **content) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of_file(folder / name) for name in (_WEIGHTS, _QUESTIONS)}


def _learn(
    learner: _Learner, images: Sequence[Auxiliary], *, folder: Path, fingerprint: str, watcher: AuxiliaryWatcher
) -> None:
    """Learn, and write the weights and then, last, what they are."""
    epochs = learner.epochs
    history = run_epochs(
        learner.descent.state(folder),
        learner.epoch,
        epochs=epochs,
        checkpoint_every=_CHECKPOINT_EVERY,
        watcher=lambda done, record: watcher(epoch=done, epochs=epochs, loss=record["loss"]),
    )
    average: _AuxiliaryNetwork = learner.descent.average.module  # type: ignore[assignment]
    save_weights(average.encoder, folder / _WEIGHTS)
    save_weights(average.questions, folder / _QUESTIONS)
    learnt = Learnt(
        folder=folder,
        fingerprint=fingerprint,
        **facts_of(images, learner.answers),
        minutes=round(sum(record["seconds"] for record in history) / 60, 2),
        history=history,
    )
    content = {**learnt.to_json(), "history": history, "sha256": _hashes(folder)}
    write_json(folder / _LEARNT, content)


class _AuxiliaryNetwork(nn.Module):
    """The encoder of a tumour network, and the answers to the questions."""

    def __init__(self, config: Config, answers: Answers) -> None:
        super().__init__()
        self.encoder = PlaneEncoder(config.network, in_channels=1)
        self.questions = QuestionHeads(self.encoder.map_channels, answers)

    def forward(self, planes: Tensor) -> tuple[QuestionLogits, Tensor, Tensor | None]:
        reading = self.encoder(planes)
        return self.questions(reading.vectors), reading.lesions, self.encoder.presence(reading.vectors)


class _Learner:
    """The network on its way down, the images and what is known of them."""

    def __init__(self, images: Sequence[Auxiliary], config: Config, start: Start | None, fabric: Fabric) -> None:
        lessons = load_lessons(images, config.preparation)
        self._store, self.answers = lessons.store.on(fabric.device), lessons.answers
        self._settings = settings = config.auxiliary
        elsewhere = (lessons.store.elsewhere != NO_REGION).float().mean(dim=1)
        per_image = 1 + settings.augmentation.elsewhere * elsewhere
        self.epochs = max(1, round(settings.looks / float(per_image.sum())))
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
            answers, lesions, presence = self.descent.wrapped(seen.planes)
            loss = question_loss(answers, self.answers.at(seen.images), seen.kinds)
            loss = loss + lesion_loss(lesions.float(), seen.lesions, seen.marked) + presence_loss(presence, seen)
            self.descent.step(loss, rate, largest_gradient=_LARGEST_GRADIENT)
            losses.append(loss.detach())
        return {
            "epoch": number + 1,
            "loss": float(torch.stack(losses).mean()),
            "seconds": round(time.perf_counter() - started, 3),
        }
