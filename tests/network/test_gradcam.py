"""Evidence in closed form against autograd and a peer; hooks that always come off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.visualize.class_activation_maps import GradCAM

from osteoscope.config import NetworkConfig
from osteoscope.inference.engine import Judgement, PlaneReadings
from osteoscope.inference.evidence import closed_form_evidence
from osteoscope.network.classifier import TumourNetwork
from osteoscope.network.gradcam import difference_through_weights, grad_cam, hires_cam

CLASSES = 3


@pytest.fixture(params=[False, True], ids=["everywhere", "focus"])
def network(request: pytest.FixtureRequest) -> TumourNetwork:
    torch.manual_seed(3)
    config = NetworkConfig(trunk="densenet-tiny", width=16, heads=2, focus=request.param)
    network = TumourNetwork(config, classes=CLASSES).eval()
    torch.nn.init.normal_(network.get_parameter("encoder.lesion.last.weight"))
    torch.nn.init.normal_(network.get_parameter("encoder.gate.score.weight"))
    torch.nn.init.normal_(network.get_parameter("encoder.attention.gain"))
    return network


def closed_form(network: TumourNetwork, planes: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        reading = network.encoder(planes)
        judged = network.head(reading.scores, reading.vectors, torch.ones(1, len(planes), dtype=torch.bool))
    readings = PlaneReadings(
        scores=reading.scores.numpy(),
        vectors=reading.vectors.numpy(),
        maps=network.class_maps(reading.maps).detach().numpy(),
        lesions=torch.sigmoid(reading.lesions).numpy(),
    )
    return closed_form_evidence(
        [readings], [Judgement(logits=judged.logits[0].numpy(), weights=judged.weights[0].numpy())]
    )


class CentredLogits(torch.nn.Module):
    """One plane to its centred logits, as a peer's Grad-CAM wants it."""

    def __init__(self, network: TumourNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(planes, torch.ones(1, 1, dtype=torch.bool)).logits
        return logits - logits.mean(dim=1, keepdim=True)


def test_one_plane_agrees_with_monais_grad_cam_up_to_the_constant(network: TumourNetwork) -> None:
    plane = torch.rand(1, 1, 64, 64)
    ours = closed_form(network, plane)
    peer = GradCAM(
        CentredLogits(network),
        target_layers="network.encoder.map",
        upsampler=lambda _size: torch.nn.Identity(),
        postprocessing=torch.nn.Identity(),
    )
    for target in range(CLASSES):
        theirs = peer(plane, class_idx=target)[0, 0]
        # Grad-CAM averages the gradient over the 4x4 grid, the closed form shares the logit out over it: the same here.
        positive = torch.from_numpy(ours[0, target]).clamp_min(0)
        torch.testing.assert_close(positive, theirs, rtol=1e-4, atol=1e-7)
        assert theirs.max() > 0 or positive.max() == 0


def test_several_planes_agree_with_autograd_when_their_weights_are_held(network: TumourNetwork) -> None:
    planes = torch.rand(3, 1, 64, 64)
    ours = closed_form(network, planes)
    reading = network.encoder(planes)
    maps = reading.maps.detach().requires_grad_()
    weights = torch.softmax(reading.scores.detach(), dim=0)
    for target in range(CLASSES):
        logits = network.head.linear((weights[:, None] * maps.mean(dim=(2, 3))).sum(dim=0))
        (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), maps)
        expected = (gradient * maps).sum(dim=1).detach().numpy()
        np.testing.assert_allclose(ours[:, target], expected, rtol=1e-4, atol=1e-7)


def test_evidence_adds_up_to_the_images_part_of_the_centred_logit(network: TumourNetwork) -> None:
    planes = torch.rand(4, 1, 64, 64)
    with torch.no_grad():
        logits = network(planes, torch.ones(1, 4, dtype=torch.bool)).logits[0] - network.head.linear.bias
    np.testing.assert_allclose(
        closed_form(network, planes).sum(axis=(0, 2, 3)), (logits - logits.mean()).numpy(), rtol=1e-4, atol=1e-5
    )


def test_two_classes_have_one_map_with_two_signs() -> None:
    torch.manual_seed(4)
    network = TumourNetwork(NetworkConfig(trunk="densenet-tiny", width=16, heads=2), classes=2).eval()
    evidence = closed_form(network, torch.rand(2, 1, 64, 64))
    np.testing.assert_allclose(evidence[:, 0], -evidence[:, 1], rtol=1e-4, atol=1e-8)


def test_what_the_closed_form_leaves_out_is_what_flows_through_the_weights(network: TumourNetwork) -> None:
    planes = torch.rand(2, 1, 64, 64)
    share = difference_through_weights(network, planes, scores=torch.zeros(2), target=0)
    full = hires_cam(network, planes, layer="encoder.map", target=0).numpy()
    ours = closed_form(network, planes)[:, 0]
    assert share == pytest.approx(np.abs(full - ours).sum() / np.abs(ours).sum(), rel=1e-4)
    assert share > 0
    torch.nn.init.zeros_(network.get_parameter("encoder.gate.score.weight"))
    # Weights that do not depend on the planes carry no gradient.
    assert difference_through_weights(network, planes, scores=torch.zeros(2), target=0) == pytest.approx(0, abs=1e-5)


def test_what_is_added_to_the_scores_counts_in_what_the_closed_form_leaves_out(network: TumourNetwork) -> None:
    """A plane that surely is no lesion weighs nothing, and one alone has nothing to flow through."""
    planes = torch.rand(2, 1, 64, 64)
    share = difference_through_weights(network, planes, scores=torch.tensor([0.0, -80.0]), target=0)
    assert share == pytest.approx(0, abs=1e-5)


def test_grad_cam_at_an_inner_layer_is_the_textbook_formula(network: TumourNetwork) -> None:
    planes = torch.rand(2, 1, 64, 64)
    layer = "encoder.trunk.blocks.1"
    kept: list[torch.Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    logits = network(planes.requires_grad_(), torch.ones(1, 2, dtype=torch.bool)).logits[0]
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[1] - logits.mean(), kept[0])
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1)
    torch.testing.assert_close(
        grad_cam(network, planes, layer=layer, target=1), expected.detach(), rtol=1e-4, atol=1e-6
    )
    expected = (gradient * kept[0]).sum(dim=1)
    torch.testing.assert_close(
        hires_cam(network, planes, layer=layer, target=1), expected.detach(), rtol=1e-4, atol=1e-6
    )


def test_hooks_come_off_and_modes_come_back_even_after_a_failure(network: TumourNetwork) -> None:
    network.train()
    network.encoder.trunk.eval()
    planes = torch.rand(2, 1, 64, 64)
    with pytest.raises(IndexError):
        grad_cam(network, planes, layer="encoder.map", target=99)
    grad_cam(network, planes, layer="encoder.map", target=0)
    assert network.training
    assert not network.encoder.trunk.training
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_layer_that_does_not_exist_is_named(network: TumourNetwork) -> None:
    with pytest.raises(ValueError, match="no layer is called 'nowhere'"):
        grad_cam(network, torch.rand(1, 1, 64, 64), layer="nowhere", target=0)


def test_a_layer_that_decides_nothing_is_refused(network: TumourNetwork) -> None:
    with pytest.raises(ValueError, match=r"layer 'encoder\.lesion\.mix' has no part in the logits"):
        grad_cam(network, torch.rand(1, 1, 64, 64), layer="encoder.lesion.mix", target=0)


def test_a_layer_without_a_map_is_refused(network: TumourNetwork) -> None:
    # A vector, several maps, and several things at once.
    for layer in ("encoder.gate", "encoder.trunk", "encoder"):
        with pytest.raises(ValueError, match=f"layer '{layer}' gives no map"):
            grad_cam(network, torch.rand(1, 1, 64, 64), layer=layer, target=0)
