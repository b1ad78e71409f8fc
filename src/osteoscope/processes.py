"""Processes: how one ends in order, and others beside it, which leave interruptions to it and end when it is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import SpawnContext
    from multiprocessing.process import BaseProcess

_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What a container may take (Linux, control group v2, memory.max)."""

MOST_BESIDE = 8
"""Processes that fit networks at the same time, at most."""


def end_in_order() -> None:
    """Let what this process has begun be put away where it is told to end, or its terminal closes (SIGTERM, SIGHUP).

    It then exits with 128 and the signal's number, as a shell has it. What is ignored stays so, as ``nohup`` asks for.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def spawning() -> SpawnContext:
    """Give the way in which processes are started: anew, since a process that has threads must not be forked."""
    return multiprocessing.get_context("spawn")


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def readers() -> int:
    """Count the threads or processes that read files at once: as many as cores, at most eight for the disk's sake."""
    return min(cores(), 8)


def memory() -> int | None:
    """Count the bytes of memory that this machine has, or its container may take; None where that is not said."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(there, int(_LIMIT.read_text(encoding="ascii")))
    # No container, one of another kind, or "max".
    except (OSError, ValueError):
        return there


@contextlib.contextmanager
def interruptions_held() -> Iterator[None]:
    """Let a process that is started within hear of no interruption until `begin_process`; one of this process waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started within, it would let interruptions through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_process() -> None:
    """Leave interruptions, which a terminal sends to all, to the process that started this one, and end with it.

    To be called first in a process that was started by `spawning`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    # At once: whatever this process does is for one that is no more, and another may have taken its place already.
    os._exit(1)
