"""Evidence laid over a radiograph: a picture at the image's own resolution, with the lesion and what was read or found.

Left stays left and up stays up: row 0 is the top, column 0 the left. Coordinates are continuous image pixels, in which
pixel ``i`` covers ``i`` to ``i + 1``. Needs numpy and pillow only.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from osteoscope.imaging.prepare import Lesion, Square

    FloatArray: TypeAlias = npt.NDArray[np.floating]
    ByteArray: TypeAlias = npt.NDArray[np.uint8]

UNIT = "share of the strongest evidence in this case"
"""What colours stand for."""

_LEAST_SIDE = 512
"""Smaller images are enlarged by a whole factor until their longer side reaches this, in pixels."""
_OPACITY = 0.65
"""Opacity of the strongest evidence; below 1 so that the bone stays visible."""
_ROWS_AT_ONCE = 64
"""Of a picture, that are blended together."""
_INK, _PAPER = (0, 0, 0), (255, 255, 255)
_FOUND = (90, 220, 255)
"""Of the frames round found regions: a light blue, which neither the colour map nor the outline has. Whoever does not
see the hue tells the frames by their dashes."""
_DARK_WIDTH, _LIGHT_WIDTH, _DASH_WIDTH, _DASH_PERIOD = 2.6, 1.1, 1.7, 16
"""Of lines and dashes, in units of `_thin`."""
_DASH_SHARE = 0.6
_FRAME_OPACITY = 0.5
_SMOOTHING = 2
"""Lines are drawn this many times larger and averaged down."""

# Ottosson, "A perceptual color space for image processing" (2020): OKLab to cone responses, and those to linear sRGB.
_OKLAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@functools.cache
def colour_table() -> ByteArray:
    """Compute the colour map: violet through red to amber, equal steps of perceived difference, lightness rising.

    Violet and amber also differ to a colour-blind reader, and amber still shows on white bone.

    Returns
    -------
    ``(256, 3)`` sRGB bytes, weakest evidence first. Read-only.
    """
    path = np.linspace(0, 1, 4096)
    lightness = 0.42 + 0.40 * path
    hue = np.deg2rad(295 + 147 * path)
    chroma = 0.165 + 0.03 * np.sin(np.pi * path)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0, walked[-1], 256)
    lab = np.stack([np.interp(even, walked, lab[:, channel]) for channel in range(3)], axis=1)
    linear = np.clip((lab @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: ByteArray = np.round(255 * srgb).astype(np.uint8)
    table.setflags(write=False)
    return table


def evidence_scale(maps: Iterable[FloatArray]) -> float:
    """Find the strongest positive evidence over all the maps of a case; 0 if none speaks for any class.

    Parameters
    ----------
    maps
        Signed evidence of any shape; what is not finite counts as none.
    """
    return max((float(_positive(signed).max(initial=0.0)) for signed in maps), default=0.0)


def grey_picture(pixels: FloatArray, *, longest: int | None = None) -> Image.Image:
    """Show an image as it is, in grey.

    Parameters
    ----------
    pixels
        ``(rows, columns)`` in 0..1; NaN is black.
    longest
        Reduce by a whole factor until no side is longer, in pixels; None keeps the image's own resolution.

    Returns
    -------
    A picture of mode ``L``; small images are enlarged by a whole factor.
    """
    return Image.fromarray(np.round(255 * _displayed(pixels, longest=longest)).astype(np.uint8))


def overlay_picture(
    pixels: FloatArray,
    evidence: FloatArray,
    *,
    scale: float,
    lesions: Sequence[Lesion] = (),
    square: Square | None = None,
    found: Sequence[Square] = (),
    longest: int | None = None,
) -> Image.Image:
    """Lay the evidence for one class over an image; the stronger it is, the less transparent.

    Parameters
    ----------
    pixels
        ``(rows, columns)`` in 0..1; NaN is black.
    evidence
        ``(rows, columns)``, signed; only its positive part is shown, what is not finite counts as none.
    scale
        The evidence that takes the strongest colour: `evidence_scale` of the case. 0 shows none.
    lesions
        Drawn as a dark and light double line: the outline, or the box where there is none.
    square
        What was read of the image: drawn as a faint frame if it leaves out any of it.
    found
        Regions that were looked at again: each drawn as a dashed frame, light blue on dark, which ends where the image
        does.
    longest
        As in `grey_picture`.

    Returns
    -------
    A picture of mode ``RGB`` of the size that `grey_picture` gives.

    Raises
    ------
    ValueError
        If the two shapes differ, or the scale is negative or not finite.
    """
    if pixels.shape != evidence.shape:
        msg = f"evidence must lie on the image's grid, got {evidence.shape} on {pixels.shape}"
        raise ValueError(msg)
    if not 0 <= scale < math.inf:
        msg = f"scale must be finite and not negative, got {scale}"
        raise ValueError(msg)
    positive = _positive(evidence)
    share = _displayed(positive / scale if scale > 0 else np.zeros_like(positive), longest=longest, smooth=True)
    picture = Image.fromarray(_blend(_displayed(pixels, longest=longest), share))
    enlargement = (picture.width / pixels.shape[1], picture.height / pixels.shape[0])
    if square is not None and leaves_out(square, pixels.shape):
        right, bottom = square.left + square.side, square.top + square.side
        frame = _scaled(_corners(square.left, square.top, right, bottom), enlargement)
        _draw_double_line(picture, frame, opacity=_FRAME_OPACITY)
    for region in found:
        _draw_dashed_frame(picture, region, enlargement)
    for lesion in lesions:
        _draw_double_line(picture, _scaled(_lesion_path(lesion), enlargement))
    return picture


def with_lesions(
    picture: Image.Image, lesions: Iterable[Lesion], enlargement: tuple[float, float], *, width: float = 1.0
) -> Image.Image:
    """Draw lesions over a picture, as `overlay_picture` does; the one that is given stays as it is.

    Parameters
    ----------
    picture
        Of any mode that has grey.
    lesions
        In pixels of the image.
    enlargement
        Width and height of the picture over those of the image.
    width
        Of the lines, in units of those on large pictures.
    """
    drawn = picture.convert("RGB")
    for lesion in lesions:
        _draw_double_line(drawn, _scaled(_lesion_path(lesion), enlargement), width=width)
    return drawn


def leaves_out(square: Square, shape: tuple[int, ...]) -> bool:
    """Tell whether a square leaves out any of an image of this ``(rows, columns)``."""
    rows, columns = shape
    right, bottom = square.left + square.side, square.top + square.side
    return square.left > 0 or square.top > 0 or right < columns or bottom < rows


def with_colour_bar(picture: Image.Image) -> Image.Image:
    """Set the colour bar, with its unit, to the right of an overlay.

    Parameters
    ----------
    picture
        What `overlay_picture` gave; it is left as it is.
    """
    font = ImageFont.load_default(size=13)
    bar = colour_strip(length=240, thickness=16).rotate(90, expand=True)
    height = max(picture.height, bar.height + 40)
    canvas = Image.new("RGB", (picture.width + 110, height), _INK)
    canvas.paste(picture, (0, (height - picture.height) // 2))
    left, top = picture.width + 16, (height - bar.height) // 2
    canvas.paste(bar, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle([(left - 1, top - 1), (left + bar.width, top + bar.height)], outline=(128, 128, 128))
    for share in (0.0, 0.5, 1.0):
        y = top + round((1 - share) * (bar.height - 1))
        draw.line([(left + 16, y), (left + 21, y)], fill=_PAPER)
        draw.text((left + 25, y), f"{100 * share:.0f} %", fill=_PAPER, font=font, anchor="lm")
    words = Image.new("L", (bar.height + 40, 18))
    ImageDraw.Draw(words).text((words.width / 2, 9), UNIT, fill=220, font=font, anchor="mm")
    canvas.paste(_PAPER, (canvas.width - 24, (height - words.width) // 2), words.rotate(90, expand=True))
    return canvas


def colour_strip(*, length: int, thickness: int) -> Image.Image:
    """Draw the colours as they look on the image, weak to strong: above on black, below on bright bone."""
    share = np.tile(np.linspace(0, 1, length), (thickness, 1))
    grey = np.zeros_like(share)
    grey[thickness // 2 :] = 0.85
    return Image.fromarray(_blend(grey, share))


def thumbnail_png(pixels: FloatArray, *, side: int = 96) -> bytes:
    """Make a small PNG for a table: the image whole, no side longer than `side` pixels."""
    small = Image.fromarray(np.asarray(np.nan_to_num(pixels), np.float32))
    ratio = side / max(small.size)
    size = (max(1, round(small.width * ratio)), max(1, round(small.height * ratio)))
    grey = np.clip(np.asarray(small.resize(size, Image.Resampling.LANCZOS)), 0, 1)
    return png_bytes(Image.fromarray(np.round(255 * grey).astype(np.uint8)))


def png_bytes(picture: Image.Image, *, optimise: bool = True) -> bytes:
    """Encode without loss; to optimise takes several times as long, for a tenth of the size."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=optimise)
    return stream.getvalue()


def jpeg_bytes(picture: Image.Image, *, quality: int = 90) -> bytes:
    """Encode small, with full colour resolution, for pages that hold many overlays."""
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()


def _displayed(values: FloatArray, *, longest: int | None, smooth: bool = False) -> FloatArray:
    """Bring values in 0..1 to the size in which they are shown."""
    if values.ndim != 2 or values.size == 0:
        msg = f"expected (rows, columns) with at least one pixel, got {values.shape}"
        raise ValueError(msg)
    image = Image.fromarray(np.asarray(np.nan_to_num(values), np.float32))
    side = max(image.size)
    if longest is not None and side > longest:
        image = image.reduce(math.ceil(side / longest))
    elif side < _LEAST_SIDE:
        factor = math.ceil(_LEAST_SIDE / side)
        how = Image.Resampling.BILINEAR if smooth else Image.Resampling.BICUBIC
        image = image.resize((image.width * factor, image.height * factor), how)
    # Bicubic overshoots at edges.
    shown: FloatArray = np.clip(np.asarray(image), 0, 1)
    return shown


def _positive(signed: FloatArray) -> FloatArray:
    """Keep what speaks for a class."""
    return np.where(np.isfinite(signed) & (signed > 0), signed, 0.0)


def _blend(grey: FloatArray, share: FloatArray) -> ByteArray:
    """Lay colours over grey, both ``(rows, columns)`` in 0..1; returns ``(rows, columns, 3)``."""
    table = colour_table()
    blended = np.empty((*grey.shape, 3), dtype=np.uint8)
    # Strip by strip, since the colours of a whole radiograph in floating point would be what takes the most memory.
    for top in range(0, len(grey), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        colour = table[np.round(share[rows] * (len(table) - 1)).astype(np.intp)]
        opacity = _OPACITY * share[rows, :, None]
        blended[rows] = np.round((1 - opacity) * 255 * grey[rows, :, None] + opacity * colour)
    return blended


def _lesion_path(lesion: Lesion) -> list[tuple[float, float]]:
    """Close the outline of a lesion, or its box where it has no outline."""
    return [*lesion.outline, lesion.outline[0]] if lesion.outline else _corners(*lesion.bounds("box"))


def _corners(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def _scaled(path: Iterable[tuple[float, float]], enlargement: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * enlargement[0], y * enlargement[1]) for x, y in path]


def _draw_double_line(
    picture: Image.Image, path: Sequence[tuple[float, float]], *, opacity: float = 1.0, width: float = 1.0
) -> None:
    """Draw a light line on a wider dark one, so that it is seen on bone and on air."""
    _draw_lines(picture, [path], colour=_INK, width=_DARK_WIDTH * width, opacity=opacity)
    _draw_lines(picture, [path], colour=_PAPER, width=_LIGHT_WIDTH * width, opacity=opacity)


def _draw_dashed_frame(picture: Image.Image, region: Square, enlargement: tuple[float, float]) -> None:
    """Draw a region's light dashes on a wider dark frame; what reaches beyond the picture is drawn along its edge."""
    inset = _DARK_WIDTH * _thin(picture) / 2
    corners = _corners(region.left, region.top, region.left + region.side, region.top + region.side)
    frame = [
        (min(max(x, inset), picture.width - inset), min(max(y, inset), picture.height - inset))
        for x, y in _scaled(corners, enlargement)
    ]
    _draw_lines(picture, [frame], colour=_INK, width=_DARK_WIDTH)
    _draw_lines(picture, _dashes(frame, _DASH_PERIOD * _thin(picture)), colour=_FOUND, width=_DASH_WIDTH)


def _dashes(path: Sequence[tuple[float, float]], period: float) -> list[list[tuple[float, float]]]:
    """Cut a closed path into dashes, about one a `period`, so that one lies round every corner."""
    centres: list[tuple[float, float]] = []
    for start, end in itertools.pairwise(path):
        steps = max(1, round(math.dist(start, end) / period))
        centres.extend(_between(start, end, step / steps) for step in range(steps))
    around = zip([centres[-1], *centres[:-1]], centres, [*centres[1:], centres[0]], strict=True)
    reach = _DASH_SHARE / 2
    return [[_between(at, before, reach), at, _between(at, after, reach)] for before, at, after in around]


def _between(start: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))


def _thin(picture: Image.Image) -> float:
    """Give the unit of line widths, in pixels."""
    return max(1.0, max(picture.size) / 400)


def _draw_lines(
    picture: Image.Image,
    paths: Iterable[Sequence[tuple[float, float]]],
    *,
    colour: tuple[int, int, int],
    width: float,
    opacity: float = 1.0,
) -> None:
    """Draw lines of one colour; `width` is in units of `_thin`."""
    mask = Image.new("L", (picture.width * _SMOOTHING, picture.height * _SMOOTHING))
    draw = ImageDraw.Draw(mask)
    for path in paths:
        draw.line(
            _scaled(path, (_SMOOTHING, _SMOOTHING)),
            fill=round(255 * opacity),
            width=max(1, round(width * _thin(picture) * _SMOOTHING)),
            joint="curve",
        )
    picture.paste(colour, mask=mask.reduce(_SMOOTHING))
