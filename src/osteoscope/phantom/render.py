"""Attributes and a seed become a CT whose truth is known; the label is never seen."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from osteoscope.imaging.volume import Geometry, PixelSpacing
from osteoscope.phantom.anatomy import Bones, Placed, Spine, build_spine, paint_side_bones, see_bones
from osteoscope.phantom.fields import Field, Lattice, coverage, ellipsoid, noise
from osteoscope.phantom.lesion import ARCH, MATRIX, Host, Tumour, centre_of, fracture, grow, reach_of
from osteoscope.phantom.scanner import Acquisition, beam_hardening, blur, draw_acquisition, scanner_noise
from osteoscope.phantom.tissue import paint_tissue
from osteoscope.phantom.vertebra import Dimensions, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Attributes, Level

SHAPE = (48, 256, 256)
"""Planes, rows and columns of a CT unless told otherwise."""

THINNEST = 2.0
"""Distance in mm within which a slice is sampled across its thickness."""

CORTEX_HU = 1350.0
MARROW_HU = 30.0

_BEHIND: Mapping[Level, float] = {"cervical": 6.0, "thoracic": 12.0, "lumbar": 14.0, "sacral": 4.0}
"""How far the middle of the image lies behind the vertebral body, in mm."""

_DENSER: Mapping[Level, float] = {"cervical": 1.35, "thoracic": 1.12, "lumbar": 1.0, "sacral": 0.8}
"""Trabecular density against L1, falling towards the feet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendering:
    """A CT and its truth, all ``(planes, rows, columns)``.

    Parameters
    ----------
    hu
        int16, in HU; planes go to the head, rows to the back, columns to the left.
    geometry
        Where the voxels lie, in LPS.
    lesion
        uint8, 1 where the tumour is.
    discriminative
        uint8, `osteoscope.phantom.lesion.MATRIX` and `ARCH` as bits: what tells the two tumours apart.
    without_matrix
        int16, the same CT with the mineralised matrix taken out and nothing else changed; `hu` itself if there is none.
    acquisition
        How it was scanned.
    vertebrae
        Of each vertebra in reach, by name, the middle of its body in LPS, in mm; S1 stands for the sacrum.
    """

    hu: NDArray[np.int16]
    geometry: Geometry
    lesion: NDArray[np.uint8]
    discriminative: NDArray[np.uint8]
    without_matrix: NDArray[np.int16]
    acquisition: Acquisition
    vertebrae: Mapping[str, tuple[float, float, float]]


def render(
    attributes: Attributes,
    seed: int,
    *,
    acquisition: Acquisition | None = None,
    shape: tuple[int, int, int] = SHAPE,
) -> Rendering:
    """Render a CT of a patient.

    Parameters
    ----------
    attributes
        What the patient is like; see `osteoscope.phantom.patients`.
    seed
        Of all that the attributes leave open: the same attributes and seed give identical bytes.
    acquisition
        How to scan; where left out it is drawn from the habits of the patient's centre.
    shape
        Planes, rows and columns; slices lie as far apart as they are thick.

    Raises
    ------
    ValueError
        If there are fewer than 2 planes or 16 rows or columns.
    """
    if shape[0] < 2 or min(shape[1:]) < 16:
        msg = f"expected at least 2 planes of 16 x 16 pixels, got {shape}"
        raise ValueError(msg)
    # The products are small: shared out to several threads they take several times as long.
    with threadpool_limits(limits=1):
        return _render(attributes, seed, acquisition, shape)


def _render(
    attributes: Attributes, seed: int, acquisition: Acquisition | None, shape: tuple[int, int, int]
) -> Rendering:
    def streams(part: str) -> Generator:
        return np.random.default_rng([seed, zlib.crc32(part.encode())])

    if acquisition is None:
        acquisition = draw_acquisition(attributes.centre, streams("acquisition"))
    lattice = _lattice(attributes, acquisition, shape)
    spine = build_spine(attributes, streams("spine"), (-float(lattice.z[0]), float(lattice.z[-1])))
    values = paint_tissue(spine, attributes.level, attributes.age, lattice, streams("tissue"), acquisition.iodine)
    paint_side_bones(values, spine, lattice, streams("side bones"), attributes.bone_hu, acquisition.bone)
    skeleton = np.clip(values - np.float32(200), 0, None)
    parts = _paint_column(values, attributes, spine, lattice, streams, acquisition)
    pixel = acquisition.field_of_view / shape[2]
    plain = parts.plain
    np.maximum(skeleton, plain - np.float32(200), out=skeleton)
    extra = scanner_noise(streams("noise"), skeleton, acquisition, pixel)
    extra += beam_hardening(skeleton, pixel)
    without = _finish(blur(plain, acquisition, pixel) + extra)
    hu = _finish(blur(parts.full, acquisition, pixel) + extra) if attributes.is_mineralised else without
    return Rendering(
        hu=hu,
        geometry=_geometry(lattice),
        lesion=parts.lesion,
        discriminative=parts.discriminative,
        without_matrix=without,
        acquisition=acquisition,
        vertebrae={bone.name: _lps(bone.centre) for bone in spine.bones},
    )


def _lps(place: NDArray[np.float64]) -> tuple[float, float, float]:
    z, y, x = place.tolist()
    return x, y, z


def _finish(values: Field) -> NDArray[np.int16]:
    return np.asarray(np.clip(np.rint(values), -1024, 3071), np.int16)


def _lattice(attributes: Attributes, acquisition: Acquisition, shape: tuple[int, int, int]) -> Lattice:
    planes, rows, columns = shape
    pixel = acquisition.field_of_view / columns
    z = _axis(planes, acquisition.thickness, 0.0)
    if attributes.level == "cervical":  # the column begins at C3: what would lie above it is left out
        above = 20.0 * (int(attributes.vertebra[1]) - 3) + 8
        z -= max(0.0, z[-1] - above)
    return Lattice(z=z, y=_axis(rows, pixel, _BEHIND[attributes.level]), x=_axis(columns, pixel, 0.0))


def _axis(count: int, step: float, middle: float) -> NDArray[np.float64]:
    return np.arange(count, dtype=np.float64) * step + (middle - 0.5 * (count - 1) * step)


def _geometry(lattice: Lattice) -> Geometry:
    step, down, across = (float(axis[1] - axis[0]) for axis in (lattice.z, lattice.y, lattice.x))
    affine = np.diag([across, down, step, 1.0])
    affine[:3, 3] = lattice.x[0], lattice.y[0], lattice.z[0]
    spacing = PixelSpacing(row=down, column=across, kind="patient")
    return Geometry(shape=lattice.shape, affine=affine, spacing=spacing)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Painted:
    """HU with and without matrix, before the scanner sees them, and the truth."""

    full: Field
    plain: Field
    lesion: NDArray[np.uint8]
    discriminative: NDArray[np.uint8]


def _paint_column(
    values: Field,
    attributes: Attributes,
    spine: Spine,
    lattice: Lattice,
    streams: Callable[[str], Generator],
    acquisition: Acquisition,
) -> _Painted:
    """Paint the spine and the tumour over the tissue, several thin planes to a slice, which are then averaged."""
    thin = math.ceil(acquisition.thickness / THINNEST)
    box = _column_box(attributes, spine, lattice)
    part = lattice.cut(*box)
    step = acquisition.thickness / thin
    offsets = (np.arange(thin) - 0.5 * (thin - 1)) * step
    fine = Lattice(z=(part.z[:, None] + offsets).ravel(), y=part.y, x=part.x)
    bones = see_bones(spine, fine)
    painted = np.repeat(values[box], thin, axis=0)
    bone, share = _bone(attributes, spine, fine, bones, streams("trabeculae"))
    centre, reach = centre_of(attributes, spine), reach_of(attributes)
    inner = fine.box(centre - reach, centre + reach)
    near = fine.cut(*inner)
    hosts = [spine.bones[at].seen_from_afar(near) for at in _involved(attributes, spine)]
    own = Host(distance=np.minimum.reduce(hosts), arch=spine.bones[spine.target].arch(near, spine.sizes[spine.target]))
    if attributes.collapse > 0:
        bone[inner] += (
            fracture(attributes, spine, near, streams("fracture")) * coverage(own.distance, 1.0) * (own.arch < 0)
        )
    bone *= np.float32(acquisition.bone)
    tumour = grow(attributes, spine, near, own, streams, acquisition.iodine)
    painted[inner] += tumour.filled * (tumour.soft - painted[inner])
    share[inner] *= tumour.bone_left
    painted += share * (bone - painted)
    painted[inner] += tumour.mineral * (tumour.mineral_hu * np.float32(acquisition.bone) - painted[inner])
    if not attributes.is_mineralised:
        return _gather(values, box, inner, thin, painted, painted, tumour, own, attributes)
    full = painted.copy()
    full[inner] += tumour.matrix * (tumour.matrix_hu * np.float32(acquisition.bone) - full[inner])
    return _gather(values, box, inner, thin, full, painted, tumour, own, attributes)


def _gather(
    values: Field,
    box: tuple[slice, slice, slice],
    inner: tuple[slice, slice, slice],
    thin: int,
    full: Field,
    painted: Field,
    tumour: Tumour,
    host: Host,
    attributes: Attributes,
) -> _Painted:
    def sliced(field: Field) -> Field:
        mean: Field = field.reshape(-1, thin, *field.shape[1:]).mean(axis=1)
        return mean

    shares = np.zeros((3, *painted.shape), np.float32)
    shares[0][inner] = coverage(tumour.distance, 1.0)
    shares[1][inner] = tumour.matrix
    shares[2][inner] = shares[0][inner] * (host.arch > 0) * (host.distance < 6)
    results = [values.copy(), values.copy()]
    results[0][box], results[1][box] = sliced(full), sliced(painted)
    lesion = np.zeros(values.shape, np.uint8)
    lesion[box] = sliced(shares[0]) > 0.5
    told = np.zeros(values.shape, np.uint8)
    told[box] = MATRIX * (sliced(shares[1]) > 0.4)
    if attributes.site != "body":
        told[box] |= (ARCH * (sliced(shares[2]) > 0.5)).astype(np.uint8)
    return _Painted(full=results[0], plain=results[1], lesion=lesion, discriminative=told)


def _column_box(attributes: Attributes, spine: Spine, lattice: Lattice) -> tuple[slice, slice, slice]:
    """Find the part of the image that holds the spine and the tumour."""
    corners = [bone.corners() for bone in spine.bones]
    low = np.min([corner for corner, _ in corners], axis=0)
    high = np.max([corner for _, corner in corners], axis=0)
    centre, reach = centre_of(attributes, spine), reach_of(attributes)
    low, high = np.minimum(low, centre - reach), np.maximum(high, centre + reach)
    low[0], high[0] = -np.inf, np.inf
    return lattice.box(low, high)


def _involved(attributes: Attributes, spine: Spine) -> list[int]:
    """Find the bones that the tumour sits in: the target, then the one above and the one below."""
    order = [at for at in (spine.target, spine.target - 1, spine.target + 1) if 0 <= at < len(spine.bones)]
    return order[: attributes.vertebrae]


def _bone(attributes: Attributes, spine: Spine, lattice: Lattice, bones: Bones, rng: Generator) -> tuple[Field, Field]:
    """HU of bone at 120 kV, and the share of a voxel that it fills."""
    share = coverage(bones.distance, 0.9)
    filled = np.flatnonzero(share)
    distance, arch = bones.distance.ravel()[filled], bones.arch.ravel()[filled]
    patches = noise(rng, lattice, (9, 5, 5)).ravel()[filled]
    grain = noise(rng, lattice, (5.0, 1.6, 1.6)).ravel()[filled] + np.float32(0.5) * patches
    thickness = np.float32(0.55) + np.float32(0.055) * np.clip(arch + 4, 0, 12) + np.float32(0.14) * patches
    core = coverage(distance + thickness, 0.9) / share.ravel()[filled]
    denser = spine.along(lattice.z, [_DENSER[level_of(bone.name)] for bone in spine.bones])
    mean = (0.97 * attributes.bone_hu * denser).astype(np.float32)[filled // (lattice.shape[1] * lattice.shape[2])]
    spongy = mean * (1 + np.float32(0.24) * grain + np.float32(0.3) * (1 - coverage(distance + np.float32(2), 4.0)))
    hu = np.zeros(lattice.shape, np.float32)
    hu.ravel()[filled] = spongy + (1 - core) * (np.float32(CORTEX_HU) - spongy)
    for bone, size in zip(spine.bones, spine.sizes, strict=True):
        if bone.name != "S1":
            _open_vein(hu, bone, size, lattice)
    return hu, share


def _open_vein(hu: Field, bone: Placed, size: Dimensions, lattice: Lattice) -> None:
    """Leave room for the basivertebral vein, which enters the body in the middle of its back."""
    centre = bone.centre + bone.rotation @ np.array([0.0, 0.34 * size.depth, 0.0])
    box = lattice.box(centre - 14, centre + 14)
    part = lattice.cut(*box)
    z, y, x = bone.local(part)
    vein = ellipsoid((z, y - np.float32(0.34 * size.depth), x), (0, 0, 0), (1.9, 0.22 * size.depth, 2.6))
    hu[box] += np.float32(0.75) * coverage(vein, 2.0) * (np.float32(20) - hu[box])
