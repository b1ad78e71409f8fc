"""Two looks at a patient's images, by networks that are simple enough to be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.errors import InputError
from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.inference.engine import Judgement, Member, MemberEngine, PlaneReadings
from osteoscope.inference.evidence import evidence_on_image
from osteoscope.inference.predict import predict_case
from osteoscope.inference.radiographs import PreparedRadiographs, prepare_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from osteoscope.inference.prediction import ExplainedCase

SIZE = 32
GRID = 6

TWICE = PreparationConfig(size=SIZE, margin=0, second_look=True)
ONCE = PreparationConfig(size=SIZE, margin=0)

Blocks = dict[tuple[int, int], float]
"""Likelihood of lesion in two by two cells, by the row and column of the first."""


class Handmade(MemberEngine):
    """Knows a plane by its middle pixel, v: weighs it by v, and gives class 0 `gain` times v and class 1 the contrary.

    `blocks` says, for the planes with a certain v, where it sees a lesion.
    """

    def __init__(self, blocks: Mapping[float, Blocks] | None = None, *, gain: float = 1) -> None:
        self.blocks = blocks or {}
        self.gain = gain
        self.read_in_turn: list[list[float]] = []

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        assert planes.shape[1:] == (1, SIZE, SIZE)
        values = planes[:, 0, SIZE // 2, SIZE // 2]
        self.read_in_turn.append([round(float(v), 4) for v in values])
        lesions = np.zeros((len(planes), GRID, GRID), dtype=np.float32)
        for lesion, value in zip(lesions, self.read_in_turn[-1], strict=True):
            for (row, column), likelihood in self.blocks.get(value, {}).items():
                lesion[row : row + 2, column : column + 2] = likelihood
        said = self.gain * values[:, None, None, None] * np.array([1, -1], dtype=np.float32)[None, :, None, None]
        return PlaneReadings(
            scores=np.log(values),
            vectors=values[:, None],
            maps=np.broadcast_to(said, (len(planes), 2, GRID, GRID)).astype(np.float32),
            lesions=lesions,
        )

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        weights = np.exp(readings.scores) / np.exp(readings.scores).sum()
        logit = self.gain * float(weights @ readings.vectors[:, 0])
        return Judgement(logits=np.array([logit, -logit], dtype=np.float32), weights=weights)


def picture(
    middle: float, patches: Blocks | None = None, *, shape: tuple[int, int] = (120, 120)
) -> NDArray[np.float32]:
    """An even picture, with patches of 40 x 40 pixels that are two by two cells of the first look at 120 x 120."""
    pixels = np.full(shape, middle, dtype=np.float32)
    for (row, column), value in (patches or {}).items():
        pixels[20 * row : 20 * row + 40, 20 * column : 20 * column + 40] = value
    return pixels


def case_of(pixels: Sequence[NDArray[np.float32]], lesions: Sequence[tuple[Lesion, ...]] | None = None) -> Case:
    images = tuple(
        CaseImage(
            image=f"{place}.png",
            path=Path(f"{place}.png"),
            pixel_sha256="",
            rows=one.shape[0],
            columns=one.shape[1],
            modality="radiograph",
            lesions=lesions[place] if lesions else (),
        )
        for place, one in enumerate(pixels)
    )
    return Case(patient="P", label=1, images=images)


def prepared(
    pixels: Sequence[NDArray[np.float32]],
    preparation: PreparationConfig,
    lesions: Sequence[tuple[Lesion, ...]] | None = None,
) -> PreparedRadiographs:
    return prepare_pixels(pixels, lesions or [()] * len(pixels), preparation)


def explain(
    pixels: Sequence[NDArray[np.float32]], engines: Sequence[Handmade], preparation: PreparationConfig = TWICE
) -> ExplainedCase:
    return predict_case(case_of(pixels), prepared(pixels, preparation), [Member(engine=engine) for engine in engines])


# Image 0 is 0.2 in its middle and 0.8 in a patch, which is seen; image 1 is 0.5 throughout.
SEEN: Blocks = {(0, 3): 0.8}
TWO_IMAGES = (picture(0.2, SEEN), picture(0.5))


def seeing() -> Handmade:
    return Handmade({0.2: {(0, 3): 0.9}})


def test_what_was_found_is_read_from_the_image_as_it_is() -> None:
    engine = seeing()
    explained = explain(TWO_IMAGES, [engine])
    assert engine.read_in_turn == [[0.2, 0.5], [0.8]]
    first, region = explained.prediction.images[0].looks
    assert first.read_square() == Square(left=0, top=0, side=120)
    np.testing.assert_allclose(region.rectangle, (60, 0, 40, 40), atol=1e-9)
    assert first.likelihood is None
    assert region.likelihood == pytest.approx(0.9)


def test_regions_and_images_without_one_are_judged_together() -> None:
    prediction = explain(TWO_IMAGES, [seeing()]).prediction
    # The first look at image 0 found the region, and has no say. Weights are 0.8 and 0.5 over 1.3; the logit is
    # (0.8^2 + 0.5^2) / 1.3 = 0.89 / 1.3.
    np.testing.assert_allclose(prediction.logits, (0.89 / 1.3, -0.89 / 1.3), rtol=1e-5)
    weights = [[look.weight for look in image.looks] for image in prediction.images]
    np.testing.assert_allclose(weights[0], [0, 0.8 / 1.3], rtol=1e-5)
    np.testing.assert_allclose(weights[1], [0.5 / 1.3], rtol=1e-5)


def test_what_the_first_look_shows_beside_a_region_changes_nothing() -> None:
    """The gate would give the bright first look the most weight."""
    for middle in (0.01, 0.99):
        prediction = explain([picture(middle, SEEN)], [Handmade({middle: SEEN})]).prediction
        np.testing.assert_allclose(prediction.logits, (0.8, -0.8), rtol=1e-5)


def test_the_weight_of_an_image_is_that_of_the_looks_that_speak_for_it() -> None:
    first, second = explain(TWO_IMAGES, [seeing()]).prediction.images
    assert first.speaking == first.looks[1:]
    assert second.speaking == second.looks
    assert first.weight == pytest.approx(0.8 / 1.3)
    assert first.weight + second.weight == pytest.approx(1)


def test_an_image_by_itself_speaks_as_if_it_were_all_there_is() -> None:
    pixels = (picture(0.2, {(0, 0): 0.9, (0, 4): 0.6}), picture(0.5))
    blocks = {0.2: {(0, 0): 0.9, (0, 4): 0.8}}
    first, second = explain(pixels, [Handmade(blocks)]).prediction.images
    # (0.9^2 + 0.6^2) / (0.9 + 0.6) = 1.17 / 1.5
    np.testing.assert_allclose(first.logits, (0.78, -0.78), rtol=1e-5)
    np.testing.assert_allclose(second.logits, (0.5, -0.5), rtol=1e-5)
    assert explain(pixels[:1], [Handmade(blocks)]).prediction.logits == first.logits


def test_looks_lie_in_the_bag_image_by_image() -> None:
    """The first image has one region, the second none, the third two: 0.3 0.7 | 0.5 | 0.2 0.9 0.6."""
    pixels = (
        picture(0.3, {(4, 0): 0.7}),
        picture(0.5),
        picture(0.2, {(0, 0): 0.9, (0, 4): 0.6}),
    )
    engine = Handmade({0.3: {(4, 0): 0.9}, 0.2: {(0, 0): 0.9, (0, 4): 0.8}})
    explained = explain(pixels, [engine])
    assert engine.read_in_turn == [[0.3, 0.5, 0.2], [0.7, 0.9, 0.6]]
    # What speaks is 0.7 | 0.5 | 0.9 0.6, together 2.7.
    speaking = np.array([0, 0.7, 0.5, 0, 0.9, 0.6])
    weights = [look.weight for image in explained.prediction.images for look in image.looks]
    np.testing.assert_allclose(weights, speaking / 2.7, rtol=1e-5)
    # A look adds its weight times its value to the logit.
    np.testing.assert_allclose(explained.evidence[:, 0].sum(axis=(1, 2)), speaking**2 / 2.7, rtol=1e-5)
    assert [explained.looks_at(image) for image in range(3)] == [slice(0, 2), slice(2, 3), slice(3, 6)]
    assert [len(image.found) for image in explained.prediction.images] == [1, 0, 2]


def test_the_planes_that_speak_are_cut_once_more_in_the_order_of_the_looks() -> None:
    images, engine = prepared(TWO_IMAGES, TWICE), seeing()
    prediction = predict_case(case_of(TWO_IMAGES), images, [Member(engine=engine)]).prediction
    planes = images.speaking_planes(prediction.images)
    assert planes.shape == (2, 1, SIZE, SIZE)
    np.testing.assert_allclose(planes[:, 0, SIZE // 2, SIZE // 2], [0.8, 0.5], rtol=1e-5)
    np.testing.assert_array_equal(planes[1], images.planes[1])
    # They are all that the prediction was made from.
    np.testing.assert_allclose(engine.judge(engine.read(planes)).logits, prediction.logits, rtol=1e-6)


def test_evidence_lies_where_a_look_spoke_and_adds_up_to_the_logit() -> None:
    explained = explain(TWO_IMAGES, [seeing()])
    total = 0.0
    for place, image in enumerate(explained.prediction.images):
        squares = [look.read_square() for look in image.looks]
        shown = evidence_on_image(explained.evidence[explained.looks_at(place)], squares, (120, 120))
        total += float(shown[0].sum())
        np.testing.assert_allclose(shown[0], -shown[1], atol=1e-7)
    assert total == pytest.approx(0.89 / 1.3, rel=1e-4)
    # In the patch alone: 0.8^2 / 1.3 over 40 x 40 pixels.
    shown = evidence_on_image(
        explained.evidence[explained.looks_at(0)],
        [look.read_square() for look in explained.prediction.images[0].looks],
        (120, 120),
    )
    assert shown[0, 20, 80] == pytest.approx(0.64 / 1.3 / 40**2, rel=1e-4)
    assert shown[0, 100, 20] == 0


def test_members_agree_on_the_mean_of_their_maps() -> None:
    """One sees the patch alone at 0.9, the other another place at 0.3: the means are 0.45 and, below the cut, 0.15.

    The patch has more than the 81 * 4 * (0.45 + 0.15) = 194 places that are asked for.
    """
    one, other = Handmade({0.2: {(0, 3): 0.9}}), Handmade({0.2: {(4, 0): 0.3}}, gain=3)
    explained = explain([TWO_IMAGES[0]], [one, other])
    assert one.read_in_turn == other.read_in_turn == [[0.2], [0.8]]
    (image,) = explained.prediction.images
    assert image.looks[1].likelihood == pytest.approx(0.45)
    np.testing.assert_allclose(explained.lesions[0, :2, 3:5], 0.45, rtol=1e-5)
    np.testing.assert_allclose(explained.lesions[0, 4:, :2], 0.15, rtol=1e-5)
    # Either judges the patch's 0.8 times its gain: the mean of 1 and 3 times 0.8.
    np.testing.assert_allclose(explained.prediction.logits, (1.6, -1.6), rtol=1e-5)
    np.testing.assert_allclose(explained.evidence[:, 0].sum(), 1.6, rtol=1e-5)


def test_what_one_member_sees_faintly_is_not_looked_at_when_others_see_nothing() -> None:
    faint = Handmade({0.2: {(0, 3): 0.09}})
    assert len(explain([TWO_IMAGES[0]], [faint]).prediction.images[0].looks) == 2
    assert len(explain([TWO_IMAGES[0]], [faint, Handmade()]).prediction.images[0].looks) == 1


def test_where_nothing_is_found_a_second_look_changes_nothing() -> None:
    engine = Handmade()
    twice, once = explain(TWO_IMAGES, [engine]), explain(TWO_IMAGES, [Handmade()], ONCE)
    assert engine.read_in_turn == [[0.2, 0.5]]
    assert twice.prediction == once.prediction
    np.testing.assert_array_equal(twice.evidence, once.evidence)
    # (0.2^2 + 0.5^2) / 0.7
    assert once.prediction.logits[0] == pytest.approx(0.29 / 0.7)


def test_without_a_second_look_nothing_is_looked_for() -> None:
    engine = seeing()
    explained = explain(TWO_IMAGES, [engine], ONCE)
    assert engine.read_in_turn == [[0.2, 0.5]]
    assert all(not image.found for image in explained.prediction.images)
    # What the network holds to be a lesion is told all the same.
    np.testing.assert_allclose(explained.lesions[0, :2, 3:5], 0.9)


# A picture of 40 x 120 pixels: the first look is 120 x 120, and rows 2 and 3 of its grid show the picture.
WIDE = picture(0.2, shape=(40, 120))


def test_what_is_seen_beside_the_image_is_not_looked_at() -> None:
    lesions = np.zeros((1, GRID, GRID), dtype=np.float32)
    lesions[0, 0, 2], lesions[0, 5, 4] = 0.9, 0.8
    assert prepared([WIDE], TWICE).find(lesions) == ((),)


def test_what_is_seen_across_the_edge_is_looked_at_as_far_as_the_image_goes() -> None:
    explained = explain([WIDE], [Handmade({0.2: {(1, 0): 0.9}})])
    # Rows -20 to 20, of which 0 to 20 are in the image, and columns 0 to 40.
    (square,) = explained.prediction.images[0].found
    np.testing.assert_allclose((square.left, square.top, square.side), (0, -10, 40), atol=1e-9)


def test_a_nan_map_asks_for_no_second_look() -> None:
    found = prepared([TWO_IMAGES[1]], TWICE).find(np.full((1, GRID, GRID), np.nan, dtype=np.float32))
    assert found == ((),)


def test_the_margin_of_the_preparation_is_laid_round_what_is_found() -> None:
    wider = TWICE.model_copy(update={"margin": 0.25})
    (image,) = explain([TWO_IMAGES[0]], [seeing()], wider).prediction.images
    # 60 to 100 and 0 to 40, half as much again about (80, 20).
    np.testing.assert_allclose(image.looks[1].rectangle, (50, -10, 60, 60), atol=1e-9)


def test_what_a_person_marked_is_looked_at_instead_of_what_is_found() -> None:
    at_box = TWICE.model_copy(update={"second_look_at": "box"})
    lesion = (Lesion(box=(60, 0, 100, 40)),)
    # It sees another place.
    engine = Handmade({0.2: {(4, 0): 0.9}})
    pixels = TWO_IMAGES[:1]
    explained = predict_case(case_of(pixels, [lesion]), prepared(pixels, at_box, [lesion]), [Member(engine=engine)])
    assert engine.read_in_turn == [[0.2], [0.8]]
    (image,) = explained.prediction.images
    assert image.looks[1].rectangle == (60, 0, 40, 40)
    assert image.looks[1].likelihood is None
    assert [look.weight for look in image.looks] == [0, 1]
    assert explained.prediction.logits[0] == pytest.approx(0.8)


def test_a_second_look_at_a_mark_needs_one() -> None:
    at_outline = TWICE.model_copy(update={"second_look_at": "outline"})
    with pytest.raises(InputError, match="none is annotated"):
        prepared(TWO_IMAGES, at_outline)


def test_planes_can_be_picked_and_joined() -> None:
    engine = Handmade()
    planes = np.stack([np.full((1, SIZE, SIZE), value, dtype=np.float32) for value in (0.1, 0.2, 0.3)])
    readings = engine.read(planes)
    again = readings.joined(engine.read(planes[:1])).of([3, 1])
    np.testing.assert_allclose(again.vectors[:, 0], [0.1, 0.2])
    np.testing.assert_allclose(again.maps[:, 0, 0, 0], [0.1, 0.2])
    assert again.lesions.shape == (2, GRID, GRID)
    np.testing.assert_allclose(again.scores, np.log([0.1, 0.2]), rtol=1e-5)
