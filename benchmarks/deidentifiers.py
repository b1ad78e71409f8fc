"""What de-identifiers leave of the Basic Profile's table, of a file that holds every attribute of it.

The file of ``tests/canaries.py`` has each attribute of DICOM PS3.15 table E.1-1 three times (in the data set, in an
item of a sequence, in an item of an item), private elements, a named preamble and a source in its file meta
information. Each program is run as its documentation says, and what can be found again is counted. Patient's Age and
Sex are left out of the count, and of ours times too, which it keeps on purpose, as it keeps dates, moved.

    pip install dicom-anonymizer dicognito
    python benchmarks/deidentifiers.py
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from canaries import PLACES, PRIVATE, TEXT, identifying_file, is_left, places_of, table

from osteoscope.cohort.deidentify import Key, deidentify_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

_CHARACTERISTICS = (0x00101010, 0x00100040)


def by_ours(source: Path, target: Path) -> None:
    """Run ours."""
    deidentify_file(source, target, Key.open(source.with_name("key.json")))


def by_dicom_anonymizer(source: Path, target: Path) -> None:
    """Run dicom-anonymizer, with the newest table that it has."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

    anonymize_dicom_file(str(source), str(target), base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))


def by_dicognito(source: Path, target: Path) -> None:
    """Run dicognito."""
    from dicognito.anonymizer import Anonymizer

    data_set = pydicom.dcmread(source)
    Anonymizer(seed="seed").anonymize(data_set)
    data_set.save_as(target)


PROGRAMS = {
    "osteoscope": ("osteoscope", by_ours),
    "dicomanonymizer": ("dicom-anonymizer", by_dicom_anonymizer),
    "dicognito": ("dicognito", by_dicognito),
}


def left_by(program: Callable[[Path, Path], None], *, moved_dates: bool) -> dict[str, object]:
    """Run a program, and count what can be found again, by place."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source.dcm", Path(name) / "target.dcm"
        source.write_bytes(identifying_file())
        start = time.perf_counter()
        try:
            program(source, target)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {str(error)[:80]}"}
        seconds = time.perf_counter() - start
        content = target.read_bytes()
    data_set = pydicom.dcmread(io.BytesIO(content))
    left: dict[str, object] = {
        place: _count(found, moved_dates=moved_dates) for place, found in places_of(data_set).items()
    }
    private = [found for found in places_of(data_set).values() if found is not None and PRIVATE in found]
    return {
        **left,
        "private": len(private),
        "preamble": TEXT.encode() in content[:128],
        "file meta": TEXT in str(data_set.file_meta),
        "seconds": round(seconds, 3),
    }


def _count(data_set: Dataset | None, *, moved_dates: bool) -> dict[str, int]:
    """Count the attributes whose values are left, by the table's action."""
    counts: Counter[str] = Counter()
    for rule in table() if data_set is not None else ():
        kept = rule.tag in _CHARACTERISTICS or (moved_dates and rule.representation == "TM")
        if data_set is not None and rule.action and not kept and is_left(data_set, rule):
            counts[rule.action] += 1
    return dict(sorted(counts.items()))


def main() -> None:
    """Print a line for each program and place, and all of it as JSON."""
    warnings.simplefilter("ignore")
    logging.disable()
    found = {}
    for module, (name, program) in PROGRAMS.items():
        if find_spec(module) is not None:
            found[name] = left_by(program, moved_dates=name == "osteoscope")
            print(f"{name} {metadata.version(name)}")
            for place in PLACES:
                print(f"  left in the {place}: {found[name].get(place)}")
            print(f"  { ({what: value for what, value in found[name].items() if what not in PLACES}) }")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
