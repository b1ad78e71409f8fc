"""Finds pairs of pictures whose descriptors look alike, whatever was cropped, flipped or turned a little.

Each hypothesis of what was done to a picture is a linear map from its descriptor to a few cosine coefficients, so that
all pairs under one hypothesis are one matrix product. Every picture keeps the few others that it resembles most under
any hypothesis; these pairs are aligned on the descriptors, coarse and fine, and what then correlates is a candidate.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.align import align, compose, resampled
from osteoscope.imaging.look import SIDE
from osteoscope.processes import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.look import Look

VERSION = 1

LEAST_CORRELATION = 0.88
"""Of aligned descriptors: what correlates less is no candidate."""

_LEAST_COARSE = 0.8
_MOST_ALIKE = 8
"""How many others each picture keeps for alignment."""

_LEAST_ALIKE = 0.5
"""Pairs whose coefficients correlate less are not kept."""

_BLOCK = 512
"""Pictures in a block; all pairs of two blocks are compared at once."""

_BLOCKS_HELD = 8

_BATCH = 32
_COARSE_SIDE = SIDE // 2
_COARSE_STEPS, _FINE_STEPS = 8, 6

FRAMES = ("whole", "content")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Two pictures that may be one.

    Parameters
    ----------
    moving, fixed
        Places of the two in their lists; the fixed one may be a part of the moving one.
    frame
        Index into `FRAMES`: what of both was compared.
    transform
        ``(2, 3)``, from the fixed picture's frame to the moving one's, see `osteoscope.imaging.align`.
    correlation
        Of the aligned descriptors.
    """

    moving: int
    fixed: int
    frame: int
    transform: NDArray[np.float64]
    correlation: float


def find_candidates(looks: Sequence[Look], others: Sequence[Look] | None = None) -> tuple[Candidate, ...]:
    """Find the pairs that look alike among some pictures, or between them and others.

    Parameters
    ----------
    looks
        At the pictures.
    others
        At the pictures of another list, with which alone they are then compared.

    Returns
    -------
    Each pair once, the most alike first. ``moving`` and ``fixed`` are places in `looks`; where there are `others`,
    these follow on: place ``len(looks)`` is the first of them.
    """
    everyone = [*looks, *(others or ())]
    if not looks or (others is not None and not others):
        return ()
    descriptors = np.stack([look.descriptor for look in everyone])
    starts = _most_alike(descriptors, None if others is None else len(looks))
    batches = [starts[first : first + _BATCH] for first in range(0, len(starts), _BATCH)]
    with ThreadPoolExecutor(cores()) as pool:
        found = [one for batch in pool.map(lambda batch: _aligned(descriptors, batch), batches) for one in batch]
    return tuple(sorted(found, key=lambda one: (-one.correlation, one.moving, one.fixed)))


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A pair and the hypothesis under which it looks most alike."""

    moving: int
    fixed: int
    hypothesis: int
    flip: int


def _aligned(descriptors: NDArray[np.int8], starts: Sequence[_Start]) -> list[Candidate]:
    """Align pairs on the coarse descriptors, and those that are still alike on the fine ones."""
    hypotheses = [_HYPOTHESES[start.hypothesis] for start in starts]
    transforms = np.stack(
        [compose(one.transform, _FLIPS[start.flip]) for one, start in zip(hypotheses, starts, strict=True)]
    )
    frames = np.array([one.frame for one in hypotheses])
    fixed = descriptors[[start.fixed for start in starts], frames].astype(np.float32)
    moving = descriptors[[start.moving for start in starts], frames].astype(np.float32)
    coarse = align(_halved(fixed), _halved(moving), transforms, iterations=_COARSE_STEPS)
    kept = np.flatnonzero(coarse.correlations >= _LEAST_COARSE).tolist()
    fine = align(fixed[kept], moving[kept], coarse.transforms[kept], iterations=_FINE_STEPS)
    return [
        Candidate(
            moving=starts[place].moving,
            fixed=starts[place].fixed,
            frame=int(frames[place]),
            transform=transform,
            correlation=float(correlation),
        )
        for place, transform, correlation in zip(kept, fine.transforms, fine.correlations, strict=True)
        if correlation >= LEAST_CORRELATION
    ]


def _halved(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    count, size, _ = squares.shape
    quarters = squares.reshape(count, size // 2, 2, size // 2, 2)
    halved: NDArray[np.float32] = quarters.mean(axis=(2, 4), dtype=np.float32)
    return halved


# Hypotheses -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Hypothesis:
    """What part of a picture's frame another picture may be: a transform from that part to the frame."""

    frame: int
    transform: NDArray[np.float64]


def _hypotheses() -> tuple[_Hypothesis, ...]:
    """Cropped on any side, turned a little, turned by a quarter; of the content, which is itself a crop, fewer."""
    windows = ((0.9, 0.05), (0.8, 0.1))
    spans = [(0.0, 1.0), *((first, first + side) for side, step in windows for first in (0, step, 2 * step))]
    centred = [(0.0, 1.0), (0.06, 0.94), (0.12, 0.88)]
    cropped = [_window(across, down) for across, down in product(spans, spans)]
    turned = [_window(span, span, degrees=degrees) for span in centred[:2] for degrees in (-8, -4, 4, 8)]
    quarter = [_window(span, span, transposed=True) for span in centred]
    content = [_window(*_ALL, degrees=degrees) for degrees in (-5, 5)] + [_window(*_ALL, transposed=True)]
    return tuple(
        _Hypothesis(frame=frame, transform=transform)
        for frame, transforms in enumerate(([*cropped, *turned, *quarter], [*cropped, *content]))
        for transform in transforms
    )


_ALL = ((0.0, 1.0), (0.0, 1.0))


def _window(
    across: tuple[float, float], down: tuple[float, float], *, degrees: float = 0, transposed: bool = False
) -> NDArray[np.float64]:
    """Transform from a window of a frame, turned about the frame's centre, to the frame."""
    (left, right), (top, bottom) = across, down
    window = np.array([[right - left, 0, left], [0, bottom - top, top]])
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cosine, -sine, (1 - cosine + sine) / 2], [sine, cosine, (1 - cosine - sine) / 2]])
    return compose(turn, compose(window, _TRANSPOSED) if transposed else window)


_TRANSPOSED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])

_FLIPS = tuple(
    np.array([[-1.0 if across else 1.0, 0, across], [0, -1.0 if down else 1.0, down]])
    for down, across in product((0, 1), (0, 1))
)
"""As it is, left to right, upside down, both."""

_HYPOTHESES = _hypotheses()

_PLAIN = tuple(next(n for n, one in enumerate(_HYPOTHESES) if one.frame == frame) for frame in (0, 1))
"""Of each frame the hypothesis that nothing was done: it comes first."""


# Matrix products ------------------------------------------------------------------------------------------------------

_ORDERS = 10
"""Cosines along one side, with up to 4.5 periods."""

_DOWN, _ACROSS = np.array([(j, k) for j in range(_ORDERS) for k in range(_ORDERS) if 0 < j * j + k * k < 9.1**2]).T
"""Orders of the coefficients: all but the mean, up to 4.5 periods in any direction."""


def _weights() -> NDArray[np.float64]:
    """Bring the coefficients to like size, so that fine structures count: long bones are coarse, and all alike.

    The power of radiographs falls with the frequency, and is larger along the picture's axes.
    """
    along_an_axis = (_DOWN == 0) | (_ACROSS == 0)
    weights: NDArray[np.float64] = np.where(along_an_axis, 0.5, 1.0) * (1 + (_DOWN**2 + _ACROSS**2) / 49)
    return weights


def _cosines() -> NDArray[np.float64]:
    """Cosines over a coarse descriptor, shape (coefficients, pixels)."""
    place = (np.arange(_COARSE_SIDE) + 0.5) / _COARSE_SIDE
    waves = np.cos(np.pi * np.arange(_ORDERS)[:, np.newaxis] * place)
    cosines: NDArray[np.float64] = waves[_DOWN][:, :, np.newaxis] * waves[_ACROSS][:, np.newaxis]
    return cosines.reshape(len(_DOWN), -1)


def _matrices() -> NDArray[np.float32]:
    """From a coarse descriptor to weighted coefficients under each hypothesis: (hypotheses, coefficients, pixels)."""
    pixels = _COARSE_SIDE**2
    units = np.eye(pixels, dtype=np.float32).reshape(pixels, _COARSE_SIDE, _COARSE_SIDE)
    cosines = _weights()[:, np.newaxis] * _cosines()
    matrices = []
    for one in _HYPOTHESES:
        seen, inside = resampled(units, np.broadcast_to(one.transform, (pixels, 2, 3)), _COARSE_SIDE)
        matrices.append(cosines @ (seen * inside).T)
    return np.array(matrices, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Some pictures: where they begin, and their coefficients ``(n, coefficients)`` under each hypothesis."""

    start: int
    coefficients: Sequence[NDArray[np.float32]]


def _most_alike(descriptors: NDArray[np.int8], parted: int | None) -> list[_Start]:
    """Keep for each picture the pairs that look most alike under any hypothesis.

    Parameters
    ----------
    descriptors
        ``(n, 2, SIDE, SIDE)``.
    parted
        Where the second list begins, if only pairs across the two lists are wanted.
    """
    count, matrices = len(descriptors), _matrices()

    @lru_cache(maxsize=_BLOCKS_HELD)
    def block(start: int, stop: int) -> _Block:
        frames = [_halved(frame.astype(np.float32)) for frame in np.moveaxis(descriptors[start:stop], 1, 0)]
        pairs = zip(_HYPOTHESES, matrices, strict=True)
        return _Block(start=start, coefficients=[_coefficients(frames[one.frame], matrix) for one, matrix in pairs])

    if parted is None:
        spans = _spans(0, count)
        compared = [(rows, columns) for rows in spans for columns in spans if rows <= columns]
    else:
        compared = list(product(_spans(0, parted), _spans(parted, count)))
    kept = [_best_of_blocks(block(*rows), block(*columns)) for rows, columns in compared]
    owner, moving, fixed, hypothesis, flip, score = np.concatenate(kept, axis=1)
    order = np.lexsort((-score, owner))
    first = np.searchsorted(owner[order], owner[order])
    order = order[np.arange(len(order)) - first < _MOST_ALIKE]
    chosen = np.unique(np.stack([moving, fixed, hypothesis, flip])[:, order].astype(int), axis=1)
    return [_Start(moving=m, fixed=f, hypothesis=h, flip=flip) for m, f, h, flip in chosen.T.tolist()]


def _spans(first: int, last: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, last)) for start in range(first, last, _BLOCK)]


def _coefficients(pictures: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coefficients of coarse descriptors ``(n, side, side)``, each picture's of length 1; of a constant one 0."""
    values = pictures.reshape(len(pictures), -1) @ matrix.T
    scaled: NDArray[np.float32] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-6))
    return scaled


_CODES = 1 << 10
"""Number of ways to look at a pair that fit into the lowest bits of a score, where they change it by 0.0001."""


def _best_of_blocks(rows: _Block, columns: _Block) -> NDArray[np.float64]:
    """Compare all pairs of two blocks of pictures, each way round, and keep for each picture its best.

    A score and the way in which it was got are held in one integer: of two positive floats the larger one has the
    larger bits, so one pass keeps the best score together with its way.

    Returns
    -------
    ``(6, n)``: the picture that keeps the pair, the moving and the fixed one, hypothesis, flip, score.
    """
    shape = (len(rows.coefficients[0]), len(columns.coefficients[0]))
    scores = np.empty(shape, dtype=np.float32)
    bits = scores.view(np.int32)
    best = np.full(shape, np.float32(_LEAST_ALIKE)).view(np.int32) & -_CODES
    for way, (hypothesis, flip, swapped) in enumerate(_WAYS):
        plain = _PLAIN[_HYPOTHESES[hypothesis].frame]
        left, right = (plain, hypothesis) if swapped else (hypothesis, plain)
        np.matmul(rows.coefficients[left] * _SIGNS[flip], columns.coefficients[right].T, out=scores)
        np.bitwise_and(bits, -_CODES, out=bits)
        np.bitwise_or(bits, way, out=bits)
        np.maximum(best, bits, out=best)
    if rows.start == columns.start:
        best[np.tril_indices(len(best))] = 0
    by_row, by_column = _largest(best), _largest(best.T)[::-1]
    row, column = np.concatenate([by_row, by_column], axis=1)
    owner = np.where(np.arange(len(row)) < by_row.shape[1], row + rows.start, column + columns.start)
    found = best[row, column]
    hypothesis, flip, swapped = np.array(_WAYS).T[:, found % _CODES]
    score = (found & -_CODES).view(np.float32)
    places = np.stack([row + rows.start, column + columns.start])
    moving, fixed = np.where(swapped, places[::-1], places)
    return np.stack([owner, moving, fixed, hypothesis, flip, score])[:, score > _LEAST_ALIKE]


_SIGNS = [((-1.0) ** (_DOWN * down + _ACROSS * across)).astype(np.float32) for down, across in product((0, 1), (0, 1))]
"""What each flip does to the coefficients."""

_WAYS = [
    (hypothesis, flip, swapped)
    for hypothesis, flip, swapped in product(range(len(_HYPOTHESES)), range(len(_FLIPS)), (0, 1))
    if not (swapped and hypothesis in _PLAIN)
]
"""Hypothesis, flip, and whether the second picture is the moving one."""


def _largest(values: NDArray[np.int32]) -> NDArray[np.intp]:
    """Rows and columns of the `_MOST_ALIKE` largest in each row, shape (2, n)."""
    most = min(_MOST_ALIKE, values.shape[1])
    columns = np.argpartition(values, values.shape[1] - most, axis=1)[:, values.shape[1] - most :]
    return np.stack([np.repeat(np.arange(len(values)), most), columns.ravel()])
