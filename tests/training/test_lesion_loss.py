"""The loss between what is held to be lesion and the outline, worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from osteoscope.training.augment import Seen
from osteoscope.training.lesion_loss import LARGEST_REMAINDER, lesion_loss, presence_loss, silence_loss
from osteoscope.training.planes import Kind

# Covers all, half, none and a quarter of the cells of a 2 x 2 map.
LESION = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])[None, None]
# Likelihoods of 1/2, 3/4, 1/4 and 1/2.
LOGITS = torch.tensor([[0.0, log(3)], [-log(3), 0.0]])[None]

ENTROPY = (log(2) - (0.5 * log(3 / 4) + 0.5 * log(1 / 4)) - log(3 / 4) + log(2)) / 4
# Twice (1/2 + 3/8 + 0 + 1/8), and (1/4 + 9/16 + 1/16 + 1/4) + (1 + 1/4 + 0 + 1/16); one more on either side.
DICE = 1 - 3 / 3.4375
BY_HAND = 2 * ENTROPY + DICE

MARKED, UNMARKED = torch.tensor([True]), torch.tensor([False])


def test_a_small_map_has_the_loss_that_is_worked_out_by_hand() -> None:
    assert float(lesion_loss(LOGITS, LESION, MARKED)) == pytest.approx(BY_HAND, abs=1e-6)


@pytest.mark.parametrize("cells", [torch.ones(2, 2), torch.zeros(2, 2), torch.eye(2)])
def test_a_map_that_is_right_and_sure_costs_nothing(cells: torch.Tensor) -> None:
    lesion = torch.kron(cells, torch.ones(2, 2))[None, None]
    assert float(lesion_loss((cells * 2 - 1)[None] * 40, lesion, MARKED)) == pytest.approx(0, abs=1e-6)


def test_a_map_that_is_wrong_and_sure_costs_most() -> None:
    # Cross-entropy is the logit, 40; nothing overlaps, and the four cells are all there is: 1 - 1 / 5.
    for lesion in (torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)):
        logits = torch.full((1, 2, 2), 40.0) * (1 - 2 * lesion[0, 0, 0, 0])
        assert float(lesion_loss(logits, lesion, MARKED)) == pytest.approx(2 * 40 + 0.8, abs=1e-4)


def test_a_plane_without_an_annotation_teaches_nothing() -> None:
    logits = LOGITS.repeat(2, 1, 1).requires_grad_()
    loss = lesion_loss(logits, LESION.repeat(2, 1, 1, 1), torch.tensor([True, False]))
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(BY_HAND, abs=1e-6)
    assert bool((slope[0] != 0).all())
    assert bool((slope[1] == 0).all())


def test_without_any_annotation_there_is_no_loss_and_no_slope() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = lesion_loss(logits, LESION, UNMARKED)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert bool((slope == 0).all())


def test_the_loss_is_the_mean_over_the_annotated_planes() -> None:
    logits = torch.cat([LOGITS, torch.full((1, 2, 2), 40.0), torch.full((1, 2, 2), -40.0)])
    lesions = torch.cat([LESION, torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)])
    assert float(lesion_loss(logits, lesions, torch.tensor([True, True, False]))) == pytest.approx(
        BY_HAND / 2, abs=1e-6
    )


# Whether what is looked at is a lesion.


def seen(kinds: list[Kind], covered: list[float]) -> Seen:
    """Planes of 100 x 100, of which the lesion covers a share."""
    number = len(kinds)
    lesions = torch.zeros(number, 1, 100, 100)
    for lesion, share in zip(lesions, covered, strict=True):
        lesion.view(-1)[: round(share * 10_000)] = 1
    return Seen(
        planes=torch.zeros(number, 1, 100, 100),
        lesions=lesions,
        marked=torch.ones(number, dtype=torch.bool),
        images=torch.arange(number),
        kinds=torch.tensor(kinds),
        speak=torch.tensor(kinds) == Kind.REGION,
    )


def logit(likelihood: float) -> float:
    return log(likelihood / (1 - likelihood))


def test_a_regions_likelihood_is_to_be_one_and_that_of_another_part_none() -> None:
    logits = torch.tensor([logit(0.8), logit(0.25)])
    loss = presence_loss(logits, seen([Kind.REGION, Kind.ELSEWHERE], [0.4, 0.0]))
    assert float(loss) == pytest.approx(-(log(0.8) + log(0.75)) / 2, abs=1e-6)


def test_the_whole_image_and_a_square_into_which_a_lesion_looks_are_not_asked_of() -> None:
    logits = torch.tensor([logit(share) for share in (0.8, 0.1, 0.3, 0.5)], requires_grad=True)
    kinds = [Kind.REGION, Kind.FIRST, Kind.ELSEWHERE, Kind.ELSEWHERE]
    loss = presence_loss(logits, seen(kinds, [0.4, 0.1, LARGEST_REMAINDER + 0.01, LARGEST_REMAINDER - 0.01]))
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(-(log(0.8) + log(0.5)) / 2, abs=1e-6)
    assert (slope != 0).tolist() == [True, False, False, True]
    assert presence_loss(logits, seen([Kind.FIRST] * 4, [0.1] * 4)).item() == 0


def test_what_is_surely_wrong_is_dear_and_still_learnt_from() -> None:
    logits = torch.tensor([40.0], requires_grad=True)
    loss = presence_loss(logits, seen([Kind.ELSEWHERE], [0.0]))
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(40)
    assert slope.item() == pytest.approx(1)


def test_a_network_that_weighs_all_planes_alike_is_not_asked() -> None:
    assert presence_loss(None, seen([Kind.REGION, Kind.ELSEWHERE], [0.4, 0.0])).item() == 0


def test_where_no_lesion_is_seen_even_likelihoods_cost_nothing_and_others_their_divergence() -> None:
    said = torch.tensor([[0.0, log(3)], [2.0, 2.0], [0.0, 5.0], [0.0, 5.0]], requires_grad=True)
    kinds = [Kind.ELSEWHERE, Kind.ELSEWHERE, Kind.REGION, Kind.FIRST]
    loss = silence_loss(said, seen(kinds, [0.0, LARGEST_REMAINDER - 0.01, 0.4, 0.0]))
    (slope,) = torch.autograd.grad(loss, said)
    # A half and a half beside a quarter and three quarters; the mean of two planes.
    assert loss.item() == pytest.approx((0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)) / 2, abs=1e-6)
    assert (slope.abs().sum(dim=1) > 1e-6).tolist() == [True, False, False, False]
    assert slope[0, 1] > 0 > slope[0, 0]


def test_a_square_into_which_a_lesion_looks_may_speak() -> None:
    said = torch.tensor([[0.0, 5.0]])
    assert silence_loss(said, seen([Kind.ELSEWHERE], [LARGEST_REMAINDER + 0.01])).item() == 0
    assert silence_loss(said, seen([Kind.ELSEWHERE], [LARGEST_REMAINDER - 0.01])).item() > 1
