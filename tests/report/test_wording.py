"""Figures as people read them."""

from __future__ import annotations

import pytest

from osteoscope.report.wording import count_text, estimate_text, note_text, setting_text, share_text

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("figure", "percent", "expected"),
    [
        ({"value": 0.8613, "low": 0.7921, "high": 0.9134, "n": 124}, False, "0.86 (0.79–0.91)"),
        ({"value": 0.8613, "low": 0.7921, "high": 0.9134, "n": 124}, True, f"86{NBSP}% (79–91)"),
        ({"value": -0.111, "low": -0.4, "high": 0.13, "n": 9}, False, "−0.11 (−0.40 to 0.13)"),
        ({"value": 0.25, "low": None, "high": None, "n": 9}, False, "0.25 (no interval)"),
        ({"value": None, "low": None, "high": None, "n": 0}, False, "–"),
        ({"value": float("nan"), "low": 0.0, "high": 1.0, "n": 3}, False, "–"),
        ({}, True, "–"),
    ],
)
def test_an_estimate_comes_with_its_interval_or_says_that_it_has_none(
    figure: dict[str, float | None], percent: bool, expected: str
) -> None:
    assert estimate_text(figure, percent=percent) == expected


def test_the_note_below_an_estimate_gives_reason_and_number() -> None:
    n = f"n{NBSP}={NBSP}"
    assert note_text({"value": 0.5, "low": 0.4, "high": 0.6, "n": 1234}, "unused") == f"{n}1,234"
    assert note_text({"value": None, "n": 0}, "a class has no case") == f"a class has no case; {n}0"
    assert note_text({"value": None, "n": 0, "reason": "its own"}, "another") == f"its own; {n}0"
    assert note_text({"value": 0.5, "low": None, "high": None, "n": 4, "reason": "too few"}, "") == f"too few; {n}4"
    assert note_text({"value": 0.5}, "") == "no interval"
    assert note_text({"value": 1.0, "low": 0.8, "high": 1.0, "n": 4, "note": "Wilson's"}, "") == f"Wilson's; {n}4"


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, "0 %"), (0.001, "< 1 %"), (0.126, "13 %"), (0.998, "> 99 %"), (1.0, "100 %")],
)
def test_a_probability_never_claims_a_certainty_that_it_does_not_have(share: float, expected: str) -> None:
    assert share_text(share).replace(NBSP, " ") == expected


def test_counts_and_settings_are_written_for_people() -> None:
    assert count_text(2598) == "2,598"
    assert [setting_text(value) for value in (True, False, None, (), ["age", "sex"], 1e-3, 0.1 + 0.2, "none")] == [
        "yes", "no", "–", "–", "age, sex", "0.001", "0.3", "none",
    ]  # fmt: skip
    assert setting_text([[-160.0, 240.0], (-500, 1300)]) == "-160 to 240, -500 to 1300"
