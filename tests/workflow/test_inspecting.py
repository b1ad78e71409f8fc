"""What `inspect` says of files as hospitals have them, and of files that nobody should have."""

from __future__ import annotations

import gc
import json
import shutil
import time
import weakref
import zipfile
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from conftest import shared_data
from dicom_files import CORONAL, PATIENT, SAGITTAL, write_dicom, write_series
from PIL import Image as Picture

from osteoscope import workflow
from osteoscope.imaging import nifti, picture
from osteoscope.imaging.picture import pixel_sha256
from osteoscope.imaging.refusal import RefusalCode

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
SCAN = RANDOM.integers(0, 400, (6, 40, 48), dtype=np.uint16)
GREY = RANDOM.integers(0, 256, (40, 48), dtype=np.uint8)


def document(*paths: Path) -> dict[str, Any]:
    """The JSON document, through text and back."""
    value: dict[str, Any] = json.loads(json.dumps(workflow.inspect(paths).to_json(), allow_nan=False))
    assert value["schema"] == 1
    assert value["readable"] == len(value["images"])
    assert value["used"] == sum(image["use"] is not None for image in value["images"])
    assert {image["not_used_because"] is None for image in value["images"] if image["use"]} <= {True}
    return value


def codes(found: dict[str, Any]) -> dict[str, str]:
    return {name.rpartition("/")[2]: one["code"] for one in found["refusals"] for name in one["files"]}


def test_a_series_is_described_as_it_is(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", SCAN, step=(0, 0, 4), RescaleIntercept=-200, spacing=(0.5, 0.75))
    (image,) = document(tmp_path)["images"]
    assert image["modality"] == image["dicom_modality"] == "CT"
    assert image["shape"] == [6, 40, 48]
    assert image["geometry"]["plane"] == "axial"
    assert image["geometry"]["direction"] == {"columns": "left", "rows": "back", "planes": "head"}
    assert image["geometry"]["spacing_mm"] == pytest.approx([4, 0.5, 0.75])
    assert image["geometry"]["tilt_degrees"] == pytest.approx(0)
    assert image["transfer_syntaxes"] == ["Explicit VR Little Endian"]
    values = SCAN.astype(np.float32) - 200
    assert image["values"] == {
        "sha256": pixel_sha256(values),
        "low": values.min(),
        "high": values.max(),
        "unit": "HU",
    }
    assert len(image["files"]) == 6
    assert image["format"] == "DICOM"
    assert len(image["series"]) == 12


@pytest.mark.parametrize(
    ("orientation", "plane", "planes_to"), [(SAGITTAL, "sagittal", "right"), (CORONAL, "coronal", "back")]
)
def test_planes_are_named_by_their_orientation(
    tmp_path: Path, orientation: tuple[float, ...], plane: str, planes_to: str
) -> None:
    write_series(tmp_path / "mr", SCAN, "MR", orientation=orientation)
    (image,) = document(tmp_path)["images"]
    assert image["geometry"]["plane"] == plane
    # Columns x rows: from front to back and head to feet gives the right; from right to left and head to feet the back.
    assert image["geometry"]["direction"]["planes"] == planes_to


def test_what_would_be_used_is_said(tmp_path: Path) -> None:
    write_series(tmp_path / "thin", np.repeat(SCAN, 4, axis=0), "MR", step=(0, 0, 1.0), series="thin")
    (image,) = document(tmp_path)["images"]
    # 24 planes 1 mm apart, read at least 4 mm apart: some six of them.
    planes = image["use"]["planes"]
    assert 5 <= len(planes) <= 7
    assert min(np.diff(planes)) >= 4
    assert len(image["use"]["windows"]) == 1


def test_what_is_left_out_is_told_from_what_is_used(tmp_path: Path) -> None:
    Picture.fromarray(GREY).save(tmp_path / "radiograph.png")
    Picture.fromarray(np.full_like(GREY, 7)).save(tmp_path / "blank.png")
    write_dicom(tmp_path / "capture", GREY, "SC", ImageType=["DERIVED", "SECONDARY"])
    write_series(tmp_path / "scout", SCAN[:1], "CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_dicom(tmp_path / "frames", np.stack([GREY, GREY, GREY]), "DX")
    write_series(tmp_path / "map", SCAN + 1, "MR", series="map", ImageType=["DERIVED", "SECONDARY", "ADC"])
    write_dicom(tmp_path / "raw", GREY, "DX", series="raw", PresentationIntentType="FOR PROCESSING")
    found = document(tmp_path)
    reasons = {image["files"][0].rpartition("/")[2]: image["not_used_because"] for image in found["images"]}
    assert reasons.pop("radiograph.png") is None
    assert sorted(map(str, reasons.values())) == [
        *("blank", "derived", "for_processing", "localiser", "secondary_capture", "several_frames"),
    ]
    assert (found["readable"], found["used"], found["refused"]) == (7, 1, 0)


def test_all_that_is_in_a_folder_is_accounted_for_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SCAN)
    (tmp_path / "a" / "empty").write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("notes\n")
    (tmp_path / "b").mkdir()
    Picture.fromarray(GREY).save(tmp_path / "b" / "p.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.write(tmp_path / "b" / "p.png", "p.png")
        packed.write(tmp_path / "a" / "notes.txt", "notes.txt")
    shutil.copy(tmp_path / "b" / "p.png", tmp_path / "b" / "damaged.png")
    (tmp_path / "b" / "damaged.png").write_bytes((tmp_path / "b" / "p.png").read_bytes()[:200])
    found = document(tmp_path)
    names = [name for image in found["images"] for name in image["files"] + image["copies"]]
    names += [name for refusal in found["refusals"] for name in refusal["files"]]
    names += found["beside"]
    files = [str(path) for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".zip"]
    assert sorted(names) == sorted([*files, f"{tmp_path}/c.zip!p.png", f"{tmp_path}/c.zip!notes.txt"])
    assert codes(found) == {"empty": "empty", "damaged.png": "damaged"}


def test_a_damaged_slice_refuses_its_series_and_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct", SCAN)
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:-900])
    found = document(tmp_path)
    refusals = [one for one in found["refusals"] if str(paths[2]) in one["files"]]
    assert [one["code"] for one in refusals] == ["truncated_pixels"]
    assert not any(image["use"] for image in found["images"] if str(paths[2]) in image["files"])


def test_a_file_that_changes_while_it_is_looked_at_refuses_its_series(tmp_path: Path) -> None:
    write_series(tmp_path / "1", SCAN, series="1")
    changing = write_series(tmp_path / "2", SCAN, series="2")[3]

    def change(what: str, done: int, _total: int) -> None:
        if what == "decoding files" and done == 6:
            changing.write_bytes(changing.read_bytes()[:-1] + b"\xff")

    found = workflow.inspect([tmp_path], watch=change).to_json()
    assert set(codes(found).values()) == {"changed"}
    assert len(codes(found)) == 6
    assert found["refusals"][0]["sentence"].startswith(f"{changing.name}: ")
    assert found["readable"] == 1


def test_no_more_than_one_scan_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = weakref.WeakSet[Any]()
    opened = nifti.open_nifti
    most = 0

    def counted(path: Path, **options: Any) -> Any:
        nonlocal most
        scan = opened(path, **options)
        held.add(scan.volume.reader)
        gc.collect()
        most = max(most, len(held))
        return scan

    monkeypatch.setattr(nifti, "open_nifti", counted)
    for number in range(4):
        nibabel.save(
            nibabel.Nifti1Image(SCAN.T + np.float32(number), np.diag([1, 1, 3, 1])), tmp_path / f"{number}.nii"
        )
    found = workflow.inspect([tmp_path])
    assert len(found.images) == 4
    # The next is opened before the last is let go.
    assert most <= 2
    with pytest.raises(ValueError, match="inspected"):
        found.images[0].image.volume.read()


def test_an_exception_that_was_not_foreseen_refuses_its_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "2.png"):
        Picture.fromarray(GREY).save(tmp_path / name)
    decode = picture._grey

    def broken(opened: Any, path: Path) -> Any:
        if path.name == "1.png":
            raise RecursionError(PATIENT)
        return decode(opened, path)

    monkeypatch.setattr(picture, "_grey", broken)
    found = document(tmp_path)
    assert codes(found) == {"1.png": "unknown"}
    assert "RecursionError" in found["refusals"][0]["sentence"]
    assert PATIENT not in json.dumps(found)
    assert found["readable"] == 1


def test_nothing_of_the_patient_is_said(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "PatientBirthDate": "19500203",
        "PatientID": "4711-0815",
        "PatientComments": "sternly secret",
    }
    write_series(tmp_path / "good", SCAN, series="x", **more)
    write_series(
        tmp_path / "gap", SCAN, series="y", each=[{"position": (0, 0, z)} for z in (0, 3, 6, 12, 15, 18)], **more
    )
    write_dicom(tmp_path / "cut", GREY, "CR", **more)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-500])
    text = json.dumps(document(tmp_path))
    for secret in (*PATIENT.split("^"), "19500203", "1950", "4711", "secret"):
        assert secret not in text


def test_names_in_every_character_set_make_one_valid_document(tmp_path: Path) -> None:
    raw = str(tmp_path).encode() + b"/Gr\xf6\xdfe \xbb\xbc\x1b[31m\n.png"
    Picture.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(raw.decode("utf-8", "surrogateescape"))
    with zipfile.ZipFile(tmp_path / "骨.zip", "w") as packed:
        packed.writestr("Ä/\u202egnp.1", b"\x00\x01")
    found = document(tmp_path)
    assert found["images"][0]["files"] == [f"{tmp_path}/Gr\\xf6\\xdfe \\xbb\\xbc\\x1b[31m\\n.png"]
    assert found["refusals"][0]["files"] == [f"{tmp_path}/骨.zip!Ä/\\u202egnp.1"]


@pytest.mark.parametrize("kind", ["bomb", "climb", "nested", "truncated"])
def test_no_zip_does_harm(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        if kind == "bomb":
            for number in range(300):
                packed.writestr(f"{number}", bytes(2**20))
        elif kind == "climb":
            packed.writestr("../../evil.png", GREY.tobytes())
        else:
            packed.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:40])
    found = document(tmp_path)
    assert list(codes(found).values()) == [
        {
            "bomb": "unsafe_archive",
            "climb": "unsafe_archive",
            "nested": "unsupported_archive",
            "truncated": "damaged",
        }[kind]
    ]
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_progress_counts_files_and_planes_to_their_ends(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SCAN)
    Picture.fromarray(GREY).save(tmp_path / "p.png")
    said: list[tuple[str, int, int]] = []
    workflow.inspect([tmp_path], watch=lambda *count: said.append(count))
    assert ("looking at files", 7, 7) in said
    assert said[-1] == ("decoding files", 7, 7)


# Real files


def test_the_stacks_of_one_file_count_as_one_file(tmp_path: Path) -> None:
    shutil.copy(shared_data("dicom") / "fo_dicom" / "MOVEKNEE.dcm", tmp_path)
    Picture.fromarray(GREY).save(tmp_path / "z.png")
    said: list[tuple[str, int, int]] = []
    found = workflow.inspect([tmp_path], watch=lambda *count: said.append(count))
    assert len(found.images) == 20
    assert said[-1] == ("decoding files", 2, 2)
    assert sum(count == ("decoding files", 2, 2) for count in said) <= 2


FOLDERS = ("cornerstone3d", "dcm_qa_ct_ge_tilt", "dcm_qa_ts", "fo_dicom", "pydicom", "dicom_numpy_missing_slices")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_file_is_read_or_refused_with_a_reason(folder: str) -> None:
    root = shared_data("dicom") / folder
    begun = time.perf_counter()
    found = workflow.inspect([root])
    assert time.perf_counter() - begun < 60
    assert all(one.refusal.code is not RefusalCode.UNKNOWN for one in found.refused)
    assert all(one.refusal.sentence and one.refusal.remedy for one in found.refused)
    assert all(one.not_used_because is not RefusalCode.UNKNOWN for one in found.images)
    names = {name for image in found.images for name in (*image.files, *image.copies)}
    names |= {name for one in found.refused for name in one.files} | set(found.beside)
    assert names == {str(path) for path in root.rglob("*") if path.is_file()}


def test_missing_slices_are_refused_and_nothing_else_is_found() -> None:
    found = workflow.inspect([shared_data("dicom") / "dicom_numpy_missing_slices"])
    assert found.images == ()
    assert {one.refusal.code for one in found.refused} <= {RefusalCode.MISSING_SLICES, RefusalCode.SAME_PLACE}


def test_a_real_radiograph_has_the_values_of_its_decoder() -> None:
    path = min((shared_data("btxrd-centre1") / "images").iterdir())
    (image,) = workflow.inspect([path]).images
    grey = np.asarray(Picture.open(path).convert("L"), dtype=np.float32) / np.float32(255)
    assert image.values.sha256 == pixel_sha256(grey)
