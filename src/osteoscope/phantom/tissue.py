"""What lies around the bones, painted slice by slice: fat, muscle, vessels, organs, air, discs and the canal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from osteoscope.phantom.fields import Field, Lattice, noise
from osteoscope.phantom.vertebra import COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.random import Generator

    from osteoscope.phantom.anatomy import Spine
    from osteoscope.phantom.patients import Level


class Tissue(NamedTuple):
    """HU at 120 kV without contrast, what contrast adds in the portal venous phase, and the texture it has."""

    hu: float
    uptake: float
    texture: Literal["none", "muscle", "fat", "fine", "lung"]


TISSUES: Mapping[str, Tissue] = {
    "air": Tissue(-995, 0, "none"),
    "lung": Tissue(-850, 20, "lung"),
    "fat": Tissue(-103, 2, "fat"),
    "skin": Tissue(45, 10, "none"),
    "muscle": Tissue(57, 12, "muscle"),
    "vessel": Tissue(42, 115, "none"),
    "organ": Tissue(55, 55, "fine"),
    "kidney": Tissue(32, 140, "fine"),
    "bowel": Tissue(42, 30, "fine"),
    "content": Tissue(22, 0, "fine"),
    "gas": Tissue(-880, 0, "none"),
    "disc": Tissue(84, 4, "fine"),
    "csf": Tissue(9, 0, "none"),
    "cord": Tissue(36, 6, "none"),
    "root": Tissue(30, 6, "none"),
    "epidural": Tissue(-75, 10, "none"),
    "ligament": Tissue(70, 6, "none"),
    "airway": Tissue(-960, 0, "none"),
    "cartilage": Tissue(95, 10, "fine"),
    "thyroid": Tissue(100, 70, "fine"),
}


@dataclass(frozen=True, kw_only=True)
class Oval:
    """An ellipse in a slice: centre (y, x), half axes along y and x before it is turned, and the turn in radians."""

    y: float
    x: float
    half_y: float
    half_x: float
    turn: float = 0.0


class Canvas:
    """Slices that tissues are painted on, one shape over the other, with soft edges."""

    def __init__(self, lattice: Lattice, rng: Generator, iodine: float, marbling: float) -> None:
        self.values = np.zeros(lattice.shape, np.float32)
        self.lattice = lattice
        self._iodine = iodine
        self._edge = max(0.9, 1.1 * float(lattice.x[1] - lattice.x[0]))
        z, y, x = lattice.open()
        del z
        self._y, self._x = (
            axis + 2.2 * noise(rng, lattice, (30, 26, 26)) + np.float32(0.8) * noise(rng, lattice, (14, 9, 9))
            for axis in (y, x)
        )
        grain = noise(rng, lattice, (7.0, 2.4, 2.4))
        coarse = noise(rng, lattice, (16, 7, 5))
        streaks = np.clip(0.75 * grain + 0.7 * coarse - np.float32(1.7 - 0.9 * marbling), 0, 1.4)
        self._textures: dict[str, Field] = {
            "muscle": -70 * streaks + 4 * coarse + 3 * grain,
            "fat": 70 * np.clip(grain - np.float32(1.7), 0, 1.2) + 4 * coarse,
            "fine": 4 * grain,
            "lung": 45 * coarse + 420 * np.clip(grain - np.float32(1.55), 0, 1.2),
        }

    def fill(self, tissue: str) -> None:
        """Paint everything."""
        for plane in range(len(self.values)):
            self._blend(plane, (slice(None), slice(None)), np.float32(1), tissue)

    def oval(self, plane: int, shape: Oval, tissue: str, *, outside: bool = False) -> None:
        """Paint an ellipse, or all but it."""
        box = self._box(shape) if not outside else (slice(None), slice(None))
        y, x = self._y[plane][box] - np.float32(shape.y), self._x[plane][box] - np.float32(shape.x)
        if y.size == 0:
            return
        cosine, sine = np.float32(np.cos(shape.turn)), np.float32(np.sin(shape.turn))
        along, across = (cosine * y + sine * x, cosine * x - sine * y) if shape.turn else (y, x)
        ray = along * along + across * across
        size = (along * np.float32(1 / shape.half_y)) ** 2 + (across * np.float32(1 / shape.half_x)) ** 2
        distance = np.sqrt(ray) * (1 - 1 / np.sqrt(size + np.float32(1e-6)))
        share = np.clip(np.float32(0.5) - distance * np.float32(1 / self._edge), 0, 1)
        self._blend(plane, box, 1 - share if outside else share, tissue)

    def _box(self, shape: Oval) -> tuple[slice, slice]:
        reach = max(shape.half_y, shape.half_x) if shape.turn else 0.0
        half_y, half_x = max(reach, shape.half_y) + 8, max(reach, shape.half_x) + 8
        low = np.array([0, shape.y - half_y, shape.x - half_x])
        _, rows, columns = self.lattice.box(low, np.array([0, shape.y + half_y, shape.x + half_x]))
        return rows, columns

    def _blend(self, plane: int, box: tuple[slice, slice], share: Field | np.float32, tissue: str) -> None:
        hu, uptake, texture = TISSUES[tissue]
        value: Field | np.float32 = np.float32(hu + self._iodine * uptake)
        if texture != "none":
            value = value + self._textures[texture][plane][box]
        under = self.values[plane][box]
        under += share * (value - under)


class _Slice(NamedTuple):
    """Where the spine stands in a slice: middle of the body (y, x), its half depth and width, the canal."""

    number: int
    z: float
    y: float
    x: float
    depth: float
    width: float
    canal_y: float
    canal_depth: float
    canal_width: float
    order: float  # of the nearest vertebra, counted from C3 = 0; between vertebrae it is interpolated
    sacral_z: float  # height above the middle of S1; far above it where the sacrum is not in reach


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """A piece of bowel, or another round organ: centre (z, y, x), radii, share of it that is gas."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    gas: float


def paint_tissue(spine: Spine, level: Level, age: float, lattice: Lattice, rng: Generator, iodine: float) -> Field:
    """Paint what surrounds the spine.

    Parameters
    ----------
    spine
        The bones, which say where the middle and the canal lie.
    level
        Region of the body.
    age
        In years; with it fat grows into the muscles.
    lattice
        Places of the voxels.
    rng
        Source of what differs between patients.
    iodine
        Factor of what contrast adds; 0 without.

    Returns
    -------
    HU ``(planes, rows, columns)``.
    """
    canvas = Canvas(lattice, rng, iodine, float(np.clip((age - 15) / 60 + rng.normal(0, 0.15), 0, 1)))
    canvas.fill("fat")
    scene = _SCENES[level](rng, spine.scale)
    for cut in _slices(spine, lattice):
        scene(canvas, cut)
        _paint_column(canvas, cut)
    return canvas.values


def _slices(spine: Spine, lattice: Lattice) -> list[_Slice]:
    z = lattice.z
    y, x = spine.middle(z)
    known = [
        spine.along(z, values)
        for values in (
            [0.5 * size.depth for size in spine.sizes],
            [0.5 * size.width for size in spine.sizes],
            [size.canal_centre for size in spine.sizes],
            [0.5 * size.canal_depth for size in spine.sizes],
            [0.5 * size.canal_width for size in spine.sizes],
            [float((*COLUMN, "S1").index(bone.name)) for bone in spine.bones],
        )
    ]
    sacrum = spine.bones[-1].centre[0] if spine.bones[-1].name == "S1" else -1e3
    known.append(z - sacrum)
    return [
        _Slice(
            number, float(z[number]), float(y[number]), float(x[number]), *(float(values[number]) for values in known)
        )
        for number in range(len(z))
    ]


def _paint_column(canvas: Canvas, cut: _Slice) -> None:
    """Paint what lies between the bones: the disc, the canal with sac and cord, the ligaments behind."""
    plane = cut.number
    sacral = cut.sacral_z < 17
    if cut.sacral_z < -62:  # below the sacral canal
        return
    if cut.sacral_z > 8:
        canvas.oval(plane, Oval(y=cut.y, x=cut.x, half_y=cut.depth * 0.97, half_x=cut.width * 0.97), "disc")
    if not sacral:
        behind = cut.y + cut.canal_y + cut.canal_depth
        canvas.oval(plane, Oval(y=behind + 1, x=cut.x, half_y=4.5, half_x=cut.canal_width * 0.8), "ligament")
        canvas.oval(plane, Oval(y=behind + 15, x=cut.x, half_y=15, half_x=2.2), "ligament")
    canal = cut.y + cut.canal_y + (2 if sacral else 0)
    canvas.oval(plane, Oval(y=canal, x=cut.x, half_y=cut.canal_depth, half_x=cut.canal_width), "epidural")
    if cut.sacral_z < -35:  # the sac ends at S2
        return
    shrink = 0.8 if not sacral else 0.55
    sac = Oval(y=canal - 0.4, x=cut.x, half_y=cut.canal_depth * (shrink + 0.06), half_x=cut.canal_width * shrink)
    canvas.oval(plane, sac, "csf")
    cord = float(np.interp(cut.order, [0, 4, 8, 14, 16.5, 17.5, 18], [1, 1.08, 0.82, 0.85, 0.95, 0.5, 0]))
    if cord > 0:
        wide = 1.3 if cut.order < 5 else 1.1
        canvas.oval(plane, Oval(y=canal - 0.6, x=cut.x, half_y=3.9 * cord, half_x=4.8 * cord * wide), "cord")
    if cut.order > 16.5:
        for y, x in ((1.5, 0), (2, 3), (2, -3), (0, 5.5), (0, -5.5)):
            canvas.oval(plane, Oval(y=canal + y, x=cut.x + x * shrink, half_y=1.3, half_x=1.6), "root")


def _both(
    canvas: Canvas, cut: _Slice, tissue: str, y: float, x: float, half_y: float, half_x: float, turn: float = 0.0
) -> None:
    """Paint an ellipse on each side of the spine, `y` behind the middle of the body and `x` beside it."""
    for side in (-1, 1):
        canvas.oval(
            cut.number,
            Oval(y=cut.y + y, x=cut.x + side * x, half_y=half_y, half_x=half_x, turn=-side * turn),
            tissue,
        )


def _one(
    canvas: Canvas, cut: _Slice, tissue: str, y: float, x: float, half_y: float, half_x: float, turn: float = 0.0
) -> None:
    canvas.oval(cut.number, Oval(y=cut.y + y, x=cut.x + x, half_y=half_y, half_x=half_x, turn=turn), tissue)


def _loops(
    rng: Generator, count: int, low: tuple[float, float, float], high: tuple[float, float, float]
) -> list[_Loop]:
    loops = []
    for _ in range(count):
        centre = rng.uniform(low, high)
        radius = float(rng.uniform(9, 19))
        loops.append(
            _Loop(
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                radii=(radius * float(rng.uniform(1, 2.5)), radius, radius * float(rng.uniform(0.8, 1.6))),
                gas=float(rng.choice([0, 0, 0, 0.5, 0.75])),
            )
        )
    return loops


def _paint_loop(canvas: Canvas, cut: _Slice, loop: _Loop, wall: str = "bowel", content: str = "content") -> None:
    away = (cut.z - loop.centre[0]) / loop.radii[0]
    if abs(away) >= 0.98:
        return
    shrink = float(np.sqrt(1 - away * away))
    half_y, half_x = loop.radii[1] * shrink, loop.radii[2] * shrink
    canvas.oval(cut.number, Oval(y=loop.centre[1], x=loop.centre[2], half_y=half_y, half_x=half_x), wall)
    if min(half_y, half_x) < 4:
        return
    canvas.oval(cut.number, Oval(y=loop.centre[1], x=loop.centre[2], half_y=half_y - 2, half_x=half_x - 2), content)
    if loop.gas > 0:
        gas = Oval(
            y=loop.centre[1] - half_y * (1 - loop.gas),
            x=loop.centre[2],
            half_y=(half_y - 2) * loop.gas,
            half_x=(half_x - 3) * 0.9,
        )
        canvas.oval(cut.number, gas, "gas")


def _back_muscles(canvas: Canvas, cut: _Slice, size: float) -> None:
    """Paint multifidus, longissimus and iliocostalis, with thin fat between them."""
    behind = cut.canal_y + cut.canal_depth
    _both(canvas, cut, "muscle", behind + 12 * size, 29 * size, 21 * size, 29 * size, 0.22)
    _both(canvas, cut, "muscle", behind + 15 * size, 11 * size, 17 * size, 10 * size, 0.1)
    _both(canvas, cut, "fat", behind + 14 * size, 20.5 * size, 14 * size, 0.9, 0.38)
    _both(canvas, cut, "fat", behind + 12 * size, 40 * size, 14 * size, 0.8, 0.5)
    _both(canvas, cut, "fat", behind + 0.5 * size, 30 * size, 0.9, 15 * size, -0.15)


def _ring(
    canvas: Canvas, cut: _Slice, centre: float, half_y: float, half_x: float, layers: tuple[tuple[str, float], ...]
) -> None:
    """Paint layers around the body from the inside out, each given by its tissue and its thickness in mm."""
    for tissue, thickness in layers:
        canvas.oval(cut.number, Oval(y=centre, x=0, half_y=half_y, half_x=half_x), tissue, outside=True)
        half_y, half_x = half_y + thickness, half_x + thickness


def _lumbar(rng: Generator, scale: float) -> Callable[[Canvas, _Slice], None]:
    fat = float(rng.uniform(8, 30))
    loops = _loops(rng, 36, (-90, -110, -88), (90, -50, 88))
    muscle = float(rng.uniform(0.9, 1.1)) * scale
    vessel = float(rng.uniform(8, 10.5))
    branches = rng.uniform((-80, -75, -55), (80, -40, 55), (22, 3))

    def scene(canvas: Canvas, cut: _Slice) -> None:
        down = cut.order - 17  # 0 at L1, 4 at L5
        wall = (("muscle", 17.0 * muscle), ("fat", fat), ("skin", 2.4), ("air", 0.0))
        _ring(canvas, cut, cut.y - 40, 89 * scale, 106 * scale, wall)
        for loop in loops:
            _paint_loop(canvas, cut, loop)
        for z, y, x in branches:
            if abs(cut.z - z) < 12:
                canvas.oval(cut.number, Oval(y=y, x=x + 0.3 * (cut.z - z), half_y=2.0, half_x=2.2), "vessel")
        for side, lift in ((-1, 0.15), (1, -0.2)):
            _paint_kidney(canvas, cut, side, (down - 1.0 - lift) / 1.9)
        if down < 2:
            lobe = float(np.sqrt(np.clip(1 - (max(down + 0.5, 0) / 2.5) ** 2, 0.01, 1)))
            _one(canvas, cut, "organ", -50, -88, 58 * lobe, 58 * lobe)
        psoas = float(np.interp(down, [-1.5, 0, 2, 4, 6], [0.25, 0.6, 0.95, 1.1, 1.0])) * muscle
        _both(
            canvas, cut, "muscle", 1 - 2.5 * max(down - 1, 0), cut.width + 10.5 * psoas + 1, 19 * psoas, 14 * psoas, 0.2
        )
        _both(canvas, cut, "muscle", 20, 58, 19, 7.5, 0.75)
        _back_muscles(canvas, cut, 1.05 * muscle)
        front = -cut.depth - vessel - 2
        part = max(0.0, down - 3.0)  # the great vessels part before L4 to L5
        _one(canvas, cut, "vessel", front + 3 * part, 9 + 13 * part, vessel * (1 - 0.2 * min(part, 1)), vessel)
        if part > 0:
            _one(canvas, cut, "vessel", front - 1, 9 - 20 * part, vessel * 0.75, vessel * 0.75)
        _one(canvas, cut, "vessel", front + 2 + 4 * part, -15 - 9 * part, vessel * 0.85, vessel * 1.2)

    return scene


def _paint_kidney(canvas: Canvas, cut: _Slice, side: int, away: float) -> None:
    """Paint a kidney; `away` is from -1 at its upper pole to 1 at the lower."""
    if abs(away) >= 0.97:
        return
    shrink = float(np.sqrt(1 - away * away))
    kidney = Oval(y=cut.y + 5, x=cut.x + side * 64, half_y=25 * shrink, half_x=21 * shrink, turn=side * 0.5)
    canvas.oval(cut.number, kidney, "kidney")
    if abs(away) < 0.6:
        open_ = float(np.sqrt(1 - (away / 0.6) ** 2))
        sinus = Oval(y=cut.y, x=cut.x + side * 50, half_y=8 * open_, half_x=13 * open_, turn=side * 0.5)
        canvas.oval(cut.number, sinus, "fat")


def _thoracic(rng: Generator, scale: float) -> Callable[[Canvas, _Slice], None]:
    fat = float(rng.uniform(5, 18))
    muscle = float(rng.uniform(0.9, 1.1)) * scale
    vessel = float(rng.uniform(10, 12.5))
    dome = float(rng.normal(0, 0.4))

    def scene(canvas: Canvas, cut: _Slice) -> None:
        back = cut.canal_y + cut.canal_depth
        wide = float(np.interp(cut.order, [4, 7, 12], [112, 128, 132])) * scale
        chest = cut.y - 58
        _ring(
            canvas,
            cut,
            chest,
            58 + back - 3,
            wide,
            (("muscle", 26.0 * muscle), ("fat", fat), ("skin", 2.4), ("air", 0.0)),
        )
        _both(canvas, cut, "muscle", back - 10, 62, 16, 46, -0.42)
        open_ = float(np.clip((cut.order - 4.2) / 4.5, 0, 1))
        lung = float(np.sqrt(open_ * (2 - open_)))
        if lung > 0.05:
            _both(canvas, cut, "lung", -30 * lung - 4, cut.width * 0.5 + 57 * lung + 6, 63 * lung, 58 * lung)
            _both(canvas, cut, "lung", -5, cut.width + 27 * lung, 29 * lung, 24 * lung, 0.4)
        _one(canvas, cut, "fat", -56, 0, 46, 25)
        _one(canvas, cut, "fat", -cut.depth - 8, 5, 16, 24)
        _paint_upper_belly(canvas, cut, cut.order - 13.6 - dome)
        if abs(cut.order - 11.5) < 3.2:
            heart = float(np.sqrt(1 - ((cut.order - 11.5) / 3.2) ** 2))
            _one(canvas, cut, "vessel", -62 - 12 * heart, 16, 36 * heart + 1, 48 * heart + 1)
        _one(canvas, cut, "vessel", -cut.depth - vessel * 0.2, 20, vessel, vessel)
        _one(canvas, cut, "vessel", -cut.depth - 4, -6, 3.2, 3.8)
        _one(canvas, cut, "bowel", -cut.depth - 14, 2, 5.5, 8)
        if cut.order < 9:
            spread = max(0.0, cut.order - 7.5) * 12
            _one(canvas, cut, "cartilage", -cut.depth - 28, spread, 9.5, 10.5)
            _one(canvas, cut, "airway", -cut.depth - 28, spread, 7.8, 8.8)
            if spread > 0:
                _one(canvas, cut, "airway", -cut.depth - 28, -spread, 7, 7.5)
        _back_muscles(canvas, cut, 0.8 * muscle)
        _both(canvas, cut, "fat", back + 27 * muscle, 30, 1.0, 27, -0.22)
        _both(canvas, cut, "fat", back + 12, 66, 1.3, 22, -0.5)

    return scene


def _paint_upper_belly(canvas: Canvas, cut: _Slice, below: float) -> None:
    """Paint liver, spleen and stomach under the diaphragm, `below` vertebrae lower than its dome."""
    if below <= 0.1:
        return
    grow = float(np.sqrt(np.clip(1 - (1 - below / 3.5) ** 2, 0, 1))) if below < 3.5 else 1.0
    _one(canvas, cut, "organ", -52, -76, 80 * grow, 70 * grow)
    _one(canvas, cut, "organ", -18, 84, 40 * grow, 26 * grow, 0.4)
    _one(canvas, cut, "bowel", -72, 52, 36 * grow, 40 * grow)
    _one(canvas, cut, "content", -72, 52, 32 * grow, 36 * grow)


def _cervical(rng: Generator, scale: float) -> Callable[[Canvas, _Slice], None]:
    fat = float(rng.uniform(3, 9))
    muscle = float(rng.uniform(0.92, 1.08)) * scale

    def scene(canvas: Canvas, cut: _Slice) -> None:
        broad = max(0.0, cut.order - 3.0)
        body, back = cut.depth, cut.canal_y + cut.canal_depth
        half_x = (56 + 13 * broad**1.6) * scale
        neck = cut.y + 2 - 2 * broad
        skin = (("fat", fat), ("skin", 2.2), ("air", 0.0))
        _ring(canvas, cut, neck, (56 + 4 * broad) * scale, min(half_x, 190), skin)
        if broad > 0.3:
            _one(canvas, cut, "muscle", 16, 0, 28 + 2 * broad, min(half_x - 8, 180))
        _one(canvas, cut, "muscle", 23, 0, 32 * muscle, (46 + 5 * broad) * muscle)
        _both(canvas, cut, "fat", 25, 17.5, 24 * muscle, 17.5 * muscle, 0.2)
        _both(canvas, cut, "muscle", 24.5, 17, 23.2 * muscle, 16.4 * muscle, 0.2)
        _both(canvas, cut, "fat", 24, 15, 1.0, 13 * muscle, 0.1)
        _both(canvas, cut, "fat", 16, 34, 13, 0.9, -0.3)
        _one(canvas, cut, "fat", back + 16, 0, 15, 1.6)
        _both(canvas, cut, "muscle", -3, 30, 12 * muscle, 7 * muscle, 0.4)
        _both(canvas, cut, "muscle", -body - 2, 7, 4, 7.5, 0.2)
        _both(canvas, cut, "muscle", -15 - 3 * broad, 42 - 3 * broad, 8 * muscle, 15 * muscle, 0.7)
        _both(canvas, cut, "vessel", -body - 13, 24, 3.6, 3.6)
        _both(canvas, cut, "vessel", -body - 10, 33, 4.2, 6.5, 0.3)
        _both(canvas, cut, "vessel", -1.0, cut.canal_width + 3.5, 2.0, 2.0)
        if cut.order > 2.5:
            _both(canvas, cut, "thyroid", -body - 23, 15, 10, 6.5, 0.2)
        _one(canvas, cut, "bowel", -body - 8, 1, 4, 8)
        _one(canvas, cut, "cartilage", -body - 22, 0, 10.5, 10)
        _one(canvas, cut, "airway", -body - 22, 0, 8.8, 8.2)
        if cut.order < 3:
            _both(canvas, cut, "muscle", -body - 34, 8, 5, 9)
        apex = float(np.clip((cut.order - 5.2) / 2.5, 0, 1))
        if apex > 0.02:
            lung = float(np.sqrt(apex * (2 - apex)))
            _both(canvas, cut, "lung", -18, 24 + 20 * lung, 36 * lung, 26 * lung)

    return scene


def _sacral(rng: Generator, scale: float) -> Callable[[Canvas, _Slice], None]:
    fat = float(rng.uniform(12, 34))
    muscle = float(rng.uniform(0.95, 1.1)) * scale
    loops = _loops(rng, 26, (-90, -120, -70), (90, -55, 70))

    def scene(canvas: Canvas, cut: _Slice) -> None:
        level = max(0.0, -cut.sacral_z / 28)  # 0 at S1, 1 at S2
        _ring(canvas, cut, -48, (130 + 0.5 * fat) * scale, 178, (("skin", 2.4), ("air", 0.0)))
        for loop in loops:
            _paint_loop(canvas, cut, loop)
        lower = min(level, 3.5)
        _both(canvas, cut, "muscle", 34 - 6 * lower, 66, 27 * muscle, 46 * muscle, -0.5)
        _both(canvas, cut, "muscle", 8 - 8 * lower, 92, 19, 38, 0.95)
        _both(canvas, cut, "fat", 18 - 8 * lower, 84, 1.5, 30, -0.75)
        _both(canvas, cut, "fat", 40 - 6 * lower, 66, 1.0, 30, -0.5)
        _both(canvas, cut, "muscle", -36 + 2 * lower, 49, 21 * muscle, 16 * muscle, 0.3)
        _both(canvas, cut, "muscle", -22, 78, 10, 34, -0.95)
        if level > 0.7:
            _both(canvas, cut, "muscle", -8, 40, 9, 20, -0.25)
        if level < 2.8:
            shrink = 1 - 0.25 * level
            _both(canvas, cut, "muscle", 34, 15, 13 * muscle * shrink, 14 * muscle * shrink, 0.1)
        apart = 16 + 9 * lower
        _both(canvas, cut, "vessel", -29 - 3 * lower, apart, 6.5, 7)
        _both(canvas, cut, "vessel", -22 - 2 * lower, apart + 7, 7, 8)
        if level > 1:
            _one(canvas, cut, "bowel", -44, 4, 17, 21)
            _one(canvas, cut, "content", -44, 4, 14, 18)
            _one(canvas, cut, "gas", -50, 4, 6, 11)

    return scene


_SCENES: Mapping[Level, Callable[[Generator, float], Callable[[Canvas, _Slice], None]]] = {
    "cervical": _cervical,
    "thoracic": _thoracic,
    "lumbar": _lumbar,
    "sacral": _sacral,
}
