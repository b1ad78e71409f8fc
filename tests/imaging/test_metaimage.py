"""MetaImage and NRRD as SimpleITK writes them, read as SimpleITK reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from osteoscope.imaging.metaimage import open_metaimage, read_metaimage
from osteoscope.imaging.nifti import read_nifti
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

VALUES = np.random.default_rng(0).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)
"""By ``[k, j, i]``."""

SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def image_of(values: NDArray[Any] = VALUES, direction: tuple[float, ...] = SAGITTAL) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.5, 3.0))
    image.SetOrigin((-12.0, 30.5, 470.25))
    image.SetDirection(direction)
    return image


def saved(path: Path, image: SimpleITK.Image | None = None, *, compressed: bool = False) -> Path:
    SimpleITK.WriteImage(image or image_of(), path, compressed)
    return path


def changed(path: Path, pattern: str, replacement: str) -> Path:
    """Replace a line of the header."""
    content = re.sub(f"^{pattern}[^\n]*\n".encode(), replacement.encode(), path.read_bytes(), flags=re.MULTILINE)
    path.write_bytes(content)
    return path


def refusal_of(path: Path) -> RefusedImageError:
    with pytest.raises(RefusedImageError) as caught:
        read_metaimage(path, modality="CT").read()
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("name", ["ct.mha", "ct.nrrd"])
def test_what_simpleitk_writes_is_read_as_its_nifti_is(tmp_path: Path, name: str, compressed: bool) -> None:
    volume = read_metaimage(saved(tmp_path / name, compressed=compressed), modality="CT")
    expected = read_nifti(saved(tmp_path / "ct.nii"), modality="CT")
    assert volume.geometry.plane_name == "sagittal"
    assert_array_equal(volume.read(), expected.read())
    assert_array_equal(volume.read([4, 1]), expected.read()[[4, 1]])
    assert volume.geometry.affine is not None
    assert expected.geometry.affine is not None
    assert_allclose(volume.geometry.affine, expected.geometry.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["ct.mha", "ct.nrrd"])
def test_each_value_lies_where_simpleitk_has_it(tmp_path: Path, name: str) -> None:
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    image = image_of(direction=tuple(turn.ravel().tolist()))
    volume = read_metaimage(saved(tmp_path / name, image), modality="CT")
    values, affine = volume.read(), volume.geometry.affine
    assert affine is not None
    for plane, row, column in np.ndindex(values.shape):
        place = affine[:3] @ (column, row, plane, 1)
        index = np.array(image.TransformPhysicalPointToContinuousIndex(place.tolist()))
        assert_allclose(index, index.round(), atol=1e-6)
        assert image[[int(i) for i in index.round()]] == values[plane, row, column]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("name", ["ct.mha", "ct.nrrd"])
def test_numbers_of_every_kind_are_read(tmp_path: Path, name: str, dtype: str) -> None:
    values = (VALUES % 100).astype(dtype)
    volume = read_metaimage(saved(tmp_path / name, image_of(values)), modality="CT")
    assert_array_equal(volume.read(), values)


def test_the_other_order_of_bytes_is_read(tmp_path: Path) -> None:
    mha = changed(saved(tmp_path / "ct.mha"), "BinaryDataByteOrderMSB", "BinaryDataByteOrderMSB = True\n")
    nrrd = changed(saved(tmp_path / "ct.nrrd"), "endian", "endian: big\n")
    assert_array_equal(read_metaimage(mha, modality="CT").read(), VALUES.byteswap())
    assert_array_equal(read_metaimage(nrrd, modality="CT").read(), VALUES.byteswap())


@pytest.mark.parametrize("stated", ["MET_MOD_NM", "MET_MOD_US", "MET_MOD_OTHER", "PT"])
def test_another_modality_that_is_stated_is_refused(tmp_path: Path, stated: str) -> None:
    path = changed(saved(tmp_path / "a.mha"), "ObjectType", f"ObjectType = Image\nModality = {stated}\n")
    with pytest.raises(RefusedImageError) as caught:
        read_metaimage(path)
    assert caught.value.code is RefusalCode.OTHER_MODALITY


def test_a_modality_that_is_stated_as_unknown_is_not_stated(tmp_path: Path) -> None:
    path = changed(saved(tmp_path / "a.mha"), "ObjectType", "ObjectType = Image\nModality = MET_MOD_UNKNOWN\n")
    assert read_metaimage(path, modality="CT").modality == "CT"


@pytest.mark.parametrize("said", ["true", "1", "T"])
def test_a_boolean_is_read_by_its_first_letter(tmp_path: Path, said: str) -> None:
    path = changed(saved(tmp_path / "a.mha", compressed=True), "CompressedData ", f"CompressedData = {said}\n")
    expected = VALUES if SAGITTAL is None else read_metaimage(saved(tmp_path / "b.mha"), modality="CT").read()
    assert_array_equal(read_metaimage(path, modality="CT").read(), expected)
    swapped = changed(saved(tmp_path / "c.mha"), "BinaryDataByteOrderMSB", f"BinaryDataByteOrderMSB = {said}\n")
    found = read_metaimage(swapped, modality="CT").read()
    assert_array_equal(found, expected.astype(np.int16).byteswap().astype(np.float32))


def test_coordinates_in_ras_are_carried_to_lps(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nrrd")
    before = read_metaimage(path, modality="CT").geometry.affine
    changed(path, "space:", "space: right-anterior-superior\n")
    changed(path, "space directions:", "space directions: (0,-0.5,0) (0,0,-0.5) (3,0,0)\n")
    changed(path, "space origin:", "space origin: (12,-30.5,470.25)\n")
    after = read_metaimage(path, modality="CT").geometry.affine
    assert before is not None
    assert after is not None
    assert_allclose(after, before)


def test_units_other_than_mm_are_carried_to_mm(tmp_path: Path) -> None:
    nrrd = changed(saved(tmp_path / "ct.nrrd"), "space origin:", 'space origin: (0,0,0)\nspace units: "cm" "cm" "cm"\n')
    assert read_metaimage(nrrd, modality="CT").geometry.steps == pytest.approx((30, 5, 5))
    mha = changed(saved(tmp_path / "ct.mha"), "Offset", "Offset = 0 0 0\nDistanceUnits = cm\n")
    assert read_metaimage(mha, modality="CT").geometry.steps == pytest.approx((30, 5, 5))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("ct.mha", "TransformMatrix"),
        ("ct.mha", "Offset"),
        ("ct.mha", "ElementSpacing"),
        ("ct.nrrd", "space:"),
        ("ct.nrrd", "space directions:"),
        ("ct.nrrd", "space origin:"),
    ],
)
def test_a_place_that_is_left_out_is_not_made_up(tmp_path: Path, name: str, pattern: str) -> None:
    found = open_metaimage(changed(saved(tmp_path / name), pattern, ""), modality="CT")
    assert found.volume.geometry.affine is None
    assert "no place in the patient" in found.told[0]
    assert_array_equal(found.volume.read(), VALUES)


@pytest.mark.parametrize(
    ("name", "pattern", "replacement"),
    [
        ("ct.mha", "TransformMatrix", "TransformMatrix = 1 0 0 1 0 0 0 0 1\n"),
        ("ct.mha", "TransformMatrix", "TransformMatrix = 1 0 0 0 1 0\n"),
        ("ct.mha", "Offset", "Offset = a b c\n"),
        ("ct.mha", "ElementSpacing", "ElementSpacing = nan 1 1\n"),
        ("ct.nrrd", "space directions:", "space directions: none (0,1,0) (0,0,1)\n"),
        ("ct.nrrd", "space directions:", "space directions: (1,0,0) (1,0,0) (0,0,1)\n"),
        ("ct.nrrd", "space:", "space: scanner-xyz\n"),
    ],
)
def test_a_place_that_cannot_be_is_left_unknown(tmp_path: Path, name: str, pattern: str, replacement: str) -> None:
    found = open_metaimage(changed(saved(tmp_path / name), pattern, replacement), modality="CT")
    assert found.volume.geometry.affine is None
    assert found.told


def test_a_metaimage_may_state_its_modality(tmp_path: Path) -> None:
    path = changed(saved(tmp_path / "a.mha"), "ObjectType", "ObjectType = Image\nModality = MET_MOD_CT\n")
    assert open_metaimage(path).volume.modality == "CT"


def test_a_modality_that_is_not_stated_is_concluded_and_that_is_told(tmp_path: Path) -> None:
    found = open_metaimage(saved(tmp_path / "a.nrrd", image_of(abs(VALUES))))
    assert found.volume.modality == "MR"
    assert "modality is not stated" in found.told[-1]


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "code"),
    [
        ("a.mha", "ElementDataFile", "ElementDataFile = /etc/passwd\n", RefusalCode.DETACHED_PIXELS),
        ("a.mha", "ElementDataFile", "ElementDataFile = LIST\n", RefusalCode.DETACHED_PIXELS),
        ("a.mha", "ElementDataFile", "", RefusalCode.NOT_AN_IMAGE),
        ("a.mha", "BinaryData ", "BinaryData = False\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.mha", "ElementType", "ElementType = MET_STRING\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.mha", "ElementType", "ElementType = MET_DOUBLE\n", RefusalCode.TRUNCATED_PIXELS),
        ("a.mha", "ElementType", "ElementType = MET_CHAR\n", RefusalCode.INCONSISTENT_PIXELS),
        ("a.mha", "DimSize", "DimSize = 7 6 5\nElementNumberOfChannels = 3\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.mha", "DimSize", "DimSize = 65535 65535 65535\n", RefusalCode.TOO_LARGE),
        ("a.mha", "DimSize", "DimSize = 7 6 5 2\n", RefusalCode.SEVERAL_VOLUMES),
        ("a.mha", "DimSize", "DimSize = 7 0 5\n", RefusalCode.DAMAGED),
        ("a.mha", "DimSize", "DimSize = -7 6 5\n", RefusalCode.DAMAGED),
        ("a.nrrd", "encoding", "encoding: raw\ndata file: /etc/passwd\n", RefusalCode.DETACHED_PIXELS),
        ("a.nrrd", "encoding", "encoding: bzip2\n", RefusalCode.UNSUPPORTED_COMPRESSION),
        ("a.nrrd", "encoding", "", RefusalCode.UNSUPPORTED_COMPRESSION),
        ("a.nrrd", "encoding", "encoding: raw\nbyte skip: -1\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.nrrd", "endian", "", RefusalCode.DAMAGED),
        ("a.nrrd", "kinds", "kinds: RGB-color domain domain\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.nrrd", "type", "type: block\n", RefusalCode.UNSUPPORTED_PIXELS),
        ("a.nrrd", "sizes", "sizes: 3 7 6 5\n", RefusalCode.SEVERAL_VOLUMES),
        ("a.nrrd", "sizes", "sizes: 7 6 6\n", RefusalCode.TRUNCATED_PIXELS),
        ("a.nrrd", "sizes", "", RefusalCode.DAMAGED),
    ],
)
def test_what_is_not_read_is_refused_for_a_reason(
    tmp_path: Path, name: str, pattern: str, replacement: str, code: RefusalCode
) -> None:
    assert refusal_of(changed(saved(tmp_path / name), pattern, replacement)).code == code


def test_a_header_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    assert refusal_of(tmp_path / "a.nrrd").code == RefusalCode.DAMAGED


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_compressed_values_that_are_cut_or_altered_are_refused(tmp_path: Path, name: str) -> None:
    whole = saved(tmp_path / name, compressed=True).read_bytes()
    (tmp_path / name).write_bytes(whole[:-3])
    assert refusal_of(tmp_path / name).code == RefusalCode.TRUNCATED_PIXELS
    altered = bytearray(whole)
    altered[-2] ^= 0xFF  # of the checksum, or of the length behind it
    (tmp_path / name).write_bytes(altered)
    assert refusal_of(tmp_path / name).code == RefusalCode.DAMAGED


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_more_compressed_values_than_stated_are_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, compressed=True)
    pattern, replacement = ("DimSize", "DimSize = 7 6 4\n") if name == "a.mha" else ("sizes", "sizes: 7 6 4\n")
    assert refusal_of(changed(path, pattern, replacement)).code == RefusalCode.INCONSISTENT_PIXELS


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.mha")
    volume = read_metaimage(path, modality="CT")
    saved(path, image_of(VALUES + 1))
    with pytest.raises(RefusedImageError, match="has changed"):
        volume.read()
