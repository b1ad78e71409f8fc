from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osteoscope.cohort.audit import find_leaks, raise_if_blocked, shared_with
from osteoscope.cohort.from_table import DEFAULT_SOURCE, read_table
from osteoscope.cohort.table import cases, counts, lesions_from_json, pseudonyms
from osteoscope.errors import CohortError, ImageError, InputError, TableError
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
patient,image,label,age,sex
17,a.png,chordoma,30,F
17,sub/b.png,chordoma,31,f
18,c.png,metastasis,NaN,male
19,d.png,myeloma,,
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png")):
        save_picture(folder / name, seed)
    return folder


def save_picture(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(values).save(path)


def table_of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def one_row(tmp_path: Path, column: str, value: str) -> Path:
    quoted = '"' + value.replace('"', '""') + '"'
    return table_of(tmp_path, f"patient,image,label,{column}\n17,a.png,chordoma,{quoted}\n18,c.png,metastasis,\n")


# What is read


def test_a_table_becomes_a_cohort_of_all_its_labels(tmp_path: Path, images: Path) -> None:
    cohort = read_table(table_of(tmp_path, TABLE), images)
    assert cohort.classes == ("chordoma", "metastasis", "myeloma")
    assert cohort.notes == ()
    gathered = {case.patient: case for case in cases(cohort)}
    names = pseudonyms(DEFAULT_SOURCE, ["17", "18", "19"])
    first, second, third = (gathered[names[identifier]] for identifier in ("17", "18", "19"))
    assert (first.label, first.age, first.sex, len(first.images)) == (0, 30.5, "F", 2)
    assert (second.label, second.age, second.sex) == (1, None, "M")
    assert (third.label, third.age, third.sex) == (2, None, None)
    assert first.images[1].path == images / "sub" / "b.png"
    assert not cohort.frame["guessed"].any()
    assert "17" not in cohort.frame["patient"].str.cat(sep=" ").split()


def test_chosen_classes_keep_their_order_and_other_labels_stay_as_auxiliary(tmp_path: Path, images: Path) -> None:
    cohort = read_table(table_of(tmp_path, TABLE), images, ["metastasis", "chordoma"])
    assert cohort.classes == ("metastasis", "chordoma")
    assert counts(cohort)["auxiliary"] == {"patients": 1, "images": 1, "kinds": {"myeloma": 1}}
    assert cohort.notes == ("Images outside the classes, kept as auxiliary: myeloma (1).",)


def test_an_image_without_a_label_stays_as_auxiliary(tmp_path: Path, images: Path) -> None:
    cohort = read_table(table_of(tmp_path, TABLE.replace("myeloma", "")), images)
    assert cohort.classes == ("chordoma", "metastasis")
    assert counts(cohort)["auxiliary"]["kinds"] == {"unknown": 1}
    assert cohort.notes == ("Images outside the classes, kept as auxiliary: no label (1).",)


def test_paths_that_hold_their_patients_identifier_are_counted(tmp_path: Path, images: Path) -> None:
    names = ("17/a.png", "sub/b_17.png", "117.png", "170.png", "18-knee.png")
    for seed, name in enumerate(names):
        (images / name).parent.mkdir(exist_ok=True)
        save_picture(images / name, 9 + seed)
    patients = ("17", "17", "17", "17", "KSA18")
    rows = [
        f"{patient},{name},{('chordoma', 'myeloma')[patient != '17']}"
        for patient, name in zip(patients, names, strict=True)
    ]
    cohort = read_table(table_of(tmp_path, "\n".join(["patient,image,label", *rows])), images)
    (note,) = cohort.notes
    assert note.startswith("2 of 5 image paths hold their patient's identifier: ")


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_other_forms_of_the_table_give_the_same_cohort(tmp_path: Path, images: Path, suffix: str) -> None:
    expected = read_table(table_of(tmp_path, TABLE), images)
    frame = pd.read_csv(tmp_path / "table.csv")
    path = tmp_path / f"other{suffix}"
    frame.to_excel(path, index=False) if suffix == ".xlsx" else frame.to_parquet(path)
    assert read_table(path, images).fingerprint() == expected.fingerprint()


def test_the_order_of_rows_does_not_matter(tmp_path: Path, images: Path) -> None:
    first = read_table(table_of(tmp_path, TABLE), images)
    header, *lines = TABLE.splitlines()
    second = read_table(table_of(tmp_path, "\n".join([header, *lines[::-1]])), images)
    assert second.fingerprint() == first.fingerprint()
    pd.testing.assert_frame_equal(second.frame, first.frame)


def test_optional_columns_are_read(tmp_path: Path, images: Path) -> None:
    text = (
        "Patient,Image,Label,kind,site,level,view,centre,proof,image_date,proof_date,treated,biopsied,implant,study,Mood\n"
        "17,a.png,chordoma,dedifferentiated,sacrum,S2,lateral,1,Follow up,2020-01-02,2020-02-03,no,YES,0,ACC-1,ok\n"
        "18,c.png,metastasis,,,,,,,,,,,,,\n"
    )
    cohort = read_table(table_of(tmp_path, text), images)
    row = cohort.frame.iloc[0].to_dict()
    expected = {
        "kind": "dedifferentiated",
        "site": "sacrum",
        "level": "S2",
        "view": "lateral",
        "centre": "1",
        "proof": "follow-up",
        "image_date": "2020-01-02",
        "proof_date": "2020-02-03",
        "treated": False,
        "biopsied": True,
        "implant": False,
        "modality": "radiograph",
    }
    assert {name: row[name] for name in expected} == expected
    assert row["study"].startswith("S-")
    assert "ACC" not in row["study"]
    assert cohort.frame.iloc[1][["kind", "study"]].fillna("-").tolist() == ["metastasis", "-"]
    assert cohort.notes == ("Columns that were ignored: mood.",)


@pytest.mark.parametrize(
    ("column", "value", "lesion"),
    [
        ("box", "1 2 30.5 40", Lesion(box=(1, 2, 30.5, 40))),
        ("box", "[1, 2, 30, 40]", Lesion(box=(1, 2, 30, 40))),
        ("outline", "[[1, 2], [30, 2], [9, 40]]", Lesion(outline=((1, 2), (30, 2), (9, 40)))),
        ("lesions", '[{"box": [1, 2, 30, 40]}]', Lesion(box=(1, 2, 30, 40))),
    ],
)
def test_lesions_are_read(tmp_path: Path, images: Path, column: str, value: str, lesion: Lesion) -> None:
    cohort = read_table(one_row(tmp_path, column, value), images)
    found = {image.image: image.lesions for case in cases(cohort) for image in case.images}
    assert found == {"a.png": (lesion,), "c.png": ()}


def test_box_and_outline_of_a_row_are_one_lesion(tmp_path: Path, images: Path) -> None:
    text = (
        "patient,image,label,box,outline\n"
        '17,a.png,chordoma,1 2 30 40,"[[1, 2], [30, 2], [9, 40]]"\n18,c.png,metastasis,,\n'
    )
    cohort = read_table(table_of(tmp_path, text), images)
    expected = (Lesion(box=(1, 2, 30, 40), outline=((1, 2), (30, 2), (9, 40))),)
    assert expected in [image.lesions for case in cases(cohort) for image in case.images]


def test_paths_are_read_however_they_are_spelt(tmp_path: Path, images: Path) -> None:
    text = TABLE.replace("sub/b.png", "sub\\b.png").replace("a.png", "./a.png")
    assert read_table(table_of(tmp_path, text), images).frame["image"].tolist() == [
        "a.png",
        "c.png",
        "d.png",
        "sub/b.png",
    ]


def test_progress_is_told_of_every_image(tmp_path: Path, images: Path) -> None:
    told: list[tuple[int, int]] = []
    read_table(table_of(tmp_path, TABLE), images, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# Sources and shared patients


def test_two_tables_of_one_source_are_known_to_share_a_patient(tmp_path: Path, images: Path) -> None:
    cohort = read_table(table_of(tmp_path, TABLE), images)
    later = read_table(table_of(tmp_path, "patient,image,label\n17,d.png,chordoma\n20,c.png,metastasis\n"), images)
    elsewhere = read_table(table_of(tmp_path, TABLE), images, source="elsewhere")
    (finding,) = shared_with(later, set(cohort.frame["patient"]), set())
    assert finding.cases == (pseudonyms(DEFAULT_SOURCE, ["17"])["17"],)
    assert shared_with(elsewhere, set(cohort.frame["patient"]), set()) == ()
    assert [finding.kind for finding in shared_with(elsewhere, set(), set(cohort.frame["pixel_sha256"]))] == [
        "shared-pixels"
    ]


def test_the_same_picture_in_another_container_under_two_patients_blocks(tmp_path: Path, images: Path) -> None:
    Image.open(images / "a.png").convert("RGB").save(images / "d.png")
    cohort = read_table(table_of(tmp_path, TABLE.replace("19,d.png,myeloma", "19,d.png,chordoma")), images)
    assert cohort.frame["file_sha256"].nunique() == 4
    with pytest.raises(CohortError, match=r"a\.png and d\.png have the same pixels and different patients"):
        raise_if_blocked(find_leaks(cohort))


# Bad input


def test_a_table_in_another_encoding_is_refused_until_it_is_named(tmp_path: Path, images: Path) -> None:
    text = TABLE.replace("myeloma", "größer")
    path = table_of(tmp_path, text)
    path.write_bytes(text.encode("cp1252"))
    fault = refused(path, images, "expected UTF-8, found another encoding")
    assert "--encoding cp1252" in (fault.remedy or "")
    assert "größer" in set(read_table(path, images, encoding="cp1252").frame["kind"])
    path.write_bytes(text.encode("utf-16"))
    assert "größer" in set(read_table(path, images).frame["kind"])


def refused(path: Path, images: Path, match: str, classes: list[str] | None = None) -> TableError:
    with pytest.raises(TableError, match=match) as fault:
        read_table(path, images, classes)
    assert fault.value.path == path
    assert fault.value.remedy
    return fault.value


def test_a_missing_image_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--images"):
        read_table(table_of(tmp_path, TABLE), tmp_path / "none")


def test_a_missing_column_is_refused(tmp_path: Path, images: Path) -> None:
    refused(table_of(tmp_path, TABLE.replace("label", "labels")), images, "rename 'labels' to 'label'")


def test_a_duplicate_column_is_refused(tmp_path: Path, images: Path) -> None:
    refused(table_of(tmp_path, TABLE.replace("sex", "age")), images, "column 'age' is there twice")


def test_another_encoding_is_refused(tmp_path: Path, images: Path) -> None:
    content = TABLE.replace("myeloma", "Myelom männlich").encode("latin-1")
    refused(table_of(tmp_path, content), images, f"byte {content.index(0xE4)}")


@pytest.mark.parametrize("path", ["/etc/passwd", "../images/a.png", "sub/../../x.png", "C:\\scans\\a.png"])
def test_a_path_outside_the_folder_is_refused_with_its_row(tmp_path: Path, images: Path, path: str) -> None:
    text = TABLE.replace("c.png", path)
    refused(table_of(tmp_path, text), images, "row 4, column 'image': expected a path inside the image folder")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, images: Path) -> None:
    save_picture(tmp_path / "outside.png", 9)
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    refused(table_of(tmp_path, TABLE.replace("c.png", "link.png")), images, "row 4, column 'image'")


def test_an_image_in_two_rows_is_refused(tmp_path: Path, images: Path) -> None:
    refused(table_of(tmp_path, TABLE.replace("c.png", "./a.png")), images, "rows 2 and 4 name the same image 'a.png'")


def test_a_patient_with_two_labels_is_refused_by_rows_and_not_by_name(tmp_path: Path, images: Path) -> None:
    text = TABLE.replace("19,d.png", "17,d.png").replace("17,", "Erika Musterfrau,")
    fault = refused(
        table_of(tmp_path, text), images, "rows 2 and 5 give one patient the label 'chordoma' and then 'myeloma'"
    )
    assert "Erika" not in str(fault)
    # Also where one of the two labels is not among the classes.
    refused(table_of(tmp_path, text), images, "rows 2 and 5", ["chordoma", "metastasis"])


def test_a_patient_of_two_sexes_is_refused(tmp_path: Path, images: Path) -> None:
    refused(
        table_of(tmp_path, TABLE.replace("31,f", "31,m")),
        images,
        "rows 2 and 3 give one patient the sex 'F' and then 'M'",
    )


def test_a_class_that_no_row_has_is_refused_with_the_nearest_label(tmp_path: Path, images: Path) -> None:
    table = table_of(tmp_path, TABLE)
    fault = refused(
        table, images, "no image has the label 'Chordom'; found 'chordoma', 'metastasis'", ["Chordom", "myeloma"]
    )
    assert fault.remedy == "did you mean --class 'chordoma'?"
    refused(table, images, "choose among the labels found", ["xyz", "myeloma"])


def test_one_class_alone_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(CohortError, match="'chordoma' alone"):
        read_table(table_of(tmp_path, "patient,image,label\n17,a.png,chordoma\n"), images)


def test_labels_that_differ_by_spelling_alone_are_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(CohortError, match="'Chordoma' and 'chordoma' cannot be told apart"):
        read_table(table_of(tmp_path, TABLE.replace("metastasis", "Chordoma")), images)


def test_a_label_that_is_spelt_otherwise_than_a_class_is_no_other_kind_of_tumour(tmp_path: Path, images: Path) -> None:
    table = table_of(tmp_path, TABLE.replace("17,sub/b.png,chordoma", "20,sub/b.png,Chordoma"))
    with pytest.raises(TableError, match="'chordoma' and 'Chordoma' cannot be told apart by name"):
        read_table(table, images, ["chordoma", "metastasis"])


def test_an_empty_label_column_is_refused(tmp_path: Path, images: Path) -> None:
    refused(table_of(tmp_path, "patient,image,label\n17,a.png,\n"), images, "column 'label' is empty")


@pytest.mark.parametrize("column", ["patient", "image"])
def test_a_row_without_patient_or_image_is_refused(tmp_path: Path, images: Path, column: str) -> None:
    text = TABLE.replace("19,d.png", ",d.png" if column == "patient" else "19,")
    refused(table_of(tmp_path, text), images, f"row 5, column '{column}': expected a value, found nothing")


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("age", "thirty", "row 2, column 'age': expected an age in years from 0 to 120, found 'thirty'"),
        ("age", "-3", "expected an age"),
        ("sex", "x", "expected F or M"),
        ("proof", "hearsay", "expected one of histology, cytology, imaging, follow-up, found 'hearsay'"),
        ("image_date", "2.1.2020", "expected a date as YYYY-MM-DD"),
        ("treated", "perhaps", "expected yes or no"),
        ("box", "1 2 3", "expected left top right bottom"),
        ("box", "30 2 1 40", "expected left top right bottom"),
        ("box", "a b c d", "expected left top right bottom"),
        ("outline", "[[1, 2], [3, 4]", "expected JSON"),
        ("outline", "[[1, 2], [3, 2]]", "three or more corners"),
        ("outline", "[1, 2, 3]", "expected JSON"),
        ("lesions", "[[1, 2, 30, 40]]", "expected a JSON list"),
        (
            "box",
            "1 2 53 30",
            "row 2: expected a lesion inside the image of 50 x 40 pixels, found one from 1, 2 to 53, 30",
        ),
        ("box", "-4 2 9 30", "expected a lesion inside the image"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(tmp_path: Path, images: Path, column: str, value: str, match: str) -> None:
    refused(one_row(tmp_path, column, value), images, match)


def test_lesions_given_twice_are_refused(tmp_path: Path, images: Path) -> None:
    text = "patient,image,label,box,lesions\n17,a.png,chordoma,1 2 3 4,[]\n18,c.png,metastasis,,\n"
    refused(table_of(tmp_path, text), images, "either lesions, or box and outline")


def test_all_images_that_cannot_be_used_are_told_of_at_once(tmp_path: Path, images: Path) -> None:
    (images / "a.png").unlink()
    (images / "c.png").write_bytes(b"")
    Image.new("L", (50, 40), 128).save(images / "d.png")
    with pytest.raises(ImageError) as fault:
        read_table(table_of(tmp_path, TABLE), images)
    assert fault.value.path == images
    said = str(fault.value)
    assert "3 of 4 images that table.csv names cannot be used" in said
    for part in (
        "a.png: the picture is missing",
        "c.png: expected a picture, found an empty file",
        "d.png: the picture is blank",
    ):
        assert part in said


def test_an_image_that_no_file_can_be_called_is_one_of_the_faulty_ones(tmp_path: Path, images: Path) -> None:
    table = table_of(tmp_path, TABLE.replace("c.png", "c" * 300 + ".png"))
    with pytest.raises(ImageError, match=r"1 of 4 images .* row 4, c+\.png: "):
        read_table(table, images)


def test_a_folder_of_images_whose_path_cannot_be_written_down_is_refused(tmp_path: Path, images: Path) -> None:
    folder = images.rename(tmp_path / "r\udcff")
    with pytest.raises(InputError, match="is no UTF-8"):
        read_table(table_of(tmp_path, TABLE), folder)


def test_however_places_are_spaced_and_ordered_they_are_the_same(tmp_path: Path, images: Path) -> None:
    rows = ["17,a.png,chordoma,femur +tibia", "17,sub/b.png,chordoma,tibia + femur", "18,c.png,myeloma, tibia"]
    text = "\n".join(["patient,image,label,site", *rows])
    cohort = read_table(table_of(tmp_path, text), images)
    assert cohort.frame.set_index("image")["site"].to_dict() == {
        "a.png": "femur+tibia",
        "sub/b.png": "femur+tibia",
        "c.png": "tibia",
    }
    assert {case.site for case in cases(cohort)} == {"femur+tibia", "tibia"}


def test_of_many_faulty_images_the_first_are_named(tmp_path: Path, images: Path) -> None:
    lines = "".join(f"{number},none{number}.png,{'chordoma' if number % 2 else 'myeloma'}\n" for number in range(9))
    with pytest.raises(ImageError, match=r"9 of 9 images .* none4\.png: the picture is missing; and 4 more"):
        read_table(table_of(tmp_path, f"patient,image,label\n{lines}"), images)


# LabelMe


def annotated(images: Path, size: tuple[int, int] = (50, 40), name: str = "a.json") -> None:
    shape = {"shape_type": "polygon", "points": [[5, 6], [20, 6], [20, 30]]}
    (images / name).write_text(json.dumps({"imageWidth": size[0], "imageHeight": size[1], "shapes": [shape]}))


def test_a_labelme_file_outlines_the_lesion_of_a_picture(tmp_path: Path, images: Path) -> None:
    annotated(images)
    row = read_table(one_row(tmp_path, "mask", "a.json"), images).frame.iloc[0]
    assert lesions_from_json(row["lesions"]) == (Lesion(outline=((5, 6), (20, 6), (20, 30))),)
    assert pd.isna(row["mask"])


def test_a_labelme_file_of_another_picture_is_refused_by_row(tmp_path: Path, images: Path) -> None:
    annotated(images, (40, 50))
    table = one_row(tmp_path, "mask", "a.json")
    with pytest.raises(TableError, match=r"row 2: its mask a\.json: expected .* 50 x 40 pixels, found one of 40 x 50"):
        read_table(table, images)
    (images / "a.json").unlink()
    with pytest.raises(TableError, match=r"row 2: its mask a\.json: expected a LabelMe annotation"):
        read_table(table, images)


def test_a_picture_is_marked_in_one_way(tmp_path: Path, images: Path) -> None:
    annotated(images)
    text = "patient,image,label,mask,box\n17,a.png,chordoma,a.json,1 2 9 9\n18,c.png,metastasis,,\n"
    with pytest.raises(TableError, match="row 2, column 'mask': expected nothing, since the row marks the picture by"):
        read_table(table_of(tmp_path, text), images)
