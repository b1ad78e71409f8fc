"""The plots of the study report, as inline SVG that is the same byte for byte for the same figures.

Plain matplotlib figures without any global state of pyplot. The text stays text, in the font of the page, so that it
can be searched and read aloud and every script is shown. Widths are chosen so that the text is legible on a phone.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, MultipleLocator

from osteoscope.report.wording import estimate_text, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from osteoscope.report.content import Figure, Metrics, PlaneWeight

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3d3d3d")
"""Okabe and Ito's colours that show on white, one a class: told apart by colour-blind readers too."""

_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)), (0, (1, 1)))
_MARKERS = "osD^vP"
_INK, _MUTED, _HAIRLINE = "#16202a", "#5b6772", "#d5dce2"
_SIDE = 4.1
# Of a number above a reliability diagram, as a share of its side.
_LABEL_WIDTH = 0.08
"""Inches of a plot's width: on a phone's 350 pixels its 10-point text is then some 12 pixels high."""
_SMALL = 2.9
"""Inches of the width of a plot that stands among several like it."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": _HAIRLINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.color": _MUTED,
    "ytick.labelcolor": _INK,
}
_SWARM = (0, 0.07, -0.07, 0.14, -0.14, 0.21, -0.21, 0.28, -0.28)
"""Where points that lie close together are put above and below their row, in the order of choice."""
_PALE = "#a9b4bd"
_ENDS = {"x": ("right", "left"), "y": ("front", "back"), "z": ("head", "feet")}
"""Of the axes of the patient, as a reader leafs through planes across them."""
_PLATE = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
"""Behind texts that cross grid lines."""
_METADATA: dict[str, None] = {"Creator": None, "Date": None, "Format": None, "Type": None}


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One line of `forest_svg`."""

    name: str
    figure: Figure
    is_model: bool = False


def roc_svg(level: Metrics, *, classes: Sequence[str], slugs: Sequence[str]) -> str:
    """Plot the receiver operating characteristic of each class against the rest.

    Parameters
    ----------
    level
        The figures by patient or by image of a metrics mapping: its ``curves`` and ``auc_by_class`` are read.
    classes, slugs
        Names to show and keys to read, in the same order.
    """
    with _plot("roc") as plot:
        axes = plot.square("false-positive rate (1 − specificity)", "true-positive rate (sensitivity)")
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        for index, name, slug, curve in _curves(level, classes, slugs):
            text = f"{name}: AUC {_of(level, 'auc_by_class', slug)}"
            plot.line(axes, curve["roc"]["false_positive_rate"], curve["roc"]["true_positive_rate"], index, text)
        plot.legend()
        return plot.svg("ROC curve of each class against the rest. " + plot.spoken())


def precision_recall_svg(
    level: Metrics, *, classes: Sequence[str], slugs: Sequence[str], shares: Mapping[str, float]
) -> str:
    """Plot precision against recall of each class, with the class's share of the cases as its line of chance.

    Parameters
    ----------
    level, classes, slugs
        As in `roc_svg`; ``average_precision`` is read.
    shares
        Share of the cases that belong to each class, by slug.
    """
    with _plot("precision-recall") as plot:
        axes = plot.square("recall (sensitivity)", "precision (PPV)")
        for index, name, slug, curve in _curves(level, classes, slugs):
            recall, precision = curve["pr"]["recall"], curve["pr"]["precision"]
            if recall[0] > recall[-1]:
                recall, precision = recall[::-1], precision[::-1]
            text = f"{name}: AP {_of(level, 'average_precision', slug)}"
            # Steps, since the area under them is the average precision; straight lines would promise more.
            plot.line(axes, recall, precision, index, text, steps=True)
            if slug in shares:
                axes.axhline(shares[slug], color=PALETTE[index % len(PALETTE)], linewidth=0.8, linestyle=(0, (1, 2)))
        plot.legend()
        return plot.svg("Precision against recall of each class. " + plot.spoken())


def confusion_svg(counts: Sequence[Sequence[int]], *, classes: Sequence[str]) -> str:
    """Draw the confusion matrix: recorded diagnosis down, highest probability across, coloured by the share of the row.

    Parameters
    ----------
    counts
        ``(classes, classes)``, rows the truth.
    classes
        Names to show.
    """
    table = np.asarray(counts, dtype=float)
    totals = table.sum(axis=1, keepdims=True)
    share = np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)
    few = len(classes) <= 3
    middles = np.arange(len(classes)) + 0.5
    rows = [
        textwrap.fill(name if few else f"{place} {name}", 14 if few else 22, break_long_words=False)
        for place, name in enumerate(classes, 1)
    ]
    with _plot("confusion", height=0.9 * _SIDE) as plot:
        axes = plot.axes()
        axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1.25, edgecolors="white", linewidth=2)
        axes.invert_yaxis()
        axes.set_xticks(middles, rows if few else [f"{place}" for place in range(1, len(classes) + 1)])
        axes.set_yticks(middles, rows, fontsize=10 if few else 9)
        axes.set_xlabel("highest probability")
        axes.set_ylabel("recorded diagnosis")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, column in np.ndindex(*table.shape):
            colour = "white" if share[row, column] > 0.6 else _INK
            number, percent = f"{table[row, column]:.0f}", f"{100 * share[row, column]:.0f} %"
            place = (column + 0.5, row + 0.5)
            axes.text(*place, f"{number}\n{percent}", color=colour, ha="center", va="center", fontsize=10 if few else 8)
        spoken = "; ".join(
            f"{name}: " + ", ".join(f"{cell:.0f} as {other}" for cell, other in zip(row, classes, strict=True))
            for name, row in zip(classes, table, strict=True)
        )
        return plot.svg(f"Confusion matrix. {spoken}.")


def reliability_svg(bins: Sequence[Figure], *, name: str, index: int = 0) -> str:
    """Plot what was observed against what was predicted for one class, with 95 % intervals and the cases in each bin.

    Parameters
    ----------
    bins
        Mappings with ``predicted``, ``observed``, ``low``, ``high`` and ``n``.
    name
        The class.
    index
        Its place among the classes, which gives the colour.
    """
    filled = [one for one in bins if one["n"] and one["observed"] is not None]
    filled.sort(key=lambda one: float(one["predicted"]))
    with _plot(f"reliability-{index}", height=1.1 * _SIDE) as plot:
        axes = plot.square(textwrap.fill(f"predicted probability of {name}", 42), "observed share")
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        predicted = np.array([one["predicted"] for one in filled], dtype=float)
        observed = [one["observed"] for one in filled]
        low, high = (
            [one[end] if one.get(end) is not None else one["observed"] for one in filled] for end in ("low", "high")
        )
        colour = PALETTE[index % len(PALETTE)]
        axes.vlines(predicted, low, high, color=colour, linewidth=1.4)
        axes.plot(predicted, observed, color=colour, marker="o", markersize=5, linewidth=1, clip_on=False)
        heights = _lanes(predicted, lanes=(1.06, 1.12, 1.18), gap=_LABEL_WIDTH)
        if _legible(predicted, heights, gap=_LABEL_WIDTH):
            for one, height in zip(filled, heights, strict=True):
                axes.text(one["predicted"], height, f"{one['n']}", ha="center", va="center", fontsize=9)
            axes.text(-0.09, 1.06, "n", ha="right", va="center", fontsize=9, color=_MUTED)
        else:
            least, most = (extreme(one["n"] for one in filled) for extreme in (min, max))
            told = f"n {least}" if least == most else f"n {least} to {most}"
            axes.text(0, 1.06, f"{told} at each point", va="center", fontsize=9, color=_MUTED)
        spoken = "; ".join(
            f"predicted {one['predicted']:.2f}, observed {one['observed']:.2f}, n {one['n']}" for one in filled
        )
        return plot.svg(f"Reliability diagram of {name}. {spoken}.")


def decision_svg(curve: Metrics, *, thresholds: Sequence[float], name: str, index: int = 0) -> str:
    """Plot what it is worth to call one class at each threshold, beside calling everyone and calling no one.

    Parameters
    ----------
    curve
        Mapping with ``net_benefit``, ``low``, ``high`` and ``treat_all``, lists over the thresholds; an end that is
        None is left out of the band.
    thresholds
        In (0, 1), ascending.
    name
        The class.
    index
        Its place among the classes, which gives the colour.
    """
    values = np.array(curve["net_benefit"], dtype=float)
    low, high = (np.array(curve[end], dtype=float) for end in ("low", "high"))
    top = max(0.0, float(np.nanmax([*values, *high, curve["treat_all"][0]])))
    colour = PALETTE[index % len(PALETTE)]
    with _plot(f"decision-{index}") as plot:
        axes = plot.axes()
        axes.fill_between(thresholds, low, high, color=colour, alpha=0.18, linewidth=0)
        plot.keyed(*axes.plot(thresholds, curve["treat_all"], color=_MUTED, linewidth=1.2, linestyle=(0, (6, 2))),
                   text="call everyone")  # fmt: skip
        plot.keyed(axes.axhline(0, color=_INK, linewidth=1, linestyle=(0, (1, 1))), text="call no one")
        plot.keyed(
            *axes.plot(thresholds, values, color=colour, linewidth=1.8), text="call by the model, with 95 % band"
        )
        axes.set(xlim=(0, 1), ylim=(-0.25 * top - 0.01, 1.08 * top + 0.01), ylabel="net benefit per patient")
        axes.set_xlabel(textwrap.fill(f"threshold on the probability of {name}", 42))
        axes.grid(visible=True)
        plot.legend()
        better = (values > np.array(curve["treat_all"])) & (values > 0)
        inside = np.asarray(thresholds)[better]
        gaps = np.flatnonzero(np.diff(np.flatnonzero(better)) > 1) + 1
        runs = [f"{run[0]:.2f} to {run[-1]:.2f}" for run in np.split(inside, gaps) if run.size]
        best = f"best at thresholds of {', '.join(runs)}" if runs else "best at no threshold"
        return plot.svg(f"Decision curve of {name}: calling by the model is {best}.")


def robustness_svg(points: Sequence[Metrics], *, name: str, floor: float = 0.4) -> str:
    """Plot the AUC against the strength of one disturbance, with 95 % intervals as a band.

    Parameters
    ----------
    points
        Mappings with ``strength``, ``unit`` and ``auc``; points without an AUC are passed over.
    name
        The disturbance.
    floor
        Lower end of the AUC's axis, the same for all plots that stand side by side.
    """
    known = sorted(
        (one for one in points if one["auc"].get("value") is not None), key=lambda one: float(one["strength"])
    )
    strength, value = [one["strength"] for one in known], [one["auc"]["value"] for one in known]
    low, high = (np.array([one["auc"].get(end) for one in known], dtype=float) for end in ("low", "high"))
    unit = next((str(one["unit"]) for one in known if one.get("unit")), "")
    with _plot(f"robustness-{name}", width=_SMALL, height=0.8 * _SMALL) as plot:
        axes = plot.axes()
        axes.axhline(0.5, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.fill_between(strength, low, high, color=PALETTE[0], alpha=0.18, linewidth=0)
        axes.plot(strength, value, color=PALETTE[0], marker="o", markersize=4, linewidth=1.6, clip_on=False)
        axes.set(ylim=(floor, 1), ylabel="AUC")
        axes.set_xlabel(textwrap.fill(f"{name} ({unit})" if unit else name, 32))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MultipleLocator(0.2))
        axes.grid(visible=True)
        spoken = "; ".join(f"{one['strength']:g}: {estimate_text(one['auc'])}" for one in known)
        return plot.svg(f"AUC against the strength of {name}. {spoken}.")


def history_svg(history: Sequence[Mapping[str, float | None]], *, quantity: str, label: str) -> str:
    """Plot a figure by epoch: each fold as a light line, their mean as a dark one.

    Parameters
    ----------
    history
        Rows with ``repeat``, ``fold``, ``epoch`` and `quantity`; rows that lack it are passed over.
    quantity
        The key to plot.
    label
        What it is called.
    """
    folds: dict[tuple[float | None, float | None], dict[float, float]] = {}
    for row in history:
        value, epoch = row.get(quantity), row["epoch"]
        if value is not None and epoch is not None and math.isfinite(value):
            folds.setdefault((row["repeat"], row["fold"]), {})[epoch] = value
    with _plot(f"history-{quantity}", height=0.75 * _SIDE) as plot:
        axes = plot.axes()
        for by_epoch in folds.values():
            axes.plot(list(by_epoch), list(by_epoch.values()), color=PALETTE[0], alpha=0.3, linewidth=0.9)
        epochs = sorted(set[float]().union(*folds.values()))
        means = [float(np.mean([fold[epoch] for fold in folds.values() if epoch in fold])) for epoch in epochs]
        axes.plot(epochs, means, color=PALETTE[0], linewidth=2)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(visible=True)
        ends = f", {means[0]:.3g} at first and {means[-1]:.3g} at last" if means else ""
        return plot.svg(f"{label} by epoch in {len(folds)} folds, and their mean{ends}.")


def forest_svg(rows: Sequence[ForestRow], *, label: str) -> str:
    """Plot estimates with their 95 % intervals, one a line; a dotted line marks an AUC of chance.

    Parameters
    ----------
    rows
        From top to bottom; the model's is drawn as a filled diamond.
    label
        What is estimated.
    """
    with _plot("forest", height=0.8 + 0.52 * len(rows)) as plot:
        axes = plot.axes()
        axes.axvline(0.5, color=_MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        for place, row in enumerate(rows):
            value, low, high = (row.figure.get(key) for key in ("value", "low", "high"))
            colour = PALETTE[1] if row.is_model else PALETTE[0]
            if low is not None and high is not None:
                axes.hlines(place, low, high, color=colour, linewidth=2.2 if row.is_model else 1.4, clip_on=False)
            if value is not None:
                face = colour if row.is_model else "white"
                marker = "D" if row.is_model else "o"
                axes.plot([value], [place], marker=marker, markersize=7, color=colour, mfc=face, clip_on=False)
            for text, x, side in ((row.name, 0, "left"), (estimate_text(row.figure), 1, "right")):
                axes.annotate(
                    text, (x, place), (0, 8), xycoords=("axes fraction", "data"), textcoords="offset points", ha=side,
                    fontweight="bold" if row.is_model else "normal", bbox=_PLATE,
                )  # fmt: skip
        axes.set(xlim=_span(rows), ylim=(len(rows) - 0.6, -0.75), xlabel=label, yticks=[])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        spoken = "; ".join(f"{row.name}: {estimate_text(row.figure)}" for row in rows)
        return plot.svg(f"{label} with 95 % intervals. {spoken}.")


def weights_svg(planes: Sequence[PlaneWeight], *, name: str) -> str:
    """Plot how much each plane of a volume weighs, as a reader leafs through it.

    Parameters
    ----------
    planes
        Those that were read, in that order.
    name
        Of the volume, which tells its plot from others on the page.
    """
    axis = planes[0].position.axis
    mm = np.array([plane.position.mm for plane in planes])
    weights = np.array([plane.weight for plane in planes])
    step = float(np.abs(np.diff(mm)).min()) if len(mm) > 1 else 1.0
    # The axis runs as a reader leafs, which along z is against its numbers.
    onward = -step if axis == "z" else step
    top = 1.15 * float(weights.max(initial=0.01))
    with _plot(f"weights-{name}", height=0.62 * _SIDE) as plot:
        axes = plot.axes()
        for shown, colour, text in ((True, PALETTE[0], "shown below"), (False, _PALE, "read, not shown")):
            chosen = np.array([plane.is_shown is shown for plane in planes])
            if chosen.any():
                bars = axes.bar(mm[chosen], weights[chosen], width=0.8 * step, color=colour)
                plot.keyed(bars.patches[0], text=text)
        outlined = mm[np.array([plane.has_lesion for plane in planes])]
        if outlined.size:
            below = np.full(len(outlined), -0.045 * top)
            marks = axes.hlines(below, outlined - 0.4 * step, outlined + 0.4 * step, color=PALETTE[1], linewidth=4)
            plot.keyed(marks, text="shows the outlined lesion")
        axes.set(xlim=(mm[0] - onward, mm[-1] + onward), ylim=(-0.09 * top, top), ylabel="weight")
        axes.set_xlabel(f"{_ENDS[axis][0]}  ←  {axis}, mm  →  {_ENDS[axis][1]}")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda share, _place: f"{100 * share:.3g} %")
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        plot.legend()
        spoken = "; ".join(f"{plane.position.text}: {share_text(plane.weight)}" for plane in planes)
        return plot.svg(f"Weight of each plane that was read. {spoken}.")


def strip_svg(points: Sequence[tuple[str, float]], *, classes: Sequence[str]) -> str:
    """Plot the probability that each case was given for its own recorded diagnosis, one row a class.

    Parameters
    ----------
    points
        Class name and probability of that class, one pair a case.
    classes
        Rows, from top to bottom.
    """
    with _plot("strip", height=0.9 + 0.8 * len(classes)) as plot:
        axes = plot.axes()
        for index, name in enumerate(classes):
            values = np.sort([probability for label, probability in points if label == name])
            place = index % len(PALETTE)
            offsets = np.array(_lanes(values, lanes=_SWARM, gap=0.02))
            axes.plot(
                values, index + offsets, linestyle="none", marker=_MARKERS[place], markersize=4.5,
                color=PALETTE[place], alpha=0.75, markeredgewidth=0,
            )  # fmt: skip
            text = f"{name} (n = {len(values)})"
            axes.annotate(text, (0, index), (0, 22), xycoords=("axes fraction", "data"), textcoords="offset points")
        axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.55, -0.75), yticks=[])
        axes.set_xlabel("probability given to the recorded diagnosis")
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        return plot.svg("Probability that each case was given for its own recorded diagnosis, by recorded diagnosis.")


def falls_svg(pairs: Sequence[tuple[float, float]], *, name: str, first: str, second: str) -> str:
    """Plot a probability of each case before and after something was taken away, as a line from the one to the other.

    Parameters
    ----------
    pairs
        Probabilities before and after; lines that do not fall are drawn in another colour, and dashed.
    name
        The class.
    first, second
        What is before and what is after.
    """
    with _plot("falls", height=0.9 * _SIDE) as plot:
        axes = plot.axes()
        fallen = [pair for pair in pairs if pair[1] < pair[0]]
        others = [pair for pair in pairs if pair[1] >= pair[0]]
        for chosen, colour, style, text in (
            (fallen, PALETTE[0], "-", f"falls: {len(fallen)}"),
            (others, PALETTE[1], (0, (4, 2)), f"does not fall: {len(others)}"),
        ):
            drawn = [
                axes.plot([0, 1], pair, color=colour, linestyle=style, marker="o", markersize=4, alpha=0.7, linewidth=1)
                for pair in chosen
            ]
            if drawn:
                plot.keyed(*drawn[0], text=text)
        axes.set(xlim=(-0.25, 1.25), ylim=(-0.02, 1.02))
        axes.set_xticks([0, 1], [first, second])
        axes.set_ylabel(f"probability of {name}")
        axes.grid(visible=True, axis="y")
        plot.legend()
        return plot.svg(f"Probability of {name}, {first} and {second}, of {len(pairs)} patients. " + plot.spoken())


def _lanes(values: npt.NDArray[np.float64], *, lanes: Sequence[float], gap: float) -> list[float]:
    """Give each of the sorted values the first lane in which it comes no nearer than `gap` to another.

    Where all lanes are taken, the one whose last value is farthest away.
    """
    last = np.full(len(lanes), -np.inf)
    chosen = []
    for value in values:
        free = np.flatnonzero(value - last >= gap)
        lane = int(free[0]) if len(free) else int(np.argmin(last))
        last[lane] = value
        chosen.append(lanes[lane])
    return chosen


def _legible(values: npt.NDArray[np.float64], lanes: Sequence[float], *, gap: float) -> bool:
    """Tell whether no two of the sorted values that share a lane are nearer to each other than `gap`."""
    of_lane = ([value for value, own in zip(values, lanes, strict=True) if own == lane] for lane in set(lanes))
    return all(right - left >= gap for near in of_lane for left, right in itertools.pairwise(near))


def _span(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Find round ends of the axis that hold every interval, and chance."""
    ends = [row.figure[key] for row in rows for key in ("value", "low", "high") if row.figure.get(key) is not None]
    return math.floor(10 * min([0.5, *ends])) / 10, math.ceil(10 * max([1.0, *ends])) / 10


def _curves(
    level: Metrics, classes: Sequence[str], slugs: Sequence[str]
) -> list[tuple[int, str, str, Mapping[str, Mapping[str, Sequence[float]]]]]:
    """List the classes whose curves are defined, with their place among the classes."""
    curves = level.get("curves") or {}
    return [
        (index, name, slug, curves[slug])
        for index, (name, slug) in enumerate(zip(classes, slugs, strict=True))
        if slug in curves and all(len(points) for curve in curves[slug].values() for points in curve.values())
    ]


def _of(level: Metrics, key: str, slug: str) -> str:
    return estimate_text((level.get(key) or {}).get(slug) or {})


@contextlib.contextmanager
def _plot(name: str, *, width: float = _SIDE, height: float = _SIDE) -> Iterator[_Plot]:
    """Give a plot in the report's style; matplotlib's own settings are as before when the block ends."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The page's font shows the script, whatever the font that measures it holds.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield _Plot(Canvas(figsize=(width, height), layout="constrained"))


class _Plot:
    """A figure under construction, with what its legend will say."""

    def __init__(self, figure: Canvas) -> None:
        self.figure = figure
        self._handles: list[Artist] = []
        self._texts: list[str] = []

    def axes(self) -> Axes:
        return self.figure.subplots()

    def square(self, x: str, y: str) -> Axes:
        """Give axes from 0 to 1 both ways."""
        axes = self.axes()
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
        axes.grid(visible=True)
        return axes

    def line(
        self, axes: Axes, x: Sequence[float], y: Sequence[float], index: int, text: str, *, steps: bool = False
    ) -> None:
        """Draw a class's curve; in steps, each point's height holds back to the point before it."""
        place, style = index % len(PALETTE), "steps-pre" if steps else "default"
        (handle,) = axes.plot(x, y, color=PALETTE[place], linestyle=_DASHES[place], linewidth=1.8, drawstyle=style)
        self.keyed(handle, text=text)

    def keyed(self, handle: Artist, *, text: str) -> None:
        """Let the legend say what a line is."""
        self._handles.append(handle)
        self._texts.append(text)

    def legend(self) -> None:
        """Say under the plot what its lines are, making room for it."""
        if not self._handles:
            return
        texts = [textwrap.fill(text, 44) for text in self._texts]
        lines = sum(text.count("\n") + 1 for text in texts)
        self.figure.set_figheight(self.figure.get_figheight() + 0.1 + 0.23 * lines)
        # A text that begins with an underscore would be left out: a space of no width goes before each.
        self.figure.legend(self._handles, [f"\u200b{text}" for text in texts], loc="outside lower left")

    def spoken(self) -> str:
        """Say what the legend says, as a sentence."""
        return "; ".join(self._texts) + "."

    def svg(self, description: str) -> str:
        """Render for a page, not for a file: no size, no namespace, no font, no name of another resource."""
        stream = io.StringIO()
        self.figure.savefig(stream, format="svg", metadata=_METADATA)
        # The text was written by matplotlib a line above.
        root = ElementTree.fromstring(stream.getvalue())  # noqa: S314
        _make_inline(root)
        root.attrib.update({"class": "plot", "role": "img", "aria-label": description})
        return ElementTree.tostring(root, encoding="unicode")


def _make_inline(root: ElementTree.Element) -> None:
    """Make a whole SVG document into an element of a page."""
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith("}style")]:
            parent.remove(child)
    elements = list(root.iter())
    used = {name for element in elements for value in element.attrib.values() for name in _references(value)}
    for element in elements:
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            if key != "id" or value in used:
                element.attrib[key.rpartition("}")[2]] = _shortened(value)
        if element.text is not None and not element.text.strip():
            element.text = None


def _references(value: str) -> list[str]:
    """List the identifiers that an attribute refers to."""
    return re.findall(r"(?:^|url\()#([\w-]+)", value)


def _shortened(value: str) -> str:
    """Drop the font, which the page gives, and round coordinates to a hundredth of a point."""
    value = re.sub(r"font-family: [^;]*;? ?", "", value)
    value = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
    return re.sub(r"\s+", " ", value).strip()
