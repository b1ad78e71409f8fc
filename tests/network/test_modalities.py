"""A network of several modalities is told of each plane what it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from osteoscope.config import NetworkConfig
from osteoscope.imaging.mixed import indicators
from osteoscope.inference.engine import MemberEngine
from osteoscope.network.classifier import TumourNetwork
from osteoscope.network.gradcam import hires_cam
from osteoscope.training.export import export_member
from osteoscope.training.layout import laid_out
from osteoscope.training.quantise import quantise

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS, MODALITIES = 6, 3
CONFIG = NetworkConfig(trunk="densenet-tiny", width=16, heads=2, focus=True)
BAG = torch.ones(1, 4, dtype=torch.bool)


def made(config: NetworkConfig = CONFIG, *, trained: bool = True) -> TumourNetwork:
    torch.manual_seed(0)
    network = TumourNetwork(config, classes=2, in_channels=CHANNELS + MODALITIES, modalities=MODALITIES).eval()
    if trained:
        for name in ("modality.linear.weight", "gate.score.weight", "lesion.last.weight"):
            torch.nn.init.normal_(network.get_parameter(f"encoder.{name}"))
        torch.nn.init.normal_(network.get_parameter("encoder.attention.gain"))
    return network


def mixed_bag(*places: int) -> torch.Tensor:
    """Give the same four planes, each said to be of the modality at a place."""
    images = torch.rand(4, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(1))
    told = torch.from_numpy(indicators(places, MODALITIES))[:, :, None, None].expand(-1, -1, 64, 64)
    return torch.cat([images, told], dim=1)


def test_what_a_plane_is_of_changes_the_answer_of_a_network_that_has_learnt_and_of_no_other() -> None:
    with torch.no_grad():
        for trained in (False, True):
            network = made(trained=trained)
            one, other = (network(mixed_bag(*places), BAG).logits for places in ((0, 0, 1, 2), (0, 0, 2, 1)))
            assert torch.equal(one, other) != trained


def test_it_is_no_part_of_what_the_trunk_reads() -> None:
    network = made(trained=False)
    alone = TumourNetwork(CONFIG, classes=2, in_channels=CHANNELS).eval()
    own = {name: value for name, value in network.state_dict().items() if "modality" not in name}
    alone.load_state_dict(own)
    bag = mixed_bag(0, 1, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(network(bag, BAG).logits, alone(bag[:, :CHANNELS], BAG).logits, rtol=0, atol=0)


def test_a_network_of_one_modality_starts_from_the_weights_that_it_always_had() -> None:
    torch.manual_seed(0)
    alone = TumourNetwork(CONFIG, classes=2, in_channels=CHANNELS)
    assert not any("modality" in name for name in alone.state_dict())
    of_mix = made(trained=False).state_dict()
    assert all(
        torch.equal(of_mix[name], value)
        for name, value in alone.encoder.trunk.state_dict(prefix="encoder.trunk.").items()
    )


def test_what_was_learnt_of_a_modality_is_added_to_the_fused_map_everywhere_alike() -> None:
    network = made()
    fused: list[torch.Tensor] = []
    network.encoder.attention.register_forward_pre_hook(lambda _module, inputs: fused.append(inputs[0]))
    with torch.no_grad():
        network.encoder(mixed_bag(0, 1, 2, 2))
        network.encoder(mixed_bag(1, 1, 2, 2))
    weight = network.get_parameter("encoder.modality.linear.weight")
    shift = (weight[:, 1] - weight[:, 0])[:, None, None].expand(fused[0].shape[1:])
    torch.testing.assert_close(fused[1][0] - fused[0][0], shift, rtol=1e-4, atol=1e-4)
    assert torch.equal(fused[1][1:], fused[0][1:])


@pytest.mark.parametrize("plain", [False, True], ids=["optimised", "plain"])
def test_evidence_of_a_mixed_bag_is_what_autograd_gives_with_the_weights_held(plain: bool) -> None:
    config = CONFIG.model_copy(update={"multiscale": False, "attention": False}) if plain else CONFIG
    torch.manual_seed(0)
    network = made() if not plain else TumourNetwork(config, classes=2, in_channels=9, modalities=3).eval()
    torch.nn.init.normal_(network.get_parameter("encoder.modality.linear.weight"))
    planes = mixed_bag(0, 0, 1, 2)
    reading = network.encoder(planes)
    maps = reading.maps.detach().requires_grad_()
    weights = torch.softmax(reading.scores.detach(), dim=0)
    for target in range(2):
        logits = (weights[:, None] * network.head.linear(maps.mean(dim=(-2, -1)))).sum(dim=0)
        (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), maps, retain_graph=True)
        closed = network.class_maps(maps)[:, target] * weights[:, None, None] / maps[0, 0].numel()
        torch.testing.assert_close((gradient * maps).sum(dim=1), closed, rtol=1e-4, atol=1e-6)
    # Of one plane no weight has to be held, so that HiResCAM through the whole network is the same.
    one = planes[2:3]
    with torch.no_grad():
        of_one = network.class_maps(network.encoder(one).maps)[:, 1] / maps[0, 0].numel()
    torch.testing.assert_close(hires_cam(network, one, layer="encoder.map", target=1), of_one, rtol=1e-4, atol=1e-6)


def test_graphs_say_what_the_network_says_in_float32_and_nearly_so_in_eight_bits(tmp_path: Path) -> None:
    network = made()
    planes = mixed_bag(0, 1, 2, 1).numpy()
    parity = export_member(network, tmp_path, planes=planes, covariates=None)
    assert parity.worst() < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(
            laid_out(network)(torch.from_numpy(planes), BAG).logits,
            network(torch.from_numpy(planes), BAG).logits,
            rtol=1e-4,
            atol=1e-5,
        )
    quantise(network, tmp_path, planes=planes)
    full = MemberEngine(tmp_path, runtime="openvino").read(planes)
    rounded = MemberEngine(tmp_path, runtime="openvino", precision="int8").read(planes)
    assert np.corrcoef(full.maps.ravel(), rounded.maps.ravel())[0, 1] > 0.95
    # The graph is told too.
    other = MemberEngine(tmp_path, runtime="onnxruntime").read(mixed_bag(0, 1, 2, 2).numpy())
    assert not np.allclose(other.scores[3], full.scores[3])
    np.testing.assert_allclose(other.scores[:3], full.scores[:3], rtol=1e-3, atol=1e-4)
