"""What every fit shares: epochs with checkpoints, the learning rate's schedule, averaged weights, parameter groups."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from osteoscope.errors import RunError
from osteoscope.training.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor
    from torch.optim import Optimizer

    from osteoscope.config import AuxiliaryConfig, TrainingConfig

# The learning rate rises over this share of the steps, then falls to nothing along half a cosine.
WARM_UP = 0.1


@dataclass(frozen=True, kw_only=True)
class State:
    """What a checkpoint holds."""

    folder: Path
    modules: dict[str, nn.Module]
    """Networks by the name of their file."""
    optimiser: Optimizer


class Descent:
    """A network, its averaged twin and their optimiser, on their device.

    Parameters
    ----------
    network
        Fitted in place; its planes are best given with channels last.
    settings
        Their learning rate, weight decay and averaging count.
    fabric
        Device and precision.
    """

    def __init__(self, network: nn.Module, settings: TrainingConfig | AuxiliaryConfig, fabric: Fabric) -> None:
        # Convolutions are a third faster with channels last.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self.average = averaged(network, settings.averaging).to(fabric.device)
        # Asked for in every step, it would have the processor wait for a GPU.
        self.average.n_averaged = self.average.n_averaged.cpu()
        groups = parameter_groups(network, settings.weight_decay)
        # Fused, it takes a fifth of the time on a processor, and next to no kernels on a GPU.
        self._optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self._fabric = fabric
        # Through these two, so that the chosen device and precision hold.
        self.wrapped, self._wrapped_optimiser = fabric.setup(network, self._optimiser)

    def state(self, folder: Path) -> State:
        """Say what a checkpoint in a folder holds."""
        modules = {"network": self._network, "average": self.average}
        return State(folder=folder, modules=modules, optimiser=self._optimiser)

    def step(self, loss: Tensor, rate: float, *, largest_gradient: float = math.inf) -> None:
        """Take a step down from a loss of `wrapped`, at a learning rate, its gradient clipped to a norm."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._fabric.backward(loss)
        if largest_gradient < math.inf:
            nn.utils.clip_grad_norm_(self._network.parameters(), largest_gradient)
        self._wrapped_optimiser.step()
        self._wrapped_optimiser.zero_grad()
        self.average.update_parameters(self._network)


@contextmanager
def first_weights(stream: tuple[int, ...], *, part: tuple[int, ...] = ()) -> Iterator[None]:
    """Let what is built within begin with weights that depend on nothing but a stream of numbers, and a part of it."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(stream, spawn_key=part).generate_state(1)[0]))
        yield


def run_epochs(
    state: State,
    epoch: Callable[[int], dict[str, Any]],
    *,
    epochs: int,
    checkpoint_every: int,
    watcher: Callable[[int, dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Do epochs, going on from a checkpoint if there is one.

    Parameters
    ----------
    state
        Brought to the newest checkpoint first.
    epoch
        Does the epoch of a number, counted from 0, and gives its record with a ``loss``.
    epochs
        How many there are to be.
    checkpoint_every
        Epochs between two checkpoints.
    watcher
        Is told how many epochs are done, and the record of the last.

    Raises
    ------
    RunError
        If the loss is no longer a number; the checkpoint before stays.
    StorageError
        If a checkpoint cannot be written.

    Returns
    -------
    The records of all epochs.
    """
    done, history = load_checkpoint(state.folder, modules=state.modules, optimiser=state.optimiser)
    for number in range(done, epochs):
        record = epoch(number)
        if not math.isfinite(record["loss"]):
            raise RunError(
                f"the loss is no longer a number in epoch {number + 1}",
                remedy="lower the learning rate or set training.precision = '32-true', in a new folder",
            )
        history.append(record)
        if (number + 1) % checkpoint_every == 0 or number + 1 == epochs:
            save_checkpoint(
                state.folder, epoch=number + 1, modules=state.modules, optimiser=state.optimiser, history=history
            )
        watcher(number + 1, record)
    return history


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Give the rate of a step: a linear rise to `peak`, then half a cosine down to 0.

    Parameters
    ----------
    step
        Counted from 0.
    steps
        Of the whole fit.
    peak
        The highest rate.
    """
    rise = max(1.0, WARM_UP * steps)
    if step + 1 <= rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise)))


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Keep an exponential average of a network's weights; with a decay of 0 the average is the network itself."""

    def follow(average: Any, current: Any, _updates: Any) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - decay)
        else:
            # Counters of batches, which nothing asks for; one by one they would take longer than all weights.
            torch._foreach_copy_(average, current)

    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Keep weight decay off what is not a weight: biases, norms, gains."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
