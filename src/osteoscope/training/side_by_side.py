"""Folds do not depend on each other: where there are several cores they are fitted beside each other.

On an accelerator, too: a step of these networks is some thousand small kernels, and one process cannot ask for them as
fast as they are done.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from copy import copy
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from osteoscope.errors import RunError
from osteoscope.processes import MOST_BESIDE, begin_process, interruptions_held, memory, spawning
from osteoscope.training.device import memory_of
from osteoscope.training.fold import Bench, FitWatcher

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.connection import Connection

    from osteoscope.training.device import Device
    from osteoscope.training.fold import Part, Work

MEMORY = 4 * 2**30
"""Bytes that the machine has for each process at least: each holds the images that are learnt from by itself."""
DEVICE_MEMORY = 12 * 2**30
"""Bytes that an accelerator has for each process at least: for what it holds of the images, and for a step."""

_SECONDS_TO_LEAVE = 10


class FitsWatcher(FitWatcher, Protocol):
    """Is told of fits, several of which may be under way."""

    def fit_started(self, *, number: int) -> None:
        """Take note that a fit begins."""


def fit_parts(parts: Sequence[Part], work: Work, watcher: FitsWatcher) -> Generator[Part]:
    """Do fits, and give each when it is done.

    Where there are threads and memory for one alone, they are done here, one after the other; else beside each other,
    in as many processes as there are threads and memory for (`processes_for`), each with its share of the threads,
    whatever the number of fits. On a processor what is written is the same to the byte.

    Parameters
    ----------
    parts
        To be done.
    work
        What they are made from.
    watcher
        Is told how they go on.

    Raises
    ------
    OsteoscopeError
        If one of them cannot be done. Those under way are ended, and go on from their last checkpoints when they are
        asked for again.
    """
    at_once = processes_for(work.device)
    work = replace(work, device=replace(work.device, threads=work.device.threads // at_once))
    processes = min(at_once, len(parts))
    if processes > 1:
        yield from _beside_each_other(parts, work, watcher, processes)
        return
    bench = Bench(work)
    for part in parts:
        watcher.fit_started(number=part.number)
        bench.do(part, watcher)
        yield part


def processes_for(device: Device) -> int:
    """Say how many fits a device does at once: at most `MOST_BESIDE`, with `MEMORY` and `DEVICE_MEMORY` for each."""
    there = memory()
    fitting = MOST_BESIDE if there is None else there // MEMORY
    on_device = memory_of(torch.device(device.kind)) // DEVICE_MEMORY
    return max(1, min(device.threads, fitting, on_device, MOST_BESIDE))


def _beside_each_other(parts: Sequence[Part], work: Work, watcher: FitsWatcher, processes: int) -> Generator[Part]:
    waiting, workers = deque(parts), dict[Any, _Worker]()
    try:
        # All of them first: what a process is handed is taken when it has started, which takes seconds.
        for _ in range(processes):
            worker = _Worker()
            workers[worker.connection] = worker
        for worker in workers.values():
            worker.begin(waiting.popleft(), watcher, work)
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]
                told = worker.hear()
                if told is not None:
                    getattr(watcher, told.method)(**told.facts)
                    continue
                yield worker.part
                if waiting:
                    worker.begin(waiting.popleft(), watcher)
                else:
                    workers.pop(connection).leave()
    finally:
        for worker in workers.values():
            worker.end()


class _Told(NamedTuple):
    """What a worker has a watcher told."""

    method: str
    facts: dict[str, Any]


class _Worker:
    """A process that does one fit after the other."""

    part: Part

    def __init__(self) -> None:
        self.connection, theirs = spawning().Pipe()
        self._process = spawning().Process(target=_serve, args=(theirs,), daemon=True)
        with interruptions_held():
            self._process.start()
        theirs.close()

    def begin(self, part: Part, watcher: FitsWatcher, work: Work | None = None) -> None:
        """Begin a fit; with the first goes what all are made from."""
        watcher.fit_started(number=part.number)
        self.part = part
        with self._still_there():
            if work is not None:
                self.connection.send(work)
            self.connection.send(part)

    def hear(self) -> _Told | None:
        """Give what the watcher is to be told; None when the fit is done."""
        with self._still_there():
            told: _Told | Exception | None = self.connection.recv()
        if isinstance(told, Exception):
            raise told
        return told

    @contextlib.contextmanager
    def _still_there(self) -> Iterator[None]:
        try:
            yield
        # A process that is gone closes its end, in the middle of what it says or before it has heard all.
        except (EOFError, OSError) as error:
            raise RunError(
                "a process that fitted a fold was ended from outside, perhaps because memory ran out",
                path=self.part.folder,
                remedy="run the same command again to go on where it stood, or with fewer --threads in a new folder",
            ) from error

    def leave(self) -> None:
        """Let the process end by itself, since there is nothing more to do."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self._process.join(_SECONDS_TO_LEAVE)
        self.end()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Do the fits that are asked for, from what is sent first, and tell how they go on."""
    begin_process()
    bench, watcher = Bench(connection.recv()), _Teller(connection)
    while (part := connection.recv()) is not None:
        try:
            bench.do(part, watcher)
        except Exception as error:
            _send(connection, error, f"In a process that fits folds:\n{traceback.format_exc()}")
            return
        connection.send(None)


def _send(connection: Connection, error: Exception, note: str) -> None:
    """Send an error, to be raised where the run is; one that cannot cross is sent by its name and text."""
    error.add_note(note)
    try:
        copy(error)
        connection.send(error)
    except Exception:
        instead = RuntimeError(f"{type(error).__name__}: {error}")
        instead.add_note(note)
        connection.send(instead)


class _Teller:
    """Tells the process of the run what its watcher is to be told."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def epoch_done(self, **facts: Any) -> None:
        self._connection.send(_Told("epoch_done", facts))

    def stage(self, name: str, **facts: Any) -> None:
        self._connection.send(_Told("stage", {"name": name, **facts}))
