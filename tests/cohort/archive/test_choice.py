"""Which series are chosen, and why; the facts of each are written down by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from osteoscope.cohort.archive.choice import Choice, Wishes, choose, region_remark
from osteoscope.cohort.archive.facts import Facts
from osteoscope.cohort.archive.labels import Label
from osteoscope.cohort.archive.stacks import Stack
from osteoscope.cohort.archive.words import contrast_of, kernel_of, regions_in, weighting_of

LABEL = Label(label="osteosarcoma", biopsy_date="2020-02-01")

FACTS = Facts(
    kind="CT",
    modality="CT",
    aside="",
    derivation="",
    original=True,
    plane="axial",
    rows=512,
    columns=512,
    spacing=(0.8, 0.8),
    echo="",
    frame_of_reference="1.2",
    kernel="soft",
    weighting="",
    contrast=None,
    thickness=2.0,
    number=2,
    date="2020-01-20",
    age="",
    body_part=(),
    described=(),
    view="",
)


def stack(which: int, *, study: str = "1", planes: int = 100, step: float = 2.0, **facts: Any) -> Stack:
    return Stack(
        number=which,
        patient="p",
        identifier="p",
        guessed=False,
        born="",
        sex="",
        study=study,
        series=f"1.{which}",
        part=1,
        parts=1,
        facts=replace(FACTS, **facts),
        files=planes,
        copies=0,
        planes=planes,
        repeated=0,
        folders=1,
        unusable=(0, ""),
        reach=(planes - 1) * step,
    )


def chosen(*stacks: Stack, label: Label = LABEL, **wishes: Any) -> dict[int, Choice]:
    found = choose(stacks, label, Wishes(**wishes))
    assert [choice.stack for choice in found] == list(stacks)
    return {choice.stack.number: choice for choice in found}


def test_the_last_study_before_the_biopsy_is_taken_and_later_ones_are_said() -> None:
    found = chosen(
        stack(1, study="a", date="2019-11-01"),
        stack(2, study="b", date="2020-01-20"),
        stack(3, study="c", date="2020-02-11"),
    )
    assert [number for number, choice in found.items() if choice.chosen] == [2]
    assert found[2].reason == (
        "CT axial, 100 planes, 2 mm apart, kernel for soft; of the last study until the biopsy, 12 days before it; the"
        " only one there"
    )
    assert found[1].reason.startswith("another study is taken (of the last study until the biopsy")
    assert found[3].reason == "it was taken 10 days after the biopsy"
    assert (found[3].biopsied, found[2].biopsied) == (True, False)


def test_where_there_is_none_before_the_biopsy_the_first_after_it_is_taken_if_nothing_was_treated() -> None:
    late = stack(1, study="a", date="2020-02-04"), stack(2, study="b", date="2020-03-01")
    found = chosen(*late)
    assert found[1].chosen
    assert found[1].biopsied
    assert "taken 3 days after the biopsy, since there is none before it" in found[1].reason
    treated = chosen(*late, label=replace(LABEL, treatment_date="2020-02-02"))
    assert not any(choice.chosen for choice in treated.values())
    assert treated[1].reason == "it was taken 3 days after the biopsy"


def test_a_study_without_a_date_does_not_go_before_one_that_has_one() -> None:
    undated, after = stack(1, study="a", date=""), stack(2, study="b", date="2020-02-06")
    found = chosen(undated, after)
    assert [number for number, choice in found.items() if choice.chosen] == [2]
    assert found[2].biopsied
    assert "taken 5 days after the biopsy, since there is none before it" in found[2].reason
    treated = chosen(undated, after, label=replace(LABEL, treatment_date="2020-02-02"))
    assert treated[1].chosen
    assert "its date is not known, and what has one was taken too long after the biopsy" in treated[1].reason


def test_of_studies_without_dates_it_is_not_said_that_one_has_a_date() -> None:
    found = chosen(stack(1, study="a", date=""), stack(2, study="b", date=""))
    assert found[1].chosen
    assert found[2].reason == "another study is taken (its date is not known, nor that of any other)"


def test_the_proof_counts_where_no_biopsy_or_treatment_is_known_and_else_the_first_study() -> None:
    both = stack(1, study="a", date="2019-11-01"), stack(2, study="b", date="2020-01-20")
    proven = chosen(*both, label=Label(label="x", proof_date="2019-12-01"))
    assert [number for number, choice in proven.items() if choice.chosen] == [1]
    assert proven[2].reason == "it was taken 50 days after the proof"
    # The biopsy may have been before the proof.
    assert (proven[1].biopsied, proven[2].biopsied) == (None, True)
    unknown = chosen(*both, label=Label(label="x"))
    assert unknown[1].chosen
    assert "since no date of a biopsy, a treatment or the proof is known" in unknown[1].reason


@pytest.mark.parametrize(("when", "numbers"), [("first", [1]), ("last", [3]), ("any", [1, 2, 3])])
def test_another_study_may_be_asked_for(when: str, numbers: list[int]) -> None:
    dates = ("2019-11-01", "2020-01-20", "2020-02-11")
    found = chosen(*(stack(n, study=str(n), date=date) for n, date in enumerate(dates, 1)), when=when)
    assert [number for number, choice in found.items() if choice.chosen] == numbers


def test_a_study_that_the_table_names_is_the_only_one_that_counts() -> None:
    both = stack(1, study="a", date="2019-11-01"), stack(2, study="b", date="2020-01-20")
    found = chosen(*both, label=replace(LABEL, studies=frozenset({"a"})))
    assert found[1].chosen
    assert found[2].reason == "the label table names another study of the patient"


def test_a_ct_an_mr_and_every_radiograph_are_taken() -> None:
    found = chosen(
        stack(1),
        stack(2, kind="MR", plane="sagittal", weighting="T2", kernel=""),
        stack(3, kind="radiograph", plane="", view="AP", planes=1),
        stack(4, kind="radiograph", plane="", view="LL", planes=1),
    )
    assert all(choice.chosen for choice in found.values())
    assert found[2].reason.startswith("MR T2 sagittal, 100 planes, 2 mm apart; of the last study")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"planes": 3}, "has more than a few planes"),
        ({"plane": "coronal"}, "is in the usual plane"),
        ({"derivation": "reformatted"}, "was not reformatted"),
        ({"original": False}, "was not reformatted"),
        ({"step": 5.0}, "has planes at a better distance"),
        ({"step": 0.6}, "has planes at a better distance"),
        ({"planes": 60}, "has more planes"),
        ({"number": 7}, "has a lower series number"),
        ({}, "is listed first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_of_two_series_of_a_study_the_one_that_fits_better_is_taken(other: dict[str, Any], reason: str) -> None:
    found = chosen(stack(2, **other), stack(1)) if other else chosen(stack(1), stack(2))
    assert found[1].chosen
    assert "it fits best of 2 there" in found[1].reason
    assert found[2].reason == f"another series of its study {reason}"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"aside": "localiser"}, "a scout on which other images were planned"),
        ({"aside": "secondary_capture"}, "a captured screen"),
        ({"derivation": "localiser"}, "it is a scout"),
        ({"derivation": "projection"}, "it is a projection"),
        ({"derivation": "map"}, "it is a difference or a map"),
        ({"plane": ""}, "the place of its planes in the patient is not stated"),
        ({"kind": "other", "modality": "SR"}, r"it is no image (SR)"),
        ({"kind": "marks", "modality": "SEG"}, "it marks regions in other images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_that_could_be_meant_is_left(facts: dict[str, Any], reason: str) -> None:
    found = chosen(stack(1, **facts))
    assert not found[1].chosen
    assert reason in found[1].reason


@pytest.mark.parametrize(
    ("facts", "wish", "reason"),
    [
        ({}, {"modalities": ("MR",)}, "CT is not asked for"),
        ({}, {"plane": "sagittal"}, "its planes are axial, and sagittal ones are asked for"),
        ({}, {"kernel": "bone"}, "its kernel is for soft, and one for bone is asked for"),
        ({"kernel": ""}, {"kernel": "bone"}, "its kernel is not known"),
        ({"kind": "MR", "weighting": "T1"}, {"weighting": "T2"}, "its weighting is T1, and T2 is asked for"),
        ({"contrast": True}, {"contrast": False}, "it is with contrast, and one without is asked for"),
        ({}, {"contrast": True}, "it is without contrast, and one with is asked for"),
        ({}, {"thickest": 1.5}, "its planes are 2 mm apart, and at most 1.5 mm are asked for"),
        ({"body_part": ("head",)}, {"body_part": "lumbar"}, "name head, and lumbar is asked for"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_a_wish_is_left(facts: dict[str, Any], wish: dict[str, Any], reason: str) -> None:
    found = chosen(stack(1, **facts), **wish)
    assert not found[1].chosen
    assert reason in found[1].reason


def test_a_tag_of_the_body_part_is_not_trusted_alone() -> None:
    tagged = stack(1, body_part=("cervical", "spine"), planes=1)
    assert region_remark(tagged) == "tagged cervical and spine, unverified"
    described = stack(1, body_part=("cervical", "spine"), described=("head",))
    assert region_remark(described) == "tagged cervical and spine, which its descriptions contradict: head"
    assert region_remark(stack(1, body_part=("abdomen",), described=("lumbar", "spine"))).endswith("descriptions say")
    # 300 planes at 2 mm reach over 600 mm of the body: more than a head.
    tall = stack(1, body_part=("head",), planes=300)
    assert region_remark(tall) == "tagged head, which its 600 mm along the body contradict"
    # It is not left for its tag, where a description says what is asked for.
    assert chosen(described, body_part="head")[1].chosen


def test_a_person_decides_otherwise() -> None:
    stacks = [stack(1), stack(2, plane="coronal"), stack(3, aside="localiser"), stack(4, kind="other", modality="SR")]
    found = {
        choice.stack.number: choice for choice in choose(stacks, LABEL, Wishes(), {2: "keep", 3: "keep", 4: "keep"})
    }
    assert [number for number, choice in found.items() if choice.chosen] == [2, 3]
    assert found[2].reason == "a person decided to use it"
    assert found[1].reason == "a person decided to use another series"
    assert found[4].reason == "it is no image (SR)"
    left = choose(stacks[:2], LABEL, Wishes(), {1: "leave"})
    assert [(choice.chosen, choice.stack.number) for choice in left] == [(False, 1), (True, 2)]


def test_a_series_with_a_file_that_cannot_be_used_is_left_whole() -> None:
    broken = replace(stack(1), unusable=(1, "expected 8192 bytes of pixels, found 8130"))
    assert chosen(broken)[1].reason == "1 of its 100 files cannot be used: expected 8192 bytes of pixels, found 8130"
    nameless = replace(stack(1), series="")
    assert "could be de-identified consistently" in chosen(nameless)[1].reason


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("CSPINE", {"cervical", "spine"}),
        ("LWS nativ", {"lumbar", "spine"}),
        ("t2_tse_sag_L-Spine", {"lumbar", "spine"}),
        ("Schädel", {"head"}),
        ("CT HEAD/NECK", {"head", "neck"}),
        ("Becken", {"pelvis"}),
        ("overhead table", set()),
    ],
)
def test_regions_are_told_by_words(text: str, regions: set[str]) -> None:
    assert regions_in(text) == regions


def test_kernels_weightings_and_contrast_are_told_by_their_words() -> None:
    kernels = ("B60f", "B30f", "Br59d\\3", "BONEPLUS", "STANDARD", "FC30", "FC12", "C", "YC", "unheard-of")
    assert [kernel_of(name) for name in kernels] == [
        *("bone", "soft", "bone", "bone", "soft", "bone", "soft", "soft", "bone", ""),
    ]
    texts = ("t1_tse_sag", "T2 TIRM cor", "STIR sag", "ep2d_diff_b1000", "PD fs", "sag")
    assert [weighting_of(text) for text in texts] == ["T1", "STIR", "STIR", "diffusion", "PD", ""]
    assert [weighting_of(text) for text in ("T2 TSE sag T11-L3", "t2_tse_sag_T10-L2", "sag T12")] == ["T2", "T2", ""]
    assert contrast_of("Ultravist", "") is True
    for agent in ("WITHOUT CONTRAST", "W/O", "ohne", "keine", "None given"):
        assert contrast_of(agent, "lumbar") is None, agent
    assert contrast_of("", "abdomen nativ") is False
    assert contrast_of("", "t1 +gd") is True
    assert contrast_of("NONE", "lumbar") is None


@pytest.mark.parametrize(
    ("text", "contrast"),
    [
        ("CT SPINE W/O IV CONTRAST", False),
        ("CT CHEST WITHOUT IV CONTRAST", False),
        ("CT L-SPINE NO CONTRAST", False),
        ("CT LWS ohne KM", False),
        ("CT non-enhanced", False),
        ("CT w/out contrast", False),
        ("CT head w/o c", False),
        ("Contrast: none", False),
        ("T1 pre-contrast", False),
        ("CT SPINE W & W/O CONTRAST", None),
        ("MRT mit und ohne KM", None),
        ("CT no 3 with contrast", True),
        ("CT LWS mit KM", True),
        ("nodular contrast", True),
        ("T1 pre and post gd", True),
        ("noncontrast CT", False),
        ("T1 post contrast", True),
        ("CT spine C6", None),
    ],
)
def test_contrast_that_is_denied_is_none_and_what_says_both_says_nothing(text: str, contrast: bool | None) -> None:
    assert contrast_of("", text) is contrast


@pytest.mark.parametrize(
    ("kernel", "made_for"),
    [("Hr40f\\3", "soft"), ("Hr36d", "soft"), ("Hr60f", "bone"), ("Qr40", "soft"), ("HR", "bone")],
)
def test_a_sharp_kernel_is_told_by_its_number(kernel: str, made_for: str) -> None:
    assert kernel_of(kernel) == made_for
