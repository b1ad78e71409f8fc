"""The contact sheet of a cohort: every case with its images, outlines, label and reasons, for a person to check.

One HTML file that needs no other and runs no script. Its cases are asked for one after the other as it is written, so
that memory does not depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from osteoscope.imaging.mixed import named_together
from osteoscope.report.content import RESEARCH_STAMP
from osteoscope.report.figures import PALETTE
from osteoscope.report.pages import data_uri, rendered_in_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from osteoscope.cohort.audit import Finding
    from osteoscope.report.thumbnails import ShownImage, Thumbnail

AUXILIARY = "auxiliary"
"""What cases outside of the classes are filed under."""


@dataclass(frozen=True, kw_only=True)
class SeriesChoice:
    """A series of the archive that the cohort was made from, and why it is in the cohort or not."""

    facts: str
    chosen: bool
    reason: str
    image: str = ""
    """Its name in the cohort, or empty."""


@dataclass(frozen=True, kw_only=True)
class SheetImage:
    """An image of a case.

    Parameters
    ----------
    shown
        Its pictures and what is said of them.
    known
        What the table says of it, by name.
    reason
        Why it was chosen, or empty.
    """

    shown: ShownImage
    known: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetCase:
    """A patient of the cohort.

    Parameters
    ----------
    patient
        Pseudonym.
    label
        Its class, or None of one outside of the classes.
    kind
        Diagnosis as the source names it, where it says more than the class; else empty.
    known
        What else is known, by name, such as age and sex.
    images
        CT first, then MR and radiographs.
    left
        Series of the archive that are not in the cohort.
    findings
        Of the audit, about this patient.
    phantom
        Whether any image says that nobody is on it.
    """

    patient: str
    label: str | None
    kind: str
    known: Mapping[str, str]
    images: tuple[SheetImage, ...]
    left: tuple[SeriesChoice, ...] = ()
    findings: tuple[Finding, ...] = ()
    phantom: bool = False

    @property
    def is_outlined(self) -> bool:
        """Whether a lesion is outlined in one of the images."""
        return any(image.shown.outlined for image in self.images)

    @property
    def is_conspicuous(self) -> bool:
        """Whether something is said of it that a person should look at."""
        said = any(image.shown.fault or image.shown.remarks for image in self.images)
        return said or any(finding.severity != "note" for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class SheetContent:
    """What the sheet says beside its cases.

    Parameters
    ----------
    title
        Of the page.
    classes
        In their order.
    counts
        Patients of each class, and of `AUXILIARY` where there are any.
    n_images
        Of all cases.
    modalities
        Patients and images of each (`osteoscope.cohort.table.counts`).
    notes
        Of the cohort.
    findings
        Of the audit.
    audited
        Whether these are those of the whole audit, rather than of its search for leaks alone.
    left_out
        Images that are not in the cohort, with the reason.
    phantom
        Whether no patient is on any image.
    """

    title: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    n_images: int
    modalities: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    audited: bool
    left_out: tuple[tuple[str, str], ...]
    phantom: bool


def sheet_parts(content: SheetContent, cases: Iterable[SheetCase]) -> Iterator[str]:
    """Write the sheet part by part.

    Parameters
    ----------
    content
        What is said beside the cases.
    cases
        Asked for one at a time.
    """
    filed = list(content.counts)
    return rendered_in_parts(
        "contact_sheet.html.j2",
        phantom=content.phantom,
        content=content,
        filed=filed,
        styles=_filter_styles(len(filed)),
        colours={name: PALETTE[number % len(PALETTE)] for number, name in enumerate(content.classes)},
        cases=((case, filed.index(case.label or AUXILIARY)) for case in cases),
        picture=_picture_uri,
        named=named_together,
        grouped=_grouped(content.left_out),
        stamp=RESEARCH_STAMP,
    )


def _picture_uri(picture: Thumbnail) -> str:
    return data_uri(picture.jpeg, "image/jpeg")


def _filter_styles(count: int) -> Markup:
    """Hide, where a class is asked for, the cases of all others."""
    rules = [
        f"#class-{number}:checked ~ .cases > .case:not(.of-{number}) {{ display: none; }}" for number in range(count)
    ]
    return Markup("\n".join(rules))  # noqa: S704  numbers of our own


def _grouped(left_out: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Gather images by the reason why they were left out, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for image, reason in left_out:
        groups.setdefault(reason, []).append(image)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))
