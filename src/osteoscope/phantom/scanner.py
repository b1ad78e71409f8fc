"""How a CT scanner sees: tube voltage, kernel, noise and its texture, slice thickness, beam hardening, contrast.

The models are first-order. Attenuation above that of water scales with the tube voltage by one factor for bone and one
for iodine. The kernel is a point-spread function in the plane, an edge-enhancing one a difference of two Gaussians.
Noise is Gaussian with the power spectrum of filtered back-projection, |f| times the square of the kernel's transfer
function, and is stronger and streaky where much bone lies across. Beam hardening darkens what lies between dense bones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from osteoscope.phantom.distributions import Choice, cut_normal
from osteoscope.phantom.fields import interpolate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator

    from osteoscope.phantom.fields import Field
    from osteoscope.phantom.patients import Centre

Kernel = Literal["soft", "medium", "sharp"]

_BONE: Mapping[int, float] = {80: 1.42, 100: 1.17, 120: 1.0, 140: 0.90}
_IODINE: Mapping[int, float] = {80: 1.62, 100: 1.25, 120: 1.0, 140: 0.84}


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """Settings of one CT.

    Parameters
    ----------
    kilovolt
        Tube voltage: 80, 100, 120 or 140.
    kernel
        Reconstruction kernel.
    noise
        Standard deviation in soft tissue, in HU, for the medium kernel.
    thickness
        Of a slice, and the distance to the next, in mm.
    field_of_view
        Side of a square slice in mm.
    contrast
        How far contrast has gone: 0 plain, 1 portal venous phase.
    """

    kilovolt: int
    kernel: Kernel
    noise: float
    thickness: float
    field_of_view: float
    contrast: float

    def __post_init__(self) -> None:
        if self.kilovolt not in _BONE or self.kernel not in _KERNELS:
            msg = (
                f"expected 80, 100, 120 or 140 kV and one of {list(_KERNELS)}, got {self.kilovolt} and {self.kernel!r}"
            )
            raise ValueError(msg)
        if min(self.thickness, self.field_of_view) <= 0 or self.noise < 0:
            msg = f"expected a positive thickness and field of view and no negative noise, got {self}"
            raise ValueError(msg)

    @property
    def bone(self) -> float:
        """Factor of the HU of bone against 120 kV."""
        return _BONE[self.kilovolt]

    @property
    def iodine(self) -> float:
        """Factor of what contrast adds in the portal venous phase at 120 kV."""
        return self.contrast * _IODINE[self.kilovolt]


@dataclass(frozen=True)
class _PointSpread:
    """A Gaussian of `sigma` mm, sharpened by `gain` against one of `wide` mm; and what noise of 1 becomes."""

    sigma: float
    gain: float
    wide: float
    noise: float


_KERNELS: Mapping[Kernel, _PointSpread] = {
    "soft": _PointSpread(0.62, 0.0, 1.2, 0.75),
    "medium": _PointSpread(0.50, 0.15, 1.1, 1.0),
    "sharp": _PointSpread(0.38, 0.35, 0.95, 1.9),
}


@dataclass(frozen=True, kw_only=True)
class _Habits:
    kilovolt: Choice[int]
    kernel: Choice[Kernel]
    noise: tuple[float, float]
    thickness: Choice[float]
    field_of_view: Choice[float]
    contrast: float


_CENTRES: Mapping[Centre, _Habits] = {
    "A": _Habits(
        kilovolt=Choice(((120, 1.0),)),
        kernel=Choice((("medium", 0.8), ("soft", 0.2))),
        noise=(13, 3),
        thickness=Choice(((3.0, 1.0),)),
        field_of_view=Choice(((180.0, 1.0),)),
        contrast=0.4,
    ),
    "B": _Habits(
        kilovolt=Choice(((100, 0.6), (120, 0.4))),
        kernel=Choice((("soft", 0.7), ("medium", 0.3))),
        noise=(16, 4),
        thickness=Choice(((3.0, 0.5), (4.0, 0.5))),
        field_of_view=Choice(((180.0, 0.5), (200.0, 0.5))),
        contrast=0.65,
    ),
    "C": _Habits(
        kilovolt=Choice(((120, 0.5), (140, 0.5))),
        kernel=Choice((("sharp", 0.7), ("medium", 0.3))),
        noise=(15, 4),
        thickness=Choice(((4.0, 0.5), (5.0, 0.5))),
        field_of_view=Choice(((200.0, 0.6), (220.0, 0.4))),
        contrast=0.25,
    ),
}


def draw_acquisition(centre: Centre, rng: Generator) -> Acquisition:
    """Draw the settings of one CT at a centre."""
    habits = _CENTRES[centre]
    mean, sd = habits.noise
    return Acquisition(
        kilovolt=habits.kilovolt.draw(rng),
        kernel=habits.kernel.draw(rng),
        noise=cut_normal(mean, sd, 6, 30).draw(rng),
        thickness=habits.thickness.draw(rng),
        field_of_view=habits.field_of_view.draw(rng),
        contrast=float(rng.uniform(0.8, 1.1)) if rng.random() < habits.contrast else 0.0,
    )


def blur(values: Field, acquisition: Acquisition, pixel: float) -> Field:
    """Apply the kernel's point-spread function in the plane; it reaches 4 standard deviations and not further.

    Parameters
    ----------
    values
        HU, ``(planes, rows, columns)``.
    acquisition
        Whose kernel to use.
    pixel
        Width of a pixel in mm.
    """
    spread = _KERNELS[acquisition.kernel]
    sharp = _in_plane(values, spread.sigma / pixel)
    if spread.gain == 0:
        return sharp
    wide = _in_plane(values, spread.wide / pixel)
    blurred: Field = sharp + np.float32(spread.gain) * (sharp - wide)
    return blurred


def _in_plane(values: Field, sigma: float) -> Field:
    rows = gaussian_filter1d(values, sigma, axis=1, mode="nearest")
    return np.asarray(gaussian_filter1d(rows, sigma, axis=2, mode="nearest"))


def scanner_noise(rng: Generator, bone: Field, acquisition: Acquisition, pixel: float) -> Field:
    """Draw noise in HU.

    Parameters
    ----------
    rng
        Source of the noise.
    bone
        HU of bone above soft tissue, ``(planes, rows, columns)``; where much lies in a row, noise is stronger there.
    acquisition
        Noise level, kernel and thickness; noise falls with the square root of the thickness.
    pixel
        Width of a pixel in mm.
    """
    planes, rows, columns = bone.shape
    spread = _KERNELS[acquisition.kernel]
    down, across = fft.fftfreq(rows, pixel)[:, None], fft.rfftfreq(columns, pixel)[None, :]
    squared = down * down + across * across
    transfer = np.exp(-2 * (np.pi * spread.sigma) ** 2 * squared)
    transfer = transfer + spread.gain * (transfer - np.exp(-2 * (np.pi * spread.wide) ** 2 * squared))
    weight = np.sqrt(np.sqrt(squared)) * transfer
    streaky = np.exp(-0.5 * (across / 0.045) ** 2) * weight
    load = _load(bone)
    result = np.empty(bone.shape, np.float32)
    level = np.float32(acquisition.noise * spread.noise * np.sqrt(3.0 / acquisition.thickness))
    gains = [(part / np.sqrt(_mean_square(part, columns))).astype(np.float32) for part in (weight, streaky)]
    for plane in range(planes):
        white = fft.rfft2(rng.standard_normal((rows, columns), dtype=np.float32))
        fine, streaks = (fft.irfft2(white * gain, (rows, columns)) for gain in gains)
        result[plane] = level * (fine * (1 + np.float32(0.5) * load[plane]) + np.float32(0.6) * streaks * load[plane])
    return result


def _mean_square(part: np.ndarray, columns: int) -> float:
    """Mean square over the whole spectrum, of which only half the columns are kept."""
    twice = np.full(part.shape[1], 2.0)
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    return float((part**2 * twice).sum() / (part.shape[0] * columns))


def _load(bone: Field) -> Field:
    """How much bone lies in a row, from 0 to about 1, smoothly over rows: ``(planes, rows, 1)``."""
    load = gaussian_filter(bone.mean(axis=2), (1.0, 6.0)) / np.float32(150)
    return np.asarray(np.minimum(load, 1.0), np.float32)[:, :, None]


def beam_hardening(bone: Field, pixel: float) -> Field:
    """HU that are missing near and between dense bones, about 10 in the canal: ``(planes, rows, columns)``."""
    coarse = bone[:, ::4, ::4]
    wide = gaussian_filter(coarse, (0.5, 9 / (4 * pixel), 16 / (4 * pixel)), mode="nearest")
    near = gaussian_filter(coarse, (0.5, 4 / (4 * pixel), 5 / (4 * pixel)), mode="nearest")
    dark = np.float32(-0.045) * np.clip(wide - np.float32(0.25) * near, 0, 400)
    return interpolate(dark, (1, 4, 4), bone.shape)
