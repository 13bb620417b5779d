"""What a transport owns on its I/O thread: the publishing link, the publisher, operations, consumers.

The thread refers to a `Core` and never to the `Transport` in front of it, so that a forgotten transport can be
collected and say so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from amqp_routing import Topology, TopologyError
from amqp_tasks.clock import Clock
from amqp_tasks.errors import BrokerConnectionError, BrokerUnreachable, ClosedError
from amqp_tasks.transport._contract import (
    ConsumerEvent,
    ConsumerOptions,
    Delivery,
    TopologyMode,
    TransportStatistics,
)
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._connection import Link, LinkState
from amqp_tasks.transport.rabbitmq._consumer import RabbitConsumer
from amqp_tasks.transport.rabbitmq._counts import CountReports
from amqp_tasks.transport.rabbitmq._errors import is_not_running
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._idle import IdleWatch
from amqp_tasks.transport.rabbitmq._kept import KeptLink
from amqp_tasks.transport.rabbitmq._loop import IOThread, Waiter
from amqp_tasks.transport.rabbitmq._operations import Operation, Script
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._publisher import Publisher
from amqp_tasks.transport.rabbitmq._remembered import Remembered
from amqp_tasks.transport.rabbitmq._topology import ensure_script
from amqp_tasks.transport.rabbitmq._wheel import Wheel

__all__ = ("Core", "Request")

REPAIR_TIMEOUT = 10.0
ASK_AGAIN_AFTER, ASK_AGAIN_FOR = 0.5, 5.0
"""Seconds between questions, and of all of them, for a queue that the broker knows and that does not run."""


class _Outcome(Protocol):
    """Who waits for the outcome of an operation; one of the two is called, once, on the I/O thread."""

    def succeed(self, value: Any = None) -> None:
        """It worked."""
        ...

    def fail(self, error: Exception) -> None:
        """It did not."""
        ...


class _Reporter:
    """Passes the outcome on to a callback."""

    def __init__(self, then: Callable[[Exception | None], None]) -> None:
        self._then = then

    def succeed(self, value: Any = None) -> None:
        """See `_Outcome.succeed`."""
        self._then(None)

    def fail(self, error: Exception) -> None:
        """See `_Outcome.fail`."""
        self._then(error)


class Request:
    """An operation that waits for its outcome, over reconnects, until its deadline.

    Args:
        script: makes what is asked; it can be run again from its start.
        deadline: of the transport's clock.
        waiter: told the outcome.
        awaits_queues: ask again for some seconds when a queue does not run yet, as in the second after a broker's start.
    """

    def __init__(
        self,
        script: Callable[[], Script[Any]] | None,
        deadline: float,
        waiter: _Outcome,
        *,
        awaits_queues: bool = False,
    ) -> None:
        self.script, self.deadline, self.waiter = script, deadline, waiter
        self.operation: Operation | None = None  # once it runs
        self.is_over = False
        self._seconds_for_queues = ASK_AGAIN_FOR if awaits_queues else 0.0

    def is_asked_again(self, error: Exception | None, *, now: float) -> bool:
        """Whether the refusal may be gone in `ASK_AGAIN_AFTER` seconds, and there is time for that."""
        if (
            not is_not_running(error)
            or self._seconds_for_queues <= 0
            or now + ASK_AGAIN_AFTER >= self.deadline
        ):
            return False
        self._seconds_for_queues -= ASK_AGAIN_AFTER
        return True

    @property
    def doing(self) -> str:
        """What the broker has been asked for and has not answered, in words; empty when there is nothing."""
        return self.operation.doing if self.operation is not None else ""

    def finish(self, result: Any, error: Exception | None) -> None:
        """Once."""
        if self.is_over:
            return
        self.is_over = True
        if error is not None:
            self.waiter.fail(error)
        else:
            self.operation = None
            self.waiter.succeed(result)


class Core:
    """Made by any thread; after `start` everything but the counters belongs to the I/O thread."""

    def __init__(self, options: TransportOptions, *, tally: Tally, clock: Clock) -> None:
        self.options, self.clock = options, clock
        self.thread = IOThread()
        self.loop = self.thread.loop
        self.link = Link(
            self.loop,
            options,
            name="amqp-tasks publisher",
            clock=clock,
            on_open=self._on_open,
            on_lost=self._on_lost,
            on_refused=self._on_refused,
            on_failed=self._on_failed,
        )
        self.publisher = Publisher(
            self.loop,
            clock=clock,
            tally=tally,
            window=options.publish_window,
            setup_timeout=options.setup_timeout,
            need_connection=self.link.need,
            drop_connection=self.link.drop,
            repair=self._repair,
            doing=lambda: self._declaring.doing if self._declaring is not None else "",
        )
        self.wheel = Wheel(
            self.loop, self.publisher, declare=self._declare, related=self._related, clock=clock
        )
        self._counts = CountReports(
            self.loop, self.publisher, tally, clock=clock, is_at_hand=self._can_connect_at_once
        )
        self.idle = IdleWatch(
            options.idle_timeout,
            loop=self.loop,
            link=self.link,
            publisher=self.publisher,
            operations=lambda: self._operations,
            is_needed=lambda: bool(
                self._requests or self._under_way or self.consumers or self._close_waiter or self.is_closing
            ),
            clock=clock,
        )
        self._operations = 0  # that were begun
        self.declared = Remembered()
        self._requests: list[Request] = []  # waiting for a connection
        self._under_way: set[Request] = set()  # asking the broker
        self._declaring: Request | None = None  # the last one of the timer wheel
        self._repairs: dict[tuple[str, str], list[Callable[[bool], None]]] = {}
        self.consumers: set[RabbitConsumer] = set()
        self._kept = KeptLink(self.loop, close_timeout=options.setup_timeout, on_gone=self._check_closed)
        self._had_broker = False  # the last one of them, to its end
        self._past = [0, 0, 0]  # delivered, stale settlements, connects of consumers that are gone
        self.is_closing = False
        self.is_dead = False  # the loop ended by an error: the transport starts another core
        self._ended_by: BrokerUnreachable | None = None  # …which is this one
        self._close_waiter: Waiter | None = None

    def door_for(self, pending: Pending) -> Callable[[Pending], None]:
        """What takes this message on the I/O thread. Any thread."""
        return self.publisher.submit if pending.entry is None else self.wheel.submit

    # --- the publishing connection ---

    def _on_open(self, connection: FastConnection) -> None:
        self.wheel.forget()
        self.publisher.on_open(connection)
        self._counts.begin()
        self.idle.begin(connection)
        requests, self._requests = self._requests, []
        for request in requests:
            self._run(request)

    def _on_lost(self, error: BrokerConnectionError) -> None:
        self.publisher.on_lost(error)

    def _on_failed(self, error: BrokerConnectionError) -> None:
        self.publisher.note_failure(error)

    def _on_refused(self, error: BrokerConnectionError) -> None:
        self.publisher.on_refused(error)
        requests, self._requests = self._requests, []
        for request in requests:
            request.finish(None, error)

    def _can_connect_at_once(self) -> bool:
        """Whether there is no connection only because nothing uses it.

        Nothing was published so far, and consumers have the broker, as in a worker whose tasks have no results; or it was closed.
        """
        has_broker = (
            any(_is_well(each.link) for each in self.consumers) if self.consumers else self._had_broker
        )
        return self.link.state is LinkState.IDLE and (has_broker or _is_well(self.link))

    # --- operations ---

    def request(self, request: Request) -> None:
        """Run a script when there is a connection; None only asks for the connection and gives its `ServerInfo`."""
        if self.is_closing:
            # Before the timer: a loop that has ended takes none, and whoever asks would wait for his own.
            request.finish(None, self._ended_by or ClosedError("the transport is closed"))
            return
        self.loop.call_guarded(request.deadline - self.clock.monotonic(), partial(self._expire, request))
        self._run(request)

    def _expire(self, request: Request) -> None:
        if request.is_over:
            return
        self._requests = [other for other in self._requests if other is not request]
        reason = self.publisher.blocked_reason
        if self.link.last_error is not None:
            request.finish(None, self.link.last_error)
        elif reason is not None:
            request.finish(
                None, BrokerUnreachable(f"the broker is blocked: {reason}", url=self.link.address.masked)
            )
        else:
            url = self.link.address.masked
            doing = f" while {request.doing}" if request.doing else ""
            error = BrokerUnreachable(f"{url} did not answer in time{doing}", url=url)
            error.is_attempting, error.is_silence = not doing, bool(doing)
            request.finish(None, error)

    def _run(self, request: Request) -> None:
        if request.is_over:
            return
        if self.is_closing:
            request.finish(None, ClosedError("the transport is closed"))
            return
        connection = self.link.connection
        if connection is None or not connection.is_open:
            self._requests.append(request)
            self.link.need()
        elif request.script is None:
            request.finish(self.link.server, None)
        else:
            self._operate(connection, request, request.script())

    def _operate(self, connection: FastConnection, request: Request, script: Script[Any]) -> None:
        def on_done(result: Any, error: Exception | None) -> None:
            self._under_way.discard(request)
            if isinstance(error, BrokerConnectionError) and not connection.is_open:
                self._run(request)  # every script can be run again from its start
            elif request.is_asked_again(error, now=self.clock.monotonic()):
                self._ask_later(request)
            else:
                request.finish(result, error)

        self._under_way.add(request)
        self._operations += 1
        left = request.deadline - self.clock.monotonic()
        request.operation = Operation(self.loop, connection, script, timeout=left, on_done=on_done)
        request.operation.start()

    def _ask_later(self, request: Request) -> None:
        if self.is_closing:
            self._run(request)  # which says so
            return
        self._requests.append(request)
        self.loop.call_guarded(ASK_AGAIN_AFTER, partial(self._ask_again, request))

    def _ask_again(self, request: Request) -> None:
        if request in self._requests:  # else it has been, on a new connection, or is over
            self._requests.remove(request)
            self._run(request)

    # --- repairing what a returned message was for ---

    def _repair(self, pending: Pending, then: Callable[[bool], None]) -> bool:
        if pending.entry is not None:
            self.wheel.repair(pending.entry, then)
            return True
        exchange, routing_key = pending.message.exchange, pending.message.routing_key
        waiting = self._repairs.get((exchange, routing_key))
        if waiting is not None:
            waiting.append(then)
            return True
        connection = self.link.connection
        part = self._related(exchange, routing_key)
        if part is None or connection is None or not connection.is_open:
            return False
        self._repairs[exchange, routing_key] = [then]
        self.request(
            Request(
                lambda: ensure_script(part, TopologyMode.DECLARE),
                self.clock.monotonic() + REPAIR_TIMEOUT,
                _Reporter(partial(self._on_repaired, (exchange, routing_key))),
                awaits_queues=True,
            )
        )
        return True

    def _related(self, exchange: str, routing_key: str) -> Topology | None:
        with contextlib.suppress(TopologyError):
            return self.declared.related(exchange, routing_key)
        return None

    def _declare(
        self, script: Callable[[], Script[None]], deadline: float, then: Callable[[Exception | None], None]
    ) -> None:
        """See `_wheel.Declare`."""
        self._declaring = Request(script, deadline, _Reporter(then))
        self.request(self._declaring)

    def _on_repaired(self, key: tuple[str, str], error: Exception | None) -> None:
        # A connection lost meanwhile is no answer: send again, the broker will say.
        worked = error is None or isinstance(error, BrokerConnectionError)
        for then in self._repairs.pop(key, []):
            then(worked)

    # --- consumers ---

    def consume(
        self,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None,
    ) -> RabbitConsumer:
        """Any thread."""
        consumer = RabbitConsumer(
            self.thread,
            self.options,
            queue_names,
            options,
            clock=self.clock,
            on_deliveries=on_deliveries,
            on_event=on_event,
            declare=declare,
            on_closed=self._forget,
            keep=self._kept.keep,
        )
        self.loop.put(self._start_consumer, consumer)
        return consumer

    def _start_consumer(self, consumer: RabbitConsumer) -> None:
        if self.is_closing:
            consumer._fail(ClosedError("the transport is closed"))
            return
        self.consumers.add(consumer)
        self._counts.begin()
        consumer.start(self._kept.take() if consumer.is_brief else None)

    def _forget(self, consumer: RabbitConsumer) -> None:
        self.consumers.discard(consumer)
        self._had_broker = _is_well(consumer.link)
        self._past[0] += consumer.delivered
        self._past[1] += consumer.stale_settlements
        self._past[2] += consumer.connects
        self._check_closed()

    def statistics(self) -> TransportStatistics:
        """Counters. Any thread: single reads of integers."""
        counters, consumers = self.publisher.counters, tuple(self.consumers)
        return TransportStatistics(
            published=counters.published,
            confirmed=counters.confirmed,
            returned=counters.returned,
            nacked=counters.nacked,
            resent=counters.resent,
            delivered=self._past[0] + sum(consumer.delivered for consumer in consumers),
            stale_settlements=self._past[1] + sum(consumer.stale_settlements for consumer in consumers),
            connects=self.link.connects + self._past[2] + sum(consumer.connects for consumer in consumers),
        )

    # --- the end ---

    def begin_close(self, waiter: Waiter) -> None:
        """Wait for outstanding confirms, then say goodbye everywhere; `waiter` hears when all is done."""
        self._close_waiter = waiter
        self.publisher.when_idle(self._say_last_word)

    def _say_last_word(self) -> None:
        # Only now: each outstanding confirm was one more to count.
        self._counts.end()
        self.publisher.when_idle(self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self.is_closing:
            return
        self.is_closing = True
        for consumer in tuple(self.consumers):
            consumer._do_close(None)
        self._kept.close()
        requests, self._requests = self._requests, []
        for request in requests:
            request.finish(None, ClosedError("the transport is closed"))
        connection = self.link.connection
        self.link.close()
        if connection is not None and connection.is_open is False and connection.is_closed is False:
            connection.add_on_close_callback(lambda _connection, _reason: self._check_closed())
        self._check_closed()

    def _check_closed(self) -> None:
        is_gone = self.link.is_gone and not self.consumers and not self._kept.links
        if self.is_closing and is_gone and self._close_waiter is not None:
            waiter, self._close_waiter = self._close_waiter, None
            waiter.succeed()

    def abort(self, why: str) -> None:
        """End everything now: the time for goodbyes is over, or the loop has died."""
        self.is_closing = True
        self.publisher.give_up(why)
        requests, self._requests = self._requests, []
        for request in requests:
            request.finish(None, ClosedError("the transport is closed"))
        for consumer in tuple(self.consumers):
            consumer._cut(None)
        self._kept.cut()
        self.link.cut()

    def on_end(self, by_error: bool) -> None:
        """The loop has ended; called on its thread. Nothing scheduled will run any more."""
        if by_error:
            self.die()
        self.is_closing = True
        # For what came in between the goodbye and the end of the loop, and for whatever still comes.
        self.publisher.end("the I/O thread ended" if by_error else "the transport was closed")

    def die(self) -> None:
        """The loop has ended by an error."""
        self.is_dead = self.is_closing = True
        error = self._ended_by = BrokerUnreachable(
            "the I/O thread ended by an error; see the log", url=self.link.address.masked
        )
        self.publisher.last_error = error
        self.publisher.give_up("the I/O thread ended")
        for request in (*self._requests, *self._under_way):
            request.finish(None, error)
        links = self._links  # before consumers that fail are forgotten
        for consumer in tuple(self.consumers):
            with contextlib.suppress(Exception):  # one that cannot even fail must not silence its neighbours
                consumer._fail(error, is_broken=True)
        _abandon(links)

    def abandon(self) -> None:
        """In a forked child: drop every descriptor without a byte on the wire."""
        _abandon(self._links)
        self.loop.abandon()

    @property
    def _links(self) -> list[Link]:
        return [self.link, *(consumer.link for consumer in self.consumers), *self._kept.links]


def _is_well(link: Link) -> bool:
    return link.connects > 0 and link.last_error is None


def _abandon(links: Sequence[Link]) -> None:
    """Close the sockets' descriptors, nothing else."""
    for link in links:
        link.abandon()
