"""Processes beside this one, which leave interruptions to it and end when it is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext
    from multiprocessing.process import BaseProcess


def spawning() -> SpawnContext:
    """Give the way in which processes are started: anew, since a process that has threads must not be forked."""
    return multiprocessing.get_context("spawn")


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_process() -> None:
    """Leave interruptions, which a terminal sends to all, to the process that started this one, and end with it.

    To be called first in a process that was started by `spawning`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    # At once: whatever this process does is for one that is no more, and another may have taken its place already.
    os._exit(1)
