"""Images per second in training, beside MONAI's CacheDataset with ThreadDataLoader on the same network and batch.

Both sides read the same pictures from memory, change them at random (turn, shift, scale, flip, gamma, noise), and take
the same optimiser steps in the same precision; what differs is where and how pictures are changed. Rounds alternate,
so that a noisy machine is noisy for both. The last line is one JSON object.

    python benchmarks/training.py [--images N] [--size PX] [--rounds N] [--threads N]

``vs_monai``: our images per second over MONAI's. ``outside_network_share``: share of our training time that is not
spent in the network's forward and backward passes or the optimiser's step; on a GPU, whose work is only queued then,
``benchmarks/accelerator.py`` says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data.dataset import CacheDataset
from monai.data.thread_buffer import ThreadDataLoader
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandGaussianNoised
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from torch.nn import functional

from osteoscope.config import Config, PreparationConfig, TrainingConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.device import choose_device, deterministic
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.planes import (
    NO_REGION,
    SQUARES_ELSEWHERE,
    SQUARES_ROUND,
    CaseStore,
    Kind,
    PlaneStore,
    canvas_size,
)

if TYPE_CHECKING:
    from osteoscope.training.device import Device


# As many as lie between two checkpoints in a run.
EPOCHS = 5


def made_up_store(images: int, size: int) -> CaseStore:
    """Random canvases of as many one-image patients, one in six of the second class, without a region to look at."""
    canvas = canvas_size(size)
    generator = torch.Generator().manual_seed(0)
    planes = PlaneStore(
        canvases=torch.rand(images, 1, canvas, canvas, generator=generator).half(),
        lesions=(torch.rand(images, 1, canvas, canvas, generator=generator) < 0.1).byte(),
        marked=torch.ones(images, dtype=torch.bool),
        kinds=torch.full((images,), Kind.FIRST),
        regions=torch.full((images, SQUARES_ROUND), NO_REGION),
        elsewhere=torch.full((images, SQUARES_ELSEWHERE), NO_REGION),
        size=size,
    )
    return CaseStore(
        planes=planes,
        images=tuple(torch.tensor([place]) for place in range(images)),
        labels=(torch.arange(images) % 6 == 0).long(),
    )


def ours(store: CaseStore, config: Config, device: Device) -> tuple[float, float]:
    """Train as `osteoscope train` does, checkpoints included: seconds, and those of them in the network."""
    network = TumourNetwork(config.network, classes=2)
    cases = np.arange(len(store.labels))
    plan = FitPlan(store=store, cases=cases, classes=2, settings=config.training, stream=(0, 0))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        history = fit(network, plan, fabric=device.fabric(), folder=Path(folder), watcher=lambda **_: None)
        seconds = time.perf_counter() - started
    return seconds, sum(record["network_seconds"] for record in history)


def monais(store: CaseStore, config: Config, device: Device) -> float:
    """Train as long the way MONAI's fast-training guide does: seconds."""
    size, settings, keys = store.planes.size, config.training, ["image"]
    changes = Compose(
        [
            RandAffined(
                keys,
                prob=1.0,
                rotate_range=np.deg2rad(settings.augmentation.rotation),
                translate_range=settings.augmentation.shift * size,
                scale_range=settings.augmentation.scale,
                padding_mode="border",
                spatial_size=(size, size),
            ),
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAdjustContrastd(keys, prob=1.0, gamma=(0.67, 1.5)),
            RandGaussianNoised(keys, prob=1.0, std=settings.augmentation.noise),
        ]
    )
    items = [
        {"image": i, "label": int(label)} for i, label in zip(store.planes.canvases.float(), store.labels, strict=True)
    ]
    cached = CacheDataset(items, transform=changes, cache_rate=1.0, num_workers=None, progress=False)
    loader = ThreadDataLoader(
        cached, batch_size=settings.batch_size, shuffle=True, num_workers=0, use_thread_workers=True
    )
    network = TumourNetwork(config.network, classes=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=True)
    fabric = device.fabric()
    wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
    wrapped.train()
    learnt, started = 0, time.perf_counter()
    for _ in range(settings.epochs):
        for batch in loader:
            labels = batch["label"].to(fabric.device)
            membership = torch.eye(len(labels), dtype=torch.bool, device=fabric.device)
            prepared = torch.as_tensor(batch["image"]).contiguous(memory_format=torch.channels_last).to(fabric.device)
            learnt += len(labels)
            loss = functional.cross_entropy(wrapped(prepared, membership).logits.float(), labels)
            fabric.backward(loss)
            wrapped_optimiser.step()
            wrapped_optimiser.zero_grad()
    if learnt != settings.epochs * len(items):
        msg = f"the loader gave {learnt} images, not {settings.epochs * len(items)}"
        raise RuntimeError(msg)
    finish_queued()
    return time.perf_counter() - started


def finish_queued() -> None:
    """Wait until a GPU has done what it was asked for; a processor has."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Run both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=104)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    device = choose_device("auto", options.threads)
    config = Config(preparation=PreparationConfig(size=options.size), training=TrainingConfig(epochs=EPOCHS))
    store = made_up_store(options.images, options.size)
    planes = EPOCHS * options.images
    mine, theirs, outside = [], [], []
    with deterministic(device.threads):
        for number in range(options.rounds):
            seconds, in_network = ours(store, config, device)
            mine.append(planes / seconds)
            outside.append(1 - in_network / seconds)
            theirs.append(planes / monais(store, config, device))
            print(f"round {number + 1}: ours {mine[-1]:.1f} images/s, MONAI {theirs[-1]:.1f} images/s", flush=True)
    print(
        json.dumps(
            {
                "vs_monai": round(statistics.median(a / b for a, b in zip(mine, theirs, strict=True)), 3),
                "outside_network_share": round(statistics.median(outside), 4) if device.kind == "cpu" else None,
                "images_per_second": round(statistics.median(mine), 2),
                "monai_images_per_second": round(statistics.median(theirs), 2),
                "size": options.size,
                "threads": device.threads,
                "precision": device.precision,
                "device": device.name,
            }
        )
    )


if __name__ == "__main__":
    main()
