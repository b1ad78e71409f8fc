"""How long an audit takes, and how many planted copies its search for near duplicates finds, beside a perceptual hash.

Copies of radiographs are planted in every way that a copy goes: at another size, squashed to another aspect,
compressed, mirrored, cropped, turned, framed, made brighter, noisy, several of these at once. The peer is what is
usual: a 64-bit hash of the signs of 8 x 8 cosine coefficients at 8 bits (as in the ``imagehash`` library's ``phash``),
pairs within a Hamming distance of 10. Recall is the share of planted copies found; ``false_pairs`` counts pairs of
different pictures that are called one. The last line is one JSON object.

    python benchmarks/audit.py ARCHIVE [--copies N]

ARCHIVE is a folder of the Bone Tumor X-ray Radiograph Dataset. ``seconds_cold``: the whole audit of all of its images,
with nothing cached; ``seconds_warm``: the same again; ``seconds_looks_cached``: another audit of the same images;
``seconds_limit``: what the first may take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from scipy.fft import dctn

from osteoscope.cohort.audit import audit
from osteoscope.cohort.audit.twins import find_twins, look_at
from osteoscope.cohort.btxrd import read_btxrd
from osteoscope.cohort.from_table import read_table
from osteoscope.imaging.picture import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLASSES = ("osteosarcoma", "giant cell tumor")
SECONDS_LIMIT = 60
HAMMING_DISTANCE = 10

Picture = Image.Image


def compressed(picture: Picture, quality: int = 30) -> Picture:
    """Save as JPEG and read again."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("L")


def cropped(picture: Picture, share: float) -> Picture:
    """Cut a share off the left and the top, and half of it off the other sides."""
    width, height = picture.size
    return picture.crop(
        (int(share * width), int(share * height), int((1 - share / 2) * width), int((1 - share / 2) * height))
    )


def brighter(picture: Picture) -> Picture:
    """Change gamma, contrast and brightness."""
    return picture.point([int(255 * (0.1 + 0.85 * (grey / 255) ** 0.75)) for grey in range(256)])


def noisy(picture: Picture) -> Picture:
    """Add noise of six grey levels."""
    values = np.asarray(picture, dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, 6, values.shape)
    return Image.fromarray(np.clip(values + noise, 0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "resized": lambda p: p.resize((p.width * 3 // 4, p.height * 3 // 4)),
    "squashed": lambda p: p.resize((128, 128)),
    "jpeg_30": compressed,
    "mirrored": ImageOps.mirror,
    "upside_down": ImageOps.flip,
    "cropped_3": lambda p: cropped(p, 0.03),
    "cropped_8": lambda p: cropped(p, 0.08),
    "cropped_12": lambda p: cropped(p, 0.12),
    "turned_5": lambda p: p.rotate(5, resample=Image.Resampling.BICUBIC),
    "framed": lambda p: ImageOps.expand(p, border=(14, 6, 9, 20), fill=0),
    "brighter": brighter,
    "noisy": noisy,
    "several": lambda p: compressed(ImageOps.mirror(brighter(cropped(p, 0.05))), 50),
}


def perceptual_hash(picture: Picture) -> np.ndarray:
    """64 bits: whether each of the lowest 8 x 8 cosine coefficients of 32 x 32 greys is above their median."""
    small = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    coefficients = dctn(small)[:8, :8].ravel()
    bits: np.ndarray = coefficients > np.median(coefficients)
    return bits


def close_pairs(pictures: Sequence[Picture]) -> set[frozenset[int]]:
    """Pairs of places whose hashes are within the usual distance."""
    bits = np.array([perceptual_hash(picture) for picture in pictures]).astype(np.int64)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    return {frozenset((int(i), int(j))) for i, j in np.argwhere(np.triu(distance <= HAMMING_DISTANCE, k=1))}


def our_pairs(pictures: Sequence[Picture], folder: Path) -> set[frozenset[int]]:
    """Pairs of places that the audit confirms."""
    lines = ["patient,image,label"]
    for place, picture in enumerate(pictures):
        picture.save(folder / f"{place}.png")
        lines.append(f"p{place},{place}.png,{CLASSES[place % 2]}")
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    cohort = read_table(folder / "table.csv", folder, CLASSES, "copies")
    twins = find_twins(cohort, look_at(cohort))
    return {frozenset((int(Path(twin.first).stem), int(Path(twin.second).stem))) for twin in twins if twin.confirmed}


def planted(originals: Sequence[Picture]) -> dict[str, dict[str, Any]]:
    """Plant copies one way after another: recall and false pairs, ours and the hash's."""
    found = {}
    for name, change in CHANGES.items():
        pictures = [*originals, *(change(picture) for picture in originals)]
        wanted = {frozenset((place, place + len(originals))) for place in range(len(originals))}
        with tempfile.TemporaryDirectory() as folder:
            ours = our_pairs(pictures, Path(folder))
        theirs = close_pairs(pictures)
        found[name] = {
            "recall": len(wanted & ours) / len(wanted),
            "false_pairs": len(ours - wanted),
            "hash_recall": len(wanted & theirs) / len(wanted),
            "hash_false_pairs": len(theirs - wanted),
        }
        print(f"{name}: {found[name]}", flush=True)
    return found


def main() -> None:
    """Time the audit of an archive, plant copies, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--copies", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["OSTEOSCOPE_CACHE"] = cache
        cohort = read_btxrd(options.archive, CLASSES)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            audit(cohort)
            seconds.append(round(time.perf_counter() - started, 1))
            print(f"audit of {len(cohort.frame)} images: {seconds[-1]} s", flush=True)
        # Other options, so that the looks are cached and the whole audit is not.
        started = time.perf_counter()
        audit(cohort, folds=4)
        seconds.append(round(time.perf_counter() - started, 1))
        tumours = cohort.frame[cohort.frame["kind"] != "normal"]["image"].drop_duplicates()
        names = tumours.iloc[:: max(1, len(tumours) // options.copies)][: options.copies]
        planes = [read_picture(options.archive / name).read()[0] for name in names]
        originals = [Image.fromarray((255 * plane).round().astype(np.uint8)) for plane in planes]
        copies = planted(originals)
    print(
        json.dumps(
            {
                "images": len(cohort.frame),
                "seconds_cold": seconds[0],
                "seconds_warm": seconds[1],
                "seconds_looks_cached": seconds[2],
                "seconds_limit": SECONDS_LIMIT,
                "pictures": len(originals),
                "planted": copies,
            }
        )
    )


if __name__ == "__main__":
    main()
