"""What a signal makes a node do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._signals import acting_on_signals


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize(("can_restart", "done"), [(True, "restart"), (False, "stop")])
def test_a_hangup_restarts_a_node_that_can_and_stops_any_other(
    loop: Loop, can_restart: bool, done: str
) -> None:
    seen: list[str] = []

    def note(what: str) -> None:
        seen.append(what)
        loop.stop()

    restart = (lambda: note("restart")) if can_restart else None
    with acting_on_signals(loop, stop=lambda: note("stop"), restart=restart):
        os.kill(os.getpid(), signal.SIGHUP)
        loop.run()

    assert seen == [done]


def test_a_hangup_that_the_starter_has_ignored_stays_ignored(loop: Loop) -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with acting_on_signals(loop, stop=loop.stop, restart=lambda: seen.append("restart")):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            loop.run()
    finally:
        signal.signal(signal.SIGHUP, before)

    assert seen == []
