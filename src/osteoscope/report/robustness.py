"""The page of a robustness sweep."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from osteoscope.report import figures
from osteoscope.report.content import RESEARCH_STAMP
from osteoscope.report.pages import inline, render

if TYPE_CHECKING:
    from collections.abc import Mapping

_REGIONS = {
    "none": "Whole images were read.",
    "box": "Images were read round the lesion's annotated box, which moved with the lesion.",
    "outline": "Images were read round the lesion's annotated outline, which moved with the lesion.",
}


def robustness_html(sweep: Mapping[str, Any]) -> str:
    """Write a sweep: one HTML file that needs no other and is the same for the same content.

    Parameters
    ----------
    sweep
        The content of ``robustness.json``.
    """
    disturbances = sweep["disturbances"]
    floor = _floor(disturbances)
    plots = {
        name: inline(figures.robustness_svg(points, name=name, floor=floor)) for name, points in disturbances.items()
    }
    return render(
        "robustness.html.j2",
        title=f"{' against '.join(sweep['classes'])}: robustness of a bundle",
        sweep=sweep,
        undisturbed=next(iter(disturbances.values()))[0],
        plots=plots,
        region=_REGIONS[sweep["roi"]],
        stamp=RESEARCH_STAMP,
    )


def _floor(disturbances: Mapping[str, Any]) -> float:
    """Find a round lower end of the axis that holds every interval, so that the plots can be compared."""
    ends: list[float | None] = [
        point["auc"].get(end) for points in disturbances.values() for point in points for end in ("value", "low")
    ]
    return min(0.4, math.floor(10 * min([1.0, *(end for end in ends if end is not None)])) / 10)
