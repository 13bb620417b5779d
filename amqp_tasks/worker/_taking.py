"""A join in our hands: its queue read to the end by one consumer, and what was found in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from amqp_tasks.canvas import added_index
from amqp_tasks.errors import AmqpTasksError, MalformedMessage
from amqp_tasks.message import (
    JoinOutcome,
    JoinTold,
    Limits,
    OutgoingMessage,
    first_step,
    printable,
    read_join,
)
from amqp_tasks.transport import ConsumerOptions, ConsumerState

if TYPE_CHECKING:
    from amqp_tasks.transport import ConsumerEvent, Delivery, Transport

__all__ = ("READ_TIMEOUT", "Taking")

logger = logging.getLogger(__name__)

READ_TIMEOUT = 10.0
"""Seconds for which the next message is waited for at most."""
_QUIET = 1.0
"""Seconds without a message after which it is asked whether another consumes the queue. Other joins wait meanwhile."""
_REQUEUED_WITHIN = 0.02
"""Seconds in which what a consumer held lies in its queue again when it is counted no more."""
_MAX_PREFETCH = 65_535


@dataclass(slots=True)
class Taking:
    """A context in which a join's queue is ours alone; what is not deleted goes back when it ends."""

    transport: Transport
    queue: str
    expected: int
    limits: Limits
    definition: dict[str, Any] | None = None
    outcomes: dict[int, JoinOutcome] = field(default_factory=dict[int, JoinOutcome])
    kept: dict[int, set[str]] = field(default_factory=dict[int, set[str]])
    told: frozenset[str] = frozenset()
    count: int = 0
    added: int = 0
    own: int = 0
    _run: str = ""
    _early: list[JoinOutcome] = field(default_factory=list[JoinOutcome])
    """Those that were read before the definition, which tells whose they must be."""
    _inbox: SimpleQueue[Any] = field(default_factory=SimpleQueue[Any])
    _consumer: Any = None

    def __enter__(self) -> Self:
        self._consumer = self.transport.consume(
            [self.queue],
            ConsumerOptions(
                prefetch=min(_MAX_PREFETCH, max(1, self.expected)), exclusive=True, is_brief=True
            ),
            on_deliveries=self._inbox.put,
            on_event=self._on_event,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close(timeout=READ_TIMEOUT)

    def delete(self) -> None:
        """Delete the queue, and all in it, while nobody else can have it.

        Not as its consumer: told of the end it would ask for the queue once more, and a broker that has not done deleting closes
        the connection over that (541).
        """
        self._consumer.pause()
        self.transport.delete_queue(self.queue)

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.state is not ConsumerState.CONSUMING:
            self._inbox.put(event.state)

    def _next(self) -> Sequence[Delivery] | ConsumerState | None:
        deadline = time.monotonic() + READ_TIMEOUT
        while time.monotonic() < deadline:
            try:
                return self._inbox.get(timeout=_QUIET)  # type: ignore[no-any-return]
            except Empty:
                # A large outcome may be on its way over a slow line for longer; but what a rival has will not come.
                if self._has_rival():
                    break
        return None

    def _has_rival(self) -> bool:
        status = self.transport.queue_status(self.queue)
        return status is None or status.consumers > 1

    def check_rivals(self) -> None:
        """Whoever tells of failures must have read all that lies there: another may hold what says that they have been told, or that
        a step has succeeded by now.

        Raises:
            AmqpTasksError: another holds, or held until now, a part of it.
        """
        for pause in (_REQUEUED_WITHIN, 0.0):
            status = self.transport.queue_status(self.queue)
            if status is None or status.consumers > 1 or status.messages > self.own:
                raise AmqpTasksError(f"another has a part of join {self.queue!r}, or had it a moment ago")
            threading.Event().wait(pause)

    def read(self) -> None:
        """Read until all are here that were counted, or enough."""
        while not self._is_decided and self.count < self.expected:
            found = self._next()
            if found is None or isinstance(found, ConsumerState):
                # Another holds it, or nobody, and the connection was lost: the next look tells which.
                raise AmqpTasksError(
                    f"join {self.queue!r} could not be read to its end: {found or 'nothing came'}"
                )
            self.note(found)

    @property
    def _is_decided(self) -> bool:
        """Whether nothing that may still be read changes anything."""
        return self.is_complete and not any(found.kept_as for found in self.wanted())

    @property
    def is_complete(self) -> bool:
        """Whether the definition and all outcomes are here."""
        definition = self.definition
        # Counted first: this is asked after each read, and looking for each outcome takes longer.
        if definition is None or len(self.outcomes) < definition["size"] + self.added:
            return False
        return all(found is not None for _, found in self._found())

    def missing(self) -> Iterator[int]:
        """The indexes of those that have not ended, or of which it was only said that they are lost."""
        return (index for index, found in self._found() if found is None or found.is_lost)

    def kept_failures(self) -> frozenset[str]:
        """The failures of tasks that may be resumed; none where another has failed for good, as then nothing can come of it."""
        failed = [found for found in self.wanted() if found.error is not None]
        if not all(found.kept_as for found in failed):
            return frozenset()
        return frozenset(each for found in failed for each in self.kept[found.index])

    def wanted(self) -> list[JoinOutcome]:
        """The outcomes of the header, then those that were added, in order. What a run added that was run again and then did
        not add it, is left out."""
        return [found for _, found in self._found() if found is not None]

    def _found(self) -> Iterator[tuple[int, JoinOutcome | None]]:
        assert self.definition is not None
        adding: list[JoinOutcome] = []
        for index in range(self.definition["size"]):
            found = self.outcomes.get(index)
            yield index, found
            if found is not None and found.added > 0:
                adding.append(found)
        for each in adding:  # grows: who was added may add
            for number in range(each.added):
                index = added_index(each.index, number)
                found = self.outcomes.get(index)
                yield index, found
                if found is not None and found.added > 0:
                    adding.append(found)

    def note_own(self, messages: Collection[OutgoingMessage]) -> None:
        """Count what was put there while it is held."""
        self.own += len(messages)
        self.note(messages)

    def note(self, messages: Iterable[Delivery | OutgoingMessage]) -> None:
        """Count what lies in the queue."""
        keys = self.transport.keys
        for delivery in messages:
            self.count += 1
            try:
                found = read_join(
                    delivery.properties, delivery.body, limits=self.limits, queue=self.queue, keys=keys
                )
            except MalformedMessage as exc:
                logger.warning(
                    "a message in join %s is not understood: %s",
                    printable(self.queue),
                    printable(str(exc), 1024),
                )
                continue
            match found:
                case JoinOutcome():
                    self._note_outcome(found)
                case JoinTold():
                    self.told |= found.failures
                case _:
                    # A later one was published twice, or is a copy of that of an earlier workflow with the same id.
                    if self.definition is None:
                        self.define(found)

    def define(self, definition: dict[str, Any]) -> dict[str, Any]:
        """Say what the join is for; what was read before counts from now on. Returns the definition."""
        first = first_step(definition)
        self.definition, self._run = definition, first.run if first is not None else ""
        early, self._early = self._early, []
        for found in early:
            self._note_outcome(found)
        return definition

    def _note_outcome(self, found: JoinOutcome) -> None:
        """The first counts; but a failure that is kept gives way to whatever comes of the task when it is resumed."""
        if self.definition is None:
            self._early.append(found)
            return
        if found.run and self._run and found.run != self._run:
            logger.info(
                "an outcome in join %s is passed over: it is of an earlier workflow with the same id",
                printable(self.queue),
            )
            return
        known = self.outcomes.get(found.index)
        if found.kept_as:
            self.kept.setdefault(found.index, set()).add(found.kept_as)
        if known is None:
            self.added += found.added
        elif not known.kept_as:
            return
        self.outcomes[found.index] = found
