"""The trunk that is laid out for prediction computes what the fitted one does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from osteoscope.config import NetworkConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training import layout
from osteoscope.training.layout import laid_out


@pytest.fixture(scope="module")
def network() -> TumourNetwork:
    """A network whose normalisations are no identities: some gains negative, one 0."""
    torch.manual_seed(3)
    network = TumourNetwork(NetworkConfig(trunk="densenet121-truncated", width=32, heads=2), classes=2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.weight.data[0] = 0
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
    return network.eval()


# 32 channels to a layer, 64 before the first: a part at each layer, at every fourth, and one for all.
@pytest.mark.parametrize("closed_at", [32, 128, 10_000])
def test_it_computes_the_same(network: TumourNetwork, monkeypatch: pytest.MonkeyPatch, closed_at: int) -> None:
    monkeypatch.setattr(layout, "CLOSED_AT", closed_at)
    planes = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        taps = network.encoder.trunk(planes)
        quick = laid_out(network).encoder.trunk(planes)
    assert len(quick) == len(taps) == 2
    for one, reference in zip(quick, taps, strict=True):
        assert float((one - reference).abs().max()) < 1e-4 * float(reference.abs().max())


def test_the_network_stays_as_it_is(network: TumourNetwork) -> None:
    before = copy.deepcopy(network.state_dict())
    laid_out(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
