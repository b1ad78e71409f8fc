"""Outputs are written whole or not at all, and the user's cache is where it is expected."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from osteoscope.errors import InputError, StorageError
from osteoscope.storage import (
    cache_folder,
    file_written_whole,
    folder_written_whole,
    refuse_existing,
    sha256_of_input,
    write_json,
    write_text,
)


def test_the_cache_is_the_users_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", "/own/cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder() == Path("/own/cache")
    monkeypatch.setenv("OSTEOSCOPE_CACHE", "")
    assert cache_folder() == Path("/some/cache/osteoscope")
    monkeypatch.delenv("OSTEOSCOPE_CACHE")
    assert cache_folder() == Path("/some/cache/osteoscope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "osteoscope"


def test_without_a_home_the_cache_is_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("OSTEOSCOPE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(OSError, match="Not a directory"):
        cache_folder().mkdir(parents=True)


def test_an_output_that_may_not_be_looked_at_is_refused_in_words() -> None:
    with pytest.raises(StorageError, match="file name too long"):
        refuse_existing(Path("x" * 300), kind="a cohort", marker="cohort.json", others=frozenset())


def test_the_folder_that_a_command_runs_in_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for output in (Path(), Path("../" + tmp_path.name), tmp_path):
        with pytest.raises(StorageError, match="the folder that this runs in") as refused:
            refuse_existing(output, kind="a cohort", marker="cohort.json", others=frozenset())
        assert refused.value.remedy


def test_a_folder_that_cannot_be_moved_aside_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()

    def busy(self: Path, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(StorageError, match="busy"), folder_written_whole(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_is_written_into_folders_that_are_made_for_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "text", "Hüfte")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == b"H\xc3\xbcfte"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["text"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(StorageError, match="could not be written"):
        write_text(tmp_path / "file" / "inside", "new")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"auc": float("nan")})
    assert (tmp_path / "file").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_somebody_who_reads_no_more_is_no_fault_of_the_output(tmp_path: Path) -> None:
    for written in (file_written_whole, folder_written_whole):
        with pytest.raises(BrokenPipeError), written(tmp_path / "out"):
            raise BrokenPipeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_making_fails_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    def write(content: str, *, fails: bool) -> None:
        with folder_written_whole(tmp_path / "out") as beside:
            (beside / content).write_text(content)
            if fails:
                raise KeyError(content)

    write("first", fails=False)
    with pytest.raises(KeyError):
        write("second", fails=True)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/first"]
    write("third", fails=False)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/third"]


@pytest.mark.parametrize(("umask", "rights"), [(0o077, 0o700), (0o027, 0o750), (0o002, 0o775)])
def test_a_folder_has_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        with folder_written_whole(tmp_path / "out") as beside:
            assert stat.S_IMODE(beside.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == rights
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    """An output is often a link to a larger disk."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk" / "out")
    for name in ("first", "second"):
        refuse_existing(link, kind="a text", marker="first", others=frozenset())
        with folder_written_whole(link) as beside:
            assert beside.parent == tmp_path / "disk"
            (beside / name).touch()
        assert link.is_symlink()
        assert [path.name for path in (tmp_path / "disk" / "out").iterdir()] == [name]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out"]


def test_what_could_not_be_written_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as fault, folder_written_whole(tmp_path / "out") as beside:
        (beside / ("x" * 300)).touch()
    assert str(fault.value).startswith(f"{tmp_path / 'out'}: could not be written: file name too long")


@pytest.mark.parametrize("name", ["file/out", "x" * 250])
def test_where_nothing_can_be_made_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    """Below a file, and where the folder beside would have a longer name than there can be."""
    target = tmp_path / name
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written") as fault:
        refuse_existing(target, kind="a cohort", marker="cohort.json", others=frozenset())
    assert fault.value.path == target
    assert fault.value.remedy


def test_what_is_tried_before_the_work_leaves_nothing(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "a" / "b", kind="a cohort", marker="cohort.json", others=frozenset())
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_at_the_last_moment_leaves_one_of_both_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    rename = Path.replace

    def interrupted(self: Path, other: Path) -> Path:
        if self.name.endswith(".tmp") and other == target:
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_written_whole(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_named_file_is_hashed_or_missed(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    assert sha256_of_input(tmp_path / "weights") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(InputError, match=r"none.*cannot be read: no such file"):
        sha256_of_input(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        sha256_of_input(tmp_path)
