"""Looking after dead letters: `app.dead_letters`.

A look takes messages without acknowledging them and hands back what it does not remove, in order, when its consumer
closes. Each return counts as a delivery, which is why dead-letter queues are declared with a delivery limit that never
comes, and why a queue that is declared otherwise is not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING

from amqp_routing import Topology
from amqp_tasks.app._look import Found, Look
from amqp_tasks.errors import AmqpTasksError, MalformedMessage, TopologyMismatch, UnknownQueue
from amqp_tasks.message import DeadLetter, StepMark, dead_letter_queue_name, read_mark
from amqp_tasks.message._letters import revived

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.message import OutgoingMessage
    from amqp_tasks.transport import Transport

__all__ = ("DeadLetterFilter", "DeadLetters", "Requeued", "dead_letter_counts", "published")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters are meant: those that fit every field that is given. Patterns are globs, case counts.

    A field that is given and empty fits nothing: a list of ids that came out empty must not mean all of them. Of what may be
    several, one text is the only one.

    Attributes:
        ids: any of these ids.
        tasks: any of these patterns of task names.
        reasons: any of these patterns of reasons.
        errors: any of these patterns of exception class names.
        older: set aside at least this long ago; what has no time never fits.
        newer: set aside less than this ago; likewise.
        workflow: a step of the workflow with this id.
        steps: a step with any of these names.
    """

    ids: Collection[str] | None = None
    tasks: Sequence[str] | None = None
    reasons: Sequence[str] | None = None
    errors: Sequence[str] | None = None
    older: timedelta | None = None
    newer: timedelta | None = None
    workflow: str | None = None
    steps: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "tasks", "reasons", "errors", "steps"):
            given = getattr(self, name)
            if isinstance(given, str):
                object.__setattr__(self, name, (given,))

    def fits(self, letter: DeadLetter, now: datetime) -> bool:
        """Whether `letter` is one of them at the time `now` (aware)."""
        return (
            (self.ids is None or letter.id in self.ids)
            and _is_any(letter.task, self.tasks)
            and _is_any(letter.reason, self.reasons)
            and _is_any(letter.error_type, self.errors)
            and (self.older is None or (letter.time is not None and now - letter.time >= self.older))
            and (self.newer is None or (letter.time is not None and now - letter.time < self.newer))
            and ((self.workflow is None and self.steps is None) or self._is_step(read_mark(letter.headers)))
        )

    def _is_step(self, mark: StepMark | None) -> bool:
        return (
            mark is not None
            and self.workflow in {None, mark.workflow_id}
            and (self.steps is None or mark.step in self.steps)
        )

    @property
    def is_everything(self) -> bool:
        """Whether no field is given."""
        return self == DeadLetterFilter()

    def missing(self, found: Collection[str | None]) -> tuple[str, ...]:
        """Those of `ids` that are not among the ids of what was found."""
        return tuple(each for each in dict.fromkeys(self.ids or ()) if each not in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What `DeadLetters.requeue` did.

    Attributes:
        count: how many are in their queues again.
        failures: those that are not and stay dead letters, each with the error.
        missing: ids of the filter of which no letter was found; none where `limit` ended the look.
    """

    count: int
    failures: tuple[tuple[DeadLetter, AmqpTasksError], ...]
    missing: tuple[str, ...] = ()


EVERYTHING = DeadLetterFilter()


class DeadLetters:
    """The dead letters of an app's queues.

    Queues are named by the task queue or by its `<queue>.dead`; None means all of the app's topology. While somebody
    looks at a queue, its letters are hidden from others who look. One look sees the first 10,000 letters of a queue.

    Thread safety: any thread.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def counts(self, queues: Iterable[str] | None = None) -> dict[str, int]:
        """How many lie in each `<queue>.dead` that exists, by the name of the task queue.

        Raises:
            BrokerConnectionError, BrokerOperationError: the broker cannot be asked.
        """
        return dead_letter_counts(self._app.transport, self._names(queues))

    def find(
        self,
        queues: Iterable[str] | None = None,
        where: DeadLetterFilter = EVERYTHING,
        *,
        limit: int | None = None,
        bodies: bool = False,
    ) -> list[DeadLetter]:
        """Those that fit, oldest first in each queue; all stay where they are.

        Args:
            queues: see the class.
            where: which.
            limit: at most so many; None: all.
            bodies: keep their bodies.

        Raises:
            UnknownQueue: a named queue has no dead-letter queue at the broker.
            TopologyMismatch: looking could lose messages, as the queue was declared with other arguments.
            BrokerConnectionError, BrokerOperationError: the broker cannot be asked, or went away.
        """
        found: list[DeadLetter] = []
        for name in self._present(queues):
            left = None if limit is None else limit - len(found)
            with self._look(name, where, bodies=bodies, limit=left) as look:
                for batch in look:
                    found += [each.letter for each in batch]
        return found

    def requeue(
        self,
        queues: Iterable[str] | None = None,
        where: DeadLetterFilter = EVERYTHING,
        *,
        limit: int | None = None,
    ) -> Requeued:
        """Put them back into the queues that they were set aside from, as they were: same id, body, headers, properties.

        Each is published, confirmed, and only then removed: what ends this in between leaves a duplicate, never a loss.
        The headers that tell of its death are taken off; `x-amqp-tasks-snoozes` is one higher. The `expires` of a task stays, and so does its count of retries.

        Raises:
            as `find`. What could not be published is in `Requeued.failures`.
        """
        count, failures, ids = 0, list[tuple[DeadLetter, AmqpTasksError]](), set[str | None]()
        for name in self._present(queues):
            left = None if limit is None else limit - count - len(failures)
            with self._look(name, where, bodies=True, limit=left) as look:
                outcomes = (published(self._app.transport, name, batch) for batch in look)
                for found, error in chain.from_iterable(outcomes):
                    if where.ids is not None:
                        ids.add(found.letter.id)
                    if error is None:
                        look.remove(found)
                        count += 1
                    else:
                        failures.append((found.letter, error))
        is_cut = limit is not None and count + len(failures) >= limit
        return Requeued(count=count, failures=tuple(failures), missing=() if is_cut else where.missing(ids))

    def purge(
        self,
        queues: Iterable[str] | None = None,
        where: DeadLetterFilter = EVERYTHING,
        *,
        limit: int | None = None,
    ) -> int:
        """Remove them for good; returns how many.

        Raises:
            as `find`.
        """
        if where.is_everything and limit is None:
            dead = (dead_letter_queue_name(name) for name in self._present(queues))
            return sum(self._app.transport.purge_queue(name) for name in dead)
        return sum(1 for _ in self.removed(queues, where, limit=limit))

    def removed(
        self, queues: Iterable[str] | None, where: DeadLetterFilter, *, limit: int | None = None
    ) -> Generator[DeadLetter]:
        """Remove them as `purge` does, and yield each, for who wants to know which they were.

        Raises:
            as `find`.
        """
        count = 0
        for name in self._present(queues):
            with self._look(name, where, limit=None if limit is None else limit - count) as look:
                for found in chain.from_iterable(look):
                    look.remove(found)
                    count += 1
                    yield found.letter

    def looks(self, queues: Iterable[str] | None, where: DeadLetterFilter) -> Generator[tuple[str, Look]]:
        """A look at each queue, with bodies, for whoever decides what becomes of the letters; with the task queue's name.

        Raises:
            as `find`.
        """
        for name in self._present(queues):
            with self._look(name, where, bodies=True) as look:
                yield name, look

    def _names(self, queues: Iterable[str] | None) -> list[str]:
        """Names of task queues."""
        known = self._app.topology.queue_names
        if queues is None:
            dead = {dead_letter_queue_name(name) for name in known}
            return [name for name in known if name not in dead]
        suffix = dead_letter_queue_name("")
        return list(dict.fromkeys(name.removesuffix(suffix) or name for name in queues))

    def _present(self, queues: Iterable[str] | None) -> Iterator[str]:
        names = self._names(queues)
        counts = dead_letter_counts(self._app.transport, names)
        missing = [name for name in names if name not in counts]
        if queues is not None and missing:
            raise self._unknown(missing[0])
        return (name for name in names if counts.get(name))

    def _unknown(self, name: str) -> UnknownQueue:
        known = self._names(None)
        if name in known:
            hint = "the broker has no such queue: run `amqp-tasks topology apply`"
            return UnknownQueue(dead_letter_queue_name(name), hint=hint)
        hint = "neither the broker nor this app has a queue of that name"
        return UnknownQueue(name, known=tuple(known), hint=hint)

    def _look(
        self, name: str, where: DeadLetterFilter, *, bodies: bool = False, limit: int | None = None
    ) -> Look:
        transport, now = self._app.transport, datetime.now(UTC)
        differences = transport.compare_topology(self._declared(name))
        if differences:
            raise TopologyMismatch(differences)
        return Look(transport, name, lambda letter: where.fits(letter, now), keeps_bodies=bodies, limit=limit)

    def _declared(self, name: str) -> Topology:
        dead = self._app.resources.topologies.dead_letters_of(name)
        return Topology(queues=(dead,))


def dead_letter_counts(transport: Transport, queue_names: Iterable[str]) -> dict[str, int]:
    """How many dead letters each of these task queues has, for those whose `<queue>.dead` exists.

    Raises:
        BrokerConnectionError, BrokerOperationError: the broker cannot be asked.
    """
    found = {name: transport.queue_status(dead_letter_queue_name(name)) for name in queue_names}
    return {name: status.messages for name, status in found.items() if status is not None}


def published(
    transport: Transport, queue_name: str, batch: Sequence[Found]
) -> Iterator[tuple[Found, AmqpTasksError | None]]:
    """Publish them to their queue; each with None when it is confirmed, else with the error."""
    sent: list[Found] = []
    messages: list[OutgoingMessage] = []
    for found in batch:
        try:
            messages.append(revived(queue_name, found.delivery.properties, found.delivery.body))
        except MalformedMessage as exc:
            yield found, exc
        else:
            sent.append(found)
    yield from zip(sent, transport.publish_many(messages), strict=True)


def _is_any(text: str | None, patterns: Sequence[str] | None) -> bool:
    if patterns is None:
        return True
    return text is not None and any(fnmatchcase(text, pattern) for pattern in patterns)
