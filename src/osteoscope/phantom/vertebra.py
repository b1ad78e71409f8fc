"""The shape of a vertebra and of the sacrum in a frame of their own: distances in mm, negative in bone.

The frame's origin is the centre of the body (of S1 in the sacrum); z points to the head, y to the back, x to the left.
Sizes are the published ones for adults (Panjabi et al., Spine 1991 and 1992; L5: height 30.3 mm in front, 26.3 behind,
length 35.7, width of the pedicle 16.1, canal 15.6 x 28.2 mm), between which other levels are interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.phantom.fields import (
    Field,
    Lattice,
    capsule,
    ellipsoid,
    noise,
    smooth_maximum,
    smooth_minimum,
)
from osteoscope.phantom.patients import VERTEBRAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Level

COLUMN = tuple(name for level in VERTEBRAE.values() for name in level if not name.startswith("S"))
"""Names from C3 to L5."""

GRAIN = 1.1
"""Distance in mm between the places at which a shape is kept; between them it is interpolated."""


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Sizes of a vertebra in mm.

    Parameters
    ----------
    width, depth
        Of the body, from side to side and from front to back.
    front, back
        Height of the body there.
    pedicle, pedicle_height
        Width and height of a pedicle.
    canal_width, canal_depth
        Of the spinal canal.
    spinous, spinous_drop, spinous_height
        Length of the spinous process behind the canal, how far its tip hangs down, and its height.
    span, sweep
        Distance of the tip of a transverse process from the midline, and how far behind the pedicle it lies.
    disc
        Height of the disc below.
    """

    width: float
    depth: float
    front: float
    back: float
    pedicle: float
    pedicle_height: float
    canal_width: float
    canal_depth: float
    spinous: float
    spinous_drop: float
    spinous_height: float
    span: float
    sweep: float
    disc: float

    @property
    def canal_centre(self) -> float:
        """Of the canal, behind the centre of the body."""
        return 0.5 * self.depth + 0.5 * self.canal_depth - 0.5


_KNOWN = [COLUMN.index(name) for name in ("C3", "C7", "T1", "T4", "T9", "T12", "L1", "L3", "L5")]
_TABLE: Mapping[str, tuple[float, ...]] = {
    "width": (18, 21.5, 26, 25, 30, 38, 41, 45, 49),
    "depth": (15.5, 17, 18, 23, 28.5, 31, 32, 34, 35.7),
    "front": (13, 13.5, 15.5, 17.5, 18.8, 22.5, 25, 28, 30.3),
    "back": (13, 14, 16, 18.5, 20.5, 24.5, 27, 28, 26.3),
    "pedicle": (5.5, 6.5, 9.3, 4.5, 6.5, 8.3, 8.7, 10.5, 16.1),
    "pedicle_height": (7, 7.5, 9, 11, 14, 16, 15.5, 15, 14),
    "canal_width": (24, 23.5, 20, 17, 18, 21.5, 23, 23.5, 28.2),
    "canal_depth": (15, 15, 15.5, 16, 16, 17, 17, 16, 15.6),
    "spinous": (14, 30, 32, 30, 28, 24, 29, 30, 23),
    "spinous_drop": (5, 9, 14, 30, 32, 12, 6, 6, 6),
    "spinous_height": (5, 8, 9, 9, 10, 16, 21, 23, 15),
    "span": (25, 30, 36, 32, 30, 24, 38, 45, 45),
    "sweep": (0, 4, 10, 19, 21, 12, 7, 5, 3),
    "disc": (5, 5.5, 4.5, 4, 5, 7, 8.5, 10.5, 11),
}


def dimensions(vertebra: str, scale: float = 1.0) -> Dimensions:
    """Sizes of a vertebra of the mobile spine, of a patient who is `scale` times as large as the mean."""
    at = COLUMN.index(vertebra)
    return Dimensions(
        **{field.name: scale * float(np.interp(at, _KNOWN, _TABLE[field.name])) for field in fields(Dimensions)}
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """A bone in its own frame.

    Parameters
    ----------
    lattice
        Places at which the distance is known.
    distance
        To the bone's surface.
    """

    lattice: Lattice
    distance: Field


def level_of(vertebra: str) -> Level:
    """Region that a vertebra belongs to."""
    return next(level for level, names in VERTEBRAE.items() if vertebra in names)


def shape_vertebra(rng: Generator, level: Level, size: Dimensions, collapse: float = 0.0, wedge: float = 0.5) -> Shape:
    """Shape a vertebra; a collapse lowers its body, in front by the full share, behind by `wedge` of it."""
    lattice = _lattice(size)
    place = _waver(rng, lattice, 0.7)
    body = _body(place, level, size, collapse, wedge)
    arch = _arch(place, level, size)
    _, y, x = place
    canal = _ellipse(y - np.float32(size.canal_centre), x, 0.5 * size.canal_depth, 0.5 * size.canal_width)
    arch = smooth_maximum(arch, -canal, 1.0)
    distance = smooth_minimum(body, arch, 3.0)
    if level == "cervical":
        foramen = np.hypot(np.abs(x) - np.float32(0.5 * size.canal_width + 3.5), y - np.float32(0.25 * size.depth)) - 3
        distance = smooth_maximum(distance, -foramen, 1.0)
    return Shape(lattice=lattice, distance=distance)


def _lattice(size: Dimensions) -> Lattice:
    side = max(size.span, size.width / 2) + 6
    behind = size.canal_centre + size.canal_depth / 2 + size.spinous + 8
    below = max(size.spinous_drop + size.spinous_height, size.back) + 6
    return Lattice(
        z=np.arange(-below, size.back * 0.5 + 18, GRAIN),
        y=np.arange(-size.depth / 2 - 6, behind, GRAIN),
        x=np.arange(-side, side + GRAIN, GRAIN),
    )


def _waver(rng: Generator, lattice: Lattice, amplitude: float) -> tuple[Field, Field, Field]:
    """Coordinates that are bent a little, so that no two bones are alike and none is symmetric."""
    z, y, x = lattice.open()
    bent = [np.float32(amplitude) * noise(rng, lattice, (12, 12, 12)) for _ in range(3)]
    return z + bent[0], y + bent[1], x + bent[2]


def _ellipse(y: Field, x: Field, half_y: float, half_x: float) -> Field:
    """Distance to an ellipse along the ray from its centre."""
    ray = np.sqrt(y * y + x * x + np.float32(1e-6))
    size = np.sqrt((y * np.float32(1 / half_y)) ** 2 + (x * np.float32(1 / half_x)) ** 2 + np.float32(1e-9))
    distance: Field = ray * (1 - 1 / size)
    return distance


def _body(place: tuple[Field, Field, Field], level: Level, size: Dimensions, collapse: float, wedge: float) -> Field:
    z, y, x = place
    half_depth, half_width = 0.5 * size.depth, 0.5 * size.width
    front, back = size.front * (1 - collapse), size.back * (1 - wedge * collapse)
    narrow = {"cervical": 0.0, "thoracic": 0.16, "lumbar": 0.02, "sacral": 0.0}[level]
    wide_x = x / (1 + np.float32(narrow / half_depth) * y)
    ray = np.sqrt(y * y + wide_x * wide_x + np.float32(1e-4))
    u, v = np.abs(y) * np.float32(1 / half_depth), np.abs(wide_x) * np.float32(1 / half_width)
    outline = np.sqrt(np.sqrt((u * u) ** 1.25 + (v * v) ** 1.25) + np.float32(1e-4))  # 1 on the rim, exponent 2.5
    outline **= np.float32(1.6)
    half_height = np.float32(0.25 * (front + back)) + y * np.float32(0.5 * (back - front) / size.depth)
    height = np.clip(z / half_height, -1, 1)
    waist = np.float32(1 - 0.09) + np.float32(0.09 + 0.10 * collapse) * np.where(
        np.float32(collapse) > 0, 1 - 0.6 * height * height, height * height
    )
    side = ray * (1 - waist / outline)
    hollow = np.float32(0.075 * size.back + 3.0 * collapse)
    dip = hollow * np.clip(1 - (outline / np.float32(0.88)) ** 2, 0, 1)
    uncus = (
        np.float32(3.2) * np.clip(v - np.float32(0.6), 0, 1) * np.float32(2.5) if level == "cervical" else np.float32(0)
    )
    top = z - (half_height - dip + uncus)
    bottom = -z - (half_height - dip * np.float32(0.8))
    body = smooth_maximum(side, smooth_maximum(top, bottom, 0.5), 2.2)
    dent = _ellipse(
        y - np.float32(size.canal_centre + 1.5), x, 0.5 * size.canal_depth + 2.5, 0.5 * size.canal_width + 2
    )
    return smooth_maximum(body, -dent, 1.5)


@dataclass(frozen=True, kw_only=True)
class _ArchPlan:
    """Where the parts of the arch lie, in mm from the pedicle's centre or, in y, from the canal's centre."""

    pedicle_up: float
    lamina: float
    lamina_thickness: float
    upper: tuple[float, float, float, float]  # z, y, x of the tip of the superior articular process, and its radius
    lower: tuple[float, float, float, float]  # the same of the inferior one
    rod: tuple[float, float]  # radii of the transverse process at its root and tip
    flat: float


_ARCH: Mapping[Level, _ArchPlan] = {
    "cervical": _ArchPlan(
        pedicle_up=0, lamina=10, lamina_thickness=3.6,
        upper=(7, -2, 3.5, 5), lower=(-8.5, 3.5, 3.5, 5), rod=(3.2, 2.6), flat=1,
    ),
    "thoracic": _ArchPlan(
        pedicle_up=3.5, lamina=19, lamina_thickness=5.5,
        upper=(9.5, 4, 0, 3.8), lower=(-17, 9, -1, 3.8), rod=(5, 4.2), flat=1,
    ),
    "lumbar": _ArchPlan(
        pedicle_up=4.5, lamina=17, lamina_thickness=6,
        upper=(13, 4.5, 4.5, 5.0), lower=(-25, 11, -1.5, 5.2), rod=(4.6, 3), flat=1.5,
    ),
}  # fmt: skip


def _arch(place: tuple[Field, Field, Field], level: Level, size: Dimensions) -> Field:
    z, y, x = place
    plan = _ARCH[level]
    side: tuple[Field, Field, Field] = (z, y, np.abs(x))
    middle, up = size.canal_centre, plan.pedicle_up
    out = 0.5 * size.canal_width + 0.5 * size.pedicle
    pedicle = capsule(
        side, (up, 0.5 * size.depth - 8, out - 1.5), (up, middle + 2, out), (0.5 * size.pedicle_height,) * 2,
        (1, 1, max(1.0, size.pedicle_height / size.pedicle)),
    )  # fmt: skip
    tip_z, tip_y, tip_x, radius = plan.upper
    upper = capsule(
        side, (up - 2, middle + 2, out), (up + tip_z, middle + tip_y, out + tip_x), (4.5, radius), (1, 1, 1.1)
    )
    back = middle + 0.5 * size.canal_depth + 0.5 * plan.lamina_thickness
    low_z, low_y, low_x, radius = plan.lower
    lower = capsule(
        side, (up - 4, middle + 4, out - 1), (low_z, middle + low_y, out + low_x), (4.2, radius), (1, 1, 1.1)
    )
    arch = smooth_minimum(smooth_minimum(pedicle, upper, 3), lower, 3)
    arch = smooth_minimum(arch, _lamina(side, (middle + 3, out), back, plan), 2.5)
    arch = smooth_minimum(arch, _spinous(place, back, size), 3)
    root = middle - 1.0 if level != "cervical" else 0.25 * size.depth
    transverse = capsule(
        side, (up - 1, root, out), (up - 2, root + size.sweep, size.span - 3), plan.rod, (1, plan.flat, 1)
    )
    return smooth_minimum(arch, transverse, 2.5)


def _lamina(side: tuple[Field, Field, Field], pillar: tuple[float, float], back: float, plan: _ArchPlan) -> Field:
    """Shape a plate from the articular pillar to the midline, leaning back towards its lower edge."""
    z, y, x = side
    lean = np.float32(-0.15) * (z + 3)
    plate = capsule((z * 0, y - lean, x), (0, *pillar), (0, back, 0), (plan.lamina_thickness / 2,) * 2)
    return smooth_maximum(plate, np.abs(z + np.float32(3)) - np.float32(plan.lamina / 2), 2.0)


def _spinous(place: tuple[Field, Field, Field], back: float, size: Dimensions) -> Field:
    z, y, x = place
    along = np.clip((y - np.float32(back)) * np.float32(1 / size.spinous), 0, 1)
    thickness = np.float32(2.6) + np.float32(1.6) * along * along
    blade = capsule(
        (z, y, x * 0), (-4, back, 0), (-4 - size.spinous_drop, back + size.spinous - 4, 0),
        (0.5 * size.spinous_height, 0.5 * size.spinous_height),
    )  # fmt: skip
    return smooth_maximum(blade, np.abs(x) - thickness, 2.5)


SACRAL_HEIGHTS = (29.0, 25.0, 21.0, 18.0, 16.0)
"""Heights of S1 to S5 in mm."""


def shape_sacrum(rng: Generator, scale: float) -> Shape:
    """Shape a sacrum: fused bodies that curve backwards, alae, a median crest, a canal, four pairs of foramina."""
    lattice = Lattice(
        z=np.arange(-118, 26, GRAIN) * scale, y=np.arange(-30, 62, GRAIN) * scale, x=np.arange(-66, 66, GRAIN) * scale
    )
    z, y, x = (field * np.float32(1 / scale) for field in _waver(rng, lattice, 0.9))
    aside = np.abs(x)
    down = np.clip(np.float32(15) - z, 0, None)
    bend = np.float32(0.0052) * (np.clip(down - 25, 0, None) ** 2) * np.float32(0.55) - np.float32(0.02) * down
    heights = lattice.z / scale
    depth = _sacral_depth(heights)
    half_body = _table(heights, (-110, -60, -20, 20), (9, 13, 19, 25))
    body = np.sqrt((aside / half_body) ** 2 + ((y - bend) / (0.5 * depth)) ** 2 + np.float32(1e-6))
    body = (body - 1) * np.minimum(half_body, 0.5 * depth)
    for level, half in ((-15, 16), (-41, 12), (-63, 8)):  # what is left of the discs
        remnant = ellipsoid((z, y - bend, aside), (level, 0, 0), (1.7, half * 0.6, half))
        body = np.maximum(body, -remnant)
    body = smooth_maximum(body, z - np.float32(14.5) + np.float32(2) * np.clip(1 - (aside / 22) ** 2, 0, 1), 2)
    behind = smooth_minimum(_ala((z, y, aside), bend, heights), _sacral_back((z, y, x), bend, heights), 4)
    canal = _ellipse(y - bend - np.float32(0.5) * depth - np.float32(5), x, 6.0, 13.0)
    canal = np.maximum(canal, -z - np.float32(88))
    whole = smooth_maximum(smooth_minimum(body, behind, 4), -canal, 1.5)
    whole = smooth_maximum(whole, -_foramina(z, aside), 2)
    whole = smooth_maximum(whole, -z - np.float32(112), 3)
    return Shape(lattice=lattice, distance=whole * np.float32(scale))


def _table(heights: NDArray[np.float64], known: tuple[float, ...], values: tuple[float, ...]) -> Field:
    """Interpolate over heights what then broadcasts over planes."""
    return np.interp(heights, known, values).astype(np.float32)[:, None, None]


def _sacral_depth(heights: NDArray[np.float64]) -> Field:
    """Depth of the sacral bodies from front to back."""
    return _table(heights, (-110, -80, -40, -15, 20), (8, 12, 20, 31, 33))


def _ala(place: tuple[Field, Field, Field], bend: Field, heights: NDArray[np.float64]) -> Field:
    z, y, aside = place
    half = _table(heights, (-110, -85, -62, -40, -10, 10, 16), (10, 14, 26, 44, 55, 55, 52))
    thick = _table(heights, (-110, -70, -40, -10, 16), (6, 12, 19, 25, 24))
    middle = bend + np.float32(4) + np.float32(0.20) * np.clip(aside - 18, 0, None)
    sheet = np.abs(y - middle) - np.float32(0.5) * thick * (1 - np.float32(0.004) * aside)
    edge = aside - half + np.float32(0.25) * (y - middle)
    slope = z - np.float32(13) + np.float32(0.20) * np.clip(aside - 20, 0, None)
    return smooth_maximum(smooth_maximum(sheet, edge, 5), slope, 4)


def _sacral_back(place: tuple[Field, Field, Field], bend: Field, heights: NDArray[np.float64]) -> Field:
    z, y, x = place
    behind = bend + np.float32(0.5) * _sacral_depth(heights) + np.float32(11)
    roof = np.abs(y - behind + np.float32(0.012) * x * x) - np.float32(2.4)
    roof = smooth_maximum(roof, np.abs(x) - np.float32(22) * np.clip((z + 120) / 100, 0.4, 1), 3)
    wave = np.float32(0.7) + np.float32(0.3) * np.cos(z * np.float32(2 * np.pi / 24))
    crest = smooth_maximum(np.abs(x) - 3, np.abs(y - behind - 3) - np.float32(7) * wave, 2.5)
    roof = smooth_minimum(roof, crest, 3)
    pillar = smooth_maximum(np.abs(np.abs(x) - 17) - 3.5, np.abs(y - behind + 8) - 7, 3)
    return smooth_maximum(smooth_minimum(roof, pillar, 3), np.maximum(z - 8, -z - np.float32(84)), 3)


def _foramina(z: Field, aside: Field) -> Field:
    holes = [
        np.hypot(aside - np.float32(x), z - np.float32(level)) - np.float32(radius)
        for level, x, radius in ((-15, 21, 6.5), (-41, 17.5, 5.5), (-63, 15, 4.5), (-82, 13, 3.5))
    ]
    nearest: Field = np.minimum.reduce(holes)
    return nearest


def ilium(place: tuple[Field, Field, Field]) -> Field:
    """Distance to both iliac bones beside the sacrum, in the sacrum's frame seen upright: z up, y back, |x| aside."""
    z, y, x = place
    aside = np.abs(x)
    spine = np.float32(43) + np.float32(0.10) * (z + 20)
    wing = capsule((z * 0, y, aside - spine + 43), (0, 34, 43), (0, 6, 60), (5.5, 8))
    wing = smooth_minimum(wing, capsule((z * 0, y, aside - spine + 43), (0, 6, 60), (0, -45, 98), (8, 6)), 6)
    return smooth_maximum(wing, ellipsoid(place, (2, -10, 0), (62, 70, 130)), 14)
