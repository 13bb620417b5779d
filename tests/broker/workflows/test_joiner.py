"""A join that several workers look at at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, cast

from amqp_routing import Queue, Topology
from amqp_tasks import App
from amqp_tasks.canvas import Join
from amqp_tasks.errors import BrokerUnreachable
from amqp_tasks.message import DEFAULT_LIMITS, definition_message, new_task_id, outcome_message
from amqp_tasks.transport import TopologyMode, Transport
from amqp_tasks.worker._joiner import Joiner
from amqp_tasks.worker._taking import READ_TIMEOUT
from support import RawClient


class _Outrun:
    """A transport in front of which another worker concludes each join between the look at its depth and its taking."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def consume(self, queue_names: Any, *args: Any, **kwargs: Any) -> Any:
        for name in queue_names:
            self._transport.delete_queue(name)
        return self._transport.consume(queue_names, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Uncounting:
    """A transport whose broker is away at the first look, and has just come back at the second: it counts no messages."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self.looks = transport, 0

    def queue_status(self, name: str) -> Any:
        self.looks += 1
        if self.looks == 1:
            raise BrokerUnreachable("away", url="amqp://")
        status = self._transport.queue_status(name)
        return replace(status, messages=0) if status is not None and self.looks == 2 else status

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _App:
    """The app as the joiner sees it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


def test_a_join_that_another_has_concluded_meanwhile_is_left_alone_at_once(caller: App) -> None:
    join = Join(queue=f"amqp_tasks.join.{new_task_id()}", index=0, size=1)
    caller.transport.ensure_topology(
        Topology(queues=(Queue(join.queue),)), mode=TopologyMode.DECLARE, is_lasting=False
    )
    body = {"body": {"task": "gather"}, "chain": [], "joins": [], "size": 1}
    caller.transport.publish_many(
        [definition_message(join.queue, body), outcome_message(join.queue, 0, "member", value=1)]
    )
    again: list[float] = []
    nobody = cast("Any", None)  # there is nothing to conclude
    joiner = Joiner(
        cast("App", _App(_Outrun(caller.transport))),
        nobody,
        nobody,
        DEFAULT_LIMITS,
        lambda seconds, _: again.append(seconds),
        keeps_failures=True,
    )
    looked = threading.Event()

    joiner.look([join], "work", looked.set)

    assert looked.wait(15)
    assert again == []
    joiner.close(timeout=5)


def test_a_join_in_which_the_broker_counts_nothing_yet_is_looked_at_again(caller: App) -> None:
    join = Join(queue=f"amqp_tasks.join.{new_task_id()}", index=0, size=2)
    caller.transport.ensure_topology(
        Topology(queues=(Queue(join.queue),)), mode=TopologyMode.DECLARE, is_lasting=False
    )
    caller.transport.publish_many([outcome_message(join.queue, 0, "member", value=1)])
    uncounting = _Uncounting(caller.transport)
    again: SimpleQueue[Callable[[], None]] = SimpleQueue()
    nobody = cast("Any", None)  # one member of two has ended
    joiner = Joiner(
        cast("App", _App(uncounting)),
        nobody,
        nobody,
        DEFAULT_LIMITS,
        lambda _, later: again.put(later),
        keeps_failures=True,
    )
    looked = threading.Event()

    joiner.look([join], "work", looked.set)

    again.get(timeout=15)()
    again.get(timeout=15)()
    assert looked.wait(15)
    assert uncounting.looks == 3
    joiner.close(timeout=5)
    caller.transport.delete_queue(join.queue)


class _Rivalled:
    """A transport that shows all of a join of which another holds a part."""

    def __init__(self, transport: Transport, messages: int) -> None:
        self._transport, self._messages = transport, messages

    def queue_status(self, name: str) -> Any:
        status = self._transport.queue_status(name)
        return status and replace(status, messages=self._messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def test_a_join_of_which_another_holds_a_part_is_left_before_its_setup_would_time_out(
    caller: App, raw_client: RawClient
) -> None:
    join = Join(queue=f"amqp_tasks.join.{new_task_id()}", index=0, size=1)
    caller.transport.ensure_topology(
        Topology(queues=(Queue(join.queue),)), mode=TopologyMode.DECLARE, is_lasting=False
    )
    caller.transport.publish_many([outcome_message(join.queue, index, "member", value=1) for index in (0, 1)])
    raw_client.channel.basic_qos(prefetch_count=1)
    assert next(raw_client.channel.consume(join.queue))[0] is not None
    again: SimpleQueue[float] = SimpleQueue()
    nobody = cast("Any", None)  # it cannot be read to its end
    joiner = Joiner(
        cast("App", _App(_Rivalled(caller.transport, messages=2))),
        nobody,
        nobody,
        DEFAULT_LIMITS,
        lambda seconds, _: again.put(seconds),
        keeps_failures=True,
    )

    joiner.look([join], "work", lambda: None)

    assert 0.0 < again.get(timeout=READ_TIMEOUT / 2) < 1.0
    joiner.close(timeout=5)
