"""The reading side of a reply queue: ids to waiting callers, woken from the I/O thread.

An `Entry` is one expected result. Its `AsyncResult` objects hold it; the inbox holds it weakly, so that a result which
nobody can ask for any more is dropped when it arrives, and a process that never looks at results keeps none.

Finished results that nobody has looked at are bounded, too: above `cache_max` consuming pauses, and the rest stays in
the reply queue until somebody asks for a result that is not here. Waiting callers are never paused.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence

from amqp_tasks.backend import BackendStatistics, ExpectedResult
from amqp_tasks.errors import ClosedError, MalformedMessage, ResultLost, ResultUnavailable
from amqp_tasks.message import SIGNED_AS_RESULT, KeyRing, Limits, ResultRecord, printable, read_result
from amqp_tasks.transport import Consumer, ConsumerEvent, ConsumerState, Delivery, Settlement

__all__ = ("Entry", "Inbox")

_log = logging.getLogger(__name__)

_DELETED = "was deleted from the broker"


class Entry(ExpectedResult):
    """One expected result. Fields are written under the inbox's lock and may be read without it."""

    __slots__ = (
        "__weakref__",
        "callbacks",
        "error",
        "inbox",
        "is_read",
        "listeners",
        "record",
        "task_id",
        "waiters",
    )

    def __init__(self, inbox: Inbox, task_id: str) -> None:
        self.inbox, self.task_id = inbox, task_id
        self.record: ResultRecord | None = None
        self.error: Exception | None = None
        self.is_read = False
        # Empty tuples until used: most results are looked at when they are there.
        self.waiters: Sequence[threading.Lock] = ()
        self.callbacks: Sequence[Callable[[], None]] = ()
        self.listeners: Sequence[Callable[[ResultRecord], object]] = ()

    @property
    def is_ready(self) -> bool:
        """Whether a final state is here."""
        return self.record is not None and self.record.is_ready()

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing to wait for: a final state, or an error instead."""
        return self.error is not None or self.is_ready

    def peek(self) -> ResultRecord | None:
        """See `ExpectedResult.peek`."""
        if self.is_ready:
            self.is_read = True
        elif self.error is not None:
            raise self.error
        else:
            self.inbox.wants_more()
        return self.record

    def wait(self, timeout: float | None) -> bool:
        """See `ExpectedResult.wait`."""
        if not self.has_ended:
            # A negative time has passed already; the lock itself would read -1 as "no limit".
            seconds = -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
            gate = threading.Lock()
            gate.acquire()
            try:
                if self.inbox.enter(self, gate):
                    gate.acquire(timeout=seconds)
            finally:
                # Ctrl-C may come anywhere in between.
                self.inbox.leave(self, gate)
        if self.is_ready:
            self.is_read = True
            return True
        if self.error is not None:
            raise self.error
        return False

    def on_ready(self, callback: Callable[[], None]) -> None:
        """See `ExpectedResult.on_ready`."""
        if not self.inbox.call_back(self, callback):
            _call(callback, self.task_id)

    def withdraw(self, callback: Callable[[], None]) -> None:
        """See `ExpectedResult.withdraw`."""
        self.inbox.withdraw(self, callback)

    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """See `ExpectedResult.listen`."""
        with self.inbox.lock:
            self.listeners = (*self.listeners, listener)

    def unlisten(self, listener: Callable[[ResultRecord], object]) -> None:
        """See `ExpectedResult.unlisten`."""
        with self.inbox.lock:
            self.listeners = tuple(known for known in self.listeners if known != listener)

    def fail(self, error: Exception) -> None:
        """See `ExpectedResult.fail`."""
        self.inbox.end(self, error=error)


class Inbox:
    """Entries by id, and the consumer that feeds them.

    Thread safety: any thread; `take` and `note` are called on the I/O thread.
    """

    def __init__(
        self, accept: Collection[str], limits: Limits, cache_max: int, keys: KeyRing | None = None
    ) -> None:
        self._accept, self._limits, self._keys = tuple(accept), limits, keys
        self._cache_max = cache_max
        # The garbage collector may end an iteration over progress, which then stops to listen, in a thread that holds it.
        self.lock = threading.RLock()
        self._entries: weakref.WeakValueDictionary[str, Entry] = weakref.WeakValueDictionary()
        self._kept: set[Entry] = set()
        self._consumer: Consumer | None = None
        self._queue_name = ""
        self._is_closed = False
        # The I/O thread; written by it, read by whoever is about to wait.
        self._reader = 0
        # Deliveries that came before `attach` had been told the consumer; any thread pops them.
        self._early: deque[Delivery] = deque()
        # Written under `_pausing` together with the order to the consumer: in the other order a caller's "resume" could
        # come before the "pause" it answers, and nothing would ever arrive again.
        self._is_paused = False
        self._pausing = threading.Lock()
        # Counters and the bound: written on the I/O thread only, except `_until_count`, set by whoever asks.
        self._received = self._dropped = self._unreadable = self._lost = 0
        self._until_count = cache_max

    def attach(self, consumer: Consumer, queue_name: str) -> None:
        """Say which consumer feeds this inbox."""
        self._queue_name = queue_name
        self._consumer = consumer
        self._settle_early()

    def detach(self, *, timeout: float) -> None:
        """Close the consumer, whose queue is given up; what the next one brings waits for its `attach`."""
        consumer, self._consumer = self._consumer, None
        with self._pausing:
            self._is_paused = False
        if consumer is not None:
            consumer.close(timeout=timeout)

    def expect(self, task_id: str) -> Entry:
        """A new entry; the one that is still open under this id, when a call is sent again."""
        known = self._entries.get(task_id)
        if known is not None and not known.has_ended:
            return known
        entry = Entry(self, task_id)
        self._entries[task_id] = entry
        if self._is_closed:
            # Looked at after the entry is there: either `close` finds it, or we find the inbox closed.
            self.end(entry, error=_closed())
        return entry

    def find(self, task_id: str) -> Entry | None:
        """The entry of an id, while somebody holds it."""
        return self._entries.get(task_id)

    def forget(self, task_id: str) -> None:
        """Drop the entry of an id."""
        self._entries.pop(task_id, None)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody holds an entry without an end."""
        return any(not entry.has_ended for entry in self._all_entries())

    @property
    def taken(self) -> int:
        """How many results have arrived so far, for whomever."""
        return self._received + self._dropped + self._unreadable

    def statistics(self) -> BackendStatistics:
        """Counters."""
        return BackendStatistics(
            expected=len(self._entries),
            received=self._received,
            dropped=self._dropped,
            unreadable=self._unreadable,
            lost=self._lost,
        )

    # -- waiting callers

    def enter(self, entry: Entry, gate: threading.Lock) -> bool:
        """Have `gate`, a held lock, released when `entry` ends; False when it has.

        Raises:
            RuntimeError: called on the thread that brings results, which would wait for itself.
        """
        if threading.get_ident() == self._reader:
            raise RuntimeError(
                f"a callback waits for the result of task {entry.task_id} on the thread that brings results: use "
                "then() or on_ready() of that result, or hand the work to another thread"
            )
        with self.lock:
            if entry.has_ended:
                return False
            entry.waiters = (*entry.waiters, gate)
        self.wants_more()
        return True

    def leave(self, entry: Entry, gate: threading.Lock) -> None:
        """End a wait, however it ended."""
        with self.lock:
            entry.waiters = tuple(known for known in entry.waiters if known is not gate)

    def call_back(self, entry: Entry, callback: Callable[[], None]) -> bool:
        """Have `callback` called when `entry` ends; False when it has."""
        with self.lock:
            if entry.has_ended:
                return False
            entry.callbacks = (*entry.callbacks, callback)
            # Somebody is to be told, whether or not he holds the result itself.
            self._kept.add(entry)
        self.wants_more()
        return True

    def withdraw(self, entry: Entry, callback: Callable[[], None]) -> None:
        """End `call_back`; what nobody is to be told of is kept for nobody."""
        with self.lock:
            entry.callbacks = tuple(known for known in entry.callbacks if known != callback)
            if not entry.callbacks:
                self._kept.discard(entry)

    def end(
        self, entry: Entry, *, record: ResultRecord | None = None, error: Exception | None = None
    ) -> None:
        """Give `entry` its state or its error, and wake who waits. The first final state stays; an error gives way to
        a state that arrives after it."""
        with self.lock:
            if entry.is_ready or (record is None and entry.error is not None):
                return
            if record is not None:
                entry.record, entry.error = record, None
            else:
                entry.error = error
            listeners = entry.listeners if record is not None else ()
            waiters, callbacks = (entry.waiters, entry.callbacks) if entry.has_ended else ((), ())
            if entry.has_ended:
                entry.waiters = entry.callbacks = ()
                self._kept.discard(entry)
        for listener in listeners:
            _call(lambda heard=listener: heard(record), entry.task_id)  # type: ignore[misc]
        for gate in waiters:
            gate.release()
        for callback in callbacks:
            _call(callback, entry.task_id)

    # -- the I/O thread

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Match deliveries to entries and ack them. An ack loses nothing: who asks finds the entry in memory."""
        self._reader = threading.get_ident()
        for delivery in deliveries:
            self._take_one(delivery)
            consumer = self._consumer
            if consumer is not None:
                consumer.settle(delivery, Settlement.ACK)
            else:
                self._early.append(delivery)
        if self._early:
            self._settle_early()
        self._bound(len(deliveries))

    def _take_one(self, delivery: Delivery) -> None:
        entry = None
        try:
            properties = delivery.properties
            entry = self._entries.get(properties.correlation_id or "")
            if entry is None:
                self._dropped += 1
                return
            if self._keys is not None and not self._is_ours(delivery):
                return
            record = read_result(properties, delivery.body, accept=self._accept, limits=self._limits)
        except MalformedMessage as exc:
            self._unreadable += 1
            _log.warning("result message not readable: %s", exc, extra={"action": "result_unreadable"})
            if entry is not None:
                self.end(entry, error=exc)
            return
        self._received += 1
        self.end(entry, record=record)

    def _is_ours(self, delivery: Delivery) -> bool:
        """Whether it is signed; what is not is nobody's answer, and its caller goes on waiting."""
        assert self._keys is not None
        try:
            self._keys.check(delivery.properties, delivery.body, SIGNED_AS_RESULT)
        except MalformedMessage as exc:
            self._unreadable += 1
            _log.warning(
                "a result of task %s is passed over: %s",
                printable(delivery.properties.correlation_id),
                printable(str(exc), 512),
                extra={"action": "result_refused"},
            )
            return False
        return True

    def _settle_early(self) -> None:
        consumer = self._consumer
        while consumer is not None:
            try:
                delivery = self._early.popleft()
            except IndexError:
                return
            consumer.settle(delivery, Settlement.ACK)

    def note(self, event: ConsumerEvent) -> None:
        """React to the consumer's state. A lost connection needs nothing: the queue and its messages outlive it."""
        if event.state is ConsumerState.CANCELLED:
            self._lose(_DELETED)
        elif event.state is ConsumerState.FAILED:
            self._lose(f"cannot be consumed any more ({event.error})", event.error)

    def _lose(self, why: str, cause: Exception | None = None) -> None:
        open_entries = [entry for entry in self._all_entries() if not entry.has_ended]
        self._lost += len(open_entries)
        _log.warning(
            "reply queue %s %s; %d results may be lost",
            self._queue_name,
            why,
            len(open_entries),
            extra={"action": "reply_queue_lost", "queue": self._queue_name},
        )
        for entry in open_entries:
            self.lose(entry, why, cause)

    def lose(self, entry: Entry, why: str = _DELETED, cause: Exception | None = None) -> None:
        """Tell an entry that its result may never come."""
        error = ResultLost(
            f"the result of task {entry.task_id} may be lost: reply queue {self._queue_name} {why}"
        )
        error.task_id = entry.task_id
        error.__cause__ = cause
        self.end(entry, error=error)

    def _all_entries(self) -> list[Entry]:
        # One step of the interpreter copies the references; iterating the dictionary itself could see it change.
        return [entry for reference in self._entries.valuerefs() if (entry := reference()) is not None]

    # -- the bound

    def _bound(self, arrived: int) -> None:
        self._until_count -= arrived
        if self._until_count > 0 or self._is_paused or self._consumer is None:
            return
        entries = self._all_entries()
        unread = sum(entry.is_ready and not entry.is_read for entry in entries)
        # Counting costs time in proportion to what is held, so it is done once per tenth of the bound.
        self._until_count = max(self._cache_max - unread, self._cache_max // 10, 1)
        if unread >= self._cache_max and not _is_any_asked_for(entries):
            with self._pausing:
                self._is_paused = True
                self._consumer.pause()
            # Whoever has come since then did not see the pause, and may wait for an entry that was made since.
            if _is_any_asked_for(self._all_entries()):
                self.wants_more()

    def wants_more(self) -> None:
        """Somebody asks for a result that is not here: let in another `cache_max` if consuming is paused."""
        if not self._is_paused:
            return
        with self._pausing:
            if self._is_paused and self._consumer is not None:
                self._until_count = self._cache_max
                self._is_paused = False
                self._consumer.resume()

    def abandon(self) -> None:
        """In a forked child: the consumer and what is under way are the parent's, callbacks included."""
        self.lock, self._pausing = (
            threading.RLock(),
            threading.Lock(),
        )  # a thread that is not here may hold the parent's
        self._consumer = None
        self._is_paused = False
        self._kept.clear()
        for entry in self._all_entries():
            if not entry.has_ended:
                entry.waiters = entry.callbacks = ()
                entry.error = ResultUnavailable(
                    f"task {entry.task_id} was called before the fork; ask the parent process"
                )

    def close(self, *, timeout: float) -> None:
        """Stop consuming and end all waits with `ClosedError`."""
        with self.lock:
            self._is_closed = True
        if self._consumer is not None:
            self._consumer.close(timeout=timeout)
        for entry in self._all_entries():
            self.end(entry, error=_closed())


def _closed() -> ClosedError:
    return ClosedError("the result backend was closed while a result was waited for")


def _is_any_asked_for(entries: Sequence[Entry]) -> bool:
    return any(not entry.has_ended and (entry.waiters or entry.callbacks) for entry in entries)


def _call(callback: Callable[[], object], task_id: str) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001
        # Users' code on our I/O thread: it must not end it, not even by an exit, and nobody else would hear of it.
        _log.exception(
            "callback of result %s failed", task_id, extra={"action": "result_callback", "task_id": task_id}
        )
