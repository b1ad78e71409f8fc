"""What the study report shows of phantoms beside their truth: figures, and a plane before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.report import figures
from osteoscope.report.content import BeforeAfter
from osteoscope.report.overlay import evidence_scale, jpeg_bytes, overlay_picture
from osteoscope.report.pages import data_uri, inline
from osteoscope.report.planes import (
    BONE,
    PHANTOM_MARK,
    PlaneFrame,
    by_area,
    position_of,
    sides_of,
    with_mark,
    with_sides,
)
from osteoscope.report.wording import share_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from markupsafe import Markup
    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Volume
    from osteoscope.inference.prediction import ExplainedCase, Look
    from osteoscope.report.content import Figure, Metrics, StudyContent


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A CT of a phantom, and what was said of it.

    Parameters
    ----------
    volume
        The CT.
    explained
        The prediction with its evidence.
    probability
        Of the class whose evidence is shown.
    """

    volume: Volume
    explained: ExplainedCase
    probability: float

    @property
    def looks(self) -> Sequence[Look]:
        """At the CT."""
        return self.explained.prediction.images[0].looks

    def evidence(self, chosen: int) -> NDArray[np.float32]:
        """Give the evidence for a class, (looks, h, w) in units of the logit."""
        return self.explained.evidence[self.explained.looks_at(0), chosen]


def before_after(before: Seen, after: Seen, *, chosen: int) -> BeforeAfter:
    """Show the plane in which the evidence for a class falls most, before and after, in one scale.

    Parameters
    ----------
    before, after
        The same CT with and without something, read in the same planes.
    chosen
        Index of the class.

    Raises
    ------
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    scale = evidence_scale([by_area(before.evidence(chosen)), by_area(after.evidence(chosen))])
    number = int((before.evidence(chosen) - after.evidence(chosen)).sum(axis=(1, 2)).argmax())
    return BeforeAfter(
        patient=before.explained.prediction.patient,
        position=position_of(before.volume.geometry, before.looks[number].plane).text,
        probabilities=(before.probability, after.probability),
        pictures=(
            _picture(before, number, chosen=chosen, scale=scale),
            _picture(after, number, chosen=chosen, scale=scale),
        ),
    )


def _picture(seen: Seen, number: int, *, chosen: int, scale: float) -> bytes:
    """Lay the evidence of one of the looks over its plane, as JPEG."""
    look, geometry = seen.looks[number], seen.volume.geometry
    frame, rectangle, sides = PlaneFrame.of(geometry), look.read_rectangle(), sides_of(geometry)
    picture = overlay_picture(
        frame.pixels(seen.volume.read([look.plane])[0], BONE),
        frame.evidence(seen.evidence(chosen)[[number]], rectangle)[0],
        scale=scale,
        square=frame.square(rectangle),
    )
    return jpeg_bytes(with_mark(picture if sides is None else with_sides(picture, sides), PHANTOM_MARK))


@dataclass(frozen=True, kw_only=True)
class TruthRow:
    """A figure beside the truth, and how it is shown."""

    name: str
    figure: Figure
    percent: bool = False
    undefined: str = "it takes cases of every class"
    note: str = ""


def truth_rows(content: StudyContent) -> list[TruthRow]:
    """Set what can be reached, and what one sign reaches, beside what the network reaches; empty without a truth."""
    truth, patient, name = content.metrics.get("truth"), content.metrics["patient"], content.model_name
    if not truth:
        return []
    lytic, clinical = truth["lytic"], truth["bayes"]["clinical"]
    baseline = (content.metrics.get("baselines") or {}).get(clinical) or {}
    missing = {"value": None, "n": sum(lytic["n_by_class"].values()), "reason": lytic.get("reason")}
    return [
        TruthRow(name=f"AUC of {name}", figure=patient["auc"]),
        TruthRow(
            name="AUC of the Bayes reference",
            figure=truth["bayes"]["auc"],
            note="by the exact likelihood ratio of all that was rendered, covariates included",
        ),
        *(
            [TruthRow(name=f"AUC of {clinical.replace(':', ' data:')}", figure=baseline["auc"])]
            if "auc" in baseline
            else []
        ),
        TruthRow(
            name="Way covered from there to the reference",
            figure=truth["bayes"]["way_covered"],
            percent=True,
            note="0 % is the AUC of clinical data alone, or of guessing if that is better; 100 % the reference",
        ),
        TruthRow(name=f"Balanced accuracy of {name}", figure=patient["balanced_accuracy"], percent=True),
        TruthRow(
            name="Balanced accuracy of the matrix rule",
            figure=truth["matrix_rule"]["balanced_accuracy"],
            percent=True,
            note="mineralised matrix: osteosarcoma; none: giant cell tumor",
        ),
        TruthRow(
            name=f"AUC of {name}, purely lytic osteosarcoma against giant cell tumor",
            figure=lytic.get("auc", missing),
            note="of that osteosarcoma the matrix rule finds none",
        ),
    ]


def falls_plot(metrics: Metrics) -> Markup | None:
    """Draw what taking the matrix out does to each patient; None where that was not tried."""
    patients = ((metrics.get("truth") or {}).get("counterfactual") or {}).get("patients")
    if not patients:
        return None
    pairs = [(one["before"], one["after"]) for one in patients]
    return inline(figures.falls_svg(pairs, name="osteosarcoma", first="as rendered", second="without matrix"))


def pictures_of(pair: BeforeAfter | None) -> list[dict[str, str]]:
    """Give the pictures before and after as parts of the page: ``name``, ``probability`` and ``uri`` each."""
    if pair is None:
        return []
    said = zip(("As rendered", "Without matrix"), pair.probabilities, pair.pictures, strict=True)
    return [
        {"name": name, "probability": share_text(probability), "uri": data_uri(picture, "image/jpeg")}
        for name, probability, picture in said
    ]
