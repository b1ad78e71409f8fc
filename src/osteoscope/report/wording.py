"""How figures are written for people: the estimate, its 95 % interval, or a dash and the reason why there is none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osteoscope.report.content import Figure

DASH = "–"
PERCENT = "\u00a0%"
"""With a space at which no line breaks."""


def is_defined(figure: Figure) -> bool:
    """Tell whether a figure has a value."""
    return _number(figure.get("value")) is not None


def has_interval(figure: Figure) -> bool:
    """Tell whether a figure has a value with both ends of an interval."""
    return all(_number(figure.get(key)) is not None for key in ("value", "low", "high"))


def estimate_text(figure: Figure, *, percent: bool = False) -> str:
    """Write an estimate with its interval: ``0.86 (0.79–0.91)``, ``86 % (79–91)``, or a dash.

    Parameters
    ----------
    figure
        ``value``, ``low``, ``high``; missing keys count as None.
    percent
        Write shares as whole percentages.
    """
    value = value_text(figure, percent=percent)
    return f"{value} ({interval_text(figure, percent=percent)})" if value != DASH else DASH


def value_text(figure: Figure, *, percent: bool = False) -> str:
    """Write an estimate alone, or a dash; parameters as in `estimate_text`."""
    value = _number(figure.get("value"))
    if value is None:
        return DASH
    return f"{_written(value, percent)}{PERCENT}" if percent else _written(value, percent)


def interval_text(figure: Figure, *, percent: bool = False) -> str:
    """Write a 95 % interval alone: ``0.79–0.91``, ``79–91`` or ``no interval``; parameters as in `estimate_text`."""
    low, high = _number(figure.get("low")), _number(figure.get("high"))
    if low is None or high is None:
        return "no interval"
    # A dash next to a minus sign would be misread.
    join = " to " if low < 0 else DASH
    return f"{_written(low, percent)}{join}{_written(high, percent)}"


def note_text(figure: Figure, undefined: str) -> str:
    """Write what stands below an estimate: why value or interval is missing, or is of another kind; the cases.

    Parameters
    ----------
    figure
        ``n``, ``reason`` and ``note`` are read too; each may be missing.
    undefined
        Why there is no value, where the figure does not say so itself.
    """
    reason = figure.get("reason")
    notes = []
    if not is_defined(figure):
        notes.append(str(reason or undefined))
    elif not has_interval(figure):
        notes.append(str(reason or "no interval"))
    elif figure.get("note"):
        notes.append(str(figure["note"]))
    if figure.get("n") is not None:
        notes.append(f"n\u00a0=\u00a0{count_text(figure['n'])}")
    return "; ".join(notes)


def share_text(share: float) -> str:
    """Write a probability for people: ``7 %``, and ``< 1 %`` rather than a 0 that claims certainty."""
    if 0 < share < 0.005:
        return f"<\u00a01{PERCENT}"
    if 0.995 < share < 1:
        return f">\u00a099{PERCENT}"
    return f"{100 * share:.0f}{PERCENT}"


def p_value_text(p_value: float) -> str:
    """Write a p-value: ``0.043``, and ``< 0.001`` below that."""
    return "<\u00a00.001" if p_value < 0.001 else f"{p_value:.3f}"


def count_text(number: int) -> str:
    """Write a number of cases: ``2,598``."""
    return f"{number:,}"


def setting_text(value: object) -> str:
    """Write a setting for people: yes and no, a list with commas, a dash for none; numbers without noise.

    A list in a list is a range: ``-160 to 240, -500 to 1300``.
    """
    if value is None or value == ():
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(
            " to ".join(map(setting_text, one)) if isinstance(one, list | tuple) else setting_text(one) for one in value
        )
    return str(value)


def _number(value: object) -> float | None:
    """Read a JSON number; None, and what is not finite, is no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _written(value: float, percent: bool) -> str:
    text = f"{100 * value:.0f}" if percent else f"{value:.2f}"
    return text.replace("-", "−")
