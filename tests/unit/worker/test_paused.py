"""What the journal's entries about pauses add up to."""

from __future__ import annotations

from typing import Any

from amqp_tasks.message import JournalEntry
from amqp_tasks.worker._journal import JournalState
from amqp_tasks.worker._paused import PausedQueues


def entry(kind: str, queues: Any) -> JournalEntry:
    return JournalEntry(kind=kind, id="e", time=0.0, sender="test", facts={"queues": queues})


def test_the_last_word_about_a_queue_counts() -> None:
    paused = PausedQueues(["a", "b", "c"])
    state = JournalState((paused,))

    passed_on = state.learn([entry("pause", ["a", "b"]), entry("resume", ["a", "c"]), entry("pause", ["b"])])

    assert paused.names == {"b"}
    assert len(passed_on) == 3


def test_queues_of_others_are_not_remembered() -> None:
    paused = PausedQueues(["a"])

    paused.apply(entry("pause", [f"other-{number}" for number in range(1000)] + ["a"]))

    assert paused.names == {"a"}


def test_one_who_knows_nothing_is_told_all() -> None:
    known, new = PausedQueues(["a", "b"]), PausedQueues(["a", "b"])
    known.apply(entry("pause", ["a", "b"]))

    JournalState((new,)).learn(known.entries())
    known.apply(entry("resume", ["a", "b"]))

    assert new.names == {"a", "b"}
    assert list(known.entries()) == []


def test_an_entry_without_names_changes_nothing() -> None:
    paused = PausedQueues(["a"])
    state = JournalState((paused,))
    state.learn([entry("pause", ["a"])])

    assert state.learn([entry("resume", "a"), entry("resume", [1]), entry("resume", None)]) == []

    assert paused.names == {"a"}
