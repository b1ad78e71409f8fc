from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from osteoscope.cohort import table
from osteoscope.cohort.table import (
    COLUMNS,
    Case,
    Cohort,
    LeftOut,
    Row,
    auxiliary,
    cases,
    checked_classes,
    counts,
    frame_of,
    lesions_from_json,
    lesions_to_json,
    modalities_of,
    pseudonyms,
    read_cohort,
    resolve_inside,
    slug,
    write_cohort,
)
from osteoscope.errors import CohortError, ImageError, StorageError
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from pathlib import Path

GCT = "giant cell tumor"
LESION = Lesion(box=(1, 2, 30.5, 40), outline=((1, 2), (30.5, 2), (20, 40)))


def make_row(image: str, patient: str, label: str | None = "osteosarcoma", **known: Any) -> Row:
    facts: dict[str, Any] = {
        "guessed": True,
        "file_sha256": f"file of {image}",
        "pixel_sha256": f"pixels of {image}",
        "rows": 40,
        "columns": 50,
        "modality": "radiograph",
        "role": "auxiliary" if label is None else "case",
        **known,
    }
    return Row(image=image, patient=patient, label=label, **facts)


ROWS = (
    make_row("b.png", "P-2", GCT, age=31.0, sex="F", site="tibia+femur", view="lateral", lesions=(LESION,)),
    make_row("a.png", "P-2", GCT, age=33.0, site="fibula", treated=True, implant=False),
    make_row("c.png", "P-1", age=None, sex="M", proof="histology", centre="1"),
    make_row("n.png", "P-3", None, kind="normal"),
)


def make_cohort(tmp_path: Path, rows: tuple[Row, ...] = ROWS, **known: Any) -> Cohort:
    facts: dict[str, Any] = {
        "classes": ("osteosarcoma", GCT),
        "root": tmp_path,
        "source": "test",
        "left_out": (LeftOut(image="x.png", reason="blank"),),
        "notes": ("A note.",),
        **known,
    }
    return Cohort(frame=frame_of(rows), **facts)


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [("giant cell tumor", "giant_cell_tumor"), ("Other MT (all)", "other_mt_all"), ("Ewing-Sarkom", "ewing_sarkom")],
)
def test_a_slug_is_fit_for_files_and_columns(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([], "found none"),
        (["osteosarcoma"], "'osteosarcoma' alone"),
        (["a", "b", "a"], "'a' and 'a' cannot be told apart"),
        (["giant cell tumor", "Giant-Cell tumor"], "cannot be told apart"),
        (["a", "?!"], "no letter or digit"),
        (["a", "Indeterminate"], "'Indeterminate' is named as the verdict"),
        (["out of scope", "a"], "'out of scope' is named as the verdict"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes: list[str], match: str) -> None:
    with pytest.raises(CohortError, match=match):
        checked_classes(classes)


def test_more_than_two_classes_keep_their_order() -> None:
    assert checked_classes(["b", "c", "a"]) == ("b", "c", "a")


def test_a_patient_has_the_same_pseudonym_in_every_cohort_of_a_source() -> None:
    first = pseudonyms("hospital", ["17", "4711"])
    digest = hashlib.sha256(b'["hospital", "17"]').hexdigest()
    assert first["17"] == f"P-{digest[:12]}"
    assert pseudonyms("hospital", ["17"])["17"] == first["17"]
    assert pseudonyms("elsewhere", ["17"])["17"] != first["17"]
    assert pseudonyms("hospital1", ["7"])["7"] != first["17"]
    assert all("4711" not in name for name in first.values())


def test_pseudonyms_that_collide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_PSEUDONYM_DIGITS", 1)
    with pytest.raises(CohortError, match="same pseudonym"):
        pseudonyms("hospital", map(str, range(17)))


# The schema


def test_the_columns_are_the_fields_of_a_row(tmp_path: Path) -> None:
    assert set(COLUMNS) == {field.name for field in dataclasses.fields(Row)}
    cohort = make_cohort(tmp_path)
    assert list(cohort.frame["image"]) == ["a.png", "b.png", "c.png", "n.png"]
    assert cohort.frame["age"].isna().tolist() == [False, False, True, True]
    assert cohort.frame["treated"].isna().tolist() == [False, True, True, True]


def test_lesions_survive_json() -> None:
    lesions = (LESION, Lesion(box=(1, 2, 3, 4)), Lesion(outline=((0, 0), (1, 0), (0, 1))))
    assert lesions_from_json(lesions_to_json(lesions)) == lesions
    assert lesions_from_json("[]") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 column 2"),
        ("[[1, 2, 3, 4]]", r"expected a list of \{"),
        ('{"box": [1, 2, 3, 4]}', r"expected a list of \{"),
        ("5", r"expected a list of \{"),
        ('[{"box": [1, 2, 3]}]', "expected 4, got 3"),
        ('[{"outline": [[1]]}]', "expected 2, got 1"),
        ('[{"box": [3, 2, 1, 4]}]', "expected left < right and top < bottom"),
        ("[{}]", "expected a box, an outline, or both, got neither"),
    ],
)
def test_other_json_is_not_taken_for_lesions(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lesions_from_json(text)


def test_a_cohort_is_never_invalid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chordoma"):
        make_cohort(tmp_path, (make_row("a.png", "P-1", "chordoma"),))
    with pytest.raises(ValueError, match="none for some"):
        make_cohort(tmp_path, (make_row("a.png", "P-1", None, role="case"),))
    with pytest.raises(ValueError, match="columns of the schema"):
        dataclasses.replace(make_cohort(tmp_path), frame=pd.DataFrame({"patient": ["P-1"]}))


def test_counts_are_by_class_and_by_kind(tmp_path: Path) -> None:
    rows = (*ROWS, make_row("o.png", "P-4", None, kind=None), make_row("p.png", "P-4", None, kind="normal"))
    assert counts(make_cohort(tmp_path, rows)) == {
        "classes": {"osteosarcoma": {"patients": 1, "images": 1}, GCT: {"patients": 1, "images": 2}},
        "auxiliary": {"patients": 2, "images": 3, "kinds": {"normal": 2, "unknown": 1}},
        "modalities": {"radiograph": {"patients": 4, "images": 6}},
        "left_out": 1,
    }


# The fingerprint


def test_the_order_of_rows_and_the_place_of_images_do_not_matter_to_the_fingerprint(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path)
    same = make_cohort(tmp_path / "elsewhere", ROWS[::-1], source="other", notes=())
    shuffled = dataclasses.replace(cohort, frame=cohort.frame.sample(frac=1, random_state=1))
    repacked = make_cohort(tmp_path, tuple(dataclasses.replace(row, file_sha256="other") for row in ROWS))
    assert {cohort.fingerprint(), same.fingerprint(), shuffled.fingerprint(), repacked.fingerprint()} == {
        cohort.fingerprint()
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"pixel_sha256": "other"},
        {"patient": "P-9"},
        {"label": "osteosarcoma"},
        {"age": 31.5},
        {"sex": None},
        {"lesions": ()},
        {"implant": True},
        {"image": "bb.png"},
    ],
)
def test_what_matters_changes_the_fingerprint(tmp_path: Path, changed: dict[str, Any]) -> None:
    other = make_cohort(tmp_path, (dataclasses.replace(ROWS[0], **changed), *ROWS[1:]))
    assert other.fingerprint() != make_cohort(tmp_path).fingerprint()


def test_the_order_of_classes_changes_the_fingerprint(tmp_path: Path) -> None:
    turned = make_cohort(tmp_path, classes=(GCT, "osteosarcoma"))
    assert turned.fingerprint() != make_cohort(tmp_path).fingerprint()


def test_neighbouring_values_do_not_run_together_in_the_fingerprint(tmp_path: Path) -> None:
    first = make_cohort(tmp_path, (make_row("a.png", "P-1", study="ab", site="c"),))
    second = make_cohort(tmp_path, (make_row("a.png", "P-1", study="a", site="bc"),))
    assert first.fingerprint() != second.fingerprint()


# Cases


def test_cases_gather_a_patients_images(tmp_path: Path) -> None:
    first, second = cases(make_cohort(tmp_path))
    assert (first.patient, first.label, first.age, first.sex, first.site) == ("P-1", 0, None, "M", None)
    assert (second.patient, second.label, second.age, second.sex) == ("P-2", 1, 32.0, "F")
    assert second.site == "femur+fibula+tibia"
    assert [image.image for image in second.images] == ["a.png", "b.png"]
    image = second.images[1]
    assert image.path == tmp_path / "b.png"
    assert (image.rows, image.columns, image.modality, image.view) == (40, 50, "radiograph", "lateral")
    assert image.pixel_sha256 == "pixels of b.png"
    assert image.lesions == (LESION,)


def test_cases_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path)
    shuffled = dataclasses.replace(cohort, frame=cohort.frame.sample(frac=1, random_state=2))
    assert cases(shuffled) == cases(cohort)


def test_a_patient_with_two_labels_is_no_case(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, (make_row("a.png", "P-1"), make_row("b.png", "P-1", GCT)))
    with pytest.raises(CohortError, match="P-1 has the labels 'giant cell tumor', 'osteosarcoma'"):
        cases(cohort)


def test_a_patient_of_two_recorded_sexes_has_none(tmp_path: Path) -> None:
    (case,) = cases(make_cohort(tmp_path, (make_row("a.png", "P-1", sex="F"), make_row("b.png", "P-1", sex="M"))))
    assert isinstance(case, Case)
    assert case.sex is None


def test_auxiliary_images_keep_their_kind(tmp_path: Path) -> None:
    (image,) = auxiliary(make_cohort(tmp_path))
    assert (image.patient, image.kind, image.image.path) == ("P-3", "normal", tmp_path / "n.png")


# Paths


@pytest.mark.parametrize("image", ["/etc/passwd", "../a.png", "a/../../b.png", "a/../b.png", "C:\\a.png", "a\0b.png"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(ImageError, match="leads out"):
        resolve_inside(tmp_path, image)
    with pytest.raises(ImageError, match="leads out"):
        cases(make_cohort(tmp_path, (make_row(image, "P-1"),)))


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.png"
    root.mkdir()
    outside.touch()
    (root / "inside.png").touch()
    (root / "good.png").symlink_to(root / "inside.png")
    (root / "bad.png").symlink_to(outside)
    (root / "loop.png").symlink_to(root / "loop.png")
    (tmp_path / "linked-root").symlink_to(root)
    assert resolve_inside(root, "good.png") == root / "good.png"
    assert resolve_inside(tmp_path / "linked-root", "good.png") == tmp_path / "linked-root" / "good.png"
    for image in ("bad.png", "loop.png"):
        with pytest.raises(ImageError, match="leads out"):
            resolve_inside(root, image)


# Writing and reading


def test_a_cohort_is_read_back_as_it_was(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path)
    write_cohort(cohort, tmp_path / "out")
    back = read_cohort(tmp_path / "out")
    pd.testing.assert_frame_equal(back.frame, cohort.frame)
    assert (back.classes, back.source, back.left_out, back.notes) == (
        cohort.classes,
        "test",
        cohort.left_out,
        cohort.notes,
    )
    assert back.root == tmp_path.resolve()
    assert back.slugs == ("osteosarcoma", "giant_cell_tumor")
    assert cases(back) == cases(cohort)


def test_equal_cohorts_are_written_as_equal_bytes(tmp_path: Path) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "first")
    write_cohort(make_cohort(tmp_path, ROWS[::-1]), tmp_path / "second")
    for name in ("cohort.json", "cohort.parquet"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_header_says_what_the_table_holds(tmp_path: Path) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "out")
    header = json.loads((tmp_path / "out" / "cohort.json").read_text())
    assert header["schema"] == 3
    assert header["classes"] == ["osteosarcoma", GCT]
    assert header["counts"]["classes"][GCT] == {"patients": 1, "images": 2}
    assert header["left_out"] == [{"image": "x.png", "reason": "blank"}]
    content = (tmp_path / "out" / "cohort.parquet").read_bytes()
    assert header["table_sha256"] == hashlib.sha256(content).hexdigest()
    assert pq.read_table(tmp_path / "out" / "cohort.parquet").column_names == list(COLUMNS)


def test_a_cohort_replaces_a_cohort_and_nothing_else(tmp_path: Path) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "out")
    write_cohort(make_cohort(tmp_path, ROWS[:3]), tmp_path / "out")
    assert len(read_cohort(tmp_path / "out").frame) == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="is not a cohort"):
        write_cohort(make_cohort(tmp_path), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_a_failed_write_leaves_the_cohort_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "out")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table, "write_json", disk_full)
    with pytest.raises(StorageError, match="free some space"):
        write_cohort(make_cohort(tmp_path, ROWS[:1]), tmp_path / "out")
    assert len(read_cohort(tmp_path / "out").frame) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_images_that_moved_are_found_where_they_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    write_cohort(make_cohort(tmp_path / "old"), tmp_path / "out")
    (tmp_path / "old").rmdir()
    with pytest.raises(CohortError, match="--images"):
        read_cohort(tmp_path / "out")
    assert read_cohort(tmp_path / "out", tmp_path / "new").root == tmp_path / "new"


def test_what_is_not_a_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="is not a cohort"):
        read_cohort(tmp_path / "none")
    with pytest.raises(CohortError, match="is not a cohort"):
        read_cohort(tmp_path)
    for text in ("", "[]", "{}", '{"schema": "one"}', '{"schema": 1}'):
        (tmp_path / "cohort.json").write_text(text)
        with pytest.raises(CohortError, match="make the cohort again"):
            read_cohort(tmp_path)


def test_a_cohort_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "out")
    path = tmp_path / "out" / "cohort.json"
    path.write_text(path.read_text().replace('"schema": 3', '"schema": 4'))
    with pytest.raises(CohortError, match=r"expected a cohort of schema 3, found 4 \(install a later osteoscope"):
        read_cohort(tmp_path / "out")


def test_a_cohort_of_schema_1_is_read_and_has_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path)
    write_cohort(cohort, tmp_path / "out")
    parquet, header = tmp_path / "out" / "cohort.parquet", tmp_path / "out" / "cohort.json"
    since = ["mask", "phantom", "geometry_sha256", "mask_sha256"]
    old = pq.read_table(parquet).drop_columns(since)
    pq.write_table(old, parquet)
    rows = sorted(json.dumps(row) for row in old.drop_columns("file_sha256").to_pylist())
    digest = hashlib.sha256(json.dumps([["osteosarcoma", GCT], rows]).encode()).hexdigest()
    known = json.loads(header.read_text()) | {
        "schema": 1,
        "fingerprint": digest,
        "table_sha256": hashlib.sha256(parquet.read_bytes()).hexdigest(),
    }
    header.write_text(json.dumps(known))
    found = read_cohort(tmp_path / "out")
    assert found.fingerprint() == cohort.fingerprint() == digest
    assert found.frame[since].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.frame[list(COLUMNS)], cohort.frame)


# Volumes


def make_scan(image: str, patient: str, **known: Any) -> Row:
    return make_row(image, patient, **{"modality": "CT", "phantom": False, **known})


def test_a_volume_has_a_mask_and_says_whether_it_is_a_phantom(tmp_path: Path) -> None:
    rows = (
        make_scan("a/ct", "P-1", mask="a/seg.dcm", level="lumbar", phantom=True),
        make_scan("b/ct", "P-2", label=GCT, level="sacral+lumbar"),
    )
    write_cohort(make_cohort(tmp_path, rows), tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    first, second = cases(cohort)
    assert (first.images[0].path, first.images[0].mask) == (tmp_path / "a" / "ct", tmp_path / "a" / "seg.dcm")
    assert (first.images[0].phantom, second.images[0].phantom) == (True, False)
    assert second.images[0].mask is None
    assert (first.level, second.level) == ("lumbar", "lumbar+sacral")
    unmarked = make_cohort(tmp_path, (dataclasses.replace(rows[0], mask=None), rows[1]))
    assert unmarked.fingerprint() != cohort.fingerprint()


def test_a_cohort_of_schema_2_keeps_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    rows = (make_scan("a", "P-1", mask="seg.dcm"), make_scan("b", "P-2", label=GCT))
    write_cohort(make_cohort(tmp_path, rows), tmp_path / "out")
    parquet, header = tmp_path / "out" / "cohort.parquet", tmp_path / "out" / "cohort.json"
    old = pq.read_table(parquet).drop_columns(["geometry_sha256", "mask_sha256"])
    pq.write_table(old, parquet)
    matter = sorted(json.dumps(row) for row in old.drop_columns("file_sha256").to_pylist())
    known = json.loads(header.read_text()) | {
        "schema": 2,
        "fingerprint": hashlib.sha256(json.dumps([["osteosarcoma", GCT], matter]).encode()).hexdigest(),
        "table_sha256": hashlib.sha256(parquet.read_bytes()).hexdigest(),
    }
    header.write_text(json.dumps(known))
    assert read_cohort(tmp_path / "out").fingerprint() == known["fingerprint"]
    placed = make_cohort(tmp_path, (dataclasses.replace(rows[0], geometry_sha256="there"), rows[1]))
    marked = make_cohort(tmp_path, (dataclasses.replace(rows[0], mask_sha256="that"), rows[1]))
    assert len({placed.fingerprint(), marked.fingerprint(), known["fingerprint"]}) == 3


def test_a_mask_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="leads out of the image folder"):
        cases(make_cohort(tmp_path, (make_scan("a", "P-1", mask="../seg.dcm"),)))


def test_a_cohort_says_of_which_modalities_its_cases_are(tmp_path: Path) -> None:
    assert modalities_of(make_cohort(tmp_path)) == ("radiograph",)
    assert modalities_of(make_cohort(tmp_path, (make_scan("a", "P-1"), make_scan("b", "P-2")))) == ("CT",)
    phantoms = (make_scan("a", "P-1", phantom=True), make_scan("b", "P-2", phantom=True))
    assert modalities_of(make_cohort(tmp_path, phantoms)) == ("CT",)
    mix = (make_scan("a", "P-1"), make_scan("b", "P-2", modality="MR"), make_row("c", "P-2"))
    assert modalities_of(make_cohort(tmp_path, mix)) == ("CT", "MR", "radiograph")
    # What is outside of the classes is of no case.
    assert modalities_of(make_cohort(tmp_path, (mix[0], make_row("c", "P-3", label=None)))) == ("CT",)


def test_a_picture_of_a_phantom_goes_with_its_scans(tmp_path: Path) -> None:
    """It cannot say that it shows one."""
    rows = (make_scan("a", "P-1", phantom=True), make_row("b", "P-1"))
    assert modalities_of(make_cohort(tmp_path, rows)) == ("CT", "radiograph")
    with pytest.raises(CohortError, match="found 1 phantoms among 3 images"):
        modalities_of(make_cohort(tmp_path, (*rows, make_row("c", "P-2"))))


@pytest.mark.parametrize("label", [None, "osteosarcoma"])
def test_a_cohort_of_phantoms_and_others_can_be_kept_and_not_be_learnt_from(tmp_path: Path, label: str | None) -> None:
    other = make_scan("b", "P-2", label=label, phantom=True)
    cohort = make_cohort(tmp_path, (make_scan("a", "P-1"), make_scan("c", "P-1", phantom=None), other))
    write_cohort(cohort, tmp_path / "out")
    with pytest.raises(CohortError, match="found 1 phantoms among 3 images"):
        modalities_of(read_cohort(tmp_path / "out"))


def test_a_cohort_without_a_case_is_said(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="expected images of the classes, found none"):
        modalities_of(make_cohort(tmp_path, (make_row("a", "P-1", label=None),)))


def test_changed_bytes_are_found_out(tmp_path: Path) -> None:
    write_cohort(make_cohort(tmp_path), tmp_path / "out")
    parquet, header = tmp_path / "out" / "cohort.parquet", tmp_path / "out" / "cohort.json"
    intact = parquet.read_bytes()
    parquet.write_bytes(intact[:200] + bytes([intact[200] ^ 1]) + intact[201:])
    with pytest.raises(CohortError, match="has changed since"):
        read_cohort(tmp_path / "out")
    parquet.unlink()
    with pytest.raises(CohortError, match="could not be read"):
        read_cohort(tmp_path / "out")
    parquet.write_bytes(intact)
    said = header.read_text()
    turned = said.replace('"osteosarcoma",\n    "giant cell tumor"', '"giant cell tumor",\n    "osteosarcoma"')
    fewer = said.replace('    "osteosarcoma",\n', "")
    for text in (turned, fewer):
        assert text != said
        header.write_text(text)
        with pytest.raises(CohortError, match="has changed since"):
            read_cohort(tmp_path / "out")
