"""What may be wrong with a radiograph, at a stated strength, to see how long an answer stays what it was.

A disturbance changes the decoded image before it is prepared, and moves the annotated lesions with what they mark. At
strength 0 it changes nothing. What is random (the grain, to which side an image turns) depends on a seed and on the
image, not on the strength nor on the order of the images, so that a sweep over strengths is one image getting worse.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from osteoscope.imaging.prepare import Box, Point


@dataclass(frozen=True, kw_only=True, eq=False)
class Radiograph:
    """Pixels with what is annotated in them."""

    pixels: NDArray[np.float32]
    """``(rows, columns)``, 0..1."""
    lesions: tuple[Lesion, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def lesion_bounds(self) -> Box | None:
        """Box round all lesions together; None where none is annotated."""
        if not self.lesions:
            return None
        corners = np.array([lesion.bounds("outline") for lesion in self.lesions])
        left, top = corners[:, :2].min(axis=0).tolist()
        right, bottom = corners[:, 2:].max(axis=0).tolist()
        return left, top, right, bottom


@dataclass(frozen=True, kw_only=True, eq=False)
class Disturbance:
    """One thing that may be wrong with an image."""

    name: str
    what: str
    """What is done to an image, as a sentence."""
    unit: str
    """Of the strength, as a phrase."""
    strengths: tuple[float, ...]
    """Those of a sweep, from weak to strong; 0, which changes nothing, is not among them."""
    apply: Callable[[Radiograph, float, np.random.Generator], Radiograph]


def disturb(image: Radiograph, disturbance: Disturbance, strength: float, *, key: str, seed: int = 0) -> Radiograph:
    """Disturb an image.

    Parameters
    ----------
    image
        As decoded.
    disturbance
        One of `DISTURBANCES`.
    strength
        In the disturbance's unit; 0 gives the image back.
    key
        What tells this image from others, such as the hash of its pixels.
    seed
        Another seed, another grain.

    Raises
    ------
    ValueError
        If the strength is negative or not finite.
    """
    if not (math.isfinite(strength) and strength >= 0):
        msg = f"expected a strength of 0 or more, got {strength}"
        raise ValueError(msg)
    if strength == 0:
        return image
    digest = hashlib.sha256(f"{seed} {disturbance.name} {key}".encode()).digest()
    return disturbance.apply(image, strength, np.random.default_rng(int.from_bytes(digest[:8], "little")))


# Grey values ----------------------------------------------------------------------------------------------------------


def _noise(image: Radiograph, strength: float, generator: np.random.Generator) -> Radiograph:
    grain = generator.standard_normal(image.shape, dtype=np.float32)
    return _with_pixels(image, image.pixels + np.float32(strength) * grain)


def _contrast(image: Radiograph, strength: float, _generator: np.random.Generator) -> Radiograph:
    """Raise the contrast about the mean, until black and white swallow what lies beyond them.

    Lowering it would show nothing: the network standardises what it reads.
    """
    mean = image.pixels.mean(dtype=np.float64)
    return _with_pixels(image, mean + (image.pixels - mean) * 2**strength)


def _gamma(image: Radiograph, strength: float, generator: np.random.Generator) -> Radiograph:
    return _with_pixels(image, image.pixels ** math.exp(_sign(generator) * strength))


def _with_pixels(image: Radiograph, pixels: NDArray[np.floating]) -> Radiograph:
    return dataclasses.replace(image, pixels=np.clip(pixels, 0, 1).astype(np.float32))


# Sharpness ------------------------------------------------------------------------------------------------------------


def _blur(image: Radiograph, strength: float, _generator: np.random.Generator) -> Radiograph:
    """Convolve with a Gaussian, rows then columns; the outermost pixels go on beyond the edge."""
    deviation = strength / 100 * max(image.shape)
    reach = max(1, math.ceil(4 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    blurred = image.pixels.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(blurred, [(reach, reach) if axis == a else (0, 0) for a in (0, 1)], mode="edge")
        count = blurred.shape[axis]
        blurred = sum(
            weight * padded.take(range(start, start + count), axis=axis) for start, weight in enumerate(weights)
        )
    return _with_pixels(image, blurred)


def _resolution(image: Radiograph, strength: float, _generator: np.random.Generator) -> Radiograph:
    """Store the image with fewer pixels, and enlarge it again to the size that it had."""
    rows, columns = image.shape
    fewer = (max(1, round(columns / 2**strength)), max(1, round(rows / 2**strength)))
    small = Image.fromarray(image.pixels).resize(fewer, Image.Resampling.BOX)
    return _with_pixels(image, np.asarray(small.resize((columns, rows), Image.Resampling.BILINEAR)))


# Place ----------------------------------------------------------------------------------------------------------------


def _rotation(image: Radiograph, strength: float, generator: np.random.Generator) -> Radiograph:
    """Turn the image about its lesions' centre, or its own where it has none, so that no lesion is turned out of it.

    The picture keeps its size; its mean fills the corners, so that they show nothing of their own.
    """
    rows, columns = image.shape
    left, top, right, bottom = image.lesion_bounds() or (0.0, 0.0, columns, rows)
    centre = ((left + right) / 2, (top + bottom) / 2)
    degrees = _sign(generator) * strength
    turned = Image.fromarray(image.pixels).rotate(
        degrees, Image.Resampling.BILINEAR, center=centre, fillcolor=float(image.pixels.mean(dtype=np.float64))
    )
    lesions = tuple(_turned(lesion, centre, math.radians(degrees)) for lesion in image.lesions)
    return dataclasses.replace(_with_pixels(image, np.asarray(turned)), lesions=lesions)


def _turned(lesion: Lesion, centre: Point, angle: float) -> Lesion:
    """Turn a lesion anticlockwise, as it is seen, by an angle in radians.

    A box is drawn anew round the turned lesion: round its outline, or, where there is none, round the turned ellipse
    that the box held.
    """
    cosine, sine = math.cos(angle), math.sin(angle)

    def turned(x: float, y: float) -> Point:
        right, down = x - centre[0], y - centre[1]
        return centre[0] + cosine * right + sine * down, centre[1] - sine * right + cosine * down

    outline = tuple(turned(x, y) for x, y in lesion.outline)
    if lesion.box is None or outline:
        box = None if lesion.box is None else Lesion(outline=outline).bounds("outline")
        return Lesion(box=box, outline=outline)
    left, top, right, bottom = lesion.box
    x, y = turned((left + right) / 2, (top + bottom) / 2)
    half_width = math.hypot(cosine * (right - left), sine * (bottom - top)) / 2
    half_height = math.hypot(sine * (right - left), cosine * (bottom - top)) / 2
    return Lesion(box=(x - half_width, y - half_height, x + half_width, y + half_height))


def _shift(image: Radiograph, strength: float, generator: np.random.Generator) -> Radiograph:
    """Move what is shown by whole pixels in a random direction, as far as every lesion stays in the picture.

    The mean fills what is laid bare.
    """
    rows, columns = image.shape
    angle = generator.uniform(0, 2 * math.pi)
    left, top, right, bottom = image.lesion_bounds() or (math.inf, math.inf, -math.inf, -math.inf)
    dx = _within(round(strength / 100 * columns * math.cos(angle)), before=left, after=columns - right)
    dy = _within(round(strength / 100 * rows * math.sin(angle)), before=top, after=rows - bottom)
    moved = np.full(image.shape, image.pixels.mean(dtype=np.float64), dtype=np.float32)
    moved[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)] = image.pixels[
        max(-dy, 0) : rows - max(dy, 0), max(-dx, 0) : columns - max(dx, 0)
    ]
    lesions = tuple(_moved(lesion, dx, dy) for lesion in image.lesions)
    return Radiograph(pixels=moved, lesions=lesions)


def _within(step: int, *, before: float, after: float) -> int:
    """Shorten a step to the room that there is before and after."""
    return int(max(min(step, max(after, 0)), -max(before, 0)))


def _moved(lesion: Lesion, dx: float, dy: float) -> Lesion:
    box = None
    if lesion.box is not None:
        left, top, right, bottom = lesion.box
        box = (left + dx, top + dy, right + dx, bottom + dy)
    return Lesion(box=box, outline=tuple((x + dx, y + dy) for x, y in lesion.outline))


def _borders(image: Radiograph, strength: float, _generator: np.random.Generator) -> Radiograph:
    """Black out a share of each side, as a narrower collimation would, as far as every lesion stays open."""
    rows, columns = image.shape
    left, top, right, bottom = image.lesion_bounds() or (columns, rows, 0.0, 0.0)
    wide, high = round(strength / 100 * columns), round(strength / 100 * rows)
    first_column, last_column = min(wide, max(0, math.floor(left))), max(columns - wide, math.ceil(right))
    first_row, last_row = min(high, max(0, math.floor(top))), max(rows - high, math.ceil(bottom))
    pixels = np.zeros(image.shape, dtype=np.float32)
    field = (slice(first_row, last_row), slice(first_column, last_column))
    pixels[field] = image.pixels[field]
    return dataclasses.replace(image, pixels=pixels)


def _sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


# What there is --------------------------------------------------------------------------------------------------------


DISTURBANCES: Mapping[str, Disturbance] = {
    one.name: one
    for one in (
        Disturbance(
            name="noise",
            what="Gaussian grain is added to every pixel, 0 to 1; the strength is its standard deviation.",
            unit="SD, share of grey range",
            strengths=(0.02, 0.05, 0.1, 0.2),
            apply=_noise,
        ),
        Disturbance(
            name="blur",
            what="The image is convolved with a Gaussian; the strength is its standard deviation.",
            unit="SD, % of the longer side",
            strengths=(0.25, 0.5, 1.0, 2.0),
            apply=_blur,
        ),
        Disturbance(
            name="contrast",
            what="Grey values are stretched about their mean until black and white swallow what lies beyond.",
            unit="doublings",
            strengths=(0.5, 1.0, 1.5, 2.0),
            apply=_contrast,
        ),
        Disturbance(
            name="gamma",
            what="Grey values, 0 to 1, are raised to the power γ, above or below 1 by image: they darken or brighten.",
            unit="|ln γ|",
            strengths=(0.2, 0.4, 0.7, 1.0),
            apply=_gamma,
        ),
        Disturbance(
            name="rotation",
            what="The image is turned, to either side by image, about its lesions, or its own centre without any.",
            unit="degrees",
            strengths=(5.0, 10.0, 20.0, 40.0),
            apply=_rotation,
        ),
        Disturbance(
            name="shift",
            what="What is shown is moved, in a direction by image, as far as every annotated lesion stays in view.",
            unit="% of the side",
            strengths=(5.0, 10.0, 20.0, 30.0),
            apply=_shift,
        ),
        Disturbance(
            name="resolution",
            what="The image is stored with fewer pixels along each side, and enlarged again.",
            unit="halvings of a side",
            strengths=(0.5, 1.0, 2.0, 3.0),
            apply=_resolution,
        ),
        Disturbance(
            name="borders",
            what="A frame becomes black, as by a narrower collimation, as far as every annotated lesion stays open.",
            unit="% of each side",
            strengths=(2.5, 5.0, 10.0, 20.0),
            apply=_borders,
        ),
    )
}
"""By name, in the order in which a sweep goes through them."""
