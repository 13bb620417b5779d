"""The test tools themselves."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from pika import frame, spec

from support import Ledger, TcpProxy, eventually
from support.leaks import Footprint
from support.points import POINTS
from support.workers import TESTS, WorkerProcess


def test_eventually_returns_what_the_check_returned() -> None:
    answers = iter([False, False, True])

    assert eventually(lambda: next(answers)) is True


def test_eventually_raises_the_last_assertion() -> None:
    def check() -> None:
        raise AssertionError("never so")

    with pytest.raises(AssertionError, match="never so"):
        eventually(check, within=0.05)


def test_eventually_says_how_long_it_waited_for_a_truth() -> None:
    with pytest.raises(AssertionError, match=r"after 0\.05 s"):
        eventually(lambda: False, within=0.05)


def test_a_leaked_thread_is_seen() -> None:
    before, end = Footprint.now(), threading.Event()
    thread = threading.Thread(target=end.wait, args=(20,), name="left-behind")
    thread.start()

    leaked = before._new()

    end.set()
    thread.join()
    assert any("left-behind" in said for said in leaked)
    assert before.leaked() == []


def test_a_leaked_socket_is_seen() -> None:
    before = Footprint.now()

    with socket.socket():
        leaked = before._new()

    assert [said for said in leaked if said.startswith("socket fd")]
    assert before.leaked() == []


def test_a_leaked_process_is_seen() -> None:
    before = Footprint.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        leaked = before._new()

        process.kill()

    assert any(f"process {process.pid}" in said for said in leaked)
    assert before.leaked() == []


def test_a_ledger_keeps_order_and_repeats(ledger: Ledger) -> None:
    for key in ("a", "b", "a"):
        ledger.record("ran", key)
    ledger.record("ended", "a")

    assert ledger.keys("ran") == ["a", "b", "a"]
    assert ledger.counts("ran")["a"] == 2
    assert [each.key for each in ledger.wait_for("ended")] == ["a"]


def test_a_workers_orphans_are_found(tmp_path: Path) -> None:
    child = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=-3, stderr=-3).pid, flush=True)"
    worker = WorkerProcess([sys.executable, "-c", child], env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    worker.wait_output(r"^\d+$")
    worker.wait()

    survivors = worker.survivors(within=0.1)

    assert [said for said in survivors if "sleep" in said]
    assert worker.close() == survivors
    assert worker.survivors() == []


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    yield f"amqp://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    acceptor.join(5)
    for thread in threads:
        thread.join(5)


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece, "the connection ended"
        data += piece
    return data


def test_a_proxy_forwards_both_ways_and_counts(echo: str) -> None:
    payload = bytes(range(256)) * 8192
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        sender = threading.Thread(target=client.sendall, args=(payload,))
        sender.start()

        assert read(client, len(payload)) == payload

        sender.join()
        # Counted just after it is passed on.
        eventually(lambda: proxy.bytes_to_broker == proxy.bytes_to_client == len(payload))
        assert proxy.connection_count == 1


def test_a_cut_connection_is_reset_and_a_new_one_is_served(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as first:
        first.sendall(b"x")
        read(first, 1)

        proxy.cut()

        with pytest.raises(ConnectionResetError):
            first.recv(1)
        with closing(connect(proxy)) as second:
            second.sendall(b"y")
            assert read(second, 1) == b"y"


def test_who_was_at_the_point_when_all_were_cut_was_there(echo: str) -> None:
    with TcpProxy(echo, knows_frames=True) as proxy, closing(connect(proxy)) as client:
        proxy.delay(60)  # what comes before the point does not pass in time
        proxy.cut_at(POINTS["before the ack"])
        client.sendall(b"AMQP\x00\x00\x09\x01" + frame.Method(1, spec.Basic.Ack(1)).marshal())
        eventually(lambda: proxy._point is None)

        proxy.cut()

        assert proxy.was_at_point.wait(5)


def test_a_refusing_proxy_resets_new_connections_until_it_resumes(echo: str) -> None:
    with TcpProxy(echo) as proxy:
        proxy.refuse()
        # The reset may arrive while `connect` still looks whether it is connected.
        with pytest.raises(ConnectionResetError), closing(connect(proxy)) as refused:
            refused.recv(1)

        proxy.resume()

        with closing(connect(proxy)) as served:
            served.sendall(b"y")
            assert read(served, 1) == b"y"


def test_a_blackhole_keeps_the_connection_open_and_silent(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        proxy.blackhole()
        client.sendall(b"lost")
        client.settimeout(0.2)

        with pytest.raises(TimeoutError):
            client.recv(1)

        proxy.resume()
        client.sendall(b"kept")
        client.settimeout(5)
        assert read(client, 4) == b"kept"


def test_an_abandoned_connection_is_dead_for_good_and_a_new_one_is_served(echo: str) -> None:
    with TcpProxy(echo) as proxy, connect(proxy) as old:
        old.sendall(b"before")
        assert read(old, 6) == b"before"
        proxy.abandon()

        old.sendall(b"lost")
        with connect(proxy) as new:
            new.sendall(b"after")
            assert read(new, 5) == b"after"
        old.settimeout(0.2)
        with pytest.raises(TimeoutError):
            old.recv(1)


def test_a_half_open_proxy_still_delivers_to_the_broker(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        proxy.half_open()
        client.sendall(b"asked")
        eventually(lambda: proxy.bytes_to_broker == 5)
        client.settimeout(0.2)

        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_delay_holds_the_bytes(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        proxy.delay(0.3)
        client.sendall(b"late")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)

        client.settimeout(5)

        assert read(client, 4) == b"late"


def test_a_throttle_slows_the_stream_down_and_loses_nothing(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        proxy.throttle(20_000)
        client.sendall(bytes(4000))
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            read(client, 4000)

        proxy.throttle(None)
        client.settimeout(5)

        eventually(lambda: proxy.bytes_to_client == 4000)


def test_a_cut_after_so_many_bytes_lets_exactly_those_through(echo: str) -> None:
    with TcpProxy(echo) as proxy, closing(connect(proxy)) as client:
        proxy.cut_after(10)
        client.sendall(bytes(64))

        with pytest.raises(ConnectionResetError):
            read(client, 64)

        assert proxy.bytes_to_broker == 10


FORBIDDEN = {
    "sleeps instead of waiting for the event": re.compile(
        r"\btime\.sleep\(|from time import sleep|\basyncio\.sleep\((?!0\))"
    ),
    "is skipped or may fail": re.compile(
        r"pytest\.(?:mark\.)?(?:skip|skipif|xfail|importorskip)\b|unittest\.skip"
    ),
}
ALLOWED = {
    "support/eventually.py",  # the one place that polls, and lets time pass
    "unit/settings/test_cpus.py",  # one test needs affinity masks, which not every system has
    "unit/support/test_support.py",  # names the forbidden words
}


def faults(path: Path) -> list[str]:
    text = path.read_text()
    return [f"{path}: {why}" for why, pattern in FORBIDDEN.items() if pattern.search(text)]


def test_no_test_sleeps_or_is_skipped() -> None:
    sources = [
        path
        for path in sorted(TESTS.rglob("*.py"))
        if str(path.relative_to(TESTS)) not in ALLOWED and path.parts[len(TESTS.parts)] != "benchmarks"
    ]

    found = [fault for path in sources for fault in faults(path)]

    assert len(sources) > 5
    assert found == []


def test_the_lint_sees_a_sleep_and_a_skip(tmp_path: Path) -> None:
    bad = tmp_path / "test_bad.py"
    bad.write_text("import time\n@pytest.mark.skip\ndef test_x():\n    time.sleep(1)\n")

    assert len(faults(bad)) == 2


def test_no_example_of_a_property_has_a_deadline() -> None:
    assert hypothesis.settings().deadline is None
