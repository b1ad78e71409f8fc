"""Feeds files that are mutated towards new paths of the code to the readers, for a bounded time.

    PYTHONPATH=tests python fuzz/readers.py dicom scan picture zip --seconds 15

Whatever the bytes, a reader gives an image or refuses by a reason of the closed list. Anything else ends the run with
an exit code other than 0, and leaves the bytes in a file ``crash-…``, ``timeout-…`` or ``oom-…`` in the current folder:
an exception, the code ``unknown``, more than 10 seconds, more than 1 GiB over what the interpreter takes itself. What
is found becomes a test that makes such a file by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import logging
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

# Only what is imported in here is followed; the readers are loaded when they are needed otherwise.
with atheris.instrument_imports(include=["osteoscope.imaging", "nibabel", "PIL", "pydicom", "zipfile"]):
    import nibabel
    import numpy as np
    from dicom_files import JPEG_BASELINE, LOSSLESS, Stored, write_dicom, write_enhanced
    from PIL import Image

    from osteoscope.errors import OsteoscopeError
    from osteoscope.imaging.open import images_at
    from osteoscope.imaging.refusal import RefusalCode
    from osteoscope.imaging.values import values_of

    for reader in ("metaimage", "nifti", "picture", "series"):
        importlib.import_module(f"osteoscope.imaging.{reader}")

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = np.random.default_rng(0)
SCAN = RANDOM.integers(0, 400, (4, 12, 10), dtype=np.uint16)
SLICE = RANDOM.integers(0, 400, (32, 32), dtype=np.uint16)
GREY = RANDOM.integers(0, 256, (40, 36), dtype=np.uint8)

MOST_SECONDS = 10
MOST_MEBIBYTES = 1024 + 400


def dicom(folder: Path) -> None:
    """Write a file in each encoding, and an enhanced one."""
    for number, transfer_syntax in enumerate(LOSSLESS):
        write_dicom(folder / f"{number}", SLICE, position=(0, 0, 0), encoding=Stored(transfer_syntax=transfer_syntax))
    write_dicom(folder / "jpeg", GREY[:16, :16], "DX", encoding=Stored(transfer_syntax=JPEG_BASELINE, bits=8))
    write_enhanced(folder / "enhanced", SCAN, "MR", [(0, 0, 3 * index) for index in range(4)])
    (folder / "bare").write_bytes((folder / "0").read_bytes()[132:])


def scan(folder: Path) -> None:
    """Write NIfTI of both versions, compressed and not, a MetaImage and a NRRD."""
    affine = np.diag([-0.5, -0.5, 3, 1])
    images = {"one": nibabel.Nifti1Image(SCAN.T, affine), "two": nibabel.Nifti2Image(SCAN.T, affine)}
    for name, image in images.items():
        (folder / name).write_bytes(image.to_bytes())
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), 1))
    start = "ObjectType = Image\nNDims = 3\nDimSize = 10 12 4\nElementSpacing = 1 1 3\nElementType = MET_USHORT\n"
    (folder / "mha").write_bytes(f"{start}ElementDataFile = LOCAL\n".encode() + SCAN.tobytes())
    start = "NRRD0004\ntype: ushort\ndimension: 3\nsizes: 10 12 4\nspace: left-posterior-superior\nendian: little\n"
    directions = "space directions: (1,0,0) (0,1,0) (0,0,3)\nspace origin: (0,0,0)\nencoding: raw\n\n"
    (folder / "nrrd").write_bytes((start + directions).encode() + SCAN.tobytes())


def pictures(folder: Path) -> None:
    """Write pictures of every kind."""
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        Image.fromarray(GREY).save(folder / name)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(GREY).convert("RGB").save(folder / "colour.tif", compression="tiff_lzw")
    Image.fromarray(GREY).convert("P").save(folder / "palette.png", transparency=3)


def zips(folder: Path) -> None:
    """Write zips, some of which mean harm."""
    Image.fromarray(GREY[:33, :33]).save(folder / "a.png")
    content = (folder / "a.png").read_bytes()
    for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{number}.zip", "w", method) as packed:
            packed.writestr("s/a.png", content)
            packed.writestr("../b", b"climbs")
            packed.writestr("c.zip", b"PK\x05\x06" + bytes(18))
    (folder / "a.png").unlink()


TARGETS: dict[str, Callable[[Path], None]] = {"dicom": dicom, "scan": scan, "picture": pictures, "zip": zips}


def read(path: Path) -> None:
    """Open and decode whatever is there, and fail where that ends in anything but an image or a reason."""
    with images_at([path]) as opened:
        for refusal in opened.refused:
            assert refusal.code is not RefusalCode.UNKNOWN, refusal.sentence
        for image in opened.images:
            with contextlib.suppress(OsteoscopeError):
                values_of(image.volume)


def fuzz(target: str, folder: Path, limits: list[str]) -> None:
    """Fuzz one target from its seeds on; this process ends with it."""
    warnings.simplefilter("ignore")
    logging.disable()
    corpus, path = folder / "corpus", folder / "file"
    corpus.mkdir()
    TARGETS[target](corpus)

    def one(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def main() -> None:
    """Fuzz each target in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=15, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        limits = [f"-max_total_time={asked.seconds}", f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEBIBYTES}"]
        fuzz(asked.targets[0], asked.folder, [*limits, f"-seed={asked.seed}", "-max_len=16384", "-verbosity=0"])
    for target in asked.targets:
        # TMPDIR, too, so that what a run that was ended leaves goes with the folder.
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            options = ["--seconds", str(asked.seconds), "--seed", str(asked.seed), "--folder", folder]
            command = [sys.executable, __file__, target, *options]
            ended = subprocess.run(command, env={**os.environ, "TMPDIR": folder}, check=False).returncode
        print(f"{target}: {'nothing found' if ended == 0 else f'found something, exit code {ended}'}")
        if ended:
            sys.exit(1)


if __name__ == "__main__":
    main()
