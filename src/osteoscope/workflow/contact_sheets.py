"""Showing a cohort: a page with every case, for a person to check before anything is trained."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from osteoscope.errors import StorageError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort
    from osteoscope.report.contact_sheet import SeriesChoice, SheetCase, SheetContent

_AT_ONCE = 2
"""Patients that are read at a time: each may hold the mask of a large volume."""


@dataclass(frozen=True, kw_only=True)
class ContactSheetSummary:
    """A contact sheet that was written.

    Parameters
    ----------
    page
        The HTML file.
    patients, images
        On it.
    without_outline
        Patients in none of whose images a lesion is outlined.
    conspicuous
        Pseudonyms of patients of whom something is said that a person should look at.
    faults
        Images that could not be shown, with the reason.
    """

    page: Path
    patients: int
    images: int
    without_outline: int
    conspicuous: tuple[str, ...]
    faults: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "page": str(self.page),
            "patients": self.patients,
            "images": self.images,
            "without_outline": self.without_outline,
            "conspicuous": list(self.conspicuous),
            "faults": [{"image": image, "reason": reason} for image, reason in self.faults],
        }


def show_cohort(
    folder: Path,
    output: Path | None = None,
    *,
    images: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ContactSheetSummary:
    """Write a page that shows every case of a cohort: its planes, outlines, label, and why its series were chosen.

    An image that cannot be shown is said on the page. Memory does not depend on the number of cases.

    Parameters
    ----------
    folder
        Of a cohort.
    output
        The HTML file; ``NAME-contact-sheet.html`` beside the cohort's folder where left out.
    images
        Where the cohort's images lie, if they have moved.
    progress
        Is told how many of how many patients are on the page.

    Raises
    ------
    CohortError
        If the cohort cannot be read.
    StorageError
        If the output is no HTML file, or the operating system refuses; what was there stays.
    """
    require("pandas", "pyarrow", "jinja2", "matplotlib", "sklearn", "scipy")
    from osteoscope.cohort.table import read_cohort
    from osteoscope.report.contact_sheet import sheet_parts
    from osteoscope.storage import file_written_whole

    page = output or folder.absolute().with_name(f"{folder.absolute().name}-contact-sheet.html")
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise StorageError("expected the name of an HTML file", path=page, remedy="name one that ends in .html with -o")
    cohort = read_cohort(folder, images=images)
    content = _content(cohort, folder)
    told = _Told()
    cases = _cases(cohort, content.findings, _series_of(folder), told.seeing(progress))
    with file_written_whole(page) as stream:
        for part in sheet_parts(content, cases):
            stream.write(part.encode("utf-8"))
    return told.summary(page)


class _Told:
    """Counts what goes onto the page."""

    def __init__(self) -> None:
        self._cases: list[tuple[str, bool, bool]] = []
        self._images = 0
        self._faults: list[tuple[str, str]] = []

    def seeing(self, progress: Callable[[int, int], None] | None) -> Callable[[SheetCase, int], None]:
        """Give what is to be called with each case and the number of all."""

        def see(case: SheetCase, total: int) -> None:
            self._cases.append((case.patient, case.is_outlined, case.is_conspicuous))
            self._images += len(case.images)
            self._faults += [(one.shown.name, one.shown.fault) for one in case.images if one.shown.fault]
            if progress is not None:
                progress(len(self._cases), total)

        return see

    def summary(self, page: Path) -> ContactSheetSummary:
        """Sum up what was seen."""
        return ContactSheetSummary(
            page=page,
            patients=len(self._cases),
            images=self._images,
            without_outline=sum(not outlined for _, outlined, _ in self._cases),
            conspicuous=tuple(patient for patient, _, conspicuous in self._cases if conspicuous),
            faults=tuple(self._faults),
        )


def _content(cohort: Cohort, folder: Path) -> SheetContent:
    from osteoscope.cohort.audit import find_leaks
    from osteoscope.cohort.audit.run import audit_made_before
    from osteoscope.cohort.table import counts
    from osteoscope.report.contact_sheet import AUXILIARY, SheetContent

    frame, counted = cohort.frame, counts(cohort)
    of_class = {name: count["patients"] for name, count in counted["classes"].items()}
    beside = set(frame["patient"]) - set(cohort.case_rows["patient"])
    audited = audit_made_before(cohort)
    return SheetContent(
        title=folder.absolute().name,
        classes=cohort.classes,
        counts={**of_class, **({AUXILIARY: len(beside)} if beside else {})},
        n_images=len(frame),
        modalities=counted["modalities"],
        notes=cohort.notes,
        findings=find_leaks(cohort) if audited is None else audited.findings,
        audited=audited is not None,
        left_out=tuple((one.image, one.reason) for one in cohort.left_out),
        phantom=bool(frame["phantom"].fillna(value=False).all()) and len(frame) > 0,
    )


def _cases(
    cohort: Cohort,
    findings: Sequence[Finding],
    series: Mapping[str, Sequence[SeriesChoice]],
    see: Callable[[SheetCase, int], None],
) -> Iterator[SheetCase]:
    """Give the patients, class after class and those outside of the classes last, a few being read ahead."""
    ordered = sorted(cohort.frame.groupby("patient"), key=lambda group: (_class_of(group[1], cohort), str(group[0])))

    def shown(group: tuple[Any, pd.DataFrame]) -> SheetCase:
        return _case(str(group[0]), group[1], cohort, findings, series)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(ordered), _AT_ONCE):
            for case in pool.map(shown, ordered[start : start + _AT_ONCE]):
                see(case, len(ordered))
                yield case


def _class_of(rows: pd.DataFrame, cohort: Cohort) -> int:
    labels = [cohort.classes.index(label) for label in rows["label"].dropna()]
    return min(labels, default=len(cohort.classes))


def _case(
    patient: str,
    rows: pd.DataFrame,
    cohort: Cohort,
    findings: Sequence[Finding],
    series: Mapping[str, Sequence[SeriesChoice]],
) -> SheetCase:
    from osteoscope.cohort.table import case_image
    from osteoscope.config import STANDARD_VOLUME
    from osteoscope.report.contact_sheet import SheetCase, SheetImage
    from osteoscope.report.thumbnails import show_image

    own = series.get(patient, ())
    reasons = {one.image: one.reason for one in own if one.image}
    label = next(iter(rows["label"].dropna()), None)
    # In a mix what is of one modality stands together.
    records = rows.sort_values(["modality", "image"]).to_dict("records")
    return SheetCase(
        patient=patient,
        label=label,
        kind="; ".join(sorted({kind for kind in rows["kind"].dropna() if kind != label})),
        known=_known_of_patient(rows),
        images=tuple(
            SheetImage(
                shown=show_image(case_image(row, cohort.root), STANDARD_VOLUME),
                known=_known_of_image(row),
                reason=_reason(row["image"], reasons),
            )
            for row in records
        ),
        left=tuple(one for one in own if not one.chosen),
        findings=tuple(one for one in findings if patient in one.cases and len(one.cases) <= _MOST_CONCERNED),
        phantom=bool(rows["phantom"].fillna(value=False).any()),
    )


def _reason(image: str, reasons: Mapping[str, str]) -> str:
    """Say why an image was chosen: the table names the folder of a series, in which a radiograph is a file."""
    return reasons.get(image) or reasons.get(str(PurePosixPath(image).parent), "")


_MOST_CONCERNED = 6
"""Patients whom a finding concerns, up to which it stands with each: one about many is about the cohort."""


def _known_of_patient(rows: pd.DataFrame) -> dict[str, str]:
    ages = sorted({f"{age:g}" for age in rows["age"].dropna()}, key=float)
    known = {"age": f"{ages[0]}–{ages[-1]}" if len(ages) > 1 else "".join(ages)}
    for name in ("sex", "level", "site", "centre", "proof", "proof_date"):
        known[name.replace("_", " ")] = ", ".join(sorted(set(rows[name].dropna())))
    if rows["guessed"].any():
        known["patient"] = "guessed, since the source names none"
    return {name: text for name, text in known.items() if text}


def _known_of_image(row: Mapping[Any, Any]) -> dict[str, str]:
    import pandas as pd

    known = {"image date": row["image_date"]}
    known |= {name: "yes" for name in ("treated", "biopsied", "implant") if row[name] is True}
    return {name: str(value) for name, value in known.items() if not pd.isna(value)}


def _series_of(folder: Path) -> dict[str, list[SeriesChoice]]:
    """Read by patient which series of the archive were chosen, if the cohort comes from one."""
    from osteoscope.cohort.archive.series_table import SERIES_TABLE
    from osteoscope.cohort.tabular import read_rows
    from osteoscope.report.contact_sheet import SeriesChoice

    path = folder / SERIES_TABLE
    choices: dict[str, list[SeriesChoice]] = {}
    if not path.is_file():
        return choices
    for row in read_rows(path, ("patient", "study", "series", "chosen", "reason")):
        choice = SeriesChoice(
            facts=_series_facts(row.cells),
            chosen=row.flag("chosen") is True,
            reason=row.text("reason") or "no reason is given",
            image=row.text("image") or "",
        )
        choices.setdefault(row.required("patient"), []).append(choice)
    return choices


def _series_facts(cells: Mapping[str, str]) -> str:
    """Say what a series is, as far as the table does."""
    said = [cells[name] for name in ("plane", "modality", "weighting", "kernel") if name in cells]
    if "planes" in cells:
        said.append(f"of {cells['planes']} planes")
    if "thickness_mm" in cells:
        said.append(f"of {cells['thickness_mm']} mm")
    return " ".join(said) or cells.get("series", "a series")
