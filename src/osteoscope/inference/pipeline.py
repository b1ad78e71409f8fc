"""Doing at the same time what need not wait for each other: disk, preparation and network; one study and the next."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final, TypeVar

from osteoscope.processes import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

_PLANES_A_CORE = 2
"""That are prepared together: enough for every core, and so few that what the networks hold is little."""

T = TypeVar("T")
R = TypeVar("R")

_END: Final = object()


def planes_together() -> int:
    """Count the planes that are prepared together and handed to the networks, whatever the number of a study's."""
    return _PLANES_A_CORE * max(cores(), 2)


def made_ahead(parts: Iterable[T], *, most: int = 1) -> Generator[T, None, None]:
    """Let another thread make what comes next while the caller works on what came before.

    Parameters
    ----------
    parts
        Whose items are made one after the other, in one thread.
    most
        Items that are made before they are asked for, at most.

    Yields
    ------
    The items in their order. What goes wrong in making one is raised where it would be given. The thread ends with the
    iterator; where that may be left early, close it (`contextlib.closing`).
    """
    source = iter(parts)
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[T | object]] = deque(pool.submit(next, source, _END) for _ in range(most))
        try:
            while (part := ahead.popleft().result()) is not _END:
                ahead.append(pool.submit(next, source, _END))
                yield part  # type: ignore[misc]
        finally:
            for future in ahead:
                future.cancel()


class StoppedError(Exception):
    """A piece of work has ended early because the whole of the work is to end."""


class Stop:
    """By which several pieces of work are told to end early."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Ask all to end as soon as they can."""
        self._event.set()

    def check(self) -> None:
        """End this piece of work if that was asked for.

        Raises
        ------
        StoppedError
            If it was.
        """
        if self._event.is_set():
            raise StoppedError


def several_at_once(
    work: Callable[[T, Stop], R], items: Iterable[T], *, jobs: int
) -> Generator[tuple[int, R], None, None]:
    """Do a piece of work for each item, several at the same time.

    Parameters
    ----------
    work
        Is given an item, and what it may ask now and then whether to end early.
    items
        Taken one after the other, no sooner than there is a thread for it.
    jobs
        Threads. Of one job all is done in the caller's own.

    Yields
    ------
    Of each item its number, from 0, and what the work gave, as soon as it is done. After an error of one, no other is
    begun, and those that are being done are asked to end; what they still give is given, and then the error is raised.
    If the iterator is closed, they are asked to end, too.
    """
    stop = Stop()
    if jobs == 1:
        for number, item in enumerate(items):
            yield number, work(item, stop)
        return
    waiting = enumerate(items)
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[R], int] = {}
        failed: Future[R] | None = None
        try:
            while True:
                for number, item in _some(waiting, jobs - len(running)) if failed is None else ():
                    running[pool.submit(work, item, stop)] = number
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=running.__getitem__):
                    number = running.pop(future)
                    if future.exception() is None:
                        yield number, future.result()
                    elif failed is None:
                        failed = future
                        stop.ask()
            if failed is not None:
                failed.result()
        finally:
            stop.ask()


def _some(items: Iterator[T], most: int) -> Iterator[T]:
    for _ in range(most):
        item = next(items, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]
