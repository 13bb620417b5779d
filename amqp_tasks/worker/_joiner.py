"""Looking at joins: whoever sees that all outcomes are there takes them, and starts what waits for them.

1. An outcome was published and confirmed. 2. The queue is asked how much it holds; less than needed: somebody else's outcome
will be the last, and its worker looks. 3. Else the queue is taken: read without acks, up to all that it held. Who comes second
reads nothing, or what is left, and looks again later (quorum queues let in a second consumer, `exclusive` or not). Duplicates are left
out. 4. All there: what follows is published and confirmed, then the queue is deleted. 5. Not all there (some came
twice): everything goes back, and if more came meanwhile the look begins anew, as whoever brought it saw too few.
Only then the task that the outcome is of is settled, so that a crash anywhere leads to another look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from amqp_tasks.canvas import Join, added_index
from amqp_tasks.errors import AmqpTasksError, ChordError, MalformedMessage
from amqp_tasks.message import JoinOutcome, Limits, printable, read_join
from amqp_tasks.transport import ConsumerOptions, ConsumerState
from amqp_tasks.worker._steps import StepMaker, Steps, Whose, is_too_late

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import ConsumerEvent, Delivery, Transport

__all__ = ("Joiner",)

_Item: TypeAlias = "Callable[[], None] | _Look"

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _MAX_PAUSE = 0.2, 15.0
_READ_TIMEOUT = 10.0
_BACK_WITHIN = 5.0
_MAX_PREFETCH = 65_535


@dataclass(frozen=True, slots=True)
class _Look:
    """A join to be looked at, and what is called then."""

    join: Join
    then: Callable[[], None]
    pause: float = _FIRST_PAUSE


class Joiner:
    """One thread of a worker process, started by the first join.

    Args:
        app: whose workflows they are.
        maker: makes what follows.
        limits: of the messages in a join.
        call_later: runs something on the control thread after some seconds.
    """

    def __init__(
        self,
        app: App,
        maker: StepMaker,
        limits: Limits,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._app, self._maker, self._limits, self._call_later = app, maker, limits, call_later
        self._todo: SimpleQueue[_Item | None] = SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def look(self, joins: Sequence[Join], then: Callable[[], None]) -> None:
        """Look at the joins that got an outcome, then call `then`. Any thread; returns at once."""
        first, *others = joins
        self._put(_Look(first, partial(self.look, others, then) if others else then))

    def run(self, work: Callable[[], None]) -> None:
        """Do something that may wait for the broker, aside. Any thread; returns at once."""
        self._put(work)

    def close(self, *, timeout: float) -> None:
        """Begin nothing more. What was not looked at by now stays unsettled, so that its redelivery is."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._todo.put(None)
            thread.join(timeout)

    def _put(self, item: _Item) -> None:
        self._todo.put(item)
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="amqp-tasks-joins", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._closing.is_set():
            batch = [self._todo.get()]
            while not self._todo.empty():
                batch.append(self._todo.get())
            self._do([item for item in batch if item is not None])

    def _do(self, batch: Sequence[_Item]) -> None:
        """One look serves all outcomes for one queue that are there by now."""
        looks: dict[str, list[_Look]] = {}
        for item in batch:
            if isinstance(item, _Look):
                looks.setdefault(item.join.queue, []).append(item)
            else:
                _safely(item)
        for queue, waiting in looks.items():
            if not self._closing.is_set():
                self._look_for(queue, waiting)

    def _look_for(self, queue: str, waiting: Sequence[_Look]) -> None:
        """A join that cannot be looked at now is looked at later: others do not wait for it."""
        try:
            self._look_at(queue, waiting[0].join.size)
        except Exception as exc:  # noqa: BLE001 - the outcome is stored; the look must not be forgotten
            pause = max(look.pause for look in waiting)
            logger.warning(
                "join %s cannot be looked at yet, trying again in %.1f s: %s",
                printable(queue), pause, printable(str(exc), 1024), extra={"action": "join_again"},
            )  # fmt: skip
            for look in waiting:
                again = replace(look, pause=min(_MAX_PAUSE, pause * 2))
                self._call_later(pause, partial(self._put, again))
        else:
            for look in waiting:
                _safely(look.then)

    def _look_at(self, queue: str, size: int) -> None:
        transport = self._app.transport
        seen = size  # outcomes and the definition must be more than this
        while True:
            status = transport.queue_status(queue)
            if status is None or status.messages <= seen:
                return
            with _Taking(transport, queue, status.messages, self._limits) as taking:
                taking.read()
                if taking.is_complete:
                    self._conclude(queue, taking)
                    return
                seen = taking.count
            _wait_until_back(transport, queue, seen)

    def _conclude(self, queue: str, taking: _Taking) -> None:
        definition = taking.definition
        assert definition is not None
        steps = self._steps(definition, taking.wanted())
        _publish(self._app, steps)
        self._app.transport.delete_queue(queue)
        for join in steps.joins:
            self._look_at(join.queue, join.size)

    def _steps(self, definition: dict[str, Any], ordered: Sequence[JoinOutcome]) -> Steps:
        steps = Steps()
        whose = Whose(task_id=str(definition.get("parent_id") or ""), root_id=definition.get("root_id"))
        joins = tuple(
            Join(queue=queue, index=index, size=size) for queue, index, size in definition.get("joins") or ()
        )
        rest = definition.get("chain") or ()
        failed = next((outcome for outcome in ordered if outcome.error is not None), None)
        if failed is None:
            values = [outcome.value for outcome in ordered]
            self._maker.start(steps, whose, definition["body"], args=(values,), rest=rest, joins=joins)
        else:
            self._maker.give_up(steps, whose, definition["body"], rest, joins, _chord_error(failed))
        return steps


def _chord_error(failed: JoinOutcome) -> ChordError:
    error = failed.error or {}
    said = error.get("exc_message")
    arguments = ", ".join(map(repr, said)) if isinstance(said, list) else repr(said)  # pyright: ignore[reportUnknownArgumentType]
    return ChordError(f"Dependency {failed.task_id} raised {error.get('exc_type')}({arguments})")


def _publish(app: App, steps: Steps) -> None:
    """Publish it and wait.

    Raises:
        AmqpTasksError: something was not accepted.
    """
    outcomes = app.transport.publish_many(steps.messages)
    for message, error in zip(steps.messages, outcomes, strict=True):
        if error is not None and not is_too_late(message, error):
            raise error
    for record, reply_to in steps.records:
        stored: SimpleQueue[Exception | None] = SimpleQueue()
        app.backend.store_nowait(
            record, reply_to=reply_to, correlation_id=record.task_id, on_stored=stored.put
        )
        refusal = stored.get()
        if refusal is not None:
            raise refusal


def _wait_until_back(transport: Transport, queue: str, held: int) -> None:
    """What was handed back shows a moment after the consumer has closed."""
    deadline, pause = time.monotonic() + _BACK_WITHIN, threading.Event()
    while time.monotonic() < deadline:
        status = transport.queue_status(queue)
        if status is None or status.messages >= held:
            return
        pause.wait(0.02)
    raise AmqpTasksError(f"what was handed back to join {queue!r} does not show")


def _safely(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        logger.exception("unexpected error in the workflow thread", extra={"action": "join_error"})


@dataclass(slots=True)
class _Taking:
    """A context in which a join's queue is ours alone; what is not deleted goes back when it ends."""

    transport: Transport
    queue: str
    expected: int
    limits: Limits
    definition: dict[str, Any] | None = None
    outcomes: dict[int, JoinOutcome] = field(default_factory=dict[int, JoinOutcome])
    count: int = 0
    added: int = 0
    _inbox: SimpleQueue[Any] = field(default_factory=SimpleQueue[Any])
    _consumer: Any = None

    def __enter__(self) -> Self:
        self._consumer = self.transport.consume(
            [self.queue],
            ConsumerOptions(prefetch=min(_MAX_PREFETCH, self.expected), exclusive=True),
            on_deliveries=self._inbox.put,
            on_event=self._on_event,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close(timeout=_READ_TIMEOUT)

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.state is not ConsumerState.CONSUMING:
            self._inbox.put(event.state)

    def _next(self) -> Sequence[Delivery] | ConsumerState | None:
        try:
            return self._inbox.get(timeout=_READ_TIMEOUT)  # type: ignore[no-any-return]
        except Empty:
            return None

    def read(self) -> None:
        """Read until all are here that were counted, or enough."""
        while not self.is_complete and self.count < self.expected:
            found = self._next()
            if found is None or isinstance(found, ConsumerState):
                # Another holds it, or nobody, and the connection was lost: the next look tells which.
                raise AmqpTasksError(
                    f"join {self.queue!r} could not be read to its end: {found or 'nothing came'}"
                )
            self._note(found)

    @property
    def is_complete(self) -> bool:
        """Whether the definition and all outcomes are here."""
        definition = self.definition
        # Counted first: this is asked after each read, and looking for each outcome takes longer.
        if definition is None or len(self.outcomes) < definition["size"] + self.added:
            return False
        return not any(found is None for found in self._found())

    def wanted(self) -> list[JoinOutcome]:
        """The outcomes of the header, then those that were added, in order. What a run added that was run again and then did
        not add it, is left out."""
        return [found for found in self._found() if found is not None]

    def _found(self) -> Iterator[JoinOutcome | None]:
        assert self.definition is not None
        adding: list[JoinOutcome] = []
        for index in range(self.definition["size"]):
            found = self.outcomes.get(index)
            yield found
            if found is not None and found.added > 0:
                adding.append(found)
        for each in adding:  # grows: who was added may add
            for number in range(each.added):
                found = self.outcomes.get(added_index(each.index, number))
                yield found
                if found is not None and found.added > 0:
                    adding.append(found)

    def _note(self, deliveries: Any) -> None:
        for delivery in deliveries:
            self.count += 1
            try:
                found = read_join(delivery.properties, delivery.body, limits=self.limits)
            except MalformedMessage as exc:
                logger.warning(
                    "a message in join %s is not understood: %s",
                    printable(self.queue),
                    printable(str(exc), 1024),
                )
                continue
            if not isinstance(found, JoinOutcome):
                self.definition = found
            elif found.index not in self.outcomes:
                self.outcomes[found.index] = found
                self.added += found.added
