"""LabelMe files on their own picture; on any other they are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from osteoscope.errors import InputError
from osteoscope.imaging.labelme import read_labelme
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from pathlib import Path

RECTANGLE: tuple[str, list[list[float]]] = ("rectangle", [[10, 12], [30, 40]])
POLYGON: tuple[str, list[list[float]]] = ("polygon", [[12, 14], [28, 14], [20, 38]])


def annotation(path: Path, *shapes: tuple[str, list[list[float]]], size: tuple[int, int] = (80, 60)) -> Path:
    drawn = [{"label": "tumour", "shape_type": kind, "points": points} for kind, points in shapes]
    path.write_text(json.dumps({"version": "5.0", "imageWidth": size[0], "imageHeight": size[1], "shapes": drawn}))
    return path


def test_an_outline_is_read_with_the_rectangle_round_it(tmp_path: Path) -> None:
    found = read_labelme(annotation(tmp_path / "a.json", RECTANGLE, POLYGON), 60, 80)
    assert found == (Lesion(box=(10, 12, 30, 40), outline=((12, 14), (28, 14), (20, 38))),)


def test_a_rectangle_may_be_drawn_from_any_corner_and_is_cut_at_the_border(tmp_path: Path) -> None:
    found = read_labelme(annotation(tmp_path / "a.json", ("rectangle", [[80.6, 60.2], [70, -0.5]])), 60, 80)
    assert found == (Lesion(box=(70, 0, 80, 60)),)


def test_a_byte_order_mark_is_let_pass(tmp_path: Path) -> None:
    path = annotation(tmp_path / "a.json", RECTANGLE)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_labelme(path, 60, 80) == (Lesion(box=(10, 12, 30, 40)),)


@pytest.mark.parametrize(
    ("shapes", "arguments", "match"),
    [
        ([RECTANGLE], {"size": (60, 80)}, "of a picture of 80 x 60 pixels, found one of 60 x 80"),
        ([RECTANGLE], {"size": (160, 120)}, "found one of 160 x 120"),
        ([RECTANGLE, ("circle", [[20, 20], [25, 20]])], {}, "found a shape of type 'circle'"),
        ([("rectangle", [[10, 12], [90, 40]])], {}, "inside the picture of 80 x 60 pixels, found one .* to 90, 40"),
        ([("polygon", [[-5, 12], [9, 4], [9, 9]])], {}, "found one that reaches to -5, 12"),
        ([], {}, "found none outlined"),
        ([("rectangle", [[10, 12], [10, 40]])], {}, "found none outlined"),
    ],
)
def test_what_is_not_of_this_picture_is_refused(
    tmp_path: Path, shapes: list[Any], arguments: dict[str, Any], match: str
) -> None:
    path = annotation(tmp_path / "a.json", *shapes, **arguments)
    with pytest.raises(InputError, match=match) as fault:
        read_labelme(path, 60, 80)
    assert fault.value.path == path
    assert fault.value.remedy


_POLYGON = '{"imageWidth": 80, "imageHeight": 60, "shapes": [{"shape_type": "polygon", "points": %s}]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"imageWidth": 0, "imageHeight": 0, "shapes": []}',
        '{"imageWidth": NaN, "imageHeight": 60, "shapes": []}',
        "\xff\xfe",
        _POLYGON % "[[1, 2], [30, NaN], [20, 40]]",
        _POLYGON % f"[[1, 2], [30, 1{'0' * 400}], [20, 40]]",
    ],
)
def test_what_is_no_annotation_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="expected a LabelMe annotation"):
        read_labelme(path, 60, 80)
    with pytest.raises(InputError, match="expected a LabelMe annotation"):
        read_labelme(tmp_path / "none.json", 60, 80)


def test_what_stands_in_a_file_that_is_no_annotation_is_not_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"imagePath": "Müller^Anna.png", "imageData": "QUFB"}'.encode("cp1252"))
    with pytest.raises(InputError, match="something else") as fault:
        read_labelme(path, 60, 80)
    assert "Anna" not in str(fault.value)
    assert "QUFB" not in str(fault.value)
