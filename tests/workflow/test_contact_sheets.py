"""The contact sheet of whole cohorts: every case is on it with all that is known; it stands alone, and is small."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import GCT, OS, entries, write_cohort_of
from mixed_samples import ALL, write_mixed_cohort
from PIL import Image
from scan_samples import scan_case
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.cli.main import app
from osteoscope.cohort.audit import audit
from osteoscope.cohort.from_table import read_table
from osteoscope.cohort.table import LeftOut, read_cohort, write_cohort
from osteoscope.errors import CohortError, StorageError, TableError
from osteoscope.report.content import PHANTOM_BANNER

if TYPE_CHECKING:
    from pathlib import Path


class _Page(HTMLParser):
    """What a reader sees, and what a browser would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cases: dict[str, set[str]] = {}
        self.asked: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.asked += [known[name] for name in ("src", "href") if name in known]
        if tag == "article":
            self.cases[known["id"]] = set(known["class"].split())

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A patient with a CT and its outline, one with an MR, and one with another diagnosis and a radiograph."""
    scan_case(tmp_path / "images" / "a")
    scan_case(tmp_path / "images" / "b", modality="MR")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)).save(
        tmp_path / "images" / "c.png"
    )
    lines = (
        "patient,image,mask,label,kind,age,sex,level,proof,image_date,biopsied",
        f"1,a/ct,a/mask.nii.gz,{OS},chondroblastic <osteosarcoma>,31,F,L3,histology,2020-02-01,yes",
        f"2,b/ct,,{GCT},,40,M,,,,",
        "3,c.png,,chordoma,,,,,,,",
    )
    (tmp_path / "table.csv").write_text("\n".join(lines))
    write_cohort(read_table(tmp_path / "table.csv", tmp_path / "images", [OS, GCT]), tmp_path / "cohort")
    return tmp_path / "cohort"


def test_every_case_is_on_the_page_with_what_is_known_of_it(scans: Path) -> None:
    told: list[tuple[int, int]] = []
    shown = workflow.show_cohort(scans, progress=lambda done, total: told.append((done, total)))
    assert shown.page == scans.parent / "cohort-contact-sheet.html"
    assert (shown.patients, shown.images, shown.without_outline, shown.faults) == (3, 3, 2, ())
    assert told == [(1, 3), (2, 3), (3, 3)]
    page = page_of(shown.page)
    rows = read_cohort(scans).frame.set_index("image")["patient"]
    # Class after class, in their order, and the others last.
    assert list(page.cases) == [rows["a/ct"], rows["b/ct"], rows["c.png"]]
    assert [min(one - {"case", "said", "plain"}) for one in page.cases.values()] == ["of-0", "of-1", "of-2"]
    assert "plain" not in page.cases[rows["a/ct"]]
    assert "plain" in page.cases[rows["b/ct"]]
    for known in (
        "chondroblastic <osteosarcoma>",
        "age 31",
        "sex F",
        "level L3",
        "proof histology",
        "image date 2020-02-01",
        "biopsied yes",
        "outside the classes chordoma",
        "3 patients, 3 images: 1 osteosarcoma, 1 giant cell tumor, 1 auxiliary.",
        "Largest outline, 1.9 cm²",
        "No lesion is outlined.",
    ):
        assert known in page.text, known


def test_the_page_stands_alone_and_is_small(scans: Path) -> None:
    shown = workflow.show_cohort(scans)
    page = page_of(shown.page)
    assert "script" not in page.tags
    assert all(one.startswith(("data:image/jpeg;base64,", "#")) for one in page.asked)
    assert sum(one.startswith("data:") for one in page.asked) == 9
    assert "default-src 'none'" in shown.page.read_text()
    assert shown.page.stat().st_size < 40_000 + 3 * 100_000


def test_the_page_is_the_same_for_the_same_cohort(scans: Path) -> None:
    first = workflow.show_cohort(scans, scans.parent / "x.html").page.read_bytes()
    assert workflow.show_cohort(scans, scans.parent / "x.html").page.read_bytes() == first


def test_cases_can_be_filtered_by_class_without_a_script(scans: Path) -> None:
    text = workflow.show_cohort(scans).page.read_text()
    for number in range(3):
        assert f"#class-{number}:checked ~ .cases > .case:not(.of-{number}) {{ display: none; }}" in text
        assert re.search(rf'<input class="filter" type="radio" name="class" id="class-{number}">', text)


def test_an_image_that_cannot_be_shown_is_said_and_the_others_are_shown(scans: Path) -> None:
    folder = scans.parent / "images" / "b" / "ct"
    for path in folder.iterdir():
        path.unlink()
    shown = workflow.show_cohort(scans)
    assert [image for image, _ in shown.faults] == ["b/ct"]
    page = page_of(shown.page)
    (said,) = [patient for patient, names in page.cases.items() if "said" in names and patient in shown.conspicuous]
    assert "It cannot be shown:" in page.text
    assert said == read_cohort(scans).frame.set_index("image")["patient"]["b/ct"]
    assert sum(one.startswith("data:") for one in page.asked) == 5


def test_the_reasons_of_the_choice_of_series_are_on_the_page(scans: Path) -> None:
    patient = read_cohort(scans).frame.set_index("image")["patient"]["a/ct"]
    lines = (
        "patient,study,series,part,image,modality,plane,planes,chosen,reason",
        f"{patient},S-1,U-1,,a/ct,CT,axial,10,yes,the thinnest with a bone kernel",
        f"{patient},S-1,U-2,,,CT,axial,4,no,another one is thinner",
    )
    (scans / "series.csv").write_text("\n".join(lines))
    text = page_of(workflow.show_cohort(scans).page).text
    assert "Chosen: the thinnest with a bone kernel." in text
    assert "1 series not in the cohort axial CT of 4 planes: another one is thinner" in text
    (scans / "series.csv").write_text("patient,study\n1,2\n")
    with pytest.raises(TableError, match="expected a column 'series'"):
        workflow.show_cohort(scans)


def test_the_images_of_a_mixed_case_are_in_order_with_why_each_was_chosen(tmp_path: Path) -> None:
    cohort = write_mixed_cohort(tmp_path, patients=1, there=lambda _number: ALL)
    patient = read_cohort(cohort).frame.set_index("image")["patient"]["M0-0/ct"]
    # Of a radiograph the table names the folder of its series.
    lines = (
        "patient,study,series,part,image,modality,plane,planes,chosen,reason",
        f"{patient},S-1,U-1,,M0-0/ct,CT,axial,8,yes,a kernel for bone",
        f"{patient},S-2,U-2,,M0-0,DX,,,yes,a view from the front",
    )
    (cohort / "series.csv").write_text("\n".join(lines))
    text = page_of(workflow.show_cohort(cohort).page).text
    assert "1 osteosarcoma, 1 giant cell tumor. CT of 2, MR of 2, radiographs of 2." in text
    assert "Chosen: a kernel for bone." in text
    assert "Chosen: a view from the front." in text
    own = text[text.index(patient) :]
    assert own.index("Axial CT") < own.index("Axial MR") < own.index("Radiograph")


def test_phantoms_are_said_to_be_none(tmp_path: Path) -> None:
    folder = tmp_path / "phantoms"
    workflow.make_phantoms(folder, patients=3, seed=5, planes=4, pixels=32, processes=1)
    workflow.cohort_from_table(folder / "labels.csv", tmp_path / "cohort", images=folder / "images")
    page = page_of(workflow.show_cohort(tmp_path / "cohort").page)
    assert PHANTOM_BANNER in page.text
    assert page.text.count(" phantom ") >= 3


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    cohort = write_cohort_of(tmp_path / "images", entries(3, (6, 6)))
    object.__setattr__(cohort, "left_out", (LeftOut(image="x.png", reason="it is <blank>"),) * 2)
    write_cohort(cohort, tmp_path / "cohort")
    return tmp_path / "cohort"


def test_what_was_left_out_and_what_the_audit_found_are_on_the_page(
    radiographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    before = page_of(workflow.show_cohort(radiographs).page).text
    assert "Only leaks were looked for" in before
    assert PHANTOM_BANNER not in before
    assert "What was left out: 2" in before
    assert "it is <blank>" in before
    findings = audit(read_cohort(radiographs)).findings
    after = page_of(workflow.show_cohort(radiographs).page).text
    assert "Only leaks were looked for" not in after
    assert findings
    for finding in findings:
        assert finding.message in after


def test_cases_are_read_as_the_page_is_written(radiographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A page that waited for all would first ask for them all.
    from osteoscope.report import contact_sheet

    seen: list[Any] = []
    parts = contact_sheet.sheet_parts

    def counting(content: Any, cases: Any) -> Any:
        asked = 0

        def one_by_one() -> Any:
            nonlocal asked
            for case in cases:
                asked += 1
                yield case

        for part in parts(content, one_by_one()):
            if "<article" in part:
                seen.append(asked)
            yield part

    monkeypatch.setattr(contact_sheet, "sheet_parts", counting)
    workflow.show_cohort(radiographs)
    assert seen == list(range(1, 13))


def test_the_command_says_where_the_page_is(radiographs: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "sheet.html"
    done = CliRunner().invoke(app, ["cohort", "show", str(radiographs), "-o", str(page), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["page"], said["patients"], said["faults"]) == (str(page), 12, [])
    done = CliRunner().invoke(app, ["cohort", "show", str(radiographs), "-o", str(page)])
    assert f"Contact sheet of 12 patients and {said['images']} images: {page}" in done.stdout


def test_what_is_no_cohort_or_no_page_is_refused(radiographs: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="is not a cohort"):
        workflow.show_cohort(tmp_path / "images")
    with pytest.raises(StorageError, match="expected the name of an HTML file"):
        workflow.show_cohort(radiographs, tmp_path / "sheet.pdf")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(StorageError, match="expected the name of an HTML file"):
        workflow.show_cohort(radiographs, tmp_path / "folder.html")


def test_a_page_that_is_there_stays_where_the_new_one_fails(
    radiographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "sheet.html"
    page.write_text("before")
    monkeypatch.setattr("osteoscope.report.thumbnails.show_image", lambda *_: np.zeros(1)[9])
    with pytest.raises(IndexError):
        workflow.show_cohort(radiographs, page)
    assert page.read_text() == "before"
    assert not list(tmp_path.glob(".*.tmp"))
