"""A broker that answers one AMQP method late, never, with a close or with garbage, for every method in turn.

Heartbeats go on all the while. Everything is tried once for each fault, side by side, and the tests look at what was seen.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import AmqpTasksError, BrokerOperationError, BrokerUnreachable, ResultTimeout
from amqp_tasks.transport import TopologyMode
from support.scripted_broker import HTTP, PROTOCOL_HEADER, UNKNOWN_METHOD, WRONG_END, Fault, ScriptedBroker

SOON = {"task_publish_timeout": 2.0, "broker_connection_timeout": 0.75}
PATIENT = {"task_publish_timeout": 30.0, "broker_connection_timeout": 15.0}
GIVING_UP = {"task_publish_timeout": 30.0, "broker_connection_timeout": 0.75}
"""What is never answered is given up soon, and there is time for all else."""
LIMIT = 40.0
"""Seconds in which everything with limits like `SOON` must be over on a busy machine."""


def delay(app: App) -> object:
    return bool(app.send_task("add", (1, 2), ignore_result=True).id)


def get(app: App) -> object:
    return app.send_task("add", (1, 2)).get(timeout=0.3)


def send_many(app: App) -> object:
    return len(app.send_many([("add", (1, 2), {}, {"ignore_result": True})] * 3))


def countdown(app: App) -> object:
    return bool(app.send_task("add", (1, 2), countdown=5, ignore_result=True).id)


def queues(app: App) -> object:
    return app.transport.queue_status("queues") is not None


def topology_check(app: App) -> object:
    return app.transport.compare_topology(app.topology)


def topology_apply(app: App) -> object:
    return app.transport.ensure_topology(app.topology, mode=TopologyMode.DECLARE)


def dlq_list(app: App) -> object:
    return len(app.dead_letters.find())


def dlq_requeue(app: App) -> object:
    done = app.dead_letters.requeue()
    for _, error in done.failures:
        raise error
    return done.count


def dlq_purge(app: App) -> object:
    return app.dead_letters.purge()


def open_(app: App) -> object:
    return app.transport.open(timeout=app.settings.task.publish_timeout).version


def worker(app: App) -> object:
    """Start one, have it run a task, stop it."""
    made = app.Worker(pool="solo")
    failures: list[Exception] = []

    def run() -> None:
        try:
            made.start()
        except Exception as exc:
            failures.append(exc)
        made.ready.set()

    seconds = app.settings.task.publish_timeout
    thread = threading.Thread(target=run)
    thread.start()
    try:
        is_ready = made.ready.wait(2 * seconds)
        value = app.send_task("add", (1, 2)).get(timeout=seconds) if is_ready and not failures else None
    finally:
        assert made.stop(timeout=0.5), "the worker does not stop"
        thread.join(5)
    for failure in failures:
        raise failure
    return value


CALLS: tuple[Callable[[App], object], ...] = (
    delay, get, send_many, countdown, queues, topology_check, topology_apply, dlq_list, dlq_requeue, dlq_purge,
    open_, worker,
)  # fmt: skip
GOODBYES = frozenset({"Basic.Cancel", "Channel.Close", "Connection.Close", "Queue.Delete"})
"""What comes after the caller has what it wanted: without an answer nothing fails."""
NEEDLESS = {
    "Confirm.Select": {"queues", "topology_check", "topology_apply", "dlq_list", "dlq_purge", "open_"},
    "Channel.Open": {"open_"},
}
"""Methods sent beside what these calls need: the channel that publishes is opened with its connection."""
UNANSWERED = frozenset({"Connection.TuneOk", "Basic.Ack", "Basic.Nack"})
"""The broker has no answer to these."""
NAMED = {
    PROTOCOL_HEADER: r"cannot connect to amqp://guest:\*\*@127\.0\.0\.1:\d+//: no answer",
    "Connection.StartOk": r"cannot connect to amqp://guest:\*\*@127\.0\.0\.1:\d+//: no answer",
    "Connection.Open": r"cannot connect to amqp://guest:\*\*@127\.0\.0\.1:\d+//: no answer",
    "Channel.Open": r"looking for queue '|channel\.open",
    "Confirm.Select": r"confirm\.select",
    "Queue.Declare": r"(looking for|declaring|comparing) queue '",
    "Queue.Bind": r"binding '",
    "Queue.Purge": r"purging queue 'dlq_purge.dead'",
    "Exchange.Declare": r"(looking for|declaring) exchange '",
    "Exchange.Bind": r"binding '",
    "Basic.Qos": r"basic\.qos",
    "Basic.Consume": r"basic\.consume of queue '",
    "Basic.Publish": r"has not confirmed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of one call."""

    value: object
    error: Exception | None
    methods: frozenset[str]
    seconds: float

    @property
    def kind(self) -> object:
        """The value, or the class of the error."""
        return self.value if self.error is None else type(self.error)


def _try(call: Callable[[App], object], settings: Mapping[str, Any], *trap: Any, **how: Any) -> Seen:
    with ScriptedBroker() as broker:
        broker.put(f"{call.__name__}.dead", b"[[1, 2], {}, {}]", {"task": "add", "id": "dead"})
        broker.put(call.__name__)
        if trap:
            broker.misbehave(*trap, **how)
        app = App("unanswered", broker=broker.url, task_default_queue=call.__name__, **settings)
        app.task(name="add")(lambda x, y: x + y)
        value, error, began = None, None, time.monotonic()
        try:
            value = call(app)
        except Exception as exc:
            error = exc
        finally:
            app.close(timeout=1.0)
        return Seen(
            value=value, error=error, methods=frozenset(broker.seen), seconds=time.monotonic() - began
        )


Cases = dict[tuple[str, str], Seen]


def _try_all(healthy: Mapping[str, Seen], settings: Mapping[str, Any], fault: Fault, **how: Any) -> Cases:
    pairs = [
        (call, method) for call in CALLS for method in sorted(healthy[call.__name__].methods - UNANSWERED)
    ]
    with ThreadPoolExecutor(16) as pool:  # brokers and clients are all of this process
        futures = {
            (call.__name__, method): pool.submit(
                _try,
                call,
                GIVING_UP if _is_harmless(call.__name__, method, fault) else settings,
                method,
                fault,
                **how,
            )
            for call, method in pairs
        }
        return {pair: future.result(LIMIT) for pair, future in futures.items()}


def _is_harmless(name: str, method: str, fault: Fault = Fault.NEVER) -> bool:
    """Whether the call has what it wants without an answer to that."""
    return fault is Fault.NEVER and (method in GOODBYES or name in NEEDLESS.get(method, ()))


@pytest.fixture(scope="module")
def healthy() -> dict[str, Seen]:
    """Every call at a broker that answers."""
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda call: _try(call, PATIENT), CALLS))
    return {call.__name__: each for call, each in zip(CALLS, seen, strict=True)}


@pytest.fixture(scope="module")
def never(healthy: dict[str, Seen]) -> tuple[Cases, list[str]]:
    """Every call that sends a method, when that method is never answered; and what was logged."""
    lines: list[str] = []
    with _logged_to(lines):
        return _try_all(healthy, SOON, Fault.NEVER), lines


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("amqp_tasks").addHandler(self)

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("amqp_tasks").removeHandler(self)


def _logged_to(lines: list[str]) -> _Lines:
    return _Lines(lines)


def test_every_method_that_the_client_sends_is_tried(healthy: dict[str, Seen]) -> None:
    sent = frozenset().union(*(seen.methods for seen in healthy.values()))

    assert sent - UNANSWERED == NAMED.keys() | GOODBYES
    assert {name: seen.kind for name, seen in healthy.items()} == {
        "delay": True, "get": ResultTimeout, "send_many": 3, "countdown": True, "queues": True,
        "topology_check": (), "topology_apply": None, "dlq_list": 1, "dlq_requeue": 1, "dlq_purge": 1,
        "open_": (4, 0, 5), "worker": 3,
    }  # fmt: skip


def test_promise_3_a_method_that_is_never_answered_is_named(
    never: tuple[Cases, list[str]], healthy: dict[str, Seen]
) -> None:
    cases, lines = never
    for (name, method), seen in cases.items():
        if _is_harmless(name, method):
            assert seen.kind == healthy[name].kind, (name, method, seen)
        elif (name == "worker" and seen.error is None) or seen.kind is ResultTimeout:
            # It goes on trying and says so; a caller's reply queue likewise.
            assert any(re.search(NAMED[method], line) for line in lines), (name, method, seen)
        else:
            assert isinstance(seen.error, AmqpTasksError), (name, method, seen)
            assert re.search(NAMED[method], str(seen.error)), (name, method, seen)


def test_late_answers_change_nothing(healthy: dict[str, Seen]) -> None:
    cases = _try_all(healthy, PATIENT, Fault.LATE)

    assert {pair: seen.kind for pair, seen in cases.items()} == {
        (name, method): healthy[name].kind for name, method in cases
    }


@pytest.mark.parametrize("fault", [Fault.CLOSE_CONNECTION, Fault.CLOSE_CHANNEL])
def test_promise_3_a_method_that_is_always_answered_with_a_close_ends_with_an_error_of_ours(
    healthy: dict[str, Seen], fault: Fault
) -> None:
    cases = _try_all(healthy, SOON, fault)

    for (name, method), seen in cases.items():
        assert seen.error is None or isinstance(seen.error, AmqpTasksError), (name, method, seen)
        if fault is Fault.CLOSE_CHANNEL and isinstance(seen.error, BrokerOperationError):
            assert f"406 PRECONDITION_FAILED - over {method}" in str(seen.error)


@pytest.mark.parametrize("garbage", [WRONG_END, UNKNOWN_METHOD, HTTP], ids=["end", "method", "http"])
def test_promise_4_a_connection_that_is_lost_once_over_any_method_is_made_again(
    healthy: dict[str, Seen], garbage: bytes
) -> None:
    cases = _try_all(healthy, PATIENT, Fault.GARBAGE, garbage=garbage, times=1)

    for (name, method), seen in cases.items():
        # A look at dead letters starts over only when it is asked for again.
        is_look = name.startswith("dlq") and isinstance(seen.error, BrokerUnreachable)
        assert seen.kind == healthy[name].kind or is_look, (name, method, seen)
