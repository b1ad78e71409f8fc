"""NIfTI read against nibabel and SimpleITK, and written to be read by nibabel."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from itertools import permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import shared_data
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.testing import assert_allclose, assert_array_equal

from osteoscope.errors import StorageError
from osteoscope.imaging.nifti import open_nifti, read_nifti, write_nifti
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

DISPLAYED = {"axial": "LPS", "sagittal": "PIR", "coronal": "LIP"}
"""Where columns, rows and planes run to."""

REAL = [
    "dcm_qa_ts/Ref/1.nii",
    "sct_testing_data/t1/t1w.nii.gz",
    "sct_testing_data/t2/t2.nii.gz",
    "sct_testing_data/t2/t2_fake_lesion.nii.gz",
    "sct_testing_data/t2/t2_contrast_1_mean_ref.nii.gz",
    "sct_testing_data/t2s/t2s.nii.gz",
    "sct_testing_data/t2s/t2s_uncropped.nii.gz",
    "totalsegmentator/aorta_ct_cropped.nii.gz",
    "totalsegmentator/example_ct.nii.gz",
    "totalsegmentator/example_ct_sm.nii.gz",
    "totalsegmentator/example_mr_sm.nii.gz",
    "tptbox/sample_ct/sub-ct_label-22_ct.nii.gz",
    "tptbox/sample_mri/sub-mri_label-6_T2w.nii.gz",
]

AFFINE = np.array([[-0.5, 0, 0, 40], [0, 0.5, 0, -30], [0, 0, 4.0, 100], [0, 0, 0, 1]])
"""In RAS: columns run to the left, rows to the front, planes to the head."""

VALUES = np.random.default_rng(0).integers(-1000, 2000, (7, 6, 5)).astype(np.int16)
"""By ``[i, j, k]``."""


@pytest.fixture
def real() -> Path:
    return shared_data("dicom")


def saved(
    path: Path,
    values: NDArray[Any] = VALUES,
    affine: NDArray[np.float64] | None = AFFINE,
    change: Callable[[Any], None] | None = None,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
) -> Path:
    """Write a NIfTI by nibabel, its header changed before."""
    image = kind(values, affine, dtype=values.dtype)
    if affine is not None:
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    if change is not None:
        change(image.header)
    nib.save(image, path)
    return path


def patched(path: Path, place: int, content: bytes) -> Path:
    """Overwrite bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(whole)
    return path


def loaded(path: Path) -> nib.Nifti1Image:
    return cast("nib.Nifti1Image", nib.load(path))


def as_nibabel_turns_it(path: Path, codes: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (planes, rows, columns) and affine in LPS."""
    image = loaded(path)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    return turned.get_fdata().squeeze().transpose(2, 1, 0), LPS_RAS @ turned.affine


def refusal_of(path: Path) -> RefusedImageError:
    with pytest.raises(RefusedImageError) as caught:
        read_nifti(path, modality="CT").read()
    assert str(path) in str(caught.value)
    return caught.value


def told_of(path: Path) -> str:
    return " | ".join(open_nifti(path, modality="CT").told)


# Real volumes


@pytest.mark.parametrize("name", REAL)
def test_a_real_volume_is_read_as_nibabel_reads_and_turns_it(real: Path, name: str) -> None:
    volume = read_nifti(real / name)
    plane = volume.geometry.plane_name
    assert plane is not None
    expected, affine = as_nibabel_turns_it(real / name, DISPLAYED[plane])
    assert_allclose(volume.read(), expected, rtol=1e-6)
    assert volume.geometry.affine is not None
    assert_allclose(volume.geometry.affine, affine, atol=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_a_real_volume_has_each_value_where_simpleitk_has_it(real: Path, name: str) -> None:
    volume = read_nifti(real / name)
    affine, values = volume.geometry.affine, volume.read()
    peer = SimpleITK.ReadImage(real / name)
    rng = np.random.default_rng(0)
    assert affine is not None
    for plane, row, column in rng.integers(0, values.shape, size=(200, 3)):
        place = affine[:3, :3] @ (column, row, plane) + affine[:3, 3]
        index = np.array(peer.TransformPhysicalPointToContinuousIndex(place.tolist()))
        assert_allclose(index, index.round(), atol=1e-3)
        assert peer[[int(i) for i in index.round()]] == pytest.approx(values[plane, row, column], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "plane", "shape"),
    [
        # Stored as PSR, LAS and PIR; 60 x 55 x 52, 49 x 54 x 9 and 68 x 52 x 67.
        ("sct_testing_data/t2/t2.nii.gz", "sagittal", (52, 55, 60)),
        ("sct_testing_data/t2s/t2s.nii.gz", "axial", (9, 54, 49)),
        ("tptbox/sample_mri/sub-mri_label-6_T2w.nii.gz", "sagittal", (67, 52, 68)),
    ],
)
def test_real_planes_are_those_that_the_slices_were(
    real: Path, name: str, plane: str, shape: tuple[int, int, int]
) -> None:
    geometry = read_nifti(real / name).geometry
    assert geometry.plane_name == plane
    assert geometry.shape == shape


def test_a_mask_lies_on_its_scan(real: Path) -> None:
    scan = read_nifti(real / "tptbox/sample_ct/sub-ct_label-22_ct.nii.gz").read()
    mask = read_nifti(real / "tptbox/sample_ct/sub-ct_seg-vert_label-22_msk.nii.gz", modality="CT").read()
    # Bone is denser than what surrounds it.
    assert scan[mask > 0].mean() > scan[mask == 0].mean() + 100


def test_a_field_of_vectors_is_refused(real: Path) -> None:
    error = refusal_of(real / "sct_testing_data/t2/warp_template2anat.nii.gz")
    assert error.code == RefusalCode.SEVERAL_VOLUMES
    assert "60 x 55 x 52 x 1 x 3" in str(error)


# The order of the axes


def in_every_order(path: Path) -> Iterator[Path]:
    image = loaded(path)
    for number, (order, flips) in enumerate(product(permutations(range(3)), product((1, -1), repeat=3))):
        turned = image.as_reoriented(np.array(list(zip(order, flips, strict=True)), dtype=np.float64))
        other = path.with_name(f"{number}.nii")
        nib.save(turned, other)
        yield other


def test_any_order_of_the_axes_gives_the_same_volume(tmp_path: Path) -> None:
    oblique = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ AFFINE[:3, :3], [10, 20, 30])
    path = saved(tmp_path / "ct.nii", affine=oblique)
    first = read_nifti(path, modality="CT")
    assert first.geometry.affine is not None
    count = 0
    for other in in_every_order(path):
        volume = read_nifti(other, modality="CT")
        assert_array_equal(volume.read(), first.read())
        assert volume.geometry.affine is not None
        assert_allclose(volume.geometry.affine, first.geometry.affine, atol=1e-4)
        count += 1
    assert count == 48


def test_single_planes_are_read_in_any_order(tmp_path: Path) -> None:
    volume = read_nifti(saved(tmp_path / "ct.nii.gz"), modality="CT")
    whole = volume.read()
    assert_array_equal(volume.read([3, 0, 3]), whole[[3, 0, 3]])


def test_a_slice_by_itself_is_a_plane_whichever_axis_it_lacks(tmp_path: Path) -> None:
    sagittal = VALUES[:1]
    assert read_nifti(saved(tmp_path / "a.nii", sagittal), modality="CT").geometry.shape == (1, 5, 6)
    flat = saved(tmp_path / "b.nii", VALUES[:, :, 0])
    assert read_nifti(flat, modality="CT").geometry.shape == (1, 6, 7)


# Values


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">i4", "<u4", "<i8", "<u8", ">f4", "<f8"])
def test_numbers_of_every_kind_are_read(tmp_path: Path, dtype: str) -> None:
    values = (VALUES % 120).astype(dtype)
    image = nib.Nifti1Image(values, AFFINE, nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<"))
    image.set_data_dtype(values.dtype)
    nib.save(image, tmp_path / "ct.nii")
    expected, _ = as_nibabel_turns_it(tmp_path / "ct.nii", "LPS")
    assert_array_equal(read_nifti(tmp_path / "ct.nii", modality="CT").read(), expected)


def test_values_are_scaled_as_nibabel_scales_them(tmp_path: Path) -> None:
    path = patched(saved(tmp_path / "ct.nii"), 112, np.array([0.25, -1024], "<f4").tobytes())
    expected, _ = as_nibabel_turns_it(path, "LPS")
    assert expected.min() < -1024
    assert_array_equal(read_nifti(path, modality="CT").read(), expected.astype(np.float32))


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_no_slope_leaves_the_values(tmp_path: Path, slope: float) -> None:
    path = patched(saved(tmp_path / "ct.nii"), 112, np.array([slope, 7], "<f4").tobytes())
    assert read_nifti(path, modality="CT").read().max() == VALUES.max()


def test_a_slope_without_an_intercept_is_refused(tmp_path: Path) -> None:
    path = patched(saved(tmp_path / "ct.nii"), 112, np.array([2, np.nan], "<f4").tobytes())
    assert refusal_of(path).code == RefusalCode.DAMAGED


def test_values_that_are_not_finite_stay_so(tmp_path: Path) -> None:
    values = VALUES.astype(np.float64)
    values[0, 0, 0], values[1, 0, 0] = np.nan, 1e300
    found = read_nifti(saved(tmp_path / "ct.nii", values), modality="CT").read()
    assert np.isnan(found).sum() == np.isinf(found).sum() == 1


def test_version_2_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii.gz", kind=nib.Nifti2Image)
    expected, affine = as_nibabel_turns_it(path, "LPS")
    volume = read_nifti(path, modality="CT")
    assert_array_equal(volume.read(), expected)
    assert_allclose(volume.geometry.affine, affine)  # type: ignore[arg-type]


def test_further_axes_of_length_1_are_no_further_volumes(tmp_path: Path) -> None:
    volume = read_nifti(saved(tmp_path / "ct.nii", VALUES[..., None, None]), modality="CT")
    assert volume.geometry.shape == (5, 6, 7)


def test_what_follows_the_header_at_once_is_read_though_its_place_is_left_out(tmp_path: Path) -> None:
    path = patched(saved(tmp_path / "ct.nii"), 108, bytes(4))
    assert read_nifti(path, modality="CT").read().min() == VALUES.min()


# Its place


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("micron", 1000.0), ("meter", 0.001)])
def test_lengths_come_in_mm_whatever_their_unit(tmp_path: Path, unit: str, factor: float) -> None:
    affine = AFFINE.copy()
    affine[:3] *= factor
    path = saved(tmp_path / "ct.nii", affine=affine, change=lambda header: header.set_xyzt_units(unit))
    found = open_nifti(path, modality="CT")
    expected = LPS_RAS @ nib.as_closest_canonical(nib.Nifti1Image(VALUES, AFFINE)).affine
    assert_allclose(np.abs(np.diag(found.volume.geometry.affine)), np.abs(np.diag(expected)), rtol=1e-5)  # type: ignore[arg-type]
    assert found.told == ()


def test_an_unknown_unit_is_taken_as_mm_and_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii", change=lambda header: header.set_xyzt_units("unknown"))
    assert read_nifti(path, modality="CT").geometry.steps == pytest.approx((4, 0.5, 0.5))
    assert "unit of length is not stated" in told_of(path)


def test_an_unknown_unit_that_cannot_be_mm_leaves_the_place_unknown(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[:3] *= 0.001
    path = saved(tmp_path / "ct.nii", affine=affine, change=lambda header: header.set_xyzt_units("unknown"))
    assert read_nifti(path, modality="CT").geometry.affine is None
    assert "0.0005 x 0.0005 x 0.004 mm" in told_of(path)


def test_a_conflict_of_the_two_places_is_told_with_its_size_and_the_sform_taken(tmp_path: Path) -> None:
    mirrored = AFFINE.copy()
    mirrored[0] *= -1

    def change(header: Any) -> None:
        header.set_qform(mirrored, code=1)

    path = saved(tmp_path / "ct.nii", change=change)
    affine = read_nifti(path, modality="CT").geometry.affine
    _, expected = as_nibabel_turns_it(saved(tmp_path / "other.nii"), "LPS")
    assert_allclose(affine, expected)  # type: ignore[arg-type]
    # The first corner lies at x = 40 in one and at -40 in the other.
    assert "sform and its qform place it up to 80 mm apart; the sform is taken" in told_of(path)


def test_the_rounding_of_a_quaternion_is_no_conflict(tmp_path: Path) -> None:
    for seed in range(20):
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        affine = nib.affines.from_matvec(turn @ np.diag([0.7, 0.7, 3]), [100, -250, 900])
        assert told_of(saved(tmp_path / f"{seed}.nii", affine=affine)) == ""


def test_a_place_by_quaternion_alone_is_taken(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii", change=lambda header: header.set_sform(None, code=0))
    _, expected = as_nibabel_turns_it(saved(tmp_path / "other.nii"), "LPS")
    assert_allclose(read_nifti(path, modality="CT").geometry.affine, expected, atol=1e-4)  # type: ignore[arg-type]
    assert told_of(path) == ""


def test_a_qfac_of_0_counts_as_1(tmp_path: Path) -> None:
    right_handed = AFFINE * [[-1], [1], [1], [1]]
    path = saved(tmp_path / "ct.nii", affine=right_handed, change=lambda header: header.set_sform(None, code=0))
    before = read_nifti(path, modality="CT").geometry.affine
    assert_array_equal(read_nifti(patched(path, 76, bytes(4)), modality="CT").geometry.affine, before)


def test_a_file_without_a_place_gets_none(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii", affine=None, change=lambda header: header.set_zooms((0.5, 0.6, 4)))
    found = open_nifti(path, modality="CT")
    assert found.volume.geometry.affine is None
    assert found.volume.geometry.spacing is not None
    assert (found.volume.geometry.spacing.column, found.volume.geometry.spacing.row) == pytest.approx((0.5, 0.6))
    assert found.told == ("its header gives no place in the patient, so which side is left is unknown",)
    assert_array_equal(found.volume.read(), VALUES.transpose(2, 1, 0))


@pytest.mark.parametrize("broken", [np.zeros(4), np.full(4, np.nan), [0.5, 0.5, 0, 0]])
def test_a_place_that_cannot_be_is_told_and_the_other_taken(tmp_path: Path, broken: Any) -> None:
    path = saved(tmp_path / "ct.nii")
    expected = read_nifti(path, modality="CT").geometry.affine
    patched(path, 280, np.array([*broken, *broken, *broken], "<f4").tobytes())
    assert_allclose(read_nifti(path, modality="CT").geometry.affine, expected, atol=1e-4)  # type: ignore[arg-type]
    assert "its sform is no place" in told_of(path)
    # A quaternion longer than 1, and one that is none.
    for quaternion in ([2, 0, 0], [np.nan, 0, 0]):
        patched(path, 256, np.array(quaternion, "<f4").tobytes())
        assert read_nifti(path, modality="CT").geometry.affine is None
        assert "its qform is no place" in told_of(path)


def test_pixel_sizes_that_contradict_the_place_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii", change=lambda header: header.set_qform(None, code=0))
    patched(path, 80, np.array([0.5, 0.5, 8], "<f4").tobytes())
    assert "its sform has steps of 0.5 x 0.5 x 4, its header says 0.5 x 0.5 x 8" in told_of(path)


def test_the_space_of_a_template_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii", change=lambda header: header.set_sform(AFFINE, code="mni"))
    assert "those of a template" in told_of(path)


def test_skew_axes_are_told(tmp_path: Path) -> None:
    skew = AFFINE.copy()
    skew[1, 2] = 4 * np.tan(np.radians(20))
    image = nib.Nifti1Image(VALUES, skew)
    image.set_sform(skew, code=1)
    nib.save(image, tmp_path / "ct.nii")
    assert "not perpendicular, but 20.0 degrees off" in told_of(tmp_path / "ct.nii")


# What lies beside it


def test_isotropic_axes_are_read_along_the_last_one_and_that_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "mr.nii", affine=np.diag([2.0, 2, 2, 1]))
    assert read_nifti(path, modality="MR").geometry.plane_name == "axial"
    assert "the last one stored is taken" in told_of(path)


def test_a_sidecar_says_how_the_slices_lay_and_which_modality_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "mr.nii.gz", affine=np.diag([2.0, 2, 2, 1]))
    sidecar = {"Modality": "MR", "ImageOrientationPatientDICOM": [0, 1, 0.02, 0, 0.02, -1]}
    (tmp_path / "mr.json").write_text(json.dumps(sidecar))
    found = open_nifti(path)
    assert found.volume.modality == "MR"
    assert found.volume.geometry.plane_name == "sagittal"
    assert found.told == ()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '"MR"',
        "[" * 100_000,
        '{"Modality": 7, "ImageOrientationPatientDICOM": "sagittal"}',
        '{"ImageOrientationPatientDICOM": [0, 0, 0, 0, 0, NaN]}',
        '{"ImageOrientationPatientDICOM": [1, 0, 0, 1, 0, 0]}',
        '{"ImageOrientationPatientDICOM": [0.6, 0.8, 0, 0, 0, 1]}',
    ],
)
def test_a_sidecar_that_says_nothing_usable_is_left_aside(tmp_path: Path, content: str) -> None:
    path = saved(tmp_path / "mr.nii", affine=np.diag([2.0, 2, 2, 1]))
    (tmp_path / "mr.json").write_text(content)
    assert read_nifti(path).geometry.plane_name == "axial"


def test_another_modality_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "pt.nii")
    (tmp_path / "pt.json").write_text('{"Modality": "PT"}')
    with pytest.raises(RefusedImageError, match="expected CT or MR, found 'PT'") as caught:
        read_nifti(path)
    assert caught.value.code == RefusalCode.OTHER_MODALITY
    assert read_nifti(path, modality="MR").modality == "MR"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-1_ct.nii", "CT"),
        ("sub-1_T2w.nii", "MR"),
        ("sub-1_acq-sag_T1w.nii", "MR"),
        ("ct.nii", "CT"),
        ("T2w.nii", "MR"),
    ],
)
def test_a_name_of_bids_says_the_modality(tmp_path: Path, name: str, expected: str) -> None:
    found = open_nifti(saved(tmp_path / name))
    assert found.volume.modality == expected
    assert found.told == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("totalsegmentator/aorta_ct_cropped.nii.gz", "CT"),
        ("totalsegmentator/example_ct_sm.nii.gz", "CT"),
        ("totalsegmentator/example_mr_sm.nii.gz", "MR"),
        ("sct_testing_data/t1/t1w.nii.gz", "MR"),
        ("sct_testing_data/t2/t2.nii.gz", "MR"),
        ("sct_testing_data/t2s/t2s.nii.gz", "MR"),
    ],
)
def test_the_modality_of_a_real_volume_is_concluded_from_its_values(
    real: Path, tmp_path: Path, name: str, expected: str
) -> None:
    # Under a name that says nothing.
    found = open_nifti(Path(shutil.copy(real / name, tmp_path / "a.nii.gz")))
    assert found.volume.modality == expected
    assert any("modality is not stated" in told for told in found.told)


# What is refused


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colour_and_numbers_of_other_kinds_are_refused(tmp_path: Path, dtype: Any) -> None:
    values = np.zeros((4, 4, 4), dtype)
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii")
    assert refusal_of(tmp_path / "a.nii").code == RefusalCode.UNSUPPORTED_PIXELS


def test_several_volumes_are_refused(tmp_path: Path) -> None:
    assert refusal_of(saved(tmp_path / "a.nii", np.zeros((4, 5, 6, 2)))).code == RefusalCode.SEVERAL_VOLUMES


def test_a_header_whose_values_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), tmp_path / "a.hdr")
    assert refusal_of(tmp_path / "a.hdr").code == RefusalCode.DETACHED_PIXELS


def test_analyze_is_refused_since_it_does_not_say_which_side_is_left(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(VALUES, AFFINE), tmp_path / "a.hdr")
    error = refusal_of(tmp_path / "a.hdr")
    assert error.code == RefusalCode.NOT_AN_IMAGE
    assert "ANALYZE" in str(error)


@pytest.mark.parametrize("content", [b"", b"a picture", bytes(1000), b"\x5c\x01\x00\x00" + bytes(200)])
def test_what_is_no_nifti_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    expected = {RefusalCode.EMPTY, RefusalCode.NOT_AN_IMAGE, RefusalCode.DAMAGED}
    assert refusal_of(path).code in expected
    path.write_bytes(gzip.compress(content))
    assert refusal_of(path).code in expected


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (40, np.array([0, 7, 6, 5], "<i2")),
        (40, np.array([9, 7, 6, 5], "<i2")),
        (40, np.array([3, -7, 6, 5], "<i2")),
        (40, np.array([3, 7, 0, 5], "<i2")),
        (70, np.array([999], "<i2")),
        (70, np.array([1536], "<i2")),
        (70, np.array([1], "<i2")),
        (108, np.array([-1], "<f4")),
        (108, np.array([20], "<f4")),
        (108, np.array([np.nan], "<f4")),
        (108, np.array([1e30], "<f4")),
        (108, np.array([352.5], "<f4")),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, place: int, content: NDArray[Any]) -> None:
    error = refusal_of(patched(saved(tmp_path / "a.nii"), place, content.tobytes()))
    assert error.code in (RefusalCode.DAMAGED, RefusalCode.UNSUPPORTED_PIXELS)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_over_a_few_bytes_that_promises_the_most_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = patched(saved(tmp_path / "small.nii"), 40, np.array([3, 32767, 32767, 32767], "<i2").tobytes())
    content = path.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert refusal_of(tmp_path / name).code == RefusalCode.TOO_LARGE


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_that_end_too_early_are_refused(tmp_path: Path, name: str) -> None:
    content = saved(tmp_path / "whole.nii").read_bytes()[:-1]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    error = refusal_of(tmp_path / name)
    assert error.code == RefusalCode.TRUNCATED_PIXELS
    assert "expected 420 bytes of values, found 419" in str(error)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_slice_more_than_stated_is_refused_and_a_few_bytes_are_not(tmp_path: Path, name: str) -> None:
    content = saved(tmp_path / "whole.nii").read_bytes()
    pack = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(pack(content + bytes(83)))
    assert read_nifti(tmp_path / name, modality="CT").read().max() == VALUES.max()
    (tmp_path / name).write_bytes(pack(content + bytes(84)))
    assert refusal_of(tmp_path / name).code == RefusalCode.INCONSISTENT_PIXELS


def test_a_compressed_file_that_is_cut_or_altered_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.nii.gz").read_bytes()
    for length in (4, 60, len(whole) // 2, len(whole) - 9, len(whole) - 2):
        (tmp_path / "a.nii.gz").write_bytes(whole[:length])
        assert refusal_of(tmp_path / "a.nii.gz").code == RefusalCode.TRUNCATED_PIXELS
    (tmp_path / "a.nii.gz").write_bytes(whole)
    assert refusal_of(patched(tmp_path / "a.nii.gz", len(whole) - 6, b"\xaa\xaa")).code == RefusalCode.DAMAGED


def test_no_more_is_decompressed_than_the_header_states(tmp_path: Path) -> None:
    content = saved(tmp_path / "a.nii").read_bytes()
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(content)
        for _ in range(200):
            stream.write(bytes(2**20))
    tracemalloc.start()
    assert refusal_of(tmp_path / "bomb.nii.gz").code == RefusalCode.INCONSISTENT_PIXELS
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_memory_stays_small_whatever_the_file_is(tmp_path: Path) -> None:
    # 192 MB of values, read across the axis that changes fastest.
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=1) as stream:
        header = nib.Nifti1Image(VALUES, np.diag([4.0, 1, 1, 1])).header
        header.set_data_shape((30, 1600, 2000))
        header["magic"] = b"n+1"
        stream.write(header.binaryblock + bytes(4))
        for _ in range(2000):
            stream.write(np.full(30 * 1600, 7, "<i2").tobytes())
    tracemalloc.start()
    volume = read_nifti(tmp_path / "a.nii.gz", modality="CT")
    assert volume.geometry.shape == (30, 2000, 1600)
    assert volume.read([29]).mean() == 7
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**27


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii")
    volume = read_nifti(path, modality="CT")
    saved(path, VALUES + 1)
    with pytest.raises(RefusedImageError, match="has changed") as caught:
        volume.read()
    assert caught.value.code == RefusalCode.CHANGED


def test_what_was_read_once_no_longer_needs_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii")
    volume = read_nifti(path, modality="CT")
    before = volume.read([0])
    path.unlink()
    assert_array_equal(volume.read([0]), before)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "none.nii").code == RefusalCode.MISSING
    assert refusal_of(tmp_path).code == RefusalCode.UNREADABLE


def test_the_source_is_the_file_and_its_hash(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz")
    (source,) = read_nifti(path, modality="CT").sources
    assert (source.path, source.sha256) == (path, sha256_of_file(path))


# Writing

MAP = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)

PLACES = [
    np.diag([0.5, 0.7, 3.0, 1.0]),
    nib.affines.from_matvec(nib.eulerangles.euler2mat(0.4, -1.2, 0.3) @ np.diag([0.9, 0.9, 4.4]), [-120, 33, 870]),
    np.array([[0, 0, -3.0, 5], [0.5, 0, 0, 6], [0, -0.5, 0, 7], [0, 0, 0, 1]]),
    np.array([[1, 0, 0, 0], [0, 1, 1.0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]]),
]


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
@pytest.mark.parametrize("affine", PLACES, ids=["axial", "oblique", "sagittal", "skew"])
def test_what_is_written_lies_for_nibabel_where_it_lay(tmp_path: Path, name: str, affine: NDArray[np.float64]) -> None:
    write_nifti(tmp_path / name, MAP, affine)
    image = loaded(tmp_path / name)
    assert_array_equal(image.get_fdata(), MAP.transpose(2, 1, 0))
    assert_allclose(LPS_RAS @ image.affine, affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == 1
    assert image.get_data_dtype() == np.float32


def test_what_is_written_lies_for_simpleitk_where_it_lay(tmp_path: Path) -> None:
    affine = PLACES[1]
    write_nifti(tmp_path / "map.nii.gz", MAP, affine)
    image = SimpleITK.ReadImage(tmp_path / "map.nii.gz")
    assert_allclose(image.TransformIndexToPhysicalPoint((6, 5, 4)), affine[:3] @ (6, 5, 4, 1), atol=1e-3)
    assert_array_equal(SimpleITK.GetArrayViewFromImage(image), MAP)


def test_what_lies_askew_is_told_by_its_sform_alone_and_no_viewer_lays_it_elsewhere(tmp_path: Path) -> None:
    """As a CT with a tilted gantry lies: the quaternion of a NIfTI cannot say it."""
    affine = np.eye(4)
    affine[:3, :3] = [[0.5, 0, 0], [0, 0.5, np.tan(np.radians(20)) * 3], [0, 0, 3]]
    affine[:3, 3] = -60, -60, -100
    write_nifti(tmp_path / "map.nii.gz", MAP, affine)
    image = loaded(tmp_path / "map.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    assert_allclose(LPS_RAS @ image.affine, affine, atol=1e-4)
    assert_allclose(image.header.get_zooms(), [0.5, 0.5, 3 / np.cos(np.radians(20))], rtol=1e-5)
    # What reads straight axes alone refuses it.
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITK.ReadImage(tmp_path / "map.nii.gz")
    assert read_nifti(tmp_path / "map.nii.gz", modality="CT").geometry.affine is not None


def test_evidence_on_a_volume_is_read_back_on_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii")
    volume = read_nifti(path, modality="CT")
    assert volume.geometry.affine is not None
    write_nifti(tmp_path / "same.nii.gz", volume.read(), volume.geometry.affine)
    again = read_nifti(tmp_path / "same.nii.gz", modality="CT")
    assert_array_equal(again.read(), volume.read())
    assert_allclose(again.geometry.affine, volume.geometry.affine, atol=1e-4)  # type: ignore[arg-type]


def test_planes_may_come_one_after_the_other_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", MAP, PLACES[0])
    write_nifti(tmp_path / "b.nii.gz", (plane.astype(np.float64) for plane in MAP), PLACES[0], shape=MAP.shape)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("fault", [RuntimeError("no more"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_what_was_there_is_kept_where_writing_fails(tmp_path: Path, fault: BaseException) -> None:
    write_nifti(tmp_path / "map.nii.gz", MAP, PLACES[0])
    before = (tmp_path / "map.nii.gz").read_bytes()

    def planes() -> Iterator[NDArray[np.float32]]:
        yield MAP[0]
        raise fault

    expected: type[BaseException] = StorageError if isinstance(fault, OSError) else type(fault)
    with pytest.raises(expected):
        write_nifti(tmp_path / "map.nii.gz", planes(), PLACES[0], shape=MAP.shape)
    assert (tmp_path / "map.nii.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.nii.gz"]


@pytest.mark.parametrize(
    ("values", "shape", "affine"),
    [
        (MAP[0], None, PLACES[0]),
        (MAP, None, np.diag([1.0, 1, 0, 1])),
        (iter(MAP), None, PLACES[0]),
        (iter(MAP), (4, 6, 7), PLACES[0]),
        (iter(MAP), (6, 6, 7), PLACES[0]),
        (iter(MAP), (5, 7, 6), PLACES[0]),
        (iter(MAP), (40_000, 6, 7), PLACES[0]),
    ],
)
def test_values_that_are_not_of_the_shape_are_refused(
    tmp_path: Path, values: Any, shape: tuple[int, ...] | None, affine: NDArray[np.float64]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_nifti(tmp_path / "map.nii", values, affine, shape=shape)
    assert not list(tmp_path.iterdir())
