"""What all verbs show: progress on a terminal, plain lines elsewhere, and one summary."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERRUPTED = 130

# Lines that a log gets from a count, beside its last.
_LINES_OF_A_COUNT = 10


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of how many are done: a bar on a terminal, a few lines elsewhere; on standard error."""
    with staged(what) as say:
        yield functools.partial(say, what)


@contextlib.contextmanager
def staged(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show, as `counted` does, of one thing after the other how many of how many are done."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(first, total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _lines() -> Callable[[str, int, int], None]:
    """Give what writes some lines of a count, and none twice in a row, however often it is told the same."""
    last = ""

    def say(what: str, done: int, total: int) -> None:
        nonlocal last
        line = f"{what}: {done} of {total}"
        if line != last and (done == total or done % max(1, total // _LINES_OF_A_COUNT) == 0):
            log(line)
            last = line

    return say


def log(line: str) -> None:
    """Write a line for people to standard error, with the time of day."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def summary(value: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    """Close a verb: one JSON object, or lines for people, on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else "\n".join(lines))


def figure_text(figure: dict[str, Any], *, digits: int = 3) -> str:
    """Write a figure with its interval."""
    if figure["value"] is None:
        return f"not defined ({figure.get('reason', 'too few cases')})"
    if figure["low"] is None:
        return f"{figure['value']:.{digits}f} (n = {figure['n']})"
    return (
        f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f}, n = {figure['n']})"
    )


def study_lines(metrics: dict[str, Any]) -> list[str]:
    """Say a study's main figures in a few lines."""
    level = metrics["patient"]
    shown = ("auc", "auc_within_folds", "balanced_accuracy", "accuracy", "brier", "calibration_slope")
    lines = [f"  {name.replace('_', ' '):18} {figure_text(level[name])}" for name in shown if name in level]
    for slug, name in zip(metrics["slugs"], metrics["classes"], strict=True):
        lines.append(f"  sensitivity {name}: {figure_text(level['sensitivity'][slug])}")
    for name, other in metrics["baselines"].items():
        beside = (
            f"auc {figure_text(other['auc'])}, difference {figure_text(other['auc_difference'])}"
            if "auc" in other
            else other["reason"]
        )
        lines.append(f"  beside {name}: {beside}")
    return [f"By patient ({metrics['n_patients']} patients, {metrics['n_images']} images), 95 % intervals:", *lines]
