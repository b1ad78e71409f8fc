"""The closed list of reasons, and what is documented of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osteoscope.errors import ImageError, InputError, MissingExtraError, StorageError
from osteoscope.imaging.refusal import LEFT_OUT, Refusal, RefusalCode, RefusedImageError

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")


def codes_of(table: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)


def test_every_code_is_documented_once_in_its_table_and_no_other() -> None:
    refused, left_out = DOCUMENTED.split("**Read, and left out**")
    left_out = left_out.split("## For machines")[0]
    assert sorted(codes_of(left_out)) == sorted(LEFT_OUT)
    # A scan of one file without a place and a radiograph of several frames are left out; a series of several files
    # without one and a picture of several frames are refused.
    only_left_out = set(LEFT_OUT) - {RefusalCode.MISSING_PLACE, RefusalCode.SEVERAL_FRAMES}
    assert sorted(codes_of(refused)) == sorted(set(RefusalCode) - only_left_out)


def test_a_refusal_keeps_what_an_exception_says() -> None:
    path = Path("a.dcm")
    error = RefusedImageError(RefusalCode.DAMAGED, "ends too early", path=path, remedy="copy it again")
    assert isinstance(error, ImageError)
    assert str(error) == "a.dcm: ends too early (copy it again)"
    refusal = Refusal.of(error, path)
    assert refusal == Refusal(
        files=(path,), code=RefusalCode.DAMAGED, sentence="ends too early", remedy="copy it again"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MissingExtraError("SimpleITK", "study"), "missing_library"),
        (InputError("odd"), "unreadable"),
        (ArithmeticError("DOE^JOHN"), "unknown"),
        (MemoryError(), "unknown"),
    ],
)
def test_any_other_exception_gets_a_code_and_tells_no_value(error: Exception, code: str) -> None:
    refusal = Refusal.of(error, Path("a"), Path("b"))
    assert refusal.code == code
    assert refusal.files == (Path("a"), Path("b"))
    assert refusal.remedy or not isinstance(error, MissingExtraError)
    assert "DOE" not in refusal.sentence
    assert code != "unknown" or type(error).__name__ in refusal.sentence


def test_a_full_disk_is_no_fault_of_a_file() -> None:
    with pytest.raises(StorageError, match="disk full"):
        Refusal.of(StorageError("disk full"), Path("a"))
