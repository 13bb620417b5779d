"""The I/O loop's door: nothing that is put through it is forgotten by a loop that sleeps, or lingers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from amqp_tasks.transport.rabbitmq._loop import IOThread
from support.eventually import eventually

# Far below the time after which pika's loop looks around by itself: what is done in time was noticed.
_NOTICED = 2.5


@pytest.fixture
def io_thread() -> Iterator[IOThread]:
    thread = IOThread()
    thread.start(lambda by_error: None)
    yield thread
    thread.stop(5.0)


def test_a_loop_takes_no_tcp_port_to_be_woken_by(io_thread: IOThread) -> None:
    poller = io_thread.loop._poller

    assert {end.family for end in (poller._r_interrupt, poller._w_interrupt)} == {socket.AF_UNIX}


def test_one_of_many_is_done_whether_the_loop_sleeps_or_lingers(io_thread: IOThread) -> None:
    for number in range(1000):
        done = threading.Event()
        io_thread.loop.put_soon(lambda event: event.set(), done)
        assert done.wait(_NOTICED), f"message {number} was not noticed"
        if number % 50 == 0:
            _wait_until_asleep(io_thread)


def _wait_until_asleep(thread: IOThread) -> None:
    eventually(lambda: thread.loop._asleep and not thread.loop._lingers)


def test_rousing_ends_the_lingering(io_thread: IOThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqp_tasks.transport.rabbitmq._loop.LINGER", 60.0)
    first, second = threading.Event(), threading.Event()
    io_thread.loop.put_soon(lambda event: event.set(), first)
    assert first.wait(_NOTICED)

    io_thread.loop.put_soon(lambda event: event.set(), second)
    io_thread.loop.rouse()

    assert second.wait(_NOTICED)


def test_what_is_put_singly_ends_the_lingering(io_thread: IOThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqp_tasks.transport.rabbitmq._loop.LINGER", 60.0)
    first, second = threading.Event(), threading.Event()
    io_thread.loop.put_soon(lambda event: event.set(), first)
    assert first.wait(_NOTICED)

    io_thread.loop.put(lambda event: event.set(), second)

    assert second.wait(_NOTICED)


def test_work_that_exits_does_not_end_the_thread(
    io_thread: IOThread, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(_none: None) -> None:
        raise SystemExit

    done = threading.Event()
    io_thread.loop.put(leave, None)
    io_thread.loop.put(lambda event: event.set(), done)

    assert done.wait(_NOTICED)
    assert "unexpected error on the I/O thread" in caplog.text


def test_a_thread_that_is_given_the_number_of_one_that_has_ended_is_not_taken_for_it(
    io_thread: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = io_thread._thread.ident
    io_thread.stop(5.0)

    monkeypatch.setattr(threading, "get_ident", lambda: number)

    assert not io_thread.is_current
