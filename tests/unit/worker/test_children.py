"""Worker processes as their supervisor sees them, and the pauses between their restarts."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._children import FIRST_PAUSE, MAX_PAUSE, SOON, ChildProcess, Restarts
from amqp_tasks.worker._link import Link, LinkClosed, Message
from amqp_tasks.worker._records import RecordTable
from amqp_tasks.worker._supervisor import Supervisor, SupervisorRules
from amqp_tasks.worker._template import ChildMain


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = (Link(end) for end in Link.pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_pauses_grow_to_a_limit_and_start_anew_after_a_process_was_of_use() -> None:
    restarts = Restarts()

    pauses = [restarts.next_pause() for _ in range(10)]
    restarts.reset()

    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == MAX_PAUSE
    assert restarts.next_pause() == FIRST_PAUSE


@pytest.mark.parametrize(
    ("changes", "lived", "expected"),
    [
        ({}, 100.0, False),
        ({"was_ready": True}, SOON, True),
        ({"was_ready": True}, SOON / 2, False),
        ({"was_ready": True, "error": "access refused"}, 100.0, False),
        ({"is_recycling": True}, 0.0, True),
        ({"has_crashed": True, "was_ready": True}, 0.0, True),
    ],
)
def test_only_a_process_that_was_of_use_is_replaced_at_once(
    ends: tuple[Link, Link], changes: dict[str, bool | str], lived: float, expected: bool
) -> None:
    process = ChildProcess(serial=1, index=0, link=ends[0], started=50.0)
    for name, value in changes.items():
        setattr(process, name, value)

    assert process.was_of_use(50.0 + lived) is expected


def test_all_last_words_are_read_however_many_there_are(
    ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqp_tasks.worker._link._CHUNK", 100)
    ours, theirs = ends
    process = ChildProcess(serial=1, index=0, link=ours, started=0.0)
    for _ in range(30):
        theirs.send({"kind": "finished", "keys": ["x" * 30]})
    theirs.send({"kind": "consumer", "state": "consuming"})
    theirs.close()

    words = list(process.last_words())

    assert [word["kind"] for word in words] == ["finished"] * 30 + ["consumer"]
    assert process.was_ready


def test_nothing_follows_a_message_that_was_not_taken_whole(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    ours.socket.settimeout(0.05)
    with pytest.raises(LinkClosed):
        ours.send({"kind": "huge", "text": "x" * 10_000_000})

    drained = threading.Thread(target=_drain, args=(theirs,))
    drained.start()
    with pytest.raises(LinkClosed, match="not taken whole"):
        ours.send({"kind": "next"})
    ours.close()
    drained.join()


def _drain(link: Link) -> None:
    while link.socket.recv(1 << 20):
        pass


def test_received_descriptors_are_closed_on_exec_and_with_their_link(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    read, write = os.pipe()
    ours.send({"kind": "one"}, fd=write)
    theirs.receive()
    ours.send({"kind": "two"}, fd=write)
    theirs.receive()
    os.close(write)

    taken = theirs.take_fd()
    assert not os.get_inheritable(taken)
    os.close(taken)
    theirs.close()

    # Nobody has the other end any more, the one that was never taken included.
    assert os.read(read, 1) == b""
    os.close(read)


class NodeUnderTest:
    """A supervisor whose processes run `main` in place of a worker, and have `alive_timeout` seconds to say something."""

    def __init__(self, main: ChildMain, *, processes: int = 1, alive_timeout: float = 10.0) -> None:
        self.ready = 0
        rules = SupervisorRules(
            node="test",
            processes=processes,
            stop_timeout=2.0,
            cold_stop_timeout=1.0,
            alive_timeout=alive_timeout,
            lost_wait=1.0,
            hung_timeout=None,
            claim_after=math.inf,
        )
        self.supervisor = Supervisor(
            rules,
            records=RecordTable(rules.places, 1),
            child_main=main,
            registers=(),
            writer=None,
            is_terminated=lambda key: False,
            prepare=lambda: None,
            on_ready=self._note,
        )
        self.supervisor.loop.call_later(15, self.supervisor.stop)

    def _note(self) -> None:
        self.ready += 1
        self.supervisor.stop()

    def run(self) -> int:
        return self.supervisor.run()


def _consume_until_stopped(link: Link) -> None:
    link.send({"kind": "up"})
    link.send({"kind": "consumer", "state": "consuming"})
    while not any(message["kind"] == "stop" for message in link.receive()):
        pass


def _births(path: Path) -> int:
    """How many processes have begun; counts this one in."""
    with path.open("ab") as file:
        file.write(b"x")
        return file.tell()


@pytest.mark.parametrize("die", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_processes_that_die_in_their_first_instructions_are_replaced_after_growing_pauses(
    tmp_path: Path, die: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    births = tmp_path / "births"

    def main(end: socket.socket, order: Message) -> None:
        if _births(births) <= 2:
            die()
        _consume_until_stopped(Link(end))

    node = NodeUnderTest(main)

    assert node.run() == 0
    assert node.ready == 1
    pauses = [record.args for record in caplog.records if getattr(record, "action", "") == "restart_later"]
    assert pauses == [("see above", FIRST_PAUSE), ("see above", FIRST_PAUSE * 2)]


def test_a_process_that_says_nothing_is_killed_and_replaced(tmp_path: Path) -> None:
    births = tmp_path / "births"

    def main(end: socket.socket, order: Message) -> None:
        if _births(births) == 1:
            signal.pause()
        _consume_until_stopped(Link(end))

    node = NodeUnderTest(main, alive_timeout=0.3)

    assert node.run() == 0
    assert node.ready == 1


def test_the_node_ends_with_the_reason_when_the_first_consumer_is_refused() -> None:
    def main(end: socket.socket, order: Message) -> None:
        link = Link(end)
        link.send({"kind": "up"})
        link.send({"kind": "consumer", "state": "failed", "error": "access refused"})

    with pytest.raises(ConfigurationError, match="cannot consume: access refused"):
        NodeUnderTest(main).run()


def test_a_refused_fork_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks = iter((True, False))
    real_fork = os.fork
    supervisor_pid = os.getpid()

    def fork() -> int:
        if os.getpid() != supervisor_pid and next(forks, False):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real_fork()

    def main(end: socket.socket, order: Message) -> None:
        _consume_until_stopped(Link(end))

    monkeypatch.setattr(os, "fork", fork)
    node = NodeUnderTest(main)

    assert node.run() == 0
    assert node.ready == 1


def test_a_stop_during_start_up_ends_processes_that_are_not_ready() -> None:
    def main(end: socket.socket, order: Message) -> None:
        link = Link(end)
        link.send({"kind": "up"})
        while not any(message["kind"] == "stop" for message in link.receive()):
            pass

    node = NodeUnderTest(main, processes=3)
    node.supervisor.loop.call_later(0.1, node.supervisor.stop)

    assert node.run() == 0
    assert node.ready == 0


def test_a_process_that_ignores_its_stop_is_killed_at_the_deadline() -> None:
    def main(end: socket.socket, order: Message) -> None:
        link = Link(end)
        link.send({"kind": "up"})
        link.send({"kind": "consumer", "state": "consuming"})
        while True:
            signal.pause()

    node = NodeUnderTest(main)
    # A second stop is a cold one.
    node.supervisor.loop.call_later(0.5, node.supervisor.stop)

    assert node.run() == 1


def test_no_stacks_are_asked_of_a_process_that_has_ended_meanwhile(
    ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of another by then, which the signal would end."""
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    monkeypatch.setattr(os, "write", lambda *_: 0)
    supervisor = NodeUnderTest(lambda *_: None).supervisor
    for serial in (1, 2):
        process = ChildProcess(serial=serial, index=0, link=ends[0], started=0.0, pid=10**9 + serial)
        supervisor._processes[serial] = process

    supervisor.dump_stacks()
    del supervisor._processes[2]
    supervisor.loop.call_later(0.5, supervisor.loop.stop)
    supervisor.loop.run()
    supervisor.loop.close()

    assert signalled == [10**9 + 1]
