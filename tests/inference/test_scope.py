"""Which files make a study, and which of its images a bundle reads."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from dicom_files import AXIAL, SAGITTAL, write_dicom, write_series
from PIL import Image as Picture

from osteoscope.errors import StorageError
from osteoscope.imaging import stored_array
from osteoscope.imaging.open import images_at
from osteoscope.imaging.refusal import RefusalCode
from osteoscope.inference.scope import Selection, Study, select_images, studies_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.imaging.volume import Modality

RNG = np.random.default_rng(0)
SCAN = RNG.integers(0, 400, (6, 40, 48), dtype=np.uint16)
FILM = RNG.integers(0, 4000, (64, 48), dtype=np.uint16)


def short(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:12]


def opened(*paths: Path) -> tuple[Study, ...]:
    with images_at(paths) as found:
        return studies_of(found)


def select(*paths: Path, modalities: Sequence[Modality] = ("CT",), research: bool = False) -> Selection:
    (study,) = opened(*paths)
    return select_images(study, modalities, research=research)


def codes(selection: Selection) -> list[str]:
    return sorted(one.code for one in selection.left_out)


def test_dicom_is_one_study_by_its_uid_wherever_its_files_lie(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SCAN, series="1", StudyInstanceUID="1.2.3")
    write_series(tmp_path / "b", SCAN, "MR", series="2", StudyInstanceUID="1.2.3")
    write_series(tmp_path / "c", SCAN, series="3", StudyInstanceUID="1.2.4")
    studies = opened(tmp_path)
    assert [(study.name, len(study.images)) for study in studies] == [(short("1.2.3"), 2), (short("1.2.4"), 1)]


def test_dicom_without_a_study_is_one_by_its_series(tmp_path: Path) -> None:
    write_series(tmp_path, SCAN, series="1", StudyInstanceUID=None, SeriesInstanceUID="1.2.5")
    write_series(tmp_path / "b", SCAN, series="2", StudyInstanceUID=None, SeriesInstanceUID="1.2.6")
    assert [study.name for study in opened(tmp_path)] == [short("1.2.5"), short("1.2.6")]


def test_any_other_file_is_a_study_by_itself_named_by_its_bytes(tmp_path: Path) -> None:
    for name in ("Doe_John_1.png", "Doe_John_2.png"):
        Picture.fromarray(RNG.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / name)
    shutil.copy(tmp_path / "Doe_John_1.png", tmp_path / "once more.png")
    studies = opened(tmp_path)
    assert [study.name for study in studies] == [
        short((tmp_path / name).read_bytes()) for name in ("Doe_John_1.png", "Doe_John_2.png")
    ]
    assert [len(study.images) for study in studies] == [1, 1]


def test_images_of_one_series_are_told_apart_by_numbers(tmp_path: Path) -> None:
    for name in ("ap", "lateral"):
        write_dicom(tmp_path / name, RNG.integers(0, 4000, (64, 48), dtype=np.uint16), "DX", SeriesInstanceUID="1.2.7")
    (study,) = opened(tmp_path)
    assert [one.name for one in study.images] == [f"{short('1.2.7')}-1", f"{short('1.2.7')}-2"]


def test_refused_files_are_of_the_study_that_they_name(tmp_path: Path) -> None:
    write_series(tmp_path / "good", SCAN, series="1", StudyInstanceUID="1.2.3")
    places: list[dict[str, Any]] = [{"position": (0, 0, z)} for z in (0, 3, 6, 12, 15, 18)]
    write_series(tmp_path / "gap", SCAN, series="2", StudyInstanceUID="1.2.3", each=places)
    whole = write_dicom(tmp_path / "cut", FILM, "CR", StudyInstanceUID="1.2.4").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    (tmp_path / "empty.dcm").write_bytes(b"")
    found = {study.name: study for study in opened(tmp_path)}
    assert [(one.code, len(one.files)) for one in found[short("1.2.3")].refused] == [(RefusalCode.MISSING_SLICES, 6)]
    assert [one.code for one in found[short("1.2.4")].refused] == [RefusalCode.TRUNCATED_PIXELS]
    assert found[short("1.2.4")].images == ()
    assert [one.code for one in found[short(b"")].refused] == [RefusalCode.EMPTY]
    assert len(found) == 3


def test_what_cannot_be_hashed_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    studies = opened(tmp_path / "folder", tmp_path / "nowhere")
    assert {study.name for study in studies} == {short(str(tmp_path / "folder")), short(str(tmp_path / "nowhere"))}


def test_all_radiographs_and_all_mr_of_a_study_are_read(tmp_path: Path) -> None:
    for number in range(2):
        film = RNG.integers(0, 4000, (64, 48), dtype=np.uint16)
        write_dicom(tmp_path / f"film {number}", film, "DX", series=f"film {number}")
        write_series(tmp_path / f"scan {number}", SCAN + number, "MR", series=f"scan {number}")
    selection = select(tmp_path, modalities=("radiograph", "MR"))
    assert len(selection.used) == 4
    assert not selection.left_out
    assert not selection.refused


def ct(
    folder: Path, name: str, planes: int, step: float, orientation: Sequence[float] = AXIAL, **elements: Any
) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    values = RNG.integers(0, 400, (planes, 40, 48), dtype=np.uint16)
    own = {"SeriesInstanceUID": f"1.{name}", "SliceThickness": step, **elements}
    write_series(folder / name, values, orientation=orientation, step=(step * normal).tolist(), **own)


def test_of_ct_the_thinnest_is_read_that_covers_most_of_the_body(tmp_path: Path) -> None:
    ct(tmp_path, "1", 12, 5.0)  # 60 mm
    ct(tmp_path, "2", 20, 2.0)  # 40 mm, thinner, and more than half
    ct(tmp_path, "3", 25, 1.0)  # 25 mm, the thinnest, and less than half
    ct(tmp_path, "4", 20, 2.5, SAGITTAL)
    selection = select(tmp_path)
    assert [one.name for one in selection.used] == [short("1.2")]
    assert codes(selection) == ["other_series"] * 3
    assert all(short("1.2") in one.reason for one in selection.left_out)


def test_of_ct_an_original_is_read_and_not_what_was_made_from_it(tmp_path: Path) -> None:
    ct(tmp_path, "1", 6, 5.0, SliceThickness=5)
    ct(tmp_path, "2", 40, 1.0, ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    ct(tmp_path, "3", 40, 1.0, SeriesDescription="sag MPR")
    ct(tmp_path, "4", 40, 0.5, SeriesDescription="thin MIP", ImageType=["DERIVED", "SECONDARY"])
    selection = select(tmp_path)
    assert [one.name for one in selection.used] == [short("1.1")]
    assert codes(selection) == ["derived", "other_series", "other_series"]
    shutil.rmtree(tmp_path / "1")
    assert [one.name for one in select(tmp_path).used] == [short("1.2")]


def test_slices_that_overlap_are_no_thinner_for_it(tmp_path: Path) -> None:
    ct(tmp_path, "1", 20, 2.0, SliceThickness=2)
    ct(tmp_path, "2", 40, 1.0, SliceThickness=10)
    assert [one.name for one in select(tmp_path).used] == [short("1.1")]


def test_what_was_computed_from_other_mr_is_left_unless_it_is_asked_for(tmp_path: Path) -> None:
    kinds = {"": ["ORIGINAL", "PRIMARY"], "ADC": ["DERIVED", "SECONDARY"], "sub": ["DERIVED"], "survey": ["ORIGINAL"]}
    for number, (description, kind) in enumerate(kinds.items(), 1):
        own: dict[str, Any] = {"SeriesDescription": f"{description} sagittal", "ImageType": kind}
        uids = {"SeriesInstanceUID": f"1.{number}", "StudyInstanceUID": "1.9"}
        write_series(tmp_path / f"{number}", SCAN + number, "MR", **{**own, **uids})
    selection = select(tmp_path, modalities=("MR",))
    assert [one.name for one in selection.used] == [short("1.1")]
    assert codes(selection) == ["derived", "derived", "localiser"]
    assert len(select(tmp_path, modalities=("MR",), research=True).used) == 4
    assert codes(select(tmp_path)) == ["outside"] * 4


def test_where_the_best_ct_cannot_be_decoded_the_next_is_read(tmp_path: Path) -> None:
    ct(tmp_path, "1", 6, 5.0)
    files = write_series(tmp_path / "2", SCAN, SeriesInstanceUID="1.2", SliceThickness=3)
    (study,) = opened(tmp_path)
    content = bytearray(files[3].read_bytes())
    content[-1] ^= 1
    files[3].write_bytes(content)
    selection = select_images(study, ("CT",))
    assert [one.name for one in selection.used] == [short("1.1")]
    assert [one.code for one in selection.refused] == [RefusalCode.CHANGED]
    assert selection.left_out == ()


def test_most_of_the_body_is_most_of_what_can_be_read(tmp_path: Path) -> None:
    ct(tmp_path, "1", 30, 5.0)  # 150 mm, and broken
    ct(tmp_path, "2", 20, 3.0)  # 60 mm
    ct(tmp_path, "3", 20, 1.0)  # 20 mm, less than half of either
    broken = sorted((tmp_path / "1").iterdir())[3]
    (study,) = opened(tmp_path)
    broken.write_bytes(broken.read_bytes()[:-1] + b"\1")
    selection = select_images(study, ("CT",))
    assert [one.code for one in selection.refused] == [RefusalCode.CHANGED]
    assert [one.name for one in selection.used] == [short("1.2")]
    assert [(one.name, one.code) for one in selection.left_out] == [(short("1.3"), "other_series")]


@pytest.mark.parametrize("stated", ["CT", None])
def test_a_full_disk_is_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: Modality | None
) -> None:
    nibabel.save(nibabel.Nifti1Image(SCAN.T.astype(np.float32), np.diag([0.5, 0.5, 3, 1])), tmp_path / "a.nii.gz")
    monkeypatch.setattr(stored_array, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="could not be written"), images_at([tmp_path], modality=stated) as found:
        select_images(studies_of(found)[0], ("CT",))


def test_another_modality_is_outside(tmp_path: Path) -> None:
    write_series(tmp_path, SCAN)
    selection = select(tmp_path, modalities=("radiograph",))
    assert selection.used == ()
    assert [(one.code, one.reason) for one in selection.left_out] == [("outside", "a CT, where radiographs are read")]


def test_what_is_none_of_the_modalities_is_named_by_that_of_its_files(tmp_path: Path) -> None:
    write_series(tmp_path / "pet", SCAN, "PT", series="1", StudyInstanceUID="1.2.3")
    segmentation: dict[str, Any] = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}
    write_dicom(tmp_path / "seg", SCAN, series="2", StudyInstanceUID="1.2.3", **segmentation)
    write_dicom(tmp_path / "nameless", FILM, "PT", series="3", StudyInstanceUID="1.2.3", Modality="")
    selection = select(tmp_path)
    assert selection.used == ()
    assert {one.image.kind for one in selection.left_out} == {"PT", "SEG", "OT"}
    assert {one.code for one in selection.left_out} == {"other_modality"}
    assert {one.reason for one in selection.left_out} == {
        f"an image of modality {name}, which is neither CT, MR nor a radiograph" for name in ("PT", "SEG", "OT")
    }
    asked = select(tmp_path, research=True)
    assert {one.code for one in asked.left_out} == {"outside"}
    assert "an image of modality PT, where CT are read" in {one.reason for one in asked.left_out}
    assert not any("radiograph" in one.reason for one in asked.left_out)


@pytest.mark.parametrize(
    ("kind", "elements", "code"),
    [
        ("SC", {}, "secondary_capture"),
        ("CR", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ("US", {}, "other_modality"),
        ("DX", {"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ("DX", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "for_processing"),
    ],
)
def test_what_is_used_only_when_asked_for_is_asked_for_by_research(
    tmp_path: Path, kind: str, elements: dict[str, Any], code: str
) -> None:
    path = write_dicom(tmp_path / "a", FILM, kind, **elements)
    selection = select(path, modalities=("radiograph",))
    assert codes(selection) == [code]
    assert selection.used == ()
    asked = select(path, modalities=("radiograph",), research=True)
    assert len(asked.used) == 1
    assert asked.left_out == ()


def test_what_shows_nothing_is_never_read(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", np.full((40, 40), 7, dtype=np.uint16), "CR")
    assert codes(select(tmp_path, modalities=("radiograph",), research=True)) == ["blank"]


def test_a_ct_without_a_place_and_a_film_of_several_frames_are_not_read(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", SCAN[0], "CT")
    assert codes(select(tmp_path / "a")) == ["missing_place"]
    write_dicom(tmp_path / "b", SCAN, "CR")
    assert codes(select(tmp_path / "b", modalities=("radiograph",))) == ["several_frames"]


def test_a_series_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", FILM, "CR")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(path, "a")
    with images_at([tmp_path]) as found:
        (study,) = studies_of(found)
        selection = select_images(study, ("radiograph",))
    assert len(selection.used) == 1
    assert codes(selection) == ["copy"]
