"""Tells whether slices follow each other in equal steps, how they come apart into such stacks, and what is wrong else.

Everything here goes by positions along the slices' common normal, never by instance numbers or slice thickness.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SAME_PLACE = 0.01
"""Slices whose distance along the normal, in mm, is at most this lie at one place."""

LARGEST_DEVIATION = 0.1
"""A slice of an even stack is at most so many mm, and at most this share of a step, off its place; positions that are
written with one decimal are off by half as much."""

STEEPEST = 0.7
"""Least cosine of the step from slice to slice with the normal; gantries tilt by 30 degrees at most."""

SMALLEST_PART = 3
"""With fewer slices a step could not be seen to repeat."""

THINNEST = 0.4
"""Slices nearer to each other, in mm, are taken to have no step in common rather than one so small."""

MOST_MISSED = 12
"""Steps from one stack to the next up to which slices may be missing between them; behind more it is another region."""

MOST_MARKS = 3
"""So many marks together may tell slices at one place apart, such as an echo and a kind of image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Slices that follow each other in equal steps.

    Parameters
    ----------
    indices
        Of the slices, along the normal.
    step
        From slice to slice in LPS mm; None of a single one.
    part
        What tells it from the other stacks that the slices made, in words; empty where it is the only one.
    """

    indices: tuple[int, ...]
    step: NDArray[np.float64] | None
    part: str = ""


def stacks_of(
    positions: NDArray[np.float64], normal: NDArray[np.float64], marks: Sequence[dict[str, str]]
) -> tuple[Stack, ...] | None:
    """Order slices along their normal; where they are no even stack, divide them by what tells them apart.

    Parameters
    ----------
    positions
        ``(n, 3)`` in LPS mm, of slices with one orientation.
    normal
        Unit vector at right angles to them.
    marks
        What may tell each slice from another one at its place, by name.

    Returns
    -------
    One stack or several, or None where the slices make none.
    """
    everything = tuple(range(len(positions)))
    whole = _even(positions, normal, everything)
    if whole is not None:
        return (whole,)
    names = tuple(dict.fromkeys(name for mark in marks for name in mark))
    return _divided(positions, normal, marks, everything, names, MOST_MARKS)


def blocks_of(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> tuple[Stack, ...] | None:
    """Divide slices into blocks, each with a step of its own or apart from the next by what is no multiple of it.

    So head scans with thin slices at the base and thick ones above, and slabs laid through single discs, come apart;
    slices with gaps where others are missing do not.

    Returns
    -------
    Two blocks or more, or None where the slices make none.
    """
    order = np.argsort(positions @ normal, kind="stable")
    runs = _runs(positions[order])
    if len(runs) < 2 or min(last - first for first, last in runs) < SMALLEST_PART:
        return None
    stacks = [_even(positions, normal, tuple(order[first:last].tolist())) for first, last in runs]
    even = [stack for stack in stacks if stack is not None]
    if len(even) < len(runs) or any(_looks_missing(positions, *pair) for pair in itertools.pairwise(even)):
        return None
    return tuple(
        Stack(indices=stack.indices, step=stack.step, part=f"slices {first + 1} to {last} of {len(order)}")
        for stack, (first, last) in zip(even, runs, strict=True)
    )


def no_stack(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> RefusedImageError:
    """Say why slices make no stack.

    Parameters
    ----------
    positions, normal
        As in `stacks_of`.
    """
    heights = np.sort(positions @ normal)
    steps = np.diff(heights)
    shared = int((steps <= SAME_PLACE).sum())
    if shared:
        found = f"expected slices at places of their own, found {shared} of {len(heights)} at the place of another one"
        remedy = "export the series again, or name the files of one acquisition only"
        return RefusedImageError(RefusalCode.SAME_PLACE, found, remedy=remedy)
    shortest = _common(steps)
    missing = np.round(steps / shortest) - 1
    if shortest >= THINNEST and missing.any():
        gaps, lost = int((missing > 0).sum()), int(missing.sum())
        where = f"{gaps} gaps, the largest of {steps.max():.4g} mm" if gaps > 1 else f"a gap of {steps.max():.4g} mm"
        lack = f"{lost} slices are missing" if lost > 1 else "a slice is missing"
        found = f"expected slices every {shortest:.4g} mm, found {where}, in which {lack}"
        return RefusedImageError(RefusalCode.MISSING_SLICES, found, remedy="export the whole series again")
    found = f"expected slices in equal steps along one line, found steps of {steps.min():.4g} to {steps.max():.4g} mm"
    remedy = "name the files of slices in equal steps only, or leave it out"
    return RefusedImageError(RefusalCode.UNEVEN_SLICES, found, remedy=remedy)


def most_at_one_place(heights: NDArray[np.float64]) -> int:
    """Count the slices at the place that most share."""
    edges = np.flatnonzero(np.diff(np.sort(heights)) > SAME_PLACE)
    return int(np.diff(np.concatenate([[-1], edges, [len(heights) - 1]])).max())


def _tolerance(step: float) -> float:
    return min(LARGEST_DEVIATION, LARGEST_DEVIATION * step)


def _same(step: float, other: NDArray[np.float64]) -> bool:
    """Tell whether another step is as long as one, in mm."""
    return abs(step - float(np.linalg.norm(other))) <= _tolerance(step)


def _even(positions: NDArray[np.float64], normal: NDArray[np.float64], indices: tuple[int, ...]) -> Stack | None:
    """Order slices along the normal; None where they do not follow each other in equal steps."""
    chosen = positions[list(indices)]
    order = np.argsort(chosen @ normal, kind="stable")
    ordered = tuple(indices[place] for place in order)
    if len(indices) == 1:
        return Stack(indices=ordered, step=None)
    path = chosen[order]
    step = (path[-1] - path[0]) / (len(path) - 1)
    length = float(np.linalg.norm(step))
    if step @ normal <= max(SAME_PLACE, STEEPEST * length):
        return None
    expected = path[0] + np.arange(len(path))[:, np.newaxis] * step
    deviation = np.linalg.norm(path - expected, axis=1).max()
    return Stack(indices=ordered, step=step) if deviation <= _tolerance(length) else None


def _divided(
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    marks: Sequence[dict[str, str]],
    indices: tuple[int, ...],
    names: tuple[str, ...],
    most: int,
) -> tuple[Stack, ...] | None:
    """Divide slices by the first mark, or the first few, that leave nothing but even stacks."""
    shared = most_at_one_place(positions[list(indices)] @ normal)
    for place, name in enumerate(names):
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(marks[index].get(name, ""), []).append(index)
        if len(groups) < 2 or not _plausible([*groups.values()], shared):
            continue
        parts: list[Stack] = []
        for number, (value, group) in enumerate(sorted(groups.items(), key=_by_number)):
            part = _part(name, value, number + 1, len(groups))
            whole = _even(positions, normal, tuple(group))
            inner: tuple[Stack, ...] | None = (whole,) if whole is not None else None
            if inner is None and most > 1:
                inner = _divided(positions, normal, marks, tuple(group), names[place + 1 :], most - 1)
            if inner is None:
                break
            parts += [_named(stack, part) for stack in inner]
        else:
            if shared > 1 or _apart(positions, normal, parts):
                return tuple(parts)
    return None


def _apart(positions: NDArray[np.float64], normal: NDArray[np.float64], parts: Sequence[Stack]) -> bool:
    """Tell whether stacks that share no place are images of their own.

    Where one follows another in its own step or a few steps behind, as rotations of a scanner and the files of two
    folders do, or lies evenly among its slices, as packages of an MR do, they are one, of which slices are missing.
    """
    by_height = sorted(parts, key=lambda stack: float(positions[stack.indices[0]] @ normal))
    return not any(_are_one(positions, normal, pair, len(parts)) for pair in itertools.pairwise(by_height))


def _are_one(
    positions: NDArray[np.float64], normal: NDArray[np.float64], pair: tuple[Stack, Stack], count: int
) -> bool:
    """Tell whether a stack and the next one up look like parts of one, of so many in all."""
    one, other = pair
    if one.step is None or other.step is None:
        return True
    step = float(np.linalg.norm(one.step))
    gap = positions[other.indices[0]] - positions[one.indices[-1]]
    if gap @ normal > 0:
        few = float(np.linalg.norm(gap)) <= MOST_MISSED * step + LARGEST_DEVIATION
        return few and _looks_missing(positions, one, other)
    offset = float(np.linalg.norm(positions[other.indices[0]] - positions[one.indices[0]])) * count / step
    return _same(step, other.step) and abs(offset - round(offset)) * step / count <= _tolerance(step)


def _plausible(groups: list[list[int]], shared: int) -> bool:
    """Tell whether a mark divides slices rather than numbers them: into few groups, or no more than places are shared.

    Some scanners give every slice an acquisition number of its own; divided by it, a gap would go unseen.
    """
    return min(map(len, groups)) >= SMALLEST_PART or len(groups) <= shared


def _by_number(item: tuple[str, list[int]]) -> tuple[float, str]:
    try:
        return float(item[0]), item[0]
    except ValueError:
        return np.inf, item[0]


def _part(name: str, value: str, number: int, count: int) -> str:
    """Name a group; only a number is shown, and no hour, since anything else could say who the patient is."""
    if name == "acquisition time" or not value.replace(".", "", 1).isdecimal():
        return f"{name} {number} of {count}"
    return f"{name} {float(value):g}{' ms' if name in _MILLISECONDS else ''}"


_MILLISECONDS = ("echo time", "inversion time", "trigger time")


def _named(stack: Stack, part: str) -> Stack:
    inner = f"{part}, {stack.part}" if stack.part else part
    return Stack(indices=stack.indices, step=stack.step, part=inner)


def _common(steps: NDArray[np.float64]) -> float:
    """Give the largest step that all are multiples of, or one below `THINNEST` where they have none in common."""
    common = float(steps[0])
    for step in steps.tolist():
        larger, smaller = max(step, common), min(step, common)
        if smaller <= LARGEST_DEVIATION:
            return float(smaller)
        while smaller > LARGEST_DEVIATION:
            larger, smaller = smaller, abs(larger - round(larger / smaller) * smaller)
        common = larger
    return common


def _runs(path: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Cut a path where its step changes; give first and one past the last of each run."""
    steps = np.diff(path, axis=0)
    runs, first = [], 0
    while first < len(path):
        last = first + 1
        while last < len(path) and np.linalg.norm(steps[last - 1] - steps[first]) <= _tolerance(
            float(np.linalg.norm(steps[first]))
        ):
            last += 1
        runs.append((first, last))
        first = last
    return runs


def _looks_missing(positions: NDArray[np.float64], one: Stack, other: Stack) -> bool:
    """Tell whether what lies between two stacks could be missing slices: a multiple of the step that both have."""
    if one.step is None or other.step is None:
        return True
    step = float(np.linalg.norm(one.step))
    if not _same(step, other.step):
        return False
    gap = float(np.linalg.norm(positions[other.indices[0]] - positions[one.indices[-1]]))
    count = round(gap / step)
    return abs(gap - count * step) <= count * _tolerance(step)
