"""What a supervisor tells other nodes: it waits for it, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqp_tasks.errors import ClosedError, PublishError, UnroutableError
from amqp_tasks.message import JournalEntry
from amqp_tasks.worker import _news
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._news import News

Report = Callable[[PublishError | None], None]


class Journal:
    """A writer whose broker answers when the test says so."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.is_closed = False

    def entry(self, kind: str, facts: dict[str, Any], *, entry_id: str) -> JournalEntry:
        return JournalEntry(kind=kind, id=entry_id, time=0, sender="", facts=facts)

    def write_nowait(self, entry: JournalEntry, on_outcome: Report) -> None:
        if self.is_closed:
            raise ClosedError("closed")
        self.reports.append(on_outcome)


class Told:
    """A loop that runs what is due when asked to."""

    def __init__(self) -> None:
        self.loop, self.journal = Loop(), Journal()
        self.news = News(self.journal, self.loop)  # type: ignore[arg-type]  # as much of a writer as it uses
        self.gone_on = 0

    def go_on(self) -> None:
        self.gone_on += 1

    def turn(self, seconds: float = 0.0) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()
        self.loop._is_running = True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_news, "LIMIT", 0.05)
    made = Told()
    yield made
    made.loop.close()


def test_with_nothing_to_tell_one_goes_on_at_once(told: Told) -> None:
    told.news.send(told.go_on)

    assert told.gone_on == 1


def test_one_goes_on_when_all_is_confirmed(told: Told) -> None:
    told.news.add("crash", "1", {})
    told.news.add("crash", "2", {})
    told.news.send(told.go_on)
    first, second = told.journal.reports

    first(None)
    told.turn()
    assert told.gone_on == 0
    second(UnroutableError("no journal"))
    told.turn()

    assert told.gone_on == 1
    told.turn(0.1)
    assert told.gone_on == 1


def test_one_goes_on_after_a_while_whatever_the_broker_does(told: Told) -> None:
    told.news.add("crash", "1", {})
    told.news.send(told.go_on)

    told.turn(0.1)
    assert told.gone_on == 1
    told.journal.reports[0](None)
    told.turn()

    assert told.gone_on == 1


def test_a_closed_transport_holds_nobody_up(told: Told) -> None:
    told.journal.is_closed = True
    told.news.add("crash", "1", {})

    told.news.send(told.go_on)

    assert told.gone_on == 1
