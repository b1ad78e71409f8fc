"""What need not wait does not, and nothing is lost, left over or done out of turn."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from osteoscope.inference.pipeline import Stop, StoppedError, made_ahead, several_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 20
"""Seconds that nothing here takes unless it hangs."""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def noted(made: list[int], count: int, fault: int | None = None) -> Iterator[int]:
    for number in range(count):
        if number == fault:
            raise ArithmeticError(str(number))
        made.append(number)
        yield number


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("most", [1, 3])
def test_all_comes_in_its_order(count: int, most: int) -> None:
    assert list(made_ahead(noted([], count), most=most)) == list(range(count))


def test_what_comes_next_is_made_while_the_caller_works() -> None:
    working = threading.Event()

    def parts() -> Iterator[int]:
        yield 0
        assert working.wait(LONG)
        yield 1

    given = made_ahead(parts())
    assert next(given) == 0
    # Were it made only when it is asked for, it would wait for this in vain.
    working.set()
    assert list(given) == [1]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_is_made_than_may_wait(most: int) -> None:
    made: list[int] = []
    with contextlib.closing(made_ahead(noted(made, 10), most=most)) as given:
        for asked in (1, 2):
            next(given)
            wait_for(lambda asked=asked: len(made) == asked + most)  # type: ignore[misc]
            time.sleep(0.05)
            assert len(made) == asked + most


def test_a_fault_is_raised_in_its_turn() -> None:
    given = made_ahead(noted([], 5, fault=2))
    assert [next(given), next(given)] == [0, 1]
    with pytest.raises(ArithmeticError, match="2"):
        next(given)
    assert list(given) == []


def test_leaving_early_ends_the_thread() -> None:
    made: list[int] = []
    threads = threading.active_count()
    with contextlib.closing(made_ahead(noted(made, 1000))) as given:
        next(given)
    assert threading.active_count() == threads
    assert len(made) <= 3


def test_an_interrupt_of_the_caller_ends_the_thread() -> None:
    threads = threading.active_count()

    def interrupted() -> None:
        with contextlib.closing(made_ahead(noted([], 1000))) as given:
            for _ in given:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == threads


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_piece_of_work_is_done_once(jobs: int) -> None:
    done = list(several_at_once(lambda item, _stop: item * item, range(20), jobs=jobs))
    assert sorted(done) == [(number, number * number) for number in range(20)]


def test_one_job_is_done_in_the_callers_own_thread_one_after_the_other() -> None:
    found = list(several_at_once(lambda _item, _stop: threading.current_thread(), "abc", jobs=1))
    assert found == [(number, threading.current_thread()) for number in range(3)]


def test_jobs_are_done_at_the_same_time_and_no_more_than_are_allowed() -> None:
    together = threading.Barrier(2)
    running, most = [0], [0]
    lock = threading.Lock()

    def work(_item: int, _stop: Stop) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(LONG)
        with lock:
            running[0] -= 1

    assert len(list(several_at_once(work, range(8), jobs=2))) == 8
    assert most == [2]


def until_stopped(stop: Stop) -> None:
    wait_for(lambda: _stopped(stop))


def _stopped(stop: Stop) -> bool:
    try:
        stop.check()
    except StoppedError:
        return True
    return False


def test_a_fault_of_one_ends_all() -> None:
    begun: list[int] = []

    def work(item: int, stop: Stop) -> None:
        begun.append(item)
        if item == 1:
            wait_for(lambda: 0 in begun)
            raise ArithmeticError(str(item))
        until_stopped(stop)

    with pytest.raises(ArithmeticError, match="1"):
        list(several_at_once(work, range(10), jobs=2))
    assert sorted(begun) == [0, 1]


def test_what_was_done_beside_a_fault_is_given_before_it_is_raised() -> None:
    given, ended = threading.Event(), threading.Barrier(3)

    def work(item: int, _stop: Stop) -> int:
        if item:
            assert given.wait(LONG)
            ended.wait(LONG)
        if item == 1:
            raise ArithmeticError
        return item

    done = several_at_once(work, range(3), jobs=3)
    assert next(done) == (0, 0)
    given.set()
    # Both of the others end before anybody asks for what they gave.
    ended.wait(LONG)
    time.sleep(0.1)
    assert next(done) == (2, 2)
    with pytest.raises(ArithmeticError):
        next(done)


def test_what_is_being_done_is_asked_to_end_when_the_caller_leaves() -> None:
    threads = threading.active_count()

    def work(item: int, stop: Stop) -> int:
        if item:
            until_stopped(stop)
        return item

    with contextlib.closing(several_at_once(work, range(10), jobs=3)) as done:
        assert next(done) == (0, 0)
    assert threading.active_count() == threads
