"""Making phantom patients: as DICOM, with their truth, in any number of processes."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from osteoscope import __version__
from osteoscope.errors import ConfigError, RunError, StorageError, require
from osteoscope.processes import begin_process, cores, spawning
from osteoscope.storage import folder_locked, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from osteoscope.phantom.patients import Centre, Label, Patient

    Progress = Callable[[int, int], None]
    """Is told how many of how many are done."""

T = TypeVar("T", bound=str)

SCHEMA = 1
"""Of `HEADER`; raised when its shape changes."""

HEADER, LABELS, README = "phantom.json", "labels.csv", "README.txt"

MOST_PATIENTS = 100_000
MOST_PLANES, MOST_PIXELS, MOST_VOXELS = 512, 512, 5_000_000
"""Of one CT: 5 million voxels take about 0.9 GiB while they are rendered."""

_MOST_PROCESSES = 8
"""Unless more are asked for; each takes up to 0.4 GiB for a CT of the usual size."""

_OTHER = "choose another folder with -o"


@dataclass(frozen=True, kw_only=True)
class PhantomSummary:
    """What was made.

    Parameters
    ----------
    folder
        That holds all.
    written, kept
        Patients that were made now, and before.
    counts
        Patients by label and centre.
    """

    folder: Path
    written: int
    kept: int
    counts: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "provenance": "phantom",
            "phantoms": str(self.folder),
            "labels": str(self.folder / LABELS),
            "patients": self.written + self.kept,
            "written": self.written,
            "kept": self.kept,
            "classes": self.counts,
        }


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What the patients of a folder follow from, beside their number."""

    seed: int
    sites: tuple[Centre, ...]
    classes: tuple[Label, ...]
    shape: tuple[int, int, int]
    version: str = __version__


def make_phantoms(
    output: Path,
    *,
    patients: int,
    seed: int = 0,
    sites: Sequence[str] = (),
    classes: Sequence[str] = (),
    planes: int = 48,
    pixels: int = 256,
    processes: int | None = None,
    progress: Progress | None = None,
) -> PhantomSummary:
    """Draw patients and write each as a CT series, a segmentation of the tumour and its truth, with a table of labels.

    A patient is written whole or not at all, and one that is there is kept: the same call goes on where another was
    interrupted, and one for more patients adds to them. The same arguments give the same bytes, whatever the number of
    processes. These are started anew: a script that calls this needs its ``if __name__ == "__main__"``.

    Parameters
    ----------
    output
        Folder to make or to add to; `docs/phantom.md` says what it holds.
    patients
        How many, from 1 to `MOST_PATIENTS`.
    seed
        Of all that is drawn, from 0.
    sites
        Simulated sites, of ``A``, ``B`` and ``C``; all where left out.
    classes
        Diagnoses; both where left out.
    planes, pixels
        Slices of a CT, and rows and columns of a slice.
    processes
        How many render at a time; as many as there are cores, and at most 8, where left out.
    progress
        Is told how many of how many patients are there.

    Raises
    ------
    ConfigError
        If a number, a site or a class cannot be.
    StorageError
        If the folder holds something else or phantoms of other settings, or there is no space; what was there stays.
    RunError
        If another process is making phantoms in the folder, or one is ended from outside, as it is where memory runs
        out.
    MissingExtraError
        If scipy is not installed.
    """
    require("scipy")
    from osteoscope.phantom import patients as population

    _check_numbers(patients, seed, planes, pixels, processes)
    recipe = _Recipe(
        seed=seed,
        sites=_chosen(sites, population.CENTRES, "site"),
        classes=_chosen(classes, population.LABELS, "class"),
        shape=(planes, pixels, pixels),
    )
    _refuse_other(output, recipe)
    _refuse_small_disk(output, recipe, patients)
    drawn = _draw(recipe, patients)
    busy = RunError(
        "another process is making phantoms in this folder", path=output, remedy=f"wait for it, or {_OTHER}"
    )
    with folder_locked(output, otherwise=busy):
        # Another process may have made others here since.
        _refuse_other(output, recipe)
        missing = _missing(output, drawn)
        _write_header(output, recipe)
        _write_missing(missing, output, recipe, processes, _counted(progress, len(drawn) - len(missing), len(drawn)))
        write_text(output / LABELS, _labels(drawn))
    return PhantomSummary(
        folder=output, written=len(missing), kept=len(drawn) - len(missing), counts=_counts(drawn, recipe)
    )


def _check_numbers(patients: int, seed: int, planes: int, pixels: int, processes: int | None) -> None:
    for name, number, least, most in (
        ("patients", patients, 1, MOST_PATIENTS),
        ("seed", seed, 0, 2**31 - 1),
        ("planes", planes, 2, MOST_PLANES),
        ("pixels", pixels, 16, MOST_PIXELS),
        ("processes", 1 if processes is None else processes, 1, 1024),
    ):
        if not least <= number <= most:
            raise ConfigError(f"expected {name} from {least} to {most}, got {number}", remedy=f"choose other {name}")
    if planes * pixels * pixels > MOST_VOXELS:
        found = f"expected at most {MOST_VOXELS} voxels a CT, got {planes} x {pixels} x {pixels}"
        raise ConfigError(found, remedy="choose fewer planes or pixels")


def _chosen(named: Sequence[str], known: tuple[T, ...], what: str) -> tuple[T, ...]:
    """Give what is named, in the order known, so that the order it is named in changes nothing; all if nothing is."""
    for name in named:
        if name not in known:
            raise ConfigError(f"there is no {what} {name!r}", remedy=f"choose among {', '.join(map(repr, known))}")
    return tuple(one for one in known if not named or one in named)


def _header(recipe: _Recipe) -> dict[str, Any]:
    from osteoscope.imaging.synthetic import SYNTHETIC

    # Tuples are lists once they are read back.
    settings = json.loads(json.dumps(asdict(recipe)))
    return {"schema": SCHEMA, "provenance": "phantom", **settings, "note": SYNTHETIC}


def _refuse_other(output: Path, recipe: _Recipe) -> None:
    """Refuse a file, a folder of something else, and phantoms that other settings made."""
    wanted = _header(recipe)
    try:
        if not output.exists() or (output.is_dir() and all(path.name.startswith(".") for path in output.iterdir())):
            return
        header = json.loads((output / HEADER).read_text(encoding="utf-8"))
        found = {name: header[name] for name in wanted}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError("is already there and holds no phantoms", path=output, remedy=_OTHER) from error
    for name, value in wanted.items():
        if found[name] != value:
            reason = f"holds phantoms of {name} {found[name]!r}, and {value!r} is asked for"
            raise StorageError(reason, path=output, remedy=f"{_OTHER}, or ask for the same again")


def _refuse_small_disk(output: Path, recipe: _Recipe, patients: int) -> None:
    from osteoscope.phantom.write import bytes_of, written_ids

    needed = bytes_of(recipe.shape) * max(patients - len(written_ids(output)), 0)
    there = next(folder for folder in (output, *output.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        reason = f"expected {needed / 1e9:.1f} GB of free space for {patients} patients, found {free / 1e9:.1f} GB"
        raise StorageError(reason, path=output, remedy="free some space, make fewer patients, or choose another disk")


def _draw(recipe: _Recipe, patients: int) -> list[Patient]:
    """Draw patients until there are enough of the classes asked for."""
    from osteoscope.phantom.patients import draw_patients

    tried = patients
    while True:
        drawn = [one for one in draw_patients(tried, recipe.seed, recipe.sites) if one.label in recipe.classes]
        if len(drawn) >= patients:
            return drawn[:patients]
        tried *= 2


def _missing(output: Path, drawn: Sequence[Patient]) -> list[Patient]:
    from osteoscope.phantom.dicom import patient_id
    from osteoscope.phantom.write import written_ids

    there = written_ids(output)
    wanted = {patient_id(one.attributes, one.seed): one for one in drawn}
    if beyond := len(there - wanted.keys()):
        reason = f"expected none but the {len(drawn)} patients asked for, found {beyond} more"
        raise StorageError(reason, path=output, remedy=f"ask for as many as before or more, or {_OTHER}")
    return [one for name, one in wanted.items() if name not in there]


def _write_header(output: Path, recipe: _Recipe) -> None:
    from osteoscope.imaging.synthetic import SYNTHETIC
    from osteoscope.phantom.write import remove_unfinished

    write_json(output / HEADER, _header(recipe))
    write_text(
        output / README, f"{SYNTHETIC}\n\nimages/ holds DICOM, truth/ what is known of it, {LABELS} the labels.\n"
    )
    remove_unfinished(output)


def _counted(progress: Progress | None, done: int, total: int) -> Callable[[], None]:
    """Give what is to be called after each patient."""
    say = progress or (lambda _done, _total: None)
    say(done, total)

    def count() -> None:
        nonlocal done
        done += 1
        say(done, total)

    return count


def _write_missing(
    missing: Sequence[Patient], output: Path, recipe: _Recipe, processes: int | None, count: Callable[[], None]
) -> None:
    from osteoscope.phantom.write import write_patient

    several = min(cores(), processes or _MOST_PROCESSES, len(missing))
    if several <= 1:
        for one in missing:
            write_patient(one, output, shape=recipe.shape)
            count()
        return
    with ProcessPoolExecutor(several, spawning(), begin_process) as pool:
        try:
            for done in as_completed([pool.submit(write_patient, one, output, shape=recipe.shape) for one in missing]):
                done.result()
                count()
        except BrokenProcessPool as error:
            reason = "a process was ended from outside, perhaps because memory ran out"
            raise RunError(reason, path=output, remedy="run the same command again with fewer --processes") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _labels(drawn: Sequence[Patient]) -> str:
    """Write a table with what a department knows of its patients, and the places of their images in `IMAGES`."""
    from osteoscope.phantom.dicom import patient_id
    from osteoscope.phantom.write import SEGMENTATION, SERIES

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("patient", "image", "mask", "label", "age", "sex", "level", "centre"))
    for one in drawn:
        known = one.attributes
        name = patient_id(known, one.seed)
        image, mask = f"{name}/{SERIES}", f"{name}/{SEGMENTATION}"
        writer.writerow((name, image, mask, one.label, int(known.age), known.sex, known.level, known.centre))
    return table.getvalue()


def _counts(drawn: Sequence[Patient], recipe: _Recipe) -> dict[str, dict[str, int]]:
    found = Counter((one.label, one.attributes.centre) for one in drawn)
    return {label: {site: found[label, site] for site in recipe.sites} for label in recipe.classes}
