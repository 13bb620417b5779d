"""One delivery on its way through a worker process."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import ERROR_TIME

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.message import Envelope
    from amqp_tasks.transport import Delivery

__all__ = ("Job", "first_name", "key_of", "name_of", "run_name")


def run_name(task_id: str, retries: int = 0, snoozes: int = 0) -> str:
    """What logs call one run of a task. An id that could forge a line is named by its digest.

    Args:
        task_id: of the task.
        retries: how many runs were followed by a retry.
        snoozes: how many by another run.
    """
    if not task_id.isprintable():
        task_id = f"sha256:{sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()}"
    if retries:
        task_id = f"{task_id} retry {retries}"
    return f"{task_id} snooze {snoozes}" if snoozes else task_id


def key_of(
    task_id: str,
    retries: int = 0,
    snoozes: int = 0,
    *,
    queue_name: str,
    message_id: str | None = None,
    set_aside: str | None = None,
) -> str:
    """What names one run of one message: a retry or a snooze is published under the same id, and is no redelivery. Nor is another
    message whose caller has used an id again, what an exchange has put into another queue, or a dead letter that was moved back.

    Args:
        task_id, retries, snoozes: see `run_name`.
        queue_name: where it lies: a message is delivered again where it was delivered first.
        message_id: of the message, if it has one: those whose id is of the caller's own do.
        set_aside: when it was, if it was moved back by other tools than ours, which count that as a snooze.
    """
    mark = (
        _mark(queue_name, message_id or "", set_aside or "")
        if message_id or set_aside
        else _mark_of(queue_name)
    )
    return f"{run_name(task_id, retries, snoozes)} message {mark}"


def _mark(*parts: str) -> str:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@lru_cache(maxsize=1024)
def _mark_of(queue_name: str) -> str:
    """The same for most messages: this is asked of each delivery."""
    return _mark(queue_name)


_MESSAGE = re.compile(r" message [0-9a-f]{16}$")
_LATER_RUN = re.compile(r"( retry \d+)?( snooze \d+)?$")


def first_name(key: str) -> str:
    """What logs call the first run of a task, from the key of any."""
    return _LATER_RUN.sub("", name_of(key))


def name_of(key: str) -> str:
    """What logs call the run with this key: all of it but which message it came by."""
    return _MESSAGE.sub("", key)


# Not a dataclass: one is made per delivery on the hot path.
class Job:
    """A delivery, what its headers say, and how far it got.

    Attributes:
        delivery: replaced when a redelivery is adopted; read and written under the ledger's lock.
        envelope: None when the headers could not be read.
        task: None when it is refused.
        key: see `key_of`.
        crashes: how often its process died; above zero it runs alone.
        has_awaited_news: it was held until other nodes could have told of more crashes.
        is_acked: acked before it ran (`acks_late=False`).
        is_kept: it lies elsewhere as well, as a dead letter or as its next run, or is about to.
        is_refused: its end is no ack; the queue's own dead-letter exchange, if any, gets the message.
        end: as what it is counted when it is settled, one of `amqp_tasks.message.ENDS`; "": it goes on elsewhere, or was counted before.
        last_step: what must be done after its outcome is stored and before its ack; gets what goes on with that.
        turn: monotonic time of its turn under its task's rate limit; 0.0: it has none.
    """

    __slots__ = (
        "_run",
        "crashes",
        "delivery",
        "end",
        "envelope",
        "has_awaited_news",
        "is_acked",
        "is_kept",
        "is_refused",
        "key",
        "last_step",
        "task",
        "turn",
    )

    def __init__(
        self,
        delivery: Delivery,
        envelope: Envelope | None = None,
        task: Task[..., Any] | None = None,
        run: Callable[[Job, int], None] | None = None,
    ) -> None:
        self.delivery = delivery
        self.envelope = envelope
        self.task = task
        self.key = ""
        if envelope is not None:
            set_aside = envelope.headers.get(ERROR_TIME)
            self.key = key_of(
                envelope.id, envelope.retries, envelope.snoozes,
                queue_name=delivery.queue_name, message_id=envelope.properties.message_id,
                set_aside=set_aside if isinstance(set_aside, str) else None,
            )  # fmt: skip
        self.crashes = 0
        self.is_acked = self.is_kept = self.is_refused = self.has_awaited_news = False
        self.end = "done"
        self.last_step: Callable[[Callable[[], None]], None] | None = None
        self.turn = 0.0
        self._run = run

    @property
    def name(self) -> str:
        """What logs call it."""
        return name_of(self.key)

    @property
    def goes_to_broker(self) -> bool:
        """Whether it ends by a refusal, after which it is the broker's to keep."""
        return self.is_refused and not self.is_acked

    @property
    def has_last_words(self) -> bool:
        """Whether its task wants to know of its end (`on_dead`)."""
        return self.task is not None and "on_dead" in self.task.hooks

    def instead(self, run: Callable[[Job, int], None]) -> Job:
        """The same delivery with something else to be done about it in a slot, alone."""
        job = Job(self.delivery, self.envelope, self.task, run)
        job.crashes = max(1, self.crashes)
        return job

    def run(self, slot: int) -> None:
        """See `Runnable.run`."""
        assert self._run is not None
        self._run(self, slot)
