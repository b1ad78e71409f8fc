"""A process beside another leaves interruptions to it, and is gone soon after it, however that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from pathlib import Path

import pytest

from osteoscope.errors import MissingExtraError, OsteoscopeError, RunError
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.processes import begin_process, cores, spawning

# Starts a process that waits for long, says which one it is, and waits itself.
DRIVER = """
import sys, time
from osteoscope.processes import begin_process, spawning

def wait():
    begin_process()
    print(__import__("os").getpid(), flush=True)
    time.sleep(300)

if __name__ == "__main__":
    spawning().Process(target=wait).start()
    time.sleep(300)
"""


def there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_outlives_an_interruption_and_not_the_process_that_started_it(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    with subprocess.Popen([sys.executable, driver], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        second = int(first.stdout.readline())
        os.kill(second, signal.SIGINT)
        time.sleep(0.3)
        assert there(second)
        first.kill()
    until = time.monotonic() + 20
    while there(second) and time.monotonic() < until:
        time.sleep(0.05)
    assert not there(second)


@pytest.mark.parametrize(
    "fault",
    [
        RunError("is busy", path=Path("run"), remedy="wait for it"),
        MissingExtraError("torch", "train"),
        RefusedImageError(RefusalCode.DAMAGED, "ends too early", path="a.dcm"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_comes_back_from_a_process_as_it_was(fault: OsteoscopeError) -> None:
    with ProcessPoolExecutor(1, spawning(), begin_process) as pool:
        back = pool.submit(copy, fault).result()
    assert type(back) is type(fault)
    assert str(back) == str(fault)
    assert vars(back) == vars(fault)


def test_there_is_a_core_to_run_on() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
