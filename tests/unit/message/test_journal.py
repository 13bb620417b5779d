"""Entries of the journal: written, read, and refused when they are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amqp_routing import QueueType
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import (
    JOURNAL_NAME,
    JournalEntry,
    entry_from_data,
    fact_texts,
    journal_message,
    journal_queue,
    read_journal_entry,
)
from amqp_tasks.message._journal import MAX_ENTRY_BYTES

ENTRY = JournalEntry(kind="revoke", id="e-1", time=1.5, sender="n@h", facts={"ids": ["ä", "b"]})


def test_what_is_written_is_read() -> None:
    message = journal_message(ENTRY)

    assert (message.exchange, message.routing_key, message.mandatory) == ("", JOURNAL_NAME, True)
    assert message.properties.delivery_mode == 2
    assert read_journal_entry(message.body) == ENTRY
    assert entry_from_data(ENTRY.as_data()) == ENTRY
    assert fact_texts(ENTRY, "ids") == ("ä", "b")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 1},
        {"id": None},
        {"time": "now"},
        {"time": True},
        {"time": float("inf")},
        {"time": float("nan")},
        {"time": 10**400},
        {"sender": []},
        {"facts": []},
    ],
)
def test_an_object_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match="an entry has the texts"):
        read_journal_entry(json.dumps(ENTRY.as_data() | change).encode())


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"\xff", b"{", b'{"facts": ' + b"[" * 100_000, b" " * (MAX_ENTRY_BYTES + 1)]
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_journal_entry(body)


@pytest.mark.parametrize("ids", [None, "a", [1], {"a": 1}])
def test_facts_of_another_type_are_refused(ids: Any) -> None:
    entry = JournalEntry(kind="revoke", id="e", time=0, sender="", facts={"ids": ids})

    with pytest.raises(MalformedMessage, match="'ids' of a 'revoke' entry is no array of texts"):
        fact_texts(entry, "ids")


def test_the_journal_is_a_stream_that_forgets() -> None:
    queue = journal_queue(0.2)

    assert queue.type is QueueType.STREAM
    assert queue.declared_arguments()["x-max-age"] == "1s"
