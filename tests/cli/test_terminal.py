"""What a log gets of a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.cli.terminal import staged

if TYPE_CHECKING:
    import pytest


def test_a_log_gets_some_lines_of_a_count_and_none_twice_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    with staged("looking at files") as say:
        for done in range(21):
            say("looking at files", done, 20)
            say("looking at files", done, 20)
        say("decoding files", 20, 20)
        say("decoding files", 20, 20)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [*(f"looking at files: {done} of 20" for done in range(0, 21, 2)), "decoding files: 20 of 20"]
