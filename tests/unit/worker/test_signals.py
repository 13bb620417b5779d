"""What a signal makes a node do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._signals import acting_on_signals, is_term_cold


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


@pytest.mark.parametrize(("is_remapped", "done"), [(True, "cut"), (False, "stop")])
def test_p135_term_may_do_something_else_than_int(loop: Loop, is_remapped: bool, done: str) -> None:
    seen: list[str] = []
    terminate = (lambda: seen.append("cut")) if is_remapped else None
    with acting_on_signals(loop, stop=lambda: seen.append("stop"), terminate=terminate, restart=loop.stop):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        loop.run()

    assert seen == [done, "stop"]


def test_p135_only_celerys_value_remaps_term() -> None:
    assert is_term_cold({"REMAP_SIGTERM": "SIGQUIT"})
    assert not is_term_cold({})
    assert not is_term_cold({"REMAP_SIGTERM": ""})
    with pytest.raises(ConfigurationError, match="REMAP_SIGTERM is 'QUIT': the only value is 'SIGQUIT'"):
        is_term_cold({"REMAP_SIGTERM": "QUIT"})
