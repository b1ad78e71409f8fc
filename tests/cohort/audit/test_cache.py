"""What was looked at is looked at once; a cache that cannot be used is done without."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import entries, write_cohort_of

from osteoscope.cohort.audit import audit
from osteoscope.cohort.audit.cache import keep_looks, keep_verdicts, known_looks, known_verdicts, pair_key
from osteoscope.cohort.audit.confirm import Verdict
from osteoscope.imaging.look import look

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "looks.sqlite"


def test_looks_and_verdicts_come_back_as_they_were_kept(cache: Path) -> None:
    seen = look(np.random.default_rng(0).random((70, 50), dtype=np.float32))
    keep_looks({"pixels": seen})
    (back,) = known_looks(["pixels", "others"]).values()
    assert (back.shape, back.content, dict(back.features)) == (
        seen.shape,
        seen.content,
        dict(seen.features),
    )
    assert np.array_equal(back.descriptor, seen.descriptor)
    verdict = Verdict(correlation=0.99, detail=0.97, overlap=0.9, how="mirrored")
    keep_verdicts({pair_key("b", "a"): verdict, pair_key("a", "c"): None})
    assert known_verdicts([pair_key("a", "b"), pair_key("c", "a"), pair_key("b", "c")]) == {"a+b": verdict, "a+c": None}
    assert cache.is_file()


def test_a_second_audit_reads_no_picture_and_says_the_same(cache: Path, tmp_path: Path) -> None:
    cohort = write_cohort_of(tmp_path / "pictures", entries(4, (6, 6), views=1))
    first = audit(cohort)
    for path in (tmp_path / "pictures").glob("*.png"):
        path.unlink()
    assert audit(cohort) == first
    assert cache.is_file()


def test_copies_are_known_and_other_files_of_the_same_pixels_are_audited_anew(cache: Path, tmp_path: Path) -> None:
    made = entries(4, (6, 6), views=1)
    seen: list[int] = []
    audit(write_cohort_of(tmp_path / "a", made))
    audit(write_cohort_of(tmp_path / "b", made), progress=lambda done, _: seen.append(done))
    assert seen == []
    otherwise = [{**entry, "image": entry["image"].replace(".png", ".bmp")} for entry in made]
    cohort = write_cohort_of(tmp_path / "c", otherwise)
    audit(cohort, progress=lambda done, _: seen.append(done))
    assert seen == [12]
    audit(cohort, roi="box", progress=lambda done, _: seen.append(done))
    assert seen == [12, 12]
    assert cache.is_file()


@pytest.mark.parametrize("damage", ["not a database", "a folder", "no table", "a torn entry"])
def test_a_cache_that_cannot_be_used_is_done_without(
    cache: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = write_cohort_of(tmp_path / "pictures", entries(4, (6, 6), views=1))
    sound = audit(cohort)
    if damage == "a folder":
        cache.unlink()
        cache.mkdir()
    elif damage == "not a database":
        cache.write_bytes(b"nothing that SQLite knows" * 100)
    else:
        with sqlite3.connect(cache) as connection:
            if damage == "no table":
                connection.execute("DROP TABLE looks")
                connection.execute("CREATE TABLE looks (something TEXT)")
                connection.execute("DELETE FROM audits")
            else:
                connection.execute("UPDATE looks SET facts = '{'")
                connection.execute("UPDATE audits SET audit = '{'")
        connection.close()
    assert audit(cohort).findings == sound.findings
    assert "cache" in caplog.text
    assert not any(patient in caplog.text for patient in cohort.frame["patient"])
