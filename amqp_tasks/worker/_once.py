"""Running what has an idempotency key once; the states are in `docs/explanation/idempotency.md`.

Every decision is made in the slot, where waiting for the store holds up nobody else, or in a process that is being ended. What is given
up elsewhere has a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from amqp_tasks.app._execution import Outcome
from amqp_tasks.app._retry import snoozed
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import EncodeError, MalformedMessage, Snooze
from amqp_tasks.idempotency import ClaimState, Holder
from amqp_tasks.message import IDEMPOTENCY_HEADER, State, printable
from amqp_tasks.serialization import DEFAULT_LIMITS
from amqp_tasks.serialization._json import decode_json, encode_json
from amqp_tasks.worker._accounts import error_text
from amqp_tasks.worker._aside import Aside
from amqp_tasks.worker._leases import LEASE, Leases

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.idempotency import Claim, IdempotencyStore
    from amqp_tasks.message import Envelope

__all__ = ("Once",)

logger = logging.getLogger(__name__)

WAIT = 5.0
"""Seconds until a task asks again whose key another one has, or whose store does not answer."""


class Once:
    """Thread safety: any thread.

    Args:
        store: None: what has a key is run like everything else, which is told once for each task.
        seconds: for which keys are remembered.
        is_for_all: a task without a key has its id as one, whatever its options say: messages are signed, and one that has come to its
            end must not be run again because somebody has published a copy of it.
    """

    def __init__(self, store: IdempotencyStore | None, *, seconds: float, is_for_all: bool = False) -> None:
        self._store, self._seconds = store, seconds
        self._is_for_all = is_for_all and store is not None
        self._leases = None if store is None else Leases(store)
        self._warned: set[str] = set()
        self._aside: Aside[Callable[[], None]] = Aside("amqp-tasks-keys", self._work)

    def heeds(self, task: Task[..., Any], envelope: Envelope) -> bool:
        """Whether the store has to be asked about a task, which may take some seconds."""
        return self._store is not None and self._key(task, envelope) is not None

    def before(
        self, task: Task[..., Any], envelope: Envelope, *, is_successor: bool = False
    ) -> Outcome | None:
        """What becomes of a task without a run; None: run it. A successor's last run is known to be over."""
        key = self._key(task, envelope)
        if key is None or self._store is None:
            return None
        holder = _new_holder(envelope)
        try:
            claim = self._claim(self._store, key, holder, is_successor=is_successor)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - any library's; the task must not run unclaimed
            logger.error(
                "task %s waits %g s, for the idempotency store cannot be asked: %s", printable(envelope.id), WAIT,
                printable(error_text(exc), 512), extra=_about(envelope),
            )  # fmt: skip
            return _later(WAIT)
        if claim.state is ClaimState.OWN:
            assert self._leases is not None
            self._leases.hold(key, holder, envelope)
            return None
        if claim.state is ClaimState.TAKEN:
            logger.info(
                "task %s waits %g s: another run has its idempotency key and has not finished", printable(envelope.id),
                WAIT, extra=_about(envelope),
            )  # fmt: skip
            return _later(WAIT)
        logger.info(
            "task %s is not run: what has its idempotency key is done", printable(envelope.id), extra=_about(envelope)
        )  # fmt: skip
        value = _decoded(claim.value)
        return Outcome(state=State.SUCCESS, value=value, retval=value, was_run=False)

    def after(self, task: Task[..., Any], envelope: Envelope, outcome: Outcome) -> None:
        """A run has ended: keep the key if it succeeded or goes on, else let others have it."""
        key = self._key(task, envelope) if outcome.was_run else None
        if key is None or self._store is None or self._leases is None:
            return
        holder = self._leases.drop(key, envelope) or _new_holder(envelope)
        with _noting(envelope):
            if outcome.again is not None:
                self._store.rest(key, holder)
            elif outcome.exception is None:
                self._store.finish(key, holder, _encoded(outcome.value), seconds=self._seconds)
            else:
                self._store.release(key, holder)

    def give_up(self, task: Task[..., Any], envelope: Envelope, *, is_over: bool = False) -> bool:
        """It will not be run, or not again: let others have the key, unless another id has it, or a run of this one.

        Args:
            task: whose.
            envelope: of the message.
            is_over: its last run is known to be.

        Returns:
            False when somebody has the key whose run may go on.
        """
        key = self._key(task, envelope)
        if key is None or self._store is None or self._leases is None:
            return True
        with _noting(envelope):
            holder = self._leases.drop(key, envelope)
            if holder is None:
                holder = _new_holder(envelope)
                claim = self._claim(self._store, key, holder, is_successor=is_over)
                if claim.state is not ClaimState.OWN:
                    return claim.state is not ClaimState.TAKEN
            self._store.release(key, holder)
        return True

    def give_up_aside(self, task: Task[..., Any], envelope: Envelope, then: Callable[[], None]) -> None:
        """Give it up, then call `then`; never, once this is closed. Returns at once."""

        def work() -> None:
            self.give_up(task, envelope)
            then()

        self._aside.put(work)

    def _work(self) -> None:
        while not self._aside.closing.is_set():
            work = self._aside.todo.get()
            if work is not None:
                try:
                    work()
                except BaseException:
                    # Of users' code, as in `Joiner`, which may raise anything: the thread is for all that comes after it.
                    logger.exception("a task cannot be ended", extra={"action": "idempotency"})

    @staticmethod
    def until_leases_end(envelope: Envelope) -> Outcome:
        """What becomes of a task that is to be given up when its last run can have no lease any more, if that has died."""
        logger.info(
            "task %s, which is not to be run again, waits %g s: its last run may have its idempotency key still",
            printable(envelope.id), LEASE, extra=_about(envelope),
        )  # fmt: skip
        return _later(LEASE)

    def close(self, *, timeout: float) -> None:
        """Give up no keys and renew no leases any more, within `timeout`; idempotent."""
        deadline = time.monotonic() + timeout
        self._aside.close(timeout=timeout)
        if self._leases is not None:
            self._leases.close(timeout=seconds_left(deadline))

    def _claim(self, store: IdempotencyStore, key: str, holder: Holder, *, is_successor: bool) -> Claim:
        return store.claim(key, holder, seconds=self._seconds, lease=LEASE, is_successor=is_successor)

    def _key(self, task: Task[..., Any], envelope: Envelope) -> str | None:
        given = envelope.headers.get(IDEMPOTENCY_HEADER)
        is_once = task.idempotent or self._is_for_all
        key = given if isinstance(given, str) and given else envelope.id if is_once else None
        if key is None:
            return None
        if self._store is None and task.name not in self._warned:
            self._warned.add(task.name)
            logger.warning(
                "task %s has an idempotency key, and is run without heeding it: set task_idempotency_store",
                printable(task.name), extra=_about(envelope),
            )  # fmt: skip
        return f"{task.name}:{key}"


@contextmanager
def _noting(envelope: Envelope) -> Generator[None]:
    try:
        yield
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the task has run, and that must not be forgotten
        logger.error(
            "the end of task %s cannot be noted in the idempotency store: %s", printable(envelope.id),
            printable(error_text(exc), 512), extra=_about(envelope),
        )  # fmt: skip


def _new_holder(envelope: Envelope) -> Holder:
    return Holder(envelope.id, uuid4().hex)


def _later(seconds: float) -> Outcome:
    signal = Snooze(seconds)
    return Outcome(state="SNOOZED", exception=signal, again=snoozed(signal), was_run=False)


def _encoded(value: Any) -> bytes:
    try:
        return encode_json(value)
    except EncodeError:
        return b"null"  # whoever waits for this run gets the error; a repetition has no better value


def _decoded(body: bytes) -> Any:
    try:
        return decode_json(body, DEFAULT_LIMITS)
    except MalformedMessage:
        return None


def _about(envelope: Envelope) -> dict[str, str]:
    return {"action": "idempotency", "task_id": envelope.id, "task_name": envelope.task}
