"""What a process has counted of tasks, as an entry of a stream; see "The counts" in `docs/explanation/account.md`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from amqp_routing import Queue, QueueType
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import OutgoingMessage
from amqp_tasks.message._journal import JournalEntry, fact_text, journal_message
from amqp_tasks.message._process import current_origin, new_task_id
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("ACCOUNT_NAME", "COUNTED", "ENDS", "CountReport", "account_queue", "count_message", "read_counts")

ACCOUNT_NAME = "amqp_tasks.account"
ENDS: tuple[str, ...] = ("done", "failed", "revoked", "expired")
COUNTED: tuple[str, ...] = ("accepted", "unknown", *ENDS)
_KIND = "counts"
_MAX_BYTES = 100_000_000
_SEGMENT_BYTES = 4_000_000
"""The broker drops whole segments only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountReport:
    """What one process has counted in its life so far: of its reports the newest one holds for all.

    Attributes:
        of: names that life; a forked child has one of its own.
        number: of the report, from 1.
        is_last: the process has ended in order, and counts no more.
        counts: tasks, by `COUNTED`.
    """

    of: str
    number: int
    is_last: bool
    counts: Mapping[str, int]


def account_queue() -> Queue:
    """The stream of the reports."""
    arguments = {"x-stream-max-segment-size-bytes": _SEGMENT_BYTES}
    return Queue(ACCOUNT_NAME, type=QueueType.STREAM, max_length_bytes=_MAX_BYTES, arguments=arguments)


def count_message(report: CountReport, *, time: float) -> OutgoingMessage:
    """The message that adds a report to the stream; `time`: seconds since 1970.

    Not mandatory: where nobody has declared the stream nobody wants to know.
    """
    facts = {
        "of": report.of,
        "number": report.number,
        "is_last": report.is_last,
        "counts": dict(report.counts),
    }
    entry = JournalEntry(kind=_KIND, id=new_task_id(), time=time, sender=current_origin(), facts=facts)
    message = journal_message(entry, queue_name=ACCOUNT_NAME)
    message.mandatory = False
    return message


def read_counts(entry: JournalEntry) -> CountReport | None:
    """The report in an entry; None: it is of another kind.

    Raises:
        MalformedMessage: it says that it is one, and is none.
    """
    if entry.kind != _KIND:
        return None
    number, is_last, counts = (entry.facts.get(name) for name in ("number", "is_last", "counts"))
    if not (type(number) is int and isinstance(is_last, bool) and _are_counts(counts)):
        raise MalformedMessage(DeadLetterReason.BAD_BODY, f"{entry.facts!r:.200} are no counts")
    return CountReport(
        of=fact_text(entry, "of"), number=number, is_last=is_last, counts=cast("dict[str, int]", counts)
    )


def _are_counts(found: Any) -> bool:
    return isinstance(found, dict) and all(
        type(value) is int and value >= 0 for value in cast("dict[str, Any]", found).values()
    )
