"""The page that sets runs beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osteoscope.report import figures
from osteoscope.report.content import RESEARCH_STAMP
from osteoscope.report.figures import ForestRow
from osteoscope.report.pages import inline, render

if TYPE_CHECKING:
    from collections.abc import Mapping

_REGIONS = {
    "none": "whole images",
    "box": "round the lesion's annotated box",
    "outline": "round the lesion's annotated outline",
}


def comparison_html(comparison: Mapping[str, Any]) -> str:
    """Write the comparison: one HTML file that needs no other and is the same for the same content.

    Parameters
    ----------
    comparison
        The content of ``comparison.json``.
    """
    best = comparison["best"]
    rows = [
        ForestRow(name=name, figure=arm["auc"], is_model=best is not None and name == best["name"])
        for name, arm in comparison["predictors"].items()
    ]
    return render(
        "comparison.html.j2",
        title=f"{' against '.join(comparison['classes'])}: runs compared",
        comparison=comparison,
        forest=inline(figures.forest_svg(rows, label="AUC by patient (95 % interval)")),
        regions=_REGIONS,
        networks=len(comparison["seeds"]) * comparison["repeats"],
        stamp=RESEARCH_STAMP,
    )
