"""Going on in spite of what blocks."""

from __future__ import annotations

import pytest

from osteoscope.cohort.audit import Accepted, Finding, raise_if_blocked, settle
from osteoscope.cohort.audit.finding import Severity, in_order
from osteoscope.errors import CohortError, ConfigError


def finding(kind: str, severity: Severity = "block") -> Finding:
    return Finding(kind=kind, severity=severity, cases=("P-1",), message=f"{kind} is found", remedy="mend it")


BLOCKS, WARNS = finding("geometry-shortcut"), finding("clinical-confounder", "warn")


def test_what_is_accepted_no_longer_blocks_and_keeps_its_reason() -> None:
    settled = settle([BLOCKS, WARNS], [Accepted(kind="geometry-shortcut", because=" we squash all pictures alike ")])
    assert settled.open == (WARNS,)
    assert settled.accepted == ((BLOCKS, "we squash all pictures alike"),)
    raise_if_blocked(settled.open)
    assert settled.to_json() == {
        "accepted": [
            {
                "kind": "geometry-shortcut",
                "severity": "block",
                "cases": ["P-1"],
                "message": "geometry-shortcut is found",
                "remedy": "mend it",
                "because": "we squash all pictures alike",
            }
        ],
        "accepted_but_not_found": [],
    }


def test_what_is_not_accepted_blocks_and_says_how_to_accept_it() -> None:
    settled = settle([BLOCKS, finding("file-shortcut")], [Accepted(kind="file-shortcut", because="so it is")])
    with pytest.raises(CohortError) as caught:
        raise_if_blocked(settled.open)
    assert str(caught.value) == (
        'geometry-shortcut is found (mend it; or go on with --accept geometry-shortcut --because "…")'
    )


def test_what_was_not_found_is_given_back() -> None:
    unneeded = Accepted(kind="file-shortcut", because="for another cohort")
    settled = settle([BLOCKS], [unneeded])
    assert settled.not_found == (unneeded,)
    assert settled.open == (BLOCKS,)
    assert settled.to_json()["accepted_but_not_found"] == ["file-shortcut"]


@pytest.mark.parametrize("because", ["", "  \n"])
def test_no_reason_is_no_acceptance(because: str) -> None:
    with pytest.raises(ConfigError, match="no reason is given to accept file-shortcut"):
        Accepted(kind="file-shortcut", because=because)


@pytest.mark.parametrize(
    "kind",
    [
        "duplicate-across-labels",
        "duplicate-across-patients",
        "patient-in-two-folds",
        "patient-with-two-labels",
        "pixels-in-two-folds",
        "shared-patient",
        "shared-pixels",
        "too-few-for-folds",
    ],
)
def test_some_kinds_are_never_accepted_and_do_not_say_how(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} cannot be accepted"):
        Accepted(kind=kind, because="I insist")
    with pytest.raises(CohortError) as caught:
        raise_if_blocked([finding(kind)])
    assert "--accept" not in str(caught.value)


def test_a_kind_is_accepted_once() -> None:
    with pytest.raises(ConfigError, match="accepted twice"):
        settle([BLOCKS], [Accepted(kind="x", because="a"), Accepted(kind="x", because="b")])


def test_what_blocks_comes_first_then_what_warns() -> None:
    noted = finding("a-note", "note")
    assert in_order([noted, WARNS, BLOCKS]) == (BLOCKS, WARNS, noted)


def test_a_finding_survives_json() -> None:
    assert Finding.from_json(BLOCKS.to_json()) == BLOCKS
