"""Results over RabbitMQ: one durable reply queue per calling process, ids matched to waiting callers.

Life: 1. constructing does no I/O; 2. the first `reply_to` declares the queue and consumes it; 3. the transport keeps
the consumer alive over reconnects; 4. after a fork the child starts over with a queue of its own; 5. `close`, or the
end of the process, deletes the queue and ends every wait.

`docs/explanation/results.md` lists the states of the queue and what waiting callers get in each failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks._forks import after_fork_in_child
from amqp_tasks.backend import BackendStatistics, ExpectedResult, ResultBackend
from amqp_tasks.backends._inbox import Inbox
from amqp_tasks.errors import (
    AmqpTasksError,
    BrokerConnectionError,
    BrokerOperationError,
    BrokerUnreachable,
    ClosedError,
    ResultUnavailable,
)
from amqp_tasks.message import DEFAULT_LIMITS, KeyRing, Limits, ResultRecord, build_result, write_result
from amqp_tasks.transport import ConsumerEvent, ConsumerOptions, ConsumerState, TopologyMode, Transport

__all__ = ("REPLY_PREFIX", "RpcBackend", "RpcOptions", "new_reply_name")

REPLY_PREFIX = "amqp_tasks.reply."

_log = logging.getLogger(__name__)

# Results in flight to this process; they are acked in batches, so that a cut connection brings them again.
_PREFETCH = 1000
# Longer than a call takes: the ack of one result must not be in the way of the next call.
_SETTLE_DELAY = 0.02
_REDECLARE_TIMEOUT = 10.0
# The first part of it, for the queue that was there before.
_REVIVE_TIMEOUT = 3.0
# Between two attempts to bring it back: one ends at once where nothing listens at the broker's address.
_REDECLARE_PAUSE = 1.0
_EXIT_TIMEOUT = 1.0
# Looks in `idle_timeout`: the consumer stays at most one look longer.
_LOOKS = 4
# RabbitMQ 4 drops what came back 20 times unless it is told otherwise; here each lost connection counts.
_DELIVERY_LIMIT = 1_000_000
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcOptions:
    """What the backend needs of the settings.

    Attributes:
        expires: seconds after which the broker deletes a reply queue that nobody consumes.
        serializer: of results.
        compression: of results; None for none.
        is_persistent: results survive a restart of the broker.
        accept: serializers of results that are read.
        cache_max: finished results that nobody has looked at and that are kept in memory; further ones stay in the
            reply queue until somebody asks.
        limits: bounds of a received result.
        is_replicated: the reply queue is a quorum queue, which outlives a node of a cluster.
        idle_timeout: seconds without results to wait for after which the queue is not consumed until the next call; None: it always is.
        keys: by which results are checked; None: they are not.
    """

    expires: float = 86400.0
    serializer: str = "json"
    compression: str | None = None
    is_persistent: bool = True
    accept: Collection[str] = ("json",)
    cache_max: int = 10_000
    limits: Limits = DEFAULT_LIMITS
    is_replicated: bool = False
    idle_timeout: float | None = None
    keys: KeyRing | None = None


class RpcBackend(ResultBackend):
    """The default backend; see the module's docstring. Thread safety: any thread."""

    def __init__(self, transport: Callable[[], Transport], options: RpcOptions) -> None:
        self._transport, self._options = transport, options
        self._lock = threading.Lock()
        self._is_closed = False
        # Ends the pauses of `_declare_again`.
        self._closing = threading.Event()
        self._inbox = self._new_inbox()
        # Written under the lock; read without: an empty name means that there is no queue yet.
        self._queue_name = ""
        # What was declared, consumed or not: it is tried again, and deleted at the end. Written under the lock.
        self._declared_name = ""
        # Written under the lock and by the I/O thread when the consumer has failed.
        self._is_consumed = False
        # How often the queue was lost, and how often that was as it cannot be consumed; written by the I/O thread only.
        self._losses = self._failures = 0
        # Whether the declared queue is not consumed, as no result was waited for. Written under the lock.
        self._rests = False
        self._is_watched = False
        _alive.add(self)

    def _new_inbox(self) -> Inbox:
        options = self._options
        return Inbox(options.accept, options.limits, options.cache_max, options.keys)

    def reply_to(self, *, timeout: float) -> str:
        """See `ResultBackend.reply_to`. One caller sets it up, the others wait for it.

        Raises:
            BrokerUnreachable: not within `timeout`.
            ClosedError: after `close`.
        """
        return self._queue_name or self._set_up(timeout)

    def _set_up(self, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise BrokerUnreachable(f"the reply queue could not be set up within {timeout:g} s")
        try:
            if self._is_closed:
                raise ClosedError("this result backend is closed")
            return self._present(deadline)
        finally:
            self._lock.release()

    def _present(self, deadline: float) -> str:
        name = self._queue_name
        while not name:
            losses = self._losses
            name = self._queue_name = self._declare(max(0.0, deadline - time.monotonic()))
            if losses != self._losses:
                # Deleted again meanwhile. The name is set before this look, and the I/O thread counts before it clears
                # the name: so either we see the loss, or it sees the name.
                self._queue_name = ""
                if self._is_consumed:
                    name = ""
                # Else each further attempt may end so: the call is made, and `expect` tells that its result is lost.
        return name

    def _declare(self, timeout: float) -> str:
        """Declare the queue, for the first time or again after somebody deleted it or it could not be consumed."""
        deadline = time.monotonic() + timeout
        name = self._declared_name or new_reply_name()
        transport = self._transport()
        _close_at_exit()
        try:
            self._ensure(name, min(timeout, _REVIVE_TIMEOUT) if self._declared_name else timeout)
        except (BrokerOperationError, BrokerUnreachable) as exc:
            if not self._declared_name or not _is_out_of_reach(exc):
                raise
            name = new_reply_name()
            self._ensure(name, max(0.0, deadline - time.monotonic()))
            self._give_up_consumer()
        self._declared_name = name
        if not self._is_consumed:
            self._consume(transport, name)
        return name

    def _consume(self, transport: Transport, name: str) -> None:
        failures = self._failures
        # Without `declare`: the consumer would bring a deleted queue back by itself, and callers who wait for
        # what it held would never learn of the loss.
        options = ConsumerOptions(prefetch=_PREFETCH, settle_delay=_SETTLE_DELAY)
        consumer = transport.consume([name], options, on_deliveries=self._inbox.take, on_event=self._on_event)
        self._inbox.attach(consumer, name)
        self._is_consumed, self._rests = True, False
        self._watch()
        if failures != self._failures:
            # Perhaps before it was noted. As in `_present`: either we see that, or the I/O thread sees the note.
            self._give_up_consumer()

    def _give_up_consumer(self) -> None:
        # In this order: who sees that there is none attaches another one, which is not to be closed here.
        self._inbox.detach(timeout=_EXIT_TIMEOUT)
        self._is_consumed = False

    def _watch(self) -> None:
        """Have the consumer closed while no result is waited for; under the lock. Once, and only where that was asked for."""
        timeout = self._options.idle_timeout
        if timeout is not None and not self._is_watched:
            self._is_watched = True
            threading.Thread(
                target=self._rest_when_idle, args=(timeout,), name="amqp-tasks-reply-rest", daemon=True
            ).start()

    def _rest_when_idle(self, timeout: float) -> None:
        uses, used_at = -1, 0.0
        while not self._closing.wait(timeout / _LOOKS):
            taken, now = self._inbox.taken, time.monotonic()
            if taken != uses or self._inbox.is_awaited:
                uses, used_at = taken, now
            elif now - used_at >= timeout:
                self._rest()

    def _rest(self) -> None:
        """Close the consumer, unless a result is waited for."""
        with self._lock:
            losses, name = self._losses, self._queue_name
            if not name or self._is_closed:
                return
            # The name goes before this look, and `expect` makes its entry before it reads the name: so either we see the entry, or
            # it sees that the name is gone, and asks under the lock.
            self._queue_name = ""
            if self._inbox.is_awaited:
                self._queue_name = name
                if losses != self._losses:  # as in `_present`
                    self._queue_name = ""
                return
            self._rests = True
            self._give_up_consumer()

    def _is_at_hand(self, name: str) -> bool:
        """Whether results of a call that was given this name will be read, although it was not found in use without the lock."""
        with self._lock:
            if self._rests and name == self._declared_name and not self._is_closed:
                # It was there a moment ago. If it is not any more, the consumer says so.
                self._queue_name = name
                self._consume(self._transport(), name)
            return name == self._queue_name

    def _ensure(self, name: str, timeout: float) -> None:
        options = self._options
        queue = (
            Queue(name, type=QueueType.QUORUM, expires=options.expires, delivery_limit=_DELIVERY_LIMIT)
            if options.is_replicated
            else Queue(name, type=QueueType.CLASSIC, expires=options.expires)
        )
        self._transport().ensure_topology(
            Topology(queues=(queue,)), mode=TopologyMode.DECLARE, timeout=timeout
        )

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.is_queue_there:
            return  # it is consumed anew, and what lies in it comes
        if event.state is ConsumerState.CANCELLED:
            # Calls made from now on wait in `reply_to` until the queue is back.
            self._losses += 1
            self._queue_name = ""
            self._inbox.note(event)
            # This is the I/O thread, which cannot wait for a declare.
            threading.Thread(target=self._declare_again, name="amqp-tasks-reply-queue", daemon=True).start()
        elif event.state is ConsumerState.FAILED:
            # Final for this consumer; the next call has another one try.
            self._failures += 1
            self._losses += 1
            self._queue_name = ""
            self._inbox.note(event)
            self._give_up_consumer()

    def _declare_again(self) -> None:
        """Bring a deleted queue back under its name, for results of running tasks; the consumer finds it."""
        while not self._is_closed:
            try:
                self._set_up(_REDECLARE_TIMEOUT)
                return
            except ClosedError:
                return
            except AmqpTasksError as exc:
                if isinstance(exc, BrokerConnectionError) and not exc.is_final:
                    self._closing.wait(_REDECLARE_PAUSE)
                    continue
                # The next call tries it again.
                extra = {"action": "reply_queue_redeclare", "queue": self._declared_name}
                _log.warning(
                    "reply queue %s cannot be declared again: %s", self._declared_name, exc, extra=extra
                )
                return

    def expect(self, task_id: str, *, reply_to: str) -> ExpectedResult:
        """See `ResultBackend.expect`."""
        entry = self._inbox.expect(task_id)
        if reply_to != self._queue_name and not (self._is_watched and self._is_at_hand(reply_to)):
            # The queue went between the caller's `reply_to` and here.
            self._inbox.lose(entry)
        return entry

    def lookup(self, task_id: str) -> ExpectedResult:
        """The result of a call made by this process, while somebody holds its AsyncResult.

        Raises:
            ResultUnavailable: any other id.
        """
        found = self._inbox.find(task_id)
        if found is None:
            raise ResultUnavailable(
                f"the result of task {task_id} cannot be known here: with rpc:// it goes to the process that made the "
                "call, and is kept while that process holds the AsyncResult; keep what delay() returned, or pass the "
                "result on from the task itself"
            )
        return found

    def forget(self, task_id: str) -> None:
        """See `ResultBackend.forget`."""
        self._inbox.forget(task_id)

    def write(self, record: ResultRecord) -> None:
        """See `ResultBackend.write`.

        Raises:
            EncodeError: the result cannot be serialized.
        """
        write_result(record, serializer=self._options.serializer, compression=self._options.compression)

    def store_nowait(
        self,
        record: ResultRecord,
        *,
        reply_to: str,
        correlation_id: str,
        on_stored: Callable[[Exception | None], None],
    ) -> None:
        """Publish to the caller's reply queue, confirmed; of a caller who is gone `on_stored` gets `UnroutableError`.

        Without `reply_to` nobody waits: `on_stored` is called at once, on this thread.

        Raises:
            EncodeError: the result cannot be serialized.
        """
        if not reply_to:
            on_stored(None)
            return
        self.write(record)  # kept, so that another attempt, on whatever thread, runs none of users' code
        message = build_result(
            record,
            reply_to=reply_to,
            correlation_id=correlation_id,
            persistent=self._options.is_persistent,
        )
        self._transport().publish_nowait(message, on_stored)

    def statistics(self) -> BackendStatistics:
        """See `ResultBackend.statistics`."""
        return self._inbox.statistics()

    def close(self, *, timeout: float = 5.0) -> None:
        """See `ResultBackend.close`; the reply queue is deleted, as nobody can ask for its results any more."""
        if self._is_closed:
            return
        # Before the lock, whose holder may be waiting for the broker: he looks at this when he is done.
        self._is_closed = True
        self._closing.set()
        deadline = time.monotonic() + timeout
        has_lock = self._lock.acquire(timeout=timeout)
        name, self._queue_name = self._declared_name, ""
        if has_lock:
            self._lock.release()
        self._inbox.close(timeout=max(0.0, deadline - time.monotonic()))
        if name:
            self._delete(name, max(0.0, deadline - time.monotonic()))

    def _delete(self, name: str, timeout: float) -> None:
        try:
            self._transport().delete_queue(name, timeout=timeout)
        except AmqpTasksError as exc:
            # The broker's x-expires does it later.
            _log.debug(
                "reply queue %s not deleted: %s",
                name,
                exc,
                extra={"action": "reply_queue_delete", "queue": name},
            )

    def _start_over(self) -> None:
        """In a forked child: the parent keeps its queue and its waiters, and a lock may be held by its threads."""
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._queue_name = self._declared_name = ""
        self._is_consumed = self._rests = self._is_watched = False
        self._inbox.abandon()
        self._inbox = self._new_inbox()


def _is_out_of_reach(error: BrokerOperationError | BrokerUnreachable) -> bool:
    """Not deleted: a classic queue whose cluster node is down, so that it cannot be had before that is back.

    RabbitMQ 3.10 says so (404), 4.0 does not answer.
    """
    if isinstance(error, BrokerUnreachable):
        return error.is_silence
    return error.reply_code == _NOT_FOUND


def new_reply_name() -> str:
    """The name for a reply queue of this process."""
    return f"{REPLY_PREFIX}{socket.gethostname()[:100]}.{os.getpid()}.{uuid.uuid4().hex}"


_alive: weakref.WeakSet[RpcBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_alive):
        backend._start_over()


after_fork_in_child(_after_fork)


_is_registered = False


def _close_at_exit() -> None:
    """Have this process's reply queues deleted when it ends; else each run of a script would leave one for a day.

    Registered after the transport's own hook, so that it runs before it: these hooks run last in, first out, and
    before the interpreter waits for threads, which `atexit` functions do not.
    """
    global _is_registered  # noqa: PLW0603 - a hook of the process, so one flag per process
    if _is_registered:
        return
    _is_registered = True
    register: Callable[[Callable[[], None]], None] = threading._register_atexit  # type: ignore[attr-defined]
    register(_close_all)


def _close_all() -> None:
    for backend in list(_alive):
        with contextlib.suppress(Exception):
            backend.close(timeout=_EXIT_TIMEOUT)
