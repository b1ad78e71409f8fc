from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from osteoscope.cohort.audit import find_leaks, raise_if_blocked
from osteoscope.cohort.btxrd import DIAGNOSES, GROUPS, SITES, VIEWS, read_annotation, read_btxrd
from osteoscope.cohort.split import make_folds, proof
from osteoscope.cohort.table import auxiliary, cases, counts, pseudonyms, read_cohort, write_cohort
from osteoscope.errors import CohortError, InputError, TableError
from osteoscope.imaging.prepare import Lesion, square_to_read

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("osteosarcoma", "giant cell tumor")
COLUMNS = ("image_id", "center", "age", "gender", *SITES, "tumor", *GROUPS, *DIAGNOSES, "pelvis", *VIEWS)
MALIGNANT = ("osteosarcoma", "other mt")


def entry(number: int, *diagnoses: str, **known: Any) -> dict[str, Any]:
    """A line of the archive's table; without a diagnosis it is normal, and its other cells are empty."""
    line: dict[str, Any] = dict.fromkeys(COLUMNS, 0 if diagnoses else "")
    line |= {"image_id": f"IMG{number:06}.jpeg", "tumor": int(bool(diagnoses))}
    if diagnoses:
        line |= {"center": 1, "age": 15, "gender": "M", "frontal": 1, "tibia": 1}
        line |= dict.fromkeys(diagnoses, 1)
        malignant = any(name in MALIGNANT for name in diagnoses)
        line |= {"malignant": int(malignant), "benign": int(not malignant)}
    return line | known


def save_image(folder: Path, name: str, seed: int) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(values).save(folder / "images" / name, quality=95)


def archive(folder: Path, *lines: dict[str, Any], images: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dataset.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(COLUMNS))
        writer.writeheader()
        writer.writerows(lines)
    for seed, line in enumerate(lines):
        if images:
            save_image(folder, line["image_id"], seed)
    return folder


def annotate(
    folder: Path, number: int, *shapes: tuple[str, list[list[float]]], size: tuple[int, int] = (80, 60)
) -> Path:
    path = folder / "Annotations" / f"IMG{number:06}.json"
    path.parent.mkdir(exist_ok=True)
    drawn = [{"shape_type": kind, "points": points} for kind, points in shapes]
    path.write_text(json.dumps({"imageWidth": size[0], "imageHeight": size[1], "shapes": drawn}))
    return path


def groups(folder: Path) -> list[set[int]]:
    """Numbers of the images that were taken for one patient."""
    by_patient: dict[str, set[int]] = {}
    for row in read_btxrd(folder, CLASSES).frame.to_dict("records"):
        by_patient.setdefault(row["patient"], set()).add(int(row["image"][-11:-5]))
    return sorted(by_patient.values(), key=min)


# The real archive


def test_the_real_archive_has_the_patients_and_images_that_are_known_of_it(btxrd: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cohort = read_btxrd(btxrd, CLASSES, lambda done, of: told.append((done, of)))
    found = counts(cohort)
    assert found["classes"] == {
        "osteosarcoma": {"patients": 103, "images": 215},
        "giant cell tumor": {"patients": 21, "images": 45},
    }
    assert found["auxiliary"]["kinds"].pop("normal") == 1253
    assert sum(found["auxiliary"]["kinds"].values()) == 1085
    assert told == [(done, 2598) for done in range(1, 2599)]
    assert cohort.left_out == ()
    assert bool(cohort.frame["guessed"].all())
    assert bool(cohort.frame["proof"].isna().all())

    (finding,) = find_leaks(cohort)
    assert (finding.kind, finding.severity, len(finding.cases)) == ("duplicate-within-patient", "warn", 1)
    assert "images/IMG000415.jpeg and images/IMG000497.jpeg" in finding.message
    raise_if_blocked([finding])

    gathered = cases(cohort)
    assert len(gathered) == 124
    assert all(image.lesions for case in gathered for image in case.images)
    assert len(auxiliary(cohort)) == 1085 + 1253
    shown = proof(make_folds(gathered, folds=5, repeats=2, seed=0, classes=cohort.classes), gathered)
    assert {split["shared_patients"] + split["shared_pixels"] for split in shown["splits"]} == {0}

    write_cohort(cohort, tmp_path / "cohort")
    assert cases(read_cohort(tmp_path / "cohort")) == gathered


def test_a_real_lesion_is_where_the_archive_drew_it(btxrd: Path) -> None:
    # The file records a rectangle from (181.07, 57.16) to (269.9, 115.44) in a picture of 296 x 221.
    lesions = read_annotation(btxrd / "Annotations" / "IMG000001.json", 221, 296)
    assert [lesion.box for lesion in lesions] == [(181.07, 57.16, 269.9, 115.44)]
    square = square_to_read((221, 296), lesions, roi="box", margin=0)
    assert (square.left, square.side) == pytest.approx((181.07, 88.83))


# Classes and roles


def test_rows_become_cases_or_stay_as_auxiliary(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a",
        entry(1, "osteosarcoma", femur=1, lateral=1, frontal=0, gender="F", age=17),
        entry(3, "giant cell tumor"),
        entry(5, "osteochondroma", "synovial osteochondroma"),
        entry(7),
    )
    rows = read_btxrd(folder, CLASSES).frame.to_dict("records")
    assert [row["role"] for row in rows] == ["case", "case", "auxiliary", "auxiliary"]
    assert [row["kind"] for row in rows] == [
        "osteosarcoma",
        "giant cell tumor",
        "osteochondroma; synovial osteochondroma",
        "normal",
    ]
    first = rows[0]
    assert (first["image"], first["label"], first["age"], first["sex"]) == (
        "images/IMG000001.jpeg",
        "osteosarcoma",
        17.0,
        "F",
    )
    assert (first["site"], first["view"], first["centre"], first["rows"], first["columns"]) == (
        "femur+tibia",
        "lateral",
        "1",
        60,
        80,
    )


def test_joined_columns_and_normal_can_be_classes(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(3, "osteochondroma"), entry(5))
    cohort = read_btxrd(folder, ["malignant", "benign", "normal"])
    assert list(cohort.frame["label"]) == ["malignant", "benign", "normal"]


def test_an_unknown_class_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"))
    with pytest.raises(TableError, match=r"'osteosarcoma'.*'normal', found 'Osteosarkom'"):
        read_btxrd(folder, ["osteosarcoma", "Osteosarkom"])
    with pytest.raises(CohortError, match="two or more classes"):
        read_btxrd(folder, ["osteosarcoma"])


def test_a_class_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no usable image of class 'giant cell tumor'"):
        read_btxrd(archive(tmp_path / "a", entry(1, "osteosarcoma")), CLASSES)


def test_an_image_of_two_chosen_classes_or_none_is_left_out(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a",
        entry(1, "osteosarcoma"),
        entry(3, "giant cell tumor"),
        entry(5, "osteosarcoma", "giant cell tumor"),
        entry(7, "osteosarcoma", tumor=0),
    )
    left_out = read_btxrd(folder, CLASSES).left_out
    assert [(image.image, image.reason) for image in left_out] == [
        ("images/IMG000005.jpeg", "it is of several chosen classes: osteosarcoma, giant cell tumor"),
        ("images/IMG000007.jpeg", "the table calls it normal and names a tumour"),
    ]


# Files


def test_a_file_may_have_the_other_suffix(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(3, "giant cell tumor"))
    (folder / "images" / "IMG000001.jpeg").rename(folder / "images" / "IMG000001.jpg")
    assert list(read_btxrd(folder, CLASSES).frame["image"]) == ["images/IMG000001.jpg", "images/IMG000003.jpeg"]


def test_the_workbook_is_read_where_there_is_no_csv(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(2, "osteosarcoma"), entry(3, "giant cell tumor"))
    from_csv = read_btxrd(folder, CLASSES)
    workbook = openpyxl.Workbook()
    with (folder / "dataset.csv").open(encoding="utf-8") as stream:
        for line in csv.reader(stream):
            workbook.worksheets[0].append([int(cell) if cell.isdigit() else cell or None for cell in line])
    workbook.save(folder / "dataset.xlsx")
    (folder / "dataset.csv").unlink()
    assert read_btxrd(folder, CLASSES).fingerprint() == from_csv.fingerprint()


def test_images_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    lines = [entry(number, "osteosarcoma") for number in (1, 3, 5, 11)]
    folder = archive(tmp_path / "a", *lines, entry(7, "giant cell tumor"))
    (folder / "images" / "IMG000001.jpeg").unlink()
    (folder / "images" / "IMG000003.jpeg").write_bytes(b"not a picture")
    Image.new("L", (80, 60), 7).save(folder / "images" / "IMG000011.jpeg")
    cohort = read_btxrd(folder, CLASSES)
    assert [(image.image[-11:-5], image.reason.split(":")[0]) for image in cohort.left_out] == [
        ("000001", "the picture is missing"),
        ("000003", "expected a JPEG, PNG, TIFF or BMP picture, found something else"),
        ("000011", "the picture is blank"),
    ]
    assert len(cohort.frame) == 2


def test_a_table_without_any_of_its_images_is_refused(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(2, "osteosarcoma"), images=False)
    with pytest.raises(TableError, match="none of its 2 images is in"):
        read_btxrd(folder, CLASSES)


def test_an_archive_without_folder_or_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the archive's folder"):
        read_btxrd(tmp_path / "none", CLASSES)
    with pytest.raises(TableError, match=r"dataset\.csv: the table is missing"):
        read_btxrd(tmp_path, CLASSES)


def test_one_image_in_two_rows_is_refused(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(1, "giant cell tumor", image_id="IMG000001.jpg"))
    with pytest.raises(TableError, match="rows 2 and 3 are about the same image"):
        read_btxrd(folder, CLASSES)


def test_an_impossible_age_is_refused_with_its_row(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(3, "giant cell tumor", age="adult"))
    with pytest.raises(TableError, match=r"row 3, column 'age': expected an age .* found 'adult'"):
        read_btxrd(folder, CLASSES)


# Guessed patients


def test_consecutive_images_alike_in_all_traits_are_one_patient(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a",
        entry(1, "osteosarcoma"),
        entry(2, "osteosarcoma", femur=1, frontal=0, lateral=1),
        entry(3, "osteosarcoma", age=16),
        entry(4, "osteosarcoma", age=16, gender="F"),
        entry(5, "osteosarcoma", age=16, gender="F", center=2),
        entry(6, "giant cell tumor", age=16, gender="F", center=2),
        entry(8, "giant cell tumor", age=16, gender="F", center=2),
    )
    assert groups(folder) == [{1, 2}, {3}, {4}, {5}, {6}, {8}]


def test_images_of_which_too_little_is_known_stay_alone(tmp_path: Path) -> None:
    unknown = {"age": "", "gender": ""}
    folder = archive(
        tmp_path / "a",
        entry(1),
        entry(2),
        entry(3, "osteosarcoma", **unknown),
        entry(4, "osteosarcoma", **unknown),
        entry(5, "giant cell tumor", age=""),
        entry(6, "giant cell tumor", age=""),
    )
    assert groups(folder) == [{1}, {2}, {3}, {4}, {5, 6}]


def test_the_same_pixels_make_one_patient_of_two_and_of_all_their_views(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a",
        entry(1, "osteosarcoma"),
        entry(2, "osteosarcoma"),
        entry(10, "osteosarcoma", age=40),
        entry(11, "osteosarcoma", age=40),
        entry(20, "giant cell tumor"),
    )
    save_image(folder, "IMG000002.jpeg", 99)
    save_image(folder, "IMG000011.jpeg", 99)
    assert groups(folder) == [{1, 2, 10, 11}, {20}]
    assert [finding.kind for finding in find_leaks(read_btxrd(folder, CLASSES))] == ["duplicate-within-patient"]


def test_the_same_pixels_under_two_diagnoses_block(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(20, "giant cell tumor"))
    save_image(folder, "IMG000020.jpeg", 0)
    with pytest.raises(CohortError, match="have the same pixels and different labels"):
        raise_if_blocked(find_leaks(read_btxrd(folder, CLASSES)))


def test_an_unusable_view_does_not_break_a_patient_in_two(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a", *(entry(number, "osteosarcoma") for number in (1, 2, 3)), entry(9, "giant cell tumor")
    )
    (folder / "images" / "IMG000002.jpeg").write_bytes(b"")
    assert groups(folder) == [{1, 3}, {9}]


def test_a_pseudonym_does_not_depend_on_the_chosen_classes(tmp_path: Path) -> None:
    lines = [
        entry(1, "osteosarcoma"),
        entry(2, "osteosarcoma"),
        entry(3, "giant cell tumor"),
        entry(5, "osteochondroma"),
    ]
    folder = archive(tmp_path / "a", *lines)
    first = read_btxrd(folder, CLASSES).frame
    second = read_btxrd(folder, ["osteochondroma", "osteosarcoma"]).frame
    assert first["patient"].tolist() == second["patient"].tolist()
    assert first["patient"][1] == pseudonyms("btxrd", ["IMG000001"])["IMG000001"]


# Annotations


def test_each_outline_is_read_with_the_box_drawn_round_it(tmp_path: Path) -> None:
    path = annotate(
        archive(tmp_path / "a", entry(1, "osteosarcoma")),
        1,
        ("rectangle", [[50, 40], [70, 58]]),
        ("rectangle", [[30, 20], [10, 5]]),
        ("polygon", [[11, 6], [29, 6], [20, 19]]),
        ("polygon", [[51, 41], [69, 41], [60, 57]]),
        ("rectangle", [[1, 1], [4, 4]]),
        ("polygon", [[70, 2], [78, 2], [75, 8]]),
        ("circle", [[5, 5], [6, 6]]),
    )
    lesions = read_annotation(path, 60, 80)
    assert lesions == (
        Lesion(box=(10, 5, 30, 20), outline=((11, 6), (29, 6), (20, 19))),
        Lesion(box=(50, 40, 70, 58), outline=((51, 41), (69, 41), (60, 57))),
        Lesion(box=(1, 1, 4, 4)),
        Lesion(outline=((70, 2), (78, 2), (75, 8))),
    )


def test_a_box_is_given_to_one_outline_only(tmp_path: Path) -> None:
    path = annotate(
        archive(tmp_path / "a", entry(1, "osteosarcoma")),
        1,
        ("rectangle", [[10, 10], [30, 30]]),
        ("polygon", [[12, 12], [20, 12], [16, 20]]),
        ("polygon", [[10, 10], [30, 10], [20, 30]]),
    )
    assert read_annotation(path, 60, 80) == (
        Lesion(box=(10, 10, 30, 30), outline=((10, 10), (30, 10), (20, 30))),
        Lesion(outline=((12, 12), (20, 12), (16, 20))),
    )


def test_an_annotation_of_another_size_is_scaled_to_the_picture(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", entry(1, "osteosarcoma"), entry(3, "giant cell tumor"))
    annotate(folder, 1, ("rectangle", [[20, 30], [60, 120]]), size=(160, 240))
    found = {image.image: image.lesions for case in cases(read_btxrd(folder, CLASSES)) for image in case.images}
    # The picture is 80 x 60: half as wide and a quarter as high as the annotation says.
    assert found == {
        "images/IMG000001.jpeg": (Lesion(box=(10, 7.5, 30, 30)),),
        "images/IMG000003.jpeg": (),
    }


def test_a_shape_is_cut_at_the_border_and_left_out_where_nothing_remains(tmp_path: Path) -> None:
    path = annotate(
        archive(tmp_path / "a", entry(1, "osteosarcoma")),
        1,
        ("rectangle", [[-5, 10], [90, 20]]),
        ("rectangle", [[90, 10], [95, 20]]),
        ("polygon", [[3, 3], [3, 3], [3, 9]]),
        ("polygon", [[1, 1], [9, 9]]),
    )
    assert read_annotation(path, 60, 80) == (Lesion(box=(0, 10, 80, 20)),)


def test_an_image_without_annotation_has_no_lesion(tmp_path: Path) -> None:
    assert read_annotation(tmp_path / "none.json", 60, 80) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"shapes": []}',
        '{"imageWidth": 0, "imageHeight": 60, "shapes": []}',
        '{"imageWidth": 80, "imageHeight": 60, "shapes": [{"shape_type": "rectangle", "points": [[1], [2]]}]}',
        '{"imageWidth": 80, "imageHeight": 60, "shapes": [{"shape_type": "polygon", "points": [[1, "x"]]}]}',
    ],
)
def test_a_damaged_annotation_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "IMG000001.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"IMG000001\.json: expected a LabelMe annotation"):
        read_annotation(path, 60, 80)
