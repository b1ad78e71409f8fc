"""The study report as a reader, a reviewer and a browser find it."""

from __future__ import annotations

import copy
import dataclasses
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from osteoscope.evaluation.document import Predictions, StudyFacts, baseline_block, metrics_document
from osteoscope.report.content import PHANTOM_BANNER, CaseLink, FoldCounts, StudyContent
from osteoscope.report.study import study_html
from osteoscope.report.wording import estimate_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def figures_of(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """List all figures in a block of metrics, however deep."""
    if {"value", "low", "high"} <= block.keys():
        yield block
        return
    for value in block.values():
        if isinstance(value, dict):
            yield from figures_of(value)


def test_it_needs_no_other_file_and_no_script(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    html = study_html(study)
    page = read_page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert page.all("link") == page.all("script") == page.all("iframe") == []
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert {str(anchor["href"])[0] for anchor in page.all("a")} == {"#", "r"}
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_is_the_same_bytes_for_the_same_content(study: StudyContent) -> None:
    assert study_html(study) == study_html(copy.deepcopy(study))


def test_every_figure_appears_with_its_interval(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(study_html(study)).text
    shares = {
        "accuracy",
        "balanced_accuracy",
        "decided",
        "accuracy_decided",
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
    }
    count = 0
    for name, block in study.metrics["patient"].items():
        for one in figures_of(block) if isinstance(block, dict) else ():
            if one["low"] is not None:
                expected = estimate_text(one, percent=name in shares).replace("\u00a0", " ")
                assert expected in text, (name, expected)
                count += 1
    assert count == 11 + 7 * 2
    for shown in ("0.31 (0.27–0.35)", "55 % (48–62)", "0.68 (0.52–0.81)", "0.77 (0.64–0.87)", "0.09 (−0.01 to 0.18)"):
        assert shown in text


def test_what_is_not_defined_is_a_dash_with_its_reason(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    patient = {
        **study.metrics["patient"],
        "auc": {**nothing, "reason": "one class only"},
        "ppv": dict.fromkeys(study.slugs, nothing),
        "curves": {},
        "reliability": {},
    }
    text = read_page(study_html(dataclasses.replace(study, metrics={**study.metrics, "patient": patient}))).text
    assert "– one class only; n = 0" in text
    assert "– no case was predicted as this class; n = 0" in text
    assert "None" not in text
    assert "nan" not in text.split()


def test_a_missing_interval_is_said(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    study.metrics["patient"]["ece"]["reason"] = "no interval: it would not cover"
    assert "0.06 no interval: it would not cover; n = 50" in read_page(study_html(study)).text


def test_names_from_outside_are_inert(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    evil = "<script>alert(1)</script>"
    attack = '"><img src=x onerror=alert(1)>'
    html = study_html(
        dataclasses.replace(
            study,
            title=evil,
            classes=(evil, attack),
            cases=(CaseLink(patient=evil, label=evil, probabilities=(0.2, 0.8), verdict=attack, href=attack),),
            warnings=(attack,),
            settings={evil: attack},
        )
    )
    page = read_page(html)
    assert page.all("script") == []
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert evil in page.text


def test_cases_come_worst_first_and_wrong_verdicts_are_marked(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    html = study_html(study)
    cases = html[html.index('id="table-cases"') :]
    cases = cases[: cases.index("</table>")]
    order = sorted(("right", "unproven", "wrong", "unsure"), key=lambda name: re.search(rf">{name}<", cases).start())  # type: ignore[union-attr]
    assert order == ["wrong", "unsure", "right", "unproven"]
    assert cases.count("✕") == 1
    assert "✕ osteosarcoma" in read_page(cases).text
    assert 'href="r.html"' in cases


def test_it_says_what_is_estimated_under_which_prior_and_what_was_read(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(study_html(study)).text
    assert "Out-of-fold figures of a training" in text
    assert "The figures estimate the procedure." in text
    assert "under the prior osteosarcoma 50 %, giant cell tumor 50 %" in text
    assert "Among these patients the shares were osteosarcoma 60 %, giant cell tumor 40 %" in text
    assert "The network read whole images" in text
    assert "it was told" not in text
    for names, told in [(["age"], "age."), (["age", "sex", "site"], "age, sex and site.")]:
        more = dataclasses.replace(study, settings={**study.settings, "network.covariates": names})
        assert f"Beside the images it was told the patient's {told}" in read_page(study_html(more)).text
    assert "Each fold left out" not in text
    sites = dataclasses.replace(study, settings={**study.settings, "training.split": "sites"})
    assert (
        "by a model that never saw that patient. Each fold left out all patients of one body site"
        in read_page(study_html(sites)).text
    )
    assert text.count("Not for clinical use") == 2
    other = read_page(study_html(dataclasses.replace(study, kind="evaluation"))).text
    assert "Out-of-fold" not in other
    assert "cases that it never saw in training" in other


def test_repeats_are_told_where_predictions_are_counted(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    assert "once in each repeat" not in read_page(study_html(study)).text
    study.metrics["patient"]["n_predictions"] = 150
    assert (
        "judged 3 times, once in each repeat; the confusion matrix counts all 150" in read_page(study_html(study)).text
    )


def test_warnings_stand_before_the_figures(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(study_html(study)).text
    assert 0 < text.index("Patients were guessed.") < text.index("Balanced accuracy")


def test_what_others_reported_comes_with_both_caveats(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(study_html(study)).text
    box = text[text.index("What others reported") :]
    for said in (
        "46:100606",
        "85.61 %",
        "0.814 and 0.882",
        "not reproducible",
        "both AUCs must be equal",
        "cannot raise",
    ):
        assert said in box


def test_the_flow_of_participants_adds_up_on_the_page(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(study_html(study)).text
    assert "Left out of what was found: 3, each an image, a series, a file or a patient 3: unreadable" in text
    assert "In the cohort: 1,231 images of 567 patients" in text
    assert "Auxiliary: 1,150 images of 517 patients" in text
    assert "Studied: 81 images of 50 patients" in text
    assert "16 (12–25) 2 not known" in text


def test_the_proof_of_disjoint_folds_is_shown_and_a_leak_cries_out(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    assert "No patient, and no image by its pixels, is on both sides" in read_page(study_html(study)).text
    leak = FoldCounts(
        repeat=0, fold=0, training_patients=25, test_patients=25, training_images=41, test_images=40,
        shared_patients=1, shared_images=0,
    )  # fmt: skip
    text = read_page(study_html(dataclasses.replace(study, folds=(leak,)))).text
    assert "Leak:" in text
    assert "No patient, and no image" not in text


def test_what_was_learnt_before_is_told_where_something_was(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    text = read_page(study_html(study)).text
    assert "the networks learnt from 1,085 auxiliary images of 490 patients" in text
    assert "This took 52.3 minutes" in text
    assert "Kinds, images osteochondroma 512, simple bone cyst 113 Sites, images tibia 350 Views, images –" in text
    assert "never judged; 1,085 of them taught" in text
    assert "What else the networks" not in read_page(study_html(dataclasses.replace(study, auxiliary=None))).text
    # What taught a bundle is none of the images that it is evaluated on.
    other = read_page(study_html(dataclasses.replace(study, kind="evaluation"))).text
    assert "1,085 auxiliary images" in other
    assert "of them taught" not in other
    alone = dataclasses.replace(study, folds=(), history=())
    assert "What else the networks" in read_page(study_html(alone)).text


def test_what_was_learnt_beside_the_cases_is_told_with_what_was_learnt_before_or_alone(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    assert study.auxiliary is not None
    both = {**study.auxiliary, "beside": 2.0}
    alone = {name: value for name, value in both.items() if name != "fingerprint"} | {"minutes": 0.0, "beside": 0.5}
    of_both, of_alone = (
        read_page(study_html(dataclasses.replace(study, auxiliary=learnt))).text for learnt in (both, alone)
    )
    assert "This took 52.3 minutes" in of_both
    assert "In every step 2 of them lay beside each image of a case" in of_both
    assert "While they learnt these classes, the networks learnt from 1,085 auxiliary images" in of_alone
    assert "In every step 0.5 of them lay beside each image of a case" in of_alone
    assert "This took" not in of_alone
    assert "Fingerprint" not in of_alone


def test_where_another_thing_is_learnt_from_some_epoch_on_the_curves_say_so(
    study: StudyContent, read_page: Callable[[str], Any]
) -> None:
    assert "From epoch" not in read_page(study_html(study)).text
    settings = {**study.settings, "training.epochs": 9, "training.closer_epochs": 16}
    for rehearsal, closer in ((4.0, 0.0), (0.0, 0.5)):
        beside = {"training.rehearsal": rehearsal, "training.closer_rehearsal": closer}
        text = read_page(study_html(dataclasses.replace(study, settings={**settings, **beside}))).text
        assert "From epoch 10 on, the classes are learnt from squares that hold a lesion, and nothing else" in text
        assert "where lesions are. The loss" in text
    beside = {"training.rehearsal": 4.0, "training.closer_rehearsal": 0.5}
    text = read_page(study_html(dataclasses.replace(study, settings={**settings, **beside}))).text
    assert "where lesions are; squares of auxiliary images beside them teach the latter alone. The loss" in text


def regions_row(html: str) -> str | None:
    """Cut out the figures of the regions, if the page has any."""
    found = re.search(r'id="table-regions".*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    return None if found is None else " ".join(re.sub(r"<[^>]*>", " ", found[1]).split())


def test_how_many_lesions_the_network_found_is_told_where_it_had_to_find_them(study: StudyContent) -> None:
    assert regions_row(study_html(study)) == "1,081 83 % (77–89) n = 50 4 13"
    not_asked = {**study.metrics, "localisation": {}}
    assert regions_row(study_html(dataclasses.replace(study, metrics=not_asked))) is None
    study.metrics["localisation"]["regions"]["found"] = {"value": 1.0, "low": None, "high": None, "n": 1}
    assert regions_row(study_html(study)) == "1,081 100 % no interval; n = 1 4 13"


@pytest.mark.parametrize(
    ("roi", "second_look", "told"),
    [
        ("none", False, "The network read whole images; no one told it where the lesion is."),
        (
            "none",
            True,
            "read all parts of an image closely, and the regions in which it found a lesion; each weighed as much as "
            "it was likely to show one. No one told it",
        ),
        ("box", False, "The network read the square round the lesion's annotated box: a person had pointed"),
        (
            "box",
            True,
            "The network judged, in full resolution, the square round the lesion's annotated box: a person",
        ),
        ("outline", True, "judged, in full resolution, the square round the lesion's annotated outline: a person"),
    ],
)
def test_it_says_where_the_network_looked(
    study: StudyContent, read_page: Callable[[str], Any], *, roi: str, second_look: bool, told: str
) -> None:
    settings = {"preparation.second_look": second_look}
    content = dataclasses.replace(study, metrics={**study.metrics, "roi": roi}, settings=settings)
    assert told in read_page(study_html(content)).text


def test_a_network_set_beside_is_listed_once(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    study.metrics["baselines"]["plain network"] = study.beside[0].metrics["patient"]
    html = study_html(study)
    table = html[html.index('id="table-predictors"') :]
    rows = re.findall(r'<th scope="row">([^<]*)</th>', table[: table.index("</table>")])
    assert rows == ["optimised network", "plain network", "picture geometry"]


def test_it_can_be_read_aloud(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    page = read_page(study_html(study))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all("alt" in image for image in page.all("img"))
    plots = [svg for svg in page.all("svg") if svg.get("class") == "plot"]
    # Seven, and a decision curve a class.
    assert len(plots) == 7 + 2
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in plots)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    labels = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    targets = {str(anchor["href"])[1:] for anchor in page.all("a") if str(anchor["href"]).startswith("#")}
    assert labels | targets <= set(names)


def test_a_report_with_little_in_it_is_whole(metrics: dict[str, Any], read_page: Callable[[str], Any]) -> None:
    content = StudyContent(
        title="Bare", kind="evaluation", classes=tuple(metrics["classes"]), slugs=tuple(metrics["slugs"]),
        metrics={**metrics, "baselines": {}},
    )  # fmt: skip
    page = read_page(study_html(content))
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {str(anchor["href"])[1:] for anchor in page.all("a")}
    assert targets == {"result", "discrimination", "calibration", "beside"}
    assert targets <= names


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_real_figures_of_any_number_of_classes_are_shown(classes: int, read_page: Callable[[str], Any]) -> None:
    rng = np.random.default_rng(classes)
    names, slugs = (tuple(f"{kind} {k}" for k in range(classes)) for kind in ("tumour kind", "slug"))
    labels = np.tile(np.arange(classes), 8)
    probabilities = rng.dirichlet(np.ones(classes), len(labels))
    predictions = Predictions(
        patients=tuple(f"P{i}" for i in range(len(labels))),
        labels=labels,
        repeats=np.zeros_like(labels),
        probabilities=probabilities,
        verdicts=probabilities.argmax(axis=1),
    )
    facts = StudyFacts(classes=names, slugs=slugs, prior=(1 / classes,) * classes, roi="box", seed=0, estimates="All.")
    figures = metrics_document(
        facts,
        by_patient=predictions,
        by_image=predictions,
        localisation={},
        folds=np.arange(len(labels)) // classes % 4,
        subgroups={"half": {patient: str(i % 2) for i, patient in enumerate(predictions.patients)}},
        coarsest_grouping={patient: str(i % (4 * classes)) for i, patient in enumerate(predictions.patients)},
        baselines={"itself": baseline_block(predictions, predictions, facts)},
    )
    cases = tuple(
        CaseLink(
            patient=patient, label=names[label], probabilities=tuple(shares), verdict=names[int(np.argmax(shares))]
        )
        for patient, label, shares in zip(predictions.patients, labels, probabilities.tolist(), strict=True)
    )
    content = StudyContent(title="T", kind="evaluation", classes=names, slugs=slugs, metrics=figures, cases=cases)
    page = read_page(study_html(content))
    for name in ("sensitivity", "auc_by_class"):
        for one in figures["patient"][name].values():
            expected = estimate_text(one, percent=name == "sensitivity").replace("\u00a0", " ")
            assert expected.replace(" (no interval)", "") in page.text
    # Curves, confusion, points and the forest; decisions by class; reliability by class, but only one diagram of two.
    reliability = 1 if classes == 2 else classes
    assert len([svg for svg in page.all("svg") if svg.get("class") == "plot"]) == 5 + classes + reliability
    assert "a person had pointed at the lesion" in page.text
    assert ("mean over the classes" in page.text) == (classes > 2)


def test_a_report_of_124_patients_with_thumbnails_stays_small(study: StudyContent) -> None:
    rng = np.random.default_rng(0)

    def noise() -> bytes:
        """The PNG that compresses worst."""
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (96, 96), dtype=np.uint8)).save(stream, format="PNG")
        return stream.getvalue()

    cases = tuple(
        CaseLink(patient=f"P{i}", label=study.classes[i % 2], probabilities=(0.3, 0.7), verdict="x", thumbnail=noise())
        for i in range(124)
    )
    html = study_html(dataclasses.replace(study, cases=cases))
    assert html.count("data:image/png;base64,") == 124
    assert len(html.encode()) < 3_000_000


def test_content_that_does_not_fit_its_classes_is_refused(study: StudyContent) -> None:
    with pytest.raises(ValueError, match="classes and slugs"):
        study_html(dataclasses.replace(study, slugs=("one",)))
    case = CaseLink(patient="P", label=None, probabilities=(1.0,), verdict="x")
    with pytest.raises(ValueError, match="one probability a class, got 1"):
        study_html(dataclasses.replace(study, cases=(case,)))


def of_scans(study: StudyContent) -> StudyContent:
    """The same study of CT, of phantoms, in which level and centre are known, and neither site nor view."""
    assert study.participants is not None
    classes = tuple(
        dataclasses.replace(
            group, sites={"not recorded": 9}, views={"not recorded": 9}, levels={"lumbar": 9}, centres={"A": 5, "B": 4}
        )
        for group in study.participants.classes
    )
    return dataclasses.replace(
        study,
        modalities=("CT",),
        phantom=True,
        auxiliary=None,
        participants=dataclasses.replace(study.participants, classes=classes),
    )


def test_a_study_of_ct_speaks_of_scans_and_planes(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    text = read_page(study_html(of_scans(study))).text
    for said in (
        "50 patients, 81 CT scans:", "The network read planes of each CT, spread evenly over the body",
        "1,231 CT scans of 567 patients", "neither taught nor were judged", "Patients and CT scans of each class.",
        "CT scans 50 31", "Level patients lumbar 9", "Centre patients A 5, B 4",
    ):  # fmt: skip
        assert said in text
    for said in ("radiograph", "whole images", "View", "Site patients"):
        assert said not in text


def test_a_study_of_phantoms_says_so_above_all_else(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    assert read_page(study_html(of_scans(study))).text.index(PHANTOM_BANNER) < 100
    assert PHANTOM_BANNER not in read_page(study_html(study)).text
