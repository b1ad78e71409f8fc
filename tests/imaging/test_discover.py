"""Folders as they are: deep, linked in circles, unreadable, full of what is no image."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path

import pytest

from osteoscope.imaging.discover import Found, discover, look_into, printable
from osteoscope.imaging.refusal import RefusalCode

DICOM = bytes(128) + b"DICM" + bytes(40)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
NIFTI = b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(8)
UNKNOWN = b"\0\1\2\3"


def filled(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def codes(found: Found, root: Path) -> dict[str, str]:
    """Codes of what was refused, by path from the root."""
    return {one.files[0].relative_to(root).as_posix(): one.code.value for one in found.refused}


def test_files_are_told_by_their_bytes_and_sorted_by_their_paths(tmp_path: Path) -> None:
    filled(tmp_path, {"b/2.png": DICOM, "b/10": DICOM, "a.dcm": PNG, "c": NIFTI, "a.txt": DICOM})
    found = discover([tmp_path])
    assert found.files == {
        "DICOM": (tmp_path / "a.txt", tmp_path / "b/10", tmp_path / "b/2.png"),
        "PNG": (tmp_path / "a.dcm",),
        "NIfTI": (tmp_path / "c",),
    }
    assert found.refused == ()
    assert found.companions == ()
    assert found.archives == ()


def test_the_order_does_not_depend_on_how_paths_are_named(tmp_path: Path) -> None:
    filled(tmp_path, {f"{name}/{number}": DICOM for name in "ba" for number in range(5)})
    paths = [tmp_path / "b", tmp_path / "a"]
    assert discover(paths) == discover(paths[::-1]) == discover([tmp_path])


def test_companions_are_told_apart_in_a_folder_and_refused_where_they_are_named(tmp_path: Path) -> None:
    directory = DICOM[:132] + b"\2\0\2\0UI\x14\0" + b"1.2.840.10008.1.3.10"
    filled(tmp_path, {"DICOMDIR": directory, "readme.txt": b"hello\n", "viewer.exe": b"MZ\x90\0", "1.dcm": DICOM})
    found = discover([tmp_path])
    assert [path.name for path in found.companions] == ["DICOMDIR", "readme.txt", "viewer.exe"]
    assert found.refused == ()
    named = discover([tmp_path / "DICOMDIR"])
    assert [(one.code, one.files) for one in named.refused] == [(RefusalCode.NOT_AN_IMAGE, (tmp_path / "DICOMDIR",))]
    assert "folder of a DICOMDIR" in (named.refused[0].remedy or "")


def test_what_is_no_image_is_refused_each_with_its_reason(tmp_path: Path) -> None:
    filled(tmp_path, {"empty.dcm": b"", "odd": UNKNOWN, "a.7z": b"7z\xbc\xaf\x27\x1c", "ok": PNG})
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        found = discover([tmp_path])
    assert codes(found, tmp_path) == {
        "a.7z": "unsupported_archive",
        "broken": "missing",
        "empty.dcm": "empty",
        "nothing": "empty",
        "odd": "not_an_image",
        "pipe": "not_an_image",
        "socket": "not_an_image",
    }
    assert all(one.remedy for one in found.refused)
    assert "leads to nothing" in found.refused[1].sentence


def test_a_folder_with_nothing_and_a_path_that_is_not_there_are_refused(tmp_path: Path) -> None:
    found = discover([tmp_path, tmp_path / "gone", tmp_path / ("n" * 300), Path("/dev/null")])
    assert [one.code.value for one in found.refused] == ["not_an_image", "empty", "missing", "unreadable"]


def test_links_in_a_circle_end_and_a_file_counts_once(tmp_path: Path) -> None:
    filled(tmp_path, {"a/1": DICOM, "b/2": DICOM})
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "across").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "b" / "again").symlink_to(tmp_path / "a" / "1")
    (tmp_path / "b" / "hard").hardlink_to(tmp_path / "b" / "2")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = discover([tmp_path, tmp_path / "a", tmp_path / "b" / "2"])
    assert len(found.files["DICOM"]) == 2
    assert codes(found, tmp_path) == {"self": "unreadable"}


def test_a_folder_is_walked_however_deep_it_is(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(400):
        folder /= "d"
        folder.mkdir()
    (folder / "1").write_bytes(DICOM)
    assert discover([tmp_path]).files["DICOM"] == (folder / "1",)


def test_a_folder_that_may_not_be_read_is_refused_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, {"closed/1": DICOM, "open/2": DICOM, "open/3": DICOM})
    iterdir, opened = Path.iterdir, Path.open

    def denied(path: Path, *more: object) -> object:
        if path.name in ("closed", "3"):
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path) if path.is_dir() else opened(path, *more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "iterdir", denied)
    monkeypatch.setattr(Path, "open", denied)
    found = discover([tmp_path])
    assert codes(found, tmp_path) == {"closed": "unreadable", "open/3": "unreadable"}
    assert found.files["DICOM"] == (tmp_path / "open" / "2",)


def test_a_file_that_goes_away_while_it_is_looked_at_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, {"1": DICOM, "2": DICOM})
    found = discover([tmp_path], progress=lambda _done, _total: (tmp_path / "2").unlink(missing_ok=True))
    assert codes(found, tmp_path) == {"2": "missing"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Müller^Jürgen", "Müller^Jürgen"),
        ("骨肉腫 1", "骨肉腫 1"),
        ("Ñandú\u0301", "Ñandú\u0301"),
        (os.fsdecode("Größe".encode("latin-1")), "Gr\\xf6\\xdfe"),
        (os.fsdecode("\u60a3\u8005".encode("gb18030")), "\\xbb\\xbc\\xd5\\xdf"),
        ("line\nline", "line\\nline"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("gnp.\u202e1", "gnp.\\u202e1"),
    ],
)
def test_names_in_every_character_set_are_found_and_can_be_printed(tmp_path: Path, name: str, shown: str) -> None:
    filled(tmp_path, {name: DICOM})
    found = discover([tmp_path])
    assert found.files["DICOM"] == (tmp_path / name,)
    assert found.name(tmp_path / name) == f"{tmp_path}/{shown}"
    assert printable(name).encode("utf-8").decode("utf-8") == shown


def test_the_values_of_a_header_beside_them_are_companions(tmp_path: Path) -> None:
    pair = NIFTI.replace(b"n+1", b"ni1")
    filled(
        tmp_path,
        {
            "a/1.hdr": pair,
            "a/1.img": UNKNOWN,
            "a/2.img": UNKNOWN,
            "b/x.mhd": b"ObjectType = Image\nElementDataFile = x.raw\n",
            "b/x.raw": UNKNOWN,
            "c/x.raw": UNKNOWN,
            "d/x.nhdr": b"NRRD0004\ndata file: y.raw.gz\n",
            "d/y.raw.gz": b"\x1f\x8b\x08",
        },
    )
    found = discover([tmp_path])
    assert [path.name for path in found.companions] == ["1.img", "x.raw", "y.raw.gz"]
    assert codes(found, tmp_path) == {"a/2.img": "not_an_image", "c/x.raw": "not_an_image"}


def test_progress_counts_the_files(tmp_path: Path) -> None:
    filled(tmp_path, {"1": DICOM, "2": b"", "3": UNKNOWN})
    said: list[tuple[int, int]] = []
    discover([tmp_path], progress=lambda done, total: said.append((done, total)))
    assert said == [(1, 3), (2, 3), (3, 3)]


# Zips


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def test_a_zip_is_looked_into(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"s/1": DICOM, "s/2": PNG, "readme": b"hello\n", "odd": UNKNOWN})
    found = discover([tmp_path])
    assert found.archives == (path,)
    with look_into(path) as inside:
        assert {kind: [inside.name(one) for one in files] for kind, files in inside.files.items()} == {
            "DICOM": [f"{path}!s/1"],
            "PNG": [f"{path}!s/2"],
        }
        assert [inside.name(one) for one in inside.companions] == [f"{path}!readme"]
        assert [(inside.name(one.files[0]), one.code.value) for one in inside.refused] == [
            (f"{path}!odd", "not_an_image")
        ]


def test_a_zip_in_a_zip_is_refused(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"1": DICOM}).read_bytes()
    outer = zipped(tmp_path / "outer.zip", {"inner.zip": inner, "../inner.zip": inner})
    with look_into(outer) as inside:
        assert sorted((inside.name(one.files[0]), one.code.value) for one in inside.refused) == [
            (f"{outer}!../inner.zip", "unsafe_archive"),
            (f"{outer}!inner.zip", "unsupported_archive"),
        ]
        assert inside.files == {}


def test_a_zip_with_nothing_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {})
    assert discover([path]).archives == (path,)
    with look_into(path) as inside:
        assert [(one.code, one.files) for one in inside.refused] == [(RefusalCode.EMPTY, (path,))]
