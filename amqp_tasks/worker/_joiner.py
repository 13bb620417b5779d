"""Looking at joins: whoever sees that all outcomes are there takes them, and starts what waits for them.

1. An outcome was published and confirmed. 2. The queue is asked how much it holds. Somebody consumes it: it is looked at again later, as
what that one holds is not counted and may all come back. Less than needed: somebody else's outcome will be the last, and its worker
looks. 3. Else the queue is taken: read without acks, up to all that it held. Of two who come at once the second reads nothing, or what is
left, and looks again later (quorum queues let in a second consumer, `exclusive` or not). Duplicates are left out. 4. All there: what follows is published and confirmed, then the queue is deleted. 5. Not all there (some came
twice), or a named step has failed and may be resumed: everything goes back, and if more came meanwhile the look begins anew, as
whoever brought it saw too few.
Only then the task that the outcome is of is settled, so that a crash anywhere leads to another look.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from amqp_tasks.canvas import Join
from amqp_tasks.errors import AmqpTasksError, ChordError
from amqp_tasks.message import (
    JoinOutcome,
    JoinWatch,
    Limits,
    exception_from_data,
    printable,
    told_message,
    told_outcome,
    watch_message,
)
from amqp_tasks.message._printable import failed_repr
from amqp_tasks.worker._accounts import error_text
from amqp_tasks.worker._aside import Aside
from amqp_tasks.worker._named_steps import (
    emptied_steps,
    ids_in,
    joins_before,
    joins_behind,
    joins_in,
    lost_steps,
    named_steps,
)
from amqp_tasks.worker._sending import Sending
from amqp_tasks.worker._steps import StepMaker, Steps, Whose
from amqp_tasks.worker._taking import Taking
from amqp_tasks.worker._watch import next_watch

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import QueueStatus, Transport

__all__ = ("Joiner",)

_Item: TypeAlias = "Callable[[], None] | _Look"

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _MAX_PAUSE = 0.2, 15.0
_BACK_WITHIN = 1.0
_WATCH_PAUSE = 5.0
_LAST_DOUBT = 4.0
"""After a look that failed, pauses up to this are made while nothing is counted: six seconds in all, more than a broker takes."""


class _NothingCounted(AmqpTasksError):
    """Another holds all of a join, or the broker has come back and does not count its messages yet."""


class _Held(AmqpTasksError):
    """Another consumes a join, and what it holds is not counted."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A join to be looked at, the queue of the task that brought its outcome, and what is called then."""

    join: Join
    queue_name: str
    then: Callable[[], None]
    pause: float = _FIRST_PAUSE


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of a join whose outcomes were all there.

    Attributes:
        joins: those that it has told something.
        is_over: nothing can come any more; False where a task that has failed may be resumed.
    """

    joins: Sequence[Join]
    is_over: bool


class Joiner:
    """One thread of a worker process, started by the first join.

    Args:
        app: whose workflows they are.
        maker: makes what follows.
        sending: sends it.
        limits: of the messages in a join.
        call_later: runs something on the control thread after some seconds.
        keeps_failures: whether steps of which nothing comes are kept, as failed ones are.
    """

    def __init__(
        self,
        app: App,
        maker: StepMaker,
        sending: Sending,
        limits: Limits,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        keeps_failures: bool,
    ) -> None:
        self._app, self._maker, self._sending = app, maker, sending
        self._limits, self._call_later, self._keeps_failures = limits, call_later, keeps_failures
        self._aside: Aside[_Item] = Aside("amqp-tasks-joins", self._work)
        self._todo, self._closing = self._aside.todo, self._aside.closing
        # Of the task that brought the outcome, or the watch, that is being dealt with. That thread alone writes and reads it.
        self._queue_name = ""

    def look(self, joins: Sequence[Join], queue_name: str, then: Callable[[], None]) -> None:
        """Look at the joins that got an outcome, then call `then`. Any thread; returns at once.

        Args:
            joins: which.
            queue_name: the queue of the task that they got it from: what cannot be sent is kept in its dead letters.
            then: called when all is done.
        """
        first, *others = joins
        following = partial(self.look, others, queue_name, then) if others else then
        self._aside.put(_Look(first, queue_name, following))

    def watch(
        self,
        watch: JoinWatch,
        queue_name: str,
        then: Callable[[], None],
        set_aside: Callable[[str], None],
    ) -> None:
        """Look at a join by the clock, then call `then`: see `next_watch`. On this thread, see `run`.

        Args:
            watch: what the look before has found.
            queue_name: the queue that brought it, and is to bring the next look.
            then: called once, when the join has ended or the message of the next look is confirmed.
            set_aside: called in its place, with the reason, when the join stays and is not looked at before somebody asks for it.
        """
        self._queue_name = queue_name
        try:
            following = self._watch_once(watch)
            if isinstance(following, JoinWatch):
                message = watch_message(following, exchange="", routing_key=queue_name)
                self._sending.send_once(Steps(messages=[message]))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the watch must not be forgotten
            _log_again(watch.queue, _WATCH_PAUSE, exc)
            again = partial(self.run, partial(self.watch, watch, queue_name, then, set_aside))
            self._call_later(_WATCH_PAUSE, again)
        else:
            if isinstance(following, str):
                set_aside(following)
            else:
                then()

    def run(self, work: Callable[[], None]) -> None:
        """Do something that may wait for the broker, aside. Any thread; returns at once."""
        self._aside.put(work)

    def close(self, *, timeout: float) -> None:
        """Begin nothing more. What was not looked at by now stays unsettled, so that its redelivery is."""
        self._aside.close(timeout=timeout)

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
        pause = max(look.pause for look in waiting)
        is_early = pause <= _LAST_DOUBT
        self._queue_name = waiting[0].queue_name
        try:
            self._look_through(
                queue, waiting[0].join.size, doubts=is_early and pause > _FIRST_PAUSE, waits=is_early
            )
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the outcome is stored; the look must not be forgotten
            _log_again(queue, pause, exc)
            # Two that have each read a part of it are not to do so again and again.
            soon = pause * random.uniform(1.0, 1.5)  # noqa: S311 - no secret
            for look in waiting:
                again = replace(look, pause=min(_MAX_PAUSE, pause * 2))
                self._call_later(soon, partial(self._aside.put, again))
        else:
            for look in waiting:
                _safely(look.then)

    def _look_through(self, queue: str, size: int, *, doubts: bool = False, waits: bool = False) -> None:
        """Look at a join, and at those that wait for it if it tells them something, however far that goes.

        One that has told others goes after them: a death in between has its look begin anew, and theirs with it.
        """
        self._follow(queue, self._look_at(queue, size, doubts=doubts, waits=waits), waits=waits)

    def _follow(self, queue: str, found: _Found | None, *, waits: bool = False) -> None:
        told: list[str] = []
        looked = [(queue, found)]
        for name, seen in looked:  # grows
            if seen is not None:
                looked += [
                    (join.queue, self._look_at(join.queue, join.size, waits=waits)) for join in seen.joins
                ]
                if seen.is_over and seen.joins:
                    told.append(name)
        for name in reversed(told):
            self._app.transport.delete_queue(name)

    def _look_at(self, queue: str, size: int, *, doubts: bool = False, waits: bool = False) -> _Found | None:
        """Take a join if all may be there.

        Args:
            queue: its queue.
            size: how many outcomes it waits for, at least.
            doubts: its broker may have come back just now.
            waits: while another consumes it, nothing is said of it: who discards a workflow hands all back and looks no more.

        Raises:
            _Held: another consumes it, and `waits`, or more is counted in it than needed.
            _NothingCounted: with `doubts`, not even the outcome is counted that was confirmed before.
            AmqpTasksError: it cannot be taken now.
        """
        transport = self._app.transport
        seen = size  # outcomes and the definition must be more than this
        found = None
        while True:
            status = transport.queue_status(queue)
            if status is not None and doubts and not status.messages:
                raise _NothingCounted("nothing is counted in it")
            if status is None:
                return found
            if status.consumers and seen == size and (waits or status.messages > size):
                raise _Held("another has it")  # and may be about to delete it
            if status.messages <= seen:
                return found
            with Taking(transport, queue, status.messages, self._limits) as taking:
                try:
                    taking.read()
                except AmqpTasksError:
                    if transport.queue_status(queue) is None:
                        return found  # another was quicker
                    raise
                if taking.is_complete:
                    found = self._conclude(queue, taking)
                    if found.is_over:
                        return found
                seen = taking.count
            _wait_until_back(transport, queue, seen)

    def _watch_once(self, watch: JoinWatch) -> JoinWatch | str | None:
        """The next look; None when the join has ended, or why it stays without being watched."""
        self._look_through(watch.queue, watch.definition["size"])
        status = self._app.transport.queue_status(watch.queue)
        if status is None:
            return None
        following = next_watch(watch, status, time.time(), self._app.settings.task.chord_timeout)
        return self._give_up(watch, status, following) if isinstance(following, str) else following

    def _give_up(self, watch: JoinWatch, status: QueueStatus, why: str) -> JoinWatch | str | None:
        """End a join that cannot complete, or have it tell what is lost, unless what is found when it is held says otherwise."""
        again = watch.after(watch.pause, seen=status.messages, is_suspect=False)
        following: JoinWatch | str | None = None
        with Taking(self._app.transport, watch.queue, status.messages, self._limits) as taking:
            taking.read()
            known = taking.definition
            if known is not None and ids_in(known) != ids_in(watch.definition):
                return None  # of a later workflow with the same id, which has a watch of its own
            definition = known or taking.define(dict(watch.definition))
            missing, count = list(taking.missing()), definition["size"] + taking.added
            why = f"{count - len(missing)} of {count} outcomes are there, and {why}"
            if not missing:
                found = self._conclude(watch.queue, taking)
                following = None if found.is_over else replace(again, since=time.time())
            elif known is not None and status.messages < watch.seen:
                return again  # others held a part of it at the looks before
            elif known is None or "steps" not in known:
                _log_given_up(watch.queue, why)
                found = self._end(taking, self._lost(definition, why))
            elif any(map(self._is_there, joins_before(known, missing))):
                return replace(again, since=time.time())
            else:
                taking.check_rivals()
                _log_given_up(watch.queue, why)
                kept_as = f"{watch.queue} lost {watch.since}" if self._keeps_failures else ""
                lost = lost_steps(watch.queue, known, missing, why, kept_as=kept_as)
                self._sending.send_once(lost)
                taking.note_own(lost.messages)
                found = self._conclude(watch.queue, taking)
                following = None if found.is_over else why
        self._follow(watch.queue, found)
        return following

    def _is_there(self, queue: str) -> bool:
        return self._app.transport.queue_status(queue) is not None

    def _end(self, taking: Taking, steps: Steps) -> _Found:
        self._sending.send_once(steps)
        if not steps.joins:
            taking.delete()
        return _Found(steps.joins, is_over=True)

    def _conclude(self, queue: str, taking: Taking) -> _Found:
        """Publish what follows."""
        definition = taking.definition
        assert definition is not None
        failures = taking.kept_failures() if "steps" in definition else frozenset[str]()
        if failures and failures <= taking.told:
            # Those that wait may not have been looked at since.
            return _Found(joins_behind(definition), is_over=False)
        if failures:
            taking.check_rivals()
        steps = self._steps(queue, definition, taking.wanted(), failures)
        self._sending.send_once(steps)
        if failures:
            # Only now that it is told: a death in between has it told twice, and never not at all.
            self._sending.send_once(Steps(messages=[told_message(queue, failures)]))
        elif not steps.joins:
            taking.delete()
        return _Found(steps.joins, is_over=not failures)

    def _steps(
        self,
        queue: str,
        definition: dict[str, Any],
        ordered: Sequence[JoinOutcome],
        failures: frozenset[str],
    ) -> Steps:
        if "steps" in definition:
            whose = Whose.of_join(definition, self._queue_name)
            return named_steps(self._maker, whose, queue, definition, ordered, failures)
        if definition.get("on_complete"):
            values: list[Any] = [told_outcome(each.task_id, each.value, each.error) for each in ordered]
        else:
            failed = next((outcome for outcome in ordered if outcome.error is not None), None)
            if failed is not None:
                return self._failure(definition, _chord_error(failed))
            values = [outcome.value for outcome in ordered]
        steps = Steps()
        self._maker.start(
            steps, Whose.of_join(definition, self._queue_name), definition["body"], f"body of {queue}", args=(values,),
            rest=definition.get("chain") or (), joins=joins_in(definition),
        )  # fmt: skip
        return steps

    def _lost(self, definition: dict[str, Any], why: str) -> Steps:
        """The steps of a join whose outcomes are lost."""
        if "steps" in definition:
            whose = Whose.of_join(definition, self._queue_name)
            return emptied_steps(self._maker, whose, definition, why)
        return self._failure(definition, ChordError(f"the chord was given up: {why}"))

    def _failure(self, definition: dict[str, Any], error: ChordError) -> Steps:
        steps, rest = Steps(), definition.get("chain") or ()
        whose = Whose.of_join(definition, self._queue_name)
        self._maker.give_up(steps, whose, definition["body"], rest, joins_in(definition), error)
        return steps


def _log_again(queue: str, pause: float, error: BaseException) -> None:
    # Another worker has it, perhaps for as long as it takes to read thousands of outcomes.
    is_usual = pause <= _FIRST_PAUSE or isinstance(error, _NothingCounted)
    is_usual = is_usual or (isinstance(error, _Held) and pause <= _LAST_DOUBT)
    logger.log(
        logging.DEBUG if is_usual else logging.WARNING,
        "join %s cannot be looked at yet, trying again in %.1f s: %s",
        printable(queue), pause, printable(error_text(error), 1024), extra={"action": "join_again"},
    )  # fmt: skip


def _log_given_up(queue: str, why: str) -> None:
    logger.error("join %s is given up: %s", printable(queue), why, extra={"action": "join_given_up"})


def _chord_error(failed: JoinOutcome) -> ChordError:
    error = failed.error or {}
    said = error.get("exc_message")
    arguments = ", ".join(map(_shown, said)) if isinstance(said, list) else _shown(said)  # pyright: ignore[reportUnknownArgumentType]
    chord_error = ChordError(f"Dependency {failed.task_id} raised {error.get('exc_type')}({arguments})")
    chord_error.__cause__ = exception_from_data(error)
    return chord_error


def _shown(argument: Any) -> str:
    try:
        return repr(argument)
    except (Exception, SystemExit):  # noqa: BLE001 - a type registered for JSON may have any code in its repr
        return failed_repr(argument)


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
    except BaseException:
        # Of users' code, which routes, encodes and decodes, and may raise anything: without this thread no join of the process would be looked at.
        logger.exception("unexpected error in the workflow thread", extra={"action": "join_error"})
