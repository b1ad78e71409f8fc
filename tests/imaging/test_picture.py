from __future__ import annotations

import contextlib
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from osteoscope.errors import ImageError
from osteoscope.imaging.picture import LARGEST_PIXELS, SMALLEST_SIDE, is_blank, pixel_sha256, read_picture
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROWS, COLUMNS = 40, 48
GREY = (np.add.outer(3 * np.arange(ROWS), 2 * np.arange(COLUMNS)) % 256).astype(np.uint8)
DEEP = (np.add.outer(700 * np.arange(ROWS), 801 * np.arange(COLUMNS)) % 65536).astype(np.uint16)


def saved(path: Path, values: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def values_of(path: Path) -> NDArray[np.float32]:
    values = read_picture(path).read()
    assert values.dtype == np.float32
    assert values.shape[0] == 1
    plane: NDArray[np.float32] = values[0]
    return plane


def start_of_png(columns: int, rows: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


# What comes out


def test_a_picture_is_a_radiograph_of_one_plane_whose_scale_is_unknown(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GREY)
    volume = read_picture(path)
    assert volume.modality == "radiograph"
    assert volume.geometry.shape == (1, ROWS, COLUMNS)
    assert volume.geometry.affine is None
    assert [(source.path, source.sha256) for source in volume.sources] == [(path, sha256_of_file(path))]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("mode", [None, "RGB", "RGBA", "P"])
def test_grey_is_the_same_whatever_it_was_stored_in(tmp_path: Path, name: str, mode: str | None) -> None:
    expected = GREY.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(values_of(saved(tmp_path / name, GREY, mode)), expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    path = saved(tmp_path / "a.tif", GREY, compression=compression)
    np.testing.assert_array_equal(values_of(path), GREY.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_read_as_closely_as_it_was_stored(tmp_path: Path, mode: str) -> None:
    smooth = np.add.outer(3 * np.arange(ROWS), 2 * np.arange(COLUMNS)).astype(np.uint8)
    found = values_of(saved(tmp_path / "a.jpg", smooth, mode, quality=95))
    np.testing.assert_allclose(found, smooth / 255, atol=3 / 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_full_depth(tmp_path: Path, name: str) -> None:
    values = values_of(saved(tmp_path / name, DEEP))
    np.testing.assert_array_equal(np.rint(values.astype(np.float64) * 65535), DEEP)
    assert values[0, 1] == np.float32(801 / 65535)


def test_sixteen_bits_held_in_32_bit_integers_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", DEEP.astype(np.int32))
    np.testing.assert_array_equal(values_of(path), values_of(saved(tmp_path / "b.png", DEEP)))


def test_the_8_bit_and_the_16_bit_form_of_a_picture_agree_to_the_last_bit(tmp_path: Path) -> None:
    every_grey = np.resize(np.arange(256, dtype=np.uint16), (32, 256))
    shallow = saved(tmp_path / "a.png", every_grey.astype(np.uint8))
    deep = saved(tmp_path / "b.png", every_grey * 257)
    np.testing.assert_array_equal(values_of(shallow), values_of(deep))


def test_one_bit_pictures_become_black_and_white(tmp_path: Path) -> None:
    white = np.zeros((ROWS, COLUMNS), dtype=bool)
    white[:, 20:] = True
    np.testing.assert_array_equal(values_of(saved(tmp_path / "a.png", white)), white.astype(np.float32))


def test_colour_becomes_its_luma(tmp_path: Path) -> None:
    colours = np.zeros((ROWS, COLUMNS, 3), dtype=np.uint8)
    colours[:, :16, 0], colours[:, 16:32, 1], colours[:, 32:, 2] = 255, 255, 255
    luma = values_of(saved(tmp_path / "a.png", colours))[0, [0, 16, 32]]
    # ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, rounded to 8 bits.
    np.testing.assert_array_equal(np.rint(luma * 255), [76, 150, 29])


def test_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    inks = np.zeros((ROWS, COLUMNS, 4), dtype=np.uint8)
    inks[:, 24:, 3] = 255
    Image.frombytes("CMYK", (COLUMNS, ROWS), inks.tobytes()).save(tmp_path / "a.jpg", quality=100)
    values = values_of(tmp_path / "a.jpg")
    assert values[:, :16].min() > 0.98
    assert values[:, 32:].max() < 0.02


@pytest.mark.parametrize("channels", ["RGBA", "LA"])
def test_transparency_is_laid_on_black(tmp_path: Path, channels: str) -> None:
    white = np.full((ROWS, COLUMNS), 255, dtype=np.uint8)
    alpha = np.full_like(white, 255)
    alpha[:, :10], alpha[:, 10:20] = 0, 51
    path = saved(tmp_path / "a.png", np.dstack([white] * (len(channels) - 1) + [alpha]))
    np.testing.assert_allclose(values_of(path)[0, [0, 10, 20]], [0, 51 / 255, 1], atol=1e-7)


def test_a_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    white = Image.fromarray(np.full((ROWS, COLUMNS), 255, dtype=np.uint8)).convert("P")
    white.save(tmp_path / "a.png", transparency=white.getpixel((0, 0)))
    assert values_of(tmp_path / "a.png").max() == 0


def test_a_transparent_value_of_16_bits_is_black(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", DEEP, transparency=801)
    expected = values_of(saved(tmp_path / "b.png", DEEP))
    expected[DEEP == 801] = 0
    np.testing.assert_array_equal(values_of(path), expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (6, (0, -1)), (8, (-1, 0))]
)
def test_exif_rotation_is_applied(tmp_path: Path, name: str, orientation: int, corner: tuple[int, int]) -> None:
    # CIPA DC-008: in orientation 6, say, the stored first row is shown as the right side.
    marked = np.zeros((ROWS, COLUMNS), dtype=np.uint8)
    marked[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality: dict[str, Any] = {"quality": 95} if name == "a.jpg" else {}
    path = saved(tmp_path / name, marked, exif=exif.tobytes(), **quality)
    volume = read_picture(path)
    assert volume.geometry.shape == ((1, COLUMNS, ROWS) if orientation in (6, 8) else (1, ROWS, COLUMNS))
    values = volume.read()[0]
    assert values[corner] > 0.98
    assert [values[place] > 0.5 for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))].count(True) == 1


@pytest.mark.parametrize("stored", [GREY, DEEP])
def test_a_tiff_in_which_zero_is_white_is_inverted(tmp_path: Path, stored: NDArray[Any]) -> None:
    plain = saved(tmp_path / "a.tif", stored)
    content = plain.read_bytes()
    # Tag 262, PhotometricInterpretation, SHORT, one value: 1 (black is zero) becomes 0 (white is zero).
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(entry) == 1
    inverted = tmp_path / "b.tif"
    inverted.write_bytes(content.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    np.testing.assert_allclose(values_of(inverted), 1 - values_of(plain), atol=1e-7)


def test_a_constant_picture_is_read_and_known_to_be_blank(tmp_path: Path) -> None:
    values = values_of(saved(tmp_path / "a.png", np.full((ROWS, COLUMNS), 51, dtype=np.uint8)))
    assert values.min() == values.max() == np.float32(0.2)
    assert is_blank(values)
    values[3, 4] += 0.1
    assert not is_blank(values)


def test_nothing_is_decoded_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.jpg", GREY)

    def decode(_picture: ImageFile.ImageFile) -> None:
        msg = "decoded too early"
        raise RuntimeError(msg)

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert read_picture(path).geometry.shape == (1, ROWS, COLUMNS)


def test_many_threads_may_read_at_once(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", DEEP)
    expected = pixel_sha256(values_of(path))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: pixel_sha256(values_of(path)), range(40))) == {expected}


# Equal pixels


def test_equal_pixels_have_one_hash_whatever_file_holds_them(tmp_path: Path) -> None:
    hashes = {pixel_sha256(values_of(saved(tmp_path / name, GREY))) for name in ("a.png", "a.bmp", "a.tif")}
    assert len(hashes) == 1


def test_the_hash_sees_the_lowest_of_16_bits(tmp_path: Path) -> None:
    changed = DEEP.copy()
    changed[5, 5] += 1
    first, second = saved(tmp_path / "a.png", DEEP), saved(tmp_path / "b.png", changed)
    assert pixel_sha256(values_of(first)) != pixel_sha256(values_of(second))


def test_the_hash_sees_the_shape() -> None:
    values = np.zeros((4, 6), dtype=np.float32)
    assert pixel_sha256(values) != pixel_sha256(values.reshape(6, 4))
    assert pixel_sha256(values) == pixel_sha256(values[np.newaxis])


def test_a_hash_of_anything_but_planes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(24,\)"):
        pixel_sha256(np.zeros(24))


# Bad input: each is refused with the file's name and a remedy


def refused(path: Path, match: str) -> None:
    with pytest.raises(ImageError, match=match) as fault:
        read_picture(path).read()
    assert fault.value.path == path
    assert fault.value.remedy


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "missing")
    refused(tmp_path / ("long" * 100), "name too long")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no regular file")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    refused(path, "0 bytes")


def test_a_file_that_is_not_a_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("patient,image,label\n")
    refused(path, "found something else")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    refused(path, "truncated|found something else")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", GREY)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", deny)
    refused(path, "Permission denied")


def test_a_file_of_several_frames_is_refused(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    for name in ("a.tif", "a.png"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        refused(tmp_path / name, "several frames")


def test_a_tiff_of_many_frames_is_refused_at_once(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "one.tif")
    content = bytearray((tmp_path / "one.tif").read_bytes())
    # Directories without entries behind the picture, each of which names the next.
    many = 20_000
    first = len(content) + len(content) % 2
    (start,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[start : start + 2])
    content[start + 2 + 12 * entries : start + 6 + 12 * entries] = struct.pack("<I", first)
    content += b"\0" * (first - len(content))
    content += b"".join(struct.pack("<HI", 0, first + 6 * (n + 1) if n < many - 1 else 0) for n in range(many))
    (tmp_path / "many.tif").write_bytes(content)
    begun = time.process_time()
    refused(tmp_path / "many.tif", "several frames")
    # To count them takes seconds, and four times as long for twice as many.
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("side", [1, SMALLEST_SIDE - 1])
def test_a_tiny_picture_is_refused(tmp_path: Path, side: int) -> None:
    refused(saved(tmp_path / "a.png", np.zeros((side, 400), dtype=np.uint8)), f"found 400 x {side}")


def test_the_smallest_picture_that_is_allowed_is_read(tmp_path: Path) -> None:
    assert values_of(saved(tmp_path / "a.png", GREY[:SMALLEST_SIDE, :SMALLEST_SIDE])).shape == (32, 32)


def with_size_in_header(path: Path, columns: int, rows: int) -> None:
    """Say another size in the header of a picture of ROWS and COLUMNS."""
    stored = {
        ".bmp": (struct.pack("<ii", COLUMNS, ROWS), struct.pack("<ii", columns, rows)),
        ".jpg": (struct.pack(">BHH", 8, ROWS, COLUMNS), struct.pack(">BHH", 8, rows, columns)),
        ".tif": (
            struct.pack("<HHIIHHII", 256, 4, 1, COLUMNS, 257, 4, 1, ROWS),
            struct.pack("<HHIIHHII", 256, 4, 1, columns, 257, 4, 1, rows),
        ),
    }
    old, new = stored[path.suffix]
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(("columns", "rows"), [(20_000, 20_000), (20_001, LARGEST_PIXELS // 20_000)])
def test_a_huge_picture_is_refused_from_its_header(
    tmp_path: Path, columns: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("a.bmp", "a.jpg", "a.tif")]
    for path in paths:
        with_size_in_header(saved(path, GREY), columns, rows)
    as_png = tmp_path / "a.png"
    as_png.write_bytes(start_of_png(columns, rows))
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for path in (*paths, as_png):
        refused(path, f"at most 80 million pixels, found {columns} x {rows}")


def test_a_picture_that_is_far_longer_than_wide_is_refused_since_the_square_round_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(start_of_png(60_000, 40))
    refused(path, "at most 16384 rows and columns of square pixels, found 60000 x 40")


def test_floating_point_is_refused_since_its_white_is_unknown(tmp_path: Path) -> None:
    refused(saved(tmp_path / "a.tif", GREY.astype(np.float32)), "floating point")


def test_values_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    # The brightest of GREY is 117 + 94 = 211.
    refused(saved(tmp_path / "a.tif", GREY.astype(np.int32) + 65400), "from 65400 to 65611")


def test_deep_colour_is_refused_rather_than_halved(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", COLUMNS, ROWS, 16, 2, 0, 0, 0)
    rows = b"".join(b"\x00" + np.repeat(row, 3).astype(">u2").tobytes() for row in DEEP)
    chunks = [header, b"IDAT" + zlib.compress(rows), b"IEND"]
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    refused(path, "16 bits a channel")


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GREY)
    volume = read_picture(path)
    saved(path, 255 - GREY)
    with pytest.raises(ImageError, match="changed"):
        volume.read()
    path.unlink()
    with pytest.raises(ImageError, match="could not be read any more"):
        volume.read()


def test_damaged_bytes_never_raise_anything_but_an_image_fault(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    path = tmp_path / "damaged"
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        intact = np.frombuffer(saved(tmp_path / name, GREY).read_bytes(), dtype=np.uint8)
        for _ in range(60):
            damaged = intact.copy()
            damaged[random.integers(0, min(damaged.size, 300), 3)] = random.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(ImageError):
                values = values_of(path)
                assert 0 <= values.min() <= values.max() <= 1
