"""The optimised DenseNet: shapes, zero starts, ablations, bags, missing covariates."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from osteoscope.config import NetworkConfig, Trunk, preset_config
from osteoscope.network.attention import LARGEST_OFFSET, GridSelfAttention
from osteoscope.network.classifier import Focus, TumourNetwork, standardise
from osteoscope.network.multiscale import MultiScaleFusion
from osteoscope.network.pooling import PlaneGate, plane_weights
from osteoscope.network.trunk import PLANS, DenseTrunk

TINY = NetworkConfig(trunk="densenet-tiny", width=16, heads=2)


def one_bag(planes: int) -> torch.Tensor:
    return torch.ones(1, planes, dtype=torch.bool)


@pytest.mark.parametrize("trunk", ["densenet121", "densenet121-truncated", "densenet-tiny"])
def test_taps_have_the_channels_and_strides_of_the_plan(trunk: Trunk) -> None:
    network = DenseTrunk(trunk, in_channels=1).eval()
    with torch.no_grad():
        taps = network(torch.rand(1, 1, 64, 64))
    assert [tap.shape[1] for tap in taps] == list(network.tap_channels)
    assert [64 // tap.shape[2] for tap in taps] == list(network.tap_strides)


def test_densenet_121_has_the_published_channels_after_each_block() -> None:
    # Huang et al. 2017, table 1: 64 + 6*32 = 256, halved 128 + 12*32 = 512, 256 + 24*32 = 1024, 512 + 16*32 = 1024.
    assert PLANS["densenet121"].tap_channels() == (256, 512, 1024, 1024)


def test_densenet_121_trunk_has_as_many_parameters_as_published() -> None:
    # torchvision's densenet121 without classifier: 6,953,856 with a 3-channel stem; one channel saves 2*64*49, and the
    # last norm (2*1024) belongs to the map here.
    count = sum(parameter.numel() for parameter in DenseTrunk("densenet121", in_channels=1).parameters())
    assert count == 6_953_856 - 2 * 64 * 49 - 2 * 1024


def test_fusion_adds_all_scales_on_the_stride_16_grid() -> None:
    fusion = MultiScaleFusion([1, 1, 1], [8, 16, 32], width=1).eval()
    for projection in fusion.projections:
        torch.nn.init.ones_(list(projection.parameters())[-1])
    fine = torch.arange(64.0).reshape(1, 1, 8, 8)
    middle = torch.full((1, 1, 4, 4), 100.0)
    coarse = torch.full((1, 1, 2, 2), 1000.0)
    with torch.no_grad():
        fused = fusion([fine, middle, coarse])
    # Untrained batch norm in evaluation divides by sqrt(1 + eps); the first cell averages pixels 0, 1, 8 and 9.
    assert fused.shape == (1, 1, 4, 4)
    assert fused[0, 0, 0, 0].item() == pytest.approx((4.5 + 100 + 1000) / (1 + 1e-5) ** 0.5, rel=1e-6)


def test_attention_changes_nothing_until_trained() -> None:
    attention = GridSelfAttention(width=16, heads=2)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(attention(x), x)


def test_attention_agrees_with_torchs_own() -> None:
    torch.manual_seed(0)
    attention = GridSelfAttention(width=16, heads=4)
    for parameter in (attention.gain, attention.row_terms, attention.column_terms):
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 16, 3, 4)
    normed = attention.norm(x)
    tokens = normed.flatten(2).transpose(1, 2)
    weight = attention.qkv.weight[:, :, 0, 0]
    peer, _ = torch.nn.functional.multi_head_attention_forward(
        *(tokens.transpose(0, 1),) * 3,
        embed_dim_to_check=16,
        num_heads=4,
        in_proj_weight=weight,
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attention.out.weight[:, :, 0, 0],
        out_proj_bias=None,
        attn_mask=attention.position_terms(3, 4).repeat(2, 1, 1),
    )
    expected = x + attention.gain * peer.permute(1, 2, 0).reshape(2, 16, 3, 4)
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


def test_position_terms_depend_on_the_offset_alone() -> None:
    attention = GridSelfAttention(width=8, heads=1)
    with torch.no_grad():
        attention.row_terms[0] = torch.arange(2.0 * LARGEST_OFFSET + 1)
        attention.column_terms[0] = 100 * torch.arange(2.0 * LARGEST_OFFSET + 1)
    terms = attention.position_terms(2, 3)[0]
    # Query (row 0, column 2) is position 2; key (row 1, column 0) is position 3: offsets +1 and -2.
    assert terms[2, 3].item() == (LARGEST_OFFSET + 1) + 100 * (LARGEST_OFFSET - 2)


def test_weights_of_planes_sum_to_one_within_each_patient_alone() -> None:
    scores = torch.tensor([0.0, torch.log(torch.tensor(3.0)), 5.0])
    membership = torch.tensor([[True, True, False], [False, False, True]])
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(plane_weights(scores, membership), expected)


def test_a_plane_is_as_likely_as_not_until_trained_so_all_weigh_the_same() -> None:
    scores = PlaneGate(16)(torch.randn(5, 16))
    torch.testing.assert_close(scores, torch.full((5,), 0.5).log())
    torch.testing.assert_close(plane_weights(scores, one_bag(5)), torch.full((1, 5), 0.2))


def gate_of(logits: list[float]) -> torch.Tensor:
    """Score planes whose likelihoods have these logits, by a gate that passes the one entry of their vectors on.

    Its gate is open (the sigmoid of 40 is 1), and its content is the hyperbolic tangent, which is undone here.
    """
    largest = 2 * max(map(abs, logits))
    gate = PlaneGate(1, hidden=1)
    with torch.no_grad():
        for parameter, value in zip(gate.parameters(), (1.0, 0.0, 0.0, 40.0, largest), strict=True):
            parameter.fill_(value)
        scores: torch.Tensor = gate((torch.tensor(logits) / largest).atanh()[:, None])
    return scores


def test_a_score_is_the_logarithm_of_a_likelihood() -> None:
    # ln 3 is the logit of 3/4.
    scores = gate_of([math.log(3), -math.log(3), 0.0])
    torch.testing.assert_close(scores.exp(), torch.tensor([0.75, 0.25, 0.5]))
    assert (scores <= 0).all()


def test_a_plane_weighs_as_much_as_it_is_likely_to_show_what_matters() -> None:
    torch.testing.assert_close(
        plane_weights(gate_of([math.log(3), -math.log(3)]), one_bag(2)), torch.tensor([[0.75, 0.25]])
    )


def test_planes_that_surely_show_what_matters_weigh_alike_however_sure() -> None:
    sure = plane_weights(gate_of([20.0, 90.0, -20.0]), one_bag(3))
    torch.testing.assert_close(sure, torch.tensor([[0.5, 0.5, 0.0]]), rtol=0, atol=1e-7)


def test_the_surest_scores_are_numbers() -> None:
    # 0 less exp(-1000), and -1000.
    assert gate_of([1000.0, -1000.0]).tolist() == pytest.approx([0, -1000], rel=1e-5)


def test_a_patient_is_judged_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(1)
    network = TumourNetwork(TINY, classes=3).eval()
    torch.nn.init.normal_(network.get_parameter("encoder.gate.score.weight"))
    planes = torch.rand(5, 1, 64, 64)
    membership = torch.tensor([[True, True, False, False, False], [False, False, True, True, True]])
    with torch.no_grad():
        together = network(planes, membership).logits
        first, second = network(planes[:2], one_bag(2)).logits, network(planes[2:], one_bag(3)).logits
    torch.testing.assert_close(together, torch.cat([first, second]), rtol=1e-5, atol=1e-6)


def test_the_order_of_a_patients_planes_does_not_matter() -> None:
    torch.manual_seed(2)
    network = TumourNetwork(TINY, classes=2).eval()
    planes = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        forward, backward = network(planes, one_bag(3)).logits, network(planes.flip(0), one_bag(3)).logits
    torch.testing.assert_close(forward, backward, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "grid"), [(64, 4), (96, 6), (160, 10)])
def test_maps_lie_on_the_stride_16_grid_whatever_the_size(size: int, grid: int) -> None:
    network = TumourNetwork(TINY, classes=2).eval()
    with torch.no_grad():
        reading = network.encoder(torch.rand(2, 1, size, size))
    assert reading.maps.shape == (2, 16, grid, grid)
    assert (reading.maps >= 0).all()


def test_the_lesion_map_lies_on_the_grid_of_the_finest_tap() -> None:
    network = TumourNetwork(TINY, classes=2).eval()
    with torch.no_grad():
        reading = network.encoder(torch.rand(2, 1, 64, 96))
    assert reading.maps.shape[-2:] == (4, 6)
    assert reading.lesions.shape == (2, 8, 12)


def test_untrained_few_places_are_held_to_be_lesion() -> None:
    network = TumourNetwork(TINY, classes=2).eval()
    with torch.no_grad():
        likely = network.encoder(torch.rand(4, 1, 64, 64)).lesions.sigmoid()
    # A logit of -3 is a likelihood of 4.7 %.
    assert 0.01 < likely.mean() < 0.15


def test_the_whole_network_says_where_it_holds_a_lesion_to_be_as_its_encoder_does() -> None:
    network = TumourNetwork(TINY, classes=2).eval()
    planes = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(planes, one_bag(3)).lesions, network.encoder(planes).lesions)


def test_the_lesion_head_has_no_say_in_the_class() -> None:
    network = TumourNetwork(TINY, classes=2).eval()
    planes = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        before = network(planes, one_bag(2)).logits
        network.get_parameter("encoder.lesion.last.weight").fill_(7)
        assert torch.equal(network(planes, one_bag(2)).logits, before)


def test_a_focus_lets_places_speak_as_much_as_they_are_likely_to_be_lesion() -> None:
    activated = torch.ones(2, 3, 2, 2)
    lesions = torch.full((2, 4, 4), -40.0)
    lesions[0, :2, :2] = 40.0
    focused = Focus()(activated, lesions)
    # One position of four at likelihood 1, the others at 0, all plus 0.02: the mean is 1.08 / 4.
    assert torch.allclose(focused[0, :, 0, 0], torch.tensor(1.02 * 4 / 1.08))
    assert torch.allclose(focused[0, :, 1, 1], torch.tensor(0.02 * 4 / 1.08))
    # Where nothing is likely to be lesion, the plane is heard as a whole.
    assert torch.allclose(focused[1], activated[1])


def test_what_is_learnt_of_the_class_does_not_say_where_lesions_are() -> None:
    network = TumourNetwork(TINY.model_copy(update={"focus": True}), classes=2)
    network(torch.rand(2, 1, 64, 64), one_bag(2)).logits[0, 0].backward()
    assert network.get_parameter("encoder.lesion.last.weight").grad is None
    stem = network.encoder.trunk.stem.parameters()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in stem)


def test_learning_where_lesions_are_changes_map_a() -> None:
    network = TumourNetwork(TINY, classes=2)
    network(torch.rand(2, 1, 64, 64), one_bag(2)).lesions.sum().backward()
    gradient = network.get_parameter("encoder.norm.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert network.get_parameter("head.linear.weight").grad is None


def test_covariates_add_to_the_logits_and_start_at_nothing() -> None:
    network = TumourNetwork(TINY, classes=2, covariates=2).eval()
    planes, none, some = torch.rand(1, 1, 64, 64), torch.zeros(1, 2), torch.tensor([[1.0, 2.0]])
    with torch.no_grad():
        assert torch.equal(network(planes, one_bag(1), some).logits, network(planes, one_bag(1), none).logits)
        network.get_parameter("head.covariates.weight").copy_(torch.tensor([[1.0, 10.0], [0.0, 0.0]]))
        difference = network(planes, one_bag(1), some).logits - network(planes, one_bag(1), none).logits
    torch.testing.assert_close(difference, torch.tensor([[21.0, 0.0]]))


def test_a_network_that_was_built_for_covariates_asks_for_them() -> None:
    network = TumourNetwork(TINY, classes=2, covariates=2)
    with pytest.raises(ValueError, match="built for covariates"):
        network(torch.rand(2, 1, 64, 64), one_bag(2))


def test_a_constant_plane_becomes_zero_and_not_a_number() -> None:
    # Rounding of the mean may leave a little; nothing that a network could see.
    torch.testing.assert_close(standardise(torch.full((1, 1, 8, 8), 0.7)), torch.zeros(1, 1, 8, 8), rtol=0, atol=0.01)


def test_brightness_and_contrast_do_not_matter() -> None:
    planes = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(standardise(planes), standardise(0.3 * planes + 0.2), rtol=1e-4, atol=1e-4)


def test_the_matched_control_has_as_many_parameters_as_the_optimised_network() -> None:
    def size(network: str) -> int:
        config = preset_config("standard", network=network).network  # type: ignore[arg-type]
        return sum(parameter.numel() for parameter in TumourNetwork(config, classes=2).parameters())

    assert size("matched") == pytest.approx(size("optimised"), rel=0.02)
    assert size("plain") < 0.95 * size("optimised")


@pytest.mark.parametrize("kept", ["multiscale", "attention"])
def test_a_matched_control_that_keeps_one_part_has_as_many_parameters_too(kept: str) -> None:
    whole = preset_config("standard").network
    control = whole.model_copy(update={"multiscale": False, "attention": False, kept: True, "matched": True})
    sizes = [sum(p.numel() for p in TumourNetwork(one, classes=2).parameters()) for one in (control, whole)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize("multiscale", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_each_part_can_be_switched_off(*, multiscale: bool, attention: bool) -> None:
    config = TINY.model_copy(update={"multiscale": multiscale, "attention": attention})
    network = TumourNetwork(config, classes=2).eval()
    names = [name for name, _ in network.named_parameters()]
    assert any("attention" in name for name in names) is attention
    assert any("projections" in name for name in names) is multiscale
    with torch.no_grad():
        assert network(torch.rand(2, 1, 64, 64), one_bag(2)).logits.shape == (1, 2)


def test_a_control_without_anything_to_stand_in_for_is_refused() -> None:
    with pytest.raises(ValidationError, match="switched off"):
        NetworkConfig(matched=True)
