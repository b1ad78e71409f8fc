"""The tumour: its shape in and around the bone, what it does to the bone, and what it is made of.

Everything follows from the attributes and a stream of random numbers; the label is not known here. Each part of the
tumour has a stream of its own, so that leaving one out changes nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.phantom.anatomy import turned_back
from osteoscope.phantom.fields import (
    Field,
    Lattice,
    coverage,
    ellipsoid,
    interpolate,
    noise,
    smooth_maximum,
    smooth_minimum,
    smooth_step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    from osteoscope.phantom.anatomy import Spine
    from osteoscope.phantom.patients import Attributes

    Streams = Callable[[str], Generator]

MATRIX = 1
"""Bit of the discriminative map: mineralised matrix."""
ARCH = 2
"""Bit of the discriminative map: tumour in the posterior arch, or in the ala of the sacrum."""

SHELL_HU, SEPTUM_HU, PERIOSTEAL_HU, STRUT_HU, RIM_HU = 620.0, 420.0, 480.0, 330.0, 480.0
CELLS = 9
"""Chambers that septa and cysts part the tumour into."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Host:
    """The bones that hold the tumour, at the places of a lattice.

    Parameters
    ----------
    distance
        To the nearest of them in mm, negative inside.
    arch
        Above 0 in the posterior arch (in the sacrum the ala), in mm from -8 to 8.
    """

    distance: Field
    arch: Field


@dataclass(frozen=True, kw_only=True, eq=False)
class Tumour:
    """A tumour at the places of a lattice; shares are from 0 to 1.

    Parameters
    ----------
    distance
        To its surface in mm, negative inside.
    bone_left
        Share of the bone that is still there.
    soft
        HU of its soft part and its cysts.
    filled
        Share that the tumour fills where there is no bone.
    mineral
        Share of bone that the tumour or its host forms, matrix apart: shell, septa, struts, rim, periosteal reaction.
    mineral_hu
        HU of that bone at 120 kV.
    matrix
        Share of mineralised matrix.
    matrix_hu
        HU of the matrix at 120 kV.
    """

    distance: Field
    bone_left: Field
    soft: Field
    filled: Field
    mineral: Field
    mineral_hu: Field
    matrix: Field
    matrix_hu: Field


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """The vertebra that holds the tumour, seen at the places of the lattice: local coordinates and sizes in mm."""

    z: Field
    y: Field
    x: Field
    half_width: float
    half_depth: float
    canal_y: float
    canal_half_depth: float
    canal_half_width: float
    is_sacral: bool


def centre_of(attributes: Attributes, spine: Spine) -> NDArray[np.float64]:
    """Centre of the tumour, (z, y, x) in mm."""
    centre: NDArray[np.float64] = spine.bones[spine.target].rotation @ np.array(_local_centre(attributes, spine))
    return centre


def _local_centre(attributes: Attributes, spine: Spine) -> tuple[float, float, float]:
    size = spine.sizes[spine.target]
    side = 1 if attributes.side == "left" else -1
    off = attributes.eccentricity
    if attributes.level == "sacral":
        return {
            "body": (0.0, 0.0, side * 16 * off),
            "body and arch": (0.0, 3.0, side * (8 + 20 * off)),
            "arch": (0.0, 5.0, side * (22 + 14 * off)),
        }[attributes.site]
    pillar = 0.5 * (size.canal_width + size.pedicle)
    return {
        "body": (0.0, -0.05 * size.depth, side * 0.32 * size.width * off),
        "body and arch": (1.0, 0.32 * size.depth, side * pillar * (0.35 + 0.6 * off)),
        "arch": (-1.0, size.canal_centre + 3, side * pillar * (0.45 + 0.65 * off)),
    }[attributes.site]


def reach_of(attributes: Attributes) -> float:
    """How far from its centre a tumour may reach, in mm."""
    return 0.5 * attributes.size * 1.25 + 8


def grow(attributes: Attributes, spine: Spine, lattice: Lattice, host: Host, streams: Streams, iodine: float) -> Tumour:
    """Grow the tumour.

    Parameters
    ----------
    attributes
        What it is like.
    spine
        The bones.
    lattice
        Places of the voxels.
    host
        The bones that hold it, there.
    streams
        Gives the stream of random numbers of a part of the tumour, by name.
    iodine
        Factor of what contrast adds.
    """
    frame = _frame(spine, lattice, attributes)
    distance = _surface(attributes, spine, lattice, host, frame, streams("surface"))
    fine = noise(streams("margin"), lattice, (3.0, 2.2, 2.2))
    width = np.float32(attributes.margin)
    eaten = smooth_step(
        np.float32(0.5) - (distance + np.float32(0.55) * width * fine) / np.maximum(width, np.float32(0.8))
    )
    filled = np.maximum(coverage(distance, 1.6), eaten)
    gap, level = _cells(attributes, lattice, distance, streams("cells"))
    soft = _soft_part(attributes, lattice, level, streams("soft"), iodine)
    mineral, mineral_hu = _host_bone(attributes, lattice, host, frame, distance, gap, fine, streams)
    matrix, matrix_hu = _matrix(attributes, lattice, distance, streams("matrix"))
    return Tumour(
        distance=distance,
        bone_left=1 - eaten,
        soft=soft,
        filled=filled,
        mineral=mineral,
        mineral_hu=mineral_hu,
        matrix=matrix,
        matrix_hu=matrix_hu,
    )


def _frame(spine: Spine, lattice: Lattice, attributes: Attributes) -> _Frame:
    bone, size = spine.bones[spine.target], spine.sizes[spine.target]
    sacral = attributes.level == "sacral"
    z, y, x = turned_back(bone.rotation, lattice.open())
    return _Frame(
        z=z,
        y=y,
        x=x,
        half_width=0.5 * size.width,
        half_depth=0.5 * size.depth,
        canal_y=15.0 if sacral else size.canal_centre,
        canal_half_depth=6.0 if sacral else 0.5 * size.canal_depth,
        canal_half_width=12.0 if sacral else 0.5 * size.canal_width,
        is_sacral=sacral,
    )


def fracture(attributes: Attributes, spine: Spine, lattice: Lattice, rng: Generator) -> Field:
    """HU at 120 kV that a fracture adds to trabecular bone: a dense band where it has one, else dark lines."""
    frame = _frame(spine, lattice, attributes)
    size = spine.sizes[spine.target]
    level = float(rng.uniform(0.08, 0.28)) * size.back * (1 - 0.6 * attributes.collapse)
    bent = np.abs(
        frame.z
        - np.float32(level)
        + np.float32(rng.normal(0, 0.12)) * frame.x
        + np.float32(1.6) * noise(rng, lattice, (6, 6, 6))
    )
    if attributes.fracture_sclerosis:
        return np.float32(330) * coverage(bent - np.float32(2.2), 3.0)
    return np.float32(-150) * coverage(bent - np.float32(0.5), 1.0)


def _surface(
    attributes: Attributes, spine: Spine, lattice: Lattice, host: Host, frame: _Frame, rng: Generator
) -> Field:
    """Distance to the tumour's surface: an ellipsoid that bone holds back, a mass outside it, a part in the canal."""
    centre = _local_centre(attributes, spine)
    radius = 0.5 * attributes.size
    offsets = (frame.z - np.float32(centre[0]), frame.y - np.float32(centre[1]), frame.x - np.float32(centre[2]))
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    radii = (radius, radius * float(rng.uniform(0.72, 0.95)), radius * float(rng.uniform(0.68, 0.9)))
    lobes = noise(rng, lattice, (radius * 0.55,) * 3)
    rough = noise(rng, lattice, (7.0, 6.0, 6.0))
    ball = (
        ellipsoid(turned_back(axes, offsets), (0, 0, 0), radii)
        + np.float32(0.075 * radius) * lobes
        + np.float32(0.9) * rough
    )
    held: Field = host.distance - _outgrowth(attributes, frame, offsets, lobes, rng)
    if attributes.site == "body":
        held = smooth_maximum(held, host.arch + np.float32(1) + np.float32(1.5) * rough, 5.0)
    towards = np.array(centre[1:]) - (frame.canal_y, 0)
    canal, part = _canal(attributes, frame, towards / max(float(np.linalg.norm(towards)), 1e-3))
    # The cortex of the canal goes too, so that what bounds the tumour there lies a little inside the canal.
    outside = smooth_maximum(smooth_maximum(ball, held, 4.0), -np.float32(1.4) - canal, 1.5)
    if attributes.canal == 0:
        return outside
    return smooth_minimum(outside, smooth_maximum(part, ball - np.float32(2), 2.0), 1.5)


def _outgrowth(
    attributes: Attributes, frame: _Frame, offsets: tuple[Field, Field, Field], lobes: Field, rng: Generator
) -> Field:
    """How far from the bone, in mm, the tumour may reach: blown-up bone all around, the mass to one side."""
    own = {"body": 1.1 * frame.half_width, "body and arch": 24.0, "arch": 20.0}[attributes.site]
    if frame.is_sacral:
        own = 30.0
    needed = max(0.0, 0.5 * attributes.size - own)
    blown: Field = np.float32(attributes.expansion + needed) * np.clip(
        np.float32(0.6) + np.float32(0.35) * lobes, 0.1, 1.3
    )
    if not attributes.soft_tissue:
        return blown
    side = 1 if attributes.side == "left" else -1
    turn = rng.uniform(-0.9, 0.9) if attributes.site != "arch" else rng.uniform(0.4, 1.6)
    up, back, left = 0.15 * rng.standard_normal(), math.sin(turn), side * math.cos(turn)
    z, y, x = offsets
    ray = np.sqrt(z * z + y * y + x * x + np.float32(1e-3))
    towards = (np.float32(up) * z + np.float32(back) * y + np.float32(left) * x) / ray
    blown += np.float32(attributes.mass_extent) * smooth_step((towards + np.float32(0.1)) * np.float32(1.1))
    return blown


def _canal_distance(frame: _Frame) -> Field:
    """Distance to the wall of the canal, about in mm, negative inside."""
    y, x = frame.y - np.float32(frame.canal_y), frame.x
    half_y, half_x = frame.canal_half_depth, frame.canal_half_width
    size = np.sqrt((y * np.float32(1 / half_y)) ** 2 + (x * np.float32(1 / half_x)) ** 2 + np.float32(1e-6))
    distance: Field = (size - 1) * np.float32(0.5 * (half_y + half_x))
    return distance


def _canal(attributes: Attributes, frame: _Frame, towards: NDArray[np.float64]) -> tuple[Field, Field]:
    """Distance to the canal, and to the part of it that the tumour fills from its side."""
    canal = _canal_distance(frame)
    y, x = frame.y - np.float32(frame.canal_y), frame.x
    half_y, half_x = frame.canal_half_depth, frame.canal_half_width
    along = np.array([towards[0] * half_y, towards[1] * half_x])
    scale = float(np.linalg.norm(along))
    cut = _chord(attributes.canal)
    # In the ellipse's own units, the part beyond the chord on the tumour's side.
    depth = np.float32(along[0] / scale / half_y) * y + np.float32(along[1] / scale / half_x) * x
    part = np.maximum(canal, (np.float32(cut) - depth) * np.float32(0.5 * (half_y + half_x)))
    return canal, part


def _chord(share: float) -> float:
    """Distance from the centre of a unit circle of the chord that cuts off a share of its area."""
    cuts = np.linspace(-1, 1, 201)
    areas = (np.arccos(cuts) - cuts * np.sqrt(1 - cuts**2)) / np.pi
    return float(np.interp(-share, -areas, cuts))


def _cells(attributes: Attributes, lattice: Lattice, distance: Field, rng: Generator) -> tuple[Field, Field]:
    """Part the tumour into chambers.

    Returns
    -------
    Distance in mm from the wall between two chambers, and height above the fluid level (below 0 is behind it, where
    what is heavy settles), which is NaN outside of cysts.
    """
    coarse = Lattice(z=lattice.z[::2], y=lattice.y[::3], x=lattice.x[::3])
    inside = distance[::2, ::3, ::3] < -1
    level = np.full(distance.shape, np.nan, np.float32)
    if not (attributes.septa or attributes.fluid_levels) or not inside.any():
        return np.full(distance.shape, 30, np.float32), level
    places = np.argwhere(inside)
    seeds = places[rng.integers(len(places), size=CELLS)]
    z, y, x = coarse.open()
    bent = [axis + np.float32(1.8) * noise(rng, coarse, (9, 8, 8)) for axis in (z, y, x)]
    first = np.full(coarse.shape, 1e6, np.float32)
    second = first.copy()
    nearest = np.zeros(coarse.shape, np.int8)
    for number, (plane, row, column) in enumerate(seeds):
        away = np.sqrt(
            (bent[0] - z[plane, 0, 0]) ** 2 + (bent[1] - y[0, row, 0]) ** 2 + (bent[2] - x[0, 0, column]) ** 2
        )
        second = np.minimum(second, np.maximum(first, away))
        nearest[away < first] = number
        first = np.minimum(first, away)
    gap = interpolate(second - first, (2, 3, 3), lattice.shape)
    if attributes.fluid_levels:
        cell = np.repeat(np.repeat(np.repeat(nearest, 2, 0), 3, 1), 3, 2)[tuple(map(slice, distance.shape))]
        sizes = np.bincount(nearest[inside], minlength=CELLS).cumsum() / inside.sum()
        cysts = int(np.searchsorted(sizes, attributes.cyst_extent)) + 1
        heights = (y[0, seeds[:, 1], 0] + rng.normal(0, 2, CELLS)).astype(np.float32)
        level = np.where(
            (cell < cysts) & (gap > 1.2) & (distance < -1.5), heights[cell] - lattice.open()[1], np.float32(np.nan)
        )
    return gap, level


def _soft_part(attributes: Attributes, lattice: Lattice, level: Field, rng: Generator, iodine: float) -> Field:
    """HU of the solid part and of the cysts, in which what is heavy lies behind."""
    mottle = noise(rng, lattice, (9, 7, 7))
    uptake = np.float32(attributes.uptake * iodine) * np.clip(1 + np.float32(0.25) * mottle, 0.3, 1.5)
    soft: Field = np.float32(attributes.attenuation) + np.float32(5) * mottle + uptake
    if attributes.fluid_levels:
        fluid = np.where(level > 0, np.float32(20), np.float32(56))
        soft = np.where(np.isnan(level), soft, fluid)
    return soft


def _host_bone(
    attributes: Attributes,
    lattice: Lattice,
    host: Host,
    frame: _Frame,
    distance: Field,
    gap: Field,
    fine: Field,
    streams: Streams,
) -> tuple[Field, Field]:
    """Share and HU of shell, septa, struts, sclerotic rim and periosteal reaction."""
    parts: list[tuple[Field, float]] = []
    patches = noise(streams("shell"), lattice, (9, 8, 8))
    was_outside = smooth_step(host.distance * np.float32(0.5) + np.float32(0.9))
    # What has grown into the canal has no shell there; only the canal's wall is left.
    was_outside = was_outside * smooth_step(_canal_distance(frame) + np.float32(3.5))
    if attributes.site == "body":
        was_outside = was_outside * smooth_step(np.float32(-0.4) * host.arch)
    kept = smooth_step((np.float32(_quantile(attributes.shell)) - patches) * np.float32(2.5) + np.float32(0.5))
    parts.append((coverage(np.abs(distance + np.float32(0.6)) - np.float32(0.6), 0.9) * was_outside * kept, SHELL_HU))
    inside = coverage(distance + np.float32(1.0), 2.0)
    if attributes.septa:
        thick = np.float32(0.75) + np.float32(0.35) * fine
        parts.append((coverage(gap - thick, 1.1) * inside, SEPTUM_HU))
    if attributes.trabeculae:
        struts = noise(streams("struts"), lattice, (9, 1.7, 1.7)) + np.float32(0.5) * patches
        was_bone = smooth_step(np.float32(0.5) - host.distance)
        parts.append((np.float32(0.85) * smooth_step((struts - np.float32(0.95)) * 2) * inside * was_bone, STRUT_HU))
    if attributes.sclerotic_rim:
        dense = noise(streams("rim"), lattice, (8, 8, 8))
        band = coverage(np.abs(distance - np.float32(1.2)) - np.float32(1.4) - np.float32(0.4) * dense, 1.5)
        parts.append((band * coverage(host.distance, 1.0), RIM_HU))
    if attributes.periosteal_reaction:
        parts.append((_periosteal(lattice, host, distance, streams("periosteum")), PERIOSTEAL_HU))
    share = np.zeros(distance.shape, np.float32)
    weighted = share.copy()
    for part, hu in parts:
        share = np.maximum(share, part)
        weighted = np.maximum(weighted, part * np.float32(hu))
    return share, weighted / np.maximum(share, np.float32(1e-3))


def _periosteal(lattice: Lattice, host: Host, distance: Field, rng: Generator) -> Field:
    """Layers and spicules outside the cortex, near the tumour."""
    surface = np.minimum(host.distance, distance)
    where = smooth_step(noise(rng, lattice, (12, 9, 9)) * 2) * smooth_step((8 - np.abs(distance)) / 3)
    layers = np.maximum(
        coverage(np.abs(surface - np.float32(1.3)) - np.float32(0.35), 0.8),
        coverage(np.abs(surface - np.float32(3.0)) - np.float32(0.3), 0.8),
    )
    spicules = coverage(np.abs(surface - np.float32(2.5)) - np.float32(2.3), 1.0) * smooth_step(
        noise(rng, lattice, (2.2, 2.2, 2.2)) * np.float32(1.6) - np.float32(0.9)
    )
    reaction: Field = np.maximum(layers, spicules) * where
    return reaction


def _matrix(attributes: Attributes, lattice: Lattice, distance: Field, rng: Generator) -> tuple[Field, Field]:
    """Clouds of mineralised matrix that fill their share of the tumour, anywhere in it or along its edge."""
    shape = distance.shape
    if not attributes.is_mineralised:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    clouds = noise(rng, lattice, (9, 8, 8)) + np.float32(0.75) * noise(rng, lattice, (4.5, 4, 4))
    clouds += np.float32(0.45) * noise(rng, lattice, (2.6, 2.0, 2.0))
    depth = np.clip(-distance / np.float32(0.22 * attributes.size), 0, 1)
    rim = np.float32(attributes.matrix_rim)
    score = clouds * (1 - np.float32(0.55) * rim) + rim * np.float32(3.0) * (np.float32(0.5) - depth)
    inside = distance < 0
    if not inside.any():
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    threshold = np.float32(np.quantile(score[inside], 1 - attributes.matrix_extent))
    over = score - threshold
    share = smooth_step(over * np.float32(1.1) + np.float32(0.5)) * coverage(distance + np.float32(0.4), 1.2)
    grain = noise(rng, lattice, (2.5, 1.4, 1.4))
    # Of low relief: the densest matrix was found at 787 HU where the mean was 654.
    relief = np.float32(0.96) + np.float32(0.08) * np.clip(over, -0.5, 2.0) + np.float32(0.07) * grain
    seen = share > 0.4
    if not seen.any():
        return share, np.float32(attributes.matrix_hu) * relief
    # Where matrix fades out, soft tissue shows: it is made denser, so that its mean comes out as it should.
    faded = float((1 - share[seen]).mean()) * attributes.attenuation
    scale = (attributes.matrix_hu - faded) / float((share[seen] * relief[seen]).mean())
    hu = np.float32(scale) * relief
    return share, hu


def _quantile(share: float) -> float:
    """Value below which a standard normal variable lies with this probability."""
    return NormalDist().inv_cdf(min(max(share, 1e-3), 1 - 1e-3))
