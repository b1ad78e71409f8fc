"""A key gives the same patient the same pseudonym for ever, and is of no use to whoever may not read it."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
import uuid
from typing import TYPE_CHECKING

import pytest

from osteoscope.cohort.deidentify import Key
from osteoscope.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = bytes(range(32))
KEY = Key(secret=SECRET)


def test_a_new_key_is_readable_by_its_owner_alone_and_is_the_same_when_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.json"
    made = Key.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key.open(path) == made
    assert Key.open(tmp_path / "other.json") != made
    assert [one.name for one in path.parent.iterdir()] == ["key.json"]


def test_its_secret_is_in_no_text_of_it() -> None:
    assert SECRET.hex() not in repr(KEY)
    assert "secret" not in repr(KEY)


def test_pseudonyms_are_those_of_hmac_sha_256() -> None:
    digest = hmac.new(SECRET, b"patient\x004711", hashlib.sha256).digest()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    bits = int.from_bytes(digest[:10], "big")
    assert KEY.patient("4711") == "P-" + "".join(alphabet[bits >> shift & 31] for shift in range(75, -1, -5))
    assert KEY.patient(" 4711\0 ") == KEY.patient("4711")
    assert len({KEY.patient("1"), KEY.patient("2"), KEY.study("1")[2:], KEY.series("1")[2:]}) == 4
    assert len(KEY.number("a long accession number")) == 16


def test_a_uid_is_one_of_a_uuid_and_gives_nothing_of_the_old_away() -> None:
    old = "1.2.826.0.1.3680043.8.498.1"
    new = KEY.uid(old)
    assert new.startswith("2.25.")
    assert len(new) <= 64
    assert (uuid.UUID(int=int(new[5:])).version, uuid.UUID(int=int(new[5:])).variant) == (8, uuid.RFC_4122)
    assert KEY.uid(old) == new != Key(secret=bytes(32)).uid(old)


def test_dates_move_by_a_month_to_five_years_into_the_past_each_patient_by_its_own() -> None:
    days = [KEY.shift(str(number)) for number in range(2000)]
    assert -1825 <= min(days) < -1700
    assert -130 < max(days) <= -30
    assert len(set(days)) > 1000


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.json"
    Key.open(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}.*chmod 600"):
        Key.open(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema": "osteoscope-key/1", "secret": "zz", "sha256": ""}', b"\xff\xfe"],
    ids=["empty", "torn", "list", "no number", "no text"],
)
def test_a_damaged_key_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"damaged.*restore it"):
        Key.open(path)
    assert path.read_bytes() == content


def test_a_key_whose_secret_has_changed_by_one_digit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    Key.open(path)
    value = json.loads(path.read_text())
    value["secret"] = ("1" if value["secret"][0] == "0" else "0") + value["secret"][1:]
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match="checksum"):
        Key.open(path)


def test_a_key_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    Key.open(path)
    path.write_text(path.read_text().replace("key/1", "key/2"))
    with pytest.raises(ConfigError, match="key/2"):
        Key.open(path)


def test_a_key_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="could not be written"):
        Key.open(tmp_path / "file" / "key.json")
