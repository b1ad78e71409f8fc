"""A segment of the spine: where its bones stand, and what surrounds them.

Coordinates are (z, y, x) in mm: towards the head, the back and the left of the patient, with the origin in the body of
the vertebra that holds the tumour. Bones are distances; what lies around them is painted slice by slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import affine_transform

from osteoscope.phantom.fields import Field, Lattice, capsule, coverage
from osteoscope.phantom.vertebra import (
    COLUMN,
    SACRAL_HEIGHTS,
    Dimensions,
    Shape,
    dimensions,
    ilium,
    level_of,
    shape_sacrum,
    shape_vertebra,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Attributes

FAR = 30.0
"""Distance in mm that stands for anything beyond the places at which a bone's shape is kept."""
JOINT = 1.6
"""Width in mm of the gap between two bones."""

_TILT_KNOWN = [
    (*COLUMN, "S1").index(name) for name in ("C3", "C5", "C7", "T1", "T4", "T8", "T12", "L1", "L3", "L5", "S1")
]
_TILT = (8, -4, -16, -20, -12, 3, 9, 8, 0, -16, -38)
"""Degrees that the upward axis of a vertebra leans back, lying on the back."""


def turned_back(rotation: NDArray[np.float64], place: tuple[Field, Field, Field]) -> tuple[Field, Field, Field]:
    """Give coordinates z, y, x in the frame that a rotation turns into the patient's."""
    z, y, x = (
        np.float32(rotation[0, own]) * place[0]
        + np.float32(rotation[1, own]) * place[1]
        + np.float32(rotation[2, own]) * place[2]
        for own in range(3)
    )
    return z, y, x


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A bone where it stands.

    Parameters
    ----------
    name
        Of the vertebra; S1 stands for the sacrum.
    shape
        In its own frame.
    centre
        Where the origin of that frame lies, (z, y, x) in mm.
    rotation
        3x3 from the frame's (z, y, x) to the patient's.
    stretch
        How much larger it is than its shape along the frame's (z, y, x).
    half_height
        From the middle of the body to the end plate.
    """

    name: str
    shape: Shape
    centre: NDArray[np.float64]
    rotation: NDArray[np.float64]
    stretch: NDArray[np.float64]
    half_height: float

    def corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner of a box around the shape, in the patient's frame."""
        lattice = self.shape.lattice
        ends = np.array([[axis[0], axis[-1]] for axis in (lattice.z, lattice.y, lattice.x)])
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        corners = (corners * self.stretch) @ self.rotation.T + self.centre
        return corners.min(axis=0), corners.max(axis=0)

    def local(self, lattice: Lattice) -> tuple[Field, Field, Field]:
        """Coordinates z, y, x of the bone's own frame at the places of a lattice."""
        z, y, x = (axis - np.float32(middle) for axis, middle in zip(lattice.open(), self.centre, strict=True))
        return turned_back(self.rotation, (z, y, x))

    def arch(self, lattice: Lattice, size: Dimensions) -> Field:
        """How far behind the body's back, in the sacrum beside the bodies, in mm from -8 to 8."""
        z, y, x = self.local(lattice)
        beside = np.abs(x) - (np.float32(0.15) * z + np.float32(22)) if self.name == "S1" else y
        arch: Field = np.clip(beside - (0 if self.name == "S1" else np.float32(0.5 * size.depth)), -8, 8)
        return arch

    def seen_from_afar(self, lattice: Lattice) -> Field:
        """Distance to the bone, also where it is far: beyond the box of the shape the way to the box is added."""
        beyond: Field = np.zeros(1, np.float32)
        axes = (self.shape.lattice.z, self.shape.lattice.y, self.shape.lattice.x)
        for own, axis, stretch in zip(self.local(lattice), axes, self.stretch, strict=True):
            low, high = np.float32(axis[1] * stretch), np.float32(axis[-2] * stretch)
            over = np.maximum(np.maximum(low - own, own - high), 0)
            beyond = beyond + over * over
        distance: Field = self.seen(lattice, mode="nearest") + np.sqrt(beyond)
        return distance

    def seen(self, lattice: Lattice, mode: Literal["constant", "nearest"] = "constant") -> Field:
        """Distance to the bone at the places of a lattice; beyond the shape's box it is `FAR`, or as at its edge."""
        own = self.shape.lattice
        origin = np.array([own.z[0], own.y[0], own.x[0]])
        grain = np.array([own.z[1] - own.z[0], own.y[1] - own.y[0], own.x[1] - own.x[0]])
        start = np.array([lattice.z[0], lattice.y[0], lattice.x[0]])
        steps = np.array([lattice.z[1] - lattice.z[0], lattice.y[1] - lattice.y[0], lattice.x[1] - lattice.x[0]])
        inverse = self.rotation.T / (grain * self.stretch)[:, None]
        offset = inverse @ (start - self.centre) - origin / grain
        seen: Field = affine_transform(
            self.shape.distance,
            inverse * steps,
            offset,
            output_shape=lattice.shape,
            output=np.float32,
            order=1,
            mode=mode,
            cval=FAR,
        )
        return seen


@dataclass(frozen=True, kw_only=True, eq=False)
class Spine:
    """The bones of a segment, from head to feet.

    Parameters
    ----------
    bones
        From head to feet.
    target
        Index of the bone that holds the tumour.
    sizes
        Of each bone of the mobile spine; the sacrum has those of L5.
    scale
        Size of the patient against the mean.
    """

    bones: tuple[Placed, ...]
    target: int
    sizes: tuple[Dimensions, ...]
    scale: float

    def along(self, z: NDArray[np.float64], values: list[float]) -> NDArray[np.float64]:
        """Interpolate what is known at each bone over heights, beyond the ends as at the last bone."""
        heights = [bone.centre[0] for bone in self.bones][::-1]
        return np.interp(z, heights, values[::-1])

    def middle(self, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates y and x of the middle of the bodies at heights; beyond the ends the line goes straight on."""
        centres = np.array([bone.centre for bone in self.bones])[::-1]
        ends = [centres[0] - 100 * self.bones[-1].rotation[:, 0], centres[-1] + 100 * self.bones[0].rotation[:, 0]]
        known = np.stack([ends[0], *centres, ends[1]])
        return np.interp(z, known[:, 0], known[:, 1]), np.interp(z, known[:, 0], known[:, 2])


def build_spine(attributes: Attributes, rng: Generator, reach: tuple[float, float]) -> Spine:
    """Set up the bones that come within reach.

    Parameters
    ----------
    attributes
        Of them the level, the vertebra, the sex and the collapse matter.
    rng
        Source of what differs between patients: size, curvature, heights of the discs, and the shapes.
    reach
        How far below and above the middle of the vertebra that holds the tumour, in mm.
    """
    scale = float(rng.normal(1.03 if attributes.sex == "M" else 0.95, 0.035))
    curve = float(rng.normal(1.0, 0.18))
    names = (*COLUMN, "S1")
    sacral = attributes.level == "sacral"
    target = names.index("S1" if sacral else attributes.vertebra)
    tilts = curve * np.interp(np.arange(len(names)), _TILT_KNOWN, _TILT) + rng.normal(0, 1.2, len(names))
    rolls = np.cumsum(rng.normal(0, 1.0, len(names)))
    rolls -= rolls[target] - rng.normal(0, 1.5)
    turns = [_rotation(math.radians(tilt), math.radians(roll)) for tilt, roll in zip(tilts, rolls, strict=True)]
    sizes = [dimensions(name, scale) for name in COLUMN]
    halves = [0.25 * (size.front + size.back) for size in sizes] + [0.5 * SACRAL_HEIGHTS[0] * scale]
    wedge = float(rng.uniform(0.25, 0.9))
    if not sacral:
        halves[target] *= 1 - 0.5 * (1 + wedge) * attributes.collapse
    discs = [size.disc * float(rng.normal(1, 0.08)) for size in sizes]
    start = np.zeros(3)
    if sacral:
        start = turns[target][:, 0] * scale * sum(SACRAL_HEIGHTS[: int(attributes.vertebra[1]) - 1]) * 0.95
    centres = _stack(target, start, turns, halves, discs)
    # The tumour may lie in a sacral vertebra far below the first, whose bone it is.
    kept = [at for at, centre in enumerate(centres) if at == target or -reach[0] - 35 < centre[0] < reach[1] + 35]
    shapes = _shapes([names[at] for at in kept], names[target], attributes, rng, scale, wedge)
    bones = tuple(
        _place(names[at], shapes, sizes, centres[at], turns[at], halves[at], is_target=at == target) for at in kept
    )
    used = tuple(sizes[min(at, len(COLUMN) - 1)] for at in kept)
    return Spine(bones=bones, target=kept.index(target), sizes=used, scale=scale)


def _rotation(tilt: float, roll: float) -> NDArray[np.float64]:
    """Turn about x by the tilt (top to the back) and then about y by the roll (top to the left)."""
    about_x = np.array([[math.cos(tilt), -math.sin(tilt), 0], [math.sin(tilt), math.cos(tilt), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(roll), 0, -math.sin(roll)], [0, 1, 0], [math.sin(roll), 0, math.cos(roll)]])
    rotation: NDArray[np.float64] = about_y @ about_x
    return rotation


def _stack(
    target: int,
    start: NDArray[np.float64],
    turns: list[NDArray[np.float64]],
    halves: list[float],
    discs: list[float],
) -> list[NDArray[np.float64]]:
    """Centres of the vertebrae, each standing on the disc below it."""
    centres = [start] * len(turns)
    for at in range(target, 0, -1):
        centres[at - 1] = centres[at] + _step(at - 1, turns, halves, discs)
    for at in range(target, len(turns) - 1):
        centres[at + 1] = centres[at] - _step(at, turns, halves, discs)
    return centres


def _step(upper: int, turns: list[NDArray[np.float64]], halves: list[float], discs: list[float]) -> NDArray[np.float64]:
    above, below = turns[upper][:, 0], turns[upper + 1][:, 0]
    step: NDArray[np.float64] = halves[upper] * above + 0.5 * discs[upper] * (above + below) + halves[upper + 1] * below
    return step


_TARGET = "target"


def _shapes(
    names: list[str], target: str, attributes: Attributes, rng: Generator, scale: float, wedge: float
) -> dict[str, tuple[str, Shape]]:
    """Shape a model for each region, after its bone nearest to the tumour, and the one that holds the tumour.

    Returns
    -------
    By region, or `_TARGET`, the name of the vertebra whose sizes the shape has, and the shape.
    """
    shapes: dict[str, tuple[str, Shape]] = {}
    if "S1" in names:
        shapes["sacral"] = ("S1", shape_sacrum(rng, scale))
    middle = names.index(target)
    for name in sorted(names, key=lambda name: abs(names.index(name) - middle)):
        level = level_of(name)
        if level not in shapes:
            shapes[level] = (name, shape_vertebra(rng, level, dimensions(name, scale)))
    if target != "S1" and attributes.collapse > 0:
        size = dimensions(target, scale)
        shapes[_TARGET] = (target, shape_vertebra(rng, level_of(target), size, attributes.collapse, wedge))
    return shapes


def _place(
    name: str,
    shapes: Mapping[str, tuple[str, Shape]],
    sizes: list[Dimensions],
    centre: NDArray[np.float64],
    rotation: NDArray[np.float64],
    half_height: float,
    *,
    is_target: bool,
) -> Placed:
    model, shape = shapes[_TARGET] if is_target and _TARGET in shapes else shapes[level_of(name)]
    stretch = np.ones(3)
    if name != "S1":
        own, its = sizes[COLUMN.index(name)], sizes[COLUMN.index(model)]
        stretch = np.array(
            [
                (own.front + own.back) / (its.front + its.back),
                own.canal_centre / its.canal_centre,
                own.width / its.width,
            ]
        )
    return Placed(name=name, shape=shape, centre=centre, rotation=rotation, stretch=stretch, half_height=half_height)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bones:
    """Distances in mm at the places of a lattice.

    Parameters
    ----------
    distance
        To the nearest bone of the spine, negative inside.
    arch
        Above 0 where the arch (the ala) is nearer than the body.
    """

    distance: Field
    arch: Field


def see_bones(spine: Spine, lattice: Lattice) -> Bones:
    """See the spine at the places of a lattice."""
    distance = np.full(lattice.shape, FAR, np.float32)
    arch = np.full(lattice.shape, -8, np.float32)
    for at, bone in enumerate(spine.bones):
        box = lattice.box(*bone.corners())
        part = lattice.cut(*box)
        if min(part.shape) < 2:
            continue
        own = bone.seen(part)
        apart = np.maximum(own, np.float32(JOINT) - distance[box])
        nearer = apart < distance[box]
        np.copyto(distance[box], apart, where=nearer)
        np.copyto(arch[box], bone.arch(part, spine.sizes[at]), where=nearer)
    return Bones(distance=distance, arch=arch)


def paint_side_bones(
    values: Field, spine: Spine, lattice: Lattice, rng: Generator, density: float, factor: float
) -> None:
    """Paint the ribs or the iliac bones beside the spine into HU; `factor` is that of bone at the tube voltage."""
    for bone, size in zip(spine.bones, spine.sizes, strict=True):
        if bone.name.startswith("T"):
            for side in (-1, 1):
                _paint_rod(values, lattice, _rib(bone, size, side, rng), density * 0.7, factor)
        elif bone.name == "S1":
            _paint_ilium(values, lattice, bone, spine.scale, density * 0.8, factor)


def _rib(bone: Placed, size: Dimensions, side: int, rng: Generator) -> NDArray[np.float64]:
    """Points along the middle of a rib, (z, y, x) in mm, from its head beside the disc to the flank."""
    behind = size.canal_centre + size.sweep
    slope = float(rng.normal(1, 0.1))
    known = np.array(
        [
            [bone.half_height - 2, 0.5 * size.depth - 4, 0.5 * size.width + 2],
            [bone.half_height - 3, size.canal_centre + 1, 0.5 * size.width + 9],
            [2, behind - 8, size.span - 1],
            [-5 * slope, behind + 1, size.span + 22],
            [-14 * slope, behind - 14, size.span + 48],
            [-26 * slope, behind - 45, size.span + 66],
            [-38 * slope, behind - 80, size.span + 70],
        ]
    )
    known[:, 2] *= side
    finer = np.linspace(0, len(known) - 1, 25)
    spline = CubicSpline(np.arange(len(known)), known)
    points: NDArray[np.float64] = spline(finer) * [1, 1, 1] + bone.centre
    return points


def _paint_rod(values: Field, lattice: Lattice, points: NDArray[np.float64], density: float, factor: float) -> None:
    """Paint a bone that is a bent rod, higher than thick."""
    low, high = points.min(axis=0) - 9, points.max(axis=0) + 9
    box = lattice.box(low, high)
    part = lattice.cut(*box)
    if min(part.shape) < 1:
        return
    distance = np.full(part.shape, FAR, np.float32)
    for start, end in pairwise(points):
        inner = part.box(np.minimum(start, end) - 8, np.maximum(start, end) + 8)
        if distance[inner].size:
            place = part.cut(*inner).open()
            rod = capsule(place, tuple(start), tuple(end), (5.8, 5.8), (1.0, 1.6, 1.6))
            np.minimum(distance[inner], rod, out=distance[inner])
    _paint_bone(values[box], distance, 1.0, density, factor)


def _paint_ilium(values: Field, lattice: Lattice, bone: Placed, scale: float, density: float, factor: float) -> None:
    z, y, x = lattice.open()
    place = tuple(
        (axis - np.float32(middle)) / np.float32(scale) for axis, middle in zip((z, y, x), bone.centre, strict=True)
    )
    distance = ilium((place[0], place[1], place[2])) * np.float32(scale)
    _paint_bone(values, distance, 1.5, density, factor)


def _paint_bone(values: Field, distance: Field, cortex: float, density: float, factor: float) -> None:
    share, core = coverage(distance, 1.0), coverage(distance + np.float32(cortex), 1.0)
    values += share * (np.float32(density * factor) - values)
    values += (share - core) * np.float32((1150 - density) * factor)
