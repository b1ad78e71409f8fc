"""Reading DICOM beside its peers: a series beside SimpleITK's reader, headers and archives beside pydicom's loop.

Three claims, each on files that are made first and lie in the operating system's cache:

- A CT series of 500 slices of 512 x 512 becomes an array: ours assembles it (with the SHA-256 of every file and all
  checks of its geometry) and reads all planes; SimpleITK sorts the files of the folder and reads them. The affines and
  all values are compared.
- The headers of 2,000 files, with the elements, nested and private ones among them, that scanners write: ours reads
  what series assembly needs of each; pydicom reads each with ``stop_before_pixels``.
- An archive of 20,000 small files in folders, as a PACS exports them: ours walks it, hashes and reads each header in
  worker processes and commits to SQLite, and then does so again with nothing changed; pydicom reads each with
  ``stop_before_pixels`` and keeps nothing. Memory is the peak of the process that indexes, without its workers, over a
  tenth of the files and over all of them.

Rounds alternate, the first of each is not counted, and a ratio is the median over rounds of the peer's time by ours.
The last line is one JSON object with the ratios.

    python benchmarks/ingest.py [--slices N] [--headers N] [--files N] [--rounds N] [--folder FOLDER]
"""

from __future__ import annotations

import os

# Linux gives numpy huge pages, and a virtual machine that has not used them before makes them wait for its host:
# seconds that say nothing about either reader.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from osteoscope.cohort.archive.database import opened_index
from osteoscope.cohort.archive.indexing import Indexed, update_index
from osteoscope.imaging.dicom import read_header
from osteoscope.imaging.series import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def slice_of(series: str, index: int, stored: NDArray[np.int16]) -> Dataset:
    """Make a CT slice with about as many elements as a scanner writes."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data_set.StudyInstanceUID = data_set.FrameOfReferenceUID = data_set.SeriesInstanceUID = series
    data_set.Modality, data_set.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.Manufacturer, data_set.ManufacturerModelName, data_set.KVP = "Nobody", "Benchmark", 120
    data_set.InstanceNumber, data_set.AcquisitionNumber = index + 1, 1
    data_set.SliceThickness, data_set.ConvolutionKernel = 1, "B30f"
    data_set.ImagePositionPatient, data_set.ImageOrientationPatient = [-250, -250, 0.625 * index], [1, 0, 0, 0, 1, 0]
    data_set.PixelSpacing = [0.9765625, 0.9765625]
    data_set.RescaleSlope, data_set.RescaleIntercept = 1, -1024
    for number in range(50):
        data_set.add_new(0x0018A100 + number, "FD", float(number))
    block = data_set.private_block(0x0029, "Benchmark", create=True)
    for number in range(40):
        block.add_new(number, "OB" if number % 8 == 0 else "LO", bytes(200) if number % 8 == 0 else "private")
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-11500", "SRT", "Spine"
    data_set.ProcedureCodeSequence, data_set.AnatomicRegionSequence = [item], [item]
    data_set.Rows, data_set.Columns = stored.shape
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 16, 16, 15, 1
    data_set.PixelData = stored.tobytes()
    return data_set


def write_series(folder: Path, count: int, size: int) -> list[Path]:
    """Write slices of noise, under names that are no order."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    noise = random.integers(0, 4096, (size, size), dtype=np.int16)
    names, series = random.permutation(count), generate_uid()
    paths = [folder / f"{name:05d}.dcm" for name in names]
    for index, path in enumerate(paths):
        slice_of(series, index, np.roll(noise, index)).save_as(path, enforce_file_format=True)
    return sorted(paths)


def timed(read: Callable[[], Any]) -> tuple[float, Any]:
    """Run something and give the seconds that it took with what it gave."""
    started = time.perf_counter()
    result = read()
    return time.perf_counter() - started, result


def assembled(paths: list[Path]) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Assemble a series and read all of its planes."""
    (series,) = assemble(paths).series
    return series.volume.read(), series.volume.geometry.affine


def by_simpleitk(folder: Path) -> SimpleITK.Image:
    """Sort the files of a folder and read them."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image: SimpleITK.Image = reader.Execute()
    return image


def refuse_difference(values: NDArray[np.float32], affine: NDArray[np.float64] | None, image: SimpleITK.Image) -> None:
    """Make sure that both sides read the same."""
    expected = np.eye(4)
    expected[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    expected[:3, 3] = image.GetOrigin()
    alike = affine is not None and np.allclose(affine, expected, atol=1e-3)
    if not alike or not np.allclose(values, SimpleITK.GetArrayViewFromImage(image), atol=1e-3):
        msg = "the two sides read different volumes"
        raise RuntimeError(msg)


def series_seconds(paths: list[Path], rounds: int) -> list[tuple[float, float]]:
    """Time both sides on a series, in turn."""
    seconds = []
    for number in range(rounds + 1):
        mine, (values, affine) = timed(lambda: assembled(paths))
        theirs, image = timed(lambda: by_simpleitk(paths[0].parent))
        if number:
            seconds.append((mine, theirs))
            print(f"series, round {number}: ours {mine:.3f} s, SimpleITK {theirs:.3f} s", flush=True)
        else:
            refuse_difference(values, affine, image)
        # The next round has the memory to itself.
        del values, image
    return seconds


def header_seconds(paths: list[Path], rounds: int) -> list[tuple[float, float]]:
    """Time both sides on headers, in turn."""
    seconds = []
    for number in range(rounds + 1):
        mine, _ = timed(lambda: [read_header(path) for path in paths])
        theirs, _ = timed(lambda: [pydicom.dcmread(path, stop_before_pixels=True) for path in paths])
        if number:
            seconds.append((mine, theirs))
            print(f"headers, round {number}: ours {mine:.3f} s, pydicom {theirs:.3f} s", flush=True)
    return seconds


SLICES = 100
"""Files of a series."""

PEAK = """
import resource, sys
from pathlib import Path
from osteoscope.cohort.archive.database import opened_index
from osteoscope.cohort.archive.indexing import update_index
if __name__ == "__main__":
    with opened_index(Path(sys.argv[2])) as connection:
        update_index(connection, Path(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_archive(folder: Path, count: int) -> None:
    """Write series of small slices, each in a folder of its own, unless they are there from another run."""
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64), dtype=np.int16)
    for start in range(0, count, SLICES):
        series = folder / f"{start // SLICES:05d}"
        if series.is_dir():
            continue
        series.mkdir(parents=True)
        uid = generate_uid()
        for index in range(min(SLICES, count - start)):
            data_set = slice_of(uid, index, np.roll(noise, start + index))
            data_set.PatientID, data_set.PatientName = f"{start // (4 * SLICES):05d}", "Nobody^Anna"
            data_set.PatientBirthDate, data_set.PatientSex, data_set.StudyDate = "19010203", "F", "20200102"
            data_set.save_as(series / f"{index:05d}.dcm", enforce_file_format=True)


def by_pydicom(folder: Path) -> int:
    """Read every header in a loop."""
    return sum(1 for path in folder.rglob("*.dcm") if pydicom.dcmread(path, stop_before_pixels=True))


def indexed(folder: Path, index: Path) -> Indexed:
    """Bring an index up to a folder."""
    with opened_index(index) as connection:
        return update_index(connection, folder)


def peak(folder: Path, index: Path) -> float:
    """Index a folder in a process of its own; give that process's peak memory in MiB."""
    script = index.with_suffix(".py")
    script.write_text(PEAK, encoding="utf-8")
    index.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, script, folder, index], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def archive_figures(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time both sides on an archive, in turn, and measure memory."""
    archive, index = folder / "archive", folder / "index.sqlite"
    write_archive(archive, count)
    seconds: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):
        index.unlink(missing_ok=True)
        first, found = timed(lambda: indexed(archive, index))
        again, same = timed(lambda: indexed(archive, index))
        theirs, read = timed(lambda: by_pydicom(archive))
        if (found.new, same.unchanged, read) != (count, count, count):
            msg = f"expected {count} files, found {found}, then {same}; pydicom {read}"
            raise RuntimeError(msg)
        if number:
            seconds.append((first, again, theirs))
            print(
                f"archive, round {number}: index {first:.2f} s, again {again:.2f} s, pydicom {theirs:.2f} s", flush=True
            )
    tenth = folder / "tenth"
    shutil.rmtree(tenth, ignore_errors=True)
    write_archive(tenth, count // 10)
    few, all_ = peak(tenth, folder / "few.sqlite"), peak(archive, folder / "all.sqlite")
    return {
        "index_vs_pydicom": round(statistics.median(theirs / first for first, _, theirs in seconds), 3),
        "again_by_first": round(statistics.median(again / first for first, again, _ in seconds), 4),
        "index_seconds": round(statistics.median(first for first, _, _ in seconds), 3),
        "again_seconds": round(statistics.median(again for _, again, _ in seconds), 3),
        "peak_mib_of_a_tenth": round(few, 1),
        "peak_mib": round(all_, 1),
        "files": count,
    }


def ratio(seconds: list[tuple[float, float]]) -> float:
    """Median over rounds of the peer's time by ours."""
    return round(statistics.median(theirs / mine for mine, theirs in seconds), 3)


def main() -> None:
    """Make the files, run both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--headers", type=int, default=2000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made, and stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as place:
        folder = Path(place)
        series = series_seconds(write_series(folder / "series", options.slices, 512), options.rounds)
        headers = header_seconds(write_series(folder / "headers", options.headers, 128), options.rounds)
        archive = archive_figures(folder, options.files, options.rounds)
    print(
        json.dumps(
            {
                "assembly_vs_simpleitk": ratio(series),
                "headers_vs_pydicom": ratio(headers),
                "assembly_seconds": round(statistics.median(mine for mine, _ in series), 3),
                "header_milliseconds": round(statistics.median(mine for mine, _ in headers) / options.headers * 1e3, 4),
                **archive,
                "slices": options.slices,
                "headers": options.headers,
                "processors": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
