"""A join whose broker says that nothing is in it: given up only when that is certain."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, cast

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks import App
from amqp_tasks.errors import ChordError
from amqp_tasks.message import DEFAULT_LIMITS, JOIN_PREFIX, JoinWatch, definition_message, outcome_message
from amqp_tasks.transport import ConsumerOptions, QueueStatus, TopologyMode
from amqp_tasks.worker import _joiner
from amqp_tasks.worker._joiner import Joiner
from amqp_tasks.worker._steps import StepMaker, Steps

QUEUE = f"{JOIN_PREFIX}it"
BODY: dict[str, Any] = {"body": {"task": "gather"}, "chain": [], "joins": [], "size": 3}
# The look before has seen the definition and two outcomes, and the last one nothing.
SUSPECT = JoinWatch(queue=QUEUE, definition=BODY, since=0.0, pause=5.0, seen=3, is_suspect=True)


class _Maker:
    """Notes why the body of a join is given up."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def give_up(self, steps: Steps, *details: Any) -> None:
        self.errors.append(details[-1])


class _Sending:
    def __init__(self) -> None:
        self.sent: list[Steps] = []

    def send_once(self, steps: Steps) -> None:
        self.sent.append(steps)


@dataclass
class _Watcher:
    """A joiner on this thread, and what became of a watch."""

    app: App
    maker: _Maker = field(default_factory=_Maker)
    sending: _Sending = field(default_factory=_Sending)
    again: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue[Callable[[], None]])
    ended: list[str] = field(default_factory=list[str])

    def watch(self, watch: JoinWatch) -> None:
        joiner = Joiner(
            self.app, cast("StepMaker", self.maker), cast("Any", self.sending), DEFAULT_LIMITS,
            lambda _, later: self.again.put(later), keeps_failures=True,
        )  # fmt: skip
        joiner.watch(watch, "work", lambda: self.ended.append("ended"), self.ended.append)

    @property
    def depth(self) -> int | None:
        status = self.app.transport.queue_status(QUEUE)
        return None if status is None else status.messages


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Watcher]:
    """Of an app with an empty join queue."""
    monkeypatch.setattr(_joiner, "_READ_TIMEOUT", 0.5)
    with App("joins", broker=f"memory://{uuid.uuid4().hex}/") as app:
        topology = Topology(queues=(Queue(QUEUE, type=QueueType.QUORUM),))
        app.transport.ensure_topology(topology, mode=TopologyMode.DECLARE)
        yield _Watcher(app)


def _fill(app: App, outcomes: int, definition: Mapping[str, Any] = BODY) -> None:
    members = [outcome_message(QUEUE, index, f"member-{index}", value=index) for index in range(outcomes)]
    app.transport.publish_many([definition_message(QUEUE, dict(definition)), *members])


def _untold(app: App, monkeypatch: pytest.MonkeyPatch, answers: int) -> list[QueueStatus]:
    """Let the broker say that nothing is there and nobody consumes it, so many times; then the truth, which is noted."""
    real, told, left = app.transport.queue_status, list[QueueStatus](), iter(range(answers))

    def status(queue_name: str, **options: Any) -> QueueStatus | None:
        if next(left, None) is not None:
            return QueueStatus(name=queue_name, messages=0, consumers=0)
        found = real(queue_name, **options)
        if found is not None:
            told.append(found)
        return found

    monkeypatch.setattr(app.transport, "queue_status", status)
    return told


@pytest.mark.parametrize("outcomes", [0, 2], ids=["the definition alone", "outcomes"])
@pytest.mark.parametrize("answers", [2, 5, 10_000], ids=["before it is taken", "for a while", "all the time"])
def test_a_join_that_the_broker_does_not_count_is_looked_at_again_and_loses_nothing(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch, outcomes: int, answers: int
) -> None:
    _fill(watcher.app, outcomes)
    with monkeypatch.context() as patch:
        _untold(watcher.app, patch, answers)

        watcher.watch(SUSPECT)

    assert watcher.again.qsize() == 1
    assert (watcher.maker.errors, watcher.sending.sent, watcher.ended) == ([], [], [])
    assert watcher.depth == 1 + outcomes


def test_a_join_that_a_broker_counts_again_is_watched_on(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(watcher.app, 2)
    with monkeypatch.context() as patch:
        _untold(watcher.app, patch, 10_000)
        watcher.watch(SUSPECT)

    watcher.watch(replace(SUSPECT, since=time.time()))

    (following,) = watcher.sending.sent
    assert len(following.messages) == 1
    assert (watcher.maker.errors, watcher.ended, watcher.depth) == ([], ["ended"], 3)


def test_what_the_broker_has_handed_to_us_and_counts_no_more_is_waited_for(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(watcher.app, 0)
    real = watcher.app.transport.consume

    def slow(
        names: Any, options: ConsumerOptions, *, on_deliveries: Callable[[Any], None], **others: Any
    ) -> Any:
        late = lambda found: threading.Timer(0.3, on_deliveries, [found]).start()  # noqa: E731
        return real(names, options, on_deliveries=late, **others)

    monkeypatch.setattr(watcher.app.transport, "consume", slow)
    told = _untold(watcher.app, monkeypatch, 2)

    watcher.watch(SUSPECT)

    assert told[-1] == QueueStatus(name=QUEUE, messages=0, consumers=1)
    assert (watcher.again.qsize(), watcher.maker.errors, watcher.depth) == (1, [], 1)


def test_a_join_that_another_holds_is_not_taken_for_an_emptied_one(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its look began when this one had asked who consumes the join."""
    _fill(watcher.app, 2)
    held: SimpleQueue[object] = SimpleQueue()
    consumer = watcher.app.transport.consume(
        [QUEUE], ConsumerOptions(prefetch=10), on_deliveries=held.put, on_event=lambda _: None
    )
    held.get(timeout=5)
    told = _untold(watcher.app, monkeypatch, 2)

    watcher.watch(SUSPECT)

    assert told[0] == QueueStatus(name=QUEUE, messages=0, consumers=2)
    assert (watcher.again.qsize(), watcher.maker.errors, watcher.ended) == (1, [], [])
    consumer.close(timeout=5)
    assert watcher.depth == 3


def test_the_one_consumer_that_is_counted_may_be_another_while_this_look_does_not_consume_yet(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watcher.app.transport.consume

    def untold(*args: Any, **options: Any) -> Any:
        return real(*args, **{**options, "on_event": lambda _: None})

    monkeypatch.setattr(watcher.app.transport, "consume", untold)

    watcher.watch(SUSPECT)

    assert (watcher.again.qsize(), watcher.maker.errors, watcher.depth) == (1, [], 0)


def test_a_join_that_was_emptied_is_given_up_when_the_broker_counts_who_looks(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _untold(watcher.app, monkeypatch, 4)

    watcher.watch(SUSPECT)

    (error,) = watcher.maker.errors
    assert isinstance(error, ChordError)
    assert "0 of 3 outcomes are there, and its queue was emptied" in str(error)
    assert told == [QueueStatus(name=QUEUE, messages=0, consumers=1)]
    assert (watcher.ended, watcher.again.qsize(), watcher.depth) == (["ended"], 0, None)


def test_a_join_that_is_gone_when_it_is_taken_is_not_given_up(
    watcher: _Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.app.transport.delete_queue(QUEUE)
    with monkeypatch.context() as patch:
        _untold(watcher.app, patch, 2)
        watcher.watch(SUSPECT)
    assert (watcher.again.qsize(), watcher.maker.errors, watcher.ended) == (1, [], [])

    watcher.watch(SUSPECT)

    assert (watcher.maker.errors, watcher.ended) == ([], ["ended"])
