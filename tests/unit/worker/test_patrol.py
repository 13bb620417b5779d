"""What a supervisor does about a process that gives no sign of life."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._asks import Answers
from amqp_tasks.worker._children import ChildProcess
from amqp_tasks.worker._claims import Claims
from amqp_tasks.worker._link import Link
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._news import News
from amqp_tasks.worker._patrol import Patrol
from amqp_tasks.worker._pulse import Pulse
from amqp_tasks.worker._records import RecordTable

LOOKS = 4


class Site:
    """A patrol with one process, which gave a sign of life and then no other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, self._theirs = Link.pair()
        self.process = ChildProcess(serial=1, index=0, link=Link(ours), started=0.0, pid=0)
        self.sent: list[signal.Signals] = []
        monkeypatch.setattr(ChildProcess, "signal", lambda _process, number: self.sent.append(number))
        self.records = RecordTable(processes=1, slots=1)
        self.records.of_process(0).give_sign(1.0)
        self.loop = Loop()
        self.looked = threading.Event()

    def look(self, *, used: float | None, hung_timeout: float | None = LOOKS / 2) -> None:
        """As often as is needed."""
        self.process.pulse = Pulse(lambda: used)
        claims = Claims(after=60.0, tell=lambda *_: None, clock=SYSTEM_CLOCK)
        patrol = Patrol(
            processes={1: self.process},
            records=self.records,
            hung_timeout=hung_timeout,
            is_terminated=lambda key: False,
            answers=Answers(reply=print, tell=lambda *_: None, claims=claims, clock=SYSTEM_CLOCK),
            news=News(None, self.loop),
            loop=self.loop,
            on_look=self.looked.set,
        )
        for _ in range(1 + LOOKS):
            patrol._look()

    def close(self) -> None:
        self.process.link.close()
        self._theirs.close()
        self.loop.close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(monkeypatch)
    yield made
    made.close()


def _says_hung(caplog: pytest.LogCaptureFixture) -> bool:
    return any(getattr(record, "action", "") == "hung" for record in caplog.records)


def test_a_process_that_hangs_is_killed_and_what_it_ran_may_be_charged(site: Site) -> None:
    site.look(used=1.0)

    assert site.sent == [signal.SIGKILL]
    assert not site.process.is_killed  # nobody is charged for one that is


def test_where_the_system_does_not_tell_what_a_process_uses_it_is_only_named_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.look(used=None)

    assert site.sent == []
    assert _says_hung(caplog)


def test_without_a_timeout_no_process_is_killed_for_its_silence(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.look(used=1.0, hung_timeout=None)

    assert site.sent == []
    assert not _says_hung(caplog)
