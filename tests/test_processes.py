"""A process beside another leaves interruptions to it, and is gone soon after it, however that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from pathlib import Path

import pytest

from osteoscope import processes
from osteoscope.errors import MissingExtraError, OsteoscopeError, RunError
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.processes import begin_process, cores, memory, readers, spawning

# Starts a process that says for long which one it is, and waits itself. Interruptions come as from a terminal, to both,
# from the very start.
DRIVER = """
import os, signal, time
from osteoscope.processes import begin_process, interruptions_held, spawning

def go_on():
    begin_process()
    for _ in range(3000):
        print(os.getpid(), flush=True)
        time.sleep(0.1)

if __name__ == "__main__":
    process = spawning().Process(target=go_on)
    with interruptions_held():
        process.start()
        os.kill(process.pid, signal.SIGINT)
    time.sleep(300)
"""


@pytest.mark.timeout(60)
def test_it_outlives_an_interruption_and_not_the_process_that_started_it(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    with subprocess.Popen([sys.executable, driver], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stderr is not None
        try:
            os.kill(int(first.stdout.readline()), signal.SIGINT)
            # What was said before may lie there still.
            assert all(first.stdout.readline() for _ in range(20))
        finally:
            first.kill()
        # Both write there, so that it ends only when neither is there any more.
        assert first.stdout.read().count("\n") < 2000
        assert not first.stderr.read()


@pytest.mark.parametrize(("ignored", "code"), [("SIGUSR1", 128 + signal.SIGHUP), ("SIGHUP", 0)])
def test_a_process_ends_with_its_terminal_unless_it_is_said_not_to(ignored: str, code: int) -> None:
    """As nohup says it."""
    program = (
        # Whoever runs the tests may have said so, too.
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "from osteoscope.processes import end_in_order; "
        f"signal.signal(signal.{ignored}, signal.SIG_IGN); end_in_order(); os.kill(os.getpid(), signal.SIGHUP)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to a process on Linux alone")
def test_cores_are_those_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)


def test_files_are_read_by_as_many_at_once_as_there_are_cores_but_no_more_than_eight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("osteoscope.processes.cores", lambda: 3)
    assert readers() == 3
    monkeypatch.setattr("osteoscope.processes.cores", lambda: 64)
    assert readers() == 8


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="what the system says is held against Linux's own file")
def test_memory_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LIMIT", tmp_path / "there is none")
    stated = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    found = memory()
    assert found is not None
    assert abs(found - stated) < 0.05 * stated
    # What a container may take goes before it, where there is a limit.
    for written, expected in [("max\n", found), ("1048576\n", 2**20), (f"{2 * found}\n", found)]:
        (tmp_path / "memory.max").write_text(written)
        monkeypatch.setattr(processes, "_LIMIT", tmp_path / "memory.max")
        assert memory() == expected
