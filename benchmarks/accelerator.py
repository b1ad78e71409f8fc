"""What bounds learning on an accelerator: the network, what is done beside it, or the asking for its kernels.

Steps by which ``standard`` and ``full`` learn from auxiliary images where lesions are, on made-up pictures (of kinds,
sites and views nothing is asked, no squares elsewhere are looked at, gradients are not clipped): whole; the network and
optimiser alone, on a batch that is there already; and the same compiled by ``torch.compile``. The last line is one JSON
object.

    python benchmarks/accelerator.py [--steps N] [--compile PRESET ...]

``images_per_second``: of whole steps. ``outside_network_share``: of a whole step's time, what it takes longer than the
network alone. ``compiled``: how many times as many images the compiled network reads as the one that is not, and the
seconds that compiling took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from training import finish_queued, made_up_store

from osteoscope.config import preset_config
from osteoscope.network.classifier import PlaneEncoder
from osteoscope.training.augment import see
from osteoscope.training.device import choose_device, deterministic
from osteoscope.training.epochs import Descent
from osteoscope.training.lesion_loss import lesion_loss, presence_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from osteoscope.config import Preset
    from osteoscope.training.augment import Seen
    from osteoscope.training.device import Device

IMAGES = 512


class Steps:
    """Learning where lesions are, step by step."""

    def __init__(self, preset: Preset, device: Device, *, compiled: bool) -> None:
        config = preset_config(preset)
        self._settings, fabric = config.auxiliary, device.fabric()
        self._store = made_up_store(IMAGES, config.preparation.size).planes.on(fabric.device)
        encoder = PlaneEncoder(config.network, in_channels=1)
        self._encoder = encoder
        self._descent = Descent(encoder, self._settings, fabric)
        self._read = torch.compile(self._descent.wrapped, dynamic=False) if compiled else self._descent.wrapped
        self._rng, self._generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        self._seen = self.seen()

    @property
    def batch(self) -> int:
        """Images in a step."""
        return self._settings.batch_size

    def seen(self) -> Seen:
        """Draw a batch and change it."""
        images = self._rng.integers(IMAGES, size=self.batch).tolist()
        return see(images, self._store, self._settings.augmentation, rng=self._rng, generator=self._generator)

    def whole(self) -> None:
        """Take a step as training does."""
        self._step(self.seen())

    def network(self) -> None:
        """Take a step on the batch that is there."""
        self._step(self._seen)

    def _step(self, seen: Seen) -> None:
        reading = self._read(seen.planes)
        loss = lesion_loss(reading.lesions.float(), seen.lesions, seen.marked)
        loss = loss + presence_loss(self._encoder.presence(reading.vectors), seen)
        self._descent.step(loss, self._settings.learning_rate)


def seconds_of(step: Callable[[], None], steps: int) -> float:
    """Time a step: the median of three rounds, behind one that is not counted."""
    rounds = []
    for _ in range(4):
        finish_queued()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        finish_queued()
        rounds.append((time.perf_counter() - started) / steps)
    return statistics.median(rounds[1:])


def measured(preset: Preset, device: Device, *, steps: int, compiled: bool) -> dict[str, Any]:
    """Time one preset's steps."""
    plain = Steps(preset, device, compiled=False)
    whole, network = seconds_of(plain.whole, steps), seconds_of(plain.network, steps)
    figures: dict[str, Any] = {
        "batch": plain.batch,
        "milliseconds": round(whole * 1000, 1),
        "images_per_second": round(plain.batch / whole, 1),
        "outside_network_share": round(1 - network / whole, 3),
    }
    if compiled:
        started = time.perf_counter()
        by_compiler = Steps(preset, device, compiled=True)
        by_compiler.network()
        finish_queued()
        seconds = time.perf_counter() - started
        figures["compiled"] = {
            "times": round(network / seconds_of(by_compiler.network, steps), 2),
            "seconds": round(seconds, 1),
        }
    return figures


def main() -> None:
    """Time the presets and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compile", choices=("standard", "full"), nargs="*", default=[])
    options = parser.parse_args()
    device = choose_device("auto", None)
    presets: tuple[Preset, ...] = ("standard", "full")
    figures: dict[str, Any] = {"device": device.name, "precision": device.precision, "threads": device.threads}
    with deterministic(device.threads):
        for preset in presets:
            compiled = preset in options.compile
            figures[preset] = measured(preset, device, steps=options.steps, compiled=compiled)
            print(preset, figures[preset], flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
