"""What every fit shares: its schedule, its epochs and where they go on, its averaged weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from osteoscope.errors import RunError
from osteoscope.training.epochs import State, averaged, learning_rate, parameter_groups, run_epochs

if TYPE_CHECKING:
    from pathlib import Path


def test_the_learning_rate_rises_in_a_tenth_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    # Half-way down half a cosine is half the peak: step 55 is 45 of 90 past the top.
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[9:] == sorted(rates[9:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_fit_of_few_steps_has_a_schedule(steps: int) -> None:
    assert all(math.isfinite(learning_rate(step, steps, 1.0)) for step in range(steps))


class Counting:
    """A module that each epoch adds its number to, from 1."""

    def __init__(self, folder: Path, loss: float = 1.0) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        optimiser = torch.optim.AdamW(self.module.parameters())
        self.state = State(folder=folder, modules={"network": self.module}, optimiser=optimiser)
        self.done: list[int] = []
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.loss = loss

    def epoch(self, number: int) -> dict[str, Any]:
        with torch.no_grad():
            self.module.weight += number + 1
        self.done.append(number)
        return {"epoch": number + 1, "loss": self.loss}

    def run(self, epochs: int) -> list[dict[str, Any]]:
        return run_epochs(
            self.state,
            self.epoch,
            epochs=epochs,
            checkpoint_every=2,
            watcher=lambda done, record: self.told.append((done, record)),
        )


def test_epochs_are_done_in_order_told_of_and_kept_at_their_end(tmp_path: Path) -> None:
    counting = Counting(tmp_path)
    history = counting.run(3)
    assert counting.done == [0, 1, 2]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert counting.told == [(place + 1, record) for place, record in enumerate(history)]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00003"]


def test_epochs_go_on_from_the_newest_checkpoint_as_if_nothing_had_come_between(tmp_path: Path) -> None:
    Counting(tmp_path).run(2)
    later = Counting(tmp_path)
    history = later.run(5)
    assert later.done == [2, 3, 4]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    # 1 + 2 + 3 + 4 + 5.
    assert later.module.weight.item() == 15


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = Counting(tmp_path).run(2)
    again = Counting(tmp_path)
    assert again.run(2) == first
    assert (again.done, again.told) == ([], [])
    assert again.module.weight.item() == 3


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_it_and_the_checkpoint_before_stays(tmp_path: Path, loss: float) -> None:
    Counting(tmp_path).run(2)
    with pytest.raises(RunError, match="no longer a number in epoch 3"):
        Counting(tmp_path, loss=loss).run(4)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00002"]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_is_exponential_buffers_included(decay: float) -> None:
    network = nn.BatchNorm1d(1)
    average = averaged(network, decay)
    values = [1.0, 2.0, 5.0]
    for value in values:
        nn.init.constant_(network.weight, value)
        network.get_buffer("running_mean").fill_(10 * value)
        network.get_buffer("num_batches_tracked").fill_(int(value))
        average.update_parameters(network)
    # The first is taken as it is.
    expected = decay * (decay * 1 + (1 - decay) * 2) + (1 - decay) * 5
    assert average.module.get_parameter("weight").item() == pytest.approx(expected)
    assert average.module.get_buffer("running_mean").item() == pytest.approx(10 * expected)
    # A count is no weight: it is that of the network.
    assert average.module.get_buffer("num_batches_tracked").item() == 5


def test_weight_decay_is_for_weights_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    weights, others = parameter_groups(network, 0.05)
    assert (weights["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    assert [tuple(p.shape) for p in weights["params"]] == [(2, 1, 3, 3), (2, 2)]
    # Two biases, and a norm's gain and offset.
    assert [tuple(p.shape) for p in others["params"]] == [(2,), (2,), (2,), (2,)]
