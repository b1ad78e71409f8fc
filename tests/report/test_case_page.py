"""The page of one case."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from osteoscope.imaging.picture import read_picture
from osteoscope.imaging.prepare import Lesion, Square
from osteoscope.report.case import case_html
from osteoscope.report.content import CaseContent, CaseImageContent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def image_content(pixels: npt.NDArray[np.float32], evidence: npt.NDArray[np.float32], **more: Any) -> CaseImageContent:
    return CaseImageContent(name="IMG1", view="lateral", pixels=pixels, evidence=evidence, weight=0.62, **more)


@pytest.fixture
def case() -> CaseContent:
    pixels = np.linspace(0, 1, 20 * 10, dtype=np.float32).reshape(20, 10)
    one_map = np.zeros((20, 10), np.float32)
    one_map[3:6, 1:3] = 2.0
    one_map[15, 8] = -1.0
    return CaseContent(
        patient="P7",
        label="osteosarcoma",
        classes=("osteosarcoma", "giant cell tumor"),
        probabilities=(0.873, 0.127),
        prior=(0.5, 0.5),
        verdict="osteosarcoma",
        images=(
            image_content(pixels, np.stack([one_map, -one_map]), lesions=(Lesion(box=(1.0, 3.0, 3.0, 6.0)),)),
            image_content(
                pixels.T, np.stack([one_map.T, -one_map.T]) / np.float32(4), square=Square(left=2.0, top=0.0, side=10.0)
            ),
        ),
        compared="Two tumours were compared.",
        made_by="Fold 3 of 5 made this.",
        covariates={"age": "14 years"},
        study_href="../report.html",
    )


def pictures(page: Any) -> list[tuple[str, Image.Image]]:
    """Decode the pictures of the images, with their alternative texts."""
    return [
        (str(tag["alt"]), Image.open(io.BytesIO(base64.b64decode(str(tag["src"]).partition(",")[2]))))
        for tag in page.all("img")
        if not str(tag["alt"]).startswith("Colour scale")
    ]


def test_the_answer_comes_first_then_images_then_how_to_read_them(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(case_html(case)).text
    told = ["Case P7", "Research. Not for clinical use.", "Verdict: osteosarcoma", "87 %", "13 %", "the prior",
            "osteosarcoma 50 %", "Recorded diagnosis osteosarcoma", "14 years", "Images and evidence",
            "share of the strongest evidence in this case", "IMG1, lateral", "62 % of the weight",
            "Evidence for osteosarcoma", "strongest point: 100 %", "Evidence for giant cell tumor",
            "strongest point: 50 %", "Two tumours were compared.", "Fold 3 of 5 made this.", "not a segmentation",
            ]  # fmt: skip
    places = [text.index(said) for said in told]
    assert places == sorted(places)


def test_what_was_told_beside_the_images_is_said_with_what_they_say_alone(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    said = "The network was told the patient’s"
    told = dataclasses.replace(case, told=("age", "sex"), of_images=(0.004, 0.996))
    text = read_page(case_html(told)).text
    assert f"{said} age and sex beside the images; the images alone would have given osteosarcoma < 1 %." in text
    assert said not in read_page(case_html(case)).text
    with pytest.raises(ValueError, match="probabilities by the images alone must have one entry for each of the 2"):
        case_html(dataclasses.replace(case, told=("age",)))


def test_each_image_is_shown_as_it_is_and_with_the_evidence_for_each_class(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    shown = pictures(read_page(case_html(case)))
    assert [alt.partition(" ")[0] for alt, _ in shown] == ["Radiograph", "The", "The"] * 2
    assert shown[0][0] == "Radiograph IMG1, lateral view"
    assert "evidence for giant cell tumor in colour; strongest 50\u00a0% of the case's strongest" in shown[2][0]
    # 20 rows become 520: a whole factor of 26.
    assert [picture.size for _, picture in shown] == [(260, 520)] * 3 + [(520, 260)] * 3
    original = np.asarray(shown[0][1], dtype=float)
    assert original[0, 0] < 5
    assert original[-1, -1] > 250
    colour = np.ptp(np.asarray(shown[1][1], dtype=float), axis=2)
    # Rows 3 to 6 and columns 1 to 3 speak for the first class, and nothing else does.
    assert colour[3 * 26 : 6 * 26, 26 : 3 * 26].mean() > 60
    assert colour[8 * 26 :].max() < 20
    assert np.ptp(np.asarray(shown[2][1], dtype=float), axis=2)[15 * 26 : 16 * 26, 8 * 26 : 9 * 26].max() > 20


def test_the_marks_are_explained_where_they_are_used(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(case_html(case)).text
    assert "lesion as annotated" in text
    assert "what was read of the image" in text
    bare = [dataclasses.replace(image, lesions=(), square=Square(left=0, top=0, side=20)) for image in case.images]
    text = read_page(case_html(dataclasses.replace(case, images=tuple(bare)))).text
    assert "lesion as annotated" not in text
    assert "what was read of the image" not in text


def looked(case: CaseContent, found: tuple[tuple[Square, ...], ...], **more: Any) -> CaseContent:
    """Give each image its regions."""
    images = tuple(dataclasses.replace(image, found=regions) for image, regions in zip(case.images, found, strict=True))
    return dataclasses.replace(case, images=images, **more)


SQUARE = Square(left=2.0, top=2.0, side=5.0)


def test_each_image_says_whether_the_network_found_a_region_in_it(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(case_html(looked(case, ((SQUARE,), ()), second_look="found"))).text
    region = text.index(
        "This image had 62 % of the weight in the decision. The dashed frame is the region in which the network found "
        "a lesion."
    )
    none = text.index("This image had 62 % of the weight in the decision. No region found:")
    assert region < none
    assert text.count("of the weight in the decision") == 2
    assert "so the image was judged by what looks most like one" in text
    assert "region in which the network found a lesion and looked again (dashed frame)" in text
    several = read_page(case_html(looked(case, ((SQUARE, SQUARE), (SQUARE,)), second_look="found"))).text
    assert "The dashed frames are the 2 regions in which the network found a lesion." in several
    assert "No region found" not in several


def test_it_says_which_looks_decide(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    found = read_page(case_html(looked(case, ((SQUARE,), ()), second_look="found"))).text
    assert "then at all parts of it more closely, and at the regions in which it finds a lesion" in found
    assert "each as much as the network holds it likely to show a lesion, and the whole image has no say" in found
    marked = read_page(case_html(looked(case, ((SQUARE,), (SQUARE,)), second_look="marked"))).text
    assert "the lesion that a person has marked. That region alone decides" in marked


def test_a_case_in_which_nothing_was_found_has_no_legend_for_it(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(case_html(dataclasses.replace(case, second_look="found"))).text
    assert text.count("No region found") == 2
    assert "(dashed frame)" not in text


def test_where_there_is_no_second_look_none_is_spoken_of(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(case_html(case)).text
    assert "region" not in text
    assert "first" not in text


def test_a_region_that_a_person_marked_is_not_said_to_be_found(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(case_html(looked(case, ((SQUARE,), (SQUARE,)), second_look="marked"))).text
    assert text.count(
        "The region of the lesion that a person had marked (dashed frame) had 62 % of the weight in the decision; the "
        "rest of the image had none."
    ) == len(case.images)
    assert "region of the marked lesion, looked at again (dashed frame)" in text
    assert "served to find" not in text
    assert "network found a lesion" not in text
    assert "finds a lesion" not in text


def test_every_picture_of_a_phantom_says_so(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    marked = pictures(read_page(case_html(dataclasses.replace(case, phantom=True))))
    plain = pictures(read_page(case_html(case)))
    assert len(marked) == 6
    for (_, one), (_, other) in zip(marked, plain, strict=True):
        changed = np.abs(np.asarray(one.convert("RGB"), dtype=float) - np.asarray(other.convert("RGB"), dtype=float))
        rows, columns = np.nonzero(changed.max(axis=2) > 60)
        assert rows.size > 0
        assert rows.max() < one.height / 5
        assert columns.min() < one.width / 10


def test_regions_are_framed_on_the_evidence_and_the_radiograph_stays_bare(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    with_frame = pictures(read_page(case_html(looked(case, ((SQUARE,), ()), second_look="found"))))
    without = pictures(read_page(case_html(case)))
    # Columns 2 to 7 of 10 and rows 2 to 7 of 20, 26 pixels each.
    framed = []
    for (_, one), (_, other) in zip(with_frame, without, strict=True):
        changed = np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).reshape(*one.size[::-1], -1)
        rows, columns = np.nonzero(changed.max(axis=2) > 60)
        framed.append(rows.size > 0)
        if rows.size:
            assert (rows.min(), rows.max()) == pytest.approx((52, 181), abs=4)
            assert (columns.min(), columns.max()) == pytest.approx((52, 181), abs=4)
    assert framed == [False, True, True, False, False, False]


def test_bars_are_as_long_as_the_probabilities_and_carry_the_prior(case: CaseContent) -> None:
    html = case_html(dataclasses.replace(case, prior=(0.25, 0.75)))
    for drawn in ('width="87.30"', 'width="12.70"', 'd="M25.00 0V10"', 'd="M75.00 0V10"'):
        assert html.count(drawn) == 1


def test_the_most_probable_class_is_no_verdict_where_there_are_no_prediction_sets(
    case: CaseContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(case_html(dataclasses.replace(case, by_sets=False))).text
    assert "Most probable: osteosarcoma" in text
    assert "Verdict" not in text


def test_a_case_without_proof_or_evidence_is_told_plainly(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    silent = tuple(
        dataclasses.replace(image, evidence=np.full_like(image.evidence, np.nan)) for image in case.images[:1]
    )
    content = dataclasses.replace(case, label=None, verdict="indeterminate", images=silent, study_href=None)
    page = read_page(case_html(content))
    assert "Verdict: indeterminate" in page.text
    assert "Recorded diagnosis not known" in page.text
    assert "No place in this image spoke for any class." in page.text
    assert page.all("a") == []


def test_it_needs_no_other_file_is_inert_and_repeats_itself(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    evil = '"><script>alert(1)</script>'
    html = case_html(
        dataclasses.replace(case, patient=evil, classes=(evil, "b"), verdict=evil, covariates={evil: evil}, stamp=evil)
    )
    page = read_page(html)
    assert page.all("script") == page.all("link") == []
    assert evil in page.text
    assert "http" not in html.replace("http-equiv", "")
    assert all(str(image["src"]).startswith("data:image/") and image["alt"] for image in page.all("img"))
    assert case_html(case) == case_html(case)


def test_six_classes_and_a_large_image_are_shown_reduced(case: CaseContent, read_page: Callable[[str], Any]) -> None:
    names = tuple(f"tumour {k}" for k in range(6))
    pixels = np.full((3000, 1500), 0.5, np.float32)
    evidence = np.stack([np.full(pixels.shape, k / 5, np.float32) for k in range(6)])
    page = read_page(
        case_html(
            dataclasses.replace(
                case,
                classes=names,
                probabilities=(0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
                prior=(1 / 6,) * 6,
                images=(image_content(pixels, evidence),),
            )
        )
    )
    shown = pictures(page)
    assert len(shown) == 7
    # A third of 3000 is the largest whole fraction that is not above 1280.
    assert {picture.size for _, picture in shown} == {(500, 1000)}
    assert "Shown smaller than it is (1500 × 3000 pixels)." in page.text
    assert "With two classes" not in page.text


def test_a_real_radiograph_is_neither_mirrored_nor_turned(
    case: CaseContent, btxrd: Path, read_page: Callable[[str], Any]
) -> None:
    path = btxrd / "images" / "IMG000002.jpeg"
    pixels = read_picture(path).read()[0]
    content = image_content(pixels, np.zeros((2, *pixels.shape), np.float32))
    original = pictures(read_page(case_html(dataclasses.replace(case, images=(content,)))))[0][1]
    with Image.open(path) as raw:
        expected = np.asarray(raw.convert("L").resize(original.size, Image.Resampling.BICUBIC), dtype=float)
    assert np.corrcoef(np.asarray(original, dtype=float).ravel(), expected.ravel())[0, 1] > 0.999


def test_content_that_does_not_fit_its_classes_is_refused(case: CaseContent) -> None:
    with pytest.raises(ValueError, match="probabilities must have one entry for each of the 2 classes, got 1"):
        case_html(dataclasses.replace(case, probabilities=(1.0,)))
    flat = dataclasses.replace(case.images[0], evidence=case.images[0].evidence[:1])
    with pytest.raises(ValueError, match="evidence of IMG1"):
        case_html(dataclasses.replace(case, images=(flat,)))
