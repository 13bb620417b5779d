"""Entries of the journal, the stream from which every node learns what all must know; see `docs/explanation/journal.md`."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from amqp_routing import Queue, QueueType
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import OutgoingMessage, Properties, signed_for_queue
from amqp_tasks.serialization import DEFAULT_LIMITS
from amqp_tasks.serialization._json import decode_json, encode_json
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "JOURNAL_NAME",
    "JournalEntry",
    "entry_from_data",
    "fact_text",
    "fact_texts",
    "is_time",
    "journal_message",
    "journal_queue",
    "read_journal_entry",
)

JOURNAL_NAME = "amqp_tasks.journal"
MAX_ENTRY_BYTES = 512 * 1024
_SEGMENT_BYTES = 1_000_000
"""The broker drops whole segments only; its own size of half a gigabyte would keep a small journal for ever."""
_MAX_BYTES = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """What is said to all nodes.

    Attributes:
        kind: what it says, e.g. `revoke`; it defines the facts.
        id: unique; an entry that was published twice is one.
        time: seconds since 1970, by the sender's clock.
        sender: the node, or `gen<pid>@<host>`.
        facts: JSON values by name.
    """

    kind: str
    id: str
    time: float
    sender: str
    facts: Mapping[str, Any]

    def as_data(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


def journal_queue(max_age: float) -> Queue:
    """The stream; entries leave it after about `max_age` seconds."""
    arguments = {
        "x-max-age": f"{max(1, math.ceil(max_age))}s",
        "x-stream-max-segment-size-bytes": _SEGMENT_BYTES,
    }
    return Queue(JOURNAL_NAME, type=QueueType.STREAM, max_length_bytes=_MAX_BYTES, arguments=arguments)


def journal_message(entry: JournalEntry, *, queue_name: str = JOURNAL_NAME) -> OutgoingMessage:
    """The message that adds an entry to the journal, or to another stream of entries.

    Raises:
        EncodeError: a fact that JSON cannot hold.
    """
    properties = Properties(content_type="application/json", content_encoding="utf-8", message_id=entry.id)
    return OutgoingMessage(
        exchange="",
        routing_key=queue_name,
        body=encode_json(entry.as_data()),
        properties=properties,
        signed_as=signed_for_queue(queue_name),
    )


def read_journal_entry(body: bytes) -> JournalEntry:
    """The entry in a message's body; kind and facts may be any.

    Raises:
        MalformedMessage: it is none.
    """
    if len(body) > MAX_ENTRY_BYTES:
        raise MalformedMessage(
            DeadLetterReason.TOO_LARGE, f"{len(body)} bytes, an entry has at most {MAX_ENTRY_BYTES}"
        )
    return entry_from_data(decode_json(body, DEFAULT_LIMITS))


def entry_from_data(data: Any) -> JournalEntry:
    """The entry that `JournalEntry.as_data` described.

    Raises:
        MalformedMessage: it does not describe one.
    """
    found = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    kind, entry_id, time = found.get("kind"), found.get("id"), found.get("time")
    sender, facts = found.get("sender"), found.get("facts")
    if not (
        is_time(time)
        and isinstance(facts, dict)
        and all(isinstance(x, str) for x in (kind, entry_id, sender))
    ):
        raise MalformedMessage(
            DeadLetterReason.BAD_BODY,
            "an entry has the texts kind, id and sender, a number time and an object facts",
        )
    return JournalEntry(
        kind=cast("str", kind),
        id=cast("str", entry_id),
        time=float(cast("float", time)),
        sender=cast("str", sender),
        facts=cast("dict[str, Any]", facts),
    )


def is_time(found: object) -> bool:
    """Whether it is a number of seconds: finite, and no integer too large for a float, which JSON can hold."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= sys.float_info.max


def fact_text(entry: JournalEntry, name: str) -> str:
    """The fact `name`, which must be a text.

    Raises:
        MalformedMessage: it is not.
    """
    found = entry.facts.get(name)
    if not isinstance(found, str):
        raise MalformedMessage(DeadLetterReason.BAD_BODY, f"{name!r} of a {entry.kind!r} entry is no text")
    return found


def fact_texts(entry: JournalEntry, name: str) -> tuple[str, ...]:
    """The fact `name`, which must be an array of texts.

    Raises:
        MalformedMessage: it is not.
    """
    found: Any = entry.facts.get(name)
    texts = cast("list[str]", found) if isinstance(found, list) else None
    if texts is None or not all(type(each) is str for each in texts):
        raise MalformedMessage(
            DeadLetterReason.BAD_BODY, f"{name!r} of a {entry.kind!r} entry is no array of texts"
        )
    return tuple(texts)
