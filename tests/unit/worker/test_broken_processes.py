"""Who is charged for the end of a process that a task has broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from amqp_tasks import App
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._child import Shared, _Child
from amqp_tasks.worker._link import Link
from amqp_tasks.worker._options import Asked, resolve
from amqp_tasks.worker._rates import rates_of
from amqp_tasks.worker._records import RecordTable
from support.fake_deliveries import job_of, key


class Left(Exception):
    """The process would have ended here."""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Child]:
    """One with two slots that does not run, whose end of the link was closed: it ran `a` and has its outcome still, and runs `b`."""

    def leave(code: int) -> NoReturn:
        raise Left(code)

    monkeypatch.setattr("amqp_tasks.worker._child.exit_now", leave)
    ours, theirs = Link.pair()
    with App("broken", broker="memory://broken/") as app, theirs:
        app.finalize()
        rate_limits = rates_of(app, clock=SYSTEM_CLOCK)
        shared = Shared(records=RecordTable(1, 2), rate_limits=rate_limits)
        options = resolve(app, Asked(concurrency=2), default_pool="threads")
        made = _Child(app, options, shared, Link(ours), 0)
        for slot, name in enumerate(("a", "b")):
            made._process._engine.begin(job_of(name))
            made._records.mark(slot, key(name))
        made._records.clear(0)
        ours.close()
        yield made
        made._loop.close()
        rate_limits.close()


def test_what_a_slot_finds_broken_is_not_charged_to_a_neighbour_that_has_ended(child: _Child) -> None:
    with pytest.raises(Left):
        child._process._reports.ran()

    assert child._records.running() == (key("b"),)


def test_what_another_thread_finds_broken_may_be_the_doing_of_what_has_ended_too(child: _Child) -> None:
    with pytest.raises(Left):
        child._verdicts.ask(["c"], print)

    assert child._records.running() == (key("a"), key("b"))
