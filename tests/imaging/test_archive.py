"""Zips, harmless and not."""

from __future__ import annotations

import resource
import shutil
import struct
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from osteoscope.errors import StorageError
from osteoscope.imaging import archive
from osteoscope.imaging.archive import each_member, unpacked
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from pathlib import Path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def refused(path: Path) -> RefusedImageError:
    with pytest.raises(RefusedImageError) as fault, unpacked(path):
        pass
    assert fault.value.remedy
    return fault.value


def test_members_are_there_for_as_long_as_the_context_lasts(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"s/1/b.dcm": b"second", "s/1/a.dcm": b"first", "note.txt": b"third"})
    with unpacked(path) as found:
        content = {name: target.read_bytes() for target, name in found.names.items()}
        assert content == {"s/1/b.dcm": b"second", "s/1/a.dcm": b"first", "note.txt": b"third"}
        assert found.refused == ()
        assert found.folder.stat().st_mode & 0o077 == 0
        folder = found.folder
    assert not folder.exists()
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_folder_is_removed_after_an_exception(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"x"})
    with pytest.raises(KeyboardInterrupt), unpacked(path) as found:  # noqa: PT012
        folder = found.folder
        raise KeyboardInterrupt
    assert not folder.exists()


def test_files_of_one_folder_stay_together_and_keep_their_names(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x/a.hdr": b"1", "y/a.hdr": b"2", "x/a.img": b"3"})
    with unpacked(path) as found:
        by_name = {name: target for target, name in found.names.items()}
        assert by_name["x/a.hdr"].with_suffix(".img") == by_name["x/a.img"]
        assert by_name["y/a.hdr"].parent != by_name["x/a.hdr"].parent


@pytest.mark.parametrize("name", ["../a", "s/../../a", "/etc/a", "..\\a", "\\\\host\\a", "C:\\a", "c:a", ".."])
def test_a_name_that_climbs_is_refused_and_the_rest_is_unpacked(tmp_path: Path, name: str) -> None:
    path = tmp_path / "inner" / "a.zip"
    path.parent.mkdir()
    zipped(path, {name: b"climbed", "good": b"stayed"})
    with unpacked(path) as found:
        (refusal,) = found.refused
        assert refusal.code is RefusalCode.UNSAFE_ARCHIVE
        assert [found.names[one] for one in refusal.files] == [name]
        kept = {found.names[target] for target in found.folder.rglob("*") if target.is_file()}
        assert kept == {"good"}
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_names_that_are_alike_odd_or_too_long_all_get_files(tmp_path: Path) -> None:
    names = ["a", "A", "x/.", "x/a", "骨" * 90 + ".dcm", "n" * 300, "a\nb", "x/\x1b[31m", "  ", "Köln/Ä.dcm"]
    path = zipped(tmp_path / "a.zip", {name: name.encode() for name in names})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as opened:
        opened.writestr("a", b"a")
    with unpacked(path) as found:
        assert sorted(found.names.values()) == sorted([*names, "a"])
        assert all(target.read_bytes() == name.encode() for target, name in found.names.items())


def test_a_folder_that_a_backslash_ends_is_no_file(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"study\\": b"", "study\\a": b"1"})
    with unpacked(path) as found:
        assert list(found.names.values()) == ["study\\a"]
        assert not found.refused


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNSUSPECTED", 2**20)
    path = zipped(tmp_path / "bomb.zip", {f"{number}": bytes(2**20) for number in range(8)})
    assert path.stat().st_size < 2**14
    fault = refused(path)
    assert fault.code is RefusalCode.UNSAFE_ARCHIVE
    assert str(8 * 2**20) in fault.message


def test_a_bomb_whose_members_share_their_bytes_is_refused(tmp_path: Path) -> None:
    # As D. Fifield's: the list names one member 2,000 times; each would give 1 MiB.
    path = zipped(tmp_path / "bomb.zip", {"a": bytes(2**20)})
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2000, 2000, 2000 * len(entry), start, 0)
    path.write_bytes(content[:start] + 2000 * entry + tail)
    begun = time.perf_counter()
    assert refused(path).code is RefusalCode.UNSAFE_ARCHIVE
    assert time.perf_counter() - begun < 2


def test_a_zip_that_understates_its_bytes_gives_no_more_than_it_states(tmp_path: Path) -> None:
    path = zipped(tmp_path / "liar.zip", {"a": bytes(10**6), "b": b"good"})
    content = path.read_bytes()
    stated = struct.pack("<I", 10**6)
    assert content.count(stated) == 2
    path.write_bytes(content.replace(stated, struct.pack("<I", 10)))
    with unpacked(path) as found:
        (refusal,) = found.refused
        assert refusal.code is RefusalCode.DAMAGED
        assert [target.read_bytes() for target in found.folder.rglob("*") if target.is_file()] == [b"good"]


def test_a_list_of_members_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 10_000)
    path = zipped(tmp_path / "a.zip", {f"{number:060}": b"" for number in range(100)})
    assert refused(path).code is RefusalCode.UNSAFE_ARCHIVE


def test_a_zip_for_which_there_is_no_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 99}))
    fault = refused(zipped(tmp_path / "a.zip", {"a": bytes(100)}))
    assert fault.code is RefusalCode.TOO_LARGE
    assert "TMPDIR" in (fault.remedy or "")


def test_a_disk_that_fills_up_meanwhile_is_no_fault_of_a_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": bytes(9000), "b": b"small"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match="could not be written: file too large"), unpacked(path):
            pass
        with pytest.raises(StorageError, match="could not be written: file too large"):
            list(each_member(path, [0, 1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_member_that_asks_for_a_password_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"secret"}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    # APPNOTE 4.4.4: bit 0 of the flags, at 6 of the local header and at 8 of the entry in the list.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with unpacked(path) as found:
        assert [one.code for one in found.refused] == [RefusalCode.ENCRYPTED]


def test_a_member_that_is_packed_in_another_way_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": bytes(9)}, zipfile.ZIP_LZMA)
    with unpacked(path) as found:
        assert [one.code for one in found.refused] == [RefusalCode.UNSUPPORTED_ARCHIVE]


def test_a_damaged_member_is_refused_and_the_rest_is_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"damaged", "b": b"intact"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"damaged", b"DAMAGED"))
    with unpacked(path) as found:
        assert [(one.code, found.names[one.files[0]]) for one in found.refused] == [(RefusalCode.DAMAGED, "a")]
        assert [target.read_bytes() for target in found.folder.rglob("*") if target.is_file()] == [b"intact"]


@pytest.mark.parametrize("kept", [10, 60, 150])
def test_a_truncated_zip_is_refused(tmp_path: Path, kept: int) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"x" * 50, "b": b"y" * 50}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes()[:kept])
    assert refused(path).code is RefusalCode.DAMAGED


def test_a_zip_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.zip").code is RefusalCode.UNREADABLE
