"""Two looks at a patient's images, by networks that are simple enough to be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.errors import InputError
from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.inference.engine import Judgement, Member, MemberEngine, PlaneReadings
from osteoscope.inference.evidence import evidence_on_image
from osteoscope.inference.predict import predict_case
from osteoscope.inference.radiographs import PreparedRadiographs, prepare_pixels
from osteoscope.inference.reading import scores_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from osteoscope.inference.prediction import ExplainedCase

SIZE = 48
GRID = 6
KNOWN_BY = 19
"""The row and column of the pixel that a plane is known by: 48 pixels into 120, and 16 into 40."""

TWICE = PreparationConfig(size=SIZE, margin=0, second_look=True)
ONCE = PreparationConfig(size=SIZE, margin=0)

Patches = dict[tuple[int, int], float]
"""Values of 40 x 40 pixels, by row and column of their first 20."""


class Handmade(MemberEngine):
    """Knows a plane by one pixel, v: weighs it by v, and gives class 0 `gain` times v and class 1 the contrary.

    Where a plane shows a value of `seen`, it holds a lesion to be as likely as that says, whatever part it reads.
    """

    def __init__(self, seen: Mapping[float, float] | None = None, *, gain: float = 1) -> None:
        self.seen = seen or {}
        self.gain = gain
        self.read_in_turn: list[list[float]] = []

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        assert planes.shape[1:] == (1, SIZE, SIZE)
        values = planes[:, 0, KNOWN_BY, KNOWN_BY]
        self.read_in_turn.append([round(float(v), 4) for v in values])
        cell = SIZE // GRID
        shown = planes[:, 0, cell // 2 :: cell, cell // 2 :: cell]
        lesions = np.zeros(shown.shape, dtype=np.float32)
        for value, likelihood in self.seen.items():
            lesions[np.isclose(shown, value, atol=1e-4)] = likelihood
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
    ground: float, patches: Patches | None = None, *, shape: tuple[int, int] = (120, 120)
) -> NDArray[np.float32]:
    """An even picture, with patches of 40 x 40 pixels that are two by two cells of the first look at 120 x 120."""
    pixels = np.full(shape, ground, dtype=np.float32)
    for (row, column), value in (patches or {}).items():
        pixels[20 * row : 20 * row + 40, 20 * column : 20 * column + 40] = value
    return pixels


def closer(pixels: NDArray[np.float32]) -> list[float]:
    """What the closer looks at a picture show: of squares of 40 x 40, one every 20 pixels, what they are known by."""
    return [round(float(value), 4) for value in pixels[16:-20:20, 16:-20:20].ravel()]


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


# Image 0 is 0.2, and 0.8 in a patch, which is seen; image 1 is 0.5 throughout.
SEEN: Patches = {(0, 3): 0.8}
TWO_IMAGES = (picture(0.2, SEEN), picture(0.5))
FAINT_BESIDE = (TWO_IMAGES[0], picture(0.5, {(2, 2): 0.4}))


def highest(likelihood: NDArray[np.float32], part: Square) -> float:
    """The highest that a map of 120 x 120 pixels shows in a part of them, at nine places a cell on each axis."""
    places = [(place + 0.5) * 120 / (9 * GRID) for place in range(9 * GRID)]
    rows = [place for place in places if part.top <= place < part.top + part.side]
    columns = [place for place in places if part.left <= place < part.left + part.side]
    at = np.stack(np.meshgrid(rows, columns, indexing="ij")) * GRID / 120 - 0.5
    return float(map_coordinates(likelihood.astype(np.float64), at, order=1, mode="nearest").max())


def spoken(
    explained: ExplainedCase, pixels: Sequence[NDArray[np.float32]], found: Sequence[Sequence[float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each look what it is known by, and that times the highest likelihood in it: its weight, but for their sum.

    A first look has no weight. `found` is what the regions of each image are known by; their likelihoods are those
    that the prediction states.
    """
    known: list[float] = []
    likelihoods: list[float] = []
    for image, likelihood, one, of_regions in zip(
        explained.prediction.images, explained.lesions, pixels, found, strict=True
    ):
        known += [0, *closer(one), *of_regions]
        of_closer = [max(highest(likelihood, look.read_square()), 1e-6) for look in image.looks[1:26]]
        likelihoods += [0, *of_closer, *(region.likelihood or 0 for region in image.regions)]
    return np.array(known), np.array(known) * np.array(likelihoods)


def logit(known: NDArray[np.float64], weighed: NDArray[np.float64]) -> float:
    """What is said for class 0: the mean of what looks are known by, weighed."""
    return float((known * weighed).sum() / weighed.sum())


def seeing() -> Handmade:
    return Handmade({0.8: 0.9, 0.4: 0.3})


def test_what_was_found_is_read_from_the_image_as_it_is() -> None:
    engine = seeing()
    explained = explain(TWO_IMAGES, [engine])
    assert engine.read_in_turn == [[0.2, 0.5], closer(TWO_IMAGES[0]) + closer(TWO_IMAGES[1]), [0.8]]
    image = explained.prediction.images[0]
    assert (len(image.looks), image.first_looks, image.closer_looks) == (27, 1, 25)
    assert image.square == Square(left=0, top=0, side=120)
    (region,) = image.regions
    # The map is a little lower at the patch's lower edge, where closer looks see across it.
    np.testing.assert_allclose(region.rectangle, (60, 0, 40, 40), atol=2)
    assert region.likelihood == pytest.approx(0.9, abs=0.02)
    assert image.looks[0].likelihood is None
    # Of what a closer look saw, what all looks agree on: nothing below the patch, nearly 0.9 in it.
    told = [look.likelihood for look in image.looks[1:26]]
    expected = [highest(explained.lesions[0], look.read_square()) for look in image.looks[1:26]]
    np.testing.assert_allclose(np.array(told, dtype=np.float64), expected, atol=1e-5)
    assert told[3] == pytest.approx(0.9, abs=0.02)
    assert told[-1] == 0


def test_closer_looks_and_regions_of_all_images_are_judged_together() -> None:
    explained = explain(TWO_IMAGES, [seeing()])
    known, weighed = spoken(explained, TWO_IMAGES, ([0.8], []))
    expected = logit(known, weighed)
    np.testing.assert_allclose(explained.prediction.logits, (expected, -expected), rtol=1e-5)
    # The first look has no say.
    weights = [look.weight for image in explained.prediction.images for look in image.looks]
    np.testing.assert_allclose(weights, weighed / weighed.sum(), rtol=1e-5)


def test_what_the_first_look_alone_shows_changes_nothing() -> None:
    """The gate would give it the most weight, were it bright: it is known by a spot that no closer look is known by."""
    spotted = TWO_IMAGES[0].copy()
    spotted[43:54, 43:54] = 0.99
    engines = seeing(), seeing()
    said = [
        explain([pixels], [engine]).prediction.logits
        for pixels, engine in zip((TWO_IMAGES[0], spotted), engines, strict=True)
    ]
    assert [engine.read_in_turn[0] for engine in engines] == [[0.2], [0.99]]
    np.testing.assert_allclose(said[1], said[0], rtol=1e-5)


def test_the_weight_of_an_image_is_that_of_the_looks_that_speak_for_it() -> None:
    explained = explain(FAINT_BESIDE, [seeing()])
    first, second = explained.prediction.images
    assert first.speaking == first.looks[1:]
    assert second.speaking == second.looks[1:]
    _, weighed = spoken(explained, FAINT_BESIDE, ([0.8], [0.4]))
    assert first.weight == pytest.approx(weighed[:27].sum() / weighed.sum(), abs=1e-6)
    assert 0.5 < first.weight < 1
    assert first.weight + second.weight == 1


def test_an_image_by_itself_speaks_as_if_it_were_all_there_is() -> None:
    explained = explain(TWO_IMAGES, [seeing()])
    first, second = explained.prediction.images
    known, weighed = spoken(explained, TWO_IMAGES, ([0.8], []))
    np.testing.assert_allclose(first.logits[0], logit(known[:27], weighed[:27]), rtol=1e-5)
    np.testing.assert_allclose(second.logits, (0.5, -0.5), rtol=1e-5)
    assert explain(TWO_IMAGES[:1], [seeing()]).prediction.logits == pytest.approx(first.logits)


def test_looks_lie_in_the_bag_image_by_image() -> None:
    """The first image has one region, the second none, the third two."""
    pixels = (
        picture(0.3, {(4, 0): 0.7}),
        picture(0.5),
        picture(0.2, {(0, 0): 0.9, (0, 4): 0.6}),
    )
    engine = Handmade({0.7: 0.9, 0.9: 0.9, 0.6: 0.8})
    explained = explain(pixels, [engine])
    assert engine.read_in_turn == [[0.3, 0.5, 0.2], [v for one in pixels for v in closer(one)], [0.7, 0.9, 0.6]]
    found: tuple[list[float], ...] = ([0.7], [], [0.9, 0.6])
    known, weighed = spoken(explained, pixels, found)
    weights = [look.weight for image in explained.prediction.images for look in image.looks]
    np.testing.assert_allclose(weights, weighed / weighed.sum(), rtol=1e-5)
    # A look adds its weight times its value to the logit.
    np.testing.assert_allclose(explained.evidence[:, 0].sum(axis=(1, 2)), known * weighed / weighed.sum(), rtol=1e-5)
    assert [explained.looks_at(image) for image in range(3)] == [slice(0, 27), slice(27, 53), slice(53, 81)]
    assert [len(image.found) for image in explained.prediction.images] == [1, 0, 2]


def test_the_planes_that_speak_are_cut_once_more_in_the_order_of_the_looks() -> None:
    images, engine = prepared(TWO_IMAGES, TWICE), seeing()
    prediction = predict_case(case_of(TWO_IMAGES), images, [Member(engine=engine)]).prediction
    planes = images.speaking_planes(prediction.images)
    assert planes.shape == (51, 1, SIZE, SIZE)
    shown = [*closer(TWO_IMAGES[0]), 0.8, *closer(TWO_IMAGES[1])]
    np.testing.assert_allclose(planes[:, 0, KNOWN_BY, KNOWN_BY], shown, rtol=1e-5)
    # They are all that the prediction was made from, with how likely a lesion is in each.
    added = scores_of(look.likelihood for image in prediction.images for look in image.speaking)
    judged = engine.judge(engine.read(planes).weighed(added))
    np.testing.assert_allclose(judged.logits, prediction.logits, rtol=1e-6)


def test_evidence_lies_where_a_look_spoke_and_adds_up_to_the_logit() -> None:
    explained = explain(TWO_IMAGES, [seeing()])
    total = 0.0
    for place, image in enumerate(explained.prediction.images):
        squares = [look.read_square() for look in image.looks]
        shown = evidence_on_image(explained.evidence[explained.looks_at(place)], squares, (120, 120))
        total += float(shown[0].sum())
        np.testing.assert_allclose(shown[0], -shown[1], atol=1e-7)
    known, weighed = spoken(explained, TWO_IMAGES, ([0.8], []))
    # Less what the region reads above the picture: about 1 of its 40 rows.
    (region,) = explained.prediction.images[0].found
    beyond = -region.top / region.side * (known * weighed)[26] / weighed.sum()
    assert 0 < beyond < 0.05 * total
    assert total == pytest.approx(logit(known, weighed) - beyond, rel=1e-3)
    shown = evidence_on_image(
        explained.evidence[explained.looks_at(0)],
        [look.read_square() for look in explained.prediction.images[0].looks],
        (120, 120),
    )
    # What a look adds, over its 40 x 40 pixels. Two closer looks overlap at the picture's upper edge: where the patch
    # begins, the third is known by the ground and the fourth by the patch, and the region lies there too.
    added = known * weighed / weighed.sum()
    assert shown[0, 10, 70] == pytest.approx((added[3] + added[4] + added[26]) / 40**2, rel=1e-4)
    # In the corner there is one, of the ground.
    assert shown[0, 110, 10] == pytest.approx(added[21] / 40**2, rel=1e-4)


def test_members_agree_on_the_mean_of_their_maps() -> None:
    """One sees one patch alone at 0.9, the other another one at 0.3: the means are 0.45 and, below the cut, 0.15.

    The first has more than the 81 * 4 * (0.45 + 0.15) = 194 places that are asked for.
    """
    pixels = picture(0.2, {(0, 3): 0.8, (4, 0): 0.4})
    one, other = Handmade({0.8: 0.9}), Handmade({0.4: 0.3}, gain=3)
    explained = explain([pixels], [one, other])
    assert one.read_in_turn == other.read_in_turn == [[0.2], closer(pixels), [0.8]]
    (image,) = explained.prediction.images
    assert image.looks[-1].likelihood == pytest.approx(0.45, abs=0.01)
    np.testing.assert_allclose(explained.lesions[0, :2, 3:5], 0.45, atol=0.01)
    np.testing.assert_allclose(explained.lesions[0, 4:, :2], 0.15, atol=0.01)
    # Either weighs alike; the logit is the mean of 1 and 3 times what the looks show.
    expected = 2 * logit(*spoken(explained, [pixels], [[0.8]]))
    np.testing.assert_allclose(explained.prediction.logits, (expected, -expected), rtol=1e-5)
    np.testing.assert_allclose(explained.evidence[:, 0].sum(), expected, rtol=1e-5)


def test_what_one_member_sees_faintly_is_no_region_when_others_see_nothing() -> None:
    faint = Handmade({0.8: 0.09})
    assert len(explain([TWO_IMAGES[0]], [faint]).prediction.images[0].found) == 1
    assert len(explain([TWO_IMAGES[0]], [faint, Handmade()]).prediction.images[0].found) == 0


def test_where_no_region_is_found_the_closer_looks_decide() -> None:
    engine = Handmade()
    explained = explain(TWO_IMAGES, [engine])
    assert len(engine.read_in_turn) == 2
    assert all(not image.found for image in explained.prediction.images)
    # No likelihood is known of any, so all weigh by the gate alone.
    known = np.array([v for one in TWO_IMAGES for v in closer(one)])
    assert explained.prediction.logits[0] == pytest.approx(logit(known, known))


def test_without_a_second_look_whole_images_decide_and_nothing_is_looked_for() -> None:
    engine = seeing()
    explained = explain(TWO_IMAGES, [engine], ONCE)
    assert engine.read_in_turn == [[0.2, 0.5]]
    assert all(not image.found and image.closer_looks == 0 for image in explained.prediction.images)
    # (0.2^2 + 0.5^2) / 0.7
    assert explained.prediction.logits[0] == pytest.approx(0.29 / 0.7)
    # What the network holds to be a lesion is told all the same.
    np.testing.assert_allclose(explained.lesions[0, :2, 3:5], 0.9)


class SeesBeside(Handmade):
    """Holds what lies above and below a picture of 40 x 120 pixels to be lesion, in the square that holds it."""

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        readings = super().read(planes)
        if len(self.read_in_turn) == 1:
            readings.lesions[0, [0, 5]] = 0.9
        return readings


def test_what_is_seen_beside_the_image_is_no_region() -> None:
    engine = SeesBeside()
    explained = explain([picture(0.2, shape=(40, 120))], [engine])
    np.testing.assert_allclose(explained.lesions[0, [0, 5]], 0.9)
    assert explained.prediction.images[0].found == ()
    # The picture is as high as a closer look is wide, and three times as wide.
    assert engine.read_in_turn == [[0.2], [0.2] * 5]


def test_a_nan_map_shows_no_region() -> None:
    (image,) = explain([TWO_IMAGES[1]], [Handmade({0.5: np.nan})]).prediction.images
    assert image.found == ()


def test_the_margin_of_the_preparation_is_laid_round_what_is_found() -> None:
    wider = TWICE.model_copy(update={"margin": 0.25})
    (image,) = explain([TWO_IMAGES[0]], [seeing()], wider).prediction.images
    # 60 to 100 and 0 to 40, half as much again about (80, 20).
    np.testing.assert_allclose(image.looks[-1].rectangle, (50, -10, 60, 60), atol=3)


def test_what_a_person_marked_is_looked_at_instead_of_what_is_found() -> None:
    at_box = TWICE.model_copy(update={"second_look_at": "box"})
    lesion = (Lesion(box=(60, 0, 100, 40)),)
    # It sees all else.
    engine = Handmade({0.2: 0.9})
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
