"""Loop, link, pools and the capture of prints."""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, Request
from amqp_tasks.app._execution import execute
from amqp_tasks.message import Payload
from amqp_tasks.settings import Conf
from amqp_tasks.worker._link import Link, LinkClosed
from amqp_tasks.worker._logs import PrintCapture, WorkerFormatter, level_number
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._process import resident_kib
from amqp_tasks.worker.pool import Pool
from amqp_tasks.worker.pools import PreforkPool, SoloPool, ThreadsPool
from support import eventually


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_timers_run_in_order_and_cancelled_ones_do_not(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_later(0.02, lambda: ran.append("second"))
    loop.call_later(0.01, lambda: ran.append("first"))
    loop.call_later(0.015, lambda: ran.append("never")).cancel()
    loop.call_later(0.03, loop.stop)

    loop.run()

    assert ran == ["first", "second"]


def test_calls_from_other_threads_wake_the_loop(loop: Loop) -> None:
    ran: list[str] = []

    def call() -> None:
        loop.call_soon(lambda: ran.append(threading.current_thread().name))
        loop.call_soon(loop.stop)

    thread = threading.Thread(target=call)
    loop.call_later(10, loop.stop)
    loop.call_soon(thread.start)

    loop.run()

    thread.join()
    assert ran == [threading.current_thread().name]


def test_a_failing_callback_does_not_end_the_loop(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("ours")

    loop.call_soon(fail)
    loop.call_soon(loop.stop)

    loop.run()

    assert "unexpected error" in caplog.text


def test_bytes_written_to_the_wake_descriptor_are_handed_over(loop: Loop) -> None:
    received: list[bytes] = []
    loop.on_wake_bytes(received.append)
    os.write(loop.wake_fd, b"\x0f\0")
    loop.call_later(0, loop.stop)

    loop.run()

    assert received == [b"\x0f"]


def test_a_loop_may_be_stopped_and_woken_after_its_end(loop: Loop) -> None:
    loop.stop()
    loop.run()
    loop.close()
    loop.close()
    loop.call_soon(lambda: None)


def test_messages_and_descriptors_cross_a_link() -> None:
    left, right = (Link(end) for end in Link.pair())
    read, write = os.pipe()

    def send() -> None:
        # More than the socket holds at once, so that parts of messages arrive.
        left.send({"kind": "fork", "keys": ["ü" * 100_000]}, fd=write)
        left.send({"kind": "more"})

    sender = threading.Thread(target=send)
    sender.start()
    messages: list[dict[str, object]] = []
    while len(messages) < 2:
        messages += right.receive()
    sender.join()
    fd = right.take_fd()
    os.write(fd, b"x")

    assert [message["kind"] for message in messages] == ["fork", "more"]
    assert os.read(read, 1) == b"x"
    for each in (read, write, fd):
        os.close(each)
    left.close()
    with pytest.raises(LinkClosed):
        right.receive()
    with pytest.raises(LinkClosed):
        right.send({"kind": "late"})
    right.close()


class Recorded:
    def __init__(self, ran: list[tuple[int, int]], number: int, gate: threading.Event) -> None:
        self.ran, self.number, self.gate = ran, number, gate

    def run(self, slot: int) -> None:
        self.gate.wait(5)
        self.ran.append((self.number, slot))


@pytest.mark.parametrize("pool_class", [PreforkPool, SoloPool, ThreadsPool])
def test_a_pool_runs_each_job_once_and_ends_when_stopped(pool_class: type[Pool]) -> None:
    pool = pool_class(2 if pool_class is ThreadsPool else 1)
    ran: list[tuple[int, int]] = []
    gate = threading.Event()
    pool.start()
    server = threading.Thread(target=pool.serve)
    server.start()
    for number in range(pool.slots):
        pool.submit(Recorded(ran, number, gate))

    pool.stop()
    pool.stop()
    with pytest.raises(RuntimeError):
        pool.submit(Recorded(ran, 9, gate))
    gate.set()
    server.join(5)

    assert not server.is_alive()
    assert sorted(number for number, _ in ran) == list(range(pool.slots))


@pytest.mark.parametrize("pool_class", [PreforkPool, SoloPool, ThreadsPool])
def test_a_slot_outlives_what_a_job_raises(pool_class: type[Pool]) -> None:
    class Exiting:
        def run(self, slot: int) -> None:
            raise SystemExit

    pool = pool_class(1)
    ran: list[tuple[int, int]] = []
    gate = threading.Event()
    gate.set()
    pool.start()
    pool.submit(Exiting())
    pool.submit(Recorded(ran, 1, gate))
    pool.stop()

    pool.serve()

    assert ran == [(1, 0)]


def test_threads_run_jobs_at_the_same_time() -> None:
    pool = ThreadsPool(2)
    barrier = threading.Barrier(2, timeout=5)
    met: list[int] = []

    class Meeting:
        def run(self, slot: int) -> None:
            barrier.wait()
            met.append(slot)

    pool.start()
    for _ in range(2):
        pool.submit(Meeting())
    eventually(lambda: sorted(met) == [0, 1])
    pool.stop()
    pool.serve()


def test_printed_lines_become_records(caplog: pytest.LogCaptureFixture) -> None:
    stream = PrintCapture(io.StringIO(), logging.WARNING)

    print("hel", end="", file=stream)
    print("lo\n\nworld\x1b[2J", file=stream)
    print("no end", end="", file=stream)
    stream.flush()

    assert [record.getMessage() for record in caplog.records] == ["hello", "world\\x1b[2J", "no end"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_bytes_pass_through_and_lines_without_end_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    original = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = PrintCapture(original, logging.WARNING)

    stream.buffer.write(b"\x00raw")
    for _ in range(30):
        stream.write("x" * 1000)

    assert original.buffer.tell() == 4
    assert len(caplog.records) == 2


def test_what_logging_prints_about_itself_is_not_logged_again() -> None:
    original = io.StringIO()
    stream = PrintCapture(original, logging.WARNING)

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("logging failed", file=stream)

    handler = Printing()
    logger = logging.getLogger("amqp_tasks.redirected")
    logger.addHandler(handler)
    try:
        print("hello", file=stream)
    finally:
        logger.removeHandler(handler)

    assert original.getvalue() == "logging failed\n"


def test_lines_name_the_process() -> None:
    settings = Conf().settings()
    formatter = WorkerFormatter(settings.worker.log_format, settings.worker.task_log_format, use_color=True)
    formatter.process_name = "Worker-3"
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", ("said",), None)

    text = formatter.format(record)

    assert "ERROR/Worker-3] said" in text
    assert text.startswith("\x1b[31m")


def test_lines_of_what_is_called_directly_have_the_id_of_the_task_that_it_is_about() -> None:
    app = App("lines", broker="memory://")
    formatter = WorkerFormatter("%(message)s", "%(task_name)s[%(task_id)s]", use_color=False)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "said", (), None)
    lines: list[str] = []

    @app.task(name="errback")
    def tell(request: Any, error: Any, traceback: Any) -> None:
        lines.append(formatter.format(record))

    @app.task(name="inner")
    def inner() -> None:
        lines.append(formatter.format(record))

    @app.task(name="outer")
    def outer() -> None:
        inner()
        tell(Request(id="failed"), None, None)

    tell(Request(id="failed"), None, None)
    inner()
    execute(outer, Request(id="calling"), Payload([], {}, {}))

    assert lines == ["errback[failed]", "inner[None]", "inner[calling]", "errback[failed]"]


def test_levels_are_found_by_name_in_any_case() -> None:
    assert level_number("debug") == level_number("DEBUG") == level_number(10) == 10
    with pytest.raises(ValueError, match="unknown loglevel 'loud'"):
        level_number("loud")


def test_resident_memory_is_told() -> None:
    before = resident_kib()
    kept = b"x" * 50_000_000

    assert resident_kib() - before > 40_000
    assert kept


def test_sockets_of_a_link_have_a_limit() -> None:
    end, other = Link.pair()
    link = Link(end)

    assert isinstance(link.socket, socket.socket)
    assert link.socket.gettimeout()
    link.close()
    other.close()
