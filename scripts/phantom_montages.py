"""Draws the montages of both tumours in docs/phantom.md: three planes through the tumour, in two windows each.

Everything on them is simulated. The same version of the program draws the same pictures.

    python scripts/phantom_montages.py [--folder docs/images]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from osteoscope.imaging.resampling import Rectangle, resample_rectangle
from osteoscope.phantom.patients import draw_patients
from osteoscope.phantom.render import render

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Patient
    from osteoscope.phantom.render import Rendering

SEED = 4
SHOWN = {"osteosarcoma": 48, "giant-cell-tumor": 64, "lytic-osteosarcoma": 5, "ossified-giant-cell-tumor": 66}
"""By the name of the picture, which of the patients drawn with that seed at site A, counted from 0."""

SIDE, PIXELS = 130.0, 216
"""Of a panel, in mm and in pixels."""

WINDOWS = {"soft tissue, -160 to 240 HU": (-160.0, 240.0), "bone, -500 to 1300 HU": (-500.0, 1300.0)}
GREYS = 48
"""Steps from black to white: fewer make the files smaller, and on a noisy CT nobody sees them."""

GAP, LINE = 4, 16


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane through the tumour: which axis it is at right angles to, and which sides of the patient it shows."""

    name: str
    axis: int
    left: str
    right: str
    top: str


PLANES = (
    Plane(name="axial", axis=0, left="R", right="L", top="A"),
    Plane(name="sagittal", axis=2, left="A", right="P", top="H"),
    Plane(name="coronal", axis=1, left="R", right="L", top="H"),
)


def panel(rendering: Rendering, plane: Plane, window: tuple[float, float]) -> Image.Image:
    """Show a plane through the middle of the tumour, square pixels, the head up."""
    steps = rendering.geometry.steps
    if steps is None:
        msg = "expected a CT whose place is known"
        raise ValueError(msg)
    middle = np.argwhere(rendering.lesion).mean(axis=0)
    values = np.take(rendering.hu, round(middle[plane.axis]), axis=plane.axis).astype(np.float32)
    down, across = (axis for axis in range(3) if axis != plane.axis)
    centre = [float(middle[down]), float(middle[across])]
    if plane.axis != 0:  # planes are counted from the feet
        values, centre[0] = values[::-1], len(values) - 1 - centre[0]
    height, width = SIDE / steps[down], SIDE / steps[across]
    part = Rectangle(left=centre[1] + 0.5 - width / 2, top=centre[0] + 0.5 - height / 2, width=width, height=height)
    shown = resample_rectangle(np.ascontiguousarray(values), part, (PIXELS, PIXELS), fill=window[0])
    return lettered(greys(shown, window), plane)


def greys(values: NDArray[np.float32], window: tuple[float, float]) -> Image.Image:
    """Bring a window to greys."""
    low, high = window
    share = np.clip((values - low) / (high - low), 0, 1)
    return Image.fromarray(np.rint(np.rint(share * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8))


def lettered(picture: Image.Image, plane: Plane) -> Image.Image:
    """Write the sides of the patient at the edges."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for letter, place, anchor in (
        (plane.left, (4, PIXELS / 2), "lm"),
        (plane.right, (PIXELS - 4, PIXELS / 2), "rm"),
        (plane.top, (PIXELS / 2, 4), "mt"),
    ):
        draw.text(place, letter, fill=255, font=font, anchor=anchor, stroke_width=1, stroke_fill=0)
    return picture


def montage(patient: Patient) -> Image.Image:
    """Set the planes beside each other, a window a row."""
    rendering = render(patient.attributes, patient.seed)
    width = len(PLANES) * (PIXELS + GAP) + GAP
    canvas = Image.new("L", (width, LINE + len(WINDOWS) * (PIXELS + LINE + GAP) + LINE))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    draw.text((GAP, 1), title(patient), fill=255, font=font)
    for row, (name, window) in enumerate(WINDOWS.items()):
        top = LINE + row * (PIXELS + LINE + GAP)
        for column, plane in enumerate(PLANES):
            left = GAP + column * (PIXELS + GAP)
            draw.text((left, top + 1), f"{plane.name}; {name}" if column == 0 else plane.name, fill=200, font=font)
            canvas.paste(panel(rendering, plane, window), (left, top + LINE))
    draw.text((GAP, canvas.height - LINE), "Synthetic. No patient was scanned.", fill=255, font=font)
    return canvas


def title(patient: Patient) -> str:
    """Say who is shown."""
    known = patient.attributes
    return f"Phantom: {patient.label} ({patient.kind}), {known.vertebra}, {known.sex}, {int(known.age)} years"


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    patients = draw_patients(max(SHOWN.values()) + 1, SEED, ("A",))
    for name, number in SHOWN.items():
        montage(patients[number]).save(folder / f"phantom-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
